//! The opening handshake over real sockets, row by row of the contract: what is refused and how, what the upstream
//! gets, what of its answers passes. Every head also torn at every byte.

mod common;

use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Stands in every hostile request; no answer of the proxy may repeat it.
const CANARY: &str = "canary-7f3a";

/// An upstream that answers 101 to whatever looks like a head, and keeps every byte.
#[derive(Clone)]
struct Recorder {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let (listener, addr) = listen();
        let recorder = Recorder { addr, seen: Arc::default() };
        let of_thread = recorder.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                of_thread.seen.lock().unwrap().push(Vec::new());
                let at = of_thread.seen.lock().unwrap().len() - 1;
                let recorder = of_thread.clone();
                std::thread::spawn(move || recorder.record(stream, at));
            }
        });
        recorder
    }

    fn record(&self, mut stream: TcpStream, at: usize) {
        let mut buf = [0; 16384];
        let mut answered = false;
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            let mut seen = self.seen.lock().unwrap();
            seen[at].extend_from_slice(&buf[..n]);
            if !answered && seen[at].windows(4).any(|end| end == b"\r\n\r\n") {
                answered = true;
                let _gone = stream.write_all(switching("").as_bytes());
            }
        }
    }

    fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }
}

/// A refusal taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap();
        let status = line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{line:?}"))[..3].parse().unwrap();
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let fields = lines.map(|line| field(line).unwrap_or_else(|| panic!("{line:?}"))).collect();
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        Answer { status, fields, body: bytes[at..].to_vec() }
    }

    fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Everything the contract says about a refusal of the proxy's own.
