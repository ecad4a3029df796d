//! Over loopback sockets, with a rustls server of the test's own on a thread. The client side is
//! driven as the engine drives it: edge-triggered, until `WouldBlock` or `drained_by`.

use super::*;
use crate::net::dial::{connected, dial};
use crate::net::tls::TlsArgs;
use mio::{Events, Interest, Poll, Token};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);
const LARGE: usize = 8 << 20;

type Served = StreamOwned<ServerConnection, std::net::TcpStream>;

/// A CA with what it has signed, as files for the flags and as values for the server.
struct Authority {
    folder: PathBuf,
    ca: CertificateDer<'static>,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        Authority::named(true)
    }

    /// Under a name of its own, or under the one that all others have, too.
    fn named(named: bool) -> Authority {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("framegate-loadtest-ca-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("CA {}", if named { number } else { 0 }));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".into(), "127.0.0.1".into()];
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        for (name, text) in [("ca.pem", ca.pem()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let (ca, cert) = (ca.der().clone(), cert.der().clone());
        Authority { folder, ca, cert, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// Flags of a client that trusts it.
    fn args(&self) -> TlsArgs {
        TlsArgs { ca: Some(self.folder.join("ca.pem")), ..TlsArgs::default() }
    }

    fn server(&self, wants_client: bool) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.clone()).unwrap();
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.into()).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        builder.with_single_cert(vec![self.cert.clone()], self.key.clone_key()).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Serves connections one after another on a thread, each with `serve`.
fn server<T: Send + 'static>(
    config: ServerConfig,
    connections: usize,
    serve: impl Fn(Served) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let config = Arc::new(config);
    let thread = std::thread::spawn(move || {
        let one = |_| {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.set_write_timeout(Some(DEADLINE)).unwrap();
            serve(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket))
        };
        (0..connections).map(one).collect()
    });
    (addr, thread)
}

/// An echo that ends as TLS wants it.
fn echo(mut served: Served) {
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = served.read(&mut buf) {
        served.write_all(&buf[..n]).unwrap();
    }
    served.conn.send_close_notify();
    let _ = served.flush();
}

/// The client with its poll; readiness is kept as facts, as the engine keeps it.
struct Driven {
    transport: Transport,
    poll: Poll,
    readable: bool,
    writable: bool,
    closing: bool,
    deadline: Instant,
}

impl Driven {
    fn new(addr: SocketAddr, client: Option<&tls::Client>) -> Driven {
        let stream = dial(addr, None).unwrap();
        let mut transport = match client {
            Some(client) => Transport::tls(stream, client),
            None => Transport::plain(stream),
        };
        let poll = Poll::new().unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(transport.stream_mut(), Token(0), interest).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut driven = Driven { transport, poll, readable: false, writable: false, closing: false, deadline };
        while !connected(driven.transport.stream_mut()).unwrap() {
            driven.wait();
        }
        driven
    }

    /// One round of events. None is lost: what is not handled stays a fact.
    fn wait(&mut self) {
        assert!(Instant::now() < self.deadline, "nothing happens any more");
        let mut events = Events::with_capacity(4);
        self.poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
        for event in &events {
            self.readable |= event.is_readable();
            self.writable |= event.is_writable();
            self.closing |= event.is_read_closed() || event.is_error();
        }
    }

    fn handshake(&mut self) -> io::Result<()> {
        while !self.transport.handshake()? {
            self.wait();
        }
        self.readable = true;
        Ok(())
    }

