//! Echoes a client's stream of frames. Pure: bytes in, bytes out, split anywhere.

use crate::proto::end::Cause;
use crate::proto::frame::{CONTROL_MAX, HEADER_MAX, Header, Parsed, opcode};
use crate::proto::mask::mask;

/// The largest length of [`Walk::carried`].
pub(super) const CARRY_BYTES: usize = HEADER_MAX - 1;

/// The position in a client's stream of frames.
#[derive(Default)]
pub(super) struct Walk {
    /// Remaining payload bytes of the current frame.
    left: u64,
    /// Payload bytes processed, which gives the position in the mask.
    processed: u64,
    key: [u8; 4],
    /// The current frame is a pong, which is not echoed.
    silent: bool,
    /// The current frame is a Close: the last one.
    closing: bool,
    /// A fragmented message is incomplete.
    fragmented: bool,
    /// An incomplete header at the end of the last read.
    carry: [u8; CARRY_BYTES],
    carry_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    /// Our Close is in the output.
    Closed,
}

impl Walk {
    /// The incomplete header at the end of the last bytes. The next bytes must begin with it.
    pub(super) fn carried(&self) -> &[u8] {
        self.carry.get(..self.carry_len).unwrap_or_default()
    }

    /// Appends the echo of `bytes`, which begin with [`Walk::carried`], to `out`.
    pub(super) fn echo(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        self.carry_len = 0;
        loop {
            bytes = self.payload(bytes, out);
            if self.left > 0 {
                return Flow::Open;
            }
            if self.closing {
                return Flow::Closed;
            }
            let (header, len) = match Header::parse(bytes) {
                Ok(Parsed::Complete(header, len)) => (header, len),
                Ok(Parsed::Partial) => {
                    for (to, from) in self.carry.iter_mut().zip(bytes) {
                        *to = *from;
                    }
                    self.carry_len = bytes.len();
                    return Flow::Open;
                }
                Err(cause) => return fail(cause, out),
            };
            if let Err(cause) = self.begin(&header, out) {
                return fail(cause, out);
            }
            bytes = bytes.get(len..).unwrap_or_default();
        }
    }

    /// Echoes the available payload of the current frame and returns the bytes that follow it.
    fn payload<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let Some((payload, rest)) = bytes.split_at_checked(here) else { return &[] };
        if !self.silent {
            let start = out.len();
            out.extend_from_slice(payload);
            mask(out.get_mut(start..).unwrap_or_default(), self.key, self.processed);
        }
        self.left -= here as u64;
        self.processed += here as u64;
        rest
    }

    /// Validates a header (RFC 6455 sections 5.1 to 5.5) and echoes it.
    fn begin(&mut self, header: &Header, out: &mut Vec<u8>) -> Result<(), Cause> {
        let Some(key) = header.mask else { return Err(Cause::MaskBit) };
        if header.rsv != 0 {
            return Err(Cause::ReservedBits);
        }
        match header.opcode {
            opcode::CONTINUATION | opcode::TEXT | opcode::BINARY => {
                if self.fragmented != (header.opcode == opcode::CONTINUATION) {
                    return Err(Cause::Continuation);
                }
                self.fragmented = !header.fin;
            }
            opcode::CLOSE | opcode::PING | opcode::PONG if !header.fin => return Err(Cause::ControlFragmented),
            opcode::CLOSE | opcode::PING | opcode::PONG if header.payload_len > CONTROL_MAX => {
                return Err(Cause::ControlTooLong);
            }
            opcode::CLOSE if header.payload_len == 1 => return Err(Cause::ClosePayload),
            opcode::CLOSE | opcode::PING | opcode::PONG => {}
            _ => return Err(Cause::ReservedOpcode),
        }
        self.key = key;
        self.processed = 0;
        self.left = header.payload_len;
        self.silent = header.opcode == opcode::PONG;
        self.closing = header.opcode == opcode::CLOSE;
        let opcode = if header.opcode == opcode::PING { opcode::PONG } else { header.opcode };
        if !self.silent {
            Header { mask: None, opcode, ..*header }.write(out);
        }
        Ok(())
    }
}

