//! The lookup table of consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI 2016, section 3.4), with weights: a key finds its endpoint with one
//! lookup, and few keys move when an endpoint comes or goes.

use crate::policy::key::{hash, mix, scale};

/// Slots of a table: a prime, so that each endpoint's permutation visits all of them. 128 KiB.
const SLOTS: usize = 65_537;
const EMPTY: u16 = u16::MAX;

/// The most endpoints of a table.
pub const ENDPOINTS_MAX: usize = 4_096;

#[derive(Debug, PartialEq, Eq)]
pub struct Table(Box<[u16]>);

/// One endpoint's way through the slots.
struct Permutation {
    next: usize,
    skip: usize,
    /// Its weight, and what it has earned of its next slot.
    weight: u32,
    credit: u32,
}

impl Table {
    /// `endpoints`: the name of each, which identifies it, and its weight. At most
    /// [`ENDPOINTS_MAX`] of them.
    pub fn new<'a>(endpoints: impl Iterator<Item = (&'a str, u16)>) -> Table {
        let mut permutations: Vec<_> = endpoints.map(|(name, weight)| Permutation::new(name, weight)).collect();
        let mut slots = vec![EMPTY; SLOTS].into_boxed_slice();
        let most = permutations.iter().map(|permutation| permutation.weight).max().unwrap_or(0);
        let (mut free, mut turn) = (if most == 0 { 0 } else { SLOTS }, 0);
        while free > 0 {
            let index = turn % permutations.len();
            turn += 1;
            let Some(permutation) = permutations.get_mut(index) else { break };
            if permutation.earns(most) {
                permutation.take(&mut slots, index as u16);
                free -= 1;
            }
        }
        Table(slots)
    }

    /// The position of the endpoint for this hash; `None` without endpoints.
    pub fn find(&self, hash: u64) -> Option<usize> {
        let slot = self.0.get(scale(hash, SLOTS as u64) as usize)?;
        (*slot != EMPTY).then_some(usize::from(*slot))
    }
}

impl Permutation {
    fn new(name: &str, weight: u16) -> Permutation {
        let first = hash(name.as_bytes());
        let second = mix(first ^ 0x6a09_e667_f3bc_c908);
        let (next, skip) = (scale(first, SLOTS as u64) as usize, scale(second, SLOTS as u64 - 1) as usize + 1);
        Permutation { next, skip, weight: weight.into(), credit: 0 }
    }

    /// In each round the heaviest earn a slot, the others their share of one.
    fn earns(&mut self, most: u32) -> bool {
        self.credit += self.weight;
        let earned = self.credit >= most;
        if earned {
            self.credit -= most;
        }
        earned
    }

    /// Takes the first free slot of its way.
    fn take(&mut self, slots: &mut [u16], index: u16) {
        for _ in 0..slots.len() {
            let at = self.next;
            self.next = (self.next + self.skip) % SLOTS;
            if let Some(slot) = slots.get_mut(at).filter(|slot| **slot == EMPTY) {
                *slot = index;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(endpoints: &[(String, u16)]) -> Table {
        Table::new(endpoints.iter().map(|(name, weight)| (name.as_str(), *weight)))
    }

    fn endpoints(count: usize) -> Vec<(String, u16)> {
        (0..count).map(|n| (format!("ws://10.0.{}.{}:9000", n / 256, n % 256), 1)).collect()
    }

    fn shares(table: &Table, count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        table.0.iter().for_each(|slot| shares[usize::from(*slot)] += 1);
        shares
    }

    #[test]
    fn slots_are_shared_by_weight() {
        for count in [1, 2, 3, 7, 100, 1_000] {
            let shares = shares(&table(&endpoints(count)), count);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least} to {most}");
        }
        let mut weighted = endpoints(3);
        (weighted[1].1, weighted[2].1) = (2, 7);
        let shares = shares(&table(&weighted), 3);
        for (share, weight) in shares.iter().zip([1, 2, 7]) {
            assert!(share.abs_diff(SLOTS * weight / 10) <= 2, "{shares:?}");
        }
        assert_eq!(table(&[]).find(7), None);
    }

    #[test]
    fn few_keys_move_when_an_endpoint_comes_or_goes() {
        for count in [10, 100, 1_000] {
            let (with, without) = (table(&endpoints(count + 1)), table(&endpoints(count)));
            let moved = with.0.iter().zip(&without.0).filter(|(a, b)| a != b).count() as f64 / SLOTS as f64;
            let least = 1.0 / (count + 1) as f64;
            // With a thousand endpoints each has 65 slots, and filling them moves more.
            assert!(moved < (least * 2.0).max(0.01), "{count}: {moved:.4}, at least {least:.4}");
        }
    }
}
