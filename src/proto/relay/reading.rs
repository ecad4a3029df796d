//! How much of a direction is read at once, by what of its frame under way is left.

use super::Cursor;
use crate::proto::interface::ReadInterest;

/// Frames with this much left are read in smaller pieces: half the cost per byte (PERF.md).
const LONG_FRAME: u64 = 256 * 1024;
const LONG_FRAME_READ: usize = 32 * 1024;
/// A shorter payload is read and sent faster than it is spliced (PERF.md).
const SPLICE_MIN: u64 = 16 * 1024;
/// Where a frame that will be spliced may begin, no more is read than its header and short frames.
const SPLICE_HEAD_READ: usize = 4 * 1024;

/// At most `most` bytes are read.
#[inline]
pub(super) fn interest(cursor: &Cursor, most: usize, splice: bool) -> ReadInterest {
    let spliceable = cursor.spliceable();
    match spliceable.min(most as u64) {
        long @ SPLICE_MIN.. if splice => ReadInterest::Payload(long),
        0 if splice => ReadInterest::Bytes(SPLICE_HEAD_READ.min(most)),
        _ if spliceable >= LONG_FRAME && !splice => ReadInterest::Bytes(LONG_FRAME_READ.min(most)),
        _ => ReadInterest::Bytes(most),
    }
}
