//! The order in which the handshakes of many clients are worked on, where there are more than a
//! worker can do at once. It knows neither clients nor work: an item, who it is for, what it costs.
//!
//! ```text
//! class      its share    lanes (by the hash of an address prefix)
//! Admitted   2 of 4       |x|  |xx| ...          a round visits each lane that has items; a lane
//! Preferred  1 of 4       |xxxx|  |x| ...        may spend QUANTUM in a visit, oldest item first
//! Other      1 of 4       |xxxxxxxxxx|  |x| ...  (deficit round robin, Shreedhar 1995)
//! ```
//!
//! What a class does not use of its share the others get, the first of them first. So a client
//! waits for one visit to each lane at most, however many items another prefix has, and no class
//! starves. Prefixes that share a lane wait for each other; the hash has a secret, so that no
//! client can choose whose lane it shares.
//!
//! Clients that are not admitted yet are bounded: beyond the bound [`Fair::displace`] takes the
//! youngest out of the fullest lane, and [`Fair::expire`] those that have waited too long. All is
//! O(1), but for `displace`, which looks at each lane. Nothing is allocated once the table has
//! grown.

use super::links::{Links, List};
use crate::proto::Millis;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// Lanes of each class.
pub const LANES: usize = 1024;
/// What a lane may spend in a visit, and the most that an item costs.
pub const QUANTUM: u32 = 4;
/// Whose turn it is, in this order.
const SHARES: [Class; 4] = [Class::Admitted, Class::Preferred, Class::Admitted, Class::Other];

/// Who an item is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A client that has been admitted: what has been spent on it would be lost. Not bounded, and
    /// not displaced: admission bounds it.
    Admitted,
    /// A client that is known.
    Preferred,
    Other,
}

/// An item as it is queued.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub class: Class,
    pub lane: Lane,
    /// Up to [`QUANTUM`].
    pub cost: u32,
}

/// The lane of an address prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane(u32);

impl Lane {
    pub fn of(prefix: IpAddr, secret: u128) -> Lane {
        let mut hasher = DefaultHasher::new();
        (secret, prefix).hash(&mut hasher);
        Lane((hasher.finish() % LANES as u64) as u32)
    }

    /// Below [`LANES`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

#[derive(Debug)]
pub struct Fair<T> {
    entries: Vec<Option<Entry<T>>>,
    /// Positions of `entries` that are free.
    free: Vec<u32>,
    /// Lanes of the classes, one class after the other.
    queues: Vec<Queue>,
    /// Of entries, within their queue.
    in_queue: Links,
    /// Of queues, within the round of their class.
    in_round: Links,
    /// Of entries that are bounded, by age.
    in_line: Links,
    rounds: [List; 3],
    line: List,
    /// Where in [`SHARES`] the next pop begins.
    turn: usize,
    /// Of all that are queued.
    cost: u32,
    max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    item: T,
    queue: u32,
    class: Class,
    cost: u32,
    since: Millis,
}

#[derive(Debug, Clone, Copy, Default)]
struct Queue {
    entries: List,
    /// What it may still spend in this visit.
    credit: u32,
}

/// Bytes of an entry with its links, and of the lanes of all classes.
pub const fn bytes<T>(entries: usize) -> usize {
    let each = size_of::<Option<Entry<T>>>() + 2 * 8 + 4;
    entries * each + 3 * LANES * (size_of::<Queue>() + 8)
}

impl<T: Copy + PartialEq> Fair<T> {
    /// `max`: items that are not of [`Class::Admitted`].
    pub fn new(max: usize) -> Fair<T> {
        let mut in_round = Links::default();
        in_round.grow(3 * LANES);
        Fair {
            entries: Vec::new(),
            free: Vec::new(),
            queues: vec![Queue::default(); 3 * LANES],
            in_queue: Links::default(),
            in_round,
            in_line: Links::default(),
            rounds: [List::default(); 3],
            line: List::default(),
            turn: 0,
            cost: 0,
            max,
        }
    }

    /// A bound that is lower displaces those above it.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }

