//! The built-in backend of `framegate demo` and the load generator: a WebSocket server that echoes
//! every frame. Owns its `Poll` and runs on the caller's thread; of the proxy it uses only
//! [`crate::proto`].
//!
//! Frames are echoed as they arrive, fragments as fragments; messages are not buffered. A
//! connection buffers at most what the kernel did not accept of one read, and reads no more until
//! it is sent. Selects no extension or subprotocol, and checks neither UTF-8 nor close codes. Must
//! stay faster than the proxies measured in front of it.

mod walk;

use crate::proto::frame::HEADER_MAX;
use crate::proto::handshake::accept_of;
use mio::event::{Event, Source};
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use walk::{CARRY_BYTES, Flow, Walk};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const BACKLOG: i32 = 4096;
/// The largest read; also, with a few bytes of headers, the largest backlog of a connection.
const READ_BYTES: usize = 128 << 10;
const READS_PER_TURN: usize = 8;
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Time limit for the request head after accept, and for the peer's FIN after our Close.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often `stop` and deadlines are checked without [`Handle::wake`].
const TICK: Duration = Duration::from_millis(100);

/// A bound echo server; [`Echo::run`] starts it.
pub struct Echo {
    poll: Poll,
    waker: Arc<Waker>,
    listener: Listener,
    /// Accepting stopped early: no event will report the connections still queued.
    accept_pending: bool,
    conns: Slab<Conn>,
    conns_made: u64,
    /// Connections that used up their budget, each once.
    ready: Vec<usize>,
    /// In chronological order. An entry is valid only if it still is the deadline of its
    /// connection.
    deadlines: VecDeque<(Instant, usize, u64)>,
    scratch: Vec<u8>,
    out: Vec<u8>,
}

/// Wakes a running [`Echo`], which then checks its `stop` flag.
#[derive(Clone)]
pub struct Handle(Arc<Waker>);

impl Handle {
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

impl Echo {
    /// Listens on a TCP address; with port 0 the kernel selects a port (see [`Echo::local_addr`]).
    pub fn bind(addr: SocketAddr) -> io::Result<Echo> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Echo::new(Listener::Tcp(TcpListener::from_std(socket.into())))
    }

    /// Listens on a Unix socket. The path must be free; it is removed when the server is dropped.
    pub fn bind_unix(path: &Path) -> io::Result<Echo> {
        Echo::new(Listener::Unix(UnixListener::bind(path)?, path.to_owned()))
    }

