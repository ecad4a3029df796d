//! The shell: one worker, one thread, one poll. Owns sockets and time, decides nothing. Generic over
//! [`sys::Sys`], so that the simulation runs this very code.
//!
//! Read in this order: this loop, `turn.rs`, `pair.rs`, `pump.rs` (bytes), `act.rs` (actions), then the small ones.

mod act;
mod buffers;
mod conn;
pub mod inbox;
pub mod listener;
mod pair;
mod pump;
pub mod seats;
mod secure;
mod shell;
mod splice;
pub mod sys;
mod timers;
pub mod token;
mod turn;

pub use buffers::{CHUNK_BYTES, SCRATCH_BYTES};
pub use shell::Home;

use crate::config::Listener;
use crate::proto::ended::{By, Ended, Why};
use crate::proto::session::{Event, Session};
use crate::proto::{Millis, Side, Sides};
use crate::tls::Tls;
use conn::Conn;
use inbox::Command;
use listener::{ACCEPTS_MAX, BACKOFF_MS, Listening};
use pair::{Cold, Pair};
use shell::Shell;
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use sys::Sys;
use timers::{Tick, Wheel};
use token::{Key, Role, Token};

/// Steps of TLS handshakes in a pass: some 100 us each where keys are exchanged.
const SHAKES_MAX: usize = 8;
/// A pass with fewer events is not timed where there is no TLS: it is short, and the clock would be felt.
const LONG_PASS_EVENTS: usize = 32;
/// Counters reach other threads at most this often.
const PUBLISH_MS: Millis = 100;

/// One worker. Everything in it is lost when it unwinds; what must not be is in its [`Home`].
pub struct Worker<'h, S: Sys> {
    shell: Shell<'h, S>,
    pairs: Slab<Pair<S::Sock>>,
    wheel: Wheel,
    /// Pairs that are ready but were put off: budget used up, source unparked.
    ring: VecDeque<Key>,
    /// Pairs whose TLS handshake can go on, in the order in which they came.
    shaking: VecDeque<Key>,
    /// Slots to be freed at the end of the pass.
    over: Vec<usize>,
    /// Sessions that a drain will reach, and when.
    drain: VecDeque<(Millis, Key)>,
    events: Vec<sys::Event>,
    due: Vec<(Key, Tick)>,
    /// Something was counted that other threads have not seen.
    unpublished: bool,
    published_at: Millis,
    done: bool,
}

