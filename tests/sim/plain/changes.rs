//! What control does in a schedule of plain HTTP: it replaces the configuration, takes an endpoint
//! out, stops the process. And what must hold of the worker's connections to servers meanwhile: no
//! more are kept than may be, none for too long, and none over a reload.

use super::server::Server;
use super::stage::is_request;
use super::{Kind, Plan};
use crate::coverage::Met;
use crate::kernel::{Id, Micros, Sys, trace};
use crate::world::World;
use framegate::policy::health::Order;
use framegate::worker::inbox::Command;
use std::sync::Arc;

/// Idle connections are looked at once a second; the clock may jump by another one, and be read
/// late.
const SWEEP_MS: u64 = 2_300;
/// Sessions end within this time when the process stops.
const SPREAD_MS: u64 = 500;
/// Longer than all pauses of a peer.
const ARRIVES: Micros = 5_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Reload,
    /// The first endpoint is down, by an order.
    Down,
    Drain,
}

/// A connection of the worker's to a server.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub sock: Id,
    /// The worker's clock when it was made, and when it was read last.
    pub opened_ms: u64,
    pub read_ms: u64,
    /// The worker has looked since something came last, and found nothing.
    pub silent: bool,
}

/// When the worker has learnt of each change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changed {
    /// They were made, and wait for the next pass.
    pending: [bool; 3],
    told_ms: [Option<u64>; 3],
}

impl Changed {
    pub fn told_ms(&self, change: Change) -> Option<u64> {
        self.told_ms[change as usize]
    }

    /// It was made, at least.
    pub fn has_begun(&self, change: Change) -> bool {
        self.pending[change as usize] || self.told_ms(change).is_some()
    }
}

impl Plan {
    pub fn has(&self, change: Change) -> bool {
        self.changes.iter().any(|(_, other)| *other == change)
    }

    /// When each change comes.
    pub fn moments(&self) -> impl Iterator<Item = (usize, Micros)> {
        self.changes.iter().map(|(at, _)| *at).enumerate()
    }
}

impl World {
    /// The `n`-th change of the script happens.
    pub fn change_plain(&mut self, n: usize) {
        let change = self.script.plain.as_ref().and_then(|plan| plan.changes.get(n)).map(|(_, change)| *change);
        let (Some(change), now) = (change, self.kernel.now / 1_000) else { return };
        let upstreams = self.plain.upstreams.clone();
        trace!(self.kernel, "control: {change:?}");
        self.cover_change(change);
        let Some(control) = &mut self.control else { return };
        let command = match change {
            Change::Reload => {
                let (Some((snapshot, tls)), [before, after]) = (control.after.take(), upstreams.as_slice()) else {
                    return;
                };
                after.inherit(before, now);
                control.current = Arc::clone(&snapshot);
                Command::Swap { snapshot, tls, added: Vec::new(), removed: Vec::new() }
            }
            Change::Down => {
                let Some(first) = upstreams.first().map(|upstream| Arc::clone(&upstream.endpoints()[0])) else {
                    return;
                };
                first.obey(Order::Down, now);
                Command::EndpointDown(first)
            }
            Change::Drain => Command::Drain { spread_ms: SPREAD_MS },
        };
        control.worker.send(command);
        self.inbox_edge = true;
        self.plain.changed.pending[change as usize] = true;
    }

    fn cover_change(&mut self, change: Change) {
        let open = |link: &&Link| !self.kernel.socks[link.sock].closed;
        let servers = self.plain.links.iter().filter(open).filter_map(|link| self.plain_server_of(link.sock));
        let servers: Vec<&Server> = servers.collect();
        let idle = |server: &Server| !server.served.is_empty() && server.is_idle();
        let met = match change {
            Change::Reload => servers.iter().copied().any(idle).then_some(Met::Reloaded),
            Change::Down => servers.iter().any(|server| idle(server) && server.endpoint == 0).then_some(Met::WentDown),
            Change::Drain => servers.iter().any(|server| !server.is_idle()).then_some(Met::Stopped),
        };
        met.into_iter().for_each(|met| self.coverage.meet(met));
    }

