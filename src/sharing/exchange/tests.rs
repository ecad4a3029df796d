use super::*;
use crate::config;
use crate::policy::keyed::{By, HandshakeRate, KeyLimit, KeyPermit, Keyed, Notify};
use crate::proto::rate::Rate;
use proptest::prelude::*;
use std::sync::{Mutex, MutexGuard};

const INTERVAL_MS: u64 = 100;
const HOST_TIMEOUT_MS: u64 = 10_000;

/// Redis as it should be, and as it should not.
#[derive(Default)]
struct World {
    sessions: HashMap<KeyId, HashMap<String, u64>>,
    full_us: HashMap<KeyId, u64>,
    now_us: u64,
    mode: Mode,
    /// Clients of each exchange.
    exchanges: Vec<usize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    #[default]
    Right,
    Away,
    PartAway(u8),
    Garbage,
    TooLong,
    Short,
    Panic,
}

struct Model(Shared);

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl Store for Model {
    fn exchange(&mut self, host: &str, batch: &[(KeyId, Usage)]) -> Result<Vec<Result<Answer, String>>, String> {
        let mut world = self.0.get();
        world.exchanges.push(batch.len());
        match world.mode {
            Mode::PartAway(group) if batch.first().is_some_and(|(id, _)| id[0] % 4 == group) => {
                return Err("a part is away".to_owned());
            }
            Mode::Away => return Err("away\n\u{1b}[0m".to_owned()),
            Mode::Garbage => return Ok(batch.iter().map(|_| Err("garbage".to_owned())).collect()),
            Mode::TooLong => return Ok(vec![Ok(Answer { others: 0, full_in_us: u64::MAX }); batch.len()]),
            Mode::Short => return Ok(Vec::new()),
            Mode::Panic => {
                drop(world);
                panic!("on purpose");
            }
            Mode::Right | Mode::PartAway(_) => {}
        }
        Ok(batch.iter().map(|(id, usage)| Ok(world.exchange(host, *id, *usage))).collect())
    }

    fn group(&self, id: &KeyId) -> u8 {
        id[0] % 4
    }
}

impl World {
    fn exchange(&mut self, host: &str, id: KeyId, usage: Usage) -> Answer {
        let hosts = self.sessions.entry(id).or_default();
        hosts.insert(host.to_owned(), usage.sessions);
        let others = hosts.iter().filter(|(name, _)| *name != host).map(|(_, sessions)| sessions).sum();
        let full_us = self.full_us.entry(id).or_default();
        *full_us = (*full_us).max(self.now_us) + usage.owed_us;
        Answer { others, full_in_us: *full_us - self.now_us }
    }
}

/// A host with one limit.
struct Host {
    keyed: Keyed,
    exchanger: Exchanger,
    taken: Arc<Mutex<Vec<SharedKey>>>,
    start: Instant,
    now_ms: Millis,
}

fn redis() -> Redis {
    config::Redis {
        servers: Vec::new(),
        cluster: false,
        username: None,
        password: None,
        ca: None,
        namespace: "n".to_owned(),
        interval_ms: INTERVAL_MS,
        timeout_ms: 100,
        host_timeout_ms: HOST_TIMEOUT_MS,
    }
}

impl Host {
    fn new(name: &str, limit: KeyLimit, world: &Shared, status: &Arc<Status>) -> Host {
        let (keyed, taken) = (Keyed::new(By::Identity, limit), Arc::<Mutex<Vec<SharedKey>>>::default());
        let into = Arc::clone(&taken);
        let hand_over = move |key| {
            into.lock().unwrap().push(key);
            true
        };
        let notify = Notify { hand_over: Arc::new(hand_over), believed_ms: HOST_TIMEOUT_MS };
        keyed.share("r", Some(&notify));
        let mut exchanger = Exchanger::new(name.to_owned(), Arc::clone(status), Box::new(|| 999));
        let start = Instant::now();
        exchanger.configure(Some(&redis()), Some(Box::new(Model(world.clone()))), start);
        Host { keyed, exchanger, taken, start, now_ms: 1_000 }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    /// What the thread does at its time, after this long.
    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let now = self.now();
        self.taken.lock().unwrap().drain(..).for_each(|key| self.exchanger.add(key, now));
        self.exchanger.on_tick(now, self.now_ms);
    }

    fn open(&self, client: &str) -> Option<KeyPermit> {
        self.keyed.session(&client, self.now_ms).ok().map(Option::unwrap)
    }
}

