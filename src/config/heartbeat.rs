//! Heartbeats: `heartbeat` of a `[[route]]`.

use super::build::Builder;
use super::file::{self, Typed};
use super::value::{self, Parsed, TIMEOUT, duration_text, text};
use crate::proto::settings::{Heartbeat, Mode};
use crate::proto::{Millis, Sides};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Value;

/// A tick of the worker's timers, to 30 days.
const RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=*TIMEOUT.end();
/// At most half the shorter interval.
const TIMEOUT_MS: Millis = 10_000;

impl Builder<'_, '_> {
    /// `None` where no leg has an interval.
    pub fn heartbeat(&mut self, typed: &file::Route) -> Option<Heartbeat> {
        let section = typed.heartbeat.as_ref()?;
        let (at, keys) = (section.span(), section.get_ref());
        if typed.mode.as_ref().is_some_and(|mode| text(mode.get_ref()) == Ok(Mode::Opaque.name())) {
            let why = "requires mode = \"framed\": opaque does not know where a frame ends";
            self.problems.add(at.clone(), "route.heartbeat", why);
        }
        if keys.client.is_none() && keys.upstream.is_none() {
            let why = "has no interval; add client = \"30s\", upstream = \"30s\", or both";
            self.problems.add(at, "route.heartbeat", why);
        }
        let client = self.take("route.heartbeat.client", &keys.client, 0, interval);
        let upstream = self.take("route.heartbeat.upstream", &keys.upstream, 0, interval);
        let shortest = [client, upstream].into_iter().filter(|interval| *interval > 0).min();
        let timeout_ms = self.heartbeat_timeout(&keys.timeout, shortest);
        shortest.map(|_| Heartbeat { interval_ms: Sides::new(client, upstream), timeout_ms })
    }

    fn heartbeat_timeout(&mut self, typed: &Typed, shortest: Option<Millis>) -> Millis {
        let key = "route.heartbeat.timeout";
        let usual = shortest.map_or(TIMEOUT_MS, |shortest| TIMEOUT_MS.min((shortest / 2).max(1)));
        let timeout = self.take(key, typed, usual, |v| value::duration(v, RANGE, ""));
        if let (Some(shortest), Some(at)) = (shortest.filter(|shortest| timeout >= *shortest), typed) {
            let (has, most) = (duration_text(timeout), duration_text(shortest));
            let why = format!("{has} is not below the interval ({most}); lower it, or raise the interval");
            self.problems.add(at.span(), key, &why);
        }
        timeout
    }
}

/// Milliseconds; 0 is off.
fn interval(value: &Value) -> Parsed<Millis> {
    value::duration(value, RANGE, "off")
}
