//! Shadows through real sockets: a second server gets what the client says, byte for byte, and
//! whatever it does, the session does not notice.

mod common;
#[path = "shadow/failures.rs"]
mod failures;
#[path = "shadow/process.rs"]
mod process;

use common::pki::PKI;
use common::*;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// A proxy whose only route has a shadow, and the two servers behind it.
struct Setup {
    proxy: Proxy,
    upstream: TcpListener,
    shadow: TcpListener,
}

/// `keys` are further keys of `shadow`, `more` further keys of the route and sections behind.
fn setup(keys: &str, more: &str) -> Setup {
    let ((upstream, addr), (shadow, shadow_addr)) = (listen(), listen());
    let proxy = Proxy::start(&before(addr, &format!("{}\n{more}", key(shadow_addr, keys))));
    Setup { proxy, upstream, shadow }
}

/// The key of a route that opens every session to `addr`, too.
fn key(addr: SocketAddr, keys: &str) -> String {
    format!("shadow = {{ upstream = \"ws://{addr}\", percent = 100{keys} }}")
}

impl Setup {
    /// A session, and its shadow, which has answered.
    fn open(&self) -> (TcpStream, TcpStream, TcpStream) {
        let (client, upstream) = open(&self.proxy, &self.upstream);
        let mut shadow = accept(&self.shadow);
        read_head(&shadow);
        shadow.write_all(switching("").as_bytes()).unwrap();
        (client, upstream, shadow)
    }
}

/// Shadows that ended with `cause`.
fn ended(proxy: &Proxy, cause: &str) -> f64 {
    proxy.metric(&format!("framegate_shadow_ended_total{{cause=\"{cause}\"}}"))
}

/// All shadows are gone, with everything they held, and `count` of them ended with `cause`.
#[track_caller]
fn all_ended(proxy: &Proxy, cause: &str, count: f64) {
    eventually(&format!("{count} shadows have ended: {cause}"), || (ended(proxy, cause) == count).then_some(()));
    eventually("no shadow is left", || (proxy.metric("framegate_shadow_sessions") == 0.0).then_some(()));
    eventually("no byte is left", || (proxy.metric("framegate_shadow_backlog_bytes") == 0.0).then_some(()));
}

/// A message there and back.
#[track_caller]
fn echo(client: &mut TcpStream, upstream: &mut TcpStream, text: &[u8]) {
    client.write_all(&masked(0x81, text)).unwrap();
    assert_eq!(read_frame(upstream), (0x81, text.to_vec(), true));
    upstream.write_all(&plain(0x81, text)).unwrap();
    assert_eq!(read_frame(client), (0x81, text.to_vec(), false));
}

/// The session ends with a Close in each direction.
#[track_caller]
fn close(client: &mut TcpStream, upstream: &mut TcpStream) {
    client.write_all(&masked(0x88, &close_payload(1000, ""))).unwrap();
    assert_eq!(read_close(upstream), (1000, String::new()));
    upstream.write_all(&plain(0x88, &close_payload(1000, ""))).unwrap();
    assert_eq!(read_close(client), (1000, String::new()));
    assert_eq!(read_all(client), (Vec::new(), End::Fin));
    upstream.shutdown(Shutdown::Write).unwrap();
}

/// Frames of every kind, and a message larger than a read.
fn frames() -> Vec<u8> {
    let large: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let frames = [
        masked(0x81, b"text"),
        masked(0x02, b"the first part"),
        masked(0x89, b"ping"),
        masked(0x80, b" and the last"),
        masked(0x82, &large),
        masked(0x8A, b""),
    ];
    frames.concat()
}

