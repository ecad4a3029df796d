use super::*;
use crate::proto::rate::{Measure, OnExcess};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicI64;

fn limit(sessions: Option<u64>, handshakes: Option<(u64, Millis, u64)>, entries: usize) -> KeyLimit {
    let handshakes =
        handshakes.map(|(units, period_ms, burst)| HandshakeRate { rate: Rate { units, period_ms }, burst });
    KeyLimit { sessions, handshakes, ipv6_prefix: 64, entries, shared: false }
}

impl Key for u64 {
    fn bytes(&self) -> Cow<'_, [u8]> {
        self.to_be_bytes().to_vec().into()
    }
}

#[test]
fn sessions_of_a_client_are_counted_while_they_live() {
    let keyed = Keyed::new(By::Address, limit(Some(2), None, 64));
    let open = |key: &str| keyed.session(&key, 0);
    let (one, two) = (open("a").unwrap(), open("a").unwrap());
    assert_eq!(open("a").unwrap_err(), Excess { cause: Cause::AddressSessions, retry_ms: None });
    let other = open("b").unwrap();
    drop(one);
    let again = open("a").unwrap();
    assert!(open("a").is_err());
    drop((two, again, other));
    assert!(open("a").is_ok());
    let unlimited = Keyed::new(By::Identity, limit(None, None, 64));
    assert!(unlimited.session(&"a", 0).unwrap().is_none());
}

#[test]
fn handshakes_pass_at_their_rate_with_a_burst() {
    let keyed = Keyed::new(By::Identity, limit(None, Some((10, 1_000, 3)), 64));
    let at = |now| keyed.handshake(&"a", now).map_err(|excess| (excess.cause, excess.retry_ms.unwrap()));
    for _ in 0..3 {
        assert_eq!(at(5_000), Ok(()));
    }
    assert_eq!(at(5_000), Err((Cause::IdentityRate, 100)));
    assert_eq!(at(5_099), Err((Cause::IdentityRate, 1)));
    assert_eq!(at(5_100), Ok(()));
    assert_eq!(at(5_100), Err((Cause::IdentityRate, 100)));
    assert_eq!(keyed.handshake(&"b", 5_100), Ok(()), "another client");
    for _ in 0..3 {
        assert_eq!(at(60_000), Ok(()), "no more than the burst after a pause");
    }
    assert!(at(60_000).is_err());
}

#[test]
fn neighbours_in_ipv6_are_one_client() {
    let keyed = Keyed::new(By::Address, limit(Some(1), None, 64));
    let address = |text: &str| keyed.address(text.parse().unwrap()).to_string();
    for (one, key) in [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("2001:db8:1:3::9", "2001:db8:1:3::"),
    ] {
        assert_eq!(address(one), key);
    }
}

#[test]
fn clients_without_sessions_make_room() {
    let keyed = Keyed::new(By::Address, limit(Some(1), Some((1, 1_000, 1)), WAYS));
    // One set: a ninth client takes the place of one whose rate is full again, then of the one that
    // is nearest to it.
    for n in 0..WAYS as u64 {
        keyed.handshake(&n, 1_000 + n).unwrap();
    }
    assert_eq!(keyed.use_of_table(), TableUse { places: 8, used: 8, evicted: 0, overflows: 0 });
    keyed.handshake(&100_u64, 1_500).unwrap();
    assert_eq!(keyed.use_of_table(), TableUse { places: 8, used: 8, evicted: 1, overflows: 0 });
    assert_eq!(keyed.handshake(&0_u64, 1_500), Ok(()), "forgotten, for the ninth");
    assert!(keyed.handshake(&7_u64, 1_500).is_err(), "remembered");
    assert_eq!(keyed.use_of_table().overflows, 0);
    // Who has a session keeps its place.
    let held: Vec<_> = (0..WAYS as u64).map(|n| keyed.session(&(200 + n), 2_000).unwrap().unwrap()).collect();
    assert!(keyed.session(&300_u64, 2_000).unwrap().is_none(), "not counted");
    assert_eq!(keyed.use_of_table().overflows, 1);
    for n in 0..WAYS as u64 {
        assert!(keyed.session(&(200 + n), 2_000).is_err());
    }
    drop(held);
    assert!(keyed.session(&300_u64, 2_000).unwrap().is_some());
}

