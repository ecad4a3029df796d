//! A health check as configured: what is asked of an endpoint, how often, and what passes. The
//! results go to [`super::health`]; the checks are carried out by the health thread.

use super::endpoint::{Address, Endpoint, Target};
use super::health::Thresholds;
use std::fmt;
use std::ops::RangeInclusive;

/// The health check of the endpoints of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// From the start of a check to the start of the next one, in milliseconds.
    pub interval_ms: u64,
    /// How far each interval may differ from the configured one, in thousandths of it; at most
    /// 500.
    pub jitter_permille: u16,
    /// Limit on a check of one address, in milliseconds; less than the interval.
    pub timeout_ms: u64,
    pub thresholds: Thresholds,
    /// A new endpoint gets sessions before its first check.
    pub initially_up: bool,
    /// Replaces the port of the endpoint.
    pub port: Option<u16>,
}

/// What is asked of an endpoint. If it is a `wss` endpoint, all of this happens over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Connects, and closes.
    Tcp,
    /// Sends a request and expects one of these statuses.
    Http(CheckRequest, Statuses),
    /// Completes a WebSocket handshake and closes with 1000.
    WebSocket {
        request: CheckRequest,
        /// Sends a ping before the Close and expects its pong.
        ping: bool,
    },
}

impl CheckKind {
    /// The word of the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            CheckKind::Tcp => "tcp",
            CheckKind::Http(..) => "http",
            CheckKind::WebSocket { .. } => "websocket",
        }
    }
}

/// The request of a check. Its values are valid in a head: without CR, LF and NUL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckRequest {
    /// HEAD instead of GET.
    pub head_only: bool,
    /// With its query. `None` is the path of the endpoint's URL, or `/`.
    pub path: Option<String>,
    /// The Host field. `None` is host and port of the endpoint.
    pub host: Option<String>,
    /// Further fields, in order.
    pub headers: Vec<(String, String)>,
}

/// The statuses that pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Default for Statuses {
    /// Success and redirection.
    fn default() -> Statuses {
        Statuses(vec![200..=399])
    }
}

impl Statuses {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// `200-399, 401`.
impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.iter().enumerate() {
            let (from, to) = (range.start(), range.end());
            f.write_str(if n == 0 { "" } else { ", " })?;
            if from == to { write!(f, "{from}") } else { write!(f, "{from}-{to}") }?;
        }
        Ok(())
    }
}

impl HealthCheck {
    pub const INTERVAL_MS: u64 = 5_000;
    pub const TIMEOUT_MS: u64 = 2_000;
    pub const JITTER_PERMILLE: u16 = 200;
    pub const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

    /// The `n`-th address to check; `None` when there are no more.
    pub fn target(&self, endpoint: &Endpoint, n: usize) -> Option<Target> {
        let target = endpoint.target(n)?;
        Some(match (target, self.port) {
            (Target::Tcp(mut addr), Some(port)) => {
                addr.set_port(port);
                Target::Tcp(addr)
            }
            (target, _) => target,
        })
    }

    /// Host and port for the Host field: without the port where it is the scheme's own.
    pub fn authority(&self, endpoint: &Endpoint) -> String {
        let (host, port) = match &endpoint.address {
            // As clients of Unix sockets usually do.
            Address::Unix(_) => return "localhost".to_owned(),
            Address::Tcp(addr) if addr.is_ipv6() => (format!("[{}]", addr.ip()), addr.port()),
            Address::Tcp(addr) => (addr.ip().to_string(), addr.port()),
            Address::Name(name) => {
                let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
                (host.to_owned(), port.parse().unwrap_or_default())
            }
        };
        let port = self.port.unwrap_or(port);
        let usual = if endpoint.tls { 443 } else { 80 };
        if port == usual { host } else { format!("{host}:{port}") }
    }

    /// One interval, with its jitter chosen by a random number.
    pub fn interval_ms(&self, random: u32) -> u64 {
        let jitter = self.interval_ms.saturating_mul(u64::from(self.jitter_permille)) / 1_000;
        self.interval_ms - jitter + share(2 * jitter, random)
    }

