//! What is tested: the seam between the simulation and a worker. Everything that knows the worker's
//! outward shape stands here.

use crate::asks::{ASKS_MAX, Ask, CALL_MS, CONNECT_MS, Call, PATIENT_MS};
use crate::auth::{self, Kind};
use crate::beat::TIMEOUT_MS;
use crate::bugs::Bug;
use crate::callee::REQUEST;
use crate::calls::{SimListener, SimSys};
use crate::control::Control;
use crate::fleet::{DOWN_CODE, Ejects, Fleet, Outcome, QUEUE_MS, Seat};
use crate::members::Group;
use crate::plain::route;
use crate::schedule::{Leg, Opening, PACE_MS, SESSIONS, Script, Session};
use crate::seal::{NAME, PKI};
use crate::services::{Hub, NoWake};
use crate::world::{World, world};
use aws_lc_rs::hmac;
use framegate::config::{self, Snapshot};
use framegate::log::record::EndRecord;
use framegate::log::{Record, tap};
use framegate::metrics::Shard;
use framegate::policy::ask::{Check, Subrequest};
use framegate::policy::auth::{
    self as policy_auth, Auth, Forward, Introspection, Method, Remote, Requirement, Revoked, Source,
};
use framegate::policy::balance::Balance;
use framegate::policy::candidates::{self, Candidates, Next};
use framegate::policy::endpoint::{Address, Endpoint, Limits, Pick};
use framegate::policy::health::{Ejection, Thresholds};
use framegate::policy::limit::Permits;
use framegate::policy::matching::{Entry, PathPattern, Routes};
use framegate::policy::retry::RetryLimits;
use framegate::policy::route::Route;
use framegate::policy::shadow::{self, Shadow};
use framegate::policy::sticky::{SameSite, Sticky};
use framegate::policy::upstream::{Member, Options, Queue, Rules, Upstream};
use framegate::proto::Sides;
use framegate::proto::end::End;
use framegate::proto::proxy_protocol::Version;
use framegate::proto::rate::{Measure, OnExcess, Rate, RateLimit};
use framegate::proto::settings::{EndpointDown, FlowLimits, Heartbeat, RelaySettings, RetryOn, Settings};
use framegate::tls::{TicketKeys, TlsConfigs};
use framegate::worker::inbox::inbox;
use framegate::worker::listener::Listening;
use framegate::worker::{Worker, WorkerCore};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A verdict, with the port of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub port: u16,
    pub ended: End,
    /// HTTP status and close codes toward each side, as logged. A bare relay knows none.
    pub status: Option<u16>,
    pub codes: Sides<Option<u16>>,
    /// Content of bodies, by the side they came from.
    pub bytes: Sides<u64>,
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
    /// Connections of clients, and to upstreams, begin with a PROXY header.
    const HEADED: bool;
    /// Its schedules are those of plain HTTP.
    const PLAIN: bool;

    /// Brings one up, gives one iteration of its loop after the other to `drive`, and sees that
    /// nothing is left over.
    fn run(bug: Option<Bug>, drive: &mut Drive<'_>) -> Result<Ends, String>;
}

/// The real one, with TLS to clients and to upstreams or without, and with PROXY headers on both
/// sides or without, with plain HTTP or WebSockets.
pub struct With<const DOWN: bool, const UP: bool, const HEADED: bool = false, const PLAIN: bool = false>;

pub type Real = With<false, false>;

/// Verdicts that one schedule may bring.
const RECORDS: usize = 128;

/// What the schedules of a thread share. Upstreams have state, and are made anew for each; those
/// of calls only have a cursor.
struct Made {
    snapshot: Arc<Snapshot>,
    tls: Arc<TlsConfigs>,
    /// A route for each session and leg, without checks.
    plain: Routes,
}

thread_local! {
    /// Without and with TLS to clients, to upstreams, and PROXY headers; at the start, and after a
    /// reload.
    static MADE: RefCell<HashMap<([bool; 3], bool), Made>> = RefCell::default();
}

