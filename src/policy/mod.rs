//! Decisions about a session, as pure functions of what is known: no socket, clock, thread or log.
//! [`decide`] turns the facts of a request into a verdict. `matching` finds the route, `rewrite`
//! the path that it sends on, `headers` the fields, `reply` the responses of a route's own;
//! `access` has lists of addresses (`networks`: how they are looked up), `origin` those of pages;
//! `template` has their variables; `upstream` has the endpoints and their order, `health` which of
//! them are available, `shadow` the share of sessions that a second upstream gets too, `limit`
//! counts permits, `keyed` those of each client, `listener` what comes in; `ask` has the questions
//! that are put to others, `tls` and `session` hold plain values.

pub mod access;
pub mod ask;
pub mod auth;
pub mod balance;
pub mod block;
pub mod candidates;
pub mod check;
pub mod counts;
pub mod endpoint;
pub mod fair;
pub mod files;
pub mod half_open;
pub mod headers;
pub mod health;
pub mod key;
pub mod keyed;
pub mod limit;
pub mod links;
pub mod listener;
pub mod lookup;
pub mod matching;
pub mod networks;
pub mod origin;
pub mod path;
pub mod pattern;
mod pool;
pub mod reply;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod session;
pub mod shadow;
pub mod shield;
pub mod sticky;
pub mod template;
pub mod tls;
pub mod upstream;

use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::handshake;
use crate::proto::http1::Request;
use crate::proto::interface::Refusal;
use crate::proto::plain::{self, Inbound};
use crate::proto::rate::Bucket;
use access::Access;
use ask::{Answer, Answers, Question};
use auth::{Identity, Judgement, Revoked};
use balance::Balance;
use block::{Blocked, Blocks};
use candidates::{Ask, Candidates};
use files::Wanted;
use keyed::Excess;
use limit::{Counted, Permit, Permits};
use listener::ListenerLimits;
use matching::{Captures, Found, Routes};
use route::{Route, RouteAction};
use std::net::IpAddr;
use std::sync::Arc;
use template::Variables;
use upstream::Upstream;

/// What is known of a request when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub request: &'a Request<'a>,
    /// A credential that a client has sent in an established session. It counts in place of those
    /// in the request.
    pub shown: Option<&'a [u8]>,
    /// The peer is a trusted proxy of its listener.
    pub trusted: bool,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The client: the peer, or whom a trusted peer names ([`handshake::client_of`]).
    pub client: IpAddr,
    /// The id of the request ([`request_id`]), or a new one.
    pub request_id: &'a str,
    /// The client came over TLS.
    pub secure: bool,
    /// The certificate that the client has shown.
    pub cert: Option<ClientCert<'a>>,
    /// The lists of the listener.
    pub access: Option<&'a Access>,
    /// The limits of the listener, and that which the connection has exceeded already.
    pub limits: Option<&'a ListenerLimits>,
    pub excess: Option<Excess>,
    /// The listener redirects every request to this port, over TLS.
    pub redirect: Option<u16>,
    /// The process is stopping.
    pub draining: bool,
    /// The process-wide monotonic clock.
    pub now: Millis,
    /// The wall clock, in milliseconds since the Unix epoch: credentials end by it.
    pub unix_ms: u64,
    /// Chooses where chance decides.
    pub random: u64,
}

impl<'a> Facts<'a> {
    /// Of a client that has connected itself, without TLS, of which nothing else is known; both
    /// clocks stand at zero.
    pub fn new(request: &'a Request<'a>, client: IpAddr) -> Facts<'a> {
        Facts {
            request,
            shown: None,
            trusted: false,
            peer: client,
            client,
            request_id: "",
            secure: false,
            cert: None,
            access: None,
            limits: None,
            excess: None,
            redirect: None,
            draining: false,
            now: 0,
            unix_ms: 0,
            random: 0,
        }
    }
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
    pub revoked: &'a Revoked,
    /// Addresses that failed too often, where those are blocked.
    pub blocks: Option<&'a Blocks>,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is admitted under this plan.
    Allow(Plan),
    Deny(Refusal),
    /// The route answers it.
    Reply(Arc<Route>, Refusal),
    /// A question must be answered first; [`decide`] then continues with the answer.
    Ask(Question),
}

/// The settings of an admitted session, resolved once.
#[derive(Debug)]
pub struct Plan {
    pub route: Arc<Route>,
    /// What the names in the route's path stand for.
    pub captures: Captures,
    pub served_by: ServedBy,
    /// Who the client is, on a route that asks for credentials.
    pub identity: Option<Arc<Identity>>,
    /// The endpoints to try for its shadow, if it gets one.
    pub shadow: Option<Box<Candidates>>,
    /// Counts the session while it is held.
    pub permit: Permit,
    /// Rates that it shares with other sessions of its client; valid while the permit is held.
    pub shared: Vec<Arc<Bucket>>,
    /// What a plain request says about its exchange; `None` for a WebSocket handshake.
    pub plain: Option<Inbound>,
}

