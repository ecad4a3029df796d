//! How sessions end (product contract, section 3), over real sockets, peers written out by hand. Every test ends by
//! stopping the proxy and reading its whole access log: one line at the start, one at the end, and its verdict.

mod common;

use common::*;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

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

    /// The one worker has done all that it had to do before: it answers somebody else.
    fn settled(&self) {
        let answer = http(self.proxy.addr, "POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    /// The verdict of the one session there was.
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

/// What came up to the end, which is a FIN.
#[track_caller]
fn assert_rest(stream: &TcpStream, expected: &[u8], end: End) {
    let (bytes, how) = read_all(stream);
    assert_eq!((bytes.as_slice(), how), (expected, end));
}

/// A deadline came when it was due: not before, and no more than a busy machine allows after.
#[track_caller]
fn assert_due(begun: Instant, after_ms: u64) {
    let after = begun.elapsed();
    // The deadline began to run a little after `begun`, but was computed in whole milliseconds.
    assert!(after >= Duration::from_millis(after_ms - 1), "too early: {after:?}");
    assert!(after < Duration::from_millis(after_ms) + Duration::from_secs(2), "too late: {after:?}");
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
fn a_close_of_the_client_passes_verbatim_and_it_gets_our_fin_first() {
    for (payload, code) in close_frames() {
        let mut s = Session::open("");
        let close = masked(0x88, &payload);
        s.client.write_all(&close).unwrap();
        assert_eq!(read_exact(&s.upstream, close.len()), close);
        let answer = plain(0x88, &payload);
        s.upstream.write_all(&answer).unwrap();
        assert_rest(&s.client, &answer, End::Fin);
        // Toward the upstream we are the client: it is to end first.
        s.settled();
        assert_quiet(&s.upstream);
        fin(&s.upstream);
        assert_rest(&s.upstream, b"", End::Fin);
        fin(&s.client);
        s.ends(&format!("ended_by=downstream phase=open cause=close status=101 code_up={code} code_down={code}"));
    }
}

#[test]
fn a_close_of_the_upstream_passes_verbatim_and_the_client_gets_our_fin_first() {
    for (payload, code) in close_frames() {
        let mut s = Session::open("");
        let close = plain(0x88, &payload);
        s.upstream.write_all(&close).unwrap();
        assert_eq!(read_exact(&s.client, close.len()), close);
        s.settled();
        assert_quiet(&s.client);
        let answer = masked(0x88, &close_payload(3001, ""));
        s.client.write_all(&answer).unwrap();
        assert_rest(&s.client, b"", End::Fin);
        assert_eq!(read_exact(&s.upstream, answer.len()), answer);
        s.settled();
        assert_quiet(&s.upstream);
        // The client has gone already: that changes nothing for the upstream.
        fin(&s.client);
        s.settled();
        assert_quiet(&s.upstream);
        fin(&s.upstream);
        assert_rest(&s.upstream, b"", End::Fin);
        s.ends(&format!("ended_by=upstream phase=open cause=close status=101 code_up=3001 code_down={code}"));
    }
}

#[test]
fn a_close_torn_at_every_byte_passes_whole() {
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
fn a_close_without_an_answer_ends_at_the_close_deadline() {
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
fn an_upstream_that_keeps_its_connection_after_both_closes_is_left_at_the_deadline() {
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
fn what_follows_a_close_is_discarded_and_the_other_sides_close_still_comes() {
    let mut s = Session::open("");
    let close = masked(0x88, &close_payload(1000, ""));
    s.client.write_all(&[&close[..], &masked(0x82, b"too late")].concat()).unwrap();
    assert_eq!(read_exact(&s.upstream, close.len()), close);
    s.settled();
    assert_quiet(&s.upstream);
    // Data of the other side still flows, up to its own Close.
    let last = [plain(0x81, b"last words"), plain(0x88, &close_payload(1000, "ok"))].concat();
    s.upstream.write_all(&last).unwrap();
    assert_rest(&s.client, &last, End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1000 code_down=1000");
}

#[test]
fn who_sends_on_after_its_close_gets_1002_when_no_close_comes_back() {
    let mut s = Session::open("");
    let close = masked(0x88, &close_payload(1000, ""));
    let begun = Instant::now();
    s.client.write_all(&[&close[..], &masked(0x82, b"too late")].concat()).unwrap();
    assert_eq!(read_close(&s.client), (1002, "data after close".to_owned()));
    assert_due(begun, 500);
    assert_rest(&s.client, b"", End::Fin);
    // The answer comes too late and is consumed.
    s.upstream.write_all(&plain(0x88, b"")).unwrap();
    fin(&s.upstream);
    assert_rest(&s.upstream, &close, End::Fin);
    fin(&s.client);
    s.ends("ended_by=downstream phase=open cause=data-after-close status=101 code_up=1000 code_down=1002");
}

#[test]
fn a_fin_of_the_client_is_passed_on_and_the_upstream_goes_on_sending() {
    let mut s = Session::open("");
    let last = masked(0x82, b"that was all");
    s.client.write_all(&last).unwrap();
    fin(&s.client);
    assert_rest(&s.upstream, &last, End::Fin);
    for n in 0..10u8 {
        let answer = plain(0x82, &vec![n; 1000 * usize::from(n)]);
        s.upstream.write_all(&answer).unwrap();
        assert_eq!(read_exact(&s.client, answer.len()), answer);
    }
    s.settled();
    assert_quiet(&s.client);
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=eof status=101");
}

#[test]
fn a_fin_of_the_upstream_is_passed_on_and_the_client_goes_on_sending() {
    let mut s = Session::open("");
    let last = plain(0x81, b"that was all");
    s.upstream.write_all(&last).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &last, End::Fin);
    for n in 0..10u8 {
        let more = masked(0x82, &vec![n; 1000 * usize::from(n)]);
        s.client.write_all(&more).unwrap();
        assert_eq!(read_exact(&s.upstream, more.len()), more);
    }
    s.settled();
    assert_quiet(&s.upstream);
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=upstream phase=open cause=eof status=101");
}

#[test]
fn a_close_after_the_other_sides_fin_still_passes() {
    let mut s = Session::open("");
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    let close = masked(0x88, &close_payload(1001, "leaving"));
    s.client.write_all(&close).unwrap();
    assert_eq!(read_exact(&s.upstream, close.len()), close);
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1001");
}

#[test]
fn a_half_closed_session_ends_at_the_idle_timeout() {
    let s = Session::open("timeouts = { idle = \"300ms\" }");
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    assert_eq!(read_close(&s.client), (1001, "idle timeout".to_owned()));
    assert_rest(&s.client, b"", End::Fin);
    fin(&s.upstream);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_down=1001");
}

#[test]
fn a_fin_in_the_middle_of_a_frame_comes_after_what_there_was_of_it() {
    let frame = plain(0x82, &[7; 300]);
    for cut in [4, 5, 100, frame.len() - 1] {
        let mut s = Session::open("");
        s.upstream.write_all(&frame[..cut]).unwrap();
        fin(&s.upstream);
        assert_rest(&s.client, &frame[..cut], End::Fin);
        let more = masked(0x81, b"still here");
        s.client.write_all(&more).unwrap();
        fin(&s.client);
        assert_rest(&s.upstream, &more, End::Fin);
        s.ends("ended_by=upstream phase=open cause=eof status=101");
    }
    let frame = masked(0x82, &[7; 300]);
    let mut s = Session::open("");
    s.client.write_all(&frame[..100]).unwrap();
    fin(&s.client);
    assert_rest(&s.upstream, &frame[..100], End::Fin);
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=eof status=101");
}

#[test]
fn a_fin_in_the_middle_of_a_header_leaves_nothing_of_it() {
    let whole = plain(0x81, b"whole");
    let mut s = Session::open("");
    s.upstream.write_all(&[&whole[..], &plain(0x82, &[7; 300])[..3]].concat()).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &whole, End::Fin);
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=upstream phase=open cause=eof status=101");
}

#[test]
fn both_fins_at_once_end_a_session() {
    let s = Session::open("");
    fin(&s.upstream);
    fin(&s.client);
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    let by =
        s.proxy.log.wait("its end", |line| line.contains(" end ").then(|| field(line, "ended_by").unwrap().to_owned()));
    s.ends(&format!("ended_by={by} phase=open cause=eof status=101"));
}

#[test]
fn a_reset_of_the_upstream_resets_the_client_after_what_was_read() {
    let Session { mut proxy, client, mut upstream, _listener } = Session::open("");
    let last = plain(0x82, &[3; 5000]);
    upstream.write_all(&last).unwrap();
    reset(upstream);
    let (got, end) = read_all(&client);
    assert_eq!(end, End::Reset);
    assert!(got == last || *SECURED != PLAIN && last.starts_with(&got));
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=upstream phase=open cause=reset status=101");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn a_reset_of_the_client_resets_the_upstream_after_what_was_read() {
    let Session { mut proxy, mut client, upstream, _listener } = Session::open("");
    let last = masked(0x82, &[3; 5000]);
    client.write_all(&last).unwrap();
    reset(client);
    let (got, end) = read_all(&upstream);
    assert_eq!(end, End::Reset);
    // A shim's own reset overtakes what it has not sent.
    assert!(got == last || *SECURED != PLAIN && last.starts_with(&got));
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=downstream phase=open cause=reset status=101");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn a_client_that_resets_or_leaves_before_the_101_takes_its_upstream_with_it() {
    for how in ["reset", "eof"] {
        let (listener, addr) = listen();
        let mut proxy = Proxy::before(addr, "");
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let upstream = accept(&listener);
        read_head(&upstream);
        if how == "reset" {
            reset(client)
        } else {
            drop(client)
        }
        assert_rest(&upstream, b"", End::Reset);
        let line = proxy.log.wait_for(" end ");
        assert!(verdict(&line).starts_with("ended_by=downstream phase=response cause="), "{line}");
        assert_eq!(proxy.stop().len(), 1);
    }
}

#[test]
fn a_route_may_answer_the_loss_of_its_upstream_with_a_close() {
    for (more, code) in [("", 1012), ("on_upstream_loss_code = 4001", 4001)] {
        let mut s = Session::open(&format!("on_upstream_loss = \"close\"\n{more}"));
        let last = plain(0x82, &[1; 200]);
        s.upstream.write_all(&last).unwrap();
        fin(&s.upstream);
        assert_eq!(read_exact(&s.client, last.len()), last);
        assert_eq!(read_close(&s.client), (code, "upstream lost".to_owned()));
        assert_rest(&s.client, b"", End::Fin);
        // Its answer is for us.
        s.client.write_all(&masked(0x88, &close_payload(code, ""))).unwrap();
        fin(&s.client);
        assert_rest(&s.upstream, b"", End::Fin);
        s.ends(&format!("ended_by=upstream phase=open cause=upstream-loss status=101 code_down={code}"));
    }
}

#[test]
fn a_reset_is_the_loss_of_an_upstream_as_well() {
    let Session { mut proxy, client, mut upstream, _listener } = Session::open("on_upstream_loss = \"close\"");
    let last = plain(0x82, &[1; 200]);
    upstream.write_all(&last).unwrap();
    reset(upstream);
    assert_eq!(read_exact(&client, last.len()), last);
    assert_eq!(read_close(&client), (1012, "upstream lost".to_owned()));
    assert_rest(&client, b"", End::Fin);
    fin(&client);
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=upstream phase=open cause=upstream-loss status=101 code_down=1012");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn an_upstream_lost_inside_a_frame_leaves_no_room_for_a_close() {
    let mut s = Session::open("on_upstream_loss = \"close\"");
    let frame = plain(0x82, &[1; 200]);
    s.upstream.write_all(&frame[..50]).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &frame[..50], End::Fin);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=upstream-loss status=101");
}

#[test]
fn an_upstream_that_closed_properly_is_not_lost() {
    let mut s = Session::open("on_upstream_loss = \"close\"");
    let close = plain(0x88, &close_payload(1000, ""));
    s.upstream.write_all(&close).unwrap();
    assert_eq!(read_exact(&s.client, close.len()), close);
    s.client.write_all(&masked(0x88, b"")).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=close status=101 code_up=1005 code_down=1000");
}

#[test]
fn an_idle_session_gets_1001_on_both_sides_and_the_answers_are_consumed() {
    let mut s = Session::open("timeouts = { idle = \"300ms\" }");
    let begun = Instant::now();
    let idle = (1001, "idle timeout".to_owned());
    assert_eq!(read_close(&s.client), idle);
    assert_due(begun, 280);
    let (first, payload, is_masked) = read_frame(&s.upstream);
    assert_eq!((first, payload, is_masked), (0x88, close_payload(1001, "idle timeout"), true));
    // After our Close nothing is forwarded: neither the answers nor data before them.
    s.client.write_all(&[masked(0x81, b"more"), masked(0x88, &close_payload(1001, ""))].concat()).unwrap();
    s.upstream.write_all(&[plain(0x81, b"more"), plain(0x88, &close_payload(1001, ""))].concat()).unwrap();
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_up=1001 code_down=1001");
}

#[test]
fn bytes_either_way_keep_a_session_from_being_idle() {
    let (listener, addr) = listen();
    // The second route has it off.
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
fn a_receiver_that_takes_nothing_is_reset_and_its_sender_told() {
    let Session { mut proxy, client, mut upstream, _listener } =
        Session::open("timeouts = { write_stall = \"400ms\" }");
    let reader = upstream.try_clone().unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let flood = plain(0x82, &[0; 1 << 20]);
            // Read and thrown away once the client is given up, until the deadline.
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
fn a_slow_receiver_that_takes_something_is_not_stalled() {
    let mut s = Session::open("timeouts = { write_stall = \"400ms\" }");
    let payload = vec![9; 16 << 20];
    let frame = plain(0x82, &payload);
    let mut writer = s.upstream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let frame = &frame;
        scope.spawn(move || writer.write_all(frame).unwrap());
        let mut got = Vec::new();
        let begun = Instant::now();
        // About four times the timeout for the whole, always something within it.
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
fn a_close_of_ours_waits_for_the_frame_boundary() {
    let mut s = Session::open("timeouts = { idle = \"300ms\" }");
    let frame = masked(0x82, &[5; 100]);
    s.client.write_all(&frame[..20]).unwrap();
    // The other direction stands at a boundary: it is told at once.
    assert_eq!(read_close(&s.client), (1001, "idle timeout".to_owned()));
    assert_eq!(read_exact(&s.upstream, 20), frame[..20]);
    s.settled();
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
fn a_frame_that_never_ends_gets_a_fin_at_the_close_deadline() {
    let mut s = Session::open("timeouts = { idle = \"200ms\", close = \"300ms\" }");
    let frame = plain(0x82, &[5; 100]);
    s.upstream.write_all(&frame[..20]).unwrap();
    assert_eq!(read_close(&s.upstream), (1001, "idle timeout".to_owned()));
    assert_rest(&s.client, &frame[..20], End::Fin);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101 code_up=1001");
}

#[test]
fn a_violation_ends_both_sides_and_nothing_more_passes_either_way() {
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
fn a_violation_of_the_upstream_inside_a_message_of_the_client() {
    let mut s = Session::open("limits = { max_frame = \"1KiB\" }");
    let frame = masked(0x82, &[5; 500]);
    s.client.write_all(&frame[..100]).unwrap();
    assert_eq!(read_exact(&s.upstream, 100), frame[..100]);
    s.upstream.write_all(&plain(0x82, &[0; 1025])).unwrap();
    assert_eq!(read_close(&s.client), (1001, "frame too big".to_owned()));
    s.settled();
    assert_quiet(&s.upstream);
    s.client.write_all(&frame[100..]).unwrap();
    assert_eq!(read_exact(&s.upstream, frame.len() - 100), frame[100..]);
    assert_eq!(read_close(&s.upstream), (1009, "frame too big".to_owned()));
    fin(&s.upstream);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=frame-too-big status=101 code_up=1009 code_down=1001");
}

#[test]
fn an_opaque_session_can_only_be_ended_with_a_fin() {
    let mut s = Session::open("mode = \"opaque\"\ntimeouts = { idle = \"300ms\" }");
    s.client.write_all(b"anything").unwrap();
    assert_eq!(read_exact(&s.upstream, 8), b"anything");
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    fin(&s.client);
    fin(&s.upstream);
    s.ends("ended_by=proxy phase=open cause=idle-timeout status=101");
}

#[test]
fn a_refused_client_that_keeps_sending_reads_the_whole_answer() {
    let (_listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "path = \"/here\"");
    let mut client = connect(proxy.addr);
    client.write_all(request("/elsewhere", "").as_bytes()).unwrap();
    let mut sent = 0;
    // Within what is drained: 64 KiB.
    while sent < 48 << 10 {
        client.write_all(&[b'x'; 1024]).unwrap();
        sent += 1024;
    }
    let (answer, end) = read_all(&client);
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(end, End::Fin);
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("Nothing is served here.\n"), "{answer}");
    // It may go on for a while, and then leave as it likes.
    client.write_all(&[b'x'; 1024]).unwrap();
    fin(&client);
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=downstream phase=request cause=no-route status=404");
    assert_eq!(proxy.stop().len(), 1);
}
