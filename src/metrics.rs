//! The one table of metrics: what a worker counts (`Tally`, plain integers), where it publishes it (`Shard`,
//! relaxed stores of a single writer) and the Prometheus text made from all shards.

use crate::proto::ended::Ended;

/// Frames of one direction by opcode, and its bytes. Owned by a worker; the relay adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: [u64; 16],
    pub bytes: u64,
}

/// What one worker has counted since it started.
#[derive(Debug, Clone, Default)]
pub struct Tally {}

impl Tally {
    pub fn ended(&mut self, ended: Ended) {
        let _ = ended;
    }
}
