//! TLS between a test and the proxy, for tests written for plain sockets: plain on the side of the
//! test, TLS toward the proxy. Bytes, a FIN (with its close_notify) and a reset are forwarded. A
//! TLS stream that ends without a close_notify is a reset on the plain side, so that no test takes
//! truncation for an end.

use super::pki::{PKI, provider};
use mio::net::TcpStream as Socket;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::{Domain, SockRef, Socket as Socket2, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The sides with a shim between test and proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secured {
    pub clients: bool,
    pub upstreams: bool,
}

/// No TLS.
pub const PLAIN: Secured = Secured { clients: false, upstreams: false };

/// Depends on the name of the test program: the suites over TLS include the plain ones.
pub static SECURED: LazyLock<Secured> = LazyLock::new(|| {
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    let both = name.starts_with("tls_both");
    Secured { clients: both || name.starts_with("tls_clients"), upstreams: both || name.starts_with("tls_upstreams") }
});

/// Adds TLS to a configuration: to its listeners, and toward upstreams.
pub fn secure(toml: &str) -> String {
    let (mut out, mut listener) = (String::new(), false);
    for line in toml.lines() {
        listener |= line == "[[listener]]";
        out += &if SECURED.upstreams { secure_urls(line) } else { line.to_owned() };
        out.push('\n');
        if listener && line.starts_with("listen = ") {
            listener = false;
            if SECURED.clients {
                out += &format!("tls = {{ certificates = [{}] }}\n", PKI.server().toml());
            }
        }
    }
    out
}

/// Replaces each plain URL of a TCP endpoint by the URL of a shim in front of it.
fn secure_urls(line: &str) -> String {
    let Some((before, rest)) = line.split_once("ws://127.0.0.1:") else { return line.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (port, rest) = rest.split_at(end);
    let server = format!("127.0.0.1:{port}").parse().unwrap();
    format!("{before}wss://{}{}", before_plain(server), secure_urls(rest))
}

static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(PKI.roots()).with_no_client_auth())
});

static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let (chain, key) = PKI.server().der();
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
});

/// Starts a shim for plain clients of the TLS `server`; its address.
pub fn before_tls(server: SocketAddr) -> SocketAddr {
    serve(server, || {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::clone(&CLIENT), name).unwrap().into()
    })
}

/// Starts a shim for TLS clients of the plain `server`; its address.
pub fn before_plain(server: SocketAddr) -> SocketAddr {
    serve(server, || ServerConnection::new(Arc::clone(&SERVER)).unwrap().into())
}

fn serve(server: SocketAddr, secure: fn() -> Connection) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    shrink(&SockRef::from(&listener)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for from in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                // Without a server the client is reset.
                let Ok(to) = dial(server) else { return super::reset(from) };
                let tls = secure();
                // The accepted connection is the plain one if the shim is the TLS client.
                let (plain, wire) = if matches!(tls, Connection::Client(_)) { (from, to) } else { (to, from) };
                Shim::new(plain, wire, tls).run();
            });
        }
    });
    addr
}

/// Small buffers, like those of the listener, so that data waits in the proxy and not here.
fn dial(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket2::new(Domain::IPV4, Type::STREAM, None)?;
    shrink(&socket)?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

fn shrink(socket: &Socket2) -> std::io::Result<()> {
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)
}

struct Shim {
    plain: Socket,
    wire: Socket,
    tls: Connection,
    /// Decrypted, but not written to the plain side yet.
    opened: Vec<u8>,
    /// The end has been read from there.
    plain_ended: bool,
    wire_ended: bool,
    /// The end has been forwarded to there.
    plain_told: bool,
    wire_told: bool,
}

/// Both sides are to be reset.
struct Lost;

const LIMIT: usize = 16 * 1024;
const BUFFER: usize = 16 * 1024;

impl Shim {
    fn new(plain: TcpStream, wire: TcpStream, tls: Connection) -> Shim {
        let [plain, wire] = [plain, wire].map(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            Socket::from_std(stream)
        });
        let (plain_ended, wire_ended, plain_told, wire_told) = Default::default();
        Shim { plain, wire, tls, opened: Vec::new(), plain_ended, wire_ended, plain_told, wire_told }
    }

    fn run(mut self) {
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut self.plain, Token(0), both).unwrap();
        poll.registry().register(&mut self.wire, Token(1), both).unwrap();
        while !(self.plain_told && self.wire_told) {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => {
                    poll.poll(&mut events, Some(Duration::from_millis(200))).unwrap_or(());
                    if events.iter().any(mio::event::Event::is_error) {
                        // What was read before is forwarded as far as possible.
                        let _last = self.turn();
                        return self.reset();
                    }
                }
                Err(Lost) => return self.reset(),
            }
        }
    }

    fn reset(self) {
        for socket in [&self.plain, &self.wire] {
            SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Whether any bytes moved.
    fn turn(&mut self) -> Result<bool, Lost> {
        let moved = [self.seal()?, self.send()?, self.receive()?, self.open()?];
        Ok(moved.contains(&true))
    }

    fn seal(&mut self) -> Result<bool, Lost> {
        let mut buf = [0; 16 * 1024];
        if self.plain_ended || self.tls.is_handshaking() || self.tls.wants_write() {
            return Ok(false);
        }
        match moved(self.plain.read(&mut buf))? {
            None => return Ok(false),
            Some(0) => {
                self.plain_ended = true;
                self.tls.send_close_notify();
            }
            Some(n) => self.tls.writer().write_all(&buf[..n]).unwrap(),
        }
        Ok(true)
    }

    fn send(&mut self) -> Result<bool, Lost> {
        let mut any = false;
        while self.tls.wants_write() {
            match moved(self.tls.write_tls(&mut self.wire))? {
                None | Some(0) => return Ok(any),
                Some(_) => any = true,
            }
        }
        if self.plain_ended && !self.wire_told {
            self.wire_told = true;
            let _gone = self.wire.shutdown(Shutdown::Write);
            return Ok(true);
        }
        Ok(any)
    }

    fn receive(&mut self) -> Result<bool, Lost> {
        if self.wire_ended || self.opened.len() > LIMIT {
            return Ok(false);
        }
        let Some(n) = moved(self.tls.read_tls(&mut self.wire))? else { return Ok(false) };
        let state = self.tls.process_new_packets().map_err(|_| {
            // Sends the alert, if the socket accepts it at once.
            let _said = self.tls.write_tls(&mut self.wire);
            Lost
        })?;
        let mut fresh = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut fresh).map_err(|_| Lost)?;
        self.opened.extend(fresh);
        self.wire_ended = state.peer_has_closed();
        // A FIN before the close_notify.
        if n == 0 && !self.wire_ended { Err(Lost) } else { Ok(true) }
    }

    fn open(&mut self) -> Result<bool, Lost> {
        let mut any = false;
        while !self.opened.is_empty() {
            match moved(self.plain.write(&self.opened))? {
                None => return Ok(any),
                Some(n) => drop(self.opened.drain(..n)),
            }
            any = true;
        }
        if self.wire_ended && !self.plain_told {
            self.plain_told = true;
            let _gone = self.plain.shutdown(Shutdown::Write);
            return Ok(true);
        }
        Ok(any)
    }
}

/// `None` if the socket is not ready.
fn moved(result: std::io::Result<usize>) -> Result<Option<usize>, Lost> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => Ok(None),
        Err(_) => Err(Lost),
    }
}
