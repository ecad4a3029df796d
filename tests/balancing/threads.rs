//! Limits hold at every moment, also when threads choose at the same one.

use super::rig::*;
use framegate::policy::balance::Balance;
use framegate::policy::candidates::{Ask, Candidates};
use framegate::policy::endpoint::{Limits, Pick};
use framegate::policy::upstream::{Rules, Upstream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

const THREADS: usize = 8;
const ENDPOINTS: usize = 4;

/// Runs on all threads at once.
fn at_once<T: Send>(run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS);
    let begin = |number| {
        barrier.wait();
        run(number)
    };
    std::thread::scope(|scope| {
        let begin = &begin;
        let threads: Vec<_> = (0..THREADS as u64).map(|number| scope.spawn(move || begin(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    })
}

/// A handshake under way, unless there is no room for it.
fn begin(upstream: &Arc<Upstream>, seed: u64) -> Option<(Candidates, Pick)> {
    let mut candidates = upstream.candidates(&Ask { key: Some(seed), cookie: None, seed });
    attempt(&mut candidates, 0).map(|pick| (candidates, pick))
}

#[test]
fn no_interleaving_exceeds_a_limit() {
    const ROUNDS: u64 = 5_000;
    let (one, all) = (Limits { sessions: Some(2), pending: Some(1) }, Limits { sessions: Some(5), pending: Some(3) });
    for (upstream_limits, endpoint_limits) in [(all, Limits::default()), (Limits::default(), one), (all, one)] {
        let rules = Rules { limits: upstream_limits, endpoint_limits, ejection: None, ..Rules::default() };
        let upstream = upstream(members(&[1; ENDPOINTS]), rules);
        let served = AtomicUsize::new(0);
        let check = |pick: &Pick| {
            let (sessions, pending) = upstream.sessions();
            let endpoint = pick.endpoint();
            for (seen, limit) in [
                (sessions, upstream_limits.sessions),
                (pending, upstream_limits.pending),
                (endpoint.sessions(), endpoint_limits.sessions),
                (endpoint.pending(), endpoint_limits.pending),
            ] {
                assert!(limit.is_none_or(|limit| seen <= limit), "{seen} of {limit:?}");
            }
        };
        at_once(|thread| {
            for round in 0..ROUNDS {
                let Some((mut candidates, pick)) = begin(&upstream, round * THREADS as u64 + thread) else { continue };
                check(&pick);
                served.fetch_add(1, SeqCst);
                if round % 3 > 0 {
                    candidates.succeed(0);
                    check(&pick);
                }
            }
        });
        assert!(served.into_inner() > THREADS);
        let endpoints = upstream.endpoints();
        let left: Vec<_> = endpoints.iter().map(|one| (one.sessions(), one.pending())).collect();
        assert_eq!(
            (upstream.sessions(), left),
            ((0, 0), vec![(0, 0); ENDPOINTS]),
            "refused ones leave no count behind"
        );
    }
}

#[test]
fn who_is_too_late_for_one_endpoint_takes_the_next() {
    const ROUNDS: u64 = 300;
    for balance in Balance::ALL {
        for limit in [Limits { sessions: Some(1), pending: None }, Limits { sessions: None, pending: Some(1) }] {
            let rules = Rules { balance, endpoint_limits: limit, ..Rules::default() };
            let upstream = upstream(members(&[1; THREADS]), rules);
            for round in 0..ROUNDS {
                // The key is the same: with consistent_hash all want the same endpoint.
                let held = at_once(|_| begin(&upstream, round));
                let mut numbers: Vec<_> = held.iter().flatten().map(|(_, pick)| number(pick.endpoint())).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (0..THREADS).collect::<Vec<_>>(), "{balance:?}: there is room for each");
            }
        }
    }
}
