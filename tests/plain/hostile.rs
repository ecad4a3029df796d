//! Upstreams and clients that do at the wrong moment what they may do, and what they may not.

use super::common::*;
use super::recorder::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn toml(addr: SocketAddr, route: &str, more: &str) -> String {
    format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [log]\naccess = \"stdout\"\n[[route]]\nupstream = \"http://{addr}\"\n{route}\n{more}\n"
    )
}

fn start(addr: SocketAddr) -> Proxy {
    Proxy::start(&toml(addr, "", ""))
}

/// A client that has been answered, and the connection to the upstream that is kept.
fn kept(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(get("/first").as_bytes()).unwrap();
    let mut server = accept(listener);
    read_head(&server);
    server.write_all(OK).unwrap();
    assert_eq!(answer(&client).1, "ok");
    (client, server)
}

/// Waits until every thread of the process has stopped.
fn stop(proxy: &Proxy) {
    proxy.signal("STOP");
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    eventually("the process stops", || state().rsplit(')').next()?.trim_start().starts_with('T').then_some(()));
}

#[test]
fn an_idle_connection_that_has_said_something_is_not_lent() {
    let (listener, addr) = listen();
    let proxy = start(addr);
    // POST: it must not depend on a request that can be sent a second time.
    let post = "POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na";
    for (says, ends) in [(EVIL, false), (b"HTTP/1.1 408 X\r\nConnection: close\r\n\r\n", true), (b"", true)] {
        let (mut client, mut server) = kept(&proxy, &listener);
        // The request comes first, so that the event for it does.
        stop(&proxy);
        client.write_all(post.as_bytes()).unwrap();
        server.write_all(says).unwrap();
        if ends {
            server.shutdown(std::net::Shutdown::Write).unwrap();
        }
        proxy.signal("CONT");
        let mut next = accept(&listener);
        assert!(read_head(&next).starts_with("POST /second "));
        assert_eq!(read_exact(&next, 1), b"a");
        next.write_all(OK).unwrap();
        assert_eq!(answer(&client).1, "ok");
        assert_eq!(read_all(&server).0, b"", "nothing was sent there");
    }
}

#[test]
fn what_a_full_read_leaves_behind_it_is_found_before_the_next_request() {
    // A read that fills its buffer: no event tells of what is behind it.
    const READ: usize = 128 * 1024;
    let (listener, addr) = listen();
    let proxy = start(addr);
    let (mut client, mut server) = kept(&proxy, &listener);
    // The kernel's buffer grows with what is read.
    for _ in 0..3 {
        client.write_all(get("/grow").as_bytes()).unwrap();
        read_head(&server);
        let len = 8 << 20;
        let mut reader = client.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            read_head(&reader);
            std::io::copy(&mut (&mut reader).take(len), &mut std::io::sink()).unwrap()
        });
        server.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").as_bytes()).unwrap();
        server.write_all(&vec![b'x'; len as usize]).unwrap();
        assert_eq!(reading.join().unwrap(), len);
    }
    client.write_all(get("/full").as_bytes()).unwrap();
    read_head(&server);
    stop(&proxy);
    let body = READ - format!("HTTP/1.1 200 OK\r\nContent-Length: {READ}\r\n\r\n").len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
    assert_eq!(head.len() + body, READ);
    server.write_all(&[head.as_bytes(), &vec![b'x'; body], EVIL].concat()).unwrap();
    proxy.signal("CONT");
    assert_eq!(answer(&client).1.len(), body);
    client.write_all(get("/victim").as_bytes()).unwrap();
    let mut next = accept(&listener);
    assert!(read_head(&next).starts_with("GET /victim "));
    next.write_all(OK).unwrap();
    assert_eq!(answer(&client).1, "ok");
}

