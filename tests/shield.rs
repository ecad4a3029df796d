//! Floods of handshakes through real sockets: who comes first, who has to go, whose address is
//! blocked, and that sessions go on. Order is counted, not time: the proxy is stopped while clients
//! come, so that it finds all of them at once.

mod common;

#[path = "shield/block.rs"]
mod block;
#[path = "shield/flood.rs"]
mod flood;
#[path = "shield/secured.rs"]
mod secured;

use common::{End, Proxy, accept, connect_from, eventually, listen, read_all, read_head, request, switching};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Clients that have sent all but the end of their request, which has these fields. The proxy has
/// read that.
fn almost(proxy: &Proxy, host: u8, clients: usize, more: &str) -> Vec<TcpStream> {
    let before = proxy.metric("framegate_connections_accepted_total");
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = connect_from([127, 0, 0, host], proxy.addr);
            client.write_all(request("/", more).trim_end().as_bytes()).unwrap();
            client
        })
        .collect();
    let accepted = || proxy.metric("framegate_connections_accepted_total") - before;
    eventually("they are accepted", || (accepted() == clients.len() as f64).then_some(()));
    clients
}

/// Stops the proxy. The signal alone does not say that all its threads have stopped.
fn pause(proxy: &Proxy) {
    proxy.signal("STOP");
    let is_stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
    };
    eventually("it has stopped", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
        tasks.map(Result::unwrap).all(is_stopped).then_some(())
    });
}

/// The requests of these clients are complete, all at one moment for the proxy.
fn complete_at_once<'c>(proxy: &Proxy, clients: impl IntoIterator<Item = &'c TcpStream>) {
    pause(proxy);
    for mut client in clients {
        client.write_all(b"\r\n\r\n").unwrap();
    }
    proxy.signal("CONT");
}

/// The hosts of the clients whose requests come here, in order.
fn hosts(listener: &TcpListener, number: usize) -> Vec<String> {
    let host = |upstream: TcpStream| {
        let head = read_head(&upstream);
        head.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: 127.0.0.").map(str::to_owned)).unwrap()
    };
    (0..number).map(|_| host(accept(listener))).collect()
}

/// A listener for floods: the usual one has a queue of 128, and connects beyond that come late.
fn listen_for_many() -> (TcpListener, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(1024).unwrap();
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// The place of the first of these hosts. By chance a prefix may share the lane of the flood, but
/// not two of them.
fn place_of(order: &[String], hosts: [&str; 2]) -> usize {
    order.iter().position(|host| hosts.contains(&host.as_str())).unwrap()
}

fn shield(keys: &str) -> String {
    format!("[limits]\nmax_handshakes = 4000\n[shield]\n{keys}\n[log]\naccess = \"stdout\"")
}

#[test]
fn a_flood_from_one_prefix_delays_another_client_by_one_request() {
    let (listener, addr) = listen_for_many();
    let proxy = Proxy::alone_before(addr, &shield("work = 1"));
    let flood = almost(&proxy, 2, 300, "");
    let others = [almost(&proxy, 3, 1, ""), almost(&proxy, 4, 1, "")];
    complete_at_once(&proxy, flood.iter().chain(others.iter().flatten()));
    let order = hosts(&listener, 302);
    let place = place_of(&order, ["3", "4"]);
    // One is decided before there is a queue, then a visit serves four of the flood at most.
    assert!(place <= 6, "{place} before it");
    assert_eq!(order.iter().filter(|host| *host == "2").count(), 300, "nobody starves");
}

#[test]
fn a_newcomer_is_served_while_a_flood_waits() {
    let (listener, addr) = listen_for_many();
    let proxy = Proxy::alone_before(addr, &shield("work = 1\nipv4_prefix = 32"));
    let flood = almost(&proxy, 2, 200, "");
    pause(&proxy);
    for mut client in &flood {
        client.write_all(b"\r\n\r\n").unwrap();
    }
    // It comes last, and has not even been accepted.
    let newcomers = [8, 9].map(|host| connect_from([127, 0, 0, host], proxy.addr));
    newcomers.iter().for_each(|mut newcomer| newcomer.write_all(request("/", "").as_bytes()).unwrap());
    proxy.signal("CONT");
    let order = hosts(&listener, 202);
    let place = place_of(&order, ["8", "9"]);
    assert!(place <= 12, "{place} before it");
}

#[test]
fn clients_of_one_prefix_share_their_place() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, &shield("work = 1\nipv4_prefix = 24"));
    let flood = almost(&proxy, 2, 60, "");
    let other = almost(&proxy, 3, 1, "");
    complete_at_once(&proxy, flood.iter().chain(&other));
    // In one lane the order is that in which poll has reported them.
    let order = hosts(&listener, 61);
    assert_eq!(order.iter().position(|host| host == "3"), Some(60), "{order:?}");
}

