//! Applications that others wrote, as processes: servers and clients of the scripts in this folder,
//! with the packages that tests/peers/setup.sh installs.

use crate::common::{Lines, Proxy, verdict};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The folder of the installed packages; `None`, and why, without them, but not where `CI` is set.
pub fn packages() -> Option<PathBuf> {
    let beside_tmp = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    let env = std::env::var_os("PEERS_ENV").map_or_else(beside_tmp, PathBuf::from);
    let is_there = env.join("node/node_modules/socket.io").exists() && runs("node");
    if !is_there {
        missing("Node.js or its packages; run tests/peers/setup.sh");
    }
    is_there.then_some(env)
}

/// Says so; an error where `CI` is set.
pub fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "with CI set nothing may be missing: {what}");
    let _written = writeln!(std::io::stderr().lock(), "SKIPPED: missing: {what}");
}

pub fn runs(program: &str) -> bool {
    let run = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// The name of the program; `None`, and why, without it.
pub fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let found = named.into_iter().chain(known).find(|program| runs(program));
    if found.is_none() {
        missing("Chromium; apt-get install chromium, or name one in CHROMIUM");
    }
    found
}

fn command(packages: &Path, script: &str, role: &str, args: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(script)).arg(role).args(args);
    command.env("NODE_DIR", packages.join("node"));
    if role == "play"
        && let Some(program) = chromium()
    {
        command.env("CHROMIUM", program);
    }
    command
}

/// The server of a script. Killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    said: Lines,
}

impl Server {
    pub fn start(packages: &Path, script: &str, args: &[&str]) -> Server {
        Server::spawn(&mut command(packages, script, "serve", args))
    }

    /// A program that says `port` and its port.
    pub fn spawn(command: &mut Command) -> Server {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Lines::of(child.stderr.take().unwrap());
        let out = Lines::of(child.stdout.take().unwrap());
        let port = out.wait("a port", |line| line.strip_prefix("port ")?.parse().ok());
        Server { child, port, said }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server said:\n{}", self.said.all().join("\n"));
        }
    }
}

/// framegate before these servers: keys of the route, and of the upstream.
pub fn proxy(servers: &[&Server], route: &str, upstream: &str) -> Proxy {
    let endpoints: Vec<String> = servers.iter().map(|server| format!("\"http://127.0.0.1:{}\"", server.port)).collect();
    Proxy::start(&format!(
        "[workers]\ncount = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"stdout\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n{route}\n\
         [[upstream]]\nname = \"app\"\nendpoints = [{}]\n{upstream}\n",
        endpoints.join(", ")
    ))
}

/// Runs the clients of a script through the proxy; what they saw.
pub fn play(packages: &Path, script: &str, proxy: &Proxy, args: &[&str]) -> serde_json::Value {
    let url = format!("http://{}", proxy.addr);
    let output = command(packages, script, "play", &[&[url.as_str()], args].concat()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {out}{err}");
    let saw = out.lines().find_map(|line| line.strip_prefix("ok ")).unwrap_or_else(|| panic!("{script}: {out}{err}"));
    serde_json::from_str(saw).unwrap()
}

/// How the sessions and requests of the whole access log ended.
pub fn ends(proxy: &mut Proxy) -> Vec<String> {
    let log = proxy.stop();
    log.into_iter().filter(|line| line.contains(" ended_by=")).collect()
}

/// How many of them name this cause and status.
pub fn count(ends: &[String], cause: &str, status: u16) -> usize {
    ends.iter().filter(|line| verdict(line).contains(&format!(" cause={cause} status={status}"))).count()
}

/// WebSockets that were relayed, until one side closed.
pub fn relayed(ends: &[String]) -> usize {
    count(ends, "close", 101)
}

/// Those that are neither relayed WebSockets, nor answered as they should be, nor polls that a
/// client which leaves gives up.
pub fn failures(ends: &[String]) -> Vec<&str> {
    let is_well = |line: &&str| {
        let end = verdict(line);
        let given_up = end.starts_with("ended_by=downstream ") && !end.contains(" phase=open ");
        let left = [" cause=eof", " cause=reset"].iter().any(|cause| end.contains(cause));
        end.contains(" cause=close status=101") || end.contains(" cause=answered status=20") || (given_up && left)
    };
    ends.iter().map(String::as_str).filter(|line| !is_well(line)).collect()
}
