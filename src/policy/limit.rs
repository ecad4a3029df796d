//! Limits that count: permits are taken when something opens and given back when they are dropped,
//! also by a worker that unwinds. Shared by all workers, touched at open and close only.

use super::keyed::{Excess, HandshakeRate, Key, KeyPermit, Keyed};
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::rate::{Bucket, Measure, OnExcess, RateLimit};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// By default none can be taken.
#[derive(Debug, Default)]
pub struct Permits {
    taken: AtomicUsize,
    max: AtomicUsize,
    /// Those of connections that hold a place only until a session needs it; not in `taken`.
    idle: Option<Arc<Permits>>,
    /// Given back with the last permit.
    _holds: Option<Box<(Option<Permit>, Option<KeyPermit>)>>,
}

/// One permit, of one limit or of two at once; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    of: Arc<Permits>,
    also: Option<Arc<Permits>>,
}

impl Permits {
    pub fn new(max: usize) -> Arc<Permits> {
        let idle = Some(Arc::new(Permits { max: AtomicUsize::new(usize::MAX), ..Permits::default() }));
        Arc::new(Permits { max: AtomicUsize::new(max), idle, ..Permits::default() })
    }

    /// For a connection that is idle: it leaves when sessions need its place
    /// ([`Permits::is_exceeded`]). `None` when all are taken.
    pub fn take_idle(&self) -> Option<Permit> {
        self.idle_with_room()?.take()
    }

    /// Those of idle connections, while there is room for one.
    fn idle_with_room(&self) -> Option<&Arc<Permits>> {
        self.idle.as_ref().filter(|idle| self.taken().saturating_add(idle.taken()) < self.max())
    }

    /// Idle connections take places that sessions need.
    pub fn is_exceeded(&self) -> bool {
        let idle = self.idle.as_ref().map_or(0, |idle| idle.taken());
        idle > 0 && self.taken().saturating_add(idle) > self.max()
    }

