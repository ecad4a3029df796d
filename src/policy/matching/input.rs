//! The values of a request that conditions compare. What a client wrote is read leniently: a
//! malformed part is passed over, never an error.

use crate::policy::{Facts, lookup};
use crate::proto::http1::{elements, values};
use std::borrow::Cow;
use std::fmt;

/// What of a request a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    Method,
    /// The header field with this name, in lower case. Several lines are one value, joined with
    /// `, ` (RFC 9110 section 5.3).
    Header(String),
    /// The first query parameter with this name. Name and value are percent-decoded, and `+` is a
    /// space, as browsers encode forms and URLSearchParams.
    Query(String),
    /// The first cookie with this name (RFC 6265 section 4.2). Its value is compared as sent.
    Cookie(String),
    /// Each of the offered subprotocols (RFC 6455 section 4.1, item 10).
    Subprotocol,
    /// Subject of the certificate that the client has shown.
    CertSubject,
    /// SHA-256 of that certificate, in lower-case hexadecimal.
    CertSha256,
}

impl Input {
    /// Whether `test` holds for its value; for one of them, where there may be several.
    pub(super) fn any(&self, facts: &Facts<'_>, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        let fields = &facts.request.fields;
        match self {
            Input::Method => test(facts.request.method.as_bytes()),
            Input::Header(name) => joined(values(fields, name)).is_some_and(|value| test(&value)),
            Input::Query(name) => parameter(facts.request.query, name).is_some_and(|value| test(&value)),
            Input::Cookie(name) => lookup::cookie(facts.request, name).is_some_and(test),
            Input::Subprotocol => elements(fields, "sec-websocket-protocol").any(test),
            Input::CertSubject => facts.cert.is_some_and(|cert| test(cert.subject.as_bytes())),
            Input::CertSha256 => facts.cert.is_some_and(|cert| test(cert.sha256.as_bytes())),
        }
    }

    /// Its value, for people; `None` where there is none.
    pub(super) fn shown(&self, facts: &Facts<'_>) -> Option<String> {
        let mut all = Vec::new();
        self.any(facts, |value| {
            all.push(format!("{:?}", String::from_utf8_lossy(value)));
            false
        });
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// At most one value: two different tests of it for equality cannot both hold.
    pub(super) fn is_single(&self) -> bool {
        !matches!(self, Input::Subprotocol)
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Method => f.write_str("method"),
            Input::Header(name) => write!(f, "header {name}"),
            Input::Query(name) => write!(f, "query {name}"),
            Input::Cookie(name) => write!(f, "cookie {name}"),
            Input::Subprotocol => f.write_str("subprotocol"),
            Input::CertSubject => f.write_str("cert_subject"),
            Input::CertSha256 => f.write_str("cert_sha256"),
        }
    }
}

/// Several values as one; `None` of none.
pub(in crate::policy) fn joined<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let mut value = Cow::Borrowed(values.next()?);
    for next in values {
        let value = value.to_mut();
        value.extend_from_slice(b", ");
        value.extend_from_slice(next);
    }
    Some(value)
}

/// The first parameter called `name` in `query`, which is empty or begins with its question mark.
/// One without `=` has an empty value.
pub(in crate::policy) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let query = query.strip_prefix('?').unwrap_or(query);
    query.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (written, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*form_decoded(written) == *name.as_bytes()).then(|| form_decoded(value))
    })
}

/// As application/x-www-form-urlencoded (WHATWG URL, section 5.1): a `%` that begins no encoding
/// stands for itself.
fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return text.as_bytes().into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => out.push(*byte),
        }
    }
    out.into()
}

/// Of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    char::from(byte).to_digit(16).unwrap_or_default() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn query_parameters_are_decoded_and_the_first_counts() {
        for (query, value) in [
            ("", None),
            ("?", None),
            ("?v", Some("")),
            ("?v=", Some("")),
            ("?v=1&v=2", Some("1")),
            ("?&&v=1", Some("1")),
            ("?V=1", None),
            ("?%76=1", Some("1")),
            ("?v=a+b", Some("a b")),
            ("?v=a%2Bb%26c", Some("a+b&c")),
            ("?v=%", Some("%")),
            ("?v=%zz%4", Some("%zz%4")),
            ("?v=a=b", Some("a=b")),
            ("?w=v&xv=1", None),
            ("?v=%C3%A9", Some("é")),
        ] {
            assert_eq!(parameter(query, "v").as_deref(), value.map(str::as_bytes), "{query}");
        }
        assert_eq!(parameter("?a+b=1", "a b").as_deref(), Some(&b"1"[..]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..40), space in any::<bool>()) {
            let plus = |byte: &u8| if *byte == b' ' && space { "+".to_owned() } else { format!("%{byte:02x}") };
            let encoded: String = bytes.iter().map(plus).collect();
            prop_assert_eq!(&*form_decoded(&encoded), &bytes[..]);
            let query = format!("?a=1&{encoded}x={encoded}&{encoded}x=2");
            if let Ok(name) = String::from_utf8([&bytes[..], b"x"].concat()) {
                let found = parameter(&query, &name);
                prop_assert_eq!(found.as_deref(), Some(&bytes[..]));
            }
        }

        #[test]
        fn any_query_is_read(query in "(%|\\+|&|=|[a-f0-9]|é){0,20}", name in "[a-f0-9%]{0,3}") {
            prop_assert!(form_decoded(&query).len() <= query.len());
            let found = parameter(&query, &name).map(|value| value.len());
            prop_assert!(found.is_none_or(|length| length <= query.len()));
        }
    }
}
