//! The stalled receivers of a worker in the order in which they stalled, so that the one that makes
//! room when buffers run short is found without a scan. Touched only where a receiver blocks, takes
//! some of its backlog, or is done with it.

use super::token::SlotKey;
use crate::proto::{Millis, Side};
use std::collections::BTreeSet;

/// One entry for each backlog: since when its receiver has taken nothing.
#[derive(Debug, Default)]
pub struct Stalls(BTreeSet<(Millis, SlotKey, Side)>);

impl Stalls {
    /// The backlog of a receiver has changed: `before` and `after` say since when it was and is
    /// stalled, `None` without a backlog.
    #[inline]
    pub fn update(&mut self, key: SlotKey, side: Side, before: Option<Millis>, after: Option<Millis>) {
        if before != after {
            self.replace(key, side, before, after);
        }
    }

    #[inline(never)]
    fn replace(&mut self, key: SlotKey, side: Side, before: Option<Millis>, after: Option<Millis>) {
        if let Some(since) = before {
            self.0.remove(&(since, key, side));
        }
        if let Some(since) = after {
            self.0.insert((since, key, side));
        }
    }

    /// The receiver that has taken nothing for longest.
    pub fn longest(&self) -> Option<(SlotKey, Side)> {
        self.0.first().map(|(_, key, side)| (*key, *side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stalled_receiver_comes_first() {
        let key = |slot| SlotKey { slot, generation: 1 };
        let mut stalls = Stalls::default();
        stalls.update(key(1), Side::Downstream, None, Some(30));
        stalls.update(key(2), Side::Upstream, None, Some(10));
        stalls.update(key(3), Side::Downstream, None, Some(20));
        assert_eq!(stalls.longest(), Some((key(2), Side::Upstream)));
        stalls.update(key(2), Side::Upstream, Some(10), Some(40));
        assert_eq!(stalls.longest(), Some((key(3), Side::Downstream)));
        stalls.update(key(3), Side::Downstream, Some(20), None);
        stalls.update(key(1), Side::Downstream, Some(30), None);
        assert_eq!(stalls.longest(), Some((key(2), Side::Upstream)));
        stalls.update(key(2), Side::Upstream, Some(40), None);
        assert_eq!(stalls.longest(), None);
    }
}
