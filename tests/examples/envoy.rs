//! `examples/envoy`.

use crate::common::*;
use crate::rig::*;
use std::net::SocketAddr;
use std::process::Command;

struct Servers {
    ticks: [Backend; 3],
    canary: Backend,
    rooms: [Backend; 3],
}

impl Servers {
    fn start() -> Servers {
        Servers {
            ticks: ["ticks1", "ticks2", "ticks3"].map(Backend::start),
            canary: Backend::start("canary"),
            rooms: ["rooms1", "rooms2", "rooms3"].map(Backend::start),
        }
    }

    /// With the numbers that they have in the files.
    fn all(&self) -> impl Iterator<Item = (usize, &Backend)> {
        let numbers = [11, 12, 13, 14, 21, 22, 23];
        numbers.into_iter().zip(self.ticks.iter().chain([&self.canary]).chain(&self.rooms))
    }

    fn framegate(&self) -> Example {
        let swap = |example: Example, (number, backend): (usize, &Backend)| {
            example.swap(&format!("10.0.0.{number}:9000"), &backend.addr.to_string())
        };
        self.all().fold(Example::framegate("envoy/framegate.toml"), swap)
    }

    /// With the ports of its listener and of its admin listener.
    fn envoy(&self) -> Option<(Example, [u16; 2])> {
        installed("envoy")?;
        let [port, admin] = [free_port(), free_port()];
        let swap = |example: Example, (number, backend): (usize, &Backend)| {
            let by = format!("127.0.0.1, port_value: {}", backend.addr.port());
            example.swap(&format!("10.0.0.{number}, port_value: 9000"), &by)
        };
        let example = self.all().fold(Example::file("envoy/envoy.yaml"), swap);
        let example = example.swap("0.0.0.0, port_value: 8080", &format!("127.0.0.1, port_value: {port}"));
        Some((example.swap("port_value: 9901", &format!("port_value: {admin}")), [port, admin]))
    }
}

fn run_envoy(example: &Example, [port, admin]: [u16; 2]) -> Front {
    example.assert_local();
    let (folder, file) = folder_with("envoy.yaml", &example.text);
    let mut command = Command::new(installed("envoy").unwrap());
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn", "-c"]).arg(file);
    let mut envoy = Original::start(command, port, folder);
    envoy.admin = Some(SocketAddr::from(([127, 0, 0, 1], admin)));
    Front::Original(envoy)
}

/// Of both: framegate and, where it is installed, Envoy. The literals are replaced in their files.
fn both(literals: [(&str, &str); 2], test: impl Fn(&mut Servers, &Front)) {
    let swap =
        |example: Example, (from, to): (&str, &str)| if from.is_empty() { example } else { example.swap(from, to) };
    let mut servers = Servers::start();
    let front = Front::Framegate(Box::new(swap(servers.framegate(), literals[0]).start()));
    test(&mut servers, &front);
    drop(front);
    let mut servers = Servers::start();
    if let Some((example, ports)) = servers.envoy() {
        eprintln!("with Envoy:");
        let front = run_envoy(&swap(example, literals[1]), ports);
        test(&mut servers, &front);
    }
}

const AS_IT_IS: [(&str, &str); 2] = [("", ""), ("", "")];

fn ticks() -> Ask<'static> {
    Ask::new("live.example.com", "/ticks/eur-usd?depth=5")
}

#[test]
fn the_original_is_valid() {
    let Some(envoy) = installed("envoy") else { return };
    let file = folder().join("envoy/envoy.yaml");
    assert_valid(Command::new(envoy).args(["--mode", "validate", "--use-dynamic-base-id", "-c"]).arg(file));
}

#[test]
fn a_tenth_goes_to_the_canary_and_a_header_always_does() {
    both(AS_IT_IS, |_, front| {
        let backends = ticks().backends(front.addr(), 200);
        let canary = count(&backends, "canary");
        // Chance: fewer than 4 or more than 45 of 200 once in 100,000 runs.
        assert!((4..=45).contains(&canary), "{canary} of 200");
        assert!(count(&backends, "ticks1") > 20 && count(&backends, "ticks2") > 20, "{backends:?}");
        assert_eq!(count(&backends, "ticks3"), 0, "the backup");
        let always = ticks().with("X-Canary: always\r\n");
        assert_eq!(count(&always.backends(front.addr(), 10), "canary"), 10);
        let session = ticks().open(front.addr());
        assert_eq!((session.target(), session.field("host")), ("/ticks/eur-usd?depth=5", Some("live.example.com")));
        for (host, path) in [("other.example.com", "/ticks/a"), ("live.example.com", "/ticksandmore")] {
            assert_eq!(Ask::new(host, path).status(front.addr()), 404, "{host}{path}");
        }
    });
}

#[test]
fn rooms_are_rewritten() {
    both(AS_IT_IS, |_, front| {
        let session = Ask::new("live.example.com:8080", "/rooms/7?a=b").with("X-Room: 7\r\n").open(front.addr());
        assert!(session.backend.starts_with("rooms"), "{}", session.backend);
        assert_eq!((session.target(), session.field("host")), ("/7?a=b", Some("rooms.internal")));
    });
}

