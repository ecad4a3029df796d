//! Ends by a timeout: close, idle, write stall.

use super::common::*;
use super::{Session, assert_rest, fin};
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn unanswered_close_ends_at_the_close_deadline() {
    let mut s = Session::open("timeouts = { close = \"300ms\" }");
    let close = masked(0x88, &close_payload(1000, "bye"));
    let begun = Instant::now();
    s.client.write_all(&close).unwrap();
    assert_rest(&s.upstream, &close, End::Fin);
    assert_due(begun, 300);
    assert_rest(&s.client, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1000");
}

#[test]
fn upstream_that_stays_after_both_closes_is_closed_at_the_deadline() {
    let mut s = Session::open("timeouts = { close = \"300ms\" }");
    let begun = Instant::now();
    s.client.write_all(&masked(0x88, b"")).unwrap();
    assert_eq!(read_exact(&s.upstream, 6), masked(0x88, b""));
    s.upstream.write_all(&plain(0x88, b"")).unwrap();
    assert_rest(&s.client, &plain(0x88, b""), End::Fin);
    assert!(begun.elapsed() < Duration::from_millis(300), "the client waited for the upstream");
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    assert_due(begun, 300);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

#[test]
fn half_closed_session_ends_at_the_idle_timeout() {
    let s = Session::open("timeouts = { idle = \"300ms\" }");
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    assert_eq!(read_close(&s.client), (1001, "idle timeout".to_owned()));
    assert_rest(&s.client, b"", End::Fin);
    fin(&s.upstream);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_down=1001");
}

#[test]
fn idle_session_gets_1001_on_both_sides_and_replies_are_consumed() {
    let mut s = Session::open("timeouts = { idle = \"300ms\" }");
    let begun = Instant::now();
    let idle = (1001, "idle timeout".to_owned());
    assert_eq!(read_close(&s.client), idle);
    assert_due(begun, 280);
    let (first, payload, is_masked) = read_frame(&s.upstream);
    assert_eq!((first, payload, is_masked), (0x88, close_payload(1001, "idle timeout"), true));
    // After the proxy's Close nothing is forwarded, neither the replies nor data before them.
    s.client.write_all(&[masked(0x81, b"more"), masked(0x88, &close_payload(1001, ""))].concat()).unwrap();
    s.upstream.write_all(&[plain(0x81, b"more"), plain(0x88, &close_payload(1001, ""))].concat()).unwrap();
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_up=1001 code_down=1001");
}

#[test]
fn bytes_in_either_direction_reset_the_idle_timeout() {
    let (listener, addr) = listen();
    // The second route has no idle timeout.
    let more = format!(
        "path = \"/\"\ntimeouts = {{ idle = \"400ms\" }}\n\
         [[route]]\npath = \"/never\"\nupstream = \"ws://{addr}\"\ntimeouts = {{ idle = 0 }}"
    );
    let mut proxy = Proxy::before(addr, &more);
    let (mut never, mut never_up) = open_at(&proxy, &listener, "/never");
    let (client, mut upstream) = open_at(&proxy, &listener, "/");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1000) {
        upstream.write_all(&plain(0x89, b"")).unwrap();
        assert_eq!(read_frame(&client).0, 0x89);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(read_close(&client).0, 1001);
    never.write_all(&masked(0x81, b"still here")).unwrap();
    assert_eq!(read_frame(&never_up).1, b"still here");
    never_up.write_all(&plain(0x88, b"")).unwrap();
    drop((client, upstream, never, never_up));
    let log = proxy.stop();
    assert_eq!(log.iter().filter(|line| line.contains("cause=idle-timeout")).count(), 1, "{log:#?}");
}

fn open_at(proxy: &Proxy, listener: &TcpListener, path: &str) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(request(path, "").as_bytes()).unwrap();
    let mut upstream = accept(listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    (client, upstream)
}

#[test]
fn stalled_receiver_is_reset_and_its_sender_gets_1001() {
    let Session { mut proxy, client, mut upstream, _listener } =
        Session::open("timeouts = { write_stall = \"400ms\" }");
    let reader = upstream.try_clone().unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let flood = plain(0x82, &[0; 1 << 20]);
            // Discarded once the client has been reset, until the close deadline.
            while upstream.write_all(&flood).is_ok() {}
        });
        assert_eq!(read_close(&reader), (1001, "peer stalled".to_owned()));
        assert_due(begun, 400);
        reader.shutdown(Shutdown::Both).unwrap();
        writer.join().unwrap();
    });
    assert_eq!(read_all(&client).1, End::Reset);
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=proxy phase=open cause=write-stall status=101 code_up=1001");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn slow_receiver_that_makes_progress_is_not_stalled() {
    let mut s = Session::open("timeouts = { write_stall = \"400ms\" }");
    let payload = vec![9; 16 << 20];
    let frame = plain(0x82, &payload);
    let mut writer = s.upstream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let frame = &frame;
        scope.spawn(move || writer.write_all(frame).unwrap());
        let mut got = Vec::new();
        let begun = Instant::now();
        // In total about four times the timeout, but always some progress within it.
        while got.len() < frame.len() {
            let n = (frame.len() - got.len()).min(1 << 20);
            got.extend(read_exact(&s.client, n));
            let due = Duration::from_millis(100 * (got.len() >> 20) as u64);
            std::thread::park_timeout(due.saturating_sub(begun.elapsed()));
        }
        assert!(got == *frame);
    });
    s.client.write_all(&masked(0x88, b"")).unwrap();
    assert_eq!(read_exact(&s.upstream, 6), masked(0x88, b""));
    s.upstream.write_all(&plain(0x88, b"")).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &plain(0x88, b""), End::Fin);
    fin(&s.client);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

#[test]
fn incomplete_frame_gets_fin_at_the_close_deadline() {
    let mut s = Session::open("timeouts = { idle = \"200ms\", close = \"300ms\" }");
    let frame = plain(0x82, &[5; 100]);
    s.upstream.write_all(&frame[..20]).unwrap();
    assert_eq!(read_close(&s.upstream), (1001, "idle timeout".to_owned()));
    assert_rest(&s.client, &frame[..20], End::Fin);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_up=1001");
}

#[test]
fn opaque_session_is_ended_with_fin_only() {
    let mut s = Session::open("mode = \"opaque\"\ntimeouts = { idle = \"300ms\" }");
    s.client.write_all(b"anything").unwrap();
    assert_eq!(read_exact(&s.upstream, 8), b"anything");
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101");
}
