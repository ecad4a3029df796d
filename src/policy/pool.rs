//! The endpoints of an upstream at one moment: immutable, replaced as a whole when endpoints come
//! or go. Health is not part of it: that lives in the endpoints.

use super::balance::{Balance, Draw, Group, Table, Weights};
use super::endpoint::Member;
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug)]
pub struct Pool {
    /// By priority, within one in the order given.
    members: Vec<Member>,
    groups: Vec<Priority>,
}

/// The members of one priority.
#[derive(Debug)]
struct Priority {
    range: Range<usize>,
    weights: Weights,
    table: Option<Arc<Table>>,
}

impl Pool {
    /// `before`: another pool, whose hash tables are used again where they are the same.
    pub fn new(mut members: Vec<Member>, balance: Balance, before: Option<&Pool>) -> Pool {
        members.sort_by_key(|member| member.priority);
        let mut groups = Vec::new();
        let mut start = 0;
        for chunk in members.chunk_by(|a, b| a.priority == b.priority) {
            let weights = Weights {
                sum: chunk.iter().map(|member| u64::from(member.weight)).sum(),
                max: chunk.iter().map(|member| u64::from(member.weight)).max().unwrap_or(0),
            };
            let table = (balance == Balance::ConsistentHash).then(|| table(chunk, before));
            groups.push(Priority { range: start..start + chunk.len(), weights, table });
            start += chunk.len();
        }
        Pool { members, groups }
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The position of the endpoint that gets one more session: of the first priority that has a
    /// `usable` one.
    pub fn choose(&self, balance: Balance, draw: &mut Draw<'_>, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.groups.iter().find_map(|group| {
            let start = group.range.start;
            let (members, table) = (self.members.get(group.range.clone())?, group.table.as_deref());
            let choice = Group { members, weights: group.weights, table };
            Some(start + choice.choose(balance, draw, |index| usable(start + index))?)
        })
    }
}

/// The hash table of a group. Making one takes milliseconds: the one of the same endpoints stays.
fn table(members: &[Member], before: Option<&Pool>) -> Arc<Table> {
    let same = |group: &&Priority| {
        let known = before.and_then(|before| before.members.get(group.range.clone()));
        known.is_some_and(|known| {
            let key = |member: &Member| (Arc::clone(&member.endpoint), member.weight);
            known.len() == members.len() && known.iter().map(key).eq(members.iter().map(key))
        })
    };
    let known = before.and_then(|before| before.groups.iter().find(same)).and_then(|group| group.table.clone());
    known.unwrap_or_else(|| {
        Arc::new(Table::new(members.iter().map(|member| (member.endpoint.url.as_str(), member.weight))))
    })
}

/// The same endpoints with the same values; tables follow from them.
impl PartialEq for Pool {
    fn eq(&self, other: &Pool) -> bool {
        self.members == other.members
    }
}

impl Eq for Pool {}
