//! The process: binds, starts the threads, runs control, waits for the threads to end. The only
//! file that spawns threads: one for each worker, one that resolves names, one that fetches key
//! sets, one that verifies passwords, one that shares limits with other hosts, one for each
//! upstream that discovers its endpoints, one that checks endpoints, one that writes the access
//! log, the demo's backend.

use crate::certs::Certificates;
use crate::clock::unix_ms;
use crate::config::{Snapshot, Sockets, Source};
use crate::control::{Control, Demo, Parts};
use crate::discovery::Sources;
use crate::log;
use crate::metrics::Shard;
use crate::policy::limit::Permits;
use crate::resolver::Resolve;
use crate::service::{Asker, Questions};
use crate::sharing::Sharing;
use crate::tls::TlsConfigs;
use crate::worker::files::FileQuestion;
use crate::worker::inbox::{Outbox, Peers, inbox};
use crate::worker::listener::{BindError, Bound, Listening, Twin, bind_all};
use crate::worker::service::{Question, Services};
use crate::worker::sys::{self, MioSys, RandomPool, now_ms};
use crate::worker::{Worker, WorkerCore};
#[cfg(feature = "files")]
use crate::{files, memory::PIECES_MAX};
use crate::{health, jwks, os, passwords, resolver, service, sharing};
use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Minimum time between two starts of a worker, or of the health checks.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// How long exit waits for the access log to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Why the process could not start or continue, in one sentence.
#[derive(Debug)]
pub struct Failure(pub String);

pub fn failed(what: &str, error: impl Display) -> Failure {
    Failure(format!("{what}: {error}"))
}

/// Runs until a signal ends the process. A reload reads `source` again.
pub fn run(snapshot: Snapshot, certificates: Certificates, source: Source) -> Result<(), Failure> {
    start(snapshot, certificates, Some(source), None)
}

/// As [`run`], with the additions of the demo and without reload.
pub fn run_demo(snapshot: Snapshot, certificates: Certificates, demo: Demo) -> Result<(), Failure> {
    start(snapshot, certificates, None, Some(demo))
}

fn start(
    snapshot: Snapshot,
    certificates: Certificates,
    source: Option<Source>,
    demo: Option<Demo>,
) -> Result<(), Failure> {
    log::init(snapshot.log.level);
    let nofile = os::raise_nofile().map_err(|e| failed("cannot raise the limit on open files", e))?;
    if let Some(error) = snapshot.resource_errors(nofile, os::cpus()).into_iter().next() {
        return Err(Failure(error));
    }
    let (workers, tls) = (snapshot.worker_count(os::cpus()), certificates.configs());
    let snapshot = Arc::new(snapshot);
    let bound = bind_all(&snapshot.listeners, workers, &snapshot.sockets).map_err(|e| Failure(e.to_string()))?;
    let admin = snapshot.admin.as_ref().map(|admin| bind_admin(admin.addr)).transpose()?;
    let (writer, log_control, rings) = log::open(workers, log::RING_LINES, &snapshot.log.access, snapshot.log.format)
        .map_err(|e| failed("cannot open the access log", e))?;
    let writer = spawn("log", move || writer.run())?;
    let limits = snapshot.resolved_limits(nofile);
    let parts = Parts {
        source,
        demo,
        nofile,
        sessions: Permits::new(limits.max_sessions),
        handshakes: Permits::new(limits.max_handshakes),
        restarts: Arc::new(AtomicU64::new(0)),
        log: log_control.clone(),
        certificates,
        started_unix_ms: unix_ms(),
        listening: bound.iter().map(|bound| (bound.addr, bound.local)).collect(),
    };
    let (ended, ended_workers) = channel();
    let signals = os::signals().map_err(|e| failed("cannot set up signal handling", e))?;
    let control = Control::new(parts, Arc::clone(&snapshot), admin, signals, ended_workers)
        .map_err(|e| failed("cannot start the control thread", e))?;
    let resolver = start_service("resolver", resolver::QUEUE, resolver::run)?;
    let mut sources = Sources::new(start_source, control.wake(), resolver.clone());
    let prepared = sources.prepare(&snapshot).map_err(Failure)?;
    sources.replace(prepared, &snapshot, None);
    wait_for_names(&resolver, &snapshot);
    let services = start_services(&snapshot)?;
    let control = control.with_sources(sources).with_keys(services.first().cloned()).with_sharing(start_sharing()?);
    let checks = start_checks(&snapshot, &tls, nofile)?;
    let starter = Starter {
        snapshot: Arc::clone(&snapshot),
        tls,
        sessions: control.sessions(),
        handshakes: control.handshakes(),
        restarts: control.restarts(),
        services,
        files: start_files(workers)?,
        workers,
        peers: Peers::new(workers),
        cpus: os::affinity().unwrap_or_default(),
        ended,
        waker: control.waker(),
    };
    let (mut threads, mut outboxes, mut shards) = (Vec::new(), Vec::new(), Vec::new());
    for worker in starter.start_all(bound, rings)? {
        threads.push(worker.thread);
        outboxes.push(worker.outbox);
        shards.push(worker.shard);
    }
    control.run(outboxes, shards, resolver, checks).map_err(|e| failed("the control thread failed", e))?;
    threads.into_iter().try_for_each(join)?;
    if log_control.stop(LOG_PATIENCE) {
        join(writer)?;
    }
    Ok(())
}

