//! The built-in echo server over real sockets. Its peers are frames written out by hand and
//! tungstenite.

use framegate::echo::{Echo, Handle};
use framegate::proto::frame::{Header, Parsed, opcode};
use framegate::proto::mask::mask;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const DEADLINE: Duration = Duration::from_secs(20);
const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A server on its own thread, stopped when dropped.
struct Server {
    stop: Arc<AtomicBool>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn run(echo: Echo) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let handle = echo.handle();
        let seen = stop.clone();
        Server { stop, handle, thread: Some(std::thread::spawn(move || echo.run(&seen).unwrap())) }
    }

    fn tcp() -> (Server, SocketAddr) {
        let echo = Echo::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = echo.local_addr().unwrap();
        (Server::run(echo), addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.handle.wake();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn open(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    stream.write_all(REQUEST.as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn client_frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { fin, rsv: 0, opcode, mask: Some(KEY), payload_len: payload.len() as u64 }.write(&mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[start..], KEY, 0);
    bytes
}

fn read_frame(stream: &mut impl Read) -> (Header, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if let Parsed::Complete(header, _) = Header::parse(&bytes).unwrap() {
            let mut payload = vec![0; header.payload_len as usize];
            stream.read_exact(&mut payload).unwrap();
            return (header, payload);
        }
    }
}

fn assert_frame(stream: &mut impl Read, fin: bool, opcode: u8, payload: &[u8]) {
    let (header, got) = read_frame(stream);
    assert_eq!((header.fin, header.rsv, header.opcode, header.mask), (fin, 0, opcode, None));
    assert!(got == payload, "payload of {} bytes differs from the {} sent", got.len(), payload.len());
}

fn assert_eof(stream: &mut impl Read) {
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn cuts_at_every_byte_do_not_change_the_response() {
    let (_server, addr) = Server::tcp();
    let input = [
        REQUEST.as_bytes(),
        &client_frame(false, opcode::TEXT, b"frag"),
        &client_frame(true, opcode::PING, b"ping"),
        &client_frame(true, opcode::CONTINUATION, b"ment"),
        &client_frame(true, opcode::CLOSE, &[0x0f, 0xa0]),
    ]
    .concat();
    for cut in 0..=input.len() {
        let mut stream = connect(addr);
        stream.write_all(&input[..cut]).unwrap();
        stream.write_all(&input[cut..]).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "cut at {cut}: {head}");
        assert_frame(&mut stream, false, opcode::TEXT, b"frag");
        assert_frame(&mut stream, true, opcode::PONG, b"ping");
        assert_frame(&mut stream, true, opcode::CONTINUATION, b"ment");
        assert_frame(&mut stream, true, opcode::CLOSE, &[0x0f, 0xa0]);
        assert_eof(&mut stream);
    }
}

#[test]
fn message_of_64_mib_is_echoed_in_bounded_memory() {
    let (_server, addr) = Server::tcp();
    let payload: Vec<u8> = (0..64 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let frame = client_frame(true, opcode::BINARY, &payload);
    let mut stream = open(addr);
    let mut writer = stream.try_clone().unwrap();
    let before = resident_kib();
    // Without a reader the server has to stop reading. What it has read is mostly in the kernel.
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0;
    while let Ok(n) = writer.write(&frame[taken..]) {
        taken += n;
        assert!(taken < 48 << 20, "the server keeps reading while its echoes are not read");
    }
    writer.set_write_timeout(Some(DEADLINE)).unwrap();
    let rest = &frame[taken..];
    let mut peak = resident_kib();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(rest).unwrap());
        let mut head = [0; 10];
        stream.read_exact(&mut head).unwrap();
        let want = Header { fin: true, rsv: 0, opcode: opcode::BINARY, mask: None, payload_len: payload.len() as u64 };
        assert_eq!(Header::parse(&head), Ok(Parsed::Complete(want, 10)));
        let (mut at, mut chunk) = (0, vec![0; 1 << 20]);
        while at < payload.len() {
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0 && chunk[..n] == payload[at..at + n], "differs after {at} bytes");
            at += n;
            peak = peak.max(resident_kib());
        }
    });
    // Some room for the other tests of this process.
    assert!(peak < before + (32 << 10), "grew from {before} to {peak} KiB");
    stream.write_all(&client_frame(true, opcode::CLOSE, &[0x03, 0xe8])).unwrap();
    assert_frame(&mut stream, true, opcode::CLOSE, &[0x03, 0xe8]);
    assert_eof(&mut stream);
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn batch_of_small_frames_is_echoed_whole() {
    let (_server, addr) = Server::tcp();
    let mut stream = open(addr);
    let payload = |i: u32| i.to_be_bytes().repeat(8);
    let batch: Vec<u8> = (0..10_000).flat_map(|i| client_frame(true, opcode::BINARY, &payload(i))).collect();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&batch).unwrap());
        for i in 0..10_000 {
            assert_frame(&mut stream, true, opcode::BINARY, &payload(i));
        }
    });
}

