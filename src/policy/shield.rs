//! What a worker does when more clients come than it can serve: how much it works on handshakes at
//! a time, who comes first ([`fair`]), who gets 503, and which addresses are blocked ([`block`]).

use super::Facts;
use super::block::{Blocks, Prefixes};
use super::fair::QUANTUM;
use super::lookup;
use super::matching::Routes;
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::interface::Refusal;

#[cfg(doc)]
use super::{block, fair};

/// What a request costs: its decision, and the start of its connection to the upstream. Some 30 us.
pub const REQUEST_COST: u32 = 1;
/// What a step of a TLS handshake costs. Where keys are exchanged it takes some 100 us.
pub const TLS_COST: u32 = 4;
const _: () = assert!(REQUEST_COST <= QUANTUM && TLS_COST <= QUANTUM);

#[derive(Debug, PartialEq, Eq)]
pub struct Shield {
    /// Handshake work of a worker in a loop iteration. Default 32: about a millisecond.
    pub work: u32,
    /// Handshakes that wait for their turn, all workers together. Default 4096.
    pub queue: usize,
    /// The longest wait. Default 3 s.
    pub wait_ms: Millis,
    /// The least that Retry-After says; twice that is the most. Default 5 s.
    pub retry_after_ms: Millis,
    /// Who is one client for the queue and for blocks. Default 32 and 64 bits.
    pub prefixes: Prefixes,
    /// Requests with one of these cookies are of clients that are known.
    pub cookies: Vec<String>,
    /// `None`: no address is blocked.
    pub blocks: Option<Blocks>,
}

impl Default for Shield {
    fn default() -> Shield {
        Shield {
            work: 32,
            queue: 4096,
            wait_ms: 3_000,
            retry_after_ms: 5_000,
            prefixes: Prefixes { ipv4: 32, ipv6: 64 },
            cookies: Vec::new(),
            blocks: None,
        }
    }
}

impl Shield {
    /// The client of this request has been here before: it has a cookie that the upstream of its
    /// route has set, for an endpoint that is still there, or one of those that are configured.
    pub fn is_known(&self, facts: &Facts<'_>, routes: &Routes) -> bool {
        if self.cookies.iter().any(|name| lookup::cookie(facts.request, name).is_some_and(|value| !value.is_empty())) {
            return true;
        }
        let Some(found) = routes.find(facts) else { return false };
        found.entry.route.upstreams().iter().any(|upstream| {
            let sticky = upstream.rules.sticky.as_ref();
            let cookie = sticky.and_then(|sticky| lookup::cookie(facts.request, &sticky.cookie));
            cookie.is_some_and(|cookie| upstream.knows(cookie))
        })
    }

    /// The refusal of a request that has to go. `random` spreads the time at which its client comes
    /// again: clients that came together would do so again.
    pub fn overload(&self, random: u64) -> Refusal {
        let least = self.retry_after_ms.div_ceil(1_000).max(1);
        let seconds = least + random % (least + 1);
        Refusal { field: Some(("Retry-After", seconds.to_string().into())), ..Cause::HandshakeOverload.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn retry_after_is_spread_from_once_to_twice() {
        let seconds = |retry_after_ms, random| {
            let shield = Shield { retry_after_ms, ..Shield::default() };
            let refusal = shield.overload(random);
            assert_eq!((refusal.cause, refusal.status()), (Cause::HandshakeOverload, 503));
            let (name, value) = refusal.field.unwrap();
            assert_eq!(name, "Retry-After");
            value.parse::<u64>().unwrap()
        };
        let all: BTreeSet<_> = (0..1_000).map(|random| seconds(5_000, random * 7_919)).collect();
        assert_eq!(all, (5..=10).collect());
        let all: BTreeSet<_> = (0..100).map(|random| seconds(10, random)).collect();
        assert_eq!(all, (1..=2).collect());
        assert!((30..=60).contains(&seconds(30_000, u64::MAX)));
    }
}
