//! TLS from outside: who gets which certificate, who is let in, how every handshake that fails is ended and named, what changes
//! without a restart. Clients and upstreams are rustls, OpenSSL, curl, Python and Node.

mod common;

use common::pki::{PKI, Pair, provider};
use common::{
    ACCEPT, Proxy, accept, before, connect, eventually, field, http, listen, masked, patient, plain, read_all,
    read_exact, read_head, request, switching, temp_path, verdict,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

type Client = StreamOwned<ClientConnection, TcpStream>;
type Server = StreamOwned<ServerConnection, TcpStream>;

/// One TLS listener, one route to `upstream`. `tls` are more keys of the listener's TLS, `more` stands behind the route.
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

/// Workers publish what they count a little later.
fn counts(proxy: &Proxy, name: &str, count: f64) {
    eventually(name, || (proxy.metric(name) == count).then_some(()));
}

/// A client that trusts our authority.
fn trusting() -> Arc<ClientConfig> {
    Arc::new(client_config(PKI.roots(), None))
}

fn dial(addr: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Client {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), connect(addr))
}

/// The handshake alone.
fn shake(mut client: Client) -> std::io::Result<Client> {
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

/// An open session: the client's TLS, the upstream's socket, and the request that it got.
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
fn messages_pass_and_the_upstream_is_told_that_it_was_tls() {
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
    // Its end is a close_notify, or this would be an error.
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, plain(0x88, b""));
    upstream.shutdown(Shutdown::Write).unwrap();
    let log = proxy.stop();
    assert_eq!(verdict(&log[1]), "ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

#[test]
fn the_certificate_is_the_one_for_the_name() {
    let [a, wild, other] = [("a", "a.example"), ("wild", "*.wild.test"), ("other", "other.test")]
        .map(|(file, name)| PKI.sign(&format!("sni-{file}"), &[name], |_| {}));
    let (_listener, addr) = listen();
    let proxy = start(addr, &certificates(&[&other, &wild, &a]));
    for (name, pair) in [("a.example", &a), ("b.wild.test", &wild), ("A.Example", &a), ("other.test", &other)] {
        let client = shake(dial(proxy.addr, name, &trusting())).unwrap();
        assert_eq!(subject(&client), pair.der().0[0].to_vec(), "{name}");
    }
    // All other names, and none, get the first, which is not for them.
    for name in ["a.b.wild.test", "wild.test", "localhost", "127.0.0.1"] {
        let error = shake(dial(proxy.addr, name, &trusting())).unwrap_err().to_string();
        assert!(error.contains("NotValidForName") || error.contains("not valid for"), "{name}: {error}");
    }
    let log = proxy.log.wait_for("cause=tls-alert");
    assert_eq!(field(&log, "phase"), Some("tls"), "{log}");
}

/// Notes the OCSP response that comes with a certificate.
#[derive(Debug, Default)]
struct Stapled(Mutex<Vec<u8>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn an_ocsp_response_is_stapled() {
    let (_listener, addr) = listen();
    let (pair, response) = (PKI.server(), common::temp_path("ocsp"));
    std::fs::write(&response, b"what the authority said").unwrap();
    let stapled = format!("{{ cert = {:?}, key = {:?}, ocsp = {response:?} }}", pair.cert, pair.key);
    let proxy = start(addr, &format!("certificates = [{stapled}]"));
    let noted = Arc::new(Stapled::default());
    for version in [&TLS12, &TLS13] {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::<Stapled>::clone(&noted));
        shake(dial(proxy.addr, "localhost", &Arc::new(builder.with_no_client_auth()))).unwrap();
        assert_eq!(std::mem::take(&mut *noted.0.lock().unwrap()), b"what the authority said");
    }
    std::fs::remove_file(response).unwrap();
}

#[test]
fn versions_and_alpn_are_as_wanted() {
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
        let shaken = shake(dial(proxy.addr, "localhost", &Arc::new(config.clone())));
        match shaken {
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
        // Somebody who speaks nothing but HTTP/2 is told so by an alert.
        if good {
            config.alpn_protocols = vec![b"h2".to_vec()];
            let error = shake(dial(proxy.addr, "localhost", &Arc::new(config))).unwrap_err().to_string();
            assert!(error.contains("NoApplicationProtocol"), "{error}");
            assert_eq!(
                verdict(&proxy.log.wait_for("tls-no-common")),
                "ended_by=downstream phase=tls cause=tls-no-common-parameters"
            );
        }
    }
}

#[test]
fn clients_show_certificates_and_upstreams_are_told_of_them() {
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

        let nobody = dial(proxy.addr, "localhost", &trusting());
        if without {
            assert!(!open(nobody, &listener).2.contains("X-Client-Cert"));
        } else {
            // In TLS 1.3 a client learns it from what it reads.
            let refused = shake(nobody).and_then(|mut client| client.read(&mut [0]).map(|_| ()));
            assert!(refused.unwrap_err().to_string().contains("CertificateRequired"));
            assert_eq!(verdict(&proxy.log.wait_for(" end ")), "ended_by=downstream phase=tls cause=tls-no-certificate");
        }
        let stranger = self_signed();
        for (pair, why) in [(&expired, "tls-expired"), (&stranger, "tls-unknown-issuer")] {
            let config = Arc::new(client_config(PKI.roots(), Some(pair)));
            let shaken = shake(dial(proxy.addr, "localhost", &config));
            shaken.and_then(|mut client| client.read(&mut [0])).unwrap_err();
            proxy.log.wait_for(&format!("ended_by=downstream phase=tls cause={why}"));
        }
    }
}

/// Of nobody that is known.
fn self_signed() -> Pair {
    let (cert, key) = framegate::tls::self_signed([127, 0, 0, 1].into(), std::time::SystemTime::now()).unwrap();
    let pair = Pair { cert: temp_path("pem"), key: temp_path("key") };
    std::fs::write(&pair.cert, cert).unwrap();
    std::fs::write(&pair.key, key).unwrap();
    pair
}

#[test]
fn sessions_are_resumed_by_any_worker_and_after_a_reload_but_not_under_other_rules() {
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
            // The ticket of TLS 1.3 comes with the answer.
            client.read_to_end(&mut Vec::new()).unwrap();
            client.conn.handshake_kind().unwrap()
        };
        assert_eq!(kind(), HandshakeKind::Full);
        for _ in 0..12 {
            assert_eq!(kind(), HandshakeKind::Resumed, "{version:?}");
        }
        proxy.signal("HUP");
        proxy.said.wait_for("reloaded");
        assert_eq!(kind(), HandshakeKind::Resumed, "after a reload");
        counts(&proxy, "framegate_tls_handshakes_total{side=\"downstream\",outcome=\"resumed\"}", 13.0);
        let ca = PKI.ca();
        std::fs::write(&proxy.config, three(&format!(", client_auth = \"optional\", client_ca = {ca:?}"))).unwrap();
        let reloads = || proxy.metric("framegate_reloads_total{result=\"ok\"}");
        proxy.signal("HUP");
        eventually("a second reload", || (reloads() == 2.0).then_some(()));
        // A worker may still have the old rules for a moment.
        eventually("other rules", || (kind() == HandshakeKind::Full).then_some(()));
        std::fs::write(&proxy.config, three(", tickets = false")).unwrap();
        proxy.signal("HUP");
        eventually("a third reload", || (reloads() == 3.0).then_some(()));
        eventually("no tickets", || (kind() == HandshakeKind::Full && kind() == HandshakeKind::Full).then_some(()));
    }
}

