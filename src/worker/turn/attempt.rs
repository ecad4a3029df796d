//! The connections of a pair come and go: a connect attempt toward the upstream, and the end of a
//! connection. The bottom of a turn: uses no other file of it.

use super::Turn;
use crate::proto::Side;
use crate::proto::end::Cause;
use crate::proto::interface::Event;
use crate::worker::conn::Conn;
use crate::worker::sys::{self, Sys, is_exhaustion};
use crate::worker::token::Token;
use std::io::ErrorKind;

impl<S: Sys> Turn<'_, '_, S> {
    /// Takes a connection out of the pair; its backlog goes back to the pool.
    pub(super) fn take_sock(&mut self, side: Side) -> Option<S::Sock> {
        let conn = self.pair.conns[side].take()?;
        self.res.stalls.update(self.key, side, conn.stalled_since(), None);
        Some(conn.into_sock(&mut self.res.pool))
    }

    /// Starts the next connect attempt. `None`: it is under way.
    pub(super) fn connect(&mut self) -> Option<Event> {
        drop(self.take_sock(Side::Upstream));
        let role = self.pair.attempt_role;
        let candidates = self.pair.pending.as_mut().and_then(|pending| pending.candidates.as_mut());
        let Some((pick, target)) = candidates.and_then(|candidates| candidates.current()) else {
            return Some(Event::Exhausted);
        };
        self.pair.pick = Some(pick);
        let io = &mut self.res.core.sys;
        let sock = io.connect(sys::Target::from(&target));
        let token = Token::Pair(self.key, role).pack();
        let sock = sock.and_then(|sock| io.register(&sock, token).map(|()| sock));
        if let Err(error) = &sock
            && is_exhaustion(error)
        {
            // Neither this endpoint nor another one is at fault: the attempt is made again.
            return Some(Event::NoSocket);
        }
        if let Some(candidates) = self.pair.pending.as_mut().and_then(|pending| pending.candidates.as_mut()) {
            candidates.advance();
        }
        match sock {
            Ok(sock) => {
                // Only what was registered can leave stale events behind.
                self.pair.attempt_role = role.next_attempt();
                self.pair.conns[Side::Upstream] = Some(Conn::connecting(sock, role));
                None
            }
            Err(error) => Some(Event::ConnectFailed(cause_of(&error))),
        }
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
