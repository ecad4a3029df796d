//! The health of an endpoint: whether it gets new sessions, and why not. Written by health checks,
//! sessions and the admin listener, read when an endpoint is chosen; never for a message.
//!
//! ```text
//!              failures                time is over            handshake succeeds
//!  available ----------> ejected ------------------> one trial ------------------> available
//!                           ^                            |
//!                           +------- handshake fails ----+   for twice as long
//! ```
//!
//! Health checks and the admin listener block an endpoint beside that, each for reasons of its own.

use crate::proto::Millis;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Why an endpoint gets no new sessions, as bits of `blocked`.
const CHECKS_FAILED: u8 = 1;
const EJECTED: u8 = 2;
const DRAINED: u8 = 4;
const FORCED_DOWN: u8 = 8;
const REMOVED: u8 = 16;

#[derive(Debug, Default)]
pub struct Health {
    blocked: AtomicU8,
    /// The one trial after an ejection is under way.
    trial: AtomicBool,
    /// The end of the ejection.
    ejected_until: AtomicU64,
    /// Health checks in a row that contradict the state.
    against: AtomicU32,
    /// When the state last changed; 0 since the start.
    since: AtomicU64,
    /// When it last became available again, or joined others; 0 if it was there from the start.
    recovered: AtomicU64,
    /// Handshakes in a row that failed.
    failures: AtomicU32,
    window: Window,
    /// Ejections since it last stayed in for long.
    ejections: AtomicU32,
    totals: Totals,
}

/// Handshakes of the present window of time.
#[derive(Debug, Default)]
struct Window {
    began: AtomicU64,
    all: AtomicU32,
    failed: AtomicU32,
}

#[derive(Debug, Default)]
struct Totals {
    succeeded: AtomicU64,
    failed: AtomicU64,
    ejected: AtomicU64,
}

/// How many health checks in a row change the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes that bring an endpoint up.
    pub rise: u32,
    /// Failures that take it down.
    pub fall: u32,
}

/// When handshakes eject an endpoint, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failed handshakes in a row; 0 is off.
    pub failures: u32,
    /// Percent of failed handshakes within a window; 0 is off.
    pub failure_percent: u32,
    pub window_ms: Millis,
    /// Handshakes in a window below which its percentage means nothing.
    pub min_handshakes: u32,
    /// The first ejection; each further one lasts twice as long as the one before,
    pub time_ms: Millis,
    /// but not longer than this. An endpoint that stays in for as long begins anew.
    pub max_time_ms: Millis,
    /// Percent of the endpoints of an upstream that may be ejected at once.
    pub max_percent: u32,
    /// An established session that the upstream ends abnormally within this time counts as a failed
    /// handshake; 0 is off.
    pub early_end_ms: Millis,
}

impl Default for Ejection {
    fn default() -> Ejection {
        Ejection {
            failures: 5,
            failure_percent: 0,
            window_ms: 10_000,
            min_handshakes: 20,
            time_ms: 10_000,
            max_time_ms: 300_000,
            max_percent: 50,
            early_end_ms: 1_000,
        }
    }
}

/// Why an endpoint gets new sessions or not. The first that applies, in the order of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Not a member of its upstream any more.
    Removed,
    /// Taken down by the admin listener.
    ForcedDown,
    /// Drained by the admin listener.
    Drained,
    /// Health checks failed.
    Down,
    /// Handshakes failed.
    Ejected,
    Up,
}

impl State {
    pub const ALL: [State; 5] = [State::Up, State::Down, State::Ejected, State::Drained, State::ForcedDown];

    /// The word of the admin listener, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::Removed => "removed",
            State::ForcedDown => "forced-down",
            State::Drained => "drained",
            State::Down => "down",
            State::Ejected => "ejected",
            State::Up => "up",
        }
    }
}

/// What the admin listener asks of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// No new sessions.
    Drain,
    /// The same, as if it had failed.
    Down,
    /// Ends the other two, and an ejection.
    Ready,
}

impl Health {
    pub fn state(&self) -> State {
        match self.blocked.load(Relaxed) {
            bits if bits & REMOVED != 0 => State::Removed,
            bits if bits & FORCED_DOWN != 0 => State::ForcedDown,
            bits if bits & DRAINED != 0 => State::Drained,
            bits if bits & CHECKS_FAILED != 0 => State::Down,
            bits if bits & EJECTED != 0 => State::Ejected,
            _ => State::Up,
        }
    }

    /// When the state last changed; 0 since the start.
    pub fn since(&self) -> Millis {
        self.since.load(Relaxed)
    }

    /// It gets new sessions, or one trial.
    #[inline]
    pub fn is_available(&self, now: Millis) -> bool {
        match self.blocked.load(Relaxed) {
            0 => true,
            EJECTED => now >= self.ejected_until.load(Relaxed) && !self.trial.load(Relaxed),
            _ => false,
        }
    }

