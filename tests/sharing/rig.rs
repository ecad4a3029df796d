//! A real `redis-server` for each test, and two hosts that share limits through it. Without the
//! server the tests are skipped, but not where `CI` is set.

use crate::common::pki::PKI;
use crate::common::{Proxy, connect, eventually, listen, read_head, request, switching, temp_path};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The SHA-256 of "one" and "two".
const ONE: &str = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
const TWO: &str = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";

/// `host_timeout` of the hosts.
pub const HOST_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any handshake takes that does not wait for Redis, on a busy machine; `timeout` of
/// the hosts is longer.
pub const PROMPT: Duration = Duration::from_secs(4);

pub fn is_there() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "CI has redis-server: apt-get install redis-server");
    if !found {
        eprintln!("skipped: no redis-server; apt-get install redis-server");
    }
    found
}

/// A running `redis-server`. Killed when dropped.
pub struct Server {
    child: Mutex<Child>,
    pub port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    /// What a connection of the test sends first.
    login: Vec<String>,
    is_tls: bool,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Server {
        Server::with(arguments, &[])
    }

    pub fn with(arguments: &[&str], login: &[&str]) -> Server {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let folder = temp_path("redis");
        std::fs::create_dir(&folder).unwrap();
        let is_tls = arguments.contains(&"--tls-port");
        let port = free_port();
        let arguments = owned(arguments).into_iter().map(|word| word.replace("PORT", &port.to_string())).collect();
        let child = Mutex::new(spawn(port, &folder, &arguments));
        let server = Server { child, port, folder, arguments, login: owned(login), is_tls };
        server.wait();
        server
    }

    fn wait(&self) {
        eventually("redis-server answers", || match self.is_tls {
            true => TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop),
            false => (self.ask(&["PING"])? == "PONG").then_some(()),
        });
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Brings it back, empty, on the same port.
    pub fn restart(&self) {
        *self.child.lock().unwrap() = spawn(self.port, &self.folder, &self.arguments);
        self.wait();
    }

    /// The words of the answer to a command, one a line; `None` without an answer.
    pub fn ask(&self, words: &[&str]) -> Option<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut reader = BufReader::new(stream);
        if !self.login.is_empty() {
            send(reader.get_mut(), &self.login.iter().map(String::as_str).collect::<Vec<_>>())?;
            assert_eq!(answer(&mut reader)?, "OK");
        }
        send(reader.get_mut(), words)?;
        answer(&mut reader)
    }

    /// The keys of framegate.
    pub fn keys(&self) -> Vec<String> {
        self.ask(&["KEYS", "*"]).unwrap().lines().map(str::to_owned).collect()
    }

    /// The sum of the sessions that hosts have told, and how many hosts.
    pub fn told(&self, key: &str) -> (u64, usize) {
        let answer = self.ask(&["HGETALL", key]).unwrap();
        let words: Vec<&str> = answer.lines().collect();
        let hosts = words.chunks(2).filter(|pair| pair.len() == 2 && pair[0] != "full");
        let counts: Vec<u64> = hosts.map(|pair| pair[1].split(' ').next().unwrap().parse().unwrap()).collect();
        (counts.iter().sum(), counts.len())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ended = child.kill();
        let _ended = child.wait();
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

/// Below the ports that the kernel gives out where it can be; a cluster needs one 10,000 above it.
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    let start = u16::try_from(std::process::id() % 1_000).unwrap() * 10 + 11_000;
    loop {
        let port = start + *next;
        *next += 1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, folder: &PathBuf, arguments: &Vec<String>) -> Child {
    let mut command = Command::new("redis-server");
    if !arguments.iter().any(|word| word == "--tls-port") {
        command.args(["--port", &port.to_string()]);
    }
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(folder).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn send(stream: &mut TcpStream, words: &[&str]) -> Option<()> {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect::<Vec<_>>();
    stream.write_all(format!("*{}\r\n{}", words.len(), words.concat()).as_bytes()).ok()
}

fn answer(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let (kind, rest) = line.trim_end().split_at_checked(1)?;
    match kind {
        "$" if rest == "-1" => Some(String::new()),
        "$" => {
            let mut text = vec![0; rest.parse::<usize>().ok()? + 2];
            reader.read_exact(&mut text).ok()?;
            Some(String::from_utf8_lossy(&text[..text.len() - 2]).into_owned())
        }
        "*" => {
            let words: Option<Vec<String>> = (0..rest.parse::<usize>().ok()?).map(|_| answer(reader)).collect();
            Some(words?.join("\n"))
        }
        _ => Some(rest.to_owned()),
    }
}

/// Stands before a server, and can answer in its place, a byte at a time without end.
pub struct Dripping {
    pub port: u16,
    is_dripping: Arc<AtomicBool>,
}

impl Dripping {
    pub fn before(server: &Server) -> Dripping {
        let (listener, addr) = listen();
        let (port, is_dripping) = (server.port, Arc::<AtomicBool>::default());
        let drips = Arc::clone(&is_dripping);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (mut to, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let drips = Arc::clone(&drips);
                std::thread::spawn(move || drip(server, client, &drips));
            }
        });
        Dripping { port: addr.port(), is_dripping }
    }

    pub fn drip(&self) {
        self.is_dripping.store(true, Relaxed);
    }
}

