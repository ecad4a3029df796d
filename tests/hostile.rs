//! Peers that mean no good or fare badly: slow heads, floods, garbage, an upstream that dies in each phase, a client
//! that leaves in each, want of descriptors and of buffers. In each case others are served as ever.

mod common;

use common::*;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// A session that works, from the first byte to the last. Its upstream is `listener`.
fn assert_serves(proxy: &Proxy, listener: &TcpListener) {
    let (mut client, mut upstream) = open(proxy, listener);
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

/// Nothing is left of what went wrong.
fn assert_empty(proxy: &Proxy) {
    for gauge in ["framegate_handshakes", "framegate_sessions{worker=\"0\"}", "framegate_backlog_bytes"] {
        eventually(gauge, || (proxy.metric(gauge) == 0.0).then_some(()));
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
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

/// Lowers the limit of a running proxy so that it can have `room` more; gives how many are open then.
fn leave_descriptors(proxy: &Proxy, room: usize) -> usize {
    // The limit is on their numbers, and the lowest free one is given out first.
    let dir = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let open: Vec<usize> = dir.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(room).unwrap();
    let set =
        Command::new("prlimit").arg(format!("--pid={}", proxy.pid())).arg(format!("--nofile={limit}:{limit}")).status();
    assert!(set.unwrap().success());
    open.len() + room
}

/// How much CPU a quiet second costs.
fn cpu_of_a_second(proxy: &Proxy) -> Duration {
    let before = cpu(proxy);
    // Not a wait for anything: the time over which is measured.
    std::thread::sleep(Duration::from_secs(1));
    cpu(proxy) - before
}

#[test]
fn heads_that_drip_are_cut_off_at_the_deadline_and_delay_nobody() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nrequest_head = \"1s\"");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for i in 0..30 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = connect(proxy.addr);
                // Every tenth drips its empty line or its first word, the others somewhere in a field.
                let head = request("/", "");
                let (at_once, dripped) = head.split_at(if i % 10 == 0 { 0 } else { i * 3 });
                client.write_all(at_once.as_bytes()).unwrap();
                for byte in dripped.as_bytes().chunks(1) {
                    // The attack, at its own pace.
                    std::thread::sleep(Duration::from_millis(100));
                    if client.write_all(byte).is_err() || begun.elapsed() > Duration::from_millis(1500) {
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
        assert!(begun.elapsed() < Duration::from_secs(1), "held up by slow heads");
    });
    assert_empty(&proxy);
}

#[test]
fn a_flood_of_silent_connections_delays_nobody() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nrequest_head = \"2s\"");
    let flood: Vec<_> = (0..800).map(|_| connect(proxy.addr)).collect();
    let begun = Instant::now();
    for _ in 0..5 {
        assert_serves(&proxy, &listener);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "held up by silent connections");
    assert!(cpu_of_a_second(&proxy) < Duration::from_millis(200));
    for client in &flood {
        assert_eq!(read_all(client), (vec![], End::Fin));
    }
    assert_eq!(proxy.log.all().len(), 10, "lines of those who never spoke");
    assert_empty(&proxy);
}

/// Above `max_handshakes` clients wait in the kernel's queue, and the proxy does not spin over them.
#[test]
fn a_flood_above_the_limit_of_handshakes_only_waits() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[limits]\nmax_handshakes = 20\n[timeouts]\nrequest_head = \"800ms\"");
    let flood: Vec<_> = (0..60).map(|_| connect(proxy.addr)).collect();
    eventually("all permits taken", || (proxy.metric("framegate_handshakes") >= 20.0).then_some(()));
    assert!(cpu_of_a_second(&proxy) < Duration::from_millis(200));
    assert_serves(&proxy, &listener);
    drop(flood);
    assert_empty(&proxy);
    let begun = Instant::now();
    assert_serves(&proxy, &listener);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Descriptors run out under the worker. Clients wait in the queue; each is served once there are some again.
