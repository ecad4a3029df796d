//! Values of a request that HTTP leaves to applications: cookies, query parameters, repeated
//! headers. What a client wrote is read leniently: a malformed part is passed over, never an error.

use crate::proto::http1::{Request, values};
use std::borrow::Cow;

/// The first cookie called `name`, as sent (RFC 6265 section 5.4; names are case-sensitive).
pub fn cookie<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    cookies(request, name).next()
}

/// All cookies called `name`, as sent.
pub fn cookies<'a>(request: &Request<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = values(&request.fields, "cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The first query parameter called `name`; empty where it has no value. Name and value are
/// percent-decoded, and `+` is a space, as browsers encode forms and URLSearchParams.
pub fn query<'a>(request: &Request<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    parameters(request.query, name).next()
}

/// Several values as one; `None` of none.
pub fn joined<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let mut value = Cow::Borrowed(values.next()?);
    for next in values {
        let value = value.to_mut();
        value.extend_from_slice(b", ");
        value.extend_from_slice(next);
    }
    Some(value)
}

/// The parameters called `name` in `query`, which is empty or begins with its question mark. One
/// without `=` has an empty value.
pub fn parameters<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let pairs = query.split('&').filter(move |pair| is_parameter(pair, name));
    pairs.map(|pair| form_decoded(pair.split_once('=').map_or("", |(_, value)| value)))
}

/// Whether a part of a query, between its `&`, is a parameter called `name`.
pub fn is_parameter(pair: &str, name: &str) -> bool {
    let written = pair.split_once('=').map_or(pair, |(name, _)| name);
    !pair.is_empty() && *form_decoded(written) == *name.as_bytes()
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
    use crate::proto::http1::Field;
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
            assert_eq!(parameters(query, "v").next().as_deref(), value.map(str::as_bytes), "{query}");
        }
        assert_eq!(parameters("?a+b=1", "a b").next().as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let field = |value: &'static [u8]| Field { name: "Cookie", value };
        let fields = vec![field(b"a=1; b=2;c; dd=4"), field(b"b=3; e=x=y; f=")];
        let query_text = "?v=1&&w&v=2&x=a=b";
        let request =
            Request { is_http10: false, method: "GET", target: "/", path: "/", query: query_text, host: "h", fields };
        for (name, value) in
            [("a", Some("1")), ("b", Some("2")), ("c", None), ("d", None), ("e", Some("x=y")), ("f", Some(""))]
        {
            assert_eq!(cookie(&request, name), value.map(str::as_bytes), "{name}");
        }
        for (name, value) in [("v", Some("1")), ("w", Some("")), ("x", Some("a=b")), ("y", None)] {
            assert_eq!(query(&request, name).as_deref(), value.map(str::as_bytes), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..40), space in any::<bool>()) {
            let plus = |byte: &u8| if *byte == b' ' && space { "+".to_owned() } else { format!("%{byte:02x}") };
            let encoded: String = bytes.iter().map(plus).collect();
            prop_assert_eq!(&*form_decoded(&encoded), &bytes[..]);
            let query = format!("?a=1&{encoded}x={encoded}&{encoded}x=2");
            if let Ok(name) = String::from_utf8([&bytes[..], b"x"].concat()) {
                let found = parameters(&query, &name).next();
                prop_assert_eq!(found.as_deref(), Some(&bytes[..]));
            }
        }

        #[test]
        fn any_query_is_read(query in "(%|\\+|&|=|[a-f0-9]|é){0,20}", name in "[a-f0-9%]{0,3}") {
            prop_assert!(form_decoded(&query).len() <= query.len());
            let found = parameters(&query, &name).next().map(|value| value.len());
            prop_assert!(found.is_none_or(|length| length <= query.len()));
        }
    }
}
