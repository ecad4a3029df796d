//! One worker on the real kernel, made through the library: no configuration key adds a check to a
//! route yet, so the tests put them there themselves.

use super::common::*;
use framegate::config::{self, Snapshot};
use framegate::log::{Record, tap};
use framegate::metrics::Shard;
use framegate::policy::ask::{Check, Subrequest};
use framegate::policy::limit::Permits;
use framegate::policy::matching::{Entry, Routes};
use framegate::policy::route::Route;
use framegate::policy::upstream::Upstream;
use framegate::proto::end::{Cause, Party, Phase};
use framegate::service::Asker;
use framegate::tls::TlsConfigs;
use framegate::worker::inbox::{Command, Outbox, inbox};
use framegate::worker::listener::{Listening, Twin, bind_all};
use framegate::worker::service::{Question, Services};
use framegate::worker::sys::MioSys;
use framegate::worker::{Worker, WorkerCore};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records that a test may leave unread.
const RECORDS: usize = 4096;

/// What a connect attempt of a call may take.
pub const CONNECT_MS: u64 = 300;

/// What is known without waiting is answered within half of `timeouts.decision`: no deadline can
/// have brought it.
pub const AT_ONCE: Duration = Duration::from_secs(5);

/// How a session ended, as logged: party, phase, cause, HTTP status.
pub type Verdict = (Party, Phase, Cause, u16);

/// A refusal for want of an answer.
pub const UNANSWERED: Verdict = (Party::Proxy, Phase::Request, Cause::DecisionTimeout, 504);
/// A refusal because the answer is none.
pub const BROKEN: Verdict = (Party::Proxy, Phase::Request, Cause::DecisionFailed, 503);
/// A refusal because too many others wait.
pub const BUSY: Verdict = (Party::Proxy, Phase::Request, Cause::DecisionBusy, 503);
/// A refusal because of the answer.
pub const FORBIDDEN: Verdict = (Party::Downstream, Phase::Request, Cause::Forbidden, 403);

/// A running worker.
pub struct Rig {
    pub addr: SocketAddr,
    /// Where sessions go that are admitted.
    pub upstream: TcpListener,
    pub outbox: Outbox<Twin>,
    /// Of sessions, and of handshakes.
    permits: [Arc<Permits>; 2],
    verdicts: Mutex<Receiver<Verdict>>,
    thread: Option<JoinHandle<()>>,
}

/// What a rig is made of.
pub struct Plan {
    pub snapshot: Snapshot,
    pub upstream: TcpListener,
    pub services: Vec<Asker<Question>>,
}

impl Plan {
    /// One route for each of `paths`, without checks; `more` are keys of `[timeouts]`.
    pub fn new(paths: &[&str], more: &str) -> Plan {
        let (upstream, addr) = listen();
        let mut text = format!("[timeouts]\n{more}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n");
        for path in paths {
            text += &format!("[[route]]\npath = \"{path}\"\nupstream = \"ws://{addr}\"\n");
        }
        let snapshot = config::parse(&text, "rig").unwrap_or_else(|e| panic!("{e}"));
        Plan { snapshot, upstream, services: Vec::new() }
    }

    /// All requests make the same checks.
    pub fn asking(checks: Vec<Check>, more: &str) -> Plan {
        let mut plan = Plan::new(&["/*"], more);
        plan.snapshot.routes = with_checks(&plan.snapshot.routes, |_| checks.clone());
        plan
    }

    pub fn start(self) -> Rig {
        let Plan { snapshot, upstream, services } = self;
        let snapshot = Arc::new(snapshot);
        let mut bound = bind_all(&snapshot.listeners, 1, &snapshot.sockets).unwrap();
        let (addr, tls) = (bound[0].local, Arc::new(TlsConfigs::default()));
        let listeners = bound.iter_mut().map(|b| Listening::new(b.addr, b.twin().unwrap(), &snapshot, &tls).unwrap());
        let listeners = listeners.collect();
        let sys = MioSys::new(snapshot.sockets.clone()).unwrap();
        let (outbox, inbox) = inbox(sys.waker().unwrap());
        let (log, mut records) = tap(RECORDS);
        let permits = [Permits::new(10_000), Permits::new(10_000)];
        let mut core = WorkerCore {
            sys,
            listeners,
            inbox,
            snapshot,
            tls,
            sessions: Arc::clone(&permits[0]),
            handshakes: Arc::clone(&permits[1]),
            services: Services::new(services, outbox.clone()),
            tally: Default::default(),
            shard: Arc::new(Shard::default()),
            log,
            unix_ms: 0,
            generation: 0,
            workers: 1,
            draining: false,
            peers: Default::default(),
        };
        let (sender, verdicts) = channel();
        let run = move || {
            let mut worker = Worker::new(&mut core).unwrap();
            let mut running = true;
            while running {
                running = worker.run_once().unwrap();
                while let Ok(record) = records.pop() {
                    let Record::End(end) = record else { continue };
                    // Not every test looks at all of them.
                    let _ = sender.send((end.end.party, end.end.phase, end.end.cause, end.status));
                }
            }
            assert_eq!(worker.held(), (0, 0), "pairs and calls that are left");
        };
        let thread = Some(std::thread::spawn(run));
        Rig { addr, upstream, outbox, permits, verdicts: Mutex::new(verdicts), thread }
    }
}

/// The same routes, each with the checks that `checks` gives for its name.
pub fn with_checks(routes: &Routes, checks: impl Fn(&str) -> Vec<Check>) -> Routes {
    let same = |entry: &Entry| {
        let (name, upstream) = (entry.route.name.clone(), Arc::clone(&entry.route.upstreams()[0]));
        let (checks, settings) = (checks(&name), Arc::clone(&entry.route.settings));
        let route = Arc::new(Route { checks, settings, ..Route::new(name, upstream) });
        Entry { route, ..entry.clone() }
    };
    Routes::new(routes.entries().iter().map(same).collect())
}