    /// Its part of `weight` while it starts slowly: from a tenth up to the whole within `slow_ms`
    /// after it has recovered or joined.
    #[inline]
    pub fn ramped(&self, weight: u64, now: Millis, slow_ms: Millis) -> u64 {
        let recovered = self.recovered.load(Relaxed);
        let passed = now.saturating_sub(recovered);
        if recovered == 0 || passed >= slow_ms { weight } else { (weight * passed.max(slow_ms / 10) / slow_ms).max(1) }
    }

    /// Handshakes that succeeded and failed, and ejections, since the start.
    pub fn totals(&self) -> (u64, u64, u64) {
        let Totals { succeeded, failed, ejected } = &self.totals;
        (succeeded.load(Relaxed), failed.load(Relaxed), ejected.load(Relaxed))
    }

    pub fn is_ejected(&self) -> bool {
        self.blocked.load(Relaxed) & EJECTED != 0
    }

    /// It joins endpoints that have sessions already.
    pub(super) fn start_slowly(&self, now: Millis) {
        // 0 means never.
        self.recovered.store(now.max(1), Relaxed);
    }

    /// Down until health checks say otherwise.
    pub fn hold(&self) {
        self.blocked.fetch_or(CHECKS_FAILED, Relaxed);
    }

    /// The result of a health check. `Some` if it changes the state: whether it is up now. Only one
    /// thread reports the checks of an endpoint.
    pub fn on_check(&self, passed: bool, thresholds: Thresholds, now: Millis) -> Option<bool> {
        let is_up = self.blocked.load(Relaxed) & CHECKS_FAILED == 0;
        if passed == is_up {
            self.against.store(0, Relaxed);
            return None;
        }
        let needed = if passed { thresholds.rise } else { thresholds.fall };
        if self.against.fetch_add(1, Relaxed) + 1 < needed {
            return None;
        }
        self.against.store(0, Relaxed);
        match passed {
            true => self.unblock(CHECKS_FAILED, now),
            false => self.block(CHECKS_FAILED, now),
        }
        Some(passed)
    }

    /// There are no health checks any more.
    pub fn clear_checks(&self, now: Millis) {
        self.against.store(0, Relaxed);
        self.unblock(CHECKS_FAILED, now);
    }

    /// It is not a member of its upstream any more, or is one again.
    pub(super) fn set_removed(&self, removed: bool) {
        match removed {
            true => self.blocked.fetch_or(REMOVED, Relaxed),
            false => self.blocked.fetch_and(!REMOVED, Relaxed),
        };
    }

    /// It was marked down, drained or removed. An ejection is no such thing: it ends by itself.
    pub fn is_down(&self) -> bool {
        self.blocked.load(Relaxed) & !EJECTED != 0
    }

    pub fn obey(&self, order: Order, now: Millis) {
        match order {
            Order::Drain => self.block(DRAINED, now),
            Order::Down => self.block(FORCED_DOWN, now),
            Order::Ready => {
                self.ejections.store(0, Relaxed);
                self.failures.store(0, Relaxed);
                self.unblock(DRAINED | FORCED_DOWN | EJECTED, now);
            }
        }
    }

    /// A handshake succeeded; `trial` if it was the one after an ejection.
    pub fn on_success(&self, trial: bool, rules: &Ejection, now: Millis) {
        self.totals.succeeded.fetch_add(1, Relaxed);
        self.failures.store(0, Relaxed);
        self.window.count(false, rules.window_ms, now);
        if trial {
            self.unblock(EJECTED, now);
        }
    }

    /// A handshake failed, or a session ended early. Whether the rules eject the endpoint for that.
    pub fn on_failure(&self, trial: bool, rules: &Ejection, now: Millis) -> bool {
        self.totals.failed.fetch_add(1, Relaxed);
        let in_a_row = self.failures.fetch_add(1, Relaxed) + 1;
        let (all, failed) = self.window.count(true, rules.window_ms, now);
        let share_reached =
            all >= rules.min_handshakes && failed * 100 >= u64::from(all) * u64::from(rules.failure_percent);
        trial || (rules.failures > 0 && in_a_row >= rules.failures) || (rules.failure_percent > 0 && share_reached)
    }

    /// Ejects the endpoint; for twice as long as the last time.
    pub fn eject(&self, rules: &Ejection, now: Millis) {
        let stayed_in = now.saturating_sub(self.ejected_until.load(Relaxed));
        let before = if stayed_in >= rules.max_time_ms { 0 } else { self.ejections.load(Relaxed) };
        let time = rules.time_ms.saturating_mul(1 << before.min(20)).min(rules.max_time_ms);
        self.ejections.store(before + 1, Relaxed);
        self.ejected_until.store(now.saturating_add(time), Relaxed);
        self.failures.store(0, Relaxed);
        self.window.reset(now);
        self.totals.ejected.fetch_add(1, Relaxed);
        self.block(EJECTED, now);
    }

