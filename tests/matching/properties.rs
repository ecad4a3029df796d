//! Properties of random routes and requests: the index finds what a naive search finds, order in
//! the file never matters, and a route that is less specific changes nothing for a more specific
//! one.

use super::{answer, asking, routes};
use framegate::config;
use framegate::policy::matching::{Entry, Finding, Routes};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::HashSet;

/// A small world, so that routes and requests meet: keys of a route.
fn keys() -> impl Strategy<Value = String> {
    let host = select(vec!["", "a", "b.a", "*.a", "*.b.a", "*.c"]);
    let segment = select(vec!["a", "b", "{x}", "{y}"]);
    let path = (prop::collection::vec(segment, 0..4), select(vec!["", "", "/", "/*", "/{*r}"]));
    let condition = select(vec![
        "header = \"h\", is = \"1\"",
        "header = \"h\", prefix = \"1\"",
        "header = \"h\", prefix = \"12\"",
        "subprotocol = { prefix = \"p\" }",
        "header = \"h\", regex = \"[12]+\"",
        "header = \"h\", present = true",
        "query = \"q\", is = \"1\"",
        "cookie = \"c\", present = true",
        "client = \"10.0.0.0/8\"",
        "client = \"10.1.0.0/16\"",
        "client = [\"10.2.2.3\", \"10.1.9.9/16\", \"::/0\"]",
        "subprotocol = \"p\"",
        "method = \"GET\"",
    ]);
    let conditions = prop::collection::vec((condition, any::<bool>()), 0..3);
    (host, path, conditions, select(vec![0, 0, 0, 1, -1])).prop_filter_map(
        "a name twice",
        |(host, (segments, rest), conditions, priority)| {
            let twice = |name: &str| segments.iter().filter(|segment| **segment == name).count() > 1;
            let mut keys = format!("priority = {priority}\n");
            if !host.is_empty() {
                keys += &format!("host = \"{host}\"\n");
            }
            let path = segments.iter().fold(String::new(), |path, segment| path + "/" + segment) + rest;
            let path = if path.is_empty() { "/*" } else { &path };
            let conditions = conditions.iter().map(|(text, not)| format!("{{ {text}, not = {not} }}"));
            keys += &format!("path = \"{path}\"\nmatch = [{}]", conditions.collect::<Vec<_>>().join(", "));
            (!twice("{x}") && !twice("{y}")).then_some(keys)
        },
    )
}

fn request() -> impl Strategy<Value = String> {
    let host = select(vec!["a", "b.a", "c.b.a", "x.c", "A:80", "z"]);
    let path = prop::collection::vec(select(vec!["a", "b", "c", "", "%61", ".."]), 1..5);
    let more = prop::collection::vec(
        select(vec!["h: 1", "h: 12", "h: x", "cookie: c=1", "@10.1.2.3", "@10.2.2.3", "sec-websocket-protocol: p, q"]),
        0..4,
    );
    (select(vec!["GET", "GET", "POST"]), host, path, select(vec!["", "?q=1", "?q=2"]), more).prop_filter_map(
        "above the root",
        |(method, host, path, query, more)| {
            let depth = path.iter().scan(0, |depth, segment| {
                *depth += match *segment {
                    ".." => -1,
                    "" => 0,
                    _ => 1,
                };
                Some(*depth)
            });
            let rest: String = more.iter().map(|part| format!(" | {part}")).collect();
            let text = format!("{method} {host}/{}{query}{rest}", path.join("/"));
            depth.min().is_some_and(|least| least >= 0).then_some(text)
        },
    )
}

/// Routes of these keys, named by their numbers; those that match the same as an earlier one are
/// left out.
fn sections(keys: Vec<String>) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    let named = keys.into_iter().enumerate().map(|(n, keys)| (format!("r{n:02}"), keys));
    named.filter(|(name, keys)| seen.insert(one(name, keys).entries()[0].identity())).collect()
}

fn one(name: &str, keys: &str) -> Routes {
    routes(&[(name, keys)])
}

fn built(sections: &[(String, String)]) -> Routes {
    let sections: Vec<_> = sections.iter().map(|(name, keys)| (name.as_str(), keys.as_str())).collect();
    routes(&sections)
}

/// What the pattern of a path means, written once more in the plainest way.
fn naive_path(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut has): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    let rest = wanted.last().is_some_and(|last| *last == "*" || last.starts_with("{*"));
    if rest {
        wanted.pop();
        has.truncate(wanted.len());
    }
    let same = |(wanted, has): (&&str, &&str)| if wanted.starts_with('{') { !has.is_empty() } else { wanted == has };
    wanted.len() == has.len() && wanted.iter().zip(&has).all(same)
}

