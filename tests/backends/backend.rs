//! A WebSocket server that echoes thousands of sessions on one thread with one poll, and fails on
//! demand. Echoes begin with its number.

use crate::common::*;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a slow backend waits before each echo.
const SLOW: Duration = Duration::from_millis(40);

/// What a backend does with messages and new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Serves,
    /// Later.
    Slow,
    /// Accepts, and never answers.
    Stalls,
    /// Ends connections instead of answering their requests; sessions stay.
    Closes,
    /// Its port refuses; sessions stay.
    Refuses,
    /// As the end of a process: its port refuses, and all connections end.
    Killed,
}

const MODES: [Mode; 6] = [Mode::Serves, Mode::Slow, Mode::Stalls, Mode::Closes, Mode::Refuses, Mode::Killed];

pub struct Backend {
    pub number: u8,
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    mode: AtomicU8,
    /// The mode that its thread has taken over.
    applied: AtomicU8,
    /// Connections that the proxy has not ended.
    connections: AtomicUsize,
    /// Those of them with a 101.
    sessions: AtomicUsize,
}

impl Backend {
    pub fn start(number: u8) -> Backend {
        Backend::on(number, 0).expect("a free port")
    }

    /// Each has an address of its own.
    pub fn on(number: u8, port: u16) -> io::Result<Backend> {
        let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 11 + number], port)))?;
        let (addr, poll) = (listener.local_addr()?, Poll::new()?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let shared = Arc::new(Shared::default());
        let server = Server {
            number,
            addr,
            shared: Arc::clone(&shared),
            poll,
            listener: Some(listener),
            connections: HashMap::new(),
            next: 0,
            later: VecDeque::new(),
        };
        let thread = Some(std::thread::spawn(move || server.run()));
        Ok(Backend { number, addr, shared, waker, thread })
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// Returns when it behaves so.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, SeqCst);
        self.waker.wake().unwrap();
        eventually("a backend changes", || (self.shared.applied.load(SeqCst) == mode as u8).then_some(()));
    }

    pub fn kill(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.mode.store(Mode::Killed as u8, SeqCst);
        self.waker.wake().unwrap();
        let ended = thread.join();
        assert!(ended.is_ok() || std::thread::panicking(), "a backend has panicked");
    }

    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(SeqCst)
    }

    /// Connections that the proxy has not ended.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

struct Server {
    number: u8,
    addr: SocketAddr,
    shared: Arc<Shared>,
    poll: Poll,
    listener: Option<TcpListener>,
    connections: HashMap<usize, Connection>,
    next: usize,
    /// Echoes of a slow backend, the earliest first.
    later: VecDeque<(Instant, usize, Vec<u8>)>,
}

struct Connection {
    stream: TcpStream,
    /// Its 101 is sent.
    open: bool,
    input: Vec<u8>,
    /// The proxy has ended it. A backend that stalls does not answer that either.
    ended: bool,
}

impl Server {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            let due = self.later.front().map(|(at, ..)| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, due) {
                Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
                _ => {}
            }
            let mode = MODES[usize::from(self.shared.mode.load(SeqCst))];
            match (mode, &self.listener) {
                (Mode::Killed, _) => break,
                (Mode::Refuses, _) => self.listener = None,
                (_, None) => self.listen(),
                _ => {}
            }
            self.shared.applied.store(mode as u8, SeqCst);
            self.accept();
            for event in &events {
                self.serve(event.token().0, mode);
            }
            self.send_due();
        }
        // All connections end here.
        self.shared.sessions.store(0, SeqCst);
        self.shared.connections.store(0, SeqCst);
    }

    /// Where it was before.
    fn listen(&mut self) {
        let mut listener = TcpListener::bind(self.addr).expect("nobody else uses its address");
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        self.listener = Some(listener);
    }

    fn accept(&mut self) {
        while let Some(Ok((mut stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            stream.set_nodelay(true).unwrap();
            self.poll.registry().register(&mut stream, Token(self.next), Interest::READABLE).unwrap();
            let connection = Connection { stream, open: false, input: Vec::new(), ended: false };
            self.connections.insert(self.next, connection);
            self.shared.connections.fetch_add(1, SeqCst);
            self.next += 1;
        }
    }

    fn serve(&mut self, id: usize, mode: Mode) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let ended = connection.read().is_err();
        if mode == Mode::Stalls {
            connection.input.clear();
            if ended {
                self.end(id, true);
            }
            return;
        }
        let answered = self.answer(id, mode);
        if ended || answered.is_err() {
            self.end(id, false);
        }
    }

    /// An error: it is to be closed.
    fn answer(&mut self, id: usize, mode: Mode) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if !connection.open {
            if !connection.input.ends_with(b"\r\n\r\n") {
                return Ok(());
            }
            if mode == Mode::Closes {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            connection.input.clear();
            connection.stream.write_all(switching("").as_bytes())?;
            connection.open = true;
            self.shared.sessions.fetch_add(1, SeqCst);
        }
        while let Some((first, payload)) = take_frame(&mut connection.input) {
            if first == 0x88 {
                connection.stream.write_all(&plain(0x88, &payload))?;
                return Err(ErrorKind::ConnectionAborted.into());
            }
            let echo = plain(first, &[&[self.number], &payload[..]].concat());
            if mode == Mode::Slow {
                self.later.push_back((Instant::now() + SLOW, id, echo));
            } else {
                connection.stream.write_all(&echo)?;
            }
        }
        Ok(())
    }

    fn send_due(&mut self) {
        while self.later.front().is_some_and(|(at, ..)| *at <= Instant::now()) {
            let Some((_, id, echo)) = self.later.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.stream.write_all(&echo).is_err() {
                self.end(id, false);
            }
        }
    }

    /// Counts it as ended once, and closes it unless it is to be kept.
    fn end(&mut self, id: usize, keep: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.ended, true) {
            self.shared.connections.fetch_sub(1, SeqCst);
            self.shared.sessions.fetch_sub(usize::from(connection.open), SeqCst);
        }
        if !keep {
            self.connections.remove(&id);
        }
    }
}

impl Connection {
    /// An error: the stream has ended.
    fn read(&mut self) -> io::Result<()> {
        read_into(&mut self.stream, &mut self.input)
    }
}

/// All that there is. An error: the stream has ended.
pub fn read_into(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => input.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A whole short frame from the start of `input`: first byte and unmasked payload.
pub fn take_frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second, ..] = input[..] else { return None };
    let len = usize::from(second & 0x7f);
    assert!(len <= 125, "only short frames here");
    let start = if second & 0x80 == 0 { 2 } else { 6 };
    let frame: Vec<u8> = (input.len() >= start + len).then(|| input.drain(..start + len).collect())?;
    let key = if start == 6 { &frame[2..6] } else { &[0; 4] };
    Some((first, frame[start..].iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect()))
}
