//! Questions that policy asks before it admits a request, through real sockets: calls of our own
//! to an HTTP server, and service threads. Whatever comes of a question, its session ends as
//! specified, and nothing of it is left.

mod common;
#[path = "calls/rig.rs"]
mod rig;
#[path = "calls/services.rs"]
mod services;

use common::*;
use framegate::proto::end::{Cause, Party, Phase};
use framegate::worker::inbox::Command;
use rig::*;
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than any test: the callee's answer is what decides.
const PATIENT_MS: u64 = 60_000;

fn rig_asking(callee: &Callee) -> Rig {
    Plan::asking(vec![callee.check("/auth", PATIENT_MS)], "").start()
}

/// What a callee does with its connection behind its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Keeps,
    Fin,
    Rst,
}

/// Sends `answer` in pieces of `piece` bytes; each leaves as a segment of its own.
fn answer(mut stream: TcpStream, answer: &str, piece: usize, then: Then) -> Option<TcpStream> {
    for bytes in answer.as_bytes().chunks(piece) {
        // The proxy may have heard enough.
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
    match then {
        Then::Keeps => return Some(stream),
        Then::Fin => drop(stream.shutdown(Shutdown::Write)),
        Then::Rst => reset(stream),
    }
    None
}

const ADMITTING: &[(&str, Then)] = &[
    ("HTTP/1.1 204 No Content\r\n\r\n", Then::Keeps),
    ("HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n", Then::Fin),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Keeps),
    ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 10\r\n\r\n0123456789", Then::Keeps),
    ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789", Then::Fin),
    ("HTTP/1.1 299 Odd\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Then::Keeps),
    ("HTTP/1.1 200 OK\r\n\r\nuntil the end", Then::Fin),
    ("HTTP/1.0 200 OK\r\n\r\n", Then::Fin),
    ("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Then::Keeps),
];

const DENYING: &[(&str, Then)] = &[
    ("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno", Then::Keeps),
    ("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", Then::Fin),
    ("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", Then::Keeps),
    ("HTTP/1.1 300 Choices\r\nContent-Length: 0\r\n\r\n", Then::Keeps),
    ("HTTP/1.1 500 Broken\r\nConnection: close\r\n\r\nuntil the end", Then::Fin),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", Then::Keeps),
];

/// Answers that are none.
const INVALID: &[(&str, Then)] = &[
    ("", Then::Fin),
    ("", Then::Rst),
    ("HTTP/1.1 200", Then::Fin),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", Then::Fin),
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012345678", Then::Fin),
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012345678", Then::Rst),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Then::Fin),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", Then::Keeps),
    ("HTTP/1.1 200 OK\r\n\r\nuntil the end", Then::Rst),
    ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", Then::Keeps),
    ("HTTP/1.1 103 Early Hints\r\n\r\n", Then::Fin),
    ("SSH-2.0-server\r\n\r\n", Then::Keeps),
    ("\0\0\0\0\r\n\r\n", Then::Keeps),
];

/// A call has no client: where its upstream gets PROXY headers, its own says so.
#[test]
fn a_call_to_an_upstream_with_headers_begins_with_one() {
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        let callee = Callee::start_with(&format!("proxy_protocol = \"{version}\"\n"));
        let rig = rig_asking(&callee);
        let mut client = rig.request("/chat");
        let call = accept(&callee.listener);
        assert_eq!(read_exact(&call, header.len()), header);
        assert_eq!(read_head(&call), "GET /auth HTTP/1.1\r\nHost: auth\r\n\r\n");
        answer(call, ADMITTING[0].0, usize::MAX, Then::Fin);
        rig.admits(&mut client);
    }
}

#[test]
fn a_2xx_admits_however_it_is_framed_and_cut() {
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    for (text, then) in ADMITTING {
        for piece in [1, 7, usize::MAX] {
            let mut client = rig.request("/chat");
            let (call, head) = callee.call();
            assert_eq!(head, "GET /auth HTTP/1.1\r\nHost: auth\r\n\r\n");
            assert_eq!(callee.calls(), 1);
            rig.reached_no_upstream();
            let kept = answer(call, text, piece, *then);
            let upstream = rig.admits(&mut client);
            // The connection of a call is not used again, whatever the callee would allow.
            if let Some(call) = kept {
                assert_eq!(read_all(&call).0, b"", "{text:?}");
            }
            assert_eq!(callee.calls(), 0);
            drop((client, upstream));
        }
    }
    rig.gives_all_permits_back();
    rig.stop();
}

#[test]
fn any_other_status_denies() {
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    for (text, then) in DENYING {
        for piece in [1, usize::MAX] {
            let client = rig.request("/chat");
            let kept = answer(callee.call().0, text, piece, *then);
            rig.refuses(client, FORBIDDEN);
            drop(kept);
        }
    }
    callee.has_no_calls();
    rig.stop();
}

