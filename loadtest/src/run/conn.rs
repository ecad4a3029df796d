//! One connection: opens, sends, receives, closes. Owns its transport and what it has under way;
//! what it measures goes into its group's samples. How it ends is a value; what follows from that
//! is the client's business.

use crate::net::dial;
use crate::net::frames::{Frames, Piece};
use crate::net::opening::{self, Answer};
use crate::net::transport::Transport;
use crate::run::group::{Clock, LocalGroup, Timeline};
use crate::run::measure::{Fault, Metric};
use crate::run::message::{Sent, control};
use crate::run::plan::Traffic;
use crate::run::replies::{Data, Expect, Received, Replies};
use crate::run::stamp::Stamp;
use framegate::proto::frame::opcode;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// Reads of a turn. Who has more waits for the others.
const READS_MAX: usize = 8;

pub struct Conn {
    transport: Transport,
    pub group: usize,
    pub generation: u32,
    /// Its number, which names it in stamps.
    pub source: u32,
    /// Its position in its group's list of open connections.
    pub place: usize,
    /// It is in the list of connections that can continue.
    pub queued: bool,
    phase: Phase,
    readable: bool,
    writable: bool,
    /// FIN or RST is known: a short read proves nothing any more.
    hangup: bool,
    stalled: bool,
    out: Vec<u8>,
    out_at: usize,
    /// Intended times of messages that wait for room in the socket.
    waiting: VecDeque<u64>,
    frames: Frames,
    replies: Replies,
    sequence: u64,
    times: Times,
    messages_left: Option<u64>,
    close_code: Option<u16>,
}

/// Moments, in nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Its intended opening time.
    pub intended: u64,
    /// When the connection that it replaces was lost.
    pub lost: Option<u64>,
    /// When the phase under way began.
    pub since: u64,
    pub heard: u64,
    pub ping: Option<u64>,
    pub has_message: bool,
    /// Tries before this one that failed.
    pub tries: u32,
}

enum Phase {
    Connecting,
    Tls,
    Answer(Box<Opening>),
    Open,
    /// Our Close has left.
    Closing,
}

struct Opening {
    key: [u8; 24],
    head: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug)]
pub struct End {
    /// None for an intended end.
    pub fault: Option<(Fault, String)>,
    pub was_open: bool,
}

/// What a connection works with in its turn.
pub struct Desk<'a> {
    pub group: &'a mut LocalGroup,
    pub slot: usize,
    pub clock: &'a Clock,
    pub timeline: Timeline,
    pub buffer: &'a mut [u8],
    /// Messages that leave together.
    pub batch: &'a mut Vec<u8>,
}

type Step<T = ()> = Result<T, (Fault, String)>;

impl Conn {
    pub fn new(transport: Transport, group: usize, source: u32, times: Times) -> Conn {
        Conn {
            transport,
            group,
            generation: 0,
            source,
            place: 0,
            queued: false,
            phase: Phase::Connecting,
            readable: false,
            writable: false,
            hangup: false,
            stalled: false,
            out: Vec::new(),
            out_at: 0,
            waiting: VecDeque::new(),
            frames: Frames::default(),
            replies: Replies::default(),
            sequence: 0,
            times,
            messages_left: None,
            close_code: None,
        }
    }

