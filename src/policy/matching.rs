//! Which route a request gets: the patterns of routes as values, and the order in which they are
//! tried. How they are written in a file is the business of `config`.

use super::path::{is_under, normal_host, normal_path};
use super::route::Route;
use std::cmp::Reverse;
use std::sync::Arc;

/// All routes of a snapshot, most specific first where two match.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routes {
    entries: Vec<Entry>,
}

/// One route and the requests that it matches.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub host: HostPattern,
    pub path: PathPattern,
    pub route: Arc<Route>,
}

/// The hosts that a route serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// A host as [`normal_host`] gives it.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: one or more labels before it.
    Under(String),
    Any,
}

/// The paths that a route serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// A path as [`normal_path`] gives it.
    Exact(String),
    /// `/live/*`, kept as `/live`: that path itself and all below it. Empty for `/*`.
    Under(String),
}

impl Routes {
    /// Sorts `entries` into the order in which they are tried. No two may have the same host and
    /// path.
    pub fn new(mut entries: Vec<Entry>) -> Routes {
        entries.sort_by_key(|entry| (entry.host.rank(), entry.path.rank()));
        Routes { entries }
    }

    /// The route for a request: exact host before wildcard (the longest first) before any host,
    /// then exact path before prefix, and the longest prefix wins. A host of which no path matches
    /// gives way to less specific ones. `host` is the request's Host as written (port and case do
    /// not matter), `path` the path as written (matched on a normalised copy: unreserved characters
    /// decoded, dot segments removed).
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let (host, path) = (normal_host(host), normal_path(path));
        // Linear: once a session, and a few nanoseconds a route.
        let entry = self.entries.iter().find(|entry| entry.host.matches(&host) && entry.path.matches(&path))?;
        Some(&entry.route)
    }

    /// In the order in which they are tried.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host == exact,
            HostPattern::Under(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            HostPattern::Any => true,
        }
    }

    fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            HostPattern::Exact(_) => (0, Reverse(0)),
            HostPattern::Under(suffix) => (1, Reverse(suffix.len())),
            HostPattern::Any => (2, Reverse(0)),
        }
    }
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => path == exact,
            PathPattern::Under(prefix) => is_under(path, prefix),
        }
    }

    fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            PathPattern::Exact(_) => (0, Reverse(0)),
            PathPattern::Under(prefix) => (1, Reverse(prefix.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::upstream::Upstream;

    /// Routes named by their patterns, in the given order.
    fn routes(patterns: &[(HostPattern, PathPattern)]) -> Routes {
        let entry = |(host, path): &(HostPattern, PathPattern)| Entry {
            host: host.clone(),
            path: path.clone(),
            route: Arc::new(Route::new(
                format!("{host:?} {path:?}"),
                Arc::new(Upstream::new("app".into(), Vec::new())),
            )),
        };
        Routes::new(patterns.iter().map(entry).collect())
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        use HostPattern as H;
        use PathPattern as P;
        let host = |h: &str| H::Exact(h.into());
        let all = [
            (H::Any, P::Under(String::new())),
            (H::Any, P::Under("/live".into())),
            (H::Under(".example.com".into()), P::Under(String::new())),
            (H::Under(".eu.example.com".into()), P::Under("/live".into())),
            (host("a.example.com"), P::Under("/live".into())),
            (host("a.example.com"), P::Under("/live/v1".into())),
            (host("a.example.com"), P::Exact("/live/v1".into())),
            (H::Any, P::Exact("/live/v1/only".into())),
        ];
        let mut reversed = all.clone();
        reversed.reverse();
        for (host, path, expected) in [
            ("other", "/", 0),
            ("other", "/live", 1),
            ("other", "/live/", 1),
            ("other", "/livelier", 0),
            ("other", "/%6cive/x", 1),
            ("other", "/x/../live/x", 1),
            ("other", "/live/../x", 0),
            ("other", "/live%2Fx", 0),
            ("other", "/live/v1/only", 7),
            ("example.com", "/", 0),
            (".example.com", "/", 0),
            ("b.example.com", "/live", 2),
            ("b.c.Example.Com:80", "/", 2),
            ("notexample.com", "/", 0),
            ("x.eu.example.com", "/live/x", 3),
            ("x.eu.example.com", "/x", 2),
            ("a.example.com", "/live/v2", 4),
            ("a.example.com", "/live/v1", 6),
            ("a.example.com", "/live/v1/x", 5),
            ("a.example.com", "/live/v1/only", 5),
            ("A.EXAMPLE.com.:443", "/live/v1", 6),
            ("a.example.com", "/x", 2),
        ] {
            let name = format!("{:?} {:?}", all[expected].0, all[expected].1);
            for patterns in [&all, &reversed] {
                let found = routes(patterns).find(host, path).map(|route| route.name.clone());
                assert_eq!(found.as_deref(), Some(name.as_str()), "{host}{path}");
            }
        }
        assert!(routes(&all[4..7]).find("a.example.com", "/x").is_none());
        assert!(Routes::default().find("a", "/").is_none());
    }
}
