//! The sources of the running configuration, owned by the control thread: starts and stops them,
//! applies their lists to upstreams, and shows how they are doing.

use super::{FIRST_LISTS, Slot, run};
use crate::config::Snapshot;
use crate::config::discovery::Discovery;
use crate::policy::balance::ENDPOINTS_MAX;
use crate::policy::endpoint::Endpoint;
use crate::policy::upstream::{Member, Upstream};
use crate::resolver::Resolve;
use crate::service::Asker;
use crate::worker::sys::now_ms;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Starts the thread of a source; `server.rs` has it.
pub type Start = fn(&str, Box<dyn FnOnce() + Send>) -> Result<(), String>;

/// Wakes the control thread.
type Wake = Arc<dyn Fn() + Send + Sync>;

pub struct Sources {
    start: Start,
    wake: Wake,
    resolver: Asker<Resolve>,
    running: Vec<Running>,
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub upstream: String,
    /// `dns`, `file`, `consul`, `kubernetes` or `eureka`.
    pub source: &'static str,
    /// Endpoints that it has reported.
    pub endpoints: usize,
    /// Since its last success, or since it was started.
    pub age: Duration,
    pub failures: u64,
    /// Lists that were applied: those with a change.
    pub changes: u64,
    /// Why it fails now.
    pub error: Option<String>,
}

struct Running {
    discovery: Discovery,
    slot: Arc<Slot>,
    /// What its lists are applied to.
    target: Option<Target>,
    /// Its last list.
    found: Vec<Member>,
    changes: u64,
}

struct Target {
    upstream: Arc<Upstream>,
    /// The endpoints of the configuration.
    configured: Vec<Member>,
}

/// New sources that no snapshot uses yet. They end when this is dropped.
#[derive(Default)]
pub struct Prepared {
    started: Vec<Running>,
    first: Option<Receiver<()>>,
}

impl Sources {
    pub fn new(start: Start, wake: impl Fn() + Send + Sync + 'static, resolver: Asker<Resolve>) -> Sources {
        Sources { start, wake: Arc::new(wake), resolver, running: Vec::new() }
    }

    /// Starts the sources of `next` that do not run yet.
    ///
    /// # Errors
    /// A thread cannot be started. None of them runs then.
    pub fn prepare(&self, next: &Snapshot) -> Result<Prepared, String> {
        let runs = |discovery: &&Discovery| !self.running.iter().any(|running| running.discovery == **discovery);
        let new: Vec<&Discovery> = next.discoveries.iter().filter(runs).collect();
        let (first, told) = sync_channel(new.len().max(1));
        let mut prepared = Prepared { started: Vec::new(), first: Some(told) };
        for discovery in new {
            let (name, source) = (&discovery.upstream, discovery.source.name());
            let wake = Arc::clone(&self.wake);
            let slot = Arc::new(Slot::new(name, source, first.clone(), move || wake()));
            let (theirs, resolver) = (Arc::clone(&slot), self.resolver.clone());
            let (ours, discovery) = (discovery.clone(), discovery.clone());
            (self.start)(&format!("discover-{source}"), Box::new(move || run::run(&ours, &theirs, &resolver)))?;
            prepared.started.push(Running { discovery, slot, target: None, found: Vec::new(), changes: 0 });
        }
        Ok(prepared)
    }

    /// Switches to `next`, which has taken over from `before`: sources that are unchanged go on,
    /// those that are gone stop. Waits a limited time for the first lists of new ones.
    pub fn replace(&mut self, mut prepared: Prepared, next: &Snapshot, before: Option<&Snapshot>) {
        prepared.wait();
        self.running.append(&mut prepared.started);
        // Those of the same upstream: the one that goes on, or the new one.
        let wanted = |running: &Running| next.discoveries.contains(&running.discovery);
        self.running.iter().filter(|running| !wanted(running)).for_each(|running| running.slot.stop());
        self.running.retain(wanted);
        for running in &mut self.running {
            let name = &running.discovery.upstream;
            let of = |snapshot: &Snapshot| snapshot.upstreams.iter().find(|one| one.name == *name).cloned();
            let Some(upstream) = of(next) else { continue };
            let known = before.and_then(of).map_or_else(Default::default, |upstream| upstream.members());
            let configured = upstream.members();
            running.target = Some(Target { upstream, configured });
            if let Some(list) = running.slot.take() {
                running.take(list);
            }
            running.apply(&known);
        }
    }

