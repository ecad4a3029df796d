//! Floods of TLS handshakes.

use super::{pause, shield};
use crate::common::pki::{PKI, provider};
use crate::common::{Proxy, connect_from, field, listen};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

fn start(keys: &str) -> Proxy {
    let (_listener, addr) = listen();
    let toml = format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{}] }}\n[[route]]\nupstream = \"ws://{addr}\"\npath = \"/none\"\n{}\n",
        PKI.server().toml(),
        shield(keys)
    );
    Proxy::start(&toml)
}

fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    Arc::new(config.with_root_certificates(PKI.roots()).with_no_client_auth())
}

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// A handshake and a request, for the ticket that comes with it.
fn fetch_ticket(proxy: &Proxy, config: &Arc<ClientConfig>) -> HandshakeKind {
    let mut client = StreamOwned::new(connection(config), connect_from([127, 0, 0, 2], proxy.addr));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    client.conn.handshake_kind().unwrap()
}

/// A client that sends its ClientHello, then FIN. The step that reads it finds the end as well, so
/// that the order of the log is that in which handshakes were worked on.
fn hello(proxy: &Proxy, host: u8, config: &Arc<ClientConfig>, change: impl Fn(&mut Vec<u8>)) -> TcpStream {
    let (mut connection, mut bytes) = (connection(config), Vec::new());
    connection.write_tls(&mut bytes).unwrap();
    change(&mut bytes);
    let mut stream = connect_from([127, 0, 0, host], proxy.addr);
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}

/// How many handshakes were worked on before that of each client.
fn places(proxy: &Proxy, total: usize, clients: &[&TcpStream]) -> Vec<usize> {
    let peers: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap().to_string()).collect();
    let ended = crate::common::eventually("all have ended", || {
        let lines = proxy.log.all();
        let ended: Vec<_> =
            lines.into_iter().filter(|line| line.contains(" tls ") || line.contains("phase=tls")).collect();
        (ended.len() >= total).then_some(ended)
    });
    let place = |peer: &String| ended.iter().position(|line| field(line, "client") == Some(peer));
    peers.iter().map(|peer| place(peer).unwrap_or_else(|| panic!("{peer} is not in {ended:#?}"))).collect()
}

/// With one step in an iteration; the flood fills the kernel's queue before the others come.
#[test]
fn who_resumes_overtakes_a_flood_and_who_is_alone_waits_for_one_round() {
    for version in [&TLS13, &TLS12] {
        let proxy = start("work = 4");
        let known = client(version);
        assert_eq!(fetch_ticket(&proxy, &known), HandshakeKind::Full);
        let unknown = client(version);
        pause(&proxy);
        let mut held: Vec<_> = (0..300).map(|_| hello(&proxy, 2, &unknown, |_| {})).collect();
        // Of the flood's own prefix: its ticket alone makes the difference.
        let resuming = hello(&proxy, 2, &known, |_| {});
        let alone = [3, 4].map(|host| hello(&proxy, host, &unknown, |_| {}));
        held.extend((0..50).map(|_| hello(&proxy, 2, &unknown, |_| {})));
        proxy.signal("CONT");
        let total = 353;
        let places = places(&proxy, total, &[&resuming, &alone[0], &alone[1]]);
        // One of these may share the lane of the flood by chance.
        let (resumed, alone) = (places[0], places[1].min(places[2]));
        // 64 connections are accepted in an iteration.
        assert!(resumed <= 12, "{resumed} before the one that resumes, {version:?}");
        assert!(alone <= 14, "{alone} before the one that is alone, {version:?}");
    }
}

/// The presence of a ticket says nothing: it must be one of ours, as it was.
#[test]
fn a_ticket_that_is_not_ours_has_no_preference() {
    let proxy = start("work = 4");
    let (known, unknown) = (client(&TLS12), client(&TLS12));
    assert_eq!(fetch_ticket(&proxy, &known), HandshakeKind::Full);
    assert_eq!(fetch_ticket(&proxy, &known), HandshakeKind::Resumed);
    let other = start("");
    let foreign = client(&TLS12);
    assert_eq!(fetch_ticket(&other, &foreign), HandshakeKind::Full);
    pause(&proxy);
    let _flood: Vec<_> = (0..150).map(|_| hello(&proxy, 2, &unknown, |_| {})).collect();
    let foreign = hello(&proxy, 2, &foreign, |_| {});
    // In TLS 1.2 the ticket is the last but for some short extensions: one bit of it differs.
    let changed = hello(&proxy, 2, &known, |bytes| {
        let ticket = bytes.windows(2).rposition(|pair| pair == [0, 35]).unwrap();
        bytes[ticket + 40] ^= 1;
    });
    let right = hello(&proxy, 2, &known, |_| {});
    proxy.signal("CONT");
    let [foreign, changed, right] = places(&proxy, 153, &[&foreign, &changed, &right])[..] else { panic!() };
    assert!(right <= 8, "{right}");
    assert!(foreign > 100 && changed > 100, "{foreign} {changed}");
}

/// Beyond the queue they are closed: a response would cost the handshake that is to be saved.
#[test]
fn beyond_the_queue_clients_are_closed_without_a_handshake() {
    let proxy = start("work = 4\nqueue = 10");
    let unknown = client(&TLS13);
    pause(&proxy);
    let flood: Vec<_> = (0..100).map(|_| hello(&proxy, 2, &unknown, |_| {})).collect();
    proxy.signal("CONT");
    let answered = flood.iter().filter(|client| !crate::common::read_all(client).0.is_empty()).count();
    let name = "framegate_handshakes_total{outcome=\"handshake-overload\"}";
    let all = || answered as f64 + proxy.metric(name) == 100.0;
    crate::common::eventually("all are counted", || all().then_some(()));
    assert!((10..40).contains(&answered), "{answered} of 100");
    assert!(!proxy.log.all().iter().any(|line| line.contains("handshake-overload")), "a flood must not fill the log");
}

/// A ClientHello that comes in pieces takes no place until it is whole, and is served then.
#[test]
fn a_slow_hello_waits_for_its_end_and_not_in_the_queue() {
    let proxy = start("work = 4\nqueue = 30");
    let known = client(&TLS13);
    fetch_ticket(&proxy, &known);
    pause(&proxy);
    let unknown = client(&TLS13);
    let flood: Vec<_> = (0..15).map(|_| hello(&proxy, 2, &unknown, |_| {})).collect();
    // More than the queue holds.
    let dripping: Vec<_> = (0..100)
        .map(|_| {
            let mut client = connect_from([127, 0, 0, 2], proxy.addr);
            client.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            client
        })
        .collect();
    let (mut slow, mut bytes) = (connection(&known), Vec::new());
    slow.write_tls(&mut bytes).unwrap();
    let mut stream = connect_from([127, 0, 0, 3], proxy.addr);
    let (first, rest) = bytes.split_at(100);
    stream.write_all(first).unwrap();
    proxy.signal("CONT");
    places(&proxy, 15, &[]);
    stream.write_all(rest).unwrap();
    let mut client = StreamOwned::new(slow, stream);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(client.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    let accepted = || proxy.metric("framegate_connections_accepted_total");
    crate::common::eventually("all are counted", || (accepted() == 117.0).then_some(()));
    assert_eq!(proxy.metric("framegate_handshakes_total{outcome=\"handshake-overload\"}"), 0.0);
    drop((flood, dripping));
}
