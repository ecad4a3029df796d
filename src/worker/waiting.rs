//! The sessions of a worker that wait for room at an upstream, in the order in which they came, and
//! how they learn of it. Whether there is room, and who may have it, is policy's business.
//!
//! A pair that leaves room while others wait says so ([`Waiting::on_room`]). At the end of the loop
//! iteration the first in line asks, then the next one, until one has to go on waiting. Then other
//! workers with waiting sessions are woken ([`Peers`]), and do the same.
//!
//! Sessions also ask from time to time: room may come from elsewhere, such as an endpoint that is
//! up again, and one that begins to wait when another worker leaves room may miss that.

use super::inbox::Peers;
use super::token::SlotKey;
use crate::policy::endpoint::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A place in the line of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    line: usize,
    number: u64,
}

pub struct Waiting {
    /// By the address of what the sessions of an upstream share, which the line keeps alive.
    lines: BTreeMap<usize, Line>,
    /// The number of the next ticket.
    next: u64,
    /// Room was left, here or by another worker: one byte that every iteration looks at.
    look: bool,
    /// Room was left here.
    left: bool,
    peers: Peers,
}

struct Line {
    shared: Arc<Shared>,
    /// [`Shared::left`] when it was last looked at.
    seen: u64,
    keys: BTreeMap<u64, SlotKey>,
}

impl Waiting {
    pub fn new(peers: Peers) -> Waiting {
        // A worker before this one may have left its mark.
        peers.set_waiting(false);
        Waiting { lines: BTreeMap::new(), next: 0, look: false, left: false, peers }
    }

    /// A session begins to wait.
    pub fn join(&mut self, shared: &Arc<Shared>, key: SlotKey) -> Ticket {
        if self.lines.is_empty() {
            self.peers.set_waiting(true);
        }
        let ticket = Ticket { line: Arc::as_ptr(shared) as usize, number: self.next };
        self.next += 1;
        let fresh = || Line { shared: Arc::clone(shared), seen: shared.left(), keys: BTreeMap::new() };
        self.lines.entry(ticket.line).or_insert_with(fresh).keys.insert(ticket.number, key);
        ticket
    }

    /// It waits no longer.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(line) = self.lines.get_mut(&ticket.line) else { return };
        line.keys.remove(&ticket.number);
        if line.keys.is_empty() {
            self.lines.remove(&ticket.line);
        }
        if self.lines.is_empty() {
            self.peers.set_waiting(false);
        }
    }

    /// A session of this worker leaves room that others wait for, here or at another worker.
    pub fn on_room(&mut self) {
        (self.look, self.left) = (true, true);
    }

    /// Another worker may have left room.
    pub fn on_wake(&mut self) {
        self.look |= !self.lines.is_empty();
    }

    /// There may be room for sessions that wait.
    #[inline]
    pub fn may_have_room(&self) -> bool {
        self.look
    }

    /// Those first in the lines that room was left for.
    pub fn look(&mut self) -> Vec<Ticket> {
        self.look = false;
        let mut first = Vec::new();
        for (id, line) in &mut self.lines {
            let left = line.shared.left();
            if std::mem::replace(&mut line.seen, left) != left {
                first.extend(line.keys.keys().next().map(|number| Ticket { line: *id, number: *number }));
            }
        }
        first
    }

    /// This line is to be looked at again: there may be more room than one iteration gives away.
    pub fn look_again(&mut self, ticket: Ticket) {
        if let Some(line) = self.lines.get_mut(&ticket.line) {
            line.seen = line.seen.wrapping_sub(1);
            self.look = true;
        }
    }

    /// Wakes other workers for room that was left here, after those that wait here have asked.
    pub fn wake_others(&mut self) {
        if std::mem::take(&mut self.left) {
            self.peers.wake_waiting();
        }
    }

    /// The session that has waited longest of those in the line of this one.
    pub fn first(&self, ticket: Ticket) -> Option<SlotKey> {
        self.lines.get(&ticket.line)?.keys.values().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SlotKey {
        SlotKey { slot, generation: 0 }
    }

    #[test]
    fn a_line_is_kept_in_order_whoever_leaves_it() {
        let (shared, other) = (Arc::<Shared>::default(), Arc::<Shared>::default());
        let mut waiting = Waiting::new(Peers::default());
        let tickets: Vec<_> = (0..4).map(|slot| waiting.join(&shared, key(slot))).collect();
        let apart = waiting.join(&other, key(9));
        let first = |waiting: &Waiting| waiting.first(tickets[0]).map(|key| key.slot);
        assert_eq!((first(&waiting), waiting.first(apart)), (Some(0), Some(key(9))));
        for (leaves, next) in [(2, Some(0)), (0, Some(1)), (1, Some(3)), (1, Some(3)), (3, None)] {
            waiting.leave(tickets[leaves]);
            assert_eq!(first(&waiting), next);
        }
        waiting.leave(apart);
        assert!(waiting.lines.is_empty());
        waiting.on_wake();
        assert!(!waiting.may_have_room(), "nobody waits");
    }

    #[test]
    fn a_line_is_looked_at_when_room_was_left_for_it() {
        let shared = Arc::<Shared>::default();
        let mut waiting = Waiting::new(Peers::default());
        let ticket = waiting.join(&shared, key(0));
        waiting.on_wake();
        assert!(waiting.may_have_room());
        assert_eq!(waiting.look(), [], "no room was left");
        assert!(!waiting.may_have_room());
        waiting.look_again(ticket);
        assert!(waiting.may_have_room());
        assert_eq!(waiting.look(), [ticket]);
        assert_eq!(waiting.look(), []);
    }
}
