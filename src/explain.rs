//! `framegate explain`: which route a request gets and why those before it do not match, and what
//! becomes of it. Asks the policy that workers ask, with a snapshot of its own, whose endpoints
//! have no sessions. Opens nothing but the file.
//!
//! Each part of the answer is a function that appends its lines: a new part is one more of them.

use crate::clock::unix_ms;
use crate::config::{self, Error, Snapshot};
use crate::policy::ask::Check;
use crate::policy::balance::Balance;
use crate::policy::candidates::{Candidates, Next};
use crate::policy::endpoint::Address;
use crate::policy::files::Wanted;
use crate::policy::limit::Permits;
use crate::policy::matching::Mismatch;
use crate::policy::route::{Route, RouteAction};
use crate::policy::template::Variables;
use crate::policy::{self, ClientCert, Facts, Plan, Policy, ServedBy, Verdict};
use crate::proto::handshake::{self, Forwarding};
use crate::proto::http1::{self, FieldEdits, Request, parse_request};
use crate::proto::interface::Refusal;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What stands in for a request id, and for the ids of a trace.
const MADE_UP_ID: &str = "00000000000000000000000000000000";

/// A request to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub config: PathBuf,
    pub method: String,
    pub host: String,
    /// With its query.
    pub path: String,
    /// `Name: value`, each.
    pub headers: Vec<String>,
    pub subprotocols: Vec<String>,
    pub client: IpAddr,
    /// The client came over TLS.
    pub tls: bool,
    /// Of the certificate that it has shown.
    pub cert_subject: Option<String>,
    pub cert_sha256: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub text: String,
    /// A route matches.
    pub found: bool,
}

/// Why there is no answer: sentences for standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    Config(Error),
    Sample(String),
}

/// Explains `sample` under its configuration.
pub fn explain(sample: &Sample) -> Result<Explanation, Unexplained> {
    let head = sample.head().map_err(Unexplained::Sample)?;
    let request = parse_request(head.as_bytes()).map_err(|cause| {
        let info = cause.info();
        Unexplained::Sample(format!("the request would be refused with {} ({}): {}", info.status, info.name, info.text))
    })?;
    let snapshot = config::load(&sample.config).map_err(Unexplained::Config)?;
    resolve(&snapshot);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let found = write(&mut text, &snapshot, &sample.facts(&request)).unwrap_or_default();
    Ok(Explanation { text, found })
}

impl Sample {
    /// The head of the request: a WebSocket handshake, where it does not say otherwise.
    fn head(&self) -> Result<String, String> {
        let subprotocols = self.subprotocols.iter().map(|name| format!("Sec-WebSocket-Protocol: {name}"));
        let lines: Vec<_> = self.headers.iter().cloned().chain(subprotocols).collect();
        if let Some(line) = lines.iter().find(|line| !line.contains(':')) {
            return Err(format!("{line:?} is not a header; expected for example \"X-Beta: 1\""));
        }
        let path = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let all = [&self.method, &self.host, &path].into_iter().chain(&lines);
        if let Some(text) = all.into_iter().find(|text| text.chars().any(char::is_control)) {
            return Err(format!("{text:?} has a control character"));
        }
        let has = |name: &str| {
            lines.iter().any(|line| line.split(':').next().is_some_and(|has| has.trim().eq_ignore_ascii_case(name)))
        };
        let usual = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let usual = usual.iter().filter(|(name, _)| !has(name)).map(|(name, value)| format!("{name}: {value}"));
        let fields: String = usual.chain(lines.iter().cloned()).map(|line| line + "\r\n").collect();
        Ok(format!("{} {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.method, self.host))
    }

    fn facts<'a>(&'a self, request: &'a Request<'a>) -> Facts<'a> {
        let shows = self.cert_subject.is_some() || self.cert_sha256.is_some();
        let text = |value: &'a Option<String>| value.as_deref().unwrap_or_default();
        let cert = ClientCert { subject: text(&self.cert_subject), sha256: text(&self.cert_sha256) };
        Facts {
            request_id: MADE_UP_ID,
            secure: self.tls || shows,
            cert: shows.then_some(cert),
            unix_ms: unix_ms(),
            ..Facts::new(request, self.client.to_canonical())
        }
    }
}