fn check_refusal(name: &str, bytes: &[u8], status: u16) {
    let answer = Answer::parse(bytes);
    let all = String::from_utf8_lossy(bytes);
    assert_eq!(answer.status, status, "{name}: {all}");
    let connection = if status == 426 { "Upgrade, close" } else { "close" };
    assert_eq!(answer.values("connection"), [connection], "{name}: {all}");
    let id = answer.values("x-request-id");
    assert!(matches!(id[..], [id] if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{name}: {all}");
    assert_eq!(answer.values("content-length"), [answer.body.len().to_string()], "{name}: {all}");
    assert!((1..=128).contains(&answer.body.len()), "{name}: {all}");
    assert!(!all.contains(CANARY), "{name} repeats the client's bytes: {all}");
    let has = |field: &str| !answer.values(field).is_empty();
    assert_eq!(has("allow"), status == 405, "{name}: {all}");
    assert_eq!(has("retry-after"), matches!(status, 429 | 503), "{name}: {all}");
    assert_eq!(has("upgrade") && answer.values("sec-websocket-version") == ["13"], status == 426, "{name}: {all}");
}

/// How a request is cut on its way.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    At(usize),
    EveryByte,
}

fn write_cut(mut stream: &TcpStream, bytes: &[u8], cut: Cut) -> std::io::Result<()> {
    match cut {
        Cut::Whole => stream.write_all(bytes),
        Cut::At(at) => {
            stream.write_all(&bytes[..at])?;
            // The proxy shares these cores: this is when it may read.
            std::thread::yield_now();
            stream.write_all(&bytes[at..])
        }
        Cut::EveryByte => bytes.chunks(1).try_for_each(|byte| stream.write_all(byte)),
    }
}

/// Sends `request` and takes the answer up to its FIN.
fn refused(proxy: SocketAddr, (name, request, status): &Row, cut: Cut) {
    let stream = connect(proxy);
    // It may be refused, read on a little, and closed before all is sent.
    let _closed = write_cut(&stream, request, cut);
    let (bytes, end) = read_all(&stream);
    let name = format!("{name}, cut {cut:?}");
    assert_eq!(end, End::Fin, "{name}: {:?}", String::from_utf8_lossy(&bytes));
    check_refusal(&name, &bytes, *status);
}

type Row = (String, Vec<u8>, u16);

/// A good request to `/canary...`, changed.
fn with(from: &str, to: &str) -> String {
    let good = request(&format!("/{CANARY}"), "");
    let changed = good.replacen(from, to, 1);
    assert_ne!(good, changed, "{from:?} is not there");
    changed
}

fn with_line(line: &str) -> String {
    with("Upgrade: websocket\r\n", &format!("{line}\r\nUpgrade: websocket\r\n"))
}

fn without(line: &str) -> String {
    with(&format!("{line}\r\n"), "")
}

fn to_target(target: &str) -> String {
    with(&format!("GET /{CANARY} "), &format!("GET {target} "))
}

const KEY_LINE: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION_LINE: &str = "Sec-WebSocket-Version: 13";

/// The rows of the contract that the proxy decides without an upstream, from the top.
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
        "/a#b", "/#", "/?q#f", "/a\"b", "/a<b", "/a>b", "/?q=\"", "/?<", "/caf\u{e9}", "/?\u{e9}", "/a\u{7f}", "/a\\b", "/..\\x",
        "/%00", "/a%00b", "/..", "/../x", "/a/../..", "/a/../../x", "/%2e%2e", "/%2E./x", "/.%2e/", "/a/%2e%2e/%2e%2e/x",
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
    row(400, "a body in place of an upgrade", format!("{}hello", with("Upgrade: websocket", "Content-Length: 5")).into());

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
        "Host", "host", "Cookie", "COOKIE", "Authorization", "Origin", "Forwarded", "X-Forwarded-For", "x-forwarded-anything",
        "X-Forwarded-Proto", "X-Real-IP", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "sec-websocket-protocol",
        "Sec-WebSocket-Extensions", "Sec-WebSocket-New",
    ] {
        row(400, &format!("Connection: Upgrade, {name}"), with("Connection: Upgrade", &format!("Connection: Upgrade, {name}")).into());
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
        (505, "version before no route", off(with("HTTP/1.1", "HTTP/1.0"))),
        (400, "host before no route", off(without("Host: example.com"))),
        (400, "target before no route", to_target("/elsewhere/%00")),
        (400, "malformed before the version", with_line("X : y").replace("HTTP/1.1", "HTTP/1.0")),
        (405, "method before a body", with("GET", "POST").replace("Host:", "Content-Length: 5\r\nHost:")),
        (405, "method before the upgrade", without("Upgrade: websocket").replace("GET", "POST")),
        (400, "a body before the upgrade", with("Upgrade: websocket", "Expect: 100-continue")),
        (426, "version before the key", with(VERSION_LINE, "X: y").replace(KEY, "bad")),
        (426, "upgrade before a protected name", without("Upgrade: websocket").replace("Connection: Upgrade", "Connection: Upgrade, Host")),
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
fn table_proxy(upstream: SocketAddr) -> Proxy {
    Proxy::alone_before(upstream, "[log]\naccess = \"off\"\n")
}

/// Runs `check` for all `jobs` on some threads.
fn in_parallel<T: Send + Sync>(jobs: Vec<T>, check: impl Fn(&T) + Sync) {
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
fn assert_untouched(proxy: &Proxy, upstream: &Recorder, path: &str) {
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
fn every_row_is_refused_whole_and_byte_by_byte_and_the_upstream_hears_nothing() {
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

/// A second request behind the first, in every disguise: behind a refused one it is discarded, behind a good one it
/// is frames, and bad ones.
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

/// What the proxy makes of a request, `config` (keys of the route first) and the endpoint `url` given.
fn golden(url: &str, config: &str, accept: impl FnOnce() -> Box<dyn Read>, client: &str) -> String {
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"off\"\n[[route]]\nupstream = \"{url}\"\n{config}\n"
    ));
    let mut stream = connect(proxy.addr);
    stream.write_all(client.replace("ADDR", &proxy.addr.to_string()).as_bytes()).unwrap();
    let mut upstream = accept();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        upstream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

const PLAIN_LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"";
const TRUSTING_LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]";

/// Random parts as their names, after a look at their form.
fn with_names(head: &str) -> String {
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let line = |line: &str| match line.split_once(": ") {
        Some((name @ "X-Request-Id", id)) if is_hex(id, 32) => format!("{name}: ID"),
        Some((name @ "traceparent", value)) => {
            let parts: Vec<_> = value.split('-').collect();
            assert!(parts.len() == 4 && parts[0] == "00" && is_hex(parts[2], 16), "{value}");
            let trace = if parts[1] == "4bf92f3577b34da6a3ce929d0e0e4736" { "CONTINUED" } else { "STARTED" };
            assert!(is_hex(parts[1], 32) && parts[2] != "00f067aa0ba902b7", "{value}");
            format!("{name}: 00-{trace}-SPAN-{}", parts[3])
        }
        _ => line.to_owned(),
    };
    head.split("\r\n").map(line).collect::<Vec<_>>().join("\n")
}

struct Golden {
    name: &'static str,
    /// Keys of the route, then the listener.
    config: [&'static str; 2],
    base: &'static str,
    target: &'static str,
    /// Lines of the client beyond a good request.
    lines: &'static str,
    /// Lines that the upstream gets, beyond those of a good request.
    want: &'static [&'static str],
    want_target: &'static str,
    want_host: &'static str,
    /// The last lines.
    added: &'static [&'static str],
}

const ADDED: &[&str] = &[
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Host: example.com",
    "X-Real-IP: 127.0.0.1",
    "X-Request-Id: ID",
    "traceparent: 00-STARTED-SPAN-01",
];

const BARE: Golden = Golden {
    name: "bare",
    config: ["", PLAIN_LISTENER],
    base: "",
    target: "/",
    lines: "",
    want: &[],
    want_target: "/",
    want_host: "example.com",
    added: ADDED,
};

/// The client's own claims about who it is.
const CLAIMS: &str = "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8, 9.9.9.9\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-FORWARDED-Anything: x\r\nX-Real-IP: 1.2.3.4\r\n\
    X-Request-Id: mine\r\nX_Forwarded_For: 6.6.6.6\r\n";

#[test]
fn the_upstream_gets_a_request_written_anew() {
    let rows = [
        BARE,
        Golden {
            name: "end-to-end fields in order, with their case",
            lines: "COOKIE: a=b; c\r\nAuthorization: Basic x\r\nOrigin: https://o\r\nx-own: 1\r\nX-Own: 2\r\nUser-Agent:\r\n\
                Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate; x=\"1,2\"\r\n",
            want: &[
                "COOKIE: a=b; c",
                "Authorization: Basic x",
                "Origin: https://o",
                "x-own: 1",
                "X-Own: 2",
                "User-Agent: ",
                "Sec-WebSocket-Protocol: a, b",
                "Sec-WebSocket-Extensions: permessage-deflate; x=\"1,2\"",
            ],
            ..BARE
        },
        Golden {
            name: "hop-by-hop fields, those named in Connection, names with _, and Content-Length",
            lines: "Connection: keep-alive, X-Gone,, x-GONE-too\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\n\
                TE: trailers\r\nX-Gone: 1\r\nx-gone: 2\r\nX-Gone-Too: 3\r\nX-Stays: 4\r\nX_Y: 5\r\n_: 6\r\nContent-Length: 0\r\n",
            want: &["X-Stays: 4"],
            ..BARE
        },
        Golden { name: "claims of a stranger", lines: CLAIMS, ..BARE },
        Golden {
            name: "claims of a trusted proxy",
            config: ["", TRUSTING_LISTENER],
            lines: CLAIMS,
            want: &[
                "Forwarded: for=1.2.3.4",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: evil",
                "X-FORWARDED-Anything: x",
                "X-Real-IP: 1.2.3.4",
            ],
            added: &[
                "X-Forwarded-For: 1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1",
                "X-Request-Id: mine",
                "traceparent: 00-STARTED-SPAN-01",
            ],
            ..BARE
        },
        Golden { name: "a trusted proxy without claims", config: ["", TRUSTING_LISTENER], ..BARE },
        Golden {
            name: "a trace",
            lines: "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\ntracestate: a=b\r\n",
            want: &["tracestate: a=b"],
            added: &const { [ADDED[0], ADDED[1], ADDED[2], ADDED[3], ADDED[4], "traceparent: 00-CONTINUED-SPAN-00"] },
            ..BARE
        },
        Golden { name: "a broken trace", lines: "traceparent: 00-0-0-00\r\ntracestate: a=b\r\n", ..BARE },
        Golden {
            name: "the client's bytes as target",
            target: "/a/../%62//c;d?e=%00\\&..",
            want_target: "/a/../%62//c;d?e=%00\\&..",
            ..BARE
        },
        Golden { name: "absolute-form", target: "http://example.com?q", want_target: "/?q", ..BARE },
        Golden {
            name: "strip_prefix",
            config: ["path = \"/live/*\"\nstrip_prefix = \"/live\"", PLAIN_LISTENER],
            target: "/li%76e/a%2fb?q",
            want_target: "/a%2fb?q",
            ..BARE
        },
        Golden {
            name: "strip_prefix of everything",
            config: ["path = \"/live/*\"\nstrip_prefix = \"/live\"", PLAIN_LISTENER],
            target: "/live?q",
            want_target: "/?q",
            ..BARE
        },
        Golden { name: "base path", base: "/base/x", target: "/a?q", want_target: "/base/x/a?q", ..BARE },
        Golden {
            name: "strip_prefix and base path",
            config: ["path = \"/live/*\"\nstrip_prefix = \"/live\"", PLAIN_LISTENER],
            base: "/base",
            target: "/live/a/../b",
            want_target: "/base/b",
            ..BARE
        },
        Golden {
            name: "host_header",
            config: ["host_header = \"app.internal:81\"", PLAIN_LISTENER],
            want_host: "app.internal:81",
            ..BARE
        },
    ];
    for Golden { name, config: [route, listener], base, target, lines, want, want_target, want_host, added } in rows {
        let (upstream, addr) = listen();
        let accept = || Box::new(accept(&upstream)) as Box<dyn Read>;
        let head =
            golden(&format!("ws://{addr}{base}"), &format!("{route}\n{listener}"), accept, &request(target, lines));
        let fixed = [
            &format!("GET {want_target} HTTP/1.1"),
            &format!("Host: {want_host}"),
            "Connection: Upgrade",
            "Upgrade: websocket",
            KEY_LINE,
            VERSION_LINE,
        ];
        let want: Vec<_> = fixed.iter().chain(want).chain(added).chain(&["", ""]).copied().collect();
        assert_eq!(with_names(&head), want.join("\n"), "{name}");
    }
}

#[test]
fn the_upstream_may_be_ipv6_or_a_unix_socket() {
    let want = |target: &str| {
        let first = format!("GET {target} HTTP/1.1\nHost: example.com\nConnection: Upgrade\nUpgrade: websocket\n");
        format!("{first}{KEY_LINE}\n{VERSION_LINE}\n{}\n\n", ADDED.join("\n"))
    };
    let upstream = TcpListener::bind("[::1]:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let taken = || Box::new(accept(&upstream)) as Box<dyn Read>;
    let head = golden(&format!("ws://[::1]:{port}/b"), PLAIN_LISTENER, taken, &request("/x", ""));
    assert_eq!(with_names(&head), want("/b/x"));
    for (base, target) in [("", "/x"), (":/b", "/b/x")] {
        let path = temp_path("sock");
        let upstream = UnixListener::bind(&path).unwrap();
        let taken = || {
            upstream.set_nonblocking(true).unwrap();
            let (stream, _) = eventually("a connection comes", || upstream.accept().ok());
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream) as Box<dyn Read>
        };
        let head = golden(&format!("ws+unix:{}{base}", path.display()), PLAIN_LISTENER, taken, &request("/x", ""));
        assert_eq!(with_names(&head), want(target));
        std::fs::remove_file(path).unwrap();
    }
}

/// An IPv6 client shows as one.
#[test]
fn the_client_may_be_ipv6() {
    let (upstream, addr) = listen();
    let accept = || Box::new(accept(&upstream)) as Box<dyn Read>;
    let head = golden(&format!("ws://{addr}"), "[[listener]]\nlisten = \"[::1]:0\"", accept, &request("/", ""));
    assert!(head.contains("\r\nX-Forwarded-For: ::1\r\n") && head.contains("\r\nX-Real-IP: ::1\r\n"), "{head}");
}

/// How the upstream's connection goes on behind its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Stays,
    Fin,
}

