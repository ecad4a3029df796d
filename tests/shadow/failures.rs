//! Shadows that refuse, stay silent, stall, flood, or die: the session goes on as without one.

use super::*;
use socket2::{Domain, Socket, Type};
use std::time::{Duration, Instant};

/// Timeouts that a test can wait for; those of the session are not reached.
const SHORT: &str = "timeouts = { connect = \"300ms\", connect_total = \"400ms\", upstream_head = \"500ms\" }";

/// Opens a session, lets `act` do what it does to the shadow, and checks that the session has not
/// noticed and the shadow ended with `cause`.
fn goes_on(setup: &Setup, cause: &str, act: impl FnOnce(&TcpListener)) {
    let before = ended(&setup.proxy, cause);
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    echo(&mut client, &mut upstream, b"first");
    act(&setup.shadow);
    echo(&mut client, &mut upstream, b"during");
    all_ended(&setup.proxy, cause, before + 1.0);
    echo(&mut client, &mut upstream, b"after");
    close(&mut client, &mut upstream);
}

#[test]
fn a_shadow_that_answers_anything_else_is_dropped() {
    let setup = setup("", SHORT);
    let wrong_key = switching("").replace("s3pP", "XXXX");
    for answer in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        "SSH-2.0-server\r\n\r\n",
        wrong_key.as_str(),
    ] {
        goes_on(&setup, "handshake", |listener| {
            let mut shadow = accept(listener);
            read_head(&shadow);
            shadow.write_all(answer.as_bytes()).unwrap();
            assert_eq!(read_all(&shadow).0, b"", "no frame follows {answer:?}");
        });
    }
    // It says nothing, or half a head, or leaves.
    for answer in ["", "HTTP/1.1 101 Switch"] {
        goes_on(&setup, "handshake", |listener| {
            let mut shadow = accept(listener);
            read_head(&shadow);
            let begun = Instant::now();
            shadow.write_all(answer.as_bytes()).unwrap();
            assert_eq!(read_all(&shadow).0, b"");
            assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        });
        goes_on(&setup, "handshake", |listener| {
            let mut shadow = accept(listener);
            read_head(&shadow);
            shadow.write_all(answer.as_bytes()).unwrap();
        });
    }
    goes_on(&setup, "handshake", |listener| {
        let shadow = accept(listener);
        read_head(&shadow);
        reset(shadow);
    });
}

/// A bound address without a listener, or with one whose queue is full.
fn unreachable(full: bool) -> (Socket, SocketAddr, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    if full {
        socket.listen(0).unwrap();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            queued.push(stream);
        }
    }
    (socket, addr, queued)
}

#[test]
fn a_shadow_that_cannot_be_reached_is_dropped() {
    for full in [false, true] {
        let (upstream, addr) = listen();
        let (_socket, shadow_addr, _queued) = unreachable(full);
        let proxy = Proxy::alone_before(addr, &format!("{}\n{SHORT}", key(shadow_addr, "")));
        let setup = Setup { proxy, upstream, shadow: listen().0 };
        for _ in 0..3 {
            goes_on(&setup, "connect", |_| {});
        }
    }
}

#[test]
fn the_next_endpoint_of_a_shadow_is_tried() {
    let ((upstream, addr), (shadow, shadow_addr)) = (listen(), listen());
    let (_refusing, refusing, _) = unreachable(false);
    let (_full, full, _queued) = unreachable(true);
    let more = format!(
        "shadow = {{ upstream = \"s\", percent = 100 }}\ntimeouts = {{ connect = \"300ms\" }}\n\
         [[upstream]]\nname = \"s\"\n\
         endpoints = [\"ws://{refusing}/a\", \"ws://{full}/b\", \"ws://{shadow_addr}/c\"]"
    );
    let setup = Setup { proxy: Proxy::alone_before(addr, &more), upstream, shadow };
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    echo(&mut client, &mut upstream, b"in");
    let mut shadow = accept(&setup.shadow);
    assert!(read_head(&shadow).starts_with("GET /c/ HTTP/1.1\r\n"));
    shadow.write_all(switching("").as_bytes()).unwrap();
    assert_eq!(read_frame(&shadow), (0x81, b"in".to_vec(), true));
}