fn naive_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        _ if pattern.is_empty() => true,
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|before| !before.is_empty()),
        None => host == pattern,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_a_naive_search(
        keys in prop::collection::vec(keys(), 1..25),
        requests in prop::collection::vec(request(), 1..25),
    ) {
        let routes = built(&sections(keys));
        for request in &requests {
            // `answer` compares with the first entry that matches when each is looked at alone;
            // that is compared with the plainest meaning of the patterns.
            let asking = asking(request);
            answer(&routes, &asking);
            asking.with(|facts| {
                let host = facts.request.host.split(':').next().unwrap().to_lowercase();
                let path = framegate::policy::path::normal_path(facts.request.path);
                for entry in routes.entries() {
                    let (wanted_host, wanted_path) = (entry.host.to_string(), entry.path.to_string());
                    let matches = naive_host(&wanted_host, &host) && naive_path(&wanted_path, &path);
                    let holds = entry.conditions.iter().all(|condition| condition.holds(facts));
                    prop_assert_eq!(matches && holds, entry.mismatch(facts).is_none(), "{} {}", entry, request);
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn order_in_the_file_never_matters(
        keys in prop::collection::vec(keys(), 1..12).prop_shuffle(),
        swaps in prop::collection::vec(any::<(Index, Index)>(), 0..12),
        requests in prop::collection::vec(request(), 1..12),
    ) {
        let mut sections = sections(keys);
        let before = built(&sections);
        for (a, b) in swaps {
            let (a, b) = (a.index(sections.len()), b.index(sections.len()));
            sections.swap(a, b);
        }
        let after = built(&sections);
        prop_assert_eq!(&before, &after);
        for request in &requests {
            prop_assert_eq!(answer(&before, &asking(request)), answer(&after, &asking(request)), "{}", request);
        }
    }

    #[test]
    fn one_more_route_changes_nothing_for_those_before_it(
        keys in prop::collection::vec(keys(), 2..12),
        requests in prop::collection::vec(request(), 1..25),
    ) {
        let sections = sections(keys);
        // A file needs one route, beside the last.
        prop_assume!(sections.len() > 1);
        let (last, others) = sections.split_last().unwrap();
        let (before, after) = (built(others), built(&sections));
        let rank = |name: &str| after.entries().iter().position(|entry| entry.route.name == name);
        for request in &requests {
            let (old, new) = (answer(&before, &asking(request)), answer(&after, &asking(request)));
            let name = |answer: &str| answer.split(' ').next().unwrap().to_owned();
            if name(&new) == last.0 {
                // It took the request from a route after it, or from none.
                prop_assert!(rank(&name(&old)).is_none_or(|old| rank(&last.0).unwrap() < old), "{}", request);
            } else {
                prop_assert_eq!(old, new, "{}", request);
            }
        }
    }

    #[test]
    fn a_shadowed_route_gets_no_request(
        keys in prop::collection::vec(keys(), 2..20),
        requests in prop::collection::vec(request(), 1..40),
    ) {
        let routes = built(&sections(keys));
        let name = |entry: &Entry| entry.route.name.clone();
        let never: HashSet<String> = routes.findings().iter().filter_map(|finding| match finding {
            Finding::Shadowed { route, .. } | Finding::Impossible { route, .. } => Some(name(route)),
            Finding::Ambiguous { .. } => None,
        }).collect();
        let pairs: HashSet<_> = routes.findings().iter().filter_map(|finding| match finding {
            Finding::Ambiguous { first, second } => Some((name(first), name(second))),
            _ => None,
        }).collect();
        for request in &requests {
            asking(request).with(|facts| {
                let found = routes.find(facts).map(|found| name(found.entry));
                prop_assert!(found.is_none_or(|found| !never.contains(&found)), "{}", request);
                // All of the same rank that match are named as ambiguous.
                let mut matching = routes.entries().to_vec();
                matching.retain(|entry| entry.mismatch(facts).is_none());
                for (at, first) in matching.iter().enumerate() {
                    for second in &matching[at + 1..] {
                        let told = first.is_told_from(second) || never.contains(&name(second));
                        prop_assert!(told || pairs.contains(&(name(first), name(second))), "{} {}", first, second);
                    }
                }
                Ok(())
            })?;
        }
    }
}

#[test]
fn a_long_host_or_path_costs_no_more_than_the_patterns() {
    let mut text = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n".to_owned();
    let paths = ["/{a}/{b}/{c}/{d}", "/{a}/{b}/c", "/a/{b}/c/{d}/*", "/a/a/a/a/a"];
    for (n, path) in paths.iter().enumerate() {
        let keys = format!("name = \"r{n}\"\nhost = \"*.a\"\npath = \"{path}\"\nupstream = \"ws://10.0.0.1:9000\"\n");
        text += &format!("[[route]]\n{keys}");
    }
    let routes = config::parse(&text, "f").unwrap().routes;
    let long = format!("{}a{}", "a.".repeat(4000), "/a".repeat(4000));
    assert_eq!(answer(&routes, &asking(&long)), "-");
    assert_eq!(answer(&routes, &asking(&format!("{}a/a/x/c/y/z", "a.".repeat(4000)))), "r2 b=x d=y");
}
