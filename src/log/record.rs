//! The records of the access log: one at the start of a session and one at its end. Plain data,
//! made by workers; holds the client's bytes as they were sent.

use crate::policy::endpoint::Endpoint;
use crate::policy::session::{SessionInfo, cut_into};
use crate::proto::Sides;
use crate::proto::end::End;
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes kept of a header field.
const FIELD_MAX: usize = 512;

/// One line of the log.
#[derive(Debug)]
pub enum Record {
    Start(StartRecord),
    End(EndRecord),
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Record>() <= 112);

/// A session was established: its 101 was forwarded.
#[derive(Debug)]
pub struct StartRecord {
    pub info: Arc<SessionInfo>,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    pub endpoint: Option<Arc<Endpoint>>,
    /// Time from accept to the 101.
    pub handshake_ms: u64,
    /// The selected subprotocol, and the client's Origin and User-Agent; each made by [`field`].
    pub subprotocol: Option<Box<[u8]>>,
    pub origin: Option<Box<[u8]>>,
    pub agent: Option<Box<[u8]>>,
}

/// A session ended, or a handshake was refused. [`NoRequest`](crate::proto::end::Cause) is not
/// logged.
#[derive(Debug)]
pub struct EndRecord {
    /// `None` if no request was parsed.
    pub info: Option<Arc<SessionInfo>>,
    pub peer: SocketAddr,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    pub end: End,
    /// The endpoint used or tried last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The status of the response to the client: 101 for an established session, 0 for none.
    pub status: u16,
    /// The close code sent to each side.
    pub close_codes: Sides<Option<u16>>,
    pub age_ms: u64,
    /// By the side they came from.
    pub frames: Sides<u64>,
    pub bytes: Sides<u64>,
}

/// A header field, truncated for a record.
pub fn field(value: Option<&[u8]>) -> Option<Box<[u8]>> {
    value.map(|value| {
        let mut kept = Vec::with_capacity(value.len().min(FIELD_MAX));
        cut_into(&mut kept, value, FIELD_MAX);
        kept.into_boxed_slice()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_fields_are_cut() {
        let long = [b'x'; 20_000];
        assert_eq!(field(Some(&long)).unwrap().len(), FIELD_MAX);
        assert_eq!(field(Some(b"")), Some(Box::from(&b""[..])));
        assert_eq!(field(None), None);
    }
}
