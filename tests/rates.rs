//! The limits of an established session over real sockets: messages, bytes and control frames in a
//! time, fragments, age. What each does to the session that exceeds it, and not to others.

mod common;

use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What TLS delivers beyond what was asked for: a record.
const RECORD: usize = 16 << 10;

fn start(more: &str) -> (Proxy, TcpListener) {
    let (listener, addr) = listen();
    (Proxy::before(addr, more), listener)
}

/// A message from client to upstream and one back.
fn assert_alive((client, upstream): &(TcpStream, TcpStream)) {
    let (mut to_client, mut to_upstream) = (upstream, client);
    to_upstream.write_all(&masked(0x82, b"there")).unwrap();
    assert_eq!(read_frame(upstream).1, b"there");
    to_client.write_all(&plain(0x82, b"back")).unwrap();
    assert_eq!(read_frame(client).1, b"back");
}

/// Writes until the peer takes no more, or `stop` is set.
fn flood(mut stream: &TcpStream, bytes: &[u8], stop: &AtomicBool) {
    stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&bytes[at..]) {
            Ok(n) => at = (at + n) % bytes.len(),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

#[test]
fn message_101_in_a_minute_closes_with_4003() {
    let (mut proxy, listener) = start("limits.messages = { rate = \"100/60s\", close = 4003 }");
    let other = open(&proxy, &listener);
    for at_once in [true, false] {
        let (mut client, upstream) = open(&proxy, &listener);
        if at_once {
            client.write_all(&masked(0x81, b"hello").repeat(150)).unwrap();
        }
        for n in 1..=101 {
            if !at_once {
                client.write_all(&masked(0x81, b"hello")).unwrap();
            }
            if n <= 100 {
                assert_eq!(read_frame(&upstream).1, b"hello", "message {n}");
            }
        }
        assert_eq!(read_close(&upstream), (1001, "too many messages".into()));
        assert_eq!(read_close(&client), (4003, "too many messages".into()));
        client.write_all(&masked(0x88, &close_payload(4003, ""))).unwrap();
        assert_eq!(read_all(&client), (vec![], End::Fin));
        drop((client, upstream));
        proxy.log.wait_for("cause=message-rate");
    }
    for _ in 0..100 {
        assert_alive(&other);
    }
    drop(other);
    let log = proxy.stop();
    let verdicts = log.iter().filter(|line| line.contains("ended_by=downstream phase=open cause=message-rate"));
    assert_eq!(verdicts.count(), 2, "{log:#?}");
}

#[test]
fn a_byte_limit_holds_over_two_seconds_and_others_do_not_notice() {
    const RATE: usize = 256 << 10;
    const BURST: usize = 128 << 10;
    let (proxy, listener) = start("limits.bytes = { rate = \"256KiB/s\", burst = \"128KiB\", patience = \"off\" }");
    let (limited, other) = (open(&proxy, &listener), open(&proxy, &listener));
    let (stop, message) = (AtomicBool::new(false), masked(0x82, &[7; 10_000]));
    let (limited, begun) = (&limited, Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&limited.0, &message, &stop));
        let reader = scope.spawn(move || {
            let mut received = 0;
            // All of the burst, and two seconds of the rate.
            while received < BURST + 2 * RATE {
                let n = (&limited.1).read(&mut [0; 16 << 10]).unwrap();
                assert!(n > 0);
                received += n;
                let most = BURST + 1 + RECORD + RATE * (begun.elapsed().as_millis() as usize + 1) / 1000;
                assert!(received <= most, "{received} B after {:?}", begun.elapsed());
            }
            begun.elapsed()
        });
        // Meanwhile the other direction of the same session, and another session.
        let mut answers = 0;
        while !reader.is_finished() {
            (&limited.1).write_all(&plain(0x82, b"back")).unwrap();
            assert_eq!(read_frame(&limited.0).1, b"back");
            assert_alive(&other);
            answers += 1;
        }
        let took = reader.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        let least = Duration::from_millis(2_000 - 1_000 * RECORD as u64 / RATE as u64);
        assert!(took >= least && took < Duration::from_secs(4), "{took:?}");
        assert!(answers > 100, "{answers} round trips in {took:?}");
    });
    eventually("pauses are counted", || {
        (proxy.metric("framegate_read_pauses_total{from=\"downstream\"}") >= 5.0).then_some(())
    });
    assert_eq!(proxy.metric("framegate_read_pauses_total{from=\"upstream\"}"), 0.0);
}

#[test]
fn an_excess_that_lasts_is_closed_after_its_patience() {
    let (mut proxy, listener) =
        start("limits.messages = { rate = \"20/s\", burst = 10, close = 4003, patience = \"1s\" }");
    let (client, upstream) = open(&proxy, &listener);
    let (stop, message) = (AtomicBool::new(false), masked(0x82, &[7; 600]));
    let begun = Instant::now();
    let messages = std::thread::scope(|scope| {
        scope.spawn(|| flood(&client, &message, &stop));
        let mut messages = 0;
        let code = loop {
            let (first, payload, _) = read_frame(&upstream);
            match first {
                0x82 => messages += 1,
                _ => break u16::from_be_bytes(payload[..2].try_into().unwrap()),
            }
        };
        stop.store(true, Ordering::Relaxed);
        assert_eq!(code, 1001);
        messages
    });
    assert_due(begun, 1_000);
    let most = 10 + 20 * (begun.elapsed().as_millis() as usize + 1) / 1000 + RECORD / message.len();
    assert!((25..=most).contains(&messages), "{messages} of at most {most}");
    assert_eq!(read_close(&client), (4003, "too many messages".into()));
    drop((client, upstream));
    proxy.log.wait_for("cause=message-rate");
    proxy.stop();
}

