//! The fields that tell an upstream of its client, and those that a proxy in front sends.

use super::*;

const CLIENT: &str = "request_headers = { set = { X-Client = \"{client_ip}\" } }";

/// The request head that the upstream gets for these fields of a client.
#[track_caller]
fn forwarded(proxy: &Proxy, listener: &TcpListener, fields: &str) -> String {
    let mut client = connect(proxy.addr);
    client.write_all(request("/", fields).as_bytes()).unwrap();
    establish(&client, listener).1
}

#[test]
fn forwarded_of_a_trusted_proxy_names_the_client() {
    let (listener, upstream) = listen();
    let proxy = proxy(upstream, "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]", CLIENT, "");
    for (fields, client) in [
        ("Forwarded: for=192.0.2.9\r\n", "192.0.2.9"),
        ("Forwarded: for=192.0.2.1, for=192.0.2.9;proto=https\r\nforwarded: for=\"10.0.0.3:80\"\r\n", "192.0.2.9"),
        ("Forwarded: for=\"[2001:db8::9]:443\";by=\"x, y;z\"\r\n", "2001:db8::9"),
        ("Forwarded: for=192.0.2.1, for=_hidden\r\n", "127.0.0.1"),
        ("Forwarded: for=192.0.2.1, for=unknown, for=10.0.0.3\r\n", "10.0.0.3"),
        ("Forwarded: for=\"192.0.2.1, for=192.0.2.2\r\n", "127.0.0.1"),
        ("Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.9\r\n", "192.0.2.9"),
    ] {
        let head = forwarded(&proxy, &listener, fields);
        assert_eq!(values(&head, "x-client"), [client], "{fields}");
    }
}

/// Nothing that an untrusted client says of addresses goes on, whatever the upstream is sent.
#[test]
fn fields_of_untrusted_peers_are_never_passed_on() {
    let lies = "Forwarded: for=192.0.2.99;host=evil\r\nFORWARDED: for=192.0.2.99\r\nX-Forwarded-For: 192.0.2.99\r\n\
                X_Forwarded_For: 192.0.2.99\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: evil\r\nX-Forwarded-Port: 1\r\n\
                X-Real-IP: 192.0.2.99\r\nX-Forwarded-Client-Cert: evil\r\n";
    for headers in ["x-forwarded", "forwarded", "both"] {
        let (listener, upstream) = listen();
        let route = format!("forwarding_headers = \"{headers}\"\n{CLIENT}");
        let proxy = proxy(upstream, "trusted_proxies = [\"10.0.0.0/8\"]", &route, "");
        let head = forwarded(&proxy, &listener, lies);
        assert!(!head.contains("192.0.2.99") && !head.contains("evil"), "{head}");
        assert_eq!(values(&head, "x-client"), ["127.0.0.1"]);
        let [x, rfc7239] = [headers != "forwarded", headers != "x-forwarded"];
        let ours = ["for=127.0.0.1;host=example.com;proto=http"];
        assert_eq!(values(&head, "forwarded"), &ours[..usize::from(rfc7239)], "{head}");
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.com"),
        ] {
            assert_eq!(values(&head, name), &[value][..usize::from(x)], "{head}");
        }
    }
}

#[test]
fn forwarded_is_continued() {
    let (listener, upstream) = listen();
    let proxy = proxy(upstream, "trusted_proxies = [\"127.0.0.1\"]", "forwarding_headers = \"both\"", "");
    let fields = "Forwarded: for=192.0.2.9;proto=https\r\nForwarded: for=\"broken\r\nForwarded: for=_a\r\n";
    let head = forwarded(&proxy, &listener, fields);
    let ours = "for=127.0.0.1;host=example.com;proto=http";
    assert_eq!(values(&head, "forwarded"), [format!("for=192.0.2.9;proto=https, for=_a, {ours}")]);
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    let head = forwarded(&proxy, &listener, "X-Forwarded-For: 192.0.2.9, 2001:db8::1\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(values(&head, "forwarded"), [format!("for=192.0.2.9;proto=https, for=\"[2001:db8::1]\", {ours}")]);
}
