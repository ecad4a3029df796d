//! A run from its plan to its outcome: starts the threads, opens, settles, measures, waits for the
//! last replies, closes. Only this file knows the order of the phases. Reports progress to a
//! [`Observer`] as it happens.

use crate::failure::Usage;
use crate::percentile;
use crate::run::client::Client;
use crate::run::group::{Clock, Share, Timeline};
use crate::run::limits;
use crate::run::measure::{Counts, GroupOutcome, Histograms, Interval, Metric, Outcome, Sample, ThreadUse};
use crate::run::plan::Plan;
use crate::{Failure, proc};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

/// How often threads look at what the others say while nothing is measured.
const LOOK: Duration = Duration::from_millis(5);
/// Interval of progress reports to the observer.
const TICK: Duration = Duration::from_millis(200);
/// Time for connections to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// Receives the progress of a run. All of it happens on the thread that called
/// [`run`].
pub trait Observer {
    /// All connections that will open are open; traffic begins now.
    fn traffic_begins(&mut self, _connections: usize) {}
    /// The measured window begins.
    fn measure_begins(&mut self) {}
    /// Replies may still come, but nothing new leaves.
    fn traffic_ended(&mut self) {}
    /// A piece of the measured window is over: when it began, and what was measured by all threads,
    /// group by group.
    fn interval(&mut self, _interval: &Interval, _groups: &[(&str, Histograms)]) {}
    /// At least five times a second.
    fn tick(&mut self, _progress: &Progress) {}
}

/// No observer.
pub struct NoObserver;
impl Observer for NoObserver {}

/// The progress of a run.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub phase: Phase,
    pub connections: usize,
    pub wanted: usize,
    /// Of the measured window.
    pub elapsed: Duration,
    pub measure: Duration,
    pub last: Interval,
    pub errors: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    #[default]
    Ramp,
    Settle,
    Measure,
    Cooldown,
}

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Set by an interrupt: the run ends early, and its outcome is reported.
pub fn stop_flag() -> Arc<AtomicBool> {
    STOP.clone()
}

/// What threads say.
enum Report {
    /// Its connections are open.
    Up(Vec<[Sample; 2]>),
    /// The measured window begins.
    Settled(Vec<[Sample; 2]>),
    Interval(usize, Vec<[Sample; 2]>),
    Measured(ThreadUse),
    Rest(Vec<[Sample; 2]>),
    Failed(String),
}

/// What the threads share.
struct Shared {
    plan: Plan,
    clock: Clock,
    timeline: OnceLock<Timeline>,
    abandoned: AtomicBool,
    /// Length of an interval.
    interval: Duration,
}

/// Runs `plan`, in intervals of `interval` as the observer sees them.
pub fn run(plan: &Plan, interval: Duration, observer: &mut dyn Observer) -> Result<Outcome, Failure> {
    let shared = Arc::new(Shared {
        plan: plan.clone(),
        clock: Clock::start(),
        timeline: OnceLock::new(),
        abandoned: AtomicBool::new(false),
        interval,
    });
    let (tx, rx) = channel();
    std::thread::scope(|scope| {
        let mut spares = Vec::new();
        for index in 0..plan.threads {
            let (spare_tx, spare_rx) = channel();
            spares.push(spare_tx);
            let (shared, tx) = (shared.clone(), tx.clone());
            let thread = move || {
                let share = Share { index, of: shared.plan.threads };
                if let Err(failure) = thread(&shared, share, &tx, &spare_rx) {
                    // The other end is only gone when the run has failed already.
                    let _sent = tx.send(Report::Failed(failure.to_string()));
                }
            };
            scope.spawn(thread);
        }
        drop(tx);
        let done = Director::new(&shared, spares).direct(&rx, observer);
        if done.is_err() {
            shared.abandoned.store(true, Ordering::Relaxed);
        }
        done
    })
}

/// The main thread's part: sets the windows and puts the pieces together.
struct Director<'a> {
    shared: &'a Shared,
    spares: Vec<Sender<Vec<[Sample; 2]>>>,
    up: usize,
    settled: usize,
    rested: usize,
    /// Open connections, as reported by the threads.
    open: usize,
    groups: Vec<GroupOutcome>,
    intervals: BTreeMap<usize, Pending>,
    outcome: Outcome,
    phase: Phase,
    last: Interval,
}

