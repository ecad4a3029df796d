//! A pair: the slab entry of one proxied connection. One session and its two connections, and what
//! its end needs. Owns them; what happens to it in a turn is `turn/`.
//!
//! A pair can be moved: nothing in it belongs to a worker, and its times are those of the
//! process-wide clock.

use super::conn::Conn;
use super::files::Serving;
use super::handshakes::Waits;
use super::token::{Role, SlotKey};
use super::waiting::Ticket;
use crate::config::Listener;
use crate::memory::REFRESH_BYTES;
use crate::policy::ask::Question;
use crate::policy::auth::{Identity, Refreshing};
use crate::policy::candidates::Candidates;
use crate::policy::endpoint::{Endpoint, Pick};
use crate::policy::fair::Class;
use crate::policy::half_open;
use crate::policy::keyed::Excess;
use crate::policy::limit::Permit;
use crate::policy::matching::Captures;
use crate::policy::route::Route;
use crate::policy::session::SessionInfo;
use crate::policy::template::Variables;
use crate::policy::upstream::Upstream;
use crate::policy::{ClientCert, Facts};
use crate::proto::end::{Cause, Phase};
use crate::proto::handshake::{self, Forwarding};
use crate::proto::http1::{FieldEdits, Request};
use crate::proto::interface::{Event, ReadInterest, Timer};
use crate::proto::plain::Inbound;
use crate::proto::proxy_protocol::{self, Addresses, Header};
use crate::proto::rate::Bucket;
use crate::proto::relay::{HEARTBEAT_BYTES, INTERCEPT_SIZE, LIMITER_SIZE};
use crate::proto::session::{EXCHANGE_BYTES, Session};
use crate::proto::settings::Settings;
use crate::proto::{Millis, Side, Sides};
use crate::tls::{CertInfo, Tls, TlsConfigs};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

#[derive(Debug)]
pub struct Pair<S> {
    /// `None` until the client's transport is up: until its TLS handshake has ended.
    pub session: Option<Session>,
    pub conns: Sides<Option<Conn<S>>>,
    /// Known once the request has been judged.
    pub info: Option<Arc<SessionInfo>>,
    /// What only the handshake needs; dropped when the session is established.
    pub pending: Option<Box<Pending>>,
    /// The endpoint that is used, or was tried last.
    pub pick: Option<Pick>,
    /// Counts against a limit while it is held.
    pub permit: Option<Permit>,
    /// When the wheel looks at it next; `Millis::MAX` if it does not.
    pub wheel_at: Millis,
    pub generation: u32,
    /// The role of the next connect attempt.
    pub attempt_role: Role,
    /// What goes upstream goes to a shadow, too.
    pub shadowed: bool,
    /// It is in the ready ring, or in the queue of handshakes for a step of TLS.
    pub queued: bool,
    pub slot: SlotUse,
}

/// What a pair still needs its slot for. One byte: a flag more would make an idle session larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotUse {
    Live,
    /// Its verdict has been given.
    Over,
    /// It will be freed at the end of the loop iteration.
    Freed,
}

/// What only the handshake needs.
#[derive(Debug)]
pub struct Pending {
    /// Who has connected; behind a PROXY header, whom that names.
    pub peer: SocketAddr,
    /// What the peer has connected to, where that is known already.
    pub destination: Option<Box<SocketAddr>>,
    /// What begins behind the PROXY header, on a listener with TLS.
    pub tls_behind_header: Option<Box<Tls>>,
    /// When the connection was accepted.
    pub opened_at: Millis,
    /// The listener that accepted the client.
    pub listener: Arc<Listener>,
    /// While it waits in the queue of handshakes.
    pub waits: Option<Waits>,
    /// While its client has to say something, or to close.
    pub silent: Option<half_open::Place>,
    /// Whose handshakes they are, once that has been looked at.
    pub class: Option<Class>,
    /// The limit of the listener that it has exceeded: its request is refused.
    pub excess: Option<Box<Excess>>,
    /// The client has sent something of a TLS handshake.
    pub tls_spoken: bool,
    /// The certificate that the client has shown.
    pub cert: Option<Box<CertInfo>>,
    pub request_id: Box<str>,
    /// For the access line of the session's start.
    pub origin: Option<Box<[u8]>>,
    pub agent: Option<Box<[u8]>>,
    /// The question that policy asked and that has no answer yet.
    pub question: Option<Box<Question>>,
    /// The call that asks it, if it is one.
    pub call: Option<SlotKey>,
    /// Known once admitted, and kept: a reload does not touch it.
    pub route: Option<Arc<Route>>,
    /// What the names in the route's path stand for.
    pub captures: Captures,
    /// Who the client is, on a route that asks for credentials.
    pub identity: Option<Arc<Identity>>,
    /// An order was about it since it was admitted: it ends when it is established.
    pub revoked: bool,
    pub candidates: Option<Box<Candidates>>,
    /// While it waits for room.
    pub ticket: Option<Box<Ticket>>,
    /// The endpoints to try for its shadow, if it gets one.
    pub shadow: Option<Box<Candidates>>,
    /// The TLS configurations of when the session was admitted.
    pub tls: Option<Arc<TlsConfigs>>,
    /// What a plain request says about its exchange; `None` for a WebSocket handshake.
    pub plain: Option<Inbound>,
    /// The link that the upstream connection is, for a plain request.
    pub link: Option<SlotKey>,
    /// The file that is its upstream.
    pub file: Option<Box<Serving>>,
    /// It takes new connections only from here on: a kept one has failed it.
    pub fresh: bool,
    /// There was a request before it on the client's connection.
    pub is_next: bool,
    /// Its response is an event stream.
    pub streams: bool,
    /// It is among the idle clients.
    pub idle: bool,
}

