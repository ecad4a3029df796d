//! The report as text: what a person reads at the end of a run, and pastes.

use super::number::{count, time};
use super::verdict::{Finding, Level};
use crate::percentile::{self, PERCENTILES};
use crate::run::measure::{GroupOutcome, Metric, Outcome, Sample};
use std::fmt::Write;

/// Metrics of the measured window; all others are of the whole run.
const MEASURED: [Metric; 5] = [Metric::RoundTrip, Metric::Uncorrected, Metric::OneWay, Metric::Ping, Metric::SendLag];

/// The whole page, with a line end behind its last line.
pub fn text(outcome: &Outcome, findings: &[Finding]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(out, "{}", outcome.url);
    for group in &outcome.groups {
        let _ = write!(out, "{}", group_text(outcome, group, outcome.groups.len() > 1));
    }
    let _ = write!(out, "{}", tail(outcome));
    for finding in findings {
        let word = match finding.level {
            Level::Fine => "ok     ",
            Level::Warning => "warning",
            Level::Failed => "FAILED ",
        };
        let _ = writeln!(out, "{word}  {}", finding.sentence);
    }
    out
}

fn group_text(outcome: &Outcome, group: &GroupOutcome, is_named: bool) -> String {
    let mut out = String::new();
    let requested = &group.requested;
    let name = if is_named { format!("{} ({})", requested.name, requested.shape) } else { requested.shape.to_owned() };
    let traffic = match (requested.rate, requested.window) {
        (Some(rate), _) if requested.shape == "churn" => format!(", {}/s", count(rate)),
        (Some(rate), _) => format!(", {} messages/s in an open loop", count(rate)),
        (None, Some(window)) => format!(", {window} in flight on each in a closed loop"),
        (None, None) => String::new(),
    };
    let sized = if requested.shape == "idle" { String::new() } else { format!(", {}", requested.size) };
    let _ = writeln!(out, "{name}: {} connections{traffic}{sized}", requested.connections);
    let (counts, seconds) = (&group.measured.counts, outcome.measured.as_secs_f64());
    let rate = |n: u64| count(n as f64 / seconds);
    let _ = write!(out, "  {seconds:.1} s measured");
    if counts.opened > 0 {
        let _ = write!(out, ", {} opened ({}/s)", counts.opened, rate(counts.opened));
    }
    if counts.sent + counts.received > 0 {
        let megabytes = counts.received_bytes as f64 / 1e6 / seconds;
        let (sent, received) = (counts.sent, counts.received);
        let _ = write!(out, ", {sent} sent, {received} received ({}/s, {megabytes:.2} MB/s)", rate(received));
    }
    if counts.skipped > 0 {
        let _ = write!(out, ", {} skipped while no connection was open", counts.skipped);
    }
    let _ = writeln!(out, "\n{}", table(group));
    out
}

/// A row for each metric that has values.
fn table(group: &GroupOutcome) -> String {
    let mut out = format!("  {:<14}{:>7}{:>8}", "", "count", "min");
    PERCENTILES.iter().for_each(|(name, _)| out += &format!("{name:>8}"));
    out += &format!("{:>8}{:>8}\n", "max", "mean");
    for (metric, histogram) in rows(group) {
        let _ = write!(out, "  {:<14}{:>7}", metric.name(), count(histogram.len() as f64));
        let shown = PERCENTILES.iter().map(|(_, quantile)| percentile::supported(histogram, *quantile));
        let values = std::iter::once(Some(histogram.min())).chain(shown).chain([Some(histogram.max())]);
        for value in values {
            let _ = write!(out, "{:>8}", value.map_or_else(|| "-".into(), |value| time(value as f64)));
        }
        let _ = writeln!(out, "{:>8}", time(histogram.mean()));
    }
    out
}

/// Metrics with values, in their order.
pub fn rows(group: &GroupOutcome) -> impl Iterator<Item = (Metric, &hdrhistogram::Histogram<u64>)> {
    let of = |metric: &Metric| -> &Sample { if MEASURED.contains(metric) { &group.measured } else { &group.whole } };
    Metric::ALL.into_iter().filter_map(move |metric| Some((metric, of(&metric).histograms.get(metric)?)))
}

fn tail(outcome: &Outcome) -> String {
    let mut out = String::new();
    let counts = outcome.whole_total().counts;
    for (fault, n, example) in counts.seen() {
        let _ = writeln!(out, "errors   {n} {}: {example}", fault.name());
    }
    if !counts.close_codes.is_empty() {
        let codes: Vec<String> = counts.close_codes.iter().map(|(code, n)| format!("{n} x {code}")).collect();
        let _ = writeln!(out, "closes   {}", codes.join(", "));
    }
    let all = counts.tls.values().sum::<u64>();
    for (agreed, n) in &counts.tls {
        let _ = writeln!(out, "tls      {n} x {agreed}");
    }
    if all > 0 {
        let _ = writeln!(out, "tls      {} of {all} handshakes resumed", counts.resumed);
    }
    let used: Vec<String> = outcome
        .threads
        .iter()
        .map(|used| format!("{:.0} %", used.ran.as_secs_f64() / used.wall.as_secs_f64().max(1e-9) * 100.0))
        .collect();
    let _ = writeln!(out, "client   {} CPU ({})", used.join(", "), plural(used.len(), "thread"));
    if let Some(bytes) = outcome.memory_per_connection {
        let _ = writeln!(out, "memory   {bytes:.0} bytes per connection in the client");
    }
    out
}

fn plural(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_report_has_targets_and_results() {
        let page = text(&outcome(), &super::super::verdict::judge(&outcome()));
        for expected in [
            "ws://127.0.0.1:1/\n",
            "echo: 10 connections, 1000 messages/s in an open loop, 64 B\n",
            "2.0 s measured, 2000 sent, 2000 received (1000/s, 0.06 MB/s)",
            "  round-trip       2000    1 us 1.00 ms 1.80 ms 1.98 ms 2.00 ms       -       - 2.00 ms 1.00 ms\n",
            "client   10 % CPU (1 thread)\n",
        ] {
            assert!(page.contains(expected), "{expected}\n{page}");
        }
        assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    }
}
