//! Workers: one thread per CPU, pinned; descriptors; addresses; panics.

mod common;

use common::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The CPUs that each worker thread may run on. Waits until each worker is pinned.
fn workers(proxy: &Proxy, count: usize, per_worker: usize) -> BTreeMap<String, Vec<usize>> {
    eventually(&format!("{count} workers on {per_worker} CPUs each"), || {
        let threads = threads(proxy.pid());
        let good = threads.len() == count && threads.values().all(|cpus| cpus.len() == per_worker);
        good.then_some(threads)
    })
}

fn threads(pid: u32) -> BTreeMap<String, Vec<usize>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let value = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        let name = value("Name:")?;
        name.starts_with("worker-").then(|| (name, cpus(&value("Cpus_allowed_list:").unwrap())))
    };
    tasks.filter_map(status).collect()
}

/// "0-2,5" as numbers.
fn cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    };
    list.split(',').flat_map(range).collect()
}

fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    cpus(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim())
}

fn written(toml: &str) -> PathBuf {
    let path = temp_path("toml");
    std::fs::write(&path, toml).unwrap();
    path
}

/// A configuration with the section `workers` in place of one worker.
fn config(addr: SocketAddr, workers: &str) -> String {
    before(addr, "").replace("count = 1", workers)
}

/// Runs under another command: `taskset`, `sh`.
fn under(command: &[&str], toml: &str) -> Proxy {
    let path = written(toml);
    let mut command_line = Command::new(command[0]);
    command_line.args(&command[1..]).arg(env!("CARGO_BIN_EXE_framegate")).arg("run").arg("-c").arg(&path);
    Proxy::spawn(&mut command_line, path)
}

#[test]
fn each_cpu_has_one_pinned_worker() {
    let (_listener, addr) = listen();
    let proxy = Proxy::start(&config(addr, ""));
    // The cgroup's quota may allow fewer CPUs than the mask.
    let expected = std::thread::available_parallelism().unwrap().get();
    let threads = workers(&proxy, expected, 1);
    let mut pinned: Vec<_> = threads.values().flatten().copied().collect();
    pinned.sort_unstable();
    pinned.dedup();
    assert_eq!(pinned, allowed()[..expected], "{threads:?}");
    assert!(proxy.metric("framegate_workers") == expected as f64);
    proxy.said.wait_for(&format!(" {expected} workers, "));
}

#[test]
fn count_and_pin_are_configurable() {
    let (_listener, addr) = listen();
    let all = allowed();
    let proxy = Proxy::start(&config(addr, "count = 3\npin = false"));
    let threads = workers(&proxy, 3, all.len());
    assert_eq!(threads.keys().collect::<Vec<_>>(), ["worker-0", "worker-1", "worker-2"]);
    // With more workers than CPUs, pinning starts over at the first CPU.
    let proxy = Proxy::start(&config(addr, &format!("count = {}", all.len() + 1)));
    let threads = workers(&proxy, all.len() + 1, 1);
    assert_eq!(threads["worker-0"], threads[&format!("worker-{}", all.len())]);
}

#[test]
fn affinity_mask_is_respected() {
    let (_listener, addr) = listen();
    let last = *allowed().last().unwrap();
    let proxy = under(&["taskset", "-c", &last.to_string()], &config(addr, ""));
    assert_eq!(workers(&proxy, 1, 1)["worker-0"], [last]);
}

#[test]
fn descriptor_limit_is_raised_and_reported() {
    let (listener, addr) = listen();
    let proxy = under(&["prlimit", "--nofile=64:1000"], &before(addr, ""));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).collect();
    assert_eq!(numbers, [1000, 1000]);
    let said = proxy.said.wait_for("1 workers, at most ");
    let sessions: f64 = said.split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(proxy.metric("framegate_sessions_max") == sessions);
    assert!(sessions >= 300.0 && said.ends_with("1000 file descriptors"), "{said}");
    // More than the soft limit of 64 at its start allows.
    let open: Vec<_> = (0..50).map(|_| common::open(&proxy, &listener)).collect();
    drop(open);
}

