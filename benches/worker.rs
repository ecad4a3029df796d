//! The plain path: the whole worker in user space, from what poll returned to the last send, on a
//! system without a kernel. What is left out of a message's cost is the system calls themselves.

mod common;

use common::{REQUEST, SWITCHING, bench, masked_frame, plain_frame};
use framegate::config::{self, Snapshot};
use framegate::log::{self, Record};
use framegate::metrics::Shard;
use framegate::policy::limit::Permits;
use framegate::proto::{Millis, Side};
use framegate::tls::TlsConfigs;
use framegate::worker::inbox::{Wake, inbox};
use framegate::worker::listener::Listening;
use framegate::worker::service::Services;
use framegate::worker::sys::{Event, Sys, Target};
use framegate::worker::{Worker, WorkerCore};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

fn main() {
    messages();
    limited_messages();
    many_sessions();
    churn();
    requests();
    timers();
    heartbeats();
}

/// One session; a read holds one message or many.
fn messages() {
    let reads = [(64, 1), (1 << 10, 1), (64, 32)];
    let reads = reads.map(|(payload, batch)| {
        (payload, batch, masked_frame(payload).repeat(batch), plain_frame(payload).repeat(batch))
    });
    let (_, _, one_up, one_down) = &reads[0];
    let (mut core, _records) = core();
    let mut worker = Worker::new(&mut core).expect("a worker");
    open(&mut worker);
    for (payload, batch, up, down) in &reads {
        bench(&format!("worker, {payload} B x {batch} to upstream"), 20_000, || {
            arrive(&mut worker, (0, Side::Downstream), up);
        });
        bench(&format!("worker, {payload} B x {batch} to client"), 20_000, || {
            arrive(&mut worker, (0, Side::Upstream), down);
        });
    }
    bench("worker, 64 B ping-pong, both ways", 20_000, || {
        arrive(&mut worker, (0, Side::Downstream), one_up);
        arrive(&mut worker, (0, Side::Upstream), one_down);
    });
    // The header comes in two reads: its first bytes are kept back, and sent with the rest.
    bench("worker, 64 B cut in its header", 20_000, || {
        arrive(&mut worker, (0, Side::Downstream), &one_up[..3]);
        arrive(&mut worker, (0, Side::Downstream), &one_up[3..]);
    });
    bench("worker, an iteration with nothing to do", 20_000, || {
        worker.run_once().expect("poll");
    });
    let sys = &worker.core().sys;
    assert_eq!(sys.sent, sys.received, "everything that came has left");
}

/// The same with limits on messages, bytes and control frames, none of them exceeded.
fn limited_messages() {
    let limits = "messages = { rate = \"1000000000/s\", close = 4003 }, fragments = 1000, \
                  bytes = { rate = \"1GiB/s\", burst = \"16GiB\" }, control_frames = { rate = \"10/s\" }";
    let reads = [(64, 1), (64, 32)].map(|(payload, batch)| (payload, batch, masked_frame(payload).repeat(batch)));
    let (mut core, _records) = core_with(&format!("limits = {{ {limits} }}\n"));
    let mut worker = Worker::new(&mut core).expect("a worker");
    open(&mut worker);
    for (payload, batch, up) in &reads {
        bench(&format!("worker, {payload} B x {batch} to upstream, rate limits"), 20_000, || {
            arrive(&mut worker, (0, Side::Downstream), up);
        });
    }
    let sys = &worker.core().sys;
    assert_eq!(sys.sent, sys.received, "everything that came has left");
}

/// One poll return with an event for each of many sessions: what a message costs where the loop's
/// own share is spread.
fn many_sessions() {
    const SESSIONS: usize = 100;
    let push = plain_frame(1 << 10);
    let (mut core, _records) = core();
    let mut worker = Worker::new(&mut core).expect("a worker");
    (0..SESSIONS).for_each(|_| open(&mut worker));
    bench("worker, push 1024 B to 100 clients", 500, || {
        for session in 0..SESSIONS {
            worker.core().sys.has(&push, (session, Side::Upstream));
        }
        worker.run_once().expect("poll");
    });
    let sys = &worker.core().sys;
    assert_eq!(sys.sent, sys.received);
}

