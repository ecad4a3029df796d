//! Clients between two plain requests, in the order in which they became idle. They count as
//! sessions, but take no place from one: where a limit has no room for both, the client that has
//! been idle for longest is closed.
//!
//! Limits count for all workers, idle clients are with the worker that has accepted them: one that
//! has none left for a limit wakes the others.

use super::Worker;
use super::listener::Listening;
use super::sys::Sys;
use super::token::SlotKey;
use crate::policy::links::{Links, List};
use crate::proto::interface::Event;
use crate::proto::{Millis, Side};
use std::net::SocketAddr;

/// Clients that are looked at for this in a loop iteration.
const YIELDS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct IdleClients {
    /// By the address of the listener that has accepted them.
    lists: Vec<(SocketAddr, List)>,
    /// Positions are slots of pairs.
    links: Links,
    /// Since when each has been idle.
    since: Vec<Millis>,
    count: usize,
    /// A session was admitted: a limit may be exceeded.
    admitted: bool,
    /// When the others were asked last.
    asked_at: Millis,
}

impl IdleClients {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn on_admitted(&mut self) {
        self.admitted = true;
    }

    /// A limit may be exceeded, and this worker can do something about it.
    #[inline]
    pub fn may_yield(&self) -> bool {
        self.admitted || self.count > 0
    }

    /// A client of this listener is idle from here on; it is not in a list.
    pub fn push(&mut self, slot: u32, listener: SocketAddr, now: Millis) {
        let slots = slot as usize + 1;
        if self.since.len() < slots {
            self.since.resize(slots, 0);
            self.links.grow(slots);
        }
        let known = self.lists.iter().position(|(addr, _)| *addr == listener);
        let at = known.unwrap_or_else(|| {
            self.lists.push((listener, List::default()));
            self.lists.len() - 1
        });
        if let (Some((_, list)), Some(since)) = (self.lists.get_mut(at), self.since.get_mut(slot as usize)) {
            self.links.push_back(list, slot);
            *since = now;
            self.count += 1;
        }
    }

    /// It is not any more; it is in the list of this listener.
    pub fn remove(&mut self, slot: u32, listener: SocketAddr) {
        let Some(at) = self.lists.iter().position(|(addr, _)| *addr == listener) else { return };
        if let Some((_, list)) = self.lists.get_mut(at) {
            self.links.remove(list, slot);
            self.count -= 1;
            if list.is_empty() {
                self.lists.swap_remove(at);
            }
        }
        // A storm that has passed does not keep its memory.
        if self.lists.is_empty() && self.since.len() > 1024 {
            *self = IdleClients { admitted: self.admitted, asked_at: self.asked_at, ..IdleClients::default() };
        }
    }

    /// The one that has been idle for longest; of one listener, or of all.
    fn longest(&self, of: Option<SocketAddr>) -> Option<(u32, SocketAddr)> {
        let lists = self.lists.iter().filter(|(addr, _)| of.is_none_or(|of| of == *addr));
        let first = lists.filter_map(|(addr, list)| Some((list.first()?, *addr)));
        first.min_by_key(|(slot, _)| self.since.get(*slot as usize).copied())
    }
}

impl<S: Sys> Worker<'_, S> {
    /// Closes idle clients as long as they take places that sessions need.
    pub(super) fn yield_idle(&mut self) {
        let admitted = std::mem::take(&mut self.res.idle.admitted);
        // Each is closed, or goes behind the others.
        for _ in 0..self.res.idle.len().min(YIELDS_MAX) {
            let Some((slot, listener)) = self.next_to_yield() else { break };
            self.yield_one(slot, listener);
        }
        // Others may have some.
        if admitted && self.res.idle.asked_at != self.res.now && self.is_exceeded(None) {
            self.res.idle.asked_at = self.res.now;
            self.res.core.peers.wake_others();
        }
    }

    /// The idle client of this worker that is to make room, where a limit is exceeded.
    fn next_to_yield(&self) -> Option<(u32, SocketAddr)> {
        if self.res.core.sessions.is_exceeded() {
            return self.res.idle.longest(None);
        }
        let mut listeners = self.res.idle.lists.iter().map(|(addr, _)| *addr);
        let exceeded = listeners.find(|addr| self.is_exceeded(Some(*addr)))?;
        self.res.idle.longest(Some(exceeded))
    }

    /// Sessions exceed the limit of this listener, or any limit, together with idle clients.
    fn is_exceeded(&self, listener: Option<SocketAddr>) -> bool {
        let mut listeners = self.res.core.listeners.iter();
        let exceeds = |listening: &Listening<S::Listener>| {
            let limits = listening.config.limits.as_deref().filter(|limits| limits.sessions.max().is_some());
            limits.is_some_and(|limits| limits.sessions.permits().is_exceeded())
        };
        match listener {
            Some(addr) => listeners.any(|listening| listening.addr() == addr && exceeds(listening)),
            None => self.res.core.sessions.is_exceeded() || listeners.any(exceeds),
        }
    }

    /// Closes an idle client. One that has just said something goes behind the others.
    fn yield_one(&mut self, slot: u32, listener: SocketAddr) {
        let Some(pair) = self.pairs.get_mut(slot as usize) else { return self.res.idle.remove(slot, listener) };
        let key = SlotKey { slot, generation: pair.generation };
        let waits = pair.session.as_ref().is_some_and(|session| session.is_idle());
        let client = pair.conns[Side::Downstream].as_mut();
        let is_silent = client.is_some_and(|client| client.is_silent(&mut self.res.core.sys));
        if waits && is_silent {
            self.res.core.tally.idle_closed += 1;
            self.report(key, Event::Drain);
        } else {
            self.res.idle.remove(slot, listener);
            self.res.idle.push(slot, listener, self.res.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_that_has_been_idle_for_longest_comes_first() {
        let listeners = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut idle = IdleClients::default();
        for (slot, listener, now) in [(4, 0, 10), (1, 1, 20), (9, 0, 30), (2, 1, 5)] {
            idle.push(slot, listeners[listener], now);
        }
        let longest = |idle: &IdleClients| [None, Some(listeners[0]), Some(listeners[1])].map(|of| idle.longest(of));
        let (one, two) = (listeners[0], listeners[1]);
        assert_eq!(longest(&idle), [Some((4, one)), Some((4, one)), Some((1, two))]);
        idle.remove(4, one);
        idle.push(4, one, 40);
        idle.remove(1, two);
        assert_eq!(longest(&idle), [Some((2, two)), Some((9, one)), Some((2, two))]);
        idle.remove(2, two);
        idle.remove(9, one);
        assert_eq!((longest(&idle), idle.len()), ([Some((4, one)), Some((4, one)), None], 1));
        idle.remove(4, one);
        assert_eq!((longest(&idle), idle.len(), idle.may_yield()), ([None; 3], 0, false));
    }
}
