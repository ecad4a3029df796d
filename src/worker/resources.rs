//! What a turn of a pair needs beside the pair: the system, the buffers, the time, and what outlives the worker.

use super::buffers::{Pool, SCRATCH_BYTES};
use super::inbox::{Directory, Inbox};
use super::listener::Listening;
use super::permits::Permits;
use super::sys::Sys;
use crate::config::Snapshot;
use crate::log::Ring;
use crate::metrics::{Shard, Tally};
use crate::proto::Millis;
use crate::tls::{Buffer, TlsConfigs};
use std::sync::Arc;

/// What outlives a worker that unwinds: its sockets' poll, its listeners with their queues, its way in, its counts.
pub struct WorkerCore<S: Sys> {
    pub sys: S,
    pub listeners: Vec<Listening<S::Listener>>,
    pub inbox: Inbox<S::Listener>,
    pub snapshot: Arc<Snapshot>,
    /// What TLS is made of, of the same snapshot.
    pub tls: Arc<TlsConfigs>,
    pub directory: Arc<Directory>,
    /// Permits for admitted sessions, of the whole process.
    pub sessions: Arc<Permits>,
    /// Permits for connections that are not admitted yet.
    pub handshakes: Arc<Permits>,
    pub tally: Tally,
    pub shard: Arc<Shard>,
    pub log: Ring,
    /// The wall clock, in milliseconds since the Unix epoch, when the monotonic one stood at zero.
    pub unix_ms: u64,
    /// Of the slot filled last, so that no event for one worker's slot is taken for its successor's.
    pub generation: u32,
    /// Workers of the process: each has its share of the buffers.
    pub workers: usize,
    /// Drain has begun: nobody new is admitted.
    pub draining: bool,
}

/// The working side of a worker.
pub(super) struct Resources<'h, S: Sys> {
    pub core: &'h mut WorkerCore<S>,
    pub scratch: Box<[u8]>,
    /// What TLS has opened of one read; empty between two.
    pub plain: Vec<u8>,
    /// What TLS has sealed for one send; empty between two.
    pub sealed: Buffer,
    /// Handshake steps that are still allowed in this pass; none while messages are served.
    pub shakes: usize,
    pub pool: Pool,
    /// Read once a poll return.
    pub now: Millis,
    /// Where round robin stands, by group.
    pub cursors: Vec<usize>,
}

impl<'h, S: Sys> Resources<'h, S> {
    pub fn new(core: &'h mut WorkerCore<S>) -> Resources<'h, S> {
        let now = core.sys.now();
        let pool = Pool::new(core.snapshot.limits.buffer_bytes / core.workers.max(1));
        let (scratch, cursors) = (vec![0; SCRATCH_BYTES].into(), Vec::new());
        let (plain, sealed) = (Vec::new(), Buffer::default());
        let mut res = Resources { core, scratch, plain, sealed, shakes: 0, pool, now, cursors };
        res.reset_cursors();
        res
    }

    /// Every worker begins somewhere else, so that they do not all begin with the first endpoint.
    pub fn reset_cursors(&mut self) {
        let groups = self.core.snapshot.groups.len();
        self.cursors = (0..groups).map(|_| self.random::<2>()).map(|r| usize::from(u16::from_ne_bytes(r))).collect();
    }

    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.core.sys.random(&mut bytes);
        bytes
    }

    pub fn unix_now(&self) -> u64 {
        self.core.unix_ms + self.now
    }
}