#[test]
fn what_is_no_handshake_ends_at_once_and_leaves_nothing_behind() {
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
    // Who says nothing leaves no line; who stops in the middle does.
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
fn a_handshake_has_its_time() {
    let (_listener, addr) = listen();
    let server = certificates(&[&PKI.server()]);
    let proxy = Proxy::start(&config(
        &format!("ws://{addr}"),
        &server,
        "[timeouts]\ntls = \"300ms\"\nrequest_head = \"300ms\"",
    ));
    let (silent, mut stalled) = (connect(proxy.addr), connect(proxy.addr));
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    // And one that drips: each byte is no new beginning.
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
    // A head has its own time after it.
    let client = shake(dial(proxy.addr, "localhost", &trusting())).unwrap();
    let mut end = Vec::new();
    let mut client = client;
    client.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"");
}

#[test]
fn a_cut_and_a_changed_record_are_named() {
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let (client, upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&upstream).0.is_empty());
    drop((client, upstream));
    assert_eq!(verdict(&proxy.log.wait_for(" end ")), "ended_by=downstream phase=open cause=tls-truncated status=101");
    let (mut client, upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    client.sock.write_all(b"\x17\x03\x03\x00\x20ciphertext of nobody............").unwrap();
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

fn server_config(pair: &Pair, client_ca: bool) -> Arc<ServerConfig> {
    let (chain, key) = pair.der();
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]).unwrap();
    let config = match client_ca {
        false => config.with_no_client_auth(),
        true => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(PKI.roots()), provider());
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A proxy on a plain listener before `wss://` at `addr`.
fn before_wss(addr: &str, tls: &str, more: &str) -> Proxy {
    let plain = before(([127, 0, 0, 1], 1).into(), more).replace("ws://127.0.0.1:1", "app");
    Proxy::start(&format!("[[upstream]]\nname = \"app\"\nendpoints = [\"wss://{addr}\"]\ntls = {{ {tls} }}\n{plain}"))
}

