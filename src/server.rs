//! The process: binds, starts the threads, hands over to control, waits for the end. The only file that spawns
//! threads: one for each worker, one that resolves names, one that writes the access log, the demo's backend.

use crate::config::Snapshot;
use crate::control::secure::Secure;
use crate::control::{Control, Parts};
use crate::log;
use crate::metrics::Shard;
use crate::tls::TlsConfigs;
use crate::worker::inbox::{Directory, Inbox, Outbox, inbox};
use crate::worker::listener::{BindError, Bound, Listening, Twin, bind_all};
use crate::worker::permits::Permits;
use crate::worker::sys::{MioSys, clock_us};
use crate::worker::{Worker, WorkerCore};
use crate::{cli, os, resolver};
use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// A worker is not started more often than this.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// How long the end waits for the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Why the process could not start or go on: one sentence.
#[derive(Debug)]
pub struct Failure(pub String);

pub fn failed(what: &str, error: impl Display) -> Failure {
    Failure(format!("{what}: {error}"))
}

/// Runs until it is told to stop. `source` is what a reload reads again.
pub fn run(snapshot: Snapshot, secure: Secure, source: cli::Source) -> Result<(), Failure> {
    start(snapshot, secure, Some(source), false)
}

/// The same in front of a built-in backend, with a page to try; nothing is read again.
pub fn run_demo(snapshot: Snapshot, secure: Secure) -> Result<(), Failure> {
    start(snapshot, secure, None, true)
}

fn start(snapshot: Snapshot, secure: Secure, source: Option<cli::Source>, demo: bool) -> Result<(), Failure> {
    log::init(snapshot.log.level);
    let nofile = os::raise_nofile().map_err(|e| failed("cannot raise the limit of open files", e))?;
    if let Some(misfit) = snapshot.misfits(nofile, os::cpus()).into_iter().next() {
        return Err(Failure(misfit));
    }
    let (workers, tls) = (snapshot.worker_count(os::cpus()), secure.store());
    let snapshot = Arc::new(snapshot);
    let bound = bind_all(&snapshot.listeners, workers, &snapshot.sockets).map_err(|e| Failure(e.to_string()))?;
    let admin = snapshot.admin.as_ref().map(|admin| bind_admin(admin.addr)).transpose()?;
    let (writer, log_control, rings) = log::open(workers, log::RING_LINES, &snapshot.log.access, snapshot.log.format)
        .map_err(|e| failed("cannot open the access log", e))?;
    let writer = spawn("log", move || writer.run())?;
    let limits = snapshot.limits.resolve(nofile);
    let parts = Parts {
        source,
        demo,
        nofile,
        sessions: Permits::new(limits.max_sessions),
        handshakes: Permits::new(limits.max_handshakes),
        restarts: Arc::new(AtomicU64::new(0)),
        log: log_control.clone(),
        secure,
        started_unix_ms: unix_ms(),
        listening: bound.iter().map(|bound| (bound.addr, bound.local)).collect(),
    };
    let (notices, noticed) = channel();
    let signals = os::signals().map_err(|e| failed("cannot take over signals", e))?;
    let control = Control::new(parts, Arc::clone(&snapshot), (admin, signals), noticed)
        .map_err(|e| failed("cannot start the control thread", e))?;
    let (names, wanted) = channel();
    let first = start_resolver(wanted, &control, &snapshot, &names)?;
    let crew = Crew { snapshot: Arc::clone(&snapshot), tls, notices, waker: control.waker(), directory: first };
    let threads = crew.start(&control, bound, rings)?;
    let (threads, outboxes): (Vec<_>, Vec<_>) = threads.into_iter().unzip();
    let (outboxes, shards): (Vec<_>, Vec<_>) = outboxes.into_iter().unzip();
    control.run(outboxes, shards, &names).map_err(|e| failed("the control thread failed", e))?;
    threads.into_iter().try_for_each(join)?;
    if log_control.stop(LOG_PATIENCE) {
        join(writer)?;
    }
    Ok(())
}

fn bind_admin(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).map_err(|e| Failure(BindError { addr, purpose: " for admin", error: e }.to_string()))
}

