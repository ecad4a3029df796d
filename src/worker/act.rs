//! Carries out what a session asks for: actions become system calls, answers become events. Decides nothing:
//! policy is asked, the session is told.

use super::conn::Conn;
use super::pair::{Attempts, Pair, Pending};
use super::pump::{deliver, feed, tell};
use super::resources::Resources;
use super::secure;
use super::sys::{Sys, Target, is_exhaustion};
use super::token::{SlotKey, Token};
use crate::log::SessionInfo;
use crate::log::record::{EndRecord, Record, StartRecord, field};
use crate::policy;
use crate::policy::balance::{Endpoint, Place, round_robin};
use crate::proto::Side;
use crate::proto::close::Close;
use crate::proto::end::{Cause, End, Phase};
use crate::proto::handshake::{self, Forwarding};
use crate::proto::http1;
use crate::proto::relay::Lead;
use crate::proto::session::{Action, Admission, Event};
use crate::tls::Tls;
use std::io::ErrorKind;
use std::sync::Arc;

/// Drains the session's actions. Nothing to do, and nothing done, in the steady state.
#[inline]
pub(super) fn settle<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, res: &mut Resources<'_, S>) {
    while let Some(action) = pair.session.poll_action(res.now) {
        pair.stirred = true;
        carry_out(pair, key, action, res);
    }
    // A Close that passes asks for nothing, and yet its deadline begins to run.
    pair.stirred |= pair.session.is_closing();
}

fn carry_out<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, action: Action, res: &mut Resources<'_, S>) {
    match action {
        Action::Decide => {
            let event = decide(pair, res);
            pair.session.on_event(event, res.now);
        }
        Action::Connect => {
            if let Some(event) = connect(pair, key, res) {
                pair.session.on_event(event, res.now);
            }
        }
        Action::Refuse(cause) => refuse(pair, cause, res),
        Action::Send(to, bytes) => deliver(pair, to, (Lead::EMPTY, &bytes), false, res),
        Action::Opened { early, subprotocol } => {
            opened(pair, subprotocol, res);
            feed(pair, key, (Side::Downstream, &early), res);
        }
        Action::Inject(to, close) => inject(pair, to, close, res),
        Action::HalfClose(to) => {
            pair.flows[to].fin_owed = true;
            finish(pair, to, res);
        }
        Action::Hangup(side) => hang_up(pair, side, res),
        Action::Abort(side) => {
            pair.flush(side, &mut res.core.sys, &mut res.pool, res.now);
            if let Some(sock) = pair.drop_conn(side, &mut res.pool) {
                res.core.sys.abort(sock);
            }
        }
        Action::Close(ended) => close(pair, ended, res),
    }
}

fn decide<S: Sys>(pair: &mut Pair<S::Sock>, res: &mut Resources<'_, S>) -> Event {
    let id: [u8; 16] = res.random();
    let (Some(request), Some(pending)) = (pair.session.request(), &mut pair.pending) else {
        return Event::Refused(Cause::MalformedHead);
    };
    pending.request_id = match handshake::request_id_of(&request).filter(|_| pending.trusted) {
        Some(kept) => kept.to_owned(),
        None => hex(&id),
    };
    let snapshot = Arc::clone(&res.core.snapshot);
    let verdict = policy::decide(&request, &snapshot.routes, res.core.draining);
    let route = verdict.ok().cloned();
    let text = [pending.request_id.as_bytes(), request.host.as_bytes(), request.target.as_bytes()];
    pair.facts = Some(Arc::new(SessionInfo::new(text, pending.peer, route.clone(), pair.opened_at)));
    if let Some(port) = pending.redirect {
        pending.location = Some(handshake::location(&request, port));
        return Event::Refused(Cause::Redirected);
    }
    let Some(route) = route else {
        return Event::Refused(verdict.err().unwrap_or(Cause::NoRoute));
    };
    pending.store = Some(Arc::clone(&res.core.tls));
    let Some(permit) = res.core.sessions.take() else { return Event::Refused(Cause::MaxSessions) };
    if res.core.log.is_on() {
        let value = |name: &str| field(http1::values(&request.fields, name).next());
        (pending.origin, pending.agent) = (value("origin"), value("user-agent"));
    }
    let admission = Admission {
        request_id: pending.request_id.as_str().into(),
        mode: route.mode,
        upstream_loss_code: route.on_upstream_loss,
        splice: route.splice,
    };
    if let Some(cursor) = res.cursors.get_mut(route.group.index) {
        pending.attempts.start = *cursor;
        *cursor = cursor.wrapping_add(1);
    }
    pair.permit = Some(permit);
    pair.route = Some(route);
    Event::Admitted(Box::new(admission))
}

