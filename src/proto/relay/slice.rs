//! What a session is given with a slice of bytes, and what becomes of the slice.

use crate::proto::{Millis, Sides};

/// Frames by opcode, bytes and pauses of reading, of one direction. The worker owns it, the relay
/// adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: [u64; 16],
    pub bytes: u64,
    /// Times reading was paused by a limit.
    pub pauses: u64,
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
