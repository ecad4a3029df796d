//! The text of `check`, and the resources that a snapshot needs.

mod access;
mod auth;
mod rewrite;
mod upstream;

use super::clients;
use super::flow;
use super::limits;
use super::shield;
use super::value::{duration_text, size_text};
use super::{AccessLog, ClientAuth, Format, Listener, ResolvedLimits, SPARE_DESCRIPTORS, Snapshot};
use crate::memory::{
    BUCKET_BYTES, CALL_BYTES, CHECK_BYTES, KEPT_BYTES, LIMITER_BYTES, PIECE_BYTES, PIECES_MAX, PIPE_BYTES, PIPES_MAX,
    REFRESH_BYTES, SCRATCH_BYTES, SESSION_BYTES, SESSION_KERNEL_BYTES, SHADOW_BYTES, SHARED_KEY_BYTES, SHARED_KEYS,
    SOURCE_BYTES, TLS_CONN_BYTES, TLS_HANDSHAKE_BYTES, TLS_RECORD_BYTES, TLS_WORKER_BYTES,
};
use crate::policy::auth::Auth;
use crate::policy::keyed::SHARED_BYTES;
use crate::policy::matching::{Condition, Entry};
use crate::policy::route::{Protocols, Route, RouteAction};
use crate::policy::tls::TlsVersion;
use crate::policy::upstream::Upstream;
use crate::proto::Side;
use crate::proto::settings::{BAD_GATEWAY, EndpointDown, Heartbeat, Timeouts};
use std::fmt::{self, Write};
use std::sync::Arc;

impl Snapshot {
    /// The number of workers with `cpus` CPUs.
    pub fn worker_count(&self, cpus: usize) -> usize {
        self.workers.count.unwrap_or(cpus).max(1)
    }

    /// Limits that cannot be met with `nofile` descriptors (RLIMIT_NOFILE after raising it) and
    /// `cpus` CPUs, one sentence each.
    pub fn resource_errors(&self, nofile: u64, cpus: usize) -> Vec<String> {
        let mut errors = Vec::new();
        let limits = self.resolved_limits(nofile);
        let (checks, shadows, calls) = (self.checks_max(nofile), self.limits.max_shadows, self.calls_max());
        let others = limits.max_handshakes + checks + shadows + calls + SPARE_DESCRIPTORS;
        let needed = limits.max_sessions.saturating_mul(2) + others;
        if limits.max_sessions == 0 {
            errors.push(format!(
                "limits.max_sessions: RLIMIT_NOFILE is {nofile}, which leaves no descriptors for sessions; raise it or \
                 lower limits.max_handshakes{}",
                if shadows > 0 { " or limits.max_shadows" } else { "" }
            ));
        } else if needed as u64 > nofile {
            errors.push(format!(
                "limits.max_sessions: {} sessions{}{}{} and {} handshakes need {needed} descriptors, but RLIMIT_NOFILE \
                 is {nofile}; raise it or lower these",
                limits.max_sessions,
                or_word(checks, "", |checks| format!(", {checks} health checks")),
                or_word(shadows, "", |shadows| format!(", {shadows} shadows")),
                or_word(calls, "", |calls| format!(", {calls} calls of [[auth]]")),
                limits.max_handshakes
            ));
        }
        let workers = self.worker_count(cpus);
        let least = workers.saturating_mul(2 * SCRATCH_BYTES);
        let shadows = (shadows > 0).then_some(("limits.shadow_buffers", self.limits.shadow_buffer_bytes));
        for (key, bytes) in [Some(("limits.buffers", self.limits.buffer_bytes)), shadows].into_iter().flatten() {
            if bytes < least {
                let (has, least) = (size(bytes), size(least));
                errors.push(format!("{key}: {has} is too small for {workers} workers; expected at least \"{least}\""));
            }
        }
        errors
    }

