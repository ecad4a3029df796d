//! The part of a snapshot that says where requests go: upstream groups, and the routes to them.

use super::build::{Building, Inherited};
use super::error::suggestion;
use super::file::{self, Section, Typed};
use super::value::{self, Judged, quoted, text};
use super::{endpoint, pattern};
use crate::policy::balance::{Balance, Endpoint, Group};
use crate::policy::route::{Entry, HostPattern, Mode, PathPattern, Route, Routes};
use crate::policy::tls::UpstreamTls;
use crate::proto::close;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use toml::{Spanned, Value};

/// Service restart, in the registry of RFC 6455 section 11.7.
const UPSTREAM_LOSS_CODE: u16 = 1012;

const NO_UPSTREAM: &str = "missing; write the name of an [[upstream]], or a URL such as \"ws://10.0.0.1:9000\"";

/// Where the routes that were built already stand: each name, and each pair of host and path, is there once.
#[derive(Default)]
struct Seen {
    names: HashMap<String, Range<usize>>,
    patterns: HashMap<(HostPattern, PathPattern), Range<usize>>,
}

impl Building<'_, '_> {
    pub fn groups(&mut self, typed: &[Section<file::Upstream>]) -> Vec<Arc<Group>> {
        let mut groups: Vec<Arc<Group>> = Vec::new();
        for section in typed {
            let one = section.get_ref();
            let endpoints = self.list("upstream.endpoints", &one.endpoints, |v| endpoint::endpoint(text(v)?));
            if one.endpoints.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
                let at = one.endpoints.as_ref().map_or(section.span(), Spanned::span);
                let why = "missing; write for example endpoints = [\"ws://10.0.0.1:9000\"]";
                self.problems.add(at, "upstream.endpoints", why);
            }
            let balances = [(Balance::RoundRobin.name(), Balance::RoundRobin)];
            let balance =
                self.take("upstream.balance", &one.balance, Balance::default(), |v| value::word(v, &balances));
            let name = match &one.name {
                None => {
                    let why = "missing; write the name that routes use, for example name = \"app\"";
                    self.problems.add(section.span(), "upstream.name", why);
                    continue;
                }
                Some(_) => self.take("upstream.name", &one.name, String::new(), value::name),
            };
            if let (true, Some(at)) = (!name.is_empty() && groups.iter().any(|other| other.name == name), &one.name) {
                let why = format!("{} is the name of another upstream; write another", quoted(&name));
                self.problems.add(at.span(), "upstream.name", &why);
            }
            let tls = self.upstream_tls(&one.tls, section.span());
            groups.push(Arc::new(Group { name, index: groups.len(), endpoints, balance, tls }));
        }
        groups
    }

    /// URLs written in a route become groups of their own, one for each URL.
    pub fn routes(
        &mut self,
        typed: &[Section<file::Route>],
        groups: &mut Vec<Arc<Group>>,
        inherited: &Inherited,
    ) -> Routes {
        let mut seen = Seen::default();
        let mut entries = Vec::new();
        for section in typed {
            let group = self.group(section, groups);
            let host = self.take("route.host", &section.get_ref().host, HostPattern::Any, |v| pattern::host(text(v)?));
            let all = PathPattern::Under(String::new());
            let path = self.take("route.path", &section.get_ref().path, all, |v| pattern::path(text(v)?));
            self.once(section, &mut seen, (&host, &path));
            if let Some(group) = group {
                let route = Arc::new(self.route(section.get_ref(), &path, group, inherited));
                entries.push(Entry { host, path, route });
            }
        }
        if typed.is_empty() {
            let right = "missing; write a section [[route]] with upstream = \"ws://10.0.0.1:9000\"";
            self.problems.add(0..0, "route", right);
        }
        Routes::new(entries)
    }

    fn group(&mut self, section: &Section<file::Route>, groups: &mut Vec<Arc<Group>>) -> Option<Arc<Group>> {
        let typed = &section.get_ref().upstream;
        if typed.is_none() {
            self.problems.add(section.span(), "route.upstream", NO_UPSTREAM);
        }
        match self.read("route.upstream", typed, |v| upstream(v, groups))? {
            Upstream::Known(group) => Some(group),
            Upstream::Inline(endpoint) => {
                let group = Arc::new(Group {
                    name: endpoint.url.clone(),
                    index: groups.len(),
                    endpoints: vec![endpoint],
                    balance: Balance::default(),
                    tls: UpstreamTls::default(),
                });
                groups.push(Arc::clone(&group));
                Some(group)
            }
        }
    }

    /// Tells a second route with the same name, or for the same requests.
    fn once(&mut self, section: &Section<file::Route>, seen: &mut Seen, of: (&HostPattern, &PathPattern)) {
        let route = section.get_ref();
        let name = route_name(route);
        if let Some(other) = seen.patterns.insert((of.0.clone(), of.1.clone()), section.span()) {
            let line = self.problems.line(&other);
            let at = route.path.as_ref().or(route.host.as_ref()).map_or(section.span(), Spanned::span);
            let why = format!("host and path are those of the route in line {line}; change one of the two");
            self.problems.add(at, "route.path", &why);
        } else if let Some(other) = seen.names.insert(name.clone(), section.span()) {
            let line = self.problems.line(&other);
            let at = route.name.as_ref().map_or(section.span(), Spanned::span);
            let why = format!("{} is the name of the route in line {line}; write another", quoted(&name));
            self.problems.add(at, "route.name", &why);
        }
    }

    fn route(&mut self, typed: &file::Route, path: &PathPattern, group: Arc<Group>, inherited: &Inherited) -> Route {
        let modes = [Mode::Framed, Mode::Opaque].map(|mode| (mode.name(), mode));
        self.read("route.name", &typed.name, value::name);
        let strip = |v: &Value| pattern::strip_prefix(text(v)?, path);
        let limits = &typed.limits;
        for (key, at) in [("tls", &typed.timeouts.tls), ("request_head", &typed.timeouts.request_head)] {
            if let Some(at) = at {
                let why = "runs before a route is known; write it in [timeouts]";
                self.problems.add(at.span(), &format!("route.timeouts.{key}"), why);
            }
        }
        Route {
            name: route_name(typed),
            group,
            strip_prefix: self.read("route.strip_prefix", &typed.strip_prefix, strip),
            host_header: self.read("route.host_header", &typed.host_header, |v| pattern::host_header(text(v)?)),
            mode: self.take("route.mode", &typed.mode, Mode::default(), |v| value::word(v, &modes)),
            rules: self.rules("route.limits", &limits.max_frame, &limits.max_message, inherited.rules),
            timeouts: self.timeouts("route.timeouts", &typed.timeouts, &inherited.timeouts),
            on_upstream_loss: self.on_upstream_loss(&typed.on_upstream_loss, &typed.on_upstream_loss_code),
            splice: self.splice(typed),
        }
    }

    fn splice(&mut self, typed: &file::Route) -> bool {
        let words = [("off", false), ("on", true)];
        let opaque = typed.mode.as_ref().is_some_and(|mode| text(mode.get_ref()) == Ok(Mode::Opaque.name()));
        self.take("route.splice", &typed.splice, false, |v| match value::word(v, &words) {
            Ok(true) if opaque => Err("is for mode = \"framed\": where no header is read, no payload is known".into()),
            judged => judged,
        })
    }

    fn on_upstream_loss(&mut self, typed: &Typed, code: &Typed) -> Option<u16> {
        let words = [("pass", false), ("close", true)];
        let close = self.take("route.on_upstream_loss", typed, false, |v| value::word(v, &words));
        let chosen = self.take("route.on_upstream_loss_code", code, UPSTREAM_LOSS_CODE, close_code);
        close.then_some(chosen)
    }
}

