//! Runs schedules: one, or many on all CPUs, and prints how to replay a failing one.

use crate::asks::{ASKS_MAX, Ask, Gives};
use crate::auth::Kind;
use crate::bugs::Bug;
use crate::coverage::{Coverage, MET, Met};
use crate::faults::{Fault, KINDS, NAMES};
use crate::fleet::Cookie;
use crate::oracle::{Asked, Case};
use crate::peers::Peer;
use crate::schedule::{Opening, SESSIONS, Script};
use crate::subject::{Subject, Verdict};
use crate::world::{World, world};
use framegate::proto::end::{Cause, End, Phase};
use framegate::proto::{Side, Sides};
use framegate::worker::sys::clock_us;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Virtual time after which a schedule counts as stuck, in microseconds: above the idle timeout
/// twice over.
const STUCK_AFTER: u64 = 1_800_000_000;
/// The most iterations of a schedule; a thousand times what one takes.
const PASSES_MAX: u32 = 2_000_000;

/// A schedule that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// Of the script, and of the faults and cuts.
    pub seed: u64,
    pub cuts: u64,
    pub what: String,
}

/// The ends of one schedule, by session.
pub type Verdicts = [Option<End>; SESSIONS];

/// Runs the script of `seed` under the faults and cuts of `cuts`.
pub fn one<S: Subject>(seed: u64, cuts: u64, bug: Option<Bug>) -> Result<Verdicts, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| schedule::<S>(seed, cuts, bug)));
    let what = match result {
        Ok(Ok(verdicts)) => return Ok(verdicts),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    Err(Failure { seed, cuts, what })
}

fn schedule<S: Subject>(seed: u64, cuts: u64, bug: Option<Bug>) -> Result<Verdicts, String> {
    let script = if S::PLAIN { Script::draw_plain(seed) } else { Script::draw(seed, S::JUDGES) };
    world(|w| {
        w.secure = Sides::new(S::SECURE[0], S::SECURE[1]);
        w.headed = S::HEADED;
        w.begin(script, cuts);
        if !S::JUDGES {
            w.kernel.faults.never(Fault::NoSocket);
        }
        w.bug = bug;
    });
    let ended = S::run(bug, &mut drive)?;
    world(|w| judge(w, &ended))
}

/// Runs loop iterations until the schedule is over.
fn drive(pass: &mut dyn FnMut() -> bool) -> Result<(), String> {
    for _ in 0..PASSES_MAX {
        if !pass() {
            return world(|w| w.check_stop());
        }
        match world(|w| state(w)) {
            State::Running => {}
            State::Over => return Ok(()),
            State::Stuck => return Err(format!("stuck: {}", world(|w| held(w)))),
        }
    }
    Err(format!("the worker spins: {PASSES_MAX} passes"))
}

enum State {
    Running,
    Over,
    Stuck,
}

fn state(w: &World) -> State {
    // A worker without sessions waits for ever: it has no timer left.
    match (w.still, w.kernel.open_fds == 0 && w.listener.queue.is_empty()) {
        (true, true) => State::Over,
        (true, false) => State::Stuck,
        (false, _) if w.kernel.now > STUCK_AFTER => State::Stuck,
        (false, _) => State::Running,
    }
}

fn held(w: &World) -> String {
    format!("{} descriptors, {} clients in the queue", w.kernel.open_fds, w.listener.queue.len())
}

fn judge(w: &mut World, ended: &[Verdict]) -> Result<Verdicts, String> {
    if w.kernel.trace {
        w.peers[..w.peers_used].iter().for_each(|peer| eprintln!("{}", peer.state()));
        w.trace_plain();
        ended.iter().for_each(|verdict| eprintln!("{verdict:?}"));
    }
    w.finish();
    if w.kernel.open_fds != 0 {
        return Err(format!("{} descriptors leaked", w.kernel.open_fds));
    }
    let (mut verdicts, mut mets) = (Verdicts::default(), Vec::new());
    if let Some(plan) = w.script.plain.take() {
        let replies = w.judge_plain(&plan, ended)?;
        w.cover_plain(&plan, &replies);
        return Ok(verdicts);
    }
    (0..w.script.sessions.len()).for_each(|session| cover(w, session, ended));
    for callee in &w.callees {
        if callee.kind_is_auth() {
            w.lives[callee.session].answered = callee.said_at.or(w.lives[callee.session].answered);
        }
    }
    let (faults, secure, starved) = (w.kernel.faults.total(), w.secure[Side::Upstream], w.starved_connects);
    let peers = &w.peers[..w.peers_used];
    for (index, session) in w.script.sessions.iter().enumerate() {
        let of = |side: Side| move |p: &&Peer| p.session == Some(index) && p.side == Some(side);
        let client = peers.iter().find(of(Side::Downstream)).ok_or("no client")?;
        let backend = peers.iter().rev().find(of(Side::Upstream));
        let ended: Vec<Verdict> = ended.iter().filter(|v| v.port == 1000 + index as u16).copied().collect();
        verdicts[index] = ended.first().map(|verdict| verdict.ended);
        let asked = std::array::from_fn(|ask| asked(w, index, ask));
        let (group, life, flow, first) = (&w.groups[index], &w.lives[index], &w.flows[index], index == 0);
        let backends = || peers.iter().filter(of(Side::Upstream));
        let requests = backends().filter(|backend| backend.facts.head_ok).count();
        let case = Case {
            index,
            session,
            client,
            backend,
            requests,
            ended: &ended,
            asked,
            group,
            life,
            flow,
            starved,
            secure,
            first,
            faults,
        };
        let (whole, met) = (session.is_certain(), case.met_by_limit());
        case.judge().and_then(|()| w.judge_shadow(index, whole)).map_err(|e| {
            format!("session {index} ({:?}, {:?}, {:?}): {e}", session.leg, session.opening, session.end)
        })?;
        mets.extend(met);
    }
    mets.into_iter().for_each(|met| w.coverage.meet(met));
    Ok(verdicts)
}

