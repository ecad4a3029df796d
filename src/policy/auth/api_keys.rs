//! API keys: secrets of which the configuration knows the SHA-256 alone. They must be random and
//! long: a hash of a word that people choose can be guessed.

use super::Identity;
use crate::policy::limit::ClientLimits;
use aws_lc_rs::{constant_time, digest};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The SHA-256 of a key.
pub type Hash = [u8; 32];

/// One key.
#[derive(PartialEq, Eq)]
pub struct ApiKey {
    pub hash: Hash,
    /// The subject of who shows it.
    pub owner: String,
    pub scopes: Vec<String>,
    pub roles: Vec<String>,
    /// What may be done with it, apart from the other keys of its owner.
    pub limits: Option<ClientLimits>,
}

/// The keys of a method.
#[derive(PartialEq, Eq)]
pub struct ApiKeys(HashMap<[u8; 16], (Hash, Identity)>);

impl ApiKeys {
    pub fn new(keys: Vec<ApiKey>) -> ApiKeys {
        let key = |key: ApiKey| {
            let id = half(&key.hash);
            let identity = Identity {
                subject: key.owner,
                // Enough of the hash to name the key, and not to find it.
                token_id: Some(crate::text::hex(&key.hash[..8])),
                scopes: key.scopes,
                roles: key.roles,
                limits: key.limits.map(Arc::new),
                ..Identity::default()
            };
            (id, (key.hash, identity))
        };
        ApiKeys(keys.into_iter().map(key).collect())
    }

    /// Who a credential belongs to. The time of the look-up depends on half of the hash of what was
    /// sent, which tells nothing about the keys; what decides is compared in constant time.
    pub fn owner(&self, credential: &[u8]) -> Option<&Identity> {
        let mut hash = Hash::default();
        hash.copy_from_slice(digest::digest(&digest::SHA256, credential).as_ref());
        let (known, identity) = self.0.get(&half(&hash))?;
        constant_time::verify_slices_are_equal(known, &hash).is_ok().then_some(identity)
    }

    /// Keys that are known go on being counted.
    pub fn inherit(&self, before: &ApiKeys) {
        for (id, (hash, identity)) in &self.0 {
            let known = before.0.get(id).filter(|(known, _)| known == hash);
            if let (Some(own), Some((_, known))) = (&identity.limits, known)
                && let Some(known) = &known.limits
            {
                own.inherit(known);
            }
        }
    }

    /// Keys with limits of their own.
    pub fn limited(&self) -> usize {
        self.0.values().filter(|(_, identity)| identity.limits.is_some()).count()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn half(hash: &Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

/// Hashes are not secret, and still do not belong in a log.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.owner)
    }
}