#[test]
fn what_follows_a_head_that_is_retried_reaches_no_client() {
    let ((first, one), (second, two)) = (listen(), listen());
    let config = format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"app\"\n\
         endpoints = [\"http://{one}\", \"http://{two}\"]\n[[route]]\nupstream = \"app\"\nretry_on = [503]\n"
    );
    let proxy = Proxy::start(&config);
    // Both have a connection that is kept.
    let mut client = connect(proxy.addr);
    let mut servers = Vec::new();
    for listener in [&first, &second] {
        client.write_all(get("/first").as_bytes()).unwrap();
        let mut server = accept(listener);
        read_head(&server);
        server.write_all(OK).unwrap();
        assert_eq!(answer(&client).1, "ok");
        servers.push(server);
    }
    let [first, second] = &mut servers[..] else { panic!() };
    client.write_all(get("/retried").as_bytes()).unwrap();
    read_head(first);
    let head = format!("HTTP/1.1 503 X\r\nContent-Length: {}\r\n\r\n", EVIL.len());
    first.write_all(&[head.as_bytes(), EVIL].concat()).unwrap();
    assert!(read_head(second).starts_with("GET /retried "));
    second.write_all(OK).unwrap();
    assert_eq!(answer(&client).1, "ok");
    // And its connection is none with an answer that is still unread.
    assert_eq!(read_all(first).0, b"");
    client.write_all(get("/next").as_bytes()).unwrap();
}

#[test]
fn a_client_that_does_not_read_has_one_request_under_way() {
    const LEN: usize = 16 << 20;
    let (listener, addr) = listen();
    let proxy = Proxy::start(&toml(addr, "timeouts = { upstream_head = \"300ms\" }", ""));
    let mut client = connect_small(proxy.addr);
    client.write_all([get("/large"), get("/second"), "GET bad\r\n\r\n".into()].concat().as_bytes()).unwrap();
    let mut server = accept(&listener);
    assert!(read_head(&server).starts_with("GET /large "));
    server.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes()).unwrap();
    let mut writer = server.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&vec![b'x'; LEN]).unwrap());
    // Its whole answer is out of the upstream's hands only when the client reads.
    eventually("a backlog", || (proxy.metric("framegate_backlog_bytes") > 0.0).then_some(()));
    let mut reader = client.try_clone().unwrap();
    read_head(&reader);
    std::io::copy(&mut (&mut reader).take(LEN as u64 - 1), &mut std::io::sink()).unwrap();
    writing.join().unwrap();
    assert_eq!(read_exact(&client, 1), b"x");
    assert!(read_head(&server).starts_with("GET /second "));
    server.write_all(OK).unwrap();
    assert_eq!(answer(&client).1, "ok");
    let (refused, end) = read_all(&client);
    assert!(refused.starts_with(b"HTTP/1.1 400 ") && end == End::Fin, "{}", String::from_utf8_lossy(&refused));
}

