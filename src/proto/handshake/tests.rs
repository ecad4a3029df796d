//! Every row of the contract that is the handshake's, and what each peer gets.

mod forwarded;

use super::*;
use crate::proto::http1::tests::BROWSER;
use crate::proto::http1::{HeadScan, parse_request, parse_response};
use proptest::prelude::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static NO_EDITS: FieldEdits = FieldEdits::new();
const SEED: [u8; 24] = [0x11; 24];
const TRACE: &str = "traceparent: 00-11111111111111111111111111111111-1111111111111111-01";

/// A good request, `line` in the place of each field of that name, or added; no value: the field
/// removed.
fn with(lines: &[&str]) -> String {
    let mut head: Vec<String> = [
        "GET /a?b HTTP/1.1",
        "Host: a.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    .map(String::from)
    .to_vec();
    let name = |line: &str| line.split(':').next().unwrap().to_ascii_lowercase();
    for line in lines {
        head.retain(|old| name(old) != name(line));
    }
    head.extend(lines.iter().filter(|line| !line.ends_with(':')).map(ToString::to_string));
    head.join("\r\n") + "\r\n\r\n"
}

fn verdict(lines: &[&str]) -> Result<(), Cause> {
    let head = with(lines);
    judge_request(&parse_request(head.as_bytes()).unwrap_or_else(|cause| panic!("{cause:?}: {head}")))
}

#[test]
fn good_handshakes() {
    let rows: &[&[&str]] = &[
        &[],
        &["upgrade: WebSocket"],
        &["Upgrade: , websocket,"],
        &["Connection: keep-alive, UPGRADE"],
        &["Connection: keep-alive", "connection: upgrade"],
        &["Content-Length: 0"],
        &["Connection: Upgrade, X-Mine, Content-Type"],
        &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="],
        &["Connection: Upgrade, Hosts, X-Forward, Sec-WebSocket"],
    ];
    for lines in rows {
        assert_eq!(verdict(lines), Ok(()), "{lines:?}");
    }
    assert_eq!(judge_request(&parse_request(BROWSER.as_bytes()).unwrap()), Ok(()));
}

#[test]
fn refused_handshakes() {
    let rows: &[(&[&str], Cause)] = &[
        (&["Content-Length: 1"], Cause::UnexpectedBody),
        (&["Content-Length: 00"], Cause::UnexpectedBody),
        (&["Content-Length: 0, 0"], Cause::UnexpectedBody),
        (&["Content-Length: 0", "content-length: 0"], Cause::UnexpectedBody),
        (&["Content-Length: 0", "Content-Length: 1"], Cause::UnexpectedBody),
        (&["Content-Length: -0"], Cause::UnexpectedBody),
        (&["Content-Length: \t"], Cause::UnexpectedBody),
        (&["Transfer-Encoding: chunked"], Cause::UnexpectedBody),
        (&["transfer-encoding: identity"], Cause::UnexpectedBody),
        (&["Transfer-Encoding: \t"], Cause::UnexpectedBody),
        (&["Trailer: a"], Cause::UnexpectedBody),
        (&["Expect: 100-continue"], Cause::UnexpectedBody),
        (&["Upgrade:"], Cause::NotUpgrade),
        (&["Upgrade: h2c"], Cause::NotUpgrade),
        (&["Upgrade: websocket, h2c"], Cause::NotUpgrade),
        (&["Upgrade: h2c, websocket"], Cause::NotUpgrade),
        (&["Upgrade: websocket", "Upgrade: h2c"], Cause::NotUpgrade),
        (&["Upgrade: websocket", "Upgrade: websocket"], Cause::NotUpgrade),
        (&["Upgrade: websocket/13"], Cause::NotUpgrade),
        (&["Upgrade: web socket"], Cause::NotUpgrade),
        (&["Connection:"], Cause::NotUpgrade),
        (&["Connection: close"], Cause::NotUpgrade),
        (&["Connection: upgraded"], Cause::NotUpgrade),
        (&["Connection: keep-alive upgrade"], Cause::NotUpgrade),
        (&["Sec-WebSocket-Version:"], Cause::NotUpgrade),
        (&["Sec-WebSocket-Version: 8"], Cause::NotUpgrade),
        (&["Sec-WebSocket-Version: 013"], Cause::NotUpgrade),
        (&["Sec-WebSocket-Version: 13, 8"], Cause::NotUpgrade),
        (&["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"], Cause::NotUpgrade),
        (&["Sec-WebSocket-Key:"], Cause::BadKey),
        (&["Sec-WebSocket-Key: \t"], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ= "], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA"], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA="], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSB-b25jZQ=="], Cause::BadKey),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZ Bub25jZQ=="], Cause::BadKey),
        (
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
            Cause::BadKey,
        ),
        (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="], Cause::BadKey),
        (&["Connection: Upgrade, Host"], Cause::ProtectedHeader),
        (&["Connection: cookie, Upgrade"], Cause::ProtectedHeader),
        (&["Connection: Upgrade", "Connection: AUTHORIZATION"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, Origin"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, Forwarded"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, x-forwarded-for"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, X-Forwarded-Anything"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, X-Real-IP"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, Sec-WebSocket-Key"], Cause::ProtectedHeader),
        (&["Connection: Upgrade, sec-websocket-protocol"], Cause::ProtectedHeader),
    ];
    for (lines, cause) in rows {
        assert_eq!(verdict(lines), Err(*cause), "{lines:?}");
    }
}

