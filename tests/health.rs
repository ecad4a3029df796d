//! Active health checks through real sockets: what counts as a failure, how many of them change an
//! endpoint's state, and what that means for sessions.

#[path = "health/backend.rs"]
mod backend;
#[path = "health/changes.rs"]
mod changes;
mod common;
#[path = "health/kinds.rs"]
mod kinds;

use common::*;
use std::io::Write;
use std::net::TcpStream;

/// Checks often; `more` are keys of `[upstream.health]`.
const OFTEN: &str = "interval = \"400ms\"\ntimeout = \"390ms\"\nrise = 2\nfall = 3";

const SELDOM: &str = "interval = \"400ms\"\ntimeout = \"390ms\"";

/// A configuration with one upstream `g` of these endpoints; `more` follows in its section.
fn config(endpoints: &[String], more: &str) -> String {
    format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"g\"\n\
         [[upstream]]\nname = \"g\"\nendpoints = {endpoints:?}\n{more}\n"
    )
}

/// The same with health checks; `check` are further keys.
fn checked(endpoints: &[String], check: &str) -> String {
    config(endpoints, &format!("[upstream.health]\n{check}"))
}

fn reload(proxy: &Proxy, toml: &str) {
    std::fs::write(&proxy.config, toml).unwrap();
    let answer = http(proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Waits for the log line of a change of state.
#[track_caller]
fn is_down(proxy: &Proxy, url: &str, why: &str) {
    proxy.said.wait_for(&format!("WARN  upstream g: {url} is down: {why}"));
}

#[track_caller]
fn is_up(proxy: &Proxy, url: &str) {
    proxy.said.wait_for(&format!("INFO  upstream g: {url} is up"));
}

/// The first line of the response to a WebSocket handshake, and the connection.
fn begin(proxy: &Proxy) -> (String, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(request("/session", "").as_bytes()).unwrap();
    let head = read_head(&client);
    (head.lines().next().unwrap_or_default().to_owned(), client)
}

#[track_caller]
fn assert_echoes(client: &mut TcpStream, payload: &[u8]) {
    client.write_all(&masked(0x82, payload)).unwrap();
    assert_eq!(read_frame(client).1, payload);
}

/// Endpoints of `g` in a state.
fn endpoints(proxy: &Proxy, state: &str) -> f64 {
    proxy.metric(&format!("framegate_endpoints{{upstream=\"g\",state=\"{state}\"}}"))
}

fn results(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!("framegate_health_checks_total{{upstream=\"g\",result=\"{result}\"}}"))
}

fn changes_to(proxy: &Proxy, state: &str) -> f64 {
    proxy.metric(&format!("framegate_health_changes_total{{upstream=\"g\",to=\"{state}\"}}"))
}
