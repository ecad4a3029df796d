//! Limits for each client: what they mean, and the errors of every key.

use super::{bad, good};
use framegate::policy::keyed::{HandshakeRate, KeyLimit};
use framegate::proto::rate::{Measure, OnExcess, Rate};

const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// `limits` is line 9, in a route that asks for credentials.
fn route(limits: &str) -> String {
    let auth =
        format!("[[auth]]\nname = \"a\"\ntype = \"api_keys\"\nkeys = [{{ owner = \"o\", sha256 = \"{HASH}\" }}]");
    let start = "[[listener]]\nlisten = \"0.0.0.0:80\"\n";
    format!("{start}{auth}\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\nlimits = {{ {limits} }}\nauth = \"a\"\n")
}

#[test]
fn limits_are_read_with_their_defaults() {
    let limits = "per_address = { sessions = 20, handshakes = \"10/s\" }, \
                  per_identity = { handshakes = \"100/1h\", burst = 5, entries = 128 }";
    let snapshot = good(&route(limits));
    let route = &snapshot.routes.entries()[0].route;
    let rate = |units, period_ms, burst| Some(HandshakeRate { rate: Rate { units, period_ms }, burst });
    assert_eq!(
        route.by_address.as_ref().unwrap().limit,
        KeyLimit {
            sessions: Some(20),
            handshakes: rate(10, 1_000, 10),
            ipv6_prefix: 64,
            entries: 65_536,
            shared: false
        }
    );
    assert_eq!(
        route.by_identity.as_ref().unwrap().limit,
        KeyLimit { sessions: None, handshakes: rate(100, 3_600_000, 5), ipv6_prefix: 64, entries: 128, shared: false }
    );
}

#[test]
fn rates_of_all_sessions_of_a_client_are_read() {
    let limits = "per_address = { bytes = { rate = \"1MiB/s\", burst = \"4MiB\", patience = \"off\" } }, \
                  per_identity = { sessions = 5, messages = { rate = \"100/60s\", close = 4003 } }";
    let snapshot = good(&route(limits));
    let found = &snapshot.routes.entries()[0].route;
    let (address, identity) = (found.by_address.as_ref().unwrap(), found.by_identity.as_ref().unwrap());
    let rate = |units, period_ms| Rate { units, period_ms };
    let (bytes, messages) = (address.rates[0], identity.rates[0]);
    assert_eq!((bytes.measure, bytes.rate, bytes.burst), (Measure::Bytes, rate(1 << 20, 1_000), 4 << 20));
    assert_eq!(bytes.on_excess, OnExcess::Pause);
    assert_eq!((messages.rate, messages.burst, messages.close_code), (rate(100, 60_000), 100, 4003));
    assert_eq!(messages.on_excess, OnExcess::Close);
    let said = snapshot.describe(65_536, 2);
    for part in [
        "per address (IPv6 by /64) all sessions together bytes of the client 1 MiB/1s (burst 4 MiB): pauses reading",
        "5 sessions and all sessions together messages of the client 100/1m (burst 100): Close 4003 at once",
        "2 tables of 131072 clients",
        // 24 bytes a place.
        "3.0 MiB  2 tables",
        "limits of",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn errors_name_their_place_and_what_is_right() {
    for (limits, key, why) in [
        ("per_address = {}", "9:26: route.limits.per_address", "limits nothing; add for example sessions = 20"),
        ("total = {}", "9:20: route.limits.total", "limits nothing; add for example messages = { rate = \"10000/s\" }"),
        (
            "total = { bytes = { rate = \"5\" } }",
            "route.limits.total.bytes.rate",
            "\"5\" is not a rate: it has no period",
        ),
        ("total = { sessions = 5 }", "route.limits.total.sessions", "unknown key"),
        (
            "per_address = { sessions = 0 }",
            "route.limits.per_address.sessions",
            "0 is not valid; expected a number from 1",
        ),
        ("per_address = { handshakes = \"10\" }", "route.limits.per_address.handshakes", "\"10\" is not a rate"),
        (
            "per_address = { sessions = 1, burst = 5 }",
            "route.limits.per_address.burst",
            "has no effect without handshakes; remove it",
        ),
        (
            "per_address = { sessions = 1, ipv6_prefix = 8 }",
            "route.limits.per_address.ipv6_prefix",
            "8 is not valid; expected a number from 16 to 128",
        ),
        (
            "per_address = { sessions = 1, entries = 1 }",
            "route.limits.per_address.entries",
            "1 is not valid; expected a number from 64 to 16777216",
        ),
        (
            "per_address = { messages = {} }",
            "9:39: route.limits.per_address.messages.rate",
            "missing; expected for example \"100/60s\"",
        ),
        (
            "per_identity = { bytes = { rate = \"5\" } }",
            "route.limits.per_identity.bytes.rate",
            "\"5\" is not a rate: it has no period",
        ),
        (
            "per_identity = { bytes = { rate = \"1MiB/s\", close = 5 } }",
            "route.limits.per_identity.bytes.close",
            "5 is not a close code that may be sent",
        ),
        (
            "per_address = { control_frames = { rate = \"1/s\" } }",
            "route.limits.per_address.control_frames",
            "unknown key",
        ),
        (
            "per_address = { session = 1 }",
            "route.limits.per_address.session",
            "unknown key; did you mean \"sessions\"?",
        ),
        (
            "per_identity = { sessions = 1, ipv6_prefix = 64 }",
            "route.limits.per_identity.ipv6_prefix",
            "has no effect: a client is known by its credentials; remove it",
        ),
    ] {
        let found = bad(&route(limits));
        let wanted = format!("{key}: {why}");
        assert!(found.iter().any(|line| line.contains(&wanted)), "{limits}\nwanted {wanted}\nfound {found:#?}");
    }
    for limit in ["per_address", "total"] {
        let messages = format!("{limit} = {{ messages = {{ rate = \"1/s\" }} }}");
        let tunnel = route(&messages).replace("auth =", "mode = \"opaque\"\nauth =");
        let why = format!("route.limits.{limit}.messages: requires mode = \"framed\"");
        assert!(bad(&tunnel)[0].contains(&why), "{:?}", bad(&tunnel));
    }
    let without = route("per_identity = { sessions = 1 }").replace("auth = \"a\"\n", "");
    assert!(bad(&without)[0].contains("route.limits.per_identity: has no effect without auth"), "{:?}", bad(&without));
}
