//! The open phase: two directions, and all the rules of how they close (product contract, section 3). Pure
//! facts and what follows from them; the session is its only user.
//!
//! A direction is named by the side that its bytes come from. What leaves in it:
//!
//! ```text
//!            peer's Close passes
//! Flowing ------------------------> Theirs --.
//!    |                                        \   FIN, when section 3 of the contract says so
//!    | proxy closes      boundary              \
//!    +-------> Owing -----------------> Ours ---+-> fin: No -> Asked -> Done
//!    |           | source ends inside a frame  /
//!    `-----------+--------------------> Cut ---'
//! ```

use super::close::Close;
use super::end::{Cause, Party};
use super::handshake::Extensions;
use super::interface::{Action, Admission, ReadInterest, RelayInput, Timeouts, Timer};
use super::relay::{Counts, Cursor, Mode, Relayed, Stop};
use super::{Millis, Side, Sides};

/// What a peer that sent more after its own Close still waits for the other side's.
const LATE_MS: Millis = 500;
/// Frames with this much left are read in smaller pieces: half the cost per byte (PERF.md).
const LONG_FRAME: u64 = 256 * 1024;
const LONG_FRAME_READ: usize = 32 * 1024;
/// Less payload than this is read faster than it is spliced (PERF.md).
const SPLICE_MIN: u64 = 16 * 1024;
/// Where a frame may begin that is to be spliced, no more is read than its header and what is small anyway.
const SPLICE_HEAD_READ: usize = 4 * 1024;

/// What leaves in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Flowing,
    /// Our Close leaves at the next frame boundary; until then the frame goes on.
    Owing(Close),
    /// The source's own Close has left, with this code.
    Theirs(u16),
    /// Our Close has left, with this code.
    Ours(u16),
    /// Nothing leaves any more, and no Close did.
    Cut,
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
    out: Out,
    /// The source will send no more.
    eof: bool,
    fin: Fin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    mode: Mode,
    upstream_loss_code: Option<u16>,
    /// Long payloads pass unseen.
    splice: bool,
    directions: Sides<Direction>,
    /// When the close deadline began to run.
    closing_since: Option<Millis>,
    /// Who sent more after its own Close, and when that began.
    late: Option<(Side, Millis)>,
}

/// All that an open session with nothing pending is, to go on elsewhere: on another worker, in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint(Open);

/// A cause that was found, for the session to weigh.
pub(super) type Found = Option<(Party, Cause)>;

impl Open {
    pub(super) fn new(admission: &Admission, extensions: Extensions) -> Open {
        let Admission { mode, upstream_loss_code, splice, .. } = *admission;
        let direction = |from| Direction {
            cursor: Cursor::new(from, extensions),
            bytes: 0,
            out: Out::Flowing,
            eof: false,
            fin: Fin::No,
        };
        let directions = Sides::new(direction(Side::Downstream), direction(Side::Upstream));
        Open { mode, upstream_loss_code, splice, directions, closing_since: None, late: None }
    }

