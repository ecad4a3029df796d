//! Plain HTTP through the proxy: what the heads of a request and its response say about the two
//! messages and their connections, and how both are written anew. Over heads of [`super::http1`],
//! as [`super::handshake`] is, which also writes the request that goes upstream: it has the same
//! fields about the client.

use super::end::Cause;
use super::http1::{
    Body, Field, FieldEdits, Framing, Named, Request, Response, body_of, elements, is_hop_by_hop, names_protected,
    push_added, push_field, push_length, push_status, request_framing, values,
};

/// What the head of a request says about the exchange that it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbound {
    pub framing: Framing,
    /// The client takes another response on this connection.
    pub persistent: bool,
    pub is_http10: bool,
    /// Its response has no body.
    pub is_head: bool,
    /// It may be sent a second time (RFC 9110 section 9.2.2).
    pub is_idempotent: bool,
    /// It names `trailers` in TE.
    pub takes_trailers: bool,
    /// It has a body, and its method gives that no meaning (RFC 9110 section 9.3): the server may
    /// not read it, and take it for another request.
    pub may_stay_unread: bool,
}

impl Inbound {
    /// Its body is known to be longer than this.
    pub fn is_longer_than(&self, bytes: u64) -> bool {
        matches!(self.framing, Framing::Length(length) if length > bytes)
    }
}

/// What the head of a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outbound {
    pub framing: Framing,
    /// The upstream takes another request on this connection.
    pub persistent: bool,
}

/// The rules of plain HTTP, after those of heads and the route: [`Cause::UnsupportedMethod`],
/// [`Cause::BadFraming`], [`Cause::Expectation`], [`Cause::ProtectedHeader`].
pub fn judge_request(request: &Request<'_>) -> Result<Inbound, Cause> {
    let fields = &request.fields;
    // A tunnel, and a request that makes the server repeat the fields that the proxy has added.
    if matches!(request.method, "CONNECT" | "TRACE") {
        return Err(Cause::UnsupportedMethod);
    }
    let framing = request_framing(request).map_err(|_| Cause::BadFraming)?;
    if !values(fields, "expect").all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Cause::Expectation);
    }
    if names_protected(fields) {
        return Err(Cause::ProtectedHeader);
    }
    Ok(Inbound {
        framing,
        persistent: is_persistent(fields, request.is_http10),
        is_http10: request.is_http10,
        is_head: request.method == "HEAD",
        is_idempotent: matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"),
        takes_trailers: elements(fields, "te").any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
        may_stay_unread: matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "DELETE")
            && !matches!(framing, Framing::None | Framing::Length(0)),
    })
}

/// Judges the head of a final response to a request. `Cause::BadResponse` where its body could be
/// delimited in two ways, and for a 101: no upgrade was asked for.
pub fn judge_response(response: &Response<'_>, inbound: &Inbound) -> Result<Outbound, Cause> {
    if response.status == 101 {
        return Err(Cause::BadResponse);
    }
    let framing = match body_of(response)? {
        _ if inbound.is_head => Framing::None,
        Body::None => Framing::None,
        Body::Length(length) => Framing::Length(length),
        Body::Chunked(_) => Framing::Chunked,
        Body::UntilEof => Framing::UntilEof,
    };
    // Some servers say 408 of an idle connection. Where that crosses a request it is taken for the
    // answer, and what the server says next would reach another request.
    let persistent = !response.is_http10
        && response.status != 408
        && is_persistent(&response.fields, false)
        && framing != Framing::UntilEof
        && !inbound.may_stay_unread;
    Ok(Outbound { framing, persistent })
}

/// RFC 9112 section 9.3. Fields of other proxies (`Proxy-Connection`) mean nothing.
fn is_persistent(fields: &[Field<'_>], is_http10: bool) -> bool {
    let has = |option: &[u8]| elements(fields, "connection").any(|named| named.eq_ignore_ascii_case(option));
    !has(b"close") && (!is_http10 || has(b"keep-alive"))
}

/// Appends what frames a request for the upstream, behind its Host. The fields of the client that
/// do so are never copied.
pub(super) fn push_framing(out: &mut Vec<u8>, inbound: &Inbound) {
    match inbound.framing {
        Framing::None | Framing::UntilEof => {}
        Framing::Length(length) => push_length(out, length),
        Framing::Chunked => push_field(out, "Transfer-Encoding", b"chunked"),
    }
    if inbound.takes_trailers {
        push_field(out, "TE", b"trailers");
        push_field(out, "Connection", b"TE");
    }
}

/// How a response leaves for the client.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    pub inbound: &'a Inbound,
    pub outbound: &'a Outbound,
    /// The connection ends behind it.
    pub closes: bool,
    pub request_id: &'a str,
    pub edits: &'a FieldEdits,
}

/// What a response gets beside its fields takes no more, unless a route adds fields: no vector has
/// to grow for it.
const ADDED_BYTES: usize = 256;

/// Appends the head of the response for the client: framing and connection fields written anew, the
/// upstream's other fields as they are, but for the route's edits and our `X-Request-Id`.
pub fn write_response(out: &mut Vec<u8>, response: &Response<'_>, add: &Answering<'_>) {
    let fields = response.fields.iter().map(|Field { name, value }| name.len() + value.len() + 4);
    out.reserve(fields.sum::<usize>() + ADDED_BYTES);
    push_status(out, response.status, response.reason);
    push_passing(out, response, add.edits);
    push_added(out, add.edits);
    match (add.outbound.framing, add.inbound.is_head) {
        (Framing::Length(length), _) => push_length(out, length),
        (Framing::Chunked, _) if !add.inbound.is_http10 => push_field(out, "Transfer-Encoding", b"chunked"),
        (Framing::Chunked | Framing::UntilEof, _) => {}
        // Without a body it says what a GET would get (RFC 9110 section 8.6); 204 must not have it.
        (Framing::None, _) => {
            for length in values(&response.fields, "content-length").filter(|_| response.status != 204) {
                push_field(out, "Content-Length", length);
            }
        }
    }
    match (add.closes, add.inbound.is_http10) {
        (true, _) => push_field(out, "Connection", b"close"),
        (false, true) => push_field(out, "Connection", b"keep-alive"),
        (false, false) => {}
    }
    push_field(out, "X-Request-Id", add.request_id.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim response (100, 102, 103), which has no body and no framing. The fields that
/// the route removes are removed from it, too.
pub fn write_interim(out: &mut Vec<u8>, response: &Response<'_>, edits: &FieldEdits) {
    push_status(out, response.status, response.reason);
    push_passing(out, response, edits);
    out.extend_from_slice(b"\r\n");
}

/// The fields of the upstream that pass.
fn push_passing(out: &mut Vec<u8>, response: &Response<'_>, edits: &FieldEdits) {
    let named = Named::of(&response.fields);
    for Field { name, value } in &response.fields {
        let ours = ["content-length", "x-request-id"].iter().any(|known| name.eq_ignore_ascii_case(known));
        if !ours && !is_hop_by_hop(name) && !named.contains(name) && !edits.removes(name) {
            push_field(out, name, value);
        }
    }
}
