//! `examples/spring-cloud-gateway`.

use crate::common::*;
use crate::rig::*;
use std::io::Write;

struct Servers {
    chat: [Backend; 3],
    rooms: [Backend; 2],
}

impl Servers {
    fn start() -> Servers {
        Servers {
            chat: ["stable", "canary", "beta"].map(Backend::start),
            rooms: ["rooms1", "rooms2"].map(Backend::start),
        }
    }

    fn run(&self) -> Proxy {
        let [stable, canary, beta] = &self.chat;
        let [rooms1, rooms2] = &self.rooms;
        let chat = [("10.0.0.11:9000", stable), ("10.0.0.12:9000", canary), ("10.0.0.13:9000", beta)];
        let example = Example::framegate("spring-cloud-gateway/framegate.toml").backends(&chat);
        example.backends(&[("10.0.0.21:9000", rooms1), ("10.0.0.22:9000", rooms2)]).start()
    }
}

/// The values of all header lines of a name.
fn values<'a>(session: &'a Session, name: &str) -> Vec<&'a str> {
    let fields = session.received.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[test]
fn paths_are_rewritten_and_headers_added() {
    let servers = Servers::start();
    let proxy = servers.run();
    let fields = "X-Edge: mine\r\nX-Debug: 1\r\n";
    let session = Ask::new("any.example", "/ws/chat/7?a=b").with(fields).open(proxy.addr);
    assert_eq!(session.target(), "/chat/7?a=b");
    assert_eq!((values(&session, "x-edge"), session.field("x-debug")), (vec!["mine", "gateway"], None));
    for (target, expected) in [("/ws", "/ws"), ("/ws/", "/"), ("/ws/a/ws/b", "/a/ws/b"), ("/ws/a%20b", "/a%20b")] {
        assert_eq!(Ask::new("any.example", target).open(proxy.addr).target(), expected);
    }
    assert_eq!(Ask::new("any.example", "/wsx").status(proxy.addr), 404);
}

#[test]
fn a_fifth_goes_to_the_canary() {
    let servers = Servers::start();
    let proxy = servers.run();
    let backends = Ask::new("any.example", "/ws/a").backends(proxy.addr, 200);
    let canary = count(&backends, "canary");
    // Chance: outside of this once in 100,000 runs.
    assert!((15..=70).contains(&canary) && count(&backends, "stable") == 200 - canary, "{canary} of 200");
}

#[test]
fn cookie_and_header_together_are_beta() {
    let servers = Servers::start();
    let proxy = servers.run();
    let backend = |fields: &str| Ask::new("any.example", "/ws/a").with(fields).open(proxy.addr);
    let session = backend("Cookie: a=b; beta=on\r\nX-Client-Version: 2.14\r\n");
    assert_eq!((&session.backend[..], session.target(), session.field("x-edge")), ("beta", "/a", Some("beta")));
    let others = [
        "Cookie: beta=yes\r\n",
        "X-Client-Version: 2.14\r\n",
        "Cookie: beta=yes\r\nX-Client-Version: 12.14\r\n",
        "Cookie: beta=yess\r\nX-Client-Version: 2.14\r\n",
    ];
    for fields in others {
        assert_ne!(backend(fields).backend, "beta", "{fields}");
    }
}

#[test]
fn rooms_take_turns_and_get_the_room() {
    let servers = Servers::start();
    let proxy = servers.run();
    let ask = Ask::new("eu.example.com", "/rooms/7/a/b?token=x");
    let session = ask.open(proxy.addr);
    assert_eq!((session.target(), session.field("x-room")), ("/v2/7/a/b?token=x", Some("7")));
    assert_eq!(field_of(&session.answer, "x-served-by"), Some("edge"));
    let backends = ask.backends(proxy.addr, 10);
    assert_eq!([count(&backends, "rooms1"), count(&backends, "rooms2")], [5, 5]);
    for (host, target) in [("eu.example.com", "/rooms/7/a"), ("example.com", "/rooms/7/a?token=x")] {
        assert_eq!(Ask::new(host, target).status(proxy.addr), 404, "{host}{target}");
    }
}

#[test]
fn a_frame_above_the_limit_ends_the_session() {
    let servers = Servers::start();
    let proxy = servers.run();
    let mut session = Ask::new("any.example", "/ws/a").open(proxy.addr);
    session.stream.write_all(&masked(0x82, &[7; 65_536])).unwrap();
    session.stream.write_all(&masked(0x82, &[7; 65_537])[..14]).unwrap();
    assert_eq!(read_close(&session.stream).0, 1009);
}

/// The line in the comments, in place of the endpoints.
#[test]
fn endpoints_come_from_eureka() {
    let servers = Servers::start();
    let name = "spring-cloud-gateway/framegate.toml";
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("#     ").filter(|line| line.starts_with("discover")));
    let api = crate::api::Api::start();
    let [stable, canary, beta] = &servers.chat;
    let chat = [("10.0.0.11:9000", stable), ("10.0.0.12:9000", canary), ("10.0.0.13:9000", beta)];
    let example = Example::framegate(name).backends(&chat);
    let example = example.swap("endpoints = [\"ws://10.0.0.21:9000\", \"ws://10.0.0.22:9000\"]", line.unwrap());
    let example = example.swap("10.0.0.5:8761", &api.addr.to_string());
    let starting = std::thread::spawn(move || example.start());
    let call = api.next();
    assert_eq!(call.path(), "/eureka/apps/ROOMS");
    let port = servers.rooms[1].addr.port();
    call.ok(&format!(
        r#"{{"application": {{"name": "ROOMS", "instance": [{{"instanceId": "a", "ipAddr": "127.0.0.1",
            "status": "UP", "port": {{"$": {port}, "@enabled": "true"}}}}]}}}}"#
    ));
    let proxy = starting.join().unwrap();
    let ask = Ask::new("eu.example.com", "/rooms/7/a?token=x");
    assert_eq!(count(&ask.backends(proxy.addr, 4), "rooms2"), 4);
}
