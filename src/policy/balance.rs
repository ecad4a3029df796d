//! Upstream groups and who of them is next.

use std::path::PathBuf;

/// A named set of servers.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    /// Position among the snapshot's groups.
    pub index: usize,
    /// Never empty.
    pub endpoints: Vec<Endpoint>,
    pub balance: Balance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    #[default]
    RoundRobin,
}

/// One server of a group, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As written, for logs.
    pub url: String,
    pub place: Place,
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
    (tried < endpoints).then(|| start.wrapping_add(tried) % endpoints)
}
