//! The reference client and the reference backend: one state machine for both, that reads and
//! writes through the simulated kernel, with its own handshake and framing (`frames.rs`). A peer
//! follows the script and replies; it judges nothing, but keeps what it received for the oracle.

use crate::beat::Heard;
use crate::faults::Fault;
use crate::frames::{Walk, push_close, read_head};
use crate::header;
use crate::kernel::{Id, Kernel, Micros, What, trace};
use crate::schedule::{Finish, Opening, Part, REFUSED, Script, Session};
use crate::seal::Seal;
use framegate::proto::Side;

/// Keys with their accept values, computed elsewhere (RFC 6455, section 4.2.2).
pub const KEYS: [(&str, &str); 8] = [
    ("uz0FNGcNl28NzMyfHZdzWg==", "RXVoF/ehfIBPS+uA23o8Ad7EVIg="),
    ("dyI0qD9CHcEn5r0gXhjp5A==", "vVGtZANn3QjlLDpuZT/TdmYo6Y0="),
    ("p7PaohY4W3W0JHBYSufVjA==", "KGuWZu1QUFlUUivizGouVBEBNUg="),
    ("DbrRQ2xM9bDxVF5I+SAptw==", "FJoSoxG8LEM7R8DPEE7I/EgLOy4="),
    ("k4/dA/UfwggJC312qrsYfw==", "IukmG9r0IJ9sf8xazADHXM5MLmI="),
    ("5PQPzfz6QWay8hM/+WoM5w==", "KvXCbuk3/QMqKKkmjDOqEvNnsIU="),
    ("A1N6rqaMA8H7mOyNjdLW1Q==", "YGAbqSKl17sZ/qG8RhPkw3rza7A="),
    ("QehKjw8VCKaYqaRzblOE7A==", "WwrqE6Wh0BSV1hWDThKtIS+Nqkg="),
];

/// The longest that one peer may pause in a session, all pauses together: well below every timeout.
const PAUSES: Micros = 1_300_000;

/// Small writes of one peer in a session: more prove nothing new.
const TORN_MAX: u32 = 40;

/// A piece held back until there were enough faults.
const FORCED: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// The client's request, or the backend's wait for one; a client also waits for the response.
    #[default]
    Head,
    Open,
    /// The client was refused and reads to the end; the backend waits for the end without a reply.
    Refused,
    Gone,
}

/// What a peer did and saw, for the oracle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    pub status: u16,
    /// The client's 101 had the right accept value; the backend's request was complete.
    pub head_ok: bool,
    /// The backend got bytes after the request before it sent its 101.
    pub early: usize,
    pub opened: bool,
    pub eof: bool,
    pub reset: bool,
    /// The last act has happened (at least its first byte was sent).
    pub acted: bool,
    /// Offset in the plan of a Close that replies to another one.
    pub answered_at: Option<usize>,
    /// Urgent data was sent, and reported to the worker before any end.
    pub urgent: bool,
    pub urgent_told: bool,
    /// With TLS: it ended without a close_notify, and whether the worker's has come.
    pub cut: bool,
    pub notified: bool,
    /// Faults so far when the session opened.
    pub faults_before: u64,
}

#[derive(Debug, Default)]
pub struct Peer {
    pub side: Option<Side>,
    /// `None` for a decoy.
    pub session: Option<usize>,
    /// Backends of its session before it.
    pub nth: usize,
    pub sock: Id,
    pub stage: Stage,
    pub facts: Facts,
    /// The other side's head, and what came after it.
    pub head: Vec<u8>,
    pub rx: Vec<u8>,
    pub walk: Walk,
    /// Own head and plan; `sent` of it are with the kernel.
    out: Vec<u8>,
    sent: usize,
    frames_at: usize,
    fin_sent: bool,
    pub broken: bool,
    /// No reads, no writes before these moments.
    read_after: Micros,
    write_after: Micros,
    pauses: Micros,
    finish: Option<Finish>,
    /// The usual size of a write; 0: everything at once.
    grain: usize,
    torn: u32,
    pub seal: Option<Seal>,
    /// Ends TLS without a close_notify.
    pub rude: bool,
    /// A client that waits before it leaves: until then.
    leaves_at: Option<Micros>,
    /// FIN is to follow what waits.
    fin_due: bool,
    /// What goes out before everything else, TLS included, and has not been sent: a PROXY header.
    header: Vec<u8>,
    header_len: usize,
    /// It is all that the client sends.
    leaves_in_header: bool,
    /// What must come in before everything else, as far as it has not come.
    expected: Vec<u8>,
    pub heard: Heard,
}