    /// The delay of the first check of one of `endpoints` new endpoints, so that they are not all
    /// checked at the same moment: up to 10 ms for each of them, and an interval at most.
    pub fn first_ms(&self, endpoints: usize, random: u32) -> u64 {
        share(self.interval_ms.min(endpoints as u64 * 10), random)
    }
}

/// The share of `whole` that `random` is of its range.
fn share(whole: u64, random: u32) -> u64 {
    u64::try_from((u128::from(whole) * u128::from(random)) >> 32).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn check(port: Option<u16>) -> HealthCheck {
        HealthCheck {
            kind: CheckKind::Tcp,
            interval_ms: 1_000,
            jitter_permille: 200,
            timeout_ms: 500,
            thresholds: HealthCheck::THRESHOLDS,
            initially_up: true,
            port,
        }
    }

    fn endpoint(address: Address, tls: bool) -> Endpoint {
        Endpoint::new(String::new(), address, tls, String::new())
    }

    #[test]
    fn intervals_vary_by_their_jitter_and_no_more() {
        let check = check(None);
        assert_eq!([0, 1 << 31, u32::MAX].map(|random| check.interval_ms(random)), [800, 1_000, 1_199]);
        let exact = HealthCheck { jitter_permille: 0, ..check.clone() };
        assert_eq!([0, u32::MAX].map(|random| exact.interval_ms(random)), [1_000, 1_000]);
        assert_eq!([1, 50, 10_000].map(|endpoints| check.first_ms(endpoints, u32::MAX)), [9, 499, 999]);
        assert_eq!(check.first_ms(10_000, 0), 0);
        let long = HealthCheck { interval_ms: u64::MAX, jitter_permille: 0, ..check };
        assert_eq!(long.interval_ms(7), u64::MAX);
    }

    #[test]
    fn another_port_replaces_that_of_every_address() {
        let name = endpoint(Address::Name("app:9000".into()), false);
        let addresses = ["10.0.0.1:9000", "[::1]:9000"].map(|addr| addr.parse().unwrap());
        name.set_resolved(addresses.to_vec());
        let targets: Vec<_> = (0..3).map(|n| check(Some(81)).target(&name, n)).collect();
        let moved = ["10.0.0.1:81", "[::1]:81"].map(|addr| Some(Target::Tcp(addr.parse().unwrap())));
        assert_eq!(targets, [&moved[..], &[None]].concat());
        assert_eq!(check(None).target(&name, 1), Some(Target::Tcp(addresses[1])));
        let unix = endpoint(Address::Unix(PathBuf::from("/s")), false);
        assert_eq!(check(None).target(&unix, 0), Some(Target::Unix(PathBuf::from("/s"))));
    }

    #[test]
    fn host_names_the_port_unless_it_is_the_usual_one() {
        let tcp = |addr: &str, tls| endpoint(Address::Tcp(addr.parse().unwrap()), tls);
        let name = |name: &str, tls| endpoint(Address::Name(name.to_owned()), tls);
        let rows = [
            (tcp("10.0.0.1:80", false), None, "10.0.0.1"),
            (tcp("10.0.0.1:80", true), None, "10.0.0.1:80"),
            (tcp("[::1]:443", true), None, "[::1]"),
            (tcp("[::1]:443", false), None, "[::1]:443"),
            (name("app:80", false), None, "app"),
            (name("app:80", false), Some(81), "app:81"),
            (name("app:9000", true), Some(443), "app"),
            (endpoint(Address::Unix(PathBuf::from("/s")), false), None, "localhost"),
        ];
        for (endpoint, port, want) in rows {
            assert_eq!(check(port).authority(&endpoint), want);
        }
    }

    #[test]
    fn statuses_are_written_as_in_the_configuration() {
        let statuses = Statuses(vec![200..=299, 401..=401]);
        assert_eq!(statuses.to_string(), "200-299, 401");
        assert_eq!([199, 200, 299, 300, 401].map(|status| statuses.contains(status)), [false, true, true, false, true]);
    }
}
