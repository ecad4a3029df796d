//! Sessions that are to be closed at moments of their own: all of them when the process drains,
//! those of one endpoint when that goes down, those whose credentials end.

use super::token::SlotKey;
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::interface::Event;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries beyond twice the number of sessions before those of sessions that are over are removed.
const SLACK: usize = 1_024;

/// Why a session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Drain,
    EndpointDown,
    Revoked,
    /// The credentials end at that time, unless they were extended.
    Expired,
}

/// A session may have ended by then: its key tells.
#[derive(Debug, Default)]
pub(super) struct Closings(BinaryHeap<Reverse<(Millis, SlotKey, Reason)>>);

impl Closings {
    /// Closes these sessions one after the other, evenly within `spread_ms`.
    pub fn spread(&mut self, keys: &[SlotKey], reason: Reason, now: Millis, spread_ms: Millis) {
        let count = keys.len().max(1) as u64;
        let entry = |(n, key): (usize, &SlotKey)| Reverse((now + spread_ms * n as u64 / count, *key, reason));
        self.0.extend(keys.iter().enumerate().map(entry));
    }

    /// Closes one session at this time.
    pub fn add(&mut self, key: SlotKey, reason: Reason, at: Millis) {
        self.0.push(Reverse((at, key, reason)));
    }

    /// Forgets sessions that are over when they are many: credentials may end hours after them.
    /// Looks at each at most as often as sessions are added.
    pub fn tidy(&mut self, live: usize, is_live: impl Fn(SlotKey) -> bool) {
        if self.0.len() > 2 * live + SLACK {
            self.0.retain(|Reverse((_, key, _))| is_live(*key));
        }
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next one that is due.
    pub fn pop(&mut self, now: Millis) -> Option<(SlotKey, Reason)> {
        let Reverse((at, key, reason)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop();
        // A storm that has passed does not keep its memory.
        if self.0.is_empty() {
            self.0 = BinaryHeap::new();
        }
        Some((key, reason))
    }
}

impl Reason {
    /// What the session hears.
    pub fn event(self) -> Event {
        match self {
            Reason::Drain => Event::Drain,
            Reason::EndpointDown => Event::EndpointDown,
            Reason::Revoked => Event::CredentialsEnded(Cause::Revoked),
            Reason::Expired => Event::CredentialsEnded(Cause::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_closed_in_order_within_the_time() {
        let keys: Vec<_> = (0..4).map(|slot| SlotKey { slot, generation: 0 }).collect();
        let mut closings = Closings::default();
        closings.spread(&keys, Reason::Drain, 100, 1_000);
        closings.spread(&keys[3..], Reason::EndpointDown, 100, 0);
        assert_eq!(closings.next_at(), Some(100));
        let mut due = |now| std::iter::from_fn(|| closings.pop(now)).map(|(key, _)| key.slot).collect::<Vec<_>>();
        assert_eq!(
            [due(99), due(100), due(599), due(600), due(9_000)],
            [vec![], vec![0, 3], vec![1], vec![2], vec![3]]
        );
    }
}
