//! Headers that framegate sends.

use super::*;
use std::sync::mpsc::{Receiver, channel};

/// An upstream of this URL with headers of this version, and the keys of its section.
fn app(url: &str, version: &str, more: &str) -> String {
    format!("[[upstream]]\nname = \"app\"\nendpoints = [\"{url}\"]\nproxy_protocol = \"{version}\"\n{more}")
}

/// The header that says that `client` has connected to `server`, both IPv4.
fn header(version: &str, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (client, server) else { panic!("{client} {server}") };
    if version == "v1" {
        return format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes();
    }
    let ports = [from.port(), to.port()].map(u16::to_be_bytes).concat();
    v2(0x21, 0x11, &[&from.ip().octets()[..], &to.ip().octets(), &ports].concat())
}

fn without_client(version: &str) -> Vec<u8> {
    if version == "v1" { b"PROXY UNKNOWN\r\n".to_vec() } else { v2(0x20, 0, &[]) }
}

/// Takes the header from each connection, and gives it to the receiver; the rest goes to `server`.
fn behind_header(server: SocketAddr) -> (SocketAddr, Receiver<Vec<u8>>) {
    let (listener, addr) = listen();
    let (sender, headers) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let client = patient(client);
            // The test may be over.
            let _ = sender.send(read_header(&client));
            join(client, connect(server));
        }
    });
    (addr, headers)
}

#[test]
fn connections_to_endpoints_begin_with_the_client() {
    for version in ["v1", "v2"] {
        for tls in [false, true] {
            let (listener, upstream) = listen();
            let server = if tls { shim::before_plain(upstream) } else { upstream };
            let (front, headers) = behind_header(server);
            let ca = format!("tls = {{ ca = {:?}, server_name = \"localhost\" }}", PKI.ca());
            let (url, ca) = if tls { (format!("wss://{front}"), ca) } else { (format!("ws://{front}"), String::new()) };
            let proxy = proxy(upstream, "", "", &app(&url, version, &ca));
            for _ in 0..3 {
                let mut client = connect(proxy.addr);
                client.write_all(request("/", "").as_bytes()).unwrap();
                let (_upstream, head) = establish(&client, &listener);
                assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
                let expected = header(version, client.local_addr().unwrap(), proxy.addr);
                assert_eq!(headers.recv_timeout(PATIENCE).unwrap(), expected, "{version}, TLS {tls}");
            }
        }
    }
}

/// What the peer's header said is passed on; of a client that only X-Forwarded-For names, no port
/// is known.
#[test]
fn what_a_header_said_is_passed_on() {
    let (listener, upstream) = listen();
    let (front, headers) = behind_header(upstream);
    for version in ["v1", "v2"] {
        let proxy = proxy(upstream, BEHIND, "", &app(&format!("ws://{front}"), version, ""));
        let cases = [
            (V1.to_vec(), "", header(version, ([203, 0, 113, 7], 56324).into(), ([198, 51, 100, 1], 443).into())),
            (
                b"PROXY TCP4 127.0.0.1 198.51.100.1 5 443\r\n".to_vec(),
                "X-Forwarded-For: 192.0.2.9\r\n",
                header(version, ([192, 0, 2, 9], 0).into(), ([198, 51, 100, 1], 443).into()),
            ),
            (
                b"PROXY UNKNOWN\r\n".to_vec(),
                "Forwarded: for=192.0.2.9\r\n",
                header(version, ([192, 0, 2, 9], 0).into(), proxy.addr),
            ),
        ];
        for (came, fields, goes) in cases {
            let mut client = connect(proxy.addr);
            client.write_all(&[&came[..], request("/", fields).as_bytes()].concat()).unwrap();
            drop(establish(&client, &listener));
            assert_eq!(headers.recv_timeout(PATIENCE).unwrap(), goes, "{version}, {fields}");
        }
    }
}

#[test]
fn every_attempt_has_its_header() {
    let (listener, upstream) = listen();
    let (broken, broken_addr) = listen();
    let urls = format!("ws://{broken_addr}\", \"ws://{upstream}");
    let proxy = proxy(upstream, "", "retry_on = [503]", &app(&urls, "v1", ""));
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let expected = header("v1", client.local_addr().unwrap(), proxy.addr);
    let mut first = accept(&broken);
    assert_eq!(read_header(&first), expected);
    read_head(&first);
    first.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut second = accept(&listener);
    assert_eq!(read_header(&second), expected);
    read_head(&second);
    second.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
}

#[test]
fn checks_have_no_client() {
    for version in ["v1", "v2"] {
        for kind in ["tcp", "http", "websocket"] {
            let (listener, upstream) = listen();
            let check = format!("health = {{ type = \"{kind}\", interval = \"1s\" }}");
            let _proxy = proxy(upstream, "", "", &app(&format!("ws://{upstream}"), version, &check));
            let mut stream = accept(&listener);
            assert_eq!(read_header(&stream), without_client(version), "{kind}");
            if kind == "tcp" {
                assert_eq!(read_all(&stream).0, b"");
                continue;
            }
            assert!(read_head(&stream).starts_with("GET / HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    }
}

/// What listens on a port of its own for checks need not be what listens for sessions.
#[test]
fn checks_on_another_port_have_no_header() {
    let ((_listener, upstream), (checked, port)) = (listen(), listen());
    let check = format!("health = {{ type = \"http\", interval = \"1s\", port = {} }}", port.port());
    let _proxy = proxy(upstream, "", "", &app(&format!("ws://{upstream}"), "v1", &check));
    assert!(read_head(&accept(&checked)).starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn checks_over_tls_begin_with_the_header() {
    let (listener, upstream) = listen();
    let (front, headers) = behind_header(shim::before_plain(upstream));
    let more = format!(
        "tls = {{ ca = {:?}, server_name = \"localhost\" }}\nhealth = {{ type = \"http\", interval = \"1s\" }}",
        PKI.ca()
    );
    let _proxy = proxy(upstream, "", "", &app(&format!("wss://{front}"), "v2", &more));
    assert!(read_head(&accept(&listener)).starts_with("GET / HTTP/1.1\r\n"));
    assert_eq!(headers.recv_timeout(PATIENCE).unwrap(), without_client("v2"));
}

/// A shadow learns of the client as its session's upstream does, by the version of its own.
#[test]
fn shadows_learn_of_the_client() {
    let ((listener, upstream), (shadow, shadow_addr)) = (listen(), listen());
    let route = "shadow = { upstream = \"app\", percent = 100 }";
    let text = app(&format!("ws://{shadow_addr}"), "v2", "");
    let main = format!("[[upstream]]\nname = \"main\"\nendpoints = [\"ws://{upstream}\"]\n");
    let proxy = Proxy::start(
        &before(upstream, &format!("{route}\n{main}{text}"))
            .replace(&format!("upstream = \"ws://{upstream}\""), "upstream = \"main\""),
    );
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let (_upstream, head) = establish(&client, &listener);
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "the upstream itself gets none");
    let stream = accept(&shadow);
    assert_eq!(read_header(&stream), header("v2", client.local_addr().unwrap(), proxy.addr));
    assert!(read_head(&stream).starts_with("GET / HTTP/1.1\r\n"));
}
