//! Which endpoint is checked when. Follows the members of the upstreams, which a reload or a
//! discovery may change at any time; an endpoint that stays keeps its place in the schedule. Knows
//! no socket and no clock.

use super::counts::Counts;
use crate::policy::check::HealthCheck;
use crate::policy::endpoint::Endpoint;
use crate::policy::upstream::Upstream;
use crate::proto::Millis;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

/// An upstream whose endpoints are checked.
#[derive(Debug, Clone)]
pub struct Watched {
    pub upstream: Arc<Upstream>,
    pub check: Arc<HealthCheck>,
    pub counts: Arc<Counts>,
}

/// Names a check of a subject. It no longer does when the subject has gone or its check has
/// changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    index: usize,
    serial: u64,
}

/// An endpoint that is checked.
#[derive(Debug)]
pub struct Subject {
    pub watched: Watched,
    pub endpoint: Arc<Endpoint>,
    /// The address of the endpoint that is checked next, or now.
    pub address: usize,
    /// When the check under way began, of its first address.
    pub began: Millis,
    serial: u64,
}

/// The subjects of one upstream.
#[derive(Debug)]
struct Group {
    watched: Watched,
    /// The endpoints that the subjects were made for.
    endpoints: Vec<Arc<Endpoint>>,
    subjects: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct Schedule {
    /// By the name of the upstream.
    groups: HashMap<String, Group>,
    subjects: Slab<Subject>,
    /// When checks begin. An entry whose key names nothing any more is ignored.
    starts: BinaryHeap<Reverse<(Millis, Key)>>,
    /// The last serial number.
    serial: u64,
}

/// A source of random numbers.
pub type Random<'a> = &'a mut dyn FnMut() -> u32;

impl Schedule {
    /// Checks the endpoints of these upstreams from now on, and of no others.
    pub fn set(&mut self, all: Vec<Watched>, now: Millis, random: Random<'_>) {
        let mut before = std::mem::take(&mut self.groups);
        for watched in all {
            let name = watched.upstream.name.clone();
            let known = before.remove(&name);
            let mut group = known.unwrap_or_else(|| Group {
                watched: watched.clone(),
                endpoints: Vec::new(),
                subjects: Vec::new(),
            });
            let changed = group.watched.check != watched.check;
            group.watched = watched;
            self.adopt(&group, changed, now, random);
            self.follow(&mut group, now, random);
            self.groups.insert(name, group);
        }
        for index in before.into_values().flat_map(|group| group.subjects) {
            self.remove(index, now);
        }
    }

    /// Reads the members of all upstreams again.
    pub fn refresh(&mut self, now: Millis, random: Random<'_>) {
        let mut groups = std::mem::take(&mut self.groups);
        for group in groups.values_mut() {
            self.follow(group, now, random);
        }
        self.groups = groups;
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// When the next check begins.
    pub fn next_at(&self) -> Option<Millis> {
        self.starts.peek().map(|Reverse((at, _))| *at)
    }

    /// The next check that is due.
    pub fn pop_due(&mut self, now: Millis) -> Option<Key> {
        while self.next_at().is_some_and(|at| at <= now) {
            let Reverse((_, key)) = self.starts.pop()?;
            if self.get(key).is_some() {
                return Some(key);
            }
        }
        None
    }

    pub fn get(&mut self, key: Key) -> Option<&mut Subject> {
        self.subjects.get_mut(key.index).filter(|subject| subject.serial == key.serial)
    }

    /// The check named by `key` has ended; the next one begins at `at`.
    pub fn begin_at(&mut self, key: Key, at: Millis) {
        self.starts.push(Reverse((at, key)));
    }

    /// Gives the subjects of a group its upstream of now. With another check they begin anew.
    fn adopt(&mut self, group: &Group, changed: bool, now: Millis, random: Random<'_>) {
        for index in &group.subjects {
            let Some(subject) = self.subjects.get_mut(*index) else { continue };
            subject.watched = group.watched.clone();
            if changed {
                self.serial += 1;
                (subject.serial, subject.address) = (self.serial, 0);
                let at = now + group.watched.check.first_ms(group.subjects.len(), random());
                self.starts.push(Reverse((at, Key { index: *index, serial: self.serial })));
            }
        }
    }

    /// Makes the subjects those of the members of now.
    fn follow(&mut self, group: &mut Group, now: Millis, random: Random<'_>) {
        let mut endpoints = group.watched.upstream.endpoints();
        let mut seen = HashSet::new();
        endpoints.retain(|endpoint| seen.insert(Arc::as_ptr(endpoint)));
        let same = endpoints.len() == group.endpoints.len()
            && endpoints.iter().zip(&group.endpoints).all(|(now, before)| Arc::ptr_eq(now, before));
        if same {
            return;
        }
        // By identity: an equal endpoint that is another object has a state of its own.
        let mut gone: HashMap<*const Endpoint, usize> = HashMap::new();
        for index in std::mem::take(&mut group.subjects) {
            let Some(subject) = self.subjects.get(index) else { continue };
            gone.insert(Arc::as_ptr(&subject.endpoint), index);
        }
        let mut new = Vec::new();
        for endpoint in &endpoints {
            match gone.remove(&Arc::as_ptr(endpoint)) {
                Some(index) => group.subjects.push(index),
                None => new.push(endpoint),
            }
        }
        gone.into_values().for_each(|index| self.remove(index, now));
        for endpoint in &new {
            self.serial += 1;
            let index = self.subjects.insert(Subject {
                watched: group.watched.clone(),
                endpoint: Arc::clone(endpoint),
                address: 0,
                began: now,
                serial: self.serial,
            });
            let at = now + group.watched.check.first_ms(new.len(), random());
            self.starts.push(Reverse((at, Key { index, serial: self.serial })));
            group.subjects.push(index);
        }
        group.endpoints = endpoints;
    }

    /// Its endpoint is checked no more: what the checks said of it no longer holds.
    fn remove(&mut self, index: usize, now: Millis) {
        if let Some(subject) = self.subjects.try_remove(index) {
            subject.endpoint.health.clear_checks(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::check::CheckKind;
    use crate::policy::endpoint::Address;
    use crate::policy::health::State;
    use crate::policy::upstream::Member;

    fn check(interval_ms: u64) -> HealthCheck {
        HealthCheck {
            kind: CheckKind::Tcp,
            interval_ms,
            jitter_permille: 0,
            timeout_ms: 10,
            thresholds: HealthCheck::THRESHOLDS,
            initially_up: true,
            port: None,
        }
    }

    fn member(port: u16) -> Member {
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], port));
        Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new()).into()
    }

