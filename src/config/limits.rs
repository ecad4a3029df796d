//! Limits of a `[[listener]]`; handshakes in a time, of a route and of a client; limits of an API
//! key.

use super::build::Builder;
use super::file::{AddressLimit, HandshakeLimit, ListenerLimits as TypedLimits, RateLimit, Section, TotalLimit, Typed};
use super::flow::rate as rate_value;
use super::value::{self, duration_text};
use crate::policy::keyed::{By, HandshakeRate, KeyLimit, Keyed};
use crate::policy::limit::{ClientLimits, SessionLimit, SharedRate};
use crate::policy::listener::ListenerLimits;
use crate::proto::rate::{self, Measure, Rate};
use std::ops::RangeInclusive;
use std::sync::Arc;
use toml::{Spanned, Value};

pub const SESSIONS: RangeInclusive<u64> = 1..=1_000_000;
const BURST: RangeInclusive<u64> = 1..=1_000_000;
/// A smaller one would be a whole provider, a larger one a single host of a customer.
const PREFIX: RangeInclusive<u64> = 16..=128;
const PREFIX_DEFAULT: u8 = 64;
const ENTRIES: RangeInclusive<u64> = 64..=16_777_216;
const ENTRIES_DEFAULT: u64 = 65_536;
const NO_RATE: &str = "missing; expected for example \"500/s\"";

impl Builder<'_, '_> {
    pub fn listener_limits(&mut self, typed: &Option<Section<TypedLimits>>) -> Option<Arc<ListenerLimits>> {
        let section = typed.as_ref()?;
        let typed = section.get_ref();
        let limits_something = typed.half_open.is_some()
            || typed.handshakes.is_some()
            || typed.max_sessions.is_some()
            || typed.total.is_some()
            || typed.per_address.is_some();
        if !limits_something {
            let why = "limits nothing; add for example half_open = 1000";
            self.problems.add(section.span(), "listener.limits", why);
        }
        let half_open = self.read("listener.limits.half_open", &typed.half_open, value::sessions);
        let max_sessions = self.read("listener.limits.max_sessions", &typed.max_sessions, value::sessions);
        let handshakes = self.shared_handshakes("listener.limits.handshakes", &typed.handshakes);
        let total = self.total_rates("listener.limits.total", &typed.total);
        let (by_address, half_open_by_address) = self.address_limits(&typed.per_address);
        let (half_open, sessions) = (SessionLimit::new(half_open), SessionLimit::new(max_sessions));
        Some(Arc::new(ListenerLimits { half_open, handshakes, sessions, total, by_address, half_open_by_address }))
    }

    /// What all sessions of a listener or a route may do together.
    pub fn total_rates(&mut self, name: &str, section: &Option<Section<TotalLimit>>) -> Vec<SharedRate> {
        let Some(section) = section else { return Vec::new() };
        let typed = section.get_ref();
        if typed.messages.is_none() && typed.bytes.is_none() {
            let why = "limits nothing; add for example messages = { rate = \"10000/s\" }";
            self.problems.add(section.span(), name, why);
        }
        self.rates_of(name, &typed.messages, &typed.bytes).into_iter().map(SharedRate::new).collect()
    }

    /// `messages` and `bytes` of several sessions together.
    pub fn rates_of(
        &mut self,
        name: &str,
        messages: &Option<Section<RateLimit>>,
        bytes: &Option<Section<RateLimit>>,
    ) -> Vec<rate::RateLimit> {
        let rates = [(Measure::Messages, "messages", messages), (Measure::Bytes, "bytes", bytes)];
        let rate = |(measure, key, typed): (_, _, &Option<Section<_>>)| {
            self.rate_limit(&format!("{name}.{key}"), measure, typed.as_ref()?)
        };
        rates.into_iter().filter_map(rate).collect()
    }

    /// Sessions and handshakes of an address, and its half-open connections.
    fn address_limits(&mut self, section: &Option<Section<AddressLimit>>) -> (Option<Keyed>, Option<Keyed>) {
        let name = "listener.limits.per_address";
        let Some(section) = section else { return (None, None) };
        let typed = section.get_ref();
        let limits_rates = typed.messages.is_some() || typed.bytes.is_some();
        if typed.half_open.is_none() && typed.sessions.is_none() && typed.handshakes.is_none() && !limits_rates {
            let why = "limits nothing; add for example half_open = 20, or sessions = 100";
            self.problems.add(section.span(), name, why);
        }
        let number = |v: &Value| value::number(v, SESSIONS);
        let half_open = self.read(&format!("{name}.half_open"), &typed.half_open, number);
        let sessions = self.read(&format!("{name}.sessions"), &typed.sessions, number);
        let handshakes = self.handshakes_of(name, &typed.handshakes, &typed.burst);
        let ipv6_prefix = self.ipv6_prefix(name, &typed.ipv6_prefix);
        let entries = self.entries(name, &typed.entries);
        let limit = KeyLimit { sessions, handshakes, ipv6_prefix, entries, shared: false };
        let rates = self.rates_of(name, &typed.messages, &typed.bytes);
        let counts = sessions.is_some() || handshakes.is_some() || limits_rates;
        let half_open = half_open.map(|max| KeyLimit { sessions: Some(max), handshakes: None, ..limit });
        let by_address = counts.then(|| Keyed::with_rates(By::Address, limit, rates));
        (by_address, half_open.map(|limit| Keyed::new(By::Address, limit)))
    }

