//! Decisions about a session, as pure functions of what is known: no socket, clock, thread or log.

pub mod balance;
pub mod route;
pub mod tls;

use crate::proto::end::Cause;
use crate::proto::handshake;
use crate::proto::http1::Request;
use route::{Route, Routes};
use std::sync::Arc;

/// The moment *request*: where a request goes, or why it does not. The rules of HTTP hold already; the route comes
/// next, then the rules of the WebSocket handshake, which all routes have in common today.
pub fn decide<'a>(request: &Request<'_>, routes: &'a Routes, draining: bool) -> Result<&'a Arc<Route>, Cause> {
    let route = routes.find(request.host, request.path).ok_or(Cause::NoRoute)?;
    handshake::judge_request(request)?;
    if draining { Err(Cause::Draining) } else { Ok(route) }
}
