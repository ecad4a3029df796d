#![deny(unsafe_code)]
//! framegate: a WebSocket reverse proxy.
pub mod cli;
pub mod config;
pub mod control;
pub mod log;
pub mod metrics;
pub mod policy;
pub mod proto;
pub mod worker;
