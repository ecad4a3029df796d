//! Upstreams: `[[upstream]]`.

use super::build::Builder;
use super::discovery::{DISCOVERING_MAX, Discovery};
use super::endpoint;
use super::file::{self, Section};
use super::value::{self, Parsed, duration_text, quoted, shown, text};
use crate::policy::balance::{Balance, ENDPOINTS_MAX};
use crate::policy::endpoint::{Limits, Member};
use crate::policy::health::Ejection;
use crate::policy::key::HashKey;
use crate::policy::retry::RetryLimits;
use crate::policy::sticky::{SameSite, Sticky};
use crate::policy::upstream::{KeepAlive, Options, Queue, Rules, Upstream};
use crate::proto::proxy_protocol::Version;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use toml::{Spanned, Value};

/// Idle connections of an endpoint, in each worker.
const KEPT: RangeInclusive<u64> = 1..=10_000;
const WEIGHT: RangeInclusive<u64> = 1..=1_000;
const PRIORITY: RangeInclusive<u64> = 0..=255;
const QUEUE: RangeInclusive<u64> = 0..=1_000_000;
const COUNT: RangeInclusive<u64> = 0..=1_000_000;
const PERCENT: RangeInclusive<u64> = 0..=100;
/// More than a fair share, or there would be no endpoint for the last session.
const LOAD_PERCENT: RangeInclusive<u64> = 101..=1_000;
const SLOW_START: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const SOURCES_MAX: usize = 256;
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);
const SECRET_MIN: usize = 16;

impl Builder<'_, '_> {
    /// The upstreams, and the discoveries of those that have one.
    pub fn upstreams(&mut self, typed: &[Section<file::Upstream>]) -> (Vec<Arc<Upstream>>, Vec<Discovery>) {
        let (mut upstreams, mut discoveries): (Vec<Arc<Upstream>>, Vec<Discovery>) = Default::default();
        for section in typed {
            let one = section.get_ref();
            let members = self.members(section);
            let rules = self.rules(one);
            let name = match &one.name {
                None => {
                    let why = "missing; add the name that routes use, for example name = \"app\"";
                    self.problems.add(section.span(), "upstream.name", why);
                    continue;
                }
                Some(_) => self.take("upstream.name", &one.name, String::new(), value::name),
            };
            if let (true, Some(at)) = (!name.is_empty() && upstreams.iter().any(|other| other.name == name), &one.name)
            {
                let why = format!("{} is the name of another upstream; choose another", quoted(&name));
                self.problems.add(at.span(), "upstream.name", &why);
            }
            let mut tls = self.upstream_tls(&one.tls, section.span());
            if let Some(typed) = &one.discover {
                let discovery = self.discovery(typed, &name);
                tls.server_name = tls.server_name.or(discovery.as_ref().and_then(Discovery::server_name));
                discoveries.extend(discovery);
                if discoveries.len() == DISCOVERING_MAX + 1 {
                    let why = format!("at most {DISCOVERING_MAX} upstreams can discover their endpoints");
                    self.problems.add(typed.span(), "upstream.discover", &why);
                }
            }
            let check = self.health(one.health.as_ref(), &members);
            upstreams.push(Arc::new(Upstream::new(name, members, Options { rules, tls, check })));
        }
        (upstreams, discoveries)
    }

