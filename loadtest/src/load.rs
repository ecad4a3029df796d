//! The client side of a measurement: sessions that each keep a window of messages under way and check every
//! echo, byte for byte and in order. One thread, one edge-triggered `Poll`; must stay cheap beside what it measures.
//!
//! A closed loop: the next message leaves when an echo has come. Round trips are therefore those of a saturated
//! target and not of a given rate.

use crate::Failure;
use framegate::proto::frame::{Header, opcode};
use framegate::proto::handshake::accept_of;
use framegate::proto::mask::mask;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// For a handshake, and for the last echoes of a run.
const PATIENCE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 << 10;

/// Open sessions to one target.
pub struct Load {
    addr: SocketAddr,
    poll: Poll,
    sessions: Vec<Session>,
    payload_len: usize,
    buffer: Vec<u8>,
}

/// When a run stops sending.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    After(Duration),
    /// Messages of all sessions together.
    Messages(u64),
}

/// What a run did. Every message that was sent has come back.
pub struct Outcome {
    pub messages: u64,
    pub elapsed: Duration,
    /// In nanoseconds.
    pub round_trips: Histogram<u64>,
}

/// The part of a run that its sessions share.
struct Run {
    limit: Limit,
    window: usize,
    began: Instant,
    sent: u64,
    received: u64,
    round_trips: Histogram<u64>,
}

impl Load {
    pub fn new(addr: SocketAddr, payload_len: usize) -> Result<Load, Failure> {
        Ok(Load { addr, poll: Poll::new()?, sessions: Vec::new(), payload_len, buffer: vec![0; READ_BYTES] })
    }

    /// Opens sessions until there are `total`.
    pub fn open(&mut self, total: usize) -> Result<(), Failure> {
        while self.sessions.len() < total {
            let index = self.sessions.len();
            let mut stream = handshake(self.addr).map_err(|e| format!("session {index} to {}: {e}", self.addr))?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            self.sessions.push(Session::new(stream, index, self.payload_len));
        }
        Ok(())
    }

    /// The payload of the messages from now on.
    pub fn set_payload(&mut self, payload_len: usize) {
        self.payload_len = payload_len;
        for (index, session) in self.sessions.iter_mut().enumerate() {
            session.message = Message::new(index, payload_len);
        }
    }

    /// Keeps `window` messages under way on every session until `limit`, then waits for the last echo.
    pub fn run(&mut self, limit: Limit, window: usize) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let round_trips = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let mut run = Run { limit, window, began, sent: 0, received: 0, round_trips };
        for session in &mut self.sessions {
            session.send(&mut run, began)?;
        }
        let mut events = Events::with_capacity(1024);
        let mut last = began;
        while run.received < run.sent || run.goes_on(last) {
            self.poll.poll(&mut events, Some(PATIENCE)).or_else(|e| match e.kind() {
                ErrorKind::Interrupted => Ok(()),
                _ => Err(e),
            })?;
            if events.is_empty() {
                let lost = run.sent - run.received;
                return Err(format!("{lost} of {} echoes never came back from {}", run.sent, self.addr).into());
            }
            for event in &events {
                let session = &mut self.sessions[event.token().0];
                last = Instant::now();
                session.writable |= event.is_writable();
                session.flush()?;
                if event.is_readable() {
                    session.receive(&mut run, &mut self.buffer, last)?;
                    session.send(&mut run, last)?;
                }
            }
        }
        Ok(Outcome { messages: run.received, elapsed: began.elapsed(), round_trips: run.round_trips })
    }
}

impl Run {
    fn goes_on(&self, now: Instant) -> bool {
        match self.limit {
            Limit::After(time) => now - self.began < time,
            Limit::Messages(messages) => self.sent < messages,
        }
    }
}

/// One session. Between runs nothing of it is under way.
struct Session {
    stream: TcpStream,
    writable: bool,
    message: Message,
    /// When each message under way was sent, oldest first.
    under_way: VecDeque<Instant>,
    /// Frames, or the rest of them, that wait for the socket.
    backlog: Vec<u8>,
}

/// The message of a session as it goes out and as it must come back: its own bytes, and in the first (up to)
/// eight a sequence number, so that a lost, doubled or strayed echo shows.
struct Message {
    frame: Vec<u8>,
    echo: Vec<u8>,
    payload_len: usize,
    sequence_len: usize,
    sent: u64,
    received: u64,
    /// How much of the echo under way has come.
    matched: usize,
}

impl Session {
    fn new(stream: TcpStream, index: usize, payload_len: usize) -> Session {
        let message = Message::new(index, payload_len);
        Session { stream, writable: true, message, under_way: VecDeque::new(), backlog: Vec::new() }
    }

