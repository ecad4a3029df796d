//! The rules of upstreams: what they mean, and what is wrong with them.

use super::{NAME, bad, bad_beside, good};
use framegate::policy::balance::Balance;
use framegate::policy::endpoint::Limits;
use framegate::policy::key::HashKey;
use framegate::policy::route::RouteAction;
use framegate::policy::upstream::{Queue, Rules};
use framegate::proto::settings::Failure;

const START: &str =
    "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\n";

#[test]
fn rules_are_read_with_their_units() {
    let snapshot = good(&format!(
        "{START}endpoints = [\"ws://a\", {{ url = \"ws://b\", weight = 7 }}, {{ url = \"ws://c\", priority = 2 }}]\n\
         balance = \"consistent_hash\"\nhash_key = \"cookie:uid\"\nhash_load = 125\nbind = [\"127.0.0.2\", \"::1\"]\n\
         limits = {{ max_sessions = 5, endpoint_pending = 2, queue = 3, queue_timeout = \"7s\" }}\n\
         ejection = {{ failures = 0 }}\nretries = {{ percent = 0, reserve = 1 }}\n"
    ));
    let app = &snapshot.upstreams[0];
    let members: Vec<_> = app.members().iter().map(|m| (m.endpoint.url.clone(), m.weight, m.priority)).collect();
    let expected = [("ws://a", 1, 0), ("ws://b", 7, 0), ("ws://c", 1, 2)];
    assert_eq!(members, expected.map(|(url, weight, priority)| (url.to_owned(), weight, priority)));
    let Rules { balance, hash_key, hash_load_percent, limits, endpoint_limits, queue, ejection, retries, bind, .. } =
        &app.rules;
    assert_eq!((*balance, hash_key), (Balance::ConsistentHash, &HashKey::Cookie("uid".into())));
    assert_eq!((*hash_load_percent, retries.percent, retries.reserve, bind.len()), (125, 0, 1, 2));
    assert_eq!(*limits, Limits { sessions: Some(5), pending: None });
    assert_eq!(*endpoint_limits, Limits { sessions: None, pending: Some(2) });
    assert_eq!(*queue, Queue { max: 3, timeout_ms: 7_000 });
    assert!(ejection.is_none(), "off");
}

#[test]
fn a_route_says_when_a_request_is_sent_again() {
    let text =
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://a\"\nretry_on = [\"closed\", 503]\n";
    let snapshot = good(text);
    let retry_on = &snapshot.routes.entries()[0].route.settings.retry_on;
    let included = [Failure::Closed, Failure::Timeout, Failure::Status(503), Failure::Status(502)];
    assert_eq!(included.map(|failure| retry_on.includes(failure)), [true, false, true, false]);
}

/// A line of an upstream beside a name and an endpoint, and its error behind line 8.
const WRONG: &[(&str, &str)] = &[
    (
        "hash_key = \"uid\"",
        "12: upstream.hash_key: \"uid\" is not valid; expected \"client_ip\", \"path\", \
     \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"",
    ),
    ("hash_key = \"cookie:\"", "12: upstream.hash_key: \"cookie:\" has no valid name"),
    ("hash_key = \"path\"", "12: upstream.hash_key: requires balance = \"consistent_hash\""),
    ("hash_load = 125", "13: upstream.hash_load: requires balance = \"consistent_hash\""),
    (
        "hash_load = 100",
        "13: upstream.hash_load: 100 is not valid; expected a number from 101 to 1000, or 0 for no bound",
    ),
    (
        "slow_start = \"10ms\"",
        "14: upstream.slow_start: \"10ms\" is out of range; expected \"1s\" to \"1h\", or 0 for off",
    ),
    ("slow_start = 5", "14: upstream.slow_start: 5 has no unit; expected for example \"5s\" or \"5ms\""),
    (
        "bind = [\"eth0\"]",
        "9: upstream.bind: \"eth0\" is not an address of this host; expected for example \"10.0.0.7\"",
    ),
    (
        "bind = [\"0.0.0.0\"]",
        "9: upstream.bind: \"0.0.0.0\" is not an address of this host; expected for example \"10.0.0.7\"",
    ),
    ("limits = { max_session = 1 }", "12: upstream.limits.max_session: unknown key; did you mean \"max_sessions\"?"),
    (
        "limits.max_sessions = 0",
        "23: upstream.limits.max_sessions: 0 is not valid; expected a number from 1 to 100000000",
    ),
    (
        "limits.queue = 5",
        "16: upstream.limits.queue: nothing to wait for; add max_sessions, max_pending, \
     endpoint_sessions or endpoint_pending",
    ),
    ("ejection.failures = -1", "21: upstream.ejection.failures: -1 is not valid; expected a number from 0 to 1000000"),
    (
        "ejection.failure_percent = 101",
        "28: upstream.ejection.failure_percent: 101 is not valid; expected a number from 0 to 100",
    ),
    ("ejection = { time = \"10s\", max_time = \"5s\" }", "39: upstream.ejection.max_time: 5s is below time (10s)"),
    (
        "retries.percent = \"25%\"",
        "19: upstream.retries.percent: \"25%\" is not valid; expected a number from 0 to 100",
    ),
];

#[test]
fn each_error_of_a_rule_has_its_position_and_remedy() {
    for (line, error) in WRONG {
        let told = bad_beside(&format!("[[upstream]]\nname = \"x\"\nendpoints = [\"ws://x\"]\n{line}\n"));
        assert_eq!(told.first(), Some(&format!("{NAME}:8:{error}")), "{line}");
    }
}

