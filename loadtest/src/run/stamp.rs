//! The stamp at the front of each generated message: who sent it, which one it is, when it was
//! meant to leave, and a checksum over that and the rest. By it the receiver tells loss, doubles,
//! order and wrong bytes apart.
//!
//! Layout, little-endian: checksum u32, source u32, sequence u64, time u64 (nanoseconds since the
//! Unix epoch). The checksum is the CRC-32 of the 20 bytes after it, followed by the CRC-32 of the
//! rest of the message as u32. In text messages the 24 bytes are base64 (32 characters).
//! Messages too short for it have none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

const BINARY_LEN: usize = 24;
const TEXT_LEN: usize = 32;

/// Length of a stamp at the front of a message.
pub const fn len(text: bool) -> usize {
    if text { TEXT_LEN } else { BINARY_LEN }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The connection (or server-side stream) that sent it.
    pub source: u32,
    /// Counts from 0 for each source.
    pub sequence: u64,
    /// Its intended send time: nanoseconds since the Unix epoch.
    pub time_ns: u64,
}

impl Stamp {
    /// Writes it at the front of `message`, whose rest has the CRC-32 `rest_crc`. Nothing happens
    /// if there is no room.
    pub fn write(self, message: &mut [u8], text: bool, rest_crc: u32) {
        let bytes = self.sealed(rest_crc);
        let Some(room) = message.get_mut(..len(text)) else { return };
        if text {
            // 24 bytes are exactly 32 characters.
            let _written = STANDARD_NO_PAD.encode_slice(bytes, room);
        } else {
            room.copy_from_slice(&bytes);
        }
    }

    /// Reads the stamp of a message, or `None` where there is none or a byte of the message is
    /// wrong.
    pub fn read(message: &[u8], text: bool) -> Option<Stamp> {
        let (front, rest) = message.split_at_checked(len(text))?;
        let mut bytes = [0; BINARY_LEN];
        if text {
            let n = STANDARD_NO_PAD.decode_slice(front, &mut bytes).ok()?;
            (n == BINARY_LEN).then_some(())?;
        } else {
            bytes.copy_from_slice(front);
        }
        let stamp = Stamp {
            source: u32::from_le_bytes(bytes[4..8].try_into().ok()?),
            sequence: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            time_ns: u64::from_le_bytes(bytes[16..24].try_into().ok()?),
        };
        (stamp.sealed(crc32fast::hash(rest)) == bytes).then_some(stamp)
    }

    fn sealed(self, rest_crc: u32) -> [u8; BINARY_LEN] {
        let mut bytes = [0; BINARY_LEN];
        bytes[4..8].copy_from_slice(&self.source.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time_ns.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[4..]);
        crc.update(&rest_crc.to_le_bytes());
        bytes[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_no_byte_may_differ() {
        for text in [false, true] {
            let mut message = vec![b'x'; 100];
            let stamp = Stamp { source: 7, sequence: 1 << 40, time_ns: 1_700_000_000_000_000_000 };
            stamp.write(&mut message, text, crc32fast::hash(&[b'x'; 100][len(text)..]));
            assert_eq!(Stamp::read(&message, text), Some(stamp));
            assert!(!text || message.is_ascii());
            for at in 0..message.len() {
                let mut wrong = message.clone();
                wrong[at] ^= 1;
                assert_eq!(Stamp::read(&wrong, text), None, "byte {at}");
            }
            assert_eq!(Stamp::read(&message[..99], text), None);
            assert_eq!(Stamp::read(&message[..len(text) - 1], text), None);
        }
    }

    #[test]
    fn a_message_too_short_has_none() {
        let mut short = [1; 10];
        Stamp { source: 0, sequence: 0, time_ns: 0 }.write(&mut short, false, 0);
        assert_eq!(short, [1; 10]);
    }
}
