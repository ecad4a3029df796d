//! Requests that are refused, and those at the limits that are not.

use super::common::*;
use super::*;

/// The rows of the contract that the proxy decides without an upstream, from the top.
// tidy: one table, read from the top.
#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |status: u16, name: &str, request: Vec<u8>| rows.push((name.to_owned(), request, status));
    let good = request(&format!("/{CANARY}"), "");

    // Not parseable.
    for (name, text) in [
        ("LF everywhere", good.replace("\r\n", "\n")),
        ("LF after the request line", with(" HTTP/1.1\r\n", " HTTP/1.1\n")),
        ("LF after a field", with("example.com\r\n", "example.com\n")),
        ("LF inside a value", with_line("X: a\nb: c")),
        ("CR inside a value", with_line("X: a\rb")),
        ("CR inside a name", with_line("X\rY: b")),
        ("CR CR LF", with("example.com\r\n", "example.com\r\r\n")),
        ("CR in the target", to_target("/a\rb")),
        ("NUL in a value", with_line("X: a\0b")),
        ("NUL in a name", with_line("X\0: b")),
        ("NUL in the request line", to_target("/a\0b")),
        ("NUL first", format!("\0{good}")),
        ("control byte in a value", with_line("X: a\u{1}b")),
        ("DEL in a value", with_line("X: a\u{7f}b")),
        ("obs-fold by space", with_line("X: a\r\n b")),
        ("obs-fold by tab", with_line("X: a\r\n\tb")),
        ("obs-fold of an empty value", with_line("X:\r\n chunked")),
        ("obs-fold on the first field", with("Host:", " Host:")),
        ("space before the colon", with_line("X : b")),
        ("tab before the colon", with_line("X\t: b")),
        ("space before the colon of Transfer-Encoding", with_line("Transfer-Encoding : chunked")),
        ("empty name", with_line(": b")),
        ("line without a colon", with_line("Xyz")),
        ("name with a space", with_line("X Y: z")),
        ("name with a parenthesis", with_line("X(Y): z")),
        ("two empty lines first", format!("\r\n\r\n{good}")),
        ("LF first", format!("\n{good}")),
        ("CR first", format!("\r{good}")),
        ("space first", format!(" {good}")),
        ("two spaces before the target", with("GET /", "GET  /")),
        ("two spaces before the version", with(" HTTP/1.1", "  HTTP/1.1")),
        ("a space behind the version", with(" HTTP/1.1\r", " HTTP/1.1 \r")),
        ("tabs for spaces", with("GET /", "GET\t/")),
        ("no method", with("GET /", " /")),
        ("method with a colon", with("GET /", "G:T /")),
        ("a word too many", with(" HTTP/1.1", " x HTTP/1.1")),
        ("lower-case version", with("HTTP/1.1", "http/1.1")),
        ("version cut short", with("HTTP/1.1", "HTTP/1")),
        ("version too long", with("HTTP/1.1", "HTTP/1.10")),
        ("two words", "hello world\r\n\r\n".into()),
        ("one word", "hello\r\n\r\n".into()),
    ] {
        row(400, name, text.into_bytes());
    }
    row(400, "a name of Latin-1", with_line("X").replace("X\r\n", "").into_bytes().split(|b| *b == b'U').next().unwrap()
        .iter().copied().chain(*b"X\xe9: y\r\n\r\n").collect());

    // Too large.
    row(431, "a field over 16 KiB", with_line(&format!("X: {}", "y".repeat(17_000))).into_bytes());
    row(431, "a target over 16 KiB", to_target(&format!("/{}", "y".repeat(17_000))).into_bytes());
    row(431, "a method without end", "A".repeat(17_000).into_bytes());
    row(431, "one byte over 16 KiB", head_of(16_385));
    row(431, "101 fields", with_fields(101));
    row(431, "101 fields of HTTP/1.0", String::from_utf8(with_fields(101)).unwrap().replace("P/1.1", "P/1.0").into());
    row(431, "300 fields", with_fields(300));

    // Versions.
    for (name, text) in [
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/0.9 with a version", with("HTTP/1.1", "HTTP/0.9")),
        ("HTTP/0.9", format!("GET /{CANARY}\r\n\r\n")),
        ("HTTP/2.0", with("HTTP/1.1", "HTTP/2.0")),
        ("HTTP/3.0", with("HTTP/1.1", "HTTP/3.0")),
        ("the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n".into()),
        ("HTTP/1.0 of a method", with("GET", "POST").replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        row(505, name, text.into_bytes());
    }

    // Methods.
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "GETS", "PRI"] {
        row(405, method, with("GET", method).into_bytes());
    }
    row(405, "POST with a body", with("GET", "POST").replace("Host", "Content-Length: 3\r\nHost").into_bytes());
    row(405, "POST of a plain form", format!("POST /{CANARY} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes());

    // Host.
    for (name, text) in [
        ("no Host", without("Host: example.com")),
        ("two Hosts", with_line("Host: other")),
        ("the same Host twice", with_line("Host: example.com")),
        ("a comma in Host", with("example.com", "a,b")),
        ("an empty Host", with("Host: example.com", "Host:")),
        ("a space in Host", with("example.com", "a b")),
        ("a slash in Host", with("example.com", "a/b")),
        ("an at-sign in Host", with("example.com", "u@a")),
        ("a Host of Latin-1", with("example.com", "caf\u{e9}")),
        ("absolute-form of another host", to_target("http://other.example/")),
        ("absolute-form of another port", to_target("http://example.com:81/")),
        ("absolute-form with user info", to_target("http://u@example.com/")),
        ("absolute-form without authority", to_target("http:///")),
        ("no Host, by POST", without("Host: example.com").replace("GET", "POST")),
    ] {
        row(400, name, text.into_bytes());
    }

    // The target.
    for target in [
        "/a#b", "/#", "/?q#f", "/a\u{7f}", "/a\\b", "/..\\x", "/\u{e9}#", "/\"\\", "/\u{e9}%00", "/\"/../..",
        "ws://ex\u{e4}mple.com/", "ws://\"/",
        "/%00", "/a%00b", "/..", "/../x", "/a/../..", "/a/../../x", "/%2e%2e", "/%2E./x", "/.%2e/",
        "/a/%2e%2e/%2e%2e/x",
        "*", "foo", "example.com:443", "ftp://example.com/", "ws:", "http://example.com/..",
    ] {
        row(400, &format!("target {target}"), to_target(target).into_bytes());
    }

    // A body or the promise of one.
    for line in [
        "Content-Length: 5", "Content-Length: 1", "Content-Length: -0", "Content-Length: +0", "Content-Length: x",
        "Content-Length: 0\r\nContent-Length: 5", "Content-Length: 0, 5", "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "transfer-encoding:", "Trailer: X",
        "Expect: 100-continue", "Expect: x", "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        row(400, line, with_line(line).into_bytes());
    }
    let body = format!("{}hello", with("Upgrade: websocket", "Content-Length: 5"));
    row(400, "a body in place of an upgrade", body.into());

    // No upgrade to WebSocket 13.
    for (name, text) in [
        ("plain GET", format!("GET /{CANARY} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("no Upgrade", without("Upgrade: websocket")),
        ("another Upgrade", with("websocket", "h2c")),
        ("a choice of upgrades", with("websocket", "websocket, h2c")),
        ("two Upgrade lines", with_line("Upgrade: h2c")),
        ("websocket twice", with_line("Upgrade: websocket")),
        ("Upgrade with a version", with("websocket", "websocket/13")),
        ("Upgrade cut short", with("websocket", "websocke")),
        ("no Connection", without("Connection: Upgrade")),
        ("Connection: keep-alive", with("Connection: Upgrade", "Connection: keep-alive")),
        ("Connection: upgrades", with("Connection: Upgrade", "Connection: Upgrades")),
        ("no version", without(VERSION_LINE)),
        ("version 8", with("Version: 13", "Version: 8")),
        ("version 013", with("Version: 13", "Version: 013")),
        ("versions 13, 8", with("Version: 13", "Version: 13, 8")),
        ("version 13 twice", with_line(VERSION_LINE)),
        ("an empty version", with("Version: 13", "Version:")),
        ("no upgrade and no key", without("Upgrade: websocket").replace(KEY_LINE, "X: y")),
    ] {
        row(426, name, text.into_bytes());
    }

    // The key.
    for (name, text) in [
        ("no key", without(KEY_LINE)),
        ("two keys", with_line("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")),
        ("the same key twice", with_line(KEY_LINE)),
        ("an empty key", with(KEY_LINE, "Sec-WebSocket-Key:")),
        ("a key of 15 bytes", with(KEY, "AAAAAAAAAAAAAAAAAAAA")),
        ("a key of 17 bytes", with(KEY, "AAAAAAAAAAAAAAAAAAAAAAA=")),
        ("a key of 18 bytes", with(KEY, "AAAAAAAAAAAAAAAAAAAAAAAA")),
        ("a key without padding", with(KEY, "dGhlIHNhbXBsZSBub25jZQ")),
        ("a key with a space", with(KEY, "dGhlIHNhbXBs ZSBub25jZQ==")),
        ("a key of the URL alphabet", with(KEY, "-_-_-_-_-_-_-_-_-_-_-g==")),
        ("a key that is no base64", with(KEY, "!!!!!!!!!!!!!!!!!!!!!!==")),
        ("a key and a comma", with(KEY, "dGhlIHNhbXBsZSBub25jZQ==,")),
    ] {
        row(400, name, text.into_bytes());
    }

    // Protected names in Connection.
    for name in [
        "Host", "host", "Cookie", "COOKIE", "Authorization", "Origin", "Forwarded",
        "X-Forwarded-For", "x-forwarded-anything",
        "X-Forwarded-Proto", "X-Real-IP", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "sec-websocket-protocol",
        "Sec-WebSocket-Extensions", "Sec-WebSocket-New",
    ] {
        let line = format!("Connection: Upgrade, {name}");
        row(400, &line, with("Connection: Upgrade", &line).into());
    }
    row(400, "a protected name on its own line", with_line("Connection: Cookie").into_bytes());
    rows
}

/// Rows of which the first in the contract decides.
#[rustfmt::skip]
fn order_rows() -> Vec<Row> {
    let off = |text: String| text.replace(&format!("/{CANARY}"), "/elsewhere");
    [
        (404, "no route", off(with_line("X: y"))),
        (404, "no route before the method", off(with("GET", "POST"))),
        (404, "no route before a body", off(with_line("Content-Length: 5"))),
        (404, "no route before the upgrade", off(without("Upgrade: websocket"))),
        (404, "no route before the key", off(without(KEY_LINE))),
        (404, "no route before a protected name", off(with("Connection: Upgrade", "Connection: Upgrade, Cookie"))),
        (400, "malformed before no route", off(with_line("X : y"))),
        (431, "too many fields before no route", off(String::from_utf8(with_fields(101)).unwrap())),
        (505, "version before no route", off(with("HTTP/1.1", "HTTP/2.0"))),
        (400, "host before no route", off(without("Host: example.com"))),
        (400, "target before no route", to_target("/elsewhere/%00")),
        (400, "malformed before the version", with_line("X : y").replace("HTTP/1.1", "HTTP/1.0")),
        (405, "method before a body", with("GET", "POST").replace("Host:", "Content-Length: 5\r\nHost:")),
        (405, "method before the upgrade", without("Upgrade: websocket").replace("GET", "POST")),
        (400, "a body before the upgrade", with("Upgrade: websocket", "Expect: 100-continue")),
        (426, "version before the key", with(VERSION_LINE, "X: y").replace(KEY, "bad")),
        (426, "upgrade before a protected name",
            without("Upgrade: websocket").replace("Connection: Upgrade", "Connection: Upgrade, Host")),
    ]
    .map(|(status, name, text)| (name.to_owned(), text.into_bytes(), status))
    .into()
}

/// A good request with so many bytes.
fn head_of(len: usize) -> Vec<u8> {
    let bare = with_line("X: ").len();
    let head = with_line(&format!("X: {}", "y".repeat(len - bare))).into_bytes();
    assert_eq!(head.len(), len);
    head
}

/// A good request with so many fields.
fn with_fields(count: usize) -> Vec<u8> {
    request(&format!("/{CANARY}"), &"X: y\r\n".repeat(count - 5)).into_bytes()
}

/// Routes `/canary...` and what is below `/` in targets of the table; nothing else.
pub fn table_proxy(upstream: SocketAddr) -> Proxy {
    Proxy::alone_before(upstream, "[log]\naccess = \"off\"\n")
}

/// Runs `check` for all `jobs` on some threads.
pub fn in_parallel<T: Send + Sync>(jobs: Vec<T>, check: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    check(job);
                }
            });
        }
    });
}

