//! Upstreams and their endpoints: shared objects with an identity and runtime state, and the choice
//! of the endpoint that a session tries next. Snapshots share them: an endpoint that a reload does
//! not change is the same object before and after it, with its counts.
//!
//! Everything here is touched when a session opens or ends, never for a message.

use super::tls::UpstreamTls;
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A named set of endpoints.
#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    pub balance: Balance,
    /// For those of the endpoints that are spoken to over TLS.
    pub tls: UpstreamTls,
    /// May change while sessions run: a session holds the endpoint that it picked, not its
    /// position.
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Where round robin is.
    cursor: AtomicUsize,
}

impl Upstream {
    pub fn new(name: String, endpoints: Vec<Endpoint>) -> Upstream {
        Upstream {
            name,
            balance: Balance::default(),
            tls: UpstreamTls::default(),
            endpoints: ArcSwap::from_pointee(endpoints.into_iter().map(Arc::new).collect()),
            cursor: AtomicUsize::new(0),
        }
    }

    /// The same with another way to balance, and other settings for TLS.
    pub fn with(self, balance: Balance, tls: UpstreamTls) -> Upstream {
        Upstream { balance, tls, ..self }
    }

    /// The endpoints of this moment.
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Takes over the endpoints of `before` that have not changed, with their runtime state.
    pub fn inherit(&self, before: &Upstream) {
        let known = before.endpoints();
        let kept = |endpoint: &Arc<Endpoint>| {
            let same = known.iter().find(|known| ***known == **endpoint);
            Arc::clone(same.unwrap_or(endpoint))
        };
        self.endpoints.store(Arc::new(self.endpoints().iter().map(kept).collect()));
        self.set_cursor(before.cursor.load(Relaxed));
    }

    /// Where round robin continues.
    pub fn set_cursor(&self, cursor: usize) {
        self.cursor.store(cursor, Relaxed);
    }

    /// The order in which one more session tries the endpoints.
    pub fn candidates(&self) -> Candidates {
        let start = match self.balance {
            Balance::RoundRobin => self.cursor.fetch_add(1, Relaxed),
        };
        Candidates { endpoints: self.endpoints(), start, tried: 0, address: 0 }
    }
}

/// The configured values are equal; runtime state does not count.
impl PartialEq for Upstream {
    fn eq(&self, other: &Upstream) -> bool {
        self.name == other.name
            && self.balance == other.balance
            && self.tls == other.tls
            && self.endpoints() == other.endpoints()
    }
}

impl Eq for Upstream {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    #[default]
    RoundRobin,
}

impl Balance {
    pub const ALL: [Balance; 1] = [Balance::RoundRobin];

    /// The word of the configuration, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
        }
    }
}

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
        Endpoint { url, address, tls, base, resolved, sessions: AtomicUsize::new(0) }
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
    fn new(endpoint: &Arc<Endpoint>) -> Pick {
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

/// The order in which one session tries the endpoints of an upstream and their addresses, each
/// once.
#[derive(Debug)]
pub struct Candidates {
    endpoints: Arc<Vec<Arc<Endpoint>>>,
    /// The first endpoint; then round from there.
    start: usize,
    /// Endpoints that have been tried.
    tried: usize,
    /// The next address of the endpoint under way.
    address: usize,
}

impl Candidates {
    /// The next address to try, and the endpoint that it belongs to. The same one again until
    /// [`Candidates::advance`] is called.
    pub fn current(&mut self) -> Option<(Pick, Target)> {
        while self.tried < self.endpoints.len() {
            // The remainder comes first: `start` may be about to wrap, and the order must not jump
            // there.
            let index = (self.start % self.endpoints.len() + self.tried) % self.endpoints.len();
            let endpoint = self.endpoints.get(index)?;
            if let Some(target) = endpoint.target(self.address) {
                return Some((Pick::new(endpoint), target));
            }
            self.tried += 1;
            self.address = 0;
        }
        None
    }

    /// The address that [`Candidates::current`] gave has been tried.
    pub fn advance(&mut self) {
        self.address += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(endpoints: u16) -> Upstream {
        let endpoint = |n| {
            let addr = SocketAddr::from(([10, 0, 0, 1], n + 1));
            Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new())
        };
        Upstream::new("app".into(), (0..endpoints).map(endpoint).collect())
    }

    fn order(candidates: &mut Candidates) -> Vec<u16> {
        let mut ports = Vec::new();
        while let Some((_, Target::Tcp(addr))) = candidates.current() {
            ports.push(addr.port());
            candidates.advance();
        }
        ports
    }

    #[test]
    fn every_endpoint_is_tried_once_from_each_start() {
        for endpoints in 0..5 {
            let upstream = upstream(endpoints);
            for start in [0, 1, 2, 3, 7, usize::MAX - 1, usize::MAX] {
                upstream.set_cursor(start);
                let mut tried = order(&mut upstream.candidates());
                let first = (endpoints > 0).then(|| (start % usize::from(endpoints.max(1))) as u16 + 1);
                assert_eq!(tried.first().copied(), first);
                tried.sort_unstable();
                assert_eq!(tried, (1..=endpoints).collect::<Vec<_>>(), "start {start}");
            }
        }
    }

    #[test]
    fn consecutive_sessions_start_at_consecutive_endpoints() {
        let upstream = upstream(3);
        let firsts: Vec<_> = (0..6).map(|_| order(&mut upstream.candidates())[0]).collect();
        assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn all_addresses_of_a_name_are_tried_before_the_next_endpoint() {
        let name = Endpoint::new("ws://app:80".into(), Address::Name("app:80".into()), false, String::new());
        let next =
            Endpoint::new("ws://10.0.0.9:9".into(), Address::Tcp(([10, 0, 0, 9], 9).into()), false, String::new());
        let upstream = Upstream::new("app".into(), vec![name, next]);
        assert_eq!(order(&mut upstream.candidates()), [9], "not resolved yet");
        let addresses = [81, 82].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        assert!(upstream.endpoints()[0].set_resolved(addresses.to_vec()));
        assert!(!upstream.endpoints()[0].set_resolved(addresses.to_vec()));
        upstream.set_cursor(0);
        assert_eq!(order(&mut upstream.candidates()), [81, 82, 9]);
    }

    #[test]
    fn a_pick_counts_while_it_is_held_also_over_a_reload() {
        let (before, after) = (upstream(2), upstream(3));
        let mut candidates = before.candidates();
        let (pick, _) = candidates.current().unwrap();
        assert_eq!(pick.endpoint().sessions(), 1);
        after.inherit(&before);
        let sessions = |upstream: &Upstream| upstream.endpoints().iter().map(|e| e.sessions()).collect::<Vec<_>>();
        assert_eq!(sessions(&after), [1, 0, 0], "the endpoint is the same object");
        drop(pick);
        assert_eq!(sessions(&after), [0, 0, 0]);
    }
}
