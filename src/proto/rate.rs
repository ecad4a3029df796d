//! Token buckets: how many units (messages, bytes, control frames) may pass in a time, with a
//! burst. A bucket is one number, kept by the generic cell rate algorithm (GCRA, ITU-T I.371): when
//! it will be full again. No timer fills it; each question is answered from the time that comes
//! with it.
//!
//! Several sessions, on any workers, may share a bucket: it is changed by compare-and-exchange,
//! without waiting. What a session does when its bucket is empty is in `relay/limiter.rs`.
//!
//! Counts in ticks, so that nothing is rounded: with a rate of 100 in 60 s a millisecond has 100
//! ticks, and a unit costs 60,000 (both without their common divisor).

mod meter;

pub use meter::{CELL_BYTES, Meter};

use super::Millis;
use super::end::Cause;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most units in the period of a rate. The clock in ticks wraps: at the highest rate, which is
/// one of terabytes a second, a bucket that was not used for 149 days is not known to be full.
pub const UNITS_MAX: u64 = 1 << 30;
/// The longest period of a rate.
pub const PERIOD_MAX_MS: Millis = 24 * 3600 * 1000;
/// The largest burst: with the longest period its ticks still fit.
pub const BURST_MAX: u64 = 1 << 34;
/// A burst is at least what passes in this time. Paused reading goes on at a tick of the worker's
/// timers (100 ms), and what a full bucket cannot hold would be lost to the sender.
pub const BURST_MIN_MS: Millis = 200;
/// Reading that was paused goes on when so much of the rate may pass, or the whole burst: not for
/// a few bytes at a time.
const RESUME_MS: u64 = 100;
/// A level above this is one of a bucket that was full long ago.
const LEVEL_MAX: u64 = 1 << 62;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Data messages, each once however many fragments it has. Not known in a tunnel.
    Messages,
    /// Bytes of frames, headers included, as they are on the wire (without TLS).
    Bytes,
    /// Pings and pongs. Not known in a tunnel.
    ControlFrames,
}

impl Measure {
    pub const COUNT: usize = 3;

    /// The cause of a session that ends by such a limit.
    pub fn cause(self) -> Cause {
        match self {
            Measure::Messages => Cause::MessageRate,
            Measure::Bytes => Cause::ByteRate,
            Measure::ControlFrames => Cause::ControlRate,
        }
    }
}

/// So many units in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub units: u64,
    pub period_ms: Millis,
}

impl Rate {
    /// Units that pass in `ms`, rounded up.
    pub fn units_in(self, ms: Millis) -> u64 {
        self.units.saturating_mul(ms).div_ceil(self.period_ms.max(1))
    }
}

/// What becomes of a sender that exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExcess {
    /// Its session is closed at once.
    Close,
    /// It is not read until more may pass: TCP slows it down.
    Pause,
    /// The same; if it goes on for so long, the session is closed.
    PauseThenClose { patience_ms: Millis },
}

/// A limit on a rate, and what follows from exceeding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub measure: Measure,
    pub rate: Rate,
    /// Units that may pass at once after a pause.
    pub burst: u64,
    pub on_excess: OnExcess,
    /// Close code for the sender.
    pub close_code: u16,
}

/// A bucket of tokens. Full at first.
#[derive(Debug)]
pub struct Bucket {
    limit: RateLimit,
    /// Ticks of a millisecond.
    per_ms: u64,
    /// Ticks of a unit.
    cost: u64,
    /// Ticks of the whole burst.
    capacity: u64,
    /// When it will be full, in ticks; wraps.
    full_at: Cell,
}

/// Where the number of a bucket is.
#[derive(Debug)]
enum Cell {
    Own(AtomicU64),
    /// Beside those of others, at a position that is within: see [`Meter::bucket`].
    Among(Arc<Box<[AtomicU64]>>, usize),
}

impl Cell {
    #[inline]
    fn get(&self) -> &AtomicU64 {
        match self {
            Cell::Own(own) => own,
            Cell::Among(cells, at) => &cells[*at],
        }
    }
}

