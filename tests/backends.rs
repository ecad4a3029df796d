//! Backends that are killed, stalled, slowed down and restarted on another port, while many
//! sessions echo messages: who is on a healthy one does not notice, no client sees a failed
//! handshake, no session is left half open, and the counters are right in the end.

mod common;
#[path = "backends/rig.rs"]
mod rig;

use common::*;
use rig::*;

const BACKENDS: u8 = 8;
const SESSIONS: usize = 200;
/// Handshakes while backends fail.
const LATER: usize = 40;
/// Echoes that make sure that a session lives.
const ECHOES: u64 = 10;

fn config(backends: &[&Backend]) -> String {
    let urls: Vec<_> = backends.iter().map(|backend| format!("ws://{}", backend.addr)).collect();
    format!(
        "[workers]\ncount = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [timeouts]\nupstream_head = \"400ms\"\nclose = \"1s\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"app\"\nendpoints = {urls:?}\n\
         [[route]]\nupstream = \"app\"\nretry_on = [\"timeout\", \"closed\"]\n"
    )
}

/// The sum of a counter over all its labels that contain `label`.
fn sum(proxy: &Proxy, name: &str, label: &str) -> u64 {
    let admin = proxy.admin();
    let text = http(admin, &format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Each of these clients gets so many more echoes.
fn live_on<'a>(clients: impl Iterator<Item = &'a Client>) {
    let goals: Vec<_> = clients.map(|client| (client, client.echoes() + ECHOES)).collect();
    assert!(!goals.is_empty());
    eventually("echoes go on", || goals.iter().all(|(client, goal)| client.echoes() >= *goal).then_some(()));
}

#[test]
fn one_dead_backend_of_eight_is_not_felt() {
    let mut backends: Vec<_> = (0..BACKENDS).map(Backend::start).collect();
    backends[3].kill();
    let mut proxy = Proxy::start(&config(&backends.iter().collect::<Vec<_>>()));
    let clients: Vec<_> = (0..SESSIONS).map(|_| Client::open(&proxy)).collect();
    for number in (0..BACKENDS).filter(|number| *number != 3) {
        assert!(clients.iter().any(|client| client.backend == number), "backend {number} has no session");
    }
    live_on(clients.iter());
    clients.iter().for_each(Client::tell_to_stop);
    assert!(clients.into_iter().all(|client| client.join().1 == Outcome::Stopped));
    counters_equal(&proxy, SESSIONS, 0);
    backends.iter().for_each(has_no_session);
    proxy.stop();
}

#[test]
fn nobody_on_a_healthy_backend_notices() {
    let mut backends: Vec<_> = (0..BACKENDS).map(Backend::start).collect();
    let mut proxy = Proxy::start(&config(&backends.iter().collect::<Vec<_>>()));
    let mut clients: Vec<_> = (0..SESSIONS).map(|_| Client::open(&proxy)).collect();
    live_on(clients.iter());

    backends[4].set(Mode::Slow);
    backends[5].set(Mode::Stalls);
    backends[6].kill();
    // The next one comes back elsewhere, under another number.
    backends[7].kill();
    backends.push(Backend::start(BACKENDS));
    let now: Vec<_> = backends.iter().enumerate().filter(|(n, _)| *n != 7).map(|(_, backend)| backend).collect();
    std::fs::write(&proxy.config, shim::secure(&config(&now))).unwrap();
    proxy.signal("HUP");
    proxy.said.wait_for("reloaded");
    clients.extend((0..LATER).map(|_| Client::open(&proxy)));
    let healthy = |client: &&Client| !(5..=7).contains(&client.backend);
    assert!(clients.iter().any(|client| client.backend == BACKENDS), "the restarted backend has no session");
    live_on(clients.iter().filter(healthy));

    clients.iter().for_each(Client::tell_to_stop);
    let outcomes: Vec<_> = clients.into_iter().map(Client::join).collect();
    for (backend, outcome) in &outcomes {
        let expected = match backend {
            5 => Outcome::Waiting,
            6 | 7 => Outcome::Lost,
            _ => Outcome::Stopped,
        };
        assert_eq!(*outcome, expected, "on backend {backend}");
    }
    let lost = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Lost).count();
    assert!(lost > 0);
    counters_equal(&proxy, SESSIONS + LATER, lost);
    backends.iter().for_each(has_no_session);
    proxy.stop();
}

/// Nothing is left, every handshake has succeeded, and so many sessions were ended by upstreams.
fn counters_equal(proxy: &Proxy, opened: usize, lost: usize) {
    for name in ["framegate_sessions{", "framegate_handshakes "] {
        eventually(name, || (sum(proxy, name, "") == 0).then_some(()));
    }
    let handshakes =
        [sum(proxy, "framegate_handshakes_total{", ""), sum(proxy, "framegate_handshakes_total{", "\"ok\"")];
    assert_eq!(handshakes, [opened as u64; 2], "handshakes, and those that succeeded");
    let ended = [
        sum(proxy, "framegate_sessions_ended_total{", ""),
        sum(proxy, "framegate_sessions_ended_total{", "\"upstream\""),
    ];
    assert_eq!(ended, [opened as u64, lost as u64], "sessions, and those that their upstream ended");
}

/// No connection to it is left half open.
fn has_no_session(backend: &Backend) {
    eventually("a backend is deserted", || (backend.sessions() == 0 && backend.is_deserted()).then_some(()));
}
