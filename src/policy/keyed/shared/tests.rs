use super::super::{By, Excess, Keyed};
use super::*;
use crate::proto::end::Cause;
use crate::proto::rate::Rate;
use crate::text;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

type Taken = Arc<Mutex<Vec<SharedKey>>>;

fn limit(sessions: Option<u64>, rate: Option<(u64, u64)>, entries: usize) -> KeyLimit {
    let rate = rate.map(|(units, burst)| HandshakeRate { rate: Rate { units, period_ms: 1_000 }, burst });
    KeyLimit { sessions, handshakes: rate, ipv6_prefix: 64, entries, shared: true }
}

fn notify() -> (Notify, Taken) {
    let taken = Taken::default();
    let into = Arc::clone(&taken);
    let hand_over = move |key| {
        into.lock().unwrap().push(key);
        true
    };
    (Notify { hand_over: Arc::new(hand_over), believed_ms: 10_000 }, taken)
}

fn shared(limit: KeyLimit) -> (Keyed, Taken) {
    let keyed = Keyed::new(By::Identity, limit);
    let (notify, taken) = notify();
    keyed.share("route", Some(&notify));
    (keyed, taken)
}

fn last(taken: &Taken) -> SharedKey {
    taken.lock().unwrap().last().unwrap().clone()
}

#[test]
fn what_others_have_counts_too() {
    let (keyed, taken) = shared(limit(Some(3), None, 64));
    let one = keyed.session(&"a", 0).unwrap().unwrap();
    let key = last(&taken);
    assert_eq!(key.usage(0), Some(Usage { sessions: 1, ..Usage::default() }));
    key.learn(2, 0, 0).unwrap();
    assert_eq!(keyed.session(&"a", 0).unwrap_err(), Excess { cause: Cause::IdentitySessions, retry_ms: None });
    assert!(keyed.session(&"b", 0).is_ok(), "another client");
    key.learn(1, 0, 0).unwrap();
    let two = keyed.session(&"a", 0).unwrap();
    key.learn(u64::MAX, 0, 0).unwrap();
    assert!(keyed.session(&"a", 0).is_err());
    key.isolate();
    let three = keyed.session(&"a", 0).unwrap();
    assert!(keyed.session(&"a", 0).is_err(), "alone it has its limit");
    drop((one, two, three));
    assert_eq!(key.usage(0), Some(Usage::default()));
    assert_eq!(taken.lock().unwrap().len(), 2, "each is handed over once");
}

#[test]
fn without_news_others_are_believed_for_a_while() {
    let (keyed, taken) = shared(limit(Some(3), None, 64));
    let _one = keyed.session(&"a", 1_000).unwrap().unwrap();
    last(&taken).learn(2, 0, 1_000).unwrap();
    assert!(keyed.session(&"a", 10_999).is_err());
    let _two = keyed.session(&"a", 11_000).unwrap().unwrap();
    last(&taken).learn(1, 0, 11_000).unwrap();
    assert!(keyed.session(&"a", 12_000).is_err());
}

#[test]
fn very_fast_rates_are_told_to_the_microsecond() {
    let limit = KeyLimit {
        handshakes: Some(HandshakeRate { rate: Rate { units: 3_000_000, period_ms: 1_000 }, burst: 1_000 }),
        ..limit(None, None, 64)
    };
    let (keyed, taken) = shared(limit);
    (0..300).for_each(|_| keyed.handshake(&"a", 1_000).unwrap());
    assert_eq!(last(&taken).usage(1_000), Some(Usage { sessions: 0, passed: 300, owed_us: 100 }));
}

