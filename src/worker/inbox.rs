//! The only way into a worker from outside: commands over a channel, and a waker that ends its
//! wait. Control sends few commands; answers of services are bounded by the sessions that wait for
//! one.

use super::token::SlotKey;
use crate::config::Snapshot;
use crate::policy::ask::Answer;
use crate::policy::endpoint::Endpoint;
use crate::tls::TlsConfigs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What control tells a worker. `L` is a listening socket of the worker's own.
#[derive(Debug)]
pub enum Command<L> {
    /// A whole new snapshot. `added` are bound and listening; listeners on `removed` end, after
    /// their queue was served; all others are kept as they are.
    Swap { snapshot: Arc<Snapshot>, tls: Arc<TlsConfigs>, added: Vec<Added<L>>, removed: Vec<SocketAddr> },
    /// A service thread answers the question that a pair has asked.
    Answer { to: SlotKey, answer: Answer },
    /// This endpoint gets no new sessions any more: those that it has end as their routes say.
    EndpointDown(Arc<Endpoint>),
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