#[test]
fn clients_with_a_cookie_of_ours_come_before_a_flood_of_their_own_prefix() {
    let (listener, addr) = listen_for_many();
    let sticky = "[[upstream]]\nname = \"app\"\nsticky = { cookie = \"fg\", secret = \"a secret of the test\" }";
    let more = shield("work = 1\ncookies = [\"session\"]");
    let toml = common::before(addr, &format!("{more}\n{sticky}\nendpoints = [\"ws://{addr}\"]\n"));
    let proxy = Proxy::start(&toml.replace(&format!("upstream = \"ws://{addr}\""), "upstream = \"app\""));
    // What the first response sets.
    let mut first = connect_from([127, 0, 0, 2], proxy.addr);
    first.write_all(request("/", "").as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    let answer = read_head(&first);
    let cookie = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")?.split(';').next()).unwrap();
    eventually("it is counted", || (proxy.metric("framegate_connections_accepted_total") == 1.0).then_some(()));
    let marked = |mark: &str| format!("X-Mark: {mark}\r\n");
    let flood = almost(&proxy, 2, 200, &marked("flood"));
    let forged = almost(&proxy, 2, 1, &format!("Cookie: fg=00112233445566778899aabbccddeeff\r\n{}", marked("forged")));
    let known = almost(&proxy, 2, 1, &format!("Cookie: a=b; {cookie}\r\n{}", marked("known")));
    let named = almost(&proxy, 2, 1, &format!("Cookie: session=1\r\n{}", marked("named")));
    complete_at_once(&proxy, flood.iter().chain(&forged).chain(&known).chain(&named));
    let mut places = BTreeMap::new();
    for place in 0..203 {
        let head = read_head(&accept(&listener));
        let mark = head.lines().find_map(|line| line.strip_prefix("X-Mark: ").map(str::to_owned)).unwrap();
        places.insert(mark, place);
    }
    assert!(places["known"] <= 4 && places["named"] <= 4, "{places:?}");
    assert!(places["forged"] > 150, "{places:?}");
}

#[test]
fn beyond_the_queue_requests_get_503_and_come_back_at_different_times() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, &shield("work = 1\nqueue = 5\nretry_after = \"30s\""));
    let flood = almost(&proxy, 2, 60, "");
    let others = [almost(&proxy, 3, 1, ""), almost(&proxy, 4, 1, "")];
    complete_at_once(&proxy, flood.iter().chain(others.iter().flatten()));
    // One at once, five from the queue; those of the fullest lane have to go, never the other's.
    let order = hosts(&listener, 6);
    assert!(place_of(&order, ["3", "4"]) < 6, "{order:?}");
    let mut waits = BTreeMap::new();
    let refused = eventually("all but four are refused", || {
        let name = "framegate_handshakes_total{outcome=\"handshake-overload\"}";
        // They are over when they have closed, too.
        let all = flood.iter().chain(others.iter().flatten());
        all.for_each(|client| drop(client.shutdown(std::net::Shutdown::Write)));
        (proxy.metric(name) == 56.0).then_some(56)
    });
    for client in &flood {
        let (answer, end) = read_all(client);
        let answer = String::from_utf8(answer).unwrap();
        if answer.starts_with("HTTP/1.1 502 ") {
            // Its upstream has gone.
            continue;
        }
        assert_eq!(end, End::Fin);
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        let seconds = answer.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
        assert_eq!(answer.matches("Retry-After").count(), 1, "{answer}");
        *waits.entry(seconds.parse::<u64>().unwrap()).or_insert(0) += 1;
    }
    assert!(waits.values().sum::<usize>() + 1 >= refused, "{waits:?}");
    assert!(waits.keys().all(|seconds| (30..=60).contains(seconds)), "{waits:?}");
    assert!(waits.len() > 10, "56 clients are spread over {} moments", waits.len());
    proxy.log.wait_for("cause=handshake-overload status=503");
    drop(others);
}

/// Waiting is bounded, and so is what a client that has left keeps of the queue.
#[test]
fn clients_that_leave_leave_the_queue() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, &shield("work = 1\nqueue = 100"));
    for _ in 0..5 {
        let (leave, stay) = (almost(&proxy, 2, 90, ""), almost(&proxy, 3, 90, ""));
        pause(&proxy);
        leave.iter().chain(&stay).for_each(|mut client| client.write_all(b"\r\n\r\n").unwrap());
        leave.into_iter().for_each(common::reset);
        proxy.signal("CONT");
        eventually("the others are decided", || {
            let metrics = ["framegate_handshakes", "framegate_handshakes_queued"];
            (metrics.map(|name| proxy.metric(name)) == [90.0, 0.0]).then_some(())
        });
        drop(stay);
        eventually("they are over", || (proxy.metric("framegate_handshakes") == 0.0).then_some(()));
    }
    assert_eq!(proxy.metric("framegate_handshakes_total{outcome=\"handshake-overload\"}"), 0.0);
    drop(common::open(&proxy, &reopened(listener)));
}

/// The listener, without connections of clients that have left.
fn reopened(listener: TcpListener) -> TcpListener {
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    listener
}

fn raw(addr: SocketAddr, host: u8, bytes: &[u8]) -> (Vec<u8>, End) {
    let mut client = connect_from([127, 0, 0, host], addr);
    // It may be closed already.
    let _ = client.write_all(bytes);
    read_all(&client)
}
