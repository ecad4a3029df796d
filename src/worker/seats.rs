//! Limits of the whole process, as seats: taken when something opens, given back when it is dropped, also by a
//! worker that unwinds. Shared by all workers, touched at open and close only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Seats {
    taken: AtomicUsize,
    max: AtomicUsize,
}

/// One of the seats; dropping it gives it back.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Seats {
    pub fn new(max: usize) -> Arc<Seats> {
        Arc::new(Seats { taken: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    /// `None` when all are taken.
    pub fn take(self: &Arc<Seats>) -> Option<Seat> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Seat(Arc::clone(self)))
    }

    /// A reload may change it; who sits stays.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_are_and_each_comes_back() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take(), seats.take());
        assert!(first.is_some() && second.is_some() && seats.take().is_none());
        drop(first);
        assert_eq!(seats.taken(), 1);
        seats.set_max(1);
        assert!(seats.take().is_none());
        drop(second);
        assert!(seats.take().is_some());
        assert_eq!(seats.taken(), 0);
    }
}
