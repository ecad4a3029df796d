//! Limits that count: permits are taken when something opens and given back when they are dropped,
//! also by a worker that unwinds. Shared by all workers, touched at open and close only.

use super::keyed::KeyPermit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// By default none can be taken.
#[derive(Debug, Default)]
pub struct Permits {
    taken: AtomicUsize,
    max: AtomicUsize,
    /// Given back with the last permit.
    _holds: Option<Box<(Option<Permit>, KeyPermit)>>,
}

/// One permit, of one limit or of two at once; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    of: Arc<Permits>,
    also: Option<Arc<Permits>>,
}

impl Permits {
    pub fn new(max: usize) -> Arc<Permits> {
        Arc::new(Permits { taken: AtomicUsize::new(0), max: AtomicUsize::new(max), _holds: None })
    }

    /// `None` when all are taken.
    pub fn take(self: &Arc<Permits>) -> Option<Permit> {
        self.count().then(|| Permit { of: Arc::clone(self), also: None })
    }

    fn count(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A reload may change it; permits that are held stay valid.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// The same, counted by another limit as well; `None` when all of that are taken.
    pub fn and(self, other: &Arc<Permits>) -> Option<Permit> {
        let mut permit = self;
        permit.also = Some(other.count().then(|| Arc::clone(other))?);
        Some(permit)
    }

    /// The same, counted by a limit for each client as well.
    pub fn with(mut self, client: KeyPermit) -> Permit {
        // A limit of its own, which holds the others: a permit, and with it every idle session,
        // gets no larger for it.
        let route = self.also.take().map(|of| Permit { of, also: None });
        let (taken, max) = (AtomicUsize::new(1), AtomicUsize::new(1));
        self.also = Some(Arc::new(Permits { taken, max, _holds: Some(Box::new((route, client))) }));
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for permits in [Some(&self.of), self.also.as_ref()].into_iter().flatten() {
            permits.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::keyed::{By, KeyLimit, Keyed};

    #[test]
    fn no_more_than_there_are_and_each_comes_back() {
        let permits = Permits::new(2);
        let (first, second) = (permits.take(), permits.take());
        assert!(first.is_some() && second.is_some() && permits.take().is_none());
        drop(first);
        assert_eq!(permits.taken(), 1);
        permits.set_max(1);
        assert!(permits.take().is_none());
        drop(second);
        assert!(permits.take().is_some());
        assert_eq!(permits.taken(), 0);
    }

    #[test]
    fn a_permit_holds_those_of_its_client() {
        let (process, route) = (Permits::new(5), Permits::new(5));
        let limit = KeyLimit { sessions: Some(1), handshakes: None, ipv6_prefix: 64, entries: 64, shared: false };
        let (one, two) = (Keyed::new(By::Address, limit), Keyed::new(By::Identity, limit));
        let client = |keyed: &Keyed| keyed.session(&"a", 0).unwrap().unwrap();
        let permit =
            process.take().and_then(|permit| permit.and(&route)).unwrap().with(client(&one)).with(client(&two));
        let state = || (process.taken(), route.taken(), one.session(&"a", 0).is_ok(), two.session(&"a", 0).is_ok());
        assert_eq!(state(), (1, 1, false, false));
        drop(permit);
        assert_eq!(state(), (0, 0, true, true));
    }

    #[test]
    fn two_limits_count_the_same_permit() {
        let (process, route) = (Permits::new(5), Permits::new(1));
        let taken = || (process.taken(), route.taken());
        let first = process.take().and_then(|permit| permit.and(&route));
        assert!(first.is_some() && taken() == (1, 1));
        assert!(process.take().and_then(|permit| permit.and(&route)).is_none());
        assert_eq!(taken(), (1, 1), "what the first limit gave is given back");
        drop(first);
        assert_eq!(taken(), (0, 0));
    }
}
