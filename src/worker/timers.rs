//! One wheel of 100 ms ticks. Lazy: an entry says when to look at a pair again, not what is due;
//! what is due is computed then from the pair's facts, and the entry refiled. Activity never
//! touches it.

use super::token::SlotKey;
use crate::proto::Millis;

/// The time of an event that nothing waits for.
pub const NEVER: Millis = Millis::MAX;

const TICK_MS: Millis = 100;
/// Farther deadlines are looked at on the way; so no stale entry lives longer than this many ticks.
const SLOTS: u64 = 512;

/// A count of ticks since the clock began.
type Tick = u64;

#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<(SlotKey, Millis)>>,
    /// All ticks before this one have fired.
    next: Tick,
    /// The first tick with an entry; `Tick::MAX` without any.
    soonest: Tick,
}

/// The first tick at which `at` has passed.
fn tick_after(at: Millis) -> Tick {
    at.div_ceil(TICK_MS)
}

impl Wheel {
    pub fn new(now: Millis) -> Wheel {
        Wheel { slots: vec![Vec::new(); SLOTS as usize], next: now / TICK_MS + 1, soonest: Tick::MAX }
    }

    /// Files `key` for the tick after `at`, or for the farthest one there is. Returns its time.
    pub fn file(&mut self, key: SlotKey, at: Millis) -> Millis {
        let tick = tick_after(at).clamp(self.next, self.next + SLOTS - 1);
        if let Some(slot) = self.slots.get_mut((tick % SLOTS) as usize) {
            slot.push((key, tick * TICK_MS));
            self.soonest = self.soonest.min(tick);
        }
        tick * TICK_MS
    }

    /// Moves the entries that are due at `now` to `due`, with the time that they were filed for.
    #[inline]
    pub fn advance(&mut self, now: Millis, due: &mut Vec<(SlotKey, Millis)>) {
        let end = (now / TICK_MS + 1).max(self.next);
        if self.soonest < end {
            self.fire(end, due);
        }
        self.next = end;
    }

    fn fire(&mut self, end: Tick, due: &mut Vec<(SlotKey, Millis)>) {
        // After a long sleep one turn of the wheel empties it.
        for tick in self.next..end.min(self.next + SLOTS) {
            if let Some(slot) = self.slots.get_mut((tick % SLOTS) as usize) {
                due.append(slot);
                // A storm that has passed does not keep its memory.
                if slot.capacity() > 1024 {
                    *slot = Vec::new();
                }
            }
        }
        let filled = |tick: &Tick| self.slots.get((tick % SLOTS) as usize).is_some_and(|slot| !slot.is_empty());
        self.soonest = (end..self.next + SLOTS).find(filled).unwrap_or(Tick::MAX);
    }

    /// When to look again: the time of the first tick with an entry, or [`NEVER`].
    #[inline]
    pub fn next_at(&self) -> Millis {
        self.soonest.saturating_mul(TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> SlotKey {
        SlotKey { slot, generation: 0 }
    }

    fn due(wheel: &mut Wheel, now: Millis) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.iter().map(|(key, _)| key.slot).collect()
    }

    #[test]
    fn an_entry_fires_at_the_first_tick_after_its_time_and_never_before() {
        let mut wheel = Wheel::new(1_050);
        wheel.file(key(1), 1_250);
        wheel.file(key(2), 1_300);
        wheel.file(key(3), 0);
        assert_eq!(wheel.next_at(), 1_100);
        assert_eq!(due(&mut wheel, 1_150), [3]);
        assert_eq!(due(&mut wheel, 1_299), [0u32; 0]);
        assert_eq!(due(&mut wheel, 1_300), [1, 2]);
        assert_eq!(wheel.next_at(), NEVER);
    }

    #[test]
    fn a_far_deadline_is_looked_at_on_the_way() {
        let mut wheel = Wheel::new(0);
        let at = wheel.file(key(1), 3_600_000);
        assert_eq!(at, SLOTS * TICK_MS);
        assert_eq!(due(&mut wheel, (SLOTS - 1) * TICK_MS), [0u32; 0]);
        assert_eq!(due(&mut wheel, SLOTS * TICK_MS), [1]);
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut wheel = Wheel::new(0);
        for n in 0..100 {
            wheel.file(key(n), u64::from(n) * 500);
        }
        assert_eq!(due(&mut wheel, 10_000_000).len(), 100);
        assert_eq!(wheel.next_at(), NEVER);
        wheel.file(key(7), 10_000_001);
        assert_eq!(due(&mut wheel, 10_000_100), [7]);
    }
}