/// Begins the next try. `None`: it is under way.
fn connect<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, res: &mut Resources<'_, S>) -> Option<Event> {
    let role = pair.try_role;
    drop(pair.drop_conn(Side::Upstream, &mut res.pool));
    let (Some(route), Some(pending)) = (pair.route.clone(), &mut pair.pending) else { return Some(Event::Exhausted) };
    pair.try_role = role.next_try();
    while let Some(index) = round_robin(pending.attempts.start, route.group.endpoints.len(), pending.attempts.tried) {
        let Some(endpoint) = route.group.endpoints.get(index) else { return Some(Event::Exhausted) };
        let Some(target) = target_of(endpoint, pending.attempts.address, res) else {
            pending.attempts.tried += 1;
            pending.attempts.address = 0;
            continue;
        };
        pending.attempts.address += 1;
        pair.endpoint = u32::try_from(index).unwrap_or(u32::MAX);
        let token = Token::Pair(key, role).pack();
        let sock = res.core.sys.connect(target.borrow());
        return match sock.and_then(|sock| res.core.sys.register(&sock, token).map(|()| sock)) {
            Ok(sock) => {
                pair.conns[Side::Upstream] = Some(Conn::new(sock, role, false));
                None
            }
            // No other endpoint can help, and none is to blame.
            Err(error) if is_exhaustion(&error) => Some(Event::Refused(Cause::NoSockets)),
            Err(error) => Some(Event::ConnectFailed(refused_by(&error))),
        };
    }
    Some(Event::Exhausted)
}

/// Whose fault it is that a connection could not even be begun.
fn refused_by(error: &std::io::Error) -> Cause {
    match error.kind() {
        // The queue of a Unix socket is full.
        ErrorKind::WouldBlock => Cause::NoEndpoint,
        // All source ports toward this address are taken.
        ErrorKind::AddrNotAvailable => Cause::NoSockets,
        _ => Cause::ConnectRefused,
    }
}

/// An address to try, owned, for the snapshot may be swapped.
enum Goal {
    Tcp(std::net::SocketAddr),
    Unix(std::path::PathBuf),
}

impl Goal {
    fn borrow(&self) -> Target<'_> {
        match self {
            Goal::Tcp(addr) => Target::Tcp(*addr),
            Goal::Unix(path) => Target::Unix(path),
        }
    }
}

/// The `address`-th address of an endpoint; `None` when there are no more.
fn target_of<S: Sys>(endpoint: &Endpoint, address: usize, res: &Resources<'_, S>) -> Option<Goal> {
    match &endpoint.place {
        Place::Tcp(addr) => (address == 0).then_some(Goal::Tcp(*addr)),
        Place::Unix(path) => (address == 0).then(|| Goal::Unix(path.clone())),
        Place::Name(name) => res.core.directory.get(name)?.get(address).copied().map(Goal::Tcp),
    }
}

