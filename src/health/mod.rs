//! Active health checks: a thread that checks endpoints and reports the results to their
//! [`crate::policy::health::Health`], which is all that sessions read. One poll for all checks: an
//! endpoint that stalls costs a descriptor until its timeout, and no thread.
//!
//! `schedule.rs` knows which endpoint is checked when, `connection.rs` is the connection of one
//! check, `probe.rs` the exchange on it, `failure.rs` why it failed, `counts.rs` the counters. This
//! file is the loop, and [`Checks`], by which control reaches it.
//!
//! Limits: [`crate::config::Snapshot::checks_max`] connections at a time. Above that, checks begin
//! late.

mod connection;
mod counts;
mod failure;
mod probe;
mod schedule;

use crate::config::Snapshot;
use crate::metrics::UpstreamHealth;
use crate::policy::endpoint::{Endpoint, Target};
use crate::policy::health::State;
use crate::policy::upstream::Upstream;
use crate::proto::Millis;
use crate::tls::TlsConfigs;
pub use connection::Connect;
use connection::{Connection, Opening, Scratch, Turn};
use counts::{Counts, add_one};
use failure::{Failure, is_exhaustion};
use probe::{Outcome, Seed};
use schedule::{Key, Schedule, Watched};
use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

/// The members of the upstreams are read again after this time: discovery may have changed them.
const REFRESH_MS: u64 = 1_000;
/// A check that could not begin for lack of descriptors is tried again after this time.
const SKIP_MS: u64 = 1_000;
const WAKER: mio::Token = mio::Token(usize::MAX);
/// Events of one poll.
const EVENTS_MAX: usize = 1_024;

/// What the thread checks from now on. `None` ends it.
type Command = Option<Settings>;

#[derive(Debug, Clone, Default)]
struct Settings {
    watched: Vec<Watched>,
    tls: Arc<TlsConfigs>,
    /// Connections at a time.
    in_progress_max: usize,
}

/// Control's end: says what is checked, and reads the counts. Dropping it ends the thread.
#[derive(Debug)]
pub struct Checks {
    commands: Sender<Command>,
    waker: mio::Waker,
    in_progress: Arc<AtomicUsize>,
    /// By the name of the upstream; they outlive a snapshot.
    counts: Vec<(String, Arc<Counts>)>,
}

/// The thread's end.
#[derive(Debug)]
pub struct Inbox {
    commands: Receiver<Command>,
    /// The last command, for a thread that starts again after a panic.
    settings: Settings,
    poll: mio::Poll,
    in_progress: Arc<AtomicUsize>,
}

/// What the thread needs of the machine.
pub struct Environment {
    /// The clock of the process.
    pub now: fn() -> Millis,
    pub connect: Box<Connect>,
    /// Fills a slice with random bytes that cannot be predicted.
    pub random: Box<RandomBytes>,
}

pub type RandomBytes = dyn FnMut(&mut [u8]) + Send;

/// The two ends. The thread is started by `server.rs`.
pub fn open() -> io::Result<(Checks, Inbox)> {
    let poll = mio::Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), WAKER)?;
    let (sender, commands) = channel();
    let in_progress = Arc::<AtomicUsize>::default();
    let inbox = Inbox { commands, settings: Settings::default(), poll, in_progress: Arc::clone(&in_progress) };
    Ok((Checks { commands: sender, waker, in_progress, counts: Vec::new() }, inbox))
}

impl Checks {
    /// Checks the endpoints of this snapshot from now on, with its configuration of TLS. `nofile`
    /// is RLIMIT_NOFILE.
    pub fn set(&mut self, snapshot: &Snapshot, tls: Arc<TlsConfigs>, nofile: u64) {
        let mut before = std::mem::take(&mut self.counts);
        let mut watched = Vec::new();
        for upstream in &snapshot.upstreams {
            let Some(check) = &upstream.check else { continue };
            let known = before.iter().position(|(name, _)| *name == upstream.name);
            let (name, counts) =
                known.map_or_else(|| (upstream.name.clone(), Arc::default()), |at| before.swap_remove(at));
            let (check, upstream) = (Arc::new(check.clone()), Arc::clone(upstream));
            watched.push(Watched { upstream, check, counts: Arc::clone(&counts) });
            self.counts.push((name, counts));
        }
        self.send(Some(Settings { watched, tls, in_progress_max: snapshot.checks_max(nofile) }));
    }

    /// Connections of checks that are open now.
    pub fn in_progress(&self) -> usize {
        self.in_progress.load(Relaxed)
    }