    fn members(&mut self, section: &Section<file::Upstream>) -> Vec<Member> {
        let key = "upstream.endpoints";
        let typed = &section.get_ref().endpoints;
        let members: Vec<Member> = self.list(key, typed, member);
        let discovers = section.get_ref().discover.is_some();
        if !discovers && typed.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
            let at = typed.as_ref().map_or(section.span(), Spanned::span);
            self.problems.add(at, key, "missing; add for example endpoints = [\"ws://10.0.0.1:9000\"]");
        }
        let round_robin =
            section.get_ref().balance.as_ref().is_none_or(|v| v.get_ref().as_str() == Some("round_robin"));
        if let (true, Some(list)) = (round_robin && members.iter().any(|member| member.weight != 1), typed) {
            let why = "weights mean nothing to round_robin; use for example balance = \"weighted\"";
            self.problems.add(list.span(), key, why);
        }
        if let (true, Some(list)) = (members.len() > ENDPOINTS_MAX, typed) {
            let why = format!("{} endpoints; at most {ENDPOINTS_MAX}", members.len());
            self.problems.add(list.span(), key, &why);
        }
        members
    }

    fn rules(&mut self, typed: &file::Upstream) -> Rules {
        let default = Rules::default();
        let balances = Balance::ALL.map(|balance| (balance.name(), balance));
        let balance = self.take("upstream.balance", &typed.balance, default.balance, |v| value::word(v, &balances));
        let load = |v: &Value| match value::number_or_zero(v, LOAD_PERCENT, "no bound")? {
            0 => Ok(0),
            percent => only_hashed(balance, percent as u32),
        };
        let key = |v: &Value| {
            hash_key(v).and_then(|key| if key == default.hash_key { Ok(key) } else { only_hashed(balance, key) })
        };
        Rules {
            balance,
            sticky: typed.sticky.as_ref().map(|typed| self.sticky(typed)),
            hash_key: self.take("upstream.hash_key", &typed.hash_key, default.hash_key.clone(), key),
            hash_load_percent: self.take("upstream.hash_load", &typed.hash_load, 0, load),
            slow_start_ms: self.slow_start(typed, balance),
            ejection: self.ejection(&typed.ejection),
            limits: self.room("max_sessions", &typed.limits.max_sessions, "max_pending", &typed.limits.max_pending),
            endpoint_limits: self.room(
                "endpoint_sessions",
                &typed.limits.endpoint_sessions,
                "endpoint_pending",
                &typed.limits.endpoint_pending,
            ),
            queue: self.queue(&typed.limits, default.queue),
            retries: self.retries(&typed.retries, default.retries),
            bind: self.bind(typed),
            proxy_protocol: self.proxy_version(&typed.proxy_protocol),
            keep_alive: self.keep_alive(&typed.keep_alive, default.keep_alive),
        }
    }

    fn keep_alive(&mut self, typed: &file::KeepAlive, default: KeepAlive) -> KeepAlive {
        let connections = |v: &Value| value::number_or_zero(v, KEPT, "none");
        let (key, most) = ("upstream.keep_alive.connections", default.connections as u64);
        let connections = self.take(key, &typed.connections, most, connections);
        KeepAlive {
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            idle_ms: self.take("upstream.keep_alive.idle", &typed.idle, default.idle_ms, value::timeout),
            age_ms: self.take("upstream.keep_alive.age", &typed.age, default.age_ms, value::timeout),
        }
    }

    fn proxy_version(&mut self, typed: &file::Typed) -> Option<Version> {
        let mut words = vec![("off", None)];
        words.extend(Version::ALL.map(|version| (version.name(), Some(version))));
        self.take("upstream.proxy_protocol", typed, None, |v| value::word(v, &words))
    }

    fn sticky(&mut self, typed: &file::Sticky) -> Sticky {
        let sites = SameSite::ALL.map(|site| (site.name(), site));
        let age = |v: &Value| value::duration(v, MAX_AGE, "as long as the browser runs").map(|millis| millis / 1_000);
        let max_age = self.take("upstream.sticky.max_age", &typed.max_age, 0, age);
        Sticky {
            cookie: self.take("upstream.sticky.cookie", &typed.cookie, "framegate".to_owned(), cookie_name),
            secret: self.read("upstream.sticky.secret", &typed.secret, secret),
            path: self.take("upstream.sticky.path", &typed.path, "/".to_owned(), cookie_path),
            same_site: self
                .take("upstream.sticky.same_site", &typed.same_site, SameSite::Lax, |v| value::word(v, &sites)),
            max_age_s: (max_age > 0).then_some(max_age),
        }
    }

    fn slow_start(&mut self, typed: &file::Upstream, balance: Balance) -> u64 {
        self.take("upstream.slow_start", &typed.slow_start, 0, |v| match balance {
            Balance::ConsistentHash if value::duration(v, SLOW_START, "off") != Ok(0) => {
                Err("has no meaning with consistent_hash: keys stay where they are".into())
            }
            _ => value::duration(v, SLOW_START, "off"),
        })
    }

    fn ejection(&mut self, typed: &file::Ejection) -> Option<Arc<Ejection>> {
        let default = Ejection::default();
        let key = |name: &str| format!("upstream.ejection.{name}");
        let mut number = |name: &str, typed, default: u32, range: RangeInclusive<u64>| {
            self.take(&key(name), typed, default.into(), |v| value::number(v, range)) as u32
        };
        let failures = number("failures", &typed.failures, default.failures, COUNT);
        let failure_percent = number("failure_percent", &typed.failure_percent, default.failure_percent, PERCENT);
        let min_handshakes = number("min_handshakes", &typed.min_handshakes, default.min_handshakes, 1..=1_000_000);
        let max_percent = number("max_percent", &typed.max_percent, default.max_percent, PERCENT);
        let mut time = |name: &str, typed, default| self.take(&key(name), typed, default, value::timeout);
        let window_ms = time("window", &typed.window, default.window_ms);
        let time_ms = time("time", &typed.time, default.time_ms);
        let max_time_ms = time("max_time", &typed.max_time, default.max_time_ms.max(time_ms));
        let early_end_ms = self.take(&key("early_end"), &typed.early_end, default.early_end_ms, value::timeout_or_off);
        if let (true, Some(at)) = (time_ms > max_time_ms, typed.max_time.as_ref().or(typed.time.as_ref())) {
            let (first, most) = (duration_text(time_ms), duration_text(max_time_ms));
            self.problems.add(at.span(), &key("max_time"), &format!("{most} is below time ({first})"));
        }
        (failures > 0 || failure_percent > 0).then(|| {
            Arc::new(Ejection {
                failures,
                failure_percent,
                window_ms,
                min_handshakes,
                time_ms,
                max_time_ms,
                max_percent,
                early_end_ms,
            })
        })
    }

    fn room(&mut self, sessions_key: &str, sessions: &file::Typed, pending_key: &str, pending: &file::Typed) -> Limits {
        let mut read = |key: &str, typed| self.read(&format!("upstream.limits.{key}"), typed, value::sessions);
        Limits { sessions: read(sessions_key, sessions), pending: read(pending_key, pending) }
    }

    fn queue(&mut self, typed: &file::UpstreamLimits, default: Queue) -> Queue {
        let max = self.take("upstream.limits.queue", &typed.queue, default.max as u64, |v| value::number(v, QUEUE));
        let limited = [&typed.max_sessions, &typed.max_pending, &typed.endpoint_sessions, &typed.endpoint_pending];
        if let (true, Some(at)) = (limited.iter().all(|limit| limit.is_none()), &typed.queue) {
            let why = "nothing to wait for; add max_sessions, max_pending, endpoint_sessions or endpoint_pending";
            self.problems.add(at.span(), "upstream.limits.queue", why);
        }
        let (key, written) = ("upstream.limits.queue_timeout", &typed.queue_timeout);
        let timeout_ms = self.take(key, written, default.timeout_ms, value::timeout);
        Queue { max: usize::try_from(max).unwrap_or(usize::MAX), timeout_ms }
    }

    fn retries(&mut self, typed: &file::Retries, default: RetryLimits) -> RetryLimits {
        let mut read = |key: &str, typed, default, range| {
            self.take(&format!("upstream.retries.{key}"), typed, default, |v| value::number(v, range))
        };
        RetryLimits {
            percent: read("percent", &typed.percent, default.percent, PERCENT),
            reserve: read("reserve", &typed.reserve, default.reserve, COUNT),
        }
    }

    fn bind(&mut self, typed: &file::Upstream) -> Vec<IpAddr> {
        let bind = self.list("upstream.bind", &typed.bind, source);
        if let (true, Some(list)) = (bind.len() > SOURCES_MAX, &typed.bind) {
            let why = format!("{} addresses; at most {SOURCES_MAX}", bind.len());
            self.problems.add(list.span(), "upstream.bind", &why);
        }
        bind
    }
}

