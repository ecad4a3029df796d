//! The simulated kernel: stream sockets with finite buffers, the wire between them, and the
//! readiness bits of Linux (`tcp_poll`, `unix_poll`). Owns every socket of a schedule, the worker's
//! and the peers'. Written from the rules of the real kernel; knows nothing of HTTP, WebSocket or
//! the worker. Epoll is in `world.rs`, faults occur in `calls.rs` only: the code here is exact.

use crate::buf::Buf;
use crate::faults::{Fault, Faults};
use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

pub type Id = usize;
/// Microseconds of virtual time.
pub type Micros = u64;

/// Errors by number, as the kernel returns them.
pub type Sys<T> = Result<T, i32>;

/// The index of the first callee among the peers.
pub const CALLEES: usize = 1 << 16;
/// Where those of shadows begin.
pub const MIRRORS: usize = 1 << 17;
/// Where clients and servers of plain HTTP begin.
pub const PLAINS: usize = 1 << 18;
pub const PLAIN_SERVERS: usize = 1 << 19;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Worker,
    /// Index of a peer, woken by each change of its socket. Those of callees begin at [`CALLEES`],
    /// and so on.
    Peer(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    #[default]
    Connecting,
    Up,
    /// The connection failed.
    Failed,
}

/// An event at a moment of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Segments that this socket sent are due at the other end.
    Arrive(Id),
    /// Memory for this socket's sends is there again.
    Space(Id),
    /// The data that a short read left out.
    Reveal(Id),
    Connected(Id),
    Refused(Id),
    /// A RST in reply to data for a closed socket.
    Bounced(Id),
    /// A client's connection reaches the listener's queue.
    Queue(Id),
    /// A peer's own timer.
    Peer(usize),
    /// The service of a session gives its answer.
    Answer(usize),
    /// The n-th change of the upstream of a session.
    Change(usize, usize),
    /// The handshake that began with this change is over.
    Over(usize, usize),
    /// Control looks for endpoints of a session's upstream that have gone down.
    Sweep(usize),
    /// An administrator revokes the credentials of a session.
    Revoke(usize),
    /// For a planted bug: the socket of a call that was given up is closed only now.
    Cancelled(Id),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    /// One byte, out of band.
    Urgent,
    Fin,
    /// A Unix socket was closed: end of data, and no more is accepted.
    Gone,
    Rst,
}

#[derive(Debug, Clone, Copy)]
pub struct Segment {
    pub at: Micros,
    pub len: usize,
    pub kind: Kind,
}

/// One end of a connection.
#[derive(Debug, Default)]
pub struct Sock {
    pub owner: Option<Owner>,
    pub unix: bool,
    pub link: Link,
    pub peer: Option<Id>,
    /// Its owner closed it; the kernel still sends what was queued.
    pub closed: bool,
    pub rx: Buf,
    pub rx_max: usize,
    /// Bytes of `rx` that a read may see: `visible <= rx.len()`.
    pub visible: usize,
    /// Bytes that were looked at and not read: they stay visible.
    pub peeked: usize,
    /// Stream position of an urgent byte that no read has passed.
    pub mark: Option<u64>,
    pub rx_fin: bool,
    /// Unsent and unacknowledged.
    pub out: Buf,
    pub out_max: usize,
    pub segments: VecDeque<Segment>,
    pub last_at: Micros,
    pub fin_sent: bool,
    /// SOCK_NOSPACE: the owner waits for room.
    pub nospace: bool,
    /// No memory for sends until then.
    pub pressed_until: Micros,
    /// `sk_err`: reported once.
    pub error: Option<i32>,
    /// Both directions have ended: RST sent or received, or the other end of a Unix socket is
    /// closed.
    pub dead: bool,
    /// When this end received a RST.
    pub was_reset: bool,
    pub token: Option<usize>,
    /// On epoll's ready list.
    pub ready: bool,
}

impl Sock {
    fn clear(&mut self) {
        self.rx.reset();
        self.out.reset();
        self.segments.clear();
        let (rx, out, segments) =
            (std::mem::take(&mut self.rx), std::mem::take(&mut self.out), std::mem::take(&mut self.segments));
        *self = Sock { rx, out, segments, ..Sock::default() };
    }

    /// `sk_stream_is_writeable`: a third of the buffer must be free before room is reported.
    pub fn has_space(&self, now: Micros) -> bool {
        let queued = self.out.len();
        queued < self.out_max && self.out_max - queued >= queued / 2 && now >= self.pressed_until
    }

    /// What one read can return: up to the urgent mark, or beyond it if the mark is first.
    fn readable_now(&self) -> bool {
        let only_mark = self.mark == Some(self.rx.passed) && self.visible == 1;
        self.visible > 0 && !only_mark
    }
}

