//! The routes: from the bytes of a request to the bytes of its response. Pure.

use crate::policy::auth::Who;
use crate::policy::health::Order;
use crate::proto::http1::reason_of;
use std::net::{IpAddr, Ipv4Addr};

pub(super) const HEAD_MAX: usize = 8 * 1024;
pub(super) const FIELDS_MAX: usize = 64;

/// A valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `GET /metrics`
    Metrics,
    /// `GET /healthz`: 200 while the process runs.
    Healthz,
    /// `GET /readyz`: 200 while new sessions are admitted.
    Readyz,
    /// `GET /`
    Page,
    /// `GET /upstreams`, as JSON; with `?format=table` as plain text.
    Upstreams { table: bool },
    /// `POST /revoke?subject=S`, `?token=ID` or `?session=ID`, with `&for=1h`
    Revoke { who: Who, for_ms: u64 },
    /// `POST /extend?session=ID`, `?subject=S` or `?token=ID`, with `&until=UNIX_SECONDS`
    Extend { who: Who, until_unix_ms: u64 },
    /// `GET /blocks`: the addresses that are blocked, as JSON
    Blocks,
    /// `POST /unblock?address=ADDRESS`
    Unblock { address: IpAddr },
    /// `POST /reload`
    Reload,
    /// `POST /upstreams/NAME/ENDPOINT/drain`, `/ready` or `/down`
    Endpoint(EndpointOrder),
    /// `POST /fault/panic?worker=N`
    Panic { worker: usize },
}

/// What an endpoint of an upstream is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOrder {
    pub upstream: String,
    /// Its URL, or the part of it that is the address.
    pub endpoint: String,
    pub order: Order,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Response {
    /// Plain text; a line feed is added.
    pub fn text(status: u16, text: &str) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Response {
        Response { status, content_type: "application/json", body: format!("{body:#}\n") }
    }

    pub fn html(body: String) -> Response {
        Response { status: 200, content_type: "text/html; charset=utf-8", body }
    }
}

/// The complete response to the bytes received so far, or `None` while the request head is
/// incomplete. `respond` supplies the response to a valid request.
pub(super) fn handle(received: &[u8], respond: &mut dyn FnMut(Request) -> Response) -> Option<Vec<u8>> {
    // Bytes beyond the limit are ignored, so the result does not depend on how the bytes were
    // split.
    let received = received.get(..HEAD_MAX).unwrap_or(received);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let request = match head.parse(received) {
        Ok(httparse::Status::Complete(_)) => route(&head),
        Ok(httparse::Status::Partial) if received.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Err(Refusal { status: 431, text: "Request head too large.", allow: None })
        }
        Err(_) => Err(Refusal { status: 400, text: "Malformed request.", allow: None }),
    };
    let (response, allow) = match request {
        Ok(request) => (respond(request), None),
        Err(refusal) => (Response::text(refusal.status, refusal.text), refusal.allow),
    };
    Some(write_response(&response, allow, head.method == Some("HEAD")))
}

struct Refusal {
    status: u16,
    text: &'static str,
    allow: Option<&'static str>,
}

fn route(head: &httparse::Request<'_, '_>) -> Result<Request, Refusal> {
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (request, is_get) = match path {
        "/metrics" => (Request::Metrics, true),
        "/healthz" => (Request::Healthz, true),
        "/readyz" => (Request::Readyz, true),
        "/" => (Request::Page, true),
        "/upstreams" => (Request::Upstreams { table: query.split('&').any(|pair| pair == "format=table") }, true),
        "/blocks" => (Request::Blocks, true),
        "/unblock" => (Request::Unblock { address: Ipv4Addr::UNSPECIFIED.into() }, false),
        "/reload" => (Request::Reload, false),
        "/fault/panic" => (Request::Panic { worker: 0 }, false),
        "/revoke" => (Request::Revoke { who: Who::Session(String::new()), for_ms: 0 }, false),
        "/extend" => (Request::Extend { who: Who::Session(String::new()), until_unix_ms: 0 }, false),
        path => match endpoint_order(path) {
            Some(order) => (Request::Endpoint(order), false),
            None => return Err(Refusal { status: 404, text: "No such route.", allow: None }),
        },
    };
    match (is_get, head.method.unwrap_or_default()) {
        (true, "GET" | "HEAD") | (false, "POST") => {}
        (true, _) => return Err(Refusal { status: 405, text: "Use GET.", allow: Some("GET, HEAD") }),
        (false, _) => return Err(Refusal { status: 405, text: "Use POST.", allow: Some("POST") }),
    }
    // Any page in a browser on this machine can send a POST here, but the browser adds an Origin
    // field to it.
    if !is_get && head.headers.iter().any(|field| field.name.eq_ignore_ascii_case("origin")) {
        return Err(Refusal { status: 403, text: "Requests from browsers are refused.", allow: None });
    }
    match request {
        Request::Panic { .. } => Ok(Request::Panic { worker: worker_of(query)? }),
        Request::Revoke { .. } => Ok(Request::Revoke { who: who_of(query)?, for_ms: duration_of(query)? }),
        Request::Unblock { .. } => Ok(Request::Unblock { address: address_of(query)? }),
        Request::Extend { .. } => Ok(Request::Extend { who: who_of(query)?, until_unix_ms: until_of(query)? }),
        request => Ok(request),
    }
}

