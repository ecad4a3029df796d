//! An endpoint: one server of an upstream, an object with an identity and runtime state. Snapshots
//! share it: one that a reload does not change is the same object before and after it, with its
//! counts.

use super::counts::{Count, add_below};
use super::health::{Ejection, Health, Order, State};
use super::limit::Permits;
use super::retry::Budget;
use crate::proto::Millis;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// One server of an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// Sessions that hold a [`Pick`] of it, over all workers.
    sessions: OnceLock<Count>,
    /// Those of them that wait for their 101.
    pending: AtomicUsize,
    pub health: Health,
    /// As configured: its identity within its upstream, and its name in logs.
    pub url: String,
    pub address: Address,
    /// `wss`.
    pub tls: bool,
    /// The path of the URL without a trailing slash: `""` or `/base`.
    pub base: String,
    /// What `address` resolved to, if it is a name. Old answers stay where resolving fails.
    resolved: ArcSwap<Vec<SocketAddr>>,
    /// It is, or was, a member of an upstream.
    introduced: AtomicBool,
    /// It is one of those that [`Shared::ejected`] counts.
    counts_as_ejected: AtomicBool,
    /// Known from the first session on.
    shared: OnceLock<Arc<Shared>>,
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
        Endpoint {
            url,
            address,
            tls,
            base,
            resolved: ArcSwap::from_pointee(Vec::new()),
            sessions: OnceLock::new(),
            pending: AtomicUsize::new(0),
            health: Health::default(),
            introduced: AtomicBool::new(false),
            counts_as_ejected: AtomicBool::new(false),
            shared: OnceLock::new(),
        }
    }

    /// The same endpoint without its runtime state.
    pub(super) fn anew(&self) -> Endpoint {
        Endpoint::new(self.url.clone(), self.address.clone(), self.tls, self.base.clone())
    }

    /// It becomes a member of an upstream: whether for the first time.
    pub(super) fn introduce(&self) -> bool {
        !self.introduced.swap(true, Relaxed)
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
        self.count().get()
    }

    /// The count of its sessions.
    pub(super) fn count(&self) -> &Count {
        self.sessions.get_or_init(Count::default)
    }

    pub(super) fn has_count(&self) -> bool {
        self.sessions.get().is_some()
    }

    /// Sets where its sessions are counted, unless that is known.
    pub(super) fn set_count(&self, count: Count) {
        self.sessions.get_or_init(|| count);
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

/// An endpoint of an upstream, and its share there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// Its share of new sessions, relative to the others; 1 to 1,000.
    pub weight: u16,
    /// 0 is used first; the next one when no endpoint of those before is available, or has room.
    pub priority: u8,
}

impl Member {
    /// The same with the object of an equal endpoint in `known`, if there is one.
    pub(super) fn known_among(self, known: &[Member]) -> Member {
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

/// What the endpoints of an upstream share while the process runs, also over reloads.
#[derive(Debug, Default)]
pub struct Shared {
    /// Sessions on its endpoints, and those of them that wait for their 101.
    sessions: AtomicUsize,
    pending: AtomicUsize,
    /// Endpoints, and those of them that are ejected.
    endpoints: AtomicUsize,
    ejected: AtomicUsize,
    /// `None`: handshakes eject no endpoint.
    ejection: ArcSwapOption<Ejection>,
    /// Sessions that have asked for an endpoint, and turns that endpoints have had.
    pub(super) asked: AtomicU64,
    pub(super) turns: AtomicU64,
    pub(super) retries: Budget,
    /// Places for sessions that wait for room.
    pub(super) queue: Arc<Permits>,
    /// Sessions and handshakes that have ended while others waited for their room.
    left: AtomicU64,
}

impl Shared {
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    pub fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// Sessions that wait for room.
    pub fn waiting(&self) -> usize {
        self.queue.taken()
    }

    /// Changes whenever room is left that a waiting session may take.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    fn leave(&self, counter: &AtomicUsize) {
        counter.fetch_sub(1, Relaxed);
        if self.waiting() > 0 {
            self.left.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn set_ejection(&self, ejection: Option<Arc<Ejection>>) {
        self.ejection.store(ejection);
    }

    /// Counts the endpoints anew after they have changed.
    pub(super) fn recount<'a>(&self, endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) {
        let (mut all, mut ejected) = (0, 0);
        for endpoint in endpoints {
            let counts = endpoint.health.is_ejected();
            endpoint.counts_as_ejected.store(counts, Relaxed);
            all += 1;
            ejected += usize::from(counts);
        }
        self.endpoints.store(all, Relaxed);
        self.ejected.store(ejected, Relaxed);
    }

    /// Whether one more endpoint may be ejected.
    fn may_eject(&self, rules: &Ejection) -> bool {
        let (all, ejected) = (self.endpoints.load(Relaxed), self.ejected.load(Relaxed));
        (ejected + 1) * 100 <= all * rules.max_percent as usize
    }
}

/// How many sessions an endpoint may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// All sessions; `None` for no limit.
    pub sessions: Option<usize>,
    /// Sessions that wait for their 101.
    pub pending: Option<usize>,
}

impl Limits {
    /// There is room for one more.
    pub(super) fn allow(self, sessions: usize, pending: usize) -> bool {
        self.sessions.is_none_or(|max| sessions < max) && self.pending.is_none_or(|max| pending < max)
    }
}

/// The limits of an upstream, and of each of its endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub upstream: Limits,
    pub endpoint: Limits,
}

