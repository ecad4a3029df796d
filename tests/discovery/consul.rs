//! Consul: blocking queries, their index, tokens, failures.

use super::api::{Api, Call, file};
use super::common::{Proxy, eventually, http, listen, pki::PKI, shim::before_plain};
use super::{Held, config, metric, reaches, threads, until};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn discover(api: &Api, more: &str) -> String {
    config(&format!("discover = {{ consul = {{ service = \"chat\", address = \"{}\"{more} }} }}", api.url()))
}

fn entries(addresses: &[SocketAddr]) -> String {
    let entry = |addr: &SocketAddr| {
        format!(
            r#"{{"Node": {{"Node": "n", "Address": "{}"}}, "Service": {{"ID": "chat", "Service": "chat", "Address": "",
            "Port": {}, "Weights": {{"Passing": 1, "Warning": 1}}}}, "Checks": []}}"#,
            addr.ip(),
            addr.port()
        )
    };
    format!("[{}]", addresses.iter().map(entry).collect::<Vec<_>>().join(","))
}

fn answer(call: Call, index: u64, addresses: &[SocketAddr]) {
    call.answer("200 OK", &format!("X-Consul-Index: {index}\r\nX-Consul-KnownLeader: true\r\n"), &entries(addresses));
}

/// A proxy that has got its first list.
fn started(api: &Api, more: &str, index: u64, addresses: &[SocketAddr]) -> Proxy {
    let toml = discover(api, more);
    let proxy = std::thread::spawn(move || Proxy::start(&toml));
    answer(api.next(), index, addresses);
    proxy.join().unwrap()
}

#[test]
fn queries_block_on_the_index_of_the_last_answer() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let toml = discover(&api, ", wait = \"7s\"");
    let starting = std::thread::spawn(move || Proxy::start(&toml));
    let first = api.next();
    assert_eq!((first.path(), first.query("passing").as_deref()), ("/v1/health/service/chat", Some("1")));
    assert_eq!(first.query("index"), None, "the first is answered at once");
    answer(first, 10, &[a]);
    let proxy = starting.join().unwrap();
    let mut held = Held::open(&proxy, &one);
    let blocked = api.next();
    assert_eq!((blocked.query("index").as_deref(), blocked.query("wait").as_deref()), (Some("10"), Some("7000ms")));
    // The wait is over: the same index.
    answer(blocked, 10, &[b]);
    let blocked = api.next();
    assert_eq!(blocked.query("index").as_deref(), Some("10"));
    assert_eq!(metric(&proxy, "changes_total", "consul"), 1.0, "the same index has no change");
    // Another index with the same list: something else changed.
    answer(blocked, 11, &[a]);
    let blocked = api.next();
    answer(blocked, 12, &[a, b]);
    until(&proxy, "endpoints", "consul", 2.0);
    assert_eq!(metric(&proxy, "changes_total", "consul"), 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    answer(api.next(), 13, &[b]);
    until(&proxy, "changes_total", "consul", 3.0);
    reaches(&proxy, &[&two], &[&one]);
    held.still_works();
}

#[test]
fn index_that_goes_backwards_or_is_zero_starts_anew() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let proxy = started(&api, "", 1_000, &[a]);
    reaches(&proxy, &[&one], &[]);
    // Consul was restored from a snapshot.
    let blocked = api.next();
    assert_eq!(blocked.query("index").as_deref(), Some("1000"));
    answer(blocked, 5, &[b]);
    until(&proxy, "changes_total", "consul", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    let began = Instant::now();
    let anew = api.next();
    assert_eq!(anew.query("index"), None);
    answer(anew, 0, &[b]);
    let anew = api.next();
    assert_eq!(anew.query("index"), None, "an index of 0 is none");
    assert!(began.elapsed() >= Duration::from_millis(900), "queries that are not held back are paced");
    answer(anew, 6, &[b]);
    assert_eq!(api.next().query("index").as_deref(), Some("6"));
}

#[test]
fn burst_of_changes_is_applied_once() {
    let backends: Vec<_> = (0..6).map(|_| listen()).collect();
    let addresses: Vec<_> = backends.iter().map(|(_, addr)| *addr).collect();
    let api = Api::start();
    let proxy = started(&api, "", 1, &addresses[..1]);
    let mut blocked = api.next();
    let began = Instant::now();
    for n in 2..=6 {
        answer(blocked, n as u64, &addresses[..n]);
        blocked = api.next();
    }
    let burst = began.elapsed();
    until(&proxy, "endpoints", "consul", 6.0);
    let changes = metric(&proxy, "changes_total", "consul") - 1.0;
    // One, if no pause between them was long enough on this machine.
    assert!(changes == 1.0 || burst > Duration::from_millis(400), "{changes} changes in {burst:?}");
    let listeners: Vec<_> = backends.iter().map(|(listener, _)| listener).collect();
    reaches(&proxy, &listeners, &[]);
}