/// Who answers an admitted request.
#[derive(Debug)]
pub enum ServedBy {
    /// One of the endpoints to try.
    Upstream(Box<Candidates>),
    Files(Box<Wanted>),
}

/// The id that a trusted peer gave the request; without one, the request gets a new id.
pub fn request_id<'a>(request: &Request<'a>, trusted: bool) -> Option<&'a str> {
    handshake::request_id_of(request).filter(|_| trusted)
}

/// Decides about a request that satisfies the rules of HTTP: addresses that are blocked, and the
/// limits of the listener and the addresses that it admits first, then a redirect, then the route,
/// then the rules of the WebSocket handshake (unless the route answers itself: any request will do
/// then), then the origins and addresses that the route admits, then its checks in their order, the
/// limits of sessions last. `answered`: the question that was asked before, and its answer.
pub fn decide(facts: &Facts<'_>, policy: &Policy<'_>, answered: Option<(&Question, Answer)>) -> Verdict {
    // Once, however often it is decided: before the first question.
    let first = answered.is_none();
    if let Some(left_ms) = policy.blocks.and_then(|blocks| blocks.left(facts.client, facts.now)) {
        return Verdict::Deny(Blocked::refusal(left_ms));
    }
    if let Some(excess) = facts.excess {
        return Verdict::Deny(excess.into());
    }
    if facts.access.is_some_and(|access| access.refuses(facts.client)) {
        return Verdict::Deny(Cause::AddressRefused.into());
    }
    // Others have been counted when they connected.
    if let Some(limits) = facts.limits.filter(|_| first && facts.trusted)
        && let Err(excess) = limits.handshake_of(facts.client, facts.now)
    {
        return Verdict::Deny(excess.into());
    }
    if let Some(port) = facts.redirect {
        let location = handshake::location(facts.request, port).into_boxed_str();
        return Verdict::Deny(Refusal { field: Some(("Location", location)), ..Cause::Redirected.into() });
    }
    let Some(Found { entry, captures }) = policy.routes.find(facts) else {
        return Verdict::Deny(Cause::NoRoute.into());
    };
    let route = &entry.route;
    let plain = match judge_protocol(route, facts.request) {
        Ok(plain) => plain,
        Err(cause) => return Verdict::Deny(cause.into()),
    };
    if let Err(cause) = judge_client(route, facts, plain.is_some()) {
        return Verdict::Deny(cause.into());
    }
    if route.proxies() && facts.draining {
        return Verdict::Deny(Cause::Draining.into());
    }
    if first && let Err(excess) = handshake(route, facts) {
        return Verdict::Deny(excess.into());
    }
    let answers = Answers::with(answered);
    let identity = match judge(route, facts, &answers) {
        None => None,
        Some(Judgement::Granted(client)) if policy.revoked.covers(&client, facts.now) => {
            return Verdict::Deny(Cause::Revoked.into());
        }
        Some(Judgement::Granted(client)) => Some(Arc::new(client)),
        Some(Judgement::Ask(check)) => return Verdict::Ask(answers.question(check)),
        Some(Judgement::Refused(refusal)) => return Verdict::Deny(refusal),
    };
    let variables = Variables { facts, route: &route.name, captures: &captures, identity: identity.as_deref() };
    let asks = match &route.action {
        RouteAction::Proxy(upstream) => Asks::Upstream(upstream),
        RouteAction::Split(split) => Asks::Upstream(split.choose(facts)),
        RouteAction::Files(files) => match files.find(&variables, &route.rewrite) {
            Ok(wanted) => Asks::Files(wanted),
            Err(cause) => return Verdict::Deny(cause.into()),
        },
        RouteAction::Respond(respond) => return Verdict::Reply(Arc::clone(route), respond.refusal(&variables)),
        RouteAction::Redirect(redirect) => return Verdict::Reply(Arc::clone(route), redirect.refusal(&variables)),
    };
    admit(Admitted { route, captures, identity, plain }, asks, facts, policy)
}

/// One more handshake on the route. What an address may not is not taken from the others.
fn handshake(route: &Route, facts: &Facts<'_>) -> Result<(), Excess> {
    if let Some(limit) = &route.by_address {
        limit.handshake(&limit.address(facts.client), facts.now)?;
    }
    let Some(Err(retry_ms)) = route.handshakes.as_ref().map(|rate| rate.pass(facts.now)) else { return Ok(()) };
    Err(Excess { cause: Cause::RouteRate, retry_ms: Some(retry_ms) })
}

/// The rules of the protocol that the route takes the request for: of the WebSocket handshake, or
/// of plain HTTP. A route that answers itself takes any request.
fn judge_protocol(route: &Route, request: &Request<'_>) -> Result<Option<Inbound>, Cause> {
    match route.proxies() {
        false => Ok(None),
        true if route.protocols.is_plain(request) => plain::judge_request(request).map(Some),
        true => handshake::judge_request(request).map(|()| None),
    }
}

