//! What is tested: the seam between the simulation and a worker. Everything that knows the worker's
//! outward shape stands here.

use crate::bugs::Bug;
use crate::callee::REQUEST;
use crate::calls::{SimListener, SimSys};
use crate::seal::{NAME, PKI};
use crate::services::{SERVICES, SimServices, SimWaker};
use crate::world::world;
use framegate::config::{self, Snapshot};
use framegate::log::{Record, tap};
use framegate::metrics::Shard;
use framegate::policy::ask::{Check, Subrequest};
use framegate::policy::limit::Permits;
use framegate::proto::Sides;
use framegate::proto::end::End;
use framegate::proto::settings::Pace;
use framegate::tls::{TicketKeys, TlsConfigs};
use framegate::worker::inbox::inbox;
use framegate::worker::listener::Listening;
use framegate::worker::service::Services;
use framegate::worker::{Worker, WorkerCore};
use std::cell::LazyCell;
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

/// Longer than a reply takes, all faults and jumps of the clock included.
const CALL_TIMEOUT_MS: u64 = 4_000;

type Made = (Arc<Snapshot>, Arc<TlsConfigs>);

// Of each thread, so that the cursors of upstreams depend on nothing but the seed.
thread_local! {
    /// By whether clients, and whether upstreams, have TLS.
    static MADE: [LazyCell<Made>; 4] = [
        LazyCell::new(|| made(false, false)),
        LazyCell::new(|| made(true, false)),
        LazyCell::new(|| made(false, true)),
        LazyCell::new(|| made(true, true)),
    ];
}

fn made(down: bool, up: bool) -> Made {
    let snapshot = snapshot(down, up);
    let keys = TicketKeys::new();
    assert!(keys.begin(0), "no random bytes");
    let store = TlsConfigs::load(&snapshot, &keys).unwrap_or_else(|e| panic!("{e:?}"));
    (Arc::new(snapshot), Arc::new(store))
}

/// Four sessions' routes; two endpoints for each, which share their path.
fn snapshot(down: bool, up: bool) -> Snapshot {
    let mut text =
        String::from("[limits]\nmax_sessions = 1000\nmax_handshakes = 1000\n[[listener]]\nlisten = \"192.0.2.0:80\"\n");
    let (cert, key) = (&PKI.cert, &PKI.key);
    if down {
        text += &format!("tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}\n");
    }
    let (scheme, tls) = match up {
        true => ("wss", format!("tls = {{ ca = {cert:?}, server_name = \"{NAME}\", resumption = false }}\n")),
        false => ("ws", String::new()),
    };
    for i in 0..4 {
        text += &format!(
            "[[upstream]]\nname = \"tcp{i}\"\n\
             endpoints = [\"{scheme}://10.0.{i}.1:80\", \"{scheme}://10.0.{i}.2:80\"]\n{tls}"
        );
        text += &format!("[[upstream]]\nname = \"unix{i}\"\nendpoints = [\"ws+unix:/sim/{i}.sock\"]\n");
        for (leg, upstream, mode) in [("tcp", "tcp", "framed"), ("unix", "unix", "framed"), ("opaque", "tcp", "opaque")]
        {
            for check in ["", "/call", "/ask"] {
                let name = format!("{leg}{i}{check}").replace('/', ".");
                text += &format!("[[route]]\nname = {name:?}\npath = \"/{i}/{leg}{check}\"\n");
                text += &format!("upstream = \"{upstream}{i}\"\nmode = \"{mode}\"\n");
                if mode == "framed" && i % 2 == 1 {
                    text += "splice = \"on\"\n";
                }
            }
        }
        let endpoints = format!("endpoints = [\"ws://10.1.{i}.1:80\", \"ws://10.1.{i}.2:80\"]\n");
        text += &format!("[[upstream]]\nname = \"auth{i}\"\n{endpoints}");
    }
    let mut snapshot = config::parse(&text, "sim").unwrap_or_else(|e| panic!("{e}"));
    (0..SERVICES).for_each(|i| add_checks(&mut snapshot, i));
    snapshot
}

/// The session whose relay is paced, on routes with a check.
const PACED: usize = 2;

/// There are no keys for checks and paces yet.
fn add_checks(snapshot: &mut Snapshot, session: usize) {
    let name = format!("auth{session}");
    let upstream = snapshot.upstreams.iter().find(|upstream| upstream.name == name).expect("an upstream").clone();
    let call = Subrequest { upstream, head: REQUEST.to_vec(), timeout_ms: CALL_TIMEOUT_MS };
    let checks = [("call", Check::Subrequest(Arc::new(call))), ("ask", Check::Service(session))];
    for (leg, (name, check)) in ["tcp", "unix", "opaque"].iter().flat_map(|leg| checks.iter().map(move |c| (leg, c))) {
        let route = snapshot.routes.route_mut(&format!("{leg}{session}.{name}")).expect("a route");
        route.checks.push(check.clone());
        if session == PACED {
            Arc::make_mut(&mut route.settings).relay.pace = Some(Pace { bytes: 64 << 10, pause_ms: 5 });
        }
    }
}

impl<const DOWN: bool, const UP: bool> Subject for With<DOWN, UP> {
    const JUDGES: bool = true;
    const SECURE: [bool; 2] = [DOWN, UP];

    fn run(_: Option<Bug>, drive: &mut Drive<'_>) -> Result<Ends, String> {
        let (snapshot, tls) = MADE.with(|made| (*made[usize::from(DOWN) + 2 * usize::from(UP)]).clone());
        for upstream in &snapshot.upstreams {
            upstream.set_cursor(world(|w| w.random.below(2) as usize));
        }
        let (log, mut records) = tap(RECORDS);
        let (outbox, inbox) = inbox(Arc::new(SimWaker));
        let (mut services, askers) = SimServices::start();
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
            services: Services::new(askers, outbox),
            tally: Default::default(),
            shard: Arc::new(Shard::default()),
            log,
            unix_ms: 0,
            generation: 0,
            workers: 1,
            draining: false,
        };
        let mut worker = Worker::new(&mut core).map_err(|e| e.to_string())?;
        drive(&mut || {
            let goes_on = worker.run_once().expect("poll of the simulation does not fail");
            services.run();
            goes_on
        })?;
        let (pairs, calls) = worker.held();
        drop(worker);
        let tally = &core.tally;
        let left = [(pairs + calls) as u64, tally.sessions, tally.handshakes, tally.backlog_bytes];
        let taken = [permits[0].taken(), permits[1].taken()];
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
