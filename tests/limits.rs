//! Limits and what happens at them: sessions, handshakes, buffers, and the timeout of each phase.

mod common;

use common::*;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn answer_of(client: &TcpStream) -> String {
    let (answer, end) = read_all(client);
    assert_eq!(end, End::Fin);
    String::from_utf8(answer).unwrap()
}

fn ask(addr: SocketAddr) -> TcpStream {
    let mut client = connect(addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    client
}

#[test]
fn clients_above_max_sessions_get_503_and_retry_after() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "[limits]\nmax_sessions = 2");
    let first = open(&proxy, &listener);
    let second = open(&proxy, &listener);
    for _ in 0..3 {
        let answer = answer_of(&ask(proxy.addr));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    // The end of one session makes room for one more, not for two.
    drop(first);
    proxy.log.wait_for("cause=eof");
    let third = open(&proxy, &listener);
    assert!(answer_of(&ask(proxy.addr)).starts_with("HTTP/1.1 503 "));
    drop((second, third));
    let log = proxy.stop();
    assert_eq!(log.iter().filter(|line| line.contains("cause=max-sessions status=503")).count(), 4, "{log:#?}");
}

#[test]
fn failed_handshake_returns_its_permit() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[limits]\nmax_sessions = 1");
    for n in 1..=5 {
        let client = ask(proxy.addr);
        let mut upstream = accept(&listener);
        read_head(&upstream);
        upstream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(answer_of(&client).starts_with("HTTP/1.1 404 "));
        drop(client);
        // The worker publishes its counts ten times a second: an older zero says nothing.
        let accepted = || proxy.metric("framegate_connections_accepted_total") == f64::from(n);
        eventually("it is counted", || accepted().then_some(()));
        eventually("it is over", || (proxy.metric("framegate_handshakes") == 0.0).then_some(()));
    }
    drop(open(&proxy, &listener));
}

#[test]
fn clients_above_max_handshakes_wait_in_the_queue() {
    let (_listener, addr) = listen();
    let auth = format!("auth = \"mute\"\n[[auth]]\nname = \"mute\"\ntype = \"forward\"\nurl = \"http://{addr}/\"");
    let proxy = Proxy::before(addr, &format!("path = \"/wait\"\n{auth}\n[limits]\nmax_handshakes = 2"));
    let passes = || proxy.metric("framegate_worker_loop_iterations_total{worker=\"0\"}");
    let mut holding: Vec<_> = (0..2).map(|_| connect(proxy.addr)).collect();
    // A server says nothing, not they: nothing is reclaimed from them.
    holding.iter_mut().for_each(|client| client.write_all(request("/wait", "").as_bytes()).unwrap());
    eventually("two are accepted", || (proxy.metric("framegate_connections_accepted_total") == 2.0).then_some(()));
    let waiting = [ask(proxy.addr), ask(proxy.addr), ask(proxy.addr)];
    // The worker keeps checking for a free permit.
    let before = passes();
    eventually("it has looked", || (passes() >= before + 4.0).then_some(()));
    assert!(proxy.metric("framegate_connections_accepted_total") == 2.0);
    waiting.iter().for_each(assert_quiet);
    // One permit is enough for all of them, one after the other.
    drop(holding.pop());
    for client in &waiting {
        assert!(answer_of(client).starts_with("HTTP/1.1 404 "));
        client.shutdown(Shutdown::Write).unwrap();
    }
    // The worker did not spin meanwhile.
    assert!(passes() - before < 500.0, "{} passes", passes() - before);
}

#[test]
fn established_session_holds_no_handshake_permit() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[limits]\nmax_handshakes = 1");
    let sessions: Vec<_> = (0..5).map(|_| open(&proxy, &listener)).collect();
    assert!(proxy.metric("framegate_handshakes_max") == 1.0);
    drop(sessions);
}

