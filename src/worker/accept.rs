//! Clients come: each that is accepted becomes a pair. So many of each listener in a loop
//! iteration, after everything that is of established sessions.

use super::Worker;
use super::listener::{ACCEPTS_MAX, BACKOFF_MS, Listening, RECLAIMS_MAX};
use super::pair::{Pair, Pending};
use super::sys::{self, Sys};
use super::token::{Role, SlotKey, Token};
use crate::policy::listener::Entry;
use crate::proto::Side;
use crate::proto::end::Cause;
use crate::proto::interface::{Event, TransportEnd};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

impl<S: Sys> Worker<'_, S> {
    pub(super) fn run_accepts(&mut self) {
        for index in 0..self.res.core.listeners.len() {
            self.accept_burst(index);
        }
        let ended = |listening: &Listening<S::Listener>| listening.is_ending() && !listening.accept_pending;
        while let Some(index) = self.res.core.listeners.iter().position(ended) {
            let mut listening = self.res.core.listeners.remove(index);
            // It is closed at once; an error could only mean that it was not registered.
            let _ = self.res.core.sys.deregister_listener(&mut listening.listener);
        }
    }

    /// Takes clients out of the listener's queue, so many at a time, as long as there are permits.
    fn accept_burst(&mut self, index: usize) {
        let accepted = self.res.core.tally.accepted;
        let mut reclaims_left = RECLAIMS_MAX;
        for _ in 0..ACCEPTS_MAX {
            let core = &mut *self.res.core;
            let Some(listening) = core.listeners.get_mut(index) else { return };
            if !listening.accept_pending || listening.not_before > self.res.now {
                return;
            }
            let Some(permit) = core.handshakes.take() else {
                // Above the limit clients wait in the kernel's queue.
                if reclaims_left == 0 {
                    return;
                }
                reclaims_left -= 1;
                if self.reclaim_handshake() {
                    continue;
                }
                return self.postpone_accepts(index);
            };
            match core.sys.accept(&listening.listener) {
                Ok((sock, peer)) => {
                    listening.took_one();
                    let config = &listening.config;
                    let blocked = core.snapshot.blocked(peer.ip(), self.res.now);
                    match blocked.map_or_else(|| config.enter(peer.ip(), permit, self.res.now), Err) {
                        Ok(entry) => self.insert(index, sock, peer, entry),
                        Err(cause) => self.res.refuse_peer(sock, peer, cause),
                    }
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
        // Nothing but errors: one that persists must not keep poll from waiting.
        if self.res.core.tally.accepted == accepted {
            self.postpone_accepts(index);
        }
    }

    fn postpone_accepts(&mut self, index: usize) {
        if let Some(listening) = self.res.core.listeners.get_mut(index) {
            listening.not_before = self.res.now + BACKOFF_MS;
        }
    }

    /// A client that was accepted by the `index`-th listener becomes a pair.
    fn insert(&mut self, index: usize, sock: S::Sock, peer: SocketAddr, Entry { permit, excess }: Entry) {
        let (now, core) = (self.res.now, &mut *self.res.core);
        core.tally.accepted();
        core.generation = SlotKey::next_generation(core.generation);
        let Some(listening) = core.listeners.get(index) else { return };
        let slot = self.pairs.vacant_entry();
        let key = SlotKey { slot: slot.key() as u32, generation: core.generation };
        // If registering fails for want of memory, the client is dropped at once, like one that
        // left.
        let registered = core.sys.register(&sock, Token::Pair(key, Role::DOWNSTREAM).pack()).is_ok();
        let admitted = listening.config.may_connect(peer.ip());
        let (tls, sound) = match admitted.then(|| listening.accept_tls()).flatten() {
            None => (None, registered),
            Some(Ok(tls)) => (Some(Box::new(tls)), registered),
            Some(Err(_)) => (None, false),
        };
        let mut pending = Pending::new(peer, Arc::clone(&listening.config), now);
        pending.excess = excess.map(Box::new);
        let pair = Pair::accepted((sock, tls), pending, &core.snapshot.settings, key.generation);
        slot.insert(pair).permit = Some(permit);
        match (sound, admitted) {
            (true, true) => {
                self.await_client(key);
                self.after(key, true);
            }
            (true, false) => self.with_turn(key, |turn| turn.refuse_peer(Cause::ProxyUntrusted)),
            (false, _) => self.report(key, Event::Ended(Side::Downstream, TransportEnd::Reset)),
        }
    }
}