    /// Whether nothing but messages has happened: the state in which a pair may travel.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        Side::BOTH.iter().all(|side| self.directions[*side].out == Out::Flowing && !self.directions[*side].eof)
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.is_calm().then(|| Checkpoint(self.clone()))
    }

    #[inline]
    pub(super) fn wants(&self, side: Side) -> ReadInterest {
        let direction = &self.directions[side];
        match direction.out {
            _ if direction.eof => ReadInterest::Nothing,
            Out::Flowing | Out::Owing(_) if self.splice => match direction.cursor.passable() {
                long @ SPLICE_MIN.. => ReadInterest::Payload(long),
                0 => ReadInterest::Bytes(SPLICE_HEAD_READ),
                _ => ReadInterest::Bytes(usize::MAX),
            },
            Out::Flowing | Out::Owing(_) if direction.cursor.passable() >= LONG_FRAME => {
                ReadInterest::Bytes(LONG_FRAME_READ)
            }
            Out::Flowing | Out::Owing(_) => ReadInterest::Bytes(usize::MAX),
            Out::Theirs(_) | Out::Ours(_) | Out::Cut => ReadInterest::Discard,
        }
    }

    #[inline(always)]
    pub(super) fn on_bytes(&mut self, from: Side, bytes: &[u8], given: RelayInput<'_>) -> (Relayed, Found) {
        let direction = &mut self.directions[from];
        if !matches!(direction.out, Out::Flowing | Out::Owing(_)) {
            // They came in one read with what closed this direction.
            self.on_discarded(from, given.now);
            return (Relayed::kept(bytes.len()), None);
        }
        let (mut taken, stop) = match self.mode {
            Mode::Opaque => (Relayed::forward(bytes.len()), None),
            Mode::Framed => {
                // Where our Close is owed nothing goes beyond the frame that is passing.
                let end = if direction.out == Out::Flowing { u64::MAX } else { direction.cursor.left().max(1) };
                let end = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
                direction.cursor.walk(bytes.get(..end).unwrap_or(bytes), given.rules, given.counts)
            }
        };
        let forwarded = (taken.lead.bytes().len() + taken.forward) as u64;
        direction.bytes += forwarded;
        given.counts.bytes += forwarded;
        let cause = stop.and_then(|stop| self.on_stop(from, stop));
        // Only a Close changes that in the middle of a read.
        taken.last = cause.is_some() && self.directions[from].fin == Fin::No && self.owes_fin(from);
        (taken, cause)
    }

    fn on_stop(&mut self, from: Side, stop: Stop) -> Found {
        match stop {
            Stop::Closed(code) => {
                // "Nothing is forwarded after our Close": a Close that was owed in this direction is not needed
                // any more, for the peer's own has left.
                self.directions[from].out = Out::Theirs(code);
                // An answer to a Close of ours is consumed by the discarding that `Ours` means; this one came first.
                Some((from.into(), Cause::Close))
            }
            Stop::Violation(cause) => Some(self.violated(from, cause)),
        }
    }

    /// The offender gets the code of the table, the other side 1001 with the same reason.
    fn violated(&mut self, by: Side, cause: Cause) -> (Party, Cause) {
        self.owe(by.other(), Close { code: cause.info().code, cause });
        self.owe(by, Close { code: 1001, cause });
        (by.into(), cause)
    }

    /// A Close of ours for the far end of the direction from `from`, unless one has left or is owed, or a FIN was asked.
    fn owe(&mut self, from: Side, close: Close) {
        let (mode, direction) = (self.mode, &mut self.directions[from]);
        if direction.out == Out::Flowing && direction.fin == Fin::No {
            // A tunnel knows no frame boundary: FIN is all that it can say.
            direction.out = if mode == Mode::Opaque { Out::Cut } else { Out::Owing(close) };
        }
    }

    /// The proxy closes both directions with the same Close.
    pub(super) fn close_both(&mut self, cause: Cause) -> (Party, Cause) {
        for side in Side::BOTH {
            self.owe(side, Close { code: cause.info().code, cause });
        }
        (Party::Proxy, cause)
    }

    pub(super) fn on_discarded(&mut self, from: Side, now: Millis) {
        let waits = matches!(self.directions[from.other()].out, Out::Flowing | Out::Owing(_));
        if matches!(self.directions[from].out, Out::Theirs(_)) && waits && self.late.is_none() {
            self.late = Some((from, now));
        }
    }

    /// No more bytes will come from `side`: its FIN, or `why` else.
    pub(super) fn on_eof(&mut self, side: Side, cause: Cause) -> Found {
        self.directions[side].eof = true;
        if self.directions[side].out != Out::Flowing {
            return None;
        }
        self.lost(side).or(Some((side.into(), cause)))
    }

    /// Where the route wants the loss of an upstream said by a Close, it is owed from now on.
    fn lost(&mut self, side: Side) -> Found {
        let told = side == Side::Upstream && self.mode == Mode::Framed && self.directions[side].out == Out::Flowing;
        let code = self.upstream_loss_code.filter(|_| told)?;
        self.owe(side, Close { code, cause: Cause::UpstreamLoss });
        self.cut(Side::Downstream);
        Some((side.into(), Cause::UpstreamLoss))
    }

    /// Nothing more leaves in the direction from `from`, and no Close of ours.
    fn cut(&mut self, from: Side) {
        let direction = &mut self.directions[from];
        if matches!(direction.out, Out::Flowing | Out::Owing(_)) {
            direction.out = Out::Cut;
        }
    }

    /// `side` can neither be read nor written any more. With the cause [`Cause::Reset`] the other side is to be reset as
    /// well; else it has had a Close, or gets one now, and ends as usual.
    pub(super) fn on_reset(&mut self, side: Side) -> Found {
        let closed = matches!(self.directions[side].out, Out::Theirs(_) | Out::Ours(_));
        let cause = self.lost(side).or((!closed).then_some((side.into(), Cause::Reset)));
        self.gone(side);
        cause
    }

    fn gone(&mut self, side: Side) {
        self.directions[side].eof = true;
        self.cut(side.other());
        self.directions[side.other()].fin = Fin::Done;
    }

    /// `side` takes nothing: it is given up, the other side gets a Close.
    pub(super) fn on_stalled(&mut self, side: Side, cause: Cause) -> (Party, Cause) {
        self.gone(side);
        self.owe(side, Close { code: cause.info().code, cause });
        (Party::Proxy, cause)
    }

    pub(super) fn on_urgent(&mut self, side: Side) -> (Party, Cause) {
        self.violated(side, Cause::UrgentData)
    }

    /// What waited for `to` has left. The close deadline begins when the last of it has.
    pub(super) fn on_flushed(&mut self, to: Side, now: Millis) {
        if self.closing_since.is_some() && self.is_closed_toward(to) {
            self.closing_since = Some(now);
        }
    }

    pub(super) fn is_closed_toward(&self, to: Side) -> bool {
        let direction = &self.directions[to.other()];
        direction.eof || !matches!(direction.out, Out::Flowing | Out::Owing(_))
    }

    /// The FIN toward `to` has left.
    pub(super) fn on_finished(&mut self, to: Side) {
        self.directions[to.other()].fin = Fin::Done;
    }

    /// The next thing to do; `None` when all is said.
    #[inline]
    pub(super) fn poll_action(&mut self, now: Millis) -> Option<Action> {
        if self.is_calm() {
            return None;
        }
        self.note_closing(now);
        Side::BOTH.into_iter().find_map(|from| self.poll_direction(from))
    }

    fn note_closing(&mut self, now: Millis) {
        let closing = |side: &Side| self.directions[*side].out != Out::Flowing;
        let both_ended = Side::BOTH.iter().all(|side| self.directions[*side].eof);
        if self.closing_since.is_none() && (both_ended || Side::BOTH.iter().any(closing)) {
            self.closing_since = Some(now);
        }
    }

    fn poll_direction(&mut self, from: Side) -> Option<Action> {
        let direction = &mut self.directions[from];
        if let Out::Owing(close) = direction.out {
            if direction.cursor.at_boundary() && direction.fin == Fin::No {
                direction.out = Out::Ours(close.code);
                return Some(Action::Inject(from.other(), close));
            }
            if direction.eof {
                direction.out = Out::Cut;
            }
        }
        if self.directions[from].fin == Fin::No && self.owes_fin(from) {
            self.directions[from].fin = Fin::Asked;
            return Some(Action::HalfClose(from.other()));
        }
        None
    }

    fn owes_fin(&self, from: Side) -> bool {
        let (direction, back) = (&self.directions[from], &self.directions[from.other()]);
        match direction.out {
            Out::Flowing => direction.eof,
            Out::Owing(_) => false,
            Out::Ours(_) | Out::Cut => true,
            // Both Closes have passed. We are the client's server: "the server MUST close the connection first";
            // toward the upstream we are the client and wait for its FIN (RFC 6455 section 7.1.1).
            Out::Theirs(_) if !matches!(back.out, Out::Flowing | Out::Owing(_)) => from == Side::Upstream || back.eof,
            Out::Theirs(_) => direction.eof,
        }
    }

    /// Both peers have ended and both were told.
    pub(super) fn is_over(&self) -> bool {
        Side::BOTH.iter().all(|side| self.is_done_with(*side))
    }

    /// `side` has ended, and what was for it has left with a FIN behind it.
    pub(super) fn is_done_with(&self, side: Side) -> bool {
        self.directions[side].eof && self.directions[side.other()].fin == Fin::Done
    }

    pub(super) fn deadline(&self, timeouts: &Timeouts, last_seen: Millis) -> Option<(Millis, Timer)> {
        if let Some(since) = self.closing_since {
            let close = (since + timeouts.close_ms, Timer::Close);
            let late = self.late_waits().map(|since| (since + LATE_MS, Timer::DataAfterClose));
            return Some(late.map_or(close, |late| late.min(close)));
        }
        (timeouts.idle_ms > 0).then(|| (last_seen + timeouts.idle_ms, Timer::Idle))
    }

    /// Since when a Close of ours would be owed for data after a Close; only while one can still be sent.
    fn late_waits(&self) -> Option<Millis> {
        let answer = |side: Side| &self.directions[side.other()];
        let waits = |(side, _): &(Side, Millis)| answer(*side).out == Out::Flowing && answer(*side).fin == Fin::No;
        self.late.filter(waits).map(|(_, since)| since)
    }

    pub(super) fn on_late(&mut self) -> Found {
        let (side, _) = self.late?;
        let cause = Cause::DataAfterClose;
        self.owe(side.other(), Close { code: cause.info().code, cause });
        Some((side.into(), cause))
    }

    pub(super) fn passable(&self, side: Side) -> u64 {
        let direction = &self.directions[side];
        match (direction.out, self.mode) {
            (Out::Flowing, Mode::Opaque) if !direction.eof => u64::MAX,
            (Out::Flowing | Out::Owing(_), Mode::Framed) if !direction.eof => direction.cursor.passable(),
            _ => 0,
        }
    }

    pub(super) fn on_passed(&mut self, side: Side, n: u64, counts: &mut Counts) {
        let direction = &mut self.directions[side];
        if self.mode == Mode::Framed {
            direction.cursor.on_passed(n);
        }
        direction.bytes += n;
        counts.bytes += n;
    }

    /// The code that left toward each side; 1005 for a Close without one.
    pub(super) fn close_codes(&self) -> Sides<Option<u16>> {
        let code = |from: Side| match self.directions[from].out {
            Out::Theirs(code) | Out::Ours(code) => Some(code),
            _ => None,
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
    pub(super) fn into_open(self) -> Open {
        self.0
    }
}
