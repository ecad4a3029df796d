//! Figures with three digits and a unit.

/// Microseconds as `850 us`, `12.3 ms`, `4.56 s`.
pub fn time(us: f64) -> String {
    match us {
        us if us < 1e3 && us.fract() == 0.0 => format!("{us:.0} us"),
        us if us < 1e3 => format!("{} us", digits(us)),
        us if us < 1e6 => format!("{} ms", digits(us / 1e3)),
        us => format!("{} s", digits(us / 1e6)),
    }
}

/// `950`, `12.3k`, `4.56M`.
pub fn count(value: f64) -> String {
    match value {
        value if value < 1e4 && (value.fract() == 0.0 || value >= 100.0) => format!("{value:.0}"),
        value if value < 1e4 => digits(value),
        value if value < 1e6 => format!("{}k", digits(value / 1e3)),
        value => format!("{}M", digits(value / 1e6)),
    }
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let times = [
            (1.0, "1 us"),
            (999.0, "999 us"),
            (1234.0, "1.23 ms"),
            (45_600.0, "45.6 ms"),
            (2e6, "2.00 s"),
            (99_960.0, "100 ms"),
            (1.5, "1.50 us"),
        ];
        for (us, expected) in times {
            assert_eq!(time(us), expected);
        }
        for (value, expected) in
            [(0.0, "0"), (9999.0, "9999"), (12_345.0, "12.3k"), (3e6, "3.00M"), (1000.0, "1000"), (0.5, "0.50")]
        {
            assert_eq!(count(value), expected);
        }
    }
}
