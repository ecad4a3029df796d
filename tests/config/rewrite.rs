//! Rewriting, headers, and responses of a route's own: their meaning, and the errors of every key.

use super::{bad, good};
use framegate::config::Snapshot;
use framegate::policy::rewrite::PathRule;
use framegate::policy::route::{Route, RouteAction};
use std::sync::Arc;

/// Three lines, so that the first line of `more`, which belongs to the route, is line 4.
fn with_route(more: &str) -> String {
    format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\n{more}\n")
}

/// The same with an upstream in line 4.
fn proxied(more: &str) -> String {
    with_route(&format!("upstream = \"ws://10.0.0.1:9000\"\n{more}"))
}

fn route(snapshot: &Snapshot) -> Arc<Route> {
    Arc::clone(&snapshot.routes.entries()[0].route)
}

#[test]
fn rules_take_effect() {
    let all = r#"
        add_prefix = "/v2/"
        rewrite = { pattern = "^/ws/(?<segment>.*)", replace = "/{segment}" }
        [route.request_headers]
        remove = ["Cookie", "X-Debug"]
        set = { B-Second = "{client_ip}", A-First = "{query.x}" }
        add = { X-A = "1", X-B = ["2", "3"] }
        [route.response_headers]
        add = { Set-Cookie = "a=b" }
    "#;
    let route = route(&good(&proxied(all)));
    assert_eq!(route.rewrite.add_prefix, "/v2");
    assert!(matches!(&route.rewrite.rule, PathRule::Replace(rule) if rule.template.source() == "/{segment}"));
    assert_eq!(route.request_headers.remove, ["Cookie", "X-Debug"]);
    let names = |rules: &[(String, _)]| rules.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&route.request_headers.set), ["B-Second", "A-First"], "in the order of the file");
    assert_eq!(names(&route.request_headers.add), ["X-A", "X-B", "X-B"]);
    assert_eq!(names(&route.response_headers.add), ["Set-Cookie"]);
    // Equal files are equal snapshots: a reload sees no change.
    assert_eq!(good(&proxied(all)), good(&proxied(all)));
    assert_ne!(good(&proxied(all)), good(&proxied(&all.replace("/ws/", "/wt/"))));
}

#[test]
fn actions_take_effect() {
    let respond = |text: &str| match &route(&good(&with_route(text))).action {
        RouteAction::Respond(respond) => {
            let headers: Vec<_> = respond.headers.iter().map(|(name, t)| format!("{name}: {}", t.source())).collect();
            (respond.status, headers.join("\n"), String::from_utf8(respond.body.to_vec()).unwrap())
        }
        action => panic!("{action:?}"),
    };
    let text = |status, headers: &str, body: &str| (status, headers.to_owned(), body.to_owned());
    assert_eq!(respond("respond = {}"), text(200, "", ""));
    assert_eq!(respond("respond = { status = 204 }"), text(204, "", ""));
    let typed = "Content-Type: text/plain; charset=utf-8";
    assert_eq!(respond("respond = { body = \"ok\" }"), text(200, typed, "ok"));
    let more =
        "respond = { status = 503, body = \"x\", content_type = \"text/html\", headers = { Retry-After = \"9\" } }";
    assert_eq!(respond(more), text(503, "Content-Type: text/html\nRetry-After: 9", "x"));
    let largest = format!("respond = {{ body = \"{}\" }}", "x".repeat(64 << 10));
    assert_eq!(respond(&largest).2.len(), 64 << 10);
    let redirect = "redirect = { location = \"https://{host}{path}{query}\" }";
    match &route(&good(&with_route(redirect))).action {
        RouteAction::Redirect(redirect) => assert_eq!(redirect.status, 308),
        action => panic!("{action:?}"),
    }
    for location in ["/new", "/new{path}", "{path}", "http://a.example", "https://u.example:8443/{query.q}", "/a%20#x"]
    {
        good(&with_route(&format!("redirect = {{ location = \"{location}\" }}")));
    }
}

