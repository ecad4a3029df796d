//! Converts the TOML to a snapshot. An invalid value is reported and replaced by its default, so
//! that all errors of a file are reported at once. The snapshot is returned only if there were
//! none.

use super::endpoint;
use super::error::{Error, Problems};
use super::file::{self, File, Section, Typed, TypedList};
use super::value::{self, Parsed, duration_text, shown, size_text};
use super::{
    AccessLog, Admin, CertificateFiles, Drain, Flags, Format, Limits, Listener, Log, Snapshot, Sockets, TlsFlags,
    Workers,
};
use crate::memory::SCRATCH_BYTES;
use crate::policy::access::DenyFile;
use crate::policy::auth::{Revoked, key_sources, secret_parameters};
use crate::policy::endpoint::{Address, Endpoint};
use crate::policy::matching::{Entry, HostPattern, PathPattern, Routes};
use crate::policy::origin::Origins;
use crate::policy::route::Route;
use crate::policy::shield::Shield;
use crate::policy::upstream::Upstream;
use crate::proto::settings::{FlowLimits, FrameLimits, Mode, RelaySettings, RetryOn, Settings, Timeouts};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use toml::Value;

const WORKERS_MAX: usize = 1024;
const HEAD_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 20;
const BUFFER_BYTES: RangeInclusive<u64> = 2 * SCRATCH_BYTES as u64..=1 << 40;
const BODY_BYTES: RangeInclusive<u64> = 1..=(1 << 63) - 1;
/// The top bit of a 64-bit length is always 0 (RFC 6455 section 5.2).
const FRAME_BYTES: RangeInclusive<u64> = 1..=(1 << 63) - 1;
const NOTSENT_BYTES: RangeInclusive<u64> = 4 << 10..=16 << 20;
const USER_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const DRAIN: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

pub fn from_text(text: &str, name: &str) -> Result<Snapshot, Error> {
    let mut problems = Problems::new(text, name);
    let file = toml::from_str(text).unwrap_or_else(|e| {
        problems.add_toml(&e);
        None
    });
    let snapshot = file.map(|file| Builder { problems: &mut problems, deny_files: Vec::new() }.snapshot(&file));
    match (snapshot, problems.into_error()) {
        (Some(snapshot), None) => Ok(snapshot),
        (_, Some(error)) => Err(error),
        // Without a snapshot there is an error.
        (None, None) => Err(Error::flag(name, "cannot be read as a configuration")),
    }
}

pub fn from_flags(flags: &Flags) -> Result<Snapshot, Error> {
    let address = |listen: &str, flag: &str| value::socket_address(listen).map_err(|e| Error::flag(flag, &e));
    let mut listeners = Vec::new();
    if let Some(listen) = &flags.listen {
        listeners.push(Listener::plain(address(listen, "--listen")?));
    }
    if let Some(TlsFlags { listen, cert, key }) = &flags.tls {
        let files = CertificateFiles { cert: cert.clone(), key: key.clone(), ocsp: None };
        let addr = address(listen, "--tls-listen")?;
        if listeners.iter().any(|plain: &Listener| plain.addr == addr) {
            return Err(Error::flag("--tls-listen", &format!("{addr} is already used by --listen; choose another")));
        }
        listeners.push(Listener::secure(addr, files));
    }
    let endpoint = endpoint::endpoint(&flags.upstream).map_err(|e| Error::flag("--upstream", &e))?;
    Ok(one_route(listeners, None, endpoint, Origins::default()))
}

pub fn demo(listeners: Vec<Listener>, admin: SocketAddr, backend: SocketAddr) -> Snapshot {
    let endpoint = Endpoint::new(format!("ws://{backend}"), Address::Tcp(backend), false, String::new());
    // Its page is served on another port, and cookies of other local services may come with it.
    one_route(listeners, Some(Admin { addr: admin, fault_injection: false }), endpoint, Origins::Any)
}

fn one_route(listeners: Vec<Listener>, admin: Option<Admin>, endpoint: Endpoint, origins: Origins) -> Snapshot {
    let upstream = Arc::new(Upstream::new(endpoint.url.clone(), vec![endpoint.into()], Default::default()));
    let route = Route { origins, ..Route::new("/*".to_owned(), Arc::clone(&upstream)) };
    let entry = Entry::new(HostPattern::Any, PathPattern::Under(String::new()), Arc::new(route));
    Snapshot {
        workers: Workers::default(),
        listeners,
        routes: Routes::new(vec![entry]),
        upstreams: vec![upstream],
        discoveries: Vec::new(),
        revoked: Revoked::default(),
        methods: Vec::new(),
        secret_parameters: Vec::new(),
        key_sources: Vec::new(),
        redis: None,
        limits: Limits::default(),
        shield: Shield::default(),
        settings: Arc::default(),
        sockets: Sockets::default(),
        drain: Drain::default(),
        log: Log::default(),
        admin,
    }
}

