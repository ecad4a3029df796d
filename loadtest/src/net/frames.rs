//! The frames that a peer sends, as they come: cut anywhere, judged by RFC 6455, handed on in
//! pieces without being gathered or unmasked. Owns at most one incomplete header and one incomplete
//! control frame.

use framegate::proto::frame::{CONTROL_MAX, HEADER_MAX, Header, Parsed, opcode};
use framegate::proto::mask::mask;

#[derive(Debug, Default)]
pub struct Frames {
    /// An incomplete header.
    held: [u8; HEADER_MAX],
    held_len: u8,
    state: State,
    in_message: bool,
    text: bool,
    /// The peer is a client: its frames must be masked.
    of_client: bool,
    key: Option<[u8; 4]>,
    control_key: Option<[u8; 4]>,
}

#[derive(Debug, Default)]
enum State {
    /// Between two frames.
    #[default]
    Header,
    /// Within a data frame: payload bytes still to come, and whether it is the last of its message.
    Data(u64, bool),
    /// Inside a control frame: opcode, length, payload so far.
    Control(u8, usize, Vec<u8>),
}

/// The next piece of input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of a message, perhaps none; `last` is set once for each message, with its last bytes.
    Data {
        bytes: &'a [u8],
        text: bool,
        last: bool,
        /// Offset into the mask of the first byte.
        key: Option<[u8; 4]>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code, 1005 if it has none.
    Close(u16),
}

impl Frames {
    /// Of a client, as a server reads them.
    pub fn of_client() -> Frames {
        Frames { of_client: true, ..Frames::default() }
    }

    /// Takes the next piece off the front of `bytes`; `None` when they are used up.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, String> {
        loop {
            match &mut self.state {
                State::Header => {
                    let Some(header) = self.header(bytes)? else { return Ok(None) };
                    self.enter(&header)?;
                }
                State::Data(left, fin) => {
                    let n = (*left).min(bytes.len() as u64);
                    if n == 0 && *left > 0 {
                        return Ok(None);
                    }
                    let (now, later) = bytes.split_at(n as usize);
                    *bytes = later;
                    *left -= n;
                    let key = self.key;
                    if let Some(key) = &mut self.key {
                        key.rotate_left((n % 4) as usize);
                    }
                    let complete = *left == 0;
                    let last = complete && *fin;
                    if complete {
                        self.state = State::Header;
                        self.in_message = !last;
                    }
                    return Ok(Some(Piece::Data { bytes: now, text: self.text, last, key }));
                }
                State::Control(opcode, len, payload) => {
                    let n = (*len - payload.len()).min(bytes.len());
                    let (now, later) = bytes.split_at(n);
                    *bytes = later;
                    payload.extend_from_slice(now);
                    if payload.len() < *len {
                        return Ok(None);
                    }
                    let (opcode, mut payload) = (*opcode, std::mem::take(payload));
                    if let Some(key) = self.control_key.take() {
                        mask(&mut payload, key, 0);
                    }
                    self.state = State::Header;
                    return control(opcode, payload).map(Some);
                }
            }
        }
    }

    fn header(&mut self, bytes: &mut &[u8]) -> Result<Option<Header>, String> {
        let held_len = usize::from(self.held_len);
        let parsed = if held_len == 0 {
            Header::parse(bytes)
        } else {
            let room = &mut self.held[held_len..];
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            Header::parse(&self.held[..held_len + n])
        };
        match parsed {
            Err(_) => Err("a frame with a non-minimal length encoding".into()),
            Ok(Parsed::Complete(header, len)) => {
                *bytes = &bytes[len - held_len..];
                self.held_len = 0;
                Ok(Some(header))
            }
            Ok(Parsed::Partial) => {
                if held_len == 0 {
                    self.held[..bytes.len()].copy_from_slice(bytes);
                }
                self.held_len += bytes.len() as u8;
                *bytes = &[];
                Ok(None)
            }
        }
    }

    fn enter(&mut self, header: &Header) -> Result<(), String> {
        let refuse = |what: &str| Err(format!("a frame that RFC 6455 forbids: {what}"));
        if header.mask.is_some() != self.of_client {
            return refuse(if self.of_client { "not masked by a client" } else { "masked by a server" });
        }
        if header.rsv != 0 {
            return refuse("reserved bits set without an extension");
        }
        if header.is_control() {
            if !matches!(header.opcode, opcode::CLOSE | opcode::PING | opcode::PONG) {
                return refuse(&format!("opcode {}", header.opcode));
            }
            if !header.fin || header.payload_len > CONTROL_MAX {
                return refuse("a control frame that is fragmented or over 125 bytes");
            }
            let len = header.payload_len as usize;
            self.control_key = header.mask;
            self.state = State::Control(header.opcode, len, Vec::with_capacity(len));
            return Ok(());
        }
        match (header.opcode, self.in_message) {
            (opcode::CONTINUATION, true) => {}
            (opcode::TEXT | opcode::BINARY, false) => self.text = header.opcode == opcode::TEXT,
            (opcode::CONTINUATION, false) => return refuse("a continuation of nothing"),
            (opcode::TEXT | opcode::BINARY, true) => return refuse("a new message inside a message"),
            (other, _) => return refuse(&format!("opcode {other}")),
        }
        self.key = header.mask;
        self.state = State::Data(header.payload_len, header.fin);
        Ok(())
    }
}

