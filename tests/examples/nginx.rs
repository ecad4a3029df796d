//! `examples/nginx`.

use crate::common::*;
use crate::rig::*;
use std::process::Command;

struct Servers {
    api: [Backend; 3],
    next: [Backend; 2],
    rooms: [Backend; 2],
    lobby: [Backend; 2],
}

impl Servers {
    fn start() -> Servers {
        Servers {
            api: ["api1", "api2", "api3"].map(Backend::start),
            next: ["next1", "next2"].map(Backend::start),
            rooms: ["rooms1", "rooms2"].map(Backend::start),
            lobby: ["lobby1", "lobby2"].map(Backend::start),
        }
    }

    /// With the numbers that they have in the files.
    fn swap(&self, example: Example) -> Example {
        let numbers = [11, 12, 13, 14, 15, 21, 22, 31, 32];
        let all = self.api.iter().chain(&self.next).chain(&self.rooms).chain(&self.lobby);
        numbers.iter().zip(all).fold(example, |example, (number, backend)| {
            example.swap(&format!("10.0.0.{number}:9000"), &backend.addr.to_string())
        })
    }

    fn nginx(&self) -> Option<Front> {
        let program = installed("nginx")?;
        let port = free_port();
        let example = self.swap(Example::file("nginx/nginx.conf"));
        let example = example.swap("0.0.0.0:8080", &format!("127.0.0.1:{port}"));
        let example = example.swap("127.0.0.1:9901", &format!("127.0.0.1:{}", free_port()));
        // Where it may write without being root.
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|part| format!("{part}_temp_path temp;"));
        let example = example.swap("http {", &format!("http {{ access_log off; {}", temp.concat()));
        example.assert_local();
        let (folder, file) = folder_with("nginx.conf", &example.text);
        let global = format!("pid {}; error_log stderr;", folder.join("pid").display());
        let command = |global: &str| {
            let mut command = Command::new(&program);
            command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "stderr", "-g", global]);
            command
        };
        assert_valid(command(&global).arg("-t"));
        let run = command(&format!("{global} daemon off; master_process off;"));
        Some(Front::Original(Original::start(run, port, folder)))
    }
}

/// Of both: framegate and, where it is installed, nginx.
fn both(test: impl Fn(&mut Servers, &Front)) {
    let mut servers = Servers::start();
    let front = Front::Framegate(Box::new(servers.swap(Example::framegate("nginx/framegate.toml")).start()));
    test(&mut servers, &front);
    drop(front);
    let mut servers = Servers::start();
    if let Some(front) = servers.nginx() {
        eprintln!("with nginx:");
        test(&mut servers, &front);
    }
}

fn at(target: &str) -> Ask<'_> {
    Ask::new("live.example.com", target)
}

#[test]
fn the_map_chooses_the_api() {
    both(|_, front| {
        for (version, expected) in [("2.7", "next"), ("20.1", "api"), ("1.2.", "api")] {
            let fields = format!("X-Api-Version: {version}\r\n");
            let session = at("/api/a").with(&fields).open(front.addr());
            assert!(session.backend.starts_with(expected), "{version} at {}", session.backend);
        }
        let session = at("/api/a?b=c").open(front.addr());
        assert_eq!((&session.backend[..3], session.target()), ("api", "/api/a?b=c"));
        assert_eq!(session.field("host"), Some("live.example.com"));
        assert_eq!(session.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(at("/other").status(front.addr()), 404);
    });
}

#[test]
fn a_location_may_answer_itself() {
    both(|_, front| {
        let head = "GET /status HTTP/1.1\r\nHost: live.example.com\r\nConnection: close\r\n\r\n";
        let answer = http(front.addr(), head);
        assert!(status_of(&answer) == 200 && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    });
}

#[test]
fn weights_are_kept_and_the_backup_waits() {
    both(|servers, front| {
        let backends = at("/api/a").backends(front.addr(), 40);
        let [first, second] = ["api1", "api2"].map(|name| count(&backends, name));
        // Each worker of framegate has its own turn.
        assert!(first + second == 40 && (28..=32).contains(&first), "{first} and {second}");
        servers.api[0].kill();
        assert_eq!(count(&at("/api/a").backends(front.addr(), 8), "api2"), 8);
        servers.api[1].kill();
        assert_eq!(count(&at("/api/a").backends(front.addr(), 8), "api3"), 8);
    });
}

#[test]
fn a_server_that_refuses_handshakes_is_left_alone_after_max_fails() {
    both(|servers, front| {
        servers.api[0].answer(503);
        assert_eq!(count(&at("/api/a").backends(front.addr(), 20), "api2"), 20);
        assert_eq!(servers.api[0].handshakes(), 3);
    });
}

#[test]
fn sessions_are_balanced_by_their_number() {
    both(|_, front| {
        let next = at("/api/a").with("X-Api-Version: 2.0\r\n");
        let sessions: Vec<_> = (0..10).map(|_| next.open(front.addr())).collect();
        let backends: Vec<_> = sessions.iter().map(|session| session.backend.clone()).collect();
        assert_eq!([count(&backends, "next1"), count(&backends, "next2")], [5, 5]);
    });
}

#[test]
fn a_parameter_becomes_a_header_that_no_client_sends() {
    both(|_, front| {
        let session = at("/api/a?tenant=acme").with("X-Tenant: evil\r\n").open(front.addr());
        assert_eq!(session.field("x-tenant"), Some("acme"));
        let session = at("/api/a").with("X-Tenant: evil\r\n").open(front.addr());
        assert_eq!(session.field("x-tenant"), None);
        let session = at("/lobby/a?tenant=a%20b").open(front.addr());
        assert_eq!(session.field("x-tenant"), Some(if front.is_framegate() { "a b" } else { "a%20b" }));
    });
}

#[test]
fn paths_are_rewritten() {
    both(|_, front| {
        let session = at("/rooms/7/chat/x?room=7").open(front.addr());
        assert_eq!((&session.backend[..5], session.target()), ("rooms", "/chat/x/7?room=7"));
        let session = at("/lobby/a/b?c=d").open(front.addr());
        assert_eq!((&session.backend[..5], session.target()), ("lobby", "/v1/a/b?c=d"));
    });
}

#[test]
fn a_room_keeps_its_server() {
    both(|servers, front| {
        let targets: Vec<_> = (0..60).map(|room| format!("/rooms/a/b?room={room}")).collect();
        let places = || -> Vec<_> { targets.iter().map(|target| at(target).open(front.addr()).backend).collect() };
        let first = places();
        assert!((15..=45).contains(&count(&first, "rooms1")), "{first:?}");
        assert_eq!(places(), first);
        servers.rooms[0].kill();
        assert_eq!(count(&places(), "rooms2"), 60);
    });
}

#[test]
fn an_address_keeps_its_server() {
    both(|_, front| {
        let place = |from: [u8; 4]| Ask { from: from.into(), ..at("/lobby/a") }.open(front.addr()).backend;
        let networks = || -> Vec<_> { (1..=40).map(|n| place([127, 0, n, 1])).collect() };
        let first = networks();
        assert!((8..=32).contains(&count(&first, "lobby1")), "{first:?}");
        assert_eq!(networks(), first);
        let neighbours: Vec<_> = (1..=20).map(|n| place([127, 0, 9, n])).collect();
        let together = [0, 20].contains(&count(&neighbours, "lobby1"));
        assert_ne!(together, front.is_framegate(), "{neighbours:?}");
    });
}
