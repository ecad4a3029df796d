//! Upstreams: named sets of endpoints, with the rules by which sessions are spread over them.

use super::balance::Balance;
use super::check::HealthCheck;
pub use super::endpoint::Member;
use super::endpoint::{Bounds, Endpoint, Limits, Shared};
use super::health::Ejection;
use super::key::HashKey;
use super::pool::Pool;
use super::retry::RetryLimits;
use super::sticky::{Namer, Sticky};
use super::tls::UpstreamTls;
use crate::proto::Millis;
use crate::proto::proxy_protocol::Version;
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
    /// An endpoint that has recovered, or has joined an upstream with sessions, gets its full share
    /// after this time; 0 at once.
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
    /// What connections to its endpoints begin with, if anything: a PROXY header.
    pub proxy_protocol: Option<Version>,
    /// Connections that have answered a plain request.
    pub keep_alive: KeepAlive,
}

/// Connections that are kept for the next plain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Of an endpoint, in each worker; 0 for none.
    pub connections: usize,
    /// How long one waits for a request.
    pub idle_ms: Millis,
    /// One that is older gets no more requests.
    pub age_ms: Millis,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        KeepAlive { connections: 32, idle_ms: 60_000, age_ms: 3_600_000 }
    }
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
            proxy_protocol: None,
            keep_alive: KeepAlive::default(),
        }
    }
}

impl Rules {
    /// A connection may carry requests of other clients: it does not begin with a word about one.
    pub fn shares_connections(&self) -> bool {
        self.proxy_protocol.is_none() && self.keep_alive.connections > 0
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { upstream: self.limits, endpoint: self.endpoint_limits }
    }
}

/// What is configured of an upstream beside its name and its endpoints.
#[derive(Debug, Default)]
pub struct Options {
    pub rules: Rules,
    pub tls: UpstreamTls,
    pub check: Option<HealthCheck>,
}

/// What an upstream keeps over a reload.
#[derive(Debug)]
pub(super) struct State {
    pub shared: Arc<Shared>,
    /// Makes the ids of cookies; `None` without stickiness.
    namer: Option<Arc<Namer>>,
}

impl State {
    fn new(rules: &Rules) -> State {
        let sticky = rules.sticky.as_ref();
        let namer = sticky.and_then(|sticky| Namer::new(sticky.secret.as_deref())).map(Arc::new);
        State { shared: Arc::default(), namer }
    }

    /// The state of `before` under other rules.
    fn continued(before: &Upstream, rules: &Rules) -> State {
        let state = before.state.load();
        let is_random = |rules: &Rules| rules.sticky.as_ref().is_some_and(|sticky| sticky.secret.is_none());
        let fresh = State::new(rules);
        // A random key stays, and with it the cookies.
        let namer = if is_random(rules) && is_random(&before.rules) { state.namer.clone() } else { fresh.namer };
        State { shared: Arc::clone(&state.shared), namer }
    }

    /// `before`: the pool whose tables are used again.
    fn pool(&self, members: Vec<Member>, balance: Balance, before: Option<&Pool>) -> Pool {
        let pool = Pool::new(members, balance, before);
        match &self.namer {
            None => pool,
            Some(namer) => pool.with_ids(|endpoint| namer.id(&endpoint.url)),
        }
    }
}

impl Upstream {
    /// An endpoint that is listed twice is one object, and gets two turns.
    pub fn new(name: String, members: Vec<Member>, options: Options) -> Upstream {
        let Options { rules, tls, check } = options;
        let members: Vec<_> = members.iter().map(|member| member.clone().known_among(&members)).collect();
        let state = State::new(&rules);
        let pool = ArcSwap::from_pointee(state.pool(members, rules.balance, None));
        let upstream = Upstream { name, rules, tls, check, pool, state: ArcSwap::from_pointee(state) };
        upstream.introduce(&upstream.members());
        upstream.apply_rules();
        upstream.recount();
        upstream
    }

    /// Those of `members` that have never been one of an upstream. They are down until their checks
    /// pass, if that is what the check says.
    fn introduce(&self, members: &[Member]) -> Vec<Member> {
        let new: Vec<_> = members.iter().filter(|member| member.endpoint.introduce()).cloned().collect();
        if self.check.as_ref().is_some_and(|check| !check.initially_up) {
            new.iter().for_each(|member| member.endpoint.health.hold());
        }
        new
    }

    /// The slow start of those that join `stay` other members at `now`. Where no session has been
    /// asked for yet, or all members are new, all have their share at once.
    fn start_slowly(&self, joining: &[Member], stay: usize, now: Millis) {
        if stay > 0 && self.state.load().shared.asked.load(Relaxed) > 0 {
            joining.iter().for_each(|member| member.endpoint.health.start_slowly(now));
        }
    }

    /// The value of a cookie names an endpoint of this moment.
    pub fn knows(&self, cookie: &[u8]) -> bool {
        self.pool.load().position(cookie).is_some()
    }

    /// The endpoints of this moment.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.pool.load().members().iter().map(|member| Arc::clone(&member.endpoint)).collect()
    }

    /// The endpoints of this moment by priority, with their weights.
    pub fn members(&self) -> Vec<Member> {
        self.pool.load().members().to_vec()
    }

    /// Replaces the members at `now`. Endpoints that are known already stay the same objects, with
    /// their runtime state.
    pub fn set_members(&self, members: Vec<Member>, now: Millis) {
        let known = self.members();
        let members: Vec<_> = members.into_iter().map(|member| member.known_among(&known)).collect();
        members.iter().for_each(|member| member.endpoint.set_removed(false));
        let new = self.introduce(&members);
        self.start_slowly(&new, members.len() - new.len(), now);
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

    /// Takes over the runtime state of `before` at `now`, and of the endpoints that have not
    /// changed.
    pub fn inherit(&self, before: &Upstream, now: Millis) {
        self.state.store(Arc::new(State::continued(before, &self.rules)));
        let (known, own) = (before.members(), self.members());
        let members: Vec<_> = own.iter().map(|member| member.clone().known_among(&known)).collect();
        let is_new = |(own, member): &(&Member, &Member)| Arc::ptr_eq(&own.endpoint, &member.endpoint);
        let new: Vec<_> = own.iter().zip(&members).filter(is_new).map(|(own, _)| own.clone()).collect();
        self.start_slowly(&new, members.len() - new.len(), now);
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
        self.state.load().shared.waiting()
    }

    /// Replaces all runtime state, as if the process had just started, with turns that begin at
    /// `turn`. For simulations, which replay.
    pub fn restart(&self, turn: u64) {
        let state = State::new(&self.rules);
        state.shared.asked.store(turn, Relaxed);
        state.shared.turns.store(turn, Relaxed);
        let anew = |member: Member| Member { endpoint: Arc::new(member.endpoint.anew()), ..member };
        let members: Vec<_> = self.members().into_iter().map(anew).collect();
        self.introduce(&members);
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
        let pool = self.state.load().pool(members, self.rules.balance, Some(before));
        self.pool.store(Arc::new(pool));
        self.recount();
    }

    fn recount(&self) {
        let pool = self.pool.load();
        self.state.load().shared.recount(pool.members().iter().map(|member| &member.endpoint));
    }

    /// Puts the rules into the state that older snapshots share.
    fn apply_rules(&self) {
        let state = self.state.load();
        state.shared.queue.set_max(self.rules.queue.max);
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