fn together(measure: Measure, units: u64) -> RateLimit {
    let rate = Rate { units, period_ms: 1_000 };
    RateLimit { measure, rate, burst: units, on_excess: OnExcess::Close, close_code: 4003 }
}

/// What is left in the first bucket of a session of this client.
fn left(keyed: &Keyed, key: &str, now: Millis) -> u64 {
    let permit = keyed.session(&key, now).unwrap();
    let buckets = keyed.buckets(permit.as_ref(), now);
    buckets[0].left(buckets[0].level(now))
}

#[test]
fn sessions_of_a_client_share_its_buckets_and_they_outlive_them() {
    let rates = vec![together(Measure::Messages, 10), together(Measure::Bytes, 1_000)];
    let keyed = Keyed::with_rates(By::Identity, limit(None, None, 64), rates);
    let open = |key: &str, now| {
        let permit = keyed.session(&key, now).unwrap();
        let buckets = keyed.buckets(permit.as_ref(), now);
        (permit.unwrap(), buckets)
    };
    let ((_one, first), (_two, second), (_three, other)) = (open("a", 7_000), open("a", 7_000), open("b", 7_000));
    first[0].take(7, 7_000);
    second[1].take(600, 7_000);
    let levels = |buckets: &[Arc<Bucket>]| [0, 1].map(|n| buckets[n].left(buckets[n].level(7_000)));
    assert_eq!((levels(&first), levels(&second), levels(&other)), ([3, 400], [3, 400], [10, 1_000]));
    // Who comes back finds what it has left, and what its rate has added since.
    drop((_one, _two));
    assert_eq!((left(&keyed, "a", 7_000), left(&keyed, "a", 7_200)), (3, 5));
}

#[test]
fn a_client_with_debts_is_displaced_last() {
    let keyed = Keyed::with_rates(By::Address, limit(None, None, WAYS), vec![together(Measure::Messages, 10)]);
    let clients: Vec<String> = (0..2 * WAYS).map(|n| format!("client {n}")).collect();
    for (n, key) in clients[..WAYS].iter().enumerate() {
        let permit = keyed.session(key, 7_000).unwrap();
        // The first one has used up most.
        keyed.buckets(permit.as_ref(), 7_000)[0].take((WAYS - n) as u64, 7_000);
    }
    for key in &clients[WAYS..2 * WAYS - 1] {
        let permit = keyed.session(key, 7_000).unwrap();
        let bucket = &keyed.buckets(permit.as_ref(), 7_000)[0];
        assert_eq!(bucket.left(bucket.level(7_000)), 10);
        bucket.take(10, 7_000);
    }
    assert_eq!(left(&keyed, &clients[0], 7_000), 10 - WAYS as u64, "the one with most debts is still known");
    assert_eq!(keyed.use_of_table(), TableUse { places: 8, used: 8, evicted: 7, overflows: 0 });
}

#[test]
fn a_client_without_a_place_has_buckets_of_its_own() {
    let keyed = Keyed::with_rates(By::Address, limit(None, None, WAYS), vec![together(Measure::Messages, 10)]);
    let _held: Vec<_> = (0..WAYS as u64).map(|n| keyed.session(&n, 7_000).unwrap().unwrap()).collect();
    let permit = keyed.session(&100, 7_000).unwrap();
    assert!(permit.is_none());
    let buckets = keyed.buckets(permit.as_ref(), 7_000);
    assert_eq!((buckets.len(), buckets[0].left(buckets[0].level(7_000))), (1, 10));
    let unlimited = Keyed::new(By::Address, limit(Some(1), None, WAYS));
    assert!(unlimited.buckets(None, 7_000).is_empty());
}