#[test]
fn no_client_is_lost_between_workers_and_the_thread() {
    use std::collections::HashMap;
    let (keyed, taken) = shared(limit(Some(1_000), None, 1 << 10));
    let names: Vec<String> = (0..4).map(|n| n.to_string()).collect();
    for _ in 0..50 {
        let known: Mutex<HashMap<KeyId, SharedKey>> = Mutex::default();
        let adopt = || taken.lock().unwrap().drain(..).for_each(|key| drop(known.lock().unwrap().insert(key.id, key)));
        let working = AtomicU64::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..2_000 {
                        drop(keyed.session(&names[round % 4], 0).unwrap());
                    }
                    // One is kept: it must be known in the end.
                    std::mem::forget(keyed.session(&names[0], 0).unwrap());
                    working.fetch_sub(1, SeqCst);
                });
            }
            while working.load(SeqCst) > 0 {
                adopt();
                known.lock().unwrap().retain(|_, key| {
                    let has_nothing = key.usage(0).is_none_or(|usage| usage.sessions == 0);
                    !(has_nothing && key.forget())
                });
            }
        });
        adopt();
        let known = known.into_inner().unwrap();
        let sessions = known.values().filter_map(|key| key.usage(0)).map(|usage| usage.sessions);
        assert!(sessions.max() >= Some(2), "the client that is still there is known");
        known.values().for_each(SharedKey::release);
    }
}

#[test]
fn a_client_is_handed_over_until_it_is_taken() {
    let keyed = Keyed::new(By::Identity, limit(Some(9), None, 64));
    let has_room = Arc::new(AtomicBool::new(false));
    let (room, count) = (Arc::clone(&has_room), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&count);
    let hand_over = move |_| {
        counted.fetch_add(1, Relaxed);
        room.load(Relaxed)
    };
    let notify = Notify { hand_over: Arc::new(hand_over), believed_ms: 10_000 };
    keyed.share("route", Some(&notify));
    let open = || std::mem::forget(keyed.session(&"a", 0).unwrap());
    (0..3).for_each(|_| open());
    has_room.store(true, Relaxed);
    (0..3).for_each(|_| open());
    assert_eq!(count.load(Relaxed), 4);
}

#[test]
fn what_passes_is_told_once_and_no_longer_than_it_is_owed() {
    let (keyed, taken) = shared(limit(None, Some((10, 5)), 64));
    (0..3).for_each(|_| keyed.handshake(&"a", 1_000).unwrap());
    let key = last(&taken);
    let usage = Usage { sessions: 0, passed: 3, owed_us: 300_000 };
    assert_eq!(key.usage(1_000), Some(usage));
    assert_eq!(key.usage(1_000), Some(Usage::default()));
    key.give_back(usage);
    // 300 ms were owed, of which 250 have passed.
    assert_eq!(key.usage(1_250), Some(Usage { passed: 1, owed_us: 100_000, ..usage }));
    key.give_back(usage);
    assert_eq!(key.usage(60_000), Some(Usage::default()));
}

#[test]
fn the_rate_is_that_of_all_hosts() {
    let (keyed, taken) = shared(limit(None, Some((10, 3)), 64));
    keyed.handshake(&"a", 1_000).unwrap();
    let key = last(&taken);
    key.usage(1_000).unwrap();
    // Others have taken two: full again in 300 ms.
    key.learn(0, 300_000, 1_000).unwrap();
    let excess = keyed.handshake(&"a", 1_000).unwrap_err();
    assert_eq!((excess.cause, excess.retry_ms), (Cause::IdentityRate, Some(100)));
    keyed.handshake(&"a", 1_100).unwrap();
    // The one that has passed since is not forgotten, and a smaller answer takes nothing back.
    key.learn(0, 200_000, 1_100).unwrap();
    assert!(keyed.handshake(&"a", 1_100).is_err());
    key.learn(0, 1, 1_100).unwrap();
    assert!(keyed.handshake(&"a", 1_100).is_err());
    // Three of others, in 300 ms, and one here since.
    let (keyed, taken) = shared(limit(None, Some((10, 4)), 64));
    keyed.handshake(&"a", 1_000).unwrap();
    last(&taken).learn(0, 300_000, 1_000).unwrap();
    assert!(keyed.handshake(&"a", 1_000).is_err());
    let (keyed, taken) = shared(limit(None, Some((10, 3)), 64));
    keyed.handshake(&"a", 1_000).unwrap();
    let key = last(&taken);
    key.learn(0, 300_000, 1_000).unwrap();
    keyed.handshake(&"a", 1_200).unwrap();
    // What hosts cannot have caused is not believed.
    assert!(key.learn(0, 400_000_000_000, 1_100).is_err() && key.learn(7, u64::MAX, 1_100).is_err());
    assert!(keyed.handshake(&"a", 2_000).is_ok());
}