impl Made {
    fn new(kind: [bool; 3]) -> Made {
        let mut snapshot = snapshot(kind);
        let keys = TicketKeys::new();
        assert!(keys.begin(0), "no random bytes");
        let store = TlsConfigs::load(&snapshot, &keys).unwrap_or_else(|e| panic!("{e:?}"));
        let plain = std::mem::take(&mut snapshot.routes);
        Made { snapshot: Arc::new(snapshot), tls: Arc::new(store), plain }
    }
}

/// The configuration of a schedule: the one that it begins with, or that of its reload.
fn made(kind: [bool; 3], reloaded: bool, script: &Script, bug: Option<Bug>) -> (Arc<Snapshot>, Arc<TlsConfigs>) {
    MADE.with(|made| {
        let mut made = made.borrow_mut();
        let made = made.entry((kind, reloaded)).or_insert_with(|| Made::new(kind));
        let routes = routes(made, script, kind, bug);
        // In every other schedule handshakes have to queue: each pass does one thing for them.
        let parts = script.sessions.iter().flat_map(|session| &session.parts);
        let odd = parts.map(|part| part.plan.len()).sum::<usize>() % 2 == 1;
        let slow = script.plain.as_ref().map_or(odd, |plan| plan.slow);
        let work = if slow { 1 } else { 32 };
        match Arc::get_mut(&mut made.snapshot) {
            Some(snapshot) => (snapshot.routes, snapshot.shield.work) = (routes, work),
            // A schedule that has failed may hold it for ever.
            None => {
                *made = Made::new(kind);
                let snapshot = Arc::get_mut(&mut made.snapshot).expect("a snapshot that nobody has yet");
                (snapshot.routes, snapshot.shield.work) = (routes, work);
            }
        }
        // Orders of the schedule before.
        made.snapshot.revoked.inherit(&Revoked::default());
        (Arc::clone(&made.snapshot), Arc::clone(&made.tls))
    })
}

/// Routes for each session and leg. Two endpoints for each callee.
fn snapshot([down, up, headed]: [bool; 3]) -> Snapshot {
    let mut text =
        String::from("[limits]\nmax_sessions = 1000\nmax_handshakes = 1000\n[[listener]]\nlisten = \"192.0.2.0:80\"\n");
    let (cert, key) = (&PKI.cert, &PKI.key);
    if down {
        text += &format!("tls = {{ certificates = [{{ cert = {cert:?}, key = {key:?} }}] }}\n");
    }
    if headed {
        text += "proxy_protocol = true\ntrusted_proxies = [\"192.0.2.0/24\"]\n";
    }
    let (scheme, tls) = match up {
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
            // A request that is no handshake is refused.
            text += "[[route]]\nprotocols = [\"websocket\"]\n";
            text += &format!("path = \"/{i}/{leg}\"\nupstream = \"{upstream}{i}\"\nmode = \"{mode}\"\n");
            if mode == "framed" && i % 2 == 1 {
                text += "splice = \"on\"\n";
            }
        }
    }
    text += &route::config(scheme, &tls);
    let mut snapshot = config::parse(&text, "sim").unwrap_or_else(|e| panic!("{e}"));
    (snapshot.limits.max_shadows, snapshot.limits.shadow_buffer_bytes) = (10, 16 << 20);
    snapshot
}

/// The routes of a schedule: one for each session, with its questions, its read allowance and its
/// endpoints. No configuration key sets all of that yet.
fn routes(made: &Made, script: &Script, kind: [bool; 3], bug: Option<Bug>) -> Routes {
    let [_, secure, headed] = kind;
    let mut entries = Vec::new();
    for (index, session) in script.sessions.iter().enumerate() {
        let path = format!("/{index}/{}", session.leg.name());
        let plain = PathPattern::Exact(path.clone());
        let base = made.plain.entries().iter().find(|entry| entry.path == plain).expect("a route for each leg");
        let path = path + &session.suffix();
        let route = Arc::new(Variant { index, session, secure, headed, bug }.of(&made.snapshot, &base.route, &path));
        entries.push(Entry { path: PathPattern::Exact(path), route, ..base.clone() });
    }
    entries.extend(script.plain.iter().map(|plan| route::entry(made.plain.entries(), plan, [secure, headed])));
    // Requests that are refused name this one.
    let plain = PathPattern::Exact("/0/tcp".into());
    if !entries.iter().any(|entry| entry.path == plain) {
        let base = made.plain.entries().iter().find(|entry| entry.path == plain).expect("a route for each leg");
        entries.push(base.clone());
    }
    Routes::new(entries)
}

