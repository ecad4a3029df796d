//! Endpoints of an upstream over real sockets: round robin, and the next attempt after a failed
//! connect.

mod common;

use common::{Proxy, accept, connect, listen, read_all, read_head, request, switching};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn group(endpoints: &[String], more: &str) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"g\"\n\
         [[upstream]]\nname = \"g\"\nendpoints = {endpoints:?}\n{more}\n"
    ))
}

fn url(addr: SocketAddr) -> String {
    format!("ws://{addr}")
}

/// An address that refuses connections: bound, so that no other process gets it, and not listening.
fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// An address where a connect hangs: its queue is full, and the kernel drops further SYNs.
fn silent() -> (Socket, SocketAddr, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 64, "a queue of none never fills");
    }
    (socket, addr, held)
}

fn begin(proxy: &Proxy) -> TcpStream {
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    client
}

/// Completes the handshake of `client` at `listener`.
fn answer(listener: &TcpListener, client: &TcpStream) -> TcpStream {
    let mut upstream = accept(listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(client).starts_with("HTTP/1.1 101 "));
    upstream
}

fn status(client: &TcpStream) -> String {
    let answer = String::from_utf8(read_all(client).0).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn endpoints_take_turns() {
    let backends: Vec<_> = (0..3).map(|_| listen()).collect();
    let proxy = group(&backends.iter().map(|(_, addr)| url(*addr)).collect::<Vec<_>>(), "");
    let mut open = Vec::new();
    for _ in 0..3 {
        // The first endpoint of a worker is random, the order after it is not.
        let clients: Vec<_> = (0..3).map(|_| begin(&proxy)).collect();
        for (listener, _) in &backends {
            let mut upstream = accept(listener);
            read_head(&upstream);
            upstream.write_all(switching("").as_bytes()).unwrap();
            open.push(upstream);
        }
        for client in clients {
            assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
        }
    }
}

#[test]
fn next_endpoint_is_tried_after_a_refused_connect() {
    let ((_held, dead), (listener, addr)) = (refusing(), listen());
    let proxy = group(&[url(dead), url(addr)], "");
    for _ in 0..4 {
        answer(&listener, &begin(&proxy));
    }
}

#[test]
fn next_endpoint_is_tried_after_a_connect_timeout() {
    let ((_socket, dead, _held), (listener, addr)) = (silent(), listen());
    let proxy = group(&[url(dead), url(addr)], "[timeouts]\nconnect = \"200ms\"");
    for _ in 0..4 {
        answer(&listener, &begin(&proxy));
    }
}

#[test]
fn all_refused_gives_502_and_all_silent_504() {
    let ((_one, first), (_two, second)) = (refusing(), refusing());
    let proxy = group(&[url(first), url(second)], "");
    assert_eq!(status(&begin(&proxy)), "502");
    proxy.log.wait_for("cause=connect-refused status=502");
    let (_socket, dead, _held) = silent();
    let proxy = group(&[url(dead), url(dead)], "[timeouts]\nconnect = \"100ms\"");
    assert_eq!(status(&begin(&proxy)), "504");
    proxy.log.wait_for("cause=connect-timeout status=504");
}

#[test]
fn connect_total_bounds_all_attempts() {
    let (_socket, dead, _held) = silent();
    let endpoints: Vec<_> = (0..50).map(|_| url(dead)).collect();
    let proxy = group(&endpoints, "[timeouts]\nconnect = \"200ms\"\nconnect_total = \"600ms\"");
    let began = Instant::now();
    assert_eq!(status(&begin(&proxy)), "504");
    assert!(began.elapsed() < Duration::from_secs(5), "50 tries of 200 ms would take 10 s");
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    let (listener, addr) = listen();
    // `localhost` may also have an IPv6 address, without a listener: the next one is tried.
    let proxy = group(&[format!("ws://localhost:{}", addr.port())], "");
    answer(&listener, &begin(&proxy));
    let proxy = group(&["ws://name.invalid:1".to_owned()], "");
    assert_eq!(status(&begin(&proxy)), "503");
    proxy.log.wait_for("cause=no-endpoint status=503");
}

#[test]
fn next_endpoint_is_tried_if_a_unix_socket_is_missing() {
    let ((listener, addr), nowhere) = (listen(), common::temp_path("sock"));
    let proxy = group(&[format!("ws+unix:{}", nowhere.display()), url(addr)], "");
    for _ in 0..2 {
        answer(&listener, &begin(&proxy));
    }
}