/// Each head breaks its row's rule and all below it; the row decides.
#[test]
fn rows_apply_from_the_top() {
    let mut lines = vec!["Content-Length: 1", "Upgrade:", "Sec-WebSocket-Key: x", "Connection: Upgrade, Host, Cookie"];
    let post = with(&lines).replacen("GET", "POST", 1);
    assert_eq!(judge_request(&parse_request(post.as_bytes()).unwrap()), Err(Cause::Method));
    for cause in [Cause::UnexpectedBody, Cause::NotUpgrade, Cause::BadKey, Cause::ProtectedHeader] {
        assert_eq!(verdict(&lines), Err(cause));
        lines.remove(0);
    }
    assert_eq!(verdict(&lines), Ok(()));
}

#[test]
fn methods_are_compared_with_their_case() {
    for method in ["get", "HEAD", "POST", "CONNECT", "GETT", "Get"] {
        let head = with(&[]).replacen("GET", method, 1);
        assert_eq!(judge_request(&parse_request(head.as_bytes()).unwrap()), Err(Cause::Method), "{method}");
    }
}

fn add(trusted: bool) -> Forwarding<'static> {
    let peer = [203, 0, 113, 7].into();
    Forwarding {
        path: "/up",
        query: None,
        host: None,
        peer,
        client: peer,
        trusted,
        secure: false,
        headers: ForwardingHeaders::default(),
        cert: None,
        request_id: "rid",
        trace_seed: SEED,
        edits: &NO_EDITS,
        plain: None,
    }
}

/// What the upstream gets for `head`, as lines; always one head that says what we think it does.
fn sent(head: &str, add: &Forwarding<'_>) -> Vec<String> {
    let bytes = write_request(&parse_request(head.as_bytes()).unwrap(), add);
    assert_eq!(HeadScan::default().advance(&bytes), Ok(Some(bytes.len())));
    let text = String::from_utf8(bytes).unwrap();
    text.trim_end_matches("\r\n").split("\r\n").map(String::from).collect()
}

const ADDED: [&str; 6] = [
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Host: a.example",
    "X-Real-IP: 203.0.113.7",
    "X-Request-Id: rid",
    TRACE,
];

const START: [&str; 4] = ["GET /up?b HTTP/1.1", "Host: a.example", "Connection: Upgrade", "Upgrade: websocket"];

fn expected(middle: &[&'static str], added: &[&'static str]) -> Vec<&'static str> {
    [&START[..], middle, added].concat()
}

#[test]
fn the_request_is_written_anew() {
    let head = with(&[
        "cookie: a=b",
        "COOKIE: c=d",
        "Authorization: Bearer x",
        "Origin: https://a.example",
        "sec-websocket-PROTOCOL: chat, superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "X-App:  two  words\t",
        "X-Empty: \t",
    ]);
    let middle = [
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "cookie: a=b",
        "COOKIE: c=d",
        "Authorization: Bearer x",
        "Origin: https://a.example",
        "sec-websocket-PROTOCOL: chat, superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "X-App: two  words",
        "X-Empty: ",
    ];
    assert_eq!(sent(&head, &add(false)), expected(&middle, &ADDED));
    assert_eq!(sent(&head, &add(true)), expected(&middle, &ADDED));
}