/// The address of an endpoint of a session's upstream.
fn address(session: usize, endpoint: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, session as u8, endpoint as u8 + 1], 80))
}

/// The second part of the addresses of shadows.
pub const SHADOWS: usize = 9;

/// The endpoint of a session's shadow.
fn shadow_endpoint(session: usize) -> Endpoint {
    let addr = SocketAddr::from(([10, SHADOWS as u8, session as u8, 1], 80));
    Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new())
}

/// A member of a session's upstream, with an object of its own.
pub fn member(session: usize, seat: Seat, secure: bool) -> Member {
    let addr = address(session, seat.endpoint);
    let url = format!("{}://{addr}", if secure { "wss" } else { "ws" });
    let endpoint = Arc::new(Endpoint::new(url, Address::Tcp(addr), secure, String::new()));
    Member { endpoint, weight: seat.weight, priority: seat.priority }
}

/// Which endpoint of a session's upstream it is.
pub fn number_of(endpoint: &Endpoint) -> usize {
    match &endpoint.address {
        Address::Tcp(SocketAddr::V4(addr)) => usize::from(addr.ip().octets()[3]) - 1,
        other => panic!("no endpoint of ours: {other:?}"),
    }
}

/// The result of a health check reaches an endpoint. Whether it is up now, if that is new.
pub fn report(endpoint: &Endpoint, passed: bool, [rise, fall]: [u32; 2], now: u64) -> Option<bool> {
    endpoint.health.on_check(passed, Thresholds { rise, fall }, now)
}

const COOKIE: &str = "seat";
const SECRET: &str = "of the simulation";

/// The value of a cookie that names an endpoint: 128 bits of HMAC-SHA256 of its URL.
pub fn cookie_of(session: usize, endpoint: usize, secure: bool) -> String {
    let url = format!("{}://{}", if secure { "wss" } else { "ws" }, address(session, endpoint));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, url.as_bytes());
    let hex: String = tag.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{COOKIE}={hex}")
}

fn sticky() -> Sticky {
    let (cookie, secret, path) = (COOKIE.to_owned(), Some(SECRET.to_owned()), "/".to_owned());
    Sticky { cookie, secret, path, same_site: SameSite::Lax, max_age_s: None }
}

fn rules(fleet: &Fleet) -> Rules {
    let ejection = fleet.ejects.map(|ejects| {
        let Ejects { failures, time_ms, max_percent } = ejects;
        Arc::new(Ejection { failures, time_ms, max_percent, ..Ejection::default() })
    });
    Rules {
        balance: Balance::ALL[fleet.balance % Balance::ALL.len()],
        ejection,
        endpoint_limits: Limits { sessions: fleet.limit, pending: None },
        queue: Queue { max: fleet.queue, timeout_ms: QUEUE_MS },
        sticky: fleet.sticky.map(|_| sticky()),
        retries: fleet.retries.map_or_else(RetryLimits::default, |reserve| RetryLimits { percent: 0, reserve }),
        ..Rules::default()
    }
}

/// A session of another worker, from its choice of an endpoint to the end of its handshake.
#[derive(Debug)]
pub struct Other {
    candidates: Candidates,
    pick: Pick,
}

impl Other {
    /// `None`: there is no endpoint for it, or no room.
    pub fn begin(upstream: &Arc<Upstream>, seed: u64, now: u64) -> Option<Other> {
        let mut candidates = upstream.candidates(&candidates::Ask { seed, ..Default::default() });
        match candidates.next(now) {
            Next::Try { pick, .. } => Some(Other { candidates, pick }),
            Next::Wait { .. } | Next::Refuse(_) => None,
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        self.pick.endpoint()
    }

    pub fn end(mut self, outcome: Outcome, now: u64) {
        match outcome {
            Outcome::Succeeds => self.candidates.succeed(now),
            Outcome::Fails => self.candidates.fail(now),
            Outcome::Leaves => {}
        }
    }
}

/// The route of a session.
struct Variant<'a> {
    index: usize,
    session: &'a Session,
    /// Its upstream has TLS.
    secure: bool,
    /// Its upstream gets PROXY headers.
    headed: bool,
    bug: Option<Bug>,
}

