//! The WebSocket handshake of RFC 6455 section 4 over heads of [`super::http1`]: judging a request,
//! writing the new one for the upstream, judging the upstream's 101, writing ours. Pure: ids and
//! addresses are arguments.
//!
//! Nothing here copies a line of a peer: every field that leaves is written anew from a parsed name
//! and value, which hold no CR or LF.

mod extension;
mod forwarded;
pub mod subrequest;
#[cfg(test)]
mod tests;
mod trace;

use super::end::Cause;
use super::http1::{
    Field, FieldEdits, Named, Request, Response, elements, is_hop_by_hop, names_protected, push, push_added,
    push_address, push_field, starts_with, values,
};
use super::plain::{self, Inbound};
use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{GeneralPurpose, general_purpose};
pub use forwarded::ForwardingHeaders;
use sha1::{Digest, Sha1};
use std::net::IpAddr;
use trace::Trace;

/// What the negotiated extensions allow in the frames of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extensions {
    /// None: all RSV bits are zero (RFC 6455 section 5.2).
    #[default]
    None,
    /// permessage-deflate alone: RSV1 on the first frame of a data message (RFC 7692 section 6).
    Deflate,
    /// One we do not know: RSV bits and reserved opcodes pass, every other check stays.
    Unknown,
}

/// The rules of the WebSocket handshake, after those of HTTP and the route, in the order of the
/// contract: [`Cause::HttpVersion`], [`Cause::Method`], [`Cause::UnexpectedBody`],
/// [`Cause::NotUpgrade`], [`Cause::BadKey`], [`Cause::ProtectedHeader`].
pub fn judge_request(request: &Request<'_>) -> Result<(), Cause> {
    let fields = &request.fields;
    if request.is_http10 {
        return Err(Cause::HttpVersion);
    }
    if request.method != "GET" {
        return Err(Cause::Method);
    }
    let has = |name| values(fields, name).next().is_some();
    let empty = !has("content-length") || only(fields, "content-length") == Some(b"0");
    if !empty || has("transfer-encoding") || has("trailer") || has("expect") {
        return Err(Cause::UnexpectedBody);
    }
    if !upgrades(fields) || only(fields, "sec-websocket-version") != Some(b"13") {
        return Err(Cause::NotUpgrade);
    }
    if !only(fields, "sec-websocket-key").is_some_and(is_key) {
        return Err(Cause::BadKey);
    }
    if names_protected(fields) {
        return Err(Cause::ProtectedHeader);
    }
    Ok(())
}

/// The request asks for the WebSocket protocol, well-formed or not: it is judged as a handshake.
pub fn asks_for_websocket(request: &Request<'_>) -> bool {
    elements(&request.fields, "upgrade").any(|token| token.eq_ignore_ascii_case(b"websocket"))
}

/// The client's certificate, for the upstream. Such fields of clients are dropped on every
/// listener.
const CLIENT_SUBJECT: &str = "X-Client-Cert-Subject";
const CLIENT_SHA256: &str = "X-Client-Cert-SHA256";

