//! What happens when the credentials of a session are about to end: `credentials` of a route.

use super::build::Builder;
use super::file::{self, Section, Typed};
use super::value::{self, Parsed, quoted, text};
use crate::policy::auth::{Auth, Form, Kind, Refresh, Renewal, TEXT_MAX, Warning};
use crate::proto::settings::{Mode, RefreshForm};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use toml::Value;

const WARN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const MAX_REFRESH: u64 = 8 << 10;
const MAX_REFRESH_RANGE: RangeInclusive<u64> = 64..=64 << 10;
const NO_AUTH: &str = "has no effect without auth: the route knows no credentials";
const NOT_OPAQUE: &str = "requires mode = \"framed\": opaque does not know messages";
const NO_REFRESH: &str = "has no effect without refresh, which says what those messages are";

impl Builder<'_, '_> {
    /// Which messages of the client hold new credentials.
    pub fn refresh_form(&mut self, route: &file::Route) -> Option<Form> {
        let typed = route.credentials.as_ref()?.get_ref();
        self.read("route.credentials.refresh", &typed.refresh, |v| {
            let written = text(v)?;
            let right = "expected for example \"AUTH *\"";
            Form::parse(written).map_err(|why| format!("{} {why}; {right}", quoted(written)))
        })
    }

    /// The same as the relay is to know it.
    pub fn refresh_messages(&mut self, route: &file::Route, form: &Form) -> Option<Arc<RefreshForm>> {
        let typed = &route.credentials.as_ref()?.get_ref().max_refresh;
        let max_bytes =
            self.take("route.credentials.max_refresh", typed, MAX_REFRESH, |v| value::size(v, MAX_REFRESH_RANGE));
        Some(Arc::new(RefreshForm { prefix: form.prefix().as_bytes().into(), json: form.is_json(), max_bytes }))
    }

    /// What the route does then, besides.
    pub fn renewal(&mut self, route: &file::Route, (form, auth): (Option<Form>, Option<&Auth>)) -> Option<Renewal> {
        let section = route.credentials.as_ref()?;
        let typed = section.get_ref();
        let opaque = route.mode.as_ref().is_some_and(|mode| text(mode.get_ref()) == Ok(Mode::Opaque.name()));
        for (wrong, why) in [(route.auth.is_none(), NO_AUTH), (opaque, NOT_OPAQUE)] {
            if wrong {
                self.problems.add(section.span(), "route.credentials", why);
            }
        }
        for (key, at) in
            [("max_refresh", &typed.max_refresh), ("accepted", &typed.accepted), ("refused", &typed.refused)]
        {
            if let (Some(at), None) = (at, &typed.refresh) {
                self.problems.add(at.span(), &format!("route.credentials.{key}"), NO_REFRESH);
            }
        }
        let warning = self.warning(section);
        let refresh = form.map(|form| Refresh {
            form,
            accepted: self.message("accepted", &typed.accepted).map(Arc::from),
            refused: self.message("refused", &typed.refused).map(Arc::from),
        });
        if let (Some(at), Some(auth)) = (typed.refresh.as_ref().filter(|_| refresh.is_some()), auth)
            && let Some(why) = judges_nothing(auth)
        {
            self.problems.add(at.span(), "route.credentials.refresh", &why);
        }
        Some(Renewal { warning, refresh })
    }

    fn warning(&mut self, section: &Section<file::Renewal>) -> Option<Warning> {
        let typed = section.get_ref();
        for (has, lacks, key, example) in [
            (&typed.warn, &typed.warning, "warning", "warning = \"credentials end in {seconds} s\""),
            (&typed.warning, &typed.warn, "warn", "warn = \"60s\""),
        ] {
            if has.is_some() && lacks.is_none() {
                let why = format!("missing; add for example {example}");
                self.problems.add(section.span(), &format!("route.credentials.{key}"), &why);
            }
        }
        let before_ms = self.read("route.credentials.warn", &typed.warn, |v| value::duration(v, WARN, ""));
        let text = self.message("warning", &typed.warning);
        before_ms.zip(text).map(|(before_ms, text)| Warning { before_ms, text })
    }

    fn message(&mut self, key: &str, typed: &Typed) -> Option<String> {
        self.read(&format!("route.credentials.{key}"), typed, message)
    }
}

/// A message for clients.
fn message(value: &Value) -> Parsed<String> {
    let text = text(value)?;
    match text.len() {
        1..=TEXT_MAX => Ok(text.to_owned()),
        len => Err(format!("has {len} bytes; expected 1 to {TEXT_MAX}")),
    }
}

/// Why no message can show the credentials of the route.
fn judges_nothing(auth: &Auth) -> Option<String> {
    let methods = auth.requirement.methods();
    let nameless = methods.iter().find(|method| match &method.kind {
        Kind::Forward(forward) => forward.identity_header.is_none(),
        _ => false,
    });
    if let Some(method) = nameless {
        let name = quoted(&method.name);
        return Some(format!("needs to know whose credentials are sent; add identity_header to the [[auth]] {name}"));
    }
    let certificates_only = methods.iter().all(|method| method.kind == Kind::ClientCertificate);
    certificates_only
        .then(|| "has no effect on certificates, which are shown in the TLS handshake; remove it".to_owned())
}
