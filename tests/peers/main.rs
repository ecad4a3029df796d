//! Independent peers through the proxy: one table of scenarios, each client with each backend. See
//! README.md here.

mod raw;
mod record;
mod tungstenite;

use record::Records;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(30);
const CLIENT: Duration = Duration::from_secs(400);

/// A row of the table: what the client does, and what it and the backend must see.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// What the backend is asked to do.
    pub query: String,
    #[serde(default)]
    pub subprotocols: Vec<String>,
    #[serde(default, rename = "deflate")]
    _deflate: bool,
    #[serde(default)]
    pub sends: Vec<Send>,
    /// `false`: no echo is expected.
    pub answer: Option<bool>,
    #[serde(default)]
    pub greetings: usize,
    #[serde(default)]
    pub ping: usize,
    /// The number of repetitions, with `cut=1..` in the query.
    #[serde(default)]
    cuts: usize,
    pub close: Option<Close>,
    pub end: Option<String>,
    #[serde(default)]
    pub expect: Value,
    backend: Option<Value>,
    /// What the client must be able to do, and the backend.
    #[serde(default)]
    client: Vec<String>,
    #[serde(default)]
    serves: Vec<String>,
    /// Only these backends.
    #[serde(default)]
    backends: Vec<String>,
    /// Known failures of other proxies.
    #[serde(default)]
    known: HashMap<String, String>,
}

#[derive(Deserialize, Clone)]
pub struct Send {
    pub kind: String,
    pub size: usize,
    #[serde(default)]
    pub times: usize,
    #[serde(default)]
    pub fragments: usize,
    #[serde(default)]
    pub pings: bool,
}

#[derive(Deserialize, Clone)]
pub struct Close {
    pub code: Option<u16>,
    pub reason: Option<String>,
}

/// An implementation: on which side it can be, and what it supports.
const CLIENTS: &[(&str, &[&str])] = &[
    ("tungstenite", &["big", "fragments", "reset", "any_code", "empty_close", "no_offer"]),
    ("ws", &["big", "fragments", "reset", "any_code", "empty_close", "no_offer", "deflate"]),
    ("websockets", &["big", "fragments", "reset", "any_code", "no_offer", "deflate", "lenient_subprotocol"]),
    ("chromium", &["deflate", "empty_close"]),
];
const BACKENDS: &[(&str, &[&str])] =
    &[("tungstenite", &[]), ("raw", &[]), ("ws", &["deflate", "1014"]), ("websockets", &["deflate", "1014"])];

#[test]
fn peers_written_in_rust() {
    run(&["tungstenite", "raw"], &["tungstenite", "raw"], Tools::none());
}

#[test]
fn ws_and_websockets() {
    let tools = Tools::find();
    run(&["tungstenite", "raw", "ws", "websockets"], &["ws", "websockets"], tools);
    run(&["ws", "websockets"], &["tungstenite", "raw"], Tools::find());
}

#[test]
fn chromium() {
    run(&["chromium"], &["tungstenite", "raw", "ws", "websockets"], Tools::find());
}

/// Runs each client with each backend. Fails if one scenario does.
fn run(clients: &[&str], backends: &[&str], tools: Tools) {
    let mut failed = Vec::new();
    for &backend in backends.iter().filter(|b| tools.has(b)) {
        let backend = Backend::start(backend, &tools);
        let proxy = Proxy::start(backend.port);
        for &client in clients.iter().filter(|c| tools.has(c)) {
            let pair = format!("{client}>{}", backend.name);
            if std::env::var("PEERS").is_ok_and(|only| !only.split(',').any(|p| p == pair)) {
                continue;
            }
            let fine = match client {
                "raw" => raw_client(&pair, &proxy, &backend),
                "tungstenite" => tungstenite_client(&pair, &proxy, &backend),
                _ => foreign_client(client, &pair, &proxy, &backend, &tools),
            };
            if !fine {
                failed.push(pair);
            }
        }
    }
    assert!(failed.is_empty(), "through {}: {failed:?}", proxy_name());
}

/// The installed parts that peers in other languages need.
struct Tools {
    env: PathBuf,
    chromium: Option<String>,
    missing: Vec<&'static str>,
}

impl Tools {
    fn none() -> Tools {
        Tools { env: PathBuf::new(), chromium: None, missing: Vec::new() }
    }

