//! The connections of a pair come and go: a connect attempt toward the upstream, and the end of a
//! connection. The bottom of a turn: uses no other file of it.

use super::Turn;
use crate::policy::candidates::Candidates;
use crate::policy::endpoint::Pick;
use crate::proto::Side;
use crate::proto::end::{Cause, End, Party, Phase};
use crate::proto::interface::Event;
use crate::proto::settings::EndpointDown;
use crate::worker::dial::{Dial, Dialled, dial};
use crate::worker::sys::Sys;
use crate::worker::token::{Role, Token};
use std::io::ErrorKind;
use std::sync::Arc;

impl<S: Sys> Turn<'_, '_, S> {
    /// Takes a connection out of the pair; its backlog goes back to the pool.
    pub(super) fn take_sock(&mut self, side: Side) -> Option<S::Sock> {
        let conn = self.pair.conns[side].take()?;
        if side == Side::Upstream {
            self.close_link();
        }
        self.res.stalls.update(self.key, side, conn.stalled_since(), None);
        Some(conn.into_sock(&mut self.res.pool))
    }

    /// Starts the next connect attempt. `None`: it is under way.
    pub(super) fn connect(&mut self) -> Option<Event> {
        drop(self.take_sock(Side::Upstream));
        // It must not count against its own limit.
        self.note_room();
        self.pair.pick = None;
        let (key, now) = (self.key, self.res.now);
        let Some(pending) = self.pair.pending.as_mut() else { return Some(Event::Exhausted(None)) };
        let Some(candidates) = pending.candidates.as_deref_mut() else { return Some(Event::Exhausted(None)) };
        let shares = pending.plain.is_some() && candidates.upstream().rules.shares_connections();
        let link = shares.then(|| self.res.links.open(key, now));
        let (role, token) = match link {
            Some(link) => (Role::FIRST_ATTEMPT, Token::Link(link).pack()),
            None => (self.pair.attempt_role, Token::Pair(key, self.pair.attempt_role).pack()),
        };
        pending.link = link;
        let (links, mut taken) = (&mut self.res.links, None);
        let is_current = pending.tls.as_ref().is_some_and(|tls| Arc::ptr_eq(tls, &self.res.core.tls));
        let may_take = !pending.fresh && shares && is_current;
        let dialled = dial(candidates, Dial { token, role, now }, &mut self.res.core.sys, |endpoint, sys| {
            let (link, conn) = if may_take { links.take(endpoint, key, sys)? } else { return None };
            taken = Some(link);
            Some(conn)
        });
        if taken.is_some() || !matches!(dialled, Dialled::Connecting(..)) {
            self.close_link();
            if let Some(pending) = &mut self.pair.pending {
                pending.link = taken;
            }
        }
        match dialled {
            Dialled::Wait { .. } => self.wait_for_room(),
            _ => self.stop_waiting(),
        }
        let (pick, event) = match dialled {
            Dialled::Connecting(pick, conn) => {
                // Only what was registered can leave stale events behind, or an end that was read.
                self.pair.attempt_role = self.pair.attempt_role.next_attempt();
                self.pair.conns[Side::Upstream] = Some(conn);
                (pick, None)
            }
            Dialled::Taken(pick, conn) => {
                self.pair.attempt_role = self.pair.attempt_role.next_attempt();
                self.pair.conns[Side::Upstream] = Some(conn);
                self.pair.pick = Some(pick);
                return Some(self.reached(true));
            }
            Dialled::NoSocket(pick) => (pick, Some(Event::NoSocket)),
            Dialled::Failed(pick, error) => (pick, Some(Event::ConnectFailed(cause_of(&error)))),
            Dialled::Wait { until } => return Some(Event::Queued { until }),
            Dialled::Refuse(cause) => return Some(Event::Exhausted(cause)),
        };
        self.pair.pick = Some(pick);
        event
    }

    /// The connection that was taken had ended: a new one to the same endpoint is made.
    pub(super) fn renew(&mut self) -> Option<Event> {
        if let Some(pending) = &mut self.pair.pending {
            pending.fresh = true;
            if let Some(candidates) = &mut pending.candidates {
                candidates.again();
            }
        }
        self.connect()
    }

    /// The upstream connection is one that other pairs can have: it is closed.
    fn close_link(&mut self) {
        if let Some(link) = self.pair.pending.as_mut().and_then(|pending| pending.link.take()) {
            self.res.links.close(link);
        }
    }

