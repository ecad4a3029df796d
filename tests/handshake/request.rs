//! The request that the upstream gets, written anew.

use super::common::*;
use super::*;

/// What the proxy makes of a request, `config` (keys of the route first) and the endpoint `url`
/// given.
fn golden(url: &str, config: &str, accept: impl FnOnce() -> Box<dyn Read>, client: &str) -> String {
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"off\"\n\
         [[route]]\nprotocols = [\"websocket\"]\nupstream = \"{url}\"\n{config}\n"
    ));
    let mut stream = connect(proxy.addr);
    stream.write_all(client.replace("ADDR", &proxy.addr.to_string()).as_bytes()).unwrap();
    let mut upstream = accept();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        upstream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

const PLAIN_LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"";
const TRUSTING_LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]";

/// Random parts as their names, after a look at their form.
fn with_names(head: &str) -> String {
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let line = |line: &str| match line.split_once(": ") {
        Some((name @ "X-Request-Id", id)) if is_hex(id, 32) => format!("{name}: ID"),
        Some((name @ "traceparent", value)) => {
            let parts: Vec<_> = value.split('-').collect();
            assert!(parts.len() == 4 && parts[0] == "00" && is_hex(parts[2], 16), "{value}");
            let trace = if parts[1] == "4bf92f3577b34da6a3ce929d0e0e4736" { "CONTINUED" } else { "STARTED" };
            assert!(is_hex(parts[1], 32) && parts[2] != "00f067aa0ba902b7", "{value}");
            format!("{name}: 00-{trace}-SPAN-{}", parts[3])
        }
        _ => line.to_owned(),
    };
    head.split("\r\n").map(line).collect::<Vec<_>>().join("\n")
}

struct Golden {
    name: &'static str,
    /// Keys of the route, then the listener.
    config: [&'static str; 2],
    base: &'static str,
    target: &'static str,
    /// Lines of the client beyond a good request.
    lines: &'static str,
    /// Lines that the upstream gets, beyond those of a good request.
    want: &'static [&'static str],
    want_target: &'static str,
    want_host: &'static str,
    /// The last lines.
    added: &'static [&'static str],
}

const ADDED: &[&str] = &[
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Host: example.com",
    "X-Real-IP: 127.0.0.1",
    "X-Request-Id: ID",
    "traceparent: 00-STARTED-SPAN-01",
];

const BARE: Golden = Golden {
    name: "bare",
    config: ["", PLAIN_LISTENER],
    base: "",
    target: "/",
    lines: "",
    want: &[],
    want_target: "/",
    want_host: "example.com",
    added: ADDED,
};

/// The client's own claims about who it is.
const CLAIMS: &str = "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8, 9.9.9.9\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-FORWARDED-Anything: x\r\nX-Real-IP: 1.2.3.4\r\n\
    X-Request-Id: mine\r\nX_Forwarded_For: 6.6.6.6\r\n";