/// A good session goes through, and its request is all that the upstream ever saw.
pub fn assert_untouched(proxy: &Proxy, upstream: &Recorder, path: &str) {
    let mut client = connect(proxy.addr);
    client.write_all(request(path, "").as_bytes()).unwrap();
    let head = read_head(&client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let seen = upstream.seen();
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(seen.len(), 1, "{:?}", seen.iter().map(text).collect::<Vec<_>>());
    assert!(seen[0].starts_with(format!("GET {path} HTTP/1.1\r\n").as_bytes()), "{}", text(&seen[0]));
    assert!(seen[0].ends_with(b"\r\n\r\n"));
}

#[test]
fn every_row_is_refused_however_it_is_cut_and_never_forwarded() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    let jobs: Vec<_> = rows().into_iter().flat_map(|row| [(row.clone(), Cut::Whole), (row, Cut::EveryByte)]).collect();
    in_parallel(jobs, |(row, cut)| refused(proxy.addr, row, *cut));
    assert_untouched(&proxy, &upstream, "/good");
}

#[test]
fn one_row_of_each_kind_is_refused_wherever_it_is_cut() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    let names = [
        "LF inside a value",
        "obs-fold by space",
        "HTTP/1.0",
        "the HTTP/2 preface",
        "POST",
        "two Hosts",
        "target /%00",
        "Transfer-Encoding: chunked",
        "no Upgrade",
        "two keys",
        "Connection: Upgrade, Cookie",
    ];
    let rows: Vec<_> = rows().into_iter().filter(|(name, ..)| names.contains(&name.as_str())).collect();
    assert_eq!(rows.len(), names.len());
    let cuts = |row: Row| (1..row.1.len()).map(move |at| (row.clone(), Cut::At(at)));
    in_parallel(rows.into_iter().flat_map(cuts).collect(), |(row, cut)| refused(proxy.addr, row, *cut));
    assert_untouched(&proxy, &upstream, "/good");
}