    /// Keeps the upstream connection for another request. `false`: it is of no more use.
    pub(super) fn keep_link(&mut self) -> bool {
        let (Some(pending), Some(pick)) = (&mut self.pair.pending, &self.pair.pick) else { return false };
        let keep = pending.candidates.as_ref().map(|candidates| candidates.upstream().rules.keep_alive);
        let (Some(keep), Some(link)) = (keep, pending.link) else { return false };
        // One of rules that a reload has replaced: its TLS may be another one now.
        if !pending.tls.as_ref().is_some_and(|tls| Arc::ptr_eq(tls, &self.res.core.tls)) {
            return false;
        }
        let Some(conn) = self.pair.conns[Side::Upstream].take_if(|conn| conn.is_reusable()) else { return false };
        match self.res.links.keep(link, conn, (pick.endpoint(), keep), self.res.now) {
            Ok(()) => {
                pending.link = None;
                true
            }
            Err(conn) => {
                self.pair.conns[Side::Upstream] = Some(conn);
                false
            }
        }
    }

    /// The endpoint under way failed after the request had been sent: starts an attempt with the
    /// next one.
    pub(super) fn retry(&mut self) -> Option<Event> {
        let now = self.res.now;
        if let Some(candidates) = self.candidates() {
            candidates.fail(now);
        }
        self.connect()
    }

    /// The upstream is done with before the session: a refused client may take its time to close.
    pub(super) fn report_failed_handshake(&mut self) {
        let end = self.pair.session.as_ref().and_then(|session| session.verdict());
        if let Some(end) = end.filter(|end| end.phase != Phase::Open) {
            self.report_outcome(end, 0);
        }
    }

    /// Tells the endpoint how the handshake, or the session, with it ended.
    pub(super) fn report_outcome(&mut self, end: End, age_ms: u64) {
        let now = self.res.now;
        let status = self.pair.session.as_ref().map_or(0, |session| session.status());
        if end.phase == Phase::Open {
            let pick = self.pair.pick.as_ref().filter(|_| end.party == Party::Upstream && end.cause != Cause::Close);
            return pick.map(|pick| pick.endpoint().on_early_end(age_ms, now)).unwrap_or_default();
        }
        self.note_room();
        let Some(candidates) = self.candidates() else { return };
        match (end.phase, end.cause) {
            (Phase::Connect | Phase::Response, Cause::UpstreamResponse) if status < 500 => candidates.succeed(now),
            (_, Cause::Answered) => candidates.succeed(now),
            (Phase::Connect | Phase::Response, _) if end.party == Party::Upstream => candidates.fail(now),
            // Nothing is known of the endpoint.
            _ => {}
        }
    }

    /// The endpoint may have gone down while its handshake, or request, was under way: nothing else
    /// would end the session for that.
    pub(super) fn check_endpoint(&mut self) {
        let is_down = self.pair.endpoint_is_down();
        let session = self.pair.session.as_mut().filter(|_| is_down);
        if let Some(session) = session.filter(|session| session.on_endpoint_down() != EndpointDown::Keep) {
            session.on_event(Event::EndpointDown, self.res.now);
        }
    }

    /// The room that the session has at its endpoint, or a part of it, is about to be free.
    pub(super) fn note_room(&mut self) {
        if self.pair.pick.as_ref().is_some_and(Pick::is_awaited) {
            self.res.waiting.on_room();
        }
    }

    /// It stands in the line of its upstream.
    fn wait_for_room(&mut self) {
        let Some(pending) = self.pair.pending.as_mut().filter(|pending| pending.ticket.is_none()) else { return };
        let shared = pending.candidates.as_ref().map(|candidates| candidates.shared());
        pending.ticket = shared.map(|shared| Box::new(self.res.waiting.join(shared, self.key)));
    }

    /// It has room, or needs none any more.
    pub(super) fn stop_waiting(&mut self) {
        let Some(pending) = self.pair.pending.as_mut() else { return };
        if let Some(ticket) = pending.ticket.take() {
            self.res.waiting.leave(*ticket);
        }
    }

    /// A refused client may linger, but not in the queue of the upstream.
    pub(super) fn leave_queue(&mut self) {
        self.stop_waiting();
        if let Some(candidates) = self.candidates() {
            candidates.stop_waiting();
        }
    }

    fn candidates(&mut self) -> Option<&mut Candidates> {
        self.pair.pending.as_mut()?.candidates.as_deref_mut()
    }
}

/// The end reason for a connect(2) that fails at once.
fn cause_of(error: &std::io::Error) -> Cause {
    match error.kind() {
        // The queue of a Unix socket is full.
        ErrorKind::WouldBlock => Cause::NoEndpoint,
        // All source ports toward this address are taken.
        ErrorKind::AddrNotAvailable => Cause::NoSockets,
        _ => Cause::ConnectRefused,
    }
}
