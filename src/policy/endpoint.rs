//! An endpoint: one server of an upstream, an object with an identity and runtime state. Snapshots
//! share it: one that a reload does not change is the same object before and after it, with its
//! counts.

use super::health::Health;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One server of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured: its identity within its upstream, and its name in logs.
    pub url: String,
    pub address: Address,
    /// `wss`.
    pub tls: bool,
    /// The path of the URL without a trailing slash: `""` or `/base`.
    pub base: String,
    /// What `address` resolved to, if it is a name. Old answers stay where resolving fails.
    resolved: ArcSwap<Vec<SocketAddr>>,
    /// Sessions that hold a [`Pick`] of it, over all workers.
    sessions: AtomicUsize,
    pub health: Health,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// `host:port`; resolved off the loop.
    Name(String),
    Unix(PathBuf),
}

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    pub fn new(url: String, address: Address, tls: bool, base: String) -> Endpoint {
        let resolved = ArcSwap::from_pointee(Vec::new());
        Endpoint { url, address, tls, base, resolved, sessions: AtomicUsize::new(0), health: Health::default() }
    }

    /// What its name resolved to. Whether anything has changed.
    pub fn set_resolved(&self, addresses: Vec<SocketAddr>) -> bool {
        let changed = **self.resolved.load() != addresses;
        if changed {
            self.resolved.store(Arc::new(addresses));
        }
        changed
    }

    pub fn is_resolved(&self) -> bool {
        !self.resolved.load().is_empty()
    }

    /// Sessions that go to it.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// The `n`-th address to try; `None` when there are no more.
    pub fn target(&self, n: usize) -> Option<Target> {
        match &self.address {
            Address::Tcp(addr) => (n == 0).then_some(Target::Tcp(*addr)),
            Address::Unix(path) => (n == 0).then(|| Target::Unix(path.clone())),
            Address::Name(_) => self.resolved.load().get(n).copied().map(Target::Tcp),
        }
    }
}

/// The configured values are equal; runtime state does not count.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Endpoint) -> bool {
        self.url == other.url && self.address == other.address && self.tls == other.tls && self.base == other.base
    }
}

impl Eq for Endpoint {}

/// An endpoint that a session uses: counted while it is held.
#[derive(Debug)]
pub struct Pick(Arc<Endpoint>);

impl Pick {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Pick {
        endpoint.sessions.fetch_add(1, Relaxed);
        Pick(Arc::clone(endpoint))
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}
