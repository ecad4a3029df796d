//! Conditions over an outcome, as typed: `p99>10ms`, `handshake.p50<2ms`, `chatty/max>1s`,
//! `errors>0.1%`. With `--fail-if` what is true fails the run; with `--find` it is what has to be
//! true.

use super::number::time;
use super::text::rows;
use crate::percentile;
use crate::run::measure::{Fault, Metric, Outcome};
use hdrhistogram::Histogram;
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    typed: String,
    /// None: all groups together.
    group: Option<String>,
    what: What,
    is_above: bool,
    or_equal: bool,
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// Microseconds. Without a metric: round trips, or one-way where there are none.
    Time(Option<Metric>, Stat),
    Errors {
        percent: bool,
    },
    Fault(Fault),
    /// Messages received per second.
    Rate,
    /// Connections that opened.
    Connections,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stat {
    Quantile(f64),
    Max,
    Min,
    Mean,
}

impl Threshold {
    /// Whether it is true of this outcome. What nothing was measured of is true of nothing: of a
    /// `>` that would pass silently, so it counts as crossed, too.
    pub fn is_true(&self, outcome: &Outcome) -> bool {
        match self.value(outcome) {
            None => self.is_above,
            Some(value) if self.or_equal && value == self.limit => true,
            Some(value) if self.is_above => value > self.limit,
            Some(value) => value < self.limit,
        }
    }

    /// What was seen of what it is about.
    pub fn seen(&self, outcome: &Outcome) -> String {
        let subject = self.typed.split(['<', '>']).next().unwrap_or_default().trim();
        match (self.value(outcome), self.what) {
            (None, _) => format!("{subject} was not measured"),
            (Some(value), What::Time(..)) => format!("{subject} is {}", time(value)),
            (Some(value), What::Errors { percent: true }) => format!("{subject} is {value:.3} %"),
            (Some(value), _) => format!("{subject} is {value:.0}"),
        }
    }

