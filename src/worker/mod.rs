//! The res: one worker, one thread, one poll. Owns sockets and time, decides nothing. Generic over
//! [`sys::Sys`], so that the simulation runs this very code.
//!
//! Read in this order: this loop, `turn.rs`, `pair.rs`, `pump.rs` (bytes), `act.rs` (actions), then the small ones.

mod act;
mod buffers;
mod conn;
pub mod inbox;
pub mod listener;
mod pair;
pub mod permits;
mod pump;
mod resources;
mod secure;
mod splice;
pub mod sys;
mod timers;
pub mod token;
mod turn;

pub use buffers::{CHUNK_BYTES, SCRATCH_BYTES};
pub use resources::WorkerCore;

use crate::config::Listener;
use crate::proto::end::{Cause, End, Party};
use crate::proto::session::{Event, Session};
use crate::proto::{Millis, Side, Sides};
use crate::tls::Tls;
use conn::Conn;
use inbox::Command;
use listener::{ACCEPTS_MAX, BACKOFF_MS, Listening};
use pair::{Pair, Pending};
use resources::Resources;
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use sys::Sys;
use timers::{Tick, Wheel};
use token::{Role, SlotKey, Token};

/// Steps of TLS handshakes in a pass: some 100 us each where keys are exchanged.
const SHAKES_MAX: usize = 8;
/// A pass with fewer events is not timed where there is no TLS: it is short, and the clock would be felt.
const LONG_PASS_EVENTS: usize = 32;
/// Counters reach other threads at most this often.
const PUBLISH_MS: Millis = 100;

/// One worker. Everything in it is lost when it unwinds; what must not be is in its [`WorkerCore`].
pub struct Worker<'h, S: Sys> {
    res: Resources<'h, S>,
    pairs: Slab<Pair<S::Sock>>,
    wheel: Wheel,
    /// Pairs that are ready but were put off: budget used up, source unparked.
    ring: VecDeque<SlotKey>,
    /// Pairs whose TLS handshake can go on, in the order in which they came.
    shaking: VecDeque<SlotKey>,
    /// Slots to be freed at the end of the pass.
    over: Vec<usize>,
    /// Sessions that a drain will reach, and when.
    drain: VecDeque<(Millis, SlotKey)>,
    events: Vec<sys::Event>,
    due: Vec<(SlotKey, Tick)>,
    /// Something was counted that other threads have not seen.
    unpublished: bool,
    published_at: Millis,
    done: bool,
}

impl<'h, S: Sys> Worker<'h, S> {
    /// Listeners in `core` that are not registered yet are; one that cannot be is an error.
    pub fn new(core: &'h mut WorkerCore<S>) -> io::Result<Worker<'h, S>> {
        for listening in &mut core.listeners {
            listening.register(&mut core.sys)?;
            // A worker before this one may have seen the last edge.
            listening.owed = true;
        }
        let res = Resources::new(core);
        let now = res.now;
        let mut worker = Worker {
            res,
            pairs: Slab::new(),
            wheel: Wheel::new(now),
            ring: VecDeque::new(),
            shaking: VecDeque::new(),
            over: Vec::new(),
            drain: VecDeque::new(),
            events: Vec::new(),
            due: Vec::new(),
            unpublished: true,
            published_at: now,
            done: false,
        };
        worker.read_inbox();
        Ok(worker)
    }

    /// Runs until drained or stopped. An error is one of poll itself.
    pub fn run(&mut self) -> io::Result<()> {
        while self.run_once()? {}
        Ok(())
    }

    /// Once round the loop: poll, clock, due timers, events, ready ring, accepts, frees, counters.
    /// `false` when there is nothing left to do, ever.
    pub fn run_once(&mut self) -> io::Result<bool> {
        let timeout = self.timeout();
        let mut events = std::mem::take(&mut self.events);
        self.res.core.sys.poll(&mut events, timeout)?;
        self.res.now = self.res.core.sys.now();
        let secure = !self.res.core.tls.is_empty();
        let began_us = (secure || events.len() >= LONG_PASS_EVENTS).then(|| self.res.core.sys.busy_us());
        self.run_timers();
        for event in &events {
            self.on_event(event);
        }
        self.res.core.tally.events += events.len() as u64;
        self.unpublished |= !events.is_empty();
        self.events = events;
        self.run_ring();
        self.run_accepts();
        self.run_handshakes();
        self.free_slots();
        if let Some(began_us) = began_us {
            let us = self.res.core.sys.busy_us().saturating_sub(began_us);
            self.res.core.tally.busy_pass(us);
        }
        self.publish();
        Ok(!self.is_done())
    }

    /// Pairs that are held, for those who look for leaks.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    pub fn core(&mut self) -> &mut WorkerCore<S> {
        self.res.core
    }