/// One client and its upstream, which has the request's head and answers with `answer`.
fn answered(
    proxy: &Proxy,
    listener: &TcpListener,
    (answer, after): (&[u8], After),
    cut: Cut,
) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(request("/", OFFER).as_bytes()).unwrap();
    let upstream = accept(listener);
    read_head(&upstream);
    // It may be cut short.
    let _closed = write_cut(&upstream, answer, cut);
    if after == After::Fin {
        upstream.shutdown(Shutdown::Write).unwrap();
    }
    (client, upstream)
}

const OFFER: &str = "Sec-WebSocket-Protocol: chat, super\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-own\r\n";

/// The upstream's connection is given up: FIN or RST.
fn assert_left(upstream: &TcpStream) {
    let (bytes, _) = read_all(upstream);
    assert_eq!(String::from_utf8_lossy(&bytes), "");
}

/// `head` with what the proxy adds behind its fields, and the body.
fn passed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let is_id = |line: &str| line.strip_prefix("X-Request-Id: ").is_some_and(|id| id.len() == 32);
    text.split("\r\n").map(|line| if is_id(line) { "X-Request-Id: ID" } else { line }).collect::<Vec<_>>().join("\r\n")
}

/// Answers other than 101, and what the client gets of them.
fn other_answers() -> Vec<(&'static str, String, After, String)> {
    const TAIL: &str = "Connection: close\r\nX-Request-Id: ID\r\n\r\n";
    const CHUNKED: &str = "3;x=y\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n";
    let row = |name, answer: &str, after, want: String| (name, answer.to_owned(), after, want);
    vec![
        row(
            "Content-Length",
            "HTTP/1.1 403 No Way\r\nSet-Cookie: a\r\nContent-Length: 5\r\n\r\nhello",
            After::Stays,
            format!("HTTP/1.1 403 No Way\r\nSet-Cookie: a\r\nContent-Length: 5\r\n{TAIL}hello"),
        ),
        row(
            "Content-Length and bytes beyond",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
            After::Stays,
            format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{TAIL}hello"),
        ),
        row(
            "Content-Length 0",
            "HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            After::Stays,
            format!("HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n{TAIL}"),
        ),
        row(
            "cut short by FIN: never padded",
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            After::Fin,
            format!("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n{TAIL}hello"),
        ),
        row(
            "chunked with extension and trailer",
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}"),
            After::Stays,
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{TAIL}{CHUNKED}"),
        ),
        row(
            "chunked and bytes beyond",
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}more"),
            After::Stays,
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{TAIL}{CHUNKED}"),
        ),
        row(
            "chunked, cut short by FIN",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            After::Fin,
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{TAIL}5\r\nhel"),
        ),
        row("until FIN", "HTTP/1.1 500 X\r\n\r\nhello", After::Fin, format!("HTTP/1.1 500 X\r\n{TAIL}hello")),
        row(
            "HTTP/1.0 until FIN",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            After::Fin,
            format!("HTTP/1.1 200 OK\r\n{TAIL}hello"),
        ),
        row("204", "HTTP/1.1 204 X\r\n\r\nhello", After::Stays, format!("HTTP/1.1 204 X\r\n{TAIL}")),
        row(
            "304 with a length",
            "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\nhello",
            After::Stays,
            format!("HTTP/1.1 304 X\r\nContent-Length: 5\r\n{TAIL}"),
        ),
        row(
            "hop-by-hop fields and ids",
            "HTTP/1.1 302 X\r\nConnection: X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX-Request-Id: theirs\r\n\
             Location: /y\r\nContent-Length: 0\r\n\r\n",
            After::Stays,
            format!("HTTP/1.1 302 X\r\nLocation: /y\r\nContent-Length: 0\r\n{TAIL}"),
        ),
        row(
            "100 and 103 first",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 429 X\r\nContent-Length: 1\r\n\r\ny",
            After::Stays,
            format!("HTTP/1.1 429 X\r\nContent-Length: 1\r\n{TAIL}y"),
        ),
    ]
}

