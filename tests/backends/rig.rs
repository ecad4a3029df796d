//! Backends that fail on demand, and clients that echo through the proxy until they are told to
//! stop.

use super::common::*;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, park_timeout};
use std::time::Duration;

/// How long a slow backend waits before each echo.
const SLOW: Duration = Duration::from_millis(40);
/// How long a client waits between two messages: many clients share few processors.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a client that waits for an echo looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What a backend does with messages and new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Serves,
    /// Later.
    Slow,
    /// Accepts, and never answers.
    Stalls,
}

/// A WebSocket server: its echoes begin with its number.
pub struct Backend {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    number: u8,
    mode: AtomicU8,
    killed: AtomicBool,
    /// Established sessions.
    sessions: AtomicUsize,
    /// All connections that it has accepted.
    streams: Mutex<Vec<TcpStream>>,
}

impl Backend {
    pub fn start(number: u8) -> Backend {
        let (listener, addr) = listen();
        let shared = Arc::new(Shared { number, ..Shared::default() });
        let of_thread = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || of_thread.accept(&listener)));
        Backend { addr, shared, thread }
    }

    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, SeqCst);
    }

    /// As the end of a process does: the port refuses from now on, and all connections end.
    pub fn kill(&mut self) {
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

    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(SeqCst)
    }

    /// All of its connections have been ended by the proxy.
    pub fn is_deserted(&self) -> bool {
        let ended = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            match (&*stream).read(&mut [0; 4096]) {
                Ok(n) => n == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            }
        };
        self.shared.streams.lock().unwrap().iter().all(ended)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        [Mode::Serves, Mode::Slow, Mode::Stalls][usize::from(self.mode.load(SeqCst))]
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.killed.load(SeqCst) {
                return;
            }
            let stream = patient(stream);
            self.streams.lock().unwrap().push(stream.try_clone().unwrap());
            let shared = Arc::clone(&self);
            std::thread::spawn(move || {
                // The end of a connection is the proxy's business, or the test's: it is looked for
                // there.
                let _ = shared.serve(&stream);
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
        if self.mode() == Mode::Stalls {
            return Ok(());
        }
        self.sessions.fetch_add(1, SeqCst);
        let ended = stream.write_all(switching("").as_bytes()).and_then(|()| self.echo(stream));
        self.sessions.fetch_sub(1, SeqCst);
        ended
    }

    fn echo(&self, mut stream: &TcpStream) -> io::Result<()> {
        loop {
            let (first, payload) = read_message(stream)?;
            match self.mode() {
                Mode::Stalls => return Ok(()),
                Mode::Slow => park_timeout(SLOW),
                Mode::Serves => {}
            }
            if first == 0x88 {
                return stream.write_all(&plain(0x88, &payload));
            }
            stream.write_all(&plain(first, &[&[self.number], &payload[..]].concat()))?;
        }
    }
}

/// One short frame: first byte and unmasked payload.
fn read_message(mut stream: &TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut key = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut key)?;
    }
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload)?;
    payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
    Ok((head[0], payload))
}

/// How a client's session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By the client, as it was told, after echoes without a gap.
    Stopped,
    /// The last message had no echo when it was told to stop.
    Waiting,
    /// Without the client.
    Lost,
}

/// A client that sends one message after the other, and compares their echoes.
pub struct Client {
    pub backend: u8,
    shared: Arc<Progress>,
    thread: JoinHandle<Outcome>,
}

#[derive(Default)]
struct Progress {
    echoes: AtomicU64,
    stop: AtomicBool,
}

impl Client {
    /// A handshake that must succeed, and a first echo, which says where it went.
    #[track_caller]
    pub fn open(proxy: &Proxy) -> Client {
        let mut stream = connect(proxy.addr);
        stream.write_all(request("/", "").as_bytes()).unwrap();
        let head = read_head(&stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream.write_all(&masked(0x81, b"hello")).unwrap();
        let (first, payload) = read_message(&stream).unwrap();
        assert_eq!((first, &payload[1..]), (0x81, &b"hello"[..]));
        let (backend, shared) = (payload[0], Arc::new(Progress::default()));
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || of_thread.run(&stream, backend));
        Client { backend, shared, thread }
    }

    pub fn echoes(&self) -> u64 {
        self.shared.echoes.load(SeqCst)
    }

    pub fn tell_to_stop(&self) {
        self.shared.stop.store(true, SeqCst);
    }

    pub fn join(self) -> (u8, Outcome) {
        (self.backend, self.thread.join().expect("all echoes are right"))
    }
}

impl Progress {
    fn run(&self, mut stream: &TcpStream, backend: u8) -> Outcome {
        let mut outcome = Outcome::Stopped;
        while outcome == Outcome::Stopped && !self.stop.load(SeqCst) {
            outcome = self.echo(stream, backend);
            park_timeout(PAUSE);
        }
        if outcome != Outcome::Lost {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let closed = stream.write_all(&masked(0x88, &close_payload(1000, "")));
            // A backend that stalls does not answer, and the close deadline ends it.
            let answer = closed.and_then(|()| read_message(stream));
            let fits = matches!(answer, Ok((0x88, _))) || outcome == Outcome::Waiting;
            assert!(fits, "backend {backend}: a Close was answered with {answer:?}");
        }
        outcome
    }

    fn echo(&self, mut stream: &TcpStream, backend: u8) -> Outcome {
        let text = format!("message {}", self.echoes.load(SeqCst));
        if stream.write_all(&masked(0x81, text.as_bytes())).is_err() {
            return Outcome::Lost;
        }
        stream.set_read_timeout(Some(LOOK)).unwrap();
        while let Err(error) = stream.peek(&mut [0]) {
            match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut if self.stop.load(SeqCst) => return Outcome::Waiting,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return Outcome::Lost,
            }
        }
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Ok((first, payload)) = read_message(stream) else { return Outcome::Lost };
        assert_eq!((first, payload[0], &payload[1..]), (0x81, backend, text.as_bytes()));
        self.echoes.fetch_add(1, SeqCst);
        Outcome::Stopped
    }
}
