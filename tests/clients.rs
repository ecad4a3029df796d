//! Limits for each client by itself, through real sockets: by its address, by who it is and by its
//! API key; on sessions and handshakes, and on what all sessions of a client do together.

mod common;

use common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[track_caller]
fn refused_from(host: u8, proxy: &Proxy, more: &str, cause: &str) -> String {
    let mut client = connect_from([127, 0, 0, host], proxy.addr);
    client.write_all(request("/", more).as_bytes()).unwrap();
    let (answer, end) = read_all(&client);
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(end, End::Fin);
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert_eq!(answer.matches("\r\nRetry-After: ").count(), 1, "{answer}");
    drop(client);
    proxy.log.wait_for(&format!("cause={cause}"));
    answer
}

/// The SHA-256 of the keys "one" and "two".
const ONE: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
const TWO: &str = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

const LOG: &str = "[log]\naccess = \"stdout\"";

#[test]
fn each_address_has_its_sessions() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, &format!("limits = {{ per_address = {{ sessions = 2 }} }}\n{LOG}"));
    let first = open_from(1, &proxy, &listener, "");
    let _second = open_from(1, &proxy, &listener, "");
    refused_from(1, &proxy, "", "address-sessions");
    // What an untrusted client says of its address does not matter.
    refused_from(1, &proxy, "X-Forwarded-For: 127.0.0.9\r\nX-Real-IP: 127.0.0.9\r\n", "address-sessions");
    let _other = open_from(2, &proxy, &listener, "");
    // Also over a reload.
    assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").contains("200 OK"));
    refused_from(1, &proxy, "", "address-sessions");
    drop(first);
    eventually("the session is over", || (proxy.metric("framegate_sessions{worker=\"0\"}") == 2.0).then_some(()));
    open_from(1, &proxy, &listener, "");
}

#[test]
fn each_address_has_its_rate_of_handshakes() {
    let (listener, addr) = listen();
    let limits = "limits = { per_address = { handshakes = \"1/h\", burst = 3 } }";
    let proxy = Proxy::alone_before(addr, &format!("{limits}\n{LOG}"));
    for _ in 0..3 {
        open_from(1, &proxy, &listener, "");
    }
    let answer = refused_from(1, &proxy, "", "address-rate");
    let seconds = answer.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    assert!((3_500..=3_600).contains(&seconds.parse::<u64>().unwrap()), "{answer}");
    open_from(2, &proxy, &listener, "");
}

#[test]
fn each_client_has_its_sessions_whatever_its_address() {
    let keys = format!("keys = [{{ owner = \"a\", sha256 = \"{ONE}\" }}, {{ owner = \"b\", sha256 = \"{TWO}\" }}]");
    let (listener, addr) = listen();
    let route = "auth = \"keys\"\nlimits = { per_identity = { sessions = 1, handshakes = \"100/s\" } }";
    let auth = format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\n{keys}");
    let proxy = Proxy::alone_before(addr, &format!("{route}\n{auth}\n{LOG}"));
    let key = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let _one = open_from(1, &proxy, &listener, &key("one"));
    refused_from(2, &proxy, &key("one"), "identity-sessions");
    let _two = open_from(1, &proxy, &listener, &key("two"));
    refused_from(1, &proxy, &key("two"), "identity-sessions");
}

/// Two workers: the sessions of a client are spread over them.
fn two_workers(listener: &TcpListener, route: &str) -> Proxy {
    let toml = before(listener.local_addr().unwrap(), &format!("{route}\n{LOG}"));
    Proxy::start(&toml.replace("count = 1", "count = 2"))
}

/// Sends a message that arrives.
#[track_caller]
fn passes((client, upstream): &(TcpStream, TcpStream)) {
    let mut client = client;
    client.write_all(&masked(0x82, b"hello")).unwrap();
    assert_eq!(read_frame(upstream).1, b"hello");
}

/// Sends a message that closes the session.
#[track_caller]
fn closes((client, upstream): (TcpStream, TcpStream)) {
    let mut client = client;
    client.write_all(&masked(0x82, b"hello")).unwrap();
    assert_eq!(read_close(&client), (4003, "too many messages".into()));
    assert_eq!(read_close(&upstream), (1001, "too many messages".into()));
}

