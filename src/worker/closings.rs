//! Sessions that are to be closed at moments of their own: all of them when the process drains,
//! those of one endpoint when that goes down, those whose credentials end.

use super::token::SlotKey;
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::interface::Event;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries beyond six times the number of sessions before those that mean nothing any more are
/// removed.
const SLACK: usize = 1_024;

/// Why a session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Drain,
    EndpointDown,
    Revoked,
    /// The credentials end soon after that time: the client gets a message.
    Warning,
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

    /// Forgets what is not wanted any more when that is much: credentials may end hours after their
    /// session, or have been extended. A session has at most three entries that are wanted, so that
    /// each is looked at at most as often as others are added.
    pub fn tidy(&mut self, live: usize, is_wanted: impl Fn(Millis, SlotKey, Reason) -> bool) {
        if self.0.len() > 6 * live + SLACK {
            self.0.retain(|Reverse((at, key, reason))| is_wanted(*at, *key, *reason));
        }
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next one that is due.
    pub fn pop(&mut self, now: Millis) -> Option<(Millis, SlotKey, Reason)> {
        let Reverse((at, key, reason)) = *self.0.peek()?;
        if at > now {
            return None;
        }
        self.0.pop();
        // A storm that has passed does not keep its memory.
        if self.0.is_empty() {
            self.0 = BinaryHeap::new();
        }
        Some((at, key, reason))
    }
}

impl Reason {
    /// What the session hears; nothing of a warning, which is for the client.
    pub fn event(self) -> Option<Event> {
        match self {
            Reason::Drain => Some(Event::Drain),
            Reason::EndpointDown => Some(Event::EndpointDown),
            Reason::Revoked => Some(Event::CredentialsEnded(Cause::Revoked)),
            Reason::Expired => Some(Event::CredentialsEnded(Cause::Expired)),
            Reason::Warning => None,
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
        let mut due = |now| std::iter::from_fn(|| closings.pop(now)).map(|(_, key, _)| key.slot).collect::<Vec<_>>();
        assert_eq!(
            [due(99), due(100), due(599), due(600), due(9_000)],
            [vec![], vec![0, 3], vec![1], vec![2], vec![3]]
        );
    }

    #[test]
    fn entries_that_mean_nothing_any_more_are_removed() {
        let key = SlotKey { slot: 1, generation: 7 };
        let mut closings = Closings::default();
        // A session whose end is moved every second, by hours.
        for second in 0..10_000 {
            let end = 3_600_000 + second * 1_000;
            closings.add(key, Reason::Expired, end);
            closings.add(key, Reason::Warning, end - 60_000);
            let last = |at: Millis, _, reason| at == if reason == Reason::Expired { end } else { end - 60_000 };
            closings.tidy(1, last);
            assert!(closings.0.len() <= 6 + SLACK, "{}", closings.0.len());
        }
        let end = 3_600_000 + 9_999_000;
        closings.tidy(0, |_, _, _| true);
        let all: Vec<_> = std::iter::from_fn(|| closings.pop(Millis::MAX)).collect();
        assert!(all.contains(&(end - 60_000, key, Reason::Warning)) && all.contains(&(end, key, Reason::Expired)));
    }
}
