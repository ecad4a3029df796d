//! Limits that several hosts share: `[redis]`.

use super::build::Builder;
use super::endpoint::address;
use super::file::{self, File, Section};
use super::value::{self, Parsed, duration_text, quoted, shown, text};
use crate::policy::auth::Secret;
use crate::policy::endpoint::Address;
use crate::policy::matching::Routes;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::{Spanned, Value};

const WITHOUT_FEATURE: &str = "not in this build; build with the cargo feature \"redis\"";
const URLS_MAX: usize = 100;
const DATABASE_MAX: u16 = 65_535;
const CA_BYTES: usize = 1 << 20;
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(5);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);
const HOST_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// Synchronisations that may fail before the counts of a host that lives are forgotten.
const INTERVALS: u64 = 10;

/// Where limits are shared, and how often.
#[derive(Debug, PartialEq, Eq)]
pub struct Redis {
    /// One, or nodes of a cluster.
    pub servers: Vec<RedisServer>,
    pub cluster: bool,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// PEM; the system's roots without it.
    pub ca: Option<PathBuf>,
    /// Keys begin with it.
    pub namespace: String,
    /// Between two synchronisations.
    pub interval_ms: u64,
    /// To connect, and for each answer.
    pub timeout_ms: u64,
    /// After it the counts of a host that is not heard of do not count.
    pub host_timeout_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub struct RedisServer {
    /// As written.
    pub url: String,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub database: u16,
}

impl Builder<'_, '_> {
    /// `None` where nothing is shared.
    pub fn redis(&mut self, file: &File, routes: &Routes) -> Option<Arc<Redis>> {
        let Some(section) = &file.redis else {
            self.refuse_sharing(&file.route);
            return None;
        };
        let limits = routes.entries().iter().flat_map(|entry| [&entry.route.by_address, &entry.route.by_identity]);
        let is_used = limits.flatten().any(|keyed| keyed.limit.shared);
        if is_used && !cfg!(feature = "redis") {
            self.problems.add(section.span(), "redis", WITHOUT_FEATURE);
        }
        let typed = section.get_ref();
        let cluster = self.take("redis.cluster", &typed.cluster, false, value::flag);
        let servers = self.servers(section, cluster);
        let username = self.read("redis.username", &typed.username, user_name);
        let password = self.read("redis.password_file", &typed.password_file, super::ask::secret_file).map(Secret);
        if let (Some(at), None) = (&typed.username, &typed.password_file) {
            self.problems.add(at.span(), "redis.username", "needs password_file, the file with its password");
        }
        let ca = self.read("redis.ca", &typed.ca, certificates);
        if let (Some(at), false) = (&typed.ca, servers.iter().any(|server| server.tls)) {
            self.problems.add(at.span(), "redis.ca", "has no effect without TLS; write the URL with rediss://");
        }
        let namespace = self.take("redis.namespace", &typed.namespace, "framegate".to_owned(), value::name);
        let within = |range| move |v: &Value| value::duration(v, range, "");
        let interval_ms = self.take("redis.interval", &typed.interval, 100, within(INTERVAL));
        let timeout_ms = self.take("redis.timeout", &typed.timeout, 500, within(TIMEOUT));
        let host_timeout_ms = self.take("redis.host_timeout", &typed.host_timeout, 10_000, within(HOST_TIMEOUT));
        let least = INTERVALS * interval_ms;
        let written = typed.host_timeout.as_ref().or(typed.interval.as_ref());
        if let (true, Some(at)) = (host_timeout_ms < least, written) {
            let (has, least) = (duration_text(host_timeout_ms), duration_text(least));
            let why = format!("{has} is too short for this interval; expected at least \"{least}\"");
            self.problems.add(at.span(), "redis.host_timeout", &why);
        }
        let redis =
            Redis { servers, cluster, username, password, ca, namespace, interval_ms, timeout_ms, host_timeout_ms };
        is_used.then(|| Arc::new(redis))
    }