#[test]
fn a_room_keeps_its_server() {
    // A session that has ended may still count, and the bound on load would move a room.
    let unbounded = [("hash_load = 150", "hash_load = 0"), ("hash_balance_factor: 150", "hash_balance_factor: 100000")];
    both(unbounded, |servers, front| {
        let fields: Vec<_> = (0..90).map(|room| format!("X-Room: {room}\r\n")).collect();
        let ask = Ask::new("live.example.com", "/rooms/a");
        let places =
            || -> Vec<_> { fields.iter().map(|room| ask.clone().with(room).open(front.addr()).backend).collect() };
        let first = places();
        for name in ["rooms1", "rooms2", "rooms3"] {
            assert!((12..=48).contains(&count(&first, name)), "{first:?}");
        }
        assert_eq!(places(), first);
        // Without health checks and retries Envoy answers 503 to the rooms of this server.
        if front.is_framegate() {
            servers.rooms[0].kill();
            let then = places();
            let moved = first.iter().zip(&then).filter(|(first, then)| first != then).count();
            assert_eq!((moved, count(&then, "rooms1")), (count(&first, "rooms1"), 0));
        }
    });
}

#[test]
fn a_busy_room_is_spread() {
    both(AS_IT_IS, |_, front| {
        let ask = Ask::new("live.example.com", "/rooms/a").with("X-Room: busy\r\n");
        let sessions: Vec<_> = (0..30).map(|_| ask.open(front.addr())).collect();
        let backends: Vec<_> = sessions.iter().map(|session| session.backend.clone()).collect();
        let most = ["rooms1", "rooms2", "rooms3"].map(|name| count(&backends, name)).into_iter().max();
        // 150 % of 10, and one that was rounded up.
        assert!(most <= Some(16), "{backends:?}");
    });
}

#[test]
fn a_server_that_refuses_handshakes_is_not_felt_and_soon_ejected() {
    both(AS_IT_IS, |servers, front| {
        servers.ticks[0].answer(503);
        let backends = ticks().backends(front.addr(), 80);
        assert_eq!(count(&backends, "ticks1"), 0);
        let seen = servers.ticks[0].handshakes();
        assert!((5..=8).contains(&seen), "{seen} handshakes at a server that refuses them");
        if let Front::Framegate(proxy) = front {
            wait_state(proxy, &servers.ticks[0], "ejected");
        }
    });
}

#[test]
fn checks_take_servers_out_and_the_backup_in() {
    both(AS_IT_IS, |servers, front| {
        let until = |name: &str, left: &str| {
            // Twenty in a row that do not go there: one in a million otherwise.
            eventually(left, || (count(&ticks().backends(front.addr(), 20), name) == 0).then_some(()));
        };
        servers.ticks[0].set_healthy(false);
        until("ticks1", "the first is out");
        // Envoy moves a part of the load to the backup at once.
        if front.is_framegate() {
            assert_eq!(count(&ticks().backends(front.addr(), 20), "ticks3"), 0);
        }
        servers.ticks[1].set_healthy(false);
        until("ticks2", "the second is out");
        let backends = ticks().backends(front.addr(), 20);
        assert!(count(&backends, "ticks1") + count(&backends, "ticks2") == 0 && count(&backends, "ticks3") > 0);
        servers.ticks[0].set_healthy(true);
        eventually("the first is back", || (count(&ticks().backends(front.addr(), 5), "ticks1") > 0).then_some(()));
    });
}

#[test]
fn sessions_above_the_limit_wait_for_one_that_ends() {
    let two = [("max_sessions = 4000", "max_sessions = 2"), ("max_connections: 4000", "max_connections: 2")];
    both(two, |_, front| {
        let open = || -> Vec<_> {
            let sessions = std::iter::repeat_with(|| ticks().open(front.addr()));
            sessions.filter(|session| session.backend != "canary").take(2).collect()
        };
        let sessions = open();
        // The canary has no such limit, and takes some of these.
        let mut sent = Vec::new();
        eventually("one waits", || {
            if !is_waiting(front) {
                sent.push(ticks().send(front.addr()));
                return None;
            }
            Some(())
        });
        let canary = ticks().with("X-Canary: always\r\n");
        assert_eq!(canary.open(front.addr()).backend, "canary");
        // All of them: in Envoy a session waits for one server. Those that get room end at once.
        drop(sessions);
        let begun = |stream| std::thread::spawn(|| Session::begun(stream).backend);
        let begun: Vec<_> = sent.into_iter().map(begun).collect();
        let backends: Vec<_> = begun.into_iter().map(|session| session.join().unwrap()).collect();
        assert!(backends.iter().any(|backend| backend.starts_with("ticks")), "{backends:?}");
    });
}

/// Whether a session waits for room in the upstream of the ticks.
fn is_waiting(front: &Front) -> bool {
    match front {
        Front::Framegate(proxy) => queued(proxy, "ticks") > 0,
        Front::Original(envoy) => {
            let admin = envoy.admin.expect("Envoy has an admin listener");
            let target = "/stats?filter=^cluster.ticks.upstream_rq_pending_active$";
            let stats = http(admin, &format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            assert!(stats.contains("upstream_rq_pending_active: "), "{stats}");
            !stats.contains("upstream_rq_pending_active: 0")
        }
    }
}
