//! Responses to admin requests.

use super::state::{Control, Workers};
use crate::admin::{Request, Response};
use crate::config;
use crate::discovery::{Sources, Status};
use crate::metrics::{self, Asked, ClientTable, Discovered, KeySet, Process, Shared};
use crate::policy::auth::jwt::RemoteKeys;
use crate::policy::auth::{Method, REVOKED_MAX, Who};
use crate::policy::block::{Blocked, Blocks};
use crate::policy::keyed::TableUse;
use crate::sharing::Sharing;
use crate::worker::inbox::Command;
use crate::worker::sys::now_ms;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Control {
    pub(super) fn respond(&mut self, request: Request, workers: &mut Workers) -> Response {
        match request {
            Request::Metrics => Response {
                status: 200,
                content_type: metrics::CONTENT_TYPE,
                body: metrics::render(&workers.shards, self.process(workers)),
            },
            Request::Healthz => Response::text(200, "ok"),
            Request::Readyz if self.drain.has_begun() => Response::text(503, "draining"),
            Request::Readyz => Response::text(200, "ready"),
            Request::Page => self.page(),
            Request::Upstreams { table } => self.upstreams(table, workers),
            Request::Endpoint(order) => self.order(&order, workers),
            Request::Revoke { who, for_ms } => self.revoke(who, for_ms, workers),
            Request::Extend { who, until_unix_ms } => {
                let who = Arc::new(who);
                workers.send_all(|| Command::Extend { who: Arc::clone(&who), until_unix_ms });
                Response::text(200, "extended")
            }
            Request::Blocks => self.blocks(),
            Request::Unblock { address } => self.unblock(address),
            Request::Reload => match self.reload(workers) {
                Ok(()) => Response::text(200, "reloaded"),
                Err(error) => Response::text(422, &error),
            },
            Request::Panic { worker } => self.panic_worker(worker, workers),
        }
    }

    /// Sessions end in every worker; requests with the same credentials are refused from now on.
    fn revoke(&self, who: Who, for_ms: u64, workers: &Workers) -> Response {
        // A session has an id of its own: there is nothing to remember.
        let remembered = !matches!(who, Who::Session(_));
        if remembered && self.snapshot.revoked.add(who.clone(), now_ms().saturating_add(for_ms), now_ms()).is_err() {
            let why = format!("{REVOKED_MAX} orders are in force; revoke for shorter times");
            return Response::text(503, &why);
        }
        ::log::info!("credentials revoked by the admin listener");
        let who = Arc::new(who);
        workers.send_all(|| Command::Revoke(Arc::clone(&who)));
        Response::text(200, "revoked")
    }

    /// The addresses that are blocked.
    fn blocks(&self) -> Response {
        let Some(blocks) = &self.snapshot.shield.blocks else { return Response::json(200, &json!([])) };
        let shown = |one: &Blocked| {
            let (network, left_seconds) = (one.network.to_string(), one.left_ms.div_ceil(1_000));
            json!({ "network": network, "left_seconds": left_seconds, "blocks": one.blocks })
        };
        Response::json(200, &blocks.list(now_ms()).iter().map(shown).collect())
    }

    fn unblock(&self, address: IpAddr) -> Response {
        match &self.snapshot.shield.blocks {
            Some(blocks) if blocks.lift(address, now_ms()) => Response::text(200, "unblocked"),
            _ => Response::text(404, "not blocked"),
        }
    }

    fn page(&self) -> Response {
        match (&self.parts.demo, self.addresses().plain) {
            (Some(demo), Some(proxy)) => Response::html((demo.page)(&format!("ws://{proxy}/"))),
            _ => Response::text(200, "framegate: GET /metrics, /healthz, /readyz, /upstreams, /blocks; POST /reload"),
        }
    }

    fn panic_worker(&self, worker: usize, workers: &Workers) -> Response {
        if !self.snapshot.admin.as_ref().is_some_and(|admin| admin.fault_injection) {
            return Response::text(403, "disabled; set admin.fault_injection = true");
        }
        match workers.outboxes.get(worker) {
            Some(outbox) => {
                outbox.send(Command::Panic);
                Response::text(200, "the worker will panic")
            }
            None => Response::text(404, "no such worker"),
        }
    }

    fn process(&self, workers: &Workers) -> Process {
        let blocks = self.snapshot.shield.blocks.as_ref();
        Process {
            version: env!("CARGO_PKG_VERSION"),
            started_unix_ms: self.parts.started_unix_ms,
            worker_restarts: self.parts.restarts.load(Ordering::Relaxed),
            reloads_ok: self.reloads_ok,
            reloads_refused: self.reloads_refused,
            log_errors: self.parts.log.errors(),
            log_lost: self.parts.log.unwritten(),
            draining: self.drain.has_begun(),
            max_sessions: self.parts.sessions.max() as u64,
            max_handshakes: self.parts.handshakes.max() as u64,
            buffer_bytes_max: self.snapshot.limits.buffer_bytes as u64,
            certificates: self.parts.certificates.days_left(),
            upstreams: self.snapshot.upstreams.iter().map(|upstream| workers.checks.report(upstream)).collect(),
            blocked: blocks.map_or(0, |blocks| blocks.list(now_ms()).len() as u64),
            blocks: blocks.map_or(0, Blocks::count),
            block_overflows: blocks.map_or(0, Blocks::overflows),
            checks_in_progress: workers.checks.in_progress() as u64,
            key_sets: self.snapshot.key_sources.iter().map(|remote| key_set(remote)).collect(),
            denied: self.deny_files.status(now_ms()),
            discovered: self.sources.iter().flat_map(Sources::status).map(discovered).collect(),
            shared: self.sharing.as_ref().and_then(shared),
            client_tables: self.snapshot.client_tables().iter().map(client_table).collect(),
            asked: self.snapshot.methods.iter().filter_map(|method| asked(method)).collect(),
        }
    }
}

fn client_table(table: &config::ClientTable<'_>) -> ClientTable {
    let TableUse { places, used, evicted, overflows } = table.keyed.use_of_table();
    ClientTable { of: table.of.clone(), limit: table.key, places, used, evicted, overflows }
}

fn key_set(remote: &RemoteKeys) -> KeySet {
    let status = remote.status(now_ms());
    let auth = remote.config.method.clone();
    KeySet { auth, keys: status.keys as u64, age_ms: status.age_ms, failures: status.failures }
}

/// `None`: nothing is shared.
fn shared(sharing: &Sharing) -> Option<Shared> {
    let status = sharing.status()?;
    let (times, time_us) = status.times();
    Some(Shared {
        up: sharing.is_up(),
        results: status.results(),
        times,
        time_us,
        keys: status.keys(),
        bad_answers: status.bad_answers(),
        refusals: status.refusals(),
    })
}

/// `None`: it asks no server.
fn asked(method: &Method) -> Option<Asked> {
    let state = method.remote()?.state();
    let (times, time_ms) = state.times();
    Some(Asked { auth: method.name.clone(), results: state.results(), times, time_ms })
}

fn discovered(status: Status) -> Discovered {
    Discovered {
        upstream: status.upstream,
        source: status.source,
        endpoints: status.endpoints as u64,
        age_ms: u64::try_from(status.age.as_millis()).unwrap_or(u64::MAX),
        failures: status.failures,
        changes: status.changes,
    }
}
