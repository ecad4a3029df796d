//! Links: connections to endpoints that carry plain requests, one after the other, each for another
//! client. A link keeps its token for life, so that lending it to a pair costs no system call; here
//! is which pair has it. Those without a pair are idle, and kept for a time.
//!
//! An idle link that sends anything, or ends, is closed: it belongs to no request. Whether one does
//! is asked once more when it is lent, since the event for that may be behind that of the pair.

use super::Worker;
use super::conn::{Conn, Input};
use super::lend::Io;
use super::socket::Progress;
use super::sys::{Event, Sys};
use super::token::{Role, SlotKey};
use crate::policy::endpoint::Endpoint;
use crate::policy::upstream::KeepAlive;
use crate::proto::Millis;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// Idle links are looked at for their time this often.
const SWEEP_MS: Millis = 1_000;
/// Bytes that an idle link may bring at a time, and how many times in a row: tickets of TLS.
const IDLE_READ: usize = 4 * 1024;
const IDLE_READS_MAX: usize = 4;

#[derive(Debug)]
pub struct Links<K> {
    links: Slab<Link<K>>,
    generation: u32,
    /// Idle links by the address of their endpoint, which they hold; the one that was used last is
    /// behind the others.
    idle: HashMap<usize, Vec<SlotKey>>,
    /// Idle links, all together.
    idle_count: usize,
    sweep_at: Millis,
}

#[derive(Debug)]
struct Link<K> {
    generation: u32,
    opened_at: Millis,
    holder: Holder<K>,
}

#[derive(Debug)]
enum Holder<K> {
    Pair(SlotKey),
    /// It is idle.
    Free(Box<Idle<K>>),
}

#[derive(Debug)]
struct Idle<K> {
    conn: Conn<K>,
    endpoint: Arc<Endpoint>,
    keep: KeepAlive,
    since: Millis,
}

impl<K> Links<K> {
    pub fn new(generation: u32, now: Millis) -> Links<K> {
        Links { links: Slab::new(), generation, idle: HashMap::new(), idle_count: 0, sweep_at: now + SWEEP_MS }
    }

    /// Those that are idle, and those of pairs.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Nothing is idle: there is nothing to sweep.
    pub fn is_idle(&self) -> bool {
        self.idle_count == 0
    }

    pub fn next_at(&self) -> Millis {
        self.sweep_at
    }

    /// A link that a pair is about to make.
    pub fn open(&mut self, pair: SlotKey, now: Millis) -> SlotKey {
        self.generation = SlotKey::next_generation(self.generation);
        let link = Link { generation: self.generation, opened_at: now, holder: Holder::Pair(pair) };
        SlotKey { slot: self.links.insert(link) as u32, generation: self.generation }
    }

    /// The pair that has it; `None` where it is idle or closed.
    pub fn pair_of(&self, key: SlotKey) -> Option<SlotKey> {
        match self.get(key)?.holder {
            Holder::Pair(pair) => Some(pair),
            Holder::Free(_) => None,
        }
    }

    /// The pair has closed its link.
    pub fn close(&mut self, key: SlotKey) {
        if self.get(key).is_some() {
            self.links.remove(key.slot as usize);
        }
    }

    /// An idle link to `endpoint` that has said nothing, if there is one: the pair has it from here
    /// on.
    pub fn take<S: Sys<Sock = K>>(
        &mut self,
        endpoint: &Arc<Endpoint>,
        pair: SlotKey,
        sys: &mut S,
    ) -> Option<(SlotKey, Conn<K>)> {
        loop {
            let key = self.idle.get_mut(&Arc::as_ptr(endpoint).addr())?.pop()?;
            self.idle_count -= 1;
            let link = self.links.get_mut(key.slot as usize)?;
            let Holder::Free(mut idle) = std::mem::replace(&mut link.holder, Holder::Pair(pair)) else { return None };
            if idle.conn.is_reusable() && idle.conn.is_silent(sys) {
                return Some((key, idle.conn));
            }
            // It has no backlog that would have to go back.
            self.links.remove(key.slot as usize);
        }
    }

