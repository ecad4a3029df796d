//! Shared by the black-box tests: the proxy as a process, raw sockets, frames written out by hand.
//! Ports are 0, waits are conditions with a deadline. Nothing here uses the proxy's own framer.
#![allow(dead_code)] // each test binary uses a part

pub mod jwt;
pub mod pki;
pub mod shim;

use pki::PKI;
#[allow(unused_imports)] // not used by every suite
pub use shim::{PLAIN, SECURED};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The longest wait; a longer one fails its test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Lines collected by a thread, for tests to wait on.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    /// The stream has ended.
    whole: bool,
}

impl Lines {
    pub fn of(stream: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                into.0.0.lock().unwrap().lines.push(line);
                into.0.1.notify_all();
            }
            into.0.0.lock().unwrap().whole = true;
            into.0.1.notify_all();
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    /// All lines up to the end of the stream.
    pub fn whole(&self) -> Vec<String> {
        let collected = self.0.0.lock().unwrap();
        let (collected, waited) =
            self.0.1.wait_timeout_while(collected, PATIENCE, |collected| !collected.whole).unwrap();
        assert!(!waited.timed_out(), "the stream does not end after:\n{}", collected.lines.join("\n"));
        collected.lines.clone()
    }

    /// Waits for the first line for which `pick` returns a value.
    pub fn wait<T>(&self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut collected = self.0.0.lock().unwrap();
        loop {
            let lines = &collected.lines;
            if let Some(found) = lines.iter().find_map(|line| pick(line)) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lines = lines.join("\n");
                drop(collected);
                panic!("no line with {what} in:\n{lines}");
            }
            collected = self.0.1.wait_timeout(collected, left).unwrap().0;
        }
    }

    pub fn wait_for(&self, text: &str) -> String {
        self.wait(text, |line| line.contains(text).then(|| line.to_owned()))
    }
}

/// A running framegate. Killed when dropped.
pub struct Proxy {
    pub child: Child,
    pub addr: SocketAddr,
    /// Standard error.
    pub said: Lines,
    /// Standard output: the access log, unless configured elsewhere.
    pub log: Lines,
    pub config: PathBuf,
}

impl Proxy {
    /// Runs `framegate run -c` with `toml`, and waits until it is ready. `addr` is its first
    /// listener.
    pub fn start(toml: &str) -> Proxy {
        let config = temp_path("toml");
        std::fs::write(&config, shim::secure(toml)).unwrap();
        Proxy::spawn(Command::new(env!("CARGO_BIN_EXE_framegate")).arg("run").arg("-c").arg(&config), config.clone())
    }

    /// One worker, one route to `upstream`, further keys of the route and sections behind.
    pub fn before(upstream: SocketAddr, more: &str) -> Proxy {
        Proxy::start(&before(upstream, more))
    }

    /// Like [`Proxy::before`], with an admin listener on a port of its own.
    pub fn alone_before(upstream: SocketAddr, more: &str) -> Proxy {
        Proxy::before(upstream, &format!("{more}\n[admin]\nlisten = \"127.0.0.1:0\""))
    }

