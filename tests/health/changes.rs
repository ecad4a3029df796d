//! Changes of state: counted exactly, felt by new sessions alone, kept by a reload.

use crate::backend::{Backend, Reply};
use crate::common::*;
use crate::*;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[test]
fn rise_and_fall_are_counted_exactly() {
    let backend = Backend::new(Reply::Status(200));
    let check = "type = \"http\"\ninterval = \"300ms\"\ntimeout = \"290ms\"\njitter = 0\nrise = 3\nfall = 4";
    let proxy = Proxy::start(&checked(&[backend.url()], check));
    backend.wait_checks(1);
    // The backend counts a check before it answers: the next one is after the change.
    backend.set(Reply::Status(500));
    is_down(&proxy, &backend.url(), "status 500, expected 200-399");
    assert_eq!(failures_before(&proxy, "is down"), 3, "three failures, and the fourth is the change");
    let passed = results(&proxy, "passed");
    backend.set(Reply::Status(200));
    is_up(&proxy, &backend.url());
    assert_eq!(results(&proxy, "passed") - passed, 3.0);
    assert_eq!((changes_to(&proxy, "up"), changes_to(&proxy, "down")), (1.0, 1.0));
}

/// Lines of failed checks before the first line with `text`.
fn failures_before(proxy: &Proxy, text: &str) -> usize {
    let lines = proxy.said.all();
    lines.iter().take_while(|line| !line.contains(text)).filter(|line| line.contains("a check of ")).count()
}

#[test]
fn a_single_success_begins_the_count_anew() {
    let backend = Backend::new(Reply::Status(200));
    let check = "type = \"http\"\ninterval = \"300ms\"\ntimeout = \"290ms\"\njitter = 0\nfall = 2";
    let proxy = Proxy::start(&checked(&[backend.url()], check));
    for _ in 0..3 {
        backend.set(Reply::Status(500));
        let failed = results(&proxy, "failed");
        eventually("a failure", || (results(&proxy, "failed") > failed).then_some(()));
        backend.set(Reply::Status(200));
        let passed = results(&proxy, "passed");
        eventually("a success", || (results(&proxy, "passed") > passed).then_some(()));
    }
    assert_eq!((results(&proxy, "failed"), changes_to(&proxy, "down")), (3.0, 0.0));
}

#[test]
fn new_sessions_avoid_an_endpoint_that_is_down_and_old_ones_stay() {
    let (first, second) = (Backend::new(Reply::Pong), Backend::new(Reply::Pong));
    let check = format!("type = \"websocket\"\nping = true\n{OFTEN}");
    let proxy = Proxy::start(&checked(&[first.url(), second.url()], &check));
    let mut open: Vec<_> = (0..4).map(|_| begin(&proxy).1).collect();
    assert_eq!((first.sessions(), second.sessions()), (2, 2));
    first.set(Reply::NoPong);
    is_down(&proxy, &first.url(), "timeout while waiting for the pong");
    for _ in 0..6 {
        assert!(begin(&proxy).0.starts_with("HTTP/1.1 101 "));
    }
    assert_eq!((first.sessions(), second.sessions()), (2, 8));
    for client in &mut open {
        assert_echoes(client, b"still here");
    }
    second.set(Reply::Status(503));
    is_down(&proxy, &second.url(), "status 503, expected 101");
    assert_eq!(begin(&proxy).0, "HTTP/1.1 503 Service Unavailable");
    proxy.log.wait_for("cause=no-endpoint status=503");
    first.set(Reply::Pong);
    is_up(&proxy, &first.url());
    let (status, mut client) = begin(&proxy);
    assert!(status.starts_with("HTTP/1.1 101 "), "{status}");
    assert_echoes(&mut client, b"again");
    assert_eq!((first.sessions(), second.sessions()), (3, 8));
}

#[test]
fn an_endpoint_that_comes_back_is_noticed() {
    // Bound, so that no one else gets the port, and not listening.
    let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    reserved.set_reuse_address(true).unwrap();
    reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = reserved.local_addr().unwrap().as_socket().unwrap();
    let url = format!("ws://{addr}");
    let proxy = Proxy::start(&checked(std::slice::from_ref(&url), &format!("type = \"tcp\"\n{OFTEN}")));
    is_down(&proxy, &url, "connect refused");
    let _backend = Backend::at(addr, Reply::Nothing);
    is_up(&proxy, &url);
    assert!(begin(&proxy).0.starts_with("HTTP/1.1 101 "));
}

#[test]
fn initially_down_means_no_session_before_the_checks() {
    let backend = Backend::new(Reply::Nothing);
    let check = format!("type = \"http\"\ninitial = \"down\"\n{OFTEN}");
    let proxy = Proxy::start(&checked(&[backend.url()], &check));
    assert_eq!(begin(&proxy).0, "HTTP/1.1 503 Service Unavailable");
    backend.set(Reply::Status(200));
    is_up(&proxy, &backend.url());
    assert!(begin(&proxy).0.starts_with("HTTP/1.1 101 "));
    // An endpoint that a reload adds begins likewise, one that it keeps does not.
    let new = Backend::new(Reply::Nothing);
    reload(&proxy, &checked(&[backend.url(), new.url()], &check));
    new.wait_checks(1);
    for _ in 0..4 {
        assert!(begin(&proxy).0.starts_with("HTTP/1.1 101 "));
    }
    assert_eq!((backend.sessions(), new.sessions()), (5, 0));
}

