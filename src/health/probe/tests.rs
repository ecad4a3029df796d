use super::*;
use crate::policy::endpoint::Address;
use std::ops::RangeInclusive;

const SEED: Seed = Seed { key: *b"the sample nonce", ping: *b"12345678", masks: [[1, 2, 3, 4], [5, 6, 7, 8]] };
/// Of RFC 6455 section 1.3: the key is that of [`SEED`].
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const PONG: &[u8] = b"\x8a\x0812345678";

fn check(kind: CheckKind) -> HealthCheck {
    HealthCheck {
        kind,
        interval_ms: 1_000,
        jitter_permille: 0,
        timeout_ms: 500,
        thresholds: HealthCheck::THRESHOLDS,
        initially_up: true,
        port: None,
    }
}

fn http(range: RangeInclusive<u16>) -> CheckKind {
    CheckKind::Http(CheckRequest::default(), Statuses(vec![range]))
}

fn websocket(ping: bool) -> CheckKind {
    CheckKind::WebSocket { request: CheckRequest::default(), ping }
}

fn endpoint(base: &str) -> Endpoint {
    Endpoint::new("ws://app:9000".into(), Address::Name("app:9000".into()), false, base.into())
}

fn start(kind: &CheckKind) -> (Probe, String) {
    let mut out = Vec::new();
    let probe = Probe::start(&check(kind.clone()), &endpoint(""), SEED, &mut out).unwrap();
    (probe, String::from_utf8(out).unwrap())
}