/// Gives each name an address, because only an endpoint with one can be chosen. Nothing connects to
/// it.
fn resolve(snapshot: &Snapshot) {
    for endpoint in snapshot.upstreams.iter().flat_map(|upstream| upstream.endpoints()) {
        if matches!(endpoint.address, Address::Name(_)) {
            endpoint.set_resolved(vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))]);
        }
    }
}

/// Whether a route matches.
fn write(out: &mut String, snapshot: &Snapshot, facts: &Facts<'_>) -> Result<bool, fmt::Error> {
    write_request(out, facts)?;
    if !write_route(out, snapshot, facts)? {
        return Ok(false);
    }
    let sessions = Permits::new(1);
    let policy = Policy { routes: &snapshot.routes, sessions: &sessions, revoked: &snapshot.revoked, blocks: None };
    match policy::decide(facts, &policy, None) {
        Verdict::Allow(plan) => write_plan(out, plan, facts)?,
        Verdict::Reply(_, refusal) => write_reply(out, &refusal, facts)?,
        Verdict::Deny(refusal) => {
            let info = refusal.cause.info();
            writeln!(out, "refused    {} ({}): {}", info.status, info.name, info.text)?;
        }
        Verdict::Ask(question) => match &question.check {
            Check::Subrequest(subrequest) => {
                let line = subrequest.request.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let (name, line) = (&subrequest.upstream.name, String::from_utf8_lossy(line));
                writeln!(out, "asks       {name}: {line}")?;
            }
            Check::Service(service) => writeln!(out, "asks       service {service}")?,
            Check::Keys(remote) => writeln!(out, "asks       {} for keys", remote.config.url)?,
            Check::Password(_) => writeln!(out, "asks       whether the password is right")?,
        },
    }
    Ok(true)
}

fn write_request(out: &mut String, facts: &Facts<'_>) -> fmt::Result {
    let request = facts.request;
    write!(out, "request    {} {}{} from {}", request.method, request.host, request.target, facts.client)?;
    writeln!(out, "{}", if facts.secure { ", over TLS" } else { "" })
}

/// The routes in matching order, up to the one that matches, with what keeps each from it.
fn write_route(out: &mut String, snapshot: &Snapshot, facts: &Facts<'_>) -> Result<bool, fmt::Error> {
    let found = snapshot.routes.find(facts);
    let entries = snapshot.routes.entries().iter();
    let before: Vec<_> = entries.map_while(|entry| Some((entry, entry.mismatch(facts)?))).collect();
    if !before.is_empty() {
        writeln!(out, "\nroutes that do not match, in matching order")?;
    }
    for (entry, mismatch) in &before {
        let name = &entry.route.name;
        let pattern = entry.to_string();
        let called = if *name == pattern { String::new() } else { format!(" ({name})") };
        let has = match mismatch {
            Mismatch::Condition(condition) => format!(" ({})", condition.found(facts)),
            Mismatch::Host(_) | Mismatch::Path(_) => String::new(),
        };
        writeln!(out, "  {pattern}{called}: {mismatch}{has}")?;
    }
    let Some(found) = found else {
        writeln!(out, "\nroute      none: the request is refused with 404")?;
        return Ok(false);
    };
    let (name, pattern) = (&found.entry.route.name, found.entry.to_string());
    write!(out, "\nroute      {name}")?;
    if *name != pattern {
        write!(out, ": {pattern}")?;
    }
    writeln!(out)?;
    for condition in &found.entry.conditions {
        writeln!(out, "  met: {condition}")?;
    }
    for (name, text) in found.captures.iter() {
        writeln!(out, "  {{{name}}} is {text:?}")?;
    }
    Ok(true)
}

fn write_plan(out: &mut String, mut plan: Plan, facts: &Facts<'_>) -> fmt::Result {
    let identity = plan.identity.as_deref();
    let variables = Variables { facts, route: &plan.route.name, captures: &plan.captures, identity };
    let mut edits = plan.route.response_headers.edits(&variables);
    let candidates = match &mut plan.served_by {
        ServedBy::Upstream(candidates) => candidates,
        ServedBy::Files(wanted) => {
            write_file(out, wanted)?;
            drop(plan.route.forwarded(&variables, &mut edits));
            return write_edits(out, &edits);
        }
    };
    write_upstream(out, candidates, &plan.route)?;
    let balance = candidates.upstream().rules.balance;
    write_endpoint(out, candidates, balance)?;
    let base = candidates.last().map(|endpoint| endpoint.base.clone()).unwrap_or_default();
    write_forwarded(out, &plan.route, &base, &variables, &mut edits)?;
    if let Some(cookie) = candidates.set_cookie(facts.secure) {
        edits.add("Set-Cookie", cookie.into_bytes());
    }
    write_edits(out, &edits)
}

