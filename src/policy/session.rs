//! The identity of a session: what is known of it once its request is judged, and does not change
//! while it lives. The pair holds it, the access log borrows it. Holds the client's bytes as they
//! were sent.

use super::auth::Identity;
use super::route::Route;
use crate::proto::Millis;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Bytes kept of a request id, of a host, of a target. A longer one is cut and ends in `...`.
const ID_MAX: usize = 128;
const HOST_MAX: usize = 256;
const TARGET_MAX: usize = 4096;

/// What does not change while a session lives. Shared by the pair and its two records, and small:
/// it counts toward the memory of an idle session.
#[derive(Debug)]
pub struct SessionInfo {
    /// Id, host and target, one after the other.
    text: Box<[u8]>,
    id_len: u16,
    host_len: u16,
    pub peer: SocketAddr,
    /// The client, where a trusted proxy has named another address than that of the peer.
    client: Option<Box<IpAddr>>,
    pub route: Option<Arc<Route>>,
    /// Who the client is, on a route that asks for credentials.
    pub identity: Option<Arc<Identity>>,
    /// When the connection was accepted, on the process-wide monotonic clock.
    pub started: Millis,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<SessionInfo>() <= 88);

/// What a request says, as the log is to have it.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// The request id.
    pub id: &'a [u8],
    pub host: &'a str,
    pub target: &'a str,
}

impl SessionInfo {
    pub fn new(text: Text<'_>, peer: SocketAddr, route: Option<Arc<Route>>, started: Millis) -> SessionInfo {
        let (id, host, target) = (text.id, text.host.as_bytes(), text.target.as_bytes());
        let mut text = Vec::with_capacity(id.len() + host.len() + target.len());
        let id_len = cut_into(&mut text, id, ID_MAX);
        let host_len = cut_into(&mut text, host, HOST_MAX);
        cut_into(&mut text, target, TARGET_MAX);
        let text = text.into_boxed_slice();
        SessionInfo { text, id_len, host_len, peer, client: None, route, identity: None, started }
    }

    /// The same with credentials that last until then; `None` where there are none.
    pub fn until(&self, unix_ms: u64) -> Option<SessionInfo> {
        let identity = Identity { expires_unix_ms: Some(unix_ms), ..Identity::clone(self.identity.as_ref()?) };
        Some(self.with_identity(identity))
    }

    /// The same with other credentials.
    pub fn with_identity(&self, identity: Identity) -> SessionInfo {
        let (text, route, client) = (self.text.clone(), self.route.clone(), self.client.clone());
        SessionInfo { text, route, client, identity: Some(Arc::new(identity)), ..*self }
    }

    /// Names the client.
    pub fn set_client(&mut self, client: IpAddr) {
        self.client = (client != self.peer.ip().to_canonical()).then(|| Box::new(client));
    }

    /// The peer, or whom a trusted proxy names.
    pub fn client(&self) -> IpAddr {
        self.client.as_deref().copied().unwrap_or(self.peer.ip().to_canonical())
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

/// Appends at most `max` bytes of `value`, which fits 16 bits; how many.
pub fn cut_into(text: &mut Vec<u8>, value: &[u8], max: usize) -> u16 {
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

    fn info(id: &[u8], host: &str, target: &str) -> SessionInfo {
        SessionInfo::new(Text { id, host, target }, "[::1]:80".parse().unwrap(), None, 0)
    }

    #[test]
    fn the_parts_come_out_as_they_went_in() {
        for [id, host, target] in [["", "", ""], ["id", "host", "/path?q"], ["", "h", ""], ["i", "", "/"]] {
            let info = info(id.as_bytes(), host, target);
            assert_eq!((info.id(), info.host(), info.target()), (id.as_bytes(), host.as_bytes(), target.as_bytes()));
        }
    }

    #[test]
    fn long_parts_are_cut_and_marked() {
        let long = "x".repeat(20_000);
        let cut = info(long.as_bytes(), &long, &long);
        for (part, max) in [(cut.id(), ID_MAX), (cut.host(), HOST_MAX), (cut.target(), TARGET_MAX)] {
            assert_eq!(part.len(), max);
            assert!(part.ends_with(b"xx..."));
        }
        let whole = [b'y'; ID_MAX];
        assert_eq!(info(&whole, "", "").id(), whole);
    }
}
