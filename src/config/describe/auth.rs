//! The text of `check` for credentials.

use super::{duration_text, size};
use crate::memory::{PASSWORD_RESULT_BYTES, PASSWORD_RESULTS};
use crate::policy::auth::jwt::{Audience, Jwt, Rules};
use crate::policy::auth::{Auth, Kind, Method, Remote};
use crate::policy::matching::Routes;
use crate::policy::route::Route;
use std::fmt::{self, Write};

/// What a route asks for.
pub fn write_route(out: &mut String, auth: &Auth) -> fmt::Result {
    write!(out, ", credentials {}", auth.requirement)?;
    for (what, names) in [("scopes", &auth.scopes), ("roles", &auth.roles)] {
        if !names.is_empty() {
            write!(out, ", {what} {}", names.join(" "))?;
        }
    }
    Ok(())
}

/// What a route does when credentials are about to end.
pub fn write_renewal(out: &mut String, route: &Route) -> fmt::Result {
    let Some(renewal) = &route.renewal else { return Ok(()) };
    if let Some(warning) = &renewal.warning {
        write!(out, ", warns {} before credentials end", duration_text(warning.before_ms))?;
    }
    if let (Some(refresh), Some(form)) = (&renewal.refresh, &route.settings.relay.refresh) {
        let most = size(usize::try_from(form.max_bytes).unwrap_or(usize::MAX));
        write!(out, ", new credentials in messages of up to {most} that begin with {:?}", refresh.form.prefix())?;
    }
    Ok(())
}

/// One line about a method.
pub fn text(method: &Method) -> String {
    let from: Vec<_> = method.from.iter().map(ToString::to_string).collect();
    let from = if from.is_empty() { String::new() } else { format!(", from {}", from.join(" or ")) };
    format!("{}: {}{from}", method.name, kind_text(&method.kind))
}

/// What is remembered of passwords.
pub fn memory(routes: &Routes) -> Option<(usize, String)> {
    let asks = |auth: &Auth| auth.requirement.methods().iter().any(|one| matches!(one.kind, Kind::Basic { .. }));
    routes.entries().iter().any(|entry| entry.route.auth.as_ref().is_some_and(asks)).then(|| {
        let what = format!("{PASSWORD_RESULTS} results of passwords, {PASSWORD_RESULT_BYTES} B each");
        (PASSWORD_RESULTS * PASSWORD_RESULT_BYTES, what)
    })
}

fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::ApiKeys(keys) if keys.limited() > 0 => {
            format!("{} API keys, {} with limits of their own", keys.len(), keys.limited())
        }
        Kind::ApiKeys(keys) => format!("{} API keys", keys.len()),
        Kind::ClientCertificate => "client certificates".to_owned(),
        Kind::Jwt(jwt) => jwt_text(jwt),
        Kind::Basic { users, realm } => format!("{} users with passwords, realm \"{realm}\"", users.len()),
        Kind::Forward(forward) => {
            let copied = match forward.copy.as_slice() {
                [] => String::new(),
                names => format!(", the upstream gets {}", names.join(", ")),
            };
            let kept = match forward.cache.as_slice() {
                [] => String::new(),
                names => format!(", answers depend on {}", names.join(", ")),
            };
            format!("forward auth by {}{copied}{kept}", server_text(&forward.server))
        }
        Kind::Introspection(one) => format!("tokens, introspected by {}", server_text(&one.server)),
    }
}

fn jwt_text(jwt: &Jwt) -> String {
    let Rules { issuers, audience, leeway_s, expiry_required, required, .. } = &jwt.rules;
    let mut text = format!("tokens (JWT) by {} keys", jwt.keys.len());
    if let Some(remote) = &jwt.remote {
        text += &format!(" and those of {}, every {}", remote.config.url, duration_text(remote.config.refresh_ms));
    }
    let names = |names: &[String]| names.join(" or ");
    text += &if issuers.is_empty() { ", any issuer".to_owned() } else { format!(", issuer {}", names(issuers)) };
    text += &match audience {
        Audience::Any => ", any audience".to_owned(),
        Audience::OneOf(ours) if ours.is_empty() => ", without an audience".to_owned(),
        Audience::OneOf(ours) => format!(", audience {}", names(ours)),
    };
    text += &format!(", leeway {}", duration_text(u64::from(*leeway_s) * 1000));
    text += if *expiry_required { "" } else { ", also without an expiry" };
    for (path, _) in required {
        text += &format!(", requires {path}");
    }
    text
}

fn server_text(server: &Remote) -> String {
    let mut text = format!("{} at {}", server.path, server.upstream.name);
    text += &format!(", within {}, {} at a time", duration_text(server.timeout_ms), server.max_pending);
    for (what, ms) in [("kept", server.admitted_ms), ("refusals", server.refused_ms)] {
        if ms > 0 {
            text += &format!(", {what} for {}", duration_text(ms));
        }
    }
    text
}