fn control<'a>(opcode: u8, payload: Vec<u8>) -> Result<Piece<'a>, String> {
    Ok(match opcode {
        opcode::PING => Piece::Ping(payload),
        opcode::PONG => Piece::Pong(payload),
        _ => match payload.as_slice() {
            [] => Piece::Close(1005),
            [_] => return Err("a Close frame with one byte".into()),
            [high, low, ..] => Piece::Close(u16::from_be_bytes([*high, *low])),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces, adjacent data joined.
    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Whole {
        Message(Vec<u8>, bool),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(u16),
    }

    fn read(frames: &mut Frames, mut bytes: &[u8], open: &mut Vec<u8>, out: &mut Vec<Whole>) -> Result<(), String> {
        while let Some(piece) = frames.next(&mut bytes)? {
            match piece {
                Piece::Data { bytes, text, last, .. } => {
                    open.extend_from_slice(bytes);
                    if last {
                        out.push(Whole::Message(std::mem::take(open), text));
                    }
                }
                Piece::Ping(payload) => out.push(Whole::Ping(payload)),
                Piece::Pong(payload) => out.push(Whole::Pong(payload)),
                Piece::Close(code) => out.push(Whole::Close(code)),
            }
        }
        assert!(bytes.is_empty());
        Ok(())
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let len = payload.len() as u64;
        Header { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 15, mask: None, payload_len: len }
            .write(&mut out);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn everything_comes_out_wherever_it_is_cut() {
        let long = vec![7; 300];
        let bytes = [
            frame(0x81, b"hello"),
            frame(0x02, b"one"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, b"two"),
            frame(0x82, b""),
            frame(0x82, &long),
            frame(0x8a, b""),
            frame(0x88, &[3, 232, b'x']),
        ]
        .concat();
        let expected = [
            Whole::Message(b"hello".to_vec(), true),
            Whole::Ping(b"ping".to_vec()),
            Whole::Message(b"onetwo".to_vec(), false),
            Whole::Message(vec![], false),
            Whole::Message(long, false),
            Whole::Pong(vec![]),
            Whole::Close(1000),
        ];
        for cut in 0..=bytes.len() {
            let (mut frames, mut open, mut out) = (Frames::default(), vec![], vec![]);
            read(&mut frames, &bytes[..cut], &mut open, &mut out).unwrap();
            read(&mut frames, &bytes[cut..], &mut open, &mut out).unwrap();
            assert_eq!(out, expected, "cut at {cut}");
        }
        let (mut frames, mut open, mut out) = (Frames::default(), vec![], vec![]);
        bytes.iter().for_each(|byte| read(&mut frames, &[*byte], &mut open, &mut out).unwrap());
        assert_eq!(out, expected);
    }

    #[test]
    fn protocol_violations_are_named() {
        let cases: [(&[u8], &str); 9] = [
            (&[0x81, 0x81, 0, 0, 0, 0, 1], "masked"),
            (&[0xc1, 0], "reserved bits"),
            (&[0x83, 0], "opcode 3"),
            (&[0x8b, 0], "opcode 11"),
            (&[0x09, 0], "fragmented"),
            (&[0x89, 126, 0, 126], "over 125"),
            (&[0x80, 0], "continuation of nothing"),
            (&[0x01, 0, 0x81, 0], "inside a message"),
            (&[0x82, 126, 0, 1], "non-minimal length"),
        ];
        for (bytes, expected) in cases {
            let (mut open, mut out) = (vec![], vec![]);
            let error = read(&mut Frames::default(), bytes, &mut open, &mut out).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let (mut open, mut out) = (vec![], vec![]);
        assert!(read(&mut Frames::default(), &frame(0x88, &[3]), &mut open, &mut out).is_err());
    }
}
