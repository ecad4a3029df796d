//! The counts of the endpoints' sessions, side by side: a balancer that looks at all of them reads
//! them in one pass, without a visit to each endpoint.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The count of one endpoint, at its place beside those of the endpoints that came with it.
#[derive(Debug)]
pub struct Count {
    row: Arc<[AtomicUsize]>,
    at: usize,
}

/// Zero, of an endpoint that came alone.
impl Default for Count {
    fn default() -> Count {
        Count { row: Arc::new([AtomicUsize::new(0)]), at: 0 }
    }
}

impl Count {
    /// So many counts at zero, side by side.
    pub fn row(len: usize) -> impl Iterator<Item = Count> {
        let row: Arc<[_]> = (0..len).map(|_| AtomicUsize::new(0)).collect();
        (0..len).map(move |at| Count { row: Arc::clone(&row), at })
    }

    fn cell(&self) -> Option<&AtomicUsize> {
        self.row.get(self.at)
    }

    pub fn get(&self) -> usize {
        self.cell().map_or(0, |cell| cell.load(Relaxed))
    }

    /// See [`add_below`].
    pub fn add_below(&self, max: Option<usize>) -> bool {
        self.cell().is_some_and(|cell| add_below(cell, max))
    }

    pub fn subtract(&self) {
        self.cell().map(|cell| cell.fetch_sub(1, Relaxed));
    }
}

/// Adds one, unless the count is `max` already. However threads interleave, it never exceeds that.
pub fn add_below(count: &AtomicUsize, max: Option<usize>) -> bool {
    let more = |count| max.is_none_or(|max| count < max).then_some(count + 1);
    count.fetch_update(Relaxed, Relaxed, more).is_ok()
}

/// The counts of a group's members in their order, and what one session weighs on each.
#[derive(Debug, Default)]
pub struct Loads {
    /// One for all members that came together: few, unless endpoints come and go one by one.
    parts: Vec<Part>,
}

/// Members that follow each other in the group and in a row.
#[derive(Debug)]
struct Part {
    /// The position of the first.
    first: usize,
    row: Arc<[AtomicUsize]>,
    /// The place of the first in the row.
    start: usize,
    /// What one session weighs on each: the inverse of its weight.
    shares: Vec<u64>,
}

/// The share of a session on an endpoint of the weight 1: large enough for weights up to 1,000 to
/// be told apart, small enough for 2^28 sessions.
const WHOLE: u64 = 1 << 36;

impl Loads {
    /// Of members with these counts and weights.
    pub fn new<'a>(members: impl Iterator<Item = (&'a Count, u16)>) -> Loads {
        let mut parts: Vec<Part> = Vec::new();
        for (first, (count, weight)) in members.enumerate() {
            let share = WHOLE / u64::from(weight.max(1));
            match parts.last_mut() {
                Some(part) if Arc::ptr_eq(&part.row, &count.row) && part.start + part.shares.len() == count.at => {
                    part.shares.push(share);
                }
                _ => parts.push(Part { first, row: Arc::clone(&count.row), start: count.at, shares: vec![share] }),
            }
        }
        Loads { parts }
    }

    /// The position of the member on which one more session makes the least load, among those that
    /// are `usable`; of several, the next one from `start` on. `load`: what the load of the member
    /// at this position counts for. `usable` is asked of few, and a call: inlined, it takes the
    /// registers from the look at all the others.
    pub fn least(
        &self,
        start: usize,
        load: impl Fn(usize, u64) -> u64,
        usable: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let (mut best, mut least) = (None, u64::MAX);
        let mut look = |range: &Range<usize>, part: &Part| {
            for (position, one) in part.loads(range) {
                let load = load(position, one);
                // Only one that is better is asked whether it is usable.
                if load < least && usable(position) {
                    (best, least) = (Some(position), load);
                }
            }
        };
        self.parts.iter().for_each(|part| look(&(start..usize::MAX), part));
        self.parts.iter().for_each(|part| look(&(0..start), part));
        best
    }
}

impl Part {
    /// The members of the part with a position in `range`, each with its load after one more
    /// session.
    fn loads(&self, range: &Range<usize>) -> impl Iterator<Item = (usize, u64)> {
        let from = range.start.clamp(self.first, self.first + self.shares.len());
        let to = range.end.clamp(from, self.first + self.shares.len());
        let (skip, take) = (from - self.first, to - from);
        let counts = self.row.get(self.start + skip..).unwrap_or_default();
        let shares = self.shares.get(skip..skip + take).unwrap_or_default();
        let load = |(count, share): (&AtomicUsize, &u64)| (count.load(Relaxed) as u64 + 1).wrapping_mul(*share);
        counts.iter().zip(shares).map(load).zip(from..).map(|(load, position)| (position, load))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key::Random;

    fn loads(counts: &[Count]) -> Loads {
        Loads::new(counts.iter().map(|count| (count, 1)))
    }

    #[test]
    fn members_that_came_together_are_one_part() {
        let mut counts: Vec<_> = Count::row(5).collect();
        assert_eq!(loads(&counts).parts.len(), 1);
        counts.extend(Count::row(3));
        assert_eq!(loads(&counts).parts.len(), 2);
        counts.remove(1);
        let parts = loads(&counts).parts;
        let shape: Vec<_> = parts.iter().map(|part| (part.first, part.start, part.shares.len())).collect();
        assert_eq!(shape, [(0, 0, 1), (1, 2, 3), (4, 0, 3)]);
    }

    #[test]
    fn the_least_is_that_of_a_look_at_each() {
        let mut random = Random::new(7);
        for round in 0..2_000 {
            let heaviest = if round % 3 == 0 { 1 } else { 1_000 };
            let rows = 1 + random.below(4);
            let counts: Vec<_> = (0..rows).flat_map(|_| Count::row(1 + random.below(9) as usize)).collect();
            let weights: Vec<_> = counts.iter().map(|_| 1 + random.below(heaviest) as u16).collect();
            for count in &counts {
                (0..random.below(30)).for_each(|_| assert!(count.add_below(None)));
            }
            let start = random.below(counts.len() as u64) as usize;
            let closed = random.number();
            let usable = |index: usize| closed >> index & 3 != 0;
            let found = Loads::new(counts.iter().zip(weights.iter().copied())).least(start, |_, load| load, &usable);
            let load = |index: &usize| (counts[*index].get() as u64 + 1) * (WHOLE / u64::from(weights[*index]));
            // The first of the least, in the order from `start` on.
            let expected = (start..counts.len()).chain(0..start).filter(|index| usable(*index)).min_by_key(load);
            assert_eq!(found, expected, "round {round}");
        }
    }
}
