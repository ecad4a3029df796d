//! One frame header of RFC 6455 section 5.2: parse, write. Judges only the length encoding.

use super::end::Cause;

/// The longest header: 2 bytes, a 64-bit length, a mask key.
pub const HEADER_MAX: usize = 14;

/// Payload bytes a control frame may have (section 5.5).
pub const CONTROL_MAX: u64 = 125;

/// Opcodes of section 11.8. Reserved ones are 3-7 and 11-15.
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    /// RSV1, RSV2, RSV3 as the bits 4, 2, 1.
    pub rsv: u8,
    pub opcode: u8,
    pub mask: Option<[u8; 4]>,
    pub payload_len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The header and its length in bytes.
    Complete(Header, usize),
    Partial,
}

impl Header {
    pub fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// Reads the header at the start of `bytes`. Fails on a length that is not minimal or has its
    /// top bit set.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Parsed, Cause> {
        let [b0, b1, rest @ ..] = bytes else { return Ok(Parsed::Partial) };
        let (payload_len, rest, len) = match b1 & 0x7f {
            126 => {
                let Some((len, rest)) = rest.split_first_chunk::<2>() else { return Ok(Parsed::Partial) };
                let len = u64::from(u16::from_be_bytes(*len));
                // "the minimal number of bytes MUST be used to encode the length"
                if len < 126 {
                    return Err(Cause::LengthEncoding);
                }
                (len, rest, 4)
            }
            127 => {
                let Some((len, rest)) = rest.split_first_chunk::<8>() else { return Ok(Parsed::Partial) };
                let len = u64::from_be_bytes(*len);
                // "the most significant bit MUST be 0"
                if len < 0x1_0000 || len >> 63 != 0 {
                    return Err(Cause::LengthEncoding);
                }
                (len, rest, 10)
            }
            short => (u64::from(short), rest, 2),
        };
        let (mask, len) = if b1 & 0x80 == 0 {
            (None, len)
        } else {
            let Some((key, _)) = rest.split_first_chunk::<4>() else { return Ok(Parsed::Partial) };
            (Some(*key), len + 4)
        };
        let header = Header { fin: b0 & 0x80 != 0, rsv: b0 >> 4 & 7, opcode: b0 & 0x0f, mask, payload_len };
        Ok(Parsed::Complete(header, len))
    }

    /// Appends the header to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | self.opcode & 0x0f);
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.payload_len {
            len @ 0..126 => out.push(masked | len as u8),
            len @ 126..0x1_0000 => {
                out.push(masked | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(masked | 127);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(fin: bool, rsv: u8, opcode: u8, mask: Option<[u8; 4]>, payload_len: u64) -> Header {
        Header { fin, rsv, opcode, mask, payload_len }
    }

    #[test]
    fn examples_of_rfc_6455_section_5_7() {
        let cases: &[(&[u8], Header)] = &[
            (&[0x81, 0x05], header(true, 0, 1, None, 5)),
            (&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d], header(true, 0, 1, Some([0x37, 0xfa, 0x21, 0x3d]), 5)),
            (&[0x01, 0x03], header(false, 0, 1, None, 3)),
            (&[0x82, 0x7e, 0x01, 0x00], header(true, 0, 2, None, 256)),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], header(true, 0, 2, None, 65536)),
        ];
        for (bytes, want) in cases {
            assert_eq!(Header::parse(bytes), Ok(Parsed::Complete(*want, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(Header::parse(&bytes[..cut]), Ok(Parsed::Partial));
            }
        }
    }

    #[test]
    fn lengths_must_be_minimal_and_positive() {
        assert_eq!(Header::parse(&[0x82, 126, 0, 125]), Err(Cause::LengthEncoding));
        assert_eq!(Header::parse(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(Cause::LengthEncoding));
        assert_eq!(Header::parse(&[0x82, 127, 0x80, 0, 0, 0, 0, 1, 0, 0]), Err(Cause::LengthEncoding));
    }

    proptest! {
        #[test]
        fn a_written_header_reads_back(
            fin: bool,
            rsv in 0..8u8,
            opcode in 0..16u8,
            mask: Option<[u8; 4]>,
            len in 0..u64::MAX / 2,
        ) {
            for len in [len, len % 65536, len % 126] {
                let want = header(fin, rsv, opcode, mask, len);
                let mut bytes = Vec::new();
                want.write(&mut bytes);
                prop_assert!(bytes.len() <= HEADER_MAX);
                prop_assert_eq!(Header::parse(&bytes), Ok(Parsed::Complete(want, bytes.len())));
            }
        }
    }
}