    /// The output of `check`: listeners, routes in matching order, upstreams, limits, and the
    /// memory that they allow.
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
        writeln!(out, "\nroutes, in matching order")?;
        for entry in self.routes.entries() {
            self.write_route(out, entry)?;
        }
        writeln!(out, "\nupstreams")?;
        for upstream in &self.upstreams {
            let used = self.routes.entries().iter().any(|entry| {
                let shadow = entry.route.shadow.as_ref().map(|shadow| &shadow.upstream);
                entry.route.upstreams().iter().chain(shadow).any(|used| Arc::ptr_eq(used, upstream))
            });
            let asked = self.methods.iter().filter_map(|method| method.remote());
            let used = used || asked.into_iter().any(|remote| Arc::ptr_eq(&remote.upstream, upstream));
            writeln!(out, "  {}{}", upstream::text(upstream), if used { "" } else { ", used by no route" })?;
            for discovery in self.discoveries.iter().filter(|one| one.upstream == upstream.name) {
                writeln!(out, "    endpoints by {}", discovery.describe())?;
            }
        }
        if !self.methods.is_empty() {
            writeln!(out, "\ncredentials")?;
        }
        for method in &self.methods {
            writeln!(out, "  {}", auth::text(method))?;
        }
        if let Some(redis) = &self.redis {
            writeln!(out, "\nlimits of several hosts\n  {}", redis.describe())?;
        }
        writeln!(out)?;
        self.write_process(out, cpus)?;
        self.write_memory(out, nofile, cpus)?;
        for finding in self.routes.findings() {
            writeln!(out, "warning    {finding}")?;
        }
        if !self.listeners.iter().any(Listener::asks_for_certificates) {
            let needs = |entry: &&Entry| entry.conditions.iter().any(Condition::needs_certificate);
            for entry in self.routes.entries().iter().filter(needs) {
                let why = "it requires a client certificate, and no listener has client_auth";
                writeln!(out, "warning    route {} can never match: {why}", entry.route.name)?;
            }
            let asks = |entry: &&Entry| entry.route.auth.as_ref().is_some_and(Auth::asks_for_certificates);
            for entry in self.routes.entries().iter().filter(asks) {
                let why = "asks for a client certificate, and no listener has client_auth";
                writeln!(out, "warning    route {} {why}", entry.route.name)?;
            }
        }
        for error in self.resource_errors(nofile, cpus) {
            writeln!(out, "warning    {error}")?;
        }
        Ok(())
    }

    fn write_route(&self, out: &mut String, entry: &Entry) -> fmt::Result {
        let route = entry.route.as_ref();
        let pattern = entry.to_string();
        write!(out, "  {pattern}")?;
        if route.name != pattern {
            write!(out, " ({})", route.name)?;
        }
        write_conditions(out, entry)?;
        if let Some(reply) = rewrite::reply_text(&route.action) {
            write!(out, " -> {reply}")?;
            access::write_lists(out, route)?;
            return writeln!(out);
        }
        let part = |(upstream, weight): (&Arc<Upstream>, u32)| format!("{} ({weight})", upstream.name);
        let upstreams: Vec<_> = match &route.action {
            RouteAction::Split(split) => split.weights().map(part).collect(),
            RouteAction::Files(files) => vec![format!("files of {}, index {}", files.root.display(), files.index)],
            _ => route.upstreams().iter().map(|upstream| upstream.name.clone()).collect(),
        };
        write!(out, " -> {}{}", upstreams.join(", "), protocols_text(route))?;
        if !matches!(route.action, RouteAction::Files(_)) {
            let (mode, limits) = (route.settings.relay.mode.name(), &route.settings.relay.limits);
            let (frame, message) = (size_text(limits.max_frame), size_text(limits.max_message));
            write!(out, ", {mode}, frames up to {frame}, messages up to {message}")?;
        }
        if route.protocols.websocket {
            access::write_origins(out, &route.origins)?;
        }
        access::write_lists(out, route)?;
        write_rewrite(out, route)?;
        let changed = timeouts_text(&route.settings.timeouts, Some(&self.settings.timeouts));
        writeln!(out, "{}{changed}", if changed.is_empty() { "" } else { ", " })
    }

    fn write_process(&self, out: &mut String, cpus: usize) -> fmt::Result {
        let count = self.worker_count(cpus);
        let origin = if self.workers.count.is_some() { "as written" } else { "one per CPU" };
        writeln!(out, "workers    {count} ({origin}){}", if self.workers.pin { ", pinned" } else { "" })?;
        writeln!(out, "timeouts   {}", timeouts_text(&self.settings.timeouts, None))?;
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
        for (n, line) in shield::describe(&self.shield).iter().enumerate() {
            writeln!(out, "{:<10} {line}", if n == 0 { "shield" } else { "" })?;
        }
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
        let limits = self.resolved_limits(nofile);
        let (sessions, handshakes) = (limits.max_sessions, limits.max_handshakes);
        let mut rows = self.plain_memory(limits, self.worker_count(cpus));
        rows.extend(self.tls_memory(limits, self.worker_count(cpus)));
        let checks = self.checks_max(nofile);
        if checks > 0 {
            let what = format!("{checks} health checks at a time, {} each", size(CHECK_BYTES));
            rows.push((checks * CHECK_BYTES, what));
        }
        let calls = self.calls_max();
        if calls > 0 {
            rows.push((
                calls.saturating_mul(CALL_BYTES),
                format!("{calls} calls of [[auth]] at a time, {} each", size(CALL_BYTES)),
            ));
            let workers = self.worker_count(cpus);
            let what = format!("{workers} workers, answers of [[auth]] of {} each", size(KEPT_BYTES));
            rows.push((workers.saturating_mul(KEPT_BYTES), what));
        }
        writeln!(out, "sessions   at most {sessions}, handshakes at most {handshakes}, with {nofile} descriptors")?;
        writeln!(out, "\nmemory in the worst case (without the kernel's socket buffers)")?;
        for (bytes, what) in &rows {
            writeln!(out, "  {:>10}  {what}", rounded_size(*bytes))?;
        }
        let total = rows.iter().fold(0usize, |sum, (bytes, _)| sum.saturating_add(*bytes));
        writeln!(out, "  {:>10}  in total", rounded_size(total))
    }

    fn plain_memory(&self, limits: ResolvedLimits, workers: usize) -> Vec<(usize, String)> {
        let (sessions, handshakes) = (limits.max_sessions, limits.max_handshakes);
        let heads = self.limits.head_bytes.saturating_mul(2);
        let head = size(self.limits.head_bytes);
        let mut rows = vec![
            (sessions.saturating_mul(SESSION_BYTES), format!("{sessions} sessions, {} each", size(SESSION_BYTES))),
            (
                sessions.saturating_mul(SESSION_KERNEL_BYTES),
                format!("{sessions} pairs of sockets in the kernel, {} each", size(SESSION_KERNEL_BYTES)),
            ),
            (handshakes.saturating_mul(heads), format!("{handshakes} handshakes, two heads of {head} each")),
            (
                sessions.saturating_mul(heads),
                format!("two heads of {head} per session, if all wait for their upstream at once"),
            ),
            (self.limits.buffer_bytes, "buffers for slow receivers, all workers together".to_owned()),
            (
                workers.saturating_mul(SCRATCH_BYTES),
                format!("{workers} workers, a read buffer of {} each", size(SCRATCH_BYTES)),
            ),
        ];
        rows.extend(self.limiter_memory(sessions));
        rows.extend(self.refresh_memory(sessions));
        rows.extend(self.shadow_memory());
        rows.extend(auth::memory(&self.routes));
        rows.extend(clients::memory(self));
        let keyed = self.routes.entries().iter().flat_map(|entry| [&entry.route.by_address, &entry.route.by_identity]);
        let shared = keyed.flatten().filter(|keyed| keyed.limit.shared).map(|keyed| keyed.limit.entries);
        let shared = shared.fold(0, usize::saturating_add);
        if shared > 0 {
            let what = format!("{shared} of them shared with other hosts, {} each", size(SHARED_BYTES));
            rows.push((shared.saturating_mul(SHARED_BYTES), what));
            let what = format!("{SHARED_KEYS} of these that others are asked about, {} each", size(SHARED_KEY_BYTES));
            rows.push((SHARED_KEYS * SHARED_KEY_BYTES, what));
        }
        rows.extend(access::memory(self));
        rows.extend(shield::memory(&self.shield, workers, handshakes));
        if self.routes.entries().iter().any(|entry| entry.route.settings.relay.splice) {
            let what = format!("{PIPES_MAX} pipes of {} in the kernel per worker", size(PIPE_BYTES));
            rows.push((workers.saturating_mul(PIPES_MAX * PIPE_BYTES), what));
        }
        if self.routes.entries().iter().any(|entry| matches!(entry.route.action, RouteAction::Files(_))) {
            let what = format!("{PIECES_MAX} pieces of files of {} per worker", size(PIECE_BYTES));
            rows.push((workers.saturating_mul(PIECES_MAX * PIECE_BYTES), what));
        }
        if !self.discoveries.is_empty() {
            let sources = self.discoveries.len();
            let what = format!("{sources} sources of endpoints, {} each while an answer is read", size(SOURCE_BYTES));
            rows.push((sources.saturating_mul(SOURCE_BYTES), what));
        }
        rows
    }

    /// Of sessions with limits on what they do, by the route that has most.
    fn limiter_memory(&self, sessions: usize) -> Option<(usize, String)> {
        let limits = self.listeners.iter().filter_map(|listener| listener.limits.as_ref());
        let at_listener = limits.map(|limits| limits.rates()).max().unwrap_or(0);
        let buckets_of = |entry: &Entry| {
            let route = &entry.route;
            let relay = &route.settings.relay;
            let own: usize = Side::BOTH.iter().map(|side| relay.flow.rates[*side].len()).sum();
            let of_client = [&route.by_address, &route.by_identity].into_iter().flatten();
            let shared: usize =
                of_client.map(|keyed| keyed.rates.len()).sum::<usize>() + route.total.len() + at_listener;
            let by_key = route.auth.as_ref().is_some_and(Auth::limits_keys);
            let limited = relay.flow.are_set() || relay.refresh.is_some() || shared > 0 || by_key;
            limited.then_some(own + shared)
        };
        let buckets = self.routes.entries().iter().filter_map(buckets_of).max()?;
        let each = LIMITER_BYTES + buckets * BUCKET_BYTES;
        Some((sessions.saturating_mul(each), format!("limits of {sessions} sessions, {} each", size(each))))
    }

    /// Of sessions whose clients may send new credentials: a message, and one that is judged.
    fn refresh_memory(&self, sessions: usize) -> Option<(usize, String)> {
        let forms = self.routes.entries().iter().filter_map(|entry| entry.route.settings.relay.refresh.as_ref());
        let message = usize::try_from(forms.map(|form| form.max_bytes).max()?).unwrap_or(usize::MAX);
        let each = REFRESH_BYTES + 2 * message;
        Some((sessions.saturating_mul(each), format!("new credentials of {sessions} sessions, {} each", size(each))))
    }

    fn shadow_memory(&self) -> Vec<(usize, String)> {
        let (shadows, bytes) = (self.limits.max_shadows, self.limits.shadow_buffer_bytes);
        if shadows == 0 {
            return Vec::new();
        }
        let (heads, head) = (self.limits.head_bytes.saturating_mul(2), size(self.limits.head_bytes));
        let kernel = SESSION_KERNEL_BYTES / 2;
        let mut upstreams = self.routes.entries().iter().filter_map(|entry| entry.route.shadow.as_ref());
        let tls = upstreams.any(|shadow| shadow.upstream.endpoints().iter().any(|endpoint| endpoint.tls));
        let mut rows = vec![
            (bytes, "buffers for shadows, all workers together".to_owned()),
            (
                shadows.saturating_mul(heads + SHADOW_BYTES + kernel),
                format!("{shadows} shadows, two heads of {head} each, and {} in the kernel", size(kernel)),
            ),
        ];
        if tls {
            let each = TLS_CONN_BYTES + TLS_HANDSHAKE_BYTES;
            rows.push((
                shadows.saturating_mul(each),
                format!("{shadows} TLS connections with shadows, {} each", size(each)),
            ));
        }
        rows
    }

    fn tls_memory(&self, limits: ResolvedLimits, workers: usize) -> Vec<(usize, String)> {
        let (sessions, handshakes) = (limits.max_sessions, limits.max_handshakes);
        let clients = self.listeners.iter().any(|listener| listener.tls.is_some());
        let upstreams = self.upstreams.iter().any(|upstream| self.uses_tls(upstream));
        let mut rows = Vec::new();
        for (peers, _) in [("clients", clients), ("upstreams", upstreams)].iter().filter(|(_, tls)| *tls) {
            let (conn, record) = (size(TLS_CONN_BYTES), size(TLS_RECORD_BYTES));
            let what =
                format!("{sessions} TLS connections with {peers}, {conn} and an incomplete record of {record} each");
            rows.push((sessions.saturating_mul(TLS_CONN_BYTES + TLS_RECORD_BYTES), what));
            let what = format!("{handshakes} TLS handshakes with {peers}, {} each", size(TLS_HANDSHAKE_BYTES));
            rows.push((handshakes.saturating_mul(TLS_HANDSHAKE_BYTES), what));
        }
        if !rows.is_empty() {
            let what = format!("{workers} workers, {} each for TLS key schedules and buffers", size(TLS_WORKER_BYTES));
            rows.push((workers.saturating_mul(TLS_WORKER_BYTES), what));
        }
        rows
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
    if listener.proxy_protocol {
        text += ", only with a PROXY header";
    }
    if !trusted.is_empty() {
        text += &format!(", trusts {}", trusted.join(", "));
    }
    text += &access::addresses_text(listener.access.as_deref());
    text + &listener.limits.as_deref().map(clients::describe_listener).unwrap_or_default()
}