#[test]
fn the_upstream_gets_a_request_written_anew() {
    let rows = [
        BARE,
        Golden {
            name: "end-to-end fields in order, with their case",
            lines: "COOKIE: a=b; c\r\nAuthorization: Basic x\r\nOrigin: https://example.com\r\nx-own: 1\r\nX-Own: 2\r\n\
                User-Agent:\r\n\
                Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate; x=\"1,2\"\r\n",
            want: &[
                "COOKIE: a=b; c",
                "Authorization: Basic x",
                "Origin: https://example.com",
                "x-own: 1",
                "X-Own: 2",
                "User-Agent: ",
                "Sec-WebSocket-Protocol: a, b",
                "Sec-WebSocket-Extensions: permessage-deflate; x=\"1,2\"",
            ],
            ..BARE
        },
        Golden {
            name: "hop-by-hop fields, those named in Connection, names with _, and Content-Length",
            lines: "Connection: keep-alive, X-Gone,, x-GONE-too\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
                Proxy-Authorization: x\r\n\
                TE: trailers\r\nX-Gone: 1\r\nx-gone: 2\r\nX-Gone-Too: 3\r\nX-Stays: 4\r\nX_Y: 5\r\n_: 6\r\nContent-Length: 0\r\n",
            want: &["X-Stays: 4"],
            ..BARE
        },
        Golden { name: "claims of a stranger", lines: CLAIMS, ..BARE },
        Golden {
            name: "claims of a trusted proxy",
            config: ["", TRUSTING_LISTENER],
            lines: CLAIMS,
            want: &[
                "Forwarded: for=1.2.3.4",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: evil",
                "X-FORWARDED-Anything: x",
                "X-Real-IP: 1.2.3.4",
            ],
            added: &[
                "X-Forwarded-For: 1.2.3.4, 5.6.7.8, 9.9.9.9, 127.0.0.1",
                "X-Request-Id: mine",
                "traceparent: 00-STARTED-SPAN-01",
            ],
            ..BARE
        },
        Golden {
            name: "the client of trusted proxies that do not name it in X-Real-IP",
            config: ["", TRUSTING_LISTENER],
            lines: "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-For: 127.0.0.9\r\n",
            added: &const {
                let hops = "X-Forwarded-For: 1.2.3.4, 5.6.7.8, 127.0.0.9, 127.0.0.1";
                [hops, ADDED[1], ADDED[2], "X-Real-IP: 5.6.7.8", ADDED[4], ADDED[5]]
            },
            ..BARE
        },
        Golden { name: "a trusted proxy without claims", config: ["", TRUSTING_LISTENER], ..BARE },
        Golden {
            name: "a trace",
            lines: "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\ntracestate: a=b\r\n",
            want: &["tracestate: a=b"],
            added: &const { [ADDED[0], ADDED[1], ADDED[2], ADDED[3], ADDED[4], "traceparent: 00-CONTINUED-SPAN-00"] },
            ..BARE
        },
        Golden { name: "a broken trace", lines: "traceparent: 00-0-0-00\r\ntracestate: a=b\r\n", ..BARE },
        Golden {
            name: "the client's bytes as target",
            target: "/a/../%62//c;d?e=%00\\&..",
            want_target: "/a/../%62//c;d?e=%00\\&..",
            ..BARE
        },
        Golden { name: "absolute-form", target: "http://example.com?q", want_target: "/?q", ..BARE },
        Golden {
            name: "strip_prefix",
            config: ["path = \"/live/*\"\nstrip_prefix = \"/live\"", PLAIN_LISTENER],
            target: "/li%76e/a%2fb?q",
            want_target: "/a%2fb?q",
            ..BARE
        },
        Golden {
            name: "strip_prefix of everything",
            config: ["path = \"/live/*\"\nstrip_prefix = \"/live\"", PLAIN_LISTENER],
            target: "/live?q",
            want_target: "/?q",
            ..BARE
        },
        Golden { name: "base path", base: "/base/x", target: "/a?q", want_target: "/base/x/a?q", ..BARE },
        Golden {
            name: "strip_prefix and base path",
            config: ["path = \"/live/*\"\nstrip_prefix = \"/live\"", PLAIN_LISTENER],
            base: "/base",
            target: "/live/a/../b",
            want_target: "/base/b",
            ..BARE
        },
        Golden {
            name: "host_header",
            config: ["host_header = \"app.internal:81\"", PLAIN_LISTENER],
            want_host: "app.internal:81",
            ..BARE
        },
    ];
    for Golden { name, config: [route, listener], base, target, lines, want, want_target, want_host, added } in rows {
        let (upstream, addr) = listen();
        let accept = || Box::new(accept(&upstream)) as Box<dyn Read>;
        let head =
            golden(&format!("ws://{addr}{base}"), &format!("{route}\n{listener}"), accept, &request(target, lines));
        let fixed = [
            &format!("GET {want_target} HTTP/1.1"),
            &format!("Host: {want_host}"),
            "Connection: Upgrade",
            "Upgrade: websocket",
            KEY_LINE,
            VERSION_LINE,
        ];
        let want: Vec<_> = fixed.iter().chain(want).chain(added).chain(&["", ""]).copied().collect();
        assert_eq!(with_names(&head), want.join("\n"), "{name}");
    }
}

#[test]
fn the_upstream_may_be_ipv6_or_a_unix_socket() {
    let want = |target: &str| {
        let first = format!("GET {target} HTTP/1.1\nHost: example.com\nConnection: Upgrade\nUpgrade: websocket\n");
        format!("{first}{KEY_LINE}\n{VERSION_LINE}\n{}\n\n", ADDED.join("\n"))
    };
    let upstream = TcpListener::bind("[::1]:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let taken = || Box::new(accept(&upstream)) as Box<dyn Read>;
    let head = golden(&format!("ws://[::1]:{port}/b"), PLAIN_LISTENER, taken, &request("/x", ""));
    assert_eq!(with_names(&head), want("/b/x"));
    for (base, target) in [("", "/x"), (":/b", "/b/x")] {
        let path = temp_path("sock");
        let upstream = UnixListener::bind(&path).unwrap();
        let taken = || {
            upstream.set_nonblocking(true).unwrap();
            let (stream, _) = eventually("a connection comes", || upstream.accept().ok());
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream) as Box<dyn Read>
        };
        let head = golden(&format!("ws+unix:{}{base}", path.display()), PLAIN_LISTENER, taken, &request("/x", ""));
        assert_eq!(with_names(&head), want(target));
        std::fs::remove_file(path).unwrap();
    }
}

