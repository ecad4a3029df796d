//! Carries out what a session asks for: actions become system calls, answers become events. Decides nothing:
//! policy is asked, the session is told.

use super::conn::Conn;
use super::pair::{Cold, Dial, Pair};
use super::pump::{deliver, feed, tell};
use super::secure;
use super::shell::Shell;
use super::sys::{Sys, Target, is_exhaustion};
use super::token::{Key, Token};
use crate::log::Facts;
use crate::log::record::{End, Record, Start, field};
use crate::policy;
use crate::policy::balance::{Endpoint, Place, round_robin};
use crate::proto::Side;
use crate::proto::close::Close;
use crate::proto::ended::{Ended, Stage, Why};
use crate::proto::handshake::{self, Forwarding};
use crate::proto::http1;
use crate::proto::relay::Lead;
use crate::proto::session::{Action, Admission, Event};
use crate::tls::Tls;
use std::io::ErrorKind;
use std::sync::Arc;

/// Drains the session's actions. Nothing to do, and nothing done, in the steady state.
#[inline]
pub(super) fn settle<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, shell: &mut Shell<'_, S>) {
    while let Some(action) = pair.session.poll_action(shell.now) {
        pair.stirred = true;
        carry_out(pair, key, action, shell);
    }
    // A Close that passes asks for nothing, and yet its deadline begins to run.
    pair.stirred |= pair.session.is_closing();
}

fn carry_out<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, action: Action, shell: &mut Shell<'_, S>) {
    match action {
        Action::Decide => {
            let event = decide(pair, shell);
            pair.session.on_event(event, shell.now);
        }
        Action::Connect => {
            if let Some(event) = connect(pair, key, shell) {
                pair.session.on_event(event, shell.now);
            }
        }
        Action::Refuse(why) => refuse(pair, why, shell),
        Action::Send(to, bytes) => deliver(pair, to, (Lead::EMPTY, &bytes), false, shell),
        Action::Opened { early, subprotocol } => {
            opened(pair, subprotocol, shell);
            feed(pair, key, (Side::Downstream, &early), shell);
        }
        Action::Inject(to, close) => inject(pair, to, close, shell),
        Action::HalfClose(to) => {
            pair.flows[to].fin_owed = true;
            finish(pair, to, shell);
        }
        Action::Hangup(side) => hang_up(pair, side, shell),
        Action::Abort(side) => {
            pair.flush(side, &mut shell.home.sys, &mut shell.pool, shell.now);
            if let Some(sock) = pair.drop_conn(side, &mut shell.pool) {
                shell.home.sys.abort(sock);
            }
        }
        Action::Close(ended) => close(pair, ended, shell),
    }
}

fn decide<S: Sys>(pair: &mut Pair<S::Sock>, shell: &mut Shell<'_, S>) -> Event {
    let id: [u8; 16] = shell.random();
    let (Some(request), Some(cold)) = (pair.session.request(), &mut pair.cold) else {
        return Event::Refused(Why::Malformed);
    };
    cold.request_id = match handshake::request_id_of(&request).filter(|_| cold.trusted) {
        Some(kept) => kept.to_owned(),
        None => hex(&id),
    };
    let snapshot = Arc::clone(&shell.home.snapshot);
    let verdict = policy::decide(&request, &snapshot.routes, shell.home.draining);
    let route = verdict.ok().cloned();
    let text = [cold.request_id.as_bytes(), request.host.as_bytes(), request.target.as_bytes()];
    pair.facts = Some(Arc::new(Facts::new(text, cold.peer, route.clone(), pair.opened_at)));
    if let Some(port) = cold.redirect {
        cold.location = Some(handshake::location(&request, port));
        return Event::Refused(Why::Redirected);
    }
    let Some(route) = route else {
        return Event::Refused(verdict.err().unwrap_or(Why::NoRoute));
    };
    cold.store = Some(Arc::clone(&shell.home.tls));
    let Some(seat) = shell.home.sessions.take() else { return Event::Refused(Why::MaxSessions) };
    if shell.home.log.is_on() {
        let value = |name: &str| field(http1::values(&request.fields, name).next());
        (cold.origin, cold.agent) = (value("origin"), value("user-agent"));
    }
    let admission = Admission {
        request_id: cold.request_id.as_str().into(),
        mode: route.mode,
        upstream_loss_code: route.on_upstream_loss,
        splice: route.splice,
    };
    if let Some(cursor) = shell.cursors.get_mut(route.group.index) {
        cold.dial.start = *cursor;
        *cursor = cursor.wrapping_add(1);
    }
    pair.seat = Some(seat);
    pair.route = Some(route);
    Event::Admitted(Box::new(admission))
}

