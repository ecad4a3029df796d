//! Heartbeats: their keys, what they mean, and what is wrong with a line.

use super::{NAME, bad_beside, good_beside};
use framegate::proto::Sides;
use framegate::proto::settings::Heartbeat;

/// As `WRONG` in the parent.
const WRONG: &[(&str, &str, &str)] = &[
    ("heartbeat = {}\n", "5:13: route.heartbeat", "has no interval; add client = \"30s\", upstream = \"30s\", or both"),
    (
        "heartbeat = { timeout = \"5s\" }\n",
        "5:13: route.heartbeat",
        "has no interval; add client = \"30s\", upstream = \"30s\", or both",
    ),
    (
        "heartbeat = { client = \"50ms\" }\n",
        "5:24: route.heartbeat.client",
        "\"50ms\" is out of range; expected \"100ms\" to \"30days\", or 0 for off",
    ),
    (
        "heartbeat = { upstream = 30 }\n",
        "5:26: route.heartbeat.upstream",
        "30 has no unit; expected for example \"30s\" or \"30ms\"",
    ),
    (
        "heartbeat = { client = \"30s\", timeout = 0 }\n",
        "5:41: route.heartbeat.timeout",
        "0 is out of range; expected \"100ms\" to \"30days\"",
    ),
    (
        "heartbeat = { client = \"30s\", upstream = \"5s\", timeout = \"5s\" }\n",
        "5:58: route.heartbeat.timeout",
        "5s is not below the interval (5s); lower it, or raise the interval",
    ),
    (
        "mode = \"opaque\"\nheartbeat = { client = \"30s\" }\n",
        "6:13: route.heartbeat",
        "requires mode = \"framed\": opaque does not know where a frame ends",
    ),
    (
        "heartbeat = { server = \"30s\" }\n",
        "5:15: route.heartbeat.server",
        "unknown key; expected \"client\", \"upstream\" or \"timeout\"",
    ),
];

#[test]
fn each_error_names_place_key_and_what_is_right() {
    for (more, at, why) in WRONG {
        assert_eq!(bad_beside(more), [format!("{NAME}:{at}: {why}")], "{more}");
    }
}

fn heartbeat(line: &str) -> Option<Heartbeat> {
    good_beside(line).routes.entries()[0].route.settings.relay.heartbeat
}

#[test]
fn a_heartbeat_is_off_unless_a_leg_has_an_interval() {
    let of = |client, upstream, timeout_ms| Some(Heartbeat { interval_ms: Sides::new(client, upstream), timeout_ms });
    assert_eq!(heartbeat(""), None);
    assert_eq!(heartbeat("heartbeat = { client = 0, upstream = \"0s\" }\n"), None);
    assert_eq!(heartbeat("heartbeat = { client = \"30s\" }\n"), of(30_000, 0, 10_000));
    assert_eq!(heartbeat("heartbeat = { upstream = \"5s\" }\n"), of(0, 5_000, 2_500));
    let all = "heartbeat = { client = \"30s\", upstream = \"1m\", timeout = \"29999ms\" }\n";
    assert_eq!(heartbeat(all), of(30_000, 60_000, 29_999));
}

#[test]
fn check_shows_it() {
    let text = |line: &str| good_beside(line).describe(4096, 1);
    assert!(!text("").contains("heartbeat"));
    let one = text("heartbeat = { client = \"30s\" }\n");
    assert!(one.contains(", heartbeat client 30s, upstream off, timeout 10s"), "{one}");
}