fn accept_tls(listener: &TcpListener, config: &Arc<ServerConfig>) -> Server {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), accept(listener))
}

#[test]
fn upstreams_are_verified_and_shown_our_certificate() {
    let (listener, addr) = listen();
    let (ca, ours) = (PKI.ca(), PKI.client("our-own"));
    let identity = format!("cert = {:?}, key = {:?}", ours.cert, ours.key);
    let named = PKI.sign("named", &["app.internal"], |_| {});
    for (tls, config) in [
        (format!("ca = {ca:?}"), server_config(&PKI.server(), false)),
        (format!("ca = {ca:?}, {identity}, min_version = \"1.3\""), server_config(&PKI.server(), true)),
        (format!("ca = {ca:?}, server_name = \"app.internal\""), server_config(&named, false)),
        ("insecure_skip_verify = true".to_owned(), server_config(&self_signed(), false)),
    ] {
        let proxy = before_wss(&addr.to_string(), &tls, "");
        let warned = proxy.said.all().iter().any(|line| line.contains("is not verified (insecure_skip_verify)"));
        assert_eq!(warned, tls.contains("insecure"), "{tls}");
        for round in 0..3 {
            let mut client = connect(proxy.addr);
            client.write_all(request("/", "").as_bytes()).unwrap();
            let mut upstream = accept_tls(&listener, &config);
            let head = tls_head(&mut upstream);
            assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
            assert_eq!(upstream.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
            let resumed = upstream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round > 0, "{tls}, round {round}");
            assert_eq!(upstream.conn.peer_certificates().is_some(), tls.contains("our-own"));
            upstream.write_all(switching("").as_bytes()).unwrap();
            assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
            let there = masked(0x82, &[5; 100_000]);
            client.write_all(&there).unwrap();
            let mut got = vec![0; there.len()];
            upstream.read_exact(&mut got).unwrap();
            assert!(got == there);
            upstream.write_all(&plain(0x88, b"")).unwrap();
            assert_eq!(read_exact(&client, 2), plain(0x88, b""));
            client.write_all(&masked(0x88, b"")).unwrap();
            upstream.conn.send_close_notify();
            upstream.flush().unwrap();
            let mut rest = Vec::new();
            // End by a close_notify, or this were an error.
            upstream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, masked(0x88, b"")[..2].iter().chain(&rest[2..]).copied().collect::<Vec<_>>());
        }
        let name = "framegate_tls_handshakes_total{side=\"upstream\",outcome=\"resumed\"}";
        counts(&proxy, name, 2.0);
    }
}

/// Whoever reads the rest of a stream must learn whether that was all of it.
#[test]
fn an_end_passes_as_an_end_and_a_cut_as_a_cut() {
    let (listener, addr) = listen();
    let pair = PKI.server();
    let app = format!("[[upstream]]\nname = \"app\"\nendpoints = [\"wss://{addr}\"]\ntls = {{ ca = {:?} }}", PKI.ca());
    let proxy = Proxy::start(&config("app", &certificates(&[&pair]), &format!("mode = \"opaque\"\n{app}")));
    let config = server_config(&pair, false);
    for cut in [false, true] {
        let mut client = dial(proxy.addr, "localhost", &trusting());
        client.write_all(request("/", "").as_bytes()).unwrap();
        let mut upstream = accept_tls(&listener, &config);
        tls_head(&mut upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        tls_head(&mut client);
        if !cut {
            client.conn.send_close_notify();
            client.flush().unwrap();
        }
        client.sock.shutdown(Shutdown::Write).unwrap();
        let end = upstream.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(end, if cut { Err(ErrorKind::UnexpectedEof) } else { Ok(0) });
        // The other direction goes on, and has an end of its own.
        upstream.write_all(b"more").unwrap();
        upstream.conn.send_close_notify();
        upstream.flush().unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"more");
    }
}

