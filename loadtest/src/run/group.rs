//! One group's part in one thread: its connections by number, what it still has to open, its
//! messages, its intended times, and what was measured. Decides who is next; opens and sends
//! nothing itself.

use crate::run::measure::{Metric, Sample};
use crate::run::message::Messages;
use crate::run::plan::{Arrival, Group, Shape, Traffic};
use crate::run::replies::Expect;
use crate::run::schedule::Schedule;
use fastrand::Rng;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// Handshakes that a group of a thread has under way at a time, unless its rate says more.
const OPENING_MAX: usize = 128;

/// The clock of a run: nanoseconds since it began, the same for all threads.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    began_unix: Duration,
}

/// The times of a run between which messages leave, and those between which they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    pub start: u64,
    pub measure_from: u64,
    pub until: u64,
}

/// Which of the threads this is, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub index: usize,
    pub of: usize,
}

pub struct LocalGroup {
    pub plan: Group,
    pub messages: Messages,
    pub expect: Expect,
    /// Connections that this thread has of the group.
    pub quota: usize,
    /// Slots of those that are open.
    pub open: Vec<usize>,
    /// Being opened, and waiting to be opened again.
    pub opening: usize,
    /// Not opened, and not tried again.
    pub given_up: usize,
    /// Begun so far, which numbers them.
    begun: usize,
    pub measured: Sample,
    pub whole: Sample,
    pub random: Rng,
    pub schedules: Schedules,
    /// Connections of an open loop that are due while the limit is reached.
    pub due: VecDeque<u64>,
    pub share: Share,
    turn: usize,
}

/// When the next of each is due.
#[derive(Debug, Default)]
pub struct Schedules {
    pub connect: Option<Schedule>,
    pub message: Option<Schedule>,
    pub ping: Option<Schedule>,
    pub stall: Option<Schedule>,
    pub cut: Option<Schedule>,
}

impl Clock {
    pub fn start() -> Clock {
        // Before 1970 there was no WebSocket.
        let began_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { began: Instant::now(), began_unix }
    }

    #[inline]
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// As nanoseconds since the Unix epoch.
    pub fn unix_ns(&self, at: u64) -> u64 {
        self.began_unix.as_nanos() as u64 + at
    }
}

impl Timeline {
    pub const NOT_STARTED: Timeline = Timeline { start: u64::MAX, measure_from: u64::MAX, until: u64::MAX };

    #[inline]
    pub fn sends(&self, now: u64) -> bool {
        self.start <= now && now < self.until
    }

    #[inline]
    pub fn measures(&self, intended: u64) -> bool {
        self.measure_from <= intended && intended < self.until
    }
}

impl LocalGroup {
    pub fn new(plan: &Group, share: Share, seed: u64) -> LocalGroup {
        let quota = plan.connections / share.of + usize::from(share.index < plan.connections % share.of);
        // An idle connection accepts messages too.
        let pushes = plan.shape == Shape::Push || plan.shape == Shape::Idle && plan.traffic == Traffic::Silent;
        let expect = if pushes { Expect::Pushes } else { Expect::Replies(plan.reply) };
        LocalGroup {
            messages: Messages::new(&plan.message),
            expect,
            quota,
            open: Vec::with_capacity(quota),
            opening: 0,
            given_up: 0,
            begun: 0,
            measured: Sample::default(),
            whole: Sample::default(),
            random: Rng::with_seed(seed ^ (share.index as u64) << 32),
            schedules: Schedules::default(),
            due: VecDeque::new(),
            share,
            turn: 0,
            plan: plan.clone(),
        }
    }

    /// Connections that stay, opened within `ramp` from `now` on.
    pub fn begin_ramp(&mut self, now: u64, ramp: Duration) {
        if self.plan.shape != Shape::Churn {
            // Without a ramp all are due at once, and `may_open` holds them back.
            let per_second = self.quota as f64 / ramp.as_secs_f64();
            self.schedules.connect = Schedule::new(per_second, Arrival::Even, now);
        }
    }

    /// Traffic begins at `start`.
    pub fn begin_traffic(&mut self, start: u64) {
        let share = self.quota as f64 / self.plan.connections.max(1) as f64;
        if let Traffic::Rate { per_second, arrival } = self.plan.traffic {
            // Threads take turns, not one moment together.
            let offset = 1e9 / per_second * self.share.index as f64;
            let schedule = Schedule::new(per_second * share, arrival, start + offset as u64);
            if self.plan.shape == Shape::Churn {
                self.schedules.connect = schedule
            } else {
                self.schedules.message = schedule
            }
        }
        let each = |every: Option<Duration>| {
            let per_second = self.quota as f64 / every?.as_secs_f64();
            Schedule::new(per_second, Arrival::Even, start).filter(|_| self.quota > 0)
        };
        let (ping, stall) = (each(self.plan.ping), each(self.plan.stall.map(|stall| stall.every)));
        (self.schedules.ping, self.schedules.stall) = (ping, stall);
        self.schedules.cut = self.plan.cut_every.and_then(|every| {
            let first = start + every.as_nanos() as u64;
            Schedule::new(1.0 / every.as_secs_f64(), Arrival::Even, first)
        });
    }

    /// No traffic any more.
    pub fn end_traffic(&mut self) {
        self.schedules = Schedules::default();
        self.due.clear();
    }

    /// Whether another connection may be begun now.
    pub fn may_open(&self) -> bool {
        match self.plan.shape {
            Shape::Churn => self.opening + self.open.len() < self.quota,
            _ => self.begun < self.quota && self.opening < OPENING_MAX,
        }
    }

    /// Whether nothing more will open.
    pub fn is_up(&self) -> bool {
        self.plan.shape == Shape::Churn || self.open.len() + self.given_up >= self.quota
    }

    /// The number of the next connection, over all threads.
    pub fn next_number(&mut self) -> usize {
        self.begun += 1;
        (self.begun - 1) * self.share.of + self.share.index
    }

    /// Whose turn it is to send: publishers if there are some, else all.
    pub fn next_sender(&mut self) -> Option<usize> {
        let own = |all: usize| all.div_ceil(self.share.of).max(1);
        let count = self.plan.publishers.map_or(self.open.len(), |all| own(all).min(self.open.len()));
        self.next_of(count)
    }

    pub fn next_open(&mut self) -> Option<usize> {
        self.next_of(self.open.len())
    }

    fn next_of(&mut self, count: usize) -> Option<usize> {
        if count == 0 {
            return None;
        }
        self.turn = (self.turn + 1) % count;
        self.open.get(self.turn).copied()
    }

    /// Of the whole run, whatever was being measured.
    pub fn note(&mut self, metric: Metric, nanos: u64) {
        self.whole.histograms.record(metric, Duration::from_nanos(nanos));
    }

    pub fn measure(&mut self, metric: Metric, nanos: u64) {
        self.measured.histograms.record(metric, Duration::from_nanos(nanos));
    }
}
