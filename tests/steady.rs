//! The cost of one message in the steady state. The worker runs in this thread on the real kernel;
//! its system calls and the thread's allocations are counted.

mod common;

use common::pki::{PKI, provider};
use common::{ACCEPT, masked, plain, request, switching};
use framegate::config::{Listener, Snapshot};
use framegate::metrics::Shard;
use framegate::policy::limit::Permits;
use framegate::proto::Millis;
use framegate::tls::{TicketKeys, TlsConfigs};
use framegate::worker::inbox::inbox;
use framegate::worker::listener::{Listening, bind};
use framegate::worker::service::Services;
use framegate::worker::sys::{Event, MioSys, Sys, Target};
use framegate::worker::{Worker, WorkerCore};
use framegate::{config, log};
use rustls::{ClientConfig, ClientConnection};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: forwards to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system calls of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    recv: u64,
    send: u64,
    vectored: u64,
    register: u64,
    poll: u64,
    now: u64,
    random: u64,
    other: u64,
}

struct Counted {
    sys: MioSys,
    calls: Calls,
}

impl Sys for Counted {
    type Sock = <MioSys as Sys>::Sock;
    type Listener = <MioSys as Sys>::Listener;

    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Sock, SocketAddr)> {
        self.calls.other += 1;
        self.sys.accept(listener)
    }
    fn connect(&mut self, target: Target<'_>) -> io::Result<Self::Sock> {
        self.calls.other += 1;
        self.sys.connect(target)
    }
    fn connected(&mut self, sock: &Self::Sock) -> io::Result<bool> {
        self.calls.other += 1;
        self.sys.connected(sock)
    }
    fn recv(&mut self, sock: &Self::Sock, buf: &mut [u8]) -> io::Result<usize> {
        self.calls.recv += 1;
        self.sys.recv(sock, buf)
    }
    fn send(&mut self, sock: &Self::Sock, bytes: &[u8]) -> io::Result<usize> {
        self.calls.send += 1;
        self.sys.send(sock, bytes)
    }
    fn send_vectored(&mut self, sock: &Self::Sock, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls.vectored += 1;
        self.sys.send_vectored(sock, slices)
    }
    fn discard(&mut self, sock: &Self::Sock, max: usize) -> io::Result<usize> {
        self.calls.other += 1;
        self.sys.discard(sock, max)
    }
    fn shutdown(&mut self, sock: &Self::Sock) -> io::Result<()> {
        self.calls.other += 1;
        self.sys.shutdown(sock)
    }
    fn abort(&mut self, sock: Self::Sock) {
        self.calls.other += 1;
        self.sys.abort(sock);
    }
    fn register(&mut self, sock: &Self::Sock, token: usize) -> io::Result<()> {
        self.calls.register += 1;
        self.sys.register(sock, token)
    }
    fn register_listener(&mut self, listener: &mut Self::Listener, token: usize) -> io::Result<()> {
        self.calls.register += 1;
        self.sys.register_listener(listener, token)
    }
    fn deregister_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()> {
        self.calls.register += 1;
        self.sys.deregister_listener(listener)
    }
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.calls.poll += 1;
        self.sys.poll(events, timeout)
    }
    fn now(&mut self) -> Millis {
        self.calls.now += 1;
        self.sys.now()
    }
    fn random(&mut self, out: &mut [u8]) {
        self.calls.random += 1;
        self.sys.random(out);
    }
    // A clock of its own, read once in 100 ms whatever the load.
    fn busy_us(&mut self) -> u64 {
        self.sys.busy_us()
    }
}

fn core(upstream: SocketAddr) -> (WorkerCore<Counted>, SocketAddr) {
    let plain = Listener::plain(([127, 0, 0, 1], 0).into());
    let snapshot = config::demo(vec![plain], ([127, 0, 0, 1], 1).into(), upstream);
    core_of(snapshot, Arc::default())
}

