//! Backends that tell each client what they have received, the files in `examples/` with their
//! addresses replaced by those of the test, and handshakes.

use crate::common::pki::PKI;
use crate::common::*;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A request for this path is a health check; one without an upgrade gets 200.
const CHECK: &str = "/healthz";

/// A WebSocket server. Its 101 has its name, and its first message is the request that it received.
pub struct Backend {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the port after the end.
    _held: Option<Socket>,
}

struct Shared {
    name: &'static str,
    killed: AtomicBool,
    healthy: AtomicBool,
    /// The answer to handshakes.
    status: AtomicU16,
    handshakes: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Backend {
    pub fn start(name: &'static str) -> Backend {
        let (listener, addr) = listen();
        let shared = Arc::new(Shared {
            name,
            killed: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
            status: AtomicU16::new(101),
            handshakes: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || of_thread.accept(&listener)));
        Backend { addr, shared, thread, _held: None }
    }

    /// As the end of a process does: the port refuses from now on, and all connections end.
    pub fn kill(&mut self) {
        self.stop();
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        held.set_reuse_address(true).unwrap();
        held.bind(&self.addr.into()).unwrap();
        self._held = Some(held);
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.killed.store(true, SeqCst);
        // Wakes the thread; it is gone already if this fails.
        drop(TcpStream::connect(self.addr));
        thread.join().expect("a backend does not panic");
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Whether health checks pass.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, SeqCst);
    }

    /// The answer to handshakes from now on; 101 accepts them.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, SeqCst);
    }

    pub fn handshakes(&self) -> usize {
        self.shared.handshakes.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.killed.load(SeqCst) {
                return;
            }
            let stream = patient(stream);
            self.streams.lock().unwrap().push(stream.try_clone().unwrap());
            let shared = Arc::clone(&self);
            std::thread::spawn(move || {
                // The end of a connection is the business of who ended it.
                let _ = shared.serve(&stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let is_check = head.split(' ').nth(1) == Some(CHECK);
        if !is_check {
            self.handshakes.fetch_add(1, SeqCst);
        }
        let status = match is_check {
            true if !self.healthy.load(SeqCst) => 503,
            _ if field_of(&head, "upgrade").is_none() => 200,
            true => 101,
            false => self.status.load(SeqCst),
        };
        if status != 101 {
            let answer = format!("HTTP/1.1 {status} Any\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            return stream.write_all(answer.as_bytes());
        }
        let key = field_of(&head, "sec-websocket-key").unwrap_or_default();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = switching(&format!("Server: rig\r\nX-Backend: {}\r\n", self.name)).replace(ACCEPT, &accept);
        stream.write_all(answer.as_bytes())?;
        stream.write_all(&plain(0x81, head.as_bytes()))?;
        // Frames of the client: until its end.
        io::copy(&mut stream, &mut io::sink()).map(drop)
    }
}

/// The value of the first header line of this name.
pub fn field_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let named = |line: &&str| line.split_once(':').is_some_and(|(is, _)| is.eq_ignore_ascii_case(name));
    head.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
}

/// A handshake to be sent.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub host: &'a str,
    pub target: &'a str,
    /// Header lines, each with its CRLF.
    pub fields: &'a str,
    pub from: Ipv4Addr,
}

impl<'a> Ask<'a> {
    pub fn new(host: &'a str, target: &'a str) -> Ask<'a> {
        Ask { host, target, fields: "", from: Ipv4Addr::LOCALHOST }
    }

    pub fn with(self, fields: &'a str) -> Ask<'a> {
        Ask { fields, ..self }
    }

    /// Sends it and returns without the answer.
    pub fn send(&self, front: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((self.from, 0)).into()).unwrap();
        socket.connect_timeout(&front.into(), PATIENCE).unwrap();
        let mut stream = patient(socket.into());
        let head = request(self.target, self.fields).replace("example.com", self.host);
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// The status of the answer; the connection ends.
    pub fn status(&self, front: SocketAddr) -> u16 {
        status_of(&read_head(&self.send(front)))
    }

    #[track_caller]
    pub fn open(&self, front: SocketAddr) -> Session {
        Session::begun(self.send(front))
    }

    /// The backends of so many sessions, which end at once.
    #[track_caller]
    pub fn backends(&self, front: SocketAddr, count: usize) -> Vec<String> {
        (0..count).map(|_| self.open(front).backend).collect()
    }
}

pub fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"))
}

