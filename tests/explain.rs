//! `framegate explain`: the route of a request, why others do not match, what the upstream gets.

use std::path::PathBuf;
use std::process::{Command, Stdio};

const CONFIG: &str = r#"
[[listener]]
listen = "0.0.0.0:8080"
[[route]]
name = "canary"
priority = 10
match = [{ client = ["10.0.0.0/8"] }, { cookie = "canary", present = true }]
upstream = "app"
[[route]]
name = "room"
host = "a.example.com"
path = "/room/{id}/*"
match = [{ header = "x-beta", is = "1" }, { query = "v", prefix = "2" }]
strip_prefix = "/room"
host_header = "app.internal"
upstream = "app"
[[route]]
name = "graphql"
host = "*.example.com"
path = "/graphql"
match = [{ subprotocol = "graphql-ws" }]
upstream = "ws://10.0.0.9:9000"
[[route]]
name = "device"
path = "/device/*"
match = [{ cert_subject = { prefix = "CN=device-" } }, { cert_sha256 = { regex = "aa.*" } }]
upstream = "ws://10.0.0.9:9000"
[[route]]
host = "*.example.com"
path = "/live/*"
protocols = ["websocket"]
upstream = "ws://10.0.0.9:9000"
[[upstream]]
name = "app"
endpoints = ["ws://app.internal:9000/base", "ws://10.0.0.2:9000"]
"#;