#[test]
fn a_client_that_ends_while_it_is_paused_loses_nothing() {
    let (proxy, listener) = start("limits.messages = { rate = \"40/s\", burst = 10, patience = \"off\" }");
    let (mut client, upstream) = open(&proxy, &listener);
    let begun = Instant::now();
    for n in 0..50u8 {
        client.write_all(&masked(0x82, &[n])).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    for n in 0..50u8 {
        assert_eq!(read_frame(&upstream).1, [n]);
    }
    assert_eq!(read_all(&upstream), (vec![], End::Fin));
    // One record may hold all of them.
    if !SECURED.clients {
        assert_due(begun, 1_000);
    }
}

#[test]
fn a_drain_reaches_a_paused_session_between_two_frames() {
    let (mut proxy, listener) = start(
        "limits.messages = { rate = \"1/h\", burst = 3, patience = \"off\" }\n\
         [drain]\nspread = \"0s\"\ndeadline = \"9s\"",
    );
    let (mut client, upstream) = open(&proxy, &listener);
    for _ in 0..6 {
        client.write_all(&masked(0x82, b"hello")).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(read_frame(&upstream).1, b"hello");
    }
    eventually("it is paused", || {
        (proxy.metric("framegate_read_pauses_total{from=\"downstream\"}") >= 1.0).then_some(())
    });
    proxy.signal("TERM");
    assert_eq!(read_close(&client).0, 1001);
    // Behind TLS the six may have been one read.
    let mut frames = std::iter::repeat_with(|| read_frame(&upstream));
    let (_, payload, _) = frames.find(|(first, ..)| *first == 0x88).unwrap();
    assert_eq!(payload[..2], 1001u16.to_be_bytes());
    drop((client, upstream));
    assert!(proxy.wait().success());
}

#[test]
fn a_flood_of_pings_is_closed_with_1008() {
    let (proxy, listener) = start("limits.control_frames = { rate = \"10/s\", burst = 20, close = 1008 }");
    let (mut client, upstream) = open(&proxy, &listener);
    let ping = masked(0x89, b"flood");
    client.write_all(&[masked(0x82, b"x").repeat(100), ping.repeat(1_000)].concat()).unwrap();
    for _ in 0..100 {
        assert_eq!(read_frame(&upstream).0, 0x82);
    }
    let mut pings = 0;
    let payload = loop {
        match read_frame(&upstream) {
            (0x89, ..) => pings += 1,
            (first, payload, _) => break (first, payload),
        }
    };
    assert_eq!((pings, payload.0, &payload.1[..2]), (20, 0x88, &1001u16.to_be_bytes()[..]));
    assert_eq!(read_close(&client), (1008, "too many control frames".into()));
    proxy.log.wait_for("cause=control-rate");
}

#[test]
fn a_flood_of_fragments_is_closed_with_1008() {
    let (proxy, listener) = start("limits.fragments = 8");
    let (mut client, upstream) = open(&proxy, &listener);
    let whole = [masked(0x02, b""), masked(0x00, b"").repeat(6), masked(0x80, b"end")].concat();
    client.write_all(&whole.repeat(3)).unwrap();
    client.write_all(&[masked(0x02, b"flood"), masked(0x00, b"").repeat(100_000)].concat()).unwrap();
    let mut frames = 0;
    while read_frame(&upstream).0 != 0x88 {
        frames += 1;
    }
    assert_eq!(frames, 3 * 8 + 8);
    assert_eq!(read_close(&client), (1008, "too many fragments".into()));
    proxy.log.wait_for("cause=too-many-fragments");
}

#[test]
fn a_session_ends_at_its_age() {
    let (proxy, listener) = start("limits.session_age = { max = \"1s\", jitter = 0, close = 4408 }");
    let begun = Instant::now();
    let session = open(&proxy, &listener);
    let mut answers = 0;
    while begun.elapsed() < Duration::from_millis(700) {
        assert_alive(&session);
        answers += 1;
    }
    assert!(answers > 0);
    assert_eq!(read_close(&session.0), (4408, "session age".into()));
    assert_due(begun, 1_000);
    assert_eq!(read_close(&session.1), (1001, "session age".into()));
    drop(session);
    proxy.log.wait_for("ended_by=proxy phase=open cause=session-age");
}

#[test]
fn a_tunnel_is_limited_by_bytes() {
    for splice in ["mode = \"opaque\"", "splice = \"on\""] {
        let more = "limits.upstream_bytes = { rate = \"1MiB/s\", burst = \"512KiB\", patience = \"off\" }";
        let (proxy, listener) = start(&format!("{splice}\n{more}"));
        let (client, mut upstream) = open(&proxy, &listener);
        let frame = plain(0x82, &vec![3; (3 << 19) - 10]);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| upstream.write_all(&frame).unwrap());
            assert_eq!(read_exact(&client, frame.len()), frame, "{splice}");
        });
        // 1.5 MiB: the burst, and a second of the rate.
        assert!(begun.elapsed() >= Duration::from_millis(970), "{splice}: {:?}", begun.elapsed());
    }
    // Nothing can be put into a tunnel: its ends are FINs.
    let (proxy, listener) =
        start("mode = \"opaque\"\nlimits.bytes = { rate = \"1KiB/s\", burst = \"4KiB\", close = 4003 }");
    let (mut client, upstream) = open(&proxy, &listener);
    client.write_all(&[9; 8 << 10]).unwrap();
    let received = read_all(&upstream).0.len();
    assert!((4 << 10..(4 << 10) + 2 + RECORD).contains(&received), "{received}");
    assert_eq!(read_all(&client), (vec![], End::Fin));
    drop((client, upstream));
    proxy.log.wait_for("ended_by=downstream phase=open cause=byte-rate");
}