    fn servers(&mut self, section: &Section<file::Redis>, cluster: bool) -> Vec<RedisServer> {
        let (key, typed) = ("redis.urls", section.get_ref());
        let written = typed.urls.as_ref().map_or(&[][..], |list| list.get_ref());
        let at = typed.urls.as_ref().map_or(section.span(), Spanned::span);
        match written.len() {
            0 => self.problems.add(at, key, "missing; add for example urls = [\"redis://10.0.0.1:6379\"]"),
            1 => {}
            2..=URLS_MAX if cluster => {}
            2..=URLS_MAX => {
                let why = "more than one URL; for the nodes of a cluster add cluster = true, else keep one";
                self.problems.add(at, key, why);
            }
            _ => self.problems.add(at, key, &format!("more than {URLS_MAX} URLs; some nodes of a cluster are enough")),
        }
        let servers = self.list(key, &typed.urls, server);
        let mixed = |pair: &[RedisServer]| matches!(pair, [one, other] if one.tls != other.tls);
        if let (Some(list), true) = (&typed.urls, servers.windows(2).any(mixed)) {
            let why = "some with TLS and some without; expected rediss:// for all, or for none";
            self.problems.add(list.span(), key, why);
        }
        if let (Some(list), true, Some(_)) = (&typed.urls, cluster, servers.iter().find(|one| one.database > 0)) {
            self.problems.add(list.span(), key, "a cluster has no databases; remove the number behind the slash");
        }
        servers
    }

    fn refuse_sharing(&mut self, routes: &[Section<file::Route>]) {
        for route in routes {
            let limits = &route.get_ref().limits;
            for (name, section) in [("per_address", &limits.per_address), ("per_identity", &limits.per_identity)] {
                let shared = section.as_ref().and_then(|section| section.get_ref().shared.as_ref());
                if let Some(at) = shared.filter(|typed| typed.get_ref().as_bool() == Some(true)) {
                    let why = "needs a [redis] section with urls = [\"redis://10.0.0.1:6379\"]";
                    self.problems.add(at.span(), &format!("route.limits.{name}.shared"), why);
                }
            }
        }
    }
}

fn server(value: &Value) -> Parsed<RedisServer> {
    let url = text(value)?;
    // It is not shown: it may hold a password.
    if url.contains('@') {
        return Err("a URL with a user name or password; use username and password_file instead".to_owned());
    }
    let wrong = |why: &str| format!("{} {why}", quoted(url));
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err(wrong("is not a URL of Redis; expected for example \"redis://10.0.0.1:6379\", or rediss://")),
    };
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("has a character not allowed in a URL"));
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let number = match database {
        "" => Some(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    let database = number.ok_or_else(|| wrong(&format!("has no valid database; expected 0 to {DATABASE_MAX}")))?;
    let (host, port) = match address(url, authority, 6379)? {
        Address::Tcp(address) => (address.ip().to_string(), address.port()),
        Address::Name(name) => match name.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
            Some((host, port)) => (host.to_owned(), port),
            None => return Err(wrong("has no valid host")),
        },
        Address::Unix(_) => return Err(wrong("has no valid host")),
    };
    Ok(RedisServer { url: url.to_owned(), host, port, tls, database })
}

fn user_name(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    let fits = (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(name.to_owned()) } else { Err(format!("{} is not valid; expected one word", shown(value))) }
}

fn certificates(value: &Value) -> Parsed<PathBuf> {
    let path = text(value)?;
    let pem = value::file(path, CA_BYTES)?;
    let is_pem = String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----");
    if is_pem { Ok(path.into()) } else { Err(format!("{} has no certificate in PEM", quoted(path))) }
}

impl Redis {
    /// The line of `check`.
    pub fn describe(&self) -> String {
        let urls: Vec<_> = self.servers.iter().map(|server| server.url.as_str()).collect();
        let user = match (&self.username, &self.password) {
            (Some(name), _) => format!(", as {name}"),
            (None, Some(_)) => ", with a password".to_owned(),
            (None, None) => String::new(),
        };
        format!(
            "{}{}{user}, namespace {}, every {}, timeout {}, hosts are forgotten after {}",
            urls.join(", "),
            if self.cluster { " (cluster)" } else { "" },
            self.namespace,
            duration_text(self.interval_ms),
            duration_text(self.timeout_ms),
            duration_text(self.host_timeout_ms)
        )
    }
}