/// What has no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Endpoint,
    Upstream,
}

impl Endpoint {
    pub(super) fn has_room(&self, limits: Limits) -> bool {
        limits.allow(self.sessions(), self.pending.load(Relaxed))
    }

    /// Handshakes that wait for their 101.
    pub fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// A handshake succeeded.
    fn on_success(&self, trial: bool, now: Millis) {
        let Some(shared) = self.shared.get() else { return };
        let rules = shared.ejection.load();
        self.health.on_success(trial, rules.as_deref().unwrap_or(&Ejection::default()), now);
        self.count_ejected(shared);
    }

    /// Brings the count of the upstream up to date after its own state may have changed. What is
    /// not a member any more does not count.
    fn count_ejected(&self, shared: &Shared) {
        let counts = self.health.is_ejected() && self.health.state() != State::Removed;
        match (self.counts_as_ejected.swap(counts, Relaxed), counts) {
            (false, true) => drop(shared.ejected.fetch_add(1, Relaxed)),
            (true, false) => drop(shared.ejected.fetch_sub(1, Relaxed)),
            _ => {}
        }
    }

    /// It is not a member of its upstream any more, or is one again. The upstream counts anew.
    pub(super) fn set_removed(&self, removed: bool) {
        self.health.set_removed(removed);
        if removed {
            self.counts_as_ejected.store(false, Relaxed);
        }
    }

    /// A handshake failed, or a session ended abnormally soon after it.
    fn on_failure(&self, trial: bool, now: Millis) {
        let Some(shared) = self.shared.get() else { return };
        let rules = shared.ejection.load();
        let Some(rules) = rules.as_deref() else { return };
        let is_ejected = self.health.is_ejected();
        if !self.health.on_failure(trial, rules, now) || (is_ejected && !trial) {
            return;
        }
        if is_ejected || shared.may_eject(rules) {
            self.health.eject(rules, now);
            self.count_ejected(shared);
        }
    }

    /// A session on it has ended abnormally, through its upstream, at this age.
    pub fn on_early_end(&self, age_ms: Millis, now: Millis) {
        let early = |rules: &Ejection| age_ms < rules.early_end_ms;
        if self.shared.get().and_then(|shared| shared.ejection.load_full()).is_some_and(|rules| early(&rules)) {
            self.on_failure(false, now);
        }
    }

    /// What the admin listener asks.
    pub fn obey(&self, order: Order, now: Millis) {
        self.health.obey(order, now);
        if let Some(shared) = self.shared.get() {
            self.count_ejected(shared);
        }
    }
}

/// An endpoint that a session uses: counted while it is held.
#[derive(Debug)]
pub struct Pick(Arc<Endpoint>);

impl Pick {
    /// Counts a session within `bounds`.
    pub(super) fn take(endpoint: &Arc<Endpoint>, shared: &Arc<Shared>, bounds: Bounds) -> Result<Pick, Full> {
        let shared = endpoint.shared.get_or_init(|| Arc::clone(shared));
        if !endpoint.count().add_below(bounds.endpoint.sessions) {
            return Err(Full::Endpoint);
        }
        if !add_below(&shared.sessions, bounds.upstream.sessions) {
            endpoint.count().subtract();
            return Err(Full::Upstream);
        }
        Ok(Pick(Arc::clone(endpoint)))
    }

    /// Another session waits for room at the upstream.
    pub fn is_awaited(&self) -> bool {
        self.0.shared.get().is_some_and(|shared| shared.waiting() > 0)
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.0.count().subtract();
        if let Some(shared) = self.0.shared.get() {
            shared.leave(&shared.sessions);
        }
    }
}

/// A handshake with an endpoint that waits for its 101: counted while it is held. Dropped without
/// an outcome, it says nothing about the endpoint: the client may have left.
#[derive(Debug)]
pub(super) struct Attempt {
    endpoint: Arc<Endpoint>,
    /// It is the one that decides about the end of an ejection.
    trial: bool,
}

impl Attempt {
    /// Counts a pending handshake within `bounds`. An ejected endpoint that another session tries
    /// already has no room for a second one.
    pub fn begin(endpoint: &Arc<Endpoint>, shared: &Arc<Shared>, bounds: Bounds) -> Result<Attempt, Full> {
        let trial = endpoint.health.take_trial().ok_or(Full::Endpoint)?;
        let shared = endpoint.shared.get_or_init(|| Arc::clone(shared));
        let full = if !add_below(&endpoint.pending, bounds.endpoint.pending) {
            Full::Endpoint
        } else if !add_below(&shared.pending, bounds.upstream.pending) {
            endpoint.pending.fetch_sub(1, Relaxed);
            Full::Upstream
        } else {
            return Ok(Attempt { endpoint: Arc::clone(endpoint), trial });
        };
        if trial {
            endpoint.health.release_trial();
        }
        Err(full)
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub fn succeeded(self, now: Millis) {
        self.endpoint.on_success(self.trial, now);
    }

    pub fn failed(self, now: Millis) {
        self.endpoint.on_failure(self.trial, now);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.endpoint.pending.fetch_sub(1, Relaxed);
        if let Some(shared) = self.endpoint.shared.get() {
            shared.leave(&shared.pending);
        }
        if self.trial {
            self.endpoint.health.release_trial();
        }
    }
}
