//! Plain HTTP: what leaves on both sides, torn at every byte.

use super::super::super::handshake::{self, Forwarding, ForwardingHeaders};
use super::super::super::http1::FieldEdits;
use super::super::super::plain;
use super::*;

/// A shell for plain requests on one client connection.
struct Shell {
    session: Session,
    settings: Arc<Settings>,
    now: Millis,
    sent: Sides<Vec<u8>>,
    /// What became of connections and requests, in order.
    log: Vec<&'static str>,
    ends: Vec<End>,
    status: Vec<u16>,
    /// The upstream connections that are made next have carried requests before.
    reused: bool,
    may_retry: bool,
    until: Option<Millis>,
    /// Responses leave with an event.
    slow: bool,
    /// Of each session that has ended.
    bytes: Vec<Sides<u64>>,
    is_over: bool,
}

impl Shell {
    fn new() -> Shell {
        Shell::with(Settings::default())
    }

    fn with(settings: Settings) -> Shell {
        let settings = Arc::new(settings);
        Shell {
            session: Session::new(Arc::clone(&settings), 0),
            settings,
            now: 0,
            sent: Sides::default(),
            log: Vec::new(),
            ends: Vec::new(),
            status: Vec::new(),
            reused: false,
            may_retry: false,
            until: None,
            slow: false,
            bytes: Vec::new(),
            is_over: false,
        }
    }

    /// `false`: not all of it is wanted now.
    fn bytes(&mut self, from: Side, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        while !bytes.is_empty() {
            let max = match self.session.wants(from) {
                ReadInterest::Nothing | ReadInterest::Shared | ReadInterest::Payload(_) => break,
                ReadInterest::Discard => {
                    self.session.on_discarded(from, bytes.len(), self.now);
                    self.settle();
                    return all;
                }
                ReadInterest::Bytes(max) => max,
            };
            let mut rest = &bytes[..max.min(bytes.len())];
            bytes = &bytes[rest.len()..];
            while !rest.is_empty() {
                let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
                let input = RelayInput { now: self.now, counts: &mut counts, authored: &mut authored };
                let relayed = self.session.on_bytes(from, rest, input);
                assert!(relayed.consumed > 0 && relayed.forward <= relayed.consumed);
                self.sent[from.other()].extend(authored);
                self.sent[from.other()].extend_from_slice(&rest[..relayed.forward]);
                rest = &rest[relayed.consumed..];
                self.settle();
            }
        }
        all - bytes.len()
    }

    fn settle(&mut self) {
        while let Some(action) = self.session.poll_action(self.now) {
            match action {
                Action::Decide => {
                    let request = self.session.request().unwrap();
                    let event = match plain::judge_request(&request) {
                        Ok(inbound) => Event::Admitted(Admission {
                            request_id: "id".into(),
                            settings: Arc::clone(&self.settings),
                            shadowed: false,
                            limits: SessionLimits::default(),
                            plain: Some(inbound),
                        }),
                        Err(cause) => Event::Refused(cause.into()),
                    };
                    self.session.on_event(event, self.now);
                }
                Action::Connect | Action::Retry | Action::Renew => {
                    self.log.push(match action {
                        Action::Connect => "connect",
                        Action::Retry => "retry",
                        _ => "renew",
                    });
                    let upgrade = self.upgrade();
                    self.session.on_event(Event::Connected(Box::new(upgrade)), self.now);
                    self.reused = false;
                }
                Action::Refuse { refusal, .. } | Action::Reply { refusal, .. } => {
                    self.sent[Side::Downstream].extend_from_slice(format!("<{}>", refusal.status()).as_bytes());
                }
                Action::Send(to, bytes) => self.sent[to].extend(bytes),
                Action::Streaming => {}
                Action::Release => self.log.push("release"),
                Action::Hangup(Side::Upstream) => self.log.push("hangup"),
                Action::Abort(Side::Upstream) => self.log.push("abort upstream"),
                Action::Abort(Side::Downstream) => self.log.push("abort client"),
                Action::HalfClose(to) => {
                    self.log.push("fin");
                    self.session.on_event(Event::Finished(to), self.now);
                }
                Action::Next { end, early } => {
                    self.log.push("next");
                    self.ends.push(end);
                    self.bytes.push(self.session.totals().bytes);
                    self.status.push(self.session.status());
                    self.session = Session::next(Arc::clone(&self.settings), early, self.now);
                    if !self.slow {
                        self.session.on_event(Event::Flushed(Side::Downstream), self.now);
                    }
                }
                Action::Close(end) => {
                    self.ends.push(end);
                    self.bytes.push(self.session.totals().bytes);
                    self.is_over = true;
                }
                Action::Established { .. } | Action::SendFrame(..) | Action::Hangup(_) | Action::Refresh(_) => {
                    panic!("{action:?}")
                }
            }
        }
    }

