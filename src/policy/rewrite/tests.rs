//! Rewriting by table and by property: what leaves, that it stays below its base, and that nothing
//! in it was put together to something that it must not hold.

use super::*;
use crate::policy::Facts;
use crate::policy::matching::Captures;
use crate::policy::template::Names;
use crate::proto::http1::Request;
use proptest::prelude::*;
use std::sync::Arc;

const CAPTURES: [&str; 2] = ["name", "rest"];

fn strip(prefix: &str) -> PathRule {
    PathRule::Strip(prefix.to_owned())
}

fn replace(pattern: &str, replace: &str) -> PathRule {
    let pattern = Pattern::new(pattern).unwrap();
    let names = Names { captures: &CAPTURES, groups: &pattern.groups() };
    let template = Template::parse(replace, &names).unwrap();
    PathRule::Replace(Replacement { pattern, template })
}

fn fixed(path: &str) -> PathRule {
    PathRule::Path(Template::parse(path, &Names { captures: &CAPTURES, groups: &[] }).unwrap())
}

/// What is sent for `path`, where the names of the route's path stand for `captured`.
fn sent_with(rule: &PathRule, [base, prefix]: [&str; 2], path: &str, captured: [&str; 2]) -> String {
    let request = Request {
        is_http10: false,
        method: "GET",
        target: path,
        path,
        query: "?q=a%20/b",
        host: "H.example:80",
        fields: Vec::new(),
    };
    let facts = Facts::of(&request);
    let captures: Captures =
        CAPTURES.iter().zip(captured).map(|(name, text)| (Arc::from(*name), text.to_owned())).collect();
    let rewrite = PathRewrite { rule: rule.clone(), add_prefix: prefix.to_owned() };
    let variables = Variables { facts: &facts, route: "r", captures: &captures, identity: None };
    rewrite.apply(base, &variables).into_owned()
}

fn sent(rule: &PathRule, base: &str, path: &str) -> String {
    sent_with(rule, [base, ""], path, ["", ""])
}

fn rows(rule: &PathRule, rows: &[(&str, &str, &str)]) {
    for (base, path, want) in rows {
        assert_eq!(sent(rule, base, path), *want, "{rule:?} {base} {path}");
        // Base and prefix are one.
        if let (base @ "/base", prefix) = (*base, "/more") {
            let want = want.replacen("/base", "/base/more", 1);
            assert_eq!(sent_with(rule, [base, prefix], path, ["", ""]), want, "{rule:?} {base} {path}");
        }
    }
}

#[test]
fn without_a_rule_the_clients_bytes_are_kept() {
    rows(
        &PathRule::Keep,
        &[
            ("", "/a%2fb/%7E//c", "/a%2fb/%7E//c"),
            ("", "/a/../b", "/a/../b"),
            ("", "//host/x", "//host/x"),
            ("", "", "/"),
            ("", "*", "/*"),
            ("/base", "/a%2fb/%7E//c", "/base/a%2fb/%7E//c"),
            ("/base", "/", "/base/"),
            ("/base", "//x", "/base//x"),
            ("/base", "/a//../../x", "/base/x"),
            ("/base", "/../x", "/base/x"),
            ("/base", "/%2e%2e/x", "/base/x"),
            ("/base", "x", "/base/x"),
            ("/base", "/a/..%2fx", "/base/a/..%2fx"),
            ("/base", "/{a}|^`b", "/base/{a}|^`b"),
        ],
    );
}

#[test]
fn a_prefix_is_stripped_at_a_segment() {
    rows(
        &strip("/live"),
        &[
            ("", "/live/x%7E", "/x%7E"),
            ("", "/%6Cive/x%7E", "/x%7E"),
            ("", "/live", "/"),
            ("", "/live/", "/"),
            ("", "/live//host/x", "/host/x"),
            ("", "/livelier", "/livelier"),
            ("", "/live%2Fx", "/live%2Fx"),
            ("", "//live/x", "//live/x"),
            ("", "/x/../y", "/x/../y"),
            ("", "/a/../live/%7E/../x%2f", "/x%2F"),
            ("/base", "/live", "/base"),
            ("/base", "/live/", "/base/"),
            ("/base", "/live/x", "/base/x"),
            ("/base", "/live//x", "/base//x"),
            ("/base", "/live/../x", "/base/x"),
            ("/base", "/live/x/../../../etc", "/base/etc"),
            ("/base", "/other", "/base/other"),
            // At a server that decodes slashes first, these would climb.
            ("/base", "/live/..%2fetc", "/base/etc"),
            ("/base", "/live/%2e.%2F..%2fetc", "/base/etc"),
            ("/base", "/live/a/..%2f..%2f..%2fetc%2Fb", "/base/etc/b"),
            ("", "/live/..%2f/host", "/host"),
            // This one does not.
            ("/base", "/live/a/..%2fb", "/base/a/..%2fb"),
        ],
    );
    rows(&strip("/live/v1"), &[("/base", "/%6cive/v%31/%zz", "/base/%zz"), ("", "/live/v1", "/")]);
}

