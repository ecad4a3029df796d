//! TLS over slices: ciphertext in, plaintext out, and the reverse. The only module that names
//! rustls. Knows neither sockets nor sessions; the caller owns all buffers, so that an idle
//! connection holds only an incomplete record.
//!
//! Read in this order: [`Tls`] (one connection), `tls/configs.rs` (what the connections of a
//! listener or an upstream share), `tls/certificate.rs`, `tls/cipher.rs`, `tls/tickets.rs`,
//! `tls/failure.rs`.
//!
//! This uses the unbuffered API of rustls 0.23, in the form that 0.24 keeps. No rustls type is part
//! of our interface except the shared configurations.

mod buffer;
mod certificate;
mod cipher;
mod configs;
mod der;
mod failure;
mod hello;
mod self_signed;
mod tickets;

pub use buffer::Buffer;
pub use certificate::{CertInfo, check_identity};
pub use cipher::provider;
pub use configs::{Acceptor, TlsConfigs};
pub use failure::Failure;
pub use self_signed::self_signed;
pub use tickets::TicketKeys;

use crate::memory;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use std::fmt;
use std::sync::Arc;

/// The largest payload of a record (RFC 8446 section 5.1).
pub const PAYLOAD_MAX: usize = 16 * 1024;
/// The largest overhead of a record: header, explicit nonce or content type, tag. TLS 1.2 with
/// AES-GCM has the most.
pub const OVERHEAD_MAX: usize = 5 + 8 + 16;
/// Ciphertext of a full record as most peers send it: TLS 1.3 with a tag of 16 bytes. A read of a
/// multiple of this leaves no incomplete record.
pub const RECORD_BYTES: usize = PAYLOAD_MAX + 5 + 1 + 16;
/// Limit on incomplete messages that are kept: enough for any certificate chain.
const KEPT_MAX: usize = 2 * RECORD_BYTES;
/// Room for a KeyUpdate before application data.
const SLACK: usize = 64;
/// The payload of a record that fits into one TCP segment at the common MTU, with IPv6 and
/// timestamps.
const SMALL_PAYLOAD: usize = 1350;
/// After a pause this many bytes are sent in small records: some round trips of an initial
/// congestion window.
const SMALL_FOR: u32 = 64 * 1024;
/// A write of up to this many bytes is always one record: it fits the initial congestion window
/// (RFC 6928).
const NEVER_SPLIT: usize = 4 * 1024;
/// After this time without sending, records are small again.
const PAUSE_MS: u64 = 1_000;

/// One TLS connection, of either side.
pub struct Tls {
    conn: Conn,
    /// An incomplete record, or part of a handshake message. Empty and without an allocation at
    /// rest.
    kept: Vec<u8>,
    /// Bytes sent since the last pause, up to [`SMALL_FOR`].
    sent: u32,
    sent_at: u64,
    established: bool,
    /// Our close_notify was encrypted; nothing can follow it.
    close_notify_sent: bool,
    close_notify_received: bool,
    /// Set once; rustls is not called again after a failure.
    failed: Option<Failure>,
}

const _: () = assert!(size_of::<Tls>() <= memory::TLS_CONN_BYTES);
const _: () = assert!(RECORD_BYTES <= memory::TLS_RECORD_BYTES && KEPT_MAX <= memory::TLS_HANDSHAKE_BYTES);

