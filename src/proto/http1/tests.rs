//! Every row of the contract that is judged without the route, torn at every byte.

use super::body::tests::body_end;
use super::*;
use proptest::prelude::*;

/// A browser's head, 611 bytes.
pub(in crate::proto) const BROWSER: &str = include!("../../../benches/common/browser_request.rs");

/// Scans `bytes`, shown up to each of `cuts` in turn, then whole.
fn scan(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<Option<usize>, Cause> {
    let mut scan = HeadScan::default();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        if let found @ (Ok(Some(_)) | Err(_)) = scan.advance(&bytes[..cut]) {
            return found;
        }
    }
    Ok(None)
}

/// The same at once, in each two pieces and byte by byte.
fn scan_torn(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    let whole = scan(bytes, []);
    for cut in 0..=bytes.len() {
        assert_eq!(scan(bytes, [cut]), whole, "cut at {cut}: {:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(scan(bytes, 0..bytes.len()), whole, "{:?}", String::from_utf8_lossy(bytes));
    whole
}

/// The verdict on a request head, as a session gets it.
fn judge(head: &[u8]) -> Result<Request<'_>, Cause> {
    match scan_torn(head)? {
        Some(end) => parse_request(&head[..end]),
        None => panic!("no end of a head in {:?}", String::from_utf8_lossy(head)),
    }
}

fn verdict(head: impl AsRef<[u8]>) -> Option<Cause> {
    judge(head.as_ref()).err()
}

fn to_target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

#[test]
fn a_browsers_head_is_parsed() {
    assert_eq!(BROWSER.len(), 611);
    let request = judge(BROWSER.as_bytes()).unwrap();
    assert_eq!(request.method, "GET");
    assert_eq!(request.target, "/live/room?id=42&token=abcdefghijklmnop");
    assert_eq!((request.path, request.query), ("/live/room", "?id=42&token=abcdefghijklmnop"));
    assert_eq!(request.host, "edge.example.com");
    assert_eq!(request.fields.len(), 13);
    let names: Vec<_> = request.fields.iter().take(3).map(|field| field.name).collect();
    assert_eq!(names, ["Host", "Connection", "Pragma"]);
    assert_eq!(values(&request.fields, "ORIGIN").collect::<Vec<_>>(), [b"https://www.example.com"]);
}

#[test]
fn the_head_ends_at_its_first_empty_line_and_not_before() {
    let glued = [BROWSER.as_bytes(), b"\x81\x85\0\r\n\r\n"].concat();
    assert_eq!(scan_torn(&glued), Ok(Some(BROWSER.len())));
    for cut in 0..BROWSER.len() {
        assert_eq!(scan(&BROWSER.as_bytes()[..cut], []), Ok(None));
    }
    assert_eq!(scan_torn(b"GET / HTTP/1.1\r\n\r\n"), Ok(Some(18)));
    let mut again = HeadScan::default();
    assert_eq!(again.advance(BROWSER.as_bytes()), Ok(Some(611)));
    assert_eq!(again.advance(&glued), Ok(Some(611)));
}

#[test]
fn one_empty_line_before_the_request_is_ignored() {
    let head = format!("\r\n{}", to_target("/"));
    assert_eq!(scan_torn(head.as_bytes()), Ok(Some(head.len())));
    assert_eq!(judge(head.as_bytes()).unwrap().path, "/");
    assert_eq!(verdict(format!("\r\n{head}")), Some(Cause::MalformedHead));
    assert_eq!(scan_torn(b"\r\n\r"), Err(Cause::MalformedHead));
    assert_eq!(scan_torn(b"\n"), Err(Cause::MalformedHead));
}

/// What no head can hold, each refused at the last byte of the row and not before.
#[test]
fn malformed_bytes_are_refused_where_they_stand() {
    let start = "GET / HTTP/1.1\r\n";
    let rows: &[(&str, String)] = &[
        ("bare LF after the request line", "GET / HTTP/1.1\n".into()),
        ("bare CR in the request line", "GET / HTTP/1.1\rH".into()),
        ("NUL in the request line", "GET /\0".into()),
        ("HTAB in the request line", "GET\t".into()),
        ("HTAB behind the target", "GET /\t".into()),
        ("DEL in the request line", "GET /\x7f".into()),
        ("escape in the request line", "GET /\x1b".into()),
        ("no token as method", "GET(".into()),
        ("space before the method", " ".into()),
        ("TLS", "\x16".into()),
        ("a line without a space", "GET\r".into()),
        ("bare LF after a field", format!("{start}Host: a\n")),
        ("bare LF as the empty line", format!("{start}Host: a\r\n\n")),
        ("bare CR in a value", format!("{start}Host: a\rb")),
        ("two CR", format!("{start}Host: a\r\r")),
        ("bare CR as the empty line", format!("{start}Host: a\r\n\rX")),
        ("NUL in a value", format!("{start}Host: a\0")),
        ("control byte in a value", format!("{start}Host: a\x08")),
        ("DEL in a value", format!("{start}Host: a\x7f")),
        ("obs-fold by a space", format!("{start}Host: a\r\n ")),
        ("obs-fold by a tab", format!("{start}Host: a\r\n\t")),
        ("white space before the first field", format!("{start} ")),
        ("space before the colon", format!("{start}Host ")),
        ("tab before the colon", format!("{start}Host\t")),
        ("empty name", format!("{start}:")),
        ("a line without a colon", format!("{start}Host\r")),
        ("name with a slash", format!("{start}Ho/")),
        ("name with a parenthesis", format!("{start}(")),
        ("name with a control byte", format!("{start}Ho\x01")),
        ("name beyond ASCII", format!("{start}H\u{f6}").trim_end_matches('\u{f6}').into()),
    ];
    for (row, bytes) in rows {
        let bytes = match *row {
            "name beyond ASCII" => [bytes.as_bytes(), b"\xf6"].concat(),
            _ => bytes.clone().into_bytes(),
        };
        assert_eq!(scan_torn(&bytes), Err(Cause::MalformedHead), "{row}");
        assert_eq!(scan(&bytes[..bytes.len() - 1], []), Ok(None), "{row}, one byte earlier");
    }
}

/// Blocks of a value are looked at together.
#[test]
fn a_control_byte_anywhere_in_a_long_value_is_refused() {
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "p".repeat(70), "v".repeat(70));
    assert_eq!(scan_torn(head.as_bytes()), Ok(Some(head.len())));
    let long = |at: &usize| matches!(head.as_bytes()[*at], b'p' | b'v');
    for at in (0..head.len()).filter(long) {
        for (byte, passes) in [(0, false), (0x1f, false), (0x7f, false), (b' ', true), (0x80, true), (0xff, true)] {
            let mut bytes = head.clone().into_bytes();
            bytes[at] = byte;
            let expected = if passes { Ok(Some(head.len())) } else { Err(Cause::MalformedHead) };
            assert_eq!(scan_torn(&bytes), expected, "{byte:#x} at {at}");
        }
        let mut bytes = head.clone().into_bytes();
        bytes[at] = b'\t';
        let in_value = head.as_bytes()[at] == b'v';
        assert_eq!(scan_torn(&bytes).is_ok(), in_value, "HTAB at {at}");
    }
}

