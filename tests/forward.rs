//! Forward auth through real sockets: an authorization server that admits, denies, redirects and
//! fails in every way, and what clients, upstreams and the log get of it.

mod common;
#[allow(dead_code)] // a part is used
#[path = "ask/rig.rs"]
mod rig;

use common::pki::PKI;
use common::*;
use rig::{Rig, answer, response};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const ROUTE: &str = "auth = \"sso\"";
const SECTION: &str = "type = \"forward\"\nurl = \"{url}/verify\"\ncopy = [\"X-User\", \"X-Groups\"]\n\
                       identity_header = \"X-User\"\n";
const OK: &str = "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 0\r\n\r\n";

fn start() -> Rig {
    Rig::start(ROUTE, SECTION)
}

/// The lines of a head with this name.
fn lines<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let named = |line: &&str| line.split_once(':').is_some_and(|(is, _)| is.eq_ignore_ascii_case(name));
    head.lines().filter(named).collect()
}

#[test]
fn a_2xx_admits_and_says_who_the_client_is() {
    let rig = start();
    let client = rig.request(
        "/chat?room=1",
        "Cookie: session=5\r\nX-User: root\r\nx-groups: admin\r\nOrigin: http://example.com\r\n",
    );
    let asked = rig.answers("HTTP/1.1 200 OK\r\nX-User: ada\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\nok");
    assert!(asked.starts_with("GET /verify HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
    assert_eq!(lines(&asked, "cookie"), ["Cookie: session=5"]);
    assert_eq!(lines(&asked, "origin"), ["Origin: http://example.com"]);
    assert_eq!(lines(&asked, "x-forwarded-uri"), ["X-Forwarded-Uri: /chat?room=1"]);
    assert_eq!(lines(&asked, "x-forwarded-method"), ["X-Forwarded-Method: GET"]);
    assert_eq!(lines(&asked, "x-forwarded-host"), ["X-Forwarded-Host: example.com"]);
    assert_eq!(lines(&asked, "x-forwarded-for"), ["X-Forwarded-For: 127.0.0.1"]);
    for name in ["sec-websocket-key", "upgrade", "x-user", "x-groups"] {
        assert!(lines(&asked, name).is_empty(), "{name} in {asked}");
    }
    let sent = rig.admits(&client);
    assert_eq!(lines(&sent, "x-user"), ["X-User: ada"]);
    assert!(lines(&sent, "x-groups").is_empty() && lines(&sent, "x-other").is_empty(), "{sent}");
    assert_eq!(lines(&sent, "x-request-id"), lines(&asked, "x-request-id"));
    assert_eq!(field(&rig.proxy.log.wait_for(" open "), "user"), Some("ada"));
    assert_eq!(rig.questions("answered"), 1.0);
}

#[test]
fn spoofed_headers_reach_neither_server_nor_upstream() {
    let rig = start();
    let spoofed = "X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: evil\r\nX-Forwarded-Host: evil\r\n\
                   X-Forwarded-Uri: /evil\r\nX-Forwarded-Method: EVIL\r\nX-Forwarded-User: evil\r\n\
                   X-Original-URL: /evil\r\nX-Original-Method: EVIL\r\nX-Real-IP: 10.9.9.9\r\n\
                   Forwarded: for=10.9.9.9;host=evil\r\nX-Request-Id: evil\r\nX_Forwarded_For: 10.9.9.9\r\n\
                   X_User: evil\r\nX-User: evil\r\nX-Client-Cert-Subject: evil\r\nX-Client-Cert-SHA256: evil\r\n";
    let client = rig.request("/chat", spoofed);
    let asked = rig.answers(OK);
    let sent = rig.admits(&client);
    assert!(!asked.to_lowercase().contains("evil") && !asked.contains("10.9.9.9"), "{asked}");
    let sent: String = sent.lines().filter(|line| !line.starts_with("X-Original-")).collect();
    assert!(!sent.contains("evil") && !sent.contains("10.9.9.9"), "{sent}");
}

#[test]
fn any_other_response_is_the_clients() {
    let mut rig = start();
    let (client, cookies) = (rig.request("/chat", ""), "Set-Cookie: state=1; HttpOnly\r\nSet-Cookie: b=2\r\n");
    let head =
        format!("302 Found\r\nLocation: https://sso/login\r\n{cookies}Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5");
    rig.answers(&response(&head, "go"));
    let got = rig.refuses(&client, 302);
    assert!(got.contains(&format!("\r\nLocation: https://sso/login\r\n{cookies}")), "{got}");
    assert!(got.ends_with("\r\n\r\ngo") && got.contains("\r\nContent-Length: 2\r\n"), "{got}");
    assert!(!got.contains("X-Hop") && !got.contains("Keep-Alive"), "{got}");
    assert_eq!(lines(&got, "connection"), ["Connection: close"]);

    let client = rig.request("/chat", "");
    let chunks = "3\r\nwho\r\n1;a=b\r\n?\r\n0\r\nT: 1\r\n\r\n";
    let head = "WWW-Authenticate: Basic realm=\"x\"\r\nTransfer-Encoding: chunked\r\n";
    rig.answers(&format!("HTTP/1.1 401 Who\r\n{head}\r\n{chunks}"));
    let got = rig.refuses(&client, 401);
    assert_eq!(lines(&got, "www-authenticate"), ["WWW-Authenticate: Basic realm=\"x\""]);
    assert!(got.ends_with("\r\n\r\nwho?") && got.contains("\r\nContent-Length: 4\r\n"), "{got}");
    assert!(lines(&got, "transfer-encoding").is_empty(), "{got}");

    let client = rig.request("/chat", "");
    rig.answers("HTTP/1.1 403 No\r\nContent-Type: text/html\r\nX-Request-Id: theirs\r\n\r\n<h1>until the end</h1>");
    let got = rig.refuses(&client, 403);
    assert!(got.ends_with("\r\n\r\n<h1>until the end</h1>") && got.contains("Content-Type: text/html"), "{got}");
    assert!(lines(&got, "x-request-id").len() == 1 && !got.contains("theirs"), "{got}");

    let line = rig.proxy.log.wait_for(" status=403");
    assert!(line.contains("forbidden"), "{line}");
    rig.proxy.stop();
}

#[test]
fn what_is_no_answer_fails_closed_at_once() {
    let rig = start();
    for (n, text) in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 10\r\n\r\n012345678",
        "HTTP/1.1 200 OK\r\nX-User: ada\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-User : ada\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 500 Broken\r\nX-User: ada\r\nContent-Length: 6\r\n\r\nstacks",
        "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-server\r\n\r\n",
        // Who the client is, is not told, or told in two ways.
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-User: \r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-User: ada\r\nX-User: bob\r\nContent-Length: 0\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let (begun, client) = (Instant::now(), rig.request("/chat", ""));
        rig.answers(text);
        let got = rig.refuses_at_once(&client, 503, begun);
        assert_eq!(lines(&got, "retry-after"), ["Retry-After: 1"], "{n}");
        assert!(!got.contains("stacks"), "{got}");
    }
    let line = rig.proxy.log.wait_for("decision-failed");
    assert!(line.contains("ended_by=proxy"), "{line}");
}

#[test]
fn too_much_fails_closed_and_is_not_read_to_its_end() {
    let rig = start();
    for head in [
        "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 10485760\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-User: ada\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-User: ",
        "HTTP/1.1 403 No\r\n\r\n",
    ] {
        let (begun, client) = (Instant::now(), rig.request("/chat", ""));
        let (mut stream, _) = rig.asked();
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = [b'x'; 64 << 10];
        let written = (0..160).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(written < 160, "10 MiB were read");
        rig.refuses_at_once(&client, 503, begun);
    }
}

#[test]
fn a_server_that_drips_is_heard_and_one_that_stalls_is_not_waited_for() {
    let rig = Rig::start(ROUTE, &format!("{SECTION}timeout = \"700ms\""));
    let client = rig.request("/chat", "");
    let (mut stream, _) = rig.asked();
    stream.set_nodelay(true).unwrap();
    for byte in OK.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    rig.admits(&client);
    // Bytes do not prolong it.
    for text in ["", "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 2\r\n\r\no"] {
        let (begun, client) = (Instant::now(), rig.request("/chat", ""));
        let (mut stream, _) = rig.asked();
        stream.write_all(text.as_bytes()).unwrap();
        rig.refuses(&client, 504);
        assert_due(begun, 700);
        assert_eq!(read_all(&stream).0, b"", "the question is withdrawn");
    }
    let line = rig.proxy.log.wait_for("decision-timeout");
    assert!(line.contains("ended_by=proxy"), "{line}");
    assert_eq!((rig.questions("answered"), rig.questions("unavailable")), (1.0, 2.0));
}

#[test]
fn a_server_that_cannot_be_reached_fails_closed_at_once() {
    let rig = Rig::start(ROUTE, "type = \"forward\"\nurl = \"http://127.0.0.1:1/verify\"");
    let (begun, client) = (Instant::now(), rig.request("/chat", ""));
    rig.refuses_at_once(&client, 504, begun);
}

#[test]
fn a_client_that_leaves_takes_its_question_with_it() {
    let rig = start();
    for rst in [false, true] {
        let client = rig.request("/chat", "");
        let (stream, _) = rig.asked();
        if rst {
            reset(client)
        } else {
            drop(client)
        }
        assert_eq!(read_all(&stream).0, b"");
        // What it says then is for no session.
        answer(stream, OK);
    }
    eventually("both are counted", || (rig.questions("cancelled") == 2.0).then_some(()));
    let client = rig.request("/chat", "");
    rig.answers(&response("403 No", "no"));
    rig.refuses(&client, 403);
}

/// The SHA-256 of `open sesame`.
const HASH: &str = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";

#[test]
fn the_server_is_asked_only_where_its_answer_matters() {
    let keys =
        format!("[[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nkeys = [{{ owner = \"acme\", sha256 = \"{HASH}\" }}]");
    let key = "Authorization: Bearer open sesame\r\nX-User: root\r\n";
    // The key admits alone, whatever stands first.
    let rig = Rig::start("auth = { any = [\"sso\", \"keys\"] }", &format!("{SECTION}{keys}"));
    let client = rig.request("/chat", key);
    let sent = rig.admits(&client);
    assert!(lines(&sent, "x-user").is_empty(), "clients never say what the server says: {sent}");
    rig.is_not_asked();
    let client = rig.request("/chat", "Authorization: Bearer wrong\r\n");
    rig.answers(OK);
    assert_eq!(lines(&rig.admits(&client), "x-user"), ["X-User: ada"]);
    let client = rig.request("/chat", "");
    rig.answers(&response("302 Found\r\nLocation: /login", ""));
    assert!(rig.refuses(&client, 302).contains("Location: /login"));
    // Without the key there is no need to ask.
    let rig = Rig::start("auth = { all = [\"sso\", \"keys\"] }", &format!("{SECTION}{keys}"));
    let client = rig.request("/chat", "");
    rig.refuses(&client, 401);
    rig.is_not_asked();
    let client = rig.request("/chat", key);
    rig.answers(&response("403 No", ""));
    rig.refuses(&client, 403);
    let client = rig.request("/chat", key);
    rig.answers(OK);
    rig.admits(&client);
    assert_eq!(field(&rig.proxy.log.wait_for(" open "), "user"), Some("ada"));
}

#[test]
fn cookie_sessions_are_kept_by_what_they_depend_on() {
    let section = format!("{SECTION}cache = [\"Cookie\"]\nttl = \"1s\"\nnegative_ttl = \"1s\"");
    let rig = Rig::start(ROUTE, &section);
    // A redirect to the login sets a cookie: it is for one client.
    for _ in 0..2 {
        let client = rig.request("/chat", "");
        rig.answers(&response("302 Found\r\nLocation: /login\r\nSet-Cookie: state=1", ""));
        rig.refuses(&client, 302);
    }
    let begun = Instant::now();
    let ada = "Cookie: session=ada\r\n";
    let client = rig.request("/chat", ada);
    rig.answers(OK);
    rig.admits(&client);
    let mut asked = 1;
    while begun.elapsed() < Duration::from_millis(500) && asked < 4 {
        let client = rig.request("/other?path", ada);
        let sent = rig.admits(&client);
        assert_eq!(lines(&sent, "x-user"), ["X-User: ada"]);
        asked += 1;
    }
    rig.is_not_asked();
    assert!(asked > 1 && rig.questions("cached") == f64::from(asked - 1));
    // Another cookie is another client, and a 403 is kept, too.
    let bob = "Cookie: session=bob\r\n";
    let client = rig.request("/chat", bob);
    rig.answers(&response("403 No", "no"));
    rig.refuses(&client, 403);
    let client = rig.request("/chat", bob);
    assert!(rig.refuses(&client, 403).ends_with("no"));
    rig.is_not_asked();
    // Its time is over at some moment, and no sooner.
    let asks_again = eventually("an answer gets old", || {
        let client = rig.request("/chat", ada);
        rig.server.set_nonblocking(true).unwrap();
        let head = read_one_of(&rig, &client);
        rig.server.set_nonblocking(false).unwrap();
        head
    });
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    answer(asks_again, OK);
}

/// The question that `client` causes, if it is not admitted without one.
fn read_one_of(rig: &Rig, client: &TcpStream) -> Option<TcpStream> {
    rig.upstream.set_nonblocking(true).unwrap();
    let found = eventually("one of them is reached", || match (rig.upstream.accept(), rig.server.accept()) {
        (Ok((mut upstream, _)), _) => {
            upstream.set_nonblocking(false).unwrap();
            read_head(&upstream);
            upstream.write_all(switching("").as_bytes()).unwrap();
            read_head(client);
            Some(None)
        }
        (_, Ok((stream, _))) => Some(Some(patient(stream))),
        _ => None,
    });
    rig.upstream.set_nonblocking(false).unwrap();
    let stream = found?;
    stream.set_nonblocking(false).unwrap();
    read_head(&stream);
    Some(stream)
}

#[test]
fn too_many_questions_are_refused_with_retry_after() {
    let rig = Rig::start(ROUTE, &format!("{SECTION}max_pending = 2"));
    let held: Vec<_> = (0..2).map(|_| (rig.request("/chat", ""), rig.asked())).collect();
    let (begun, client) = (Instant::now(), rig.request("/chat", ""));
    let got = rig.refuses_at_once(&client, 503, begun);
    assert_eq!(lines(&got, "retry-after"), ["Retry-After: 1"]);
    rig.is_not_asked();
    for (client, (stream, _)) in held {
        answer(stream, OK);
        rig.admits(&client);
    }
    let client = rig.request("/chat", "");
    rig.answers(OK);
    rig.admits(&client);
    assert_eq!(rig.questions("busy"), 1.0);
    rig.proxy.log.wait_for("decision-busy");
}

#[test]
fn the_server_may_say_when_the_session_ends() {
    let rig = Rig::start(ROUTE, &format!("{SECTION}expires_header = \"X-Expires\""));
    for (expires, status) in [
        ("0", 401),
        ("1000000000", 401),
        ("99999999999", 101),
        ("3600", 101),
        ("soon", 503),
        ("-1", 503),
        ("+1", 503),
        ("1.5", 503),
        ("1700000000000", 503),
        ("99999999999999999999", 503),
    ] {
        let client = rig.request("/chat", "");
        rig.answers(&response(&format!("200 OK\r\nX-User: ada\r\nX-Expires: {expires}"), ""));
        match status {
            101 => drop(rig.admits(&client)),
            status => drop(rig.refuses(&client, status)),
        }
    }
}

#[test]
fn a_reload_while_a_question_is_open_asks_as_the_new_file_says() {
    let rig = start();
    let client = rig.request("/chat", "");
    let (stream, _) = rig.asked();
    rig.reload(ROUTE, "type = \"forward\"\nurl = \"{url}/stricter\"");
    answer(stream, OK);
    let asked = rig.answers(&response("403 No", ""));
    assert!(asked.starts_with("GET /stricter "), "{asked}");
    rig.refuses(&client, 403);
    // What has not changed stays an answer.
    let client = rig.request("/chat", "");
    let (stream, _) = rig.asked();
    rig.reload(&format!("{ROUTE}\nname = \"renamed\""), "type = \"forward\"\nurl = \"{url}/stricter\"");
    answer(stream, OK);
    rig.admits(&client);
    rig.is_not_asked();
}

#[test]
fn chosen_headers_and_a_named_upstream_are_asked_with() {
    let (server, addr) = listen();
    let section = format!(
        "type = \"forward\"\nupstream = \"sso\"\npath = \"/check?a=1\"\nhost = \"sso.internal\"\nmethod = \"POST\"\n\
         headers = [\"authorization\", \"Sec-WebSocket-Protocol\"]\n[[upstream]]\nname = \"sso\"\nendpoints = [\"ws://{addr}\"]"
    );
    let rig = Rig::start(ROUTE, &section);
    let client = rig.request("/", "Authorization: x\r\nCookie: a=1\r\nSec-WebSocket-Protocol: chat\r\n");
    let stream = accept(&server);
    let asked = read_head(&stream);
    assert!(asked.starts_with("POST /check?a=1 HTTP/1.1\r\nHost: sso.internal\r\nAuthorization: x\r\n"), "{asked}");
    assert_eq!(lines(&asked, "content-length"), ["Content-Length: 0"]);
    assert_eq!((lines(&asked, "sec-websocket-protocol").len(), lines(&asked, "cookie").len()), (1, 0));
    answer(stream, OK);
    rig.admits(&client);
}

#[test]
fn a_server_behind_tls_must_be_the_one_that_is_trusted() {
    let (server, addr) = listen();
    let front = shim::before_plain(addr);
    for (tls, trusted) in [(format!("tls = {{ ca = {:?} }}", PKI.ca()), true), (String::new(), false)] {
        let section = format!(
            "type = \"forward\"\nupstream = \"sso\"\n[[upstream]]\nname = \"sso\"\n\
             endpoints = [\"wss://{front}\"]\n{tls}"
        );
        let rig = Rig::start(ROUTE, &section);
        let (begun, client) = (Instant::now(), rig.request("/chat", ""));
        if trusted {
            let stream = accept(&server);
            assert!(read_head(&stream).starts_with("GET / HTTP/1.1\r\nHost: sso\r\n"));
            answer(stream, OK);
            rig.admits(&client);
        } else {
            rig.refuses_at_once(&client, 504, begun);
        }
    }
}
