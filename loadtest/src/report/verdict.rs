//! Whether the figures of a run are reliable, and whether the run reached its targets. The worst
//! level decides the exit code.

use super::number::time;
use crate::percentile;
use crate::run::measure::{GroupOutcome, Metric, Outcome};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Fine,
    Warning,
    /// The run missed its targets.
    Failed,
}

/// Above this CPU share a client thread affects what is measured.
const BUSY: f64 = 0.85;
const WAITED: f64 = 0.05;
const LAG_US: u64 = 1000;
/// A rate below this share of the target was not reached.
const REACHED: f64 = 0.97;

pub fn judge(outcome: &Outcome) -> Vec<Finding> {
    let mut findings = Vec::new();
    client(outcome, &mut findings);
    outcome.groups.iter().for_each(|group| work(outcome, group, &mut findings));
    content(outcome, &mut findings);
    let worst = findings.iter().map(|finding| finding.level).max();
    if worst.is_none() {
        findings.push(Finding {
            level: Level::Fine,
            sentence: "the client was not the bottleneck, and all content was correct".into(),
        });
    }
    findings
}

/// Whether what was measured is the server and not this process.
fn client(outcome: &Outcome, findings: &mut Vec<Finding>) {
    let share = |part: f64, wall: f64| part / wall.max(1e-9);
    let most = |of: fn(&crate::run::measure::ThreadUse) -> f64| outcome.threads.iter().map(of).fold(0.0, f64::max);
    let busy = most(|used| used.ran.as_secs_f64() / used.wall.as_secs_f64().max(1e-9));
    let waited = most(|used| used.waited.as_secs_f64() / used.wall.as_secs_f64().max(1e-9));
    debug_assert!(share(busy, 1.0) >= 0.0);
    if busy > BUSY {
        warn(
            findings,
            format!("client saturated: a thread was {:.0} % busy; use more threads (-t) or a lower rate", busy * 100.0),
        );
    }
    if waited > WAITED {
        warn(
            findings,
            format!(
                "client starved: a thread waited for a CPU {:.0} % of the time; pin it to its own (--pin)",
                waited * 100.0
            ),
        );
    }
    let measured = outcome.measured_total().histograms;
    let quantile =
        |metric, quantile| measured.get(metric).map_or(0, |histogram| percentile::value(histogram, quantile));
    let (lag, trip) = (quantile(Metric::SendLag, 0.99), quantile(Metric::RoundTrip, 0.99));
    if lag > LAG_US && lag * 10 > trip {
        let (lag, trip) = (time(lag as f64), time(trip as f64));
        warn(findings, format!("client saturated: its p99 send lag is {lag}, with a p99 round trip of {trip}"));
    }
}

/// Whether a group reached its targets.
fn work(outcome: &Outcome, group: &GroupOutcome, findings: &mut Vec<Finding>) {
    let (requested, counts, seconds) = (&group.requested, &group.measured.counts, outcome.measured.as_secs_f64());
    let named = if outcome.groups.len() > 1 { format!("{}: ", requested.name) } else { String::new() };
    let opened = group.whole.counts.opened;
    if requested.shape != "churn" && opened < requested.connections as u64 {
        fail(findings, format!("{named}only {opened} of {} connections opened", requested.connections));
    }
    if opened == 0 {
        return;
    }
    let Some(rate) = requested.rate.filter(|_| requested.shape != "push") else {
        if requested.window.is_some() && counts.received == 0 {
            fail(findings, format!("{named}no reply received"));
        }
        return;
    };
    let (began, came) = match requested.shape {
        "churn" => (counts.opened, counts.opened),
        _ => (counts.sent, counts.received),
    };
    let reached = |n: u64| n as f64 / (rate * seconds).max(1.0);
    // A few messages more or less are the chance of a Poisson process, or of a short window.
    let slack = 3.0 * (rate * seconds).sqrt() / (rate * seconds).max(1.0);
    if reached(began) < REACHED - slack {
        let (n, skipped) = (began as f64 / seconds, counts.skipped);
        let why = if skipped > 0 { "no connection was open" } else { "the server did not accept them" };
        fail(findings, format!("{named}target {rate:.0}/s, {n:.0}/s sent: {why}"));
    } else if reached(came) < REACHED - slack {
        let n = came as f64 / seconds;
        fail(findings, format!("{named}target {rate:.0}/s, {n:.0}/s received: the server cannot keep up"));
    }
}

fn content(outcome: &Outcome, findings: &mut Vec<Finding>) {
    let counts = outcome.whole_total().counts;
    let wrong: u64 = counts.seen().filter(|(fault, ..)| fault.is_of_content()).map(|(_, n, _)| n).sum();
    if wrong > 0 {
        fail(findings, format!("{wrong} messages were wrong: lost, duplicated, reordered or corrupted"));
    }
    let others = counts.errors() - wrong;
    if others > 0 {
        warn(findings, format!("{others} connection errors: see above"));
    }
}

fn warn(findings: &mut Vec<Finding>, sentence: String) {
    findings.push(Finding { level: Level::Warning, sentence });
}

fn fail(findings: &mut Vec<Finding>, sentence: String) {
    findings.push(Finding { level: Level::Failed, sentence });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;
    use crate::run::measure::Fault;
    use std::time::Duration;

    fn rendered(outcome: &Outcome) -> String {
        judge(outcome).into_iter().map(|finding| finding.sentence).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_clean_run_is_said_to_be_one() {
        let findings = judge(&outcome());
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Fine);
    }

    #[test]
    fn a_busy_or_starved_or_late_client_says_so() {
        let mut busy = outcome();
        busy.threads[0].ran = Duration::from_millis(1900);
        assert!(rendered(&busy).contains("client saturated: a thread was 95 % busy"));
        let mut starved = outcome();
        starved.threads[0].waited = Duration::from_millis(200);
        assert!(rendered(&starved).contains("client starved"));
        let mut late = outcome();
        (0..2000).for_each(|_| late.groups[0].measured.histograms.record(Metric::SendLag, Duration::from_millis(2)));
        assert!(rendered(&late).contains("send lag"));
    }

    #[test]
    fn what_was_not_done_fails() {
        let mut slow = outcome();
        slow.groups[0].measured.counts.received = 900;
        assert!(rendered(&slow).contains("450/s received"));
        slow.groups[0].measured.counts.sent = 900;
        assert!(rendered(&slow).contains("450/s sent"));
        let mut few = outcome();
        few.groups[0].whole.counts.opened = 3;
        assert!(rendered(&few).contains("only 3 of 10 connections opened"));
        let mut wrong = outcome();
        wrong.groups[0].whole.counts.fault(Fault::Corrupt, || "x".into());
        assert!(judge(&wrong).iter().any(|finding| finding.level == Level::Failed));
    }
}
