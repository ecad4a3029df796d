//! A pair: the slab entry of one proxied connection. One session, its two conns, its two flows, and what a
//! verdict needs. Owns them; how bytes move is `pump.rs`, how actions become system calls is `act.rs`.
//!
//! A pair can travel: nothing in it belongs to a worker, and its times are those of the process-wide clock.

use super::buffers::{Backlog, Pool};
use super::conn::{Conn, Ready};
use super::permits::Permit;
use super::splice;
use super::sys::Sys;
use super::timers::Tick;
use super::token::Role;
use crate::log::SessionInfo;
use crate::policy::route::Route;
use crate::proto::end::Cause;
use crate::proto::session::{Event, ReadInterest, Session, Timeouts, Timer};
use crate::proto::{Millis, Side, Sides};
use crate::tls;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Debug)]
pub struct Pair<S> {
    pub session: Session,
    pub conns: Sides<Option<Conn<S>>>,
    /// By destination.
    pub flows: Sides<Flow>,
    /// Known once admitted, and kept: a reload does not touch it.
    pub route: Option<Arc<Route>>,
    pub facts: Option<Arc<SessionInfo>>,
    /// What only the handshake needs; dropped when the session opens.
    pub pending: Option<Box<Pending>>,
    /// Counts against a limit for as long as it is held.
    pub permit: Option<Permit>,
    /// When bytes last moved.
    pub last_seen: Millis,
    pub opened_at: Millis,
    /// The tick that the wheel will look at it.
    pub filed: Tick,
    pub generation: u32,
    /// Endpoint of the route's group that it went to.
    pub endpoint: u32,
    /// Of the next try to reach the upstream.
    pub try_role: Role,
    /// It stands in the ready ring.
    pub queued: bool,
    /// Its session is over, and its slot is to be freed.
    pub freed: bool,
    /// Something but messages has happened since the deadline was last computed.
    pub stirred: bool,
}

/// What waits to leave toward one side.
#[derive(Debug, Default)]
pub struct Flow {
    pub backlog: Option<Box<Backlog>>,
    /// FIN follows the backlog.
    pub fin_owed: bool,
    /// What this is the end of was cut: a FIN is to say so, without a close_notify before it.
    pub truncated: bool,
}

/// What only the handshake needs.
#[derive(Debug)]
pub struct Pending {
    pub peer: SocketAddr,
    /// The peer is a trusted proxy of its listener.
    pub trusted: bool,
    pub request_id: String,
    /// For the access line of the session's start.
    pub origin: Option<Box<[u8]>>,
    pub agent: Option<Box<[u8]>>,
    pub attempts: Attempts,
    /// What TLS toward upstreams is made of, as it was when the session was admitted.
    pub store: Option<Arc<tls::TlsConfigs>>,
    /// The certificate that the client has shown.
    pub client: Option<tls::CertInfo>,
    /// Where a listener sends its clients instead of serving them.
    pub redirect: Option<u16>,
    /// Where this request is sent.
    pub location: Option<String>,
    /// The client came over TLS.
    pub secure: bool,
}

/// Which endpoints and addresses of them were tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempts {
    /// Where round robin stood when this session began.
    pub start: usize,
    pub tried: usize,
    /// Next address of the endpoint under way.
    pub address: usize,
}

impl<S> Pair<S> {
    /// Whether a read from `side` would go ahead: it has something, it is wanted, and who gets it is not behind.
    #[inline]
    pub fn may_read(&self, side: Side) -> bool {
        self.conns[side].as_ref().is_some_and(|conn| conn.ready.read && conn.up)
            && match self.session.wants(side) {
                ReadInterest::Nothing => false,
                ReadInterest::Discard => true,
                ReadInterest::Bytes(_) | ReadInterest::Payload(_) => self.flows[side.other()].backlog.is_none(),
            }
    }

    /// Whether `side` has been reset and no read will say so: none is wanted, or none goes ahead. What the upstream
    /// sent before its reset is still read once the client has taken what waits; the client's own reset ends it all.
    #[inline]
    pub fn is_lost(&self, side: Side) -> bool {
        let broken = self.conns[side].as_ref().is_some_and(|conn| conn.ready.broken && conn.up);
        let unread = || match self.session.wants(side) {
            ReadInterest::Nothing => true,
            ReadInterest::Discard => false,
            ReadInterest::Bytes(_) | ReadInterest::Payload(_) => {
                side == Side::Downstream && self.flows[Side::Upstream].backlog.is_some()
            }
        };
        broken && unread()
    }

    /// What is read from and sent to `side` is TLS.
    #[inline]
    pub fn is_secure(&self, side: Side) -> bool {
        self.conns[side].as_ref().is_some_and(|conn| conn.tls.is_some())
    }

    /// Neither side has TLS: what one sends may go to the other as it is.
    pub fn is_plain(&self) -> bool {
        !Side::BOTH.iter().any(|side| self.is_secure(*side))
    }