impl Variant<'_> {
    fn of(&self, snapshot: &Snapshot, base: &Route, name: &str) -> Route {
        let keeps_or_closes =
            |ms: Option<u64>| ms.map_or(EndpointDown::Keep, |spread_ms| EndpointDown::Close { spread_ms });
        let endpoint_down = keeps_or_closes(self.session.fleet.closes_ms);
        let shadow = self.session.shadow.map(|plan| {
            let upstream =
                Arc::new(Upstream::new("shadow".into(), vec![shadow_endpoint(self.index).into()], Options::default()));
            Shadow { upstream, share: shadow::WHOLE, buffer_bytes: plan.buffer }
        });
        // What the kernel forwards cannot go to a shadow.
        let splice = base.settings.relay.splice && shadow.is_none();
        let heartbeat = self.session.beat.filter(|_| self.bug != Some(Bug::NoHeartbeat)).map(|beat| Heartbeat {
            interval_ms: Sides(beat.intervals_ms),
            timeout_ms: if self.bug == Some(Bug::Impatient) { 1 } else { TIMEOUT_MS },
        });
        let relay = RelaySettings {
            splice,
            heartbeat,
            flow: self.flow(),
            endpoint_down,
            endpoint_down_code: DOWN_CODE,
            ..base.settings.relay.clone()
        };
        let settings = Arc::new(Settings { relay, retry_on: self.retry_on(), ..(*base.settings).clone() });
        let asks = || self.session.asks.iter().enumerate();
        let checks = asks().filter_map(|(at, ask)| self.check(snapshot, at, ask)).collect();
        let auth = asks().find_map(|(at, ask)| self.auth(snapshot, at, ask));
        Route {
            settings,
            checks,
            auth,
            shadow,
            protocols: base.protocols,
            ..Route::new(name.to_owned(), self.upstream(&base.upstreams()[0]))
        }
    }

    fn flow(&self) -> FlowLimits {
        if let Some(limit) = self.session.limit {
            let mut rates = Sides::<Vec<RateLimit>>::default();
            rates[limit.side].push(self.bug.map_or(limit.setting(), |bug| bug.on_limit(limit.setting())));
            return FlowLimits { rates, ..FlowLimits::default() };
        }
        let Some(pace) = self.session.pace else { return FlowLimits::default() };
        let period_ms = if self.bug == Some(Bug::ShortPause) { 1 } else { PACE_MS };
        let (measure, rate) = (Measure::Bytes, Rate { units: pace.bytes as u64, period_ms });
        let limit = RateLimit { measure, rate, burst: rate.units, on_excess: OnExcess::Pause, close_code: 1008 };
        FlowLimits { rates: Sides::new(vec![limit], vec![limit]), ..FlowLimits::default() }
    }

    fn retry_on(&self) -> RetryOn {
        let by = self.session.retry.map(|retry| retry.by);
        RetryOn {
            closed: by == Some(Opening::Hangs),
            timeout: by == Some(Opening::Silent),
            statuses: (by == Some(Opening::Answers)).then_some(403).into_iter().collect(),
        }
    }

    /// The upstream of the script.
    fn upstream(&self, base: &Arc<Upstream>) -> Arc<Upstream> {
        let fleet = &self.session.fleet;
        if self.session.leg == Leg::Unix {
            return Arc::clone(base);
        }
        let members = fleet.seats.iter().map(|seat| member(self.index, *seat, self.secure)).collect();
        let rules = Rules { proxy_protocol: self.headed.then_some(Version::V1), ..rules(fleet) };
        let options = Options { rules, tls: base.tls.clone(), check: None };
        Arc::new(Upstream::new(base.name.clone(), members, options))
    }

    fn check(&self, snapshot: &Snapshot, at: usize, ask: &Ask) -> Option<Check> {
        let call = match ask {
            Ask::Service(_) => return Some(Check::Service(self.index)),
            Ask::Call(call) if call.kind == Kind::Check => call,
            Ask::Call(_) => return None,
        };
        let (upstream, timeout_ms) = (self.callee(snapshot, at), self.timeout_ms(call));
        let subrequest = Subrequest::new(upstream, REQUEST.to_vec(), timeout_ms, CONNECT_MS);
        Some(Check::Subrequest(Arc::new(subrequest)))
    }

    fn timeout_ms(&self, call: &Call) -> u64 {
        if call.patient || self.bug == Some(Bug::NoCallTimeout) { PATIENT_MS } else { CALL_MS }
    }

    fn callee(&self, snapshot: &Snapshot, at: usize) -> Arc<Upstream> {
        let name = format!("ask{}-{}", at + 1, self.index);
        Arc::clone(snapshot.upstreams.iter().find(|upstream| upstream.name == name).expect("a callee"))
    }

    /// What the route asks of credentials, if this asks about them.
    fn auth(&self, snapshot: &Snapshot, at: usize, ask: &Ask) -> Option<Auth> {
        let Ask::Call(call) = ask else { return None };
        let mut server = Remote::new(self.callee(snapshot, at), auth::HOST.to_owned(), auth::PATH.to_owned());
        (server.timeout_ms, server.connect_ms) = (self.timeout_ms(call), CONNECT_MS);
        let kind = match call.kind {
            Kind::Check => return None,
            Kind::Forward => policy_auth::Kind::Forward(Forward {
                server,
                method: "GET",
                headers: None,
                copy: Vec::new(),
                identity_header: Some(auth::SUBJECT_FIELD.to_owned()),
                expires_header: Some(auth::EXPIRES_FIELD.to_owned()),
                cache: Vec::new(),
            }),
            Kind::Introspection => policy_auth::Kind::Introspection(Introspection {
                server,
                authorization: Default::default(),
                issuer: Vec::new(),
                audience: Vec::new(),
                leeway_ms: 0,
                subject_claim: None,
                roles_claim: None,
            }),
        };
        let from = vec![Source::Authorization("Bearer")];
        let method = Method { name: "sim".to_owned(), from, kind };
        Some(Auth::new(Requirement::Method(Arc::new(method)), Vec::new(), Vec::new()))
    }
}