#[test]
fn no_valid_answer_fails_closed_at_once() {
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    for (text, then) in INVALID {
        for piece in [3, usize::MAX] {
            let begun = Instant::now();
            let client = rig.request("/chat");
            let kept = answer(callee.call().0, text, piece, *then);
            rig.refuses(client, BROKEN);
            assert!(begun.elapsed() < AT_ONCE, "{text:?} took {:?}", begun.elapsed());
            drop(kept);
        }
    }
    callee.has_no_calls();
    rig.stop();
}

#[test]
fn an_answer_is_bounded() {
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    for text in [
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(17_000)),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000)),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(70_000)),
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(700),
    ] {
        let client = rig.request("/chat");
        let kept = answer(callee.call().0, &text, usize::MAX, Then::Keeps);
        rig.refuses(client, BROKEN);
        drop(kept);
    }
    rig.stop();
}

/// The call's own timeout, and that of the decision where the call would wait longer.
#[test]
fn a_callee_that_hangs_fails_closed_at_the_deadline() {
    for (timeout_ms, more) in [(400, ""), (PATIENT_MS, "decision = \"400ms\"")] {
        for text in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234"] {
            let callee = Callee::start();
            let rig = Plan::asking(vec![callee.check("/auth", timeout_ms)], more).start();
            let begun = Instant::now();
            let client = rig.request("/chat");
            let call = answer(callee.call().0, text, usize::MAX, Then::Keeps).unwrap();
            assert!(read_head(&client).starts_with("HTTP/1.1 504 "));
            assert_due(begun, 400);
            // The call has been given up; it does not wait for the refused client to leave.
            assert_eq!(callee.calls(), 0);
            assert_eq!(read_all(&call).0, b"");
            drop(client);
            assert_eq!(rig.verdict(), UNANSWERED);
            rig.reached_no_upstream();
            rig.stop();
        }
    }
}

/// An address that refuses connections: nothing listens there any more.
fn refusing() -> SocketAddr {
    listen().1
}

