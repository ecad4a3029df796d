//! One thread of the generator: its poll, its timer, its connections, the groups they belong to.
//! Everything that is due happens at its intended time as nearly as the system allows, and how late
//! it was is measured.
//!
//! Intended times are waited for with a timerfd, since a poll's own timeout is in whole
//! milliseconds. Sockets are registered once, edge-triggered.

use crate::Failure;
use crate::net::dial;
use crate::net::transport::Transport;
use crate::run::conn::{Conn, Desk, End, Times};
use crate::run::group::{Clock, LocalGroup, Share, Timeline};
use crate::run::measure::{Fault, Metric, Sample};
use crate::run::plan::{Plan, Shape, Traffic};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const TIMER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 << 10;
/// What is due in one go, before replies are looked at again.
const DUE_MAX: usize = 64;
/// The longest pause between two tries, as a multiple of the first.
const BACKOFF_MAX: u32 = 30;
const SECOND: u64 = 1_000_000_000;

pub struct Client {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    /// What the timer was last set to.
    armed: u64,
    pub clock: Clock,
    pub groups: Vec<LocalGroup>,
    conns: Slab<Conn>,
    generation: u32,
    later: BinaryHeap<Reverse<(u64, Later)>>,
    /// Connections with more to read than their turn allowed.
    ready: Vec<usize>,
    timeline: Timeline,
    sources: Vec<IpAddr>,
    buffer: Vec<u8>,
    batch: Vec<u8>,
}

/// What is due at a moment of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    /// A connection is opened (again).
    Connect { group: usize, lost: Option<u64>, tries: u32 },
    /// A stalled reader resumes.
    Resume { slot: usize, generation: u32 },
    /// The opening took too long.
    Overdue { slot: usize, generation: u32 },
    /// A closed loop begins.
    Begin { group: usize },
}

/// What is due in a group's schedules.
enum Tick {
    Connect(u64),
    Message(u64),
    Ping,
    Stall,
    Cut,
}

