//! Credentials: what sections and routes mean, and the errors of every key.

use super::{bad, good};

const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// `more` begins at line 6, behind a route that asks for nothing and in an [[auth]] section.
fn section(more: &str) -> String {
    format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n[[auth]]\n{more}\n")
}

/// `more` begins at line 10, in a route behind two sections.
fn route(more: &str) -> String {
    let keys = format!("keys = [{{ owner = \"o\", sha256 = \"{HASH}\" }}]");
    let auth = |name: &str| format!("[[auth]]\nname = \"{name}\"\ntype = \"api_keys\"\n{keys}\n");
    let routed = format!("[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n{more}\n");
    format!(
        "{}[[auth]]\nname = \"b\"\ntype = \"client_certificate\"\n{routed}[[listener]]\nlisten = \"0.0.0.0:80\"\n",
        auth("a")
    )
}

/// The error at this place, which begins so.
#[track_caller]
fn wrong(text: &str, place: &str, why: &str) -> String {
    let all = bad(text);
    let found = all.iter().find(|line| line.contains(&format!("{place}: {why}")) || line.contains(why));
    let found = found.unwrap_or_else(|| panic!("no {place}: {why} in {all:#?}"));
    assert!(found.contains(place), "{found}");
    found.clone()
}

#[test]
fn requirements_are_read() {
    for (written, meaning) in [
        ("\"a\"", "a"),
        ("{ any = [\"a\", \"b\"] }", "any of (a, b)"),
        ("{ all = [\"b\", { any = [\"a\"] }] }", "all of (b, any of (a))"),
    ] {
        let snapshot = good(&route(&format!("auth = {written}\nscopes = [\"x:y\"]\nroles = [\"r\"]")));
        let auth = snapshot.routes.entries()[0].route.auth.as_ref().unwrap();
        assert_eq!(auth.requirement.to_string(), meaning);
        assert_eq!((&auth.scopes[..], &auth.roles[..]), (&["x:y".to_owned()][..], &["r".to_owned()][..]));
    }
    assert_eq!(good(&route("auth = \"a\"")), good(&route("auth = \"a\"")), "a reload sees no change");
    assert_ne!(good(&route("auth = \"a\"")), good(&route("auth = \"b\"")));
}

#[test]
fn secret_parameters_are_those_of_all_sections() {
    let more = format!(
        "name = \"a\"\ntype = \"api_keys\"\nfrom = [\"query:b\", \"authorization\", \"query:a\"]\n\
         keys = [{{ owner = \"o\", sha256 = \"{HASH}\", roles = [\"r\"] }}]"
    );
    assert_eq!(good(&section(&more)).secret_parameters, ["a", "b"]);
}

#[test]
fn wrong_sections_are_reported() {
    const KEYS: &str = "name = \"a\"\ntype = \"api_keys\"\n";
    for (more, place, why) in [
        ("type = \"client_certificate\"", "5:1: auth.name", "missing; add for example name = \"users\""),
        ("name = \"a\"", "5:1: auth.type", "missing; add for example type = \"api_keys\""),
        ("name = \"a\"\ntype = \"api_key\"", "7:8: auth.type", "\"api_key\" is not valid; did you mean \"api_keys\"?"),
        ("name = \"a b\"\ntype = \"client_certificate\"", "6:8: auth.name", "\"a b\" is not a valid name"),
        ("name = \"a\"\ntype = \"api_keys\"", "5:1: auth.keys", "missing; add for example keys = ["),
        (
            "name = \"a\"\ntype = \"client_certificate\"\nkeys = []",
            "8:8: auth.keys",
            "belongs to type = \"api_keys\" or \"jwt\"; remove it",
        ),
        (
            "name = \"a\"\ntype = \"client_certificate\"\nfrom = [\"cookie:a\"]",
            "8:8: auth.from",
            "has no effect on certificates",
        ),
        (
            "name = \"a\"\ntype = \"client_certificate\"\n[[auth]]\nname = \"a\"\ntype = \"client_certificate\"",
            "9:8: auth.name",
            "\"a\" is the name of an earlier [[auth]]; choose another",
        ),
    ] {
        wrong(&section(more), place, why);
    }
    for (keys, why) in [
        ("[\"s3cret\"]", "is not a table; expected for example { owner = "),
        ("[{ owner = \"a\" }]", "has no owner or no sha256"),
        ("[{ owner = \"a\", sha256 = \"s3cret\" }]", "sha256: is not a SHA-256 in hexadecimal; make it with: printf"),
        ("[{ owner = \"a\", key = \"s3cret\" }]", "unknown key \"key\""),
        ("[{ owner = \"a b\", sha256 = \"\" }]", "owner: \"a b\" is not a valid name"),
    ] {
        let said = wrong(&section(&format!("{KEYS}keys = {keys}")), "8:9: auth.keys", why);
        assert!(!said.contains("s3cret"), "{said}");
    }
    let twice =
        format!("{KEYS}keys = [{{ owner = \"a\", sha256 = \"{HASH}\" }}, {{ owner = \"b\", sha256 = \"{HASH}\" }}]");
    wrong(&section(&twice), "auth.keys", "is the key of \"a\" already; each owner needs one of its own");
    for from in [
        "bearer",
        "authorization:x",
        "header:",
        "header:a b",
        "header:Authorization",
        "cookie:",
        "query:",
        "subprotocol:",
        "subprotocol:*",
        "subprotocol:,*",
        "subprotocol:a",
        "subprotocol:a b*",
    ] {
        let why = format!("\"{from}\" is not a place of credentials; expected \"authorization\", \"header:NAME\"");
        wrong(&section(&format!("{KEYS}keys = []\nfrom = [\"{from}\"]")), "9:9: auth.from", &why);
    }
    wrong(&section(&format!("{KEYS}keys = []\nfrom = []")), "9:8: auth.from", "is empty; expected");
}

