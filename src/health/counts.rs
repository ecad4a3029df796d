//! What the checks of an upstream have come to, for the metrics. Written by the health thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Counts {
    pub passed: AtomicU64,
    pub failed: AtomicU64,
    /// Not carried out, for lack of descriptors or ports on this machine.
    pub skipped: AtomicU64,
    /// Changes of an endpoint's state.
    pub ups: AtomicU64,
    pub downs: AtomicU64,
}

pub(super) fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counts {
    /// Checks by result: passed, failed, skipped.
    pub fn checks(&self) -> [u64; 3] {
        [&self.passed, &self.failed, &self.skipped].map(|counter| counter.load(Relaxed))
    }

    /// Changes by the state that they lead to: up, down.
    pub fn changes(&self) -> [u64; 2] {
        [&self.ups, &self.downs].map(|counter| counter.load(Relaxed))
    }
}
