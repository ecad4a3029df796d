//! The end of the process: the first signal drains, a second one or the drain deadline closes what
//! is left.

use super::state::{Control, Drain, Workers};
use crate::worker::inbox::Command;
use crate::worker::sys::now_ms;
use std::time::Duration;

impl Control {
    pub(super) fn on_stop_signal(&mut self, workers: &Workers) {
        if self.drain.has_begun() {
            ::log::warn!("second signal received, exiting now");
            return self.stop(workers);
        }
        let drain = &self.snapshot.drain;
        let spread = humantime::format_duration(Duration::from_millis(drain.spread_ms));
        ::log::info!("signal received, closing sessions over {spread}");
        self.drain = Drain::Draining { until: now_ms() + drain.deadline_ms };
        workers.send_all(|| Command::Drain { spread_ms: drain.spread_ms });
    }

    pub(super) fn check_drain_deadline(&mut self, workers: &Workers) {
        if self.drain.deadline().is_some_and(|at| at <= now_ms()) {
            ::log::warn!("drain deadline reached, closing the remaining sessions");
            self.stop(workers);
        }
    }

    fn stop(&mut self, workers: &Workers) {
        self.drain = Drain::Stopping;
        workers.send_all(|| Command::Stop);
    }
}
