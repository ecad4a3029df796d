//! What a session is given with a slice of bytes, and what becomes of the slice.

use crate::proto::end::{Cause, Party};
use crate::proto::{Millis, Sides};

/// Frames by opcode, bytes and pauses of reading of one direction, and round trips with its source.
/// The worker owns it, the relay adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: [u64; 16],
    pub bytes: u64,
    /// Times reading was paused by a limit.
    pub pauses: u64,
    pub round_trips: RoundTrips,
}

/// What a session needs to judge bytes, borrowed for one call.
pub struct RelayInput<'a> {
    pub now: Millis,
    /// Frames and bytes by the side they came from.
    pub counts: &'a mut Sides<Counts>,
    /// Receives the bytes that the session authors itself; they leave before what is forwarded of
    /// the slice. Empty when the call is made.
    pub authored: &'a mut Vec<u8>,
}

impl RelayInput<'_> {
    /// The same for a part of the call.
    #[inline]
    pub fn reborrow(&mut self) -> RelayInput<'_> {
        RelayInput { now: self.now, counts: &mut *self.counts, authored: &mut *self.authored }
    }
}

/// What became of a slice: send the authored bytes, then `slice[..forward]`; `slice[..consumed]` is
/// done with. `forward <= consumed`, and `consumed` is never zero for a slice that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    pub forward: usize,
    pub consumed: usize,
    /// These are the last bytes of their direction: its FIN is asked for as soon as they are sent.
    pub last: bool,
}

impl Relayed {
    /// `consumed` bytes are done with; none of them is forwarded.
    #[inline]
    pub fn consume(consumed: usize) -> Relayed {
        Relayed { forward: 0, consumed, last: false }
    }

    #[inline]
    pub fn forward(n: usize) -> Relayed {
        Relayed { forward: n, consumed: n, last: false }
    }
}

/// The bounds of [`RoundTrips`], in milliseconds: the worker's clock is that fine.
pub const ROUND_TRIP_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// Round trips of our pings on one leg, in buckets of [`ROUND_TRIP_MS`]. The worker owns it, the
/// relay adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// By the bounds, then all above them.
    pub counts: [u64; ROUND_TRIP_MS.len() + 1],
    pub sum_ms: u64,
}

impl RoundTrips {
    pub(super) fn add(&mut self, ms: Millis) {
        let bucket = ROUND_TRIP_MS.partition_point(|bound| *bound < ms);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum_ms += ms;
    }
}

/// What the session learns of bytes beside what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proto) enum Noticed {
    Cause(Party, Cause),
    /// A message was taken: `fetch` of the relay has it.
    Taken,
}

impl From<(Party, Cause)> for Noticed {
    #[inline]
    fn from((party, cause): (Party, Cause)) -> Noticed {
        Noticed::Cause(party, cause)
    }
}