fn sessions(max: u64) -> KeyLimit {
    KeyLimit { sessions: Some(max), handshakes: None, ipv6_prefix: 64, entries: 1_024, shared: true }
}

#[test]
fn hosts_hear_of_each_other() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let mut hosts = ["a", "b"].map(|name| Host::new(name, sessions(3), &world, &status));
    let mut held: Vec<_> = (0..2).map(|_| hosts[0].open("x").unwrap()).collect();
    let other = hosts[1].open("x").unwrap();
    hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS));
    assert!(hosts[1].open("x").is_none(), "two and one");
    hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS));
    assert!(hosts[0].open("x").is_none() && status.is_up(0, u64::MAX));
    held.pop();
    hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS));
    // At rest on the other host it takes longer, but not for ever.
    (0..10).for_each(|_| hosts[1].pass(INTERVAL_MS));
    let again = hosts[1].open("x");
    assert!(again.is_some());
    drop((held, other, again));
}

#[test]
fn clients_at_rest_are_exchanged_seldom_and_those_with_nothing_leave() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let mut host = Host::new("a", sessions(3), &world, &status);
    let held = host.open("x");
    let exchanged = |world: &Shared| world.get().exchanges.iter().sum::<usize>();
    (0..100).for_each(|_| host.pass(INTERVAL_MS));
    let after_10_s = exchanged(&world);
    assert!((10..=15).contains(&after_10_s), "{after_10_s}");
    let more = host.open("x");
    host.pass(INTERVAL_MS);
    assert_eq!(exchanged(&world), after_10_s + 1, "a change goes at once");
    drop((held, more));
    assert_eq!(status.keys(), 1);
    host.pass(INTERVAL_MS);
    assert_eq!((status.keys(), world.get().sessions.values().next().unwrap()["a"]), (0, 0));
    // Then it only looks whether Redis is there.
    let calls = world.get().exchanges.len();
    (0..100).for_each(|_| host.pass(INTERVAL_MS));
    assert!((5..=15).contains(&(world.get().exchanges.len() - calls)));
}

#[test]
fn what_others_had_is_believed_for_a_while_and_then_not() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let mut hosts = ["a", "b"].map(|name| Host::new(name, sessions(3), &world, &status));
    let held: Vec<_> = (0..2).map(|_| hosts[0].open("x").unwrap()).collect();
    let mine = hosts[1].open("x").unwrap();
    hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS));
    for mode in [Mode::Away, Mode::Short, Mode::Panic] {
        world.get().mode = mode;
        let host = &mut hosts[1];
        let failed = status.results()[1];
        // The client is at rest: it is exchanged within a second, and then at growing pauses.
        (0..60).for_each(|_| host.pass(INTERVAL_MS));
        assert!(!status.is_up(0, u64::MAX) && status.results()[1] > failed, "{mode:?}");
        assert!(host.open("x").is_none(), "{mode:?}: believed");
        (0..60).for_each(|_| host.pass(INTERVAL_MS));
        (0..10).for_each(|_| host.pass(1_000));
        let alone = [host.open("x"), host.open("x"), host.open("x")];
        assert_eq!(alone.iter().flatten().count(), 2, "{mode:?}: three alone");
        drop(alone);
        let attempts = status.results()[1] - failed;
        assert!((4..12).contains(&attempts), "{attempts} in 22 s, each later than the one before");
        world.get().mode = Mode::Right;
        (0..6).for_each(|_| host.pass(1_000));
        assert!(status.is_up(0, u64::MAX) && host.open("x").is_none(), "{mode:?}: back");
    }
    drop((held, mine));
}

#[test]
fn what_could_not_be_told_is_told_later() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let rate = HandshakeRate { rate: Rate { units: 1, period_ms: 60_000 }, burst: 9 };
    let mut host = Host::new("a", KeyLimit { handshakes: Some(rate), ..sessions(3) }, &world, &status);
    let held = host.open("at rest");
    (0..30).for_each(|_| host.pass(INTERVAL_MS));
    // Its turn is far away, so that it does not fail with the other.
    let exchanged = |world: &Shared| world.get().exchanges.iter().sum::<usize>();
    let before = exchanged(&world);
    for _ in 0..20 {
        if exchanged(&world) == before {
            host.pass(INTERVAL_MS);
        }
    }
    assert_eq!((exchanged(&world), world.get().sessions.len()), (before + 1, 1));
    world.get().mode = Mode::Away;
    (0..3).for_each(|_| host.keyed.handshake(&"x", host.now_ms).unwrap());
    host.pass(INTERVAL_MS);
    // It comes back empty.
    *world.get() = World::default();
    host.pass(INTERVAL_MS);
    assert!(status.is_up(0, u64::MAX));
    let told: u64 = world.get().full_us.values().sum();
    assert_eq!(told, 3 * 60_000_000, "what has passed meanwhile");
    let sessions: u64 = world.get().sessions.values().map(|hosts| hosts["a"]).sum();
    assert_eq!(sessions, 1, "also of clients at rest, at once");
    drop(held);
}

