//! TLS over slices: ciphertext in and plaintext out, and back. The only module that names rustls. It knows neither sockets nor
//! sessions; the caller owns all buffers, so that a connection at rest holds none but an incomplete record.
//!
//! Read in this order: [`Tls`] (one connection), `tls/setup.rs` (from the configuration to what all connections of a
//! listener or an upstream share), `tls/certificate.rs`, `tls/cipher.rs`, `tls/tickets.rs`, `tls/failure.rs`.
//!
//! Of rustls 0.23 the unbuffered API is used, in the shape that 0.24 will have; nothing of it shows outside.

mod buffer;
mod certificate;
mod cipher;
mod der;
mod failure;
mod made;
mod setup;
mod tickets;

pub use buffer::Buffer;
pub use certificate::CertInfo;
pub use cipher::provider;
pub use failure::Failure;
pub use made::self_signed;
pub use setup::TlsConfigs;
pub use tickets::TicketKeys;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use std::fmt;
use std::sync::Arc;

/// Payload of a record at most (RFC 8446 section 5.1).
pub const PAYLOAD_MAX: usize = 16 * 1024;
/// What a record adds to its payload: header, explicit nonce or content type, tag; TLS 1.2 with AES-GCM takes most.
pub const OVERHEAD_MAX: usize = 5 + 8 + 16;
/// Ciphertext of whole records, as most peers send it: TLS 1.3 with a tag of 16 bytes. A read that ends there leaves
/// nothing over.
pub const RECORD_BYTES: usize = PAYLOAD_MAX + 5 + 1 + 16;
/// What may be kept of messages that are not whole yet: enough for any chain of certificates.
const KEPT_MAX: usize = 2 * RECORD_BYTES;
/// Room for a KeyUpdate that goes before application data.
const SLACK: usize = 64;
/// A record that fits into one segment of the common MTU with IPv6 and timestamps.
const SMALL_PAYLOAD: usize = 1350;
/// So much goes out in small records after a pause: some round trips of a cold congestion window.
const SMALL_FOR: u32 = 64 * 1024;
/// A write of up to so much is one record in any case: the initial congestion window (RFC 6928) takes it at once.
const NEVER_SPLIT: usize = 4 * 1024;
/// A connection that sent nothing for so long begins with small records again.
const PAUSE_MS: u64 = 1_000;

/// One TLS connection, of either side.
pub struct Tls {
    conn: Conn,
    /// Ciphertext that is no whole record yet, or part of a handshake message. Empty, and without memory, at rest.
    kept: Vec<u8>,
    /// Sent since the last pause, up to [`SMALL_FOR`].
    sent: u32,
    sent_at: u64,
    established: bool,
    /// Our close_notify has been sealed: nothing can follow it.
    closed: bool,
    peer_closed: bool,
    /// Why nothing goes any more: rustls is not asked again.
    failed: Option<Failure>,
}

enum Conn {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What reading has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// The handshake has just ended: application data may be sealed from now on.
    pub established: bool,
    /// The peer's close_notify has come; nothing is read after it.
    pub closed: bool,
}

