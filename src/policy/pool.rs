//! The endpoints of an upstream at one moment: immutable, replaced as a whole when endpoints come
//! or go. Health is not part of it: that lives in the endpoints.

use super::balance::{Balance, Draw, Group, Prepared, Weights};
use super::counts::{Count, Loads};
use super::endpoint::{Endpoint, Member};
use std::collections::HashMap;
use std::ops::Range;

#[derive(Debug)]
pub struct Pool {
    /// By priority, within one in the order given.
    members: Vec<Member>,
    /// What the groups are prepared for.
    balance: Balance,
    groups: Vec<Priority>,
    ids: Ids,
}

/// The members of one priority.
#[derive(Debug)]
struct Priority {
    range: Range<usize>,
    weights: Weights,
    prepared: Prepared,
    /// For [`Balance::LeastSessions`].
    loads: Loads,
}

/// The ids of the members in cookies: none, or one for each.
#[derive(Debug, Default)]
struct Ids {
    ids: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Pool {
    /// `before`: another pool, whose tables are used again where the endpoints are the same: making
    /// one takes milliseconds.
    pub fn new(mut members: Vec<Member>, balance: Balance, before: Option<&Pool>) -> Pool {
        members.sort_by_key(|member| member.priority);
        give_counts(&members);
        let mut groups = Vec::new();
        let mut start = 0;
        for chunk in members.chunk_by(|a, b| a.priority == b.priority) {
            let weights = Weights {
                sum: chunk.iter().map(|member| u64::from(member.weight)).sum(),
                max: chunk.iter().map(|member| u64::from(member.weight)).max().unwrap_or(0),
            };
            let known = before.filter(|before| before.balance == balance).and_then(|before| before.prepared_for(chunk));
            let prepared = known.unwrap_or_else(|| Prepared::new(balance, chunk));
            let loads = match balance {
                Balance::LeastSessions => {
                    Loads::new(chunk.iter().map(|member| (member.endpoint.count(), member.weight)))
                }
                _ => Loads::default(),
            };
            groups.push(Priority { range: start..start + chunk.len(), weights, prepared, loads });
            start += chunk.len();
        }
        Pool { members, balance, groups, ids: Ids::default() }
    }

    /// The same with ids for cookies.
    pub fn with_ids(self, id: impl Fn(&Endpoint) -> String) -> Pool {
        let ids: Vec<_> = self.members.iter().map(|member| id(&member.endpoint)).collect();
        let positions = ids.iter().enumerate().map(|(index, id)| (id.clone(), index)).collect();
        Pool { ids: Ids { ids, positions }, ..self }
    }

    /// The id of the member at this position.
    pub fn id(&self, index: usize) -> Option<&str> {
        self.ids.ids.get(index).map(String::as_str)
    }

    /// The position of the member with this id.
    pub fn position(&self, id: &[u8]) -> Option<usize> {
        self.ids.positions.get(str::from_utf8(id).ok()?).copied()
    }

    fn part(&self, group: &Priority) -> &[Member] {
        self.members.get(group.range.clone()).unwrap_or_default()
    }

    fn prepared_for(&self, members: &[Member]) -> Option<Prepared> {
        let same = |a: &Member, b: &Member| a.endpoint == b.endpoint && a.weight == b.weight;
        let same = |group: &&Priority| {
            let part = self.part(group);
            part.len() == members.len() && part.iter().zip(members).all(|(a, b)| same(a, b))
        };
        self.groups.iter().find(same).map(|group| group.prepared.clone())
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The position of the endpoint that gets one more session: of the first priority that has a
    /// `usable` one.
    pub fn choose(&self, balance: Balance, draw: &mut Draw<'_>, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.groups.iter().find_map(|group| {
            let (start, members) = (group.range.start, self.part(group));
            let choice = Group { members, weights: group.weights, prepared: &group.prepared, loads: &group.loads };
            Some(start + choice.choose(balance, draw, |index| usable(start + index))?)
        })
    }
}

/// Counts side by side for the endpoints that have none yet.
fn give_counts(members: &[Member]) {
    let new: Vec<_> = members.iter().filter(|member| !member.endpoint.has_count()).collect();
    for (count, member) in Count::row(new.len()).zip(new) {
        member.endpoint.set_count(count);
    }
}

/// The same endpoints with the same values; tables follow from them.
impl PartialEq for Pool {
    fn eq(&self, other: &Pool) -> bool {
        self.members == other.members
    }
}

impl Eq for Pool {}