/// A session's whole life: accepted, connected, opened, one message each way, closed by its client.
fn churn() {
    let (up, down) = (masked_frame(64), plain_frame(64));
    let (mut core, mut records) = core();
    let mut worker = Worker::new(&mut core).expect("a worker");
    bench("worker, session opened, one echo, closed", 1_000, || {
        open(&mut worker);
        arrive(&mut worker, (0, Side::Downstream), &up);
        arrive(&mut worker, (0, Side::Upstream), &down);
        arrive(&mut worker, (0, Side::Downstream), &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
        arrive(&mut worker, (0, Side::Upstream), &[0x88, 0x02, 0x03, 0xe8]);
        arrive(&mut worker, (0, Side::Upstream), &[]);
        arrive(&mut worker, (0, Side::Downstream), &[]);
        assert_eq!(worker.held(), (0, 0));
        worker.core().sys.tokens.clear();
        let lines = (records.pop(), records.pop());
        assert!(matches!(lines, (Ok(Record::Start(_)), Ok(Record::End(_)))));
    });
}

/// A plain request and its response, over connections that are there on both sides.
fn requests() {
    const GET: &[u8] = b"GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 30 Nov 2026 10:00:00 GMT\r\n\
        Content-Type: application/octet-stream\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\
        Last-Modified: Mon, 30 Nov 2026 09:00:00 GMT\r\nETag: \"656858ee-400\"\r\nAccept-Ranges: bytes\r\n\r\n";
    let response = [head.as_bytes(), &[b'x'; 1024]].concat();
    let (mut core, mut records) = core_with("protocols = [\"http\"]\n");
    let mut worker = Worker::new(&mut core).expect("a worker");
    accept(&mut worker);
    arrive(&mut worker, (0, Side::Downstream), GET);
    connected(&mut worker, 0);
    arrive(&mut worker, (0, Side::Upstream), &response);
    assert!(records.pop().is_ok(), "it was answered");
    worker.core().sys.sent = 0;
    let mut answered = 0;
    bench("worker, GET answered with 1024 B, keep-alive", 1_000, || {
        arrive(&mut worker, (0, Side::Downstream), GET);
        arrive(&mut worker, (0, Side::Upstream), &response);
        assert!(matches!(records.pop(), Ok(Record::End(_))));
        answered += 1;
    });
    let sys = &worker.core().sys;
    assert!(sys.sent > answered * response.len(), "every request was forwarded, and answered");
    assert_eq!(sys.tokens.len(), 2, "both connections live on");
}

/// What idle sessions cost: the wheel looks at each every 51.2 s, and files it anew.
fn timers() {
    const SESSIONS: usize = 100;
    let (mut core, _records) = core();
    let mut worker = Worker::new(&mut core).expect("a worker");
    (0..SESSIONS).for_each(|_| open(&mut worker));
    bench("worker, the wheel looks at 100 idle sessions", 500, || {
        worker.core().sys.now += 51_200;
        worker.run_once().expect("poll");
    });
    assert_eq!(worker.held(), (SESSIONS, 0), "nobody was idle for too long");
}

/// What idle sessions cost with a heartbeat: a ping each, and something from each client. Any bytes
/// will do.
fn heartbeats() {
    const SESSIONS: usize = 100;
    let answer = masked_frame(64);
    let (mut core, _records) = core_with("heartbeat = { client = \"30s\" }\n");
    let mut worker = Worker::new(&mut core).expect("a worker");
    (0..SESSIONS).for_each(|_| open(&mut worker));
    let mut pings = 0;
    bench("worker, 100 pings of a heartbeat, answered", 500, || {
        worker.core().sys.now += 30_000;
        worker.run_once().expect("poll");
        for session in 0..SESSIONS {
            worker.core().sys.has(&answer, (session, Side::Downstream));
        }
        worker.run_once().expect("poll");
        pings += SESSIONS as u64;
    });
    assert_eq!(worker.core().tally.pings[Side::Downstream], pings);
}

/// No kernel. A session's sockets are told apart by their tokens, in the order in which they were
/// registered; the bench says what arrives, and what is sent is counted and gone.
#[derive(Default)]
struct Memory<'a> {
    /// Of the next poll.
    events: Vec<Event>,
    /// What every read gives until something else has arrived.
    arrived: &'a [u8],
    /// It is to be copied. A worker that gets the same bytes again finds them still in its read
    /// buffer: forwarded bytes are not written to, and copying is the kernel's share.
    fresh: bool,
    tokens: Vec<usize>,
    /// Clients in the listener's queue.
    clients: usize,
    listener: usize,
    now: Millis,
    /// Bytes of open sessions.
    received: usize,
    sent: usize,
}

impl<'a> Memory<'a> {
    /// `bytes` are there for one socket of the `session`-th session; none are the end of the
    /// stream.
    fn has(&mut self, bytes: &'a [u8], (session, side): (usize, Side)) {
        self.fresh |= self.arrived.as_ptr_range() != bytes.as_ptr_range();
        self.arrived = bytes;
        let token = self.tokens[2 * session + usize::from(side == Side::Upstream)];
        let read_closed = bytes.is_empty();
        self.events.push(Event { token, readable: true, writable: true, read_closed, ..Event::default() });
    }
}

