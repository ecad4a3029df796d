//! Limits of a listener, handshakes of a route, limits of an API key: what they mean, and the
//! errors of every key.

use super::{bad, good};
use framegate::policy::auth::Kind;
use framegate::policy::keyed::HandshakeRate;
use framegate::proto::rate::Rate;

const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const ROUTE: &str = "[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";

/// `limits` is line 3.
fn listener(limits: &str) -> String {
    format!("[[listener]]\nlisten = \"0.0.0.0:80\"\nlimits = {{ {limits} }}\n{ROUTE}")
}

/// `limits` is line 5.
fn route(limits: &str) -> String {
    format!("[[listener]]\nlisten = \"0.0.0.0:80\"\n{ROUTE}limits = {{ {limits} }}\n")
}

/// `limits` is line 6, in a key.
fn key(limits: &str) -> String {
    let auth = "[[auth]]\nname = \"a\"\ntype = \"api_keys\"";
    let keys = format!("keys = [{{ owner = \"o\", sha256 = \"{HASH}\", {limits} }}]");
    format!("[[listener]]\nlisten = \"0.0.0.0:80\"\n{auth}\n{keys}\n{ROUTE}auth = \"a\"\n")
}

fn rate(units: u64, period_ms: u64, burst: u64) -> HandshakeRate {
    HandshakeRate { rate: Rate { units, period_ms }, burst }
}

#[test]
fn limits_of_a_listener_are_read_with_their_defaults() {
    assert_eq!(good(&listener("half_open = 5")).listeners[0].limits.as_ref().unwrap().half_open.max(), Some(5));
    let snapshot = good(&listener(
        "half_open = 5000, handshakes = { rate = \"500/s\" }, max_sessions = 7, \
         per_address = { half_open = 20, sessions = 3, handshakes = \"10/s\", burst = 5, ipv6_prefix = 48 }",
    ));
    let limits = snapshot.listeners[0].limits.as_ref().unwrap();
    assert_eq!((limits.half_open.max(), limits.sessions.max()), (Some(5_000), Some(7)));
    let all = limits.handshakes.as_ref().unwrap().limit();
    assert_eq!((all.rate, all.burst), (Rate { units: 500, period_ms: 1_000 }, 500));
    let each = limits.by_address.as_ref().unwrap().limit;
    assert_eq!((each.sessions, each.handshakes), (Some(3), Some(rate(10, 1_000, 5))));
    let half_open = limits.half_open_by_address.as_ref().unwrap().limit;
    assert_eq!((half_open.sessions, half_open.handshakes, half_open.ipv6_prefix), (Some(20), None, 48));
    let said = snapshot.describe(65_536, 2);
    for part in [
        "at most 5000 half-open, 500/1s handshakes (burst 500), at most 7 sessions",
        "per address (IPv6 by /48) 20 half-open, per address (IPv6 by /48) 3 sessions and 10/1s handshakes (burst 5)",
        "2 tables of 131072 clients with limits of their own",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains("2.0 MiB  2 tables"), "{said}");
}

#[test]
fn handshakes_of_a_route_and_limits_of_a_key_are_read() {
    let snapshot = good(&route("handshakes = { rate = \"100/m\", burst = 9 }"));
    let limit = *snapshot.routes.entries()[0].route.handshakes.as_ref().unwrap().limit();
    assert_eq!((limit.rate, limit.burst), (Rate { units: 100, period_ms: 60_000 }, 9));
    assert!(snapshot.describe(65_536, 2).contains("100/1m handshakes (burst 9)"));

    let snapshot = good(&key("sessions = 5, handshakes = \"1/s\", burst = 3"));
    let Kind::ApiKeys(keys) = &snapshot.methods[0].kind else { panic!() };
    let limits = keys.owner(b"test").and_then(|identity| identity.limits.clone());
    assert!(limits.is_none(), "this key is not known");
    assert_eq!((keys.len(), keys.limited()), (1, 1));
    assert!(snapshot.describe(65_536, 2).contains("1 API keys, 1 with limits of their own"));
    let Kind::ApiKeys(keys) = &good(&key("scopes = []")).methods[0].kind else { panic!() };
    assert_eq!(keys.limited(), 0);
}

