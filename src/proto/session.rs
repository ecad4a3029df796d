//! The session: a pure state machine of one proxied connection, from the first byte of the request to its
//! verdict. Bytes come in by `on_bytes`, everything else by `on_event`; what is to be done comes out of
//! `poll_action`, which the shell drains after each of them. Wishes (`wants`, `deadline`) are derived.
//!
//! ```text
//! Securing
//!    |
//! Request -> Deciding -> Connecting -> Answer -> Open ---------> Over
//!    |          |            |           |  \                      ^
//!    |          |            |           |   `-> Passing -.        |
//!    +----------+------------+-----------+------------> Leaving ---+   refused or answered: FIN, drain, close
//!    `----------'------------'-----------'-----------> Over            the client left
//! ```

mod heads;
mod phase;

use super::ended::{By, Ended, Stage, Why};
use super::http1::{HeadScan, Request};
pub use super::interface::{Action, Admission, Due, Event, Given, Timeouts, Totals, Want};
use super::open::Record;
use super::relay::{Counts, Taken};
use super::{Millis, Side};
use phase::{Answering, Connecting, Leaving, Phase, Reading, Securing};

/// Answers of the upstream with other statuses than 101 pass up to this many bytes of body.
const ANSWER_BODY_MAX: u64 = 1 << 20;
/// All interim (1xx) answers together.
const INTERIM_BYTES_MAX: usize = 16 * 1024;
/// A client that was refused is read on for so long and so much, that our answer is not lost to a RST.
const LINGER_MS: Millis = 2_000;
const LINGER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// When the phase began.
    since: Millis,
    /// The first cause; a mere FIN gives way to a stronger one.
    ended: Option<Ended>,
    /// HTTP status that the client got, 0 while none.
    status: u16,
    /// What was decided and not yet asked of the shell. Empty, and without memory, while open.
    outbox: Vec<Action>,
}

impl Session {
    /// A client has connected; its head may have `head_max` bytes, early bytes included. `secure`: once its TLS handshake
    /// has ended ([`Event::Secured`]).
    pub fn new(head_max: usize, secure: bool, now: Millis) -> Session {
        let phase = match secure {
            true => Phase::Securing(Securing { head_max, spoke: false }),
            false => Phase::Request(Box::new(Reading::new(head_max))),
        };
        Session { phase, since: now, ended: None, status: 0, outbox: Vec::new() }
    }

    /// An open session that goes on from where another one was recorded.
    pub fn from_record(record: Record, now: Millis) -> Session {
        Session { phase: Phase::Open(record.into_open()), since: now, ended: None, status: 101, outbox: Vec::new() }
    }

    /// What is needed to go on elsewhere: only while open, with nothing pending.
    pub fn record(&self) -> Option<Record> {
        match &self.phase {
            Phase::Open(open) if self.outbox.is_empty() => open.record(),
            _ => None,
        }
    }

    /// Judges bytes of `from`. Call again with what was not consumed, after carrying out the actions.
    #[inline(always)]
    pub fn on_bytes(&mut self, from: Side, bytes: &[u8], given: Given<'_>) -> Taken {
        match &mut self.phase {
            Phase::Open(open) => {
                let (taken, cause) = open.on_bytes(from, bytes, given);
                if let Some((by, why)) = cause {
                    self.note(by, why);
                }
                taken
            }
            Phase::Request(_) if from == Side::Downstream => self.on_request_bytes(bytes, given.now),
            Phase::Answer(_) if from == Side::Upstream => self.on_answer_bytes(bytes, given.now),
            Phase::Passing(_) if from == Side::Upstream => self.on_body_bytes(bytes, given.now),
            // The rest of the read that completed the head, in slices of its own: they came early as well.
            Phase::Deciding(asked) if from == Side::Downstream => asked.keep(bytes),
            Phase::Connecting(connecting) if from == Side::Downstream => connecting.asked.keep(bytes),
            Phase::Answer(answering) if from == Side::Downstream => answering.asked.keep(bytes),
            _ => {
                self.on_discarded(from, bytes.len(), given.now);
                Taken::kept(bytes.len())
            }
        }
    }

    /// `n` bytes of `from` were thrown away, as [`Want::Discard`] allows.
    pub fn on_discarded(&mut self, from: Side, n: usize, now: Millis) {
        match &mut self.phase {
            Phase::Open(open) => open.on_discarded(from, now),
            Phase::Leaving(leaving) => {
                leaving.drained += n;
                if leaving.drained > LINGER_BYTES {
                    self.over();
                }
            }
            _ => {}
        }
    }

