//! `serve push`: sends stamped messages to every client, in an open loop. What a client does not
//! take is queued up to a limit; above it messages are skipped, and their numbers with them, so
//! that the client sees the loss.

use super::ListenArgs;
use super::server::{Peer, Role, frame};
use crate::run::group::Clock;
use crate::run::stamp::{self, Stamp};
use framegate::proto::frame::opcode;
use slab::Slab;

/// Messages that one client gets in a turn at `--rate max`.
const BURST: usize = 64;
const SECOND: f64 = 1e9;

#[derive(Debug, Clone, clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Messages per second to each client, or max for as many as each accepts
    #[arg(long, value_name = "N", default_value = "1")]
    rate: String,
    /// Payload of a message
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = size)]
    size: usize,
    /// Text messages instead of binary ones
    #[arg(long)]
    text: bool,
    /// All clients at the same moment, as a fan-out does, instead of one after the other
    #[arg(long)]
    together: bool,
    /// Close with 1000 after this number of messages to a client
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Bytes queued for a client that does not accept them
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    queue: usize,
}

pub fn size(text: &str) -> Result<usize, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text);
    size.ok()
        .filter(|size| *size <= 64 << 20)
        .map(|size| size as usize)
        .ok_or("expected 64, 1KiB, ... up to 64MiB".into())
}

pub struct Push {
    /// None: as fast as each client accepts them.
    rate: Option<f64>,
    together: bool,
    text: bool,
    count: Option<u64>,
    queue: usize,
    /// A whole frame; only the stamp differs.
    wire: Vec<u8>,
    head_len: usize,
    rest_crc: u32,
    clock: Option<Clock>,
    /// Slots of the clients that are open, and whose turn it is.
    open: Vec<usize>,
    turn: usize,
    next: f64,
    sent: u64,
    skipped: u64,
}

impl Push {
    pub fn new(args: &PushArgs) -> Result<Push, String> {
        let rate = match args.rate.as_str() {
            "max" => None,
            text => match text.parse::<f64>() {
                Ok(rate) if rate > 0.0 && rate <= 1e6 => Some(rate),
                _ => return Err(format!("--rate {text}: expected a number above 0, at most 1000000, or max")),
            },
        };
        let payload = vec![b'x'; args.size];
        let wire = frame(if args.text { opcode::TEXT } else { opcode::BINARY }, &payload);
        Ok(Push {
            rate,
            together: args.together,
            text: args.text,
            count: args.count,
            queue: args.queue,
            head_len: wire.len() - args.size,
            rest_crc: crc32fast::hash(payload.get(stamp::len(args.text)..).unwrap_or(&[])),
            wire,
            clock: None,
            open: Vec::new(),
            turn: 0,
            next: 0.0,
            sent: 0,
            skipped: 0,
        })
    }

    fn send(&mut self, peer: &mut Peer, intended: u64) {
        if peer.backlog() > self.queue {
            self.skipped += 1;
            peer.count += 1;
            return;
        }
        let time_ns = self.clock.map_or(0, |clock| clock.unix_ns(intended));
        let stamp = Stamp { source: peer.number, sequence: peer.count, time_ns };
        stamp.write(&mut self.wire[self.head_len..], self.text, self.rest_crc);
        peer.send(&self.wire);
        peer.count += 1;
        self.sent += 1;
        if self.count.is_some_and(|count| peer.count >= count) {
            peer.send(&frame(opcode::CLOSE, &1000u16.to_be_bytes()));
            peer.end();
            self.open.retain(|slot| *slot != peer.slot);
        }
    }

    fn send_all(&mut self, peers: &mut Slab<Peer>, intended: u64) {
        for slot in self.open.clone() {
            if let Some(peer) = peers.get_mut(slot) {
                self.send(peer, intended);
            }
        }
    }

    fn flood(&mut self, peer: &mut Peer, now: u64) {
        for _ in 0..BURST {
            if peer.backlog() > 0 || !self.open.contains(&peer.slot) {
                return;
            }
            self.send(peer, now);
        }
    }
}

impl Role for Push {
    fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    fn opened(&mut self, peer: &mut Peer, now: u64) {
        if self.open.is_empty() {
            self.next = now as f64;
        }
        self.open.push(peer.slot);
    }

    fn due(&self) -> Option<u64> {
        (!self.open.is_empty()).then_some(if self.rate.is_some() { self.next as u64 } else { 0 })
    }

    fn on_time(&mut self, peers: &mut Slab<Peer>, now: u64) {
        let Some(rate) = self.rate else {
            for slot in self.open.clone() {
                if let Some(peer) = peers.get_mut(slot) {
                    self.flood(peer, now);
                }
            }
            return;
        };
        let mut budget = BURST;
        while !self.open.is_empty() && self.next as u64 <= now && budget > 0 {
            budget -= 1;
            let intended = self.next as u64;
            if self.together {
                self.send_all(peers, intended);
                self.next += SECOND / rate;
                continue;
            }
            self.turn = (self.turn + 1) % self.open.len();
            if let Some(peer) = peers.get_mut(self.open[self.turn]) {
                self.send(peer, intended);
            }
            self.next += SECOND / rate / self.open.len().max(1) as f64;
        }
    }

    fn gone(&mut self, slot: usize) {
        self.open.retain(|open| *open != slot);
    }

    fn totals(&self) -> String {
        format!("{} messages sent, {} skipped", self.sent, self.skipped)
    }
}
