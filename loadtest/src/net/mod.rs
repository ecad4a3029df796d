//! A connection of the generator: TCP ([`dial`]), plain or TLS bytes ([`transport`], [`tls`]), the
//! opening handshake ([`opening`]), the frames that the peer sends ([`frames`]).

pub mod dial;
pub mod frames;
pub mod opening;
pub mod tls;
pub mod transport;
