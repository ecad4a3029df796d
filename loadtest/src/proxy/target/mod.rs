//! Proxies under measurement and the backend behind them: started as child processes on the CPU
//! they are given, with a configuration tuned for the workload ([`presets`]), and ended with the
//! value that owns them, or with this process ([`child_guard`]).

pub mod child_guard;
mod presets;

use crate::{Failure, proc};
use child_guard::{Running, guarded};
use presets::{Places, Preset, USUAL};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// Which targets to measure, and where they run.
#[derive(clap::Args)]
pub struct TargetArgs {
    /// direct, relay, relay2, relay-splice, framegate, framegate-splice, framegate-limits,
    /// framegate-log, nginx, nginx-bulk, nginx-log, haproxy, haproxy-bulk, haproxy-splice,
    /// haproxy-log, envoy; relay-tls, relay2-tls, framegate-tls, nginx-tls, haproxy-tls, envoy-tls,
    /// caddy-tls, sozu-tls; or NAME=COMMAND with {port}, {backend} and {dir}, reached over TLS if
    /// NAME ends with -tls;
    /// ratios refer to the first process [default: relay, relay2, and of framegate,
    /// nginx, haproxy and envoy those that are there]
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',')]
    targets: Vec<String>,
    /// The framegate to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    framegate: Option<PathBuf>,
    /// Take the proxies' configurations from this folder [default: as built in from loadtest/peers]
    #[arg(long, value_name = "FOLDER")]
    configs: Option<PathBuf>,
    /// CPU of the proxies [default: the first this process may run on]
    #[arg(long, value_name = "CPU")]
    proxy_cpu: Option<usize>,
    /// CPU of load and backend [default: the second]
    #[arg(long, value_name = "CPU")]
    load_cpu: Option<usize>,
}

/// How to start a target.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// The backend itself, without a proxy.
    Direct,
    /// Its program, and the text of its configuration.
    Preset(&'static Preset, PathBuf, String),
    Other(String),
}

/// Where things run.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub proxy_cpu: usize,
}

impl TargetArgs {
    /// Raises the descriptor limit and binds this process to the CPU of the load.
    pub fn place(&self) -> Result<Place, Failure> {
        proc::raise_descriptor_limit()?;
        let cpus = proc::cpus()?;
        let default =
            |index: usize| cpus.get(index).copied().ok_or("two CPUs are needed: one for the proxy, one for the load");
        let proxy_cpu = self.proxy_cpu.map_or_else(|| default(0), Ok)?;
        let load_cpu = self.load_cpu.map_or_else(|| default(1), Ok)?;
        proc::pin(load_cpu)?;
        Ok(Place { proxy_cpu })
    }

    pub fn specs(&self) -> Result<Vec<Spec>, Failure> {
        let framegate = match &self.framegate {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("framegate"),
        };
        let is_there = |name: &&str| Preset::find(name).is_some_and(|known| known.program(&framegate).is_ok());
        let usual = USUAL.into_iter().filter(is_there).map(String::from);
        let names = if self.targets.is_empty() { usual.collect() } else { self.targets.clone() };
        names.iter().map(|name| self.spec(name, &framegate)).collect()
    }

    fn spec(&self, text: &str, framegate: &Path) -> Result<Spec, Failure> {
        let (name, kind) = match (text.split_once('='), Preset::find(text)) {
            (Some((name, command)), _) => (name, Kind::Other(command.to_owned())),
            (None, _) if text == "direct" => (text, Kind::Direct),
            (None, Some(known)) => (text, Kind::Preset(known, known.program(framegate)?, self.config(known)?)),
            (None, None) => {
                return Err(format!("unknown target {text:?}: write NAME=COMMAND for one of your own").into());
            }
        };
        Ok(Spec { name: name.to_owned(), kind })
    }

    fn config(&self, known: &Preset) -> Result<String, Failure> {
        match (known.config, &self.configs) {
            (None, _) => Ok(String::new()),
            (Some((_, built_in)), None) => Ok(built_in.to_owned()),
            (Some((file, _)), Some(folder)) => {
                let path = folder.join(file);
                fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
            }
        }
    }
}

