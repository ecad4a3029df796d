//! Limits for each client by itself: by its address, or by who it is. Counts and rates are kept in
//! a table of fixed size, shared by all workers, without a lock.
//!
//! A table has sets of eight places. A key belongs to one set, and takes a place there that is
//! empty, or whose key has no session: first one whose rates are full again, with which nothing is
//! lost, then the one that is nearest to that. Where all eight have sessions, the client is not
//! counted, and that is counted ([`TableUse`]). Keys are hashed with a secret: a client cannot
//! choose its set. What other hosts have of the same clients is in `shared`.

mod shared;

pub use shared::{KeyId, Notify, SHARED_BYTES, SharedKey, Usage};

use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::interface::Refusal;
use crate::proto::rate::{Bucket, CELL_BYTES, Meter, Rate, RateLimit};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use shared::{Shared, each_ns};
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

/// Places of a set.
const WAYS: usize = 8;
/// Of a place's word, the low bits count sessions; the others are of the key's hash.
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const NS_PER_MS: u64 = 1_000_000;

/// What one client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimit {
    /// Sessions at a time.
    pub sessions: Option<u64>,
    pub handshakes: Option<HandshakeRate>,
    /// Addresses of IPv6 that have this prefix in common are one client.
    pub ipv6_prefix: u8,
    /// Places of the table.
    pub entries: usize,
    /// Counted together with the other hosts.
    pub shared: bool,
}

/// What a client is known by.
pub trait Key: Hash {
    /// The same on every host, and for no other client of the same table.
    fn bytes(&self) -> Cow<'_, [u8]>;
}

impl Key for IpAddr {
    fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            IpAddr::V4(address) => address.octets().to_vec().into(),
            IpAddr::V6(address) => address.octets().to_vec().into(),
        }
    }
}

impl Key for &str {
    fn bytes(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }
}

impl Key for String {
    fn bytes(&self) -> Cow<'_, [u8]> {
        self.as_bytes().into()
    }
}

/// So many handshakes in a time, and at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeRate {
    pub rate: Rate,
    pub burst: u64,
}

/// What is limited, for the cause of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Address,
    Identity,
}

/// A client has too many sessions, or makes too many handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    pub cause: Cause,
    /// When it may try again; `None` when another of its sessions ends.
    pub retry_ms: Option<Millis>,
}

impl From<Excess> for Refusal {
    fn from(excess: Excess) -> Refusal {
        let seconds = excess.retry_ms.map_or(1, |ms| ms.div_ceil(1_000).max(1));
        Refusal { field: Some(("Retry-After", seconds.to_string().into())), ..excess.cause.into() }
    }
}

/// How full a table is, and whom it has no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableUse {
    pub places: u64,
    /// Places that a client has, or had without another one since.
    pub used: u64,
    /// Clients without sessions that lost their place before their rate was full again.
    pub evicted: u64,
    /// Times a client found no place.
    pub overflows: u64,
}

/// The limit of a route, with its table, which lives over reloads.
#[derive(Debug)]
pub struct Keyed {
    pub by: By,
    pub limit: KeyLimit,
    /// What all sessions of a client may do together. They need a count of its sessions, which
    /// keep its place in the table.
    pub rates: Vec<RateLimit>,
    table: ArcSwap<Table>,
}

impl Keyed {
    pub fn new(by: By, limit: KeyLimit) -> Keyed {
        Keyed::with_rates(by, limit, Vec::new())
    }

    pub fn with_rates(by: By, limit: KeyLimit, rates: Vec<RateLimit>) -> Keyed {
        let table = ArcSwap::from_pointee(Table::new(limit.entries, &rates));
        Keyed { by, limit, rates, table }
    }

    /// One more handshake of the client with this address.
    pub fn handshake(&self, key: &impl Key, now: Millis) -> Result<(), Excess> {
        let Some(rate) = self.limit.handshakes else { return Ok(()) };
        let cause = match self.by {
            By::Address => Cause::AddressRate,
            By::Identity => Cause::IdentityRate,
        };
        let passed = Table::pass(&self.table.load_full(), key, rate, now);
        passed.map_err(|retry_ms| Excess { cause, retry_ms: Some(retry_ms) })
    }

