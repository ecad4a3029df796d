//! The end of sessions with their credentials, and orders of the admin listener about them.

use super::{HASH, KEY, refused};
use crate::common::{
    End, Proxy, accept, connect, eventually, field, http, listen, masked, open_with, plain, read_all, read_close,
    read_exact, read_frame, read_head, request, switching,
};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn start(more: &str) -> (Proxy, TcpListener) {
    let (listener, addr) = listen();
    let keys = format!("keys = [{{ owner = \"acme\", sha256 = \"{HASH}\" }}]");
    let auth = format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\n{keys}\n");
    let route = format!("auth = \"keys\"\n{more}\n{auth}[log]\naccess = \"stdout\"");
    (Proxy::alone_before(addr, &route), listener)
}

fn order(proxy: &Proxy, target: &str) -> String {
    http(proxy.admin(), &format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

#[track_caller]
fn obeyed(proxy: &Proxy, target: &str) {
    let answer = order(proxy, target);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
}

/// Seconds since the Unix epoch.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn echo_works(client: &mut TcpStream, upstream: &mut TcpStream) {
    client.write_all(&masked(0x81, b"hello")).unwrap();
    assert_eq!(read_frame(upstream).1, b"hello");
    upstream.write_all(&plain(0x81, b"hello")).unwrap();
    assert_eq!(read_frame(client).1, b"hello");
}

#[test]
fn a_session_ends_with_its_credentials_unless_they_are_extended() {
    let (mut proxy, listener) = start("on_expired_code = 4001");
    let (mut client, mut upstream) = open_with(&proxy, &listener, KEY);
    let began = unix_now();
    obeyed(&proxy, &format!("/extend?subject=acme&until={}", began + 2));
    obeyed(&proxy, &format!("/extend?subject=acme&until={}", began + 4));
    // The first end passes.
    eventually("the first end", || (unix_now() >= began + 3).then_some(()));
    echo_works(&mut client, &mut upstream);
    assert_eq!(read_close(&client), (4001, "credentials expired".to_owned()));
    assert!((began + 4..=began + 8).contains(&unix_now()), "at its time");
    assert_eq!(read_close(&upstream).0, 1001);
    drop((client, upstream));
    let line = proxy.log.wait_for("cause=expired");
    assert!(line.contains("ended_by=proxy") && line.contains("user=acme"), "{line}");
    proxy.stop();
}

#[test]
fn revoked_clients_lose_their_sessions_and_get_no_new_ones() {
    let (proxy, listener) = start("");
    let (client, upstream) = open_with(&proxy, &listener, KEY);
    obeyed(&proxy, "/revoke?subject=somebody");
    let began = Instant::now();
    obeyed(&proxy, "/revoke?subject=acme&for=1h");
    assert_eq!(read_close(&client), (4403, "credentials revoked".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(read_close(&upstream).0, 1001);
    assert!(refused(&proxy, "/", KEY).starts_with("HTTP/1.1 401 "));
    // Also after a reload.
    obeyed(&proxy, "/reload");
    assert!(refused(&proxy, "/", KEY).starts_with("HTTP/1.1 401 "));
    drop((client, upstream));
    proxy.log.wait_for("cause=revoked");
}

#[test]
fn an_order_ends_with_its_time() {
    let (proxy, listener) = start("");
    obeyed(&proxy, "/revoke?token=41ef4bb0b23661e6&for=1500ms");
    assert!(refused(&proxy, "/", KEY).starts_with("HTTP/1.1 401 "));
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| accept(&listener));
        eventually("an order that has ended", || {
            let mut client = connect(proxy.addr);
            client.write_all(request("/", KEY).as_bytes()).unwrap();
            // A refusal comes at once; an admitted request waits for the upstream.
            client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let refused = client.peek(&mut [0; 12]).is_ok_and(|n| n > 0);
            (!refused).then_some(())
        });
        accepted.join().unwrap();
    });
}

#[test]
fn a_frame_under_way_is_not_cut() {
    let (proxy, listener) = start("");
    let (mut client, mut upstream) = open_with(&proxy, &listener, KEY);
    // Half of a frame of the upstream, then the order, then the other half.
    let frame = plain(0x82, &[7; 1000]);
    upstream.write_all(&frame[..500]).unwrap();
    let mut got = read_exact(&client, 500);
    obeyed(&proxy, "/revoke?subject=acme");
    assert_eq!(read_close(&upstream).0, 1001);
    upstream.write_all(&frame[500..]).unwrap();
    got.extend(read_exact(&client, frame.len() - 500));
    assert_eq!(got, frame);
    assert_eq!(read_close(&client).0, 4403);
    client.write_all(&masked(0x88, &4403_u16.to_be_bytes())).unwrap();
    drop(upstream);
    assert_eq!(read_all(&client).1, End::Fin);
}

#[test]
fn one_session_is_ended_by_its_id() {
    let (proxy, listener) = start("");
    let (client, _upstream) = open_with(&proxy, &listener, KEY);
    let (mut other, mut other_upstream) = open_with(&proxy, &listener, KEY);
    let line = proxy.log.wait_for(" open ");
    obeyed(&proxy, &format!("/revoke?session={}", field(&line, "id").unwrap()));
    assert_eq!(read_close(&client).0, 4403);
    echo_works(&mut other, &mut other_upstream);
    // The client itself is admitted as before.
    open_with(&proxy, &listener, KEY);
}

/// Its backend knows the id before the client has its 101.
#[test]
fn one_session_is_ended_by_its_id_before_it_is_established() {
    let (proxy, listener) = start("");
    let mut client = connect(proxy.addr);
    client.write_all(request("/", KEY).as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    let head = read_head(&upstream);
    let id = head.lines().find_map(|line| line.strip_prefix("X-Request-Id: ")).expect("an id");
    obeyed(&proxy, &format!("/revoke?session={id}"));
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    assert_eq!(read_close(&client), (4403, "credentials revoked".to_owned()));
    assert_eq!(read_close(&upstream).0, 1001);
}

#[test]
fn wrong_orders_are_refused() {
    let (proxy, _listener) = start("");
    for target in [
        "/revoke",
        "/revoke?subject=",
        "/revoke?who=acme",
        "/revoke?subject=a&token=b",
        "/revoke?subject=acme&for=5",
        "/revoke?subject=acme&for=0s",
        "/revoke?subject=acme&for=400d",
        "/extend?subject=acme",
        "/extend?subject=acme&until=soon",
        "/extend?until=2000000000",
    ] {
        let answer = order(&proxy, target);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
    }
    let browser = "POST /revoke?subject=acme HTTP/1.1\r\nHost: a\r\nOrigin: http://x\r\n\r\n";
    assert!(http(proxy.admin(), browser).starts_with("HTTP/1.1 403 "));
    assert!(http(proxy.admin(), "GET /revoke?subject=acme HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 405 "));
}
