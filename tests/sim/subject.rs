//! What is tested: the seam between the simulation and a worker. Everything that knows the worker's
//! outward shape stands here.

use crate::asks::{ASKS_MAX, CALL_MS, CONNECT_MS, PATIENT_MS};
use crate::bugs::Bug;
use crate::callee::REQUEST;
use crate::calls::{SimListener, SimSys};
use crate::rng::Rng;
use crate::schedule::{ALLOWANCES, PAUSE_MS, SESSIONS};
use crate::seal::{NAME, PKI};
use crate::services::{Hub, NoWake};
use crate::world::world;
use framegate::config::{self, Snapshot};
use framegate::log::{Record, tap};
use framegate::metrics::Shard;
use framegate::policy::ask::{Check, Subrequest};
use framegate::policy::limit::Permits;
use framegate::policy::matching::{Entry, PathPattern, Routes};
use framegate::policy::route::Route;
use framegate::proto::Sides;
use framegate::proto::end::End;
use framegate::proto::settings::{Pace, RelaySettings, Settings};
use framegate::tls::{TicketKeys, TlsConfigs};
use framegate::worker::inbox::inbox;
use framegate::worker::listener::Listening;
use framegate::worker::{Worker, WorkerCore};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// A verdict, with the port of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub port: u16,
    pub ended: End,
    /// HTTP status and close codes toward each side, as logged. A bare relay knows none.
    pub status: Option<u16>,
    pub codes: Sides<Option<u16>>,
    pub age_ms: u64,
}

pub type Ends = Vec<Verdict>;

/// Takes one iteration of a loop and calls it until the schedule is over.
pub type Drive<'a> = dyn FnMut(&mut dyn FnMut() -> bool) -> Result<(), String> + 'a;

/// Something that runs on [`SimSys`].
pub trait Subject {
    /// Whether it judges handshakes and frames; a bare relay does not, and is spared such scripts.
    const JUDGES: bool;
    /// Speaks TLS to clients, and to upstreams.
    const SECURE: [bool; 2];

    /// Brings one up, gives one iteration of its loop after the other to `drive`, and sees that
    /// nothing is left over.
    fn run(bug: Option<Bug>, drive: &mut Drive<'_>) -> Result<Ends, String>;
}

/// The real one, with TLS to clients and to upstreams or without.
pub struct With<const DOWN: bool, const UP: bool>;

pub type Real = With<false, false>;

/// Verdicts that one schedule may bring.
const RECORDS: usize = 64;

type Made = (Arc<Snapshot>, Arc<TlsConfigs>);

/// What a configuration depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    /// Clients, and upstreams, have TLS.
    down: bool,
    up: bool,
    pause_ms: u64,
    call_ms: u64,
}

thread_local! {
    /// Of this thread: the cursors of upstreams are state, and schedules must not share any.
    static MADE: RefCell<HashMap<Kind, Made>> = RefCell::default();
}

fn made(kind: Kind) -> Made {
    let make = || {
        let snapshot = snapshot(kind);
        let keys = TicketKeys::new();
        assert!(keys.begin(0), "no random bytes");
        let store = TlsConfigs::load(&snapshot, &keys).unwrap_or_else(|e| panic!("{e:?}"));
        (Arc::new(snapshot), Arc::new(store))
    };
    MADE.with(|made| made.borrow_mut().entry(kind).or_insert_with(make).clone())
}

/// Each session's routes: one for each leg, with and without a read allowance, for each list of
/// questions. Two endpoints for each of its upstreams, which share their path.
fn snapshot(kind: Kind) -> Snapshot {
    let mut text =
        String::from("[limits]\nmax_sessions = 1000\nmax_handshakes = 1000\n[[listener]]\nlisten = \"192.0.2.0:80\"\n");
    let (cert, key) = (&PKI.cert, &PKI.key);
    if kind.down {
        text += &format!("tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}\n");
    }
    let (scheme, tls) = match kind.up {
        true => ("wss", format!("tls = {{ ca = {cert:?}, server_name = \"{NAME}\", resumption = false }}\n")),
        false => ("ws", String::new()),
    };
    for i in 0..SESSIONS {
        let names = (0..=ASKS_MAX).map(|area| (area, if area == 0 { "tcp".into() } else { format!("ask{area}-") }));
        for (area, name) in names {
            text += &format!(
                "[[upstream]]\nname = \"{name}{i}\"\n\
                 endpoints = [\"{scheme}://10.{area}.{i}.1:80\", \"{scheme}://10.{area}.{i}.2:80\"]\n{tls}"
            );
        }
        text += &format!("[[upstream]]\nname = \"unix{i}\"\nendpoints = [\"ws+unix:/sim/{i}.sock\"]\n");
        for (leg, upstream, mode) in [("tcp", "tcp", "framed"), ("unix", "unix", "framed"), ("opaque", "tcp", "opaque")]
        {
            text += &format!("[[route]]\npath = \"/{i}/{leg}\"\nupstream = \"{upstream}{i}\"\nmode = \"{mode}\"\n");
            if mode == "framed" && i % 2 == 1 {
                text += "splice = \"on\"\n";
            }
        }
    }
    let mut snapshot = config::parse(&text, "sim").unwrap_or_else(|e| panic!("{e}"));
    snapshot.routes = variants(&snapshot, kind);
    snapshot
}