    /// One more session; counted while the result is held. `Ok(None)`: it is not limited.
    pub fn session(&self, key: &impl Key, now: Millis) -> Result<Option<KeyPermit>, Excess> {
        let any = (!self.rates.is_empty()).then_some(u64::MAX);
        let Some(max) = self.limit.sessions.or(any) else { return Ok(None) };
        let cause = match self.by {
            By::Address => Cause::AddressSessions,
            By::Identity => Cause::IdentitySessions,
        };
        Table::take(&self.table.load_full(), key, max, now).map_err(|Full| Excess { cause, retry_ms: None })
    }

    /// The buckets that a session shares with the others of its client. One that is not counted has
    /// buckets of its own.
    pub fn buckets(&self, counted: Option<&KeyPermit>, now: Millis) -> Vec<Arc<Bucket>> {
        let own = || self.rates.iter().map(|limit| Bucket::new(*limit, now));
        let shared = counted.map(|permit| permit.buckets());
        shared.unwrap_or_else(|| own().collect()).into_iter().map(Arc::new).collect()
    }

    /// What stands for an address: IPv4-mapped addresses are IPv4.
    pub fn address(&self, client: IpAddr) -> IpAddr {
        match client.to_canonical() {
            IpAddr::V6(address) => {
                IpNet::new(address.into(), self.limit.ipv6_prefix).map_or(client, |net| net.network())
            }
            address => address,
        }
    }

    pub fn inherit_from(own: &Option<Keyed>, before: &Option<Keyed>) {
        if let (Some(own), Some(before)) = (own, before) {
            own.inherit(before);
        }
    }

    /// Goes on with the counts of `before`.
    pub fn inherit(&self, before: &Keyed) {
        if before.limit.entries == self.limit.entries {
            let table = before.table.load_full();
            if before.rates != self.rates {
                table.change_rates(&self.rates);
            }
            self.table.store(table);
        }
    }

    /// What its table takes.
    pub fn bytes(&self) -> usize {
        self.limit.entries.saturating_mul(size_of::<Place>() + self.rates.len() * CELL_BYTES)
    }

    pub fn use_of_table(&self) -> TableUse {
        let table = self.table.load();
        let read = |count: &AtomicU64| count.load(Relaxed);
        let (used, evicted, overflows) = (read(&table.used), read(&table.evicted), read(&table.overflows));
        TableUse { places: table.places.len() as u64, used, evicted, overflows }
    }

    /// Has the clients handed over that are to be shared, from now on. Clients are the same on
    /// other hosts where `scope` is. `None`: they are counted here alone.
    pub fn share(&self, scope: &str, notify: Option<&Notify>) {
        let table = self.table.load_full();
        let notify = notify.filter(|_| self.limit.shared);
        table.is_shared.store(notify.is_some(), SeqCst);
        if let Some(notify) = notify {
            let scope = match self.by {
                By::Address => format!("address {scope}"),
                By::Identity => format!("identity {scope}"),
            };
            table
                .shared
                .get_or_init(|| Shared::new(table.places.len(), &scope, notify.clone()))
                .set(&self.limit, notify);
        }
    }
}

/// The configured values are equal; counts do not matter.
impl PartialEq for Keyed {
    fn eq(&self, other: &Keyed) -> bool {
        self.by == other.by && self.limit == other.limit && self.rates == other.rates
    }
}

impl Eq for Keyed {}

/// Counts of clients.
#[derive(Debug)]
struct Table {
    places: Box<[Place]>,
    /// A rate of all sessions of a client together each.
    meters: ArcSwap<Vec<Meter>>,
    sets: u64,
    hasher: RandomState,
    /// As in [`TableUse`].
    used: AtomicU64,
    evicted: AtomicU64,
    overflows: AtomicU64,
    /// Made when it is first needed; a reload may stop using it.
    shared: OnceLock<Shared>,
    is_shared: AtomicBool,
}

