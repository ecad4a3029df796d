//! The opening handshake over real sockets, row by row of the contract: what is refused and how,
//! what the upstream gets, what of its answers passes. Every head also torn at every byte.

mod common;
#[path = "handshake/refused.rs"]
mod refused;
#[path = "handshake/request.rs"]
mod request;
#[path = "handshake/response.rs"]
mod response;

use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Stands in every hostile request; no answer of the proxy may repeat it.
const CANARY: &str = "canary-7f3a";

/// An upstream that answers 101 to whatever looks like a head, and keeps every byte.
#[derive(Clone)]
struct Recorder {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let (listener, addr) = listen();
        let recorder = Recorder { addr, seen: Arc::default() };
        let of_thread = recorder.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                of_thread.seen.lock().unwrap().push(Vec::new());
                let at = of_thread.seen.lock().unwrap().len() - 1;
                let recorder = of_thread.clone();
                std::thread::spawn(move || recorder.record(stream, at));
            }
        });
        recorder
    }

    fn record(&self, mut stream: TcpStream, at: usize) {
        let mut buf = [0; 16384];
        let mut answered = false;
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            let mut seen = self.seen.lock().unwrap();
            seen[at].extend_from_slice(&buf[..n]);
            if !answered && seen[at].windows(4).any(|end| end == b"\r\n\r\n") {
                answered = true;
                let _gone = stream.write_all(switching("").as_bytes());
            }
        }
    }

    fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }
}

/// A refusal taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap();
        let status = line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{line:?}"))[..3].parse().unwrap();
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let fields = lines.map(|line| field(line).unwrap_or_else(|| panic!("{line:?}"))).collect();
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        Answer { status, fields, body: bytes[at..].to_vec() }
    }

    fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Everything the contract says about a refusal of the proxy's own.
fn check_refusal(name: &str, bytes: &[u8], status: u16) {
    let answer = Answer::parse(bytes);
    let all = String::from_utf8_lossy(bytes);
    assert_eq!(answer.status, status, "{name}: {all}");
    let connection = if status == 426 { "Upgrade, close" } else { "close" };
    assert_eq!(answer.values("connection"), [connection], "{name}: {all}");
    let id = answer.values("x-request-id");
    assert!(matches!(id[..], [id] if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{name}: {all}");
    assert_eq!(answer.values("content-length"), [answer.body.len().to_string()], "{name}: {all}");
    assert!((1..=128).contains(&answer.body.len()), "{name}: {all}");
    assert!(!all.contains(CANARY), "{name} repeats the client's bytes: {all}");
    let has = |field: &str| !answer.values(field).is_empty();
    assert_eq!(has("allow"), status == 405, "{name}: {all}");
    assert_eq!(has("retry-after"), matches!(status, 429 | 503), "{name}: {all}");
    assert_eq!(has("upgrade") && answer.values("sec-websocket-version") == ["13"], status == 426, "{name}: {all}");
}

/// How a request is cut on its way.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    At(usize),
    EveryByte,
}

fn write_cut(mut stream: &TcpStream, bytes: &[u8], cut: Cut) -> std::io::Result<()> {
    match cut {
        Cut::Whole => stream.write_all(bytes),
        Cut::At(at) => {
            stream.write_all(&bytes[..at])?;
            // The proxy shares these cores: this is when it may read.
            std::thread::yield_now();
            stream.write_all(&bytes[at..])
        }
        Cut::EveryByte => bytes.chunks(1).try_for_each(|byte| stream.write_all(byte)),
    }
}

/// Sends `request` and takes the answer up to its FIN.
fn refused(proxy: SocketAddr, (name, request, status): &Row, cut: Cut) {
    let stream = connect(proxy);
    // It may be refused, read on a little, and closed before all is sent.
    let _closed = write_cut(&stream, request, cut);
    let (bytes, end) = read_all(&stream);
    let name = format!("{name}, cut {cut:?}");
    assert_eq!(end, End::Fin, "{name}: {:?}", String::from_utf8_lossy(&bytes));
    check_refusal(&name, &bytes, *status);
}

type Row = (String, Vec<u8>, u16);

/// A good request to `/canary...`, changed.
fn with(from: &str, to: &str) -> String {
    let good = request(&format!("/{CANARY}"), "");
    let changed = good.replacen(from, to, 1);
    assert_ne!(good, changed, "{from:?} is not there");
    changed
}

fn with_line(line: &str) -> String {
    with("Upgrade: websocket\r\n", &format!("{line}\r\nUpgrade: websocket\r\n"))
}

fn without(line: &str) -> String {
    with(&format!("{line}\r\n"), "")
}

fn to_target(target: &str) -> String {
    with(&format!("GET /{CANARY} "), &format!("GET {target} "))
}

const KEY_LINE: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION_LINE: &str = "Sec-WebSocket-Version: 13";