/// An interval that not all threads have reported yet.
#[derive(Default)]
struct Pending {
    threads: usize,
    groups: Vec<Histograms>,
    counts: Counts,
    whole: Counts,
}

impl<'a> Director<'a> {
    fn new(shared: &'a Shared, spares: Vec<Sender<Vec<[Sample; 2]>>>) -> Director<'a> {
        let group =
            |group: &crate::run::plan::Group| GroupOutcome { requested: group.requested(), ..GroupOutcome::default() };
        let outcome = Outcome { url: shared.plan.url.clone(), ..Outcome::default() };
        let groups = shared.plan.groups.iter().map(group).collect();
        let (intervals, last) = (BTreeMap::new(), Interval::default());
        Director {
            shared,
            spares,
            up: 0,
            settled: 0,
            rested: 0,
            open: 0,
            groups,
            intervals,
            outcome,
            phase: Phase::Ramp,
            last,
        }
    }

    fn direct(mut self, rx: &Receiver<Report>, observer: &mut dyn Observer) -> Result<Outcome, Failure> {
        let memory_before = proc::own_private_dirty_kib().unwrap_or_default();
        while self.rested < self.shared.plan.threads {
            match rx.recv_timeout(TICK.min(LOOK * 4)) {
                Ok(report) => self.on_report(report, observer)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("a load generator thread exited unexpectedly".into()),
            }
            self.on_time(memory_before, observer);
        }
        self.outcome.groups = self.groups;
        Ok(self.outcome)
    }

    /// The windows follow the clock.
    fn on_time(&mut self, memory_before: u64, observer: &mut dyn Observer) {
        let now = self.shared.clock.now();
        let timeline = self.shared.timeline.get();
        let phase = match timeline {
            None => Phase::Ramp,
            Some(timeline) if now < timeline.measure_from => Phase::Settle,
            Some(timeline) if now < timeline.until => Phase::Measure,
            Some(_) => Phase::Cooldown,
        };
        if phase != self.phase {
            if phase == Phase::Cooldown {
                self.note_memory(memory_before);
            }
            self.phase = phase;
        }
        let elapsed = timeline.map_or(0, |timeline| now.min(timeline.until).saturating_sub(timeline.measure_from));
        observer.tick(&Progress {
            phase,
            connections: self.open,
            wanted: self.shared.plan.groups.iter().map(|group| group.connections).sum(),
            elapsed: Duration::from_nanos(elapsed),
            measure: self.shared.plan.windows.measure,
            last: self.last,
            errors: self.groups.iter().map(|group| group.whole.counts.errors()).sum(),
        });
    }

    fn note_memory(&mut self, before: u64) {
        let now = proc::own_private_dirty_kib().unwrap_or_default();
        // Below that, the buffers of the threads dominate the figure.
        if self.open >= 1000 {
            self.outcome.memory_per_connection = Some(now.saturating_sub(before) as f64 * 1024.0 / self.open as f64);
        }
    }

    fn on_report(&mut self, report: Report, observer: &mut dyn Observer) -> Result<(), Failure> {
        match report {
            Report::Up(samples) => {
                self.up += 1;
                self.add(&samples);
                if self.up == self.shared.plan.threads {
                    self.check_open()?;
                    self.begin(observer);
                }
            }
            Report::Settled(samples) => {
                self.add(&samples);
                self.settled += 1;
                if self.settled == self.shared.plan.threads {
                    observer.measure_begins();
                }
            }
            Report::Interval(index, samples) => self.on_interval(index, samples, observer),
            Report::Measured(used) => {
                self.outcome.threads.push(used);
                self.outcome.measured = self.outcome.measured.min(used.wall);
                if self.outcome.threads.len() == self.shared.plan.threads {
                    observer.traffic_ended();
                }
            }
            Report::Rest(samples) => {
                self.add(&samples);
                self.rested += 1;
            }
            Report::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A run without a single connection has nothing to measure: the first fault says why.
    fn check_open(&self) -> Result<(), Failure> {
        let stays = |group: &&crate::run::plan::Group| group.shape != crate::run::plan::Shape::Churn;
        if self.open > 0 || self.shared.plan.groups.iter().filter(stays).count() == 0 {
            return Ok(());
        }
        let first = self.groups.iter().find_map(|group| group.whole.counts.seen().next().map(|(_, _, fault)| fault));
        let Some(fault) = first else { return Err("interrupted before any connection was opened".into()) };
        Err(format!("no connection could be opened: {fault}").into())
    }

    /// All threads are up: the times of the phases are fixed.
    fn begin(&mut self, observer: &mut dyn Observer) {
        let (clock, windows) = (self.shared.clock, self.shared.plan.windows);
        self.outcome.ramp = Duration::from_nanos(clock.now());
        observer.traffic_begins(self.open);
        let start = clock.now() + 2 * LOOK.as_nanos() as u64;
        let measure_from = start + windows.settle.as_nanos() as u64;
        let until = measure_from + windows.measure.as_nanos() as u64;
        self.outcome.began_unix = clock.unix_ns(measure_from) as f64 / 1e9;
        self.outcome.measured = windows.measure;
        // No other thread sets it.
        let _first = self.shared.timeline.set(Timeline { start, measure_from, until });
    }

    fn add(&mut self, samples: &[[Sample; 2]]) {
        for (group, [measured, whole]) in self.groups.iter_mut().zip(samples) {
            group.measured.add(measured);
            group.whole.add(whole);
        }
        let open = self.groups.iter().map(|group| group.whole.counts.opened - group.whole.counts.ended).sum::<u64>();
        self.open = open as usize;
    }

    fn on_interval(&mut self, index: usize, mut samples: Vec<[Sample; 2]>, observer: &mut dyn Observer) {
        self.add(&samples);
        let pending = self.intervals.entry(index).or_default();
        pending.threads += 1;
        pending.groups.resize_with(samples.len(), Histograms::default);
        for (group, [measured, whole]) in pending.groups.iter_mut().zip(&samples) {
            group.add(&measured.histograms);
            pending.counts.add(&measured.counts);
            pending.whole.add(&whole.counts);
        }
        let is_whole = pending.threads == self.shared.plan.threads;
        for [measured, whole] in &mut samples {
            [measured, whole].into_iter().for_each(|sample| {
                sample.histograms.clear();
                sample.counts = Counts::default();
            });
        }
        // Which thread it goes back to does not matter; a thread that has ended needs none.
        if let Some(spare) = self.spares.get(index % self.spares.len()) {
            let _taken = spare.send(samples);
        }
        if let Some(pending) = is_whole.then(|| self.intervals.remove(&index)).flatten() {
            self.close_interval(index, &pending, observer);
        }
    }

    fn close_interval(&mut self, index: usize, pending: &Pending, observer: &mut dyn Observer) {
        let mut all = Histograms::default();
        pending.groups.iter().for_each(|group| all.add(group));
        let shown = all.get(Metric::RoundTrip).or_else(|| all.get(Metric::OneWay));
        let at = |quantile| shown.map_or(0, |histogram| percentile::value(histogram, quantile));
        let len = self.shared.interval;
        let interval = Interval {
            at: len * index as u32,
            len,
            sent: pending.counts.sent,
            received: pending.counts.received,
            errors: pending.whole.errors(),
            opened: pending.whole.opened,
            ended: pending.whole.ended,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: shown.map_or(0, |histogram| histogram.max()),
        };
        let names = self.groups.iter().map(|group| group.requested.name.as_str());
        let groups: Vec<(&str, Histograms)> = names.zip(pending.groups.iter().cloned()).collect();
        observer.interval(&interval, &groups);
        self.last = interval;
        self.outcome.intervals.push(interval);
    }
}

/// One thread, through all the windows.
fn thread(
    shared: &Shared,
    share: Share,
    tx: &Sender<Report>,
    spares: &Receiver<Vec<[Sample; 2]>>,
) -> Result<(), Failure> {
    let (plan, clock) = (&shared.plan, shared.clock);
    if let Some(cpu) = (!plan.pins.is_empty()).then(|| plan.pins[share.index % plan.pins.len()]) {
        proc::pin(cpu)?;
    }
    let mut client = Client::new(plan, share, clock)?;
    client.begin_ramp(plan.windows.ramp);
    let look = LOOK.as_nanos() as u64;
    while !client.is_up() && !shared.is_over() {
        client.turn(clock.now() + look)?;
    }
    tx.send(Report::Up(client.take(Vec::new())))?;
    let timeline = loop {
        if let Some(timeline) = shared.timeline.get() {
            break *timeline;
        }
        if shared.is_over() {
            return Ok(());
        }
        client.turn(clock.now() + look)?;
    };
    client.begin_traffic(timeline);
    while clock.now() < timeline.measure_from && !shared.is_over() {
        client.turn(timeline.measure_from.min(clock.now() + 10 * look))?;
    }
    tx.send(Report::Settled(client.take(Vec::new())))?;
    let before = proc::own_cpu()?;
    measure(shared, &mut client, timeline, (tx, spares))?;
    let after = proc::own_cpu()?;
    let wall = Duration::from_nanos(clock.now().saturating_sub(timeline.measure_from));
    let spent = |before: u64, after: u64| Duration::from_nanos(after - before);
    let (ran, waited) = (spent(before.ran, after.ran), spent(before.waited, after.waited));
    tx.send(Report::Measured(ThreadUse { wall, ran, waited }))?;
    finish(shared, &mut client)?;
    tx.send(Report::Rest(client.take(Vec::new())))?;
    Ok(())
}

fn measure(
    shared: &Shared,
    client: &mut Client,
    timeline: Timeline,
    (tx, spares): (&Sender<Report>, &Receiver<Vec<[Sample; 2]>>),
) -> Result<(), Failure> {
    let (clock, interval) = (shared.clock, shared.interval.as_nanos() as u64);
    let mut index = 0;
    while clock.now() < timeline.until && !shared.is_over() {
        let roll = timeline.measure_from + (index as u64 + 1) * interval;
        client.turn(roll.min(timeline.until))?;
        if clock.now() >= roll {
            let samples = client.take(spares.try_recv().unwrap_or_default());
            tx.send(Report::Interval(index, samples))?;
            index += 1;
        }
    }
    Ok(())
}

/// The last replies, and goodbye.
fn finish(shared: &Shared, client: &mut Client) -> Result<(), Failure> {
    let (clock, look) = (shared.clock, LOOK.as_nanos() as u64);
    client.end_traffic();
    let cooldown = shared.plan.windows.cooldown;
    let deadline = clock.now() + cooldown.as_nanos() as u64;
    let mut next_look = 0;
    while clock.now() < deadline && !shared.is_over() {
        if clock.now() >= next_look {
            if !client.has_under_way() {
                break;
            }
            next_look = clock.now() + look;
        }
        client.turn(next_look.min(deadline))?;
    }
    client.close_all(cooldown / 2);
    let deadline = clock.now() + FAREWELL.as_nanos() as u64;
    while client.connections() > 0 && clock.now() < deadline && !shared.abandoned.load(Ordering::Relaxed) {
        client.turn(clock.now() + look)?;
    }
    Ok(())
}

impl Shared {
    fn is_over(&self) -> bool {
        STOP.load(Ordering::Relaxed) || self.abandoned.load(Ordering::Relaxed)
    }
}

/// Checks the limits of the host before anything is opened, and makes an interrupt end the
/// measurement, not the process.
pub fn prepare(plan: &Plan) -> Result<(), Failure> {
    let connections = plan.groups.iter().map(|group| group.connections).sum();
    let mut addrs: Vec<_> = plan.groups.iter().flat_map(|group| &group.target.addrs).collect();
    addrs.sort_unstable();
    addrs.dedup();
    limits::check_families(&plan.sources, addrs.iter().copied()).map_err(Usage)?;
    limits::check(connections, addrs.len(), &plan.sources).map_err(Usage)?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop_flag())?;
        signal_hook::flag::register(signal, stop_flag())?;
    }
    Ok(())
}
