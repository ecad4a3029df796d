//! A connection: a socket, the transport on it, and what its peer has not taken yet. Gives and
//! takes plaintext, whatever the transport: plain TCP (or a Unix socket), or TLS. Its handshake and
//! its close are here too. Knows neither sessions nor policy; what to do about an outcome is the
//! caller's business.
//!
//! A backlog holds what goes onto the wire: with TLS, records.

use super::buffers::{Backlog, Pool, SCRATCH_BYTES};
use super::lend::Io;
use super::socket::{Progress, Ready, Socket};
use super::sys::{Event, PipeId, Sys};
use super::token::Role;
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::interface::TransportEnd;
use crate::proto::proxy_protocol::{self, HEADER_MAX, Header};
use crate::tls::{CertInfo, Decrypted, Failure, PAYLOAD_MAX, RECORD_BYTES, Tls};
use std::io::{self, IoSlice};
use std::net::SocketAddr;

/// Bytes of ciphertext that are asked for at the least.
const TLS_READ_MIN: usize = 1024;
/// Bytes discarded in one call.
const DISCARD_BYTES: usize = 64 * 1024;
/// Reads of one connection in a handshake step.
const HANDSHAKE_READS_MAX: u32 = 4;

#[derive(Debug)]
pub struct Conn<S> {
    socket: Socket<S>,
    /// Which connection of its pair this is, so that events of a dropped attempt are recognized.
    pub role: Role,
    stage: Stage,
    transport: Transport,
    /// What the receiver has not taken yet.
    backlog: Option<Box<Backlog>>,
    /// FIN follows the backlog.
    fin_owed: bool,
    /// The other side's stream was cut: our FIN must show that, without a close_notify before it.
    cut: bool,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// connect(2) is under way.
    Connecting,
    /// A PROXY header is awaited. What follows it belongs to the transport, and stays in the
    /// kernel.
    ProxyHeader,
    /// TLS is being negotiated.
    Handshaking,
    /// Bytes of the session may flow.
    Up,
}

/// What is between the socket and the session.
#[derive(Debug)]
enum Transport {
    Plain,
    Tls(Box<Tls>),
}

/// What a look for a PROXY header found.
#[derive(Debug)]
pub enum Heading {
    /// It is incomplete.
    Pending,
    /// It has been read, and nothing behind it.
    Complete(Header),
    Failed(Cause),
    /// The peer ended the connection without a byte.
    Silent,
}

/// The outcome of a step of a TLS handshake.
#[derive(Debug)]
pub enum Handshake {
    /// It waits for the peer.
    Pending,
    /// The connection is up. `end`: the peer has closed already.
    Established { resumed: bool, end: Option<TransportEnd> },
    /// It failed; our alert has been sent. From now on the connection is read to its end.
    Failed(Cause),
    /// The peer ended the connection.
    Ended(TransportEnd),
}

/// The input of one read: decrypted where that is needed. Lent out while its slices are walked.
#[derive(Debug)]
pub struct Input {
    scratch: Box<[u8]>,
    /// What TLS decrypted of one read.
    plain: Vec<u8>,
    /// The bytes of the last read that are in `scratch`; those of TLS are all of `plain`.
    len: usize,
}

impl Default for Input {
    fn default() -> Input {
        Input { scratch: vec![0; SCRATCH_BYTES].into(), plain: Vec::new(), len: 0 }
    }
}

impl Input {
    /// The plaintext of the last read.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self.len {
            0 => &self.plain,
            n => self.scratch.get(..n).unwrap_or(&[]),
        }
    }

    /// Reads up to `max` bytes of what is no connection.
    pub fn fill(&mut self, max: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let max = max.min(self.scratch.len());
        self.len = read(self.scratch.get_mut(..max).unwrap_or_default())?;
        Ok(self.len)
    }

    /// Done with the bytes of the last read. Called before the input is put back.
    #[inline]
    pub fn clear(&mut self) {
        self.plain.clear();
        self.len = 0;
    }
}

impl<S> Conn<S> {
    /// An accepted connection; with `tls`, its handshake comes first.
    pub fn accepted(sock: S, tls: Option<Box<Tls>>) -> Conn<S> {
        let mut conn = Conn::new(sock, Role::DOWNSTREAM, Stage::Up, Transport::Plain);
        conn.begin(tls);
        conn
    }

