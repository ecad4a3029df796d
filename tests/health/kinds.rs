//! The kinds of checks: what passes and what does not, and the reason in the log.

use crate::backend::{Backend, Reply};
use crate::common::pki::{PKI, provider};
use crate::common::*;
use crate::*;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// An address that refuses connections.
fn refusing() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, format!("ws://{addr}"))
}

#[test]
fn each_kind_tells_a_good_endpoint_from_a_bad_one() {
    // Each row: type, what a good backend answers, what a bad one answers, why that is bad.
    let rows = [
        ("http", Reply::Status(204), Reply::Status(500), "status 500, expected 200-399"),
        ("http", Reply::Status(399), Reply::Status(400), "status 400, expected 200-399"),
        ("http", Reply::Status(200), Reply::Nothing, "timeout while waiting for the response"),
        ("websocket", Reply::NoPong, Reply::Status(500), "status 500, expected 101"),
        ("websocket", Reply::NoPong, Reply::WrongAccept, "status 101 without a valid WebSocket handshake"),
        ("websocket", Reply::NoPong, Reply::Nothing, "timeout while waiting for the response"),
        ("websocket\"\nping = true #\"", Reply::Pong, Reply::NoPong, "timeout while waiting for the pong"),
    ];
    let proxies: Vec<_> = rows
        .into_iter()
        .map(|(kind, good, bad, why)| {
            let (good, bad) = (Backend::new(good), Backend::new(bad));
            let toml = checked(&[good.url(), bad.url()], &format!("type = \"{kind}\"\n{OFTEN}"));
            (Proxy::start(&toml), good, bad, why)
        })
        .collect();
    for (proxy, good, bad, why) in &proxies {
        is_down(proxy, &bad.url(), why);
        good.wait_checks(3);
        assert_eq!((endpoints(proxy, "up"), endpoints(proxy, "down")), (1.0, 1.0), "{why}");
        assert_eq!(changes_to(proxy, "down"), 1.0, "{why}");
    }
}

#[test]
fn tcp_passes_where_something_listens() {
    let (good, (_held, refusing)) = (Backend::new(Reply::Nothing), refusing());
    let proxy = Proxy::start(&checked(&[good.url(), refusing.clone()], &format!("type = \"tcp\"\n{OFTEN}")));
    is_down(&proxy, &refusing, "connect refused");
    let passed = results(&proxy, "passed");
    eventually("further checks pass", || (results(&proxy, "passed") >= passed + 3.0).then_some(()));
    assert_eq!(endpoints(&proxy, "up"), 1.0);
    assert_eq!(changes_to(&proxy, "down"), 1.0);
}

#[test]
fn a_passed_websocket_check_ends_with_ping_and_close() {
    let backend = Backend::new(Reply::Pong);
    let check = format!("type = \"websocket\"\nping = true\nheaders = {{ X-Probe = \"yes\" }}\n{OFTEN}");
    let proxy = Proxy::start(&checked(&[format!("{}/base", backend.url())], &check));
    backend.wait_checks(2);
    let frames = eventually("a whole check", || {
        let frames = backend.state.frames.lock().unwrap().clone();
        (frames.len() >= 2).then_some(frames)
    });
    let [(0x89, ping, true), (0x88, close, true), ..] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!((ping.len(), close.as_slice()), (8, &[3, 0xe8][..]));
    let head = backend.state.head.lock().unwrap().clone();
    assert!(head.starts_with(&format!("GET /base HTTP/1.1\r\nHost: {}\r\n", backend.addr)), "{head}");
    assert!(head.contains("\r\nX-Probe: yes\r\n"), "{head}");
    assert_eq!(results(&proxy, "failed"), 0.0);
}

