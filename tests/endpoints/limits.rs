//! Limits of endpoints, upstreams and routes, and the queue behind them.

use crate::common::*;
use crate::rig::*;
use std::time::Instant;

/// Refused with 503 for this cause, and told when to come again.
#[track_caller]
fn assert_refused(proxy: &Proxy, client: Client, cause: &str) {
    assert_eq!((client.status(), client.field("Retry-After").is_some()), (503, true), "{}", client.head);
    // Else it would linger.
    drop(client);
    let line = end_line(proxy, cause);
    assert_eq!(field(&line, "status"), Some("503"), "{line}");
}

#[test]
fn beyond_its_endpoints_limits_an_upstream_is_full() {
    let backends = Backend::several(2);
    let proxy = Proxy::start(&config(&backends, "", "limits = { endpoint_sessions = 1 }"));
    let [first, second] = [session(&proxy), session(&proxy)];
    assert_ne!(first.backend(), second.backend());
    assert_refused(&proxy, visit(&proxy, "/", ""), "upstream-full");
    assert_eq!(backends.iter().map(Backend::requests).sum::<usize>(), 2);
    let free = second.backend();
    second.close();
    wait_upstream(&proxy, "sessions", 1);
    assert_eq!(session(&proxy).backend(), free);
}

#[test]
fn beyond_its_own_limit_an_upstream_is_full() {
    let backends = Backend::several(3);
    let proxy = Proxy::start(&config(&backends, "", "limits = { max_sessions = 2 }"));
    let held = [session(&proxy), session(&proxy)];
    assert_refused(&proxy, visit(&proxy, "/", ""), "upstream-full");
    let [first, _second] = held;
    first.close();
    wait_upstream(&proxy, "sessions", 1);
    session(&proxy);
}

#[test]
fn handshakes_under_way_have_limits_of_their_own() {
    let backends = Backend::several(2);
    backends[0].set(Mode::Stalls);
    let proxy = Proxy::start(&first_of(&backends, "", "limits = { endpoint_pending = 1 }"));
    let _waits = begin(&proxy, "/", "");
    wait_upstream(&proxy, "pending", 1);
    assert_eq!([session(&proxy).backend(), session(&proxy).backend()], [1, 1]);
    assert_eq!((backends[0].requests(), endpoint(&proxy, &backends[0])["pending"].clone()), (1, 1.into()));

    let proxy = Proxy::start(&first_of(&backends, "", "limits = { max_pending = 1 }"));
    let waits = begin(&proxy, "/", "");
    wait_upstream(&proxy, "pending", 1);
    assert_refused(&proxy, visit(&proxy, "/", ""), "upstream-full");
    // The client leaves, and its attempt with it.
    drop(waits);
    wait_upstream(&proxy, "pending", 0);
    backends[0].set(Mode::Serves);
    assert_eq!(session(&proxy).backend(), 0);
}

#[test]
fn who_waits_in_the_queue_gets_the_room_that_another_leaves() {
    let backends = Backend::several(2);
    for limit in ["endpoint_sessions = 1", "max_sessions = 2"] {
        let queue = format!("limits = {{ {limit}, queue = 1, queue_timeout = \"1m\" }}");
        let proxy = Proxy::start(&config(&backends, "", &queue));
        let [first, second] = [session(&proxy), session(&proxy)];
        let waits = begin(&proxy, "/", "");
        wait_upstream(&proxy, "queued", 1);
        assert_quiet(&waits);
        assert_refused(&proxy, visit(&proxy, "/", ""), "upstream-full");
        first.close();
        let mut served = Client::answered(waits);
        assert_eq!(served.status(), 101, "{limit}");
        served.echoes();
        wait_upstream(&proxy, "queued", 0);
        second.close();
    }
}

#[test]
fn a_place_in_the_queue_ends_with_its_time_or_its_client() {
    let backends = Backend::several(1);
    let limits = "limits = { endpoint_sessions = 1, queue = 1, queue_timeout = \"400ms\" }";
    let proxy = Proxy::start(&config(&backends, "", limits));
    let held = session(&proxy);
    let begun = Instant::now();
    let refused = visit(&proxy, "/", "");
    assert_due(begun, 400);
    assert_refused(&proxy, refused, "queue-timeout");
    wait_upstream(&proxy, "queued", 0);
    let leaves = begin(&proxy, "/", "");
    wait_upstream(&proxy, "queued", 1);
    drop(leaves);
    wait_upstream(&proxy, "queued", 0);
    held.close();
    wait_upstream(&proxy, "sessions", 0);
    session(&proxy);
    assert_eq!(backends[0].requests(), 2);
}

#[test]
fn a_route_has_a_limit_which_outlives_a_reload() {
    let backends = Backend::several(1);
    let limited = |max: usize, more: &str| {
        config(&backends, &format!("name = \"app\"\nlimits = {{ max_sessions = {max} }}\n{more}"), "")
    };
    let proxy = Proxy::start(&limited(2, ""));
    let first = session(&proxy);
    let _second = session(&proxy);
    assert_refused(&proxy, visit(&proxy, "/", ""), "max-route-sessions");
    // The route is another one after each.
    reload(&proxy, &limited(2, "timeouts = { idle = \"1m\" }"));
    assert_eq!(visit(&proxy, "/", "").status(), 503);
    reload(&proxy, &limited(3, "timeouts = { idle = \"1m\" }"));
    let third = session(&proxy);
    assert_eq!(visit(&proxy, "/", "").status(), 503);
    reload(&proxy, &limited(1, ""));
    third.close();
    first.close();
    wait_upstream(&proxy, "sessions", 1);
    assert_eq!(visit(&proxy, "/", "").status(), 503, "one is left, and may be");
    assert_eq!(backends[0].requests(), 3);
}
