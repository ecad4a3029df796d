//! The admin listener: metrics, health checks, reload. Runs on the control thread, never on the
//! data path, and knows neither workers nor the snapshot: the caller supplies the content of each
//! response.
//!
//! `routes.rs` turns the bytes of a request into the bytes of a response; `server.rs` owns the
//! sockets.

mod routes;
mod server;

#[cfg(test)]
mod tests;

pub use routes::{EndpointOrder, Request, Response};
pub use server::Admin;
