//! One rate for each of many: the numbers of their buckets, one beside the other, as a table of
//! clients has them.

use super::{Bucket, Cell, RateLimit};
use crate::proto::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of each of them.
pub const CELL_BYTES: usize = size_of::<AtomicU64>();

/// A bucket for each place of a table. All are full at first.
#[derive(Debug, Clone)]
pub struct Meter {
    /// The bucket that the others are like.
    like: Arc<Bucket>,
    cells: Arc<Box<[AtomicU64]>>,
}

impl Meter {
    pub fn new(limit: RateLimit, places: usize) -> Meter {
        let cells = (0..places).map(|_| AtomicU64::new(0)).collect();
        Meter { like: Arc::new(Bucket::new(limit, 0)), cells: Arc::new(cells) }
    }

    pub fn limit(&self) -> &RateLimit {
        &self.like.limit
    }

    /// The bucket of a place, for one session of the client that has it. `None` if there is no such
    /// place.
    pub fn bucket(&self, place: usize) -> Option<Bucket> {
        let Bucket { limit, per_ms, cost, capacity, .. } = *self.like;
        let full_at = (place < self.cells.len()).then(|| Cell::Among(Arc::clone(&self.cells), place))?;
        Some(Bucket { limit, per_ms, cost, capacity, full_at })
    }

    /// The place gets another owner, whose bucket is full.
    pub fn fill(&self, place: usize, now: Millis) {
        if let Some(cell) = self.cells.get(place) {
            cell.store(now.wrapping_mul(self.like.per_ms), Ordering::Relaxed);
        }
    }

    /// When the bucket of a place will be full; `now` if it is.
    pub fn full_at(&self, place: usize, now: Millis) -> Millis {
        let number = self.cells.get(place).map_or(0, |cell| cell.load(Ordering::Relaxed));
        now.saturating_add(self.like.level_of(number, now).0.div_ceil(self.like.per_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rate::{Measure, OnExcess, Rate};

    #[test]
    fn each_place_has_a_bucket_of_its_own_that_lives_on() {
        let rate = Rate { units: 10, period_ms: 1_000 };
        let limit = RateLimit { measure: Measure::Bytes, rate, burst: 5, on_excess: OnExcess::Pause, close_code: 0 };
        let meter = Meter::new(limit, 2);
        let left = |place: usize, now| meter.bucket(place).map(|bucket| bucket.left(bucket.level(now)));
        let (one, same) = (meter.bucket(0).unwrap(), meter.bucket(0).unwrap());
        one.take(3, 7_000);
        same.take(1, 7_000);
        assert_eq!((left(0, 7_000), left(1, 7_000), left(2, 7_000)), (Some(1), Some(5), None));
        drop((one, same));
        assert_eq!((left(0, 7_000), left(0, 7_100)), (Some(1), Some(2)), "without a session, too");
        assert_eq!((meter.full_at(0, 7_000), meter.full_at(1, 7_000)), (7_400, 7_000));
        meter.fill(0, 7_000);
        assert_eq!((left(0, 7_000), meter.full_at(0, 7_000)), (Some(5), 7_000));
    }
}
