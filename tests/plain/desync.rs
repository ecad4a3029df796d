//! Requests that a proxy and the server behind it may read differently. Whatever the attack, the
//! server sees nothing that the proxy did not judge, and the next client gets its own answer.

use super::common::*;
use super::recorder::*;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

/// The attacker sends this on one connection, then a victim comes: what the upstream has seen of
/// the attack, and the answer to it.
fn attacked(proxy: &Proxy, upstream: &Recorder, attack: &str) -> (Vec<String>, String) {
    let before = upstream.seen().len();
    let mut attacker = connect(proxy.addr);
    attacker.write_all(attack.as_bytes()).unwrap();
    let head = read_head(&attacker);
    let mut victim = connect(proxy.addr);
    assert_eq!(ask(&mut victim, &get("/victim")), "GET /victim HTTP/1.1", "{attack:?}");
    let mut lines = upstream.lines().split_off(before);
    assert_eq!(lines.pop().as_deref(), Some("GET /victim HTTP/1.1"), "{attack:?}");
    (lines, head)
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\nX: ";

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let (len, smuggled) = (SMUGGLED.len(), SMUGGLED);
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", len);
    let cl = |value: &str| format!("Content-Length{value}\r\n");
    let te = |value: &str| format!("Transfer-Encoding{value}\r\n");
    let last = format!("0\r\n\r\n{smuggled}");
    let rows: &[(&str, String, &str)] = &[
        ("CL.TE", cl(&format!(": {}", len + 5)) + &te(": chunked"), &last),
        ("TE.CL", te(": chunked") + &cl(": 4"), &chunk),
        ("TE.TE", te(": chunked") + &te(": x"), &last),
        ("TE, hidden", te(" : chunked"), &last),
        ("TE, tab", te(":\u{b}chunked"), &last),
        ("TE, folded", te(":\r\n chunked"), &last),
        ("TE, bare LF", "X: y\n".to_owned() + &te(": chunked"), &last),
        ("TE, quoted", te(": \"chunked\""), &last),
        ("TE, twice in a line", te(": chunked, chunked"), &last),
        ("CL.CL", cl(": 0") + &cl(": 44"), smuggled),
        ("CL, a list", cl(": 0, 44"), smuggled),
        ("CL, signed", cl(": +44"), smuggled),
        ("CL, hexadecimal", cl(": 0x2c"), smuggled),
        ("CL, hidden", cl(" : 44"), smuggled),
        ("Host, twice", "Host: i\r\n".to_owned(), smuggled),
        ("expectation", "Expect: y 100-continue\r\n".to_owned() + &cl(": 4"), smuggled),
    ];
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}");
    let mut attacks: Vec<_> = rows.iter().map(|(name, fields, body)| (*name, post(fields, body))).collect();
    attacks.extend([
        ("TE of HTTP/1.0", post(&te(": chunked"), &last).replacen("HTTP/1.1", "HTTP/1.0", 1)),
        ("absolute-form of another host", post("", smuggled).replacen(" / ", " http://i/ ", 1)),
        ("line, two spaces", post("", smuggled).replacen(" / ", "  / ", 1)),
    ]);
    for (name, attack) in &attacks {
        let (seen, head) = attacked(&proxy, &upstream, attack);
        assert_eq!(seen, [""; 0], "{name}");
        assert!(head.starts_with("HTTP/1.1 4") && head.contains("Connection: close\r\n"), "{name}: {head}");
    }
}

#[test]
fn a_body_that_looks_like_a_request_stays_a_body() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let body = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for request in [
        // CL.0: a server that ignores the length of a GET would take it for the next request.
        format!("GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        format!(
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ),
        format!(
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:X};x=\"\\\"\"\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ),
        format!("POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    ] {
        let (seen, head) = attacked(&proxy, &upstream, &request);
        assert!(seen.len() == 1 && seen[0].ends_with(" /a HTTP/1.1"), "{seen:?}");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(upstream.seen().iter().rev().find(|seen| seen.line.contains(" /a ")).unwrap().body, body.as_bytes());
    }
}

/// 0.CL: the proxy sees no body where the server would wait for one; nothing is left over for the
/// next request on the connection.
#[test]
fn a_request_without_framing_has_no_body() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut client = connect(proxy.addr);
    client.write_all(format!("POST /a HTTP/1.1\r\nHost: h\r\n\r\n{}", get("/b")).as_bytes()).unwrap();
    assert_eq!(answer(&client).1, "POST /a HTTP/1.1");
    // What came behind it is judged as a request of its own, by all rules.
    assert_eq!(answer(&client).1, "GET /b HTTP/1.1");
    assert!(upstream.seen().iter().all(|seen| seen.body.is_empty()));
}