#[test]
fn a_shadow_that_dies_is_dropped() {
    let setup = setup("", "");
    for with_rst in [false, true] {
        goes_on(&setup, "peer", |listener| {
            let mut shadow = accept(listener);
            read_head(&shadow);
            shadow.write_all(switching("").as_bytes()).unwrap();
            assert_eq!(read_frame(&shadow), (0x81, b"first".to_vec(), true));
            if with_rst {
                reset(shadow);
            }
        });
    }
}

/// Sends `mebibytes` of messages from `client` to `upstream`, and checks each byte.
fn pump(client: &mut TcpStream, upstream: &mut TcpStream, mebibytes: u8) {
    let message = |n: u8| (0..=255u8).map(|byte| byte.wrapping_mul(n)).collect::<Vec<_>>().repeat(4096);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..mebibytes).for_each(|n| client.write_all(&masked(0x82, &message(n))).unwrap()));
        for n in 0..mebibytes {
            assert!(read_frame(upstream) == (0x82, message(n), true), "message {n}");
        }
    });
}

#[test]
fn a_shadow_that_reads_nothing_is_cut_when_its_buffer_is_full() {
    for up in [false, true] {
        let setup = setup(", buffer = \"64KiB\"", "");
        let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
        let mut shadow = accept(&setup.shadow);
        read_head(&shadow);
        if up {
            shadow.write_all(switching("").as_bytes()).unwrap();
            eventually("the 101 has been read", || {
                // What comes behind it is discarded and counted.
                shadow.write_all(&plain(0x81, b"x")).unwrap();
                (setup.proxy.metric("framegate_shadow_discarded_bytes_total") > 0.0).then_some(())
            });
        }
        pump(&mut client, &mut upstream, 32);
        all_ended(&setup.proxy, "buffer-full", 1.0);
        // What it gets is cut, and looks like that.
        let (got, end) = read_all(&shadow);
        assert!(got.len() < 32 << 20, "{} bytes", got.len());
        assert_eq!(end, End::Reset);
        echo(&mut client, &mut upstream, b"after");
        close(&mut client, &mut upstream);
    }
}

#[test]
fn a_slow_shadow_that_keeps_up_is_not_cut() {
    let setup = setup(", buffer = \"64MiB\"", "[limits]\nshadow_buffers = \"128MiB\"");
    let (mut client, mut upstream, shadow) = setup.open();
    // It takes nothing until the client has sent everything.
    pump(&mut client, &mut upstream, 16);
    assert_eq!(setup.proxy.metric("framegate_shadow_sessions"), 1.0);
    for n in 0..16u8 {
        let (first, payload, is_masked) = read_frame(&shadow);
        assert_eq!((first, payload.len(), is_masked), (0x82, 1 << 20, true));
        assert!(payload.iter().enumerate().all(|(at, byte)| *byte == (at as u8).wrapping_mul(n)), "message {n}");
    }
    close(&mut client, &mut upstream);
    drop(upstream);
    assert_eq!(read_close(&shadow), (1000, String::new()));
    assert_eq!(read_all(&shadow), (Vec::new(), End::Fin));
    drop(shadow);
    all_ended(&setup.proxy, "done", 1.0);
}

#[test]
fn a_shadow_that_floods_is_discarded_and_delays_nobody() {
    let setup = setup("", "");
    let (mut client, mut upstream, mut shadow) = setup.open();
    let flood = std::thread::spawn(move || {
        let message = plain(0x82, &[7; 60_000]);
        let mut sent = 0;
        while shadow.write_all(&message).is_ok() {
            sent += message.len();
        }
        sent
    });
    eventually("the flood has begun", || {
        (setup.proxy.metric("framegate_shadow_discarded_bytes_total") > 1e6).then_some(())
    });
    for n in 0..500u32 {
        echo(&mut client, &mut upstream, &n.to_be_bytes());
    }
    close(&mut client, &mut upstream);
    drop((client, upstream));
    // It never closes; the close timeout (5 s) ends it, as one that got everything.
    all_ended(&setup.proxy, "done", 1.0);
    assert!(flood.join().unwrap() > 1 << 20);
}

