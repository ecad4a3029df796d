//! The server that a method asks: where it is, how long it is waited for, and how many may wait.

use super::super::ask::{CallState, Check, Keep, Subrequest};
use super::super::upstream::Upstream;
use crate::proto::Millis;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// An HTTP server that decides about clients.
#[derive(Debug)]
pub struct Remote {
    pub upstream: Arc<Upstream>,
    /// The Host of requests to it.
    pub host: String,
    /// Path and query of requests to it.
    pub path: String,
    pub timeout_ms: Millis,
    /// One connect attempt.
    pub connect_ms: Millis,
    /// Questions that wait for an answer, over all workers.
    pub max_pending: usize,
    /// How long an answer that admits is used again, and one that refuses; 0 for not at all.
    pub admitted_ms: Millis,
    pub refused_ms: Millis,
    state: ArcSwap<CallState>,
}

impl Remote {
    /// One with its defaults.
    pub fn new(upstream: Arc<Upstream>, host: String, path: String) -> Remote {
        Remote {
            upstream,
            host,
            path,
            timeout_ms: 5_000,
            connect_ms: 1_000,
            max_pending: 256,
            admitted_ms: 0,
            refused_ms: 0,
            state: ArcSwap::from_pointee(CallState::new(256)),
        }
    }

    /// The same, with no more than this many questions at a time.
    pub fn with_max_pending(self, max_pending: usize) -> Remote {
        let state = ArcSwap::from_pointee(CallState::new(max_pending));
        Remote { max_pending, state, ..self }
    }

    /// Goes on counting where `before` is.
    pub fn inherit(&self, before: &Remote) {
        let state = before.state();
        state.pending.set_max(self.max_pending);
        self.state.store(state);
    }

    pub fn state(&self) -> Arc<CallState> {
        self.state.load_full()
    }

    /// The check that sends this request.
    pub(super) fn check(&self, request: Vec<u8>, keep: Option<Keep>) -> Check {
        Check::Subrequest(Arc::new(Subrequest {
            upstream: Arc::clone(&self.upstream),
            request,
            timeout_ms: self.timeout_ms,
            connect_ms: self.connect_ms,
            shared: self.state(),
            keep: keep.filter(|keep| (keep.admitted_ms, keep.refused_ms) != (0, 0)),
        }))
    }
}

/// The configured values are equal; counts do not matter.
impl PartialEq for Remote {
    fn eq(&self, other: &Remote) -> bool {
        let numbers = |one: &Remote| (one.timeout_ms, one.connect_ms, one.max_pending, one.admitted_ms, one.refused_ms);
        self.upstream == other.upstream
            && (&self.host, &self.path) == (&other.host, &other.path)
            && numbers(self) == numbers(other)
    }
}

impl Eq for Remote {}
