//! Sockets and frames written out by hand, as client and as backend: for what no library sends or
//! shows. Nothing here shares a line with the proxy's framer.

use super::record::{Records, compare, fetch, pattern, query};
use super::tungstenite::reset;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tungstenite::handshake::derive_accept_key;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const MASK: Option<[u8; 4]> = Some([0x12, 0x9A, 0x00, 0xFF]);
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A unique name for one session.
pub fn id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("r{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Lets the receiver run between two writes, so that it usually reads them separately. No result
/// depends on it: the tests without sockets cut at every byte for certain.
fn let_receiver_run() {
    thread::sleep(Duration::from_millis(1));
}

fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(bit | n as u8),
        n @ 126..=65535 => {
            out.push(bit | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    out.extend(mask.iter().flatten());
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]));
    out
}

fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat(), mask)
}

/// A socket, and bytes read from it but not used yet.
struct Peer {
    stream: TcpStream,
    held: Vec<u8>,
}

/// The result of a read: a frame (first byte, payload), the FIN, or a reset.
#[derive(Debug, PartialEq)]
enum Got {
    Frame(u8, Vec<u8>),
    Fin,
    Reset,
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        Peer { stream, held: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|e| format!("write: {e}"))
    }

    /// Two writes, which usually arrive as two.
    fn write_cut(&mut self, bytes: &[u8], cut: usize) -> Result<(), String> {
        self.write(&bytes[..cut.min(bytes.len())])?;
        let_receiver_run();
        self.write(&bytes[cut.min(bytes.len())..])
    }

    fn drip(&mut self, bytes: &[u8]) -> Result<(), String> {
        bytes.iter().try_for_each(|b| {
            let_receiver_run();
            self.write(&[*b])
        })
    }

    fn head(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.held.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.held.drain(..end + 4).collect();
                return String::from_utf8(head).map_err(|e| e.to_string());
            }
            if let Some(end) = self.fill()? {
                return Err(format!("{end:?} in the head: {:?}", String::from_utf8_lossy(&self.held)));
            }
        }
    }

    /// Reads once more; `Some` at the end of the stream.
    fn fill(&mut self) -> Result<Option<Got>, String> {
        let mut buf = [0; 65536];
        match self.stream.read(&mut buf) {
            Ok(0) => Ok(Some(Got::Fin)),
            Ok(n) => {
                self.held.extend_from_slice(&buf[..n]);
                Ok(None)
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(Some(Got::Reset)),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(None),
            Err(e) => Err(format!("read: {e}")),
        }
    }

    fn next(&mut self) -> Result<Got, String> {
        loop {
            if let Some((first, payload, used)) = parse(&self.held) {
                self.held.drain(..used);
                return Ok(Got::Frame(first, payload));
            }
            if let Some(end) = self.fill()? {
                return if self.held.is_empty() { Ok(end) } else { Err(format!("{end:?} inside a frame")) };
            }
        }
    }

    fn expect(&mut self, first: u8, payload: &[u8]) -> Result<(), String> {
        match self.next()? {
            Got::Frame(f, p) if f == first && p == payload => Ok(()),
            Got::Frame(f, p) => {
                Err(format!("frame {f:#x} of {} bytes instead of {first:#x} of {}", p.len(), payload.len()))
            }
            end => Err(format!("{end:?} instead of frame {first:#x}")),
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (len, mut at) = match second & 0x7F {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        n => (n as usize, 2),
    };
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        key.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let payload = bytes.get(at..at + len)?;
    Some((first, payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect(), at + len))
}

// ---- backend

/// Starts the backend; its port. One thread a connection, for the life of the process.
pub fn backend(records: &Records) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let records = records.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let records = records.clone();
            thread::spawn(move || {
                let mut peer = Peer::new(stream);
                let Ok(head) = peer.head() else { return };
                let q = query(head.split_whitespace().nth(1).unwrap_or(""));
                let mut seen = Seen::default();
                let ended = serve(&mut peer, &head, &q, &mut seen);
                records.set(q.get("id").map_or("", String::as_str), seen.record(ended));
            });
        }
    });
    port
}

