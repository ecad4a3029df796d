//! The snapshot: one validated, immutable configuration. Its values need no further check, except
//! against the resources of the machine ([`Snapshot::resource_errors`]). Starts nothing and opens
//! only the file, and the bodies of responses and keys of tokens that it names.
//!
//! `file.rs` is the TOML as written; `build.rs`, `routes.rs`, `matching.rs`, `rewrite.rs`,
//! `actions.rs`, `auth.rs`, `jwt.rs`, `shadow.rs`, `shield.rs`, `upstreams.rs`, `discovery.rs`,
//! `health.rs` and `tls.rs` convert it to a snapshot, or to errors with line and column;
//! `value.rs`, `endpoint.rs` and `pattern.rs` parse single values; `describe.rs` is the text of
//! `check`.

mod access;
mod actions;
mod ask;
mod auth;
mod build;
mod clients;
mod describe;
pub mod discovery;
mod endpoint;
mod error;
mod file;
mod flow;
mod health;
mod heartbeat;
mod jwt;
mod limits;
mod matching;
mod pattern;
mod renewal;
mod rewrite;
mod routes;
mod shadow;
mod sharing;
mod shield;
mod split;
mod tls;
mod upstreams;
mod value;

pub use access::{parse_deny_file, read_text};
pub use clients::ClientTable;
pub use error::Error;
pub use sharing::{Redis, RedisServer};

use self::discovery::Discovery;
use crate::memory::CHECKS_MAX;
use crate::policy::access::Access;
use crate::policy::auth::jwt::RemoteKeys;
use crate::policy::auth::{Method, Revoked};
use crate::policy::limit::Permit;
use crate::policy::listener::{Entry, ListenerLimits};
use crate::policy::matching::Routes;
use crate::policy::shield::Shield;
use crate::policy::tls::TlsVersion;
pub use crate::policy::tls::{CertificateFiles, ClientAuth, ListenerTls};
use crate::policy::upstream::Upstream;
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::settings::Settings;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The output of `example-config`: every key with its default, commented.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Descriptors not used by sessions: listeners, polls, logs, admin connections.
pub const SPARE_DESCRIPTORS: usize = 256;

/// Reads and validates a file. Errors name it as given.
pub fn load(path: &Path) -> Result<Snapshot, Error> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::unreadable(&name, &e))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name),
        Err(e) => Err(Error::not_text(&name, &bytes, e.valid_up_to())),
    }
}

/// Validates `text`, called `name` in errors.
pub fn parse(text: &str, name: &str) -> Result<Snapshot, Error> {
    build::from_text(text, name)
}

/// The configuration from the flags of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// A listener without TLS.
    pub listen: Option<String>,
    /// A listener with TLS.
    pub tls: Option<TlsFlags>,
    pub upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFlags {
    pub listen: String,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Where a process takes its configuration from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Flags(Flags),
}

impl Source {
    /// The name used in errors that concern no single place of a file.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Flags(_) => "run".to_owned(),
        }
    }

    /// Reads and validates. A file is read again at each call.
    pub fn load(&self) -> Result<Snapshot, Error> {
        match self {
            Source::File(path) => load(path),
            Source::Flags(flags) => from_flags(flags),
        }
    }
}

/// The listeners of the flags, one route for all requests, and defaults.
pub fn from_flags(flags: &Flags) -> Result<Snapshot, Error> {
    build::from_flags(flags)
}

/// The configuration of `demo`: all requests go to `backend`.
pub fn demo(listen: Vec<Listener>, admin: SocketAddr, backend: SocketAddr) -> Snapshot {
    build::demo(listen, admin, backend)
}

/// The complete configuration of a process. Workers hold an `Arc` of it, which a reload replaces.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub workers: Workers,
    pub listeners: Vec<Listener>,
    pub routes: Routes,
    /// In the order of the file, shared by the routes to them.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Credentials that do not count any more.
    pub revoked: Revoked,
    /// The `[[auth]]` sections, in the order of the file.
    pub methods: Vec<Arc<Method>>,
    /// Query parameters that hold credentials: their values do not stand in the log.
    pub secret_parameters: Vec<String>,
    /// Keys of tokens that are fetched from URLs.
    pub key_sources: Vec<Arc<RemoteKeys>>,
    /// Where limits are shared with other hosts.
    pub redis: Option<Arc<Redis>>,
    /// Of the upstreams that find endpoints at run time.
    pub discoveries: Vec<Discovery>,
    pub limits: Limits,
    pub shield: Shield,
    /// The settings of a session before its route is selected.
    pub settings: Arc<Settings>,
    pub sockets: Sockets,
    pub drain: Drain,
    pub log: Log,
    /// `None`: off.
    pub admin: Option<Admin>,
}

