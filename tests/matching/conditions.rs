//! Conditions: every input, every comparison, negated and not, and what is not there.

use super::{Table, check};

#[test]
fn conditions() {
    check(TABLES);
}

/// One route of which all depends.
const fn one(keys: &'static [(&'static str, &'static str)], rows: &'static [(&'static str, &'static str)]) -> Table {
    Table { routes: keys, rows }
}

pub const TABLES: &[Table] = &[
    one(
        &[("r", r#"match = [{ header = "X-Beta", is = "1" }]"#)],
        &[
            ("h/ | x-beta: 1", "r"),
            ("h/ | X-BETA:   1  ", "r"),
            ("h/ | x-beta: 10", "-"),
            ("h/ | x-beta: 01", "-"),
            ("h/ | x-beta:", "-"),
            ("h/", "-"),
            ("h/ | x-beta2: 1", "-"),
            ("h/ | x-beta: 1 | x-beta: 1", "-"),
            ("h/ | x-beta: 0 | x-beta: 1", "-"),
        ],
    ),
    one(
        &[("r", r#"match = [{ header = "x", is = "1, 2" }]"#)],
        &[("h/ | x: 1 | x: 2", "r"), ("h/ | x: 1, 2", "r"), ("h/ | x: 2 | x: 1", "-"), ("h/ | x: 1,2", "-")],
    ),
    one(&[("r", r#"match = [{ header = "x", is = "" }]"#)], &[("h/ | x:", "r"), ("h/", "-"), ("h/ | x: 1", "-")]),
    one(
        &[("r", r#"match = [{ header = "x", is = "1", not = true }]"#)],
        &[("h/ | x: 1", "-"), ("h/ | x: 2", "r"), ("h/", "r"), ("h/ | x: 1 | x: 1", "r")],
    ),
    one(
        &[("r", r#"match = [{ header = "x", prefix = "ab" }]"#)],
        &[("h/ | x: ab", "r"), ("h/ | x: abc", "r"), ("h/ | x: a", "-"), ("h/ | x: AB", "-"), ("h/", "-")],
    ),
    one(
        &[("r", r#"match = [{ header = "x", prefix = "ab", not = true }]"#)],
        &[("h/ | x: ab", "-"), ("h/ | x: a", "r"), ("h/", "r")],
    ),
    one(
        &[("r", r#"match = [{ header = "x", present = true }]"#)],
        &[("h/ | x: 1", "r"), ("h/ | x:", "r"), ("h/", "-"), ("h/ | y: 1", "-")],
    ),
    one(
        &[("r", r#"match = [{ header = "x", present = false }]"#)],
        &[("h/ | x: 1", "-"), ("h/ | x:", "-"), ("h/", "r")],
    ),
    one(&[("r", r#"match = [{ header = "x", present = false, not = true }]"#)], &[("h/ | x: 1", "r"), ("h/", "-")]),
    // A regular expression matches the whole value.
    one(
        &[("r", r#"match = [{ header = "x", regex = "a|b+" }]"#)],
        &[
            ("h/ | x: a", "r"),
            ("h/ | x: bbb", "r"),
            ("h/ | x: ab", "-"),
            ("h/ | x: xa", "-"),
            ("h/ | x: ax", "-"),
            ("h/ | x:", "-"),
            ("h/", "-"),
        ],
    ),
    one(
        &[("r", r#"match = [{ header = "user-agent", regex = "(?i).*bot.*", not = true }]"#)],
        &[
            ("h/ | User-Agent: Googlebot/2", "-"),
            ("h/ | User-Agent: BOT", "-"),
            ("h/ | User-Agent: x", "r"),
            ("h/", "r"),
        ],
    ),
    one(
        &[("r", r#"match = [{ header = "x", regex = "\\d{1,3}" }]"#)],
        &[("h/ | x: 12", "r"), ("h/ | x: 1234", "-"), ("h/ | x: ١", "-")],
    ),
    one(&[("r", r#"match = [{ header = "host", is = "a:80" }]"#)], &[("a:80/", "r"), ("a/", "-"), ("A:80/", "-")]),
    // Query parameters.
    one(
        &[("r", r#"match = [{ query = "v", is = "2" }]"#)],
        &[
            ("h/?v=2", "r"),
            ("h/?a=1&v=2", "r"),
            ("h/?v=%32", "r"),
            ("h/?%76=2", "r"),
            ("h/?v=2&v=3", "r"),
            ("h/?v=3&v=2", "-"),
            ("h/?V=2", "-"),
            ("h/?v=2%20", "-"),
            ("h/?v=22", "-"),
            ("h/?v", "-"),
            ("h/", "-"),
            ("h/?", "-"),
            ("h/?xv=2", "-"),
            ("h/v=2", "-"),
        ],
    ),
    one(
        &[("r", r#"match = [{ query = "name", is = "a b&c" }]"#)],
        &[("h/?name=a+b%26c", "r"), ("h/?name=a%20b%26c", "r"), ("h/?name=a%2Bb%26c", "-"), ("h/?name=a+b&c", "-")],
    ),
    one(
        &[("r", r#"match = [{ query = "v", prefix = "2." }]"#)],
        &[("h/?v=2.1", "r"), ("h/?v=2%2E1", "r"), ("h/?v=21", "-")],
    ),
    one(
        &[("r", r#"match = [{ query = "token", present = true }]"#)],
        &[("h/?token", "r"), ("h/?token=", "r"), ("h/?a&token=x", "r"), ("h/?tokens=x", "-"), ("h/", "-")],
    ),
    one(
        &[("r", r#"match = [{ query = "v", regex = "[0-9]+", not = true }]"#)],
        &[("h/?v=12", "-"), ("h/?v=x", "r"), ("h/", "r")],
    ),
    // Cookies.
    one(
        &[("r", r#"match = [{ cookie = "user", is = "7" }]"#)],
        &[
            ("h/ | Cookie: user=7", "r"),
            ("h/ | Cookie: a=b; user=7; c=d", "r"),
            ("h/ | Cookie: a=b;user=7", "r"),
            ("h/ | Cookie: a=b | Cookie: user=7", "r"),
            ("h/ | Cookie: user=7; user=8", "r"),
            ("h/ | Cookie: user=8; user=7", "-"),
            ("h/ | Cookie: User=7", "-"),
            ("h/ | Cookie: user=%37", "-"),
            ("h/ | Cookie: user=\"7\"", "-"),
            ("h/ | Cookie: xuser=7", "-"),
            ("h/ | Cookie: user", "-"),
            ("h/ | user: 7", "-"),
            ("h/", "-"),
        ],
    ),
    one(
        &[("r", r#"match = [{ cookie = "canary", present = true }]"#)],
        &[("h/ | Cookie: canary=", "r"), ("h/ | Cookie: canary=1", "r"), ("h/ | Cookie: canary", "-"), ("h/", "-")],
    ),
    one(
        &[("r", r#"match = [{ cookie = "s", prefix = "eu-" }, { cookie = "s", regex = ".*x", not = true }]"#)],
        &[("h/ | Cookie: s=eu-1", "r"), ("h/ | Cookie: s=eu-x", "-"), ("h/ | Cookie: s=us-1", "-")],
    ),
    // Methods: what a WebSocket handshake may use is judged later.
    one(
        &[("get", r#"match = [{ method = "GET" }]"#), ("other", r#"match = [{ method = { regex = "PUT|POST" } }]"#)],
        &[("h/", "get"), ("POST h/", "other"), ("PUT h/", "other"), ("HEAD h/", "-"), ("get h/", "-")],
    ),
    one(&[("r", r#"match = [{ method = "POST", not = true }]"#)], &[("h/", "r"), ("POST h/", "-"), ("PATCH h/", "r")]),
    // Subprotocols: any of those offered.
    one(
        &[("r", r#"match = [{ subprotocol = "graphql-ws" }]"#)],
        &[
            ("h/ | Sec-WebSocket-Protocol: graphql-ws", "r"),
            ("h/ | Sec-WebSocket-Protocol: a, graphql-ws,b", "r"),
            ("h/ | Sec-WebSocket-Protocol: a | Sec-WebSocket-Protocol: graphql-ws", "r"),
            ("h/ | Sec-WebSocket-Protocol: GraphQL-WS", "-"),
            ("h/ | Sec-WebSocket-Protocol: graphql-ws2", "-"),
            ("h/", "-"),
        ],
    ),
    one(
        &[("r", r#"match = [{ subprotocol = { prefix = "v2." } }]"#)],
        &[
            ("h/ | Sec-WebSocket-Protocol: v1.x, v2.y", "r"),
            ("h/ | Sec-WebSocket-Protocol: v1.x", "-"),
            ("h/ | Sec-WebSocket-Protocol: v2", "-"),
        ],
    ),
    one(
        &[("r", r#"match = [{ subprotocol = { present = false } }]"#)],
        &[("h/ | Sec-WebSocket-Protocol: a", "-"), ("h/ | Sec-WebSocket-Protocol:", "r"), ("h/", "r")],
    ),
    one(
        &[("r", r#"match = [{ subprotocol = "a", not = true }]"#)],
        &[("h/ | Sec-WebSocket-Protocol: b, a", "-"), ("h/ | Sec-WebSocket-Protocol: b", "r"), ("h/", "r")],
    ),
    // Clients.
    one(
        &[("r", r#"match = [{ client = ["10.0.0.0/8", "2001:db8::/32"] }]"#)],
        &[("h/ | @10.1.2.3", "r"), ("h/ | @11.1.2.3", "-"), ("h/ | @2001:db8::7", "r"), ("h/ | @2001:db9::7", "-")],
    ),
    one(&[("r", r#"match = [{ client = "192.0.2.7" }]"#)], &[("h/ | @192.0.2.7", "r"), ("h/ | @192.0.2.8", "-")]),
    one(
        &[("r", r#"match = [{ client = ["10.0.0.0/8"], not = true }]"#)],
        &[("h/ | @10.1.2.3", "-"), ("h/ | @::1", "r"), ("h/ | @11.0.0.1", "r")],
    ),
    // Certificates.
    one(
        &[
            ("seven", r#"match = [{ cert_subject = "CN=device-7" }]"#),
            ("device", r#"match = [{ cert_subject = { prefix = "CN=device-" } }]"#),
            ("any", r#"match = [{ cert_subject = { present = true } }]"#),
            ("none", r#"match = [{ cert_subject = { present = false } }]"#),
        ],
        &[
            ("h/ | cert=CN=device-7,aa", "seven"),
            ("h/ | cert=CN=device-70,aa", "device"),
            ("h/ | cert=CN=user,aa", "any"),
            ("h/ | cert=,aa", "any"),
            ("h/", "none"),
            ("h/ | X-Client-Cert-Subject: CN=device-7", "none"),
        ],
    ),
    one(
        &[(
            "r",
            r#"match = [{ cert_sha256 = "AA:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99" }]"#,
        )],
        &[
            ("h/ | cert=CN=x,aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899", "r"),
            ("h/ | cert=CN=x,aabbccddeeff00112233445566778899aabbccddeeff00112233445566778898", "-"),
            ("h/", "-"),
        ],
    ),
    // All must hold.
    one(
        &[(
            "r",
            r#"match = [
                { header = "x", is = "1" }, { query = "v", prefix = "2" }, { cookie = "c", present = true },
                { client = "10.0.0.0/8" }, { method = "GET" }, { subprotocol = "s" },
            ]"#,
        )],
        &[
            ("h/?v=2 | x: 1 | cookie: c=1 | sec-websocket-protocol: s | @10.0.0.1", "r"),
            ("h/?v=2 | x: 2 | cookie: c=1 | sec-websocket-protocol: s | @10.0.0.1", "-"),
            ("h/?v=1 | x: 1 | cookie: c=1 | sec-websocket-protocol: s | @10.0.0.1", "-"),
            ("h/?v=2 | x: 1 | cookie: d=1 | sec-websocket-protocol: s | @10.0.0.1", "-"),
            ("h/?v=2 | x: 1 | cookie: c=1 | sec-websocket-protocol: t | @10.0.0.1", "-"),
            ("h/?v=2 | x: 1 | cookie: c=1 | sec-websocket-protocol: s | @11.0.0.1", "-"),
            ("POST h/?v=2 | x: 1 | cookie: c=1 | sec-websocket-protocol: s | @10.0.0.1", "-"),
        ],
    ),
];
