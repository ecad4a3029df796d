//! What a turn uses beside its pair: the system, the buffers, the time, and what outlives the
//! worker.

use super::buffers::Pool;
use super::calls::Calls;
use super::closings::Closings;
use super::conn::Input;
use super::files::Asked;
use super::handshakes::Handshakes;
use super::idle::IdleClients;
use super::inbox::{Added, Inbox, Peers};
use super::lend::Io;
use super::links::Links;
use super::listener::Listening;
use super::service::Services;
use super::shadow::Shadows;
use super::stalls::Stalls;
use super::sys::Sys;
use super::token::SlotKey;
use super::waiting::Waiting;
use crate::config::Snapshot;
use crate::log::Ring;
use crate::log::record::{EndRecord, Record};
use crate::metrics::{Shard, Tally};
use crate::policy::auth::Refreshing;
use crate::policy::limit::Permits;
use crate::proto::end::{Cause, End, Phase};
use crate::proto::{Millis, Sides};
use crate::tls::{Buffer, TlsConfigs};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// What outlives a worker that unwinds: its sockets' poll, its listeners with their queues, its
/// inbox, its counts.
pub struct WorkerCore<S: Sys> {
    pub sys: S,
    pub listeners: Vec<Listening<S::Listener>>,
    pub inbox: Inbox<S::Listener>,
    pub snapshot: Arc<Snapshot>,
    /// The TLS configurations of the same snapshot.
    pub tls: Arc<TlsConfigs>,
    /// Permits for admitted sessions, of the whole process.
    pub sessions: Arc<Permits>,
    /// Permits for connections that are not admitted yet.
    pub handshakes: Arc<Permits>,
    /// The service threads that policy may ask.
    pub services: Services,
    pub tally: Tally,
    pub shard: Arc<Shard>,
    pub log: Ring,
    /// The wall clock, in milliseconds since the Unix epoch, when the monotonic clock was zero.
    pub unix_ms: u64,
    /// The generation of the slot filled last: events of a worker that unwound are not taken for
    /// those of its successor.
    pub generation: u32,
    /// Workers of the process: each has its share of the buffers.
    pub workers: usize,
    /// A drain has begun: no new session is admitted.
    pub draining: bool,
    pub peers: Peers,
}

impl<S: Sys> WorkerCore<S> {
    /// The listeners of a new snapshot.
    pub(super) fn swap_listeners(&mut self, added: Vec<Added<S::Listener>>, removed: &[SocketAddr]) {
        for listening in &mut self.listeners {
            if removed.contains(&listening.addr()) {
                listening.end();
            } else {
                listening.reload(&self.snapshot, &self.tls);
            }
        }
        for Added { addr, listener } in added {
            let Some(mut listening) = Listening::new(addr, listener, &self.snapshot, &self.tls) else { continue };
            // If registering fails for want of memory, its queue is still looked at, tick by tick.
            listening.polled = listening.register(&mut self.sys).is_err();
            self.listeners.push(listening);
        }
    }
}

/// The working side of a worker.
pub(super) struct Resources<'h, S: Sys> {
    pub core: &'h mut WorkerCore<S>,
    /// What one read brings. Taken out while its slices are walked, and put back.
    pub input: Option<Box<Input>>,
    /// What a session authored for the slice under way; empty between two.
    pub authored: Vec<u8>,
    /// What TLS has encrypted for one send; empty between two.
    pub sealed: Buffer,
    /// TLS handshake steps that the pair's turn allows; none while messages are served.
    pub handshake_steps: usize,
    /// Those that wait for their turn.
    pub handshakes: Handshakes,
    pub pool: Pool,
    pub stalls: Stalls,
    /// Sessions that wait for room at their upstream.
    pub waiting: Waiting,
    pub calls: Calls<S::Sock>,
    /// What is asked of files.
    pub asked: Asked,
    pub shadows: Shadows<S::Sock>,
    /// Clients between two plain requests.
    pub idle: IdleClients,
    /// Connections to endpoints that carry plain requests.
    pub links: Links<S::Sock>,
    /// What shadows have not taken yet: nothing of it is taken from the buffers of sessions.
    pub shadow_pool: Pool,
    /// Sessions that are to be closed at moments of their own.
    pub closings: Closings,
    /// Sessions that have sent new credentials, and the calls that ask about those.
    pub refreshes: BTreeMap<SlotKey, Refreshing>,
    pub refresh_calls: BTreeMap<SlotKey, SlotKey>,
    /// Read once per poll return.
    pub now: Millis,
}

