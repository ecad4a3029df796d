//! How each balancer spreads sessions.

use super::rig::*;
use framegate::policy::balance::Balance;
use framegate::policy::candidates::Ask;
use framegate::policy::health::Order;
use framegate::policy::upstream::{Rules, Upstream};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

/// Weights as people write them, and any.
fn weights() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![
        vec(1..=10u16, 1..12),
        vec(1..=1_000u16, 1..8),
        // One that is much heavier than all others.
        (1..60usize, 100..=1_000u16, any::<prop::sample::Index>()).prop_map(|(count, heavy, at)| {
            let mut weights = vec![1; count];
            weights[at.index(count)] = heavy;
            weights
        }),
    ]
}

/// Shares are within five standard deviations of their weights.
#[track_caller]
fn assert_shares(seen: &[u64], weights: &[u16]) {
    let (all, sum) = (seen.iter().sum::<u64>() as f64, weights.iter().map(|w| f64::from(*w)).sum::<f64>());
    for (seen, weight) in seen.iter().zip(weights) {
        let share = f64::from(*weight) / sum;
        let deviation = (all * share * (1.0 - share)).sqrt();
        assert!((*seen as f64 - all * share).abs() <= 5.0 * deviation + 1.0, "{seen} of {all}, weight {weight}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn round_robin_gives_each_its_turn(count in 1..40usize, start in any::<u64>()) {
        // Turns that wrap within the test would skip some.
        let start = start.min(u64::MAX - 1_000);
        let upstream = balanced(&vec![1; count], Balance::RoundRobin);
        upstream.restart(start);
        let order: Vec<_> = (0..count * 3).map(|_| next(&upstream, 0)).collect();
        for window in order.windows(count) {
            prop_assert_eq!(tally(window.iter().copied(), count), vec![1; count]);
        }
    }

    #[test]
    fn weighted_turns_are_exact_over_a_period(weights in weights(), start in 0..1_000_000u64) {
        let upstream = balanced(&weights, Balance::Weighted);
        upstream.restart(start);
        let period = weights.iter().map(|weight| usize::from(*weight)).sum::<usize>();
        // Not only from the first turn on.
        (0..start % 97).for_each(|_| drop(open(&upstream, 0)));
        let seen = tally((0..period).map(|_| next(&upstream, 0)), weights.len());
        prop_assert_eq!(seen, weights.iter().map(|weight| u64::from(*weight)).collect::<Vec<_>>());
    }

    #[test]
    fn weighted_turns_are_evenly_mixed(weights in weights(), start in 0..1_000_000u64) {
        let upstream = balanced(&weights, Balance::Weighted);
        upstream.restart(start);
        let sum = weights.iter().map(|weight| usize::from(*weight)).sum::<usize>();
        let order: Vec<_> = (0..sum * 2).map(|_| next(&upstream, 0)).collect();
        for (number, weight) in weights.iter().enumerate() {
            let weight = usize::from(*weight);
            let mut before = vec![0];
            order.iter().for_each(|chosen| before.push(before.last().unwrap() + usize::from(*chosen == number)));
            let lengths = [2, 3, 5, sum / 7, sum / 3, sum / 2, sum - 1].into_iter();
            for length in lengths.filter(|length| (1..=order.len()).contains(length)) {
                let most = (length * weight).div_ceil(sum) + 1;
                let worst = (0..=order.len() - length).map(|at| before[at + length] - before[at]).max().unwrap();
                prop_assert!(worst <= most, "{worst} of {length} for weight {weight} of {sum}, at most {most}");
            }
        }
    }

    #[test]
    fn least_sessions_takes_the_one_with_the_fewest_for_its_weight(
        weights in weights(),
        steps in vec((any::<bool>(), any::<prop::sample::Index>()), 1..300),
    ) {
        let upstream = balanced(&weights, Balance::LeastSessions);
        let mut open_sessions = VecDeque::new();
        for (closes, which) in steps {
            if closes && !open_sessions.is_empty() {
                open_sessions.remove(which.index(open_sessions.len()));
                continue;
            }
            let before = sessions(&upstream);
            let load = |number: usize| (before[number] as u64 + 1, u64::from(weights[number]));
            let pick = open(&upstream, 0);
            let (chosen, chosen_weight) = load(number(pick.endpoint()));
            for (other, weight) in (0..weights.len()).map(load) {
                prop_assert!(chosen * weight <= other * chosen_weight, "{before:?} of {weights:?}");
            }
            open_sessions.push_back(pick);
        }
    }

    #[test]
    fn least_sessions_fills_equal_endpoints_evenly(count in 1..50usize, opened in 0..400usize) {
        let upstream = balanced(&vec![1; count], Balance::LeastSessions);
        let _held: Vec<_> = (0..opened).map(|_| open(&upstream, 0)).collect();
        let seen = sessions(&upstream);
        prop_assert!(seen.iter().max().unwrap() - seen.iter().min().unwrap() <= 1, "{seen:?}");
        prop_assert_eq!(seen.iter().sum::<usize>(), opened);
    }
}

/// The one behind a gap gets no more than the others.
#[test]
fn turns_of_an_endpoint_that_is_down_go_to_all_others() {
    for balance in [Balance::RoundRobin, Balance::Weighted] {
        let upstream = balanced(&[1; 5], balance);
        upstream.endpoints()[2].obey(Order::Down, 0);
        let seen = tally((0..400).map(|_| next(&upstream, 0)), 5);
        let [low, high] = if balance == Balance::RoundRobin { [100, 100] } else { [99, 101] };
        assert!(
            seen[2] == 0 && [0, 1, 3, 4].iter().all(|at| (low..=high).contains(&seen[*at])),
            "{balance:?} {seen:?}"
        );
    }
}

#[test]
fn turns_of_an_endpoint_that_fails_go_to_all_others() {
    let rules = Rules { ejection: None, ..Rules::default() };
    let upstream = upstream(members(&[1; 5]), rules);
    let answers = (0..80).map(|_| {
        let mut candidates = upstream.candidates(&Ask::default());
        let mut pick = attempt(&mut candidates, 0).unwrap();
        if number(pick.endpoint()) == 2 {
            candidates.fail(0);
            pick = attempt(&mut candidates, 0).unwrap();
        }
        candidates.succeed(0);
        number(pick.endpoint())
    });
    assert_eq!(tally(answers, 5), [20, 20, 0, 20, 20]);
}

#[test]
fn chance_follows_the_weights() {
    for weights in [vec![1; 7], vec![1, 2, 3, 4], vec![1_000, 1, 1, 1, 500], vec![1; 200]] {
        let upstream = balanced(&weights, Balance::Random);
        let seen = tally((0..40_000).map(|seed| next(&upstream, seed)), weights.len());
        assert_shares(&seen, &weights);
        // A key that no request has: chance as well.
        let upstream = balanced(&weights, Balance::ConsistentHash);
        let seen = tally((0..40_000).map(|seed| next(&upstream, seed)), weights.len());
        assert_shares(&seen, &weights);
    }
}

#[test]
fn two_choices_are_nearly_even() {
    const COUNT: usize = 100;
    const OPENED: usize = 10_000;
    let spread = |balance| {
        let upstream = balanced(&[1; COUNT], balance);
        let held: Vec<_> = (0..OPENED).map(|seed| open(&upstream, seed as u64)).collect();
        let seen = sessions(&upstream);
        drop(held);
        seen.iter().max().unwrap() - seen.iter().min().unwrap()
    };
    // The most loaded of n is only log log n above the mean (Mitzenmacher 2001), by chance alone it
    // is some four standard deviations.
    let (two, one) = (spread(Balance::TwoChoices), spread(Balance::Random));
    assert!(two <= 10 && one >= 30, "{two} with two choices, {one} with one");
}

#[test]
fn two_choices_respect_weights() {
    let weights = [1, 2, 4, 8];
    let upstream = balanced(&weights, Balance::TwoChoices);
    let _held: Vec<_> = (0..3_000).map(|seed| open(&upstream, seed)).collect();
    // A heavy endpoint that is rarely drawn cannot be filled: its share has a limit, 1/2 of four
    // endpoints, so the largest weight is not reached.
    for (seen, weight) in sessions(&upstream).into_iter().zip(weights) {
        let fair = 3_000 * usize::from(weight) / 15;
        assert!(seen.abs_diff(fair) <= fair / 5 + 100, "{seen} for weight {weight}, {fair} is fair");
    }
}

#[test]
fn a_recovered_endpoint_starts_slowly_under_every_balancer() {
    const COUNT: usize = 10;
    const DRAWS: u64 = 4_000;
    for balance in Balance::ALL {
        let rules = Rules { balance, slow_start_ms: 10_000, ..Rules::default() };
        let upstream = upstream(members(&[2; COUNT]), rules);
        let recovered = &upstream.endpoints()[3];
        recovered.obey(Order::Drain, 5_000);
        recovered.obey(Order::Ready, 100_000);
        let share_at = |now| {
            let asks = (0..DRAWS).map(|seed| Ask { seed, ..Ask::default() });
            // Sessions that stay: the counts decide for two of the balancers.
            let held: Vec<_> = asks.map(|ask| open_at(&upstream, &ask, now)).collect();
            let seen = recovered.sessions() as f64 / (DRAWS as f64 / COUNT as f64);
            drop(held);
            seen
        };
        if balance == Balance::ConsistentHash {
            // It has the keys that it has.
            continue;
        }
        let [begin, middle, end] = [100_500, 105_000, 110_000].map(share_at);
        let rises = begin < 0.3 && (0.3..0.75).contains(&middle) && (0.9..1.15).contains(&end);
        assert!(rises, "{balance:?}: {begin:.2}, {middle:.2}, {end:.2} of its share");
    }
}

/// The parts of 100 that the endpoints of an upstream have at this time while they start slowly,
/// in the order of their numbers.
fn parts(upstream: &Upstream, now: u64) -> Vec<u64> {
    let mut endpoints = upstream.endpoints();
    endpoints.sort_by_key(|endpoint| number(endpoint));
    endpoints.iter().map(|endpoint| endpoint.health.ramped(100, now, 10_000)).collect()
}

#[test]
fn an_endpoint_that_joins_others_with_sessions_starts_slowly() {
    let rules = Rules { slow_start_ms: 10_000, ..Rules::default() };
    let numbered = |range: std::ops::Range<usize>| range.map(|number| member(number, 1, 0)).collect::<Vec<_>>();
    let before = upstream(numbered(0..2), rules.clone());
    assert_eq!(parts(&before, 1_000), [100, 100], "those of the start");
    before.set_members(numbered(0..3), 1_000);
    assert_eq!(parts(&before, 1_000), [100; 3], "nobody has asked for a session");
    drop(open_at(&before, &Ask::default(), 1_000));
    before.set_members(numbered(0..4), 20_000);
    assert_eq!(parts(&before, 20_000), [100, 100, 100, 10]);
    assert_eq!(parts(&before, 25_000), [100, 100, 100, 50]);

    // Number 4 is new in the file, 3 has been found before, and is found again.
    let after = upstream([numbered(0..3), numbered(4..5)].concat(), rules.clone());
    let found = before.members();
    after.inherit(&before, 25_000);
    assert_eq!(parts(&after, 25_000), [100, 100, 100, 10]);
    after.set_members([after.members(), found[3..].to_vec()].concat(), 26_000);
    assert_eq!(parts(&after, 26_000), [100, 100, 100, 60, 10], "it goes on, as if nothing had happened");
    // One that has gone is new when it comes again.
    after.set_members(numbered(0..4), 50_000);
    after.set_members(numbered(0..5), 60_000);
    assert_eq!(parts(&after, 60_000), [100, 100, 100, 100, 10]);
    after.set_members(numbered(5..7), 61_000);
    assert_eq!(parts(&after, 61_000), [100, 100], "all are new");
}

#[test]
fn an_endpoint_that_joins_gets_a_small_share_at_first() {
    let rules = Rules { slow_start_ms: 10_000, ..Rules::default() };
    let upstream = upstream(members(&[1; 2]), rules);
    let share = |now| {
        let asks = (0..3_000).map(|seed| Ask { seed, ..Ask::default() });
        let held: Vec<_> = asks.map(|ask| open_at(&upstream, &ask, now)).collect();
        held.iter().filter(|pick| number(pick.endpoint()) == 2).count()
    };
    assert_eq!(share(1), 0);
    upstream.set_members(members(&[1; 3]), 100_000);
    let [begin, end] = [100_100, 111_000].map(share);
    assert!(begin < 300 && (950..1_050).contains(&end), "{begin} and {end} of 3000");
}