/// Begins the next try. `None`: it is under way.
fn connect<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, shell: &mut Shell<'_, S>) -> Option<Event> {
    let role = pair.try_role;
    drop(pair.drop_conn(Side::Upstream, &mut shell.pool));
    let (Some(route), Some(cold)) = (pair.route.clone(), &mut pair.cold) else { return Some(Event::Exhausted) };
    pair.try_role = role.next_try();
    while let Some(index) = round_robin(cold.dial.start, route.group.endpoints.len(), cold.dial.tried) {
        let Some(endpoint) = route.group.endpoints.get(index) else { return Some(Event::Exhausted) };
        let Some(target) = target_of(endpoint, cold.dial.address, shell) else {
            cold.dial.tried += 1;
            cold.dial.address = 0;
            continue;
        };
        cold.dial.address += 1;
        pair.endpoint = u32::try_from(index).unwrap_or(u32::MAX);
        let token = Token::Pair(key, role).pack();
        let sock = shell.home.sys.connect(target.borrow());
        return match sock.and_then(|sock| shell.home.sys.register(&sock, token).map(|()| sock)) {
            Ok(sock) => {
                pair.conns[Side::Upstream] = Some(Conn::new(sock, role, false));
                None
            }
            // No other endpoint can help, and none is to blame.
            Err(error) if is_exhaustion(&error) => Some(Event::Refused(Why::NoSockets)),
            Err(error) => Some(Event::ConnectFailed(refused_by(&error))),
        };
    }
    Some(Event::Exhausted)
}

/// Whose fault it is that a connection could not even be begun.
fn refused_by(error: &std::io::Error) -> Why {
    match error.kind() {
        // The queue of a Unix socket is full.
        ErrorKind::WouldBlock => Why::NoEndpoint,
        // All source ports toward this address are taken.
        ErrorKind::AddrNotAvailable => Why::NoSockets,
        _ => Why::ConnectRefused,
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
fn target_of<S: Sys>(endpoint: &Endpoint, address: usize, shell: &Shell<'_, S>) -> Option<Goal> {
    match &endpoint.place {
        Place::Tcp(addr) => (address == 0).then_some(Goal::Tcp(*addr)),
        Place::Unix(path) => (address == 0).then(|| Goal::Unix(path.clone())),
        Place::Name(name) => shell.home.directory.get(name)?.get(address).copied().map(Goal::Tcp),
    }
}

/// The upstream's socket says that something has become of a try.
pub(super) fn connecting<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, shell: &mut Shell<'_, S>) {
    let tls = new_tls(pair);
    let Some(conn) = &mut pair.conns[Side::Upstream] else { return };
    // Writable without an error is connected; why it is not, only the kernel knows.
    let is_up = if conn.ready.hangup { shell.home.sys.connected(conn.sock()) } else { Ok(true) };
    let event = match is_up {
        Ok(false) => return,
        Ok(true) => match tls {
            None => {
                conn.up = true;
                return connected(pair, key, shell);
            }
            Some(tls) => match tls.and_then(|tls| secure::greet(pair, tls, shell)) {
                Ok(()) => return,
                Err(why) => Event::ConnectFailed(why),
            },
        },
        Err(_) => Event::ConnectFailed(Why::ConnectRefused),
    };
    tell(pair, key, event, shell);
}

/// TLS toward the endpoint of this try; `None` for a plain one.
fn new_tls<S>(pair: &Pair<S>) -> Option<Result<Box<Tls>, Why>> {
    let (route, cold) = (pair.route.as_ref().filter(|_| pair.greets())?, pair.cold.as_ref()?);
    let (group, endpoint) = (route.group.index, pair.endpoint as usize);
    let Some((config, name)) = cold.store.as_ref().and_then(|store| store.upstream(group, endpoint)) else {
        return Some(Err(Why::TlsInternal));
    };
    Some(Tls::client(config, name).map(Box::new).map_err(secure::why_of))
}

/// The upstream can be spoken to: the request goes there.
pub(super) fn connected<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, shell: &mut Shell<'_, S>) {
    let event = match new_request(pair, shell) {
        Some(request) => Event::Connected(request),
        None => Event::ConnectFailed(Why::ConnectRefused),
    };
    tell(pair, key, event, shell);
}

/// The client's TLS handshake has ended: what it has shown of itself goes to the upstream with its request.
pub(super) fn secured<S>(pair: &mut Pair<S>) {
    let shown = match &pair.conns[Side::Downstream] {
        Some(Conn { tls: Some(tls), .. }) => tls.peer(),
        _ => None,
    };
    if let Some(cold) = &mut pair.cold {
        cold.client = shown;
    }
}

fn new_request<S: Sys>(pair: &Pair<S::Sock>, shell: &mut Shell<'_, S>) -> Option<Vec<u8>> {
    let (request, route, cold) = (pair.session.request()?, pair.route.as_ref()?, pair.cold.as_ref()?);
    let endpoint = route.group.endpoints.get(pair.endpoint as usize)?;
    let add = Forwarding {
        path: &route.rewrite(&endpoint.base, request.path),
        host: route.host_header.as_deref(),
        peer: cold.peer.ip().to_canonical(),
        trusted: cold.trusted,
        secure: cold.secure,
        client: cold.client.as_ref().map(|client| (client.subject.as_str(), client.sha256.as_str())),
        request_id: &cold.request_id,
        trace_seed: shell.random(),
    };
    Some(handshake::write_request(&request, &add))
}

