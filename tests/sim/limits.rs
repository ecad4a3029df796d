//! Limits on what a side of a session sends, in virtual time: what is drawn, what the worker has
//! read of that side and when, and what must hold. Keeps a bucket of its own, by its first
//! definition: it gains `units` in a period, up to its burst, and each unit takes one out. With
//! these limits no more is forwarded than that in any time; who keeps to them is neither closed nor
//! paused for good; who does not is closed, at once or after the patience, with the code that is
//! set.

use crate::coverage::Met;
use crate::frames::{BINARY, PING, PONG, TEXT, read_head};
use crate::kernel::{CALLEES, Id, Owner};
use crate::oracle::{CLOSE_DEADLINE_MS, Case, Judgement, ensure};
use crate::peers::Peer;
use crate::rng::Rng;
use crate::schedule::{End, Leg, Opening, Session};
use crate::world::World;
use framegate::proto::Side;
use framegate::proto::end::{self, Cause, Party, Phase};
use framegate::proto::rate::{Measure, OnExcess, Rate, RateLimit};

/// Close code of a limit. One that nothing else sends.
pub const LIMIT_CODE: u16 = 4003;
/// All pauses of a session that does not wait for the end of its patience.
const PAUSES_MS: u64 = 1_500;
/// When a patience is certainly over: an excess is over after a second without one; so long may
/// peers pause, and the clock jump.
const PATIENCE_SLACK_MS: u64 = 6_000;

/// A limit on one direction of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub side: Side,
    pub measure: Measure,
    pub rate: Rate,
    pub burst: u64,
    pub on_excess: OnExcess,
}

/// What the worker has read of the limited side.
pub type Flow = Vec<Read>;

#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// The worker's clock, in milliseconds.
    at: u64,
    /// Bytes of frames so far, and with heads.
    frames: usize,
    all: usize,
    /// The end of a head came with the first frames: they were read before there was a limit.
    with_head: bool,
}

impl Limit {
    /// It may close the session.
    pub fn closes(self) -> bool {
        self.on_excess != OnExcess::Pause
    }

    pub fn setting(self) -> RateLimit {
        let Limit { measure, rate, burst, on_excess, .. } = self;
        RateLimit { measure, rate, burst, on_excess, close_code: LIMIT_CODE }
    }

    fn counts(self, first: u8) -> bool {
        match self.measure {
            Measure::Messages => matches!(first & 15, TEXT | BINARY),
            Measure::ControlFrames => matches!(first & 15, PING | PONG),
            Measure::Bytes => false,
        }
    }

    /// Units in what a side sends.
    fn units(self, stream: &[u8]) -> u64 {
        match self.measure {
            Measure::Bytes => stream.len() as u64,
            _ => frames(stream).filter(|(_, first, _)| self.counts(*first)).count() as u64,
        }
    }

    /// How long it takes until so many units may pass, burst aside.
    fn time_ms(self, units: u64) -> u64 {
        units.saturating_sub(self.burst) * self.rate.period_ms / self.rate.units
    }
}

/// Where each frame begins, its first byte, and where its payload begins.
fn frames(stream: &[u8]) -> impl Iterator<Item = (usize, u8, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = read_head(stream.get(at..)?)?;
        let begins = at;
        at = head.total().saturating_add(at as u64) as usize;
        Some((begins, head.first, begins + head.head_len))
    })
}

/// Draws the limit of a session, if it gets one.
pub fn draw(rng: &mut Rng, session: &mut Session) {
    let plain = session.opening == Opening::Good && session.leg != Leg::Opaque && session.pace.is_none();
    let quiet = session.beat.is_none() && session.shadow.is_none() && session.order.is_none();
    let ends = matches!(session.end, End::Close(_) | End::BothClose | End::Fin(_) | End::Idle);
    if !plain || !quiet || session.tiny || session.bulk || !ends || !rng.one_in(3) {
        return;
    }
    let measures = [Measure::Messages, Measure::Messages, Measure::ControlFrames, Measure::Bytes];
    let (side, measure) = (rng.pick(&Side::BOTH), rng.pick(&measures));
    if rng.one_in(3) {
        session.rest();
    }
    let part = &session.parts[side as usize];
    let open = Limit { side, measure, rate: Rate { units: 1, period_ms: 1 }, burst: 1, on_excess: OnExcess::Close };
    let units = open.units(&part.plan[..part.act_at]);
    if units < 2 {
        return;
    }
    let burst = if rng.one_in(4) { units + rng.below(3) } else { rng.below(units - 1) + 1 };
    let (on_excess, period_ms) = match rng.below(4) {
        0 => (OnExcess::Close, rng.pick(&[20, 1_000, 60_000])),
        // Paces have the pauses for bytes.
        _ if measure == Measure::Bytes => (OnExcess::Close, 1_000),
        1 | 2 if session.end == End::Idle => {
            (OnExcess::PauseThenClose { patience_ms: rng.pick(&[100, 700, 3_000]) }, rng.pick(&[50, 300, 1_500]))
        }
        _ => (OnExcess::Pause, (PAUSES_MS / units).max(1)),
    };
    // What comes before the 101 is counted when that has come.
    session.parts[Side::Downstream as usize].glued = 0;
    session.limit = Some(Limit { rate: Rate { units: 1, period_ms }, burst, on_excess, ..open });
}