#[test]
fn http_is_judged_before_the_route_and_the_route_before_websocket() {
    let upstream = Recorder::start();
    let proxy = Proxy::alone_before(upstream.addr, &format!("path = \"/{CANARY}/*\"\n[log]\naccess = \"off\""));
    let jobs = order_rows().into_iter().flat_map(|row| [(row.clone(), Cut::Whole), (row, Cut::EveryByte)]).collect();
    in_parallel(jobs, |(row, cut)| refused(proxy.addr, row, *cut));
    assert_untouched(&proxy, &upstream, &format!("/{CANARY}"));
}

#[test]
fn policy_comes_last() {
    let upstream = Recorder::start();
    let proxy = Proxy::alone_before(upstream.addr, "[limits]\nmax_sessions = 1");
    assert_untouched(&proxy, &upstream, "/good");
    // That session has gone or is about to: one that stays is needed.
    let mut held = connect(proxy.addr);
    eventually("a permit", || {
        held = connect(proxy.addr);
        held.write_all(request("/held", "").as_bytes()).unwrap();
        read_head(&held).starts_with("HTTP/1.1 101 ").then_some(())
    });
    let before = upstream.seen().len();
    let good = request(&format!("/{CANARY}"), "");
    refused(proxy.addr, &("full".into(), good.into_bytes(), 503), Cut::Whole);
    for (name, text, status) in [
        ("key before full", without(KEY_LINE), 400),
        ("protected before full", with("Connection: Upgrade", "Connection: Upgrade, Host"), 400),
        ("upgrade before full", without("Upgrade: websocket"), 426),
        ("target before full", to_target("/.."), 400),
    ] {
        refused(proxy.addr, &(name.into(), text.into_bytes(), status), Cut::Whole);
    }
    assert_eq!(upstream.seen().len(), before);
}

