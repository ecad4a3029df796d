//! Headers that framegate receives.

use super::*;

fn inet(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&ENDS, tlvs].concat())
}

fn inet6() -> Vec<u8> {
    let ends = ["2001:db8::7", "2001:db8::1"].map(|end| end.parse::<std::net::Ipv6Addr>().unwrap().octets());
    v2(0x21, 0x21, &[&ends.concat()[..], &ENDS[8..]].concat())
}

/// Whom a header names, as in the access log.
fn sound() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (V1.to_vec(), "203.0.113.7:56324"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), "[2001:db8::7]:56324"),
        (inet(&[]), "203.0.113.7:56324"),
        (inet(&[&[0x04, 0x0f, 0xf1][..], &[b'x'; 4081]].concat()), "203.0.113.7:56324"),
        (inet6(), "[2001:db8::7]:56324"),
    ]
}

/// The request of a client that claims another address.
fn forged() -> String {
    request("/", "X-Forwarded-For: 192.0.2.99\r\nForwarded: for=192.0.2.99\r\nX-Real-IP: 192.0.2.99\r\n")
}

#[track_caller]
fn came_from(head: &str, client: &str) {
    let address = client.parse::<SocketAddr>().unwrap().ip().to_string();
    assert_eq!(values(head, "x-forwarded-for"), [&address], "{head}");
    assert_eq!(values(head, "x-real-ip"), [&address], "{head}");
    assert!(values(head, "forwarded").is_empty() && !head.contains("192.0.2.99"), "{head}");
}

#[test]
fn the_client_of_a_header_is_the_peer() {
    let (listener, upstream) = listen();
    let mut proxy = proxy(upstream, BEHIND, "", "");
    let mut clients = Vec::new();
    for (header, client) in sound() {
        // Everything at once, header and request apart, and byte by byte.
        for piece in [usize::MAX, header.len(), 1] {
            let mut stream = connect(proxy.addr);
            let sent = [&header[..], forged().as_bytes()].concat();
            if piece == 1 && header.len() > 1000 {
                continue;
            }
            sent.chunks(piece).for_each(|piece| stream.write_all(piece).unwrap());
            let (_upstream, head) = establish(&stream, &listener);
            came_from(&head, client);
            clients.push(client);
        }
    }
    let log = proxy.stop();
    let ended: Vec<_> = log.iter().filter(|line| line.contains(" ended_by=")).collect();
    assert_eq!(ended.len(), clients.len(), "{log:#?}");
    for client in clients {
        assert!(ended.iter().any(|line| field(line, "client") == Some(client)), "{client}: {log:#?}");
    }
}

#[test]
fn the_header_comes_before_tls() {
    let (listener, upstream) = listen();
    let proxy = proxy(upstream, &format!("{BEHIND}\n{}", tls_key()), "", "");
    for (header, client) in sound() {
        for piece in [usize::MAX, 1] {
            let front = shim::before_tls(balancer(proxy.addr, &header, piece));
            let mut stream = connect(front);
            stream.write_all(forged().as_bytes()).unwrap();
            let (_upstream, head) = establish(&stream, &listener);
            came_from(&head, client);
            assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
        }
    }
}

/// The peer itself is the client, and its word counts as that of any trusted proxy.
#[test]
fn a_header_without_a_client_stands_for_the_peer() {
    let (listener, upstream) = listen();
    let proxy = proxy(upstream, BEHIND, "", "");
    let unix = v2(0x21, 0x31, &[0; 216]);
    let rows = [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, &[]), v2(0x20, 0x11, &ENDS), v2(0x21, 0, &[]), unix];
    for header in rows {
        let mut stream = connect(proxy.addr);
        stream.write_all(&[&header[..], request("/", "X-Forwarded-For: 192.0.2.9\r\n").as_bytes()].concat()).unwrap();
        let (_upstream, head) = establish(&stream, &listener);
        assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.9, 127.0.0.1"]);
    }
    // A health check of a balancer: a header, and no request.
    let mut stream = connect(proxy.addr);
    stream.write_all(&v2(0x20, 0, &[])).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&stream), (vec![], End::Fin));
    counts(&proxy, "no-request", 1.0);
}