    /// When [`Sources::on_tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.running.iter().filter_map(|running| running.slot.due()).min()
    }

    /// Applies the lists that are due.
    pub fn on_tick(&mut self, now: Instant) {
        for running in &mut self.running {
            if let Some(list) = running.slot.take_due(now) {
                running.take(list);
                running.apply(&[]);
            }
        }
    }

    /// Of the source of an upstream, if it has one.
    pub fn status_of(&self, upstream: &str) -> Option<Status> {
        self.of(upstream).map(Running::status)
    }

    /// The source that an endpoint of an upstream comes from; `None` for the configuration.
    pub fn source_of(&self, upstream: &str, endpoint: &Endpoint) -> Option<&'static str> {
        let running = self.of(upstream)?;
        let is = |list: &[Member]| list.iter().any(|member| *member.endpoint == *endpoint);
        let configured = running.target.as_ref().is_some_and(|target| is(&target.configured));
        (!configured && is(&running.found)).then(|| running.discovery.source.name())
    }

    fn of(&self, upstream: &str) -> Option<&Running> {
        self.running.iter().find(|running| running.discovery.upstream == upstream)
    }

    /// One for each discovering upstream, in the order of the configuration.
    pub fn status(&self) -> Vec<Status> {
        self.running.iter().map(Running::status).collect()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.running.iter().for_each(|running| running.slot.stop());
    }
}

impl Prepared {
    /// Waits until each new source has reported or failed once, or time is up.
    fn wait(&self) {
        let until = Instant::now() + FIRST_LISTS;
        for _ in &self.started {
            let left = until.saturating_duration_since(Instant::now());
            // Without a first list there are no endpoints yet: requests get 503 until it is there.
            let _ = self.first.as_ref().map(|first| first.recv_timeout(left));
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.started.iter().for_each(|running| running.slot.stop());
    }
}

impl Running {
    fn take(&mut self, list: Vec<Member>) {
        let (name, source) = (&self.discovery.upstream, self.discovery.source.name());
        let among = |one: &Member, list: &[Member]| list.iter().any(|other| other.endpoint == one.endpoint);
        let added = list.iter().filter(|one| !among(one, &self.found)).count();
        let removed = self.found.iter().filter(|one| !among(one, &list)).count();
        ::log::info!("upstream \"{name}\": {} endpoints by {source}, {added} new, {removed} gone", list.len());
        self.found = list;
        self.changes += 1;
    }

    /// Gives the upstream its configured and found endpoints. Those equal to one in `known` are
    /// that object, with its sessions.
    fn apply(&mut self, known: &[Member]) {
        let Some(Target { upstream, configured }) = &self.target else { return };
        let mut members = configured.clone();
        for one in &self.found {
            if configured.iter().any(|configured| configured.endpoint == one.endpoint) {
                continue;
            }
            let mut member = one.clone();
            if let Some(known) = known.iter().find(|known| known.endpoint == one.endpoint) {
                member.endpoint = Arc::clone(&known.endpoint);
            }
            members.push(member);
        }
        if members.len() > ENDPOINTS_MAX {
            let (name, all) = (&upstream.name, members.len());
            ::log::warn!("upstream \"{name}\": {all} endpoints are too many, only the first {ENDPOINTS_MAX} are used");
            members.truncate(ENDPOINTS_MAX);
        }
        upstream.set_members(members, now_ms());
    }

    fn status(&self) -> Status {
        let health = self.slot.health();
        Status {
            upstream: self.discovery.upstream.clone(),
            source: self.discovery.source.name(),
            endpoints: self.found.len(),
            age: health.fresh_at.elapsed(),
            failures: health.failures,
            changes: self.changes,
            error: health.error,
        }
    }
}