    fn value(&self, outcome: &Outcome) -> Option<f64> {
        let groups =
            outcome.groups.iter().filter(|group| self.group.as_ref().is_none_or(|own| *own == group.requested.name));
        let mut groups = groups.peekable();
        groups.peek()?;
        let sum = |of: &dyn Fn(&crate::run::measure::GroupOutcome) -> u64, groups: &mut dyn Iterator<Item = _>| {
            groups.map(of).sum::<u64>() as f64
        };
        match self.what {
            What::Time(metric, stat) => {
                let groups: Vec<_> = groups.collect();
                let of = |metric| {
                    let mut all: Option<Histogram<u64>> = None;
                    for (found, histogram) in groups.iter().flat_map(|group| rows(group)) {
                        if found == metric {
                            let sum = all.get_or_insert_with(crate::run::measure::empty);
                            // All have the same bounds.
                            sum.add(histogram).unwrap_or_default();
                        }
                    }
                    all
                };
                let histogram = match metric {
                    Some(metric) => of(metric),
                    None => of(Metric::RoundTrip).or_else(|| of(Metric::OneWay)).or_else(|| of(Metric::FirstMessage)),
                }?;
                Some(match stat {
                    Stat::Quantile(quantile) => percentile::value(&histogram, quantile) as f64,
                    Stat::Max => histogram.max() as f64,
                    Stat::Min => histogram.min() as f64,
                    Stat::Mean => histogram.mean(),
                })
            }
            What::Errors { percent: false } => Some(sum(&|group| group.whole.counts.errors(), &mut groups)),
            What::Errors { percent: true } => {
                let groups: Vec<_> = groups.collect();
                let errors = sum(&|group| group.whole.counts.errors(), &mut groups.iter().copied());
                let sent = sum(&|group| group.whole.counts.sent, &mut groups.iter().copied());
                Some(errors / sent.max(1.0) * 100.0)
            }
            What::Fault(fault) => Some(sum(&|group| group.whole.counts.count_of(fault), &mut groups)),
            What::Rate => {
                let received = sum(&|group| group.measured.counts.received, &mut groups);
                Some(received / outcome.measured.as_secs_f64())
            }
            What::Connections => Some(sum(&|group| group.whole.counts.opened, &mut groups)),
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(typed: &str) -> Result<Threshold, String> {
        let usage = || {
            let faults: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!(
                "invalid condition {typed:?}: expected p99>10ms, max<1s, handshake.p50>2ms, chatty/p99.9>5ms, \
                 errors>0, errors>0.1%, rate<1000, connections<100, or a kind of error ({})",
                faults.join(", ")
            )
        };
        let at = typed.find(['<', '>']).ok_or_else(usage)?;
        let (subject, rest) = typed.split_at(at);
        let is_above = rest.starts_with('>');
        let rest = rest.get(1..).unwrap_or_default();
        let (or_equal, limit) = match rest.strip_prefix('=') {
            Some(limit) => (true, limit.trim()),
            None => (false, rest.trim()),
        };
        let (group, subject) = match subject.trim().split_once('/') {
            Some((group, subject)) => (Some(group.to_owned()), subject),
            None => (None, subject.trim()),
        };
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0).ok_or_else(usage);
        let (what, limit) = match subject {
            "errors" => match limit.strip_suffix('%') {
                Some(limit) => (What::Errors { percent: true }, number(limit.trim())?),
                None => (What::Errors { percent: false }, number(limit)?),
            },
            "rate" => (What::Rate, number(limit)?),
            "connections" => (What::Connections, number(limit)?),
            name => match Fault::ALL.into_iter().find(|fault| fault.name() == name) {
                Some(fault) => (What::Fault(fault), number(limit)?),
                None => {
                    let (metric, stat) = time_of(name).ok_or_else(usage)?;
                    let limit = humantime::parse_duration(limit).map_err(|_| usage())?;
                    (What::Time(metric, stat), limit.as_secs_f64() * 1e6)
                }
            },
        };
        Ok(Threshold { typed: typed.to_owned(), group, what, is_above, or_equal, limit })
    }
}

/// `p99`, `max`, `handshake.p99.9`, `round-trip.mean`.
fn time_of(name: &str) -> Option<(Option<Metric>, Stat)> {
    let stat = |text: &str| match text {
        "max" => Some(Stat::Max),
        "min" => Some(Stat::Min),
        "mean" => Some(Stat::Mean),
        _ => {
            let percent: f64 = text.strip_prefix('p')?.parse().ok()?;
            (0.0..100.0).contains(&percent).then_some(Stat::Quantile(percent / 100.0))
        }
    };
    if let Some(stat) = stat(name) {
        return Some((None, stat));
    }
    let (metric, rest) = name.split_once('.')?;
    Some((Some(Metric::parse(metric)?), stat(rest)?))
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn conditions_are_read_and_hold_where_they_should() {
        // Round trips lie evenly between 1 us and 2 ms; 2000 sent and received in 2 s.
        let cases = [
            ("p50>900us", true),
            ("p50>1.1s", false),
            ("p50 < 1100us", true),
            ("max>=2ms", true),
            ("max>2ms", false),
            ("round-trip.p99.9<3ms", true),
            ("echo/p99<1ms", false),
            ("other/p99>1ms", true),
            ("ping.p50>1h", true),
            ("ping.p50<1h", false),
            ("mean<1200us", true),
            ("errors>0", false),
            ("errors<=0", true),
            ("errors>0.1%", false),
            ("rate<999", false),
            ("rate>=1000", true),
            ("lost>0", false),
            ("connections<11", true),
        ];
        for (typed, holds) in cases {
            let typed = typed.replace("1.1s", "1100ms");
            let threshold: Threshold = typed.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(threshold.is_true(&outcome()), holds, "{typed}: {}", threshold.seen(&outcome()));
        }
    }

    #[test]
    fn invalid_conditions_are_rejected_with_examples() {
        for typed in
            ["", "p99", "p99>", "p99>5", "p100>1s", "nothing>0", "errors>x", "errors>-1", "nothing.p9>1s", "p99=5ms"]
        {
            let error = typed.parse::<Threshold>().unwrap_err();
            assert!(error.contains("expected p99>10ms"), "{error}");
        }
    }
}