/// Sends frames until its session ends, or until `done`.
fn flood(stream: &TcpStream, done: &AtomicBool) {
    let mut stream = stream;
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let frame = plain(0x82, &vec![0xa5; 64 << 10]);
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        match stream.write(&frame[sent..]) {
            Ok(n) => sent = (sent + n) % frame.len(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn echo_once((client, upstream): &mut (TcpStream, TcpStream), payload: &[u8]) {
    client.write_all(&masked(0x82, payload)).unwrap();
    assert!(read_frame(upstream).1 == payload);
    upstream.write_all(&plain(0x82, payload)).unwrap();
    assert!(read_frame(client).1 == payload);
}

#[test]
fn stalled_receivers_stay_within_buffers_and_the_longest_ends_first() {
    // 384 KiB are 24 chunks, 10 of them reserved: 14 backlogs fit even if each is a single chunk.
    const STALLED: usize = 24;
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[limits]\nbuffers = \"384KiB\"");
    let mut healthy = open(&proxy, &listener);
    echo_once(&mut healthy, &[1; 60_000]);
    let before = proxy.memory_kib("VmRSS");
    let stalled: Vec<_> = (0..STALLED).map(|_| open(&proxy, &listener)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (n, (_, upstream)) in stalled.iter().enumerate() {
            scope.spawn(|| flood(upstream, &done));
            // One after the other, so that the order of the stalls is known.
            eventually("it has stalled", || (proxy.metric("framegate_receiver_stalls_total") > n as f64).then_some(()));
            echo_once(&mut healthy, &[n as u8; 60_000]);
            assert!(proxy.metric("framegate_backlog_bytes") <= f64::from(384 << 10));
        }
        proxy.log.wait_for("cause=out-of-buffers");
        for n in 0..50 {
            echo_once(&mut healthy, &[n; 100_000]);
        }
        let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
        assert!(grown < 3 << 10, "{grown} KiB more");
        done.store(true, Ordering::Relaxed);
    });
    let ends: Vec<_> = proxy.log.all().into_iter().filter(|line| line.contains(" end ")).collect();
    let reasons: Vec<_> = ends.iter().map(|line| verdict(line).to_owned()).collect();
    assert!(
        reasons.iter().all(|why| why.starts_with("ended_by=proxy phase=open cause=out-of-buffers status=101")),
        "{reasons:#?}"
    );
    // The first to stall have ended, the last are still there.
    let opens: Vec<_> = proxy.log.all().into_iter().filter(|line| line.contains(" open ")).collect();
    let client = |n: usize| field(&opens[n + 1], "client").unwrap().to_owned();
    let mut ended: Vec<_> = ends.iter().map(|line| field(line, "client").unwrap().to_owned()).collect();
    ended.sort_by_key(|addr| (0..STALLED).find(|n| client(*n) == *addr));
    let expected: Vec<_> = (0..ended.len()).map(client).collect();
    // A shim reads a little now and then, so the order of the stalls is not known.
    assert!(ended == expected || *SECURED != PLAIN, "{ended:?} {expected:?}");
    assert!(ended.len() >= 2 && ended.len() < STALLED, "{}", ended.len());
    let first = (0..STALLED).find(|n| client(*n) == ended[0]).unwrap();
    assert_eq!(read_all(&stalled[first].0).1, End::Reset);
    echo_once(&mut healthy, b"as if nothing had been");
}

#[test]
fn backlog_is_delivered_whole_and_in_order() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let (client, mut upstream) = open(&proxy, &listener);
    let payload: Vec<u8> = (0..12u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let frame = plain(0x82, &payload);
    std::thread::scope(|scope| {
        scope.spawn(|| upstream.write_all(&frame).unwrap());
        eventually("it stalls", || (proxy.metric("framegate_receiver_stalls_total") >= 1.0).then_some(()));
        assert!(proxy.metric("framegate_backlog_bytes") <= f64::from(128 << 10) + 16384.0);
        assert!(read_exact(&client, frame.len()) == frame);
    });
    eventually("nothing is left of it", || (proxy.metric("framegate_backlog_bytes") == 0.0).then_some(()));
}

// --- the timeout of each phase; those of established sessions are in close/timeouts.rs

#[test]
fn request_head_timeout_is_enforced() {
    let (_listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "[timeouts]\nrequest_head = \"300ms\"");
    let begun = Instant::now();
    let mut client = connect(proxy.addr);
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let silent = connect(proxy.addr);
    assert!(answer_of(&client).starts_with("HTTP/1.1 408 "));
    assert_due(begun, 300);
    assert_eq!(read_all(&silent), (vec![], End::Fin));
    drop((client, silent));
    eventually("both are counted", || {
        let count = |outcome| proxy.metric(&format!("framegate_handshakes_total{{outcome=\"{outcome}\"}}"));
        (count("head-timeout") == 1.0 && count("no-request") == 1.0).then_some(())
    });
    let log = proxy.stop();
    assert_eq!(log.len(), 1, "{log:#?}");
    assert_eq!(verdict(&log[0]), "ended_by=downstream phase=request cause=head-timeout status=408");
}

#[test]
fn slow_request_head_gets_no_extra_time() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "[timeouts]\nrequest_head = \"300ms\"");
    let begun = Instant::now();
    let mut client = connect(proxy.addr);
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut first = [0; 16];
    let answer = eventually("an answer", || {
        client.write_all(b"G").ok()?;
        std::io::Read::read(&mut client, &mut first).ok()
    });
    // The request line would be invalid, but it never ended.
    assert!(answer > 0 && first.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&first));
    assert_due(begun, 300);
}

