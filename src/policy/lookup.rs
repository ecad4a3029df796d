//! Values of a request that HTTP leaves to applications: cookies and query parameters. Borrowed as
//! the client wrote them, percent-encoding included.

use crate::proto::http1::{Request, values};

/// The first cookie called `name` (RFC 6265 section 5.4; names are case-sensitive).
pub fn cookie<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    let pairs = values(&request.fields, "cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The first query parameter called `name`; empty where it has no value.
pub fn query<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
    let pairs = request.query.trim_start_matches('?').split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http1::Field;

    #[test]
    fn the_first_of_a_name_counts() {
        let field = |value: &'static [u8]| Field { name: "Cookie", value };
        let fields = vec![field(b"a=1; b=2;c; dd=4"), field(b"b=3; e=x=y; f=")];
        let query_text = "?v=1&&w&v=2&x=a=b";
        let request = Request { method: "GET", target: "/", path: "/", query: query_text, host: "h", fields };
        for (name, value) in
            [("a", Some("1")), ("b", Some("2")), ("c", None), ("d", None), ("e", Some("x=y")), ("f", Some(""))]
        {
            assert_eq!(cookie(&request, name), value.map(str::as_bytes), "{name}");
        }
        for (name, value) in [("v", Some("1")), ("w", Some("")), ("x", Some("a=b")), ("y", None)] {
            assert_eq!(query(&request, name), value, "{name}");
        }
    }
}
