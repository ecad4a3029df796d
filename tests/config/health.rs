//! `[upstream.health]`: its meaning, its defaults, and the errors of invalid values.

use super::{bad, good};
use framegate::config::Snapshot;
use framegate::policy::check::{CheckKind, CheckRequest, HealthCheck, Statuses};
use framegate::policy::health::Thresholds;

/// The keys of the section begin in line 9.
fn with(endpoint: &str, keys: &str) -> String {
    format!(
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\n\
         endpoints = [\"{endpoint}\"]\n[upstream.health]\n{keys}\n"
    )
}

fn check(snapshot: &Snapshot) -> HealthCheck {
    snapshot.upstreams[0].check.clone().unwrap()
}

#[track_caller]
fn meant(keys: &str) -> HealthCheck {
    check(&good(&with("ws://10.0.0.1:9000", keys)))
}

#[test]
fn defaults_are_those_of_the_manual() {
    let least = meant("type = \"tcp\"");
    let want = HealthCheck {
        kind: CheckKind::Tcp,
        interval_ms: 5_000,
        jitter_permille: 200,
        timeout_ms: 2_000,
        thresholds: Thresholds { rise: 2, fall: 3 },
        initially_up: true,
        port: None,
    };
    assert_eq!(least, want);
    let request = CheckRequest::default();
    assert_eq!(meant("type = \"http\"").kind, CheckKind::Http(request.clone(), Statuses(vec![200..=399])));
    assert_eq!(meant("type = \"websocket\"").kind, CheckKind::WebSocket { request, ping: false });
    assert_eq!(meant("type = \"tcp\"\ninterval = \"1s\"").timeout_ms, 500, "half an interval that is short");
    let text = with("ws://10.0.0.1:9000", "").replace("[upstream.health]", "");
    assert_eq!(good(&text).upstreams[0].check, None);
}

#[test]
fn every_health_key_takes_effect() {
    let keys = "type = \"http\"\ninterval = \"10s\"\njitter = 0.05\ntimeout = \"4s\"\nrise = 1\nfall = 7\n\
                initial = \"down\"\nport = 81\nmethod = \"HEAD\"\npath = \"/a?b\"\nhost = \"in.example:1\"\n\
                headers = { X-B = \"2\", X-A = \"1\" }\nstatus = [204, \"300-302\", \"401\"]";
    let request = CheckRequest {
        head_only: true,
        path: Some("/a?b".into()),
        host: Some("in.example:1".into()),
        headers: vec![("X-A".into(), "1".into()), ("X-B".into(), "2".into())],
    };
    let want = HealthCheck {
        kind: CheckKind::Http(request, Statuses(vec![204..=204, 300..=302, 401..=401])),
        interval_ms: 10_000,
        jitter_permille: 50,
        timeout_ms: 4_000,
        thresholds: Thresholds { rise: 1, fall: 7 },
        initially_up: false,
        port: Some(81),
    };
    assert_eq!(meant(keys), want);
    let CheckKind::WebSocket { ping, .. } = meant("type = \"websocket\"\nping = true").kind else { panic!() };
    assert!(ping);
    assert_eq!(meant("type = \"http\"\nstatus = 200\njitter = 0").kind.name(), "http");
    let snapshot = good(&with("ws://10.0.0.1:9000", keys));
    assert!(!snapshot.upstreams[0].endpoints()[0].health.is_available(0));
    let text = snapshot.describe(65_536, 2);
    let line = "app: ws://10.0.0.1:9000, checked by http on port 81 HEAD /a?b with Host in.example:1, expects 204, \
                300-302, 401, every 10s (jitter 5.0 %), timeout 4s, rise 1, fall 7, initially down";
    assert!(text.contains(line), "{text}");
}

#[test]
fn each_health_error_has_its_position_and_remedy() {
    let status = "expected for example 200, \"200-399\" or [200, \"300-399\"], from 200 to 599";
    let rows = [
        ("rise = 2", "8:1: upstream.health.type: missing; expected \"tcp\", \"http\" or \"websocket\""),
        ("type = \"htpp\"", "9:8: upstream.health.type: \"htpp\" is not valid; did you mean \"http\"?"),
        ("type = \"tcp\"\ntimout = \"1s\"", "10:1: upstream.health.timout: unknown key; did you mean \"timeout\"?"),
        (
            "type = \"tcp\"\ntimeout = \"5s\"",
            "10:11: upstream.health.timeout: 5s is not below the interval (5s); lower it, or raise \
             upstream.health.interval",
        ),
        (
            "type = \"tcp\"\ninterval = 5",
            "10:12: upstream.health.interval: 5 has no unit; expected for example \"5s\" or \"5ms\"",
        ),
        (
            "type = \"tcp\"\njitter = 0.6",
            "10:10: upstream.health.jitter: 0.6 is not a share of the interval; expected 0 to 0.5, for example 0.2",
        ),
        ("type = \"tcp\"\nrise = 0", "10:8: upstream.health.rise: 0 is not valid; expected a number from 1 to 1000"),
        (
            "type = \"tcp\"\nfall = \"3\"",
            "10:8: upstream.health.fall: \"3\" is not valid; expected a number from 1 to 1000",
        ),
        (
            "type = \"tcp\"\ninitial = \"off\"",
            "10:11: upstream.health.initial: \"off\" is not valid; expected \"up\" or \"down\"",
        ),
        (
            "type = \"tcp\"\nport = 65536",
            "10:8: upstream.health.port: 65536 is not a port; expected a number from 1 to 65535",
        ),
        (
            "type = \"http\"\nmethod = \"POST\"",
            "10:10: upstream.health.method: \"POST\" is not valid; expected \"GET\" or \"HEAD\"",
        ),
        (
            "type = \"http\"\npath = \"healthz\"",
            "10:8: upstream.health.path: \"healthz\" does not begin with a slash; expected for example \"/healthz\"",
        ),
        (
            "type = \"http\"\npath = \"/a b\\r\\n\"",
            "10:8: upstream.health.path: \"/a b\\r\\n\" has a character not allowed in a path or query; percent-encode \
             it",
        ),
        (
            "type = \"http\"\nhost = \"a b\"",
            "10:8: upstream.health.host: \"a b\" is not a host; expected for example \"app.internal\" or \
             \"app.internal:9000\"",
        ),
        (
            "type = \"http\"\nheaders = { Host = \"a\" }",
            "10:20: upstream.health.headers.Host: not set here; use upstream.health.host",
        ),
        (
            "type = \"websocket\"\nheaders = { Sec-WebSocket-Key = \"a\" }",
            "10:33: upstream.health.headers.Sec-WebSocket-Key: not allowed here; the check writes such fields itself",
        ),
        (
            "type = \"http\"\nheaders = { \"X A\" = \"a\" }",
            "10:21: upstream.health.headers.X A: not a valid field name; expected letters, digits and \"-\"",
        ),
        (
            "type = \"http\"\nheaders = { X-A = \"a\\r\\nB: c\" }",
            "10:19: upstream.health.headers.X-A: \"a\\r\\nB: c\" is not a valid value; expected at most 4096 bytes \
             without control characters and without spaces at either end",
        ),
        (
            "type = \"http\"\nheaders = { X-A = 1 }",
            "10:19: upstream.health.headers.X-A: 1 is not a string; put it in quotes",
        ),
        ("type = \"http\"\nstatus = 101", &format!("10:10: upstream.health.status: 101 is not a status; {status}")),
        (
            "type = \"http\"\nstatus = [\"2xx\"]",
            &format!("10:10: upstream.health.status: \"2xx\" is not a status; {status}"),
        ),
        (
            "type = \"http\"\nstatus = \"399-200\"",
            &format!("10:10: upstream.health.status: \"399-200\" is not a status; {status}"),
        ),
        (
            "type = \"http\"\nstatus = []",
            &format!("10:10: upstream.health.status: an empty list matches no status; {status}"),
        ),
        (
            "type = \"websocket\"\nstatus = 200",
            "10:10: upstream.health.status: applies only to type = \"http\"; \"websocket\" expects 101",
        ),
        (
            "type = \"tcp\"\npath = \"/a\"",
            "10:8: upstream.health.path: applies only to type = \"http\" and \"websocket\"",
        ),
        (
            "type = \"tcp\"\nheaders = { X-A = \"1\" }",
            "10:11: upstream.health.headers: applies only to type = \"http\" and \"websocket\"",
        ),
        ("type = \"http\"\nping = true", "10:8: upstream.health.ping: applies only to type = \"websocket\""),
        (
            "type = \"websocket\"\nping = 1",
            "10:8: upstream.health.ping: 1 is not a boolean; expected true or false, \
                                             without quotes",
        ),
    ];
    for (keys, want) in rows {
        assert_eq!(bad(&with("ws://10.0.0.1:9000", keys)), [format!("framegate.toml:{want}")], "{keys}");
    }
    let unix = bad(&with("ws+unix:/run/app.sock", "type = \"tcp\"\nport = 81"));
    let why = "\"ws+unix:/run/app.sock\" has no port; remove this key, or put it into another upstream";
    assert_eq!(unix, [format!("framegate.toml:10:8: upstream.health.port: {why}")]);
    let several = bad(&with("ws://10.0.0.1:9000", "type = \"tcp\"\nrise = 0\nfall = 0\njitter = 2"));
    assert_eq!(several.len(), 3, "{several:?}");
}

#[test]
fn checks_have_their_share_of_the_descriptors() {
    let (checked, not) = (with("ws://10.0.0.1:9000", "type = \"tcp\""), with("ws://10.0.0.1:9000", ""));
    let (checked, not) = (good(&checked), good(&not.replace("[upstream.health]", "")));
    assert_eq!([0, 1024, 16 * 1024, u64::MAX].map(|nofile| checked.checks_max(nofile)), [16, 64, 1024, 1024]);
    assert_eq!([0, 1024, u64::MAX].map(|nofile| not.checks_max(nofile)), [0; 3]);
    assert_eq!(not.resolved_limits(1024).max_sessions, 320);
    // 960 descriptors are left: an eighth for handshakes, 256 spare.
    assert_eq!(checked.resolved_limits(1024).max_sessions, (960 - 120 - 256) / 2);
    assert_eq!(checked.resource_errors(1024, 2), [""; 0]);
    let exact = "[limits]\nmax_sessions = 320\nmax_handshakes = 128\n";
    let exact = good(&format!("{exact}{}", with("ws://10.0.0.1:9000", "type = \"tcp\"")));
    let why = "limits.max_sessions: 320 sessions, 64 health checks and 128 handshakes need 1088 descriptors, but \
               RLIMIT_NOFILE is 1024; raise it or lower these";
    assert_eq!(exact.resource_errors(1024, 2), [why]);
    let text = checked.describe(1024, 2);
    assert!(text.contains("  64 health checks at a time, 101 KiB each\n"), "{text}");
}
