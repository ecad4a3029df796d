//! The highest rate at which a condition holds: doubled until it fails, then bisected; each rate
//! gets up to three tries, and the majority decides. The result is an interval, since two runs
//! never agree on a point.

use crate::Failure;
use crate::failure::Usage;
use crate::report::{self, OutputArgs, Threshold};
use crate::run::measure::Outcome;
use crate::run::phases::{self, NoObserver};
use crate::run::plan::{Plan, Traffic};
use std::process::ExitCode;
use std::time::Duration;

/// The interval is narrow enough when its ends are this close.
const CLOSE: f64 = 1.05;
const RATE_MAX: f64 = 1e8;
/// A rate that was asked for and not reached does not hold, whatever the latencies say.
const REACHED: f64 = 0.97;

pub fn find(plan: &Plan, condition: &Threshold, output: &OutputArgs) -> Result<ExitCode, Failure> {
    phases::prepare(plan)?;
    let mut search = Search { plan: plan.clone(), condition, best: None };
    let start = search.rate().ok_or_else(|| Usage("--find needs an open loop: a shape with a rate".into()))?;
    let found = bracket(start, &mut |rate| search.holds(rate))?;
    let Some((low, high)) = found else {
        let (rate, condition) = (start / 1024.0, condition.to_string());
        return Err(format!("{condition} does not hold even at {rate:.1}/s").into());
    };
    let limit = high.map_or_else(|| "no rate failed".to_owned(), |high| format!("not at {high:.0}/s"));
    println!("{condition} holds at {low:.0}/s; {limit}");
    match &search.best {
        Some(outcome) => report::tell(outcome, output),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The highest rate that was seen to hold, and the lowest above it that was seen not to. None if
/// nothing holds.
fn bracket(
    start: f64,
    holds: &mut dyn FnMut(f64) -> Result<bool, Failure>,
) -> Result<Option<(f64, Option<f64>)>, Failure> {
    let (mut low, mut high, mut rate) = (None, None, start);
    while low.is_none() || high.is_none() {
        match holds(rate)? {
            true => low = Some(rate),
            false => high = Some(rate),
        }
        rate = match (low, high) {
            (Some(low), None) if low * 2.0 > RATE_MAX => return Ok(Some((low, None))),
            (Some(low), None) => low * 2.0,
            (None, Some(high)) if high < start / 512.0 => return Ok(None),
            (None, Some(high)) => high / 2.0,
            _ => break,
        };
    }
    let (Some(mut low), Some(mut high)) = (low, high) else { return Ok(None) };
    while high / low > CLOSE {
        let middle = (low * high).sqrt();
        match holds(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(Some((low, Some(high))))
}

struct Search<'a> {
    plan: Plan,
    condition: &'a Threshold,
    /// The outcome at the highest rate that held.
    best: Option<Outcome>,
}

impl Search<'_> {
    fn rate(&self) -> Option<f64> {
        self.plan.groups.iter().find_map(|group| match group.traffic {
            Traffic::Rate { per_second, .. } => Some(per_second),
            _ => None,
        })
    }

    /// The majority of up to three tries.
    fn holds(&mut self, rate: f64) -> Result<bool, Failure> {
        let (mut yes, mut no) = (0, 0);
        while yes < 2 && no < 2 {
            match self.attempt(rate)? {
                // What holds at once need not be tried again, unless another try said no.
                true if no == 0 => return Ok(true),
                true => yes += 1,
                false => no += 1,
            }
        }
        Ok(yes > no)
    }

    fn attempt(&mut self, rate: f64) -> Result<bool, Failure> {
        for group in &mut self.plan.groups {
            if let Traffic::Rate { per_second, .. } = &mut group.traffic {
                *per_second = rate;
            }
        }
        let outcome = phases::run(&self.plan, Duration::from_secs(1), &mut NoObserver)?;
        if phases::stop_flag().load(std::sync::atomic::Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        let (counts, seconds) = (outcome.measured_total().counts, outcome.measured.as_secs_f64());
        let units = if counts.opened > 0 { counts.opened } else { counts.received };
        let reached = units as f64 / seconds >= REACHED * rate;
        let errors = outcome.whole_total().counts.errors();
        let holds = reached && errors == 0 && self.condition.is_true(&outcome);
        let word = if holds { "holds" } else { "does not hold" };
        let seen = self.condition.seen(&outcome);
        eprintln!("{rate:.0}/s: {seen}, {:.0}/s received, {errors} errors: {word}", units as f64 / seconds);
        if holds {
            self.best = Some(outcome);
        }
        Ok(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: f64, limit: f64) -> (Option<(f64, Option<f64>)>, usize) {
        let mut tries = 0;
        let found = bracket(start, &mut |rate| {
            tries += 1;
            Ok(rate <= limit)
        });
        (found.unwrap(), tries)
    }

    #[test]
    fn the_limit_lies_in_the_interval_and_the_interval_is_narrow() {
        for (start, limit) in [(1000.0, 123_456.0), (1000.0, 1000.0), (1000.0, 37.0), (10.0, 11.0)] {
            let (found, tries) = search(start, limit);
            let (low, Some(high)) = found.unwrap() else { panic!("no upper end") };
            assert!(low <= limit && limit < high && high / low <= CLOSE, "{low} {high}");
            assert!(tries < 20, "{tries} tries");
        }
    }

    #[test]
    fn a_search_without_an_end_ends() {
        assert_eq!(search(1000.0, 0.0).0, None);
        let (low, high) = search(1000.0, 1e12).0.unwrap();
        assert!(low > 5e7 && high.is_none());
    }
}
