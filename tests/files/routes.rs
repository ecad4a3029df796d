//! What a route with files serves, and what holds for it as for other routes.

use super::common::*;
use super::site::*;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

#[test]
fn a_file_has_its_type() {
    let site = Site::new();
    let proxy = site.proxy("");
    for (name, media_type) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "application/javascript"),
        ("A.TXT", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.woff2", "font/woff2"),
        ("a.ico", "image/x-icon"),
        ("a.pdf", "application/pdf"),
        ("a.tar.gz", "application/gzip"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
    ] {
        site.put(name, name);
        let answer = get(proxy.addr, &format!("/{name}"), "");
        assert_eq!((answer.status, answer.text()), (200, name), "{answer:?}");
        assert_eq!(answer.field("content-type"), Some(media_type), "{name}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{name}");
        assert_eq!(answer.field("accept-ranges"), Some("bytes"), "{name}");
        assert!(answer.field("date").is_some() && answer.field("connection").is_none(), "{answer:?}");
    }
}

#[test]
fn a_directory_is_its_index() {
    let site = Site::new();
    site.put("none/a.txt", "a");
    site.put("odd/index.html/a.txt", "a");
    let proxy = site.proxy("");
    for (target, status, body) in [
        ("/", 200, "<h1>Home</h1>\n"),
        ("/?x=1", 200, "<h1>Home</h1>\n"),
        ("/index.html", 200, "<h1>Home</h1>\n"),
        ("/docs/", 200, "<h1>Docs</h1>\n"),
        ("/docs/index.html", 200, "<h1>Docs</h1>\n"),
        ("/docs", 308, "Permanent Redirect.\n"),
        ("/none", 404, "Not Found.\n"),
        ("/none/", 404, "Not Found.\n"),
        ("/odd/", 404, "Not Found.\n"),
        ("/index.html/", 404, "Not Found.\n"),
        ("/index.html/x", 404, "Not Found.\n"),
        ("/nothing", 404, "Not Found.\n"),
    ] {
        let answer = get(proxy.addr, target, "");
        assert_eq!((answer.status, answer.text()), (status, body), "{target}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{target}");
    }
    for (target, location) in
        [("/docs", "/docs/"), ("/docs?a=b&c=//d", "/docs/?a=b&c=//d"), ("/x/../docs", "/docs/"), ("/d%6Fcs", "/docs/")]
    {
        assert_eq!(get(proxy.addr, target, "").field("location"), Some(location), "{target}");
    }
    // Another name for it.
    let config =
        site.config("").replace(&format!("{:?}", site.0), &format!("{{ root = {:?}, index = \"a.txt\" }}", site.0));
    let other = Proxy::start(&config);
    assert_eq!(get(other.addr, "/none/", "").text(), "a");
    assert_eq!(get(other.addr, "/", "").status, 404);
}

#[test]
fn the_path_is_changed_as_for_an_upstream() {
    let site = Site::new();
    let rewrite = "rewrite = { pattern = \"^/old/(.*)\", replace = \"/docs/{1}\" }";
    for (keys, target, status) in [
        ("path = \"/docs/*\"", "/docs/", 200),
        ("path = \"/app/*\"\nstrip_prefix = \"/app\"", "/app/docs/", 200),
        ("path = \"/app/*\"\nstrip_prefix = \"/app\"", "/app/", 200),
        ("path = \"/app/*\"\nstrip_prefix = \"/app\"", "/app/app/docs/", 404),
        ("path = \"/app/*\"", "/app/docs/", 404),
        ("add_prefix = \"/docs\"", "/index.html", 200),
        (rewrite, "/old/index.html", 200),
        (rewrite, "/app.js", 200),
        (rewrite, "/old/%2e%2e/app.js", 200),
        (rewrite, "/old/..%2fapp.js", 404),
    ] {
        let proxy = site.proxy(keys);
        assert_eq!(get(proxy.addr, target, "").status, status, "{keys} {target}");
    }
    // The path that is stripped is needed again.
    let proxy = site.proxy("path = \"/app/*\"\nstrip_prefix = \"/app\"");
    assert_eq!(get(proxy.addr, "/app/docs", "").field("location"), Some("/app/docs/"));
}

