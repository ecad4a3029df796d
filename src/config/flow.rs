//! Limits on what a session does: rates of messages, bytes and control frames, fragments, age.

use super::build::Builder;
use super::file::{FlowKeys, RateLimit as TypedRate, Section, SessionAge as TypedAge};
use super::routes::close_code;
use super::value::{self, Parsed, duration_text, shown, size_text, text};
use crate::proto::rate::{BURST_MAX, BURST_MIN_MS, Measure, OnExcess, PERIOD_MAX_MS, Rate, RateLimit, UNITS_MAX};
use crate::proto::settings::{FlowLimits, GOING_AWAY, Mode, SessionAge};
use crate::proto::{Side, Sides};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Value;

const PERIOD: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(PERIOD_MAX_MS);
/// What a limit waits for by default before it closes a session.
const PATIENCE_MS: u64 = 60_000;
/// "1008 indicates that an endpoint is terminating the connection because it has received a message
/// that violates its policy" (RFC 6455 section 7.4.1).
const POLICY_VIOLATION: u16 = 1008;
const FRAGMENTS: RangeInclusive<u64> = 1..=1_000_000_000;
const AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);
const JITTER: f64 = 0.1;
const NO_RATE: &str = "missing; expected for example \"100/60s\", for bytes \"1MiB/s\", or \"off\"";
const NO_MAX: &str = "missing; expected for example \"12h\", or 0 for off";
/// What a tunnel cannot limit.
pub const NOT_OPAQUE: &str = "requires mode = \"framed\": opaque does not read frame headers";

impl Builder<'_, '_> {
    /// The limits of `section`, with `inherited` where it has no key. A tunnel does not inherit
    /// those that need frames; written for one they are errors.
    pub fn flow_limits(
        &mut self,
        section: &str,
        typed: FlowKeys<'_>,
        inherited: &FlowLimits,
        mode: Mode,
    ) -> FlowLimits {
        use Measure::{Bytes, ControlFrames, Messages};
        use Side::{Downstream, Upstream};
        let keys = [
            (Downstream, Messages, "messages", typed.messages),
            (Downstream, Bytes, "bytes", typed.bytes),
            (Downstream, ControlFrames, "control_frames", typed.control_frames),
            (Upstream, Messages, "upstream_messages", typed.upstream_messages),
            (Upstream, Bytes, "upstream_bytes", typed.upstream_bytes),
        ];
        let mut rates = Sides::<Vec<RateLimit>>::default();
        for (from, measure, key, typed) in keys {
            let key = format!("{section}.{key}");
            let limit = match typed {
                Some(typed) => self.rate_limit(&key, measure, typed),
                None => inherited.rates[from].iter().find(|limit| limit.measure == measure).copied(),
            };
            if let (Mode::Opaque, Some(typed), Messages | ControlFrames) = (mode, typed, measure)
                && limit.is_some()
            {
                self.problems.add(typed.span(), &key, NOT_OPAQUE);
            }
            rates[from].extend(limit.filter(|_| mode == Mode::Framed || measure == Bytes));
        }
        let key = format!("{section}.fragments");
        let fragments = self.take(&key, typed.fragments, inherited.fragments, fragments);
        if let (Mode::Opaque, Some(typed), true) = (mode, typed.fragments, fragments < u32::MAX) {
            self.problems.add(typed.span(), &key, NOT_OPAQUE);
        }
        let age = match typed.session_age {
            Some(typed) => self.session_age(&format!("{section}.session_age"), typed),
            None => inherited.age,
        };
        FlowLimits { rates, fragments: if mode == Mode::Framed { fragments } else { u32::MAX }, age }
    }

    pub fn rate_limit(&mut self, key: &str, measure: Measure, section: &Section<TypedRate>) -> Option<RateLimit> {
        let typed = section.get_ref();
        let rate_key = format!("{key}.rate");
        if typed.rate.is_none() {
            self.problems.add(section.span(), &rate_key, NO_RATE);
        }
        let rate = self.read(&rate_key, &typed.rate, |v| rate(v, measure)).flatten();
        let code = self.take(&format!("{key}.close"), &typed.close, POLICY_VIOLATION, close_code);
        let on_excess = self.on_excess(key, typed);
        let rate = rate?;
        // What passes before paused reading is resumed must fit.
        let least = rate.units_in(BURST_MIN_MS);
        let burst = self.take(&format!("{key}.burst"), &typed.burst, rate.units.max(least), |v| {
            let burst = units(v, measure, BURST_MAX)?;
            if burst >= least {
                return Ok(burst);
            }
            let (has, ms, least) = (shown(v), duration_text(BURST_MIN_MS), units_text(measure, least));
            Err(format!("{has} is less than what passes in {ms} at this rate; expected at least {least}"))
        });
        Some(RateLimit { measure, rate, burst, on_excess, close_code: code })
    }

    /// With a close code alone a limit closes at once.
    fn on_excess(&mut self, key: &str, typed: &TypedRate) -> OnExcess {
        let default = match typed.close {
            Some(_) => OnExcess::Close,
            None => OnExcess::PauseThenClose { patience_ms: PATIENCE_MS },
        };
        let key = format!("{key}.patience");
        let on_excess = self.take(&key, &typed.patience, default, |v| match v.as_str() {
            Some("off") => Ok(OnExcess::Pause),
            _ => match value::timeout_or_off(v) {
                Ok(0) => Ok(OnExcess::Close),
                Ok(patience_ms) => Ok(OnExcess::PauseThenClose { patience_ms }),
                Err(error) => {
                    Err(format!("{}, or \"off\" to never close", error.replace("0 for off", "0 for at once")))
                }
            },
        });
        if let (OnExcess::Pause, Some(_), Some(at)) = (on_excess, &typed.close, &typed.patience) {
            self.problems.add(at.span(), &key, "\"off\" never closes; remove close, or set a time");
        }
        on_excess
    }

