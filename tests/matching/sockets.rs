//! Conditions of every kind through real sockets: the path of each route's endpoint says which
//! route a request got.

use crate::common::pki::{PKI, Pair, provider};
use crate::common::{Proxy, accept, connect_from, field, listen, read_all, read_head, request, switching};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

/// Routes by name and keys, each to its own path at `upstream`.
fn config(listener: &str, upstream: SocketAddr, routes: &[(&str, &str)]) -> String {
    let mut text = format!("[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{listener}\n");
    for (name, keys) in routes {
        text += &format!("[[route]]\nname = \"{name}\"\nupstream = \"ws://{upstream}/{name}\"\n{keys}\n");
    }
    text
}

/// The route that the upstream sees, or the status of the refusal. Completes the handshake.
fn got(mut client: impl Read + Write, listener: &TcpListener, head: &str) -> String {
    client.write_all(head.as_bytes()).unwrap();
    let mut upstream = accept(listener);
    let seen = read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    let mut answer = [0; 13];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101 ");
    seen.split(['/', ' ']).nth(2).unwrap().to_owned()
}

#[test]
fn requests_take_the_route_that_their_conditions_allow() {
    let (listener, addr) = listen();
    let routes = [
        ("header", r#"match = [{ header = "x-beta", is = "1" }]"#),
        ("query", r#"match = [{ query = "v", prefix = "2." }]"#),
        ("cookie", r#"match = [{ cookie = "canary", present = true }]"#),
        ("subprotocol", r#"match = [{ subprotocol = "graphql-ws" }]"#),
        ("client", "priority = 1\nmatch = [{ client = \"127.0.0.2/32\" }]"),
        ("name", r#"path = "/room/{id}""#),
        ("agent", r#"match = [{ header = "user-agent", regex = ".*Bot.*" }]"#),
        ("method", r#"match = [{ method = "POST" }]"#),
    ];
    let proxy = Proxy::start(&config("trusted_proxies = [\"127.0.0.3\"]", addr, &routes));
    for (source, target, fields, expected) in [
        ("127.0.0.1", "/", "X-Beta: 1\r\n", "header"),
        ("127.0.0.1", "/x?a=1&v=2%2E5", "", "query"),
        ("127.0.0.1", "/", "Cookie: a=1; canary=\r\n", "cookie"),
        ("127.0.0.1", "/", "User-Agent: aBot/1\r\n", "agent"),
        ("127.0.0.1", "/room/7", "", "name"),
        ("127.0.0.1", "/room/7", "X-Beta: 1\r\n", "name"),
        ("127.0.0.2", "/room/7", "X-Beta: 1\r\n", "client"),
        // Whom a trusted proxy names is the client; no other peer can name one.
        ("127.0.0.3", "/room/7", "X-Forwarded-For: 127.0.0.2\r\n", "client"),
        ("127.0.0.1", "/room/7", "X-Forwarded-For: 127.0.0.2\r\n", "name"),
    ] {
        let client = connect_from(source.parse::<IpAddr>().unwrap(), proxy.addr);
        assert_eq!(got(&client, &listener, &request(target, fields)), expected, "{target} {fields}");
        let line = proxy.log.wait_for(&format!("route={expected} "));
        assert_eq!(field(&line, "route"), Some(expected));
    }
    // Subprotocols are answered: the upstream chooses none.
    let head = request("/", "Sec-WebSocket-Protocol: a, graphql-ws\r\n");
    assert_eq!(got(&connect_from([127, 0, 0, 1], proxy.addr), &listener, &head), "subprotocol");
    for (head, status) in [
        (request("/", ""), "404"),
        (request("/", "").replace("GET", "DELETE"), "404"),
        (request("/", "").replace("GET", "POST"), "405"),
        (request("/room/7", "").replace("GET", "DELETE"), "405"),
    ] {
        let mut client = connect_from([127, 0, 0, 1], proxy.addr);
        client.write_all(head.as_bytes()).unwrap();
        let answer = String::from_utf8(read_all(&client).0).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
    }
}

#[test]
fn client_certificates_choose_the_route() {
    let (listener, addr) = listen();
    let (seven, eight, user) = (PKI.client("device-7"), PKI.client("device-8"), PKI.client("user"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &user.der().0[0]);
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}:")).collect();
    let by_print = format!("match = [{{ cert_sha256 = \"{sha256}\" }}]");
    let routes = [
        ("seven", r#"match = [{ cert_subject = "CN=device-7" }]"#),
        ("device", r#"match = [{ cert_subject = { prefix = "CN=device-" } }]"#),
        ("print", &by_print),
        ("anonymous", ""),
    ];
    let tls = format!(
        "tls = {{ certificates = [{}], client_auth = \"optional\", client_ca = {:?} }}",
        PKI.server().toml(),
        PKI.ca()
    );
    let proxy = Proxy::start(&config(&tls, addr, &routes));
    let dial = |identity: Option<&Pair>| {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(PKI.roots());
        let config = match identity.map(Pair::der) {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let socket = connect_from([127, 0, 0, 1], proxy.addr);
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
    };
    let head = request("/", "X-Client-Cert-Subject: CN=device-7\r\n");
    for (identity, expected) in
        [(Some(&seven), "seven"), (Some(&eight), "device"), (Some(&user), "print"), (None, "anonymous")]
    {
        assert_eq!(got(dial(identity), &listener, &head), expected);
    }
}
