//! The path of the request that is sent upstream.

use super::*;

fn path_of(lines: &[String]) -> &str {
    lines[0].strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.1")).unwrap()
}

#[test]
fn each_rule_and_the_prefixes_compose() {
    let (proxy, listener) = start(
        r#"
        [[route]]
        path = "/ws/*"
        upstream = "UPSTREAM/base"
        rewrite = { pattern = "^/ws/(?<segment>.*)", replace = "/{segment}" }
        [[route]]
        path = "/strip/*"
        upstream = "UPSTREAM/base"
        strip_prefix = "/strip"
        add_prefix = "/added/"
        [[route]]
        path = "/fixed/*"
        upstream = "UPSTREAM"
        rewrite = { path = "/one/{query.room}" }
        add_prefix = "/added"
        [[route]]
        path = "/room/{id}/{*rest}"
        upstream = "UPSTREAM/base"
        rewrite = { path = "/{rest}/of/{path.id}" }
        request_headers = { set = { X-Room = "{id} {rest}" } }
        [[route]]
        upstream = "UPSTREAM"
        rewrite = { pattern = "a(.)", replace = "{1}a" }
        "#,
    );
    for (target, want) in [
        ("/ws/chat/7?x=%2f", "/base/chat/7?x=%2f"),
        ("/ws/?x", "/base/?x"),
        ("/ws/%2e/b%2fc", "/base/b%2Fc"),
        ("/ws", "/base/ws"),
        ("/strip/a%2fb?x", "/base/added/a%2fb?x"),
        ("/strip", "/base/added"),
        ("/fixed/x?room=a/b%20&x=%0d%0a", "/added/one/a%2Fb%20?room=a/b%20&x=%0d%0a"),
        ("/fixed/x?room=%0d%0aHost:%20evil%00", "/added/one/%0D%0AHost%3A%20evil%2500?room=%0d%0aHost:%20evil%00"),
        ("/room/7%2f/a/b?q", "/base/a/b/of/7%2F?q"),
        ("/%72oom/x/", "/base//of/x"),
        ("/room/7/a/..%2f..%2fb", "/base/b/of/7"),
        ("/abac/x", "/baca/x"),
        ("/x//y?", "/x//y?"),
    ] {
        let (forwarded, _) = exchange(&proxy, &listener, &request(target, ""), &switching(""));
        assert_eq!(path_of(&forwarded), want, "{target}");
        assert_eq!(values(&forwarded, "host"), ["example.com"]);
        let rooms = values(&forwarded, "x-room");
        match target.split_once("oom/") {
            Some((_, rest)) => assert_eq!(rooms, [rest.split('?').next().unwrap().replacen('/', " ", 1).trim()]),
            None => assert!(rooms.is_empty()),
        }
    }
}
