//! A worker's end of the access log: a bounded ring of one producer and one consumer. Never waits, never locks.

use super::record::Record;
use super::writer::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where one worker puts its records. Stays when the worker is started again after a panic.
#[derive(Debug)]
pub struct Ring {
    records: rtrb::Producer<Record>,
    lost: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Ring {
    /// A ring of `capacity` records, with the reading end and the count of lost lines.
    pub(super) fn new(capacity: usize, shared: Arc<Shared>) -> (Ring, rtrb::Consumer<Record>, Arc<AtomicU64>) {
        let (records, reader) = rtrb::RingBuffer::new(capacity);
        let lost = Arc::new(AtomicU64::new(0));
        (Ring { records, lost: lost.clone(), shared }, reader, lost)
    }

    /// Whether lines are written anywhere: no need to make records while not.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.shared.is_on()
    }

    /// Hands a record to the writer. `false`: the ring was full, the line is lost and counted; the writer will say
    /// so in the log. Costs a system call only where the writer has gone to sleep or the ring is half full.
    pub fn push(&mut self, record: Record) -> bool {
        if !self.is_on() {
            return true;
        }
        let pushed = self.records.push(record).is_ok();
        if !pushed {
            // Single writer: a plain add is enough, and cheaper than an atomic one.
            self.lost.store(self.lost() + 1, Relaxed);
        }
        self.shared.pushed();
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
