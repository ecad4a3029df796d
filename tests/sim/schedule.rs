//! The script of one schedule, drawn from its seed: what each peer sends, how sessions open and
//! end. Decides nothing about time, cuts or faults (those come from the second seed), so that one
//! script can run under many.

use crate::asks::{self, Ask, outlook};
use crate::auth::{self, Order};
use crate::beat::{self, Beat};
use crate::fleet::{self, Fleet};
use crate::frames::{BINARY, CLOSE, FIN, Frame, PING, PONG, TEXT, push_close};
use crate::kernel::Micros;
use crate::limits::{self, Limit};
use crate::mirror;
use crate::plain;
use crate::rng::Rng;
use framegate::proto::Side;
use framegate::proto::end::Cause;

/// The most sessions of a schedule.
pub const SESSIONS: usize = 3;

/// The route of a session in the simulated configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    Tcp,
    Unix,
    /// Relay mode `opaque` over TCP.
    Opaque,
}

impl Leg {
    /// How its route is called.
    pub fn name(self) -> &'static str {
        ["tcp", "unix", "opaque"][self as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    Good,
    /// The request itself is refused; the index is into [`REFUSED`].
    Refused(usize),
    /// The client disconnects after this many bytes of its head: with FIN, or with RST.
    Leaves {
        after: usize,
        rst: bool,
    },
    /// The client disconnects after its head, before any response.
    LeavesWaiting {
        rst: bool,
    },
    /// A 101 with a wrong Accept.
    Bad101,
    /// A complete response other than 101.
    Answers,
    /// The upstream reads and never responds.
    Silent,
    /// The upstream closes without a response.
    Hangs,
}

/// The result of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connect {
    Works,
    Refused,
    /// The system call itself fails.
    Fails,
    /// Never answered.
    Lost,
    /// There is no descriptor for it, however often it is made.
    NoSocket,
}

/// How an established session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Close(Side),
    BothClose,
    /// FIN without a Close; the other direction continues to its own end.
    Fin(Side),
    /// The same inside a frame.
    FinInFrame(Side),
    /// The socket is closed: FIN, and RST for later data.
    Drop(Side),
    Rst(Side),
    Idle,
    Violation(Side),
    BothViolate,
    /// This side breaks a rule while the other closes.
    ViolationAndClose(Side),
    /// This side sends a Close, the other never replies.
    Unanswered(Side),
    /// This side sends more after its Close.
    DataAfterClose(Side),
    /// This side stops reading.
    Stall(Side),
    /// This side does and says nothing any more; the route has a heartbeat.
    Dead(Side),
}

/// What a peer does once its frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Replies to what comes.
    Wait,
    Fin,
    Drop,
    Rst,
    /// Neither reads nor says anything any more.
    Die,
}

/// What one peer does in the established session.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub plan: Vec<u8>,
    /// Where the last act (own Close, violation, or the end) begins in `plan`.
    pub act_at: usize,
    /// The violation; no byte from its offset on may be forwarded.
    pub bad: Option<(usize, Cause)>,
    pub close_at: Option<usize>,
    pub finish: Option<Finish>,
    /// The last act waits until each side has everything that comes before the other's.
    pub patient: bool,
    /// Bytes of the plan that are sent together with the head.
    pub glued: usize,
    /// Urgent data is sent at this offset.
    pub urgent_at: Option<usize>,
    /// Never replies to a Close.
    pub mute: bool,
    /// Replies to a Close only after the whole plan.
    pub late: bool,
    /// Stops reading after this many bytes.
    pub deaf_after: Option<usize>,
}

/// The route sends a request again after one way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// [`Opening::Answers`], [`Opening::Silent`] or [`Opening::Hangs`].
    pub by: Opening,
    /// So many backends fail so.
    pub fails: usize,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub start_ms: u64,
    pub leg: Leg,
    pub opening: Opening,
    pub connects: [Connect; 2],
    /// The endpoints of its upstream, unless that is a Unix socket.
    pub fleet: Fleet,
    pub end: End,
    /// Of the client and of the backend.
    pub parts: [Part; 2],
    pub key: usize,
    /// Receive and send buffers are a few bytes.
    pub tiny: bool,
    /// A frame may be longer than what the worker moves in a turn; the buffers are large.
    pub bulk: bool,
    /// The upstream sends a 103 first.
    pub hints: bool,
    /// What is asked before it is admitted.
    pub asks: Vec<Ask>,
    /// Its request is sent again after some failure.
    pub retry: Option<Retry>,
    /// A second server gets what its client says.
    pub shadow: Option<mirror::Plan>,
    /// Its directions have a read allowance, and pause when it is used up.
    pub pace: Option<&'static Allowance>,
    pub beat: Option<Beat>,
    /// How long its client waits before it leaves, where it leaves.
    pub lingers: Micros,
    /// An administrator revokes the credentials of its client.
    pub order: Option<Order>,
    /// A limit on what one side sends.
    pub limit: Option<Limit>,
}

