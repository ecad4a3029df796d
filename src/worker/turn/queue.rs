//! A pair in the queue of handshakes (`worker/handshakes.rs`): how its request comes there, what
//! happens at its turn, and when it has to go. Also what clients do wrong, for the block of their
//! addresses.

use super::Turn;
use crate::policy::Facts;
use crate::policy::block::{is_failure, is_violation};
use crate::policy::fair::Class;
use crate::proto::end::{Cause, End, Party};
use crate::proto::interface::Event;
use crate::worker::handshakes::Work;
use crate::worker::sys::Sys;
use std::net::IpAddr;

impl<S: Sys> Turn<'_, '_, S> {
    /// The request of this pair is to be decided: at once, unless other handshakes take all of this
    /// iteration. Whether it waits.
    #[inline]
    pub(super) fn queue_request(&mut self) -> bool {
        self.heard();
        if let Some(pending) = self.pair.pending.as_mut().filter(|pending| pending.is_next) {
            // It was silent before.
            pending.opened_at = self.res.now;
        }
        !self.res.handshakes.spend_request() && self.wait_for_decision()
    }

    #[cold]
    fn wait_for_decision(&mut self) -> bool {
        let Some(request) = self.pair.session.as_ref().and_then(|session| session.request()) else { return false };
        let Some(pending) = self.pair.pending.as_mut() else { return false };
        let snapshot = &self.res.core.snapshot;
        let facts = Facts { now: self.res.now, ..pending.facts(&request) };
        let known = pending.class == Some(Class::Preferred) || snapshot.shield.is_known(&facts, &snapshot.routes);
        let (class, client) = (if known { Class::Preferred } else { Class::Other }, facts.client);
        pending.waits = Some(self.res.handshakes.push(self.key, (Work::Request, class), client, self.res.now));
        true
    }

    /// The client has said what it was to say.
    pub(super) fn heard(&mut self) {
        let Some(pending) = self.pair.pending.as_mut() else { return };
        if let Some(place) = pending.silent.take() {
            self.res.handshakes.heard(place, self.key);
        }
        if std::mem::take(&mut pending.idle) {
            self.res.idle.remove(self.key.slot, pending.listener.addr);
        }
    }

    /// The client is to say something; where it has its refusal, to close the connection.
    pub(super) fn await_client(&mut self) {
        let Some(pending) = self.pair.pending.as_mut().filter(|pending| pending.silent.is_none()) else { return };
        pending.silent = Some(self.res.handshakes.await_client(self.key, pending.peer.ip(), self.res.now));
    }

    /// It does not wait in the queue of handshakes any more.
    pub(super) fn leave_handshakes(&mut self) {
        let Some(waits) = self.pair.pending.as_mut().and_then(|pending| pending.waits.take()) else { return };
        self.res.handshakes.remove(waits, self.key);
        if waits.work == Work::Tls {
            self.pair.queued = false;
        }
    }

    /// It has to leave the queue, without what it waits for.
    pub(super) fn give_way(&mut self) -> Option<Event> {
        let waits = self.pair.pending.as_mut()?.waits.take()?;
        let random = u64::from_ne_bytes(self.res.random());
        match waits.work {
            Work::Request => Some(Event::Refused(self.res.core.snapshot.shield.overload(random))),
            Work::Tls => None,
        }
    }

    /// What has been refused, or has ended a session, may count against the address of `client`.
    pub(super) fn note_failure(&mut self, client: Option<IpAddr>, cause: Cause) {
        let Some(blocks) = &self.res.core.snapshot.shield.blocks else { return };
        if let Some(client) = client.filter(|_| is_failure(cause)) {
            blocks.failed(client, self.res.now);
        }
    }

    /// The session has ended by a violation of its client.
    pub(super) fn note_violation(&mut self, end: End) {
        if is_violation(end) {
            let client = self.pair.info.as_ref().map(|info| info.client());
            self.note_failure(client, end.cause);
        }
    }

    /// The end of a client that has to give way without a response.
    pub fn overloaded(&self) -> End {
        End { party: Party::Proxy, phase: self.pair.phase(), cause: Cause::HandshakeOverload }
    }
}
