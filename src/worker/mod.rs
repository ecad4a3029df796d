//! The worker: one thread, one poll. Owns sockets and time, decides nothing. Generic
//! over [`sys::Sys`], so that the simulation runs this very code.
//!
//! Read in this order: this loop; `turn/` (what is done for a pair, and in which order); `conn.rs`
//! (a connection and its transport), `socket.rs`, `buffers.rs`; `calls.rs` (requests of our own);
//! `shadow.rs` (second servers of sessions); then the small ones.

mod accept;
mod buffers;
mod calls;
mod closings;
mod conn;
mod dial;
pub mod files;
mod handshakes;
mod idle;
pub mod inbox;
mod kept;
mod lend;
mod links;
pub mod listener;
mod pair;
mod pieces;
mod resources;
pub mod service;
mod shadow;
mod socket;
mod stalls;
mod sweep;
pub mod sys;
mod timers;
pub mod token;
mod turn;
mod waiting;

pub use resources::WorkerCore;

use crate::policy::ask::Answer;
use crate::proto::end::{Cause, End, Party};
use crate::proto::interface::Event;
use crate::proto::{Millis, Side};
use inbox::Command;
use pair::{Pair, SlotUse};
use resources::Resources;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use sys::Sys;
use timers::Wheel;
use token::{Role, SlotKey, Token};
use turn::Turn;
use waiting::Ticket;

/// An iteration with fewer events is not timed where there is no TLS: too short for the cost of two
/// clock reads.
const TIMED_EVENTS_MIN: usize = 32;
/// Waiting sessions of an upstream that get room in a loop iteration: each connects.
const SERVED_MAX: usize = 64;
/// Counters are published to other threads at most this often.
const PUBLISH_MS: Millis = 100;

/// One worker. Everything in it is lost when it unwinds; what must not be is in its [`WorkerCore`].
pub struct Worker<'h, S: Sys> {
    res: Resources<'h, S>,
    pairs: Slab<Pair<S::Sock>>,
    wheel: Wheel,
    /// Pairs that are ready but were deferred: budget used up, backlog gone.
    ring: VecDeque<SlotKey>,
    /// Slots to be freed at the end of the iteration.
    over: Vec<usize>,
    events: Vec<sys::Event>,
    due: Vec<(SlotKey, Millis)>,
    /// Something was counted that other threads have not seen.
    unpublished: bool,
    published_at: Millis,
    done: bool,
}

