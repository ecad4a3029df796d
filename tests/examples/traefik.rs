//! `examples/traefik`.

use crate::common::*;
use crate::rig::*;

struct Servers {
    live: [Backend; 2],
    probe: Backend,
    rooms: [Backend; 2],
    events: Backend,
    feed: Backend,
}

impl Servers {
    fn start() -> Servers {
        Servers {
            live: ["live1", "live2"].map(Backend::start),
            probe: Backend::start("probe"),
            rooms: ["rooms-v1", "rooms-v2"].map(Backend::start),
            events: Backend::start("events"),
            feed: Backend::start("feed"),
        }
    }

    fn run(&self) -> Proxy {
        let ([live1, live2], [rooms1, rooms2]) = (&self.live, &self.rooms);
        let backends = [
            ("10.0.0.11:9000", live1),
            ("10.0.0.12:9000", live2),
            ("10.0.0.13:9000", &self.probe),
            ("10.0.0.21:9000", rooms1),
            ("10.0.0.22:9000", rooms2),
            ("10.0.0.31:9000", &self.events),
            ("10.0.0.32:9000", &self.feed),
        ];
        Example::framegate("traefik/framegate.toml").backends(&backends).start()
    }
}

#[test]
fn rules_choose_the_service() {
    let servers = Servers::start();
    let proxy = servers.run();
    let rows = [
        ("live.example.com", "/live/a", "", "live"),
        ("LIVE.example.com:8080", "/live", "", "live"),
        ("live.example.com", "/live/a", "User-Agent: probe/1.0\r\n", "probe"),
        ("live.example.com", "/live/a", "User-Agent: a probe/1.0\r\n", "live"),
        ("eu.rooms.example.com", "/any", "", "rooms-v"),
        ("EU.rooms.example.com:8080", "/any", "", "rooms-v"),
        ("admin.example.com", "/events", "", "events"),
        ("admin.example.com", "/feed", "", "feed"),
        ("admin.example.com", "/feed/a", "", "feed"),
    ];
    for (host, target, fields, service) in rows {
        let backend = Ask::new(host, target).with(fields).open(proxy.addr).backend;
        assert!(backend.starts_with(service), "{host}{target} {fields} at {backend}");
    }
    let none = [
        ("live.example.com", "/liveness"),
        ("a.b.rooms.example.com", "/any"),
        ("rooms.example.com", "/any"),
        ("admin.example.com", "/events/a"),
        ("admin.example.com", "/feeder"),
    ];
    for (host, target) in none {
        assert_eq!(Ask::new(host, target).status(proxy.addr), 404, "{host}{target}");
    }
}

#[test]
fn middlewares_change_path_and_headers() {
    let servers = Servers::start();
    let proxy = servers.run();
    let ask = Ask::new("live.example.com", "/live/a/b?c=d").with("X-Debug: 1\r\nX-Edge: mine\r\n");
    let session = ask.open(proxy.addr);
    assert_eq!(session.target(), "/a/b?c=d");
    assert_eq!((session.field("x-edge"), session.field("x-debug")), (Some("traefik"), None));
    let answered = |name: &str| field_of(&session.answer, name);
    assert_eq!((answered("x-frame-options"), answered("server")), (Some("DENY"), None));
    // Not for the route of the probe.
    let probe = Ask::new("live.example.com", "/live/a").with("User-Agent: probe/1.0\r\n").open(proxy.addr);
    assert_eq!((probe.target(), field_of(&probe.answer, "server")), ("/live/a", Some("rig")));
}

#[test]
fn a_quarter_goes_to_the_new_version() {
    let servers = Servers::start();
    let proxy = servers.run();
    let backends = Ask::new("eu.rooms.example.com", "/a").backends(proxy.addr, 200);
    let new = count(&backends, "rooms-v2");
    // Chance: outside of this once in 100,000 runs.
    assert!((22..=82).contains(&new), "{new} of 200");
}

