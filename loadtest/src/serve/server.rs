//! The loop of the server roles: accepts, answers opening handshakes, reads messages, queues what a
//! client does not accept, and reports to the role. One thread, one edge-triggered poll, a
//! timerfd for what is due. A client at rest owns no buffer.

use crate::Failure;
use crate::net::frames::{Frames, Piece};
use crate::run::group::Clock;
use framegate::proto::frame::{Header, opcode};
use framegate::proto::handshake::accept_of;
use framegate::proto::mask::mask;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use slab::Slab;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
const BACKLOG: i32 = 4096;
const HEAD_MAX: usize = 16 << 10;
const MESSAGE_MAX: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;
const READS_MAX: usize = 8;
/// Signals are looked for at least this often.
const LOOK: Duration = Duration::from_millis(200);

/// What a server does with its clients. All methods have a default but the totals.
pub trait Role {
    /// The response to an opening handshake whose Sec-WebSocket-Accept is `accept`, and what
    /// follows it.
    fn handshake(&mut self, _number: u32, accept: &str) -> (Vec<u8>, After) {
        (switching(accept), After::Open)
    }
    fn opened(&mut self, _peer: &mut Peer, _now: u64) {}
    /// A whole message, unmasked.
    fn message(&mut self, _peer: &mut Peer, _payload: &mut Vec<u8>, _text: bool, _now: u64) -> After {
        After::Open
    }
    /// Everything for this client has been sent.
    fn flushed(&mut self, _peer: &mut Peer, _now: u64) {}
    /// Pause of reading after this number of bytes, in nanoseconds.
    fn pause(&self, _bytes: usize) -> u64 {
        0
    }
    /// When [`Role::on_time`] wants to be called.
    fn due(&self) -> Option<u64> {
        None
    }
    fn on_time(&mut self, _peers: &mut Slab<Peer>, _now: u64) {}
    fn gone(&mut self, _slot: usize) {}
    /// One line for the end.
    fn totals(&self) -> String;
    /// For stamps.
    fn set_clock(&mut self, _clock: Clock) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Open,
    /// FIN when everything has left.
    End,
    Reset,
    /// Neither read nor written any more, but kept open.
    Silence,
}

/// One client.
pub struct Peer {
    stream: TcpStream,
    pub slot: usize,
    /// Counts the clients from 0; names it in stamps.
    pub number: u32,
    /// Messages sent or echoed to it so far.
    pub count: u64,
    pub is_open: bool,
    head: Vec<u8>,
    frames: Frames,
    message: Vec<u8>,
    out: Vec<u8>,
    readable: bool,
    writable: bool,
    hangup: bool,
    after: After,
    paused_until: u64,
}

impl Peer {
    /// Sends, and queues what the kernel does not accept.
    pub fn send(&mut self, bytes: &[u8]) {
        if !matches!(self.after, After::Open) {
            return;
        }
        let mut sent = 0;
        while self.out.is_empty() && self.writable && sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A broken one is found out by the next read.
                Err(_) => self.writable = false,
            }
        }
        self.out.extend_from_slice(&bytes[sent..]);
    }

    /// Bytes queued for it.
    pub fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Ends it as soon as everything has left.
    pub fn end(&mut self) {
        self.after = After::End;
    }

    fn flush(&mut self) {
        if self.out.is_empty() || !self.writable {
            return;
        }
        let out = std::mem::take(&mut self.out);
        let after = std::mem::replace(&mut self.after, After::Open);
        self.send(&out);
        self.after = after;
    }
}

/// A frame of a server.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(payload.len() + 10);
    Header { fin: true, rsv: 0, opcode, mask: None, payload_len: payload.len() as u64 }.write(&mut wire);
    wire.extend_from_slice(payload);
    wire
}