impl<'h, S: Sys> Worker<'h, S> {
    /// Registers the listeners in `core` that are not registered yet; one that cannot be is an
    /// error.
    pub fn new(core: &'h mut WorkerCore<S>) -> io::Result<Worker<'h, S>> {
        for listening in &mut core.listeners {
            listening.register(&mut core.sys)?;
            // A worker before this one may have seen the last edge.
            listening.accept_pending = true;
        }
        let res = Resources::new(core);
        let now = res.now;
        let mut worker = Worker {
            res,
            pairs: Slab::new(),
            wheel: Wheel::new(now),
            ring: VecDeque::new(),
            over: Vec::new(),
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

    /// One loop iteration: poll, clock, due timers, events, ready ring, accepts, handshakes, frees,
    /// counters. `false` when there is nothing left to do, ever.
    pub fn run_once(&mut self) -> io::Result<bool> {
        let timeout = self.timeout();
        let mut events = std::mem::take(&mut self.events);
        self.res.core.sys.poll(&mut events, timeout)?;
        self.res.now = self.res.core.sys.now();
        let timed = !self.res.core.tls.is_empty() || events.len() >= TIMED_EVENTS_MIN;
        let began_us = timed.then(|| self.res.core.sys.busy_us());
        self.res.handshakes.begin();
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
        if !self.res.shadows.is_idle() {
            self.run_shadows();
        }
        if self.res.waiting.may_have_room() {
            self.run_waiting();
        }
        if self.res.idle.may_yield() {
            self.yield_idle();
        }
        self.free_slots();
        if let Some(began_us) = began_us {
            let us = self.res.core.sys.busy_us().saturating_sub(began_us);
            self.res.core.tally.loop_busy(us);
        }
        let done = self.is_done();
        self.publish(done);
        Ok(!done)
    }

    /// Pairs that are held, with their places in queues, and calls of our own: for tests that look
    /// for leaks.
    pub fn held(&self) -> (usize, usize) {
        (self.pairs.len() + self.res.handshakes.held(), self.res.calls.len())
    }

    /// Connections to endpoints that carry plain requests, for the same tests. Idle ones are closed
    /// in their time, or with the worker.
    pub fn links(&self) -> usize {
        self.res.links.len()
    }

    pub fn core(&mut self) -> &mut WorkerCore<S> {
        self.res.core
    }

    fn is_done(&self) -> bool {
        self.done || (self.res.core.draining && self.pairs.is_empty() && self.res.core.listeners.is_empty())
    }

    /// The pair that `key` was given for, unless its slot has been freed since.
    #[inline]
    fn pair_mut(&mut self, key: SlotKey) -> Option<&mut Pair<S::Sock>> {
        self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation)
    }

    fn on_event(&mut self, event: &sys::Event) {
        match Token::unpack(event.token) {
            Some(Token::Pair(key, role)) => self.on_pair_event(key, role, event),
            Some(Token::Listener(id)) => {
                for listening in self.res.core.listeners.iter_mut().filter(|listening| listening.id == id) {
                    listening.accept_pending = true;
                }
            }
            Some(Token::Waker) => {
                self.read_inbox();
                self.res.waiting.on_wake();
            }
            Some(Token::Call(key, role)) => self.on_call_event(key, role, event),
            Some(Token::Shadow(key, role)) => {
                let known = self.res.shadows.on_event((key, role), event);
                self.res.core.tally.stale_events += u64::from(!known);
            }
            Some(Token::Link(key)) => self.on_link_event(key, event),
            None => self.res.core.tally.stale_events += 1,
        }
    }

    fn on_pair_event(&mut self, key: SlotKey, role: Role, event: &sys::Event) {
        let side = if role == Role::DOWNSTREAM { Side::Downstream } else { Side::Upstream };
        let conn = self.pair_mut(key).and_then(|pair| pair.conns[side].as_mut()).filter(|conn| conn.role == role);
        let Some(conn) = conn else {
            self.res.core.tally.stale_events += 1;
            return;
        };
        conn.on_ready(event);
        if event.priority {
            self.res.core.tally.urgent += 1;
            self.report(key, Event::UrgentData(side));
        }
        self.turn(key);
    }

    /// Does for a pair whatever can be done now.
    fn turn(&mut self, key: SlotKey) {
        self.with_turn(key, |turn| turn.run());
    }

    fn report(&mut self, key: SlotKey, event: Event) {
        self.with_turn(key, |turn| turn.report(event));
    }

    #[inline(always)]
    fn with_turn(&mut self, key: SlotKey, act: impl FnOnce(&mut Turn<'_, 'h, S>)) {
        let pair = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation);
        let Some(pair) = pair else { return };
        let mut turn = Turn { pair, key, res: &mut self.res, eventful: false };
        act(&mut turn);
        let eventful = turn.eventful;
        self.after(key, eventful);
    }

    /// Sees to it that a pair is looked at again: now, at its deadline, or never.
    #[inline(always)]
    fn after(&mut self, key: SlotKey, eventful: bool) {
        let Some(pair) = self.pairs.get_mut(key.slot as usize) else { return };
        // Messages alone only move a deadline away, and the wheel notices that when it looks.
        if eventful || !pair.is_steady() {
            if pair.slot != SlotUse::Live {
                if std::mem::replace(&mut pair.slot, SlotUse::Freed) == SlotUse::Over {
                    self.over.push(key.slot as usize);
                }
                return;
            }
            let deadline = pair.deadline(self.res.core.snapshot.settings.timeouts.tls_ms);
            if let Some((at, _)) = deadline.filter(|(at, _)| *at < pair.wheel_at) {
                pair.wheel_at = pair.wheel_at.min(self.wheel.file(key, at));
            }
        }
        if !pair.queued {
            if Side::BOTH.iter().any(|side| pair.may_read(*side)) {
                pair.queued = true;
                self.ring.push_back(key);
            } else if pair.pending.is_some() && pair.may_handshake() {
                self.queue_handshake(key);
            }
        }
        if self.res.pool.is_short() {
            self.end_longest_stalled();
        }
    }

    /// The pool's reserve was touched: the receivers that have taken nothing for longest make room.
    #[inline(never)]
    fn end_longest_stalled(&mut self) {
        while self.res.pool.is_short() {
            let Some((key, side)) = self.res.stalls.longest() else { return };
            let pair = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation);
            let Some(pair) = pair else { return };
            Turn { pair: &mut *pair, key, res: &mut self.res, eventful: false }
                .report(Event::Stalled(side, Cause::OutOfBuffers));
            // Looked at in a turn of its own: this may be the pair whose turn it is.
            if !std::mem::replace(&mut pair.queued, true) {
                self.ring.push_back(key);
            }
        }
    }

