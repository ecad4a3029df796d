//! A worker's end of the access log: a bounded single-producer, single-consumer ring. Never waits,
//! never locks.

use super::record::Record;
use super::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where one worker puts its records. Survives a restart of the worker after a panic.
#[derive(Debug)]
pub struct Ring {
    records: rtrb::Producer<Record>,
    lost: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Ring {
    /// A ring of `capacity` records, its reading end, and its count of lost lines.
    pub(super) fn new(capacity: usize, shared: Arc<Shared>) -> (Ring, rtrb::Consumer<Record>, Arc<AtomicU64>) {
        let (records, reader) = rtrb::RingBuffer::new(capacity);
        let lost = Arc::new(AtomicU64::new(0));
        (Ring { records, lost: lost.clone(), shared }, reader, lost)
    }

    /// Whether lines are written anywhere. No records are needed while they are not.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.shared.is_on()
    }

    /// Passes a record to the writer. `false`: the ring was full and the line is lost; the ring
    /// counts it and the writer reports it in the log. Makes a system call only if the writer
    /// sleeps or the ring is half full.
    pub fn push(&mut self, record: Record) -> bool {
        if !self.is_on() {
            return true;
        }
        let pushed = self.records.push(record).is_ok();
        if !pushed {
            // Single writer: a plain add is enough, and cheaper than an atomic one.
            self.lost.store(self.lost() + 1, Relaxed);
        }
        self.shared.on_pushed();
        if self.records.slots() <= self.records.buffer().capacity() / 2 {
            self.shared.wake();
        }
        pushed
    }

    /// Lines lost to a full ring so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}
