//! The end of credentials in established sessions, through real sockets: the warning before it, and
//! new credentials in a message of the client, of which the upstream never sees a byte.
#![cfg(feature = "jwt")]

#[path = "refresh/asked.rs"]
mod asked;
mod common;
#[path = "refresh/paths.rs"]
mod paths;

use common::jwt::{SECRET, signed};
use common::*;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Accepted and refused messages are told.
const TOLD: &str = ", accepted = \"welcome\", refused = \"no\"";

/// Milliseconds since the Unix epoch.
fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A token of `subject` that ends at this second.
fn token(subject: &str, exp: u64) -> String {
    signed(&format!("{{\"sub\":\"{subject}\",\"exp\":{exp},\"scope\":\"chat\"}}"))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A proxy in front of a listener, with these keys of `credentials`.
fn start(credentials: &str, more: &str) -> (Proxy, TcpListener) {
    let secret = temp_path("key");
    std::fs::write(&secret, SECRET).unwrap();
    let (listener, addr) = listen();
    let auth = format!(
        "[[auth]]\nname = \"users\"\ntype = \"jwt\"\nleeway = \"0s\"\nkeys = [{{ secret_file = {secret:?} }}]\n"
    );
    let route = format!("auth = \"users\"\nscopes = [\"chat\"]\ncredentials = {{ {credentials} }}\n{more}\n");
    (Proxy::alone_before(addr, &format!("{route}{auth}[log]\naccess = \"stdout\"")), listener)
}

/// The next second of the clock that is at least so far away.
fn in_seconds(seconds: u64) -> u64 {
    unix_ms().div_ceil(1_000) + seconds
}

fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(&masked(0x81, text.as_bytes())).unwrap();
}

#[track_caller]
fn hears(stream: &TcpStream, text: &str) {
    let (first, payload, _) = read_frame(stream);
    assert_eq!((first, String::from_utf8_lossy(&payload).as_ref()), (0x81, text));
}

/// A message there and back; whatever came before it is not swallowed.
#[track_caller]
fn echo(client: &mut TcpStream, upstream: &mut TcpStream) {
    send(client, "hello");
    hears(upstream, "hello");
    upstream.write_all(&plain(0x81, b"hello")).unwrap();
    hears(client, "hello");
}

fn refreshes(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!("framegate_credential_refreshes_total{{result=\"{result}\"}}"))
}

/// So many have had this result: counts are published within a moment.
#[track_caller]
fn counted(proxy: &Proxy, result: &str, count: f64) {
    eventually(&format!("{count} {result}"), || (refreshes(proxy, result) == count).then_some(()));
}

#[track_caller]
fn ends_with(client: &TcpStream, upstream: &TcpStream, close: (u16, &str)) {
    assert_eq!(read_close(client), (close.0, close.1.to_owned()));
    assert_eq!(read_close(upstream).0, 1001);
}

#[test]
fn a_session_goes_on_with_a_new_token_and_the_upstream_never_sees_it() {
    let (mut proxy, listener) = start(&format!("refresh = \"AUTH *\"{TOLD}"), "on_expired_code = 4001");
    let first = in_seconds(3);
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", first)));
    echo(&mut client, &mut upstream);
    let second = first + 3;
    send(&mut client, &format!("AUTH {}", token("ada", second)));
    hears(&client, "welcome");
    // The first end passes.
    eventually("the first end", || (unix_ms() > first * 1_000 + 500).then_some(()));
    echo(&mut client, &mut upstream);
    ends_with(&client, &upstream, (4001, "credentials expired"));
    assert!((second * 1_000..second * 1_000 + 4_000).contains(&unix_ms()), "at its time");
    counted(&proxy, "accepted", 1.0);
    counted(&proxy, "refused", 0.0);
    drop((client, upstream));
    let line = proxy.log.wait_for("cause=expired");
    assert_eq!((field(&line, "user"), field(&line, "frames_up")), (Some("ada"), Some("2")), "{line}");
    for line in proxy.stop() {
        assert!(!line.contains("AUTH") && !line.contains("eyJ"), "{line}");
    }
}

#[test]
fn what_is_not_valid_changes_nothing() {
    let (proxy, listener) = start(&format!("refresh = '{{\"type\":\"auth\",\"token\":\"*\"}}'{TOLD}"), "");
    let ends = in_seconds(60);
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", ends)));
    let json = |token: &str| format!("{{\"type\": \"auth\", \"token\": \"{token}\"}}");
    let good = token("ada", ends + 60);
    let forged = good.replace('.', ".e");
    let all_wrong = [
        json(""),
        json("x"),
        json(&forged),
        json(&token("ada", ends - 120)),
        json(&signed("{\"sub\":\"ada\",\"scope\":\"chat\"}")),
        json("\\u000d\\u000aX-Evil: 1"),
        "{\"type\":\"auth\",\"token\":\"".to_owned(),
        format!("{{\"type\":\"auth\",\"token\":\"{good}\",\"token\":\"{good}\"}}"),
        format!("{}x", json(&good)),
    ];
    for (n, wrong) in all_wrong.iter().enumerate() {
        send(&mut client, wrong);
        hears(&client, "no");
        echo(&mut client, &mut upstream);
        counted(&proxy, "refused", n as f64 + 1.0);
        // One in a second is judged.
        let begun = Instant::now();
        eventually("a second", || (begun.elapsed().as_millis() > 1_000).then_some(()));
    }
    send(&mut client, &json(&good));
    hears(&client, "welcome");
    echo(&mut client, &mut upstream);
}

