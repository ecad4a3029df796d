//! The handshakes of a worker: so much work is done on them in a loop iteration, after everything
//! that is of established sessions. What exceeds that waits here in a fair order ([`fair`]): steps
//! of TLS handshakes, and requests between their head and the decision. Where the queue is full,
//! or the wait too long, some have to go: requests with 503, clients whose TLS is not up without a
//! response, since a response would cost the handshake that is to be saved.
//!
//! Clients that say nothing take no work, but permits of `max_handshakes`. Where none is left, the
//! prefix with most of them ([`HalfOpen`]) gives back that of its oldest.
//!
//! [`fair`]: crate::policy::fair

use super::Worker;
use super::socket::Progress;
use super::sys::Sys;
use super::token::SlotKey;
use crate::memory::{HALF_OPEN_PLACE_BYTES, HANDSHAKE_LANES_BYTES, HANDSHAKE_PLACE_BYTES};
use crate::policy::block::Prefixes;
use crate::policy::fair::{self, Class, Fair, Job, Lane};
use crate::policy::half_open::{self, HalfOpen};
use crate::policy::shield::{REQUEST_COST, Shield, TLS_COST};
use crate::proto::{Millis, Side};
use std::net::IpAddr;

/// What a pair waits for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// A step of a TLS handshake, of either side.
    Tls,
    /// The decision about a request.
    Request,
}

/// Where a pair waits, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub place: fair::Place,
    pub work: Work,
}

#[derive(Debug)]
pub(super) struct Handshakes {
    queue: Fair<SlotKey>,
    half_open: HalfOpen<SlotKey>,
    /// Chooses the lanes of this worker.
    secret: u128,
    prefixes: Prefixes,
    /// Work of an iteration, and what is left of it in this one.
    work: u32,
    left: u32,
    /// A pair has its turn: its request need not wait once more.
    serving: bool,
}

// An entry with its links, and another one in reserve, as `check` counts it.
const _: () = assert!(fair::bytes::<SlotKey>(2) - fair::bytes::<SlotKey>(0) <= HANDSHAKE_PLACE_BYTES);
const _: () = assert!(half_open::bytes::<SlotKey>(2) - half_open::bytes::<SlotKey>(0) <= HALF_OPEN_PLACE_BYTES);
const _: () = assert!(fair::bytes::<SlotKey>(0) + half_open::bytes::<SlotKey>(0) <= HANDSHAKE_LANES_BYTES);

impl Handshakes {
    /// With the share of one of `workers`.
    pub fn new(shield: &Shield, workers: usize, secret: u128) -> Handshakes {
        let queue = Fair::new(shield.queue.div_ceil(workers));
        let (prefixes, work) = (shield.prefixes, shield.work);
        let half_open = HalfOpen::default();
        Handshakes { queue, half_open, secret, prefixes, work, left: work, serving: false }
    }

    pub fn reload(&mut self, shield: &Shield, workers: usize) {
        self.queue.set_max(shield.queue.div_ceil(workers));
        (self.prefixes, self.work) = (shield.prefixes, shield.work);
    }

    /// A loop iteration begins.
    pub fn begin(&mut self) {
        self.left = self.work;
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Places of pairs, of any kind.
    pub fn held(&self) -> usize {
        self.queue.len() + self.half_open.len()
    }

    /// What waits takes all that is left of this iteration.
    pub fn is_crowded(&self) -> bool {
        self.queue.cost() >= self.left
    }

    /// Whether a request may be decided at once. Then it is counted.
    #[inline]
    pub fn spend_request(&mut self) -> bool {
        let may = self.serving || !self.is_crowded();
        if may {
            self.left = self.left.saturating_sub(REQUEST_COST);
        }
        may
    }

    pub fn push(&mut self, key: SlotKey, (work, class): (Work, Class), client: IpAddr, now: Millis) -> Waits {
        let cost = match work {
            Work::Tls => TLS_COST,
            Work::Request => REQUEST_COST,
        };
        let lane = self.lane(client);
        Waits { place: self.queue.push(key, Job { class, lane, cost }, now), work }
    }

    fn lane(&self, client: IpAddr) -> Lane {
        Lane::of(self.prefixes.of(client), self.secret)
    }

    /// From now on a client has to say something.
    pub fn await_client(&mut self, key: SlotKey, client: IpAddr, now: Millis) -> half_open::Place {
        let lane = self.lane(client);
        self.half_open.push(key, lane, now)
    }

    /// It has said it, or has left.
    pub fn heard(&mut self, place: half_open::Place, key: SlotKey) {
        self.half_open.remove(place, key);
    }

    /// The pair does not wait any more.
    pub fn remove(&mut self, waits: Waits, key: SlotKey) {
        self.queue.remove(waits.place, key);
    }

    /// The next pair that has its turn in this iteration.
    fn next(&mut self) -> Option<SlotKey> {
        if self.left == 0 {
            return None;
        }
        let (key, cost) = self.queue.pop()?;
        self.left = self.left.saturating_sub(cost);
        Some(key)
    }

    /// A pair that has to go: the queue is too long, or it has waited since then.
    fn displaced(&mut self, since: Option<Millis>) -> Option<SlotKey> {
        self.queue.displace().or_else(|| self.queue.expire(since?))
    }
}

impl<S: Sys> Worker<'_, S> {
    /// After everything else: a storm of handshakes must not starve established sessions.
    pub(super) fn run_handshakes(&mut self) {
        if self.res.handshakes.is_empty() {
            return;
        }
        while let Some(key) = self.res.handshakes.next() {
            self.serve_handshake(key);
        }
        let since = self.res.now.checked_sub(self.res.core.snapshot.shield.wait_ms);
        while let Some(key) = self.res.handshakes.displaced(since) {
            self.with_turn(key, |turn| turn.displace());
        }
    }

