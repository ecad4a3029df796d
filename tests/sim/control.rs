//! What control does beside a worker, in virtual time: it looks for endpoints that have gone down
//! and tells the worker, and it replaces the configuration.

use crate::bugs::Bug;
use crate::calls::SimListener;
use crate::coverage::Met;
use crate::fleet::Seat;
use crate::kernel::{Micros, What, trace};
use crate::members::Reload;
use crate::subject;
use crate::world::World;
use framegate::config::Snapshot;
use framegate::proto::Side;
use framegate::tls::TlsConfigs;
use framegate::worker::inbox::{Command, Outbox};
use std::sync::Arc;

/// Control looks at endpoints at least as often.
const LOOK_US: Micros = 500_000;

pub struct Control {
    pub worker: Outbox<SimListener>,
    /// The configuration at the start, and what a reload brings.
    pub before: Arc<Snapshot>,
    pub after: Option<(Arc<Snapshot>, Arc<TlsConfigs>)>,
    /// The configuration of this moment.
    pub current: Arc<Snapshot>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "control, with a reload to come: {}", self.after.is_some())
    }
}

impl World {
    /// Something has changed at an upstream: control will see it.
    pub fn expect_sweep(&mut self, session: usize) {
        if self.groups[session].has_news() {
            let at = self.kernel.now + self.kernel.rng.below(LOOK_US);
            self.kernel.at(at, What::Sweep(session));
        }
    }

    /// Control looks at the endpoints of an upstream.
    pub fn sweep(&mut self, session: usize) {
        let client_on = self.client_is_open_on(session);
        let now = self.kernel.now;
        let Some(control) = &self.control else { return };
        for gone in self.groups[session].gone_down() {
            let endpoint = subject::number_of(&gone);
            trace!(self.kernel, "control: endpoint {endpoint} of session {session} is down");
            let closes = self.script.sessions[session].fleet.closes_ms.is_some();
            self.groups[session].note_told(&gone, now, client_on == Some(endpoint));
            if client_on == Some(endpoint) {
                self.coverage.meet(if closes { Met::ClosedForEndpoint } else { Met::KeptOnEndpoint });
            }
            if self.bug != Some(Bug::NoSweep) {
                control.worker.send(Command::EndpointDown(gone));
                self.inbox_edge = true;
            }
        }
    }

    /// Another configuration, in which the upstream of `session` has these members. Only the first
    /// of a schedule is one; later ones replace the members.
    pub fn reload(&mut self, session: usize, seats: &[Seat]) {
        let Some(control) = &mut self.control else { return };
        let (now, secure) = (self.kernel.now, self.secure[Side::Upstream]);
        let Some((snapshot, tls)) = control.after.take() else {
            return self.groups[session].replace(session, seats, now, Some(secure));
        };
        let of_callees = control.before.upstreams.iter().zip(&snapshot.upstreams);
        of_callees.for_each(|(before, after)| after.inherit(before, now / 1_000));
        for (index, of) in self.script.sessions.iter().enumerate() {
            let Some(upstream) = subject::upstream_of(&snapshot, index, of) else { continue };
            let seats = (index == session).then_some(seats);
            let inherits = self.bug != Some(Bug::NoInherit);
            self.groups[index].reload(index, seats, upstream, Reload { now, secure, inherits });
        }
        snapshot.revoked.inherit(&control.current.revoked);
        control.current = Arc::clone(&snapshot);
        control.worker.send(Command::Swap { snapshot, tls, added: Vec::new(), removed: Vec::new() });
        self.inbox_edge = true;
        for index in 0..self.script.sessions.len() {
            let met = match (self.client_is_open_on(index), self.groups[index].attempts.is_empty()) {
                (Some(_), _) => Met::ReloadInSession,
                (None, false) if self.has_client(index) => Met::ReloadInHandshake,
                _ => continue,
            };
            self.coverage.meet(met);
        }
    }
}