#[test]
fn without_descriptors_clients_wait_and_all_are_served_later() {
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
    // All at once: whoever is accepted with the very last descriptor gets a 503, as the next test shows.
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

/// The last descriptor went to the client: that it cannot be served is the proxy's fault and not the upstream's.
#[test]
fn without_a_descriptor_for_the_upstream_the_answer_is_503() {
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

/// One behind the other: nobody waits for a tick of the proxy's clock.
#[test]
fn who_comes_alone_is_accepted_at_once() {
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

/// A client whose request the upstream has.
fn asked(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let upstream = accept(listener);
    read_head(&upstream);
    (client, upstream)
}

#[test]
fn an_upstream_that_drips_its_head_is_given_up_at_the_deadline() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[timeouts]\nupstream_head = \"500ms\"");
    let answer = switching("");
    let (client, mut upstream) = asked(&proxy, &listener);
    let begun = Instant::now();
    for byte in answer.as_bytes().chunks(1) {
        // The attack, at its own pace.
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

/// How a peer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Closing,
    HalfClosing,
    Resetting,
}

const WAYS: [Leaves; 3] = [Leaves::Closing, Leaves::HalfClosing, Leaves::Resetting];

impl Leaves {
    /// What must be kept to keep the rest of the connection.
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
fn an_upstream_that_dies_before_its_101_is_a_502() {
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
        // Accepted, and gone before it read anything.
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
fn an_upstream_that_dies_behind_its_101_ends_the_client_the_way_it_went() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "");
    let frame = plain(0x82, &[5; 3000]);
    for way in WAYS {
        for len in [0, 1, 3, 4, 1500, frame.len()] {
            let (client, mut upstream) = open(&proxy, &listener);
            upstream.write_all(&frame[..len]).unwrap();
            // A header that is not complete never leaves.
            let passes = if len < 4 { 0 } else { len };
            assert_eq!(read_exact(&client, passes), &frame[..passes]);
            let _rest = way.of(upstream);
            let want = if way == Leaves::Resetting { End::Reset } else { End::Fin };
            assert_eq!(read_all(&client), (vec![], want), "{way:?} after {len}");
        }
    }
    assert_empty(&proxy);
}

/// An answer that is cut by a reset must not look whole.
#[test]
fn an_answer_whose_upstream_is_reset_ends_in_a_reset() {
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

/// A client that leaves before its 101 takes its upstream connection with it, also where it sent more before.
#[test]
fn a_client_that_leaves_takes_its_upstream_along() {
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

/// The client leaves while the connect hangs.
#[test]
fn a_client_that_leaves_during_a_connect_ends_it() {
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
fn garbage_is_refused_and_leaves_nothing_behind() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "[log]\naccess = \"off\"");
    // A TLS ClientHello; SSH; SMTP; SOCKS; an HTTP/2 preface with its SETTINGS; a WebSocket frame; nothing but line ends.
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
            // What is no head yet is over with this.
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
            // Nearly a request: one byte of it is another.
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
            // It may have been a good one.
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
    // Those that were good wait for their upstream, and left.
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    assert_empty(&proxy);
    while listener.accept().is_ok() {}
    assert_serves(&proxy, &listener);
}

/// Whether `bytes` are enough for a refusal: a head that is complete, or one that no end makes right.
fn is_decided(bytes: &[u8]) -> bool {
    !matches!(bytes, b"SSH-2.0-OpenSSH_9.2p1\r\n" | b"EHLO there\r\n")
}

/// A receiver that takes nothing ends at its deadline, and says so to the other side.
#[test]
fn a_client_that_reads_nothing_is_given_up() {
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

/// Stalled sessions cannot take the buffers of a healthy one: the longest-stalled end.
#[test]
fn a_healthy_session_never_waits_for_stalled_ones() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, "timeouts = { close = \"300ms\" }\n[limits]\nbuffers = \"256KiB\"");
    let (mut healthy, mut echo) = open(&proxy, &listener);
    let stalled: Vec<_> = (0..32).map(|_| open(&proxy, &listener)).collect();
    let long = &plain(0x82, &vec![1; 32 << 20]);
    std::thread::scope(|scope| {
        for (_, upstream) in &stalled {
            scope.spawn(move || {
                // Until its session ends, or no more is taken.
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
    // It bounds what all of them hold.
    assert!(proxy.metric("framegate_backlog_bytes") <= f64::from(256 << 10));
    drop((stalled, healthy, echo));
    assert_empty(&proxy);
}

/// A thousand refusals and violations later no slot, descriptor or byte is missing.
#[test]
fn nothing_leaks() {
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
