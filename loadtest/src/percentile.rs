//! Percentiles of latency histograms, as all reports show them (the curves of `report::csv` and
//! `report::plot` walk the whole histogram instead). Values are microseconds, to the three digits
//! that the histograms keep.

use hdrhistogram::Histogram;

/// The percentiles of every report: name and quantile.
pub const PERCENTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("p99.999", 0.99999)];

/// The smallest recorded value that at least a share of `quantile` of all values does not exceed; 0
/// of an empty histogram.
pub fn value(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    histogram.value_at_quantile(quantile)
}

/// The value at `quantile` if at least one recorded value lies above it; otherwise it would only
/// repeat the maximum.
pub fn supported(histogram: &Histogram<u64>, quantile: f64) -> Option<u64> {
    let above = histogram.len() as f64 * (1.0 - quantile);
    // Half a value of tolerance, for 1 - 0.9 is not 0.1.
    (above > 0.999).then(|| value(histogram, quantile))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_to_a_hundred() -> Histogram<u64> {
        let mut histogram = crate::run::measure::empty();
        (0..100).for_each(|value| histogram.record(value + 1).unwrap());
        histogram
    }

    #[test]
    fn values_are_those_of_the_sorted_sample() {
        let histogram = one_to_a_hundred();
        for (quantile, expected) in [(0.0, 1), (0.5, 50), (0.9, 90), (0.99, 99), (0.999, 100), (1.0, 100)] {
            assert_eq!(value(&histogram, quantile), expected, "{quantile}");
        }
    }

    #[test]
    fn a_small_sample_has_no_high_percentiles() {
        let histogram = one_to_a_hundred();
        assert_eq!(supported(&histogram, 0.9), Some(90));
        assert_eq!(supported(&histogram, 0.99), Some(99));
        assert_eq!(supported(&histogram, 0.999), None);
    }
}
