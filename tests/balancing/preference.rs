//! What comes before the balance: priorities, and the client's cookie.

use super::rig::*;
use framegate::policy::balance::Balance;
use framegate::policy::candidates::{Ask, Candidates, Next};
use framegate::policy::endpoint::{Limits, Pick};
use framegate::policy::health::Order;
use framegate::policy::sticky::{SameSite, Sticky};
use framegate::policy::upstream::{Rules, Upstream};
use framegate::proto::end::Cause;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

fn limited(balance: Balance, sessions: usize) -> Rules {
    Rules { balance, endpoint_limits: Limits { sessions: Some(sessions), pending: None }, ..Rules::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// A lower priority gets a session only if no endpoint before it is available and has room;
    /// none is refused while there is one.
    #[test]
    fn a_priority_is_used_when_those_before_it_are_full_or_down(
        balance in prop::sample::select(Balance::ALL.to_vec()),
        priorities in vec(0..4u8, 1..10),
        limit in 1..4usize,
        steps in vec((0..5u8, any::<prop::sample::Index>(), any::<u64>()), 1..80),
    ) {
        let all = priorities.iter().enumerate().map(|(number, priority)| member(number, 1, *priority)).collect();
        let upstream = upstream(all, limited(balance, limit));
        let members = upstream.members();
        let mut held = Vec::new();
        for (kind, which, seed) in steps {
            let endpoint = &members[which.index(members.len())].endpoint;
            match kind {
                0 => endpoint.obey(Order::Down, 0),
                1 => endpoint.obey(Order::Ready, 0),
                2 if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                _ => {
                    let usable = |at: &usize| {
                        let endpoint = &members[*at].endpoint;
                        endpoint.health.is_available(0) && endpoint.sessions() < limit
                    };
                    let best = (0..members.len()).filter(usable).map(|at| members[at].priority).min();
                    let ask = Ask { key: Some(seed), seed, ..Ask::default() };
                    let mut candidates = upstream.candidates(&ask);
                    let pick = attempt(&mut candidates, 0);
                    let got = pick.as_ref().map(|pick| priorities[number(pick.endpoint())]);
                    prop_assert_eq!(got, best);
                    candidates.succeed(0);
                    held.extend(pick);
                }
            }
        }
    }
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let upstream = upstream(vec![member(0, 1, 0), member(1, 1, 1)], limited(Balance::LeastSessions, 2));
    let held = [open(&upstream, 0), open(&upstream, 0), open(&upstream, 0)];
    assert_eq!(held.each_ref().map(|pick| number(pick.endpoint())), [0, 0, 1]);
    let [first, ..] = held;
    drop(first);
    assert_eq!(next(&upstream, 0), 0, "there is room again");
    upstream.endpoints()[0].obey(Order::Drain, 0);
    assert_eq!(next(&upstream, 0), 1);
    upstream.endpoints()[1].obey(Order::Drain, 0);
    let mut candidates = upstream.candidates(&Ask::default());
    assert!(matches!(candidates.next(0), Next::Refuse(Some(Cause::NoEndpoint))));
}

fn sticky(secret: Option<&str>, balance: Balance) -> Rules {
    let sticky = Sticky {
        cookie: "fg".into(),
        secret: secret.map(str::to_owned),
        path: "/".into(),
        same_site: SameSite::Lax,
        max_age_s: None,
    };
    Rules { balance, sticky: Some(sticky), ..Rules::default() }
}

/// The value of the cookie that the client gets.
fn id_of(candidates: &Candidates) -> Option<String> {
    let text = candidates.set_cookie(false)?;
    Some(text.strip_prefix("fg=").unwrap().split(';').next().unwrap().to_owned())
}

/// A session of a client with this cookie: its endpoint, and the cookie that it gets.
fn visit(upstream: &Arc<Upstream>, cookie: Option<&str>, seed: u64) -> (Pick, Option<String>) {
    let ask = Ask { cookie: cookie.map(str::as_bytes), key: Some(seed), seed };
    let mut candidates = upstream.candidates(&ask);
    let pick = attempt(&mut candidates, 0).expect("an endpoint");
    let id = id_of(&candidates);
    candidates.succeed(0);
    (pick, id)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_cookie_brings_back_to_the_same_endpoint(
        balance in prop::sample::select(Balance::ALL.to_vec()),
        count in 2..20usize,
        seeds in vec(any::<u64>(), 8),
        secret in prop::option::of(Just("a secret of the test")),
    ) {
        let members = (0..count).map(|number| member(number, 1, (number / 8) as u8)).collect();
        let upstream = upstream(members, sticky(secret, balance));
        let (first, cookie) = visit(&upstream, None, seeds[0]);
        let (home, cookie) = (Arc::clone(first.endpoint()), cookie.expect("the first one sets the cookie"));
        for seed in &seeds {
            let (pick, set) = visit(&upstream, Some(&cookie), *seed);
            prop_assert!(Arc::ptr_eq(pick.endpoint(), &home) && set.is_none(), "it has the cookie already");
        }
        home.obey(Order::Drain, 0);
        let (elsewhere, other) = visit(&upstream, Some(&cookie), seeds[1]);
        let other = other.expect("a client that moves gets another cookie");
        prop_assert!(!Arc::ptr_eq(elsewhere.endpoint(), &home) && other != cookie);
        for seed in &seeds {
            prop_assert!(Arc::ptr_eq(visit(&upstream, Some(&other), *seed).0.endpoint(), elsewhere.endpoint()));
        }
        home.obey(Order::Ready, 0);
        let (back, set) = visit(&upstream, Some(&cookie), seeds[2]);
        prop_assert!(Arc::ptr_eq(back.endpoint(), &home) && set.is_none());
        // It says nothing about the endpoint.
        let shown = format!("{cookie}{other}");
        prop_assert!(shown.bytes().all(|byte| byte.is_ascii_hexdigit()) && !shown.contains("10.0.0.1"));
    }

    #[test]
    fn no_cookie_that_was_made_up_chooses_an_endpoint(cookie in vec(any::<u8>(), 0..40), seed in any::<u64>()) {
        let upstream = upstream(members(&[1; 5]), sticky(Some("a secret of the test"), Balance::RoundRobin));
        let mut candidates = upstream.candidates(&Ask { cookie: Some(&cookie), seed, ..Ask::default() });
        prop_assert_eq!(attempt(&mut candidates, 0).map(|pick| number(pick.endpoint())), Some(0), "the first turn");
        prop_assert!(candidates.set_cookie(false).is_some());
    }
}

#[test]
fn a_client_whose_endpoint_fails_moves_within_the_same_handshake() {
    let upstream = upstream(members(&[1; 3]), sticky(None, Balance::RoundRobin));
    let (first, cookie) = visit(&upstream, None, 0);
    let cookie = cookie.unwrap();
    let mut candidates = upstream.candidates(&Ask { cookie: Some(cookie.as_bytes()), ..Ask::default() });
    assert!(Arc::ptr_eq(attempt(&mut candidates, 0).unwrap().endpoint(), first.endpoint()));
    assert_eq!(id_of(&candidates), None);
    candidates.fail(0);
    let next = attempt(&mut candidates, 0).unwrap();
    assert!(!Arc::ptr_eq(next.endpoint(), first.endpoint()));
    let other = id_of(&candidates).expect("the cookie of the endpoint that answers");
    assert_ne!(other, cookie);
    assert!(Arc::ptr_eq(visit(&upstream, Some(&other), 0).0.endpoint(), next.endpoint()));
}

#[test]
fn cookies_outlive_a_reload() {
    for secret in [None, Some("a secret of the test")] {
        let before = upstream(members(&[1; 4]), sticky(secret, Balance::RoundRobin));
        let (_, cookie) = visit(&before, None, 0);
        let (_, cookie) = (drop(cookie), visit(&before, None, 0).1.unwrap());
        let home = number(visit(&before, Some(&cookie), 0).0.endpoint());
        // The endpoints stand in another order.
        let after = upstream(members(&[1; 6]).into_iter().rev().collect(), sticky(secret, Balance::Random));
        after.inherit(&before, 0);
        assert_eq!(number(visit(&after, Some(&cookie), 9).0.endpoint()), home);
    }
}
