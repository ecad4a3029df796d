//! What the access log is told: the facts of a session, known once its request is judged, and one record at its
//! start and one at its end. Plain data, made by workers; holds the client's bytes as they came.

use crate::policy::route::Route;
use crate::proto::end::End;
use crate::proto::{Millis, Sides};
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes kept of a request id, of a host, of a target. A longer one is cut and ends in `...`.
const ID_MAX: usize = 128;
const HOST_MAX: usize = 256;
const TARGET_MAX: usize = 4096;
/// Bytes kept of any other field of the client.
const FIELD_MAX: usize = 512;

/// What does not change while a session lives. Shared by the pair and its two records, and small: it counts
/// toward the memory of an idle session.
#[derive(Debug)]
pub struct SessionInfo {
    /// Id, host and target, one after the other.
    text: Box<[u8]>,
    id_len: u16,
    host_len: u16,
    pub peer: SocketAddr,
    pub route: Option<Arc<Route>>,
    /// When the connection was accepted, on the process-wide monotonic clock.
    pub started: Millis,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SessionInfo>() <= 72);

impl SessionInfo {
    /// `target` is path and query as the client wrote them.
    pub fn new(
        [id, host, target]: [&[u8]; 3],
        peer: SocketAddr,
        route: Option<Arc<Route>>,
        started: Millis,
    ) -> SessionInfo {
        let mut text = Vec::with_capacity(id.len() + host.len() + target.len());
        let id_len = cut_into(&mut text, id, ID_MAX);
        let host_len = cut_into(&mut text, host, HOST_MAX);
        cut_into(&mut text, target, TARGET_MAX);
        SessionInfo { text: text.into_boxed_slice(), id_len, host_len, peer, route, started }
    }

    /// The request id.
    pub fn id(&self) -> &[u8] {
        self.parts().0
    }

    /// The Host as the client wrote it.
    pub fn host(&self) -> &[u8] {
        self.parts().1
    }

    /// Path and query as the client wrote them.
    pub fn target(&self) -> &[u8] {
        self.parts().2
    }

    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (id, rest) = split(&self.text, self.id_len);
        let (host, target) = split(rest, self.host_len);
        (id, host, target)
    }
}

/// A line to be written.
#[derive(Debug)]
pub enum Record {
    Start(StartRecord),
    End(EndRecord),
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Record>() <= 112);

/// A session has opened: its 101 has passed.
#[derive(Debug)]
pub struct StartRecord {
    pub facts: Arc<SessionInfo>,
    /// The moment, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Position of the endpoint among those of the route's group.
    pub endpoint: Option<u32>,
    /// From accept to the 101.
    pub handshake_ms: u64,
    /// The subprotocol chosen, the client's Origin and User-Agent: each through [`field`].
    pub subprotocol: Option<Box<[u8]>>,
    pub origin: Option<Box<[u8]>>,
    pub agent: Option<Box<[u8]>>,
}

/// A session has ended, or a handshake was refused. None is due for [`NoRequest`](crate::proto::end::Cause).
#[derive(Debug)]
pub struct EndRecord {
    /// `None` where no request could be read.
    pub facts: Option<Arc<SessionInfo>>,
    pub peer: SocketAddr,
    /// The moment, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    pub ended: End,
    /// The endpoint that was used or tried last.
    pub endpoint: Option<u32>,
    /// Of the answer that the client got: 101 for a session that was open, 0 if there was none.
    pub status: u16,
    /// The close code that left *toward* each side.
    pub close_codes: Sides<Option<u16>>,
    pub age_ms: u64,
    /// By the side they came from.
    pub frames: Sides<u64>,
    pub bytes: Sides<u64>,
}

/// A field of the client, cut to what a record keeps of it. `None` stays, so does an empty one.
pub fn field(value: Option<&[u8]>) -> Option<Box<[u8]>> {
    value.map(|value| {
        let mut kept = Vec::with_capacity(value.len().min(FIELD_MAX));
        cut_into(&mut kept, value, FIELD_MAX);
        kept.into_boxed_slice()
    })
}

/// Appends at most `max` bytes of `value`; says how many. `max` fits 16 bits.
fn cut_into(text: &mut Vec<u8>, value: &[u8], max: usize) -> u16 {
    const MARK: &[u8] = b"...";
    let start = text.len();
    match value.get(..max - MARK.len()) {
        Some(cut) if value.len() > max => {
            text.extend_from_slice(cut);
            text.extend_from_slice(MARK);
        }
        _ => text.extend_from_slice(value),
    }
    (text.len() - start) as u16
}

fn split(text: &[u8], at: u16) -> (&[u8], &[u8]) {
    text.split_at_checked(usize::from(at)).unwrap_or((text, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(id: &[u8], host: &[u8], target: &[u8]) -> SessionInfo {
        SessionInfo::new([id, host, target], "[::1]:80".parse().unwrap(), None, 0)
    }

    #[test]
    fn the_parts_come_out_as_they_went_in() {
        for parts in [["", "", ""], ["id", "host", "/path?q"], ["", "h", ""], ["i", "", "/"]] {
            let [id, host, target] = parts.map(str::as_bytes);
            let facts = facts(id, host, target);
            assert_eq!((facts.id(), facts.host(), facts.target()), (id, host, target));
        }
    }

    #[test]
    fn long_ones_are_cut_and_marked() {
        let long = [b'x'; 20_000];
        let facts = facts(&long, &long, &long);
        for (part, max) in [(facts.id(), ID_MAX), (facts.host(), HOST_MAX), (facts.target(), TARGET_MAX)] {
            assert_eq!(part.len(), max);
            assert!(part.ends_with(b"xx..."));
        }
        let whole = [b'y'; ID_MAX];
        assert_eq!(super::tests::facts(&whole, b"", b"").id(), whole);
        assert_eq!(field(Some(&long)).unwrap().len(), FIELD_MAX);
        assert_eq!(field(Some(b"")), Some(Box::from(&b""[..])));
        assert_eq!(field(None), None);
    }
}
