//! Limits that several hosts share through Redis, a service thread. Handshakes look at numbers in
//! memory (`policy::keyed`); this thread keeps them fresh: each interval it tells Redis what
//! clients have here, and stores what they have on other hosts. It takes clients over by a bounded
//! queue, and lets go of them when they have nothing anywhere. Nothing waits for it.
//!
//! `exchange.rs` is what the thread does, `redis.rs` what Redis does for it (feature `redis`),
//! `status.rs` what metrics know of it.

mod exchange;
#[cfg(feature = "redis")]
mod redis;
mod status;

pub use status::Status;

use crate::config::{Redis, Snapshot};
use crate::policy::keyed::{Notify, SharedKey};
use crate::service::{Asker, Next, Questions};
use crate::worker::sys::{RandomPool, now_ms};
use arc_swap::ArcSwapOption;
use exchange::{Exchanger, Store};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Clients that wait to be taken over. Beyond that they count here alone until their next
/// handshake.
pub const QUEUE: usize = 8_192;

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Share this client.
    Share(SharedKey),
    /// The configuration may have changed.
    Configure,
    /// Take back what this host has told, and report that.
    Leave(SyncSender<()>),
}

/// How control reaches the thread.
#[derive(Debug, Clone)]
pub struct Sharing {
    orders: Asker<Order>,
    state: Arc<State>,
}

/// What thread and control have in common.
#[derive(Debug, Default)]
pub struct State {
    config: ArcSwapOption<Redis>,
    status: Status,
}

impl Sharing {
    pub fn new(orders: Asker<Order>, state: Arc<State>) -> Sharing {
        Sharing { orders, state }
    }

    /// Shares the limits of a snapshot from now on.
    pub fn set(&self, snapshot: &Snapshot) {
        self.state.config.store(snapshot.redis.clone());
        let (orders, state) = (self.orders.clone(), Arc::clone(&self.state));
        let notify = Notify(Arc::new(move |key| {
            let taken = orders.ask(Order::Share(key)).is_ok();
            if !taken {
                state.status.refused();
            }
            taken
        }));
        let notify = snapshot.redis.is_some().then_some(&notify);
        for route in snapshot.routes.entries().iter().map(|entry| &entry.route) {
            let limits = [&route.by_address, &route.by_identity];
            limits.into_iter().flatten().for_each(|keyed| keyed.share(&route.name, notify));
        }
        // Ignored: where the queue is full, the thread is awake and looks anyway.
        let _ = self.orders.ask(Order::Configure);
    }

    /// Takes back what this host has told others. Waits a limited time.
    pub fn leave(&self, patience: Duration) {
        let (done, told) = sync_channel(1);
        if self.state.config.load().is_some() && self.orders.ask(Order::Leave(done)).is_ok() {
            // If it takes longer, others forget this host after host_timeout.
            let _ = told.recv_timeout(patience);
        }
    }

    /// `None`: nothing is shared.
    pub fn status(&self) -> Option<&Status> {
        self.state.config.load().is_some().then_some(&self.state.status)
    }
}

/// The body of the thread. Runs until the last asker is dropped.
pub fn run(orders: &Questions<Order>, state: &State) {
    let mut pool = RandomPool::default();
    let mut random = || {
        let mut bytes = [0; 8];
        pool.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    let host = format!("{:016x}", random());
    let mut current: Option<Arc<Redis>> = None;
    let mut exchanger = Exchanger::new(host, &state.status, Box::new(random));
    loop {
        let Some(next) = orders.next_until(exchanger.due()) else { return };
        let mut left = QUEUE;
        let mut next = if let Next::Question(order) = next { Some(order) } else { None };
        while let Some(order) = next {
            match order {
                Order::Share(key) => exchanger.add(key, Instant::now()),
                Order::Configure => {}
                Order::Leave(done) => {
                    exchanger.leave(now_ms());
                    // Ignored: nothing waits any more.
                    let _ = done.send(());
                }
            }
            left -= 1;
            next = if left > 0 { orders.try_next(Duration::ZERO) } else { None };
        }
        let config = state.config.load_full();
        if config != current {
            exchanger.configure(config.as_deref(), config.as_ref().and_then(open), Instant::now());
            current = config;
        }
        exchanger.on_tick(Instant::now(), now_ms());
    }
}

#[cfg(feature = "redis")]
fn open(config: &Arc<Redis>) -> Option<Box<dyn Store>> {
    Some(Box::new(redis::RedisStore::new(Arc::clone(config))))
}

/// A configuration with `[redis]` is refused.
#[cfg(not(feature = "redis"))]
fn open(_: &Arc<Redis>) -> Option<Box<dyn Store>> {
    None
}