    fn new(mut listener: Listener) -> io::Result<Echo> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        poll.registry().register(listener.source(), LISTENER, Interest::READABLE)?;
        Ok(Echo {
            poll,
            waker,
            listener,
            accept_pending: false,
            conns: Slab::new(),
            conns_made: 0,
            ready: Vec::new(),
            deadlines: VecDeque::new(),
            scratch: vec![0; CARRY_BYTES + READ_BYTES],
            out: Vec::with_capacity(CARRY_BYTES + READ_BYTES + HEADER_MAX),
        })
    }

    /// The TCP address; fails with `Unsupported` on a Unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Unix(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    pub fn handle(&self) -> Handle {
        Handle(self.waker.clone())
    }

    /// Serves until `stop` is set, which it notices within 100 ms, or at once after
    /// [`Handle::wake`].
    ///
    /// # Errors
    /// Polling failed. An error of a connection ends only that connection.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !stop.load(Ordering::Relaxed) {
            let timeout = if self.ready.is_empty() { TICK } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.accept_pending = true,
                    Token(slot) => self.on_event(slot, event, now),
                }
            }
            for slot in std::mem::take(&mut self.ready) {
                self.turn(slot, now);
            }
            // Last, so that a slot freed above is not reused while events for its previous
            // connection are pending.
            if self.accept_pending {
                self.accept(now);
            }
            self.expire(now);
        }
        Ok(())
    }

    fn on_event(&mut self, slot: usize, event: &Event, now: Instant) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.readable |= event.is_readable();
        conn.writable |= event.is_writable();
        conn.read_closed |= event.is_read_closed() || event.is_error();
        if !conn.queued {
            self.turn(slot, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        loop {
            match self.listener.accept() {
                Ok(mut stream) => {
                    let slot = self.conns.vacant_key();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if self.poll.registry().register(stream.source(), Token(slot), interest).is_err() {
                        continue;
                    }
                    self.conns_made += 1;
                    self.conns.insert(Conn::new(stream, self.conns_made));
                    self.set_deadline(slot, now);
                }
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    // Out of descriptors or memory: retried at the next tick.
                    self.accept_pending = e.kind() != ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn set_deadline(&mut self, slot: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let due = now + DEADLINE;
        conn.deadline = Some(due);
        self.deadlines.push_back((due, slot, conn.id));
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(due, slot, id)) = self.deadlines.front().filter(|(due, ..)| *due <= now) {
            self.deadlines.pop_front();
            if self.conns.get(slot).is_some_and(|conn| conn.id == id && conn.deadline == Some(due)) {
                self.conns.remove(slot);
            }
        }
    }

    /// Advances a connection, within its budget.
    fn turn(&mut self, slot: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let was_closing = matches!(conn.phase, Phase::Closing { .. });
        conn.queued = false;
        let next = conn.advance(&mut self.scratch, &mut self.out).unwrap_or(Next::Closed);
        if matches!(conn.phase, Phase::Open(_)) {
            conn.deadline = None;
        } else if !was_closing && matches!(conn.phase, Phase::Closing { .. }) {
            self.set_deadline(slot, now);
        }
        match next {
            Next::Wait => {}
            Next::Again => {
                self.ready.push(slot);
                if let Some(conn) = self.conns.get_mut(slot) {
                    conn.queued = true;
                }
            }
            // It is not on the ready ring, so its successor in the slot gets no extra turn.
            Next::Closed => drop(self.conns.try_remove(slot)),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener {
            let _ = std::fs::remove_file(path);
        }
    }
}

enum Next {
    /// Wait for an event.
    Wait,
    /// The budget is used up and there may be more.
    Again,
    Closed,
}

struct Conn {
    stream: Stream,
    /// Unique, unlike the slot.
    id: u64,
    phase: Phase,
    /// Output that the kernel did not accept. While there is some, nothing is read.
    pending: Vec<u8>,
    readable: bool,
    writable: bool,
    /// FIN or RST was reported: a short read is then no sign of an empty queue, and no further
    /// event follows.
    read_closed: bool,
    /// On the ready ring.
    queued: bool,
    deadline: Option<Instant>,
}

/// `Head -> Open -> Closing`, or `Head -> Closing` for a refused request.
enum Phase {
    /// The bytes of the request received so far.
    Head(Vec<u8>),
    Open(Walk),
    /// The last output is being sent, or was sent (`shut`). Input is discarded until FIN.
    Closing {
        shut: bool,
    },
}

impl Conn {
    fn new(stream: Stream, id: u64) -> Conn {
        Conn {
            stream,
            id,
            phase: Phase::Head(Vec::new()),
            pending: Vec::new(),
            readable: false,
            writable: false,
            read_closed: false,
            queued: false,
            deadline: None,
        }
    }

    fn advance(&mut self, scratch: &mut [u8], out: &mut Vec<u8>) -> io::Result<Next> {
        for _ in 0..READS_PER_TURN {
            if !self.flush()? {
                return Ok(Next::Wait);
            }
            if let Phase::Closing { shut: shut @ false } = &mut self.phase {
                *shut = true;
                self.stream.shutdown()?;
            }
            if !self.readable {
                return Ok(Next::Wait);
            }
            let Some((carry, space)) = scratch.split_first_chunk_mut::<CARRY_BYTES>() else { return Ok(Next::Closed) };
            let n = match self.stream.read(space) {
                Ok(0) => return Ok(Next::Closed),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Next::Wait);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.readable = n == space.len() || self.read_closed;
            let start = self.carried().map_or(0, |held| {
                // Right before the bytes read, so that the header is contiguous.
                for (to, from) in carry.iter_mut().rev().zip(held.iter().rev()) {
                    *to = *from;
                }
                held.len()
            });
            out.clear();
            self.on_bytes(scratch.get(CARRY_BYTES - start..CARRY_BYTES + n).unwrap_or_default(), out);
            self.send(out)?;
        }
        Ok(Next::Again)
    }

    fn carried(&self) -> Option<&[u8]> {
        match &self.phase {
            Phase::Open(walk) => Some(walk.carried()),
            _ => None,
        }
    }

    /// Appends the response to `bytes` to `out`.
    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.phase {
            Phase::Head(held) => {
                held.extend_from_slice(bytes);
                let held = std::mem::take(held);
                self.phase = respond(held, out);
            }
            Phase::Open(walk) => {
                if walk.echo(bytes, out) == Flow::Closed {
                    self.phase = Phase::Closing { shut: false };
                }
            }
            Phase::Closing { .. } => {}
        }
    }

    /// Writes to the socket and keeps only the rest.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let sent = self.write(bytes)?;
        bytes = bytes.get(sent..).unwrap_or_default();
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes pending output. Returns whether all is sent.
    fn flush(&mut self) -> io::Result<bool> {
        if self.pending.is_empty() {
            return Ok(true);
        }
        let pending = std::mem::take(&mut self.pending);
        let sent = self.write(&pending)?;
        if sent < pending.len() {
            self.pending = pending;
            self.pending.drain(..sent);
        }
        Ok(self.pending.is_empty())
    }

    /// Writes as much as the kernel accepts; less than all of it means blocked.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = bytes.get(sent..)
            && self.writable
        {
            match self.stream.write(rest) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }
}

/// The phase after the request bytes `held`; the response, if any, is appended to `out`.
fn respond(held: Vec<u8>, out: &mut Vec<u8>) -> Phase {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(&held) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if held.len() < HEAD_BYTES_MAX => return Phase::Head(held),
        _ => return refuse("400 Bad Request", out),
    };
    let Some(key) = key_of(&request) else { return refuse("426 Upgrade Required", out) };
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(&accept_of(key));
    out.extend_from_slice(b"\r\n\r\n");
    let mut walk = Walk::default();
    match walk.echo(held.get(end..).unwrap_or_default(), out) {
        Flow::Open => Phase::Open(walk),
        Flow::Closed => Phase::Closing { shut: false },
    }
}

/// The key of a valid upgrade request (RFC 6455 section 4.1).
fn key_of<'a>(request: &httparse::Request<'_, 'a>) -> Option<&'a [u8]> {
    let field = |name: &str| request.headers.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value);
    let is_upgrade = request.method == Some("GET")
        && field("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && field("Sec-WebSocket-Version") == Some(b"13");
    field("Sec-WebSocket-Key").filter(|_| is_upgrade)
}

fn refuse(status: &str, out: &mut Vec<u8>) -> Phase {
    let body = "This is a WebSocket echo server.\n";
    let extra =
        "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\nContent-Type: text/plain";
    let head = format!("HTTP/1.1 {status}\r\n{extra}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    out.extend_from_slice(head.as_bytes());
    Phase::Closing { shut: false }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Listener::Tcp(listener) => listener,
            Listener::Unix(listener, _) => listener,
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => Ok(Stream::Tcp(listener.accept()?.0)),
            Listener::Unix(listener, _) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(space),
            Stream::Unix(stream) => stream.read(space),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}
