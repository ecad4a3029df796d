//! The core: bytes in, decisions out. Knows no socket, clock, thread, log or policy.
//!
//! Read in this order: [`frame`] (one header), [`relay`] (one direction), [`rate`] (token buckets),
//! [`close`], [`http1`], [`handshake`], [`plain`] and [`files`]
//! (heads), [`end`] (how a session can end),
//! [`interface`] and [`session`] (all of it together).

pub mod call;
pub mod close;
pub mod end;
mod exchange;
pub mod files;
pub mod frame;
pub mod handshake;
pub mod http1;
pub mod interface;
pub mod mask;
pub mod plain;
pub mod proxy_protocol;
pub mod rate;
pub mod relay;
pub mod session;
pub mod settings;
pub mod shadow;

/// Milliseconds of the process-wide monotonic clock. Time is always an argument here.
pub type Millis = u64;

/// One of the two peers of a session; for bytes, where they come from unless a name says `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Side {
    /// Toward the client.
    Downstream = 0,
    /// Toward the server.
    Upstream = 1,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Downstream, Side::Upstream];

    #[inline]
    pub fn other(self) -> Side {
        match self {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
        }
    }
}

/// A value for each side, indexed by [`Side`]: symmetric code is written once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sides<T>(pub [T; 2]);

impl<T> Sides<T> {
    pub fn new(downstream: T, upstream: T) -> Self {
        Sides([downstream, upstream])
    }
}

impl<T> std::ops::Index<Side> for Sides<T> {
    type Output = T;
    #[inline]
    fn index(&self, side: Side) -> &T {
        &self.0[side as usize]
    }
}

impl<T> std::ops::IndexMut<Side> for Sides<T> {
    #[inline]
    fn index_mut(&mut self, side: Side) -> &mut T {
        &mut self.0[side as usize]
    }
}
