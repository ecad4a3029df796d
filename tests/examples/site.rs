//! `examples/site`: a page and its WebSocket on one host.

use crate::common::*;
use crate::rig::*;
use std::io::Write;
use std::net::TcpStream;

fn get(mut client: &TcpStream, path: &str) -> (String, String) {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let head = read_head(client);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let body = read_exact(client, length.parse().unwrap());
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn the_page_its_assets_and_its_websocket() {
    let backend = Backend::start("echo");
    let proxy = Example::framegate("site/framegate.toml").backends(&[("10.0.0.60:9000", &backend)]).start();
    let mut client = connect(proxy.addr);
    let (head, page) = get(&client, "/");
    assert!(head.starts_with("HTTP/1.1 200 ") && page.contains("<h1>Echo</h1>"), "{head}{page}");
    assert!(
        head.contains("\r\nContent-Security-Policy: default-src 'self'; connect-src 'self' ws: wss:\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nCache-Control: no-cache\r\n"), "{head}");
    // All that the page asks for is there, and never changes.
    let assets: Vec<_> = page.split('"').filter(|text| text.starts_with("/assets/")).collect();
    assert_eq!(assets.len(), 2, "{page}");
    for asset in assets {
        let (head, _) = get(&client, asset);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("immutable\r\n"), "{asset}: {head}");
    }
    let (head, _) = get(&client, "/assets/none.js");
    assert!(head.starts_with("HTTP/1.1 404 ") && !head.contains("immutable"), "{head}");
    assert_eq!(get(&client, "/healthz").1, "ok\n");
    let script = get(&client, "/assets/page.9b1e.js").1;
    assert!(script.contains("new URL(\"/ws\","), "{script}");
    client.write_all(request("/ws", "").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    assert!(read_frame(&client).1.starts_with(b"GET /ws HTTP/1.1\r\n"));
}