/// A value that has a meaning only for one way to balance.
fn only_hashed<T>(balance: Balance, value: T) -> Parsed<T> {
    match balance {
        Balance::ConsistentHash => Ok(value),
        _ => Err("requires balance = \"consistent_hash\"".to_owned()),
    }
}

/// A URL, or a table with a URL and its share.
fn member(value: &Value) -> Parsed<Member> {
    let Value::Table(table) = value else {
        return endpoint::endpoint(text(value)?).map(Member::from);
    };
    value::only_keys(table, &["url", "weight", "priority"])?;
    let url =
        table.get("url").ok_or("has no url; expected for example { url = \"ws://10.0.0.1:9000\", weight = 2 }")?;
    let read = |key: &str, default: u64, range: RangeInclusive<u64>| {
        let value = table.get(key).map(|v| value::number(v, range).map_err(|e| format!("{key}: {e}")));
        value.unwrap_or(Ok(default))
    };
    let (weight, priority) = (read("weight", 1, WEIGHT)?, read("priority", 0, PRIORITY)?);
    let member = Member::from(endpoint::endpoint(text(url)?)?);
    Ok(Member { weight: weight as u16, priority: priority as u8, ..member })
}

pub fn cookie_name(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits { Ok(name.to_owned()) } else { Err(format!("{} is not a name for a cookie", quoted(name))) }
}

fn cookie_path(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    let fits = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if fits { Ok(path.to_owned()) } else { Err(format!("{} is not a path; expected for example \"/\"", quoted(path))) }
}

fn secret(value: &Value) -> Parsed<String> {
    let secret = text(value)?;
    if secret.len() >= SECRET_MIN {
        Ok(secret.to_owned())
    } else {
        Err(format!("too short; expected at least {SECRET_MIN} characters"))
    }
}

/// `client_ip`, `path`, or `header:NAME`, `cookie:NAME`, `query:NAME`.
pub fn hash_key(value: &Value) -> Parsed<HashKey> {
    let written = text(value)?;
    let name = |name: &str| {
        let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"".contains(&b));
        if fits { Ok(name.to_owned()) } else { Err(format!("{} has no valid name", quoted(written))) }
    };
    match written.split_once(':') {
        None if written == "client_ip" => Ok(HashKey::ClientIp),
        None if written == "path" => Ok(HashKey::Path),
        Some(("header", of)) => name(of).map(HashKey::Header),
        Some(("cookie", of)) => name(of).map(HashKey::Cookie),
        Some(("query", of)) => name(of).map(HashKey::Query),
        _ => {
            let right = "expected \"client_ip\", \"path\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
            Err(format!("{} is not valid; {right}", shown(value)))
        }
    }
}

fn source(value: &Value) -> Parsed<IpAddr> {
    let written = text(value)?;
    let parsed = written.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
    parsed
        .ok_or_else(|| format!("{} is not an address of this host; expected for example \"10.0.0.7\"", quoted(written)))
}
