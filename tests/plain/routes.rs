//! What a route says holds for plain requests: who may come, how many, for how long, and where to.

use super::common::*;
use super::recorder::*;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn start(endpoints: &[SocketAddr], upstream: &str, route: &str) -> Proxy {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"http://{addr}\"")).collect();
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [log]\naccess = \"stdout\"\n[[upstream]]\nname = \"app\"\nendpoints = [{}]\n{upstream}\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"app\"\n{route}\n",
        endpoints.join(", ")
    ))
}

/// Refused with this status and cause, and then an end.
#[track_caller]
fn assert_refused(proxy: &Proxy, client: &TcpStream, (status, cause): (&str, &str)) {
    let head = read_head(client);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("Connection: close\r\n"), "{head}");
    assert_eq!(read_all(client).1, End::Fin);
    proxy.log.wait_for(&format!("cause={cause} status={status}"));
}

#[test]
fn any_method_passes_and_so_do_all_forms_of_a_target() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut client = connect(proxy.addr);
    for method in
        ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "QUERY", "x!#$%&'*+.^_`|~1"]
    {
        let request = format!("{method} /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab");
        assert_eq!(ask(&mut client, &request), format!("{method} /a HTTP/1.1"));
    }
    assert!(upstream.seen().iter().all(|seen| seen.body == b"ab"));
    for (line, passes) in [
        ("GET http://h/a?b HTTP/1.1", "GET /a?b HTTP/1.1"),
        ("GET http://h HTTP/1.1", "GET / HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("GET /a%2Fb/../c?d=/../e HTTP/1.1", "GET /a%2Fb/../c?d=/../e HTTP/1.1"),
    ] {
        assert_eq!(ask(&mut client, &format!("{line}\r\nHost: h\r\n\r\n")), passes);
    }
    for line in ["CONNECT h:443 HTTP/1.1", "CONNECT / HTTP/1.1", "TRACE / HTTP/1.1", "GET * HTTP/1.1", "GET a HTTP/1.1"]
    {
        let mut client = connect(proxy.addr);
        client.write_all(format!("{line}\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let head = read_head(&client);
        assert!(["400", "501"].iter().any(|status| head.starts_with(&format!("HTTP/1.1 {status} "))), "{line}: {head}");
        assert_eq!(read_all(&client).1, End::Fin);
    }
}

#[test]
fn who_may_not_come_gets_no_request_through() {
    let upstream = Recorder::start();
    let proxy = start(&[upstream.addr], "", "deny = [\"127.0.0.9\"]");
    let mut other = connect(proxy.addr);
    assert_eq!(ask(&mut other, &get("/a")), "GET /a HTTP/1.1");
    let mut client = connect_from([127, 0, 0, 9], proxy.addr);
    client.write_all(get("/b").as_bytes()).unwrap();
    assert_refused(&proxy, &client, ("403", "address-refused"));
    assert_eq!(upstream.lines(), ["GET /a HTTP/1.1"]);
}

#[test]
fn each_request_counts_for_rates_and_limits() {
    let upstream = Recorder::start();
    for (limits, refused) in [
        ("handshakes = { rate = \"2/60s\", burst = 2 }", ("503", "route-rate")),
        ("per_address = { handshakes = \"2/60s\", burst = 2 }", ("429", "address-rate")),
    ] {
        let proxy = start(&[upstream.addr], "", &format!("limits = {{ {limits} }}"));
        let mut client = connect(proxy.addr);
        for _ in 0..2 {
            assert_eq!(ask(&mut client, &get("/a")), "GET /a HTTP/1.1");
        }
        client.write_all(get("/a").as_bytes()).unwrap();
        assert_refused(&proxy, &client, refused);
    }
    let (listener, addr) = listen();
    let proxy = start(&[addr], "", "limits = { max_sessions = 1 }");
    let mut poll = connect(proxy.addr);
    poll.write_all(get("/poll").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    let mut client = connect(proxy.addr);
    client.write_all(get("/a").as_bytes()).unwrap();
    assert_refused(&proxy, &client, ("503", "max-route-sessions"));
    server.write_all(OK).unwrap();
    assert_eq!(answer(&poll).1, "ok");
    // The client of a poll that has been answered holds nothing of the route.
    let mut client = connect(proxy.addr);
    client.write_all(get("/a").as_bytes()).unwrap();
    read_head(&server);
    server.write_all(OK).unwrap();
    assert_eq!(answer(&client).1, "ok");
}

/// A request that the upstream has.
fn asked(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(get("/a").as_bytes()).unwrap();
    let server = accept(listener);
    read_head(&server);
    (client, server)
}

/// Does nothing for this time.
fn wait(ms: u64) {
    let begun = Instant::now();
    while let Some(left) = Duration::from_millis(ms).checked_sub(begun.elapsed()) {
        std::thread::park_timeout(left);
    }
}

#[test]
fn polls_wait_for_their_first_byte_and_streams_for_their_next() {
    let (listener, addr) = listen();
    let timeouts = "timeouts = { upstream_head = \"150ms\", idle = \"600ms\", first_byte = \"2s\" }";
    let proxy = start(&[addr], "", timeouts);
    // Longer than all but the time for it.
    let (poll, mut server) = asked(&proxy, &listener);
    wait(1_000);
    server.write_all(OK).unwrap();
    assert_eq!(answer(&poll).1, "ok");
    drop(server);
    let (stream, mut server) = asked(&proxy, &listener);
    server
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    read_head(&stream);
    for _ in 0..10 {
        wait(200);
        server.write_all(b"6\r\ndata\n\n\r\n").unwrap();
        assert_eq!(read_exact(&stream, 11), b"6\r\ndata\n\n\r\n");
    }
    let begun = Instant::now();
    assert_eq!(read_all(&stream), (Vec::new(), End::Reset));
    assert_due(begun, 500);
    proxy.log.wait_for("cause=idle-timeout status=200");
    let (late, _server) = asked(&proxy, &listener);
    let begun = Instant::now();
    assert!(read_head(&late).starts_with("HTTP/1.1 504 "));
    assert_due(begun, 2_000);
    drop(late);
    proxy.log.wait_for("cause=response-timeout status=504");
}

#[test]
fn requests_go_where_sessions_would() {
    let [first, second] = [(); 2].map(|()| Recorder::start());
    let refuses = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = start(&[refuses, first.addr, second.addr], "", "");
    let mut client = connect(proxy.addr);
    for _ in 0..30 {
        assert_eq!(ask(&mut client, &get("/a")), "GET /a HTTP/1.1");
    }
    assert!(!first.seen().is_empty() && !second.seen().is_empty());
    // An order keeps them away, and closes what is idle there.
    let (admin, addr) = (proxy.admin(), first.addr);
    let told = http(admin, &format!("POST /upstreams/app/{addr}/drain HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    eventually("its idle connections end", || (first.open() == 0).then_some(()));
    let before = first.seen().len();
    for _ in 0..30 {
        assert_eq!(ask(&mut client, &get("/b")), "GET /b HTTP/1.1");
    }
    assert_eq!(first.seen().len(), before);
}

#[test]
fn a_connection_to_an_endpoint_has_an_age() {
    let upstream = Recorder::start();
    let proxy = start(&[upstream.addr], "keep_alive = { age = \"300ms\" }", "");
    let (mut client, begun) = (connect(proxy.addr), Instant::now());
    while upstream.opened() < 2 {
        assert_eq!(ask(&mut client, &get("/a")), "GET /a HTTP/1.1");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(299), "{:?}", begun.elapsed());
    let seen = upstream.seen();
    assert!(seen.iter().filter(|seen| seen.connection == 0).count() > 1);
}
