//! What happens when credentials are about to end: `credentials` of routes.

use super::{bad, good};
use framegate::config::Snapshot;
use framegate::policy::route::Route;
use std::sync::Arc;

const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// `more` begins at line 7, in a route behind its upstream, and before sections of credentials.
fn route(more: &str) -> String {
    let keys = format!("name = \"keys\"\ntype = \"api_keys\"\nkeys = [{{ owner = \"o\", sha256 = \"{HASH}\" }}]");
    let forward = "type = \"forward\"\nurl = \"http://127.0.0.1:9091/\"";
    format!(
        "[[listener]]\nlisten = \"0.0.0.0:80\"\n\n\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n{more}\n\
         [[auth]]\n{keys}\n[[auth]]\nname = \"cert\"\ntype = \"client_certificate\"\n\
         [[auth]]\nname = \"sso\"\n{forward}\n"
    )
}

fn first(snapshot: &Snapshot) -> &Arc<Route> {
    &snapshot.routes.entries()[0].route
}

#[test]
fn warning_and_refresh_are_read() {
    let more = "auth = \"keys\"\ncredentials = { warn = \"1m\", warning = \"{seconds} s\", refresh = \"AUTH *!\", \
                max_refresh = \"1KiB\", accepted = \"a\", refused = \"r\" }";
    let snapshot = good(&route(more));
    let renewal = first(&snapshot).renewal.as_ref().unwrap();
    let warning = renewal.warning.as_ref().unwrap();
    assert_eq!((warning.before_ms, warning.text(2_499), warning.text(2_500)), (60_000, "2 s".into(), "3 s".into()));
    let refresh = renewal.refresh.as_ref().unwrap();
    assert_eq!((refresh.accepted.as_deref(), refresh.refused.as_deref()), (Some("a"), Some("r")));
    let form = first(&snapshot).settings.relay.refresh.as_ref().unwrap();
    assert_eq!((&*form.prefix, form.json, form.max_bytes), (&b"AUTH "[..], false, 1024));
    let text = snapshot.describe(1024, 1);
    assert!(text.contains("warns 1m before credentials end, new credentials in messages of up to 1 KiB"), "{text}");
    assert!(text.contains("that begin with \"AUTH \"") && text.contains("new credentials of "), "{text}");
    assert_eq!(good(&route(more)), snapshot, "a reload sees no change");
    assert_ne!(good(&route(&more.replace("1m", "2m"))), snapshot);
    let json =
        "auth = { any = [\"keys\", \"cert\"] }\ncredentials = { refresh = '{ \"type\": \"a b\", \"token\": \"*\" }' }";
    let snapshot = good(&route(json));
    let form = first(&snapshot).settings.relay.refresh.as_ref().unwrap();
    assert_eq!((&*form.prefix, form.json, form.max_bytes), (&b"{\"type\":\"a b\",\"token\":\""[..], true, 8192));
    let alone = good(&route("auth = \"cert\"\ncredentials = { warn = \"1m\", warning = \"x\" }"));
    assert_eq!(first(&alone).settings.relay.refresh, None);
}

#[test]
fn errors_name_the_key_and_what_is_right() {
    let long = format!("credentials = {{ refresh = \"{}*\" }}", "x".repeat(129));
    let text = format!("credentials = {{ warn = \"1m\", warning = \"{}\" }}", "x".repeat(1025));
    for (keys, place, why) in [
        ("credentials = { warn = \"1m\" }", "8:15: route.credentials.warning", "missing; add for example warning = "),
        (
            "credentials = { warning = \"x\" }",
            "8:15: route.credentials.warn",
            "missing; add for example warn = \"60s\"",
        ),
        (
            "credentials = { warn = \"25h\", warning = \"x\" }",
            "8:24: route.credentials.warn",
            "\"25h\" is out of range",
        ),
        (&text, "8:40: route.credentials.warning", "has 1025 bytes; expected 1 to 1024"),
        ("credentials = { refresh = \"AUTH\" }", "8:27: route.credentials.refresh", "\"AUTH\" needs one \"*\""),
        ("credentials = { refresh = \"A * *\" }", "8:27: route.credentials.refresh", "\"A * *\" needs one \"*\""),
        ("credentials = { refresh = \"* x\" }", "8:27: route.credentials.refresh", "\"* x\" needs something before"),
        (&long, "8:27: route.credentials.refresh", "has more than 128 bytes before \"*\""),
        (
            "credentials = { refresh = '{\"a\":*}' }",
            "8:27: route.credentials.refresh",
            "begins like a JSON object, and",
        ),
        (
            "credentials = { refresh = '{\"*\":1}' }",
            "8:27: route.credentials.refresh",
            "needs \"*\" as a string of its own",
        ),
        (
            "credentials = { refresh = '{\"a\":\"x*\"}' }",
            "8:27: route.credentials.refresh",
            "needs \"*\" as a string of",
        ),
        ("credentials = { refresh = '{\"\\n\":\"*\"}' }", "8:27: route.credentials.refresh", "must have no backslash"),
        ("credentials = { refresh = 1 }", "8:27: route.credentials.refresh", "1 is not a string"),
        (
            "credentials = { max_refresh = \"1KiB\" }",
            "8:31: route.credentials.max_refresh",
            "has no effect without refresh",
        ),
        ("credentials = { accepted = \"x\" }", "8:28: route.credentials.accepted", "has no effect without refresh"),
        (
            "credentials = { refresh = \"A *\", max_refresh = \"1MiB\" }",
            "8:48: route.credentials.max_refresh",
            "\"1MiB\" is out of range; expected \"64 B\" to \"64 KiB\"",
        ),
        (
            "credentials = { refresh = \"A *\", refused = \"\" }",
            "8:44: route.credentials.refused",
            "has 0 bytes; expected",
        ),
        ("credentials = { prefix = \"A *\" }", "8:17: route.credentials.prefix", "unknown key; expected \"warn\", "),
        (
            "mode = \"opaque\"\ncredentials = { refresh = \"A *\" }",
            "9:15: route.credentials",
            "requires mode = \"framed\": opaque does not know messages",
        ),
    ] {
        wrong(&format!("auth = \"keys\"\n{keys}"), place, why);
    }
    let keys = "credentials = { refresh = \"A *\" }";
    wrong(&format!("\n{keys}"), "8:15: route.credentials", "has no effect without auth");
    wrong(&format!("auth = \"cert\"\n{keys}"), "8:27: route.credentials.refresh", "has no effect on certificates");
    let why = "needs to know whose credentials are sent; add identity_header to the [[auth]] \"sso\"";
    wrong(&format!("auth = \"sso\"\n{keys}"), "8:27: route.credentials.refresh", why);
}

#[track_caller]
fn wrong(more: &str, place: &str, why: &str) {
    let all = bad(&route(more));
    assert!(all.iter().any(|line| line.contains(&format!("{place}: ")) && line.contains(why)), "{more}: {all:#?}");
}