    /// `None` when all are taken; idle connections do not count.
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
        let (mut permit, other) = (self, other.count().then(|| Arc::clone(other))?);
        match permit.also.take() {
            None => permit.also = Some(other),
            Some(of) => permit.hold(Some(Permit { of, also: Some(other) }), None),
        }
        Some(permit)
    }

    /// The same for an idle connection.
    pub fn and_idle(self, other: &Permits) -> Option<Permit> {
        self.and(other.idle_with_room()?)
    }

    /// The same, counted by a limit for each client as well.
    pub fn with(mut self, client: KeyPermit) -> Permit {
        let route = self.also.take().map(|of| Permit { of, also: None });
        self.hold(route, Some(client));
        self
    }

    /// A limit of its own, which holds the others: a permit, and with it every idle session, gets
    /// no larger for it.
    fn hold(&mut self, others: Option<Permit>, client: Option<KeyPermit>) {
        let (taken, max) = (AtomicUsize::new(1), AtomicUsize::new(1));
        self.also = Some(Arc::new(Permits { taken, max, idle: None, _holds: Some(Box::new((others, client))) }));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for permits in [Some(&self.of), self.also.as_ref()].into_iter().flatten() {
            permits.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A session that limits count.
#[derive(Debug)]
pub struct Counted {
    pub permit: Permit,
    /// Buckets that it has together with other sessions.
    pub shared: Vec<Arc<Bucket>>,
}

impl Counted {
    pub fn new(permit: Permit) -> Counted {
        Counted { permit, shared: Vec::new() }
    }

    /// One of the sessions that `limit` counts, which have `rates` together; else `full`.
    pub fn among(mut self, limit: &SessionLimit, rates: &[SharedRate], full: Excess) -> Result<Counted, Excess> {
        let permit = self.permit.and(&limit.permits()).ok_or(full)?;
        self.shared.extend(rates.iter().map(SharedRate::bucket));
        Ok(Counted { permit, ..self })
    }

    /// One of those of a client.
    pub fn by(mut self, limit: &Keyed, key: &impl Key, now: Millis) -> Result<Counted, Excess> {
        let counted = limit.session(key, now)?;
        self.shared.extend(limit.buckets(counted.as_ref(), now));
        let permit = match counted {
            Some(counted) => self.permit.with(counted),
            None => self.permit,
        };
        Ok(Counted { permit, ..self })
    }

    /// One of those with an API key.
    pub fn by_key(self, limits: &ClientLimits, now: Millis) -> Result<Counted, Excess> {
        if let Some(Err(retry_ms)) = limits.handshakes.as_ref().map(|rate| rate.pass(now)) {
            return Err(Excess { cause: Cause::KeyRate, retry_ms: Some(retry_ms) });
        }
        self.among(&limits.sessions, &limits.rates, Excess { cause: Cause::KeySessions, retry_ms: None })
    }
}

/// Counts the sessions of a route, or of something else that has a limit, over all workers and
/// reloads.
#[derive(Debug)]
pub struct SessionLimit {
    /// `None` for no limit.
    max: Option<usize>,
    permits: ArcSwap<Permits>,
}

impl SessionLimit {
    pub fn new(max: Option<usize>) -> SessionLimit {
        SessionLimit { max, permits: ArcSwap::new(Permits::new(max.unwrap_or(usize::MAX))) }
    }

    pub fn max(&self) -> Option<usize> {
        self.max
    }

    pub fn permits(&self) -> Arc<Permits> {
        self.permits.load_full()
    }

    /// Goes on counting where `before` is.
    pub fn inherit(&self, before: &SessionLimit) {
        let permits = before.permits();
        permits.set_max(self.max.unwrap_or(usize::MAX));
        self.permits.store(permits);
    }
}

/// The configured values are equal; counts do not matter.
impl PartialEq for SessionLimit {
    fn eq(&self, other: &SessionLimit) -> bool {
        self.max == other.max
    }
}

impl Eq for SessionLimit {}

/// A rate that several share, over all workers and reloads: a new one begins full.
#[derive(Debug)]
pub struct SharedRate {
    limit: RateLimit,
    bucket: ArcSwap<Bucket>,
}

impl SharedRate {
    pub fn new(limit: RateLimit) -> SharedRate {
        SharedRate { limit, bucket: ArcSwap::from_pointee(Bucket::new(limit, 0)) }
    }

    /// What exceeds it is refused.
    pub fn of_handshakes(HandshakeRate { rate, burst }: HandshakeRate) -> SharedRate {
        let (measure, on_excess) = (Measure::Messages, OnExcess::Close);
        SharedRate::new(RateLimit { measure, rate, burst, on_excess, close_code: 0 })
    }

    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    pub fn bucket(&self) -> Arc<Bucket> {
        self.bucket.load_full()
    }

    /// One more. The error is the time until it may try again.
    pub fn pass(&self, now: Millis) -> Result<(), Millis> {
        self.bucket.load().pass(now)
    }

    /// Goes on where `before` is, if it is the same rate.
    pub fn inherit(&self, before: &SharedRate) {
        if self == before {
            self.bucket.store(before.bucket());
        }
    }

    /// Each of these goes on where the same one of `before` is.
    pub fn inherit_all(own: &[SharedRate], before: &[SharedRate]) {
        for rate in own {
            before.iter().filter(|known| *known == rate).for_each(|known| rate.inherit(known));
        }
    }

    pub fn inherit_from(own: &Option<SharedRate>, before: &Option<SharedRate>) {
        if let (Some(own), Some(before)) = (own, before) {
            own.inherit(before);
        }
    }
}

/// The configured values are equal; what has been taken does not matter.
impl PartialEq for SharedRate {
    fn eq(&self, other: &SharedRate) -> bool {
        self.limit == other.limit
    }
}

impl Eq for SharedRate {}

/// What a client that the configuration knows may have: counted for it alone, in no table.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientLimits {
    pub sessions: SessionLimit,
    pub handshakes: Option<SharedRate>,
    /// Of all its sessions together.
    pub rates: Vec<SharedRate>,
}

impl ClientLimits {
    /// Goes on counting where `before` is.
    pub fn inherit(&self, before: &ClientLimits) {
        self.sessions.inherit(&before.sessions);
        SharedRate::inherit_from(&self.handshakes, &before.handshakes);
        SharedRate::inherit_all(&self.rates, &before.rates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::keyed::{By, KeyLimit, Keyed};
    use crate::proto::rate::Rate;

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
    fn idle_connections_have_the_places_that_sessions_leave() {
        let (process, listener) = (Permits::new(3), Permits::new(2));
        let stay = || process.take_idle().and_then(|permit| permit.and_idle(&listener));
        let session = process.take().and_then(|permit| permit.and(&listener)).unwrap();
        let idle = [stay(), stay()];
        assert_eq!(idle.each_ref().map(Option::is_some), [true, false], "the listener has two places");
        let other = process.take_idle().unwrap();
        assert!(process.take_idle().is_none() && !process.is_exceeded() && !listener.is_exceeded());
        // Sessions need not wait for them.
        let more = process.take().and_then(|permit| permit.and(&listener)).unwrap();
        assert_eq!([process.is_exceeded(), listener.is_exceeded()], [true, true]);
        assert!(process.take().is_some_and(|permit| permit.and(&listener).is_none()));
        drop(idle);
        assert_eq!([process.is_exceeded(), listener.is_exceeded()], [false, false]);
        drop((session, more));
        assert_eq!((process.taken(), listener.taken()), (0, 0));
        assert!(process.take_idle().is_some());
        drop(other);
        process.set_max(0);
        assert!(!process.is_exceeded() && process.take_idle().is_none());
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
    fn a_permit_is_counted_by_any_number_of_limits() {
        let limits: [_; 4] = std::array::from_fn(|n| Permits::new(if n == 3 { 1 } else { 5 }));
        let taken = || limits.each_ref().map(|permits| permits.taken());
        let all = || limits[1..].iter().try_fold(limits[0].take()?, |permit, other| permit.and(other));
        let held = all().unwrap();
        assert_eq!(taken(), [1; 4]);
        assert!(all().is_none());
        assert_eq!(taken(), [1; 4], "what the first three gave is given back");
        drop(held);
        assert_eq!(taken(), [0; 4]);
    }

    #[test]
    fn workers_together_pass_no_more_than_the_rate() {
        let rate = SharedRate::of_handshakes(HandshakeRate { rate: Rate { units: 10, period_ms: 1_000 }, burst: 50 });
        // The burst, then one in 100 ms of two virtual seconds.
        let passed: usize = std::thread::scope(|scope| {
            let worker = |_| scope.spawn(|| (0..=2_000).filter(|now| rate.pass(5_000 + now).is_ok()).count());
            let workers: Vec<_> = (0..8).map(worker).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!((50..=70).contains(&passed), "{passed}");
        assert_eq!((0..100).filter(|_| rate.pass(100_000).is_ok()).count(), 50);
        assert_eq!((rate.pass(100_000), rate.pass(100_099), rate.pass(100_100)), (Err(100), Err(1), Ok(())));
    }

    #[test]
    fn a_rate_goes_on_over_a_reload_unless_it_changes() {
        let new = |burst| SharedRate::of_handshakes(HandshakeRate { rate: Rate { units: 1, period_ms: 1_000 }, burst });
        let before = new(1);
        before.pass(7).unwrap();
        let (same, other) = (new(1), new(2));
        same.inherit(&before);
        other.inherit(&before);
        assert_eq!((same.pass(7), other.pass(7)), (Err(1_000), Ok(())));
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