/// Builds a snapshot. The parts for routes are in `routes.rs`, for upstreams in `upstreams.rs`, for
/// TLS in `tls.rs`.
pub struct Builder<'p, 't> {
    pub problems: &'p mut Problems<'t>,
    /// Files with denied addresses, read so far.
    pub deny_files: Vec<Arc<DenyFile>>,
}

impl Builder<'_, '_> {
    fn snapshot(&mut self, file: &File) -> Snapshot {
        let workers = self.workers(&file.workers);
        let listeners = self.listeners(&file.listener);
        let mut limits = self.limits(&file.limits, &file.workers, workers.count.unwrap_or(1));
        let settings = self.settings(file, &limits);
        let (mut upstreams, discoveries) = self.upstreams(&file.upstream);
        let methods = self.auth_methods(&file.auth, &mut upstreams, &settings.timeouts);
        let routes = self.routes(&file.route, (&mut upstreams, &methods), &settings);
        self.shadow_limits(&file.limits, &routes, &mut limits);
        let shield = self.shield(&file.shield, &listeners);
        Snapshot {
            limits,
            shield,
            sockets: self.sockets(&file.sockets),
            drain: self.drain(&file.drain),
            log: self.log(&file.log),
            admin: self.admin(&file.admin, &file.listener),
            redis: self.redis(file, &routes),
            workers,
            listeners,
            routes,
            upstreams,
            discoveries,
            revoked: Revoked::default(),
            secret_parameters: secret_parameters(&methods),
            key_sources: key_sources(&methods),
            methods,
            settings: Arc::new(settings),
        }
    }

    /// What a session starts under, and every route inherits.
    fn settings(&mut self, file: &File, limits: &Limits) -> Settings {
        let typed = &file.limits;
        let frames = self.frame_limits("limits", &typed.max_frame, &typed.max_message, FrameLimits::default());
        Settings {
            head_bytes: limits.head_bytes,
            max_body: self.max_body("limits", &typed.max_body, Settings::default().max_body),
            timeouts: self.timeouts("timeouts", &file.timeouts, &Timeouts::default()),
            retry_on: RetryOn::default(),
            relay: RelaySettings {
                limits: frames,
                flow: self.flow_limits("limits", typed.flow(), &FlowLimits::default(), Mode::Framed),
                ..RelaySettings::default()
            },
        }
    }

    /// The value, or `default` if it is missing or invalid. An invalid value is reported.
    pub fn take<T>(&mut self, key: &str, typed: &Typed, default: T, parse: impl FnOnce(&Value) -> Parsed<T>) -> T {
        self.read(key, typed, parse).unwrap_or(default)
    }

    pub fn read<T>(&mut self, key: &str, typed: &Typed, parse: impl FnOnce(&Value) -> Parsed<T>) -> Option<T> {
        let typed = typed.as_ref()?;
        parse(typed.get_ref()).map_err(|e| self.problems.add(typed.span(), key, &e)).ok()
    }

    pub fn list<T>(&mut self, key: &str, typed: &TypedList, parse: impl Fn(&Value) -> Parsed<T>) -> Vec<T> {
        let mut good = Vec::new();
        for element in typed.iter().flat_map(|list| list.get_ref()) {
            match parse(element.get_ref()) {
                Ok(value) => good.push(value),
                Err(e) => self.problems.add(element.span(), key, &e),
            }
        }
        good
    }

    fn workers(&mut self, typed: &file::Workers) -> Workers {
        let default = Workers::default();
        Workers {
            count: self.take("workers.count", &typed.count, default.count, |v| value::count_or_auto(v, WORKERS_MAX)),
            pin: self.take("workers.pin", &typed.pin, default.pin, value::flag),
        }
    }