#[test]
fn more_than_one_in_a_second_are_not_judged() {
    let (proxy, listener) = start(&format!("refresh = \"AUTH *\"{TOLD}"), "");
    let ends = in_seconds(60);
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", ends)));
    let burst = masked(0x81, b"AUTH x").repeat(50);
    client.write_all(&burst).unwrap();
    hears(&client, "no");
    echo(&mut client, &mut upstream);
    let all = || Some((refreshes(&proxy, "refused"), refreshes(&proxy, "excess")));
    let (refused, _) = eventually("all of them", || all().filter(|(refused, excess)| refused + excess == 50.0));
    assert!(refused <= 2.0, "{refused}");
}

#[test]
fn other_credentials_end_the_session() {
    for claims in [
        "{\"sub\":\"eve\",\"exp\":9999999999,\"scope\":\"chat\"}",
        "{\"sub\":\"ada\",\"exp\":9999999999,\"scope\":\"mail\"}",
    ] {
        let (proxy, listener) = start(&format!("refresh = \"AUTH *\"{TOLD}"), "on_revoked_code = 4003");
        let (mut client, upstream) = open_with(&proxy, &listener, &bearer(&token("ada", in_seconds(60))));
        send(&mut client, &format!("AUTH {}", signed(claims)));
        ends_with(&client, &upstream, (4003, "other credentials"));
        drop((client, upstream));
        proxy.log.wait_for("cause=credentials-changed");
        counted(&proxy, "ended", 1.0);
    }
}

#[test]
fn revoked_credentials_end_the_session_also_when_they_are_new() {
    let (proxy, listener) = start("refresh = \"AUTH *\"", "");
    let (mut client, upstream) = open_with(&proxy, &listener, &bearer(&token("ada", in_seconds(60))));
    let order = "POST /revoke?token=stolen HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(http(proxy.admin(), order).starts_with("HTTP/1.1 200 "));
    send(
        &mut client,
        &format!("AUTH {}", signed("{\"sub\":\"ada\",\"jti\":\"stolen\",\"exp\":9999999999,\"scope\":\"chat\"}")),
    );
    ends_with(&client, &upstream, (4403, "credentials revoked"));
}

#[test]
fn a_message_that_may_hold_a_part_of_a_token_ends_the_session() {
    let long = format!("AUTH {}", "s".repeat(100));
    for bad in [masked(0x01, b"AUTH secr"), masked(0x81, long.as_bytes()), masked(0x01, b"A")] {
        let (proxy, listener) = start("refresh = \"AUTH *\", max_refresh = \"64 B\"", "");
        let (mut client, upstream) = open_with(&proxy, &listener, &bearer(&token("ada", in_seconds(60))));
        client.write_all(&bad).unwrap();
        ends_with(&client, &upstream, (1008, "credentials message"));
        drop((client, upstream));
        proxy.log.wait_for("cause=refresh-format");
    }
}

#[test]
fn the_client_is_warned_between_messages_once_for_each_end() {
    let warning = "warn = \"2s\", warning = '{\"expires_in\":{seconds}}'";
    let (proxy, listener) = start(&format!("{warning}, refresh = \"AUTH *\""), "");
    let ends = in_seconds(4);
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", ends)));
    // The upstream is in the middle of a message, and stays there until the warning is due.
    upstream.write_all(&plain(0x01, b"be")).unwrap();
    assert_eq!(read_frame(&client).1, b"be");
    eventually("the time of the warning", || (unix_ms() > (ends - 2) * 1_000 + 300).then_some(()));
    assert_quiet(&client);
    upstream.write_all(&plain(0x89, b"ping")).unwrap();
    assert_eq!(read_frame(&client).1, b"ping");
    upstream.write_all(&plain(0x80, b"gin")).unwrap();
    assert_eq!(read_frame(&client), (0x80, b"gin".to_vec(), false));
    hears(&client, "{\"expires_in\":2}");
    assert!(unix_ms() < ends * 1_000, "before the end");
    // With a new end it is warned again: at once, as that is near, too.
    send(&mut client, &format!("AUTH {}", token("ada", ends + 1)));
    let (_, text, _) = read_frame(&client);
    assert!([&b"{\"expires_in\":2}"[..], b"{\"expires_in\":3}"].contains(&&text[..]), "{text:?}");
    // By the admin listener; the same end twice is one.
    for _ in 0..2 {
        let order = format!("POST /extend?subject=ada&until={} HTTP/1.1\r\nHost: a\r\n\r\n", ends + 5);
        assert!(http(proxy.admin(), &order).starts_with("HTTP/1.1 200 "));
    }
    hears(&client, "{\"expires_in\":2}");
    assert!((ends + 3) * 1_000 <= unix_ms(), "at its time");
    ends_with(&client, &upstream, (4401, "credentials expired"));
    let warnings = || proxy.metric("framegate_credential_warnings_total");
    eventually("three warnings", || (warnings() == 3.0).then_some(()));
}

#[test]
fn an_end_that_has_moved_is_not_warned_of() {
    let (proxy, listener) =
        start("warn = \"2s\", warning = \"soon\", refresh = \"AUTH *\", accepted = \"welcome\"", "");
    let ends = in_seconds(4);
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", ends)));
    send(&mut client, &format!("AUTH {}", token("ada", ends + 60)));
    hears(&client, "welcome");
    eventually("both times", || (unix_ms() > ends * 1_000 + 300).then_some(()));
    assert_quiet(&client);
    echo(&mut client, &mut upstream);
}

#[test]
fn compression_is_not_offered_where_messages_must_be_recognised() {
    let (proxy, listener) = start("refresh = \"AUTH *\"", "");
    let more = format!("{}Sec-WebSocket-Extensions: permessage-deflate\r\n", bearer(&token("ada", in_seconds(60))));
    let mut client = connect(proxy.addr);
    client.write_all(request("/", &more).as_bytes()).unwrap();
    let head = read_head(&accept(&listener));
    assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
}