    /// The worker learns of what has come for it.
    pub fn tell_changes(&mut self) {
        let (now, changed) = (self.kernel.now / 1_000, &mut self.plain.changed);
        for (pending, told) in changed.pending.iter_mut().zip(&mut changed.told_ms) {
            if std::mem::take(pending) {
                *told = Some(now);
            }
        }
    }

    /// The worker has stopped: it was told to, and has no client any more.
    pub fn check_stop(&mut self) -> Result<(), String> {
        let drained = self.plain.changed.told_ms(Change::Drain).is_some();
        // What it has sent arrives; a peer may wait for it for ever.
        let until = self.kernel.now + ARRIVES;
        while let Some(at) = self.kernel.next_due().filter(|at| *at <= until) {
            self.kernel.now = self.kernel.now.max(at);
            self.settle();
        }
        if drained { Ok(()) } else { Err("the worker stopped".into()) }
    }

    /// The worker has done everything that is due.
    pub fn check_links(&self) {
        let Some(plan) = &self.script.plain else { return };
        let open = |sock: Id| !self.kernel.socks[sock].closed;
        // The upstream of a WebSocket is waited for.
        let relayed = |server: &Server| server.served.iter().any(|served| served.answer(plan).0.kind == Kind::Upgrade);
        let counts = |link: &Link| open(link.sock) && !self.plain_server_of(link.sock).is_some_and(relayed);
        let links = self.plain.links.iter().filter(|link| counts(link)).count();
        let ends = self.plain.clients.iter().filter_map(|client| self.kernel.socks[client.line.sock].peer);
        let clients = ends.filter(|end| open(*end)).count();
        let kept = if self.headed { 0 } else { plan.kept * plan.endpoints };
        assert!(links <= clients + kept, "{links} connections to servers, of {clients} clients and {kept} kept");
    }

    /// The worker sends something: a request must not go where something has come that belongs to
    /// none, nor over a connection that is kept for too long.
    pub fn check_reuse(&self, id: Id, bytes: &[u8]) {
        let Some((server, plan)) = self.plain_server_of(id).zip(self.script.plain.as_ref()) else { return };
        let Some(link) = self.plain.links.iter().find(|link| link.sock == id) else { return };
        if server.line.seal.is_none() && !server.served.is_empty() && is_request(bytes) {
            let Server { index, .. } = server;
            assert!(link.silent, "a request goes to server {index} that was not looked at, or has spoken");
            let (idle, age) = (self.worker_now - link.read_ms, link.read_ms - link.opened_ms);
            assert!(idle <= plan.idle_ms + SWEEP_MS, "server {index} gets a request after {idle} ms");
            assert!(age < plan.age_ms, "the connection to server {index} was {age} ms old, and was kept");
            let told = self.plain.changed.told_ms(Change::Reload);
            let new = told.is_none_or(|told| link.opened_ms >= told || self.worker_now <= told);
            assert!(new, "the connection to server {index} was made before the reload at {told:?} ms");
            let down = self.plain.changed.told_ms(Change::Down).filter(|_| server.endpoint == 0);
            assert!(down.is_none_or(|down| self.worker_now <= down), "server {index} is down since {down:?} ms");
        }
    }

    /// The worker has looked whether anything has come, or has read something.
    pub fn note_look(&mut self, id: Id, got: Sys<usize>) {
        self.plain.read_last = self.script.plain.as_ref().map(|_| id);
        let now = self.worker_now;
        if let Some(link) = self.plain.links.iter_mut().find(|link| link.sock == id) {
            link.silent = got == Err(libc::EAGAIN);
            link.read_ms = if link.silent { link.read_ms } else { now };
        }
    }
}
