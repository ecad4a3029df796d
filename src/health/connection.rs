//! The connection of one check: a non-blocking socket, TLS if the endpoint uses it, and the probe
//! above it. Reports the result once, and then when it can be closed.
//!
//! ```text
//! Connecting ---> TlsHandshake ---> Talking ---> over
//!      |            (wss only)       |  ^
//!      +-----------------------------+--+
//! ```

use super::failure::{Failure, Step};
use super::probe::{Outcome, Probe, Seed};
use crate::policy::check::HealthCheck;
use crate::policy::endpoint::{Endpoint, Target};
use crate::proto::proxy_protocol::{self, Version};
use crate::tls::{Buffer, Tls};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes read from one socket in all, of TLS handshake, result and what follows it.
const READ_MAX: usize = 256 * 1024;
/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// Begins a connection with a non-blocking socket, as sessions do.
pub type Connect = dyn Fn(&Target, Option<IpAddr>) -> io::Result<OwnedFd> + Send;

/// Buffers that all connections of the thread share.
#[derive(Debug, Default)]
pub struct Scratch {
    raw: Vec<u8>,
    plain: Vec<u8>,
    reply: Vec<u8>,
}

#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    stage: Stage,
    tls: Option<Tls>,
    check: Arc<HealthCheck>,
    endpoint: Arc<Endpoint>,
    seed: Seed,
    /// What must be sent, and how much of it has been.
    out: Buffer,
    sent: usize,
    read: usize,
    /// The result has been reported.
    reported: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    TlsHandshake,
    Talking(Probe),
    /// Nothing more is read.
    Over,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What has become of a connection after an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The result of the check, once.
    pub outcome: Option<Outcome>,
    /// The connection can be closed.
    pub over: bool,
}

impl Connection {
    /// Begins to connect, and registers the socket for all that happens to it.
    ///
    /// # Errors
    /// The connect failed at once, or this process has no descriptor left.
    pub fn open(target: &Target, opening: Opening<'_>) -> io::Result<Connection> {
        let socket = (opening.connect)(target, opening.source)?;
        let mut stream = match target {
            Target::Tcp(_) => Stream::Tcp(TcpStream::from_std(socket.into())),
            Target::Unix(_) => Stream::Unix(UnixStream::from_std(socket.into())),
        };
        stream.source().register(opening.registry, opening.token, Interest::READABLE | Interest::WRITABLE)?;
        let mut out = Buffer::default();
        if let Some(version) = opening.header {
            // A check has no client.
            push(&mut out, &proxy_protocol::write(version, None));
        }
        Ok(Connection {
            stream,
            stage: Stage::Connecting,
            tls: opening.tls,
            check: opening.check,
            endpoint: opening.endpoint,
            seed: opening.seed,
            out,
            sent: 0,
            read: 0,
            reported: false,
        })
    }

    /// Whether the result has been reported.
    pub fn is_reported(&self) -> bool {
        self.reported
    }

    /// What the check is waiting for.
    pub fn step(&self) -> Step {
        match &self.stage {
            Stage::Connecting => Step::Connect,
            Stage::TlsHandshake => Step::Tls,
            Stage::Talking(probe) => probe.step(),
            Stage::Over => Step::Response,
        }
    }

    /// Something has happened to the socket: does all that can be done now.
    pub fn on_ready(&mut self, scratch: &mut Scratch) -> Turn {
        let outcome = self.advance(scratch).unwrap_or_else(|failure| {
            self.stage = Stage::Over;
            Some(Err(failure))
        });
        let outcome = outcome.filter(|_| !self.reported);
        self.reported |= outcome.is_some();
        // The alert of a failure of TLS, or our Close. If it cannot be sent, the peer has gone.
        if self.flush().is_err() && self.reported {
            self.stage = Stage::Over;
        }
        Turn { outcome, over: matches!(self.stage, Stage::Over) }
    }

    fn advance(&mut self, scratch: &mut Scratch) -> Result<Option<Outcome>, Failure> {
        if matches!(self.stage, Stage::Connecting) {
            if !self.stream.is_connected().map_err(|error| Failure::of_connect(&error))? {
                return Ok(None);
            }
            if self.tls.is_some() {
                self.stage = Stage::TlsHandshake;
                self.decrypt(scratch, 0)?;
            } else if let Some(outcome) = self.begin(scratch)? {
                return Ok(Some(outcome));
            }
        }
        // An error of a send shows as the end of the stream, with what the peer sent before it.
        let _ = self.flush();
        self.read_all(scratch)
    }