    /// Items that are queued.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// What those that are queued cost together.
    #[inline]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    pub fn push(&mut self, item: T, job: Job, now: Millis) -> Place {
        let cost = job.cost.min(QUANTUM);
        let queue = job.class as u32 * LANES as u32 + job.lane.0;
        let entry = Some(Entry { item, queue, class: job.class, cost, since: now });
        let at = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(at as usize) {
            Some(free) => *free = entry,
            None => {
                self.entries.push(entry);
                self.in_queue.grow(self.entries.len());
                self.in_line.grow(self.entries.len());
            }
        }
        self.cost += cost;
        if job.class != Class::Admitted {
            self.in_line.push_back(&mut self.line, at);
        }
        if let (Some(lane), Some(round)) =
            (self.queues.get_mut(queue as usize), self.rounds.get_mut(job.class as usize))
        {
            if lane.entries.is_empty() {
                lane.credit = QUANTUM;
                self.in_round.push_back(round, queue);
            }
            self.in_queue.push_back(&mut lane.entries, at);
        }
        Place(at)
    }

    /// The next item, with its cost.
    pub fn pop(&mut self) -> Option<(T, u32)> {
        let first = *SHARES.get(self.turn)?;
        let others = [Class::Admitted, Class::Preferred, Class::Other];
        let class = [first].into_iter().chain(others).find(|class| !self.round(*class).is_empty())?;
        self.turn = (self.turn + 1) % SHARES.len();
        let (queue, at) = self.visit(class)?;
        let entry = self.take(at)?;
        if let Some(queue) = self.queues.get_mut(queue as usize) {
            queue.credit = queue.credit.saturating_sub(entry.cost);
        }
        Some((entry.item, entry.cost))
    }

    fn round(&self, class: Class) -> List {
        self.rounds.get(class as usize).copied().unwrap_or_default()
    }

    /// The lane whose turn it is in a class, and its oldest entry. A visit that has not enough left
    /// for that ends: each lane is passed over once at most.
    fn visit(&mut self, class: Class) -> Option<(u32, u32)> {
        let round = self.rounds.get_mut(class as usize)?;
        loop {
            let at = round.first()?;
            let queue = self.queues.get_mut(at as usize)?;
            let oldest = queue.entries.first()?;
            let cost = self.entries.get(oldest as usize)?.as_ref()?.cost;
            if cost <= queue.credit {
                return Some((at, oldest));
            }
            queue.credit += QUANTUM;
            self.in_round.remove(round, at);
            self.in_round.push_back(round, at);
        }
    }

    /// Takes an item out, if it is at that place.
    pub fn remove(&mut self, place: Place, item: T) -> bool {
        let is_there = self.entries.get(place.0 as usize).is_some_and(|entry| entry.is_some_and(|e| e.item == item));
        is_there && self.take(place.0).is_some()
    }

    /// Above the bound: an item that has to go, of the fullest lane, there the youngest of the
    /// others, or else of the preferred.
    pub fn displace(&mut self) -> Option<T> {
        if self.line.len() as usize <= self.max {
            return None;
        }
        let (_, rest) = self.queues.split_at_checked(LANES)?;
        let (preferred, others) = rest.split_at_checked(LANES)?;
        let lanes = others.iter().zip(preferred);
        let (other, preferred) = lanes.max_by_key(|(other, known)| other.entries.len() + known.entries.len())?;
        let at = other.entries.last().or(preferred.entries.last())?;
        self.take(at).map(|entry| entry.item)
    }

    /// An item that is not of [`Class::Admitted`] and waits since then, or longer.
    pub fn expire(&mut self, since: Millis) -> Option<T> {
        let at = self.line.first()?;
        let oldest = self.entries.get(at as usize)?.as_ref()?.since;
        if oldest > since {
            return None;
        }
        self.take(at).map(|entry| entry.item)
    }

    fn take(&mut self, at: u32) -> Option<Entry<T>> {
        let entry = self.entries.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.cost -= entry.cost;
        if entry.class != Class::Admitted {
            self.in_line.remove(&mut self.line, at);
        }
        if let (Some(queue), Some(round)) =
            (self.queues.get_mut(entry.queue as usize), self.rounds.get_mut(entry.class as usize))
        {
            self.in_queue.remove(&mut queue.entries, at);
            if queue.entries.is_empty() {
                self.in_round.remove(round, entry.queue);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
