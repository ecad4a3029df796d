//! Thousands of clients on one thread with one poll. Each sends one message after the other, and
//! compares the echoes; beside them, visitors open sessions and close them at once.

use super::backend::{read_into, take_frame};
use crate::common::*;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Handshakes at once, and sessions that are closed at once: a machine with few processors serves
/// so many within every timeout.
const AT_ONCE: usize = 64;
const VISITORS: usize = 4;
/// How long a client waits between an echo and its next message.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the thread looks for orders of the test.
const LOOK: Duration = Duration::from_millis(5);
/// Client addresses: each has ports of its own.
const ADDRESSES: usize = 4;

/// How a client's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The client sent its Close, 1000, first.
    pub stopped: bool,
    /// The code of the Close that it received.
    pub close: Option<u16>,
    pub end: End,
}

/// What the test sees of a client.
#[derive(Debug, Clone, Copy, Default)]
pub struct View {
    /// Where its session is; `None` during its handshake.
    pub backend: Option<u8>,
    pub echoes: u64,
    pub outcome: Option<Outcome>,
}

pub struct Crowd {
    shared: Arc<Shared>,
    /// `None` after they were told to stop.
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// How many are to be opened in all.
    wanted: AtomicUsize,
    visiting: AtomicBool,
    /// Visitors that are there.
    visitors: AtomicUsize,
    /// Backends whose sessions will not answer; `None` until the clients are to stop.
    stopping: Mutex<Option<Vec<u8>>>,
    views: Mutex<Vec<View>>,
    /// Backends of the visits that are over.
    visits: Mutex<Vec<u8>>,
}

impl Crowd {
    pub fn start(proxy: &Proxy) -> Crowd {
        let shared = Arc::new(Shared::default());
        let run = Run {
            shared: Arc::clone(&shared),
            proxy: proxy.addr,
            poll: Poll::new().unwrap(),
            clients: HashMap::new(),
            next: 0,
            opening: 0,
            due: VecDeque::new(),
        };
        let thread = Some(std::thread::spawn(move || run.run()));
        Crowd { shared, thread }
    }

    /// So many more sessions, with a first echo. A handshake that fails is a panic.
    pub fn open(&self, count: usize) {
        let wanted = self.shared.wanted.fetch_add(count, SeqCst) + count;
        let is_open = |view: &View| view.backend.is_some();
        eventually("sessions are open", || {
            let views = self.views();
            (views.len() == wanted && views.iter().all(is_open)).then_some(())
        });
    }

    fn views(&self) -> Vec<View> {
        self.assert_no_panic();
        self.shared.views.lock().unwrap().clone()
    }

    fn assert_no_panic(&self) {
        let has_ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        assert!(!has_ended, "the clients have failed, see above");
    }

    /// Sessions on a backend that have not ended.
    pub fn live_on(&self, backend: u8) -> usize {
        let is_there = |view: &&View| view.backend == Some(backend) && view.outcome.is_none();
        self.views().iter().filter(is_there).count()
    }

    /// All sessions that it has ever had; visits count when they are over.
    pub fn ever_on(&self, backend: u8) -> usize {
        let was_there = |view: &&View| view.backend == Some(backend);
        self.views().iter().filter(was_there).count() + self.visits(Some(backend))
    }

    /// Each of the sessions on these backends gets so many more echoes.
    #[track_caller]
    pub fn echoes_go_on(&self, echoes: u64, on: impl Fn(u8) -> bool) {
        let goals: Vec<_> = self.views().iter().map(|view| view.echoes + echoes).collect();
        let concerns = |view: &View| view.backend.is_some_and(&on);
        assert!(self.views().iter().any(concerns));
        eventually("echoes go on", || {
            let views = self.views();
            let mut pairs = views.iter().zip(&goals).filter(|(view, _)| concerns(view));
            pairs.all(|(view, goal)| view.echoes >= *goal).then_some(())
        });
    }

    /// From now on visitors come and go, one after the other, or no more: then all have gone.
    pub fn receive_visitors(&self, visiting: bool) {
        self.shared.visiting.store(visiting, SeqCst);
        let none_left = || self.shared.visitors.load(SeqCst) == 0;
        eventually("the last visitor goes", || (visiting || none_left()).then_some(()));
    }