#[test]
fn the_next_endpoint_is_asked_where_one_cannot_be_reached() {
    let callee = Callee::start();
    let addr = callee.listener.local_addr().unwrap();
    let upstream = upstream_of(&[refusing(), addr]);
    let rig = Plan::asking(vec![check(&upstream, "/auth", PATIENT_MS)], "").start();
    for _ in 0..4 {
        let mut client = rig.request("/chat");
        answer(callee.call().0, "HTTP/1.1 204 No Content\r\n\r\n", usize::MAX, Then::Fin);
        rig.admits(&mut client);
    }
    rig.stop();
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

#[test]
fn the_next_endpoint_is_asked_where_one_is_silent() {
    let callee = Callee::start();
    let (_full, addr, _held) = silent();
    let upstream = upstream_of(&[addr, callee.listener.local_addr().unwrap()]);
    let rig = Plan::asking(vec![check(&upstream, "/auth", PATIENT_MS)], "").start();
    upstream.restart(0);
    let begun = Instant::now();
    let mut client = rig.request("/chat");
    answer(callee.call().0, "HTTP/1.1 204 No Content\r\n\r\n", usize::MAX, Then::Fin);
    assert_due(begun, CONNECT_MS);
    rig.admits(&mut client);
    rig.stop();

    let upstream = upstream_of(&[addr]);
    let rig = Plan::asking(vec![check(&upstream, "/auth", PATIENT_MS)], "").start();
    let begun = Instant::now();
    rig.refuses(rig.request("/chat"), UNANSWERED);
    assert_due(begun, CONNECT_MS);
    rig.stop();
}

#[test]
fn a_callee_that_cannot_be_reached_fails_closed_at_once() {
    let upstream = upstream_of(&[refusing(), refusing()]);
    let rig = Plan::asking(vec![check(&upstream, "/auth", PATIENT_MS)], "").start();
    rig.refuses_at_once("/chat", UNANSWERED);
    assert_eq!(upstream.endpoints().iter().map(|e| e.sessions()).sum::<usize>(), 0);
    rig.stop();
}

#[test]
fn a_client_that_leaves_takes_its_call_with_it() {
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    for rst in [false, true] {
        for begun in ["", "HTTP/1.1 204 No"] {
            let client = rig.request("/chat");
            let call = answer(callee.call().0, begun, usize::MAX, Then::Keeps).unwrap();
            assert_eq!((callee.calls(), rig.taken()), (1, [0, 1]));
            if rst {
                reset(client);
            } else {
                drop(client);
            }
            assert_eq!(read_all(&call).0, b"", "the call ends");
            let (party, phase, cause, status) = rig.verdict();
            assert_eq!((party, phase, status), (Party::Downstream, Phase::Request, 0));
            assert!(matches!(cause, Cause::Eof | Cause::Reset), "{cause:?}");
            callee.has_no_calls();
            rig.gives_all_permits_back();
        }
    }
    rig.reached_no_upstream();
    rig.stop();
}

/// Every answer is for the session that asked, in whatever order they come.
#[test]
fn concurrent_calls_do_not_mix() {
    const SESSIONS: usize = 60;
    let callee = Callee::start();
    let mut plan = Plan::new(&["/yes", "/no"], "");
    plan.snapshot.routes = with_checks(&plan.snapshot.routes, |name| vec![callee.check(name, PATIENT_MS)]);
    let rig = plan.start();
    let wanted = |n: usize| if n.is_multiple_of(3) { "/yes" } else { "/no" };
    let clients: Vec<_> = (0..SESSIONS).map(|n| (wanted(n), rig.request(wanted(n)))).collect();
    let mut calls: Vec<_> = (0..SESSIONS).map(|_| callee.call()).collect();
    assert_eq!(callee.calls(), SESSIONS);
    let last = calls.split_off(SESSIONS / 2);
    for (call, head) in calls.into_iter().rev().chain(last) {
        let status = if head.starts_with("GET /yes ") { "204 Yes" } else { "403 No" };
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        answer(call, &text, 5, Then::Fin);
    }
    // Upstreams are reached in the order of the answers, not of the clients.
    let admitted = (0..SESSIONS).filter(|n| wanted(*n) == "/yes").count();
    let upstreams: Vec<_> = (0..admitted).map(|_| accept(&rig.upstream)).collect();
    for mut upstream in &upstreams {
        assert!(read_head(upstream).starts_with("GET /yes "));
        upstream.write_all(switching("").as_bytes()).unwrap();
    }
    for (path, client) in clients {
        let status = if path == "/yes" { "HTTP/1.1 101 " } else { "HTTP/1.1 403 " };
        let head = read_head(&client);
        assert!(head.starts_with(status), "{path}: {head}");
    }
    rig.reached_no_upstream();
    drop(upstreams);
    callee.has_no_calls();
    rig.gives_all_permits_back();
    rig.stop();
}

/// `CALLS_MAX` of `memory.rs`.
const CALLS_MAX: usize = 1024;

#[test]
fn above_the_limit_a_call_is_refused_at_once_and_room_is_used_again() {
    framegate::os::raise_nofile().unwrap();
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    let mut held: Vec<_> = (0..CALLS_MAX).map(|_| (rig.request("/chat"), callee.call().0)).collect();
    assert_eq!(callee.calls(), CALLS_MAX);
    rig.refuses_at_once("/chat", BUSY);
    assert_eq!(callee.calls(), CALLS_MAX);
    drop(held.pop());
    rig.verdict();
    let mut client = rig.request("/chat");
    answer(callee.call().0, "HTTP/1.1 204 No Content\r\n\r\n", usize::MAX, Then::Fin);
    rig.admits(&mut client);
    drop(held);
    callee.has_no_calls();
    rig.stop();
}

#[test]
fn stopping_abandons_calls_and_draining_answers_them() {
    let callee = Callee::start();
    let rig = rig_asking(&callee);
    let client = rig.request("/chat");
    let (call, _) = callee.call();
    rig.outbox.send(Command::Drain { spread_ms: 0 });
    answer(call, "HTTP/1.1 204 No Content\r\n\r\n", usize::MAX, Then::Fin);
    rig.refuses(client, (Party::Proxy, Phase::Request, Cause::Draining, 503));
    callee.has_no_calls();

    let rig = rig_asking(&callee);
    let client = rig.request("/chat");
    let (call, _) = callee.call();
    rig.stop();
    assert_eq!((read_all(&call).0, read_all(&client).0), (Vec::new(), Vec::new()));
    callee.has_no_calls();
}

/// An answer counts for the check that was asked, not for one that a reload has put in its place.
#[test]
fn a_reload_while_a_call_is_under_way_makes_the_new_checks() {
    let (callee, other) = (Callee::start(), Callee::start());
    let rig = rig_asking(&callee);
    let client = rig.request("/chat");
    let (call, _) = callee.call();
    let mut fresh = Plan::asking(vec![other.check("/new", PATIENT_MS)], "").snapshot;
    fresh.listeners.clear();
    let (snapshot, tls) = (Arc::new(fresh), Arc::default());
    rig.outbox.send(Command::Swap { snapshot, tls, added: Vec::new(), removed: Vec::new() });
    answer(call, "HTTP/1.1 204 No Content\r\n\r\n", usize::MAX, Then::Fin);
    let (call, head) = other.call();
    assert!(head.starts_with("GET /new "));
    answer(call, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", usize::MAX, Then::Fin);
    rig.refuses(client, FORBIDDEN);
    rig.stop();
}
