//! What is odd about the routes of a snapshot taken together: routes that can never match, and
//! routes that cannot be told apart.

use super::{Entry, Routes};
use std::fmt;

/// One thing that a user should know.
#[derive(Debug, Clone, Copy)]
pub enum Finding<'a> {
    /// Every request that `route` matches goes to `by`, which is tried before it.
    Shadowed { route: &'a Entry, by: &'a Entry },
    /// Two conditions of the route exclude each other.
    Impossible { route: &'a Entry, conditions: (usize, usize) },
    /// Neither is more specific, and a request may match both: then the name decides.
    Ambiguous { first: &'a Entry, second: &'a Entry },
}

impl Routes {
    /// In matching order. Quadratic in the number of routes: for `check`, not for a reload.
    pub fn findings(&self) -> Vec<Finding<'_>> {
        let mut findings = Vec::new();
        let all: Vec<_> = self.entries.iter().map(|entry| (entry, entry.path.shape())).collect();
        for (at, (entry, shape)) in all.iter().enumerate() {
            let entry = *entry;
            if let Some(conditions) = entry.impossible() {
                findings.push(Finding::Impossible { route: entry, conditions });
                continue;
            }
            let before = all.get(..at).unwrap_or_default();
            if let Some((by, _)) = before.iter().find(|(before, wider)| wider.covers(shape) && before.covers(entry)) {
                findings.push(Finding::Shadowed { route: entry, by });
                continue;
            }
            // Those of the same rank stand side by side.
            let equals = before.iter().rev().take_while(|(before, _)| !before.is_told_from(entry));
            let equals: Vec<_> =
                equals.filter(|(before, other)| other.overlaps(shape) && before.overlaps(entry)).collect();
            findings.extend(equals.into_iter().rev().map(|(first, _)| Finding::Ambiguous { first, second: entry }));
        }
        findings
    }
}

impl Entry {
    /// The positions of two conditions that exclude each other.
    fn impossible(&self) -> Option<(usize, usize)> {
        let numbered = || self.conditions.iter().enumerate();
        let pairs = numbered().flat_map(|(n, one)| numbered().skip(n + 1).map(move |other| ((n, one), other)));
        pairs.into_iter().find(|((_, one), (_, other))| one.excludes(other)).map(|((n, _), (m, _))| (n, m))
    }

    /// It matches every request that `other` matches, if its path does.
    fn covers(&self, other: &Entry) -> bool {
        self.host.covers(&other.host)
            && self.conditions.iter().all(|own| other.conditions.iter().any(|other| other.implies(own)))
    }

    /// Some request may match both, if some path does.
    fn overlaps(&self, other: &Entry) -> bool {
        (self.host.covers(&other.host) || other.host.covers(&self.host))
            && !self.conditions.iter().any(|own| other.conditions.iter().any(|other| own.excludes(other)))
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Shadowed { route, by } => write!(
                f,
                "route {} can never match: {}, which is tried before it, matches all of its requests",
                route.route.name, by.route.name
            ),
            Finding::Impossible { route, conditions: (one, other) } => {
                let text = |n: &usize| route.conditions.get(*n).map(ToString::to_string).unwrap_or_default();
                let name = &route.route.name;
                write!(f, "route {name} can never match: {} excludes {}", text(one), text(other))
            }
            Finding::Ambiguous { first, second } => write!(
                f,
                "routes {} and {} can match the same request, and neither is more specific: {0} wins, because its \
                 name sorts first; set priority",
                first.route.name, second.route.name
            ),
        }
    }
}