#[test]
fn wrong_routes_are_reported() {
    for (more, place, why) in [
        ("auth = \"c\"", "10:8: route.auth", "no [[auth]] is named \"c\"; did you mean \"a\" or \"b\"?"),
        ("auth = 1", "10:8: route.auth", "1 is not valid; expected the name of an [[auth]], { any = [...] }"),
        ("auth = {}", "10:8: route.auth", "needs one of any and all"),
        ("auth = { any = [] }", "10:8: route.auth", "expected the name of an [[auth]]"),
        ("auth = { any = [\"a\"], all = [\"b\"] }", "10:8: route.auth", "needs one of any and all"),
        ("auth = { some = [\"a\"] }", "10:8: route.auth", "unknown key \"some\""),
        (
            "auth = { any = [{ any = [{ any = [{ any = [\"a\"] }] }] }] }",
            "10:8: route.auth",
            "is nested more than 3 levels deep",
        ),
        ("scopes = [\"a\"]", "10:10: route.scopes", "has no effect without auth"),
        ("roles = [\"a\"]", "10:9: route.roles", "has no effect without auth"),
        (
            "auth = \"a\"\non_expired_code = 999",
            "11:19: route.on_expired_code",
            "999 is not a close code that may be sent",
        ),
        ("auth = \"a\"\nscopes = [\"a b\"]", "11:11: route.scopes", "\"a b\" is not a scope or role; it has no spaces"),
    ] {
        wrong(&route(more), place, why);
    }
    let many = (0..17).map(|_| "\"a\"").collect::<Vec<_>>().join(", ");
    wrong(&route(&format!("auth = {{ any = [{many}] }}")), "10:8: route.auth", "combines 17 methods; at most 16");
}

const FORWARD: &str = "name = \"a\"\ntype = \"forward\"\n";
const INTROSPECTION: &str = "name = \"a\"\ntype = \"introspection\"\n";
const URL: &str = "url = \"http://127.0.0.1:9091/verify\"\n";

#[test]
fn wrong_servers_are_reported() {
    for (more, place, why) in [
        ("", "5:1: auth.url", "missing; add for example url = \"http://127.0.0.1:9091/verify\""),
        ("url = \"ws://x/\"", "8:7: auth.url", "\"ws://x/\" is not a URL of an HTTP server; expected for example"),
        ("url = \"http://x/a?b\"", "8:7: auth.url", "has a query or fragment; remove it"),
        ("url = \"http://u:p@x/\"", "8:7: auth.url", "has a user name or password; remove it"),
        ("url = \"http://x/\"\nupstream = \"b\"", "9:12: auth.upstream", "excludes url; remove one of them"),
        ("url = \"http://x/\"\npath = \"/b\"", "9:8: auth.path", "has no effect with url, which has a path of its own"),
        ("upstream = \"b\"", "8:12: auth.upstream", "no [[upstream]] is named \"b\"; add an [[upstream]] section"),
        ("url = \"http://x/\"\nhost = \"a b\"", "9:8: auth.host", "\"a b\""),
        ("url = \"http://x/\"\ntimeout = \"0s\"", "9:11: auth.timeout", "\"0s\" is out of range"),
        (
            "url = \"http://x/\"\nmax_pending = 0",
            "9:15: auth.max_pending",
            "0 is not valid; expected a number from 1 to 100000",
        ),
        ("url = \"http://x/\"\nfrom = []", "9:8: auth.from", "has no effect on forward auth"),
        (
            "url = \"http://x/\"\nmethod = \"HEAD\"",
            "9:10: auth.method",
            "\"HEAD\" is not valid; expected \"GET\" or \"POST\"",
        ),
        ("url = \"http://x/\"\nheaders = [\"a b\"]", "9:12: auth.headers", "\"a b\" is not the name of a header"),
        ("url = \"http://x/\"\nheaders = [\"X-Real-IP\"]", "9:12: auth.headers", "is a header of the proxy's own"),
        ("url = \"http://x/\"\ncopy = [\"X-Forwarded-User\"]", "9:9: auth.copy", "is a header of the proxy's own"),
        (
            "url = \"http://x/\"\nidentity_header = \"Connection\"",
            "9:19: auth.identity_header",
            "is a header of the proxy's own",
        ),
        ("url = \"http://x/\"\nexpires_header = \"\"", "9:18: auth.expires_header", "\"\" is not the name of a header"),
        ("url = \"http://x/\"\nttl = \"1s\"", "9:7: auth.ttl", "has no effect without cache"),
        ("url = \"http://x/\"\nnegative_ttl = \"1s\"", "9:16: auth.negative_ttl", "has no effect without cache"),
        ("url = \"http://x/\"\ncache = [\":\"]", "9:10: auth.cache", "\":\" is not the name of a header"),
        ("url = \"http://x/\"\ncache = [\"Cookie\"]\nttl = \"2h\"", "10:7: auth.ttl", "\"2h\" is out of range"),
        (
            "url = \"http://x/\"\nissuer = [\"x\"]",
            "9:10: auth.issuer",
            "belongs to type = \"jwt\" or \"introspection\"; remove it",
        ),
        ("url = \"http://x/\"\nkeys = []", "9:8: auth.keys", "belongs to type = \"api_keys\" or \"jwt\"; remove it"),
    ] {
        wrong(&section(&format!("{FORWARD}{more}")), place, why);
    }
    let named = "[[upstream]]\nname = \"b\"\nendpoints = [\"ws://10.0.0.1/base\"]";
    let why = "its endpoint ws://10.0.0.1/base has a path, which is not used here; put it into auth.path";
    wrong(&section(&format!("{FORWARD}upstream = \"b\"\n{named}")), "8:12: auth.upstream", why);
    let keys = format!("name = \"a\"\ntype = \"api_keys\"\nkeys = []\n{URL}");
    wrong(&section(&keys), "9:7: auth.url", "belongs to type = \"forward\" or \"introspection\"; remove it");
}

