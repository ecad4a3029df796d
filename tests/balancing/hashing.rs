//! Consistent hashing: keys that stay, keys that move, and the bound of the load.

use super::rig::*;
use framegate::policy::balance::Balance;
use framegate::policy::candidates::Ask;
use framegate::policy::health::Order;
use framegate::policy::key::hash;
use framegate::policy::upstream::{Rules, Upstream};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

const KEYS: u64 = 10_000;

fn hashed(weights: &[u16], load_percent: u32) -> Arc<Upstream> {
    let rules = Rules { balance: Balance::ConsistentHash, hash_load_percent: load_percent, ..Rules::default() };
    upstream(members(weights), rules)
}

fn ask(key: u64) -> Ask<'static> {
    Ask { key: Some(hash(&key.to_be_bytes())), seed: key, ..Ask::default() }
}

/// The endpoint of each key.
fn homes(upstream: &Arc<Upstream>) -> Vec<usize> {
    (0..KEYS).map(|key| number(open_at(upstream, &ask(key), 0).endpoint())).collect()
}

fn moved<'a>(before: &'a [usize], after: &'a [usize]) -> impl Iterator<Item = (usize, usize)> + 'a {
    before.iter().copied().zip(after.iter().copied()).filter(|(before, after)| before != after)
}

#[test]
fn one_more_of_a_hundred_moves_two_percent() {
    let upstream = hashed(&[1; 100], 0);
    let before = homes(&upstream);
    assert_eq!(before, homes(&upstream), "the same key has the same endpoint");
    upstream.set_members(members(&[1; 101]), 0);
    let after = homes(&upstream);
    let all = moved(&before, &after).count() as u64;
    assert!((1..=KEYS / 50).contains(&all), "{all} of {KEYS} keys have moved");
}

#[test]
fn one_fewer_of_a_hundred_moves_its_own_keys() {
    let upstream = hashed(&[1; 100], 0);
    let before = homes(&upstream);
    let mut fewer = members(&[1; 100]);
    fewer.remove(37);
    upstream.set_members(fewer, 0);
    let after = homes(&upstream);
    assert!(!after.contains(&37));
    let others = moved(&before, &after).filter(|(before, _)| *before != 37).count() as u64;
    assert!(others <= KEYS / 100, "{others} keys of other endpoints have moved");
}

#[test]
fn an_endpoint_that_goes_down_moves_its_own_keys_alone_and_to_many() {
    let upstream = hashed(&[1; 50], 0);
    let before = homes(&upstream);
    let lost = Arc::clone(&upstream.endpoints()[7]);
    lost.obey(Order::Down, 0);
    let after = homes(&upstream);
    let mut heirs: Vec<_> = moved(&before, &after).collect();
    assert!(heirs.iter().all(|(before, _)| *before == 7), "only its own");
    assert_eq!(heirs.len(), before.iter().filter(|home| **home == 7).count(), "all of its own");
    heirs.sort_unstable();
    heirs.dedup();
    assert!(heirs.len() >= 40, "one endpoint's clients go to {} others", heirs.len());
    lost.obey(Order::Ready, 0);
    assert_eq!(before, homes(&upstream), "they come back");
}

#[test]
fn a_reload_moves_no_key() {
    let (before, after) = (hashed(&[1, 5, 2], 0), hashed(&[1, 5, 2], 0));
    let homes_before = homes(&before);
    after.inherit(&before, 0);
    assert_eq!(homes_before, homes(&after));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn no_endpoint_is_above_its_bound(
        weights in vec(1..=10u16, 1..12),
        percent in 101..=400u32,
        down in vec(any::<prop::sample::Index>(), 0..4),
        // Few keys: without the bound some endpoints would have all sessions.
        keys in vec(0..6u64, 1..300),
    ) {
        let upstream = hashed(&weights, percent);
        let endpoints = upstream.endpoints();
        let mut usable = vec![true; weights.len()];
        for which in down {
            let which = which.index(weights.len());
            // One is left.
            if usable.iter().filter(|usable| **usable).count() > 1 {
                usable[which] = false;
                endpoints[which].obey(Order::Down, 0);
            }
        }
        let sum: u64 = weights.iter().zip(&usable).filter(|(_, usable)| **usable).map(|(w, _)| u64::from(*w)).sum();
        let mut held = Vec::new();
        for key in keys {
            let pick = open_at(&upstream, &ask(key), 0);
            let (chosen, all) = (number(pick.endpoint()), held.len() as u64 + 1);
            held.push(pick);
            let most = (all * u64::from(weights[chosen]) * u64::from(percent)).div_ceil(sum * 100);
            let has = endpoints[chosen].sessions() as u64;
            prop_assert!(has <= most, "{has} of {all}, at most {most}: {:?} of {weights:?}", sessions(&upstream));
        }
    }

    /// As long as there is room, a key stays where it would be without a bound.
    #[test]
    fn the_bound_moves_no_key_of_an_endpoint_with_room(weights in vec(1..=10u16, 2..12), key in any::<u64>()) {
        let (free, bounded) = (hashed(&weights, 0), hashed(&weights, 150));
        let home = number(open_at(&free, &ask(key), 0).endpoint());
        prop_assert_eq!(number(open_at(&bounded, &ask(key), 0).endpoint()), home);
    }

    /// Also where so many are down that the others are above the bound of them all.
    #[test]
    fn a_bound_keeps_keys_together_while_endpoints_are_down(count in 2..12usize, key in any::<u64>()) {
        let upstream = hashed(&vec![1; count], 125);
        let endpoints = upstream.endpoints();
        endpoints.iter().skip(count.div_ceil(2)).for_each(|endpoint| endpoint.obey(Order::Down, 0));
        let _held: Vec<_> = (0..count as u64 * 40).map(|other| open_at(&upstream, &ask(other), 0)).collect();
        // Each time the same counts.
        let homes: Vec<_> = (0..8).map(|_| number(open_at(&upstream, &ask(key), 0).endpoint())).collect();
        prop_assert!(homes.iter().all(|home| *home == homes[0]), "{homes:?}");
    }
}
