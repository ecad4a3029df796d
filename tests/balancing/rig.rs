//! Upstreams of numbered endpoints, and sessions on them.

use framegate::policy::balance::Balance;
use framegate::policy::candidates::{Ask, Candidates, Next};
use framegate::policy::endpoint::{Address, Endpoint, Member, Pick};
use framegate::policy::upstream::{Options, Rules, Upstream};
use std::net::SocketAddr;
use std::sync::Arc;

/// A member whose port is its number and one.
pub fn member(number: usize, weight: u16, priority: u8) -> Member {
    let addr = SocketAddr::from(([10, 0, 0, 1], number as u16 + 1));
    let endpoint = Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new());
    Member { endpoint: Arc::new(endpoint), weight, priority }
}

/// Members of these weights, all of the same priority.
pub fn members(weights: &[u16]) -> Vec<Member> {
    weights.iter().enumerate().map(|(number, weight)| member(number, *weight, 0)).collect()
}

pub fn upstream(members: Vec<Member>, rules: Rules) -> Arc<Upstream> {
    Arc::new(Upstream::new("app".into(), members, Options { rules, ..Options::default() }))
}

pub fn balanced(weights: &[u16], balance: Balance) -> Arc<Upstream> {
    upstream(members(weights), Rules { balance, ..Rules::default() })
}

/// The number of an endpoint.
pub fn number(endpoint: &Endpoint) -> usize {
    match endpoint.address {
        Address::Tcp(addr) => usize::from(addr.port()) - 1,
        _ => unreachable!("all have an address"),
    }
}

/// What is tried next.
pub fn attempt(candidates: &mut Candidates, now: u64) -> Option<Pick> {
    match candidates.next(now) {
        Next::Try { pick, .. } => {
            candidates.advance();
            Some(pick)
        }
        Next::Wait { .. } | Next::Refuse(_) => None,
    }
}

/// An established session.
#[track_caller]
pub fn open_at(upstream: &Arc<Upstream>, ask: &Ask<'_>, now: u64) -> Pick {
    let mut candidates = upstream.candidates(ask);
    let pick = attempt(&mut candidates, now).expect("an endpoint is available");
    candidates.succeed(now);
    pick
}

#[track_caller]
pub fn open(upstream: &Arc<Upstream>, seed: u64) -> Pick {
    open_at(upstream, &Ask { seed, ..Ask::default() }, 0)
}

/// The number of the endpoint that one more session gets. The session ends at once.
#[track_caller]
pub fn next(upstream: &Arc<Upstream>, seed: u64) -> usize {
    number(open(upstream, seed).endpoint())
}

/// Sessions of each endpoint.
pub fn sessions(upstream: &Upstream) -> Vec<usize> {
    upstream.endpoints().iter().map(|endpoint| endpoint.sessions()).collect()
}

/// How often each number below `count` occurs.
pub fn tally(numbers: impl IntoIterator<Item = usize>, count: usize) -> Vec<u64> {
    let mut seen = vec![0; count];
    numbers.into_iter().for_each(|number| seen[number] += 1);
    seen
}
