//! Observability: access log, metrics, health, the demo and its page.

mod common;

use common::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

fn get(addr: SocketAddr, path: &str) -> String {
    http(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n"))
}

/// A session with two frames to the upstream, one to the client, and both Closes.
fn exchange(proxy: &Proxy, listener: &std::net::TcpListener) {
    let mut client = connect(proxy.addr);
    client
        .write_all(request("/chat?room=1", "Origin: https://a.example\r\nUser-Agent: by hand\r\n").as_bytes())
        .unwrap();
    let mut upstream = accept(listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    read_head(&client);
    let up = [masked(0x01, b"he"), masked(0x80, b"llo"), masked(0x88, &close_payload(1000, ""))].concat();
    client.write_all(&up).unwrap();
    assert_eq!(read_exact(&upstream, up.len()), up);
    let down = [plain(0x82, &[7; 200]), plain(0x88, &close_payload(1000, ""))].concat();
    upstream.write_all(&down).unwrap();
    assert_eq!(read_exact(&client, down.len()), down);
    upstream.shutdown(Shutdown::Write).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
    read_all(&upstream);
}

const UP: u64 = (6 + 2) + (6 + 3) + (6 + 2);
const DOWN: u64 = (4 + 200) + (2 + 2);

#[test]
fn session_is_logged_at_its_start_and_end() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "name = \"chat\"");
    exchange(&proxy, &listener);
    let log = proxy.stop();
    let [start, end] = &log[..] else { panic!("{log:#?}") };
    for line in [start, end] {
        assert_eq!(field(line, "host"), Some("example.com"));
        assert_eq!(field(line, "path"), Some("/chat?room=1"));
        assert_eq!(field(line, "route"), Some("chat"));
        assert_eq!(field(line, "upstream").unwrap(), format!("ws://{addr}"));
        assert!(field(line, "client").unwrap().starts_with("127.0.0.1:"));
        let time = line.split(' ').next().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
    assert!(start.split(' ').nth(1) == Some("open") && end.split(' ').nth(1) == Some("end"));
    assert_eq!(field(start, "id"), field(end, "id"));
    assert_eq!(field(start, "origin"), Some("https://a.example"));
    assert!(start.ends_with("agent=\"by hand\""), "{start}");
    assert_eq!(verdict(end), "ended_by=downstream phase=open cause=close status=101 code_up=1000 code_down=1000");
    let counts = format!(" frames_up=3 frames_down=2 bytes_up={UP} bytes_down={DOWN}");
    assert!(end.ends_with(&counts), "{end}");
}

#[test]
fn session_is_logged_as_json() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, "[log]\nformat = \"json\"");
    exchange(&proxy, &listener);
    let log = proxy.stop();
    let lines: Vec<serde_json::Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [start, end] = &lines[..] else { panic!("{log:#?}") };
    assert_eq!((start["event"].as_str(), end["event"].as_str()), (Some("open"), Some("end")));
    assert_eq!(start["agent"], "by hand");
    for (name, value) in [("ended_by", "downstream"), ("phase", "open"), ("cause", "close"), ("path", "/chat?room=1")] {
        assert_eq!(end[name], value);
    }
    let numbers = [("status", 101), ("code_up", 1000), ("code_down", 1000), ("frames_up", 3), ("frames_down", 2)];
    for (name, value) in numbers.into_iter().chain([("bytes_up", UP), ("bytes_down", DOWN)]) {
        assert_eq!(end[name], value, "{name}");
    }
    assert!(end["age"].as_f64().unwrap() >= 0.0);
}

#[test]
fn access_log_goes_to_a_file_or_is_off() {
    let (listener, addr) = listen();
    let path = temp_path("log");
    std::fs::write(&path, "what was there stays\n").unwrap();
    let mut proxy = Proxy::before(addr, &format!("[log]\naccess = \"{}\"", path.display()));
    exchange(&proxy, &listener);
    assert!(proxy.stop().is_empty(), "it went to standard output");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(text.starts_with("what was there stays\n") && text.lines().count() == 3, "{text}");
    let mut proxy = Proxy::before(addr, "[log]\naccess = \"off\"");
    exchange(&proxy, &listener);
    assert!(proxy.stop().is_empty());
}