#[test]
fn a_shadow_outlives_its_session_by_the_close_timeout_at_most() {
    let setup = setup("", "timeouts = { close = \"300ms\" }");
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    let shadow = accept(&setup.shadow);
    read_head(&shadow);
    echo(&mut client, &mut upstream, b"in");
    close(&mut client, &mut upstream);
    drop((client, upstream));
    all_ended(&setup.proxy, "close-timeout", 1.0);
    assert_eq!(read_all(&shadow), (Vec::new(), End::Reset));
}

/// What a shadow does that no server should do, by the number of its connection.
fn misbehave(n: usize, mut shadow: TcpStream) {
    // Errors are expected: the proxy drops shadows like these.
    let answered = |mut stream: &TcpStream| {
        read_head(stream);
        stream.write_all(switching("").as_bytes())
    };
    match n % 8 {
        0 => drop(shadow),
        1 => reset(shadow),
        2 => drop(shadow.write_all(b"HTTP/1.1 503 Busy\r\n\r\n")),
        3 => drop(answered(&shadow)),
        4 => {
            drop(answered(&shadow));
            reset(shadow);
        }
        5 => {
            drop(answered(&shadow));
            while shadow.write_all(&[0; 10_000]).is_ok() {}
        }
        // It says nothing until the proxy gives up.
        6 => drop(read_all(&shadow)),
        _ => {
            drop(answered(&shadow));
            read_all(&shadow);
        }
    }
}

#[test]
fn sessions_beside_misbehaving_shadows_lose_nothing() {
    const SESSIONS: usize = 160;
    let more =
        "timeouts = { connect = \"300ms\", connect_total = \"400ms\", upstream_head = \"500ms\", close = \"500ms\" }";
    let setup = setup(", buffer = \"16KiB\"", more);
    let Setup { proxy, upstream, shadow } = setup;
    std::thread::spawn(move || {
        for (n, stream) in shadow.incoming().map_while(Result::ok).enumerate() {
            std::thread::spawn(move || misbehave(n, patient(stream)));
        }
    });
    std::thread::spawn(move || {
        for stream in upstream.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = patient(stream);
                read_head(&stream);
                stream.write_all(switching("").as_bytes()).unwrap();
                loop {
                    let (first, payload, _) = read_frame(&stream);
                    stream.write_all(&plain(first, &payload)).unwrap();
                    if first == 0x88 {
                        return;
                    }
                }
            });
        }
    });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                for n in 0..SESSIONS / 8 {
                    let mut client = connect(proxy.addr);
                    client.write_all(request("/", "").as_bytes()).unwrap();
                    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
                    for size in [1, 200, 5_000, 20_000] {
                        let message = vec![(thread * 31 + n) as u8; size];
                        client.write_all(&masked(0x82, &message)).unwrap();
                        assert!(read_frame(&client) == (0x82, message, false));
                    }
                    client.write_all(&masked(0x88, &close_payload(1000, ""))).unwrap();
                    assert_eq!(read_close(&client), (1000, String::new()));
                    assert_eq!(read_all(&client), (Vec::new(), End::Fin));
                }
            });
        }
    });
    let causes = ["done", "connect", "handshake", "peer", "buffer-full", "limit", "close-timeout", "stop"];
    let total = || causes.iter().map(|cause| ended(&proxy, cause)).sum::<f64>();
    eventually("every shadow has ended", || (total() == SESSIONS as f64).then_some(()));
    all_ended(&proxy, "stop", 0.0);
    assert!(ended(&proxy, "done") > 0.0 && ended(&proxy, "handshake") > 0.0);
    assert_eq!(
        proxy.metric("framegate_sessions_ended_total{cause=\"close\",ended_by=\"downstream\"}"),
        SESSIONS as f64
    );
}