    fn run_ring(&mut self) {
        for _ in 0..self.ring.len() {
            let Some(key) = self.ring.pop_front() else { return };
            self.queued_turn(key);
        }
    }

    /// The turn of a pair that was queued: it may be queued again.
    fn queued_turn(&mut self, key: SlotKey) {
        if let Some(pair) = self.pair_mut(key) {
            pair.queued = false;
        }
        self.turn(key);
    }

    /// After everything that is of a session.
    fn run_shadows(&mut self) {
        self.res.run_shadows();
        while let Some(key) = self.res.shadows.pop_left() {
            if let Some(pair) = self.pair_mut(key) {
                pair.shadowed = false;
            }
        }
    }

    /// Sessions wait for room that was left: those that have waited longest get it.
    #[cold]
    fn run_waiting(&mut self) {
        for ticket in self.res.waiting.look() {
            self.serve(ticket);
        }
        self.res.waiting.wake_others();
    }

    /// The sessions in the line of this one ask for room, in order, until one has to wait on.
    fn serve(&mut self, ticket: Ticket) {
        for _ in 0..SERVED_MAX {
            let Some(first) = self.res.waiting.first(ticket) else { return };
            self.report(first, Event::Room);
            if self.res.waiting.first(ticket) == Some(first) {
                return;
            }
        }
        self.res.waiting.look_again(ticket);
    }

    fn on_call_event(&mut self, key: SlotKey, role: Role, event: &sys::Event) {
        let Some(mut input) = self.res.input.take() else { return };
        let (calls, mut io) = self.res.calls();
        let known = calls.on_event((key, role), event, &mut input, &mut io);
        self.res.input = Some(input);
        self.res.core.tally.stale_events += u64::from(!known);
        self.run_answers();
    }

    /// Calls that have ended answer the pairs that wait for them.
    fn run_answers(&mut self) {
        while let Some((key, answer)) = self.res.calls.pop_answer() {
            self.answer(key, answer);
        }
    }

    fn answer(&mut self, key: SlotKey, answer: Answer) {
        self.with_turn(key, |turn| turn.on_answer(answer));
    }

    fn run_timers(&mut self) {
        self.wheel.advance(self.res.now, &mut self.due);
        if !self.due.is_empty() {
            self.unpublished = true;
            let mut due = std::mem::take(&mut self.due);
            for (key, at) in due.drain(..) {
                self.on_timer(key, at);
            }
            self.due = due;
        }
        if !self.res.calls.is_idle() {
            let (calls, mut io) = self.res.calls();
            calls.run_timers(&mut io);
            self.run_answers();
        }
        if !self.res.links.is_idle() {
            let (links, mut io) = self.res.links();
            links.sweep(&mut io);
        }
        while let Some((at, key, reason)) = self.res.closings.pop(self.res.now) {
            self.run_closing(at, key, reason);
        }
    }

    fn on_timer(&mut self, key: SlotKey, at: Millis) {
        let (now, tls_ms) = (self.res.now, self.res.core.snapshot.settings.timeouts.tls_ms);
        let Some(pair) = self.pair_mut(key).filter(|pair| pair.wheel_at == at) else { return };
        pair.wheel_at = Millis::MAX;
        if let Some(ticket) = pair.ticket() {
            // It is about to ask for room: those that have waited longer ask before it.
            self.serve(ticket);
        }
        let Some(pair) = self.pair_mut(key).filter(|pair| pair.slot == SlotUse::Live) else { return };
        match pair.deadline(tls_ms) {
            Some((at, event)) if at <= now => self.with_turn(key, |turn| turn.on_deadline(event)),
            _ => self.after(key, true),
        }
    }

