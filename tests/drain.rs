//! Drain (docs/src/behaviour.md): no new clients, a Close 1001 for each session, spread over time;
//! exit after the last session, at the deadline, or at a second signal.

mod common;

use common::*;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const STOPPING: (u16, &str) = (1001, "going away");

fn assert_gets_1001(stream: &TcpStream) {
    let (code, reason) = read_close(stream);
    assert_eq!((code, reason.as_str()), STOPPING);
}

/// Both peers reply to the proxy's Close and disconnect.
fn part((mut client, mut upstream): (TcpStream, TcpStream)) {
    client.write_all(&masked(0x88, &close_payload(1001, ""))).unwrap();
    upstream.write_all(&plain(0x88, &close_payload(1001, ""))).unwrap();
    assert_eq!(read_all(&client), (vec![], End::Fin));
    assert_eq!(read_all(&upstream), (vec![], End::Fin));
}

fn ready(admin: SocketAddr) -> String {
    http(admin, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn refuses(addr: SocketAddr) -> Option<()> {
    match TcpStream::connect(addr) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(()),
        _ => None,
    }
}

/// An incomplete request: the process waits for its end.
fn half(proxy: &Proxy) -> (TcpStream, String) {
    let request = request("/", "");
    let (first, rest) = request.split_at(40);
    let mut client = connect(proxy.addr);
    client.write_all(first.as_bytes()).unwrap();
    (client, rest.to_owned())
}

fn stopped(mut proxy: Proxy, within: Duration) -> Vec<String> {
    let begun = Instant::now();
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < within, "it took {:?}", begun.elapsed());
    proxy.log.whole()
}

#[test]
fn drain_clears_readiness_and_exits_with_the_last_session() {
    for signal in ["TERM", "INT"] {
        let (listener, addr) = listen();
        let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"");
        let admin = proxy.admin();
        assert!(ready(admin).starts_with("HTTP/1.1 200 "));
        let session = open(&proxy, &listener);
        proxy.signal(signal);
        assert_gets_1001(&session.0);
        assert_gets_1001(&session.1);
        let answer = ready(admin);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("draining\n"), "{answer}");
        assert!(proxy.metric("framegate_draining") == 1.0);
        eventually("new clients are refused", || refuses(proxy.addr));
        // The process stays until its session ends.
        assert!(http(admin, "GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        part(session);
        let log = stopped(proxy, Duration::from_secs(3));
        assert_eq!(log.len(), 2, "{log:#?}");
        assert_eq!(verdict(&log[1]), "ended_by=proxy phase=open cause=drain status=101 code_up=1001 code_down=1001");
    }
}

#[test]
fn drain_without_sessions_exits_at_once() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    proxy.signal("TERM");
    assert!(stopped(proxy, Duration::from_secs(3)).is_empty());
}

/// When each of `count` sessions on `workers` workers got its Close, in order.
fn close_times(count: usize, workers: usize, spread: &str) -> Vec<Duration> {
    let (listener, addr) = listen();
    let config = before(addr, &format!("[drain]\nspread = \"{spread}\""));
    let proxy = Proxy::start(&config.replace("count = 1", &format!("count = {workers}")));
    let sessions: Vec<_> = (0..count).map(|_| open(&proxy, &listener)).collect();
    let begun = Instant::now();
    proxy.signal("TERM");
    let mut times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .into_iter()
            .map(|session| {
                scope.spawn(move || {
                    assert_gets_1001(&session.0);
                    let at = begun.elapsed();
                    assert_gets_1001(&session.1);
                    part(session);
                    at
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let log = stopped(proxy, Duration::from_secs(3));
    assert_eq!(log.iter().filter(|line| line.contains("cause=drain")).count(), count, "{log:#?}");
    times.sort_unstable();
    times
}

#[test]
fn closes_are_spread_over_the_configured_time() {
    for workers in [1, 2] {
        let times = close_times(20, workers, "1s");
        let over = times[19] - times[0];
        assert!(over >= Duration::from_millis(700), "all within {over:?}: {times:?}");
        assert!(times[19] < Duration::from_secs(3), "{times:?}");
        // Evenly, not in bursts.
        let mut moments: Vec<_> = times.iter().map(|time| time.as_millis() / 50).collect();
        moments.dedup();
        assert!(moments.len() >= 8, "{times:?}");
    }
}

#[test]
fn without_spread_all_sessions_get_1001_at_once() {
    let times = close_times(20, 1, "0s");
    assert!(times[19] < Duration::from_millis(700), "{times:?}");
}

#[test]
fn session_inside_a_frame_gets_1001_at_the_boundary() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"");
    let (mut client, mut upstream) = open(&proxy, &listener);
    let frame = plain(0x82, &[4; 1000]);
    upstream.write_all(&frame[..300]).unwrap();
    assert_eq!(read_exact(&client, 300), frame[..300]);
    proxy.signal("TERM");
    assert_gets_1001(&upstream);
    upstream.write_all(&frame[300..]).unwrap();
    assert_eq!(read_exact(&client, 704), frame[300..]);
    assert_gets_1001(&client);
    client.write_all(&masked(0x88, &close_payload(1001, ""))).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    stopped(proxy, Duration::from_secs(3));
}

#[test]
fn drain_deadline_ends_remaining_sessions() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"\ndeadline = \"400ms\"");
    let sessions: Vec<_> = (0..3).map(|_| open(&proxy, &listener)).collect();
    let begun = Instant::now();
    proxy.signal("TERM");
    // Neither peer replies or disconnects.
    let log = stopped(proxy, Duration::from_secs(3));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(log.iter().filter(|line| line.contains(" end ")).count(), 3, "{log:#?}");
    for (client, upstream) in &sessions {
        for stream in [client, upstream] {
            assert_gets_1001(stream);
            assert_eq!(read_all(stream), (vec![], End::Fin));
        }
    }
}