    /// An accepted connection that begins with a PROXY header.
    pub fn headed(sock: S) -> Conn<S> {
        Conn::new(sock, Role::DOWNSTREAM, Stage::ProxyHeader, Transport::Plain)
    }

    /// A connection that is being made.
    pub fn connecting(sock: S, role: Role) -> Conn<S> {
        Conn::new(sock, role, Stage::Connecting, Transport::Plain)
    }

    fn new(sock: S, role: Role, stage: Stage, transport: Transport) -> Conn<S> {
        Conn { socket: Socket::new(sock), role, stage, transport, backlog: None, fin_owed: false, cut: false }
    }

    #[inline]
    pub fn ready(&self) -> Ready {
        self.socket.ready
    }

    #[inline]
    pub fn on_ready(&mut self, event: &Event) {
        self.socket.on_ready(event);
    }

    /// Bytes of the session may flow.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// connect(2) has something to report.
    #[inline]
    pub fn may_connect(&self) -> bool {
        self.stage == Stage::Connecting && self.socket.ready.write
    }

    /// The PROXY header has not been read.
    pub fn awaits_header(&self) -> bool {
        self.stage == Stage::ProxyHeader
    }

    /// What the peer has connected to.
    pub fn local_addr<Y: Sys<Sock = S>>(&self, sys: &mut Y) -> Option<SocketAddr> {
        sys.local_addr(self.socket.sock()).ok()
    }

    /// A TLS handshake step would find something: bytes, or their end.
    pub fn may_handshake(&self) -> bool {
        self.stage == Stage::Handshaking && self.socket.ready.read
    }

    /// Bytes go onto the wire as they are: they may be spliced.
    #[inline]
    pub fn is_plain(&self) -> bool {
        matches!(self.transport, Transport::Plain)
    }

    /// The certificate that the peer has shown.
    pub fn peer_cert(&self) -> Option<CertInfo> {
        match &self.transport {
            Transport::Tls(tls) => tls.peer(),
            Transport::Plain => None,
        }
    }

    /// Since when the receiver has taken nothing of its backlog.
    #[inline]
    pub fn stalled_since(&self) -> Option<Millis> {
        self.backlog.as_ref().map(|backlog| backlog.stalled_since)
    }

    #[inline]
    pub fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// Bytes of its backlog, those in a pipe not included.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    /// Up, with nothing on its way and no sign of its end.
    pub fn is_reusable(&self) -> bool {
        let ready = self.ready();
        let is_quiet = match &self.transport {
            Transport::Plain => true,
            // A part of a record belongs to no request.
            Transport::Tls(tls) => tls.kept() == 0 && !tls.is_closed_by_peer() && !tls.has_failed(),
        };
        self.is_up() && is_quiet && self.backlog.is_none() && !self.fin_owed && !ready.hangup && !ready.broken
    }

    /// Nothing has arrived that was not read, not even an end: asks the kernel, since what has come
    /// after the last poll, or together with what was read last, was not reported.
    pub fn is_silent<Y: Sys<Sock = S>>(&mut self, sys: &mut Y) -> bool {
        matches!(self.socket.peek(sys, &mut [0]), Progress::Blocked)
    }

    pub fn owes_fin(&self) -> bool {
        self.fin_owed
    }

    /// FIN follows the backlog.
    pub fn owe_fin(&mut self) {
        self.fin_owed = true;
    }

    /// The FIN toward this peer is to show that the other side's stream was cut.
    pub fn mark_cut(&mut self) {
        self.cut = true;
    }