/// The client of a connection from `peer`: the peer itself, or, where that is a trusted proxy, the
/// last address in X-Forwarded-For that is none. Forwarded is read where there is no
/// X-Forwarded-For: most proxies write that, and let the Forwarded of their clients pass. What is
/// malformed, or no address, ends the walk.
pub fn client_of(request: &Request<'_>, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let fields = &request.fields;
    let has_x = fields.iter().any(|field| field.name.eq_ignore_ascii_case("x-forwarded-for"));
    let hops: Vec<Option<IpAddr>> = match has_x {
        true => elements(fields, "x-forwarded-for").map(|hop| str::from_utf8(hop).ok()?.parse().ok()).collect(),
        false => forwarded::hops(fields),
    };
    for hop in hops.iter().rev() {
        let Some(address) = hop else { break };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Where the same is served over TLS, on `port`.
pub fn location(request: &Request<'_>, port: u16) -> String {
    let host = request.host;
    let name = match host.rsplit_once(':') {
        // The colons within brackets belong to an address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    format!("https://{name}{port}{}{}", request.path, request.query)
}

/// What the proxy adds to or changes in the request that it writes for the upstream.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// Target path after the route's rewrite, without query.
    pub path: &'a str,
    /// Replaces the query; the client's is kept with `None`. Empty, or with its question mark.
    pub query: Option<&'a str>,
    /// Replaces Host; the client's is kept with `None`.
    pub host: Option<&'a str>,
    pub peer: IpAddr,
    /// The client: the peer, or whom trusted proxies name ([`client_of`]).
    pub client: IpAddr,
    /// The peer is one of the listener's trusted proxies: its forwarding fields are kept and
    /// appended to.
    pub trusted: bool,
    /// The client came over TLS.
    pub secure: bool,
    pub headers: ForwardingHeaders,
    /// Subject and SHA-256 of the certificate that it has shown.
    pub cert: Option<(&'a str, &'a str)>,
    /// 32 hex digits, already chosen (kept from a trusted peer, else new).
    pub request_id: &'a str,
    /// Random 8 bytes for the span (and 16 for the trace where none is continued).
    pub trace_seed: [u8; 24],
    /// Changes to the client's fields. Those that the proxy itself adds do not change.
    pub edits: &'a FieldEdits,
    /// `None`: it is a WebSocket handshake.
    pub plain: Option<&'a Inbound>,
}

/// Writes the whole new request head: Host and the upgrade, or what frames the body, first, then
/// the client's fields in their order, then what the route adds, then what the proxy adds.
pub fn write_request(request: &Request<'_>, add: &Forwarding<'_>) -> Vec<u8> {
    let fields = &request.fields;
    let named = Named::of(fields);
    let mut out = Vec::with_capacity(1024);
    // The server as a whole is asked, whatever the path is rewritten to (RFC 9112 section 3.2.4).
    let (path, query) = match request.target {
        "*" => ("*", ""),
        _ => (add.path, add.query.unwrap_or(request.query)),
    };
    push(&mut out, &[request.method.as_bytes(), b" ", path.as_bytes(), query.as_bytes(), b" HTTP/1.1\r\n"]);
    push_field(&mut out, "Host", add.host.unwrap_or(request.host).as_bytes());
    match add.plain {
        None => push_upgrade(&mut out),
        Some(inbound) => plain::push_framing(&mut out, inbound),
    }
    let parent = only(fields, "traceparent").filter(|_| !named.contains("traceparent"));
    // Most routes edit nothing, and fields are many.
    let edited = !add.edits.is_empty();
    let continued = parent.and_then(|value| Trace::continued(value, &add.trace_seed));
    for field @ Field { name, value } in fields {
        let passes = match Origin::of(name) {
            Origin::Rewritten => false,
            Origin::Trust => add.trusted && !add.headers.replaces(name),
            Origin::TraceState => continued.is_some(),
            Origin::Client => true,
        };
        let removed = edited && add.edits.removes(name);
        if passes && !removed && !named.contains(name) && !offers_nothing(field) {
            push_field(&mut out, name, value);
        }
    }
    push_added(&mut out, add.edits);
    if add.headers.has_forwarded() {
        forwarded::push_forwarded(&mut out, request, add);
    }
    if add.headers.has_x_forwarded() {
        push_x_forwarded(&mut out, request, add);
    }
    push_identity(&mut out, request, add);
    let trace = continued.unwrap_or_else(|| Trace::started(&add.trace_seed));
    push_field(&mut out, "traceparent", &trace.value());
    out.extend_from_slice(b"\r\n");
    out
}

/// Whose word a field of the request is.
enum Origin {
    /// Never copied: hop-by-hop, or written anew here.
    Rewritten,
    /// Copied from a trusted peer only.
    Trust,
    /// Belongs to a traceparent that is continued.
    TraceState,
    Client,
}

impl Origin {
    fn of(name: &str) -> Origin {
        const REWRITTEN: [&str; 5] = ["host", "content-length", "x-request-id", "x-forwarded-for", "traceparent"];
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // `_` and `-` are one in CGI and its heirs: a `X_Forwarded_For` would pass for ours there.
        // (Without a branch per byte: names are short.)
        let underscore = || name.bytes().fold(false, |found, byte| found | (byte == b'_'));
        if is_hop_by_hop(name) || underscore() || REWRITTEN.into_iter().any(is) {
            Origin::Rewritten
        } else if is("forwarded")
            || is("x-real-ip")
            || starts_with(name.as_bytes(), "x-forwarded-")
            || starts_with(name.as_bytes(), "x-client-cert-")
        {
            Origin::Trust
        } else if is("tracestate") {
            Origin::TraceState
        } else {
            Origin::Client
        }
    }
}

/// Where the client is; of a trusted peer's word only X-Forwarded-For is continued, the rest
/// stands.
fn push_x_forwarded(out: &mut Vec<u8>, request: &Request<'_>, add: &Forwarding<'_>) {
    let kept = |name| is_kept(name, request, add);
    out.extend_from_slice(b"X-Forwarded-For: ");
    if add.trusted {
        for hop in elements(&request.fields, "x-forwarded-for") {
            push(out, &[hop, b", "]);
        }
    }
    push_address(out, add.peer.to_canonical());
    out.extend_from_slice(b"\r\n");
    if !kept("x-forwarded-proto") {
        push_field(out, "X-Forwarded-Proto", if add.secure { b"https" } else { b"http" });
    }
    if !kept("x-forwarded-host") {
        push_field(out, "X-Forwarded-Host", request.host.as_bytes());
    }
    if !kept("x-real-ip") {
        out.extend_from_slice(b"X-Real-IP: ");
        push_address(out, add.client.to_canonical());
        out.extend_from_slice(b"\r\n");
    }
}

/// Who the client and what its request is.
fn push_identity(out: &mut Vec<u8>, request: &Request<'_>, add: &Forwarding<'_>) {
    let kept = |name| is_kept(name, request, add);
    if let Some((subject, sha256)) = add.cert.filter(|_| !kept(CLIENT_SUBJECT) && !kept(CLIENT_SHA256)) {
        push_field(out, CLIENT_SUBJECT, subject.as_bytes());
        push_field(out, CLIENT_SHA256, sha256.as_bytes());
    }
    push_field(out, "X-Request-Id", add.request_id.as_bytes());
}

/// A trusted peer's word stands.
fn is_kept(name: &str, request: &Request<'_>, add: &Forwarding<'_>) -> bool {
    add.trusted && values(&request.fields, name).next().is_some()
}

fn push_upgrade(out: &mut Vec<u8>) {
    push_field(out, "Connection", b"Upgrade");
    push_field(out, "Upgrade", b"websocket");
}

/// The X-Request-Id of a trusted peer, if it sent one that may be kept (1 to 128 visible ASCII
/// characters).
pub fn request_id_of<'a>(request: &Request<'a>) -> Option<&'a str> {
    let id = only(&request.fields, "x-request-id")?;
    let fits = (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    if fits { str::from_utf8(id).ok() } else { None }
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2, item 5.4).
pub fn accept_of(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut accept = [0; 28];
    // 20 bytes are always 28 characters.
    let written = general_purpose::STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(accept.len()));
    accept
}