    /// The connection is up: sends the request, or knows the result.
    fn begin(&mut self, scratch: &mut Scratch) -> Result<Option<Outcome>, Failure> {
        let mut request = std::mem::take(&mut scratch.reply);
        request.clear();
        let probe = Probe::start(&self.check, &self.endpoint, self.seed, &mut request);
        let result = self.send(&request);
        scratch.reply = request;
        result?;
        if let Some(probe) = probe {
            self.stage = Stage::Talking(probe);
            return Ok(None);
        }
        self.close_tls();
        self.stage = Stage::Over;
        Ok(Some(Ok(())))
    }

    /// Reads until there is nothing more, or the connection is over. The result, if it came.
    fn read_all(&mut self, scratch: &mut Scratch) -> Result<Option<Outcome>, Failure> {
        let mut outcome = None;
        while !matches!(self.stage, Stage::Over) {
            let kept = self.tls.as_ref().map_or(0, Tls::kept);
            scratch.raw.resize(kept + READ_BYTES, 0);
            let n = match self.stream.read(scratch.raw.get_mut(kept..).unwrap_or_default()) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            self.read += n;
            if n == 0 || self.read > READ_MAX {
                return self.on_end(n == 0).map(|end| outcome.or(end));
            }
            let result = match self.tls {
                None => {
                    scratch.plain.clear();
                    scratch.plain.extend_from_slice(scratch.raw.get(..n).unwrap_or_default());
                    self.on_plain(scratch)
                }
                Some(_) => self.decrypt(scratch, kept + n),
            };
            outcome = outcome.or(result?);
        }
        Ok(outcome)
    }

    /// The peer has closed, or has sent too much.
    fn on_end(&mut self, closed: bool) -> Result<Option<Outcome>, Failure> {
        let step = self.step();
        let failure = if closed { Failure::Ended(step) } else { Failure::TooLarge(step) };
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Connecting | Stage::TlsHandshake | Stage::Talking(_) => Ok(Some(Err(failure))),
            Stage::Over => Ok(None),
        }
    }

    /// Decrypts what was read, behind what TLS has kept: `len` bytes in all.
    fn decrypt(&mut self, scratch: &mut Scratch, len: usize) -> Result<Option<Outcome>, Failure> {
        let Some(tls) = &mut self.tls else { return Ok(None) };
        scratch.plain.clear();
        let bytes = scratch.raw.get_mut(..len).unwrap_or_default();
        let decrypted = tls.decrypt(bytes, &mut scratch.plain, &mut self.out).map_err(Failure::Tls)?;
        let mut outcome = None;
        if decrypted.established && matches!(self.stage, Stage::TlsHandshake) {
            outcome = self.begin(scratch)?;
        }
        outcome = outcome.or(self.on_plain(scratch)?);
        if decrypted.closed {
            outcome = outcome.or(self.on_end(true)?);
        }
        Ok(outcome)
    }

    /// Plaintext for the probe, in `scratch.plain`.
    fn on_plain(&mut self, scratch: &mut Scratch) -> Result<Option<Outcome>, Failure> {
        let Stage::Talking(probe) = &mut self.stage else { return Ok(None) };
        if scratch.plain.is_empty() {
            return Ok(None);
        }
        scratch.reply.clear();
        let outcome = probe.on_bytes(&scratch.plain, &mut scratch.reply);
        let result = self.send(&scratch.reply);
        if outcome.is_some() {
            self.close_tls();
        }
        match (&outcome, result) {
            (None, Err(failure)) => Err(failure),
            _ => Ok(outcome),
        }
    }

    /// Queues bytes for the peer.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.tls {
            // Pauses do not matter here: what a check sends is short.
            Some(tls) => tls.encrypt(bytes, 0, &mut self.out).map_err(Failure::Tls),
            None => {
                push(&mut self.out, bytes);
                Ok(())
            }
        }
    }

    /// Nothing more follows from here. A peer that has gone already needs no close_notify.
    fn close_tls(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.send_close_notify(&mut self.out);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.bytes().get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Ok(()),
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}

fn push(out: &mut Buffer, bytes: &[u8]) {
    out.room(bytes.len()).copy_from_slice(bytes);
    out.advance(bytes.len());
}

/// What a connection is opened with.
pub struct Opening<'a> {
    pub connect: &'a Connect,
    /// The address that the connection comes from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    pub registry: &'a Registry,
    pub token: Token,
    pub check: Arc<HealthCheck>,
    pub endpoint: Arc<Endpoint>,
    /// A PROXY header comes first.
    pub header: Option<Version>,
    /// For a `wss` endpoint.
    pub tls: Option<Tls>,
    pub seed: Seed,
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// `Ok(false)` while the connect is under way.
    fn is_connected(&self) -> io::Result<bool> {
        let socket = match self {
            Stream::Tcp(stream) => SockRef::from(stream),
            Stream::Unix(stream) => SockRef::from(stream),
        };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            other => other.map(|_| true),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Unix(stream) => stream.read(buf),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}
