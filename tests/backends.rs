//! Backends that fail in every way, while thousands of sessions echo messages: who is on a healthy
//! one does not notice, no client sees a failed handshake, no session is left half open, and what
//! the process says of itself is true.

#[path = "backends/backend.rs"]
mod backend;
#[path = "backends/changing.rs"]
mod changing;
mod common;
#[path = "backends/crowd.rs"]
mod crowd;
#[cfg(feature = "discovery")]
#[path = "discovery/server.rs"]
mod dns;
#[path = "backends/ports.rs"]
mod ports;
#[path = "backends/rig.rs"]
mod rig;

use backend::{Backend, Mode};
use common::*;
use crowd::{Crowd, Outcome};
use rig::*;

/// Handshakes while backends fail.
const LATER: usize = 300;

#[test]
fn one_dead_backend_of_eight_is_not_felt() {
    let _turn = alone();
    let mut backends: Vec<_> = (0..BACKENDS).map(Backend::start).collect();
    backends[3].kill();
    let mut proxy = Proxy::start(&config(&backends, ""));
    let mut crowd = Crowd::start(&proxy);
    crowd.open(SESSIONS);
    for backend in backends.iter().filter(|backend| backend.number != 3) {
        assert!(backend.sessions() > 0, "backend {} has no session", backend.number);
    }
    crowd.echoes_go_on(ECHOES, |_| true);
    upstreams_are_true(&proxy, &crowd, &backends);
    counts_are(&proxy, Counts { live: SESSIONS, opened: SESSIONS, ..Counts::default() });

    ended_as(&crowd.stop(&[]), |_| STOPPED);
    counts_are(&proxy, Counts { opened: SESSIONS, ended: SESSIONS, stopped: SESSIONS, ..Counts::default() });
    upstreams_are_true(&proxy, &crowd, &backends);
    are_deserted(&backends);
    proxy.stop();
}

#[test]
fn nobody_on_a_healthy_backend_notices() {
    let _turn = alone();
    let mut backends: Vec<_> = (0..BACKENDS).map(Backend::start).collect();
    let mut proxy = Proxy::start(&config(&backends, ""));
    let mut crowd = Crowd::start(&proxy);
    crowd.open(SESSIONS);
    crowd.echoes_go_on(ECHOES, |_| true);
    let on: Vec<_> = backends.iter().map(|backend| crowd.live_on(backend.number)).collect();
    assert!(on.iter().all(|count| *count > 0), "{on:?}");

    backends[4].set(Mode::Slow);
    backends[5].set(Mode::Stalls);
    backends[6].kill();
    // The next one comes back elsewhere, under another number.
    backends[7].kill();
    backends.push(Backend::start(BACKENDS));
    let now = || backends.iter().filter(|backend| backend.number != 7);
    std::fs::write(&proxy.config, config(now(), "")).unwrap();
    proxy.signal("HUP");
    proxy.said.wait_for("reloaded");
    crowd.open(LATER);
    assert!(crowd.live_on(BACKENDS) > 0, "the restarted backend has no session");
    crowd.echoes_go_on(ECHOES, |backend| !(5..=7).contains(&backend));
    let (opened, lost) = (SESSIONS + LATER, on[6] + on[7]);
    upstreams_are_true(&proxy, &crowd, now());
    counts_are(&proxy, Counts { live: opened - lost, opened, ended: lost, lost, ..Counts::default() });

    ended_as(&crowd.stop(&[5]), |backend| match backend {
        5 => Outcome { stopped: true, close: None, end: End::Fin },
        6 | 7 => LOST,
        _ => STOPPED,
    });
    counts_are(&proxy, Counts { opened, ended: opened, lost, stopped: opened - lost, ..Counts::default() });
    upstreams_are_true(&proxy, &crowd, now());
    are_deserted(&backends);
    proxy.stop();
}