impl Spec {
    /// Somebody else's proxy, known by name.
    pub fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Preset(known, ..) if known.is_peer())
    }

    /// It is spoken to over TLS: its name says so.
    fn is_secure(&self) -> bool {
        self.name.ends_with("-tls")
    }

    fn command(&self, places: &Places, cpu: usize) -> Result<Command, Failure> {
        match &self.kind {
            Kind::Direct => Err("the direct way has no command".into()),
            Kind::Preset(known, program, text) => {
                let path = places.dir.join(known.config.map_or("none", |(file, _)| file));
                fs::write(&path, known.fill(text, places))?;
                let path = path.display().to_string();
                let mut command = guarded(program, Some(cpu))?;
                command.args(known.arguments.iter().map(|text| known.fill(text, places).replace("{config}", &path)));
                Ok(command)
            }
            Kind::Other(text) => {
                let text = places.fill(text);
                let mut words = text.split_whitespace();
                let program = words.next().ok_or("a target has an empty command")?;
                let mut command = guarded(Path::new(program), Some(cpu))?;
                command.args(words);
                Ok(command)
            }
        }
    }
}

/// A proxy that accepts connections.
pub struct Target {
    pub name: String,
    pub addr: SocketAddr,
    pub is_peer: bool,
    /// It is spoken to over TLS.
    pub tls: bool,
    child: Option<Running>,
}

impl Target {
    /// Starts a proxy on its CPU and waits until it accepts.
    pub fn start(spec: &Spec, backend: SocketAddr, dir: &Scratch, place: Place) -> Result<Target, Failure> {
        let (name, is_peer) = (spec.name.clone(), spec.is_peer());
        if let Kind::Direct = spec.kind {
            return Ok(Target { name, addr: backend, is_peer, tls: false, child: None });
        }
        let dir = dir.subfolder(&name)?;
        let tls = spec.is_secure();
        if tls {
            certify(&dir)?;
        }
        let port = free_port()?;
        let errors = dir.join("stderr");
        let mut command = spec.command(&Places { port, backend, dir: &dir }, place.proxy_cpu)?;
        // What a proxy says to its standard output may be its access log.
        command.stdin(Stdio::null()).stdout(fs::File::create(dir.join("stdout"))?).stderr(fs::File::create(&errors)?);
        let mut child = Running(command.spawn().map_err(|e| format!("cannot start {name}: {e}"))?);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(addr).is_err() {
            let ended = child.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let stderr = fs::read_to_string(&errors).unwrap_or_default();
                return Err(format!("{name} does not listen on {addr}: {}", stderr.trim()).into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(Target { name, addr, is_peer, tls, child: Some(child) })
    }

    /// None for the backend itself.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.0.id())
    }
}

/// The server behind the targets, in a process of its own on the CPU of the load.
pub struct Backend {
    pub addr: SocketAddr,
    _child: Running,
}

impl Backend {
    /// `role` is a server role of this program with its arguments.
    pub fn start(role: Vec<String>) -> Result<Backend, Failure> {
        let mut command = guarded(&std::env::current_exe()?, None)?;
        command.args(role).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = Running(command.spawn()?);
        let stdout = child.0.stdout.take().ok_or("the backend has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("listening on ").ok_or("the backend did not start")?.parse()?;
        Ok(Backend { addr, _child: child })
    }
}

const SCRATCH_PREFIX: &str = "framegate-loadtest-";

/// A folder for configurations, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Scratch, Failure> {
        sweep();
        let path = std::env::temp_dir().join(format!("{SCRATCH_PREFIX}{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub fn subfolder(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// A certificate for whoever serves TLS, on P-256: the chain, its key, and both in one file as
/// HAProxy wants them.
fn certify(dir: &Path) -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(dir.join("both.pem"), format!("{cert}{key}"))?;
    fs::write(dir.join("cert.pem"), cert)?;
    Ok(fs::write(dir.join("key.pem"), key)?)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Folders of those who were killed, and could not remove theirs.
fn sweep() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX)).and_then(|pid| pid.parse().ok());
        let is_left =
            pid.is_some_and(|pid: u32| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists());
        if is_left {
            // Somebody else's is not ours to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Free a moment ago; the target listens on it right after.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