    fn free_slots(&mut self) {
        if self.over.is_empty() {
            return;
        }
        for slot in self.over.drain(..) {
            self.pairs.remove(slot);
        }
        // There are descriptors and permits again: listeners that had to wait for them need not
        // wait for the next tick.
        for listening in &mut self.res.core.listeners {
            listening.not_before = self.res.now;
        }
        if self.pairs.is_empty() && self.pairs.capacity() > 1024 {
            self.pairs = Slab::new();
        }
    }

    fn publish(&mut self, done: bool) {
        let (now, core) = (self.res.now, &mut *self.res.core);
        core.tally.loop_iterations += 1;
        if now >= self.published_at + PUBLISH_MS || done {
            (self.published_at, self.unpublished) = (now, false);
            core.tally.busy_us = core.sys.busy_us();
            core.tally.backlog_bytes = self.res.pool.used_bytes() as u64;
            self.res.count_shadows();
            let mut closings = std::mem::take(&mut self.res.closings);
            closings.tidy(self.pairs.len(), |at, key, reason| self.is_wanted(at, key, reason));
            self.res.closings = closings;
            let queued = self.res.handshakes.len() as u64;
            let core = &mut *self.res.core;
            core.tally.handshakes_queued = queued;
            core.tally.idle_clients = self.res.idle.len() as u64;
            core.tally.publish(&core.shard);
        }
    }

    /// How long poll may wait.
    fn timeout(&self) -> Option<Duration> {
        if !self.ring.is_empty() || !self.res.handshakes.is_empty() || self.res.waiting.may_have_room() {
            return Some(Duration::ZERO);
        }
        let mut soonest = self.wheel.next_at();
        for listening in self.res.core.listeners.iter().filter(|listening| listening.accept_pending) {
            soonest = soonest.min(listening.not_before);
        }
        if self.unpublished {
            soonest = soonest.min(self.published_at + PUBLISH_MS);
        }
        if let Some(at) = self.res.closings.next_at() {
            soonest = soonest.min(at);
        }
        if !self.res.calls.is_idle() {
            soonest = soonest.min(self.res.calls.next_at());
        }
        if !self.res.links.is_idle() {
            soonest = soonest.min(self.res.links.next_at());
        }
        if !self.res.shadows.is_idle() {
            soonest = soonest.min(self.res.shadows.next_at(self.res.now));
        }
        (soonest != timers::NEVER).then(|| Duration::from_millis(soonest.saturating_sub(self.res.now)))
    }

    fn read_inbox(&mut self) {
        while let Ok(command) = self.res.core.inbox.try_recv() {
            match command {
                Command::Swap { snapshot, tls, added, removed } => {
                    (self.res.core.snapshot, self.res.core.tls) = (snapshot, tls);
                    self.res.core.swap_listeners(added, &removed);
                    self.res.reload();
                }
                Command::Answer { to, answer } => self.answer(to, answer),
                Command::Piece { to, number, piece } => self.on_piece(to, number, piece),
                Command::EndpointDown(endpoint) => self.close_sessions_of(&endpoint),
                Command::Revoke(who) => self.revoke(&who),
                Command::Extend { who, until_unix_ms } => self.extend(&who, until_unix_ms),
                Command::Drain { spread_ms } => self.begin_drain(spread_ms),
                Command::Stop => self.stop(),
                Command::Panic => panic!("panic requested by fault injection"),
            }
        }
    }

    fn stop(&mut self) {
        for key in self.keys() {
            self.report(key, Event::Stop);
        }
        self.done = true;
    }
}

/// Sessions that are held when a worker goes, by a panic or an error of poll, get a verdict all the
/// same.
impl<S: Sys> Drop for Worker<'_, S> {
    fn drop(&mut self) {
        let mut pairs = std::mem::take(&mut self.pairs);
        for (slot, pair) in &mut pairs {
            if pair.slot == SlotUse::Live {
                let phase = pair.phase();
                let key = SlotKey { slot: slot as u32, generation: pair.generation };
                let end = End { party: Party::Proxy, phase, cause: Cause::WorkerPanic };
                Turn { pair, key, res: &mut self.res, eventful: false }.close(end);
            }
        }
        self.res.stop_shadows();
        let (links, mut io) = self.res.links();
        links.drop_all(&mut io);
        // The system outlives this worker; the pipes of its pool must not stay open.
        self.res.pool.close_pipes(&mut self.res.core.sys);
    }
}
