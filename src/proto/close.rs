//! Close frames: which codes may pass, and the frames the proxy writes itself (RFC 6455 sections
//! 5.5.1, 7.4).

use super::end::Cause;
use super::frame::{CONTROL_MAX, Header, opcode};
use super::mask::mask;

/// Whether a peer may put `code` into a Close frame: 1000-1003, 1007-1014, 3000-4999.
pub fn may_pass(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A Close of our own, not yet masked: the worker has the random key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    /// Its text is the reason that the peer reads.
    pub cause: Cause,
}

impl Close {
    /// The whole frame; masked with `key` toward the upstream, plain toward the client.
    pub fn frame(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let reason = self.cause.info().text.as_bytes();
        let payload_len = 2 + reason.len() as u64;
        debug_assert!(payload_len <= CONTROL_MAX);
        let mut out = Vec::with_capacity(6 + payload_len as usize);
        Header { fin: true, rsv: 0, opcode: opcode::CLOSE, mask: key, payload_len }.write(&mut out);
        let start = out.len();
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(reason);
        if let (Some(key), Some(payload)) = (key, out.get_mut(start..)) {
            mask(payload, key, 0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::end::CAUSES;

    #[test]
    fn every_close_of_ours_is_a_short_control_frame_and_reads_back() {
        for cause in CAUSES.iter().filter(|cause| cause.code != 0) {
            assert!(may_pass(cause.code), "{}", cause.name);
            let plain = Close { code: cause.code, cause: cause.cause }.frame(None);
            assert_eq!(plain[0], 0x88);
            assert_eq!(usize::from(plain[1]), plain.len() - 2);
            assert_eq!(&plain[2..4], cause.code.to_be_bytes());
            assert_eq!(&plain[4..], cause.text.as_bytes());
            let key = [1, 2, 3, 4];
            let mut masked = Close { code: cause.code, cause: cause.cause }.frame(Some(key));
            assert_eq!(masked[1], plain[1] | 0x80);
            assert_eq!(&masked[2..6], key);
            mask(&mut masked[6..], key, 0);
            assert_eq!(&masked[6..], &plain[2..]);
        }
    }

    #[test]
    fn codes_that_may_pass() {
        let passing = |range: std::ops::RangeInclusive<u16>| range.filter(|c| may_pass(*c)).count();
        assert_eq!(passing(0..=999), 0);
        assert_eq!(passing(1000..=1003), 4);
        assert_eq!(passing(1004..=1006), 0);
        assert_eq!(passing(1007..=1014), 8);
        assert_eq!(passing(1015..=2999), 0);
        assert_eq!(passing(3000..=4999), 2000);
        assert_eq!(passing(5000..=u16::MAX), 0);
    }
}