/// A listener with a full queue: a connect to it hangs.
fn black_hole() -> (socket2::Socket, SocketAddr, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        filling.push(stream);
        assert!(filling.len() < 100, "the queue does not fill");
    }
    (socket, addr, filling)
}

#[test]
fn connect_and_connect_total_are_enforced() {
    let (_hole, addr, _filling) = black_hole();
    let mut proxy = Proxy::before(addr, "timeouts = { connect = \"300ms\" }");
    let begun = Instant::now();
    assert!(answer_of(&ask(proxy.addr)).starts_with("HTTP/1.1 504 "));
    assert_due(begun, 300);
    let log = proxy.stop();
    assert_eq!(verdict(&log[0]), "ended_by=upstream phase=connect cause=connect-timeout status=504");
    // The next endpoint is tried.
    let (listener, good) = listen();
    let group = format!("[[upstream]]\nname = \"two\"\nendpoints = [\"ws://{addr}\", \"ws://{good}\"]");
    let two = before(addr, "timeouts = { connect = \"300ms\" }").replace(&format!("ws://{addr}"), "two");
    let proxy = Proxy::start(&format!("{two}{group}"));
    // Each of the endpoints may come first.
    let sessions = [open(&proxy, &listener), open(&proxy, &listener)];
    drop(sessions);
    // Many attempts of 300 ms end at the total.
    let endpoints = vec![format!("\"ws://{addr}\""); 10].join(", ");
    let group = format!("[[upstream]]\nname = \"two\"\nendpoints = [{endpoints}]");
    let many = two.replace("connect = \"300ms\"", "connect = \"300ms\", connect_total = \"700ms\"");
    let proxy = Proxy::start(&format!("{many}{group}"));
    let begun = Instant::now();
    assert!(answer_of(&ask(proxy.addr)).starts_with("HTTP/1.1 504 "));
    assert_due(begun, 700);
}

#[test]
fn upstream_head_timeout_is_enforced() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "timeouts = { upstream_head = \"300ms\" }");
    for drip in [&b""[..], b"HTTP/1.1 101 Switching Protocols\r\nUpgr"] {
        let begun = Instant::now();
        let client = ask(proxy.addr);
        let mut upstream = accept(&listener);
        read_head(&upstream);
        upstream.write_all(drip).unwrap();
        assert!(answer_of(&client).starts_with("HTTP/1.1 504 "));
        assert_due(begun, 300);
        // The upstream connection is closed.
        assert_eq!(read_all(&upstream).0, b"");
    }
    let log = proxy.stop();
    assert!(
        log.iter().all(|line| verdict(line) == "ended_by=upstream phase=response cause=response-timeout status=504"),
        "{log:#?}"
    );
    assert_eq!(log.len(), 2);
}

#[test]
fn response_body_is_cut_at_the_timeout_and_not_padded() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "timeouts = { upstream_head = \"300ms\" }");
    let client = ask(proxy.addr);
    let mut upstream: TcpStream = accept(&listener);
    read_head(&upstream);
    let begun = Instant::now();
    upstream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nonly this").unwrap();
    let answer = answer_of(&client);
    assert_due(begun, 250);
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\nonly this"), "{answer}");
    let _: TcpListener = listener;
}
