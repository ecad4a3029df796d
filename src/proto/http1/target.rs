//! Rules for the Host field and the request target (RFC 9112 section 3.2, RFC 3986).

use super::{Field, RequestLine, values};
use crate::proto::end::Cause;
use std::net::Ipv6Addr;

/// A target taken apart; `path` and `query` are the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub path: &'a str,
    pub query: &'a str,
}

/// The one Host value, if it is what a WebSocket URI can name and equals the authority of an
/// absolute target. HTTP/1.0 may have none.
pub(super) fn judge_host<'a>(fields: &[Field<'a>], line: &RequestLine<'_>) -> Result<&'a str, Cause> {
    let (target, mut hosts) = (line.target, values(fields, "host"));
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, None) if line.is_http10 && split_absolute(target).is_none() => return Ok(""),
        _ => return Err(Cause::BadHost),
    };
    let host = str::from_utf8(host).ok().filter(|host| is_host(host)).ok_or(Cause::BadHost)?;
    match split_absolute(target) {
        Some((authority, _)) if !authority.eq_ignore_ascii_case(host.as_bytes()) => Err(Cause::BadHost),
        _ => Ok(host),
    }
}

/// Takes the target apart if it is of origin-form or absolute-form and nothing in it can be read in
/// two ways.
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

/// The head with the raw bytes of its target percent-encoded that no URI can hold but clients that
/// are no browsers send: `"`, `<`, `>`, and bytes above 0x7F. `None` if there are none. An
/// authority is left alone, and so is everything that a target must not have.
pub fn encode_target(head: &[u8]) -> Option<Vec<u8>> {
    let line = head.strip_prefix(b"\r\n").map_or(0, |_| 2);
    let end = line + head.get(line..)?.iter().position(|byte| *byte == b'\r')?;
    let start = line + head.get(line..end)?.iter().position(|byte| *byte == b' ')? + 1;
    let end = head.get(start..end)?.iter().position(|byte| *byte == b' ').map_or(end, |len| start + len);
    let start = start + split_absolute(head.get(start..end)?).map_or(0, |(_, path)| path);
    let raw = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | 0x80..);
    let target = head.get(start..end).filter(|target| target.iter().any(raw))?;
    let mut encoded = Vec::with_capacity(head.len() + 2 * target.len());
    encoded.extend_from_slice(head.get(..start)?);
    for byte in target {
        match byte {
            byte if raw(byte) => encoded.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]),
            byte => encoded.push(*byte),
        }
    }
    encoded.extend_from_slice(head.get(end..)?);
    Some(encoded)
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
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

/// `uri-host [ ":" port ]`, neither empty nor with a comma (that is two Host fields joined by
/// someone).
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

/// Whether dot segments, plain or encoded, lead above the root. Empty segments do not count as a
/// level, since servers that merge slashes do not see them. `slashes`: encoded slashes separate
/// too.
pub fn climbs(path: &str, slashes: bool) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http1::Spans;

    #[test]
    fn raw_bytes_of_a_target_are_encoded_and_nothing_else() {
        let rows: &[(&[u8], Option<&str>)] = &[
            (b"/", None),
            (b"/a?b=c", None),
            (b"/{a}|^`b", None),
            (b"/a\"b", Some("/a%22b")),
            (b"/<a>?<b>", Some("/%3Ca%3E?%3Cb%3E")),
            ("/h\u{e9}?q=\u{20ac}".as_bytes(), Some("/h%C3%A9?q=%E2%82%AC")),
            (b"/\xff\x80", Some("/%FF%80")),
            (b"/%C3%A9\xc3\xa9", Some("/%C3%A9%C3%A9")),
            (b"ws://h/\"", Some("ws://h/%22")),
            (b"ws://h?\xc3\xa9", Some("ws://h?%C3%A9")),
            // An authority is judged as it is.
            (b"ws://h\xc3\xa9/", None),
            (b"ws://\"/", None),
            (b"", None),
        ];
        for (target, want) in rows {
            for first in ["", "\r\n"] {
                let rest = " HTTP/1.1\r\nHost: h\r\nX: \"<>\"\r\n\r\n";
                let head = [first.as_bytes(), b"GET ", target, rest.as_bytes()].concat();
                let want = want.map(|want| format!("{first}GET {want}{rest}").into_bytes());
                assert_eq!(encode_target(&head), want, "{:?}", String::from_utf8_lossy(target));
            }
        }
        for head in [&b""[..], b"\r\n", b"GET", b"GET\r\n\r\n", b"GET \xff\r\n\r\n"] {
            encode_target(head);
        }
    }

    #[test]
    fn encoded_targets_satisfy_the_rules_and_the_others_stay_refused() {
        for target in ["/\"", "/<", "/a>b?c<d", "/\u{1f600}"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
            assert!(Spans::parse(&encode_target(&head).unwrap()).is_ok(), "{target}");
        }
        for target in ["/a#\"", "/\u{e9}\u{1}", "/\"\u{7f}", "/\\\"", "/%00\"", "/..\"/../.."] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
            let encoded = encode_target(&head).unwrap();
            assert!(Spans::parse(&encoded).is_err(), "{target:?}");
        }
    }
}
