//! `serve sink`: reads everything and replies only to pings and Closes; on request it checks
//! the stamps.

use super::ListenArgs;
use super::server::{After, Peer, Role, frame};
use crate::run::stamp::Stamp;
use framegate::proto::frame::opcode;
use std::collections::HashMap;

#[derive(Debug, Clone, clap::Args)]
pub struct SinkArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Check the stamp of each message, its number and checksum; close with 1008 where one is wrong
    #[arg(long)]
    verify: bool,
}

pub struct Sink {
    verify: bool,
    /// What comes next of each client.
    next: HashMap<usize, u64>,
    messages: u64,
    bytes: u64,
    wrong: u64,
}

impl Sink {
    pub fn new(args: &SinkArgs) -> Sink {
        Sink { verify: args.verify, next: HashMap::new(), messages: 0, bytes: 0, wrong: 0 }
    }
}

impl Role for Sink {
    fn message(&mut self, peer: &mut Peer, payload: &mut Vec<u8>, text: bool, _now: u64) -> After {
        self.messages += 1;
        self.bytes += payload.len() as u64;
        if !self.verify {
            return After::Open;
        }
        let next = self.next.entry(peer.slot).or_default();
        match Stamp::read(payload, text) {
            Some(stamp) if stamp.sequence == *next => {
                *next += 1;
                After::Open
            }
            read => {
                self.wrong += 1;
                let found =
                    read.map_or("no stamp, or a wrong byte".into(), |stamp| format!("number {}", stamp.sequence));
                eprintln!("client {}: expected message {next}, got {found}", peer.number);
                peer.send(&frame(opcode::CLOSE, &1008u16.to_be_bytes()));
                After::End
            }
        }
    }

    fn gone(&mut self, slot: usize) {
        self.next.remove(&slot);
    }

    fn totals(&self) -> String {
        format!("{} messages, {} bytes, {} wrong", self.messages, self.bytes, self.wrong)
    }
}
