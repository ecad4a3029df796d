//! Which endpoints there are, and which have gone down since the last look.

use crate::config::Snapshot;
use crate::policy::endpoint::{Address, Endpoint};
use crate::policy::health::State;
use crate::policy::upstream::Upstream;
use crate::proto::Millis;
use crate::proto::settings::EndpointDown;
use std::sync::Arc;

/// How often endpoints are looked at where a route closes sessions for them, and where none does.
const SOON_MS: Millis = 500;
const LATER_MS: Millis = 5_000;
/// Of the ports of a source address toward one endpoint, percent: above the first a warning is
/// logged, and below the second the next one is due.
const PORTS_HIGH: usize = 90;
const PORTS_LOW: usize = 80;

/// The endpoints of all upstreams, and those that were removed while they have sessions.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    known: Vec<Known>,
    next_at: Millis,
}

#[derive(Debug)]
struct Known {
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
    /// Workers have been told, if there was something to tell.
    down: bool,
    /// The ports toward it were running out.
    short_of_ports: bool,
}

impl Endpoints {
    /// When to look at them again.
    pub fn deadline(&self) -> Millis {
        self.next_at
    }

    /// Those that have gone down since the last look and have sessions, or may have idle
    /// connections of plain HTTP. `ports`: of a source address toward one endpoint.
    pub fn look(&mut self, snapshot: &Snapshot, ports: usize, now: Millis) -> Vec<Arc<Endpoint>> {
        let closes = |endpoint_down| endpoint_down != EndpointDown::Keep;
        let routes = snapshot.routes.entries();
        let soon = routes.iter().any(|entry| closes(entry.route.settings.relay.endpoint_down));
        let keeps = routes.iter().any(|entry| entry.route.proxies() && entry.route.protocols.http);
        self.next_at = now + if soon { SOON_MS } else { LATER_MS };
        self.refresh(snapshot);
        self.warn_of_ports(ports);
        self.gone_down(keeps)
    }

    /// Endpoints of an upstream that were removed while they have sessions.
    pub fn removed<'a>(&'a self, upstream: &'a str) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        let removed = move |known: &&Known| {
            let Known { upstream: of, endpoint, .. } = known;
            of.name == upstream && endpoint.health.state() == State::Removed && endpoint.sessions() > 0
        };
        self.known.iter().filter(removed).map(|known| &known.endpoint)
    }

    /// Adds what is new, forgets what is gone.
    fn refresh(&mut self, snapshot: &Snapshot) {
        let is_used = |known: &Known| known.endpoint.sessions() > 0 || !known.down;
        self.known.retain(|known| known.endpoint.health.state() != State::Removed || is_used(known));
        for upstream in &snapshot.upstreams {
            for endpoint in upstream.endpoints() {
                match self.known.iter_mut().find(|known| Arc::ptr_eq(&known.endpoint, &endpoint)) {
                    Some(known) => known.upstream = Arc::clone(upstream),
                    None => self.known.push(Known {
                        upstream: Arc::clone(upstream),
                        endpoint,
                        down: false,
                        short_of_ports: false,
                    }),
                }
            }
        }
    }

    /// Those that have gone down since the last time. `keeps`: workers may have idle connections to
    /// them.
    fn gone_down(&mut self, keeps: bool) -> Vec<Arc<Endpoint>> {
        let mut gone = Vec::new();
        for known in &mut self.known {
            let down = known.endpoint.health.is_down();
            if down && !known.down && (keeps || known.endpoint.sessions() > 0) {
                gone.push(Arc::clone(&known.endpoint));
            }
            known.down = down;
        }
        gone
    }

    fn warn_of_ports(&mut self, ports: usize) {
        for known in &mut self.known {
            if matches!(known.endpoint.address, Address::Unix(_)) {
                continue;
            }
            let used = PortUse::new(known.endpoint.sessions(), ports, known.upstream.rules.bind.len());
            let short = used.is_short(known.short_of_ports);
            if short && !known.short_of_ports {
                let (name, url, PortUse { sessions, all }) = (&known.upstream.name, &known.endpoint.url, used);
                ::log::warn!(
                    "upstream {name}: {url} has {sessions} sessions, {} % of the {all} ports for connections \
                     to it; add addresses to upstream.bind, or endpoints",
                    used.percent()
                );
            }
            known.short_of_ports = short;
        }
    }
}

/// How many of the ports for connections to an endpoint are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortUse {
    sessions: usize,
    all: usize,
}

impl PortUse {
    /// `ports`: of one source address; `sources`: those in `upstream.bind`, 0 where the kernel
    /// chooses one.
    fn new(sessions: usize, ports: usize, sources: usize) -> PortUse {
        PortUse { sessions, all: ports.saturating_mul(sources.max(1)) }
    }

    fn percent(self) -> usize {
        self.sessions.saturating_mul(100) / self.all.max(1)
    }

    /// `before`: whether they were running out at the last look.
    fn is_short(self, before: bool) -> bool {
        self.percent() >= if before { PORTS_LOW } else { PORTS_HIGH }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_short_above_a_share_of_them() {
        // Sessions, ports of an address, addresses; short when they were not before, and were.
        for (sessions, ports, sources, fresh, again) in [
            (0, 28_232, 0, false, false),
            (22_585, 28_232, 0, false, false),
            (22_586, 28_232, 0, false, true),
            (25_408, 28_232, 0, false, true),
            (25_409, 28_232, 0, true, true),
            (28_232, 28_232, 0, true, true),
            // One address is as many as the kernel chooses.
            (25_408, 28_232, 1, false, true),
            (25_409, 28_232, 1, true, true),
            // Two addresses have twice as many ports.
            (25_409, 28_232, 2, false, false),
            (50_817, 28_232, 2, false, true),
            (50_818, 28_232, 2, true, true),
            (8, 10, 0, false, true),
            (9, 10, 0, true, true),
            (0, 1, 0, false, false),
            (1, 1, 0, true, true),
            // A name with several addresses may have more sessions than one of them has ports.
            (60_000, 28_232, 0, true, true),
            (0, 0, 0, false, false),
            (usize::MAX, usize::MAX, usize::MAX, false, false),
        ] {
            let used = PortUse::new(sessions, ports, sources);
            let short = [false, true].map(|before| used.is_short(before));
            assert_eq!(short, [fresh, again], "{used:?}, {} %", used.percent());
        }
    }
}
