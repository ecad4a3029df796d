//! The heartbeat: pings of ours on a leg on which nothing is heard, their pongs, and what becomes
//! of a peer from which nothing comes any more (docs/src/behaviour.md, "The heartbeat").
//!
//! A leg is alive when any byte comes from it. A ping is due when none has come for its interval;
//! when still none has come within the timeout after the ping left, the peer is dead. Nothing is
//! judged while its answer could not get through: the worker does not report this timer while a
//! receiver has a backlog, and a paused side, or a session that is closing, has no deadline here.

use super::budget::Budget;
use super::slice::{RelayInput, RoundTrips};
use super::{Direction, Fin, Output, OwnFrame, Relay};
use crate::proto::close::Close;
use crate::proto::end::{Cause, Party};
use crate::proto::frame::opcode;
use crate::proto::settings::{Mode, RelaySettings};
use crate::proto::{Millis, Side, Sides};

/// Payload bytes of a ping of ours. With this length an incomplete pong, masked, is no longer than
/// the longest incomplete header: what is held back until it can be judged takes no more memory.
pub const PING_BYTES: usize = 8;
/// How long a peer still has when the timeout has passed: a tick of the worker. Timers run before
/// what has arrived is read; a process that was stopped for a while must read it first.
const LAST_LOOK_MS: Millis = 100;

/// Pings of ours to one peer, by which its pongs to them are told from all others: their payload is
/// the tag and the number of the ping, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct OwnPings {
    /// Random; not the same on both legs.
    tag: u32,
    /// How many have left.
    sent: u32,
}

impl OwnPings {
    /// The number of the ping that a pong with this payload answers, if it is one of these.
    fn answered(self, payload: [u8; PING_BYTES]) -> Option<u32> {
        let [t0, t1, t2, t3, n0, n1, n2, n3] = payload;
        let (tag, number) = (u32::from_be_bytes([t0, t1, t2, t3]), u32::from_be_bytes([n0, n1, n2, n3]));
        (tag == self.tag && (1..=self.sent).contains(&number)).then_some(number)
    }

    /// The payload of the next one.
    fn next(self) -> [u8; PING_BYTES] {
        let mut payload = [0; PING_BYTES];
        let (tag, number) = payload.split_at_mut(PING_BYTES / 2);
        tag.copy_from_slice(&self.tag.to_be_bytes());
        number.copy_from_slice(&(self.sent.saturating_add(1)).to_be_bytes());
        payload
    }
}

/// What a relay remembers of its heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Legs(Sides<Leg>);

/// What a heartbeat adds to the memory of a session.
pub const HEARTBEAT_BYTES: usize = size_of::<Legs>();

/// One leg. What it waits for follows from these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leg {
    pings: OwnPings,
    /// When a byte last came from the peer, or its socket last took some of a backlog.
    heard_at: Millis,
    /// When the last ping left.
    sent_at: Millis,
    /// Since when an answer to it could have come; 0 before the first ping.
    asked_at: Millis,
    /// A ping waits for a frame boundary.
    queued: bool,
    /// The last ping to which a pong has come; 0 before that.
    answered: u32,
    /// Nothing but a ping has gone to the peer since it last had no backlog.
    alone: bool,
    /// The timeout has passed. What has arrived by now is read before the peer is given up.
    overdue: bool,
}

/// What a pong is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pong {
    /// To a ping of ours. So many come at most as pings were sent.
    Answer,
    /// To a ping of ours that has been answered before, or skipped. A peer may send any number.
    Repeated,
    Theirs,
}

/// What is due on a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Ping,
    LastLook,
    Death,
}