#[test]
fn errors_name_their_place_and_what_is_right() {
    type Row = (fn(&str) -> String, &'static str, &'static str, &'static str);
    let rows: &[Row] = &[
        (listener, "", "3:10: listener.limits", "limits nothing; add for example half_open = 1000"),
        (listener, "half_open = 0", "3:24: listener.limits.half_open", "0 is not valid; expected a number from 1"),
        (listener, "max_sessions = \"many\"", "3:27: listener.limits.max_sessions", "\"many\" is not"),
        (listener, "half_opne = 5", "listener.limits.half_opne", "unknown key; did you mean \"half_open\"?"),
        (listener, "messages = {}", "listener.limits.messages", "unknown key"),
        (listener, "handshakes = {}", "listener.limits.handshakes.rate", "missing; expected for example \"500/s\""),
        (listener, "handshakes = \"5/s\"", "listener.limits.handshakes", ""),
        (listener, "handshakes = { rate = \"5\" }", "listener.limits.handshakes.rate", "\"5\" is not a rate"),
        (listener, "handshakes = { rate = \"5/s\", burst = 0 }", "listener.limits.handshakes.burst", "0 is not valid"),
        (
            listener,
            "per_address = {}",
            "listener.limits.per_address",
            "limits nothing; add for example half_open = 20, or sessions = 100",
        ),
        (
            listener,
            "total = {}",
            "listener.limits.total",
            "limits nothing; add for example messages = { rate = \"10000/s\" }",
        ),
        (
            listener,
            "per_address = { bytes = { rate = \"5\" } }",
            "listener.limits.per_address.bytes.rate",
            "\"5\" is not a rate: it has no period",
        ),
        (listener, "per_address = { half_open = 0 }", "listener.limits.per_address.half_open", "0 is not valid"),
        (
            listener,
            "per_address = { half_open = 1, burst = 5 }",
            "listener.limits.per_address.burst",
            "has no effect without handshakes; remove it",
        ),
        (
            listener,
            "per_address = { half_open = 1, ipv6_prefix = 8 }",
            "listener.limits.per_address.ipv6_prefix",
            "8 is not valid; expected a number from 16 to 128",
        ),
        (
            listener,
            "per_address = { half_open = 1, entries = 1 }",
            "listener.limits.per_address.entries",
            "1 is not valid; expected a number from 64 to 16777216",
        ),
        (route, "handshakes = {}", "route.limits.handshakes.rate", "missing; expected for example \"500/s\""),
        (route, "half_open = 5", "route.limits.half_open", "unknown key"),
        (key, "sessions = 0", "6:9: auth.keys.sessions", "0 is not valid; expected a number from 1"),
        (key, "handshakes = \"5\"", "6:9: auth.keys.handshakes", "\"5\" is not a rate"),
        (key, "burst = 5", "6:9: auth.keys.burst", "has no effect without handshakes; remove it"),
        (key, "messages = \"5/s\"", "6:9: auth.keys.messages", "\"5/s\" is not a table"),
        (key, "messages = { close = 4003 }", "6:9: auth.keys.messages.rate", "missing; expected for example"),
        (key, "bytes = { rate = \"1MiB/s\", close = 5 }", "6:9: auth.keys.bytes.close", "5 is not a close code"),
        (key, "bytes = { rte = \"1MiB/s\" }", "6:9: auth.keys.bytes", "unknown key \"rte\""),
        (key, "session = 5", "6:9: auth.keys", "unknown key \"session\""),
    ];
    for (text, limits, key, why) in rows {
        let found = bad(&text(limits));
        let wanted = format!("{key}: {why}");
        assert!(found.iter().any(|line| line.contains(&wanted)), "{limits}\nwanted {wanted}\nfound {found:#?}");
        // What could be a key stands in no message.
        assert!(found.iter().all(|line| !line.contains(HASH)), "{found:#?}");
    }
}
