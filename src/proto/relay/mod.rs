//! An established WebSocket: two directions, and the rules of how they close
//! (docs/src/behaviour.md, "The session"). Pure state and what follows from it; the session is its
//! only user. `cursor` walks the frames of one direction, `reading` says how much of it is read at
//! once, `limiter` what its limits allow, `own` holds frames of ours, `heartbeat` has pings of ours
//! and what follows from them, `slice` what goes in and comes out with a slice of bytes.
//!
//! A direction is named by the side that its bytes come from. Its output:
//!
//! ```text
//!            the peer's Close is forwarded
//! Flowing ---------------------------------> Theirs --.
//!    |                                                 \    FIN, when `owes_fin` says so
//!    | the proxy closes   at a frame boundary           \
//!    +-------> Closing ---------------------> Ours ------+-> fin: No -> Asked -> Done
//!    |            | the source ends inside a frame      /
//!    `------------+-------------------------> Cut -----'
//! ```

mod budget;
mod cursor;
mod heartbeat;
mod intercept;
mod limiter;
mod own;
mod reading;
mod slice;

pub use budget::{Budget, Unlimited};
pub use cursor::{Cursor, Stop};
pub use heartbeat::HEARTBEAT_BYTES;
pub use intercept::{INTERCEPT_SIZE, TakenMessage};
pub use limiter::{LIMITER_SIZE, SHARED_MAX, SessionLimits};
pub use own::OwnFrame;
pub(super) use slice::Noticed;
pub use slice::{Counts, ROUND_TRIP_MS, RelayInput, Relayed, RoundTrips};

use super::close::Close;
use super::end::{Cause, Party};
use super::handshake::Extensions;
use super::interface::{Action, ReadInterest, Timer};
use super::settings::{GOING_AWAY, Mode, RelaySettings, Settings, Timeouts};
use super::{Millis, Side, Sides};
use heartbeat::Legs;
use limiter::{Limiter, Stand};
use own::OwnFrames;

/// How long a peer that sends data after its own Close waits for the other side's Close before it
/// gets ours.
const DATA_AFTER_CLOSE_MS: Millis = 500;

/// What leaves in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Flowing,
    /// Our Close is queued for the next frame boundary; until then the frame goes on.
    Closing,
    /// The source's own Close has left, with this code.
    PeerClosed(u16),
    /// Our Close has left, with this code.
    ProxyClosed(u16),
    /// Nothing leaves any more, and no Close did.
    Cut,
}