#[test]
fn every_match_of_a_pattern_is_replaced() {
    // RewritePath=/ws/(?<segment>.*), /$\{segment}
    rows(
        &replace("^/ws/(?<segment>.*)", "/{segment}"),
        &[
            ("", "/ws/chat", "/chat"),
            ("", "/ws/chat/7", "/chat/7"),
            ("", "/ws/", "/"),
            ("", "/ws", "/ws"),
            ("", "/wss/chat", "/wss/chat"),
            ("", "/other//x/../y", "/other//x/../y"),
            ("", "/%77s/chat", "/chat"),
            ("", "/ws/a%2fb", "/a%2Fb"),
            ("", "/ws/%7Eme", "/~me"),
            ("", "/ws//host/x", "/host/x"),
            ("", "/x/../ws/chat", "/chat"),
            ("", "/ws/../chat", "/ws/../chat"),
            ("", "/ws/x/../../ws/y", "/y"),
            ("", "/ws/{x}", "/{x}"),
            ("", "/ws/%00", "/%2500"),
            ("/base", "/ws/chat", "/base/chat"),
            ("/base", "/ws/", "/base/"),
            ("/base", "/ws//x", "/base//x"),
            ("/base", "/other", "/base/other"),
            ("/base", "/ws/..%2f..%2fetc", "/base/etc"),
        ],
    );
    rows(
        &replace("^/v(\\d+)/([^/]+)", "/{2}/v{1}"),
        &[
            ("", "/v2/chat", "/chat/v2"),
            ("", "/v2/chat/7", "/chat/v2/7"),
            ("", "/v2", "/v2"),
            ("", "/vx/chat", "/vx/chat"),
            ("/base", "/v10/a", "/base/a/v10"),
        ],
    );
    // Everywhere, as others do; `{0}` is the match.
    rows(&replace("a", "b"), &[("", "/a/xaa", "/b/xbb"), ("", "/c", "/c")]);
    rows(&replace("[0-9]+", "({0})"), &[("", "/a1/22", "/a(1)/(22)")]);
    rows(
        &replace("/", ""),
        &[("", "/a/b", "/ab"), ("/base", "/a/b", "/base/ab"), ("", "/", "/"), ("/base", "/", "/base/")],
    );
    rows(&replace("^.*$", ""), &[("", "/a", "/"), ("/base", "/a/b", "/base/")]);
    rows(&replace("^/old", "/new%20place"), &[("", "/old/x", "/new%20place/x")]);
    // A group that did not take part.
    rows(&replace("^/a(/b)?", "/x{1}"), &[("", "/a", "/x"), ("", "/a/b/c", "/x/b/c")]);
    // Other variables are one segment.
    rows(&replace("^/a", "/{host}{query.q}/{method}"), &[("", "/a/b", "/h.examplea%20%2Fb/GET/b")]);
}

#[test]
fn what_is_put_together_is_normalised_again() {
    for (pattern, text, path, want) in [
        // Dot segments from pieces.
        ("^/a(?<x>.*)$", "/{x}", "/a..", "/base/"),
        ("^/a(?<x>.*)$", "/b/{x}/c", "/a..", "/base/c"),
        ("^/(?<x>.)(?<y>.)", "/{x}{y}", "/.a", "/base/.a"),
        ("a", "", "/.a./etc", "/base/etc"),
        ("a", "", "/x/.a./.a./.a./etc", "/base/etc"),
        ("x", "/", "/.x..x../etc", "/base/etc"),
        // Escapes from pieces.
        ("^/(?<x>.)(?<y>..)", "/{x}2e{x}2e/", "/%2F", "/base/"),
        ("^/(?<x>.)(?<y>..)", "/{x}2e{x}2e{x}2f{x}2e{x}2eetc", "/%2F", "/base/..etc"),
        ("^/(?<x>.)(?<y>..)", "/{x}00", "/%2F", "/base/%2500"),
        ("^/(?<x>.)(?<y>..)", "/{x}zz", "/%2F", "/base/%25zz"),
        ("^/(?<x>.)(?<y>..)", "/a{x}", "/%2F", "/base/a%25"),
        ("-", "%2F", "/..-..-etc", "/base/etc"),
        // A path without its slash.
        ("^/", "", "/x", "/base/x"),
        ("^/.*$", "..", "/x", "/base/"),
    ] {
        assert_eq!(sent(&replace(pattern, text), "/base", path), want, "{pattern} {text} {path}");
    }
    for (rule, path, want) in [
        (replace("^/x", "//host"), "/x", "/host"),
        (replace("^/x", ""), "/x//host/y", "/host/y"),
        (replace("^/.*$", "{rest}"), "/x", "/host/a"),
        (fixed("/{rest}"), "/x", "/host/a"),
    ] {
        assert_eq!(sent_with(&rule, ["", ""], path, ["", "//host/a"]), want, "{rule:?} {path}");
    }
}

