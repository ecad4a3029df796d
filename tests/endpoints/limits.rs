//! Limits of endpoints, upstreams and routes, and the queue behind them.

use crate::common::*;
use crate::rig::*;
use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::{Duration, Instant};

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

/// How long it took from before a session was closed until the one that waits had its response.
fn handed_on(held: Client, waits: TcpStream) -> (Duration, Client) {
    let begun = Instant::now();
    held.close();
    let served = Client::answered(waits);
    assert_eq!(served.status(), 101, "{}", served.head);
    (begun.elapsed(), served)
}

/// The times in which one session of an upstream gets the room of another one, in order.
fn times_to_hand_on(workers: usize, limit: &str) -> Vec<Duration> {
    const ROUNDS: usize = 20;
    let backends = Backend::several(1);
    let rules = format!("limits = {{ {limit} = 1, queue = 1, queue_timeout = \"1m\" }}");
    let workers = format!("count = {workers}");
    let proxy = Proxy::start(&config(&backends, "", &rules).replace("count = 1", &workers));
    let mut held = session(&proxy);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let waits = begin(&proxy, "/", "");
        wait_upstream(&proxy, "queued", 1);
        let (time, served) = handed_on(held, waits);
        times.push(time);
        held = served;
    }
    times.sort_unstable();
    times
}

/// Waiting sessions ask every 100 ms in any case. Here they begin to wait just before room is left,
/// so that would take nearly as long.
const NOT_THE_TIMER: Duration = Duration::from_millis(50);

#[test]
fn room_that_is_left_is_given_to_a_waiting_session_at_once() {
    for limit in ["endpoint_sessions", "max_sessions"] {
        let times = times_to_hand_on(1, limit);
        assert!(times[times.len() / 2] < NOT_THE_TIMER, "{limit}: {times:?}");
    }
}

/// In half of the rounds another worker has the session that waits.
#[test]
fn room_that_is_left_is_given_to_sessions_of_other_workers_at_once() {
    let times = times_to_hand_on(2, "max_sessions");
    assert!(times[times.len() * 4 / 5] < NOT_THE_TIMER, "{times:?}");
}

#[test]
fn who_came_first_is_served_first() {
    const WAITING: usize = 5;
    let backends = Backend::several(1);
    let rules = format!("limits = {{ endpoint_sessions = 1, queue = {WAITING}, queue_timeout = \"1m\" }}");
    let proxy = Proxy::start(&config(&backends, "", &rules));
    let mut held = session(&proxy);
    let mut line: VecDeque<_> = (1..=WAITING)
        .map(|queued| {
            let waits = begin(&proxy, "/", "");
            wait_upstream(&proxy, "queued", queued as u64);
            waits
        })
        .collect();
    // One in the middle leaves.
    drop(line.remove(2));
    wait_upstream(&proxy, "queued", WAITING as u64 - 1);
    while let Some(first) = line.pop_front() {
        held = handed_on(held, first).1;
        line.iter().for_each(assert_quiet);
    }
    held.echoes();
}

#[test]
fn a_handshake_that_ends_leaves_its_room_to_a_waiting_session() {
    let backends = Backend::several(1);
    backends[0].set(Mode::Stalls);
    let rules = "limits = { max_pending = 1, queue = 1, queue_timeout = \"1m\" }";
    let proxy = Proxy::start(&config(&backends, "", rules));
    let stalls = begin(&proxy, "/", "");
    wait_upstream(&proxy, "pending", 1);
    let waits = begin(&proxy, "/", "");
    wait_upstream(&proxy, "queued", 1);
    backends[0].set(Mode::Serves);
    drop(stalls);
    assert_eq!(Client::answered(waits).status(), 101);
    assert_eq!(backends[0].requests(), 2);
}

#[test]
fn a_refused_client_that_lingers_has_left_the_queue() {
    let backends = Backend::several(1);
    let rules = "limits = { endpoint_sessions = 1, queue = 1, queue_timeout = \"1s\" }";
    let proxy = Proxy::start(&config(&backends, "", rules));
    let held = session(&proxy);
    let lingers = visit(&proxy, "/", "");
    assert_eq!(lingers.status(), 503);
    let waits = begin(&proxy, "/", "");
    wait_upstream(&proxy, "queued", 1);
    handed_on(held, waits);
    drop(lingers);
}