#[test]
fn an_upstream_that_fails_tls_is_a_502_that_says_why() {
    let (listener, addr) = listen();
    let ca = format!("ca = {:?}", PKI.ca());
    let old = |pair: &Pair| {
        let (chain, key) = pair.der();
        let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12]).unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
    };
    let elsewhere = PKI.sign("elsewhere", &["elsewhere.test"], |_| {});
    let expired = PKI.expired("up-expired", &["127.0.0.1"]);
    for (tls, config, alert, why) in [
        (&*ca, server_config(&expired, false), "CertificateExpired", "tls-expired"),
        (&*ca, server_config(&self_signed(), false), "UnknownCA", "tls-unknown-issuer"),
        (&*ca, server_config(&elsewhere, false), "BadCertificate", "tls-wrong-name"),
        (&*format!("{ca}, min_version = \"1.3\""), old(&PKI.server()), "", "tls-alert"),
        (&*ca, server_config(&PKI.server(), true), "", "tls-alert"),
    ] {
        let proxy = before_wss(&addr.to_string(), tls, "");
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut upstream = accept_tls(&listener, &config);
                let error = upstream.read(&mut [0]).unwrap_err().to_string();
                assert!(error.contains(alert), "{why}: {error}");
                upstream.flush().unwrap_or(());
            });
            http(proxy.addr, &request("/", ""))
        });
        assert!(answer.starts_with("HTTP/1.1 502 "), "{why}: {answer}");
        let line = proxy.log.wait_for(" end ");
        let phase = if why == "tls-alert" && tls == ca { "response" } else { "connect" };
        assert_eq!(verdict(&line), format!("ended_by=upstream phase={phase} cause={why} status=502"));
        counts(&proxy, "framegate_tls_handshakes_total{side=\"upstream\",outcome=\"failed\"}", 1.0);
    }
}

#[test]
fn an_upstream_that_speaks_no_tls_or_nothing_is_given_up() {
    let (listener, addr) = listen();
    let tls = format!("ca = {:?}", PKI.ca());
    let proxy = before_wss(&addr.to_string(), &tls, "timeouts = { connect = \"300ms\", connect_total = \"5s\" }");
    for (said, status, why) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "502", "tls-malformed"),
        (b"", "504", "connect-timeout"),
        (b"\x16\x03\x03\x00\x7a\x02", "504", "connect-timeout"),
    ] {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let mut upstream = accept(&listener);
        upstream.write_all(said).unwrap();
        let answer = String::from_utf8(read_all(&client).0).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        proxy.log.wait_for(&format!("ended_by=upstream phase=connect cause={why} status={status}"));
        // The next endpoint was tried, if there was one: this was the last.
        drop(upstream);
    }
    // Gone in the middle of its handshake, and before it.
    for early in [true, false] {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let mut upstream = accept(&listener);
        if !early {
            read_exact(&upstream, 5);
            upstream.write_all(b"\x16\x03\x03").unwrap();
        }
        upstream.shutdown(Shutdown::Write).unwrap();
        let answer = String::from_utf8(read_all(&client).0).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
    proxy.log.wait_for("ended_by=upstream phase=connect cause=eof status=502");
}

#[test]
fn the_next_endpoint_is_tried_where_one_fails_tls() {
    let ((bad, bad_addr), (good, good_addr)) = (listen(), listen());
    let ca = PKI.ca();
    let proxy = Proxy::start(&format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"wss://{bad_addr}\", \"wss://{good_addr}\"]\ntls = {{ ca = {ca:?} }}\n{}",
        before(([127, 0, 0, 1], 1).into(), "").replace("ws://127.0.0.1:1", "app")
    ));
    std::thread::spawn(move || {
        for mut stream in bad.incoming().map_while(Result::ok) {
            let _gone = stream.write_all(b"not TLS");
        }
    });
    let config = server_config(&PKI.server(), false);
    for _ in 0..4 {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let mut upstream = accept_tls(&good, &config);
        tls_head(&mut upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    }
}

#[test]
fn certificates_change_without_losing_a_session() {
    let (listener, addr) = listen();
    let live = PKI.sign("live", &["localhost"], |_| {});
    let next = PKI.sign("live-next", &["localhost"], |_| {});
    let last = PKI.sign("live-last", &["localhost"], |_| {});
    let proxy = start(addr, &certificates(&[&live]));
    let serves = || subject(&shake(dial(proxy.addr, "localhost", &trusting())).unwrap());
    let (mut client, mut upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    let before = subject(&client);
    assert_eq!(serves(), before);
    // Half of a pair: the old one stays, and it is said.
    common::pki::replace(&next.cert, &live.cert);
    let said = proxy.said.wait_for("keeps the old certificate");
    assert!(said.contains("is not the key of the certificate"), "{said}");
    assert_eq!(serves(), before);
    // A reload with it is refused as a whole.
    proxy.signal("HUP");
    proxy.said.wait_for("not reloaded, nothing has changed");
    assert_eq!(serves(), before);
    common::pki::replace(&next.key, &live.key);
    proxy.said.wait_for("took over the new certificate");
    assert_eq!(serves(), next.der().0[0].to_vec());
    // And on a reload, at once.
    live.replace(&last);
    proxy.signal("HUP");
    proxy.said.wait(" reloaded", |line| line.ends_with(" reloaded").then_some(()));
    eventually("the last one", || (serves() == last.der().0[0].to_vec()).then_some(()));
    std::fs::write(&live.cert, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    proxy.said.wait("nonsense", |line| line.contains("is no good PEM file").then_some(()));
    assert_eq!(serves(), last.der().0[0].to_vec());
    echo(&mut client, &mut upstream, b"still here");
}

fn ran(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&stderr));
    text
}

