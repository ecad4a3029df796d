//! Credentials through real sockets: who gets in, what the upstream and the log get of it, and what
//! clients cannot make up.

mod common;
#[path = "auth/ending.rs"]
mod ending;

use common::{Proxy, accept, connect, field, listen, read_all, read_head, request, switching};
use std::io::Write;
use std::net::TcpListener;

/// The SHA-256 of `open sesame`.
const HASH: &str = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";

const KEY: &str = "Authorization: Bearer open sesame\r\n";

fn start(route: &str) -> (Proxy, TcpListener) {
    let (listener, addr) = listen();
    let places = "[\"authorization\", \"query:key\", \"cookie:key\", \"subprotocol:key.*\", \"subprotocol:token,*\"]";
    let keys = format!("keys = [{{ owner = \"acme\", sha256 = \"{HASH}\", scopes = [\"chat\"] }}]");
    let auth = format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nfrom = {places}\n{keys}\n");
    (Proxy::before(addr, &format!("{route}\n{auth}[log]\naccess = \"stdout\"\n")), listener)
}

/// What the client gets for a request that reaches no upstream.
fn refused(proxy: &Proxy, path: &str, more: &str) -> String {
    let mut client = connect(proxy.addr);
    client.write_all(request(path, more).as_bytes()).unwrap();
    String::from_utf8(read_all(&client).0).unwrap()
}

/// The heads that the upstream and the client get.
fn admitted(proxy: &Proxy, listener: &TcpListener, (path, more): (&str, &str), chosen: &str) -> (String, String) {
    let mut client = connect(proxy.addr);
    client.write_all(request(path, more).as_bytes()).unwrap();
    let mut upstream = accept(listener);
    let sent = read_head(&upstream);
    upstream.write_all(switching(chosen).as_bytes()).unwrap();
    (sent, read_head(&client))
}

#[test]
fn keys_admit_and_everything_else_is_401_before_the_upstream() {
    let (mut proxy, listener) = start("auth = \"keys\"");
    for (path, more) in [
        ("/chat", ""),
        ("/chat?key=open", ""),
        ("/chat?key=open%20sesame&key=", ""),
        ("/chat", "Authorization: Bearer sesame\r\n"),
        ("/chat", "Authorization: Basic b3BlbiBzZXNhbWU=\r\n"),
        ("/chat", "Authorization: Bearer open sesame\r\nAuthorization: Bearer open sesame\r\n"),
        ("/chat", "X-Forwarded-User: acme\r\nX-User: acme\r\n"),
    ] {
        let answer = refused(&proxy, path, more);
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{path} {more}: {answer}");
        assert!(answer.contains("\r\nWWW-Authenticate: Bearer"), "{answer}");
    }
    let (sent, answer) = admitted(&proxy, &listener, ("/chat", "Authorization: Bearer open sesame\r\n"), "");
    assert!(sent.contains("\r\nAuthorization: Bearer open sesame\r\n"), "the upstream may look at it: {sent}");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let line = proxy.log.wait_for(" open ");
    assert_eq!((field(&line, "user"), field(&line, "path")), (Some("acme"), Some("/chat")));
    for line in proxy.stop() {
        assert!(!line.contains("sesame"), "{line}");
    }
}

#[test]
fn keys_in_the_query_reach_neither_upstream_nor_log() {
    let (mut proxy, listener) = start("auth = \"keys\"");
    let (sent, _) = admitted(&proxy, &listener, ("/chat?a=1&k%65y=open+sesame&b=2", ""), "");
    assert!(sent.starts_with("GET /chat?a=1&b=2 HTTP/1.1\r\n") && !sent.contains("sesame"), "{sent}");
    let (sent, _) = admitted(&proxy, &listener, ("/chat?key=open%20sesame", ""), "");
    assert!(sent.starts_with("GET /chat HTTP/1.1\r\n"), "{sent}");
    refused(&proxy, "/chat?key=guess", "");
    // Also where no route asks for it, and in refusals.
    refused(&proxy, "/chat?key=guess", "X-Y: 1\r\n y\r\n");
    let lines = proxy.stop();
    assert!(lines.iter().any(|line| line.contains("/chat?a=1&k%65y=***&b=2")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("sesame") || line.contains("guess")), "{lines:#?}");
}

#[test]
fn keys_in_subprotocols_are_taken_away_and_a_legal_one_is_answered() {
    let (proxy, listener) = start("auth = \"keys\"\n[[route]]\nhost = \"other\"\nrespond = {}");
    // A subprotocol is a token: the key has no space, so another key is needed than above.
    let offered = "Sec-WebSocket-Protocol: token, opensesame, chat\r\n";
    let answer = refused(&proxy, "/", offered);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let with_key = "Authorization: Bearer open sesame\r\nSec-WebSocket-Protocol: token, x, chat\r\n";
    // The upstream chooses what is left, or nothing.
    let (sent, answer) = admitted(&proxy, &listener, ("/", with_key), "Sec-WebSocket-Protocol: chat\r\n");
    assert!(sent.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{sent}");
    assert_eq!(answer.matches("Sec-WebSocket-Protocol: chat\r\n").count(), 1, "{answer}");
    assert_eq!(answer.matches("Sec-WebSocket-Protocol").count(), 1, "{answer}");
    let (sent, answer) = admitted(&proxy, &listener, ("/", with_key), "");
    assert!(!sent.contains("token"), "{sent}");
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: token\r\n"), "{answer}");
    let alone = "Authorization: Bearer open sesame\r\nSec-WebSocket-Protocol: key.x\r\n";
    let (sent, answer) = admitted(&proxy, &listener, ("/", alone), "");
    assert!(!sent.contains("Sec-WebSocket-Protocol"), "{sent}");
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: key.x\r\n"), "{answer}");
}

#[test]
fn clients_cannot_make_up_who_they_are() {
    let headers = "request_headers = { set = { X-User = \"{identity}\", X-Plan = \"{claim.plan}\" } }";
    let (proxy, listener) = start(&format!("auth = \"keys\"\n{headers}"));
    let made_up = "Authorization: Bearer open sesame\r\nX-User: root\r\nx-user: root\r\nX-Plan: gold\r\n\
                   Connection: upgrade, X-User\r\n";
    let (sent, _) = admitted(&proxy, &listener, ("/", made_up), "");
    assert!(sent.contains("\r\nX-User: acme\r\n"), "{sent}");
    assert!(!sent.contains("root") && !sent.contains("gold"), "{sent}");
}

#[test]
fn scopes_decide_and_respond_can_ask_too() {
    let respond = "[[route]]\npath = \"/stats\"\nauth = \"keys\"\nrespond = { body = \"secret\" }";
    let (proxy, _listener) = start(&format!("auth = \"keys\"\nscopes = [\"admin\"]\n{respond}"));
    let key = "Authorization: Bearer open sesame\r\n";
    assert!(refused(&proxy, "/", key).starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert!(refused(&proxy, "/", "").starts_with("HTTP/1.1 401 "));
    let answer = refused(&proxy, "/stats", key);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("secret"), "{answer}");
    let answer = refused(&proxy, "/stats", "");
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("secret"), "{answer}");
}
