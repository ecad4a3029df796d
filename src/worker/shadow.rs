//! Shadows: the second servers of sessions whose route asks for it. What goes upstream in such a
//! session goes to its shadow, too; what the shadow answers is read and discarded. Nothing of a
//! shadow reaches its session: it is never waited for, its bytes wait in a pool of their own, and
//! it is cut where too many of them do.
//!
//! A shadow is opened when its session is established, with the session's request. It ends with the
//! session: FIN behind everything sent before, and at the latest after the close timeout the rest.
//! Without a descriptor it is not opened. `connection` is one of them; this file is all of a
//! worker's: which there are, whose turn it is, and their timers.
//!
//! Memory: what one holds back is bounded by its route's `shadow.buffer`, and the sum over all by
//! `limits.shadow_buffers`; a single read (128 KiB) may exceed the former before its shadow is cut.
//! One that has not been opened yet keeps two heads.

mod connection;

use super::conn::Input;
use super::lend::Io;
use super::sys::{self, Sys};
use super::timers::Wheel;
use super::token::{Role, SlotKey};
use crate::metrics::Tally;
use crate::proto::Millis;
use crate::proto::shadow::ShadowEnd;
use connection::Shadow;
pub use connection::Start;
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// Turns of shadows in a loop iteration: sessions come first.
const TURNS_MAX: usize = 8;

/// The shadows of a worker.
#[derive(Debug)]
pub struct Shadows<K> {
    shadows: Slab<Shadow<K>>,
    /// The slots of shadows, by those of their pairs.
    of_pairs: HashMap<u32, usize>,
    /// How many there may be.
    max: usize,
    /// There may be something to do: one byte that every iteration of a worker without shadows
    /// looks at.
    active: bool,
    /// Those for which something can be done.
    ring: VecDeque<SlotKey>,
    wheel: Wheel,
    due: Vec<(SlotKey, Millis)>,
    /// Pairs whose shadow ended before them.
    left: Vec<SlotKey>,
    /// Ends that have not been counted yet, in the order of [`ShadowEnd::ALL`].
    ended: [u64; ShadowEnd::ALL.len()],
    /// Bytes of shadows that have not been counted yet.
    discarded: u64,
}

impl<K> Shadows<K> {
    /// At most `max` of them.
    pub fn new(max: usize, now: Millis) -> Shadows<K> {
        Shadows {
            shadows: Slab::new(),
            of_pairs: HashMap::new(),
            max,
            active: false,
            ring: VecDeque::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            left: Vec::new(),
            ended: [0; ShadowEnd::ALL.len()],
            discarded: 0,
        }
    }

    /// A reload may change it; shadows that are open stay.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// There is none, and nothing is left to do about one.
    #[inline]
    pub fn is_idle(&self) -> bool {
        !self.active
    }

    /// When there is something to do, or `timers::NEVER`.
    pub fn next_at(&self, now: Millis) -> Millis {
        if self.ring.is_empty() { self.wheel.next_at() } else { now }
    }

    /// The next pair whose shadow has ended before it.
    pub fn pop_left(&mut self) -> Option<SlotKey> {
        self.left.pop()
    }

    /// Opens a shadow for the session of `pair`; `generation` has not been used before. Whether
    /// there is one now.
    pub fn open<S: Sys<Sock = K>>(&mut self, pair: SlotKey, start: Start, generation: u32, io: &mut Io<'_, S>) -> bool {
        if self.shadows.len() >= self.max {
            self.count(ShadowEnd::Limit);
            return false;
        }
        // The wheel stands still while there is no shadow.
        if !std::mem::replace(&mut self.active, true) {
            self.wheel.advance(io.now, &mut self.due);
            self.due.clear();
        }
        let slot = self.shadows.vacant_entry();
        let key = SlotKey { slot: slot.key() as u32, generation };
        let opened = Shadow::open(key, pair, start, io);
        self.of_pairs.insert(pair.slot, slot.key());
        slot.insert(opened.0);
        match opened.1 {
            Ok(()) => self.file(key),
            Err(end) => self.end(key, end, io),
        }
        opened.1.is_ok()
    }

    /// What went upstream in the session of `pair`, in two parts. Whether it has a shadow still.
    pub fn append<S: Sys<Sock = K>>(&mut self, pair: SlotKey, parts: [&[u8]; 2], io: &mut Io<'_, S>) -> bool {
        let Some(shadow) = self.of_pair(pair) else { return false };
        let (key, outcome) = (shadow.key, shadow.append(parts, io));
        self.after(key, outcome, io);
        outcome.is_ok()
    }

    /// Nothing more goes upstream in the session of `pair`: FIN. `over`: the session has ended.
    pub fn finish<S: Sys<Sock = K>>(&mut self, pair: SlotKey, over: bool, io: &mut Io<'_, S>) {
        let Some(shadow) = self.of_pair(pair) else { return };
        let key = shadow.key;
        shadow.finish(over, io);
        if over {
            self.of_pairs.remove(&pair.slot);
        }
        self.file(key);
        self.after(key, Ok(()), io);
    }