#[test]
fn a_fixed_path_takes_its_names_from_the_route() {
    for (text, captured, want) in [
        ("/fixed", ["", ""], "/fixed"),
        ("/fixed/{name}", ["chat", ""], "/fixed/chat"),
        ("/fixed/{path.name}/", ["chat", ""], "/fixed/chat/"),
        ("/{rest}", ["", "a/b"], "/a/b"),
        ("/{rest}/{name}", ["x", "a/b/"], "/a/b//x"),
        ("/{{{name}}}", ["x", ""], "/{x}"),
        ("/{name}", ["%7e%2f", ""], "/~%2F"),
        ("/{name}", ["..", ""], "/"),
        ("/a/{name}/{name}/{name}/b", ["..", ""], "/b"),
        ("/a/{rest}", ["", "../../b"], "/b"),
        ("/a/{rest}", ["", "..%2f..%2fb"], "/b"),
        ("/{name}", ["%00", ""], "/%2500"),
        ("{path}/x", ["", ""], "/client/x"),
        ("/{host}/{client_ip}/{route}/{request_id}", ["", ""], "/h.example/203.0.113.7/r/id-1"),
        ("/{query.q}", ["", ""], "/a%20%2Fb"),
        ("/{query.none}/x", ["", ""], "/x"),
        ("/{header.none}{cookie.none}{tls.subject}", ["", ""], "/"),
    ] {
        // Without a base, several slashes at the start are one.
        assert_eq!(sent_with(&fixed(text), ["", ""], "/client", captured), want, "{text} {captured:?}");
        let below = sent_with(&fixed(text), ["/base", "/more"], "/client", captured);
        assert!(is_under(&below, "/base/more"), "{text} {captured:?} {below}");
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

/// The same of one that decodes encoded slashes before both.
fn decoding(path: &str) -> String {
    merging(&decoded(path).replace("%2F", "/"))
}

/// Nothing that a request target must not hold.
fn is_clean(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\".contains(&byte))
}

fn any_rule() -> impl Strategy<Value = PathRule> {
    let template = "[a./]{0,2}(\\{(1|2|name|rest|path|header\\.x)\\}|%2[eEfF]|\\.){0,4}";
    let pattern = prop::sample::select(vec!["^/(.*)/(.*)$", "(.)(.)", "(live)/(.*)", "(%)(..)", "(/+)(\\.*)"]);
    prop_oneof![
        Just(PathRule::Keep),
        Just(strip("/live")),
        (pattern, template).prop_map(|(pattern, text)| replace(pattern, &text)),
        "/[a./]{0,2}(\\{(name|rest|path)\\}|%2[eEfF]|\\.|/){0,4}".prop_map(|text| fixed(&text)),
    ]
}

proptest! {
    #[test]
    fn a_rewritten_path_stays_below_its_base(
        rule in any_rule(),
        path in "/(/|%2[eEfF]|\\.|\\.\\./|a|live/|%6cive/){0,12}",
        rest in "(/|%2[eEfF]|%00|\\.|\\.\\./|a){0,6}",
    ) {
        // What climbs is refused before it gets here (RFC 9112 section 3.2 and our own rules).
        prop_assume!(!climbs(&path, true) && !climbs(&path, false));
        let sent = sent_with(&rule, ["/base", "/more"], &path, ["..", &rest]);
        prop_assert!(is_clean(&sent), "{}", sent);
        for seen in [normal_path(&sent).into_owned(), merging(&sent), decoding(&sent)] {
            prop_assert!(is_under(&seen, "/base/more"), "{} is {}", sent, seen);
        }
        let sent = sent_with(&rule, ["", ""], &path, ["..", &rest]);
        prop_assert!(is_clean(&sent), "{}", sent);
        prop_assert!(sent == path || !sent.starts_with("//"), "{}", sent);
        prop_assert!(!climbs(&sent, true), "{}", sent);
    }

    #[test]
    fn no_capture_and_no_path_smuggles(
        rule in any_rule(),
        path in "/[!$-;=@-\\[\\]-~]{0,24}",
        rest in "[!$-;=@-\\[\\]-~]{0,24}",
    ) {
        let sent = sent_with(&rule, ["/base", ""], &path, ["a", &rest]);
        prop_assert!(is_clean(&sent), "{}", sent);
        prop_assert!(!sent.contains("%00") || path.contains("%00"), "{}", sent);
    }

    #[test]
    fn stripping_commutes_with_normalising(path in "/(live|%6Cive)(/(a|%2f|%7e|%zz|x\\.y|~){0,3}){0,3}") {
        let sent = sent(&strip("/live"), "/base", &path);
        let expected = format!("/base{}", &normal_path(&path)["/live".len()..]);
        prop_assert_eq!(normal_path(&sent), expected);
    }
}
