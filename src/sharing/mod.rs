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
    status: Arc<Status>,
}

impl Sharing {
    pub fn new(orders: Asker<Order>, state: Arc<State>) -> Sharing {
        Sharing { orders, state }
    }

    /// Shares the limits of a snapshot from now on.
    pub fn set(&self, snapshot: &Snapshot) {
        self.state.config.store(snapshot.redis.clone());
        let (orders, state) = (self.orders.clone(), Arc::clone(&self.state));
        let hand_over = move |key| {
            let taken = orders.ask(Order::Share(key)).is_ok();
            if !taken {
                state.status.refused();
            }
            taken
        };
        let believed_ms = snapshot.redis.as_ref().map_or(0, |redis| redis.host_timeout_ms);
        let notify = Notify { hand_over: Arc::new(hand_over), believed_ms };
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

    /// Redis answers, and limits are shared.
    pub fn is_up(&self) -> bool {
        let config = self.state.config.load();
        config.as_ref().is_some_and(|config| self.state.status.is_up(now_ms(), config.host_timeout_ms))
    }

    /// `None`: nothing is shared.
    pub fn status(&self) -> Option<&Status> {
        self.state.config.load().is_some().then_some(self.state.status.as_ref())
    }
}

/// The thread. What it knows survives a panic.
pub struct Thread {
    state: Arc<State>,
    exchanger: Exchanger,
    current: Option<Arc<Redis>>,
}

impl Thread {
    pub fn new(state: Arc<State>) -> Thread {
        let mut pool = RandomPool::default();
        let mut random = move || {
            let mut bytes = [0; 8];
            pool.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        let host = format!("{:016x}", random());
        let exchanger = Exchanger::new(host, Arc::clone(&state.status), Box::new(random));
        Thread { state, exchanger, current: None }
    }

    /// Its body. Runs until the last asker is dropped.
    pub fn run(&mut self, orders: &Questions<Order>) {
        while let Some(next) = orders.next_until(self.exchanger.due()) {
            let mut next = if let Next::Question(order) = next { Some(order) } else { None };
            // Those that have come meanwhile are taken before anything is exchanged.
            for _ in 0..QUEUE {
                let Some(order) = next else { break };
                self.take(order);
                next = orders.try_next(Duration::ZERO);
            }
            if let Some(order) = next {
                self.take(order);
            }
            let config = self.state.config.load_full();
            if config != self.current {
                let store = config.as_ref().and_then(open);
                self.exchanger.configure(config.as_deref(), store, Instant::now());
                self.current = config;
            }
            self.exchanger.on_tick(Instant::now(), now_ms());
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Share(key) => self.exchanger.add(key, Instant::now()),
            Order::Configure => {}
            Order::Leave(done) => {
                self.exchanger.leave(now_ms());
                // Ignored: nothing waits any more.
                let _ = done.send(());
            }
        }
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