impl Legs {
    /// Where the route has a heartbeat.
    pub(super) fn new(settings: &RelaySettings, random: u64, now: Millis) -> Option<Box<Legs>> {
        if settings.heartbeat.is_none() || settings.mode != Mode::Framed {
            return None;
        }
        let [low, high] = [random as u32, (random >> 32) as u32];
        let leg = |tag| Leg {
            pings: OwnPings { tag, sent: 0 },
            heard_at: now,
            sent_at: 0,
            asked_at: 0,
            queued: false,
            answered: 0,
            alone: false,
            overdue: false,
        };
        Some(Box::new(Legs(Sides::new(leg(low), leg(if low == high { !high } else { high })))))
    }

    /// Something came from `side`.
    #[inline]
    pub(super) fn on_heard(&mut self, side: Side, now: Millis) {
        let leg = &mut self.0[side];
        (leg.heard_at, leg.overdue) = (now, false);
    }

    /// Bytes of the other peer go toward `side`.
    #[inline]
    pub(super) fn on_forwarded(&mut self, side: Side) {
        self.0[side].alone = false;
    }

    /// `side` took some of its backlog. That is a sign of life, unless it was nothing but a ping:
    /// whether it was more.
    pub(super) fn on_taken(&mut self, side: Side, now: Millis) -> bool {
        let more = !self.0[side].alone;
        if more {
            self.on_heard(side, now);
        }
        more
    }

    /// A pong came from `side`. The time since its ping counts, if that was the last one.
    fn on_pong(&mut self, side: Side, payload: [u8; PING_BYTES], now: Millis, trips: &mut RoundTrips) -> Pong {
        let leg = &mut self.0[side];
        let Some(number) = leg.pings.answered(payload) else { return Pong::Theirs };
        // "the endpoint MAY elect to send a Pong frame for only the most recently processed Ping
        // frame" (RFC 6455 section 5.5.3): those before it are answered, too.
        if number <= leg.answered {
            return Pong::Repeated;
        }
        leg.answered = number;
        // The time of an earlier ping is not known any more.
        if number == leg.pings.sent {
            trips.add(now.saturating_sub(leg.sent_at));
        }
        Pong::Answer
    }

    /// A frame of ours leaves toward `side`. Whether it is a ping of the heartbeat.
    pub(super) fn on_sent(&mut self, side: Side, frame: &OwnFrame, now: Millis) -> bool {
        let leg = &mut self.0[side];
        if *frame != OwnFrame::Ping(leg.pings.next()) {
            return false;
        }
        leg.pings.sent = leg.pings.sent.saturating_add(1);
        (leg.sent_at, leg.asked_at) = (now, now);
        (leg.queued, leg.overdue) = (false, false);
        true
    }

    /// The backlog toward `side` has left, and a ping with it. The other side is read again.
    pub(super) fn on_flushed(&mut self, side: Side, now: Millis) {
        let leg = &mut self.0[side];
        if leg.heard_at < leg.asked_at {
            leg.asked_at = now;
        }
        leg.overdue = false;
        self.on_read_again(side.other());
    }

    /// `side` was not read for a while: what it has sent meanwhile is read before it is given up.
    pub(super) fn on_read_again(&mut self, side: Side) {
        self.0[side].overdue = false;
    }
}

impl Leg {
    /// When something is due, and what. `None` while a ping waits for a frame boundary.
    fn next(&self, interval: Millis, timeout: Millis) -> Option<(Millis, Due)> {
        if self.queued || interval == 0 {
            None
        } else if self.heard_at >= self.asked_at {
            Some((self.heard_at + interval - self.jitter(interval, timeout), Due::Ping))
        } else if self.overdue {
            Some((self.asked_at + timeout + LAST_LOOK_MS, Due::Death))
        } else {
            Some((self.asked_at + timeout, Due::LastLook))
        }
    }

    /// How much earlier than its interval a ping is due: the first one by up to half of it, the
    /// others by up to an eighth, so that sessions that were opened together do not ping together.
    /// Never by so much that an answer moves the next deadline closer: the worker looks for those
    /// only after other things than messages.
    fn jitter(&self, interval: Millis, timeout: Millis) -> Millis {
        let most = match self.pings.sent {
            0 => interval / 2,
            _ => (interval / 8).min(interval.saturating_sub(timeout)),
        };
        // Fibonacci hashing: the tag is random, the number only has to change the result.
        let mixed = (self.pings.tag ^ self.pings.sent.rotate_left(16)).wrapping_mul(0x9e37_79b9);
        (u64::from(mixed) * (most + 1)) >> 32
    }
}

