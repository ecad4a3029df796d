//! The headers that a route sets, adds and removes, in requests to its upstream and in responses to
//! its clients; and the names that it must leave alone.

use super::template::{Template, Variables};
use crate::proto::http1::FieldEdits;

/// What a route does to the fields of one direction: what it removes first, then what it sets, then
/// what it adds, whatever the order in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// All fields of the peer with this name are dropped.
    pub remove: Vec<String>,
    /// They are dropped, and one with this value takes their place.
    pub set: Vec<(String, Template)>,
    /// One more, behind those of the peer and those that are set.
    pub add: Vec<(String, Template)>,
}

impl HeaderRules {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The edits for one request. A value whose variables are all empty adds no field; `set` has
    /// dropped the peer's fields then.
    pub fn edits(&self, variables: &Variables<'_>) -> FieldEdits {
        let mut edits = FieldEdits::new();
        for name in &self.remove {
            edits.remove(name);
        }
        for (name, value) in &self.set {
            edits.remove(name);
            add(&mut edits, name, value, variables);
        }
        for (name, value) in &self.add {
            add(&mut edits, name, value, variables);
        }
        edits
    }
}

/// Adds a field, if it has a value.
pub(super) fn add(edits: &mut FieldEdits, name: &str, value: &Template, variables: &Variables<'_>) {
    if let Some(value) = value.field_value(variables) {
        edits.add(name, value);
    }
}

/// Which heads a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Requests to the upstream.
    Request,
    /// Responses to the client: the 101, and others that are passed on.
    Response,
}

/// Fields that no rule may touch, in lower case (a `*` at the end stands for any rest), and what to
/// do instead.
type Protected = (&'static str, &'static str);

const OF_THE_CONNECTION: &str = "belongs to one connection and is written anew; remove this rule";
const OF_THE_BODY: &str = "delimits a body, and a wrong one would let requests be smuggled; remove this rule";
const OF_WEBSOCKET: &str = "belongs to the WebSocket handshake, which is checked on both sides; remove this rule";
const OF_FORWARDING: &str =
    "is written from the connection, or kept from trusted_proxies of the listener; use another name";

const IN_BOTH: [Protected; 13] = [
    ("connection", OF_THE_CONNECTION),
    ("keep-alive", OF_THE_CONNECTION),
    ("proxy-connection", OF_THE_CONNECTION),
    ("proxy-authenticate", OF_THE_CONNECTION),
    ("proxy-authorization", OF_THE_CONNECTION),
    ("te", OF_THE_CONNECTION),
    ("upgrade", OF_THE_CONNECTION),
    ("content-length", OF_THE_BODY),
    ("transfer-encoding", OF_THE_BODY),
    ("trailer", OF_THE_BODY),
    ("expect", OF_THE_BODY),
    ("sec-websocket-*", OF_WEBSOCKET),
    ("x-request-id", "is the id in the logs; use another name with the variable {request_id}"),
];

const IN_REQUESTS: [Protected; 7] = [
    ("host", "has a key of its own; use host_header"),
    ("forwarded", OF_FORWARDING),
    ("x-forwarded-*", OF_FORWARDING),
    ("x-real-ip", "is written from the connection; use another name with the variable {client_ip}"),
    ("x-client-cert-*", "is written from the client's certificate; use another name with the variable {tls.subject}"),
    ("traceparent", "is continued or started for every request; remove this rule"),
    ("tracestate", "belongs to traceparent, which is continued for every request; remove this rule"),
];

/// Why no rule may touch the fields called `name`, and what to use instead: the rest of a sentence.
pub fn protection(name: &str, direction: Direction) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let is = |known: &str| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == known,
    };
    let in_requests = IN_REQUESTS.iter().filter(|_| direction == Direction::Request);
    IN_BOTH.iter().chain(in_requests).find(|(known, _)| is(known)).map(|(_, why)| *why)
}

/// Request fields that occur once: another one beside it would be ignored or refused.
pub fn occurs_once(name: &str) -> bool {
    const NAMES: [&str; 6] = ["authorization", "content-type", "cookie", "origin", "referer", "user-agent"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}
