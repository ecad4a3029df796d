//! The limits of an established session: messages, bytes and control frames in a time, fragments
//! of a message, age. Decides when a direction is read again and what is exceeded; `mod.rs` closes.
//! A session without such limits has no limiter.
//!
//! What has been read is taken out of the direction's buckets ([`Bucket`]). Then:
//!
//! - A bucket that *closes* is exceeded by the first message or control frame that it has no room
//!   for: its header is not forwarded. Bytes are seen only once they are read: the first byte too
//!   many closes, and its frame goes on to its end, as before any Close of ours.
//! - A bucket that *pauses* stops the reading; TCP stops the sender. No read is larger than what
//!   its messages cannot exceed the bucket with ([`Throttle::read_max`]), whatever they are: the
//!   excess shows by the first byte of one message too many, which is held back like any
//!   incomplete header. Of bytes one more is read than may pass. TLS delivers whole records, and a
//!   bucket may be shared: what is read beyond its room is forwarded all the same, and owed.
//!
//! # Buckets that are shared
//!
//! A session has buckets of its own for the limits of its route. In [`Admission::limits`] policy
//! may hand it up to [`SHARED_MAX`] more, for what its client sends: those of its address, its
//! identity or its key, which other sessions have, too. They count beside its own, and each does to
//! the session that finds it empty what its [`OnExcess`] says.
//!
//! - One that closes by messages is asked message by message, and gives each its room or refuses
//!   it: never more pass than it has, however many sessions on however many workers share it.
//! - What others have left is looked at before each read ([`Throttle::read_max_now`]). What workers
//!   read in the same moment may together exceed the room; it is owed, and all of them wait.
//! - A pause ends when the bucket has room, not before: what other sessions have taken meanwhile
//!   makes it longer.
//!
//! [`Admission::limits`]: crate::proto::interface::Admission::limits

use super::budget::{Budget, Unlimited};
use super::cursor::{Cursor, Stop};
use super::intercept::{Intercept, Intercepted};
use super::slice::{Counts, RelayInput, Relayed};
use super::{Direction, Found, Noticed, Output, Relay};
use crate::proto::close::Close;
use crate::proto::end::{Cause, Party};
use crate::proto::frame::opcode;
use crate::proto::rate::{Bucket, Measure, OnExcess, RateLimit};
use crate::proto::settings::{GOING_AWAY, Mode, RelaySettings};
use crate::proto::{Millis, Side, Sides};
use std::sync::Arc;

/// Buckets that a session may share with others.
pub const SHARED_MAX: usize = 6;
/// An excess is over when its sender has not been paused for so long; one that goes on pauses it
/// again within a tick of the worker's timers (100 ms).
const CALM_MS: Millis = 1_000;

/// Sessions that share a bucket ask up to so much later than it has room, each at a moment of its
/// own: none of them is always the first.
const TURNS_MS: Millis = 200;

/// User memory of the limits of a session at most, beside the buckets of its own: the buckets of a
/// direction are a list.
pub const LIMITER_SIZE: usize = size_of::<Limiter>() + (2 * Measure::COUNT + SHARED_MAX) * size_of::<usize>();

/// What an admission adds to the limits of the route.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// At most [`SHARED_MAX`]; more are left out.
    pub shared: Vec<Arc<Bucket>>,
    /// Random: spreads the ends and the pings of sessions that began together, and marks the pings.
    pub random: u64,
}

/// The limits of a session, and how far they are used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limiter {
    throttles: Sides<Throttle>,
    /// When its age ends it; `Millis::MAX` for never.
    pub ends_at: Millis,
}