fn version_text(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

fn write_conditions(out: &mut String, entry: &Entry) -> fmt::Result {
    if entry.priority != 0 {
        write!(out, ", priority {}", entry.priority)?;
    }
    let conditions: Vec<_> = entry.conditions.iter().map(Condition::to_string).collect();
    match conditions.as_slice() {
        [] => Ok(()),
        _ => write!(out, ", if {}", conditions.join(" and ")),
    }
}

fn write_rewrite(out: &mut String, route: &Route) -> fmt::Result {
    rewrite::write_path(out, &route.rewrite)?;
    if let Some(host) = &route.host_header {
        write!(out, ", Host {host}")?;
    }
    if let Some(code) = route.settings.relay.upstream_loss_code {
        write!(out, ", Close {code} on upstream loss")?;
    }
    if route.settings.relay.upstream_error_code != BAD_GATEWAY {
        write!(out, ", Close {} on upstream error", route.settings.relay.upstream_error_code)?;
    }
    if let EndpointDown::Close { spread_ms } = route.settings.relay.endpoint_down {
        let when = if spread_ms == 0 { "at once".to_owned() } else { format!("over {}", duration_text(spread_ms)) };
        write!(out, ", Close {} {when} when the endpoint is down", route.settings.relay.endpoint_down_code)?;
    }
    if let Some(max) = route.sessions.max() {
        write!(out, ", at most {max} sessions")?;
    }
    if let Some(rate) = &route.handshakes {
        write!(out, ", {}", limits::rate_text(rate.limit().rate, rate.limit().burst))?;
    }
    for rate in &route.total {
        write!(out, ", {}", clients::together(rate.limit()))?;
    }
    if route.settings.relay.splice {
        write!(out, ", splice on")?;
    }
    for keyed in [&route.by_address, &route.by_identity].into_iter().flatten() {
        write!(out, ", {}", clients::describe(keyed))?;
    }
    if let Some(asked) = &route.auth {
        auth::write_route(out, asked)?;
        auth::write_renewal(out, route)?;
    }
    for limit in flow::describe(&route.settings.relay.flow) {
        write!(out, ", {limit}")?;
    }
    if let Some(heartbeat) = &route.settings.relay.heartbeat {
        write_heartbeat(out, heartbeat)?;
    }
    rewrite::write_headers(out, route)?;
    if let Some(shadow) = &route.shadow {
        let percent = f64::from(shadow.share) / 100.0;
        write!(out, ", {percent} % shadowed to {}, {} buffered", shadow.upstream.name, size(shadow.buffer_bytes))?;
    }
    Ok(())
}

fn write_heartbeat(out: &mut String, heartbeat: &Heartbeat) -> fmt::Result {
    let every = |side: Side| or_word(heartbeat.interval_ms[side], "off", duration_text);
    let (client, upstream) = (every(Side::Downstream), every(Side::Upstream));
    write!(out, ", heartbeat client {client}, upstream {upstream}, timeout {}", duration_text(heartbeat.timeout_ms))
}

/// What the route takes, where that is not both.
fn protocols_text(route: &Route) -> &'static str {
    match route.protocols {
        Protocols { websocket: true, http: false } => ", WebSocket alone",
        Protocols { websocket: false, .. } => ", plain HTTP alone",
        Protocols { .. } => "",
    }
}

/// All timeouts, or those that differ from `usual`.
fn timeouts_text(timeouts: &Timeouts, usual: Option<&Timeouts>) -> String {
    let all = |t: &Timeouts| {
        [
            ("tls", t.tls_ms),
            ("request_head", t.request_head_ms),
            ("keep_alive", t.keep_alive_ms),
            ("request_body", t.request_body_ms),
            ("decision", t.decision_ms),
            ("connect", t.connect_ms),
            ("connect_total", t.connect_total_ms),
            ("upstream_head", t.upstream_head_ms),
            ("first_byte", t.first_byte_ms),
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

fn size(bytes: usize) -> String {
    size_text(bytes as u64)
}

/// With one digit after the point.
fn rounded_size(bytes: usize) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}
