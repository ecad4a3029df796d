//! The line of an upstream: its endpoints, and the rules that differ from their defaults.

use crate::config::value::duration_text;
use crate::policy::balance::Balance;
use crate::policy::check::{CheckKind, CheckRequest, HealthCheck};
use crate::policy::endpoint::{Limits, Member};
use crate::policy::health::{Ejection, Thresholds};
use crate::policy::key::HashKey;
use crate::policy::upstream::{Rules, Upstream};

pub(super) fn text(upstream: &Upstream) -> String {
    let (name, members) = (&upstream.name, upstream.members());
    let urls: Vec<_> = members.iter().map(member_text).collect();
    let mut parts = match urls.as_slice() {
        [url] if url == name => vec![name.clone()],
        [url] => vec![format!("{name}: {url}")],
        [] => vec![format!("{name}: {}", balance_text(&upstream.rules))],
        _ => vec![format!("{name}: {}", balance_text(&upstream.rules)), urls.join(", ")],
    };
    parts.extend(rules_text(&upstream.rules));
    parts.extend(upstream.check.as_ref().map(check_text));
    parts.join(", ")
}

fn member_text(member: &Member) -> String {
    let mut text = member.endpoint.url.clone();
    if member.weight != 1 {
        text += &format!(" weight {}", member.weight);
    }
    if member.priority != 0 {
        text += &format!(" priority {}", member.priority);
    }
    text
}

fn balance_text(rules: &Rules) -> String {
    let name = rules.balance.name();
    let key = match (&rules.balance, &rules.hash_key) {
        (Balance::ConsistentHash, HashKey::ClientIp) => "client_ip".to_owned(),
        (Balance::ConsistentHash, HashKey::Path) => "path".to_owned(),
        (Balance::ConsistentHash, HashKey::Header(of)) => format!("header {of}"),
        (Balance::ConsistentHash, HashKey::Cookie(of)) => format!("cookie {of}"),
        (Balance::ConsistentHash, HashKey::Query(of)) => format!("query parameter {of}"),
        _ => return name.to_owned(),
    };
    let bound = rules.hash_load_percent;
    let bound = if bound == 0 { String::new() } else { format!(", at most {bound} % of a fair share") };
    format!("{name} by {key}{bound}")
}

fn rules_text(rules: &Rules) -> Vec<String> {
    let default = Rules::default();
    let mut parts = Vec::new();
    if let Some(sticky) = &rules.sticky {
        let secret = if sticky.secret.is_some() { "" } else { ", random key" };
        parts.push(format!("sticky by cookie {}{secret}", sticky.cookie));
    }
    if rules.slow_start_ms > 0 {
        parts.push(format!("slow start {}", duration_text(rules.slow_start_ms)));
    }
    if !rules.bind.is_empty() {
        let sources: Vec<_> = rules.bind.iter().map(ToString::to_string).collect();
        parts.push(format!("from {}", sources.join(" ")));
    }
    if let Some(version) = rules.proxy_protocol {
        parts.push(format!("PROXY header {}", version.name()));
    }
    parts.extend(limits_text(rules.limits, "in total"));
    parts.extend(limits_text(rules.endpoint_limits, "per endpoint"));
    if rules.queue.max > 0 {
        parts.push(format!("queue {} for {}", rules.queue.max, duration_text(rules.queue.timeout_ms)));
    }
    if rules.ejection != default.ejection {
        parts.push(rules.ejection.as_deref().map_or_else(|| "ejection off".to_owned(), ejection_text));
    }
    if rules.retries != default.retries {
        parts.push(format!("retries {} % and {} in reserve", rules.retries.percent, rules.retries.reserve));
    }
    parts
}

fn limits_text(limits: Limits, of: &str) -> Option<String> {
    match (limits.sessions, limits.pending) {
        (None, None) => None,
        (Some(sessions), None) => Some(format!("{sessions} sessions {of}")),
        (None, Some(pending)) => Some(format!("{pending} pending handshakes {of}")),
        (Some(sessions), Some(pending)) => Some(format!("{sessions} sessions and {pending} pending handshakes {of}")),
    }
}

fn ejection_text(ejection: &Ejection) -> String {
    let mut after = Vec::new();
    if ejection.failures > 0 {
        after.push(format!("{} failures", ejection.failures));
    }
    if ejection.failure_percent > 0 {
        let (percent, least, window) = (ejection.failure_percent, ejection.min_handshakes, ejection.window_ms);
        after.push(format!("{percent} % of {least} or more in {}", duration_text(window)));
    }
    let (first, most) = (duration_text(ejection.time_ms), duration_text(ejection.max_time_ms));
    format!("ejection after {} for {first} to {most}, at most {} %", after.join(" or "), ejection.max_percent)
}

fn check_text(check: &HealthCheck) -> String {
    let (interval, timeout) = (duration_text(check.interval_ms), duration_text(check.timeout_ms));
    let Thresholds { rise, fall } = check.thresholds;
    let what = match &check.kind {
        CheckKind::Tcp => String::new(),
        CheckKind::Http(request, statuses) => format!(" {}, expects {statuses}", request_text(request)),
        CheckKind::WebSocket { request, ping } => {
            format!(" {}, expects 101{}", request_text(request), if *ping { " and a pong" } else { "" })
        }
    };
    let port = check.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let initially = if check.initially_up { "up" } else { "down" };
    format!(
        "checked by {}{port}{what}, every {interval} (jitter {:.1} %), timeout {timeout}, rise {rise}, fall {fall}, \
         initially {initially}",
        check.kind.name(),
        f64::from(check.jitter_permille) / 10.0
    )
}

fn request_text(request: &CheckRequest) -> String {
    let method = if request.head_only { "HEAD" } else { "GET" };
    let path = request.path.as_deref().unwrap_or("the path of the endpoint");
    let host = request.host.as_ref().map(|host| format!(" with Host {host}")).unwrap_or_default();
    format!("{method} {path}{host}")
}
