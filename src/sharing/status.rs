//! What metrics know of the sharing of limits. Written by the thread and by workers, read by
//! control.

use crate::metrics::SYNC_US;
use crate::proto::Millis;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Status {
    up: AtomicBool,
    /// When Redis last answered everything, in milliseconds of the monotonic clock.
    heard_ms: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    times: [AtomicU64; SYNC_US.len() + 1],
    time_us: AtomicU64,
    keys: AtomicU64,
    bad: AtomicU64,
    refused: AtomicU64,
}

impl Status {
    /// Redis has answered everything.
    pub fn answered(&self, now: Millis) {
        self.heard_ms.store(now, Relaxed);
        self.up.store(true, Relaxed);
    }

    pub fn failed(&self) {
        self.up.store(false, Relaxed);
    }

    pub fn synchronised(&self, ok: bool, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = SYNC_US.iter().position(|bound| us <= *bound).unwrap_or(SYNC_US.len());
        self.times[bucket].fetch_add(1, Relaxed);
        self.time_us.fetch_add(us, Relaxed);
        if ok { &self.ok } else { &self.failed }.fetch_add(1, Relaxed);
    }

    pub fn set_keys(&self, keys: usize) {
        self.keys.store(keys as u64, Relaxed);
    }

    /// Redis has given something for a client that is none of its numbers.
    pub fn bad_answer(&self) {
        self.bad.fetch_add(1, Relaxed);
    }

    /// There was no room to share a client.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// It answers, and has done so within this time: the thread may be stuck in an answer that does
    /// not end.
    pub fn is_up(&self, now: Millis, within_ms: Millis) -> bool {
        self.up.load(Relaxed) && now < self.heard_ms.load(Relaxed).saturating_add(within_ms)
    }

    /// Synchronisations that succeeded, and that failed.
    pub fn results(&self) -> [u64; 2] {
        [self.ok.load(Relaxed), self.failed.load(Relaxed)]
    }

    /// Synchronisations by the bounds of [`SYNC_US`], then all above them; and their sum in
    /// microseconds.
    pub fn times(&self) -> ([u64; SYNC_US.len() + 1], u64) {
        (std::array::from_fn(|n| self.times[n].load(Relaxed)), self.time_us.load(Relaxed))
    }

    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    pub fn bad_answers(&self) -> u64 {
        self.bad.load(Relaxed)
    }

    pub fn refusals(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}
