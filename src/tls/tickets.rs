//! Session tickets without state: one set of keys for all workers and listeners, rotated by the control thread, and
//! written down in a form that another process can go on with.
//!
//! A ticket is `name (16) | nonce (12) | sealed state and tag`. The name and what a listener asks of its clients are authenticated
//! with it: a ticket that was given without asking for a certificate is worth nothing where one is required.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A key makes tickets for so long, and opens them for as long again.
pub const PERIOD_S: u64 = 6 * 3600;
const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const FORM: u8 = 1;
const KEY_FORM_BYTES: usize = NAME_BYTES + SECRET_BYTES;

/// The keys of a process.
pub struct TicketKeys(RwLock<Ring>);

struct Ring {
    /// First the one that makes tickets, then the one before it.
    keys: Vec<Key>,
    /// When the first one began, in seconds since the Unix epoch.
    since: u64,
}

struct Key {
    name: [u8; NAME_BYTES],
    secret: [u8; SECRET_BYTES],
    sealing: LessSafeKey,
}

impl Key {
    fn new(name: [u8; NAME_BYTES], secret: [u8; SECRET_BYTES]) -> Option<Key> {
        let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).ok()?);
        Some(Key { name, secret, sealing })
    }

    fn fresh() -> Option<Key> {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; SECRET_BYTES]);
        rand::fill(&mut name).ok()?;
        rand::fill(&mut secret).ok()?;
        Key::new(name, secret)
    }
}

impl TicketKeys {
    /// Without a key yet, and so without tickets: the first random bytes of a process are dear, and not everybody needs them.
    pub fn new() -> Arc<TicketKeys> {
        Arc::new(TicketKeys(RwLock::new(Ring { keys: Vec::new(), since: 0 })))
    }

    /// Makes the first key, if there is none. `false` where there are no random bytes to be had.
    pub fn begin(&self, now_unix_s: u64) -> bool {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.keys.is_empty() {
            let Some(key) = Key::fresh() else { return false };
            ring.keys.push(key);
            ring.since = now_unix_s;
        }
        true
    }

    /// A new key takes the place of one that is six hours old; whether it did. Without random bytes the old one stays.
    pub fn rotate(&self, now_unix_s: u64) -> bool {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.keys.is_empty() || now_unix_s < ring.since + PERIOD_S {
            return false;
        }
        let Some(key) = Key::fresh() else { return false };
        // After a long sleep the one before has no business here any more.
        let late = now_unix_s >= ring.since + 2 * PERIOD_S;
        ring.keys.truncate(if late { 0 } else { 1 });
        ring.keys.insert(0, key);
        ring.since = now_unix_s;
        true
    }

    /// All that another process needs to open these tickets. Secret.
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut out = vec![FORM];
        out.extend_from_slice(&ring.since.to_be_bytes());
        for key in &ring.keys {
            out.extend_from_slice(&key.name);
            out.extend_from_slice(&key.secret);
        }
        out
    }

    /// What [`TicketKeys::to_bytes`] wrote; `None` if it is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Arc<TicketKeys>> {
        let (&form, rest) = bytes.split_first()?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        if form != FORM || rest.is_empty() || rest.len() > 2 * KEY_FORM_BYTES || rest.len() % KEY_FORM_BYTES != 0 {
            return None;
        }
        let keys: Option<Vec<_>> = rest
            .chunks_exact(KEY_FORM_BYTES)
            .map(|key| {
                let (name, secret) = key.split_first_chunk::<NAME_BYTES>()?;
                Key::new(*name, secret.try_into().ok()?)
            })
            .collect();
        Some(Arc::new(TicketKeys(RwLock::new(Ring { keys: keys?, since: u64::from_be_bytes(*since) }))))
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
    /// Stands for what the listener asks of its clients.
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
        let mut sealed = plain.to_vec();
        let aad = self.aad(&key.name);
        key.sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&key.name, nonce.as_slice(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.keys.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.keys.iter().find(|key| key.name == *name)?;
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.sealing.open_in_place(nonce, self.aad(name), &mut bytes).ok()?;
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
    fn a_ticket_opens_for_a_period_and_as_long_again() {
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
    fn before_the_first_key_there_are_no_tickets_and_afterwards_it_stays() {
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
    fn after_a_long_sleep_no_old_key_is_left() {
        let keys = keys(0);
        let tickets = tickets(&keys, b"x");
        let ticket = tickets.encrypt(b"state").unwrap();
        assert!(keys.rotate(5 * PERIOD_S));
        assert_eq!(tickets.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_of_another_listener_or_with_a_changed_byte_is_worth_nothing() {
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

    #[test]
    fn another_process_goes_on_with_the_keys() {
        let keys = keys(7);
        let ticket = tickets(&keys, b"").encrypt(b"state").unwrap();
        keys.rotate(7 + PERIOD_S);
        let written = keys.to_bytes();
        let taken = TicketKeys::from_bytes(&written).unwrap();
        assert_eq!(tickets(&taken, b"").decrypt(&ticket).as_deref(), Some(b"state".as_slice()));
        assert!(!taken.rotate(7 + 2 * PERIOD_S - 1) && taken.rotate(7 + 2 * PERIOD_S));
        for cut in 0..written.len() {
            assert!(cut == 9 + KEY_FORM_BYTES || TicketKeys::from_bytes(&written[..cut]).is_none(), "cut at {cut}");
        }
        assert!(TicketKeys::from_bytes(&[&written[..], &[0]].concat()).is_none());
    }
}