impl<'h, S: Sys> Resources<'h, S> {
    pub fn new(core: &'h mut WorkerCore<S>) -> Resources<'h, S> {
        let (now, unix_ms) = (core.sys.now(), core.unix_ms);
        let mut secret = [0; 16];
        core.sys.random(&mut secret);
        // Events for links of a worker that unwound are not taken for those of this one.
        let generation = core.generation;
        let (limits, workers) = (&core.snapshot.limits, core.workers.max(1));
        let (shadow_bytes, shadows_max) = (limits.shadow_buffer_bytes / workers, limits.max_shadows.div_ceil(workers));
        Resources {
            pool: Pool::new(limits.buffer_bytes / workers),
            handshakes: Handshakes::new(&core.snapshot.shield, workers, u128::from_ne_bytes(secret)),
            waiting: Waiting::new(core.peers.clone()),
            core,
            input: Some(Box::default()),
            authored: Vec::new(),
            sealed: Buffer::default(),
            handshake_steps: 0,
            stalls: Stalls::default(),
            calls: Calls::new(now, unix_ms),
            asked: Asked::default(),
            shadows: Shadows::new(shadows_max, now),
            idle: IdleClients::default(),
            links: Links::new(generation, now),
            shadow_pool: Pool::new(shadow_bytes),
            closings: Closings::default(),
            refreshes: BTreeMap::new(),
            refresh_calls: BTreeMap::new(),
            now,
        }
    }

    /// The limits of a new snapshot.
    pub fn reload(&mut self) {
        let (limits, workers) = (&self.core.snapshot.limits, self.core.workers.max(1));
        self.pool.set_max(limits.buffer_bytes / workers);
        self.shadow_pool.set_max(limits.shadow_buffer_bytes / workers);
        self.shadows.set_max(limits.max_shadows.div_ceil(workers));
        self.handshakes.reload(&self.core.snapshot.shield, workers);
        let (links, mut io) = self.links();
        links.drop_all(&mut io);
    }

    #[inline(always)]
    pub fn io(&mut self) -> Io<'_, S> {
        Io { sys: &mut self.core.sys, sealed: &mut self.sealed, pool: &mut self.pool, now: self.now }
    }

    /// The calls, and what they need to move bytes.
    pub fn calls(&mut self) -> (&mut Calls<S::Sock>, Io<'_, S>) {
        let io = Io { sys: &mut self.core.sys, sealed: &mut self.sealed, pool: &mut self.pool, now: self.now };
        (&mut self.calls, io)
    }

    /// The shadows, and what they need to move bytes.
    pub fn shadows(&mut self) -> (&mut Shadows<S::Sock>, Io<'_, S>) {
        let (sys, sealed) = (&mut self.core.sys, &mut self.sealed);
        (&mut self.shadows, Io { sys, sealed, pool: &mut self.shadow_pool, now: self.now })
    }

    /// The links, and what they need to close.
    pub fn links(&mut self) -> (&mut Links<S::Sock>, Io<'_, S>) {
        let (core, sealed, pool) = (&mut *self.core, &mut self.sealed, &mut self.pool);
        (&mut self.links, Io { sys: &mut core.sys, sealed, pool, now: self.now })
    }

    /// Whatever can be done for shadows now.
    #[cold]
    pub fn run_shadows(&mut self) {
        let Some(mut input) = self.input.take() else { return };
        let (shadows, mut io) = self.shadows();
        shadows.run(&mut input, &mut io);
        self.input = Some(input);
    }

    /// The worker goes.
    pub fn stop_shadows(&mut self) {
        let (shadows, mut io) = self.shadows();
        shadows.stop(&mut io);
        self.count_shadows();
    }

    pub fn count_shadows(&mut self) {
        self.shadows.count_into(&mut self.core.tally, self.shadow_pool.used_bytes());
    }

    /// A peer that may not connect for this cause: closed before any byte, counted and logged.
    #[cold]
    pub fn refuse_peer(&mut self, sock: S::Sock, peer: SocketAddr, cause: Cause) {
        let end = End { party: cause.party_at_fault(), phase: Phase::Request, cause };
        // Nothing was sent that could be lost, and a reset leaves nothing behind in the kernel.
        self.core.sys.abort(sock);
        self.core.tally.accepted();
        self.core.tally.ended(end);
        if cause == Cause::AddressBlocked {
            // Its failures have their lines; who goes on must not fill the log.
            return;
        }
        let record = EndRecord {
            info: None,
            peer,
            at_unix_ms: self.unix_now(),
            end,
            endpoint: None,
            status: 0,
            close_codes: Sides::default(),
            age_ms: 0,
            frames: Sides::default(),
            bytes: Sides::default(),
        };
        self.log(Record::End(record));
    }

    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.core.sys.random(&mut bytes);
        bytes
    }

    pub fn unix_now(&self) -> u64 {
        self.core.unix_ms + self.now
    }

    /// Hands a record to the access log.
    pub fn log(&mut self, record: Record) {
        // A full ring loses the line, and the ring counts it.
        if !self.core.log.push(record) {
            self.core.tally.log_lost = self.core.log.lost();
        }
    }
}
