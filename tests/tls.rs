//! TLS over real sockets: certificates, client authentication, failed handshakes and their causes,
//! changes without a restart. Clients and upstreams are rustls, OpenSSL, curl, Python and Node.

#[path = "tls/foreign.rs"]
mod foreign;
#[path = "tls/process.rs"]
mod process;
#[path = "tls/upstream.rs"]
mod upstream;

mod common;

use common::pki::{PKI, Pair, provider};
use common::{
    ACCEPT, Proxy, accept, before, connect, eventually, field, http, listen, masked, patient, plain, read_all,
    read_exact, read_head, request, switching, temp_path, verdict,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme, StreamOwned,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

type Client = StreamOwned<ClientConnection, TcpStream>;
/// One TLS listener and one route to `upstream`. `tls` is the listener's table, `more` follows the
/// route.
fn config(upstream: &str, tls: &str, more: &str) -> String {
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"";
    format!(
        "[workers]\ncount = 1\n{admin}\n[[listener]]\nlisten = \"127.0.0.1:0\"\ntls = {{ {tls} }}\n\
         [[route]]\nupstream = \"{upstream}\"\n{more}\n"
    )
}

fn certificates(pairs: &[&Pair]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|pair| pair.toml()).collect();
    format!("certificates = [{}]", pairs.join(", "))
}

fn start(upstream: SocketAddr, tls: &str) -> Proxy {
    let tls = if tls.contains("certificates") {
        tls.to_owned()
    } else {
        format!("{}, {tls}", certificates(&[&PKI.server()]))
    };
    Proxy::start(&config(&format!("ws://{upstream}"), tls.trim_end_matches([',', ' ']), ""))
}

fn client_config(roots: RootCertStore, identity: Option<&Pair>) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]).unwrap();
    let config = config.with_root_certificates(roots);
    match identity {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let (chain, key) = pair.der();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// Waits until a metric has a value: workers publish their counters with a delay.
fn counts(proxy: &Proxy, name: &str, count: f64) {
    eventually(name, || (proxy.metric(name) == count).then_some(()));
}

/// A client that trusts the test CA.
fn trusting() -> Arc<ClientConfig> {
    Arc::new(client_config(PKI.roots(), None))
}

fn dial(addr: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Client {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), connect(addr))
}

