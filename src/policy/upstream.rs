//! Upstreams: named sets of endpoints, and the choice of the endpoint that a session tries next.
//!
//! Everything here is touched when a session opens or ends, never for a message.

use super::endpoint::{Endpoint, Pick, Target};
use super::tls::UpstreamTls;
use arc_swap::ArcSwap;
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
    members: ArcSwap<Vec<Member>>,
    /// Where round robin is.
    cursor: AtomicUsize,
}

impl Upstream {
    pub fn new(name: String, endpoints: Vec<Endpoint>) -> Upstream {
        Upstream {
            name,
            balance: Balance::default(),
            tls: UpstreamTls::default(),
            members: ArcSwap::from_pointee(endpoints.into_iter().map(Member::from).collect()),
            cursor: AtomicUsize::new(0),
        }
    }

    /// The same with another way to balance, and other settings for TLS.
    pub fn with(self, balance: Balance, tls: UpstreamTls) -> Upstream {
        Upstream { balance, tls, ..self }
    }

    /// The endpoints of this moment.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.members.load().iter().map(|member| Arc::clone(&member.endpoint)).collect()
    }

    /// The endpoints of this moment, with their weights.
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.members.load_full()
    }

    /// Replaces the members. Endpoints that are known already stay the same objects, with their
    /// runtime state.
    pub fn set_members(&self, members: Vec<Member>) {
        let known = self.members();
        self.members.store(Arc::new(members.into_iter().map(|member| member.known_among(&known)).collect()));
    }

    /// Takes over the endpoints of `before` that have not changed, with their runtime state.
    pub fn inherit(&self, before: &Upstream) {
        let known = before.members();
        let members = self.members();
        self.members.store(Arc::new(members.iter().map(|member| member.clone().known_among(&known)).collect()));
        self.set_cursor(before.cursor.load(Relaxed));
    }

    /// Where round robin continues.
    pub fn set_cursor(&self, cursor: usize) {
        self.cursor.store(cursor, Relaxed);
    }

    /// The order in which one more session tries the endpoints.
    pub fn candidates(self: &Arc<Self>) -> Candidates {
        let start = match self.balance {
            Balance::RoundRobin => self.cursor.fetch_add(1, Relaxed),
        };
        Candidates { upstream: Arc::clone(self), members: self.members(), start, tried: 0, address: 0 }
    }
}

/// The configured values are equal; runtime state does not count.
impl PartialEq for Upstream {
    fn eq(&self, other: &Upstream) -> bool {
        self.name == other.name
            && self.balance == other.balance
            && self.tls == other.tls
            && self.members() == other.members()
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

/// An endpoint of an upstream, and its share there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// Its share of new sessions, relative to the others; 1 to 1,000.
    pub weight: u16,
    /// 0 is used first; the next group when no endpoint of the ones before is available.
    pub priority: u8,
}

impl Member {
    /// The same with the object of an equal endpoint in `known`, if there is one.
    fn known_among(self, known: &[Member]) -> Member {
        match known.iter().find(|known| known.endpoint == self.endpoint) {
            Some(known) => Member { endpoint: Arc::clone(&known.endpoint), ..self },
            None => self,
        }
    }
}

impl From<Endpoint> for Member {
    fn from(endpoint: Endpoint) -> Member {
        Member { endpoint: Arc::new(endpoint), weight: 1, priority: 0 }
    }
}

/// The order in which one session tries the endpoints of an upstream and their addresses, each
/// once.
#[derive(Debug)]
pub struct Candidates {
    upstream: Arc<Upstream>,
    members: Arc<Vec<Member>>,
    /// The first endpoint; then round from there.
    start: usize,
    /// Endpoints that have been tried.
    tried: usize,
    /// The next address of the endpoint under way.
    address: usize,
}

impl Candidates {
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The next address to try, and the endpoint that it belongs to. The same one again until
    /// [`Candidates::advance`] is called.
    pub fn current(&mut self) -> Option<(Pick, Target)> {
        while self.tried < self.members.len() {
            // The remainder comes first: `start` may be about to wrap, and the order must not jump
            // there.
            let index = (self.start % self.members.len() + self.tried) % self.members.len();
            let endpoint = &self.members.get(index)?.endpoint;
            if !endpoint.health.is_available() {
                self.tried += 1;
                self.address = 0;
                continue;
            }
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
    use crate::policy::endpoint::Address;
    use std::net::SocketAddr;

    fn upstream(endpoints: u16) -> Arc<Upstream> {
        let endpoint = |n| {
            let addr = SocketAddr::from(([10, 0, 0, 1], n + 1));
            Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new())
        };
        Arc::new(Upstream::new("app".into(), (0..endpoints).map(endpoint).collect()))
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
        let upstream = Arc::new(Upstream::new("app".into(), vec![name, next]));
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