    fn session_age(&mut self, key: &str, section: &Section<TypedAge>) -> Option<SessionAge> {
        let typed = section.get_ref();
        let max_key = format!("{key}.max");
        if typed.max.is_none() {
            self.problems.add(section.span(), &max_key, NO_MAX);
        }
        let max_ms = self.take(&max_key, &typed.max, 0, |v| value::duration(v, AGE, "off"));
        let share = self.take(&format!("{key}.jitter"), &typed.jitter, JITTER, jitter);
        let close_code = self.take(&format!("{key}.close"), &typed.close, GOING_AWAY, close_code);
        (max_ms > 0).then_some(SessionAge { max_ms, jitter_ms: (max_ms as f64 * share) as u64, close_code })
    }
}

/// A share of the age.
fn jitter(value: &Value) -> Parsed<f64> {
    let share = match value {
        Value::Float(share) => Some(*share),
        Value::Integer(0) => Some(0.0),
        _ => None,
    };
    let right = || format!("{} is not a share of the age; expected 0 to 0.5, for example 0.1", shown(value));
    share.filter(|share| (0.0..=0.5).contains(share)).ok_or_else(right)
}

fn fragments(value: &Value) -> Parsed<u32> {
    match value.as_str() {
        Some("off") => Ok(u32::MAX),
        _ => match value::number(value, FRAGMENTS) {
            Ok(fragments) => Ok(u32::try_from(fragments).unwrap_or(u32::MAX)),
            Err(error) => Err(format!("{error}, or \"off\"")),
        },
    }
}

/// `100/60s`, `1MiB/s`; `None` for `off`.
pub fn rate(value: &Value, measure: Measure) -> Parsed<Option<Rate>> {
    let example = if measure == Measure::Bytes { "\"1MiB/s\"" } else { "\"100/60s\"" };
    let wrong =
        |why: &str| format!("{} is not a rate: {why}; expected for example {example}, or \"off\"", shown(value));
    let text = text(value)?;
    if text == "off" {
        return Ok(None);
    }
    let (units_text, period) = text.split_once('/').ok_or_else(|| wrong("it has no period"))?;
    let (units_text, period) = (units_text.trim(), period.trim());
    // "/s" is "/1s".
    let period = if period.starts_with(|c: char| c.is_ascii_digit()) { period.into() } else { format!("1{period}") };
    let number = units_text.parse().map(Value::Integer).unwrap_or_else(|_| Value::String(units_text.to_owned()));
    let units =
        units(&number, measure, UNITS_MAX).map_err(|error| wrong(&error.replace("; expected", ", expected")))?;
    let period_ms = value::duration(&Value::String(period), PERIOD, "")
        .map_err(|error| wrong(&error.replace("; expected", ", expected")))?;
    Ok(Some(Rate { units, period_ms }))
}

fn units(value: &Value, measure: Measure, most: u64) -> Parsed<u64> {
    match measure {
        Measure::Bytes => value::size(value, 1..=most),
        Measure::Messages | Measure::ControlFrames => value::number(value, 1..=most),
    }
}

fn units_text(measure: Measure, units: u64) -> String {
    match measure {
        Measure::Bytes => format!("\"{}\"", size_text(units)),
        Measure::Messages | Measure::ControlFrames => units.to_string(),
    }
}

/// What `check` says of a route's limits.
pub fn describe(limits: &FlowLimits) -> Vec<String> {
    let mut out = Vec::new();
    for from in Side::BOTH {
        for limit in &limits.rates[from] {
            out.push(rate_text(from, limit));
        }
    }
    if limits.fragments < u32::MAX {
        out.push(format!("at most {} fragments", limits.fragments));
    }
    if let Some(age) = limits.age {
        let (least, most) = (duration_text(age.max_ms - age.jitter_ms), duration_text(age.max_ms));
        let range = if age.jitter_ms == 0 { most } else { format!("{least} to {most}") };
        out.push(format!("Close {} at an age of {range}", age.close_code));
    }
    out
}

pub fn rate_text(from: Side, limit: &RateLimit) -> String {
    let from = match from {
        Side::Downstream => "client",
        Side::Upstream => "upstream",
    };
    let (what, units) = match limit.measure {
        Measure::Messages => ("messages", u64::to_string as fn(&u64) -> String),
        Measure::Bytes => ("bytes", (|units: &u64| size_text(*units)) as fn(&u64) -> String),
        Measure::ControlFrames => ("control frames", u64::to_string as fn(&u64) -> String),
    };
    let rate = format!("{}/{}", units(&limit.rate.units), duration_text(limit.rate.period_ms));
    let then = match limit.on_excess {
        OnExcess::Close => format!("Close {} at once", limit.close_code),
        OnExcess::Pause => "pauses reading".to_owned(),
        OnExcess::PauseThenClose { patience_ms } => {
            format!("pauses reading, Close {} after {}", limit.close_code, duration_text(patience_ms))
        }
    };
    format!("{what} of the {from} {rate} (burst {}): {then}", units(&limit.burst))
}