impl World {
    /// The worker has read from a socket: of the limited side of a session?
    pub fn note_flow(&mut self, id: Id) {
        let Some(Owner::Peer(peer)) = self.kernel.socks[id].peer.and_then(|far| self.kernel.socks[far].owner) else {
            return;
        };
        let Some(peer) = self.peers[..self.peers_used].get(peer).filter(|_| peer < CALLEES) else { return };
        let Some(session) = peer.session.filter(|_| peer.seal.is_none()) else { return };
        let limit = self.script.sessions[session].limit;
        if limit.is_some_and(|limit| Some(limit.side) == peer.side) {
            let (all, heads) = (self.kernel.socks[id].rx.passed as usize, peer.heads());
            let before = self.flows[session].last().map_or(0, |read| read.all);
            let (frames, with_head) = (all.saturating_sub(heads), before < heads && all > heads);
            self.flows[session].push(Read { at: self.worker_now, frames, all, with_head });
        }
    }
}

/// A bucket as the definition of a rate says.
struct Bucket {
    limit: Limit,
    /// Units times the period; below 0 they are owed.
    tokens: i64,
    at: u64,
}

impl Bucket {
    fn full(limit: Limit, at: u64) -> Bucket {
        Bucket { limit, tokens: (limit.burst * limit.rate.period_ms) as i64, at }
    }

    /// Takes so many units out. Whether it had them.
    fn take(&mut self, units: u64, now: u64) -> bool {
        let Rate { units: gain, period_ms } = self.limit.rate;
        let gained = now.saturating_sub(self.at).saturating_mul(gain) as i64;
        self.tokens = self.tokens.saturating_add(gained).min((self.limit.burst * period_ms) as i64);
        self.at = now;
        self.tokens -= (units * period_ms) as i64;
        self.tokens >= 0
    }

    fn is_empty(&self) -> bool {
        self.tokens < self.limit.rate.period_ms as i64
    }
}

/// What the limited side of a session has done.
#[derive(Debug, Clone, Copy, Default)]
struct Story {
    /// Where the first unit stands that the bucket had no room for, and when the worker read it.
    excess: Option<(usize, u64)>,
    /// When the bucket was empty for the first time.
    empty_ms: Option<u64>,
}