/// A server that answers before the end of the body, and so would read the rest of it as the next
/// request: its connection is not used again.
#[test]
fn an_early_answer_taints_no_connection() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut attacker = connect(proxy.addr);
    attacker.write_all(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n").unwrap();
    let (head, body) = answer(&attacker);
    assert!(head.contains("Connection: close\r\n") && body == "early", "{head}");
    // The pause is over: the rest would be another request.
    let _ = attacker.write_all(get("/smuggled").as_bytes());
    let mut victim = connect(proxy.addr);
    assert_eq!(ask(&mut victim, &get("/victim")), "GET /victim HTTP/1.1");
    let seen = upstream.seen();
    assert_eq!(upstream.lines(), ["POST /early HTTP/1.1", "GET /victim HTTP/1.1"]);
    assert_ne!(seen[0].connection, seen[1].connection);
}

/// Response queue poisoning: an answer to a request that was not made.
#[test]
fn a_second_answer_reaches_nobody() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    for n in 0..5 {
        let mut client = connect(proxy.addr);
        assert_eq!(ask(&mut client, &get("/extra")), "ok");
        let path = format!("/{n}");
        assert_eq!(ask(&mut client, &get(&path)), format!("GET {path} HTTP/1.1"));
    }
}

#[test]
fn names_that_servers_read_differently_do_not_pass() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let mut client = connect(proxy.addr);
    let fields = "X_Forwarded_For: 1.2.3.4\r\nContent_Length: 5\r\nProxy-Connection: close\r\n\
                  Keep-Alive: 5\r\nX-Real-IP: 1.2.3.4\r\nTrailer: X\r\n";
    ask(&mut client, &format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    let head = upstream.seen()[0].head.to_ascii_lowercase();
    for word in ["_", "1.2.3.4", "proxy-connection", "keep-alive", "trailer"] {
        assert!(!head.contains(word), "{word}: {head}");
    }
}

fn before(upstream: SocketAddr) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"http://{upstream}\"\n"
    ))
}

/// The next client gets its own answer, over this connection or another one.
fn assert_unharmed(proxy: &Proxy, listener: &std::net::TcpListener, mut kept: Option<TcpStream>) {
    let mut victim = connect(proxy.addr);
    victim.write_all(get("/victim").as_bytes()).unwrap();
    let mut server = kept.take().unwrap_or_else(|| accept(listener));
    assert!(read_head(&server).starts_with("GET /victim "));
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine").unwrap();
    assert_eq!(answer(&victim).1, "mine");
}

/// CL.0 and TE.0: the server does not read the body, and takes it for the beginning of the next
/// request. Where the method gives a body no meaning, no other request follows it.
#[test]
fn a_body_that_the_server_does_not_read_is_no_other_request() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let (len, body) = (SMUGGLED.len(), SMUGGLED);
    for method in ["GET", "OPTIONS", "DELETE"] {
        for (framing, body) in [
            (format!("Content-Length: {len}"), body.to_owned()),
            ("Transfer-Encoding: chunked".to_owned(), format!("{len:x}\r\n{body}\r\n0\r\n\r\n")),
        ] {
            let (seen, head) =
                attacked(&proxy, &upstream, &format!("{method} /early HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}"));
            assert_eq!(seen[0], format!("{method} /early HTTP/1.1"));
            let seen = upstream.seen();
            let [.., attack, victim] =
                seen.iter().filter(|seen| seen.head.contains("Host: h\r\n")).collect::<Vec<_>>()[..]
            else {
                panic!("{seen:?}")
            };
            assert_ne!(attack.connection, victim.connection);
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
    }
}

