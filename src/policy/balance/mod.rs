//! The choice of one endpoint among those of a group: pure functions of the endpoints' counts, a
//! turn counter and a random number.

mod maglev;
mod schedule;

pub use maglev::{ENDPOINTS_MAX, Table};
pub use schedule::Schedule;

use super::counts::Loads;
use super::endpoint::Member;
use super::key::{Random, mix, scale};
use crate::proto::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How an upstream spreads its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Each in turn, without regard to weights.
    #[default]
    RoundRobin,
    /// Each in turn, as often as its weight says, evenly mixed.
    Weighted,
    /// The one with the fewest sessions for its weight.
    LeastSessions,
    /// The better of two by chance.
    TwoChoices,
    /// By chance, as often as its weight says.
    Random,
    /// The same for the same key, as long as it is available.
    ConsistentHash,
}

impl Balance {
    pub const ALL: [Balance; 6] = [
        Balance::RoundRobin,
        Balance::Weighted,
        Balance::LeastSessions,
        Balance::TwoChoices,
        Balance::Random,
        Balance::ConsistentHash,
    ];

    /// The word of the configuration, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::Weighted => "weighted",
            Balance::LeastSessions => "least_sessions",
            Balance::TwoChoices => "two_choices",
            Balance::Random => "random",
            Balance::ConsistentHash => "consistent_hash",
        }
    }
}

/// Endpoints of the same priority, and what is computed from them once.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    pub members: &'a [Member],
    /// The sum of their weights, and the largest.
    pub weights: Weights,
    pub prepared: &'a Prepared,
    pub loads: &'a Loads,
}

/// What the choice among a group needs and takes long to make.
#[derive(Debug, Clone, Default)]
pub enum Prepared {
    #[default]
    Nothing,
    /// For [`Balance::ConsistentHash`].
    Table(Arc<Table>),
    /// For [`Balance::Weighted`].
    Schedule(Arc<Schedule>),
}

impl Prepared {
    pub fn new(balance: Balance, members: &[Member]) -> Prepared {
        match balance {
            Balance::ConsistentHash => {
                let members = members.iter().map(|member| (member.endpoint.url.as_str(), member.weight));
                Prepared::Table(Arc::new(Table::new(members)))
            }
            Balance::Weighted => {
                let weights: Vec<_> = members.iter().map(|member| member.weight).collect();
                Prepared::Schedule(Arc::new(Schedule::new(&weights)))
            }
            _ => Prepared::Nothing,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weights {
    pub sum: u64,
    pub max: u64,
}

/// What a choice depends on beside the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Turns of the upstream that were given to an endpoint, for [`Balance::RoundRobin`] and
    /// [`Balance::Weighted`].
    pub turns: &'a AtomicU64,
    /// The number of this session, for ties.
    pub turn: u64,
    pub random: Random,
    /// The hash of the request's key, or of its id; chance without one.
    pub key: Option<u64>,
    pub now: Millis,
    /// A recovered endpoint gets its full share only after this time.
    pub slow_start_ms: Millis,
    /// With [`Balance::ConsistentHash`] no endpoint gets more than this percentage of its fair
    /// share of `sessions`; 0 for no bound.
    pub load_percent: u64,
    /// Sessions of the upstream.
    pub sessions: u64,
}

/// Turns in a row that may find no endpoint usable before chance decides.
const TURNS_MAX: u64 = 64;
/// Draws of a random choice before all endpoints are looked at.
const DRAWS_MAX: usize = 8;

impl Group<'_> {
    /// The position of the endpoint that gets one more session; `None` if none is `usable`.
    pub fn choose(&self, balance: Balance, draw: &mut Draw<'_>, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match balance {
            Balance::RoundRobin => self.round_robin(draw, &usable),
            Balance::Weighted => self.weighted(draw, &usable),
            Balance::LeastSessions => self.least_sessions(draw, &usable),
            Balance::TwoChoices => self.two_choices(draw, &usable),
            Balance::Random => self.random(draw, &usable),
            Balance::ConsistentHash => self.hashed(draw, &usable),
        }
        .or_else(|| self.first_from(draw.turn as usize, &usable))
    }

    /// The next usable one. The turns of those before it are over: the one behind a gap gets no
    /// more than the others.
    fn round_robin(&self, draw: &Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let turn = draw.turns.fetch_add(1, Relaxed) as usize;
        let count = self.members.len();
        let start = turn.checked_rem(count)?;
        let index = self.first_from(start, |index| usable(index) && self.passes(index, turn as u64, draw))?;
        let skipped = if index >= start { index - start } else { index + count - start };
        if skipped > 0 {
            draw.turns.fetch_add(skipped as u64, Relaxed);
        }
        Some(index)
    }

    fn first_from(&self, start: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.members.len();
        // The remainder comes first: the sum must not wrap.
        let start = start.checked_rem(count)?;
        (start..count).chain(0..start).find(|index| usable(*index))
    }