/// All routes that ask and pause, from those that do not. No configuration key does either yet.
fn variants(snapshot: &Snapshot, kind: Kind) -> Routes {
    let mut entries = Vec::new();
    for entry in snapshot.routes.entries() {
        let PathPattern::Exact(path) = &entry.path else { panic!("no pattern for {entry:?}") };
        for letters in letters() {
            for allowance in [None, Some(&ALLOWANCES[0]), Some(&ALLOWANCES[1])] {
                let asks = if letters.is_empty() { String::new() } else { format!("/{letters}") };
                let path = format!("{path}{asks}{}", allowance.map_or(String::new(), |pace| format!("/{}", pace.name)));
                let pace = allowance.map(|pace| Pace { bytes: pace.bytes as u64, pause_ms: kind.pause_ms });
                let route =
                    Variant { letters: &letters, pace, call_ms: kind.call_ms }.of(snapshot, &entry.route, &path);
                let path = PathPattern::Exact(path);
                entries.push(Entry { path, route: Arc::new(route), ..entry.clone() });
            }
        }
    }
    Routes::new(entries)
}

/// All lists of questions: short and patient calls, services.
fn letters() -> Vec<String> {
    let one = ["", "c", "p", "s"];
    let all = one.iter().flat_map(|a| one.iter().map(move |b| format!("{a}{b}")));
    let mut all: Vec<_> = all.collect();
    all.sort();
    all.dedup();
    all
}

/// A route that asks and pauses.
#[derive(Debug, Clone, Copy)]
struct Variant<'a> {
    letters: &'a str,
    pace: Option<Pace>,
    call_ms: u64,
}

impl Variant<'_> {
    fn of(&self, snapshot: &Snapshot, base: &Route, name: &str) -> Route {
        let session = base.name.split('/').nth(1).expect("a path").parse().expect("the number of a session");
        let relay = RelaySettings { pace: self.pace, ..base.settings.relay.clone() };
        let settings = Arc::new(Settings { relay, ..(*base.settings).clone() });
        let letters = self.letters.chars().enumerate();
        let checks = letters.map(|(at, letter)| self.check(snapshot, session, at, letter)).collect();
        Route { settings, checks, ..Route::new(name.to_owned(), Arc::clone(&base.upstreams()[0])) }
    }

    fn check(&self, snapshot: &Snapshot, session: usize, at: usize, letter: char) -> Check {
        let timeout_ms = match letter {
            's' => return Check::Service(session),
            'p' => PATIENT_MS,
            _ => self.call_ms,
        };
        let name = format!("ask{}-{session}", at + 1);
        let upstream = snapshot.upstreams.iter().find(|upstream| upstream.name == name).expect("a callee");
        let (upstream, head) = (Arc::clone(upstream), REQUEST.to_vec());
        Check::Subrequest(Arc::new(Subrequest { upstream, head, timeout_ms, connect_ms: CONNECT_MS }))
    }
}

impl<const DOWN: bool, const UP: bool> Subject for With<DOWN, UP> {
    const JUDGES: bool = true;
    const SECURE: [bool; 2] = [DOWN, UP];

    fn run(bug: Option<Bug>, drive: &mut Drive<'_>) -> Result<Ends, String> {
        let pause_ms = if bug == Some(Bug::ShortPause) { 1 } else { PAUSE_MS };
        let call_ms = if bug == Some(Bug::NoCallTimeout) { PATIENT_MS } else { CALL_MS };
        let (snapshot, tls) = made(Kind { down: DOWN, up: UP, pause_ms, call_ms });
        world(|w| restart(&snapshot, &mut w.random));
        let upstreams = snapshot.upstreams.clone();
        let (log, mut records) = tap(RECORDS);
        let (outbox, inbox) = inbox(Arc::new(NoWake));
        let services = world(|w| {
            let (hub, services) = Hub::open(&w.script, outbox);
            w.services = Some(hub);
            services
        });
        let permits = [Permits::new(1_000), Permits::new(1_000)];
        let mut core = WorkerCore {
            sys: SimSys,
            listeners: vec![
                Listening::new(snapshot.listeners[0].addr, SimListener, &snapshot, &tls).expect("a listener"),
            ],
            inbox,
            snapshot,
            tls,
            sessions: Arc::clone(&permits[0]),
            handshakes: Arc::clone(&permits[1]),
            services,
            tally: Default::default(),
            shard: Arc::new(Shard::default()),
            log,
            unix_ms: 0,
            generation: 0,
            workers: 1,
            draining: false,
        };
        let mut worker = Worker::new(&mut core).map_err(|e| e.to_string())?;
        drive(&mut || worker.run_once().expect("poll of the simulation does not fail"))?;
        let (pairs, calls) = worker.held();
        drop(worker);
        let tally = &core.tally;
        let left = [(pairs + calls) as u64, tally.sessions, tally.handshakes, tally.backlog_bytes];
        let taken = [permits[0].taken(), permits[1].taken()];
        let held: usize = upstreams.iter().flat_map(|u| u.endpoints().to_vec()).map(|e| e.sessions()).sum();
        if held > 0 {
            return Err(format!("{held} endpoints are still counted as in use"));
        }
        if left != [0; 4] || taken != [0; 2] || tally.log_lost > 0 {
            return Err(format!("left over: pairs, sessions, handshakes, backlog {left:?}; permits {taken:?}"));
        }
        let mut ends = Ends::new();
        while let Ok(record) = records.pop() {
            if let Record::End(end) = record {
                let (port, codes, status) = (end.peer.port(), end.close_codes, Some(end.status));
                ends.push(Verdict { port, ended: end.end, status, codes, age_ms: end.age_ms });
            }
        }
        Ok(ends)
    }
}

/// Nothing is left of the seed before: which endpoint is tried first depends on this one alone.
fn restart(snapshot: &Snapshot, random: &mut Rng) {
    snapshot.upstreams.iter().for_each(|upstream| upstream.restart(random.word()));
}