/// Completes the TLS handshake, nothing more.
fn handshake(mut client: Client) -> std::io::Result<Client> {
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

fn tls_head(mut stream: impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// An established session: the client's TLS, the upstream's socket, and the request that it
/// received.
fn open(mut client: Client, listener: &TcpListener) -> (Client, TcpStream, String) {
    client
        .write_all(request("/", "X-Client-Cert-Subject: CN=forged\r\nX-Client-Cert-SHA256: 00\r\n").as_bytes())
        .unwrap();
    let mut upstream = accept(listener);
    let head = read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    let answer = tls_head(&mut client);
    assert!(answer.contains(ACCEPT), "{answer}");
    (client, upstream, head)
}

fn echo(client: &mut Client, upstream: &mut TcpStream, payload: &[u8]) {
    let (there, back) = (masked(0x82, payload), plain(0x82, payload));
    std::thread::scope(|scope| {
        let (there, back, upstream) = (&there, &back, &*upstream);
        scope.spawn(move || {
            assert!(read_exact(upstream, there.len()) == *there);
            (&*upstream).write_all(back).unwrap();
        });
        client.write_all(there).unwrap();
        let mut got = vec![0; back.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == *back);
    });
}

fn subject(client: &Client) -> Vec<u8> {
    client.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn messages_pass_and_x_forwarded_proto_is_https() {
    let (listener, addr) = listen();
    let mut proxy = start(addr, "");
    let (mut client, mut upstream, head) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    assert!(head.contains("X-Forwarded-Proto: https\r\n") && !head.contains("X-Client-Cert"), "{head}");
    assert_eq!(client.conn.alpn_protocol(), None);
    for len in [0, 1, 1000, 70_000, 3_000_000] {
        echo(&mut client, &mut upstream, &vec![7; len]);
    }
    client.write_all(&masked(0x88, b"")).unwrap();
    assert_eq!(read_exact(&upstream, 6), masked(0x88, b""));
    upstream.write_all(&plain(0x88, b"")).unwrap();
    let mut rest = Vec::new();
    // Without a close_notify this is an error.
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, plain(0x88, b""));
    upstream.shutdown(Shutdown::Write).unwrap();
    let log = proxy.stop();
    assert_eq!(verdict(&log[1]), "ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

#[test]
fn certificate_is_selected_by_server_name() {
    let [a, wild, other] = [("a", "a.example"), ("wild", "*.wild.test"), ("other", "other.test")]
        .map(|(file, name)| PKI.sign(&format!("sni-{file}"), &[name], |_| {}));
    let (_listener, addr) = listen();
    let proxy = start(addr, &certificates(&[&other, &wild, &a]));
    for (name, pair) in [("a.example", &a), ("b.wild.test", &wild), ("A.Example", &a), ("other.test", &other)] {
        let client = handshake(dial(proxy.addr, name, &trusting())).unwrap();
        assert_eq!(subject(&client), pair.der().0[0].to_vec(), "{name}");
    }
    // Other names, and no name, get the first certificate, which is not valid for them.
    for name in ["a.b.wild.test", "wild.test", "localhost", "127.0.0.1"] {
        let error = handshake(dial(proxy.addr, name, &trusting())).unwrap_err().to_string();
        assert!(error.contains("NotValidForName") || error.contains("not valid for"), "{name}: {error}");
    }
    let log = proxy.log.wait_for("cause=tls-alert");
    assert_eq!(field(&log, "phase"), Some("tls"), "{log}");
}

/// Verifies a certificate as usual and records its OCSP response.
#[derive(Debug)]
struct Stapled {
    verifier: Arc<WebPkiServerVerifier>,
    response: Mutex<Vec<u8>>,
}

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.response.lock().unwrap() = ocsp.to_vec();
        self.verifier.verify_server_cert(cert, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[test]
fn ocsp_response_is_stapled() {
    let (_listener, addr) = listen();
    let (pair, response) = (PKI.server(), common::temp_path("ocsp"));
    std::fs::write(&response, b"what the authority said").unwrap();
    let stapled = format!("{{ cert = {:?}, key = {:?}, ocsp = {response:?} }}", pair.cert, pair.key);
    let proxy = start(addr, &format!("certificates = [{stapled}]"));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(PKI.roots()), provider()).build().unwrap();
    let stapled = Arc::new(Stapled { verifier, response: Mutex::default() });
    for version in [&TLS12, &TLS13] {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::<Stapled>::clone(&stapled));
        handshake(dial(proxy.addr, "localhost", &Arc::new(builder.with_no_client_auth()))).unwrap();
        assert_eq!(std::mem::take(&mut *stapled.response.lock().unwrap()), b"what the authority said");
    }
    std::fs::remove_file(response).unwrap();
}

#[test]
fn versions_and_alpn_follow_the_configuration() {
    let (_listener, addr) = listen();
    for (min, version, good) in
        [("1.2", &TLS12, true), ("1.2", &TLS13, true), ("1.3", &TLS13, true), ("1.3", &TLS12, false)]
    {
        let proxy = start(addr, &format!("min_version = \"{min}\""));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(PKI.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let result = handshake(dial(proxy.addr, "localhost", &Arc::new(config.clone())));
        match result {
            Ok(client) if good => assert_eq!(client.conn.alpn_protocol(), Some(b"http/1.1".as_slice())),
            Err(error) if !good => {
                assert!(error.to_string().contains("ProtocolVersion"), "{error}");
                let line = proxy.log.wait_for(" end ");
                assert_eq!(verdict(&line), "ended_by=downstream phase=tls cause=tls-version");
                counts(&proxy, "framegate_tls_handshakes_total{side=\"downstream\",outcome=\"failed\"}", 1.0);
                counts(&proxy, "framegate_handshakes_total{outcome=\"tls-version\"}", 1.0);
            }
            other => panic!("{min} {version:?}: {other:?}"),
        }
        // A client that offers only HTTP/2 gets an alert.
        if good {
            config.alpn_protocols = vec![b"h2".to_vec()];
            let error = handshake(dial(proxy.addr, "localhost", &Arc::new(config))).unwrap_err().to_string();
            assert!(error.contains("NoApplicationProtocol"), "{error}");
            assert_eq!(
                verdict(&proxy.log.wait_for("tls-no-common")),
                "ended_by=downstream phase=tls cause=tls-no-common-parameters"
            );
        }
    }
}

#[test]
fn client_certificates_are_verified_and_forwarded() {
    let ca = PKI.ca();
    let good = PKI.client("mtls-good");
    let expired = PKI.expired("mtls-expired", &[]);
    let (listener, addr) = listen();
    for (asked, without) in [("optional", true), ("required", false)] {
        let proxy = start(addr, &format!("client_auth = \"{asked}\", client_ca = {ca:?}"));
        let config = Arc::new(client_config(PKI.roots(), Some(&good)));
        let (mut client, mut upstream, head) = open(dial(proxy.addr, "localhost", &config), &listener);
        echo(&mut client, &mut upstream, b"known");
        assert!(head.contains("X-Client-Cert-Subject: CN=mtls-good\r\n"), "{head}");
        let line = head.lines().find(|line| line.starts_with("X-Client-Cert-SHA256: ")).unwrap();
        let openssl =
            ran(Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&good.cert));
        let fingerprint = openssl.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
        assert_eq!(line, format!("X-Client-Cert-SHA256: {fingerprint}"));
        assert!(!head.contains("forged"), "{head}");

        let anonymous = dial(proxy.addr, "localhost", &trusting());
        if without {
            assert!(!open(anonymous, &listener).2.contains("X-Client-Cert"));
        } else {
            // In TLS 1.3 the alert comes after the client's handshake.
            let refused = handshake(anonymous).and_then(|mut client| client.read(&mut [0]).map(|_| ()));
            assert!(refused.unwrap_err().to_string().contains("CertificateRequired"));
            assert_eq!(verdict(&proxy.log.wait_for(" end ")), "ended_by=downstream phase=tls cause=tls-no-certificate");
        }
        let stranger = self_signed();
        for (pair, why) in [(&expired, "tls-expired"), (&stranger, "tls-unknown-issuer")] {
            let config = Arc::new(client_config(PKI.roots(), Some(pair)));
            let result = handshake(dial(proxy.addr, "localhost", &config));
            result.and_then(|mut client| client.read(&mut [0])).unwrap_err();
            proxy.log.wait_for(&format!("ended_by=downstream phase=tls cause={why}"));
        }
    }
}

/// A certificate of an unknown issuer.
fn self_signed() -> Pair {
    let (cert, key) = framegate::tls::self_signed([127, 0, 0, 1].into(), std::time::SystemTime::now()).unwrap();
    let pair = Pair { cert: temp_path("pem"), key: temp_path("key") };
    std::fs::write(&pair.cert, cert).unwrap();
    std::fs::write(&pair.key, key).unwrap();
    pair
}

#[test]
fn tickets_resume_on_any_worker_but_not_under_other_rules() {
    let (_listener, addr) = listen();
    let three = |tls: &str| {
        config(&format!("ws://{addr}"), &format!("{}{tls}", certificates(&[&PKI.server()])), "")
            .replace("count = 1", "count = 3")
    };
    for version in [&TLS13, &TLS12] {
        let proxy = Proxy::start(&three(""));
        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let client = Arc::new(client.with_root_certificates(PKI.roots()).with_no_client_auth());
        let kind = || {
            let mut client = dial(proxy.addr, "localhost", &client);
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            // TLS 1.3 sends the ticket with the response.
            client.read_to_end(&mut Vec::new()).unwrap();
            client.conn.handshake_kind().unwrap()
        };
        assert_eq!(kind(), HandshakeKind::Full);
        for _ in 0..12 {
            assert_eq!(kind(), HandshakeKind::Resumed, "{version:?}");
        }
        proxy.signal("HUP");
        proxy.said.wait_for("configuration reloaded");
        assert_eq!(kind(), HandshakeKind::Resumed, "after a reload");
        counts(&proxy, "framegate_tls_handshakes_total{side=\"downstream\",outcome=\"resumed\"}", 13.0);
        let ca = PKI.ca();
        std::fs::write(&proxy.config, three(&format!(", client_auth = \"optional\", client_ca = {ca:?}"))).unwrap();
        let reloads = || proxy.metric("framegate_reloads_total{result=\"ok\"}");
        proxy.signal("HUP");
        eventually("a second reload", || (reloads() == 2.0).then_some(()));
        // A worker may still use the old configuration for a moment.
        eventually("other rules", || (kind() == HandshakeKind::Full).then_some(()));
        std::fs::write(&proxy.config, three(", tickets = false")).unwrap();
        proxy.signal("HUP");
        eventually("a third reload", || (reloads() == 3.0).then_some(()));
        eventually("no tickets", || (kind() == HandshakeKind::Full && kind() == HandshakeKind::Full).then_some(()));
    }
}

#[test]
fn malformed_handshakes_end_at_once_and_leave_nothing() {
    let (_listener, addr) = listen();
    let proxy = start(addr, "");
    let plain = http(proxy.addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 400 Bad Request\r\n") && plain.ends_with("use https or wss.\n"), "{plain}");
    assert_eq!(
        verdict(&proxy.log.wait_for("plain-on-tls")),
        "ended_by=downstream phase=tls cause=plain-on-tls status=400"
    );
    let flood = b"\x15\x03\x03\x00\x02\x01\x5a".repeat(200);
    for (bytes, alert, why) in [
        (b"\x00\x01\x02\x03garbage".as_slice(), Some(50), "tls-malformed"),
        (b"\x16\x03\x01\xff\xff", Some(50), "tls-malformed"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", Some(50), "tls-malformed"),
        (b"\x17\x03\x03\x00\x01\x00", Some(10), "tls-misbehaved"),
        (b"\x15\x03\x01\x00\x02\x02\x28", None, "tls-alert"),
        (&flood, None, "tls-misbehaved"),
    ] {
        let mut client = connect(proxy.addr);
        client.write_all(bytes).unwrap();
        let (said, _) = read_all(&client);
        assert_eq!(said.get(6).copied(), alert, "{bytes:x?}: {said:x?}");
        drop(client);
        proxy.log.wait_for(&format!("ended_by=downstream phase=tls cause={why}"));
    }
    // A silent client leaves no log line, a truncated handshake does.
    drop(connect(proxy.addr));
    let mut half = connect(proxy.addr);
    half.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    read_all(&half);
    assert_eq!(verdict(&proxy.log.wait_for("cause=eof")), "ended_by=downstream phase=tls cause=eof");
    eventually("nothing is left", || (proxy.metric("framegate_handshakes") == 0.0).then_some(()));
    counts(&proxy, "framegate_handshakes_total{outcome=\"no-request\"}", 1.0);
    counts(&proxy, "framegate_tls_handshakes_total{side=\"downstream\",outcome=\"failed\"}", 7.0);
}

#[test]
fn handshake_has_a_timeout() {
    let (_listener, addr) = listen();
    let server = certificates(&[&PKI.server()]);
    let proxy = Proxy::start(&config(
        &format!("ws://{addr}"),
        &server,
        "[timeouts]\ntls = \"300ms\"\nrequest_head = \"300ms\"",
    ));
    let (silent, mut stalled) = (connect(proxy.addr), connect(proxy.addr));
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    // Single bytes do not extend the timeout.
    let mut dripping = connect(proxy.addr);
    let dripped = std::thread::spawn(move || {
        let hello = [&b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"[..], &[0; 1000]].concat();
        hello
            .iter()
            .take_while(|byte| {
                std::thread::park_timeout(std::time::Duration::from_millis(5));
                dripping.write_all(&[**byte]).is_ok()
            })
            .count()
    });
    assert!(read_all(&silent).0.is_empty());
    read_all(&stalled);
    assert!(dripped.join().unwrap() < 1000);
    proxy
        .log
        .wait("two timeouts", |line| line.contains("ended_by=downstream phase=tls cause=tls-timeout").then_some(()));
    eventually("both", || (proxy.metric("framegate_handshakes_total{outcome=\"tls-timeout\"}") == 2.0).then_some(()));
    // The request head has a timeout of its own.
    let client = handshake(dial(proxy.addr, "localhost", &trusting())).unwrap();
    let mut end = Vec::new();
    let mut client = client;
    client.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"");
}

#[test]
fn truncation_and_bad_records_have_causes() {
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let (client, upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&upstream).0.is_empty());
    drop((client, upstream));
    assert_eq!(verdict(&proxy.log.wait_for(" end ")), "ended_by=downstream phase=open cause=tls-truncated status=101");
    let (mut client, upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    client.sock.write_all(b"\x17\x03\x03\x00\x20ciphertext without a key........").unwrap();
    let error = client.read(&mut [0]).unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
    assert_eq!(read_all(&upstream).1, common::End::Reset);
    assert_eq!(
        verdict(&proxy.log.wait_for("tls-bad-record")),
        "ended_by=downstream phase=open cause=tls-bad-record status=101"
    );
    let (client, upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    socket2::SockRef::from(&client.sock).send_out_of_band(b"!").unwrap();
    assert_eq!(common::read_close(&upstream), (1001, "urgent data".to_owned()));
    drop(client);
    assert!(proxy.log.wait_for("cause=urgent-data").contains("ended_by=downstream"));
}

#[test]
fn certificates_are_replaced_without_losing_a_session() {
    let (listener, addr) = listen();
    let live = PKI.sign("live", &["localhost"], |_| {});
    let next = PKI.sign("live-next", &["localhost"], |_| {});
    let last = PKI.sign("live-last", &["localhost"], |_| {});
    let proxy = start(addr, &certificates(&[&live]));
    let serves = || subject(&handshake(dial(proxy.addr, "localhost", &trusting())).unwrap());
    let (mut client, mut upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    let before = subject(&client);
    assert_eq!(serves(), before);
    // A certificate without its key: the old pair stays, and an error is logged.
    common::pki::replace(&next.cert, &live.cert);
    let said = proxy.said.wait_for("keeping the old one");
    assert!(said.contains("is not the key of the certificate"), "{said}");
    assert_eq!(serves(), before);
    // A reload fails as a whole.
    proxy.signal("HUP");
    proxy.said.wait_for("reload failed, keeping the running configuration");
    assert_eq!(serves(), before);
    common::pki::replace(&next.key, &live.key);
    proxy.said.wait_for("reloaded certificate");
    assert_eq!(serves(), next.der().0[0].to_vec());
    // A reload loads a new pair at once.
    live.replace(&last);
    proxy.signal("HUP");
    proxy.said.wait(" reloaded", |line| line.ends_with(" reloaded").then_some(()));
    eventually("the last one", || (serves() == last.der().0[0].to_vec()).then_some(()));
    std::fs::write(&live.cert, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    proxy.said.wait("nonsense", |line| line.contains("is not a valid PEM file").then_some(()));
    assert_eq!(serves(), last.der().0[0].to_vec());
    echo(&mut client, &mut upstream, b"still here");
}

fn ran(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&stderr));
    text
}

#[test]
fn open_session_is_served_during_many_handshakes() {
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let (mut client, mut upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    let config = trusting();
    std::thread::scope(|scope| {
        let storm: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| (0..50).for_each(|_| drop(handshake(dial(proxy.addr, "localhost", &config)).unwrap())))
            })
            .collect();
        while !storm.iter().all(|thread| thread.is_finished()) {
            echo(&mut client, &mut upstream, b"during handshakes");
        }
    });
    let handshakes =
        |how| proxy.metric(&format!("framegate_tls_handshakes_total{{side=\"downstream\",outcome=\"{how}\"}}"));
    eventually("201 handshakes", || (handshakes("full") + handshakes("resumed") == 201.0).then_some(()));
    eventually("passes", || (proxy.metric("framegate_loop_busy_seconds_count") > 0.0).then_some(()));
}

#[test]
fn records_cut_at_every_length_are_forwarded() {
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let (mut client, upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    let payload: Vec<u8> = (0..200_u8).collect();
    let frame = masked(0x82, &payload);
    for cut in 1..=frame.len() + 22 {
        client.conn.writer().write_all(&frame).unwrap();
        let mut bytes = Vec::new();
        while client.conn.wants_write() {
            client.conn.write_tls(&mut bytes).unwrap();
        }
        for piece in bytes.chunks(cut) {
            client.sock.write_all(piece).unwrap();
        }
        assert!(read_exact(&upstream, frame.len()) == frame, "cut at {cut}");
    }
    let _patient = patient(upstream);
}