const HANDSHAKE: [&str; 2] = ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"];

#[test]
fn what_means_one_connection_never_passes() {
    let head = with(&[
        "Connection: Upgrade, X-Hop , x-other",
        "Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authenticate: Basic",
        "Proxy-Authorization: Basic x",
        "TE: trailers",
        "Trailer: a",
        "Transfer-Encoding: chunked",
        "Content-Length: 0",
        "x-HOP: 1",
        "X-Other: 2",
        "X_Forwarded_For: 1.2.3.4",
        "Content_Length: 7",
        "_: 1",
    ]);
    for trusted in [false, true] {
        assert_eq!(sent(&head, &add(trusted)), expected(&HANDSHAKE, &ADDED));
    }
}

const FORWARDING: [&str; 9] = [
    "Forwarded: for=10.0.0.1",
    "X-Forwarded-For: 10.0.0.1, 10.0.0.2",
    "x-forwarded-for: , 10.0.0.3",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public.example",
    "X-Forwarded-Port: 443",
    "X-Real-IP: 10.0.0.1",
    "X-Request-Id: theirs",
    "X-App: 1",
];

#[test]
fn the_word_of_an_untrusted_peer_is_dropped() {
    let middle = [&HANDSHAKE[..], &["X-App: 1"]].concat();
    assert_eq!(sent(&with(&FORWARDING), &add(false)), expected(&middle, &ADDED));
}

#[test]
fn the_word_of_a_trusted_peer_is_kept_and_continued_in_one_line() {
    let kept = [
        "Forwarded: for=10.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.example",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 10.0.0.1",
        "X-App: 1",
    ];
    let added = ["X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 203.0.113.7", "X-Request-Id: rid", TRACE];
    let middle = [&HANDSHAKE[..], &kept].concat();
    assert_eq!(sent(&with(&FORWARDING), &add(true)), expected(&middle, &added));
}

#[test]
fn route_peer_and_transport_show_in_the_request() {
    let head = with(&[]).replacen("/a?b", "ws://A.example/x/y?q=%zz", 1);
    let add = Forwarding {
        host: Some("backend:9000"),
        peer: "::ffff:192.0.2.1".parse().unwrap(),
        client: "::ffff:192.0.2.1".parse().unwrap(),
        secure: true,
        path: "/base/y",
        ..add(false)
    };
    let lines = sent(&head, &add);
    assert_eq!(lines[..2], ["GET /base/y?q=%zz HTTP/1.1", "Host: backend:9000"]);
    assert_eq!(
        lines[6..10],
        [
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: a.example",
            "X-Real-IP: 192.0.2.1"
        ]
    );
    let six = Forwarding { peer: "2001:db8::1".parse().unwrap(), ..add };
    assert!(sent(&head, &six).contains(&"X-Forwarded-For: 2001:db8::1".into()));
}

#[test]
fn traces_are_continued_or_started() {
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let ours = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-00";
    let state = ["tracestate: a=1", "TraceState: b=2"];
    let rows: &[(&[&str], &str, bool)] = &[
        (&[parent, state[0], state[1]], ours, true),
        (&[state[0], state[1]], TRACE, false),
        (&["traceparent: garbage", state[0], state[1]], TRACE, false),
        (&[parent, parent, state[0], state[1]], TRACE, false),
        (&[parent, "Connection: Upgrade, TraceParent", state[0], state[1]], TRACE, false),
    ];
    for (lines, trace, with_state) in rows {
        let got = sent(&with(lines), &add(false));
        assert_eq!(got.iter().filter(|line| line.to_ascii_lowercase().starts_with("traceparent")).count(), 1);
        assert_eq!(got.last().unwrap(), trace, "{lines:?}");
        for line in state {
            assert_eq!(got.contains(&line.to_string()), *with_state, "{lines:?}");
        }
    }
}

