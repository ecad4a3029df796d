//! A small non-blocking HTTP/1.1 server on the caller's `Poll`: owns the listener and its
//! connections. One request per connection, then it is closed.

use super::routes::{HEAD_MAX, Request, Response, handle};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Concurrent connections; a further one replaces the oldest.
pub(super) const CONNS_MAX: usize = 64;
/// From accept to close.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes read and discarded after the response: closing with unread data would reset the connection
/// before the client has read it.
const LINGER_MAX: usize = 64 * 1024;
/// Delay before accepting again after an error: an edge-triggered listener reports no second event.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The server. The caller's loop calls [`Admin::on_event`] for its tokens, and [`Admin::on_tick`]
/// no later than [`Admin::deadline`].
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    registry: Registry,
    first_token: usize,
    /// At most [`CONNS_MAX`] slots.
    conns: Vec<Option<Conn>>,
    /// When to accept again after an error.
    accept_at: Option<Instant>,
}

impl Admin {
    /// Uses the tokens from `first_token` on: one for the listener, then one per connection up to
    /// `CONNS_MAX`.
    ///
    /// # Errors
    /// The listener cannot be registered.
    pub fn new(listener: std::net::TcpListener, registry: &Registry, first_token: usize) -> io::Result<Admin> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let registry = registry.try_clone()?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(Admin { listener, registry, first_token, conns: Vec::new(), accept_at: None })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Handles a readiness event; tokens of others are ignored. `respond` is called once for each
    /// valid request.
    pub fn on_event(&mut self, token: usize, respond: &mut dyn FnMut(Request) -> Response) {
        match token.checked_sub(self.first_token) {
            Some(0) => self.accept(Instant::now()),
            Some(slot) => self.advance(slot - 1, respond),
            None => {}
        }
    }

    /// Closes connections past their deadline, and accepts again after an error.
    pub fn on_tick(&mut self, now: Instant) {
        for slot in &mut self.conns {
            if slot.as_ref().is_some_and(|conn| conn.deadline <= now) {
                *slot = None;
            }
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
    }

    /// When [`Admin::on_tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.conns.iter().flatten().map(|conn| conn.deadline).chain(self.accept_at).min()
    }

    #[cfg(test)]
    /// All slots, and how many are in use.
    pub(super) fn slots(&self) -> (usize, usize) {
        (self.conns.len(), self.conns.iter().flatten().count())
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        // Bounded: a flood of connections must not occupy the control thread.
        for _ in 0..CONNS_MAX {
            match self.listener.accept() {
                Ok((sock, _)) => self.keep(sock, now + DEADLINE),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        self.accept_at = Some(now + ACCEPT_RETRY);
    }

    fn keep(&mut self, mut sock: TcpStream, deadline: Instant) {
        let slot = self.free_slot();
        let token = Token(self.first_token + 1 + slot);
        // Registering reports data that has already arrived, so nothing is read here.
        if self.registry.register(&mut sock, token, Interest::READABLE | Interest::WRITABLE).is_ok()
            && let Some(place) = self.conns.get_mut(slot)
        {
            *place = Some(Conn { sock, deadline, phase: Phase::Head(Vec::new()) });
        }
    }

    /// An empty slot, or that of the oldest connection: slow clients must not lock out a health
    /// check.
    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.conns.iter().position(Option::is_none) {
            return slot;
        }
        if self.conns.len() < CONNS_MAX {
            self.conns.push(None);
            return self.conns.len() - 1;
        }
        let deadline = |slot: &usize| self.conns.get(*slot).and_then(|conn| Some(conn.as_ref()?.deadline));
        (0..self.conns.len()).min_by_key(deadline).unwrap_or(0)
    }

    fn advance(&mut self, slot: usize, respond: &mut dyn FnMut(Request) -> Response) {
        let Some(place) = self.conns.get_mut(slot) else { return };
        // A stale event finds an empty slot or the next connection, and both are harmless.
        if place.as_mut().is_some_and(|conn| conn.advance(respond).is_err()) {
            *place = None;
        }
    }
}

#[derive(Debug)]
struct Conn {
    sock: TcpStream,
    deadline: Instant,
    phase: Phase,
}

/// Head -> Response -> Linger -> closed
#[derive(Debug)]
enum Phase {
    /// The bytes of the request received so far.
    Head(Vec<u8>),
    Response {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// The response is sent and the write side shut down; further bytes from the client are
    /// discarded.
    Linger {
        read: usize,
    },
}

/// The connection is to be closed.
struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Closed {
        Closed
    }
}

impl Conn {
    /// Proceeds until the socket blocks: events are edge-triggered.
    fn advance(&mut self, respond: &mut dyn FnMut(Request) -> Response) -> Result<(), Closed> {
        let mut buf = [0; HEAD_MAX];
        loop {
            let next = match &mut self.phase {
                Phase::Head(head) => {
                    let Some(n) = unless_blocked(|| self.sock.read(&mut buf))? else { return Ok(()) };
                    head.extend_from_slice(buf.get(..n).filter(|new| !new.is_empty()).ok_or(Closed)?);
                    handle(head, respond).map(|bytes| Phase::Response { bytes, sent: 0 })
                }
                Phase::Response { bytes, sent } => match bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
                    Some(rest) => {
                        let Some(n) = unless_blocked(|| self.sock.write(rest))? else { return Ok(()) };
                        *sent += n;
                        None
                    }
                    None => {
                        self.sock.shutdown(Shutdown::Write)?;
                        Some(Phase::Linger { read: 0 })
                    }
                },
                Phase::Linger { read } => {
                    let Some(n) = unless_blocked(|| self.sock.read(&mut buf))? else { return Ok(()) };
                    *read += n;
                    if n == 0 || *read > LINGER_MAX {
                        return Err(Closed);
                    }
                    None
                }
            };
            if let Some(next) = next {
                self.phase = next;
            }
        }
    }
}

/// Retries after a signal. `None` if the socket would block.
fn unless_blocked(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
