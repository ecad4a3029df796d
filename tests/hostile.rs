//! Hostile and failing peers: slow heads, floods, garbage, loss of the upstream or the client in
//! each phase, lack of descriptors and buffers. Other sessions must be served as usual.

mod common;

use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a whole session, from request to Close. Its upstream is `listener`.
fn assert_serves(proxy: &Proxy, listener: &TcpListener) {
    let (client, upstream) = open(proxy, listener);
    assert_relays(client, upstream);
}

/// Uses an established session, from its first message to Close.
fn assert_relays(mut client: TcpStream, mut upstream: TcpStream) {
    let (there, back) = (masked(0x81, b"there"), plain(0x81, b"back"));
    client.write_all(&there).unwrap();
    assert_eq!(read_exact(&upstream, there.len()), there);
    upstream.write_all(&back).unwrap();
    assert_eq!(read_exact(&client, back.len()), back);
    let (close, answer) = (masked(0x88, &close_payload(1000, "")), plain(0x88, &close_payload(1000, "")));
    client.write_all(&close).unwrap();
    assert_eq!(read_exact(&upstream, close.len()), close);
    upstream.write_all(&answer).unwrap();
    assert_eq!(read_all(&client), (answer, End::Fin));
    drop(client);
    drop(upstream);
}

/// Waits until no session, handshake or backlog is left.
fn assert_empty(proxy: &Proxy) {
    for gauge in ["framegate_handshakes", "framegate_sessions{worker=\"0\"}", "framegate_backlog_bytes"] {
        eventually(gauge, || (proxy.metric(gauge) == 0.0).then_some(()));
    }
}

/// CPU time of the process, user and system.
fn cpu(proxy: &Proxy) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on all Linux architectures.
    Duration::from_millis(ticks * 10)
}

fn open_files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

/// Lowers the limit of a running proxy to `room` more descriptors; returns how many it can have.
fn leave_descriptors(proxy: &Proxy, room: usize) -> usize {
    // The limit is on the numbers, and the lowest free number is used first.
    let dir = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let open: Vec<usize> = dir.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(room).unwrap();
    let set =
        Command::new("prlimit").arg(format!("--pid={}", proxy.pid())).arg(format!("--nofile={limit}:{limit}")).status();
    assert!(set.unwrap().success());
    open.len() + room
}

/// The CPU time of a second without work.
fn cpu_of_a_second(proxy: &Proxy) -> Duration {
    let before = cpu(proxy);
    // Not a wait for a condition: this is the time measured.
    std::thread::sleep(Duration::from_secs(1));
    cpu(proxy) - before
}

#[test]
fn slow_heads_end_at_the_deadline_and_delay_no_session() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nrequest_head = \"4s\"");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for i in 0..30 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = connect(proxy.addr);
                // Every tenth sends all of its head slowly, the others a part of it.
                let head = request("/", "");
                let (at_once, dripped) = head.split_at(if i % 10 == 0 { 0 } else { i * 3 });
                client.write_all(at_once.as_bytes()).unwrap();
                for byte in dripped.as_bytes().chunks(1) {
                    // The pace of the attack.
                    std::thread::sleep(Duration::from_millis(100));
                    if client.write_all(byte).is_err() || begun.elapsed() > Duration::from_millis(4500) {
                        break;
                    }
                }
                let (answer, end) = read_all(&client);
                assert!(answer.starts_with(b"HTTP/1.1 408 "), "{i}: {}", String::from_utf8_lossy(&answer));
                assert_eq!(end, End::Fin);
            });
        }
        for _ in 0..5 {
            assert_serves(&proxy, &listener);
        }
        // None of the slow heads had to end first.
        let timed_out = proxy.log.all().into_iter().find(|line| line.contains("cause=head-timeout"));
        assert_eq!(timed_out, None, "held up by slow heads");
    });
    assert_empty(&proxy);
}

#[test]
fn silent_connections_delay_no_session() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nrequest_head = \"4s\"");
    let flood: Vec<_> = (0..800).map(|_| connect(proxy.addr)).collect();
    for _ in 0..5 {
        assert_serves(&proxy, &listener);
    }
    // The silent connections did not have to end first: the last of them still waits.
    assert_quiet(&flood[flood.len() - 1]);
    assert!(cpu_of_a_second(&proxy) < Duration::from_millis(200));
    for client in &flood {
        assert_eq!(read_all(client), (vec![], End::Fin));
    }
    assert_eq!(proxy.log.all().len(), 10, "lines of silent connections");
    assert_empty(&proxy);
}

