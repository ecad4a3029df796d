//! Which pages may open sessions: the Origin of a request (RFC 6454 section 7), which browsers send
//! and pages cannot choose, against the list of a route. Without a list a request with cookies must
//! come from its own host: a browser adds the cookies of the host to the handshake of any page
//! (cross-site WebSocket hijacking).

use super::Facts;
use crate::proto::end::Cause;
use crate::proto::http1::{Request, elements, values};
use std::collections::HashSet;
use std::net::Ipv6Addr;

/// The longest name of a host (RFC 1035 section 2.3.4), with a trailing dot.
const HOST_MAX: usize = 254;
/// The longest scheme that is an origin's.
const SCHEME_MAX: usize = 64;

/// The origins that a route admits.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// All without a Cookie; with one, the host that the request is for, and no Origin at all.
    #[default]
    Own,
    /// All: nothing is looked at.
    Any,
    Listed(OriginList),
}

impl Origins {
    /// The verdict on a request: [`Cause::OriginRefused`] where there is a list,
    /// [`Cause::OriginCrossSite`] where there is none.
    pub fn judge(&self, facts: &Facts<'_>) -> Result<(), Cause> {
        match self {
            Origins::Any => Ok(()),
            Origins::Listed(list) if list.admits(&Sent::of(facts.request)) => Ok(()),
            Origins::Listed(_) => Err(Cause::OriginRefused),
            Origins::Own if is_own(facts) => Ok(()),
            Origins::Own => Err(Cause::OriginCrossSite),
        }
    }

    /// There is a list.
    pub fn is_listed(&self) -> bool {
        matches!(self, Origins::Listed(_))
    }
}

/// The Origin of a request.
#[derive(Debug)]
enum Sent {
    Absent,
    Null,
    Origin(Origin),
    /// Not an origin, or more than one line.
    Malformed,
}

impl Sent {
    fn of(request: &Request<'_>) -> Sent {
        let mut lines = values(&request.fields, "origin");
        let value = match (lines.next(), lines.next()) {
            (None, _) => return Sent::Absent,
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Sent::Malformed,
        };
        match str::from_utf8(value) {
            // In lower case and nothing else (RFC 6454 section 7.1).
            Ok("null") => Sent::Null,
            Ok(text) => Origin::parse(text).map_or(Sent::Malformed, Sent::Origin),
            Err(_) => Sent::Malformed,
        }
    }
}

/// Scheme, host and port, in their normal form: in lower case, an IPv6 address in brackets and in
/// its canonical form, the default port of the scheme for none. Names stay as sent: browsers send
/// those of other alphabets in Punycode, and the text of another encoding is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` for a scheme without default port.
    port: Option<u16>,
}

impl Origin {
    /// `None` if it is not an origin: without scheme, or with more than scheme, host and port.
    pub fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = (1..=SCHEME_MAX).contains(&scheme.len())
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let (host, port) = host_and_port(authority).filter(|_| is_scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or(default_port(&scheme));
        Some(Origin { scheme, host, port })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Of a page over TLS.
    fn is_secure(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "wss")
    }

    /// Below `other`, whose host is a suffix with its first dot.
    fn is_under(&self, other: &Origin) -> bool {
        let below = self.host.len() > other.host.len() && self.host.ends_with(&other.host);
        below && self.scheme == other.scheme && self.port == other.port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// A host in its normal form, and its port. `None` if anything else is in `text`.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    // Nothing, or a colon and a port.
    let port_of = |after: &str| match after {
        "" => Some(None),
        _ => after.strip_prefix(':').and_then(port).map(Some),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some((format!("[{address}]"), port_of(after)?));
    }
    let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
    let has_labels = !name.starts_with('.') && !name.contains("..");
    let fits = (1..=HOST_MAX).contains(&name.len());
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    (has_labels && fits && is_name).then_some((name.to_ascii_lowercase(), port_of(after)?))
}

/// As browsers write it: digits without a leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// A list of origins.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OriginList {
    written: Vec<String>,
    exact: HashSet<Origin>,
    /// Their hosts begin with a dot.
    under: Vec<Origin>,
    null: bool,
    absent: bool,
}

