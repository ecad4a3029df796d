//! The positions of a request's parts in its head, so that the head is parsed once and owned by the
//! exchange that holds it, while its parts are looked at again and again. Judges nothing.

use super::{Field, Request, parse_request};
use crate::proto::end::Cause;
use std::ops::Range;

/// The positions of a request's parts. Of use with the head they were taken from, and with no
/// other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Spans {
    is_http10: bool,
    method: Range<usize>,
    target: Range<usize>,
    /// `None`: the target has no path, which means `/`.
    path: Option<Range<usize>>,
    query: Range<usize>,
    host: Range<usize>,
    /// Name and value of each field.
    fields: Vec<[Range<usize>; 2]>,
}

impl Spans {
    /// Parses and judges a complete head ([`parse_request`]).
    pub fn parse(head: &[u8]) -> Result<Spans, Cause> {
        let request = parse_request(head)?;
        // httparse gives slices of the head, not positions.
        let span = |part: &[u8]| {
            let start = (part.as_ptr() as usize).checked_sub(head.as_ptr() as usize)?;
            Some(start..start + part.len()).filter(|span| span.end <= head.len())
        };
        let text = |part: &str| span(part.as_bytes()).unwrap_or_default();
        let field = |field: &Field<'_>| [text(field.name), span(field.value).unwrap_or_default()];
        Ok(Spans {
            is_http10: request.is_http10,
            method: text(request.method),
            target: text(request.target),
            path: span(request.path.as_bytes()),
            query: text(request.query),
            host: text(request.host),
            fields: request.fields.iter().map(field).collect(),
        })
    }

    /// The request again. `None` if `head` is not the one that the positions were taken from.
    pub fn request<'a>(&self, head: &'a [u8]) -> Option<Request<'a>> {
        let text = |span: &Range<usize>| str::from_utf8(head.get(span.clone())?).ok();
        let field =
            |[name, value]: &[Range<usize>; 2]| Some(Field { name: text(name)?, value: head.get(value.clone())? });
        Some(Request {
            is_http10: self.is_http10,
            method: text(&self.method)?,
            target: text(&self.target)?,
            path: self.path.as_ref().map_or(Some("/"), text)?,
            query: text(&self.query)?,
            host: text(&self.host)?,
            fields: self.fields.iter().map(field).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http1::parse_request;

    #[test]
    fn the_request_comes_out_as_it_was_parsed() {
        let heads: [&[u8]; 3] = [
            b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nX-Empty:\r\n\r\n",
            b"\r\nGET /%20/x HTTP/1.1\r\nhost: example.com:80\r\n\r\n",
            b"GET ws://h?q HTTP/1.1\r\nHost: h\r\n\r\n",
        ];
        for head in heads {
            let parsed = parse_request(head).unwrap();
            let spans = Spans::parse(head).unwrap();
            // Owned by another buffer meanwhile.
            let moved = head.to_vec();
            let again = spans.request(&moved).unwrap();
            assert_eq!(format!("{again:?}"), format!("{parsed:?}"));
            assert!(spans.request(&head[..4]).is_none());
        }
    }
}
