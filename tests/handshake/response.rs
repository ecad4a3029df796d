//! The responses of the upstream: a 101, another status, or neither; and the client's early bytes.

use super::common::*;
use super::refused::{assert_untouched, in_parallel, table_proxy};
use super::*;

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

const OFFER: &str = "Sec-WebSocket-Protocol: chat, super\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-own\r\n";

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
            "HTTP/1.1 302 X\r\nConnection: X-Gone\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
                X-Request-Id: theirs\r\n\
             Location: /y\r\nContent-Length: 0\r\n\r\n",
            After::Stays,
            format!("HTTP/1.1 302 X\r\nLocation: /y\r\nContent-Length: 0\r\n{TAIL}"),
        ),
        row(
            "100 and 103 first",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 429 X\r\n\
                Content-Length: 1\r\n\r\ny",
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
        ("an extension not offered", switching("Sec-WebSocket-Extensions: x-other\r\n")),
        ("one offered and one not", switching("Sec-WebSocket-Extensions: permessage-deflate, x-other\r\n")),
        ("an extension twice", switching("Sec-WebSocket-Extensions: x-own, x-own\r\n")),
        ("an extension without a name", switching("Sec-WebSocket-Extensions: ;x\r\n")),
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
        ("Content-Length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\
            Transfer-Encoding: chunked\r\n\r\n".into()),
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
    let fields = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nSec-WebSocket-Protocol:\r\n\
        Sec-WebSocket-Extensions: ,\r\n\
        Sec-WebSocket-Protocol: super\r\nServer: x\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
        Sec-WebSocket-Extensions: X-OWN\r\n";
    let answer = ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", &switching(fields)].concat();
    let frames = [plain(0x81, b"hello"), plain(0x82, &[7; 200]), plain(0x88, &close_payload(4000, "bye"))].concat();
    let all = [answer.as_bytes(), &frames].concat();
    let want = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Accept: {ACCEPT}\r\n\
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
fn early_bytes_beyond_the_limit_wait_and_bad_ones_are_violations() {
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
    // Bound, so that no other process gets it, and not listening.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    closed.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let proxy = Proxy::alone_before(closed.local_addr().unwrap().as_socket().unwrap(), "");
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

/// A refused client that goes on sending for a while is read and not reset: a reset could take the
/// answer with it.
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
