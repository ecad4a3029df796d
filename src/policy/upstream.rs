//! Upstreams: named sets of endpoints, with the rules by which sessions are spread over them.

use super::balance::Balance;
use super::check::HealthCheck;
pub use super::endpoint::Member;
use super::endpoint::{Endpoint, Limits, Shared};
use super::health::Ejection;
use super::key::HashKey;
use super::limit::Permits;
use super::pool::Pool;
use super::retry::RetryLimits;
use super::sticky::{Namer, Sticky};
use super::tls::UpstreamTls;
use crate::proto::Millis;
use arc_swap::ArcSwap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A named set of endpoints.
#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    pub rules: Rules,
    /// For those of the endpoints that are spoken to over TLS.
    pub tls: UpstreamTls,
    /// How its endpoints are checked, if they are.
    pub check: Option<HealthCheck>,
    /// May change while sessions run: a session holds the endpoint that it picked, not its
    /// position.
    pool: ArcSwap<Pool>,
    state: ArcSwap<State>,
}

/// How sessions are spread over the endpoints of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub balance: Balance,
    /// Before the balance: a client with this cookie comes back to its endpoint.
    pub sticky: Option<Sticky>,
    /// For [`Balance::ConsistentHash`]: what stays with the same endpoint.
    pub hash_key: HashKey,
    /// For [`Balance::ConsistentHash`]: no endpoint gets more than this percentage of its fair
    /// share of the sessions; 0 for no bound.
    pub hash_load_percent: u32,
    /// A recovered endpoint gets its full share after this time; 0 at once.
    pub slow_start_ms: Millis,
    /// When handshakes eject an endpoint.
    pub ejection: Option<Arc<Ejection>>,
    /// Of the upstream, all its endpoints together.
    pub limits: Limits,
    /// Of each endpoint.
    pub endpoint_limits: Limits,
    pub queue: Queue,
    pub retries: RetryLimits,
    /// The addresses that connections to its endpoints come from, in turn; empty leaves it to the
    /// kernel.
    pub bind: Vec<IpAddr>,
}

/// Sessions that wait until an endpoint has room for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// How many may wait; 0 for none.
    pub max: usize,
    /// How long.
    pub timeout_ms: Millis,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            balance: Balance::default(),
            sticky: None,
            hash_key: HashKey::ClientIp,
            hash_load_percent: 0,
            slow_start_ms: 0,
            ejection: Some(Arc::default()),
            limits: Limits::default(),
            endpoint_limits: Limits::default(),
            queue: Queue { max: 0, timeout_ms: 5_000 },
            retries: RetryLimits::default(),
            bind: Vec::new(),
        }
    }
}

/// What an upstream keeps over a reload.
#[derive(Debug)]
pub(super) struct State {
    pub shared: Arc<Shared>,
    /// Places in the queue.
    pub queue: Arc<Permits>,
    /// Makes the ids of cookies; `None` without stickiness.
    namer: Option<Arc<Namer>>,
}

impl State {
    fn new(rules: &Rules) -> State {
        let sticky = rules.sticky.as_ref();
        let namer = sticky.and_then(|sticky| Namer::new(sticky.secret.as_deref())).map(Arc::new);
        State { shared: Arc::default(), queue: Permits::new(rules.queue.max), namer }
    }

    /// The state of `before` under other rules.
    fn continued(before: &Upstream, rules: &Rules) -> State {
        let state = before.state.load();
        let is_random = |rules: &Rules| rules.sticky.as_ref().is_some_and(|sticky| sticky.secret.is_none());
        let fresh = State::new(rules);
        // A random key stays, and with it the cookies.
        let namer = if is_random(rules) && is_random(&before.rules) { state.namer.clone() } else { fresh.namer };
        State { shared: Arc::clone(&state.shared), queue: Arc::clone(&state.queue), namer }
    }
}

impl Upstream {
    pub fn new(name: String, endpoints: Vec<Endpoint>) -> Upstream {
        Upstream::with_members(name, endpoints.into_iter().map(Member::from).collect())
    }

    /// An endpoint that is listed twice is one object, and gets two turns.
    pub fn with_members(name: String, members: Vec<Member>) -> Upstream {
        let members = members.iter().map(|member| member.clone().known_among(&members)).collect::<Vec<_>>();
        let rules = Rules::default();
        let state = ArcSwap::from_pointee(State::new(&rules));
        let pool = ArcSwap::from_pointee(Pool::new(Vec::new(), rules.balance, None));
        let upstream = Upstream { name, rules, tls: UpstreamTls::default(), check: None, pool, state };
        upstream.apply_rules();
        upstream.store(members, &upstream.pool.load());
        upstream
    }