fn bind_admin(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).map_err(|e| Failure(BindError { addr, purpose: " for admin", error: e }.to_string()))
}

/// Starts the thread of a service. It ends when the last `Asker` is dropped; the process does not
/// wait for a service that is blocked in a system call. After a panic the question that caused it
/// stays without an answer, and `run` begins again with the next one.
fn start_service<Q: Send + 'static>(
    name: &'static str,
    capacity: usize,
    mut run: impl FnMut(&Questions<Q>) + Send + 'static,
) -> Result<Asker<Q>, Failure> {
    let (asker, questions) = service::queue(capacity);
    spawn(name, move || {
        while catch_unwind(AssertUnwindSafe(|| run(&questions))).is_err() {
            ::log::error!("the thread \"{name}\" panicked, starting again");
            std::thread::sleep(RESTART_PAUSE);
        }
    })?;
    Ok(asker)
}

/// Starts the services that workers ask, in the order of their numbers (`Check::service`). Waits a
/// limited time for the first keys of tokens.
fn start_services(snapshot: &Snapshot) -> Result<Vec<Asker<Question>>, Failure> {
    let mut kept = jwks::KeySets::default();
    let keys = start_service("jwks", jwks::QUEUE, move |questions| kept.run(questions))?;
    jwks::keep(&keys, snapshot);
    let passwords = start_service("passwords", passwords::QUEUE, passwords::run)?;
    Ok(vec![keys, passwords])
}

/// Starts the threads that open and read files. Each has room for the questions of all workers.
#[cfg(feature = "files")]
fn start_files(workers: usize) -> Result<Vec<Asker<FileQuestion>>, Failure> {
    (0..files::THREADS).map(|_| start_service("files", workers.saturating_mul(PIECES_MAX), files::run)).collect()
}

#[cfg(not(feature = "files"))]
fn start_files(_: usize) -> Result<Vec<Asker<FileQuestion>>, Failure> {
    Ok(Vec::new())
}

/// Starts the thread that shares limits with other hosts.
fn start_sharing() -> Result<Sharing, Failure> {
    let state = Arc::<sharing::State>::default();
    let mut thread = sharing::Thread::new(Arc::clone(&state));
    let orders = start_service("sharing", sharing::QUEUE, move |orders| thread.run(orders))?;
    Ok(Sharing::new(orders, state))
}

/// Starts the thread of the health checks. It ends when [`health::Checks`] is dropped.
fn start_checks(snapshot: &Snapshot, tls: &Arc<TlsConfigs>, nofile: u64) -> Result<health::Checks, Failure> {
    let (mut checks, inbox) = health::open().map_err(|e| failed("cannot start the health checks", e))?;
    checks.set(snapshot, Arc::clone(tls), nofile);
    // [sockets] cannot change at run time.
    let sockets = snapshot.sockets.clone();
    spawn("health", move || check_endpoints(inbox, sockets))?;
    Ok(checks)
}

/// The thread of the health checks. After a panic endpoints keep their states, and checks begin
/// anew.
fn check_endpoints(mut inbox: health::Inbox, sockets: Sockets) {
    let mut pool = RandomPool::default();
    let mut environment = health::Environment {
        now: now_ms,
        connect: Box::new(move |target, source| sys::connect(sys::Target::new(target, source), &sockets)),
        random: Box::new(move |out| pool.fill(out)),
    };
    loop {
        match catch_unwind(AssertUnwindSafe(|| health::run(&mut inbox, &mut environment))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => ::log::error!("health checks failed, starting again: {error}"),
            Err(_) => ::log::error!("health checks panicked, starting again"),
        }
        // A thread that fails at start must not spin.
        std::thread::sleep(RESTART_PAUSE);
    }
}

/// Starts the thread of a source of endpoints. The process does not wait for its end.
fn start_source(name: &str, run: Box<dyn FnOnce() + Send>) -> Result<(), String> {
    spawn(name, run).map(drop).map_err(|Failure(error)| error)
}

/// Waits a limited time for the first addresses, so that the first requests are not refused.
fn wait_for_names(resolver: &Asker<Resolve>, snapshot: &Snapshot) {
    let (done, resolved) = sync_channel(1);
    let resolve = Resolve::of(snapshot, Some(done));
    if !resolve.is_empty() && resolver.ask(resolve).is_ok() {
        // Ignored: later, requests to unresolved upstreams get 503 until they are resolved.
        let _ = resolved.recv_timeout(resolver::FIRST_NAMES);
    }
}

