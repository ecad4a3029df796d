//! Metrics: what a worker counts, how other threads read it, and the Prometheus text.
//!
//! **Every metric is declared once, as a row of `table`.** A row has the name, kind, labels, help
//! text and samples of the metric; a row of a worker's metric also declares its fields in
//! [`Tally`]. Nothing else needs to change.
//!
//! A worker adds to its own `Tally` (plain integers) and shares nothing per message. It publishes
//! the tally to its [`Shard`] at most every 100 ms with relaxed stores; it is the only writer. The
//! control thread reads the shards and renders. A tally survives a panic of its worker: counters
//! keep their values, [`Tally::sessions_lost`] corrects the gauges. This module knows no socket,
//! clock or thread.
//!
//! `table` declares the metrics, `tally` has the events that a worker counts, `shard` publishes
//! them, `text` writes the exposition format, `cells` holds the values that a tally is made of.

mod cells;
mod shard;
mod table;
mod tally;
mod text;

#[cfg(test)]
mod tests;

pub use cells::ByCause;
pub use shard::Shard;
pub use table::{
    Asked, ClientTable, Denied, Discovered, KeySet, LOOP_BUSY_US, Process, SYNC_US, Shared, TLS_OUTCOMES, Tally,
    UpstreamHealth,
};
pub use text::CONTENT_TYPE;

use std::sync::Arc;
use table::{METRICS, Reading};

/// The body of `/metrics`. `shards` are in the order of the workers.
pub fn render(shards: &[Arc<Shard>], process: Process) -> String {
    let workers: Vec<Tally> = shards.iter().map(|shard| shard.read()).collect();
    text::write(METRICS, &Reading::new(workers, process))
}
