//! Resolves names to addresses on a service thread, with getaddrinfo. Refreshes the addresses of
//! all endpoints regularly and stores them in the endpoints themselves, where workers read them;
//! keeps the old ones while resolving fails.

use crate::config::Snapshot;
use crate::policy::endpoint::{Address, Endpoint};
use crate::policy::upstream::Upstream;
use crate::service::{Next, Questions};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// How long a start or a reload waits for the addresses of new names.
pub const FIRST_NAMES: Duration = Duration::from_secs(5);
/// Capacity of the queue of questions; a reload asks one.
pub const QUEUE: usize = 16;
/// Names are resolved again after this time,
const REFRESH: Duration = Duration::from_secs(30);
/// and after this time if one of them failed.
const RETRY: Duration = Duration::from_secs(2);

/// A question to the resolver.
#[derive(Debug)]
pub struct Resolve {
    names: Names,
    /// Notified when each name has been resolved or has failed once.
    done: Option<SyncSender<()>>,
}

#[derive(Debug)]
enum Names {
    /// Resolve the names of all endpoints that these upstreams have, from now on, and no others.
    Of(Vec<Arc<Upstream>>),
    /// Resolve these at once; an upstream is about to have them.
    New(Vec<Arc<Endpoint>>),
}

impl Resolve {
    /// The endpoints of a snapshot that have names. `done` is notified when each was tried once.
    pub fn of(snapshot: &Snapshot, done: Option<SyncSender<()>>) -> Resolve {
        Resolve { names: Names::Of(snapshot.upstreams.clone()), done }
    }

    /// Endpoints that were discovered.
    pub fn new_names(endpoints: Vec<Arc<Endpoint>>, done: SyncSender<()>) -> Resolve {
        Resolve { names: Names::New(endpoints), done: Some(done) }
    }

    pub fn is_empty(&self) -> bool {
        match &self.names {
            Names::Of(upstreams) => named(upstreams).is_empty(),
            Names::New(endpoints) => endpoints.is_empty(),
        }
    }
}

fn named(upstreams: &[Arc<Upstream>]) -> Vec<Arc<Endpoint>> {
    let endpoints = upstreams.iter().flat_map(|upstream| upstream.endpoints());
    endpoints.filter(|endpoint| matches!(endpoint.address, Address::Name(_))).collect()
}

/// The body of the thread. Runs until the last sender of questions is dropped.
pub fn run(questions: &Questions<Resolve>) {
    let (mut upstreams, mut next) = (Vec::new(), None::<Instant>);
    while let Some(question) = questions.next_until(next) {
        let (mut done, mut new) = (None, None);
        if let Next::Question(resolve) = question {
            done = resolve.done;
            match resolve.names {
                Names::Of(of) => upstreams = of,
                Names::New(endpoints) => new = Some(endpoints),
            }
        }
        let all = refresh(new.as_ref().unwrap_or(&named(&upstreams)), lookup);
        // Ignored: a reload may have stopped waiting.
        let _ = done.map(|done| done.try_send(()));
        // New names are in their upstream by the next time.
        let soon = Instant::now() + if all && new.is_none() { REFRESH } else { RETRY };
        next = (new.is_some() || !named(&upstreams).is_empty()).then_some(soon);
    }
}

fn lookup(name: &str) -> std::io::Result<Vec<SocketAddr>> {
    name.to_socket_addrs().map(Iterator::collect)
}

/// Resolves each name once. Whether all of them have addresses.
fn refresh(endpoints: &[Arc<Endpoint>], mut lookup: impl FnMut(&str) -> std::io::Result<Vec<SocketAddr>>) -> bool {
    let mut all = true;
    for endpoint in endpoints {
        let Address::Name(name) = &endpoint.address else { continue };
        match lookup(name) {
            Ok(addresses) if !addresses.is_empty() => {
                if endpoint.set_resolved(addresses) {
                    ::log::debug!("{name} has new addresses");
                }
                continue;
            }
            Ok(_) => {}
            Err(error) if endpoint.is_resolved() => {
                ::log::warn!("cannot resolve {name}: {error}; keeping its old addresses");
            }
            Err(error) => ::log::warn!("cannot resolve {name}: {error}; it has no address yet"),
        }
        all = false;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::endpoint::Target;
    use crate::service::queue;
    use std::io::{Error, ErrorKind};
    use std::sync::mpsc::sync_channel;

    fn endpoint(name: &str) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(format!("ws://{name}"), Address::Name(name.to_owned()), false, String::new()))
    }

    #[test]
    fn old_addresses_are_kept_where_resolving_fails() {
        let addresses: Vec<SocketAddr> = vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()];
        let endpoints = [endpoint("a:1"), endpoint("b:1")];
        assert!(refresh(&endpoints, |_| Ok(addresses.clone())));
        assert!(!refresh(&endpoints, |_| Err(Error::from(ErrorKind::NotFound))));
        assert!(!refresh(&endpoints, |_| Ok(Vec::new())));
        for endpoint in &endpoints {
            assert_eq!(endpoint.target(1), Some(Target::Tcp(addresses[1])));
        }
        assert!(refresh(&endpoints, |_| Ok(addresses[..1].to_vec())));
        assert_eq!(endpoints[0].target(1), None);
    }

    #[test]
    fn every_question_is_answered_until_the_last_asker_is_gone() {
        let (asker, questions) = queue(QUEUE);
        let (done, told) = sync_channel(1);
        let thread = std::thread::spawn(move || run(&questions));
        let local = endpoint("localhost:80");
        asker.ask(Resolve::new_names(vec![Arc::clone(&local)], done.clone())).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(local.target(0), Some(Target::Tcp(addr)) if addr.ip().is_loopback() && addr.port() == 80));
        asker.ask(Resolve { names: Names::Of(Vec::new()), done: Some(done) }).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        drop(asker);
        thread.join().unwrap();
    }
}
