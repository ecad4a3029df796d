//! What `check` says of routes: the order, those that can never match, those that cannot be told
//! apart.

use super::{file, routes};
use framegate::config;

/// The findings, whatever the order of the sections is.
#[track_caller]
fn findings(sections: &[(&str, &str)]) -> Vec<String> {
    let text = |sections: &[(&str, &str)]| -> Vec<String> {
        routes(sections).findings().iter().map(ToString::to_string).collect()
    };
    let mut reversed = sections.to_vec();
    reversed.reverse();
    let found = text(sections);
    assert_eq!(text(&reversed), found);
    found
}

const X1: &str = r#"{ header = "x", is = "1" }"#;

fn shadowed(route: &str, by: &str) -> String {
    format!("route {route} can never match: {by}, which is tried before it, matches all of its requests")
}

#[test]
fn routes_that_can_never_match_are_found() {
    for (first, second) in [
        // By priority a less specific route comes first.
        ("priority = 1", "path = \"/chat\""),
        ("priority = 1\npath = \"/chat/*\"", "path = \"/chat\""),
        ("priority = 1\npath = \"/chat/*\"", "path = \"/chat/{x}/*\""),
        ("priority = 1\npath = \"/{x}\"", "path = \"/chat\""),
        ("priority = 1\nhost = \"*.b\"", "host = \"*.a.b\""),
        ("priority = 1\nhost = \"*.b\"", "host = \"a.b\""),
        ("priority = 1\nmatch = [{ header = \"x\", present = true }]", "match = [{ header = \"x\", is = \"1\" }]"),
        ("priority = 1\nmatch = [{ header = \"x\", prefix = \"a\" }]", "match = [{ header = \"x\", prefix = \"ab\" }]"),
        ("priority = 1\nmatch = [{ header = \"x\", regex = \"a.*\" }]", "match = [{ header = \"x\", is = \"ab\" }]"),
        (
            "priority = 1\nmatch = [{ client = \"10.0.0.0/8\" }]",
            "match = [{ client = [\"10.1.0.0/16\", \"10.9.9.9\"] }]",
        ),
        ("priority = 1\nmatch = [{ method = \"POST\", not = true }]", "match = [{ method = \"GET\" }]"),
        (
            "priority = 1\nmatch = [{ query = \"v\", is = \"1\", not = true }]",
            "match = [{ query = \"v\", present = false }]",
        ),
    ] {
        assert_eq!(findings(&[("first", first), ("second", second)]), [shadowed("second", "first")], "{second}");
    }
    let both = format!("match = [{X1}, {{ header = \"x\", is = \"2\" }}]");
    assert_eq!(findings(&[("r", &both)]), ["route r can never match: header x is \"1\" excludes header x is \"2\""]);
    for (condition, text) in [
        (r#"{ header = "x", present = false }"#, "header x is absent"),
        (r#"{ header = "x", prefix = "2" }"#, "header x begins with \"2\""),
        (r#"{ header = "x", regex = "2|3" }"#, "header x matches \"2|3\""),
        (r#"{ header = "x", prefix = "1", not = true }"#, "header x does not begin with \"1\""),
    ] {
        let expected = format!("route r can never match: header x is \"1\" excludes {text}");
        assert_eq!(findings(&[("r", &format!("match = [{X1}, {condition}]"))]), [expected]);
    }
    let networks = "match = [{ client = \"10.0.0.0/8\" }, { client = \"11.0.0.0/8\" }]";
    let expected = "route r can never match: client in 10.0.0.0/8 excludes client in 11.0.0.0/8";
    assert_eq!(findings(&[("r", networks)]), [expected]);
}

#[test]
fn routes_that_cannot_be_told_apart_are_found() {
    let ambiguous = |a: &str, b: &str| {
        format!(
            "routes {a} and {b} can match the same request, and neither is more specific: {a} wins, because its name \
             sorts first; set priority"
        )
    };
    let (y, z) = (r#"match = [{ header = "y", is = "1" }]"#, r#"match = [{ cookie = "z", is = "1" }]"#);
    let x = format!("match = [{X1}]");
    assert_eq!(findings(&[("b", &x), ("a", y)]), [ambiguous("a", "b")]);
    assert_eq!(
        findings(&[("b", &x), ("a", y), ("c", z)]),
        [ambiguous("a", "b"), ambiguous("a", "c"), ambiguous("b", "c")]
    );
    let subprotocols = [("a", r#"match = [{ subprotocol = "p" }]"#), ("b", r#"match = [{ subprotocol = "q" }]"#)];
    assert_eq!(findings(&subprotocols), [ambiguous("a", "b")], "a client can offer both");
    let regexes =
        [("a", r#"match = [{ header = "x", regex = "a.*" }]"#), ("b", r#"match = [{ header = "x", regex = ".*b" }]"#)];
    assert_eq!(findings(&regexes), [ambiguous("a", "b")]);
}

#[test]
fn routes_that_are_told_apart_are_not_named() {
    let x = format!("match = [{X1}]");
    for sections in [
        &[("a", "path = \"/a\""), ("b", "path = \"/b\""), ("c", "path = \"/*\"")][..],
        &[("a", &x), ("b", r#"match = [{ header = "x", is = "2" }]"#), ("c", "")],
        &[("a", &x), ("b", "match = [{ header = \"y\", is = \"2\" }]\npriority = 1")],
        &[("a", &x), ("b", "match = [{ header = \"y\", is = \"2\" }]\npath = \"/b\"")],
        &[("a", "path = \"/{x}/b\"\nmatch = [{ query = \"q\", is = \"1\" }]"), ("b", "path = \"/{x}/c\"")],
        &[("a", "path = \"/{x}/a/c\""), ("b", "path = \"/{x}/b/{y}\"")],
        &[("a", "host = \"a\""), ("b", "host = \"b\""), ("c", "host = \"*.a\""), ("d", "host = \"*.b\"")],
        &[("a", r#"match = [{ client = "10.0.0.0/8" }]"#), ("b", r#"match = [{ client = "11.0.0.0/8" }]"#)],
        &[("a", r#"match = [{ query = "v", prefix = "a" }]"#), ("b", r#"match = [{ query = "v", prefix = "b" }]"#)],
        &[("a", r#"match = [{ method = "GET" }]"#), ("b", r#"match = [{ method = "POST" }]"#)],
        &[
            ("a", r#"match = [{ header = "y", present = false }]"#),
            ("b", r#"match = [{ header = "y", present = true }]"#),
        ],
    ] {
        assert_eq!(findings(sections), Vec::<String>::new(), "{sections:?}");
    }
}

#[test]
fn a_certificate_that_no_listener_asks_for_is_found() {
    let sections = [
        ("shown", r#"match = [{ cert_subject = { present = true } }]"#),
        ("print", r#"match = [{ cert_sha256 = { prefix = "aa" } }]"#),
        ("absent", r#"match = [{ cert_subject = { present = false } }]"#),
    ];
    let warnings = |text: &str| -> Vec<String> {
        let text = config::parse(text, "f").unwrap().describe(1024, 1);
        text.lines().filter_map(|line| line.strip_prefix("warning    route ")).map(str::to_owned).collect()
    };
    let plain = file(&sections);
    let why = "can never match: it requires a client certificate, and no listener has client_auth";
    assert_eq!(warnings(&plain), [format!("print {why}"), format!("shown {why}")]);
    let tls =
        "tls = { certificates = [{ cert = \"c\", key = \"k\" }], client_auth = \"optional\", client_ca = \"a\" }\n";
    assert_eq!(warnings(&plain.replacen("[[route]]", &format!("{tls}[[route]]"), 1)), Vec::<String>::new());
}

#[test]
fn a_thousand_routes_are_checked_in_a_moment() {
    let written: Vec<_> = (0..1_000).map(|n| (format!("r{n}"), format!("path = \"/service-{n}/{{x}}/*\""))).collect();
    let sections: Vec<_> = written.iter().map(|(name, keys)| (name.as_str(), keys.as_str())).collect();
    let began = std::time::Instant::now();
    assert_eq!(super::routes(sections.iter()).findings().len(), 0);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn check_prints_routes_in_matching_order_with_their_conditions() {
    let sections = [
        ("all", ""),
        (
            "second",
            "host = \"*.a\"\npath = \"/room/{id}/*\"\nmatch = [{ cookie = \"c\", regex = \"a\\\\d\", not = true }]",
        ),
        (
            "first",
            "priority = 7\nmatch = [{ client = [\"10.0.0.0/8\", \"::1\"] }, { subprotocol = { present = true } }]",
        ),
        ("never", "host = \"*.a\"\npath = \"/room/{id}/*\"\nmatch = [{ method = \"GET\" }, { method = \"POST\" }]"),
    ];
    let text = config::parse(&file(&sections), "f").unwrap().describe(1024, 1);
    let lines: Vec<_> = text.lines().skip_while(|line| *line != "routes, in matching order").skip(1).take(4).collect();
    let starts = [
        "  /* (first), priority 7, if client in 10.0.0.0/8, ::1/128 and subprotocol is present -> ws://10.0.0.1:9000",
        "  *.a/room/{id}/* (never), if method is \"GET\" and method is \"POST\" -> ",
        "  *.a/room/{id}/* (second), if cookie c does not match \"a\\d\" -> ",
        "  /* (all) -> ",
    ];
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
    let warning = "\nwarning    route never can never match: method is \"GET\" excludes method is \"POST\"\n";
    assert!(text.contains(warning), "{text}");
}