    /// Prints what is missing and how to install it; fails with CI set.
    fn find() -> Tools {
        let beside_tmp = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
        let env = std::env::var_os("PEERS_ENV").map_or_else(beside_tmp, PathBuf::from);
        let runs = |program: &str| {
            let child = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            child.is_ok_and(|s| s.success())
        };
        let named = std::env::var("CHROMIUM").ok();
        let known = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
        let chromium = named.into_iter().chain(known).find(|c| runs(c));
        let mut missing = Vec::new();
        let mut lines = Vec::new();
        if !(runs("node") && env.join("node/node_modules/ws").exists()) {
            lines.push(
                "SKIPPED: npm `ws` is missing, as client and backend; install Node.js, then run tests/peers/setup.sh",
            );
            missing.extend(["ws", "chromium"]);
        }
        if !env.join("python/bin/python").exists() {
            lines.push(
                "SKIPPED: Python `websockets` is missing, as client and backend; \
                 install python3-venv, then run tests/peers/setup.sh",
            );
            missing.push("websockets");
        }
        if chromium.is_none() {
            lines.push("SKIPPED: Chromium is missing, as client; apt-get install chromium, or name one in CHROMIUM");
            missing.push("chromium");
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| lines.iter().for_each(|line| say(line)));
        assert!(
            missing.is_empty() || std::env::var_os("CI").is_none(),
            "with CI set no peer may be missing: {missing:?}"
        );
        Tools { env, chromium, missing }
    }

    fn has(&self, peer: &str) -> bool {
        !self.missing.contains(&peer)
    }

    /// The program of a peer in another language.
    fn command(&self, peer: &str, role: &str) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let (program, file) = match peer {
            "websockets" => (self.env.join("python/bin/python"), format!("{role}.py")),
            "chromium" => ("node".into(), "chromium.mjs".to_owned()),
            _ => ("node".into(), format!("{role}.mjs")),
        };
        let mut command = Command::new(program);
        command.arg(here.join(file)).env("NODE_DIR", self.env.join("node")).env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(path) = &self.chromium {
            command.env("CHROMIUM", path);
        }
        command
    }
}

/// Bypasses the capture of the test harness: every log must show what was run and what was not.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

// ---- backends and the proxy

struct Backend {
    name: &'static str,
    can: &'static [&'static str],
    port: u16,
    control: u16,
    _child: Option<Running>,
}

impl Backend {
    fn start(name: &str, tools: &Tools) -> Backend {
        let &(name, can) = BACKENDS.iter().find(|(n, _)| *n == name).unwrap();
        let records = Records::default();
        let (port, control, child) = match name {
            "tungstenite" => (tungstenite::backend(&records), records.serve(), None),
            "raw" => (raw::backend(&records), records.serve(), None),
            _ => {
                let mut child = Running::start(tools.command(name, "backend").stdout(Stdio::piped()));
                let line = child
                    .first_line(|c| c.stdout.take().map(|s| Box::new(s) as Box<dyn Read + std::marker::Send>), "port");
                let ports: Value = serde_json::from_str(&line).unwrap();
                let port = |k: &str| u16::try_from(ports[k].as_u64().unwrap()).unwrap();
                (port("port"), port("control"), Some(child))
            }
        };
        Backend { name, can, port, control, _child: child }
    }
}

fn proxy_name() -> String {
    std::env::var("PROXY").ok().filter(|p| !p.is_empty()).unwrap_or_else(|| "framegate".to_owned())
}

/// The proxy in front of one backend: framegate, or with PROXY=nginx|haproxy|none another one or
/// none.
struct Proxy {
    port: u16,
    _child: Option<Running>,
}

impl Proxy {
    fn start(upstream: u16) -> Proxy {
        let name = proxy_name();
        let mut command = match name.as_str() {
            "none" => return Proxy { port: upstream, _child: None },
            "framegate" => Command::new(env!("CARGO_BIN_EXE_framegate")),
            _ => {
                let mut c = Command::new("python3");
                c.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/stand_in.py")).arg(&name);
                c
            }
        };
        command.args(["run", "--listen", "127.0.0.1:0", "--upstream"]).arg(format!("ws://127.0.0.1:{upstream}"));
        let mut child = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let line = child
            .first_line(|c| c.stderr.take().map(|s| Box::new(s) as Box<dyn Read + std::marker::Send>), "listening on ");
        let address = line.split("listening on ").nth(1).and_then(|a| a.split_whitespace().next()).unwrap();
        let port = address.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap();
        Proxy { port, _child: Some(child) }
    }
}

