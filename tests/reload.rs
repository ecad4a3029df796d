//! Reload (docs/src/behaviour.md): a new file is applied as a whole or rejected as a whole, open
//! sessions keep the route they were admitted under, and no connection is lost.

mod common;

use common::*;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn ask_reload(proxy: &Proxy) -> String {
    http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn rewrite(proxy: &Proxy, toml: &str) {
    std::fs::write(&proxy.config, toml).unwrap();
}

#[track_caller]
fn reload(proxy: &Proxy, toml: &str) {
    rewrite(proxy, toml);
    let answer = ask_reload(proxy);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// The reload is rejected with one line that has all of `parts`; standard error has the same line.
#[track_caller]
fn refused(proxy: &Proxy, toml: &str, parts: &[&str]) -> String {
    rewrite(proxy, toml);
    let answer = ask_reload(proxy);
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    for part in parts {
        assert!(body.contains(part), "no {part:?} in {body}");
    }
    for sentence in body.lines() {
        // Up to its first quote, which the log escapes.
        proxy.said.wait_for(&format!(
            "ERROR reload failed, keeping the running configuration: {}",
            sentence.split('"').next().unwrap()
        ));
    }
    body.to_owned()
}

/// The status line of the response to a request for `path`.
fn status(addr: SocketAddr, path: &str) -> String {
    let mut client = connect(addr);
    client.write_all(request(path, "").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (answer, _) = read_all(&client);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// An address without a listener.
fn free() -> SocketAddr {
    listen().1
}

fn end((client, upstream): (TcpStream, TcpStream)) {
    client.shutdown(Shutdown::Write).unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    read_all(&client);
    read_all(&upstream);
}

fn talk((client, upstream): &mut (TcpStream, TcpStream), payload: &[u8]) {
    client.write_all(&masked(0x82, payload)).unwrap();
    assert_eq!(read_frame(upstream).1, payload);
    upstream.write_all(&plain(0x82, payload)).unwrap();
    assert_eq!(read_frame(client).1, payload);
}

#[test]
fn new_sessions_use_the_new_route_and_open_ones_keep_theirs() {
    for by_signal in [false, true] {
        let ((old, old_addr), (new, new_addr)) = (listen(), listen());
        let mut proxy = Proxy::before(old_addr, "name = \"old\"\nlimits = { max_frame = \"1KiB\" }");
        let mut running = open(&proxy, &old);
        let next = before(new_addr, "name = \"new\"\nlimits = { max_frame = \"100B\" }");
        if by_signal {
            rewrite(&proxy, &next);
            proxy.signal("HUP");
            proxy.said.wait_for("INFO  configuration reloaded");
        } else {
            reload(&proxy, &next);
        }
        let mut fresh = open(&proxy, &new);
        // Each with its own limits.
        talk(&mut running, &[1; 1024]);
        talk(&mut fresh, &[1; 100]);
        fresh.0.write_all(&masked(0x82, &[1; 101])).unwrap();
        assert_eq!(read_close(&fresh.0).0, 1009);
        end(fresh);
        end(running);
        assert!(proxy.metric("framegate_reloads_total{result=\"ok\"}") == 1.0);
        let log = proxy.stop();
        let ends: Vec<_> = log.iter().filter(|line| line.contains(" end ")).collect();
        assert_eq!(field(ends[0], "route"), Some("new"));
        assert_eq!(field(ends[1], "route"), Some("old"));
        assert_eq!(field(ends[1], "upstream").unwrap(), format!("ws://{old_addr}"));
        assert_eq!(verdict(ends[1]), "ended_by=downstream phase=open cause=eof status=101");
    }
}

#[test]
fn sessions_keep_the_timeouts_of_their_route() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "timeouts = { idle = \"500ms\" }");
    let running = open(&proxy, &listener);
    reload(&proxy, &before(addr, "timeouts = { idle = 0 }"));
    let mut fresh = open(&proxy, &listener);
    assert_eq!(read_close(&running.0).0, 1001);
    talk(&mut fresh, b"no timeout here");
}

#[test]
fn invalid_file_is_rejected_with_line_and_column() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let good = before(addr, "");
    let mut running = open(&proxy, &listener);
    let name = proxy.config.display().to_string();
    refused(&proxy, &good.replace("upstream = ", "upsteam = "), &[&format!("{name}:9:1: "), "upsteam"]);
    refused(&proxy, &format!("{good}name = 3"), &[&format!("{name}:11:8: "), "route.name"]);
    refused(&proxy, "[[", &[&format!("{name}:1:")]);
    let also_new = format!("{good}[[route]]\npath = \"/new\"\nupstream = \"nowhere\"\n");
    refused(&proxy, &also_new, &[&format!("{name}:13:12: "), "nowhere"]);
    std::fs::remove_file(&proxy.config).unwrap();
    let answer = ask_reload(&proxy);
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("cannot be read"), "{answer}");
    rewrite(&proxy, "[[");
    proxy.signal("HUP");
    eventually("the signal is taken", || {
        (proxy.metric("framegate_reloads_total{result=\"refused\"}") == 6.0).then_some(())
    });
    talk(&mut running, b"as before");
    talk(&mut open(&proxy, &listener), b"as before");
    assert!(proxy.metric("framegate_reloads_total{result=\"ok\"}") == 0.0);
}