/// How far a bucket is from being full, in ticks. Above its capacity it is in debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(u64);

impl Bucket {
    pub fn new(limit: RateLimit, now: Millis) -> Bucket {
        let (units, period) = (limit.rate.units.clamp(1, UNITS_MAX), limit.rate.period_ms.clamp(1, PERIOD_MAX_MS));
        let divisor = greatest_common_divisor(units, period);
        let (per_ms, cost) = (units / divisor, period / divisor);
        let capacity = limit.burst.clamp(1, BURST_MAX) * cost;
        let full_at = Cell::Own(AtomicU64::new(now.wrapping_mul(per_ms)));
        Bucket { limit, per_ms, cost, capacity, full_at }
    }

    #[inline]
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    #[inline]
    pub fn level(&self, now: Millis) -> Level {
        self.level_of(self.full_at.get().load(Ordering::Relaxed), now)
    }

    /// Takes `units` out, whether it has them or not: what has been read has been read. Its level
    /// afterwards.
    #[inline]
    pub fn take(&self, units: u64, now: Millis) -> Level {
        let mut full_at = self.full_at.get().load(Ordering::Relaxed);
        if units == 0 {
            return self.level_of(full_at, now);
        }
        loop {
            let level = self.level_of(full_at, now).0.saturating_add(units.saturating_mul(self.cost)).min(LEVEL_MAX);
            let next = now.wrapping_mul(self.per_ms).wrapping_add(level);
            // Relaxed: the number is all there is to know.
            match self.full_at.get().compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Level(level),
                Err(changed) => full_at = changed,
            }
        }
    }

    /// Takes one unit out, if it has one. The error is the time until it will.
    pub fn pass(&self, now: Millis) -> Result<(), Millis> {
        let mut full_at = self.full_at.get().load(Ordering::Relaxed);
        loop {
            let level = self.level_of(full_at, now).0.saturating_add(self.cost);
            if level > self.capacity {
                return Err((level - self.capacity).div_ceil(self.per_ms).max(1));
            }
            let next = now.wrapping_mul(self.per_ms).wrapping_add(level);
            match self.full_at.get().compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => full_at = changed,
            }
        }
    }

    #[inline]
    fn level_of(&self, full_at: u64, now: Millis) -> Level {
        let level = full_at.wrapping_sub(now.wrapping_mul(self.per_ms));
        // A time in the past wraps to a number above the largest level.
        Level(if level > LEVEL_MAX { 0 } else { level })
    }

    /// Whole units that may pass.
    #[inline]
    pub fn left(&self, level: Level) -> u64 {
        self.capacity.saturating_sub(level.0) / self.cost
    }

    /// More has been taken out than was in it.
    #[inline]
    pub fn is_in_debt(&self, level: Level) -> bool {
        level.0 > self.capacity
    }

    /// How much later than that a bucket can be asked before it is full, and loses what it cannot
    /// hold: for a tick of the worker's timers less.
    pub fn spare_ms(&self) -> Millis {
        (self.capacity / self.per_ms).saturating_sub(2 * RESUME_MS)
    }

    /// When so much may pass again that reading pays.
    pub fn resume_at(&self, level: Level, now: Millis) -> Millis {
        let enough = self.cost.max(self.per_ms.saturating_mul(RESUME_MS)).min(self.capacity);
        let missing = level.0.saturating_sub(self.capacity - enough);
        now + missing.div_ceil(self.per_ms).max(1)
    }
}

/// Buckets are compared where sessions are, in tests.
impl PartialEq for Bucket {
    fn eq(&self, other: &Bucket) -> bool {
        let full_at = |bucket: &Bucket| bucket.full_at.get().load(Ordering::Relaxed);
        self.limit == other.limit && full_at(self) == full_at(other)
    }
}

impl Eq for Bucket {}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

// It counts toward the memory of a session with limits.
const _: () = assert!(size_of::<Bucket>() <= 88);

#[cfg(test)]
mod tests;
