//! From a URL and flags to a WebSocket on another server: rustls and tungstenite on the other side
//! say what reached them. And what cannot work is reported in one sentence, before anything is
//! measured.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;

const PROGRAM: &str = env!("CARGO_BIN_EXE_framegate-loadtest");
const DEADLINE: Duration = Duration::from_secs(20);
/// A short run of two connections.
const SHORT: &[&str] = &["-c", "2", "-r", "40", "-d", "300ms", "--settle", "0s", "-t", "1"];

/// What a connection has shown the server.
#[derive(Debug, Clone, Default)]
struct Seen {
    peer: Option<IpAddr>,
    path: String,
    fields: HashMap<String, String>,
    version: String,
    cipher: String,
    resumed: bool,
    sni: Option<String>,
    alpn: Option<String>,
    has_certificate: bool,
}

/// A WebSocket echo, over TLS if it has a configuration, that remembers what it saw. It ends
/// with the process, and its connections without a close_notify: after the Close, or at once where
/// a client requests `/cut`.
struct Server {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start(config: Option<ServerConfig>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { addr: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, config) = (server.seen.clone(), config.map(Arc::new));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (seen, config) = (seen.clone(), config.clone());
                std::thread::spawn(move || serve(socket.unwrap(), config, &seen));
            }
        });
        server
    }

    /// Of so many connections at least, once they are there.
    fn seen(&self, at_least: usize) -> Vec<Seen> {
        let deadline = Instant::now() + DEADLINE;
        while self.seen.lock().unwrap().len() < at_least {
            assert!(Instant::now() < deadline, "the server saw too little");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.seen.lock().unwrap().clone()
    }
}

fn serve(socket: TcpStream, config: Option<Arc<ServerConfig>>, list: &Mutex<Vec<Seen>>) {
    socket.set_nodelay(true).unwrap();
    let mut seen = Seen { peer: socket.peer_addr().ok().map(|peer| peer.ip()), ..Seen::default() };
    let Some(config) = config else { return echo(socket, seen, list) };
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    while stream.conn.is_handshaking() {
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return;
        }
    }
    seen.version = format!("{:?}", stream.conn.protocol_version().unwrap());
    seen.cipher = stream.conn.negotiated_cipher_suite().unwrap().suite().as_str().unwrap().to_owned();
    seen.resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    seen.sni = stream.conn.server_name().map(str::to_owned);
    seen.alpn = stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    seen.has_certificate = stream.conn.peer_certificates().is_some();
    echo(stream, seen, list);
}

