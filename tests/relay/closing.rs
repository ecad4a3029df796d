//! How an established session closes, in both directions: Closes, FINs, resets, urgent data.

use super::common::*;
use super::{BOTH, Bench, Cut, From, assert_close, assert_other_close, write_cut};
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// After both Closes the client gets a FIN at once; the upstream is expected to send its FIN first.
#[test]
fn closing_handshake_is_forwarded_and_ends_in_order() {
    let bench = Bench::new("");
    for from in BOTH {
        for cut in [Cut::Whole, Cut::EveryByte] {
            let (closer, answerer) = bench.open(from);
            let other = from.other();
            let close = from.frame(0x88, &close_payload(4001, "first"));
            write_cut(&closer, &close, cut);
            assert_eq!(read_exact(&answerer, close.len()), close);
            // The other direction continues until its own Close.
            let answer = [other.frame(0x81, b"still"), other.frame(0x88, &close_payload(4002, "second"))].concat();
            write_cut(&answerer, &answer, cut);
            assert_eq!(read_exact(&closer, answer.len()), answer);
            let (client, mut upstream) = from.of((closer, answerer));
            assert_eq!(read_all(&client), (vec![], End::Fin), "from {from:?}");
            upstream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            assert_eq!(upstream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "from {from:?}");
            upstream.set_read_timeout(Some(PATIENCE)).unwrap();
            upstream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&upstream), (vec![], End::Fin), "from {from:?}");
        }
    }
    bench.proxy.log.wait("a close", |line| line.contains("close").then_some(()));
}

#[test]
fn data_after_close_is_discarded_and_the_peer_close_forwarded() {
    let bench = Bench::new("");
    let mut discarded = 0.0;
    for from in BOTH {
        for cut in [Cut::Whole, Cut::EveryByte] {
            let (closer, mut answerer) = bench.open(from);
            let close = from.frame(0x88, &close_payload(1000, ""));
            let behind = [from.frame(0x81, b"behind"), from.frame(0x88, b""), b"garbage".to_vec()].concat();
            write_cut(&closer, &[&close[..], &behind].concat(), cut);
            assert_eq!(read_exact(&answerer, close.len()), close);
            let other = from.other();
            let answer = other.frame(0x88, &close_payload(1000, "in time"));
            answerer.write_all(&answer).unwrap();
            assert_eq!(read_exact(&closer, answer.len()), answer);
            let counted = || bench.proxy.metric("framegate_discarded_bytes_total");
            discarded += behind.len() as f64;
            // Over TLS the encrypted bytes are discarded and counted.
            let secure = *SECURED != PLAIN;
            eventually("it is counted", || (counted() == discarded || secure && counted() > discarded).then_some(()));
            discarded = counted();
            let (client, upstream) = from.of((closer, answerer));
            assert_eq!(read_all(&client), (vec![], End::Fin), "from {from:?}");
            upstream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&upstream), (vec![], End::Fin), "from {from:?}");
        }
    }
}

#[test]
fn data_after_close_gets_1002_after_500ms_without_peer_close() {
    let bench = Bench::new("");
    for from in BOTH {
        let (mut closer, answerer) = bench.open(from);
        let close = from.frame(0x88, &close_payload(1000, ""));
        let begun = Instant::now();
        closer.write_all(&[&close[..], &from.frame(0x81, b"behind")].concat()).unwrap();
        let (got, end) = read_all(&closer);
        assert_close("late", &got, 1002, from == From::Upstream);
        assert_eq!(end, End::Fin);
        assert!(begun.elapsed() >= Duration::from_millis(500) && begun.elapsed() < Duration::from_secs(4));
        drop(closer);
        // If this is the upstream, its own FIN comes first.
        answerer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&answerer), (close, End::Fin), "from {from:?}");
    }
}

#[test]
fn unanswered_close_ends_at_the_close_deadline() {
    let bench = Bench::new("timeouts = { close = \"300ms\" }");
    for from in BOTH {
        let (mut closer, answerer) = bench.open(from);
        let close = from.frame(0x88, &close_payload(1000, ""));
        let begun = Instant::now();
        closer.write_all(&close).unwrap();
        assert_eq!(read_all(&closer).0, vec![], "from {from:?}");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert_eq!(read_all(&answerer).0, close, "from {from:?}");
    }
}

/// A violation while the other direction is inside a frame: the frame is completed, then the Close
/// follows.
#[test]
fn proxy_close_waits_for_the_end_of_a_frame() {
    let bench = Bench::new("");
    for from in BOTH {
        // `from` sends a long frame; the other side breaks a rule meanwhile.
        let (mut sender, mut offender) = bench.open(from);
        let frame = from.frame(0x82, &vec![7; 1 << 20]);
        let (first, rest) = frame.split_at(400_000);
        sender.write_all(first).unwrap();
        assert!(read_exact(&offender, first.len()) == first);
        let other = from.other();
        offender.write_all(&other.frame(0x83, b"x")).unwrap();
        // The direction toward the sender is at a frame boundary.
        let (got, end) = read_all(&sender);
        assert_eq!(end, End::Fin);
        assert_other_close("the other side", &got, from == From::Upstream);
        // The rest of the frame is forwarded, the frame after it is not.
        std::thread::scope(|scope| {
            scope.spawn(|| (&sender).write_all(&[rest, &from.frame(0x81, b"not any more")].concat()).unwrap());
            assert!(read_exact(&offender, rest.len()) == rest, "from {from:?}");
        });
        let (got, end) = read_all(&offender);
        assert_eq!(end, End::Fin);
        assert_close("the offender", &got, 1002, from == From::Client);
    }
}

