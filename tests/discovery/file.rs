//! A file: written, replaced, switched by a symbolic link, half written, gone.

use super::common::{Proxy, assert_quiet, eventually, http, listen, open, read_close, temp_path};
use super::{Held, config, metric, reaches, refused, until, url};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

fn discover(path: &Path) -> String {
    config(&format!("discover = {{ file = {{ path = {path:?}, interval = \"100ms\" }} }}"))
}

fn list(addresses: &[SocketAddr]) -> String {
    let urls: Vec<_> = addresses.iter().map(|addr| url(*addr)).collect();
    format!("endpoints = {urls:?}\n")
}

/// Writes a new file and renames it over the old one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn first_list_is_there_when_the_process_is_ready() {
    let ((one, a), (two, b)) = (listen(), listen());
    let path = temp_path("toml");
    std::fs::write(&path, list(&[a, b])).unwrap();
    let proxy = Proxy::start(&discover(&path));
    assert_eq!(metric(&proxy, "endpoints", "file"), 2.0);
    reaches(&proxy, &[&one, &two], &[]);
}

#[test]
fn replaced_file_moves_new_sessions_and_keeps_open_ones() {
    let ((one, a), (two, b)) = (listen(), listen());
    let path = temp_path("toml");
    std::fs::write(&path, list(&[a])).unwrap();
    let proxy = Proxy::start(&discover(&path));
    let mut held = Held::open(&proxy, &one);
    replace(&path, &list(&[a, b]));
    until(&proxy, "endpoints", "file", 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    replace(&path, &list(&[b]));
    until(&proxy, "changes_total", "file", 3.0);
    reaches(&proxy, &[&two], &[&one]);
    held.still_works();
}

#[test]
fn sessions_on_endpoints_that_are_gone_end_where_the_route_says_so() {
    let ((one, a), (two, b)) = (listen(), listen());
    let path = temp_path("toml");
    std::fs::write(&path, list(&[a])).unwrap();
    let route = "upstream = \"app\"\non_endpoint_down = \"close\"\n";
    let proxy = Proxy::start(&discover(&path).replacen("upstream = \"app\"\n", route, 1));
    let (client, _upstream) = open(&proxy, &one);
    replace(&path, &list(&[a, b]));
    until(&proxy, "changes_total", "file", 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    assert_quiet(&client);
    replace(&path, &list(&[b]));
    assert_eq!(read_close(&client).0, 1012);
}

#[test]
fn upstreams_page_has_sources_and_their_state() {
    let ((_one, a), (_two, b)) = (listen(), listen());
    let path = temp_path("toml");
    std::fs::write(&path, list(&[b])).unwrap();
    let configured = format!("name = \"app\"\nendpoints = [\"{}\"]", url(a));
    let proxy = Proxy::start(&discover(&path).replace("name = \"app\"", &configured));
    std::fs::remove_file(&path).unwrap();
    proxy.said.wait_for("cannot read");
    let answer = http(proxy.admin(), "GET /upstreams HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n");
    let page: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let (discovery, endpoints) = (&page[0]["discovery"], &page[0]["endpoints"]);
    assert_eq!(
        (&discovery["source"], &discovery["endpoints"], &discovery["changes"]),
        (&"file".into(), &1.into(), &1.into())
    );
    assert!(discovery["error"].as_str().unwrap().contains("cannot read"), "{page}");
    let sources: Vec<_> = [0, 1].map(|n| (endpoints[n]["url"].clone(), endpoints[n]["source"].clone())).into();
    assert_eq!(sources, [(url(a).into(), "configuration".into()), (url(b).into(), "file".into())]);
}

#[test]
fn json_list_with_weights_and_priorities() {
    let ((one, a), (two, b)) = (listen(), listen());
    let path = temp_path("json");
    let entry = |addr, more: &str| format!("{{\"url\": \"ws://{addr}\"{more}}}");
    std::fs::write(&path, format!("[{}, {}]", entry(a, ", \"weight\": 3"), entry(b, ""))).unwrap();
    let proxy = Proxy::start(&discover(&path));
    assert_eq!(metric(&proxy, "endpoints", "file"), 2.0);
    reaches(&proxy, &[&one, &two], &[]);
}

/// How Kubernetes mounts a ConfigMap: `endpoints.toml` -> `..data/endpoints.toml`, `..data` -> a
/// folder with a date as its name, and an update replaces `..data`.
#[test]
fn symbolic_link_of_a_folder_is_followed() {
    let ((one, a), (two, b)) = (listen(), listen());
    let folder = temp_path("d");
    let version = |name: &str, text: &str| -> PathBuf {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("endpoints.toml"), text).unwrap();
        name.into()
    };
    let switch = |to: PathBuf| {
        std::os::unix::fs::symlink(to, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    switch(version("..2026_01", &list(&[a])));
    std::os::unix::fs::symlink("..data/endpoints.toml", folder.join("endpoints.toml")).unwrap();
    let proxy = Proxy::start(&discover(&folder.join("endpoints.toml")));
    reaches(&proxy, &[&one], &[]);
    switch(version("..2026_02", &list(&[b])));
    std::fs::remove_dir_all(folder.join("..2026_01")).unwrap();
    until(&proxy, "changes_total", "file", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn half_written_or_missing_file_keeps_the_endpoints_and_shows_their_age() {
    let ((one, a), (two, b)) = (listen(), listen());
    let path = temp_path("toml");
    std::fs::write(&path, list(&[a])).unwrap();
    let proxy = Proxy::start(&discover(&path));
    let whole = list(&[a, b]);
    for broken in [&whole[..whole.len() - 4], "", "endpoints = []"] {
        let failures = metric(&proxy, "failures_total", "file");
        std::fs::write(&path, broken).unwrap();
        eventually("it fails twice", || (metric(&proxy, "failures_total", "file") >= failures + 2.0).then_some(()));
        assert!(metric(&proxy, "age_seconds", "file") >= 0.1, "the age of the last success grows");
        reaches(&proxy, &[&one], &[&two]);
        std::fs::write(&path, list(&[a])).unwrap();
        eventually("it is fresh", || (metric(&proxy, "age_seconds", "file") < 0.1).then_some(()));
    }
    std::fs::remove_file(&path).unwrap();
    proxy.said.wait_for("cannot read");
    reaches(&proxy, &[&one], &[&two]);
    assert_eq!(metric(&proxy, "changes_total", "file"), 1.0, "what did not change is not applied");
    std::fs::write(&path, &whole).unwrap();
    until(&proxy, "endpoints", "file", 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    let said = proxy.said.all();
    let warned = said.iter().filter(|line| line.contains("WARN ") && line.contains("file fails")).count();
    assert_eq!(warned, 4, "one warning for each time that it began to fail");
    assert_eq!(said.iter().filter(|line| line.contains("file has recovered")).count(), 4);
}

#[test]
fn empty_list_is_applied_where_it_is_allowed() {
    let (one, a) = listen();
    let path = temp_path("toml");
    std::fs::write(&path, list(&[a])).unwrap();
    let proxy = Proxy::start(&discover(&path).replace("} }", "}, allow_empty = true }"));
    reaches(&proxy, &[&one], &[]);
    replace(&path, "endpoints = []");
    until(&proxy, "changes_total", "file", 2.0);
    assert_eq!(refused(&proxy), "503");
}

#[test]
fn invalid_entries_are_skipped_and_logged() {
    let (one, a) = listen();
    let path = temp_path("toml");
    std::fs::write(&path, format!("endpoints = [\"ftp://x:1\", \"ws://{a}\", \"ws://10.0.0.300:1\"]")).unwrap();
    let proxy = Proxy::start(&discover(&path));
    assert_eq!(metric(&proxy, "endpoints", "file"), 1.0);
    reaches(&proxy, &[&one], &[]);
    proxy.said.wait_for("has no scheme of a server");
    proxy.said.wait_for("has no valid host");
}

#[test]
fn names_in_a_list_are_resolved() {
    let (one, a) = listen();
    let path = temp_path("toml");
    std::fs::write(&path, format!("endpoints = [\"ws://localhost:{}\"]", a.port())).unwrap();
    let proxy = Proxy::start(&discover(&path));
    reaches(&proxy, &[&one], &[]);
    let (two, b) = listen();
    replace(&path, &format!("endpoints = [\"ws://localhost:{}\"]", b.port()));
    until(&proxy, "changes_total", "file", 2.0);
    reaches(&proxy, &[&two], &[&one]);
}
