//! The report for programs: one JSON document, schema 1. Field names end in their units. Fields may
//! be added; existing fields keep their names and meanings.

use super::text::rows;
use super::threshold::Threshold;
use super::verdict::{Finding, Level};
use crate::percentile::{self, PERCENTILES};
use crate::run::measure::{Counts, GroupOutcome, Outcome};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    url: &'a str,
    began_unix_s: f64,
    measured_s: f64,
    ramp_s: f64,
    groups: Vec<Group<'a>>,
    threads: Vec<Thread>,
    memory_per_connection_bytes: Option<f64>,
    intervals: Vec<Interval>,
    thresholds: Vec<Condition>,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
    shape: &'a str,
    connections: usize,
    rate_per_s: Option<f64>,
    window: Option<usize>,
    size: &'a str,
    measured: Numbers,
    whole: Numbers,
    /// By metric.
    times: BTreeMap<&'static str, Times>,
}

#[derive(Serialize)]
struct Numbers {
    opened: u64,
    ended: u64,
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    skipped: u64,
    close_codes: BTreeMap<u16, u64>,
    /// Handshakes by version and cipher.
    tls: BTreeMap<String, u64>,
    tls_resumed: u64,
    faults: BTreeMap<&'static str, Fault>,
}

#[derive(Serialize)]
struct Fault {
    count: u64,
    example: String,
}

#[derive(Serialize)]
struct Times {
    count: u64,
    min_us: u64,
    max_us: u64,
    mean_us: f64,
    /// Only those that the sample is large enough for.
    percentiles_us: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Thread {
    wall_s: f64,
    ran_s: f64,
    waited_s: f64,
}

#[derive(Serialize)]
struct Interval {
    at_s: f64,
    len_s: f64,
    sent: u64,
    received: u64,
    errors: u64,
    opened: u64,
    ended: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

#[derive(Serialize)]
struct Condition {
    condition: String,
    seen: String,
    /// It is true, and so the run has failed.
    crossed: bool,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    level: &'static str,
    sentence: &'a str,
}

pub fn json(outcome: &Outcome, thresholds: &[Threshold], findings: &[Finding]) -> Result<String, serde_json::Error> {
    let seconds = |duration: std::time::Duration| duration.as_secs_f64();
    let threads = outcome.threads.iter().map(|used| Thread {
        wall_s: seconds(used.wall),
        ran_s: seconds(used.ran),
        waited_s: seconds(used.waited),
    });
    let intervals = outcome.intervals.iter().map(|interval| Interval {
        at_s: seconds(interval.at),
        len_s: seconds(interval.len),
        sent: interval.sent,
        received: interval.received,
        errors: interval.errors,
        opened: interval.opened,
        ended: interval.ended,
        p50_us: interval.p50_us,
        p99_us: interval.p99_us,
        max_us: interval.max_us,
    });
    let conditions = thresholds.iter().map(|threshold| Condition {
        condition: threshold.to_string(),
        seen: threshold.seen(outcome),
        crossed: threshold.is_true(outcome),
    });
    let listed =
        findings.iter().map(|finding| JsonFinding { level: level(finding.level), sentence: &finding.sentence });
    serde_json::to_string_pretty(&Report {
        schema: 1,
        url: &outcome.url,
        began_unix_s: outcome.began_unix,
        measured_s: seconds(outcome.measured),
        ramp_s: seconds(outcome.ramp),
        groups: outcome.groups.iter().map(group).collect(),
        threads: threads.collect(),
        memory_per_connection_bytes: outcome.memory_per_connection,
        intervals: intervals.collect(),
        thresholds: conditions.collect(),
        findings: listed.collect(),
    })
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Fine => "fine",
        Level::Warning => "warning",
        Level::Failed => "failed",
    }
}

fn group(group: &GroupOutcome) -> Group<'_> {
    let requested = &group.requested;
    Group {
        name: &requested.name,
        shape: requested.shape,
        connections: requested.connections,
        rate_per_s: requested.rate,
        window: requested.window,
        size: &requested.size,
        measured: numbers(&group.measured.counts),
        whole: numbers(&group.whole.counts),
        times: rows(group).map(|(metric, histogram)| (metric.name(), times(histogram))).collect(),
    }
}

fn numbers(counts: &Counts) -> Numbers {
    let fault = |(fault, count, example): (crate::run::measure::Fault, u64, &str)| {
        (fault.name(), Fault { count, example: example.to_owned() })
    };
    Numbers {
        opened: counts.opened,
        ended: counts.ended,
        sent: counts.sent,
        sent_bytes: counts.sent_bytes,
        received: counts.received,
        received_bytes: counts.received_bytes,
        skipped: counts.skipped,
        close_codes: counts.close_codes.clone(),
        tls: counts.tls.clone(),
        tls_resumed: counts.resumed,
        faults: counts.seen().map(fault).collect(),
    }
}

fn times(histogram: &Histogram<u64>) -> Times {
    let percentile =
        |(name, quantile): &(&'static str, f64)| Some((*name, percentile::supported(histogram, *quantile)?));
    Times {
        count: histogram.len(),
        min_us: histogram.min(),
        max_us: histogram.max(),
        mean_us: histogram.mean(),
        percentiles_us: PERCENTILES.iter().filter_map(percentile).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_document_has_its_schema_and_its_numbers() {
        let thresholds = ["p99>1s".parse().unwrap(), "errors<=0".parse().unwrap()];
        let text = json(&outcome(), &thresholds, &super::super::verdict::judge(&outcome())).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["groups"][0]["measured"]["received"], 2000);
        assert_eq!(value["groups"][0]["times"]["round-trip"]["percentiles_us"]["p50"], 1000);
        assert_eq!(value["thresholds"][0]["crossed"], false);
        assert_eq!(value["thresholds"][1]["crossed"], true);
        assert_eq!(value["findings"][0]["level"], "fine");
    }
}
