//! The endpoints that one session tries, and their addresses: chosen one at a time, each as the
//! endpoints are at that moment, until one answers or none is left.

use super::balance::Draw;
use super::endpoint::{Attempt, Bounds, Endpoint, Full, Limits, Pick, Shared, Target};
use super::key::Random;
use super::limit::Permit;
use super::pool::Pool;
use super::upstream::{State, Upstream};
use crate::proto::Millis;
use crate::proto::end::Cause;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[derive(Debug)]
pub struct Candidates {
    upstream: Arc<Upstream>,
    pool: Arc<Pool>,
    state: Arc<State>,
    /// The hash of the request's key.
    key: Option<u64>,
    random: Random,
    turn: u64,
    /// The position of the endpoint that the client's cookie names.
    sticky: Option<usize>,
    /// Positions of endpoints that are not to be tried again.
    tried: Vec<usize>,
    /// Those that had no room left when this choice was about to take it: other sessions were
    /// faster. Empty between two choices.
    passed: Vec<usize>,
    /// Those that were tried before the members were replaced.
    tried_before: Vec<Arc<Endpoint>>,
    current: Option<Current>,
    /// The endpoint tried last.
    last: Option<Arc<Endpoint>>,
    /// An endpoint has failed: the next one is a retry.
    failed: bool,
    /// The session waits for room.
    place: Option<Place>,
}

/// The endpoint under way.
#[derive(Debug)]
struct Current {
    attempt: Attempt,
    /// Its id for a cookie, unless the client has it already.
    id: Option<String>,
    /// The address under way.
    address: usize,
    /// It has been connected to.
    tried: bool,
    /// Source addresses that had no port left for it.
    sources: usize,
}

impl Current {
    fn is_down(&self) -> bool {
        self.attempt.endpoint().health.is_down()
    }
}

/// A place in the queue of the upstream.
#[derive(Debug)]
struct Place {
    _permit: Permit,
    until: Millis,
}

/// What a session does next to reach its upstream.
#[derive(Debug)]
pub enum Next {
    /// Connect there, from this address.
    Try { pick: Pick, target: Target, source: Option<IpAddr> },
    /// Wait for room: ask again in a moment, and give up at this time.
    Wait { until: Millis },
    /// There is nothing to try. The cause, unless it is that of the last attempt.
    Refuse(Option<Cause>),
}

/// What the choice of endpoints depends on beside the upstream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The hash of the request's key.
    pub key: Option<u64>,
    /// The value of the upstream's cookie.
    pub cookie: Option<&'a [u8]>,
    /// A random number.
    pub seed: u64,
}

impl Upstream {
    /// The endpoints for one more session.
    pub fn candidates(self: &Arc<Self>, ask: &Ask<'_>) -> Candidates {
        let (state, pool) = (self.state(), self.pool());
        state.shared.retries.earn(&self.rules.retries);
        let (key, seed) = (ask.key, ask.seed);
        Candidates {
            upstream: Arc::clone(self),
            sticky: ask.cookie.and_then(|cookie| pool.position(cookie)),
            pool,
            turn: state.shared.asked.fetch_add(1, Relaxed),
            state,
            key,
            random: Random::new(seed),
            tried: Vec::new(),
            passed: Vec::new(),
            tried_before: Vec::new(),
            current: None,
            last: None,
            failed: false,
            place: None,
        }
    }
}