#[test]
fn drain_deadline_ends_handshakes() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"\ndeadline = \"400ms\"");
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let upstream = accept(&listener);
    read_head(&upstream);
    proxy.signal("TERM");
    let log = stopped(proxy, Duration::from_secs(3));
    assert_eq!(verdict(&log[0]), "ended_by=proxy phase=response cause=stop", "{log:#?}");
    drop(upstream);
}

#[test]
fn second_signal_exits_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (listener, addr) = listen();
        // The second session gets its Close at the end of the spread.
        let proxy = Proxy::before(addr, "[drain]\nspread = \"20s\"\ndeadline = \"20s\"");
        let sessions: Vec<_> = (0..2).map(|_| open(&proxy, &listener)).collect();
        proxy.signal(first);
        proxy.said.wait_for("signal received");
        proxy.signal(second);
        let log = stopped(proxy, Duration::from_secs(3));
        assert_eq!(log.iter().filter(|line| line.contains(" end ")).count(), 2, "{log:#?}");
        assert!(log.iter().any(|line| line.contains("ended_by=proxy phase=open cause=stop status=101")), "{log:#?}");
        drop(sessions);
    }
}

#[test]
fn clients_queued_at_the_signal_are_served_later_ones_refused() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"");
    // A stopped process cannot accept: the clients stay queued, and so does the signal.
    proxy.signal("STOP");
    let mut clients: Vec<_> = (0..10).map(|_| connect(proxy.addr)).collect();
    for client in &mut clients {
        client.write_all(request("/", "").as_bytes()).unwrap();
    }
    proxy.signal("TERM");
    proxy.signal("CONT");
    std::thread::spawn(move || serve(&listener));
    let mut answers: Vec<String> = Vec::new();
    for client in &clients {
        let (bytes, end) = read_all(client);
        assert_eq!(end, End::Fin);
        answers.push(String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned());
        client.shutdown(Shutdown::Write).unwrap();
    }
    let good = |answer: &String| answer.contains(" 101 ") || answer.contains(" 503 ");
    assert!(answers.iter().all(good), "{answers:?}");
    let gone = proxy.addr;
    let log = stopped(proxy, Duration::from_secs(8));
    assert_eq!(log.iter().filter(|line| line.contains(" end ")).count(), 10, "{log:#?}");
    refuses(gone).unwrap();
}

/// An upstream for every connection: sends the 101, then ends when its peer does.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            let mut stream = patient(stream.unwrap());
            read_head(&stream);
            let _left = stream.write_all(switching("").as_bytes());
            read_all(&stream);
        });
    }
}

#[test]
fn request_in_progress_is_refused_once_complete() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let (mut client, rest) = half(&proxy);
    eventually("it is accepted", || (proxy.metric("framegate_handshakes") == 1.0).then_some(()));
    proxy.signal("TERM");
    eventually("new clients are refused", || refuses(proxy.addr));
    client.write_all(rest.as_bytes()).unwrap();
    let (answer, end) = read_all(&client);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{answer}");
    assert_eq!(end, End::Fin);
    drop(client);
    let log = stopped(proxy, Duration::from_secs(3));
    assert!(verdict(&log[0]).ends_with("cause=draining status=503"), "{log:#?}");
}

#[test]
fn pending_handshake_completes_and_then_gets_1001() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"");
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    proxy.signal("TERM");
    eventually("new clients are refused", || refuses(proxy.addr));
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    assert_gets_1001(&client);
    assert_gets_1001(&upstream);
    part((client, upstream));
    let log = stopped(proxy, Duration::from_secs(3));
    assert_eq!(verdict(&log[1]), "ended_by=proxy phase=open cause=drain status=101 code_up=1001 code_down=1001");
}

#[test]
fn silent_client_does_not_delay_the_exit() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "[drain]\nspread = \"0s\"");
    let client = connect(proxy.addr);
    eventually("it is accepted", || (proxy.metric("framegate_handshakes") == 1.0).then_some(()));
    proxy.signal("TERM");
    assert_eq!(read_all(&client), (vec![], End::Fin));
    // Closed silently, like any client that sent nothing.
    assert_eq!(stopped(proxy, Duration::from_secs(3)), Vec::<String>::new());
}