/// The limits of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Throttle {
    /// Takes messages out of what is read. Here because a session without limits that has none asks
    /// nothing more.
    pub intercept: Option<Box<Intercept>>,
    buckets: Box<[Arc<Bucket>]>,
    /// What could still pass, by measure, when it was last looked at.
    left: [u64; Measure::COUNT],
    fragments_max: u32,
    /// Fragments of the message under way.
    fragments: u32,
    /// The bucket of the last pause, or of the last refusal.
    by: u8,
    /// From this one on buckets are shared: other sessions may have taken something since.
    shared_from: u8,
    /// A shared bucket closes by messages: it is asked for each.
    asks_by_message: bool,
    /// Changes with each turn among those that share a bucket; never 0.
    turn: u32,
    /// A message that has no room closes the session.
    closes_by_messages: bool,
    /// A message that has no room pauses reading.
    pauses_by_messages: bool,
    paused: bool,
    /// When the pause ends, or when the last one did.
    until: Millis,
    /// When the excess began.
    since: Millis,
}

/// Where a direction stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand<'a> {
    pub cursor: &'a Cursor,
    /// Not closing: whatever is read is forwarded, not just the frame under way.
    pub flowing: bool,
}

/// What one read held, by measure.
pub(super) type Used = [u64; Measure::COUNT];

impl Limiter {
    /// `None` where there is no limit.
    pub fn new(settings: &RelaySettings, more: SessionLimits, opened_at: Millis) -> Option<Box<Limiter>> {
        let (limits, SessionLimits { mut shared, random }) = (&settings.flow, more);
        // Of a tunnel nothing but bytes is known.
        shared.retain(|bucket| settings.mode == Mode::Framed || bucket.limit().measure == Measure::Bytes);
        let ends_at = limits.age.map_or(Millis::MAX, |age| opened_at + age.of_session(random));
        let throttle = |from: Side, shared: &[Arc<Bucket>]| {
            let own = limits.rates[from].iter().map(|limit| Arc::new(Bucket::new(*limit, opened_at)));
            let buckets = own.chain(shared.iter().take(SHARED_MAX).cloned()).collect();
            let turn = random as u32 | 1;
            let intercept = settings.refresh.as_ref().filter(|_| from == Side::Downstream).map(Intercept::new);
            let throttle = Throttle::new(buckets, limits.rates[from].len(), limits.fragments, opened_at);
            Throttle { turn, intercept, ..throttle }
        };
        let throttles = Sides::new(throttle(Side::Downstream, &shared), throttle(Side::Upstream, &[]));
        let unlimited = |throttle: &Throttle| {
            throttle.buckets.is_empty() && throttle.fragments_max == u32::MAX && throttle.intercept.is_none()
        };
        let none = throttles.0.iter().all(unlimited) && ends_at == Millis::MAX;
        (!none).then(|| Box::new(Limiter { throttles, ends_at }))
    }

    #[inline]
    pub fn throttle(&self, from: Side) -> &Throttle {
        &self.throttles[from]
    }

    #[inline]
    pub fn throttle_mut(&mut self, from: Side) -> &mut Throttle {
        &mut self.throttles[from]
    }

    #[inline]
    pub fn is_paused(&self) -> bool {
        self.throttles.0.iter().any(Throttle::is_paused)
    }

    /// When [`Throttle::on_time`] is to be called next.
    pub fn next_at(&self) -> Option<Millis> {
        self.throttles.0.iter().filter_map(Throttle::next_at).min()
    }

    /// Until when reading is paused, if it is: a session that we do not read is not idle.
    pub fn paused_until(&self) -> Option<Millis> {
        self.throttles.0.iter().filter(|throttle| throttle.paused).map(|throttle| throttle.until).max()
    }
}

impl Throttle {
    /// Those from `own` on are shared.
    fn new(buckets: Box<[Arc<Bucket>]>, own: usize, fragments_max: u32, now: Millis) -> Throttle {
        let has = |closes: bool| {
            let of_messages = buckets.iter().map(|bucket| bucket.limit()).filter(|l| l.measure == Measure::Messages);
            of_messages.into_iter().any(|limit| (limit.on_excess == OnExcess::Close) == closes)
        };
        let (closes_by_messages, pauses_by_messages) = (has(true), has(false));
        let asks_by_message = buckets.iter().skip(own).any(|bucket| closes_by(bucket.limit(), Measure::Messages));
        let mut throttle = Throttle {
            intercept: None,
            buckets,
            left: [u64::MAX; Measure::COUNT],
            fragments_max,
            fragments: 0,
            by: 0,
            shared_from: own as u8,
            asks_by_message,
            turn: 1,
            closes_by_messages,
            pauses_by_messages,
            paused: false,
            until: 0,
            since: 0,
        };
        throttle.refresh(now);
        throttle
    }