    /// Fills the window, with one write where the socket takes it.
    fn send(&mut self, run: &mut Run, now: Instant) -> Result<(), Failure> {
        let was_blocked = !self.backlog.is_empty();
        while self.under_way.len() < run.window && run.goes_on(now) {
            self.under_way.push_back(now);
            run.sent += 1;
            let frame = self.message.next_frame();
            if run.window == 1 && !was_blocked {
                let sent = write(&mut self.stream, &mut self.writable, frame)?;
                self.backlog.extend_from_slice(&frame[sent..]);
                return Ok(());
            }
            self.backlog.extend_from_slice(frame);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.backlog.is_empty() {
            let sent = write(&mut self.stream, &mut self.writable, &self.backlog)?;
            self.backlog.drain(..sent);
        }
        Ok(())
    }

    fn receive(&mut self, run: &mut Run, buffer: &mut [u8], now: Instant) -> Result<(), Failure> {
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err("the target closed a session".into()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("a session failed: {e}").into()),
            };
            for _ in 0..self.message.check(&buffer[..n])? {
                let sent_at = self.under_way.pop_front().ok_or("an echo came that nobody asked for")?;
                run.round_trips.saturating_record((now - sent_at).as_nanos() as u64);
                run.received += 1;
            }
            if n < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl Message {
    fn new(index: usize, payload_len: usize) -> Message {
        let seed = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = (0..payload_len as u64).map(|at| (seed.rotate_left(at as u32 % 64) ^ at) as u8);
        let mut payload: Vec<u8> = bytes.collect();
        let header = Header { fin: true, rsv: 0, opcode: opcode::BINARY, mask: None, payload_len: payload_len as u64 };
        let (mut frame, mut echo) = (Vec::new(), Vec::new());
        header.write(&mut echo);
        echo.extend_from_slice(&payload);
        Header { mask: Some(MASK), ..header }.write(&mut frame);
        mask(&mut payload, MASK, 0);
        frame.extend_from_slice(&payload);
        let sequence_len = payload_len.min(8);
        let mut message = Message { frame, echo, payload_len, sequence_len, sent: 0, received: 0, matched: 0 };
        message.expect(0);
        message
    }

    fn next_frame(&mut self) -> &[u8] {
        let mut sequence = self.sent.to_le_bytes();
        mask(&mut sequence, MASK, 0);
        self.sent += 1;
        let at = self.frame.len() - self.payload_len;
        self.frame[at..at + self.sequence_len].copy_from_slice(&sequence[..self.sequence_len]);
        &self.frame
    }

    /// Compares what came with what must come; returns how many echoes it completes.
    fn check(&mut self, mut bytes: &[u8]) -> Result<usize, Failure> {
        let mut complete = 0;
        while !bytes.is_empty() {
            let rest = &self.echo[self.matched..];
            let n = rest.len().min(bytes.len());
            if rest[..n] != bytes[..n] {
                return Err(format!("echo {} of a session differs from what was sent", self.received).into());
            }
            bytes = &bytes[n..];
            self.matched += n;
            if self.matched == self.echo.len() {
                complete += 1;
                self.received += 1;
                self.matched = 0;
                self.expect(self.received);
            }
        }
        Ok(complete)
    }

    fn expect(&mut self, sequence: u64) {
        let at = self.echo.len() - self.payload_len;
        self.echo[at..at + self.sequence_len].copy_from_slice(&sequence.to_le_bytes()[..self.sequence_len]);
    }
}

/// Writes what the kernel takes; less than all of it means blocked.
fn write(stream: &mut TcpStream, writable: &mut bool, bytes: &[u8]) -> Result<usize, Failure> {
    let mut sent = 0;
    while sent < bytes.len() && *writable {
        match stream.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => *writable = false,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("a session failed: {e}").into()),
        }
    }
    Ok(sent)
}

/// Opens a WebSocket session, blocking, and hands its socket over to the loop.
fn handshake(addr: SocketAddr) -> Result<TcpStream, Failure> {
    let mut stream = std::net::TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) => return Err("closed in the handshake".into()),
            Ok(n) => head.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let accept = accept_of(KEY.as_bytes());
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(std::str::from_utf8(&accept)?) {
        return Err(format!("refused: {}", head.lines().next().unwrap_or_default()).into());
    }
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framegate::proto::frame::Parsed;

    #[test]
    fn an_echo_is_taken_in_any_pieces_and_only_in_order() {
        for len in [1, 8, 64, 125, 126, 1024, 65_535, 65_536] {
            let mut message = Message::new(3, len);
            let echoes: Vec<Vec<u8>> = (0..3).map(|_| unmasked(message.next_frame())).collect();
            let all = echoes.concat();
            let cut = all.len() / 2 + 1;
            assert_eq!(message.check(&all[..cut]).unwrap() + message.check(&all[cut..]).unwrap(), 3);
            // Once more is once too many: its number has passed.
            assert!(message.check(&echoes[2]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let mut message = Message::new(0, 64);
        let mut echo = unmasked(message.next_frame());
        *echo.last_mut().unwrap() ^= 1;
        assert!(message.check(&echo).is_err());
    }

    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let Ok(Parsed::Complete(header, len)) = Header::parse(frame) else { panic!("no header") };
        let mut payload = frame[len..].to_vec();
        mask(&mut payload, header.mask.unwrap(), 0);
        let mut echo = Vec::new();
        Header { mask: None, ..header }.write(&mut echo);
        [echo, payload].concat()
    }
}
