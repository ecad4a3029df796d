//! What other hosts have of the clients of a table, and how a service thread learns of clients to
//! ask them about (`crate::sharing`). A handshake looks at the numbers here and never waits.
//!
//! A worker hands a client over ([`Notify`]) when the thread does not know it yet. From then on
//! the thread reads what the client has here ([`SharedKey::usage`]), stores what others have
//! ([`SharedKey::learn`]), and lets go of it when it has nothing left ([`SharedKey::forget`]).
//! Whether the thread knows the client stands in `known`, under the tag of the client's place: a
//! place that another client has taken tells nothing of the one before.

use super::{COUNT_MAX, HandshakeRate, Key, KeyLimit, NS_PER_MS, Place, Table};
use crate::proto::Millis;
use aws_lc_rs::digest;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// What sharing adds to a place.
pub const SHARED_BYTES: usize = size_of::<Cell>();
/// The longest wait for a rate that an answer is believed about.
const HOSTS_MAX: u64 = 1_024;
/// A rate without a unit is no rate.
const NO_RATE: u64 = 0;

/// Stands for a client everywhere: the start of a SHA-256 of scope, kind and client.
pub type KeyId = [u8; 16];

/// How limits are shared.
#[derive(Clone)]
pub struct Notify {
    /// Takes a client over; `false`: there is no room, the client counts here alone.
    pub hand_over: Arc<dyn Fn(SharedKey) -> bool + Send + Sync>,
    /// How long what others have is believed without news, also where the thread is stuck.
    pub believed_ms: Millis,
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notify")
    }
}

/// The part of a table that is shared.
#[derive(Debug)]
pub(super) struct Shared {
    /// In the order of the places.
    cells: Box<[Cell]>,
    /// The start of the hash of a key's id.
    scope: Box<[u8]>,
    /// Of the rate: nanoseconds for each handshake, 0 without one; and the burst.
    each_ns: AtomicU64,
    burst: AtomicU64,
    /// When something was last learnt of any client.
    heard: AtomicU64,
    believed_ms: AtomicU64,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Cell {
    /// The tag of the client that the thread knows, above the sessions that it has elsewhere.
    known: AtomicU64,
    /// Handshakes that have passed, and that others have not been told of.
    passed: AtomicU64,
}

/// A client of a table, for the thread that shares it.
#[derive(Debug, Clone)]
pub struct SharedKey {
    pub id: KeyId,
    table: Arc<Table>,
    place: usize,
    tag: u64,
}

/// What a client has here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub sessions: u64,
    /// Handshakes to be told of.
    pub passed: u64,
    /// The time that these take of the rate.
    pub owed_us: u64,
}

impl Shared {
    pub fn new(places: usize, scope: &str, notify: Notify) -> Shared {
        let cells = (0..places).map(|_| Cell::default()).collect();
        let [each_ns, burst, heard, believed_ms] = [NO_RATE, 0, 0, 0].map(AtomicU64::new);
        Shared { cells, scope: scope.as_bytes().into(), each_ns, burst, heard, believed_ms, notify }
    }

    /// A reload may change the rate, and the time.
    pub fn set(&self, limit: &KeyLimit, notify: &Notify) {
        let (each_ns, burst) = limit.handshakes.map_or((NO_RATE, 0), |rate| (each_ns(rate), rate.burst));
        self.each_ns.store(each_ns, Relaxed);
        self.burst.store(burst, Relaxed);
        self.believed_ms.store(notify.believed_ms, Relaxed);
    }

    /// Sessions that the client with this place has elsewhere; 0 as long as it is not known, and
    /// without news for too long.
    pub fn others(&self, (place, tag): (usize, u64), now: Millis) -> u64 {
        let known = self.cells.get(place).map_or(0, |cell| cell.known.load(SeqCst));
        let until = self.heard.load(Relaxed).saturating_add(self.believed_ms.load(Relaxed));
        if known & !COUNT_MAX == tag && now < until { known & COUNT_MAX } else { 0 }
    }

    /// A handshake of the client has passed.
    pub fn pass(&self, place: usize) {
        if let Some(cell) = self.cells.get(place) {
            cell.passed.fetch_add(1, SeqCst);
        }
    }

    /// The place has gone to another client.
    pub fn clear(&self, place: usize) {
        if let Some(cell) = self.cells.get(place) {
            cell.passed.store(0, Relaxed);
        }
    }

    /// Hands the client over, if the thread does not know it. Called after its place has changed:
    /// [`SharedKey::forget`] reads in the other order, so one of the two sees the other.
    pub fn notify(table: &Arc<Table>, (place, tag): (usize, u64), key: &impl Key) {
        let Some(shared) = table.sharing() else { return };
        let Some(cell) = shared.cells.get(place) else { return };
        let before = cell.known.load(SeqCst);
        if before & !COUNT_MAX == tag || cell.known.compare_exchange(before, tag, SeqCst, Relaxed).is_err() {
            return;
        }
        let shared_key = SharedKey { id: shared.id(key), table: Arc::clone(table), place, tag };
        if !(shared.notify.hand_over)(shared_key) {
            // The next handshake tries again. Changed meanwhile: another client has the place.
            let _ = cell.known.compare_exchange(tag, 0, SeqCst, Relaxed);
        }
    }

    fn id(&self, key: &impl Key) -> KeyId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&(self.scope.len() as u64).to_be_bytes());
        context.update(&self.scope);
        context.update(&key.bytes());
        let mut id = KeyId::default();
        id.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        id
    }
}

