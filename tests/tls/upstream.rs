//! TLS toward upstreams: verification, the proxy's own certificate, failed handshakes.

use super::*;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};

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

/// A proxy with a plain listener in front of a `wss://` upstream at `addr`.
pub(super) fn before_wss(addr: &str, tls: &str, more: &str) -> Proxy {
    let plain = before(([127, 0, 0, 1], 1).into(), more).replace("ws://127.0.0.1:1", "app");
    Proxy::start(&format!("[[upstream]]\nname = \"app\"\nendpoints = [\"wss://{addr}\"]\ntls = {{ {tls} }}\n{plain}"))
}

type Server = StreamOwned<ServerConnection, TcpStream>;

fn accept_tls(listener: &TcpListener, config: &Arc<ServerConfig>) -> Server {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), accept(listener))
}

#[test]
fn upstreams_are_verified_and_get_the_client_certificate() {
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
        let warned = proxy.said.all().iter().any(|line| line.contains("is NOT verified (insecure_skip_verify)"));
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
            // Without a close_notify this is an error.
            upstream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, masked(0x88, b"")[..2].iter().chain(&rest[2..]).copied().collect::<Vec<_>>());
        }
        let name = "framegate_tls_handshakes_total{side=\"upstream\",outcome=\"resumed\"}";
        counts(&proxy, name, 2.0);
    }
}

/// The reader of a stream can tell a complete one from a truncated one.
#[test]
fn close_notify_is_forwarded_and_so_is_truncation() {
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
        // The other direction continues and has its own end.
        upstream.write_all(b"more").unwrap();
        upstream.conn.send_close_notify();
        upstream.flush().unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"more");
    }
}

#[test]
fn failed_upstream_handshake_gives_502_with_its_cause() {
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
fn upstream_without_tls_or_response_is_given_up() {
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
        drop(upstream);
    }
    // FIN before the handshake, and inside it.
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
fn next_endpoint_is_tried_after_a_failed_handshake() {
    let ((bad, bad_addr), (good, good_addr)) = (listen(), listen());
    let ca = PKI.ca();
    let proxy = Proxy::start(&format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"wss://{bad_addr}\", \"wss://{good_addr}\"]\n\
         tls = {{ ca = {ca:?} }}\n{}",
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