#[test]
fn a_client_whose_place_has_gone_is_let_go() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    // One set of eight places.
    let mut hosts = ["a", "b"].map(|name| Host::new(name, KeyLimit { entries: 8, ..sessions(3) }, &world, &status));
    let elsewhere = hosts[0].open("x");
    hosts[0].pass(INTERVAL_MS);
    let here = hosts[1].open("x");
    hosts[1].pass(INTERVAL_MS);
    drop(here);
    // It stays known, because others have it, and then others take its place.
    hosts[1].pass(INTERVAL_MS);
    assert_eq!(hosts[1].exchanger.known.len(), 1);
    let held = ["1", "2", "3", "4", "5", "6", "7", "8"].map(|name| hosts[1].open(name));
    hosts[1].pass(INTERVAL_MS);
    assert_eq!(hosts[1].exchanger.known.len(), 8, "those that have places");
    drop((elsewhere, held));
}

#[test]
fn a_part_that_is_away_isolates_its_clients_alone() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let mut hosts = ["a", "b"].map(|name| Host::new(name, sessions(3), &world, &status));
    let names: Vec<String> = (0..20).map(|n| format!("client {n}")).collect();
    let mut held: Vec<_> = names.iter().flat_map(|name| [hosts[0].open(name), hosts[0].open(name)]).collect();
    held.extend(names.iter().map(|name| hosts[1].open(name)));
    hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS));
    let is_there = |host: &Host, name: &String| host.open(name).is_none();
    assert!(names.iter().all(|name| is_there(&hosts[1], name)), "all are shared");
    let groups = || world.get().sessions.keys().map(|id| id[0] % 4).collect::<Vec<_>>();
    let (group, all) = (groups()[0], groups());
    let away = all.iter().filter(|one| **one == group).count();
    assert!((1..20).contains(&away), "{all:?}");
    world.get().mode = Mode::PartAway(group);
    (0..200).for_each(|_| hosts[1].pass(INTERVAL_MS));
    assert!(!status.is_up(0, u64::MAX));
    assert_eq!(names.iter().filter(|name| !is_there(&hosts[1], name)).count(), away);
    drop(held);
}

#[test]
fn an_answer_that_is_no_number_leaves_the_client_alone() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let rate = HandshakeRate { rate: Rate { units: 1_000, period_ms: 1_000 }, burst: 1_000 };
    let limit = KeyLimit { handshakes: Some(rate), ..sessions(3) };
    let mut hosts = ["a", "b"].map(|name| Host::new(name, limit, &world, &status));
    let held: Vec<_> = (0..3).map(|_| hosts[0].open("x").unwrap()).collect();
    let mine = hosts[1].open("x").unwrap();
    hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS));
    for (n, mode) in [Mode::Garbage, Mode::TooLong].into_iter().enumerate() {
        assert!(hosts[1].open("x").is_none());
        world.get().mode = mode;
        (0..10).for_each(|_| hosts[1].pass(INTERVAL_MS));
        assert!(status.bad_answers() > n as u64 && status.is_up(0, u64::MAX), "{mode:?}");
        assert!(hosts[1].open("x").is_some() && hosts[1].keyed.handshake(&"x", hosts[1].now_ms).is_ok());
        world.get().mode = Mode::Right;
        (0..12).for_each(|_| hosts[1].pass(INTERVAL_MS));
    }
    drop((held, mine));
}

#[test]
fn a_host_that_stops_takes_its_counts_back() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let mut host = Host::new("a", sessions(3), &world, &status);
    let held = ["x", "y", "z"].map(|client| host.open(client));
    host.pass(INTERVAL_MS);
    let told = |world: &Shared| world.get().sessions.values().map(|hosts| hosts["a"]).sum::<u64>();
    assert_eq!(told(&world), 3);
    host.exchanger.leave(host.now_ms);
    assert_eq!(told(&world), 0);
    drop(held);
}

