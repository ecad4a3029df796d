//! What a tally is made of: types that consist of `u64` alone and can be visited integer by
//! integer.

use crate::proto::end::{CAUSES, Cause};
use crate::proto::relay::{Counts, RoundTrips};
use crate::proto::{Side, Sides};
use std::ops::{Index, IndexMut};

/// A value for each cause of [`CAUSES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByCause<T>([T; CAUSES.len()]);

impl<T: Default + Copy> Default for ByCause<T> {
    fn default() -> Self {
        ByCause([T::default(); CAUSES.len()])
    }
}

impl<T> Index<Cause> for ByCause<T> {
    type Output = T;
    fn index(&self, cause: Cause) -> &T {
        &self.0[cause as usize]
    }
}

impl<T> IndexMut<Cause> for ByCause<T> {
    fn index_mut(&mut self, cause: Cause) -> &mut T {
        &mut self.0[cause as usize]
    }
}

/// A type made of `u64` alone. Both functions visit every integer once, in the same order.
pub(super) trait Cells {
    fn each_cell(&self, visit: &mut dyn FnMut(u64));
    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64));
}

impl Cells for u64 {
    fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
        visit(*self);
    }

    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        visit(self);
    }
}

impl<T: Cells, const N: usize> Cells for [T; N] {
    fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
        self.iter().for_each(|cells| cells.each_cell(visit));
    }

    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        self.iter_mut().for_each(|cells| cells.each_cell_mut(visit));
    }
}

impl<T: Cells> Cells for ByCause<T> {
    fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
        self.0.each_cell(visit);
    }

    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        self.0.each_cell_mut(visit);
    }
}

impl<T: Cells> Cells for Sides<T> {
    fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
        Side::BOTH.iter().for_each(|side| self[*side].each_cell(visit));
    }

    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        Side::BOTH.iter().for_each(|side| self[*side].each_cell_mut(visit));
    }
}

impl Cells for Counts {
    fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
        self.frames.each_cell(visit);
        self.bytes.each_cell(visit);
        self.pauses.each_cell(visit);
        self.round_trips.each_cell(visit);
    }

    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        self.frames.each_cell_mut(visit);
        self.bytes.each_cell_mut(visit);
        self.pauses.each_cell_mut(visit);
        self.round_trips.each_cell_mut(visit);
    }
}

impl Cells for RoundTrips {
    fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
        self.counts.each_cell(visit);
        self.sum_ms.each_cell(visit);
    }

    fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        self.counts.each_cell_mut(visit);
        self.sum_ms.each_cell_mut(visit);
    }
}