#[derive(Default)]
struct Seen {
    messages: usize,
    bytes: usize,
    code: u16,
    reason: String,
}

impl Seen {
    fn record(&self, ended: Result<Got, String>) -> Value {
        match ended {
            Ok(end) => json!({
                "messages": self.messages, "bytes": self.bytes, "code": self.code, "reason": self.reason,
                "reset": end == Got::Reset, "fin": end == Got::Fin,
            }),
            Err(e) => json!({ "error": e }),
        }
    }
}

fn serve(peer: &mut Peer, head: &str, q: &HashMap<String, String>, seen: &mut Seen) -> Result<Got, String> {
    let number = |k: &str| q.get(k).and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
    let greetings: Vec<u8> =
        (1..=number("n")).flat_map(|i| frame(BINARY, &pattern("binary", i * 37, i), None)).collect();
    let opening = [answer(head)?.into_bytes(), greetings].concat();
    let what = q.get("do").map_or("echo", String::as_str);
    match what {
        "cut" => {
            // The scenario counts up to 260, the last byte may come before that.
            assert!(opening.len() < 260 && opening.len() > 200, "{} bytes", opening.len());
            peer.write_cut(&opening, number("cut"))?;
        }
        "glued_close" => peer.write(&[opening, close(4002, "glued", None)].concat())?,
        _ => peer.write(&opening)?,
    }
    match what {
        "early_fin" => {
            peer.stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
            take(peer, seen, |_, _, _| Ok(()))
        }
        "late_fin" => {
            let end = take(peer, seen, |_, _, _| Ok(()))?;
            (1..=20).try_for_each(|i| peer.write(&frame(BINARY, &pattern("binary", i * 37, i), None)))?;
            Ok(end)
        }
        "data_fin" => {
            peer.write(&frame(BINARY, &pattern("binary", 1 << 20, 9), None))?;
            peer.stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
            take(peer, seen, |_, _, _| Ok(()))
        }
        "reset" => {
            peer.next()?;
            reset(&peer.stream);
            Ok(Got::Reset)
        }
        "glued_close" => take(peer, seen, |_, _, _| Ok(())),
        "torn" => take(peer, seen, |p, first, payload| p.drip(&frame(first, payload, None))),
        _ => take(peer, seen, |p, first, payload| p.write(&frame(first, payload, None))),
    }
}

/// Reads to the end of the stream, counts, and passes each message (and the Close) to `each`.
fn take(
    peer: &mut Peer,
    seen: &mut Seen,
    each: impl Fn(&mut Peer, u8, &[u8]) -> Result<(), String>,
) -> Result<Got, String> {
    loop {
        match peer.next()? {
            Got::Frame(CLOSE, payload) => {
                seen.code = payload.get(..2).map_or(1005, |c| u16::from_be_bytes([c[0], c[1]]));
                seen.reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                each(peer, CLOSE, &payload)?;
                // The server closes first: RFC 6455 section 7.1.1.
                let _ = peer.stream.shutdown(Shutdown::Write);
            }
            Got::Frame(PING, payload) => each(peer, PONG, &payload)?,
            Got::Frame(first, payload) => {
                seen.messages += 1;
                seen.bytes += payload.len();
                each(peer, first, &payload)?;
            }
            end => return Ok(end),
        }
    }
}

fn answer(head: &str) -> Result<String, String> {
    let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with("sec-websocket-key:"));
    let key = line.and_then(|l| l.split_once(':')).map(|(_, k)| k.trim()).ok_or("no key")?;
    let accept = derive_accept_key(key.as_bytes());
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

// ---- client

pub struct Raw {
    pub name: &'static str,
    /// Played against the raw backend; all others against every other backend.
    pub raw_backend: bool,
    /// Known failures of other proxies.
    pub known: &'static [(&'static str, &'static str)],
    /// Ports of the proxy and of the backend's records.
    pub play: fn(u16, u16) -> Result<(), String>,
}