#[derive(Debug, Clone, Default)]
pub struct Script {
    pub sessions: Vec<Session>,
    /// Clients that reset their connection while it is still queued.
    pub decoys: u32,
    /// A schedule of plain HTTP instead.
    pub plain: Option<plain::Plan>,
}

impl Session {
    /// Its client leaves while a service may be asked.
    fn leaves_a_question(&self) -> bool {
        let asks_service = self.asks.iter().any(|ask| matches!(ask, Ask::Service(_)));
        asks_service && matches!(self.opening, Opening::LeavesWaiting { .. })
    }

    /// What follows the leg in the path of its route.
    pub fn suffix(&self) -> String {
        let letters: String = self.asks.iter().map(Ask::letter).collect();
        let paced = self.pace.map_or(String::new(), |pace| format!("/{}", pace.name));
        if letters.is_empty() { paced } else { format!("/{letters}{paced}") }
    }

    /// Its peers do nothing once their frames are sent.
    pub fn rest(&mut self) {
        self.end = End::Idle;
        for part in &mut self.parts {
            part.plan.truncate(part.act_at);
            (part.bad, part.close_at, part.finish, part.urgent_at) = (None, None, Some(Finish::Wait), None);
            (part.mute, part.deaf_after) = (false, None);
        }
    }

    /// Whether its end follows from the script alone, without a race.
    pub fn is_certain(&self) -> bool {
        let asked = outlook(&self.asks, true);
        if !asked.is_certain() || asked != outlook(&self.asks, false) {
            return false;
        }
        if !asked.admits {
            return !matches!(self.opening, Opening::Leaves { rst: true, .. } | Opening::LeavesWaiting { .. });
        }
        // Its credentials may end, or be revoked.
        if auth::client_of(self).is_some() {
            return false;
        }
        let urgent = self.parts.iter().any(|part| part.urgent_at.is_some());
        let reaches = if self.leg == Leg::Unix { Some(true) } else { self.fleet.works(self.connects) };
        let opens = match self.opening {
            Opening::Leaves { rst, .. } => return !rst,
            Opening::Refused(_) => return true,
            _ if reaches.is_none() => return false,
            Opening::LeavesWaiting { .. } | Opening::Hangs => return false,
            Opening::Bad101 | Opening::Answers | Opening::Silent => return true,
            Opening::Good => reaches == Some(true),
        };
        if self.fleet.may_close() || self.retry.is_some() || self.limit.is_some_and(|limit| limit.closes()) {
            return false;
        }
        let raced = match self.end {
            End::Close(_) | End::Unanswered(_) => self.leg == Leg::Opaque,
            End::Fin(_) | End::FinInFrame(_) | End::Idle | End::Violation(_) => false,
            // A RST that waits for no frame may overtake the 101.
            End::Rst(_) => !self.parts[0].patient || self.parts[1].act_at == 0,
            _ => true,
        };
        !opens || !raced && !urgent && (self.leg != Leg::Unix || !matches!(self.end, End::Rst(_)))
    }
}

/// A read allowance of a route.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How the route is called.
    pub name: &'static str,
    pub bytes: usize,
}

/// The read allowances of paced sessions: the second one for frames that are long enough to be
/// spliced.
pub const ALLOWANCES: [Allowance; 2] =
    [Allowance { name: "paced", bytes: 1_000 }, Allowance { name: "wide", bytes: 20_000 }];
/// The time in which one may be read again; it is the burst, too.
pub const PACE_MS: u64 = 200;
/// A pause is short, but many of them would outlast a deadline.
const PAUSES_MAX: usize = 10;
/// Payload of a frame that is spliced even if a part of it came with its header.
const SPLICED: [usize; 2] = [20_500, 50_000];

/// A request that is refused: request line and extra fields, the status, the reason.
pub struct Bad {
    pub line: &'static str,
    pub fields: &'static str,
    pub status: u16,
    pub cause: Cause,
}

