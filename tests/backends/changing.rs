//! Backends that are not the same from one moment to the next: a name that moves in DNS, a port
//! that closes and opens.

use crate::backend::{Backend, Mode};
use crate::common::*;
use crate::crowd::Crowd;
#[cfg(feature = "discovery")]
use crate::dns::{Server, a, addresses};
use crate::rig::*;

/// How often the port of a backend closes and opens.
const FLAPS: usize = 5;
/// Failed handshakes each time, before its port closes.
const FAILURES: u64 = 2;
/// Visits while it is in each state.
const VISITS: usize = 50;

#[test]
fn flapping_backend_fails_no_handshake() {
    let _turn = alone();
    let backends: Vec<_> = (0..BACKENDS).map(Backend::start).collect();
    let flapping = &backends[2];
    // With ejections, too: the port refuses sessions before a check finds it closed.
    let checks = "ejection = { time = \"100ms\", max_time = \"200ms\" }\n\
                  health = { type = \"tcp\", interval = \"200ms\", timeout = \"190ms\", rise = 2, fall = 2 }";
    let mut proxy = Proxy::start(&config(&backends, checks));
    let mut crowd = Crowd::start(&proxy);
    crowd.open(SESSIONS);
    let on_it = crowd.live_on(flapping.number);
    assert!(on_it > 0);
    crowd.receive_visitors(true);
    let failed = || endpoint(&proxy, flapping)["handshakes_failed"].as_u64().unwrap();
    for _ in 0..FLAPS {
        let before = failed();
        flapping.set(Mode::Closes);
        eventually("handshakes with it fail", || (failed() >= before + FAILURES).then_some(()));
        flapping.set(Mode::Refuses);
        eventually("checks fail", || (state(&proxy, flapping) == "down").then_some(()));
        more_visits(&crowd, None);
        flapping.set(Mode::Serves);
        eventually("checks succeed", || (state(&proxy, flapping) == "up").then_some(()));
        more_visits(&crowd, Some(flapping.number));
    }
    crowd.receive_visitors(false);
    crowd.echoes_go_on(ECHOES, |_| true);
    assert_eq!(crowd.live_on(flapping.number), on_it, "its sessions stay");
    upstreams_are_true(&proxy, &crowd, &backends);
    let changes = ["down", "up"].map(|to| {
        let metric = format!("framegate_health_changes_total{{upstream=\"app\",to=\"{to}\"}}");
        proxy.metric(&metric) as usize
    });
    // A machine under load may add changes of other backends.
    assert!(changes.iter().all(|count| *count >= FLAPS), "{changes:?}");
    let visits = crowd.visits(None);
    let opened = SESSIONS + visits;
    counts_are(&proxy, Counts { live: SESSIONS, opened, ended: visits, stopped: visits, ..Counts::default() });

    ended_as(&crowd.stop(&[]), |_| STOPPED);
    counts_are(&proxy, Counts { opened, ended: opened, stopped: opened, ..Counts::default() });
    upstreams_are_true(&proxy, &crowd, &backends);
    are_deserted(&backends);
    proxy.stop();
}

/// Later sessions, which go to the new address.
#[cfg(feature = "discovery")]
const LATER: usize = 400;

#[cfg(feature = "discovery")]
#[test]
fn name_that_moves_in_dns_takes_new_sessions_along() {
    let _turn = alone();
    let mut backends: Vec<_> = (0..BACKENDS - 1).map(Backend::start).collect();
    let (before, after) = twins(BACKENDS - 1);
    let names = Server::start(addresses(vec![a(1, before.addr)]));
    let dns = format!("name = \"app.internal\", port = {}, servers = [\"{}\"]", before.addr.port(), names.addr);
    let mut proxy = Proxy::start(&config(&backends, &format!("discover = {{ dns = {{ {dns} }} }}")));
    let mut crowd = Crowd::start(&proxy);
    crowd.open(SESSIONS);
    let on_it = crowd.live_on(before.number);
    assert!(on_it > 0);
    upstreams_are_true(&proxy, &crowd, backends.iter().chain([&before]));

    names.script(addresses(vec![a(1, after.addr)]));
    eventually("the old address is removed", || (state(&proxy, &before) == "removed").then_some(()));
    assert_eq!(state(&proxy, &after), "up");
    crowd.open(LATER);
    let [old, new] = [&before, &after].map(|backend| crowd.live_on(backend.number));
    assert_eq!(old, on_it, "sessions on the old address stay, and no more come");
    assert!(new >= LATER / BACKENDS as usize / 2, "{new} sessions on the new address");
    crowd.echoes_go_on(ECHOES, |_| true);
    backends.extend([before, after]);
    upstreams_are_true(&proxy, &crowd, &backends);
    let opened = SESSIONS + LATER;
    counts_are(&proxy, Counts { live: opened, opened, ..Counts::default() });

    ended_as(&crowd.stop(&[]), |_| STOPPED);
    counts_are(&proxy, Counts { opened, ended: opened, stopped: opened, ..Counts::default() });
    // The old address is forgotten with its last session.
    upstreams_are_true(&proxy, &crowd, backends.iter().filter(|backend| backend.number != BACKENDS - 1));
    are_deserted(&backends);
    proxy.stop();
}

/// Two on the same port of their addresses.
#[cfg(feature = "discovery")]
fn twins(number: u8) -> (Backend, Backend) {
    loop {
        let first = Backend::start(number);
        if let Ok(second) = Backend::on(number + 1, first.addr.port()) {
            return (first, second);
        }
    }
}

/// So many more visitors have come and gone, of one backend or any.
#[track_caller]
fn more_visits(crowd: &Crowd, to: Option<u8>) {
    let goal = crowd.visits(to) + if to.is_some() { VISITS / BACKENDS as usize } else { VISITS };
    eventually("visitors come and go", || (crowd.visits(to) >= goal).then_some(()));
}