#[test]
fn an_answer_that_is_no_101_is_passed_on_however_it_is_cut() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    for (name, answer, after, want) in other_answers() {
        let cuts = [Cut::Whole, Cut::EveryByte].into_iter().chain((1..answer.len()).map(Cut::At));
        for cut in cuts {
            let (client, upstream) = answered(&proxy, &listener, (answer.as_bytes(), after), cut);
            let (bytes, end) = read_all(&client);
            assert_eq!((passed(&bytes), end), (want.clone(), End::Fin), "{name}, cut {cut:?}");
            assert_left(&upstream);
        }
    }
}

/// What is no valid answer, or no valid 101, and never reaches the client.
#[rustfmt::skip]
fn bad_answers() -> Vec<(&'static str, String, After)> {
    let good = switching("");
    let without = |line: &str| good.replace(&format!("{line}\r\n"), "");
    let accept_line = format!("Sec-WebSocket-Accept: {ACCEPT}");
    let changed = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from:?}");
        changed
    };
    [
        ("no Accept", without(&accept_line)),
        ("another Accept", changed("s3pP", "S3pP")),
        ("Accept of other case", changed(ACCEPT, &ACCEPT.to_lowercase())),
        ("two Accepts", switching(&format!("{accept_line}\r\n"))),
        ("an Accept with more", changed(ACCEPT, &format!("{ACCEPT}x"))),
        ("no Upgrade", without("Upgrade: websocket")),
        ("another Upgrade", changed("websocket", "h2c")),
        ("two upgrades", changed("websocket", "websocket, h2c")),
        ("no Connection", without("Connection: Upgrade")),
        ("Connection: close", changed("Connection: Upgrade", "Connection: close")),
        ("a subprotocol not offered", switching("Sec-WebSocket-Protocol: other\r\n")),
        ("a subprotocol of other case", switching("Sec-WebSocket-Protocol: Chat\r\n")),
        ("two subprotocols", switching("Sec-WebSocket-Protocol: chat, super\r\n")),
        ("two lines of subprotocols", switching("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: super\r\n")),
        ("an empty subprotocol", switching("Sec-WebSocket-Protocol:\r\n")),
        ("an extension not offered", switching("Sec-WebSocket-Extensions: x-other\r\n")),
        ("one offered and one not", switching("Sec-WebSocket-Extensions: permessage-deflate, x-other\r\n")),
        ("an extension twice", switching("Sec-WebSocket-Extensions: x-own, x-own\r\n")),
        ("an extension without a name", switching("Sec-WebSocket-Extensions: ;x\r\n")),
        ("a body", switching("Content-Length: 5\r\n")),
        ("chunks", switching("Transfer-Encoding: chunked\r\n")),
        ("HTTP/1.0", changed("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/2", changed("HTTP/1.1", "HTTP/2")),
        ("LF only", good.replace("\r\n", "\n")),
        ("obs-fold", switching("X: y\r\n z\r\n")),
        ("space before the colon", switching("X : y\r\n")),
        ("NUL", switching("X: \0\r\n")),
        ("no HTTP", "220 mail.example ESMTP\r\n\r\n".into()),
        ("status 099", "HTTP/1.1 099 X\r\n\r\n".into()),
        ("status 999", "HTTP/1.1 999 X\r\n\r\n".into()),
        ("too large a head", switching(&format!("X: {}\r\n", "y".repeat(17_000)))),
        ("too many fields", switching(&"X: y\r\n".repeat(101))),
        ("too many interim answers", "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n".repeat(400)),
        ("Content-Length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".into()),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into()),
        ("an unreadable length", "HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc".into()),
    ]
    .map(|(name, answer)| (name, answer, After::Stays))
    .into_iter()
    .chain([
        ("nothing and FIN", String::new(), After::Fin),
        ("half a head and FIN", good[..good.len() - 2].to_owned(), After::Fin),
        ("an interim answer and FIN", "HTTP/1.1 103 X\r\n\r\n".into(), After::Fin),
    ])
    .collect()
}