#[test]
fn numbers_and_addresses_are_written_as_the_library_does() {
    for number in [0, 9, 10, 99, 100, 1_234, u64::from(u32::MAX), u64::MAX] {
        let mut out = Vec::new();
        write::push_number(&mut out, number);
        assert_eq!(String::from_utf8(out), Ok(number.to_string()));
    }
    for text in ["0.0.0.0", "10.20.3.255", "2001:db8::7", "::1"] {
        let mut out = Vec::new();
        push_address(&mut out, text.parse().expect("an address"));
        assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn request_lines_that_are_none_are_malformed() {
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /a b HTTP/1.1",
        "GET ",
        "GET  HTTP/1.1",
        "GET HTTP/1.1",
        "GET / ",
        "GET / http/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/1.9",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / HTTP/2",
        "GET / HTTP/x.y",
        "GET / HTTPS/1.1",
        "GET / garbage",
        "HTTP/1.1 200 OK",
        "A/B / HTTP/1.1",
    ];
    for line in lines {
        assert_eq!(verdict(format!("{line}\r\nHost: a\r\n\r\n")), Some(Cause::MalformedHead), "{line:?}");
    }
    assert_eq!(verdict(b"GET / HTTP/1.1\xc3\xa9\r\nHost: a\r\n\r\n"), Some(Cause::MalformedHead));
}

#[test]
fn other_versions_are_told_apart_from_garbage() {
    for line in ["GET / HTTP/0.9", "GET /", "GET / HTTP/2.0", "GET / HTTP/3.0", "GET /\u{e9}"] {
        assert_eq!(verdict(format!("{line}\r\nHost: a\r\n\r\n")), Some(Cause::HttpVersion), "{line:?}");
    }
    assert_eq!(verdict(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Some(Cause::HttpVersion));
}

#[test]
fn http10_may_have_no_host_and_options_may_ask_the_server() {
    let request = parse_request(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((request.is_http10, request.host), (true, ""));
    assert_eq!(parse_request(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap().host, "a");
    for head in ["GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "GET http://a/ HTTP/1.0\r\n\r\n"] {
        assert_eq!(parse_request(head.as_bytes()).err(), Some(Cause::BadHost), "{head:?}");
    }
    let request = parse_request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!((request.target, request.path, request.query, request.is_http10), ("*", "/", "", false));
    for head in ["GET * HTTP/1.1", "OPTIONS ** HTTP/1.1", "options * HTTP/1.1"] {
        assert_eq!(verdict(format!("{head}\r\nHost: a\r\n\r\n")), Some(Cause::BadTarget), "{head:?}");
    }
}

#[test]
fn the_hundredth_field_passes_and_the_next_does_not() {
    let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(judge(head(FIELDS_MAX).as_bytes()).unwrap().fields.len(), FIELDS_MAX);
    assert_eq!(parse_request(head(FIELDS_MAX + 1).as_bytes()).err(), Some(Cause::TooManyFields));
}

/// Each head breaks its row's rule and all below it; the row decides.
#[test]
fn rows_apply_from_the_top() {
    let many = "X: y\r\n".repeat(FIELDS_MAX + 1);
    let rows = [
        (format!("GET /\\ HTTP/1.0\r\n{many}X : y\r\n\r\n"), Cause::MalformedHead),
        (format!("GET /\\ HTTP/x\r\n{many}\r\n"), Cause::MalformedHead),
        (format!("GET /\\ HTTP/2.0\r\n{many}\r\n"), Cause::TooManyFields),
        ("GET /\\ HTTP/2.0\r\n\r\n".into(), Cause::HttpVersion),
        ("GET /\\ HTTP/1.1\r\n\r\n".into(), Cause::BadHost),
        ("GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n".into(), Cause::BadTarget),
    ];
    for (head, cause) in rows {
        let end = scan(head.as_bytes(), []);
        let got = end.and_then(|end| parse_request(&head.as_bytes()[..end.unwrap()]).map(|_| ()));
        assert_eq!(got, Err(cause), "{head:?}");
    }
}

#[test]
fn hosts() {
    let good = [
        "example.com",
        "EXAMPLE.com:8080",
        "a",
        "127.0.0.1:80",
        "[::1]",
        "[2001:db8::1]:443",
        "a_b.example",
        "xn--bcher-kva.example",
        "a:",
        "b%C3%BC.example",
        "a:65535",
    ];
    for host in good {
        assert_eq!(judge(format!("GET / HTTP/1.1\r\nhost: \t{host} \r\n\r\n").as_bytes()).unwrap().host, host);
    }
    let bad = [
        "", ",", "a,b", "a, a", "a b", "a/b", "a?b", "a#b", "u@a", "a\\b", "a:b", "a:80:80", "a:65536", ":80", "::1",
        "[::1", "::1]", "[::1]x", "[::g]", "[]", "[a]", "a:-1", "a:+1", "a\"", "<a>", "a%", "a%2", "a%zz", "a%00",
        "\u{e9}", "{a}",
    ];
    for host in bad {
        assert_eq!(verdict(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), Some(Cause::BadHost), "{host:?}");
    }
    assert_eq!(verdict("GET / HTTP/1.1\r\n\r\n"), Some(Cause::BadHost));
    assert_eq!(verdict("GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n"), Some(Cause::BadHost));
    assert_eq!(verdict(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"), Some(Cause::BadHost));
}

#[test]
fn absolute_targets_must_name_the_host() {
    let rows = [
        ("http://a.example/b?c", Some(("/b", "?c"))),
        ("HTTPS://A.Example/b", Some(("/b", ""))),
        ("ws://a.example", Some(("/", ""))),
        ("wss://a.example?x=/../", Some(("/", "?x=/../"))),
        ("ws://a.example/", Some(("/", ""))),
        ("ws://b.example/", None),
        ("ws://a.example:80/", None),
        ("ws://u@a.example/", None),
        ("ws:///", None),
        ("ws://", None),
        ("ws://a.example\\@b/", None),
        ("ws://\u{e9}/", None),
    ];
    for (target, want) in rows {
        let head = to_target(target);
        let got = judge(head.as_bytes());
        match want {
            Some(want) => {
                let request = got.unwrap();
                assert_eq!((request.path, request.query, request.target), (want.0, want.1, target));
            }
            None => assert_eq!(got.err(), Some(Cause::BadHost), "{target}"),
        }
    }
    let port = "GET ws://a.example:80/ HTTP/1.1\r\nHost: a.example:80\r\n\r\n";
    assert_eq!(judge(port.as_bytes()).unwrap().path, "/");
    assert_eq!(verdict(to_target("ws://a.example/..")), Some(Cause::BadTarget));
    assert_eq!(verdict(to_target("ws://a.example#")), Some(Cause::BadTarget));
}

#[test]
fn targets() {
    let good = [
        ("/", "/", ""),
        ("/a/b;c=d/e,f", "/a/b;c=d/e,f", ""),
        ("/?", "/", "?"),
        ("/a?b?c", "/a", "?b?c"),
        ("//a//b", "//a//b", ""),
        ("/%41%7e%C3%A9", "/%41%7e%C3%A9", ""),
        ("/{a}|^`", "/{a}|^`", ""),
        // The query is not looked into.
        ("/a?\\%00%zz%/../../..", "/a", "?\\%00%zz%/../../.."),
        // Dot segments that stay below the root, and what only looks like one.
        ("/a/../b", "/a/../b", ""),
        ("/a/..", "/a/..", ""),
        ("/a/%2e%2E/b", "/a/%2e%2E/b", ""),
        ("/a/b/../..", "/a/b/../..", ""),
        ("/./.", "/./.", ""),
        ("/...", "/...", ""),
        ("/..a/a../%2e%2ea", "/..a/a../%2e%2ea", ""),
        ("/a/..%2fb", "/a/..%2fb", ""),
        ("/a%2fb/..", "/a%2fb/..", ""),
        ("/%252e%252e/", "/%252e%252e/", ""),
    ];
    for (target, path, query) in good {
        let head = to_target(target);
        let request = judge(head.as_bytes()).unwrap_or_else(|cause| panic!("{target}: {cause:?}"));
        assert_eq!((request.path, request.query), (path, query));
    }
    let bad = [
        "*",
        "foo",
        "foo/bar",
        "a.example:80",
        "?a",
        "ftp://a.example/",
        "http:/a",
        "/a#b",
        "/#",
        "/a\"b",
        "/<",
        "/>",
        "/?<",
        "/?\"",
        "/?#",
        "/\u{e9}",
        "/?\u{e9}",
        "/a\\b",
        "/\\",
        "/%00",
        "/a%00b",
        "/%",
        "/%2",
        "/%zz",
        "/a%2/",
        "/..",
        "/../",
        "/../a",
        "/a/../..",
        "/a/../../b",
        "/./..",
        "/%2e%2e",
        "/%2E%2e/a",
        "/.%2E",
        "/%2e.",
        "/a/.%2e/..",
        "//..",
        "//../a",
        "/a//../..",
        // Above the root for a server that takes an encoded slash for one.
        "/..%2f",
        "/..%2F..%2fetc",
        "/a/..%2f..",
        "/%2e%2e%2f",
        // Above the root for one that does not.
        "/a%2fb/../..",
    ];
    for target in bad {
        assert_eq!(verdict(to_target(target)), Some(Cause::BadTarget), "{target}");
    }
    // Not UTF-8 either.
    assert_eq!(verdict(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Cause::BadTarget));
}

/// httparse takes all of these; we take none, except the last three.
#[test]
fn what_httparse_accepts_and_we_do_not() {
    let rows: &[(&[u8], Option<Cause>)] = &[
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Some(Cause::MalformedHead)),
        (b"GET / HTTP/1.1\nHost: a\n\n", Some(Cause::MalformedHead)),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Cause::MalformedHead)),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Cause::MalformedHead)),
        (b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", Some(Cause::BadTarget)),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Some(Cause::BadTarget)),
        (b"GET /a\\b\"<> HTTP/1.1\r\nHost: a\r\n\r\n", Some(Cause::BadTarget)),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", Some(Cause::BadTarget)),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some(Cause::BadHost)),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\n\r\n", None),
    ];
    for (head, cause) in rows {
        let mut fields = [httparse::EMPTY_HEADER; 4];
        let accepted = httparse::Request::new(&mut fields).parse(head);
        assert_eq!(accepted, Ok(httparse::Status::Complete(head.len())), "{:?}", String::from_utf8_lossy(head));
        assert_eq!(verdict(head), *cause, "{:?}", String::from_utf8_lossy(head));
    }
    let early = b"HTTP/1.1 099 Early\r\n\r\n";
    let mut fields = [httparse::EMPTY_HEADER; 4];
    assert_eq!(httparse::Response::new(&mut fields).parse(early), Ok(httparse::Status::Complete(early.len())));
    assert_eq!(parse_response(early).err(), Some(Cause::BadResponse));
}

#[test]
fn response_heads() {
    type Row<'a> = (&'a [u8], Option<(u16, &'a str)>);
    let rows: &[Row<'_>] = &[
        (b"HTTP/1.1 200 OK\r\n\r\n", Some((200, "OK"))),
        (b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n", Some((404, "Not Found"))),
        (b"HTTP/1.1 599 \r\n\r\n", Some((599, ""))),
        (b"HTTP/1.1 100\r\n\r\n", Some((100, ""))),
        (b"HTTP/1.1 200 a\tb\r\n\r\n", Some((200, "a\tb"))),
        (b"HTTP/1.1 200 \xff\r\n\r\n", Some((200, ""))),
        (b"HTTP/1.1 200 tr\xc3\xa9s\r\n\r\n", Some((200, "tr\u{e9}s"))),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", Some((101, "Switching Protocols"))),
        (b"HTTP/1.0 101 Switching Protocols\r\n\r\n", None),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"HTTP/1.2 200 OK\r\n\r\n", None),
        (b"HTTP/2.0 200 OK\r\n\r\n", None),
        (b"HTTP/2 200 OK\r\n\r\n", None),
        (b"http/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 099 X\r\n\r\n", None),
        (b"HTTP/1.1 600 X\r\n\r\n", None),
        (b"HTTP/1.1 20 X\r\n\r\n", None),
        (b"HTTP/1.1 2000 X\r\n\r\n", None),
        (b"HTTP/1.1 2x0 X\r\n\r\n", None),
        (b"HTTP/1.1  200 OK\r\n\r\n", None),
        (b"HTTP/1.1200 OK\r\n\r\n", None),
        (b"ICY 200 OK\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\nA: b\n\n", None),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", None),
    ];
    for (head, want) in rows {
        let got = match scan_torn(head) {
            Ok(end) => parse_response(&head[..end.unwrap()]),
            // The session takes a malformed answer for a bad one.
            Err(_) => Err(Cause::BadResponse),
        };
        let got = got.map(|response| (response.status, response.reason));
        assert_eq!(got, want.ok_or(Cause::BadResponse), "{:?}", String::from_utf8_lossy(head));
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX + 1));
    assert_eq!(parse_response(many.as_bytes()).err(), Some(Cause::BadResponse));
}

/// Nothing that does not come through the scan can make the parsers panic or yield a line end in a
/// value.
#[test]
fn parsers_stand_alone() {
    for head in
        [&b""[..], b"\r", b"\r\n", b"\r\n\r\n", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\xff\xff"]
    {
        assert!(parse_request(head).is_err() && parse_response(head).is_err());
    }
    assert!(parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore").is_err());
    assert!(parse_response(b"HTTP/1.1 200 a\nb\r\n\r\n").is_err());
}

fn answer(head: &str) -> Response<'_> {
    parse_response(head.as_bytes()).unwrap()
}

fn passed_on(head: &str) -> String {
    String::from_utf8(write_response(&answer(head), "id-1", &FieldEdits::new())).unwrap()
}

#[test]
fn answers_pass_without_what_means_one_connection() {
    let head = "HTTP/1.0 401 Who are you\r\nServer: x\r\nConnection: keep-alive, X-Hop\r\nConnection: X-Other\r\n\
        Keep-Alive: timeout=5\r\nx-hop: 1\r\nX-OTHER: 2\r\nUpgrade: h2c\r\nTE: trailers\r\nTrailer: a\r\n\
        Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nX-Request-ID: theirs\r\nWWW-Authenticate: Basic\r\n\
        Set-Cookie: a=b\r\nContent-Length: 5\r\nSet-Cookie: c=d\r\n\r\n";
    let want = "HTTP/1.1 401 Who are you\r\nServer: x\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a=b\r\n\
        Content-Length: 5\r\nSet-Cookie: c=d\r\nConnection: close\r\nX-Request-Id: id-1\r\n\r\n";
    assert_eq!(passed_on(head), want);
}

#[test]
fn the_framing_of_an_answer_stays() {
    let rows = [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: transfer-encoding\r\n\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: content-length\r\n\r\n", "Content-Length: 3\r\n"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "Content-Length: 3\r\n"),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\n\r\n", ""),
    ];
    for (head, framing) in rows {
        let (line, _) = head.split_once("\r\n").unwrap();
        assert_eq!(passed_on(head), format!("{line}\r\n{framing}Connection: close\r\nX-Request-Id: id-1\r\n\r\n"));
    }
}

fn refused(cause: Cause, request_id: &str) -> Refused<'_> {
    Refused { cause, request_id, field: None, head_only: false }
}

