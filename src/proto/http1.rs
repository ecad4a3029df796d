//! HTTP/1.1 heads: finding their end, judging them, writing new ones. Borrows the bytes of the peers,
//! owns nothing but the position of a scan. Knows nothing of WebSocket: plain HTTP will pass here one day.

use super::ended::Why;

/// The most header fields a head may have.
pub const FIELDS_MAX: usize = 100;

/// Looks for the end of a head, each byte once, however the bytes were cut; refuses at the first byte that
/// no valid head can have there, so that the verdict is the same for every segmentation.
#[derive(Debug, Default)]
pub struct HeadScan {
    at: usize,
}

impl HeadScan {
    /// `held` is all of the head so far (it only grows). `Some(end)`: the head is `held[..end]`.
    pub fn advance(&mut self, held: &[u8]) -> Result<Option<usize>, Why> {
        let _ = (&mut self.at, held);
        Err(Why::Malformed)
    }
}

/// One header field. Names keep their case; values are trimmed of surrounding white space, any bytes else.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

/// A request head that satisfies every rule of HTTP that does not depend on the route.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As the client wrote it: origin-form (`/path?query`) or absolute-form.
    pub target: &'a str,
    /// Path of the target as written, without query.
    pub path: &'a str,
    /// `?query` as written with its question mark, or empty.
    pub query: &'a str,
    /// The one Host value as written.
    pub host: &'a str,
    pub fields: Vec<Field<'a>>,
}

/// Parses a complete head (as [`HeadScan`] delimited it) and judges it by the rules of HTTP.
pub fn parse_request(head: &[u8]) -> Result<Request<'_>, Why> {
    let _ = head;
    Err(Why::Malformed)
}

/// A response head of the upstream.
#[derive(Debug)]
pub struct Response<'a> {
    pub status: u16,
    pub reason: &'a str,
    pub fields: Vec<Field<'a>>,
}

/// Parses a complete response head. `Why::BadAnswer` for all that is not one.
pub fn parse_response(head: &[u8]) -> Result<Response<'_>, Why> {
    let _ = head;
    Err(Why::BadAnswer)
}

/// Where the body of an answer ends (RFC 9112, section 6.3), byte by byte.
#[derive(Debug)]
pub enum Body {
    /// 204, 304, or Content-Length 0.
    None,
    Length(u64),
    Chunked(Chunks),
    UntilEof,
}

/// Position in a chunked body, trailers included. Never decodes: the bytes pass as they are.
#[derive(Debug, Default)]
pub struct Chunks {}

impl Body {
    /// How many of `bytes` belong to the body, and whether it is complete with them.
    /// `Why::BadAnswer` where the chunking is broken.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Why> {
        let _ = bytes;
        Err(Why::BadAnswer)
    }
}

/// How the body of this answer (to a GET) is delimited. Conflicting or repeated framing is `Why::BadAnswer`.
pub fn body_of(response: &Response<'_>) -> Result<Body, Why> {
    let _ = response;
    Err(Why::BadAnswer)
}

/// Writes the answer on for the client: hop-by-hop fields and those named in Connection removed,
/// `Connection: close` added, framing as the upstream chose it.
pub fn write_answer(response: &Response<'_>, request_id: &str) -> Vec<u8> {
    let _ = (response, request_id);
    Vec::new()
}

/// Our own refusal: status line of `why`'s status, `Connection: close`, short body, `X-Request-Id`; the extra
/// fields the status asks for (405 Allow, 426 Upgrade and version, 429/503 Retry-After, 401 WWW-Authenticate).
pub fn write_refusal(why: Why, request_id: &str) -> Vec<u8> {
    let _ = (why, request_id);
    Vec::new()
}
