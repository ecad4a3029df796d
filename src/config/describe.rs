//! What a snapshot means on this machine: the text of `check`, and what does not fit.

use super::value::{duration_text, size_text};
use super::{
    AccessLog, ClientAuth, Format, Listener, PIPE_BYTES, PIPES_MAX, SCRATCH_BYTES, SPARE_DESCRIPTORS, Snapshot,
    Timeouts,
};
use crate::policy::balance::Group;
use crate::policy::route::{Entry, HostPattern, PathPattern, Route};
use crate::policy::tls::TlsVersion;
use std::fmt::{self, Write};

/// User memory of an idle session, the most that we allow ourselves.
const SESSION_BYTES: usize = 768;
/// Two TCP sockets with what the kernel keeps beside them, their buffers empty.
const KERNEL_BYTES: usize = 8 << 10;
/// What TLS adds to each of the two sides of a session that have it: its keys, and a record that is not whole yet.
const TLS_BYTES: usize = 3 << 10;
const RECORD_BYTES: usize = 17 << 10;
/// What TLS takes of a worker: the keys of those that talk, and one buffer each for bytes opened and sealed.
const TLS_WORKER_BYTES: usize = 1 << 20;
/// What a handshake may hold of messages that are not whole yet.
const SHAKE_BYTES: usize = 2 * RECORD_BYTES;

impl Snapshot {
    /// Workers that start with `cpus` CPUs to run on.
    pub fn worker_count(&self, cpus: usize) -> usize {
        self.workers.count.unwrap_or(cpus).max(1)
    }

    /// What is configured but cannot be had with `nofile` descriptors (RLIMIT_NOFILE after raising it) and `cpus`
    /// CPUs: one sentence each, none if all fits.
    pub fn misfits(&self, nofile: u64, cpus: usize) -> Vec<String> {
        let mut misfits = Vec::new();
        let limits = self.limits.resolve(nofile);
        let needed = limits.max_sessions.saturating_mul(2) + limits.max_handshakes + SPARE_DESCRIPTORS;
        if limits.max_sessions == 0 {
            misfits.push(format!(
                "limits.max_sessions: {nofile} descriptors (RLIMIT_NOFILE) leave none for sessions; raise that limit \
                 or lower limits.max_handshakes"
            ));
        } else if needed as u64 > nofile {
            misfits.push(format!(
                "limits.max_sessions: {} sessions and {} handshakes need {needed} descriptors, but RLIMIT_NOFILE is \
                 {nofile}; raise that limit or lower these",
                limits.max_sessions, limits.max_handshakes
            ));
        }
        let workers = self.worker_count(cpus);
        let least = workers.saturating_mul(2 * SCRATCH_BYTES);
        if self.limits.buffer_bytes < least {
            misfits.push(format!(
                "limits.buffers: {} is too little for {workers} workers; write \"{}\" or more",
                size_text(self.limits.buffer_bytes as u64),
                size_text(least as u64)
            ));
        }
        misfits
    }