/// The value of `endpoints`, and its error behind line 7.
const WRONG_ENDPOINTS: &[(&str, &str)] = &[
    (
        "[{ weight = 2 }]",
        "14: upstream.endpoints: has no url; expected for example { url = \"ws://10.0.0.1:9000\", weight = 2 }",
    ),
    ("[{ url = \"ws://a\", wieght = 2 }]", "14: upstream.endpoints: unknown key \"wieght\"; did you mean \"weight\"?"),
    (
        "[{ url = \"ws://a\", weight = 0 }]",
        "14: upstream.endpoints: weight: 0 is not valid; expected a number from 1 to 1000",
    ),
    (
        "[{ url = \"ws://a\", priority = 256 }]",
        "14: upstream.endpoints: priority: 256 is not valid; expected a number from 0 to 255",
    ),
    (
        "[{ url = \"ws://a\", weight = 2 }]",
        "13: upstream.endpoints: weights mean nothing to round_robin; use for example balance = \"weighted\"",
    ),
];

#[test]
fn each_error_of_an_endpoint_has_its_position_and_remedy() {
    for (list, error) in WRONG_ENDPOINTS {
        let told = bad_beside(&format!("[[upstream]]\nname = \"x\"\nendpoints = {list}\n"));
        assert_eq!(told.first(), Some(&format!("{NAME}:7:{error}")), "{list}");
    }
}

#[test]
fn what_a_retry_follows_is_one_of_a_list() {
    for wrong in ["\"refused\"", "200", "600"] {
        let told = bad_beside(&format!("retry_on = [{wrong}]\n"));
        let right = "is not valid; expected \"closed\", \"timeout\" or a status from 400 to 599";
        assert_eq!(told.first(), Some(&format!("{NAME}:5:13: route.retry_on: {wrong} {right}")));
    }
}

#[test]
fn a_split_names_upstreams_with_weights() {
    let snapshot = good(&format!(
        "{}split = [{{ upstream = \"app\", weight = 9 }}, {{ upstream = \"ws://b\", weight = 1 }}]\n\
         split_key = \"header:X-User\"\n[[upstream]]\nname = \"app\"\nendpoints = [\"ws://a\"]\n",
        START.split("upstream =").next().unwrap()
    ));
    let route = &snapshot.routes.entries()[0].route;
    let RouteAction::Split(split) = &route.action else { panic!("{route:?}") };
    let parts: Vec<_> = split.weights().map(|(upstream, weight)| (upstream.name.as_str(), weight)).collect();
    assert_eq!(parts, [("app", 9), ("ws://b", 1)]);
}

/// The keys of a route in place of `upstream`, and the error behind line 4.
const WRONG_SPLITS: &[(&str, &str)] = &[
    (
        "split = []",
        "9: route.split: expected 1 to 64 parts with a weight, for example \
     [{ upstream = \"a\", weight = 9 }, { upstream = \"b\", weight = 1 }]",
    ),
    (
        "split = [\"a\"]",
        "10: route.split: \"a\" is not a part of a split; expected for example \
     { upstream = \"app\", weight = 9 }",
    ),
    (
        "split = [{ upstream = \"ws://a\" }]",
        "10: route.split: has no upstream or no weight; expected for example \
     { upstream = \"app\", weight = 9 }",
    ),
    (
        "split = [{ upstream = \"ws://a\", share = 1 }]",
        "10: route.split: unknown key \"share\"; expected \"upstream\" or \"weight\"",
    ),
    (
        "split = [{ upstream = \"ws://a\", weight = -1 }]",
        "10: route.split: weight: -1 is not valid; expected a number from 0 to 1000000",
    ),
    (
        "split = [{ upstream = \"app\", weight = 1 }]",
        "10: route.split: no [[upstream]] is named \"app\"; add an \
     [[upstream]] section with that name, or use a URL such as \"ws://10.0.0.1:9000\"",
    ),
    (
        "upstream = \"ws://a\"\nsplit = [{ upstream = \"ws://b\", weight = 1 }]",
        "12: route.upstream: conflicts with split; remove one of the two",
    ),
    ("upstream = \"ws://a\"\nsplit_key = \"path\"", "13: route.split_key: nothing to choose; add split = [...]"),
];

#[test]
fn each_error_of_a_split_has_its_position_and_remedy() {
    for (keys, error) in WRONG_SPLITS {
        let told = bad(&format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\n{keys}\n"));
        let line = if error.contains("split_key:") { 5 } else { 4 };
        assert_eq!(told.first(), Some(&format!("{NAME}:{line}:{error}")), "{keys}");
    }
}

/// A key of `sticky`, and its error.
const WRONG_STICKY: &[(&str, &str)] = &[
    ("cookie = \"a b\"", "cookie: \"a b\" is not a name for a cookie"),
    ("secret = \"short\"", "secret: too short; expected at least 16 characters"),
    ("path = \"x\"", "path: \"x\" is not a path; expected for example \"/\""),
    ("same_site = \"Lax\"", "same_site: \"Lax\" is not valid; did you mean \"lax\"?"),
    ("max_age = \"10ms\"", "max_age: \"10ms\" is out of range; expected \"1s\" to"),
];

#[test]
fn each_error_of_a_cookie_has_its_position_and_remedy() {
    for (key, error) in WRONG_STICKY {
        let told = bad_beside(&format!("[[upstream]]\nname = \"x\"\nendpoints = [\"ws://x\"]\nsticky.{key}\n"));
        let column = key.find(" = ").unwrap() + "sticky. = ".len() + 1;
        let expected = format!("{NAME}:8:{column}: upstream.sticky.{error}");
        assert!(told.first().is_some_and(|told| told.starts_with(&expected)), "{key}: {told:?}");
    }
}