    /// The TLS handshake of `side` could go on: something has come, or its end; or it could begin.
    pub fn waits_to_shake(&self, side: Side) -> bool {
        self.conns[side].as_ref().is_some_and(|conn| match conn.tls {
            _ if conn.up => false,
            Some(_) => conn.ready.read,
            None => conn.ready.write && self.greets(),
        })
    }

    /// The endpoint under way is to be spoken to over TLS.
    pub fn greets(&self) -> bool {
        let endpoints = self.route.as_ref().map(|route| &route.group.endpoints);
        endpoints.and_then(|all| all.get(self.endpoint as usize)).is_some_and(|endpoint| endpoint.tls)
    }

    /// The try that is under way has come to something that needs no TLS, or to its end.
    pub fn is_answered(&self) -> bool {
        let conn = self.conns[Side::Upstream].as_ref();
        conn.is_some_and(|conn| !conn.up && conn.tls.is_none() && conn.ready.write) && !self.greets()
    }

    /// What the end of the bytes of `side` means.
    pub fn end_of(&self, side: Side) -> Event {
        let tls = self.conns[side].as_ref().and_then(|conn| conn.tls.as_ref());
        if tls.is_none_or(|tls| tls.is_closed_by_peer()) { Event::Eof(side) } else { Event::Truncated(side) }
    }

    pub fn ready(&self, side: Side) -> Ready {
        self.conns[side].as_ref().map_or_else(Ready::default, |conn| conn.ready)
    }

    /// The nearest deadline and what is to be told to the session then.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<(Millis, Event)> {
        let timeouts = self.route.as_ref().map_or(timeouts, |route| &route.timeouts);
        let mut nearest = match self.session.deadline(timeouts, self.last_seen) {
            Some((_, Timer::Close)) if self.owes_the_last() => None,
            due => due.map(|(at, due)| (at, Event::Timer(due))),
        };
        for to in Side::BOTH {
            let Some(backlog) = &self.flows[to].backlog else { continue };
            let at = backlog.stalled_since + timeouts.write_stall_ms;
            if nearest.as_ref().is_none_or(|(nearest, _)| at < *nearest) {
                nearest = Some((at, Event::Stalled(to, Cause::WriteStall)));
            }
        }
        nearest
    }

    /// The last that a side gets still waits for it. The close deadline begins when a Close has *left*; until then
    /// the write stall is what bounds it.
    fn owes_the_last(&self) -> bool {
        Side::BOTH.iter().any(|to| self.flows[*to].backlog.is_some() && self.session.is_closed_toward(*to))
    }

    /// Since when which side has taken nothing of what waits for it.
    pub fn stalled(&self) -> Option<(Millis, Side)> {
        let since = |to: Side| self.flows[to].backlog.as_ref().map(|backlog| (backlog.stalled_since, to));
        [since(Side::Downstream), since(Side::Upstream)].into_iter().flatten().min_by_key(|(since, _)| *since)
    }

    /// Closes one connection and gives back what waited for it. The socket comes out for who wants to reset it.
    pub fn drop_conn(&mut self, side: Side, pool: &mut Pool) -> Option<S> {
        let flow = std::mem::take(&mut self.flows[side]);
        if let Some(backlog) = flow.backlog {
            backlog.drop_all(pool);
        }
        self.conns[side].take().map(Conn::into_sock)
    }

    /// Sends what waits for `to`, as far as the kernel takes it.
    pub fn flush<Y: Sys<Sock = S>>(&mut self, to: Side, sys: &mut Y, pool: &mut Pool, now: Millis) {
        use super::conn::Progress;
        let (Some(conn), Some(backlog)) = (&mut self.conns[to], &mut self.flows[to].backlog) else { return };
        if let Some((pipe, held)) = backlog.pipe() {
            let left = splice::empty(conn, sys, (pipe, held));
            backlog.advance_pipe(held - left, pool);
            if left < held {
                (backlog.stalled_since, self.last_seen) = (now, now);
            }
            if left > 0 && !conn.ready.broken {
                return;
            }
        }
        while !backlog.is_empty() && conn.ready.write {
            let (slices, count) = backlog.slices();
            match conn.push_vectored(sys, slices.get(..count).unwrap_or(&[])) {
                Progress::Moved(n) => {
                    backlog.advance(n.get(), pool);
                    (backlog.stalled_since, self.last_seen) = (now, now);
                }
                Progress::Blocked => return,
                // It will take no more; its end is read in its turn.
                Progress::Eof | Progress::Reset => backlog.forget(pool),
            }
        }
        if backlog.is_empty() {
            self.flows[to].backlog = None;
            self.session.on_event(Event::Flushed(to), now);
            self.stirred = true;
        }
    }
}

// A pair may move to another worker's thread.
const fn travels<T: Send>() {}
const _: () = travels::<Pair<std::os::fd::OwnedFd>>();
// An idle session is this, its facts, and one entry of the wheel (PERF.md).
const _: () = assert!(size_of::<Pair<std::os::fd::OwnedFd>>() <= 384);
