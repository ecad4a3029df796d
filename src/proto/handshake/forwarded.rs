//! The Forwarded field (RFC 7239): the addresses that a proxy in front has named, and the line that
//! names its own to the upstream. Whose word is believed is decided by the caller.

use super::{Forwarding, only};
use crate::proto::http1::{Field, Request, elements, push, values};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NAME: &str = "forwarded";

/// The fields that tell an upstream of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardingHeaders {
    /// X-Forwarded-For, -Proto and -Host, and X-Real-IP.
    #[default]
    XForwarded,
    /// Forwarded in their place.
    Forwarded,
    Both,
}

impl ForwardingHeaders {
    pub const ALL: [ForwardingHeaders; 3] =
        [ForwardingHeaders::XForwarded, ForwardingHeaders::Forwarded, ForwardingHeaders::Both];

    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            ForwardingHeaders::XForwarded => "x-forwarded",
            ForwardingHeaders::Forwarded => "forwarded",
            ForwardingHeaders::Both => "both",
        }
    }

    /// Forwarded is written.
    pub(super) fn has_forwarded(self) -> bool {
        self != ForwardingHeaders::XForwarded
    }

    /// X-Forwarded-For and its like are written.
    pub(super) fn has_x_forwarded(self) -> bool {
        self != ForwardingHeaders::Forwarded
    }

    /// A trusted peer's field with this name is not copied: what is written here replaces it.
    pub(super) fn replaces(self, name: &str) -> bool {
        const OLD: [&str; 3] = ["x-forwarded-proto", "x-forwarded-host", "x-real-ip"];
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        (self.has_forwarded() && is(NAME)) || (!self.has_x_forwarded() && OLD.into_iter().any(is))
    }
}

/// The hops of all lines, first to last. `None` for one without an address, and for a line that is
/// malformed.
pub(super) fn hops(fields: &[Field<'_>]) -> Vec<Option<IpAddr>> {
    values(fields, NAME).flat_map(|line| parse(line).unwrap_or_else(|| vec![None])).collect()
}

/// The hops of a line; `None` if it is malformed. Its end cannot be trusted then, either: an open
/// quote may have been sent by the client, and hold what the proxies behind it have added.
fn parse(line: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut rest = Rest(line);
    let mut hops = Vec::new();
    loop {
        rest.skip_spaces();
        // "Empty elements do not contribute to the count of elements present" (RFC 9110 section
        // 5.6.1.2).
        if !matches!(rest.first(), None | Some(b',')) {
            hops.push(rest.element()?);
        }
        match rest.take() {
            None => return Some(hops),
            Some(b',') => {}
            Some(_) => return None,
        }
    }
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn first(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// `[ forwarded-pair ] *( ";" [ forwarded-pair ] )`; spaces around the semicolons are accepted.
    /// The inner `None`: it names no address.
    fn element(&mut self) -> Option<Option<IpAddr>> {
        let mut seen: Vec<&[u8]> = Vec::new();
        let mut hop = None;
        loop {
            self.skip_spaces();
            if !matches!(self.first(), None | Some(b',' | b';')) {
                let name = self.token()?;
                // "Each parameter MUST NOT occur more than once per field-value."
                if self.take()? != b'=' || seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                    return None;
                }
                let value = self.value()?;
                if name.eq_ignore_ascii_case(b"for") {
                    hop = node(&value)?;
                }
                seen.push(name);
                self.skip_spaces();
            }
            if self.first() != Some(b';') {
                return Some(hop);
            }
            self.take();
        }
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let len = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at_checked(len).filter(|_| len > 0)?;
        self.0 = rest;
        Some(token)
    }

    /// `token / quoted-string`, unquoted.
    fn value(&mut self) -> Option<Vec<u8>> {
        if self.first() != Some(b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        self.take();
        let mut value = Vec::new();
        loop {
            match self.take()? {
                b'"' => return Some(value),
                b'\\' => value.push(self.take()?),
                byte => value.push(byte),
            }
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `nodename [ ":" node-port ]` (section 6). The outer `None`: it is malformed; the inner one: it
/// is unknown or obfuscated.
fn node(value: &[u8]) -> Option<Option<IpAddr>> {
    let text = str::from_utf8(value).ok()?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
        return None;
    }
    if text.starts_with('[') {
        return name.parse::<Ipv6Addr>().ok().map(|address| Some(address.into()));
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    name.parse::<Ipv4Addr>().ok().map(|address| Some(address.into()))
}

fn is_port(text: &str) -> bool {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits || is_obfuscated(text)
}

fn is_obfuscated(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(fits))
}

/// Writes the line for the upstream: what a trusted peer has said, as far as it is well-formed,
/// then the peer.
pub(super) fn push_forwarded(out: &mut Vec<u8>, request: &Request<'_>, add: &Forwarding<'_>) {
    let fields = &request.fields;
    out.extend_from_slice(b"Forwarded: ");
    if add.trusted && values(fields, NAME).next().is_some() {
        for line in values(fields, NAME).filter(|line| parse(line).is_some_and(|hops| !hops.is_empty())) {
            push(out, &[line, b", "]);
        }
    } else if add.trusted {
        push_converted(out, fields);
    }
    push_node(out, Some(add.peer));
    push_host(out, request.host.as_bytes());
    push(out, &[if add.secure { b";proto=https" } else { b";proto=http" }, b"\r\n"]);
}

/// The hops of X-Forwarded-For (section 7.4). The other fields are about the first of them.
fn push_converted(out: &mut Vec<u8>, fields: &[Field<'_>]) {
    for (index, hop) in elements(fields, "x-forwarded-for").enumerate() {
        push_node(out, str::from_utf8(hop).ok().and_then(|hop| hop.parse().ok()));
        if index == 0 {
            if let Some(host) = only(fields, "x-forwarded-host") {
                push_host(out, host);
            }
            let proto = only(fields, "x-forwarded-proto");
            if let Some(proto) = proto.filter(|proto| !proto.is_empty() && proto.iter().copied().all(is_token)) {
                push(out, &[b";proto=", proto]);
            }
        }
        out.extend_from_slice(b", ");
    }
}

fn push_node(out: &mut Vec<u8>, address: Option<IpAddr>) {
    let node = match address.map(|address| address.to_canonical()) {
        None => "for=unknown".to_owned(),
        Some(IpAddr::V4(address)) => format!("for={address}"),
        Some(IpAddr::V6(address)) => format!("for=\"[{address}]\""),
    };
    out.extend_from_slice(node.as_bytes());
}

fn push_host(out: &mut Vec<u8>, host: &[u8]) {
    if !host.is_empty() && host.iter().copied().all(is_token) {
        return push(out, &[b";host=", host]);
    }
    out.extend_from_slice(b";host=\"");
    for byte in host {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
