//! Where a credential is taken from, and how it is kept from the upstream and the log.

use super::super::lookup;
use crate::proto::http1::{FieldEdits, Request, elements, values};
use std::borrow::Cow;
use std::fmt;

/// A place in a request that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The Authorization field with this scheme (RFC 9110 section 11.6.2).
    Authorization(&'static str),
    /// The header field with this name.
    Header(String),
    Cookie(String),
    /// The query parameter with this name. It is removed from the request to the upstream, and
    /// does not stand in the log.
    Query(String),
    /// The subprotocol that begins with this text, the credential behind it. Removed like a query
    /// parameter.
    SubprotocolPrefix(String),
    /// The subprotocol that follows this one. Both are removed.
    SubprotocolAfter(String),
}

/// What a request has at a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    One(Cow<'a, [u8]>),
    /// It is there more than once: which one counts is not known.
    Several,
}

/// The field of offered and chosen subprotocols.
const PROTOCOL: &str = "Sec-WebSocket-Protocol";
/// What stands for a credential in the log.
const HIDDEN: &str = "***";

impl Source {
    pub fn find<'a>(&self, request: &Request<'a>) -> Found<'a> {
        match self {
            Source::Authorization(scheme) => match only(values(&request.fields, "authorization")) {
                Found::One(value) => credential_of(&value, scheme).map_or(Found::Nothing, Found::One),
                found => found,
            },
            Source::Header(name) => only(values(&request.fields, name)),
            Source::Cookie(name) => of(lookup::cookies(request, name).map(Cow::Borrowed)),
            Source::Query(name) => of(lookup::parameters(request.query, name)),
            Source::SubprotocolPrefix(prefix) => {
                only(elements(&request.fields, PROTOCOL).filter_map(|item| item.strip_prefix(prefix.as_bytes())))
            }
            Source::SubprotocolAfter(name) => {
                let mut items = elements(&request.fields, PROTOCOL);
                let is_it = |item: &&[u8]| *item == name.as_bytes();
                if items.by_ref().find(is_it).is_none() {
                    return Found::Nothing;
                }
                let credential = items.next();
                if items.any(|item| is_it(&item)) { Found::Several } else { only(credential.into_iter()) }
            }
        }
    }

    /// The name of the query parameter that it is.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Source::Query(name) => Some(name),
            _ => None,
        }
    }

    /// Of the offered subprotocols, the one that says that a credential follows or is it, if this
    /// one is it.
    fn is_marker(&self, item: &[u8]) -> bool {
        match self {
            Source::SubprotocolPrefix(prefix) => item.starts_with(prefix.as_bytes()),
            Source::SubprotocolAfter(name) => item == name.as_bytes(),
            _ => false,
        }
    }
}

fn only<'a>(values: impl Iterator<Item = &'a [u8]>) -> Found<'a> {
    of(values.map(Cow::Borrowed))
}

fn of<'a>(mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> Found<'a> {
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::One(value),
        (Some(_), Some(_)) => Found::Several,
    }
}

/// The credential behind `scheme` and spaces; the case of a scheme does not matter.
fn credential_of<'a>(value: &Cow<'a, [u8]>, scheme: &str) -> Option<Cow<'a, [u8]>> {
    let (written, rest) = value.split_at_checked(scheme.len())?;
    let matches = written.eq_ignore_ascii_case(scheme.as_bytes()) && rest.starts_with(b" ");
    let credential = rest.trim_ascii();
    (matches && !credential.is_empty()).then(|| Cow::Owned(credential.to_vec()))
}

/// The query that the upstream gets: without the parameters with these names. Empty, or with its
/// question mark.
pub fn public_query<'a>(query: &'a str, names: &[&str]) -> Cow<'a, str> {
    let is_secret = |pair: &str| names.iter().any(|name| lookup::is_parameter(pair, name));
    let pairs = || query.strip_prefix('?').unwrap_or(query).split('&');
    if names.is_empty() || !pairs().any(is_secret) {
        return query.into();
    }
    let kept: Vec<_> = pairs().filter(|pair| !is_secret(pair)).collect();
    if kept.is_empty() { Cow::Borrowed("") } else { format!("?{}", kept.join("&")).into() }
}

/// The target for the log: the values of the parameters with these names do not stand in it.
pub fn redacted_target<'a>(target: &'a str, names: &[String]) -> Cow<'a, str> {
    let Some((path, query)) = target.split_once('?') else { return target.into() };
    let is_secret = |pair: &str| names.iter().any(|name| lookup::is_parameter(pair, name));
    if !query.split('&').any(is_secret) {
        return target.into();
    }
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    let pairs: Vec<_> = query.split('&').map(shown).collect();
    format!("{path}?{}", pairs.join("&")).into()
}

/// Keeps credentials among the offered subprotocols from the upstream. A client that offers
/// subprotocols accepts no 101 without one of them (WHATWG WebSockets, section 2.1): where the
/// upstream chooses none, `response` names one of those that were taken away.
pub fn conceal_protocols(
    sources: &[&Source],
    request: &Request<'_>,
    edits: &mut FieldEdits,
    response: &mut FieldEdits,
) {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut marker = None;
    let mut hide_next = false;
    for item in elements(&request.fields, PROTOCOL) {
        let source = sources.iter().find(|source| source.is_marker(item));
        match source {
            _ if std::mem::take(&mut hide_next) => {}
            Some(source) => {
                hide_next = matches!(source, Source::SubprotocolAfter(_));
                marker = marker.or(Some(item));
            }
            None => kept.push(item),
        }
    }
    let Some(marker) = marker else { return };
    edits.remove(PROTOCOL);
    if !kept.is_empty() {
        edits.add(PROTOCOL, kept.join(&b", "[..]));
    }
    response.add_unless_sent(PROTOCOL, marker.to_vec());
}

impl fmt::Display for Source {
    /// As in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Authorization(_) => f.write_str("authorization"),
            Source::Header(name) => write!(f, "header:{name}"),
            Source::Cookie(name) => write!(f, "cookie:{name}"),
            Source::Query(name) => write!(f, "query:{name}"),
            Source::SubprotocolPrefix(prefix) => write!(f, "subprotocol:{prefix}*"),
            Source::SubprotocolAfter(name) => write!(f, "subprotocol:{name},*"),
        }
    }
}
