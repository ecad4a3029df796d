//! What a walk asks before it enters a frame: whether the limits of the session have room for it.
//! The cursor knows no limit itself; `limiter.rs` has the other implementation.

use crate::proto::end::Cause;

/// Judges the frames of one walk before they are entered.
pub trait Budget {
    /// Whether there is anything to judge.
    const LIMITS: bool;

    /// Messages in one frame that need no judging.
    fn free_messages(&self) -> u64;

    /// So many of them have been entered.
    fn on_messages(&mut self, n: u64);

    /// Judges a frame that is to be entered.
    fn admit(&mut self, frame_opcode: u8) -> Result<(), Cause>;
}

/// For a session without limits.
pub struct Unlimited;

impl Budget for Unlimited {
    const LIMITS: bool = false;

    #[inline(always)]
    fn free_messages(&self) -> u64 {
        u64::MAX
    }

    #[inline(always)]
    fn on_messages(&mut self, _: u64) {}

    #[inline(always)]
    fn admit(&mut self, _: u8) -> Result<(), Cause> {
        Ok(())
    }
}
