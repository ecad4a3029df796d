//! framegate: a WebSocket reverse proxy. A tour, in reading order; ARCHITECTURE.md has the reasons.
//!
//! 1. [`proto`]: the core. Bytes in, decisions out: frames, heads, the session. Pure.
//! 2. [`policy`]: which request goes where. Pure.
//! 3. [`config`]: the file as typed, and the snapshot it becomes.
//! 4. [`worker`]: the shell. One thread, one poll; sockets and time, no decisions.
//! 5. [`tls`]: the only module that names rustls; ciphertext in, plaintext out, over slices.
//! 6. [`metrics`], [`log`]: what is counted and what is written down.
//! 7. [`control`], [`admin`], [`resolver`]: signals, reload, drain; never on the data path.
//! 8. [`server`]: the process; the only file that spawns threads. [`os`]: what it asks of the machine.
//! 9. [`cli`], [`echo`]: the command line; the built-in backend of the demo and of tests.
//!
//! | layer | may use | never |
//! |---|---|---|
//! | `proto` | std data types, httparse, sha1, base64 | sockets, clocks, logging, metrics, policy |
//! | `policy` | std, the views of `proto` | the same, and config syntax |
//! | `config` | `policy`, types of `proto` | worker, mio |
//! | `tls` | rustls, what `policy` and the snapshot say of TLS | sockets, `proto` |
//! | `metrics`, `log` | std, `proto`'s verdicts, routes and destinations by name | worker |
//! | `worker` | all above, slab; in `sys.rs` and `listener.rs` alone mio, socket2, libc | threads, locks, printing |
//! | `server`, `control`, `admin`, `resolver`, `echo`, `cli` | all | being called from `worker` |
#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod echo;
pub mod log;
pub mod metrics;
pub mod os;
pub mod policy;
pub mod proto;
pub mod resolver;
pub mod server;
pub mod tls;
pub mod worker;