#[test]
fn a_client_that_is_forgotten_comes_back() {
    let (keyed, taken) = shared(limit(Some(2), None, 64));
    let one = keyed.session(&"a", 0).unwrap();
    let key = last(&taken);
    assert!(!key.forget(), "it has a session");
    key.learn(1, 0, 0).unwrap();
    drop(one);
    assert!(key.forget());
    let again = keyed.session(&"a", 0).unwrap();
    assert_eq!(taken.lock().unwrap().len(), 2);
    last(&taken).release();
    let _two = keyed.session(&"a", 0).unwrap();
    assert_eq!(taken.lock().unwrap().len(), 3);
    drop(again);
}

#[test]
fn a_place_that_another_client_has_taken_says_nothing() {
    // One set of eight places.
    let (keyed, taken) = shared(limit(Some(1), Some((10, 5)), 8));
    keyed.handshake(&"a", 1_000).unwrap();
    let key = last(&taken);
    key.learn(1, 0, 1_000).unwrap();
    assert!(keyed.session(&"a", 1_000).is_err());
    let names: Vec<String> = (0..8).map(|n| format!("other {n}")).collect();
    let held: Vec<_> = names.iter().map(|name| keyed.session(name, 2_000).unwrap().unwrap()).collect();
    assert_eq!(key.usage(2_000), None);
    assert!(key.has_changed(0));
    key.give_back(Usage { passed: 5, ..Usage::default() });
    key.learn(1, 500_000, 2_000).unwrap();
    key.isolate();
    assert!(key.forget());
    drop(held);
    for name in &names {
        assert!(keyed.session(name, 2_000).is_ok(), "what was learnt of another client does not count");
        (0..5).for_each(|_| keyed.handshake(name, 2_000).unwrap());
    }
}

#[test]
fn ids_are_the_same_everywhere_and_different_for_all() {
    let id = |by: By, scope: &str, client: &dyn Fn(&Keyed)| {
        let keyed = Keyed::new(by, limit(Some(1), None, 64));
        let (notify, taken) = notify();
        keyed.share(scope, Some(&notify));
        client(&keyed);
        text::hex(&last(&taken).id)
    };
    let name = |name: &'static str| move |keyed: &Keyed| std::mem::forget(keyed.session(&name, 0).unwrap());
    let address = |text: &'static str| {
        move |keyed: &Keyed| {
            let address: std::net::IpAddr = text.parse().unwrap();
            std::mem::forget(keyed.session(&address, 0).unwrap());
        }
    };
    let ids = [
        id(By::Identity, "r", &name("a")),
        id(By::Identity, "r", &name("b")),
        id(By::Identity, "ra", &name("")),
        id(By::Identity, "s", &name("a")),
        id(By::Address, "r", &name("a")),
        id(By::Address, "r", &address("192.0.2.1")),
        id(By::Address, "r", &address("2001:db8::")),
    ];
    for (n, one) in ids.iter().enumerate() {
        assert!(!ids[..n].contains(one), "{ids:?}");
    }
    assert_eq!(ids[0], id(By::Identity, "r", &name("a")));
    // printf '\0\0\0\0\0\0\0\012identity ra' | sha256sum: hosts of other versions must agree.
    assert_eq!(ids[0], "c9bcbeed2fcd5c0490a58d092e73900a");
}

#[test]
fn a_reload_ends_the_sharing_and_begins_it_again() {
    let (before, taken) = shared(limit(Some(2), None, 64));
    let _one = before.session(&"a", 0).unwrap();
    let key = last(&taken);
    key.learn(1, 0, 0).unwrap();
    let after = Keyed::new(By::Identity, KeyLimit { shared: false, ..limit(Some(2), None, 64) });
    after.inherit(&before);
    let (notify, _) = notify();
    after.share("route", Some(&notify));
    assert_eq!(key.usage(0), None, "it counts alone");
    let _two = after.session(&"a", 0).unwrap();
    key.release();
    let third = Keyed::new(By::Identity, limit(Some(3), None, 64));
    third.inherit(&after);
    third.share("route", Some(&notify));
    let _three = third.session(&"a", 0).unwrap();
    assert_eq!(taken.lock().unwrap().len(), 2, "by the first way");
}
