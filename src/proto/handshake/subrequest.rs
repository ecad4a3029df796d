//! The request that asks an authorization server about a client's: the client's fields, and what
//! the proxy says of the client and of its request. What a client claims about either is not in it.

use super::{Forwarding, Origin, push_identity, push_x_forwarded, starts_with};
use crate::proto::http1::{Field, Named, Request, push, push_field};

/// What is asked with.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    pub method: &'a str,
    /// The fields of the client that are sent. `None`: all, but those that concern its connection,
    /// its WebSocket or its content.
    pub fields: Option<&'a [String]>,
}

/// Writes the head of a request without a body for `add.host`, with `add.path` as its target.
/// Request method and target of the client are in X-Forwarded-Method and X-Forwarded-Uri, and never
/// taken from a peer, be it trusted: what is asked about is the request that is judged here.
pub fn write_subrequest(request: &Request<'_>, asking: &Asking<'_>, add: &Forwarding<'_>) -> Vec<u8> {
    let named = Named::of(&request.fields);
    let mut out = Vec::with_capacity(1024);
    push(&mut out, &[asking.method.as_bytes(), b" ", add.path.as_bytes(), b" HTTP/1.1\r\n"]);
    push_field(&mut out, "Host", add.host.unwrap_or(request.host).as_bytes());
    for Field { name, value } in &request.fields {
        let passes = match Origin::of(name) {
            Origin::Rewritten | Origin::TraceState => false,
            Origin::Trust => add.trusted && !is_target(name),
            Origin::Client => !is_target(name) && may_ask(name, asking.fields),
        };
        if passes && !add.edits.removes(name) && !named.contains(name) {
            push_field(&mut out, name, value);
        }
    }
    push_x_forwarded(&mut out, request, add);
    push_identity(&mut out, request, add);
    push_field(&mut out, "X-Forwarded-Method", request.method.as_bytes());
    push(&mut out, &[b"X-Forwarded-Uri: ", request.path.as_bytes(), request.query.as_bytes(), b"\r\n"]);
    if asking.method != "GET" {
        push_field(&mut out, "Content-Length", b"0");
    }
    push_field(&mut out, "Connection", b"close");
    out.extend_from_slice(b"\r\n");
    out
}

/// Fields by which proxies tell an authorization server what is asked for.
fn is_target(name: &str) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    is("x-forwarded-method") || is("x-forwarded-uri") || starts_with(name.as_bytes(), "x-original-")
}

fn may_ask(name: &str, chosen: Option<&[String]>) -> bool {
    let starts = |prefix| starts_with(name.as_bytes(), prefix);
    match chosen {
        Some(chosen) => chosen.iter().any(|one| one.eq_ignore_ascii_case(name)),
        None => !starts("sec-websocket-") && !starts("content-"),
    }
}

/// The value of the field called `name` in a head that [`write_subrequest`] has written, of all its
/// lines: for what an answer depends on. `None` if there is none.
pub fn sent<'a>(head: &'a [u8], name: &str) -> Option<Vec<&'a [u8]>> {
    let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let value = |line: &'a [u8]| {
        let (is, value) = line.split_at_checked(name.len())?;
        is.eq_ignore_ascii_case(name.as_bytes()).then_some(())?;
        value.strip_prefix(b":").map(<[u8]>::trim_ascii)
    };
    let values: Vec<_> = lines.skip(1).filter_map(value).collect();
    (!values.is_empty()).then_some(values)
}

/// A name that a configuration must not choose: it is the proxy's, or never sent.
pub fn is_reserved(name: &str) -> bool {
    !matches!(Origin::of(name), Origin::Client) || is_target(name) || name.eq_ignore_ascii_case("connection")
}

#[cfg(test)]
mod tests {
    use super::super::ForwardingHeaders;
    use super::*;
    use crate::proto::http1::{FieldEdits, parse_request};
    use std::net::IpAddr;

