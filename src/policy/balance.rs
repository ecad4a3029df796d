//! Upstream groups and who of them is next.

use crate::policy::tls::UpstreamTls;
use std::path::PathBuf;

/// A named set of servers.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Position among the snapshot's groups.
    pub index: usize,
    /// Never empty.
    pub endpoints: Vec<Endpoint>,
    pub balance: Balance,
    /// For those of the endpoints that are spoken to over TLS.
    pub tls: UpstreamTls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    #[default]
    RoundRobin,
}

impl Balance {
    /// The word of the configuration, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
        }
    }
}

/// One server of a group, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As written, for logs.
    pub url: String,
    pub place: Place,
    /// `wss`.
    pub tls: bool,
    /// The URL's own path without a trailing slash: `""` or `/base`.
    pub base: String,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Tcp(std::net::SocketAddr),
    /// Resolved off the loop; `host:port` is the key of the answers.
    Name(String),
    Unix(PathBuf),
}

/// The order in which one session tries the endpoints of a group: starts at `start`, wraps, each once.
/// The caller keeps `start` per worker and group and counts it up by one a session.
pub fn round_robin(start: usize, endpoints: usize, tried: usize) -> Option<usize> {
    // The remainder comes first: `start` may be about to wrap, and the order must not jump there.
    (tried < endpoints).then(|| (start % endpoints + tried) % endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_tried_once_from_each_start() {
        for endpoints in 0..5 {
            for start in [0, 1, 2, 3, 7, usize::MAX - 1, usize::MAX] {
                let mut tried: Vec<_> = (0..).map_while(|n| round_robin(start, endpoints, n)).collect();
                assert_eq!(tried.len(), endpoints);
                assert_eq!(tried.first().copied(), (endpoints > 0).then(|| start % endpoints.max(1)));
                tried.sort_unstable();
                assert_eq!(tried, (0..endpoints).collect::<Vec<_>>(), "start {start}");
            }
        }
    }

    #[test]
    fn consecutive_sessions_start_at_consecutive_endpoints() {
        let firsts: Vec<_> = (0..6).filter_map(|session| round_robin(session, 3, 0)).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
    }
}
