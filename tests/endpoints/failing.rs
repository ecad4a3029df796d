//! Backends that fail: which requests are sent again, and when an endpoint is ejected.

use crate::common::*;
use crate::rig::*;
use std::io::Write;
use std::time::{Duration, Instant};

const TIMEOUT: &str = "timeouts = { upstream_head = \"300ms\" }";

#[test]
fn a_request_is_sent_again_only_if_the_route_says_so() {
    let failures = [("closed", Mode::Closes, 502), ("timeout", Mode::Stalls, 504), ("503", Mode::Status(503), 503)];
    for (word, mode, status) in failures {
        let quoted = if word.parse::<u16>().is_ok() { word.to_owned() } else { format!("{word:?}") };
        let rules = "ejection = { failures = 0 }";
        let backends = Backend::several(2);
        backends[0].set(mode);
        let proxy = Proxy::start(&first_of(&backends, &format!("{TIMEOUT}\nretry_on = [{quoted}]"), rules));
        let mut client = session(&proxy);
        assert_eq!(client.backend(), 1, "{word}");
        client.echoes();
        assert_eq!(backends.iter().map(Backend::requests).collect::<Vec<_>>(), [1, 1], "{word}");

        let others = failures.iter().map(|(other, ..)| *other).filter(|other| *other != word);
        let others: Vec<_> =
            others.map(|other| if other == "503" { "504".into() } else { format!("{other:?}") }).collect();
        for route in [TIMEOUT.to_owned(), format!("{TIMEOUT}\nretry_on = [{}]", others.join(", "))] {
            let backends = Backend::several(2);
            backends[0].set(mode);
            let proxy = Proxy::start(&first_of(&backends, &route, rules));
            assert_eq!(visit(&proxy, "/", "").status(), status, "{word} with {route}");
            assert_eq!(backends[1].requests(), 0, "{word} with {route}");
        }
    }
}

#[test]
fn a_request_is_sent_to_each_endpoint_once() {
    let backends = Backend::several(3);
    backends.iter().for_each(|backend| backend.set(Mode::Status(503)));
    let proxy = Proxy::start(&config(&backends, "retry_on = [503]", "ejection = { failures = 0 }"));
    let client = visit(&proxy, "/", "");
    assert_eq!(client.status(), 503);
    assert_eq!(backends.iter().map(Backend::requests).collect::<Vec<_>>(), [1; 3]);
    assert!(client.field("X-Backend").is_some(), "the response of the last one: {}", client.head);
}

#[test]
fn retries_end_with_their_budget() {
    let backends = Backend::several(2);
    backends[0].set(Mode::Status(503));
    let rules = "ejection = { failures = 0 }\nretries = { percent = 0, reserve = 2 }";
    let proxy = Proxy::start(&first_of(&backends, "retry_on = [503]", rules));
    let statuses: Vec<_> = (0..5).map(|_| visit(&proxy, "/", "").status()).collect();
    assert_eq!(statuses, [101, 101, 503, 503, 503]);
    assert_eq!(backends.iter().map(Backend::requests).collect::<Vec<_>>(), [5, 2]);
}

/// Asks until this backend gets a request, not earlier than `after_ms` after `begun`: a moment
/// before that request.
#[track_caller]
fn until_tried(proxy: &Proxy, backend: &Backend, begun: Instant, after_ms: u64) -> Instant {
    let before = backend.requests();
    let asked = eventually("a trial", || {
        let asked = Instant::now();
        visit(proxy, "/", "");
        (backend.requests() > before).then_some(asked)
    });
    let took = begun.elapsed();
    // Times are whole milliseconds.
    assert!(took >= Duration::from_millis(after_ms - 1), "tried after {took:?}, not {after_ms} ms");
    asked
}

#[test]
fn an_endpoint_is_ejected_and_tried_again_ever_later() {
    let backends = Backend::several(2);
    backends[0].set(Mode::Status(500));
    let rules = "ejection = { failures = 3, time = \"400ms\", max_time = \"1h\" }";
    let proxy = Proxy::start(&first_of(&backends, TIMEOUT, rules));
    let mut begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(endpoint(&proxy, &backends[0])["state"], "up");
        begun = Instant::now();
        assert_eq!(visit(&proxy, "/", "").status(), 500);
    }
    wait_state(&proxy, &backends[0], "ejected");
    assert_eq!(session(&proxy).backend(), 1);
    assert_eq!(backends[0].requests(), 3);
    for time in [400, 800] {
        begun = until_tried(&proxy, &backends[0], begun, time);
    }
    eventually("the third", || (endpoint(&proxy, &backends[0])["ejections"] == 3).then_some(()));
    // The next trial succeeds.
    backends[0].set(Mode::Serves);
    until_tried(&proxy, &backends[0], begun, 1_600);
    wait_state(&proxy, &backends[0], "up");
    assert_eq!([session(&proxy).backend(), session(&proxy).backend()], [0, 0]);
}