/// Above `max_handshakes` clients wait in the kernel's queue, and the proxy does not spin over
/// them.
#[test]
fn clients_above_max_handshakes_only_wait() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[limits]\nmax_handshakes = 20\n[timeouts]\nrequest_head = \"800ms\"");
    let flood: Vec<_> = (0..60).map(|_| connect(proxy.addr)).collect();
    eventually("all permits taken", || (proxy.metric("framegate_handshakes") >= 20.0).then_some(()));
    assert!(cpu_of_a_second(&proxy) < Duration::from_millis(200));
    assert_serves(&proxy, &listener);
    drop(flood);
    assert_empty(&proxy);
    // The best of five: one slow turn of the machine is no delay of the proxy.
    let times = (0..5).map(|_| {
        let begun = Instant::now();
        assert_serves(&proxy, &listener);
        begun.elapsed()
    });
    assert!(times.min() < Some(Duration::from_secs(1)));
}

/// Clients wait in the queue while the worker has no descriptors, and are served once it has.
#[test]
fn clients_wait_while_descriptors_are_exhausted() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    assert_serves(&proxy, &listener);
    assert_empty(&proxy);
    let room = 200;
    let limit = leave_descriptors(&proxy, room);
    let holders: Vec<_> = (0..room + 20).map(|_| connect(proxy.addr)).collect();
    eventually("no descriptor is left", || (open_files(&proxy) >= limit).then_some(()));
    let waiting: Vec<_> = (0..30)
        .map(|i| {
            let mut client = connect(proxy.addr);
            client.write_all(request(&format!("/{i}"), "").as_bytes()).unwrap();
            client
        })
        .collect();
    let mut asks = connect(proxy.admin());
    asks.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let spent = cpu_of_a_second(&proxy);
    assert!(spent < Duration::from_millis(200), "{spent:?} of CPU in a second without descriptors");
    // All at once: a client accepted with the last descriptor gets a 503, as the next test shows.
    proxy.signal("STOP");
    drop(holders);
    proxy.signal("CONT");
    let upstreams: Vec<_> = (0..waiting.len())
        .map(|_| {
            let mut upstream = accept(&listener);
            read_head(&upstream);
            upstream.write_all(switching("").as_bytes()).unwrap();
            upstream
        })
        .collect();
    for client in &waiting {
        let head = read_head(client);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
    drop((waiting, upstreams));
    assert!(read_all(&asks).0.starts_with(b"HTTP/1.1 200 "), "the admin listener lost a connection");
    assert!(proxy.metric("framegate_accept_backoffs_total") > 0.0);
    assert_serves(&proxy, &listener);
    assert_empty(&proxy);
}

/// The client got the last descriptor: the proxy is at fault, not the upstream.
#[test]
fn no_descriptor_for_the_upstream_gives_503() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    let idle = open_files(&proxy);
    assert_serves(&proxy, &listener);
    eventually("every descriptor is back", || (open_files(&proxy) == idle).then_some(()));
    leave_descriptors(&proxy, 1);
    for _ in 0..3 {
        let answer = http(proxy.addr, &request("/", ""));
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{answer}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

/// One client after the other: none waits for a tick of the timer wheel.
#[test]
fn single_client_is_accepted_without_delay() {
    let (_listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let begun = Instant::now();
            http(proxy.addr, "GET / HTTP/1.0\r\n\r\n");
            begun.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[10] < Duration::from_millis(30), "{times:?}");
}

/// A client whose request has reached the upstream.
fn asked(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let upstream = accept(listener);
    read_head(&upstream);
    (client, upstream)
}

#[test]
fn slow_upstream_head_ends_at_the_deadline() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nupstream_head = \"500ms\"");
    let answer = switching("");
    let (client, mut upstream) = asked(&proxy, &listener);
    let begun = Instant::now();
    for byte in answer.as_bytes().chunks(1) {
        // The pace of the attack.
        std::thread::sleep(Duration::from_millis(50));
        if upstream.write_all(byte).is_err() {
            break;
        }
    }
    let (got, end) = read_all(&client);
    assert!(got.starts_with(b"HTTP/1.1 504 ") && end == End::Fin, "{}", String::from_utf8_lossy(&got));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_serves(&proxy, &listener);
}

