//! Who gets in, through real sockets: origins, lists of addresses, and a file of denied addresses
//! that changes while sessions live.

mod common;

use common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The status of the answer to a request with these header lines, from this local address.
#[track_caller]
fn status_from(proxy: SocketAddr, from: [u8; 4], more: &str) -> u16 {
    let mut client = connect_from(from, proxy);
    client.write_all(request("/", more).as_bytes()).unwrap();
    status_of(&client)
}

#[track_caller]
fn status_of(client: &TcpStream) -> u16 {
    let head = read_head(client);
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The connection is closed without a byte, whatever is sent.
#[track_caller]
fn assert_closed_at_accept(mut client: &TcpStream) {
    // It may be closed by now.
    let _ = client.write_all(request("/", "").as_bytes());
    let mut byte = [0];
    match client.read(&mut byte) {
        Ok(0) => {}
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused_with(proxy: &Proxy, cause: &str, times: f64) {
    let metric = format!("framegate_handshakes_total{{outcome=\"{cause}\"}}");
    eventually(&format!("{times} of {cause}"), || (proxy.metric(&metric) == times).then_some(()));
}

const A: [u8; 4] = [127, 0, 0, 1];
const B: [u8; 4] = [127, 0, 0, 2];
const C: [u8; 4] = [127, 0, 0, 3];

#[test]
fn listed_origins_get_in_and_others_get_403() {
    let origins = "origins = [\"https://app.example\", \"https://*.apps.example\", \"null\"]";
    let proxy = Proxy::before(welcoming(), origins);
    let rows = [
        ("Origin: https://app.example\r\n", 101),
        ("ORIGIN: HTTPS://App.Example:443\r\n", 101),
        ("Origin: https://a.b.apps.example\r\nCookie: a=b\r\n", 101),
        ("Origin: null\r\n", 101),
        ("", 403),
        ("Origin:\r\n", 403),
        ("Origin: https://apps.example\r\n", 403),
        ("Origin: https://evilapps.example\r\n", 403),
        ("Origin: http://app.example\r\n", 403),
        ("Origin: https://app.example/\r\n", 403),
        ("Origin: https://app.example.evil.net\r\n", 403),
        ("Origin: https://app.example\r\nOrigin: https://app.example\r\n", 403),
        ("Origin: https://evil.net, https://app.example\r\n", 403),
        ("X-Origin: https://app.example\r\n", 403),
        // Connection must not take the field away.
        ("Origin: https://evil.net\r\nConnection: Origin\r\n", 400),
    ];
    for (fields, status) in rows {
        assert_eq!(status_from(proxy.addr, A, fields), status, "{fields:?}");
    }
    refused_with(&proxy, "origin-refused", rows.iter().filter(|(_, status)| *status == 403).count() as f64);
    let refused = proxy.log.wait_for("cause=origin-refused");
    assert_eq!(verdict(&refused), "ended_by=downstream phase=request cause=origin-refused status=403");
}

#[test]
fn a_refusal_shows_nothing_of_the_request() {
    let proxy = Proxy::before(welcoming(), "origins = [\"https://app.example\"]");
    let answer = http(proxy.addr, &request("/", "Origin: https://evil.example\r\nCookie: secret=1\r\n"));
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(!answer.contains("evil") && !answer.contains("secret") && !answer.contains("app.example"), "{answer}");
}

#[test]
fn cookies_from_another_host_are_refused_unless_the_route_says_otherwise() {
    let toml = before(welcoming(), "path = \"/\"").replace(
        "[[route]]",
        "[[route]]\npath = \"/page\"\nrespond = { body = \"hello\" }\n[[route]]\npath = \"/own\"\n\
         origins = [\"https://a.example\"]\nrespond = { body = \"hello\" }\n[[route]]",
    );
    let open_to_all = toml.replace("path = \"/\"", "origins = [\"*\"]");
    let proxy = Proxy::start(&toml);
    // `request` has Host: example.com.
    let foreign = "Origin: https://evil.example\r\nCookie: session=1\r\n";
    let rows = [
        (foreign, 403),
        ("Cookie: session=1\r\nOrigin: null\r\n", 403),
        ("Cookie: session=1\r\nOrigin: https://example.com.evil.net\r\n", 403),
        ("Cookie: session=1\r\nOrigin: https://example.com\r\nOrigin: https://example.com\r\n", 403),
        ("Cookie: session=1\r\nOrigin: https://example.com\r\n", 101),
        ("Cookie: session=1\r\n", 101),
        ("Origin: https://evil.example\r\n", 101),
        // What a stranger says of the host does not count.
        ("Cookie: session=1\r\nOrigin: https://evil.example\r\nX-Forwarded-Host: evil.example\r\n", 403),
    ];
    for (fields, status) in rows {
        assert_eq!(status_from(proxy.addr, A, fields), status, "{fields:?}");
    }
    refused_with(&proxy, "origin-cross-site", 5.0);
    // Routes that answer themselves are judged where they have a list.
    for (path, status) in [("/page", 200), ("/own", 403)] {
        let answer = http(proxy.addr, &request(path, foreign));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let proxy = Proxy::start(&open_to_all);
    assert_eq!(status_from(proxy.addr, A, foreign), 101);
    assert_eq!(status_from(proxy.addr, A, "Origin: x\r\nOrigin: y\r\nCookie: a=b\r\n"), 101);
}

/// One listener with these keys, and one route with those.
fn config(upstream: SocketAddr, listener: &str, route: &str) -> String {
    before(upstream, route).replacen("[[route]]", &format!("{listener}\n[[route]]"), 1)
}

#[test]
fn denied_peers_are_closed_at_accept() {
    let proxy = Proxy::start(&config(welcoming(), "deny = [\"127.0.0.2\", \"::ffff:127.0.0.3\"]", ""));
    for from in [B, C] {
        assert_closed_at_accept(&connect_from(from, proxy.addr));
    }
    assert_eq!(status_from(proxy.addr, A, ""), 101);
    refused_with(&proxy, "peer-refused", 2.0);
    assert_eq!(proxy.metric("framegate_handshakes"), 0.0);
    let line = proxy.log.wait_for("cause=peer-refused");
    assert!(verdict(&line).starts_with("ended_by=downstream phase=request cause=peer-refused"), "{line}");
    assert!(field(&line, "client").unwrap().starts_with("127.0.0.2:"), "{line}");
}

#[test]
fn denied_peers_are_closed_before_tls() {
    let tls = format!("tls = {{ certificates = [{}] }}", pki::PKI.server().toml());
    let proxy = Proxy::start(&config(welcoming(), &format!("deny = [\"127.0.0.2\"]\n{tls}"), ""));
    assert_closed_at_accept(&connect_from(B, proxy.addr));
    refused_with(&proxy, "peer-refused", 1.0);
    assert_eq!(proxy.metric("framegate_tls_handshakes_total{side=\"downstream\",outcome=\"failed\"}"), 0.0);
}

#[test]
fn an_allow_list_refuses_all_others_and_deny_is_stronger() {
    let lists = "allow = [\"127.0.0.0/30\"]\ndeny = [\"127.0.0.2\"]";
    let proxy = Proxy::start(&config(welcoming(), lists, ""));
    assert_eq!(status_from(proxy.addr, A, ""), 101);
    assert_eq!(status_from(proxy.addr, C, ""), 101);
    assert_closed_at_accept(&connect_from(B, proxy.addr));
    assert_closed_at_accept(&connect_from([127, 0, 0, 4], proxy.addr));
    let proxy = Proxy::before(welcoming(), lists);
    for (from, status) in [(A, 101), (C, 101), (B, 403), ([127, 0, 0, 4], 403)] {
        assert_eq!(status_from(proxy.addr, from, ""), status, "{from:?}");
    }
    refused_with(&proxy, "address-refused", 2.0);
}

/// The client that a request names, by a stranger and by a trusted proxy.
const NAMED: [(&str, bool); 8] = [
    ("X-Forwarded-For: 203.0.113.7\r\n", true),
    ("X-Forwarded-For: ::ffff:203.0.113.7\r\n", true),
    ("X-Forwarded-For: 198.51.100.1, 203.0.113.7\r\n", true),
    ("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.8\r\n", true),
    // The last one that is no trusted proxy is the client.
    ("X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n", false),
    ("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 198.51.100.1\r\n", false),
    ("X-Forwarded-For: 203.0.113.7, nonsense\r\n", false),
    ("", false),
];

#[test]
fn clients_named_by_a_trusted_proxy_are_judged_and_strangers_name_nobody() {
    let allow = "allow = [\"203.0.113.0/24\"]";
    let trusts = "trusted_proxies = [\"127.0.0.1\"]";
    let proxies = [
        // Lists of the listener, with the client; lists of the route.
        Proxy::start(&config(welcoming(), &format!("{trusts}\n{allow}"), "")),
        Proxy::start(&config(welcoming(), trusts, allow)),
    ];
    for (proxy, closed) in proxies.iter().zip([true, false]) {
        for (fields, admitted) in NAMED {
            let expected = if admitted { 101 } else { 403 };
            assert_eq!(status_from(proxy.addr, A, fields), expected, "{fields:?}");
            // The same from a peer that is not trusted.
            if closed {
                assert_closed_at_accept(&connect_from(B, proxy.addr));
            } else {
                assert_eq!(status_from(proxy.addr, B, fields), 403, "{fields:?}");
            }
        }
        let (trusted, strangers) = (4.0, NAMED.len() as f64);
        refused_with(proxy, "peer-refused", if closed { strangers } else { 0.0 });
        refused_with(proxy, "address-refused", if closed { trusted } else { trusted + strangers });
    }
    // A denied client does not hide behind names.
    let proxy = Proxy::before(welcoming(), "deny = [\"127.0.0.2\"]");
    for field in ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP"] {
        let value = if field == "Forwarded" { "for=203.0.113.7" } else { "203.0.113.7" };
        assert_eq!(status_from(proxy.addr, B, &format!("{field}: {value}\r\n")), 403, "{field}");
    }
}

#[test]
fn addresses_of_the_listener_come_before_its_redirect_and_the_routes() {
    let listener = "trusted_proxies = [\"127.0.0.1\"]\ndeny = [\"203.0.113.0/24\"]\nredirect = \"https\"";
    let proxy = Proxy::start(&config(welcoming(), listener, "path = \"/only\""));
    assert_eq!(status_from(proxy.addr, A, "X-Forwarded-For: 203.0.113.7\r\n"), 403);
    assert_eq!(status_from(proxy.addr, A, "X-Forwarded-For: 198.51.100.7\r\n"), 308);
}

/// A file with denied addresses, which is replaced as a whole.
struct Denied(PathBuf);

impl Denied {
    fn new(text: &str) -> Denied {
        let denied = Denied(temp_path("txt"));
        std::fs::write(&denied.0, text).unwrap();
        denied
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn replace(&self, text: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for Denied {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// Waits until the status for `from` is this one; how long it took.
fn until(proxy: &Proxy, from: [u8; 4], status: u16) -> Duration {
    let begun = Instant::now();
    eventually(&format!("{status} for {from:?}"), || (status_from(proxy.addr, from, "") == status).then_some(()));
    begun.elapsed()
}

fn metric(proxy: &Proxy, name: &str, denied: &Denied) -> f64 {
    proxy.metric(&format!("framegate_deny_file_{name}{{file=\"{}\"}}", denied.path().display()))
}

#[test]
fn a_changed_deny_file_is_in_force_in_every_worker_and_sessions_stay() {
    let (listener, addr) = listen();
    let denied = Denied::new("127.0.0.9\n");
    let toml = before(addr, &format!("deny_file = {:?}", denied.path())).replace("count = 1", "count = 3");
    let proxy = Proxy::start(&toml);
    let (mut client, mut upstream) = open(&proxy, &listener);
    welcome_all(listener);
    denied.replace("# now\n127.0.0.0/8\n10.0.0.0/8\n");
    let took = until(&proxy, B, 403);
    // A busy machine may be slow, but a second that is asked for is not two.
    assert!(took < Duration::from_millis(1_900), "{took:?}");
    // Every worker has it: the kernel spreads connections over their listeners.
    (0..60).for_each(|_| assert_eq!(status_from(proxy.addr, B, ""), 403));
    assert_eq!((metric(&proxy, "networks", &denied), metric(&proxy, "failures_total", &denied)), (2.0, 0.0));
    assert!(metric(&proxy, "age_seconds", &denied) < 60.0);
    // The session that was established before is still there, both ways.
    let up = masked(0x81, b"still here");
    client.write_all(&up).unwrap();
    assert_eq!(read_exact(&upstream, up.len()), up);
    let down = plain(0x81, b"yes");
    upstream.write_all(&down).unwrap();
    assert_eq!(read_exact(&client, down.len()), down);
    denied.replace("10.0.0.0/8\n");
    until(&proxy, B, 101);
}

#[test]
fn a_listener_closes_connections_by_the_file() {
    let denied = Denied::new("127.0.0.2\n");
    let proxy = Proxy::start(&config(welcoming(), &format!("deny_file = {:?}", denied.path()), ""));
    assert_closed_at_accept(&connect_from(B, proxy.addr));
    assert_eq!(status_from(proxy.addr, A, ""), 101);
    denied.replace("127.0.0.3\n");
    eventually("the change is in force", || {
        proxy.said.all().iter().find(|line| line.contains("denies 1 networks")).map(drop)
    });
    assert_closed_at_accept(&connect_from(C, proxy.addr));
    assert_eq!(status_from(proxy.addr, B, ""), 101);
}

#[test]
fn a_bad_line_or_a_missing_file_leaves_the_old_list_in_force() {
    let denied = Denied::new("127.0.0.2\n");
    let proxy = Proxy::before(welcoming(), &format!("deny_file = {:?}", denied.path()));
    until(&proxy, B, 403);
    denied.replace("127.0.0.3\n127.0.0.4/99 # a typo\n");
    let error = proxy.said.wait_for("the old list stays in force");
    let place = format!("{}:2: ", denied.path().display());
    assert!(error.contains("ERROR") && error.contains(&place) && error.contains("127.0.0.4/99"), "{error}");
    assert_eq!((status_from(proxy.addr, B, ""), status_from(proxy.addr, C, "")), (403, 101));
    assert!(metric(&proxy, "failures_total", &denied) >= 1.0);
    std::fs::remove_file(denied.path()).unwrap();
    proxy.said.wait_for("cannot be read");
    assert_eq!(status_from(proxy.addr, B, ""), 403);
    // A reload with it is refused as a whole.
    proxy.signal("HUP");
    let refused = proxy.said.wait_for("reload failed");
    assert!(refused.contains("route.deny_file"), "{refused}");
    assert_eq!(status_from(proxy.addr, B, ""), 403);
    denied.replace("127.0.0.3\n");
    until(&proxy, C, 403);
    assert_eq!(status_from(proxy.addr, B, ""), 101);
    proxy.signal("HUP");
    proxy.said.wait_for("configuration reloaded");
    denied.replace("127.0.0.2\n");
    until(&proxy, B, 403);
    proxy.log.wait_for("cause=address-refused");
}
