//! Requests and responses that come in two parts, torn at every byte. The proxy has read the first
//! part before the second one is sent. Byte by byte: `src/proto/session/tests/plain.rs`.

use super::common::*;
use super::recorder::*;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn proxy(upstream: SocketAddr) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"http://{upstream}\"\n"
    ))
}

/// Bytes that have not been acknowledged by the peer, and those that it has not read, as the kernel
/// has them: columns `tx_queue` and `rx_queue` of /proc/net/tcp.
fn queued(table: &str, from: SocketAddr, to: SocketAddr) -> Option<(u64, u64)> {
    let column = |addr: SocketAddr| {
        let SocketAddr::V4(addr) = addr else { panic!("{addr}") };
        format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port())
    };
    let (from, to) = (column(from), column(to));
    let line = table.lines().map(str::split_whitespace).find(|line| {
        let mut ends = line.clone().skip(1);
        ends.next() == Some(from.as_str()) && ends.next() == Some(to.as_str())
    });
    let (tx, rx) = line?.nth(4)?.split_once(':')?;
    Some((u64::from_str_radix(tx, 16).unwrap(), u64::from_str_radix(rx, 16).unwrap()))
}

fn is_read(from: SocketAddr, to: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    queued(&table, from, to).is_some_and(|(tx, _)| tx == 0) && queued(&table, to, from).is_some_and(|(_, rx)| rx == 0)
}

/// Sends the parts, each once the one before it has been read.
fn send_torn(mut stream: &TcpStream, parts: &[&[u8]]) {
    stream.set_nodelay(true).unwrap();
    let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    for (n, part) in parts.iter().enumerate() {
        stream.write_all(part).unwrap();
        if n + 1 < parts.len() {
            let begun = Instant::now();
            while !is_read(own, peer) {
                assert!(begun.elapsed() < Duration::from_secs(20), "it is not read");
                std::thread::yield_now();
            }
        }
    }
}

/// Every way to tear it that is tested.
fn torn(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    (1..bytes.len()).map(|cut| vec![&bytes[..cut], &bytes[cut..]])
}

/// The head without the values that differ each time, all of which have the same length.
fn without_ids(head: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name @ ("X-Request-Id" | "traceparent"), value)) => format!("{name}: {}\r\n", value.len()),
        _ => format!("{line}\r\n"),
    };
    head.lines().map(line).collect()
}

/// The request, and the body that the upstream gets, however the request is torn.
fn assert_request_passes(request: &str, body: &str) {
    let (listener, addr) = listen();
    let proxy = proxy(addr);
    let mut client = connect(proxy.addr);
    client.write_all(request.as_bytes()).unwrap();
    let mut server = accept(&listener);
    let serve = |server: &mut TcpStream, client: &TcpStream| {
        let head = without_ids(&read_head(server));
        assert_eq!(String::from_utf8_lossy(&read_exact(server, body.len())), body);
        server.write_all(OK).unwrap();
        assert_eq!(answer(client).1, "ok");
        head
    };
    let whole = serve(&mut server, &client);
    for parts in torn(request.as_bytes()) {
        send_torn(&client, &parts);
        // What was too much would stand before the head of the next one.
        assert_eq!(serve(&mut server, &client), whole, "{parts:?}");
    }
}

#[test]
fn the_head_of_a_request() {
    let fields = "Host: h\r\nX-A:  b \r\nCookie: c=d\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n";
    assert_request_passes(&format!("GET /a/b?c=d HTTP/1.1\r\n{fields}\r\n"), "");
}

#[test]
fn a_request_with_a_length() {
    assert_request_passes("PUT /a HTTP/1.1\r\nHost: h\r\ncontent-length: 012\r\n\r\n0123456789ab", "0123456789ab");
}