    /// `{ rate = "500/s", burst = 1000 }`, of all clients together.
    pub fn shared_handshakes(&mut self, key: &str, typed: &Option<Section<HandshakeLimit>>) -> Option<SharedRate> {
        let section = typed.as_ref()?;
        let (typed, rate_key) = (section.get_ref(), format!("{key}.rate"));
        if typed.rate.is_none() {
            self.problems.add(section.span(), &rate_key, NO_RATE);
        }
        let rate = self.read(&rate_key, &typed.rate, |v| rate_value(v, Measure::Messages)).flatten();
        let burst = self.read(&format!("{key}.burst"), &typed.burst, |v| value::number(v, BURST));
        rate.map(|rate| SharedRate::of_handshakes(HandshakeRate { rate, burst: burst.unwrap_or(rate.units) }))
    }

    /// `handshakes = "10/s"`, with a `burst` beside it.
    pub fn handshakes_of(&mut self, name: &str, handshakes: &Typed, burst: &Typed) -> Option<HandshakeRate> {
        let passes =
            self.read(&format!("{name}.handshakes"), handshakes, |v| rate_value(v, Measure::Messages)).flatten();
        if let (None, Some(at)) = (handshakes, burst) {
            let why = "has no effect without handshakes; remove it";
            self.problems.add(at.span(), &format!("{name}.burst"), why);
        }
        let burst = self.read(&format!("{name}.burst"), burst, |v| value::number(v, BURST));
        passes.map(|rate| HandshakeRate { rate, burst: burst.unwrap_or(rate.units) })
    }

    /// What may be done with an API key; `None` if nothing of that is limited. The place of each
    /// error is that of the key.
    pub fn key_limits(&mut self, key: &Spanned<Value>) -> Option<ClientLimits> {
        let table = key.get_ref().as_table()?;
        let at = |value: &Value| Some(Spanned::new(key.span(), value.clone()));
        let typed = |name: &str| table.get(name).and_then(at);
        let sessions = self.read("auth.keys.sessions", &typed("sessions"), value::sessions);
        let handshakes = self.handshakes_of("auth.keys", &typed("handshakes"), &typed("burst"));
        let mut rates = Vec::new();
        for (name, measure) in [("messages", Measure::Messages), ("bytes", Measure::Bytes)] {
            let Some(value) = table.get(name) else { continue };
            let name = format!("auth.keys.{name}");
            let limit = value.as_table().ok_or_else(|| format!("{} is not a table", value::shown(value)));
            let limit = limit.and_then(|limit| {
                value::only_keys(limit, &["rate", "burst", "close", "patience"])?;
                let typed = |name: &str| limit.get(name).and_then(at);
                let (rate, burst, close, patience) = (typed("rate"), typed("burst"), typed("close"), typed("patience"));
                Ok(RateLimit { rate, burst, close, patience })
            });
            match limit {
                Ok(limit) => rates.extend(self.rate_limit(&name, measure, &Spanned::new(key.span(), limit.into()))),
                Err(why) => self.problems.add(key.span(), &name, &why),
            }
        }
        let is_limited = sessions.is_some() || handshakes.is_some() || !rates.is_empty();
        is_limited.then(|| ClientLimits {
            sessions: SessionLimit::new(sessions),
            handshakes: handshakes.map(SharedRate::of_handshakes),
            rates: rates.into_iter().map(SharedRate::new).collect(),
        })
    }

    pub fn ipv6_prefix(&mut self, name: &str, typed: &Typed) -> u8 {
        let prefix = |v: &Value| value::number(v, PREFIX).map(|bits| bits as u8);
        self.take(&format!("{name}.ipv6_prefix"), typed, PREFIX_DEFAULT, prefix)
    }

    /// Places of a table.
    pub fn entries(&mut self, name: &str, typed: &Typed) -> usize {
        self.take(&format!("{name}.entries"), typed, ENTRIES_DEFAULT, |v| value::number(v, ENTRIES)) as usize
    }
}

/// What `check` says of a rate of handshakes.
pub fn rate_text(rate: Rate, burst: u64) -> String {
    format!("{}/{} handshakes (burst {burst})", rate.units, duration_text(rate.period_ms))
}