fn check(toml: &str) -> (String, i32) {
    let path = temp_path("toml");
    std::fs::write(&path, toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(["check", "-c"]).arg(&path).output().unwrap();
    std::fs::remove_file(path).unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (said, output.status.code().unwrap())
}

#[test]
fn check_reads_keys_and_certificates() {
    let soon = PKI.sign("soon", &["a.test"], |params| {
        let now = std::time::SystemTime::now();
        params.not_after = (now + std::time::Duration::from_secs(5 * 24 * 3600 + 60)).into();
    });
    let (server, expired) = (PKI.server(), PKI.expired("check-expired", &["a.test"]));
    let (said, code) = check(&config("ws://127.0.0.1:1", &certificates(&[&server, &soon, &expired]), ""));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("certificate {}, 5 days left\n", soon.cert.display())), "{said}");
    assert!(
        said.contains(&format!("warning    the certificate in {} ends in 5 days\n", soon.cert.display())),
        "{said}"
    );
    assert!(said.contains(&format!("warning    the certificate in {} has ended\n", expired.cert.display())), "{said}");
    assert!(said.contains("TLS 1.2"), "{said}");
    let memory =
        ["3KiB for TLS with clients, and 17KiB of a record", "workers with 1 MiB for the keys of those that talk"];
    assert!(memory.iter().all(|row| said.contains(row)), "{said}");

    let mixed = Pair { cert: server.cert.clone(), key: soon.key.clone() };
    let none = Pair { cert: "/no/such.pem".into(), key: server.key.clone() };
    let swapped = Pair { cert: server.key.clone(), key: server.cert.clone() };
    for (pair, wrong) in [
        (&mixed, "is not the key of the certificate in"),
        (&none, "cannot read /no/such.pem: No such file"),
        (&swapped, "holds no certificate in PEM"),
    ] {
        let toml = config("ws://127.0.0.1:1", &certificates(&[pair]), "");
        let (said, code) = check(&toml);
        assert!(code == 2 && said.contains(wrong) && said.lines().count() == 1, "{said}");
        // A start refuses it the same way.
        let path = temp_path("toml");
        std::fs::write(&path, &toml).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(["run", "-c"]).arg(&path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(wrong), "{said}");
    }
    let (said, code) = check(&config(
        "wss://a.test",
        &format!("{}, client_auth = \"required\", client_ca = \"/no/ca\"", certificates(&[&server])),
        "",
    ));
    assert!(code == 2 && said.contains("/no/ca"), "{said}");
}

#[test]
fn a_running_proxy_warns_and_shows_days_left() {
    let (_listener, addr) = listen();
    let soon = PKI.sign("warned", &["localhost"], |params| {
        params.not_after = (std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 24 * 3600 + 60)).into();
    });
    let proxy = start(addr, &certificates(&[&soon]));
    proxy.said.wait_for(&format!("the certificate in {} ends in 3 days", soon.cert.display()));
    assert_eq!(proxy.metric(&format!("framegate_certificate_days_left{{file=\"{}\"}}", soon.cert.display())), 3.0);
}

