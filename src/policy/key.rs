//! Hash keys: the value of a request that keeps a client with an endpoint, or in a part of a split.

use super::Facts;
use super::lookup;
use super::path::normal_path;
use crate::proto::http1::values;
use std::net::IpAddr;

/// Where the key of a request is taken from. A request without it has no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The address of the client.
    ClientIp,
    /// The first header field of that name.
    Header(String),
    Cookie(String),
    Query(String),
    /// The normalised path.
    Path,
}

impl HashKey {
    /// The same for equal keys in every process and version, so that several hosts agree.
    pub fn hash(&self, facts: &Facts<'_>) -> Option<u64> {
        let request = facts.request;
        match self {
            HashKey::ClientIp => Some(match facts.client {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            HashKey::Header(name) => values(&request.fields, name).next().map(hash),
            HashKey::Cookie(name) => lookup::cookie(request, name).map(hash),
            HashKey::Query(name) => lookup::query(request, name).map(|value| hash(&value)),
            HashKey::Path => Some(hash(normal_path(request.path).as_bytes())),
        }
    }
}

/// FNV-1a, with a last step that spreads its bits. Not for keys that must withstand an attacker.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The finalizer of SplitMix64: each bit of the result depends on each bit of the number.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// SplitMix64: numbers for choices that need no secrecy, from one seed.
#[derive(Debug, Clone, Copy)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to `bound - 1`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        scale(self.number(), bound)
    }
}

/// Maps a hash evenly to 0 up to `bound - 1`, in order: a larger hash gives no smaller number.
pub fn scale(hash: u64, bound: u64) -> u64 {
    ((u128::from(hash) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_same_in_every_version() {
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash(b"framegate"), hash(b"framegate"));
        assert_ne!(hash(b"framegate"), hash(b"framegatf"));
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_spread() {
        let (mut random, mut seen) = (Random::new(7), [0u32; 10]);
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        assert_eq!(Random::new(1).below(0), 0);
        assert_eq!((scale(u64::MAX, 10), scale(0, 10)), (9, 0));
    }
}