    /// Visits that are over; of all backends or one.
    pub fn visits(&self, to: Option<u8>) -> usize {
        self.assert_no_panic();
        let visits = self.shared.visits.lock().unwrap();
        visits.iter().filter(|backend| to.is_none_or(|to| **backend == to)).count()
    }

    /// Each closes its session after its next echo. Those on the `silent` backends do not wait for
    /// one. Returns what became of all of them.
    pub fn stop(&mut self, silent: &[u8]) -> Vec<View> {
        self.receive_visitors(false);
        *self.shared.stopping.lock().unwrap() = Some(silent.to_vec());
        let thread = self.thread.take().expect("they were not told before");
        eventually("all sessions end", || thread.is_finished().then_some(()));
        thread.join().expect("all echoes are right");
        self.views()
    }
}

struct Run {
    shared: Arc<Shared>,
    proxy: SocketAddr,
    poll: Poll,
    clients: HashMap<usize, Client>,
    /// The number of the next connection.
    next: usize,
    opening: usize,
    /// When clients send their next messages, the earliest first.
    due: VecDeque<(Instant, usize)>,
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    phase: Phase,
    /// Its place in the views; a visitor has none.
    view: Option<usize>,
    backend: u8,
    echoes: u64,
    /// It waits for an echo.
    awaits: bool,
    stopped: bool,
    close: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Connect,
    Head,
    FirstEcho,
    Open,
}

impl Run {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            self.open_more();
            self.send_due();
            let stopping = self.shared.stopping.lock().unwrap().clone();
            if let Some(silent) = &stopping {
                self.close_some(silent);
                if self.clients.is_empty() {
                    return;
                }
            }
            match self.poll.poll(&mut events, Some(LOOK)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
                _ => {}
            }
            for event in &events {
                self.on_event(event.token().0);
            }
        }
    }

    fn open_more(&mut self) {
        let wanted = self.shared.wanted.load(SeqCst);
        loop {
            let known = self.shared.views.lock().unwrap().len();
            let visits = self.shared.visitors.load(SeqCst) < VISITORS && self.shared.visiting.load(SeqCst);
            if self.opening >= AT_ONCE || (known >= wanted && !visits) {
                return;
            }
            let view = (known < wanted).then_some(known);
            match view {
                Some(_) => self.shared.views.lock().unwrap().push(View::default()),
                None => drop(self.shared.visitors.fetch_add(1, SeqCst)),
            }
            self.connect(view);
        }
    }

    fn connect(&mut self, view: Option<usize>) {
        let id = self.next;
        self.next += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let source = [127, 0, 1, 1 + (id % ADDRESSES) as u8];
        bind_without_port(&socket);
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        // EINPROGRESS; what came of it is seen when it is writable.
        let begun = socket.connect(&self.proxy.into());
        assert!(begun.is_ok() || begun.is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)));
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE).unwrap();
        let (phase, input) = (Phase::Connect, Vec::new());
        let client =
            Client { stream, input, phase, view, backend: 0, echoes: 0, awaits: false, stopped: false, close: None };
        self.clients.insert(id, client);
        self.opening += 1;
    }

    fn on_event(&mut self, id: usize) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.phase == Phase::Connect {
            assert!(client.stream.take_error().unwrap().is_none(), "the proxy accepts");
            if client.stream.peer_addr().is_err() {
                return;
            }
            client.stream.write_all(request("/", "").as_bytes()).unwrap();
            client.phase = Phase::Head;
        }
        let ended = read_into(&mut client.stream, &mut client.input).err();
        let was_open = client.phase == Phase::Open;
        let echoed = client.on_input();
        let is_open = client.phase == Phase::Open;
        if !was_open && is_open {
            self.opening -= 1;
            if client.view.is_none() {
                client.stop();
            }
        }
        if echoed {
            client.show(&self.shared, None);
            self.due.push_back((Instant::now() + PAUSE, id));
        }
        if let Some(error) = ended {
            let end = if error.kind() == ErrorKind::UnexpectedEof { End::Fin } else { End::Reset };
            self.on_end(id, end);
        }
    }

    fn on_end(&mut self, id: usize, end: End) {
        let client = self.clients.remove(&id).expect("it was there just now");
        assert_eq!(client.phase, Phase::Open, "a handshake failed: {:?}", String::from_utf8_lossy(&client.input));
        let outcome = Outcome { stopped: client.stopped, close: client.close, end };
        client.show(&self.shared, Some(outcome));
        if client.view.is_none() {
            assert_eq!(outcome, Outcome { stopped: true, close: Some(1000), end: End::Fin }, "a visit ended badly");
            self.shared.visits.lock().unwrap().push(client.backend);
            self.shared.visitors.fetch_sub(1, SeqCst);
        }
    }

    fn send_due(&mut self) {
        while self.due.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let Some((_, id)) = self.due.pop_front() else { return };
            if let Some(client) = self.clients.get_mut(&id)
                && client.is_open()
                && !client.stopped
            {
                client.say();
            }
        }
    }

    fn close_some(&mut self, silent: &[u8]) {
        let is_silent = |client: &Client| silent.contains(&client.backend);
        let mut closing = self.clients.values().filter(|client| client.stopped && !is_silent(client)).count();
        for client in self.clients.values_mut().filter(|client| client.is_open() && !client.stopped) {
            if is_silent(client) {
                client.stop();
            } else if !client.awaits && closing < AT_ONCE {
                client.stop();
                closing += 1;
            }
        }
    }
}

