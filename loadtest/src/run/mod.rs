//! Runs: from what is typed to what was measured.
//!
//! - [`command`]: the commands that generate load; [`options`]: their flags and the scenario file
//! - [`plan`]: a validated run
//! - [`phases`]: ramp, settle, measure, cooldown; [`limits`]: what the host allows;
//!   [`progress`]: the line on the terminal
//! - [`client`]: one thread; [`group`] and [`conn`]: its groups and connections; [`schedule`]: when
//!   each message is due
//! - [`message`], [`stamp`], [`replies`]: what is sent, and how what comes back is checked
//! - [`measure`]: histograms and counts
//! - [`lifecycle`]: load while a command runs; [`rate_search`]: the highest rate that a condition
//!   allows

pub mod client;
pub mod command;
pub mod conn;
pub mod group;
pub mod lifecycle;
pub mod limits;
pub mod measure;
pub mod message;
pub mod options;
pub mod phases;
pub mod plan;
pub mod progress;
pub mod rate_search;
pub mod replies;
pub mod schedule;
pub mod stamp;
