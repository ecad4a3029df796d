//! Backends that name themselves in their response, clients, and the admin listener.

use crate::common::*;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a backend does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Accepts the WebSocket, and echoes.
    Serves,
    Status(u16),
    /// Ends the connection without a response.
    Closes,
    /// Does not respond.
    Stalls,
    /// Resets the connection after its 101.
    Resets,
}

/// A server with a number, which its responses carry.
pub struct Backend {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    number: usize,
    mode: Mutex<Mode>,
    /// Where requests came from.
    peers: Mutex<Vec<IpAddr>>,
    stopped: AtomicBool,
}

impl Backend {
    pub fn start(number: usize) -> Backend {
        let (listener, addr) = listen();
        let shared = Arc::new(Shared {
            number,
            mode: Mutex::new(Mode::Serves),
            peers: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || of_thread.accept(&listener)));
        Backend { addr, shared, thread }
    }

    pub fn several(count: usize) -> Vec<Backend> {
        (0..count).map(Backend::start).collect()
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Where its requests came from, one after the other.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.shared.peers.lock().unwrap().clone()
    }

    /// Requests that it has seen.
    pub fn requests(&self) -> usize {
        self.peers().len()
    }

    /// Its port refuses from now on; sessions stay.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopped.store(true, SeqCst);
        // Wakes the thread; it is gone already if this fails.
        drop(TcpStream::connect(self.addr));
        thread.join().expect("a backend does not panic");
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
            if self.stopped.load(SeqCst) {
                return;
            }
            let (shared, stream) = (Arc::clone(&self), patient(stream));
            std::thread::spawn(move || {
                // Its end is the proxy's business, or the test's.
                let _ = shared.serve(stream);
            });
        }
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        // A test decides how long a session lasts.
        stream.set_read_timeout(None)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        self.peers.lock().unwrap().push(stream.peer_addr()?.ip());
        let (mode, name) = (*self.mode.lock().unwrap(), format!("X-Backend: {}\r\n", self.number));
        match mode {
            Mode::Serves => {
                stream.write_all(switching(&name).as_bytes())?;
                echo(&stream)
            }
            Mode::Status(status) => {
                write!(stream, "HTTP/1.1 {status} As Told\r\n{name}Content-Length: 0\r\n\r\n")?;
                stream.read(&mut [0]).map(drop)
            }
            Mode::Closes => Ok(()),
            Mode::Stalls => stream.read(&mut [0]).map(drop),
            Mode::Resets => {
                stream.write_all(switching(&name).as_bytes())?;
                // Not before the client has its 101, after which it sends a frame.
                stream.read_exact(&mut [0])?;
                reset(stream);
                Ok(())
            }
        }
    }
}

fn echo(mut stream: &TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 6];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        stream.read_exact(&mut payload)?;
        payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= head[2 + i % 4]);
        stream.write_all(&plain(head[0], &payload))?;
        if head[0] == 0x88 {
            return Ok(());
        }
    }
}

/// A configuration of one route to the upstream `g`; `route` and `upstream` are further keys there.
pub fn config(backends: &[Backend], route: &str, upstream: &str) -> String {
    let endpoints: Vec<_> = backends.iter().map(|backend| format!("{:?}", backend.url())).collect();
    config_of(&endpoints.join(", "), route, upstream)
}

/// The same with endpoints as they stand in the file.
pub fn config_of(endpoints: &str, route: &str, upstream: &str) -> String {
    format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"g\"\nendpoints = [{endpoints}]\n{upstream}\n[[route]]\nupstream = \"g\"\n{route}\n"
    )
}

/// The same where the first backend is used before all others.
pub fn first_of(backends: &[Backend], route: &str, upstream: &str) -> String {
    let endpoint =
        |(n, backend): (usize, &Backend)| format!("{{ url = {:?}, priority = {} }}", backend.url(), n.min(1));
    config_of(&backends.iter().enumerate().map(endpoint).collect::<Vec<_>>().join(", "), route, upstream)
}

