//! Load in rounds, on the calling thread, for the measurements of proxies. Between rounds the
//! connections stay open and nothing is under way, so a round's cost is that of its own messages.

use crate::Failure;
use crate::net::opening::{self, OpeningArgs};
use crate::run::client::Client;
use crate::run::group::{Clock, Share, Timeline};
use crate::run::measure::Sample;
use crate::run::options::GroupSpec;
use crate::run::plan::{Group, Plan, Target, Windows};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// For opening, and for the last replies of a load.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_NS: u64 = 5_000_000;
/// The only cipher suite that is offered: with another one the work differs. It is one of TLS 1.3
/// alone.
pub const CIPHER: &str = "TLS_AES_256_GCM_SHA384";

pub struct Bench {
    addr: SocketAddr,
    clock: Clock,
    client: Client,
}

/// The load of one round. Every message sent has been answered.
pub struct Load {
    /// Of each group; what was measured and the whole.
    pub samples: Vec<[Sample; 2]>,
    pub elapsed: Duration,
}

impl Bench {
    /// Groups of connections to one address; nothing is opened yet. With TLS any certificate will
    /// do, and only [`CIPHER`]; `resumes` tells whether sessions of TLS are resumed.
    pub fn new(addr: SocketAddr, groups: &[GroupSpec], (tls, resumes): (bool, bool)) -> Result<Bench, Failure> {
        let scheme = if tls { "wss" } else { "ws" };
        let mut args = OpeningArgs::default();
        (args.tls.insecure, args.tls.no_resumption) = (tls, !resumes);
        args.tls.tls_cipher = Some(CIPHER.to_owned());
        // Some servers reject a client that sends no server name.
        args.tls.sni = Some("localhost".to_owned());
        let target: Arc<Target> = Arc::new(opening::target(&format!("{scheme}://{addr}/"), &args)?);
        let groups: Result<Vec<Group>, String> = groups.iter().map(|spec| spec.build(target.clone())).collect();
        let windows = Windows { ramp: Duration::ZERO, settle: Duration::ZERO, measure: PATIENCE, cooldown: PATIENCE };
        let (url, pins, sources) = (addr.to_string(), vec![], vec![]);
        let plan = Plan { url, groups: groups?, windows, threads: 1, pins, sources, seed: 1 };
        let clock = Clock::start();
        let client = Client::new(&plan, Share { index: 0, of: 1 }, clock)?;
        Ok(Bench { addr, clock, client })
    }

    /// Opens the connections that stay.
    pub fn open(&mut self) -> Result<(), Failure> {
        self.client.begin_ramp(Duration::ZERO);
        let deadline = self.clock.now() + PATIENCE.as_nanos() as u64;
        while !self.client.is_up() {
            if self.clock.now() > deadline {
                return Err(format!("{}: its connections did not open in {PATIENCE:?}", self.addr).into());
            }
            self.client.turn(self.clock.now() + LOOK_NS)?;
        }
        self.settle()?;
        let samples = self.client.take(Vec::new());
        self.check(&samples)
    }

    /// Traffic for `time`, then waits for the last replies.
    pub fn measure(&mut self, time: Duration) -> Result<Load, Failure> {
        let start = self.clock.now();
        let until = start + time.as_nanos() as u64;
        self.client.begin_traffic(Timeline { start, measure_from: start, until });
        while self.clock.now() < until {
            self.client.turn(until)?;
        }
        self.client.end_traffic();
        self.settle()?;
        let elapsed = Duration::from_nanos(self.clock.now() - start);
        let samples = self.client.take(Vec::new());
        self.check(&samples)?;
        Ok(Load { samples, elapsed })
    }

    /// Says goodbye on every connection.
    pub fn close(mut self) -> Result<(), Failure> {
        self.client.close_all(PATIENCE);
        let deadline = self.clock.now() + PATIENCE.as_nanos() as u64;
        while self.client.connections() > 0 && self.clock.now() < deadline {
            self.client.turn(self.clock.now() + LOOK_NS)?;
        }
        Ok(())
    }

    /// Until nothing is under way: what a round began is paid for in that round.
    fn settle(&mut self) -> Result<(), Failure> {
        let deadline = self.clock.now() + PATIENCE.as_nanos() as u64;
        while !self.client.is_at_rest() {
            if self.clock.now() > deadline {
                return Err(format!("{}: replies did not come back in {PATIENCE:?}", self.addr).into());
            }
            self.client.turn(self.clock.now() + LOOK_NS / 10)?;
        }
        Ok(())
    }

    /// A measurement of something that goes wrong is none.
    fn check(&self, samples: &[[Sample; 2]]) -> Result<(), Failure> {
        for [_, whole] in samples {
            if let Some((fault, count, detail)) = whole.counts.seen().next() {
                return Err(format!("{}: {count} errors ({}): {detail}", self.addr, fault.name()).into());
            }
        }
        Ok(())
    }
}

impl Load {
    /// Messages received, of all groups.
    pub fn received(&self) -> u64 {
        self.samples.iter().map(|[_, whole]| whole.counts.received).sum()
    }
}