#[test]
fn heads_at_the_limits_pass() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    let good = request(&format!("/{CANARY}"), "");
    let rows = [
        ("16 KiB", head_of(16_384)),
        ("100 fields", with_fields(100)),
        ("one empty line first", format!("\r\n{good}").into_bytes()),
        ("Content-Length: 0", with_line("Content-Length: 0").into_bytes()),
        ("no space behind the colon", good.replace(": ", ":").into_bytes()),
        ("white space around values", good.replace(": ", ": \t ").replace("13\r\n", "13 \t\r\n").into_bytes()),
        (
            "names in lower case",
            good.replace("Upgrade:", "upgrade:").replace("Sec-WebSocket-K", "sec-websocket-k").into_bytes(),
        ),
        (
            "values in upper case",
            good.replace(": websocket", ": WEBSOCKET").replace(": Upgrade", ": UPGRADE").into_bytes(),
        ),
        ("keep-alive beside", with("Connection: Upgrade", "Connection: keep-alive, Upgrade").into_bytes()),
        ("Connection on two lines", with_line("Connection: keep-alive").into_bytes()),
        ("absolute-form", to_target("http://example.com/x").into_bytes()),
        ("absolute-form of ws", to_target("ws://EXAMPLE.com/x?y").into_bytes()),
        ("a query that is not looked into", to_target("/x?\\..%00/../../%zz").into_bytes()),
        ("dot segments that do not climb", to_target("/a/../b/./c").into_bytes()),
        ("an encoded slash", to_target("/a%2Fb").into_bytes()),
        (
            "obs-text in a value",
            [b"GET / HTTP/1.1\r\nX: \xe9\xff\r\n", &good.as_bytes()[good.find("Host").unwrap()..]].concat(),
        ),
        ("Host with a port", with("example.com", "[::1]:8080").into_bytes()),
    ];
    let jobs =
        rows.into_iter().flat_map(|(name, text)| [(name, text.clone(), Cut::Whole), (name, text, Cut::EveryByte)]);
    in_parallel(jobs.collect(), |(name, text, cut)| {
        let stream = connect(proxy.addr);
        write_cut(&stream, text, *cut).unwrap();
        let head = read_head(&stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{name}, cut {cut:?}: {head}");
    });
}

