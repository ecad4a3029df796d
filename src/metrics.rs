//! The one table of metrics: what a worker counts (`Tally`, plain integers), where it publishes it (`Shard`,
//! relaxed stores of a single writer) and the Prometheus text made from all shards.
//!
//! A worker adds to its own `Tally` and shares nothing per message; it publishes at most every 100 ms. The
//! control thread reads the shards and renders. A tally outlives a panic of its worker: counters go on,
//! gauges are set right by [`Tally::sessions_lost`]. Knows no socket, clock or thread.

use crate::proto::end::{CAUSES, Cause, End, Party, Phase};
use crate::proto::frame::opcode;
use crate::proto::relay::Counts;
use crate::proto::{Side, Sides};
use std::fmt::{self, Write};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The `Content-Type` of what [`render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A value for each cause of [`CAUSES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByCause<T>([T; CAUSES.len()]);

impl<T: Default + Copy> Default for ByCause<T> {
    fn default() -> Self {
        ByCause([T::default(); CAUSES.len()])
    }
}

impl<T> Index<Cause> for ByCause<T> {
    type Output = T;
    fn index(&self, cause: Cause) -> &T {
        &self.0[cause as usize]
    }
}

impl<T> IndexMut<Cause> for ByCause<T> {
    fn index_mut(&mut self, cause: Cause) -> &mut T {
        &mut self.0[cause as usize]
    }
}

/// What one worker has counted since the process started. Nothing but `u64`, which publishing relies on.
///
/// Connections are moved by [`Tally::accepted`], [`Tally::opened`] and [`Tally::ended`], and then hold
// accepted = handshakes_ok + all refused + handshakes;  handshakes_ok = all ended + sessions
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames and bytes relayed, by the side they came from. In mode `opaque` only bytes count.
    pub relay: Sides<Counts>,
    /// Connections taken from the accept queues.
    pub accepted: u64,
    /// Handshakes whose 101 passed.
    pub handshakes_ok: u64,
    /// Handshakes that ended before a 101, by cause.
    pub refused: ByCause<u64>,
    /// Open sessions that ended, by cause and by who ended them (in the order of `BY`: downstream, upstream, proxy).
    pub ended: ByCause<[u64; 3]>,
    /// Gauge: open sessions.
    pub sessions: u64,
    /// Gauge: accepted connections whose handshake is not over.
    pub handshakes: u64,
    /// Gauge: bytes that wait for slow receivers.
    pub backlog_bytes: u64,
    /// Times that a receiver took less than there was and its sender stopped being read.
    pub stalled: u64,
    /// Events for a slot that has since been freed: dropped.
    pub stale_events: u64,
    /// Times that accepting was put off for want of descriptors or memory.
    pub accept_backoffs: u64,
    /// Bytes read and thrown away after a Close or in a lingering close.
    pub discarded_bytes: u64,
    /// Times that the loop came round.
    pub passes: u64,
    /// Readiness events handled.
    pub events: u64,
    /// CPU time of the worker's thread, in microseconds.
    pub busy_us: u64,
    /// Connections on which TCP urgent data was seen.
    pub urgent: u64,
    /// Access lines lost to a full ring.
    pub log_lost: u64,
    /// TLS handshakes, and what else became of TLS, by side: in the order of [`TLS_OUTCOMES`].
    pub tls: Sides<[u64; TLS_OUTCOMES.len()]>,
    /// Passes of the loop that had much to do, by how long they took: up to each of [`PASS_US`], and longer.
    pub busy_passes: [u64; PASS_US.len() + 1],
    /// What these took together, in microseconds.
    pub busy_passes_us: u64,
}

/// The outcomes of [`Tally::tls`]: new keys, a resumed session, and failed, which also counts open sessions.
pub const TLS_OUTCOMES: [&str; 3] = ["full", "resumed", "failed"];

/// Bounds of [`Tally::busy_passes`], in microseconds.
pub const PASS_US: [u64; 8] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000];

impl Tally {
    /// A connection came out of an accept queue.
    pub fn accepted(&mut self) {
        self.accepted += 1;
        self.handshakes += 1;
    }