impl Direction {
    /// The cursor holds a pong of `from`. One to a ping of ours goes no further; another one is
    /// forwarded, where `budget` has room for it.
    #[cold]
    pub(super) fn on_pong<B: Budget>(
        &mut self,
        from: Side,
        legs: Option<&mut Legs>,
        input: RelayInput<'_>,
        budget: &mut B,
    ) -> Result<(), Cause> {
        let counts = &mut input.counts[from];
        let pong = match (legs, self.cursor.pong()) {
            (Some(legs), Some(payload)) => legs.on_pong(from, payload, input.now, &mut counts.round_trips),
            _ => Pong::Theirs,
        };
        let room = if pong == Pong::Answer { Ok(()) } else { budget.admit(opcode::PONG) };
        if pong == Pong::Theirs && room.is_ok() {
            let forwarded = self.cursor.pass_pong(counts, input.authored);
            self.bytes += forwarded;
            counts.bytes += forwarded;
        } else {
            self.cursor.drop_pong();
        }
        room
    }
}

impl Relay {
    /// When the heartbeat is to be looked at.
    #[inline]
    pub(super) fn heartbeat_at(&self, legs: &Legs, settings: &RelaySettings) -> Option<Millis> {
        let rules = settings.heartbeat.as_ref()?;
        // A peer that has sent its FIN cannot answer, and toward one that has had ours no ping can
        // be sent.
        let open = self.directions.0.iter().all(|one| one.output == Output::Flowing && !one.eof && one.fin == Fin::No);
        let read = Side::BOTH.into_iter().filter(|side| open && !self.is_paused(*side));
        let due = read.filter_map(|side| legs.0[side].next(rules.interval_ms[side], rules.timeout_ms));
        due.map(|(at, _)| at).min()
    }

    /// The time that [`Relay::heartbeat_at`] named has come. The peer that is dead, if one is.
    pub(in crate::proto) fn on_heartbeat(
        &mut self,
        now: Millis,
        settings: &RelaySettings,
    ) -> Option<(Side, (Party, Cause))> {
        let rules = settings.heartbeat.as_ref()?;
        for side in Side::BOTH {
            if self.is_paused(side) {
                continue;
            }
            let leg = &mut self.heartbeat.as_mut()?.0[side];
            let next = leg.next(rules.interval_ms[side], rules.timeout_ms);
            match next.filter(|(at, _)| *at <= now).map(|(_, due)| due) {
                None => {}
                Some(Due::LastLook) => leg.overdue = true,
                Some(Due::Death) => return Some((side, self.on_dead(side, settings))),
                Some(Due::Ping) => {
                    let ping = OwnFrame::Ping(leg.pings.next());
                    // There is no backlog now: this timer would not have been reported.
                    (leg.queued, leg.alone) = (true, self.directions[side.other()].cursor.at_boundary());
                    if !self.send_toward(side, ping, settings.mode) {
                        // Nothing can be sent there any more: the session is closing.
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Nothing comes from `side` any more: it is given up. The other side gets a Close: an upstream
    /// 1001, a client what it gets when its upstream is lost, where the route says that.
    fn on_dead(&mut self, side: Side, settings: &RelaySettings) -> (Party, Cause) {
        let cause = Cause::HeartbeatTimeout;
        let usual = cause.info().code;
        let code = match side {
            Side::Downstream => usual,
            Side::Upstream => settings.upstream_loss_code.unwrap_or(usual),
        };
        self.give_up(side);
        self.close_toward(side.other(), Close { code, cause }, settings.mode);
        (side.into(), cause)
    }
}
