//! Routes: `[[route]]`.

use super::access::Lists;
use super::build::Builder;
use super::error::suggestion;
use super::file::{self, Section, Typed};
use super::value::{self, Parsed, quoted, text};
use super::{endpoint, pattern};
use crate::policy::auth::{Form, Method};
use crate::policy::endpoint::Endpoint;
use crate::policy::headers::Direction;
use crate::policy::limit::SessionLimit;
use crate::policy::matching::{Entry, HostPattern, PathPattern, Routes};
use crate::policy::route::{Protocols, Route, RouteAction};
use crate::policy::upstream::Upstream;
use crate::proto::close;
use crate::proto::end::Cause;
use crate::proto::handshake::ForwardingHeaders;
use crate::proto::settings::{
    BAD_GATEWAY, CREDENTIALS_EXPIRED, CREDENTIALS_REVOKED, EndpointDown, Failure, Mode, RelaySettings, RetryOn,
    SERVICE_RESTART, Settings,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use toml::{Spanned, Value};

const NO_UPSTREAM: &str = "missing; expected the name of an [[upstream]] or a URL such as \"ws://10.0.0.1:9000\"";

/// The names and patterns of earlier routes, which must be unique, with their places.
#[derive(Default)]
struct Seen {
    names: HashMap<String, Range<usize>>,
    identities: HashMap<String, Range<usize>>,
}

impl Builder<'_, '_> {
    /// A URL in a route becomes an upstream of its own, one per URL.
    pub fn routes(
        &mut self,
        typed: &[Section<file::Route>],
        (upstreams, methods): (&mut Vec<Arc<Upstream>>, &[Arc<Method>]),
        inherited: &Settings,
    ) -> Routes {
        let mut seen = Seen::default();
        let mut entries = Vec::new();
        for section in typed {
            let host = self.take("route.host", &section.get_ref().host, HostPattern::Any, |v| pattern::host(text(v)?));
            let all = PathPattern::Under(String::new());
            let path = self.take("route.path", &section.get_ref().path, all, |v| pattern::path(text(v)?));
            let conditions = self.conditions(section.get_ref());
            let priority = self.take("route.priority", &section.get_ref().priority, 0, priority);
            let action = self.action(section, upstreams, &path.names());
            if let Some(action) = action {
                let refresh = self.refresh_form(section.get_ref());
                let mut route = self.route((section.get_ref(), refresh.as_ref()), &path, action, inherited);
                route.shadow = self.shadow(section.get_ref(), upstreams);
                route.auth = self.route_auth(section.get_ref(), methods);
                route.renewal = self.renewal(section.get_ref(), (refresh, route.auth.as_ref()));
                (route.by_address, route.by_identity) = self.client_limits(section.get_ref());
                let entry = Entry { host, path, conditions, priority, route: Arc::new(route) };
                self.check_unique(section, &mut seen, &entry);
                entries.push(entry);
            }
        }
        if typed.is_empty() {
            let right = "missing; add a [[route]] section with upstream = \"ws://10.0.0.1:9000\"";
            self.problems.add(0..0, "route", right);
        }
        Routes::new(entries)
    }

    /// What the route does with a request. `captures`: the names in its path.
    fn action(
        &mut self,
        section: &Section<file::Route>,
        upstreams: &mut Vec<Arc<Upstream>>,
        captures: &[&str],
    ) -> Option<RouteAction> {
        let route = section.get_ref();
        self.check_action(route);
        let split = self.split(section, upstreams);
        if route.files.is_some() {
            return self.files(&route.files).map(RouteAction::Files);
        }
        match (&route.respond, &route.redirect) {
            (Some(respond), _) => return Some(RouteAction::Respond(self.respond(respond, captures))),
            (None, Some(redirect)) => return self.redirect(redirect, captures).map(RouteAction::Redirect),
            (None, None) if route.split.is_some() => return split,
            (None, None) => {}
        }
        let typed = &section.get_ref().upstream;
        if typed.is_none() {
            self.problems.add(section.span(), "route.upstream", NO_UPSTREAM);
        }
        let destination = self.read("route.upstream", typed, |v| destination(v, upstreams))?;
        Some(RouteAction::Proxy(self.upstream_for(destination, upstreams)))
    }

    /// A URL becomes an upstream of its own.
    pub fn upstream_for(&mut self, destination: Destination, upstreams: &mut Vec<Arc<Upstream>>) -> Arc<Upstream> {
        match destination {
            Destination::Named(upstream) => upstream,
            Destination::Inline(endpoint) => {
                let upstream =
                    Arc::new(Upstream::new(endpoint.url.clone(), vec![(*endpoint).into()], Default::default()));
                upstreams.push(Arc::clone(&upstream));
                upstream
            }
        }
    }

    /// Reports a second route with the same name, or one that matches the same.
    fn check_unique(&mut self, section: &Section<file::Route>, seen: &mut Seen, entry: &Entry) {
        let route = section.get_ref();
        let name = &entry.route.name;
        if let Some(other) = seen.identities.insert(entry.identity(), section.span()) {
            let line = self.problems.line(&other);
            let at = route.path.as_ref().or(route.host.as_ref()).map_or(section.span(), Spanned::span);
            let what = if entry.conditions.is_empty() { "host and path" } else { "host, path and conditions" };
            self.problems.add(at, "route.path", &format!("same {what} as the route in line {line}"));
        } else if let Some(other) = seen.names.insert(name.clone(), section.span()) {
            let line = self.problems.line(&other);
            let at = route.name.as_ref().map_or(section.span(), Spanned::span);
            let right = if route.name.is_some() { "choose another" } else { "add a name to one of them" };
            let why = format!("{} is also the name of the route in line {line}; {right}", quoted(name));
            self.problems.add(at, "route.name", &why);
        }
    }

    fn route(
        &mut self,
        (typed, refresh): (&file::Route, Option<&Form>),
        path: &PathPattern,
        action: RouteAction,
        inherited: &Settings,
    ) -> Route {
        self.read("route.name", &typed.name, value::name);
        for (key, at) in [
            ("tls", &typed.timeouts.tls),
            ("request_head", &typed.timeouts.request_head),
            ("keep_alive", &typed.timeouts.keep_alive),
        ] {
            if let Some(at) = at {
                let why = "applies before a route is selected; set it in [timeouts]";
                self.problems.add(at.span(), &format!("route.timeouts.{key}"), why);
            }
        }
        let timeouts = self.timeouts("route.timeouts", &typed.timeouts, &inherited.timeouts);
        let retry_on = self.retry_on(typed);
        let max_sessions = self.read("route.limits.max_sessions", &typed.limits.max_sessions, value::sessions);
        let relay = self.relay_settings((typed, refresh), &inherited.relay);
        let max_body = self.max_body("route.limits", &typed.limits.max_body, inherited.max_body);
        let (allow, deny, deny_file) = (&typed.allow, &typed.deny, &typed.deny_file);
        Route {
            origins: self.origins(&typed.origins),
            access: self.access("route", &Lists { allow, deny, deny_file }),
            rewrite: self.path_rewrite(typed, path, &path.names()),
            request_headers: self.header_rules(
                "route.request_headers",
                &typed.request_headers,
                Direction::Request,
                &path.names(),
            ),
            response_headers: self.header_rules(
                "route.response_headers",
                &typed.response_headers,
                Direction::Response,
                &path.names(),
            ),
            forwarding_headers: self.forwarding_headers(typed),
            host_header: self.read("route.host_header", &typed.host_header, |v| pattern::host_header(text(v)?)),
            sessions: SessionLimit::new(max_sessions),
            handshakes: self.shared_handshakes("route.limits.handshakes", &typed.limits.handshakes),
            total: self.total_rates("route.limits.total", &typed.limits.total),
            protocols: self.protocols(typed),
            settings: Arc::new(Settings { timeouts, relay, retry_on, max_body, ..inherited.clone() }),
            ..Route::with_action(route_name(typed), action)
        }
    }

    fn protocols(&mut self, typed: &file::Route) -> Protocols {
        let key = "route.protocols";
        let files = typed.files.is_some();
        let usual = if files { Protocols { websocket: false, http: true } } else { Protocols::default() };
        let Some(list) = &typed.protocols else { return usual };
        let words = [("websocket", true), ("http", false)];
        let taken = self.list(key, &typed.protocols, |v| value::word(v, &words));
        if list.get_ref().is_empty() {
            self.problems.add(list.span(), key, "takes nothing; expected \"websocket\", \"http\" or both");
        }
        if files && taken.contains(&true) {
            self.problems.add(list.span(), key, "files are served over plain HTTP alone; expected [\"http\"]");
        }
        Protocols { websocket: taken.contains(&true), http: taken.contains(&false) }
    }

    fn forwarding_headers(&mut self, typed: &file::Route) -> ForwardingHeaders {
        let words = ForwardingHeaders::ALL.map(|headers| (headers.name(), headers));
        let key = "route.forwarding_headers";
        self.take(key, &typed.forwarding_headers, ForwardingHeaders::default(), |v| value::word(v, &words))
    }

    /// A new option of the relay is a field of [`RelaySettings`], a key of [`file::Route`], a line
    /// here, and one in `example.toml`.
    fn relay_settings(
        &mut self,
        (typed, refresh): (&file::Route, Option<&Form>),
        inherited: &RelaySettings,
    ) -> RelaySettings {
        let modes = [Mode::Framed, Mode::Opaque].map(|mode| (mode.name(), mode));
        let limits = &typed.limits;
        let (error_code, down_code) = (&typed.on_upstream_error_code, &typed.on_endpoint_down_code);
        let mode = self.take("route.mode", &typed.mode, inherited.mode, |v| value::word(v, &modes));
        RelaySettings {
            mode,
            limits: self.frame_limits("route.limits", &limits.max_frame, &limits.max_message, inherited.limits),
            upstream_loss_code: self.on_upstream_loss(&typed.on_upstream_loss, &typed.on_upstream_loss_code),
            upstream_error_code: self.take("route.on_upstream_error_code", error_code, BAD_GATEWAY, close_code),
            endpoint_down: self.on_endpoint_down(&typed.on_endpoint_down),
            endpoint_down_code: self.take("route.on_endpoint_down_code", down_code, SERVICE_RESTART, close_code),
            expired_code: self.take("route.on_expired_code", &typed.on_expired_code, CREDENTIALS_EXPIRED, close_code),
            revoked_code: self.take("route.on_revoked_code", &typed.on_revoked_code, CREDENTIALS_REVOKED, close_code),
            splice: self.splice(typed),
            flow: self.flow_limits("route.limits", limits.flow(), &inherited.flow, mode),
            heartbeat: self.heartbeat(typed),
            refresh: refresh.and_then(|form| self.refresh_messages(typed, form)),
        }
    }

    fn on_endpoint_down(&mut self, typed: &Typed) -> EndpointDown {
        self.take("route.on_endpoint_down", typed, EndpointDown::Keep, |v| match v.as_str() {
            Some("keep") => Ok(EndpointDown::Keep),
            Some("close") => Ok(EndpointDown::Close { spread_ms: 0 }),
            Some(_) => match value::timeout(v) {
                Ok(spread_ms) => Ok(EndpointDown::Close { spread_ms }),
                Err(error) => Err(format!("{error}, or \"keep\" or \"close\"")),
            },
            None => value::text(v).map(|_| EndpointDown::Keep),
        })
    }

    fn retry_on(&mut self, typed: &file::Route) -> RetryOn {
        let mut retry_on = RetryOn::default();
        let failures = self.list("route.retry_on", &typed.retry_on, failure);
        for failure in failures {
            match failure {
                Failure::Closed => retry_on.closed = true,
                Failure::Timeout => retry_on.timeout = true,
                Failure::Status(status) => retry_on.statuses.push(status),
            }
        }
        retry_on
    }

    fn splice(&mut self, typed: &file::Route) -> bool {
        let words = [("off", false), ("on", true)];
        let opaque = typed.mode.as_ref().is_some_and(|mode| text(mode.get_ref()) == Ok(Mode::Opaque.name()));
        self.take("route.splice", &typed.splice, false, |v| match value::word(v, &words) {
            Ok(true) if opaque => Err("requires mode = \"framed\": opaque does not read frame headers".into()),
            parsed => parsed,
        })
    }

    fn on_upstream_loss(&mut self, typed: &Typed, code: &Typed) -> Option<u16> {
        let words = [("pass", false), ("close", true)];
        let close = self.take("route.on_upstream_loss", typed, false, |v| value::word(v, &words));
        let chosen = self.take("route.on_upstream_loss_code", code, Cause::UpstreamLoss.info().code, close_code);
        close.then_some(chosen)
    }
}

/// What a route's `upstream` names.
pub enum Destination {
    Named(Arc<Upstream>),
    Inline(Box<Endpoint>),
}

pub fn destination(value: &Value, upstreams: &[Arc<Upstream>]) -> Parsed<Destination> {
    let text = text(value)?;
    if let Some(upstream) = upstreams.iter().find(|upstream| upstream.name == text) {
        return Ok(Destination::Named(Arc::clone(upstream)));
    }
    if endpoint::is_url(text) {
        return endpoint::endpoint(text).map(|endpoint| Destination::Inline(Box::new(endpoint)));
    }
    let names = upstreams.iter().map(|upstream| upstream.name.as_str());
    let names: Vec<_> = names.filter(|name| !endpoint::is_url(name)).collect();
    let right = match names.as_slice() {
        [] => "; add an [[upstream]] section with that name, or use a URL such as \"ws://10.0.0.1:9000\"".to_owned(),
        names => suggestion(text, names),
    };
    Err(format!("no [[upstream]] is named {}{right}", quoted(text)))
}

/// A failure after which a request is sent again.
fn failure(value: &Value) -> Parsed<Failure> {
    match value {
        Value::String(word) if word == "closed" => Ok(Failure::Closed),
        Value::String(word) if word == "timeout" => Ok(Failure::Timeout),
        Value::Integer(status @ 400..=599) => Ok(Failure::Status(*status as u16)),
        _ => Err(format!(
            "{} is not valid; expected \"closed\", \"timeout\" or a status from 400 to 599",
            value::shown(value)
        )),
    }
}

/// The name for [`Route::name`].
fn route_name(route: &file::Route) -> String {
    let text = |typed: &Typed| typed.as_ref().and_then(|typed| typed.get_ref().as_str()).map(str::to_owned);
    let host_and_path =
        || text(&route.host).unwrap_or_default() + &text(&route.path).unwrap_or_else(|| "/*".to_owned());
    text(&route.name).unwrap_or_else(host_and_path)
}

fn priority(value: &Value) -> Parsed<i32> {
    const MOST: i32 = 1_000_000;
    let parsed = value.as_integer().and_then(|number| i32::try_from(number).ok());
    parsed.filter(|number| (-MOST..=MOST).contains(number)).ok_or_else(|| {
        format!("{} is not a priority; expected a whole number from -{MOST} to {MOST}", value::shown(value))
    })
}

pub fn close_code(value: &Value) -> Parsed<u16> {
    let code = value.as_integer().and_then(|code| u16::try_from(code).ok()).filter(|code| close::may_pass(*code));
    code.ok_or_else(|| {
        let right = "expected 1000 to 1003, 1007 to 1014, or 3000 to 4999";
        format!("{} is not a close code that may be sent; {right}", value::shown(value))
    })
}
