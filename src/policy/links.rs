//! Doubly linked lists whose members are positions of something else: nothing is allocated to put
//! one in or to take it out, from the middle too.

/// No position.
const NONE: u32 = u32::MAX;

/// The neighbours of each position. A position is in one list of these at most.
#[derive(Debug, Default)]
pub struct Links(Vec<Link>);

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

/// Of which list a position is a member, its owner knows.
#[derive(Debug, Clone, Copy)]
pub struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for List {
    fn default() -> List {
        List { first: NONE, last: NONE, len: 0 }
    }
}

impl List {
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub fn last(&self) -> Option<u32> {
        (self.last != NONE).then_some(self.last)
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Links {
    /// There are so many positions at least.
    pub fn grow(&mut self, positions: usize) {
        if self.0.len() < positions {
            self.0.resize(positions, Link { before: NONE, after: NONE });
        }
    }

    fn link(&mut self, at: u32) -> Option<&mut Link> {
        self.0.get_mut(at as usize)
    }

    /// Puts a position that is in no list at the end of `list`.
    pub fn push_back(&mut self, list: &mut List, at: u32) {
        let last = list.last;
        if let Some(link) = self.link(at) {
            *link = Link { before: last, after: NONE };
            match self.link(last) {
                Some(last) => last.after = at,
                None => list.first = at,
            }
            list.last = at;
            list.len += 1;
        }
    }

    /// Takes a member out of `list`.
    pub fn remove(&mut self, list: &mut List, at: u32) {
        let Some(Link { before, after }) = self.link(at).copied() else { return };
        match self.link(before) {
            Some(link) => link.after = after,
            None => list.first = after,
        }
        match self.link(after) {
            Some(link) => link.before = before,
            None => list.last = before,
        }
        list.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn lists_are_as_queues_from_which_any_member_can_be_taken() {
        let (mut links, mut lists) = (Links::default(), [List::default(); 3]);
        links.grow(64);
        let mut models = [const { VecDeque::<u32>::new() }; 3];
        let mut seed = 7_u64;
        let mut below = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        for _ in 0..20_000 {
            let at = below(64) as u32;
            match models.iter().position(|model| model.contains(&at)) {
                Some(list) => {
                    links.remove(&mut lists[list], at);
                    models[list].retain(|member| *member != at);
                }
                None => {
                    let list = below(3) as usize;
                    links.push_back(&mut lists[list], at);
                    models[list].push_back(at);
                }
            }
            for (list, model) in lists.iter().zip(&models) {
                assert_eq!((list.first(), list.last()), (model.front().copied(), model.back().copied()));
                assert_eq!((list.len() as usize, list.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
