//! The retry budget of an upstream: retries are a share of its handshakes, so that an upstream
//! whose endpoints all fail is not asked many times for each of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many retries handshakes allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryLimits {
    /// Retries that 100 handshakes earn.
    pub percent: u64,
    /// Retries that can be saved up; as many are there at the start.
    pub reserve: u64,
}

impl Default for RetryLimits {
    fn default() -> RetryLimits {
        RetryLimits { percent: 25, reserve: 100 }
    }
}

/// What is saved up, in hundredths of a retry. Counts what was spent, so that the start is full.
#[derive(Debug, Default)]
pub struct Budget {
    spent: AtomicU64,
}

impl Budget {
    /// A handshake begins.
    pub fn earn(&self, limits: &RetryLimits) {
        let less = |spent: u64| (spent > 0).then(|| spent.saturating_sub(limits.percent));
        // An error says that there was nothing to restore.
        let _ = self.spent.fetch_update(Relaxed, Relaxed, less);
    }

    /// There is a retry to take.
    pub fn has_one(&self, limits: &RetryLimits) -> bool {
        self.spent.load(Relaxed).saturating_add(100) <= limits.reserve.saturating_mul(100)
    }

    /// Takes one retry; `false` if there is none.
    pub fn spend(&self, limits: &RetryLimits) -> bool {
        let most = limits.reserve.saturating_mul(100);
        let more = |spent: u64| spent.checked_add(100).filter(|spent| *spent <= most);
        self.spent.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_handshakes_beyond_the_reserve() {
        let (budget, limits) = (Budget::default(), RetryLimits { percent: 25, reserve: 3 });
        let spend = || budget.spend(&limits);
        assert!(budget.has_one(&limits));
        assert_eq!([spend(), spend(), spend(), spend()], [true, true, true, false]);
        assert!(!budget.has_one(&limits));
        let mut retries = 0;
        for _ in 0..100 {
            budget.earn(&limits);
            retries += u32::from(spend());
        }
        assert_eq!(retries, 25);
        (0..100).for_each(|_| budget.earn(&limits));
        assert_eq!([spend(), spend(), spend(), spend()], [true, true, true, false], "no more than the reserve");
    }
}