impl Output {
    /// Bytes of the source are still forwarded.
    #[inline]
    fn is_open(self) -> bool {
        matches!(self, Output::Flowing | Output::Closing)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    No,
    Asked,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Direction {
    cursor: Cursor,
    bytes: u64,
    /// Frames of ours that wait for a frame boundary.
    own: OwnFrames,
    output: Output,
    /// The source will send no more.
    eof: bool,
    fin: Fin,
}

impl Direction {
    fn new(from: Side, extensions: Extensions) -> Direction {
        Direction {
            cursor: Cursor::new(from, extensions),
            bytes: 0,
            own: OwnFrames::default(),
            output: Output::Flowing,
            eof: false,
            fin: Fin::No,
        }
    }

    /// Walks `bytes`, and counts what of them is forwarded.
    #[inline(always)]
    fn advance<B: Budget>(
        &mut self,
        bytes: &[u8],
        settings: &RelaySettings,
        counts: &mut Counts,
        authored: &mut Vec<u8>,
        budget: &mut B,
    ) -> (Relayed, Option<Stop>) {
        let (relayed, stop) = match settings.mode {
            Mode::Opaque => (Relayed::forward(bytes.len()), None),
            Mode::Framed => {
                // With a frame of ours queued, nothing is forwarded beyond the frame under way.
                let end = if self.own.is_empty() { u64::MAX } else { self.cursor.left().max(1) };
                let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
                let bytes = bytes.get(..end).unwrap_or(bytes);
                self.cursor.walk(bytes, settings.limits, counts, authored, budget)
            }
        };
        let forwarded = (authored.len() + relayed.forward) as u64;
        self.bytes += forwarded;
        counts.bytes += forwarded;
        (relayed, stop)
    }

    /// Where it stands, for its limits.
    #[inline]
    fn stand(&self) -> Stand<'_> {
        Stand { cursor: &self.cursor, flowing: self.output == Output::Flowing }
    }

    /// Nothing but messages has happened in this direction, and nothing is pending.
    #[inline]
    fn is_calm(&self) -> bool {
        self.output == Output::Flowing && !self.eof && self.own.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relay {
    directions: Sides<Direction>,
    /// When bytes of the peers last moved. Pings of ours and their pongs are none.
    last_seen: Millis,
    // Boxed, all: they are seldom there, and count toward the memory of every idle session.
    /// Where the route has a heartbeat.
    heartbeat: Option<Box<Legs>>,
    /// Set while the close deadline is running.
    closing: Option<Box<Closing>>,
    /// `None` where the route sets no limits that it keeps.
    limiter: Option<Box<Limiter>>,
}

/// What a relay remembers once it is closing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Closing {
    /// When the close deadline began to run.
    since: Millis,
    /// The side that sent data after its own Close, and when that began.
    offender: Option<Side>,
    offended_at: Millis,
}

impl Closing {
    fn new(now: Millis) -> Closing {
        Closing { since: now, offender: None, offended_at: now }
    }
}

/// Everything that is needed to continue an established session with nothing pending on another
/// worker or in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint(Relay);

/// A cause that was found, for the session to weigh.
pub(super) type Found = Option<(Party, Cause)>;

impl Relay {
    /// `limits`: beside those of `settings`.
    pub(super) fn new(extensions: Extensions, settings: &RelaySettings, limits: SessionLimits, now: Millis) -> Relay {
        let heartbeat = Legs::new(settings, limits.random, now);
        let limiter = Limiter::new(settings, limits, now);
        let direction = |from| Direction::new(from, extensions);
        let directions = Sides::new(direction(Side::Downstream), direction(Side::Upstream));
        Relay { directions, last_seen: now, heartbeat, closing: None, limiter }
    }

    /// Whether nothing but messages has happened and nothing is pending: the state in which a pair
    /// can be moved.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        Side::BOTH.iter().all(|side| self.directions[*side].is_calm())
    }

    /// Calm, and no direction is paused.
    #[inline]
    pub(super) fn is_steady(&self) -> bool {
        self.is_calm() && !self.limiter.as_ref().is_some_and(|limiter| limiter.is_paused())
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.is_calm().then(|| Checkpoint(self.clone()))
    }

    #[inline]
    pub(super) fn wants(&self, side: Side, settings: &RelaySettings) -> ReadInterest {
        let direction = &self.directions[side];
        if direction.eof {
            return ReadInterest::Nothing;
        }
        if !direction.output.is_open() {
            return ReadInterest::Discard;
        }
        let most = match &self.limiter {
            None => usize::MAX,
            Some(limiter) => match limiter.throttle(side).read_max(direction.stand()) {
                0 => return ReadInterest::Nothing,
                _ if limiter.throttle(side).is_shared() => return ReadInterest::Shared,
                most => usize::try_from(most).unwrap_or(usize::MAX),
            },
        };
        reading::interest(&direction.cursor, most, settings.splice)
    }

    /// The same, where it depends on what other sessions have left of a limit now.
    pub(super) fn wants_now(&self, side: Side, settings: &RelaySettings, now: Millis) -> ReadInterest {
        let (direction, wanted) = (&self.directions[side], self.wants(side, settings));
        let Some(limiter) = self.limiter.as_ref().filter(|_| wanted == ReadInterest::Shared) else { return wanted };
        let most = limiter.throttle(side).read_max_now(direction.stand(), now);
        reading::interest(&direction.cursor, usize::try_from(most).unwrap_or(usize::MAX), settings.splice)
    }

    #[inline(always)]
    pub(super) fn on_bytes(
        &mut self,
        from: Side,
        bytes: &[u8],
        settings: &RelaySettings,
        mut input: RelayInput<'_>,
    ) -> (Relayed, Option<Noticed>) {
        match &mut self.heartbeat {
            None => self.last_seen = input.now,
            Some(legs) => legs.on_heard(from, input.now),
        }
        let direction = &mut self.directions[from];
        if !direction.output.is_open() {
            // These bytes came in one read with what closed this direction.
            self.on_discarded(from, input.now);
            return (Relayed::consume(bytes.len()), None);
        }
        let (relayed, noticed) = match &mut self.limiter {
            None => {
                let RelayInput { counts, authored, .. } = input.reborrow();
                let (relayed, mut stop) =
                    direction.advance(bytes, settings, &mut counts[from], authored, &mut Unlimited);
                if stop == Some(Stop::Pong) {
                    let judged =
                        direction.on_pong(from, self.heartbeat.as_deref_mut(), input.reborrow(), &mut Unlimited);
                    stop = judged.err().map(Stop::Violation);
                }
                (relayed, stop.and_then(|stop| self.on_stop(from, stop, settings)).map(Noticed::from))
            }
            Some(_) => self.on_limited_bytes(from, bytes, settings, input.reborrow()),
        };
        if let Some(legs) = self.heartbeat.as_mut().filter(|_| input.authored.len() + relayed.forward > 0) {
            self.last_seen = input.now;
            legs.on_forwarded(from.other());
        }
        // Within one read, only a Close can make a FIN due.
        let last = noticed.is_some() && self.directions[from].fin == Fin::No && self.owes_fin(from);
        (Relayed { last, ..relayed }, noticed)
    }

    /// Judges what the client sent before its 101; what of it is to be forwarded.
    pub(super) fn replay(
        &mut self,
        early: Vec<u8>,
        settings: &RelaySettings,
        input: RelayInput<'_>,
    ) -> (Vec<u8>, Found) {
        let RelayInput { now, counts, authored } = input;
        let (mut forwarded, mut found) = (Vec::new(), None);
        let mut rest = early.as_slice();
        while !rest.is_empty() {
            let input = RelayInput { now, counts, authored };
            let (relayed, noticed) = self.on_bytes(Side::Downstream, rest, settings, input);
            forwarded.append(authored);
            forwarded.extend_from_slice(rest.get(..relayed.forward).unwrap_or(rest));
            rest = rest.get(relayed.consumed.max(1)..).unwrap_or(&[]);
            if let Some(Noticed::Cause(party, cause)) = noticed {
                found = found.or(Some((party, cause)));
            }
        }
        (forwarded, found)
    }

    fn on_stop(&mut self, from: Side, stop: Stop, settings: &RelaySettings) -> Found {
        match stop {
            // Judged before: `Direction::on_pong`.
            Stop::Pong => None,
            Stop::Closed(code) => {
                // Nothing is forwarded after a Close: one of ours that was queued in this direction
                // is not needed any more, for the peer's own has left. An answer to a Close of ours
                // is discarded in `ProxyClosed`; this one came first.
                let direction = &mut self.directions[from];
                direction.own.clear();
                direction.output = Output::PeerClosed(code);
                Some((from.into(), Cause::Close))
            }
            Stop::Violation(cause) => Some(self.violated(from, cause, settings)),
        }
    }

    /// The offender gets the code of the table with its reason. The other side gets the same reason
    /// with 1001 if it is an upstream whose client offended, or with the route's code (1014, bad
    /// gateway) if it is a client whose upstream did.
    fn violated(&mut self, by: Side, cause: Cause, settings: &RelaySettings) -> (Party, Cause) {
        let code = match &self.limiter {
            Some(limiter) => limiter.throttle(by).close_code(cause),
            None => cause.info().code,
        };
        self.offended(by, Close { code, cause }, settings)
    }

    /// The offender gets `close`.
    fn offended(&mut self, by: Side, close: Close, settings: &RelaySettings) -> (Party, Cause) {
        let code = match by {
            Side::Downstream => GOING_AWAY,
            Side::Upstream => settings.upstream_error_code,
        };
        self.close_toward(by, close, settings.mode);
        self.close_toward(by.other(), Close { code, cause: close.cause }, settings.mode);
        (by.into(), close.cause)
    }

    /// Queues a Close of ours toward `to`, unless one has left or is queued, or a FIN was asked
    /// for.
    fn close_toward(&mut self, to: Side, close: Close, mode: Mode) {
        let direction = &mut self.directions[to.other()];
        if direction.output != Output::Flowing || direction.fin != Fin::No {
            return;
        }
        direction.own.clear();
        match mode {
            // A tunnel knows no frame boundary: FIN is all that can be sent.
            Mode::Opaque => direction.output = Output::Cut,
            Mode::Framed => {
                direction.output = Output::Closing;
                // Nothing is before it.
                direction.own.push(OwnFrame::Close(close));
            }
        }
    }

    /// Queues a ping, a pong or a message of ours toward `to`. `false` if nothing but a Close can
    /// leave there any more, or where frames are not known.
    pub(super) fn send_toward(&mut self, to: Side, frame: OwnFrame, mode: Mode) -> bool {
        let direction = &mut self.directions[to.other()];
        let known = !frame.is_text() || direction.cursor.knows_extensions();
        let possible = mode == Mode::Framed && direction.output == Output::Flowing && direction.fin == Fin::No;
        known && possible && direction.own.push(frame)
    }

    /// The proxy closes both directions with the same Close.
    pub(super) fn close_both(&mut self, cause: Cause, mode: Mode) -> (Party, Cause) {
        for side in Side::BOTH {
            self.close_toward(side, Close { code: cause.info().code, cause }, mode);
        }
        (Party::Proxy, cause)
    }

    /// The proxy ends the session for a reason that has a close code of its own for the client.
    pub(super) fn close_client(&mut self, cause: Cause, code: u16, mode: Mode) -> (Party, Cause) {
        let codes = Sides::new(code, GOING_AWAY);
        for side in Side::BOTH {
            self.close_toward(side, Close { code: codes[side], cause }, mode);
        }
        (Party::Proxy, cause)
    }

    pub(super) fn on_discarded(&mut self, from: Side, now: Millis) {
        let awaited = self.directions[from.other()].output.is_open();
        if matches!(self.directions[from].output, Output::PeerClosed(_)) && awaited {
            let closing = self.closing.get_or_insert_with(|| Box::new(Closing::new(now)));
            if closing.offender.is_none() {
                (closing.offender, closing.offended_at) = (Some(from), now);
            }
        }
    }

    /// No more bytes will come from `side`: its FIN, or a FIN that TLS did not announce.
    pub(super) fn on_eof(&mut self, side: Side, cause: Cause, settings: &RelaySettings) -> Found {
        self.directions[side].eof = true;
        if self.directions[side].output != Output::Flowing {
            return None;
        }
        self.report_upstream_loss(side, settings).or(Some((side.into(), cause)))
    }

    /// Where the route reports the loss of an upstream by a Close, that Close is queued.
    fn report_upstream_loss(&mut self, side: Side, settings: &RelaySettings) -> Found {
        let flowing = self.directions[side].output == Output::Flowing;
        let reported = side == Side::Upstream && settings.mode == Mode::Framed && flowing;
        let code = settings.upstream_loss_code.filter(|_| reported)?;
        self.close_toward(Side::Downstream, Close { code, cause: Cause::UpstreamLoss }, settings.mode);
        self.cut(Side::Downstream);
        Some((side.into(), Cause::UpstreamLoss))
    }

    /// Nothing more leaves in the direction from `from`, and no Close of ours.
    fn cut(&mut self, from: Side) {
        let direction = &mut self.directions[from];
        direction.own.clear();
        if direction.output.is_open() {
            direction.output = Output::Cut;
        }
    }

    /// `side` can neither be read nor written any more. With the cause [`Cause::Reset`] the other
    /// side is to be reset as well; else it has had a Close, or gets one now, and ends as usual.
    pub(super) fn on_reset(&mut self, side: Side, settings: &RelaySettings) -> Found {
        let closed = matches!(self.directions[side].output, Output::PeerClosed(_) | Output::ProxyClosed(_));
        let found = self.report_upstream_loss(side, settings).or((!closed).then_some((side.into(), Cause::Reset)));
        self.give_up(side);
        found
    }

    fn give_up(&mut self, side: Side) {
        self.directions[side].eof = true;
        self.cut(side.other());
        self.directions[side.other()].fin = Fin::Done;
    }

    /// `side` takes nothing: it is given up, the other side gets a Close.
    pub(super) fn on_stalled(&mut self, side: Side, cause: Cause, mode: Mode) -> (Party, Cause) {
        self.give_up(side);
        self.close_toward(side.other(), Close { code: cause.info().code, cause }, mode);
        (Party::Proxy, cause)
    }

    pub(super) fn on_urgent_data(&mut self, side: Side, settings: &RelaySettings) -> (Party, Cause) {
        self.violated(side, Cause::UrgentData, settings)
    }

    /// The receiver of a backlog took some of it.
    pub(super) fn on_taken(&mut self, by: Side, now: Millis) {
        if self.heartbeat.as_mut().is_none_or(|legs| legs.on_taken(by, now)) {
            self.last_seen = now;
        }
    }

    /// The backlog toward `to` has left. The close deadline begins when the last of it has.
    pub(super) fn on_flushed(&mut self, to: Side, now: Millis) {
        if let Some(legs) = &mut self.heartbeat {
            legs.on_flushed(to, now);
        }
        let closed = self.is_closed_toward(to);
        if let Some(closing) = self.closing.as_mut().filter(|_| closed) {
            closing.since = now;
        }
    }

    pub(super) fn is_closed_toward(&self, to: Side) -> bool {
        let direction = &self.directions[to.other()];
        direction.eof || !direction.output.is_open()
    }

    /// The FIN toward `to` has left.
    pub(super) fn on_finished(&mut self, to: Side) {
        self.directions[to.other()].fin = Fin::Done;
    }

    /// The next thing to do; `None` when there is nothing.
    #[inline]
    pub(super) fn poll_action(&mut self, now: Millis) -> Option<Action> {
        if self.is_calm() {
            return None;
        }
        self.note_closing(now);
        Side::BOTH.into_iter().find_map(|from| self.poll_direction(from, now))
    }

    fn note_closing(&mut self, now: Millis) {
        let closing = |side: &Side| self.directions[*side].output != Output::Flowing;
        let both_ended = Side::BOTH.iter().all(|side| self.directions[*side].eof);
        if self.closing.is_none() && (both_ended || Side::BOTH.iter().any(closing)) {
            self.closing = Some(Box::new(Closing::new(now)));
        }
    }

    fn poll_direction(&mut self, from: Side, now: Millis) -> Option<Action> {
        let direction = &mut self.directions[from];
        let (cursor, open) = (&direction.cursor, direction.output.is_open() && direction.fin == Fin::No);
        let may_send = |frame: &OwnFrame| open && cursor.at_boundary() && !(frame.is_text() && cursor.in_message());
        if let Some(frame) = direction.own.pop(may_send) {
            if let OwnFrame::Close(close) = &frame {
                direction.output = Output::ProxyClosed(close.code);
            }
            let ping = self.heartbeat.as_mut().is_some_and(|legs| legs.on_sent(from.other(), &frame, now));
            if ping {
                self.directions[from.other()].cursor.expect_pongs();
            }
            return Some(Action::SendFrame(from.other(), frame));
        }
        if direction.output == Output::Closing && direction.eof {
            // The frame under way will never be complete.
            self.cut(from);
        }
        if self.directions[from].fin == Fin::No && self.owes_fin(from) {
            self.directions[from].own.clear();
            self.directions[from].fin = Fin::Asked;
            return Some(Action::HalfClose(from.other()));
        }
        None
    }

    fn owes_fin(&self, from: Side) -> bool {
        let (direction, back) = (&self.directions[from], &self.directions[from.other()]);
        match direction.output {
            Output::Flowing => direction.eof,
            Output::Closing => false,
            Output::ProxyClosed(_) | Output::Cut => true,
            // Both Closes have been forwarded. We are the client's server: "the server MUST close
            // the connection first"; toward the upstream we are the client and wait for its FIN
            // (RFC 6455 section 7.1.1).
            Output::PeerClosed(_) if !back.output.is_open() => from == Side::Upstream || back.eof,
            Output::PeerClosed(_) => direction.eof,
        }
    }

    /// Both peers have ended and both have had their FIN.
    pub(super) fn is_over(&self) -> bool {
        Side::BOTH.iter().all(|side| self.is_done_with(*side))
    }

    /// `side` has ended, and everything for it has left with a FIN behind it.
    pub(super) fn is_done_with(&self, side: Side) -> bool {
        self.directions[side].eof && self.directions[side.other()].fin == Fin::Done
    }

    /// `heard`: no receiver has a backlog, so that both sides are read.
    #[inline]
    pub(super) fn deadline(&self, settings: &Settings, heard: bool) -> Option<(Millis, Timer)> {
        let nearest = self.deadline_of_peers(&settings.timeouts);
        match &self.heartbeat {
            Some(legs) if heard => {
                let ping = self.heartbeat_at(legs, &settings.relay).map(|at| (at, Timer::Heartbeat));
                nearest.into_iter().chain(ping).min()
            }
            _ => nearest,
        }
    }

    #[inline]
    fn deadline_of_peers(&self, timeouts: &Timeouts) -> Option<(Millis, Timer)> {
        let nearest = match &self.closing {
            Some(closing) => Some(self.close_deadline(closing, timeouts)),
            None if timeouts.idle_ms > 0 => Some((self.last_seen + timeouts.idle_ms, Timer::Idle)),
            None => None,
        };
        match &self.limiter {
            None => nearest,
            Some(limiter) => self.deadline_with_limits(limiter, nearest, timeouts),
        }
    }

    fn deadline_with_limits(
        &self,
        limiter: &Limiter,
        mut nearest: Option<(Millis, Timer)>,
        timeouts: &Timeouts,
    ) -> Option<(Millis, Timer)> {
        if let (Some((at, Timer::Idle)), Some(until)) = (&mut nearest, limiter.paused_until()) {
            *at = until.saturating_add(timeouts.idle_ms).max(*at);
        }
        let age = (self.closing.is_none() && limiter.ends_at < Millis::MAX).then_some((limiter.ends_at, Timer::Age));
        let resume = limiter.next_at().map(|at| (at, Timer::Resume));
        [nearest, age, resume].into_iter().flatten().min()
    }

    fn close_deadline(&self, closing: &Closing, timeouts: &Timeouts) -> (Millis, Timer) {
        let close = (closing.since + timeouts.close_ms, Timer::Close);
        // Only while a Close of ours can still be sent to the offender.
        let possible = |side: &Side| {
            let back = &self.directions[side.other()];
            back.output == Output::Flowing && back.fin == Fin::No
        };
        match closing.offender.filter(possible) {
            Some(_) => close.min((closing.offended_at + DATA_AFTER_CLOSE_MS, Timer::DataAfterClose)),
            None => close,
        }
    }

    /// The peer that sent data after its Close has waited long enough for the other side's.
    pub(super) fn on_data_after_close(&mut self, mode: Mode) -> Found {
        let side = self.closing.as_ref()?.offender?;
        let cause = Cause::DataAfterClose;
        self.close_toward(side, Close { code: cause.info().code, cause }, mode);
        Some((side.into(), cause))
    }

    /// `n` bytes of payload from `side` were forwarded in the kernel.
    pub(super) fn on_spliced(&mut self, side: Side, n: u64, settings: &RelaySettings, input: RelayInput<'_>) -> Found {
        self.last_seen = input.now;
        if let Some(legs) = &mut self.heartbeat {
            legs.on_heard(side, input.now);
            legs.on_forwarded(side.other());
        }
        let direction = &mut self.directions[side];
        direction.cursor.on_spliced(n);
        direction.bytes += n;
        let counts = &mut input.counts[side];
        counts.bytes += n;
        let throttle = self.limiter.as_mut()?.throttle_mut(side);
        let close = throttle.on_read([0, n, 0], direction.stand(), counts, input.now)?;
        Some(self.offended(side, close, settings))
    }

    /// The code that left toward each side; 1005 for a Close without one.
    pub(super) fn close_codes(&self) -> Sides<Option<u16>> {
        let code = |from: Side| match self.directions[from].output {
            Output::PeerClosed(code) | Output::ProxyClosed(code) => Some(code),
            Output::Flowing | Output::Closing | Output::Cut => None,
        };
        Sides::new(code(Side::Upstream), code(Side::Downstream))
    }

    pub(super) fn frames(&self) -> Sides<u64> {
        Sides::new(self.directions[Side::Downstream].cursor.frames(), self.directions[Side::Upstream].cursor.frames())
    }

    pub(super) fn bytes(&self) -> Sides<u64> {
        Sides::new(self.directions[Side::Downstream].bytes, self.directions[Side::Upstream].bytes)
    }
}

impl Checkpoint {
    pub(super) fn into_relay(self) -> Relay {
        self.0
    }
}