/// How a peer disconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Closing,
    HalfClosing,
    Resetting,
}

const WAYS: [Leaves; 3] = [Leaves::Closing, Leaves::HalfClosing, Leaves::Resetting];

impl Leaves {
    /// Disconnects. The result keeps the other half of the connection.
    fn of(self, stream: TcpStream) -> Option<TcpStream> {
        match self {
            Leaves::Closing => None,
            Leaves::HalfClosing => {
                stream.shutdown(Shutdown::Write).unwrap();
                Some(stream)
            }
            Leaves::Resetting => {
                reset(stream);
                None
            }
        }
    }
}

#[test]
fn upstream_loss_before_the_101_gives_502() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    let whole = switching("");
    for way in WAYS {
        for len in [0, 1, 9, 40, whole.len() - 2, whole.len() - 1] {
            let (client, mut upstream) = asked(&proxy, &listener);
            upstream.write_all(&whole.as_bytes()[..len]).unwrap();
            let _rest = way.of(upstream);
            let (got, end) = read_all(&client);
            let text = String::from_utf8_lossy(&got);
            assert!(got.starts_with(b"HTTP/1.1 502 "), "{way:?} after {len}: {text}");
            assert_eq!(end, End::Fin, "{way:?} after {len}");
        }
        // Accepted, and closed before it read anything.
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let _rest = way.of(accept(&listener));
        let (got, end) = read_all(&client);
        assert!(got.starts_with(b"HTTP/1.1 502 ") && end == End::Fin, "{way:?}: {}", String::from_utf8_lossy(&got));
    }
    assert_empty(&proxy);
    assert_serves(&proxy, &listener);
}

#[test]
fn upstream_loss_after_the_101_is_forwarded_as_it_came() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    let frame = plain(0x82, &[5; 3000]);
    for way in WAYS {
        for len in [0, 1, 3, 4, 1500, frame.len()] {
            let (client, mut upstream) = open(&proxy, &listener);
            upstream.write_all(&frame[..len]).unwrap();
            // An incomplete header is not forwarded.
            let passes = if len < 4 { 0 } else { len };
            assert_eq!(read_exact(&client, passes), &frame[..passes]);
            let _rest = way.of(upstream);
            let want = if way == Leaves::Resetting { End::Reset } else { End::Fin };
            assert_eq!(read_all(&client), (vec![], want), "{way:?} after {len}");
        }
    }
    assert_empty(&proxy);
}

/// A response cut by a reset must not look complete.
#[test]
fn upstream_reset_inside_a_response_resets_the_client() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    for framing in ["", "Content-Length: 50\r\n", "Transfer-Encoding: chunked\r\n"] {
        let (client, mut upstream) = asked(&proxy, &listener);
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n5\r\nhe");
        upstream.write_all(answer.as_bytes()).unwrap();
        let mut got = read_head(&client).into_bytes();
        got.extend(read_exact(&client, 5));
        assert!(got.ends_with(b"5\r\nhe"));
        reset(upstream);
        assert_eq!(read_all(&client), (vec![], End::Reset), "{framing}");
    }
    assert_empty(&proxy);
}

/// Also if the client sent early bytes, or the upstream a part of its response.
#[test]
fn client_loss_before_the_101_closes_the_upstream() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    let answers = ["", "HTTP/1.1 1", "HTTP/1.1 103 X\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"];
    for way in WAYS {
        for answer in answers {
            for early in [0, 100, 100_000] {
                let name = format!("{way:?} after {answer:?} with {early} early bytes");
                let (client, mut upstream) = asked(&proxy, &listener);
                if early > 0 {
                    (&client).write_all(&masked(0x82, &vec![1; early])).unwrap();
                }
                upstream.write_all(answer.as_bytes()).unwrap();
                let begun = Instant::now();
                let _rest = way.of(client);
                let (got, _) = read_all(&upstream);
                assert_eq!(got, b"", "{name}");
                assert!(begun.elapsed() < Duration::from_secs(2), "{name}: {:?}", begun.elapsed());
            }
        }
    }
    assert_empty(&proxy);
    assert_serves(&proxy, &listener);
}

