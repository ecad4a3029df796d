//! The open session over real sockets: every check in both directions, whole and torn; how closes, ends and resets
//! pass; backpressure. The frames are written out by hand.

mod common;

use common::*;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Upstream,
}

impl From {
    fn frame(self, first: u8, payload: &[u8]) -> Vec<u8> {
        if self == From::Client { masked(first, payload) } else { plain(first, payload) }
    }

    /// A header alone, with the length written as `len` says: 7 bits, and what follows them.
    fn header(self, first: u8, len: &[u8]) -> Vec<u8> {
        let mask = if self == From::Client { 0x80 } else { 0 };
        let key: &[u8] = if self == From::Client { &[1, 2, 3, 4] } else { &[] };
        [&[first, mask | len[0]], &len[1..], key].concat()
    }

    fn other(self) -> From {
        if self == From::Client { From::Upstream } else { From::Client }
    }

    /// Of both ends: the one that sends and the one that receives.
    fn of(self, (client, upstream): (TcpStream, TcpStream)) -> (TcpStream, TcpStream) {
        if self == From::Client { (client, upstream) } else { (upstream, client) }
    }
}

const BOTH: [From; 2] = [From::Client, From::Upstream];

struct Bench {
    proxy: Proxy,
    listener: TcpListener,
}

impl Bench {
    fn new(config: &str) -> Bench {
        let (listener, addr) = listen();
        Bench { proxy: Proxy::alone_before(addr, config), listener }
    }

    /// The sender and the receiver of an open session.
    fn open(&self, from: From) -> (TcpStream, TcpStream) {
        from.of(open(&self.proxy, &self.listener))
    }