    fn listeners(&mut self, typed: &[Section<file::Listener>]) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for section in typed {
            let key = "listener.listen";
            let one = section.get_ref();
            let Some(listen) = &one.listen else {
                self.problems.add(section.span(), key, "missing; add for example listen = \"0.0.0.0:8080\"");
                continue;
            };
            let Some(addr) = self.read(key, &one.listen, value::address) else { continue };
            let listener = self.listener(one, addr, section.span());
            // Listeners are identified by their address. With port 0 several are possible if they
            // are identical.
            if listeners.iter().any(|other| other.addr == addr && (addr.port() != 0 || *other != listener)) {
                self.problems.add(listen.span(), key, &format!("duplicate listen address {addr}"));
            }
            listeners.push(listener);
        }
        if typed.is_empty() {
            let right = "missing; add a [[listener]] section with listen = \"0.0.0.0:8080\"";
            self.problems.add(0..0, "listener", right);
        }
        listeners
    }

    fn admin(&mut self, typed: &file::Admin, listeners: &[Section<file::Listener>]) -> Option<Admin> {
        let key = "admin.listen";
        let addr = self.take(key, &typed.listen, None, |v| match v.as_str() {
            Some("off") => Ok(None),
            _ => value::address(v).map(Some).map_err(|e| format!("{e}, or \"off\"")),
        });
        let parse = value::flag;
        let fault_injection = self.take("admin.fault_injection", &typed.fault_injection, false, parse);
        let addr = addr?;
        let mut written = listeners.iter().filter_map(|section| section.get_ref().listen.as_ref());
        let same = written.find(|listen| value::address(listen.get_ref()) == Ok(addr));
        if let (true, Some(same)) = (addr.port() != 0, same) {
            let at = typed.listen.as_ref().unwrap_or(same).span();
            self.problems.add(
                at,
                key,
                &format!("{addr} is already used by a [[listener]]; choose another, or \"off\""),
            );
        }
        Some(Admin { addr, fault_injection })
    }

    fn limits(&mut self, typed: &file::Limits, threads: &file::Workers, workers: usize) -> Limits {
        let default = Limits::default();
        let count = |v: &Value| value::count_or_auto(v, value::SESSIONS_MAX);
        let size =
            |range| move |v: &Value| value::size(v, range).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let limits = Limits {
            max_sessions: self.take("limits.max_sessions", &typed.max_sessions, default.max_sessions, count),
            max_handshakes: self.take("limits.max_handshakes", &typed.max_handshakes, default.max_handshakes, count),
            head_bytes: self.take("limits.head", &typed.head, default.head_bytes, size(HEAD_BYTES)),
            buffer_bytes: self.take("limits.buffers", &typed.buffers, default.buffer_bytes, size(BUFFER_BYTES)),
            ..default
        };
        // With "auto" this depends on the machine: see `Snapshot::resource_errors`.
        let least = workers * 2 * SCRATCH_BYTES;
        if let (true, Some(at)) = (limits.buffer_bytes < least, typed.buffers.as_ref().or(threads.count.as_ref())) {
            let (has, least) = (size_text(limits.buffer_bytes as u64), size_text(least as u64));
            let why = format!("{has} is too small for {workers} workers; expected at least \"{least}\"");
            self.problems.add(at.span(), "limits.buffers", &why);
        }
        limits
    }

    /// A `max_message` below an inherited `max_frame` lowers it: a frame cannot be larger than its
    /// message.
    pub fn frame_limits(
        &mut self,
        section: &str,
        max_frame: &Typed,
        max_message: &Typed,
        inherited: FrameLimits,
    ) -> FrameLimits {
        let parse = |v: &Value| value::size(v, FRAME_BYTES);
        let frame_key = format!("{section}.max_frame");
        let written = self.read(&frame_key, max_frame, parse);
        let max_message = self.take(&format!("{section}.max_message"), max_message, inherited.max_message, parse);
        if let (Some(frame), Some(typed)) = (written.filter(|frame| *frame > max_message), max_frame) {
            let (has, most) = (size_text(frame), size_text(max_message));
            let why = format!("{has} exceeds max_message ({most}); lower it, or raise {section}.max_message");
            self.problems.add(typed.span(), &frame_key, &why);
        }
        FrameLimits { max_frame: written.unwrap_or(inherited.max_frame).min(max_message), max_message }
    }

    /// Bytes of the body of a plain request.
    pub fn max_body(&mut self, section: &str, typed: &Typed, inherited: u64) -> u64 {
        self.take(&format!("{section}.max_body"), typed, inherited, |v| value::size(v, BODY_BYTES))
    }

    /// Timeouts of the process or of a route, with `inherited` as defaults.
    pub fn timeouts(&mut self, section: &str, typed: &file::Timeouts, inherited: &Timeouts) -> Timeouts {
        let mut take = |key: &str, typed: &Typed, inherited: u64, parse: fn(&Value) -> Parsed<u64>| {
            self.take(&format!("{section}.{key}"), typed, inherited, parse)
        };
        let timeouts = Timeouts {
            tls_ms: take("tls", &typed.tls, inherited.tls_ms, value::timeout),
            request_head_ms: take("request_head", &typed.request_head, inherited.request_head_ms, value::timeout),
            request_body_ms: take("request_body", &typed.request_body, inherited.request_body_ms, value::timeout),
            keep_alive_ms: take("keep_alive", &typed.keep_alive, inherited.keep_alive_ms, value::timeout),
            decision_ms: take("decision", &typed.decision, inherited.decision_ms, value::timeout),
            connect_ms: take("connect", &typed.connect, inherited.connect_ms, value::timeout),
            connect_total_ms: take("connect_total", &typed.connect_total, inherited.connect_total_ms, value::timeout),
            upstream_head_ms: take("upstream_head", &typed.upstream_head, inherited.upstream_head_ms, value::timeout),
            first_byte_ms: take("first_byte", &typed.first_byte, inherited.first_byte_ms, value::timeout),
            idle_ms: take("idle", &typed.idle, inherited.idle_ms, value::timeout_or_off),
            close_ms: take("close", &typed.close, inherited.close_ms, value::timeout),
            write_stall_ms: take("write_stall", &typed.write_stall, inherited.write_stall_ms, value::timeout),
        };
        let written = typed.connect.as_ref().or(typed.connect_total.as_ref());
        if let (true, Some(at)) = (timeouts.connect_ms > timeouts.connect_total_ms, written) {
            let (one, all) = (duration_text(timeouts.connect_ms), duration_text(timeouts.connect_total_ms));
            let why = format!("{one} exceeds connect_total ({all})");
            self.problems.add(at.span(), &format!("{section}.connect"), &why);
        }
        timeouts
    }

    fn sockets(&mut self, typed: &file::Sockets) -> Sockets {
        let default = Sockets::default();
        let lowat =
            |v: &Value| value::size_or_default(v, NOTSENT_BYTES).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        let user_timeout = |v: &Value| {
            let millis = value::duration(v, USER_TIMEOUT, "the kernel's default")?;
            Ok(u32::try_from(millis).unwrap_or(u32::MAX))
        };
        let (key, typed_lowat) = ("sockets.notsent_lowat", &typed.notsent_lowat);
        Sockets {
            notsent_lowat_bytes: self.take(key, typed_lowat, default.notsent_lowat_bytes, lowat),
            keepalive_s: self.take("sockets.keepalive", &typed.keepalive, default.keepalive_s, value::keepalive),
            user_timeout_ms: self.take(
                "sockets.user_timeout",
                &typed.user_timeout,
                default.user_timeout_ms,
                user_timeout,
            ),
        }
    }

    fn drain(&mut self, typed: &file::Drain) -> Drain {
        let default = Drain::default();
        let spread = |v: &Value| value::duration(v, DRAIN, "all at once");
        let deadline = |v: &Value| value::duration(v, DRAIN, "");
        let drain = Drain {
            spread_ms: self.take("drain.spread", &typed.spread, default.spread_ms, spread),
            deadline_ms: self.take("drain.deadline", &typed.deadline, default.deadline_ms, deadline),
        };
        let written = typed.spread.as_ref().or(typed.deadline.as_ref());
        if let (true, Some(at)) = (drain.spread_ms > drain.deadline_ms, written) {
            let (spread, deadline) = (duration_text(drain.spread_ms), duration_text(drain.deadline_ms));
            let why = format!("{spread} exceeds drain.deadline ({deadline})");
            self.problems.add(at.span(), "drain.spread", &why);
        }
        drain
    }

    fn log(&mut self, typed: &file::Log) -> Log {
        use log::LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
        let default = Log::default();
        let formats = [("text", Format::Text), ("json", Format::Json)];
        let levels =
            [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace), ("off", Off)];
        Log {
            access: self.take("log.access", &typed.access, default.access, access),
            format: self.take("log.format", &typed.format, default.format, |v| value::word(v, &formats)),
            level: self.take("log.level", &typed.level, default.level, |v| value::word(v, &levels)),
        }
    }
}

/// A slash distinguishes a file from a mistyped word.
fn access(value: &Value) -> Parsed<AccessLog> {
    match value.as_str() {
        Some("off") => Ok(AccessLog::Off),
        Some("stdout") => Ok(AccessLog::Stdout),
        Some(path) if path.contains('/') && !path.ends_with('/') => Ok(AccessLog::File(path.into())),
        _ => Err(format!("{} is not valid; expected \"stdout\", \"off\", or a file with a slash", shown(value))),
    }
}
