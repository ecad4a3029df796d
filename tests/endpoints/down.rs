//! Sessions of an endpoint that goes down: kept, closed, or closed one after the other.

use crate::common::*;
use crate::rig::*;
use std::io::Write;
use std::time::{Duration, Instant};

/// Four sessions, two on each backend.
fn four(proxy: &Proxy) -> (Vec<Client>, Vec<Client>) {
    let clients = (0..4).map(|_| session(proxy));
    let (first, second): (Vec<_>, Vec<_>) = clients.partition(|client| client.backend() == 0);
    assert_eq!((first.len(), second.len()), (2, 2));
    (first, second)
}

/// The proxy closes the session for its endpoint, and says so.
#[track_caller]
fn assert_closed(proxy: &Proxy, client: &Client, code: u16, backend: &Backend) {
    assert_eq!(read_close(&client.stream), (code, "endpoint down".to_owned()));
    (&client.stream).write_all(&masked(0x88, &close_payload(code, ""))).unwrap();
    let line = end_line(proxy, "endpoint-down");
    let fields = ["ended_by", "phase", "upstream"].map(|name| field(&line, name));
    assert_eq!(fields, [Some("proxy"), Some("open"), Some(backend.url().as_str())], "{line}");
}

#[test]
fn sessions_stay_unless_the_route_says_otherwise() {
    for route in ["", "on_endpoint_down = \"keep\""] {
        let backends = Backend::several(2);
        let proxy = Proxy::start(&config(&backends, route, ""));
        let (mut first, mut second) = four(&proxy);
        order(&proxy, &backends[0], "down");
        assert_eq!([session(&proxy).backend(), session(&proxy).backend()], [1, 1]);
        first.iter_mut().chain(&mut second).for_each(Client::echoes);
        reload(&proxy, &config(&backends[1..], route, ""));
        first.iter_mut().chain(&mut second).for_each(Client::echoes);
        let gone = endpoint(&proxy, &backends[0]);
        assert_eq!((gone["state"].as_str(), gone["sessions"].as_u64()), (Some("removed"), Some(2)));
        first.into_iter().for_each(Client::close);
        eventually("it is forgotten", || (upstream(&proxy)["endpoints"].as_array().unwrap().len() == 1).then_some(()));
    }
}

#[test]
fn sessions_are_closed_and_others_are_not() {
    for (order_word, route, code) in [
        ("down", "on_endpoint_down = \"close\"", 1012),
        ("drain", "on_endpoint_down = \"close\"\non_endpoint_down_code = 4321", 4321),
    ] {
        let backends = Backend::several(2);
        let mut proxy = Proxy::start(&config(&backends, route, ""));
        let (first, mut second) = four(&proxy);
        order(&proxy, &backends[0], order_word);
        first.iter().for_each(|client| assert_closed(&proxy, client, code, &backends[0]));
        second.iter_mut().for_each(Client::echoes);
        second.into_iter().for_each(Client::close);
        drop(first);
        wait_upstream(&proxy, "sessions", 0);
        let log = proxy.stop();
        let down = log.iter().filter(|line| line.contains("cause=endpoint-down")).count();
        assert_eq!(down, 2, "{log:#?}");
    }
}

#[test]
fn sessions_of_an_endpoint_that_a_reload_removes_are_closed() {
    let backends = Backend::several(2);
    let route = "on_endpoint_down = \"close\"";
    let proxy = Proxy::start(&config(&backends, route, ""));
    let (first, mut second) = four(&proxy);
    reload(&proxy, &config(&backends[1..], route, ""));
    first.iter().for_each(|client| assert_closed(&proxy, client, 1012, &backends[0]));
    second.iter_mut().for_each(Client::echoes);
}

#[test]
fn sessions_of_an_endpoint_whose_checks_fail_are_closed() {
    let mut backends = Backend::several(2);
    let route = "on_endpoint_down = \"close\"";
    let check = "[upstream.health]\ntype = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 1";
    let proxy = Proxy::start(&config(&backends, route, check));
    let (first, mut second) = four(&proxy);
    // Its port refuses; its sessions live on.
    backends[0].stop();
    first.iter().for_each(|client| assert_closed(&proxy, client, 1012, &backends[0]));
    assert_eq!(endpoint(&proxy, &backends[0])["state"], "down");
    second.iter_mut().for_each(Client::echoes);
}

#[test]
fn sessions_are_closed_one_after_the_other() {
    let backends = Backend::several(2);
    let proxy = Proxy::start(&config(&backends, "on_endpoint_down = \"1s\"", ""));
    let mut clients: Vec<_> = (0..8).map(|_| session(&proxy)).collect();
    let mut others = clients.split_off(0);
    let (first, kept): (Vec<_>, Vec<_>) = others.drain(..).partition(|client| client.backend() == 0);
    let begun = Instant::now();
    order(&proxy, &backends[0], "drain");
    let ends: Vec<_> = std::thread::scope(|scope| {
        let ends = first.iter().map(|client| {
            scope.spawn(move || {
                assert_eq!(read_close(&client.stream).0, 1012);
                begun.elapsed()
            })
        });
        ends.collect::<Vec<_>>().into_iter().map(|end| end.join().unwrap()).collect()
    });
    let (soonest, latest) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    // Four sessions: at once, and after a quarter, a half and three quarters of the time.
    assert!(*latest - *soonest >= Duration::from_millis(600), "{ends:?}");
    assert!(*latest < Duration::from_secs(4), "{ends:?}");
    kept.into_iter().for_each(Client::close);
}

/// A handshake that is under way goes elsewhere, or ends, and nothing is left behind.
#[test]
fn a_handshake_with_an_endpoint_that_goes_down_ends() {
    let backends = Backend::several(2);
    backends[0].set(Mode::Stalls);
    let route = "on_endpoint_down = \"close\"\nretry_on = [\"timeout\"]\ntimeouts = { upstream_head = \"500ms\" }";
    let proxy = Proxy::start(&first_of(&backends, route, ""));
    let waits = begin(&proxy, "/", "");
    wait_upstream(&proxy, "pending", 1);
    order(&proxy, &backends[0], "down");
    let mut client = Client::answered(waits);
    assert_eq!((client.status(), client.backend()), (101, 1));
    client.echoes();
    wait_upstream(&proxy, "sessions", 1);
}