#[test]
fn both_servers_get_the_same_bytes_and_only_one_is_heard() {
    for mode in ["framed", "opaque"] {
        let setup = setup("", &format!("mode = \"{mode}\""));
        let mut client = connect(setup.proxy.addr);
        // A frame behind the request: it comes before the 101.
        let mut sent = masked(0x81, b"early");
        client.write_all(&[request("/chat?x=1", "Cookie: a=b\r\n").as_bytes(), &sent].concat()).unwrap();
        let mut upstream = accept(&setup.upstream);
        let head = read_head(&upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));

        let mut shadow = accept(&setup.shadow);
        let shadow_head = read_head(&shadow);
        let (traced, plain_lines): (Vec<_>, Vec<_>) =
            shadow_head.lines().partition(|line| line.starts_with("traceparent: "));
        assert_eq!(traced.len(), 1);
        assert!(plain_lines.iter().all(|line| head.contains(line)), "{head}\n{shadow_head}");
        assert!(head.starts_with("GET /chat?x=1 HTTP/1.1\r\n") && head.contains("Cookie: a=b"), "{head}");
        let answer = [switching("").as_bytes(), &plain(0x81, b"not for the client")].concat();
        shadow.write_all(&answer).unwrap();

        let more = frames();
        let writer = {
            let (mut client, more) = (client.try_clone().unwrap(), more.clone());
            std::thread::spawn(move || {
                // Pieces of every size cut frames at every place.
                for piece in more.chunks(7919) {
                    client.write_all(piece).unwrap();
                }
            })
        };
        sent.extend(more);
        let (got, shadowed) = std::thread::scope(|scope| {
            let shadowed = scope.spawn(|| read_exact(&shadow, sent.len()));
            (read_exact(&upstream, sent.len()), shadowed.join().unwrap())
        });
        writer.join().unwrap();
        assert!(got == sent && shadowed == sent, "{mode}");

        shadow.write_all(&plain(0x82, &[7; 100_000])).unwrap();
        upstream.write_all(&plain(0x81, b"heard")).unwrap();
        assert_eq!(read_frame(&client), (0x81, b"heard".to_vec(), false));
        eventually("the answer of the shadow is discarded", || {
            (setup.proxy.metric("framegate_shadow_discarded_bytes_total") >= 100_000.0).then_some(())
        });
        assert_eq!(setup.proxy.metric("framegate_shadow_sessions"), 1.0);

        client.write_all(&masked(0x88, &close_payload(1000, "bye"))).unwrap();
        let last = read_frame(&upstream);
        upstream.write_all(&plain(0x88, &close_payload(1000, "bye"))).unwrap();
        assert_eq!(read_close(&client), (1000, "bye".to_owned()));
        drop((client, upstream));
        assert_eq!(read_frame(&shadow), last);
        // FIN behind it, and nothing else.
        assert_eq!(read_all(&shadow), (Vec::new(), End::Fin));
        drop(shadow);
        all_ended(&setup.proxy, "done", 1.0);
    }
}

#[test]
fn a_shadow_that_is_late_gets_everything_from_the_first_byte() {
    let setup = setup("", "");
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    let mut shadow = accept(&setup.shadow);
    read_head(&shadow);
    for n in 0..100u8 {
        echo(&mut client, &mut upstream, &[n; 1000]);
    }
    assert_quiet(&shadow);
    shadow.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").unwrap();
    shadow.write_all(switching("Sec-WebSocket-Extensions: \r\n").as_bytes()).unwrap();
    for n in 0..100u8 {
        assert_eq!(read_frame(&shadow), (0x81, vec![n; 1000], true));
    }
    echo(&mut client, &mut upstream, b"and then");
    assert_eq!(read_frame(&shadow), (0x81, b"and then".to_vec(), true));
    close(&mut client, &mut upstream);
    drop(upstream);
    assert_eq!(read_close(&shadow), (1000, String::new()));
    assert_eq!(read_all(&shadow), (Vec::new(), End::Fin));
    drop(shadow);
    all_ended(&setup.proxy, "done", 1.0);
}

#[test]
fn a_session_may_end_before_its_shadow_has_answered() {
    let setup = setup("", "");
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    echo(&mut client, &mut upstream, b"short");
    close(&mut client, &mut upstream);
    drop((client, upstream));
    setup.proxy.log.wait_for("ended_by=");
    let mut shadow = accept(&setup.shadow);
    read_head(&shadow);
    shadow.write_all(switching("").as_bytes()).unwrap();
    assert_eq!(read_frame(&shadow), (0x81, b"short".to_vec(), true));
    assert_eq!(read_close(&shadow), (1000, String::new()));
    assert_eq!(read_all(&shadow), (Vec::new(), End::Fin));
    drop(shadow);
    all_ended(&setup.proxy, "done", 1.0);
}