const WS: &str = "Host: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub const REFUSED: &[(Bad, &[&str])] = &[
    (Bad { line: "POST /0/tcp HTTP/1.1", fields: "", status: 405, cause: Cause::Method }, &[WS, KEY]),
    (Bad { line: "GET /0/tcp HTTP/1.0", fields: "", status: 505, cause: Cause::HttpVersion }, &[WS, KEY]),
    (Bad { line: "GET /nowhere HTTP/1.1", fields: "", status: 404, cause: Cause::NoRoute }, &[WS, KEY]),
    (Bad { line: "GET /0/tcp HTTP/1.1", fields: "", status: 400, cause: Cause::BadKey }, &[WS]),
    (Bad { line: "GET /0/tcp HTTP/1.1", fields: "Host: a\r\nHost: b\r\n", status: 400, cause: Cause::BadHost }, &[KEY]),
    (
        Bad { line: "GET /0/tcp HTTP/1.1", fields: "Content-Length: 5\r\n", status: 400, cause: Cause::UnexpectedBody },
        &[WS, KEY],
    ),
    (Bad { line: "GET /0/tcp HTTP/1.1", fields: "Host: sim\r\n", status: 426, cause: Cause::NotUpgrade }, &[KEY]),
    (Bad { line: "GET /0/tcp HTTP/1.1", fields: "no colon\r\n", status: 400, cause: Cause::MalformedHead }, &[WS, KEY]),
];

impl Script {
    /// Everything is derived from `seed`. The first session is always complete: established, at
    /// least 20 frames each way, and ended.
    pub fn draw(seed: u64, judged: bool) -> Script {
        let mut rng = Rng::new(seed ^ 0x005c_4ed0_1e00);
        let count = rng.pick(&[1, 1, 2, 2, 3, 3]);
        let (mut start_ms, mut sessions) = (0, Vec::<Session>::new());
        for index in 0..count {
            let haunted = sessions.last().is_some_and(Session::leaves_a_question);
            let later: &[u64] = if haunted { &[1, 7, 20] } else { &[0, 0, 1, 7, 40, 700] };
            start_ms += if index == 0 { 0 } else { rng.pick(later) };
            sessions.push(draw_session(&mut rng, Place { whole: index == 0, judged, start_ms, haunted }));
        }
        // Drawn apart: a session is the same with and without it.
        let mut beats = Rng::new(seed ^ 0x00be_a7be_a700);
        sessions.iter_mut().filter(|_| judged).for_each(|session| beat::draw(&mut beats, session));
        let mut access = Rng::new(seed ^ 0x00ac_ce55_0000);
        for (index, session) in sessions.iter_mut().enumerate().filter(|_| judged) {
            auth::draw(&mut access, session, index == 0);
            limits::draw(&mut access, session);
        }
        let decoys = if rng.one_in(6) { 1 + rng.below(2) as u32 } else { 0 };
        Script { sessions, decoys, plain: None }
    }

    /// Plain HTTP is served from another configuration after a while.
    pub fn is_reloaded(&self) -> bool {
        self.plain.as_ref().is_some_and(|plan| plan.has(plain::changes::Change::Reload))
    }

    /// The process stops.
    pub fn is_stopped(&self) -> bool {
        self.plain.as_ref().is_some_and(|plan| plan.has(plain::changes::Change::Drain))
    }

    /// One of plain HTTP.
    pub fn draw_plain(seed: u64) -> Script {
        let decoys = u32::from(seed.is_multiple_of(6));
        Script { plain: Some(plain::Plan::draw(seed)), decoys, ..Script::default() }
    }
}

/// What is known of a session before it is drawn.
#[derive(Debug, Clone, Copy)]
struct Place {
    whole: bool,
    judged: bool,
    start_ms: u64,
    /// Its slot may be that of the session before it, and an answer for that one still to come.
    haunted: bool,
}

