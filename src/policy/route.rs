//! Routes: which request goes where, and what a session on it may do. Owns the order in which
//! routes are tried, the normalised copy of a path that they match on, and the rewrite of the path
//! that is sent on. Knows the patterns as values; how they are written in a file is the business of
//! `config`.

use super::ask::Check;
use super::upstream::Upstream;
use crate::proto::settings::Settings;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// What a session keeps of the route that it was admitted under, also after a reload.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// For logs and metrics: the `name` of the file, else host and path as written. Unique in a
    /// snapshot.
    pub name: String,
    /// Where its sessions go.
    pub upstream: Arc<Upstream>,
    /// Removed from the start of the path, at a segment boundary. Normalised: `/live`, never a
    /// slash at the end.
    pub strip_prefix: Option<String>,
    /// Replaces the Host sent upstream.
    pub host_header: Option<String>,
    /// Checked in this order, after the rules of the handshake.
    pub checks: Vec<Check>,
    pub settings: Arc<Settings>,
}

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

impl Route {
    /// A route to `upstream` with every option at its default.
    pub fn new(name: String, upstream: Arc<Upstream>) -> Route {
        Route { name, upstream, strip_prefix: None, host_header: None, checks: Vec::new(), settings: Arc::default() }
    }

    /// The path (without query) to send to `endpoint_base` (the endpoint's own path, `""` or
    /// `/base`): the client's bytes, but for the rewrite. Always begins with a slash, and stays
    /// below `endpoint_base`.
    ///
    /// - Nothing is stripped and there is no base: the client's bytes, whatever they are.
    /// - Else, if the path holds no dot segment, its segments are those of the normalised copy one
    ///   by one, however they are encoded: the first ones are cut off, the base goes in front, the
    ///   rest are the client's bytes.
    /// - Else the rest comes from the normalised copy. With dot segments, what the client's bytes
    ///   mean below another base depends on who resolves them: `/a//../../x` is `/x` by RFC 3986,
    ///   but climbs out of `/base` at a server that merges slashes first.
    /// - Slashes at the start are made one where the prefix was removed and no base is put in
    ///   front: `//host/x` as a target can be read as an authority.
    pub fn rewrite<'a>(&self, endpoint_base: &str, path: &'a str) -> Cow<'a, str> {
        let decoded = decoded(path);
        let normal = without_dots(&decoded);
        let prefix = self.strip_prefix.as_deref().unwrap_or_default();
        let strips = !prefix.is_empty() && is_under(&normal, prefix);
        if !strips && endpoint_base.is_empty() {
            return if path.starts_with('/') { path.into() } else { normal.into_owned().into() };
        }
        let source = if decoded == normal { path } else { &normal };
        let rest = if strips { after_segments(source, prefix.matches('/').count()) } else { source };
        match endpoint_base {
            "" => format!("/{}", rest.trim_start_matches('/')),
            base => format!("{base}{rest}"),
        }
        .into()
    }
}

/// The copy of a path that routes match on: percent-encoded unreserved characters (RFC 3986,
/// section 2.3) decoded, the hex digits of all others in upper case, a `%` that begins no encoding
/// written `%25`, dot segments removed (section 5.2.4) without climbing above the root. Begins with
/// a slash. Normalising twice changes nothing.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    match decoded(path) {
        Cow::Borrowed(path) => without_dots(path),
        Cow::Owned(path) => without_dots(&path).into_owned().into(),
    }
}

/// The copy of a host that routes match on: without port and trailing dot, lower case, an IPv6
/// address in its canonical form in brackets.
pub fn normal_host(host: &str) -> Cow<'_, str> {
    if let Some((inside, _port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match inside.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]").into(),
            Err(_) => format!("[{}]", inside.to_ascii_lowercase()).into(),
        };
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_lower { name.into() } else { name.to_ascii_lowercase().into() }
}

/// `path` is `prefix` or goes on below it with a slash. Both normalised.
pub fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        rest = after;
        let Some(byte) = after.get(..2).and_then(hex) else {
            out.push_str("%25");
            continue;
        };
        rest = after.get(2..).unwrap_or_default();
        match char::from(byte) {
            c if c.is_ascii_alphanumeric() || "-._~".contains(c) => out.push(c),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out.push_str(rest);
    out.into()
}

fn hex(digits: &str) -> Option<u8> {
    // `from_str_radix` alone would take a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

fn without_dots(path: &str) -> Cow<'_, str> {
    // Most have none: a segment of dots begins with one.
    if path.starts_with('/') && !path.contains("/.") {
        return path.into();
    }
    let mut kept = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // A dot segment at the end leaves its slash: `/a/..` is `/`, `/a/.` is `/a/`.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/")).into()
}