impl SharedKey {
    /// What the client has now; its passed handshakes are taken. `None`: its place has gone to
    /// another client, or the limit is not shared any more.
    pub fn usage(&self, now: Millis) -> Option<Usage> {
        let (shared, cell, place) = self.parts()?;
        let each_ns = shared.each_ns.load(Relaxed);
        // No more than what the rate still remembers: what passed long ago is paid for.
        let left_ns = place.full_at.load(Relaxed).saturating_sub(now.saturating_mul(NS_PER_MS));
        let owed = if each_ns > NO_RATE { left_ns.div_ceil(each_ns) } else { 0 };
        let passed = cell.passed.swap(0, SeqCst).min(owed);
        let owed_us = passed.saturating_mul(each_ns).div_ceil(1_000);
        Some(Usage { sessions: place.word.load(SeqCst) & COUNT_MAX, passed, owed_us })
    }

    /// Whether [`SharedKey::usage`] would say anything other than these sessions.
    pub fn has_changed(&self, sessions: u64) -> bool {
        self.parts().is_none_or(|(_, cell, place)| {
            cell.passed.load(Relaxed) > 0 || place.word.load(Relaxed) & COUNT_MAX != sessions
        })
    }

    /// The taken handshakes could not be told of.
    pub fn give_back(&self, usage: Usage) {
        if let Some((_, cell, _)) = self.parts() {
            cell.passed.fetch_add(usage.passed, SeqCst);
        }
    }

    /// What others have, as asked at `asked`: their sessions, and how long until the rate is full
    /// again for all hosts together.
    ///
    /// # Errors
    /// The time is longer than hosts can have caused. Nothing has changed.
    pub fn learn(&self, others: u64, full_in_us: u64, asked: Millis) -> Result<(), String> {
        let Some((shared, cell, place)) = self.parts() else { return Ok(()) };
        let each_ns = shared.each_ns.load(Relaxed);
        let longest_us = (each_ns / 1_000 + 1).saturating_mul(shared.burst.load(Relaxed).saturating_mul(HOSTS_MAX));
        if each_ns > NO_RATE && full_in_us > longest_us {
            return Err(format!("a rate that is full in {full_in_us} us"));
        }
        shared.heard.fetch_max(asked, Relaxed);
        let store = |known: u64| (known & !COUNT_MAX == self.tag).then_some(self.tag | others.min(COUNT_MAX));
        // Unchanged where the place has gone to another client.
        let _ = cell.known.fetch_update(SeqCst, SeqCst, store);
        if each_ns > NO_RATE && full_in_us > 0 {
            let since = cell.passed.load(SeqCst).saturating_mul(each_ns);
            let full_at = asked.saturating_mul(NS_PER_MS).saturating_add(full_in_us.saturating_mul(1_000));
            let full_at = full_at.saturating_add(since);
            // Never less: what Redis has lost is remembered here. A client that takes the place
            // begins with another value, with which this one is not stored.
            let later = |known: u64| (known < full_at && self.has_place(place)).then_some(full_at);
            let _ = place.full_at.fetch_update(Relaxed, Relaxed, later);
        }
        Ok(())
    }

    /// Counts the client here alone, until others are heard of again.
    pub fn isolate(&self) {
        if let Some((_, cell, _)) = self.parts() {
            let alone = |known: u64| (known & !COUNT_MAX == self.tag).then_some(self.tag);
            let _ = cell.known.fetch_update(SeqCst, SeqCst, alone);
        }
    }

    /// Ends the interest in the client, whatever it has: its next handshake hands it over again.
    pub fn release(&self) {
        if let Some(cell) = self.table.shared.get().and_then(|shared| shared.cells.get(self.place)) {
            let release = |known: u64| (known & !COUNT_MAX == self.tag).then_some(0);
            // Unchanged where the place has gone to another client.
            let _ = cell.known.fetch_update(SeqCst, SeqCst, release);
        }
    }

    /// Ends the interest in the client. `false`: it has something at this very moment, and stays
    /// known.
    pub fn forget(&self) -> bool {
        let Some(cell) = self.table.shared.get().and_then(|shared| shared.cells.get(self.place)) else { return true };
        let known = cell.known.load(SeqCst);
        if known & !COUNT_MAX != self.tag || cell.known.compare_exchange(known, 0, SeqCst, Relaxed).is_err() {
            return true;
        }
        let Some((_, cell, place)) = self.parts() else { return true };
        let has_some = place.word.load(SeqCst) & COUNT_MAX > 0 || cell.passed.load(SeqCst) > 0;
        // Where a worker has handed it over again meanwhile, it comes back by that way.
        !(has_some && cell.known.compare_exchange(0, known, SeqCst, Relaxed).is_ok())
    }

    fn parts(&self) -> Option<(&Shared, &Cell, &Place)> {
        let shared = self.table.sharing()?;
        let place = self.table.places.get(self.place).filter(|place| self.has_place(place))?;
        Some((shared, shared.cells.get(self.place)?, place))
    }

    fn has_place(&self, place: &Place) -> bool {
        place.word.load(SeqCst) & !COUNT_MAX == self.tag
    }
}

/// Nanoseconds for each handshake.
pub(super) fn each_ns(limit: HandshakeRate) -> u64 {
    (limit.rate.period_ms.saturating_mul(NS_PER_MS) / limit.rate.units.max(1)).max(1)
}

#[cfg(test)]
mod tests;