/// The client disconnects while the connect hangs.
#[test]
fn client_loss_during_a_connect_ends_it() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let _fillers = [(); 4].map(|()| TcpStream::connect_timeout(&addr, Duration::from_millis(50)));
    let proxy = Proxy::alone_before(addr, "[timeouts]\nconnect = \"1m\"\nconnect_total = \"1m\"");
    for way in WAYS {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        eventually("it is admitted", || (proxy.metric("framegate_handshakes") == 1.0).then_some(()));
        let _rest = way.of(client);
        eventually("it is gone", || (proxy.metric("framegate_handshakes") == 0.0).then_some(()));
    }
}

#[test]
fn garbage_is_refused_and_leaks_nothing() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    // A TLS ClientHello, SSH, SMTP, SOCKS, an HTTP/2 preface with its SETTINGS, a WebSocket frame,
    // line ends.
    let hello = [&[0x16, 3, 1, 0, 0xc8, 1, 0, 0, 0xc4, 3, 3][..], &[0x5a; 190]].concat();
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let rows: &[(&str, &[u8], &str)] = &[
        ("TLS", &hello, "400"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1\r\n", "400"),
        ("SMTP", b"EHLO there\r\n", "400"),
        ("SOCKS", &[5, 1, 0], "400"),
        ("HTTP/2", &preface, "505"),
        ("a frame", &masked(0x81, b"hello"), "400"),
        ("line ends", b"\r\n\r\n\r\n\r\n", "400"),
        ("PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n", "400"),
    ];
    for (name, bytes, status) in rows {
        for torn in [false, true] {
            let mut client = connect(proxy.addr);
            if torn {
                let _refused = bytes.chunks(1).try_for_each(|byte| client.write_all(byte));
            } else {
                client.write_all(bytes).unwrap();
            }
            // Ends an incomplete head.
            let _closed = client.shutdown(Shutdown::Write);
            let (got, end) = read_all(&client);
            let text = String::from_utf8_lossy(&got);
            let refused = got.starts_with(format!("HTTP/1.1 {status} ").as_bytes());
            assert!(refused || (got.is_empty() && !is_decided(bytes)), "{name}: {text}");
            assert_eq!(end, End::Fin, "{name}");
        }
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for i in 0..500 {
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let len = next() as usize % 300 + 1;
        let bytes: Vec<u8> = match i % 3 {
            0 => (0..len).map(|_| next() as u8).collect(),
            // A request with one byte changed.
            1 => {
                let mut head = request("/", "").into_bytes();
                let at = next() as usize % head.len();
                head[at] = next() as u8;
                head
            }
            _ => (0..len).map(|_| b"GET /:\r\n\r\n HTP1.x"[next() as usize % 17]).collect(),
        };
        let mut client = connect(proxy.addr);
        let _refused = client.write_all(&bytes);
        let _closed = client.shutdown(Shutdown::Write);
        if i % 3 == 1 {
            // It may still be valid.
            let mut first = [0; 12];
            if let Ok(12) = client.peek(&mut first) {
                assert!(first.starts_with(b"HTTP/1.1 4") || first.starts_with(b"HTTP/1.1 5"), "{bytes:?}");
            }
            continue;
        }
        let (got, end) = read_all(&client);
        assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 400 ") || got.starts_with(b"HTTP/1.1 505 "), "{bytes:?}");
        assert_eq!(end, End::Fin, "{bytes:?}");
    }
    // Valid requests waited for their upstream until the client disconnected: their connections are
    // still in the listener's queue, or (behind TLS) on their way there.
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    assert_empty(&proxy);
    let mut client = connect(proxy.addr);
    client.write_all(request("/last", "").as_bytes()).unwrap();
    let mut upstream = loop {
        let upstream = accept(&listener);
        let mut start = [0; 9];
        if matches!((&upstream).read_exact(&mut start), Ok(()) if start == *b"GET /last") {
            break upstream;
        }
    };
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    assert_relays(client, upstream);
}

/// Whether `bytes` are enough for a refusal: a complete head, or one that no continuation makes
/// valid.
fn is_decided(bytes: &[u8]) -> bool {
    !matches!(bytes, b"SSH-2.0-OpenSSH_9.2p1\r\n" | b"EHLO there\r\n")
}

/// A stalled receiver ends at its deadline, and the other side gets a Close.
#[test]
fn client_that_reads_nothing_is_reset() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "timeouts = { write_stall = \"300ms\" }");
    let (client, upstream) = open(&proxy, &listener);
    upstream.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let frame = plain(0x82, &vec![1; 64 << 20]);
    let mut sent = 0;
    let mut heard = Vec::new();
    eventually("the upstream hears of it", || {
        let wrote = (&upstream).write(&frame[sent..frame.len().min(sent + 65_536)]);
        let mut buf = [0; 1024];
        let read = (&upstream).read(&mut buf);
        sent += wrote.unwrap_or(0);
        heard.extend_from_slice(&buf[..read.unwrap_or(0)]);
        (!heard.is_empty()).then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5));
    assert!(sent < 48 << 20, "{sent} bytes were taken for a client that reads nothing");
    assert_eq!(heard.first(), Some(&0x88), "{heard:x?}");
    drop(client);
    drop(upstream);
    assert_empty(&proxy);
    proxy.log.wait_for("write-stall");
}

