//! The access log: one record when a session starts, one when it ends. Each worker has a ring; one
//! writer thread formats and writes. A worker never waits: a full ring loses the line, which is
//! counted and reported in the log.
//!
//! Read in this order: [`record`] (what is logged of a session), [`ring`] (a worker's end),
//! [`mod@format`] (a record as a line), [`writer`] (the thread), `sink.rs` (the destination),
//! [`control`] (changing and stopping the log), `shared.rs` (the state between them). Diagnostics
//! on standard error, through the `log` crate, are set up here too; workers do not use them.

pub mod control;
pub mod format;
pub mod record;
pub mod ring;
mod shared;
mod sink;
pub mod writer;

pub use control::Control;
pub use record::Record;
pub use ring::Ring;
pub use writer::{Writer, open, tap};

use std::io::Write;

/// Records that a worker's ring holds, 112 bytes each and what they point to: enough for 50 ms
/// between two batches at 80,000 records per second.
pub const RING_LINES: usize = 4096;

/// Sets up diagnostics on standard error, one line each: time, level, text. Later calls change
/// nothing; use [`set_level`].
pub fn init(level: ::log::LevelFilter) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(::log::LevelFilter::Trace).target(env_logger::Target::Stderr);
    builder.format(|out, record| {
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
        let text = record.args().to_string();
        writeln!(out, "{time} {:5} {}", record.level(), format::Escaped(text.as_bytes()))
    });
    if builder.try_init().is_ok() {
        set_level(level);
    }
}

/// Changes the level of diagnostics.
pub fn set_level(level: ::log::LevelFilter) {
    ::log::set_max_level(level);
}