impl Case<'_> {
    fn limited(&self) -> Option<(Limit, &Peer)> {
        let limit = self.session.limit?;
        let peer = if limit.side == Side::Downstream { Some(self.client) } else { self.backend };
        Some((limit, peer?))
    }

    /// By the reads of the worker. `None` where they are not known.
    fn story(&self, limit: Limit, log: &[u8]) -> Option<Story> {
        let mut story = Story::default();
        let mut bucket = Bucket::full(limit, self.flow.first()?.at);
        let mut take = |units: u64, at: usize, read: &Read| {
            let now = read.at;
            let owed = read.with_head && limit.on_excess != OnExcess::Close;
            if !bucket.take(units, now) && !owed {
                story.excess = story.excess.or(Some((at, now)));
            }
            if bucket.is_empty() {
                story.empty_ms = story.empty_ms.or(Some(now));
            }
        };
        if limit.measure == Measure::Bytes {
            let mut before = 0;
            for read in self.flow {
                take((read.frames - before) as u64, read.frames, read);
                before = read.frames;
            }
        } else {
            let counted = frames(log).filter(|(_, first, _)| limit.counts(*first));
            for (at, _, payload) in counted {
                let Some(read) = self.flow.iter().find(|read| read.frames >= payload) else { break };
                take(1, at, read);
            }
        }
        Some(story)
    }

    /// A limit may have closed it, or a part of it.
    pub fn may_exceed(&self) -> bool {
        let Some((limit, peer)) = self.limited() else { return false };
        limit.closes() && limit.units(peer.log()) > limit.burst
    }

    /// An established session with a limit: whether it ended as that says.
    pub fn judge_limit(&self, ended: end::End) -> Judgement {
        let is_rate = matches!(ended.cause, Cause::MessageRate | Cause::ByteRate | Cause::ControlRate);
        let Some((limit, peer)) = self.limited() else {
            ensure!(!is_rate, "{ended:?} in a session without a limit");
            return Ok(());
        };
        if is_rate {
            let right = (ended.party, ended.phase, ended.cause)
                == (Party::from(limit.side), Phase::Open, limit.measure.cause());
            ensure!(right && limit.closes(), "{ended:?} where the limit is {limit:?}");
            ensure!(limit.units(peer.log()) > limit.burst, "{ended:?} though no more than the burst was sent");
        }
        let Some(story) = self.story(limit, peer.log()) else { return Ok(()) };
        let over = self.ended_ms().unwrap_or(0);
        match limit.on_excess {
            OnExcess::Pause => {}
            OnExcess::Close => {
                ensure!(!is_rate || story.excess.is_some(), "{ended:?} though {limit:?} was kept: {:?}", self.flow);
                let rest = self.session.end == End::Idle && !self.may_be_closed_otherwise();
                ensure!(
                    !rest || story.excess.is_none() || is_rate,
                    "{ended:?} though {limit:?} was exceeded: {story:?}"
                );
            }
            OnExcess::PauseThenClose { patience_ms } => {
                let least = story.empty_ms.map(|at| at + patience_ms);
                ensure!(
                    !is_rate || least.is_some_and(|least| least <= over),
                    "{ended:?} at {over} ms, the patience ends at {least:?}"
                );
                let long = limit.time_ms(limit.units(peer.log())) > patience_ms + PATIENCE_SLACK_MS;
                let rest = self.session.end == End::Idle && !self.may_be_closed_otherwise();
                ensure!(
                    !rest || !long || is_rate,
                    "{ended:?} though {limit:?} was exceeded for longer than the patience"
                );
            }
        }
        Ok(())
    }

    /// What came out of the limited side is within the limit in any time. Control frames that pause
    /// are counted once they are read, and so many at a time.
    pub fn judge_flow(&self, side: Side, log: &[u8], passed: usize) -> Judgement {
        let Some((limit, _)) = self.limited().filter(|(limit, _)| limit.side == side) else { return Ok(()) };
        let pauses = limit.on_excess != OnExcess::Close;
        if pauses && limit.measure != Measure::Messages {
            return Ok(());
        }
        let Some(Story { excess: Some((at, now)), .. }) = self.story(limit, log) else { return Ok(()) };
        // The frame with the first byte too many goes on to its end.
        let most = match limit.measure {
            Measure::Bytes => frames(log).map(|(begins, ..)| begins).find(|begins| *begins >= at).unwrap_or(log.len()),
            _ => at,
        };
        ensure!(passed <= most, "{passed} bytes came out, {most} were within {limit:?}, one more was read at {now} ms");
        Ok(())
    }

    /// A limit may hold back the bytes of this side although it closes.
    pub fn is_held(&self, side: Side) -> bool {
        self.limited().is_some_and(|(limit, _)| (limit.side, limit.measure) == (side, Measure::Bytes))
    }

    /// The code toward the receiver of the direction from `side`.
    pub fn is_code_of_limit(&self, side: Side, code: u16) -> bool {
        let Some(limit) = self.session.limit.filter(|_| self.may_exceed()) else { return false };
        code == match side {
            offended if offended != limit.side => LIMIT_CODE,
            Side::Downstream => 1001,
            Side::Upstream => 1014,
        }
    }

    /// How long its limit may pause it.
    pub fn limit_ms(&self) -> u64 {
        self.limited().map_or(0, |(limit, peer)| match limit.on_excess {
            // The frame under way goes on, no faster than the limit.
            OnExcess::Close if limit.measure == Measure::Bytes && self.may_exceed() => CLOSE_DEADLINE_MS,
            OnExcess::Close => 0,
            _ => limit.time_ms(limit.units(peer.log())),
        })
    }

    /// What its limit has done.
    pub fn met_by_limit(&self) -> Option<Met> {
        let (limit, _) = self.limited()?;
        let cause = self.ended.first()?.ended.cause;
        match limit.on_excess {
            OnExcess::Close if cause == limit.measure.cause() => Some(Met::ClosedByLimit),
            OnExcess::PauseThenClose { .. } if cause == limit.measure.cause() => Some(Met::ClosedByPatience),
            OnExcess::Pause if self.limit_ms() > 0 => Some(Met::HeldByLimit),
            _ => None,
        }
    }
}