    pub fn stream_mut(&mut self) -> &mut mio::net::TcpStream {
        self.transport.stream_mut()
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing)
    }

    pub fn is_opening(&self) -> bool {
        !self.is_open()
    }

    pub fn has_under_way(&self) -> bool {
        self.replies.under_way() > 0 || !self.waiting.is_empty()
    }

    /// Whether it has more to do although no event will say so.
    pub fn may_go_on(&self) -> bool {
        self.readable && !self.stalled
    }

    pub fn on_event(&mut self, event: &mio::event::Event, desk: &mut Desk<'_>) -> Result<(), End> {
        self.hangup |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || self.hangup;
        self.writable |= event.is_writable();
        self.advance(desk)
    }

    /// Goes as far as it can.
    pub fn advance(&mut self, desk: &mut Desk<'_>) -> Result<(), End> {
        self.step(desk).map_err(|(fault, why)| self.ended(fault, why))
    }

    /// Reads nothing until [`Conn::resume`].
    pub fn stall(&mut self) {
        self.stalled = true;
    }

    pub fn resume(&mut self, desk: &mut Desk<'_>) -> Result<(), End> {
        self.stalled = false;
        self.advance(desk)
    }

    pub fn ping(&mut self, desk: &mut Desk<'_>) -> Result<(), End> {
        // One at a time: a ping without a pong shows when the connection ends.
        if self.times.ping.is_none() && matches!(self.phase, Phase::Open) {
            self.times.ping = Some(desk.clock.now());
            self.write_out(&control(opcode::PING, b"framegate")).map_err(|(fault, why)| self.ended(fault, why))?;
        }
        Ok(())
    }

    /// Sends one message that was due at `intended`; queues it if the socket is full.
    pub fn send(&mut self, intended: u64, desk: &mut Desk<'_>) -> Result<(), End> {
        if !self.is_free() || !self.waiting.is_empty() {
            self.waiting.push_back(intended);
            return Ok(());
        }
        self.send_now(intended, desk).map_err(|(fault, why)| self.ended(fault, why))
    }

    /// A closed loop: as many as its window has room for, in one write.
    pub fn top_up(&mut self, desk: &mut Desk<'_>) -> Result<(), End> {
        self.fill(desk).map_err(|(fault, why)| self.ended(fault, why))
    }

    /// Sends a Close. The connection ends when the server has replied.
    pub fn close(&mut self, desk: &mut Desk<'_>) -> Result<(), End> {
        self.say_close(desk).map_err(|(fault, why)| self.ended(fault, why))
    }

    /// Cuts the connection with a reset.
    pub fn abort(self) {
        self.transport.abort();
    }

    /// What did not come back is noted when nothing more can come. `patience` is how long a server
    /// may be silent before what it owes is lost rather than late.
    pub fn record_missing_replies(&mut self, patience: u64, desk: &mut Desk<'_>) {
        let (lost, owed) = (self.replies.lost(), self.replies.under_way() as u64 + self.waiting.len() as u64);
        let counts = &mut desk.group.whole.counts;
        if lost > 0 {
            counts.faults(Fault::Lost, lost, || format!("{lost} messages of a connection never came"));
        }
        if owed > 0 {
            let silent = self.is_open() && desk.clock.now().saturating_sub(self.times.heard) > patience;
            let fault = if silent { Fault::Lost } else { Fault::Unanswered };
            counts.faults(fault, owed, || format!("{owed} messages of a connection had no reply when it ended"));
        }
    }

    fn ended(&self, fault: Fault, why: String) -> End {
        let meant = matches!(self.phase, Phase::Closing) && matches!(fault, Fault::Closed | Fault::Reset);
        End { fault: (!meant).then_some((fault, why)), was_open: self.is_open() }
    }

    fn step(&mut self, desk: &mut Desk<'_>) -> Step {
        loop {
            match &mut self.phase {
                Phase::Connecting => {
                    if !self.writable && !self.readable {
                        return Ok(());
                    }
                    let stream = self.transport.stream_mut();
                    let connected = dial::connected(stream).map_err(|e| (Fault::Connect, dial::explain(&e)))?;
                    if !connected {
                        return Ok(());
                    }
                    self.passed(Metric::Connect, desk);
                    self.phase = Phase::Tls;
                }
                Phase::Tls => {
                    let finished = self.transport.handshake().map_err(|e| (Fault::Tls, e.to_string()))?;
                    if !finished {
                        return Ok(());
                    }
                    if self.transport.is_tls() {
                        self.passed(Metric::Tls, desk);
                        let counts = &mut desk.group.whole.counts;
                        *counts.tls.entry(self.transport.agreed().unwrap_or_default()).or_default() += 1;
                        counts.resumed += u64::from(self.transport.resumed() == Some(true));
                    }
                    // What was read on the way may already be in the transport.
                    self.readable = true;
                    self.ask(desk)?;
                }
                Phase::Answer(_) => {
                    if !self.read_answer(desk)? {
                        return Ok(());
                    }
                }
                Phase::Open | Phase::Closing => {
                    self.flush(desk)?;
                    return self.receive(desk);
                }
            }
        }
    }

    /// A phase of opening is over.
    fn passed(&mut self, metric: Metric, desk: &mut Desk<'_>) {
        let now = desk.clock.now();
        desk.group.note(metric, now - self.times.since);
        self.times.since = now;
    }

    fn ask(&mut self, desk: &mut Desk<'_>) -> Step {
        let key = opening::key(&mut desk.group.random);
        let [before, after] = &desk.group.plan.target.head;
        let request = [before.as_slice(), &key, after].concat();
        self.phase = Phase::Answer(Box::new(Opening { key, head: Vec::new() }));
        self.write_out(&request)
    }

    /// Whether the server has sent its 101.
    fn read_answer(&mut self, desk: &mut Desk<'_>) -> Step<bool> {
        while self.readable {
            let Some(n) = self.read(desk.buffer)? else { return Ok(false) };
            let Phase::Answer(opening) = &mut self.phase else { return Ok(true) };
            opening.head.extend_from_slice(&desk.buffer[..n]);
            let answer = opening::judge(&opening.head, &opening.key, &desk.group.plan.target);
            match answer {
                Answer::Partial => {}
                Answer::Refused { status, reason } => {
                    return Err((Fault::Refused, format!("the server answered {status} {reason}")));
                }
                Answer::Bad(detail) => return Err((Fault::Handshake, detail)),
                Answer::Open { head_len } => {
                    let head = std::mem::take(&mut opening.head);
                    self.phase = Phase::Open;
                    self.opened(desk)?;
                    self.on_bytes(head.get(head_len..).unwrap_or(&[]), desk)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn opened(&mut self, desk: &mut Desk<'_>) -> Step {
        self.passed(Metric::Handshake, desk);
        self.times.heard = self.times.since;
        self.place = desk.group.open.len();
        desk.group.open.push(desk.slot);
        desk.group.opening = desk.group.opening.saturating_sub(1);
        desk.group.whole.counts.opened += 1;
        if desk.timeline.measures(self.times.intended) {
            desk.group.measured.counts.opened += 1;
        }
        self.messages_left = desk.group.plan.messages_per_connection;
        if desk.group.plan.sends_on_open || self.messages_left.is_some() {
            return self.send_now(desk.clock.now(), desk);
        }
        self.fill(desk)
    }

    /// Whether a message would reach the socket now.
    fn is_free(&self) -> bool {
        self.out.is_empty() && self.writable && matches!(self.phase, Phase::Open)
    }

    fn send_now(&mut self, intended: u64, desk: &mut Desk<'_>) -> Step {
        let sent = self.next_message(intended, desk);
        let wire = desk.group.messages.wire(&sent);
        self.write_out(wire)
    }

    fn fill(&mut self, desk: &mut Desk<'_>) -> Step {
        let Traffic::Closed { window } = desk.group.plan.traffic else { return Ok(()) };
        let now = desk.clock.now();
        if !desk.timeline.sends(now) || !self.is_free() || self.messages_left.is_some() {
            return Ok(());
        }
        let room = window.saturating_sub(self.replies.under_way());
        if room == 1 {
            return self.send_now(now, desk);
        }
        desk.batch.clear();
        for _ in 0..room {
            let sent = self.next_message(now, desk);
            desk.batch.extend_from_slice(desk.group.messages.wire(&sent));
        }
        self.write_out(desk.batch)
    }

    fn next_message(&mut self, intended: u64, desk: &mut Desk<'_>) -> Sent {
        let group = &mut *desk.group;
        let template = group.messages.choose(&mut group.random);
        let stamp = Stamp { source: self.source, sequence: self.sequence, time_ns: desk.clock.unix_ns(intended) };
        let sent = Sent { stamp, template, intended, sent: desk.clock.now() };
        self.sequence += 1;
        let bytes = group.messages.payload_len(template) as u64;
        group.whole.counts.sent += 1;
        group.whole.counts.sent_bytes += bytes;
        if desk.timeline.measures(intended) {
            group.measured.counts.sent += 1;
            group.measured.counts.sent_bytes += bytes;
        }
        if let Expect::Replies(_) = group.expect {
            self.replies.sent(sent);
        }
        sent
    }

    fn say_close(&mut self, desk: &mut Desk<'_>) -> Step {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing;
            self.times.since = desk.clock.now();
            self.waiting.clear();
            self.write_out(&control(opcode::CLOSE, &1000u16.to_be_bytes()))?;
        }
        Ok(())
    }

    fn flush(&mut self, desk: &mut Desk<'_>) -> Step {
        if self.transport.wants_flush() {
            self.transport.flush().map_err(broken)?;
        }
        if !self.out.is_empty() && self.writable {
            let out = std::mem::take(&mut self.out);
            self.out_at += self.write(&out[self.out_at..])?;
            if self.out_at < out.len() {
                self.out = out;
                return Ok(());
            }
            self.out_at = 0;
        }
        while self.is_free() {
            let Some(intended) = self.waiting.pop_front() else { break };
            self.send_now(intended, desk)?;
        }
        Ok(())
    }

    /// Sends what the kernel accepts and queues the rest.
    fn write_out(&mut self, bytes: &[u8]) -> Step {
        let sent = if self.out.is_empty() { self.write(bytes)? } else { 0 };
        self.out.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Step<usize> {
        let mut sent = 0;
        while sent < bytes.len() && self.writable {
            match self.transport.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(e) => {
                    // What arrived before the reset is read first; it may explain the end.
                    self.writable = false;
                    self.readable = true;
                    if e.kind() != ErrorKind::BrokenPipe && e.kind() != ErrorKind::ConnectionReset {
                        return Err(broken(e));
                    }
                    return Ok(bytes.len());
                }
            }
        }
        Ok(sent)
    }

    fn receive(&mut self, desk: &mut Desk<'_>) -> Step {
        for _ in 0..READS_MAX {
            if !self.readable || self.stalled {
                return Ok(());
            }
            // Taken out so that the desk stays free while its bytes are walked.
            let buffer = std::mem::take(&mut desk.buffer);
            let read = self.read(buffer);
            let done = match &read {
                Ok(Some(n)) => self.on_bytes(&buffer[..*n], desk),
                _ => Ok(()),
            };
            desk.buffer = buffer;
            read?;
            done?;
        }
        Ok(())
    }

    /// Bytes read, none if there are none now; the end of the stream is the end of the connection.
    fn read(&mut self, buffer: &mut [u8]) -> Step<Option<usize>> {
        match self.transport.read(buffer) {
            Ok(0) => Err((Fault::Closed, self.describe_close())),
            Ok(n) => {
                self.readable = self.hangup || !self.transport.drained_by(n, buffer.len());
                Ok(Some(n))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            // A Close has come, behind which nothing can be missing; many servers say no more than
            // that.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof && self.close_code.is_some() => {
                Err((Fault::Closed, self.describe_close()))
            }
            Err(e) => Err(broken(e)),
        }
    }

    fn describe_close(&self) -> String {
        match (&self.phase, self.close_code) {
            (_, Some(code)) => format!("the server closed the connection with code {code}"),
            (Phase::Open | Phase::Closing, None) => "the connection ended without a Close frame".into(),
            _ => "the server closed the connection in the handshake".into(),
        }
    }

    fn on_bytes(&mut self, mut bytes: &[u8], desk: &mut Desk<'_>) -> Step {
        if bytes.is_empty() {
            return Ok(());
        }
        let now = desk.clock.now();
        self.times.heard = now;
        while let Some(piece) = self.frames.next(&mut bytes).map_err(|detail| (Fault::Protocol, detail))? {
            if self.close_code.is_some() {
                return Err((Fault::Protocol, "a frame after the Close frame".into()));
            }
            match piece {
                Piece::Data { bytes, text, last, .. } => {
                    let data = Data { bytes, text, last, source: self.source };
                    let group = &mut *desk.group;
                    let got = self.replies.on_data(data, &mut group.messages, group.expect);
                    self.on_received(got.map_err(|detail| (Fault::Protocol, detail))?, bytes.len(), now, desk)?;
                }
                Piece::Ping(payload) => self.write_out(&control(opcode::PONG, &payload))?,
                Piece::Pong(_) => {
                    if let Some(at) = self.times.ping.take() {
                        desk.group.measure(Metric::Ping, now - at);
                    }
                }
                Piece::Close(code) => self.on_close(code, desk)?,
            }
        }
        self.fill(desk)
    }

    fn on_close(&mut self, code: u16, desk: &mut Desk<'_>) -> Step {
        self.close_code = Some(code);
        *desk.group.whole.counts.close_codes.entry(code).or_default() += 1;
        if matches!(self.phase, Phase::Open) {
            // The answer; then it is the server's part to end the connection.
            let payload = if code == 1005 { vec![] } else { code.to_be_bytes().to_vec() };
            self.waiting.clear();
            self.write_out(&control(opcode::CLOSE, &payload))?;
        }
        Ok(())
    }

    #[inline]
    fn on_received(&mut self, got: Received, bytes: usize, now: u64, desk: &mut Desk<'_>) -> Step {
        let group = &mut *desk.group;
        group.whole.counts.received_bytes += bytes as u64;
        match got {
            Received::Part => return Ok(()),
            Received::Reply(sent) => {
                let is_measured = desk.timeline.measures(sent.intended);
                if is_measured {
                    group.measured.counts.received += 1;
                    group.measured.counts.received_bytes += group.messages.payload_len(sent.template) as u64;
                    group.measure(Metric::RoundTrip, now.saturating_sub(sent.intended));
                    if self.messages_left.is_none() && matches!(group.plan.traffic, Traffic::Rate { .. }) {
                        group.measure(Metric::Uncorrected, now.saturating_sub(sent.sent));
                    }
                }
            }
            Received::Pushed(stamp) => {
                if desk.timeline.measures(now) {
                    group.measured.counts.received += 1;
                    group.measured.counts.received_bytes += bytes as u64;
                    if let Some(stamp) = stamp {
                        group.measure(Metric::OneWay, desk.clock.unix_ns(now).saturating_sub(stamp.time_ns));
                    }
                }
            }
            Received::Wrong(fault, detail) => group.whole.counts.fault(fault, || detail),
        }
        group.whole.counts.received += 1;
        if !self.times.has_message {
            self.times.has_message = true;
            // Elsewhere the first message waits for its own time, not for the connection.
            if self.messages_left.is_some() || group.plan.sends_on_open || group.expect == Expect::Pushes {
                group.note(Metric::FirstMessage, now.saturating_sub(self.times.intended));
            }
            if let Some(lost) = self.times.lost {
                group.note(Metric::Reconnect, now.saturating_sub(lost));
            }
        }
        match self.messages_left {
            None => Ok(()),
            Some(0 | 1) => self.say_close(desk),
            Some(left) => {
                self.messages_left = Some(left - 1);
                self.send_now(now, desk)
            }
        }
    }

    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Nothing is expected any more.
    pub fn forget(&mut self) {
        self.replies = Replies::default();
        self.waiting.clear();
    }

    /// When its Close left, if that was the last it did.
    pub fn closing_since(&self) -> Option<u64> {
        matches!(self.phase, Phase::Closing).then_some(self.times.since)
    }

    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }
}

fn broken(error: io::Error) -> (Fault, String) {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => (Fault::Reset, "the connection was reset".into()),
        ErrorKind::UnexpectedEof => (Fault::Tls, "the TLS stream was cut off without close_notify".into()),
        ErrorKind::InvalidData => (Fault::Tls, error.to_string()),
        _ => (Fault::Closed, error.to_string()),
    }
}