enum Upstream {
    Known(Arc<Group>),
    Inline(Endpoint),
}

fn upstream(value: &Value, groups: &[Arc<Group>]) -> Judged<Upstream> {
    let text = text(value)?;
    if let Some(group) = groups.iter().find(|group| group.name == text) {
        return Ok(Upstream::Known(Arc::clone(group)));
    }
    if endpoint::is_url(text) {
        return endpoint::endpoint(text).map(Upstream::Inline);
    }
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).filter(|name| !endpoint::is_url(name)).collect();
    let right = match names.as_slice() {
        [] => "; write an [[upstream]] section with that name, or a URL such as \"ws://10.0.0.1:9000\"".to_owned(),
        names => suggestion(text, names),
    };
    Err(format!("no [[upstream]] is named {}{right}", quoted(text)))
}

/// As in [`Route::name`].
fn route_name(route: &file::Route) -> String {
    let text = |typed: &Typed| typed.as_ref().and_then(|typed| typed.get_ref().as_str()).map(str::to_owned);
    let host_and_path =
        || text(&route.host).unwrap_or_default() + &text(&route.path).unwrap_or_else(|| "/*".to_owned());
    text(&route.name).unwrap_or_else(host_and_path)
}

fn close_code(value: &Value) -> Judged<u16> {
    let code = value.as_integer().and_then(|code| u16::try_from(code).ok()).filter(|code| close::may_pass(*code));
    code.ok_or_else(|| {
        let right = "write 1000 to 1003, 1007 to 1014, or 3000 to 4999";
        format!("{} is not a close code that may be sent; {right}", value::shown(value))
    })
}
