//! Finds a route among thousands: hosts by hash, paths by a tree of segments. The time depends on
//! the length of the request's host and path, and on how many routes match both, not on the number
//! of routes.

use super::Entry;
use super::pattern::{HostPattern, Segment};
use std::collections::HashMap;

/// Positions of entries in matching order.
#[derive(Debug, Default)]
pub struct Index {
    exact: HashMap<String, Node>,
    /// By suffix, with its first dot.
    under: HashMap<String, Node>,
    /// The length of the longest suffix: no longer one is looked up, however long a host is.
    suffix_max: usize,
    any: Node,
}

/// All paths that begin with the same segments.
#[derive(Debug)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    name: Option<Box<Node>>,
    /// Entries whose path ends here, and those whose rest begins here, first in matching order
    /// first.
    ends: Vec<usize>,
    rests: Vec<usize>,
    /// The first of all entries here and below.
    first: usize,
}

impl Default for Node {
    fn default() -> Node {
        Node { literals: HashMap::new(), name: None, ends: Vec::new(), rests: Vec::new(), first: usize::MAX }
    }
}

impl Index {
    /// `entries` are in matching order.
    pub fn new(entries: &[Entry]) -> Index {
        let mut index = Index::default();
        for (at, entry) in entries.iter().enumerate() {
            let root = match &entry.host {
                HostPattern::Exact(host) => index.exact.entry(host.clone()).or_default(),
                HostPattern::Under(suffix) => {
                    index.suffix_max = index.suffix_max.max(suffix.len());
                    index.under.entry(suffix.clone()).or_default()
                }
                HostPattern::Any => &mut index.any,
            };
            let node = root.descend(&entry.path.segments(), at);
            if entry.path.has_rest() { node.rests.push(at) } else { node.ends.push(at) }
        }
        index
    }

    /// The first entry in matching order that matches `host` and `path` (both normalised), and
    /// which `accepts`.
    pub fn find(&self, host: &str, path: &str, accepts: impl Fn(usize) -> bool) -> Option<usize> {
        let mut search = Search { best: usize::MAX, accepts };
        let path = path.strip_prefix('/').unwrap_or(path);
        if let Some(root) = self.exact.get(host) {
            search.visit(root, Some(path));
        }
        if self.suffix_max > 0 {
            let dots = host.match_indices('.').filter(|(at, _)| *at > 0 && host.len() - at <= self.suffix_max);
            for root in dots.filter_map(|(at, _)| self.under.get(host.get(at..)?)) {
                search.visit(root, Some(path));
            }
        }
        search.visit(&self.any, Some(path));
        (search.best != usize::MAX).then_some(search.best)
    }
}

impl Node {
    /// The node for `segments`, made if it is new, on behalf of the entry `at`. Entries come in
    /// order: the first that passes is the first below.
    fn descend(&mut self, segments: &[Segment<'_>], at: usize) -> &mut Node {
        self.first = self.first.min(at);
        match segments {
            [] => self,
            [Segment::Literal(literal), below @ ..] => {
                self.literals.entry((*literal).into()).or_default().descend(below, at)
            }
            [Segment::Name, below @ ..] => self.name.get_or_insert_default().descend(below, at),
        }
    }
}

struct Search<F> {
    /// The first that was found.
    best: usize,
    accepts: F,
}

impl<F: Fn(usize) -> bool> Search<F> {
    /// `rest`: the path below `node`, without its first slash; `None` at its end. As deep as the
    /// longest pattern, however long the path is.
    fn visit(&mut self, node: &Node, rest: Option<&str>) {
        if node.first >= self.best {
            return;
        }
        if let Some(rest) = rest {
            let (segment, rest) = rest.split_once('/').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
            if let Some(literal) = node.literals.get(segment) {
                self.visit(literal, rest);
            }
            if let Some(name) = node.name.as_ref().filter(|_| !segment.is_empty()) {
                self.visit(name, rest);
            }
        } else {
            self.consider(&node.ends);
        }
        self.consider(&node.rests);
    }

    fn consider(&mut self, entries: &[usize]) {
        let better = entries.iter().copied().take_while(|at| *at < self.best);
        if let Some(at) = better.into_iter().find(|at| (self.accepts)(*at)) {
            self.best = at;
        }
    }
}
