//! Limits of a listener, of a route as a whole and of an API key, through real sockets: half-open
//! connections by the thousand, rates, sessions; behind trusted proxies, PROXY headers and TLS.

mod common;

use common::pki::PKI;
use common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A proxy whose listener has these keys; `more` are keys of the route and sections behind it.
fn listening(keys: &str, more: &str) -> Proxy {
    Proxy::start(
        &before(welcoming(), more)
            .replace("listen = \"127.0.0.1:0\"\n[[route]]", &format!("listen = \"127.0.0.1:0\"\n{keys}\n[[route]]")),
    )
}

/// The address of another client, one of 250 times 250.
fn host(n: usize) -> [u8; 4] {
    [127, 1, (n / 250) as u8, (n % 250 + 1) as u8]
}

/// The head of the response to a request from there.
#[track_caller]
fn ask(proxy: &Proxy, from: [u8; 4], before: &str, more: &str) -> (TcpStream, String) {
    let mut client = connect_from(from, proxy.addr);
    client.write_all((before.to_owned() + &request("/", more)).as_bytes()).unwrap();
    let head = read_head(&client);
    (client, head)
}

#[track_caller]
fn admitted(proxy: &Proxy, from: [u8; 4], more: &str) -> TcpStream {
    let (client, head) = ask(proxy, from, "", more);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

/// It is refused with this status and cause; the seconds of Retry-After.
#[track_caller]
fn refused(proxy: &Proxy, from: [u8; 4], more: &str, status: u16, cause: &str) -> u64 {
    let (client, head) = ask(proxy, from, "", more);
    assert_refused(proxy, client, &head, status, cause)
}

#[track_caller]
fn assert_refused(proxy: &Proxy, client: TcpStream, head: &str, status: u16, cause: &str) -> u64 {
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let seconds = head.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    drop(client);
    proxy.log.wait_for(&format!("cause={cause} status={status}"));
    seconds.unwrap_or_else(|| panic!("no Retry-After in {head}")).parse().unwrap()
}

/// It has been closed without a byte.
#[track_caller]
fn assert_closed(mut client: &TcpStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

fn is_open(mut client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = client.read(&mut [0]);
    client.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn handshakes(outcome: &str) -> String {
    format!("framegate_handshakes_total{{outcome=\"{outcome}\"}}")
}

#[track_caller]
fn counted(proxy: &Proxy, metric: &str, value: f64) {
    eventually(&format!("{metric} is {value}"), || (proxy.metric(metric) == value).then_some(()));
}

#[test]
fn thousands_of_half_open_connections_leave_room_for_other_addresses() {
    let limits = "limits = { half_open = 500, per_address = { half_open = 20 } }";
    let proxy = listening(limits, "");
    let mut flood = Vec::new();
    for n in 0..3_000 {
        let mut one = connect_from([127, 0, 0, 1], proxy.addr);
        // Some say nothing, others begin, others drip. Those that are refused may be closed by now.
        let _ = one.write_all(&request("/", "").as_bytes()[..n % 50]);
        flood.push(one);
        if n % 100 == 99 {
            admitted(&proxy, host(n), "");
        }
    }
    counted(&proxy, &handshakes("address-half-open"), 2_980.0);
    assert_eq!(flood.iter().filter(|one| is_open(one)).count(), 20);
    counted(&proxy, &handshakes("ok"), 30.0);
    let log = proxy.log.wait_for("cause=address-half-open");
    assert_eq!(verdict(&log), "ended_by=downstream phase=request cause=address-half-open");
    // The address gets in again as soon as one of its connections has gone.
    let held = flood.iter().position(is_open).unwrap();
    drop(flood.swap_remove(held));
    eventually("there is room", || {
        let mut client = connect_from([127, 0, 0, 1], proxy.addr);
        let sent = client.write_all(request("/", "").as_bytes());
        let mut first = [0; 12];
        (sent.is_ok() && client.read_exact(&mut first).is_ok() && first == *b"HTTP/1.1 101").then_some(())
    });
    // Sessions are not half-open: many of one address, all at once.
    let more: Vec<_> = (0..40).map(|_| admitted(&proxy, [127, 0, 0, 2], "")).collect();
    assert_eq!(more.len(), 40);
    let (places, used) = ("framegate_client_table_places", "framegate_client_table_used");
    let labels = format!("{{of=\"{}\",limit=\"listener.half_open\"}}", "127.0.0.1:0");
    assert_eq!(proxy.metric(&format!("{places}{labels}")), 65_536.0);
    assert_eq!(proxy.metric(&format!("{used}{labels}")), 32.0);
}

#[test]
fn a_listener_has_so_many_half_open_connections_whoever_they_are() {
    let (closed, open) = ("limits = { half_open = 100 }\n[[listener]]\nlisten = \"127.0.0.3:0\"\n", "");
    let proxy = listening(closed, open);
    let addresses = eventually("both listen", || {
        let said = proxy.said.all();
        let listening = said.iter().filter_map(|line| line.split_once("listening on ")?.1.parse::<SocketAddr>().ok());
        let addresses: Vec<_> = listening.collect();
        (addresses.len() == 2).then_some(addresses)
    });
    let mut flood: Vec<_> = (0..100).map(|n| connect_from(host(n), addresses[0])).collect();
    flood.extend((0..50).map(|n| connect_from(host(200 + n), addresses[0])));
    counted(&proxy, &handshakes("half-open"), 50.0);
    for refused in &flood[100..] {
        assert_closed(refused);
    }
    assert_eq!(flood.iter().filter(|one| is_open(one)).count(), 100);
    // The other listener is not concerned.
    let mut client = connect_from(host(1), addresses[1]);
    client.write_all(request("/", "").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    // One that is admitted makes room, and so does one that leaves.
    flood[7].write_all(request("/", "").as_bytes()).unwrap();
    assert!(read_head(&flood[7]).starts_with("HTTP/1.1 101 "));
    admitted(&proxy, host(500), "");
    drop(flood);
    counted(&proxy, "framegate_handshakes", 0.0);
    let more: Vec<_> = (0..100).map(|n| connect_from(host(n), addresses[0])).collect();
    counted(&proxy, "framegate_handshakes", 100.0);
    assert!(more.iter().all(is_open));
}

#[test]
fn beyond_its_rates_a_listener_answers_429_to_the_address_and_503_to_all() {
    let limits =
        "limits = { handshakes = { rate = \"1/h\", burst = 6 }, per_address = { handshakes = \"1/h\", burst = 2 } }";
    let proxy = listening(limits, "");
    let _sessions: Vec<_> = [1, 1, 2, 2].map(|n| admitted(&proxy, host(n), "")).into();
    for _ in 0..20 {
        let seconds = refused(&proxy, host(1), "", 429, "address-rate");
        assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    }
    // What the address was refused is still there for the others.
    let _more = [admitted(&proxy, host(3), ""), admitted(&proxy, host(4), "")];
    let seconds = refused(&proxy, host(5), "", 503, "listener-rate");
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    // A reload goes on counting.
    assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").contains("200 OK"));
    refused(&proxy, host(1), "", 429, "address-rate");
    refused(&proxy, host(6), "", 503, "listener-rate");
}

#[test]
fn a_listener_has_so_many_sessions_and_each_address_its_own() {
    let proxy = listening("limits = { max_sessions = 3, per_address = { sessions = 2 } }", "");
    let mut sessions: Vec<_> = (0..2).map(|_| admitted(&proxy, host(1), "")).collect();
    refused(&proxy, host(1), "", 429, "address-sessions");
    sessions.push(admitted(&proxy, host(2), ""));
    assert_eq!(refused(&proxy, host(2), "", 503, "max-listener-sessions"), 1);
    sessions.into_iter().for_each(reset);
    counted(&proxy, "framegate_sessions{worker=\"0\"}", 0.0);
    admitted(&proxy, host(1), "");
}

#[test]
fn with_tls_what_exceeds_a_rate_is_closed_before_its_handshake() {
    let pair = PKI.server();
    let tls = format!("tls = {{ certificates = [{{ cert = {:?}, key = {:?} }}] }}", pair.cert, pair.key);
    let limits =
        "limits = { handshakes = { rate = \"1/h\", burst = 3 }, per_address = { handshakes = \"1/h\", burst = 1 } }";
    let proxy = listening(&format!("{tls}\n{limits}"), "");
    let first = connect_from(host(1), proxy.addr);
    assert_closed(&connect_from(host(1), proxy.addr));
    let others = [connect_from(host(2), proxy.addr), connect_from(host(3), proxy.addr)];
    assert_closed(&connect_from(host(4), proxy.addr));
    counted(&proxy, &handshakes("address-rate"), 1.0);
    counted(&proxy, &handshakes("listener-rate"), 1.0);
    assert!(is_open(&first) && others.iter().all(is_open));
    let log = proxy.log.wait_for("cause=listener-rate");
    assert_eq!(verdict(&log), "ended_by=proxy phase=request cause=listener-rate");
}

#[test]
fn behind_a_trusted_proxy_the_client_that_it_names_counts() {
    let limits = "limits = { per_address = { half_open = 1, sessions = 2, handshakes = \"1/h\", burst = 3 } }";
    let proxy = listening(&format!("trusted_proxies = [\"127.0.0.1\"]\n{limits}"), "");
    // Half-open connections of the proxy itself are not limited.
    let idle: Vec<_> = (0..50).map(|_| connect_from([127, 0, 0, 1], proxy.addr)).collect();
    let from = |client: u8| format!("X-Forwarded-For: 203.0.113.{client}\r\n");
    let _sessions = [1, 1, 2].map(|client| admitted(&proxy, [127, 0, 0, 1], &from(client)));
    refused(&proxy, [127, 0, 0, 1], &from(1), 429, "address-sessions");
    let seconds = refused(&proxy, [127, 0, 0, 1], &from(1), 429, "address-rate");
    assert!(seconds > 3_000, "{seconds}");
    // What others say of themselves does not matter.
    let _own = [admitted(&proxy, host(1), &from(7)), admitted(&proxy, host(1), &from(8))];
    refused(&proxy, host(1), &from(9), 429, "address-sessions");
    assert!(idle.iter().all(is_open));
}

#[test]
fn behind_a_proxy_header_the_client_that_it_names_counts_from_then_on() {
    let limits = "limits = { half_open = 100, per_address = { half_open = 2, handshakes = \"1/h\", burst = 4 } }";
    let keys = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n";
    let proxy = listening(&format!("{keys}{limits}"), "");
    let header = |n: u8| format!("PROXY TCP4 203.0.113.{n} 127.0.0.1 4000 80\r\n");
    // Nothing is known of these yet.
    let unnamed: Vec<_> = (0..30).map(|_| connect_from([127, 0, 0, 1], proxy.addr)).collect();
    let named = |n: u8| {
        let mut client = connect_from([127, 0, 0, 1], proxy.addr);
        client.write_all(header(n).as_bytes()).unwrap();
        client
    };
    let half_open = [named(1), named(1)];
    counted(&proxy, "framegate_handshakes", 32.0);
    assert_closed(&named(1));
    let log = proxy.log.wait_for("cause=address-half-open");
    assert_eq!(verdict(&log), "ended_by=downstream phase=proxy-header cause=address-half-open");
    assert!(log.contains("203.0.113.1:4000"), "{log}");
    let (_session, head) = ask(&proxy, [127, 0, 0, 1], &header(2), "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    drop(half_open);
    counted(&proxy, "framegate_handshakes", 30.0);
    // Two have been let in, and the third one was refused before it was counted.
    let (_session, head) = ask(&proxy, [127, 0, 0, 1], &header(1), "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (_session, head) = ask(&proxy, [127, 0, 0, 1], &header(1), "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (client, head) = ask(&proxy, [127, 0, 0, 1], &header(1), "");
    assert_refused(&proxy, client, &head, 429, "address-rate");
    assert!(unnamed.iter().all(is_open));
}

#[test]
fn a_route_has_its_rate_of_handshakes_and_others_have_theirs() {
    let upstream = welcoming();
    let limits = "path = \"/limited\"\nlimits = { handshakes = { rate = \"1/h\", burst = 3 } }";
    let proxy = Proxy::before(upstream, &format!("{limits}\n[[route]]\nupstream = \"ws://{upstream}\"\n"));
    let status = |n: usize, path: &str| {
        let mut client = connect_from(host(n), proxy.addr);
        client.write_all(request(path, "").as_bytes()).unwrap();
        (read_head(&client), client)
    };
    let _sessions: Vec<_> = (0..3)
        .map(|n| {
            let (head, client) = status(n, "/limited");
            assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
            client
        })
        .collect();
    let (head, client) = status(4, "/limited");
    let seconds = assert_refused(&proxy, client, &head, 503, "route-rate");
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    let (head, _client) = status(4, "/other");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[test]
fn each_key_of_an_owner_has_its_own_limits() {
    // The SHA-256 of "one", "two" and "three".
    let hashes = [
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
        "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f",
    ];
    let keys = format!(
        "keys = [{{ owner = \"a\", sha256 = \"{}\", sessions = 1 }}, \
         {{ owner = \"a\", sha256 = \"{}\", sessions = 2, handshakes = \"1/h\", burst = 3 }}, \
         {{ owner = \"a\", sha256 = \"{}\" }}]",
        hashes[0], hashes[1], hashes[2]
    );
    let auth = format!("auth = \"keys\"\n[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\n{keys}\n");
    let proxy = listening("", &auth);
    let key = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let one = admitted(&proxy, host(1), &key("one"));
    refused(&proxy, host(2), &key("one"), 429, "key-sessions");
    let _two = [admitted(&proxy, host(1), &key("two")), admitted(&proxy, host(2), &key("two"))];
    refused(&proxy, host(3), &key("two"), 429, "key-sessions");
    let seconds = refused(&proxy, host(3), &key("two"), 429, "key-rate");
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    let _three: Vec<_> = (0..10).map(|n| admitted(&proxy, host(n), &key("three"))).collect();
    // Also over a reload, and only while they live.
    assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").contains("200 OK"));
    refused(&proxy, host(2), &key("one"), 429, "key-sessions");
    refused(&proxy, host(2), &key("two"), 429, "key-rate");
    reset(one);
    counted(&proxy, "framegate_sessions{worker=\"0\"}", 12.0);
    admitted(&proxy, host(9), &key("one"));
}

#[test]
fn a_client_without_a_place_is_counted_as_such() {
    let (upstream, entries) = (welcoming(), 64);
    let limits = format!("limits = {{ per_address = {{ sessions = 1, entries = {entries} }} }}\nname = \"small\"");
    let proxy = Proxy::before(upstream, &limits);
    let _sessions: Vec<_> = (0..200).map(|n| admitted(&proxy, host(n), "")).collect();
    let of = |name: &str| proxy.metric(&format!("framegate_client_table_{name}{{of=\"small\",limit=\"per_address\"}}"));
    assert_eq!((of("places"), of("used")), (64.0, 64.0));
    assert_eq!(of("overflows_total"), 200.0 - 64.0);
    assert_eq!(of("evicted_total"), 0.0);
}
