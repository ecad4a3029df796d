//! Close frames: which codes may pass, and the frames the proxy writes itself (RFC 6455 sections 5.5.1, 7.4).

use super::frame::{Header, opcode};
use super::mask::mask;

/// Whether a peer may put `code` into a Close frame: 1000-1003, 1007-1014, 3000-4999.
pub fn may_pass(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A Close of our own, not yet masked: the shell has the random key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    /// At most 123 bytes, from the table in [`super::ended`].
    pub reason: &'static str,
}

impl Close {
    /// The whole frame; masked with `key` toward the upstream, plain toward the client.
    pub fn frame(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let payload_len = 2 + self.reason.len() as u64;
        let mut out = Vec::with_capacity(6 + payload_len as usize);
        Header { fin: true, rsv: 0, opcode: opcode::CLOSE, mask: key, payload_len }.write(&mut out);
        let start = out.len();
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(self.reason.as_bytes());
        if let (Some(key), Some(payload)) = (key, out.get_mut(start..)) {
            mask(payload, key, 0);
        }
        out
    }
}