    /// The same with an extension negotiated.
    fn open_with(&self, from: From, extensions: &str) -> (TcpStream, TcpStream) {
        let line = format!("Sec-WebSocket-Extensions: {extensions}\r\n");
        let mut client = connect(self.proxy.addr);
        client.write_all(request("/", &line).as_bytes()).unwrap();
        let mut upstream = accept(&self.listener);
        read_head(&upstream);
        upstream.write_all(switching(&line).as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
        from.of((client, upstream))
    }
}

/// A stream that breaks a rule: what of it passes, what must not, and the code that the offender gets.
struct Violation {
    name: String,
    passes: Vec<u8>,
    offends: Vec<u8>,
    code: u16,
}

/// What [`violations`] are measured by.
const LIMITS: &str = "limits = { max_frame = \"1000B\", max_message = \"1500B\" }\n[log]\naccess = \"off\"";

#[rustfmt::skip]
fn violations(from: From) -> Vec<Violation> {
    let mut rows = Vec::new();
    let good = || from.frame(0x81, b"good");
    let mut row = |name: &str, passes: Vec<u8>, offends: Vec<u8>, code| rows.push(Violation { name: name.into(), passes, offends, code });
    let other = if from == From::Client { plain } else { masked };
    row("mask bit", good(), other(0x81, b"x"), 1002);
    row("mask bit of a ping", good(), other(0x89, b""), 1002);
    row("mask bit of a close", vec![], other(0x88, &close_payload(1000, "")), 1002);
    for opcode in (3..8).chain(11..16) {
        row(&format!("opcode {opcode}"), good(), from.frame(0x80 | opcode, b"x"), 1002);
    }
    for rsv in [0x10, 0x20, 0x40, 0x70] {
        row(&format!("bits {rsv:x} on text"), good(), from.frame(0x81 | rsv, b"x"), 1002);
        row(&format!("bits {rsv:x} on a ping"), good(), from.frame(0x89 | rsv, b"x"), 1002);
        row(&format!("bits {rsv:x} on a close"), vec![], from.frame(0x88 | rsv, b""), 1002);
    }
    let begun = || from.frame(0x01, b"begun");
    row("continuation first", vec![], from.frame(0x80, b"x"), 1002);
    row("continuation of nothing", good(), from.frame(0x00, b"x"), 1002);
    row("text in a message", begun(), from.frame(0x81, b"x"), 1002);
    row("binary in a message", begun(), from.frame(0x02, b"x"), 1002);
    row("continuation behind the last", [begun(), from.frame(0x80, b"end")].concat(), from.frame(0x80, b"x"), 1002);
    row("text in a message after a ping", [begun(), from.frame(0x89, b"p")].concat(), from.frame(0x01, b"x"), 1002);
    for opcode in 8..11 {
        row(&format!("a fragment of {opcode}"), good(), from.frame(opcode, b""), 1002);
        row(&format!("126 bytes in {opcode}"), good(), from.frame(0x80 | opcode, &[0; 126]), 1002);
        row(&format!("a 64-bit length in {opcode}"), good(), from.header(0x80 | opcode, &[127, 0, 0, 0, 0, 0, 1, 0, 0]), 1002);
        row(&format!("a short 16-bit length in {opcode}"), good(), from.header(0x80 | opcode, &[126, 0, 0]), 1002);
    }
    row("16 bits for 125", good(), from.header(0x82, &[126, 0, 125]), 1002);
    row("16 bits for 0", good(), from.header(0x82, &[126, 0, 0]), 1002);
    row("64 bits for 65535", good(), from.header(0x82, &[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), 1002);
    row("64 bits for 0", good(), from.header(0x82, &[127, 0, 0, 0, 0, 0, 0, 0, 0]), 1002);
    row("the top bit", good(), from.header(0x82, &[127, 0x80, 0, 0, 0, 0, 1, 0, 0]), 1002);
    row("all bits", good(), from.header(0x82, &[127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1002);
    row("a close of 1 byte", good(), from.frame(0x88, b"x"), 1002);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2999, 5000, 65535] {
        row(&format!("close code {code}"), good(), from.frame(0x88, &close_payload(code, "why")), 1002);
    }
    row("a close that breaks into a message", begun(), from.frame(0x88, &close_payload(1006, "")), 1002);
    row("1001 bytes", good(), from.frame(0x82, &[0; 1001]), 1009);
    row("2^62 bytes", good(), from.header(0x82, &[127, 0x40, 0, 0, 0, 0, 0, 0, 0]), 1009);
    let half = || from.frame(0x02, &[0; 800]);
    row("1501 bytes in two", half(), from.frame(0x80, &[0; 701]), 1009);
    row("1501 bytes in three", [half(), from.frame(0x00, &[0; 700])].concat(), from.frame(0x80, &[0]), 1009);
    row("1501 bytes around a ping", [half(), from.frame(0x89, &[0; 125])].concat(), from.frame(0x00, &[0; 701]), 1009);
    rows
}

/// How what is sent is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    At(usize),
    EveryByte,
}

fn write_cut(mut stream: &TcpStream, bytes: &[u8], cut: Cut) {
    match cut {
        Cut::Whole => stream.write_all(bytes).unwrap(),
        Cut::At(at) => {
            stream.write_all(&bytes[..at]).unwrap();
            // The proxy shares these cores: this is when it may read.
            std::thread::yield_now();
            stream.write_all(&bytes[at..]).unwrap();
        }
        Cut::EveryByte => bytes.chunks(1).for_each(|byte| stream.write_all(byte).unwrap()),
    }
}

/// `bytes` are one Close with `code` and some reason, masked or not.
fn assert_close(name: &str, bytes: &[u8], code: u16, is_masked: bool) {
    assert!(bytes.len() >= 2 && bytes[0] == 0x88, "{name}: {bytes:x?}");
    assert_eq!(bytes[1] & 0x80 != 0, is_masked, "{name}: mask bit");
    let head = if is_masked { 6 } else { 2 };
    assert_eq!(bytes.len(), head + usize::from(bytes[1] & 0x7f), "{name}: one frame: {bytes:x?}");
    let key: [u8; 4] = if is_masked { bytes[2..6].try_into().unwrap() } else { [0; 4] };
    let payload: Vec<u8> = bytes[head..].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), code, "{name}");
    assert!(payload.len() > 2 && str::from_utf8(&payload[2..]).is_ok(), "{name}: no reason");
}

