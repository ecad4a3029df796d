//! The bare byte relay: the least that any proxy must do for a message, one recv and one send. What
//! a proxy costs is given as a multiple of this. Owns one thread, one edge-triggered `Poll`, one
//! buffer.
//!
//! Sockets are registered once for both directions and carry the options of the proxy's own. A
//! short read means an empty socket, unless FIN or RST is known. What a socket does not accept
//! waits in a backlog of its own, and its source is not read until that is gone. Knows nothing of
//! frames, and has no timeouts.

use crate::net::tls::{Accepted, Acceptor};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use slab::Slab;
use socket2::{Domain, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 64 << 10;
const PIPE_BYTES: usize = 256 << 10;
const BACKLOG: i32 = 4096;
const READS_PER_TURN: usize = 4;
const NOTSENT_LOWAT_BYTES: u32 = 128 << 10;
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Relays every connection made to `listen` to `upstream`, for ever. With `splice` bytes pass
/// through a pipe in the kernel instead of through the buffer; with `tls` clients speak that.
pub fn run(listen: SocketAddr, upstream: SocketAddr, splice: bool, tls: Option<Acceptor>) -> io::Result<()> {
    crate::proc::raise_descriptor_limit().map_err(|e| io::Error::other(e.to_string()))?;
    let mut relay = Relay::bind(listen, upstream)?;
    (relay.splices, relay.tls) = (splice, tls);
    // For a parent that started this with port 0.
    println!("listening on {}", relay.listener.local_addr()?);
    let mut events = Events::with_capacity(1024);
    loop {
        let timeout = (!relay.ready.is_empty()).then_some(Duration::ZERO);
        match relay.poll.poll(&mut events, timeout) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
            _ => relay.on_events(&events),
        }
    }
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    upstream: SocketAddr,
    splices: bool,
    tls: Option<Acceptor>,
    pairs: Slab<[End; 2]>,
    /// Flows put off because their turn was over: pair and source.
    ready: Vec<(usize, usize)>,
    /// Freed at the end of the batch, when no event of it can name them any more.
    ended: Vec<usize>,
    buffers: Buffers,
}

/// Of the whole relay.
struct Buffers {
    read: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

/// One socket of a pair: index 0 the client's, 1 the upstream's.
struct End {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    /// FIN or RST is known: a short read proves nothing.
    read_closed: bool,
    /// FIN has been read, and passed on.
    ended: bool,
    /// Bytes on their way to this socket that it refused.
    backlog: Vec<u8>,
    /// Of a splicing relay: what is on its way to this socket, and how much that is.
    pipe: Option<(OwnedFd, OwnedFd)>,
    held: usize,
    tls: Option<Accepted>,
}

enum Next {
    Wait,
    Again,
    Over,
}

impl Relay {
    fn bind(listen: SocketAddr, upstream: SocketAddr) -> io::Result<Relay> {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        set_options(&socket)?;
        socket.bind(&listen.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let buffers = Buffers { read: vec![0; BUFFER_BYTES], plain: Vec::new(), sealed: Vec::new() };
        let (pairs, splices, tls) = (Slab::new(), false, None);
        Ok(Relay { poll, listener, upstream, splices, tls, pairs, ready: Vec::new(), ended: Vec::new(), buffers })
    }

    fn on_events(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                LISTENER => self.accept(),
                Token(token) => self.on_event(token / 2, token % 2, event),
            }
        }
        for (slot, from) in std::mem::take(&mut self.ready) {
            self.flow(slot, from);
        }
        for slot in self.ended.drain(..) {
            self.pairs.try_remove(slot);
        }
    }

