//! Proxies under measurement and the backend behind them: started as child processes on the CPU they are given,
//! with a configuration tuned for the workload, and ended with the value that stands for them.

use crate::{Failure, proc};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// What every measurement is told of its targets.
#[derive(clap::Args)]
pub struct TargetArgs {
    /// relay, relay2, framegate, nginx, haproxy, or NAME=COMMAND with {port} and {backend}; ratios refer to the
    /// first [default: all that are there]
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,
    /// The framegate to measure [default: beside this program]
    #[arg(long, value_name = "FILE")]
    framegate: Option<PathBuf>,
    /// CPU of the proxies [default: the first this process may run on]
    #[arg(long, value_name = "CPU")]
    proxy_cpu: Option<usize>,
    /// CPU of load and backend [default: the second]
    #[arg(long, value_name = "CPU")]
    load_cpu: Option<usize>,
}

/// How to start a target.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The backend itself, without a proxy.
    Direct,
    Relay,
    Framegate(PathBuf),
    Nginx,
    Haproxy,
    Other(String),
}

/// Where things run.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub proxy_cpu: usize,
    pub load_cpu: usize,
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
        Ok(Place { proxy_cpu, load_cpu })
    }

    pub fn specs(&self) -> Result<Vec<Spec>, Failure> {
        let framegate = match &self.framegate {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("framegate"),
        };
        if !self.targets.is_empty() {
            return self.targets.iter().map(|text| Spec::parse(text, &framegate)).collect();
        }
        let found = |name: &&str| match *name {
            "relay" | "relay2" => true,
            "framegate" => framegate.exists(),
            program => is_installed(program),
        };
        let names = ["relay", "relay2", "framegate", "nginx", "haproxy"];
        names.iter().filter(|name| found(name)).map(|name| Spec::parse(name, &framegate)).collect()
    }
}

impl Spec {
    fn parse(text: &str, framegate: &Path) -> Result<Spec, Failure> {
        let (name, kind) = match text.split_once('=') {
            Some((name, command)) => (name, Kind::Other(command.to_owned())),
            None => match text {
                "direct" => (text, Kind::Direct),
                "relay" | "relay2" => (text, Kind::Relay),
                "framegate" => (text, Kind::Framegate(framegate.to_owned())),
                "nginx" => (text, Kind::Nginx),
                "haproxy" => (text, Kind::Haproxy),
                _ => return Err(format!("unknown target {text:?}: write NAME=COMMAND for one of your own").into()),
            },
        };
        Ok(Spec { name: name.to_owned(), kind })
    }

    fn command(&self, port: u16, backend: SocketAddr, dir: &Path) -> Result<Command, Failure> {
        let file = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map(|()| path)
        };
        Ok(match &self.kind {
            Kind::Direct => return Err("the direct way has no command".into()),
            Kind::Relay => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--upstream", &backend.to_string()]);
                command
            }
            Kind::Framegate(program) => {
                let config = file("framegate.toml", framegate_config(port, backend))?;
                let mut command = Command::new(program);
                command.arg("run").arg("-c").arg(config);
                command
            }
            Kind::Nginx => {
                let config = file("nginx.conf", nginx_config(port, backend, dir))?;
                let mut command = Command::new(program("nginx"));
                command.arg("-p").arg(dir).arg("-e").arg(dir.join("nginx.err")).arg("-c").arg(config);
                command
            }
            Kind::Haproxy => {
                let config = file("haproxy.cfg", haproxy_config(port, backend))?;
                let mut command = Command::new(program("haproxy"));
                command.arg("-db").arg("-q").arg("-f").arg(config);
                command
            }
            Kind::Other(text) => {
                let text = text.replace("{port}", &port.to_string()).replace("{backend}", &backend.to_string());
                let mut words = text.split_whitespace();
                let mut command = Command::new(words.next().ok_or("a target has an empty command")?);
                command.args(words);
                command
            }
        })
    }
}

fn framegate_config(port: u16, backend: SocketAddr) -> String {
    format!(
        "[workers]\ncount = 1\npin = false\n\n[log]\naccess = \"off\"\n\n[admin]\nlisten = \"off\"\n\n[timeouts]\nidle = \"1h\"\n\n[[listener]]\nlisten = \"127.0.0.1:{port}\"\n\n\
         [[route]]\npath = \"/\"\nupstream = \"echo\"\n\n[[upstream]]\nname = \"echo\"\nendpoints = [\"ws://{backend}\"]\n"
    )
}

fn nginx_config(port: u16, backend: SocketAddr, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.err;\n\
         events {{ worker_connections 19000; use epoll; multi_accept on; }}\n\
         http {{\n  access_log off;\n  tcp_nodelay on;\n  proxy_connect_timeout 5s;\n  proxy_read_timeout 1h;\n  proxy_send_timeout 1h;\n\
         \x20 client_body_temp_path {dir}/t1;\n  proxy_temp_path {dir}/t2;\n  fastcgi_temp_path {dir}/t3;\n  uwsgi_temp_path {dir}/t4;\n  scgi_temp_path {dir}/t5;\n\
         \x20 server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n      proxy_pass http://{backend};\n      proxy_http_version 1.1;\n\
         \x20     proxy_set_header Upgrade $http_upgrade;\n      proxy_set_header Connection \"upgrade\";\n      proxy_set_header Host $host;\n    }}\n  }}\n}}\n"
    )
}

fn haproxy_config(port: u16, backend: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 9000\n\ndefaults\n  mode http\n  no log\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n\n\
         frontend in\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend echo\n\nbackend echo\n  server echo {backend}\n"
    )
}

/// A running child process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A proxy that takes connections.
pub struct Target {
    pub name: String,
    pub addr: SocketAddr,
    child: Option<Running>,
}

impl Target {
    /// Starts a proxy on its CPU and waits until it accepts.
    pub fn start(spec: &Spec, backend: SocketAddr, dir: &Scratch, place: Place) -> Result<Target, Failure> {
        let name = spec.name.clone();
        if let Kind::Direct = spec.kind {
            return Ok(Target { name, addr: backend, child: None });
        }
        let port = free_port()?;
        let dir = dir.subfolder(&name)?;
        let errors = dir.join("stderr");
        let mut command = spec.command(port, backend, &dir)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors)?);
        let child =
            spawn_on(place.proxy_cpu, place.load_cpu, &mut command).map_err(|e| format!("cannot start {name}: {e}"))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut child = Running(child);
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(addr).is_err() {
            let ended = child.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                return Err(format!("{name} does not listen on {addr}: {}", said.trim()).into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(Target { name, addr, child: Some(child) })
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
        let mut command = Command::new(std::env::current_exe()?);
        command.args(role).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = Running(command.spawn()?);
        let stdout = child.0.stdout.take().ok_or("the backend has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().strip_prefix("listening on ").ok_or("the backend did not start")?.parse()?;
        Ok(Backend { addr, _child: child })
    }
}

/// Children inherit the affinity of the thread that starts them.
fn spawn_on(cpu: usize, back_to: usize, command: &mut Command) -> Result<Child, Failure> {
    proc::pin(cpu)?;
    let child = command.spawn();
    proc::pin(back_to)?;
    Ok(child?)
}

/// A folder for configurations, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Scratch, Failure> {
        let path = std::env::temp_dir().join(format!("framegate-loadtest-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub fn subfolder(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Free a moment ago; the target listens on it right after.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Servers often live where only root's PATH goes.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    found.map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| name.into())
}

fn is_installed(name: &str) -> bool {
    program(name).is_file()
}
