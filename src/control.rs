//! The control thread: signals, the admin listener, reload, drain. Tells workers through their inboxes, reads their
//! shards. Never on the data path; starts no thread (that is `server.rs`).

pub mod secure;

use crate::admin::{self, Admin, Ask, Reply};
use crate::cli::Source;
use crate::config::Snapshot;
use crate::log;
use crate::metrics::{self, Process, Shard};
use crate::os::{self, Signals};
use crate::proto::Millis;
use crate::resolver;
use crate::worker::inbox::{Command, Directory, Outbox};
use crate::worker::listener::{Bound, Twin, bind_all};
use crate::worker::permits::Permits;
use crate::worker::sys::clock_us;
use mio::unix::SourceFd;
use secure::Secure;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const WAKER: usize = 0;
const STOP: usize = 1;
const RELOAD: usize = 2;
const ADMIN: usize = 3;

/// What control is given at the start.
pub struct Parts {
    /// What a reload reads again; `None` where there is nothing to.
    pub source: Option<Source>,
    /// The admin listener shows the demo's page.
    pub demo: bool,
    pub nofile: u64,
    pub sessions: Arc<Permits>,
    pub handshakes: Arc<Permits>,
    /// Workers started again after a panic.
    pub restarts: Arc<AtomicU64>,
    pub log: log::Control,
    pub secure: Secure,
    pub started_unix_ms: u64,
    /// Addresses as configured and as bound.
    pub listening: Vec<(SocketAddr, SocketAddr)>,
}

pub struct Control {
    parts: Parts,
    snapshot: Arc<Snapshot>,
    poll: mio::Poll,
    waker: Arc<mio::Waker>,
    signals: Signals,
    admin: Option<Admin>,
    /// Workers that have ended.
    noticed: Receiver<usize>,
    directories: (Sender<Arc<Directory>>, Receiver<Arc<Directory>>),
    reloads_ok: u64,
    reloads_refused: u64,
    /// When the drain that has begun ends.
    drain_until: Option<Millis>,
    stopping: bool,
}

/// The workers, as control sees them.
struct Crew<'a> {
    outboxes: Vec<Outbox<Twin>>,
    shards: Vec<Arc<Shard>>,
    names: &'a Sender<BTreeSet<String>>,
}

impl Crew<'_> {
    fn tell(&self, command: impl Fn() -> Command<Twin>) {
        self.outboxes.iter().for_each(|outbox| outbox.send(command()));
    }
}