    #[inline]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The largest read after which the buckets that pause are not exceeded, or only by the byte
    /// that shows it; 0 while reading is paused.
    #[inline]
    pub fn read_max(&self, at: Stand<'_>) -> u64 {
        self.read_max_of(at, &self.left)
    }

    /// The same by what other sessions have left now.
    pub fn read_max_now(&self, at: Stand<'_>, now: Millis) -> u64 {
        self.read_max_of(at, &self.left_at(now))
    }

    pub fn is_shared(&self) -> bool {
        usize::from(self.shared_from) < self.buckets.len()
    }

    #[inline]
    fn read_max_of(&self, at: Stand<'_>, left: &Used) -> u64 {
        let bytes = left[Measure::Bytes as usize].saturating_add(1);
        if !at.flowing {
            // Only the frame under way is still read: no message begins.
            let paused = self.paused && self.measure_of_pause() == Some(Measure::Bytes);
            return if paused { 0 } else { bytes };
        }
        if self.paused {
            return 0;
        }
        if !self.pauses_by_messages {
            return bytes;
        }
        // One byte less than it takes to complete the header of a message too many.
        let (header, cursor) = (at.cursor.header_min(), at.cursor);
        let headers = left[Measure::Messages as usize].saturating_mul(header).saturating_add(header - 1);
        let (ahead, held) = match &self.intercept {
            None => (cursor.left(), cursor.held()),
            Some(one) => (cursor.left() + one.left(), cursor.held() + one.held()),
        };
        let messages = ahead.saturating_add(headers).saturating_sub(held as u64).max(1);
        messages.min(bytes)
    }

    fn measure_of_pause(&self) -> Option<Measure> {
        self.buckets.get(usize::from(self.by)).map(|bucket| bucket.limit().measure)
    }

    /// Takes what was read out of the buckets. The one that is in debt, and until when that
    /// pauses reading.
    #[inline]
    fn take(&mut self, used: Used, now: Millis) -> Option<(usize, Millis)> {
        let (mut left, mut debt) = ([u64::MAX; Measure::COUNT], None);
        for (at, bucket) in self.buckets.iter().enumerate() {
            let measure = bucket.limit().measure as usize;
            // Most reads have no control frame: what was left of those is left.
            if used[measure] == 0 || self.is_asked_by_message(at, bucket) {
                continue;
            }
            let level = bucket.take(used[measure], now);
            left[measure] = left[measure].min(bucket.left(level));
            if bucket.is_in_debt(level) {
                debt = later(debt, at, bucket.resume_at(level, now));
            }
        }
        for (known, (left, used)) in self.left.iter_mut().zip(left.into_iter().zip(used)) {
            if used > 0 {
                *known = left;
            }
        }
        debt
    }

    /// Looks at what is left now.
    fn refresh(&mut self, now: Millis) {
        self.left = self.left_at(now);
    }

    fn left_at(&self, now: Millis) -> Used {
        let mut all = [u64::MAX; Measure::COUNT];
        for bucket in &self.buckets {
            let left = &mut all[bucket.limit().measure as usize];
            *left = (*left).min(bucket.left(bucket.level(now)));
        }
        all
    }

    /// It has given each message its room already.
    #[inline]
    fn is_asked_by_message(&self, at: usize, bucket: &Bucket) -> bool {
        self.asks_by_message && at >= usize::from(self.shared_from) && closes_by(bucket.limit(), Measure::Messages)
    }