    fn written(fields: &str, chosen: Option<&[String]>, trusted: bool) -> String {
        let head = format!("GET /a%20b?x=1&y HTTP/1.1\r\nHost: chat.example:8443\r\n{fields}\r\n");
        let request = parse_request(head.as_bytes()).unwrap();
        let mut edits = FieldEdits::new();
        edits.remove("X-User");
        let peer = IpAddr::from([192, 0, 2, 7]);
        let add = Forwarding {
            path: "/verify",
            query: None,
            host: Some("auth:9091"),
            peer,
            client: peer,
            trusted,
            secure: true,
            headers: ForwardingHeaders::XForwarded,
            cert: None,
            request_id: "id-1",
            trace_seed: [0; 24],
            edits: &edits,
            plain: None,
        };
        let asking = Asking { method: "GET", fields: chosen };
        String::from_utf8(write_subrequest(&request, &asking, &add)).unwrap()
    }

    const OURS: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
                        X-Forwarded-Host: chat.example:8443\r\nX-Real-IP: 192.0.2.7\r\nX-Request-Id: id-1\r\nX-Forwarded-Method: GET\r\n\
                        X-Forwarded-Uri: /a%20b?x=1&y\r\nConnection: close\r\n\r\n";

    #[test]
    fn what_clients_claim_is_not_asked_with() {
        let spoofed = "X-Forwarded-For: 10.0.0.1\r\nx-forwarded-proto: http\r\nX-FORWARDED-HOST: evil\r\n\
                       X-Forwarded-Uri: /public\r\nX-Forwarded-Method: HEAD\r\nX-Original-URI: /public\r\n\
                       X-Original-URL: /public\r\nX-Real-IP: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n\
                       X-Request-Id: theirs\r\nX_Forwarded_For: 10.0.0.1\r\nX-User: root\r\n\
                       X-Forwarded-User: root\r\nX-Client-Cert-Subject: CN=root\r\nX-Named: 1\r\n\
                       Connection: Upgrade, X-Named\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\
                       Content-Type: a/b\r\nCookie: session=1\r\nAuthorization: Bearer t\r\nOrigin: https://a\r\n";
        let client = "GET /verify HTTP/1.1\r\nHost: auth:9091\r\nCookie: session=1\r\nAuthorization: Bearer t\r\n\
                      Origin: https://a\r\n";
        assert_eq!(written(spoofed, None, false), format!("{client}{OURS}"));
        let chosen = ["cookie".to_owned(), "Sec-WebSocket-Key".to_owned(), "X-User".to_owned()];
        let client = "GET /verify HTTP/1.1\r\nHost: auth:9091\r\nSec-WebSocket-Key: k\r\nCookie: session=1\r\n";
        assert_eq!(written(spoofed, Some(&chosen), false), format!("{client}{OURS}"));
    }

    #[test]
    fn a_trusted_peer_says_who_the_client_is_and_never_what_it_asks_for() {
        let head = written(
            "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Uri: /public\r\n\
             X-Original-URI: /p\r\n",
            None,
            true,
        );
        assert!(head.contains("\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n"), "{head}");
        assert!(head.contains("\r\nX-Forwarded-Proto: http\r\n") && !head.contains("https"), "{head}");
        assert!(head.contains("\r\nX-Forwarded-Uri: /a%20b?x=1&y\r\n") && !head.contains("/p"), "{head}");
    }

    #[test]
    fn what_was_sent_is_found_again() {
        let head = written("Cookie: a=1\r\nCookie:  b=2 \r\n", None, false);
        assert_eq!(sent(head.as_bytes(), "cookie"), Some(vec![&b"a=1"[..], b"b=2"]));
        assert_eq!(sent(head.as_bytes(), "x-forwarded-uri"), Some(vec![&b"/a%20b?x=1&y"[..]]));
        assert_eq!((sent(head.as_bytes(), "cook"), sent(head.as_bytes(), "get /verify http/1.1")), (None, None));
        for (name, reserved) in
            [("Cookie", false), ("X-Forwarded-For", true), ("X-Original-URI", true), ("Upgrade", true), ("a_b", true)]
        {
            assert_eq!(is_reserved(name), reserved, "{name}");
        }
    }
}