/// Starts workers.
struct Starter {
    snapshot: Arc<Snapshot>,
    tls: Arc<TlsConfigs>,
    sessions: Arc<Permits>,
    handshakes: Arc<Permits>,
    /// Worker restarts after a panic.
    restarts: Arc<AtomicU64>,
    /// In the order of their numbers (`Check::service`).
    services: Vec<Asker<Question>>,
    files: Vec<Asker<FileQuestion>>,
    /// The number of workers.
    workers: usize,
    peers: Peers,
    /// CPUs available to the process.
    cpus: Vec<usize>,
    /// Receives the index of a worker that has ended.
    ended: Sender<usize>,
    /// Wakes control to read it.
    waker: Arc<mio::Waker>,
}

/// A running worker.
struct Started {
    thread: JoinHandle<()>,
    outbox: Outbox<Twin>,
    shard: Arc<Shard>,
}

impl Starter {
    fn start_all(&self, mut bound: Vec<Bound>, rings: Vec<log::Ring>) -> Result<Vec<Started>, Failure> {
        let mut started = Vec::with_capacity(rings.len());
        for (index, ring) in rings.into_iter().enumerate() {
            let (snapshot, tls) = (&self.snapshot, &self.tls);
            let twin = |bound: &mut Bound| Listening::new(bound.addr, bound.twin()?, snapshot, tls);
            started.push(self.start(index, bound.iter_mut().filter_map(twin).collect(), ring)?);
        }
        Ok(started)
    }

    fn start(&self, index: usize, listeners: Vec<Listening<Twin>>, log: log::Ring) -> Result<Started, Failure> {
        let sys = MioSys::new(self.snapshot.sockets.clone()).map_err(|e| failed("cannot start a worker", e))?;
        let waker = sys.waker().map_err(|e| failed("cannot start a worker", e))?;
        let peers = self.peers.of(index, Arc::clone(&waker));
        let (outbox, inbox) = inbox(waker);
        let shard = Arc::new(Shard::default());
        let core = WorkerCore {
            sys,
            listeners,
            inbox,
            snapshot: Arc::clone(&self.snapshot),
            tls: Arc::clone(&self.tls),
            sessions: Arc::clone(&self.sessions),
            handshakes: Arc::clone(&self.handshakes),
            services: Services::with_files(self.services.clone(), self.files.clone(), outbox.clone()),
            tally: Default::default(),
            shard: Arc::clone(&shard),
            log,
            unix_ms: unix_ms().saturating_sub(now_ms()),
            generation: 0,
            workers: self.workers,
            draining: false,
            peers,
        };
        let cpu = self.cpus.get(index % self.cpus.len().max(1)).copied().filter(|_| self.snapshot.workers.pin);
        let (restarts, ended, waker) = (Arc::clone(&self.restarts), self.ended.clone(), Arc::clone(&self.waker));
        let thread = spawn(&format!("worker-{index}"), move || {
            work(core, index, cpu, &restarts);
            // Ignored: control runs until all workers have ended.
            let _ = ended.send(index);
            let _ = waker.wake();
        })?;
        Ok(Started { thread, outbox, shard })
    }
}

/// A worker's thread. A panic ends the sessions of this worker only; what survives it is in `core`.
fn work(mut core: WorkerCore<MioSys>, index: usize, cpu: Option<usize>, restarts: &AtomicU64) {
    if let Some(Err(error)) = cpu.map(os::pin) {
        ::log::warn!("cannot pin worker {index} to a CPU: {error}");
    }
    loop {
        let began = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| Worker::new(&mut core)?.run()));
        match ran {
            Ok(Ok(())) => return,
            Ok(Err(error)) => ::log::error!("worker {index} failed, restarting it: {error}"),
            Err(_) => ::log::error!("worker {index} panicked, restarting it; its sessions are lost"),
        }
        restarts.fetch_add(1, Ordering::Relaxed);
        core.tally.sessions_lost();
        core.tally.publish(&core.shard);
        // A worker that fails at start must not spin.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_panics_goes_on_with_the_next_question() {
        let mut answered = 0;
        let asker = start_service("test", 4, move |questions: &Questions<Option<Sender<u32>>>| {
            while let Some(question) = questions.next() {
                answered += 1;
                question.expect("the question of the test that panics").send(answered).unwrap();
            }
        });
        let (asker, (answers, answer)) = (asker.unwrap(), channel());
        for question in [Some(answers.clone()), None, Some(answers)] {
            asker.ask(question).unwrap();
        }
        assert_eq!((answer.recv(), answer.recv()), (Ok(1), Ok(3)));
        // The thread has ended with its asker, and the questions with it.
        drop(asker);
        assert!(answer.recv().is_err());
    }
}
