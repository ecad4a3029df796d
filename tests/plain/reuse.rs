//! Connections that live on: the client's, and those to the upstream that other clients get.

use super::common::*;
use super::recorder::*;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn one_connection_to_the_upstream_serves_one_client_after_the_other() {
    let upstream = Recorder::start();
    let mut proxy = upstream.proxy("");
    for client in 0..5 {
        let mut stream = connect(proxy.addr);
        for request in 0..5 {
            let path = format!("/{client}/{request}");
            assert_eq!(ask(&mut stream, &get(&path)), format!("GET {path} HTTP/1.1"));
        }
    }
    assert_eq!((upstream.opened(), upstream.seen().len()), (1, 25));
    let log = proxy.stop();
    assert_eq!(log.iter().filter(|line| line.contains(" cause=answered status=200 ")).count(), 25);
}

#[test]
fn clients_at_the_same_time_have_connections_of_their_own() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut waiting: Vec<_> = (0..4).map(|_| connect(proxy.addr)).collect();
    for stream in &mut waiting {
        stream.write_all(get("/silent").as_bytes()).unwrap();
    }
    eventually("four requests", || (upstream.seen().len() == 4).then_some(()));
    assert_eq!(upstream.opened(), 4);
    // A client that leaves takes its connection with it.
    drop(waiting);
    eventually("the end of their connections", || (upstream.open() == 0).then_some(()));
}

#[test]
fn the_age_of_a_request_does_not_include_the_idle_time_before_it() {
    let upstream = Recorder::start();
    let mut proxy = upstream.proxy("");
    let mut client = connect(proxy.addr);
    ask(&mut client, &get("/first"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    ask(&mut client, &get("/second"));
    let log = proxy.stop();
    let line = log.iter().find(|line| line.contains(" path=/second ")).unwrap();
    let age: f64 = field(line, "age").unwrap().trim_end_matches('s').parse().unwrap();
    assert!(age < 0.9, "{line}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut stream = connect(proxy.addr);
    let body = "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let all = [get("/1"), body.into(), get("/3"), get("/4")].concat();
    stream.write_all(all.as_bytes()).unwrap();
    for line in ["GET /1", "POST /2", "GET /3", "GET /4"] {
        assert_eq!(answer(&stream).1, format!("{line} HTTP/1.1"));
    }
    assert_eq!(upstream.seen()[1].body, b"abc");
    assert_eq!(upstream.opened(), 1);
}

#[test]
fn a_connection_that_has_ended_is_not_used() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut stream = connect(proxy.addr);
    // It says that it closes, says too much, or is cut.
    assert_eq!(ask(&mut stream, &get("/close")), "ok");
    assert_eq!(ask(&mut stream, &get("/extra")), "ok");
    assert_eq!(ask(&mut stream, &get("/a")), "GET /a HTTP/1.1");
    let connections: Vec<usize> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 2]);
    stream.write_all(get("/cut").as_bytes()).unwrap();
    let (bytes, end) = read_all(&stream);
    assert!(bytes.ends_with(b"half") && end == End::Reset, "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn idle_connections_end_after_their_time_and_are_bounded() {
    let upstream = Recorder::start();
    let toml = |keep: &str| {
        format!(
            "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"app\"\n\
             endpoints = [\"http://{}\"]\nkeep_alive = {keep}\n[[route]]\nupstream = \"app\"\n",
            upstream.addr
        )
    };
    let before = upstream.opened();
    let proxy = Proxy::start(&toml("{ connections = 2 }"));
    let mut clients: Vec<_> = (0..4).map(|_| connect(proxy.addr)).collect();
    for stream in &mut clients {
        stream.write_all(get("/silent").as_bytes()).unwrap();
    }
    eventually("four requests", || (upstream.opened() == before + 4).then_some(()));
    drop(clients);
    eventually("their end", || (upstream.open() == 0).then_some(()));
    drop(proxy);
    let proxy = Proxy::start(&toml("{ idle = \"50ms\" }"));
    let mut stream = connect(proxy.addr);
    assert_eq!(ask(&mut stream, &get("/a")), "GET /a HTTP/1.1");
    eventually("the end of the idle connection", || (upstream.open() == 0).then_some(()));
    assert_eq!(ask(&mut stream, &get("/b")), "GET /b HTTP/1.1");
    drop(proxy);
    let proxy = Proxy::start(&toml("{ connections = 0 }"));
    let mut stream = connect(proxy.addr);
    assert_eq!(ask(&mut stream, &get("/c")), "GET /c HTTP/1.1");
    eventually("the end of the connection", || (upstream.open() == 0).then_some(()));
}

#[test]
fn a_websocket_comes_after_requests_on_the_same_connection() {
    let (listener, addr) = listen();
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"ws://{addr}\"\n"
    ));
    let mut client = connect(proxy.addr);
    client.write_all(get("/poll").as_bytes()).unwrap();
    let mut server = accept(&listener);
    assert!(read_head(&server).starts_with("GET /poll HTTP/1.1\r\nHost: h\r\n"));
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(answer(&client).1, "ok");
    client.write_all(request("/ws", "").as_bytes()).unwrap();
    // It gets a connection of its own.
    let mut second = accept(&listener);
    assert!(read_head(&second).contains("Upgrade: websocket\r\n"));
    second.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    client.write_all(&masked(0x81, b"hello")).unwrap();
    assert_eq!(read_frame(&second).1, b"hello");
    // And where WebSockets are not taken, the wish for one is ignored.
    let proxy = Proxy::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nprotocols = [\"http\"]\nupstream = \"ws://{addr}\"\n"
    ));
    let mut client = connect(proxy.addr);
    client.write_all(request("/ws", "").as_bytes()).unwrap();
    let third = accept(&listener);
    let head = read_head(&third);
    assert!(!head.contains("Upgrade") && head.contains("Sec-WebSocket-Key"), "{head}");
}

#[test]
fn a_request_goes_a_second_time_only_where_that_is_safe() {
    let (listener, addr) = listen();
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"ws://{addr}\"\n"
    ));
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let post = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na";
    for (request, again) in [(get("/g"), true), (post.to_owned(), false)] {
        let mut client = connect(proxy.addr);
        client.write_all(get("/first").as_bytes()).unwrap();
        let mut server = accept(&listener);
        read_head(&server);
        server.write_all(ok).unwrap();
        answer(&client);
        // The connection ends when the next request is on its way: it is not known to be idle.
        client.write_all(request.as_bytes()).unwrap();
        read_head(&server);
        reset(server);
        if again {
            let mut server = accept(&listener);
            assert!(read_head(&server).starts_with("GET /g "));
            server.write_all(ok).unwrap();
            assert_eq!(answer(&client).1, "ok");
            server.shutdown(Shutdown::Both).unwrap();
        } else {
            assert!(read_head(&client).starts_with("HTTP/1.1 502 "));
        }
    }
}

#[test]
fn http10_and_closing_clients_get_a_fin() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    for (request, closes) in [
        ("GET /a HTTP/1.0\r\n\r\n", true),
        ("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true),
        ("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false),
        ("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", false),
    ] {
        let mut stream = connect(proxy.addr);
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_head(&stream);
        assert_eq!(head.contains("Connection: close\r\n"), closes, "{request}");
        if closes {
            let (body, end) = read_all(&stream);
            assert_eq!((body.as_slice(), end), (&b"GET /a HTTP/1.1"[..], End::Fin), "{request}");
        }
    }
    assert_eq!(upstream.opened(), 1, "the upstream's connection is not the client's");
}