impl OriginList {
    /// Adds an element: an origin, one with `*.` for one or more labels before its host, `null`, or
    /// `absent`.
    ///
    /// # Errors
    /// The rest of a sentence about `text`.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        match text {
            "null" => self.null = true,
            "absent" => self.absent = true,
            _ => self.add_origin(text)?,
        }
        self.written.push(text.to_owned());
        Ok(())
    }

    fn add_origin(&mut self, text: &str) -> Result<(), String> {
        const RIGHT: &str = "expected for example \"https://example.com\", \"https://*.example.com\", \"null\", \
                             \"absent\" or \"*\"";
        let wildcard = text.split_once("://*.").map(|(scheme, suffix)| format!("{scheme}://{suffix}"));
        let Some(origin) = Origin::parse(wildcard.as_deref().unwrap_or(text)) else {
            return Err(match text.find("://").and_then(|at| text.get(at + 3..)) {
                Some(rest) if rest.contains('/') => "an origin has no path; remove it, and the last slash".to_owned(),
                Some(rest) if !rest.is_ascii() => "browsers send names in Punycode (xn--...); write it so".to_owned(),
                _ => RIGHT.to_owned(),
            });
        };
        if let Some(right) = [("ws", "http"), ("wss", "https")].iter().find(|(scheme, _)| *scheme == origin.scheme) {
            return Err(format!("an origin has the scheme of the page; use {}://", right.1));
        }
        if wildcard.is_none() {
            self.exact.insert(origin);
            return Ok(());
        }
        // The end of an address is not a domain.
        if origin.host.starts_with('[') || origin.host.rsplit('.').any(|label| label.parse::<u64>().is_ok()) {
            return Err("a wildcard stands for labels of a name, not for parts of an address".to_owned());
        }
        self.under.push(Origin { host: format!(".{}", origin.host), ..origin });
        Ok(())
    }

    /// In the order of the configuration.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    fn admits(&self, sent: &Sent) -> bool {
        match sent {
            Sent::Absent => self.absent,
            Sent::Null => self.null,
            Sent::Malformed => false,
            Sent::Origin(origin) => {
                self.exact.contains(origin) || self.under.iter().any(|suffix| origin.is_under(suffix))
            }
        }
    }
}

/// The request has no Cookie, no Origin, or one with the host and port that it is for.
fn is_own(facts: &Facts<'_>) -> bool {
    let request = facts.request;
    if values(&request.fields, "cookie").next().is_none() {
        return true;
    }
    match Sent::of(request) {
        Sent::Absent => true,
        Sent::Null | Sent::Malformed => false,
        Sent::Origin(origin) => {
            let forwarded = forwarded(facts, "x-forwarded-host");
            let mut hosts = [Some(request.host), forwarded].into_iter().flatten();
            hosts.any(|host| is_same(&origin, host, secure(facts)))
        }
    }
}

/// The first element of a field that a trusted proxy has sent.
fn forwarded<'a>(facts: &Facts<'a>, name: &str) -> Option<&'a str> {
    elements(&facts.request.fields, name).next().filter(|_| facts.trusted).and_then(|value| str::from_utf8(value).ok())
}

/// Whether the client came over TLS; `None` where that is not known: without TLS here there may be
/// a proxy with TLS in front that does not say so.
fn secure(facts: &Facts<'_>) -> Option<bool> {
    match forwarded(facts, "x-forwarded-proto") {
        Some(scheme) => Some(["https", "wss"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure))),
        None => facts.secure.then_some(true),
    }
}

/// `host`, as a client writes it, is that of `origin`, with the same port.
fn is_same(origin: &Origin, host: &str, secure: Option<bool>) -> bool {
    let Some((name, port)) = host_and_port(host) else { return false };
    let is_secure = origin.is_secure();
    let port = port.or(default_port(if secure.unwrap_or(is_secure) { "https" } else { "http" }));
    name == origin.host && port == origin.port && secure.is_none_or(|secure| secure == is_secure)
}

#[cfg(test)]
mod tests;