#[test]
fn violation_gets_1002_and_fin() {
    let (_server, addr) = Server::tcp();
    let mut stream = open(addr);
    stream.write_all(&[0x81, 0x01, b'x']).unwrap();
    assert_frame(&mut stream, true, opcode::CLOSE, &1002u16.to_be_bytes());
    assert_eof(&mut stream);
}

#[test]
fn data_before_a_fin_is_echoed() {
    let (_server, addr) = Server::tcp();
    let mut stream = open(addr);
    let payload = vec![5; 3 << 20];
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let frame = client_frame(true, opcode::BINARY, &payload);
        scope.spawn(move || {
            writer.write_all(&frame).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert_frame(&mut stream, true, opcode::BINARY, &payload);
        assert_eof(&mut stream);
    });
}

#[test]
fn other_requests_are_refused_and_closed() {
    let (_server, addr) = Server::tcp();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "426"),
        (&REQUEST.replace("Version: 13", "Version: 8"), "426"),
        (&REQUEST.replace("GET", "POST"), "426"),
        ("\0\r\n\r\n", "400"),
    ] {
        let mut stream = connect(addr);
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).unwrap();
        assert!(body.contains("WebSocket"));
    }
}

#[test]
fn unix_socket_is_served_and_removed_at_exit() {
    let path = std::env::temp_dir().join(format!("framegate-echo-{}.sock", std::process::id()));
    let server = Server::run(Echo::bind_unix(&path).unwrap());
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(REQUEST.as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream.write_all(&client_frame(true, opcode::TEXT, b"over unix")).unwrap();
    assert_frame(&mut stream, true, opcode::TEXT, b"over unix");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn tungstenite_gets_its_messages_back() {
    use tungstenite::Message;
    use tungstenite::protocol::CloseFrame;
    use tungstenite::protocol::frame::coding::CloseCode;

    let (_server, addr) = Server::tcp();
    let (mut peer, _) = tungstenite::client(format!("ws://{addr}/"), connect(addr)).unwrap();
    for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let message = Message::binary(vec![9; len]);
        peer.send(message.clone()).unwrap();
        assert!(peer.read().unwrap() == message, "{len} bytes");
    }
    peer.send(Message::text("Grüße")).unwrap();
    assert_eq!(peer.read().unwrap(), Message::text("Grüße"));
    peer.send(Message::Ping(b"are you there"[..].into())).unwrap();
    assert_eq!(peer.read().unwrap(), Message::Pong(b"are you there"[..].into()));
    let close = CloseFrame { code: CloseCode::Library(4000), reason: "done".into() };
    peer.close(Some(close.clone())).unwrap();
    assert_eq!(peer.read().unwrap(), Message::Close(Some(close)));
    assert!(matches!(peer.read(), Err(tungstenite::Error::ConnectionClosed)));
}