#[test]
fn address_in_use_rejects_the_whole_file() {
    let (listener, addr) = listen();
    let (_taken, taken) = listen();
    let spare = free();
    let proxy = Proxy::before(addr, "path = \"/old\"");
    let more = format!("path = \"/new\"\n[[listener]]\nlisten = \"{spare}\"\n[[listener]]\nlisten = \"{taken}\"");
    let body = refused(&proxy, &before(addr, &more), &[&taken.to_string(), "something else listens there already"]);
    assert_eq!(body.trim().lines().count(), 1);
    assert!(TcpStream::connect(spare).is_err(), "the other new listener is there");
    assert_eq!(status(proxy.addr, "/new"), "HTTP/1.1 404 Not Found");
    let mut client = connect(proxy.addr);
    client.write_all(request("/old", "").as_bytes()).unwrap();
    assert!(read_head(&accept(&listener)).starts_with("GET /old "));
}

#[test]
fn settings_that_need_a_restart_are_refused() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "path = \"/old\"");
    let next = before(addr, "path = \"/new\"");
    for (from, to, section) in [
        ("count = 1", "count = 2", "[workers]"),
        ("count = 1", "count = 1\npin = false", "[workers]"),
        ("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"127.0.0.1:1\"", "[admin]"),
        ("[admin]\n", "[admin]\nfault_injection = true\n", "[admin]"),
    ] {
        let changed = next.replace(from, to);
        assert_ne!(changed, next);
        refused(&proxy, &changed, &[section, "restart"]);
        assert_eq!(status(proxy.addr, "/new"), "HTTP/1.1 404 Not Found");
    }
}

#[test]
fn options_that_kept_listeners_cannot_take_are_reported() {
    let (_listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    refused(&proxy, &before(addr, "[sockets]\nkeepalive = \"7s\""), &["[sockets]", "restart"]);
}

#[test]
fn reloads_lose_no_client() {
    let (_listener, addr) = listen();
    let config =
        |n: usize| before(addr, &format!("path = \"/none\"\nname = \"r{n}\"")).replace("count = 1", "count = 2");
    let proxy = Proxy::start(&config(0));
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hammers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, served, at) = (stop.clone(), served.clone(), proxy.addr);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(status(at, "/"), "HTTP/1.1 404 Not Found");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 1..=20 {
        let before = served.load(Ordering::Relaxed);
        reload(&proxy, &config(n));
        eventually("clients come between reloads", || (served.load(Ordering::Relaxed) >= before + 5).then_some(()));
    }
    stop.store(true, Ordering::Relaxed);
    hammers.into_iter().for_each(|hammer| hammer.join().unwrap());
    let total = served.load(Ordering::Relaxed) as f64;
    eventually("each is counted", || {
        (proxy.metric("framegate_handshakes_total{outcome=\"no-route\"}") == total).then_some(())
    });
}