    /// The 101 of a handshake has passed.
    pub fn opened(&mut self) {
        self.handshakes_ok += 1;
        self.handshakes = self.handshakes.saturating_sub(1);
        self.sessions += 1;
    }

    /// A TLS handshake with `side` has ended well.
    pub fn tls_established(&mut self, side: Side, resumed: bool) {
        self.tls[side][usize::from(resumed)] += 1;
    }

    /// TLS with `side` has failed.
    pub fn tls_failed(&mut self, side: Side) {
        self.tls[side][2] += 1;
    }

    /// A pass with much to do has taken so long.
    pub fn busy_pass(&mut self, us: u64) {
        let bucket = PASS_US.iter().position(|bound| us <= *bound).unwrap_or(PASS_US.len());
        if let Some(count) = self.busy_passes.get_mut(bucket) {
            *count += 1;
        }
        self.busy_passes_us += us;
    }

    /// The verdict on a connection: a refused handshake, or the end of an open session.
    pub fn ended(&mut self, ended: End) {
        match ended.phase {
            Phase::Open => {
                self.sessions = self.sessions.saturating_sub(1);
                self.ended[ended.cause][column(ended.party)] += 1;
            }
            Phase::Tls | Phase::Request | Phase::Connect | Phase::Response => {
                self.handshakes = self.handshakes.saturating_sub(1);
                self.refused[ended.cause] += 1;
            }
        }
    }

    /// The worker lost all that it held to a panic: every connection ended by it, gauges at zero.
    pub fn sessions_lost(&mut self) {
        self.ended[Cause::WorkerPanic][column(Party::Proxy)] += self.sessions;
        self.refused[Cause::WorkerPanic] += self.handshakes;
        (self.sessions, self.handshakes, self.backlog_bytes) = (0, 0, 0);
    }

    /// Makes the current values readable by other threads. Only the one worker that owns `shard` calls this.
    pub fn publish(&self, shard: &Shard) {
        let mut cells = shard.cells.iter();
        // A copy of 2 KB every 100 ms is the price of having the list of fields once.
        self.clone().each(&mut |value| {
            if let Some(cell) = cells.next() {
                cell.store(*value, Relaxed);
            }
        });
    }

    fn add(&mut self, other: &Tally) {
        let mut values = Vec::with_capacity(CELLS);
        other.clone().each(&mut |value| values.push(*value));
        let mut values = values.into_iter();
        self.each(&mut |value| *value += values.next().unwrap_or(0));
    }

    /// Every integer once, always in the same order: publishing, reading and adding are made of this.
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        for side in Side::BOTH {
            self.relay[side].frames.iter_mut().for_each(&mut *visit);
            visit(&mut self.relay[side].bytes);
        }
        self.refused.0.iter_mut().for_each(&mut *visit);
        self.ended.0.iter_mut().flatten().for_each(&mut *visit);
        let singles = [
            &mut self.accepted,
            &mut self.handshakes_ok,
            &mut self.sessions,
            &mut self.handshakes,
            &mut self.backlog_bytes,
            &mut self.stalled,
            &mut self.stale_events,
            &mut self.accept_backoffs,
            &mut self.discarded_bytes,
            &mut self.passes,
            &mut self.events,
            &mut self.busy_us,
            &mut self.urgent,
            &mut self.log_lost,
            &mut self.busy_passes_us,
        ];
        singles.into_iter().for_each(&mut *visit);
        Side::BOTH.iter().for_each(|side| self.tls[*side].iter_mut().for_each(&mut *visit));
        self.busy_passes.iter_mut().for_each(visit);
    }
}

/// A tally is nothing but `u64`, so its size says how many there are.
const CELLS: usize = size_of::<Tally>() / size_of::<u64>();

/// The published copy of one worker's tally. One writer, any readers; a reader may see one publication half
/// and the one before it half, which is fine for counters.
#[repr(align(128))]
#[derive(Debug)]
pub struct Shard {
    cells: [AtomicU64; CELLS],
}

impl Default for Shard {
    fn default() -> Self {
        Shard { cells: [const { AtomicU64::new(0) }; CELLS] }
    }
}