#[test]
fn request_ids_of_one_to_128_visible_characters_are_kept() {
    let long = |len: usize| format!("X-Request-Id: {}", "x".repeat(len));
    let rows: &[(&[&str], Option<usize>)] = &[
        (&[], None),
        (&["X-Request-ID: a"], Some(1)),
        (&[&long(128)], Some(128)),
        (&[&long(129)], None),
        (&["X-Request-Id: \t"], None),
        (&["X-Request-Id: a b"], None),
        (&["X-Request-Id: \u{e9}"], None),
        (&["X-Request-Id: a", "X-Request-Id: a"], None),
    ];
    for (lines, len) in rows {
        let head = with(lines);
        let request = parse_request(head.as_bytes()).unwrap();
        assert_eq!(request_id_of(&request).map(str::len), *len, "{lines:?}");
    }
}

#[test]
fn accept_of_the_example_in_rfc_6455_section_1_3() {
    assert_eq!(accept_of(KEY.as_bytes()), ACCEPT.as_bytes());
}

/// A good 101, changed like [`with`].
fn switching(lines: &[&str]) -> String {
    let mut head: Vec<String> = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]
    .map(String::from)
    .to_vec();
    let name = |line: &str| line.split(':').next().unwrap().to_ascii_lowercase();
    for line in lines {
        head.retain(|old| name(old) != name(line));
    }
    head.extend(lines.iter().filter(|line| !line.ends_with(':')).map(ToString::to_string));
    head.join("\r\n") + "\r\n\r\n"
}

fn judged(offer: &[&str], answer: &[&str]) -> Result<Extensions, Cause> {
    let (request, response) = (with(offer), switching(answer));
    let response = parse_response(response.as_bytes()).unwrap();
    judge_response(&parse_request(request.as_bytes()).unwrap(), &response).map(|switching| switching.extensions)
}

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";

#[test]
fn good_switches() {
    let rows: &[(&[&str], &[&str], Extensions)] = &[
        (&[], &[], Extensions::None),
        (&[DEFLATE], &[], Extensions::None),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: \t"], Extensions::None),
        (&[DEFLATE], &["upgrade: WEBSOCKET", "connection: keep-alive, upgrade"], Extensions::None),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: permessage-deflate"], Extensions::Deflate),
        (
            &[DEFLATE],
            &["sec-websocket-extensions: permessage-deflate ;server_max_window_bits=\"10\""],
            Extensions::Deflate,
        ),
        (&["Sec-WebSocket-Extensions: foo", DEFLATE], &["Sec-WebSocket-Extensions: foo"], Extensions::Unknown),
        (
            &["Sec-WebSocket-Extensions: foo; a=\"x, y\"", DEFLATE],
            &["Sec-WebSocket-Extensions: foo; a=\",\"", "Sec-WebSocket-Extensions: permessage-deflate"],
            Extensions::Unknown,
        ),
        (&["Sec-WebSocket-Protocol: chat, Super"], &[], Extensions::None),
        // An empty list is none.
        (&[], &["Sec-WebSocket-Protocol: \t"], Extensions::None),
        (&["Sec-WebSocket-Protocol: chat"], &["Sec-WebSocket-Protocol: \t"], Extensions::None),
        (
            &["Sec-WebSocket-Protocol: chat"],
            &["Sec-WebSocket-Protocol: ,", "Sec-WebSocket-Protocol: chat"],
            Extensions::None,
        ),
        (&[], &["Sec-WebSocket-Extensions: , ,"], Extensions::None),
        // A 1xx ends at its empty line, whatever its fields say.
        (&[], &["Content-Length: 0"], Extensions::None),
        (&[], &["Content-Length: 5", "Content-Length: x"], Extensions::None),
        (&[], &["Transfer-Encoding: chunked"], Extensions::None),
        (
            &[],
            &["Content-Length: 5", "Transfer-Encoding: chunked", "Connection: Upgrade, content-length"],
            Extensions::None,
        ),
        (&["Sec-WebSocket-Protocol: chat, Super"], &["Sec-WebSocket-Protocol: Super"], Extensions::None),
        (
            &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: Super"],
            &["Sec-WebSocket-Protocol: Super"],
            Extensions::None,
        ),
    ];
    for (offer, answer, extensions) in rows {
        assert_eq!(judged(offer, answer), Ok(*extensions), "{offer:?} {answer:?}");
    }
}

