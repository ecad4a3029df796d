//! Peers that do at the wrong moment what they may do; times, drains and credentials.

use super::*;
use crate::proto::settings::RetryOn;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn what_comes_behind_a_head_that_is_retried_is_not_for_the_next_upstream() {
    let mut shell = Shell::with(Settings {
        retry_on: RetryOn { statuses: vec![503], ..RetryOn::default() },
        ..Settings::default()
    });
    shell.may_retry = true;
    shell.bytes(Side::Downstream, GET);
    shell.may_retry = false;
    let body = String::from_utf8_lossy(OK);
    shell.bytes(Side::Upstream, format!("HTTP/1.1 503 X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    assert_eq!((shell.text(Side::Downstream).as_str(), &shell.log), ("", &vec!["connect", "retry"]));
    shell.bytes(Side::Upstream, b"HTTP/1.1 204 X\r\n\r\n");
    assert_eq!(shell.text(Side::Downstream), "HTTP/1.1 204 X\r\n\r\n");
    assert_eq!(shell.log, ["connect", "retry", "release", "next"]);
}

#[test]
fn an_interim_response_is_one_that_has_begun() {
    for may_retry in [false, true] {
        let mut shell =
            Shell::with(Settings { retry_on: RetryOn { closed: true, ..RetryOn::default() }, ..Settings::default() });
        (shell.reused, shell.may_retry) = (true, may_retry);
        shell.bytes(Side::Downstream, GET);
        shell.bytes(Side::Upstream, b"HTTP/1.1 103 Early Hints\r\n\r\n");
        shell.event(Event::Ended(Side::Upstream, TransportEnd::Reset));
        assert_eq!(shell.log, ["connect", "fin", "hangup"]);
    }
}

#[test]
fn a_head_has_its_whole_time_after_a_pause() {
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, GET);
    shell.bytes(Side::Upstream, OK);
    shell.now += shell.settings.timeouts.keep_alive_ms - 1;
    let (first, rest) = GET.split_at(5);
    shell.bytes(Side::Downstream, first);
    assert_eq!(shell.session.deadline().unwrap().0, shell.now + shell.settings.timeouts.request_head_ms);
    // Bytes that trickle do not extend it.
    shell.now += shell.settings.timeouts.request_head_ms - 1;
    shell.bytes(Side::Downstream, &rest[..1]);
    assert_eq!(shell.session.deadline().unwrap().0, shell.now + 1);
    assert_eq!(shell.wait(), Timer::RequestHead);
    assert!(shell.text(Side::Downstream).ends_with("<408>"));
}

#[test]
fn the_next_request_waits_until_the_response_before_it_has_left() {
    let mut shell = Shell::new();
    shell.slow = true;
    shell.bytes(Side::Downstream, &[GET, GET].concat());
    shell.bytes(Side::Upstream, OK);
    assert_eq!(shell.log, KEPT);
    assert_eq!(shell.session.wants(Side::Downstream), ReadInterest::Nothing);
    // Its upstream is not asked before the client reads.
    assert_eq!((shell.text(Side::Upstream).len(), shell.session.deadline().unwrap().0), (GET.len(), Millis::MAX));
    shell.event(Event::Flushed(Side::Upstream));
    assert_eq!(shell.log, KEPT);
    shell.now += 3_600_000;
    shell.event(Event::Flushed(Side::Downstream));
    assert_eq!(shell.text(Side::Upstream).len(), 2 * GET.len());
    shell.bytes(Side::Upstream, OK);
    assert_eq!(shell.log, [KEPT, KEPT].concat());
    // The pause begins when the response has left.
    shell.now += 3_600_000;
    shell.event(Event::Flushed(Side::Downstream));
    assert_eq!(shell.session.deadline().unwrap().0, shell.now + shell.settings.timeouts.keep_alive_ms);
}

#[test]
fn a_response_on_its_way_outlives_a_drain_but_not_a_stop() {
    for (event, log) in [(Event::Drain, ["fin", "hangup"].as_slice()), (Event::Stop, &["abort client"])] {
        let mut shell = Shell::new();
        shell.slow = true;
        shell.bytes(Side::Downstream, GET);
        shell.bytes(Side::Upstream, OK);
        shell.log.clear();
        shell.event(event);
        assert_eq!(shell.log, log);
    }
    // A part of a response must not look like all of it.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, GET);
    shell.bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\n\r\nhalf");
    shell.event(Event::Stop);
    assert_eq!(shell.log, ["connect", "abort client"]);
    assert!(shell.is_over);
}

#[test]
fn a_drain_ends_the_connection_with_its_response() {
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, GET);
    shell.event(Event::Drain);
    shell.bytes(Side::Upstream, OK);
    assert!(shell.text(Side::Downstream).contains("\r\nConnection: close\r\n"));
    assert_eq!(shell.log, ["connect", "release", "fin", "hangup"]);
    // Without a request it ends at once.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, GET);
    shell.bytes(Side::Upstream, OK);
    shell.event(Event::Drain);
    assert!(shell.is_over && shell.log == KEPT);
}

