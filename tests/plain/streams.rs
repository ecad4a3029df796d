//! Bodies pass as they come, both ways, and wait for their receiver.

use super::common::*;
use super::recorder::*;
use std::io::{Read, Write};
use std::thread;

fn proxy(addr: std::net::SocketAddr, more: &str) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"ws://{addr}\"\n{more}\n"
    ))
}

#[test]
fn an_event_stream_arrives_event_by_event() {
    let (listener, addr) = listen();
    let proxy = proxy(addr, "");
    let mut client = connect(proxy.addr);
    client.write_all(get("/events").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    server
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    assert!(read_head(&client).contains("Transfer-Encoding: chunked\r\n"));
    for n in 0..10 {
        let event = format!("data: {n}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        server.write_all(chunk.as_bytes()).unwrap();
        // Whole, with the end of its chunk.
        assert_eq!(read_exact(&client, chunk.len()), chunk.as_bytes());
    }
    drop(client);
    let mut rest = Vec::new();
    // The server learns that its client has left: FIN or reset.
    let _ = server.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn large_bodies_pass_both_ways_without_being_held() {
    const LEN: usize = 64 << 20;
    let (listener, addr) = listen();
    let proxy = proxy(addr, "limits = { max_body = \"100MiB\" }");
    let server = thread::spawn(move || {
        let mut server = accept(&listener);
        read_head(&server);
        let (mut buffer, mut left, mut sum) = (vec![0; 1 << 16], LEN, 0u64);
        server.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        while left > 0 {
            let n = server.read(&mut buffer).unwrap();
            assert!(n > 0);
            sum += buffer[..n].iter().map(|byte| u64::from(*byte)).sum::<u64>();
            left -= n;
        }
        server.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes()).unwrap();
        for start in (0..LEN).step_by(1 << 16) {
            let block: Vec<u8> = (start..start + (1 << 16)).map(|n| n as u8).collect();
            server.write_all(&block).unwrap();
        }
        sum
    });
    let mut client = connect(proxy.addr);
    client
        .write_all(
            format!("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {LEN}\r\n\r\n").as_bytes(),
        )
        .unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 100 "));
    for start in (0..LEN).step_by(1 << 16) {
        let block: Vec<u8> = (start..start + (1 << 16)).map(|n| n as u8).collect();
        client.write_all(&block).unwrap();
    }
    read_head(&client);
    // The client does not read: nothing but the buffers of sessions fills.
    eventually("a backlog", || (proxy.metric("framegate_backlog_bytes") > 0.0).then_some(()));
    assert!(proxy.metric("framegate_backlog_bytes") < 4e6);
    let (mut buffer, mut at) = (vec![0; 1 << 16], 0usize);
    while at < LEN {
        let n = client.read(&mut buffer).unwrap();
        assert!(n > 0 && buffer[..n].iter().enumerate().all(|(i, byte)| *byte == (at + i) as u8), "at {at}");
        at += n;
    }
    let expected = (0..=255u64).sum::<u64>() * (LEN as u64 / 256);
    assert_eq!(server.join().unwrap(), expected);
}

#[test]
fn bodies_have_limits_and_deadlines() {
    let upstream = Recorder::start();
    let proxy = upstream
        .proxy("limits = { max_body = \"1KiB\" }\ntimeouts = { request_body = \"100ms\", first_byte = \"100ms\" }");
    let rows = [
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n".to_owned(), "413"),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n{}\r\n0\r\n\r\n",
                "x".repeat(1025)
            ),
            "413",
        ),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc".to_owned(), "408"),
        (get("/silent"), "504"),
    ];
    for (request, status) in rows {
        let mut client = connect(proxy.addr);
        client.write_all(request.as_bytes()).unwrap();
        let head = read_head(&client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
    }
    let mut client = connect(proxy.addr);
    let full = "x".repeat(1024);
    let body = ask(&mut client, &format!("POST /full HTTP/1.1\r\nHost: h\r\nContent-Length: 1024\r\n\r\n{full}"));
    assert_eq!(body, "POST /full HTTP/1.1");
}
