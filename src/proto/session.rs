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
mod state;

use super::end::{Cause, End, Party, Phase};
use super::http1::{HeadScan, Request};
pub use super::interface::{Action, Admission, Event, ReadInterest, RelayInput, Timeouts, Timer, Totals};
use super::open::Checkpoint;
use super::relay::{Counts, Relayed};
use super::{Millis, Side};
use state::{Answering, Connecting, Leaving, Reading, Securing, State};

/// Answers of the upstream with other statuses than 101 pass up to this many bytes of body.
const ANSWER_BODY_MAX: u64 = 1 << 20;
/// All interim (1xx) answers together.
const INTERIM_BYTES_MAX: usize = 16 * 1024;
/// A client that was refused is read on for so long and so much, that our answer is not lost to a RST.
const LINGER_MS: Millis = 2_000;
const LINGER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Session {
    state: State,
    /// When the state began.
    since: Millis,
    /// The first cause; a mere FIN gives way to a stronger one.
    ended: Option<End>,
    /// HTTP status that the client got, 0 while none.
    status: u16,
    /// What was decided and not yet asked of the shell. Empty, and without memory, while open.
    outbox: Vec<Action>,
}

impl Session {
    /// A client has connected; its head may have `head_max` bytes, early bytes included. `secure`: once its TLS handshake
    /// has ended ([`Event::Secured`]).
    pub fn new(head_max: usize, secure: bool, now: Millis) -> Session {
        let state = match secure {
            true => State::Securing(Securing { head_max, spoke: false }),
            false => State::Request(Box::new(Reading::new(head_max))),
        };
        Session { state, since: now, ended: None, status: 0, outbox: Vec::new() }
    }

    /// An open session that goes on from where another one was recorded.
    pub fn from_checkpoint(record: Checkpoint, now: Millis) -> Session {
        Session { state: State::Open(record.into_open()), since: now, ended: None, status: 101, outbox: Vec::new() }
    }