#[test]
fn refusal_of_head_has_the_fields_of_a_get_and_no_body() {
    for info in crate::proto::end::CAUSES.iter().filter(|info| info.status != 0) {
        let get = write_refusal(&refused(info.cause, "id-1"));
        let head = write_refusal(&Refused { head_only: true, ..refused(info.cause, "id-1") });
        assert!(head.ends_with(b"\r\n\r\n") && get.starts_with(&head), "{}", info.name);
        assert_eq!(&get[head.len()..], format!("{}\n", info.text).as_bytes());
    }
}

#[test]
fn refusals_are_whole_responses() {
    for cause in crate::proto::end::CAUSES {
        let bytes = write_refusal(&refused(cause.cause, "id-1"));
        if cause.status == 0 {
            assert!(bytes.is_empty(), "{}", cause.name);
            continue;
        }
        let end = scan(&bytes, []).unwrap().unwrap();
        let head = parse_response(&bytes[..end]).unwrap();
        assert_eq!(head.status, cause.status);
        assert!(!head.reason.is_empty(), "a phrase for {}", cause.status);
        assert_eq!(bytes[end..], *format!("{}\n", cause.text).as_bytes());
        let field = |name| {
            let values: Vec<_> = values(&head.fields, name).map(|value| String::from_utf8_lossy(value)).collect();
            assert!(values.len() <= 1, "{name} doubled");
            values.first().map(ToString::to_string)
        };
        assert_eq!(field("content-length"), Some((bytes.len() - end).to_string()));
        assert_eq!(field("content-type").unwrap(), "text/plain; charset=utf-8");
        assert_eq!(field("x-request-id").unwrap(), "id-1");
        let upgrade = cause.status == 426;
        assert_eq!(field("connection").unwrap(), if upgrade { "Upgrade, close" } else { "close" });
        assert_eq!(field("upgrade"), upgrade.then(|| "websocket".into()));
        assert_eq!(field("sec-websocket-version"), upgrade.then(|| "13".into()));
        let allowed = if cause.cause == Cause::FileMethod { "GET, HEAD" } else { "GET" };
        assert_eq!(field("allow"), (cause.status == 405).then(|| allowed.into()));
        assert_eq!(field("retry-after").is_some(), matches!(cause.status, 429 | 503));
    }
    let refusal = String::from_utf8(write_refusal(&refused(Cause::NoRoute, "x"))).unwrap();
    assert!(refusal.starts_with("HTTP/1.1 404 Not Found\r\n"), "{refusal}");
}

