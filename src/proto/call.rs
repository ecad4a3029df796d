//! The response to a call, a request of our own, as a value of its own: status, fields and the body
//! without its framing. Pure; the connection is the worker's (`worker/calls.rs`), the meaning is
//! policy's.

use super::end::Cause;
use super::http1::{self, Body, FieldEdits, HeadScan, Named, is_hop_by_hop};
use super::interface::TransportEnd;
use std::fmt;

/// Bytes of the head of a response; interim responses included.
pub const RESPONSE_HEAD_MAX: usize = 16 * 1024;
/// Bytes of the body of a response, with the chunking that it may have.
pub const RESPONSE_BODY_MAX: usize = 64 * 1024;

/// Bounds of the times of calls, in microseconds.
pub const CALL_US: [u64; 8] = [5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 5_000_000];

/// What came of a question, whatever its answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// By a response.
    Answered,
    /// By a response that had been kept.
    Cached,
    /// No server could be reached, or none answered in time.
    Unavailable,
    /// What was answered is no response, or too large.
    Malformed,
    /// As many calls waited as may.
    Busy,
    /// The client left before.
    Cancelled,
}

impl CallResult {
    pub const ALL: [CallResult; 6] = [
        CallResult::Answered,
        CallResult::Cached,
        CallResult::Unavailable,
        CallResult::Malformed,
        CallResult::Busy,
        CallResult::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            CallResult::Answered => "answered",
            CallResult::Cached => "cached",
            CallResult::Unavailable => "unavailable",
            CallResult::Malformed => "malformed",
            CallResult::Busy => "busy",
            CallResult::Cancelled => "cancelled",
        }
    }
}

/// A response that is complete.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CallResponse {
    pub status: u16,
    /// In their order, without those that mean the connection alone or frame the body (RFC 9110
    /// section 7.6.1).
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl CallResponse {
    /// The values of the fields called `name`, in any case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |(is, _): &&(String, Vec<u8>)| is.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_slice())
    }

    /// Its fields for a response of our own, which has the framing and the request id.
    pub fn passed_on(&self) -> FieldEdits {
        let mut fields = FieldEdits::new();
        for (name, value) in &self.fields {
            if !name.eq_ignore_ascii_case("x-request-id") {
                fields.add(name, value.clone());
            }
        }
        fields
    }

    /// What it holds in memory, roughly.
    pub fn bytes(&self) -> usize {
        let field = |(name, value): &(String, Vec<u8>)| name.len() + value.len() + size_of::<(String, Vec<u8>)>();
        self.body.len() + self.fields.iter().map(field).sum::<usize>() + size_of::<CallResponse>()
    }
}

/// Without its fields and its body: they say who clients are, and hold their cookies.
impl fmt::Debug for CallResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fields, body) = (self.fields.len(), self.body.len());
        write!(f, "CallResponse {{ status: {}, {fields} fields, {body} bytes }}", self.status)
    }
}

/// Reads one response.
#[derive(Debug, Default)]
pub struct ResponseReader {
    /// The head so far; empty once it is complete.
    held: Vec<u8>,
    scan: HeadScan,
    /// Bytes of heads that are done with.
    heads: usize,
    /// What there is of it, and where its body is, once the head is complete.
    response: Option<(CallResponse, Body)>,
    /// Bytes of the body that have arrived, chunking included.
    body_bytes: usize,
}