/// What follows `upstream = ...`, the place and key of its error, and the rest of the sentence.
const PROXIED: &[(&str, &str, &str)] = &[
    (
        "add_prefix = \"v2\"",
        "5:14: route.add_prefix",
        "\"v2\" does not begin with a slash; expected for example \"/chat\" or \"/live/*\"",
    ),
    ("add_prefix = \"//\"", "5:14: route.add_prefix", "\"//\" adds nothing; omit it"),
    ("add_prefix = 1", "5:14: route.add_prefix", "1 is not a string; put it in quotes"),
    ("rewrite = \"/a\"", "5:11: route.rewrite", "not a table; use rewrite = { ... }"),
    (
        "rewrite = { pattern = \"a\" }",
        "5:11: route.rewrite",
        "expected pattern and replace, or path alone, for example rewrite = { pattern = \"^/ws/(?<rest>.*)\", replace \
         = \"/{rest}\" }",
    ),
    ("rewrite = { pattrn = \"a\" }", "5:13: route.rewrite.pattrn", "unknown key; did you mean \"pattern\"?"),
    (
        "strip_prefix = \"/a\"\nrewrite = { path = \"/b\" }",
        "6:11: route.rewrite",
        "excludes strip_prefix; remove one of them, and let the pattern match the prefix",
    ),
    (
        "rewrite = { pattern = \"(a\", replace = \"b\" }",
        "5:23: route.rewrite.pattern",
        "\"(a\" is not a regular expression: unclosed group",
    ),
    (
        "rewrite = { pattern = \"(?<path>a)\", replace = \"b\" }",
        "5:23: route.rewrite.pattern",
        "has a group \"path\", which is the name of a variable; rename it",
    ),
    (
        "rewrite = { pattern = \"((a{1000}){1000}){1000}\", replace = \"b\" }",
        "5:23: route.rewrite.pattern",
        "\"((a{1000}){1000}){1000}\" is too large a regular expression: it compiles to more than 262144 bytes",
    ),
    (
        "rewrite = { pattern = \"(?<segment>a)\", replace = \"/{segmnt}\" }",
        "5:50: route.rewrite.replace",
        "there is no variable \"{segmnt}\"; did you mean \"segment\"?",
    ),
    (
        "rewrite = { pattern = \"(a)\", replace = \"/{2}\" }",
        "5:40: route.rewrite.replace",
        "there is no variable \"{2}\"; expected \"client_ip\", \"method\", \"host\", \"path\", \"query\", \
         \"request_id\", \"route\", \"tls.subject\", \"tls.sha256\", \"identity\", \"query.NAME\", \"header.NAME\", \
         \"cookie.NAME\" or \"claim.NAME\"",
    ),
    (
        "rewrite = { pattern = \"a\", replace = \"/{host\" }",
        "5:38: route.rewrite.replace",
        "\"/{host\" has a \"{\" without \"}\"; write \"{{\" for a brace",
    ),
    (
        "rewrite = { pattern = \"a\", replace = \"/}\" }",
        "5:38: route.rewrite.replace",
        "\"/}\" has a \"}\" without \"{\"; write \"}}\" for a brace",
    ),
    (
        "rewrite = { pattern = \"a\", replace = \"/?x\" }",
        "5:38: route.rewrite.replace",
        "\"/?x\" has a character not allowed in a path; percent-encode it, and omit the query",
    ),
    (
        "rewrite = { pattern = \"a\", replace = \"%2{host}\" }",
        "5:38: route.rewrite.replace",
        "\"%2{host}\" has a \"%\" without two hex digits, or an encoded NUL; encode it as \"%25\"",
    ),
    (
        "rewrite = { path = \"{host}\" }",
        "5:20: route.rewrite.path",
        "\"{host}\" does not begin with a slash; expected for example \"/chat\"",
    ),
    (
        "rewrite = { path = \"/a/../b\" }",
        "5:20: route.rewrite.path",
        "\"/a/../b\" has a dot segment; write the resolved path",
    ),
    (
        "rewrite = { path = \"/{name}\" }",
        "5:20: route.rewrite.path",
        "there is no variable \"{name}\"; expected \"client_ip\", \"method\", \"host\", \"path\", \"query\", \
         \"request_id\", \"route\", \"tls.subject\", \"tls.sha256\", \"identity\", \"query.NAME\", \"header.NAME\", \
         \"cookie.NAME\" or \"claim.NAME\"",
    ),
    (
        "path = \"/{room}/{id}\"\nrewrite = { path = \"/{rooom}\" }",
        "6:20: route.rewrite.path",
        "there is no variable \"{rooom}\"; did you mean \"room\"?",
    ),
    (
        "path = \"/{host}/{id}\"\nrewrite = { path = \"/{path.hots}\" }",
        "6:20: route.rewrite.path",
        "there is no variable \"{path.hots}\"; did you mean \"path.host\"?",
    ),
    ("request_headers = []", "5:19: route.request_headers", "not a table; use request_headers = { ... }"),
    ("request_headers = { sett = {} }", "5:21: route.request_headers.sett", "unknown key; did you mean \"set\"?"),
    (
        "request_headers = { remove = [\"a b\"] }",
        "5:31: route.request_headers.remove",
        "\"a b\" is not a header name; expected for example \"X-Tenant\"",
    ),
    (
        "request_headers = { set = { X_Tenant = \"a\" } }",
        "5:29: route.request_headers.set.X_Tenant",
        "\"X_Tenant\" has a \"_\", which many servers take for \"-\"; use \"-\"",
    ),
    (
        "request_headers = { set = { X-A = 1 } }",
        "5:35: route.request_headers.set.X-A",
        "1 is not a string; put it in quotes",
    ),
    (
        "request_headers = { set = { X-A = [\"1\"] } }",
        "5:35: route.request_headers.set.X-A",
        "a list is not a string; put it in quotes",
    ),
    (
        "request_headers = { set = { X-A = \" \" } }",
        "5:35: route.request_headers.set.X-A",
        "\" \" is empty, and an empty header is not sent; use remove",
    ),
    (
        "request_headers = { add = { X-A = [\"1\", \"a\\r\\nb\"] } }",
        "5:35: route.request_headers.add.X-A",
        "\"a\\r\\nb\" has a control character, which no header can hold; remove it",
    ),
    (
        "request_headers = { set = { X-A = \"1\", x-a = \"2\" } }",
        "5:40: route.request_headers.set.x-a",
        "the same header as another one here (case does not matter); use add with a list of values",
    ),
    (
        "request_headers = { add = { cookie = \"a=b\" } }",
        "5:29: route.request_headers.add.cookie",
        "occurs once in a request; use set, for example \"{header.cookie}; more\"",
    ),
    (
        "response_headers = { set = { X-A = \"{hots}\" } }",
        "5:36: route.response_headers.set.X-A",
        "there is no variable \"{hots}\"; did you mean \"host\"?",
    ),
];