/// A configuration in a file that is removed after the test.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Config {
        let path = std::env::temp_dir().join(format!("framegate-explain-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Config(path)
    }

    /// Output, errors, exit code.
    fn explain(&self, args: &[&str]) -> (String, String, i32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
        command.arg("explain").arg("-c").arg(&self.0).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_route_is_shown_with_what_its_upstream_gets() {
    let config = Config::new("route", CONFIG);
    let (text, errors, code) = config.explain(&[
        "--host",
        "A.example.com:8080",
        "--path",
        "/room/a%2Fb/x?v=2.1",
        "--header",
        "X-Beta: 1",
        "--header",
        "Cookie: canary=1",
    ]);
    assert_eq!((errors.as_str(), code), ("", 0));
    let expected = r#"request    GET A.example.com:8080/room/a%2Fb/x?v=2.1 from 127.0.0.1

routes that do not match, in matching order
  /* (canary): not met: client in 10.0.0.0/8 (the client is 127.0.0.1)

route      room: a.example.com/room/{id}/*
  met: header x-beta is "1"
  met: query v begins with "2"
  {id} is "a%2Fb"
upstream   app
endpoint   ws://app.internal:9000/base, by round_robin without other sessions

request to the upstream, with ids made up
  GET /base/a%2Fb/x?v=2.1 HTTP/1.1
  Host: app.internal
  Connection: Upgrade
  Upgrade: websocket
  Sec-WebSocket-Version: 13
  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
  X-Beta: 1
  Cookie: canary=1
  X-Forwarded-For: 127.0.0.1
  X-Forwarded-Proto: http
  X-Forwarded-Host: A.example.com:8080
  X-Real-IP: 127.0.0.1
  X-Request-Id: 00000000000000000000000000000000
  traceparent: "#;
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn the_first_thing_that_differs_is_told_of_each_closer_route() {
    let config = Config::new("closer", CONFIG);
    for (args, expected) in [
        (
            &["--host", "b.example.com", "--path", "/graphql?v=1", "--subprotocol", "a", "--client", "10.0.0.7"][..],
            "  /* (canary): not met: cookie canary is present (the request has none)
  a.example.com/room/{id}/* (room): the host does not match a.example.com
  *.example.com/graphql (graphql): not met: subprotocol is \"graphql-ws\" (the request has \"a\")
  *.example.com/live/*: the path does not match /live/*
  /device/* (device): the path does not match /device/*

route      none: the request is refused with 404
",
        ),
        (
            &["--host", "a.example.com", "--path", "/room/1?v=1", "--header", "x-beta: 1"],
            "  a.example.com/room/{id}/* (room): not met: query v begins with \"2\" (the request has \"1\")\n",
        ),
        (
            &["--host", "h", "--path", "/device", "--cert-subject", "CN=device-7", "--cert-sha256", "BB:aa"],
            "  /device/* (device): not met: cert_sha256 matches \"aa.*\" (the request has \"bbaa\")\n",
        ),
    ] {
        let (text, errors, code) = config.explain(args);
        assert_eq!((errors.as_str(), code), ("", 1), "{args:?}");
        assert!(text.contains(expected), "{args:?}\n{text}");
        assert!(!text.contains("upstream"), "{text}");
    }
}

#[test]
fn the_choice_of_upstream_and_endpoint_is_shown() {
    let config = |route: &str, more: &str| {
        format!(
            "[[listener]]\nlisten = \"0.0.0.0:80\"\n[[route]]\n{route}\n[[upstream]]\nname = \"a\"\n\
             endpoints = [\"ws://10.0.0.1:1\", \"ws://10.0.0.2:2\"]\n{more}\n"
        )
    };
    let split = "split = [{ upstream = \"a\", weight = 0 }, { upstream = \"ws://10.0.0.3:3\", weight = 1 }]";
    let by_key = format!("{split}\nsplit_key = \"cookie:uid\"");
    for (route, more, expected) in [
        ("upstream = \"a\"", "", "upstream   a\nendpoint   ws://10.0.0.1:1, by round_robin without other sessions\n"),
        (
            "upstream = \"a\"",
            "balance = \"consistent_hash\"\nhash_key = \"client_ip\"",
            ", by consistent_hash without other sessions\n",
        ),
        (split, "", "upstream   ws://10.0.0.3:3, by chance of a 0, ws://10.0.0.3:3 1\nendpoint   ws://10.0.0.3:3\n"),
        (&by_key, "", "upstream   ws://10.0.0.3:3, by key of a 0, ws://10.0.0.3:3 1\n"),
        (
            "upstream = \"a\"",
            "sticky = { cookie = \"node\" }",
            "\nadded to the response of the upstream\n  Set-Cookie: node=",
        ),
    ] {
        let config = Config::new("choice", &config(route, more));
        let (text, errors, code) = config.explain(&["--host", "h"]);
        assert_eq!((errors.as_str(), code), ("", 0), "{route} {more}");
        assert!(text.contains(expected), "{route} {more}\n{text}");
    }
}

#[test]
fn what_is_refused_after_the_route_is_told() {
    let config = Config::new("refused", CONFIG);
    for (args, expected) in [
        (&["--method", "POST"][..], "refused    405 (method): "),
        (&["--header", "Upgrade: h2c"], "refused    426 (not-an-upgrade): "),
        (&["--header", "Expect: x"], "refused    400 (unexpected-body): "),
        (&["--subprotocol", "a", "--tls"], "endpoint   ws://10.0.0.9:9000\n"),
    ] {
        let all = [&["--host", "a.example.com", "--path", "live"], args].concat();
        let (text, errors, code) = config.explain(&all);
        assert_eq!((errors.as_str(), code), ("", 0), "{args:?}");
        assert!(text.contains("\nroute      *.example.com/live/*\n") && text.contains(expected), "{text}");
        assert_eq!(text.contains("X-Forwarded-Proto: https"), args.contains(&"--tls"), "{text}");
    }
}

#[test]
fn refused_origins_and_addresses_are_told() {
    let config = Config::new(
        "origins",
        r#"
[[listener]]
listen = "0.0.0.0:8080"
[[route]]
path = "/listed"
upstream = "ws://10.0.0.9:9000"
origins = ["https://app.example"]
deny = ["192.0.2.0/24"]
[[route]]
path = "/own"
upstream = "ws://10.0.0.9:9000"
"#,
    );
    let (foreign, cookie) = ("Origin: https://evil.example", "Cookie: a=b");
    for (args, expected) in [
        (&["--path", "/listed", "--header", foreign][..], "refused    403 (origin-refused): "),
        (&["--path", "/listed"], "refused    403 (origin-refused): "),
        (&["--path", "/listed", "--header", "Origin: https://app.example"], "endpoint   ws://10.0.0.9:9000\n"),
        (
            &["--path", "/listed", "--header", "Origin: https://app.example", "--client", "192.0.2.7"],
            "refused    403 (address-refused): ",
        ),
        (&["--path", "/own", "--header", foreign, "--header", cookie], "refused    403 (origin-cross-site): "),
        (&["--path", "/own", "--header", foreign], "endpoint   ws://10.0.0.9:9000\n"),
        (&["--path", "/own", "--header", "Origin: https://a", "--header", cookie], "endpoint   ws://10.0.0.9:9000\n"),
    ] {
        let (text, errors, code) = config.explain(&[&["--host", "a"], args].concat());
        assert_eq!((errors.as_str(), code), ("", 0), "{args:?}");
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

#[test]
fn bad_usage_and_configuration_exit_with_2() {
    let config = Config::new("usage", CONFIG);
    for (args, expected) in [
        (&["--host", "a", "--header", "X"][..], "explain: \"X\" is not a header; expected for example \"X-Beta: 1\""),
        (&["--host", "a", "--header", "X: a\r\nY: b"], "explain: \"X: a\\r\\nY: b\" has a control character"),
        (&["--host", "a b"], "explain: the request would be refused with 400 (bad-host): "),
        (&["--host", "a", "--path", "/../x"], "explain: the request would be refused with 400 (bad-target): "),
        (&["--host", "a", "--client", "x"], "invalid value 'x' for '--client <ADDR>'"),
        (&["--path", "/"], "the following required arguments were not provided: --host <HOST>"),
    ] {
        let (text, errors, code) = config.explain(args);
        assert_eq!((text.as_str(), code), ("", 2), "{args:?}");
        assert!(errors.starts_with(&format!("framegate: {expected}")) && errors.lines().count() == 1, "{errors}");
    }
    let bad = Config::new("bad", &CONFIG.replace("priority = 10", "priority = \"high\""));
    let (text, errors, code) = bad.explain(&["--host", "a"]);
    assert_eq!((text.as_str(), code), ("", 2));
    assert!(errors.contains(":6:12: route.priority: \"high\" is not a priority"), "{errors}");
}

#[test]
fn rewriting_and_responses_of_a_route_are_shown() {
    let config = Config::new(
        "rewrite",
        r#"
[[listener]]
listen = "0.0.0.0:8080"
[[route]]
path = "/room/{id}"
upstream = "ws://10.0.0.9:9000/base"
rewrite = { path = "/rooms/{id}" }
request_headers = { set = { X-Room = "{id} {client_ip}" } }
response_headers = { remove = ["Server"], add = { Set-Cookie = "room={id}" } }
[[route]]
path = "/health"
respond = { body = "ok" }
[[route]]
path = "/old/*"
redirect = { location = "https://{host}{path}" }
"#,
    );
    for (target, shown) in [
        (
            "/room/7",
            &["\n  GET /base/rooms/7 HTTP/1.1\n", "\n  X-Room: 7 192.0.2.1\n", "  Server\n", "  Set-Cookie: room=7\n"]
                [..],
        ),
        ("/health", &["response   of the route itself", "\n  HTTP/1.1 200 OK\n", "\n  ok\n"]),
        ("/old/x", &["\n  HTTP/1.1 308 Permanent Redirect\n  Location: https://a.example/old/x\n"]),
    ] {
        let args = ["--host", "A.example:80", "--path", target, "--client", "192.0.2.1"];
        let (text, errors, code) = config.explain(&args);
        assert_eq!((errors.as_str(), code), ("", 0));
        for part in shown {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}

#[test]
fn the_question_to_an_authorization_server_is_shown_without_credentials() {
    let auth = "[[auth]]\nname = \"sso\"\ntype = \"introspection\"\nurl = \"http://127.0.0.1:9091/introspect\"\n";
    let route = "[[route]]\nupstream = \"ws://10.0.0.1:9000\"\nauth = \"sso\"\n";
    let config = Config::new("asks", &format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{route}{auth}"));
    let token = "Authorization: Bearer s3cret";
    let (text, errors, code) = config.explain(&["--host", "h", "--path", "/", "--header", token]);
    assert_eq!((errors.as_str(), code), ("", 0));
    assert!(text.contains("\nasks       http://127.0.0.1:9091: POST /introspect HTTP/1.1\n"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