/// An IPv6 client shows as one.
#[test]
fn the_client_may_be_ipv6() {
    let (upstream, addr) = listen();
    let accept = || Box::new(accept(&upstream)) as Box<dyn Read>;
    let head = golden(&format!("ws://{addr}"), "[[listener]]\nlisten = \"[::1]:0\"", accept, &request("/", ""));
    assert!(head.contains("\r\nX-Forwarded-For: ::1\r\n") && head.contains("\r\nX-Real-IP: ::1\r\n"), "{head}");
}

/// A target as the client sends it, and as the upstream gets it and the access log has it.
const TARGETS: &[(&[u8], &str)] = &[
    (b"/a\"b", "/a%22b"),
    (b"/a<b", "/a%3Cb"),
    (b"/a>b", "/a%3Eb"),
    (b"/<>\"", "/%3C%3E%22"),
    (b"/?q=\"", "/?q=%22"),
    (b"/?<", "/?%3C"),
    (b"/?a>b&c=<", "/?a%3Eb&c=%3C"),
    (b"/caf\xc3\xa9", "/caf%C3%A9"),
    (b"/?\xc3\xa9", "/?%C3%A9"),
    (b"/\xe2\x82\xac/\xf0\x9f\x98\x80", "/%E2%82%AC/%F0%9F%98%80"),
    (b"/\xff", "/%FF"),
    (b"/?\x80\xfe", "/?%80%FE"),
    (b"/%C3%A9\xc3\xa9", "/%C3%A9%C3%A9"),
    (b"/%c3%a9", "/%c3%a9"),
    (b"/a%22\"", "/a%22%22"),
    (b"http://example.com/\xc3\xa9", "/%C3%A9"),
    (b"ws://example.com?\"", "/?%22"),
    (b"/{a}|b^c`d", "/{a}|b^c`d"),
    (b"/a'b;c,d", "/a'b;c,d"),
    (b"/?q=[x]&\\", "/?q=[x]&\\"),
];

#[test]
fn raw_bytes_of_a_target_are_forwarded_and_logged_percent_encoded() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    for (target, want) in TARGETS {
        let name = String::from_utf8_lossy(target);
        let good = request("/TARGET", "");
        let (before, after) = good.split_once("/TARGET").unwrap();
        let all = [before.as_bytes(), target, after.as_bytes()].concat();
        for cut in [Cut::Whole, Cut::EveryByte] {
            let client = connect(proxy.addr);
            write_cut(&client, &all, cut).unwrap();
            let mut upstream = accept(&listener);
            let head = read_head(&upstream);
            assert!(head.starts_with(&format!("GET {want} HTTP/1.1\r\n")), "{name}: {head}");
            upstream.write_all(switching("").as_bytes()).unwrap();
            read_head(&client);
            drop((client, upstream));
            // The log quotes a backslash.
            let logged = want.trim_start_matches('/').replace('\\', "\\\\");
            proxy.log.wait("its end", |line| (line.contains(" end ") && line.contains(&logged)).then_some(()));
        }
    }
}

#[test]
fn routes_match_the_encoded_target() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "path = \"/caf%C3%A9/*\"\nstrip_prefix = \"/caf%C3%A9\"");
    let client = connect(proxy.addr);
    write_cut(&client, request("/caf\u{e9}/x\"", "").as_bytes(), Cut::Whole).unwrap();
    let head = read_head(&accept(&listener));
    assert!(head.starts_with("GET /x%22 HTTP/1.1\r\n"), "{head}");
}

#[test]
fn empty_lists_of_the_client_are_not_forwarded() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let lines = "Sec-WebSocket-Protocol:\r\nSec-WebSocket-Extensions: ,\r\nX-Empty:\r\n";
    let client = connect(proxy.addr);
    write_cut(&client, request("/", lines).as_bytes(), Cut::Whole).unwrap();
    let head = read_head(&accept(&listener));
    assert!(!head.contains("Protocol") && !head.contains("Extensions") && head.contains("X-Empty"), "{head}");
}