impl<const DOWN: bool, const UP: bool, const HEADED: bool, const PLAIN: bool> Subject
    for With<DOWN, UP, HEADED, PLAIN>
{
    const JUDGES: bool = true;
    const SECURE: [bool; 2] = [DOWN, UP];
    const HEADED: bool = HEADED;
    const PLAIN: bool = PLAIN;

    fn run(bug: Option<Bug>, drive: &mut Drive<'_>) -> Result<Ends, String> {
        let script = world(|w| w.script.clone());
        let kind = [DOWN, UP, HEADED];
        let (snapshot, tls) = made(kind, false, &script, bug);
        let reloads = script.sessions.iter().any(|session| session.fleet.reloads()) || script.is_reloaded();
        let after = reloads.then(|| made(kind, true, &script, bug));
        world(|w| {
            open_upstreams(&snapshot, bug, w);
            let after = after.iter().map(|(snapshot, _)| snapshot);
            w.plain.upstreams =
                [&snapshot].into_iter().chain(after).filter_map(|s| route::upstream(s.routes.entries())).collect();
        });
        let upstreams = snapshot.upstreams.clone();
        let routes = snapshot.routes.entries().to_vec();
        let shadows: Vec<_> = snapshot.routes.entries().iter().filter_map(|e| e.route.shadow.as_ref()).collect();
        let shadows: Vec<_> = shadows.iter().map(|shadow| Arc::clone(&shadow.upstream)).collect();
        let (log, mut records) = tap(RECORDS);
        let (outbox, inbox) = inbox(Arc::new(NoWake));
        let services = world(|w| {
            let (hub, services) = Hub::open(&w.script, outbox.clone());
            let (before, current) = (Arc::clone(&snapshot), Arc::clone(&snapshot));
            w.control = Some(Control { worker: outbox, before, after, current });
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
            peers: Default::default(),
        };
        let mut worker = Worker::new(&mut core).map_err(|e| e.to_string())?;
        drive(&mut || worker.run_once().expect("poll of the simulation does not fail"))?;
        let (pairs, calls) = worker.held();
        // A worker that stops closes them with itself.
        let links = if script.is_stopped() { 0 } else { worker.links() };
        drop(worker);
        world(|w| w.control = None);
        let tally = &core.tally;
        let left = [(pairs + calls + links) as u64, tally.sessions, tally.handshakes, tally.backlog_bytes];
        let taken = [permits[0].taken(), permits[1].taken()];
        let held: usize = upstreams.iter().flat_map(|u| u.endpoints().to_vec()).map(|e| e.sessions()).sum();
        let held = held + world(|w| w.groups.iter().map(Group::sessions).sum::<usize>());
        route::check_counts(&routes)?;
        check_shadows(&shadows, [tally.shadow_sessions, tally.shadow_backlog_bytes])?;
        let queued: usize = world(|w| w.groups.iter().map(Group::held).sum());
        let stuck = world(|w| w.groups.iter().filter(|group| group.has_stuck(w.kernel.now)).count());
        if stuck > 0 {
            return Err(format!("an endpoint of {stuck} upstreams never gets a session again"));
        }
        if held + queued > 0 {
            return Err(format!("{held} sessions are still counted by endpoints, {queued} by upstreams"));
        }
        if left != [0; 4] || taken != [0; 2] || tally.log_lost > 0 {
            return Err(format!("left over: pairs, sessions, handshakes, backlog {left:?}; permits {taken:?}"));
        }
        let mut ends = Ends::new();
        while let Ok(record) = records.pop() {
            if let Record::End(end) = record {
                let (port, codes, status) = (end.peer.port(), end.close_codes, Some(end.status));
                let EndRecord { end: ended, age_ms, bytes, .. } = end;
                ends.push(Verdict { port, ended, status, codes, bytes, age_ms });
            }
        }
        Ok(ends)
    }
}

/// Nothing is left of shadows: in the counts of their upstreams, and in those of the worker.
fn check_shadows(upstreams: &[Arc<Upstream>], held: [u64; 2]) -> Result<(), String> {
    let counted: Vec<_> = upstreams.iter().map(|upstream| upstream.sessions()).collect();
    let left = counted.iter().any(|counts| *counts != (0, 0)) || held != [0; 2];
    if left { Err(format!("left over of shadows: counted {counted:?}, open and backlog {held:?}")) } else { Ok(()) }
}

/// The world learns of the upstreams. Which endpoint is tried first depends on the seed alone.
fn open_upstreams(snapshot: &Snapshot, bug: Option<Bug>, w: &mut World) {
    let of_routes = snapshot.routes.entries().iter().flat_map(|entry| entry.route.upstreams());
    for upstream in snapshot.upstreams.iter().chain(of_routes) {
        upstream.restart(w.random.word());
    }
    for (index, session) in w.script.sessions.iter().enumerate().filter(|(_, session)| session.leg != Leg::Unix) {
        let upstream = upstream_of(snapshot, index, session).expect("an upstream of its own");
        if bug == Some(Bug::LeakedPick) {
            std::mem::forget(upstream.candidates(&Default::default()).next(w.kernel.now / 1_000));
        }
        let began = w.kernel.now + session.start_ms * 1_000;
        w.groups[index].open(upstream, &session.fleet.seats, w.kernel.now, began);
    }
}

/// The upstream of a session, unless that is a Unix socket.
pub fn upstream_of(snapshot: &Snapshot, index: usize, session: &Session) -> Option<Arc<Upstream>> {
    let path = PathPattern::Exact(format!("/{index}/{}{}", session.leg.name(), session.suffix()));
    let entry = snapshot.routes.entries().iter().find(|entry| entry.path == path && session.leg != Leg::Unix)?;
    Some(Arc::clone(&entry.route.upstreams()[0]))
}
