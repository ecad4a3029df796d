//! Responses of a route's own: any request gets them, none goes to an upstream.

use super::*;
use common::{End, field, verdict};

/// The last request of its client.
fn plain(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: Example.com:8080\r\nConnection: close\r\n{more}\r\n")
}

const RESPOND: &str = r#"
    [[route]]
    name = "health"
    path = "/health"
    respond = { body = "ok\n", headers = { Cache-Control = "no-store", X-Id = "{request_id}" } }
    [[route]]
    path = "/down/*"
    respond = { status = 503, body = "<p>later", content_type = "text/html", headers = { Retry-After = "120" } }
    [[route]]
    path = "/none"
    respond = { status = 204 }
    [[route]]
    path = "/empty"
    respond = { status = 404 }
"#;

#[test]
fn any_request_gets_the_response_of_its_route() {
    let (mut proxy, _listener) = start(RESPOND);
    let upgrade = request("/health", "");
    for sent in
        [plain("GET", "/health?x=y", ""), plain("DELETE", "/health", ""), plain("OPTIONS", "/%68ealth", ""), upgrade]
    {
        let (head, body) = answer_to(proxy.addr, sent.as_bytes());
        assert_eq!(head[0], "HTTP/1.1 200 OK", "{sent}");
        assert_eq!(values(&head, "content-type"), ["text/plain; charset=utf-8"]);
        assert_eq!(values(&head, "content-length"), ["3"]);
        assert_eq!(values(&head, "cache-control"), ["no-store"]);
        assert_eq!(values(&head, "connection"), ["close"]);
        assert_eq!(values(&head, "x-id"), values(&head, "x-request-id"));
        assert_eq!(body, "ok\n");
    }
    let (head, body) = answer_to(proxy.addr, plain("GET", "/down/x", "").as_bytes());
    assert_eq!(head[0], "HTTP/1.1 503 Service Unavailable");
    assert_eq!(values(&head, "content-type"), ["text/html"]);
    assert_eq!(values(&head, "retry-after"), ["120"]);
    assert_eq!(body, "<p>later");
    let (head, body) = answer_to(proxy.addr, plain("GET", "/none", "").as_bytes());
    assert_eq!((head[0].as_str(), body.as_str()), ("HTTP/1.1 204 No Content", ""));
    assert_eq!(values(&head, "content-length"), [""; 0]);
    let (head, body) = answer_to(proxy.addr, plain("GET", "/empty", "").as_bytes());
    assert_eq!((head[0].as_str(), body.as_str()), ("HTTP/1.1 404 Not Found", ""));
    assert_eq!(values(&head, "content-length"), ["0"]);
    assert_eq!(values(&head, "content-type"), [""; 0]);
    // The rules of HTTP come before any route.
    let (head, _) = answer_to(proxy.addr, b"GET /health HTTP/1.1\r\n\r\n");
    assert_eq!(head[0], "HTTP/1.1 400 Bad Request");
    let refused = "framegate_handshakes_total{outcome=\"responded\"}";
    common::eventually("all are counted", || (proxy.metric(refused) == 7.0).then_some(()));
    let lines = proxy.stop();
    let health: Vec<_> = lines.iter().filter(|line| field(line, "route") == Some("health")).collect();
    assert_eq!(health.len(), 4);
    for line in health {
        assert!(verdict(line).starts_with("ended_by=proxy phase=request cause=responded status=200"), "{line}");
    }
    assert!(lines.iter().any(|line| verdict(line).contains("cause=responded status=503")), "{lines:?}");
}

