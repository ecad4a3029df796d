//! A route that splits its requests over several upstreams.

use framegate::config;
use framegate::policy::limit::Permits;
use framegate::policy::matching::Routes;
use framegate::policy::{Facts, Policy, ServedBy, Verdict, decide};
use framegate::proto::http1::parse_request;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

fn routes(weights: &[u32], key: &str) -> Routes {
    let part = |(n, weight): (usize, &u32)| format!("{{ upstream = \"part{n}\", weight = {weight} }}");
    let parts: Vec<_> = weights.iter().enumerate().map(part).collect();
    let upstream = |n| format!("[[upstream]]\nname = \"part{n}\"\nendpoints = [\"ws://10.0.0.1:{}\"]\n", 9_000 + n);
    let upstreams: String = (0..weights.len()).map(upstream).collect();
    let text = format!(
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n{upstreams}[[route]]\nsplit = [{}]\n{key}\n",
        parts.join(", ")
    );
    config::parse(&text, "split").expect("a valid file").routes
}

/// The part that a request of this user gets.
fn part(routes: &Routes, user: Option<u64>, random: u64) -> usize {
    let field = user.map(|user| format!("X-User: {user}\r\n")).unwrap_or_default();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{field}\r\n"
    );
    let request = parse_request(head.as_bytes()).unwrap();
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let facts = Facts { random, ..Facts::new(&request, client) };
    let sessions = Permits::new(1);
    let policy = Policy { routes, sessions: &sessions, revoked: &Default::default(), blocks: None };
    let Verdict::Allow(plan) = decide(&facts, &policy, None) else { panic!() };
    let ServedBy::Upstream(candidates) = plan.served_by else { panic!() };
    candidates.upstream().name.strip_prefix("part").unwrap().parse().unwrap()
}

/// A number that is as good as random.
fn random(n: u64) -> u64 {
    framegate::policy::key::mix(n ^ 0x5851_f42d_4c95_7f2d)
}

fn assert_shares(seen: &[u64], weights: &[u32]) {
    let (all, sum) = (seen.iter().sum::<u64>() as f64, f64::from(weights.iter().sum::<u32>()));
    for (seen, weight) in seen.iter().zip(weights) {
        let share = f64::from(*weight) / sum;
        let deviation = (all * share * (1.0 - share)).sqrt();
        assert!((*seen as f64 - all * share).abs() <= 5.0 * deviation + 1.0, "{seen} of {all}, {weight} of {sum}");
    }
}

#[test]
fn parts_get_their_percentage_by_chance_and_by_key() {
    for weights in [&[95, 5][..], &[1, 99], &[50, 30, 20]] {
        let count = |parts: &mut dyn Iterator<Item = usize>| super::rig::tally(parts, weights.len());
        let by_chance = routes(weights, "");
        assert_shares(&count(&mut (0..10_000).map(|n| part(&by_chance, None, random(n)))), weights);
        let by_key = routes(weights, "split_key = \"header:X-User\"");
        assert_shares(&count(&mut (0..10_000).map(|user| part(&by_key, Some(user), 0))), weights);
        // Without the key chance decides.
        assert_shares(&count(&mut (0..10_000).map(|n| part(&by_key, None, random(n)))), weights);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_same_key_always_gets_the_same_part(weights in vec(1..100u32, 2..5), user in any::<u64>()) {
        let routes = routes(&weights, "split_key = \"header:X-User\"");
        let first = part(&routes, Some(user), 0);
        for n in 0..20 {
            prop_assert_eq!(part(&routes, Some(user), random(n)), first);
        }
    }

    #[test]
    fn a_part_that_grows_keeps_its_keys(
        weights in vec(1..100u32, 2..5),
        grows in any::<prop::sample::Index>(),
        by in 1..100u32,
    ) {
        let grows = grows.index(weights.len());
        let mut more = weights.clone();
        more[grows] += by;
        let [before, after] = [&weights, &more].map(|weights| routes(weights, "split_key = \"header:X-User\""));
        for user in 0..400 {
            if part(&before, Some(user), 0) == grows {
                prop_assert_eq!(part(&after, Some(user), 0), grows, "user {} has left", user);
            }
        }
    }
}