#[expect(clippy::result_large_err, reason = "tungstenite wants it so")]
fn echo<S: Read + Write>(stream: S, mut seen: Seen, list: &Mutex<Vec<Seen>>) {
    let read = |request: &Request, mut response: Response| {
        seen.path = request.uri().to_string();
        for (name, value) in request.headers() {
            seen.fields.insert(name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        if seen.fields.get("sec-websocket-protocol").is_some_and(|offer| offer.contains("superchat")) {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("superchat"));
        }
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, read) else { return };
    let cuts = seen.path == "/cut";
    list.lock().unwrap().push(seen);
    if cuts {
        return;
    }
    while let Ok(message) = socket.read() {
        if (message.is_binary() || message.is_text()) && socket.send(message).is_err() {
            return;
        }
    }
}

/// A CA, what it has signed, and the files of both.
struct Authority {
    folder: PathBuf,
    config: ServerConfig,
}

impl Authority {
    fn new(wants_client: bool) -> Authority {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("framegate-loadtest-tests-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("CA {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["a.example".into(), "127.0.0.1".into()];
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        for (name, text) in [("ca.pem", ca.pem()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let builder = if wants_client {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Authority { folder, config }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(words: &[&str]) -> Output {
    Command::new(PROGRAM).args(words).output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(words: &[&str]) {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {:?} {}", output.status, printed(&output));
}

/// One sentence, which says `what`.
fn fails(words: &[&str], code: Option<i32>, what: &str) {
    let output = run(words);
    let printed = printed(&output);
    assert!(!output.status.success() && printed.contains(what), "{words:?}: {:?} {printed}", output.status);
    assert!(code.is_none() || output.status.code() == code, "{words:?}: {:?}", output.status);
    assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
}

#[test]
fn all_that_the_flags_say_reaches_the_server() {
    let authority = Authority::new(true);
    let server = Server::start(Some(authority.config.clone()));
    let url = format!("wss://{}/chat?room=1", server.addr);
    let (ca, cert, key) = (authority.file("ca.pem"), authority.file("cert.pem"), authority.file("key.pem"));
    for (version, shown) in [("1.2", "TLSv1_2"), ("1.3", "TLSv1_3")] {
        let tls = ["--tls-version", version, "--ca", &ca, "--cert", &cert, "--key", &key, "--sni", "a.example"];
        let more = ["--alpn", "http/1.1", "--subprotocol", "chat,superchat", "--origin", "https://b.example"];
        let head = ["--bearer", "tok.en", "--header", "Cookie: a=b", "--host", "c.example:5"];
        succeeds(&[&["echo", &url], SHORT, &tls, &more, &head].concat());
        let seen = server.seen.lock().unwrap().drain(..).collect::<Vec<_>>();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            assert_eq!(seen.version, shown);
            assert_eq!(seen.sni.as_deref(), Some("a.example"));
            assert_eq!(seen.alpn.as_deref(), Some("http/1.1"));
            assert!(seen.has_certificate);
            assert_eq!(seen.path, "/chat?room=1");
            for (name, value) in [
                ("host", "c.example:5"),
                ("origin", "https://b.example"),
                ("authorization", "Bearer tok.en"),
                ("cookie", "a=b"),
                ("sec-websocket-protocol", "chat, superchat"),
                ("sec-websocket-version", "13"),
            ] {
                assert_eq!(seen.fields.get(name).map(String::as_str), Some(value), "{name}");
            }
            assert!(!seen.fields.contains_key("sec-websocket-extensions"));
        }
    }
}

#[test]
fn keys_differ_and_without_flags_nothing_more_is_said() {
    let server = Server::start(None);
    succeeds(&[&["echo", &format!("ws://{}", server.addr)], SHORT].concat());
    let seen = server.seen(2);
    let keys: Vec<_> = seen.iter().map(|seen| seen.fields["sec-websocket-key"].clone()).collect();
    assert_ne!(keys[0], keys[1]);
    assert_eq!(seen[0].path, "/");
    assert_eq!(seen[0].fields["host"], server.addr.to_string());
    let mut names: Vec<&str> = seen[0].fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["connection", "host", "sec-websocket-key", "sec-websocket-version", "upgrade"]);
}

#[test]
fn handshakes_are_resumed_unless_that_is_off() {
    let authority = Authority::new(false);
    let ca = authority.file("ca.pem");
    for off in [false, true] {
        let server = Server::start(Some(authority.config.clone()));
        let url = format!("wss://{}/", server.addr);
        let words = ["churn", &url, "--ca", &ca, "-r", "30", "-d", "500ms", "--settle", "0s", "-t", "1"];
        succeeds(&[&words[..], if off { &["--no-resumption"][..] } else { &[] }].concat());
        let seen = server.seen(5);
        let resumed = seen.iter().filter(|seen| seen.resumed).count();
        if off {
            assert_eq!(resumed, 0);
        } else {
            // All but those that began before the first had a ticket.
            assert!(resumed * 2 > seen.len(), "{resumed} of {}", seen.len());
        }
    }
}

#[test]
fn one_cipher_can_be_asked_for() {
    let authority = Authority::new(false);
    let server = Server::start(Some(authority.config.clone()));
    let (url, ca) = (format!("wss://{}/", server.addr), authority.file("ca.pem"));
    for (name, shown) in [
        ("TLS_AES_128_GCM_SHA256", "TLS13_AES_128_GCM_SHA256"),
        ("TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        succeeds(&[&["echo", &url, "--ca", &ca, "--tls-cipher", name], SHORT].concat());
        let seen = server.seen.lock().unwrap().drain(..).collect::<Vec<_>>();
        assert!(seen.len() == 2 && seen.iter().all(|seen| seen.cipher == shown), "{name}: {seen:?}");
    }
}

#[test]
fn an_end_without_close_notify_is_a_fault_unless_a_close_came_before_it() {
    let authority = Authority::new(false);
    let server = Server::start(Some(authority.config.clone()));
    let (url, ca) = (format!("wss://{}", server.addr), authority.file("ca.pem"));
    let words = ["--ca", &ca, "-r", "30", "-d", "300ms", "--settle", "0s", "-t", "1", "--fail-if", "errors>0"];
    succeeds(&[&["churn", &url], &words[..]].concat());
    let output = run(&[&["churn", &format!("{url}/cut")], &words[..]].concat());
    let shown = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{shown}");
    assert!(shown.contains("without close_notify"), "{shown}");
}

#[test]
fn large_messages_pass_over_tls() {
    let authority = Authority::new(false);
    let server = Server::start(Some(authority.config.clone()));
    let (url, ca) = (format!("wss://{}/", server.addr), authority.file("ca.pem"));
    for size in ["64KiB", "1MiB"] {
        let words = ["echo", &url, "--ca", &ca, "-c", "2", "--closed", "2", "-s", size, "-d", "500ms"];
        succeeds(&[&words[..], &["--settle", "0s", "-t", "1"]].concat());
    }
}

#[test]
fn sources_are_taken_in_turn() {
    let server = Server::start(None);
    let url = format!("ws://{}", server.addr);
    let words = ["-c", "6", "-r", "60", "-d", "300ms", "--settle", "0s", "-t", "1"];
    succeeds(&[&["echo", &url, "--source", "127.0.0.2-127.0.0.4"], &words[..]].concat());
    let mut peers: Vec<String> = server.seen(6).iter().map(|seen| seen.peer.unwrap().to_string()).collect();
    peers.sort_unstable();
    assert_eq!(peers, ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.4", "127.0.0.4"]);
}

#[test]
fn errors_are_explained_in_one_sentence() {
    let (authority, stranger) = (Authority::new(true), Authority::new(false));
    let server = Server::start(Some(authority.config.clone()));
    let (secure, plain) = (format!("wss://{}/", server.addr), format!("ws://{}/", server.addr));
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("ws://{}/", listener.local_addr().unwrap())
    };
    let (ca, wrong_ca) = (authority.file("ca.pem"), stranger.file("ca.pem"));
    let (cert, wrong_key) = (authority.file("cert.pem"), stranger.file("key.pem"));
    for (url, words, code, what) in [
        ("http://127.0.0.1/", &[][..], Some(2), "use ws://127.0.0.1/"),
        ("ws://127.0.0.1:99999/", &[], Some(2), "invalid port"),
        ("ws://no-such-name.invalid/", &[], Some(2), "cannot resolve"),
        (&secure, &["--ca", "/no/such/file"], Some(2), "cannot read"),
        (&secure, &["--ca", &ca, "--cert", &cert, "--key", &wrong_key], Some(2), "does not match"),
        (&secure, &["--insecure", "--alpn", "h2"], Some(2), "only HTTP/1.1"),
        (&secure, &["--insecure", "--tls-cipher", "RC4"], Some(2), "known are TLS_AES_256_GCM_SHA384, "),
        (
            &secure,
            &["--insecure", "--tls-cipher", "TLS_AES_128_GCM_SHA256", "--tls-version", "1.2"],
            Some(2),
            "cannot set up TLS",
        ),
        (&plain, &["--header", "A: b\r\nC: d"], Some(2), "control character"),
        (&plain, &["--source", "192.0.2.1"], Some(2), "one of this host"),
        (&plain, &["--source", "::1"], Some(2), "one is IPv4, the other IPv6"),
        (&plain, &["--source", "127.0.0.9-127.0.0.1"], Some(2), "ends before it begins"),
        (&refusing, &[], None, "refuse"),
        (&secure, &["--ca", &wrong_ca], None, "use --ca FILE"),
        (&secure, &["--ca", &ca], None, "requires a client certificate"),
        (&secure, &["--ca", &ca, "--sni", "b.example"], None, "is for a.example, 127.0.0.1, not for b.example"),
        (&plain, &[], None, "the server speaks TLS; use wss://"),
    ] {
        fails(&[&["echo", url], SHORT, words].concat(), code, what);
    }
}

#[test]
fn too_few_descriptors_are_told_before_anything_is_opened() {
    let server = Server::start(None);
    let script = format!("ulimit -n 200; exec {PROGRAM} idle ws://{} -c 300", server.addr);
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("may have 200: run `ulimit -n 364`"), "{}", printed(&output));
    assert!(server.seen.lock().unwrap().is_empty());
}
