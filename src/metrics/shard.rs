//! How a tally crosses threads: the published copy of one worker's integers.

use super::cells::Cells;
use super::table::{CELLS, Tally};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The published copy of one worker's tally. One writer, any number of readers. A reader may see
/// part of one publication and part of the one before, which is acceptable for counters.
#[repr(align(128))]
#[derive(Debug)]
pub struct Shard {
    pub(super) cells: [AtomicU64; CELLS],
}

impl Default for Shard {
    fn default() -> Self {
        Shard { cells: [const { AtomicU64::new(0) }; CELLS] }
    }
}

impl Shard {
    pub fn read(&self) -> Tally {
        let mut tally = Tally::default();
        let mut cells = self.cells.iter();
        tally.each_cell_mut(&mut |value| *value = cells.next().map_or(0, |cell| cell.load(Relaxed)));
        tally
    }
}

impl Tally {
    /// Makes the current values readable by other threads. Only the worker that owns `shard` calls
    /// this.
    pub fn publish(&self, shard: &Shard) {
        let mut cells = shard.cells.iter();
        self.each_cell(&mut |value| {
            if let Some(cell) = cells.next() {
                cell.store(value, Relaxed);
            }
        });
    }
}