    /// `used` was read. The Close for its sender, if one is to follow.
    #[inline]
    pub fn on_read(&mut self, used: Used, at: Stand<'_>, counts: &mut Counts, now: Millis) -> Option<Close> {
        let debt = self.take(used, now);
        let holds = || at.cursor.holds_message() || self.intercept.as_ref().is_some_and(|one| one.held() > 0);
        let waits = self.left[Measure::Messages as usize] == 0 && self.pauses_by_messages && holds();
        if debt.is_none() && !waits {
            return None;
        }
        let debt = if waits { self.empty(Some(Measure::Messages), debt, now) } else { debt };
        let was_paused = self.paused;
        let excess = self.on_debt(debt?, at.flowing, now);
        counts.pauses += u64::from(self.paused && !was_paused);
        excess
    }

    /// The bucket that pauses and has no room, of this measure or any; and until when.
    #[inline(never)]
    fn empty(&self, of: Option<Measure>, mut debt: Option<(usize, Millis)>, now: Millis) -> Option<(usize, Millis)> {
        for (at, bucket) in self.buckets.iter().enumerate() {
            let (limit, level) = (bucket.limit(), bucket.level(now));
            let pauses = of.is_none_or(|of| limit.measure == of) && limit.on_excess != OnExcess::Close;
            if pauses && bucket.left(level) == 0 {
                debt = later(debt, at, bucket.resume_at(level, now));
            }
        }
        debt
    }

    #[inline(never)]
    fn on_debt(&mut self, (at, until): (usize, Millis), flowing: bool, now: Millis) -> Option<Close> {
        let until = until + self.wait_for_turn(at);
        let limit = *self.buckets.get(at)?.limit();
        match limit.on_excess {
            // Those have been judged one by one: what went beyond was taken by another session.
            OnExcess::Close if limit.measure != Measure::Bytes => return None,
            OnExcess::Close if flowing => {
                self.by = at as u8;
                return self.close();
            }
            OnExcess::Close | OnExcess::Pause | OnExcess::PauseThenClose { .. } => {}
        }
        if now >= self.until.saturating_add(CALM_MS) || self.until == 0 {
            self.since = now;
        }
        (self.by, self.until, self.paused) = (at as u8, until, true);
        self.outlasts_patience(now).filter(|_| flowing)
    }

    /// How much later a session asks than the shared bucket has room.
    fn wait_for_turn(&mut self, at: usize) -> Millis {
        let bucket = self.buckets.get(at).filter(|_| at >= usize::from(self.shared_from));
        let most = bucket.map_or(0, |bucket| bucket.spare_ms()).min(TURNS_MS);
        if most > 0 {
            // Xorshift (Marsaglia 2003): whom it favours does not matter.
            self.turn ^= self.turn << 13;
            self.turn ^= self.turn >> 17;
            self.turn ^= self.turn << 5;
        }
        u64::from(self.turn) % (most + 1)
    }

    /// The time that [`Throttle::on_time`] waits for.
    fn next_at(&self) -> Option<Millis> {
        let patience = self.patience_ends_at().unwrap_or(Millis::MAX);
        self.paused.then_some(self.until.min(patience))
    }

    /// A pause may be over, or may have lasted too long.
    pub fn on_time(&mut self, flowing: bool, now: Millis) -> Option<Close> {
        let excess = self.outlasts_patience(now).filter(|_| flowing);
        if !flowing {
            // It is closing already: no patience ends any more.
            self.since = Millis::MAX;
        }
        if self.paused && (self.until <= now || excess.is_some()) {
            // Other sessions may have taken what this one has waited for.
            let again = self.empty(None, None, now).filter(|_| self.is_shared() && flowing && excess.is_none());
            match again {
                Some((at, until)) => (self.by, self.until) = (at as u8, until + self.wait_for_turn(at)),
                None => self.paused = false,
            }
            self.refresh(now);
        }
        excess
    }

    fn outlasts_patience(&self, now: Millis) -> Option<Close> {
        let outlasted = self.paused && self.patience_ends_at().is_some_and(|at| at <= now);
        if outlasted { self.close() } else { None }
    }

    fn patience_ends_at(&self) -> Option<Millis> {
        match self.buckets.get(usize::from(self.by))?.limit().on_excess {
            OnExcess::PauseThenClose { patience_ms } => Some(self.since.saturating_add(patience_ms)),
            OnExcess::Close | OnExcess::Pause => None,
        }
    }

