//! The snapshot: one validated, immutable configuration. What stands here needs no later check, but for what only
//! the running machine can say ([`Snapshot::misfits`]). Starts nothing and opens nothing but the file.
//! `file.rs` is the TOML as typed, `build.rs` and `routing.rs` turn it into a snapshot or into errors with line and column,
//! `value.rs`, `endpoint.rs` and `pattern.rs` read single values, `describe.rs` says what a snapshot means.

mod build;
mod describe;
mod endpoint;
mod error;
mod file;
mod pattern;
mod routing;
mod secure;
mod value;

pub use error::Error;

use crate::policy::balance::Group;
use crate::policy::route::Routes;
pub use crate::policy::tls::{CertificateFiles, ClientAuth, ListenerTls};
pub use crate::proto::session::Timeouts;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The commented file that `example-config` prints: every key with its default.
pub const EXAMPLE: &str = include_str!("example.toml");

/// What one read takes at most: each worker has one such buffer to read into, and the pool keeps one in reserve.
pub const SCRATCH_BYTES: usize = 128 * 1024;
/// Pipes of one worker, for routes that splice; who would need one more reads and sends as usual. Two descriptors each.
pub const PIPES_MAX: usize = 32;
/// What a pipe holds at most, in the kernel's memory.
pub const PIPE_BYTES: usize = 256 << 10;

/// Descriptors that are no session's: listeners, polls, logs, admin connections.
pub const SPARE_DESCRIPTORS: usize = 256;

/// Reads and validates a file, as a whole or not at all. Errors name it as given.
pub fn load(path: &Path) -> Result<Snapshot, Error> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::unreadable(&name, &e))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name),
        Err(e) => Err(Error::not_text(&name, &bytes, e.valid_up_to())),
    }
}

/// Validates `text`; `name` stands for it in errors.
pub fn parse(text: &str, name: &str) -> Result<Snapshot, Error> {
    build::from_text(text, name)
}

/// What `run` is told without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// A listener without TLS.
    pub listen: Option<String>,
    /// One with it.
    pub tls: Option<TlsFlags>,
    pub upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFlags {
    pub listen: String,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Listeners as the flags say, one route for everything, the rest as by default.
pub fn from_flags(flags: &Flags) -> Result<Snapshot, Error> {
    build::from_flags(flags)
}

/// `demo`: everything goes to `backend`.
pub fn demo(listen: Vec<Listener>, admin: SocketAddr, backend: SocketAddr) -> Snapshot {
    build::demo(listen, admin, backend)
}

/// Everything a process runs by. Workers hold one `Arc` of it and swap it whole at a reload.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub workers: Workers,
    pub listeners: Vec<Listener>,
    pub routes: Routes,
    /// In the order of the file; [`crate::policy::route::Route::group`] shares these.
    pub groups: Vec<Arc<Group>>,
    pub limits: Limits,
    /// What applies before a route is known.
    pub timeouts: Timeouts,
    pub sockets: Sockets,
    pub drain: Drain,
    pub log: Log,
    /// `None` where it is off.
    pub admin: Option<Admin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// `None`: one per CPU that the process may run on.
    pub count: Option<usize>,
    pub pin: bool,
}

impl Default for Workers {
    fn default() -> Self {
        Workers { count: None, pin: true }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub addr: SocketAddr,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub tls: Option<ListenerTls>,
    /// Every request is sent to this port of the same host, over TLS.
    pub redirect: Option<u16>,
}

/// Limits of the whole process. Shared counters are touched at open and close only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Admitted sessions, two descriptors each; `None`: what RLIMIT_NOFILE allows. Above it: 503.
    pub max_sessions: Option<usize>,
    /// Connections not admitted yet (or being refused), one descriptor each; `None`: an eighth of RLIMIT_NOFILE.
    pub max_handshakes: Option<usize>,
    /// Bytes of a request head, and of an upstream's. Default 16 KiB.
    pub head_bytes: usize,
    /// Bytes that may wait for slow receivers, all workers together. Default 64 MiB.
    pub buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_sessions: None, max_handshakes: None, head_bytes: 16 << 10, buffer_bytes: 64 << 20 }
    }
}

/// What the limits are on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedLimits {
    pub max_sessions: usize,
    pub max_handshakes: usize,
}

impl Limits {
    /// Fills in what was left to RLIMIT_NOFILE: an eighth of it for handshakes, two descriptors a session of what
    /// is left of that and of [`SPARE_DESCRIPTORS`]. What is configured stays, see [`Snapshot::misfits`].
    pub fn resolve(&self, nofile: u64) -> ResolvedLimits {
        // Linux allows 2^30 at most; "unlimited" must not become an absurd number of sessions.
        let nofile = usize::try_from(nofile).unwrap_or(usize::MAX).min(1 << 30);
        let max_handshakes = self.max_handshakes.unwrap_or(nofile / 8);
        let left = nofile.saturating_sub(max_handshakes).saturating_sub(SPARE_DESCRIPTORS);
        ResolvedLimits { max_sessions: self.max_sessions.unwrap_or(left / 2), max_handshakes }
    }
}

/// Options of accepted and of upstream sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// TCP_NOTSENT_LOWAT in bytes; 0 leaves the kernel's default.
    pub notsent_lowat_bytes: u32,
    /// TCP keepalive idle time in seconds; 0 is off.
    pub keepalive_s: u32,
    /// TCP_USER_TIMEOUT in milliseconds; 0 leaves the kernel's default.
    pub user_timeout_ms: u32,
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets { notsent_lowat_bytes: 128 << 10, keepalive_s: 60, user_timeout_ms: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    pub spread_ms: u64,
    pub deadline_ms: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { spread_ms: 10_000, deadline_ms: 25_000 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub access: AccessLog,
    pub format: Format,
    /// Of diagnostics on standard error.
    pub level: log::LevelFilter,
}

impl Default for Log {
    fn default() -> Self {
        Log { access: AccessLog::Stdout, format: Format::Text, level: log::LevelFilter::Info }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub addr: SocketAddr,
    /// Lets `POST /fault/panic?worker=N` make a worker panic: for tests of one's own monitoring.
    pub fault_injection: bool,
}