pub const SCENARIOS: &[Raw] = &[
    Raw {
        name: "request and frames in one write",
        raw_backend: false,
        known: &[("none", "tungstenite takes no early bytes")],
        play: glued,
    },
    Raw { name: "request torn at every byte", raw_backend: false, known: &[], play: torn_heads },
    Raw { name: "frames torn at every byte", raw_backend: false, known: &[], play: torn_frames },
    Raw {
        name: "everything a byte at a time",
        raw_backend: false,
        known: &[("none", "tungstenite takes no head in many pieces")],
        play: dripped,
    },
    Raw {
        name: "half-close by the client",
        raw_backend: true,
        known: &[("nginx", "ends both directions at the first FIN")],
        play: half_close_by_client,
    },
    Raw {
        name: "half-close by the backend",
        raw_backend: true,
        known: &[
            ("nginx", "ends both directions at the first FIN"),
            ("haproxy", "ends both directions at the first FIN"),
        ],
        play: half_close_by_backend,
    },
    Raw { name: "a megabyte, then FIN without a Close", raw_backend: true, known: &[], play: data_then_fin },
    Raw {
        name: "reset by the client arrives as a reset",
        raw_backend: true,
        known: &[("nginx", "passes a reset on as a FIN")],
        play: reset_by_client,
    },
    Raw {
        name: "reset by the backend arrives as a reset",
        raw_backend: true,
        known: &[("nginx", "passes a reset on as a FIN"), ("haproxy", "passes a reset on as a FIN")],
        play: reset_by_backend,
    },
];

fn request(port: u16, what: &str, id: &str) -> Vec<u8> {
    format!(
        "GET /peers?do={what}&id={id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nCookie: a=1; b=2\r\n\r\n"
    )
    .into_bytes()
}

fn connect(port: u16) -> Result<Peer, String> {
    TcpStream::connect(("127.0.0.1", port)).map(Peer::new).map_err(|e| format!("connect: {e}"))
}

/// A session with an ordinary handshake.
fn open(port: u16, what: &str, id: &str) -> Result<Peer, String> {
    let mut peer = connect(port)?;
    peer.write(&request(port, what, id))?;
    opened(&mut peer)?;
    Ok(peer)
}

fn opened(peer: &mut Peer) -> Result<(), String> {
    let head = peer.head()?;
    let right = head.starts_with("HTTP/1.1 101 ") && head.contains(&derive_accept_key(KEY.as_bytes()));
    if right { Ok(()) } else { Err(format!("answer: {head}")) }
}

/// Close both ways, then FIN both ways.
fn farewell(mut peer: Peer) -> Result<(), String> {
    peer.write(&close(1000, "", MASK))?;
    peer.expect(CLOSE, &1000_u16.to_be_bytes())?;
    match peer.next()? {
        Got::Fin => Ok(()),
        other => Err(format!("{other:?} after the Close")),
    }
}

fn recorded(control: u16, id: &str, want: &Value) -> Result<(), String> {
    compare(&fetch(control, id), want)
}

fn glued(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let (a, b) = (pattern("text", 34, 0), pattern("binary", 3000, 1));
    let mut peer = connect(port)?;
    let early = [frame(TEXT, &a, MASK), frame(BINARY, &b, MASK), frame(TEXT, b"", MASK)].concat();
    peer.write(&[request(port, "echo", &id), early].concat())?;
    opened(&mut peer)?;
    peer.expect(TEXT, &a)?;
    peer.expect(BINARY, &b)?;
    peer.expect(TEXT, b"")?;
    farewell(peer)?;
    recorded(control, &id, &json!({ "messages": 3, "code": 1000 }))
}

fn torn_heads(port: u16, _: u16) -> Result<(), String> {
    for cut in 1..request(port, "echo", &id()).len() {
        let session = || {
            let mut peer = connect(port)?;
            peer.write_cut(&request(port, "echo", &id()), cut)?;
            opened(&mut peer)?;
            peer.write(&frame(TEXT, b"hello", MASK))?;
            peer.expect(TEXT, b"hello")?;
            farewell(peer)
        };
        session().map_err(|e| format!("cut {cut}: {e}"))?;
    }
    Ok(())
}