#[test]
fn the_fin_of_a_client_goes_to_both() {
    let setup = setup("", "");
    let (mut client, mut upstream, shadow) = setup.open();
    echo(&mut client, &mut upstream, b"in");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&upstream), (Vec::new(), End::Fin));
    assert_eq!(read_frame(&shadow), (0x81, b"in".to_vec(), true));
    assert_eq!(read_all(&shadow), (Vec::new(), End::Fin));
    // The other direction goes on, with or without the shadow.
    drop(shadow);
    all_ended(&setup.proxy, "done", 1.0);
    upstream.write_all(&plain(0x81, b"still")).unwrap();
    assert_eq!(read_frame(&client), (0x81, b"still".to_vec(), false));
}

#[test]
fn a_refused_session_has_no_shadow() {
    let setup = setup("", "");
    let mut client = connect(setup.proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let mut upstream = accept(&setup.upstream);
    read_head(&upstream);
    upstream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 403 "));
    drop((client, upstream));
    setup.proxy.log.wait_for("ended_by=");
    setup.shadow.set_nonblocking(true).unwrap();
    assert!(setup.shadow.accept().is_err());
    assert_eq!(setup.proxy.metric("framegate_shadow_sessions"), 0.0);
}

#[test]
fn what_the_101_settled_must_be_the_same() {
    let setup = setup("", "");
    let offer = "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let agreed = "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let others = ["Sec-WebSocket-Protocol: a\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n", ""];
    for (n, answered) in [agreed].into_iter().chain(others).enumerate() {
        let mut client = connect(setup.proxy.addr);
        client.write_all(request("/", offer).as_bytes()).unwrap();
        let mut upstream = accept(&setup.upstream);
        read_head(&upstream);
        upstream.write_all(switching(agreed).as_bytes()).unwrap();
        read_head(&client);
        let mut shadow = accept(&setup.shadow);
        assert!(read_head(&shadow).contains("permessage-deflate"));
        shadow.write_all(switching(answered).as_bytes()).unwrap();
        // A compressed message.
        client.write_all(&masked(0xC1, b"\x4a\x04\x00")).unwrap();
        read_frame(&upstream);
        if answered == agreed {
            assert_eq!(read_frame(&shadow).0, 0xC1);
            drop((client, upstream, shadow));
        } else {
            assert_eq!(read_all(&shadow).0, b"", "{answered:?}");
            all_ended(&setup.proxy, "handshake", n as f64);
            echo(&mut client, &mut upstream, b"not compressed");
        }
    }
}

#[test]
fn a_shadow_may_be_behind_tls_and_have_a_path_of_its_own() {
    let ((upstream, addr), (shadow, shadow_addr)) = (listen(), listen());
    let tls = shim::before_plain(shadow_addr);
    let more = format!(
        "shadow = {{ upstream = \"s\", percent = 100 }}\n\
         [[upstream]]\nname = \"s\"\nendpoints = [\"wss://{tls}/new\"]\ntls = {{ ca = {:?} }}",
        PKI.ca()
    );
    let setup = Setup { proxy: Proxy::alone_before(addr, &more), upstream, shadow };
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    echo(&mut client, &mut upstream, b"before it is up");
    let mut shadow = accept(&setup.shadow);
    assert!(read_head(&shadow).starts_with("GET /new/ HTTP/1.1\r\n"));
    shadow.write_all(switching("").as_bytes()).unwrap();
    assert_eq!(read_frame(&shadow), (0x81, b"before it is up".to_vec(), true));
    let large = frames();
    let got = std::thread::scope(|scope| {
        scope.spawn(|| client.try_clone().unwrap().write_all(&large).unwrap());
        let shadowed = scope.spawn(|| read_exact(&shadow, large.len()));
        (read_exact(&upstream, large.len()), shadowed.join().unwrap())
    });
    assert!(got == (large.clone(), large));
    close(&mut client, &mut upstream);
    drop(upstream);
    assert_eq!(read_close(&shadow), (1000, String::new()));
    assert_eq!(read_all(&shadow), (Vec::new(), End::Fin), "a close_notify before the FIN");
    drop(shadow);
    all_ended(&setup.proxy, "done", 1.0);
}