#[test]
fn bad_switches() {
    let chat = "Sec-WebSocket-Protocol: chat, Super";
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    let rows: &[(&[&str], &[&str])] = &[
        (&[], &["Sec-WebSocket-Accept:"]),
        (&[], &["Sec-WebSocket-Accept: \t"]),
        (&[], &["Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
        (&[], &["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo"]),
        (&[], &["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=="]),
        (&[], &[&accept, &accept]),
        (&[], &["Upgrade:"]),
        (&[], &["Upgrade: h2c"]),
        (&[], &["Upgrade: websocket, h2c"]),
        (&[], &["Upgrade: websocket", "Upgrade: websocket"]),
        (&[], &["Connection:"]),
        (&[], &["Connection: close"]),
        (&[], &["Connection: Upgrade, Sec-WebSocket-Accept"]),
        (&[chat], &["Sec-WebSocket-Protocol: chat", "Connection: Upgrade, sec-websocket-protocol"]),
        (&[], &["Sec-WebSocket-Protocol: chat"]),
        (&[chat], &["Sec-WebSocket-Protocol: other"]),
        (&[chat], &["Sec-WebSocket-Protocol: super"]),
        (&[chat], &["Sec-WebSocket-Protocol: chat, Super"]),
        (&[chat], &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: Super"]),
        (&[chat], &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"]),
        (&[], &["Sec-WebSocket-Extensions: permessage-deflate"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: x-webkit-deflate-frame"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: permessage-deflate, foo"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Extensions: Permessage-deflate"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: client_max_window_bits"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: ; permessage-deflate"]),
        (&[DEFLATE], &["Sec-WebSocket-Extensions: permessage-deflate; a=\"b"]),
        // Inside a quoted parameter of the offer nothing is offered.
        (&["Sec-WebSocket-Extensions: foo; a=\"x, bar\""], &["Sec-WebSocket-Extensions: bar"]),
    ];
    for (offer, answer) in rows {
        assert_eq!(judged(offer, answer), Err(Cause::Bad101), "{offer:?} {answer:?}");
    }
    let (request, response) = (with(&[]), switching(&[]).replacen("101", "200", 1));
    let response = parse_response(response.as_bytes()).unwrap();
    assert_eq!(judge_response(&parse_request(request.as_bytes()).unwrap(), &response), Err(Cause::Bad101));
}

#[test]
fn the_client_gets_the_101_with_hop_by_hop_rebuilt() {
    let request = with(&[DEFLATE, "Sec-WebSocket-Protocol: chat"]);
    let response = switching(&[
        "Connection: keep-alive, X-Hop, Upgrade",
        "Server: x",
        "Content-Length: 7",
        "Transfer-Encoding: chunked",
        "Sec-WebSocket-Protocol: ,",
        "sec-websocket-protocol: chat",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Set-Cookie: a=b",
        "SEC-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
        "Set-Cookie: c=d",
    ])
    .replacen("Switching Protocols", "Web Socket Protocol Handshake", 1);
    let request = parse_request(request.as_bytes()).unwrap();
    let response = parse_response(response.as_bytes()).unwrap();
    let switching = judge_response(&request, &response).unwrap();
    assert_eq!(switching.extensions, Extensions::Deflate);
    let want = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nServer: x\r\nsec-websocket-protocol: chat\r\n\
        Set-Cookie: a=b\r\nSEC-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\
        Set-Cookie: c=d\r\n\r\n";
    assert_eq!(String::from_utf8(write_switching(&response, &switching.accept, &NO_EDITS)).unwrap(), want);
}

#[test]
fn edits_concern_the_peers_own_fields() {
    let mut edits = FieldEdits::new();
    edits.set("X-App", b"ours".to_vec());
    edits.add("x-more", b"1".to_vec());
    edits.add("x-more", b"2".to_vec());
    edits.remove("cookie");
    // What the proxy writes itself stands, and what the route adds cannot be named away.
    edits.remove("Host");
    edits.remove("Connection");
    edits.remove("X-Request-Id");
    let head = with(&["X-APP: theirs", "x-app: too", "Cookie: a", "X-More: 0", "Connection: Upgrade, X-App"]);
    let lines = sent(&head, &Forwarding { edits: &edits, ..add(false) });
    let own: Vec<_> = lines.iter().filter(|line| line.to_ascii_lowercase().starts_with("x-app")).collect();
    assert_eq!(own, ["X-App: ours"]);
    let at = lines.iter().position(|line| line == "X-More: 0").unwrap();
    assert_eq!(lines[at..at + 4], ["X-More: 0", "X-App: ours", "x-more: 1", "x-more: 2"]);
    assert!(!lines.iter().any(|line| line.contains("Cookie")), "{lines:?}");
    for line in ["Host: a.example", "Connection: Upgrade", "X-Request-Id: rid"] {
        assert!(lines.iter().any(|sent| sent == line), "{line}");
    }
    let response = "HTTP/1.1 101 S\r\nX-App: theirs\r\nSet-Cookie: a=b\r\nCOOKIE: c\r\n\r\n";
    edits.add("Set-Cookie", b"c=d".to_vec());
    let written =
        write_switching(&parse_response(response.as_bytes()).unwrap(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &edits);
    let want = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: a=b\r\nX-App: ours\r\nx-more: 1\r\n\
        x-more: 2\r\nSet-Cookie: c=d\r\n\r\n";
    assert_eq!(String::from_utf8(written).unwrap(), want);
}

#[test]
fn empty_lists_of_the_client_are_not_forwarded() {
    for (line, forwarded) in [
        ("Sec-WebSocket-Protocol: \t", false),
        ("sec-websocket-extensions: , \t", false),
        ("Sec-WebSocket-Protocol: a,", true),
        ("X-Empty: \t", true),
    ] {
        let head = with(&[line]);
        let written = write_request(&parse_request(head.as_bytes()).unwrap(), &add(false));
        let name = line.split(':').next().unwrap();
        assert_eq!(String::from_utf8(written).unwrap().contains(name), forwarded, "{line:?}");
    }
}

fn field_line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "Cookie",
        "X-App",
        "x-hop",
        "X_Hop",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-New",
        "X-Real-IP",
        "TE",
        "X-Request-Id",
        "traceparent",
        "tracestate",
        "Keep-Alive",
        "Connection",
        "Content-Length",
        "Trailer",
    ]);
    (name, "[ -~\u{e9}\t]{0,12}").prop_map(|(name, value)| format!("{name}: {value}"))
}

proptest! {
    /// Whatever the fields: one head leaves, nothing in it means the client's connection, nothing
    /// is doubled.
    #[test]
    fn one_clean_head_leaves(lines in prop::collection::vec(field_line(), 0..12), trusted: bool) {
        let mut head = String::from("GET /a HTTP/1.1\r\nHost: a\r\n");
        lines.iter().for_each(|line| head.extend([line, "\r\n"]));
        head.push_str("\r\n");
        let request = parse_request(head.as_bytes()).unwrap();
        let bytes = write_request(&request, &add(trusted));
        prop_assert_eq!(HeadScan::default().advance(&bytes), Ok(Some(bytes.len())));
        let sent = parse_request(&bytes).unwrap();
        let count = |name| values(&sent.fields, name).count();
        for name in ["host", "connection", "upgrade", "x-forwarded-for", "x-request-id", "traceparent"] {
            prop_assert_eq!(count(name), 1, "{}", name);
        }
        for name in ["te", "trailer", "keep-alive", "content-length", "x_hop"] {
            prop_assert_eq!(count(name), 0, "{}", name);
        }
        prop_assert!(trusted || count("forwarded") + count("x-forwarded-new") == 0);
        // What is the client's own comes through in its order, unless Connection names it.
        let named = Named::of(&request.fields);
        let known = ["Cookie", "X-App", "x-hop"];
            let own = |field: &&Field<'_>| known.contains(&field.name) && !named.contains(field.name);
        let before: Vec<_> = request.fields.iter().filter(own).map(|field| (field.name, field.value)).collect();
        let after: Vec<_> = sent.fields.iter().filter(own).map(|field| (field.name, field.value)).collect();
        prop_assert_eq!(before, after);
    }
}