#[test]
fn a_refusal_is_read_whole_however_much_is_sent_behind_it() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    let behind = vec![b'x'; 1 << 20];
    for (name, text, status) in [
        ("malformed", with_line("X : y"), 400),
        ("version", with("HTTP/1.1", "HTTP/1.0"), 505),
        ("method", with("GET", "POST"), 405),
        ("upgrade", without("Upgrade: websocket"), 426),
        ("large", with_line(&format!("X: {}", "y".repeat(17_000))), 431),
    ] {
        for len in [0, 1, 1000, 60_000, 1 << 20] {
            let stream = connect(proxy.addr);
            let all = [text.as_bytes(), &behind[..len]].concat();
            std::thread::scope(|scope| {
                // What is beyond "a little" may be cut off.
                let writer = scope.spawn(|| (&stream).write_all(&all));
                let (bytes, end) = read_all(&stream);
                let name = format!("{name} with {len} bytes behind");
                check_refusal(&name, &bytes, status);
                assert_eq!(end, End::Fin, "{name}");
                let written = writer.join().unwrap();
                assert!(len > 60_000 || written.is_ok(), "{name}: {written:?}");
            });
        }
    }
    assert_untouched(&proxy, &upstream, "/good");
}

/// A second request behind the first, in every disguise: behind a refused one it is discarded,
/// behind a good one it is frames, and bad ones.
#[test]
fn a_smuggled_request_is_never_seen() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    let second = "GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let hidden = format!("0\r\n\r\n{second}");
    for (text, behind, status) in [
        (with_line("Content-Length: 0\r\nContent-Length: 5"), second, 400),
        (with_line("Content-Length: 49"), second, 400),
        (with_line("Transfer-Encoding: chunked"), &hidden, 400),
        (with_line("Transfer-Encoding : chunked"), &hidden, 400),
        (with_line("Transfer-Encoding: xchunked"), &hidden, 400),
        (with_line("Content-Length: 5\r\nTransfer-Encoding: chunked"), &hidden, 400),
        (with_line("X: y\nTransfer-Encoding: chunked"), &hidden, 400),
        (without("Upgrade: websocket"), second, 426),
        (with("Version: 13", "Version: 777"), second, 426),
        (with("GET", "POST"), second, 405),
        (with("HTTP/1.1", "HTTP/1.0"), second, 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), second, 505),
    ] {
        let all = format!("{text}{behind}");
        for cut in [Cut::Whole, Cut::At(text.len()), Cut::EveryByte] {
            refused(proxy.addr, &(text.clone(), all.clone().into_bytes(), status), cut);
        }
    }
    assert_eq!(upstream.seen().len(), 0);
    let good = request("/first", "");
    for cut in [Cut::Whole, Cut::At(good.len()), Cut::EveryByte] {
        let stream = connect(proxy.addr);
        write_cut(&stream, format!("{good}{second}").as_bytes(), cut).unwrap();
        let head = read_head(&stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // `G` is a text frame with reserved bits.
        assert_eq!(read_close(&stream).0, 1002);
    }
    for seen in upstream.seen() {
        let head_end = seen.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert!(seen.starts_with(b"GET /first HTTP/1.1\r\n"));
        assert!(!String::from_utf8_lossy(&seen).contains("smuggled"));
        assert!(seen[head_end..].is_empty() || seen[head_end] == 0x88);
    }
}

#[test]
fn head_is_refused_without_a_body() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    for (name, text, status) in [
        ("method", with("GET", "HEAD"), 405),
        ("host", without("Host: example.com").replace("GET", "HEAD"), 400),
        ("version", with("HTTP/1.1", "HTTP/1.0").replace("GET", "HEAD"), 505),
        ("malformed", with_line("X : y").replace("GET", "HEAD"), 400),
    ] {
        for cut in [Cut::Whole, Cut::EveryByte] {
            let stream = connect(proxy.addr);
            // It may be refused before it is complete.
            let _ = write_cut(&stream, text.as_bytes(), cut);
            let (bytes, end) = read_all(&stream);
            let all = String::from_utf8_lossy(&bytes);
            let response = Answer::parse(&bytes);
            assert_eq!(response.status, status, "{name}: {all}");
            assert!(response.body.is_empty() && bytes.ends_with(b"\r\n\r\n"), "{name}: {all}");
            assert_ne!(response.values("content-length"), ["0"], "{name}: that of a GET");
            assert_eq!(end, End::Fin, "{name}");
        }
    }
}
