//! Addresses that failed too often: wrong credentials, malformed requests, violations. Such an
//! address is blocked for a time, which doubles with each block until it has been quiet for long
//! enough. The table has a fixed size and is shared by all workers, without a lock.
//!
//! As in `keyed`, a table has sets of eight places, and a hash with a secret says which set an
//! address belongs to. Failures are counted by the generic cell rate algorithm: `full_at` is when
//! nothing of them is left. An address that has no place takes one that is empty, or that of the
//! address that will be forgotten next. Blocked ones keep theirs: where all eight are blocked, the
//! failures of others are not counted, and that is counted ([`Blocks::overflows`]).

use super::networks::Networks;
use crate::proto::Millis;
use crate::proto::end::{Cause, End, Party, Phase};
use crate::proto::interface::Refusal;
use crate::proto::rate::Rate;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Places of a set.
const WAYS: usize = 8;
/// Bytes of a place.
pub const PLACE_BYTES: usize = size_of::<Place>();
const NS_PER_MS: u64 = 1_000_000;
/// Of the word of a block, the low bits count blocks; above them is its end.
const LEVEL_BITS: u32 = 8;
const LEVEL_MAX: u64 = (1 << LEVEL_BITS) - 1;
/// "The server is unwilling to process a request": the close code of violations (RFC 6455 section
/// 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;

/// The bits of an address by which clients are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    pub ipv4: u8,
    pub ipv6: u8,
}

impl Prefixes {
    pub fn network(self, address: IpAddr) -> IpNet {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { self.ipv4 } else { self.ipv6 };
        IpNet::new(address, bits).map_or(address.into(), |network| network.trunc())
    }

    /// What stands for an address: the first one with the same prefix.
    pub fn of(self, address: IpAddr) -> IpAddr {
        self.network(address).addr()
    }
}

/// When an address is blocked, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRules {
    /// So many failures at once, or more often for long, and it is.
    pub failures: Rate,
    /// The first block.
    pub first_ms: Millis,
    /// The longest block; also how long an address must be quiet to be forgotten.
    pub longest_ms: Millis,
    /// Places of the table.
    pub entries: usize,
    pub prefixes: Prefixes,
    /// Never blocked: trusted proxies, through which others fail, and who is listed.
    pub exempt: Networks<()>,
}

/// A failure is the client's, and one that is seldom an accident. Absent credentials are not, since
/// browsers ask without them first; nor are those that were valid and are no longer, since a page
/// that is open tries again with them. Nor are timeouts, which bad networks bring about.
pub fn is_failure(cause: Cause) -> bool {
    use Cause::{
        BadCredentials, BadHost, BadKey, BadTarget, HeadTooLarge, MalformedHead, ProtectedHeader, TlsBadRecord,
        TlsMalformed, TlsMisbehaved, TooManyFields,
    };
    let refused = matches!(
        cause,
        BadCredentials
            | BadHost
            | BadKey
            | BadTarget
            | HeadTooLarge
            | MalformedHead
            | ProtectedHeader
            | TlsBadRecord
            | TlsMalformed
            | TlsMisbehaved
            | TooManyFields
    );
    refused || cause.info().code == PROTOCOL_ERROR
}

/// The end of a session is a failure of its client that no refusal has told before.
pub fn is_violation(end: End) -> bool {
    end.party == Party::Downstream && end.phase == Phase::Open && is_failure(end.cause)
}

/// An address that is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub network: IpNet,
    /// Until its end.
    pub left_ms: Millis,
    /// How many blocks it has had, with this one.
    pub blocks: u64,
}

impl Blocked {
    /// What a client gets that comes through a trusted proxy.
    pub fn refusal(left_ms: Millis) -> Refusal {
        let seconds = left_ms.div_ceil(1_000).max(1);
        Refusal { field: Some(("Retry-After", seconds.to_string().into())), ..Cause::AddressBlocked.into() }
    }
}

/// The rules, with the addresses that failed, which live over reloads.
#[derive(Debug)]
pub struct Blocks {
    pub rules: BlockRules,
    table: ArcSwap<Table>,
}

impl Blocks {
    pub fn new(rules: BlockRules) -> Blocks {
        let table = ArcSwap::from_pointee(Table::new(rules.entries));
        Blocks { rules, table }
    }

