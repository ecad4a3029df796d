//! `examples/access`: who gets in.

use crate::common::jwt::{SECRET, signed};
use crate::common::pki::{PKI, Pair, provider};
use crate::common::*;
use crate::rig::*;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

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

const MESSAGES: &str = "framegate_frames_total{from=\"downstream\",opcode=\"text\"}";

#[test]
fn a_hundred_messages_in_a_minute() {
    let chat = Backend::start("chat");
    let example = Example::framegate("access/message-rate.toml").backends(&[("10.0.0.61:9000", &chat)]);
    let proxy = one_worker(example).start();
    let ask = Ask::new("chat.example.com", "/chat/1");
    let say = |mut client: &TcpStream| client.write_all(&masked(0x81, b"hello")).unwrap();
    let passed = |number: f64| eventually("they pass", || (proxy.metric(MESSAGES) == number).then_some(()));
    // Three sessions have as many messages as they may, and then the address has had its own.
    for n in 1..=3 {
        let client = ask.open(proxy.addr).stream;
        (0..100).for_each(|_| say(&client));
        passed(f64::from(n) * 100.0);
        say(&client);
        assert_eq!(read_close(&client), (4003, "too many messages".into()));
    }
    let mut client = ask.open(proxy.addr).stream;
    client.write_all(&masked(0x81, b"hello").repeat(100)).unwrap();
    assert_eq!(read_close(&client), (4003, "too many messages".into()));
    drop(client);
    let before = settled(&proxy);
    // Another address.
    let mut other = connect_from([127, 0, 0, 2], proxy.addr);
    other.write_all(request("/chat/1", "").as_bytes()).unwrap();
    let other = Session::begun(other).stream;
    (0..100).for_each(|_| say(&other));
    passed(before + 100.0);
    eventually("one session is left", || (proxy.metric("framegate_sessions{worker=\"0\"}") == 1.0).then_some(()));
    let _sessions: Vec<_> = (0..10).map(|_| ask.open(proxy.addr)).collect();
    assert_eq!(ask.status(proxy.addr), 429);
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// The messages that have passed, once the counts of all that have ended are in.
fn settled(proxy: &Proxy) -> f64 {
    eventually("four sessions have ended", || {
        let metric = "framegate_sessions_ended_total{cause=\"message-rate\",ended_by=\"downstream\"}";
        (proxy.metric(metric) == 4.0).then(|| proxy.metric(MESSAGES))
    })
}

/// A request over TLS with this certificate; the head of its response, or the error of TLS.
fn ask_with(proxy: &Proxy, device: Option<&Pair>) -> std::io::Result<(Secure, String)> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(PKI.roots());
    let config = match device.map(Pair::der) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(tls, connect(proxy.addr));
    stream.write_all(request("/telemetry", "X-Device: CN=root\r\n").as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok((stream, String::from_utf8(head).unwrap()))
}

#[test]
fn devices_with_certificates() {
    let telemetry = Backend::start("telemetry");
    let example = Example::file("access/mtls-devices.toml").backends(&[("10.0.0.71:9000", &telemetry)]);
    let mut example = example.swap("0.0.0.0:8443", "127.0.0.1:0").swap("127.0.0.1:9901", "127.0.0.1:0");
    example.text = with_certificates(&example.text);
    let proxy = one_worker(example).start();
    let [first, second] = ["device-1", "device-2"].map(|name| PKI.client(name));
    // Without a certificate of the CA there is no connection.
    for device in [None, Some(&PKI.expired("device-3", &[]))] {
        assert!(ask_with(&proxy, device).is_err(), "{device:?}");
    }
    let status = |device| ask_with(&proxy, Some(device)).map(|(stream, head)| (stream, status_of(&head))).unwrap();
    let (mut one, answer) = ask_with(&proxy, Some(&first)).unwrap();
    assert_eq!(status_of(&answer), 101);
    // The backend says what it has received, in a frame of 16 bits length.
    let (mut header, mut received) = ([0; 4], Vec::new());
    one.read_exact(&mut header).unwrap();
    received.resize(usize::from(u16::from_be_bytes([header[2], header[3]])), 0);
    one.read_exact(&mut received).unwrap();
    let received = String::from_utf8(received).unwrap();
    assert!(received.contains("\r\nX-Device: CN=device-1\r\n") && !received.contains("root"), "{received}");
    let _another = status(&first);
    assert_eq!(_another.1, 101);
    for cause in ["identity-sessions", "identity-sessions", "identity-rate"] {
        assert_eq!(status(&first).1, 429);
        proxy.log.wait_for(&format!("cause={cause}"));
    }
    assert_eq!(status(&second).1, 101);
}

#[test]
fn tokens_in_the_query_are_renewed_in_the_session() {
    let (backend, secret) = (Backend::start("live"), temp_path("key"));
    std::fs::write(&secret, SECRET).unwrap();
    let example = Example::file("token-in-query/framegate.toml")
        .swap("0.0.0.0:8080", "127.0.0.1:0")
        .backends(&[("127.0.0.1:9000", &backend)]);
    let of_issuer = "jwks_url = \"https://login.example.com/.well-known/jwks.json\"";
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    let mut example = one_worker(example.swap(of_issuer, &format!("keys = [{{ secret_file = {secret:?} }}]")));
    example.text += admin;
    let proxy = example.start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |user: &str, seconds: u64| {
        signed(&format!(
            "{{\"iss\":\"https://login.example.com\",\"aud\":\"chat\",\"sub\":\"{user}\",\"tenant\":\"acme\",\
             \"scope\":\"chat\",\"exp\":{}}}",
            now + seconds
        ))
    };
    let hears = |session: &Session| String::from_utf8(read_frame(&session.stream).1).unwrap();
    let target = format!("/live?room=1&access_token={}", token("ada", 600));
    let mut session = Ask::new("example.com", &target).open(proxy.addr);
    assert_eq!((session.target(), session.field("x-user")), ("/live?room=1", Some("ada")));
    let refresh = format!("{{\"type\":\"auth\",\"token\":\"{}\"}}", token("ada", 30));
    session.stream.write_all(&masked(0x81, refresh.as_bytes())).unwrap();
    assert_eq!(hears(&session), "{\"type\":\"auth\",\"ok\":true}");
    let warning = hears(&session);
    assert!(warning.starts_with("{\"type\":\"token-expires\",\"seconds\":"), "{warning}");
    for (order, close) in [("revoke?subject=ada", 4002), ("extend?subject=eve&until=1000", 4001)] {
        let target = format!("/live?access_token={}", token(if close == 4001 { "eve" } else { "ada" }, 600));
        let other = Ask::new("example.com", &target).open(proxy.addr);
        let ordered = http(proxy.admin(), &format!("POST /{order} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(ordered.starts_with("HTTP/1.1 200 "), "{ordered}");
        assert_eq!(read_close(&other.stream).0, close, "{order}");
    }
    assert_eq!(read_close(&session.stream).0, 4002, "by the order about its client");
}