/// Starts the resolver, and waits a little for its first answers.
fn start_resolver(
    wanted: std::sync::mpsc::Receiver<std::collections::BTreeSet<String>>,
    control: &Control,
    snapshot: &Snapshot,
    names: &Sender<std::collections::BTreeSet<String>>,
) -> Result<Arc<Directory>, Failure> {
    let (first, arrived) = channel();
    let publish = control.directory_sink();
    spawn("resolver", move || {
        resolver::run(&wanted, |directory| {
            // Only the first one is waited for.
            let _nobody_waits = first.send(Arc::clone(&directory));
            publish(directory);
        });
    })?;
    let first_names = resolver::names(snapshot);
    if first_names.is_empty() {
        return Ok(Arc::default());
    }
    // The resolver has just been started: it is there.
    let _sent = names.send(first_names);
    Ok(arrived.recv_timeout(resolver::FIRST_NAMES).unwrap_or_default())
}

/// What all workers are started with.
struct Crew {
    snapshot: Arc<Snapshot>,
    tls: Arc<TlsConfigs>,
    notices: Sender<usize>,
    waker: Arc<mio::Waker>,
    directory: Arc<Directory>,
}

type Started = (JoinHandle<()>, (Outbox<Twin>, Arc<Shard>));

impl Crew {
    fn start(&self, control: &Control, mut bound: Vec<Bound>, rings: Vec<log::Ring>) -> Result<Vec<Started>, Failure> {
        let cpus = os::affinity().unwrap_or_default();
        let workers = rings.len();
        let mut started = Vec::with_capacity(workers);
        for (index, ring) in rings.into_iter().enumerate() {
            let sys = MioSys::new(self.snapshot.sockets.clone()).map_err(|e| failed("cannot start a worker", e))?;
            let waker = sys.waker().map_err(|e| failed("cannot start a worker", e))?;
            let (outbox, inbox) = inbox(waker);
            let twin = |bound: &mut Bound| Some(Listening::new(bound.addr, bound.twin()?));
            let listeners = bound.iter_mut().filter_map(twin).collect();
            let shard = Arc::new(Shard::default());
            let core = self.core(control, (sys, inbox, listeners, ring), (Arc::clone(&shard), workers));
            let cpu = cpus.get(index % cpus.len().max(1)).copied().filter(|_| self.snapshot.workers.pin);
            let (notices, control_waker) = (self.notices.clone(), Arc::clone(&self.waker));
            let restarts = control.restarts();
            let thread = spawn(&format!("worker-{index}"), move || {
                work(core, (index, cpu), &restarts);
                // Control is there until all workers have ended.
                let _told = notices.send(index);
                let _woken = control_waker.wake();
            })?;
            started.push((thread, (outbox, shard)));
        }
        Ok(started)
    }

    fn core(
        &self,
        control: &Control,
        (sys, inbox, listeners, log): (MioSys, Inbox<Twin>, Vec<Listening<Twin>>, log::Ring),
        (shard, workers): (Arc<Shard>, usize),
    ) -> WorkerCore<MioSys> {
        WorkerCore {
            sys,
            listeners,
            inbox,
            snapshot: Arc::clone(&self.snapshot),
            tls: Arc::clone(&self.tls),
            directory: Arc::clone(&self.directory),
            sessions: control.sessions(),
            handshakes: control.handshakes(),
            tally: Default::default(),
            shard,
            log,
            unix_ms: unix_ms().saturating_sub(clock_us(libc::CLOCK_MONOTONIC) / 1000),
            generation: 0,
            workers,
            draining: false,
        }
    }
}

/// A worker's thread. A panic ends the sessions of this worker, nothing else: what it must not take is in its core.
fn work(mut core: WorkerCore<MioSys>, (index, cpu): (usize, Option<usize>), restarts: &AtomicU64) {
    if let Some(Err(error)) = cpu.map(os::pin) {
        ::log::warn!("worker {index} is not pinned: {error}");
    }
    loop {
        let began = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| Worker::new(&mut core)?.run()));
        match ran {
            Ok(Ok(())) => return,
            Ok(Err(error)) => ::log::error!("worker {index} failed and is started again: {error}"),
            Err(_) => ::log::error!("worker {index} panicked and is started again; its sessions are lost"),
        }
        restarts.fetch_add(1, Ordering::Relaxed);
        core.tally.sessions_lost();
        core.tally.publish(&core.shard);
        // One that cannot even start must not spin.
        std::thread::sleep(RESTART_PAUSE.saturating_sub(began.elapsed()));
    }
}

pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|e| failed("cannot start a thread", e))
}

pub fn join<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure("a thread panicked".to_owned()))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