/// Responds to a violation with a Close frame.
fn fail(cause: Cause, out: &mut Vec<u8>) -> Flow {
    Header { fin: true, rsv: 0, opcode: opcode::CLOSE, mask: None, payload_len: 2 }.write(out);
    out.extend_from_slice(&cause.info().code.to_be_bytes());
    Flow::Closed
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn client(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        frame(Header { fin, rsv: 0, opcode, mask: Some(KEY), payload_len: payload.len() as u64 }, payload)
    }

    fn server(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        frame(Header { fin, rsv: 0, opcode, mask: None, payload_len: payload.len() as u64 }, payload)
    }

    fn frame(header: Header, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        mask(&mut bytes[start..], header.mask.unwrap_or_default(), 0);
        bytes
    }

    /// Feeds the pieces one by one until the walk closes.
    fn echo(pieces: &[&[u8]]) -> (Vec<u8>, Flow) {
        let (mut walk, mut out) = (Walk::default(), Vec::new());
        for piece in pieces {
            let bytes = [walk.carried(), piece].concat();
            if walk.echo(&bytes, &mut out) == Flow::Closed {
                return (out, Flow::Closed);
            }
        }
        (out, Flow::Open)
    }

    fn assert_everywhere(input: &[u8], want: (Vec<u8>, Flow)) {
        assert_eq!(echo(&[input]), want);
        assert_eq!(echo(&input.chunks(1).collect::<Vec<_>>()), want);
        for cut in 0..=input.len() {
            let (a, b) = input.split_at(cut);
            assert_eq!(echo(&[a, b]), want, "cut at {cut}");
        }
    }

    #[test]
    fn frames_are_echoed_unmasked_and_in_order_at_any_split() {
        let medium = vec![7; 126];
        let large = (0..70_000).map(|i| (i % 251) as u8).collect::<Vec<_>>();
        let input = [
            client(true, opcode::TEXT, b"hello"),
            client(false, opcode::BINARY, &medium),
            client(true, opcode::PING, b"p"),
            client(true, opcode::PONG, b"unasked"),
            client(false, opcode::CONTINUATION, b""),
            client(true, opcode::CONTINUATION, b"end"),
        ]
        .concat();
        let want = [
            server(true, opcode::TEXT, b"hello"),
            server(false, opcode::BINARY, &medium),
            server(true, opcode::PONG, b"p"),
            server(false, opcode::CONTINUATION, b""),
            server(true, opcode::CONTINUATION, b"end"),
        ]
        .concat();
        assert_everywhere(&input, (want, Flow::Open));
        let input = client(true, opcode::BINARY, &large);
        for cut in [0, 1, 2, 9, 13, 14, 15, 17, 40_003] {
            let (a, b) = input.split_at(cut);
            assert_eq!(echo(&[a, b]), (server(true, opcode::BINARY, &large), Flow::Open), "cut at {cut}");
        }
    }

    #[test]
    fn a_close_is_echoed_with_its_code_and_ends_the_walk() {
        for payload in [&b""[..], &[0x03, 0xe8], &[0x0f, 0xa0, b'b', b'y', b'e']] {
            let input = [client(true, opcode::CLOSE, payload), client(true, opcode::TEXT, b"late")].concat();
            assert_everywhere(&input, (server(true, opcode::CLOSE, payload), Flow::Closed));
        }
    }

    #[test]
    fn a_violation_gets_1002() {
        let rsv = frame(Header { fin: true, rsv: 4, opcode: 1, mask: Some(KEY), payload_len: 0 }, b"");
        let cases: &[(&str, Vec<u8>)] = &[
            ("unmasked", server(true, opcode::TEXT, b"x")),
            ("reserved bits", rsv),
            ("reserved opcode", client(true, 3, b"")),
            ("reserved control opcode", client(true, 11, b"")),
            ("nothing to continue", client(true, opcode::CONTINUATION, b"")),
            ("new before the end", [client(false, opcode::TEXT, b""), client(true, opcode::TEXT, b"")].concat()),
            ("fragmented control", client(false, opcode::PING, b"")),
            ("long control", client(true, opcode::PING, &[0; 126])),
            ("Close of one byte", client(true, opcode::CLOSE, b"x")),
            ("length not minimal", vec![0x82, 0xfe, 0, 1, 0, 0, 0, 0]),
        ];
        for (name, input) in cases {
            let (out, flow) = echo(&[input]);
            assert_eq!(flow, Flow::Closed, "{name}");
            assert!(out.ends_with(&server(true, opcode::CLOSE, &1002u16.to_be_bytes())), "{name}: {out:?}");
        }
    }
}