/// Runs a command that should exit by itself; kills it and fails if it does not.
fn refused(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it runs: {:?}", child.wait_with_output());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn max_sessions_above_descriptors_is_refused_at_start() {
    let (_listener, addr) = listen();
    let path = written(&before(addr, "[limits]\nmax_sessions = 1000"));
    let bin = env!("CARGO_BIN_EXE_framegate");
    let output = refused(Command::new("prlimit").args(["--nofile=1000:1000", bin, "run", "-c"]).arg(&path));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("framegate: limits.max_sessions: ") && said.contains("RLIMIT_NOFILE is 1000"), "{said}");
    assert_eq!(said.lines().count(), 1);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn second_instance_fails_with_one_line() {
    let (_listener, addr) = listen();
    let mut proxy = Proxy::start(&config(addr, "count = 2"));
    let taken = proxy.addr.to_string();
    let same = before(addr, "").replace("127.0.0.1:0\"\n[[route]]", &format!("{taken}\"\n[[route]]"));
    let any = same.replace(&taken, &format!("0.0.0.0:{}", proxy.addr.port()));
    let admin = before(addr, &format!("[admin]\nlisten = \"{}\"", proxy.admin()));
    for (toml, address) in
        [(&same, taken.clone()), (&any, format!("0.0.0.0:{}", proxy.addr.port())), (&admin, proxy.admin().to_string())]
    {
        let path = written(toml);
        let output = refused(Command::new(env!("CARGO_BIN_EXE_framegate")).args(["run", "-c"]).arg(&path));
        std::fs::remove_file(path).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(&format!("framegate: cannot listen on {address}")), "{said}");
        assert!(said.ends_with(": something else listens there already\n"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
    // The first instance is unaffected, and frees the address when it stops.
    assert!(proxy.stop().is_empty());
    let path = written(&same);
    Proxy::spawn(Command::new(env!("CARGO_BIN_EXE_framegate")).args(["run", "-c"]).arg(&path), path.clone());
}

#[test]
fn clients_connect_over_ipv6() {
    let upstream = TcpListener::bind("[::1]:0").unwrap();
    let addr = upstream.local_addr().unwrap();
    let toml = before(addr, "").replace("127.0.0.1:0\"\n[[route]]", "[::1]:0\"\n[[route]]");
    let mut proxy = Proxy::start(&toml);
    assert!(proxy.addr.is_ipv6());
    let (mut client, server) = open(&proxy, &upstream);
    client.write_all(&masked(0x82, b"six")).unwrap();
    assert_eq!(read_frame(&server).1, b"six");
    drop((client, server));
    let line = proxy.log.wait_for(" end ");
    assert!(field(&line, "client").unwrap().starts_with("[::1]:"), "{line}");
    proxy.stop();
}

fn panic_worker(proxy: &Proxy, worker: usize) -> String {
    http(proxy.admin(), &format!("POST /fault/panic?worker={worker} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn on_worker(proxy: &Proxy, worker: usize) -> f64 {
    proxy.metric(&format!("framegate_sessions{{worker=\"{worker}\"}}"))
}

/// A sum over all series of a metric.
fn sum(proxy: &Proxy, name: &str) -> f64 {
    let admin = proxy.admin();
    let text = http(admin, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix('{')?.split(' ').next_back()?.parse::<f64>().ok();
    text.lines().filter_map(of).sum()
}

fn fault(addr: SocketAddr, workers: usize, more: &str) -> Proxy {
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\nfault_injection = true\n";
    Proxy::start(&before(addr, &format!("{more}\n{admin}")).replace("count = 1", &format!("count = {workers}")))
}

#[test]
fn panic_ends_only_the_sessions_of_its_worker() {
    let (listener, addr) = listen();
    let mut proxy = fault(addr, 2, "");
    let mut sessions = Vec::new();
    // The kernel decides which of the two listeners gets a client.
    eventually("both workers have two sessions at least", || {
        sessions.push(open(&proxy, &listener));
        eventually("it is counted", || {
            (on_worker(&proxy, 0) + on_worker(&proxy, 1) == sessions.len() as f64).then_some(())
        });
        (on_worker(&proxy, 0) >= 2.0 && on_worker(&proxy, 1) >= 2.0).then_some(())
    });
    let (lost, kept) = (on_worker(&proxy, 0), on_worker(&proxy, 1));
    let answer = panic_worker(&proxy, 0);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    eventually("the restart is counted", || (proxy.metric("framegate_worker_restarts_total") == 1.0).then_some(()));
    proxy.said.wait_for("worker 0 panicked");
    let mut alive = 0.0;
    for (client, upstream) in &mut sessions {
        let heard = client.write_all(&masked(0x82, b"are you there")).is_ok() && heard(upstream);
        if heard {
            alive += 1.0;
        } else {
            // Both sides see the end.
            read_all(client);
            read_all(upstream);
        }
    }
    assert!(alive == kept, "{alive} of {kept} live on");
    eventually("gauges are right again", || {
        (on_worker(&proxy, 0) == 0.0 && on_worker(&proxy, 1) == kept).then_some(())
    });
    assert!(proxy.metric("framegate_sessions_ended_total{cause=\"worker-panic\",ended_by=\"proxy\"}") == lost);
    // Both workers accept new clients.
    let before = (sum(&proxy, "framegate_worker_loop_iterations_total"), sessions.len());
    eventually("the worker has new sessions", || {
        sessions.push(open(&proxy, &listener));
        let total = kept + (sessions.len() - before.1) as f64;
        eventually("it is counted", || (on_worker(&proxy, 0) + on_worker(&proxy, 1) == total).then_some(()));
        (on_worker(&proxy, 0) >= 1.0).then_some(())
    });
    // accepted = ok + refused + under way; ok = ended + open
    let (ok, ended) =
        (proxy.metric("framegate_handshakes_total{outcome=\"ok\"}"), sum(&proxy, "framegate_sessions_ended_total"));
    assert!(ok == sessions.len() as f64);
    assert!(ok == ended + on_worker(&proxy, 0) + on_worker(&proxy, 1));
    assert!(proxy.metric("framegate_connections_accepted_total") == sum(&proxy, "framegate_handshakes_total"));
    // It still stops cleanly.
    drop(sessions);
    proxy.stop();
}

/// Whether the frame arrives, or the end of the stream.
fn heard(upstream: &TcpStream) -> bool {
    let mut first = [0];
    let n = std::io::Read::read(&mut &*upstream, &mut first).unwrap_or(0);
    n == 1 && first[0] == 0x82 && {
        read_exact(upstream, 5 + 13);
        true
    }
}

#[test]
fn panic_logs_the_end_of_every_session() {
    let (listener, addr) = listen();
    let mut proxy = fault(addr, 1, "");
    let sessions: Vec<_> = (0..3).map(|_| open(&proxy, &listener)).collect();
    panic_worker(&proxy, 0);
    for (client, upstream) in &sessions {
        read_all(client);
        read_all(upstream);
    }
    drop(sessions);
    let log = proxy.stop();
    let ends: Vec<_> = log.iter().filter(|line| line.contains(" end ")).map(|line| verdict(line)).collect();
    assert_eq!(ends, ["ended_by=proxy phase=open cause=worker-panic status=101"; 3], "{log:#?}");
}

#[test]
fn panic_loses_no_queued_client() {
    let (_listener, addr) = listen();
    let proxy = fault(addr, 1, "path = \"/none\"\n[limits]\nmax_handshakes = 1");
    // The only permit is taken: all others wait in the kernel's queue.
    let mut first = connect(proxy.addr);
    first.write_all(b"GET").unwrap();
    eventually("it is accepted", || (proxy.metric("framegate_handshakes") == 1.0).then_some(()));
    let mut queued: Vec<_> = (0..20).map(|_| connect(proxy.addr)).collect();
    for client in &mut queued {
        client.write_all(request("/", "").as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    assert!(panic_worker(&proxy, 0).starts_with("HTTP/1.1 200 "));
    read_all(&first);
    for client in &queued {
        let (answer, end) = read_all(client);
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(end, End::Fin);
    }
    assert!(proxy.metric("framegate_worker_restarts_total") == 1.0);
    eventually("the tally agrees", || {
        let refused = proxy.metric("framegate_handshakes_total{outcome=\"no-route\"}");
        let lost = proxy.metric("framegate_handshakes_total{outcome=\"worker-panic\"}");
        (refused == 20.0 && lost == 1.0 && proxy.metric("framegate_handshakes") == 0.0).then_some(())
    });
}

#[test]
fn workers_survive_repeated_panics_and_one_during_drain() {
    let (listener, addr) = listen();
    let mut proxy = fault(addr, 1, "[drain]\nspread = \"10s\"\ndeadline = \"15s\"");
    for n in 1..=3 {
        let (client, upstream) = open(&proxy, &listener);
        panic_worker(&proxy, 0);
        read_all(&client);
        read_all(&upstream);
        eventually("the restart is counted", || {
            (proxy.metric("framegate_worker_restarts_total") == f64::from(n)).then_some(())
        });
    }
    let sessions = [open(&proxy, &listener), open(&proxy, &listener)];
    proxy.signal("TERM");
    proxy.said.wait_for("signal received");
    panic_worker(&proxy, 0);
    let begun = Instant::now();
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(sessions);
}

#[test]
fn faults_are_injected_only_if_allowed() {
    let (listener, addr) = listen();
    let proxy = Proxy::before(addr, "");
    let answer = panic_worker(&proxy, 0);
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("fault_injection"), "{answer}");
    let (mut client, upstream) = open(&proxy, &listener);
    client.write_all(&masked(0x82, b"calm")).unwrap();
    assert_eq!(read_frame(&upstream).1, b"calm");
    assert!(proxy.metric("framegate_worker_restarts_total") == 0.0);
    let proxy = fault(addr, 1, "");
    assert!(panic_worker(&proxy, 1).starts_with("HTTP/1.1 404 "));
}