    fn upgrade(&self) -> Upgrade {
        let request = self.session.request().unwrap();
        let inbound = plain::judge_request(&request).unwrap();
        let add = Forwarding {
            path: request.path,
            query: None,
            host: None,
            peer: [192, 0, 2, 1].into(),
            client: [192, 0, 2, 1].into(),
            trusted: false,
            secure: false,
            headers: ForwardingHeaders::XForwarded,
            cert: None,
            request_id: "id",
            trace_seed: [7; 24],
            edits: &FieldEdits::new(),
            plain: Some(&inbound),
        };
        let written = handshake::write_request(&request, &add);
        // The fields about the client are tested elsewhere.
        let head = String::from_utf8(written).unwrap();
        let told =
            |line: &&str| !["X-Forwarded", "X-Real", "X-Request", "traceparent"].iter().any(|p| line.starts_with(p));
        let request = head.split_inclusive("\r\n").filter(told).collect::<String>().into_bytes();
        Upgrade {
            request,
            response: FieldEdits::new(),
            may_retry: self.may_retry,
            reused: self.reused,
            until: self.until,
            by: Party::Upstream,
        }
    }

    fn event(&mut self, event: Event) {
        self.session.on_event(event, self.now);
        self.settle();
    }

    fn wait(&mut self) -> Timer {
        let (at, timer) = self.session.deadline().expect("a deadline");
        self.now = at;
        self.event(Event::Timer(timer));
        timer
    }

    fn text(&self, to: Side) -> String {
        String::from_utf8_lossy(&self.sent[to]).replace("X-Request-Id: id\r\n", "")
    }
}

/// What the peers have got after the client has sent `request` and the upstream `response`, however
/// these are cut.
fn exchanged(request: &str, response: &str) -> (String, String, Vec<&'static str>) {
    let run = |request: &[&[u8]], response: &[&[u8]]| {
        let mut shell = Shell::new();
        for part in request {
            shell.bytes(Side::Downstream, part);
        }
        for part in response {
            shell.bytes(Side::Upstream, part);
        }
        (shell.text(Side::Upstream), shell.text(Side::Downstream), shell.log)
    };
    let whole = run(&[request.as_bytes()], &[response.as_bytes()]);
    for cut in 1..request.len() {
        let (first, second) = request.as_bytes().split_at(cut);
        assert_eq!(run(&[first, second], &[response.as_bytes()]), whole, "request cut at {cut}");
    }
    for cut in 1..response.len() {
        let (first, second) = response.as_bytes().split_at(cut);
        assert_eq!(run(&[request.as_bytes()], &[first, second]), whole, "response cut at {cut}");
    }
    let (request, response) = (request.as_bytes(), response.as_bytes());
    let bytes = run(&request.chunks(1).collect::<Vec<_>>(), &response.chunks(1).collect::<Vec<_>>());
    assert_eq!(bytes, whole, "byte by byte");
    whole
}

const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
    HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const KEPT: [&str; 3] = ["connect", "release", "next"];

#[test]
fn requests_and_responses_pass_and_their_connections_stay() {
    let rows = [
        (
            "GET /a?b HTTP/1.1\r\nHost: h\r\nKeep-Alive: 1\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 05\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nTrailer: B\r\n\r\n2\r\nok\r\n0\r\nB: c\r\n\r\n",
            "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nB: c\r\n\r\n",
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\na",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\na",
            INTERIM,
            INTERIM,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: h\r\nTE: trailers, gzip\r\nConnection: TE, x-b\r\nX-B: c\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-b\r\nX-B: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET http://h/a HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        ),
    ];
    for (request, upstream, response, client) in rows {
        let got = exchanged(request, response);
        assert_eq!((got.0.as_str(), got.1.as_str()), (upstream, client), "{request}");
        assert_eq!(got.2, KEPT, "{request}");
    }
}

#[test]
fn connections_end_where_they_must() {
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let rows: [(&str, &str, &str, &[&str]); 8] = [
        (
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            &["connect", "release", "fin", "hangup"],
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            &["connect", "hangup", "next"],
        ),
        (
            get,
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            &["connect", "hangup", "next"],
        ),
        // It may have been said of the idle connection, before the request came.
        (
            get,
            "HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nno",
            &["connect", "hangup", "next"],
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            &["connect", "release", "fin", "hangup"],
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
            &["connect", "release", "fin", "hangup"],
        ),
        // Before the end of the request.
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\na",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
            &CLOSED_TWICE,
        ),
        (
            get,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "<502>",
            &["connect", "fin", "hangup"],
        ),
    ];
    for (request, response, client, log) in rows {
        let got = exchanged(request, response);
        assert_eq!((got.1.as_str(), got.2.as_slice()), (client, log), "{request} {response}");
    }
}

