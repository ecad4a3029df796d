//! Percentile distributions as comma-separated values, for spreadsheets: one line a step.

use super::text::rows;
use crate::run::measure::Outcome;

/// Steps on each halving of the distance to 100 %, as in the outputs of HDR histograms elsewhere.
const TICKS: u32 = 5;

/// Columns: group, metric, percentile, value_us, count (values up to there).
pub fn csv(outcome: &Outcome) -> String {
    let mut out = String::from("group,metric,percentile,value_us,count\n");
    for group in &outcome.groups {
        // A name may hold any character.
        let name = group.requested.name.replace('"', "\"\"");
        for (metric, histogram) in rows(group) {
            for step in histogram.iter_quantiles(TICKS) {
                let (percent, value) = (step.quantile_iterated_to() * 100.0, step.value_iterated_to());
                let below = histogram.count_between(0, value);
                out += &format!("\"{name}\",{},{percent:.6},{value},{below}\n", metric.name());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_last_line_of_a_metric_is_its_maximum() {
        let text = csv(&outcome());
        let last = text.lines().rfind(|line| line.contains("round-trip")).unwrap();
        assert!(last.starts_with("\"echo\",round-trip,100.000000,200") && last.ends_with(",2000"), "{last}");
        assert!(text.lines().count() > 20);
    }
}
