//! The list of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1), read no further than the names in
//! it.

/// The name of each extension in `value`; `Err` where an element has none or a quote stays open.
/// Names are trimmed; parameters may hold commas in quotes.
pub(super) fn names(value: &[u8]) -> impl Iterator<Item = Result<&[u8], Broken>> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let (element, after) = split_element(rest?);
            rest = after;
            // Empty elements mean nothing (RFC 9110 section 5.6.1.2).
            match element.map(<[u8]>::trim_ascii) {
                Ok([]) => {}
                element => return Some(element.and_then(name_of)),
            }
        }
    })
}

/// `value` in one way to write it: in lower case, without white space, quotes (RFC 6455 allows them
/// around tokens alone) and empty elements. Order is kept: extensions apply in it.
pub(super) fn normal(value: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'"' | b'\\');
    let (mut rest, mut out) = (Some(value), Vec::new());
    while let Some(list) = rest {
        let (element, after) = split_element(list);
        rest = after;
        let written: Vec<u8> = element.unwrap_or(list).to_ascii_lowercase().into_iter().filter(plain).collect();
        if !written.is_empty() {
            out.extend_from_slice(&written);
            out.push(b',');
        }
    }
    out
}

/// An element that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

type Element<'a> = Result<&'a [u8], Broken>;

/// The bytes before the first comma outside quotes, and those behind it.
fn split_element(list: &[u8]) -> (Element<'_>, Option<&[u8]>) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (list.get(..at).ok_or(Broken), list.get(at + 1..)),
            _ => {}
        }
    }
    (if quoted { Err(Broken) } else { Ok(list) }, None)
}

fn name_of(element: &[u8]) -> Element<'_> {
    let name = element.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if name.is_empty() { Err(Broken) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_past_parameters_and_quotes() {
        let cases: &[(&str, &[Result<&str, Broken>])] = &[
            ("", &[]),
            (" , ,", &[]),
            ("permessage-deflate", &[Ok("permessage-deflate")]),
            ("a; x=1 , b;y", &[Ok("a"), Ok("b")]),
            ("a; x=\"1, b; c\", d", &[Ok("a"), Ok("d")]),
            ("a; x=\"\\\", b\", d", &[Ok("a"), Ok("d")]),
            ("a, ;x", &[Ok("a"), Err(Broken)]),
            ("a; x=\"1, b", &[Err(Broken)]),
        ];
        for (value, want) in cases {
            let got: Vec<_> = names(value.as_bytes()).collect();
            let want: Vec<_> = want.iter().map(|name| name.map(str::as_bytes)).collect();
            assert_eq!(got, want, "{value:?}");
        }
    }
}