/// Whether X-Forwarded-For is believed depends on the address in the header, not on who sent that.
#[test]
fn trust_is_in_the_address_that_the_header_names() {
    let (listener, upstream) = listen();
    let keys = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
    let proxy = proxy(upstream, keys, "request_headers = { set = { X-Client = \"{client_ip}\" } }", "");
    for (source, client, chain) in [
        ("10.1.2.3", "192.0.2.9", "192.0.2.9, 10.1.2.3"),
        ("127.0.0.1", "192.0.2.9", "192.0.2.9, 127.0.0.1"),
        ("11.1.2.3", "11.1.2.3", "11.1.2.3"),
    ] {
        let header = format!("PROXY TCP4 {source} 198.51.100.1 1 2\r\n");
        let mut stream = connect(proxy.addr);
        stream.write_all((header + &request("/", "X-Forwarded-For: 192.0.2.9\r\n")).as_bytes()).unwrap();
        let (_upstream, head) = establish(&stream, &listener);
        assert_eq!(values(&head, "x-client"), [client], "{source}");
        assert_eq!(values(&head, "x-forwarded-for"), [chain], "{source}");
    }
}

/// Waits until so many handshakes have ended for this cause.
#[track_caller]
fn counts(proxy: &Proxy, cause: &str, count: f64) {
    let name = format!("framegate_handshakes_total{{outcome=\"{cause}\"}}");
    eventually(cause, || (proxy.find_metric(&name) == Some(count)).then_some(()));
}

#[track_caller]
fn refused(proxy: &Proxy, stream: &TcpStream, cause: &str) {
    assert_eq!(read_all(stream).0, b"", "{cause}: nothing is answered");
    let peer = stream.local_addr().unwrap().to_string();
    let line = proxy.log.wait(cause, |line| (field(line, "client") == Some(&peer)).then(|| line.to_owned()));
    let expected = format!("ended_by=downstream phase=proxy-header cause={cause} ");
    assert!(line.contains(&expected), "{expected}: {line}");
}

#[test]
fn what_is_no_header_ends_the_connection_without_an_answer() {
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let wrong_sum = inet(&[3, 0, 4, 1, 2, 3, 4]);
    let too_long = [V2_START, &[0x21, 0x11, 0x10, 0x01]].concat();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("proxy-absent", request("/", "").into_bytes()),
        ("proxy-absent", hello.to_vec()),
        ("proxy-absent", b"proxy TCP4 203.0.113.7 198.51.100.1 56324 443\r\n".to_vec()),
        ("proxy-absent", b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec()),
        ("proxy-malformed", b"PROXY TCP4 203.0.113.07 198.51.100.1 56324 443\r\n".to_vec()),
        ("proxy-malformed", b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\n".to_vec()),
        ("proxy-malformed", b"PROXY TCP4  203.0.113.7 198.51.100.1 56324 443\r\n".to_vec()),
        ("proxy-malformed", v2(0x11, 0x11, &ENDS)),
        ("proxy-malformed", v2(0x21, 0x12, &ENDS)),
        ("proxy-malformed", v2(0x21, 0x11, &ENDS[..11])),
        ("proxy-malformed", wrong_sum),
        ("proxy-too-long", format!("PROXY UNKNOWN {}", "x".repeat(100)).into_bytes()),
        ("proxy-too-long", too_long),
    ];
    for tls in ["", &tls_key()] {
        let (_listener, upstream) = listen();
        let proxy = proxy(upstream, &format!("{BEHIND}\n{tls}"), "", "");
        for (cause, bytes) in &rows {
            // What follows a refused header is not looked at.
            for behind in ["", &request("/", "")] {
                let mut stream = connect(proxy.addr);
                stream.write_all(&[bytes, behind.as_bytes()].concat()).unwrap();
                refused(&proxy, &stream, cause);
            }
        }
        for (header, _) in sound() {
            for cut in [1, header.len() / 2, header.len() - 1] {
                let mut stream = connect(proxy.addr);
                stream.write_all(&header[..cut]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                refused(&proxy, &stream, "proxy-truncated");
            }
        }
        for cause in ["proxy-absent", "proxy-malformed", "proxy-too-long"] {
            counts(&proxy, cause, 2.0 * rows.iter().filter(|(is, _)| *is == cause).count() as f64);
        }
        counts(&proxy, "proxy-truncated", 3.0 * sound().len() as f64);
        // Nor is a connection without a byte, as always.
        let stream = connect(proxy.addr);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&stream), (vec![], End::Fin));
        counts(&proxy, "no-request", 1.0);
        eventually("no handshake is left", || (proxy.metric("framegate_handshakes") == 0.0).then_some(()));
    }
}

