//! What the workers' rings, the writer and its controls share.

use super::sink::Sink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Lines are written somewhere.
    pub on: AtomicBool,
    pub stop: AtomicBool,
    /// The writer sleeps until it is woken.
    pub asleep: AtomicBool,
    /// Failed writes.
    pub errors: AtomicU64,
    /// Lines lost to failed writes.
    pub unwritten: AtomicU64,
    /// The writer's thread, once it runs.
    pub thread: OnceLock<Thread>,
    /// A new destination for the writer to take.
    pub next: Mutex<Option<Sink>>,
    pub finished: (Mutex<bool>, Condvar),
}

impl Shared {
    pub fn new(on: bool) -> Shared {
        Shared { on: AtomicBool::new(on), ..Shared::default() }
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// A record was pushed: wakes the writer if it sleeps.
    #[inline]
    pub fn on_pushed(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    pub fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