#[test]
fn a_bad_answer_is_a_502_however_it_is_cut() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    for (name, answer, after) in bad_answers() {
        // What stands behind it must not pass either.
        let behind = if after == After::Fin { String::new() } else { format!("{answer}\u{81}\u{1}x") };
        for (answer, cut) in [(&answer, Cut::Whole), (&answer, Cut::EveryByte), (&behind, Cut::Whole)] {
            let (client, upstream) = answered(&proxy, &listener, (answer.as_bytes(), after), cut);
            let (bytes, end) = read_all(&client);
            check_refusal(name, &bytes, 502);
            assert_eq!(end, End::Fin, "{name}");
            assert_left(&upstream);
        }
    }
}

#[test]
fn a_101_passes_anew_with_the_frames_behind_it_however_it_is_cut() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    let fields = "Sec-WebSocket-Protocol: super\r\nServer: x\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
        Sec-WebSocket-Extensions: X-OWN\r\n";
    let answer = ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", &switching(fields)].concat();
    let frames = [plain(0x81, b"hello"), plain(0x82, &[7; 200]), plain(0x88, &close_payload(4000, "bye"))].concat();
    let all = [answer.as_bytes(), &frames].concat();
    let want = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\
         Sec-WebSocket-Protocol: super\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nSec-WebSocket-Extensions: X-OWN\r\n\r\n"
    );
    for cut in [Cut::Whole, Cut::EveryByte].into_iter().chain((1..all.len()).map(Cut::At)) {
        let (mut client, mut upstream) = answered(&proxy, &listener, (&all, After::Stays), cut);
        assert_eq!(read_head(&client), want, "cut {cut:?}");
        assert_eq!(read_exact(&client, frames.len()), frames, "cut {cut:?}");
        let close = masked(0x88, &close_payload(4000, "bye"));
        client.write_all(&close).unwrap();
        assert_eq!(read_all(&client), (Vec::new(), End::Fin), "cut {cut:?}");
        assert_eq!(read_exact(&upstream, close.len()), close, "cut {cut:?}");
        upstream.flush().unwrap();
    }
}