    /// Counts and endpoints of an upstream for the metrics.
    pub fn report(&self, upstream: &Upstream) -> UpstreamHealth {
        let states: Vec<_> = upstream.endpoints().iter().map(|endpoint| endpoint.health.state()).collect();
        let in_state = |state| states.iter().filter(|other| **other == state).count() as u64;
        let counts = self.counts.iter().find(|(name, _)| *name == upstream.name).map(|(_, counts)| counts);
        UpstreamHealth {
            upstream: upstream.name.clone(),
            checks: counts.map(|counts| counts.checks()),
            changes: counts.map(|counts| counts.changes()),
            endpoints: State::ALL.map(|state| (state.name(), in_state(state))).to_vec(),
        }
    }

    fn send(&self, command: Command) {
        // Ignored: if the thread has ended, the process is about to.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.send(None);
    }
}

/// The body of the thread. Runs until [`Checks`] is dropped; after an error or a panic it can run
/// again, and begins the schedule anew.
pub fn run(inbox: &mut Inbox, environment: &mut Environment) -> io::Result<()> {
    let now = (environment.now)();
    let mut schedule = Schedule::default();
    schedule.set(inbox.settings.watched.clone(), now, &mut number(&mut environment.random));
    let checker = Checker {
        inbox,
        environment,
        schedule,
        checks: Slab::new(),
        expiries: BinaryHeap::new(),
        serial: 0,
        refresh_at: 0,
        scratch: Scratch::default(),
    };
    checker.run()
}

struct Checker<'a> {
    inbox: &'a mut Inbox,
    environment: &'a mut Environment,
    schedule: Schedule,
    checks: Slab<Check>,
    /// When checks time out: index and serial number. Entries of checks that have ended before are
    /// ignored.
    expiries: BinaryHeap<Reverse<(Millis, usize, u64)>>,
    /// Of the last check.
    serial: u64,
    refresh_at: Millis,
    scratch: Scratch,
}

/// A connection under way.
struct Check {
    connection: Connection,
    key: Key,
    serial: u64,
}