pub fn switching(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

struct Server<R> {
    poll: Poll,
    listener: TcpListener,
    timer: std::os::fd::OwnedFd,
    peers: Slab<Peer>,
    accepted: u32,
    ready: Vec<usize>,
    clock: Clock,
    buffer: Vec<u8>,
    role: R,
}

/// Serves until SIGINT or SIGTERM, then prints the role's totals.
pub fn run(listen: SocketAddr, mut role: impl Role) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let listener = bind(listen).map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    // For a parent that started this with port 0.
    println!("listening on {}", listener.local_addr()?);
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let clock = Clock::start();
    role.set_clock(clock);
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let (peers, ready, buffer) = (Slab::new(), Vec::new(), vec![0; READ_BYTES]);
    let mut server = Server { poll, listener, timer, peers, accepted: 0, ready, clock, buffer, role };
    server.poll.registry().register(&mut server.listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    while !stop.load(Ordering::Relaxed) {
        server.turn(&mut events)?;
    }
    println!("{}", server.role.totals());
    Ok(())
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl<R: Role> Server<R> {
    fn turn(&mut self, events: &mut Events) -> Result<(), Failure> {
        let now = self.clock.now();
        if self.role.due().is_some_and(|due| due <= now) {
            self.role.on_time(&mut self.peers, now);
        }
        let paused = self.ready.iter().filter_map(|slot| self.peers.get(*slot)).map(|peer| peer.paused_until).min();
        let due = [self.role.due(), paused].into_iter().flatten().min();
        let timeout = match due {
            Some(due) if due <= self.clock.now() => Duration::ZERO,
            Some(due) => {
                let wait = Duration::from_nanos(due - self.clock.now().min(due - 1));
                let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) as _ };
                let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
                LOOK
            }
            None => LOOK,
        };
        match self.poll.poll(events, Some(timeout)) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e.into()),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept()?,
                TIMER => {}
                Token(slot) => {
                    if let Some(peer) = self.peers.get_mut(slot) {
                        peer.hangup |= event.is_read_closed() || event.is_error();
                        peer.readable |= event.is_readable() || peer.hangup;
                        peer.writable |= event.is_writable();
                    }
                    self.serve(slot);
                }
            }
        }
        for slot in std::mem::take(&mut self.ready) {
            self.serve(slot);
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => continue,
                Err(e) => {
                    eprintln!("cannot accept: {e}");
                    return Ok(());
                }
            };
            let entry = self.peers.vacant_entry();
            let slot = entry.key();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(slot), interest)?;
            entry.insert(Peer {
                stream,
                slot,
                number: self.accepted,
                count: 0,
                is_open: false,
                head: Vec::new(),
                frames: Frames::of_client(),
                message: Vec::new(),
                out: Vec::new(),
                readable: false,
                writable: false,
                hangup: false,
                after: After::Open,
                paused_until: 0,
            });
            self.accepted = self.accepted.wrapping_add(1);
        }
    }

    fn serve(&mut self, slot: usize) {
        let now = self.clock.now();
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let had_backlog = !peer.out.is_empty();
        peer.flush();
        if had_backlog && peer.out.is_empty() && peer.is_open {
            self.role.flushed(peer, now);
        }
        let keeps = self.read(slot, now);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let over = match peer.after {
            _ if !keeps => true,
            After::Reset => {
                // If the option fails, closing still ends it.
                let _soft = SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO));
                true
            }
            After::End if peer.out.is_empty() => {
                let _gone = peer.stream.shutdown(Shutdown::Write);
                false
            }
            _ => false,
        };
        if over {
            self.role.gone(slot);
            self.peers.remove(slot);
        } else if peer.readable && !matches!(peer.after, After::Silence) {
            self.ready.push(slot);
        }
    }

    /// Whether the connection stays open.
    fn read(&mut self, slot: usize, now: u64) -> bool {
        for _ in 0..READS_MAX {
            let Some(peer) = self.peers.get_mut(slot) else { return false };
            if !peer.readable || peer.paused_until > now || matches!(peer.after, After::Silence | After::Reset) {
                return true;
            }
            let n = match peer.stream.read(&mut self.buffer) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    peer.readable = false;
                    return true;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            peer.readable = n == self.buffer.len() || peer.hangup;
            peer.paused_until = now + self.role.pause(n);
            if peer.paused_until > now {
                // Looked at again when the pause is over.
                peer.readable = true;
            }
            if matches!(peer.after, After::End) {
                continue;
            }
            let bytes = self.buffer[..n].to_vec();
            if on_bytes(&mut self.role, peer, &bytes, now).is_err() {
                return false;
            }
        }
        true
    }
}

/// What a client sent is nothing that this server speaks.
struct Broken;

fn on_bytes(role: &mut impl Role, peer: &mut Peer, bytes: &[u8], now: u64) -> Result<(), Broken> {
    if peer.is_open {
        return on_frames(role, peer, bytes, now);
    }
    peer.head.extend_from_slice(bytes);
    let Some(end) = peer.head.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        return if peer.head.len() > HEAD_MAX { Err(Broken) } else { Ok(()) };
    };
    let head = std::mem::take(&mut peer.head);
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(&head).map_err(|_| Broken)?;
    let key = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = accept_of(key.ok_or(Broken)?.value);
    let accept = str::from_utf8(&accept).map_err(|_| Broken)?;
    let (answer, after) = role.handshake(peer.number, accept);
    peer.send(&answer);
    peer.after = after;
    peer.is_open = after == After::Open;
    if peer.is_open {
        role.opened(peer, now);
        on_frames(role, peer, head.get(end..).unwrap_or(&[]), now)?;
    }
    Ok(())
}

fn on_frames(role: &mut impl Role, peer: &mut Peer, mut bytes: &[u8], now: u64) -> Result<(), Broken> {
    while let Some(piece) = peer.frames.next(&mut bytes).map_err(|_| Broken)? {
        match piece {
            Piece::Data { bytes, text, last, key } => {
                let at = peer.message.len();
                if at + bytes.len() > MESSAGE_MAX {
                    return Err(Broken);
                }
                peer.message.extend_from_slice(bytes);
                mask(&mut peer.message[at..], key.unwrap_or_default(), 0);
                if !last {
                    continue;
                }
                let mut message = std::mem::take(&mut peer.message);
                let after = role.message(peer, &mut message, text, now);
                if after != After::Open {
                    peer.after = after;
                    return Ok(());
                }
            }
            Piece::Ping(payload) => peer.send(&frame(opcode::PONG, &payload)),
            Piece::Pong(_) => {}
            Piece::Close(code) => {
                let payload = if code == 1005 { vec![] } else { code.to_be_bytes().to_vec() };
                peer.send(&frame(opcode::CLOSE, &payload));
                peer.after = After::End;
                return Ok(());
            }
        }
    }
    Ok(())
}
