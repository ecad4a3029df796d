//! The access log: one record at a session's start, one at its end; a ring per worker, one writer thread
//! that formats. A worker never waits for it: a full ring loses the line, and the loss is counted and said.
//!
//! Read in this order: [`record`] (what is known of a session), [`ring`] (a worker's end), [`mod@format`] (a record as
//! a line), [`writer`] (the thread's end and the handle of who controls it). Diagnostics for people, on standard
//! error through the `log` crate, are set up here too; workers do not use them.

pub mod format;
pub mod record;
pub mod ring;
pub mod writer;

pub use record::{Record, SessionInfo};
pub use ring::Ring;
pub use writer::{Control, Writer, open, tap};

use std::io::Write;

/// Records that a worker's ring holds by default, 112 bytes each and what they point to: 50 ms of 40,000 sessions
/// that open or end in a second.
pub const RING_LINES: usize = 4096;

/// Starts diagnostics on standard error, one line each: time, level, text. Called once; later calls change nothing.
/// [`set_level`] changes the level afterwards.
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