    pub fn on_event(&mut self, event: Event, now: Millis) {
        if self.is_over() {
            return;
        }
        match event {
            Event::Admitted(admission) => self.on_admitted(*admission, now),
            Event::Refused(why) => self.refuse(why_by(why), why, now),
            Event::Connected(request) => self.on_connected(request, now),
            Event::ConnectFailed(why) => self.on_connect_failed(why, now),
            Event::Exhausted => self.on_exhausted(now),
            Event::Spoke => {
                if let Phase::Securing(securing) = &mut self.phase {
                    securing.spoke = true;
                }
            }
            Event::Secured => self.on_secured(now),
            Event::Insecure(side, why) => self.on_insecure(side, why, now),
            Event::Eof(side) => self.on_eof(side, Why::Eof, now),
            Event::Truncated(side) => self.on_truncated(side, now),
            Event::Reset(side) => self.on_reset(side, now),
            Event::Flushed(side) => {
                if let Phase::Open(open) = &mut self.phase {
                    open.on_flushed(side, now);
                }
            }
            Event::Finished(side) => self.on_finished(side, now),
            Event::Urgent(side) => self.on_urgent(side, now),
            Event::Stalled(side, why) => self.on_stalled(side, why),
            Event::Drain => self.on_drain(),
            Event::Stop => {
                self.note(By::Proxy, if self.is_silent() { Why::NeverSpoke } else { Why::Stop });
                self.over();
            }
            Event::Due(due) => self.on_due(due, now),
        }
    }