#[test]
fn a_plain_listener_may_send_everybody_to_tls() {
    let (_listener, addr) = listen();
    for (redirect, port) in [("https", ""), ("https:8443", ":8443")] {
        let toml =
            before(addr, "").replacen("[[listener]]\n", &format!("[[listener]]\nredirect = \"{redirect}\"\n"), 1);
        let proxy = Proxy::start(&toml);
        for (host, name) in [("example.com", "example.com"), ("example.com:80", "example.com"), ("[::1]:80", "[::1]")] {
            let answer = http(proxy.addr, &format!("GET /a%20b?q=1 HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
            assert!(answer.contains(&format!("\r\nLocation: https://{name}{port}/a%20b?q=1\r\n")), "{answer}");
        }
        let answer = http(proxy.addr, &request("/", ""));
        assert!(answer.contains(&format!("\r\nLocation: https://example.com{port}/\r\n")), "{answer}");
        let bad = http(proxy.addr, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
        assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
        assert_eq!(
            verdict(&proxy.log.wait_for("redirected")),
            "ended_by=downstream phase=request cause=redirected status=308"
        );
    }
}

#[test]
fn flags_serve_both() {
    let (listener, addr) = listen();
    let server = PKI.server();
    let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
    command.args([
        "run",
        "--listen",
        "127.0.0.1:0",
        "--tls-listen",
        "127.0.0.2:0",
        "--upstream",
        &format!("ws://{addr}"),
    ]);
    command.arg("--cert").arg(&server.cert).arg("--key").arg(&server.key);
    let proxy = Proxy::spawn(&mut command, temp_path("none"));
    let addrs: Vec<SocketAddr> =
        proxy.said.all().iter().filter_map(|line| line.split_once("listening on ")?.1.parse().ok()).collect();
    assert_eq!(addrs.len(), 2);
    let same = Command::new(env!("CARGO_BIN_EXE_framegate"))
        .args(["run", "--listen", "127.0.0.1:1", "--tls-listen", "127.0.0.1:1", "--upstream", "ws://x"])
        .args(["--cert", "c", "--key", "k"])
        .output()
        .unwrap();
    assert_eq!(same.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&same.stderr).contains("--tls-listen: 127.0.0.1:1 is that of --listen"));
    let (mut client, mut upstream, _) = open(dial(addrs[1], "localhost", &trusting()), &listener);
    echo(&mut client, &mut upstream, b"by flags");
    common::open(&proxy, &listener);
}

#[test]
fn the_demo_makes_its_certificate() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--tls", "--tls-listen", "127.0.0.2:0"]);
    let mut proxy = Proxy::spawn(&mut command, temp_path("none"));
    let said = proxy.said.wait_for("--cacert");
    let cert = said.split_whitespace().skip_while(|word| *word != "--cacert").nth(1).unwrap();
    let url = said.split_whitespace().find(|word| word.starts_with("https://")).unwrap();
    let answer = ran(Command::new("curl").args(["-s", "-i", "--http1.1", "--cacert", cert, url]));
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    let folder = PathBuf::from(cert).parent().unwrap().to_owned();
    proxy.stop();
    assert!(!folder.exists(), "{} is left", folder.display());
}

/// OpenSSL's own client, with what it says of the handshake.
fn s_client(addr: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-servername", "localhost", "-CAfile"]).arg(PKI.ca());
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_and_curl_agree_and_what_is_weak_is_refused() {
    let (listener, addr) = listen();
    let ocsp = temp_path("ocsp");
    std::fs::write(&ocsp, b"not looked into here").unwrap();
    let server = PKI.server();
    let stapled = format!("certificates = [{{ cert = {:?}, key = {:?}, ocsp = {ocsp:?} }}]", server.cert, server.key);
    let proxy = start(addr, &stapled);
    for (args, expected) in [
        (&["-tls1_3"][..], "TLSv1.3"),
        (&["-tls1_2"], "TLSv1.2"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "ECDHE-ECDSA-CHACHA20-POLY1305"),
        (&["-status"], "OCSP response:"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-tls1_3", "-groups", "P-384"], "ECDH, secp384r1, 384 bits"),
        (&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "alert"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert handshake failure"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], "alert handshake failure"),
    ] {
        let said = s_client(proxy.addr, args);
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(
            expected.contains("alert")
                || said.contains("Verify return code: 0 (ok)")
                || said.contains("Verification: OK"),
            "{said}"
        );
    }
    // Renegotiation and compression have no way in.
    let said = s_client(proxy.addr, &["-tls1_2"]);
    assert!(said.contains("Secure Renegotiation IS supported") && said.contains("Compression: NONE"), "{said}");
    proxy.log.wait_for("ended_by=downstream phase=tls cause=tls-no-common-parameters");
    let answer = std::thread::scope(|scope| {
        let url = format!("https://localhost:{}/", proxy.addr.port());
        let curl = scope.spawn(move || {
            ran(Command::new("curl").args(["-s", "-i", "--http1.1", "-m", "20", "--cacert"]).arg(PKI.ca()).args([
                "-H",
                "Connection: Upgrade",
                "-H",
                "Upgrade: websocket",
                "-H",
                "Sec-WebSocket-Version: 13",
                "-H",
                &format!("Sec-WebSocket-Key: {}", common::KEY),
                &url,
            ]))
        });
        let mut upstream = accept(&listener);
        read_head(&upstream);
        upstream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret").unwrap();
        curl.join().unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && answer.ends_with("secret"), "{answer}");
}

/// Where tests/peers/setup.sh installs Node's `ws` and Python's `websockets`.
fn peers() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into(), PathBuf::from);
    let peers = std::env::var_os("PEERS_ENV").map_or_else(|| target.join("peers"), PathBuf::from);
    let found = peers.join("node/node_modules").exists() && peers.join("python/bin/python").exists();
    assert!(found || std::env::var_os("CI").is_none(), "CI has the peers: tests/peers/setup.sh");
    if !found {
        eprintln!("skipped: no peers here, see tests/peers/setup.sh");
    }
    found.then_some(peers)
}

const NODE_SERVER: &str = "const fs = require('fs'), https = require('https'), {WebSocketServer} = require('ws');
const s = https.createServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2])});
new WebSocketServer({server: s, maxPayload: 0}).on('connection', c => c.on('message', (m, binary) => c.send(m, {binary})));
s.listen(0, '127.0.0.1', () => console.log(s.address().port));";

