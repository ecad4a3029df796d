//! The server on loopback sockets, with a clock that the tests advance.

use super::routes::{FIELDS_MAX, HEAD_MAX, handle};
use super::server::CONNS_MAX;
use super::*;
use mio::{Events, Poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FIRST: usize = 7;
const BIG: usize = 16 * 1024 * 1024;

/// An admin server on its own thread, with a clock that tests can advance.
struct Server {
    addr: SocketAddr,
    ahead_s: Arc<AtomicU64>,
    handled: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut poll = Poll::new().unwrap();
        let mut admin = Admin::new(listener, poll.registry(), FIRST).unwrap();
        let mut server = Server {
            addr: admin.local_addr().unwrap(),
            ahead_s: Arc::default(),
            handled: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (ahead_s, handled, stop) = (server.ahead_s.clone(), server.handled.clone(), server.stop.clone());
        server.thread = Some(std::thread::spawn(move || {
            let mut events = Events::with_capacity(64);
            while !stop.load(SeqCst) {
                poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
                for event in &events {
                    admin.on_event(event.token().0, &mut |request| {
                        handled.fetch_add(1, SeqCst);
                        respond(request)
                    });
                }
                admin.on_tick(Instant::now() + Duration::from_secs(ahead_s.load(SeqCst)));
                let (slots, used) = admin.slots();
                assert!(slots <= CONNS_MAX);
                assert_eq!(admin.deadline().is_some(), used > 0);
            }
        }));
        server
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.addr).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).unwrap();
        rest(&mut client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn respond(request: Request) -> Response {
    match request {
        Request::Metrics => Response { status: 200, content_type: crate::metrics::CONTENT_TYPE, body: "m 1\n".into() },
        Request::Page => Response::html("x".repeat(BIG)),
        Request::Readyz => Response::text(503, "draining"),
        other => Response::text(200, &format!("{other:?}")),
    }
}

fn rest(client: &mut Client) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

/// The connection was closed or reset.
fn is_closed(client: &mut Client) -> bool {
    match client.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn every_request_gets_its_response() {
    let server = Server::start();
    let cases = [
        ("GET /metrics HTTP/1.1", "200 OK", "m 1"),
        ("GET /metrics?a=b HTTP/1.0", "200 OK", "m 1"),
        ("GET /healthz HTTP/1.1", "200 OK", "Healthz"),
        ("GET /readyz HTTP/1.1", "503 Service Unavailable", "draining"),
        ("POST /reload HTTP/1.1", "200 OK", "Reload"),
        ("POST /fault/panic?worker=3 HTTP/1.1", "200 OK", "Panic { worker: 3 }"),
        ("POST /fault/panic?x=1&worker=0 HTTP/1.1", "200 OK", "Panic { worker: 0 }"),
        ("POST /fault/panic HTTP/1.1", "400 Bad Request", "Missing or invalid parameter: worker=N."),
        ("POST /fault/panic?worker=+1 HTTP/1.1", "400 Bad Request", "Missing or invalid parameter: worker=N."),
        ("POST /fault/panic?worker= HTTP/1.1", "400 Bad Request", "Missing or invalid parameter: worker=N."),
        ("GET /reload HTTP/1.1", "405 Method Not Allowed", "Use POST."),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed", "Use GET."),
        ("HEAD /fault/panic?worker=1 HTTP/1.1", "405 Method Not Allowed", ""),
        ("GET /metrics/ HTTP/1.1", "404 Not Found", "No such route."),
        ("GET http://a/metrics HTTP/1.1", "404 Not Found", "No such route."),
        ("GET /metrics HTTP/3.1", "400 Bad Request", "Malformed request."),
        ("\u{1}", "400 Bad Request", "Malformed request."),
    ];
    for (line, status, body) in cases {
        let response = server.ask(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {response}");
        let (head, got) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(got.trim_end(), body, "{line}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert_eq!(head.contains("\r\nAllow: "), status.starts_with("405"), "{head}");
    }
    assert_eq!(server.handled.load(SeqCst), 7);
}

#[test]
fn a_head_request_gets_the_head_only() {
    let server = Server::start();
    let response = server.ask("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(response.contains("\r\nContent-Length: 4\r\n") && response.ends_with("\r\n\r\n"), "{response}");
}

#[test]
fn a_post_from_a_browser_is_refused() {
    let server = Server::start();
    for target in ["/reload", "/fault/panic?worker=0"] {
        let response = server.ask(&format!("POST {target} HTTP/1.1\r\noRIGIN: http://evil.example\r\n\r\n"));
        assert!(response.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{response}");
    }
    assert_eq!(server.handled.load(SeqCst), 0);
}

#[test]
fn a_request_split_at_any_byte_is_the_same_request() {
    let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n";
    for cut in 0..request.len() {
        assert!(handle(&request[..cut], &mut |_| unreachable!("at {cut}")).is_none());
    }
    let whole = handle(request, &mut respond).unwrap();
    assert!(whole.starts_with(b"HTTP/1.1 200 OK\r\n"));

    let server = Server::start();
    for cut in 1..request.len() {
        let mut client = server.connect();
        client.write_all(&request[..cut]).unwrap();
        client.write_all(&request[cut..]).unwrap();
        assert_eq!(rest(&mut client).as_bytes(), whole);
    }
    let mut client = server.connect();
    for byte in request {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(rest(&mut client).as_bytes(), whole);
}

#[test]
fn large_heads_are_refused_at_any_split() {
    let field = |n: usize| format!("GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(n));
    let fits = field(HEAD_MAX - field(0).len());
    assert!(handle(fits.as_bytes(), &mut respond).unwrap().starts_with(b"HTTP/1.1 200"));
    let long = field(HEAD_MAX - field(0).len() + 1);
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
    let server = Server::start();
    for request in [long, field(60_000), many] {
        let response = server.ask(&request);
        assert!(response.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{response}");
    }
    assert_eq!(server.handled.load(SeqCst), 0);
}

#[test]
fn a_large_response_reaches_a_slow_reader() {
    let server = Server::start();
    let mut slow = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // Nothing is read yet, so the response cannot be sent completely. Another client is served
    // meanwhile.
    assert!(server.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("Healthz\n"));
    let response = rest(&mut slow);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {BIG}\r\n")));
    assert_eq!(body.len(), BIG);
}

#[test]
fn an_unexpected_body_does_not_lose_the_response() {
    let server = Server::start();
    let mut client = server.connect();
    client.write_all(b"POST /reload HTTP/1.1\r\nContent-Length: 60000\r\n\r\n").unwrap();
    client.write_all(&[b'x'; 60_000]).unwrap();
    assert!(rest(&mut client).ends_with("Reload\n"));
}

#[test]
fn the_response_reaches_a_client_that_has_half_closed() {
    let server = Server::start();
    let mut client = server.connect();
    client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut client).ends_with("Healthz\n"));
    let mut client = server.connect();
    client.write_all(b"GET /healthz HT").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "");
}

#[test]
fn slow_clients_are_closed_at_their_deadline_in_every_phase() {
    let server = Server::start();
    let mut in_head = server.connect();
    in_head.write_all(b"GET /heal").unwrap();
    let mut in_response = server.connect();
    in_response.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut in_linger = server.connect();
    in_linger.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    assert!(rest(&mut in_linger).ends_with("Healthz\n"));
    // All three were accepted before this response.
    assert!(server.ask("GET /metrics HTTP/1.1\r\n\r\n").ends_with("m 1\n"));
    server.ahead_s.store(11, SeqCst);
    assert!(is_closed(&mut in_head));
    let mut got = Vec::new();
    let _ = in_response.read_to_end(&mut got);
    assert!(got.len() < BIG, "the deadline did not end it");
    server.ahead_s.store(0, SeqCst);
    assert!(server.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("Healthz\n"));
}

#[test]
fn the_oldest_connection_is_replaced() {
    let server = Server::start();
    let mut idle: Vec<Client> = (0..CONNS_MAX).map(|_| server.connect()).collect();
    assert!(server.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("Healthz\n"));
    assert!(is_closed(&mut idle[0]));
    // The newest is still open.
    let youngest = idle.last_mut().unwrap();
    youngest.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    assert!(rest(youngest).ends_with("Healthz\n"));
}