#[test]
fn http_check_sends_what_is_configured_and_uses_its_port() {
    let (sessions, health) = (Backend::new(Reply::Nothing), Backend::new(Reply::Status(418)));
    let check = format!(
        "type = \"http\"\nmethod = \"HEAD\"\npath = \"/ready?full\"\nhost = \"inner:1\"\nstatus = [200, \"410-418\"]\n\
         port = {}\n{OFTEN}",
        health.addr.port()
    );
    let proxy = Proxy::start(&checked(&[sessions.url()], &check));
    health.wait_checks(2);
    assert_eq!(
        *health.state.head.lock().unwrap(),
        "HEAD /ready?full HTTP/1.1\r\nHost: inner:1\r\nConnection: close\r\nUser-Agent: framegate\r\n\r\n"
    );
    assert_eq!(sessions.checks(), 0);
    eventually("checks pass", || (results(&proxy, "passed") >= 2.0).then_some(()));
    assert!(begin(&proxy).0.starts_with("HTTP/1.1 101 "));
}

#[test]
fn unix_sockets_are_checked() {
    let (path, missing) = (temp_path("sock"), temp_path("sock"));
    let state = Backend::unix(&path, Reply::Pong);
    let urls = [&path, &missing].map(|path| format!("ws+unix:{}", path.display()));
    let proxy = Proxy::start(&checked(&urls, &format!("type = \"websocket\"\nping = true\n{OFTEN}")));
    is_down(&proxy, &urls[1], "connect failed: ");
    eventually("checks", || (state.checks.load(SeqCst) >= 3).then_some(()));
    assert!(state.head.lock().unwrap().contains("\r\nHost: localhost\r\n"));
    assert_eq!(endpoints(&proxy, "up"), 1.0);
    let _gone = std::fs::remove_file(&path);
}

#[test]
fn addresses_of_a_name_are_checked_in_turn() {
    let backend = Backend::new(Reply::Status(200));
    // `localhost` may also have an IPv6 address, where nothing listens.
    let urls = [format!("ws://localhost:{}", backend.addr.port()), "ws://name.invalid:1".to_owned()];
    let proxy = Proxy::start(&checked(&urls, &format!("type = \"http\"\n{OFTEN}")));
    is_down(&proxy, &urls[1], "name not resolved");
    backend.wait_checks(3);
    assert_eq!(endpoints(&proxy, "up"), 1.0);
}

fn server(pair: &pki::Pair) -> Arc<rustls::ServerConfig> {
    let (chain, key) = pair.der();
    let builder = rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
}

#[test]
fn certificates_are_verified_as_for_sessions() {
    for kind in ["tcp", "http", "websocket"] {
        let reply = if kind == "http" { Reply::Status(200) } else { Reply::Pong };
        let good = Backend::tls(server(&PKI.server()), reply);
        let expired = Backend::tls(server(&PKI.expired(&format!("expired-{kind}"), &["127.0.0.1"])), reply);
        let other = Backend::tls(server(&PKI.sign(&format!("other-{kind}"), &["other.example"], |_| {})), reply);
        let plain = Backend::new(reply);
        let urls = [&good, &expired, &other, &plain].map(|backend| format!("wss://{}", backend.addr));
        // A handshake of a debug build takes a while on a busy machine.
        let often = "interval = \"2s\"\ntimeout = \"1900ms\"\nfall = 1";
        let tls = format!("tls = {{ ca = {:?} }}\n[upstream.health]\ntype = \"{kind}\"\n{often}", PKI.ca());
        let proxy = Proxy::start(&config(&urls, &tls));
        is_down(&proxy, &urls[1], "TLS: the certificate has expired or is not valid yet");
        is_down(&proxy, &urls[2], "TLS: the certificate is for another name");
        is_down(&proxy, &urls[3], "");
        eventually("the good one passes", || (results(&proxy, "passed") >= 1.0).then_some(()));
        assert_eq!((endpoints(&proxy, "up"), endpoints(&proxy, "down")), (1.0, 3.0));
        let untrusting = config(&urls[..1], &tls.replace(&format!("{:?}", PKI.ca()), &format!("{:?}", stranger())));
        reload(&proxy, &untrusting);
        is_down(&proxy, &urls[0], "TLS: the issuer of the certificate is unknown");
    }
}

/// The certificate of a CA that signed none of the others.
fn stranger() -> std::path::PathBuf {
    let path = temp_path("pem");
    let cert = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    std::fs::write(&path, cert.cert.pem()).unwrap();
    path
}
