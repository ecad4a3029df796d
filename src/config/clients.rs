//! What each client may have: `per_address` and `per_identity` in the limits of a route.

use super::Snapshot;
use super::build::Builder;
use super::file::{self, ClientLimit, Section};
use super::flow::{NOT_OPAQUE, rate_text as rate_of};
use super::limits::{SESSIONS, rate_text};
use super::value;
use crate::policy::keyed::{By, HandshakeRate, KeyLimit, Keyed};
use crate::policy::listener::ListenerLimits;
use crate::proto::Side;
use crate::proto::rate::RateLimit;
use crate::proto::settings::Mode;

impl Builder<'_, '_> {
    /// The limits of a route by address and by identity.
    pub fn client_limits(&mut self, route: &file::Route) -> (Option<Keyed>, Option<Keyed>) {
        let limits = &route.limits;
        if let (None, Some(section)) = (&route.auth, &limits.per_identity) {
            let why = "has no effect without auth, which says who a client is";
            self.problems.add(section.span(), "route.limits.per_identity", why);
        }
        let mode = route.mode.as_ref().and_then(|mode| mode.get_ref().as_str());
        let opaque = mode == Some(Mode::Opaque.name());
        let total = limits.total.as_ref().and_then(|total| total.get_ref().messages.as_ref());
        if let (true, Some(at)) = (opaque, total) {
            self.problems.add(at.span(), "route.limits.total.messages", NOT_OPAQUE);
        }
        let by_address = self.client_limit(By::Address, &limits.per_address, opaque);
        (by_address, self.client_limit(By::Identity, &limits.per_identity, opaque))
    }

    fn client_limit(&mut self, by: By, section: &Option<Section<ClientLimit>>, opaque: bool) -> Option<Keyed> {
        let (section, name) = (section.as_ref()?, key(by));
        let typed = section.get_ref();
        let limits_rates = typed.messages.is_some() || typed.bytes.is_some();
        if typed.sessions.is_none() && typed.handshakes.is_none() && !limits_rates {
            let why = "limits nothing; add for example sessions = 20, or handshakes = \"10/s\"";
            self.problems.add(section.span(), name, why);
        }
        if let (By::Identity, Some(at)) = (by, &typed.ipv6_prefix) {
            let why = "has no effect: a client is known by its credentials; remove it";
            self.problems.add(at.span(), &format!("{name}.ipv6_prefix"), why);
        }
        let sessions = self.read(&format!("{name}.sessions"), &typed.sessions, |v| value::number(v, SESSIONS));
        let handshakes = self.handshakes_of(name, &typed.handshakes, &typed.burst);
        let ipv6_prefix = self.ipv6_prefix(name, &typed.ipv6_prefix);
        let entries = self.entries(name, &typed.entries);
        if let (true, Some(at)) = (opaque, &typed.messages) {
            self.problems.add(at.span(), &format!("{name}.messages"), NOT_OPAQUE);
        }
        let rates = self.rates_of(name, &typed.messages, &typed.bytes);
        let shared = self.take(&format!("{name}.shared"), &typed.shared, false, value::flag);
        Some(Keyed::with_rates(by, KeyLimit { sessions, handshakes, ipv6_prefix, entries, shared }, rates))
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
    parts.extend(handshakes.map(|HandshakeRate { rate, burst }| rate_text(rate, burst)));
    let of = match keyed.by {
        By::Address => format!("address (IPv6 by /{ipv6_prefix})"),
        By::Identity => "client".to_owned(),
    };
    parts.extend(keyed.rates.iter().map(together));
    format!("per {of} {}{}", parts.join(" and "), if shared { " on all hosts" } else { "" })
}

/// What `check` says of a rate of all sessions together.
pub fn together(limit: &RateLimit) -> String {
    format!("all sessions together {}", rate_of(Side::Downstream, limit))
}

/// What `check` says of the limits of a listener.
pub fn describe_listener(limits: &ListenerLimits) -> String {
    let mut parts = Vec::new();
    parts.extend(limits.half_open.max().map(|max| format!("at most {max} half-open")));
    parts.extend(limits.handshakes.as_ref().map(|rate| rate_text(rate.limit().rate, rate.limit().burst)));
    parts.extend(limits.sessions.max().map(|max| format!("at most {max} sessions")));
    parts.extend(limits.total.iter().map(|rate| together(rate.limit())));
    let half_open = limits.half_open_by_address.as_ref();
    parts.extend(half_open.and_then(|keyed| {
        let (max, prefix) = (keyed.limit.sessions?, keyed.limit.ipv6_prefix);
        Some(format!("per address (IPv6 by /{prefix}) {max} half-open"))
    }));
    parts.extend(limits.by_address.as_ref().map(describe));
    parts.iter().map(|part| format!(", {part}")).collect()
}

/// A table of clients, of what and by which key of the configuration.
pub struct ClientTable<'a> {
    /// The name of a route, or the address of a listener.
    pub of: String,
    pub key: &'static str,
    pub keyed: &'a Keyed,
}

impl Snapshot {
    /// All tables of clients.
    pub fn client_tables<'a>(&'a self) -> Vec<ClientTable<'a>> {
        let mut tables = Vec::new();
        let mut add = |of: String, key, keyed: &'a Option<Keyed>| {
            tables.extend(keyed.as_ref().map(|keyed| ClientTable { of, key, keyed }));
        };
        for listener in &self.listeners {
            let Some(limits) = &listener.limits else { continue };
            add(listener.addr.to_string(), "listener.per_address", &limits.by_address);
            add(listener.addr.to_string(), "listener.half_open", &limits.half_open_by_address);
        }
        for route in self.routes.entries().iter().map(|entry| &entry.route) {
            add(route.name.clone(), "per_address", &route.by_address);
            add(route.name.clone(), "per_identity", &route.by_identity);
        }
        tables
    }
}

/// What the tables of a snapshot take.
pub fn memory(snapshot: &Snapshot) -> Option<(usize, String)> {
    let tables = snapshot.client_tables();
    let places = tables.iter().map(|table| table.keyed.limit.entries).sum::<usize>();
    let bytes = tables.iter().map(|table| table.keyed.bytes()).fold(0, usize::saturating_add);
    let what = format!("{} tables of {places} clients with limits of their own", tables.len());
    (bytes > 0).then_some((bytes, what))
}
