//! The relay as a relay, and the commands as a user runs them.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_framegate-loadtest");
const DEADLINE: Duration = Duration::from_secs(20);

/// A server role in a process of its own, killed when dropped.
struct Server(Child, SocketAddr);

impl Server {
    fn start(args: &[&str]) -> Server {
        let mut child = Command::new(PROGRAM).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        Server(child, addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A relay with both ends of one connection through it.
fn relayed() -> (Server, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    let relay = Server::start(&["relay", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let client = TcpStream::connect(relay.1).unwrap();
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    (relay, client, server)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn the_relay_passes_bytes_and_fins_both_ways() {
    let (_relay, mut client, mut server) = relayed();
    let sent = bytes(8 << 20);
    for _ in 0..2 {
        let mut source = client.try_clone().unwrap();
        let got = std::thread::scope(|scope| {
            scope.spawn(|| {
                source.write_all(&sent).unwrap();
                source.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            got
        });
        assert!(got == sent, "{} bytes of {} received, or others", got.len(), sent.len());
        // And now the other way, which the first FIN has left open.
        (client, server) = (server, client);
    }
}

#[test]
fn the_relay_stops_reading_when_nobody_takes_the_bytes_and_loses_none() {
    let (_relay, mut client, mut server) = relayed();
    let sent = bytes(64 << 20);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0;
    while let Ok(n) = client.write(&sent[taken..]) {
        taken += n;
        assert!(taken < 48 << 20, "the relay goes on reading while nobody takes its bytes");
    }
    let mut got = vec![0; taken];
    server.read_exact(&mut got).unwrap();
    assert!(got == sent[..taken]);
    client.write_all(b"more").unwrap();
    server.read_exact(&mut got[..4]).unwrap();
    assert_eq!(&got[..4], b"more");
}

#[test]
fn the_relay_ends_both_sides_when_one_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    drop(listener);
    let relay = Server::start(&["relay", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let mut client = TcpStream::connect(relay.1).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let ended = client.read(&mut [0; 1]);
    assert!(ended.as_ref().is_ok_and(|n| *n == 0) || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn cost_and_memory_measure_the_relay() {
    let targets = "cost --target direct --target relay --target relay2 --rounds 2 --round-ms 50";
    let output = run(&targets.split(' ').chain(["--workload", "64,churn,latency"]).collect::<Vec<_>>());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = printed
        .lines()
        .filter(|line| line.starts_with("relay"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    // Three workloads and two targets, and what they add to the direct way.
    assert_eq!(rows.len(), 12, "{printed}");
    for row in rows.iter().filter(|row| row.len() > 9) {
        assert!(row[1].parse::<f64>().unwrap() > 0.0 && row[2].parse::<f64>().unwrap() > 0.0, "{printed}");
    }
    for more in [&[][..], &["--plain"]] {
        let output = run(&[&["memory", "--target", "relay", "--connections", "40", "--steps", "2"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8(output.stdout).unwrap().lines().any(|line| line.starts_with("relay")));
    }
}

#[test]
fn a_target_that_cannot_be_measured_is_named_in_one_sentence() {
    let ends_at_once = format!("broken={PROGRAM} --version");
    for (target, word) in [("unheard-of", "unheard-of"), (ends_at_once.as_str(), "broken does not listen")] {
        let output = run(&["cost", "--target", target]);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            printed.starts_with("framegate-loadtest: ") && printed.contains(word) && printed.lines().count() == 1,
            "{printed}"
        );
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}