/// Readiness at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bits {
    pub input: bool,
    pub output: bool,
    pub read_hup: bool,
    pub hup: bool,
    pub error: bool,
    pub urgent: bool,
}

impl Bits {
    pub fn any(self) -> bool {
        self.input || self.output || self.read_hup || self.hup || self.error || self.urgent
    }
}

#[derive(Debug, Default)]
pub struct Kernel {
    pub now: Micros,
    pub rng: Rng,
    pub faults: Faults,
    pub socks: Vec<Sock>,
    /// Sockets of this schedule; the rest of `socks` is spare memory.
    used: usize,
    due: BinaryHeap<Reverse<(Micros, u32, What)>>,
    seq: u32,
    /// Sockets of the worker with an event to report, in order.
    pub ready: VecDeque<Id>,
    /// Peers with a change of their socket.
    pub woken: VecDeque<usize>,
    /// Sessions whose service is to give its answer.
    pub answering: Vec<usize>,
    /// Changes of the upstreams of sessions that happen now.
    pub changing: Vec<(usize, usize)>,
    /// The handshakes of other workers that are over.
    pub over: Vec<(usize, usize)>,
    /// The upstreams whose endpoints control looks at.
    pub sweeping: Vec<usize>,
    /// The sessions whose credentials are revoked now.
    pub revoking: Vec<usize>,
    /// Descriptors that the worker holds, and how many it ever had.
    pub open_fds: usize,
    pub opened_fds: u64,
    pub trace: bool,
    /// Of everything that the worker asked for and got in this schedule.
    pub digest: u64,
}

macro_rules! trace {
    ($kernel:expr, $($arg:tt)*) => {
        if $kernel.trace {
            eprintln!("{:>12} us  {}", $kernel.now, format_args!($($arg)*));
        }
    };
}
pub(crate) use trace;

impl Kernel {
    pub fn begin(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
        self.now = 1_000_000;
        self.used = 0;
        self.due.clear();
        self.seq = 0;
        self.ready.clear();
        self.woken.clear();
        self.answering.clear();
        self.changing.clear();
        self.over.clear();
        self.sweeping.clear();
        self.revoking.clear();
        self.digest = 0;
        (self.open_fds, self.opened_fds) = (0, 0);
    }

    pub fn in_use(&self) -> &[Sock] {
        &self.socks[..self.used]
    }

    // --- time

    pub fn at(&mut self, at: Micros, what: What) {
        self.seq += 1;
        self.due.push(Reverse((at, self.seq, what)));
    }

    pub fn next_due(&self) -> Option<Micros> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Carries out all due events; peers are only put on `woken`.
    pub fn run_due(&mut self) -> Option<Id> {
        while let Some(&Reverse((at, _, what))) = self.due.peek() {
            if at > self.now {
                return None;
            }
            self.due.pop();
            match what {
                What::Arrive(id) => self.arrive(id),
                What::Space(id) => self.space(id),
                What::Reveal(id) => self.reveal(id),
                What::Connected(id) => self.connected(id),
                What::Refused(id) => self.refuse(id),
                What::Bounced(id) => self.take_rst(id),
                What::Peer(peer) => self.wake_peer(peer),
                What::Answer(session) => self.answering.push(session),
                What::Change(session, n) => self.changing.push((session, n)),
                What::Over(session, n) => self.over.push((session, n)),
                What::Sweep(session) => self.sweeping.push(session),
                What::Revoke(session) => self.revoking.push(session),
                What::Cancelled(id) => self.close(id),
                What::Queue(id) => return Some(id),
            }
            if !self.woken.is_empty()
                || !self.answering.is_empty()
                || !self.changing.is_empty()
                || !self.over.is_empty()
                || !self.sweeping.is_empty()
                || !self.revoking.is_empty()
            {
                return None;
            }
        }
        None
    }

