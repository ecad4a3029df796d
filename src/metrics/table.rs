//! The one table of metrics. To add one, add a row:
//!
//! `Kind "name" [labels] "Help." { fields of Tally } = samples;`
//!
//! The braces declare the fields that a worker counts in, each with a comment where the help text
//! does not explain it. They are left out where the number comes from the process or from a field
//! of another row. Publishing, reading and summing follow from the declaration; the field itself is
//! a plain integer that the worker adds to.
//!
//! A series that can occur is rendered from the start, with 0: one that appeared with its first
//! event would hide that event from every rate. All others are rendered only if they are not 0.

use super::cells::{ByCause, Cells};
use super::text::Kind::{Counter, Gauge, Histogram};
use super::text::{Metric, Millionths, Samples, Thousandths};
use crate::proto::call::{CALL_US, CallResult};
use crate::proto::end::{CAUSES, Cause, Party};
use crate::proto::frame::opcode;
use crate::proto::relay::{Counts, ROUND_TRIP_MS};
use crate::proto::shadow::ShadowEnd;
use crate::proto::{Side, Sides};

macro_rules! metrics {
    ($(
        $kind:ident $name:literal [$($label:literal)*] $help:literal
        $({ $($(#[$doc:meta])* $field:ident: $type:ty),+ })? = $samples:expr;
    )*) => {
        pub(super) const METRICS: &[Metric<Reading>] = &[
            $(Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help, samples: $samples },)*
        ];

        /// What one worker has counted since the process started. Consists of `u64` alone, which
        /// publishing relies on.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tally {
            $($($(#[doc = $help] $(#[$doc])* pub $field: $type,)+)?)*
        }

        impl Cells for Tally {
            fn each_cell(&self, visit: &mut dyn FnMut(u64)) {
                $($($(self.$field.each_cell(visit);)+)?)*
            }

            fn each_cell_mut(&mut self, visit: &mut dyn FnMut(&mut u64)) {
                $($($(self.$field.each_cell_mut(visit);)+)?)*
            }
        }
    };
}

metrics! {
    Gauge "framegate_build_info" ["version"] "Always 1; the label is the version."
        = |r, out| out.put(&[&r.process.version], 1);
    Gauge "process_start_time_seconds" [] "Start time of the process, in seconds since the Unix epoch."
        = |r, out| out.put(&[], Thousandths(r.process.started_unix_ms));
    Gauge "framegate_workers" [] "Worker threads."
        = |r, out| out.put(&[], r.workers.len());
    Counter "framegate_worker_restarts_total" [] "Worker restarts after a panic."
        = |r, out| out.put(&[], r.process.worker_restarts);
    Counter "framegate_reloads_total" ["result"] "Configuration reloads by result."
        = |r, out| { out.put(&[&"ok"], r.process.reloads_ok); out.put(&[&"refused"], r.process.reloads_refused); };
    Gauge "framegate_draining" [] "1 while the process drains its sessions before exit."
        = |r, out| out.put(&[], u8::from(r.process.draining));
    Gauge "framegate_sessions" ["worker"] "Established sessions."
        { sessions: u64 }
        = |r, out| out.put_each(r.workers.iter().map(|tally| tally.sessions));
    Gauge "framegate_sessions_max" [] "Limit on established sessions, 0 for none."
        = |r, out| out.put(&[], r.process.max_sessions);
    Gauge "framegate_handshakes" [] "Accepted connections whose handshake has not completed."
        { handshakes: u64 }
        = |r, out| out.put(&[], r.total.handshakes);
    Gauge "framegate_handshakes_max" [] "Limit on handshakes in progress, 0 for none."
        = |r, out| out.put(&[], r.process.max_handshakes);
    Gauge "framegate_handshakes_queued" [] "Handshakes that wait for their turn in a worker."
        { handshakes_queued: u64 }
        = |r, out| out.put(&[], r.total.handshakes_queued);
    Gauge "framegate_blocked_addresses" [] "Addresses, by prefix, that are blocked for too many failures."
        = |r, out| out.put(&[], r.process.blocked);
    Counter "framegate_blocks_total" [] "Blocks of addresses for too many failures."
        = |r, out| out.put(&[], r.process.blocks);
    Counter "framegate_block_overflows_total" []
        "Failures that were not counted, because the table of addresses was full of blocked ones."
        = |r, out| out.put(&[], r.process.block_overflows);
    Counter "framegate_http_requests_total" ["status"]
        "Plain requests that were answered by their upstream or with a file, by class of status."
        {
            /// In the order of `STATUS_CLASSES`.
            answered: [u64; STATUS_CLASSES.len()]
        }
        = |r, out| STATUS_CLASSES.iter().zip(r.total.answered).for_each(|(class, n)| out.put(&[class], n));
    Gauge "framegate_idle_clients" [] "Clients between two plain requests."
        { idle_clients: u64 }
        = |r, out| out.put(&[], r.total.idle_clients);
    Counter "framegate_idle_clients_closed_total" [] "Idle clients that were closed to make room for a session."
        { idle_closed: u64 }
        = |r, out| out.put(&[], r.total.idle_closed);
    Gauge "framegate_event_streams" [] "Event streams under way, of plain requests."
        { streams: u64 }
        = |r, out| out.put(&[], r.total.streams);
    Counter "framegate_connections_accepted_total" [] "Connections accepted."
        { accepted: u64 }
        = |r, out| out.put(&[], r.total.accepted);
    Counter "framegate_accept_backoffs_total" [] "Times accepting was paused for lack of descriptors or memory."
        { accept_backoffs: u64 }
        = |r, out| out.put(&[], r.total.accept_backoffs);
    Counter "framegate_handshakes_total" ["outcome"] "Completed handshakes by outcome: ok, or the cause of the refusal."
        { handshakes_ok: u64, refused: ByCause<u64> }
        = handshakes;
    Counter "framegate_tls_handshakes_total" ["side" "outcome"]
        "TLS handshakes by side and outcome; failed includes TLS errors in established sessions."
        {
            /// In the order of [`TLS_OUTCOMES`].
            tls: Sides<[u64; TLS_OUTCOMES.len()]>
        }
        = tls;
    Gauge "framegate_certificate_days_left" ["file"] "Days until a certificate expires."
        = |r, out| r.process.certificates.iter().for_each(|(file, days)| out.put(&[file], days));
    Gauge "framegate_discovery_endpoints" ["upstream" "source"] "Endpoints that a source has reported."
        = |r, out| discovered(r, out, |one| one.endpoints);
    Gauge "framegate_discovery_age_seconds" ["upstream" "source"]
        "Time since the last success of a source, or since it was started."
        = |r, out| discovered(r, out, |one| Thousandths(one.age_ms));
    Counter "framegate_discovery_failures_total" ["upstream" "source"] "Failures of a source."
        = |r, out| discovered(r, out, |one| one.failures);
    Counter "framegate_discovery_changes_total" ["upstream" "source"]
        "Changed lists of endpoints applied; those that come within 100 ms are applied as one."
        = |r, out| discovered(r, out, |one| one.changes);
    Gauge "framegate_jwks_keys" ["auth"] "Keys of a key set that is fetched from a URL."
        = |r, out| r.process.key_sets.iter().for_each(|set| out.put(&[&set.auth], set.keys));
    Gauge "framegate_jwks_age_seconds" ["auth"] "Time since a key set was last fetched; absent before the first time."
        = |r, out| {
            let ages = r.process.key_sets.iter().filter_map(|set| Some((set, set.age_ms?)));
            ages.for_each(|(set, age_ms)| out.put(&[&set.auth], Thousandths(age_ms)));
        };
    Counter "framegate_jwks_failures_total" ["auth"] "Fetches of a key set that failed."
        = |r, out| r.process.key_sets.iter().for_each(|set| out.put(&[&set.auth], set.failures));
    Gauge "framegate_deny_file_networks" ["file"] "Networks that a deny_file denies, without those within others."
        = |r, out| denied(r, out, |one| one.networks);
    Gauge "framegate_deny_file_age_seconds" ["file"]
        "Time since the content of a deny_file was last known to be in force; it grows while the file cannot be used."
        = |r, out| denied(r, out, |one| Thousandths(one.age_ms));
    Counter "framegate_deny_file_failures_total" ["file"] "Times a deny_file was missing or could not be used."
        = |r, out| denied(r, out, |one| one.failures);
    Counter "framegate_sessions_ended_total" ["cause" "ended_by"]
        "Established sessions that ended, by cause and by the party that ended them."
        {
            /// In the order of `PARTIES`: downstream, upstream, proxy.
            ended: ByCause<[u64; 3]>
        }
        = ended;
    Counter "framegate_frames_total" ["from" "opcode"] "Frames relayed, by the side they came from and by opcode."
        {
            /// Frames, bytes and pauses. In mode `opaque` no frames are counted.
            relay: Sides<Counts>
        }
        = frames;
    Counter "framegate_bytes_total" ["from"] "Bytes relayed in established sessions, by the side they came from."
        = bytes;
    Counter "framegate_read_pauses_total" ["from"] "Times reading was paused by a rate limit, by the side to be read."
        = pauses;
    Counter "framegate_heartbeat_pings_total" ["side"] "Pings of the heartbeat, by the side they were sent to."
        { pings: Sides<u64> }
        = |r, out| Side::BOTH.iter().for_each(|side| out.put(&[&side.name()], r.total.pings[*side]));
    Histogram "framegate_heartbeat_round_trip_seconds" ["side"]
        "Time from a ping of the heartbeat to its pong, by side, in whole milliseconds."
        = round_trips;
    Counter "framegate_discarded_bytes_total" [] "Bytes read and discarded after a Close or during a lingering close."
        { discarded_bytes: u64 }
        = |r, out| out.put(&[], r.total.discarded_bytes);
    Gauge "framegate_backlog_bytes" [] "Bytes buffered for slow receivers."
        { backlog_bytes: u64 }
        = |r, out| out.put(&[], r.total.backlog_bytes);
    Gauge "framegate_backlog_bytes_max" [] "Limit on the bytes buffered for slow receivers."
        = |r, out| out.put(&[], r.process.buffer_bytes_max);
    Counter "framegate_receiver_stalls_total" [] "Times a receiver blocked and reading from its sender was paused."
        { stalled: u64 }
        = |r, out| out.put(&[], r.total.stalled);
    Counter "framegate_credential_warnings_total" [] "Clients told that their credentials are about to end."
        { credential_warnings: u64 }
        = |r, out| out.put(&[], r.total.credential_warnings);
    Counter "framegate_credential_refreshes_total" ["result"] "Messages of clients with new credentials by result."
        {
            /// In the order of `REFRESHES`.
            credential_refreshes: [u64; REFRESHES.len()]
        }
        = |r, out| REFRESHES.iter().zip(r.total.credential_refreshes).for_each(|(result, n)| out.put(&[result], n));
    Gauge "framegate_shadow_sessions" [] "Shadows of sessions that are open or being opened."
        { shadow_sessions: u64 }
        = |r, out| out.put(&[], r.total.shadow_sessions);
    Counter "framegate_shadow_ended_total" ["cause"] "Shadows that ended, or could not be opened, by cause."
        {
            /// In the order of [`ShadowEnd::ALL`].
            shadow_ended: [u64; ShadowEnd::ALL.len()]
        }
        = |r, out| ShadowEnd::ALL.iter().zip(r.total.shadow_ended).for_each(|(end, n)| out.put(&[&end.name()], n));
    Counter "framegate_shadow_discarded_bytes_total" [] "Bytes of shadows that were read and discarded."
        { shadow_discarded_bytes: u64 }
        = |r, out| out.put(&[], r.total.shadow_discarded_bytes);
    Gauge "framegate_shadow_backlog_bytes" [] "Bytes buffered for shadows."
        { shadow_backlog_bytes: u64 }
        = |r, out| out.put(&[], r.total.shadow_backlog_bytes);
    Counter "framegate_urgent_data_total" [] "Connections on which TCP urgent data was received."
        { urgent: u64 }
        = |r, out| out.put(&[], r.total.urgent);
    Counter "framegate_worker_busy_seconds_total" ["worker"] "CPU time of a worker thread."
        {
            /// In microseconds.
            busy_us: u64
        }
        = |r, out| out.put_each(r.workers.iter().map(|tally| Millionths(tally.busy_us)));
    Counter "framegate_worker_loop_iterations_total" ["worker"] "Event loop iterations."
        { loop_iterations: u64 }
        = |r, out| out.put_each(r.workers.iter().map(|tally| tally.loop_iterations));
    Histogram "framegate_loop_busy_seconds" []
        "CPU time per loop iteration; measured with at least 32 events, or always when TLS is configured."
        {
            /// By the bounds of [`LOOP_BUSY_US`], then all above them.
            loop_busy: [u64; LOOP_BUSY_US.len() + 1],
            /// The sum of the measurements, in microseconds.
            loop_busy_us: u64
        }
        = |r, out| out.put_histogram(&LOOP_BUSY_US, &r.total.loop_busy, r.total.loop_busy_us);
    Counter "framegate_events_total" [] "Readiness events handled."
        { events: u64 }
        = |r, out| out.put(&[], r.total.events);
    Counter "framegate_stale_events_total" [] "Readiness events for connections that were already closed."
        { stale_events: u64 }
        = |r, out| out.put(&[], r.total.stale_events);
    Gauge "framegate_endpoints" ["upstream" "state"] "Endpoints by state; only those that are up get new sessions."
        = |r, out| for one in &r.process.upstreams {
            one.endpoints.iter().for_each(|(state, number)| out.put(&[&one.upstream, state], number));
        };
    Counter "framegate_health_checks_total" ["upstream" "result"]
        "Health checks by result; skipped are those that lack of descriptors or ports prevented."
        = |r, out| for one in &r.process.upstreams {
            out.put_states(&one.upstream, &["passed", "failed", "skipped"], one.checks.as_ref().map_or(&[], |c| c));
        };
    Counter "framegate_health_changes_total" ["upstream" "to"] "Changes of an endpoint's state by health checks."
        = |r, out| for one in &r.process.upstreams {
            out.put_states(&one.upstream, &["up", "down"], one.changes.as_ref().map_or(&[], |c| c));
        };
    Gauge "framegate_health_checks_in_progress" [] "Open connections of health checks."
        = |r, out| out.put(&[], r.process.checks_in_progress);
    Counter "framegate_auth_questions_total" ["auth" "result"]
        "Questions to servers about clients by [[auth]] section and result; cached ones were not sent."
        = |r, out| for one in &r.process.asked {
            CallResult::ALL.iter().zip(one.results).for_each(|(result, n)| out.put(&[&one.auth, &result.name()], n));
        };
    Histogram "framegate_auth_answer_seconds" ["auth"] "Time until the answer of a server about a client."
        = |r, out| for one in &r.process.asked {
            out.put_auth_histogram(&one.auth, &CALL_US, &one.times, one.time_ms * 1_000);
        };
    Gauge "framegate_redis_up" [] "1 while limits are shared with other hosts, 0 while Redis does not answer."
        = |r, out| shared(r, |one| out.put(&[], u8::from(one.up)));
    Counter "framegate_redis_syncs_total" ["result"] "Synchronisations of shared limits by result."
        = |r, out| shared(r, |one| {
            ["ok", "failed"].iter().zip(one.results).for_each(|(result, n)| out.put(&[result], n));
        });
    Histogram "framegate_redis_sync_seconds" [] "Time of a synchronisation of shared limits."
        = |r, out| shared(r, |one| out.put_histogram(&SYNC_US, &one.times, one.time_us));
    Gauge "framegate_redis_keys" [] "Clients whose limits are being synchronised."
        = |r, out| shared(r, |one| out.put(&[], one.keys));
    Counter "framegate_redis_bad_answers_total" [] "Values in Redis that are no counts; the client counts alone."
        = |r, out| shared(r, |one| out.put(&[], one.bad_answers));
    Counter "framegate_redis_unshared_total" [] "Times a client could not be shared for lack of room, and counts alone."
        = |r, out| shared(r, |one| out.put(&[], one.refusals));
    Gauge "framegate_client_table_places" ["of" "limit"]
        "Places in the table of clients of a limit of a route, or of a listener."
        = |r, out| clients(r, out, |table| table.places);
    Gauge "framegate_client_table_used" ["of" "limit"]
        "Places that a client has, or had and no other client has taken since."
        = |r, out| clients(r, out, |table| table.used);
    Counter "framegate_client_table_evicted_total" ["of" "limit"]
        "Clients that lost their place before their rates were full again: these begin anew."
        = |r, out| clients(r, out, |table| table.evicted);
    Counter "framegate_client_table_overflows_total" ["of" "limit"]
        "Times a client found no place and was not counted."
        = |r, out| clients(r, out, |table| table.overflows);
    Counter "framegate_log_lines_lost_total" [] "Access log lines lost to a full ring or a failed write."
        {
            /// Those lost to a full ring.
            log_lost: u64
        }
        = |r, out| out.put(&[], r.total.log_lost + r.process.log_lost);
    Counter "framegate_log_errors_total" [] "Failed writes to the access log."
        = |r, out| out.put(&[], r.process.log_errors);
}

/// The outcomes of `Tally::tls`: a full handshake, a resumed session, and failed.
pub const TLS_OUTCOMES: [&str; 3] = ["full", "resumed", "failed"];

/// Bounds of [`Shared::times`], in microseconds.
pub const SYNC_US: [u64; 9] = [500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];
/// The results of `Tally::credential_refreshes`: the session goes on with the new credentials, with
/// those that it has, ends; or they came too soon after others and were not judged.
const REFRESHES: [&str; 4] = ["accepted", "refused", "ended", "excess"];

/// Bounds of `Tally::loop_busy`, in microseconds.
pub const LOOP_BUSY_US: [u64; 8] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000];

/// The classes of `Tally::answered`.
pub(super) const STATUS_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The columns of `Tally::ended`.
const PARTIES: [Party; 3] = [Party::Downstream, Party::Upstream, Party::Proxy];

/// A tally consists of `u64` alone, so its size gives their number.
pub(super) const CELLS: usize = size_of::<Tally>() / size_of::<u64>();

impl Tally {
    fn add(&mut self, other: &Tally) {
        let mut values = Vec::with_capacity(CELLS);
        other.each_cell(&mut |value| values.push(value));
        let mut values = values.into_iter();
        self.each_cell_mut(&mut |value| *value += values.next().unwrap_or(0));
    }
}

/// What concerns the process as a whole, at the moment of rendering.
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub version: &'static str,
    /// Milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// Worker restarts after a panic.
    pub worker_restarts: u64,
    pub reloads_ok: u64,
    pub reloads_refused: u64,
    /// Failed writes to the access log.
    pub log_errors: u64,
    /// Access log lines lost to failed writes. Those lost to full rings are in the tallies.
    pub log_lost: u64,
    pub draining: bool,
    /// Limits in force, 0 for none.
    pub max_sessions: u64,
    pub max_handshakes: u64,
    pub buffer_bytes_max: u64,
    /// Addresses that are blocked, blocks so far, and failures that were not counted.
    pub blocked: u64,
    pub blocks: u64,
    pub block_overflows: u64,
    /// Certificate files, each with the days until it expires; negative once it has.
    pub certificates: Vec<(String, i64)>,
    pub upstreams: Vec<UpstreamHealth>,
    pub checks_in_progress: u64,
    /// The files with denied addresses.
    pub denied: Vec<Denied>,
    /// The sources of endpoints.
    pub discovered: Vec<Discovered>,
    /// Those that are fetched from URLs.
    pub key_sets: Vec<KeySet>,
    /// The sections that ask servers about clients.
    pub asked: Vec<Asked>,
    /// Limits that are shared with other hosts.
    pub shared: Option<Shared>,
    pub client_tables: Vec<ClientTable>,
}

/// The sharing of limits with other hosts.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub up: bool,
    /// Synchronisations that succeeded, and that failed.
    pub results: [u64; 2],
    /// By the bounds of [`SYNC_US`], then all above them.
    pub times: [u64; SYNC_US.len() + 1],
    pub time_us: u64,
    pub keys: u64,
    pub bad_answers: u64,
    pub refusals: u64,
}

/// The table of clients of a limit.
#[derive(Debug, Clone, Default)]
pub struct ClientTable {
    /// The name of the route, or the address of the listener.
    pub of: String,
    /// The key of the limit in the configuration.
    pub limit: &'static str,
    pub places: u64,
    pub used: u64,
    pub evicted: u64,
    pub overflows: u64,
}

/// A key set of a token issuer.
#[derive(Debug, Clone)]
pub struct KeySet {
    /// The name of its `[[auth]]`.
    pub auth: String,
    pub keys: u64,
    /// Since it was last fetched.
    pub age_ms: Option<u64>,
    pub failures: u64,
}

/// What the questions of one section came to.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub auth: String,
    /// In the order of [`CallResult::ALL`].
    pub results: [u64; CallResult::ALL.len()],
    /// Answers by the bounds of [`CALL_US`], then all above them.
    pub times: [u64; CALL_US.len() + 1],
    pub time_ms: u64,
}

/// What is known of the endpoints of one upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamHealth {
    pub upstream: String,
    /// Endpoints by the name of their state.
    pub endpoints: Vec<(&'static str, u64)>,
    /// Passed, failed, skipped. `None` if they are not checked.
    pub checks: Option<[u64; 3]>,
    /// To up, to down. `None` if they are not checked.
    pub changes: Option<[u64; 2]>,
}

/// A file with denied addresses.
#[derive(Debug, Clone)]
pub struct Denied {
    pub file: String,
    pub networks: u64,
    /// Since its content was last known to be in force.
    pub age_ms: u64,
    pub failures: u64,
}

/// A source of endpoints of an upstream.
#[derive(Debug, Clone)]
pub struct Discovered {
    pub upstream: String,
    pub source: &'static str,
    pub endpoints: u64,
    /// Since its last success.
    pub age_ms: u64,
    pub failures: u64,
    pub changes: u64,
}

/// What the samples are read from: all shards at one moment, their sum, and the process.
pub(super) struct Reading {
    total: Tally,
    workers: Vec<Tally>,
    process: Process,
}

impl Reading {
    pub fn new(workers: Vec<Tally>, process: Process) -> Reading {
        let mut total = Tally::default();
        for tally in &workers {
            total.add(tally);
        }
        Reading { total, workers, process }
    }
}

fn shared(r: &Reading, put: impl FnMut(&Shared)) {
    r.process.shared.iter().for_each(put);
}

fn clients(r: &Reading, out: &mut Samples<'_>, number: impl Fn(&ClientTable) -> u64) {
    r.process.client_tables.iter().for_each(|one| out.put(&[&one.of, &one.limit], number(one)));
}

fn denied<N: std::fmt::Display>(r: &Reading, out: &mut Samples<'_>, number: impl Fn(&Denied) -> N) {
    r.process.denied.iter().for_each(|one| out.put(&[&one.file], number(one)));
}

fn discovered<N: std::fmt::Display>(r: &Reading, out: &mut Samples<'_>, number: impl Fn(&Discovered) -> N) {
    r.process.discovered.iter().for_each(|one| out.put(&[&one.upstream, &one.source], number(one)));
}

fn handshakes(r: &Reading, out: &mut Samples<'_>) {
    out.put(&[&"ok"], r.total.handshakes_ok);
    for info in CAUSES {
        let count = r.total.refused[info.cause];
        let without_status =
            matches!(info.cause, Cause::NoRequest | Cause::PeerRefused | Cause::HalfOpen | Cause::AddressHalfOpen)
                || matches!(info.cause, Cause::UpstreamResponse | Cause::WorkerPanic);
        if count > 0 || info.status != 0 || without_status {
            out.put(&[&info.name], count);
        }
    }
}

fn ended(r: &Reading, out: &mut Samples<'_>) {
    for info in CAUSES {
        let tls = matches!(
            info.cause,
            Cause::TlsMalformed
                | Cause::TlsAlert
                | Cause::TlsBadRecord
                | Cause::TlsMisbehaved
                | Cause::TlsTruncated
                | Cause::TlsInternal
        );
        let can_occur = tls || info.cause as usize >= Cause::Close as usize;
        for (party, count) in PARTIES.iter().zip(r.total.ended[info.cause]) {
            if count > 0 || can_occur {
                out.put(&[&info.name, &party.name()], count);
            }
        }
    }
}

fn tls(r: &Reading, out: &mut Samples<'_>) {
    for side in Side::BOTH {
        for (outcome, count) in TLS_OUTCOMES.iter().zip(r.total.tls[side]) {
            out.put(&[&side.name(), outcome], count);
        }
    }
}

fn frames(r: &Reading, out: &mut Samples<'_>) {
    for from in Side::BOTH {
        for (code, &count) in r.total.relay[from].frames.iter().enumerate() {
            match opcode_name(code as u8) {
                Some(name) => out.put(&[&from.name(), &name], count),
                None if count > 0 => out.put(&[&from.name(), &format_args!("{code:#x}")], count),
                None => {}
            }
        }
    }
}

fn bytes(r: &Reading, out: &mut Samples<'_>) {
    for from in Side::BOTH {
        out.put(&[&from.name()], r.total.relay[from].bytes);
    }
}

fn pauses(r: &Reading, out: &mut Samples<'_>) {
    for from in Side::BOTH {
        out.put(&[&from.name()], r.total.relay[from].pauses);
    }
}

fn round_trips(r: &Reading, out: &mut Samples<'_>) {
    let bounds_us = ROUND_TRIP_MS.map(|ms| ms * 1_000);
    for side in Side::BOTH {
        let taken = &r.total.relay[side].round_trips;
        out.put_side_histogram(side.name(), &bounds_us, &taken.counts, taken.sum_ms * 1_000);
    }
}

fn opcode_name(code: u8) -> Option<&'static str> {
    Some(match code {
        opcode::CONTINUATION => "continuation",
        opcode::TEXT => "text",
        opcode::BINARY => "binary",
        opcode::CLOSE => "close",
        opcode::PING => "ping",
        opcode::PONG => "pong",
        _ => return None,
    })
}