    /// By the bucket of the last pause or refusal.
    fn close(&self) -> Option<Close> {
        let limit = self.buckets.get(usize::from(self.by))?.limit();
        Some(Close { code: limit.close_code, cause: limit.measure.cause() })
    }

    /// The close code for a frame that was refused with `cause`.
    pub fn close_code(&self, cause: Cause) -> u16 {
        let refused = self.close().filter(|close| close.cause == cause);
        refused.map_or(cause.info().code, |close| close.code)
    }

    /// Judges one more unit, after `used` of them that have not been taken out yet, by the buckets
    /// that close at once.
    fn admit(&mut self, measure: Measure, used: u64, now: Millis) -> Result<(), Cause> {
        for (at, bucket) in self.buckets.iter().enumerate() {
            if !closes_by(bucket.limit(), measure) {
                continue;
            }
            let has_room = match self.is_asked_by_message(at, bucket) {
                true => bucket.pass(now).is_ok(),
                false => bucket.left(bucket.level(now)) > used,
            };
            if !has_room {
                self.by = at as u8;
                return Err(measure.cause());
            }
        }
        Ok(())
    }
}

fn closes_by(limit: &RateLimit, measure: Measure) -> bool {
    limit.measure == measure && limit.on_excess == OnExcess::Close
}

/// The debt that lasts longer.
fn later(debt: Option<(usize, Millis)>, at: usize, until: Millis) -> Option<(usize, Millis)> {
    debt.filter(|(_, other)| *other >= until).or(Some((at, until)))
}

impl Relay {
    /// [`Relay::on_bytes`] in a session with limits.
    #[inline(never)]
    pub(super) fn on_limited_bytes(
        &mut self,
        from: Side,
        bytes: &[u8],
        settings: &RelaySettings,
        mut input: RelayInput<'_>,
    ) -> (Relayed, Option<Noticed>) {
        let RelayInput { now, counts, authored } = input.reborrow();
        let direction = &mut self.directions[from];
        let Some(limiter) = &mut self.limiter else { return (Relayed::consume(bytes.len()), None) };
        let throttle = limiter.throttle_mut(from);
        let mut budget = ReadBudget::new(throttle, now);
        let (relayed, mut stop) = direction.advance_limited(bytes, settings, &mut counts[from], authored, &mut budget);
        if stop == Some(Stop::Pong) {
            let judged = direction.on_pong(from, self.heartbeat.as_deref_mut(), input.reborrow(), &mut budget);
            stop = judged.err().map(Stop::Violation);
        }
        let used = [budget.messages, relayed.consumed as u64, budget.control_frames];
        let taken = throttle.intercept.as_ref().is_some_and(|one| one.has_taken());
        let close = throttle.on_read(used, direction.stand(), &mut input.counts[from], now);
        let found = match stop {
            Some(stop) => self.on_stop(from, stop, settings),
            None => close.map(|close| self.offended(from, close, settings)),
        };
        (relayed, found.map(Noticed::from).or(taken.then_some(Noticed::Taken)))
    }

    /// It is not read, because of a limit.
    pub(super) fn is_paused(&self, side: Side) -> bool {
        self.limiter.as_ref().is_some_and(|limiter| limiter.throttle(side).is_paused())
    }

    /// A pause may be over, or have lasted too long.
    pub(in crate::proto) fn on_resume(&mut self, settings: &RelaySettings, now: Millis) -> Found {
        let mut found = None;
        for side in Side::BOTH {
            let (flowing, paused) = (self.directions[side].output == Output::Flowing, self.is_paused(side));
            let close = self.limiter.as_mut().and_then(|limiter| limiter.throttle_mut(side).on_time(flowing, now));
            if let Some(legs) = self.heartbeat.as_mut().filter(|_| paused) {
                legs.on_read_again(side);
            }
            if let Some(close) = close {
                let closed = self.offended(side, close, settings);
                found = found.or(Some(closed));
            }
        }
        found
    }