    /// Keeps a link whose pair needs it no longer. `Err` gives the connection back: there are
    /// enough of them, or it is too old.
    pub fn keep(
        &mut self,
        key: SlotKey,
        conn: Conn<K>,
        (endpoint, keep): (&Arc<Endpoint>, KeepAlive),
        now: Millis,
    ) -> Result<(), Conn<K>> {
        let Some(link) = self.links.get_mut(key.slot as usize).filter(|link| link.generation == key.generation) else {
            return Err(conn);
        };
        let idle = self.idle.entry(Arc::as_ptr(endpoint).addr()).or_default();
        if idle.len() >= keep.connections || now.saturating_sub(link.opened_at) >= keep.age_ms {
            return Err(conn);
        }
        idle.push(key);
        self.idle_count += 1;
        link.holder = Holder::Free(Box::new(Idle { conn, endpoint: Arc::clone(endpoint), keep, since: now }));
        Ok(())
    }

    /// Something has happened to an idle link. `false`: it is closed already.
    pub fn on_event<S: Sys<Sock = K>>(
        &mut self,
        key: SlotKey,
        event: &Event,
        input: &mut Input,
        io: &mut Io<'_, S>,
    ) -> bool {
        let link = self.links.get_mut(key.slot as usize).filter(|link| link.generation == key.generation);
        let Some(Holder::Free(idle)) = link.map(|link| &mut link.holder) else { return false };
        idle.conn.on_ready(event);
        let (mut lives, mut reads) = (!event.priority, 0);
        while lives && idle.conn.ready().read {
            reads += 1;
            let progress = idle.conn.read(IDLE_READ, input, io);
            let silent = input.bytes().is_empty();
            input.clear();
            match progress {
                Progress::Moved(_) if silent && reads < IDLE_READS_MAX => {}
                Progress::Blocked => break,
                Progress::Moved(_) | Progress::Ended(_) => lives = false,
            }
        }
        if !lives || idle.conn.has_backlog() || idle.conn.ready().broken {
            self.drop_idle(key, io);
        }
        true
    }

    /// Closes links that have been idle for their time.
    pub fn sweep<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        let now = io.now;
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_MS;
        let is_over = |idle: &Idle<K>| now.saturating_sub(idle.since) >= idle.keep.idle_ms;
        self.drop_if(is_over, io);
        self.idle.retain(|_, links| !links.is_empty());
    }

    /// Closes all idle links: they were made by rules that are not in force any more, or the worker
    /// goes.
    pub fn drop_all<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        self.drop_if(|_| true, io);
    }

    /// Closes the idle links to an endpoint that is down: they may have ended without a word.
    pub fn drop_of<S: Sys<Sock = K>>(&mut self, endpoint: &Arc<Endpoint>, io: &mut Io<'_, S>) {
        self.drop_if(|idle| Arc::ptr_eq(&idle.endpoint, endpoint), io);
    }

    fn drop_if<S: Sys<Sock = K>>(&mut self, goes: impl Fn(&Idle<K>) -> bool, io: &mut Io<'_, S>) {
        let is_gone = |(slot, link): (usize, &Link<K>)| match &link.holder {
            Holder::Free(idle) if goes(idle) => Some(SlotKey { slot: slot as u32, generation: link.generation }),
            Holder::Free(_) | Holder::Pair(_) => None,
        };
        let gone: Vec<SlotKey> = self.links.iter().filter_map(is_gone).collect();
        for key in gone {
            self.drop_idle(key, io);
        }
    }

    fn drop_idle<S: Sys<Sock = K>>(&mut self, key: SlotKey, io: &mut Io<'_, S>) {
        if self.get(key).is_none() {
            return;
        }
        let Holder::Free(mut idle) = self.links.remove(key.slot as usize).holder else { return };
        if let Some(links) = self.idle.get_mut(&Arc::as_ptr(&idle.endpoint).addr()) {
            links.retain(|other| *other != key);
        }
        self.idle_count -= 1;
        idle.conn.send_close_notify(io);
        drop(idle.conn.into_sock(io.pool));
    }

    fn get(&self, key: SlotKey) -> Option<&Link<K>> {
        self.links.get(key.slot as usize).filter(|link| link.generation == key.generation)
    }
}

impl<S: Sys> Worker<'_, S> {
    /// An event of a link is one of the pair that has it.
    pub(super) fn on_link_event(&mut self, key: SlotKey, event: &Event) {
        if let Some(pair) = self.res.links.pair_of(key) {
            return self.on_pair_event(pair, Role::FIRST_ATTEMPT, event);
        }
        let Some(mut input) = self.res.input.take() else { return };
        let (links, mut io) = self.res.links();
        let known = links.on_event(key, event, &mut input, &mut io);
        self.res.input = Some(input);
        self.res.core.tally.stale_events += u64::from(!known);
    }
}