/// One that has sent its request.
pub struct Client {
    pub stream: TcpStream,
    /// The head of its response.
    pub head: String,
}

/// Sends a request; `fields` are header lines.
pub fn begin(proxy: &Proxy, path: &str, fields: &str) -> TcpStream {
    let mut stream = connect(proxy.addr);
    stream.write_all(request(path, fields).as_bytes()).unwrap();
    stream
}

/// A handshake, whatever becomes of it.
#[track_caller]
pub fn visit(proxy: &Proxy, path: &str, fields: &str) -> Client {
    Client::answered(begin(proxy, path, fields))
}

/// A session.
#[track_caller]
pub fn session(proxy: &Proxy) -> Client {
    let client = visit(proxy, "/", "");
    assert_eq!(client.status(), 101, "{}", client.head);
    client
}

impl Client {
    #[track_caller]
    pub fn answered(stream: TcpStream) -> Client {
        let head = read_head(&stream);
        Client { stream, head }
    }

    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The number of the backend that has answered.
    #[track_caller]
    pub fn backend(&self) -> usize {
        self.field("X-Backend").unwrap_or_else(|| panic!("no backend in {}", self.head)).parse().unwrap()
    }

    #[track_caller]
    pub fn echoes(&mut self) {
        self.stream.write_all(&masked(0x81, b"still here")).unwrap();
        assert_eq!(read_frame(&self.stream), (0x81, b"still here".to_vec(), false));
    }

    /// Ends its session as clients do.
    #[track_caller]
    pub fn close(mut self) {
        self.stream.write_all(&masked(0x88, &close_payload(1000, ""))).unwrap();
        assert_eq!(read_close(&self.stream).0, 1000);
        read_all(&self.stream);
    }
}

/// Status and body of an admin response.
pub fn admin(proxy: &Proxy, method: &str, path: &str) -> (u16, String) {
    let answer = http(proxy.admin(), &format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Gives the endpoint an order, which must succeed: the state that it has then.
#[track_caller]
pub fn order(proxy: &Proxy, backend: &Backend, order: &str) -> String {
    let (status, body) = admin(proxy, "POST", &format!("/upstreams/g/{}/{order}", backend.addr));
    assert_eq!(status, 200, "{body}");
    body.trim().to_owned()
}

/// What `GET /upstreams` says of the upstream `g`.
pub fn upstream(proxy: &Proxy) -> Value {
    let (status, body) = admin(proxy, "GET", "/upstreams");
    assert_eq!(status, 200);
    let all: Value = serde_json::from_str(&body).unwrap();
    let all = all.as_array().unwrap();
    all.iter().find(|upstream| upstream["name"] == "g").unwrap_or_else(|| panic!("no g in {body}")).clone()
}

/// What it says of one endpoint.
pub fn endpoint(proxy: &Proxy, backend: &Backend) -> Value {
    let upstream = upstream(proxy);
    let mut endpoints = upstream["endpoints"].as_array().unwrap().iter();
    endpoints.find(|endpoint| endpoint["url"] == backend.url()).expect("an endpoint").clone()
}

/// Waits until the endpoint has this state: a failure counts in the turn in which the client gets
/// its response, maybe a moment after it.
pub fn wait_state(proxy: &Proxy, backend: &Backend, state: &str) {
    eventually(state, || (endpoint(proxy, backend)["state"] == state).then_some(()));
}

/// Waits for this value of the upstream.
pub fn wait_upstream(proxy: &Proxy, key: &str, value: u64) {
    eventually(key, || (upstream(proxy)[key] == value).then_some(()));
}

pub fn reload(proxy: &Proxy, toml: &str) {
    std::fs::write(&proxy.config, toml).unwrap();
    let (status, body) = admin(proxy, "POST", "/reload");
    assert_eq!(status, 200, "{body}");
}

/// The line of the access log about the end of a session with this cause.
pub fn end_line(proxy: &Proxy, cause: &str) -> String {
    proxy.log.wait_for(&format!("cause={cause} "))
}
