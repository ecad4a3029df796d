//! Limits for each client by itself, through real sockets: by its address and by who it is.

mod common;

use common::{End, Proxy, accept, connect_from, eventually, http, listen, read_all, read_head, request, switching};
use std::io::Write;
use std::net::{TcpListener, TcpStream};

fn open_from(host: u8, proxy: &Proxy, listener: &TcpListener, more: &str) -> (TcpStream, TcpStream) {
    let mut client = connect_from([127, 0, 0, host], proxy.addr);
    client.write_all(request("/", more).as_bytes()).unwrap();
    let mut upstream = accept(listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    (client, upstream)
}

#[track_caller]
fn refused_from(host: u8, proxy: &Proxy, more: &str, cause: &str) -> String {
    let mut client = connect_from([127, 0, 0, host], proxy.addr);
    client.write_all(request("/", more).as_bytes()).unwrap();
    let (answer, end) = read_all(&client);
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(end, End::Fin);
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert_eq!(answer.matches("\r\nRetry-After: ").count(), 1, "{answer}");
    drop(client);
    proxy.log.wait_for(&format!("cause={cause}"));
    answer
}

const LOG: &str = "[log]\naccess = \"stdout\"";

#[test]
fn each_address_has_its_sessions() {
    let (listener, addr) = listen();
    let proxy = Proxy::alone_before(addr, &format!("limits = {{ per_address = {{ sessions = 2 }} }}\n{LOG}"));
    let first = open_from(1, &proxy, &listener, "");
    let _second = open_from(1, &proxy, &listener, "");
    refused_from(1, &proxy, "", "address-sessions");
    // What an untrusted client says of its address does not matter.
    refused_from(1, &proxy, "X-Forwarded-For: 127.0.0.9\r\nX-Real-IP: 127.0.0.9\r\n", "address-sessions");
    let _other = open_from(2, &proxy, &listener, "");
    // Also over a reload.
    assert!(http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n").contains("200 OK"));
    refused_from(1, &proxy, "", "address-sessions");
    drop(first);
    eventually("the session is over", || (proxy.metric("framegate_sessions{worker=\"0\"}") == 2.0).then_some(()));
    open_from(1, &proxy, &listener, "");
}

#[test]
fn each_address_has_its_rate_of_handshakes() {
    let (listener, addr) = listen();
    let limits = "limits = { per_address = { handshakes = \"1/h\", burst = 3 } }";
    let proxy = Proxy::alone_before(addr, &format!("{limits}\n{LOG}"));
    for _ in 0..3 {
        open_from(1, &proxy, &listener, "");
    }
    let answer = refused_from(1, &proxy, "", "address-rate");
    let seconds = answer.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    assert!((3_500..=3_600).contains(&seconds.parse::<u64>().unwrap()), "{answer}");
    open_from(2, &proxy, &listener, "");
}

#[test]
fn each_client_has_its_sessions_whatever_its_address() {
    // The SHA-256 of "one" and "two".
    let one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    let two = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";
    let keys = format!("keys = [{{ owner = \"a\", sha256 = \"{one}\" }}, {{ owner = \"b\", sha256 = \"{two}\" }}]");
    let (listener, addr) = listen();
    let route = "auth = \"keys\"\nlimits = { per_identity = { sessions = 1, handshakes = \"100/s\" } }";
    let auth = format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\n{keys}");
    let proxy = Proxy::alone_before(addr, &format!("{route}\n{auth}\n{LOG}"));
    let key = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let _one = open_from(1, &proxy, &listener, &key("one"));
    refused_from(2, &proxy, &key("one"), "identity-sessions");
    let _two = open_from(1, &proxy, &listener, &key("two"));
    refused_from(1, &proxy, &key("two"), "identity-sessions");
}
