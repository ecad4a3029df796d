//! Limits on what a session does: their keys, what a route inherits, and what is wrong with a line.

use super::{LEAST, NAME, bad_beside, good, good_beside};
use framegate::config::Snapshot;
use framegate::proto::Side;
use framegate::proto::rate::{Measure, OnExcess, Rate, RateLimit};
use framegate::proto::settings::{FlowLimits, SessionAge};

/// As `WRONG` in the parent.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "limits.messages = { close = 4003 }\n",
        "5:19: route.limits.messages.rate",
        "missing; expected for example \"100/60s\", for bytes \"1MiB/s\", or \"off\"",
    ),
    (
        "limits.messages = { rate = \"100\" }\n",
        "5:28: route.limits.messages.rate",
        "\"100\" is not a rate: it has no period; expected for example \"100/60s\", or \"off\"",
    ),
    ("limits.messages = { rate = 100 }\n", "5:28: route.limits.messages.rate", "100 is not a string; put it in quotes"),
    (
        "limits.messages = { rate = \"1MiB/s\" }\n",
        "5:28: route.limits.messages.rate",
        "\"1MiB/s\" is not a rate: \"1MiB\" is not valid, expected a number from 1 to 1073741824; expected for example \
         \"100/60s\", or \"off\"",
    ),
    (
        "limits.bytes = { rate = \"1 parsec/s\" }\n",
        "5:25: route.limits.bytes.rate",
        "\"1 parsec/s\" is not a rate: \"1 parsec\" is not a size, expected for example \"64 KiB\" or \"1 MiB\"; \
         expected for example \"1MiB/s\", or \"off\"",
    ),
    (
        "limits.bytes = { rate = \"2GiB/s\" }\n",
        "5:25: route.limits.bytes.rate",
        "\"2GiB/s\" is not a rate: \"2GiB\" is out of range, expected \"1 B\" to \"1 GiB\"; expected for example \
         \"1MiB/s\", or \"off\"",
    ),
    (
        "limits.messages = { rate = \"5/2days\" }\n",
        "5:28: route.limits.messages.rate",
        "\"5/2days\" is not a rate: \"2days\" is out of range, expected \"10ms\" to \"1day\"; expected for example \
         \"100/60s\", or \"off\"",
    ),
    (
        "limits.messages = { rate = \"0/s\" }\n",
        "5:28: route.limits.messages.rate",
        "\"0/s\" is not a rate: 0 is not valid, expected a number from 1 to 1073741824; expected for example \
         \"100/60s\", or \"off\"",
    ),
    (
        "limits.messages = { rate = \"100/s\", burst = 10 }\n",
        "5:45: route.limits.messages.burst",
        "10 is less than what passes in 200ms at this rate; expected at least 20",
    ),
    (
        "limits.bytes = { rate = \"1MiB/s\", burst = \"64KiB\" }\n",
        "5:43: route.limits.bytes.burst",
        "\"64KiB\" is less than what passes in 200ms at this rate; expected at least \"209716 B\"",
    ),
    (
        "limits.messages = { rate = \"100/s\", close = 1005 }\n",
        "5:45: route.limits.messages.close",
        "1005 is not a close code that may be sent; expected 1000 to 1003, 1007 to 1014, or 3000 to 4999",
    ),
    (
        "limits.messages = { rate = \"100/s\", patience = \"1ms\" }\n",
        "5:48: route.limits.messages.patience",
        "\"1ms\" is out of range; expected \"10ms\" to \"30days\", or 0 for at once, or \"off\" to never close",
    ),
    (
        "limits.messages = { rate = \"100/s\", close = 4003, patience = \"off\" }\n",
        "5:62: route.limits.messages.patience",
        "\"off\" never closes; remove close, or set a time",
    ),
    (
        "mode = \"opaque\"\nlimits.messages = { rate = \"100/60s\" }\n",
        "6:19: route.limits.messages",
        "requires mode = \"framed\": opaque does not read frame headers",
    ),
    (
        "mode = \"opaque\"\nlimits.control_frames = { rate = \"100/60s\" }\n",
        "6:25: route.limits.control_frames",
        "requires mode = \"framed\": opaque does not read frame headers",
    ),
    (
        "mode = \"opaque\"\nlimits.fragments = 4\n",
        "6:20: route.limits.fragments",
        "requires mode = \"framed\": opaque does not read frame headers",
    ),
    (
        "limits.fragments = 0\n",
        "5:20: route.limits.fragments",
        "0 is not valid; expected a number from 1 to 1000000000, or \"off\"",
    ),
    (
        "limits.session_age = { jitter = 0.1 }\n",
        "5:22: route.limits.session_age.max",
        "missing; expected for example \"12h\", or 0 for off",
    ),
    (
        "limits.session_age = { max = \"12h\", jitter = 0.9 }\n",
        "5:46: route.limits.session_age.jitter",
        "0.9 is not a share of the age; expected 0 to 0.5, for example 0.1",
    ),
    (
        "[limits]\nsession_age = { max = \"10ms\" }\n",
        "6:23: limits.session_age.max",
        "\"10ms\" is out of range; expected \"1s\" to \"30days\", or 0 for off",
    ),
    (
        "[limits]\nupstream_bytes = { rat = \"1MiB/s\" }\n",
        "6:20: limits.upstream_bytes.rat",
        "unknown key; did you mean \"rate\"?",
    ),
];