/// `/upstreams/NAME/ENDPOINT/ORDER`. Name and endpoint are percent-decoded; the slashes of a URL
/// may stand as they are.
fn endpoint_order(path: &str) -> Option<EndpointOrder> {
    let (upstream, rest) = path.strip_prefix("/upstreams/")?.split_once('/')?;
    let (endpoint, order) = rest.rsplit_once('/')?;
    let order = match order {
        "drain" => Order::Drain,
        "down" => Order::Down,
        "ready" => Order::Ready,
        _ => return None,
    };
    Some(EndpointOrder { upstream: decoded(upstream)?, endpoint: decoded(endpoint)?, order })
}

/// `None` for what is not UTF-8, or not an encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        bytes.push(match byte {
            b'%' => (digit(rest.next())? * 16 + digit(rest.next())?) as u8,
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn worker_of(query: &str) -> Result<usize, Refusal> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("worker="));
    let digits = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let worker = digits.and_then(|digits| digits.parse().ok());
    worker.ok_or(Refusal { status: 400, text: "Missing or invalid parameter: worker=N.", allow: None })
}

const BAD_ADDRESS: &str = "Missing or invalid parameter: address=ADDRESS.";
const BAD_WHO: &str = "Expected one of subject=S, token=ID and session=ID.";
const BAD_FOR: &str = "Expected for=DURATION, such as for=1h, up to 365 days.";
const BAD_UNTIL: &str = "Missing or invalid parameter: until=UNIX_SECONDS.";
/// How long an order is remembered, unless it says so.
const REVOKED_MS: u64 = 24 * 3_600_000;
const REVOKED_MAX_MS: u64 = 365 * REVOKED_MS;

fn bad(text: &'static str) -> Refusal {
    Refusal { status: 400, text, allow: None }
}

/// The parameter called `name`, percent-decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| decoded(pair.strip_prefix(name)?.strip_prefix('=')?))
}

fn who_of(query: &str) -> Result<Who, Refusal> {
    let named = |name| parameter(query, name).filter(|value| !value.is_empty());
    match (named("subject"), named("token"), named("session")) {
        (Some(subject), None, None) => Ok(Who::Subject(subject)),
        (None, Some(id), None) => Ok(Who::Token(id)),
        (None, None, Some(id)) => Ok(Who::Session(id)),
        _ => Err(bad(BAD_WHO)),
    }
}

fn address_of(query: &str) -> Result<IpAddr, Refusal> {
    parameter(query, "address").and_then(|text| text.parse().ok()).ok_or(bad(BAD_ADDRESS))
}

fn duration_of(query: &str) -> Result<u64, Refusal> {
    let Some(text) = parameter(query, "for") else { return Ok(REVOKED_MS) };
    let millis = humantime::parse_duration(&text).ok().and_then(|time| u64::try_from(time.as_millis()).ok());
    millis.filter(|millis| (1..=REVOKED_MAX_MS).contains(millis)).ok_or(bad(BAD_FOR))
}

fn until_of(query: &str) -> Result<u64, Refusal> {
    let seconds = parameter(query, "until").and_then(|text| text.parse::<u64>().ok());
    seconds.and_then(|seconds| seconds.checked_mul(1_000)).ok_or(bad(BAD_UNTIL))
}

fn write_response(response: &Response, allow: Option<&str>, head_only: bool) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n",
        response.status,
        reason_of(response.status),
        response.content_type,
        response.body.len()
    );
    if let Some(allow) = allow {
        head.push_str(&format!("Allow: {allow}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !head_only {
        bytes.extend_from_slice(response.body.as_bytes());
    }
    bytes
}