#[test]
fn head_gets_the_fields_and_no_body() {
    let (proxy, _listener) = start(RESPOND);
    let (head, body) = answer_to(proxy.addr, plain("HEAD", "/health", "").as_bytes());
    assert_eq!((head[0].as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
    assert_eq!(values(&head, "content-length"), ["3"]);
}

#[test]
fn a_body_that_is_not_read_does_not_cost_the_response() {
    let (proxy, _listener) = start(RESPOND);
    for (len, framing) in [
        (5, "Content-Length: 5\r\n"),
        (5, "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"),
        (60_000, "Content-Length: 60000\r\n"),
        // More than is drained, and more than the sockets hold: the client reads before it is done.
        (30_000_000, "Content-Length: 30000000\r\n"),
    ] {
        let mut client = connect(proxy.addr);
        client.write_all(plain("POST", "/health", framing).as_bytes()).unwrap();
        let mut writer = client.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            // Fails once the proxy has closed: that is the client's body, not the response.
            let _ = writer.write_all(&vec![b'x'; len]);
        });
        let head = read_head(&client);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(common::read_exact(&client, 3), b"ok\n");
        let (rest, end) = read_all(&client);
        assert!(rest.is_empty() && end == End::Fin, "{len}: {end:?}");
        client.shutdown(std::net::Shutdown::Both).ok();
        writing.join().unwrap();
    }
}

#[test]
fn a_client_that_sends_all_before_it_reads_gets_its_response() {
    let (proxy, _listener) = start(RESPOND);
    let mut client = connect(proxy.addr);
    let body = vec![b'x'; 200_000];
    client.write_all(plain("POST", "/health", "Content-Length: 200000\r\n").as_bytes()).unwrap();
    client.write_all(&body).unwrap();
    let (answer, end) = read_all(&client);
    assert!(answer.ends_with(b"\r\n\r\nok\n"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(end, End::Fin);
}

#[test]
fn a_body_comes_from_a_file_and_a_reload_reads_it_again() {
    let path = common::temp_path("html");
    std::fs::write(&path, "one").unwrap();
    let routes = format!("[[route]]\nrespond = {{ status = 503, file = {path:?}, content_type = \"text/html\" }}\n");
    let (proxy, _listener) = start(&routes);
    assert_eq!(answer_to(proxy.addr, plain("GET", "/", "").as_bytes()).1, "one");
    std::fs::write(&path, "two").unwrap();
    assert_eq!(answer_to(proxy.addr, plain("GET", "/", "").as_bytes()).1, "one");
    proxy.signal("HUP");
    common::eventually("the new body", || {
        (answer_to(proxy.addr, plain("GET", "/", "").as_bytes()).1 == "two").then_some(())
    });
}

#[test]
fn redirects_lead_where_the_route_says() {
    let (mut proxy, _listener) = start(
        r#"
        [[route]]
        path = "/full/*"
        redirect = { location = "https://{host}{path}{query}" }
        [[route]]
        path = "/found/*"
        redirect = { status = 302, location = "https://new.example:8443/at?q={query.q}" }
        [[route]]
        redirect = { status = 301, location = "{path}{query}" }
        "#,
    );
    for (target, status, location) in [
        ("/full/a%2fb?x=%0d", "308 Permanent Redirect", "https://example.com/full/a%2fb?x=%0d"),
        ("/found/x?q=a%0d%0aSet-Cookie:%20x&y", "302 Found", "https://new.example:8443/at?q=a%0D%0ASet-Cookie%3A%20x"),
        ("//evil.example/x", "301 Moved Permanently", "/evil.example/x"),
        ("///evil.example", "301 Moved Permanently", "/evil.example"),
        ("http://Example.com:8080?q", "301 Moved Permanently", "/?q"),
        ("/%09/evil", "301 Moved Permanently", "/%09/evil"),
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let (head, body) = answer_to(proxy.addr, plain(method, target, "").as_bytes());
            assert_eq!(head[0], format!("HTTP/1.1 {status}"), "{method} {target}");
            assert_eq!(values(&head, "location"), [location], "{method} {target}");
            assert_eq!(body.is_empty(), method == "HEAD");
        }
    }
    let lines = proxy.stop();
    assert!(verdict(&lines[0]).contains("cause=redirected status=308"), "{}", lines[0]);
    assert!(lines.iter().any(|line| verdict(line).contains("cause=redirected status=302")));
}

/// The next response on a connection that lives on.
fn next_answer(client: &std::net::TcpStream, has_body: bool) -> (String, String) {
    let head = read_head(client);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
    let body = common::read_exact(client, if has_body { length } else { 0 });
    (head, String::from_utf8(body).unwrap())
}

fn kept(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

#[test]
fn a_connection_lives_on_behind_the_response_to_any_method() {
    let (mut proxy, _listener) = start(RESPOND);
    let mut client = connect(proxy.addr);
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let more = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        client.write_all(kept(method, "/health", more).as_bytes()).unwrap();
        let (head, body) = next_answer(&client, method != "HEAD");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("\r\nConnection:"), "{method}: {head}");
        assert!(head.contains("\r\nContent-Length: 3\r\n") && head.contains("\r\nX-Request-Id: "), "{method}: {head}");
        assert_eq!(body, if method == "HEAD" { "" } else { "ok\n" }, "{method}");
    }
    // Sent ahead, they are answered in their order.
    let ahead = ["/health", "/none", "/down/x", "/empty", "/health"].map(|target| kept("GET", target, "")).concat();
    client.write_all(ahead.as_bytes()).unwrap();
    let status = |(head, body): (String, String)| (head[9..12].to_owned(), body);
    for (code, body) in [("200", "ok\n"), ("204", ""), ("503", "<p>later"), ("404", ""), ("200", "ok\n")] {
        assert_eq!(status(next_answer(&client, true)), (code.to_owned(), body.to_owned()));
    }
    // One with a body is the last, and so is one that says so.
    client.write_all(kept("POST", "/health", "Content-Length: 5\r\n").as_bytes()).unwrap();
    client.write_all(b"hello").unwrap();
    let (head, body) = next_answer(&client, true);
    assert!(head.contains("\r\nConnection: close\r\n") && body == "ok\n", "{head}");
    assert_eq!(read_all(&client), (Vec::new(), End::Fin));
    let refused = "framegate_handshakes_total{outcome=\"responded\"}";
    common::eventually("all are counted", || (proxy.metric(refused) == 14.0).then_some(()));
    drop(client);
    let lines = proxy.stop();
    let causes: Vec<_> = lines.iter().map(|line| verdict(line)).collect();
    assert_eq!(causes.iter().filter(|verdict| verdict.contains("cause=responded")).count(), 14, "{causes:#?}");
}