    /// An event for a shadow, which gets a turn. `false`: it is stale.
    pub fn on_event(&mut self, (key, role): (SlotKey, Role), event: &sys::Event) -> bool {
        let known = self.shadow_mut(key).is_some_and(|shadow| shadow.on_ready(role, event));
        if known {
            self.queue(key);
        }
        known
    }

    /// Whatever can be done now: what is due, then turns of those that are ready, up to some
    /// number. The others wait for the next iteration.
    pub fn run<S: Sys<Sock = K>>(&mut self, input: &mut Input, io: &mut Io<'_, S>) {
        self.run_timers(io);
        for _ in 0..self.ring.len().min(TURNS_MAX) {
            let Some(key) = self.ring.pop_front() else { return };
            let Some(shadow) = self.shadow_mut(key) else { continue };
            shadow.queued = false;
            let outcome = shadow.turn(input, io);
            input.clear();
            let discarded = shadow.take_discarded();
            self.discarded += discarded;
            self.file(key);
            self.after(key, outcome, io);
        }
        self.active = !(self.shadows.is_empty() && self.ring.is_empty());
    }

    fn run_timers<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(io.now, &mut due);
        for (key, at) in due.drain(..) {
            let Some(shadow) = self.shadow_mut(key).filter(|shadow| shadow.wheel_at == at) else { continue };
            shadow.wheel_at = Millis::MAX;
            let outcome = shadow.on_time(io);
            self.file(key);
            self.after(key, outcome, io);
        }
        self.due = due;
    }

    /// Ends them all: the worker goes.
    pub fn stop<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        let keys: Vec<_> = self.shadows.iter().map(|(_, shadow)| shadow.key).collect();
        for key in keys {
            let sent = self.shadow_mut(key).is_some_and(|shadow| shadow.has_sent_all());
            self.end(key, if sent { ShadowEnd::Done } else { ShadowEnd::Stop }, io);
        }
    }

    /// Adds to the tally what was not in it yet. `buffered`: bytes that the pool has given out.
    pub fn count_into(&mut self, tally: &mut Tally, buffered: usize) {
        tally.shadow_sessions = self.shadows.len() as u64;
        tally.shadow_backlog_bytes = buffered as u64;
        tally.shadow_discarded_bytes += std::mem::take(&mut self.discarded);
        for (total, ended) in tally.shadow_ended.iter_mut().zip(&mut self.ended) {
            *total += std::mem::take(ended);
        }
    }

    fn shadow_mut(&mut self, key: SlotKey) -> Option<&mut Shadow<K>> {
        self.shadows.get_mut(key.slot as usize).filter(|shadow| shadow.key == key)
    }

    fn of_pair(&mut self, pair: SlotKey) -> Option<&mut Shadow<K>> {
        let slot = self.of_pairs.get(&pair.slot)?;
        self.shadows.get_mut(*slot).filter(|shadow| shadow.pair == Some(pair))
    }

    fn queue(&mut self, key: SlotKey) {
        let shadow = self.shadows.get_mut(key.slot as usize).filter(|shadow| shadow.key == key);
        if shadow.is_some_and(|shadow| !std::mem::replace(&mut shadow.queued, true)) {
            self.ring.push_back(key);
        }
    }

    /// Makes sure that the wheel looks at a shadow in time.
    fn file(&mut self, key: SlotKey) {
        let Some(shadow) = self.shadows.get_mut(key.slot as usize).filter(|shadow| shadow.key == key) else { return };
        if let Some(at) = shadow.deadline().filter(|at| *at < shadow.wheel_at) {
            shadow.wheel_at = shadow.wheel_at.min(self.wheel.file(key, at));
        }
    }

    /// What was done for a shadow ended it, or left something to be done in a turn.
    fn after<S: Sys<Sock = K>>(&mut self, key: SlotKey, outcome: Result<(), ShadowEnd>, io: &mut Io<'_, S>) {
        match outcome {
            Ok(()) if self.shadow_mut(key).is_some_and(|shadow| shadow.is_ready()) => self.queue(key),
            Ok(()) => {}
            Err(end) => self.end(key, end, io),
        }
    }

    fn end<S: Sys<Sock = K>>(&mut self, key: SlotKey, end: ShadowEnd, io: &mut Io<'_, S>) {
        if self.shadow_mut(key).is_none() {
            return;
        }
        let Some(shadow) = self.shadows.try_remove(key.slot as usize) else { return };
        if let Some(pair) = shadow.pair {
            self.of_pairs.remove(&pair.slot);
            self.left.push(pair);
        }
        shadow.close(end, io);
        self.count(end);
    }

    fn count(&mut self, end: ShadowEnd) {
        if let Some(count) = self.ended.get_mut(end as usize) {
            *count += 1;
        }
    }
}