    fn on_event(&mut self, slot: usize, role: usize, event: &Event) {
        let Some(end) = self.pairs.get_mut(slot).and_then(|pair| pair.get_mut(role)) else { return };
        let was_writable = end.writable;
        end.readable |= event.is_readable();
        end.writable |= event.is_writable();
        end.read_closed |= event.is_read_closed() || event.is_error();
        if end.readable {
            self.flow(slot, role);
        }
        // With both directions registered every event says writable; only a change of it is news.
        if !was_writable {
            self.flow(slot, 1 - role);
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((client, _)) => {
                    // A client whose upstream cannot even be tried is closed.
                    if let Err(e) = connect(self.upstream).and_then(|upstream| self.open(client, upstream)) {
                        eprintln!("relay: cannot connect to the upstream: {e}");
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                // Out of descriptors: a measuring tool may strand its clients, but must not spin or
                // hide it.
                Err(e) => return eprintln!("relay: cannot accept: {e}"),
            }
        }
    }

    fn open(&mut self, client: TcpStream, upstream: TcpStream) -> io::Result<()> {
        let slot = self.pairs.vacant_key();
        let registry = self.poll.registry();
        let mut pair = [End::new(client, slot * 2, registry)?, End::new(upstream, slot * 2 + 1, registry)?];
        pair[0].tls = self.tls.as_ref().map(Acceptor::accept).transpose()?;
        self.pairs.insert(pair);
        Ok(())
    }

    /// Moves bytes from end `from` to the other, within the budget.
    fn flow(&mut self, slot: usize, from: usize) {
        let Some([client, upstream]) = self.pairs.get_mut(slot) else { return };
        let (source, dest) = if from == 0 { (client, upstream) } else { (upstream, client) };
        let next = if self.splices { splice_once(source, dest) } else { advance(source, dest, &mut self.buffers) };
        match next {
            Ok(Next::Wait) => {}
            Ok(Next::Again) => self.ready.push((slot, from)),
            Ok(Next::Over) | Err(_) => self.ended.push(slot),
        }
    }
}

fn advance(source: &mut End, dest: &mut End, buffers: &mut Buffers) -> io::Result<Next> {
    for _ in 0..READS_PER_TURN {
        // Not writable yet: still connecting.
        if !dest.writable || !dest.flush()? || !source.readable || source.ended {
            return Ok(Next::Wait);
        }
        match source.stream.read(&mut buffers.read) {
            Ok(0) => return end(source, dest, buffers),
            Ok(n) => {
                source.readable = n == buffers.read.len() || source.read_closed;
                if pass(source, dest, n, buffers)? {
                    return end(source, dest, buffers);
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => source.readable = false,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(if source.readable { Next::Again } else { Next::Wait })
}

/// Passes on the first `n` bytes that were read. Whether TLS has ended with them.
fn pass(source: &mut End, dest: &mut End, n: usize, buffers: &mut Buffers) -> io::Result<bool> {
    let Buffers { read, plain, sealed } = buffers;
    plain.clear();
    sealed.clear();
    let mut ended = false;
    match (&mut source.tls, &mut dest.tls) {
        (Some(tls), _) => {
            ended = tls.open(&read[..n], plain, sealed)?;
            source.send(sealed)?;
            dest.send(plain)?;
        }
        (None, Some(tls)) => {
            tls.seal(&read[..n], sealed)?;
            dest.send(sealed)?;
        }
        (None, None) => dest.send(&read[..n])?,
    }
    Ok(ended)
}

/// The source says no more.
fn end(source: &mut End, dest: &mut End, buffers: &mut Buffers) -> io::Result<Next> {
    source.ended = true;
    if let Some(tls) = &mut dest.tls {
        buffers.sealed.clear();
        tls.close(&mut buffers.sealed)?;
        dest.send(&buffers.sealed)?;
    }
    dest.stream.shutdown(Shutdown::Write)?;
    Ok(if dest.ended { Next::Over } else { Next::Wait })
}

/// The same through a pipe; one splice in and one out a turn.
fn splice_once(source: &mut End, dest: &mut End) -> io::Result<Next> {
    if dest.pipe.is_none() {
        let flags = PipeFlags::NONBLOCK | PipeFlags::CLOEXEC;
        let (from, into) = pipe_with(flags)?;
        // Who may not have so much has a smaller one.
        let _granted = fcntl_setpipe_size(&into, PIPE_BYTES);
        dest.pipe = Some((from, into));
    }
    for _ in 0..READS_PER_TURN {
        if !dest.writable || !dest.drain()? || !source.readable || source.ended {
            return Ok(Next::Wait);
        }
        let Some((_, into)) = &dest.pipe else { return Ok(Next::Wait) };
        match splice(&source.stream, None, into, None, PIPE_BYTES, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Ok(0) => {
                source.ended = true;
                dest.stream.shutdown(Shutdown::Write)?;
                return Ok(if dest.ended { Next::Over } else { Next::Wait });
            }
            Ok(n) => dest.held = n,
            Err(Errno::AGAIN) => source.readable = false,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(if source.readable || dest.held > 0 { Next::Again } else { Next::Wait })
}

impl End {
    /// Empties the pipe into the socket; whether nothing is left.
    fn drain(&mut self) -> io::Result<bool> {
        let Some((from, _)) = &self.pipe else { return Ok(true) };
        while self.held > 0 && self.writable {
            match splice(from, None, &self.stream, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
                Ok(n) => self.held -= n,
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(self.held == 0)
    }

    fn new(mut stream: TcpStream, token: usize, registry: &Registry) -> io::Result<End> {
        registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let backlog = Vec::new();
        Ok(End {
            stream,
            readable: false,
            writable: false,
            read_closed: false,
            ended: false,
            backlog,
            pipe: None,
            held: 0,
            tls: None,
        })
    }

    /// Tries the kernel first; only what it refuses is kept.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if !self.backlog.is_empty() {
            sent = bytes.len();
            self.backlog.extend_from_slice(bytes);
        }
        while sent < bytes.len() && self.writable {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.backlog.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Whether nothing waits any more.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.backlog.is_empty() {
            let backlog = std::mem::take(&mut self.backlog);
            self.send(&backlog)?;
        }
        Ok(self.backlog.is_empty())
    }
}

fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(upstream), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    set_options(&socket)?;
    match socket.connect(&upstream.into()) {
        // EINPROGRESS; the first writable event says that it is up, an error event that it is not.
        Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(e),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// The same as the proxy's; accepted sockets inherit them from the listener.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}