const CLOSED_TWICE: [&str; 4] = ["connect", "hangup", "fin", "hangup"];

#[test]
fn what_an_upstream_says_beyond_its_response_reaches_nobody() {
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for extra in ["x", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"] {
        for response in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 204 X\r\n\r\n"] {
            let mut shell = Shell::new();
            shell.bytes(Side::Downstream, get.as_bytes());
            shell.bytes(Side::Upstream, format!("{response}{extra}").as_bytes());
            assert!(!shell.text(Side::Downstream).contains(extra), "{response}");
            assert_eq!(shell.log, ["connect", "hangup", "next"], "{response}: the connection is not used again");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_one_after_the_other() {
    let (first, second) =
        ("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n", "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n2");
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, format!("{first}{second}{first}").as_bytes());
    assert_eq!(shell.text(Side::Upstream), first);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
    shell.bytes(Side::Upstream, format!("{answer}a").as_bytes());
    assert_eq!(shell.text(Side::Upstream), format!("{first}{second}"));
    shell.bytes(Side::Upstream, format!("{answer}b").as_bytes());
    shell.bytes(Side::Upstream, format!("{answer}c").as_bytes());
    assert_eq!(shell.text(Side::Upstream), format!("{first}{second}{first}"));
    assert_eq!(shell.text(Side::Downstream), format!("{answer}a{answer}b{answer}c"));
    assert_eq!(shell.log, [KEPT, KEPT, KEPT].concat());
    assert!(shell.ends.iter().all(|end| end.cause == Cause::Answered) && shell.status == [200; 3]);
}

#[test]
fn a_body_is_no_request() {
    let body = "GET /admin HTTP/1.1\r\nHost: h\r\n\r\n";
    let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, request.as_bytes());
    shell.bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((shell.text(Side::Upstream), shell.log), (request, KEPT.to_vec()));
}

#[test]
fn ambiguous_requests_are_refused_before_a_byte_leaves() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: ,chunked\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let got = exchanged(&request, "");
        assert_eq!((got.0.as_str(), got.1.as_str()), ("", "<400>"), "{fields}");
        assert_eq!(got.2, ["fin", "hangup"], "{fields}");
    }
    for (head, status) in [
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "<400>"),
        ("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "<400>"),
        ("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "<501>"),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", "<400>"),
        ("POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n", "<417>"),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: host\r\n\r\n", "<400>"),
        ("GET / HTTP/1.1\r\n\r\n", "<400>"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", "<400>"),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n", "<400>"),
        ("GET / HTTP/1.1\nHost: h\n\n", "<400>"),
    ] {
        let got = exchanged(head, "");
        assert_eq!((got.0.as_str(), got.1.as_str()), ("", status), "{head}");
    }
}

#[test]
fn a_broken_body_ends_the_exchange() {
    // A response has not begun: it is refused.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    shell.bytes(Side::Downstream, b"x\r\n");
    assert_eq!((shell.text(Side::Downstream).as_str(), shell.log), ("<400>", vec!["connect", "fin", "hangup"]));
    // One has: the client must not take what it has for all of it.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    shell.bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    shell.bytes(Side::Upstream, b"x\r\n");
    assert_eq!(shell.log, ["connect", "abort upstream", "abort client"]);
    assert_eq!(shell.ends[0].cause, Cause::BadResponse);
}