#[test]
fn a_reload_keeps_states_and_checks_what_it_adds() {
    let (good, bad, new) = (Backend::new(Reply::Pong), Backend::new(Reply::Nothing), Backend::new(Reply::Nothing));
    // So rarely that no check of its own would bring the state back.
    let check = "type = \"websocket\"\ninterval = \"1s\"\ntimeout = \"300ms\"\nfall = 1\nrise = 1000";
    let proxy = Proxy::start(&checked(&[good.url(), bad.url()], check));
    is_down(&proxy, &bad.url(), "timeout while waiting for the response");
    let passed = results(&proxy, "passed");
    reload(&proxy, &checked(&[good.url(), bad.url(), new.url()], check));
    assert_eq!(endpoints(&proxy, "down"), 1.0, "the state is kept");
    assert!(results(&proxy, "passed") >= passed, "and the counts");
    is_down(&proxy, &new.url(), "timeout while waiting for the response");
    let before = (bad.checks(), bad.sessions());
    for _ in 0..3 {
        assert!(begin(&proxy).0.starts_with("HTTP/1.1 101 "));
    }
    assert_eq!((bad.sessions(), new.sessions()), (before.1, 0));
    // Without the section nothing is held down, and nothing is checked.
    reload(&proxy, &config(&[good.url(), bad.url()], ""));
    eventually("all are up", || (endpoints(&proxy, "down") == 0.0).then_some(()));
    let (bad_before, new_before, good_before) = (bad.checks(), new.checks(), good.checks());
    let other = Backend::new(Reply::Status(200));
    reload(&proxy, &checked(&[other.url()], &format!("type = \"http\"\n{OFTEN}")));
    other.wait_checks(4);
    assert_eq!((bad.checks(), new.checks(), good.checks()), (bad_before, new_before, good_before));
}

/// Sets the soft limit on open files of a process.
fn limit_descriptors(pid: u32, soft: impl Fn(libc::rlim_t) -> libc::rlim_t) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: `limit` is valid for reading and writing.
    assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) }, 0);
    limit.rlim_cur = soft(limit.rlim_max);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) }, 0);
}

#[test]
fn a_lack_of_descriptors_counts_against_no_endpoint() {
    let backend = Backend::new(Reply::Status(200));
    let proxy = Proxy::start(&checked(&[backend.url()], &format!("type = \"http\"\nfall = 1\n{SELDOM}")));
    backend.wait_checks(1);
    limit_descriptors(proxy.pid(), |_| 3);
    proxy.said.wait_for(&format!("cannot check {}: Too many open files", backend.url()));
    limit_descriptors(proxy.pid(), |most| most);
    backend.wait_checks(1);
    assert!(results(&proxy, "skipped") >= 1.0);
    assert_eq!((results(&proxy, "failed"), changes_to(&proxy, "down")), (0.0, 0.0));
}

#[test]
fn stalled_endpoints_delay_no_other_check() {
    const EACH: usize = 250;
    let stalled = Arc::new(AtomicUsize::new(0));
    // One listener that accepts and never answers, reached by 250 paths; and one that answers.
    let (listener, silent) = listen();
    let counted = Arc::clone(&stalled);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            held.push(stream);
            counted.fetch_add(1, SeqCst);
        }
    });
    let good = Backend::new(Reply::Status(200));
    let urls = |addr| (0..EACH).map(move |n| format!("ws://{addr}/{n}"));
    let all: Vec<_> = urls(silent).chain(urls(good.addr)).collect();
    let check = "type = \"http\"\ninterval = \"2s\"\ntimeout = \"1900ms\"\njitter = 0.1\nfall = 2";
    let proxy = Proxy::start(&checked(&all, check));
    let threads = || std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap().count();
    let before = threads();
    eventually("all stalled endpoints are down", || (endpoints(&proxy, "down") == EACH as f64).then_some(()));
    assert_eq!(threads(), before, "a check costs no thread");
    // While each stalled endpoint was checked twice or more, each good one was, too: checks of the
    // two differ by no more than what is in progress or has just begun.
    let (good_checks, stalled_checks) = (good.checks(), stalled.load(SeqCst));
    assert!(stalled_checks >= 2 * EACH, "{stalled_checks}");
    assert!(good_checks >= stalled_checks - EACH, "{good_checks} of good ones, {stalled_checks} of stalled ones");
    assert_eq!(endpoints(&proxy, "up"), EACH as f64);
    assert_eq!(changes_to(&proxy, "down"), EACH as f64);
    assert_eq!(results(&proxy, "skipped"), 0.0);
}