/// The result after `bytes`, and what was sent meanwhile: the same for every cut.
#[track_caller]
fn answer(kind: &CheckKind, bytes: &[u8]) -> (Option<Outcome>, Vec<u8>) {
    let whole = answer_cut(kind, &[bytes]);
    for at in 0..bytes.len() {
        let (first, rest) = bytes.split_at(at);
        assert_eq!(answer_cut(kind, &[first, rest]), whole, "cut at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(answer_cut(kind, &single), whole, "byte by byte");
    whole
}

fn answer_cut(kind: &CheckKind, parts: &[&[u8]]) -> (Option<Outcome>, Vec<u8>) {
    let (mut probe, _) = start(kind);
    let (mut out, mut outcome) = (Vec::new(), None);
    for part in parts {
        if let Some(result) = probe.on_bytes(part, &mut out) {
            assert_eq!(outcome.replace(result), None, "the result is reported once");
        }
    }
    (outcome, out)
}

/// First byte and payload.
type Frame = (u8, Vec<u8>);

/// Frames of a client, unmasked.
fn unmasked(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        assert_eq!(len & 0x80, 0x80, "masked");
        let (key, rest) = rest.split_first_chunk::<4>().unwrap();
        let (payload, rest) = rest.split_at(usize::from(len & 0x7f));
        frames.push((*first, payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect()));
        bytes = rest;
    }
    frames
}

fn ping() -> Frame {
    (0x89, SEED.ping.to_vec())
}

fn close() -> Frame {
    (0x88, vec![3, 0xe8])
}

#[test]
fn requests_are_written_as_configured() {
    let request = CheckRequest {
        head_only: true,
        path: Some("/healthz?deep=1".into()),
        host: Some("inner".into()),
        headers: vec![("X-A".into(), "1".into()), ("user-agent".into(), "me".into())],
    };
    let (_, head) = start(&CheckKind::Http(request.clone(), Statuses::default()));
    let rest = "Connection: close\r\nX-A: 1\r\nuser-agent: me\r\n\r\n";
    assert_eq!(head, format!("HEAD /healthz?deep=1 HTTP/1.1\r\nHost: inner\r\n{rest}"));
    let (_, head) = start(&http(200..=200));
    assert_eq!(head, "GET / HTTP/1.1\r\nHost: app:9000\r\nConnection: close\r\nUser-Agent: framegate\r\n\r\n");
    let (_, head) = start(&websocket(false));
    assert!(head.starts_with("GET / HTTP/1.1\r\nHost: app:9000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert!(head.contains("\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"));
    let mut out = Vec::new();
    assert!(Probe::start(&check(websocket(false)), &endpoint("/base"), SEED, &mut out).is_some());
    assert!(out.starts_with(b"GET /base HTTP/1.1\r\n"));
    assert!(Probe::start(&check(CheckKind::Tcp), &endpoint(""), SEED, &mut out).is_none());
}

#[test]
fn http_passes_with_an_expected_status() {
    let statuses = |status, range| Failure::Status(status, Statuses(vec![range]));
    let rows: &[(&str, Option<Outcome>)] = &[
        ("HTTP/1.1 200 OK\r\n\r\n", Some(Ok(()))),
        ("HTTP/1.0 204 No Content\r\nContent-Length: 5\r\n\r\nextra", Some(Ok(()))),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 299 Fine\r\n\r\n", Some(Ok(()))),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Some(Err(statuses(500, 200..=299)))),
        ("HTTP/1.1 101 Switching\r\n\r\n", Some(Err(statuses(101, 200..=299)))),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", None),
        ("", None),
        ("SSH-2.0-server\r\n", Some(Err(Failure::BadResponse))),
        ("HTTP/1.1 200 OK\nA: b\n\n", Some(Err(Failure::BadResponse))),
        ("HTTP/1.1 999 OK\r\n\r\n", Some(Err(Failure::BadResponse))),
    ];
    for (bytes, want) in rows {
        assert_eq!(answer(&http(200..=299), bytes.as_bytes()), (want.clone(), Vec::new()), "{bytes:?}");
    }
}

#[test]
fn websocket_passes_with_a_valid_101_and_closes() {
    let (outcome, out) = answer(&websocket(false), SWITCHING.as_bytes());
    assert_eq!((outcome, unmasked(&out)), (Some(Ok(())), vec![close()]));
    let after_interim = format!("HTTP/1.1 100 Continue\r\n\r\n{SWITCHING}");
    assert_eq!(answer(&websocket(false), after_interim.as_bytes()).0, Some(Ok(())));
    let bad = [
        SWITCHING.replace("s3pP", "S3pP"),
        SWITCHING.replace("Upgrade: websocket\r\n", ""),
        SWITCHING.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        SWITCHING.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ];
    for bad in bad {
        assert_eq!(answer(&websocket(false), bad.as_bytes()), (Some(Err(Failure::Bad101)), Vec::new()), "{bad}");
    }
    let refused = answer(&websocket(true), b"HTTP/1.1 200 OK\r\n\r\n").0.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "status 200, expected 101");
}

#[test]
fn a_chosen_subprotocol_must_have_been_offered() {
    let headers = vec![("Sec-WebSocket-Protocol".to_owned(), "chat, super".to_owned())];
    let kind = CheckKind::WebSocket { request: CheckRequest { headers, ..CheckRequest::default() }, ping: false };
    let chosen = |name| SWITCHING.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"));
    assert_eq!(answer(&kind, chosen("super").as_bytes()).0, Some(Ok(())));
    assert_eq!(answer(&kind, chosen("other").as_bytes()).0, Some(Err(Failure::Bad101)));
}

#[test]
fn ping_passes_with_its_pong_and_nothing_else() {
    let after = |frames: &[&[u8]]| [SWITCHING.as_bytes(), &frames.concat()].concat();
    let hello: &[u8] = b"\x81\x05hello";
    let rows: Vec<(Vec<u8>, Option<Outcome>, Vec<Frame>)> = vec![
        (after(&[PONG]), Some(Ok(())), vec![ping(), close()]),
        (after(&[hello, b"\x8a\0", b"\x8a\x0812345679", PONG, hello]), Some(Ok(())), vec![ping(), close()]),
        // The server's own ping is answered.
        (after(&[b"\x89\x02hi", PONG]), Some(Ok(())), vec![ping(), (0x8a, b"hi".to_vec()), close()]),
        // A fragmented message, with the pong between its frames.
        (after(&[b"\x01\x02he", PONG]), Some(Ok(())), vec![ping(), close()]),
        (after(&[b"\x8a\x0712345678"]), None, vec![ping()]),
        (after(&[hello]), None, vec![ping()]),
        (after(&[]), None, vec![ping()]),
        (after(&[b"\x88\x02\x03\xe9", PONG]), Some(Err(Failure::Closed)), vec![ping(), (0x88, vec![3, 0xe9])]),
        (after(&[b"\x88\0"]), Some(Err(Failure::Closed)), vec![ping(), (0x88, vec![])]),
        (after(&[b"\x8a\x88abcd"]), Some(Err(Failure::BadFrame)), vec![ping()]),
        (after(&[b"\xca\x0812345678"]), Some(Err(Failure::BadFrame)), vec![ping()]),
        (after(&[b"\x0a\x0812345678"]), Some(Err(Failure::BadFrame)), vec![ping()]),
        (after(&[b"\x83\0"]), Some(Err(Failure::BadFrame)), vec![ping()]),
        (after(&[b"\x8b\0"]), Some(Err(Failure::BadFrame)), vec![ping()]),
        (after(&[b"\x81\x7e\0\x05hello"]), Some(Err(Failure::BadFrame)), vec![ping()]),
        (after(&[b"\x82\x7f\0\0\0\0\0\x01\0\0"]), Some(Err(Failure::TooLarge(Step::Pong))), vec![ping()]),
        (after(&[b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"]), Some(Err(Failure::TooLarge(Step::Pong))), vec![ping()]),
    ];
    for (bytes, want, sent) in rows {
        let (outcome, out) = answer(&websocket(true), &bytes);
        let shown = String::from_utf8_lossy(&bytes[SWITCHING.len()..]);
        assert_eq!((outcome, unmasked(&out)), (want, sent), "{shown:?}");
    }
}

#[test]
fn what_is_read_before_the_result_is_bounded() {
    let (mut probe, _) = start(&http(200..=200));
    let mut out = Vec::new();
    let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'x'; HEAD_MAX - 20]].concat();
    assert_eq!(probe.on_bytes(&endless, &mut out), None);
    assert_eq!(probe.on_bytes(b"x", &mut out), Some(Err(Failure::TooLarge(Step::Response))));
    assert_eq!(probe.on_bytes(b"x", &mut out), None);
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_MAX / 25 + 1);
    assert_eq!(answer_cut(&http(200..=200), &[&interim]).0, Some(Err(Failure::TooLarge(Step::Response))));
    let message = [b"\x82\x7e\x03\xfc".to_vec(), vec![0; 1020]].concat();
    let (mut probe, _) = start(&websocket(true));
    assert_eq!(probe.on_bytes(SWITCHING.as_bytes(), &mut out), None);
    for _ in 0..FRAMES_MAX / message.len() {
        assert_eq!(probe.on_bytes(&message, &mut out), None);
    }
    assert_eq!(probe.on_bytes(PONG, &mut out), Some(Err(Failure::TooLarge(Step::Pong))));
}

#[test]
fn step_says_what_is_waited_for() {
    let (mut probe, _) = start(&websocket(true));
    assert_eq!(probe.step(), Step::Response);
    assert_eq!(probe.on_bytes(SWITCHING.as_bytes(), &mut Vec::new()), None);
    assert_eq!(probe.step(), Step::Pong);
}