fn violate(bench: &Bench, from: From, row: &Violation, cut: Cut) {
    let name = format!("{}, from {from:?}, cut {cut:?}", row.name);
    let (offender, other) = bench.open(from);
    let smuggled = from.frame(0x81, b"smuggled");
    write_cut(&offender, &[&row.passes[..], &row.offends, &smuggled].concat(), cut);
    let (got, end) = read_all(&other);
    assert_eq!(end, End::Fin, "{name}");
    assert!(got.starts_with(&row.passes), "{name}: {got:x?}");
    assert_close(&name, &got[row.passes.len()..], 1001, from == From::Client);
    let (got, end) = read_all(&offender);
    assert_eq!(end, End::Fin, "{name}");
    assert_close(&name, &got, row.code, from == From::Upstream);
}

fn every_violation(from: From) {
    let bench = Bench::new(LIMITS);
    for row in violations(from) {
        let start = row.passes.len();
        let cuts = (start.max(1)..start + row.offends.len().min(20)).map(Cut::At);
        for cut in [Cut::Whole, Cut::EveryByte].into_iter().chain(cuts) {
            violate(&bench, from, &row, cut);
        }
    }
}

#[test]
fn every_violation_of_a_client_closes_both_sides_however_it_is_cut() {
    every_violation(From::Client);
}

#[test]
fn every_violation_of_an_upstream_closes_both_sides_however_it_is_cut() {
    every_violation(From::Upstream);
}

/// No byte of an offending header leaves, not even while it is incomplete.
#[test]
fn an_incomplete_header_waits() {
    let bench = Bench::new(LIMITS);
    for from in BOTH {
        let (mut sender, mut receiver) = bench.open(from);
        let header = from.header(0x82, &[126, 1, 0]);
        sender.write_all(&[from.frame(0x81, b"good"), header[..header.len() - 1].to_vec()].concat()).unwrap();
        let good = from.frame(0x81, b"good");
        assert_eq!(read_exact(&receiver, good.len()), good);
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(receiver.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let rest = [&header[header.len() - 1..], &[5; 256]].concat();
        sender.write_all(&rest).unwrap();
        assert_eq!(read_exact(&receiver, header.len() + 256), [&header[..], &[5; 256]].concat());
    }
}

/// What is right passes byte by byte as it is: all lengths, fragments, control frames between them, closes.
#[test]
fn what_breaks_no_rule_passes_unchanged_however_it_is_cut() {
    let bench = Bench::new("[log]\naccess = \"off\"");
    for from in BOTH {
        let lengths = [0, 1, 124, 125, 126, 127, 65_535, 65_536].map(|len| from.frame(0x82, &vec![len as u8; len]));
        let messages = [
            from.frame(0x01, b"one"),
            from.frame(0x89, &[1; 125]),
            from.frame(0x00, b""),
            from.frame(0x8a, b""),
            from.frame(0x80, b"two"),
            from.frame(0x02, b""),
            from.frame(0x80, b""),
            from.frame(0x8a, b"unasked"),
            from.frame(0x89, b""),
        ];
        let small = messages.concat();
        let all = [lengths.concat(), small.clone()].concat();
        let (sender, receiver) = bench.open(from);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                write_cut(&sender, &all, Cut::Whole);
                write_cut(&sender, &small, Cut::EveryByte);
                (1..small.len()).for_each(|at| write_cut(&sender, &small, Cut::At(at)));
            });
            assert!(read_exact(&receiver, all.len()) == all, "from {from:?}");
            for at in 0..small.len() {
                assert_eq!(read_exact(&receiver, small.len()), small, "from {from:?}, cut at {at}");
            }
        });
        let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
        let mut closes: Vec<_> = codes.iter().map(|code| from.frame(0x88, &close_payload(*code, "why"))).collect();
        closes.extend([from.frame(0x88, b""), from.frame(0x88, &close_payload(1000, &"r".repeat(123)))]);
        for close in closes {
            for cut in [Cut::Whole, Cut::EveryByte] {
                let (sender, receiver) = bench.open(from);
                write_cut(&sender, &close, cut);
                assert_eq!(read_exact(&receiver, close.len()), close, "from {from:?}");
            }
        }
    }
}