    /// The same under other rules, and with other settings for TLS.
    pub fn with(self, rules: Rules, tls: UpstreamTls) -> Upstream {
        let members = self.members();
        let state = ArcSwap::from_pointee(State::new(&rules));
        let upstream = Upstream { rules, tls, state, ..self };
        upstream.apply_rules();
        upstream.store(members, &upstream.pool.load());
        upstream
    }

    /// The same with a health check.
    pub fn with_check(self, check: Option<HealthCheck>) -> Upstream {
        let upstream = Upstream { check, ..self };
        upstream.members().iter().for_each(|member| upstream.hold(member));
        upstream
    }

    /// Keeps a new endpoint down until its checks pass, if that is what the check says.
    fn hold(&self, member: &Member) {
        if self.check.as_ref().is_some_and(|check| !check.initially_up) {
            member.endpoint.health.hold();
        }
    }

    /// The endpoints of this moment.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.pool.load().members().iter().map(|member| Arc::clone(&member.endpoint)).collect()
    }

    /// The endpoints of this moment by priority, with their weights.
    pub fn members(&self) -> Vec<Member> {
        self.pool.load().members().to_vec()
    }

    /// Replaces the members. Endpoints that are known already stay the same objects, with their
    /// runtime state.
    pub fn set_members(&self, members: Vec<Member>) {
        let known = self.members();
        let members: Vec<_> = members.into_iter().map(|member| member.known_among(&known)).collect();
        members.iter().for_each(|member| member.endpoint.set_removed(false));
        let is_new = |member: &&Member| !known.iter().any(|known| Arc::ptr_eq(&known.endpoint, &member.endpoint));
        members.iter().filter(is_new).for_each(|member| self.hold(member));
        self.store(members, &self.pool.load());
        self.mark_removed(&known);
    }

    /// Marks those of `before` that are not members any more.
    fn mark_removed(&self, before: &[Member]) {
        let members = self.members();
        let stays = |member: &Member| members.iter().any(|now| Arc::ptr_eq(&now.endpoint, &member.endpoint));
        let gone = before.iter().filter(|member| !stays(member));
        gone.for_each(|member| member.endpoint.set_removed(true));
    }

    /// Takes over the runtime state of `before`, and of the endpoints that have not changed.
    pub fn inherit(&self, before: &Upstream) {
        self.state.store(Arc::new(State::continued(before, &self.rules)));
        let known = before.members();
        let members: Vec<_> = self.members().into_iter().map(|member| member.known_among(&known)).collect();
        self.apply_rules();
        self.store(members, &before.pool.load());
        self.mark_removed(&known);
    }

    /// Sessions of its endpoints, and those of them that wait for their 101.
    pub fn sessions(&self) -> (usize, usize) {
        let state = self.state.load();
        (state.shared.sessions(), state.shared.pending())
    }

    /// Sessions that wait for room.
    pub fn queued(&self) -> usize {
        self.state.load().queue.taken()
    }

    /// Replaces all runtime state, as if the process had just started, with turns that begin at
    /// `turn`. For simulations, which replay.
    pub fn restart(&self, turn: u64) {
        let state = State::new(&self.rules);
        state.shared.asked.store(turn, Relaxed);
        state.shared.turns.store(turn, Relaxed);
        let anew = |member: Member| Member { endpoint: Arc::new(member.endpoint.anew()), ..member };
        let members = self.members().into_iter().map(anew).collect();
        self.state.store(Arc::new(state));
        self.apply_rules();
        self.store(members, &self.pool.load());
    }

    pub(super) fn pool(&self) -> Arc<Pool> {
        self.pool.load_full()
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The members from now on. `before`: the pool whose tables are used again.
    fn store(&self, members: Vec<Member>, before: &Pool) {
        let pool = self.make_pool(members, before);
        self.state.load().shared.recount(pool.members().iter().map(|member| &member.endpoint));
        self.pool.store(Arc::new(pool));
    }

    fn make_pool(&self, members: Vec<Member>, before: &Pool) -> Pool {
        let pool = Pool::new(members, self.rules.balance, Some(before));
        match &self.state.load().namer {
            None => pool,
            Some(namer) => pool.with_ids(|endpoint| namer.id(&endpoint.url)),
        }
    }

    /// Puts the rules into the state that older snapshots share.
    fn apply_rules(&self) {
        let state = self.state.load();
        state.queue.set_max(self.rules.queue.max);
        state.shared.set_ejection(self.rules.ejection.clone());
    }
}

/// The configured values are equal; runtime state does not count.
impl PartialEq for Upstream {
    fn eq(&self, other: &Upstream) -> bool {
        self.name == other.name
            && self.rules == other.rules
            && self.tls == other.tls
            && self.check == other.check
            && *self.pool.load_full() == *other.pool.load_full()
    }
}

impl Eq for Upstream {}