impl Pending {
    pub fn new(peer: SocketAddr, listener: Arc<Listener>, now: Millis) -> Box<Pending> {
        Box::new(Pending {
            peer,
            destination: None,
            tls_behind_header: None,
            opened_at: now,
            listener,
            waits: None,
            silent: None,
            class: None,
            excess: None,
            tls_spoken: false,
            cert: None,
            request_id: Box::default(),
            origin: None,
            agent: None,
            question: None,
            call: None,
            route: None,
            captures: Captures::default(),
            identity: None,
            revoked: false,
            candidates: None,
            ticket: None,
            shadow: None,
            tls: None,
            plain: None,
            link: None,
            file: None,
            fresh: false,
            is_next: false,
            streams: false,
            idle: false,
        })
    }

    /// For the next request on the same connection: what is known of the client stays.
    pub fn next(self, now: Millis) -> Box<Pending> {
        let Pending { peer, destination, tls_spoken, cert, listener, .. } = self;
        Box::new(Pending { destination, tls_spoken, cert, is_next: true, ..*Pending::new(peer, listener, now) })
    }

    /// From here on the peer is whom a PROXY header names, as if it had connected itself.
    pub fn on_header(&mut self, header: &Header) {
        if let Some(addresses) = header.addresses {
            (self.peer, self.destination) = (addresses.source, Some(Box::new(addresses.destination)));
        }
    }

    /// The PROXY header for an endpoint of `upstream`, if it gets one.
    pub fn write_header(&self, upstream: &Upstream, request: &Request<'_>) -> Option<Vec<u8>> {
        let version = upstream.rules.proxy_protocol?;
        let client = self.facts(request).client;
        let port = if client == self.peer.ip().to_canonical() { self.peer.port() } else { 0 };
        let destination = self.destination.as_deref().copied().unwrap_or(self.listener.addr);
        let addresses = Addresses { source: SocketAddr::new(client, port), destination };
        Some(proxy_protocol::write(version, Some(&addresses)))
    }

    /// When the credentials of its client end, if they do, by the clock of the worker.
    pub fn credentials_until(&self, now: Millis, unix_now: u64) -> Option<Millis> {
        let left_ms = self.identity.as_ref()?.left_ms(unix_now)?;
        Some(now.saturating_add(left_ms))
    }

    /// The peer is a trusted proxy of its listener.
    pub fn is_trusted(&self) -> bool {
        self.listener.trusts(self.peer.ip())
    }

    /// What is known of the client and its request, once that has its id; nothing of the process.
    pub fn facts<'a>(&'a self, request: &'a Request<'a>) -> Facts<'a> {
        Facts {
            request,
            shown: None,
            trusted: self.is_trusted(),
            peer: self.peer.ip().to_canonical(),
            client: handshake::client_of(request, self.peer.ip(), |address| self.listener.trusts(address)),
            request_id: &self.request_id,
            secure: self.listener.tls.is_some(),
            cert: self.cert.as_ref().map(|cert| ClientCert { subject: &cert.subject, sha256: &cert.sha256 }),
            access: self.listener.access.as_deref(),
            limits: self.listener.limits.as_deref(),
            excess: self.excess.as_deref().copied(),
            redirect: self.listener.redirect,
            draining: false,
            now: 0,
            unix_ms: 0,
            random: 0,
        }
    }

    /// The whole request head for an endpoint; `facts` are its own, and `response` gets what
    /// follows for the response. `None` until the request is admitted.
    pub fn write_request(
        &self,
        facts: &Facts<'_>,
        endpoint: &Endpoint,
        trace_seed: [u8; 24],
        response: &mut FieldEdits,
    ) -> Option<Vec<u8>> {
        let route = self.route.as_ref()?;
        let identity = self.identity.as_deref();
        let variables = Variables { facts, route: &route.name, captures: &self.captures, identity };
        let (query, edits) = route.forwarded(&variables, response);
        let add = Forwarding {
            path: &route.rewrite.apply(&endpoint.base, &variables),
            query: Some(&query),
            host: route.host_header.as_deref(),
            peer: facts.peer,
            trusted: facts.trusted,
            secure: facts.secure,
            headers: route.forwarding_headers,
            client: facts.client,
            cert: facts.cert.map(|cert| (cert.subject, cert.sha256)),
            request_id: facts.request_id,
            trace_seed,
            edits: &edits,
            plain: self.plain.as_ref(),
        };
        Some(handshake::write_request(facts.request, &add))
    }
}

