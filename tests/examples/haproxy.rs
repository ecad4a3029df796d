//! `examples/haproxy`.

use crate::common::*;
use crate::rig::*;
use std::process::Command;

struct Servers {
    chat: [Backend; 3],
    devices: [Backend; 2],
    web: Backend,
}

impl Servers {
    fn start() -> Servers {
        Servers {
            chat: ["chat1", "chat2", "chat3"].map(Backend::start),
            devices: ["dev1", "dev2"].map(Backend::start),
            web: Backend::start("web1"),
        }
    }

    fn framegate(&self) -> Example {
        self.swap(Example::framegate("haproxy/framegate.toml"))
    }

    fn swap(&self, example: Example) -> Example {
        let [chat1, chat2, chat3] = &self.chat;
        let [dev1, dev2] = &self.devices;
        example.backends(&[
            ("10.0.0.11:9000", chat1),
            ("10.0.0.12:9000", chat2),
            ("10.0.0.13:9000", chat3),
            ("10.0.0.21:9000", dev1),
            ("10.0.0.22:9000", dev2),
        ])
    }

    fn haproxy(&self) -> Option<Front> {
        let program = installed("haproxy")?;
        let port = free_port();
        let example = self.swap(Example::file("haproxy/haproxy.cfg").backends(&[("10.0.0.31:8000", &self.web)]));
        let example = example.swap("127.0.0.1:9901", &format!("127.0.0.1:{}", free_port()));
        let example = example.swap("0.0.0.0:8080", &format!("127.0.0.1:{port}"));
        example.assert_local();
        let (folder, file) = folder_with("haproxy.cfg", &example.text);
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file);
        Some(Front::Original(Original::start(command, port, folder)))
    }
}

/// Of both: framegate and, where it is installed, HAProxy.
fn both(test: impl Fn(&mut Servers, &Front)) {
    let mut servers = Servers::start();
    let front = Front::Framegate(Box::new(servers.framegate().start()));
    test(&mut servers, &front);
    drop(front);
    let mut servers = Servers::start();
    if let Some(front) = servers.haproxy() {
        eprintln!("with HAProxy:");
        test(&mut servers, &front);
    }
}

fn chat() -> Ask<'static> {
    Ask::new("chat.example.com", "/room/7?a=b")
}

#[test]
fn originals_are_valid() {
    let Some(haproxy) = installed("haproxy") else { return };
    for name in ["haproxy.cfg", "haproxy-in-front.cfg"] {
        assert_valid(Command::new(&haproxy).args(["-c", "-f"]).arg(folder().join("haproxy").join(name)));
    }
}

#[test]
fn handshakes_go_by_path_and_host_and_plain_requests_do_not() {
    both(|servers, front| {
        let session = chat().open(front.addr());
        assert!(session.backend.starts_with("chat"), "{}", session.backend);
        assert_eq!((session.target(), session.field("host")), ("/room/7?a=b", Some("chat.example.com")));
        assert_eq!(session.field("x-forwarded-for"), Some("127.0.0.1"));
        let with_port = Ask::new("CHAT.example.com:8080", "/").open(front.addr());
        assert!(with_port.backend.starts_with("chat"), "{}", with_port.backend);
        for host in ["chat.example.com", "other.example.com"] {
            let device = Ask::new(host, "/devices/a?id=1").open(front.addr());
            assert!(device.backend.starts_with("dev"), "{}", device.backend);
        }
        let plain = http(front.addr(), "GET / HTTP/1.1\r\nHost: chat.example.com\r\nConnection: close\r\n\r\n");
        assert_eq!(status_of(&plain), if front.is_framegate() { 426 } else { 200 }, "{plain}");
        assert_eq!(servers.web.handshakes(), usize::from(!front.is_framegate()));
        if front.is_framegate() {
            assert_eq!(Ask::new("other.example.com", "/").status(front.addr()), 404);
        }
    });
}

#[test]
fn haproxy_in_front_keeps_plain_http_and_the_address_of_the_client() {
    let Some(haproxy) = installed("haproxy") else { return };
    let servers = Servers::start();
    let proxy = servers.framegate().start();
    let port = free_port();
    let example = Example::file("haproxy/haproxy-in-front.cfg").swap("0.0.0.0:80", &format!("127.0.0.1:{port}"));
    let example = example.backends(&[("10.0.0.31:8000", &servers.web)]).swap("127.0.0.1:8080", &proxy.addr.to_string());
    example.assert_local();
    let (folder, file) = folder_with("haproxy.cfg", &example.text);
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(file);
    let front = Front::Original(Original::start(command, port, folder));
    let session = Ask { from: [127, 0, 0, 9].into(), ..chat() }.open(front.addr());
    assert!(session.backend.starts_with("chat"), "{}", session.backend);
    assert_eq!(session.field("x-real-ip"), Some("127.0.0.9"));
    assert_eq!(session.field("x-forwarded-for"), Some("127.0.0.9, 127.0.0.1"));
    http(front.addr(), "GET / HTTP/1.1\r\nHost: chat.example.com\r\nConnection: close\r\n\r\n");
    assert_eq!(servers.web.handshakes(), 1);
}

