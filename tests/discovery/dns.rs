//! DNS: TTLs, SRV records, truncation, servers that fail or answer for others.

use super::common::{Proxy, eventually, listen};
use super::server::*;
use super::{Held, config, metric, reaches, refused, until};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Backends on different addresses and the same port.
fn backends() -> ((TcpListener, SocketAddr), (TcpListener, SocketAddr)) {
    loop {
        let (one, first) = listen();
        let second = SocketAddr::from(([127, 0, 0, 2], first.port()));
        if let Ok(two) = TcpListener::bind(second) {
            return ((one, first), (two, second));
        }
    }
}

fn by_name(servers: &[&Server], port: u16) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.addr.to_string()).collect();
    let dns = format!("name = \"App.internal.\", port = {port}, servers = {servers:?}, timeout = \"300ms\"");
    config(&format!("discover = {{ dns = {{ {dns} }} }}"))
}

#[test]
fn name_is_asked_again_when_its_ttl_has_passed() {
    let ((one, first), (two, second)) = backends();
    let server = Server::start(addresses(vec![a(3_000, first), a(2, first)]));
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    let mut held = Held::open(&proxy, &one);
    let began = server.asked()[0].at;
    server.script(addresses(vec![a(3_600, second)]));
    until(&proxy, "changes_total", "dns", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    held.still_works();
    let asked: Vec<_> = server.asked().into_iter().filter(|question| question.kind == A).collect();
    let after = asked[1].at.duration_since(began);
    assert_eq!(asked.len(), 2, "the second answer is good for an hour");
    assert!(after >= Duration::from_millis(1_900), "asked again after {after:?}, before the shortest TTL");
    assert!(after < Duration::from_secs(5), "asked again after {after:?}");
    assert_ne!((asked[0].id, asked[0].source_port), (asked[1].id, asked[1].source_port));
}

#[test]
fn services_have_their_ports_and_priorities() {
    let ((one, first), (two, second)) = (listen(), listen());
    let (a_port, b_port) = (first.port(), second.port());
    let local = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = Server::start(move |question| match (question.name.as_str(), question.kind) {
        ("_ws._tcp.app", SRV) => Reply::of(&[srv(60, 10, a_port, "n1.app"), srv(60, 20, b_port, "n2.app")]),
        ("n1.app" | "n2.app", A) => Reply::of(&[a(1, local)]),
        _ => Reply::of(&[]),
    });
    let dns = format!("srv = \"_ws._tcp.app\", servers = [\"{}\"]", server.addr);
    let proxy = Proxy::start(&config(&format!("discover = {{ dns = {{ {dns} }} }}")));
    assert_eq!(metric(&proxy, "endpoints", "dns"), 2.0);
    reaches(&proxy, &[&one], &[&two]);
    // The first is not there any more: RFC 2782 has the next priority for that.
    drop(one);
    reaches(&proxy, &[&two], &[]);
    // A service that is decidedly not available: it is kept as every list without endpoints is.
    server.script(|question| match question.kind {
        SRV => Reply::of(&[(60, vec![0, 0, 0, 0, 0, 0, 0])]),
        _ => Reply::of(&[]),
    });
    until(&proxy, "failures_total", "dns", 1.0);
    reaches(&proxy, &[&two], &[]);
}

#[test]
fn truncated_answer_is_asked_for_over_tcp() {
    let ((one, first), (two, second)) = backends();
    let server = Server::start(move |question| match (question.kind, question.over_tcp) {
        (A, false) => Some(Reply { truncated: true, ..Reply::of(&[a(60, first)])? }),
        (A, true) => Reply::of(&[a(60, first), a(60, second)]),
        _ => Reply::of(&[]),
    });
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    assert_eq!(metric(&proxy, "endpoints", "dns"), 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    assert!(server.asked().iter().any(|question| question.over_tcp && question.kind == A));
}

#[test]
fn next_server_is_asked_when_one_is_silent_or_fails() {
    let (one, first) = listen();
    let silent = Server::start(|_| None);
    let failing = Server::start(|_| Some(Reply { rcode: SERVFAIL, ..Reply::default() }));
    let good = Server::start(addresses(vec![a(60, first)]));
    let proxy = Proxy::start(&by_name(&[&silent, &failing, &good], first.port()));
    assert_eq!(metric(&proxy, "failures_total", "dns"), 0.0);
    reaches(&proxy, &[&one], &[]);
    assert!(!silent.asked().is_empty() && !failing.asked().is_empty());
}

#[test]
fn failures_and_missing_names_keep_the_addresses() {
    let (one, first) = listen();
    let server = Server::start(addresses(vec![a(1, first)]));
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    for (rcode, why) in [(SERVFAIL, "SERVFAIL"), (NXDOMAIN, "no endpoints")] {
        let failures = metric(&proxy, "failures_total", "dns");
        server.script(move |_| Some(Reply { rcode, ..Reply::default() }));
        proxy.said.wait_for(why);
        eventually("it fails", || (metric(&proxy, "failures_total", "dns") > failures).then_some(()));
        reaches(&proxy, &[&one], &[]);
        server.script(addresses(vec![a(1, first)]));
        eventually("it is fresh", || (metric(&proxy, "age_seconds", "dns") < 0.5).then_some(()));
    }
    assert_eq!(metric(&proxy, "changes_total", "dns"), 1.0);
}

#[test]
fn answers_of_others_are_ignored() {
    let ((one, first), (two, _)) = backends();
    let server = Server::start(move |question| match question.kind {
        A => Some(Reply { forged: Some(Ipv4Addr::new(127, 0, 0, 2)), ..Reply::of(&[a(60, first)])? }),
        _ => Reply::of(&[]),
    });
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    reaches(&proxy, &[&one], &[&two]);
}

#[test]
fn silent_servers_do_not_hold_up_the_start_for_long() {
    let silent = Server::start(|_| None);
    let began = Instant::now();
    let proxy = Proxy::start(&by_name(&[&silent], 1));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(refused(&proxy), "503");
    proxy.said.wait_for("no answer");
}