/// The client sends frames before it has its answer.
#[test]
fn early_bytes_are_held_until_the_101_and_discarded_on_any_other_answer() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    let early = [masked(0x81, b"early"), masked(0x82, &[9; 3000])].concat();
    let later = masked(0x81, b"later");
    let refusal = "HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n";
    let all = [request("/", "").as_bytes(), &early].concat();
    let head_len = all.len() - early.len();
    for cut in [Cut::Whole, Cut::EveryByte].into_iter().chain((head_len - 2..head_len + 20).map(Cut::At)) {
        for answer in [switching(""), refusal.into()] {
            let mut client = connect(proxy.addr);
            write_cut(&client, &all, cut).unwrap();
            let mut upstream = accept(&listener);
            read_head(&upstream);
            // More, when the upstream has been asked already.
            client.write_all(&later).unwrap();
            upstream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            assert!(upstream.read(&mut [0]).is_err(), "a byte of the client before the 101");
            patient(upstream.try_clone().unwrap());
            upstream.write_all(answer.as_bytes()).unwrap();
            if answer == refusal {
                let (bytes, end) = read_all(&client);
                assert_eq!((Answer::parse(&bytes).status, end), (403, End::Fin), "cut {cut:?}");
                assert_left(&upstream);
            } else {
                assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
                let want = [&early[..], &later].concat();
                assert_eq!(read_exact(&upstream, want.len()), want, "cut {cut:?}");
            }
        }
    }
}

