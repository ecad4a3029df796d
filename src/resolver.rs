//! Names to addresses, off the loop: one thread with getaddrinfo. All addresses of each name, asked for again and
//! again; where that fails the old ones stay. Knows no worker: it hands a whole directory to whoever asked.

use crate::config::Snapshot;
use crate::policy::balance::Place;
use crate::worker::inbox::Directory;
use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a start or a reload waits for the first answers to its names.
pub const FIRST_NAMES: Duration = Duration::from_secs(5);
/// Names are asked for again after so long,
const REFRESH: Duration = Duration::from_secs(30);
/// and after so long where the last answer was a failure.
const RETRY: Duration = Duration::from_secs(2);

/// The names of a snapshot, `host:port`.
pub fn names(snapshot: &Snapshot) -> BTreeSet<String> {
    let places = snapshot.groups.iter().flat_map(|group| &group.endpoints).map(|endpoint| &endpoint.place);
    let name = |place: &Place| match place {
        Place::Name(name) => Some(name.clone()),
        Place::Tcp(_) | Place::Unix(_) => None,
    };
    places.filter_map(name).collect()
}

/// Resolves until `wanted` hangs up. Each set of names that comes in replaces the one before; `publish` gets the whole
/// directory whenever it has changed, and once for each new set.
pub fn run(wanted: &Receiver<BTreeSet<String>>, mut publish: impl FnMut(Arc<Directory>)) {
    let (mut names, mut directory, mut next) = (BTreeSet::new(), Directory::new(), None::<Instant>);
    loop {
        let news = match next {
            _ if names.is_empty() => wanted.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(next) => wanted.recv_timeout(next.saturating_duration_since(Instant::now())),
            None => wanted.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let fresh = match news {
            Ok(more) => {
                names = more;
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (changed, failed) = refresh(&names, &mut directory, lookup);
        if changed || fresh {
            publish(Arc::new(directory.clone()));
        }
        next = Some(Instant::now() + if failed { RETRY } else { REFRESH });
    }
}

fn lookup(name: &str) -> std::io::Result<Vec<SocketAddr>> {
    name.to_socket_addrs().map(Iterator::collect)
}

/// Asks for each name. Whether anything has changed, and whether anything has failed.
fn refresh(
    names: &BTreeSet<String>,
    directory: &mut Directory,
    mut lookup: impl FnMut(&str) -> std::io::Result<Vec<SocketAddr>>,
) -> (bool, bool) {
    let before = directory.len();
    directory.retain(|name, _| names.contains(name));
    let (mut changed, mut failed) = (directory.len() != before, false);
    for name in names {
        match lookup(name) {
            Ok(addresses) if !addresses.is_empty() => {
                let addresses: Arc<[SocketAddr]> = addresses.into();
                changed |= directory.insert(name.clone(), Arc::clone(&addresses)) != Some(addresses);
            }
            Ok(_) => failed = true,
            Err(error) => {
                ::log::warn!("cannot resolve {name}: {error}; {}", what_stays(directory.get(name)));
                failed = true;
            }
        }
        // Asked for and not found is an answer too: whoever waits for it need not wait longer.
        changed |= !directory.contains_key(name);
        directory.entry(name.clone()).or_default();
    }
    (changed, failed)
}

fn what_stays(old: Option<&Arc<[SocketAddr]>>) -> &'static str {
    if old.is_some_and(|old| !old.is_empty()) { "its old addresses stay" } else { "it has no address yet" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};
    use std::sync::mpsc::channel;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn old_answers_are_kept_where_resolving_fails_and_dropped_with_their_name() {
        let first: Vec<SocketAddr> = vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()];
        let mut directory = Directory::new();
        assert_eq!(refresh(&set(&["a:1", "b:1"]), &mut directory, |_| Ok(first.clone())), (true, false));
        assert_eq!(refresh(&set(&["a:1", "b:1"]), &mut directory, |_| Ok(first.clone())), (false, false));
        let gone = |_: &str| Err(Error::from(ErrorKind::NotFound));
        assert_eq!(refresh(&set(&["a:1", "b:1"]), &mut directory, gone), (false, true));
        assert_eq!(directory["a:1"][..], first);
        assert_eq!(refresh(&set(&["a:1"]), &mut directory, |_| Ok(Vec::new())), (true, true));
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn it_answers_every_new_set_and_ends_when_nobody_asks() {
        let (ask, wanted) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || run(&wanted, |directory| tell.send(directory).unwrap()));
        ask.send(set(&["localhost:80"])).unwrap();
        let directory = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(directory["localhost:80"].iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
        ask.send(set(&[])).unwrap();
        assert!(told.recv_timeout(Duration::from_secs(20)).unwrap().is_empty());
        drop(ask);
        thread.join().unwrap();
    }
}