    /// What `check` prints: what listens, where requests go in the order in which routes are tried, every limit
    /// and the memory that it can come to.
    pub fn describe(&self, nofile: u64, cpus: usize) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, nofile, cpus);
        out
    }

    fn write(&self, out: &mut String, nofile: u64, cpus: usize) -> fmt::Result {
        for listener in &self.listeners {
            writeln!(out, "listener   {}", listener_text(listener))?;
        }
        match &self.admin {
            Some(admin) if admin.fault_injection => writeln!(out, "admin      {}, fault injection on", admin.addr)?,
            Some(admin) => writeln!(out, "admin      {}", admin.addr)?,
            None => writeln!(out, "admin      off")?,
        }
        writeln!(out, "\nroutes, in the order in which they are tried")?;
        for entry in self.routes.entries() {
            self.write_route(out, entry)?;
        }
        writeln!(out, "\nupstreams")?;
        for group in &self.groups {
            let used = self.routes.entries().iter().any(|entry| entry.route.group.index == group.index);
            writeln!(out, "  {}{}", group_text(group), if used { "" } else { ", used by no route" })?;
        }
        writeln!(out)?;
        self.write_process(out, cpus)?;
        self.write_memory(out, nofile, cpus)?;
        for misfit in self.misfits(nofile, cpus) {
            writeln!(out, "warning    {misfit}")?;
        }
        Ok(())
    }

    fn write_route(&self, out: &mut String, entry: &Entry) -> fmt::Result {
        let route = entry.route.as_ref();
        let pattern = pattern_text(entry);
        write!(out, "  {pattern}")?;
        if route.name != pattern {
            write!(out, " ({})", route.name)?;
        }
        write!(out, " -> {}, {}", route.group.name, route.mode.name())?;
        let (frame, message) = (size_text(route.rules.max_frame), size_text(route.rules.max_message));
        write!(out, ", frames to {frame}, messages to {message}")?;
        write_rewrite(out, route)?;
        let changed = timeouts_text(&route.timeouts, Some(&self.timeouts));
        writeln!(out, "{}{changed}", if changed.is_empty() { "" } else { ", " })
    }

    fn write_process(&self, out: &mut String, cpus: usize) -> fmt::Result {
        let count = self.worker_count(cpus);
        let origin = if self.workers.count.is_some() { "as written" } else { "one per CPU" };
        writeln!(out, "workers    {count} ({origin}){}", if self.workers.pin { ", pinned" } else { "" })?;
        writeln!(out, "timeouts   {}", timeouts_text(&self.timeouts, None))?;
        let sockets = &self.sockets;
        writeln!(
            out,
            "sockets    notsent_lowat {}, keepalive {}, user_timeout {}",
            or_word(sockets.notsent_lowat_bytes, "kernel's", |bytes| size_text(bytes.into())),
            or_word(sockets.keepalive_s, "off", |seconds| duration_text(u64::from(seconds) * 1000)),
            or_word(sockets.user_timeout_ms, "kernel's", |millis| duration_text(millis.into())),
        )?;
        let (spread, deadline) = (duration_text(self.drain.spread_ms), duration_text(self.drain.deadline_ms));
        writeln!(out, "drain      spread {spread}, deadline {deadline}")?;
        let access = match &self.log.access {
            AccessLog::Off => "off".to_owned(),
            AccessLog::Stdout => "to stdout".to_owned(),
            AccessLog::File(path) => format!("to {}", path.display()),
        };
        let format = match self.log.format {
            Format::Text => "text",
            Format::Json => "json",
        };
        let level = self.log.level.as_str().to_lowercase();
        writeln!(out, "log        access {access} as {format}, diagnostics from {level}")
    }

    fn write_memory(&self, out: &mut String, nofile: u64, cpus: usize) -> fmt::Result {
        let limits = self.limits.resolve(nofile);
        let (sessions, handshakes, head) = (limits.max_sessions, limits.max_handshakes, self.limits.head_bytes);
        let workers = self.worker_count(cpus);
        let head_text = size_text(head as u64);
        let mut rows = vec![
            (sessions.saturating_mul(SESSION_BYTES), format!("{sessions} sessions of {SESSION_BYTES} B")),
            (sessions.saturating_mul(KERNEL_BYTES), format!("{sessions} pairs of sockets of 8 KiB in the kernel")),
            (
                handshakes.saturating_mul(head).saturating_mul(2),
                format!("{handshakes} handshakes with two heads of {head_text}"),
            ),
            (
                sessions.saturating_mul(head).saturating_mul(2),
                format!("two heads of {head_text} for each session, if all wait for their upstream at once"),
            ),
            (self.limits.buffer_bytes, "buffers for slow receivers, all workers together".to_owned()),
            (workers.saturating_mul(SCRATCH_BYTES), format!("{workers} workers with 128 KiB to read into")),
        ];
        let clients = self.listeners.iter().any(|listener| listener.tls.is_some());
        let upstreams = self.groups.iter().any(|group| group.endpoints.iter().any(|endpoint| endpoint.tls));
        for (of, _) in [("clients", clients), ("upstreams", upstreams)].iter().filter(|(_, tls)| *tls) {
            let each = format!(
                "{sessions} times {} for TLS with {of}, and {} of a record",
                size_text(TLS_BYTES as u64),
                size_text(RECORD_BYTES as u64)
            );
            rows.push((sessions.saturating_mul(TLS_BYTES + RECORD_BYTES), each));
            let shakes = format!("{handshakes} TLS handshakes with {of}, {} each", size_text(SHAKE_BYTES as u64));
            rows.push((handshakes.saturating_mul(SHAKE_BYTES), shakes));
        }
        if clients || upstreams {
            let of =
                format!("{workers} workers with 1 MiB for the keys of those that talk, and what is opened and sealed");
            rows.push((workers.saturating_mul(TLS_WORKER_BYTES), of));
        }
        if self.routes.entries().iter().any(|entry| entry.route.splice) {
            let of = format!("{PIPES_MAX} pipes of {} in the kernel for each worker", size_text(PIPE_BYTES as u64));
            rows.push((workers.saturating_mul(PIPES_MAX * PIPE_BYTES), of));
        }
        writeln!(out, "sessions   at most {sessions}, handshakes at most {handshakes}, with {nofile} descriptors")?;
        writeln!(out, "\nmemory, at the worst (socket buffers in the kernel not counted)")?;
        for (bytes, of) in &rows {
            writeln!(out, "  {:>10}  {of}", rounded(*bytes))?;
        }
        let total = rows.iter().fold(0usize, |sum, (bytes, _)| sum.saturating_add(*bytes));
        writeln!(out, "  {:>10}  in total", rounded(total))
    }
}

