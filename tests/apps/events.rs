//! An event stream in Chromium, whose endpoint goes down.

use crate::rig::{self, Server};

#[test]
fn event_source_goes_on_at_another_endpoint_and_misses_nothing() {
    let (Some(packages), Some(_)) = (rig::packages(), rig::chromium()) else { return };
    let nodes: Vec<Server> = (0..2).map(|_| Server::start(&packages, "events.mjs", &[])).collect();
    let mut proxy = rig::proxy(&nodes.iter().collect::<Vec<_>>(), "on_endpoint_down = \"close\"", "");
    let admin = format!("http://{}", proxy.admin());
    let saw = rig::play(&packages, "events.mjs", &proxy, &[&admin]);
    assert_eq!(saw, serde_json::json!({ "nodes": 2, "failures": 2 }));
    let ends = rig::ends(&mut proxy);
    assert_eq!(rig::count(&ends, "endpoint-down", 200), 3, "{ends:#?}");
}