    /// The weight of a member at this moment.
    fn weight(&self, index: usize, draw: &Draw<'_>) -> u64 {
        self.members.get(index).map_or(0, |member| {
            let weight = u64::from(member.weight) * 1_000;
            if draw.slow_start_ms == 0 {
                weight
            } else {
                member.endpoint.health.ramped(weight, draw.now, draw.slow_start_ms)
            }
        })
    }

    /// A recovered endpoint is passed over as often as its slow start says; all others never.
    fn passes(&self, index: usize, turn: u64, draw: &Draw<'_>) -> bool {
        if draw.slow_start_ms == 0 {
            return true;
        }
        let full = self.members.get(index).map_or(0, |member| u64::from(member.weight) * 1_000);
        // The same answer for the same turn: the choice stays a function of its arguments.
        Random::new(mix(turn ^ index as u64)).below(full) < self.weight(index, draw)
    }

    fn weighted(&self, draw: &mut Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let Prepared::Schedule(schedule) = self.prepared else { return None };
        for _ in 0..TURNS_MAX {
            let turn = draw.turns.fetch_add(1, Relaxed);
            let index = schedule.at(turn)?;
            if usable(index) && self.passes(index, turn, draw) {
                return Some(index);
            }
        }
        self.random(draw, usable)
    }

    /// Looks at all. Ties go to the next one in turn.
    fn least_sessions(&self, draw: &Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let start = (draw.turn as usize).checked_rem(self.members.len())?;
        if draw.slow_start_ms == 0 {
            return self.loads.least(start, |_, load| load, usable);
        }
        let ramped = |index: usize, load: u64| {
            let full = self.members.get(index).map_or(0, |member| u64::from(member.weight) * 1_000);
            let weight = self.weight(index, draw);
            if weight == full { load } else { (load / weight.max(1)).saturating_mul(full) }
        };
        self.loads.least(start, ramped, usable)
    }

    fn two_choices(&self, draw: &mut Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.any(draw, usable)?;
        let Some(second) = self.any(draw, &|index| index != first && usable(index)) else { return Some(first) };
        let load = |index: usize| self.members.get(index).map_or(0, |member| member.endpoint.sessions() as u64 + 1);
        let (one, other) = (load(first) * self.weight(second, draw), load(second) * self.weight(first, draw));
        Some(if other < one { second } else { first })
    }

    /// One of the usable, each as likely.
    fn any(&self, draw: &mut Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.members.len() as u64;
        for _ in 0..DRAWS_MAX {
            let index = draw.random.below(count) as usize;
            if usable(index) {
                return Some(index);
            }
        }
        self.first_from(draw.random.number() as usize, usable)
    }

    fn random(&self, draw: &mut Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let max = self.weights.max * 1_000;
        for _ in 0..DRAWS_MAX {
            let index = draw.random.below(self.members.len() as u64) as usize;
            if usable(index) && draw.random.below(max) < self.weight(index, draw) {
                return Some(index);
            }
        }
        // All at once: weights that differ much, or few that are usable.
        let weight = |index: usize| if usable(index) { self.weight(index, draw) } else { 0 };
        let sum = (0..self.members.len()).map(weight).sum();
        let mut random = draw.random;
        let mut left = random.below(sum);
        (0..self.members.len()).find(|index| {
            let weight = weight(*index);
            let found = weight > left;
            left = left.saturating_sub(weight);
            found
        })
    }

    /// The endpoint of the key; while that is unavailable or has more than its share, the endpoint
    /// of a key derived from it, so that its clients spread over the others.
    fn hashed(&self, draw: &mut Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let key = draw.key.unwrap_or_else(|| draw.random.number());
        if draw.load_percent == 0 {
            return self.hashed_among(key, usable);
        }
        let sum = self.weights.sum;
        self.hashed_among(key, |index| usable(index) && self.has_share(index, sum, draw)).or_else(|| {
            // So many are unavailable that the others have more than their share of all: the share
            // of the usable ones counts, of which one always has less than it may have.
            let weight = |index: usize| self.members.get(index).map_or(0, |member| u64::from(member.weight));
            let sum = (0..self.members.len()).filter(|index| usable(*index)).map(weight).sum();
            self.hashed_among(key, |index| usable(index) && self.has_share(index, sum, draw))
        })
    }

    fn hashed_among(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let Prepared::Table(table) = self.prepared else { return None };
        let mut derived = key;
        for step in 0..DRAWS_MAX as u64 * 4 {
            let index = table.find(derived)?;
            if usable(index) {
                return Some(index);
            }
            derived = mix(key.wrapping_add(step + 1));
        }
        self.first_from(scale(key, self.members.len() as u64) as usize, usable)
    }

    /// One more session leaves the endpoint within its share of those of `sum`.
    fn has_share(&self, index: usize, sum: u64, draw: &Draw<'_>) -> bool {
        let Some(member) = self.members.get(index) else { return false };
        let fair = (draw.sessions + 1) * u64::from(member.weight) * draw.load_percent;
        let allowed = fair.div_ceil(sum.max(1) * 100);
        (member.endpoint.sessions() as u64) < allowed
    }
}