impl Shard {
    pub fn read(&self) -> Tally {
        let mut tally = Tally::default();
        let mut cells = self.cells.iter();
        tally.each(&mut |value| *value = cells.next().map_or(0, |cell| cell.load(Relaxed)));
        tally
    }
}

/// What is known of the process as a whole at the moment of rendering.
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub version: &'static str,
    /// When the process started, milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// Workers started again after a panic.
    pub worker_restarts: u64,
    pub reloads_ok: u64,
    pub reloads_refused: u64,
    /// Writes of the access log that failed.
    pub log_errors: u64,
    /// Access lines lost to failed writes (those lost to full rings are in the tallies).
    pub log_lost: u64,
    pub draining: bool,
    /// The limits in force, 0 where there is none.
    pub max_sessions: u64,
    pub max_handshakes: u64,
    pub buffer_bytes_max: u64,
    /// Files with certificates, and how many days they are still valid; less than 0 for none.
    pub certificates: Vec<(String, i64)>,
}

/// The text of `/metrics`, Prometheus exposition format 0.0.4. `shards` in the order of the workers.
pub fn render(shards: &[Arc<Shard>], process: &Process) -> String {
    let workers: Vec<Tally> = shards.iter().map(|shard| shard.read()).collect();
    let mut total = Tally::default();
    workers.iter().for_each(|tally| total.add(tally));
    let reading = Reading { total, workers, process };
    let mut text = String::with_capacity(16 * 1024);
    for metric in METRICS {
        let (name, help, kind) = (metric.name, metric.help, metric.kind.name());
        let start = text.len();
        line(&mut text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        let empty = text.len();
        (metric.samples)(&reading, &mut Samples { text: &mut text, metric });
        if text.len() == empty {
            text.truncate(start);
        }
    }
    text
}

/// One row of the table.
struct Metric {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Reading<'_>, &mut Samples<'_>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

use Kind::{Counter, Gauge, Histogram};

macro_rules! metrics {
    ($($kind:ident $name:literal [$($label:literal)*] $help:literal = $samples:expr;)*) => {
        const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help, samples: $samples },)*
        ];
    };
}