    /// Adds one fact to the digest.
    pub fn fold(&mut self, fact: u64) {
        self.digest = (self.digest.rotate_left(5) ^ fact).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub fn delay(&mut self) -> Micros {
        match self.rng.below(4) {
            0 | 1 => 0,
            2 => self.rng.below(100),
            _ => self.rng.below(2_000),
        }
    }

    // --- sockets

    /// A new pair of ends, not yet connected.
    pub fn pair(&mut self, near: Owner, far: Owner, unix: bool) -> (Id, Id) {
        let (a, b) = (self.used, self.used + 1);
        self.used += 2;
        while self.socks.len() < self.used {
            self.socks.push(Sock::default());
        }
        for (id, other, owner) in [(a, b, near), (b, a, far)] {
            let sock = &mut self.socks[id];
            sock.clear();
            sock.owner = Some(owner);
            sock.unix = unix;
            sock.peer = Some(other);
            (sock.rx_max, sock.out_max) = (1 << 16, 1 << 16);
        }
        (a, b)
    }

    pub fn windows(&mut self, id: Id, rx_max: usize, out_max: usize) {
        (self.socks[id].rx_max, self.socks[id].out_max) = (rx_max, out_max);
    }

    /// Creates a descriptor of the worker.
    pub fn hold(&mut self) {
        self.open_fds += 1;
        self.opened_fds += 1;
    }

    pub fn connected(&mut self, id: Id) {
        if self.socks[id].link != Link::Connecting || self.socks[id].closed {
            return;
        }
        let peer = self.socks[id].peer;
        for id in [Some(id), peer].into_iter().flatten() {
            self.socks[id].link = Link::Up;
            self.wake(id);
        }
    }

    fn refuse(&mut self, id: Id) {
        let sock = &mut self.socks[id];
        if sock.link == Link::Connecting && !sock.closed {
            sock.link = Link::Failed;
            sock.error = Some(libc::ECONNREFUSED);
            sock.dead = true;
            self.wake(id);
        }
    }

    pub fn bits(&mut self, id: Id) -> Bits {
        let now = self.now;
        let sock = &mut self.socks[id];
        if sock.link == Link::Connecting {
            return Bits::default();
        }
        let over = sock.dead;
        let output = over || sock.fin_sent || sock.has_space(now);
        sock.nospace |= !output;
        Bits {
            input: over || sock.rx_fin || sock.readable_now(),
            output,
            read_hup: over || sock.rx_fin,
            hup: over || sock.rx_fin && sock.fin_sent,
            error: sock.error.is_some(),
            urgent: sock.mark.is_some(),
        }
    }

    /// Reports a change of this socket.
    pub fn wake(&mut self, id: Id) {
        let sock = &mut self.socks[id];
        match sock.owner {
            Some(Owner::Peer(peer)) if !sock.closed => self.wake_peer(peer),
            Some(Owner::Worker) if sock.token.is_some() && !sock.ready => {
                sock.ready = true;
                self.ready.push_back(id);
            }
            _ => {}
        }
    }

    pub fn wake_peer(&mut self, peer: usize) {
        if !self.woken.contains(&peer) {
            self.woken.push_back(peer);
        }
    }

    // --- the system calls, without faults

    /// Accepts what fits into `room` and into the send buffer.
    pub fn send(&mut self, id: Id, bytes: &[u8], room: usize) -> Sys<usize> {
        let now = self.now;
        let sock = &mut self.socks[id];
        if let Some(error) = sock.error.take() {
            return Err(error);
        }
        if sock.dead || sock.fin_sent {
            return Err(libc::EPIPE);
        }
        if sock.link != Link::Up || bytes.is_empty() {
            return if bytes.is_empty() { Ok(0) } else { Err(libc::EAGAIN) };
        }
        let free = if now < sock.pressed_until { 0 } else { sock.out_max.saturating_sub(sock.out.len()) };
        let n = bytes.len().min(room).min(free);
        sock.nospace |= n < bytes.len();
        if n < bytes.len() && n == free {
            self.faults.note(Fault::FullBuffer);
        }
        if n == 0 {
            return Err(libc::EAGAIN);
        }
        sock.out.push(&bytes[..n]);
        let delay = self.delay();
        self.segment(id, n, Kind::Data, delay);
        Ok(n)
    }

    /// The last of `bytes` is out of band (`MSG_OOB`).
    pub fn send_urgent(&mut self, id: Id, byte: u8) {
        let sock = &self.socks[id];
        if sock.link == Link::Up && !sock.dead && !sock.fin_sent && !sock.unix {
            self.socks[id].out.push(&[byte]);
            let delay = self.delay();
            self.segment(id, 1, Kind::Urgent, delay);
        }
    }

    /// Reads up to `max` bytes into `take`; `Ok(0)` is the end of the stream.
    pub fn recv(&mut self, id: Id, max: usize, take: impl FnOnce(&[u8])) -> Sys<usize> {
        let sock = &mut self.socks[id];
        match sock.link {
            Link::Connecting => return Err(libc::EAGAIN),
            Link::Failed => return Err(sock.error.take().unwrap_or(libc::ENOTCONN)),
            Link::Up => {}
        }
        // The urgent byte is not part of the stream: a read that begins at it skips it.
        if sock.visible > 0 && sock.mark == Some(sock.rx.passed) {
            sock.rx.consume(1);
            sock.visible -= 1;
            sock.mark = None;
            self.open_window(id);
        }
        let sock = &mut self.socks[id];
        if sock.visible == 0 {
            // TCP: after a FIN the end comes before an error; Unix: the other way round.
            return match (sock.rx_fin && !sock.unix, sock.error.take()) {
                (true, error) => {
                    sock.error = error;
                    Ok(0)
                }
                (false, Some(error)) => Err(error),
                (false, None) if sock.dead || sock.rx_fin => Ok(0),
                (false, None) => Err(libc::EAGAIN),
            };
        }
        // A read stops at the mark, whatever follows.
        let to_mark = sock.mark.map_or(usize::MAX, |mark| (mark - sock.rx.passed) as usize);
        let n = max.min(sock.visible).min(to_mark);
        take(&sock.rx.bytes()[..n]);
        sock.rx.consume(n);
        sock.visible -= n;
        sock.peeked = sock.peeked.saturating_sub(n);
        self.open_window(id);
        Ok(n)
    }

    /// Shows `take` what a read of up to `max` bytes would return (`MSG_PEEK`).
    pub fn peek(&mut self, id: Id, max: usize, take: impl FnOnce(&[u8])) -> Sys<usize> {
        let sock = &mut self.socks[id];
        if sock.link != Link::Up || sock.visible == 0 || sock.mark == Some(sock.rx.passed) {
            return self.recv(id, 0, take);
        }
        let to_mark = sock.mark.map_or(usize::MAX, |mark| (mark - sock.rx.passed) as usize);
        let n = max.min(sock.visible).min(to_mark);
        sock.peeked = sock.peeked.max(n);
        take(&sock.rx.bytes()[..n]);
        Ok(n)
    }

    /// Delivers data that waited for room in this socket's receive buffer.
    fn open_window(&mut self, id: Id) {
        let Some(peer) = self.socks[id].peer else { return };
        let waiting = self.socks[peer].segments.front().is_some_and(|s| s.at <= self.now);
        if waiting {
            let at = self.now + self.delay();
            self.at(at, What::Arrive(peer));
        }
    }

    /// FIN behind what was sent.
    pub fn shutdown(&mut self, id: Id) -> Sys<()> {
        let sock = &mut self.socks[id];
        if sock.dead || sock.link != Link::Up {
            return Err(libc::ENOTCONN);
        }
        if !sock.fin_sent {
            self.queue_fin(id, Kind::Fin);
            // inet_shutdown wakes the poller.
            self.wake(id);
        }
        Ok(())
    }

    fn queue_fin(&mut self, id: Id, kind: Kind) {
        self.socks[id].fin_sent = true;
        // With the last data as often as after it.
        let delay = if self.rng.one_in(2) { 0 } else { self.delay() };
        self.segment(id, 0, kind, delay);
    }

    /// The owner closes: FIN, or RST if it leaves input unread.
    pub fn close(&mut self, id: Id) {
        self.forget(id);
        let sock = &mut self.socks[id];
        if sock.dead && !sock.unix || sock.link != Link::Up {
            return self.vanish(id);
        }
        match (sock.unix, sock.rx.len() > 0, sock.fin_sent) {
            (true, ..) => self.queue_fin(id, Kind::Gone),
            (false, true, _) => self.send_rst(id),
            (false, false, false) => self.queue_fin(id, Kind::Fin),
            (false, false, true) => {}
        }
    }

    /// RST at once, queued data is lost (`SO_LINGER` 0). A Unix socket has no RST.
    pub fn abort(&mut self, id: Id) {
        if self.socks[id].unix || self.socks[id].link != Link::Up || self.socks[id].dead {
            return self.close(id);
        }
        self.forget(id);
        self.send_rst(id);
    }

    fn forget(&mut self, id: Id) {
        let sock = &mut self.socks[id];
        debug_assert!(!sock.closed, "a socket is closed once");
        sock.closed = true;
        sock.token = None;
        self.open_fds -= usize::from(sock.owner == Some(Owner::Worker));
    }

    /// A socket that is not connected: the other end must not wait for it.
    fn vanish(&mut self, id: Id) {
        let Some(peer) = self.socks[id].peer else { return };
        if self.socks[id].link == Link::Connecting && !self.socks[peer].closed {
            self.socks[peer].link = Link::Up;
            self.take_rst(peer);
        }
    }

    fn send_rst(&mut self, id: Id) {
        let Some(peer) = self.socks[id].peer else { return };
        let room = self.socks[peer].rx_max.saturating_sub(self.socks[peer].rx.len());
        let on_wire = if self.rng.one_in(2) { 0 } else { room };
        let sock = &mut self.socks[id];
        sock.dead = true;
        // Only data already on the wire that fits arrives before the RST.
        let mut fits = 0;
        let mut keep = 0;
        for segment in &sock.segments {
            if fits + segment.len > on_wire {
                break;
            }
            fits += segment.len;
            keep += 1;
        }
        sock.segments.truncate(keep);
        let delay = if self.rng.one_in(2) { 0 } else { self.delay() };
        self.segment(id, 0, Kind::Rst, delay);
    }
}