    fn serve_handshake(&mut self, key: SlotKey) {
        let Some(waits) = self.pair_mut(key).and_then(|pair| pair.pending.as_mut()?.waits.take()) else { return };
        self.res.handshakes.serving = true;
        match waits.work {
            Work::Tls => {
                self.res.handshake_steps = 1;
                self.queued_turn(key);
                self.res.handshake_steps = 0;
            }
            Work::Request => self.with_turn(key, |turn| turn.decide_queued()),
        }
        self.res.handshakes.serving = false;
        self.await_client(key);
    }

    /// The client of this pair is to say something, unless its request is complete or it waits
    /// here.
    pub(super) fn await_client(&mut self, key: SlotKey) {
        let pair = self.pairs.get_mut(key.slot as usize).filter(|pair| pair.generation == key.generation);
        let Some(pair) = pair.filter(|pair| pair.info.is_none() && pair.has_no_request()) else { return };
        let Some(pending) = pair.pending.as_mut().filter(|pending| pending.waits.is_none()) else { return };
        if pending.silent.is_none() {
            pending.silent = Some(self.res.handshakes.await_client(key, pending.peer.ip(), self.res.now));
        }
    }

    /// No permit is left for another client: closes one that says nothing, if any does for long
    /// enough.
    pub(super) fn reclaim_handshake(&mut self) -> bool {
        let Some(key) = self.res.handshakes.half_open.reclaim(self.res.now) else { return false };
        self.with_turn(key, |turn| turn.close(turn.overloaded()));
        true
    }

    /// The TLS handshake of a pair can continue.
    #[inline(never)]
    pub(super) fn queue_handshake(&mut self, key: SlotKey) {
        let Some(class) = self.class_of(key) else { return };
        let Some(pair) = self.pairs.get_mut(key.slot as usize) else { return };
        let Some(pending) = &mut pair.pending else { return };
        let client = pending.peer.ip();
        if let Some(place) = pending.silent.take() {
            self.res.handshakes.heard(place, key);
        }
        pending.waits = Some(self.res.handshakes.push(key, (Work::Tls, class), client, self.res.now));
        pair.queued = true;
    }

    /// Whose handshake it is. A ClientHello is looked at only where it has to wait. `None`: it has
    /// not arrived yet as a whole, and waits for that first.
    fn class_of(&mut self, key: SlotKey) -> Option<Class> {
        let crowded = self.res.handshakes.is_crowded();
        let pair = self.pairs.get_mut(key.slot as usize)?;
        if pair.session.is_some() {
            // The handshake is that with the upstream.
            return Some(Class::Admitted);
        }
        let pending = pair.pending.as_mut()?;
        if let Some(class) = pending.class {
            return Some(class);
        }
        let acceptor = self.res.core.tls.acceptor(pending.listener.addr).filter(|_| crowded && !pending.tls_spoken);
        let Some((acceptor, conn)) = acceptor.zip(pair.conns[Side::Downstream].as_mut()) else {
            return Some(Class::Other);
        };
        let mut input = self.res.input.take()?;
        let (progress, bytes) = conn.peek(&mut input, &mut self.res.core.sys);
        let class = match (progress, acceptor.recognizes(bytes)) {
            (Progress::Blocked, _) => None,
            (Progress::Ended(_), _) | (_, Some(false)) => Some(Class::Other),
            (_, Some(true)) => Some(Class::Preferred),
            (_, None) => (!conn.wait_for_more()).then_some(Class::Other),
        };
        pending.class = class;
        self.res.input = Some(input);
        class
    }
}