metrics! {
    Gauge "framegate_build_info" ["version"] "Always 1; the label is the version."
        = |r, out| out.put(&[&r.process.version], 1);
    Gauge "process_start_time_seconds" [] "Start of the process in seconds since the Unix epoch."
        = |r, out| out.put(&[], Thousandths(r.process.started_unix_ms));
    Gauge "framegate_workers" [] "Worker threads."
        = |r, out| out.put(&[], r.workers.len());
    Counter "framegate_worker_restarts_total" [] "Workers started again after a panic."
        = |r, out| out.put(&[], r.process.worker_restarts);
    Counter "framegate_reloads_total" ["result"] "Reloads of the configuration, by result."
        = |r, out| { out.put(&[&"ok"], r.process.reloads_ok); out.put(&[&"refused"], r.process.reloads_refused); };
    Gauge "framegate_draining" [] "1 while the process is stopping."
        = |r, out| out.put(&[], u8::from(r.process.draining));
    Gauge "framegate_sessions" ["worker"] "Open sessions."
        = |r, out| out.per_worker(r, |tally| tally.sessions);
    Gauge "framegate_sessions_max" [] "Limit of sessions, 0 for none."
        = |r, out| out.put(&[], r.process.max_sessions);
    Gauge "framegate_handshakes" [] "Connections whose handshake is not over."
        = |r, out| out.put(&[], r.total.handshakes);
    Gauge "framegate_handshakes_max" [] "Limit of handshakes in flight, 0 for none."
        = |r, out| out.put(&[], r.process.max_handshakes);
    Counter "framegate_connections_accepted_total" [] "Connections accepted."
        = |r, out| out.put(&[], r.total.accepted);
    Counter "framegate_accept_backoffs_total" [] "Times that accepting was put off for want of descriptors or memory."
        = |r, out| out.put(&[], r.total.accept_backoffs);
    Counter "framegate_handshakes_total" ["outcome"] "Handshakes that are over: ok for a 101, else the cause."
        = handshakes;
    Counter "framegate_tls_handshakes_total" ["side" "outcome"] "TLS handshakes with clients and upstreams; failed counts open sessions too."
        = tls;
    Gauge "framegate_certificate_days_left" ["file"] "Days until a certificate ends."
        = |r, out| r.process.certificates.iter().for_each(|(file, days)| out.put(&[file], days));
    Counter "framegate_sessions_ended_total" ["cause" "ended_by"] "Open sessions that ended, by cause and by who ended them."
        = ended;
    Counter "framegate_frames_total" ["from" "opcode"] "Frames relayed, by the side they came from and by opcode."
        = frames;
    Counter "framegate_bytes_total" ["from"] "Bytes relayed in open sessions, by the side they came from."
        = bytes;
    Counter "framegate_discarded_bytes_total" [] "Bytes read and thrown away after a Close or in a lingering close."
        = |r, out| out.put(&[], r.total.discarded_bytes);
    Gauge "framegate_backlog_bytes" [] "Bytes that wait for slow receivers."
        = |r, out| out.put(&[], r.total.backlog_bytes);
    Gauge "framegate_backlog_bytes_max" [] "Limit of the bytes that may wait for slow receivers."
        = |r, out| out.put(&[], r.process.buffer_bytes_max);
    Counter "framegate_receiver_stalls_total" [] "Times that a receiver blocked and its sender was no longer read."
        = |r, out| out.put(&[], r.total.stalled);
    Counter "framegate_urgent_data_total" [] "Connections on which TCP urgent data was seen."
        = |r, out| out.put(&[], r.total.urgent);
    Counter "framegate_worker_busy_seconds_total" ["worker"] "CPU time of a worker's thread."
        = |r, out| out.per_worker(r, |tally| Millionths(tally.busy_us));
    Counter "framegate_worker_loop_iterations_total" ["worker"] "Times that a worker's loop came round."
        = |r, out| out.per_worker(r, |tally| tally.passes);
    Histogram "framegate_loop_busy_seconds" [] "Passes with at least 32 events, or where there is TLS, by the CPU time they took."
        = busy_passes;
    Counter "framegate_events_total" [] "Readiness events handled."
        = |r, out| out.put(&[], r.total.events);
    Counter "framegate_stale_events_total" [] "Events for connections that were already gone."
        = |r, out| out.put(&[], r.total.stale_events);
    Counter "framegate_log_lines_lost_total" [] "Access lines lost to a full ring or a failed write."
        = |r, out| out.put(&[], r.total.log_lost + r.process.log_lost);
    Counter "framegate_log_errors_total" [] "Writes of the access log that failed."
        = |r, out| out.put(&[], r.process.log_errors);
}

/// All shards at one moment, and their sum.
struct Reading<'a> {
    total: Tally,
    workers: Vec<Tally>,
    process: &'a Process,
}

/// Writes the samples of one metric.
struct Samples<'a> {
    text: &'a mut String,
    metric: &'a Metric,
}

impl Samples<'_> {
    /// `values` are those of the metric's labels, in their order.
    fn put(&mut self, values: &[&dyn fmt::Display], number: impl fmt::Display) {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        self.text.push_str(self.metric.name);
        let mut before = '{';
        for (label, value) in self.metric.labels.iter().zip(values) {
            let _ = write!(self.text, "{before}{label}=\"");
            let _ = write!(LabelValue(self.text), "{value}");
            self.text.push('"');
            before = ',';
        }
        let end = if self.metric.labels.is_empty() { "" } else { "}" };
        line(self.text, format_args!("{end} {number}"));
    }

    fn per_worker<T: fmt::Display>(&mut self, reading: &Reading<'_>, number: fn(&Tally) -> T) {
        for (worker, tally) in reading.workers.iter().enumerate() {
            self.put(&[&worker], number(tally));
        }
    }
}

/// Escapes what the format asks for in a label's value: backslash, quote, line feed.
struct LabelValue<'a>(&'a mut String);

impl Write for LabelValue<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// The columns of [`Tally::ended`].
const BY: [Party; 3] = [Party::Downstream, Party::Upstream, Party::Proxy];

fn column(party: Party) -> usize {
    match party {
        Party::Downstream => 0,
        Party::Upstream => 1,
        Party::Proxy => 2,
    }
}

// A series that can exist is there from the start with 0: one that appears with its first event would hide that
// event from every rate. The others appear only if the impossible happens.

