//! The suites of plain sockets once more, with TLS toward clients: `common/shim.rs` stands between each test and the proxy.

// Each suite brings the helpers that it uses, as when it runs alone.
#![allow(clippy::duplicate_mod)]

#[path = "close.rs"]
mod close;
#[path = "endings.rs"]
mod endings;
#[path = "hostile.rs"]
mod hostile;
#[path = "limits.rs"]
mod limits;
#[path = "relay.rs"]
mod relay;
