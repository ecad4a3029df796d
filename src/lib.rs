//! framegate: a WebSocket reverse proxy. A tour in reading order; ARCHITECTURE.md has the reasons.
//!
//! 1. [`proto`]: the core. Bytes in, decisions out: frames, heads, the session. Pure.
//! 2. [`policy`]: the verdict on a request: its route, its upstream, its limits. Pure.
//! 3. [`config`]: the configuration file, and the validated snapshot made from it.
//! 4. [`worker`]: one thread, one poll. Sockets and time, no decisions.
//! 5. [`tls`]: the only module that names rustls. Ciphertext in, plaintext out, over slices.
//! 6. [`metrics`]: the table of metrics, and how counts reach it. [`log`]: the access log.
//! 7. [`control`]: signals, reload, drain; never on the data path. [`admin`]: its HTTP server.
//!    [`certs`]: certificates and ticket keys, which outlive a snapshot. [`resolver`]: names to
//!    addresses, a service thread. [`health`]: active health checks, a thread with a poll.
//!    [`discovery`]: endpoints that are found at run time. [`jwks`]: keys of token issuers,
//!    [`passwords`]: their verification, [`files`]: files that routes serve, [`sharing`]: limits of
//!    several hosts; service threads.
//! 8. [`server`]: the process; the only file that spawns threads. [`os`]: limits, CPUs, signals.
//! 9. [`cli`]: the command line. [`explain`]: what becomes of a request. [`demo`]: `framegate
//!    demo`, on top of [`server`]. [`echo`]: its backend.
//!
//! At the bottom, used by several layers: [`memory`] (the sizes that `check` adds up), [`clock`]
//! (wall-clock time), [`text`] (hexadecimal), [`service`] (the pattern of service threads),
//! [`watched`] (files that are read again).
//!
//! | layer | may use | never |
//! |---|---|---|
//! | `memory`, `clock`, `text`, `service` | std | any other layer |
//! | `watched` | std, `clock` | any other layer |
//! | `proto` | std data types, `text`; httparse, httpdate, sha1, base64 | sockets, clocks, policy |
//! | `policy` | std, `proto`, `text`; data types, aws-lc-rs, jsonwebtoken, serde | the same |
//! | `config` | `policy`, `proto`, `memory` | worker, mio |
//! | `metrics` | std, `proto` | worker |
//! | `log` | std, `proto`, `policy`, `config`, `clock` | worker |
//! | `tls` | rustls, `policy`, `config`, `memory`, `text` | sockets, `proto` |
//! | `health` | `proto`, `policy`, `config`, `metrics`, `tls`, `memory`; mio, socket2 | worker |
//! | `worker` | all above, slab; only in `sys`, `listener`: mio, socket2, libc | threads, locks |
//! | `certs`, `control`, `admin`, `resolver`, `discovery`, `files`, `jwks`, `passwords` | all | |
//! | `sharing` | all | |
//! | `server`, `echo`, `demo`, `explain`, `cli` | all | |
#![deny(unsafe_code)]

pub mod admin;
pub mod certs;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod discovery;
pub mod echo;
pub mod explain;
#[cfg(feature = "files")]
pub mod files;
pub mod health;
#[cfg(any(feature = "discovery", feature = "jwt"))]
mod http;
pub mod jwks;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod os;
pub mod passwords;
pub mod policy;
pub mod proto;
pub mod resolver;
pub mod server;
pub mod service;
pub mod sharing;
pub mod text;
pub mod tls;
pub mod watched;
pub mod worker;