impl<'h, S: Sys> Worker<'h, S> {
    /// Listeners in `home` that are not registered yet are; one that cannot be is an error.
    pub fn new(home: &'h mut Home<S>) -> io::Result<Worker<'h, S>> {
        for listening in &mut home.listeners {
            listening.register(&mut home.sys)?;
            // A worker before this one may have seen the last edge.
            listening.owed = true;
        }
        let shell = Shell::new(home);
        let now = shell.now;
        let mut worker = Worker {
            shell,
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
        while self.pass()? {}
        Ok(())
    }

    /// Once round the loop: poll, clock, due timers, events, ready ring, accepts, frees, counters.
    /// `false` when there is nothing left to do, ever.
    pub fn pass(&mut self) -> io::Result<bool> {
        let timeout = self.timeout();
        let mut events = std::mem::take(&mut self.events);
        self.shell.home.sys.poll(&mut events, timeout)?;
        self.shell.now = self.shell.home.sys.now();
        let secure = !self.shell.home.tls.is_empty();
        let began_us = (secure || events.len() >= LONG_PASS_EVENTS).then(|| self.shell.home.sys.busy_us());
        self.run_timers();
        for event in &events {
            self.on_event(event);
        }
        self.shell.home.tally.events += events.len() as u64;
        self.unpublished |= !events.is_empty();
        self.events = events;
        self.run_ring();
        self.run_accepts();
        self.run_handshakes();
        self.free_slots();
        if let Some(began_us) = began_us {
            let us = self.shell.home.sys.busy_us().saturating_sub(began_us);
            self.shell.home.tally.busy_pass(us);
        }
        self.publish();
        Ok(!self.is_done())
    }

    /// Pairs that are held, for those who look for leaks.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    pub fn home(&mut self) -> &mut Home<S> {
        self.shell.home
    }

    fn is_done(&self) -> bool {
        self.done || (self.shell.home.draining && self.pairs.is_empty() && self.shell.home.listeners.is_empty())
    }

    fn on_event(&mut self, event: &sys::Event) {
        match Token::unpack(event.token) {
            Some(Token::Pair(key, role)) => self.on_pair_event(key, role, event),
            Some(Token::Listener(id)) => {
                for listening in self.shell.home.listeners.iter_mut().filter(|listening| listening.id == id) {
                    listening.owed = true;
                }
            }
            Some(Token::Waker) => self.read_inbox(),
            // Nobody makes calls of our own yet.
            Some(Token::Call(_)) | None => self.shell.home.tally.stale_events += 1,
        }
    }

    fn on_pair_event(&mut self, key: Key, role: Role, event: &sys::Event) {
        let side = if role == Role::DOWNSTREAM { Side::Downstream } else { Side::Upstream };
        let conn = self
            .pairs
            .get_mut(key.slot as usize)
            .filter(|pair| pair.generation == key.generation)
            .and_then(|pair| pair.conns[side].as_mut())
            .filter(|conn| conn.role == role);
        let Some(conn) = conn else {
            self.shell.home.tally.stale_events += 1;
            return;
        };
        conn.on_ready(event);
        if event.priority {
            self.shell.home.tally.urgent += 1;
            self.tell(key, Event::Urgent(side));
        }
        self.turn(key);
    }

    /// Does for a pair whatever can be done now.
    fn turn(&mut self, key: Key) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation) else {
            return;
        };
        turn::turn(pair, key, &mut self.shell);
        self.after(key);
    }

    fn tell(&mut self, key: Key, event: Event) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation) else {
            return;
        };
        pump::tell(pair, key, event, &mut self.shell);
        self.after(key);
    }

    /// Sees to it that a pair is looked at again: now, at its deadline, or never.
    fn after(&mut self, key: Key) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize) else { return };
        if pair.stirred {
            pair.stirred = false;
            if pair.session.is_over() {
                if !std::mem::replace(&mut pair.freed, true) {
                    self.over.push(key.slot as usize);
                }
                return;
            }
            file(pair, key, &mut self.wheel, &self.shell);
        }
        if !pair.queued && Side::BOTH.iter().any(|side| pair.may_read(*side)) {
            pair.queued = true;
            self.ring.push_back(key);
        } else if pair.cold.is_some() && !pair.queued && Side::BOTH.iter().any(|side| pair.waits_to_shake(*side)) {
            pair.queued = true;
            self.shaking.push_back(key);
        }
        while self.shell.pool.is_short() && self.end_longest_stalled() {}
    }

    /// The pool's reserve was touched: whoever has taken nothing for longest makes room.
    fn end_longest_stalled(&mut self) -> bool {
        let stalled = self.pairs.iter().filter_map(|(slot, pair)| Some((pair.stalled()?, slot, pair.generation)));
        let longest = stalled.min_by_key(|((since, _), slot, _)| (*since, *slot));
        let Some(((_, side), slot, generation)) = longest else { return false };
        let key = Key { slot: slot as u32, generation };
        let Some(pair) = self.pairs.get_mut(slot) else { return false };
        pump::tell(pair, key, Event::Stalled(side, Why::OutOfBuffers), &mut self.shell);
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
    fn queued_turn(&mut self, key: Key) {
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
        self.shell.shakes = SHAKES_MAX;
        while self.shell.shakes > 0 {
            let Some(key) = self.shaking.pop_front() else { break };
            self.queued_turn(key);
        }
        self.shell.shakes = 0;
    }

    fn run_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.shell.now, &mut due);
        self.unpublished |= !due.is_empty();
        for (key, tick) in due.drain(..) {
            self.on_timer(key, tick);
        }
        self.due = due;
        while let Some((at, key)) = self.drain.front().copied() {
            if at > self.shell.now {
                break;
            }
            self.drain.pop_front();
            self.tell(key, Event::Drain);
        }
    }

    fn on_timer(&mut self, key: Key, tick: Tick) {
        let pair = self.pairs.get_mut(key.slot as usize);
        let Some(pair) = pair.filter(|pair| pair.generation == key.generation && pair.filed == tick) else {
            return;
        };
        pair.filed = Tick::MAX;
        pair.stirred = true;
        match pair.deadline(&self.shell.home.snapshot.timeouts) {
            Some((at, event)) if at <= self.shell.now => self.tell(key, event),
            _ => self.after(key),
        }
    }

    fn run_accepts(&mut self) {
        for index in 0..self.shell.home.listeners.len() {
            self.accept_burst(index);
        }
        let ended = |listening: &Listening<S::Listener>| listening.is_ending() && !listening.owed;
        while let Some(index) = self.shell.home.listeners.iter().position(ended) {
            let mut listening = self.shell.home.listeners.remove(index);
            // It is closed at once; an error could only say that it was not registered.
            let _closed = self.shell.home.sys.deregister_listener(&mut listening.listener);
        }
    }

    fn accept_burst(&mut self, index: usize) {
        let accepted = self.shell.home.tally.accepted;
        for _ in 0..ACCEPTS_MAX {
            let home = &mut *self.shell.home;
            let Some(listening) = home.listeners.get_mut(index) else { return };
            if !listening.owed || listening.not_before > self.shell.now {
                return;
            }
            // Above the limit clients wait in the kernel's queue.
            let Some(seat) = home.handshakes.take() else {
                listening.not_before = self.shell.now + BACKOFF_MS;
                return;
            };
            match home.sys.accept(&listening.listener) {
                Ok((sock, peer)) => {
                    let addr = listening.addr;
                    listening.took_one();
                    self.open(sock, (peer, addr), seat);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => listening.drained(self.shell.now),
                Err(error) if sys::is_exhaustion(&error) => {
                    listening.not_before = self.shell.now + BACKOFF_MS;
                    home.tally.accept_backoffs += 1;
                }
                // That client is gone; the next one is not.
                Err(_) => {}
            }
        }
        // Nothing but errors: one that stays must not keep poll from waiting.
        let none = self.shell.home.tally.accepted == accepted;
        if let Some(listening) = self.shell.home.listeners.get_mut(index).filter(|_| none) {
            listening.not_before = self.shell.now + BACKOFF_MS;
        }
    }

    fn open(&mut self, sock: S::Sock, (peer, listener): (SocketAddr, SocketAddr), seat: seats::Seat) {
        let (now, home) = (self.shell.now, &mut *self.shell.home);
        home.tally.accepted();
        home.generation = Key::next_generation(home.generation);
        let config = home.snapshot.listeners.iter().find(|config| config.addr == listener);
        let trusted =
            |config: &Listener| config.trusted_proxies.iter().any(|net| net.contains(&peer.ip().to_canonical()));
        let (trusted, redirect) = (config.is_some_and(trusted), config.and_then(|config| config.redirect));
        let server = home.tls.listener(listener);
        let (secure, tls) = (server.is_some(), server.and_then(|config| Tls::server(config).ok()).map(Box::new));
        let slot = self.pairs.vacant_entry();
        let key = Key { slot: slot.key() as u32, generation: home.generation };
        // Where registering fails for want of memory the client's conn is dropped at once, like one that left.
        let up = home.sys.register(&sock, Token::Pair(key, Role::DOWNSTREAM).pack()).is_ok();
        let up = up && tls.is_some() == secure;
        let mut conn = Conn::new(sock, Role::DOWNSTREAM, up && !secure);
        conn.tls = tls;
        slot.insert(Pair {
            session: Session::new(home.snapshot.limits.head_bytes, secure, now),
            conns: Sides::new(Some(conn), None),
            flows: Sides::default(),
            route: None,
            facts: None,
            cold: Some(Cold::new(peer, trusted, redirect, secure)),
            seat: Some(seat),
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
        // There are descriptors and seats again: whoever had to wait for them need not wait for the next tick.
        for listening in &mut self.shell.home.listeners {
            listening.not_before = self.shell.now;
        }
        if self.pairs.is_empty() && self.pairs.capacity() > 1024 {
            self.pairs = Slab::new();
        }
    }

    fn publish(&mut self) {
        let (done, now, home) = (self.is_done(), self.shell.now, &mut *self.shell.home);
        home.tally.passes += 1;
        if now >= self.published_at + PUBLISH_MS || done {
            (self.published_at, self.unpublished) = (now, false);
            home.tally.busy_us = home.sys.busy_us();
            home.tally.backlog_bytes = self.shell.pool.used_bytes() as u64;
            home.tally.publish(&home.shard);
        }
    }

    /// How long poll may wait.
    fn timeout(&self) -> Option<Duration> {
        let now = self.shell.now;
        let accept = |listening: &Listening<S::Listener>| listening.owed.then_some(listening.not_before);
        let soonest = [
            (!self.ring.is_empty() || !self.shaking.is_empty()).then_some(now),
            self.wheel.next_at(),
            self.drain.front().map(|(at, _)| *at),
            self.shell.home.listeners.iter().filter_map(accept).min(),
            self.unpublished.then_some(self.published_at + PUBLISH_MS),
        ];
        let soonest = soonest.into_iter().flatten().min()?;
        Some(Duration::from_millis(soonest.saturating_sub(now)))
    }

    fn read_inbox(&mut self) {
        while let Ok(command) = self.shell.home.inbox.try_recv() {
            match command {
                Command::Swap { snapshot, tls, added, removed } => {
                    (self.shell.home.snapshot, self.shell.home.tls) = (snapshot, tls);
                    self.swap_listeners(added, &removed);
                }
                Command::Resolved(directory) => self.shell.home.directory = directory,
                Command::Drain { spread_ms } => self.begin_drain(spread_ms),
                Command::Stop => self.stop(),
                Command::Panic => panic!("asked to, by a fault injection"),
            }
        }
    }

    fn swap_listeners(&mut self, added: Vec<(SocketAddr, S::Listener)>, removed: &[SocketAddr]) {
        let home = &mut *self.shell.home;
        for listening in &mut home.listeners {
            if removed.contains(&listening.addr) {
                listening.end();
            }
        }
        for (addr, listener) in added {
            let mut listening = Listening::new(addr, listener);
            // Where registering fails for want of memory its queue is still looked at, tick by tick.
            listening.lame = listening.register(&mut home.sys).is_err();
            home.listeners.push(listening);
        }
        self.shell.pool.set_max(self.shell.home.snapshot.limits.buffer_bytes / self.shell.home.workers.max(1));
        self.shell.reset_cursors();
    }

    fn begin_drain(&mut self, spread_ms: u64) {
        self.shell.home.draining = true;
        self.shell.home.listeners.iter_mut().for_each(Listening::end);
        let (now, count) = (self.shell.now, self.pairs.len() as u64);
        let at = |n: usize| now + spread_ms * n as u64 / count.max(1);
        let key = |(slot, pair): (usize, &Pair<S::Sock>)| Key { slot: slot as u32, generation: pair.generation };
        self.drain = self.pairs.iter().map(key).enumerate().map(|(n, key)| (at(n), key)).collect();
    }

    fn stop(&mut self) {
        let key = |(slot, pair): (usize, &Pair<S::Sock>)| Key { slot: slot as u32, generation: pair.generation };
        let keys: Vec<Key> = self.pairs.iter().map(key).collect();
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
                let stage = pair.session.stage();
                act::close(&mut pair, Ended { by: By::Proxy, stage, why: Why::WorkerPanic }, &mut self.shell);
            }
        }
        // The system outlives this worker; what its pool held must not stay open.
        self.shell.pool.close_pipes(&mut self.shell.home.sys);
    }
}

/// Files a pair for its deadline, unless the wheel looks at it before then anyway.
fn file<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, wheel: &mut Wheel, shell: &Shell<'_, S>) {
    let Some((at, _)) = pair.deadline(&shell.home.snapshot.timeouts) else { return };
    if timers::tick_after(at) < pair.filed {
        pair.filed = wheel.file(key, at);
    }
}
