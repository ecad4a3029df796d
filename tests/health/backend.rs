//! A backend that echoes sessions and answers health checks as it was set to. Sessions ask for
//! `/session`, checks for anything else.

use crate::common::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a check gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A valid 101, then the pong of a ping, then the answer to a Close.
    Pong,
    /// The same without a pong.
    NoPong,
    WrongAccept,
    Status(u16),
    Nothing,
}

/// What a backend has seen and does.
pub struct State {
    pub reply: Mutex<Reply>,
    /// Checks that have begun: their whole request is there.
    pub checks: AtomicUsize,
    pub sessions: AtomicUsize,
    /// The head of the last check.
    pub head: Mutex<String>,
    /// Frames of checks in order: first byte, payload, whether masked.
    pub frames: Mutex<Vec<(u8, Vec<u8>, bool)>>,
}

/// Anything that is read and written like a socket.
trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

pub struct Backend {
    pub addr: SocketAddr,
    pub state: Arc<State>,
}

impl Backend {
    pub fn new(reply: Reply) -> Backend {
        let (listener, addr) = listen();
        Backend::on(listener, addr, reply)
    }

    /// At an address of which nothing was there before.
    pub fn at(addr: SocketAddr, reply: Reply) -> Backend {
        Backend::on(TcpListener::bind(addr).unwrap(), addr, reply)
    }

    fn on(listener: TcpListener, addr: SocketAddr, reply: Reply) -> Backend {
        let state = State::new(reply);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || state.serve(Box::new(stream)));
            }
        });
        Backend { addr, state }
    }

    /// Behind TLS, with this configuration.
    pub fn tls(config: Arc<rustls::ServerConfig>, reply: Reply) -> Backend {
        let (listener, addr) = listen();
        let state = State::new(reply);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (state, config) = (Arc::clone(&shared), Arc::clone(&config));
                thread::spawn(move || {
                    let conn = rustls::ServerConnection::new(config).unwrap();
                    state.serve(Box::new(rustls::StreamOwned::<_, TcpStream>::new(conn, stream)));
                });
            }
        });
        Backend { addr, state }
    }

    pub fn unix(path: &Path, reply: Reply) -> Arc<State> {
        let listener = UnixListener::bind(path).unwrap();
        let state = State::new(reply);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || state.serve(Box::new(stream)));
            }
        });
        state
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    pub fn set(&self, reply: Reply) {
        *self.state.reply.lock().unwrap() = reply;
    }

    pub fn checks(&self) -> usize {
        self.state.checks.load(SeqCst)
    }

    pub fn sessions(&self) -> usize {
        self.state.sessions.load(SeqCst)
    }

    /// Waits until `n` more checks have begun.
    pub fn wait_checks(&self, n: usize) {
        let from = self.checks();
        eventually("more checks", || (self.checks() >= from + n).then_some(()));
    }
}

impl State {
    fn new(reply: Reply) -> Arc<State> {
        Arc::new(State {
            reply: Mutex::new(reply),
            checks: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            head: Mutex::default(),
            frames: Mutex::default(),
        })
    }

    fn serve(&self, mut wire: Box<dyn Wire>) {
        let Some(head) = head_of(&mut wire) else { return };
        if head.starts_with("GET /session ") {
            self.sessions.fetch_add(1, SeqCst);
            echo(&mut wire, &head);
            return;
        }
        let reply = *self.reply.lock().unwrap();
        self.head.lock().unwrap().clone_from(&head);
        self.checks.fetch_add(1, SeqCst);
        let sent = match reply {
            Reply::Nothing => Ok(()),
            Reply::Status(status) => {
                write!(wire, "HTTP/1.1 {status} Any\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            }
            Reply::WrongAccept => wire.write_all(switching("").as_bytes()),
            Reply::Pong | Reply::NoPong => wire.write_all(accepted(&head).as_bytes()),
        };
        if sent.is_err() || matches!(reply, Reply::Status(_)) {
            return;
        }
        while let Some((first, payload, masked)) = frame_of(&mut wire) {
            self.frames.lock().unwrap().push((first, payload.clone(), masked));
            let answer = match (first, reply) {
                (0x89, Reply::Pong) => plain(0x8a, &payload),
                (0x88, _) => plain(0x88, &payload),
                _ => continue,
            };
            if wire.write_all(&answer).is_err() || first == 0x88 {
                return;
            }
        }
    }
}

fn echo(wire: &mut Box<dyn Wire>, head: &str) {
    if wire.write_all(accepted(head).as_bytes()).is_err() {
        return;
    }
    while let Some((first, payload, _)) = frame_of(wire) {
        if wire.write_all(&plain(first, &payload)).is_err() {
            return;
        }
    }
}

/// A valid response to the request: computed by a library, not by framegate.
fn accepted(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    switching("").replace(ACCEPT, &accept)
}

/// A request head; `None` if the connection ends before.
fn head_of(wire: &mut Box<dyn Wire>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// One short frame: first byte, payload, whether it was masked.
fn frame_of(wire: &mut Box<dyn Wire>) -> Option<(u8, Vec<u8>, bool)> {
    let (mut start, mut key) = ([0; 2], [0; 4]);
    wire.read_exact(&mut start).ok()?;
    let masked = start[1] & 0x80 != 0;
    if masked {
        wire.read_exact(&mut key).ok()?;
    }
    let len = usize::from(start[1] & 0x7f);
    assert!(len < 126, "tests send short frames");
    let mut payload = vec![0; len];
    wire.read_exact(&mut payload).ok()?;
    payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
    Some((start[0], payload, masked))
}