/// The early bytes count against the head's limit, and are judged like any others.
#[test]
fn early_bytes_beyond_the_limit_wait_in_the_kernel_and_bad_ones_are_violations() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    let early = masked(0x82, &vec![9; 300_000]);
    let all = [request("/", "").as_bytes(), &early].concat();
    let client = connect(proxy.addr);
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&all).unwrap());
        let mut upstream = accept(&listener);
        read_head(&upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        assert!(read_exact(&upstream, early.len()) == early);
    });
    let mut client = connect(proxy.addr);
    client.write_all(&[request("/", "").as_bytes(), &plain(0x81, b"unmasked")].concat()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    read_head(&client);
    assert_eq!(read_close(&client).0, 1002);
    assert_eq!(read_close(&upstream).0, 1001);
}

#[test]
fn a_long_answer_is_cut_at_1_mib() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    for framing in ["Content-Length: 5000000\r\n", ""] {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let upstream = accept(&listener);
        read_head(&upstream);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _cut = (&upstream).write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_bytes());
                let _cut = (&upstream).write_all(&vec![b'x'; 5_000_000]);
            });
            let (bytes, end) = read_all(&client);
            let answer = Answer::parse(&bytes);
            assert_eq!((answer.status, answer.body.len(), end), (200, 1 << 20, End::Fin), "{framing}");
        });
    }
}

