//! The established session over real sockets: each check in both directions, with the stream in one
//! piece and cut at every byte. Frames are written out by hand.

#[path = "relay/bulk.rs"]
mod bulk;
#[path = "relay/closing.rs"]
mod closing;
mod common;

use common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// The side that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Upstream,
}

impl From {
    fn frame(self, first: u8, payload: &[u8]) -> Vec<u8> {
        if self == From::Client { masked(first, payload) } else { plain(first, payload) }
    }

    /// A header alone: `len` is the 7-bit length and the extended length after it.
    fn header(self, first: u8, len: &[u8]) -> Vec<u8> {
        let mask = if self == From::Client { 0x80 } else { 0 };
        let key: &[u8] = if self == From::Client { &[1, 2, 3, 4] } else { &[] };
        [&[first, mask | len[0]], &len[1..], key].concat()
    }

    fn other(self) -> From {
        if self == From::Client { From::Upstream } else { From::Client }
    }

    /// Orders both ends of a session: the sender, then the receiver.
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

/// A stream that breaks a rule: the bytes that are forwarded, those that are not, and the close
/// code for the offender.
struct Violation {
    name: String,
    passes: Vec<u8>,
    offends: Vec<u8>,
    code: u16,
}

/// The limits that [`violations`] exceed.
const LIMITS: &str = "limits = { max_frame = \"1000B\", max_message = \"1500B\" }\n[log]\naccess = \"off\"";

#[rustfmt::skip]
fn violations(from: From) -> Vec<Violation> {
    let mut rows = Vec::new();
    let good = || from.frame(0x81, b"good");
    let mut row = |name: &str, passes: Vec<u8>, offends: Vec<u8>, code| {
        rows.push(Violation { name: name.into(), passes, offends, code });
    };
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
        let long = from.header(0x80 | opcode, &[127, 0, 0, 0, 0, 0, 1, 0, 0]);
        row(&format!("a 64-bit length in {opcode}"), good(), long, 1002);
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

/// How a stream is cut into writes.
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
            // Gives the proxy, which shares these cores, a chance to read.
            std::thread::yield_now();
            stream.write_all(&bytes[at..]).unwrap();
        }
        Cut::EveryByte => bytes.chunks(1).for_each(|byte| stream.write_all(byte).unwrap()),
    }
}

/// `bytes` are exactly one Close with `code` and a reason.
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

/// The Close for the side that did nothing wrong: 1001 for an upstream, 1014 for a client whose
/// upstream broke the protocol.
fn assert_other_close(name: &str, bytes: &[u8], is_masked: bool) {
    assert_close(name, bytes, if is_masked { 1001 } else { 1014 }, is_masked);
}

fn violate(bench: &Bench, from: From, row: &Violation, cut: Cut) {
    let name = format!("{}, from {from:?}, cut {cut:?}", row.name);
    let (offender, other) = bench.open(from);
    let smuggled = from.frame(0x81, b"smuggled");
    write_cut(&offender, &[&row.passes[..], &row.offends, &smuggled].concat(), cut);
    let (got, end) = read_all(&other);
    assert_eq!(end, End::Fin, "{name}");
    assert!(got.starts_with(&row.passes), "{name}: {got:x?}");
    assert_other_close(&name, &got[row.passes.len()..], from == From::Client);
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
fn client_violations_close_both_sides_at_every_cut() {
    every_violation(From::Client);
}

#[test]
fn upstream_violations_close_both_sides_at_every_cut() {
    every_violation(From::Upstream);
}

/// Not one byte of a header is forwarded before the header is complete and valid.
#[test]
fn incomplete_header_is_held_back() {
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

/// Valid frames of all lengths, fragments, control frames between fragments, and Closes.
#[test]
fn valid_frames_are_forwarded_unchanged_at_every_cut() {
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
fn opaque_route_forwards_everything() {
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

/// One byte more is in [`violations`].
#[test]
fn frames_and_messages_at_their_limits_are_forwarded() {
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
fn negotiated_extension_relaxes_only_its_own_checks() {
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
                        assert_other_close(&name, &read_all(&receiver).0, from == From::Client);
                        assert_close(&name, &read_all(&sender).0, *code, from == From::Upstream);
                    }
                }
            }
        }
    }
    // RSV1 on a continuation frame.
    for from in BOTH {
        let (mut sender, receiver) = bench.open_with(from, "permessage-deflate");
        let begun = from.frame(0x41, b"x");
        sender.write_all(&[begun.clone(), from.frame(0xc0, b"y")].concat()).unwrap();
        let got = read_all(&receiver).0;
        assert!(got.starts_with(&begun));
        assert_other_close("continuation", &got[begun.len()..], from == From::Client);
    }
}