fn draw_session(rng: &mut Rng, Place { whole, judged, start_ms, haunted }: Place) -> Session {
    let leg = if judged { rng.pick(&[Leg::Tcp, Leg::Tcp, Leg::Tcp, Leg::Unix, Leg::Opaque]) } else { Leg::Opaque };
    let mut asks = if judged { asks::draw(rng, whole, haunted) } else { Vec::new() };
    let opening = match rng.below(6) {
        _ if whole || !judged => Opening::Good,
        0 | 1 => draw_opening(rng),
        // The best moment for that is while a question is open.
        2 | 3 if !asks.is_empty() => Opening::LeavesWaiting { rst: rng.one_in(2) },
        _ => Opening::Good,
    };
    if matches!(opening, Opening::Refused(_)) {
        asks.clear();
    }
    let good = opening == Opening::Good;
    let end = if good { draw_end(rng, whole, judged && leg != Leg::Opaque) } else { End::Idle };
    let connects = match (rng.below(16), judged) {
        (0, true) => [rng.pick(&[Connect::Refused, Connect::Fails]), Connect::Works],
        (1, true) => [Connect::Lost, Connect::Works],
        (2, true) if !whole => [rng.pick(&[Connect::Refused, Connect::Fails]); 2],
        (3, true) if !whole => [Connect::Lost; 2],
        (4, true) if !whole && rng.one_in(2) => [Connect::NoSocket; 2],
        _ => [Connect::Works; 2],
    };
    let connects = if leg == Leg::Unix { [Connect::Works; 2] } else { connects };
    let fleet = if judged && leg != Leg::Unix { fleet::draw(rng, whole, connects) } else { Fleet::default() };
    let retry = if judged && leg != Leg::Unix { draw_retry(rng, whole, opening, connects, &fleet) } else { None };
    let tiny = rng.one_in(16);
    let bulk = !tiny && rng.one_in(64);
    let wide = judged && !tiny && !bulk && rng.one_in(10);
    let size = match (tiny, bulk, wide) {
        (true, ..) => Size::Tiny,
        (_, true, _) => Size::Bulk,
        (.., true) => Size::Spliced,
        _ => Size::Usual,
    };
    let mut parts = draw_parts(rng, end, whole, size);
    // Much data never goes through small buffers: it would take longer than a deadline.
    let bulk = bulk || parts.iter().any(|part| part.plan.len() > 20_000);
    if !good {
        parts.iter_mut().for_each(|part| part.urgent_at = None);
    }
    if !judged {
        parts[0].glued = 0;
    }
    let shadow = if judged { mirror::draw(rng) } else { None };
    let hints = judged && rng.one_in(8);
    let allowance = &ALLOWANCES[usize::from(wide)];
    let short = parts.iter().all(|part| part.plan.len() < PAUSES_MAX * allowance.bytes);
    let paced = judged && short && !tiny && (wide || rng.one_in(5));
    let (key, pace) = (rng.size(0, 7), Some(allowance).filter(|_| paced));
    let (beat, order, limit) = (None, None, None);
    Session {
        start_ms,
        leg,
        opening,
        connects,
        fleet,
        end,
        parts,
        key,
        tiny,
        bulk,
        hints,
        asks,
        retry,
        shadow,
        pace,
        beat,
        lingers: 0,
        order,
        limit,
    }
}

fn draw_retry(rng: &mut Rng, whole: bool, opening: Opening, connects: [Connect; 2], fleet: &Fleet) -> Option<Retry> {
    if !rng.one_in(10) {
        return None;
    }
    // Of one that must open, another endpoint is there.
    let plain = fleet.changes.is_empty() && fleet.seats.len() > 1 && connects == [Connect::Works; 2];
    match opening {
        Opening::Good if !whole || plain => {
            let by = rng.pick(&[Opening::Answers, Opening::Hangs, Opening::Hangs, Opening::Silent]);
            Some(Retry { by, fails: if whole { 1 } else { rng.size(1, 2) } })
        }
        Opening::Answers | Opening::Silent | Opening::Hangs => Some(Retry { by: opening, fails: usize::MAX }),
        _ => None,
    }
}

fn draw_opening(rng: &mut Rng) -> Opening {
    match rng.below(8) {
        0 | 1 => Opening::Refused(rng.size(0, REFUSED.len() - 1)),
        2 => Opening::Leaves { after: rng.size(0, 120), rst: rng.one_in(2) },
        3 => Opening::LeavesWaiting { rst: rng.one_in(2) },
        4 => Opening::Bad101,
        5 => Opening::Answers,
        6 => Opening::Silent,
        _ => Opening::Hangs,
    }
}

fn draw_end(rng: &mut Rng, whole: bool, judged: bool) -> End {
    let side = rng.pick(&Side::BOTH);
    match rng.below(if judged { 20 } else { 12 }) {
        0..3 => End::Close(side),
        3 | 4 => End::BothClose,
        5 | 6 => End::Fin(side),
        7 => End::FinInFrame(side),
        8 | 9 => End::Rst(side),
        10 => End::Drop(side),
        11 => End::Idle,
        12..15 => End::Violation(side),
        15 => End::BothViolate,
        16 => End::ViolationAndClose(side),
        17 => End::Unanswered(side),
        18 => End::DataAfterClose(side),
        _ if whole => End::Violation(side),
        _ => End::Stall(side),
    }
}

