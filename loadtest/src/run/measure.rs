//! What is measured: metrics, histograms, counts, and the outcome of a run. Knows no
//! socket, clock or file; the client fills samples, the run merges them into an [`Outcome`], the
//! report tells of it.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest value a histogram keeps, in microseconds; longer ones count as this.
const VALUE_MAX_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// One kind of measured time. All are kept in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// From the first SYN to a connected socket.
    Connect,
    /// From a connected socket to a finished TLS handshake.
    Tls,
    /// From the first byte of the request to the last of the 101.
    Handshake,
    /// From the intended start of a connection to its first message: what a user waits for.
    FirstMessage,
    /// From the intended time of sending to the whole reply (open loop), or from sending (closed
    /// loop).
    RoundTrip,
    /// From the moment of sending to the whole reply: flatters a server that stalls. Open loop
    /// only.
    Uncorrected,
    /// From the stamp of the sender to the whole message at the receiver.
    OneWay,
    /// From our ping to its pong.
    Ping,
    /// From our Close to the end of the connection.
    Close,
    /// From losing a connection to its first message after it was opened anew.
    Reconnect,
    /// How late the generator itself was: from the intended time of sending to the call that sends.
    SendLag,
}

impl Metric {
    pub const ALL: [Metric; 11] = [
        Metric::Connect,
        Metric::Tls,
        Metric::Handshake,
        Metric::FirstMessage,
        Metric::RoundTrip,
        Metric::Uncorrected,
        Metric::OneWay,
        Metric::Ping,
        Metric::Close,
        Metric::Reconnect,
        Metric::SendLag,
    ];

    /// As it is called in reports, files and thresholds.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Connect => "connect",
            Metric::Tls => "tls",
            Metric::Handshake => "handshake",
            Metric::FirstMessage => "first-message",
            Metric::RoundTrip => "round-trip",
            Metric::Uncorrected => "uncorrected",
            Metric::OneWay => "one-way",
            Metric::Ping => "ping",
            Metric::Close => "close",
            Metric::Reconnect => "reconnect",
            Metric::SendLag => "send-lag",
        }
    }

    pub fn parse(name: &str) -> Option<Metric> {
        Metric::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

/// One histogram for each metric that has a value.
#[derive(Debug, Clone, Default)]
pub struct Histograms([Option<Box<Histogram<u64>>>; Metric::ALL.len()]);

impl Histograms {
    pub fn record(&mut self, metric: Metric, value: Duration) {
        self.entry(metric).saturating_record((value.as_micros() as u64).max(1));
    }

    pub fn get(&self, metric: Metric) -> Option<&Histogram<u64>> {
        self.0[metric as usize].as_deref().filter(|histogram| !histogram.is_empty())
    }

    pub fn add(&mut self, other: &Histograms) {
        for metric in Metric::ALL {
            if let Some(histogram) = other.get(metric) {
                let own = self.entry(metric);
                // Both have the same bounds, so nothing can be out of range.
                own.add(histogram).unwrap_or_default();
            }
        }
    }

    /// Empties them, keeping their memory.
    pub fn clear(&mut self) {
        self.0.iter_mut().flatten().for_each(|histogram| histogram.reset());
    }

    fn entry(&mut self, metric: Metric) -> &mut Histogram<u64> {
        self.0[metric as usize].get_or_insert_with(|| Box::new(empty()))
    }
}

/// A histogram as all of them are: 1 us to an hour, three digits.
pub fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, VALUE_MAX_US, DIGITS).unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// What went wrong with a connection or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection was refused, or could not be made.
    Connect,
    /// It, or its handshake, took longer than allowed.
    Timeout,
    /// The TLS handshake failed, or the TLS stream was broken or cut off.
    Tls,
    /// The server answered the opening handshake with another status than 101.
    Refused,
    /// A 101 that is not right: Accept, Upgrade, subprotocol, extension.
    Handshake,
    /// A frame that RFC 6455 forbids.
    Protocol,
    /// The connection ended with a reset.
    Reset,
    /// The connection ended without the plan or a Close of ours asking for it.
    Closed,
    /// A message whose bytes are not those that were sent.
    Corrupt,
    /// A message that was not received.
    Lost,
    /// A message received twice.
    Duplicate,
    /// A message received after a later one.
    Reordered,
    /// A message that was never sent: more replies than requests.
    Unexpected,
    /// A message that had no reply when its connection, or the run, ended: perhaps it was only
    /// slow.
    Unanswered,
}

impl Fault {
    pub const ALL: [Fault; 14] = [
        Fault::Connect,
        Fault::Timeout,
        Fault::Tls,
        Fault::Refused,
        Fault::Handshake,
        Fault::Protocol,
        Fault::Reset,
        Fault::Closed,
        Fault::Corrupt,
        Fault::Lost,
        Fault::Duplicate,
        Fault::Reordered,
        Fault::Unexpected,
        Fault::Unanswered,
    ];

    /// As it is called in reports, files and thresholds.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Connect => "connect",
            Fault::Timeout => "timeout",
            Fault::Tls => "tls",
            Fault::Refused => "refused",
            Fault::Handshake => "handshake",
            Fault::Protocol => "protocol",
            Fault::Reset => "reset",
            Fault::Closed => "closed",
            Fault::Corrupt => "corrupt",
            Fault::Lost => "lost",
            Fault::Duplicate => "duplicate",
            Fault::Reordered => "reordered",
            Fault::Unexpected => "unexpected",
            Fault::Unanswered => "unanswered",
        }
    }

    /// Whether the payload was wrong, which fails every run (exit code 3).
    pub fn is_of_content(self) -> bool {
        matches!(self, Fault::Corrupt | Fault::Lost | Fault::Duplicate | Fault::Reordered | Fault::Unexpected)
    }
}

