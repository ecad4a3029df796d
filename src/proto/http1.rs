//! HTTP/1.1 heads: finding their end, judging them, writing new ones. Borrows the bytes of the
//! peers, owns nothing but the position of a scan. Knows nothing of WebSocket: plain HTTP will pass
//! here one day.
//!
//! `scan` finds the end, this file parses, `target` judges Host and target, `body` finds the end of
//! an answer's body, `write` writes what leaves, `edit` has the changes that policy wants to it.
//! The rules of WebSocket are in [`super::handshake`].

mod body;
mod edit;
mod passage;
mod scan;
mod spans;
mod target;
#[cfg(test)]
pub(super) mod tests;
mod write;

pub use body::{Body, Chunks, body_of};
pub use edit::FieldEdits;
pub use passage::{Framing, Malformed, Passage, Passed, request_framing};
pub use scan::HeadScan;
pub use spans::Spans;
pub use target::{climbs, encode_target};
pub(super) use write::{Named, is_hop_by_hop, names_protected, push_added, push_address, push_length, push_status};
pub use write::{Refused, Reply, push, push_field, reason_of, write_refusal, write_reply, write_response};

use super::end::Cause;

/// The most header fields a head may have.
pub const FIELDS_MAX: usize = 100;

/// One header field. Names keep their case; values are trimmed of surrounding white space, any
/// bytes else but control bytes (HTAB may stand inside).
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

/// A request head that satisfies every rule of HTTP that does not depend on the route.
#[derive(Debug)]
pub struct Request<'a> {
    /// HTTP/1.0; else 1.1.
    pub is_http10: bool,
    pub method: &'a str,
    /// As the client wrote it: origin-form (`/path?query`), absolute-form, or `*` of OPTIONS.
    pub target: &'a str,
    /// Path of the target as written, without query; `/` where an absolute-form has none, and for
    /// `*`.
    pub path: &'a str,
    /// `?query` as written with its question mark, or empty.
    pub query: &'a str,
    /// The one Host value as written; empty where HTTP/1.0 has none.
    pub host: &'a str,
    pub fields: Vec<Field<'a>>,
}

/// Whether the head that begins like this is that of a HEAD request, be it well-formed or not.
pub fn is_head(held: &[u8]) -> bool {
    held.strip_prefix(b"\r\n").unwrap_or(held).starts_with(b"HEAD ")
}

/// Parses a complete head (as [`HeadScan`] delimited it) and judges it by the rules of HTTP, in the
/// order of the contract: [`Cause::MalformedHead`], [`Cause::TooManyFields`],
/// [`Cause::HttpVersion`], [`Cause::BadHost`], [`Cause::BadTarget`].
pub fn parse_request(head: &[u8]) -> Result<Request<'_>, Cause> {
    // "a server [...] SHOULD ignore at least one empty line (CRLF) received prior to the
    // request-line"
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let (line, rest) = split_line(head).ok_or(Cause::MalformedHead)?;
    let line = request_line(line)?;
    let fields = parse_fields(rest)?;
    if !line.spoken {
        return Err(Cause::HttpVersion);
    }
    let host = target::judge_host(&fields, &line)?;
    let target = str::from_utf8(line.target).map_err(|_| Cause::BadTarget)?;
    let target::Target { path, query } = match (line.method, target) {
        ("OPTIONS", "*") => target::Target { path: "/", query: "" },
        _ => target::judge_target(target)?,
    };
    Ok(Request { is_http10: line.is_http10, method: line.method, target, path, query, host, fields })
}

/// A response head of the upstream.
#[derive(Debug)]
pub struct Response<'a> {
    /// HTTP/1.0; else 1.1.
    pub is_http10: bool,
    /// 100 to 599.
    pub status: u16,
    /// As written, or empty where it is not UTF-8.
    pub reason: &'a str,
    pub fields: Vec<Field<'a>>,
}

/// Parses a complete response head. `Cause::BadResponse` for all that is not one.
///
/// HTTP/1.0 may answer, but neither switch protocols nor send chunks (RFC 9110 section 7.8, RFC
/// 9112 section 6.1).
pub fn parse_response(head: &[u8]) -> Result<Response<'_>, Cause> {
    let (line, rest) = split_line(head).ok_or(Cause::BadResponse)?;
    let Some([minor @ b'0'..=b'1', b' ', status @ ..]) = line.strip_prefix(b"HTTP/1.") else {
        return Err(Cause::BadResponse);
    };
    let (status, reason) = status.split_first_chunk::<3>().ok_or(Cause::BadResponse)?;
    if !matches!(status, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return Err(Cause::BadResponse);
    }
    let status = status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    // The space after the status belongs there even without a reason; some servers leave both out.
    let reason = match reason {
        [] => reason,
        [b' ', reason @ ..] if scan::is_text(reason) => reason,
        _ => return Err(Cause::BadResponse),
    };
    let fields = parse_fields(rest).map_err(|_| Cause::BadResponse)?;
    if *minor == b'0' && (status == 101 || values(&fields, "transfer-encoding").next().is_some()) {
        return Err(Cause::BadResponse);
    }
    Ok(Response { is_http10: *minor == b'0', status, reason: str::from_utf8(reason).unwrap_or_default(), fields })
}

/// The values of all fields called `name` (in any case), in order.
pub fn values<'a>(fields: &[Field<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The name of a field begins so, in whatever case.
pub(super) fn starts_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The elements of a comma-separated list over all fields called `name`, trimmed. Empty elements
/// mean nothing (RFC 9110 section 5.6.1.2). Not for lists whose elements can hold quoted commas.
pub fn elements<'a>(fields: &[Field<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    values(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// `1*DIGIT`: no sign, no list, no overflow.
pub(super) fn length_of(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// `method SP request-target SP HTTP-version`, judged no further than its grammar.
struct RequestLine<'a> {
    method: &'a str,
    target: &'a [u8],
    /// Of HTTP/1.1 or 1.0; else of a version that is not spoken here.
    spoken: bool,
    is_http10: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Cause> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), version, None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(Cause::MalformedHead);
    };
    let spoken = match version {
        Some(b"HTTP/1.1" | b"HTTP/1.0") => true,
        // Minor versions that do not exist; httparse refuses them too.
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']) => return Err(Cause::MalformedHead),
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => false,
        // The whole of a request in HTTP/0.9 was `GET /path`.
        None if target.starts_with(b"/") => false,
        _ => return Err(Cause::MalformedHead),
    };
    match str::from_utf8(method) {
        Ok(method) if scan::is_token(method.as_bytes()) && !target.is_empty() => {
            Ok(RequestLine { method, target, spoken, is_http10: version == Some(b"HTTP/1.0") })
        }
        _ => Err(Cause::MalformedHead),
    }
}

/// The field lines up to and with the empty line, which must be the end of `lines`.
fn parse_fields(lines: &[u8]) -> Result<Vec<Field<'_>>, Cause> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(lines, &mut fields) {
        Ok(httparse::Status::Complete((end, fields))) if end == lines.len() => {
            Ok(fields.iter().map(|field| Field { name: field.name, value: field.value }).collect())
        }
        Err(httparse::Error::TooManyHeaders) => Err(Cause::TooManyFields),
        _ => Err(Cause::MalformedHead),
    }
}

fn split_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = head.iter().position(|byte| *byte == b'\r')?;
    let (line, rest) = head.split_at_checked(end)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}