/// Messages with each form of length, one in fragments, a ping in between: the bytes, and the
/// echoes.
fn conversation() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
    let long = pattern("binary", 150, 4);
    let bytes = [
        frame(TEXT, "é".as_bytes(), MASK),
        frame(BINARY, &long, MASK),
        frame(0x01, b"frag", MASK),
        frame(PING, b"p", MASK),
        frame(0x80, b"ment", MASK),
        frame(BINARY, b"", MASK),
    ];
    let echoes = vec![(TEXT, "é".into()), (BINARY, long), (TEXT, b"fragment".to_vec()), (BINARY, Vec::new())];
    (bytes.concat(), echoes)
}

/// Expects the echoes in their order, and the pong anywhere between them.
fn expect_conversation(peer: &mut Peer, echoes: &[(u8, Vec<u8>)]) -> Result<(), String> {
    let (mut found, mut pongs) = (Vec::new(), 0);
    while found.len() < echoes.len() || pongs < 1 {
        match peer.next()? {
            Got::Frame(PONG, p) if p == b"p" => pongs += 1,
            Got::Frame(first, payload) => found.push((first, payload)),
            end => return Err(format!("{end:?} after {} echoes", found.len())),
        }
    }
    if found == echoes { Ok(()) } else { Err("the echoes differ".to_owned()) }
}

fn torn_frames(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let (bytes, echoes) = conversation();
    let mut peer = open(port, "echo", &id)?;
    for cut in 1..bytes.len() {
        peer.write_cut(&bytes, cut)?;
        expect_conversation(&mut peer, &echoes).map_err(|e| format!("cut {cut}: {e}"))?;
    }
    farewell(peer)?;
    recorded(control, &id, &json!({ "messages": 4 * (bytes.len() - 1), "code": 1000 }))
}

fn dripped(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let (bytes, echoes) = conversation();
    let mut peer = connect(port)?;
    peer.drip(&request(port, "echo", &id))?;
    opened(&mut peer)?;
    peer.drip(&bytes)?;
    expect_conversation(&mut peer, &echoes)?;
    farewell(peer)?;
    recorded(control, &id, &json!({ "messages": 4, "code": 1000 }))
}

fn half_close_by_client(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let mut peer = open(port, "late_fin", &id)?;
    peer.write(&frame(TEXT, b"last words", MASK))?;
    peer.stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    for i in 1..=20 {
        peer.expect(BINARY, &pattern("binary", i * 37, i))?;
    }
    ends(&mut peer, &Got::Fin)?;
    recorded(control, &id, &json!({ "messages": 1, "fin": true, "reset": false }))
}

fn half_close_by_backend(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let mut peer = open(port, "early_fin&n=20", &id)?;
    for i in 1..=20 {
        peer.expect(BINARY, &pattern("binary", i * 37, i))?;
    }
    ends(&mut peer, &Got::Fin)?;
    for i in 1..=50 {
        peer.write(&frame(BINARY, &pattern("binary", 1000, i), MASK))?;
    }
    peer.stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    recorded(control, &id, &json!({ "messages": 50, "bytes": 50_000, "fin": true, "reset": false }))
}

fn data_then_fin(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let mut peer = open(port, "data_fin", &id)?;
    peer.expect(BINARY, &pattern("binary", 1 << 20, 9))?;
    ends(&mut peer, &Got::Fin)?;
    drop(peer);
    recorded(control, &id, &json!({ "messages": 0 }))
}

fn reset_by_client(port: u16, control: u16) -> Result<(), String> {
    let id = id();
    let mut peer = open(port, "echo", &id)?;
    peer.write(&frame(TEXT, b"hello", MASK))?;
    peer.expect(TEXT, b"hello")?;
    reset(&peer.stream);
    drop(peer);
    recorded(control, &id, &json!({ "messages": 1, "reset": true }))
}

fn reset_by_backend(port: u16, _: u16) -> Result<(), String> {
    let mut peer = open(port, "reset", &id())?;
    peer.write(&frame(TEXT, b"hello", MASK))?;
    ends(&mut peer, &Got::Reset)
}

fn ends(peer: &mut Peer, want: &Got) -> Result<(), String> {
    let got = peer.next()?;
    if got == *want { Ok(()) } else { Err(format!("{got:?} instead of {want:?}")) }
}
