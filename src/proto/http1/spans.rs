//! Where the parts of a judged request stand in its head, so that the head is parsed once and can be owned by
//! whoever keeps it, while its parts are looked at again and again. Judges nothing.

use super::{Field, Request};
use std::ops::Range;

/// The places of a request's parts. Of use with the head that they were taken from, and with no other.
#[derive(Debug)]
pub struct Spans {
    method: Range<usize>,
    target: Range<usize>,
    path: Range<usize>,
    query: Range<usize>,
    host: Range<usize>,
    /// Name and value of each field.
    fields: Vec<[Range<usize>; 2]>,
}

impl Spans {
    /// `request` was parsed from `head`.
    pub fn of(request: &Request<'_>, head: &[u8]) -> Spans {
        let place = |part: &[u8]| {
            let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
            // A part that the parser made up (the path of a target without one) stands nowhere.
            if start <= head.len() { start..start + part.len() } else { 0..0 }
        };
        let field = |field: &Field<'_>| [place(field.name.as_bytes()), place(field.value)];
        Spans {
            method: place(request.method.as_bytes()),
            target: place(request.target.as_bytes()),
            path: place(request.path.as_bytes()),
            query: place(request.query.as_bytes()),
            host: place(request.host.as_bytes()),
            fields: request.fields.iter().map(field).collect(),
        }
    }

    /// The request again. `None` if `head` is not the one that the places were taken from.
    pub fn request<'a>(&self, head: &'a [u8]) -> Option<Request<'a>> {
        let text = |place: &Range<usize>| str::from_utf8(head.get(place.clone())?).ok();
        let field =
            |[name, value]: &[Range<usize>; 2]| Some(Field { name: text(name)?, value: head.get(value.clone())? });
        Some(Request {
            method: text(&self.method)?,
            target: text(&self.target)?,
            path: Some(text(&self.path)?).filter(|path| !path.is_empty()).unwrap_or("/"),
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
            let spans = Spans::of(&parsed, head);
            // Owned by somebody else meanwhile.
            let moved = head.to_vec();
            let again = spans.request(&moved).unwrap();
            assert_eq!(format!("{again:?}"), format!("{parsed:?}"));
            assert!(spans.request(&head[..4]).is_none());
        }
    }
}