/// The last act of `side` where the session ends with `end`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    None,
    Close,
    CloseAndMore,
    Violate,
    HalfFrame,
}

fn act_of(end: End, side: Side) -> Act {
    match end {
        End::BothClose => Act::Close,
        End::Close(s) | End::Unanswered(s) if s == side => Act::Close,
        End::DataAfterClose(s) if s == side => Act::CloseAndMore,
        End::Violation(s) if s == side => Act::Violate,
        End::ViolationAndClose(s) => {
            if s == side {
                Act::Violate
            } else {
                Act::Close
            }
        }
        End::BothViolate => Act::Violate,
        End::FinInFrame(s) if s == side => Act::HalfFrame,
        _ => Act::None,
    }
}

/// How long frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Tiny,
    Usual,
    /// One of them is spliced where the route allows it.
    Spliced,
    /// One of them is longer than what the worker moves in a turn.
    Bulk,
}

fn draw_parts(rng: &mut Rng, end: End, whole: bool, size: Size) -> [Part; 2] {
    let patient = whole || rng.one_in(2);
    Side::BOTH.map(|side| {
        let mut part = Part { patient, late: rng.one_in(2), ..Part::default() };
        let frames = if whole || rng.one_in(3) { rng.size(20, 24) } else { rng.size(0, 8) };
        push_frames(rng, side, frames, size == Size::Tiny, &mut part.plan);
        let long = match size {
            Size::Bulk => Some((100_000, 900_000)),
            Size::Spliced => Some((SPLICED[0], SPLICED[1])),
            Size::Tiny | Size::Usual => None,
        };
        if let Some((least, most)) = long.filter(|_| rng.one_in(2)) {
            let len = rng.size(least, most);
            push_one(rng, side, FIN | BINARY, len, &mut part.plan);
            // Something to be held back by the pause.
            push_frames(rng, side, usize::from(size == Size::Spliced), true, &mut part.plan);
        }
        part.act_at = part.plan.len();
        if rng.one_in(4) {
            part.glued = rng.size(0, part.plan.len().min(400));
        }
        if rng.one_in(14) {
            part.urgent_at = Some(if whole { part.act_at } else { rng.size(0, part.act_at) });
        }
        act(rng, end, side, &mut part);
        part
    })
}

fn act(rng: &mut Rng, end: End, side: Side, part: &mut Part) {
    match act_of(end, side) {
        Act::None => {}
        Act::Close | Act::CloseAndMore => {
            part.close_at = Some(part.act_at);
            push_any_close(rng, side, &mut part.plan);
            if act_of(end, side) == Act::CloseAndMore {
                push_frames(rng, side, 3, true, &mut part.plan);
            }
        }
        Act::Violate => part.bad = Some(push_violation(rng, side, &mut part.plan)),
        Act::HalfFrame => {
            let start = part.plan.len();
            push_frames(rng, side, 1, true, &mut part.plan);
            part.plan.truncate(rng.size(start + 1, part.plan.len() - 1));
        }
    }
    let finish = match end {
        End::Fin(s) | End::FinInFrame(s) if s == side => Finish::Fin,
        End::Drop(s) if s == side => Finish::Drop,
        End::Rst(s) if s == side => Finish::Rst,
        _ => Finish::Wait,
    };
    part.finish = Some(finish);
    part.mute = matches!(end, End::Unanswered(s) if s != side);
    if matches!(end, End::Stall(s) if s == side) {
        part.deaf_after = Some(rng.size(0, 100));
    }
    // The last act is never sent together with the head.
    part.glued = part.glued.min(part.act_at);
}

fn key_of(rng: &mut Rng, side: Side) -> Option<[u8; 4]> {
    (side == Side::Downstream).then(|| (rng.word() as u32).to_le_bytes())
}

fn payload_len(rng: &mut Rng, tiny: bool) -> usize {
    match rng.below(64) {
        0..40 => rng.size(0, 24),
        40..50 if !tiny => rng.size(25, 130),
        50..54 if !tiny => rng.pick(&[125, 126, 127, 128]),
        54..60 if !tiny => rng.size(130, 1_500),
        60 if !tiny && rng.one_in(32) => rng.pick(&[65_535, 65_536, 70_000, 140_000]),
        _ => rng.size(0, 8),
    }
}