/// connect(2) will choose the port: one that bind(2) chooses is lost to everyone else's connect(2),
/// whatever the address.
fn bind_without_port(socket: &Socket) {
    let (on, len): (libc::c_int, _) = (1, size_of::<libc::c_int>() as libc::socklen_t);
    let option = libc::IP_BIND_ADDRESS_NO_PORT;
    // SAFETY: the value of this option is an int, which lives until the call returns.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const on).cast(), len) };
    assert_eq!(set, 0);
}

impl Client {
    /// Whether there was an echo.
    fn on_input(&mut self) -> bool {
        if self.phase == Phase::Head {
            let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
            let head: Vec<_> = self.input.drain(..end + 4).collect();
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
            self.phase = Phase::FirstEcho;
            self.say();
        }
        let mut echoed = false;
        while self.phase >= Phase::FirstEcho
            && let Some((first, payload)) = take_frame(&mut self.input)
        {
            assert!(self.close.is_none(), "nothing comes after a Close");
            if first == 0x88 {
                self.on_close(&payload);
                continue;
            }
            if self.phase == Phase::FirstEcho {
                (self.backend, self.phase) = (payload[0], Phase::Open);
            }
            let text = self.text();
            assert_eq!((first, payload[0], &payload[1..]), (0x81, self.backend, text.as_bytes()));
            assert!(std::mem::take(&mut self.awaits), "an echo of nothing");
            self.echoes += 1;
            echoed = true;
        }
        echoed
    }

    fn on_close(&mut self, payload: &[u8]) {
        self.close = Some(payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code)));
        if !self.stopped {
            // The stream may be gone already.
            let _sent = self.stream.write_all(&masked(0x88, payload));
        }
    }

    /// It has had its first echo, and no Close yet.
    fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.close.is_none()
    }

    fn text(&self) -> String {
        format!("message {}", self.echoes)
    }

    /// A stream that has ended is found by reading.
    fn say(&mut self) {
        self.awaits = true;
        let text = self.text();
        let _sent = self.stream.write_all(&masked(0x81, text.as_bytes()));
    }

    fn stop(&mut self) {
        self.stopped = true;
        let _sent = self.stream.write_all(&masked(0x88, &close_payload(1000, "")));
    }

    fn show(&self, shared: &Shared, outcome: Option<Outcome>) {
        let Some(view) = self.view else { return };
        shared.views.lock().unwrap()[view] = View { backend: Some(self.backend), echoes: self.echoes, outcome };
    }
}
