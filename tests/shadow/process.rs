//! Shadows and the process: shares, limits, reload, drain, a panic.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A server that accepts every handshake and counts them; it reads up to the end.
fn server(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (mut stream, counted) = (patient(stream), Arc::clone(&counted));
            std::thread::spawn(move || {
                read_head(&stream);
                counted.fetch_add(1, Ordering::SeqCst);
                // The session may have ended.
                if stream.write_all(switching("").as_bytes()).is_ok() {
                    read_all(&stream);
                }
            });
        }
    });
    count
}

/// Opens `sessions` one after the other and ends them; how many got a shadow.
fn shadows_of(sessions: usize, percent: &str) -> usize {
    let ((upstream, addr), (shadow, shadow_addr)) = (listen(), listen());
    let (opened, shadows) = (server(upstream), server(shadow));
    let more = format!("shadow = {{ upstream = \"ws://{shadow_addr}\", percent = {percent} }}");
    let proxy = Proxy::alone_before(addr, &more);
    for _ in 0..sessions {
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&client).1, End::Fin);
    }
    assert_eq!(opened.load(Ordering::SeqCst), sessions);
    eventually("all of them are counted", || {
        let ok = proxy.metric("framegate_handshakes_total{outcome=\"ok\"}");
        (ok == sessions as f64).then_some(())
    });
    eventually("no session is left", || (proxy.metric("framegate_sessions{worker=\"0\"}") == 0.0).then_some(()));
    eventually("no shadow is left", || (proxy.metric("framegate_shadow_sessions") == 0.0).then_some(()));
    let shadows = shadows.load(Ordering::SeqCst);
    assert_eq!(ended(&proxy, "done"), shadows as f64);
    shadows
}

#[test]
fn a_share_of_the_sessions_has_a_shadow() {
    assert_eq!(shadows_of(100, "100"), 100);
    // Of 400 sessions 200; outside these bounds once in 10^14 runs.
    let half = shadows_of(400, "50.0");
    assert!((124..=276).contains(&half), "{half}");
    // Of 100 sessions at 0.01 % more than 5: once in 10^14 runs.
    assert!(shadows_of(100, "0.01") <= 5);
}

#[test]
fn above_the_limit_sessions_have_no_shadow() {
    let setup = setup("", "[limits]\nmax_shadows = 1");
    let first = setup.open();
    let (mut client, mut upstream) = open(&setup.proxy, &setup.upstream);
    echo(&mut client, &mut upstream, b"alone");
    eventually("it is counted", || (ended(&setup.proxy, "limit") == 1.0).then_some(()));
    setup.shadow.set_nonblocking(true).unwrap();
    assert!(setup.shadow.accept().is_err());
    drop(first);
    eventually("the first is gone", || (setup.proxy.metric("framegate_shadow_sessions") == 0.0).then_some(()));
    drop(setup.open());
}

#[test]
fn all_shadows_together_have_so_much_buffer() {
    let setup = setup("", "[limits]\nshadow_buffers = \"256KiB\"");
    let sessions: Vec<_> = (0..3).map(|_| open(&setup.proxy, &setup.upstream)).collect();
    // None of them answers, none of them fills its own buffer.
    let held: Vec<_> = (0..3).map(|_| accept(&setup.shadow)).collect();
    for (mut client, mut upstream) in sessions {
        for n in 0..100u8 {
            echo(&mut client, &mut upstream, &[n; 1000]);
        }
    }
    eventually("one has made room", || (ended(&setup.proxy, "limit") >= 1.0).then_some(()));
    assert_eq!(ended(&setup.proxy, "buffer-full"), 0.0);
    drop(held);
    eventually("no byte is left", || (setup.proxy.metric("framegate_shadow_backlog_bytes") == 0.0).then_some(()));
}

#[test]
fn a_reload_leaves_shadows_as_they_are() {
    let setup = setup("", "");
    let upstream_addr = setup.upstream.local_addr().unwrap();
    let (mut client, mut upstream, shadow) = setup.open();
    echo(&mut client, &mut upstream, b"before");
    std::fs::write(&setup.proxy.config, before(upstream_addr, "[admin]\nlisten = \"127.0.0.1:0\"")).unwrap();
    setup.proxy.signal("HUP");
    setup.proxy.said.wait_for("configuration reloaded");
    echo(&mut client, &mut upstream, b"after");
    for text in ["before", "after"] {
        assert_eq!(read_frame(&shadow), (0x81, text.as_bytes().to_vec(), true));
    }
    let (mut alone, mut alone_upstream) = open(&setup.proxy, &setup.upstream);
    echo(&mut alone, &mut alone_upstream, b"alone");
    setup.shadow.set_nonblocking(true).unwrap();
    assert!(setup.shadow.accept().is_err());
    assert_quiet(&shadow);
    close(&mut client, &mut upstream);
    drop(upstream);
    assert_eq!(read_close(&shadow), (1000, String::new()));
    drop(shadow);
    all_ended(&setup.proxy, "done", 1.0);
}

#[test]
fn the_close_of_a_drain_goes_to_both() {
    let mut setup = setup("", "[drain]\nspread = \"0s\"");
    let (mut client, mut upstream, shadow) = setup.open();
    echo(&mut client, &mut upstream, b"in");
    assert_eq!(read_frame(&shadow), (0x81, b"in".to_vec(), true));
    setup.proxy.signal("TERM");
    let close = read_frame(&upstream);
    assert_eq!((close.0, close.1[..2].to_vec(), close.2), (0x88, 1001u16.to_be_bytes().to_vec(), true));
    assert_eq!(read_frame(&shadow), close);
    drop((client, upstream, shadow));
    assert!(setup.proxy.wait().success());
}

#[test]
fn a_panic_leaves_no_shadow_behind() {
    let setup = setup("", "[admin]\nlisten = \"127.0.0.1:0\"\nfault_injection = true");
    let (client, upstream, shadow) = setup.open();
    // Its shadow has not answered yet.
    let second = open(&setup.proxy, &setup.upstream);
    let silent = accept(&setup.shadow);
    read_head(&silent);
    eventually("they are counted", || (setup.proxy.metric("framegate_shadow_sessions") == 2.0).then_some(()));
    let admin = setup.proxy.admin();
    http(admin, &format!("POST /fault/panic?worker=0 HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(read_all(&shadow), (Vec::new(), End::Fin));
    assert_eq!(read_all(&silent), (Vec::new(), End::Reset));
    all_ended(&setup.proxy, "stop", 1.0);
    all_ended(&setup.proxy, "done", 1.0);
    drop((client, upstream, second));
    // The next worker has them again.
    let (mut client, mut upstream, shadow) = setup.open();
    echo(&mut client, &mut upstream, b"in");
    assert_eq!(read_frame(&shadow), (0x81, b"in".to_vec(), true));
}