#[test]
fn a_failure_counts_when_the_client_is_told_not_when_it_has_gone() {
    for (mode, status) in [(Mode::Closes, 502), (Mode::Status(500), 500), (Mode::Stalls, 504)] {
        let backends = Backend::several(2);
        backends[0].set(mode);
        let rules = "ejection = { failures = 1, time = \"1h\", max_time = \"1h\" }";
        let proxy = Proxy::start(&first_of(&backends, TIMEOUT, rules));
        // It does not close: the proxy waits for that.
        let lingers = visit(&proxy, "/", "");
        assert_eq!(lingers.status(), status, "{mode:?}");
        assert_eq!(session(&proxy).backend(), 1, "{mode:?}");
        assert_eq!(endpoint(&proxy, &backends[0])["state"], "ejected", "{mode:?}");
        assert_eq!(backends[0].requests(), 1, "{mode:?}");
        drop(lingers);
    }
}

#[test]
fn one_session_at_a_time_tries_an_ejected_endpoint() {
    let backends = Backend::several(2);
    backends[0].set(Mode::Closes);
    let rules = "ejection = { failures = 1, time = \"300ms\" }";
    let proxy = Proxy::start(&first_of(&backends, "timeouts = { upstream_head = \"1m\" }", rules));
    assert_eq!(visit(&proxy, "/", "").status(), 502);
    wait_state(&proxy, &backends[0], "ejected");
    backends[0].set(Mode::Stalls);
    // Those that wait for the trial's response, at the end exactly one.
    let mut trials = Vec::new();
    eventually("a trial", || {
        let client = begin(&proxy, "/", "");
        client.set_nonblocking(true).unwrap();
        let tried = eventually("an answer or a trial", || {
            let answered = client.peek(&mut [0]);
            match backends[0].requests() {
                2 => Some(true),
                _ => answered.is_ok().then_some(false),
            }
        });
        trials.push(client);
        tried.then_some(())
    });
    for _ in 0..10 {
        assert_eq!(session(&proxy).backend(), 1);
    }
    assert_eq!((backends[0].requests(), endpoint(&proxy, &backends[0])["pending"].clone()), (2, 1.into()));
    // It leaves without an outcome: another one tries.
    drop(trials);
    wait_upstream(&proxy, "pending", 0);
    backends[0].set(Mode::Serves);
    assert_eq!(session(&proxy).backend(), 0);
    wait_state(&proxy, &backends[0], "up");
}

#[test]
fn a_session_that_ends_early_counts_as_a_failure() {
    for (early_end, state) in [("1m", "ejected"), ("0s", "up")] {
        let backends = Backend::several(2);
        backends[0].set(Mode::Resets);
        let rules =
            format!("ejection = {{ failures = 1, early_end = \"{early_end}\", time = \"1h\", max_time = \"1h\" }}");
        let proxy = Proxy::start(&first_of(&backends, "", &rules));
        let mut client = session(&proxy);
        client.stream.write_all(&masked(0x81, b"x")).unwrap();
        read_all(&client.stream);
        wait_upstream(&proxy, "sessions", 0);
        assert_eq!(endpoint(&proxy, &backends[0])["state"], state, "early_end = {early_end}");
        backends[0].set(Mode::Serves);
        assert_eq!(session(&proxy).backend(), usize::from(state == "ejected"));
    }
}

#[test]
fn no_more_endpoints_are_ejected_than_may_be() {
    let backends = Backend::several(4);
    backends.iter().for_each(|backend| backend.set(Mode::Closes));
    let rules = "ejection = { failures = 1, time = \"1h\", max_time = \"1h\", max_percent = 50 }";
    let proxy = Proxy::start(&config(&backends, "", rules));
    (0..20).for_each(|_| assert_eq!(visit(&proxy, "/", "").status(), 502));
    let states: Vec<_> = backends.iter().map(|backend| endpoint(&proxy, backend)["state"].clone()).collect();
    assert_eq!(states.iter().filter(|state| **state == "ejected").count(), 2, "{states:?}");
}