impl Client {
    pub fn new(plan: &Plan, share: Share, clock: Clock) -> Result<Client, Failure> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let group = |(index, group)| LocalGroup::new(group, share, plan.seed.wrapping_add(index as u64 * 7919));
        Ok(Client {
            poll,
            events: Events::with_capacity(1024),
            timer,
            armed: 0,
            clock,
            groups: plan.groups.iter().enumerate().map(group).collect(),
            conns: Slab::new(),
            generation: 0,
            later: BinaryHeap::new(),
            ready: Vec::new(),
            timeline: Timeline::NOT_STARTED,
            sources: plan.sources.clone(),
            buffer: vec![0; READ_BYTES],
            batch: Vec::new(),
        })
    }

    pub fn begin_ramp(&mut self, ramp: Duration) {
        let now = self.clock.now();
        self.groups.iter_mut().for_each(|group| group.begin_ramp(now, ramp));
    }

    /// Whether every connection that stays is open, or will never be.
    pub fn is_up(&self) -> bool {
        self.groups.iter().all(LocalGroup::is_up)
    }

    pub fn begin_traffic(&mut self, timeline: Timeline) {
        self.timeline = timeline;
        for (index, group) in self.groups.iter_mut().enumerate() {
            group.begin_traffic(timeline.start);
            if let Traffic::Closed { .. } = group.plan.traffic {
                self.later.push(Reverse((timeline.start, Later::Begin { group: index })));
            }
        }
    }

    /// In a closed loop each reply triggers the next message, so the first ones are sent here.
    fn begin_closed(&mut self, index: usize, now: u64) {
        if let (Shape::Churn, Traffic::Closed { window }) =
            (self.groups[index].plan.shape, self.groups[index].plan.traffic)
        {
            let places = self.groups[index].quota.min(window.div_ceil(self.groups[index].share.of));
            (0..places).for_each(|_| self.connect(index, (now, None), 0));
        }
        for slot in self.groups[index].open.clone() {
            self.with(slot, Conn::top_up);
        }
    }

    /// From now on nothing new leaves.
    pub fn end_traffic(&mut self) {
        let now = self.clock.now();
        self.timeline.until = self.timeline.until.min(now);
        self.groups.iter_mut().for_each(LocalGroup::end_traffic);
        self.later.retain(|Reverse((_, later))| !matches!(later, Later::Connect { .. }));
    }

    pub fn has_under_way(&self) -> bool {
        self.conns.iter().any(|(_, conn)| conn.has_under_way())
    }

    /// Nothing is under way, and no connection is opening.
    pub fn is_at_rest(&self) -> bool {
        self.conns.iter().all(|(_, conn)| conn.is_open() && !conn.has_under_way())
    }

    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// What does not come back any more is noted, and every open connection says goodbye.
    pub fn close_all(&mut self, patience: Duration) {
        let patience = patience.as_nanos() as u64;
        let slots: Vec<usize> = self.conns.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if self.conns.get(slot).is_some_and(Conn::is_opening) {
                self.drop_conn(slot);
                continue;
            }
            self.with(slot, |conn, desk| {
                conn.record_missing_replies(patience, desk);
                conn.forget();
                conn.close(desk)
            });
        }
    }

    /// What was measured since the last time; `spare` takes its place, so that nothing is
    /// allocated.
    pub fn take(&mut self, mut spare: Vec<[Sample; 2]>) -> Vec<[Sample; 2]> {
        spare.resize_with(self.groups.len(), Default::default);
        for (group, [measured, whole]) in self.groups.iter_mut().zip(&mut spare) {
            std::mem::swap(&mut group.measured, measured);
            std::mem::swap(&mut group.whole, whole);
        }
        spare
    }

    /// Does what is due, waits at most until `limit` for something to happen, and handles it.
    pub fn turn(&mut self, limit: u64) -> Result<(), Failure> {
        let more = self.fire();
        let now = self.clock.now();
        let next = if more || !self.ready.is_empty() { now } else { self.next_due().min(limit) };
        let timeout = self.arm(next, now)?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e.into()),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                TIMER => self.armed = 0,
                Token(slot) => self.with(slot, |conn, desk| conn.on_event(event, desk)),
            }
        }
        self.events = events;
        for slot in std::mem::take(&mut self.ready) {
            self.with(slot, |conn, desk| {
                conn.queued = false;
                conn.advance(desk)
            });
        }
        Ok(())
    }

    fn next_due(&self) -> u64 {
        let schedules = self.groups.iter().flat_map(|group| {
            let connect =
                group.schedules.connect.as_ref().filter(|_| group.plan.shape == Shape::Churn || group.may_open());
            let others =
                [&group.schedules.message, &group.schedules.ping, &group.schedules.stall, &group.schedules.cut];
            connect.into_iter().chain(others.into_iter().flatten())
        });
        let later = self.later.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        schedules.map(|schedule| schedule.next()).min().unwrap_or(u64::MAX).min(later)
    }

    /// The poll's timeout; what lies in the future is the timer's.
    fn arm(&mut self, next: u64, now: u64) -> Result<Option<Duration>, Failure> {
        if next <= now {
            return Ok(Some(Duration::ZERO));
        }
        // Set for earlier: it fires, and is set anew then.
        if next != u64::MAX && (self.armed <= now || self.armed > next) {
            let wait = next - now;
            let it_value = Timespec { tv_sec: (wait / SECOND) as i64, tv_nsec: (wait % SECOND) as _ };
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
            self.armed = next;
        }
        Ok(None)
    }

    /// Does what is due by now. Whether there is more.
    fn fire(&mut self) -> bool {
        for _ in 0..DUE_MAX {
            let now = self.clock.now();
            if self.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                if let Some(Reverse((_, later))) = self.later.pop() {
                    self.on_later(later, now);
                }
                continue;
            }
            let due = (0..self.groups.len()).find_map(|index| Some((index, self.groups[index].tick(now)?)));
            let Some((index, tick)) = due else { return false };
            self.on_tick(index, tick, now);
        }
        true
    }

    fn on_later(&mut self, later: Later, now: u64) {
        match later {
            Later::Connect { group, lost, tries } => self.connect(group, (now, lost), tries),
            Later::Begin { group } => self.begin_closed(group, now),
            Later::Resume { slot, generation } if self.is_same(slot, generation) => self.with(slot, Conn::resume),
            Later::Overdue { slot, generation } if self.is_same(slot, generation) => {
                if self.conns.get(slot).is_some_and(Conn::is_opening) {
                    let detail = "the connection was not open in time".to_owned();
                    self.finish(slot, End { fault: Some((Fault::Timeout, detail)), was_open: false });
                }
            }
            Later::Resume { .. } | Later::Overdue { .. } => {}
        }
    }

    fn is_same(&self, slot: usize, generation: u32) -> bool {
        self.conns.get(slot).is_some_and(|conn| conn.generation == generation)
    }

    fn on_tick(&mut self, index: usize, tick: Tick, now: u64) {
        let group = &mut self.groups[index];
        match tick {
            Tick::Connect(intended) => match group.may_open() {
                true => self.connect(index, (intended, None), 0),
                false => group.due.push_back(intended),
            },
            Tick::Message(intended) => {
                if self.timeline.measures(intended) {
                    group.measure(Metric::SendLag, now.saturating_sub(intended));
                }
                match group.next_sender() {
                    Some(slot) => self.with(slot, |conn, desk| conn.send(intended, desk)),
                    None => group.skip(self.timeline.measures(intended)),
                }
            }
            Tick::Ping => {
                if let Some(slot) = group.next_open() {
                    self.with(slot, Conn::ping);
                }
            }
            Tick::Stall => {
                let (slot, pause) = (group.next_open(), group.plan.stall.map_or(Duration::ZERO, |stall| stall.pause));
                if let Some(conn) = slot.and_then(|slot| self.conns.get_mut(slot)) {
                    conn.stall();
                    let later = Later::Resume { slot: slot.unwrap_or_default(), generation: conn.generation };
                    self.later.push(Reverse((now + pause.as_nanos() as u64, later)));
                }
            }
            Tick::Cut => self.cut(index, now),
        }
    }

    /// storm: every connection is lost at once.
    fn cut(&mut self, index: usize, now: u64) {
        for slot in self.groups[index].open.clone() {
            if let Some(conn) = self.remove(slot) {
                conn.abort();
                self.schedule_reconnect(index, (now, Some(now)), 0);
            }
        }
    }

    /// Begins a connection that was intended for a time, and perhaps replaces one that was lost.
    fn connect(&mut self, index: usize, (intended, lost): (u64, Option<u64>), tries: u32) {
        let group = &mut self.groups[index];
        let number = group.next_number();
        let target = group.plan.target.clone();
        group.opening += 1;
        let addr = target.addrs[number % target.addrs.len()];
        // Cycles through all pairs of address and source.
        let cycle = number / target.addrs.len();
        let source = (!self.sources.is_empty()).then(|| self.sources[cycle % self.sources.len()]);
        let since = self.clock.now();
        let transport = dial::dial(addr, source).map(|stream| match &target.tls {
            None => Transport::plain(stream),
            Some(client) => Transport::tls(stream, client),
        });
        let transport = match transport {
            Ok(transport) => transport,
            Err(error) => {
                group.opening -= 1;
                group.whole.counts.fault(Fault::Connect, || format!("{addr}: {}", dial::explain(&error)));
                return self.replace(index, (since, lost), tries);
            }
        };
        let times = Times { intended, lost, since, tries, ..Times::default() };
        let mut conn = Conn::new(transport, index, number as u32, times);
        self.generation = self.generation.wrapping_add(1);
        conn.generation = self.generation;
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(conn.stream_mut(), Token(slot), interest) {
            Ok(()) => {
                entry.insert(conn);
                let overdue = Later::Overdue { slot, generation: self.generation };
                self.later.push(Reverse((since + target.connect_timeout.as_nanos() as u64, overdue)));
            }
            Err(error) => {
                group.opening -= 1;
                group.whole.counts.fault(Fault::Connect, || error.to_string());
                self.replace(index, (since, lost), tries);
            }
        }
    }

    /// Gives a connection its turn, and does what follows from its end.
    #[inline]
    fn with(&mut self, slot: usize, turn: impl FnOnce(&mut Conn, &mut Desk<'_>) -> Result<(), End>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let (group, batch) = (&mut self.groups[conn.group], &mut self.batch);
        let (clock, timeline) = (&self.clock, self.timeline);
        let mut desk = Desk { group, slot, clock, timeline, buffer: &mut self.buffer, batch };
        match turn(conn, &mut desk) {
            Ok(()) if conn.may_go_on() && !conn.queued => {
                conn.queued = true;
                self.ready.push(slot);
            }
            Ok(()) => {}
            Err(end) => self.finish(slot, end),
        }
    }

    fn finish(&mut self, slot: usize, end: End) {
        // Its outstanding replies are lost.
        self.with(slot, |conn, desk| {
            conn.record_missing_replies(u64::MAX, desk);
            Ok(())
        });
        let Some(conn) = self.remove(slot) else { return };
        let now = self.clock.now();
        let group = &mut self.groups[conn.group];
        let meant = end.fault.is_none();
        if let Some(since) = conn.closing_since() {
            group.note(Metric::Close, now - since);
        }
        if end.was_open && conn.close_code().is_none() && !meant {
            *group.whole.counts.close_codes.entry(1006).or_default() += 1;
        }
        if let Some((fault, detail)) = end.fault {
            let addr = group.plan.target.addrs.first().map_or_else(String::new, ToString::to_string);
            group.whole.counts.fault(fault, || if end.was_open { detail } else { format!("{addr}: {detail}") });
        }
        let lost = if end.was_open { Some(now) } else { conn.times().lost };
        let tries = if end.was_open { 0 } else { conn.times().tries + 1 };
        self.replace(conn.group, (now, lost), tries);
    }

    /// A place has become free.
    fn replace(&mut self, index: usize, (now, lost): (u64, Option<u64>), tries: u32) {
        let group = &mut self.groups[index];
        if group.plan.shape == Shape::Churn {
            let next = match group.plan.traffic {
                Traffic::Closed { .. } if tries == 0 && self.timeline.sends(now) => Some(now),
                // A server that refuses is not tried again without a pause.
                Traffic::Closed { .. } if self.timeline.sends(now) => {
                    return self.schedule_reconnect(index, (now, None), tries);
                }
                _ => group.due.pop_front(),
            };
            return next.into_iter().for_each(|intended| self.connect(index, (intended, None), 0));
        }
        if group.plan.reconnect.is_some()
            && now < self.timeline.until
            && (lost.is_some() || self.timeline.start != u64::MAX)
        {
            return self.schedule_reconnect(index, (now, lost), tries);
        }
        group.given_up += 1;
    }

    /// Opens another connection after a pause.
    fn schedule_reconnect(&mut self, index: usize, (now, lost): (u64, Option<u64>), tries: u32) {
        let group = &mut self.groups[index];
        let pause = match group.plan.reconnect {
            Some(reconnect) if tries == 0 => reconnect.jitter.mul_f64(group.random.f64()),
            Some(reconnect) => {
                let longer = (1 << tries.min(8)).min(BACKOFF_MAX);
                (reconnect.backoff * longer).mul_f64(0.5 + group.random.f64() / 2.0)
            }
            None => Duration::from_millis(10),
        };
        self.later.push(Reverse((now + pause.as_nanos() as u64, Later::Connect { group: index, lost, tries })));
    }

    fn drop_conn(&mut self, slot: usize) {
        if let Some(conn) = self.remove(slot) {
            drop(conn);
        }
    }

    fn remove(&mut self, slot: usize) -> Option<Conn> {
        let conn = self.conns.try_remove(slot)?;
        let group = &mut self.groups[conn.group];
        if conn.is_open() {
            group.open.swap_remove(conn.place);
            if let Some(moved) = group.open.get(conn.place).and_then(|slot| self.conns.get_mut(*slot)) {
                moved.place = conn.place;
            }
            group.whole.counts.ended += 1;
        } else {
            group.opening = group.opening.saturating_sub(1);
        }
        Some(conn)
    }
}

impl LocalGroup {
    /// The first thing that is due.
    fn tick(&mut self, now: u64) -> Option<Tick> {
        let churns = self.plan.shape == Shape::Churn;
        let may_open = churns || self.may_open();
        let LocalGroup { schedules, random, .. } = self;
        let mut due = |schedule: &mut Option<crate::run::schedule::Schedule>| {
            let schedule = schedule.as_mut().filter(|schedule| schedule.next() <= now)?;
            let at = schedule.next();
            schedule.advance(random);
            Some(at)
        };
        if may_open && let Some(at) = due(&mut schedules.connect) {
            return Some(Tick::Connect(at));
        }
        if let Some(at) = due(&mut schedules.message) {
            return Some(Tick::Message(at));
        }
        None.or_else(|| due(&mut schedules.ping).map(|_| Tick::Ping))
            .or_else(|| due(&mut schedules.stall).map(|_| Tick::Stall))
            .or_else(|| due(&mut schedules.cut).map(|_| Tick::Cut))
    }

    /// A message was due, and no connection was free to send it.
    fn skip(&mut self, is_measured: bool) {
        self.whole.counts.skipped += 1;
        self.measured.counts.skipped += u64::from(is_measured);
    }
}
