//! The health of an endpoint: whether it gets new sessions, and why not. Written by health checks,
//! sessions and the admin listener, read when an endpoint is chosen; never for a message.

use crate::proto::Millis;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Health checks failed.
const DOWN: u8 = 1;

#[derive(Debug, Default)]
pub struct Health {
    /// Why it gets no new sessions; none of the bits: it does.
    blocked: AtomicU8,
    /// Health checks in a row that contradict the state.
    against: AtomicU32,
    /// When the state last changed; 0 since the start.
    since: AtomicU64,
}

/// How many health checks in a row change the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes that bring an endpoint up.
    pub rise: u32,
    /// Failures that take it down.
    pub fall: u32,
}

impl Health {
    /// It gets new sessions.
    pub fn is_available(&self) -> bool {
        self.blocked.load(Relaxed) == 0
    }

    /// When the state last changed.
    pub fn since(&self) -> Millis {
        self.since.load(Relaxed)
    }

    /// The result of a health check. `Some` if it changes the state: whether it is up now.
    /// Only one thread reports the checks of an endpoint.
    pub fn on_check(&self, passed: bool, thresholds: Thresholds, now: Millis) -> Option<bool> {
        let is_up = self.blocked.load(Relaxed) & DOWN == 0;
        if passed == is_up {
            self.against.store(0, Relaxed);
            return None;
        }
        let needed = if passed { thresholds.rise } else { thresholds.fall };
        if self.against.fetch_add(1, Relaxed) + 1 < needed {
            return None;
        }
        self.against.store(0, Relaxed);
        self.since.store(now, Relaxed);
        match passed {
            true => self.blocked.fetch_and(!DOWN, Relaxed),
            false => self.blocked.fetch_or(DOWN, Relaxed),
        };
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_in_a_row_change_the_state() {
        let (health, thresholds) = (Health::default(), Thresholds { rise: 2, fall: 3 });
        let check = |passed, now| health.on_check(passed, thresholds, now);
        assert_eq!([check(false, 1), check(false, 2), check(true, 3), check(false, 4), check(false, 5)], [None; 5]);
        assert_eq!(check(false, 6), Some(false));
        assert!(!health.is_available() && health.since() == 6);
        assert_eq!([check(false, 7), check(true, 8), check(false, 9), check(true, 10)], [None; 4]);
        assert_eq!(check(true, 11), Some(true));
        assert!(health.is_available() && health.since() == 11);
    }
}