    fn on_admitted(&mut self, admission: Admission, now: Millis) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over(Totals::default()));
        let Phase::Deciding(asked) = phase else {
            self.phase = phase;
            return;
        };
        self.outbox.push(Action::Connect);
        let last = Why::NoEndpoint;
        let connecting = Connecting { asked: *asked, admission, try_since: now, last };
        self.enter(Phase::Connecting(Box::new(connecting)), now);
    }

    fn on_connected(&mut self, request: Vec<u8>, now: Millis) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over(Totals::default()));
        let Phase::Connecting(connecting) = phase else {
            self.phase = phase;
            return;
        };
        self.outbox.push(Action::Send(Side::Upstream, request));
        let answering = Answering {
            asked: connecting.asked,
            admission: connecting.admission,
            held: Vec::new(),
            scan: HeadScan::default(),
            interim_bytes: 0,
        };
        self.enter(Phase::Answer(Box::new(answering)), now);
    }

    fn on_connect_failed(&mut self, why: Why, now: Millis) {
        if let Phase::Connecting(connecting) = &mut self.phase {
            connecting.last = why;
            connecting.try_since = now;
            self.outbox.push(Action::Connect);
        }
    }

    fn on_exhausted(&mut self, now: Millis) {
        if let Phase::Connecting(connecting) = &self.phase {
            self.refuse(By::Upstream, connecting.last, now);
        }
    }

    fn on_eof(&mut self, side: Side, why: Why, now: Millis) {
        let silent = self.is_silent();
        match (&mut self.phase, side) {
            (Phase::Open(open), _) => {
                if let Some((by, why)) = open.on_eof(side, why) {
                    self.note(by, why);
                }
            }
            (_, Side::Downstream) if silent => {
                self.note(By::Downstream, Why::NeverSpoke);
                self.over();
            }
            (Phase::Leaving(leaving), Side::Downstream) => {
                // It may have half-closed and wait for the rest of its answer.
                leaving.eof = true;
                if leaving.finished {
                    self.over();
                }
            }
            (Phase::Passing(_), Side::Upstream) => self.leave(now),
            (Phase::Passing(_), Side::Downstream) => {
                // It takes its upstream with it; what was read is still sent, for it may have half-closed.
                self.outbox.push(Action::Abort(Side::Upstream));
                self.leave(now);
            }
            (_, Side::Downstream) => self.left(why),
            (_, Side::Upstream) => self.refuse(By::Upstream, why, now),
        }
    }

    fn on_reset(&mut self, side: Side, now: Millis) {
        let silent = self.is_silent();
        match (&mut self.phase, side) {
            (Phase::Open(open), _) => {
                let Some((by, why)) = open.on_reset(side) else { return };
                self.note(by, why);
                if why == Why::Reset {
                    self.outbox.push(Action::Abort(side.other()));
                    self.over();
                }
            }
            (_, Side::Downstream) if silent => {
                self.note(By::Downstream, Why::NeverSpoke);
                self.over();
            }
            (Phase::Leaving(_), Side::Downstream) => self.over(),
            (Phase::Passing(_), Side::Upstream) => {
                // The rest of the answer is lost: the client must not take it for whole.
                self.outbox.push(Action::Abort(Side::Downstream));
                self.over();
            }
            (_, Side::Downstream) => self.left(Why::Reset),
            (_, Side::Upstream) => self.refuse(By::Upstream, Why::Reset, now),
        }
    }

    /// More may have been said than was read: nobody may take that for the whole.
    fn on_truncated(&mut self, side: Side, now: Millis) {
        match (&self.phase, side) {
            (Phase::Passing(_), Side::Upstream) => self.on_reset(side, now),
            _ => self.on_eof(side, Why::TlsTruncated, now),
        }
    }

    fn on_secured(&mut self, now: Millis) {
        if let Phase::Securing(securing) = &self.phase {
            let reading = Box::new(Reading::new(securing.head_max));
            self.enter(Phase::Request(reading), now);
        }
    }

    /// Nothing more can be said to that side, but for the alert that the shell has sent.
    fn on_insecure(&mut self, side: Side, why: Why, now: Millis) {
        match (&mut self.phase, side) {
            (Phase::Open(open), _) => {
                let cause = open.on_reset(side);
                self.note(side.into(), why);
                if cause.is_some_and(|(_, why)| why == Why::Reset) {
                    self.outbox.push(Action::Abort(side.other()));
                    self.over();
                }
            }
            (Phase::Connecting(_), Side::Upstream) => self.on_connect_failed(why, now),
            (Phase::Securing(_), Side::Downstream) if why == Why::PlainOnTls => self.refuse(By::Downstream, why, now),
            (Phase::Leaving(_), Side::Downstream) => self.over(),
            (Phase::Passing(_), Side::Upstream) => self.on_reset(side, now),
            (_, Side::Upstream) => self.refuse(By::Upstream, why, now),
            (_, Side::Downstream) => {
                self.note(By::Downstream, why);
                self.outbox.push(Action::Abort(Side::Upstream));
                self.leave(now);
            }
        }
    }

    /// A client that leaves before the 101 takes its upstream connection with it.
    fn left(&mut self, why: Why) {
        self.note(By::Downstream, why);
        self.outbox.push(Action::Abort(Side::Upstream));
        self.over();
    }

    fn on_finished(&mut self, to: Side, now: Millis) {
        match &mut self.phase {
            Phase::Open(open) => open.on_finished(to),
            Phase::Leaving(leaving) if to == Side::Downstream => {
                leaving.finished = true;
                self.since = now;
                if leaving.eof {
                    self.over();
                }
            }
            _ => {}
        }
    }

    fn on_urgent(&mut self, side: Side, now: Millis) {
        match &mut self.phase {
            Phase::Open(open) => {
                let (by, why) = open.on_urgent(side);
                self.note(by, why);
            }
            Phase::Leaving(_) | Phase::Over(_) => {}
            _ if side == Side::Downstream => self.refuse(By::Downstream, Why::UrgentData, now),
            _ => self.refuse(By::Upstream, Why::BadAnswer, now),
        }
    }

    fn on_stalled(&mut self, side: Side, why: Why) {
        if let Phase::Open(open) = &mut self.phase {
            let (by, why) = open.on_stalled(side, why);
            self.note(by, why);
            self.outbox.push(Action::Abort(side));
        } else {
            self.note(By::Proxy, why);
            self.outbox.push(Action::Abort(side));
            self.over();
        }
    }

    fn on_drain(&mut self) {
        let silent = self.is_silent();
        match &mut self.phase {
            Phase::Open(open) => {
                let (by, why) = open.close_both(Why::Drain);
                self.note(by, why);
            }
            _ if silent => {
                self.note(By::Proxy, Why::NeverSpoke);
                self.over();
            }
            // A request under way is answered; once open it is drained like the rest.
            _ => {}
        }
    }

    /// The client has sent no byte: it is closed without a word, whoever closes it.
    fn is_silent(&self) -> bool {
        match &self.phase {
            Phase::Securing(securing) => !securing.spoke,
            Phase::Request(reading) => reading.held.is_empty(),
            _ => false,
        }
    }

    fn on_due(&mut self, due: Due, now: Millis) {
        let silent = self.is_silent();
        match (due, &mut self.phase) {
            (Due::Tls | Due::RequestHead, _) if silent => {
                self.note(By::Downstream, Why::NeverSpoke);
                self.over();
            }
            (Due::Tls, _) => self.on_insecure(Side::Downstream, Why::TlsTimeout, now),
            (Due::RequestHead, _) => self.refuse(By::Downstream, Why::HeadTimeout, now),
            (Due::Connect, _) => self.on_connect_failed(Why::ConnectTimeout, now),
            (Due::ConnectTotal, _) => self.refuse(By::Upstream, Why::ConnectTimeout, now),
            (Due::Answer, Phase::Passing(_)) => self.leave(now),
            (Due::Answer, _) => self.refuse(By::Upstream, Why::AnswerTimeout, now),
            (Due::Idle, Phase::Open(open)) => {
                let (by, why) = open.close_both(Why::IdleTimeout);
                self.note(by, why);
            }
            (Due::Late, Phase::Open(open)) => {
                if let Some((by, why)) = open.on_late() {
                    self.note(by, why);
                }
            }
            (Due::Linger | Due::Close, _) => self.over(),
            _ => {}
        }
    }

    /// The next thing to do. Drain it after every `on_*`.
    #[inline]
    pub fn poll_action(&mut self, now: Millis) -> Option<Action> {
        if !self.outbox.is_empty() {
            let action = self.outbox.remove(0);
            // An open session owns no memory for what it seldom says.
            if self.outbox.is_empty() && self.is_open() {
                self.outbox = Vec::new();
            }
            return Some(action);
        }
        let Phase::Open(open) = &mut self.phase else { return None };
        let action = open.poll_action(now);
        if action.is_none() && open.is_over() {
            self.over();
            return self.outbox.pop();
        }
        action
    }

    #[inline]
    pub fn wants(&self, side: Side) -> Want {
        match (&self.phase, side) {
            (Phase::Open(open), _) => open.wants(side),
            (Phase::Securing(_), Side::Downstream) => Want::Bytes(usize::MAX),
            (Phase::Request(reading), Side::Downstream) => {
                Want::Bytes(reading.head_max.saturating_sub(reading.held.len()).max(1))
            }
            (Phase::Answer(answering), Side::Upstream) => {
                Want::Bytes(answering.asked.head_max.saturating_sub(answering.held.len()).max(1))
            }
            (Phase::Passing(_), Side::Upstream) => Want::Bytes(usize::MAX),
            (Phase::Leaving(leaving), Side::Downstream) if !leaving.eof => Want::Discard,
            _ => Want::Nothing,
        }
    }

    /// Whether the client waits for the upstream: it is not read, but where it leaves the upstream is not needed.
    pub fn client_waits(&self) -> bool {
        matches!(self.phase, Phase::Deciding(_) | Phase::Connecting(_) | Phase::Answer(_) | Phase::Passing(_))
    }

    /// The nearest deadline, and which it is. `last_seen` is when bytes last moved.
    pub fn deadline(&self, timeouts: &Timeouts, last_seen: Millis) -> Option<(Millis, Due)> {
        let at = |ms: Millis, due| Some((self.since + ms, due));
        match &self.phase {
            Phase::Securing(_) => at(timeouts.tls_ms, Due::Tls),
            Phase::Request(_) | Phase::Deciding(_) => at(timeouts.request_head_ms, Due::RequestHead),
            Phase::Connecting(connecting) => {
                let total = (self.since + timeouts.connect_total_ms, Due::ConnectTotal);
                Some(total.min((connecting.try_since + timeouts.connect_ms, Due::Connect)))
            }
            Phase::Answer(_) | Phase::Passing(_) => at(timeouts.upstream_head_ms, Due::Answer),
            Phase::Leaving(leaving) if leaving.finished => at(LINGER_MS, Due::Linger),
            Phase::Leaving(_) => at(timeouts.write_stall_ms, Due::Linger),
            Phase::Open(open) => open.deadline(timeouts, last_seen),
            Phase::Over(_) => None,
        }
    }

    /// The request, from its end on until the session is open.
    pub fn request(&self) -> Option<Request<'_>> {
        let asked = match &self.phase {
            Phase::Deciding(asked) => asked,
            Phase::Connecting(connecting) => &connecting.asked,
            Phase::Answer(answering) => &answering.asked,
            _ => return None,
        };
        asked.request()
    }

    /// Payload bytes of `side` that may pass without being seen (splice).
    pub fn passable(&self, side: Side) -> u64 {
        match &self.phase {
            Phase::Open(open) => open.passable(side),
            _ => 0,
        }
    }

    /// `n` bytes passed unseen; at most [`Session::passable`].
    pub fn on_passed(&mut self, side: Side, n: u64, counts: &mut Counts) {
        if let Phase::Open(open) = &mut self.phase {
            open.on_passed(side, n, counts);
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Open, and on its way to its end: its deadline may change with any byte.
    #[inline]
    pub fn is_closing(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if !open.is_calm())
    }

    /// Nothing more will leave toward `to` but what waits already.
    pub fn is_closed_toward(&self, to: Side) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.is_closed_toward(to))
    }

    /// `side` has said all, and was told all.
    pub fn is_done_with(&self, side: Side) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.is_done_with(side))
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Securing(_) => Stage::Tls,
            Phase::Request(_) | Phase::Deciding(_) => Stage::Request,
            Phase::Connecting(_) => Stage::Connect,
            Phase::Answer(_) | Phase::Passing(_) | Phase::Leaving(_) => Stage::Answer,
            Phase::Open(_) | Phase::Over(_) => Stage::Open,
        }
    }

    /// HTTP status that the client got; 0 for none.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Frames, bytes forwarded, by the side they came from; close codes by the side they went to. Zero unless open.
    pub fn totals(&self) -> Totals {
        match &self.phase {
            Phase::Open(open) => Totals { frames: open.frames(), bytes: open.bytes(), close_codes: open.close_codes() },
            Phase::Over(totals) => *totals,
            _ => Totals::default(),
        }
    }

    fn note(&mut self, by: By, why: Why) {
        let stage = self.stage();
        // A FIN is weaker than any other cause, and a Close than what its own sender did after it.
        let is_fin = |why: Why| matches!(why, Why::Eof | Why::TlsTruncated);
        let gives_way = |first: Why| (is_fin(first) && !is_fin(why)) || why == Why::DataAfterClose;
        let weak = self.ended.is_none_or(|ended| gives_way(ended.why));
        if weak {
            self.ended = Some(Ended { by, stage, why });
        }
    }

    fn refuse(&mut self, by: By, why: Why, now: Millis) {
        if matches!(self.phase, Phase::Open(_) | Phase::Leaving(_) | Phase::Over(_)) {
            return;
        }
        self.note(by, why);
        // Where an answer is passing already, there is no room for another.
        if !matches!(self.phase, Phase::Passing(_)) {
            self.status = why.cause().status;
            self.outbox.push(Action::Refuse(why));
        }
        self.leave(now);
    }

    /// What the client was to get is on its way: FIN behind it, and the upstream is done with.
    fn leave(&mut self, now: Millis) {
        self.outbox.extend([Action::HalfClose(Side::Downstream), Action::Hangup(Side::Upstream)]);
        self.enter(Phase::Leaving(Leaving { drained: 0, eof: false, finished: false }), now);
    }

    /// Ends it: the verdict is what was noted. Nothing follows.
    fn over(&mut self) {
        if !self.is_over() {
            let stage = self.stage();
            let ended = self.ended.unwrap_or(Ended { by: By::Proxy, stage, why: Why::Stop });
            self.outbox.push(Action::Close(ended));
            let (totals, since) = (self.totals(), self.since);
            self.enter(Phase::Over(totals), since);
        }
    }

    /// The one door between phases.
    fn enter(&mut self, next: Phase, now: Millis) {
        self.phase = next;
        self.since = now;
    }
}

/// Who is at fault for a refusal that policy decided.
fn why_by(why: Why) -> By {
    match why.cause().status {
        502..=504 => By::Proxy,
        _ => By::Downstream,
    }
}

// An idle pair must stay small (PERF.md): the cold phases are boxed for it.
const _: () = assert!(size_of::<Session>() <= 224);

#[cfg(test)]
mod tests;