/// Pieces of heads, good and bad, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET",
        " ",
        "/",
        "HTTP/1.1",
        "\r\n",
        "\r",
        "\n",
        "Host",
        ":",
        "a",
        "\t",
        "\0",
        "\x7f",
        ",",
        "\u{e9}",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "HTTP/1.1 200 OK\r\n",
        "Upgrade: websocket\r\n",
        "..",
        "%2e",
        "#",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn the_cuts_do_not_decide(
        bytes in pieces(),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = scan(&bytes, []);
        prop_assert_eq!(scan(&bytes, cuts), whole);
        prop_assert_eq!(scan(&bytes, 0..bytes.len()), whole);
    }

    #[test]
    fn what_the_scan_lets_through_has_the_parsers_shape(bytes in pieces()) {
        if let Ok(Some(end)) = scan(&bytes, []) {
            prop_assert!(bytes[..end].ends_with(b"\r\n\r\n"));
            // No parser of ours and not httparse sees an earlier or a later end.
            let head = bytes[..end].strip_prefix(b"\r\n").unwrap_or(&bytes[..end]);
            let (_, lines) = split_line(head).unwrap();
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
            match httparse::parse_headers(lines, &mut fields) {
                Ok(httparse::Status::Complete((end, _))) => prop_assert_eq!(end, lines.len()),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        let _ = (parse_request(&bytes), parse_response(&bytes));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = (scan(&bytes, 0..bytes.len()), parse_request(&bytes), parse_response(&bytes));
        let _ = Body::Chunked(Chunks::default()).advance(&bytes);
    }

    #[test]
    fn the_end_of_chunks_is_found_however_they_are_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let framed = |chunk: &Vec<u8>| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        let mut body: Vec<u8> = chunks.iter().flat_map(framed).collect();
        body.extend_from_slice(b"0\r\nA: b\r\n\r\n");
        let end = body.len();
        body.extend_from_slice(b"0\r\n\r\n");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(body_end(&mut Body::Chunked(Chunks::default()), &body, cuts), Ok(Some(end)));
    }
}