fn drip(mut server: TcpStream, mut client: TcpStream, drips: &AtomicBool) {
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = server.read(&mut buf) {
        let mut bytes = &buf[..n];
        if drips.load(Relaxed) {
            bytes = b"$1000000\r\n";
        }
        if client.write_all(bytes).is_err() {
            return;
        }
        while drips.load(Relaxed) && client.write_all(b"x").is_ok() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// A backend that accepts every session and keeps it until its client leaves.
pub struct Backend {
    pub addr: SocketAddr,
}

impl Backend {
    pub fn start() -> Backend {
        let (listener, addr) = listen();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let mut buf = [0; 4096];
                    if stream.read(&mut buf).is_ok_and(|n| n > 0) && stream.write_all(switching("").as_bytes()).is_ok()
                    {
                        while stream.read(&mut buf).is_ok_and(|n| n > 0) {}
                    }
                });
            }
        });
        Backend { addr }
    }
}

/// A framegate that shares the limits of its clients "one" and "two".
pub struct Host {
    pub proxy: Proxy,
}

/// A session; it ends when it is dropped.
pub struct Session(#[allow(dead_code)] pub TcpStream);

impl Host {
    /// `limits`: of each client. `redis`: keys of the section.
    pub fn start(backend: &Backend, limits: &str, redis: &str) -> Host {
        Host { proxy: Proxy::alone_before(backend.addr, &config(limits, redis)) }
    }

    /// The session, or the whole refusal.
    pub fn open(&self, client: &str) -> Result<Session, String> {
        let mut stream = connect(self.proxy.addr);
        let key = format!("Authorization: Bearer {client}\r\n");
        stream.write_all(request("/", &key).as_bytes()).unwrap();
        let head = read_head(&stream);
        match head.starts_with("HTTP/1.1 101 ") {
            true => Ok(Session(stream)),
            false if head.starts_with("HTTP/1.1 429 ") => Err(head),
            false => panic!("{head}"),
        }
    }

    /// So many sessions of the client, all of which it gets.
    pub fn open_all(&self, client: &str, number: usize) -> Vec<Session> {
        (0..number).map(|_| self.open(client).unwrap_or_else(|head| panic!("{head}"))).collect()
    }

    /// Waits until the client gets a session.
    pub fn admits(&self, client: &str) -> Session {
        eventually("a session is admitted", || self.open(client).ok())
    }

    /// Waits until the client gets no further session. One that comes too early is ended first.
    pub fn refuses(&self, client: &str) {
        eventually("a session is refused", || match self.open(client) {
            Ok(session) => {
                self.end([session]);
                None
            }
            Err(_) => Some(()),
        });
    }

    /// Lines of the access log with this.
    pub fn lines(&self, text: &str) -> usize {
        self.proxy.log.all().iter().filter(|line| line.contains(text)).count()
    }

    /// Ends sessions, and waits until the host knows.
    pub fn end(&self, sessions: impl IntoIterator<Item = Session>) {
        for Session(stream) in sessions {
            let client = stream.local_addr().unwrap();
            drop(stream);
            let client = format!(" client={client} ");
            let is_end = |line: &str| (line.contains(" end id=") && line.contains(&client)).then_some(());
            self.proxy.log.wait("the end of the session", is_end);
        }
    }

    pub fn is_up(&self) -> bool {
        self.proxy.metric("framegate_redis_up") == 1.0
    }

    pub fn wait_until_up(&self, up: bool) {
        eventually("Redis is up, or down", || (self.is_up() == up).then_some(()));
    }

    /// Waits for two more synchronisations: the second began after this call.
    pub fn wait_for_rounds(&self) {
        let rounds = || self.proxy.metric("framegate_redis_syncs_total{result=\"ok\"}");
        let before = rounds();
        eventually("two rounds", || (rounds() >= before + 2.0).then_some(()));
    }
}

pub fn config(limits: &str, redis: &str) -> String {
    let keys = format!("keys = [{{ owner = \"a\", sha256 = \"{ONE}\" }}, {{ owner = \"b\", sha256 = \"{TWO}\" }}]");
    format!(
        "auth = \"keys\"\nname = \"r\"\nlimits = {{ {limits} }}\n\
         [[auth]]\nname = \"keys\"\ntype = \"api_keys\"\n{keys}\n\
         [redis]\n{redis}\ninterval = \"50ms\"\ntimeout = \"5s\"\nhost_timeout = \"{}s\"\n[log]\naccess = \"stdout\"\n",
        HOST_TIMEOUT.as_secs()
    )
}

/// In the limits of a route.
pub const THREE_SESSIONS: &str = "per_identity = { sessions = 3, shared = true }";

/// Two hosts with these limits.
pub fn hosts(limits: &str, redis: &str) -> [Host; 2] {
    let backend = Backend::start();
    let hosts = [Host::start(&backend, limits, redis), Host::start(&backend, limits, redis)];
    hosts.iter().for_each(|host| host.wait_until_up(true));
    hosts
}

/// Sessions of a client are counted on both hosts: what one has, the other does not give. Ends with
/// no session.
pub fn assert_shared([a, b]: &[Host; 2], client: &str) {
    let mut sessions = vec![a.admits(client), a.admits(client)];
    let other = b.admits(client);
    a.refuses(client);
    b.refuses(client);
    a.end(sessions.pop());
    let again = b.admits(client);
    b.refuses(client);
    a.refuses(client);
    a.end(sessions);
    b.end([other, again]);
}

/// Clients that come and go on both hosts as long as it lives. It stops with what they saw.
pub struct Crowd {
    threads: Vec<JoinHandle<Seen>>,
    is_over: Arc<AtomicBool>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub handshakes: usize,
    pub slowest: Duration,
}

impl Crowd {
    pub fn start(hosts: &[Host]) -> Crowd {
        let is_over = Arc::<AtomicBool>::default();
        let come_and_go = |addr: SocketAddr, client: &'static str| {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !is_over.load(Relaxed) {
                    let begun = Instant::now();
                    let mut stream = connect(addr);
                    let key = format!("Authorization: Bearer {client}\r\n");
                    stream.write_all(request("/", &key).as_bytes()).unwrap();
                    let head = read_head(&stream);
                    assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 429 "), "{head}");
                    seen.handshakes += 1;
                    seen.slowest = seen.slowest.max(begun.elapsed());
                }
                seen
            })
        };
        let places = hosts.iter().flat_map(|host| ["one", "two"].map(|client| (host.proxy.addr, client)));
        Crowd { threads: places.map(|(addr, client)| come_and_go(addr, client)).collect(), is_over }
    }

    pub fn stop(self) -> Seen {
        self.is_over.store(true, Relaxed);
        let add = |sum: Seen, one: Seen| Seen {
            handshakes: sum.handshakes + one.handshakes,
            slowest: sum.slowest.max(one.slowest),
        };
        self.threads.into_iter().map(|thread| thread.join().unwrap()).fold(Seen::default(), add)
    }
}

/// Makes a cluster of these nodes, and waits until each knows that it is complete. `options` are
/// those of `redis-cli`.
pub fn create_cluster(nodes: &[Server], options: &[&str]) {
    let places: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut create = Command::new("redis-cli");
    let made = create.args(options).args(["--cluster", "create"]).args(&places).arg("--cluster-yes").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    for node in nodes {
        eventually("the cluster is complete", || {
            let port = node.port.to_string();
            let info = Command::new("redis-cli").args(options).args(["-p", &port, "CLUSTER", "INFO"]).output().unwrap();
            String::from_utf8_lossy(&info.stdout).contains("cluster_state:ok").then_some(())
        });
    }
}

/// The three files of a server with TLS.
pub fn tls_arguments() -> Vec<String> {
    let pair = PKI.server();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (cert, key, ca) = (path(&pair.cert), path(&pair.key), path(&PKI.ca()));
    ["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no", "--tls-cert-file", &cert, "--tls-key-file", &key]
        .into_iter()
        .chain(["--tls-ca-cert-file", &ca])
        .map(str::to_owned)
        .collect()
}