#[test]
fn a_request_in_chunks_with_trailers() {
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n1 \r\n!\r\n00\r\nX-T:  y\r\nHost: i\r\n\r\n";
    let passes = "3\r\nabc\r\na\r\n0123456789\r\n1\r\n!\r\n0\r\nX-T: y\r\n\r\n";
    assert_request_passes(&format!("{head}{body}"), passes);
}

#[test]
fn requests_sent_ahead() {
    let first = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let both = format!("{first}{}", get("/b"));
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let client = connect(proxy.addr);
    for parts in torn(both.as_bytes()) {
        send_torn(&client, &parts);
        assert_eq!([&client; 2].map(|client| answer(client).1), ["POST /a HTTP/1.1", "GET /b HTTP/1.1"]);
    }
    let bodies: Vec<_> = upstream.seen().iter().map(|seen| seen.body.clone()).collect();
    assert!(bodies.chunks(2).all(|two| two == [&b"abc"[..], b""]));
}

/// What the client gets of the response, whatever happens to that on its way.
fn assert_response_passes(request: &str, response: &str, (head, body): (&str, &str), end: Option<End>) {
    let (listener, addr) = listen();
    let proxy = proxy(addr);
    let (mut client, mut server) = (connect(proxy.addr), None);
    for parts in [vec![response.as_bytes()]].into_iter().chain(torn(response.as_bytes())) {
        client.write_all(request.as_bytes()).unwrap();
        let upstream = server.take().unwrap_or_else(|| accept(&listener));
        read_head(&upstream);
        send_torn(&upstream, &parts);
        let mut got = read_head(&client);
        if response.starts_with("HTTP/1.1 1") {
            got += &read_head(&client);
        }
        assert_eq!(without_ids(&got), head, "{parts:?}");
        match end {
            None => {
                assert_eq!(String::from_utf8_lossy(&read_exact(&client, body.len())), body, "{parts:?}");
                server = Some(upstream);
            }
            Some(end) => {
                upstream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&client), (body.as_bytes().to_vec(), end), "{parts:?}");
                client = connect(proxy.addr);
            }
        }
    }
    // Nothing stands before the response to another request.
    if let Some(mut server) = server {
        client.write_all(get("/last").as_bytes()).unwrap();
        assert!(read_head(&server).starts_with("GET /last "));
        server.write_all(OK).unwrap();
        assert_eq!(answer(&client).1, "ok");
    }
}

#[test]
fn a_response_with_a_length() {
    let response = "HTTP/1.1 200 OK\r\nX-A: b\r\nConnection: x-hop\r\nX-Hop: 1\r\ncontent-length: 5\r\n\r\nhello";
    let head = "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\nX-Request-Id: 32\r\n\r\n";
    assert_response_passes(&get("/a"), response, (head, "hello"), None);
}

#[test]
fn a_response_in_chunks_with_trailers() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2;x\r\nok\r\n00B\r\nhello world\r\n0\r\nX-T: y\r\nContent-Length: 9\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: 32\r\n\r\n";
    let body = "2\r\nok\r\nb\r\nhello world\r\n0\r\nX-T: y\r\n\r\n";
    assert_response_passes(&get("/a"), response, (head, body), None);
    // The client does not know chunks.
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Request-Id: 32\r\n\r\n";
    assert_response_passes("GET /a HTTP/1.0\r\n\r\n", response, (head, "okhello world"), Some(End::Fin));
}

#[test]
fn a_response_until_the_end_of_its_connection() {
    let response = "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhello\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nX-A: b\r\nConnection: close\r\nX-Request-Id: 32\r\n\r\n";
    assert_response_passes(&get("/a"), response, (head, "hello\r\n\r\n"), Some(End::Fin));
}

#[test]
fn an_interim_response_and_one_without_a_body() {
    let response = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n";
    let head =
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: x\r\nX-Request-Id: 32\r\n\r\n";
    assert_response_passes(&get("/a"), response, (head, ""), None);
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Request-Id: 32\r\n\r\n";
    assert_response_passes("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", response, (head, ""), None);
}
