//! The suites of plain sockets once more, with TLS toward clients and upstreams: `common/shim.rs`
//! is between each test and the proxy.

// Each suite has its own `mod common`, as when it runs alone.
#![allow(clippy::duplicate_mod)]

#[path = "close.rs"]
mod close;
#[path = "endings.rs"]
mod endings;
#[path = "hostile.rs"]
mod hostile;
#[path = "limits.rs"]
mod limits;
#[path = "rates.rs"]
mod rates;
#[path = "refresh.rs"]
mod refresh;
#[path = "relay.rs"]
mod relay;