#[test]
fn sessions_are_balanced_by_their_number() {
    both(|_, front| {
        let sessions: Vec<_> = (0..10).map(|_| chat().open(front.addr())).collect();
        let backends: Vec<_> = sessions.iter().map(|session| session.backend.clone()).collect();
        assert_eq!([count(&backends, "chat1"), count(&backends, "chat2")], [5, 5]);
    });
}

#[test]
fn the_cookie_brings_a_client_back_until_its_server_is_gone() {
    both(|servers, front| {
        let first = chat().open(front.addr());
        let cookie = first.cookie().expect("a cookie");
        assert!(cookie.starts_with("SRV="), "{cookie}");
        let fields = format!("Cookie: a=b; {cookie}\r\n");
        let back = chat().with(&fields);
        // More sessions of others do not move it.
        let others: Vec<_> = (0..4).map(|_| back.open(front.addr())).collect();
        assert!(others.iter().all(|session| session.backend == first.backend && session.cookie().is_none()));
        assert_eq!(others[0].field("cookie").unwrap().contains("SRV="), front.is_framegate(), "`indirect`");
        let gone = servers.chat.iter().position(|backend| first.backend == backend.name()).unwrap();
        servers.chat[gone].kill();
        let moved = back.open(front.addr());
        assert_ne!(moved.backend, first.backend);
        assert!(moved.cookie().is_some_and(|new| new.starts_with("SRV=") && new != cookie), "{}", moved.answer);
    });
}

#[test]
fn the_backup_serves_when_checks_have_failed() {
    both(|servers, front| {
        let mut sessions: Vec<_> = (0..2).map(|_| chat().open(front.addr())).collect();
        servers.chat[0].set_healthy(false);
        let on_first = sessions.iter().position(|session| session.backend == "chat1").unwrap();
        let down = sessions.swap_remove(on_first);
        // on-marked-down shutdown-sessions
        if front.is_framegate() {
            assert_eq!(read_close(&down.stream), (1012, "endpoint down".into()));
        } else {
            assert!(read_all(&down.stream).0.is_empty());
        }
        assert_eq!(count(&chat().backends(front.addr(), 4), "chat2"), 4);
        servers.chat[1].set_healthy(false);
        drop(read_all(&sessions[0].stream));
        assert_eq!(count(&chat().backends(front.addr(), 4), "chat3"), 4);
    });
}

#[test]
fn a_server_that_is_back_starts_slowly() {
    let servers = Servers::start();
    let proxy = servers.framegate().start();
    servers.chat[0].set_healthy(false);
    wait_state(&proxy, &servers.chat[0], "down");
    let _six: Vec<_> = (0..6).map(|_| chat().open(proxy.addr)).collect();
    servers.chat[0].set_healthy(true);
    wait_state(&proxy, &servers.chat[0], "up");
    // All of them without slow_start: it has no session, and chat2 six.
    let more: Vec<_> = (0..4).map(|_| chat().open(proxy.addr)).collect();
    let on_first = more.iter().filter(|session| session.backend == "chat1").count();
    assert!(on_first < 4, "{on_first}");
}

#[test]
fn sessions_above_maxconn_spill_over_and_then_wait() {
    let servers = Servers::start();
    let proxy = servers.framegate().swap("endpoint_sessions = 2000", "endpoint_sessions = 1").start();
    let mut sessions: Vec<_> = (0..3).map(|_| chat().open(proxy.addr)).collect();
    assert_eq!(sessions[2].backend, "chat3");
    let waiting = chat().send(proxy.addr);
    eventually("it waits", || (queued(&proxy, "chat") == 1).then_some(()));
    let freed = sessions.remove(0);
    let backend = freed.backend.clone();
    drop(freed);
    assert_eq!(Session::begun(waiting).backend, backend);
}

#[test]
fn a_device_keeps_its_server() {
    both(|servers, front| {
        let targets: Vec<_> = (0..200).map(|id| format!("/devices/a?id={id}")).collect();
        let places = || -> Vec<_> {
            targets.iter().map(|target| Ask::new("any.example.com", target).open(front.addr()).backend).collect()
        };
        let first = places();
        let on_first = count(&first, "dev1");
        assert!((120..=180).contains(&on_first), "weight 3 of 4: {on_first} of 200");
        assert_eq!(places(), first);
        servers.devices[0].kill();
        assert_eq!(count(&places(), "dev2"), 200);
    });
}

#[test]
fn a_server_that_refuses_handshakes_is_not_felt_and_soon_left_alone() {
    let servers = Servers::start();
    let proxy = servers.framegate().start();
    servers.devices[0].answer(503);
    let targets: Vec<_> = (0..40).map(|id| format!("/devices/a?id={id}")).collect();
    let backends: Vec<_> = targets.iter().map(|target| Ask::new("a", target).open(proxy.addr).backend).collect();
    assert_eq!(count(&backends, "dev2"), 40);
    // ejection: failures = 5
    assert_eq!(servers.devices[0].handshakes(), 5);
    wait_state(&proxy, &servers.devices[0], "ejected");
}
