//! Rewriting and responses of a route's own, through real sockets: what the upstream gets, what the
//! client gets, and what is logged of it.

mod common;

#[path = "rewrite/headers.rs"]
mod headers;
#[path = "rewrite/paths.rs"]
mod paths;
#[path = "rewrite/replies.rs"]
mod replies;

use common::{Proxy, accept, connect, listen, read_all, read_head, request, switching};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// One worker and these routes; `UPSTREAM` is a listener of the test.
fn start(routes: &str) -> (Proxy, TcpListener) {
    let (listener, addr) = listen();
    let routes = routes.replace("UPSTREAM", &format!("ws://{addr}"));
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{routes}\n"
    ));
    (proxy, listener)
}

/// The head that the upstream gets for `sent`, as lines, and the one that the client gets for
/// `answer`.
#[track_caller]
fn exchange(proxy: &Proxy, listener: &TcpListener, sent: &str, answer: &str) -> (Vec<String>, Vec<String>) {
    let lines = |head: String| head.trim_end().split("\r\n").map(str::to_owned).collect();
    let mut client = connect(proxy.addr);
    client.write_all(sent.as_bytes()).unwrap();
    let mut upstream = accept(listener);
    let forwarded = lines(read_head(&upstream));
    upstream.write_all(answer.as_bytes()).unwrap();
    let head = lines(read_head(&client));
    (forwarded, head)
}

/// The values of the field called `name`.
fn values<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let of = |line: &'a String| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name));
    lines.iter().filter_map(of).map(|(_, value)| value).collect()
}

/// Sends `bytes` and reads to the end, which must be orderly.
#[track_caller]
fn answer_to(addr: SocketAddr, bytes: &[u8]) -> (Vec<String>, String) {
    let mut client: TcpStream = connect(addr);
    client.write_all(bytes).unwrap();
    let (answer, end) = read_all(&client);
    assert_eq!(end, common::End::Fin);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head.split("\r\n").map(str::to_owned).collect(), body.to_owned())
}
