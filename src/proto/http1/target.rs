//! FrameLimits for the Host field and the request target (RFC 9112 section 3.2, RFC 3986).

use super::{Field, values};
use crate::proto::end::Cause;
use std::net::Ipv6Addr;

/// A target taken apart; `path` and `query` are the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub path: &'a str,
    pub query: &'a str,
}

/// The one Host value, if it is what a WebSocket URI can name and equals the authority of an absolute `target`.
pub(super) fn judge_host<'a>(fields: &[Field<'a>], target: &[u8]) -> Result<&'a str, Cause> {
    let mut hosts = values(fields, "host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Cause::BadHost) };
    let host = str::from_utf8(host).ok().filter(|host| is_host(host)).ok_or(Cause::BadHost)?;
    match split_absolute(target) {
        Some((authority, _)) if !authority.eq_ignore_ascii_case(host.as_bytes()) => Err(Cause::BadHost),
        _ => Ok(host),
    }
}

/// Takes the target apart if it is of origin-form or absolute-form and nothing in it can be read in two ways.
pub(super) fn judge_target(target: &str) -> Result<Target<'_>, Cause> {
    let allowed = |byte: &u8| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'#' | b'"' | b'<' | b'>');
    if !target.as_bytes().iter().all(allowed) {
        return Err(Cause::BadTarget);
    }
    let local = match split_absolute(target.as_bytes()) {
        Some((_, at)) => target.get(at..).ok_or(Cause::BadTarget)?,
        None => target,
    };
    let (path, query) = local.split_at_checked(local.find('?').unwrap_or(local.len())).ok_or(Cause::BadTarget)?;
    // "If the path is empty, `/`": only an absolute-form can have none.
    let path = if path.is_empty() && local.len() < target.len() { "/" } else { path };
    // Servers differ on whether `%2f` separates: nginx decodes it before it removes dot segments.
    if path.starts_with('/') && is_path(path) && !climbs(path, false) && !climbs(path, true) {
        Ok(Target { path, query })
    } else {
        Err(Cause::BadTarget)
    }
}

/// Authority of an absolute-form target of a scheme that is served here, and where the path begins.
fn split_absolute(target: &[u8]) -> Option<(&[u8], usize)> {
    for scheme in ["http://", "https://", "ws://", "wss://"] {
        let Some((start, rest)) = target.split_at_checked(scheme.len()) else { continue };
        if start.eq_ignore_ascii_case(scheme.as_bytes()) {
            let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
            return Some((rest.get(..len)?, scheme.len() + len));
        }
    }
    None
}

/// `uri-host [ ":" port ]`, neither empty nor with a comma (that is two Host fields joined by someone).
fn is_host(host: &str) -> bool {
    let (name_ok, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (name, port) = host.split_at_checked(host.find(':').unwrap_or(host.len())).unwrap_or_default();
            (is_reg_name(name), port)
        }
    };
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || is_port(digits)),
        None => port.is_empty(),
    };
    name_ok && port_ok
}

fn is_port(digits: &str) -> bool {
    digits.parse::<u16>().is_ok()
}

/// RFC 3986 section 3.2.2 without the comma.
fn is_reg_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed) && escapes(name).all(|escape| escape.is_some_and(|byte| byte != 0))
}

/// No backslash (some servers take it for a slash), and every `%` starts an escape, but of NUL.
/// A `%` that starts none is refused since what remains of it after decoding is anyone's guess.
fn is_path(path: &str) -> bool {
    !path.contains('\\') && escapes(path).all(|escape| escape.is_some_and(|byte| byte != 0))
}

/// The byte of each `%`, or `None` where two hex digits do not follow.
fn escapes(text: &str) -> impl Iterator<Item = Option<u8>> {
    text.split('%').skip(1).map(|after| match after.as_bytes() {
        [high, low, ..] => escape(*high, *low),
        _ => None,
    })
}

fn escape(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Whether dot segments, plain or encoded, lead above the root. Empty segments do not count as a level, since
/// servers that merge slashes do not see them. `slashes`: encoded slashes separate too.
fn climbs(path: &str, slashes: bool) -> bool {
    let mut depth = 0u32;
    let (mut dots, mut others) = (0u32, false);
    let mut rest = path.as_bytes();
    loop {
        let (symbol, after) = match rest {
            [b'%', high, low, after @ ..] => match escape(*high, *low) {
                Some(b'/') if !slashes => (Some(b'%'), after),
                byte => (byte, after),
            },
            [byte, after @ ..] => (Some(*byte), after),
            [] => (None, rest),
        };
        let over = rest.is_empty();
        rest = after;
        match symbol {
            Some(b'.') => dots += 1,
            Some(byte) if byte != b'/' => others = true,
            _ => {
                match (others, dots) {
                    (false, 0 | 1) => {}
                    (false, 2) if depth == 0 => return true,
                    (false, 2) => depth -= 1,
                    _ => depth += 1,
                }
                (dots, others) = (0, false);
            }
        }
        if over {
            return false;
        }
    }
}