/// The upstream's socket says that something has become of a try.
pub(super) fn connecting<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, res: &mut Resources<'_, S>) {
    let tls = new_tls(pair);
    let Some(conn) = &mut pair.conns[Side::Upstream] else { return };
    // Writable without an error is connected; why it is not, only the kernel knows.
    let is_up = if conn.ready.hangup { res.core.sys.connected(conn.sock()) } else { Ok(true) };
    let event = match is_up {
        Ok(false) => return,
        Ok(true) => match tls {
            None => {
                conn.up = true;
                return connected(pair, key, res);
            }
            Some(tls) => match tls.and_then(|tls| secure::greet(pair, tls, res)) {
                Ok(()) => return,
                Err(cause) => Event::ConnectFailed(cause),
            },
        },
        Err(_) => Event::ConnectFailed(Cause::ConnectRefused),
    };
    tell(pair, key, event, res);
}

/// TLS toward the endpoint of this try; `None` for a plain one.
fn new_tls<S>(pair: &Pair<S>) -> Option<Result<Box<Tls>, Cause>> {
    let (route, pending) = (pair.route.as_ref().filter(|_| pair.greets())?, pair.pending.as_ref()?);
    let (group, endpoint) = (route.group.index, pair.endpoint as usize);
    let Some((config, name)) = pending.store.as_ref().and_then(|store| store.upstream(group, endpoint)) else {
        return Some(Err(Cause::TlsInternal));
    };
    Some(Tls::client(config, name).map(Box::new).map_err(secure::why_of))
}

/// The upstream can be spoken to: the request goes there.
pub(super) fn connected<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, res: &mut Resources<'_, S>) {
    let event = match new_request(pair, res) {
        Some(request) => Event::Connected(request),
        None => Event::ConnectFailed(Cause::ConnectRefused),
    };
    tell(pair, key, event, res);
}

/// The client's TLS handshake has ended: what it has shown of itself goes to the upstream with its request.
pub(super) fn secured<S>(pair: &mut Pair<S>) {
    let shown = match &pair.conns[Side::Downstream] {
        Some(Conn { tls: Some(tls), .. }) => tls.peer(),
        _ => None,
    };
    if let Some(pending) = &mut pair.pending {
        pending.client = shown;
    }
}

fn new_request<S: Sys>(pair: &Pair<S::Sock>, res: &mut Resources<'_, S>) -> Option<Vec<u8>> {
    let (request, route, pending) = (pair.session.request()?, pair.route.as_ref()?, pair.pending.as_ref()?);
    let endpoint = route.group.endpoints.get(pair.endpoint as usize)?;
    let add = Forwarding {
        path: &route.rewrite(&endpoint.base, request.path),
        host: route.host_header.as_deref(),
        peer: pending.peer.ip().to_canonical(),
        trusted: pending.trusted,
        secure: pending.secure,
        client: pending.client.as_ref().map(|client| (client.subject.as_str(), client.sha256.as_str())),
        request_id: &pending.request_id,
        trace_seed: res.random(),
    };
    Some(handshake::write_request(&request, &add))
}

fn refuse<S: Sys>(pair: &mut Pair<S::Sock>, cause: Cause, res: &mut Resources<'_, S>) {
    let id = match &pair.pending {
        Some(pending) if !pending.request_id.is_empty() => pending.request_id.clone(),
        _ => hex(&res.random::<16>()),
    };
    let location = pair.pending.as_mut().and_then(|pending| pending.location.take());
    let answer = http1::write_refusal(cause, &id, location.as_deref());
    // A FIN follows each refusal.
    deliver(pair, Side::Downstream, (Lead::EMPTY, &answer), true, res);
}

