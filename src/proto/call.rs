//! The response to a call, a request of our own: its head is parsed, its body is read and dropped.
//! Pure; the connection is the worker's (`worker/calls.rs`).

use super::end::Cause;
use super::http1::{self, Body, HeadScan};
use super::interface::TransportEnd;

/// Bytes of the head of a response; interim responses included.
pub const RESPONSE_HEAD_MAX: usize = 16 * 1024;
/// Bytes of the body of a response.
pub const RESPONSE_BODY_MAX: usize = 64 * 1024;

/// Reads one response.
#[derive(Debug, Default)]
pub struct ResponseReader {
    /// The head so far; empty once it is complete.
    held: Vec<u8>,
    scan: HeadScan,
    /// Bytes of heads that are done with.
    heads: usize,
    /// Status and body, once the head is complete.
    body: Option<(u16, Body)>,
    body_bytes: usize,
}

impl ResponseReader {
    /// Bytes of the server. The status, once the response is complete.
    ///
    /// # Errors
    /// [`Cause::BadResponse`]: it is no HTTP response, or larger than a call accepts.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Option<u16>, Cause> {
        if self.body.is_some() {
            return self.on_body(bytes);
        }
        self.held.extend_from_slice(bytes);
        loop {
            let Some(head_len) = self.scan.advance(&self.held).map_err(|_| Cause::BadResponse)? else {
                let len = self.heads + self.held.len();
                return if len < RESPONSE_HEAD_MAX { Ok(None) } else { Err(Cause::BadResponse) };
            };
            self.heads += head_len;
            if self.heads > RESPONSE_HEAD_MAX {
                return Err(Cause::BadResponse);
            }
            let rest = self.held.split_off(head_len);
            let response = http1::parse_response(&self.held)?;
            match response.status {
                // A call never asks for an upgrade.
                101 => return Err(Cause::BadResponse),
                100..200 => {
                    (self.held, self.scan) = (rest, HeadScan::default());
                    continue;
                }
                status => self.body = Some((status, http1::body_of(&response)?)),
            }
            self.held = Vec::new();
            return self.on_body(&rest);
        }
    }

    fn on_body(&mut self, bytes: &[u8]) -> Result<Option<u16>, Cause> {
        let Some((status, body)) = &mut self.body else { return Ok(None) };
        if matches!(body, Body::None) {
            return Ok(Some(*status));
        }
        let (n, done) = body.advance(bytes)?;
        self.body_bytes += n;
        match (done, self.body_bytes <= RESPONSE_BODY_MAX) {
            (_, false) => Err(Cause::BadResponse),
            (true, true) => Ok(Some(*status)),
            (false, true) => Ok(None),
        }
    }

    /// The connection has ended: the status, if that is how the response ends.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn on_end(&mut self, end: TransportEnd) -> Result<u16, Cause> {
        match (&self.body, end) {
            (Some((status, Body::UntilEof)), TransportEnd::Eof) => Ok(*status),
            _ => Err(end.cause()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of `bytes` and a FIN, however they are cut.
    fn read(bytes: &[u8]) -> Result<u16, Cause> {
        let whole = read_cut(bytes, &[]);
        for cut in 0..bytes.len() {
            assert_eq!(read_cut(bytes, &[cut]), whole, "cut at {cut}");
        }
        whole
    }

    fn read_cut(bytes: &[u8], cuts: &[usize]) -> Result<u16, Cause> {
        let (mut reader, mut at) = (ResponseReader::default(), 0);
        for end in cuts.iter().copied().chain([bytes.len()]) {
            if let Some(status) = reader.on_bytes(&bytes[at..end])? {
                return Ok(status);
            }
            at = end;
        }
        reader.on_end(TransportEnd::Eof)
    }

    #[test]
    fn responses_end_as_their_framing_says() {
        let rows: &[(&str, Result<u16, Cause>)] = &[
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(204)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(200)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Err(Cause::Eof)),
            ("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", Ok(403)),
            ("HTTP/1.1 401 Unauthorized\r\n\r\nuntil the end", Ok(401)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(200)),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Err(Cause::BadResponse)),
            ("HTTP/1.1 200", Err(Cause::Eof)),
            ("", Err(Cause::Eof)),
            ("SSH-2.0\r\n\r\n", Err(Cause::BadResponse)),
        ];
        for (bytes, want) in rows {
            assert_eq!(read(bytes.as_bytes()), *want, "{bytes:?}");
        }
    }

    #[test]
    fn a_response_is_bounded() {
        let mut reader = ResponseReader::default();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(RESPONSE_HEAD_MAX / 25 + 1);
        assert_eq!(reader.on_bytes(&interim), Err(Cause::BadResponse));
        let mut reader = ResponseReader::default();
        assert_eq!(reader.on_bytes(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(None));
        assert_eq!(reader.on_bytes(&[b'x'; RESPONSE_BODY_MAX]), Ok(None));
        assert_eq!(reader.on_bytes(b"x"), Err(Cause::BadResponse));
    }
}
