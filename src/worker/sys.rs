//! What a worker asks of the system: the trait, so that the same worker runs on the kernel and on a
//! simulation of it. The implementation over mio stands below; no other file of the worker but
//! `listener.rs` names mio, socket2 or libc.

use super::inbox::Wake;
use super::token::Token;
use crate::config::Sockets;
pub use crate::memory::PIPE_BYTES;
use crate::policy;
use crate::proto::Millis;
use mio::unix::SourceFd;
use slab::Slab;
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where a connection of ours goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Tcp(SocketAddr),
    /// From this local address, with a port of the kernel's choice.
    TcpFrom(SocketAddr, IpAddr),
    Unix(&'a Path),
}

impl<'a> Target<'a> {
    pub fn new(target: &'a policy::endpoint::Target, source: Option<IpAddr>) -> Target<'a> {
        match (target, source) {
            (policy::endpoint::Target::Tcp(addr), None) => Target::Tcp(*addr),
            (policy::endpoint::Target::Tcp(addr), Some(source)) => Target::TcpFrom(*addr, source),
            (policy::endpoint::Target::Unix(path), _) => Target::Unix(path),
        }
    }
}

/// What poll said of one registered thing. Facts of that moment, edge-triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event {
    pub token: usize,
    pub readable: bool,
    pub writable: bool,
    /// FIN (or RST) is known: a short read is no longer proof of an empty socket.
    pub read_closed: bool,
    pub error: bool,
    /// TCP urgent data.
    pub priority: bool,
}

/// Names a pipe of a [`Sys`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeId(pub u32);

/// System calls of one worker. None of them blocks but `poll`; EINTR never comes out.
pub trait Sys {
    /// A connected, connecting or accepted stream socket; dropping it closes it.
    type Sock;
    type Listener;

