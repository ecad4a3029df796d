//! Reload, start and stop: sources that are unchanged go on, others end.

use super::common::{Proxy, eventually, http, listen, temp_path};
use super::{Held, config, metric, reaches, refused, threads, until, url};
use std::net::SocketAddr;
use std::path::Path;

fn discover(path: &Path, more: &str) -> String {
    config(&format!("{more}discover = {{ file = {{ path = {path:?}, interval = \"100ms\" }} }}"))
}

fn write(path: &Path, addr: SocketAddr) {
    std::fs::write(path, format!("endpoints = [{:?}]", url(addr))).unwrap();
}

#[track_caller]
fn reload(proxy: &Proxy, toml: &str) {
    std::fs::write(&proxy.config, toml).unwrap();
    let answer = http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn unchanged_source_goes_on_over_a_reload() {
    let ((one, a), (two, b)) = (listen(), listen());
    let path = temp_path("toml");
    write(&path, a);
    let proxy = Proxy::start(&discover(&path, ""));
    let mut held = Held::open(&proxy, &one);
    // The new snapshot has the endpoints at once, also if the source fails now.
    std::fs::write(&path, "broken").unwrap();
    proxy.said.wait_for("file fails");
    reload(&proxy, &discover(&path, &format!("endpoints = [\"{}\"]\n", url(b))));
    reaches(&proxy, &[&one, &two], &[]);
    assert!(metric(&proxy, "failures_total", "file") > 0.0, "it is the same source");
    assert_eq!(threads(&proxy), 1);
    held.still_works();
    write(&path, b);
    until(&proxy, "changes_total", "file", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    held.still_works();
}

#[test]
fn changed_source_is_replaced_and_a_removed_one_ends() {
    let ((one, a), (two, b)) = (listen(), listen());
    let (first, second) = (temp_path("toml"), temp_path("toml"));
    write(&first, a);
    write(&second, b);
    let proxy = Proxy::start(&discover(&first, ""));
    reaches(&proxy, &[&one], &[]);
    reload(&proxy, &discover(&second, ""));
    reaches(&proxy, &[&two], &[&one]);
    eventually("the old thread ends", || (threads(&proxy) == 1).then_some(()));
    reload(&proxy, &config(&format!("endpoints = [\"{}\"]", url(a))));
    reaches(&proxy, &[&one], &[&two]);
    eventually("the thread ends", || (threads(&proxy) == 0).then_some(()));
}

#[test]
fn refused_reload_leaves_sources_alone() {
    let ((one, a), (_two, b)) = (listen(), listen());
    let (first, second) = (temp_path("toml"), temp_path("toml"));
    write(&first, a);
    write(&second, b);
    let mut proxy = Proxy::start(&discover(&first, ""));
    let next = discover(&second, "") + "[log]\naccess = \"/nowhere/at/all.log\"\n";
    std::fs::write(&proxy.config, next).unwrap();
    let answer = http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    eventually("the new thread ends", || (threads(&proxy) == 1).then_some(()));
    reaches(&proxy, &[&one], &[]);
    proxy.stop();
}

#[test]
fn source_that_fails_at_the_start_does_not_hold_it_up() {
    let (one, a) = listen();
    let path = temp_path("toml");
    let proxy = Proxy::start(&discover(&path, ""));
    assert_eq!(refused(&proxy), "503");
    proxy.said.wait_for("file fails, keeping its 0 endpoints");
    write(&path, a);
    until(&proxy, "endpoints", "file", 1.0);
    reaches(&proxy, &[&one], &[]);
}