const NODE_CLIENT: &str = "const fs = require('fs'), {WebSocket} = require('ws');
const c = new WebSocket(process.argv[1], {ca: fs.readFileSync(process.argv[2])});
const sizes = [0, 1, 1000, 65536, 1000003]; let got = 0;
const next = () => c.send(Buffer.alloc(sizes[got], got));
c.on('open', next);
c.on('error', e => { console.log('error', e.message); process.exit(1); });
c.on('message', m => { if (!m.equals(Buffer.alloc(sizes[got], got))) throw new Error('changed'); ++got < sizes.length ? next() : c.close(1000); });
c.on('close', code => console.log(got, code));";

const PYTHON_CLIENT: &str = "
import asyncio, ssl, sys, websockets
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    async with websockets.connect(sys.argv[1], ssl=context, max_size=None) as ws:
        for size in [0, 1, 1000, 65536, 1000003]:
            await ws.send(b'x' * size)
            assert await ws.recv() == b'x' * size
    print(ws.transport is not None, ws.close_code)
asyncio.run(main())";

#[test]
fn node_and_python_talk_through_tls_on_both_sides() {
    let Some(peers) = peers() else { return };
    let server = PKI.server();
    let mut node = Command::new("node")
        .args(["-e", NODE_SERVER])
        .arg(&server.cert)
        .arg(&server.key)
        .env("NODE_PATH", peers.join("node/node_modules"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port = common::Lines::of(node.stdout.take().unwrap()).wait("a port", |line| line.parse::<u16>().ok());
    let ca = PKI.ca();
    let proxy = Proxy::start(&format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"wss://localhost:{port}\"]\ntls = {{ ca = {ca:?} }}\n{}",
        config("app", &certificates(&[&server]), "")
    ));
    let url = format!("wss://localhost:{}/", proxy.addr.port());
    let said = ran(Command::new("node")
        .args(["-e", NODE_CLIENT, &url])
        .arg(&ca)
        .env("NODE_PATH", peers.join("node/node_modules")));
    assert_eq!(said.trim(), "5 1000");
    let said = ran(Command::new(peers.join("python/bin/python")).args(["-c", PYTHON_CLIENT, &url]).arg(&ca));
    assert_eq!(said.trim(), "True 1000");
    eventually("both ended", || {
        (proxy.metric("framegate_sessions_ended_total{cause=\"close\",ended_by=\"downstream\"}") == 2.0).then_some(())
    });
    node.kill().unwrap();
    node.wait().unwrap();
}

/// A storm of handshakes does not keep those who are through from being served.
const NGINX: &str = "daemon off; master_process off; pid FOLDER/nginx.pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path FOLDER; proxy_temp_path FOLDER; fastcgi_temp_path FOLDER; uwsgi_temp_path FOLDER;
  scgi_temp_path FOLDER;
  server {
    listen 127.0.0.1:PORT ssl; ssl_certificate CERT; ssl_certificate_key KEY; ssl_buffer_size 4k;
    location / {
      proxy_pass http://BACKEND; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection Upgrade;
    }
  }
}";

