//! Requests that a proxy and the server behind it may read differently. Whatever the attack, the
//! server sees nothing that the proxy did not judge, and the next client gets its own answer.

use super::common::*;
use super::recorder::*;
use std::io::Write;

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
fn requests_torn_at_every_byte_pass_as_one() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let head = "PUT /a?b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = format!("{head}3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\nX-T: y\r\n\r\n");
    for cut in 1..request.len() {
        let mut client = connect(proxy.addr);
        client.set_nodelay(true).unwrap();
        let (first, second) = request.split_at(cut);
        client.write_all(first.as_bytes()).unwrap();
        client.write_all(second.as_bytes()).unwrap();
        assert_eq!(answer(&client).1, "PUT /a?b HTTP/1.1");
    }
    let seen = upstream.seen();
    assert!(seen.len() == request.len() - 1 && seen.iter().all(|seen| seen.body == b"abc0123456789"));
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