/// What a valid 101 settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switching {
    /// `Sec-WebSocket-Accept`, for the client's key.
    pub accept: [u8; 28],
    pub extensions: Extensions,
}

/// What a 101 settles about the frames of a session: two servers that agree in it understand the
/// same frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed {
    pub subprotocol: Option<Box<[u8]>>,
    /// The list of extensions, in one way to write it.
    extensions: Vec<u8>,
}

impl Agreed {
    pub fn of(response: &Response<'_>) -> Agreed {
        Agreed {
            subprotocol: elements(&response.fields, PROTOCOL).next().map(Box::from),
            extensions: values(&response.fields, EXTENSIONS).flat_map(extension::normal).collect(),
        }
    }
}

/// Judges the upstream's 101 against the client's request: `Cause::Bad101` for anything that is off
/// (RFC 6455 section 4.1, items 1 to 6 of what the client must check).
pub fn judge_response(request: &Request<'_>, response: &Response<'_>) -> Result<Switching, Cause> {
    let fields = &response.fields;
    let accept = accept_of(only(&request.fields, "sec-websocket-key").ok_or(Cause::Bad101)?);
    // Content-Length and Transfer-Encoding mean nothing here, although they must not be sent: a 1xx
    // "is always terminated by the first empty line" (RFC 9112 section 6.3). They are not
    // forwarded.
    let sound = response.status == 101
        && upgrades(fields)
        && only(fields, "sec-websocket-accept") == Some(accept.as_slice())
        && protocol_offered(&request.fields, fields)
        // Named in Connection they could not be passed on.
        && !elements(fields, "connection").any(|name| starts_with(name, "sec-websocket-"));
    if !sound {
        return Err(Cause::Bad101);
    }
    Ok(Switching { accept, extensions: judge_extensions(&request.fields, fields)? })
}