impl Checker<'_> {
    fn run(mut self) -> io::Result<()> {
        let mut events = mio::Events::with_capacity(EVENTS_MAX);
        loop {
            match self.inbox.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = (self.environment.now)();
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.on_ready(event.token().0, now);
            }
            // Checks begin after the events: an index that one of them names is not used again
            // before.
            if !self.receive(now) {
                return Ok(());
            }
            self.expire(now);
            self.refresh(now);
            self.begin_due(now);
            self.inbox.in_progress.store(self.checks.len(), Relaxed);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let starts = self.schedule.next_at().filter(|_| self.checks.len() < self.inbox.settings.in_progress_max);
        let expiry = self.expiries.peek().map(|Reverse((at, ..))| *at);
        let refresh = (!self.schedule.is_empty()).then_some(self.refresh_at);
        let next = [starts, expiry, refresh].into_iter().flatten().min()?;
        Some(Duration::from_millis(next.saturating_sub((self.environment.now)())))
    }

    /// Applies the last command. `false` ends the thread.
    fn receive(&mut self, now: Millis) -> bool {
        let mut last = None;
        loop {
            match self.inbox.commands.try_recv() {
                Ok(Some(command)) => last = Some(command),
                Ok(None) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => break,
            }
        }
        if let Some(settings) = last {
            let watched = settings.watched.clone();
            self.inbox.settings = settings;
            self.schedule.set(watched, now, &mut number(&mut self.environment.random));
        }
        true
    }

    fn refresh(&mut self, now: Millis) {
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH_MS;
            self.schedule.refresh(now, &mut number(&mut self.environment.random));
        }
    }

    fn on_ready(&mut self, index: usize, now: Millis) {
        let Some(check) = self.checks.get_mut(index) else { return };
        let (key, Turn { outcome, over }) = (check.key, check.connection.on_ready(&mut self.scratch));
        if over {
            self.checks.remove(index);
        }
        if let Some(outcome) = outcome {
            self.conclude(key, outcome, now);
        }
    }

    /// Ends the checks whose time is over.
    fn expire(&mut self, now: Millis) {
        while let Some(Reverse((at, index, serial))) = self.expiries.peek().copied() {
            if at > now {
                return;
            }
            self.expiries.pop();
            if self.checks.get(index).is_none_or(|check| check.serial != serial) {
                continue;
            }
            let check = self.checks.remove(index);
            if !check.connection.is_reported() {
                self.conclude(check.key, Err(Failure::Timeout(check.connection.step())), now);
            }
        }
    }

    fn begin_due(&mut self, now: Millis) {
        while self.checks.len() < self.inbox.settings.in_progress_max {
            let Some(key) = self.schedule.pop_due(now) else { return };
            self.begin(key, now);
        }
    }

    fn begin(&mut self, key: Key, now: Millis) {
        let seed = self.seed();
        let Some(subject) = self.schedule.get(key) else { return };
        if subject.address == 0 {
            subject.began = now;
        }
        let (check, endpoint) = (Arc::clone(&subject.watched.check), Arc::clone(&subject.endpoint));
        let tls =
            endpoint.tls.then(|| self.inbox.settings.tls.connect(&subject.watched.upstream, &endpoint)).transpose();
        let (target, expires) = (check.target(&endpoint, subject.address), now + check.timeout_ms);
        let source = target.as_ref().and_then(|target| source_for(target, &subject.watched.upstream.rules.bind));
        let opened = match (target, tls) {
            (None, _) => Err(Failure::NoAddress),
            (_, Err(failure)) => Err(Failure::Tls(failure)),
            (Some(target), Ok(tls)) => {
                let entry = self.checks.vacant_entry();
                let token = mio::Token(entry.key());
                let (connect, registry) = (&*self.environment.connect, self.inbox.poll.registry());
                // What listens on a port of its own for checks is not what sessions connect to.
                let header = subject.watched.upstream.rules.proxy_protocol.filter(|_| check.port.is_none());
                let opening = Opening { connect, source, registry, token, check, endpoint, header, tls, seed };
                match Connection::open(&target, opening) {
                    Ok(connection) => {
                        self.serial += 1;
                        self.expiries.push(Reverse((expires, entry.key(), self.serial)));
                        entry.insert(Check { connection, key, serial: self.serial });
                        return;
                    }
                    Err(error) if is_exhaustion(&error) => return self.skip(key, &error, now),
                    Err(error) => Err(Failure::of_connect(&error)),
                }
            }
        };
        self.conclude(key, opened, now);
    }

    /// A check that this machine could not carry out: it says nothing of the endpoint.
    fn skip(&mut self, key: Key, error: &io::Error, now: Millis) {
        let Some(subject) = self.schedule.get(key) else { return };
        add_one(&subject.watched.counts.skipped);
        ::log::debug!("cannot check {}: {error}", subject.endpoint.url);
        self.schedule.begin_at(key, now + SKIP_MS);
    }

    /// A result. Goes on with the next address of a name where a session would, else reports it.
    fn conclude(&mut self, key: Key, outcome: Outcome, now: Millis) {
        let random = number(&mut self.environment.random)();
        let Some(subject) = self.schedule.get(key) else { return };
        let (check, endpoint) = (Arc::clone(&subject.watched.check), &subject.endpoint);
        let another = check.target(endpoint, subject.address + 1).is_some();
        if another && outcome.as_ref().is_err_and(Failure::is_of_connecting) {
            subject.address += 1;
            return self.schedule.begin_at(key, now);
        }
        subject.address = 0;
        report(&subject.watched, endpoint, &outcome, now);
        let next = subject.began + check.interval_ms(random);
        self.schedule.begin_at(key, next.max(now));
    }

    fn seed(&mut self) -> Seed {
        let mut seed = Seed { key: [0; 16], ping: [0; 8], masks: [[0; 4]; 2] };
        let random = &mut self.environment.random;
        random(&mut seed.key);
        random(&mut seed.ping);
        seed.masks.iter_mut().for_each(|mask| random(mask));
        seed
    }
}

/// The first of the upstream's source addresses that fits. One is enough: checks are few.
fn source_for(target: &Target, bind: &[IpAddr]) -> Option<IpAddr> {
    let Target::Tcp(target) = target else { return None };
    bind.iter().find(|source| source.is_ipv4() == target.is_ipv4()).copied()
}

/// Counts a result, and logs a change of the endpoint's state.
fn report(watched: &Watched, endpoint: &Endpoint, outcome: &Outcome, now: Millis) {
    let (counts, name, url) = (&watched.counts, &watched.upstream.name, &endpoint.url);
    add_one(if outcome.is_ok() { &counts.passed } else { &counts.failed });
    let change = endpoint.health.on_check(outcome.is_ok(), watched.check.thresholds, now);
    match (change, outcome) {
        (Some(true), _) => {
            add_one(&counts.ups);
            ::log::info!("upstream {name}: {url} is up");
        }
        (Some(false), Err(failure)) => {
            add_one(&counts.downs);
            ::log::warn!("upstream {name}: {url} is down: {failure}");
        }
        (_, Err(failure)) => ::log::debug!("upstream {name}: a check of {url} failed: {failure}"),
        _ => {}
    }
}

/// A source of numbers from a source of bytes.
fn number(random: &mut RandomBytes) -> impl FnMut() -> u32 {
    move || {
        let mut bytes = [0; 4];
        random(&mut bytes);
        u32::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests;