impl<S> Pair<S> {
    /// A client that has been accepted. Its session begins at once, under `settings`, unless a
    /// PROXY header or a TLS handshake comes before it.
    pub fn accepted(
        (sock, tls): (S, Option<Box<Tls>>),
        mut pending: Box<Pending>,
        settings: &Arc<Settings>,
        generation: u32,
    ) -> Self {
        let client = if pending.listener.proxy_protocol {
            pending.tls_behind_header = tls;
            Conn::headed(sock)
        } else {
            Conn::accepted(sock, tls)
        };
        let session = client.is_up().then(|| Session::new(Arc::clone(settings), pending.opened_at));
        Pair {
            session,
            conns: Sides::new(Some(client), None),
            info: None,
            pending: Some(pending),
            pick: None,
            permit: None,
            wheel_at: Millis::MAX,
            generation,
            attempt_role: Role::FIRST_ATTEMPT,
            shadowed: false,
            queued: false,
            slot: SlotUse::Live,
        }
    }

    /// The head of the client's request is not complete.
    pub fn has_no_request(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.request().is_none())
    }

    /// The file that is its upstream.
    pub fn serving(&mut self) -> Option<&mut Serving> {
        self.pending.as_mut()?.file.as_deref_mut()
    }

    /// The other end of the client's connection, while its handshake lasts.
    pub fn peer(&self) -> Option<IpAddr> {
        self.pending.as_ref().map(|pending| pending.peer.ip())
    }

    /// While it waits for room at its upstream.
    pub fn ticket(&self) -> Option<Ticket> {
        self.pending.as_ref()?.ticket.as_deref().copied()
    }

    pub fn phase(&self) -> Phase {
        match &self.session {
            Some(session) => session.phase(),
            None if self.conns[Side::Downstream].as_ref().is_some_and(Conn::awaits_header) => Phase::ProxyHeader,
            None => Phase::Tls,
        }
    }

    /// An established session in which nothing but messages happens.
    #[inline]
    pub fn is_steady(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_steady)
    }

    #[inline]
    pub fn wants(&self, side: Side) -> ReadInterest {
        self.session.as_ref().map_or(ReadInterest::Nothing, |session| session.wants(side))
    }

    /// The read from `side` that would go ahead now: it has something, it is wanted, and its
    /// receiver has no backlog.
    #[inline]
    pub fn next_read(&self, side: Side) -> ReadInterest {
        if !self.conns[side].as_ref().is_some_and(|conn| conn.ready().read && conn.is_up()) {
            return ReadInterest::Nothing;
        }
        match self.wants(side) {
            ReadInterest::Bytes(_) | ReadInterest::Shared | ReadInterest::Payload(_)
                if self.has_backlog(side.other()) =>
            {
                ReadInterest::Nothing
            }
            interest => interest,
        }
    }

    #[inline]
    pub fn may_read(&self, side: Side) -> bool {
        self.next_read(side) != ReadInterest::Nothing
    }

    #[inline]
    pub fn has_backlog(&self, to: Side) -> bool {
        self.conns[to].as_ref().is_some_and(Conn::has_backlog)
    }

    /// Whether `side` has been reset and no read will report it: none is wanted, or none goes
    /// ahead. What the upstream sent before its reset is still read once the client has taken its
    /// backlog; the client's own reset ends it all.
    #[inline]
    pub fn is_reset_unseen(&self, side: Side) -> bool {
        let Some(conn) = &self.conns[side] else { return false };
        conn.ready().broken
            && conn.is_up()
            && match self.wants(side) {
                ReadInterest::Nothing => true,
                ReadInterest::Discard => false,
                ReadInterest::Bytes(_) | ReadInterest::Shared | ReadInterest::Payload(_) => {
                    side == Side::Downstream && self.has_backlog(Side::Upstream)
                }
            }
    }

    /// Neither side has TLS: bytes may go from one socket to the other as they are.
    pub fn is_plain(&self) -> bool {
        Side::BOTH.iter().all(|side| self.conns[*side].as_ref().is_none_or(Conn::is_plain))
    }

    /// A TLS handshake can continue, or start: it waits for its turn in the queue of handshakes.
    pub fn may_handshake(&self) -> bool {
        let may = |side: Side| self.conns[side].as_ref().is_some_and(Conn::may_handshake);
        may(Side::Downstream) || may(Side::Upstream) || (self.connect_done() && self.endpoint_uses_tls())
    }

    /// connect(2) of the attempt under way has something to report.
    #[inline]
    pub fn connect_done(&self) -> bool {
        self.conns[Side::Upstream].as_ref().is_some_and(Conn::may_connect)
    }

    pub fn endpoint_uses_tls(&self) -> bool {
        self.pick.as_ref().is_some_and(|pick| pick.endpoint().tls)
    }

    pub fn endpoint_is_down(&self) -> bool {
        self.pick.as_ref().is_some_and(|pick| pick.endpoint().health.is_down())
    }

    /// The client's FIN or reset is known.
    #[inline]
    pub fn client_hung_up(&self) -> bool {
        self.conns[Side::Downstream].as_ref().is_some_and(|conn| conn.ready().hangup)
    }

    /// The nearest deadline, and the event to report then; `None` for a PROXY header and the
    /// client's TLS handshake, which have no session yet.
    #[inline]
    pub fn deadline(&self, tls_ms: Millis) -> Option<(Millis, Option<Event>)> {
        let Some(session) = &self.session else { return Some((self.pending.as_ref()?.opened_at + tls_ms, None)) };
        if Side::BOTH.iter().any(|to| self.has_backlog(*to)) {
            return self.deadline_with_backlog(session, session.deadline_with_backlog());
        }
        session.deadline().map(|(at, timer)| (at, Some(Event::Timer(timer))))
    }

    #[inline(never)]
    fn deadline_with_backlog(
        &self,
        session: &Session,
        timer: Option<(Millis, Timer)>,
    ) -> Option<(Millis, Option<Event>)> {
        // The close deadline begins when the last bytes have left; until then the write stall
        // bounds it.
        let owes_the_last = Side::BOTH.iter().any(|to| self.has_backlog(*to) && session.is_closed_toward(*to));
        let timer = timer.filter(|(_, timer)| match timer {
            Timer::Close => !owes_the_last,
            // Who is not read has no deadline.
            Timer::RequestBody => !self.has_backlog(Side::Upstream),
            Timer::ResponseHead => !self.has_backlog(Side::Downstream),
            _ => true,
        });
        let mut nearest = timer.map(|(at, timer)| (at, Some(Event::Timer(timer))));
        for to in Side::BOTH {
            let Some(since) = self.conns[to].as_ref().and_then(Conn::stalled_since) else { continue };
            let at = since + session.write_stall_ms();
            if nearest.as_ref().is_none_or(|(nearest, _)| at < *nearest) {
                nearest = Some((at, Some(Event::Stalled(to, Cause::WriteStall))));
            }
        }
        nearest
    }
}