#[test]
fn the_cookie_brings_a_client_back_until_its_check_fails() {
    let servers = Servers::start();
    let proxy = servers.run();
    let ask = Ask::new("live.example.com", "/live/a");
    let first = ask.open(proxy.addr);
    let cookie = field_of(&first.answer, "set-cookie").expect("a cookie");
    for attribute in ["edge=", "HttpOnly", "SameSite=strict", "Max-Age=3600"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let fields = format!("Cookie: {}\r\n", first.cookie().unwrap());
    let back = ask.clone().with(&fields);
    assert_eq!(count(&back.backends(proxy.addr, 6), &first.backend), 6);
    // Others take turns.
    assert_eq!(count(&ask.backends(proxy.addr, 6), "live1"), 3);
    let own = servers.live.iter().find(|backend| backend.name() == first.backend).unwrap();
    own.set_healthy(false);
    wait_state(&proxy, own, "down");
    let moved = back.open(proxy.addr);
    assert_ne!(moved.backend, first.backend);
    assert!(moved.cookie().is_some_and(|new| new.starts_with("edge=") && new != first.cookie().unwrap()));
}

mod kubernetes {
    use super::*;
    use crate::api::{Api, Call};

    fn slice(backend: &Backend) -> String {
        format!(
            r#"{{"metadata":{{"name":"{}","resourceVersion":"7"}},"addressType":"IPv4","endpoints":[{{"addresses":
               ["127.0.0.1"],"conditions":{{"ready":true}}}}],"ports":[{{"name":"ws","port":{}}}]}}"#,
            backend.name(),
            backend.addr.port()
        )
    }

    fn service(call: &Call) -> String {
        assert_eq!(call.path(), "/apis/discovery.k8s.io/v1/namespaces/live/endpointslices");
        let selector = call.query("labelSelector").expect("a selector");
        selector.strip_prefix("kubernetes.io/service-name=").expect("a service").to_owned()
    }

    #[test]
    fn endpoints_come_from_the_cluster_and_go_with_their_pods() {
        let servers = Servers::start();
        let api = Api::start();
        let account = temp_path("account");
        std::fs::create_dir(&account).unwrap();
        std::fs::write(account.join("token"), "t").unwrap();
        std::fs::copy(pki::PKI.ca(), account.join("ca.crt")).unwrap();
        let example = Example::framegate("traefik/framegate-kubernetes.toml");
        let example = example.swap("https://kubernetes.default.svc", &api.url());
        let example = example.swap("/var/run/secrets/kubernetes.io/serviceaccount", account.to_str().unwrap());
        // Spread over 30 s, it may take that long.
        let example = example.swap("on_endpoint_down = \"30s\"", "on_endpoint_down = \"1s\"");
        let starting = std::thread::spawn(move || example.start());
        let mut watch = None;
        for _ in 0..4 {
            let call = api.next();
            let service = service(&call);
            if call.query("watch").is_some() {
                let stream = call.stream();
                if service == "live" {
                    watch = Some(stream);
                }
            } else {
                let backend = if service == "live" { &servers.live[0] } else { &servers.feed };
                let items = slice(backend);
                call.ok(&format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":[{items}]}}"#));
            }
        }
        let proxy = starting.join().unwrap();
        assert_eq!(Ask::new("admin.example.com", "/feed").open(proxy.addr).backend, "feed");
        let live = Ask::new("live.example.com", "/live/a");
        let before = live.open(proxy.addr);
        assert_eq!((&before.backend[..], before.target()), ("live1", "/a"));
        let changed = slice(&servers.live[1]).replace("live2", "live1");
        watch.expect("a watch of live").send(&format!(
            "{{\"type\":\"MODIFIED\",\"object\":{}}}\n",
            changed.replace('\n', "").replace("\"7\"", "\"8\"")
        ));
        assert_eq!(read_close(&before.stream).0, 1012);
        assert_eq!(live.open(proxy.addr).backend, "live2");
        std::fs::remove_dir_all(account).unwrap();
    }
}