impl Tls {
    /// The side that accepts.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Tls, Failure> {
        let conn = UnbufferedServerConnection::new(Arc::clone(config)).map_err(|error| Failure::of(&error))?;
        Ok(Tls::new(Conn::Server(conn)))
    }

    /// The side that connects. [`Tls::open`] with no bytes makes it say its first words.
    pub fn client(config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Result<Tls, Failure> {
        let conn = UnbufferedClientConnection::new(Arc::clone(config), name.clone());
        Ok(Tls::new(Conn::Client(conn.map_err(|error| Failure::of(&error))?)))
    }

    fn new(conn: Conn) -> Tls {
        let (established, closed, peer_closed) = (false, false, false);
        Tls { conn, kept: Vec::new(), sent: 0, sent_at: 0, established, closed, peer_closed, failed: None }
    }

    /// Whether the handshake has ended.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the session is one that was resumed.
    pub fn is_resumed(&self) -> bool {
        self.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the peer has shown.
    pub fn peer(&self) -> Option<CertInfo> {
        CertInfo::of(self.state().peer_certificates()?.first()?)
    }

    /// Whether [`Tls::close`] has been called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the peer's close_notify has come.
    pub fn is_closed_by_peer(&self) -> bool {
        self.peer_closed
    }

    /// Where the next bytes are to be read to: what is kept goes before them.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Opens what has come: `bytes` is room of [`Tls::kept`] bytes and then ciphertext, which is decrypted in place. Plaintext
    /// goes behind what stands in `plain`. What rustls has to say itself (handshake, tickets, key updates, alerts) goes into
    /// `sealed`, to be sent in any case, after a failure too.
    pub fn open(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, sealed: &mut Buffer) -> Result<Opened, Failure> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        let kept = self.kept.len();
        if let Some(room) = bytes.get_mut(..kept) {
            room.copy_from_slice(&self.kept);
        }
        if !self.established && matches!(self.conn, Conn::Server(_)) && is_plain_http(bytes) {
            self.failed = Some(Failure::PlainHttp);
            return Err(Failure::PlainHttp);
        }
        let (used, result) = self.drive(bytes, Say::Nothing, plain, sealed);
        let rest = bytes.get(used..).unwrap_or(&[]);
        if result.is_ok() && rest.len() > KEPT_MAX {
            self.failed = Some(Failure::Garbage);
        }
        if let Some(failure) = self.failed {
            self.kept = Vec::new();
            return Err(failure);
        }
        if rest.is_empty() {
            self.kept = Vec::new();
        } else if used > 0 || rest.len() > kept {
            self.kept.clear();
            self.kept.reserve_exact(rest.len());
            self.kept.extend_from_slice(rest);
        }
        let established = !self.established && !self.state().is_handshaking();
        self.established |= established;
        Ok(Opened { established, closed: self.peer_closed })
    }

    /// Seals application data into records behind what stands in `sealed`. `now` in milliseconds tells a pause. Nothing comes of
    /// it before the handshake has ended, and after [`Tls::close`].
    pub fn seal(&mut self, plain: &[u8], now: u64, sealed: &mut Buffer) -> Result<(), Failure> {
        if self.closed || !self.established || self.failed.is_some() || plain.is_empty() {
            return Ok(());
        }
        if now.saturating_sub(self.sent_at) > PAUSE_MS {
            self.sent = 0;
        }
        self.sent_at = now;
        let mut sent = self.sent;
        let result = self.say(Say::Data(plain, &mut sent), sealed);
        self.sent = sent;
        result
    }

    /// Seals our close_notify, once; nothing follows it.
    pub fn close(&mut self, sealed: &mut Buffer) -> Result<(), Failure> {
        if std::mem::replace(&mut self.closed, true) || !self.established || self.failed.is_some() {
            return Ok(());
        }
        self.say(Say::CloseNotify, sealed)
    }

    fn say(&mut self, say: Say<'_>, sealed: &mut Buffer) -> Result<(), Failure> {
        // rustls remembers how far it is in what is kept, and so must see it.
        let mut kept = std::mem::take(&mut self.kept);
        let (_, result) = self.drive(&mut kept, say, &mut Vec::new(), sealed);
        self.kept = kept;
        result
    }

    /// Lets rustls work until there is nothing left to do; how many of `bytes` are done with.
    fn drive(
        &mut self,
        bytes: &mut [u8],
        mut say: Say<'_>,
        plain: &mut Vec<u8>,
        sealed: &mut Buffer,
    ) -> (usize, Result<(), Failure>) {
        let mut used = 0;
        // After a failure only the alert is fetched that says why.
        while self.failed.is_none() || self.state().wants_write() {
            // What follows a failure is not looked at: it could only fail again.
            let rest = bytes.get_mut(used..).filter(|_| self.failed.is_none()).unwrap_or(&mut []);
            let (discard, step) = match &mut self.conn {
                Conn::Server(conn) => step(conn.process_tls_records(rest), &mut say, plain, sealed),
                Conn::Client(conn) => step(conn.process_tls_records(rest), &mut say, plain, sealed),
            };
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(Step::Rest) => break,
                Err(failure) => {
                    self.failed.get_or_insert(failure);
                }
            }
        }
        (used, self.failed.map_or(Ok(()), Err))
    }

    fn state(&self) -> &CommonState {
        match &self.conn {
            Conn::Server(conn) => conn,
            Conn::Client(conn) => conn,
        }
    }
}

/// What is to be said when rustls is ready for it.
enum Say<'a> {
    Nothing,
    /// With what was sent since the last pause.
    Data(&'a [u8], &'a mut u32),
    CloseNotify,
}

enum Step {
    Again,
    PeerClosed,
    Rest,
}

/// Does what rustls asks for; how many bytes of the input are done with, and whether to ask again.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    say: &mut Say<'_>,
    plain: &mut Vec<u8>,
    sealed: &mut Buffer,
) -> (usize, Result<Step, Failure>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    plain.extend_from_slice(record.payload);
                    discard += record.discard;
                }
                Some(Err(error)) => break Err(Failure::of(&error)),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => match data.encode(&mut []) {
            Err(EncodeError::InsufficientSize(size)) => {
                let encoded = data.encode(sealed.room(size.required_size));
                sealed.advance(encoded.unwrap_or(0));
                Ok(Step::Again)
            }
            _ => Ok(Step::Again),
        },
        // Whoever called sends what is in `sealed`.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let said = match std::mem::replace(say, Say::Nothing) {
                Say::Nothing => Ok(()),
                Say::Data(bytes, sent) => write(&mut traffic, bytes, sent, sealed),
                Say::CloseNotify => traffic.queue_close_notify(sealed.room(SLACK)).map(|n| sealed.advance(n)),
            };
            said.map(|()| Step::Rest).map_err(|_| Failure::Internal)
        }
        Ok(_) => Ok(Step::Rest),
        Err(error) => Err(Failure::of(&error)),
    };
    (discard, step)
}

/// Small records first, full ones after them. A small write stays whole.
fn write<D>(
    traffic: &mut WriteTraffic<'_, D>,
    mut bytes: &[u8],
    sent: &mut u32,
    sealed: &mut Buffer,
) -> Result<(), EncryptError> {
    let whole = bytes.len() <= NEVER_SPLIT;
    while !bytes.is_empty() {
        let max = if whole || *sent >= SMALL_FOR { PAYLOAD_MAX } else { SMALL_PAYLOAD };
        let (now, later) = bytes.split_at(bytes.len().min(max));
        let n = traffic.encrypt(now, sealed.room(now.len() + OVERHEAD_MAX + SLACK))?;
        sealed.advance(n);
        *sent = (*sent + now.len() as u32).min(SMALL_FOR);
        bytes = later;
    }
    Ok(())
}

/// A record of TLS begins with its type, 20 to 23; a request line with its method.
fn is_plain_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match &self.conn {
            Conn::Server(_) => "server",
            Conn::Client(_) => "client",
        };
        let mut shown = f.debug_struct("Tls");
        shown.field("side", &side).field("established", &self.established).field("kept", &self.kept.len()).finish()
    }
}

#[cfg(test)]
mod tests;