    /// Ends connect(2): whether the connection is made. `None` while it is still under way.
    pub fn finish_connect<Y: Sys<Sock = S>>(&mut self, sys: &mut Y) -> Option<std::io::Result<()>> {
        // Writable without an error means connected. On an error, ask the kernel for the reason.
        let connected = if self.socket.ready.hangup { sys.connected(self.socket.sock()) } else { Ok(true) };
        match connected {
            Ok(false) => None,
            Ok(true) => {
                self.stage = Stage::Up;
                Some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads the PROXY header, once all of it has arrived.
    pub fn read_header<Y: Sys<Sock = S>>(&mut self, input: &mut Input, sys: &mut Y) -> Heading {
        if !(self.awaits_header() && self.socket.ready.read) {
            return Heading::Pending;
        }
        let room = input.scratch.get_mut(..HEADER_MAX).unwrap_or(&mut []);
        let n = match self.socket.peek(sys, room) {
            Progress::Moved(n) => n.get(),
            Progress::Blocked => return Heading::Pending,
            Progress::Ended(_) => return Heading::Silent,
        };
        let header = match proxy_protocol::parse(room.get(..n).unwrap_or(&[])) {
            Ok(Some(header)) => header,
            Ok(None) if self.socket.wait_for_more() => return Heading::Pending,
            Ok(None) => return Heading::Failed(Cause::ProxyTruncated),
            Err(proxy_protocol::Error::Absent) => return Heading::Failed(Cause::ProxyAbsent),
            Err(proxy_protocol::Error::Malformed) => return Heading::Failed(Cause::ProxyMalformed),
            Err(proxy_protocol::Error::TooLong) => return Heading::Failed(Cause::ProxyTooLong),
        };
        let header_room = room.get_mut(..header.len).unwrap_or(&mut []);
        match self.socket.recv(sys, header_room) {
            Progress::Moved(n) if n.get() == header.len => Heading::Complete(header),
            // Urgent data stands in it.
            Progress::Moved(_) | Progress::Blocked | Progress::Ended(_) => Heading::Failed(Cause::ProxyTruncated),
        }
    }

    /// The PROXY header has been read: the transport begins, with `tls` its handshake.
    pub fn begin(&mut self, tls: Option<Box<Tls>>) {
        (self.stage, self.transport) = match tls {
            None => (Stage::Up, Transport::Plain),
            Some(tls) => (Stage::Handshaking, Transport::Tls(tls)),
        };
    }

    /// Starts a TLS handshake on a connection that has just been made: sends the ClientHello.
    pub fn start_handshake<Y: Sys<Sock = S>>(&mut self, mut tls: Box<Tls>, io: &mut Io<'_, Y>) -> Result<(), Cause> {
        tls.decrypt(&mut [], &mut Vec::new(), io.sealed).map_err(cause_of)?;
        (self.stage, self.transport) = (Stage::Handshaking, Transport::Tls(tls));
        self.send_sealed(false, io);
        Ok(())
    }

    /// What has arrived of the first record, without taking it.
    pub fn peek<'i, Y: Sys<Sock = S>>(&mut self, input: &'i mut Input, sys: &mut Y) -> (Progress, &'i [u8]) {
        let room = input.scratch.get_mut(..RECORD_BYTES).unwrap_or(&mut []);
        let progress = self.socket.peek(sys, room);
        let n = if let Progress::Moved(n) = progress { n.get() } else { 0 };
        (progress, room.get(..n).unwrap_or(&[]))
    }

    /// What was looked at is not enough: whether more can come.
    pub fn wait_for_more(&mut self) -> bool {
        self.socket.wait_for_more()
    }

    /// Continues a TLS handshake as far as what has arrived allows. Plaintext that came with its
    /// end is in `input`. `heard` is set if the peer sent anything.
    pub fn handshake<Y: Sys<Sock = S>>(
        &mut self,
        input: &mut Input,
        heard: &mut bool,
        io: &mut Io<'_, Y>,
    ) -> Handshake {
        input.clear();
        for _ in 0..HANDSHAKE_READS_MAX {
            if !self.may_handshake() {
                break;
            }
            let (progress, decrypted) = self.pull_tls(SCRATCH_BYTES, input, io);
            *heard |= matches!(progress, Progress::Moved(_));
            self.send_sealed(false, io);
            match (progress, decrypted) {
                (Progress::Blocked, _) => break,
                (Progress::Ended(end), _) => return Handshake::Ended(end),
                (Progress::Moved(_), Err(failure)) => return self.fail_handshake(failure),
                (Progress::Moved(_), Ok(decrypted)) if decrypted.established => {
                    self.stage = Stage::Up;
                    let resumed = matches!(&self.transport, Transport::Tls(tls) if tls.is_resumed());
                    let end = decrypted.closed.then_some(TransportEnd::Eof);
                    return Handshake::Established { resumed, end };
                }
                (Progress::Moved(_), Ok(decrypted)) if decrypted.closed => return Handshake::Ended(TransportEnd::Eof),
                (Progress::Moved(_), Ok(_)) => {}
            }
        }
        Handshake::Pending
    }

    fn fail_handshake(&mut self, failure: Failure) -> Handshake {
        self.stage = Stage::Up;
        if failure == Failure::PlainHttp {
            // The peer can read a refusal in plain text.
            self.transport = Transport::Plain;
        }
        Handshake::Failed(cause_of(failure))
    }

    /// A handshake is given up; the connection is only closed from here on.
    pub fn give_up_handshake(&mut self) {
        self.stage = Stage::Up;
    }

    /// One read of up to some `max` bytes; their plaintext is in `input`, also if the read ends the
    /// stream.
    #[inline(always)]
    pub fn read<Y: Sys<Sock = S>>(&mut self, max: usize, input: &mut Input, io: &mut Io<'_, Y>) -> Progress {
        if let Transport::Plain = self.transport {
            let room = input.scratch.get_mut(..max.min(SCRATCH_BYTES)).unwrap_or(&mut []);
            let progress = self.socket.recv(io.sys, room);
            input.len = if let Progress::Moved(n) = progress { n.get() } else { 0 };
            return progress;
        }
        self.read_tls(max, input, io)
    }

    #[inline(never)]
    fn read_tls<Y: Sys<Sock = S>>(&mut self, max: usize, input: &mut Input, io: &mut Io<'_, Y>) -> Progress {
        input.clear();
        let (progress, decrypted) = self.pull_tls(max, input, io);
        // What TLS has to send itself: tickets, key updates, alerts.
        self.send_sealed(false, io);
        match (decrypted, progress) {
            (Err(failure), _) => Progress::Ended(TransportEnd::Failed(cause_of(failure))),
            (Ok(decrypted), _) if decrypted.closed => Progress::Ended(TransportEnd::Eof),
            (Ok(_), Progress::Ended(TransportEnd::Eof)) => Progress::Ended(self.end_of_tls()),
            (Ok(_), progress) => progress,
        }
    }

    /// The meaning of a FIN.
    fn end_of_tls(&self) -> TransportEnd {
        match &self.transport {
            Transport::Tls(tls) if !tls.is_closed_by_peer() => TransportEnd::Cut,
            Transport::Tls(_) | Transport::Plain => TransportEnd::Eof,
        }
    }

    /// Reads once and decrypts what arrived into `input.plain`; output of TLS itself is in
    /// `io.sealed`.
    fn pull_tls<Y: Sys<Sock = S>>(
        &mut self,
        max: usize,
        input: &mut Input,
        io: &mut Io<'_, Y>,
    ) -> (Progress, Result<Decrypted, Failure>) {
        let Transport::Tls(tls) = &mut self.transport else { return (Progress::Blocked, Ok(Decrypted::default())) };
        let kept = tls.kept();
        // Whole records, where the peer sends full ones; never so little that many reads bring
        // nothing.
        let end = match max.min(SCRATCH_BYTES) / PAYLOAD_MAX {
            0 => kept + max.max(TLS_READ_MIN),
            records => (records * RECORD_BYTES).max(kept + TLS_READ_MIN),
        };
        let room = input.scratch.get_mut(kept..end.min(SCRATCH_BYTES)).unwrap_or(&mut []);
        let progress = self.socket.recv(io.sys, room);
        let Progress::Moved(n) = progress else { return (progress, Ok(Decrypted::default())) };
        let bytes = input.scratch.get_mut(..kept + n.get()).unwrap_or(&mut []);
        (progress, tls.decrypt(bytes, &mut input.plain, io.sealed))
    }

    /// One read whose plaintext is discarded; its amount and its end matter. TLS is still
    /// decrypted: its close_notify is what is waited for.
    pub fn discard<Y: Sys<Sock = S>>(&mut self, input: &mut Input, io: &mut Io<'_, Y>) -> (usize, Progress) {
        if let Transport::Tls(tls) = &self.transport
            && tls.is_established()
        {
            let progress = self.read_tls(SCRATCH_BYTES, input, io);
            let n = input.plain.len();
            input.clear();
            return (n, progress);
        }
        let progress = self.socket.discard(io.sys, DISCARD_BYTES);
        (if let Progress::Moved(n) = progress { n.get() } else { 0 }, progress)
    }

    /// Sends `[first, bytes]` behind everything sent before: at once, or into the backlog as far as
    /// the kernel refuses them. `last`: a FIN follows at once, so that both may leave in one
    /// segment. Whether there is a backlog now that was not there before.
    #[inline(always)]
    pub fn write<Y: Sys<Sock = S>>(&mut self, first: &[u8], bytes: &[u8], last: bool, io: &mut Io<'_, Y>) -> bool {
        if let Transport::Plain = self.transport {
            return self.send(first, bytes, last, io);
        }
        self.write_tls(first, bytes, last, io)
    }

    #[inline(never)]
    fn write_tls<Y: Sys<Sock = S>>(&mut self, first: &[u8], bytes: &[u8], last: bool, io: &mut Io<'_, Y>) -> bool {
        let Transport::Tls(tls) = &mut self.transport else { return false };
        let (now, sealed) = (io.now, &mut *io.sealed);
        let mut result = tls.encrypt(first, now, sealed).and_then(|()| tls.encrypt(bytes, now, sealed));
        if last {
            result = result.and_then(|()| tls.send_close_notify(sealed));
        }
        if result.is_err() {
            // No key is left to encrypt with: nothing more can be sent.
            self.socket.ready.broken = true;
        }
        self.send_sealed(last, io)
    }

    /// Sends what TLS has left in `io.sealed`.
    fn send_sealed<Y: Sys<Sock = S>>(&mut self, last: bool, io: &mut Io<'_, Y>) -> bool {
        if io.sealed.is_empty() {
            return false;
        }
        let mut sealed = std::mem::take(io.sealed);
        let stalled = self.send(&[], sealed.bytes(), last, io);
        sealed.clear();
        *io.sealed = sealed;
        stalled
    }

    /// [`Conn::write`] for what goes onto the wire as it is.
    #[inline(always)]
    fn send<Y: Sys<Sock = S>>(&mut self, first: &[u8], bytes: &[u8], last: bool, io: &mut Io<'_, Y>) -> bool {
        if let Some(backlog) = &mut self.backlog {
            backlog.push(first, io.pool);
            backlog.push(bytes, io.pool);
            return false;
        }
        let progress = match (first.is_empty(), last) {
            (true, false) => self.socket.send(io.sys, bytes),
            (true, true) => self.socket.send_last(io.sys, bytes),
            (false, _) => self.socket.send_vectored(io.sys, &[IoSlice::new(first), IoSlice::new(bytes)]),
        };
        let sent = match progress {
            Progress::Moved(n) if n.get() == first.len() + bytes.len() => return false,
            Progress::Moved(n) => n.get(),
            Progress::Blocked => 0,
            // The error is reported when this socket is read next; unsent bytes are discarded.
            Progress::Ended(_) => return false,
        };
        let mut backlog = Box::new(Backlog::new(io.now));
        backlog.push(first.get(sent..).unwrap_or(&[]), io.pool);
        backlog.push(bytes.get(sent.saturating_sub(first.len())..).unwrap_or(&[]), io.pool);
        self.backlog = Some(backlog);
        true
    }

    /// Sends the backlog as far as the kernel takes it. Whether any of it left.
    pub fn flush<Y: Sys<Sock = S>>(&mut self, io: &mut Io<'_, Y>) -> bool {
        let Some(backlog) = &mut self.backlog else { return false };
        let mut moved = false;
        if let Some((pipe, held)) = backlog.pipe() {
            let left = empty(&mut self.socket, io.sys, (pipe, held));
            backlog.advance_pipe(held - left, io.pool);
            moved |= left < held;
            if left > 0 && !self.socket.ready.broken {
                backlog.touch(moved, io.now);
                return moved;
            }
        }
        while !backlog.is_empty() && self.socket.ready.write {
            let (slices, count) = backlog.slices();
            match self.socket.send_vectored(io.sys, slices.get(..count).unwrap_or(&[])) {
                Progress::Moved(n) => {
                    backlog.advance(n.get(), io.pool);
                    moved = true;
                }
                Progress::Blocked => break,
                // It will take no more; its end is read in its turn.
                Progress::Ended(_) => backlog.forget(io.pool),
            }
        }
        backlog.touch(moved, io.now);
        if backlog.is_empty() {
            self.backlog = None;
        }
        moved
    }

    /// Moves up to `max` bytes from the socket into an empty pipe.
    pub fn splice_in<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, pipe: PipeId, max: usize) -> Progress {
        self.socket.splice_in(sys, pipe, max)
    }

    /// Sends what a pipe holds; the rest becomes the backlog. Whether there is any.
    pub fn splice_out<Y: Sys<Sock = S>>(&mut self, pipe: PipeId, held: usize, io: &mut Io<'_, Y>) -> bool {
        match empty(&mut self.socket, io.sys, (pipe, held)) {
            0 => io.pool.give_pipe(pipe),
            // The error is reported when this socket is read next; unsent bytes are discarded.
            _ if self.socket.ready.broken => io.pool.spoil_pipe(pipe),
            left => self.backlog = Some(Box::new(Backlog::of_pipe(io.now, pipe, left))),
        }
        self.backlog.is_some()
    }

    /// Ends our stream where TLS asks for it: a close_notify, unless the FIN is to show that bytes
    /// are missing. Whether there is a backlog now that was not there before.
    pub fn send_close_notify<Y: Sys<Sock = S>>(&mut self, io: &mut Io<'_, Y>) -> bool {
        let sealed = match &mut self.transport {
            // If it cannot be sealed, the FIN alone tells the peer that something is missing.
            Transport::Tls(tls) if !self.cut => tls.send_close_notify(io.sealed).is_ok(),
            Transport::Tls(_) | Transport::Plain => false,
        };
        sealed && self.send_sealed(true, io)
    }

    /// FIN behind everything sent before.
    pub fn shutdown<Y: Sys<Sock = S>>(&mut self, sys: &mut Y) {
        self.fin_owed = false;
        // It fails only where the peer has reset the connection; that is read in its turn.
        ignore(sys.shutdown(self.socket.sock()));
    }

    /// The socket, to be closed or reset; the backlog goes back to the pool.
    pub fn into_sock(self, pool: &mut Pool) -> S {
        if let Some(backlog) = self.backlog {
            backlog.drop_all(pool);
        }
        self.socket.into_sock()
    }
}

/// The result does not matter, for the reason beside the call.
fn ignore<T, E>(_: Result<T, E>) {}

/// Moves what a pipe holds into the socket, as far as it takes it; how much is left.
fn empty<Y: Sys>(socket: &mut Socket<Y::Sock>, sys: &mut Y, (pipe, held): (PipeId, usize)) -> usize {
    let mut left = held;
    while left > 0 && socket.ready.write {
        match socket.splice_out(sys, pipe, left) {
            Progress::Moved(n) => left -= n.get().min(left),
            Progress::Blocked | Progress::Ended(_) => break,
        }
    }
    left
}

/// The cause of a session's end for a failure of TLS.
fn cause_of(failure: Failure) -> Cause {
    match failure {
        Failure::PlainHttp => Cause::PlainOnTls,
        Failure::Malformed => Cause::TlsMalformed,
        Failure::Version => Cause::TlsVersion,
        Failure::NoCommonParameters => Cause::TlsNoCommonParameters,
        Failure::NoCertificate => Cause::TlsNoCertificate,
        Failure::Expired => Cause::TlsExpired,
        Failure::UnknownIssuer => Cause::TlsUnknownIssuer,
        Failure::WrongName => Cause::TlsWrongName,
        Failure::BadCertificate => Cause::TlsBadCertificate,
        Failure::Alert(_) => Cause::TlsAlert,
        Failure::BadRecord => Cause::TlsBadRecord,
        Failure::Misbehaved => Cause::TlsMisbehaved,
        Failure::Internal => Cause::TlsInternal,
    }
}
