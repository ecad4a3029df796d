//! Pages with WebSockets on their origin, in Chromium.

use crate::common::{field, temp_path};
use crate::rig::{self, Server};
use std::collections::HashSet;

#[test]
fn a_page_of_50_assets_and_a_websocket() {
    let (Some(packages), Some(_)) = (rig::packages(), rig::chromium()) else { return };
    let node = Server::start(&packages, "page.mjs", &[]);
    let mut proxy = rig::proxy(&[&node], "", "");
    let saw = rig::play(&packages, "page.mjs", &proxy, &[]);
    assert_eq!(saw, serde_json::json!({ "assets": 50 }));
    let ends = rig::ends(&mut proxy);
    // Browsers ask for an icon, too.
    let others: Vec<_> = rig::failures(&ends).into_iter().filter(|line| !line.contains("path=/favicon.ico ")).collect();
    assert_eq!(others, [""; 0]);
    assert_eq!((rig::relayed(&ends), rig::count(&ends, "answered", 200)), (1, 51), "{ends:#?}");
    // A browser has six connections to an origin for its requests, and keeps them.
    let requests = ends.iter().filter(|line| line.contains("cause=answered "));
    let clients: HashSet<_> = requests.filter_map(|line| field(line, "client")).collect();
    assert!(clients.len() <= 6, "{clients:?}");
}

/// The folder that the dev server works on.
struct Root(std::path::PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

fn reload_hot(how: &str) {
    let Some(packages) = rig::packages() else { return };
    let root = Root(temp_path("vite"));
    let folder = root.0.to_str().unwrap();
    let node = Server::start(&packages, "vite.mjs", &[folder]);
    let mut proxy = rig::proxy(&[&node], "", "");
    let saw = rig::play(&packages, "vite.mjs", &proxy, &[folder, how]);
    let ends = rig::ends(&mut proxy);
    let sockets = ends.iter().filter(|line| line.contains("path=/?token=") && line.contains(" status=101 ")).count();
    assert_eq!(saw["sockets"], sockets, "{ends:#?}");
    assert!(rig::count(&ends, "answered", 200) >= 4, "{ends:#?}");
}

#[test]
fn vite_says_what_has_changed() {
    reload_hot("by hand");
}

#[test]
fn vite_reloads_a_page_in_chromium() {
    if rig::chromium().is_some() {
        reload_hot("chromium");
    }
}
