//! How sessions end (docs/src/behaviour.md), over real sockets, with frames written out by hand.
//! Each test ends by stopping the proxy and reading its whole access log: one line at the start of
//! the session, one at its end, with the cause.

#[path = "close/ends.rs"]
mod ends;
#[path = "close/timeouts.rs"]
mod timeouts;

mod common;

use common::*;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

/// One open session through a proxy of its own.
struct Session {
    proxy: Proxy,
    client: TcpStream,
    upstream: TcpStream,
    _listener: TcpListener,
}

impl Session {
    /// `more` are keys of the route.
    fn open(more: &str) -> Session {
        let (listener, addr) = listen();
        let proxy = Proxy::before(addr, more);
        let (client, upstream) = open(&proxy, &listener);
        Session { proxy, client, upstream, _listener: listener }
    }

    /// Waits until the one worker has handled all earlier events: it answers another client.
    fn wait_for_worker(&self) {
        let answer = http(self.proxy.addr, "POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    /// Checks how the only session ended.
    #[track_caller]
    fn ends(self, expected: &str) {
        let Session { mut proxy, client, upstream, _listener } = self;
        proxy.log.wait("its end", |line| (line.contains(" end ") && line.contains("status=101")).then_some(()));
        drop((client, upstream));
        let log = proxy.stop();
        let count = |event: &str| log.iter().filter(|line| line.split(' ').nth(1) == Some(event)).count();
        assert_eq!(count("open"), 1, "{log:#?}");
        let ends: Vec<_> = log.iter().filter(|line| line.contains(" end ") && line.contains("status=101")).collect();
        assert_eq!(ends.len(), 1, "{log:#?}");
        assert_eq!(verdict(ends[0]), expected, "{log:#?}");
    }
}

/// Checks the bytes up to the end of the stream, and how it ended.
#[track_caller]
fn assert_rest(stream: &TcpStream, expected: &[u8], end: End) {
    let (bytes, how) = read_all(stream);
    assert_eq!((bytes.as_slice(), how), (expected, end));
}

fn fin(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

fn close_frames() -> Vec<(Vec<u8>, u16)> {
    vec![
        (vec![], 1005),
        (close_payload(1000, ""), 1000),
        (close_payload(4000, "done, and thanks"), 4000),
        (close_payload(1011, &"x".repeat(123)), 1011),
    ]
}

#[test]
fn client_close_is_forwarded_and_the_client_gets_fin_first() {
    for (payload, code) in close_frames() {
        let mut s = Session::open("");
        let close = masked(0x88, &payload);
        s.client.write_all(&close).unwrap();
        assert_eq!(read_exact(&s.upstream, close.len()), close);
        let answer = plain(0x88, &payload);
        s.upstream.write_all(&answer).unwrap();
        assert_rest(&s.client, &answer, End::Fin);
        // The server closes the connection first: toward the upstream the proxy is the client.
        s.wait_for_worker();
        assert_quiet(&s.upstream);
        fin(&s.upstream);
        assert_rest(&s.upstream, b"", End::Fin);
        fin(&s.client);
        s.ends(&format!("ended_by=downstream phase=open cause=close status=101 code_up={code} code_down={code}"));
    }
}

#[test]
fn upstream_close_is_forwarded_and_the_client_gets_fin_first() {
    for (payload, code) in close_frames() {
        let mut s = Session::open("");
        let close = plain(0x88, &payload);
        s.upstream.write_all(&close).unwrap();
        assert_eq!(read_exact(&s.client, close.len()), close);
        s.wait_for_worker();
        assert_quiet(&s.client);
        let answer = masked(0x88, &close_payload(3001, ""));
        s.client.write_all(&answer).unwrap();
        assert_rest(&s.client, b"", End::Fin);
        assert_eq!(read_exact(&s.upstream, answer.len()), answer);
        s.wait_for_worker();
        assert_quiet(&s.upstream);
        // A client that has left changes nothing for the upstream.
        fin(&s.client);
        s.wait_for_worker();
        assert_quiet(&s.upstream);
        fin(&s.upstream);
        assert_rest(&s.upstream, b"", End::Fin);
        s.ends(&format!("ended_by=upstream phase=open cause=close status=101 code_up=3001 code_down={code}"));
    }
}

#[test]
fn close_cut_at_every_byte_is_forwarded_whole() {
    let close = masked(0x88, &close_payload(4999, "torn"));
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "");
    for cut in 1..close.len() {
        let (mut client, mut upstream) = open(&proxy, &listener);
        client.write_all(&close[..cut]).unwrap();
        client.write_all(&close[cut..]).unwrap();
        assert_eq!(read_exact(&upstream, close.len()), close, "cut at {cut}");
        upstream.write_all(&plain(0x88, b"")).unwrap();
        fin(&upstream);
        assert_rest(&client, &plain(0x88, b""), End::Fin);
        fin(&client);
        assert_rest(&upstream, b"", End::Fin);
    }
    let log = proxy.stop();
    let ends: Vec<_> = log.iter().filter(|line| line.contains(" end ")).map(|line| verdict(line)).collect();
    assert_eq!(
        ends,
        vec!["ended_by=downstream phase=open cause=close status=101 code_up=4999 code_down=1005"; close.len() - 1]
    );
}

#[test]
fn data_after_close_is_discarded_and_the_peer_close_arrives() {
    let mut s = Session::open("");
    let close = masked(0x88, &close_payload(1000, ""));
    s.client.write_all(&[&close[..], &masked(0x82, b"too late")].concat()).unwrap();
    assert_eq!(read_exact(&s.upstream, close.len()), close);
    s.wait_for_worker();
    assert_quiet(&s.upstream);
    // Data of the other side is still forwarded, up to its own Close.
    let last = [plain(0x81, b"last words"), plain(0x88, &close_payload(1000, "ok"))].concat();
    s.upstream.write_all(&last).unwrap();
    assert_rest(&s.client, &last, End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1000 code_down=1000");
}

#[test]
fn data_after_close_gets_1002_if_no_close_comes_back() {
    let mut s = Session::open("");
    let close = masked(0x88, &close_payload(1000, ""));
    let begun = Instant::now();
    s.client.write_all(&[&close[..], &masked(0x82, b"too late")].concat()).unwrap();
    assert_eq!(read_close(&s.client), (1002, "data after close".to_owned()));
    assert_due(begun, 500);
    assert_rest(&s.client, b"", End::Fin);
    // The Close comes too late and is consumed.
    s.upstream.write_all(&plain(0x88, b"")).unwrap();
    fin(&s.upstream);
    assert_rest(&s.upstream, &close, End::Fin);
    fin(&s.client);
    s.ends("ended_by=downstream phase=open cause=data-after-close status=101 code_up=1000 code_down=1002");
}

#[test]
fn proxy_close_waits_for_the_frame_boundary() {
    let mut s = Session::open("timeouts = { idle = \"300ms\" }");
    let frame = masked(0x82, &[5; 100]);
    s.client.write_all(&frame[..20]).unwrap();
    // The other direction is at a frame boundary: its Close leaves at once.
    assert_eq!(read_close(&s.client), (1001, "idle timeout".to_owned()));
    assert_eq!(read_exact(&s.upstream, 20), frame[..20]);
    s.wait_for_worker();
    assert_quiet(&s.upstream);
    s.client.write_all(&frame[20..60]).unwrap();
    assert_eq!(read_exact(&s.upstream, 40), frame[20..60]);
    s.client.write_all(&[&frame[60..], &masked(0x81, b"not this one")].concat()).unwrap();
    assert_eq!(read_exact(&s.upstream, frame.len() - 60), frame[60..]);
    assert_eq!(read_close(&s.upstream), (1001, "idle timeout".to_owned()));
    assert_rest(&s.upstream, b"", End::Fin);
    fin(&s.upstream);
    fin(&s.client);
    assert_rest(&s.client, b"", End::Fin);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_up=1001 code_down=1001");
}

#[test]
fn violation_closes_both_sides_and_stops_forwarding() {
    let mut s = Session::open("");
    let good = masked(0x81, b"good");
    s.client.write_all(&[&good[..], &plain(0x81, b"not masked")].concat()).unwrap();
    assert_eq!(read_exact(&s.upstream, good.len()), good);
    assert_eq!(read_close(&s.upstream), (1001, "mask bit".to_owned()));
    assert_eq!(read_close(&s.client), (1002, "mask bit".to_owned()));
    s.client.write_all(&[masked(0x81, b"more"), masked(0x88, &close_payload(1002, ""))].concat()).unwrap();
    s.upstream.write_all(&[plain(0x81, b"more"), plain(0x88, &close_payload(1001, ""))].concat()).unwrap();
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    s.ends("ended_by=downstream phase=open cause=mask-bit status=101 code_up=1001 code_down=1002");
}

#[test]
fn upstream_violation_inside_a_client_message_waits_for_its_end() {
    let mut s = Session::open("limits = { max_frame = \"1KiB\" }");
    let frame = masked(0x82, &[5; 500]);
    s.client.write_all(&frame[..100]).unwrap();
    assert_eq!(read_exact(&s.upstream, 100), frame[..100]);
    s.upstream.write_all(&plain(0x82, &[0; 1025])).unwrap();
    assert_eq!(read_close(&s.client), (1014, "frame too big".to_owned()));
    s.wait_for_worker();
    assert_quiet(&s.upstream);
    s.client.write_all(&frame[100..]).unwrap();
    assert_eq!(read_exact(&s.upstream, frame.len() - 100), frame[100..]);
    assert_eq!(read_close(&s.upstream), (1009, "frame too big".to_owned()));
    fin(&s.upstream);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=frame-too-big status=101 code_up=1009 code_down=1014");
}

#[test]
fn close_code_for_a_broken_upstream_is_set_by_the_route() {
    let mut s = Session::open("on_upstream_error_code = 1011");
    s.upstream.write_all(&masked(0x82, b"masked")).unwrap();
    assert_eq!(read_close(&s.client), (1011, "mask bit".to_owned()));
    assert_eq!(read_close(&s.upstream), (1002, "mask bit".to_owned()));
    fin(&s.upstream);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=mask-bit status=101 code_up=1002 code_down=1011");
}

#[test]
fn refused_client_that_keeps_sending_reads_the_whole_response() {
    let (_listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "path = \"/here\"");
    let mut client = connect(proxy.addr);
    client.write_all(request("/elsewhere", "").as_bytes()).unwrap();
    let mut sent = 0;
    // The proxy drains up to 64 KiB.
    while sent < 48 << 10 {
        client.write_all(&[b'x'; 1024]).unwrap();
        sent += 1024;
    }
    let (answer, end) = read_all(&client);
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(end, End::Fin);
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("No route matches this request.\n"), "{answer}");
    // More data and a FIN are accepted.
    client.write_all(&[b'x'; 1024]).unwrap();
    fin(&client);
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=downstream phase=request cause=no-route status=404");
    assert_eq!(proxy.stop().len(), 1);
}