/// As above, without an upstream: what follows `[[route]]`.
const ACTIONS: &[(&str, &str, &str)] = &[
    (
        "respond = {}\nupstream = \"ws://10.0.0.1:9000\"",
        "5:12: route.upstream",
        "excludes respond; a route has one of upstream, split, files, respond and redirect",
    ),
    (
        "redirect = { location = \"/a\" }\nrespond = {}",
        "5:11: route.respond",
        "excludes redirect; a route has one of upstream, split, files, respond and redirect",
    ),
    (
        "respond = {}\nsplit = [{ upstream = \"ws://10.0.0.1:9000\", weight = 1 }]",
        "5:9: route.split",
        "excludes respond; a route has one of upstream, split, files, respond and redirect",
    ),
    (
        "respond = {}\nstrip_prefix = \"/a\"",
        "5:16: route.strip_prefix",
        "has no effect in a route with respond; remove it",
    ),
    (
        "redirect = { location = \"/a\" }\nresponse_headers = { set = { X-A = \"b\" } }",
        "5:30: route.response_headers",
        "has no effect in a route with redirect; remove it",
    ),
    (
        "respond = {}\ntimeouts = { idle = \"1h\" }",
        "5:21: route.timeouts.idle",
        "has no effect in a route with respond; remove it",
    ),
    (
        "respond = {}\nlimits = { max_sessions = 9 }",
        "5:27: route.limits.max_sessions",
        "has no effect in a route with respond; remove it",
    ),
    ("respond = 200", "4:11: route.respond", "not a table; use respond = { ... }"),
    ("respond = { stats = 200 }", "4:13: route.respond.stats", "unknown key; did you mean \"status\"?"),
    (
        "respond = { status = 101 }",
        "4:22: route.respond.status",
        "101 is not the status of a final response; expected 200 to 599",
    ),
    (
        "respond = { status = \"200\" }",
        "4:22: route.respond.status",
        "\"200\" is not the status of a final response; expected 200 to 599",
    ),
    ("respond = { status = 302 }", "4:22: route.respond.status", "302 is a redirect; use redirect"),
    (
        "respond = { status = 204, body = \"x\" }",
        "4:34: route.respond.body",
        "a response with status 204 has no body; remove it",
    ),
    ("respond = { body = 1 }", "4:20: route.respond.body", "1 is not a string; put it in quotes"),
    (
        "respond = { body = \"x\", file = \"/dev/null\" }",
        "4:32: route.respond.file",
        "\"/dev/null\" is not a regular file; expected for example \"maintenance.html\"",
    ),
    (
        "respond = { file = \"/no/such/file\" }",
        "4:20: route.respond.file",
        "\"/no/such/file\" cannot be read: No such file or directory (os error 2)",
    ),
    (
        "respond = { body = \"x\", content_type = \"a\\nb\" }",
        "4:40: route.respond.content_type",
        "\"a\\nb\" has a control character, which no header can hold; remove it",
    ),
    (
        "respond = { headers = { content-type = \"text/html\" } }",
        "4:25: route.respond.headers.content-type",
        "use content_type",
    ),
    (
        "respond = { headers = { Content-Length = \"3\" } }",
        "4:25: route.respond.headers.Content-Length",
        "\"Content-Length\" delimits a body, and a wrong one would let requests be smuggled; remove this rule",
    ),
    ("redirect = \"/a\"", "4:12: route.redirect", "not a table; use redirect = { ... }"),
    (
        "redirect = {}",
        "4:12: route.redirect.location",
        "missing; add for example location = \"https://{host}{path}{query}\"",
    ),
    (
        "redirect = { status = 300, location = \"/a\" }",
        "4:23: route.redirect.status",
        "300 is not valid; expected 301, 302, 303, 307 or 308",
    ),
    (
        "redirect = { location = \"a\" }",
        "4:25: route.redirect.location",
        "\"a\" is neither an absolute URL nor a path; expected for example \"https://{host}{path}\" or \"/new{path}\"",
    ),
    (
        "redirect = { location = \"{header.x}\" }",
        "4:25: route.redirect.location",
        "\"{header.x}\" is neither an absolute URL nor a path; expected for example \"https://{host}{path}\" or \
         \"/new{path}\"",
    ),
    (
        "redirect = { location = \"//a.example\" }",
        "4:25: route.redirect.location",
        "\"//a.example\" begins with two slashes, after which a host follows; write the scheme, for example \
         \"https://\"",
    ),
    (
        "redirect = { location = \"https://{header.x}/\" }",
        "4:25: route.redirect.location",
        "\"https://{header.x}/\" lets a request choose the host; name it, or use {host}, before the first slash",
    ),
    (
        "redirect = { location = \"https://a.example{query.x}\" }",
        "4:25: route.redirect.location",
        "\"https://a.example{query.x}\" lets a request choose the host; name it, or use {host}, before the first slash",
    ),
    (
        "redirect = { location = \"https://{path}\" }",
        "4:25: route.redirect.location",
        "\"https://{path}\" lets a request choose the host; name it, or use {host}, before the first slash",
    ),
    (
        "redirect = { location = \"/a b\" }",
        "4:25: route.redirect.location",
        "\"/a b\" has a character not allowed in a URL; percent-encode it",
    ),
];

