//! Heads that leave: an answer passed on, a refusal of our own, a response of a route. Values come
//! from parsed heads, which hold no CR or LF, from the tables here, or from [`FieldEdits`], which
//! let none pass: no byte of a peer can start a line.

use super::{Body, Field, FieldEdits, Response, body_of, elements, starts_with};
use crate::proto::end::Cause;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

/// Appends the fields that policy adds.
pub(in crate::proto) fn push_added(out: &mut Vec<u8>, edits: &FieldEdits) {
    edits.added().for_each(|(name, value)| push_field(out, name, value));
}

/// Writes the answer on for the client: hop-by-hop fields and those named in Connection removed,
/// `Connection: close` added, framing as the upstream chose it (the bytes of the body pass as they
/// are). `X-Request-Id` is ours; the upstream's is dropped, so that there is one name for the
/// request. `edits` are those of the route.
pub fn write_response(response: &Response<'_>, request_id: &str, edits: &FieldEdits) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    push_status(&mut out, response.status, response.reason);
    let named = Named::of(&response.fields);
    for Field { name, value } in &response.fields {
        let passes = if name.eq_ignore_ascii_case("content-length") {
            // It cannot be taken away by naming it in Connection: the client could not tell a cut
            // body from a whole one. "A server MUST NOT send a Content-Length header field in any
            // response with a status code of [...] 204"
            response.status != 204
        } else {
            !is_hop_by_hop(name) && !named.contains(name) && !name.eq_ignore_ascii_case("x-request-id")
        };
        if passes && !edits.removes(name) {
            push_field(&mut out, name, value);
        }
    }
    push_added(&mut out, edits);
    if matches!(body_of(response), Ok(Body::Chunked(_))) {
        push_field(&mut out, "Transfer-Encoding", b"chunked");
    }
    push_field(&mut out, "Connection", b"close");
    push_field(&mut out, "X-Request-Id", request_id.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

/// A refusal of ours.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    pub cause: Cause,
    pub request_id: &'a str,
    /// One more field: Location, WWW-Authenticate.
    pub field: Option<(&'static str, &'a str)>,
    /// The request was a HEAD: its response has no body.
    pub head_only: bool,
}

/// Writes a refusal: the status line of the cause's status, `Connection: close`, a short body,
/// `X-Request-Id`, and the fields that the status asks for (405 Allow, 426 Upgrade and version, 429
/// and 503 Retry-After). Nothing where the table of [`crate::proto::end`] has no status: such an
/// end is silent.
pub fn write_refusal(refused: &Refused<'_>) -> Vec<u8> {
    let info = refused.cause.info();
    if info.status == 0 {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(512);
    push_status(&mut out, info.status, reason_of(info.status));
    push_field(&mut out, "Content-Type", b"text/plain; charset=utf-8");
    push_length(&mut out, info.text.len() as u64 + 1);
    if let Some((name, value)) = refused.field {
        push_field(&mut out, name, value.as_bytes());
    }
    match info.status {
        405 if refused.cause == Cause::FileMethod => push_field(&mut out, "Allow", b"GET, HEAD"),
        405 => push_field(&mut out, "Allow", b"GET"),
        426 => push_field(&mut out, "Sec-WebSocket-Version", b"13"),
        429 | 503 if refused.field.is_none_or(|(name, _)| name != "Retry-After") => {
            push_field(&mut out, "Retry-After", b"1");
        }
        _ => {}
    }
    push_end(&mut out, info.status, refused.request_id);
    // "The server MUST NOT send content in the response" to HEAD; its fields are those of a GET
    // (RFC 9110 section 9.3.2).
    if !refused.head_only {
        push(&mut out, &[info.text.as_bytes(), b"\n"]);
    }
    out
}

/// A response of the route's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// All but those that frame the response, and `X-Request-Id`.
    pub fields: FieldEdits,
    pub body: Arc<[u8]>,
}

/// Writes a response of the route's own: its fields and body, and those that a refusal has as well.
/// `head_only` as there; 204 and 304 have no body, and of the statuses only 426 asks for fields
/// that the route cannot set. Without `closes` the connection lives on, which a 426 does not allow.
pub fn write_reply(reply: &Reply, request_id: &str, (head_only, closes): (bool, bool)) -> Vec<u8> {
    let Reply { status, fields, body } = reply;
    let mut out = Vec::with_capacity(512 + body.len());
    push_status(&mut out, *status, reason_of(*status));
    push_added(&mut out, fields);
    let has_body = !matches!(status, 204 | 304);
    if has_body {
        push_length(&mut out, body.len() as u64);
    }
    if closes || *status == 426 {
        push_end(&mut out, *status, request_id);
    } else {
        push_field(&mut out, "X-Request-Id", request_id.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if has_body && !head_only {
        out.extend_from_slice(body);
    }
    out
}

/// The fields that every response of ours ends with, and the empty line.
fn push_end(out: &mut Vec<u8>, status: u16, request_id: &str) {
    // "A server that sends an Upgrade header field MUST also send an 'Upgrade' connection option"
    // (RFC 9110 section 7.8)
    if status == 426 {
        push_field(out, "Upgrade", b"websocket");
        push_field(out, "Connection", b"Upgrade, close");
    } else {
        push_field(out, "Connection", b"close");
    }
    push_field(out, "X-Request-Id", request_id.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends all of `parts`.
pub fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends the status line of a response.
pub(in crate::proto) fn push_status(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, status.into());
    push(out, &[b" ", reason.as_bytes(), b"\r\n"]);
}

/// Appends Content-Length.
pub(in crate::proto) fn push_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    push_number(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Appends decimal digits. Every response has numbers: the formatter of the library takes five
/// times as long.
pub(in crate::proto) fn push_number(out: &mut Vec<u8>, number: u64) {
    // The largest one has 20 digits.
    let (mut digits, mut rest) = ([0; 20], number);
    let mut first = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        (*digit, first) = (b'0' + (rest % 10) as u8, at);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// Appends an address in its text form.
pub(in crate::proto) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (n, octet) in address.octets().into_iter().enumerate() {
                out.extend_from_slice(if n > 0 { b"." } else { b"" });
                push_number(out, octet.into());
            }
        }
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// Appends one field line. Neither name nor value has a CR or LF.
pub fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    // Room for all four at once: a vector that grows does it once.
    out.reserve(name.len() + value.len() + 4);
    push(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

/// Fields that mean one connection only (RFC 9110 section 7.6.1) and never pass.
pub(in crate::proto) fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Connection names a field that a client must not take away on its way.
pub(in crate::proto) fn names_protected(fields: &[Field<'_>]) -> bool {
    elements(fields, "connection").any(is_protected)
}

fn is_protected(name: &[u8]) -> bool {
    const NAMES: [&str; 6] = ["host", "cookie", "authorization", "origin", "forwarded", "x-real-ip"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || starts_with(name, "x-forwarded-")
        || starts_with(name, "sec-websocket-")
}

/// The fields that Connection names: they mean this connection only. Sorted, since a peer may name
/// thousands.
#[derive(Debug)]
pub(in crate::proto) struct Named<'a>(Vec<&'a [u8]>);

impl<'a> Named<'a> {
    pub fn of(fields: &[Field<'a>]) -> Named<'a> {
        let mut names: Vec<_> = elements(fields, "connection").collect();
        names.sort_unstable_by(|a, b| caseless(a, b));
        Named(names)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|named| caseless(named, name.as_bytes())).is_ok()
    }
}

fn caseless(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

/// Reason phrases of RFC 9110 section 15 (and RFC 6585) for the statuses of our responses. One may
/// be empty (RFC 9112 section 4).
pub fn reason_of(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