#[test]
fn an_answer_that_takes_too_long_is_cut_and_one_that_never_comes_is_a_504() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nupstream_head = \"300ms\"");
    for (answer, want) in [
        ("", "504"),
        ("HTTP/1.1 101 Swi", "504"),
        ("HTTP/1.1 103 X\r\n\r\n", "504"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "200"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "200"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello", "200"),
    ] {
        let begun = Instant::now();
        let (client, upstream) = answered(&proxy, &listener, (answer.as_bytes(), After::Stays), Cut::Whole);
        let (bytes, end) = read_all(&client);
        assert_eq!(end, End::Fin, "{answer}");
        // The loop's clock is in milliseconds, and read once a pass.
        assert!(begun.elapsed() >= Duration::from_millis(290), "{answer}");
        match want {
            "504" => check_refusal(answer, &bytes, 504),
            _ => assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && bytes.ends_with(b"hello"), "{answer}"),
        }
        assert_left(&upstream);
    }
}

#[test]
fn where_no_upstream_takes_the_connection_the_answer_says_why() {
    let closed = {
        let (_, addr) = listen();
        addr
    };
    let proxy = Proxy::alone_before(closed, "");
    refused(proxy.addr, &("refused".into(), request("/", "").into_bytes(), 502), Cut::Whole);
    // A queue of one that is full: the kernel drops what comes, and a connect hangs.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let _fillers = [(); 4].map(|()| TcpStream::connect_timeout(&addr, Duration::from_millis(50)));
    let proxy = Proxy::alone_before(addr, "[timeouts]\nconnect = \"200ms\"\nconnect_total = \"400ms\"");
    refused(proxy.addr, &("hangs".into(), request("/", "").into_bytes(), 504), Cut::Whole);
}

#[test]
fn a_head_that_does_not_end_is_a_408_and_silence_is_answered_with_silence() {
    let upstream = Recorder::start();
    let proxy = Proxy::alone_before(upstream.addr, "[timeouts]\nrequest_head = \"300ms\"");
    let good = request(&format!("/{CANARY}"), "");
    let cuts: Vec<usize> = [1, 2, 17].into_iter().chain(good.len() - 3..good.len()).collect();
    in_parallel(cuts, |cut| {
        let begun = Instant::now();
        refused(proxy.addr, &(format!("{cut} bytes"), good.as_bytes()[..*cut].to_vec(), 408), Cut::Whole);
        assert!(begun.elapsed() >= Duration::from_millis(300));
    });
    let lines = proxy.log.all().len();
    let begun = Instant::now();
    assert_eq!(read_all(&connect(proxy.addr)), (Vec::new(), End::Fin));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let never_spoke = || proxy.metric("framegate_handshakes_total{outcome=\"no-request\"}");
    assert_eq!(eventually("a count", || Some(never_spoke()).filter(|n| *n > 0.0)), 1.0);
    // Closed before the first byte: by FIN, by RST.
    drop(connect(proxy.addr));
    eventually("a count", || (never_spoke() == 2.0).then_some(()));
    socket2::SockRef::from(&connect(proxy.addr)).set_linger(Some(Duration::ZERO)).unwrap();
    eventually("a count", || (never_spoke() == 3.0).then_some(()));
    // The next line is that of a session.
    assert_untouched(&proxy, &upstream, "/good");
    proxy.log.wait("a line of the session", |line| line.contains("/good").then_some(()));
    assert_eq!(proxy.log.all().iter().filter(|line| line.contains("never")).count(), 0);
    assert!(proxy.log.all().len() <= lines + 8, "{:?}", proxy.log.all());
}

/// A refused client that goes on sending for a while is read and not reset: a reset could take the answer with it.
#[test]
fn a_refused_client_is_read_on_for_a_while() {
    let upstream = Recorder::start();
    let proxy = table_proxy(upstream.addr);
    let mut client = connect(proxy.addr);
    client.write_all(with_line("X : y").as_bytes()).unwrap();
    for i in 0..40 {
        // Each has the time to be answered with a reset.
        std::thread::park_timeout(Duration::from_millis(2));
        client.write_all(&[b'x'; 1000]).unwrap_or_else(|error| panic!("piece {i}: {error}"));
    }
    let (bytes, end) = read_all(&client);
    check_refusal("read on", &bytes, 400);
    assert_eq!(end, End::Fin);
}
