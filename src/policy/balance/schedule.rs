//! The order of weighted turns, made once for a set of endpoints: each is in it as often as its
//! weight says, evenly mixed. A turn is then one lookup, without a lock.
//!
//! Turn `k` of an endpoint of weight `w` in a sum of `W` may come from slot `k * W / w` on, and
//! must come before slot `(k + 1) * W / w`. Earliest deadline first meets all of these (Baruah et
//! al., "Proportionate progress: a notion of fairness in resource allocation", Algorithmica 1996):
//! at no moment is an endpoint a whole turn away from its share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most slots of a schedule. 512 KiB.
const SLOTS_MAX: u64 = 1 << 18;

#[derive(Debug, PartialEq, Eq)]
pub struct Schedule(Box<[u16]>);

impl Schedule {
    /// `weights` of at most [`super::ENDPOINTS_MAX`] endpoints. Exact if their sum, divided by what
    /// they have in common, is at most 262,144; else rounded to as many slots.
    pub fn new(weights: &[u16]) -> Schedule {
        let weights = reduced(weights);
        let sum: u64 = weights.iter().sum();
        let mut given = vec![0; weights.len()];
        let mut slots = Vec::with_capacity(sum as usize);
        // Endpoints whose next turn may come now, by its deadline, and others, by when it may.
        let (mut due, mut later) = (BinaryHeap::new(), BinaryHeap::new());
        later.extend((0..weights.len()).map(|index| Reverse((0, index))));
        for slot in 0..sum {
            while let Some(Reverse((_, index))) = later.peek().copied().filter(|Reverse((from, _))| *from <= slot) {
                later.pop();
                let (Some(weight), Some(given)) = (weights.get(index), given.get(index)) else { continue };
                due.push(Reverse((((given + 1) * sum).div_ceil(*weight), index)));
            }
            let Some(Reverse((_, index))) = due.pop() else { break };
            slots.push(index as u16);
            let (Some(weight), Some(given)) = (weights.get(index), given.get_mut(index)) else { continue };
            *given += 1;
            if *given < *weight {
                later.push(Reverse((*given * sum / weight, index)));
            }
        }
        Schedule(slots.into_boxed_slice())
    }

    /// The endpoint that has this turn; `None` without endpoints.
    pub fn at(&self, turn: u64) -> Option<usize> {
        let slot = turn.checked_rem(self.0.len() as u64)?;
        self.0.get(slot as usize).map(|index| usize::from(*index))
    }
}

/// Weights in the same proportion, as small as they can be.
fn reduced(weights: &[u16]) -> Vec<u64> {
    let weights: Vec<_> = weights.iter().map(|weight| u64::from(*weight)).collect();
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum = weights.iter().sum::<u64>() / divisor;
    if sum <= SLOTS_MAX {
        return weights.iter().map(|weight| weight / divisor).collect();
    }
    // Each keeps a slot.
    weights.iter().map(|weight| (weight * SLOTS_MAX / (sum * divisor)).max((*weight).min(1))).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest difference of an endpoint from its share at any moment.
    fn distance(weights: &[u16]) -> f64 {
        let (schedule, sum) = (Schedule::new(weights), weights.iter().map(|w| f64::from(*w)).sum::<f64>());
        let (mut seen, mut most) = (vec![0.0; weights.len()], 0.0_f64);
        for slot in 0..schedule.0.len() {
            seen[schedule.at(slot as u64).unwrap()] += 1.0;
            let share = |index: usize| (slot as f64 + 1.0) * f64::from(weights[index]) / sum;
            most = (0..weights.len()).map(|index| (seen[index] - share(index)).abs()).fold(most, f64::max);
        }
        most
    }

    #[test]
    fn no_endpoint_is_a_whole_turn_away_from_its_share() {
        for weights in [&[1][..], &[1, 1], &[3, 2], &[5, 1, 1], &[1_000, 1, 1, 1], &[7, 7, 7, 2], &[10, 20, 30]] {
            assert!(distance(weights) < 1.0, "{weights:?}: {}", distance(weights));
        }
        let many: Vec<_> = (0..60).map(|n| if n == 31 { 500 } else { 1 + n % 3 }).collect();
        assert!(distance(&many) < 1.0, "{}", distance(&many));
    }

    #[test]
    fn weights_are_reduced_and_only_large_ones_rounded() {
        assert_eq!(*Schedule::new(&[1_000, 500]).0, [0, 0, 1]);
        assert_eq!(Schedule::new(&[]).at(7), None);
        let mut weights = vec![999; 4_000];
        weights[1] = 1;
        let schedule = Schedule::new(&weights);
        assert!(schedule.0.len() as u64 <= SLOTS_MAX && schedule.0.len() as u64 > SLOTS_MAX / 2);
        assert_eq!(schedule.0.iter().filter(|index| **index == 1).count(), 1);
    }
}
