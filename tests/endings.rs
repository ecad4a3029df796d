//! Regressions: ends that no read announces, and ends behind a slow receiver. Each once hung or
//! lost bytes.

mod common;

use common::{
    End, PLAIN, Proxy, SECURED, accept, before, close_payload, connect, connect_small, eventually, listen, masked,
    open, open_small, plain, read_all, read_close, read_exact, read_head, request, reset, temp_path,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn frames(bytes: usize) -> Vec<u8> {
    plain(0x82, &[1; 1000]).repeat(bytes / 1000)
}

/// Reads at most 2 KiB in 20 ms, like a slow link, up to the end of the stream or to `until`.
fn read_slowly(mut stream: &TcpStream, until: Instant) -> (usize, Option<End>) {
    let (mut got, mut buf) = (0, [0; 2048]);
    while Instant::now() < until {
        match stream.read(&mut buf) {
            Ok(0) => return (got, Some(End::Fin)),
            Ok(n) => got += n,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (got, Some(End::Reset)),
            Err(error) => panic!("{error} after {got} bytes"),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    (got, None)
}

/// Writes until a write fails. A proxy that discards everything fails the test.
fn write_until_gone(mut stream: &TcpStream) {
    let frame = plain(0x82, &[1; 1000]);
    eventually("the writer hears of it", || stream.write_all(&frame).is_err().then_some(()));
}

#[test]
fn reset_after_fin_is_forwarded() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "timeouts = { idle = \"0s\" }");
    let (client, upstream) = open(&proxy, &listener);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&upstream), (vec![], End::Fin));
    reset(client);
    write_until_gone(&upstream);
    // A plain close is a FIN, and a reset as soon as data arrives.
    let (client, upstream) = open(&proxy, &listener);
    drop(client);
    write_until_gone(&upstream);
    let ends =
        proxy.stop().into_iter().filter(|line| line.contains("ended_by=downstream phase=open cause=reset")).count();
    assert_eq!(ends, 2);
}

#[test]
fn client_reset_behind_a_stalled_upstream_ends_at_once() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let (mut client, upstream) = open(&proxy, &listener);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let frame = masked(0x82, &[1; 60_000]);
    while client.write_all(&frame).is_ok() {}
    reset(client);
    proxy.log.wait_for("ended_by=downstream phase=open cause=reset");
    let (got, end) = read_all(&upstream);
    assert!(!got.is_empty() && end == End::Reset);
}

#[test]
fn slow_reader_is_not_idle() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "timeouts = { idle = \"1s\" }");
    let (client, mut upstream) = open_small(&proxy, &listener);
    let feeder = std::thread::spawn(move || {
        // Ends when the client disconnects.
        while upstream.write_all(&frames(100_000)).is_ok() {}
    });
    let (got, end) = read_slowly(&client, Instant::now() + Duration::from_secs(4));
    assert!(got > 100_000 && end.is_none(), "{got} bytes, then {end:?}: {:?}", proxy.log.all());
    reset(client);
    feeder.join().unwrap();
    proxy.log.wait_for("cause=reset");
}

#[test]
fn close_behind_a_backlog_waits_for_a_slow_reader() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "timeouts = { close = \"300ms\" }");
    let (client, mut upstream) = open_small(&proxy, &listener);
    let all = [frames(230_000), plain(0x88, &close_payload(1000, "bye"))].concat();
    let want = all.len();
    let feeder = std::thread::spawn(move || {
        upstream.write_all(&all).unwrap();
        upstream
    });
    assert_eq!(read_slowly(&client, Instant::now() + common::PATIENCE), (want, Some(End::Fin)));
    drop(feeder.join().unwrap());
}

#[test]
fn forwarded_close_starts_the_close_deadline() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "timeouts = { close = \"300ms\", idle = \"300ms\" }");
    // Data after a Close, and an upstream that ends without a Close: no further event arrives.
    let (mut client, upstream) = open(&proxy, &listener);
    let close = masked(0x88, &close_payload(1000, ""));
    client.write_all(&[&close[..], &masked(0x82, b"late")].concat()).unwrap();
    assert_eq!(read_exact(&upstream, close.len()), close);
    upstream.shutdown(Shutdown::Write).unwrap();
    proxy.log.wait_for(" end ");
    drop((client, upstream));
}

#[test]
fn half_closed_client_gets_the_whole_response() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    // It depends on the reads whether the last bytes wait in the proxy or fit into its socket.
    let waited = (0..20).any(|_| is_sent_whole(&proxy, &listener));
    // With two shims their buffers may hold the rest.
    assert!(waited || *SECURED != PLAIN, "the rest never waited");
}

/// Whether bytes waited in the proxy when the client half-closed.
fn is_sent_whole(proxy: &Proxy, listener: &TcpListener) -> bool {
    const BODY: usize = 300_000;
    let mut client = connect_small(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let mut upstream = accept(listener);
    read_head(&upstream);
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    // The proxy closes the upstream as soon as it has read the last byte.
    let feeder = std::thread::spawn(move || {
        upstream.write_all(answer.as_bytes()).unwrap();
        read_all(&upstream)
    });
    read_head(&client);
    let mut got = 0;
    while !feeder.is_finished() {
        got += read_slowly(&client, Instant::now() + Duration::from_millis(1)).0;
    }
    let soon = Instant::now() + Duration::from_millis(500);
    let mut waits = || proxy.metric("framegate_backlog_bytes") > 0.0;
    let waited = std::iter::from_fn(|| (Instant::now() < soon).then(&mut waits)).any(|waits| waits);
    client.shutdown(Shutdown::Write).unwrap();
    let (rest, end) = read_all(&client);
    assert_eq!((got + rest.len(), end), (BODY, End::Fin));
    feeder.join().unwrap();
    waited
}

#[test]
fn reset_during_the_handshake_is_logged_as_reset() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let upstream = accept(&listener);
    read_head(&upstream);
    reset(client);
    proxy.log.wait_for("ended_by=downstream phase=response cause=reset");
}

#[test]
fn full_unix_socket_queue_gives_503() {
    let path = temp_path("sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let unix = format!("ws+unix:{}", path.display());
    let proxy = Proxy::start(&before("127.0.0.1:1".parse().unwrap(), "").replace("ws://127.0.0.1:1", &unix));
    let mut clients = Vec::new();
    let line = eventually("the queue is full", || {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        clients.push(client);
        proxy.log.all().into_iter().find(|line| line.contains(" end "))
    });
    assert!(line.contains("cause=no-endpoint status=503"), "{line}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn drained_worker_leaves_no_gauge() {
    let (listener, addr) = listen();
    let toml = before(addr, "timeouts = { close = \"20s\" }\n[drain]\nspread = \"0s\"\ndeadline = \"20s\"");
    let proxy = Proxy::start(&toml.replace("count = 1", "count = 2"));
    let gauge = |worker: u32| proxy.metric(&format!("framegate_sessions{{worker=\"{worker}\"}}"));
    // The kernel spreads them by a hash: in the end both workers have some.
    let mut pairs = Vec::new();
    eventually("both workers have sessions", || {
        pairs.push(open(&proxy, &listener));
        eventually("they are counted", || (gauge(0) + gauge(1) == pairs.len() as f64).then_some(()));
        (gauge(0) > 0.0 && gauge(1) > 0.0).then_some(())
    });
    proxy.signal("TERM");
    // One session keeps one worker alive, and with it the process.
    let kept = pairs.pop();
    for (client, upstream) in pairs {
        read_close(&client);
        read_close(&upstream);
    }
    eventually("all others are gone", || (gauge(0) + gauge(1) == 1.0).then_some(()));
    drop(kept);
}
