//! Answers of calls that may be used again, of one worker: each until its time is over, and no more
//! than fit. The oldest go first.

use crate::memory::{KEPT_BYTES, KEPT_MAX};
use crate::policy::ask::Answer;
use crate::proto::Millis;
use crate::proto::call::CallResponse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The SHA-256 of what an answer depends on.
type Key = [u8; 32];

#[derive(Debug, Default)]
pub struct Kept {
    entries: HashMap<Key, Entry>,
    /// By their numbers, which grow.
    order: BTreeMap<u64, Key>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    until: Millis,
    at_unix_ms: u64,
    response: Arc<CallResponse>,
    bytes: usize,
}

impl Kept {
    /// The answer for `key`, if there is one that is not too old.
    pub fn get(&mut self, key: &Key, now: Millis) -> Option<Answer> {
        let entry = self.entries.get(key)?;
        if entry.until <= now {
            self.remove(key);
            return None;
        }
        Some(Answer::Response { response: Arc::clone(&entry.response), at_unix_ms: entry.at_unix_ms })
    }

    /// Keeps a response until `until`; `at_unix_ms` is when it came.
    pub fn insert(&mut self, key: Key, response: &Arc<CallResponse>, at_unix_ms: u64, until: Millis) {
        const ENTRY: usize = size_of::<Entry>() + 2 * size_of::<Key>() + size_of::<u64>();
        self.remove(&key);
        let (bytes, number) = (response.bytes() + ENTRY, self.next);
        self.next += 1;
        while self.entries.len() >= KEPT_MAX || self.bytes + bytes > KEPT_BYTES {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
        }
        self.bytes += bytes;
        self.order.insert(number, key);
        let entry = Entry { number, until, at_unix_ms, response: Arc::clone(response), bytes };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.number);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key
    }

    fn response(status: u16, bytes: usize) -> Arc<CallResponse> {
        Arc::new(CallResponse { status, fields: Vec::new(), body: vec![0; bytes] })
    }

    fn status(kept: &mut Kept, n: usize, now: Millis) -> Option<u16> {
        match kept.get(&key(n), now)? {
            Answer::Response { response, .. } => Some(response.status),
            answer => panic!("{answer:?}"),
        }
    }

    #[test]
    fn answers_are_kept_for_their_time() {
        let mut kept = Kept::default();
        kept.insert(key(1), &response(200, 0), 5, 100);
        kept.insert(key(2), &response(401, 0), 5, 50);
        assert_eq!((status(&mut kept, 1, 49), status(&mut kept, 2, 49)), (Some(200), Some(401)));
        assert_eq!((status(&mut kept, 1, 50), status(&mut kept, 2, 50)), (Some(200), None));
        kept.insert(key(1), &response(403, 0), 6, 120);
        assert_eq!(status(&mut kept, 1, 119), Some(403));
        assert_eq!((status(&mut kept, 1, 120), status(&mut kept, 3, 0)), (None, None));
        assert_eq!((kept.bytes, kept.entries.len(), kept.order.len()), (0, 0, 0));
    }

    #[test]
    fn no_more_than_fit_and_the_oldest_go_first() {
        let mut kept = Kept::default();
        for n in 0..KEPT_MAX + 10 {
            kept.insert(key(n), &response(200, 0), 0, 100);
        }
        assert_eq!((kept.entries.len(), kept.order.len()), (KEPT_MAX, KEPT_MAX));
        assert_eq!((status(&mut kept, 9, 0), status(&mut kept, 10, 0)), (None, Some(200)));
        let large = KEPT_BYTES / 10;
        for n in 0..30 {
            kept.insert(key(n), &response(200, large), 0, 100);
            assert!(kept.bytes <= KEPT_BYTES && kept.entries.len() == kept.order.len());
        }
        assert_eq!((status(&mut kept, 29, 0), status(&mut kept, 1, 0)), (Some(200), None));
    }
}