/// Whether the route is for this page and this client. Plain requests of other pages are the
/// browser's business (CORS): their origins are not judged.
fn judge_client(route: &Route, facts: &Facts<'_>, is_plain: bool) -> Result<(), Cause> {
    if !is_plain && (route.proxies() || route.origins.is_listed()) {
        route.origins.judge(facts)?;
    }
    match &route.access {
        Some(access) if access.refuses(facts.client) => Err(Cause::AddressRefused),
        _ => Ok(()),
    }
}

/// The checks of the route, then what it asks of the client's credentials; `None` if it asks
/// nothing of those, and all of its checks have admitted.
fn judge(route: &Route, facts: &Facts<'_>, answers: &Answers) -> Option<Judgement> {
    match ask::next(&route.checks, answers) {
        Ok(None) => route.auth.as_ref().map(|auth| auth.judge(facts, answers)),
        Ok(Some(check)) => Some(Judgement::Ask(check.clone())),
        Err(cause) => Some(Judgement::Refused(cause.into())),
    }
}

/// A request that its route admits.
struct Admitted<'a> {
    route: &'a Arc<Route>,
    captures: Captures,
    identity: Option<Arc<Identity>>,
    plain: Option<Inbound>,
}

/// What it asks.
enum Asks<'a> {
    Upstream(&'a Arc<Upstream>),
    Files(Box<Wanted>),
}

fn admit(
    Admitted { route, captures, identity, plain }: Admitted<'_>,
    asks: Asks<'_>,
    facts: &Facts<'_>,
    policy: &Policy<'_>,
) -> Verdict {
    let Some(permit) = policy.sessions.take() else { return Verdict::Deny(Cause::MaxSessions.into()) };
    let full = Excess { cause: Cause::MaxRouteSessions, retry_ms: None };
    let counted = Counted::new(permit).among(&route.sessions, &route.total, full);
    let counted = counted.and_then(|counted| match facts.limits {
        Some(limits) => limits.session_of(counted, facts.client, facts.now),
        None => Ok(counted),
    });
    let counted = match counted.and_then(|counted| by_client(route, identity.as_deref(), facts, counted)) {
        Ok(counted) => counted,
        Err(excess) => return Verdict::Deny(excess.into()),
    };
    let Counted { permit, shared } = counted;
    let route = Arc::clone(route);
    let served_by = match asks {
        Asks::Upstream(upstream) => ServedBy::Upstream(candidates(upstream, facts)),
        Asks::Files(wanted) => ServedBy::Files(wanted),
    };
    // A shadow gets WebSockets alone.
    let shadow = if plain.is_none() { shadow(&route, facts) } else { None };
    Verdict::Allow(Plan { route, captures, served_by, identity, shadow, permit, shared, plain })
}

/// Counts the session by its address, by who its client is, and by its API key.
fn by_client(
    route: &Route,
    client: Option<&Identity>,
    facts: &Facts<'_>,
    mut counted: Counted,
) -> Result<Counted, Excess> {
    if let Some(limit) = &route.by_address {
        counted = counted.by(limit, &limit.address(facts.client), facts.now)?;
    }
    let Some(client) = client else { return Ok(counted) };
    if let Some(limit) = &route.by_identity {
        limit.handshake(&client.subject, facts.now)?;
        counted = counted.by(limit, &client.subject, facts.now)?;
    }
    match client.limits.as_deref() {
        Some(limits) => counted.by_key(limits, facts.now),
        None => Ok(counted),
    }
}

fn shadow(route: &Route, facts: &Facts<'_>) -> Option<Box<Candidates>> {
    let shadow = route.shadow.as_ref().filter(|shadow| shadow.chooses(facts.random))?;
    Some(candidates(&shadow.upstream, facts))
}

fn candidates(upstream: &Arc<Upstream>, facts: &Facts<'_>) -> Box<Candidates> {
    let rules = &upstream.rules;
    // An application that makes the id of a request the key of later ones is reached by them.
    let by_id = || key::hash(facts.request_id.as_bytes());
    let key = (rules.balance == Balance::ConsistentHash).then(|| rules.hash_key.hash(facts).unwrap_or_else(by_id));
    let cookie = rules.sticky.as_ref().and_then(|sticky| lookup::cookie(facts.request, &sticky.cookie));
    Box::new(upstream.candidates(&Ask { key, cookie, seed: facts.random }))
}

#[cfg(test)]
impl<'a> Facts<'a> {
    /// Of an ordinary client.
    pub(crate) fn of(request: &'a Request<'a>) -> Facts<'a> {
        let client = IpAddr::from([203, 0, 113, 7]);
        Facts { request_id: "id-1", ..Facts::new(request, client) }
    }
}
