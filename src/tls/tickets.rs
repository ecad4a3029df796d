//! Stateless session tickets: one set of keys for all workers and listeners, rotated by the control
//! thread.
//!
//! A ticket is `key name (16) | nonce (12) | encrypted state and tag`. The name and the listener's
//! client authentication are its associated data: a ticket from a listener that requires no client
//! certificate is not valid at one that does.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A key encrypts tickets for one period, and decrypts them for two.
pub const PERIOD_S: u64 = 6 * 3600;
const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// The ticket keys of a process.
pub struct TicketKeys(RwLock<Ring>);

struct Ring {
    /// The current key, then the previous one.
    keys: Vec<Key>,
    /// Start of the current key, in seconds since the Unix epoch.
    since: u64,
}

struct Key {
    name: [u8; NAME_BYTES],
    aead: LessSafeKey,
}

impl Key {
    fn random() -> Option<Key> {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; SECRET_BYTES]);
        rand::fill(&mut name).ok()?;
        rand::fill(&mut secret).ok()?;
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).ok()?);
        Some(Key { name, aead })
    }
}

impl TicketKeys {
    /// Without a key, and so without tickets, until [`TicketKeys::begin`]: a process without TLS
    /// needs no random bytes.
    pub fn new() -> Arc<TicketKeys> {
        Arc::new(TicketKeys(RwLock::new(Ring { keys: Vec::new(), since: 0 })))
    }

    /// Creates the first key unless there is one. `false` if no random bytes are available.
    pub fn begin(&self, now_unix_s: u64) -> bool {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.keys.is_empty() {
            let Some(key) = Key::random() else { return false };
            ring.keys.push(key);
            ring.since = now_unix_s;
        }
        true
    }

    /// Replaces a key that is a period old and reports whether it did. Without random bytes the old
    /// key stays.
    pub fn rotate(&self, now_unix_s: u64) -> bool {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.keys.is_empty() || now_unix_s < ring.since + PERIOD_S {
            return false;
        }
        let Some(key) = Key::random() else { return false };
        // After a suspend the current key may itself be too old to keep.
        let late = now_unix_s >= ring.since + 2 * PERIOD_S;
        ring.keys.truncate(if late { 0 } else { 1 });
        ring.keys.insert(0, key);
        ring.since = now_unix_s;
        true
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

/// The tickets of one listener.
#[derive(Debug)]
pub struct Tickets {
    pub keys: Arc<TicketKeys>,
    /// A digest of the listener's client authentication.
    pub context: Vec<u8>,
}

impl Tickets {
    fn aad(&self, name: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([name, &self.context].concat())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.keys.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut encrypted = plain.to_vec();
        let aad = self.aad(&key.name);
        key.aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut encrypted).ok()?;
        Some([&key.name, nonce.as_slice(), &encrypted].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.keys.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.keys.iter().find(|key| key.name == *name)?;
        let mut bytes = encrypted.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.aead.open_in_place(nonce, self.aad(name), &mut bytes).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(now_unix_s: u64) -> Arc<TicketKeys> {
        let keys = TicketKeys::new();
        assert!(keys.begin(now_unix_s));
        keys
    }

    fn tickets(keys: &Arc<TicketKeys>, context: &[u8]) -> Tickets {
        Tickets { keys: Arc::clone(keys), context: context.to_vec() }
    }

    #[test]
    fn a_ticket_is_valid_for_its_period_and_the_next() {
        let keys = keys(1_000);
        let tickets = tickets(&keys, b"x");
        let ticket = tickets.encrypt(b"state").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(b"state".as_slice()));
        assert!(!keys.rotate(1_000 + PERIOD_S - 1));
        assert!(keys.rotate(1_000 + PERIOD_S));
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(b"state".as_slice()));
        assert!(keys.rotate(1_000 + 2 * PERIOD_S));
        assert_eq!(tickets.decrypt(&ticket), None);
    }

    #[test]
    fn begin_creates_one_key_and_no_tickets_exist_before() {
        let keys = TicketKeys::new();
        let tickets = tickets(&keys, b"x");
        assert!(!keys.rotate(9 * PERIOD_S));
        assert_eq!(tickets.encrypt(b"state"), None);
        assert!(keys.begin(9 * PERIOD_S));
        let ticket = tickets.encrypt(b"state").unwrap();
        assert!(keys.begin(9 * PERIOD_S + 1) && !keys.rotate(10 * PERIOD_S - 1));
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(b"state".as_slice()));
    }

    #[test]
    fn rotation_after_two_periods_drops_the_old_key() {
        let keys = keys(0);
        let tickets = tickets(&keys, b"x");
        let ticket = tickets.encrypt(b"state").unwrap();
        assert!(keys.rotate(5 * PERIOD_S));
        assert_eq!(tickets.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_of_another_listener_or_a_changed_one_is_rejected() {
        let keys = keys(0);
        let ticket = tickets(&keys, b"no certificate").encrypt(b"state").unwrap();
        assert_eq!(tickets(&keys, b"certificate required").decrypt(&ticket), None);
        for i in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[i] ^= 1;
            assert_eq!(tickets(&keys, b"no certificate").decrypt(&forged), None, "byte {i}");
            assert_eq!(tickets(&keys, b"no certificate").decrypt(&ticket[..i]), None, "cut at {i}");
        }
    }
}