/// An established session, as its client sees it.
pub struct Session {
    pub stream: TcpStream,
    /// The head of the 101.
    pub answer: String,
    pub backend: String,
    /// The request as the backend has received it.
    pub received: String,
}

impl Session {
    /// The session of a handshake that was sent.
    #[track_caller]
    pub fn begun(stream: TcpStream) -> Session {
        let answer = read_head(&stream);
        assert_eq!(status_of(&answer), 101, "{answer}");
        let (first, payload, _) = read_frame(&stream);
        assert_eq!(first, 0x81, "{answer}");
        let backend = field_of(&answer, "x-backend").expect("the name of a backend").to_owned();
        Session { stream, answer, backend, received: String::from_utf8(payload).unwrap() }
    }

    pub fn target(&self) -> &str {
        self.received.split(' ').nth(1).unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field_of(&self.received, name)
    }

    /// A cookie that the 101 sets: name and value.
    pub fn cookie(&self) -> Option<&str> {
        field_of(&self.answer, "set-cookie")?.split(';').next()
    }
}

/// How many of `backends` have this name.
pub fn count(backends: &[String], name: &str) -> usize {
    backends.iter().filter(|backend| *backend == name).count()
}

/// A file of `examples/`, with addresses replaced.
pub struct Example {
    name: String,
    pub text: String,
}

/// Where files of framegate listen.
const LISTENERS: [&str; 2] = ["0.0.0.0:8080", "127.0.0.1:9901"];

impl Example {
    /// A configuration of framegate; its listeners are on free ports of loopback.
    pub fn framegate(name: &str) -> Example {
        LISTENERS.iter().fold(Example::file(name), |example, listener| example.swap(listener, "127.0.0.1:0"))
    }

    pub fn file(name: &str) -> Example {
        let text = std::fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Comments name addresses, too.
        let is_comment = |line: &&str| line.trim_start().starts_with('#');
        let text = text.lines().filter(|line| !is_comment(line)).map(|line| format!("{line}\n")).collect();
        Example { name: name.to_owned(), text }
    }

    /// Replaces a literal wherever it stands as a whole. It must be there.
    #[track_caller]
    pub fn swap(mut self, literal: &str, by: &str) -> Example {
        let mut pieces = self.text.split(literal);
        let mut text = pieces.next().unwrap_or_default().to_owned();
        let mut found = 0;
        for piece in pieces {
            let part_of_more = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let whole = !part_of_more(text.chars().next_back()) && !part_of_more(piece.chars().next());
            found += usize::from(whole);
            text += if whole { by } else { literal };
            text += piece;
        }
        assert!(found > 0, "{}: no {literal}", self.name);
        self.text = text;
        self
    }

    #[track_caller]
    pub fn backends(self, backends: &[(&str, &Backend)]) -> Example {
        backends.iter().fold(self, |example, (literal, to)| example.swap(literal, &to.addr.to_string()))
    }

    /// Nothing but loopback is left.
    #[track_caller]
    pub fn assert_local(&self) {
        let left = self.text.lines().find(|line| ["10.", "0.0.0.0", "192.168."].iter().any(|net| has_net(line, net)));
        assert_eq!(left, None, "{}: an address is not replaced", self.name);
    }

    /// Runs it with framegate.
    #[track_caller]
    pub fn start(&self) -> Proxy {
        self.assert_local();
        Proxy::start(&self.text)
    }
}