impl ResponseReader {
    /// Bytes of the server. The response, once it is complete.
    ///
    /// # Errors
    /// [`Cause::BadResponse`]: it is no HTTP response, or larger than a call accepts.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Result<Option<CallResponse>, Cause> {
        if self.response.is_some() {
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
                status => {
                    let named = Named::of(&response.fields);
                    let passes = |name: &str| {
                        let framing = name.eq_ignore_ascii_case("content-length");
                        !framing && !is_hop_by_hop(name) && !named.contains(name)
                    };
                    let fields = response.fields.iter().filter(|field| passes(field.name));
                    let fields = fields.map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
                    let body = http1::body_of(&response)?;
                    self.response = Some((CallResponse { status, fields, body: Vec::new() }, body));
                }
            }
            self.held = Vec::new();
            return self.on_body(&rest);
        }
    }

    fn on_body(&mut self, bytes: &[u8]) -> Result<Option<CallResponse>, Cause> {
        let Some((response, body)) = &mut self.response else { return Ok(None) };
        let done = match body {
            Body::None => true,
            body => {
                let (n, done) = body.decode(bytes, |content| response.body.extend_from_slice(content))?;
                self.body_bytes += n;
                done
            }
        };
        match (done, self.body_bytes <= RESPONSE_BODY_MAX) {
            (_, false) => Err(Cause::BadResponse),
            (true, true) => Ok(self.take()),
            (false, true) => Ok(None),
        }
    }

    /// The connection has ended: the response, if that is how it ends.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn on_end(&mut self, end: TransportEnd) -> Result<CallResponse, Cause> {
        match (&self.response, end) {
            (Some((_, Body::UntilEof)), TransportEnd::Eof) => self.take().ok_or_else(|| end.cause()),
            _ => Err(end.cause()),
        }
    }

    fn take(&mut self) -> Option<CallResponse> {
        self.response.take().map(|(response, _)| response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status and body of `bytes` and a FIN, however they are cut.
    fn read(bytes: &[u8]) -> Result<(u16, String), Cause> {
        let whole = read_cut(bytes, &[]);
        for cut in 0..bytes.len() {
            assert_eq!(read_cut(bytes, &[cut]), whole, "cut at {cut}");
        }
        let every: Vec<_> = (1..bytes.len()).collect();
        assert_eq!(read_cut(bytes, &every), whole, "byte by byte");
        whole.map(|response| (response.status, String::from_utf8(response.body).unwrap()))
    }

    fn read_cut(bytes: &[u8], cuts: &[usize]) -> Result<CallResponse, Cause> {
        let (mut reader, mut at) = (ResponseReader::default(), 0);
        for end in cuts.iter().copied().chain([bytes.len()]) {
            if let Some(response) = reader.on_bytes(&bytes[at..end])? {
                return Ok(response);
            }
            at = end;
        }
        reader.on_end(TransportEnd::Eof)
    }

    /// Status and body.
    type Read = Result<(u16, &'static str), Cause>;

    #[test]
    fn responses_end_as_their_framing_says() {
        let rows: &[(&str, Read)] = &[
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok((204, ""))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok((200, "ok"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", Ok((200, "ok"))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Err(Cause::Eof)),
            (
                "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n1;x=y\r\n!\r\n0\r\nA: b\r\n\r\n",
                Ok((403, "no!")),
            ),
            ("HTTP/1.1 401 Unauthorized\r\n\r\nuntil the end", Ok((401, "until the end"))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok((200, ""))),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Err(Cause::BadResponse)),
            ("HTTP/1.1 200", Err(Cause::Eof)),
            ("", Err(Cause::Eof)),
            ("SSH-2.0\r\n\r\n", Err(Cause::BadResponse)),
        ];
        for (bytes, want) in rows {
            let found = read(bytes.as_bytes());
            assert_eq!(
                found.as_ref().map(|(status, body)| (*status, body.as_str())),
                want.as_ref().copied(),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn fields_of_one_connection_do_not_pass() {
        let head = "HTTP/1.1 302 Found\r\nLocation: /login\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                    Set-Cookie: a=1\r\nset-cookie: b=2\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n";
        let response = read_cut(head.as_bytes(), &[]).unwrap();
        let names: Vec<_> = response.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Location", "Set-Cookie", "set-cookie", "X-Request-Id"]);
        assert_eq!(response.values("SET-COOKIE").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        let names: Vec<_> = response.passed_on().added().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["Location", "Set-Cookie", "set-cookie"]);
        assert!(!format!("{response:?}").contains("a=1"));
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
        // Chunks of one byte: their framing counts as well.
        let mut reader = ResponseReader::default();
        assert_eq!(reader.on_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Ok(None));
        assert_eq!(reader.on_bytes(&b"1\r\nx\r\n".repeat(RESPONSE_BODY_MAX / 6 + 1)), Err(Cause::BadResponse));
    }
}
