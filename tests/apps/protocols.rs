//! Protocols over WebSockets, some with plain requests beside them.

use crate::rig::{self, Server, count, ends, failures, packages, play, relayed};
use serde_json::Value;

/// The clients of a script, on two nodes; what they saw, and the ends of the access log.
fn on_two_nodes(script: &str, upstream: &str, args: &[&str]) -> Option<(Value, Vec<String>)> {
    let packages = packages()?;
    let [a, b] = ["a", "b"].map(|name| Server::start(&packages, script, &[name]));
    let mut proxy = rig::proxy(&[&a, &b], "", upstream);
    let saw = play(&packages, script, &proxy, args);
    Some((saw, ends(&mut proxy)))
}

/// The same on one node.
fn on_one_node(script: &str) -> Option<(Value, Vec<String>)> {
    let packages = packages()?;
    let node = Server::start(&packages, script, &[]);
    let mut proxy = rig::proxy(&[&node], "", "");
    let saw = play(&packages, script, &proxy, &[]);
    Some((saw, ends(&mut proxy)))
}

/// So many WebSockets were relayed, and nothing failed.
#[track_caller]
fn assert_all_well(ends: &[String], sessions: usize) {
    assert_eq!(failures(ends), [""; 0]);
    assert_eq!(relayed(ends), sessions, "{ends:#?}");
}

#[test]
fn sockjs_streams_polls_and_upgrades() {
    let Some((saw, ends)) = on_one_node("sockjs.mjs") else { return };
    assert_eq!(saw["clients"], 15);
    assert_all_well(&ends, 5);
    // Ten clients send by POST, and poll or stream by POST.
    assert!(count(&ends, "answered", 200) > 20 && count(&ends, "answered", 204) > 20, "{ends:#?}");
}

#[test]
fn sockjs_sticks_by_cookie_in_chromium() {
    if rig::chromium().is_none() {
        return;
    }
    let sticky = "sticky = { cookie = \"node\" }";
    let Some((saw, ends)) = on_two_nodes("sockjs.mjs", sticky, &["chromium"]) else { return };
    assert_eq!(saw, serde_json::json!({ "clients": 8, "nodes": 1 }));
    assert_all_well(&ends, 2);
}

#[test]
fn graphql_ws_subscribes() {
    let Some((saw, ends)) = on_one_node("graphql.mjs") else { return };
    assert_eq!(saw["subscriptions"], 20);
    assert_all_well(&ends, 3);
    assert_eq!(count(&ends, "answered", 200), 1);
}

#[test]
fn mqtt_publishes() {
    let Some((saw, ends)) = on_one_node("mqtt.mjs") else { return };
    assert_eq!((&saw["clients"], &saw["messages"]), (&8.into(), &(8 * 8 * 6).into()));
    assert_all_well(&ends, 8);
}

#[test]
fn stomp_publishes() {
    let Some((saw, ends)) = on_one_node("stomp.mjs") else { return };
    assert_eq!(saw["clients"], 6);
    assert_all_well(&ends, 6);
}

/// A POST names a connection, which is known to its node alone; then come a WebSocket, an event
/// stream or polls with that name in the query.
#[track_caller]
fn assert_negotiated(upstream: &str, how: &str) {
    let Some((saw, ends)) = on_two_nodes("signalr.mjs", upstream, &[how]) else { return };
    assert_eq!((&saw["clients"], &saw["nodes"]), (&24.into(), &serde_json::json!(["a", "b"])));
    assert_all_well(&ends, 8);
}

#[test]
fn signalr_negotiates_and_connects_by_cookie() {
    assert_negotiated("sticky = { cookie = \"node\" }", "cookie");
}

#[test]
fn signalr_negotiates_and_connects_by_a_key_of_the_client() {
    assert_negotiated("balance = \"consistent_hash\"\nhash_key = \"query:key\"", "keyed");
}