    fn upstream(name: &str, ports: &[u16]) -> Arc<Upstream> {
        let members = ports.iter().map(|port| member(*port)).collect();
        Arc::new(Upstream::new(name.to_owned(), members, Default::default()))
    }

    fn watched(upstream: &Arc<Upstream>, interval_ms: u64) -> Watched {
        Watched { upstream: Arc::clone(upstream), check: Arc::new(check(interval_ms)), counts: Arc::default() }
    }

    /// The ports that are due at `now`, each begun again an interval later.
    fn due(schedule: &mut Schedule, now: Millis) -> Vec<u16> {
        let mut ports = Vec::new();
        while let Some(key) = schedule.pop_due(now) {
            let subject = schedule.get(key).unwrap();
            let Address::Tcp(addr) = subject.endpoint.address else { panic!() };
            ports.push(addr.port());
            let at = now + subject.watched.check.interval_ms;
            schedule.begin_at(key, at);
        }
        ports.sort_unstable();
        ports
    }

    #[test]
    fn each_endpoint_is_checked_once_per_interval() {
        let (mut schedule, mut at) = (Schedule::default(), 0u32);
        let mut random = || {
            at = at.wrapping_add(1 << 31);
            at
        };
        schedule.set(vec![watched(&upstream("a", &[1, 2, 3]), 100)], 0, &mut random);
        assert_eq!((due(&mut schedule, 0), due(&mut schedule, 14)), (vec![2], vec![]), "30 ms for three");
        assert_eq!(due(&mut schedule, 15), [1, 3]);
        assert_eq!((due(&mut schedule, 99), due(&mut schedule, 100)), (vec![], vec![2]));
        assert_eq!(due(&mut schedule, 115), [1, 3]);
        assert_eq!(schedule.next_at(), Some(200));
    }

    #[test]
    fn members_that_stay_keep_their_schedule_and_others_come_and_go() {
        let (mut schedule, mut none) = (Schedule::default(), || 0);
        let upstream = upstream("a", &[1, 2]);
        schedule.set(vec![watched(&upstream, 100)], 0, &mut none);
        assert_eq!(due(&mut schedule, 0), [1, 2]);
        let gone = Arc::clone(&upstream.endpoints()[0]);
        let failed = |n| gone.health.on_check(false, HealthCheck::THRESHOLDS, n);
        assert_eq!([1, 2, 3].map(failed), [None, None, Some(false)]);
        upstream.set_members(vec![member(2), member(3)], 0);
        schedule.refresh(50, &mut none);
        assert_eq!(gone.health.state(), State::Removed);
        assert_eq!(due(&mut schedule, 50), [3]);
        assert_eq!(due(&mut schedule, 100), [2]);
        assert_eq!(due(&mut schedule, 150), [3]);
        schedule.set(Vec::new(), 160, &mut none);
        assert!(schedule.is_empty());
        assert!(due(&mut schedule, 1_000).is_empty());
    }

    #[test]
    fn a_reload_keeps_the_schedule_unless_the_check_changes() {
        let (mut schedule, mut none) = (Schedule::default(), || 0);
        let (before, after) = (upstream("a", &[1]), upstream("a", &[1, 2]));
        schedule.set(vec![watched(&before, 100)], 0, &mut none);
        assert_eq!(due(&mut schedule, 0), [1]);
        after.inherit(&before, 0);
        schedule.set(vec![watched(&after, 100)], 30, &mut none);
        assert_eq!((due(&mut schedule, 30), due(&mut schedule, 99)), (vec![2], vec![]));
        assert_eq!(due(&mut schedule, 100), [1]);
        let running = schedule.pop_due(130).unwrap();
        schedule.set(vec![watched(&after, 500)], 140, &mut none);
        assert!(schedule.get(running).is_none(), "the result of the old check does not count");
        assert_eq!((due(&mut schedule, 140), due(&mut schedule, 639)), (vec![1, 2], vec![]));
        assert_eq!(due(&mut schedule, 640), [1, 2]);
    }
}
