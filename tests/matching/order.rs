//! Which of several routes wins.

use super::{Table, check};

#[test]
fn the_most_specific_route_wins() {
    check(TABLES);
}

pub const TABLES: &[Table] = &[
    // Conditions come after host and path: one that does not hold leaves the request to the next.
    Table {
        routes: &[
            ("beta", "path = \"/chat\"\nmatch = [{ header = \"x-beta\", is = \"1\" }]"),
            ("chat", r#"path = "/chat""#),
            ("beta-all", r#"match = [{ header = "x-beta", is = "1" }]"#),
            ("host", "host = \"a\"\npath = \"/chat\"\nmatch = [{ query = \"v\", is = \"2\" }]"),
            ("all", ""),
        ],
        rows: &[
            ("h/chat | x-beta: 1", "beta"),
            ("h/chat", "chat"),
            ("h/x | x-beta: 1", "beta-all"),
            ("h/x", "all"),
            ("a/chat?v=2", "host"),
            ("a/chat?v=2 | x-beta: 1", "host"),
            ("a/chat | x-beta: 1", "beta"),
            ("a/chat", "chat"),
        ],
    },
    // More conditions, then the stricter ones.
    Table {
        routes: &[
            ("two", r#"match = [{ header = "x", present = true }, { header = "y", present = true }]"#),
            ("is", r#"match = [{ header = "x", is = "abc" }]"#),
            ("long", r#"match = [{ header = "x", prefix = "ab" }]"#),
            ("short", r#"match = [{ header = "x", prefix = "a" }]"#),
            ("small", r#"match = [{ client = "10.1.0.0/16" }]"#),
            ("large", r#"match = [{ client = "10.0.0.0/8" }]"#),
            ("regex", r#"match = [{ header = "x", regex = ".*c|z" }]"#),
            ("present", r#"match = [{ header = "x", present = true }]"#),
            ("not", r#"match = [{ header = "z", is = "1", not = true }]"#),
            ("rest", ""),
        ],
        rows: &[
            ("h/ | x: abc | y: 1", "two"),
            ("h/ | x: abc", "is"),
            ("h/ | x: abcd", "long"),
            ("h/ | x: axc", "short"),
            ("h/ | x: abc | @10.1.0.1", "is"),
            ("h/ | x: ax | @10.1.0.1", "short"),
            ("h/ | x: zc | @10.1.0.1", "small"),
            ("h/ | x: zc | @10.2.0.1", "large"),
            ("h/ | x: zc", "regex"),
            ("h/ | x: zz", "present"),
            ("h/", "not"),
            ("h/ | z: 1", "rest"),
            ("h/ | z: 1 | x: zz", "present"),
        ],
    },
    // Priority overrides host, path and conditions.
    Table {
        routes: &[
            ("maintenance", "priority = 10\nmatch = [{ client = \"10.0.0.0/8\", not = true }]"),
            ("exact", "host = \"a\"\npath = \"/chat\""),
            ("wide", "path = \"/chat/*\"\npriority = 1"),
            ("late", "host = \"a\"\npath = \"/chat\"\nmatch = [{ header = \"x\", is = \"1\" }]\npriority = -1"),
            ("last", "host = \"b\"\npath = \"/only\"\npriority = -1000000"),
            ("all", ""),
        ],
        rows: &[
            ("a/chat | @192.0.2.1", "maintenance"),
            ("a/chat | @10.0.0.1", "wide"),
            ("a/chat | x: 1 | @10.0.0.1", "wide"),
            ("a/chats | @10.0.0.1", "all"),
            ("b/chat/x | @10.0.0.1", "wide"),
            ("b/only | @10.0.0.1", "all"),
        ],
    },
    // The same rank: by name, whatever the order in the file.
    Table {
        routes: &[
            ("b", r#"match = [{ header = "x", is = "1" }]"#),
            ("a", r#"match = [{ header = "y", is = "1" }]"#),
            ("c", r#"match = [{ query = "z", is = "1" }]"#),
        ],
        rows: &[
            ("h/?z=1 | x: 1 | y: 1", "a"),
            ("h/?z=1 | x: 1", "b"),
            ("h/?z=1", "c"),
            ("h/?z=1 | y: 1", "a"),
            ("h/", "-"),
        ],
    },
    // Many for one path, which the value of an input tells apart.
    Table {
        routes: &[
            ("a", r#"match = [{ header = "tenant", is = "a" }]"#),
            ("b", r#"match = [{ header = "tenant", is = "b" }]"#),
            ("b-beta", r#"match = [{ header = "tenant", is = "b" }, { query = "beta", is = "1" }]"#),
            ("query-a", r#"match = [{ query = "tenant", is = "a" }]"#),
            ("query-b", "priority = 1\nmatch = [{ query = \"tenant\", is = \"b\" }]"),
            ("not-a", r#"match = [{ header = "tenant", is = "a", not = true }, { query = "not", present = true }]"#),
            ("p", r#"match = [{ subprotocol = "p" }]"#),
            ("q", "priority = 2\nmatch = [{ subprotocol = \"q\" }, { header = \"tenant\", present = true }]"),
            ("empty", r#"match = [{ header = "tenant", is = "" }]"#),
        ],
        rows: &[
            ("h/ | tenant: a", "a"),
            ("h/ | tenant: b", "b"),
            ("h/?beta=1 | tenant: b", "b-beta"),
            ("h/?beta=1 | tenant: a", "a"),
            ("h/?tenant=a", "query-a"),
            ("h/?tenant=a | tenant: b", "b"),
            ("h/?tenant=b | tenant: a", "query-b"),
            ("h/?tenant=b&beta=1 | tenant: b", "query-b"),
            ("h/?not", "not-a"),
            ("h/?not | tenant: a", "a"),
            ("h/?not | tenant: c", "not-a"),
            ("h/ | sec-websocket-protocol: x, p", "p"),
            ("h/ | sec-websocket-protocol: p, q", "p"),
            ("h/ | sec-websocket-protocol: p, q | tenant: a", "q"),
            ("h/ | sec-websocket-protocol: q | tenant: x", "q"),
            ("h/ | sec-websocket-protocol: q", "-"),
            ("h/ | tenant:", "empty"),
            ("h/ | tenant: c", "-"),
            ("h/ | tenant: a | tenant: b", "-"),
        ],
    },
    // Priority among names and rests.
    Table {
        routes: &[
            ("name", "path = \"/{x}/b\"\npriority = 1"),
            ("literal", r#"path = "/a/b""#),
            ("rest", "path = \"/a/*\"\npriority = 2\nmatch = [{ query = \"r\", present = true }]"),
        ],
        rows: &[("h/a/b", "name x=a"), ("h/c/b", "name x=c"), ("h/a/b?r", "rest"), ("h/a/c", "-"), ("h/a/c?r", "rest")],
    },
];