impl Rig {
    /// A client that has sent its request.
    pub fn request(&self, path: &str) -> TcpStream {
        let mut client = connect(self.addr);
        client.write_all(request(path, "").as_bytes()).unwrap();
        client
    }

    /// The verdict on the session that ended first of those not seen yet.
    #[track_caller]
    pub fn verdict(&self) -> Verdict {
        self.verdicts.lock().unwrap().recv_timeout(PATIENCE).expect("a session ends")
    }

    /// The upstream gets the request of `client`, which is then relayed both ways.
    #[track_caller]
    pub fn admits(&self, client: &mut TcpStream) -> TcpStream {
        let mut upstream = accept(&self.upstream);
        assert!(read_head(&upstream).starts_with("GET /"));
        upstream.write_all(switching("").as_bytes()).unwrap();
        let head = read_head(client);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client.write_all(&masked(0x81, b"in")).unwrap();
        assert_eq!(read_frame(&upstream), (0x81, b"in".to_vec(), true));
        upstream.write_all(&plain(0x81, b"out")).unwrap();
        assert_eq!(read_frame(client), (0x81, b"out".to_vec(), false));
        upstream
    }

    /// `client` gets the refusal of `verdict`, and no upstream was reached for it.
    #[track_caller]
    pub fn refuses(&self, client: TcpStream, verdict: Verdict) {
        let (answer, end) = read_all(&client);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", verdict.3)), "{answer}");
        assert_eq!(end, End::Fin);
        drop(client);
        assert_eq!(self.verdict(), verdict);
        self.reached_no_upstream();
    }

    /// A request for `path` gets the refusal of `verdict`, and does not wait for a deadline.
    #[track_caller]
    pub fn refuses_at_once(&self, path: &str, verdict: Verdict) {
        let begun = Instant::now();
        self.refuses(self.request(path), verdict);
        assert!(begun.elapsed() < AT_ONCE, "{verdict:?} took {:?}", begun.elapsed());
    }

    #[track_caller]
    pub fn reached_no_upstream(&self) {
        self.upstream.set_nonblocking(true).unwrap();
        assert!(self.upstream.accept().is_err(), "an upstream was reached");
    }

    /// Sessions, and handshakes, that hold a permit.
    pub fn taken(&self) -> [usize; 2] {
        [self.permits[0].taken(), self.permits[1].taken()]
    }

    #[track_caller]
    pub fn gives_all_permits_back(&self) {
        eventually("all permits are back", || (self.taken() == [0, 0]).then_some(()));
    }

    /// Ends the worker; fails if it does not end, or holds a pair or a call.
    #[track_caller]
    pub fn stop(mut self) {
        self.outbox.send(Command::Stop);
        let thread = self.thread.take().unwrap();
        join(thread);
        assert_eq!(self.taken(), [0, 0], "permits of sessions and of handshakes");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Of a test that has failed: its worker must not outlive it.
        self.outbox.send(Command::Stop);
    }
}

/// Waits for the end of a thread.
#[track_caller]
pub fn join<T>(thread: JoinHandle<T>) -> T {
    eventually("a thread ends", || thread.is_finished().then_some(()));
    thread.join().expect("a thread that does not panic")
}

/// A server that is asked.
pub struct Callee {
    pub listener: TcpListener,
    pub upstream: Arc<Upstream>,
}

impl Callee {
    pub fn start() -> Callee {
        Callee::start_with("")
    }

    /// With further keys of its upstream.
    pub fn start_with(more: &str) -> Callee {
        let (listener, addr) = listen();
        Callee { listener, upstream: upstream_with(&[addr], more) }
    }

    /// The check that asks for `path` here, and waits so long for an answer.
    pub fn check(&self, path: &str, timeout_ms: u64) -> Check {
        check(&self.upstream, path, timeout_ms)
    }

    /// Waits for a call, and reads its request.
    #[track_caller]
    pub fn call(&self) -> (TcpStream, String) {
        let stream = accept(&self.listener);
        let head = read_head(&stream);
        (stream, head)
    }

    /// Calls in flight: each counts as a session of its endpoint.
    pub fn calls(&self) -> usize {
        self.upstream.endpoints().iter().map(|endpoint| endpoint.sessions()).sum()
    }

    #[track_caller]
    pub fn has_no_calls(&self) {
        eventually("no call is in flight", || (self.calls() == 0).then_some(()));
    }
}

pub fn check(upstream: &Arc<Upstream>, path: &str, timeout_ms: u64) -> Check {
    let head = format!("GET {path} HTTP/1.1\r\nHost: auth\r\n\r\n").into_bytes();
    Check::Subrequest(Arc::new(Subrequest::new(Arc::clone(upstream), head, timeout_ms, CONNECT_MS)))
}

/// An upstream of these endpoints, parsed as the file would have them.
pub fn upstream_of(endpoints: &[SocketAddr]) -> Arc<Upstream> {
    upstream_with(endpoints, "")
}

fn upstream_with(endpoints: &[SocketAddr], more: &str) -> Arc<Upstream> {
    let urls: Vec<_> = endpoints.iter().map(|addr| format!("ws://{addr}")).collect();
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"auth\"\nendpoints = {urls:?}\n{more}\
         [[route]]\nupstream = \"auth\"\n"
    );
    Arc::clone(&config::parse(&text, "callee").unwrap_or_else(|e| panic!("{e}")).upstreams[0])
}
