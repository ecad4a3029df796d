//! `examples/access`: who gets in.

use crate::common::*;
use crate::rig::*;
use std::io::Write;
use std::net::TcpListener;
use std::thread::JoinHandle;

/// Each worker keeps answers of its own.
fn one_worker(mut example: Example) -> Example {
    example.text += "[workers]\ncount = 1\n";
    example
}

/// A server that answers `count` requests, each by its head and its body.
fn answering(
    listener: TcpListener,
    count: usize,
    by: impl Fn(&str, &str) -> String + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for _ in 0..count {
            let mut stream = accept(&listener);
            let head = read_head(&stream);
            let length = field_of(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            let body = String::from_utf8(read_exact(&stream, length)).unwrap();
            stream.write_all(by(&head, &body).as_bytes()).unwrap();
        }
    })
}

#[test]
fn cookie_sessions_of_a_website() {
    let (chat, (listener, addr)) = (Backend::start("chat"), listen());
    let example = Example::framegate("access/cookie-sessions.toml").backends(&[("10.0.0.41:9000", &chat)]);
    let proxy = one_worker(example.swap("10.0.0.40:4180", &addr.to_string())).start();
    let server = answering(listener, 2, |head, _| {
        assert!(head.starts_with("GET /oauth2/auth HTTP/1.1\r\n") && field_of(head, "user-agent").is_none(), "{head}");
        match field_of(head, "cookie") {
            Some("_oauth2_proxy=ada") => "HTTP/1.1 202 Accepted\r\nX-Auth-Request-User: ada\r\n\
                                          X-Auth-Request-Email: ada@example.com\r\n\r\n"
                .to_owned(),
            _ => "HTTP/1.1 302 Found\r\nLocation: https://sso.example.com/start\r\nSet-Cookie: csrf=1\r\n\
                  Content-Length: 0\r\n\r\n"
                .to_owned(),
        }
    });
    let ask = Ask::new("chat.example.com", "/chat/1").with("User-Agent: x\r\nX-Auth-Request-User: root\r\n");
    let head = read_head(&ask.send(proxy.addr));
    assert_eq!((status_of(&head), field_of(&head, "location")), (302, Some("https://sso.example.com/start")));
    assert_eq!(field_of(&head, "set-cookie"), Some("csrf=1"));
    let fields = "Cookie: _oauth2_proxy=ada\r\nX-Auth-Request-User: root\r\nX-Auth-Request-Email: root@x\r\n";
    let ask = Ask::new("chat.example.com", "/chat/1").with(fields);
    for _ in 0..3 {
        let session = ask.open(proxy.addr);
        assert_eq!(session.field("x-auth-request-user"), Some("ada"));
        assert_eq!(session.field("x-auth-request-email"), Some("ada@example.com"));
        assert!(!session.received.contains("root"), "{}", session.received);
    }
    server.join().unwrap();
}

#[test]
fn tokens_of_keycloak() {
    let (chat, (listener, addr)) = (Backend::start("chat"), listen());
    let example = Example::framegate("access/keycloak-introspection.toml").backends(&[("10.0.0.51:9000", &chat)]);
    let secret = folder().join("access/introspection.secret");
    let example = example.swap("examples/access/introspection.secret", secret.to_str().unwrap());
    let proxy = one_worker(example.swap("10.0.0.50:8180", &addr.to_string())).start();
    let server = answering(listener, 2, |head, body| {
        assert!(head.starts_with("POST /realms/chat/protocol/openid-connect/token/introspect HTTP/1.1\r\n"), "{head}");
        assert_eq!(field_of(head, "host"), Some("sso.example.com"));
        assert!(field_of(head, "authorization").is_some_and(|value| value.starts_with("Basic ")), "{head}");
        let json = if body.starts_with("token=good&") {
            "{\"active\":true,\"iss\":\"https://sso.example.com/realms/chat\",\"aud\":\"chat\",\"sub\":\"f81d\",\
             \"scope\":\"openid chat\",\"preferred_username\":\"ada\",\"realm_access\":{\"roles\":[\"user\"]}}"
        } else {
            "{\"active\":false}"
        };
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}", json.len())
    });
    let session = Ask::new("example.com", "/chat?access_token=good&a=1").open(proxy.addr);
    assert_eq!(
        (session.target(), session.field("x-user"), session.field("x-name")),
        ("/chat?a=1", Some("f81d"), Some("ada"))
    );
    let bearer = "Authorization: Bearer good\r\n";
    assert_eq!(Ask::new("example.com", "/moderation").with(bearer).status(proxy.addr), 403);
    assert_eq!(Ask::new("example.com", "/chat").with("Authorization: Bearer bad\r\n").status(proxy.addr), 401);
    assert_eq!(Ask::new("example.com", "/chat").status(proxy.addr), 401);
    server.join().unwrap();
}