/// How often a question of a session was put.
fn asked(w: &World, session: usize, ask: usize) -> Asked {
    if let Some(Ask::Service(_)) = w.script.sessions[session].asks.get(ask) {
        let asked = w.services.as_ref().map_or(0, |services| services.asked[session]);
        return Asked { asked, ..Asked::default() };
    }
    let callees = || w.callees.iter().filter(|callee| (callee.session, callee.ask) == (session, ask));
    Asked {
        asked: callees().filter(|callee| callee.was_asked()).count(),
        connections: callees().count(),
        wrongly: callees().any(|callee| callee.was_asked_wrongly()),
    }
}

/// What a session has met.
fn cover(w: &mut World, index: usize, ended: &[Verdict]) {
    cover_endpoints(w, index);
    cover_credentials(w, index, ended);
    let session = &w.script.sessions[index];
    let Some(verdict) = ended.iter().find(|verdict| verdict.port == 1000 + index as u16) else { return };
    if w.peers[..w.peers_used].iter().any(|peer| peer.session == Some(index) && peer.heard.pings > 0) {
        w.coverage.meet(Met::Pinged);
    }
    if verdict.ended.cause == Cause::HeartbeatTimeout {
        w.coverage.meet(Met::Dead);
    }
    if verdict.ended.cause == Cause::NoEndpoint {
        w.coverage.meet(Met::NoneLeft);
    }
    if matches!(verdict.ended.cause, Cause::UpstreamFull | Cause::QueueTimeout) {
        w.coverage.meet(Met::Full);
    }
    let put: [Asked; ASKS_MAX] = std::array::from_fn(|ask| asked(w, index, ask));
    let Some(last) = put.iter().rposition(|put| put.asked + put.connections > 0) else { return };
    let left = matches!(session.opening, Opening::LeavesWaiting { .. });
    let met = match (verdict.ended.phase, verdict.ended.cause, &session.asks[last]) {
        (Phase::Request, Cause::Forbidden, _) => Met::Denied,
        (Phase::Request, Cause::DecisionFailed, _) => Met::Failed,
        (Phase::Request, Cause::DecisionTimeout, _) if verdict.age_ms < 3_000 => Met::Failed,
        (Phase::Request, Cause::DecisionTimeout, _) => Met::Expired,
        (Phase::Request, _, Ask::Call(_)) if left => Met::LeftDuringCall,
        (Phase::Request, _, Ask::Service(_)) if left => Met::LeftDuringService,
        (Phase::Open, ..) => Met::AskedAndAdmitted,
        _ => return,
    };
    w.coverage.meet(met);
}

/// What a session has met that concerns its credentials.
fn cover_credentials(w: &mut World, index: usize, ended: &[Verdict]) {
    let session = &w.script.sessions[index];
    let Some(Ask::Call(call)) =
        session.asks.last().filter(|ask| matches!(ask, Ask::Call(call) if call.kind != Kind::Check))
    else {
        return;
    };
    let End { phase, cause, .. } = match ended.iter().find(|verdict| verdict.port == 1000 + index as u16) {
        Some(verdict) => verdict.ended,
        None => return,
    };
    let asked = asked(w, index, session.asks.len() - 1).asked > 0;
    let gave_none = !matches!(call.gives(), Gives::Admits(_));
    let met = match (phase, cause) {
        (Phase::Open, Cause::Revoked) => Met::ClosedAsRevoked,
        (Phase::Open, Cause::Expired) => Met::ClosedAsExpired,
        (Phase::Open, _) => Met::Credentials,
        (Phase::Request, Cause::Forbidden | Cause::BadCredentials | Cause::DecisionFailed) if asked && gave_none => {
            Met::Unproven
        }
        (Phase::Request, Cause::Eof | Cause::Reset) if asked => Met::LeftDuringAuth,
        _ => return,
    };
    w.coverage.meet(met);
}