    /// Takes one connection from the queue, non-blocking and with the listener's inherited options.
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Sock, SocketAddr)>;
    /// Begins a connection; completion shows as writable, then [`Sys::connected`].
    fn connect(&mut self, target: Target<'_>) -> io::Result<Self::Sock>;
    /// Whether the connection is up: `Ok(false)` while it is still being made, an error when it
    /// failed.
    fn connected(&mut self, sock: &Self::Sock) -> io::Result<bool>;
    fn recv(&mut self, sock: &Self::Sock, buf: &mut [u8]) -> io::Result<usize>;
    /// Copies what a read would return, and leaves it there. The next edge comes with new data.
    fn peek(&mut self, _sock: &Self::Sock, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// What the peer of an accepted socket has connected to.
    fn local_addr(&mut self, _sock: &Self::Sock) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn send(&mut self, sock: &Self::Sock, bytes: &[u8]) -> io::Result<usize>;
    fn send_vectored(&mut self, sock: &Self::Sock, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;
    /// Sends what a FIN follows at once ([`Sys::shutdown`], or closing): both may leave in one
    /// segment.
    fn send_last(&mut self, sock: &Self::Sock, bytes: &[u8]) -> io::Result<usize> {
        self.send(sock, bytes)
    }
    /// Reads up to `max` bytes and throws them away without copying (`MSG_TRUNC`).
    fn discard(&mut self, sock: &Self::Sock, max: usize) -> io::Result<usize>;
    /// A pipe for [`Sys::splice_in`]; fails where descriptors or the memory of pipes are short, or
    /// there is no such thing.
    fn pipe(&mut self) -> io::Result<PipeId> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn close_pipe(&mut self, _pipe: PipeId) {}
    /// Moves up to `max` bytes from the socket into an empty pipe, without this process seeing
    /// them. `Ok(0)` is the end of the stream.
    fn splice_in(&mut self, _sock: &Self::Sock, _pipe: PipeId, _max: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Moves up to `max` bytes out of a pipe that holds as many.
    fn splice_out(&mut self, _pipe: PipeId, _sock: &Self::Sock, _max: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Reads of a file from `at` on what is in memory (`RWF_NOWAIT`), without waiting for a disk;
    /// an error for what is not.
    fn read_cached(&mut self, _file: &File, _at: u64, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// FIN after what was sent.
    fn shutdown(&mut self, sock: &Self::Sock) -> io::Result<()>;
    /// RST instead of FIN (`SO_LINGER` 0), then close.
    fn abort(&mut self, sock: Self::Sock);
    /// Registers once, edge-triggered, for reading, writing and urgent data. Reports the current
    /// readiness.
    fn register(&mut self, sock: &Self::Sock, token: usize) -> io::Result<()>;
    fn register_listener(&mut self, listener: &mut Self::Listener, token: usize) -> io::Result<()>;
    fn deregister_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()>;
    /// Waits for events; `None` waits for ever. `events` is cleared first.
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;
    /// The process-wide monotonic clock. One read a poll return.
    fn now(&mut self) -> Millis;
    /// Bytes of a CSPRNG.
    fn random(&mut self, out: &mut [u8]);
    /// CPU time of this thread in microseconds: read every 100 ms, and before and after a pass that
    /// may be long.
    fn busy_us(&mut self) -> u64;
    /// How much of the bytes that are `unread` the session is shown at once: everything. A
    /// simulation cuts where it likes, but never shows nothing, and does not cut what has come over
    /// a link: what is behind a response in the same read has come with it.
    fn next_slice(&mut self, unread: usize) -> usize {
        unread
    }
}

/// The kernel, through mio.
pub struct MioSys {
    poll: mio::Poll,
    events: mio::Events,
    random: RandomPool,
    /// Options of upstream sockets; a reload may change them.
    pub sockets: Sockets,
    /// What discarded bytes are read over where the kernel must copy them (Unix sockets).
    sink: Box<[MaybeUninit<u8>]>,
    /// Ends for reading and for writing.
    pipes: Slab<(OwnedFd, OwnedFd)>,
}

/// Events of one poll.
const EVENTS_MAX: usize = 1024;
const SINK_BYTES: usize = 64 * 1024;

impl MioSys {
    pub fn new(sockets: Sockets) -> io::Result<MioSys> {
        let sink = vec![MaybeUninit::uninit(); SINK_BYTES].into();
        let events = mio::Events::with_capacity(EVENTS_MAX);
        let (poll, random, pipes) = (mio::Poll::new()?, RandomPool::default(), Slab::new());
        Ok(MioSys { poll, events, random, sockets, sink, pipes })
    }

    /// What ends a wait in this poll. One for each.
    pub fn waker(&self) -> io::Result<Arc<dyn Wake>> {
        Ok(Arc::new(mio::Waker::new(self.poll.registry(), mio::Token(Token::Waker.pack()))?))
    }
}

impl Wake for mio::Waker {
    fn wake(&self) {
        // It fails only when the poll is gone, and with it the thread to wake.
        let _gone = mio::Waker::wake(self);
    }
}

impl Sys for MioSys {
    type Sock = OwnedFd;
    type Listener = mio::net::TcpListener;

    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(OwnedFd, SocketAddr)> {
        let (stream, peer) = again(|| listener.accept())?;
        Ok((stream.into(), peer))
    }

    fn connect(&mut self, target: Target<'_>) -> io::Result<OwnedFd> {
        connect(target, &self.sockets)
    }

    fn connected(&mut self, sock: &OwnedFd) -> io::Result<bool> {
        let sock = SockRef::from(sock);
        if let Some(error) = sock.take_error()? {
            return Err(error);
        }
        match sock.peer_addr() {
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(false),
            other => other.map(|_| true),
        }
    }

    #[inline]
    fn recv(&mut self, sock: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
        again(|| (&*SockRef::from(sock)).read(buf))
    }

    fn peek(&mut self, sock: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
        again(|| peek(sock, buf))
    }

    fn local_addr(&mut self, sock: &OwnedFd) -> io::Result<SocketAddr> {
        SockRef::from(sock).local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported.into())
    }

    #[inline]
    fn send(&mut self, sock: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        again(|| SockRef::from(sock).send_with_flags(bytes, libc::MSG_NOSIGNAL))
    }

    fn send_vectored(&mut self, sock: &OwnedFd, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        again(|| SockRef::from(sock).send_vectored_with_flags(slices, libc::MSG_NOSIGNAL))
    }

    fn send_last(&mut self, sock: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        again(|| SockRef::from(sock).send_with_flags(bytes, libc::MSG_NOSIGNAL | libc::MSG_MORE))
    }

    fn discard(&mut self, sock: &OwnedFd, max: usize) -> io::Result<usize> {
        let sink = self.sink.get_mut(..max.min(SINK_BYTES)).unwrap_or(&mut []);
        again(|| SockRef::from(sock).recv_with_flags(sink, libc::MSG_TRUNC))
    }

    fn pipe(&mut self) -> io::Result<PipeId> {
        let ends = pipe()?;
        Ok(PipeId(u32::try_from(self.pipes.insert(ends)).map_err(io::Error::other)?))
    }

    fn close_pipe(&mut self, pipe: PipeId) {
        self.pipes.try_remove(pipe.0 as usize);
    }

    fn splice_in(&mut self, sock: &OwnedFd, pipe: PipeId, max: usize) -> io::Result<usize> {
        let (_, into) = self.pipes.get(pipe.0 as usize).ok_or(io::ErrorKind::NotFound)?;
        again(|| splice(sock, into, max))
    }

    fn splice_out(&mut self, pipe: PipeId, sock: &OwnedFd, max: usize) -> io::Result<usize> {
        let (from, _) = self.pipes.get(pipe.0 as usize).ok_or(io::ErrorKind::NotFound)?;
        again(|| splice(from, sock, max))
    }

    fn read_cached(&mut self, file: &File, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let at = libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        again(|| read_cached(file, at, buf))
    }

    fn shutdown(&mut self, sock: &OwnedFd) -> io::Result<()> {
        SockRef::from(sock).shutdown(Shutdown::Write)
    }

    fn abort(&mut self, sock: OwnedFd) {
        // Where the option does not take, closing is still right, only softer.
        let _soft = SockRef::from(&sock).set_linger(Some(Duration::ZERO));
    }

    fn register(&mut self, sock: &OwnedFd, token: usize) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&sock.as_raw_fd()), mio::Token(token), interest())
    }

    fn register_listener(&mut self, listener: &mut Self::Listener, token: usize) -> io::Result<()> {
        self.poll.registry().register(listener, mio::Token(token), mio::Interest::READABLE)
    }

    fn deregister_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()> {
        self.poll.registry().deregister(listener)
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        events.extend(self.events.iter().map(|event| Event {
            token: event.token().0,
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
            priority: event.is_priority(),
        }));
        Ok(())
    }

    fn now(&mut self) -> Millis {
        now_ms()
    }

    fn random(&mut self, out: &mut [u8]) {
        self.random.fill(out);
    }

    fn busy_us(&mut self) -> u64 {
        clock_us(libc::CLOCK_THREAD_CPUTIME_ID)
    }
}

/// Errors that say that this process or the machine has run out of something: waiting helps, asking
/// at once does not.
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// bind(2) will choose no port: connect(2) does, and only the four-tuple must be free then.
#[allow(unsafe_code)]
fn bind_without_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value of this option is an int, which lives until the call returns.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// connect(2) found no free port of the source address toward that target.
pub fn is_out_of_ports(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Begins a connection, as [`Sys::connect`].
pub fn connect(target: Target<'_>, options: &Sockets) -> io::Result<OwnedFd> {
    let (domain, addr) = match target {
        Target::Tcp(addr) | Target::TcpFrom(addr, _) => (Domain::for_address(addr), SockAddr::from(addr)),
        Target::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if let Target::Tcp(_) | Target::TcpFrom(..) = target {
        set_options(&socket, options)?;
    }
    if let Target::TcpFrom(_, source) = target {
        bind_without_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match again(|| socket.connect(&addr)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Options of accepted (set on the listener, inherited) and of upstream sockets.
pub fn set_options(socket: &Socket, options: &Sockets) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if options.keepalive_s > 0 {
        // Interval and number of the probes are the kernel's: one call less for each upstream
        // connection.
        let idle = Duration::from_secs(u64::from(options.keepalive_s));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    if options.user_timeout_ms > 0 {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(u64::from(options.user_timeout_ms))))?;
    }
    if options.notsent_lowat_bytes > 0 {
        socket.set_tcp_notsent_lowat(options.notsent_lowat_bytes)?;
    }
    Ok(())
}

fn interest() -> mio::Interest {
    mio::Interest::READABLE | mio::Interest::WRITABLE | mio::Interest::PRIORITY
}

/// EINTR never comes out.
#[inline]
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Milliseconds of the monotonic clock, the clock of all timers.
pub fn now_ms() -> Millis {
    clock_us(libc::CLOCK_MONOTONIC) / 1000
}

/// A clock of the kernel in microseconds: one for all threads and processes, unlike `Instant`.
#[allow(unsafe_code)]
pub fn clock_us(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; a clock that does not exist leaves it at
    // zero.
    let _known = unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// A non-blocking pipe, as large as [`PIPE_BYTES`] if the system allows it.
#[allow(unsafe_code)]
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is a valid place for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just made, and are owned by nothing else.
    let ends = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: a plain call on a descriptor of ours. Who may not have so much has a smaller pipe,
    // which is only slower.
    let _granted = unsafe { libc::fcntl(ends.1.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES as libc::c_int) };
    Ok(ends)
}

#[allow(unsafe_code)]
fn peek(sock: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the length given.
    let n = unsafe { libc::recv(sock.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_PEEK) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[allow(unsafe_code)]
fn read_cached(file: &File, at: libc::off_t, buf: &mut [u8]) -> io::Result<usize> {
    let buf = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: an open descriptor, and one buffer that outlives the call.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), &buf, 1, at, libc::RWF_NOWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[allow(unsafe_code)]
fn splice(from: &OwnedFd, to: &OwnedFd, max: usize) -> io::Result<usize> {
    let (from, to, flags) = (from.as_raw_fd(), to.as_raw_fd(), libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK);
    let none = std::ptr::null_mut();
    // SAFETY: two open descriptors, no offsets.
    let n = unsafe { libc::splice(from, none, to, none, max, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Random bytes of the kernel's CSPRNG, fetched many at a time; none is given out twice.
pub struct RandomPool {
    bytes: [u8; 256],
    at: usize,
}

impl Default for RandomPool {
    fn default() -> RandomPool {
        RandomPool { bytes: [0; 256], at: 256 }
    }
}

impl RandomPool {
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.at >= self.bytes.len() {
                self.refill();
            }
            *byte = self.bytes.get(self.at).copied().unwrap_or_default();
            self.at += 1;
        }
    }

    /// Straight from the kernel: aws-lc's generator would take 130 KiB at its first use, also where
    /// there is no TLS.
    #[allow(unsafe_code)]
    fn refill(&mut self) {
        // SAFETY: the kernel writes no more than the length given. Up to 256 bytes are never cut
        // short (getrandom(2)).
        let n = unsafe { libc::getrandom(self.bytes.as_mut_ptr().cast(), self.bytes.len(), 0) };
        // Without them ids and masks could be foretold: better to lose the worker's sessions than
        // that.
        assert!(usize::try_from(n) == Ok(self.bytes.len()), "no random bytes");
        self.at = 0;
    }
}