#[test]
fn a_drain_closes_idle_clients_and_answers_the_others() {
    const LEN: usize = 8 << 20;
    let (listener, addr) = listen();
    let mut proxy = Proxy::start(&toml(addr, "", "[drain]\nspread = \"15s\"\ndeadline = \"20s\""));
    let (idle, _) = kept(&proxy, &listener);
    let (mut running, mut slow) = (connect(proxy.addr), connect_small(proxy.addr));
    running.write_all(get("/running").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    slow.write_all(get("/slow").as_bytes()).unwrap();
    let mut other = accept(&listener);
    read_head(&other);
    other.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").as_bytes()).unwrap();
    let writing = std::thread::spawn(move || other.write_all(&vec![b'x'; LEN]).unwrap());
    eventually("a backlog", || (proxy.metric("framegate_backlog_bytes") > 0.0).then_some(()));
    let begun = Instant::now();
    proxy.signal("TERM");
    assert_eq!(read_all(&idle), (Vec::new(), End::Fin));
    server.write_all(OK).unwrap();
    let (head, body) = answer(&running);
    assert!(head.contains("Connection: close\r\n") && body == "ok", "{head}");
    assert_eq!(read_all(&running), (Vec::new(), End::Fin));
    assert!(begun.elapsed() < Duration::from_secs(10), "not at their turn within the spread");
    read_head(&slow);
    let (body, end) = read_all(&slow);
    assert_eq!((body.len(), end), (LEN, End::Fin));
    writing.join().unwrap();
    assert!(proxy.wait().success());
}

#[test]
fn an_event_stream_ends_when_its_client_is_revoked() {
    let (listener, addr) = listen();
    let key = "keys = [{ owner = \"acme\", \
               sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\" }]";
    let proxy = Proxy::start(&toml(
        addr,
        "auth = \"keys\"",
        &format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nfrom = [\"header:x-key\"]\n{key}"),
    ));
    let ask = "GET /events HTTP/1.1\r\nHost: h\r\nX-Key: secret\r\n\r\n";
    let mut client = connect(proxy.addr);
    client.write_all(ask.as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
    read_head(&client);
    assert_eq!(read_exact(&client, 9), b"data: 1\n\n");
    let admin = proxy.admin();
    let told = http(admin, &format!("POST /revoke?subject=acme&for=1h HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    // A FIN would make it look like all of the stream.
    assert_eq!(read_all(&client), (Vec::new(), End::Reset));
    proxy.log.wait_for("cause=revoked");
    // And there is no other one.
    let mut client = connect(proxy.addr);
    client.write_all(ask.as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 401 "));
}

#[test]
fn clients_without_a_request_count_for_their_address() {
    let upstream = Recorder::start();
    let addr = upstream.addr;
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         limits = {{ per_address = {{ sessions = 2 }} }}\n[[route]]\nupstream = \"http://{addr}\"\n"
    ));
    let mut idle: Vec<_> = (0..2).map(|_| connect(proxy.addr)).collect();
    for round in 0..50 {
        for stream in &mut idle {
            assert_eq!(ask(stream, &get("/a")), "GET /a HTTP/1.1", "{round}: none is counted twice");
        }
    }
    let mut third = connect(proxy.addr);
    third.write_all(get("/b").as_bytes()).unwrap();
    assert!(read_head(&third).starts_with("HTTP/1.1 429 "));
    let mut other = connect_from([127, 0, 0, 9], proxy.addr);
    assert_eq!(ask(&mut other, &get("/c")), "GET /c HTTP/1.1");
    idle.pop();
    eventually("room", || {
        let mut third = connect(proxy.addr);
        third.write_all(get("/b").as_bytes()).unwrap();
        read_head(&third).starts_with("HTTP/1.1 200 ").then_some(())
    });
}

#[test]
fn nothing_is_left_of_thousands_of_requests() {
    let upstream = Recorder::start();
    let mut proxy = upstream.proxy("limits = { max_sessions = 4 }");
    let mut clients: Vec<_> = (0..4).map(|_| connect(proxy.addr)).collect();
    for n in 0..500 {
        for (client, method) in clients.iter_mut().zip(["GET", "PUT", "GET", "DELETE"]) {
            let path = if n % 9 == 0 { "/close" } else { "/kept" };
            client
                .write_all(format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab").as_bytes())
                .unwrap();
        }
        clients.iter().for_each(|client| assert!(answer(client).0.starts_with("HTTP/1.1 200 ")));
    }
    let counted = || proxy.metric("framegate_http_requests_total{status=\"2xx\"}") == 2000.0;
    eventually("all are counted", || counted().then_some(()));
    assert_eq!(proxy.metric("framegate_handshakes"), 4.0);
    let admin = proxy.admin();
    let upstreams = http(admin, &format!("GET /upstreams HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
    assert!(upstreams.contains("\"sessions\": 0") && upstreams.contains("\"pending\": 0"), "{upstreams}");
    drop(clients);
    eventually("their end", || (proxy.metric("framegate_handshakes") == 0.0).then_some(()));
    let log = proxy.stop();
    let of = |line: &String| {
        let bytes = if line.contains("path=/close ") { 2..3 } else { 18..22 };
        let down = field(line, "bytes_down").and_then(|n| n.parse::<u64>().ok());
        line.contains("cause=answered") && field(line, "bytes_up") == Some("2") && bytes.contains(&down.unwrap_or(0))
    };
    assert_eq!(log.iter().filter(|line| of(line)).count(), 2000, "{:?}", log.last());
}

/// A TLS server on a connection of the proxy; it answers one request, and says this behind it, but
/// for so many bytes.
fn serve_tls(
    listener: &TcpListener,
    behind: impl FnOnce(&mut rustls::ServerConnection) -> usize,
) -> (TcpStream, String) {
    let (chain, key) = pki::PKI.server().der();
    let config = rustls::ServerConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut stream = accept(listener);
    let mut tls = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        tls.complete_io(&mut stream).unwrap();
        let mut bytes = [0; 1024];
        match tls.reader().read(&mut bytes) {
            Ok(n) => head.push_str(std::str::from_utf8(&bytes[..n]).unwrap()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    tls.writer().write_all(OK).unwrap();
    let left_out = behind(&mut tls);
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    // In one segment.
    bytes.truncate(bytes.len() - left_out);
    stream.write_all(&bytes).unwrap();
    (stream, head)
}

#[test]
fn what_tls_says_behind_an_answer_ends_the_connection() {
    let (listener, addr) = listen();
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[upstream]]\nname = \"app\"\n\
         endpoints = [\"https://localhost:{}\"]\ntls = {{ insecure_skip_verify = true }}\n\
         [[route]]\nupstream = \"app\"\n",
        addr.port()
    ));
    let mut client = connect(proxy.addr);
    let post = "POST /next HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    // The end of its stream, and a part of a record that would be the answer to the next request.
    let behind: [fn(&mut rustls::ServerConnection) -> usize; 2] = [
        |tls| {
            tls.send_close_notify();
            0
        },
        |tls| {
            tls.writer().write_all(EVIL).unwrap();
            1
        },
    ];
    for behind in behind {
        client.write_all(post.as_bytes()).unwrap();
        let (mut server, head) = serve_tls(&listener, behind);
        assert!(head.starts_with("POST /next "), "{head}");
        assert_eq!(answer(&client).1, "ok");
        eventually("its end", || match server.read(&mut [0; 1024]) {
            Ok(0) => Some(()),
            Ok(_) => None,
            Err(error) => (error.kind() == std::io::ErrorKind::ConnectionReset).then_some(()),
        });
    }
}

#[test]
fn a_reload_leaves_no_connection_of_the_rules_before_it() {
    let upstream = Recorder::start();
    let addr = upstream.addr;
    let config = |more: &str| {
        format!(
            "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
             [[upstream]]\nname = \"app\"\nendpoints = [\"http://{addr}\"]\n{more}\n[[route]]\nupstream = \"app\"\n"
        )
    };
    let proxy = Proxy::start(&config(""));
    let (mut idle, mut running) = (connect(proxy.addr), connect(proxy.addr));
    // One that is in use while the rules are replaced, and one that is not.
    running.write_all(b"POST /running HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na").unwrap();
    eventually("a connection", || (upstream.opened() == 1).then_some(()));
    assert_eq!(ask(&mut idle, &get("/idle")), "GET /idle HTTP/1.1");
    assert_eq!(upstream.open(), 2);
    std::fs::write(&proxy.config, config("[upstream.tls]\ninsecure_skip_verify = true")).unwrap();
    proxy.signal("HUP");
    eventually("the end of the idle one", || (upstream.open() == 1).then_some(()));
    running.write_all(b"b").unwrap();
    assert_eq!(answer(&running).1, "POST /running HTTP/1.1");
    eventually("the end of the other one", || (upstream.open() == 0).then_some(()));
    assert_eq!(ask(&mut idle, &get("/again")), "GET /again HTTP/1.1");
    assert_eq!(upstream.opened(), 3);
}