    /// How long the address stays blocked; `None` if it is not.
    pub fn left(&self, client: IpAddr, now: Millis) -> Option<Millis> {
        let table = self.table.load();
        let (set, tag) = table.locate(self.rules.prefixes.of(client));
        let ends = table.own(set, tag).map(|place| Block::of(place.block.load(Relaxed)).until);
        let left = ends.max()?.checked_sub(now).filter(|left| *left > 0)?;
        // The list of those that are exempt may have grown since.
        (!self.rules.exempt.contains(client)).then_some(left)
    }

    /// The client at this address has failed. How long it is blocked, if this has blocked it.
    pub fn failed(&self, client: IpAddr, now: Millis) -> Option<Millis> {
        if self.rules.exempt.contains(client) {
            return None;
        }
        self.table.load().fail(self.rules.prefixes.of(client), &self.rules, now)
    }

    /// Those that are blocked, the one with the longest time left first.
    pub fn list(&self, now: Millis) -> Vec<Blocked> {
        let table = self.table.load();
        let mut all: Vec<_> = table.places.iter().filter_map(|place| table.blocked(place, &self.rules, now)).collect();
        all.sort_by(|a, b| b.left_ms.cmp(&a.left_ms).then(a.network.cmp(&b.network)));
        all.dedup_by(|a, b| a.network == b.network);
        all
    }

    /// Forgets an address, with its block and its failures; `false` if it was not blocked.
    pub fn lift(&self, client: IpAddr, now: Millis) -> bool {
        let was = self.left(client, now).is_some();
        let table = self.table.load();
        let (set, tag) = table.locate(self.rules.prefixes.of(client));
        for place in table.own(set, tag) {
            place.full_at.store(0, Relaxed);
            place.block.store(0, Relaxed);
        }
        was
    }

    /// Goes on with the table of `before`, unless what it counts by has changed.
    pub fn inherit(&self, before: &Blocks) {
        if before.rules.entries == self.rules.entries && before.rules.prefixes == self.rules.prefixes {
            self.table.store(before.table.load_full());
        }
    }

    /// Blocks since the process started.
    pub fn count(&self) -> u64 {
        self.table.load().blocks.load(Relaxed)
    }

    /// Failures that were not counted, because there was no place for their address.
    pub fn overflows(&self) -> u64 {
        self.table.load().overflows.load(Relaxed)
    }
}

/// The configured values are equal; the addresses do not matter.
impl PartialEq for Blocks {
    fn eq(&self, other: &Blocks) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Blocks {}

struct Table {
    places: Box<[Place]>,
    sets: u64,
    hasher: RandomState,
    blocks: AtomicU64,
    overflows: AtomicU64,
}

#[derive(Debug, Default)]
struct Place {
    /// Hash of the address, never 0: 0 is an empty place.
    tag: AtomicU64,
    /// When no failure counts any more, in nanoseconds of the monotonic clock.
    full_at: AtomicU64,
    /// A [`Block`].
    block: AtomicU64,
    /// The address as one of IPv6, to be shown: the halves may be of two owners for a moment.
    high: AtomicU64,
    low: AtomicU64,
}

/// The last block of an address, over or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    until: Millis,
    /// How many there were, up to [`LEVEL_MAX`].
    count: u64,
}

impl Block {
    fn of(word: u64) -> Block {
        Block { until: word >> LEVEL_BITS, count: word & LEVEL_MAX }
    }

    fn word(self) -> u64 {
        self.until << LEVEL_BITS | self.count.min(LEVEL_MAX)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl Table {
    fn new(entries: usize) -> Table {
        let sets = entries.div_ceil(WAYS).max(1);
        let places = (0..sets * WAYS).map(|_| Place::default()).collect();
        let (blocks, overflows) = (AtomicU64::new(0), AtomicU64::new(0));
        Table { places, sets: sets as u64, hasher: RandomState::new(), blocks, overflows }
    }

    /// The set of an address, and what stands for it there.
    fn locate(&self, address: IpAddr) -> (&[Place], u64) {
        let hash = self.hasher.hash_one(address);
        let start = ((u128::from(hash) * u128::from(self.sets)) >> 64) as usize * WAYS;
        (self.places.get(start..start + WAYS).unwrap_or_default(), hash | 1)
    }

    /// The places of an address: two, where two workers gave it one at the same moment.
    fn own<'s>(&self, set: &'s [Place], tag: u64) -> impl Iterator<Item = &'s Place> {
        set.iter().filter(move |place| place.tag.load(Relaxed) == tag)
    }