impl Control {
    pub fn new(
        parts: Parts,
        snapshot: Arc<Snapshot>,
        (admin, signals): (Option<TcpListener>, Signals),
        noticed: Receiver<usize>,
    ) -> io::Result<Control> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(WAKER))?);
        for (stream, token) in [(&signals.stop, STOP), (&signals.reload, RELOAD)] {
            let mut source = SourceFd(&stream.as_raw_fd());
            poll.registry().register(&mut source, mio::Token(token), mio::Interest::READABLE)?;
        }
        let start = |listener: TcpListener| {
            listener.set_nonblocking(true)?;
            Admin::new(listener, poll.registry(), ADMIN)
        };
        let admin = admin.map(start).transpose()?;
        Ok(Control {
            parts,
            snapshot,
            poll,
            waker,
            signals,
            admin,
            noticed,
            directories: channel(),
            reloads_ok: 0,
            reloads_refused: 0,
            drain_until: None,
            stopping: false,
        })
    }

    pub fn waker(&self) -> Arc<mio::Waker> {
        Arc::clone(&self.waker)
    }

    pub fn sessions(&self) -> Arc<Permits> {
        Arc::clone(&self.parts.sessions)
    }

    pub fn handshakes(&self) -> Arc<Permits> {
        Arc::clone(&self.parts.handshakes)
    }

    pub fn restarts(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.parts.restarts)
    }

    /// Where the resolver puts what it finds.
    pub fn directory_sink(&self) -> impl Fn(Arc<Directory>) + Send + 'static {
        let (sender, waker) = (self.directories.0.clone(), self.waker());
        move |directory| {
            // Both fail only when control has ended, and then nobody needs addresses.
            let _ended = sender.send(directory).map(|()| waker.wake());
        }
    }

    /// Runs until all workers have ended.
    pub fn run(
        mut self,
        outboxes: Vec<Outbox<Twin>>,
        shards: Vec<Arc<Shard>>,
        names: &Sender<BTreeSet<String>>,
    ) -> io::Result<()> {
        let mut crew = Crew { outboxes, shards, names };
        self.announce(crew.shards.len());
        let (mut left, mut events) = (crew.shards.len(), mio::Events::with_capacity(128));
        while left > 0 {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                self.on_event(event.token().0, &mut crew);
            }
            self.on_tick(&crew);
            left -= self.noticed.try_iter().count();
            if let Some(directory) = self.directories.1.try_iter().last() {
                crew.tell(|| Command::Resolved(Arc::clone(&directory)));
            }
        }
        Ok(())
    }

    fn announce(&self, workers: usize) {
        for (_, addr) in &self.parts.listening {
            ::log::info!("listening on {addr}");
        }
        if let Some(addr) = self.admin.as_ref().and_then(|admin| admin.local_addr().ok()) {
            ::log::info!("admin on http://{addr}");
        }
        let (sessions, nofile) = (self.parts.sessions.max(), self.parts.nofile);
        ::log::info!("{workers} workers, {nofile} files may be open: {sessions} sessions at a time");
        if self.parts.demo {
            self.announce_demo();
        }
        secure::unverified(&self.snapshot).iter().for_each(|warning| ::log::warn!("{warning}"));
        ::log::info!("ready");
    }

    fn announce_demo(&self) {
        let Some((_, proxy)) = self.parts.listening.first() else { return };
        let page = self.admin.as_ref().and_then(|admin| admin.local_addr().ok());
        // To standard error, for standard output has the access log. Nobody may be listening.
        eprintln!("\n  ws://{proxy}/ goes through framegate to a built-in echo backend. Try:\n");
        if let Some(page) = page {
            eprintln!("    a browser:   http://{page}/        (round trips, live)");
        }
        eprintln!("    python:      python3 -m websockets ws://{proxy}/");
        eprintln!("    node:        npx wscat -c ws://{proxy}/");
        if let Some(page) = page {
            eprintln!("    metrics:     curl http://{page}/metrics");
        }
        if let Some((addr, cert)) = self.demo_tls() {
            eprintln!("    TLS:         curl --cacert {cert} https://{addr}/");
            eprintln!("                 framegate-loadtest echo wss://{addr}/ --ca {cert}");
        }
        eprintln!("\n  One access line for each session's start and end follows. Ctrl-C stops it.\n");
    }

    /// Where the demo serves TLS, and the certificate that it made for it.
    fn demo_tls(&self) -> Option<(SocketAddr, String)> {
        let listener = self.snapshot.listeners.iter().find(|listener| listener.tls.is_some())?;
        let (_, addr) = self.parts.listening.iter().find(|(configured, _)| *configured == listener.addr)?;
        let cert = &listener.tls.as_ref()?.certificates.first()?.cert;
        Some((*addr, cert.display().to_string()))
    }

    fn timeout(&self) -> Option<Duration> {
        let admin = self.admin.as_ref().and_then(Admin::deadline);
        let admin = admin.map(|at| at.saturating_duration_since(Instant::now()));
        let drain = self.drain_until.filter(|_| !self.stopping);
        let drain = drain.map(|at| Duration::from_millis(at.saturating_sub(now())));
        let secure = self.parts.secure.deadline().map(|at| Duration::from_millis(at.saturating_sub(now())));
        [admin, drain, secure].into_iter().flatten().min()
    }

    fn on_event(&mut self, token: usize, crew: &mut Crew<'_>) {
        match token {
            STOP => (0..drain_bytes(&self.signals.stop)).for_each(|_| self.on_stop_signal(crew)),
            RELOAD if drain_bytes(&self.signals.reload) > 0 => {
                // What went wrong has been said on standard error.
                let _said = self.reload(crew);
            }
            token if token >= ADMIN => {
                let Some(mut admin) = self.admin.take() else { return };
                admin.on_event(token, &mut |ask| self.answer(ask, crew));
                self.admin = Some(admin);
            }
            _ => {}
        }
    }

    fn on_tick(&mut self, crew: &Crew<'_>) {
        if let Some(admin) = &mut self.admin {
            admin.on_tick(Instant::now());
        }
        self.parts.secure.on_tick(now());
        if self.drain_until.is_some_and(|at| at <= now()) && !self.stopping {
            ::log::warn!("the drain deadline has come: closing what is left");
            self.stop(crew);
        }
    }

    fn on_stop_signal(&mut self, crew: &Crew<'_>) {
        if self.drain_until.is_some() {
            ::log::warn!("a second signal: ending now");
            return self.stop(crew);
        }
        let drain = &self.snapshot.drain;
        ::log::info!("stopping: sessions are closed over {} ms", drain.spread_ms);
        self.drain_until = Some(now() + drain.deadline_ms);
        crew.tell(|| Command::Drain { spread_ms: drain.spread_ms });
    }

    fn stop(&mut self, crew: &Crew<'_>) {
        self.stopping = true;
        crew.tell(|| Command::Stop);
    }

    fn answer(&mut self, ask: Ask, crew: &mut Crew<'_>) -> Reply {
        match ask {
            Ask::Metrics => Reply {
                status: 200,
                content_type: metrics::CONTENT_TYPE,
                body: metrics::render(&crew.shards, &self.process()),
            },
            Ask::Healthz => Reply::text(200, "ok"),
            Ask::Readyz if self.drain_until.is_some() => Reply::text(503, "draining"),
            Ask::Readyz => Reply::text(200, "ready"),
            Ask::Page => self.page(),
            Ask::Reload => match self.reload(crew) {
                Ok(()) => Reply::text(200, "reloaded"),
                Err(why) => Reply::text(422, &why),
            },
            Ask::Panic { worker } => self.panic(worker, crew),
        }
    }

    fn page(&self) -> Reply {
        match self.parts.listening.first() {
            Some((_, proxy)) if self.parts.demo => Reply::html(admin::page(&format!("ws://{proxy}/"))),
            _ => Reply::text(200, "framegate: see /metrics, /healthz, /readyz; POST /reload"),
        }
    }

    fn panic(&self, worker: usize, crew: &Crew<'_>) -> Reply {
        if !self.snapshot.admin.as_ref().is_some_and(|admin| admin.fault_injection) {
            return Reply::text(403, "admin.fault_injection is off");
        }
        match crew.outboxes.get(worker) {
            Some(outbox) => {
                outbox.send(Command::Panic);
                Reply::text(200, "told to panic")
            }
            None => Reply::text(404, "no such worker"),
        }
    }

    fn process(&self) -> Process {
        Process {
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: self.parts.started_unix_ms,
            worker_restarts: self.parts.restarts.load(Ordering::Relaxed),
            reloads_ok: self.reloads_ok,
            reloads_refused: self.reloads_refused,
            log_errors: self.parts.log.errors(),
            log_lost: self.parts.log.unwritten(),
            draining: self.drain_until.is_some(),
            max_sessions: self.parts.sessions.max() as u64,
            max_handshakes: self.parts.handshakes.max() as u64,
            buffer_bytes_max: self.snapshot.limits.buffer_bytes as u64,
            certificates: self.parts.secure.days_left(),
        }
    }

    /// A whole new snapshot, or nothing changes and the sentence says why.
    fn reload(&mut self, crew: &Crew<'_>) -> Result<(), String> {
        match self.try_reload(crew) {
            Ok(()) => {
                self.reloads_ok += 1;
                ::log::info!("reloaded");
                Ok(())
            }
            Err(why) => {
                self.reloads_refused += 1;
                // A line for each sentence: diagnostics escape line ends.
                why.lines().for_each(|why| ::log::error!("not reloaded, nothing has changed: {why}"));
                Err(why)
            }
        }
    }

    fn try_reload(&mut self, crew: &Crew<'_>) -> Result<(), String> {
        let source = self.parts.source.as_ref().ok_or("there is no file to read")?;
        if self.drain_until.is_some() {
            return Err("the process is stopping".to_owned());
        }
        let next = source.load().map_err(|error| error.to_string())?;
        self.refuse_fixed(&next)?;
        if let Some(misfit) = next.misfits(self.parts.nofile, os::cpus()).into_iter().next() {
            return Err(misfit);
        }
        let tls = self.parts.secure.prepare(&next)?;
        // All that can fail comes first: reading keys, binding, opening the log. Then all changes, or none.
        let known = |addr: &SocketAddr| self.parts.listening.iter().any(|(configured, _)| configured == addr);
        let fresh: Vec<_> = next.listeners.iter().filter(|listener| !known(&listener.addr)).cloned().collect();
        let mut bound = bind_all(&fresh, crew.outboxes.len(), &next.sockets).map_err(|e| e.to_string())?;
        self.parts
            .log
            .set(&next.log.access, next.log.format)
            .map_err(|e| format!("cannot open the access log: {e}"))?;
        log::set_level(next.log.level);
        let gone = |addr: &SocketAddr| !next.listeners.iter().any(|listener| listener.addr == *addr);
        let removed: Vec<_> = self.parts.listening.iter().map(|(addr, _)| *addr).filter(gone).collect();
        self.parts.listening.retain(|(addr, _)| !removed.contains(addr));
        for bound in &bound {
            ::log::info!("listening on {}", bound.local);
            self.parts.listening.push((bound.addr, bound.local));
        }
        let limits = next.limits.resolve(self.parts.nofile);
        self.parts.sessions.set_max(limits.max_sessions);
        self.parts.handshakes.set_max(limits.max_handshakes);
        self.snapshot = Arc::new(next);
        self.parts.secure.swap(Arc::clone(&tls));
        secure::unverified(&self.snapshot).iter().for_each(|warning| ::log::warn!("{warning}"));
        self.resolve_first(crew);
        for outbox in &crew.outboxes {
            let twin = |bound: &mut Bound| Some((bound.addr, bound.twin()?));
            let added = bound.iter_mut().filter_map(twin).collect();
            let (snapshot, tls) = (Arc::clone(&self.snapshot), Arc::clone(&tls));
            outbox.send(Command::Swap { snapshot, tls, added, removed: removed.clone() });
        }
        Ok(())
    }

    /// New names are resolved before routes lead to them, or clients would be refused in between. Waits for as long as
    /// a start does.
    fn resolve_first(&self, crew: &Crew<'_>) {
        let names = resolver::names(&self.snapshot);
        let until = Instant::now() + resolver::FIRST_NAMES;
        // The resolver is there for as long as the process, and answers each new set.
        let _told = crew.names.send(names.clone());
        while let Ok(directory) = self.directories.1.recv_timeout(until.saturating_duration_since(Instant::now())) {
            crew.tell(|| Command::Resolved(Arc::clone(&directory)));
            if names.iter().all(|name| directory.contains_key(name)) {
                return;
            }
        }
    }

    /// What only a new process can change.
    fn refuse_fixed(&self, next: &Snapshot) -> Result<(), String> {
        let now = &self.snapshot;
        let fixed = [
            ("[workers]", now.workers != next.workers),
            ("[admin]", now.admin != next.admin),
            // Kept listeners hand on the options that they were bound with.
            ("[sockets]", now.sockets != next.sockets),
        ];
        match fixed.into_iter().find(|(_, changed)| *changed) {
            Some((section, _)) => Err(format!("{section} cannot change while running; restart for it")),
            None => Ok(()),
        }
    }
}

/// Reads what is there; each byte is a signal.
fn drain_bytes(mut stream: &UnixStream) -> usize {
    let (mut total, mut buf) = (0, [0; 64]);
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        total += n;
    }
    total
}

fn now() -> Millis {
    clock_us(libc::CLOCK_MONOTONIC) / 1000
}
