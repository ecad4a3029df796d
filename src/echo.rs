//! The built-in backend of `framegate demo` and of the load generator: a WebSocket server that sends every
//! frame back. Owns its own `Poll` and runs on the caller's thread; knows nothing of the proxy but its pure
//! parts ([`crate::proto`]).
//!
//! Frames are answered as they stream by, fragments as fragments, so that no message is ever held: the most a
//! connection owns is what the kernel refused of one read, and nothing more is read until that is gone.
//! No extension and no subprotocol is selected; UTF-8 and close codes are not judged. Must stay faster than
//! whatever is measured in front of it.

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
/// What one read may bring; also the most that waits for one slow peer (with a few bytes of headers).
const READ_BYTES: usize = 128 << 10;
const READS_PER_TURN: usize = 8;
const HEAD_BYTES_MAX: usize = 16 << 10;
/// For the request head after the accept, and for the peer's FIN after our Close.
const DEADLINE: Duration = Duration::from_secs(10);
/// How soon `stop` is seen without [`Handle::wake`], and how often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// An echo server that is bound and not yet running.
pub struct Echo {
    poll: Poll,
    waker: Arc<Waker>,
    listener: Listener,
    /// Accepting stopped short: there will be no new edge for what still waits.
    accept_owed: bool,
    conns: Slab<Conn>,
    conns_made: u64,
    /// Connections put off because their turn was over, each once.
    ready: Vec<usize>,
    /// In the order they fall due. An entry counts only while it still is the connection's own deadline.
    deadlines: VecDeque<(Instant, usize, u64)>,
    scratch: Vec<u8>,
    out: Vec<u8>,
}

/// Wakes a running [`Echo`] so that it looks at its `stop` flag at once.
#[derive(Clone)]
pub struct Handle(Arc<Waker>);

impl Handle {
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

impl Echo {
    /// Listens on a TCP address; port 0 lets the kernel choose (see [`Echo::local_addr`]).
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
            accept_owed: false,
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

    /// Serves until `stop` is set, which it sees within 100 ms, or at once after [`Handle::wake`].
    /// Fails only when polling does; a connection's error ends that connection.
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
                    LISTENER => self.accept_owed = true,
                    Token(slot) => self.on_event(slot, event, now),
                }
            }
            for slot in std::mem::take(&mut self.ready) {
                self.turn(slot, now);
            }
            // Last, so that a slot freed above is not reused while events of its old owner are at hand.
            if self.accept_owed {
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
                    // Out of descriptors or memory: tried again at the next tick.
                    self.accept_owed = e.kind() != ErrorKind::WouldBlock;
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

    /// Lets a connection do what it can, within its budget.
    fn turn(&mut self, slot: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let was_closing = matches!(conn.phase, Phase::Closing { .. });
        conn.queued = false;
        let next = conn.advance(&mut self.scratch, &mut self.out).unwrap_or(Next::Over);
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
            // Not on the ready ring, so that the next owner of the slot gets no turn of ours.
            Next::Over => drop(self.conns.try_remove(slot)),
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
    /// For an event.
    Wait,
    /// The budget is used up and there may be more.
    Again,
    Over,
}

struct Conn {
    stream: Stream,
    /// Never reused, unlike the slot.
    id: u64,
    phase: Phase,
    /// What the kernel refused of the last output. Not empty: nothing is read.
    pending: Vec<u8>,
    readable: bool,
    writable: bool,
    /// FIN or RST is known: a short read proves nothing, and no further edge comes.
    read_closed: bool,
    /// On the ready ring.
    queued: bool,
    deadline: Option<Instant>,
}

/// `Head -> Open -> Closing`, or `Head -> Closing` on a request that is refused.
enum Phase {
    /// The request so far.
    Head(Vec<u8>),
    Open(Walk),
    /// The last of our output is on its way, or has left (`shut`); what still comes is thrown away until FIN.
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
            let Some((carry, space)) = scratch.split_first_chunk_mut::<CARRY_BYTES>() else { return Ok(Next::Over) };
            let n = match self.stream.read(space) {
                Ok(0) => return Ok(Next::Over),
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
                // Right before what was read, so that header and rest are one slice.
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

    /// Appends the answer to `bytes` to `out`.
    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.phase {
            Phase::Head(held) => {
                held.extend_from_slice(bytes);
                let held = std::mem::take(held);
                self.phase = answer(held, out);
            }
            Phase::Open(walk) => {
                if walk.echo(bytes, out) == Flow::Closed {
                    self.phase = Phase::Closing { shut: false };
                }
            }
            Phase::Closing { .. } => {}
        }
    }

    /// Tries the kernel first and owns only the remainder.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let sent = self.write(bytes)?;
        bytes = bytes.get(sent..).unwrap_or_default();
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether nothing waits any more.
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

    /// Writes what the kernel takes; less than all of it means blocked.
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

/// The phase after `held`: still the head, or what the answer written to `out` makes of it.
fn answer(held: Vec<u8>, out: &mut Vec<u8>) -> Phase {
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

/// The key of a request that asks for an upgrade as RFC 6455 section 4.1 says.
fn key_of<'a>(request: &httparse::Request<'_, 'a>) -> Option<&'a [u8]> {
    let field = |name: &str| request.headers.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value);
    let asked = request.method == Some("GET")
        && field("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && field("Sec-WebSocket-Version") == Some(b"13");
    field("Sec-WebSocket-Key").filter(|_| asked)
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
