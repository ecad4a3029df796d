//! Shadowing: which sessions of a route are also opened to a second upstream. What is done with
//! them is the worker's business (`worker/shadow.rs`).

use super::key::{mix, scale};
use super::upstream::Upstream;
use std::sync::Arc;

/// The parts of a whole in which a share is counted: 0.01 % each.
pub const WHOLE: u32 = 10_000;

/// A share of a route's sessions, and the upstream that they are opened to as well.
#[derive(Debug, PartialEq, Eq)]
pub struct Shadow {
    pub upstream: Arc<Upstream>,
    /// Of [`WHOLE`]; 1 to `WHOLE`.
    pub share: u32,
    /// Bytes of one session that may wait for the shadow; beyond that it is cut.
    pub buffer_bytes: usize,
}

impl Shadow {
    /// Whether a session with this random number is one of the share.
    pub fn chooses(&self, random: u64) -> bool {
        // The number also decides about other things: the share is to be the same among the
        // sessions of every endpoint.
        scale(mix(random.rotate_left(32)), u64::from(WHOLE)) < u64::from(self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a generator that is not the mix under test.
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
    }

    fn chosen(share: u32, numbers: impl Iterator<Item = u64>) -> usize {
        let shadow = Shadow {
            upstream: Arc::new(Upstream::new("s".into(), Vec::new(), Default::default())),
            share,
            buffer_bytes: 0,
        };
        numbers.filter(|number| shadow.chooses(*number)).count()
    }

    #[test]
    fn the_share_is_the_configured_one_over_a_million_sessions() {
        for (share, expected) in [(1, 100.0), (50, 5_000.0), (1_000, 100_000.0), (5_000, 500_000.0)] {
            let count = chosen(share, numbers().take(1_000_000)) as f64;
            // Five standard deviations; the generator is fixed, so this is no chance.
            let bound = 5.0 * f64::sqrt(expected);
            assert!((count - expected).abs() < bound, "{share}: {count}");
        }
        assert_eq!(chosen(WHOLE, numbers().take(1_000_000)), 1_000_000);
    }

    #[test]
    fn the_share_is_the_same_for_every_remainder_and_every_top_bit() {
        // What a balancer or a split may take of the same number.
        for part in 0..4 {
            let low = chosen(1_000, numbers().filter(|number| number % 4 == part).take(100_000));
            let high = chosen(1_000, numbers().filter(|number| number >> 62 == part).take(100_000));
            assert!([low, high].iter().all(|count| (9_500..10_500).contains(count)), "{part}: {low} {high}");
        }
    }

    #[test]
    fn a_larger_share_keeps_the_sessions_of_a_smaller_one() {
        let counts: Vec<_> = [1, 10, 100, 1_000, WHOLE].map(|share| chosen(share, 0..50_000)).to_vec();
        assert!(counts.is_sorted() && counts[4] == 50_000, "{counts:?}");
    }
}