#[test]
fn a_header_that_is_late_ends_the_connection() {
    for tls in ["", &tls_key()] {
        let (_listener, upstream) = listen();
        let proxy = proxy(upstream, &format!("{BEHIND}\n{tls}"), "", "[timeouts]\ntls = \"300ms\"");
        for (header, _) in sound() {
            for cut in [0, 1, header.len() - 1] {
                let mut stream = connect(proxy.addr);
                stream.write_all(&header[..cut]).unwrap();
                refused(&proxy, &stream, "proxy-timeout");
            }
        }
        counts(&proxy, "proxy-timeout", 3.0 * sound().len() as f64);
    }
}

/// The deadline is that of the whole header: bytes do not move it.
#[test]
fn a_header_that_drips_is_late() {
    let (_listener, upstream) = listen();
    let proxy = proxy(upstream, BEHIND, "", "[timeouts]\ntls = \"300ms\"");
    let header = inet(&[&[0x04, 0x0f, 0xf1][..], &[0; 4081]].concat());
    let mut stream = connect(proxy.addr);
    let begun = std::time::Instant::now();
    for byte in &header {
        // It is closed at some point.
        if stream.write_all(std::slice::from_ref(byte)).is_err() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    assert!(begun.elapsed() < PATIENCE / 2);
    let line = proxy.log.wait_for("phase=proxy-header");
    assert!(line.contains("cause=proxy-timeout "), "{line}");
}

/// A header of a peer that is not trusted is not even looked at.
#[test]
fn only_trusted_proxies_may_connect() {
    for tls in ["", &tls_key()] {
        let (_listener, upstream) = listen();
        let proxy = proxy(upstream, &format!("{BEHIND}\n{tls}"), "", "");
        for bytes in [V1.to_vec(), inet(&[]), request("/", "").into_bytes(), vec![]] {
            let mut stream = connect_from([127, 0, 0, 2], proxy.addr);
            // It may be closed already.
            let _ = stream.write_all(&bytes);
            refused(&proxy, &stream, "proxy-untrusted");
        }
        counts(&proxy, "proxy-untrusted", 4.0);
    }
}

#[test]
fn without_the_key_a_header_is_a_malformed_request() {
    let (_listener, upstream) = listen();
    let proxy = proxy(upstream, "trusted_proxies = [\"127.0.0.1\"]", "", "");
    let mut stream = connect(proxy.addr);
    stream.write_all(&[V1, request("/", "").as_bytes()].concat()).unwrap();
    let answer = String::from_utf8(read_all(&stream).0).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_drain_ends_connections_whose_header_is_incomplete() {
    let (_listener, upstream) = listen();
    let mut proxy = proxy(upstream, BEHIND, "", "");
    let mut streams: Vec<_> = (0..2).map(|_| connect(proxy.addr)).collect();
    streams[1].write_all(&V1[..9]).unwrap();
    eventually("they are accepted", || (proxy.metric("framegate_handshakes") == 2.0).then_some(()));
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    for stream in &mut streams {
        assert_eq!(read_all(stream).0, b"");
    }
}

#[test]
fn lists_of_the_listener_judge_the_client_that_the_header_names() {
    let (listener, upstream) = listen();
    let lists = format!("{BEHIND}\ndeny = [\"203.0.113.0/24\"]");
    let proxy = proxy(upstream, &lists, "", "[log]\naccess = \"stdout\"");
    let mut client = connect(proxy.addr);
    client.write_all(V1).unwrap();
    // Before its request: no byte is answered.
    assert_eq!(read_all(&client).0, b"");
    let line = proxy.log.wait_for("cause=peer-refused");
    assert!(line.contains("client=203.0.113.7:56324"), "{line}");
    let mut client = connect(proxy.addr);
    client.write_all(b"PROXY TCP4 198.51.100.9 198.51.100.1 56324 443\r\n").unwrap();
    client.write_all(request("/", "").as_bytes()).unwrap();
    establish(&client, &listener);
}
