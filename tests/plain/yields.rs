//! Clients that are idle between two requests leave when sessions need their places.

use super::common::*;
use super::recorder::*;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

fn start(upstream: SocketAddr, workers: usize, max_sessions: usize, more: &str) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = {workers}\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\n{more}\n[limits]\nmax_sessions = {max_sessions}\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"http://{upstream}\"\n"
    ))
}

/// A client that has been answered.
fn idle(addr: SocketAddr) -> TcpStream {
    let mut client = connect(addr);
    goes_on(&mut client);
    client
}

#[track_caller]
fn goes_on(client: &mut TcpStream) {
    assert_eq!(ask(client, &get("/a")), "GET /a HTTP/1.1");
}

#[track_caller]
fn assert_closed(client: &TcpStream) {
    assert_eq!(read_all(client), (Vec::new(), End::Fin));
}

#[test]
fn the_client_that_has_been_idle_for_longest_makes_room() {
    let upstream = Recorder::start();
    let proxy = start(upstream.addr, 1, 3, "");
    let [mut first, second, mut third] = [(); 3].map(|()| idle(proxy.addr));
    eventually("they are counted", || (proxy.metric("framegate_idle_clients") == 3.0).then_some(()));
    goes_on(&mut first);
    let mut fourth = idle(proxy.addr);
    assert_closed(&second);
    // One that has begun to ask is not idle.
    third.write_all(&get("/a").as_bytes()[..20]).unwrap();
    let mut fifth = idle(proxy.addr);
    assert_closed(&first);
    third.write_all(&get("/a").as_bytes()[20..]).unwrap();
    assert_eq!(answer(&third).1, "GET /a HTTP/1.1");
    for client in [&mut third, &mut fourth, &mut fifth] {
        goes_on(client);
    }
    eventually("they are counted", || (proxy.metric("framegate_idle_clients") == 3.0).then_some(()));
    eventually("two were closed", || (proxy.metric("framegate_idle_clients_closed_total") == 2.0).then_some(()));
}

#[test]
fn what_is_under_way_makes_no_room() {
    let (listener, addr) = listen();
    let proxy = start(addr, 1, 2, "");
    let (session, _upstream) = open(&proxy, &listener);
    let mut waiting = connect(proxy.addr);
    waiting.write_all(get("/poll").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    for request in [get("/more"), request("/ws", "")] {
        let mut client = connect(proxy.addr);
        client.write_all(request.as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 503 "));
    }
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert_eq!(answer(&waiting).1, "ok");
    // A WebSocket takes the place of a client that is idle, as another request does.
    let (other, _upstream) = open(&proxy, &listener);
    assert_closed(&waiting);
    assert_quiet(&session);
    assert_quiet(&other);
}

#[test]
fn a_listener_has_its_places_back_from_its_own_clients() {
    let upstream = Recorder::start();
    let second = "limits = { max_sessions = 2 }\n[[listener]]\nlisten = \"127.0.0.2:0\"";
    let proxy = start(upstream.addr, 1, 100, second);
    let listening = |line: &str| line.split_once("listening on ")?.1.parse().ok();
    let other = proxy.said.wait("the other", |line| listening(line).filter(|addr: &SocketAddr| *addr != proxy.addr));
    let mut elsewhere = idle(other);
    let [first, mut second] = [(); 2].map(|()| idle(proxy.addr));
    let mut third = idle(proxy.addr);
    assert_closed(&first);
    for client in [&mut elsewhere, &mut second, &mut third] {
        goes_on(client);
    }
}

#[test]
fn clients_of_another_worker_make_room() {
    const MAX: usize = 8;
    let upstream = Recorder::start();
    let proxy = start(upstream.addr, 2, MAX, "");
    let mut clients: Vec<_> = (0..MAX).map(|_| idle(proxy.addr)).collect();
    // Whichever worker accepts them.
    for _ in 0..40 {
        clients.push(idle(proxy.addr));
    }
    let counted = || proxy.metric("framegate_idle_clients");
    eventually("no more than there are places", || (counted() == MAX as f64).then_some(()));
    clients.drain(..MAX + 40 - 4);
    // Sessions take all of them.
    let (mut asking, mut servers) = (Vec::new(), Vec::new());
    let (listener, addr) = listen();
    let proxy = start(addr, 2, MAX, "");
    let answered = |client: &TcpStream, mut server: &TcpStream| {
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        assert_eq!(answer(client).1, "ok");
    };
    for _ in 0..2 * MAX {
        let mut client = connect(proxy.addr);
        client.write_all(get("/a").as_bytes()).unwrap();
        let server = accept(&listener);
        read_head(&server);
        answered(&client, &server);
        asking.push(client);
    }
    for _ in 0..MAX {
        let mut client = connect(proxy.addr);
        client.write_all(get("/wait").as_bytes()).unwrap();
        let server = accept(&listener);
        read_head(&server);
        servers.push((client, server));
    }
    eventually("no client is idle", || (proxy.metric("framegate_idle_clients") == 0.0).then_some(()));
    let mut more = connect(proxy.addr);
    more.write_all(get("/more").as_bytes()).unwrap();
    assert!(read_head(&more).starts_with("HTTP/1.1 503 "));
    asking.iter().for_each(assert_closed);
}
