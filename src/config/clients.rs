//! What each client may have: `per_address` and `per_identity` in the limits of a route.

use super::build::Builder;
use super::file::{self, ClientLimit, Section};
use super::flow::rate;
use super::value::{self, duration_text};
use crate::policy::keyed::{By, HandshakeRate, KeyLimit, Keyed};
use crate::proto::rate::Measure;
use std::ops::RangeInclusive;

const SESSIONS: RangeInclusive<u64> = 1..=1_000_000;
const BURST: RangeInclusive<u64> = 1..=1_000_000;
/// A smaller one would be a whole provider, a larger one a single host of a customer.
const PREFIX: RangeInclusive<u64> = 16..=128;
const PREFIX_DEFAULT: u8 = 64;
const ENTRIES: RangeInclusive<u64> = 64..=16_777_216;
const ENTRIES_DEFAULT: u64 = 65_536;

impl Builder<'_, '_> {
    /// The limits of a route by address and by identity.
    pub fn client_limits(&mut self, route: &file::Route) -> (Option<Keyed>, Option<Keyed>) {
        let limits = &route.limits;
        if let (None, Some(section)) = (&route.auth, &limits.per_identity) {
            let why = "has no effect without auth, which says who a client is";
            self.problems.add(section.span(), "route.limits.per_identity", why);
        }
        (self.client_limit(By::Address, &limits.per_address), self.client_limit(By::Identity, &limits.per_identity))
    }

    fn client_limit(&mut self, by: By, section: &Option<Section<ClientLimit>>) -> Option<Keyed> {
        let (section, name) = (section.as_ref()?, key(by));
        let typed = section.get_ref();
        if typed.sessions.is_none() && typed.handshakes.is_none() {
            let why = "limits nothing; add for example sessions = 20, or handshakes = \"10/s\"";
            self.problems.add(section.span(), name, why);
        }
        if let (By::Identity, Some(at)) = (by, &typed.ipv6_prefix) {
            let why = "has no effect: a client is known by its credentials; remove it";
            self.problems.add(at.span(), &format!("{name}.ipv6_prefix"), why);
        }
        let sessions = self.read(&format!("{name}.sessions"), &typed.sessions, |v| value::number(v, SESSIONS));
        let passes =
            self.read(&format!("{name}.handshakes"), &typed.handshakes, |v| rate(v, Measure::Messages)).flatten();
        if let (None, Some(at)) = (&typed.handshakes, &typed.burst) {
            let why = "has no effect without handshakes; remove it";
            self.problems.add(at.span(), &format!("{name}.burst"), why);
        }
        let burst = self.read(&format!("{name}.burst"), &typed.burst, |v| value::number(v, BURST));
        let handshakes = passes.map(|rate| HandshakeRate { rate, burst: burst.unwrap_or(rate.units) });
        let prefix = |v: &toml::Value| value::number(v, PREFIX).map(|bits| bits as u8);
        let ipv6_prefix = self.take(&format!("{name}.ipv6_prefix"), &typed.ipv6_prefix, PREFIX_DEFAULT, prefix);
        let entries = |v: &toml::Value| value::number(v, ENTRIES);
        let entries = self.take(&format!("{name}.entries"), &typed.entries, ENTRIES_DEFAULT, entries) as usize;
        let shared = self.take(&format!("{name}.shared"), &typed.shared, false, value::flag);
        Some(Keyed::new(by, KeyLimit { sessions, handshakes, ipv6_prefix, entries, shared }))
    }
}

fn key(by: By) -> &'static str {
    match by {
        By::Address => "route.limits.per_address",
        By::Identity => "route.limits.per_identity",
    }
}

/// What `check` says of such a limit.
pub fn describe(keyed: &Keyed) -> String {
    let KeyLimit { sessions, handshakes, ipv6_prefix, shared, .. } = keyed.limit;
    let mut parts = Vec::new();
    parts.extend(sessions.map(|max| format!("{max} sessions")));
    parts.extend(handshakes.map(|HandshakeRate { rate, burst }| {
        format!("{}/{} handshakes (burst {burst})", rate.units, duration_text(rate.period_ms))
    }));
    let of = match keyed.by {
        By::Address => format!("address (IPv6 by /{ipv6_prefix})"),
        By::Identity => "client".to_owned(),
    };
    format!("per {of} {}{}", parts.join(" and "), if shared { " on all hosts" } else { "" })
}