impl Snapshot {
    /// Connections of health checks at a time, with `nofile` descriptors (RLIMIT_NOFILE): 0 if
    /// nothing is checked.
    pub fn checks_max(&self, nofile: u64) -> usize {
        match self.upstreams.iter().any(|upstream| upstream.check.is_some()) {
            true => usize::try_from(nofile / 16).unwrap_or(usize::MAX).clamp(16, CHECKS_MAX),
            false => 0,
        }
    }

    /// Questions to servers about clients at a time, one descriptor each; 0 if no route asks one.
    pub fn calls_max(&self) -> usize {
        let asked = |method: &&Arc<Method>| {
            let routes = self.routes.entries().iter().filter_map(|entry| entry.route.auth.as_ref());
            routes.flat_map(|auth| auth.requirement.methods()).any(|used| Arc::ptr_eq(used, method))
        };
        let remotes = self.methods.iter().filter(asked).filter_map(|method| method.remote());
        remotes.map(|remote| remote.max_pending).fold(0, usize::saturating_add)
    }

    /// The limits with `nofile` descriptors, of which health checks and calls have their share.
    pub fn resolved_limits(&self, nofile: u64) -> ResolvedLimits {
        let others = (self.checks_max(nofile) as u64).saturating_add(self.calls_max() as u64);
        self.limits.resolve(nofile.saturating_sub(others))
    }

    /// Endpoints of the upstream are, or may become, spoken to over TLS.
    pub fn uses_tls(&self, upstream: &Upstream) -> bool {
        let discovers = self.discoveries.iter().any(|one| one.tls && one.upstream == upstream.name);
        discovers || upstream.endpoints().iter().any(|endpoint| endpoint.tls)
    }

    /// Why a peer is closed at accept, or a client that a PROXY header names behind that, whatever
    /// the listener: it failed too often.
    pub fn blocked(&self, peer: IpAddr, now: Millis) -> Option<Cause> {
        self.shield.blocks.as_ref()?.left(peer, now).map(|_| Cause::AddressBlocked)
    }

