//! The choice of one endpoint among those of a group: pure functions of the endpoints' counts, a
//! turn counter and a random number.

mod maglev;

pub use maglev::{ENDPOINTS_MAX, Table};

use super::endpoint::Member;
use super::key::{Random, mix};
use crate::proto::Millis;
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
    /// For [`Balance::ConsistentHash`].
    pub table: Option<&'a Table>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weights {
    pub sum: u64,
    pub max: u64,
}

/// What a choice depends on beside the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The turns of the upstream, for [`Balance::Weighted`].
    pub turns: &'a AtomicU64,
    /// The turn of this session, for the others.
    pub turn: u64,
    pub random: Random,
    /// The hash of the request's key; chance where it has none.
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

/// Turns in a row that may find no endpoint due: where weights differ much.
const TURNS_MAX: u64 = 4_096;
/// Draws of a random choice before all endpoints are looked at.
const DRAWS_MAX: usize = 8;

impl Group<'_> {
    /// The position of the endpoint that gets one more session; `None` if none is `usable`.
    pub fn choose(&self, balance: Balance, draw: &mut Draw<'_>, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match balance {
            Balance::RoundRobin => {
                self.first_from(draw.turn as usize, |index| usable(index) && self.passes(index, draw))
            }
            Balance::Weighted => self.weighted(draw, &usable),
            Balance::LeastSessions => self.least_sessions(draw, &usable),
            Balance::TwoChoices => self.two_choices(draw, &usable),
            Balance::Random => self.random(draw, &usable),
            Balance::ConsistentHash => self.hashed(draw, &usable),
        }
        .or_else(|| self.first_from(draw.turn as usize, &usable))
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
    fn passes(&self, index: usize, draw: &Draw<'_>) -> bool {
        if draw.slow_start_ms == 0 {
            return true;
        }
        let full = self.members.get(index).map_or(0, |member| u64::from(member.weight) * 1_000);
        // The same answer for the same turn: the choice stays a function of its arguments.
        Random::new(mix(draw.turn ^ index as u64)).below(full) < self.weight(index, draw)
    }

    /// Weighted turns without a lock. Each turn asks one endpoint; in round `r` one of weight `w`
    /// is due if `w * r` passes a multiple of the largest weight, each endpoint with an offset of
    /// its own: the heaviest is due in every round, the others evenly between. (The static stride
    /// scheduler of gRPC, proposal A58.)
    fn weighted(&self, draw: &Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let (count, max) = (self.members.len() as u64, self.weights.max * 1_000);
        for _ in 0..4 * count + TURNS_MAX {
            let turn = draw.turns.fetch_add(1, Relaxed);
            let (index, round) = (turn.checked_rem(count)?, turn.checked_div(count)?);
            let weight = self.weight(index as usize, draw);
            let passed =
                (u128::from(weight) * u128::from(round) + u128::from(index * (max / 2))) % u128::from(max.max(1));
            if passed + u128::from(weight) >= u128::from(max) && usable(index as usize) {
                return Some(index as usize);
            }
        }
        None
    }

    fn least_sessions(&self, draw: &Draw<'_>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.members.len();
        let start = (draw.turn as usize).checked_rem(count)?;
        let mut best: Option<(usize, u64, u64)> = None;
        // Ties go to the next one in turn.
        for index in (start..count).chain(0..start) {
            let Some(member) = self.members.get(index) else { continue };
            let sessions = member.endpoint.sessions() as u64 + 1;
            // Without weights the common case is one comparison.
            if best.is_some_and(|(_, fewest, _)| self.weights.max == 1 && sessions >= fewest && draw.slow_start_ms == 0)
            {
                continue;
            }
            let weight = self.weight(index, draw);
            let better = best.is_none_or(|(_, fewest, of)| sessions.saturating_mul(of) < fewest.saturating_mul(weight));
            if better && usable(index) {
                best = Some((index, sessions, weight));
            }
        }
        best.map(|(index, ..)| index)
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
        let table = self.table?;
        let key = draw.key.unwrap_or_else(|| draw.random.number());
        let mut derived = key;
        for step in 0..DRAWS_MAX as u64 * 4 {
            let index = table.find(derived)?;
            if usable(index) && !self.is_overloaded(index, draw) {
                return Some(index);
            }
            derived = mix(key.wrapping_add(step + 1));
        }
        self.first_from(key as usize, |index| usable(index) && !self.is_overloaded(index, draw))
    }

    fn is_overloaded(&self, index: usize, draw: &Draw<'_>) -> bool {
        let Some(member) = self.members.get(index).filter(|_| draw.load_percent > 0) else { return false };
        let fair = (draw.sessions + 1) * u64::from(member.weight) * draw.load_percent;
        let allowed = fair.div_ceil(self.weights.sum.max(1) * 100);
        member.endpoint.sessions() as u64 >= allowed.max(1)
    }
}