/// What changes in the response of the upstream.
fn write_edits(out: &mut String, edits: &FieldEdits) -> fmt::Result {
    if edits.removed().next().is_some() {
        let names: Vec<_> = edits.removed().collect();
        writeln!(out, "\nremoved from the response of the upstream\n  {}", names.join(", "))?;
    }
    if edits.added().next().is_some() {
        writeln!(out, "\nadded to the response of the upstream")?;
    }
    for (name, value) in edits.added() {
        writeln!(out, "  {name}: {}", String::from_utf8_lossy(value))?;
    }
    for (name, value) in edits.missing() {
        writeln!(out, "\nadded unless the upstream sends one\n  {name}: {}", String::from_utf8_lossy(value))?;
    }
    Ok(())
}

/// The response of the route itself.
fn write_reply(out: &mut String, refusal: &Refusal, facts: &Facts<'_>) -> fmt::Result {
    let Some(reply) = &refusal.reply else { return Ok(()) };
    let response = http1::write_reply(reply, MADE_UP_ID, (facts.request.method == "HEAD", true));
    writeln!(out, "response   of the route itself, with an id made up")?;
    for line in String::from_utf8_lossy(&response).lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// The file that is opened, if it is there; and what stands for a directory.
fn write_file(out: &mut String, wanted: &Wanted) -> fmt::Result {
    let (root, path) = (wanted.files.root.display(), String::from_utf8_lossy(&wanted.path));
    let index = if wanted.is_directory { &*wanted.files.index } else { "" };
    let slash = if wanted.is_directory && !path.is_empty() { "/" } else { "" };
    writeln!(out, "file       {path}{slash}{index} below {root}")
}

fn write_upstream(out: &mut String, candidates: &Candidates, route: &Route) -> fmt::Result {
    write!(out, "upstream   {}", candidates.upstream().name)?;
    if let RouteAction::Split(split) = &route.action {
        let parts: Vec<_> = split.weights().map(|(upstream, weight)| format!("{} {weight}", upstream.name)).collect();
        let by = if split.is_by_chance() { "by chance" } else { "by key" };
        write!(out, ", {by} of {}", parts.join(", "))?;
    }
    writeln!(out)
}

fn write_endpoint(out: &mut String, candidates: &mut Candidates, balance: Balance) -> fmt::Result {
    let several = candidates.upstream().endpoints().len() > 1;
    match candidates.next(0) {
        Next::Try { pick, .. } => {
            write!(out, "endpoint   {}", pick.endpoint().url)?;
            if several {
                write!(out, ", by {} without other sessions", balance.name())?;
            }
            writeln!(out)
        }
        Next::Wait { .. } => writeln!(out, "endpoint   none has room: the session waits"),
        Next::Refuse(_) => writeln!(out, "endpoint   none"),
    }
}

/// The request as the upstream gets it.
fn write_forwarded(
    out: &mut String,
    route: &Route,
    base: &str,
    variables: &Variables<'_>,
    response: &mut FieldEdits,
) -> fmt::Result {
    let facts = variables.facts;
    let (query, edits) = route.forwarded(variables, response);
    let add = Forwarding {
        path: &route.rewrite.apply(base, variables),
        query: Some(&query),
        host: route.host_header.as_deref(),
        peer: facts.peer,
        trusted: facts.trusted,
        secure: facts.secure,
        headers: route.forwarding_headers,
        client: facts.client,
        cert: facts.cert.map(|cert| (cert.subject, cert.sha256)),
        request_id: facts.request_id,
        trace_seed: [0; 24],
        edits: &edits,
        plain: None,
    };
    let head = handshake::write_request(facts.request, &add);
    writeln!(out, "\nrequest to the upstream, with ids made up")?;
    for line in String::from_utf8_lossy(&head).lines().filter(|line| !line.is_empty()) {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