/// Whether an address in `line` begins with `net`.
fn has_net(line: &str, net: &str) -> bool {
    line.match_indices(net).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.'))
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// How many sessions wait for room in an upstream.
pub fn queued(proxy: &Proxy, upstream: &str) -> u64 {
    let admin = proxy.admin();
    let answer = http(admin, &format!("GET /upstreams HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    let json: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let upstreams = json.as_array().unwrap_or_else(|| panic!("{json:#}"));
    let upstream = upstreams.iter().find(|one| one["name"] == upstream).unwrap_or_else(|| panic!("{json:#}"));
    upstream["queued"].as_u64().unwrap_or_else(|| panic!("{upstream:#}"))
}

/// The state of an endpoint at the admin listener.
pub fn state(proxy: &Proxy, backend: &Backend) -> String {
    let admin = proxy.admin();
    let table = http(admin, &format!("GET /upstreams?format=table HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    let url = format!("ws://{}", backend.addr);
    let row = table.lines().find(|line| line.split_whitespace().any(|word| word.starts_with(&url)));
    row.unwrap_or_else(|| panic!("no {url} in\n{table}")).to_owned()
}

/// Waits until `/upstreams` shows an endpoint in this state.
#[track_caller]
pub fn wait_state(proxy: &Proxy, backend: &Backend, wanted: &str) {
    eventually(wanted, || state(proxy, backend).split_whitespace().any(|word| word == wanted).then_some(()));
}

/// What stands before the backends: framegate, or the proxy that it replaces.
pub enum Front {
    Framegate(Box<Proxy>),
    Original(Original),
}

impl Front {
    pub fn addr(&self) -> SocketAddr {
        match self {
            Front::Framegate(proxy) => proxy.addr,
            Front::Original(original) => original.addr,
        }
    }

    pub fn is_framegate(&self) -> bool {
        matches!(self, Front::Framegate(_))
    }
}

/// Another proxy. Killed when dropped.
pub struct Original {
    child: Child,
    addr: SocketAddr,
    /// Of its admin listener, if it has one.
    pub admin: Option<SocketAddr>,
    folder: PathBuf,
    said: Lines,
}

impl Original {
    /// Runs a command that has been given its file, and waits until it accepts.
    #[track_caller]
    pub fn start(mut command: Command, port: u16, folder: PathBuf) -> Original {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let said = Lines::of(child.stderr.take().unwrap());
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let original = Original { child, addr, admin: None, folder, said };
        eventually("the original accepts", || TcpStream::connect(original.addr).ok());
        original
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        let _gone = std::fs::remove_dir_all(&self.folder);
        if std::thread::panicking() {
            eprintln!("--- the original said:\n{}", self.said.all().join("\n"));
        }
    }
}

/// A configuration with certificates of the tests in place of those of its host.
pub fn with_certificates(text: &str) -> String {
    let server = PKI.server();
    let files = [("chain.pem", server.cert), ("key.pem", server.key), ("devices-ca.pem", PKI.ca())];
    files.iter().fold(text.to_owned(), |text, (name, file)| {
        text.replace(&format!("\"/etc/framegate/tls/{name}\""), &format!("{file:?}"))
    })
}

/// A new folder with a file in it.
pub fn folder_with(name: &str, text: &str) -> (PathBuf, PathBuf) {
    let folder = temp_path("original");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

/// A port that is free now, below those that the kernel gives out: no other test gets it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..100).map(|_| first + NEXT.fetch_add(1, SeqCst) % 1_000);
    ports.find(free).expect("a port of 100 is free")
}

/// Where a program is, if it is installed; with `CI` set it must be.
pub fn installed(program: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    // Debian has servers where only root's PATH looks; loadtest/peers/setup has its own folder.
    let more = ["/usr/sbin".into(), "/usr/local/sbin".into(), cache.unwrap_or_default().join("framegate-peers/bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(more).map(|folder| folder.join(program)).find(|path| path.is_file());
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "CI has {program}: loadtest/peers/setup");
    if found.is_none() {
        eprintln!("skipped: no {program} here, see loadtest/peers/setup");
    }
    found
}

/// Runs a validation, which must pass.
#[track_caller]
pub fn assert_valid(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {said}");
}