#[test]
fn wrong_credentials_for_servers_are_reported_without_them() {
    let file = std::env::temp_dir().join(format!("framegate-config-{}.secret", std::process::id()));
    for (content, why) in
        [("", "does not hold a secret in one line"), ("s3cret\nmore", "does not hold a secret in one line")]
    {
        std::fs::write(&file, content).unwrap();
        let text = section(&format!("{INTROSPECTION}{URL}bearer_file = {file:?}"));
        let said = wrong(&text, "9:15: auth.bearer_file", why);
        assert!(!said.contains("s3cret"), "{said}");
    }
    std::fs::write(&file, "s3cret\n").unwrap();
    let good_one = section(&format!("{INTROSPECTION}{URL}client_id = \"a\"\nclient_secret_file = {file:?}"));
    let snapshot = good(&good_one);
    assert_eq!(snapshot, good(&good_one), "a reload sees no change");
    let shown = format!("{snapshot:?} {}", snapshot.describe(10_000, 2));
    assert!(!shown.contains("s3cret") && !shown.contains("YTpzM2NyZXQ="), "{shown}");
    std::fs::write(&file, "other\n").unwrap();
    assert_ne!(snapshot, good(&good_one));
    for (more, place, why) in [
        ("client_id = \"a\"", "9:13: auth.client_id", "needs client_secret_file"),
        ("client_secret_file = \"/none\"", "9:22: auth.client_secret_file", "cannot read \"/none\": "),
        ("bearer_file = \"/\"", "9:15: auth.bearer_file", "\"/\" is not a regular file"),
        ("leeway = \"1h\"", "9:10: auth.leeway", "\"1h\" is out of range"),
        ("copy = []", "9:8: auth.copy", "belongs to type = \"forward\"; remove it"),
        ("audience = [1]", "9:13: auth.audience", "1 is not a string"),
    ] {
        wrong(&section(&format!("{INTROSPECTION}{URL}{more}")), place, why);
    }
    let both = format!("{INTROSPECTION}{URL}client_id = \"a\"\nbearer_file = {file:?}");
    wrong(&section(&both), "10:15: auth.bearer_file", "excludes client_id; remove one of them");
    let alone = format!("{INTROSPECTION}{URL}client_secret_file = {file:?}");
    wrong(&section(&alone), "9:22: auth.client_secret_file", "needs client_id, whose secret it is");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn calls_take_descriptors_and_memory() {
    let used = |more: &str| {
        let sso = format!("[[auth]]\n{FORWARD}{URL}max_pending = 100\n");
        good(&format!("[[listener]]\nlisten = \"0.0.0.0:80\"\n[[route]]\nupstream = \"ws://10.0.0.1\"\n{more}\n{sso}"))
    };
    let (with, without) = (used("auth = \"a\""), used(""));
    assert_eq!((with.calls_max(), without.calls_max()), (100, 0));
    let sessions = |nofile| [&with, &without].map(|snapshot| snapshot.resolved_limits(nofile).max_sessions);
    let [fewer, all] = sessions(1_000);
    assert!(all - fewer >= 40, "{fewer} {all}");
    let text = with.describe(10_000, 2);
    assert!(text.contains("calls of [[auth]] at a time") && text.contains("answers of [[auth]]"), "{text}");
    assert!(text.contains("a: forward auth by /verify at http://127.0.0.1:9091, within 5s, 100 at a time"), "{text}");
    assert!(!without.describe(10_000, 2).contains("calls of"), "none are made");
}