#[test]
fn message_101_of_all_sessions_of_a_client_closes_with_4003() {
    let (listener, _) = listen();
    let auth = format!(
        "[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\n\
         keys = [{{ owner = \"a\", sha256 = \"{ONE}\" }}, {{ owner = \"b\", sha256 = \"{TWO}\" }}]"
    );
    let limits = "limits = { per_identity = { messages = { rate = \"100/h\", close = 4003 } } }";
    let proxy = two_workers(&listener, &format!("auth = \"keys\"\n{limits}\n{auth}"));
    let (one, two) = ("Authorization: Bearer one\r\n", "Authorization: Bearer two\r\n");
    let mut sessions: Vec<_> = (1..=8).map(|host| open_from(host, &proxy, &listener, one)).collect();
    let other = open_from(1, &proxy, &listener, two);
    for n in 0..100 {
        passes(&sessions[n % 8]);
    }
    closes(sessions.remove(3));
    // A new session is no way around it, and neither is another address.
    closes(open_from(9, &proxy, &listener, one));
    // What the server says is not limited, and the sessions stay until they say something.
    for (client, upstream) in &sessions {
        let mut upstream = upstream;
        upstream.write_all(&plain(0x82, b"news")).unwrap();
        assert_eq!(read_frame(client).1, b"news");
    }
    sessions.into_iter().for_each(closes);
    for _ in 0..100 {
        passes(&other);
    }
    proxy.log.wait_for("ended_by=downstream phase=open cause=message-rate");
}

#[test]
fn exactly_so_many_messages_pass_on_all_sessions_at_once() {
    let (listener, _) = listen();
    let limits = "limits = { per_address = { messages = { rate = \"100/h\", close = 4003 } } }";
    let proxy = two_workers(&listener, limits);
    let sessions: Vec<_> = (0..10).map(|_| open_from(1, &proxy, &listener, "")).collect();
    let burst = masked(0x82, b"x").repeat(60);
    let passed: usize = std::thread::scope(|scope| {
        let count = |(client, upstream): &(TcpStream, TcpStream)| {
            let mut client = client;
            client.write_all(&burst).unwrap();
            std::iter::from_fn(|| (read_frame(upstream).0 == 0x82).then_some(())).count()
        };
        let counts: Vec<_> = sessions.iter().map(|session| scope.spawn(move || count(session))).collect();
        // Sessions that had room for all of theirs are closed by one more.
        for (client, _) in &sessions {
            let mut client = client;
            let _ = client.write_all(&burst);
        }
        counts.into_iter().map(|count| count.join().unwrap()).sum()
    });
    assert_eq!(passed, 100);
    open_from(2, &proxy, &listener, "");
}

/// Of a route, of a listener, and of an address on all routes of a listener: addresses 1, 2 and 1.
#[test]
fn sessions_of_a_route_and_of_a_listener_share_their_messages() {
    let messages = "messages = { rate = \"12/h\", close = 4003 }";
    let of_route = (format!("limits = {{ total = {{ {messages} }} }}"), String::new(), [1, 2]);
    let of_listener = (String::new(), format!("limits = {{ total = {{ {messages} }} }}"), [1, 2]);
    let of_address = (String::new(), format!("limits = {{ per_address = {{ {messages} }} }}"), [1, 1]);
    for (route, at_listener, hosts) in [of_route, of_listener, of_address] {
        let (listener, _) = listen();
        let toml = before(listener.local_addr().unwrap(), &format!("{route}\n{LOG}")).replace("count = 1", "count = 2");
        let at_route = "listen = \"127.0.0.1:0\"\n[[route]]";
        assert_eq!(toml.matches(at_route).count(), 1, "{toml}");
        let with_limits = format!("listen = \"127.0.0.1:0\"\n{at_listener}\n[[route]]");
        let proxy = Proxy::start(&toml.replace(at_route, &with_limits));
        let sessions = hosts.map(|host| open_from(host, &proxy, &listener, ""));
        for _ in 0..6 {
            sessions.iter().for_each(passes);
        }
        // Also over a reload.
        assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").contains("200 OK"));
        closes(open_from(hosts[0], &proxy, &listener, ""));
        sessions.into_iter().for_each(closes);
        if hosts[0] == hosts[1] {
            passes(&open_from(3, &proxy, &listener, ""));
        }
    }
}