#[test]
fn unread_log_blocks_nothing_and_lost_lines_are_counted() {
    const CLIENTS: usize = 7000;
    let (_listener, addr) = listen();
    let config = temp_path("toml");
    std::fs::write(&config, before(addr, "path = \"/none\"")).unwrap();
    let (mut unread, stdout) = std::io::pipe().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_framegate"))
        .args(["run", "-c"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = Lines::of(child.stderr.take().unwrap());
    let after = |line: &str, what: &str| line.split_once(what).map(|(_, rest)| rest.to_owned());
    let addr = said.wait("an address", |line| after(line, "listening on ")?.parse().ok());
    said.wait_for(" ready");
    let log = Lines::default();
    let mut proxy = Proxy { child, addr, said, log, config };
    // Long lines fill the pipe quickly; the ring behind it holds 4096 records, one for each of
    // these clients.
    let path = format!("/{}", "x".repeat(500));
    let request = request(&path, "");
    for _ in 0..CLIENTS {
        let mut client = connect(proxy.addr);
        client.write_all(request.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&client).0.starts_with(b"HTTP/1.1 404 "));
    }
    eventually("all are counted", || {
        (proxy.metric("framegate_handshakes_total{outcome=\"no-route\"}") == CLIENTS as f64).then_some(())
    });
    let lost = proxy.metric("framegate_log_lines_lost_total");
    assert!(lost > 1000.0, "{lost} lines lost");
    // The pipe is read again.
    proxy.log = Lines::of(std::io::BufReader::new(std::mem::replace(&mut unread, std::io::pipe().unwrap().0)));
    let said_lost: f64 = proxy.log.wait("lost lines", |line| line.split_once(" log lost=")?.1.parse().ok());
    assert!(said_lost == lost, "{said_lost} of {lost}");
    let lines = proxy.stop();
    let ends = lines.iter().filter(|line| line.contains(" end ")).count();
    assert_eq!(ends + lost as usize, CLIENTS);
    assert!(lines.iter().all(|line| line.contains(" log lost=") || line.ends_with("bytes_down=0")), "a torn line");
}

fn metrics(admin: SocketAddr) -> BTreeMap<String, f64> {
    let answer = get(admin, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

#[test]
fn metrics_are_exact_after_a_known_exchange() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "path = \"/chat\"");
    exchange(&proxy, &listener);
    // A violation, a refusal, a silent client.
    let mut client = connect(proxy.addr);
    client.write_all(request("/chat", "").as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    read_head(&client);
    upstream.write_all(&[plain(0x89, b"ping"), plain(0x83, b"")].concat()).unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
    assert!(http(proxy.addr, "POST / HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 404 "));
    drop(connect(proxy.addr));
    let expected: &[(&str, u64)] = &[
        ("framegate_connections_accepted_total", 4),
        ("framegate_handshakes_total{outcome=\"ok\"}", 2),
        ("framegate_handshakes_total{outcome=\"no-route\"}", 1),
        ("framegate_handshakes_total{outcome=\"no-request\"}", 1),
        ("framegate_handshakes", 0),
        ("framegate_sessions{worker=\"0\"}", 0),
        ("framegate_workers", 1),
        ("framegate_draining", 0),
        ("framegate_sessions_ended_total{cause=\"close\",ended_by=\"downstream\"}", 1),
        ("framegate_sessions_ended_total{cause=\"reserved-opcode\",ended_by=\"upstream\"}", 1),
        ("framegate_frames_total{from=\"downstream\",opcode=\"text\"}", 1),
        ("framegate_frames_total{from=\"downstream\",opcode=\"continuation\"}", 1),
        ("framegate_frames_total{from=\"downstream\",opcode=\"close\"}", 1),
        ("framegate_frames_total{from=\"downstream\",opcode=\"binary\"}", 0),
        ("framegate_frames_total{from=\"upstream\",opcode=\"binary\"}", 1),
        ("framegate_frames_total{from=\"upstream\",opcode=\"close\"}", 1),
        ("framegate_frames_total{from=\"upstream\",opcode=\"ping\"}", 1),
        ("framegate_bytes_total{from=\"downstream\"}", UP),
        ("framegate_bytes_total{from=\"upstream\"}", DOWN + 6),
        ("framegate_backlog_bytes", 0),
        ("framegate_log_lines_lost_total", 0),
        ("framegate_worker_restarts_total", 0),
    ];
    let agree = |found: &BTreeMap<String, f64>| {
        let wrong = |(name, value): &&(&str, u64)| found.get(*name) != Some(&(*value as f64));
        expected.iter().find(wrong).map(|(name, value)| format!("{name} is {:?}, not {value}", found.get(*name)))
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Some(wrong) = agree(&metrics(proxy.admin())) {
        assert!(std::time::Instant::now() < deadline, "{wrong}");
    }
    let all = metrics(proxy.admin());
    let sum = |name: &str| all.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum::<f64>();
    assert!(sum("framegate_sessions_ended_total{") == 2.0 && sum("framegate_handshakes_total{") == 4.0);
    assert!(all["framegate_worker_busy_seconds_total{worker=\"0\"}"] > 0.0);
    assert!(all.contains_key("framegate_build_info{version=\"0.1.0\"}"));
}

#[test]
fn health_and_readiness_are_served_and_admin_can_be_off() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let admin = proxy.admin();
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(admin, "/readyz").ends_with("ready\n"));
    assert!(get(admin, "/").contains("/metrics"));
    assert!(get(admin, "/nothing").starts_with("HTTP/1.1 404 "));
    let off = Proxy::before(addr, "[admin]\nlisten = \"off\"");
    assert!(off.said.all().iter().all(|line| !line.contains("admin")), "{:?}", off.said.all());
}

fn bin() -> Command {
    Command::new(env!("CARGO_BIN_EXE_framegate"))
}

fn talk(url: &str, addr: SocketAddr) {
    let (mut peer, _): (WebSocket<TcpStream>, _) = tungstenite::client(url, connect(addr)).unwrap();
    for message in [Message::text("Grüße"), Message::binary(vec![3; 200_000]), Message::text("")] {
        peer.send(message.clone()).unwrap();
        assert!(peer.read().unwrap() == message);
    }
    peer.send(Message::Ping(b"there?"[..].into())).unwrap();
    assert_eq!(peer.read().unwrap(), Message::Pong(b"there?"[..].into()));
    let close = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    peer.close(Some(close.clone())).unwrap();
    assert_eq!(peer.read().unwrap(), Message::Close(Some(close)));
    assert!(matches!(peer.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn demo_works_and_prints_what_to_try() {
    let args = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut demo = Proxy::spawn(bin().args(args), temp_path("none"));
    let admin = demo.admin();
    let url = format!("ws://{}/", demo.addr);
    demo.said.wait_for(&format!("http://{admin}/"));
    demo.said.wait_for(&url);
    let page = get(admin, "/");
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/html"), "{head}");
    assert!(body.contains(&format!("\"{url}\"")) && body.contains("new WebSocket"), "{body}");
    // As the browser page connects, and as any other client.
    talk(&url, demo.addr);
    talk(&format!("{url}any/path?at=all"), demo.addr);
    let log = demo.stop();
    assert_eq!(
        log.iter().filter(|line| line.contains("cause=close status=101 code_up=1000 code_down=1000")).count(),
        2
    );
    assert_eq!(log.len(), 4, "{log:#?}");
}

#[test]
fn flags_alone_start_a_proxy() {
    let backend = framegate::echo::Echo::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = backend.local_addr().unwrap();
    std::thread::spawn(move || backend.run(&std::sync::atomic::AtomicBool::new(false)));
    let upstream = format!("ws://{addr}");
    // Flags do not change the admin address.
    eventually("the admin port is free", || std::net::TcpListener::bind("127.0.0.1:9901").ok());
    let config: PathBuf = temp_path("none");
    let mut proxy = Proxy::spawn(bin().args(["run", "--listen", "127.0.0.1:0", "--upstream", &upstream]), config);
    talk(&format!("ws://{}/", proxy.addr), proxy.addr);
    let log = proxy.stop();
    assert_eq!(log.len(), 2, "{log:#?}");
    assert_eq!(field(&log[1], "upstream").unwrap(), upstream);
}

#[test]
fn closed_log_pipe_does_not_stop_the_proxy() {
    let (listener, addr) = listen();
    let config = temp_path("toml");
    std::fs::write(&config, before(addr, "")).unwrap();
    let (mut reader, stdout) = std::io::pipe().unwrap();
    let mut child = bin()
        .args(["run", "-c"])
        .arg(&config)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let said = Lines::of(child.stderr.take().unwrap());
    let addr = said.wait("an address", |line| line.split_once("listening on ")?.1.parse().ok());
    said.wait_for(" ready");
    let mut proxy = Proxy { child, addr, said, log: Lines::default(), config };
    exchange(&proxy, &listener);
    reader.read_exact(&mut [0; 10]).unwrap();
    drop(reader);
    exchange(&proxy, &listener);
    proxy.said.wait_for("cannot write the access log");
    exchange(&proxy, &listener);
    assert!(proxy.metric("framegate_log_errors_total") >= 1.0);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}