#[test]
fn clients_go_in_batches_of_their_group_and_rounds_have_a_limit() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let limit = KeyLimit { entries: 1 << 16, ..sessions(3) };
    let mut host = Host::new("a", limit, &world, &status);
    let held: Vec<_> = (0..5_000).map(|n| host.open(&format!("client {n}"))).collect();
    host.pass(INTERVAL_MS);
    let exchanges = world.get().exchanges.clone();
    assert_eq!(exchanges.iter().sum::<usize>(), ROUND);
    assert!(exchanges.iter().all(|clients| (1..=BATCH).contains(clients)) && exchanges.len() < ROUND / BATCH + 4);
    assert_eq!(host.exchanger.due(), Some(host.now()), "the rest at once");
    host.pass(0);
    assert_eq!(world.get().exchanges.iter().sum::<usize>(), 5_000);
    drop(held);
}

#[test]
fn without_room_a_client_counts_alone() {
    let (world, status) = (Shared::default(), Arc::<Status>::default());
    let limit = KeyLimit { entries: 16 * SHARED_KEYS, ..sessions(3) };
    let mut host = Host::new("a", limit, &world, &status);
    let held: Vec<_> = (0..SHARED_KEYS + 10).map(|n| host.open(&n.to_string())).collect();
    host.pass(INTERVAL_MS);
    assert_eq!((status.keys(), status.refusals()), (SHARED_KEYS as u64, 10));
    let last = (SHARED_KEYS + 9).to_string();
    let two = [host.open(&last), host.open(&last)];
    assert!(two.iter().all(Option::is_some) && host.open(&last).is_none(), "its limit holds");
    drop((held, two));
}

proptest! {
    /// The bounds of the manual, with hosts that are late by as much as the interval.
    #[test]
    fn the_excess_is_no_more_than_documented(
        steps in prop::collection::vec((0_usize..3, 0_u8..3, 0_u64..60), 1..300),
        burst in 1_u64..5,
    ) {
        const HOSTS: usize = 3;
        const MAX: u64 = 4;
        const RATE: u64 = 20;
        let (world, status) = (Shared::default(), Arc::<Status>::default());
        let rate = HandshakeRate { rate: Rate { units: RATE, period_ms: 1_000 }, burst };
        let limit = KeyLimit { handshakes: Some(rate), ..sessions(MAX) };
        let mut hosts = ["a", "b", "c"].map(|name| Host::new(name, limit, &world, &status));
        let mut held: [Vec<KeyPermit>; HOSTS] = Default::default();
        let mut passed: Vec<u64> = Vec::new();
        for (host, what, ms) in steps {
            match what {
                0 => held[host].extend(hosts[host].open("x")),
                1 => drop(held[host].pop()),
                _ => if hosts[host].keyed.handshake(&"x", hosts[host].now_ms).is_ok() {
                    passed.push(hosts[host].now_ms);
                }
            }
            let now_us = (hosts[0].now_ms + ms) * 1_000;
            world.get().now_us = now_us;
            hosts.iter_mut().for_each(|host| host.pass(ms));
            for held in &held {
                prop_assert!(held.len() as u64 <= MAX, "a host alone");
            }
            // One at rest is heard of within ten intervals, and this round is one more.
            let stale_ms = 11.0 * INTERVAL_MS as f64;
            if let Some(now) = passed.last() {
                for (n, from) in passed.iter().rev().enumerate() {
                    let (t, hosts) = ((now - from) as f64, HOSTS as f64 - 1.0);
                    let rate = |ms: f64| RATE as f64 * ms / 1_000.0 + burst as f64;
                    prop_assert!((n + 1) as f64 <= rate(t) + hosts * rate(stale_ms) + 1e-6, "{} in {t} ms", n + 1);
                }
            }
        }
        // Once all have heard of all, no host admits at the limit.
        (0..30).for_each(|_| hosts.iter_mut().for_each(|host| host.pass(INTERVAL_MS)));
        let total: usize = held.iter().map(Vec::len).sum();
        for host in &hosts {
            let knows = host.exchanger.known.len() == 1;
            prop_assert!(!knows || total < MAX as usize || host.open("x").is_none(), "{total} sessions");
        }
    }
}
