//! `serve slow`: an echo with delayed replies and a limited read rate.

use super::ListenArgs;
use super::server::{After, Peer, Role, frame};
use crate::run::options;
use fastrand::Rng;
use framegate::proto::frame::opcode;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
pub struct SlowArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Delay of each reply
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = options::time)]
    delay: Duration,
    /// Random extra delay, up to this
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = options::time)]
    jitter: Duration,
    /// Bytes per second read from each client [default: all]
    #[arg(long, value_name = "SIZE", value_parser = super::push::size)]
    read_rate: Option<usize>,
}

/// Due, slot and number of the client, frame.
type Late = (u64, usize, u32, Vec<u8>);

pub struct Slow {
    delay: Duration,
    jitter: Duration,
    read_rate: Option<usize>,
    random: Rng,
    replies: BinaryHeap<Reverse<Late>>,
    /// The last reply of each client is not overtaken by the next.
    last: std::collections::HashMap<usize, u64>,
    sent: u64,
}

impl Slow {
    pub fn new(args: &SlowArgs) -> Slow {
        let SlowArgs { delay, jitter, read_rate, .. } = args.clone();
        let (replies, last) = (BinaryHeap::new(), std::collections::HashMap::new());
        Slow { delay, jitter, read_rate, random: Rng::with_seed(1), replies, last, sent: 0 }
    }
}

impl Role for Slow {
    fn message(&mut self, peer: &mut Peer, payload: &mut Vec<u8>, text: bool, now: u64) -> After {
        let late = self.delay + self.jitter.mul_f64(self.random.f64());
        let last = self.last.entry(peer.slot).or_default();
        *last = (now + late.as_nanos() as u64).max(*last + 1);
        let reply = frame(if text { opcode::TEXT } else { opcode::BINARY }, payload);
        self.replies.push(Reverse((*last, peer.slot, peer.number, reply)));
        After::Open
    }

    fn pause(&self, bytes: usize) -> u64 {
        self.read_rate.map_or(0, |rate| bytes as u64 * 1_000_000_000 / rate.max(1) as u64)
    }

    fn due(&self) -> Option<u64> {
        self.replies.peek().map(|Reverse((due, ..))| *due)
    }

    fn on_time(&mut self, peers: &mut Slab<Peer>, now: u64) {
        while self.due().is_some_and(|due| due <= now) {
            let Some(Reverse((_, slot, number, reply))) = self.replies.pop() else { return };
            if let Some(peer) = peers.get_mut(slot).filter(|peer| peer.number == number) {
                peer.send(&reply);
                self.sent += 1;
            }
        }
    }

    fn gone(&mut self, slot: usize) {
        self.last.remove(&slot);
    }

    fn totals(&self) -> String {
        format!("{} replies sent", self.sent)
    }
}
