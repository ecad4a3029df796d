//! The cookie that brings a client back to its endpoint.

use crate::common::*;
use crate::rig::*;

const COOKIE: &str = "sticky = { cookie = \"fg\", secret = \"a secret of this test\", path = \"/app\", \
                      same_site = \"strict\", max_age = \"1h\" }";

/// Name and value of the cookie that the client gets.
fn cookie(client: &Client) -> String {
    let text = client.field("Set-Cookie").unwrap_or_else(|| panic!("no cookie in {}", client.head));
    text.split(';').next().unwrap().to_owned()
}

fn with(cookie: &str) -> String {
    format!("Cookie: theme=dark; {cookie}; x=y\r\n")
}

#[test]
fn a_client_comes_back_to_its_endpoint() {
    let backends = Backend::several(4);
    let proxy = Proxy::start(&config(&backends, "", COOKIE));
    let first = session(&proxy);
    let (home, cookie) = (first.backend(), cookie(&first));
    let id = cookie.strip_prefix("fg=").unwrap();
    let attributes = first.field("Set-Cookie").unwrap().split_once("; ").unwrap().1;
    assert_eq!(attributes, "Path=/app; HttpOnly; SameSite=strict; Max-Age=3600");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    for backend in &backends {
        let shown = [backend.addr.to_string(), format!("{:x}", backend.addr.port()), hex(&backend.addr.to_string())];
        assert!(shown.iter().all(|shown| !id.contains(shown.as_str())), "an address in {id}");
    }
    for _ in 0..6 {
        let back = visit(&proxy, "/", &with(&cookie));
        assert_eq!((back.status(), back.backend(), back.field("Set-Cookie")), (101, home, None));
    }
    let strange = visit(&proxy, "/", &with("fg=00000000000000000000000000000000"));
    assert!(strange.field("Set-Cookie").is_some(), "one that names no endpoint is replaced");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_client_whose_endpoint_is_lost_moves_and_gets_another_cookie() {
    let mut backends = Backend::several(3);
    let proxy = Proxy::start(&config(&backends, "", COOKIE));
    let first = session(&proxy);
    let (home, old) = (first.backend(), cookie(&first));
    assert_eq!(order(&proxy, &backends[home], "drain"), "drained");
    let moved = visit(&proxy, "/", &with(&old));
    let (other, new) = (moved.backend(), cookie(&moved));
    assert!(other != home && new != old);
    assert_eq!(visit(&proxy, "/", &with(&new)).backend(), other);
    assert_eq!(order(&proxy, &backends[home], "ready"), "up");
    let back = visit(&proxy, "/", &with(&old));
    assert_eq!((back.backend(), back.field("Set-Cookie")), (home, None));
    // It refuses connections: the same handshake goes elsewhere.
    backends[home].stop();
    let moved = visit(&proxy, "/", &with(&old));
    assert!(moved.backend() != home && cookie(&moved) != old);
}

#[test]
fn cookies_outlive_a_reload() {
    let backends = Backend::several(5);
    for rules in [COOKIE, "sticky = { cookie = \"fg\" }"] {
        let proxy = Proxy::start(&config(&backends[..4], "", rules));
        let first = session(&proxy);
        reload(&proxy, &config(&backends, "", rules));
        let back = visit(&proxy, "/", &with(&cookie(&first)));
        assert_eq!((back.backend(), back.field("Set-Cookie")), (first.backend(), None), "{rules}");
    }
}