impl Sys for Memory<'_> {
    type Sock = ();
    type Listener = ();

    fn accept(&mut self, _: &()) -> io::Result<((), SocketAddr)> {
        self.clients = self.clients.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(((), SocketAddr::from(([203, 0, 113, 7], 40_000))))
    }
    fn connect(&mut self, _: Target<'_>) -> io::Result<()> {
        Ok(())
    }
    fn connected(&mut self, _: &()) -> io::Result<bool> {
        Ok(true)
    }
    fn recv(&mut self, _: &(), buf: &mut [u8]) -> io::Result<usize> {
        let n = self.arrived.len();
        if std::mem::take(&mut self.fresh) {
            buf[..n].copy_from_slice(self.arrived);
        }
        self.received += n;
        Ok(n)
    }
    fn peek(&mut self, _: &(), _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn send(&mut self, _: &(), bytes: &[u8]) -> io::Result<usize> {
        self.sent += bytes.len();
        Ok(bytes.len())
    }
    fn send_vectored(&mut self, _: &(), slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let n = slices.iter().map(|slice| slice.len()).sum();
        self.sent += n;
        Ok(n)
    }
    fn discard(&mut self, _: &(), _: usize) -> io::Result<usize> {
        Ok(self.arrived.len())
    }
    fn shutdown(&mut self, _: &()) -> io::Result<()> {
        Ok(())
    }
    fn abort(&mut self, _: ()) {}
    fn register(&mut self, _: &(), token: usize) -> io::Result<()> {
        self.tokens.push(token);
        Ok(())
    }
    fn register_listener(&mut self, _: &mut (), token: usize) -> io::Result<()> {
        self.listener = token;
        Ok(())
    }
    fn deregister_listener(&mut self, _: &mut ()) -> io::Result<()> {
        Ok(())
    }
    fn poll(&mut self, events: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        events.clear();
        events.append(&mut self.events);
        Ok(())
    }
    fn now(&mut self) -> Millis {
        self.now
    }
    fn random(&mut self, out: &mut [u8]) {
        out.fill(7);
    }
    fn busy_us(&mut self) -> u64 {
        0
    }
}

fn core<'a>() -> (WorkerCore<Memory<'a>>, rtrb::Consumer<Record>) {
    core_with("")
}

/// With more keys of the route.
fn core_with<'a>(route: &str) -> (WorkerCore<Memory<'a>>, rtrb::Consumer<Record>) {
    let snapshot: Snapshot = config::parse(
        &format!(
            "[[listener]]\nlisten = \"192.0.2.1:80\"\n[limits]\nmax_sessions = 1000\nmax_handshakes = 1000\n\
        [[upstream]]\nname = \"a\"\nendpoints = [\"ws://10.0.0.1:80\"]\n\
        [[route]]\npath = \"/*\"\nupstream = \"a\"\ntimeouts = {{ idle = \"30days\" }}\n{route}"
        ),
        "bench",
    )
    .expect("a good configuration");
    // As in `run`: the access log is on, and a ring holds its records. Without a reader those of
    // sixteen sessions are enough.
    let (log, records) = log::tap(32);
    let (_outbox, inbox) = inbox(Arc::new(NoWake));
    let core = WorkerCore {
        sys: Memory { now: 1_000, ..Memory::default() },
        listeners: vec![
            Listening::new(snapshot.listeners[0].addr, (), &snapshot, &TlsConfigs::default()).expect("a listener"),
        ],
        inbox,
        snapshot: Arc::new(snapshot),
        tls: Arc::default(),
        sessions: Permits::new(1_000),
        handshakes: Permits::new(1_000),
        services: Services::default(),
        tally: Default::default(),
        shard: Arc::new(Shard::default()),
        log,
        unix_ms: 0,
        generation: 0,
        workers: 1,
        draining: false,
        peers: Default::default(),
    };
    (core, records)
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// One more session, open.
fn open(worker: &mut Worker<'_, Memory<'_>>) {
    let session = worker.core().sys.tokens.len() / 2;
    accept(worker);
    arrive(worker, (session, Side::Downstream), REQUEST);
    connected(worker, session);
    arrive(worker, (session, Side::Upstream), SWITCHING);
    let sys = &mut worker.core().sys;
    (sys.sent, sys.received) = (0, 0);
}

/// One more client has connected.
fn accept(worker: &mut Worker<'_, Memory<'_>>) {
    let sys = &mut worker.core().sys;
    sys.clients += 1;
    sys.events.push(Event { token: sys.listener, readable: true, ..Event::default() });
    worker.run_once().expect("poll");
}

/// The connection of a session to its upstream is made.
fn connected(worker: &mut Worker<'_, Memory<'_>>, session: usize) {
    let sys = &mut worker.core().sys;
    sys.events.push(Event { token: sys.tokens[2 * session + 1], writable: true, ..Event::default() });
    worker.run_once().expect("poll");
}

/// One read's worth arrives, and the worker passes once.
fn arrive<'a>(worker: &mut Worker<'_, Memory<'a>>, at: (usize, Side), bytes: &'a [u8]) {
    worker.core().sys.has(bytes, at);
    worker.run_once().expect("poll");
}