#[test]
fn an_opaque_route_passes_everything() {
    let bench = Bench::new("mode = \"opaque\"\n[log]\naccess = \"off\"");
    for from in BOTH {
        for row in violations(from) {
            let (mut sender, receiver) = bench.open(from);
            let all = [row.passes, row.offends, b"\xff\xff no frame at all".to_vec()].concat();
            sender.write_all(&all).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
            assert!(read_all(&receiver) == (all, End::Fin), "{}", row.name);
        }
    }
}

/// Frames at a limit pass; one more byte is in [`violations`].
#[test]
fn frames_and_messages_at_their_limits_pass() {
    let bench = Bench::new(LIMITS);
    for from in BOTH {
        let all = [
            from.frame(0x82, &[0; 1000]),
            from.frame(0x02, &[0; 1000]),
            from.frame(0x89, &[0; 125]),
            from.frame(0x80, &[0; 500]),
            from.frame(0x82, &[0; 1000]),
        ]
        .concat();
        let (mut sender, receiver) = bench.open(from);
        sender.write_all(&all).unwrap();
        assert_eq!(read_exact(&receiver, all.len()), all);
    }
}

#[test]
fn what_an_extension_allows_passes_and_the_other_checks_stay() {
    type Row = (&'static str, fn(From) -> Vec<u8>, Option<u16>);
    const DEFLATE: &[Row] = &[
        ("RSV1 on text", |from| from.frame(0xc1, b"x"), None),
        ("RSV1 on binary", |from| from.frame(0xc2, b"x"), None),
        ("RSV1 on the first of two", |from| [from.frame(0x41, b"x"), from.frame(0x80, b"y")].concat(), None),
        ("no bits", |from| from.frame(0x81, b"x"), None),
        ("RSV1 on a ping", |from| from.frame(0xc9, b"x"), Some(1002)),
        ("RSV1 on a close", |from| from.frame(0xc8, b""), Some(1002)),
        ("RSV2", |from| from.frame(0xa1, b"x"), Some(1002)),
        ("RSV3", |from| from.frame(0x91, b"x"), Some(1002)),
        ("opcode 3", |from| from.frame(0x83, b"x"), Some(1002)),
    ];
    const UNKNOWN: &[Row] = &[
        ("all bits on text", |from| from.frame(0xf1, b"x"), None),
        ("all bits on a ping", |from| from.frame(0xf9, b"x"), None),
        ("opcodes 3 to 7", |from| (3..8).flat_map(|opcode| from.frame(0x80 | opcode, b"x")).collect(), None),
        ("opcodes 11 to 15", |from| (11..16).flat_map(|opcode| from.frame(0x80 | opcode, b"x")).collect(), None),
        ("a long control frame of opcode 11", |from| from.frame(0x8b, &[0; 126]), Some(1002)),
        ("a fragment of opcode 11", |from| from.frame(0x0b, b""), Some(1002)),
        ("close code 1005", |from| from.frame(0x88, &close_payload(1005, "")), Some(1002)),
        ("16 bits for 125", |from| from.header(0x82, &[126, 0, 125]), Some(1002)),
        ("continuation of nothing", |from| from.frame(0x80, b""), Some(1002)),
        ("mask bit", |from| if from == From::Client { plain(0xf1, b"x") } else { masked(0xf1, b"x") }, Some(1002)),
    ];
    let bench = Bench::new("[log]\naccess = \"off\"");
    let cases = [
        ("permessage-deflate", DEFLATE),
        ("permessage-deflate; server_no_context_takeover", DEFLATE),
        ("x-own", UNKNOWN),
        ("permessage-deflate, x-own", UNKNOWN),
    ];
    for (extensions, rows) in cases {
        for (from, (name, bytes, code)) in BOTH.into_iter().flat_map(|from| rows.iter().map(move |row| (from, row))) {
            let name = format!("{extensions}: {name} from {from:?}");
            let bytes = bytes(from);
            for cut in [Cut::Whole, Cut::EveryByte] {
                let (sender, receiver) = bench.open_with(from, extensions);
                write_cut(&sender, &bytes, cut);
                match code {
                    None => assert_eq!(read_exact(&receiver, bytes.len()), bytes, "{name}"),
                    Some(code) => {
                        assert_close(&name, &read_all(&receiver).0, 1001, from == From::Client);
                        assert_close(&name, &read_all(&sender).0, *code, from == From::Upstream);
                    }
                }
            }
        }
    }
    // RSV1 on a continuation, its message begun.
    for from in BOTH {
        let (mut sender, receiver) = bench.open_with(from, "permessage-deflate");
        let begun = from.frame(0x41, b"x");
        sender.write_all(&[begun.clone(), from.frame(0xc0, b"y")].concat()).unwrap();
        let got = read_all(&receiver).0;
        assert!(got.starts_with(&begun));
        assert_close("continuation", &got[begun.len()..], 1001, from == From::Client);
    }
}

/// After both Closes: FIN to the client at once; the upstream's connection waits for the upstream's FIN.
#[test]
fn a_closing_handshake_passes_verbatim_and_ends_in_order() {
    let bench = Bench::new("");
    for from in BOTH {
        for cut in [Cut::Whole, Cut::EveryByte] {
            let (closer, answerer) = bench.open(from);
            let other = from.other();
            let close = from.frame(0x88, &close_payload(4001, "first"));
            write_cut(&closer, &close, cut);
            assert_eq!(read_exact(&answerer, close.len()), close);
            // The other direction flows on until its own Close.
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
fn what_comes_behind_a_close_is_discarded_and_the_other_close_still_passes() {
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
            // TLS is thrown away unopened.
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
fn who_sends_behind_its_close_and_hears_none_gets_1002_after_half_a_second() {
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
        // Where this is the upstream, its own FIN comes first.
        answerer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&answerer), (close, End::Fin), "from {from:?}");
    }
}

#[test]
fn a_close_that_is_never_answered_ends_at_its_deadline() {
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

/// A violation while the other direction stands inside a frame: that frame goes on to its end, then comes our Close.
#[test]
fn our_close_waits_for_the_end_of_a_frame() {
    let bench = Bench::new("");
    for from in BOTH {
        // `from` sends a long frame, the other one offends in its middle.
        let (mut sender, mut offender) = bench.open(from);
        let frame = from.frame(0x82, &vec![7; 1 << 20]);
        let (first, rest) = frame.split_at(400_000);
        sender.write_all(first).unwrap();
        assert!(read_exact(&offender, first.len()) == first);
        let other = from.other();
        offender.write_all(&other.frame(0x83, b"x")).unwrap();
        // The sender's own direction stands at a boundary.
        let (got, end) = read_all(&sender);
        assert_eq!(end, End::Fin);
        assert_close("the other side", &got, 1001, from == From::Upstream);
        // It goes on, and behind its frame with what is not forwarded any more.
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
fn a_frame_that_never_ends_gets_no_close_inside_it() {
    let bench = Bench::new("timeouts = { close = \"300ms\" }");
    for from in BOTH {
        let (mut sender, mut offender) = bench.open(from);
        let frame = from.frame(0x82, &[7; 5000]);
        sender.write_all(&frame[..4000]).unwrap();
        assert_eq!(read_exact(&offender, 4000), &frame[..4000]);
        let other = from.other();
        offender.write_all(&other.frame(0x83, b"x")).unwrap();
        assert_close("the other side", &read_all(&sender).0, 1001, from == From::Upstream);
        assert_eq!(read_all(&offender).0, vec![], "from {from:?}");
    }
}

#[test]
fn fin_passes_as_fin_and_the_other_direction_flows_on() {
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
fn a_reset_passes_as_a_reset_behind_what_was_read() {
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

/// A route may say an upstream's loss with a Close.
#[test]
fn the_loss_of_an_upstream_is_a_close_where_the_route_wants_it() {
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
    // Not inside a frame.
    let (mut upstream, client) = bench.open(From::Upstream);
    upstream.write_all(&last[..4]).unwrap();
    drop(upstream);
    assert_eq!(read_all(&client), (last[..4].to_vec(), End::Fin));
}

#[test]
fn urgent_data_is_a_violation_in_every_phase() {
    if *SECURED != PLAIN {
        // It goes around TLS, and so ends at what stands before the test; tests/tls.rs sends it by itself.
        return;
    }
    let bench = Bench::new("");
    for from in BOTH {
        let (offender, other) = bench.open(from);
        SockRef::from(&offender).send_out_of_band(b"!").unwrap();
        let (got, end) = read_all(&other);
        assert_close("other", &got, 1001, from == From::Client);
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

/// A value of `/proc/PID/status`, in KiB.
fn memory_kib(proxy: &Proxy, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// 64 MiB whose place every byte shows: a period that no buffer size divides.
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

    /// Sends all; says when the receiver has not taken any for a while.
    fn send(&self, mut to: &TcpStream, stalled: &std::sync::Barrier) {
        to.write_all(&self.header).unwrap();
        to.set_write_timeout(Some(Duration::from_millis(150))).unwrap();
        let (mut at, mut waits) = (0, true);
        while at < LONG {
            match to.write(self.part(at)) {
                Ok(n) => at += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock && waits => {
                    assert!(at < LONG / 2, "{at} bytes were taken while nobody read");
                    waits = false;
                    stalled.wait();
                    to.set_write_timeout(Some(PATIENCE)).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!waits, "nobody read, and yet all was taken");
    }

    /// Once both senders stand still: reads all, slowly at first.
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
fn messages_of_64_mib_pass_both_ways_at_once_to_slow_readers_through_bounded_memory() {
    for mode in ["framed", "opaque"] {
        let bench = Bench::new(&format!("mode = \"{mode}\""));
        let (client, upstream) = open(&bench.proxy, &bench.listener);
        let before = memory_kib(&bench.proxy, "VmRSS");
        let (up, down) = (Long::new(From::Client, 0), Long::new(From::Upstream, 17));
        let stalled = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            scope.spawn(|| up.send(&client, &stalled));
            scope.spawn(|| down.send(&upstream, &stalled));
            scope.spawn(|| up.receive(&upstream, &stalled));
            down.receive(&client, &stalled);
        });
        let peak = memory_kib(&bench.proxy, "VmHWM");
        assert!(peak < before + 4096, "{mode}: grew from {before} to {peak} KiB");
        // Nothing was dropped, and nothing is left over.
        let end = masked(0x88, &close_payload(1000, ""));
        (&client).write_all(&end).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&upstream), (end, End::Fin));
    }
}

/// Closes that must wait behind a backlog: nothing that was read before is lost.
#[test]
fn a_violation_behind_a_long_frame_waits_for_a_slow_reader() {
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
            assert_close("other", &got[frame.len()..], 1001, from == From::Client);
        });
        assert_close("offender", &read_all(&offender).0, 1002, from == From::Upstream);
    }
}

/// A source of numbers that is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    /// Frames of all kinds and lengths, about so many bytes.
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

/// Small and large frames in pieces of any size, both ways at once, to readers that are slower: not a byte is lost, and
/// FIN comes behind the last.
#[test]
fn a_hail_of_frames_passes_whole_to_slow_readers_and_ends_with_fin() {
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

/// Our Close cannot be delivered to who reads nothing: the session ends at its deadline all the same.
#[test]
fn a_close_to_who_reads_nothing_ends_at_its_deadline() {
    // Where a boundary is reached before it stalls, the Close waits to leave, and only then its deadline begins.
    let bench = Bench::new("timeouts = { close = \"300ms\", write_stall = \"1m\" }");
    for from in BOTH {
        let (sender, stalled) = bench.open(from);
        // More than all sockets on the way take together.
        let frames = from.frame(0x82, &[1; 60_000]).repeat(1_500);
        sender.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!((&sender).write_all(&frames).is_err(), "all was taken for a peer that reads nothing");
        // Now the stalled one offends.
        (&stalled).write_all(&from.other().frame(0x83, b"x")).unwrap();
        let (got, _) = read_all(&sender);
        assert_close("the other side", &got, 1001, from == From::Upstream);
        let sessions = || bench.proxy.metric("framegate_sessions{worker=\"0\"}");
        eventually("it has ended", || (sessions() == 0.0).then_some(()));
        // What had passed before is still there, and a prefix of what was sent.
        let (got, _) = read_all(&stalled);
        assert!(frames.starts_with(&got) && !got.is_empty());
    }
}
