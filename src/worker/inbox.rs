//! The only way into a worker from outside: commands over a channel, and a waker that ends its
//! wait. Control sends few commands; answers of services are bounded by the sessions that wait for
//! one.

use super::files::Piece;
use super::token::SlotKey;
use crate::config::Snapshot;
use crate::policy::ask::Answer;
use crate::policy::auth::Who;
use crate::policy::endpoint::Endpoint;
use crate::tls::TlsConfigs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

/// What control tells a worker. `L` is a listening socket of the worker's own.
#[derive(Debug)]
pub enum Command<L> {
    /// A whole new snapshot. `added` are bound and listening; listeners on `removed` end, after
    /// their queue was served; all others are kept as they are.
    Swap { snapshot: Arc<Snapshot>, tls: Arc<TlsConfigs>, added: Vec<Added<L>>, removed: Vec<SocketAddr> },
    /// A service thread answers the question that a pair has asked.
    Answer { to: SlotKey, answer: Answer },
    /// What a pair has asked of a file, by the number of its question.
    Piece { to: SlotKey, number: u32, piece: Piece },
    /// This endpoint gets no new sessions any more: those that it has end as their routes say.
    EndpointDown(Arc<Endpoint>),
    /// The credentials of these sessions do not count any more.
    Revoke(Arc<Who>),
    /// The credentials of these sessions last until then.
    Extend { who: Arc<Who>, until_unix_ms: u64 },
    /// Stop accepting; end each session at a moment of its own within `spread_ms`.
    Drain { spread_ms: u64 },
    /// End everything now.
    Stop,
    /// Panic, for tests of what happens then (`admin.fault_injection`).
    Panic,
}

/// A listener that a reload adds.
#[derive(Debug)]
pub struct Added<L> {
    /// As configured.
    pub addr: SocketAddr,
    pub listener: L,
}

/// The worker's end.
pub type Inbox<L> = Receiver<Command<L>>;

/// Ends a worker's wait in poll.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

/// The sending end of an inbox.
pub struct Outbox<L> {
    sender: Sender<Command<L>>,
    waker: Arc<dyn Wake>,
}

impl<L> Clone for Outbox<L> {
    fn clone(&self) -> Outbox<L> {
        Outbox { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<L> Outbox<L> {
    /// Never blocks. A worker that is gone takes nothing, which is not an error: it has ended.
    pub fn send(&self, command: Command<L>) {
        if self.sender.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

pub fn inbox<L>(waker: Arc<dyn Wake>) -> (Outbox<L>, Inbox<L>) {
    let (sender, receiver) = channel();
    (Outbox { sender, waker }, receiver)
}

/// The workers of the process, as one of them sees them: it can wake those others that have
/// sessions waiting for room at an upstream. By default there are none.
#[derive(Clone, Default)]
pub struct Peers {
    all: Arc<Vec<Peer>>,
    own: usize,
}

#[derive(Default)]
struct Peer {
    waits: AtomicBool,
    /// Known once the worker has been made.
    waker: OnceLock<Arc<dyn Wake>>,
}

impl Peers {
    pub fn new(workers: usize) -> Peers {
        Peers { all: Arc::new((0..workers).map(|_| Peer::default()).collect()), own: 0 }
    }

    /// The same for the worker with this number, whose wait `waker` ends.
    pub fn of(&self, own: usize, waker: Arc<dyn Wake>) -> Peers {
        if let Some(peer) = self.all.get(own) {
            // A worker is made once.
            let _ = peer.waker.set(waker);
        }
        Peers { all: Arc::clone(&self.all), own }
    }

    /// Whether this worker has sessions that wait.
    pub(super) fn set_waiting(&self, waits: bool) {
        if let Some(peer) = self.all.get(self.own) {
            peer.waits.store(waits, SeqCst);
        }
    }

    /// Wakes the other workers.
    pub(super) fn wake_others(&self) {
        let others = self.all.iter().enumerate().filter(|(number, _)| *number != self.own);
        others.filter_map(|(_, peer)| peer.waker.get()).for_each(|waker| waker.wake());
    }

    /// Wakes the other workers with sessions that wait.
    pub(super) fn wake_waiting(&self) {
        let others = self.all.iter().enumerate().filter(|(number, _)| *number != self.own);
        let wait = others.filter(|(_, peer)| peer.waits.load(SeqCst));
        wait.filter_map(|(_, peer)| peer.waker.get()).for_each(|waker| waker.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn only_others_that_wait_are_woken() {
        let (peers, counters) = (Peers::new(3), [const { Counter(AtomicUsize::new(0)) }; 3].map(Arc::new));
        let peers: Vec<_> =
            counters.iter().enumerate().map(|(n, counter)| peers.of(n, Arc::clone(counter) as Arc<dyn Wake>)).collect();
        let woken = || counters.each_ref().map(|counter| counter.0.swap(0, SeqCst));
        peers[0].wake_waiting();
        assert_eq!(woken(), [0; 3]);
        peers[0].set_waiting(true);
        peers[2].set_waiting(true);
        peers[0].wake_waiting();
        assert_eq!(woken(), [0, 0, 1]);
        peers[1].wake_waiting();
        assert_eq!(woken(), [1, 0, 1]);
        peers[2].set_waiting(false);
        peers[1].wake_waiting();
        assert_eq!(woken(), [1, 0, 0]);
        peers[1].wake_others();
        assert_eq!(woken(), [1, 0, 1]);
    }
}
