//! Shadows: `shadow` of a `[[route]]`, and the limits that go with it.

use super::build::Builder;
use super::file::{self, Typed};
use super::value::{self, Parsed, shown, size_text};
use super::{Limits, routes};
use crate::memory::SCRATCH_BYTES;
use crate::policy::matching::Routes;
use crate::policy::shadow::{Shadow, WHOLE};
use crate::policy::upstream::Upstream;
use std::ops::RangeInclusive;
use std::sync::Arc;
use toml::Value;

const NO_UPSTREAM: &str = "missing; expected the name of an [[upstream]] or a URL such as \"ws://10.0.0.9:9000\"";
const NO_PERCENT: &str = "missing; add the share of sessions, for example percent = 10";
const BUFFER_BYTES: RangeInclusive<u64> = 16 << 10..=64 << 20;
const BUFFER_DEFAULT: usize = 256 << 10;
/// One descriptor each.
const SHADOWS: RangeInclusive<i64> = 1..=1_000_000;
const SHADOWS_DEFAULT: usize = 1024;
const ALL_BUFFERS: RangeInclusive<u64> = 2 * SCRATCH_BYTES as u64..=1 << 40;
const ALL_BUFFERS_DEFAULT: usize = 16 << 20;

impl Builder<'_, '_> {
    /// A URL becomes an upstream of its own.
    pub fn shadow(&mut self, typed: &file::Route, upstreams: &mut Vec<Arc<Upstream>>) -> Option<Shadow> {
        let section = typed.shadow.as_ref()?;
        let shadow = section.get_ref();
        if let Some(splice) = &typed.splice
            && splice.get_ref().as_str() == Some("on")
        {
            let why = "requires splice = \"off\": what the kernel forwards is not seen here";
            self.problems.add(section.span(), "route.shadow", why);
        }
        for (key, typed, right) in [
            ("route.shadow.upstream", &shadow.upstream, NO_UPSTREAM),
            ("route.shadow.percent", &shadow.percent, NO_PERCENT),
        ] {
            if typed.is_none() {
                self.problems.add(section.span(), key, right);
            }
        }
        let destination = self.read("route.shadow.upstream", &shadow.upstream, |v| routes::destination(v, upstreams));
        let share = self.take("route.shadow.percent", &shadow.percent, WHOLE, percent);
        let buffer_bytes = self.buffer("route.shadow.buffer", &shadow.buffer, BUFFER_BYTES, BUFFER_DEFAULT);
        let upstream = self.upstream_for(destination?, upstreams);
        Some(Shadow { upstream, share, buffer_bytes })
    }

    /// The limits on shadows; none where no route has one.
    pub fn shadow_limits(&mut self, typed: &file::Limits, routes: &Routes, limits: &mut Limits) {
        let key = "limits.max_shadows";
        let max_shadows = self.take(key, &typed.max_shadows, SHADOWS_DEFAULT, |v| {
            let number = v.as_integer().filter(|number| SHADOWS.contains(number));
            number.and_then(|number| usize::try_from(number).ok()).ok_or_else(|| {
                format!("{} is not valid; expected a number from {} to {}", shown(v), SHADOWS.start(), SHADOWS.end())
            })
        });
        let (key, written) = ("limits.shadow_buffers", &typed.shadow_buffers);
        let all = self.buffer(key, written, ALL_BUFFERS, ALL_BUFFERS_DEFAULT);
        let mut buffers =
            routes.entries().iter().filter_map(|entry| entry.route.shadow.as_ref()).map(|s| s.buffer_bytes);
        let Some(largest) = buffers.by_ref().next().map(|first| buffers.fold(first, usize::max)) else { return };
        if let (true, Some(at)) = (largest > all, written) {
            let (has, largest) = (size_text(all as u64), size_text(largest as u64));
            let why = format!("{has} is less than the buffer of one shadow ({largest}); raise it, or lower that");
            self.problems.add(at.span(), key, &why);
        }
        (limits.max_shadows, limits.shadow_buffer_bytes) = (max_shadows, all);
    }

    fn buffer(&mut self, key: &str, typed: &Typed, range: RangeInclusive<u64>, default: usize) -> usize {
        let size = |v: &Value| value::size(v, range).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        self.take(key, typed, default, size)
    }
}

/// A share of [`WHOLE`], of a percentage with up to two decimal places.
fn percent(value: &Value) -> Parsed<u32> {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        _ => f64::NAN,
    };
    let share = (number * 100.0).round();
    // A decimal fraction is seldom exact in binary: it may be off by the last digits.
    let exact = (number * 100.0 - share).abs() < 1e-6;
    if exact && (1.0..=f64::from(WHOLE)).contains(&share) {
        return Ok(share as u32);
    }
    Err(format!("{} is not valid; expected a number from 0.01 to 100, with at most two decimal places", shown(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact_to_two_places() {
        for (written, share) in
            [(0.01, 1), (0.07, 7), (0.29, 29), (1.1, 110), (33.33, 3333), (99.99, 9999), (100.0, WHOLE)]
        {
            assert_eq!(percent(&Value::Float(written)), Ok(share), "{written}");
        }
        assert_eq!(percent(&Value::Integer(10)), Ok(1000));
        let wrong = [Value::Integer(0), Value::Integer(101), Value::Integer(i64::MIN), Value::String("10".into())];
        let floats = [0.0, 0.009, 0.015, 100.01, -1.0, f64::NAN, f64::INFINITY].map(Value::Float);
        for value in wrong.iter().chain(&floats) {
            assert!(percent(value).is_err_and(|e| e.contains("0.01 to 100")), "{value:?}");
        }
    }
}