#[test]
fn head_gets_the_fields_of_get_and_other_methods_nothing() {
    let site = Site::new();
    let mut proxy = site.proxy("");
    let client = connect(proxy.addr);
    for target in ["/", "/letters.txt", "/docs", "/nothing"] {
        let (get, head) = (ask(&client, "GET", target, ""), ask(&client, "HEAD", target, ""));
        let without = |answer: &Answer| {
            let lines =
                answer.head.lines().filter(|line| !["X-Request-Id", "Date"].iter().any(|n| line.starts_with(n)));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!((without(&get), head.body.len()), (without(&head), 0), "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        for target in ["/", "/nothing", "/.git/config"] {
            let answer = ask(&connect(proxy.addr), method, target, "");
            assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")), "{method} {target}");
        }
    }
    for method in ["TRACE", "CONNECT"] {
        let target = if method == "TRACE" { "/" } else { "a:80" };
        let status = ask(&connect(proxy.addr), method, target, "").status;
        assert!(matches!(status, 400 | 501), "{method}: {status}");
    }
    let lines = proxy.stop();
    assert_eq!(lines.iter().filter(|line| line.contains("cause=file-method status=405")).count(), 18, "{lines:#?}");
}

#[test]
fn a_request_may_have_a_body_which_is_not_read() {
    let site = Site::new();
    let proxy = site.proxy("limits = { max_body = \"1MiB\" }");
    for (more, body) in [
        ("Content-Length: 5\r\n", b"hello".to_vec()),
        ("Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("Content-Length: 500000\r\n", vec![b'x'; 500_000]),
        ("Content-Length: 5\r\nExpect: 100-continue\r\n", Vec::new()),
    ] {
        let mut client = connect(proxy.addr);
        client.write_all(request_of("GET", "/letters.txt", more).as_bytes()).unwrap();
        let mut writer = client.try_clone().unwrap();
        // It fails where the proxy has closed before: that is the body, not the response.
        let writing = std::thread::spawn(move || drop(writer.write_all(&body)));
        let answer = answer(&client, "GET");
        assert_eq!((answer.status, answer.body.len()), (200, 26), "{more}");
        writing.join().unwrap();
        if answer.field("connection").is_some() {
            assert_eq!(read_all(&client), (Vec::new(), End::Fin), "{more}");
        } else {
            // All of it had come.
            assert_eq!(ask(&client, "GET", "/", "").status, 200, "{more}");
        }
    }
    // No request is seen in it.
    let mut client = connect(proxy.addr);
    let inside = request_of("GET", "/app.js", "");
    let length = format!("Content-Length: {}\r\n", inside.len());
    client.write_all((request_of("GET", "/letters.txt", &length) + &inside).as_bytes()).unwrap();
    assert_eq!(answer(&client, "GET").body.len(), 26);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&client).0, b"");
    let declared = ask(&connect(proxy.addr), "GET", "/", "Content-Length: 2000000\r\n");
    assert_eq!(declared.status, 413);
    let two = ask(&connect(proxy.addr), "GET", "/", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(two.status, 400);
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_their_order() {
    let site = Site::new();
    site.put("big.bin", vec![7; 3_000_000]);
    let proxy = site.proxy("");
    let mut client = connect(proxy.addr);
    let targets = ["/", "/big.bin", "/nothing", "/docs", "/letters.txt", "/big.bin", "/app.js"];
    let all = targets.map(|target| request_of("GET", target, "")).concat();
    client.write_all(all.as_bytes()).unwrap();
    let seen = targets.map(|_| answer(&client, "GET")).map(|answer| (answer.status, answer.body.len()));
    let expected = [(200, 14), (200, 3_000_000), (404, 11), (308, 20), (200, 26), (200, 3_000_000), (200, 7)];
    assert_eq!(seen, expected);
}

#[test]
fn a_head_may_be_cut_anywhere() {
    let site = Site::new();
    let proxy = site.proxy("");
    let mut client = connect(proxy.addr);
    client.set_nodelay(true).unwrap();
    let request = request_of("GET", "/letters.txt", "Range: bytes=3-5\r\nIf-Range: \"x\"\r\n");
    for cut in 0..request.len() {
        let (first, second) = request.split_at(cut);
        client.write_all(first.as_bytes()).unwrap();
        client.write_all(second.as_bytes()).unwrap();
        assert_eq!(answer(&client, "GET").body.len(), 26, "cut at {cut}");
    }
    // Byte by byte.
    for byte in request.as_bytes() {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(answer(&client, "GET").body.len(), 26);
}

#[test]
fn http_1_0_gets_files_too() {
    let site = Site::new();
    let proxy = site.proxy("");
    let mut client = connect(proxy.addr);
    client.write_all(b"GET /letters.txt HTTP/1.0\r\n\r\n").unwrap();
    let (bytes, end) = read_all(&client);
    assert!(bytes.ends_with(b"\r\n\r\nabcdefghijklmnopqrstuvwxyz") && end == End::Fin);
    let mut client = connect(proxy.addr);
    for _ in 0..2 {
        client.write_all(b"GET /letters.txt HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = answer(&client, "GET");
        assert_eq!((answer.body.len(), answer.field("connection")), (26, Some("keep-alive")));
    }
}

#[test]
fn the_page_and_its_websocket_share_a_connection() {
    let site = Site::new();
    let (listener, addr) = listen();
    let proxy = site.proxy(&format!("[[route]]\npath = \"/ws\"\nupstream = \"ws://{addr}\""));
    let client = connect(proxy.addr);
    assert_eq!(ask(&client, "GET", "/", "").text(), "<h1>Home</h1>\n");
    let mut stream: &TcpStream = &client;
    stream.write_all(request("/ws", "").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    server.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    server.write_all(&plain(0x81, b"hello")).unwrap();
    assert_eq!(read_frame(&client).1, b"hello");
    // Where files are, the wish for a WebSocket is ignored.
    let answer = ask(&connect(proxy.addr), "GET", "/letters.txt", "Upgrade: websocket\r\nConnection: Upgrade\r\n");
    assert_eq!((answer.status, answer.body.len()), (200, 26));
}

#[test]
fn what_holds_for_routes_holds_for_files() {
    let site = Site::new();
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let auth = format!(
        "auth = \"keys\"\nresponse_headers = {{ set = {{ Cache-Control = \"private\", Content-Type = \"text/x\" }}, \
         remove = [\"ETag\"] }}\n[[route]]\npath = \"/denied/*\"\nfiles = {:?}\ndeny = [\"0.0.0.0/0\", \"::/0\"]\n\
         [[route]]\npath = \"/full/*\"\nfiles = {:?}\nlimits = {{ handshakes = {{ rate = \"1/h\", burst = 1 }} }}\n\
         [[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nkeys = [{{ owner = \"ada\", sha256 = \"{digest}\" }}]\n",
        site.0, site.0
    );
    let mut proxy = site.proxy(&auth);
    assert_eq!(get(proxy.addr, "/letters.txt", "").status, 401);
    let client = connect(proxy.addr);
    let answer = ask(&client, "GET", "/letters.txt", "Authorization: Bearer hello\r\n");
    assert_eq!((answer.status, answer.body.len()), (200, 26));
    assert_eq!(answer.field("cache-control"), Some("private"));
    assert_eq!((answer.field("etag"), answer.field("content-type")), (None, Some("text/x")), "{answer:?}");
    let missing = ask(&client, "GET", "/nothing", "Authorization: Bearer hello\r\n");
    assert_eq!((missing.status, missing.field("cache-control")), (404, None), "{missing:?}");
    assert_eq!(get(proxy.addr, "/denied/x", "").status, 403);
    assert_eq!([404, 503], [(); 2].map(|()| get(proxy.addr, "/full/x", "").status));
    let counted = |class: &str| proxy.metric(&format!("framegate_http_requests_total{{status=\"{class}\"}}"));
    eventually("requests are counted", || (counted("2xx") == 1.0 && counted("4xx") == 2.0).then_some(()));
    drop(client);
    let lines = proxy.stop();
    let line = lines.iter().find(|line| line.contains("path=/letters.txt") && line.contains("status=200")).unwrap();
    assert!(verdict(line).starts_with("ended_by=proxy phase=response cause=answered status=200"), "{line}");
    assert_eq!(
        (field(line, "route"), field(line, "user"), field(line, "bytes_down"), field(line, "bytes_up")),
        (Some("site"), Some("ada"), Some("26"), Some("0"))
    );
}

#[test]
fn a_reload_and_a_deployment_are_for_the_next_request() {
    let (site, other) = (Site::new(), Site::new());
    other.put("letters.txt", "other");
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    assert_eq!(ask(&client, "GET", "/letters.txt", "").body.len(), 26);
    let config = std::fs::read_to_string(&proxy.config).unwrap();
    let (before, after) = (format!("{:?}", site.0), format!("{:?}", other.0));
    std::fs::write(&proxy.config, config.replace(&before, &after)).unwrap();
    proxy.signal("HUP");
    eventually("the new root", || (ask(&client, "GET", "/letters.txt", "").text() == "other").then_some(()));
    // Without its root there is nothing; with another one in its place there is something again.
    let away = other.0.with_extension("away");
    std::fs::rename(&other.0, &away).unwrap();
    assert_eq!(ask(&client, "GET", "/letters.txt", "").status, 404);
    std::os::unix::fs::symlink(&site.0, &other.0).unwrap();
    assert_eq!(ask(&client, "GET", "/letters.txt", "").body.len(), 26);
    std::fs::remove_file(&other.0).unwrap();
    std::fs::rename(&away, &other.0).unwrap();
    assert_eq!(ask(&client, "GET", "/letters.txt", "").text(), "other");
}

#[test]
fn a_stop_lets_a_response_end() {
    let site = Site::new();
    site.put("big.bin", vec![7; 30_000_000]);
    let mut proxy = site.proxy("");
    let (mut client, idle) = (connect_small(proxy.addr), connect(proxy.addr));
    assert_eq!(ask(&idle, "GET", "/", "").status, 200);
    client.write_all(request_of("GET", "/big.bin", "").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 200 "));
    proxy.signal("TERM");
    assert_eq!(read_all(&idle), (Vec::new(), End::Fin));
    assert_eq!(read_exact(&client, 30_000_000).len(), 30_000_000);
    assert_eq!(read_all(&client), (Vec::new(), End::Fin));
    assert!(proxy.wait().success());
}

#[test]
fn check_and_explain_say_what_is_served() {
    let site = Site::new();
    let path = temp_path("toml");
    std::fs::write(&path, site.config("path = \"/app/*\"\nstrip_prefix = \"/app\"")).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(args).arg("-c").arg(&path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let root = site.0.display();
    let checked = run(&["check"]);
    let line = format!("  /app/* (site) -> files of {root}, index index.html, plain HTTP alone, strips /app\n");
    assert!(checked.contains(&line), "{checked}");
    assert!(checked.contains("pieces of files"), "{checked}");
    let explain = |path: &str| run(&["explain", "--host", "a", "--path", path]);
    assert!(explain("/app/docs/").contains(&format!("file       docs/index.html below {root}\n")));
    assert!(explain("/app/a%20b").contains(&format!("file       a b below {root}\n")));
    assert!(explain("/app/.git/x").contains("refused    404 (no-file)"), "{}", explain("/app/.git/x"));
}