fn core_of(snapshot: Snapshot, tls: Arc<TlsConfigs>) -> (WorkerCore<Counted>, SocketAddr) {
    let sys = MioSys::new(snapshot.sockets.clone()).unwrap();
    let (_outbox, inbox) = inbox(sys.waker().unwrap());
    let listener = bind(snapshot.listeners[0].addr, 1, &snapshot.sockets).unwrap().remove(0);
    let addr = listener.local_addr().unwrap();
    let (log, _records) = log::tap(16);
    let core = WorkerCore {
        sys: Counted { sys, calls: Calls::default() },
        listeners: vec![
            Listening::new(snapshot.listeners[0].addr, mio::net::TcpListener::from_std(listener), &snapshot, &tls)
                .unwrap(),
        ],
        inbox,
        snapshot: Arc::new(snapshot),
        tls,
        sessions: Permits::new(10),
        handshakes: Permits::new(10),
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
    (core, addr)
}

/// Runs the worker until `n` bytes were read from `stream`.
fn run_until(worker: &mut Worker<'_, Counted>, mut stream: &TcpStream, n: usize) -> Vec<u8> {
    let (mut got, deadline) = (Vec::with_capacity(n), Instant::now() + common::PATIENCE);
    let mut buf = [0; 4096];
    while got.len() < n {
        assert!(Instant::now() < deadline, "{} of {n} bytes", got.len());
        match stream.read(&mut buf[..n - got.len()]) {
            Ok(0) => panic!("the end after {} of {n} bytes", got.len()),
            Ok(read) => got.extend_from_slice(&buf[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                worker.run_once().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    got
}

/// Accepts a connection and reads its request.
fn accept(worker: &mut Worker<'_, Counted>, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let stream = common::eventually("a connection", || {
        worker.run_once().unwrap();
        listener.accept().ok().map(|(stream, _)| stream)
    });
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    read_head(worker, &stream);
    stream
}

fn read_head(worker: &mut Worker<'_, Counted>, stream: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(run_until(worker, stream, 1));
    }
    String::from_utf8(head).unwrap()
}

/// A client and its upstream.
fn establish(worker: &mut Worker<'_, Counted>, addr: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = common::connect(addr);
    client.set_nonblocking(true).unwrap();
    client.write_all(request("/", "").as_bytes()).unwrap();
    let mut upstream = accept(worker, listener);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(worker, &client).contains(ACCEPT));
    (client, upstream)
}

const MESSAGES: u64 = 500;

/// What [`MESSAGES`] cost the worker, each there and back; `shadow` gets those of the client, too.
fn cost(
    worker: &mut Worker<'_, Counted>,
    (mut client, mut upstream): (&TcpStream, &TcpStream),
    shadow: Option<&TcpStream>,
) -> Calls {
    let (up, down) = (masked(0x82, &[7; 64]), plain(0x82, &[7; 64]));
    let mut round = |worker: &mut Worker<'_, Counted>| {
        client.write_all(&up).unwrap();
        for to in [Some(upstream), shadow].into_iter().flatten() {
            assert_eq!(run_until(worker, to, up.len()), up);
        }
        upstream.write_all(&down).unwrap();
        assert_eq!(run_until(worker, client, down.len()), down);
    };
    // The first rounds may still grow vectors that are kept.
    (0..10).for_each(|_| round(worker));
    let before = worker.core().sys.calls;
    let allocations = ALLOCATIONS.with(Cell::get);
    (0..MESSAGES).for_each(|_| round(worker));
    let after = worker.core().sys.calls;
    // `run_until` itself allocates one vector per call.
    let own = 2 + u64::from(shadow.is_some());
    assert_eq!(ALLOCATIONS.with(Cell::get) - allocations, own * MESSAGES, "the worker allocates nothing");
    assert_eq!(after.now - before.now, after.poll - before.poll, "one clock read a poll return");
    let rest = |calls: Calls| (calls.vectored, calls.register, calls.random, calls.other);
    assert_eq!(rest(after), rest(before), "no epoll_ctl, nothing else");
    Calls { recv: after.recv - before.recv, send: after.send - before.send, ..Calls::default() }
}