/// None was chosen, or one of those that the client offered. An empty list is none.
fn protocol_offered(request: &[Field<'_>], response: &[Field<'_>]) -> bool {
    let mut chosen = values(response, PROTOCOL).filter(|value| !is_empty_list(value));
    match (chosen.next(), chosen.next()) {
        (None, _) => true,
        (Some(chosen), None) => elements(request, PROTOCOL).any(|offered| offered == chosen),
        (Some(_), Some(_)) => false,
    }
}

const PROTOCOL: &str = "sec-websocket-protocol";
const EXTENSIONS: &str = "sec-websocket-extensions";

/// A list without elements. "Empty elements do not contribute to the count of elements present"
/// (RFC 9110 section 5.6.1.2).
fn is_empty_list(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t'))
}

/// A field that negotiates nothing: it is not forwarded.
fn offers_nothing(field: &Field<'_>) -> bool {
    is_empty_list(field.value) && [PROTOCOL, EXTENSIONS].iter().any(|known| field.name.eq_ignore_ascii_case(known))
}

/// Each extension of the answer was offered and appears once.
fn judge_extensions(request: &[Field<'_>], response: &[Field<'_>]) -> Result<Extensions, Cause> {
    const NAME: &str = EXTENSIONS;
    let mut chosen: Vec<&[u8]> = Vec::new();
    for name in values(response, NAME).flat_map(extension::names) {
        let name = name.map_err(|_| Cause::Bad101)?;
        let is = |other: &[u8]| other.eq_ignore_ascii_case(name);
        let offered = values(request, NAME).flat_map(extension::names).flatten().any(is);
        if !offered || chosen.iter().copied().any(is) {
            return Err(Cause::Bad101);
        }
        chosen.push(name);
    }
    Ok(match chosen.as_slice() {
        [] => Extensions::None,
        [name] if name.eq_ignore_ascii_case(b"permessage-deflate") => Extensions::Deflate,
        _ => Extensions::Unknown,
    })
}

/// Writes the 101 for the client: hop-by-hop fields rebuilt, `accept` as [`judge_response`] has
/// computed it, the rest as the upstream sent it, but for the route's `edits`.
pub fn write_switching(response: &Response<'_>, accept: &[u8; 28], edits: &FieldEdits) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    push_upgrade(&mut out);
    push_field(&mut out, "Sec-WebSocket-Accept", accept);
    let (named, edited) = (Named::of(&response.fields), !edits.is_empty());
    for field @ Field { name, value } in &response.fields {
        let ours = ["sec-websocket-accept", "content-length"].iter().any(|known| name.eq_ignore_ascii_case(known));
        let passes = !ours && !is_hop_by_hop(name) && !named.contains(name) && !offers_nothing(field);
        if passes && !(edited && edits.removes(name)) {
            push_field(&mut out, name, value);
        }
    }
    push_added(&mut out, edits);
    for (name, value) in edits.missing() {
        if !response.fields.iter().any(|field| field.name.eq_ignore_ascii_case(name) && !offers_nothing(field)) {
            push_field(&mut out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The value of the field that must appear exactly once.
fn only<'a>(fields: &[Field<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = values(fields, name);
    values.next().filter(|_| values.next().is_none())
}

/// Upgrade is, over all lines, the one token `websocket`, and Connection says so.
fn upgrades(fields: &[Field<'_>]) -> bool {
    let mut upgrade = elements(fields, "upgrade");
    upgrade.next().is_some_and(|token| token.eq_ignore_ascii_case(b"websocket"))
        && upgrade.next().is_none()
        && elements(fields, "connection").any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// "a base64-encoded value that, when decoded, is 16 bytes in length". Unused bits of the last
/// character may be anything, as with most servers: the key is hashed as written.
fn is_key(key: &[u8]) -> bool {
    const ENGINE: GeneralPurpose =
        GeneralPurpose::new(&ALPHABET, general_purpose::PAD.with_decode_allow_trailing_bits(true));
    let mut bytes = [0; 18];
    ENGINE.decode_slice(key, &mut bytes) == Ok(16)
}