    fn fail(&self, address: IpAddr, rules: &BlockRules, now: Millis) -> Option<Millis> {
        let Some(place) = self.claim(address, now) else {
            self.overflows.fetch_add(1, Relaxed);
            return None;
        };
        let now_ns = now.saturating_mul(NS_PER_MS);
        let mut word = place.block.load(Relaxed);
        let until = Block::of(word).until;
        if until > now {
            return None;
        }
        let quiet_since = until.max(place.full_at.load(Relaxed) / NS_PER_MS);
        if word != 0 && now >= quiet_since.saturating_add(rules.longest_ms) {
            // It fails if another worker has seen that first.
            word = place.block.compare_exchange(word, 0, Relaxed, Relaxed).map_or_else(|seen| seen, |_| 0);
        }
        let last = Block::of(word);
        let each_ns = (rules.failures.period_ms.saturating_mul(NS_PER_MS) / rules.failures.units.max(1)).max(1);
        let more = |full_at: u64| Some(full_at.max(now_ns).saturating_add(each_ns));
        let before = place.full_at.fetch_update(Relaxed, Relaxed, more).unwrap_or_else(|full_at| full_at);
        let pending_ns = before.saturating_sub(now_ns).saturating_add(each_ns);
        if pending_ns <= each_ns.saturating_mul(rules.failures.units.saturating_sub(1)) {
            return None;
        }
        let doubled = rules.first_ms.saturating_mul(1 << last.count.min(32));
        let time_ms = doubled.min(rules.longest_ms);
        let next = Block { until: now.saturating_add(time_ms), count: last.count + 1 };
        // It fails if another worker has blocked it, or it has been lifted, at this moment.
        place.block.compare_exchange(word, next.word(), Relaxed, Relaxed).ok()?;
        // After the block it has all its failures again.
        place.full_at.store(0, Relaxed);
        self.blocks.fetch_add(1, Relaxed);
        Some(time_ms)
    }

    /// The place of an address, which it is given if it has none.
    fn claim(&self, address: IpAddr, now: Millis) -> Option<&Place> {
        let (set, tag) = self.locate(address);
        // Each attempt fails only because another worker has changed the set.
        for _ in 0..WAYS {
            if let Some(own) = self.own(set, tag).next() {
                return Some(own);
            }
            let (place, word) = free(set, now)?;
            if place.tag.compare_exchange(word, tag, Relaxed, Relaxed).is_ok() {
                place.full_at.store(0, Relaxed);
                place.block.store(0, Relaxed);
                let bits = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(v6) => v6.to_bits(),
                };
                place.high.store((bits >> 64) as u64, Relaxed);
                place.low.store(bits as u64, Relaxed);
                return Some(place);
            }
        }
        None
    }

    fn blocked(&self, place: &Place, rules: &BlockRules, now: Millis) -> Option<Blocked> {
        let (tag, block) = (place.tag.load(Relaxed), Block::of(place.block.load(Relaxed)));
        let left_ms = block.until.checked_sub(now).filter(|left| *left > 0 && tag != 0)?;
        let bits = u128::from(place.high.load(Relaxed)) << 64 | u128::from(place.low.load(Relaxed));
        let address = IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical();
        let network = rules.prefixes.network(address);
        // An address whose place has another owner meanwhile is not shown.
        let shown = self.locate(address).1 == tag && !rules.exempt.contains(address);
        shown.then_some(Blocked { network, left_ms, blocks: block.count })
    }
}

/// The place that a newcomer gets: an empty one, or that of the address that will be forgotten
/// next. With its tag.
fn free(set: &[Place], now: Millis) -> Option<(&Place, u64)> {
    let open = set.iter().filter(|place| Block::of(place.block.load(Relaxed)).until <= now);
    let place = open.min_by_key(|place| {
        let until = Block::of(place.block.load(Relaxed)).until;
        let is_used = place.tag.load(Relaxed) != 0;
        (is_used, until.max(place.full_at.load(Relaxed) / NS_PER_MS))
    })?;
    Some((place, place.tag.load(Relaxed)))
}

#[cfg(test)]
mod tests;
