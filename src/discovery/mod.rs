//! Service discovery: endpoints of upstreams that come from DNS, a file, Consul, Kubernetes or
//! Eureka, at run time and off the data path. One pattern for all sources:
//!
//! - A source (`Source`) blocks until it has something to report and returns the whole list of
//!   endpoints. Its parsing is pure, and apart from its I/O.
//! - Each discovering upstream has a thread (`run.rs`; `server.rs` starts it). It calls the source,
//!   makes endpoints of what was found, and leaves the list in its [`Slot`]. After a failure it
//!   tries again with backoff; the endpoints stay.
//! - The control thread takes lists from the slots and applies them to upstreams (`sources.rs`).
//!   Because no other thread does, a source whose upstream is gone cannot change anything, however
//!   long it is blocked.

#[cfg(feature = "discovery")]
mod consul;
#[cfg(feature = "discovery")]
mod dns;
#[cfg(feature = "discovery")]
mod eureka;
#[cfg(feature = "discovery")]
mod file;
#[cfg(feature = "discovery")]
mod http;
#[cfg(feature = "discovery")]
mod kubernetes;
mod run;
mod slot;
mod sources;

pub use slot::Slot;
pub use sources::{Prepared, Sources, Start, Status};

use crate::config::discovery::Discovery;
use std::sync::Arc;
use std::time::Duration;

/// How long a start or a reload waits for the first lists of new sources.
pub const FIRST_LISTS: Duration = Duration::from_secs(5);
/// The largest answer or file.
#[cfg(feature = "discovery")]
const ANSWER_BYTES_MAX: u64 = crate::memory::ANSWER_BYTES as u64;

/// One endpoint as a source reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Lower is used first. Any numbers: only their order counts.
    pub priority: u32,
    /// As in the configuration: `ws://`, `wss://` or `ws+unix:`.
    pub url: String,
    /// Relative to the others; 0 counts as the smallest.
    pub weight: u32,
}

/// What a source reports.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// All endpoints; `None`: as before.
    pub found: Option<Vec<Found>>,
    /// When to ask again.
    pub again: Duration,
}

/// A source of endpoints.
trait Source {
    /// Waits for the next answer. It may block as long as its protocol has it; it returns early
    /// when the slot is stopped.
    ///
    /// # Errors
    /// Why there is no answer, for the log. Never has a secret in it.
    fn next(&mut self) -> Result<Answer, String>;
}

/// Makes the source of a discovery. What it opens for `slot` ends when that is stopped.
#[cfg(feature = "discovery")]
fn open(discovery: &Discovery, slot: &Arc<Slot>) -> Result<Box<dyn Source>, String> {
    use crate::config::discovery::Source::{Consul, Dns, Eureka, File, Kubernetes};
    let (tls, path) = (discovery.tls, discovery.path.as_str());
    Ok(match &discovery.source {
        Dns(dns) => Box::new(dns::Dns::new(dns.clone(), tls, path.to_owned(), Arc::clone(slot))),
        File(list) => Box::new(file::File::new(list.clone(), tls)),
        Consul(consul) => Box::new(consul::Consul::new(consul, tls, path, slot)?),
        Eureka(eureka) => Box::new(eureka::Eureka::new(eureka, tls, path, slot)?),
        Kubernetes(kubernetes) => Box::new(kubernetes::Kubernetes::new(kubernetes, tls, path, slot)?),
    })
}

#[cfg(not(feature = "discovery"))]
fn open(_: &Discovery, _: &Arc<Slot>) -> Result<Box<dyn Source>, String> {
    Err("this build has no service discovery".to_owned())
}

/// The URL of an endpoint at an address or a name.
#[cfg(feature = "discovery")]
fn url(tls: bool, host: &str, port: u16, path: &str) -> String {
    let scheme = if tls { "wss" } else { "ws" };
    match host.contains(':') {
        true => format!("{scheme}://[{host}]:{port}{path}"),
        false => format!("{scheme}://{host}:{port}{path}"),
    }
}