/// Pause-based: the client stops in the middle of a body, the server gives up and answers, but
/// keeps its connection. What comes of the body then is no request.
#[test]
fn what_comes_of_a_body_after_a_pause_is_not_sent() {
    let (listener, addr) = listen();
    let proxy = before(addr);
    let smuggled = get("/smuggled");
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let length = format!("Content-Length: {}\r\n\r\n", smuggled.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n".to_owned();
    for (framing, body, cut) in [
        (&length, &smuggled, 0),
        (&length, &smuggled, 5),
        (&chunked, &chunk, 0),
        (&chunked, &chunk, 4),
        (&chunked, &chunk, 9),
        (&chunked, &chunk, chunk.len() - 2),
    ] {
        let (first, rest) = body.split_at(cut);
        let mut attacker = connect(proxy.addr);
        attacker.write_all(format!("POST /a HTTP/1.1\r\nHost: h\r\n{framing}{first}").as_bytes()).unwrap();
        let mut server = accept(&listener);
        read_head(&server);
        server.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate").unwrap();
        let (head, text) = answer(&attacker);
        assert!(
            head.starts_with("HTTP/1.1 408 ") && head.contains("Connection: close\r\n") && text == "late",
            "{head}"
        );
        let _ = attacker.write_all(rest.as_bytes());
        assert_unharmed(&proxy, &listener, None);
        // What was sent before the answer, and then an end.
        let (seen, _) = read_all(&server);
        assert!(first.as_bytes().starts_with(&seen), "{:?}", String::from_utf8_lossy(&seen));
    }
}

/// Expectations: what the server says of them may come in any number and at any time, but ends no
/// request, and belongs to no other one.
#[test]
fn what_is_said_of_an_expectation_is_no_answer() {
    let (listener, addr) = listen();
    let proxy = before(addr);
    let request = "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let go_on: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let ok: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // Twice, then the answer: the connection is kept.
    let mut client = connect(proxy.addr);
    client.write_all(request.as_bytes()).unwrap();
    let mut server = accept(&listener);
    assert!(read_head(&server).contains("Expect: 100-continue\r\n"));
    server.write_all(&[go_on, go_on].concat()).unwrap();
    assert_eq!([&client; 2].map(|client| read_head(client).into_bytes()), [go_on, go_on]);
    client.write_all(b"ab").unwrap();
    assert_eq!(read_exact(&server, 2), b"ab");
    server.write_all(ok).unwrap();
    assert_eq!(answer(&client).1, "ok");
    assert_unharmed(&proxy, &listener, Some(server));
    // Not at all, and the answer before the body: what the client sends of that is no request.
    let proxy = before(addr);
    let mut client = connect(proxy.addr);
    client.write_all(request.as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    server.write_all(ok).unwrap();
    assert!(read_head(&client).contains("Connection: close\r\n"));
    let _ = client.write_all(get("/smuggled").as_bytes());
    assert_unharmed(&proxy, &listener, None);
    assert_eq!(read_all(&server).0, b"");
    // Behind the answer.
    let proxy = before(addr);
    let mut client = connect(proxy.addr);
    client.write_all(format!("{request}ab").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    read_exact(&server, 2);
    server.write_all(&[ok, go_on].concat()).unwrap();
    assert_eq!(answer(&client).1, "ok");
    assert_unharmed(&proxy, &listener, None);
    // For a request without a body.
    let mut client = connect(proxy.addr);
    client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(read_all(&server).0, b"");
    drop(listener);
}

/// An upstream that says more than it declared: a body where there is none, a length that is too
/// short, two of them, an upgrade without a wish for one.
#[test]
fn a_response_of_another_length_than_it_says_taints_no_client() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let rows = [
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len()), "200"),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len()), "204"),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len()), "304"),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{EVIL}"), "200"),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{EVIL}"), "200"),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nok{EVIL}"), "502"),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 2, 4\r\n\r\nok{EVIL}"), "502"),
        (
            "GET",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{EVIL}"),
            "502",
        ),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{EVIL}"), "502"),
        ("GET", format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{EVIL}"), "502"),
        ("GET", format!("HTTP/1.1 200 OK\nContent-Length: 0\n\n{EVIL}"), "502"),
    ];
    let (listener, addr) = listen();
    for (method, response, status) in rows {
        let proxy = before(addr);
        let mut client = connect(proxy.addr);
        client.write_all(format!("{method} /a HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let mut server = accept(&listener);
        read_head(&server);
        server.write_all(response.as_bytes()).unwrap();
        let head = read_head(&client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{response}: {head}");
        assert_unharmed(&proxy, &listener, None);
        // And neither does this client get what came behind.
        if status == "502" {
            assert!(!String::from_utf8_lossy(&read_all(&client).0).contains("evil"));
        } else if head.contains("chunked") {
            assert_eq!(read_exact(&client, 5), b"0\r\n\r\n");
        }
    }
}