#[derive(Debug, Default)]
struct Place {
    /// Hash of the key above [`COUNT_BITS`], count below. The hash is never 0: 0 is an empty place.
    word: AtomicU64,
    /// When the rate is full again, in nanoseconds of the monotonic clock.
    full_at: AtomicU64,
}

/// One session of a client, counted while it is held.
#[derive(Debug)]
pub struct KeyPermit {
    table: Arc<Table>,
    place: usize,
}

struct Full;

impl Table {
    fn new(entries: usize, rates: &[RateLimit]) -> Table {
        let sets = entries.div_ceil(WAYS).max(1);
        let places: Box<[Place]> = (0..sets * WAYS).map(|_| Place::default()).collect();
        let meters: Vec<_> = rates.iter().map(|limit| Meter::new(*limit, places.len())).collect();
        let (used, evicted, overflows) = Default::default();
        Table {
            places,
            meters: ArcSwap::from_pointee(meters),
            sets: sets as u64,
            hasher: RandomState::new(),
            used,
            evicted,
            overflows,
            shared: OnceLock::new(),
            is_shared: AtomicBool::new(false),
        }
    }

    /// What is shared with other hosts, if anything is.
    fn sharing(&self) -> Option<&Shared> {
        self.shared.get().filter(|_| self.is_shared.load(SeqCst))
    }

    /// Rates that stay the same go on; sessions that are there keep those that they have.
    fn change_rates(&self, rates: &[RateLimit]) {
        let before = self.meters.load();
        let meter = |limit: &RateLimit| {
            let known = before.iter().find(|meter| meter.limit() == limit);
            known.cloned().unwrap_or_else(|| Meter::new(*limit, self.places.len()))
        };
        self.meters.store(Arc::new(rates.iter().map(meter).collect()));
    }

    /// When everything that the owner of a place has used up will be there again.
    fn full_at_ns(&self, place: usize, now_ns: u64) -> u64 {
        let handshakes = self.places.get(place).map_or(0, |place| place.full_at.load(Relaxed));
        let meters = self.meters.load();
        let rates = meters.iter().map(|meter| meter.full_at(place, now_ns / NS_PER_MS).saturating_mul(NS_PER_MS));
        rates.fold(handshakes.max(now_ns), u64::max)
    }

    /// The place gets another owner.
    fn clear(&self, place: usize, now_ns: u64) {
        self.evicted.fetch_add(u64::from(self.full_at_ns(place, now_ns) > now_ns), Relaxed);
        if let Some(place) = self.places.get(place) {
            place.full_at.store(0, Relaxed);
        }
        self.meters.load().iter().for_each(|meter| meter.fill(place, now_ns / NS_PER_MS));
        if let Some(shared) = self.sharing() {
            shared.clear(place);
        }
    }

    /// Where the places of a key begin, and the bits that stand for it.
    fn locate(&self, key: &impl Key) -> (usize, u64) {
        let hash = self.hasher.hash_one(key);
        let set = ((u128::from(hash) * u128::from(self.sets)) >> 64) as usize;
        // Other bits than those that choose the set, and never none.
        (set * WAYS, hash << COUNT_BITS | 1 << COUNT_BITS)
    }

    /// Changes the word of a key's place, which it is given if it has none. `None` without one, or
    /// where `change`, which is given place and count, refuses.
    fn update(
        &self,
        (start, tag): (usize, u64),
        now_ns: u64,
        change: impl Fn(usize, u64) -> Option<u64>,
    ) -> Result<Option<usize>, Full> {
        // Each attempt fails only because another worker has changed the set.
        for _ in 0..WAYS * WAYS {
            let Some((place, word)) = self.find(start, tag, now_ns) else {
                self.overflows.fetch_add(1, Relaxed);
                return Ok(None);
            };
            let Some(cell) = self.places.get(place) else { return Ok(None) };
            let is_its_own = word & !COUNT_MAX == tag;
            let count = if is_its_own { word & COUNT_MAX } else { 0 };
            let next = change(place, count).ok_or(Full)?;
            if cell.word.compare_exchange(word, tag | next, SeqCst, Relaxed).is_err() {
                continue;
            }
            if is_its_own {
                return Ok(Some(place));
            }
            if word == 0 {
                self.used.fetch_add(1, Relaxed);
            }
            self.clear(place, now_ns);
            if !self.is_elsewhere(start, tag, place) {
                return Ok(Some(place));
            }
            // Another worker has given it a place at the same moment. The one that sees that gives
            // its own up, and takes the first one.
            cell.word.fetch_sub(next, SeqCst);
        }
        self.overflows.fetch_add(1, Relaxed);
        Ok(None)
    }

