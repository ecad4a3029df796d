//! The thread of a source: asks it, makes endpoints of what it reports, and tries again with
//! backoff while it fails.

use super::{Answer, Found, Slot, Source, open};
use crate::config::discovery::{Discovery, endpoint};
use crate::policy::balance::ENDPOINTS_MAX;
use crate::policy::endpoint::{Address, Endpoint};
use crate::policy::upstream::Member;
use crate::resolver::Resolve;
use crate::service::Asker;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Waits after failures: the first, doubled for each further one, up to the last; each with up to a
/// quarter more, so that many proxies do not come back at once.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long new names are waited for before sessions are sent to them.
const NAMES: Duration = Duration::from_secs(2);
/// The range of weights of the members of an upstream.
const WEIGHT_MAX: u32 = 1_000;

/// Runs until the slot is stopped.
pub fn run(discovery: &Discovery, slot: &Arc<Slot>, resolver: &Asker<Resolve>) {
    let mut reader = Reader::new(discovery, slot, resolver);
    while !slot.is_stopped() {
        // A source that panics is made anew: what it has read must not end discovery.
        let step = catch_unwind(AssertUnwindSafe(|| reader.step()));
        let wait = step.unwrap_or_else(|_| reader.failed("its thread panicked".to_owned()));
        if slot.wait(wait) {
            return;
        }
    }
}

struct Reader<'a> {
    discovery: &'a Discovery,
    slot: &'a Arc<Slot>,
    resolver: &'a Asker<Resolve>,
    /// Kept while it succeeds.
    source: Option<Box<dyn Source>>,
    /// The last accepted list, sorted.
    last: Option<Vec<Found>>,
    /// Why the last list was not accepted.
    rejected: Option<String>,
    /// Made of the last accepted list.
    members: Vec<Member>,
    /// Failures in a row.
    failures: u32,
}

