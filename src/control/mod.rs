//! The control thread: signals, admin requests, reload, drain. Sends commands to the workers
//! through their inboxes and reads their shards. Never on the data path; starts no thread
//! (`server.rs` does).
//!
//! This file is the loop. `state.rs` holds what the loop works on, `respond.rs` answers admin
//! requests, `reload.rs` replaces the snapshot, `drain.rs` ends the process.

mod deny_files;
mod drain;
mod endpoints;
mod reload;
mod respond;
mod state;
mod watch;

pub use state::{Addresses, Control, Demo, Parts};

use crate::admin::Admin;
use crate::certs;
use crate::discovery::Sources;
use crate::health::Checks;
use crate::metrics::Shard;
use crate::resolver::Resolve;
use crate::service::Asker;
use crate::worker::inbox::Outbox;
use crate::worker::listener::Twin;
use crate::worker::sys::now_ms;
use state::{ADMIN, RELOAD, STOP, Workers};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end waits until other hosts know that this one has no sessions any more.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

impl Control {
    /// Runs until all workers have ended.
    pub fn run(
        mut self,
        outboxes: Vec<Outbox<Twin>>,
        shards: Vec<Arc<Shard>>,
        resolver: Asker<Resolve>,
        checks: Checks,
    ) -> io::Result<()> {
        let mut workers = Workers { outboxes, shards, resolver, checks };
        self.announce(workers.shards.len());
        let (mut running, mut events) = (workers.shards.len(), mio::Events::with_capacity(128));
        while running > 0 {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                self.on_event(event.token().0, &mut workers);
            }
            self.on_tick(&workers);
            running -= self.ended_workers.try_iter().count();
        }
        if let Some(sharing) = &self.sharing {
            sharing.leave(LEAVE_PATIENCE);
        }
        Ok(())
    }

    fn announce(&self, workers: usize) {
        for (_, addr) in &self.parts.listening {
            ::log::info!("listening on {addr}");
        }
        if let Some(addr) = self.admin_addr() {
            ::log::info!("admin on http://{addr}");
        }
        let (sessions, nofile) = (self.parts.sessions.max(), self.parts.nofile);
        ::log::info!("{workers} workers, at most {sessions} sessions, {nofile} file descriptors");
        if let Some(demo) = &self.parts.demo {
            // To standard error: standard output has the access log.
            eprintln!("{}", (demo.announcement)(&self.addresses()));
        }
        certs::unverified(&self.snapshot).iter().for_each(|warning| ::log::warn!("{warning}"));
        ::log::info!("ready");
    }

    fn timeout(&self) -> Option<Duration> {
        let admin = self.admin.as_ref().and_then(Admin::deadline);
        let admin = admin.map(|at| at.saturating_duration_since(Instant::now()));
        let drain = self.drain.deadline().map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
        let certs = self.parts.certificates.deadline().map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
        let denied = self.deny_files.deadline().map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
        let endpoints = Some(Duration::from_millis(self.endpoints.deadline().saturating_sub(now_ms())));
        let lists = self.sources.as_ref().and_then(Sources::deadline);
        let lists = lists.map(|at| at.saturating_duration_since(Instant::now()));
        [admin, drain, certs, denied, endpoints, lists].into_iter().flatten().min()
    }

    fn on_event(&mut self, token: usize, workers: &mut Workers) {
        match token {
            STOP => (0..count_signals(&self.signals.stop)).for_each(|_| self.on_stop_signal(workers)),
            RELOAD if count_signals(&self.signals.reload) > 0 => {
                // Ignored: the error has been logged, and there is no response to write it to.
                let _ = self.reload(workers);
            }
            token if token >= ADMIN => {
                let Some(mut admin) = self.admin.take() else { return };
                admin.on_event(token, &mut |request| self.respond(request, workers));
                self.admin = Some(admin);
            }
            _ => {}
        }
    }

    fn on_tick(&mut self, workers: &Workers) {
        if let Some(admin) = &mut self.admin {
            admin.on_tick(Instant::now());
        }
        self.parts.certificates.on_tick(now_ms());
        self.deny_files.on_tick(now_ms());
        if let Some(sources) = &mut self.sources {
            sources.on_tick(Instant::now());
        }
        self.check_drain_deadline(workers);
        self.check_endpoints(workers);
    }
}

/// Reads the stream empty; each byte is a signal.
fn count_signals(mut stream: &UnixStream) -> usize {
    let (mut total, mut buf) = (0, [0; 64]);
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        total += n;
    }
    total
}