    /// Takes over the runtime state of `before` at `now`: endpoints that have not changed stay the
    /// same objects.
    pub fn inherit(&self, before: &Snapshot, now: Millis) {
        for upstream in &self.upstreams {
            if let Some(known) = before.upstreams.iter().find(|known| known.name == upstream.name) {
                upstream.inherit(known, now);
            }
        }
        for remote in &self.key_sources {
            if let Some(known) = before.key_sources.iter().find(|known| *known == remote) {
                remote.inherit(known);
            }
        }
        before.key_sources.iter().for_each(|replaced| replaced.retire());
        self.revoked.inherit(&before.revoked);
        if let (Some(blocks), Some(known)) = (&self.shield.blocks, &before.shield.blocks) {
            blocks.inherit(known);
        }
        for method in &self.methods {
            if let Some(known) = before.methods.iter().find(|known| known.name == method.name) {
                method.inherit(known);
            }
        }
        for listener in &self.listeners {
            let known = before.listeners.iter().find(|known| known.addr == listener.addr);
            if let (Some(limits), Some(known)) = (&listener.limits, known.and_then(|known| known.limits.as_ref())) {
                limits.inherit(known);
            }
        }
        let known: HashMap<_, _> = before.routes.entries().iter().map(|entry| (&entry.route.name, entry)).collect();
        for entry in self.routes.entries() {
            if let Some(known) = known.get(&entry.route.name) {
                entry.route.inherit(&known.route);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// `None`: one per CPU available to the process.
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
    /// The addresses that it admits: of the peer at accept, of the client at its request.
    pub access: Option<Arc<Access>>,
    /// How much comes in.
    pub limits: Option<Arc<ListenerLimits>>,
    /// Connections begin with a PROXY header.
    pub proxy_protocol: bool,
    pub tls: Option<ListenerTls>,
    /// Redirects every request to this port of the same host, over TLS.
    pub redirect: Option<u16>,
}

impl Listener {
    /// `address` is one of its trusted proxies.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// Connections from `peer` are closed at accept. A trusted proxy is not the client that the
    /// lists are about: that is judged with its request.
    pub fn refuses_peer(&self, peer: IpAddr) -> bool {
        self.access.as_ref().is_some_and(|access| !self.trusts(peer) && access.refuses(peer))
    }

    /// With PROXY headers only trusted proxies may connect: others could claim any address.
    pub fn may_connect(&self, peer: IpAddr) -> bool {
        !self.proxy_protocol || self.trusts(peer)
    }

    /// A connection from `peer` was accepted, and holds `permit`. An error closes it at once.
    pub fn enter(&self, peer: IpAddr, permit: Permit, now: Millis) -> Result<Entry, Cause> {
        if self.refuses_peer(peer) {
            return Err(Cause::PeerRefused);
        }
        let Some(limits) = &self.limits else { return Ok(Entry { permit, excess: None }) };
        self.answers(limits.enter(permit, Some(peer).filter(|peer| !self.trusts(*peer)), now)?)
    }

    /// A connection from `peer` stays open without a request: it is one of the peer's sessions.
    /// `None` where that may have no more.
    pub fn stay(&self, peer: IpAddr, permit: Permit, now: Millis) -> Option<Permit> {
        match &self.limits {
            Some(limits) if !self.trusts(peer) => limits.stay(permit, peer, now),
            _ => Some(permit),
        }
    }

    /// The client has become known, behind a PROXY header.
    pub fn meet(&self, client: IpAddr, permit: Permit, now: Millis) -> Result<Entry, Cause> {
        if self.refuses_peer(client) {
            return Err(Cause::PeerRefused);
        }
        match &self.limits {
            Some(limits) if !self.trusts(client) => self.answers(limits.meet(permit, client, now)?),
            _ => Ok(Entry { permit, excess: None }),
        }
    }

    /// With TLS, an answer would cost what the limit is there to save.
    fn answers(&self, entry: Entry) -> Result<Entry, Cause> {
        match entry.excess {
            Some(excess) if self.tls.is_some() => Err(excess.cause),
            _ => Ok(entry),
        }
    }

    pub fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_auth != ClientAuth::Off)
    }

    /// A listener without TLS.
    pub fn plain(addr: SocketAddr) -> Listener {
        let trusted_proxies = Vec::new();
        let (access, limits) = (None, None);
        Listener { addr, trusted_proxies, access, limits, proxy_protocol: false, tls: None, redirect: None }
    }

    /// A listener with TLS and one certificate.
    pub fn secure(addr: SocketAddr, files: CertificateFiles) -> Listener {
        let tls = ListenerTls {
            certificates: vec![files],
            min_version: TlsVersion::default(),
            client_auth: ClientAuth::Off,
            tickets: true,
        };
        Listener { tls: Some(tls), ..Listener::plain(addr) }
    }
}

/// Limits of the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Established sessions, two descriptors each; `None`: as many as RLIMIT_NOFILE allows. Beyond
    /// that: 503.
    pub max_sessions: Option<usize>,
    /// Connections whose handshake has not completed, one descriptor each; `None`: an eighth of
    /// RLIMIT_NOFILE.
    pub max_handshakes: Option<usize>,
    /// Size of a request head, and of a response head. Default 16 KiB.
    pub head_bytes: usize,
    /// Bytes buffered for slow receivers, all workers together. Default 64 MiB.
    pub buffer_bytes: usize,
    /// Shadows of sessions, all workers together, one descriptor each; 0 where no route has one.
    pub max_shadows: usize,
    /// Bytes buffered for shadows, all workers together; 0 where no route has one.
    pub shadow_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_sessions: None,
            max_handshakes: None,
            head_bytes: 16 << 10,
            buffer_bytes: 64 << 20,
            max_shadows: 0,
            shadow_buffer_bytes: 0,
        }
    }
}

/// Limits with the defaults of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedLimits {
    pub max_sessions: usize,
    pub max_handshakes: usize,
}

impl Limits {
    /// Fills in the limits that depend on RLIMIT_NOFILE: an eighth of it for handshakes, and
    /// sessions with two descriptors each for the rest without those of shadows and
    /// [`SPARE_DESCRIPTORS`]. Configured limits stay; see [`Snapshot::resource_errors`].
    pub fn resolve(&self, nofile: u64) -> ResolvedLimits {
        // Linux allows at most 2^30; "unlimited" must not result in more sessions.
        let nofile = usize::try_from(nofile).unwrap_or(usize::MAX).min(1 << 30);
        let max_handshakes = self.max_handshakes.unwrap_or(nofile / 8);
        let spare = SPARE_DESCRIPTORS + self.max_shadows;
        let left = nofile.saturating_sub(max_handshakes).saturating_sub(spare);
        ResolvedLimits { max_sessions: self.max_sessions.unwrap_or(left / 2), max_handshakes }
    }
}

/// Options of accepted and upstream sockets.
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
    /// The level of diagnostics on standard error.
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
    /// Enables `POST /fault/panic?worker=N`, which makes a worker panic, to test monitoring.
    pub fault_injection: bool,
}
