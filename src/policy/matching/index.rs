//! Finds a route among thousands: hosts by hash, paths by a tree of segments, conditions on values
//! and prefixes by hash, networks by a binary search. The time depends on the length of the
//! request's host and path, on how many lengths of prefixes there are, and on how many routes match
//! both and have none of these conditions, hardly on the number of routes.

use super::condition::{Predicate, Test};
use super::input::Input;
use super::pattern::{HostPattern, Segment};
use super::{Condition, Entry};
use crate::policy::Facts;
use crate::policy::networks::{Networks, canonical};
use ipnet::IpNet;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasherDefault;

/// Its keys are those of the configuration: no request can make them collide. So the hash needs no
/// secret, and what a look-up costs can be counted.
type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

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
    /// Entries whose path ends here, and those whose rest begins here.
    ends: Bucket,
    rests: Bucket,
    /// The first of all entries here and below.
    first: usize,
}

impl Default for Node {
    fn default() -> Node {
        let (ends, rests) = (Bucket::default(), Bucket::default());
        Node { literals: HashMap::default(), name: None, ends, rests, first: usize::MAX }
    }
}

/// Entries with the same host and path, which conditions tell apart. Each list is in matching
/// order.
#[derive(Debug, Default)]
struct Bucket {
    /// By the value that an input must be equal to.
    equal: Vec<(Input, ByValue)>,
    /// By what an input must begin with.
    prefix: Vec<(Input, ByPrefix)>,
    /// By networks that the client must be in one of.
    network: Networks<Vec<usize>>,
    /// The same while entries are added.
    unsorted: BTreeMap<IpNet, Vec<usize>>,
    /// All others.
    others: Vec<usize>,
}

type ByValue = HashMap<Vec<u8>, Vec<usize>>;

#[derive(Debug, Default)]
struct ByPrefix {
    /// The lengths of the prefixes.
    lengths: BTreeSet<usize>,
    prefixes: ByValue,
}

impl Bucket {
    /// Files the entry `at` under the strictest of its conditions that has a place here.
    fn add(&mut self, at: usize, conditions: &[Condition]) {
        let asked = || conditions.iter().filter(|condition| !condition.negated).map(|condition| &condition.predicate);
        let is = asked().find_map(|predicate| match predicate {
            Predicate::Value(input, Test::Is(text)) => Some((input, text)),
            _ => None,
        });
        let prefix = asked().filter_map(|predicate| match predicate {
            Predicate::Value(input, Test::Prefix(text)) => Some((input, text)),
            _ => None,
        });
        let networks = asked().find_map(|predicate| match predicate {
            Predicate::Client(networks) => Some(networks),
            _ => None,
        });
        if let Some((input, text)) = is {
            of(&mut self.equal, input).entry(text.as_bytes().to_vec()).or_default().push(at);
        } else if let Some((input, text)) = prefix.max_by_key(|(_, text)| text.len()) {
            let known = of(&mut self.prefix, input);
            known.lengths.insert(text.len());
            known.prefixes.entry(text.as_bytes().to_vec()).or_default().push(at);
        } else if let Some(networks) = networks {
            for network in networks {
                self.unsorted.entry(canonical(*network)).or_default().push(at);
            }
        } else {
            self.others.push(at);
        }
    }
}

/// What is known of this input, made if there is nothing yet.
fn of<'a, T: Default>(known: &'a mut Vec<(Input, T)>, input: &Input) -> &'a mut T {
    let at = known.iter().position(|(known, _)| known == input).unwrap_or(known.len());
    if at == known.len() {
        known.push((input.clone(), T::default()));
    }
    &mut known[at].1
}

impl ByPrefix {
    /// The entries for each prefix of `value`.
    fn of<'a>(&'a self, value: &'a [u8]) -> impl Iterator<Item = &'a [usize]> {
        let prefixes = self.lengths.iter().map_while(|length| value.get(..*length));
        prefixes.filter_map(|prefix| self.prefixes.get(prefix)).map(Vec::as_slice)
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
            let bucket = if entry.path.has_rest() { &mut node.rests } else { &mut node.ends };
            bucket.add(at, &entry.conditions);
        }
        let roots = index.exact.values_mut().chain(index.under.values_mut()).chain([&mut index.any]);
        roots.for_each(Node::seal);
        index
    }

    /// The position of the first of `entries` that matches. `host` and `path` are normalised.
    pub fn find(&self, entries: &[Entry], facts: &Facts<'_>, host: &str, path: &str) -> Option<usize> {
        let mut search = Search { best: usize::MAX, entries, facts };
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

    /// No entries are added any more, here and below.
    fn seal(&mut self) {
        for bucket in [&mut self.ends, &mut self.rests] {
            bucket.network = Networks::new(std::mem::take(&mut bucket.unsorted));
        }
        self.literals.values_mut().chain(self.name.as_deref_mut()).for_each(Node::seal);
    }
}

struct Search<'a> {
    /// The first that was found.
    best: usize,
    entries: &'a [Entry],
    facts: &'a Facts<'a>,
}

impl Search<'_> {
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

    fn consider(&mut self, bucket: &Bucket) {
        let facts = self.facts;
        // Where an input has several values, any of them counts: no look-up ends the search.
        for (input, values) in &bucket.equal {
            input.any(facts, |value| {
                self.try_each(values.get(value).map_or(&[], Vec::as_slice));
                false
            });
        }
        for (input, prefixes) in &bucket.prefix {
            input.any(facts, |value| {
                prefixes.of(value).for_each(|positions| self.try_each(positions));
                false
            });
        }
        bucket.network.of(facts.client).for_each(|positions| self.try_each(positions));
        self.try_each(&bucket.others);
    }

    fn try_each(&mut self, positions: &[usize]) {
        let (facts, entries) = (self.facts, self.entries);
        let matches = |at: usize| entries.get(at).is_some_and(|entry| entry.unmet(facts).is_none());
        let mut better = positions.iter().copied().take_while(|at| *at < self.best);
        if let Some(at) = better.find(|at| matches(*at)) {
            self.best = at;
        }
    }
}
