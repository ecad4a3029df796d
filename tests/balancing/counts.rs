//! Whatever happens to sessions and endpoints, in whatever order: the counts are those of the
//! sessions that live, and zero when none does.

use super::rig::*;
use framegate::policy::balance::Balance;
use framegate::policy::candidates::{Ask, Candidates, Next};
use framegate::policy::endpoint::{Limits, Member, Pick};
use framegate::policy::health::{Ejection, Order, Thresholds};
use framegate::policy::retry::RetryLimits;
use framegate::policy::upstream::{Queue, Rules, Upstream};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// Endpoints there may be.
const ENDPOINTS: usize = 7;

#[derive(Debug, Clone)]
enum Step {
    Open {
        seed: u64,
    },
    /// The attempt under way fails to connect: the next address.
    ConnectFails(Index),
    /// The response is no good: the next endpoint.
    ResponseFails(Index),
    /// It asks again, as one that waits for room does.
    AskAgain(Index),
    Succeed(Index),
    End(Index),
    EndEarly(Index),
    /// Its worker panics.
    Panic(Index),
    Members(u8),
    Reload(u8, RulesOf),
    Order(Index, Order),
    Check(Index, bool),
    Later(u64),
}

/// What a reload may change.
#[derive(Debug, Clone, Copy)]
struct RulesOf {
    balance: Balance,
    limit: Option<usize>,
    pending: Option<usize>,
    queue: usize,
    max_percent: u32,
    ejects: bool,
}

impl RulesOf {
    fn rules(self) -> Rules {
        let ejection = Ejection {
            failures: 2,
            time_ms: 50,
            max_time_ms: 400,
            max_percent: self.max_percent,
            ..Ejection::default()
        };
        Rules {
            balance: self.balance,
            limits: Limits { sessions: self.limit.map(|limit| limit * 3), pending: self.pending },
            endpoint_limits: Limits { sessions: self.limit, pending: self.pending },
            queue: Queue { max: self.queue, timeout_ms: 100 },
            ejection: self.ejects.then(|| Arc::new(ejection)),
            retries: RETRIES,
            ..Rules::default()
        }
    }
}

const RETRIES: RetryLimits = RetryLimits { percent: 30, reserve: 4 };

