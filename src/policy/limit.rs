//! Limits that count: permits are taken when something opens and given back when they are dropped,
//! also by a worker that unwinds. Shared by all workers, touched at open and close only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Permits {
    taken: AtomicUsize,
    max: AtomicUsize,
}

/// One permit; dropping it gives it back.
#[derive(Debug)]
pub struct Permit(Arc<Permits>);

impl Permits {
    pub fn new(max: usize) -> Arc<Permits> {
        Arc::new(Permits { taken: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    /// `None` when all are taken.
    pub fn take(self: &Arc<Permits>) -> Option<Permit> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Permit(Arc::clone(self)))
    }

    /// A reload may change it; permits that are held stay valid.
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

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_are_and_each_comes_back() {
        let permits = Permits::new(2);
        let (first, second) = (permits.take(), permits.take());
        assert!(first.is_some() && second.is_some() && permits.take().is_none());
        drop(first);
        assert_eq!(permits.taken(), 1);
        permits.set_max(1);
        assert!(permits.take().is_none());
        drop(second);
        assert!(permits.take().is_some());
        assert_eq!(permits.taken(), 0);
    }
}