#[test]
fn a_message_costs_one_recv_and_one_send() {
    let upstream_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut core, addr) = core(upstream_listener.local_addr().unwrap());
    let mut worker = Worker::new(&mut core).unwrap();
    let (client, upstream) = establish(&mut worker, addr, &upstream_listener);
    let calls = cost(&mut worker, (&client, &upstream), None);
    assert_eq!((calls.recv, calls.send), (2 * MESSAGES, 2 * MESSAGES));
}

#[test]
fn limits_that_sessions_share_cost_no_call_and_no_allocation() {
    let upstreams = TcpListener::bind("127.0.0.1:0").unwrap();
    for then in ["close = 4003", "patience = \"off\""] {
        let rates = format!("messages = {{ rate = \"1000000/s\", {then} }}, bytes = {{ rate = \"1GiB/s\", {then} }}");
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"ws://{}\"\n\
             limits = {{ per_address = {{ {rates} }} }}\n",
            upstreams.local_addr().unwrap(),
        );
        let (mut core, addr) = core_of(config::parse(&text, "test").unwrap(), Arc::default());
        let mut worker = Worker::new(&mut core).unwrap();
        let _other = establish(&mut worker, addr, &upstreams);
        let (client, upstream) = establish(&mut worker, addr, &upstreams);
        let calls = cost(&mut worker, (&client, &upstream), None);
        assert_eq!((calls.recv, calls.send), (2 * MESSAGES, 2 * MESSAGES), "{then}");
    }
}

#[test]
fn a_shadow_costs_one_send_and_other_sessions_nothing() {
    let [upstreams, shadows] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"ws://{}\"\n\
         shadow = {{ upstream = \"ws://{}\", percent = 100 }}\n[limits]\nmax_shadows = 1\n",
        upstreams.local_addr().unwrap(),
        shadows.local_addr().unwrap()
    );
    let (mut core, addr) = core_of(config::parse(&text, "test").unwrap(), Arc::default());
    let mut worker = Worker::new(&mut core).unwrap();
    let (client, upstream) = establish(&mut worker, addr, &upstreams);
    let mut shadow = accept(&mut worker, &shadows);
    shadow.write_all(switching("").as_bytes()).unwrap();
    let calls = cost(&mut worker, (&client, &upstream), Some(&shadow));
    assert_eq!((calls.recv, calls.send), (2 * MESSAGES, 3 * MESSAGES));
    // Beside it, a session that has none.
    let other = establish(&mut worker, addr, &upstreams);
    let calls = cost(&mut worker, (&other.0, &other.1), None);
    assert_eq!((calls.recv, calls.send), (2 * MESSAGES, 2 * MESSAGES));
    let sessions = |worker: &mut Worker<'_, Counted>| {
        let upstreams = &worker.core().snapshot.upstreams;
        upstreams.iter().map(|upstream| upstream.sessions()).collect::<Vec<_>>()
    };
    assert_eq!(sessions(&mut worker), [(2, 0), (1, 0)]);
    drop((client, upstream, shadow, other));
    common::eventually("endpoints are not in use any more", || {
        worker.run_once().unwrap();
        (sessions(&mut worker) == [(0, 0), (0, 0)]).then_some(())
    });
    assert_eq!(worker.held(), (0, 0));
}

/// A worker with a TLS client; `allocations` counts those of the worker's iterations alone.
struct Secure<'w> {
    worker: Worker<'w, Counted>,
    client: TcpStream,
    tls: ClientConnection,
    allocations: u64,
}