    pub fn spawn(command: &mut Command, config: PathBuf) -> Proxy {
        // A backtrace of a debug build takes seconds on a busy machine, and delays a panicking
        // worker.
        command.env("RUST_BACKTRACE", "0");
        if SECURED.upstreams {
            command.env("SSL_CERT_FILE", PKI.ca());
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Lines::of(child.stderr.take().unwrap());
        let log = Lines::of(child.stdout.take().unwrap());
        let after = |line: &str, what: &str| line.split_once(what).map(|(_, rest)| rest.to_owned());
        let addr = said.wait("an address", |line| after(line, "listening on ")?.parse().ok());
        said.wait("ready", |line| line.ends_with(" ready").then_some(()));
        let addr = if SECURED.clients { shim::before_tls(addr) } else { addr };
        Proxy { child, addr, said, log, config }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A value of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The admin listener's address, where one is configured (with port 0).
    pub fn admin(&self) -> SocketAddr {
        self.said.wait("admin", |line| line.split_once("admin on http://")?.1.parse().ok())
    }

    /// A value of `/metrics`: the line that begins with `name` and a space.
    pub fn metric(&self, name: &str) -> f64 {
        self.find_metric(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// The same; `None` where there is no such line: some series are shown from their first event
    /// on.
    pub fn find_metric(&self, name: &str) -> Option<f64> {
        let answer = http(self.admin(), &format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", self.admin()));
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|line| line.trim().parse().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    /// Stops it with exit status 0 and returns the whole access log.
    pub fn stop(&mut self) -> Vec<String> {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}");
        self.log.whole()
    }
}

/// The configuration of [`Proxy::before`]. Admin is on a free port, unless `more` configures it.
pub fn before(upstream: SocketAddr, more: &str) -> String {
    let admin = if more.contains("[admin]") { "" } else { "[admin]\nlisten = \"127.0.0.1:0\"\n" };
    format!(
        "[workers]\ncount = 1\n{admin}[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nprotocols = [\"websocket\"]\nupstream = \"ws://{upstream}\"\n{more}\n"
    )
}

/// The value of `name` in a line of the access log as text.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The part of a line about the end of a session from `ended_by` on: party, phase, cause, status,
/// codes.
pub fn verdict(line: &str) -> &str {
    let from = line.find("ended_by=").unwrap_or_else(|| panic!("no verdict in {line}"));
    line[from..].split(" age=").next().unwrap()
}

/// Checks that `stream` has neither bytes nor an end to read now.
#[track_caller]
pub fn assert_quiet(mut stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false).unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Ends the connection with a RST.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        let _gone = std::fs::remove_file(&self.config);
        if std::thread::panicking() {
            eprintln!(
                "--- framegate said:\n{}\n--- and logged:\n{}",
                self.said.all().join("\n"),
                self.log.all().join("\n")
            );
        }
    }
}

/// A unique path in the temporary folder.
pub fn temp_path(ending: &str) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // Several suites in one program have a counter each.
    let suite = module_path!().replace("::", "-");
    std::env::temp_dir().join(format!("framegate-{suite}-{}-{n}.{ending}", std::process::id()))
}

/// Polls until `ask` returns a value; fails after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A socket with timeouts.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    patient(stream)
}

/// The same with a small receive buffer, so that unread data soon waits in the proxy.
pub fn connect_small(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8192).unwrap();
    socket.connect(&addr.into()).unwrap();
    patient(socket.into())
}

/// The same from this address of loopback.
#[track_caller]
pub fn connect_from(source: impl Into<IpAddr>, addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.into(), 0).into()).unwrap();
    // With a timeout it would report a reset that comes at once, too.
    socket.connect(&addr.into()).unwrap();
    patient(socket.into())
}

pub fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let stream = eventually("a connection comes", || listener.accept().ok().map(|(stream, _)| stream));
    stream.set_nonblocking(false).unwrap();
    patient(stream)
}

/// A session of a client at 127.0.0.`host`, both ends.
#[track_caller]
pub fn open_from(host: u8, proxy: &Proxy, listener: &TcpListener, more: &str) -> (TcpStream, TcpStream) {
    let mut client = connect_from([127, 0, 0, host], proxy.addr);
    client.write_all(request("/", more).as_bytes()).unwrap();
    let mut upstream = accept(listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    (client, upstream)
}

/// A server that accepts every session until the test ends.
pub fn welcoming() -> SocketAddr {
    let (listener, addr) = listen();
    welcome_all(listener);
    addr
}

/// Accepts every session from now on.
pub fn welcome_all(listener: TcpListener) {
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            // A client that has left already is of no interest.
            let _ = stream.write_all(switching("").as_bytes());
            held.push(stream);
        }
    });
}

pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// Reads up to the end of the stream. A timeout fails the test.
#[track_caller]
pub fn read_all(mut stream: &TcpStream) -> (Vec<u8>, End) {
    let (mut all, mut buf) = (Vec::new(), [0; 16384]);
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return (all, End::Fin),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return (all, End::Reset);
            }
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
}

/// Reads exactly one HTTP head, byte by byte, so that nothing after it is consumed.
#[track_caller]
pub fn read_head(mut stream: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

#[track_caller]
pub fn read_exact(mut stream: &TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// One exchange: the response up to the end of the stream.
#[track_caller]
pub fn http(addr: SocketAddr, request: &str) -> String {
    let mut stream = connect(addr);
    stream.write_all(request.as_bytes()).unwrap();
    String::from_utf8(read_all(&stream).0).unwrap()
}

/// The key of RFC 6455 section 1.3, and its accept value.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A valid request; `more` are header lines, each with its CRLF.
pub fn request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// A valid response to [`request`].
pub fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

/// Establishes a session through `proxy` to `listener`: its client and its upstream.
#[track_caller]
pub fn open(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    open_with(proxy, listener, "")
}

/// The same with these fields in the request.
#[track_caller]
pub fn open_with(proxy: &Proxy, listener: &TcpListener, more: &str) -> (TcpStream, TcpStream) {
    open_on(connect(proxy.addr), listener, more)
}

/// The same with a client of [`connect_small`].
#[track_caller]
pub fn open_small(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    open_on(connect_small(proxy.addr), listener, "")
}

#[track_caller]
fn open_on(mut client: TcpStream, listener: &TcpListener, more: &str) -> (TcpStream, TcpStream) {
    client.write_all(request("/", more).as_bytes()).unwrap();
    let mut upstream = accept(listener);
    let head = read_head(&upstream);
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    upstream.write_all(switching("").as_bytes()).unwrap();
    let head = read_head(&client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (client, upstream)
}

/// A frame written out by hand: `first` is FIN, RSV and opcode; masked if there is a key.
pub fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if key.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(masked | n as u8),
        n @ 126..=65535 => {
            out.push(masked | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(masked | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let key = key.inspect(|key| out.extend_from_slice(key)).unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    out
}

/// A frame as a client sends it.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, Some([0x37, 0xfa, 0x21, 0x3d]))
}

/// A frame as a server sends it.
pub fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, None)
}

/// Reads one frame: first byte, unmasked payload, whether it was masked.
#[track_caller]
pub fn read_frame(stream: &TcpStream) -> (u8, Vec<u8>, bool) {
    let head = read_exact(stream, 2);
    let masked = head[1] & 0x80 != 0;
    let len = match head[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes(read_exact(stream, 2).try_into().unwrap())),
        127 => u64::from_be_bytes(read_exact(stream, 8).try_into().unwrap()),
        n => u64::from(n),
    };
    let key = if masked { read_exact(stream, 4) } else { vec![0; 4] };
    let mut payload = read_exact(stream, len as usize);
    payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
    (head[0], payload, masked)
}

/// Reads one Close frame: code and reason.
#[track_caller]
pub fn read_close(stream: &TcpStream) -> (u16, String) {
    let (first, payload, _) = read_frame(stream);
    assert_eq!(first, 0x88, "{payload:?}");
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()),
        None => (1005, String::new()),
    }
}

pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// Checks that a deadline of `after_ms` fired when it was due: not earlier, and not later than a
/// busy machine explains.
#[track_caller]
pub fn assert_due(begun: Instant, after_ms: u64) {
    let after = begun.elapsed();
    // The deadline began to run a little after `begun`, but was computed in whole milliseconds.
    assert!(after >= Duration::from_millis(after_ms - 1), "too early: {after:?}");
    assert!(after < Duration::from_millis(after_ms) + Duration::from_secs(2), "too late: {after:?}");
}