/// Numbers of a time span. `add` sums them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections whose opening handshake succeeded.
    pub opened: u64,
    /// Connections that ended, from either side.
    pub ended: u64,
    /// Messages, and the payload bytes of them.
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub received_bytes: u64,
    /// Messages that were due while no connection of their group was open.
    pub skipped: u64,
    /// Codes of received Close frames; 1005 for one without a code, 1006 for an end without
    /// Close.
    pub close_codes: BTreeMap<u16, u64>,
    /// TLS handshakes by version and cipher, and how many of all were resumed.
    pub tls: BTreeMap<String, u64>,
    pub resumed: u64,
    faults: [u64; Fault::ALL.len()],
    /// The first of each kind, in a sentence.
    examples: BTreeMap<Fault, String>,
}

impl Counts {
    pub fn fault(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        self.faults(fault, 1, example);
    }

    /// Several of one kind.
    pub fn faults(&mut self, fault: Fault, count: u64, example: impl FnOnce() -> String) {
        self.faults[fault as usize] += count;
        self.examples.entry(fault).or_insert_with(example);
    }

    pub fn count_of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// Faults of all kinds together.
    pub fn errors(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Kinds that occurred, how often, and the first of each in a sentence.
    pub fn seen(&self) -> impl Iterator<Item = (Fault, u64, &str)> {
        let seen = Fault::ALL.into_iter().filter(|fault| self.count_of(*fault) > 0);
        seen.map(|fault| (fault, self.count_of(fault), self.examples.get(&fault).map_or("", String::as_str)))
    }

    pub fn add(&mut self, other: &Counts) {
        self.opened += other.opened;
        self.ended += other.ended;
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.skipped += other.skipped;
        for (code, count) in &other.close_codes {
            *self.close_codes.entry(*code).or_default() += count;
        }
        for (agreed, count) in &other.tls {
            *self.tls.entry(agreed.clone()).or_default() += count;
        }
        self.resumed += other.resumed;
        for (own, other) in self.faults.iter_mut().zip(other.faults) {
            *own += other;
        }
        for (fault, example) in &other.examples {
            self.examples.entry(*fault).or_insert_with(|| example.clone());
        }
    }
}

/// What one group of one thread did in a time span.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub histograms: Histograms,
    pub counts: Counts,
}

impl Sample {
    pub fn add(&mut self, other: &Sample) {
        self.histograms.add(&other.histograms);
        self.counts.add(&other.counts);
    }
}

/// How much of the measured time a thread of the generator was busy.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadUse {
    pub wall: Duration,
    /// On a processor.
    pub ran: Duration,
    /// Ready to run while something else had the processor.
    pub waited: Duration,
}

/// What a group of connections was asked to do, in words and numbers for the report.
#[derive(Debug, Clone, Default)]
pub struct Requested {
    pub name: String,
    /// echo, push, churn, idle, storm or slow.
    pub shape: &'static str,
    pub connections: usize,
    /// Messages (churn: connections) a second, all connections together; none in a closed loop.
    pub rate: Option<f64>,
    /// Outstanding messages on each connection in a closed loop.
    pub window: Option<usize>,
    /// As typed: `64`, `64*9,16KiB*1`, `file:words.txt`.
    pub size: String,
}

/// A group's part in an outcome.
#[derive(Debug, Clone, Default)]
pub struct GroupOutcome {
    pub requested: Requested,
    /// What was measured: messages whose intended time lay in the measured window, whenever their
    /// replies were received.
    pub measured: Sample,
    /// Times of connecting and handshakes are those of the whole run, and so are its faults.
    pub whole: Sample,
}

/// A second (or what was asked for) of the measured window, all groups and threads together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interval {
    /// Since the measured window began.
    pub at: Duration,
    pub len: Duration,
    pub sent: u64,
    pub received: u64,
    pub errors: u64,
    /// Connections that opened, and that ended.
    pub opened: u64,
    pub ended: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// The outcome of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub url: String,
    /// Seconds since the Unix epoch at which the measured window began.
    pub began_unix: f64,
    /// Length of the measured window.
    pub measured: Duration,
    /// From the first connection to the last that opened.
    pub ramp: Duration,
    pub groups: Vec<GroupOutcome>,
    pub threads: Vec<ThreadUse>,
    pub intervals: Vec<Interval>,
    /// User memory of this process per open connection at the end of the measured window, in bytes.
    pub memory_per_connection: Option<f64>,
}

impl Outcome {
    /// The measured samples of all groups together.
    pub fn measured_total(&self) -> Sample {
        self.total(|group| &group.measured)
    }

    /// The samples of the whole run of all groups together.
    pub fn whole_total(&self) -> Sample {
        self.total(|group| &group.whole)
    }

    fn total(&self, of: fn(&GroupOutcome) -> &Sample) -> Sample {
        let mut total = Sample::default();
        self.groups.iter().for_each(|group| total.add(of(group)));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.name()), Some(metric));
        }
        assert_eq!(Metric::parse("nothing"), None);
    }

    #[test]
    fn samples_sum_up() {
        let mut one = Sample::default();
        one.histograms.record(Metric::RoundTrip, Duration::from_micros(100));
        one.counts.fault(Fault::Lost, || "first".into());
        one.counts.close_codes.insert(1000, 2);
        let mut sum = one.clone();
        one.counts.fault(Fault::Lost, || "second".into());
        sum.add(&one);
        assert_eq!(sum.histograms.get(Metric::RoundTrip).map(Histogram::len), Some(2));
        assert_eq!(sum.counts.seen().collect::<Vec<_>>(), [(Fault::Lost, 3, "first")]);
        assert_eq!(sum.counts.close_codes[&1000], 4);
        assert!(sum.histograms.get(Metric::Ping).is_none());
    }
}