// A pair may move to another worker's thread.
const fn can_be_moved<T: Send>() {}
const _: () = can_be_moved::<Pair<std::os::fd::OwnedFd>>();
// An idle session is this, its info, its heartbeat if it has one, and one entry of the wheel
// (PERF.md).
const _: () = assert!(size_of::<Pair<std::os::fd::OwnedFd>>() <= 336);
const _: () = assert!(384 + size_of::<SessionInfo>() + HEARTBEAT_BYTES <= crate::memory::SESSION_BYTES);
const _: () = assert!(HEARTBEAT_BYTES <= 80);
// And so is a client without a request, with what allocating adds to its two boxes.
const _: () = assert!(384 + size_of::<Pending>() + EXCHANGE_BYTES + 2 * 8 <= crate::memory::SESSION_BYTES);
// With limits, those and their buckets, which are counted references; and what allocating adds.
const _: () = assert!(LIMITER_SIZE + 3 * 8 <= crate::memory::LIMITER_BYTES);
// With its entry in the worker's tables, whose nodes are at least half full.
const _: () =
    assert!(INTERCEPT_SIZE + 2 * 8 + 3 * (size_of::<Refreshing>() + 2 * size_of::<[SlotKey; 2]>()) <= REFRESH_BYTES);
const _: () = assert!(size_of::<Bucket>() + 2 * 8 + 8 <= crate::memory::BUCKET_BYTES);
