//! The generator as its users meet it: against its own faulty server, where it must notice each
//! fault; against servers and clients that we did not write; and with input that cannot work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tungstenite::Message;

const PROGRAM: &str = env!("CARGO_BIN_EXE_framegate-loadtest");
const DEADLINE: Duration = Duration::from_secs(20);

/// A server role, ended with a signal so that it tells its totals; killed when dropped.
struct Server {
    child: Child,
    addr: SocketAddr,
    lines: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(args: &str) -> Server {
        let words = args.split_whitespace().chain(["--listen", "127.0.0.1:0"]);
        let mut child = Command::new(PROGRAM).arg("serve").args(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Server { child, addr, lines }
    }

    fn url(&self) -> String {
        format!("ws://{}/", self.addr)
    }

    fn totals(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut printed = String::new();
        self.lines.read_to_string(&mut printed).unwrap();
        assert!(self.child.wait().unwrap().success());
        printed
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn run(args: &str, more: &[&str]) -> Output {
    Command::new(PROGRAM).args(args.split_whitespace()).args(more).output().unwrap()
}

/// The exit code and the JSON report.
fn report(args: &str, more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = run(args, &[&["--json", "-"], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{printed}")))
}

fn faults(report: &serde_json::Value) -> Vec<(String, u64)> {
    let faults = report["groups"][0]["whole"]["faults"].as_object().unwrap();
    faults.iter().map(|(name, fault)| (name.clone(), fault["count"].as_u64().unwrap())).collect()
}

/// Quick runs: nothing here is about speed.
const QUICK: &str = "-c 4 --rate 400 -d 1s --settle 0s --cooldown 1s";

#[test]
fn each_fault_of_a_server_is_noticed_by_its_name() {
    // What the server does, by which names the generator may know it, and the exit code.
    let cases: [(&str, &[&str], i32); 20] = [
        ("drop", &["lost"], 3),
        ("duplicate", &["duplicate"], 3),
        ("reorder", &["reordered"], 3),
        ("corrupt", &["corrupt"], 3),
        ("truncate", &["corrupt"], 3),
        ("extra", &["unexpected", "corrupt"], 3),
        ("masked", &["protocol"], 0),
        ("rsv", &["protocol"], 0),
        ("opcode", &["protocol"], 0),
        ("length", &["protocol"], 0),
        ("oversized-control", &["protocol"], 0),
        ("fragment-order", &["protocol"], 0),
        ("reset", &["reset"], 0),
        ("fin", &["closed"], 0),
        ("close=1011", &["closed"], 0),
        ("stall", &["lost", "unanswered"], 3),
        ("refuse=503:every=2", &["refused"], 1),
        ("accept:every=2", &["handshake"], 1),
        ("extension:every=2", &["handshake"], 1),
        ("garbage:every=2", &["handshake"], 1),
    ];
    for some in cases.chunks(5) {
        std::thread::scope(|scope| some.iter().for_each(|case| drop(scope.spawn(|| is_noticed(*case)))));
    }
}

fn is_noticed((fault, names, code): (&str, &[&str], i32)) {
    let server = Server::start(&format!("faulty --fault {fault}"));
    let (exit, report) = report(&format!("echo {} {QUICK}", server.url()), &[]);
    let seen = faults(&report);
    assert!(seen.iter().any(|(name, _)| names.contains(&name.as_str())), "{fault}: {seen:?}");
    // A lost connection also costs the rate that was asked for: 1.
    let codes = if code == 0 { vec![0, 1] } else { vec![code] };
    assert!(exit.is_some_and(|exit| codes.contains(&exit)), "{fault}: exit {exit:?}, {seen:?}");
    let totals = server.totals();
    assert!(totals.contains(fault.split(['=', ':']).next().unwrap()), "{totals}");
}

#[test]
fn as_many_faults_are_counted_as_were_made() {
    for (fault, name) in [("corrupt", "corrupt"), ("duplicate", "duplicate"), ("drop", "lost")] {
        let server = Server::start(&format!("faulty --fault {fault}:every=50"));
        let (_, report) = report(&format!("echo {} {QUICK}", server.url()), &[]);
        let totals = server.totals();
        let made: u64 = totals.trim().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(made > 0);
        assert_eq!(faults(&report), [(name.to_owned(), made)], "{totals}");
    }
}

#[test]
fn handshakes_that_never_end_time_out() {
    for (fault, name) in
        [("silent:every=1", "timeout"), ("eof:every=1", "closed"), ("subprotocol:every=1", "handshake")]
    {
        let server = Server::start(&format!("faulty --fault {fault}"));
        let output = run(&format!("echo {} -c 2 --connect-timeout 300ms -d 1s", server.url()), &[]);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{fault}: {printed}");
        assert!(
            printed.lines().last().unwrap().starts_with("framegate-loadtest: no connection could be opened"),
            "{name} {printed}"
        );
    }
}

#[test]
fn a_late_reply_is_late_in_the_corrected_figure() {
    let server = Server::start("slow --delay 50ms");
    let (exit, report) = report(&format!("echo {} {QUICK}", server.url()), &[]);
    let p50 = report["groups"][0]["times"]["round-trip"]["percentiles_us"]["p50"].as_u64().unwrap();
    assert_eq!(exit, Some(0));
    assert!((50_000..200_000).contains(&p50), "{p50}");
}

#[test]
fn pushes_come_with_their_numbers_and_what_was_skipped_is_lost() {
    let server = Server::start("push --rate 50 --size 1KiB");
    let (exit, pushed) = report(&format!("push {} -c 20 -d 1s --settle 0s", server.url()), &[]);
    assert_eq!((exit, faults(&pushed)), (Some(0), vec![]));
    let times = &pushed["groups"][0]["times"]["one-way"];
    assert!((900..=1100).contains(&times["count"].as_u64().unwrap()), "{times}");
    // An independent client finds the stamps' bytes in whole messages.
    let (mut client, _) = tungstenite::connect(server.url()).unwrap();
    assert!(matches!(client.read().unwrap(), Message::Binary(payload) if payload.len() == 1024));
    drop(server.totals());
    // A queue without room for what a stalled reader does not take.
    let server = Server::start("push --rate 200 --size 64KiB --queue 1KiB");
    let scenario = std::env::temp_dir().join(format!("framegate-stall-{}.toml", std::process::id()));
    std::fs::write(
        &scenario,
        format!(
            "url = {:?}\nduration = \"2s\"\nsettle = \"0s\"\n[[group]]\nshape = \"push\"\nconnections = 1\n\
             stall-every = \"500ms\"\nstall-for = \"450ms\"\n",
            server.url()
        ),
    )
    .unwrap();
    let output = run("run --scenario", &[scenario.to_str().unwrap()]);
    // stall-every is for slow readers: refused, with what would have been right.
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stall-every is for slow, not for push"));
    std::fs::remove_file(scenario).unwrap();
}

#[test]
fn a_sink_verifies_what_others_send() {
    let server = Server::start("sink --verify");
    let (mut client, _) = tungstenite::connect(server.url()).unwrap();
    client.send(Message::text("no stamp in here at all, whatever anybody says")).unwrap();
    let closed = loop {
        match client.read() {
            Ok(Message::Close(Some(frame))) => break u16::from(frame.code),
            Ok(_) => {}
            Err(e) => panic!("{e}"),
        }
    };
    assert_eq!(closed, 1008);
    assert!(server.totals().contains("1 messages, 46 bytes, 1 wrong"));
}

/// An echo server that is tungstenite's, one thread for each client.
fn foreign_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[test]
fn a_server_of_others_is_measured_in_every_shape() {
    let addr = foreign_echo();
    let shapes = [
        "echo -c 5 --rate 500 --size 64*3,1KiB,200KiB*0.1",
        "echo -c 5 --closed 8 --text --size 300 --fragments 3",
        "churn -c 10 --rate 100",
        "churn --closed 4 --messages 3",
        "idle -c 20 --ping 200ms",
        "storm -c 20 --cut-every 300ms --jitter 100ms",
        "slow -c 5 --rate 200 --stall-every 300ms --stall-for 100ms",
    ];
    for shape in shapes {
        let (exit, report) = report(&format!("{shape} ws://{addr}/chat?room=1 -d 1s --settle 0s"), &[]);
        assert_eq!(exit, Some(0), "{shape}: {}", report["findings"]);
        assert_eq!(faults(&report), [], "{shape}");
        let metric = match shape.split(' ').next().unwrap() {
            "idle" => "ping",
            "storm" => "reconnect",
            _ => "round-trip",
        };
        assert!(
            report["groups"][0]["times"][metric]["count"].as_u64().is_some_and(|count| count > 10),
            "{shape}: {report}"
        );
    }
}

/// Echo servers in Node (`ws`) and Python (`websockets`), as tests/peers/setup.sh installs them.
#[test]
fn servers_in_node_and_python_are_measured() {
    const NODE: &str = "const {WebSocketServer} = require('ws');
        const s = new WebSocketServer({host: '127.0.0.1', port: 0}, () => console.log(s.address().port));
        s.on('connection', c => c.on('message', (m, binary) => c.send(m, {binary})));";
    const PYTHON: &str = "
import asyncio, websockets
async def echo(ws):
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(echo, '127.0.0.1', 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())";
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into(), PathBuf::from);
    let peers = std::env::var_os("PEERS_ENV").map_or_else(|| target.join("peers"), PathBuf::from);
    let (modules, python) = (peers.join("node/node_modules"), peers.join("python/bin/python"));
    if !modules.exists() || !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI has the peers: tests/peers/setup.sh");
        return eprintln!("skipped: no peers here, see tests/peers/setup.sh");
    }
    let mut node = Command::new("node");
    node.args(["-e", NODE]).env("NODE_PATH", modules);
    let mut python = Command::new(python);
    python.args(["-c", PYTHON]);
    for (name, mut command) in [("node", node), ("python", python)] {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap()));
        let server = Server { child, addr, lines };
        for shape in [
            "echo -c 5 --rate 200 --size 64*9,1KiB,100KiB*0.2",
            "echo -c 3 --closed 4 --text --fragments 2",
            "churn --rate 30",
        ] {
            let (exit, report) = report(&format!("{shape} {} -d 1s --settle 0s", server.url()), &[]);
            assert_eq!((exit, faults(&report)), (Some(0), vec![]), "{name}, {shape}: {}", report["findings"]);
        }
    }
}

#[test]
fn everything_is_written_into_the_folder_and_thresholds_fail() {
    let server = Server::start("echo");
    let folder = std::env::temp_dir().join(format!("framegate-report-{}", std::process::id()));
    let place = folder.to_str().unwrap();
    let output = run(&format!("echo {} {QUICK} --out {place} --fail-if p50>1ns --fail-if errors>0", server.url()), &[]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("FAILED   not p50>1ns") && page.contains("ok       not errors>0"), "{page}");
    for name in
        ["report.txt", "report.json", "report.html", "percentiles.csv", "percentiles.svg", "run.hlog", "junit.xml"]
    {
        assert!(std::fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 100), "{name}");
    }
    let (log, plot) = (folder.join("run.hlog"), folder.join("plot.html"));
    let output = run("plot", &[log.to_str().unwrap(), log.to_str().unwrap(), "--out", plot.to_str().unwrap()]);
    assert!(output.status.success() && std::fs::read_to_string(plot).unwrap().contains("<svg"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_work_is_said_in_one_sentence_with_the_right_exit_code() {
    let bad = std::env::temp_dir().join(format!("framegate-bad-{}.toml", std::process::id()));
    std::fs::write(&bad, "[[group]]\nconections = 1\n").unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start("echo");
    let cases = [
        ("echo http://127.0.0.1:1/ -d 1s".to_owned(), 2, "ws://"),
        ("echo nonsense -d 1s".to_owned(), 2, "ws://"),
        (format!("echo ws://{unused}/ -d 1s"), 1, "refused"),
        ("echo ws://no-such-host.invalid/ -d 1s".to_owned(), 2, "no-such-host.invalid"),
        (format!("run --scenario {}", bad.display()), 2, ":2:1: unknown field `conections`"),
        ("run --scenario /no/such/file".to_owned(), 2, "/no/such/file"),
        (format!("echo {} --size huge", server.url()), 2, "size"),
        (format!("echo {} -d 0s", server.url()), 2, "must be longer"),
        (format!("echo {} --pin 999", server.url()), 2, "999"),
        (format!("echo {} -c 1000000 -d 1s", server.url()), 2, "ulimit -n"),
        (format!("echo {} --fail-if p99=1", server.url()), 2, "p99>10ms"),
        (format!("idle {} --find p99<1ms", server.url()), 2, "open loop"),
        ("plot /no/such/log".to_owned(), 2, "/no/such/log"),
    ];
    for (args, code, printed) in cases {
        let output = run(&args, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args}: {text}");
        assert!(text.contains(printed), "{args}: {text}");
        assert!(text.trim().lines().count() <= 4, "{args}: {text}");
    }
    std::fs::remove_file(bad).unwrap();
}

#[test]
fn a_rate_that_is_not_reached_fails_the_run_and_says_so() {
    // Reads 20 KB/s of each: 100 messages of 1 KiB a second do not pass.
    let server = Server::start("slow --delay 0s --read-rate 20000");
    let (exit, report) =
        report(&format!("echo {} -c 2 --rate 400 --size 64KiB -d 1s --settle 0s --cooldown 500ms", server.url()), &[]);
    assert!(matches!(exit, Some(1 | 3)), "{exit:?}");
    let findings = report["findings"].to_string();
    assert!(findings.contains("target 400/s"), "{findings}");
}

#[test]
fn a_reload_and_a_stop_are_told_by_what_they_do_to_sessions() {
    let server = Server::start("echo");
    let (pid, url) = (server.child.id(), server.url());
    let output = run("during", &["true", &url, "-c", "5", "--rate", "100", "-d", "1s", "--settle", "0s"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && printed.contains("sessions lost       0"), "{printed}");
    let kill = format!("kill -KILL {pid}");
    let output =
        run("during", &[&kill, &url, "-c", "5", "--rate", "100", "-d", "1s", "--settle", "0s", "--cooldown", "1s"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("sessions lost       5") && printed.contains("1006"), "{printed}");
    let output = run("during", &["false", &foreign_url(), "-c", "1", "--rate", "10", "-d", "1s", "--settle", "0s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"false\" failed"));
}

fn foreign_url() -> String {
    format!("ws://{}/", foreign_echo())
}

#[test]
fn a_search_finds_an_interval() {
    let server = Server::start("slow --delay 1ms --read-rate 200000");
    // 1 KiB messages over 2 connections: some 400 a second fit.
    let find = format!(
        "echo {} -c 2 --size 1KiB --rate 100 -d 500ms --settle 0s --cooldown 300ms --find p50<50ms",
        server.url()
    );
    let output = run(&find, &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let line = printed.lines().next().unwrap_or_default();
    assert!(line.contains("p50<50ms holds at"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn idle_connections_are_cheap_on_both_sides() {
    let server = Server::start("push --rate 0.001");
    let (exit, report) = report(&format!("idle {} -c 1500 -d 1s --settle 0s", server.url()), &[]);
    assert_eq!(exit, Some(0));
    let bytes = report["memory_per_connection_bytes"].as_f64().unwrap();
    assert!(bytes < 2048.0, "{bytes} bytes of the client for each");
}

#[test]
fn a_client_that_never_reads_costs_the_push_server_its_queue_and_no_more() {
    let server = Server::start("push --rate max --size 64KiB --queue 1MiB");
    let mut client = TcpStream::connect(server.addr).unwrap();
    let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let resident = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // Until what it has sent no longer grows.
    let (mut last, deadline) = (0, Instant::now() + DEADLINE);
    loop {
        let unread = socket2::SockRef::from(&client).recv_buffer_size().unwrap();
        let now = client.peek(&mut vec![0; 8 << 20]).unwrap_or(0);
        if now > 0 && now == last {
            break;
        }
        assert!(Instant::now() < deadline && unread > 0);
        last = now;
        std::thread::yield_now();
    }
    assert!(resident() < 64 << 10, "{} KiB", resident());
}