fn opened<S: Sys>(pair: &mut Pair<S::Sock>, subprotocol: Option<Box<[u8]>>, res: &mut Resources<'_, S>) {
    res.core.tally.opened();
    pair.last_seen = res.now;
    let pending = pair.pending.take();
    if let (Some(facts), Some(pending)) = (&pair.facts, pending) {
        let start = StartRecord {
            facts: Arc::clone(facts),
            at_unix_ms: res.unix_now(),
            endpoint: Some(pair.endpoint),
            handshake_ms: res.now.saturating_sub(pair.opened_at),
            subprotocol: field(subprotocol.as_deref()),
            origin: pending.origin,
            agent: pending.agent,
        };
        write(Record::Start(start), res);
    }
    if res.core.draining {
        pair.session.on_event(Event::Drain, res.now);
    }
}

fn inject<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, close: Close, res: &mut Resources<'_, S>) {
    // "a client MUST mask all frames that it sends": toward the upstream we are one.
    let key = (to == Side::Upstream).then(|| res.random());
    // A FIN follows each Close of ours.
    deliver(pair, to, (Lead::EMPTY, &close.frame(key)), true, res);
}

/// Sends the FIN that is owed once nothing waits before it.
pub(super) fn finish<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, res: &mut Resources<'_, S>) {
    if !pair.flows[to].fin_owed || pair.flows[to].backlog.is_some() {
        return;
    }
    if pair.is_secure(to) && !pair.flows[to].truncated {
        secure::farewell(pair, to, res);
        if pair.flows[to].backlog.is_some() {
            return;
        }
    }
    pair.flows[to].fin_owed = false;
    pair.session.on_event(Event::Finished(to), res.now);
    if pair.session.is_done_with(to) {
        // Nothing more comes from there either: closing says FIN as well, and gives the socket back at once.
        return drop(pair.drop_conn(to, &mut res.pool));
    }
    if let Some(conn) = &pair.conns[to] {
        // It fails only where the peer has reset the connection; that is read in its turn.
        let _reset = res.core.sys.shutdown(conn.sock());
    }
}

/// The verdict: counted, logged, and nothing is left open.
pub(super) fn close<S: Sys>(pair: &mut Pair<S::Sock>, ended: End, res: &mut Resources<'_, S>) {
    res.core.tally.ended(ended);
    for side in Side::BOTH {
        hang_up(pair, side, res);
    }
    pair.permit = None;
    let peer = pair.facts.as_ref().map(|facts| facts.peer).or(pair.pending.as_ref().map(|pending| pending.peer));
    let (Some(peer), false) = (peer, ended.cause == Cause::NoRequest) else { return };
    let totals = pair.session.totals();
    let reached = pair.route.is_some() && ended.phase != Phase::Request;
    let end = EndRecord {
        facts: pair.facts.take(),
        peer,
        at_unix_ms: res.unix_now(),
        ended,
        endpoint: reached.then_some(pair.endpoint),
        status: pair.session.status(),
        close_codes: totals.close_codes,
        age_ms: res.now.saturating_sub(pair.opened_at),
        frames: totals.frames,
        bytes: totals.bytes,
    };
    write(Record::End(end), res);
}

fn write<S: Sys>(record: Record, res: &mut Resources<'_, S>) {
    // A full ring loses the line, and the ring counts it.
    if !res.core.log.push(record) {
        res.core.tally.log_lost = res.core.log.lost();
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Closes a connection. TLS says that this is the end, unless it is none.
fn hang_up<S: Sys>(pair: &mut Pair<S::Sock>, side: Side, res: &mut Resources<'_, S>) {
    if pair.is_secure(side) && !pair.flows[side].truncated {
        secure::farewell(pair, side, res);
    }
    drop(pair.drop_conn(side, &mut res.pool));
}

impl Pending {
    /// Of a client that has just connected; `redirect` and `secure` are its listener's.
    pub fn new(peer: std::net::SocketAddr, trusted: bool, redirect: Option<u16>, secure: bool) -> Box<Pending> {
        Box::new(Pending {
            peer,
            trusted,
            redirect,
            secure,
            request_id: String::new(),
            origin: None,
            agent: None,
            attempts: Attempts::default(),
            store: None,
            client: None,
            location: None,
        })
    }
}