    /// What is there now, in reads of `room`, and whether the end came.
    fn take(&mut self, room: usize, got: &mut Vec<u8>) -> io::Result<bool> {
        let mut buf = vec![0; room];
        while self.readable {
            match self.transport.read(&mut buf) {
                Ok(0) => return Ok(true),
                Ok(n) => {
                    got.extend_from_slice(&buf[..n]);
                    self.readable = self.closing || !self.transport.drained_by(n, room);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }

    /// Sends `bytes` and reads until so many have come or the end did.
    fn exchange(&mut self, bytes: &[u8], expected: usize, room: usize) -> io::Result<Vec<u8>> {
        let (mut sent, mut got) = (0, Vec::new());
        while sent < bytes.len() || self.transport.wants_flush() || got.len() < expected {
            self.transport.flush()?;
            while sent < bytes.len() {
                match self.transport.write(&bytes[sent..]) {
                    Ok(n) => sent += n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            if self.take(room, &mut got)? {
                break;
            }
            if sent < bytes.len() || self.transport.wants_flush() || got.len() < expected {
                self.wait();
            }
        }
        Ok(got)
    }

    /// Reads to the end; what came, and which end it was.
    fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut got = Vec::new();
        self.readable = true;
        loop {
            match self.take(64 << 10, &mut got) {
                Ok(true) => return (got, Ok(())),
                Err(e) => return (got, Err(e)),
                Ok(false) => self.wait(),
            }
            if let Err(e) = self.transport.flush() {
                return (got, Err(e));
            }
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Why the handshake, or the first exchange behind it, fails.
fn failure(addr: SocketAddr, args: &TlsArgs, host: &str) -> String {
    let mut driven = Driven::new(addr, Some(&args.client(host).unwrap()));
    let failed = driven.handshake().and_then(|()| driven.exchange(b"hello", 5, 4096));
    let error = failed.expect_err("it must fail");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    error.to_string()
}

#[test]
fn a_transport_is_small() {
    // mio's debug builds keep a selector's number in each socket.
    let debug = if cfg!(debug_assertions) { 8 } else { 0 };
    assert!(size_of::<Transport>() <= 24 + debug, "{}", size_of::<Transport>());
}

#[test]
fn both_versions_echo_in_buffers_of_any_size() {
    let authority = Authority::new();
    let sent = pattern(100_000);
    for version in ["1.2", "1.3"] {
        let args = TlsArgs { tls_version: Some(version.into()), ..authority.args() };
        let client = args.client("localhost").unwrap();
        for room in [1000, 4096, 36_000, 2 * 18_437, 64 << 10, 256 << 10] {
            let (addr, thread) = server(authority.server(false), 1, echo);
            let mut driven = Driven::new(addr, Some(&client));
            driven.handshake().unwrap();
            assert!(driven.transport.agreed().unwrap().starts_with(&format!("TLS {version}, ")));
            assert!(driven.exchange(&sent, sent.len(), room).unwrap() == sent, "{version} {room}");
            driven.transport.shutdown();
            assert!(matches!(driven.rest(), (rest, Ok(())) if rest.is_empty()));
            thread.join().unwrap();
        }
    }
}

#[test]
fn plain_bytes_pass_and_fin_ends_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut got = Vec::new();
        socket.read_to_end(&mut got).unwrap();
        socket.write_all(&got).unwrap();
    });
    let mut driven = Driven::new(addr, None);
    assert!(driven.transport.handshake().unwrap());
    assert!(driven.transport.resumed().is_none() && driven.transport.agreed().is_none());
    assert!(driven.exchange(b"hello", 0, 4096).unwrap().is_empty());
    driven.transport.shutdown();
    assert!(matches!(driven.rest(), (rest, Ok(())) if rest == b"hello"));
    assert!(!driven.transport.wants_flush() && driven.transport.flush().unwrap());
    assert!(driven.transport.drained_by(5, 6) && !driven.transport.drained_by(6, 6));
    thread.join().unwrap();
}

#[test]
fn much_passes_both_ways_under_back_pressure() {
    let authority = Authority::new();
    let sent = pattern(LARGE);
    for version in ["1.2", "1.3"] {
        // Reads nothing before the client's sockets are full, and everything before it replies.
        let (blocked, wait) = std::sync::mpsc::channel::<()>();
        let (addr, thread) = server(authority.server(false), 1, move |mut served: Served| {
            let mut got = vec![0; LARGE];
            served.flush().unwrap();
            wait.recv_timeout(DEADLINE).unwrap();
            served.read_exact(&mut got).unwrap();
            served.write_all(&got).unwrap();
            served.conn.send_close_notify();
            served.flush().unwrap();
        });
        let args = TlsArgs { tls_version: Some(version.into()), ..authority.args() };
        let mut driven = Driven::new(addr, Some(&args.client("127.0.0.1").unwrap()));
        driven.handshake().unwrap();
        let mut taken = 0;
        while let Ok(n) = driven.transport.write(&sent[taken..]) {
            taken += n;
            assert!(taken < LARGE, "everything is taken, and nothing read");
        }
        blocked.send(()).unwrap();
        assert!(driven.exchange(&sent[taken..], LARGE, 64 << 10).unwrap() == sent, "{version}");
        assert!(matches!(driven.rest(), (rest, Ok(())) if rest.is_empty()));
        thread.join().unwrap();
    }
}

#[test]
fn what_is_not_taken_would_block() {
    let authority = Authority::new();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (addr, thread) = server(authority.server(false), 1, move |mut served: Served| {
        served.flush().unwrap();
        // Reads nothing more until the test asks for it.
        let _ = wait.recv_timeout(DEADLINE);
        let mut got = Vec::new();
        let _ = served.read_to_end(&mut got);
        got.len()
    });
    let mut driven = Driven::new(addr, Some(&authority.args().client("localhost").unwrap()));
    driven.handshake().unwrap();
    let (chunk, mut taken) = (pattern(1 << 20), 0);
    let blocked = loop {
        match driven.transport.write(&chunk) {
            Ok(n) => taken += n,
            Err(e) => break e,
        }
        assert!(taken < 64 << 20, "nothing is read, and everything is taken");
    };
    assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    assert!(driven.transport.wants_flush());
    assert!(!driven.transport.flush().unwrap());
    // The end waits behind what waits, and comes with the last of it.
    driven.transport.shutdown();
    done.send(()).unwrap();
    while !driven.transport.flush().unwrap() {
        driven.wait();
    }
    assert_eq!(thread.join().unwrap(), [taken]);
}

#[test]
fn close_notify_is_an_end_and_its_absence_is_not() {
    let authority = Authority::new();
    for version in ["1.2", "1.3"] {
        let client = TlsArgs { tls_version: Some(version.into()), ..authority.args() }.client("localhost").unwrap();
        for notified in [true, false] {
            let (addr, thread) = server(authority.server(false), 1, move |mut served: Served| {
                served.write_all(b"last words").unwrap();
                if notified {
                    served.conn.send_close_notify();
                }
                served.flush().unwrap();
                served.sock.shutdown(Shutdown::Write).unwrap();
                let _ = served.sock.read_to_end(&mut Vec::new());
            });
            let mut driven = Driven::new(addr, Some(&client));
            driven.handshake().unwrap();
            let (rest, end) = driven.rest();
            assert_eq!(rest, b"last words");
            match end {
                Ok(()) => assert!(notified, "{version}: a truncation passes for an end"),
                Err(e) => assert!(!notified && e.kind() == ErrorKind::UnexpectedEof, "{version}: {e}"),
            }
            drop(driven);
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_client_certificate_is_shown_where_it_is_wanted() {
    let authority = Authority::new();
    let file = |name: &str| Some(authority.folder.join(name));
    for version in ["1.2", "1.3"] {
        let without = TlsArgs { tls_version: Some(version.into()), ..authority.args() };
        let with = TlsArgs { cert: file("cert.pem"), key: file("key.pem"), ..without.clone() };
        let (addr, thread) = server(authority.server(true), 2, echo);
        let mut driven = Driven::new(addr, Some(&with.client("localhost").unwrap()));
        driven.handshake().unwrap();
        assert_eq!(driven.exchange(b"hello", 5, 4096).unwrap(), b"hello");
        drop(driven);
        let why = failure(addr, &without, "localhost");
        assert!(why.contains("--cert FILE --key FILE"), "{version}: {why}");
        thread.join().unwrap();
    }
}

#[test]
fn certificate_errors_are_explained() {
    for (named, says) in [(true, "use --ca FILE"), (false, "another of the same name")] {
        let (authority, stranger) = (Authority::named(named), Authority::named(named));
        let (addr, thread) = server(authority.server(false), 1, echo);
        let why = failure(addr, &stranger.args(), "localhost");
        assert!(why.contains(says), "{why}");
        thread.join().unwrap();
    }
    let authority = Authority::new();
    let (addr, thread) = server(authority.server(false), 4, echo);
    let why = failure(addr, &authority.args(), "a.example");
    assert!(why.contains("is for localhost, 127.0.0.1, not for a.example; use --sni"), "{why}");
    let sni = TlsArgs { sni: Some("b.example".into()), ..authority.args() };
    assert!(failure(addr, &sni, "localhost").contains("not for b.example"));
    // Another name helps, and so does not to ask.
    let sni = TlsArgs { sni: Some("localhost".into()), ..authority.args() };
    let insecure = TlsArgs { insecure: true, ..TlsArgs::default() };
    for (args, host) in [(sni, "a.example"), (insecure, "a.example")] {
        let mut driven = Driven::new(addr, Some(&args.client(host).unwrap()));
        driven.handshake().unwrap();
        assert_eq!(driven.exchange(b"hello", 5, 4096).unwrap(), b"hello");
    }
    thread.join().unwrap();
}

#[test]
fn alpn_is_offered_and_its_refusal_explained() {
    let authority = Authority::new();
    let mut config = authority.server(false);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (addr, thread) = server(config, 2, |mut served: Served| {
        let _ = served.flush();
        let chosen = served.conn.alpn_protocol().map(<[u8]>::to_vec);
        echo(served);
        chosen
    });
    let offering = |name: &str| TlsArgs { alpn: vec![name.into()], ..authority.args() };
    let mut driven = Driven::new(addr, Some(&offering("http/1.1").client("localhost").unwrap()));
    driven.handshake().unwrap();
    assert_eq!(driven.exchange(b"hello", 5, 4096).unwrap(), b"hello");
    drop(driven);
    assert!(failure(addr, &offering("x"), "localhost").contains("--alpn"));
    assert_eq!(thread.join().unwrap(), [Some(b"http/1.1".to_vec()), None]);
}

#[test]
fn resumption_is_seen_and_can_be_off() {
    let authority = Authority::new();
    for (version, off) in [("1.2", false), ("1.3", false), ("1.2", true), ("1.3", true)] {
        let args = TlsArgs { tls_version: Some(version.into()), no_resumption: off, ..authority.args() };
        let client = args.client("localhost").unwrap();
        let (addr, thread) = server(authority.server(false), 3, echo);
        for round in 0..3 {
            let mut driven = Driven::new(addr, Some(&client));
            driven.handshake().unwrap();
            // The ticket comes with the echo at the latest.
            assert_eq!(driven.exchange(b"hello", 5, 64 << 10).unwrap(), b"hello");
            assert_eq!(driven.transport.resumed(), Some(round > 0 && !off), "{version} {round}");
        }
        thread.join().unwrap();
    }
}

#[test]
fn a_server_without_tls_is_explained() {
    for answer in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let client = TlsArgs { insecure: true, ..TlsArgs::default() }.client("localhost").unwrap();
        let mut driven = Driven::new(addr, Some(&client));
        let error = driven.handshake().unwrap_err().to_string();
        let says = if answer.is_empty() {
            "closed the connection during the TLS handshake"
        } else {
            "ws:// instead of wss://"
        };
        assert!(error.contains(says), "{error}");
        drop(driven);
        thread.join().unwrap();
    }
}

/// A network of memory: the server's bytes reach the client in pieces, and a full one takes none.
#[derive(Default)]
struct Wire {
    to_client: Vec<u8>,
    piece: usize,
    to_server: Vec<u8>,
    full: bool,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.piece.min(self.to_client.len()).min(buf.len());
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        buf[..n].copy_from_slice(&self.to_client[..n]);
        self.to_client.drain(..n);
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.full {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.to_server.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    /// Both ends after their handshake.
    fn shaken(authority: &Authority, piece: usize) -> (Wire, Channel, ServerConnection) {
        let mut server = ServerConnection::new(authority.server(false).into()).unwrap();
        let mut channel = Channel::new(&authority.args().client("localhost").unwrap()).unwrap();
        let mut wire = Wire { piece, ..Wire::default() };
        while !channel.handshake(&mut wire).unwrap() || server.is_handshaking() {
            wire.serve(&mut server);
        }
        (wire, channel, server)
    }

    fn serve(&mut self, server: &mut ServerConnection) {
        let mut bytes = self.to_server.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().unwrap();
        }
        self.to_server.clear();
        while server.wants_write() {
            server.write_tls(&mut self.to_client).unwrap();
        }
    }
}

#[test]
fn records_cut_anywhere_are_decrypted_and_a_wrong_bit_is_detected() {
    let authority = Authority::new();
    let sent = pattern(40_000);
    for (piece, flip) in [(1, false), (7, false), (4097, false), (18_500, false), (1 << 20, false), (1 << 20, true)] {
        let (mut wire, mut channel, mut server) = Wire::shaken(&authority, piece);
        server.writer().write_all(&sent).unwrap();
        wire.serve(&mut server);
        if flip {
            *wire.to_client.last_mut().unwrap() ^= 1;
        }
        let (mut got, mut buf) = (Vec::new(), vec![0; 64 << 10]);
        let end = loop {
            match channel.read(&mut wire, &mut buf) {
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(e) => break e,
            }
        };
        if flip {
            // Two records were sound, the third is not: none of it is seen, and the server gets an
            // alert.
            assert!(got == sent[..32 << 10], "{}", got.len());
            assert_eq!(end.kind(), ErrorKind::InvalidData, "{end}");
            assert!(!wire.to_server.is_empty());
        } else {
            assert!(got == sent, "{piece}: {}", got.len());
            assert_eq!(end.kind(), ErrorKind::WouldBlock, "{end}");
        }
    }
}

#[test]
fn what_a_read_must_answer_leaves_by_itself_or_waits_to_be_flushed() {
    let authority = Authority::new();
    let mut buf = vec![0; 64 << 10];
    for (full, room) in [(false, 64 << 10), (true, 64 << 10), (false, 4096), (true, 4096)] {
        let (mut wire, mut channel, mut server) = Wire::shaken(&authority, 1 << 20);
        wire.full = full;
        server.writer().write_all(b"hello").unwrap();
        wire.serve(&mut server);
        *wire.to_client.last_mut().unwrap() ^= 1;
        assert_eq!(channel.read(&mut wire, &mut buf[..room]).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!((channel.wants_flush(), wire.to_server.is_empty()), (full, full));
        wire.full = false;
        assert!(channel.flush(&mut wire).unwrap());
        server.read_tls(&mut wire.to_server.as_slice()).unwrap();
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(server.process_new_packets().unwrap_err(), alert);
    }
}

#[test]
fn keys_may_change_on_the_way() {
    let authority = Authority::new();
    let mut buf = vec![0; 64 << 10];
    let (mut wire, mut channel, mut server) = Wire::shaken(&authority, 1 << 20);
    for _ in 0..3 {
        // The server asks for a new key of ours, too; it comes with what we send next.
        server.refresh_traffic_keys().unwrap();
        server.writer().write_all(b"hello").unwrap();
        wire.serve(&mut server);
        assert_eq!(channel.read(&mut wire, &mut buf).unwrap(), 5);
        assert_eq!(channel.write(&mut wire, b"world").unwrap(), 5);
        wire.serve(&mut server);
        server.reader().read_exact(&mut buf[..5]).unwrap();
        assert_eq!(&buf[..5], b"world");
    }
}

#[test]
fn what_is_left_is_known() {
    let authority = Authority::new();
    let (mut wire, mut channel, mut server) = Wire::shaken(&authority, 1 << 20);
    server.writer().write_all(&pattern(10_000)).unwrap();
    wire.serve(&mut server);
    let mut buf = vec![0; 64 << 10];
    // Small reads: there is more, or there may be.
    assert_eq!(channel.read(&mut wire, &mut buf[..6000]).unwrap(), 6000);
    assert!(!channel.is_drained());
    assert_eq!(channel.read(&mut wire, &mut buf[..6000]).unwrap(), 4000);
    assert_eq!(channel.read(&mut wire, &mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    // A large one saw the socket empty, and all that came was taken.
    server.writer().write_all(&pattern(10_000)).unwrap();
    wire.serve(&mut server);
    assert_eq!(channel.read(&mut wire, &mut buf).unwrap(), 10_000);
    assert!(channel.is_drained());
    // It saw no end of what was more than it asked for.
    server.writer().write_all(&pattern(60_000)).unwrap();
    wire.serve(&mut server);
    let first = channel.read(&mut wire, &mut buf).unwrap();
    assert!(!channel.is_drained());
    assert_eq!(first + channel.read(&mut wire, &mut buf).unwrap(), 60_000);
    assert!(channel.is_drained());
}

#[test]
fn closing_sends_close_notify() {
    let authority = Authority::new();
    let (addr, thread) = server(authority.server(false), 1, |mut served: Served| {
        let mut got = Vec::new();
        // Without close_notify this would be an error.
        served.read_to_end(&mut got).map(|_| got)
    });
    let mut driven = Driven::new(addr, Some(&authority.args().client("localhost").unwrap()));
    driven.handshake().unwrap();
    assert_eq!(driven.transport.write(b"bye").unwrap(), 3);
    // What came is read: bytes left in the socket would make a reset of the close.
    while driven.transport.read(&mut [0; 4096]).is_ok() {}
    drop(driven);
    assert_eq!(thread.join().unwrap().remove(0).unwrap(), b"bye");
}

#[test]
fn an_abort_is_a_reset() {
    let authority = Authority::new();
    let (addr, thread) = server(authority.server(false), 1, |mut served: Served| {
        served.read_exact(&mut [0; 1]).unwrap();
        served.write_all(b"y").unwrap();
        served.read(&mut [0; 1]).unwrap_err().kind()
    });
    let mut driven = Driven::new(addr, Some(&authority.args().client("localhost").unwrap()));
    driven.handshake().unwrap();
    assert_eq!(driven.exchange(b"x", 1, 4096).unwrap(), b"y");
    driven.transport.abort();
    assert_eq!(thread.join().unwrap(), [ErrorKind::ConnectionReset]);
}