/// What follows the first `count` segments: empty or with its slash. `path` begins with a slash.
fn after_segments(path: &str, count: usize) -> &str {
    path.match_indices('/').nth(count).and_then(|(at, _)| path.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(name: &str, strip_prefix: Option<&str>) -> Arc<Route> {
        let upstream = Arc::new(Upstream::new("app".into(), Vec::new()));
        Arc::new(Route { strip_prefix: strip_prefix.map(str::to_owned), ..Route::new(name.into(), upstream) })
    }

    /// Routes named by their patterns, in the given order.
    fn routes(patterns: &[(HostPattern, PathPattern)]) -> Routes {
        let entry = |(host, path): &(HostPattern, PathPattern)| Entry {
            host: host.clone(),
            path: path.clone(),
            route: route(&format!("{host:?} {path:?}"), None),
        };
        Routes::new(patterns.iter().map(entry).collect())
    }

    #[test]
    fn paths_are_normalised() {
        for (path, normal) in [
            ("/", "/"),
            ("", "/"),
            ("*", "/*"),
            ("chat", "/chat"),
            ("/chat", "/chat"),
            ("/chat/", "/chat/"),
            ("/%63hat", "/chat"),
            ("/%6Cive/%7e%2d%2E%5f", "/live/~-._"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%40%c3%A9", "/%40%C3%A9"),
            ("/@:;=", "/@:;="),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../x", "/x"),
            ("/a/../../x", "/x"),
            ("//a", "//a"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/...", "/..."),
            ("/..%2F", "/..%2F"),
            ("/%", "/%25"),
            ("/%4", "/%254"),
            ("/%zz", "/%25zz"),
            ("/%+4", "/%25+4"),
            ("/%%341", "/%2541"),
            ("/%2541", "/%2541"),
            ("/%é", "/%25é"),
            ("/%252e%252e/", "/%252e%252e/"),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
        }
    }

    #[test]
    fn hosts_are_normalised() {
        for (host, normal) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com:8080", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]"),
            ("[2001:DB8:0:0:0:0:0:1]:80", "[2001:db8::1]"),
            ("[V1.x]:80", "[v1.x]"),
            ("[::1", "[:"),
            ("a:b", "a:b"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(normal_host(host), normal, "{host}");
        }
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

    #[test]
    fn the_rewrite_keeps_the_clients_bytes() {
        for (strip, base, path, sent) in [
            (None, "", "/a%2fb/%7E//c", "/a%2fb/%7E//c"),
            (None, "", "/a/../b", "/a/../b"),
            (None, "", "//host/x", "//host/x"),
            (None, "", "", "/"),
            (None, "", "*", "/*"),
            (None, "/base", "/a%2fb/%7E//c", "/base/a%2fb/%7E//c"),
            (None, "/base", "/", "/base/"),
            (None, "/base", "//x", "/base//x"),
            (None, "/base", "/a//../../x", "/base/x"),
            (None, "/base", "/../x", "/base/x"),
            (None, "/base", "/%2e%2e/x", "/base/x"),
            (None, "/base", "x", "/base/x"),
            (Some("/live"), "", "/live/x%7E", "/x%7E"),
            (Some("/live"), "", "/%6Cive/x%7E", "/x%7E"),
            (Some("/live"), "", "/live", "/"),
            (Some("/live"), "", "/live/", "/"),
            (Some("/live"), "", "/live//host/x", "/host/x"),
            (Some("/live"), "", "/livelier", "/livelier"),
            (Some("/live"), "", "/live%2Fx", "/live%2Fx"),
            (Some("/live"), "", "//live/x", "//live/x"),
            (Some("/live"), "", "/x/../y", "/x/../y"),
            (Some("/live"), "", "/a/../live/%7E/../x%2f", "/x%2F"),
            (Some("/live"), "/base", "/live", "/base"),
            (Some("/live"), "/base", "/live/", "/base/"),
            (Some("/live"), "/base", "/live/x", "/base/x"),
            (Some("/live"), "/base", "/live//x", "/base//x"),
            (Some("/live"), "/base", "/live/../x", "/base/x"),
            (Some("/live"), "/base", "/live/x/../../../etc", "/base/etc"),
            (Some("/live"), "/base", "/other", "/base/other"),
            (Some("/live/v1"), "/base", "/%6cive/v%31/%zz", "/base/%zz"),
        ] {
            assert_eq!(route("r", strip).rewrite(base, path), sent, "{strip:?} {base} {path}");
        }
    }

    /// What a server makes of a path that merges slashes before it resolves dot segments.
    fn merging(path: &str) -> String {
        let mut merged = decoded(path).into_owned();
        while merged.contains("//") {
            merged = merged.replace("//", "/");
        }
        without_dots(&merged).into_owned()
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent(path in "(/|%2[eEfF]|%[0-9a-f]{0,2}|\\.|a|é|[!-~]){0,12}|.*") {
            let normal = normal_path(&path);
            prop_assert!(normal.starts_with('/'));
            prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert_eq!(normal_path(&normal), normal.clone());
        }

        #[test]
        fn normalising_hosts_never_panics(host in "([a-zA-Z.:0-9]|\\[|\\]){0,12}|.*") {
            let normal = normal_host(&host);
            prop_assert_eq!(normal.to_ascii_lowercase(), normal.into_owned());
        }

        #[test]
        fn a_rewritten_path_stays_below_its_base(
            path in "/(/|%2[eE]|\\.|\\.\\./|a|live/|%6cive/){0,12}",
            strip in prop::option::of(Just("/live")),
        ) {
            let route = route("r", strip);
            let sent = route.rewrite("/base", &path);
            prop_assert!(is_under(&normal_path(&sent), "/base"), "{}", sent);
            prop_assert!(is_under(&merging(&sent), "/base"), "{}", sent);
            let sent = route.rewrite("", &path);
            prop_assert!(sent.starts_with('/'));
            prop_assert!(sent == path || !sent.starts_with("//"), "{}", sent);
        }

        #[test]
        fn stripping_commutes_with_normalising(path in "/(live|%6Cive)(/(a|%2f|%7e|%zz|x\\.y|~){0,3}){0,3}") {
            let sent = route("r", Some("/live")).rewrite("/base", &path);
            let expected = format!("/base{}", &normal_path(&path)["/live".len()..]);
            prop_assert_eq!(normal_path(&sent), expected);
        }
    }
}