fn listener_text(listener: &Listener) -> String {
    let trusted: Vec<_> = listener.trusted_proxies.iter().map(ToString::to_string).collect();
    let mut text = listener.addr.to_string();
    if let Some(tls) = &listener.tls {
        text += &format!(", TLS {} and later", version_text(tls.min_version));
        text += match tls.client_auth {
            ClientAuth::Off => "",
            ClientAuth::Optional(_) => ", client certificates optional",
            ClientAuth::Required(_) => ", client certificates required",
        };
    }
    if let Some(port) = listener.redirect {
        text += &format!(", redirects to https on port {port}");
    }
    if !trusted.is_empty() {
        text += &format!(", trusts {}", trusted.join(", "));
    }
    text
}

fn version_text(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

fn pattern_text(entry: &Entry) -> String {
    let host = match &entry.host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Under(suffix) => format!("*{suffix}"),
        HostPattern::Any => String::new(),
    };
    match &entry.path {
        PathPattern::Exact(path) => host + path,
        PathPattern::Under(prefix) => format!("{host}{prefix}/*"),
    }
}

fn write_rewrite(out: &mut String, route: &Route) -> fmt::Result {
    if let Some(prefix) = &route.strip_prefix {
        write!(out, ", strips {prefix}")?;
    }
    if let Some(host) = &route.host_header {
        write!(out, ", Host {host}")?;
    }
    if let Some(code) = route.on_upstream_loss {
        write!(out, ", Close {code} on upstream loss")?;
    }
    if route.splice {
        write!(out, ", splices")?;
    }
    Ok(())
}

fn group_text(group: &Group) -> String {
    let urls: Vec<_> = group.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
    match urls.as_slice() {
        [url] if *url == group.name => group.name.clone(),
        [url] => format!("{}: {url}", group.name),
        _ => format!("{}: {}, {}", group.name, group.balance.name(), urls.join(", ")),
    }
}

/// All of them, or those that differ from `usual`.
fn timeouts_text(timeouts: &Timeouts, usual: Option<&Timeouts>) -> String {
    let all = |t: &Timeouts| {
        [
            ("tls", t.tls_ms),
            ("request_head", t.request_head_ms),
            ("connect", t.connect_ms),
            ("connect_total", t.connect_total_ms),
            ("upstream_head", t.upstream_head_ms),
            ("idle", t.idle_ms),
            ("close", t.close_ms),
            ("write_stall", t.write_stall_ms),
        ]
    };
    let usual = usual.map(all);
    let differs = |row: &(&str, u64)| usual.as_ref().is_none_or(|usual| !usual.contains(row));
    let text = |(name, millis): (&str, u64)| format!("{name} {}", or_word(millis, "off", duration_text));
    all(timeouts).into_iter().filter(differs).map(text).collect::<Vec<_>>().join(", ")
}

fn or_word<N: PartialEq + Default>(number: N, zero: &str, text: impl Fn(N) -> String) -> String {
    if number == N::default() { zero.to_owned() } else { text(number) }
}

/// For reading, not for writing back: one digit behind the point.
fn rounded(bytes: usize) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}