fn handshakes(r: &Reading<'_>, out: &mut Samples<'_>) {
    out.put(&[&"ok"], r.total.handshakes_ok);
    for info in CAUSES {
        let count = r.total.refused[info.cause];
        let silent = matches!(info.cause, Cause::NoRequest | Cause::UpstreamResponse | Cause::WorkerPanic);
        if count > 0 || info.status != 0 || silent {
            out.put(&[&info.name], count);
        }
    }
}

fn ended(r: &Reading<'_>, out: &mut Samples<'_>) {
    for info in CAUSES {
        let of_tls = matches!(
            info.cause,
            Cause::TlsMalformed
                | Cause::TlsAlert
                | Cause::TlsBadRecord
                | Cause::TlsMisbehaved
                | Cause::TlsTruncated
                | Cause::TlsInternal
        );
        let of_open_sessions = of_tls || info.cause as usize >= Cause::Close as usize;
        for (by, count) in BY.iter().zip(r.total.ended[info.cause]) {
            if count > 0 || of_open_sessions {
                out.put(&[&info.name, &by.name()], count);
            }
        }
    }
}

fn tls(r: &Reading<'_>, out: &mut Samples<'_>) {
    for side in Side::BOTH {
        for (outcome, count) in TLS_OUTCOMES.iter().zip(r.total.tls[side]) {
            out.put(&[&side.name(), outcome], count);
        }
    }
}

fn busy_passes(r: &Reading<'_>, out: &mut Samples<'_>) {
    let (name, mut sum) = (out.metric.name, 0);
    let bounds = PASS_US.iter().map(|us| Millionths(*us).to_string()).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(r.total.busy_passes) {
        sum += count;
        line(out.text, format_args!("{name}_bucket{{le=\"{bound}\"}} {sum}"));
    }
    line(out.text, format_args!("{name}_sum {}\n{name}_count {sum}", Millionths(r.total.busy_passes_us)));
}

fn frames(r: &Reading<'_>, out: &mut Samples<'_>) {
    for from in Side::BOTH {
        for (code, &count) in r.total.relay[from].frames.iter().enumerate() {
            match opcode_name(code as u8) {
                Some(name) => out.put(&[&from.name(), &name], count),
                None if count > 0 => out.put(&[&from.name(), &format_args!("{code:#x}")], count),
                None => {}
            }
        }
    }
}

fn bytes(r: &Reading<'_>, out: &mut Samples<'_>) {
    for from in Side::BOTH {
        out.put(&[&from.name()], r.total.relay[from].bytes);
    }
}

fn opcode_name(code: u8) -> Option<&'static str> {
    Some(match code {
        opcode::CONTINUATION => "continuation",
        opcode::TEXT => "text",
        opcode::BINARY => "binary",
        opcode::CLOSE => "close",
        opcode::PING => "ping",
        opcode::PONG => "pong",
        _ => return None,
    })
}

struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

struct Millionths(u64);