/// What a peer sees besides itself.
struct View<'a> {
    session: &'a Session,
    mine: &'a Part,
    other: &'a Part,
    /// Bytes of frames that the other peer has received.
    other_got: usize,
}

impl Peer {
    /// Starts over, reusing the memory of an old peer.
    pub fn begin(&mut self, side: Side, session: Option<usize>, sock: Id, kernel: &mut Kernel) {
        let [head, rx, out] = [&mut self.head, &mut self.rx, &mut self.out].map(|bytes| {
            bytes.clear();
            std::mem::take(bytes)
        });
        let grain = kernel.rng.pick(&[0, 0, 1, 3, 40, 100, 300, 1_000, 5_000, 20_000]);
        *self = Peer { side: Some(side), session, sock, head, rx, out, grain, ..Peer::default() };
    }

    /// Writes the request; for the client, once it has connected.
    /// `cookie`: a field of it.
    pub fn request(&mut self, script: &Script, cookie: &[u8]) {
        let Some(session) = self.session.and_then(|i| script.sessions.get(i)) else { return };
        let index = self.session.unwrap_or_default();
        match session.opening {
            Opening::Refused(kind) => {
                let (bad, blocks) = &REFUSED[kind];
                self.out.extend_from_slice(bad.line.as_bytes());
                self.out.extend_from_slice(b"\r\n");
                self.out.extend_from_slice(bad.fields.as_bytes());
                blocks.iter().for_each(|block| self.out.extend_from_slice(block.as_bytes()));
                self.out.extend_from_slice(b"\r\n");
            }
            _ => {
                let leg = session.leg.name();
                let key = KEYS[session.key].0;
                for part in ["GET /", ["0", "1", "2"][index], "/", leg, &session.suffix(), " HTTP/1.1\r\n"] {
                    self.out.extend_from_slice(part.as_bytes());
                }
                self.out.extend_from_slice(b"Host: sim.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
                self.out.extend_from_slice(cookie);
                for part in ["Sec-WebSocket-Key: ", key, "\r\nSec-WebSocket-Version: 13\r\n\r\n"] {
                    self.out.extend_from_slice(part.as_bytes());
                }
            }
        }
        self.frames_at = self.out.len();
        let part = &session.parts[0];
        self.out.extend_from_slice(&part.plan);
        self.finish = part.finish;
    }

    /// The client begins with a header; the second part: it leaves within it.
    pub fn announce(&mut self, header: (Vec<u8>, bool)) {
        (self.header, self.leaves_in_header) = header;
        self.header_len = self.header.len();
    }

    pub fn leaves_in_header(&self) -> bool {
        self.leaves_in_header
    }

    /// The backend gets this header first.
    pub fn expect(&mut self, header: Vec<u8>) {
        self.expected = header;
    }

    /// Does all that can be done now. Called after each change of its socket.
    pub fn step(&mut self, me: usize, script: &Script, other_got: usize, kernel: &mut Kernel) {
        if self.stage == Stage::Gone {
            return;
        }
        let (Some(side), Some(session)) = (self.side, self.session.and_then(|i| script.sessions.get(i))) else {
            return self.step_decoy(kernel);
        };
        let (mine, other) = (&session.parts[side as usize], &session.parts[side.other() as usize]);
        let view = View { session, mine, other, other_got };
        if kernel.socks[self.sock].link == crate::kernel::Link::Connecting {
            return;
        }
        self.read(me, &view, kernel);
        self.react(me, &view, kernel);
        self.write(me, &view, kernel);
        self.end(me, &view, kernel);
    }

    /// A decoy resets its connection as soon as it is queued.
    fn step_decoy(&mut self, kernel: &mut Kernel) {
        kernel.abort(self.sock);
        self.stage = Stage::Gone;
    }

    pub fn later(&self, me: usize, at: Micros, kernel: &mut Kernel) {
        kernel.at(at, What::Peer(me));
    }

    fn may_pause(&self, kernel: &Kernel) -> bool {
        !kernel.faults.calm && self.pauses < PAUSES && self.walk.close.is_none() && !self.facts.acted
    }

    /// How long to pause, now and then.
    fn pause(&mut self, fault: Fault, one_in: u32, kernel: &mut Kernel) -> Option<Micros> {
        if !self.may_pause(kernel) || !kernel.rng.one_in(one_in) {
            return None;
        }
        let most = kernel.rng.pick(&[2_000, 30_000, 30_000, 1_000_000]);
        let pause = (1 + kernel.rng.below(most)).min(PAUSES - self.pauses);
        self.pauses += pause;
        kernel.faults.note(fault);
        Some(kernel.now + pause)
    }

    // --- what comes

    fn read(&mut self, me: usize, view: &View<'_>, kernel: &mut Kernel) {
        self.join_tail();
        self.take_in(me, view, kernel);
        if self.stage == Stage::Open {
            self.take_pings(me, view.session.beat, view.other, kernel);
            self.walk.advance(&self.rx);
        }
    }

    /// Reads the header that must come first. Whether it has come.
    fn take_header(&mut self, kernel: &mut Kernel) -> bool {
        while !self.expected.is_empty() && !self.facts.eof && !self.facts.reset {
            let expected = &self.expected;
            let same = |bytes: &[u8]| assert!(expected.starts_with(bytes), "{bytes:?} in place of {expected:?}");
            match kernel.recv(self.sock, expected.len(), same) {
                Ok(0) => self.facts.eof = true,
                Ok(n) => drop(self.expected.drain(..n)),
                Err(libc::EAGAIN) => return false,
                Err(_) => (self.facts.reset, self.broken) = (true, true),
            }
        }
        self.expected.is_empty()
    }

    /// Sends the header, in one piece or in several with pauses. Whether it is sent.
    fn send_header(&mut self, me: usize, kernel: &mut Kernel) -> bool {
        let sent = header::send(&mut self.header, &mut self.broken, self.sock, kernel);
        sent.unwrap_or_else(|at| {
            self.later(me, at, kernel);
            false
        })
    }

    fn take_in(&mut self, me: usize, view: &View<'_>, kernel: &mut Kernel) {
        if !self.take_header(kernel) {
            return;
        }
        if view.mine.deaf_after.is_some_and(|n| self.rx.len() >= n && self.facts.opened) || self.heard.dead {
            return;
        }
        while !self.facts.eof && !self.facts.reset {
            if kernel.now < self.read_after {
                return;
            }
            if let Some(at) = self.pause(Fault::SlowReader, 48, kernel) {
                self.read_after = at;
                return self.later(me, at, kernel);
            }
            let max = if kernel.rng.one_in(8) { kernel.rng.size(1, 64) } else { usize::MAX };
            let (head, rx, open) = (&mut self.head, &mut self.rx, self.stage == Stage::Open);
            let take = |bytes: &[u8]| if open { rx } else { head }.extend_from_slice(bytes);
            let got = match &mut self.seal {
                Some(seal) => seal.recv(self.sock, max, kernel, take),
                None => kernel.recv(self.sock, max, take),
            };
            self.facts.notified |= self.seal.as_ref().is_some_and(|seal| seal.notified);
            trace!(kernel, "peer {me} reads {got:?}");
            match got {
                Ok(0) => self.facts.eof = true,
                Ok(_) if self.stage == Stage::Head => self.on_head(view, kernel),
                Ok(_) if self.stage == Stage::Open => {
                    if view.mine.deaf_after.is_some_and(|n| self.rx.len() >= n) {
                        return;
                    }
                }
                Ok(_) => {}
                Err(libc::EAGAIN) => break,
                Err(_) => (self.facts.reset, self.broken) = (true, true),
            }
        }
    }

    fn on_head(&mut self, view: &View<'_>, kernel: &mut Kernel) {
        let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else { return };
        match self.side {
            Some(Side::Downstream) => self.on_answer(end, view, kernel),
            _ => self.on_request(end, view, kernel),
        }
    }

    fn on_answer(&mut self, end: usize, view: &View<'_>, kernel: &mut Kernel) {
        let digits = self.head.get(9..12).unwrap_or_default();
        self.facts.status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d.wrapping_sub(b'0')));
        if self.facts.status != 101 {
            self.stage = Stage::Refused;
            return;
        }
        let head = String::from_utf8_lossy(&self.head[..end]);
        let accept = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim().to_owned())
        });
        self.facts.head_ok = accept.as_deref() == Some(KEYS[view.session.key].1);
        self.open(end, view.session.bulk, kernel);
    }

    fn on_request(&mut self, end: usize, view: &View<'_>, kernel: &mut Kernel) {
        let key = KEYS[view.session.key].0.as_bytes();
        self.facts.head_ok = self.head.starts_with(b"GET /") && self.head[..end].windows(key.len()).any(|w| w == key);
        self.facts.early = self.head.len() - end;
        let accept = KEYS[view.session.key].1;
        let fails = view.session.retry.filter(|retry| self.nth < retry.fails);
        let opening = fails.map_or(view.session.opening, |retry| retry.by);
        let accept = if opening == Opening::Bad101 { KEYS[(view.session.key + 1) % 8].1 } else { accept };
        match opening {
            Opening::Silent => self.stage = Stage::Refused,
            Opening::Hangs => {
                self.facts.cut = self.seal.is_some();
                kernel.close(self.sock);
                self.stage = Stage::Gone;
            }
            Opening::Answers => {
                self.out.extend_from_slice(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nSorry.");
                self.frames_at = self.out.len();
                self.stage = Stage::Refused;
            }
            _ => {
                if view.session.hints {
                    self.out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
                }
                self.out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
                for part in ["Connection: Upgrade\r\nSec-WebSocket-Accept: ", accept, "\r\n\r\n"] {
                    self.out.extend_from_slice(part.as_bytes());
                }
                self.frames_at = self.out.len();
                self.out.extend_from_slice(&view.mine.plan);
                self.finish = view.mine.finish;
                self.open(end, view.session.bulk, kernel);
            }
        }
    }

    fn open(&mut self, end: usize, bulk: bool, kernel: &mut Kernel) {
        self.rx.extend_from_slice(&self.head[end..]);
        self.head.truncate(end);
        self.stage = Stage::Open;
        self.facts.opened = true;
        if bulk && kernel.rng.one_in(2) {
            self.grain = 0;
        }
        self.facts.faults_before = kernel.faults.total();
    }

    // --- what to answer

    fn react(&mut self, me: usize, view: &View<'_>, kernel: &mut Kernel) {
        let Some((_, code)) = self.walk.close else { return };
        let begun = self.sent > self.frames_at + view.mine.act_at;
        if self.facts.answered_at.is_some() || view.mine.mute || begun {
            return;
        }
        // The plan ends at a frame boundary, with the replying Close.
        let at = if view.mine.late { view.mine.act_at } else { self.boundary() };
        if at > view.mine.act_at {
            return;
        }
        self.out.truncate(self.frames_at + at);
        let key = (self.side == Some(Side::Downstream)).then(|| (kernel.rng.word() as u32).to_le_bytes());
        if self.wakes() {
            self.write_after = kernel.now;
        }
        push_close(&mut self.out, key, if (1000..5000).contains(&code) { code } else { 1000 }, "");
        self.facts.answered_at = Some(at);
        self.finish = Some(Finish::Wait);
        trace!(kernel, "peer {me} answers a Close {code} at {at}");
    }

    /// The first frame boundary of the plan at or behind what was sent.
    fn boundary(&self) -> usize {
        let plan = &self.out[self.frames_at..];
        let sent = self.sent.saturating_sub(self.frames_at);
        let mut at = 0;
        while at < sent {
            let Some(head) = read_head(&plan[at..]) else { return usize::MAX };
            at += head.total() as usize;
        }
        at
    }

    // --- what goes

    /// How much of `out` may be sent by now.
    fn limit(&self, view: &View<'_>) -> usize {
        let all = self.out.len();
        match (self.stage, view.session.opening, self.side) {
            (Stage::Head, ..) if self.leaves_in_header => 0,
            (Stage::Head, Opening::Leaves { after, .. }, Some(Side::Downstream)) => after.min(self.frames_at),
            (Stage::Head, ..) => (self.frames_at + view.mine.glued).min(all),
            (Stage::Refused, ..) => self.sent.max(self.frames_at),
            (Stage::Gone, ..) => self.sent,
            (Stage::Open, ..) if self.ready(view) => all,
            (Stage::Open, ..) => (self.frames_at + view.mine.act_at).min(all),
        }
    }

    /// Whether the last act may begin.
    fn ready(&self, view: &View<'_>) -> bool {
        let heard = self.rx.len() >= view.other.act_at && view.other_got >= view.mine.act_at;
        !view.mine.patient || heard || self.facts.eof || self.facts.answered_at.is_some() || self.walk.close.is_some()
    }

    fn write(&mut self, me: usize, view: &View<'_>, kernel: &mut Kernel) {
        if !self.send_header(me, kernel) || self.leaves_in_header {
            return;
        }
        let limit = self.limit(view);
        let beats = view.session.beat.is_some();
        if beats && !(self.flush(me, kernel) && self.say_pongs(view.mine.act_at, kernel)) {
            return;
        }
        while self.sent < limit && !self.broken && !self.fin_sent && kernel.now >= self.write_after {
            if !self.flush(me, kernel) || !self.say_pongs(view.mine.act_at, kernel) {
                return;
            }
            let sent = self.sent.saturating_sub(self.frames_at);
            if let Some(until) = self.rests(me, view.session.beat, sent, kernel) {
                self.write_after = until;
                break;
            }
            self.urgent(view, kernel);
            self.see_to_faults(view, kernel);
            let mut n = (limit - self.sent).min(self.piece(kernel));
            // If faults must be forced, that is known at this point, and the rest needs some too.
            let half = self.half(view);
            if self.session == Some(0) && self.sent <= half {
                n = n.min(half + 1 - self.sent);
            }
            if let Some(at) = view.mine.urgent_at.map(|at| self.frames_at + at).filter(|at| *at > self.sent) {
                n = n.min(at - self.sent);
            }
            let piece = self.out[self.sent..self.sent + n].to_vec();
            match self.send(&piece, kernel) {
                Ok(n) => {
                    let early = self.stage == Stage::Head || self.side == Some(Side::Upstream);
                    if early && self.sent <= self.frames_at && self.sent + n > self.frames_at {
                        kernel.faults.note(Fault::Glued);
                    }
                    self.sent += n;
                }
                Err(libc::EAGAIN) => return,
                Err(_) => self.broken = true,
            }
            self.facts.acted |= self.stage == Stage::Open && self.sent > self.frames_at + view.mine.act_at;
            self.pace(me, kernel);
        }
        if self.flush(me, kernel) {
            self.urgent(view, kernel);
        }
    }

    pub fn send(&mut self, bytes: &[u8], kernel: &mut Kernel) -> crate::kernel::Sys<usize> {
        let Some(seal) = &mut self.seal else { return kernel.send(self.sock, bytes, usize::MAX) };
        let new_keys = kernel.rng.one_in(50);
        seal.seal(bytes, new_keys);
        Ok(bytes.len())
    }

    /// Sends pending ciphertext. Whether more may be written.
    fn flush(&mut self, me: usize, kernel: &mut Kernel) -> bool {
        let Some(seal) = &mut self.seal else { return true };
        if self.broken {
            return false;
        }
        match seal.flush(self.sock, kernel) {
            Ok(()) if !seal.is_sent() => {
                let at = kernel.now + kernel.rng.below(400);
                self.later(me, at, kernel);
            }
            Ok(()) | Err(libc::EAGAIN) => {}
            Err(_) => self.broken = true,
        }
        self.seal.as_ref().is_some_and(Seal::is_clear)
    }

    fn urgent(&mut self, view: &View<'_>, kernel: &mut Kernel) {
        let due = view.mine.urgent_at.is_some_and(|at| self.sent == self.frames_at + at);
        let ready = view.mine.urgent_at < Some(view.mine.act_at) || self.ready(view);
        if due && ready && self.stage == Stage::Open && !self.facts.urgent {
            self.facts.urgent = true;
            kernel.send_urgent(self.sock, 0x21);
        }
    }

    /// No session ends without faults: they are forced if chance brings too few.
    fn see_to_faults(&mut self, view: &View<'_>, kernel: &mut Kernel) {
        let half = self.stage == Stage::Open && self.sent > self.half(view);
        if half && kernel.faults.total() < self.facts.faults_before + 3 {
            kernel.faults.hurry();
            self.grain = FORCED;
        } else if self.grain == FORCED {
            self.grain = 100;
        }
    }

    /// The middle of what comes before the last act.
    fn half(&self, view: &View<'_>) -> usize {
        self.frames_at + view.mine.act_at / 2
    }

    fn piece(&mut self, kernel: &mut Kernel) -> usize {
        match self.grain {
            0 => usize::MAX,
            grain if grain == FORCED || grain <= 3 && !kernel.rng.one_in(6) => {
                kernel.faults.note(Fault::TornByte);
                self.torn += 1;
                self.grain = if self.torn == TORN_MAX { 100 } else { grain };
                grain
            }
            grain => kernel.rng.size(1, grain.max(200)).max(self.out.len() / 200),
        }
    }

    /// Sometimes pauses between two writes, sometimes for long.
    fn pace(&mut self, me: usize, kernel: &mut Kernel) {
        let at = match self.pause(Fault::SlowWriter, 64, kernel) {
            Some(at) => at,
            None if kernel.rng.one_in(2) => return,
            None => kernel.now + kernel.rng.below(400),
        };
        self.write_after = at;
        self.later(me, at, kernel);
    }

    // --- how it ends

    fn end(&mut self, me: usize, view: &View<'_>, kernel: &mut Kernel) {
        let all_sent = self.sent >= self.limit(view) && self.header.is_empty();
        if self.broken && (self.facts.eof || self.facts.reset) {
            return self.gone(kernel);
        }
        if !self.broken && !self.leaves_in_header && self.seal.as_ref().is_some_and(|seal| !seal.is_sent()) {
            return;
        }
        if std::mem::take(&mut self.fin_due) {
            let _ = kernel.shutdown(self.sock);
        }
        if self.side == Some(Side::Downstream) && self.stage == Stage::Head && all_sent {
            self.leave(me, view, kernel);
        }
        if self.stage == Stage::Open && self.sent == self.out.len() && self.ready(view) {
            self.act(me, kernel);
        }
        let both_closed = self.walk.close.is_some() && self.closed(view);
        if self.stage == Stage::Open && self.side == Some(Side::Upstream) && both_closed && all_sent {
            self.fin(me, kernel);
        }
        let finished = self.broken || (all_sent || view.mine.mute || self.facts.reset) && !self.fin_due;
        if self.stage != Stage::Gone && (self.facts.eof || self.facts.reset) && finished {
            self.gone(kernel);
        }
    }

    /// The own Close, by plan or as a reply, has been sent.
    fn closed(&self, view: &View<'_>) -> bool {
        (view.mine.close_at.is_some() || self.facts.answered_at.is_some()) && self.sent == self.out.len()
    }

    fn leave(&mut self, me: usize, view: &View<'_>, kernel: &mut Kernel) {
        let rst = match view.session.opening {
            Opening::Leaves { rst, .. } | Opening::LeavesWaiting { rst } => rst,
            _ => return,
        };
        if view.session.lingers > 0 && self.leaves_at.is_none() {
            let at = kernel.now + view.session.lingers;
            self.leaves_at = Some(at);
            self.later(me, at, kernel);
        }
        if self.leaves_at.is_some_and(|at| kernel.now < at) {
            return;
        }
        if rst {
            kernel.abort(self.sock);
            self.stage = Stage::Gone;
        } else {
            self.fin(me, kernel);
        }
    }

    fn act(&mut self, me: usize, kernel: &mut Kernel) {
        match self.finish {
            Some(Finish::Fin) => self.fin(me, kernel),
            Some(Finish::Drop) => return self.gone(kernel),
            Some(Finish::Rst) => {
                self.facts.acted = true;
                kernel.abort(self.sock);
                self.stage = Stage::Gone;
            }
            Some(Finish::Die) => self.heard.dead = true,
            _ => return,
        }
        self.facts.acted = true;
    }

    /// Nothing of a frame has been sent that is not complete, and its last act has not begun.
    pub fn is_between_frames(&self, act_at: usize) -> bool {
        let sent = self.sent.saturating_sub(self.frames_at);
        sent <= act_at && self.sent >= self.frames_at && !self.fin_sent && self.boundary() == sent
    }

    fn fin(&mut self, me: usize, kernel: &mut Kernel) {
        if !self.fin_sent {
            self.fin_sent = true;
            // There is no clean way to leave inside a handshake.
            self.rude |= self.seal.as_ref().is_some_and(|seal| !seal.is_open());
            self.facts.cut = self.rude && self.seal.is_some();
            match &mut self.seal {
                Some(seal) if !self.rude => {
                    seal.say_goodbye();
                    self.fin_due = true;
                    kernel.wake_peer(me);
                }
                _ => drop(kernel.shutdown(self.sock)),
            }
        }
    }

    fn gone(&mut self, kernel: &mut Kernel) {
        self.facts.acted |= self.finish == Some(Finish::Drop) && !self.facts.eof && !self.facts.reset;
        self.facts.cut |= self.seal.is_some() && !self.fin_sent;
        kernel.close(self.sock);
        self.stage = Stage::Gone;
    }

    /// Bytes of its PROXY header and of heads, before its frames.
    pub fn heads(&self) -> usize {
        self.header_len + self.frames_at
    }

    /// For a trace.
    pub fn state(&self) -> String {
        let (sent, of, got) = (self.sent, self.out.len(), self.rx.len());
        let Peer { session, side, sock, stage, finish, facts, .. } = self;
        format!(
            "session {session:?} {side:?} sock {sock} {stage:?} {finish:?}: sent {sent} of {of}, got {got} {facts:?}"
        )
    }

    /// Left without waiting for the end.
    pub fn left(&self) -> bool {
        self.stage == Stage::Gone && self.facts.acted && matches!(self.finish, Some(Finish::Drop | Finish::Rst))
    }

    /// All bytes that the kernel took from the plan; the plan itself ends where an answering Close
    /// begins.
    pub fn log(&self) -> &[u8] {
        &self.out[self.frames_at.min(self.sent)..self.sent]
    }
}