    /// The key has another place as well.
    fn is_elsewhere(&self, start: usize, tag: u64, place: usize) -> bool {
        let set = self.places.get(start..start + WAYS).unwrap_or_default();
        let mut others = set.iter().enumerate().filter(|(n, _)| start + n != place);
        others.any(|(_, other)| other.word.load(SeqCst) & !COUNT_MAX == tag)
    }

    /// The place of the key, or the one that it gets, with its present word.
    fn find(&self, start: usize, tag: u64, now_ns: u64) -> Option<(usize, u64)> {
        let set = self.places.get(start..start + WAYS)?;
        let words = || set.iter().enumerate().map(|(n, place)| (start + n, place.word.load(Relaxed)));
        if let Some(own) = words().find(|(_, word)| word & !COUNT_MAX == tag) {
            return Some(own);
        }
        let free = words().filter(|(_, word)| word & COUNT_MAX == 0);
        free.min_by_key(|(place, word)| if *word == 0 { 0 } else { self.full_at_ns(*place, now_ns) })
    }

    fn take(table: &Arc<Table>, key: &impl Key, max: u64, now: Millis) -> Result<Option<KeyPermit>, Full> {
        let located = table.locate(key);
        let more = |place: usize, count: u64| {
            let others = table.sharing().map_or(0, |shared| shared.others((place, located.1), now));
            (count.saturating_add(others) < max.min(COUNT_MAX)).then_some(count + 1)
        };
        let place = table.update(located, now.saturating_mul(NS_PER_MS), more)?;
        Ok(place.map(|place| {
            Shared::notify(table, (place, located.1), key);
            KeyPermit { table: Arc::clone(table), place }
        }))
    }

    /// The generic cell rate algorithm (ITU-T I.371). The error is the time until one more passes.
    fn pass(table: &Arc<Table>, key: &impl Key, limit: HandshakeRate, now: Millis) -> Result<(), Millis> {
        let now_ns = now.saturating_mul(NS_PER_MS);
        let each_ns = each_ns(limit);
        let at_once_ns = each_ns.saturating_mul(limit.burst.max(1) - 1);
        let located = table.locate(key);
        let Ok(Some(place)) = table.update(located, now_ns, |_, count| Some(count)) else { return Ok(()) };
        let Some(cell) = table.places.get(place) else { return Ok(()) };
        let pass = |full_at: u64| {
            let full_at = full_at.max(now_ns);
            (full_at - now_ns <= at_once_ns).then(|| full_at.saturating_add(each_ns))
        };
        let passed = cell.full_at.fetch_update(Relaxed, Relaxed, pass);
        if let (Ok(_), Some(shared)) = (passed, table.sharing()) {
            shared.pass(place);
            Shared::notify(table, (place, located.1), key);
        }
        passed.map(drop).map_err(|full_at| (full_at - now_ns - at_once_ns).div_ceil(NS_PER_MS).max(1))
    }
}

impl KeyPermit {
    fn buckets(&self) -> Vec<Bucket> {
        self.table.meters.load().iter().filter_map(|meter| meter.bucket(self.place)).collect()
    }
}

impl Drop for KeyPermit {
    fn drop(&mut self) {
        // A place with sessions keeps its key.
        if let Some(place) = self.table.places.get(self.place) {
            place.word.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