#[test]
fn the_bytes_of_a_response_head_do_not_extend_its_time() {
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, GET);
    let at = shell.session.deadline().unwrap().0;
    for byte in b"HTTP/1.1 1" {
        shell.now += 500;
        shell.bytes(Side::Upstream, &[*byte]);
    }
    assert_eq!(shell.session.deadline(), Some((at, Timer::ResponseHead)));
    // A whole one does: the upstream says that it goes on.
    shell.bytes(Side::Upstream, b"02 Processing\r\n\r\n");
    assert_eq!(shell.session.deadline(), Some((at + 5_000, Timer::ResponseHead)));
}

#[test]
fn a_receiver_that_takes_its_backlog_is_not_idle() {
    for (request, response) in [
        (GET, &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"[..]),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe", b""),
    ] {
        let mut shell = Shell::new();
        shell.bytes(Side::Downstream, request);
        shell.bytes(Side::Upstream, response);
        let (at, timer) = shell.session.deadline().unwrap();
        shell.session.on_taken(Side::Downstream, 7_000);
        assert_eq!(shell.session.deadline(), Some((at + 7_000, timer)));
    }
    let mut shell =
        Shell::with(Settings { timeouts: Timeouts { idle_ms: 0, ..Timeouts::default() }, ..Settings::default() });
    shell.now = Millis::MAX / 2;
    shell.bytes(Side::Downstream, GET);
    shell.bytes(Side::Upstream, &OK[..OK.len() - 1]);
    assert_eq!(shell.session.deadline(), Some((Millis::MAX, Timer::Idle)));
}

#[test]
fn a_response_ends_with_the_credentials_for_it() {
    let half = &OK[..OK.len() - 1];
    for (response, client, log) in [
        (&b""[..], "<401>", ["connect", "fin", "hangup"]),
        (half, std::str::from_utf8(half).unwrap(), ["connect", "abort upstream", "abort client"]),
    ] {
        let mut shell = Shell::new();
        shell.until = Some(5_000);
        shell.bytes(Side::Downstream, GET);
        shell.bytes(Side::Upstream, response);
        assert_eq!((shell.wait(), shell.now), (Timer::Credentials, 5_000));
        assert_eq!((shell.text(Side::Downstream).as_str(), shell.log), (client, log.to_vec()));
        let mut shell = Shell::new();
        shell.bytes(Side::Downstream, GET);
        shell.bytes(Side::Upstream, response);
        shell.event(Event::CredentialsEnded(Cause::Revoked));
        assert_eq!((shell.text(Side::Downstream).as_str(), shell.log), (client, log.to_vec()));
    }
    // Those of the request before do not count for the next one.
    let mut shell = Shell::new();
    shell.until = Some(5_000);
    shell.bytes(Side::Downstream, GET);
    shell.bytes(Side::Upstream, OK);
    shell.event(Event::CredentialsEnded(Cause::Revoked));
    assert_eq!(shell.log, KEPT);
}

#[test]
fn no_more_is_read_behind_a_body_than_a_head_may_have() {
    let mut shell = Shell::new();
    let max = shell.settings.head_bytes;
    shell.bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(shell.session.wants(Side::Downstream), ReadInterest::Bytes(max));
    shell.bytes(Side::Downstream, b"10000\r\n");
    assert_eq!(shell.session.wants(Side::Downstream), ReadInterest::Bytes(max + 0x10000));
}

#[test]
fn totals_are_those_of_the_bodies() {
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    shell.bytes(Side::Downstream, b"1\r\nd\r\n0\r\n\r\n");
    shell.bytes(Side::Upstream, OK);
    assert_eq!(shell.bytes, [Sides::new(4, 2)]);
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, b"GET / HTTP/1.0\r\n\r\n");
    shell.bytes(Side::Upstream, OK);
    shell.event(Event::Ended(Side::Downstream, TransportEnd::Eof));
    assert_eq!((shell.bytes, shell.is_over), (vec![Sides::new(0, 2)], true));
    // Cut, by the upstream.
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, GET);
    shell.bytes(Side::Upstream, &OK[..OK.len() - 1]);
    shell.event(Event::Ended(Side::Upstream, TransportEnd::Eof));
    assert_eq!(shell.bytes, [Sides::new(0, 1)]);
}
