//! Decisions about a session, as pure functions of what is known: no socket, clock, thread or log.
//! [`decide`] turns the facts of a request into a verdict. `matching` finds the route, `rewrite`
//! the path that it sends on; `upstream` has the endpoints and their order, `health` which of them
//! are available, `limit` counts permits, `ask` has the questions that are put to others, `tls` and
//! `session` hold plain values.

pub mod ask;
pub mod balance;
pub mod candidates;
pub mod check;
pub mod endpoint;
pub mod health;
pub mod key;
pub mod limit;
pub mod lookup;
pub mod matching;
pub mod path;
mod pool;
pub mod retry;
mod rewrite;
pub mod route;
pub mod session;
pub mod sticky;
pub mod tls;
pub mod upstream;

use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::handshake;
use crate::proto::http1::Request;
use crate::proto::interface::Refusal;
use ask::{Answer, Question};
use balance::Balance;
use candidates::{Ask, Candidates};
use limit::{Permit, Permits};
use matching::{Captures, Found, Routes};
use route::{Route, RouteAction};
use std::net::IpAddr;
use std::sync::Arc;

/// What is known of a request when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub request: &'a Request<'a>,
    /// The peer is a trusted proxy of its listener.
    pub trusted: bool,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The client: the peer, or whom a trusted peer names ([`handshake::client_of`]).
    pub client: IpAddr,
    /// The client came over TLS.
    pub secure: bool,
    /// The certificate that the client has shown.
    pub cert: Option<ClientCert<'a>>,
    /// The listener redirects every request to this port, over TLS.
    pub redirect: Option<u16>,
    /// The process is stopping.
    pub draining: bool,
    /// The process-wide monotonic clock.
    pub now: Millis,
    /// Chooses where chance decides.
    pub random: u64,
}

/// The certificate that a client has shown.
#[derive(Debug, Clone, Copy)]
pub struct ClientCert<'a> {
    pub subject: &'a str,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub sha256: &'a str,
}

/// What the process knows, and shares between requests.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    pub routes: &'a Routes,
    /// Admitted sessions.
    pub sessions: &'a Arc<Permits>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is admitted under this plan.
    Allow(Plan),
    Deny(Refusal),
    /// A question must be answered first; [`decide`] then continues with the answer.
    Ask(Question),
}

/// The settings of an admitted session, resolved once.
#[derive(Debug)]
pub struct Plan {
    pub route: Arc<Route>,
    /// What the names in the route's path stand for.
    pub captures: Captures,
    /// The endpoints to try.
    pub candidates: Candidates,
    /// Counts the session while it is held.
    pub permit: Permit,
}

/// The id that a trusted peer gave the request; without one, the request gets a new id.
pub fn request_id<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    handshake::request_id_of(facts.request).filter(|_| facts.trusted)
}

/// Decides about a request that satisfies the rules of HTTP: a redirect first, then the route, then
/// the rules of the WebSocket handshake, then the checks of the route in their order, the limit of
/// sessions last. `answered`: the question that was asked before, and its answer.
pub fn decide(facts: &Facts<'_>, policy: &Policy<'_>, answered: Option<(&Question, Answer)>) -> Verdict {
    if let Some(port) = facts.redirect {
        let location = handshake::location(facts.request, port).into_boxed_str();
        return Verdict::Deny(Refusal { cause: Cause::Redirected, location: Some(location) });
    }
    let Some(Found { entry, captures }) = policy.routes.find(facts) else {
        return Verdict::Deny(Cause::NoRoute.into());
    };
    let route = &entry.route;
    if let Err(cause) = handshake::judge_request(facts.request) {
        return Verdict::Deny(cause.into());
    }
    if facts.draining {
        return Verdict::Deny(Cause::Draining.into());
    }
    match ask::next(&route.checks, answered) {
        Ok(None) => {}
        Ok(Some(question)) => return Verdict::Ask(question),
        Err(cause) => return Verdict::Deny(cause.into()),
    }
    let Some(permit) = policy.sessions.take() else { return Verdict::Deny(Cause::MaxSessions.into()) };
    let Some(permit) = permit.and(&route.sessions.permits()) else {
        return Verdict::Deny(Cause::MaxRouteSessions.into());
    };
    let (route, candidates) = (Arc::clone(route), candidates(route, facts));
    Verdict::Allow(Plan { route, captures, candidates, permit })
}

/// The endpoints of the route's upstream, or of the one that the split gives the request.
fn candidates(route: &Route, facts: &Facts<'_>) -> Candidates {
    let upstream = match &route.action {
        RouteAction::Proxy(upstream) => upstream,
        RouteAction::Split(split) => split.choose(facts),
    };
    let rules = &upstream.rules;
    let key = (rules.balance == Balance::ConsistentHash).then(|| rules.hash_key.hash(facts));
    let cookie = rules.sticky.as_ref().and_then(|sticky| lookup::cookie(facts.request, &sticky.cookie));
    upstream.candidates(&Ask { key: key.flatten(), cookie, seed: facts.random })
}
