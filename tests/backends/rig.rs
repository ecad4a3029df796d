//! What the suites share: the configuration, and the comparison of what the process says with what
//! clients and backends see.

use super::backend::Backend;
use super::crowd::{Crowd, Outcome, View};
use crate::common::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub const BACKENDS: u8 = 8;
pub const SESSIONS: usize = 3_000;
/// Echoes that make sure that a session lives.
pub const ECHOES: u64 = 2;

/// As the client asked for it.
pub const STOPPED: Outcome = Outcome { stopped: true, close: Some(1000), end: End::Fin };
/// The upstream ended without a Close: `on_upstream_loss`.
pub const LOST: Outcome = Outcome { stopped: false, close: Some(1012), end: End::Fin };

/// One test at a time: each takes some 6,000 descriptors here, and as many in its proxy.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let descriptors = framegate::os::raise_nofile().unwrap();
    assert!(descriptors >= 3 * SESSIONS as u64, "{descriptors} descriptors (ulimit -Hn) are too few for this suite");
    turn
}

/// A configuration with the upstream `app`, whose further keys are `keys`.
pub fn config<'a>(backends: impl IntoIterator<Item = &'a Backend>, keys: &str) -> String {
    let urls: Vec<_> = backends.into_iter().map(Backend::url).collect();
    format!(
        "[workers]\ncount = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [timeouts]\nupstream_head = \"1s\"\nclose = \"2s\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"app\"\nretry_on = [\"timeout\", \"closed\"]\non_upstream_loss = \"close\"\n\
         [[upstream]]\nname = \"app\"\nendpoints = {urls:?}\n{keys}\n"
    )
}

/// Waits until what the process says equals the truth.
#[track_caller]
pub fn becomes<T: PartialEq + Debug>(what: &str, mut said: impl FnMut() -> T, mut truth: impl FnMut() -> T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (said, truth) = (said(), truth());
        if said == truth {
            return;
        }
        assert!(Instant::now() < deadline, "{what}:\n{said:?} but in truth\n{truth:?}");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// The upstream in `/upstreams`.
pub fn upstream(proxy: &Proxy) -> Value {
    let admin = proxy.admin();
    let answer = http(admin, &format!("GET /upstreams HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    let body = answer.split_once("\r\n\r\n").expect("a response").1;
    serde_json::from_str::<Value>(body).expect("JSON")[0].take()
}

/// An endpoint there; null if it is not listed.
pub fn endpoint(proxy: &Proxy, backend: &Backend) -> Value {
    let upstream = upstream(proxy);
    let mut rows = upstream["endpoints"].as_array().unwrap().iter();
    rows.find(|row| row["url"] == backend.url()).cloned().unwrap_or_default()
}

pub fn state(proxy: &Proxy, backend: &Backend) -> String {
    endpoint(proxy, backend)["state"].as_str().unwrap_or_default().to_owned()
}

/// `/upstreams` lists these endpoints with the sessions that they have and have had, as clients and
/// backends count them, and no handshake is under way.
#[track_caller]
pub fn upstreams_are_true<'a>(proxy: &Proxy, crowd: &Crowd, backends: impl IntoIterator<Item = &'a Backend> + Clone) {
    let said = || {
        let upstream = upstream(proxy);
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap() as usize;
        let row = |row: &Value| {
            let counts = ["sessions", "sessions", "handshakes_ok", "pending"].map(|key| number(row, key));
            (row["url"].as_str().unwrap().to_owned(), counts)
        };
        let rows: BTreeMap<_, _> = upstream["endpoints"].as_array().unwrap().iter().map(row).collect();
        (rows, ["sessions", "pending", "queued"].map(|key| number(&upstream, key)))
    };
    let truth = || {
        let row = |backend: &'a Backend| {
            let number = backend.number;
            (backend.url(), [crowd.live_on(number), backend.sessions(), crowd.ever_on(number), 0])
        };
        let rows: BTreeMap<_, _> = backends.clone().into_iter().map(row).collect();
        let sum = rows.values().map(|row| row[0]).sum();
        (rows, [sum, 0, 0])
    };
    becomes("/upstreams", said, truth);
}

/// The sum of a counter over all its labels that contain each of `labels`.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> usize {
    let fits = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    let values = metrics.lines().filter(fits).map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<usize>().unwrap()).sum()
}

/// Sessions that have been opened and have ended, as the process counts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub live: usize,
    pub opened: usize,
    /// Handshakes that did not succeed, or are under way.
    pub not_opened: usize,
    pub ended: usize,
    /// Those that the backend's loss ended.
    pub lost: usize,
    /// Those that their client closed.
    pub stopped: usize,
}

#[track_caller]
pub fn counts_are(proxy: &Proxy, truth: Counts) {
    let said = || {
        let admin = proxy.admin();
        let text = http(admin, &format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
        let handshakes = "framegate_handshakes_total{";
        let ended = "framegate_sessions_ended_total{";
        let opened = sum(&text, handshakes, &["\"ok\""]);
        Counts {
            live: sum(&text, "framegate_sessions{", &[]),
            opened,
            not_opened: sum(&text, handshakes, &[]) - opened + sum(&text, "framegate_handshakes ", &[]),
            ended: sum(&text, ended, &[]),
            lost: sum(&text, ended, &["\"upstream\"", "\"upstream-loss\""]),
            stopped: sum(&text, ended, &["\"downstream\"", "\"close\""]),
        }
    };
    becomes("/metrics", said, || truth.clone());
}

/// Every session ended as one on its backend should.
#[track_caller]
pub fn ended_as(views: &[View], expected: impl Fn(u8) -> Outcome) {
    for view in views {
        let backend = view.backend.expect("its session is open");
        assert_eq!(view.outcome, Some(expected(backend)), "on backend {backend}");
    }
}

/// No connection to any of them is left half open.
pub fn are_deserted(backends: &[Backend]) {
    let left = || backends.iter().map(|backend| (backend.number, backend.connections(), backend.sessions()));
    becomes(
        "connections and sessions of backends",
        || left().collect::<Vec<_>>(),
        || backends.iter().map(|backend| (backend.number, 0, 0)).collect(),
    );
}