#[test]
fn nginx_is_an_upstream_with_tls() {
    if Command::new("nginx").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has nginx");
        return eprintln!("skipped: no nginx here");
    }
    let (listener, backend) = listen();
    let (pair, folder) = (PKI.server(), common::temp_path("nginx"));
    std::fs::create_dir(&folder).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let conf = NGINX.replace("FOLDER", folder.to_str().unwrap()).replace("PORT", &port.to_string());
    let conf = conf.replace("BACKEND", &backend.to_string()).replace("CERT", pair.cert.to_str().unwrap());
    std::fs::write(folder.join("conf"), conf.replace("KEY", pair.key.to_str().unwrap())).unwrap();
    let mut nginx = Command::new("nginx").arg("-c").arg(folder.join("conf")).arg("-p").arg(&folder).spawn().unwrap();
    eventually("nginx", || TcpStream::connect(("127.0.0.1", port)).ok());
    let proxy = before_wss(&format!("127.0.0.1:{port}"), &format!("ca = {:?}", PKI.ca()), "");
    let client = connect(proxy.addr);
    let accepted = std::thread::spawn(move || tungstenite::accept(accept(&listener)).unwrap());
    let (mut client, _) = tungstenite::client(format!("ws://{}/", proxy.addr), client).unwrap();
    let mut upstream = accepted.join().unwrap();
    for len in [0, 1, 4_096, 70_000, 1_000_000] {
        let message = tungstenite::Message::binary(vec![len as u8; len]);
        client.send(message.clone()).unwrap();
        let there = upstream.read().unwrap();
        assert!(there == message, "{len} bytes there");
        upstream.send(there).unwrap();
        assert!(client.read().unwrap() == message, "{len} bytes back");
    }
    client.close(None).unwrap();
    assert!(upstream.read().unwrap().is_close());
    assert!(upstream.read().is_err());
    drop(upstream);
    assert!(client.read().unwrap().is_close());
    drop(client);
    let end = proxy.log.wait_for(" end ");
    assert!(end.contains("cause=close"), "{end}");
    nginx.kill().unwrap();
    nginx.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// The page tells what it saw in its last message.
const PAGE: &str = "data:text/html,<script>const s = new WebSocket('URL'); s.binaryType = 'arraybuffer';\
    s.onopen = () => s.send('from the page');\
    s.onmessage = m => s.send(m.data.byteLength + ' ' + new Uint8Array(m.data).every(b => b === 7));</script>";

#[test]
fn chromium_talks_through_tls() {
    let named = std::env::var("CHROMIUM").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let runs = |c: &String| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success());
    let Some(chromium) = named.into_iter().chain(known).find(runs) else {
        assert!(std::env::var_os("CI").is_none(), "CI has Chromium");
        return eprintln!("skipped: no Chromium here");
    };
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let spki = Command::new("sh")
        .args([
            "-c",
            "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary",
        ])
        .arg(PKI.server().cert)
        .output()
        .unwrap();
    let spki = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, spki.stdout);
    let profile = common::temp_path("chromium");
    let mut child = Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-extensions", "--disable-background-networking", "--no-proxy-server"])
        .arg("--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--ignore-certificate-errors-spki-list={spki}"))
        .args(["--remote-debugging-port=0", &PAGE.replace("URL", &format!("wss://localhost:{}/", proxy.addr.port()))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut upstream = tungstenite::accept(accept(&listener)).unwrap();
    assert_eq!(upstream.read().unwrap().into_text().unwrap().as_str(), "from the page");
    upstream.send(tungstenite::Message::binary(vec![7; 100_000])).unwrap();
    assert_eq!(upstream.read().unwrap().into_text().unwrap().as_str(), "100000 true");
    child.kill().unwrap();
    child.wait().unwrap();
    // What it still writes while it ends does not matter.
    let _left = std::fs::remove_dir_all(profile);
    counts(&proxy, "framegate_tls_handshakes_total{side=\"downstream\",outcome=\"failed\"}", 0.0);
}

#[test]
fn many_at_once_are_all_served() {
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let (mut client, mut upstream, _) = open(dial(proxy.addr, "localhost", &trusting()), &listener);
    let config = trusting();
    std::thread::scope(|scope| {
        let storm: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..50).for_each(|_| drop(shake(dial(proxy.addr, "localhost", &config)).unwrap()))))
            .collect();
        while !storm.iter().all(|thread| thread.is_finished()) {
            echo(&mut client, &mut upstream, b"in the storm");
        }
    });
    let shakes =
        |how| proxy.metric(&format!("framegate_tls_handshakes_total{{side=\"downstream\",outcome=\"{how}\"}}"));
    eventually("201 handshakes", || (shakes("full") + shakes("resumed") == 201.0).then_some(()));
    eventually("passes", || (proxy.metric("framegate_loop_busy_seconds_count") > 0.0).then_some(()));
}

/// TLS on a socket that takes a few bytes at a time, with records in pieces of every length.
#[test]
fn records_in_pieces_pass() {
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