impl Candidates {
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What the sessions of its upstream share: those that wait for the same room.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.state.shared
    }

    /// It waits for room no longer: its place is free for another session.
    pub fn stop_waiting(&mut self) {
        self.place = None;
    }

    /// The endpoint that was tried last.
    pub fn last(&self) -> Option<&Arc<Endpoint>> {
        self.last.as_ref()
    }

    /// Where to connect now. The same again until [`Candidates::advance`] is called.
    pub fn next(&mut self, now: Millis) -> Next {
        let untried = self.current.as_ref().filter(|current| !current.tried && current.address == 0);
        let (untried, is_down) = (untried.is_some(), untried.is_some_and(|current| current.is_down()));
        if let Some(next) = (!is_down).then(|| self.next_address()).flatten() {
            return next;
        }
        if untried {
            // While there was no socket for the attempt, it has gone down, or another session has
            // taken its room: it was not tried, and may be another time.
            self.current = None;
            self.tried.pop();
        } else {
            self.fail(now);
        }
        self.follow_members();
        let rules = &self.upstream.rules;
        let shared = &self.state.shared;
        // Those that wait already go first.
        let others_wait = self.place.is_none() && !self.failed && shared.waiting() > 0;
        if others_wait || !rules.limits.allow(shared.sessions(), shared.pending()) {
            return self.wait(now);
        }
        let next = self.next_endpoint(now, rules.bounds());
        self.passed.clear();
        match next {
            Some(next) => next,
            None if self.has_usable(now, Limits::default()) => self.wait(now),
            None => Next::Refuse(if self.failed { None } else { Some(Cause::NoEndpoint) }),
        }
    }

    /// Takes room at one endpoint after the other until one has it. `None`: none has.
    fn next_endpoint(&mut self, now: Millis, bounds: Bounds) -> Option<Next> {
        while let Some(index) = self.choose(now, bounds.endpoint) {
            let endpoint = self.pool.members().get(index).map(|member| &member.endpoint);
            // A name may have no address yet.
            let Some(endpoint) = endpoint.filter(|endpoint| endpoint.target(0).is_some()) else {
                self.tried.push(index);
                continue;
            };
            let shared = &self.state.shared;
            let begun = Attempt::begin(endpoint, shared, bounds);
            let taken = begun.and_then(|attempt| Ok((Pick::take(endpoint, shared, bounds)?, attempt)));
            let (pick, attempt) = match taken {
                Ok(taken) => taken,
                Err(Full::Endpoint) => {
                    self.passed.push(index);
                    continue;
                }
                Err(Full::Upstream) => return Some(self.wait(now)),
            };
            if self.failed && !shared.retries.spend(&self.upstream.rules.retries) {
                return Some(Next::Refuse(None));
            }
            self.tried.push(index);
            self.place = None;
            self.last = Some(Arc::clone(attempt.endpoint()));
            let id = self.pool.id(index).filter(|_| self.sticky != Some(index)).map(str::to_owned);
            let target = attempt.endpoint().target(0);
            self.current = Some(Current { attempt, id, address: 0, tried: false, sources: 0 });
            return Some(target.map_or(Next::Refuse(None), |target| self.to_try(pick, target)));
        }
        None
    }

    /// The members may have been replaced since the last choice.
    fn follow_members(&mut self) {
        let pool = self.upstream.pool();
        if Arc::ptr_eq(&pool, &self.pool) {
            return;
        }
        let before = self.pool.members();
        let endpoint = |index: usize| before.get(index).map(|member| &member.endpoint);
        self.tried_before.extend(self.tried.iter().filter_map(|index| endpoint(*index)).cloned());
        let position = |at: &Arc<Endpoint>| pool.members().iter().position(|member| member.endpoint == *at);
        self.sticky = self.sticky.and_then(endpoint).and_then(position);
        let members = pool.members().iter().enumerate();
        let tried = members.filter(|(_, member)| self.tried_before.contains(&member.endpoint));
        self.tried = tried.map(|(index, _)| index).collect();
        self.pool = pool;
    }

    /// The address that [`Candidates::next`] gave is being connected to.
    pub fn advance(&mut self) {
        if let Some(current) = &mut self.current {
            current.tried = true;
        }
    }

    /// The connection that was used was an old one: the same address is tried again.
    pub fn again(&mut self) {
        if let Some(current) = &mut self.current {
            current.tried = false;
        }
    }

    /// The source address had no port left for the target: whether there is another one to try.
    pub fn next_source(&mut self) -> bool {
        let sources = self.upstream.rules.bind.len();
        self.current.as_mut().is_some_and(|current| {
            current.sources += 1;
            current.sources < sources
        })
    }

    /// The endpoint has answered with its 101, or with a response that says that it works.
    pub fn succeed(&mut self, now: Millis) {
        if let Some(current) = self.current.take() {
            current.attempt.succeeded(now);
        }
    }

    /// The endpoint under way failed, if there is one.
    pub fn fail(&mut self, now: Millis) {
        if let Some(current) = self.current.take() {
            self.failed = true;
            current.attempt.failed(now);
        }
    }

    /// Another endpoint can be tried, and the budget allows a retry, as far as can be told now.
    pub fn has_more(&mut self, now: Millis) -> bool {
        // Members may have come since the choice of the endpoint under way.
        self.follow_members();
        let rules = &self.upstream.rules;
        self.state.shared.retries.has_one(&rules.retries) && self.has_usable(now, rules.endpoint_limits)
    }

    fn has_usable(&self, now: Millis, limits: Limits) -> bool {
        (0..self.pool.members().len()).any(|index| self.is_usable(index, now, limits))
    }

    /// The value of Set-Cookie for the endpoint under way; `None` if the client has it already, or
    /// the upstream sets none. `secure`: the client came over TLS.
    pub fn set_cookie(&self, secure: bool) -> Option<String> {
        let sticky = self.upstream.rules.sticky.as_ref()?;
        Some(sticky.set_cookie(self.current.as_ref()?.id.as_deref()?, secure))
    }

    /// The address under way, or the next one of the same endpoint. `None`: there is none, or the
    /// endpoint has no room any more.
    fn next_address(&mut self) -> Option<Next> {
        let current = self.current.as_mut()?;
        if current.tried {
            (current.address, current.tried, current.sources) = (current.address + 1, false, 0);
        }
        let target = current.attempt.endpoint().target(current.address)?;
        let bounds = self.upstream.rules.bounds();
        let pick = Pick::take(current.attempt.endpoint(), &self.state.shared, bounds).ok()?;
        Some(self.to_try(pick, target))
    }

    fn to_try(&self, pick: Pick, target: Target) -> Next {
        let sources = self.turn as usize + self.current.as_ref().map_or(0, |current| current.sources);
        Next::Try { pick, source: self.source_for(&target, sources), target }
    }

    /// The source address for a connection, each in turn.
    fn source_for(&self, target: &Target, turn: usize) -> Option<IpAddr> {
        let Target::Tcp(target) = target else { return None };
        let bind = &self.upstream.rules.bind;
        let fits = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
        let start = turn.checked_rem(bind.len())?;
        let (before, from) = bind.split_at_checked(start)?;
        from.iter().chain(before).find(fits).copied()
    }

    /// The position of the endpoint that gets this session, among those that may have more.
    fn choose(&mut self, now: Millis, limits: Limits) -> Option<usize> {
        if let Some(sticky) = self.sticky.filter(|sticky| self.is_usable(*sticky, now, limits)) {
            return Some(sticky);
        }
        let (rules, shared) = (&self.upstream.rules, &self.state.shared);
        let mut draw = Draw {
            turns: &shared.turns,
            turn: self.turn,
            random: self.random,
            key: self.key,
            now,
            slow_start_ms: rules.slow_start_ms,
            load_percent: rules.hash_load_percent.into(),
            sessions: shared.sessions() as u64,
        };
        let chosen = self.pool.choose(rules.balance, &mut draw, |index| self.is_usable(index, now, limits));
        self.random = draw.random;
        chosen
    }

    fn is_usable(&self, index: usize, now: Millis, limits: Limits) -> bool {
        let endpoint = self.pool.members().get(index).map(|member| &member.endpoint);
        endpoint.is_some_and(|endpoint| endpoint.health.is_available(now) && endpoint.has_room(limits))
            && !self.tried.contains(&index)
            && !self.passed.contains(&index)
    }

    /// Takes a place in the queue, or keeps the one that it has.
    fn wait(&mut self, now: Millis) -> Next {
        if let Some(place) = &self.place {
            return Next::Wait { until: place.until };
        }
        let Some(permit) = self.state.shared.queue.take() else { return Next::Refuse(Some(Cause::UpstreamFull)) };
        let until = now + self.upstream.rules.queue.timeout_ms;
        self.place = Some(Place { _permit: permit, until });
        Next::Wait { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::endpoint::{Address, Endpoint};
    use crate::policy::upstream::{Options, Rules};
    use std::net::SocketAddr;

    fn with(endpoints: u16, rules: Rules) -> Arc<Upstream> {
        let member = |n| {
            let addr = SocketAddr::from(([10, 0, 0, 1], n + 1));
            Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new()).into()
        };
        let options = Options { rules, ..Options::default() };
        Arc::new(Upstream::new("app".into(), (0..endpoints).map(member).collect(), options))
    }

    fn upstream(endpoints: u16) -> Arc<Upstream> {
        with(endpoints, Rules::default())
    }

    fn next_port(candidates: &mut Candidates) -> Option<u16> {
        match candidates.next(0) {
            Next::Try { target: Target::Tcp(addr), .. } => Some(addr.port()),
            _ => None,
        }
    }

    fn order(candidates: &mut Candidates) -> Vec<u16> {
        let next = || {
            let port = next_port(candidates)?;
            candidates.advance();
            Some(port)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn every_endpoint_is_tried_once() {
        for endpoints in 0..5 {
            let rules = Rules { ejection: None, ..Rules::default() };
            let upstream = with(endpoints, rules);
            for turn in 0..9 {
                let mut tried = order(&mut upstream.candidates(&Ask::default()));
                tried.sort_unstable();
                assert_eq!(tried, (1..=endpoints).collect::<Vec<_>>(), "turn {turn}");
            }
        }
    }

    #[test]
    fn all_addresses_of_a_name_are_tried_before_the_next_endpoint() {
        let name = Endpoint::new("ws://app:80".into(), Address::Name("app:80".into()), false, String::new());
        let next =
            Endpoint::new("ws://10.0.0.9:9".into(), Address::Tcp(([10, 0, 0, 9], 9).into()), false, String::new());
        let upstream = Arc::new(Upstream::new("app".into(), vec![name.into(), next.into()], Options::default()));
        assert_eq!(order(&mut upstream.candidates(&Ask::default())), [9], "not resolved yet");
        let addresses = [81, 82].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        assert!(upstream.endpoints()[0].set_resolved(addresses.to_vec()));
        assert!(!upstream.endpoints()[0].set_resolved(addresses.to_vec()));
        order(&mut upstream.candidates(&Ask::default()));
        assert_eq!(order(&mut upstream.candidates(&Ask::default())), [81, 82, 9]);
    }

    #[test]
    fn a_pick_counts_while_it_is_held_also_over_a_reload() {
        let (before, after) = (upstream(2), upstream(3));
        let mut candidates = before.candidates(&Ask::default());
        let Next::Try { pick, .. } = candidates.next(0) else { panic!() };
        assert_eq!((pick.endpoint().sessions(), before.sessions()), (1, (1, 1)));
        after.inherit(&before, 0);
        let sessions = |upstream: &Upstream| upstream.endpoints().iter().map(|e| e.sessions()).collect::<Vec<_>>();
        assert_eq!(sessions(&after), [1, 0, 0], "the endpoint is the same object");
        candidates.succeed(0);
        assert_eq!(after.sessions(), (1, 0));
        drop((pick, candidates));
        assert_eq!((sessions(&after), after.sessions()), (vec![0, 0, 0], (0, 0)));
    }

    #[test]
    fn sessions_beyond_the_limits_wait_in_the_queue() {
        let limits = Limits { sessions: Some(1), pending: None };
        let queue = crate::policy::upstream::Queue { max: 1, timeout_ms: 50 };
        let rules = Rules { endpoint_limits: limits, queue, ..Rules::default() };
        let upstream = with(1, rules);
        let (mut first, mut second, mut third) = (
            upstream.candidates(&Ask::default()),
            upstream.candidates(&Ask::default()),
            upstream.candidates(&Ask::default()),
        );
        let Next::Try { pick, .. } = first.next(5) else { panic!() };
        assert!(matches!(second.next(5), Next::Wait { until: 55 }));
        assert!(matches!(second.next(9), Next::Wait { until: 55 }), "its place is kept");
        assert!(matches!(third.next(9), Next::Refuse(Some(Cause::UpstreamFull))));
        drop((pick, first));
        assert!(matches!(third.next(9), Next::Refuse(Some(Cause::UpstreamFull))), "who waits goes first");
        assert!(matches!(second.next(10), Next::Try { .. }));
        assert_eq!(upstream.queued(), 0);
    }

    #[test]
    fn retries_end_with_their_budget() {
        let rules = Rules { retries: crate::policy::retry::RetryLimits { percent: 0, reserve: 1 }, ..Rules::default() };
        let upstream = with(3, rules);
        assert_eq!(order(&mut upstream.candidates(&Ask::default())).len(), 2);
        assert_eq!(order(&mut upstream.candidates(&Ask::default())).len(), 1);
    }

    #[test]
    fn members_that_come_during_a_handshake_count_for_its_retry() {
        let upstream = upstream(1);
        let mut candidates = upstream.candidates(&Ask::default());
        assert_eq!(next_port(&mut candidates), Some(1));
        candidates.advance();
        assert!(!candidates.has_more(0));
        let addr = SocketAddr::from(([10, 0, 0, 1], 9));
        let next = Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new());
        upstream.set_members(vec![next.into()], 0);
        assert!(candidates.has_more(0));
        candidates.fail(0);
        assert_eq!(next_port(&mut candidates), Some(9));
    }

    #[test]
    fn failures_eject_but_never_more_than_the_allowed_share() {
        let upstream = upstream(3);
        for _ in 0..10 {
            let mut candidates = upstream.candidates(&Ask::default());
            order(&mut candidates);
        }
        let ejected = upstream.endpoints().iter().filter(|endpoint| endpoint.health.is_ejected()).count();
        assert_eq!(ejected, 1, "half of three");
        let alone = self::upstream(1);
        (0..10).for_each(|_| drop(order(&mut alone.candidates(&Ask::default()))));
        assert!(!alone.endpoints()[0].health.is_ejected());
    }

    #[test]
    fn sources_are_used_in_turn() {
        let bind: Vec<IpAddr> = ["127.0.0.2", "::2", "127.0.0.3"].iter().map(|ip| ip.parse().unwrap()).collect();
        let rules = Rules { bind: bind.clone(), ..Rules::default() };
        let upstream = with(1, rules);
        let sources: Vec<_> = (0..4)
            .map(|_| match upstream.candidates(&Ask::default()).next(0) {
                Next::Try { source, .. } => source.unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sources, [bind[0], bind[2], bind[2], bind[0]]);
    }
}
