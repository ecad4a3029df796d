//! Backpressure: long messages, many frames, receivers that are slow or read nothing.

use super::common::*;
use super::{BOTH, Bench, From, assert_close, assert_other_close};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// 64 MiB in which each byte shows its position: the period is not a divisor of any buffer size.
struct Long {
    period: Vec<u8>,
    header: Vec<u8>,
}

const LONG: usize = 64 << 20;

const PERIOD: usize = 65_521;

impl Long {
    fn new(from: From, salt: u32) -> Long {
        let byte = |i: u32| (i.wrapping_add(salt).wrapping_mul(2_654_435_761) >> 23) as u8;
        let period: Vec<u8> = (0..PERIOD as u32).map(byte).collect();
        let mut header = from.header(0x82, &[[127].as_slice(), &(LONG as u64).to_be_bytes()].concat());
        // A key of zeros leaves the payload as it is.
        header.iter_mut().skip(10).for_each(|byte| *byte = 0);
        Long { period: period.repeat(2), header }
    }

    /// Up to one period from `at`.
    fn part(&self, at: usize) -> &[u8] {
        let start = at % PERIOD;
        &self.period[start..start + PERIOD.min(LONG - at)]
    }

    /// Sends everything; waits at the barrier once the receiver has stopped the flow.
    fn send(&self, mut to: &TcpStream, stalled: &std::sync::Barrier) {
        to.write_all(&self.header).unwrap();
        to.set_write_timeout(Some(Duration::from_millis(150))).unwrap();
        let (mut at, mut waits) = (0, true);
        while at < LONG {
            match to.write(self.part(at)) {
                Ok(n) => at += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock && waits => {
                    assert!(at < LONG / 2, "{at} bytes were accepted without a reader");
                    waits = false;
                    stalled.wait();
                    to.set_write_timeout(Some(PATIENCE)).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!waits, "everything was accepted without a reader");
    }

    /// Reads everything once both senders are stalled, slowly at first.
    fn receive(&self, mut from: &TcpStream, stalled: &std::sync::Barrier) {
        stalled.wait();
        assert_eq!(read_exact(from, self.header.len()), self.header);
        let (mut at, mut buf) = (0, vec![0; 1 << 20]);
        while at < LONG {
            let size = if at < 100_000 { 97 } else { PERIOD };
            let n = from.read(&mut buf[..size.min(LONG - at)]).unwrap();
            assert!(n > 0 && buf[..n] == self.part(at)[..n], "differs near {at}");
            at += n;
        }
    }
}

#[test]
fn messages_of_64_mib_pass_both_ways_in_bounded_memory() {
    for mode in ["framed", "opaque"] {
        let bench = Bench::new(&format!("mode = \"{mode}\""));
        let (client, upstream) = open(&bench.proxy, &bench.listener);
        let before = bench.proxy.memory_kib("VmRSS");
        let (up, down) = (Long::new(From::Client, 0), Long::new(From::Upstream, 17));
        let stalled = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            scope.spawn(|| up.send(&client, &stalled));
            scope.spawn(|| down.send(&upstream, &stalled));
            scope.spawn(|| up.receive(&upstream, &stalled));
            down.receive(&client, &stalled);
        });
        let peak = bench.proxy.memory_kib("VmHWM");
        assert!(peak < before + 4096, "{mode}: grew from {before} to {peak} KiB");
        // Nothing was dropped, and nothing is left.
        let end = masked(0x88, &close_payload(1000, ""));
        (&client).write_all(&end).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&upstream), (end, End::Fin));
    }
}

/// The Close waits behind a backlog: nothing that was read before it is lost.
#[test]
fn violation_after_a_long_frame_waits_for_a_slow_reader() {
    let bench = Bench::new("");
    for from in BOTH {
        let (offender, other) = bench.open(from);
        let frame = from.frame(0x82, &vec![3; 16 << 20]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&offender).write_all(&[&frame[..], &from.frame(0x83, b"x")].concat()).unwrap();
            });
            eventually("a backlog", || (bench.proxy.metric("framegate_backlog_bytes") > 0.0).then_some(()));
            let (got, end) = read_all(&other);
            assert_eq!(end, End::Fin);
            assert!(got[..frame.len()] == frame, "from {from:?}");
            assert_other_close("other", &got[frame.len()..], from == From::Client);
        });
        assert_close("offender", &read_all(&offender).0, 1002, from == From::Upstream);
    }
}