/// Stalled sessions cannot use up the buffers of a healthy one: the longest-stalled end.
#[test]
fn healthy_session_does_not_wait_for_stalled_ones() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "timeouts = { close = \"300ms\" }\n[limits]\nbuffers = \"256KiB\"");
    let (mut healthy, mut echo) = open(&proxy, &listener);
    let stalled: Vec<_> = (0..32).map(|_| open(&proxy, &listener)).collect();
    let long = &plain(0x82, &vec![1; 32 << 20]);
    std::thread::scope(|scope| {
        for (_, upstream) in &stalled {
            scope.spawn(move || {
                // Until its session ends, or the write stalls.
                upstream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                let _ended = (&*upstream).write_all(long);
            });
        }
        for i in 0..300_u32 {
            let there = masked(0x82, &i.to_be_bytes().repeat(100));
            healthy.write_all(&there).unwrap();
            assert!(read_exact(&echo, there.len()) == there);
            let back = plain(0x82, &i.to_be_bytes().repeat(100));
            echo.write_all(&back).unwrap();
            assert!(read_exact(&healthy, back.len()) == back);
        }
    });
    proxy.log.wait_for("out-of-buffers");
    let large = plain(0x82, &vec![6; 4 << 20]);
    std::thread::scope(|scope| {
        scope.spawn(|| (&echo).write_all(&large).unwrap());
        assert!(read_exact(&healthy, large.len()) == large);
    });
    // The limit holds for all backlogs together.
    assert!(proxy.metric("framegate_backlog_bytes") <= f64::from(256 << 10));
    drop((stalled, healthy, echo));
    assert_empty(&proxy);
}

/// After hundreds of refusals and violations every slot, descriptor and buffer is free again.
#[test]
fn failed_sessions_leak_nothing() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    assert_serves(&proxy, &listener);
    assert_empty(&proxy);
    let before = eventually("a calm moment", || Some(open_files(&proxy)));
    for i in 0..300 {
        let mut client = connect(proxy.addr);
        let _refused = client.write_all(b"BAD\n");
        if i % 2 == 0 {
            read_all(&client);
        }
        let (mut client, upstream) = asked(&proxy, &listener);
        if i % 3 == 0 {
            drop(upstream);
            read_all(&client);
        } else if i % 3 == 1 {
            reset(client);
            read_all(&upstream);
        } else {
            (&upstream).write_all(switching("").as_bytes()).unwrap();
            client.write_all(&plain(0x81, b"unmasked")).unwrap();
            let mut byte = [0];
            upstream.set_nonblocking(false).unwrap();
            assert_eq!((&upstream).read(&mut byte).unwrap(), 1);
        }
    }
    assert_empty(&proxy);
    eventually("every descriptor is back", || (open_files(&proxy) <= before).then_some(()));
}