#[test]
fn a_reload_changes_rates_and_keeps_those_that_stay() {
    let new = |messages, bytes| {
        let rates = vec![together(Measure::Messages, messages), together(Measure::Bytes, bytes)];
        Keyed::with_rates(By::Identity, limit(Some(1), None, 64), rates)
    };
    let before = new(10, 100);
    let held = before.session(&"a", 7_000).unwrap();
    let own = before.buckets(held.as_ref(), 7_000);
    own[0].take(9, 7_000);
    own[1].take(90, 7_000);
    let after = new(20, 100);
    assert!(after != before);
    after.inherit(&before);
    assert!(after.session(&"a", 7_000).is_err(), "its sessions are still counted");
    drop(held);
    let permit = after.session(&"a", 7_000).unwrap();
    let buckets = after.buckets(permit.as_ref(), 7_000);
    assert_eq!([0, 1].map(|n| buckets[n].left(buckets[n].level(7_000))), [20, 10]);
    assert_eq!(own[0].left(own[0].level(7_000)), 1, "a session keeps what it was admitted with");
}

#[test]
fn eight_workers_take_exactly_what_a_client_has() {
    let keyed = Keyed::with_rates(By::Address, limit(None, None, 2 * WAYS), vec![together(Measure::Messages, 500)]);
    let passed: Vec<usize> = std::thread::scope(|scope| {
        let worker = |_| {
            scope.spawn(|| {
                let one = |n: usize| {
                    let permit = keyed.session(&(n as u64 % 4), 7_000).unwrap();
                    keyed.buckets(permit.as_ref(), 7_000)[0].pass(7_000).is_ok().then_some(n % 4)
                };
                (0..4_000).filter_map(one).collect::<Vec<_>>()
            })
        };
        let workers: Vec<_> = (0..8).map(worker).collect();
        let passed: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        (0..4).map(|key| passed.iter().filter(|of| **of == key).count()).collect()
    });
    assert_eq!(passed, [500; 4]);
}

#[test]
fn counts_live_over_a_reload() {
    let before = Keyed::new(By::Address, limit(Some(1), None, 64));
    let _held = before.session(&"a", 0).unwrap().unwrap();
    let after = Keyed::new(By::Address, limit(Some(2), None, 64));
    after.inherit(&before);
    let _second = after.session(&"a", 0).unwrap().unwrap();
    assert!(after.session(&"a", 0).is_err());
}

#[test]
fn workers_together_exceed_no_limit() {
    const MAX: i64 = 3;
    let keyed = Keyed::new(By::Address, limit(Some(MAX as u64), None, 2 * WAYS));
    let live: Vec<AtomicI64> = (0..10).map(|_| AtomicI64::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (keyed, live) = (&keyed, &live);
            scope.spawn(move || {
                for round in 0..20_000_u64 {
                    let key = ((thread * 31 + round * 7) % 10) as usize;
                    let Ok(Some(permit)) = keyed.session(&(key as u64), round) else { continue };
                    let now = live[key].fetch_add(1, Relaxed) + 1;
                    assert!(now <= MAX, "{now} of {key}");
                    live[key].fetch_sub(1, Relaxed);
                    drop(permit);
                }
            });
        }
    });
    let table = keyed.table.load();
    assert!(table.places.iter().all(|place| place.word.load(Relaxed) & COUNT_MAX == 0), "all counts are zero again");
}

proptest! {
    #[test]
    fn a_rate_is_that_of_a_plain_model(
        steps in prop::collection::vec((0_u64..4, 0_u64..300), 1..200),
        units in 1_u64..20,
        burst in 1_u64..6,
    ) {
        let keyed = Keyed::new(By::Address, limit(None, Some((units, 1_000, burst)), 1 << 10));
        // What passed, by client: in no window more than the burst and what the rate allows.
        let (mut passed, mut now) = (HashMap::<u64, Vec<u64>>::new(), 1_000);
        for (key, step) in steps {
            now += step;
            let times = passed.entry(key).or_default();
            match keyed.handshake(&key, now) {
                Ok(()) => {
                    times.push(now);
                    for (n, from) in times.iter().rev().enumerate() {
                        let allowed = burst as f64 + (now - from) as f64 * units as f64 / 1_000.0;
                        prop_assert!((n + 1) as f64 <= allowed + 1e-6, "{} since {} at {}", n + 1, from, now);
                    }
                }
                Err(excess) => {
                    // At the time that it names it would pass, and it must have been exceeded.
                    prop_assert!(times.len() as u64 >= burst);
                    prop_assert!(excess.retry_ms.unwrap() <= 1_000_u64.div_ceil(units) + 1);
                }
            }
        }
    }
}