/// Reproducible random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    /// Frames of all kinds and lengths, about `bytes` bytes.
    fn frames(&mut self, from: From, bytes: usize) -> Vec<u8> {
        let (mut out, mut open) = (Vec::with_capacity(bytes + 100_000), false);
        while out.len() < bytes {
            let len = match self.below(20) {
                0 => self.below(70_000),
                1 => 120 + self.below(12),
                2..6 => 0,
                _ => self.below(40),
            };
            let fin = self.below(3) > 0;
            let first = match self.below(10) {
                0 => 0x89,
                _ if open => u8::from(fin) << 7,
                _ => (u8::from(fin) << 7) | (1 + self.below(2) as u8),
            };
            if first != 0x89 {
                open = !fin;
            }
            let payload = vec![self.below(256) as u8; if first == 0x89 { len.min(125) } else { len }];
            out.extend(from.frame(first, &payload));
        }
        out
    }
}

/// Small and large frames, in pieces of any size, both ways at once, to slower readers.
#[test]
fn random_frames_reach_slow_readers_whole_and_end_with_fin() {
    let bench = Bench::new("[log]\naccess = \"off\"");
    for seed in 1..4 {
        let (client, upstream) = open(&bench.proxy, &bench.listener);
        let mut random = Random(seed);
        let (up, down) = (random.frames(From::Client, 12 << 20), random.frames(From::Upstream, 12 << 20));
        let send = |mut to: &TcpStream, bytes: &[u8], mut random: Random| {
            let mut at = 0;
            while at < bytes.len() {
                let size = if random.below(8) == 0 { 200_000 } else { 3000 };
                let n = 1 + random.below(size).min(bytes.len() - at - 1);
                to.write_all(&bytes[at..at + n]).unwrap();
                at += n;
            }
            to.shutdown(Shutdown::Write).unwrap();
        };
        let receive = |mut from: &TcpStream, bytes: &[u8], mut random: Random| {
            let (mut at, mut buf) = (0, vec![0; 1 << 18]);
            eventually("a backlog", || (bench.proxy.metric("framegate_backlog_bytes") > 0.0).then_some(()));
            loop {
                let size_max = if random.below(4) == 0 { 1 << 18 } else { 2000 };
                let size = 1 + random.below(size_max);
                let n = from.read(&mut buf[..size]).unwrap();
                assert!(bytes[at..].starts_with(&buf[..n]), "seed {seed}: differs near {at}");
                at += n;
                if n == 0 {
                    assert_eq!(at, bytes.len(), "seed {seed}");
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| send(&client, &up, Random(seed + 10)));
            scope.spawn(|| send(&upstream, &down, Random(seed + 20)));
            scope.spawn(|| receive(&upstream, &up, Random(seed + 30)));
            receive(&client, &down, Random(seed + 40));
        });
    }
}

/// A Close cannot be delivered inside a frame that never ends to a peer that reads nothing: the
/// session ends at the close deadline all the same.
#[test]
fn session_with_a_stalled_peer_ends_at_the_close_deadline() {
    let bench = Bench::new("timeouts = { close = \"300ms\", write_stall = \"1m\" }");
    for from in BOTH {
        let (sender, stalled) = bench.open(from);
        // One frame longer than all sockets on the way can hold. With shorter frames the proxy
        // could reach a boundary before the receiver stalls. The Close would then wait in the
        // backlog, where the write stall bounds it and not the close deadline.
        let frames = [from.frame(0x82, &[1; 60_000]), from.frame(0x82, &vec![1; 90_000_000])].concat();
        sender.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!((&sender).write_all(&frames).is_err(), "everything was accepted without a reader");
        // Now the stalled side breaks a rule.
        (&stalled).write_all(&from.other().frame(0x83, b"x")).unwrap();
        let (got, _) = read_all(&sender);
        assert_other_close("the other side", &got, from == From::Upstream);
        let sessions = || bench.proxy.metric("framegate_sessions{worker=\"0\"}");
        eventually("it has ended", || (sessions() == 0.0).then_some(()));
        // What was forwarded before is still there, and a prefix of what was sent.
        let (got, _) = read_all(&stalled);
        assert!(frames.starts_with(&got) && !got.is_empty());
    }
}