    fn is_done(&self) -> bool {
        self.done || (self.res.core.draining && self.pairs.is_empty() && self.res.core.listeners.is_empty())
    }

    fn on_event(&mut self, event: &sys::Event) {
        match Token::unpack(event.token) {
            Some(Token::Pair(key, role)) => self.on_pair_event(key, role, event),
            Some(Token::Listener(id)) => {
                for listening in self.res.core.listeners.iter_mut().filter(|listening| listening.id == id) {
                    listening.owed = true;
                }
            }
            Some(Token::Waker) => self.read_inbox(),
            // Nobody makes calls of our own yet.
            Some(Token::Call(_)) | None => self.res.core.tally.stale_events += 1,
        }
    }

    fn on_pair_event(&mut self, key: SlotKey, role: Role, event: &sys::Event) {
        let side = if role == Role::DOWNSTREAM { Side::Downstream } else { Side::Upstream };
        let conn = self
            .pairs
            .get_mut(key.slot as usize)
            .filter(|pair| pair.generation == key.generation)
            .and_then(|pair| pair.conns[side].as_mut())
            .filter(|conn| conn.role == role);
        let Some(conn) = conn else {
            self.res.core.tally.stale_events += 1;
            return;
        };
        conn.on_ready(event);
        if event.priority {
            self.res.core.tally.urgent += 1;
            self.tell(key, Event::Urgent(side));
        }
        self.turn(key);
    }