impl fmt::Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Writing to a `String` cannot fail.
fn line(text: &mut String, args: fmt::Arguments<'_>) {
    let _ = text.write_fmt(args);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Every cell another value, so that a mixed-up order shows.
    fn distinct(seed: u64) -> Tally {
        let mut tally = Tally::default();
        let mut next = seed;
        tally.each(&mut |value| {
            next += 1;
            *value = next;
        });
        tally
    }

    fn ended(phase: Phase, party: Party, cause: Cause) -> End {
        End { party, phase, cause }
    }

    #[test]
    fn every_integer_of_a_tally_is_visited_once() {
        let mut seen = 0;
        distinct(0).each(&mut |_| seen += 1);
        assert_eq!(seen, CELLS);
        let mut values = BTreeSet::new();
        distinct(0).each(&mut |value| assert!(values.insert(*value)));
    }

    #[test]
    fn what_is_published_reads_back_and_shards_keep_off_each_others_lines() {
        let shard = Shard::default();
        assert_eq!(shard.read(), Tally::default());
        distinct(7).publish(&shard);
        assert_eq!(shard.read(), distinct(7));
        assert_eq!(align_of::<Shard>(), 128);
        assert_eq!(size_of::<Shard>() % 128, 0);
    }

    fn balanced(tally: &Tally) {
        let refused: u64 = tally.refused.0.iter().sum();
        let ended: u64 = tally.ended.0.iter().flatten().sum();
        assert_eq!(tally.accepted, tally.handshakes_ok + refused + tally.handshakes);
        assert_eq!(tally.handshakes_ok, ended + tally.sessions);
    }

    #[test]
    fn connections_are_counted_at_each_step_and_none_is_lost() {
        let mut tally = Tally::default();
        for _ in 0..5 {
            tally.accepted();
        }
        for _ in 0..3 {
            tally.opened();
        }
        tally.ended(ended(Phase::Request, Party::Downstream, Cause::NoRoute));
        tally.ended(ended(Phase::Open, Party::Upstream, Cause::Close));
        assert_eq!((tally.sessions, tally.handshakes), (2, 1));
        assert_eq!(tally.refused[Cause::NoRoute], 1);
        assert_eq!(tally.ended[Cause::Close], [0, 1, 0]);
        balanced(&tally);

        tally.backlog_bytes = 77;
        tally.sessions_lost();
        assert_eq!((tally.sessions, tally.handshakes, tally.backlog_bytes), (0, 0, 0));
        assert_eq!(tally.ended[Cause::WorkerPanic], [0, 0, 2]);
        assert_eq!(tally.refused[Cause::WorkerPanic], 1);
        balanced(&tally);
    }

    #[test]
    fn the_table_is_well_formed() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("framegate_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Counter, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\\', '\n']), "{name}");
            assert!(
                metric.labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')),
                "{name}"
            );
        }
    }

    /// A strict reader of format 0.0.4, as narrow as what we write: HELP, TYPE, samples of that family, no repeats.
    fn read_text(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with('\n'));
        let mut samples = BTreeMap::new();
        let mut families = BTreeSet::new();
        let mut family = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty());
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap().to_string();
                assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()));
                assert!(families.insert(name.to_string()), "{name} twice");
                assert!(lines.peek().is_some_and(|next| next.starts_with(name)), "{name} is empty");
                family = name.to_string();
                continue;
            }
            let (series, number) = line.rsplit_once(' ').unwrap();
            let rest = series.strip_prefix(&family).unwrap_or_else(|| panic!("{line} outside of its family"));
            let rest = ["_bucket", "_sum", "_count"].iter().find_map(|part| rest.strip_prefix(part)).unwrap_or(rest);
            read_labels(rest);
            let number: f64 = number.parse().unwrap();
            assert!(samples.insert(series.to_string(), number).is_none(), "{series} twice");
        }
        samples
    }

    fn read_labels(text: &str) {
        if text.is_empty() {
            return;
        }
        let mut rest = text.strip_prefix('{').unwrap();
        loop {
            let (name, value) = rest.split_once("=\"").unwrap();
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (_, '\\') => assert!(matches!(chars.next().unwrap().1, '\\' | '"' | 'n'), "{text}"),
                    (i, '"') => break i,
                    _ => {}
                }
            };
            rest = &value[end + 1..];
            if rest == "}" {
                return;
            }
            rest = rest.strip_prefix(',').unwrap();
        }
    }

    #[test]
    fn the_text_sums_over_the_workers_and_reads_back() {
        let shards: Vec<Arc<Shard>> = (0..2).map(|_| Arc::new(Shard::default())).collect();
        let mut tally =
            Tally { accepted: 4, busy_us: 1_500_000, passes: 9, sessions: 3, log_lost: 5, ..Tally::default() };
        tally.relay[Side::Downstream].frames[opcode::TEXT as usize] = 11;
        tally.relay[Side::Upstream].frames[0xb] = 1;
        tally.relay[Side::Upstream].bytes = 1000;
        tally.refused[Cause::NoRoute] = 2;
        tally.refused[Cause::Reset] = 1;
        tally.ended[Cause::Close] = [6, 0, 0];
        tally.tls[Side::Upstream] = [0, 0, 3];
        tally.busy_pass(1_700);
        tally.busy_pass(50_000);
        tally.publish(&shards[0]);
        Tally { accepted: 1, sessions: 2, ..tally }.publish(&shards[1]);
        let process = Process {
            version: "1.2\"3\\\n",
            started_unix_ms: 1_700_000_000_123,
            reloads_ok: 2,
            log_lost: 1,
            draining: true,
            certificates: vec![("a\"b.pem".to_owned(), -3)],
            ..Process::default()
        };
        let text = render(&shards, &process);
        let samples = read_text(&text);
        let of = |series: &str| samples.get(series).copied();
        assert_eq!(of("framegate_build_info{version=\"1.2\\\"3\\\\\\n\"}"), Some(1.0));
        assert_eq!(of("process_start_time_seconds"), Some(1_700_000_000.123));
        assert_eq!(of("framegate_workers"), Some(2.0));
        assert_eq!(of("framegate_certificate_days_left{file=\"a\\\"b.pem\"}"), Some(-3.0));
        assert_eq!(of("framegate_tls_handshakes_total{side=\"upstream\",outcome=\"failed\"}"), Some(6.0));
        assert_eq!(of("framegate_loop_busy_seconds_bucket{le=\"0.002000\"}"), Some(2.0));
        assert_eq!(of("framegate_loop_busy_seconds_bucket{le=\"+Inf\"}"), Some(4.0));
        assert_eq!(of("framegate_loop_busy_seconds_sum"), Some(0.1034));
        assert_eq!(of("framegate_draining"), Some(1.0));
        assert_eq!(of("framegate_reloads_total{result=\"ok\"}"), Some(2.0));
        assert_eq!(of("framegate_connections_accepted_total"), Some(5.0));
        assert_eq!(of("framegate_sessions{worker=\"0\"}"), Some(3.0));
        assert_eq!(of("framegate_sessions{worker=\"1\"}"), Some(2.0));
        assert_eq!(of("framegate_worker_busy_seconds_total{worker=\"1\"}"), Some(1.5));
        assert_eq!(of("framegate_frames_total{from=\"downstream\",opcode=\"text\"}"), Some(22.0));
        assert_eq!(of("framegate_frames_total{from=\"downstream\",opcode=\"pong\"}"), Some(0.0));
        assert_eq!(of("framegate_frames_total{from=\"upstream\",opcode=\"0xb\"}"), Some(2.0));
        assert_eq!(of("framegate_frames_total{from=\"downstream\",opcode=\"0xb\"}"), None);
        assert_eq!(of("framegate_bytes_total{from=\"upstream\"}"), Some(2000.0));
        assert_eq!(of("framegate_handshakes_total{outcome=\"no-route\"}"), Some(4.0));
        assert_eq!(of("framegate_handshakes_total{outcome=\"reset\"}"), Some(2.0));
        assert_eq!(of("framegate_handshakes_total{outcome=\"no-request\"}"), Some(0.0));
        assert_eq!(of("framegate_handshakes_total{outcome=\"mask-bit\"}"), None);
        assert_eq!(of("framegate_sessions_ended_total{cause=\"close\",ended_by=\"downstream\"}"), Some(12.0));
        assert_eq!(of("framegate_sessions_ended_total{cause=\"worker-panic\",ended_by=\"proxy\"}"), Some(0.0));
        assert_eq!(of("framegate_sessions_ended_total{cause=\"no-route\",ended_by=\"proxy\"}"), None);
        assert_eq!(of("framegate_log_lines_lost_total"), Some(11.0));
    }

    #[test]
    fn every_counter_of_a_tally_is_in_the_text() {
        let empty = Arc::new(Shard::default());
        let process = Process { version: "0", ..Process::default() };
        let before = read_text(&render(std::slice::from_ref(&empty), &process));
        for cell in 0..CELLS {
            let shard = Arc::new(Shard::default());
            shard.cells[cell].store(3_000_000, Relaxed);
            let after = read_text(&render(&[shard], &process));
            // A pass counts in all longer buckets as well.
            let single = |series: &&String| !series.contains("_bucket{");
            let changed = after.iter().filter(|(series, value)| before.get(*series).unwrap_or(&0.0) != *value);
            let changed = changed.map(|(series, _)| series).filter(single).count();
            assert_eq!(changed, 1, "cell {cell}");
        }
    }
}