fn rules() -> impl Strategy<Value = RulesOf> {
    let limit = prop::option::of(1..4usize);
    let pending = prop::option::of(1..6usize);
    (prop::sample::select(Balance::ALL.to_vec()), limit, pending, 0..4usize, 0..=100u32, any::<bool>()).prop_map(
        |(balance, limit, pending, queue, max_percent, ejects)| RulesOf {
            balance,
            limit,
            pending,
            queue,
            max_percent,
            ejects,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let order = prop::sample::select(vec![Order::Drain, Order::Down, Order::Ready, Order::Ready]);
    prop_oneof![
        8 => any::<u64>().prop_map(|seed| Step::Open { seed }),
        3 => index().prop_map(Step::ConnectFails),
        4 => index().prop_map(Step::ResponseFails),
        2 => index().prop_map(Step::AskAgain),
        4 => index().prop_map(Step::Succeed),
        3 => index().prop_map(Step::End),
        1 => index().prop_map(Step::EndEarly),
        1 => index().prop_map(Step::Panic),
        1 => any::<u8>().prop_map(Step::Members),
        1 => (any::<u8>(), rules()).prop_map(|(members, rules)| Step::Reload(members, rules)),
        1 => (index(), order).prop_map(|(which, order)| Step::Order(which, order)),
        1 => (index(), any::<bool>()).prop_map(|(which, passed)| Step::Check(which, passed)),
        2 => (0..120u64).prop_map(Step::Later),
    ]
}

/// Members by the bits of a byte. Some have another weight and priority.
fn chosen(bits: u8) -> Vec<Member> {
    let numbers = (0..ENDPOINTS).filter(|number| bits & (1 << number) != 0);
    numbers.map(|number| member(number, 1 + (number as u16 % 3), (number / 4) as u8)).collect()
}

/// What a worker holds of a session.
struct Session {
    /// Until it is established.
    candidates: Option<Candidates>,
    pick: Option<Pick>,
    waits: bool,
    /// An endpoint has failed it.
    failed: bool,
}

struct World {
    upstream: Arc<Upstream>,
    max_percent: u32,
    sessions: Vec<Session>,
    now: u64,
    handshakes: u64,
    retries: u64,
}

impl World {
    fn new(rules: RulesOf) -> World {
        let upstream = upstream(chosen(0b0111_1111), rules.rules());
        let max_percent = if rules.ejects { rules.max_percent } else { 0 };
        World { upstream, max_percent, sessions: Vec::new(), now: 1, handshakes: 0, retries: 0 }
    }

    /// Asks for the next address as a worker does: what it had does not count against the limits.
    fn connect(&mut self, mut session: Session) {
        session.pick = None;
        let Some(candidates) = &mut session.candidates else { return self.sessions.push(session) };
        let before = candidates.last().map(Arc::clone);
        match candidates.next(self.now) {
            Next::Try { pick, .. } => {
                candidates.advance();
                let retries = before.is_some_and(|before| !Arc::ptr_eq(&before, pick.endpoint()));
                self.retries += u64::from(retries);
                (session.pick, session.waits) = (Some(pick), false);
                self.sessions.push(session);
            }
            Next::Wait { until } => {
                // It keeps its place, and the time that it was given.
                assert!(until <= self.now + 100 && (session.waits || until == self.now + 100));
                session.waits = true;
                self.sessions.push(session);
            }
            // It ends.
            Next::Refuse(_) => {}
        }
    }

    fn take(&mut self, which: &Index, fits: impl Fn(&Session) -> bool) -> Option<Session> {
        let fitting: Vec<_> = (0..self.sessions.len()).filter(|at| fits(&self.sessions[*at])).collect();
        (!fitting.is_empty()).then(|| self.sessions.swap_remove(*which.get(&fitting)))
    }

    fn step(&mut self, step: &Step) {
        let tries = |session: &Session| session.candidates.is_some() && session.pick.is_some();
        let is_open = |session: &Session| session.candidates.is_none();
        match step {
            Step::Open { seed } => {
                self.handshakes += 1;
                let candidates = self.upstream.candidates(&Ask { key: Some(*seed), cookie: None, seed: *seed });
                self.connect(Session { candidates: Some(candidates), pick: None, waits: false, failed: false });
            }
            Step::ConnectFails(which) => {
                let session = self.take(which, tries);
                session.into_iter().for_each(|session| self.connect(session));
            }
            Step::ResponseFails(which) => {
                if let Some(mut session) = self.take(which, tries) {
                    session.candidates.as_mut().unwrap().fail(self.now);
                    session.failed = true;
                    self.connect(session);
                }
            }
            Step::AskAgain(which) => {
                let session = self.take(which, |session| session.waits);
                session.into_iter().for_each(|session| self.connect(session));
            }
            Step::Succeed(which) => {
                if let Some(mut session) = self.take(which, tries) {
                    session.candidates.take().unwrap().succeed(self.now);
                    self.sessions.push(session);
                }
            }
            Step::End(which) => drop(self.take(which, |_| true)),
            Step::EndEarly(which) => {
                if let Some(session) = self.take(which, is_open) {
                    session.pick.as_ref().unwrap().endpoint().on_early_end(10, self.now);
                }
            }
            Step::Panic(which) => {
                let session = self.take(which, |_| true);
                let worker = AssertUnwindSafe(move || {
                    let _held = session;
                    resume_unwind(Box::new("a panic"))
                });
                assert!(catch_unwind::<_, ()>(worker).is_err());
            }
            Step::Members(bits) => self.upstream.set_members(chosen(*bits), self.now),
            Step::Reload(bits, rules) => {
                let after = upstream(chosen(*bits), rules.rules());
                after.inherit(&self.upstream, self.now);
                (self.upstream, self.max_percent) = (after, if rules.ejects { rules.max_percent } else { 0 });
            }
            Step::Order(which, order) => {
                let endpoints = self.upstream.endpoints();
                if !endpoints.is_empty() {
                    which.get(&endpoints).obey(*order, self.now);
                }
            }
            Step::Check(which, passed) => {
                let endpoints = self.upstream.endpoints();
                if !endpoints.is_empty() {
                    let thresholds = Thresholds { rise: 1, fall: 2 };
                    which.get(&endpoints).health.on_check(*passed, thresholds, self.now);
                }
            }
            Step::Later(ms) => self.now += ms,
        }
    }

    fn ejected(&self) -> usize {
        self.upstream.endpoints().iter().filter(|endpoint| endpoint.health.is_ejected()).count()
    }

    fn check(&self) {
        let held: Vec<_> = self.sessions.iter().filter_map(|session| session.pick.as_ref()).collect();
        let tries = self.sessions.iter().filter(|session| session.candidates.is_some() && session.pick.is_some());
        assert_eq!(self.upstream.sessions(), (held.len(), tries.clone().count()), "sessions and pending");
        assert_eq!(self.upstream.queued(), self.sessions.iter().filter(|session| session.waits).count(), "queued");
        for endpoint in self.upstream.endpoints() {
            let is_here = |pick: &&Pick| Arc::ptr_eq(pick.endpoint(), &endpoint);
            assert_eq!(endpoint.sessions(), held.iter().filter(|pick| is_here(pick)).count());
            let pending = tries.clone().filter_map(|session| session.pick.as_ref()).filter(is_here).count();
            assert_eq!(endpoint.pending(), pending);
        }
        let earned = self.handshakes * RETRIES.percent / 100 + RETRIES.reserve;
        assert!(self.retries <= earned, "{} retries of {} handshakes", self.retries, self.handshakes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_those_of_the_sessions_that_live(first in rules(), steps in vec(step(), 1..150)) {
        let mut world = World::new(first);
        for step in &steps {
            let before = world.ejected();
            world.step(step);
            world.check();
            // Members that go may leave a larger share; no failure makes one.
            if !matches!(step, Step::Members(_) | Step::Reload(..)) && world.ejected() > before {
                let all = world.upstream.endpoints().len();
                let (ejected, most) = (world.ejected() * 100, all * world.max_percent as usize);
                prop_assert!(ejected <= most, "{} of {all} with {}", world.ejected(), world.max_percent);
            }
        }
        let endpoints: Vec<_> = world.sessions.iter().filter_map(|session| session.pick.as_ref()).collect();
        let endpoints: Vec<_> = endpoints.iter().map(|pick| Arc::clone(pick.endpoint())).collect();
        world.sessions.clear();
        world.check();
        prop_assert_eq!((world.upstream.sessions(), world.upstream.queued()), ((0, 0), 0));
        // Also of those that are gone.
        let left = endpoints.iter().filter(|endpoint| endpoint.sessions() + endpoint.pending() > 0);
        prop_assert_eq!(left.count(), 0);
    }
}