    /// Takes the one trial of an endpoint whose ejection is over. `None`: another session has it.
    pub(super) fn take_trial(&self) -> Option<bool> {
        if !self.is_ejected() {
            return Some(false);
        }
        (!self.trial.swap(true, Relaxed)).then_some(true)
    }

    pub(super) fn release_trial(&self) {
        self.trial.store(false, Relaxed);
    }

    fn block(&self, bits: u8, now: Millis) {
        if self.blocked.fetch_or(bits, Relaxed) & bits != bits {
            self.since.store(now, Relaxed);
        }
    }

    fn unblock(&self, bits: u8, now: Millis) {
        let before = self.blocked.fetch_and(!bits, Relaxed);
        if before & bits != 0 {
            self.since.store(now, Relaxed);
            if before & !bits == 0 {
                self.start_slowly(now);
            }
        }
    }
}

impl Window {
    /// Counts one handshake; all and the failed ones of the window. Counts of a window that begins
    /// at this moment in two threads may be lost: they decide nothing alone.
    fn count(&self, failed: bool, window_ms: Millis, now: Millis) -> (u32, u64) {
        if now.saturating_sub(self.began.load(Relaxed)) >= window_ms {
            self.reset(now);
        }
        let all = self.all.fetch_add(1, Relaxed) + 1;
        let failures = self.failed.fetch_add(u32::from(failed), Relaxed) + u32::from(failed);
        (all, u64::from(failures))
    }

    fn reset(&self, now: Millis) {
        self.began.store(now, Relaxed);
        self.all.store(0, Relaxed);
        self.failed.store(0, Relaxed);
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
        assert!(!health.is_available(6) && health.since() == 6 && health.state() == State::Down);
        assert_eq!([check(false, 7), check(true, 8), check(false, 9), check(true, 10)], [None; 4]);
        assert_eq!(check(true, 11), Some(true));
        assert!(health.is_available(11) && health.since() == 11 && health.state() == State::Up);
    }

    #[test]
    fn each_ejection_lasts_longer_and_ends_with_one_trial() {
        let rules = Ejection { failures: 2, time_ms: 100, max_time_ms: 350, ..Ejection::default() };
        let health = Health::default();
        assert!(!health.on_failure(false, &rules, 1_000));
        assert!(health.on_failure(false, &rules, 1_000));
        let mut now = 1_000;
        for time in [100, 200, 350, 350] {
            health.eject(&rules, now);
            assert!(!health.is_available(now + time - 1), "{time}");
            assert!(health.is_available(now + time), "{time}");
            assert_eq!((health.take_trial(), health.take_trial()), (Some(true), None));
            assert!(!health.is_available(now + time), "one trial at a time");
            now += time;
            assert!(health.on_failure(true, &rules, now), "a failed trial ejects at once");
            health.release_trial();
        }
        health.eject(&rules, now);
        health.on_success(true, &rules, now + 350);
        assert_eq!(health.state(), State::Up);
        // It stayed in for long.
        health.eject(&rules, now + 800);
        assert!(health.is_available(now + 900));
    }

    #[test]
    fn a_share_of_failures_ejects_only_with_enough_handshakes() {
        let rules = Ejection { failures: 0, failure_percent: 50, min_handshakes: 4, ..Ejection::default() };
        let health = Health::default();
        assert!(!health.on_failure(false, &rules, 0) && !health.on_failure(false, &rules, 0));
        health.on_success(false, &rules, 0);
        assert!(health.on_failure(false, &rules, 1), "three of four");
        assert!(!health.on_failure(false, &rules, rules.window_ms + 1), "a new window");
    }

    #[test]
    fn an_order_holds_until_it_is_taken_back() {
        let health = Health::default();
        health.obey(Order::Drain, 5);
        assert_eq!((health.state(), health.is_available(9)), (State::Drained, false));
        health.obey(Order::Down, 6);
        assert_eq!(health.state(), State::ForcedDown);
        health.on_check(false, Thresholds { rise: 1, fall: 1 }, 7);
        health.obey(Order::Ready, 8);
        assert_eq!(health.state(), State::Down, "checks are not overruled");
        health.clear_checks(9);
        assert!(health.is_available(9) && health.since() == 9);
    }

    #[test]
    fn a_recovered_endpoint_starts_slowly() {
        let health = Health::default();
        assert_eq!(health.ramped(100, 5, 1_000), 100);
        health.obey(Order::Drain, 10);
        health.obey(Order::Ready, 2_000);
        let parts = [2_000, 2_050, 2_500, 2_999, 3_000].map(|now| health.ramped(100, now, 1_000));
        assert_eq!(parts, [10, 10, 50, 99, 100]);
        assert_eq!(health.ramped(100, 2_000, 0), 100);
    }
}