/// Two sessions, on a worker each, of which one alone would not exceed it.
#[test]
fn bytes_of_a_route_are_held_to_the_rate_of_all_its_sessions() {
    const RATE: usize = 128 << 10;
    let (listener, _) = listen();
    let bytes = "bytes = { rate = \"128KiB/s\", burst = \"128KiB\", patience = \"off\" }";
    let proxy = two_workers(&listener, &format!("limits = {{ total = {{ {bytes} }} }}"));
    let sessions = [1, 2].map(|host| open_from(host, &proxy, &listener, ""));
    let (stop, begun, message) = (AtomicBool::new(false), Instant::now(), masked(0x82, &[7; 10_000]));
    let received = AtomicUsize::new(0);
    let read = |mut upstream: &TcpStream| {
        upstream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buf = [0; 16 << 10];
        while received.load(Ordering::Relaxed) < 5 * RATE {
            let n = upstream.read(&mut buf).unwrap();
            received.fetch_add(n, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for (client, _) in &sessions {
            scope.spawn(|| flood(client, &message, &stop));
        }
        let readers: Vec<_> = sessions.iter().map(|(_, upstream)| scope.spawn(|| read(upstream))).collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
    let (received, took) = (received.into_inner(), begun.elapsed().as_millis() as usize);
    // The burst, the rate, and one read of each worker.
    let most = RATE + RATE * took / 1_000 + 2 * RATE;
    // Two thirds of it at least: paused sessions are woken in time.
    let least = (RATE + RATE * took / 1_000) * 2 / 3;
    assert!(received <= most && received >= least, "{received} in {took} ms");
}

#[test]
fn each_key_of_an_owner_has_its_messages() {
    let (listener, _) = listen();
    let key = |hash: &str, limits: &str| format!("{{ owner = \"a\", sha256 = \"{hash}\"{limits} }}");
    let limited = key(ONE, ", messages = { rate = \"10/h\", close = 4003 }");
    let auth = format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nkeys = [{limited}, {}]", key(TWO, ""));
    let proxy = two_workers(&listener, &format!("auth = \"keys\"\n{auth}"));
    let open = |host: u8, key: &str| open_from(host, &proxy, &listener, &format!("Authorization: Bearer {key}\r\n"));
    let (first, second, other) = (open(1, "one"), open(2, "one"), open(3, "two"));
    for _ in 0..5 {
        passes(&first);
        passes(&second);
    }
    // Also over a reload.
    assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").contains("200 OK"));
    closes(open(4, "one"));
    closes(first);
    closes(second);
    for _ in 0..50 {
        passes(&other);
    }
}

#[test]
fn sessions_of_an_address_share_its_bytes_and_others_do_not_notice() {
    const RATE: usize = 256 << 10;
    const BURST: usize = 256 << 10;
    /// What one read of each worker may exceed it by, and with TLS a record of each session.
    const MORE: usize = 2 * BURST + 4 * (16 << 10);
    let (listener, _) = listen();
    let bytes = "bytes = { rate = \"256KiB/s\", burst = \"256KiB\", patience = \"off\" }";
    let proxy = two_workers(&listener, &format!("limits = {{ per_address = {{ {bytes} }} }}"));
    let sessions: Vec<_> = (0..4).map(|_| open_from(1, &proxy, &listener, "")).collect();
    let other = open_from(2, &proxy, &listener, "");
    let (stop, begun, message) = (AtomicBool::new(false), Instant::now(), masked(0x82, &[7; 10_000]));
    let received: Vec<usize> = std::thread::scope(|scope| {
        for (client, _) in &sessions {
            scope.spawn(|| flood(client, &message, &stop));
        }
        let readers: Vec<_> = sessions.iter().map(|(_, upstream)| scope.spawn(|| drain(upstream, &stop))).collect();
        let mut answers = 0;
        while begun.elapsed() < Duration::from_secs(3) {
            passes(&other);
            answers += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(answers > 100, "{answers}");
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let (all, took) = (received.iter().sum::<usize>(), begun.elapsed().as_millis() as usize);
    let most = BURST + RATE * took / 1_000 + MORE;
    // Two thirds of it at least: paused sessions are woken in time.
    assert!(all <= most && all >= (BURST + RATE * 3) * 2 / 3, "{received:?} in {took} ms");
    assert!(received.iter().all(|own| *own > 0), "{received:?}");
}

/// Writes until the peer takes no more, or `stop` is set.
fn flood(mut stream: &TcpStream, bytes: &[u8], stop: &AtomicBool) {
    stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&bytes[at..]) {
            Ok(n) => at = (at + n) % bytes.len(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Reads until `stop` is set; how much that was.
fn drain(mut stream: &TcpStream, stop: &AtomicBool) -> usize {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (mut sum, mut buf) = (0, [0; 16 << 10]);
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buf) {
            Ok(n) => sum += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
    sum
}

#[test]
fn sessions_of_an_address_that_were_paused_go_on_without_being_asked() {
    let (listener, _) = listen();
    let messages = "messages = { rate = \"20/s\", burst = 10, patience = \"off\" }";
    let proxy = two_workers(&listener, &format!("limits = {{ per_address = {{ {messages} }} }}"));
    let sessions: Vec<_> = (0..3).map(|_| open_from(1, &proxy, &listener, "")).collect();
    let begun = Instant::now();
    for (client, _) in &sessions {
        let mut client = client;
        client.write_all(&masked(0x82, b"x").repeat(20)).unwrap();
    }
    std::thread::scope(|scope| {
        for (_, upstream) in &sessions {
            scope.spawn(move || (0..20).for_each(|n| assert_eq!(read_frame(upstream).1, b"x", "{n}")));
        }
    });
    // 60 messages: the burst of 10, and 2.5 s of the rate, less what the workers read at once.
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
