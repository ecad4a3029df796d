//! The endpoints as control sees them: what `/upstreams` shows and changes, and the sessions of
//! those that are marked down, drained or removed, which workers are told to close.

use super::state::{Control, Workers};
use crate::admin::{EndpointOrder, Response};
use crate::clock::unix_ms;
use crate::discovery::Status;
use crate::os;
use crate::policy::endpoint::{Endpoint, Member};
use crate::policy::health::Order;
use crate::policy::upstream::Upstream;
use crate::worker::inbox::Command;
use crate::worker::sys::now_ms;
use serde_json::{Value, json};
use std::sync::Arc;

impl Control {
    /// Looks at the endpoints when it is time to, and tells workers which have gone down.
    pub(super) fn check_endpoints(&mut self, workers: &Workers) {
        if now_ms() >= self.endpoints.deadline() {
            self.look_at_endpoints(workers);
        }
    }

    pub(super) fn look_at_endpoints(&mut self, workers: &Workers) {
        for endpoint in self.endpoints.look(&self.snapshot, os::local_ports(), now_ms()) {
            workers.send_all(|| Command::EndpointDown(Arc::clone(&endpoint)));
        }
    }

    /// `GET /upstreams`.
    pub(super) fn upstreams(&mut self, table: bool, workers: &Workers) -> Response {
        self.look_at_endpoints(workers);
        if table {
            return Response::text(200, self.table().trim_end());
        }
        let upstreams: Vec<_> = self.snapshot.upstreams.iter().map(|upstream| self.upstream(upstream)).collect();
        Response::json(200, &Value::Array(upstreams))
    }

    /// `POST /upstreams/NAME/ENDPOINT/ORDER`.
    pub(super) fn order(&mut self, request: &EndpointOrder, workers: &Workers) -> Response {
        let upstream = self.snapshot.upstreams.iter().find(|upstream| upstream.name == request.upstream);
        let Some(upstream) = upstream else { return Response::text(404, "no such upstream") };
        let endpoints = upstream.endpoints();
        let named = |endpoint: &&Arc<Endpoint>| is_named(endpoint, &request.endpoint);
        let Some(endpoint) = endpoints.iter().find(named) else { return Response::text(404, "no such endpoint") };
        endpoint.obey(request.order, now_ms());
        let word = match request.order {
            Order::Drain => "drained",
            Order::Down => "taken down",
            Order::Ready => "ready",
        };
        ::log::info!("upstream {}: {} is {word}, by the admin listener", upstream.name, endpoint.url);
        let state = endpoint.health.state().name();
        self.look_at_endpoints(workers);
        Response::text(200, state)
    }

    /// The members of an upstream, then what was removed while it has sessions.
    fn rows<'a>(&'a self, upstream: &'a Upstream) -> impl Iterator<Item = Member> + 'a {
        let removed = self.endpoints.removed(&upstream.name);
        let removed = removed.map(|endpoint| Member { endpoint: Arc::clone(endpoint), weight: 0, priority: 0 });
        upstream.members().into_iter().chain(removed)
    }

    fn upstream(&self, upstream: &Upstream) -> Value {
        let (sessions, pending) = upstream.sessions();
        let endpoints: Vec<_> =
            self.rows(upstream).map(|member| endpoint_json(&member, self.source_of(upstream, &member))).collect();
        json!({
            "name": upstream.name,
            "balance": upstream.rules.balance.name(),
            "sessions": sessions,
            "pending": pending,
            "queued": upstream.queued(),
            "discovery": self.sources.as_ref().and_then(|sources| sources.status_of(&upstream.name)).map(status_json),
            "endpoints": endpoints,
        })
    }

    /// The source that found an endpoint.
    fn source_of(&self, upstream: &Upstream, member: &Member) -> &'static str {
        let source = self.sources.as_ref().and_then(|sources| sources.source_of(&upstream.name, &member.endpoint));
        source.unwrap_or("configuration")
    }

    fn table(&self) -> String {
        let mut rows = vec![
            [
                "UPSTREAM", "ENDPOINT", "STATE", "SINCE", "SESSIONS", "PENDING", "WEIGHT", "PRIORITY", "OK", "FAILED",
                "EJECTED", "SOURCE",
            ]
            .map(str::to_owned),
        ];
        for upstream in &self.snapshot.upstreams {
            let row = |member| endpoint_row(&upstream.name, &member, self.source_of(upstream, &member));
            rows.extend(self.rows(upstream).map(row));
        }
        aligned(&rows)
    }
}

fn status_json(status: Status) -> Value {
    json!({
        "source": status.source,
        "endpoints": status.endpoints,
        "age_s": status.age.as_secs(),
        "failures": status.failures,
        "changes": status.changes,
        "error": status.error,
    })
}

/// By its URL, or by what follows the scheme in it.
fn is_named(endpoint: &Endpoint, name: &str) -> bool {
    let without_scheme = endpoint.url.split_once(':').map(|(_, rest)| rest.trim_start_matches('/'));
    endpoint.url == name || without_scheme.is_some_and(|rest| rest == name.trim_start_matches('/'))
}

/// Seconds in the present state; `None` since the start.
fn seconds_in_state(endpoint: &Endpoint) -> Option<u64> {
    let since = endpoint.health.since();
    (since > 0).then(|| now_ms().saturating_sub(since) / 1_000)
}

fn endpoint_json(member: &Member, source: &str) -> Value {
    let endpoint = &member.endpoint;
    let (ok, failed, ejected) = endpoint.health.totals();
    let since = seconds_in_state(endpoint).map(|seconds| unix_ms() / 1_000 - seconds);
    json!({
        "url": endpoint.url,
        "state": endpoint.health.state().name(),
        "since_unix_s": since,
        "sessions": endpoint.sessions(),
        "pending": endpoint.pending(),
        "weight": member.weight,
        "priority": member.priority,
        "handshakes_ok": ok,
        "handshakes_failed": failed,
        "ejections": ejected,
        "source": source,
    })
}

fn endpoint_row(upstream: &str, member: &Member, source: &str) -> [String; 12] {
    let endpoint = &member.endpoint;
    let (ok, failed, ejected) = endpoint.health.totals();
    let since = seconds_in_state(endpoint).map_or_else(|| "start".to_owned(), |seconds| format!("{seconds}s"));
    [
        upstream.to_owned(),
        endpoint.url.clone(),
        endpoint.health.state().name().to_owned(),
        since,
        endpoint.sessions().to_string(),
        endpoint.pending().to_string(),
        member.weight.to_string(),
        member.priority.to_string(),
        ok.to_string(),
        failed.to_string(),
        ejected.to_string(),
        source.to_owned(),
    ]
}

/// Columns as wide as their longest value.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