#[test]
fn errors_name_their_place_and_what_is_right() {
    let proxied = PROXIED.iter().map(|(text, at, why)| (proxied(text), at, why));
    let actions = ACTIONS.iter().map(|(text, at, why)| (with_route(text), at, why));
    let wrong: Vec<_> = proxied
        .chain(actions)
        .filter_map(|(text, at, why)| {
            let (wanted, found) = (format!("framegate.toml:{at}: {why}"), bad(&text));
            (!found.contains(&wanted)).then(|| format!("{text}\nwanted {wanted}\nfound  {}", found.join("\n       ")))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn protected_headers_are_refused_with_what_to_use_instead() {
    let hop = "belongs to one connection";
    let both = [
        ("Connection", hop),
        ("Keep-Alive", hop),
        ("Proxy-Connection", hop),
        ("Proxy-Authenticate", hop),
        ("Proxy-Authorization", hop),
        ("TE", hop),
        ("upgrade", hop),
        ("Content-Length", "delimits a body"),
        ("transfer-encoding", "delimits a body"),
        ("Trailer", "delimits a body"),
        ("Expect", "delimits a body"),
        ("Sec-WebSocket-Key", "belongs to the WebSocket handshake"),
        ("sec-websocket-protocol", "belongs to the WebSocket handshake"),
        ("X-Request-Id", "{request_id}"),
        ("X_Any", "use \"-\""),
    ];
    let requests = [
        ("Host", "use host_header"),
        ("Forwarded", "trusted_proxies"),
        ("X-Forwarded-For", "trusted_proxies"),
        ("x-forwarded-anything", "trusted_proxies"),
        ("X-Real-IP", "{client_ip}"),
        ("X-Client-Cert-Subject", "{tls.subject}"),
        ("traceparent", "is continued or started"),
        ("tracestate", "belongs to traceparent"),
    ];
    for (name, why) in both.iter().chain(&requests) {
        for rule in ["remove = [\"NAME\"]", "set = { NAME = \"x\" }", "add = { NAME = \"x\" }"] {
            let rule = rule.replace("NAME", name);
            let found = bad(&proxied(&format!("request_headers = {{ {rule} }}")));
            assert!(found.len() == 1 && found[0].contains(why), "{rule}: {found:?}");
            let response = proxied(&format!("response_headers = {{ {rule} }}"));
            if requests.iter().any(|(known, _)| known == name) {
                good(&response);
            } else {
                assert!(bad(&response)[0].contains(why), "{rule}");
            }
        }
    }
}

#[test]
fn bodies_are_bounded() {
    let large = "x".repeat((64 << 10) + 1);
    let found = bad(&with_route(&format!("respond = {{ body = \"{large}\" }}")));
    assert_eq!(found, ["framegate.toml:4:20: route.respond.body: is too large; at most 64 KiB"]);
    let path = std::env::temp_dir().join(format!("framegate-body-{}", std::process::id()));
    std::fs::write(&path, &large).unwrap();
    let found = bad(&with_route(&format!("respond = {{ file = {path:?} }}")));
    std::fs::write(&path, &large[1..]).unwrap();
    let largest = good(&with_route(&format!("respond = {{ file = {path:?} }}")));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(found, [format!("framegate.toml:4:20: route.respond.file: {path:?} is too large; at most 64 KiB")]);
    assert!(matches!(&route(&largest).action, RouteAction::Respond(respond) if respond.body.len() == 64 << 10));
}

#[test]
fn check_shows_what_is_changed_and_answered() {
    for (more, shown) in [
        (proxied("add_prefix = \"/v2\"\nstrip_prefix = \"/a\""), ", strips /a, adds /v2\n"),
        (proxied("rewrite = { pattern = \"^/ws/(.*)\", replace = \"/{1}\" }"), ", replaces ^/ws/(.*) with /{1}\n"),
        (proxied("rewrite = { path = \"/x\" }"), ", sends /x\n"),
        (
            proxied(
                "[route.request_headers]\nremove = [\"A\", \"B\"]\nset = { C = \"1\" }\n\
                 [route.response_headers]\nadd = { D = \"1\" }",
            ),
            ", request headers: removes A B, sets C, response headers: adds D\n",
        ),
        (with_route("respond = { status = 503, body = \"later\" }"), "  /* -> responds with 503, 5 B\n"),
        (
            with_route("redirect = { location = \"https://{host}/\" }"),
            "  /* -> redirects with 308 to https://{host}/\n",
        ),
    ] {
        let text = good(&more).describe(4096, 1);
        assert!(text.contains(shown), "{text}");
    }
}
