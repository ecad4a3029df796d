use super::*;
use crate::config;
use crate::policy::upstream::Member;
use crate::worker::sys;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);

fn clock() -> Millis {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap()
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn snapshot(urls: &[String], check: &str) -> Snapshot {
    snapshot_from(urls, "", check)
}

/// `more` are keys of the upstream.
fn snapshot_from(urls: &[String], more: &str, check: &str) -> Snapshot {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\n[[upstream]]\nname = \"a\"\n\
         endpoints = {urls:?}\n{more}\n[upstream.health]\n{check}\n"
    );
    config::parse(&text, "test").unwrap()
}

fn environment(random: impl FnMut(&mut [u8]) + Send + 'static) -> Environment {
    let options = config::Sockets::default();
    let connect = Box::new(move |target: &Target, source| sys::connect(sys::Target::new(target, source), &options));
    Environment { now: clock, connect, random: Box::new(random) }
}

/// A thread that checks, with random numbers that are not.
fn start(snapshot: &Snapshot, nofile: u64) -> (Checks, JoinHandle<()>) {
    let (mut checks, mut inbox) = open().unwrap();
    checks.set(snapshot, Arc::default(), nofile);
    let mut environment = environment(|out| out.fill(7));
    let thread = std::thread::spawn(move || run(&mut inbox, &mut environment).unwrap());
    (checks, thread)
}

/// The reports of the one upstream: passed and failed.
fn results(checks: &Checks, snapshot: &Snapshot) -> (u64, u64) {
    let [passed, failed, _] = checks.report(&snapshot.upstreams[0]).checks.unwrap();
    (passed, failed)
}

#[test]
fn members_that_discovery_adds_are_checked_and_removed_ones_are_not() {
    let ((_held, first), (second, other)) = (listen(), listen());
    let snapshot = snapshot(&[format!("ws://{first}")], "type = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"90ms\"");
    let (checks, thread) = start(&snapshot, 1_024);
    eventually("checks pass", || results(&checks, &snapshot).0 >= 2);
    let upstream = &snapshot.upstreams[0];
    let member = |addr: SocketAddr| -> Member {
        let address = crate::policy::endpoint::Address::Tcp(addr);
        Endpoint::new(format!("ws://{addr}"), address, false, String::new()).into()
    };
    upstream.set_members(vec![member(first), member(other)], 0);
    second.accept().unwrap();
    second.accept().unwrap();
    upstream.set_members(vec![member(first)], 0);
    second.set_nonblocking(true).unwrap();
    eventually("five checks of the one that stays, and none of the other", || {
        let passed = results(&checks, &snapshot).0;
        eventually("five checks", || results(&checks, &snapshot).0 >= passed + 5);
        std::iter::from_fn(|| second.accept().ok()).count() == 0
    });
    assert_eq!(results(&checks, &snapshot).1, 0);
    drop(checks);
    thread.join().unwrap();
}

#[test]
fn connections_at_a_time_are_limited_and_every_endpoint_gets_its_turn() {
    let (listener, addr) = listen();
    let urls: Vec<_> = (0..64).map(|n| format!("ws://{addr}/{n}")).collect();
    let check = "type = \"http\"\ninterval = \"110ms\"\ntimeout = \"100ms\"\nfall = 1";
    let snapshot = snapshot(&urls, check);
    // Few descriptors: 16 at a time.
    assert_eq!(snapshot.checks_max(64), 16);
    let (checks, thread) = start(&snapshot, 64);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let silent = std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            if stopped.load(Relaxed) {
                return;
            }
            held.push(stream);
        }
    });
    let mut most = 0;
    eventually("all are down", || {
        most = most.max(checks.in_progress());
        checks.report(&snapshot.upstreams[0]).changes == Some([0, 64])
    });
    assert!((1..=16).contains(&most), "{most}");
    stop.store(true, Relaxed);
    drop(checks);
    thread.join().unwrap();
    // Wakes the listener, unless a last check has done so.
    let _woken = TcpStream::connect(addr);
    silent.join().unwrap();
}

#[test]
fn checks_come_from_the_source_address_of_the_upstream() {
    let (listener, addr) = listen();
    let check = "type = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"90ms\"";
    let snapshot = snapshot_from(&[format!("ws://{addr}")], "bind = [\"127.0.0.7\"]", check);
    let (checks, thread) = start(&snapshot, 1_024);
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), std::net::IpAddr::from([127, 0, 0, 7]));
    drop(checks);
    thread.join().unwrap();
}

#[test]
fn a_name_passes_with_the_first_address_that_takes_the_connection() {
    let ((closed, refusing), (good, addr), (second, other)) = (listen(), listen(), listen());
    drop(closed);
    let check = "type = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"90ms\"";
    let snapshot = snapshot(&["ws://name.invalid:1".to_owned()], check);
    let endpoint = &snapshot.upstreams[0].endpoints()[0];
    endpoint.set_resolved(vec![refusing, refusing, addr, other]);
    let (checks, thread) = start(&snapshot, 1_024);
    eventually("checks pass", || results(&checks, &snapshot).0 >= 3);
    assert_eq!(results(&checks, &snapshot).1, 0);
    good.set_nonblocking(true).unwrap();
    second.set_nonblocking(true).unwrap();
    assert!(good.accept().is_ok(), "the first one that accepts");
    assert!(second.accept().is_err(), "none after it");
    endpoint.set_resolved(vec![refusing; 3]);
    eventually("down", || checks.report(&snapshot.upstreams[0]).changes == Some([0, 1]));
    drop(checks);
    thread.join().unwrap();
}

#[test]
fn checks_go_on_after_a_panic() {
    let (_listener, addr) = listen();
    let snapshot = snapshot(&[format!("ws://{addr}")], "type = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"40ms\"");
    let (mut checks, mut inbox) = open().unwrap();
    checks.set(&snapshot, Arc::default(), 1_024);
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let random = move |out: &mut [u8]| {
        assert!(!breaks.swap(false, Relaxed), "on purpose");
        out.fill(7);
    };
    let mut environment = environment(random);
    let thread = std::thread::spawn(move || {
        let mut run = || catch_unwind(AssertUnwindSafe(|| run(&mut inbox, &mut environment)));
        assert!(run().is_err(), "the first run panics");
        assert!(matches!(run(), Ok(Ok(()))), "the second one ends with its Checks");
    });
    eventually("checks pass", || results(&checks, &snapshot).0 >= 1);
    broken.store(true, Relaxed);
    eventually("the panic", || !broken.load(Relaxed));
    let (passed, _) = results(&checks, &snapshot);
    eventually("more checks pass", || results(&checks, &snapshot).0 >= passed + 3);
    drop(checks);
    thread.join().unwrap();
}
