//! Which route a request gets: routes with the requests that they match, and the order in which
//! they are tried. How they are written in a file is the business of `config`.
//!
//! `pattern` has hosts and paths, `condition` everything else that a route can ask, `input` the
//! values of a request that it asks about, `regex` the
//! expressions that these must match; `index` finds the route, `overlap` what is odd about the
//! routes of a file; `captures` is what the names in a path stand for.

mod captures;
mod condition;
mod index;
mod input;
mod overlap;
mod pattern;

pub use captures::Captures;
pub use condition::{Condition, Predicate, Test};
pub use input::Input;
pub use overlap::Finding;
pub use pattern::{HostPattern, PathPattern, PathTemplate, Rest, TemplateSegment};

use super::Facts;
use super::path::{decoded, normal_host, without_dots};
use super::route::Route;
use index::Index;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// All routes of a snapshot, in matching order.
#[derive(Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
    index: Index,
    /// Places in `entries`.
    names: HashMap<String, usize>,
}

/// One route and the requests that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub host: HostPattern,
    pub path: PathPattern,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// Higher ones are tried first, whatever is more specific.
    pub priority: i32,
    pub route: Arc<Route>,
}

/// The route of a request.
#[derive(Debug)]
pub struct Found<'a> {
    pub entry: &'a Entry,
    pub captures: Captures,
}

/// Why a route does not match a request: the first thing that differs.
#[derive(Debug, Clone, Copy)]
pub enum Mismatch<'a> {
    Host(&'a HostPattern),
    Path(&'a PathPattern),
    Condition(&'a Condition),
}

/// What is more specific is smaller: see [`Routes::new`].
type Rank = (Reverse<i32>, (u8, Reverse<usize>), Vec<u8>, Reverse<usize>, Vec<(bool, u8, Reverse<usize>)>);

impl Routes {
    /// Sorts `entries` into matching order, in which their own order plays no part. The first
    /// difference decides:
    ///
    /// 1. The higher priority.
    /// 2. The host: exact, then the longest wildcard, then any.
    /// 3. The path, segment by segment from the left: a literal segment, then a name, then the rest
    ///    (`*`). So an exact path is before its prefix, and a longer prefix before a shorter one.
    /// 4. More conditions before fewer.
    /// 5. The stricter conditions: equality, then the longest prefix, the smallest network, regular
    ///    expression, presence; negated ones last.
    /// 6. The name, in the order of its bytes. Names are unique.
    pub fn new(mut entries: Vec<Entry>) -> Routes {
        entries.sort_by_cached_key(|entry| (entry.rank(), entry.route.name.clone()));
        let index = Index::new(&entries);
        let names = entries.iter().enumerate().map(|(at, entry)| (entry.route.name.clone(), at)).collect();
        Routes { entries, index, names }
    }

    /// The first route in matching order that matches. Host and path are matched on normalised
    /// copies: the port of a host and its case do not matter, unreserved characters of a path are
    /// decoded, dot segments removed.
    pub fn find(&self, facts: &Facts<'_>) -> Option<Found<'_>> {
        let request = facts.request;
        let decoded = decoded(request.path);
        let normal = without_dots(&decoded);
        let at = self.index.find(&self.entries, facts, &normal_host(request.host), &normal)?;
        let entry = self.entries.get(at)?;
        // Without dot segments the segments of the client's path are those of the normalised copy.
        let path = if decoded == normal { request.path } else { &normal };
        Some(Found { entry, captures: entry.path.captures(path) })
    }

    /// The route with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Route>> {
        let entry = self.names.get(name).and_then(|at| self.entries.get(*at))?;
        Some(&entry.route)
    }

    /// In matching order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// The index follows from the entries.
impl PartialEq for Routes {
    fn eq(&self, other: &Routes) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Routes {}

impl Entry {
    /// A route without conditions.
    pub fn new(host: HostPattern, path: PathPattern, route: Arc<Route>) -> Entry {
        Entry { host, path, conditions: Vec::new(), priority: 0, route }
    }

    /// `None` if it matches. Looks at this route alone, without the index.
    pub fn mismatch(&self, facts: &Facts<'_>) -> Option<Mismatch<'_>> {
        if !self.host.matches(&normal_host(facts.request.host)) {
            return Some(Mismatch::Host(&self.host));
        }
        if !self.path.matches(&without_dots(&decoded(facts.request.path))) {
            return Some(Mismatch::Path(&self.path));
        }
        self.unmet(facts).map(Mismatch::Condition)
    }

    /// The first condition that does not hold.
    fn unmet(&self, facts: &Facts<'_>) -> Option<&Condition> {
        self.conditions.iter().find(|condition| !condition.holds(facts))
    }

    /// One of the two is tried first for another reason than its name.
    pub fn is_told_from(&self, other: &Entry) -> bool {
        self.rank() != other.rank()
    }

    fn rank(&self) -> Rank {
        let mut conditions: Vec<_> = self.conditions.iter().map(Condition::rank).collect();
        conditions.sort_unstable();
        let (host, path) = (self.host.rank(), self.path.rank());
        (Reverse(self.priority), host, path, Reverse(conditions.len()), conditions)
    }

    /// Equal for two routes that match the same requests by the same patterns and conditions, in
    /// whatever order and with whatever names these are written.
    pub fn identity(&self) -> String {
        let mut conditions: Vec<_> = self.conditions.iter().collect();
        conditions.sort_unstable();
        conditions.dedup();
        format!("{} {:?} {conditions:?}", self.host, self.path.shape())
    }
}

impl fmt::Display for Entry {
    /// Host and path as in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Host(host) => write!(f, "the host does not match {host}"),
            Mismatch::Path(path) => write!(f, "the path does not match {path}"),
            Mismatch::Condition(condition) => write!(f, "not met: {condition}"),
        }
    }
}