/// Complete messages of `frames` frames at least: whole and in fragments, with control frames in
/// between.
fn push_frames(rng: &mut Rng, side: Side, frames: usize, tiny: bool, out: &mut Vec<u8>) {
    let mut made = 0;
    while made < frames {
        let opcode = rng.pick(&[TEXT, BINARY]);
        let fragments = if rng.one_in(5) { rng.size(2, 4) } else { 1 };
        for i in 0..fragments {
            let last = i + 1 == fragments;
            let first = if i == 0 { opcode } else { 0 } | if last { FIN } else { 0 };
            let len = payload_len(rng, tiny);
            push_one(rng, side, first, len, out);
            if rng.one_in(8) {
                let first = FIN | rng.pick(&[PING, PONG]);
                let len = rng.pick(&[0, 3, 8, 125]);
                push_one(rng, side, first, len, out);
                made += 1;
            }
            made += 1;
        }
    }
}

/// A frame with random payload: masking it would make no difference.
fn push_one(rng: &mut Rng, side: Side, first: u8, len: usize, out: &mut Vec<u8>) {
    Frame { first, mask: None, payload: &[] }.push(out);
    out.pop();
    let key = key_of(rng, side);
    crate::frames::push_length(out, key.is_some(), len);
    out.extend_from_slice(key.as_ref().map_or(&[], |k| &k[..]));
    let start = out.len();
    out.resize(start + len, 0);
    rng.fill(&mut out[start..]);
}

fn push_any_close(rng: &mut Rng, side: Side, out: &mut Vec<u8>) {
    let key = key_of(rng, side);
    if rng.one_in(6) {
        return Frame { first: FIN | CLOSE, mask: key, payload: &[] }.push(out);
    }
    let code = rng.pick(&[1000, 1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999]);
    let reason = rng.pick(&["", "", "bye", "a somewhat longer reason than the others have"]);
    push_close(out, key, code, reason);
}

/// A frame that breaks one rule, and something behind it. Gives where the offending frame begins.
fn push_violation(rng: &mut Rng, side: Side, out: &mut Vec<u8>) -> (usize, Cause) {
    let key = key_of(rng, side);
    let mut at = out.len();
    let plain = |first, payload: &[u8], out: &mut Vec<u8>| Frame { first, mask: key, payload }.push(out);
    let cause = match rng.below(12) {
        0 => {
            let wrong = if key.is_some() { None } else { Some([1, 2, 3, 4]) };
            Frame { first: FIN | TEXT, mask: wrong, payload: b"mask" }.push(out);
            Cause::MaskBit
        }
        1 => {
            plain(FIN | rng.pick(&[3, 7, 11, 15]), b"op", out);
            Cause::ReservedOpcode
        }
        2 => {
            plain(FIN | rng.pick(&[0x40, 0x20, 0x10]) | BINARY, b"rsv", out);
            Cause::ReservedBits
        }
        3 => {
            plain(FIN, b"no start", out);
            Cause::Continuation
        }
        4 => {
            plain(TEXT, b"begins", out);
            at = out.len();
            plain(FIN | TEXT, b"begins again", out);
            Cause::Continuation
        }
        5 => {
            plain(PING, b"in parts", out);
            Cause::ControlFragmented
        }
        6 => {
            plain(FIN | PING, &[7; 126], out);
            Cause::ControlTooLong
        }
        7 => {
            let bit = if key.is_some() { 0x80 } else { 0 };
            out.extend_from_slice(&[FIN | BINARY, bit | 126, 0, rng.pick(&[0, 5, 125])]);
            out.extend_from_slice(&key.unwrap_or_default());
            Cause::LengthEncoding
        }
        8 => {
            let bit = if key.is_some() { 0x80 } else { 0 };
            out.extend_from_slice(&[FIN | BINARY, bit | 127, 0, 0, 0, 0, 0x40, 0, 0, 1]);
            out.extend_from_slice(&key.unwrap_or_default());
            Cause::FrameTooBig
        }
        9 => {
            plain(FIN | CLOSE, &[3], out);
            Cause::ClosePayload
        }
        _ => {
            push_close(out, key, rng.pick(&[0, 999, 1004, 1005, 1006, 1015, 2999, 5000]), "");
            Cause::CloseCode
        }
    };
    if rng.one_in(2) {
        push_frames(rng, side, 2, true, out);
    }
    (at, cause)
}
