//! The WebSocket handshake of RFC 6455 section 4 over heads of [`super::http1`]: judging a request, writing
//! the new one for the upstream, judging the upstream's 101, writing ours. Pure: ids and addresses are arguments.

use super::ended::Why;
use super::http1::{Request, Response};
use std::net::IpAddr;

/// What the negotiated extensions allow in the frames of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extensions {
    /// None: all RSV bits are zero (RFC 6455 section 5.2).
    #[default]
    None,
    /// permessage-deflate alone: RSV1 on the first frame of a data message (RFC 7692 section 6).
    Deflate,
    /// One we do not know: RSV bits and reserved opcodes pass, every other check stays.
    Unknown,
}

/// The rules of the WebSocket handshake, after those of HTTP and the route.
pub fn judge_request(request: &Request<'_>) -> Result<(), Why> {
    let _ = request;
    Err(Why::NotUpgrade)
}

/// What the proxy adds to or changes in the request that it writes for the upstream.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// Target path after the route's rewrite, without query.
    pub path: &'a str,
    /// Replaces Host; the client's is kept with `None`.
    pub host: Option<&'a str>,
    pub peer: IpAddr,
    /// The peer is one of the listener's trusted proxies: its forwarding fields are kept and appended to.
    pub trusted: bool,
    /// The client came over TLS.
    pub secure: bool,
    /// 32 hex digits, already chosen (kept from a trusted peer, else new).
    pub request_id: &'a str,
    /// Random 8 bytes for the span (and 16 for the trace where none is continued).
    pub trace_seed: [u8; 24],
}

/// Writes the whole new request head.
pub fn write_request(request: &Request<'_>, add: &Forwarding<'_>) -> Vec<u8> {
    let _ = (request, add);
    Vec::new()
}

/// The X-Request-Id of a trusted peer, if it sent one that may be kept (1 to 128 visible ASCII characters).
pub fn request_id_of<'a>(request: &Request<'a>) -> Option<&'a str> {
    let _ = request;
    None
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2, item 5.4).
pub fn accept_of(key: &[u8]) -> [u8; 28] {
    let _ = key;
    [0; 28]
}

/// Judges the upstream's 101 against the client's request: `Why::BadSwitch` for anything that is off.
pub fn judge_response(request: &Request<'_>, response: &Response<'_>) -> Result<Extensions, Why> {
    let _ = (request, response);
    Err(Why::BadSwitch)
}

/// Writes the 101 for the client: hop-by-hop rebuilt, Accept computed here, the rest as the upstream sent it.
pub fn write_switching(request: &Request<'_>, response: &Response<'_>) -> Vec<u8> {
    let _ = (request, response);
    Vec::new()
}