    /// Does for a pair whatever can be done now.
    fn turn(&mut self, key: SlotKey) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation) else {
            return;
        };
        turn::turn(pair, key, &mut self.res);
        self.after(key);
    }

    fn tell(&mut self, key: SlotKey, event: Event) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation) else {
            return;
        };
        pump::tell(pair, key, event, &mut self.res);
        self.after(key);
    }

    /// Sees to it that a pair is looked at again: now, at its deadline, or never.
    fn after(&mut self, key: SlotKey) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize) else { return };
        if pair.stirred {
            pair.stirred = false;
            if pair.session.is_over() {
                if !std::mem::replace(&mut pair.freed, true) {
                    self.over.push(key.slot as usize);
                }
                return;
            }
            file(pair, key, &mut self.wheel, &self.res);
        }
        if !pair.queued && Side::BOTH.iter().any(|side| pair.may_read(*side)) {
            pair.queued = true;
            self.ring.push_back(key);
        } else if pair.pending.is_some() && !pair.queued && Side::BOTH.iter().any(|side| pair.waits_to_shake(*side)) {
            pair.queued = true;
            self.shaking.push_back(key);
        }
        while self.res.pool.is_short() && self.end_longest_stalled() {}
    }

    /// The pool's reserve was touched: whoever has taken nothing for longest makes room.
    fn end_longest_stalled(&mut self) -> bool {
        let stalled = self.pairs.iter().filter_map(|(slot, pair)| Some((pair.stalled()?, slot, pair.generation)));
        let longest = stalled.min_by_key(|((since, _), slot, _)| (*since, *slot));
        let Some(((_, side), slot, generation)) = longest else { return false };
        let key = SlotKey { slot: slot as u32, generation };
        let Some(pair) = self.pairs.get_mut(slot) else { return false };
        pump::tell(pair, key, Event::Stalled(side, Cause::OutOfBuffers), &mut self.res);
        pair.stirred = true;
        // Looked at in its turn: this one may be the pair whose turn it is.
        if !std::mem::replace(&mut pair.queued, true) {
            self.ring.push_back(key);
        }
        true
    }

    fn run_ring(&mut self) {
        for _ in 0..self.ring.len() {
            let Some(key) = self.ring.pop_front() else { return };
            self.queued_turn(key);
        }
    }

    /// The turn of a pair that stood in a queue: it may be put into one again.
    fn queued_turn(&mut self, key: SlotKey) {
        let pair = self.pairs.get_mut(key.slot as usize);
        if let Some(pair) = pair.filter(|pair| pair.generation == key.generation) {
            pair.queued = false;
        }
        self.turn(key);
    }

    /// After everything else: a storm of handshakes must not starve those who are through.
    fn run_handshakes(&mut self) {
        if self.shaking.is_empty() {
            return;
        }
        self.res.shakes = SHAKES_MAX;
        while self.res.shakes > 0 {
            let Some(key) = self.shaking.pop_front() else { break };
            self.queued_turn(key);
        }
        self.res.shakes = 0;
    }

    fn run_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.res.now, &mut due);
        self.unpublished |= !due.is_empty();
        for (key, tick) in due.drain(..) {
            self.on_timer(key, tick);
        }
        self.due = due;
        while let Some((at, key)) = self.drain.front().copied() {
            if at > self.res.now {
                break;
            }
            self.drain.pop_front();
            self.tell(key, Event::Drain);
        }
    }

    fn on_timer(&mut self, key: SlotKey, tick: Tick) {
        let pair = self.pairs.get_mut(key.slot as usize);
        let Some(pair) = pair.filter(|pair| pair.generation == key.generation && pair.filed == tick) else {
            return;
        };
        pair.filed = Tick::MAX;
        pair.stirred = true;
        match pair.deadline(&self.res.core.snapshot.timeouts) {
            Some((at, event)) if at <= self.res.now => self.tell(key, event),
            _ => self.after(key),
        }
    }

    fn run_accepts(&mut self) {
        for index in 0..self.res.core.listeners.len() {
            self.accept_burst(index);
        }
        let ended = |listening: &Listening<S::Listener>| listening.is_ending() && !listening.owed;
        while let Some(index) = self.res.core.listeners.iter().position(ended) {
            let mut listening = self.res.core.listeners.remove(index);
            // It is closed at once; an error could only say that it was not registered.
            let _closed = self.res.core.sys.deregister_listener(&mut listening.listener);
        }
    }

    fn accept_burst(&mut self, index: usize) {
        let accepted = self.res.core.tally.accepted;
        for _ in 0..ACCEPTS_MAX {
            let core = &mut *self.res.core;
            let Some(listening) = core.listeners.get_mut(index) else { return };
            if !listening.owed || listening.not_before > self.res.now {
                return;
            }
            // Above the limit clients wait in the kernel's queue.
            let Some(permit) = core.handshakes.take() else {
                listening.not_before = self.res.now + BACKOFF_MS;
                return;
            };
            match core.sys.accept(&listening.listener) {
                Ok((sock, peer)) => {
                    let addr = listening.addr;
                    listening.took_one();
                    self.open(sock, (peer, addr), permit);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => listening.drained(self.res.now),
                Err(error) if sys::is_exhaustion(&error) => {
                    listening.not_before = self.res.now + BACKOFF_MS;
                    core.tally.accept_backoffs += 1;
                }
                // That client is gone; the next one is not.
                Err(_) => {}
            }
        }
        // Nothing but errors: one that stays must not keep poll from waiting.
        let none = self.res.core.tally.accepted == accepted;
        if let Some(listening) = self.res.core.listeners.get_mut(index).filter(|_| none) {
            listening.not_before = self.res.now + BACKOFF_MS;
        }
    }

    fn open(&mut self, sock: S::Sock, (peer, listener): (SocketAddr, SocketAddr), permit: permits::Permit) {
        let (now, core) = (self.res.now, &mut *self.res.core);
        core.tally.accepted();
        core.generation = SlotKey::next_generation(core.generation);
        let config = core.snapshot.listeners.iter().find(|config| config.addr == listener);
        let trusted =
            |config: &Listener| config.trusted_proxies.iter().any(|net| net.contains(&peer.ip().to_canonical()));
        let (trusted, redirect) = (config.is_some_and(trusted), config.and_then(|config| config.redirect));
        let server = core.tls.listener(listener);
        let (secure, tls) = (server.is_some(), server.and_then(|config| Tls::server(config).ok()).map(Box::new));
        let slot = self.pairs.vacant_entry();
        let key = SlotKey { slot: slot.key() as u32, generation: core.generation };
        // Where registering fails for want of memory the client's conn is dropped at once, like one that left.
        let up = core.sys.register(&sock, Token::Pair(key, Role::DOWNSTREAM).pack()).is_ok();
        let up = up && tls.is_some() == secure;
        let mut conn = Conn::new(sock, Role::DOWNSTREAM, up && !secure);
        conn.tls = tls;
        slot.insert(Pair {
            session: Session::new(core.snapshot.limits.head_bytes, secure, now),
            conns: Sides::new(Some(conn), None),
            flows: Sides::default(),
            route: None,
            facts: None,
            pending: Some(Pending::new(peer, trusted, redirect, secure)),
            permit: Some(permit),
            last_seen: now,
            opened_at: now,
            filed: Tick::MAX,
            generation: key.generation,
            endpoint: 0,
            try_role: Role::FIRST_TRY,
            queued: false,
            stirred: true,
            freed: false,
        });
        if up { self.after(key) } else { self.tell(key, Event::Reset(Side::Downstream)) }
    }

    fn free_slots(&mut self) {
        if self.over.is_empty() {
            return;
        }
        for slot in self.over.drain(..) {
            self.pairs.remove(slot);
        }
        // There are descriptors and permits again: whoever had to wait for them need not wait for the next tick.
        for listening in &mut self.res.core.listeners {
            listening.not_before = self.res.now;
        }
        if self.pairs.is_empty() && self.pairs.capacity() > 1024 {
            self.pairs = Slab::new();
        }
    }

    fn publish(&mut self) {
        let (done, now, core) = (self.is_done(), self.res.now, &mut *self.res.core);
        core.tally.passes += 1;
        if now >= self.published_at + PUBLISH_MS || done {
            (self.published_at, self.unpublished) = (now, false);
            core.tally.busy_us = core.sys.busy_us();
            core.tally.backlog_bytes = self.res.pool.used_bytes() as u64;
            core.tally.publish(&core.shard);
        }
    }

    /// How long poll may wait.
    fn timeout(&self) -> Option<Duration> {
        let now = self.res.now;
        let accept = |listening: &Listening<S::Listener>| listening.owed.then_some(listening.not_before);
        let soonest = [
            (!self.ring.is_empty() || !self.shaking.is_empty()).then_some(now),
            self.wheel.next_at(),
            self.drain.front().map(|(at, _)| *at),
            self.res.core.listeners.iter().filter_map(accept).min(),
            self.unpublished.then_some(self.published_at + PUBLISH_MS),
        ];
        let soonest = soonest.into_iter().flatten().min()?;
        Some(Duration::from_millis(soonest.saturating_sub(now)))
    }

    fn read_inbox(&mut self) {
        while let Ok(command) = self.res.core.inbox.try_recv() {
            match command {
                Command::Swap { snapshot, tls, added, removed } => {
                    (self.res.core.snapshot, self.res.core.tls) = (snapshot, tls);
                    self.swap_listeners(added, &removed);
                }
                Command::Resolved(directory) => self.res.core.directory = directory,
                Command::Drain { spread_ms } => self.begin_drain(spread_ms),
                Command::Stop => self.stop(),
                Command::Panic => panic!("asked to, by a fault injection"),
            }
        }
    }

    fn swap_listeners(&mut self, added: Vec<(SocketAddr, S::Listener)>, removed: &[SocketAddr]) {
        let core = &mut *self.res.core;
        for listening in &mut core.listeners {
            if removed.contains(&listening.addr) {
                listening.end();
            }
        }
        for (addr, listener) in added {
            let mut listening = Listening::new(addr, listener);
            // Where registering fails for want of memory its queue is still looked at, tick by tick.
            listening.lame = listening.register(&mut core.sys).is_err();
            core.listeners.push(listening);
        }
        self.res.pool.set_max(self.res.core.snapshot.limits.buffer_bytes / self.res.core.workers.max(1));
        self.res.reset_cursors();
    }

    fn begin_drain(&mut self, spread_ms: u64) {
        self.res.core.draining = true;
        self.res.core.listeners.iter_mut().for_each(Listening::end);
        let (now, count) = (self.res.now, self.pairs.len() as u64);
        let at = |n: usize| now + spread_ms * n as u64 / count.max(1);
        let key = |(slot, pair): (usize, &Pair<S::Sock>)| SlotKey { slot: slot as u32, generation: pair.generation };
        self.drain = self.pairs.iter().map(key).enumerate().map(|(n, key)| (at(n), key)).collect();
    }

    fn stop(&mut self) {
        let key = |(slot, pair): (usize, &Pair<S::Sock>)| SlotKey { slot: slot as u32, generation: pair.generation };
        let keys: Vec<SlotKey> = self.pairs.iter().map(key).collect();
        for key in keys {
            self.tell(key, Event::Stop);
        }
        self.done = true;
    }
}

/// Whoever holds sessions when a worker goes, by a panic or an error of poll, gets a verdict all the same.
impl<S: Sys> Drop for Worker<'_, S> {
    fn drop(&mut self) {
        for mut pair in self.pairs.drain() {
            if !pair.session.is_over() {
                let phase = pair.session.phase();
                act::close(&mut pair, End { party: Party::Proxy, phase, cause: Cause::WorkerPanic }, &mut self.res);
            }
        }
        // The system outlives this worker; what its pool held must not stay open.
        self.res.pool.close_pipes(&mut self.res.core.sys);
    }
}

/// Files a pair for its deadline, unless the wheel looks at it before then anyway.
fn file<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, wheel: &mut Wheel, res: &Resources<'_, S>) {
    let Some((at, _)) = pair.deadline(&res.core.snapshot.timeouts) else { return };
    if timers::tick_after(at) < pair.filed {
        pair.filed = wheel.file(key, at);
    }
}
