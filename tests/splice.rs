//! Routes with `splice = "on"`: every byte arrives as it was sent, for payloads of any size, slow
//! receivers and ends inside a payload. The system's own counters show that bytes were spliced.

mod common;

use common::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);
/// Far more than one direction can hold on its way.
const MUCH: usize = 24 << 20;

struct Bench {
    proxy: Proxy,
    listener: TcpListener,
}

impl Bench {
    fn new(more: &str) -> Bench {
        let (listener, addr) = listen();
        let config = before(addr, &format!("splice = \"on\"\n{more}"));
        Bench { proxy: Proxy::start(&config), listener }
    }

    fn open(&self) -> (TcpStream, TcpStream) {
        open(&self.proxy, &self.listener)
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends on its own thread: the caller has to read meanwhile what the proxy cannot hold.
fn sends(stream: &TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || stream.write_all(&bytes).unwrap())
}

#[test]
fn payloads_of_every_size_arrive_unchanged() {
    let bench = Bench::new("");
    let (client, upstream) = bench.open();
    for len in
        [0, 125, 126, 4000, 4096, 4097, 16_383, 20_474, 20_475, 20_490, 65_535, 65_536, 262_144, 262_145, 3 << 20]
    {
        for (from, to, wire) in
            [(&client, &upstream, masked(0x82, &payload(len))), (&upstream, &client, plain(0x82, &payload(len)))]
        {
            let sender = sends(from, wire.clone());
            assert!(read_exact(to, wire.len()) == wire, "{len} bytes");
            sender.join().unwrap();
        }
    }
}

#[test]
fn fragments_and_control_frames_keep_their_order() {
    let bench = Bench::new("");
    let (client, upstream) = bench.open();
    let mut wire = Vec::new();
    for round in 0..20 {
        wire.extend(masked(0x02, &payload(70_000 + round)));
        wire.extend(masked(0x89, b"ping"));
        wire.extend(masked(0x80, &payload(100_000 - round)));
        wire.extend(masked(0x81, b"short"));
    }
    let sender = sends(&client, wire.clone());
    assert!(read_exact(&upstream, wire.len()) == wire);
    sender.join().unwrap();
}

#[test]
fn slow_receiver_stops_its_sender_and_loses_nothing() {
    let bench = Bench::new("");
    let (client, upstream) = bench.open();
    let wire = masked(0x82, &payload(MUCH));
    let sender = sends(&client, wire.clone());
    // Without a reader the data on its way stalls.
    let began = Instant::now();
    let stuck = bench.proxy.metric("framegate_receiver_stalls_total");
    while bench.proxy.metric("framegate_receiver_stalls_total") <= stuck && began.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    assert!(!sender.is_finished(), "{MUCH} bytes fit nowhere");
    assert!(read_exact(&upstream, wire.len()) == wire);
    sender.join().unwrap();
}

#[test]
fn fin_inside_a_payload_follows_the_bytes_before_it() {
    let bench = Bench::new("");
    let (mut client, upstream) = bench.open();
    let wire = masked(0x82, &payload(200_000));
    client.write_all(&wire[..150_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (got, end) = read_all(&upstream);
    assert!(got == wire[..150_000] && matches!(end, End::Fin));
    drop(upstream);
    drop(client);
    // A reset inside a payload resets the other side too.
    let (mut client, upstream) = bench.open();
    client.write_all(&wire[..150_000]).unwrap();
    read_exact(&upstream, 150_000);
    reset(upstream);
    let (_, end) = read_all(&client);
    assert!(matches!(end, End::Reset));
}

#[test]
fn violation_after_a_spliced_payload_is_not_forwarded() {
    let bench = Bench::new("");
    let (client, upstream) = bench.open();
    let good = masked(0x82, &payload(100_000));
    let mut wire = good.clone();
    wire.extend([0x83, 0x80, 1, 2, 3, 4]);
    let sender = sends(&client, wire);
    assert!(read_exact(&upstream, good.len()) == good);
    sender.join().unwrap();
    assert_eq!(read_close(&client).0, 1002);
    assert_eq!(read_close(&upstream).0, 1001);
}

#[test]
fn drain_inside_a_payload_closes_after_it() {
    let mut bench = Bench::new("[drain]\nspread = \"0s\"");
    let (mut client, upstream) = bench.open();
    let wire = masked(0x82, &payload(300_000));
    client.write_all(&wire[..200_000]).unwrap();
    assert!(read_exact(&upstream, 200_000) == wire[..200_000]);
    bench.proxy.signal("TERM");
    // The client gets its Close at once: its direction is at a frame boundary.
    assert_eq!(read_close(&client).0, 1001);
    client.write_all(&wire[200_000..]).unwrap();
    assert!(read_exact(&upstream, 100_000 + wire.len() - 300_000) == wire[200_000..]);
    assert_eq!(read_close(&upstream).0, 1001);
    drop((client, upstream));
    assert!(bench.proxy.wait().success());
}

#[test]
fn more_stalled_flows_than_pipes_lose_nothing() {
    let bench = Bench::new("[limits]\nbuffers = \"64MiB\"");
    let wire = masked(0x82, &payload(12 << 20));
    // A worker has 32 pipes.
    let sessions: Vec<_> = (0..40).map(|_| bench.open()).collect();
    let senders: Vec<_> = sessions.iter().map(|(client, _)| sends(client, wire.clone())).collect();
    let began = Instant::now();
    while bench.proxy.metric("framegate_receiver_stalls_total") < 40.0 {
        assert!(began.elapsed() < DEADLINE, "the flows do not stall");
        std::thread::yield_now();
    }
    for (_, upstream) in &sessions {
        let mut got = vec![0; wire.len()];
        let mut stream = upstream;
        stream.read_exact(&mut got).unwrap();
        assert!(got == wire);
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn long_payloads_are_spliced() {
    if !has_strace() {
        return;
    }
    let bench = Bench::new("");
    let (client, upstream) = bench.open();
    let report = temp_path("strace");
    let pid = bench.proxy.pid().to_string();
    let mut tracer = Command::new("strace")
        .args(["-f", "-c", "-e", "trace=splice", "-p", &pid, "-o"])
        .arg(&report)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("strace attaches", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    let wire = masked(0x82, &payload(1 << 20));
    let sender = sends(&client, wire.clone());
    assert!(read_exact(&upstream, wire.len()) == wire);
    sender.join().unwrap();
    assert!(Command::new("kill").args(["-INT", &tracer.id().to_string()]).status().unwrap().success());
    tracer.wait().unwrap();
    let calls = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(report).unwrap();
    assert!(calls.lines().any(|line| line.ends_with(" splice")), "{calls}");
}

fn has_strace() -> bool {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "CI has strace");
    if !found {
        eprintln!("skipped: no strace here");
    }
    found
}

#[test]
fn check_reports_the_pipes_of_splicing_routes() {
    let (_listener, addr) = listen();
    for (splice, counted) in [("on", true), ("off", false)] {
        let path = temp_path("toml");
        std::fs::write(&path, before(addr, &format!("splice = {splice:?}"))).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(["check", "-c"]).arg(&path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(said.contains("32 pipes of 256 KiB in the kernel per worker"), counted, "{said}");
    }
}

#[test]
fn opaque_route_cannot_splice() {
    let (_listener, addr): (TcpListener, SocketAddr) = listen();
    let path = temp_path("toml");
    let config = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\npath = \"/*\"\nmode = \"opaque\"\n\
         splice = \"on\"\nupstream = \"ws://{addr}\"\n"
    );
    std::fs::write(&path, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(["check", "-c"]).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains(":6:10: route.splice") && said.contains("framed"), "{said}");
}