#[test]
fn a_connection_ends_with_the_response_where_it_must() {
    let (proxy, _listener) = start(RESPOND);
    for (request, closes) in [
        (kept("GET", "/health", ""), false),
        (kept("GET", "/health", "Connection: close\r\n"), true),
        // Handshakes are refused as always: their clients do not ask again.
        (common::request("/health", ""), true),
        (kept("GET", "/health", "").replace("HTTP/1.1", "HTTP/1.0"), true),
        (kept("GET", "/health", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", true),
        (kept("GET", "/health", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), true),
        (kept("TRACE", "/health", ""), true),
    ] {
        let mut client = connect(proxy.addr);
        client.write_all(request.as_bytes()).unwrap();
        let (head, body) = next_answer(&client, true);
        assert_eq!((head.contains("\r\nConnection: close\r\n"), body.as_str()), (closes, "ok\n"), "{request}{head}");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_all(&client), (Vec::new(), End::Fin), "{request}");
    }
}

#[test]
fn a_head_may_come_in_two_parts_on_a_connection_that_lives_on() {
    let (proxy, _listener) = start(RESPOND);
    let (mut client, request) = (connect(proxy.addr), kept("GET", "/health", "X: y\r\n"));
    for cut in 0..=request.len() {
        let (first, second) = request.split_at(cut);
        client.write_all(first.as_bytes()).unwrap();
        client.write_all(second.as_bytes()).unwrap();
        assert_eq!(next_answer(&client, true).1, "ok\n", "cut at {cut}");
    }
}