impl<'a> Reader<'a> {
    fn new(discovery: &'a Discovery, slot: &'a Arc<Slot>, resolver: &'a Asker<Resolve>) -> Reader<'a> {
        let (source, last, rejected, members) = (None, None, None, Vec::new());
        Reader { discovery, slot, resolver, source, last, rejected, members, failures: 0 }
    }

    /// Asks the source once. How long to wait until the next time.
    fn step(&mut self) -> Duration {
        let mut source = match self.source.take().map_or_else(|| open(self.discovery, self.slot), Ok) {
            Ok(source) => source,
            Err(error) => return self.failed(error),
        };
        let Answer { found, again } = match source.next() {
            Ok(answer) => answer,
            // Ignored: what was interrupted fails.
            Err(_) if self.slot.is_stopped() => return Duration::ZERO,
            Err(error) => return self.failed(error),
        };
        self.source = Some(source);
        self.failures = 0;
        if let Some(found) = found {
            self.rejected = self.found(found).err();
        }
        match &self.rejected {
            None => self.slot.succeeded(),
            // The source works: it is asked as usual.
            Some(error) => self.slot.failed(error.clone()),
        }
        again
    }

    fn failed(&mut self, error: String) -> Duration {
        self.slot.failed(error);
        let (first, last) = BACKOFF;
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(last);
        self.failures += 1;
        let random = RandomState::new().hash_one(self.failures) % 256;
        wait + wait / 1024 * u32::try_from(random).unwrap_or(0)
    }

    /// Delivers the members of a list, unless it is the last one again.
    fn found(&mut self, mut found: Vec<Found>) -> Result<(), String> {
        found.sort_unstable();
        if found.len() > ENDPOINTS_MAX {
            return Err(format!("{} endpoints are too many, at most {ENDPOINTS_MAX}", found.len()));
        }
        if self.last.as_ref() == Some(&found) {
            return Ok(());
        }
        let (members, invalid) = members(&found, &self.members);
        for why in &invalid {
            ::log::warn!("upstream \"{}\": endpoint ignored: {why}", self.discovery.upstream);
        }
        if members.is_empty() && !self.discovery.allow_empty {
            return Err(match invalid.first() {
                Some(why) => format!("no endpoint is valid: {why}"),
                None => "it reports no endpoints (allow_empty = true applies this)".to_owned(),
            });
        }
        self.resolve(&members);
        self.members.clone_from(&members);
        self.last = Some(found);
        self.slot.deliver(members);
        Ok(())
    }

    /// Resolves new names before sessions are sent to them. One that takes longer is used when it
    /// has addresses.
    fn resolve(&self, members: &[Member]) {
        let endpoints = members.iter().map(|member| &member.endpoint);
        let names = endpoints.filter(|one| matches!(one.address, Address::Name(_)) && !one.is_resolved());
        let names: Vec<Arc<Endpoint>> = names.cloned().collect();
        let (done, told) = sync_channel(1);
        if !names.is_empty() && self.resolver.ask(Resolve::new_names(names, done)).is_ok() {
            let _ = told.recv_timeout(NAMES);
        }
    }
}

/// The members that a list stands for, with the endpoints of `known` where they are equal, and one
/// sentence for each entry that is not valid. `found` is sorted. Of equal URLs the first is used:
/// the one with the best priority.
fn members(found: &[Found], known: &[Member]) -> (Vec<Member>, Vec<String>) {
    let (mut members, mut invalid) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let heaviest = found.iter().map(|one| one.weight).max().unwrap_or(1);
    let mut priorities: Vec<u32> = found.iter().map(|one| one.priority).collect();
    priorities.dedup();
    for one in found {
        if !seen.insert(one.url.as_str()) {
            continue;
        }
        let rank = priorities.binary_search(&one.priority).unwrap_or(0);
        let new = match endpoint(&one.url) {
            Ok(endpoint) => endpoint,
            Err(why) => {
                invalid.push(why);
                continue;
            }
        };
        let known = known.iter().find(|known| *known.endpoint == new);
        let mut member = known.cloned().unwrap_or_else(|| Member::from(new));
        member.weight = weight(one.weight, heaviest);
        member.priority = u8::try_from(rank).unwrap_or(u8::MAX);
        members.push(member);
    }
    (members, invalid)
}

/// Weights of a list with larger ones than allowed are scaled down together.
fn weight(weight: u32, heaviest: u32) -> u16 {
    let scaled = match heaviest {
        ..=WEIGHT_MAX => weight,
        _ => u32::try_from(u64::from(weight) * u64::from(WEIGHT_MAX) / u64::from(heaviest)).unwrap_or(WEIGHT_MAX),
    };
    u16::try_from(scaled.max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, weight: u32, priority: u32) -> Found {
        Found { url: url.to_owned(), weight, priority }
    }

    fn made(found: &[Found]) -> (Vec<(String, u16, u8)>, Vec<String>) {
        let mut sorted = found.to_vec();
        sorted.sort_unstable();
        let (members, invalid) = members(&sorted, &[]);
        (members.iter().map(|m| (m.endpoint.url.clone(), m.weight, m.priority)).collect(), invalid)
    }

    #[test]
    fn priorities_become_ranks_and_weights_are_scaled_together() {
        let list = [found("ws://a:1", 65_535, 500), found("ws://b:1", 6_554, 10), found("ws://c:1", 0, 10)];
        let (members, invalid) = made(&list);
        assert!(invalid.is_empty());
        let expected = [("ws://b:1", 100, 0), ("ws://c:1", 1, 0), ("ws://a:1", 1_000, 1)];
        assert_eq!(members, expected.map(|(url, weight, priority)| (url.to_owned(), weight, priority)));
        let (members, _) = made(&[found("ws://a:1", 3, 0), found("ws://b:1", 0, 0)]);
        assert_eq!(members[0].1, 3, "small weights stay");
        let many: Vec<_> = (0..300).map(|n| found(&format!("ws://a:{}", n + 1), 1, n)).collect();
        assert_eq!(made(&many).0.last().unwrap().2, 255);
    }

    #[test]
    fn invalid_and_repeated_endpoints_are_left_out() {
        let list = [
            found("ws://a:1", 5, 1),
            found("ws://a:1", 7, 0),
            found("ftp://a:1", 1, 0),
            found("ws://10.0.0.300:1", 1, 0),
        ];
        let (members, invalid) = made(&list);
        assert_eq!(members, [("ws://a:1".to_owned(), 7, 0)]);
        assert_eq!(invalid.len(), 2);
        assert!(invalid[0].contains("expected ws://"), "{invalid:?}");
    }

    #[test]
    fn known_endpoints_stay_the_same_objects() {
        let (before, _) = members(&[found("ws://a:1", 1, 0), found("ws://b:1", 1, 0)], &[]);
        let (after, _) = members(&[found("ws://b:1", 9, 0), found("ws://c:1", 1, 0)], &before);
        assert!(Arc::ptr_eq(&after[0].endpoint, &before[1].endpoint) && after[0].weight == 9);
    }
}