/// A child process that ends with the test: by its standard input, then by a signal.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        let child = command.stdin(Stdio::piped()).spawn();
        Running(child.unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program())))
    }

    /// Waits for the first line with `want`; the rest of the stream is read and dropped.
    fn first_line(
        &mut self,
        stream: impl FnOnce(&mut Child) -> Option<Box<dyn Read + std::marker::Send>>,
        want: &'static str,
    ) -> String {
        let stream = stream(&mut self.0).unwrap();
        let (tx, rx) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = tx.send(line);
            }
        });
        let deadline = Instant::now() + START;
        let mut seen = String::new();
        loop {
            match rx.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(want) => return line,
                Ok(line) => seen += &(line + "\n"),
                Err(e) => panic!("no line with {want:?} ({e}); it said: {seen}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // SIGTERM, so that a stand-in can stop its proxy too.
        let _ = Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- clients

/// The rows of the table that both peers support.
fn table(client: &str, backend: &Backend) -> Vec<(Scenario, Value)> {
    let text = include_str!("scenarios.json");
    let rows: Vec<Value> = serde_json::from_str(text).unwrap();
    let can = CLIENTS.iter().find(|(n, _)| *n == client).unwrap().1;
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut out = Vec::new();
    for mut row in rows {
        let s: Scenario = serde_json::from_value(row.clone()).unwrap();
        let here =
            if s.backends.is_empty() { backend.name != "raw" } else { s.backends.iter().any(|b| b == backend.name) };
        let able = s.client.iter().all(|n| can.contains(&n.as_str()))
            && s.serves.iter().all(|n| backend.can.contains(&n.as_str()));
        if here && able && s.name.contains(&only) {
            row["known"] = json!(s.known.get(&proxy_name()));
            out.push((s, row));
        }
    }
    out
}

fn tungstenite_client(pair: &str, proxy: &Proxy, backend: &Backend) -> bool {
    let mut count = Count::new(pair);
    for (s, _) in table("tungstenite", backend) {
        let cuts: Vec<String> =
            if s.cuts == 0 { vec![String::new()] } else { (1..=s.cuts).map(|c| format!("cut={c}&")).collect() };
        let began = Instant::now();
        let found = cuts.iter().try_for_each(|cut| {
            let id = raw::id();
            tungstenite::play(&format!("ws://127.0.0.1:{}/peers?{}&{cut}id={id}", proxy.port, s.query), &s)
                .and_then(|()| {
                    s.backend
                        .as_ref()
                        .map_or(Ok(()), |want| record::compare(&record::fetch(backend.control, &id), want))
                })
                .map_err(|e| format!("{cut} {e}"))
        });
        count.add(&s.name, found, s.known.get(&proxy_name()), began);
    }
    count.finish()
}

fn raw_client(pair: &str, proxy: &Proxy, backend: &Backend) -> bool {
    let mut count = Count::new(pair);
    let only = std::env::var("SCENARIO").unwrap_or_default();
    for s in raw::SCENARIOS.iter().filter(|s| s.raw_backend == (backend.name == "raw") && s.name.contains(&only)) {
        let began = Instant::now();
        let known = s.known.iter().find(|(p, _)| *p == proxy_name()).map(|(_, why)| (*why).to_owned());
        count.add(s.name, (s.play)(proxy.port, backend.control), known.as_ref(), began);
    }
    count.finish()
}

struct Count<'a> {
    pair: &'a str,
    passed: usize,
    failed: usize,
    known: usize,
}

impl Count<'_> {
    fn new(pair: &str) -> Count<'_> {
        Count { pair, passed: 0, failed: 0, known: 0 }
    }

    fn add(&mut self, name: &str, found: Result<(), String>, known: Option<&String>, began: Instant) {
        let verdict = match (found, known) {
            (Ok(()), _) => {
                self.passed += 1;
                "ok".to_owned()
            }
            (Err(e), Some(why)) => {
                self.known += 1;
                format!("known: {why} ({e})")
            }
            (Err(e), None) => {
                self.failed += 1;
                format!("FAILED: {e}")
            }
        };
        say(&format!("  {} {name} ... {verdict} ({} ms)", self.pair, began.elapsed().as_millis()));
    }

    fn finish(self) -> bool {
        let known =
            if self.known > 0 { format!(", {} known failures of this proxy", self.known) } else { String::new() };
        say(&format!("{}: {} passed, {} failed{known}", self.pair, self.passed, self.failed));
        self.failed == 0
    }
}

/// A client in another language: reads the plan from its standard input and prints the results.
fn foreign_client(client: &str, pair: &str, proxy: &Proxy, backend: &Backend, tools: &Tools) -> bool {
    let scenarios: Vec<Value> = table(client, backend).into_iter().map(|(_, row)| row).collect();
    let url = format!("ws://127.0.0.1:{}", proxy.port);
    let plan = json!({ "url": url, "control": backend.control, "pair": pair, "scenarios": scenarios });
    let mut child = Running::start(tools.command(client, "client").stdout(Stdio::piped()));
    let mut stdin = child.0.stdin.take().unwrap();
    stdin.write_all(plan.to_string().as_bytes()).unwrap();
    drop(stdin);
    let stdout = child.0.stdout.take().unwrap();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| say(&line)));
    let deadline = Instant::now() + CLIENT;
    loop {
        match child.0.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            _ => {
                say(&format!("{pair}: not finished within {CLIENT:?}"));
                return false;
            }
        }
    }
}
