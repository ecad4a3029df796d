//! wrk: many requests on many connections, each of which has to get its own response.
//!
//! `PLAIN_REQUESTS` of them, 20,000 by default. For a million:
//! `PLAIN_REQUESTS=1000000 cargo test --release --test plain load`.

use super::common::*;
use super::peers::found;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Responses that wrk has not read when it ends, at most.
const UNDER_WAY: usize = 64;

/// A server that answers each request with its path, and with many more bytes now and then. It
/// closes connections, too.
fn server() -> SocketAddr {
    let (listener, addr) = listen();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(|| serve(stream.unwrap()));
        }
    });
    addr
}

fn serve(stream: TcpStream) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    for n in 1.. {
        let (mut line, mut head) = (String::new(), String::new());
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        while head != "\r\n" {
            head.clear();
            reader.read_line(&mut head).ok().filter(|n| *n > 0)?;
        }
        if line.starts_with("POST ") {
            reader.read_exact(&mut [0; 100]).ok()?;
        }
        let mut body = line.split(' ').nth(1)?.to_owned();
        if n % 100 == 0 {
            body.push_str(&" x".repeat(50_000));
        }
        let close = if n % 500 == 0 { "Connection: close\r\n" } else { "" };
        write!(writer, "HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n{body}", body.len()).ok()?;
        if n % 500 == 0 {
            return None;
        }
    }
    None
}

#[test]
fn every_request_of_many_gets_its_own_response() {
    let requests = std::env::var("PLAIN_REQUESTS").map_or(20_000, |text| text.parse().unwrap());
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"http://{}\"\n[log]\naccess = \"off\"\n",
        server()
    ));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plain/wrk.lua");
    // A signal ends it when there are enough, long before this time.
    let mut wrk = Command::new("wrk");
    wrk.args(["-t2", "-c64", "-d600s", "-T30s", "-s", script, &format!("http://{}/", proxy.addr)]);
    let Some(child) = found("wrk", wrk.stdout(Stdio::piped()).spawn()) else { return };
    let mut wrk = Wrk(child);
    let answered = || proxy.metric("framegate_http_requests_total{status=\"2xx\"}") as usize;
    while answered() < requests + UNDER_WAY {
        assert!(wrk.0.try_wait().unwrap().is_none(), "wrk has ended");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &wrk.0.id().to_string()]).status().unwrap().success());
    let mut out = String::new();
    wrk.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let line = out.lines().find(|line| line.starts_with("got ")).unwrap_or_else(|| panic!("{out}"));
    let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] >= requests, "{line}");
    assert_eq!(numbers[1..], [0; 6], "{line}");
    let others = ["3xx", "4xx", "5xx"].map(|class| format!("framegate_http_requests_total{{status=\"{class}\"}}"));
    assert_eq!(others.map(|name| proxy.find_metric(&name).unwrap_or(0.0)), [0.0; 3]);
}

/// Killed when dropped.
struct Wrk(Child);

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}
