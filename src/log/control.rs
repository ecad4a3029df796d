//! The handle that changes and stops the access log. Its calls do not wait for writes.

use super::shared::{Shared, lock};
use super::sink::Sink;
use crate::config::{AccessLog, Format};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
}

impl Control {
    /// Changes destination and format from the next batch on. A file is opened anew even if it is
    /// the same one, as log rotation needs.
    ///
    /// # Errors
    /// The destination cannot be opened; nothing has changed.
    pub fn set(&self, to: &AccessLog, format: Format) -> io::Result<()> {
        let sink = Sink::open(to, format)?;
        let on = sink.is_on();
        let mut next = lock(&self.shared.next);
        *next = Some(sink);
        // After `next`: a reader that sees the log on finds its destination.
        self.shared.on.store(on, Ordering::Release);
        drop(next);
        self.shared.wake();
        Ok(())
    }

    /// Has the writer write the remaining records and end. `false` if it has not within `patience`:
    /// the destination blocks, and the process should exit without it. Workers must no longer push
    /// when this is called.
    pub fn stop(&self, patience: Duration) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        let (finished, changed) = &self.shared.finished;
        let waited = changed.wait_timeout_while(lock(finished), patience, |finished| !*finished);
        let (finished, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *finished
    }

    /// Failed writes.
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// Lines lost to failed writes. Those lost to full rings are counted by [`super::Ring::lost`]
    /// and the workers.
    pub fn unwritten(&self) -> u64 {
        self.shared.unwritten.load(Ordering::Relaxed)
    }
}
