//! RFC 6455 framing by hand, for the reference peers and the oracle. Shares nothing with
//! `framegate::proto`: a mistake there must not be repeated here.

/// One frame as it is to be sent. `mask` is the client's key.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// FIN, RSV1-3 and the opcode: the first byte on the wire.
    pub first: u8,
    pub mask: Option<[u8; 4]>,
    pub payload: &'a [u8],
}

pub const FIN: u8 = 0x80;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// The length field in its shortest form, with the mask bit.
pub fn push_length(out: &mut Vec<u8>, masked: bool, len: usize) {
    let bit = if masked { 0x80 } else { 0 };
    if len <= 125 {
        out.push(bit + len as u8);
    } else if len <= 0xffff {
        out.push(bit + 126);
        out.push((len >> 8) as u8);
        out.push(len as u8);
    } else {
        out.push(bit + 127);
        for shift in (0..8).rev() {
            out.push((len as u64 >> (shift * 8)) as u8);
        }
    }
}

impl Frame<'_> {
    pub fn push(&self, out: &mut Vec<u8>) {
        out.push(self.first);
        push_length(out, self.mask.is_some(), self.payload.len());
        match self.mask {
            None => out.extend_from_slice(self.payload),
            Some(key) => {
                out.extend_from_slice(&key);
                out.extend(self.payload.iter().enumerate().map(|(i, b)| b ^ key[i & 3]));
            }
        }
    }
}

pub fn push_close(out: &mut Vec<u8>, mask: Option<[u8; 4]>, code: u16, reason: &str) {
    let mut payload = [0; 125];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    Frame { first: FIN | CLOSE, mask, payload: &payload[..2 + reason.len()] }.push(out);
}

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub first: u8,
    pub mask: Option<[u8; 4]>,
    pub len: u64,
    pub head_len: usize,
}

impl Head {
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    pub fn total(&self) -> u64 {
        self.head_len as u64 + self.len
    }
}

/// The header at the start of `bytes`, or `None` while it is incomplete.
pub fn read_head(bytes: &[u8]) -> Option<Head> {
    if bytes.len() < 2 {
        return None;
    }
    let short = bytes[1] & 0x7f;
    let extra = match short {
        127 => 8,
        126 => 2,
        _ => 0,
    };
    let masked = bytes[1] >= 0x80;
    let head_len = 2 + extra + if masked { 4 } else { 0 };
    if bytes.len() < head_len {
        return None;
    }
    let mut len = u64::from(short);
    if extra > 0 {
        len = bytes[2..2 + extra].iter().fold(0, |sum, b| sum * 256 + u64::from(*b));
    }
    let mask = masked.then(|| [bytes[head_len - 4], bytes[head_len - 3], bytes[head_len - 2], bytes[head_len - 1]]);
    Some(Head { first: bytes[0], mask, len, head_len })
}

/// Walks a stream of frames as it arrives. Keeps positions, and the payload of a Close only.
#[derive(Debug, Default)]
pub struct Walk {
    /// The start of the incomplete frame.
    pub boundary: usize,
    pub frames: u32,
    /// The first Close: its start, and its code (0: none).
    pub close: Option<(usize, u16)>,
}

impl Walk {
    /// `all` is the stream so far. Each frame is walked once.
    pub fn advance(&mut self, all: &[u8]) {
        while let Some(head) = read_head(&all[self.boundary..]) {
            let total = head.total();
            if ((all.len() - self.boundary) as u64) < total {
                return;
            }
            if head.opcode() == CLOSE && self.close.is_none() {
                self.close = Some((self.boundary, close_code(&all[self.boundary..], head)));
            }
            self.boundary += total as usize;
            self.frames += 1;
        }
    }
}

/// The code of a complete Close frame; 0 for none.
pub fn close_code(frame: &[u8], head: Head) -> u16 {
    if head.len < 2 {
        return 0;
    }
    let key = head.mask.unwrap_or_default();
    let at = head.head_len;
    u16::from_be_bytes([frame[at] ^ key[0], frame[at + 1] ^ key[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 6455, section 5.7, byte by byte.
    #[test]
    fn rfc_6455_examples_encode_and_decode() {
        let mut out = Vec::new();
        Frame { first: FIN | TEXT, mask: None, payload: b"Hello" }.push(&mut out);
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        Frame { first: FIN | TEXT, mask: Some([0x37, 0xfa, 0x21, 0x3d]), payload: b"Hello" }.push(&mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        out.clear();
        Frame { first: FIN | BINARY, mask: None, payload: &[0; 256] }.push(&mut out);
        assert_eq!(out[..4], [0x82, 0x7e, 0x01, 0x00]);
        out.clear();
        Frame { first: FIN | BINARY, mask: None, payload: &[0; 65536] }.push(&mut out);
        assert_eq!(out[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn frames_are_found_at_every_segmentation() {
        let mut out = Vec::new();
        for len in [0, 1, 125, 126, 127, 300] {
            Frame { first: FIN | BINARY, mask: Some([1, 2, 3, 4]), payload: &vec![7; len] }.push(&mut out);
        }
        push_close(&mut out, Some([9, 8, 7, 6]), 1001, "bye");
        let mut whole = Walk::default();
        whole.advance(&out);
        assert_eq!((whole.frames, whole.boundary), (7, out.len()));
        assert_eq!(whole.close.map(|(_, code)| code), Some(1001));
        let mut torn = Walk::default();
        for end in 0..=out.len() {
            torn.advance(&out[..end]);
        }
        assert_eq!((torn.frames, torn.boundary, torn.close), (whole.frames, whole.boundary, whole.close));
    }
}