#[test]
fn what_is_wrong_is_said_where_it_is() {
    for (more, place, rest) in WRONG {
        let told = bad_beside(more);
        assert_eq!(told, [format!("{NAME}:{place}: {rest}")], "{more}");
    }
}

fn flow(snapshot: &Snapshot) -> &FlowLimits {
    &snapshot.routes.entries()[0].route.settings.relay.flow
}

fn messages(line: &str) -> RateLimit {
    flow(&good_beside(&format!("limits.messages = {{ {line} }}\n"))).rates[Side::Downstream][0]
}

#[test]
fn a_limiter_is_one_line_and_says_what_follows_an_excess() {
    let (measure, rate) = (Measure::Messages, Rate { units: 100, period_ms: 60_000 });
    for (line, burst, on_excess, close_code) in [
        ("rate = \"100/60s\", close = 4003", 100, OnExcess::Close, 4003),
        ("rate = \"100/60s\"", 100, OnExcess::PauseThenClose { patience_ms: 60_000 }, 1008),
        ("rate = \"100/1m\", patience = 0, burst = 7", 7, OnExcess::Close, 1008),
        ("rate = \"100 / m\", patience = \"off\"", 100, OnExcess::Pause, 1008),
        (
            "rate = \"100/60s\", close = 4003, patience = \"10s\"",
            100,
            OnExcess::PauseThenClose { patience_ms: 10_000 },
            4003,
        ),
    ] {
        assert_eq!(messages(line), RateLimit { measure, rate, burst, on_excess, close_code }, "{line}");
    }
    // A burst by default holds what paused reading lets pass at once.
    assert_eq!(messages("rate = \"100/10ms\"").burst, 2_000);
}

#[test]
fn a_route_inherits_each_limit_or_overrides_it() {
    let all = "[limits]\nmessages = { rate = \"10/s\" }\nbytes = { rate = \"1MiB/s\" }\nfragments = 9\n\
               session_age = { max = \"1h\", jitter = 0.5, close = 4000 }\n";
    let age = SessionAge { max_ms: 3_600_000, jitter_ms: 1_800_000, close_code: 4000 };
    let with = |route: &str| flow(&good(&format!("{LEAST}{route}{all}"))).clone();
    let inherited = with("");
    let measures = |flow: &FlowLimits| flow.rates[Side::Downstream].iter().map(|l| l.measure).collect::<Vec<_>>();
    assert_eq!(measures(&inherited), [Measure::Messages, Measure::Bytes]);
    assert_eq!((inherited.fragments, inherited.age), (9, Some(age)));
    let off = with("limits = { messages = { rate = \"off\" }, fragments = \"off\", session_age = { max = 0 } }\n");
    assert_eq!((measures(&off), off.fragments, off.age), (vec![Measure::Bytes], u32::MAX, None));
    let other = with("limits = { messages = { rate = \"7/s\" }, upstream_messages = { rate = \"5/s\" } }\n");
    assert_eq!(other.rates[Side::Downstream][0].rate.units, 7);
    assert_eq!(other.rates[Side::Upstream][0].rate.units, 5);
    // A tunnel inherits what it can keep.
    let opaque = with("mode = \"opaque\"\n");
    assert_eq!((measures(&opaque), opaque.fragments, opaque.age), (vec![Measure::Bytes], u32::MAX, Some(age)));
    assert!(!flow(&good(LEAST)).are_set());
}

#[test]
fn check_says_what_becomes_of_an_excess_and_what_it_takes() {
    let route = "limits = { messages = { rate = \"100/60s\", close = 4003 }, bytes = { rate = \"1MiB/s\", burst = \
                 \"4MiB\" }, upstream_bytes = { rate = \"10MiB/s\", patience = \"off\" }, fragments = 50, session_age = { \
                 max = \"10h\" } }\n[limits]\nmax_sessions = 1024\n";
    let text = good_beside(route).describe(100_000, 1);
    for part in [
        "messages of the client 100/1m (burst 100): Close 4003 at once",
        "bytes of the client 1 MiB/1s (burst 4 MiB): pauses reading, Close 1008 after 1m",
        "bytes of the upstream 10 MiB/1s (burst 10 MiB): pauses reading",
        "at most 50 fragments",
        "Close 1001 at an age of 9h to 10h",
        "   688.0 KiB  limits of 1024 sessions, 688 B each\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}