#[test]
fn token_tag_and_datacenter_are_sent_and_the_token_is_read_again() {
    let (_one, a) = listen();
    let api = Api::start();
    let token = file("first-secret\n");
    let more = format!(", tag = \"a/b\", datacenter = \"dc2\", token_file = {token:?}");
    let toml = discover(&api, &more);
    let starting = std::thread::spawn(move || Proxy::start(&toml));
    let call = api.next();
    assert_eq!((call.query("tag").as_deref(), call.query("dc").as_deref()), (Some("a/b"), Some("dc2")));
    assert_eq!(call.header("X-Consul-Token"), Some("first-secret"));
    answer(call, 1, &[a]);
    let proxy = starting.join().unwrap();
    let blocked = api.next();
    std::fs::write(&token, "second-secret").unwrap();
    blocked.answer("403 Forbidden", "", "Permission denied");
    let call = api.next();
    assert_eq!(call.header("X-Consul-Token"), Some("second-secret"));
    assert_eq!(call.query("index"), None, "after a failure everything is asked again");
    answer(call, 2, &[a]);
    proxy.said.wait_for("consul has recovered");
    let said = proxy.said.all().join("\n");
    assert!(said.contains("HTTP status 403") && !said.contains("secret"), "{said}");
}

#[test]
fn failures_keep_the_endpoints_and_are_counted() {
    let (one, a) = listen();
    let api = Api::start();
    let proxy = started(&api, "", 1, &[a]);
    api.next().answer("500 Internal Server Error", "", "No cluster leader");
    api.next().answer("200 OK", "X-Consul-Index: 2\r\n", "[{\"Node\": ");
    api.next().answer("200 OK", "", "[]");
    api.next().answer("302 Found", "Location: http://127.0.0.1:1/\r\n", "");
    until(&proxy, "failures_total", "consul", 4.0);
    assert!(metric(&proxy, "age_seconds", "consul") >= 1.0, "they are as old as the last success");
    reaches(&proxy, &[&one], &[]);
    let said = proxy.said.wait_for("WARN ");
    assert!(said.contains("consul fails, keeping its 1 endpoints"), "{said}");
    answer(api.next(), 3, &[]);
    until(&proxy, "failures_total", "consul", 5.0);
    reaches(&proxy, &[&one], &[]);
    answer(api.next(), 4, &[a]);
    proxy.said.wait_for("consul has recovered");
    assert_eq!(proxy.said.all().iter().filter(|line| line.contains("WARN ")).count(), 1, "one change of state");
}

#[test]
fn blocked_query_ends_with_its_source() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let mut proxy = started(&api, "", 1, &[a]);
    let blocked = api.next();
    assert_eq!(threads(&proxy), 1);
    std::fs::write(&proxy.config, config(&format!("endpoints = [\"ws://{b}\"]"))).unwrap();
    assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 200 "));
    eventually("the thread ends", || (threads(&proxy) == 0).then_some(()));
    answer(blocked, 2, &[a]);
    reaches(&proxy, &[&two], &[&one]);
    std::fs::write(&proxy.config, discover(&api, "")).unwrap();
    let admin = proxy.admin();
    let reload = std::thread::spawn(move || http(admin, "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n"));
    answer(api.next(), 1, &[a]);
    assert!(reload.join().unwrap().starts_with("HTTP/1.1 200 "));
    let _blocked = api.next();
    let began = Instant::now();
    proxy.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "a blocked query holds up the exit");
}

#[test]
fn https_is_verified_and_endpoints_can_use_tls() {
    let (one, a) = listen();
    let secure = before_plain(a);
    let api = Api::start();
    let https = format!("https://localhost:{}", before_plain(api.addr).port());
    let ca = PKI.ca();
    let toml = |ca: &std::path::Path| {
        let tls = format!("tls = {{ ca = {:?}, server_name = \"localhost\" }}\n", PKI.ca());
        let consul = format!("consul = {{ service = \"chat\", address = \"{https}\", ca = {ca:?} }}");
        config(&format!("{tls}discover = {{ {consul}, tls = true, path = \"/base\" }}"))
    };
    let text = toml(&ca);
    let starting = std::thread::spawn(move || Proxy::start(&text));
    answer(api.next(), 1, &[secure]);
    let proxy = starting.join().unwrap();
    let client = super::begin(&proxy);
    let mut upstream = super::accept(&one);
    assert!(super::read_head(&upstream).starts_with("GET /base/ HTTP/1.1\r\n"));
    std::io::Write::write_all(&mut upstream, super::switching("").as_bytes()).unwrap();
    assert!(super::read_head(&client).starts_with("HTTP/1.1 101 "));
    // Another CA: nothing is asked.
    let other = PKI.client("somebody-else");
    let proxy = Proxy::start(&toml(&other.cert));
    proxy.said.wait_for("consul fails, keeping its 0 endpoints");
    assert_eq!(super::refused(&proxy), "503");
}