fn refuse<S: Sys>(pair: &mut Pair<S::Sock>, why: Why, shell: &mut Shell<'_, S>) {
    let id = match &pair.cold {
        Some(cold) if !cold.request_id.is_empty() => cold.request_id.clone(),
        _ => hex(&shell.random::<16>()),
    };
    let location = pair.cold.as_mut().and_then(|cold| cold.location.take());
    let answer = http1::write_refusal(why, &id, location.as_deref());
    // A FIN follows each refusal.
    deliver(pair, Side::Downstream, (Lead::EMPTY, &answer), true, shell);
}

fn opened<S: Sys>(pair: &mut Pair<S::Sock>, subprotocol: Option<Box<[u8]>>, shell: &mut Shell<'_, S>) {
    shell.home.tally.opened();
    pair.last_seen = shell.now;
    let cold = pair.cold.take();
    if let (Some(facts), Some(cold)) = (&pair.facts, cold) {
        let start = Start {
            facts: Arc::clone(facts),
            at_unix_ms: shell.unix_now(),
            endpoint: Some(pair.endpoint),
            handshake_ms: shell.now.saturating_sub(pair.opened_at),
            subprotocol: field(subprotocol.as_deref()),
            origin: cold.origin,
            agent: cold.agent,
        };
        write(Record::Start(start), shell);
    }
    if shell.home.draining {
        pair.session.on_event(Event::Drain, shell.now);
    }
}

fn inject<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, close: Close, shell: &mut Shell<'_, S>) {
    // "a client MUST mask all frames that it sends": toward the upstream we are one.
    let key = (to == Side::Upstream).then(|| shell.random());
    // A FIN follows each Close of ours.
    deliver(pair, to, (Lead::EMPTY, &close.frame(key)), true, shell);
}

/// Sends the FIN that is owed once nothing waits before it.
pub(super) fn finish<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, shell: &mut Shell<'_, S>) {
    if !pair.flows[to].fin_owed || pair.flows[to].backlog.is_some() {
        return;
    }
    if pair.is_secure(to) && !pair.flows[to].truncated {
        secure::farewell(pair, to, shell);
        if pair.flows[to].backlog.is_some() {
            return;
        }
    }
    pair.flows[to].fin_owed = false;
    pair.session.on_event(Event::Finished(to), shell.now);
    if pair.session.is_done_with(to) {
        // Nothing more comes from there either: closing says FIN as well, and gives the socket back at once.
        return drop(pair.drop_conn(to, &mut shell.pool));
    }
    if let Some(conn) = &pair.conns[to] {
        // It fails only where the peer has reset the connection; that is read in its turn.
        let _reset = shell.home.sys.shutdown(conn.sock());
    }
}

/// The verdict: counted, logged, and nothing is left open.
pub(super) fn close<S: Sys>(pair: &mut Pair<S::Sock>, ended: Ended, shell: &mut Shell<'_, S>) {
    shell.home.tally.ended(ended);
    for side in Side::BOTH {
        hang_up(pair, side, shell);
    }
    pair.seat = None;
    let peer = pair.facts.as_ref().map(|facts| facts.peer).or(pair.cold.as_ref().map(|cold| cold.peer));
    let (Some(peer), false) = (peer, ended.why == Why::NeverSpoke) else { return };
    let totals = pair.session.totals();
    let reached = pair.route.is_some() && ended.stage != Stage::Request;
    let end = End {
        facts: pair.facts.take(),
        peer,
        at_unix_ms: shell.unix_now(),
        ended,
        endpoint: reached.then_some(pair.endpoint),
        status: pair.session.status(),
        close_codes: totals.close_codes,
        age_ms: shell.now.saturating_sub(pair.opened_at),
        frames: totals.frames,
        bytes: totals.bytes,
    };
    write(Record::End(end), shell);
}

fn write<S: Sys>(record: Record, shell: &mut Shell<'_, S>) {
    // A full ring loses the line, and the ring counts it.
    if !shell.home.log.push(record) {
        shell.home.tally.log_lost = shell.home.log.lost();
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Closes a connection. TLS says that this is the end, unless it is none.
fn hang_up<S: Sys>(pair: &mut Pair<S::Sock>, side: Side, shell: &mut Shell<'_, S>) {
    if pair.is_secure(side) && !pair.flows[side].truncated {
        secure::farewell(pair, side, shell);
    }
    drop(pair.drop_conn(side, &mut shell.pool));
}

impl Cold {
    /// Of a client that has just connected; `redirect` and `secure` are its listener's.
    pub fn new(peer: std::net::SocketAddr, trusted: bool, redirect: Option<u16>, secure: bool) -> Box<Cold> {
        Box::new(Cold {
            peer,
            trusted,
            redirect,
            secure,
            request_id: String::new(),
            origin: None,
            agent: None,
            dial: Dial::default(),
            store: None,
            client: None,
            location: None,
        })
    }
}