    /// What is needed to go on elsewhere: only while open, with nothing pending.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        match &self.state {
            State::Open(open) if self.outbox.is_empty() => open.checkpoint(),
            _ => None,
        }
    }

    /// Judges bytes of `from`. Call again with what was not consumed, after carrying out the actions.
    #[inline(always)]
    pub fn on_bytes(&mut self, from: Side, bytes: &[u8], given: RelayInput<'_>) -> Relayed {
        match &mut self.state {
            State::Open(open) => {
                let (taken, cause) = open.on_bytes(from, bytes, given);
                if let Some((by, cause)) = cause {
                    self.note(by, cause);
                }
                taken
            }
            State::Request(_) if from == Side::Downstream => self.on_request_bytes(bytes, given.now),
            State::Answer(_) if from == Side::Upstream => self.on_answer_bytes(bytes, given.now),
            State::Passing(_) if from == Side::Upstream => self.on_body_bytes(bytes, given.now),
            // The rest of the read that completed the head, in slices of its own: they came early as well.
            State::Deciding(asked) if from == Side::Downstream => asked.keep(bytes),
            State::Connecting(connecting) if from == Side::Downstream => connecting.asked.keep(bytes),
            State::Answer(answering) if from == Side::Downstream => answering.asked.keep(bytes),
            _ => {
                self.on_discarded(from, bytes.len(), given.now);
                Relayed::kept(bytes.len())
            }
        }
    }

    /// `n` bytes of `from` were thrown away, as [`ReadInterest::Discard`] allows.
    pub fn on_discarded(&mut self, from: Side, n: usize, now: Millis) {
        match &mut self.state {
            State::Open(open) => open.on_discarded(from, now),
            State::Leaving(leaving) => {
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
            Event::Refused(cause) => self.refuse(party_of(cause), cause, now),
            Event::Connected(request) => self.on_connected(request, now),
            Event::ConnectFailed(cause) => self.on_connect_failed(cause, now),
            Event::Exhausted => self.on_exhausted(now),
            Event::Spoke => {
                if let State::Securing(securing) = &mut self.state {
                    securing.spoke = true;
                }
            }
            Event::Secured => self.on_secured(now),
            Event::Insecure(side, cause) => self.on_insecure(side, cause, now),
            Event::Eof(side) => self.on_eof(side, Cause::Eof, now),
            Event::Truncated(side) => self.on_truncated(side, now),
            Event::Reset(side) => self.on_reset(side, now),
            Event::Flushed(side) => {
                if let State::Open(open) = &mut self.state {
                    open.on_flushed(side, now);
                }
            }
            Event::Finished(side) => self.on_finished(side, now),
            Event::Urgent(side) => self.on_urgent(side, now),
            Event::Stalled(side, cause) => self.on_stalled(side, cause),
            Event::Drain => self.on_drain(),
            Event::Stop => {
                self.note(Party::Proxy, if self.is_silent() { Cause::NoRequest } else { Cause::Stop });
                self.over();
            }
            Event::Timer(due) => self.on_due(due, now),
        }
    }

    fn on_admitted(&mut self, admission: Admission, now: Millis) {
        let state = std::mem::replace(&mut self.state, State::Over(Totals::default()));
        let State::Deciding(asked) = state else {
            self.state = state;
            return;
        };
        self.outbox.push(Action::Connect);
        let last = Cause::NoEndpoint;
        let connecting = Connecting { asked: *asked, admission, try_since: now, last };
        self.enter(State::Connecting(Box::new(connecting)), now);
    }

    fn on_connected(&mut self, request: Vec<u8>, now: Millis) {
        let state = std::mem::replace(&mut self.state, State::Over(Totals::default()));
        let State::Connecting(connecting) = state else {
            self.state = state;
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
        self.enter(State::Answer(Box::new(answering)), now);
    }

    fn on_connect_failed(&mut self, cause: Cause, now: Millis) {
        if let State::Connecting(connecting) = &mut self.state {
            connecting.last = cause;
            connecting.try_since = now;
            self.outbox.push(Action::Connect);
        }
    }

    fn on_exhausted(&mut self, now: Millis) {
        if let State::Connecting(connecting) = &self.state {
            self.refuse(Party::Upstream, connecting.last, now);
        }
    }

    fn on_eof(&mut self, side: Side, cause: Cause, now: Millis) {
        let silent = self.is_silent();
        match (&mut self.state, side) {
            (State::Open(open), _) => {
                if let Some((by, cause)) = open.on_eof(side, cause) {
                    self.note(by, cause);
                }
            }
            (_, Side::Downstream) if silent => {
                self.note(Party::Downstream, Cause::NoRequest);
                self.over();
            }
            (State::Leaving(leaving), Side::Downstream) => {
                // It may have half-closed and wait for the rest of its answer.
                leaving.eof = true;
                if leaving.finished {
                    self.over();
                }
            }
            (State::Passing(_), Side::Upstream) => self.leave(now),
            (State::Passing(_), Side::Downstream) => {
                // It takes its upstream with it; what was read is still sent, for it may have half-closed.
                self.outbox.push(Action::Abort(Side::Upstream));
                self.leave(now);
            }
            (_, Side::Downstream) => self.left(cause),
            (_, Side::Upstream) => self.refuse(Party::Upstream, cause, now),
        }
    }

    fn on_reset(&mut self, side: Side, now: Millis) {
        let silent = self.is_silent();
        match (&mut self.state, side) {
            (State::Open(open), _) => {
                let Some((by, cause)) = open.on_reset(side) else { return };
                self.note(by, cause);
                if cause == Cause::Reset {
                    self.outbox.push(Action::Abort(side.other()));
                    self.over();
                }
            }
            (_, Side::Downstream) if silent => {
                self.note(Party::Downstream, Cause::NoRequest);
                self.over();
            }
            (State::Leaving(_), Side::Downstream) => self.over(),
            (State::Passing(_), Side::Upstream) => {
                // The rest of the answer is lost: the client must not take it for whole.
                self.outbox.push(Action::Abort(Side::Downstream));
                self.over();
            }
            (_, Side::Downstream) => self.left(Cause::Reset),
            (_, Side::Upstream) => self.refuse(Party::Upstream, Cause::Reset, now),
        }
    }

    /// More may have been said than was read: nobody may take that for the whole.
    fn on_truncated(&mut self, side: Side, now: Millis) {
        match (&self.state, side) {
            (State::Passing(_), Side::Upstream) => self.on_reset(side, now),
            _ => self.on_eof(side, Cause::TlsTruncated, now),
        }
    }

    fn on_secured(&mut self, now: Millis) {
        if let State::Securing(securing) = &self.state {
            let reading = Box::new(Reading::new(securing.head_max));
            self.enter(State::Request(reading), now);
        }
    }

    /// Nothing more can be said to that side, but for the alert that the shell has sent.
    fn on_insecure(&mut self, side: Side, cause: Cause, now: Millis) {
        match (&mut self.state, side) {
            (State::Open(open), _) => {
                let found = open.on_reset(side);
                self.note(side.into(), cause);
                if found.is_some_and(|(_, cause)| cause == Cause::Reset) {
                    self.outbox.push(Action::Abort(side.other()));
                    self.over();
                }
            }
            (State::Connecting(_), Side::Upstream) => self.on_connect_failed(cause, now),
            (State::Securing(_), Side::Downstream) if cause == Cause::PlainOnTls => {
                self.refuse(Party::Downstream, cause, now)
            }
            (State::Leaving(_), Side::Downstream) => self.over(),
            (State::Passing(_), Side::Upstream) => self.on_reset(side, now),
            (_, Side::Upstream) => self.refuse(Party::Upstream, cause, now),
            (_, Side::Downstream) => {
                self.note(Party::Downstream, cause);
                self.outbox.push(Action::Abort(Side::Upstream));
                self.leave(now);
            }
        }
    }

    /// A client that leaves before the 101 takes its upstream connection with it.
    fn left(&mut self, cause: Cause) {
        self.note(Party::Downstream, cause);
        self.outbox.push(Action::Abort(Side::Upstream));
        self.over();
    }

    fn on_finished(&mut self, to: Side, now: Millis) {
        match &mut self.state {
            State::Open(open) => open.on_finished(to),
            State::Leaving(leaving) if to == Side::Downstream => {
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
        match &mut self.state {
            State::Open(open) => {
                let (by, cause) = open.on_urgent(side);
                self.note(by, cause);
            }
            State::Leaving(_) | State::Over(_) => {}
            _ if side == Side::Downstream => self.refuse(Party::Downstream, Cause::UrgentData, now),
            _ => self.refuse(Party::Upstream, Cause::BadResponse, now),
        }
    }

    fn on_stalled(&mut self, side: Side, cause: Cause) {
        if let State::Open(open) = &mut self.state {
            let (by, cause) = open.on_stalled(side, cause);
            self.note(by, cause);
            self.outbox.push(Action::Abort(side));
        } else {
            self.note(Party::Proxy, cause);
            self.outbox.push(Action::Abort(side));
            self.over();
        }
    }

    fn on_drain(&mut self) {
        let silent = self.is_silent();
        match &mut self.state {
            State::Open(open) => {
                let (by, cause) = open.close_both(Cause::Drain);
                self.note(by, cause);
            }
            _ if silent => {
                self.note(Party::Proxy, Cause::NoRequest);
                self.over();
            }
            // A request under way is answered; once open it is drained like the rest.
            _ => {}
        }
    }

    /// The client has sent no byte: it is closed without a word, whoever closes it.
    fn is_silent(&self) -> bool {
        match &self.state {
            State::Securing(securing) => !securing.spoke,
            State::Request(reading) => reading.held.is_empty(),
            _ => false,
        }
    }

    fn on_due(&mut self, due: Timer, now: Millis) {
        let silent = self.is_silent();
        match (due, &mut self.state) {
            (Timer::TlsHandshake | Timer::RequestHead, _) if silent => {
                self.note(Party::Downstream, Cause::NoRequest);
                self.over();
            }
            (Timer::TlsHandshake, _) => self.on_insecure(Side::Downstream, Cause::TlsTimeout, now),
            (Timer::RequestHead, _) => self.refuse(Party::Downstream, Cause::HeadTimeout, now),
            (Timer::Connect, _) => self.on_connect_failed(Cause::ConnectTimeout, now),
            (Timer::ConnectTotal, _) => self.refuse(Party::Upstream, Cause::ConnectTimeout, now),
            (Timer::ResponseHead, State::Passing(_)) => self.leave(now),
            (Timer::ResponseHead, _) => self.refuse(Party::Upstream, Cause::ResponseTimeout, now),
            (Timer::Idle, State::Open(open)) => {
                let (by, cause) = open.close_both(Cause::IdleTimeout);
                self.note(by, cause);
            }
            (Timer::DataAfterClose, State::Open(open)) => {
                if let Some((by, cause)) = open.on_late() {
                    self.note(by, cause);
                }
            }
            (Timer::Linger | Timer::Close, _) => self.over(),
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
        let State::Open(open) = &mut self.state else { return None };
        let action = open.poll_action(now);
        if action.is_none() && open.is_over() {
            self.over();
            return self.outbox.pop();
        }
        action
    }

    #[inline]
    pub fn wants(&self, side: Side) -> ReadInterest {
        match (&self.state, side) {
            (State::Open(open), _) => open.wants(side),
            (State::Securing(_), Side::Downstream) => ReadInterest::Bytes(usize::MAX),
            (State::Request(reading), Side::Downstream) => {
                ReadInterest::Bytes(reading.head_max.saturating_sub(reading.held.len()).max(1))
            }
            (State::Answer(answering), Side::Upstream) => {
                ReadInterest::Bytes(answering.asked.head_max.saturating_sub(answering.held.len()).max(1))
            }
            (State::Passing(_), Side::Upstream) => ReadInterest::Bytes(usize::MAX),
            (State::Leaving(leaving), Side::Downstream) if !leaving.eof => ReadInterest::Discard,
            _ => ReadInterest::Nothing,
        }
    }

    /// Whether the client waits for the upstream: it is not read, but where it leaves the upstream is not needed.
    pub fn client_waits(&self) -> bool {
        matches!(self.state, State::Deciding(_) | State::Connecting(_) | State::Answer(_) | State::Passing(_))
    }

    /// The nearest deadline, and which it is. `last_seen` is when bytes last moved.
    pub fn deadline(&self, timeouts: &Timeouts, last_seen: Millis) -> Option<(Millis, Timer)> {
        let at = |ms: Millis, due| Some((self.since + ms, due));
        match &self.state {
            State::Securing(_) => at(timeouts.tls_ms, Timer::TlsHandshake),
            State::Request(_) | State::Deciding(_) => at(timeouts.request_head_ms, Timer::RequestHead),
            State::Connecting(connecting) => {
                let total = (self.since + timeouts.connect_total_ms, Timer::ConnectTotal);
                Some(total.min((connecting.try_since + timeouts.connect_ms, Timer::Connect)))
            }
            State::Answer(_) | State::Passing(_) => at(timeouts.upstream_head_ms, Timer::ResponseHead),
            State::Leaving(leaving) if leaving.finished => at(LINGER_MS, Timer::Linger),
            State::Leaving(_) => at(timeouts.write_stall_ms, Timer::Linger),
            State::Open(open) => open.deadline(timeouts, last_seen),
            State::Over(_) => None,
        }
    }

    /// The request, from its end on until the session is open.
    pub fn request(&self) -> Option<Request<'_>> {
        let asked = match &self.state {
            State::Deciding(asked) => asked,
            State::Connecting(connecting) => &connecting.asked,
            State::Answer(answering) => &answering.asked,
            _ => return None,
        };
        asked.request()
    }

    /// Payload bytes of `side` that may pass without being seen (splice).
    pub fn passable(&self, side: Side) -> u64 {
        match &self.state {
            State::Open(open) => open.passable(side),
            _ => 0,
        }
    }

    /// `n` bytes passed unseen; at most [`Session::passable`].
    pub fn on_passed(&mut self, side: Side, n: u64, counts: &mut Counts) {
        if let State::Open(open) = &mut self.state {
            open.on_passed(side, n, counts);
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Open, and on its way to its end: its deadline may change with any byte.
    #[inline]
    pub fn is_closing(&self) -> bool {
        matches!(&self.state, State::Open(open) if !open.is_calm())
    }

    /// Nothing more will leave toward `to` but what waits already.
    pub fn is_closed_toward(&self, to: Side) -> bool {
        matches!(&self.state, State::Open(open) if open.is_closed_toward(to))
    }

    /// `side` has said all, and was told all.
    pub fn is_done_with(&self, side: Side) -> bool {
        matches!(&self.state, State::Open(open) if open.is_done_with(side))
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Securing(_) => Phase::Tls,
            State::Request(_) | State::Deciding(_) => Phase::Request,
            State::Connecting(_) => Phase::Connect,
            State::Answer(_) | State::Passing(_) | State::Leaving(_) => Phase::Response,
            State::Open(_) | State::Over(_) => Phase::Open,
        }
    }

    /// HTTP status that the client got; 0 for none.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Frames, bytes forwarded, by the side they came from; close codes by the side they went to. Zero unless open.
    pub fn totals(&self) -> Totals {
        match &self.state {
            State::Open(open) => Totals { frames: open.frames(), bytes: open.bytes(), close_codes: open.close_codes() },
            State::Over(totals) => *totals,
            _ => Totals::default(),
        }
    }

    fn note(&mut self, party: Party, cause: Cause) {
        let phase = self.phase();
        // A FIN is weaker than any other cause, and a Close than what its own sender did after it.
        let is_fin = |cause: Cause| matches!(cause, Cause::Eof | Cause::TlsTruncated);
        let gives_way = |first: Cause| (is_fin(first) && !is_fin(cause)) || cause == Cause::DataAfterClose;
        let weak = self.ended.is_none_or(|ended| gives_way(ended.cause));
        if weak {
            self.ended = Some(End { party, phase, cause });
        }
    }

    fn refuse(&mut self, party: Party, cause: Cause, now: Millis) {
        if matches!(self.state, State::Open(_) | State::Leaving(_) | State::Over(_)) {
            return;
        }
        self.note(party, cause);
        // Where an answer is passing already, there is no room for another.
        if !matches!(self.state, State::Passing(_)) {
            self.status = cause.info().status;
            self.outbox.push(Action::Refuse(cause));
        }
        self.leave(now);
    }

    /// What the client was to get is on its way: FIN behind it, and the upstream is done with.
    fn leave(&mut self, now: Millis) {
        self.outbox.extend([Action::HalfClose(Side::Downstream), Action::Hangup(Side::Upstream)]);
        self.enter(State::Leaving(Leaving { drained: 0, eof: false, finished: false }), now);
    }

    /// Ends it: the verdict is what was noted. Nothing follows.
    fn over(&mut self) {
        if !self.is_over() {
            let phase = self.phase();
            let ended = self.ended.unwrap_or(End { party: Party::Proxy, phase, cause: Cause::Stop });
            self.outbox.push(Action::Close(ended));
            let (totals, since) = (self.totals(), self.since);
            self.enter(State::Over(totals), since);
        }
    }

    /// The one door between phases.
    fn enter(&mut self, next: State, now: Millis) {
        self.state = next;
        self.since = now;
    }
}

/// Who is at fault for a refusal that policy decided.
fn party_of(cause: Cause) -> Party {
    match cause.info().status {
        502..=504 => Party::Proxy,
        _ => Party::Downstream,
    }
}

// An idle pair must stay small (PERF.md): the cold phases are boxed for it.
const _: () = assert!(size_of::<Session>() <= 224);

#[cfg(test)]
mod tests;
