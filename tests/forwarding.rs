//! Who the client is, over real sockets: headers of the PROXY protocol in front of framegate and
//! behind it, and the Forwarded field. Other ends are written out by hand, or HAProxy and nginx.

mod common;
#[path = "forwarding/fields.rs"]
mod fields;
#[path = "forwarding/foreign.rs"]
mod foreign;
#[path = "forwarding/received.rs"]
mod received;
#[allow(dead_code)] // a part is used
#[path = "examples/rig.rs"]
mod rig;
#[path = "forwarding/sent.rs"]
mod sent;

use common::pki::PKI;
use common::*;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// What a listener needs to believe headers from loopback.
const BEHIND: &str = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";

const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with this command, family and rest.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [V2_START, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

/// 203.0.113.7:56324 has connected to 198.51.100.1:443.
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n";
const ENDS: [u8; 12] = [203, 0, 113, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

/// A proxy before `upstream`: `listener`, `route` and `more` are further keys and sections.
fn proxy(upstream: SocketAddr, listener: &str, route: &str, more: &str) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{listener}\n\
         [[route]]\nupstream = \"{}\"\n{route}\n{more}\n",
        if more.contains("name = \"app\"") { "app".to_owned() } else { format!("ws://{upstream}") }
    ))
}

fn tls_key() -> String {
    format!("tls = {{ certificates = [{}] }}", PKI.server().toml())
}

/// A balancer as far as the protocol goes: each connection to it is one to `server` that begins
/// with `header`, in pieces of `piece` bytes.
fn balancer(server: SocketAddr, header: &[u8], piece: usize) -> SocketAddr {
    let (listener, addr) = listen();
    let header = header.to_vec();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut server = connect(server);
            header.chunks(piece).for_each(|piece| server.write_all(piece).unwrap());
            join(client, server);
        }
    });
    addr
}

/// Copies both ways until either ends.
fn join(one: TcpStream, other: TcpStream) {
    for (from, to) in [(&one, &other), (&other, &one)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        from.set_read_timeout(None).unwrap();
        std::thread::spawn(move || {
            // The ends of the connections are the business of who ended them.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// The upstream of a session whose client has sent its request; its request head.
#[track_caller]
fn establish(mut client: &TcpStream, listener: &TcpListener) -> (TcpStream, String) {
    let mut upstream = accept(listener);
    let head = read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    let answer = read_head(client);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    client.write_all(&masked(0x82, b"there")).unwrap();
    assert_eq!(read_exact(&upstream, 11), masked(0x82, b"there"));
    upstream.write_all(&plain(0x82, b"back")).unwrap();
    assert_eq!(read_exact(client, 6), plain(0x82, b"back"));
    (upstream, head)
}

/// The values of the lines with this name, as written.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// Reads a header of either version: its bytes.
fn read_header(stream: &TcpStream) -> Vec<u8> {
    let mut header = read_exact(stream, 12);
    if header == V2_START {
        header.extend(read_exact(stream, 4));
        let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.extend(read_exact(stream, len));
        return header;
    }
    while !header.ends_with(b"\r\n") {
        header.extend(read_exact(stream, 1));
    }
    header
}