#[test]
fn incomplete_frame_gets_no_close_inside_it() {
    let bench = Bench::new("timeouts = { close = \"300ms\" }");
    for from in BOTH {
        let (mut sender, mut offender) = bench.open(from);
        let frame = from.frame(0x82, &[7; 5000]);
        sender.write_all(&frame[..4000]).unwrap();
        assert_eq!(read_exact(&offender, 4000), &frame[..4000]);
        let other = from.other();
        offender.write_all(&other.frame(0x83, b"x")).unwrap();
        assert_other_close("the other side", &read_all(&sender).0, from == From::Upstream);
        assert_eq!(read_all(&offender).0, vec![], "from {from:?}");
    }
}

#[test]
fn fin_is_forwarded_and_the_other_direction_continues() {
    let bench = Bench::new("");
    for from in BOTH {
        let (mut sender, mut receiver) = bench.open(from);
        let other = from.other();
        // Also inside a frame, and inside a header.
        let last = [from.frame(0x81, b"last"), from.frame(0x82, &[1; 300])[..200].to_vec()].concat();
        sender.write_all(&last).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&receiver), (last, End::Fin), "from {from:?}");
        let back = other.frame(0x82, &vec![2; 500_000]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&receiver).write_all(&back).unwrap();
                receiver.shutdown(Shutdown::Write).unwrap();
            });
            assert!(read_all(&sender) == (back.clone(), End::Fin), "from {from:?}");
        });
        receiver.flush().unwrap();
    }
    let lines = eventually("two ends", || {
        let ends: Vec<_> = bench.proxy.log.all().into_iter().filter(|line| line.contains("eof")).collect();
        (ends.len() == 2).then_some(ends)
    });
    assert!(lines[0].contains("downstream") && lines[1].contains("upstream"), "{lines:?}");
}

#[test]
fn reset_is_forwarded_after_the_data_read_before_it() {
    let bench = Bench::new("");
    for from in BOTH {
        let (mut sender, receiver) = bench.open(from);
        let last = from.frame(0x81, b"last words");
        sender.write_all(&last).unwrap();
        assert_eq!(read_exact(&receiver, last.len()), last);
        SockRef::from(&sender).set_linger(Some(Duration::ZERO)).unwrap();
        drop(sender);
        assert_eq!(read_all(&receiver), (vec![], End::Reset), "from {from:?}");
    }
}

#[test]
fn upstream_loss_is_a_close_if_the_route_says_so() {
    let bench = Bench::new("on_upstream_loss = \"close\"\non_upstream_loss_code = 4500");
    let (mut upstream, client) = bench.open(From::Upstream);
    let last = plain(0x81, b"last");
    upstream.write_all(&last).unwrap();
    drop(upstream);
    assert_eq!(read_exact(&client, last.len()), last);
    let (got, end) = read_all(&client);
    assert_close("loss", &got, 4500, false);
    assert_eq!(end, End::Fin);
    // A reset is a loss as well.
    let (mut upstream, client) = bench.open(From::Upstream);
    upstream.write_all(&last).unwrap();
    assert_eq!(read_exact(&client, last.len()), last);
    SockRef::from(&upstream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(upstream);
    let (got, end) = read_all(&client);
    assert_close("loss by a reset", &got, 4500, false);
    assert_eq!(end, End::Fin);
    // Inside a frame there is no room for a Close.
    let (mut upstream, client) = bench.open(From::Upstream);
    upstream.write_all(&last[..4]).unwrap();
    drop(upstream);
    assert_eq!(read_all(&client), (last[..4].to_vec(), End::Fin));
}

#[test]
fn urgent_data_is_a_violation_in_every_phase() {
    if *SECURED != PLAIN {
        // Urgent data bypasses TLS and would stop at the shim; tests/tls.rs has its own test.
        return;
    }
    let bench = Bench::new("");
    for from in BOTH {
        let (offender, other) = bench.open(from);
        SockRef::from(&offender).send_out_of_band(b"!").unwrap();
        let (got, end) = read_all(&other);
        assert_other_close("other", &got, from == From::Client);
        assert_eq!(end, End::Fin);
        assert_close("offender", &read_all(&offender).0, 1008, from == From::Upstream);
    }
    let mut client = connect(bench.proxy.addr);
    client.write_all(b"GET / HT").unwrap();
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    let (got, end) = read_all(&client);
    assert!(got.starts_with(b"HTTP/1.1 400 ") && end == End::Fin, "{}", String::from_utf8_lossy(&got));
    let mut client = connect(bench.proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let upstream = accept(&bench.listener);
    read_head(&upstream);
    SockRef::from(&upstream).send_out_of_band(b"!").unwrap();
    let (got, end) = read_all(&client);
    assert!(got.starts_with(b"HTTP/1.1 502 ") && end == End::Fin, "{}", String::from_utf8_lossy(&got));
}