#[test]
fn a_response_that_is_cut_is_not_taken_for_complete() {
    for (head, end, whole) in [
        ("Content-Length: 5\r\n", TransportEnd::Eof, false),
        ("Transfer-Encoding: chunked\r\n", TransportEnd::Eof, false),
        ("", TransportEnd::Reset, false),
        ("", TransportEnd::Cut, false),
        ("", TransportEnd::Eof, true),
    ] {
        let mut shell = Shell::new();
        shell.bytes(Side::Downstream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        shell.bytes(Side::Upstream, format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes());
        shell.bytes(Side::Upstream, b"1\r\na");
        shell.event(Event::Ended(Side::Upstream, end));
        let log: &[&str] = if whole { &CLOSED_TWICE } else { &["connect", "abort upstream", "abort client"] };
        assert_eq!(shell.log, log, "{head} {end:?}");
    }
}

#[test]
fn a_connection_that_was_kept_may_have_ended() {
    let ended = |request: &str, reused: bool, answer: &str| {
        let mut shell = Shell::new();
        shell.reused = reused;
        shell.bytes(Side::Downstream, request.as_bytes());
        shell.bytes(Side::Upstream, answer.as_bytes());
        shell.event(Event::Ended(Side::Upstream, TransportEnd::Reset));
        (shell.log.clone(), shell.text(Side::Downstream))
    };
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na";
    let put = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na";
    assert_eq!(ended(get, true, ""), (vec!["connect", "renew"], String::new()));
    let empty = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let failed = (vec!["connect", "fin", "hangup"], "<502>".to_owned());
    // It was new, there was a byte of a response, a second request could act twice, the body is
    // gone, or its last chunk.
    assert_eq!(ended(get, false, ""), failed);
    assert_eq!(ended(get, true, "H"), failed);
    assert_eq!(ended(post, true, ""), failed);
    assert_eq!(ended(put, true, ""), failed);
    assert_eq!(ended(empty, true, ""), failed);
}

#[test]
fn what_a_client_has_sent_ahead_outlives_a_second_attempt() {
    let mut shell = Shell::new();
    shell.reused = true;
    let [first, second] = ["/a", "/b"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    shell.bytes(Side::Downstream, format!("{first}{second}").as_bytes());
    shell.event(Event::Ended(Side::Upstream, TransportEnd::Eof));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    shell.bytes(Side::Upstream, answer.as_bytes());
    assert_eq!(shell.text(Side::Upstream), format!("{first}{first}{second}"));
    // A process that stops while the request is sent again closes behind its response.
    shell.reused = true;
    shell.bytes(Side::Upstream, answer.as_bytes());
    shell.bytes(Side::Downstream, first.as_bytes());
    shell.event(Event::Drain);
    shell.event(Event::Ended(Side::Upstream, TransportEnd::Eof));
    shell.bytes(Side::Upstream, answer.as_bytes());
    let closing = answer.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(shell.text(Side::Downstream), format!("{answer}{answer}{closing}"));
}

#[test]
fn bodies_have_a_limit() {
    let settings = Settings { max_body: 4, ..Settings::default() };
    let mut shell = Shell::with(settings.clone());
    shell.bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((shell.text(Side::Downstream).as_str(), shell.log), ("<413>", vec!["fin", "hangup"]));
    let mut shell = Shell::with(settings);
    shell.bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n");
    assert_eq!(shell.log, ["connect"]);
    shell.bytes(Side::Downstream, b"1\r\ne\r\n");
    assert_eq!(shell.text(Side::Downstream), "<413>");
    assert!(!shell.text(Side::Upstream).contains('e') || shell.text(Side::Upstream).ends_with("abcd\r\n"));
}

#[test]
fn every_wait_has_an_end() {
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    assert_eq!((shell.wait(), shell.text(Side::Downstream).as_str()), (Timer::RequestBody, "<408>"));
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((shell.wait(), shell.text(Side::Downstream).as_str()), (Timer::ResponseHead, "<504>"));
    // An event stream lives as long as it says something.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    shell.bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..5 {
        shell.now = shell.session.deadline().unwrap().0 - 1;
        shell.bytes(Side::Upstream, b"1\r\na\r\n");
    }
    assert_eq!(shell.wait(), Timer::Idle);
    assert_eq!(shell.log, ["connect", "abort upstream", "abort client"]);
    // A client that makes no further request is closed without a word.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    shell.bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let sent = shell.sent;
    (shell.sent, shell.log) = Default::default();
    let at = shell.session.deadline().unwrap().0 - shell.now;
    assert_eq!((shell.wait(), at), (Timer::RequestHead, shell.settings.timeouts.keep_alive_ms));
    assert!(shell.is_over && shell.sent == Sides::default() && sent != Sides::default());
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    // One that has half-closed does not take a part of a response for all of it.
    let [head, all] = ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "HTTP/1.1 200 OK\r\n\r\nhe"];
    let aborts = vec!["connect", "abort client", "abort upstream"];
    for (half, log) in [("", vec!["connect", "abort upstream"]), (head, aborts.clone()), (all, aborts)] {
        let mut shell = Shell::new();
        shell.bytes(Side::Downstream, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        shell.bytes(Side::Upstream, half.as_bytes());
        assert!(shell.session.client_waits());
        shell.event(Event::Ended(Side::Downstream, TransportEnd::Eof));
        assert_eq!((shell.log, shell.is_over), (log, true));
    }
}

mod hostile;
mod streams;
