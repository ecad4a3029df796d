//! Keys behind a URL: those that were fetched last, for all workers, and whether to fetch them
//! again. Fetching is the business of `crate::jwks`, which is the only one that stores.

use super::key::Keys;
use crate::proto::Millis;
use arc_swap::ArcSwap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The least time between two fetches: tokens with key ids that are made up cause no more.
pub const REFETCH_MS: Millis = 10_000;

/// A key set at a URL.
pub struct RemoteKeys {
    pub config: RemoteConfig,
    keys: ArcSwap<Keys>,
    /// By the process-wide monotonic clock, plus one; 0: never.
    fetched_at: AtomicU64,
    tried_at: AtomicU64,
    failures: AtomicU64,
    /// A reload has replaced it.
    retired: AtomicBool,
}

/// What the configuration says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// The name of its method, for logs and metrics.
    pub method: String,
    pub url: String,
    /// `None`: the authorities of the system.
    pub ca: Option<PathBuf>,
    /// Between two fetches that succeed.
    pub refresh_ms: Millis,
}

/// How a key set is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteStatus {
    pub keys: usize,
    /// Since the last fetch that succeeded.
    pub age_ms: Option<Millis>,
    pub failures: u64,
}

impl RemoteKeys {
    pub fn new(config: RemoteConfig) -> RemoteKeys {
        RemoteKeys {
            config,
            keys: ArcSwap::default(),
            fetched_at: AtomicU64::new(0),
            tried_at: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Empty until the first fetch has succeeded.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// Enough time has passed since the last fetch began.
    pub fn may_fetch(&self, now: Millis) -> bool {
        match self.tried_at.load(Ordering::Relaxed) {
            0 => true,
            tried => now.saturating_sub(tried - 1) >= REFETCH_MS,
        }
    }

    /// A fetch begins.
    pub fn begin(&self, now: Millis) {
        self.tried_at.store(now + 1, Ordering::Relaxed);
    }

    /// It has succeeded. Whether the keys are others than before.
    pub fn store(&self, keys: Keys, now: Millis) -> bool {
        let changed = **self.keys.load() != keys;
        if changed {
            self.keys.store(Arc::new(keys));
        }
        self.fetched_at.store(now + 1, Ordering::Relaxed);
        changed
    }

    /// It has failed: the keys stay.
    pub fn fail(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub fn status(&self, now: Millis) -> RemoteStatus {
        let age_ms = self.fetched_at.load(Ordering::Relaxed).checked_sub(1).map(|at| now.saturating_sub(at));
        RemoteStatus { keys: self.keys.load().len(), age_ms, failures: self.failures.load(Ordering::Relaxed) }
    }

    /// Takes over what was fetched for the same configuration.
    pub fn inherit(&self, before: &RemoteKeys) {
        self.keys.store(before.keys());
        for (ours, theirs) in [
            (&self.fetched_at, &before.fetched_at),
            (&self.tried_at, &before.tried_at),
            (&self.failures, &before.failures),
        ] {
            ours.store(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// No route uses it any more, but sessions may hold it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

/// The same configuration: what was fetched is no part of it.
impl PartialEq for RemoteKeys {
    fn eq(&self, other: &RemoteKeys) -> bool {
        self.config == other.config
    }
}

impl Eq for RemoteKeys {}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteKeys({})", self.config.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> RemoteKeys {
        let config = RemoteConfig { method: "a".into(), url: "https://h/".into(), ca: None, refresh_ms: 300_000 };
        RemoteKeys::new(config)
    }

    #[test]
    fn fetches_are_ten_seconds_apart_also_over_a_reload() {
        let remote = remote();
        assert!(remote.may_fetch(0));
        remote.begin(0);
        assert!(!remote.may_fetch(0) && !remote.may_fetch(REFETCH_MS - 1) && remote.may_fetch(REFETCH_MS));
        remote.fail();
        let next = self::remote();
        next.inherit(&remote);
        assert!(!next.may_fetch(REFETCH_MS - 1) && next.may_fetch(REFETCH_MS));
        assert_eq!(next.status(5), RemoteStatus { keys: 0, age_ms: None, failures: 1 });
        assert!(!next.store(Keys::default(), 7));
        assert_eq!(next.status(9), RemoteStatus { keys: 0, age_ms: Some(2), failures: 1 });
        assert_eq!(next, remote);
    }
}