/// What a session has met that concerns its endpoint.
fn cover_endpoints(w: &mut World, index: usize) {
    let (session, group) = (&w.script.sessions[index], &w.groups[index]);
    let peers = || w.peers[..w.peers_used].iter().filter(|peer| peer.session == Some(index));
    let opened = peers().any(|peer| peer.side == Some(Side::Downstream) && peer.facts.opened);
    let cookie = session.fleet.sticky.zip(group.last_endpoint()).filter(|_| opened);
    let met = cookie.and_then(|(cookie, endpoint)| match cookie {
        Cookie::Of(named) if named == endpoint => Some(Met::CameBack),
        Cookie::Of(_) => Some(Met::Moved),
        Cookie::Missing | Cookie::Wrong => None,
    });
    let requests = peers().filter(|peer| peer.side == Some(Side::Upstream) && peer.facts.head_ok).count();
    let spent = session.fleet.retries.is_some_and(|retries| group.attempts.len() > retries as usize);
    let failed = session.retry.is_some() && requests > 0 && !opened;
    let kinds = [met, (requests > 1).then_some(Met::Retried), (spent && failed).then_some(Met::RetriesSpent)];
    kinds.into_iter().flatten().for_each(|met| w.coverage.meet(met));
}

/// The totals of many schedules.
pub struct Report {
    pub schedules: u64,
    pub counts: [u64; KINDS],
    pub met: [u64; MET.len()],
    pub failures: Vec<Failure>,
    pub took: Duration,
    /// CPU time of all threads: the load of other processes does not count.
    pub busy: Duration,
}

impl Report {
    /// The table of faults, and the speed.
    pub fn print(&self) {
        let rate = |time: Duration| self.schedules as f64 / time.as_secs_f64();
        println!(
            "{} schedules in {:.1} s: {:.0} a second, {:.0} a second of CPU",
            self.schedules,
            self.took.as_secs_f64(),
            rate(self.took),
            rate(self.busy)
        );
        for (name, count) in NAMES.iter().zip(self.counts) {
            println!("  {count:>12}  {name}");
        }
        println!("schedules in which");
        for (name, count) in MET.iter().zip(self.met).filter(|(_, count)| *count > 0) {
            println!("  {count:>12}  {name}");
        }
    }

    /// Fails with the first failing seed and the command that replays it; `tls` is its prefix.
    pub fn must_be_clean(&self, tls: &str) {
        let Some(Failure { seed, cuts, what }) = self.failures.iter().min_by_key(|f| f.seed) else { return };
        let cuts = if cuts == seed { String::new() } else { format!(" SIM_CUTS={cuts}") };
        let command =
            format!("{tls}SIM_SEED={seed}{cuts} cargo test --profile sim --test sim all_schedules -- --nocapture");
        panic!("seed {seed}: {what}\n  replay: {command}");
    }
}

pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Runs `job` for `count` seeds from `first` on, on all CPUs, until one fails.
pub fn many(first: u64, count: u64, job: impl Fn(u64) -> Result<(), Failure> + Sync) -> Report {
    let next = AtomicU64::new(first);
    let start = Instant::now();
    let work = || {
        let (mut done, mut failures) = (0, Vec::new());
        let cpu = clock_us(libc::CLOCK_THREAD_CPUTIME_ID);
        let before = world(|w| {
            w.coverage = Coverage::default();
            w.kernel.faults.counts
        });
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            done += 1;
            if let Err(failure) = job(seed) {
                failures.push(failure);
                next.store(first + count, Ordering::Relaxed);
            }
        }
        let mut counts = world(|w| w.kernel.faults.counts);
        counts.iter_mut().zip(before).for_each(|(c, b)| *c -= b);
        let met = world(|w| w.coverage.counts);
        (done, counts, met, failures, clock_us(libc::CLOCK_THREAD_CPUTIME_ID) - cpu)
    };
    let (took, busy) = (Duration::ZERO, Duration::ZERO);
    let mut report = Report { schedules: 0, counts: [0; KINDS], met: [0; MET.len()], failures: Vec::new(), took, busy };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (done, counts, met, failures, busy_us) = thread.join().expect("a schedule's panic is caught");
            report.schedules += done;
            report.busy += Duration::from_micros(busy_us);
            report.counts.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            report.met.iter_mut().zip(met).for_each(|(sum, n)| *sum += n);
            report.failures.extend(failures);
        }
    });
    report.took = start.elapsed();
    report
}
