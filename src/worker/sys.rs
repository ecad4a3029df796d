//! What a worker asks of the system: the trait, so that the same worker runs on the kernel and on a
//! simulation of it. The implementation over mio stands below; no other file of the shell but
//! `listener.rs` names mio, socket2 or libc.

use crate::proto::Millis;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Where a connection of ours goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
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

/// System calls of one worker. None of them blocks but `poll`; EINTR never comes out.
pub trait Sys {
    /// A connected, connecting or accepted stream socket; dropping it closes it.
    type Sock;
    type Listener;

    /// Takes one connection from the queue, non-blocking and with the listener's inherited options.
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<(Self::Sock, SocketAddr)>;
    /// Begins a connection; completion shows as writable, then [`Sys::connected`].
    fn connect(&mut self, target: Target<'_>) -> io::Result<Self::Sock>;
    /// Whether the connection is up: `Ok(false)` while it is still being made, an error when it failed.
    fn connected(&mut self, sock: &Self::Sock) -> io::Result<bool>;
    fn recv(&mut self, sock: &Self::Sock, buf: &mut [u8]) -> io::Result<usize>;
    fn send(&mut self, sock: &Self::Sock, bytes: &[u8]) -> io::Result<usize>;
    fn send_vectored(&mut self, sock: &Self::Sock, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;
    /// Reads up to `max` bytes and throws them away without copying (`MSG_TRUNC`).
    fn discard(&mut self, sock: &Self::Sock, max: usize) -> io::Result<usize>;
    /// FIN after what was sent.
    fn shutdown(&mut self, sock: &Self::Sock) -> io::Result<()>;
    /// RST instead of FIN (`SO_LINGER` 0), then close.
    fn abort(&mut self, sock: Self::Sock);
    /// Registers once, edge-triggered, for reading, writing and urgent data. Reports the current readiness.
    fn register(&mut self, sock: &Self::Sock, token: usize) -> io::Result<()>;
    fn register_listener(&mut self, listener: &mut Self::Listener, token: usize) -> io::Result<()>;
    fn deregister_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()>;
    /// Waits for events; `None` waits for ever. `events` is cleared first.
    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;
    /// The process-wide monotonic clock. One read a poll return.
    fn now(&mut self) -> Millis;
    /// Bytes of a CSPRNG.
    fn random(&mut self, out: &mut [u8]);
    /// CPU time of this thread in microseconds, read at most every 100 ms.
    fn busy_us(&mut self) -> u64;
    /// The next slice of a read of which `unread` is left: everything at once for a plain socket, one
    /// record at a time for TLS. A simulation cuts where it likes. Never empty unless `unread` is.
    fn next_slice(&mut self, unread: usize) -> usize {
        unread
    }
}
