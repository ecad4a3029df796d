//! Headers that a route sets, adds and removes, in both directions.

use super::*;
use std::io::Read;

const ROUTE: &str = r#"
    [[route]]
    name = "chat"
    protocols = ["websocket"]
    upstream = "UPSTREAM"
    [route.request_headers]
    remove = ["X-Debug", "cookie"]
    set = { X-Tenant = "{query.tenant}", Authorization = "Bearer {query.token}", X-Agent = "{header.user-agent}" }
    add = { X-App = ["{{{method}}} {host} {path}", "two"], X-Id = "{request_id} {route} {client_ip}" }
    [route.response_headers]
    remove = ["server"]
    set = { X-Route = "{route}" }
    add = { Set-Cookie = ["seen={cookie.id}; Path=/", "a=b"] }
"#;

#[test]
fn fields_of_both_directions_are_edited() {
    let (proxy, listener) = start(ROUTE);
    let more = "X-DEBUG: 1\r\nx-app: theirs\r\nX-Tenant: forged\r\nx-tenant: twice\r\nCookie: x=1; id=7\r\n\
                User-Agent: me/1\r\nConnection: X-Tenant, Authorization-Not\r\n";
    let sent = request("/a%20b?tenant=blue+%C3%A9&token=t.%2B%3D", more);
    let answer = switching("Server: x\r\nX-Route: theirs\r\nSet-Cookie: up=1\r\n");
    let (forwarded, head) = exchange(&proxy, &listener, &sent, &answer);
    assert_eq!(values(&forwarded, "x-debug"), [""; 0]);
    assert_eq!(values(&forwarded, "cookie"), [""; 0]);
    assert_eq!(values(&forwarded, "x-tenant"), ["blue \u{e9}"]);
    assert_eq!(values(&forwarded, "authorization"), ["Bearer t.+="]);
    assert_eq!(values(&forwarded, "x-agent"), ["me/1"]);
    assert_eq!(values(&forwarded, "x-app"), ["theirs", "{GET} example.com /a%20b", "two"]);
    let id = values(&forwarded, "x-request-id")[0];
    assert_eq!(values(&forwarded, "x-id"), [format!("{id} chat 127.0.0.1")]);
    assert_eq!(values(&head, "server"), [""; 0]);
    assert_eq!(values(&head, "x-route"), ["chat"]);
    assert_eq!(values(&head, "set-cookie"), ["up=1", "seen=7; Path=/", "a=b"]);
    assert_eq!(values(&head, "sec-websocket-accept"), [common::ACCEPT]);
}

#[test]
fn responses_that_are_not_a_101_are_edited_and_refusals_are_not() {
    let (proxy, listener) = start(ROUTE);
    let answer = "HTTP/1.1 401 No\r\nServer: x\r\nX-Route: theirs\r\nContent-Length: 2\r\n\r\nno";
    let (forwarded, head) = exchange(&proxy, &listener, &request("/", "Cookie: id=7\r\nX-Tenant: forged\r\n"), answer);
    // What a request does not have is not sent, not even with the text around it.
    assert_eq!(values(&forwarded, "x-tenant"), [""; 0]);
    assert_eq!(values(&forwarded, "authorization"), [""; 0]);
    assert_eq!(head[0], "HTTP/1.1 401 No");
    assert_eq!(values(&head, "server"), [""; 0]);
    assert_eq!(values(&head, "x-route"), ["chat"]);
    assert_eq!(values(&head, "set-cookie"), ["seen=7; Path=/", "a=b"]);
    assert_eq!(values(&head, "content-length"), ["2"]);
    let (refused, _) = answer_to(proxy.addr, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(refused[0], "HTTP/1.1 426 Upgrade Required");
    assert_eq!(values(&refused, "x-route"), [""; 0]);
}

#[test]
fn the_session_goes_on_behind_an_edited_101() {
    let (proxy, listener) = start(ROUTE);
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    let frame = common::plain(0x82, b"glued");
    upstream.write_all(&[switching("").as_bytes(), &frame].concat()).unwrap();
    assert!(read_head(&client).contains("\r\nX-Route: chat\r\n"));
    let mut got = vec![0; frame.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, frame);
}

#[test]
fn no_value_of_a_client_begins_a_line() {
    let (proxy, listener) = start(ROUTE);
    for hostile in ["%0d%0aX-Evil:%201", "a%0aX-Evil:1", "%00%0d%0a%0d%0aGET%20/%20HTTP/1.1", "%7f%1b%0b%08", "%0d"] {
        let target = format!("/?tenant={hostile}&token={hostile}");
        let (forwarded, head) = exchange(&proxy, &listener, &request(&target, ""), &switching(""));
        for line in forwarded.iter().chain(&head) {
            assert!(!line.chars().any(|c| c.is_control()), "{line:?}");
            assert!(!line.starts_with("X-Evil"), "{line:?}");
        }
        assert_eq!(values(&forwarded, "host"), ["example.com"]);
    }
}
