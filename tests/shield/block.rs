//! Addresses that fail too often.

use super::raw;
use crate::common::{
    End, Proxy, connect, connect_from, eventually, http, listen, masked, open_from, plain, read_all, read_close,
    read_frame, request,
};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

const MALFORMED: &[u8] = b"GET / HTTP/1.1\r\nbad header\r\n\r\n";
/// The SHA-256 of `open sesame`.
const KEYS: &str = "[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nkeys = [{ owner = \"acme\", sha256 = \
                    \"41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb\" }]\n";

fn start(block: &str, more: &str) -> (Proxy, TcpListener) {
    let (listener, addr) = listen();
    let shield = format!("[shield]\nblock = {{ {block} }}\n[log]\naccess = \"stdout\"\n");
    (Proxy::alone_before(addr, &format!("{more}\n{shield}")), listener)
}

fn admin(proxy: &Proxy, request: &str) -> String {
    http(proxy.admin(), &format!("{request} HTTP/1.1\r\nHost: admin\r\n\r\n"))
}

/// What `GET /blocks` says.
fn blocks(proxy: &Proxy) -> Vec<serde_json::Value> {
    let answer = admin(proxy, "GET /blocks");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// A connection from this address is closed before a byte of its request matters.
fn is_blocked(addr: SocketAddr, host: u8) -> bool {
    raw(addr, host, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").0.is_empty()
}

fn echo((client, upstream): &mut (TcpStream, TcpStream)) {
    client.write_all(&masked(0x81, b"still here")).unwrap();
    assert_eq!(read_frame(upstream).1, b"still here");
    upstream.write_all(&plain(0x81, b"so are we")).unwrap();
    assert_eq!(read_frame(client).1, b"so are we");
}

#[test]
fn malformed_heads_block_their_address_at_accept_and_nothing_else() {
    let (proxy, listener) = start("failures = \"3/60s\", first = \"1h\"", "");
    let mut session = open_from(2, &proxy, &listener, "");
    for n in 0..3 {
        assert!(blocks(&proxy).is_empty(), "after {n}");
        let (answer, end) = raw(proxy.addr, 2, MALFORMED);
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(end, End::Fin);
    }
    // At accept: a client that says nothing learns of it, too.
    let (answer, end) = read_all(&connect_from([127, 0, 0, 2], proxy.addr));
    assert_eq!((answer, end), (Vec::new(), End::Reset));
    assert!(is_blocked(proxy.addr, 2) && !is_blocked(proxy.addr, 3));
    echo(&mut session);
    let [block] = &blocks(&proxy)[..] else { panic!("{:?}", blocks(&proxy)) };
    assert_eq!((&block["network"], &block["blocks"]), (&"127.0.0.2/32".into(), &1.into()));
    assert!((3_500..=3_600).contains(&block["left_seconds"].as_u64().unwrap()), "{block}");
    let counted = "framegate_handshakes_total{outcome=\"address-blocked\"}";
    eventually("both are counted", || (proxy.metric(counted) == 2.0).then_some(()));
    assert_eq!((proxy.metric("framegate_blocked_addresses"), proxy.metric("framegate_blocks_total")), (1.0, 1.0));
    // Over a reload, too; and an order lifts it.
    assert!(admin(&proxy, "POST /reload").contains("200 OK"));
    assert!(is_blocked(proxy.addr, 2));
    for (order, status) in [
        ("POST /unblock?address=127.0.0.3", "404"),
        ("POST /unblock?address=here", "400"),
        ("POST /unblock", "400"),
        ("GET /unblock?address=127.0.0.2", "405"),
        ("POST /blocks", "405"),
        ("POST /unblock?address=127.0.0.2", "200"),
        ("POST /unblock?address=127.0.0.2", "404"),
    ] {
        let answer = admin(&proxy, order);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{order}: {answer}");
    }
    assert!(!is_blocked(proxy.addr, 2) && blocks(&proxy).is_empty());
    echo(&mut session);
}

#[test]
fn blocks_grow_and_are_forgotten() {
    let (proxy, _listener) = start("failures = \"2/60s\", first = \"1s\", longest = \"2s\"", "");
    let fail = |times| (0..times).for_each(|_| drop(raw(proxy.addr, 2, MALFORMED)));
    let state = || blocks(&proxy).first().map(|one| (one["blocks"].clone(), one["left_seconds"].as_u64().unwrap()));
    let over = || eventually("the block ends", || blocks(&proxy).is_empty().then_some(()));
    for (blocks, seconds) in [(1, 1), (2, 2), (3, 2)] {
        fail(2);
        assert_eq!(state(), Some((blocks.into(), seconds)));
        over();
        assert!(!is_blocked(proxy.addr, 2));
    }
    // After a quiet time of the longest block it is not known any more: the first block again.
    let quiet = std::time::Instant::now();
    eventually("a quiet time", || (quiet.elapsed() > std::time::Duration::from_millis(2_100)).then_some(()));
    fail(2);
    assert_eq!(state(), Some((1.into(), 1)));
}

#[test]
fn wrong_credentials_count_and_absent_ones_do_not() {
    let (proxy, listener) = start("failures = \"5/60s\", first = \"1h\"", &format!("auth = \"keys\"\n{KEYS}"));
    let status = |more: &str| String::from_utf8(raw(proxy.addr, 2, request("/", more).as_bytes()).0).unwrap();
    for _ in 0..20 {
        assert!(status("").starts_with("HTTP/1.1 401 "));
        assert!(status("Authorization: Basic eDp5\r\n").starts_with("HTTP/1.1 401 "), "of another kind");
    }
    for _ in 0..5 {
        assert!(blocks(&proxy).is_empty());
        assert!(status("Authorization: Bearer wrong\r\n").starts_with("HTTP/1.1 401 "));
    }
    assert!(is_blocked(proxy.addr, 2), "with the right ones, too");
    open_from(3, &proxy, &listener, "Authorization: Bearer open sesame\r\n");
}

#[test]
fn violations_count_and_sessions_that_are_open_stay() {
    let (proxy, listener) = start("failures = \"3/60s\", first = \"1h\"", "");
    let mut stays = open_from(2, &proxy, &listener, "");
    for _ in 0..3 {
        assert!(blocks(&proxy).is_empty());
        let (mut client, upstream) = open_from(2, &proxy, &listener, "");
        // Not masked.
        client.write_all(&plain(0x81, b"x")).unwrap();
        assert_eq!(read_close(&client).0, 1002);
        assert_eq!(read_close(&upstream).0, 1001);
        drop((client, upstream));
    }
    eventually("it is blocked", || (!blocks(&proxy).is_empty()).then_some(()));
    assert!(is_blocked(proxy.addr, 2));
    echo(&mut stays);
    // An upstream that breaks the rules is not the client's failure.
    for _ in 0..5 {
        let (client, mut upstream) = open_from(3, &proxy, &listener, "");
        upstream.write_all(&masked(0x81, b"x")).unwrap();
        assert_eq!(read_close(&client).0, 1014);
        drop((client, upstream));
    }
    assert!(!is_blocked(proxy.addr, 3));
}

/// Behind a trusted proxy the client is blocked, with a response, and the proxy never is.
#[test]
fn behind_a_trusted_proxy_the_client_is_blocked_and_not_the_proxy() {
    let (listener, addr) = listen();
    let toml = format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         trusted_proxies = [\"127.0.0.1\"]\n[[route]]\nupstream = \"ws://{addr}\"\nauth = \"keys\"\n{KEYS}\
         [shield]\nblock = {{ failures = \"3/60s\", first = \"1h\", exempt = [\"198.51.100.0/24\"] }}\n"
    );
    let proxy = Proxy::start(&toml);
    let ask = |client: &str, key: &str| {
        let mut stream = connect(proxy.addr);
        let from = if client.is_empty() { String::new() } else { format!("X-Forwarded-For: {client}\r\n") };
        let more = format!("{from}Authorization: Bearer {key}\r\n");
        stream.write_all(request("/", &more).as_bytes()).unwrap();
        String::from_utf8(read_all(&stream).0).unwrap()
    };
    for client in ["203.0.113.9", "2001:db8::1", "198.51.100.1"] {
        for _ in 0..3 {
            assert!(ask(client, "wrong").starts_with("HTTP/1.1 401 "), "{client}");
        }
    }
    for client in ["203.0.113.9", "2001:db8::ffff", "::ffff:203.0.113.9"] {
        // Right credentials do not help.
        let answer = ask(client, "open sesame");
        assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{client}: {answer}");
        let after = answer.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
        assert!((3_500..=3_600).contains(&after.parse::<u64>().unwrap()), "{after}");
    }
    assert!(ask("198.51.100.1", "wrong").starts_with("HTTP/1.1 401 "), "it is exempt");
    assert!(ask("203.0.113.10", "wrong").starts_with("HTTP/1.1 401 "), "another client");
    // Its own failures, and malformed heads that it passes on, are not held against the proxy.
    for _ in 0..10 {
        assert!(ask("", "wrong").starts_with("HTTP/1.1 401 "));
        assert!(raw(proxy.addr, 1, MALFORMED).0.starts_with(b"HTTP/1.1 400 "));
    }
    let networks: Vec<_> = blocks(&proxy).iter().map(|one| one["network"].as_str().unwrap().to_owned()).collect();
    assert_eq!(networks.len(), 2);
    assert!(networks.contains(&"203.0.113.9/32".to_owned()) && networks.contains(&"2001:db8::/64".to_owned()));
    assert!(admin(&proxy, "POST /unblock?address=2001:db8::7").starts_with("HTTP/1.1 200 "));
    assert!(ask("2001:db8::1", "wrong").starts_with("HTTP/1.1 401 "));
    drop(listener);
}

/// Connections that were open before their address was blocked do not get further attempts.
#[test]
fn connections_from_before_the_block_get_429() {
    let (proxy, _listener) = start("failures = \"3/60s\", first = \"1h\"", &format!("auth = \"keys\"\n{KEYS}"));
    let early: Vec<_> = (0..50).map(|_| connect_from([127, 0, 0, 2], proxy.addr)).collect();
    eventually("they are accepted", || (proxy.metric("framegate_connections_accepted_total") >= 50.0).then_some(()));
    let mut answers = Vec::new();
    for mut client in early {
        client.write_all(request("/", "Authorization: Bearer wrong\r\n").as_bytes()).unwrap();
        answers.push(String::from_utf8(read_all(&client).0).unwrap()[..12].to_owned());
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "HTTP/1.1 401").count(), 3, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "HTTP/1.1 429").count(), 47);
}
