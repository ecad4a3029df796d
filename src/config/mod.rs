//! The snapshot: one validated, immutable configuration. What stands here needs no later check.
//! `file.rs` is the TOML as typed, `build.rs` turns it into a snapshot or into errors with line and column.

use crate::policy::balance::Group;
use crate::policy::route::Routes;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything a process runs by. Workers hold one `Arc` of it and swap it whole at a reload.
#[derive(Debug)]
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub addr: SocketAddr,
    pub trusted_proxies: Vec<ipnet::IpNet>,
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

/// Timeouts in milliseconds; 0 is off where the docs of the key say that it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub request_head_ms: u64,
    /// One try.
    pub connect_ms: u64,
    /// All tries together.
    pub connect_total_ms: u64,
    pub upstream_head_ms: u64,
    /// 0: off.
    pub idle_ms: u64,
    pub close_ms: u64,
    pub write_stall_ms: u64,
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    pub spread_ms: u64,
    pub deadline_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub access: AccessLog,
    pub format: Format,
    /// Of diagnostics on standard error.
    pub level: log::LevelFilter,
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