    /// The session has reached its age: both sides learn it.
    pub(in crate::proto) fn on_age(&mut self, settings: &RelaySettings) -> (Party, Cause) {
        let cause = Cause::SessionAge;
        if let Some(limiter) = &mut self.limiter {
            limiter.ends_at = Millis::MAX;
        }
        let code = settings.flow.age.map_or(GOING_AWAY, |age| age.close_code);
        self.close_toward(Side::Downstream, Close { code, cause }, settings.mode);
        self.close_toward(Side::Upstream, Close { code: GOING_AWAY, cause }, settings.mode);
        (Party::Proxy, cause)
    }
}

/// For one read of a direction with limits.
pub(super) struct ReadBudget<'a> {
    throttle: &'a mut Throttle,
    now: Millis,
    pub messages: u64,
    pub control_frames: u64,
}

impl ReadBudget<'_> {
    pub fn new(throttle: &mut Throttle, now: Millis) -> ReadBudget<'_> {
        if throttle.is_shared() {
            throttle.refresh(now);
        }
        ReadBudget { throttle, now, messages: 0, control_frames: 0 }
    }

    pub fn intercept(&mut self) -> &mut Option<Box<Intercept>> {
        &mut self.throttle.intercept
    }
}

impl Budget for ReadBudget<'_> {
    const LIMITS: bool = true;

    #[inline]
    fn free_messages(&self) -> u64 {
        if !self.throttle.closes_by_messages {
            return u64::MAX;
        }
        if self.throttle.asks_by_message {
            return 0;
        }
        self.throttle.left[Measure::Messages as usize].saturating_sub(self.messages)
    }

    #[inline]
    fn on_messages(&mut self, n: u64) {
        self.messages += n;
    }

    fn admit(&mut self, frame_opcode: u8) -> Result<(), Cause> {
        match frame_opcode {
            opcode::TEXT | opcode::BINARY => {
                self.throttle.admit(Measure::Messages, self.messages, self.now)?;
                (self.messages, self.throttle.fragments) = (self.messages + 1, 1);
            }
            opcode::CONTINUATION if self.throttle.fragments_max < u32::MAX => {
                if self.throttle.fragments >= self.throttle.fragments_max {
                    return Err(Cause::TooManyFragments);
                }
                self.throttle.fragments += 1;
            }
            opcode::PING | opcode::PONG => {
                self.throttle.admit(Measure::ControlFrames, self.control_frames, self.now)?;
                self.control_frames += 1;
            }
            // A Close ends the session by itself; opcodes of an extension are not ours to count.
            _ => {}
        }
        Ok(())
    }
}

impl Direction {
    /// Walks `bytes` under limits, without the messages that are taken out of them.
    pub(super) fn advance_limited(
        &mut self,
        bytes: &[u8],
        settings: &RelaySettings,
        counts: &mut Counts,
        authored: &mut Vec<u8>,
        budget: &mut ReadBudget<'_>,
    ) -> (Relayed, Option<Stop>) {
        loop {
            let Some(mut intercept) = budget.intercept().take() else {
                return self.advance(bytes, settings, counts, authored, budget);
            };
            let found = intercept.on_bytes(bytes, &self.cursor, settings.limits, budget);
            *budget.intercept() = Some(intercept);
            let held = match found {
                Intercepted::Plain(n) => {
                    return self.advance(bytes.get(..n).unwrap_or(bytes), settings, counts, authored, budget);
                }
                Intercepted::Consumed(n) => return (Relayed::consume(n), None),
                Intercepted::Violation(cause) => {
                    return (Relayed::consume(bytes.len()), Some(Stop::Violation(cause)));
                }
                Intercepted::Released(held) => held,
            };
            // If its header is complete, the limits have had room for it.
            let (relayed, stop) = self.cursor.walk(&held, settings.limits, counts, authored, &mut Unlimited);
            authored.extend_from_slice(held.get(..relayed.forward).unwrap_or(&held));
            if stop.is_some() {
                return (Relayed::consume(bytes.len()), stop);
            }
        }
    }
}