impl Secure<'_> {
    fn run_once(&mut self) {
        let before = ALLOCATIONS.with(Cell::get);
        self.worker.run_once().unwrap();
        self.allocations += ALLOCATIONS.with(Cell::get) - before;
    }

    /// Sends everything that waits, in one write if the socket accepts it.
    fn flush(&mut self) {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        self.client.write_all(&bytes).unwrap();
    }

    fn until(&mut self, what: &str, done: impl Fn(&[u8], &ClientConnection) -> bool) -> Vec<u8> {
        let (mut got, deadline) = (Vec::new(), Instant::now() + common::PATIENCE);
        while !done(&got, &self.tls) {
            assert!(Instant::now() < deadline, "{what}: {} bytes", got.len());
            self.flush();
            match self.tls.read_tls(&mut self.client) {
                Ok(0) => panic!("{what}: the end after {} bytes", got.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.run_once(),
                other => drop(other.unwrap()),
            }
            let state = self.tls.process_new_packets().unwrap();
            let start = got.len();
            got.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut got[start..]).unwrap();
        }
        got
    }
}

#[test]
fn a_tls_message_costs_one_recv_and_one_send() {
    let upstream_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = PKI.server();
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificates = [{}] }}\n[[route]]\nupstream = \"ws://{}\"\n",
        server.toml(),
        upstream_listener.local_addr().unwrap()
    );
    let snapshot = config::parse(&text, "test").unwrap();
    let keys = TicketKeys::new();
    assert!(keys.begin(0));
    let store = TlsConfigs::load(&snapshot, &keys).unwrap();
    let (mut core, addr) = core_of(snapshot, Arc::new(store));
    let client = common::connect(addr);
    client.set_nonblocking(true).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(PKI.roots()).with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut secure = Secure { worker: Worker::new(&mut core).unwrap(), client, tls, allocations: 0 };
    secure.until("a handshake", |_, tls| !tls.is_handshaking());
    secure.tls.writer().write_all(request("/", "").as_bytes()).unwrap();
    secure.flush();
    upstream_listener.set_nonblocking(true).unwrap();
    let mut upstream = common::eventually("a connection", || {
        secure.run_once();
        upstream_listener.accept().ok().map(|(stream, _)| stream)
    });
    upstream.set_nonblocking(true).unwrap();
    upstream.set_nodelay(true).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(run_until(&mut secure.worker, &upstream, 1));
    }
    upstream.write_all(switching("").as_bytes()).unwrap();
    secure.until("a 101", |got, _| got.ends_with(b"\r\n\r\n"));

    // Small records at first, some thirty in a message; full ones once all buffers have grown.
    for (len, records) in
        [(64, None), (40_000, None), (50_000, None), (64, Some(1)), (6_000, Some(1)), (50_000, Some(4))]
    {
        let (up, down) = (masked(0x82, &vec![7; len]), plain(0x82, &vec![7; len]));
        let (calls, allocations) = (secure.worker.core().sys.calls, secure.allocations);
        upstream.write_all(&down).unwrap();
        assert!(secure.until("a message", |got, _| got.len() >= down.len()) == down);
        let after = secure.worker.core().sys.calls;
        assert_eq!((after.recv - calls.recv, after.send - calls.send), (1, 1), "{len} bytes to the client");
        assert_eq!(after.register, calls.register);
        let made = secure.allocations - allocations;
        // rustls allocates one vector for each record that it encrypts, the worker none.
        assert!(records.is_none_or(|records| made == records), "{made} allocations for {records:?} records");

        let (calls, allocations) = (secure.worker.core().sys.calls, secure.allocations);
        secure.tls.writer().write_all(&up).unwrap();
        secure.flush();
        let mut got = Vec::new();
        while got.len() < up.len() {
            secure.run_once();
            let mut buf = vec![0; up.len()];
            match upstream.read(&mut buf) {
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(got == up);
        let after = secure.worker.core().sys.calls;
        assert_eq!((after.recv - calls.recv, after.send - calls.send), (1, 1), "{len} bytes to the upstream");
        let made = secure.allocations - allocations;
        // rustls allocates one vector for the plaintext of each record.
        assert!(records.is_none_or(|records| made == records), "{made} allocations for {records:?} records");
    }
}
