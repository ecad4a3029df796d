//! Connections whose client has yet to say something: the rest of its TLS handshake, of its
//! request, or, once refused, that it closes. By lane of their address prefix: where they take all
//! that `max_handshakes` allows, the prefix with most of them has to give one back.

use super::fair::{LANES, Lane};
use super::links::{Links, List};
use crate::proto::Millis;

/// The time that the silent connections of a lane have together where places are short, and the
/// least that each has. A lane with one may be that of a client far away; one with many has them
/// back sooner, and what waits in the kernel's queue behind a flood gets in.
const SILENCE_MS: Millis = 1_000;
const SILENCE_MIN_MS: Millis = 100;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

#[derive(Debug)]
pub struct HalfOpen<T> {
    entries: Vec<Option<Entry<T>>>,
    /// Positions of `entries` that are free.
    free: Vec<u32>,
    lanes: Vec<List>,
    links: Links,
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    item: T,
    lane: Lane,
    since: Millis,
}

/// Bytes of so many entries with their links, and of the lanes.
pub const fn bytes<T>(entries: usize) -> usize {
    entries * (size_of::<Option<Entry<T>>>() + 8 + 4) + LANES * size_of::<List>()
}

impl<T> Default for HalfOpen<T> {
    fn default() -> HalfOpen<T> {
        let lanes = vec![List::default(); LANES];
        HalfOpen { entries: Vec::new(), free: Vec::new(), lanes, links: Links::default() }
    }
}

impl<T: Copy + PartialEq> HalfOpen<T> {
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, item: T, lane: Lane, now: Millis) -> Place {
        let entry = Some(Entry { item, lane, since: now });
        let at = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(at as usize) {
            Some(free) => *free = entry,
            None => {
                self.entries.push(entry);
                self.links.grow(self.entries.len());
            }
        }
        if let Some(lane) = self.lanes.get_mut(lane.index()) {
            self.links.push_back(lane, at);
        }
        Place(at)
    }

    /// Takes a connection out, if it is at that place.
    pub fn remove(&mut self, place: Place, item: T) -> bool {
        let is_there = self.entries.get(place.0 as usize).is_some_and(|entry| entry.is_some_and(|e| e.item == item));
        is_there && self.take(place.0).is_some()
    }

    /// Takes the oldest out of the fullest lane; `None` if it has not been there for long enough.
    pub fn reclaim(&mut self, now: Millis) -> Option<T> {
        let lane = self.lanes.iter().max_by_key(|lane| lane.len())?;
        let at = lane.first()?;
        let silent_ms = now.saturating_sub(self.entries.get(at as usize)?.as_ref()?.since);
        if silent_ms < (SILENCE_MS / u64::from(lane.len())).max(SILENCE_MIN_MS) {
            return None;
        }
        self.take(at)
    }

    fn take(&mut self, at: u32) -> Option<T> {
        let entry = self.entries.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.links.remove(self.lanes.get_mut(entry.lane.index())?, at);
        Some(entry.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::IpAddr;

    fn lane(n: u8) -> Lane {
        Lane::of(IpAddr::from([10, 0, 0, n]), 7)
    }

    #[test]
    fn the_oldest_of_the_fullest_lane_goes_and_no_other() {
        let mut held = HalfOpen::default();
        let one = held.push(1, lane(1), 0);
        for n in 0..50 {
            held.push(100 + n, lane(2), 10 + n);
        }
        held.push(3, lane(3), 100);
        assert_eq!(held.reclaim(109), None, "that of the fullest lane is not old enough, whatever others are");
        assert_eq!([held.reclaim(110), held.reclaim(110), held.reclaim(111)], [Some(100), None, Some(101)]);
        // It is never the turn of the others before the flood is as small as they are.
        let gone: Vec<_> = (0..47).map(|_| held.reclaim(1_000).unwrap()).collect();
        assert_eq!(gone, (102..149).collect::<Vec<_>>());
        assert_eq!(held.len(), 3);
        assert!(held.remove(one, 1) && !held.remove(one, 1) && held.len() == 2);
    }

    #[test]
    fn the_fewer_a_lane_has_the_longer_they_may_be_silent() {
        for (number, ms) in [(1, 1_000), (2, 500), (5, 200), (10, 100), (50, 100)] {
            let mut held = HalfOpen::default();
            for n in 0..number {
                held.push(n, lane(1), 0);
            }
            assert_eq!([held.reclaim(ms - 1), held.reclaim(ms)], [None, Some(0)], "{number}");
        }
        assert_eq!(HalfOpen::<u8>::default().reclaim(Millis::MAX), None);
    }

    #[test]
    fn whatever_is_done_each_comes_out_once_and_memory_is_used_again() {
        let (mut held, mut model) = (HalfOpen::default(), HashMap::new());
        let mut state = 3_u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        for n in 0..50_000_u64 {
            match below(5) {
                0 | 1 => drop(model.insert(n, held.push(n, lane(below(9) as u8), n))),
                2 if model.len() < 200 => drop(model.insert(n, held.push(n, lane(0), n))),
                3 => {
                    if let Some(gone) = held.reclaim(n) {
                        assert!(model.remove(&gone).is_some() && gone <= n - 100);
                    }
                }
                _ => {
                    let known = model.iter().map(|(item, place)| (*item, *place)).min_by_key(|(item, _)| *item);
                    if let Some((item, place)) = known {
                        assert!(held.remove(place, item));
                        model.remove(&item);
                    }
                }
            }
            assert_eq!(held.len(), model.len());
        }
        assert!(held.entries.len() < 2_000, "{}", held.entries.len());
    }
}
