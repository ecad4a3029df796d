//! The normal forms that requests are matched in: of a path, and of a host. What is sent on are the
//! client's own bytes; `rewrite` takes what it needs of them from here.

use std::borrow::Cow;
use std::net::Ipv6Addr;

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

pub(super) fn decoded(path: &str) -> Cow<'_, str> {
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

pub(super) fn hex(digits: &str) -> Option<u8> {
    // `from_str_radix` alone would take a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

pub(super) fn without_dots(path: &str) -> Cow<'_, str> {
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
pub(super) fn after_segments(path: &str, count: usize) -> &str {
    path.match_indices('/').nth(count).and_then(|(at, _)| path.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    }
}