#[test]
fn removed_listener_serves_its_queue_first() {
    let (listener, addr) = listen();
    let (spare, path) = (free(), "path = \"/here\"");
    let mut proxy = Proxy::before(addr, path);
    let with = before(addr, &format!("{path}\n[[listener]]\nlisten = \"{spare}\""));
    reload(&proxy, &with);
    let mut client = connect(spare);
    client.write_all(request("/here", "").as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    let mut running = (client, upstream);
    // A stopped process cannot accept: these clients are queued when the listener is removed.
    proxy.signal("STOP");
    let mut queued: Vec<_> = (0..10).map(|_| connect(spare)).collect();
    for client in &mut queued {
        client.write_all(request("/", "").as_bytes()).unwrap();
    }
    rewrite(&proxy, &before(addr, path));
    proxy.signal("HUP");
    proxy.signal("CONT");
    for client in &queued {
        let (answer, end) = read_all(client);
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(end, End::Fin);
    }
    eventually("the listener is gone", || TcpStream::connect(spare).err());
    talk(&mut running, b"its sessions go on");
    end(running);
    assert_eq!(status(proxy.addr, "/"), "HTTP/1.1 404 Not Found");
    // The listener can be added again.
    reload(&proxy, &with);
    assert_eq!(status(spare, "/"), "HTTP/1.1 404 Not Found");
    proxy.stop();
}

#[test]
fn access_log_is_reopened_after_a_rename() {
    let (_listener, addr) = listen();
    let (path, moved) = (temp_path("log"), temp_path("log.1"));
    let config = before(addr, &format!("path = \"/none\"\n[log]\naccess = \"{}\"", path.display()));
    let mut proxy = Proxy::start(&config);
    let lines = |path| std::fs::read_to_string(path).unwrap_or_default();
    let has = |path, text: &str| eventually("a line", || lines(path).contains(text).then_some(()));
    status(proxy.addr, "/first");
    has(&path, "path=/first");
    std::fs::rename(&path, &moved).unwrap();
    status(proxy.addr, "/second");
    has(&moved, "path=/second");
    proxy.signal("HUP");
    proxy.said.wait_for("INFO  configuration reloaded");
    status(proxy.addr, "/third");
    has(&path, "path=/third");
    assert_eq!(lines(&moved).lines().count(), 2);
    // The log can move to another file, or be turned off.
    reload(&proxy, &config.replace(&format!("{}", path.display()), "stdout"));
    status(proxy.addr, "/fourth");
    proxy.log.wait_for("path=/fourth");
    reload(&proxy, &config.replace(&format!("{}", path.display()), "off"));
    status(proxy.addr, "/fifth");
    let bad = config.replace(&format!("{}", path.display()), "/nonexistent/folder/log");
    refused(&proxy, &bad, &["/nonexistent/folder/log", "access log"]);
    assert_eq!(proxy.stop().len(), 1);
    assert_eq!(lines(&path).lines().count(), 1);
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(moved).unwrap();
}

#[test]
fn reload_changes_limits() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "[limits]\nmax_sessions = 2");
    let _first = open(&proxy, &listener);
    reload(&proxy, &before(addr, "[limits]\nmax_sessions = 1"));
    assert_eq!(status(proxy.addr, "/"), "HTTP/1.1 503 Service Unavailable");
    reload(&proxy, &before(addr, "[limits]\nmax_sessions = 2"));
    let _second = open(&proxy, &listener);
}

#[test]
fn unresolvable_name_does_not_affect_other_names() {
    let (listener, addr) = listen();
    let named = before(addr, "").replace(&addr.to_string(), &format!("localhost:{}", addr.port()));
    let proxy = Proxy::start(&named);
    let mut session = open(&proxy, &listener);
    talk(&mut session, b"by name");
    // Names with an empty or overlong label are invalid: no server is queried for them.
    let invalid = format!("{}.invalid", "x".repeat(64));
    let both = format!("{named}path = \"/*\"\n[[route]]\npath = \"/lost\"\nupstream = \"ws://{invalid}:80\"\n");
    rewrite(&proxy, &both);
    let answer = ask_reload(&proxy);
    if answer.starts_with("HTTP/1.1 422 ") {
        assert!(answer.contains(&invalid), "{answer}");
    } else {
        proxy.said.wait_for("cannot resolve");
        assert_eq!(status(proxy.addr, "/lost"), "HTTP/1.1 503 Service Unavailable");
    }
    talk(&mut open(&proxy, &listener), b"still by name");
    talk(&mut session, b"and the old one");
}

#[test]
fn flags_reload_unchanged_and_the_demo_cannot_reload() {
    let (_upstream, addr) = listen();
    let demo = Proxy::spawn(
        std::process::Command::new(env!("CARGO_BIN_EXE_framegate")).args([
            "demo",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]),
        temp_path("none"),
    );
    let answer = ask_reload(&demo);
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.ends_with("there is no configuration file\n"), "{answer}");
    drop((demo, addr));
}

#[test]
fn reload_during_drain_is_refused() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let _session: (TcpStream, TcpStream) = open(&proxy, &listener);
    let _: &TcpListener = &listener;
    proxy.signal("TERM");
    proxy.said.wait_for("signal received");
    refused(&proxy, &before(addr, ""), &["draining"]);
}
