//! What moving bytes takes beside the connection: lent out by the worker for one call.

use super::buffers::Pool;
use super::sys::Sys;
use crate::proto::Millis;
use crate::tls::Buffer;

/// What a connection needs to move bytes, borrowed from the resources.
pub struct Io<'a, S: Sys> {
    pub sys: &'a mut S,
    pub sealed: &'a mut Buffer,
    pub pool: &'a mut Pool,
    pub now: Millis,
}