enum Conn {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The state after [`Tls::decrypt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decrypted {
    /// The handshake has just completed: application data can be encrypted from now on.
    pub established: bool,
    /// The peer's close_notify was received; nothing is read after it.
    pub closed: bool,
}

impl Tls {
    /// The server side.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Tls, Failure> {
        let conn = UnbufferedServerConnection::new(Arc::clone(config)).map_err(|error| Failure::of(&error))?;
        Ok(Tls::new(Conn::Server(conn)))
    }

    /// The client side. [`Tls::decrypt`] without bytes produces the ClientHello.
    pub fn client(config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Result<Tls, Failure> {
        let conn = UnbufferedClientConnection::new(Arc::clone(config), name.clone());
        Ok(Tls::new(Conn::Client(conn.map_err(|error| Failure::of(&error))?)))
    }

    fn new(conn: Conn) -> Tls {
        Tls {
            conn,
            kept: Vec::new(),
            sent: 0,
            sent_at: 0,
            established: false,
            close_notify_sent: false,
            close_notify_received: false,
            failed: None,
        }
    }

    /// Whether the handshake has completed.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the TLS session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The peer's certificate, if it presented one.
    pub fn peer(&self) -> Option<CertInfo> {
        CertInfo::of(self.state().peer_certificates()?.first()?)
    }

    /// Whether the peer's close_notify was received.
    pub fn is_closed_by_peer(&self) -> bool {
        self.close_notify_received
    }

    /// Nothing more can be read from it, or sent.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The length of the kept bytes. The next read must leave as much room in front.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Decrypts in place. `bytes` is room for [`Tls::kept`] bytes, then the ciphertext just read.
    /// Plaintext is appended to `plain`. TLS messages of our own (handshake, tickets, key updates,
    /// alerts) are appended to `out`, which the caller must send even after a failure.
    pub fn decrypt(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, out: &mut Buffer) -> Result<Decrypted, Failure> {
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
        let (used, result) = self.drive(bytes, Outgoing::Nothing, plain, out);
        let rest = bytes.get(used..).unwrap_or(&[]);
        if result.is_ok() && rest.len() > KEPT_MAX {
            self.failed = Some(Failure::Malformed);
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
        Ok(Decrypted { established, closed: self.close_notify_received })
    }

    /// Encrypts application data and appends the records to `out`. `now`, in milliseconds, detects
    /// pauses. Does nothing before the handshake has completed or after [`Tls::send_close_notify`].
    pub fn encrypt(&mut self, plain: &[u8], now: u64, out: &mut Buffer) -> Result<(), Failure> {
        if self.close_notify_sent || !self.established || self.failed.is_some() || plain.is_empty() {
            return Ok(());
        }
        if now.saturating_sub(self.sent_at) > PAUSE_MS {
            self.sent = 0;
        }
        self.sent_at = now;
        let mut sent = self.sent;
        let result = self.send(Outgoing::Data(plain, &mut sent), out);
        self.sent = sent;
        result
    }

    /// Appends our close_notify to `out`, once; nothing can follow it.
    pub fn send_close_notify(&mut self, out: &mut Buffer) -> Result<(), Failure> {
        if std::mem::replace(&mut self.close_notify_sent, true) || !self.established || self.failed.is_some() {
            return Ok(());
        }
        self.send(Outgoing::CloseNotify, out)
    }

    fn send(&mut self, outgoing: Outgoing<'_>, out: &mut Buffer) -> Result<(), Failure> {
        // rustls remembers its position within the kept bytes, so it must see them.
        let mut kept = std::mem::take(&mut self.kept);
        let (_, result) = self.drive(&mut kept, outgoing, &mut Vec::new(), out);
        self.kept = kept;
        result
    }

    /// Runs rustls until it has nothing left to do. Returns how many of `bytes` were consumed.
    fn drive(
        &mut self,
        bytes: &mut [u8],
        mut outgoing: Outgoing<'_>,
        plain: &mut Vec<u8>,
        out: &mut Buffer,
    ) -> (usize, Result<(), Failure>) {
        let mut used = 0;
        // After a failure only the alert that reports it is fetched.
        while self.failed.is_none() || self.state().wants_write() {
            // Input after a failure is ignored: it could only fail again.
            let rest = bytes.get_mut(used..).filter(|_| self.failed.is_none()).unwrap_or(&mut []);
            let (discard, step) = match &mut self.conn {
                Conn::Server(conn) => step(conn.process_tls_records(rest), &mut outgoing, plain, out),
                Conn::Client(conn) => step(conn.process_tls_records(rest), &mut outgoing, plain, out),
            };
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.close_notify_received = true,
                Ok(Step::Done) => break,
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

/// What to send once rustls is ready for it.
enum Outgoing<'a> {
    Nothing,
    /// Application data, with the bytes sent since the last pause.
    Data(&'a [u8], &'a mut u32),
    CloseNotify,
}

enum Step {
    Again,
    PeerClosed,
    Done,
}

/// Does what rustls asks for. Returns how many bytes of the input were consumed, and whether to ask
/// again.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    outgoing: &mut Outgoing<'_>,
    plain: &mut Vec<u8>,
    out: &mut Buffer,
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
                let encoded = data.encode(out.room(size.required_size));
                out.advance(encoded.unwrap_or(0));
                Ok(Step::Again)
            }
            _ => Ok(Step::Again),
        },
        // The caller sends the content of `out`.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let result = match std::mem::replace(outgoing, Outgoing::Nothing) {
                Outgoing::Nothing => Ok(()),
                Outgoing::Data(bytes, sent) => write(&mut traffic, bytes, sent, out),
                Outgoing::CloseNotify => traffic.queue_close_notify(out.room(SLACK)).map(|n| out.advance(n)),
            };
            result.map(|()| Step::Done).map_err(|_| Failure::Internal)
        }
        Ok(_) => Ok(Step::Done),
        Err(error) => Err(Failure::of(&error)),
    };
    (discard, step)
}

/// Small records first, then full ones. A small write is one record.
fn write<D>(
    traffic: &mut WriteTraffic<'_, D>,
    mut bytes: &[u8],
    sent: &mut u32,
    out: &mut Buffer,
) -> Result<(), EncryptError> {
    let whole = bytes.len() <= NEVER_SPLIT;
    while !bytes.is_empty() {
        let max = if whole || *sent >= SMALL_FOR { PAYLOAD_MAX } else { SMALL_PAYLOAD };
        let (now, later) = bytes.split_at(bytes.len().min(max));
        let n = traffic.encrypt(now, out.room(now.len() + OVERHEAD_MAX + SLACK))?;
        out.advance(n);
        *sent = (*sent + now.len() as u32).min(SMALL_FOR);
        bytes = later;
    }
    Ok(())
}

/// A TLS record begins with its type, 20 to 23; an HTTP request with the letters of its method.
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
