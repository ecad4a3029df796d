//! `serve faulty`: an echo with faults on request, by counters and not at random. At its end it
//! prints how often each fault occurred, to compare with what a client has noticed.

use super::ListenArgs;
use super::server::{After, Peer, Role, frame, switching};
use framegate::proto::frame::opcode;
use slab::Slab;
use std::collections::HashMap;
use std::str::FromStr;

pub const HELP: &str =
    "Faults of messages (every 100th): drop, duplicate, reorder, corrupt, truncate, delay=TIME, extra
Faults of frames (every 100th message): masked, rsv, opcode, length, oversized-control, fragment-order
Faults of connections (every 100th message): reset, fin, close=CODE, stall
Faults of handshakes (every 10th): refuse=STATUS, accept, extension, subprotocol, garbage, silent, eof
Example: framegate-loadtest serve faulty --fault corrupt --fault drop:every=50 --fault refuse=503:every=3";

#[derive(Debug, Clone, clap::Args)]
pub struct FaultyArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    /// KIND or KIND=VALUE, and its frequency: KIND:every=N
    #[arg(long = "fault", value_name = "KIND", required = true)]
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    kind: Kind,
    every: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Drop,
    Duplicate,
    Reorder,
    Corrupt,
    Truncate,
    Delay(u64),
    Extra,
    /// A whole frame that RFC 6455 forbids.
    Frame(&'static str, &'static [u8]),
    Reset,
    Fin,
    Close(u16),
    Stall,
    Refuse(u16),
    Accept,
    Extension,
    Subprotocol,
    Garbage,
    Silent,
    Eof,
}

const FRAMES: [(&str, &[u8]); 6] = [
    ("masked", &[0x82, 0x81, 0, 0, 0, 0, 1]),
    ("rsv", &[0xc2, 1, 1]),
    ("opcode", &[0x83, 1, 1]),
    ("length", &[0x82, 126, 0, 1, 1]),
    ("oversized-control", &[0x89, 126, 0, 126]),
    ("fragment-order", &[0x80, 1, 1]),
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Drop => "drop",
            Kind::Duplicate => "duplicate",
            Kind::Reorder => "reorder",
            Kind::Corrupt => "corrupt",
            Kind::Truncate => "truncate",
            Kind::Delay(_) => "delay",
            Kind::Extra => "extra",
            Kind::Frame(name, _) => name,
            Kind::Reset => "reset",
            Kind::Fin => "fin",
            Kind::Close(_) => "close",
            Kind::Stall => "stall",
            Kind::Refuse(_) => "refuse",
            Kind::Accept => "accept",
            Kind::Extension => "extension",
            Kind::Subprotocol => "subprotocol",
            Kind::Garbage => "garbage",
            Kind::Silent => "silent",
            Kind::Eof => "eof",
        }
    }

    fn is_of_handshake(self) -> bool {
        use Kind::{Accept, Eof, Extension, Garbage, Refuse, Silent, Subprotocol};
        matches!(self, Refuse(_) | Accept | Extension | Subprotocol | Garbage | Silent | Eof)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (kind, every) = match text.split_once(":every=") {
            Some((kind, every)) => match every.parse::<u64>() {
                Ok(every) if every > 0 => (kind, Some(every)),
                _ => return Err(format!("every={every}: expected a number above 0")),
            },
            None => (text, None),
        };
        let (name, value) = kind.split_once('=').map_or((kind, None), |(name, value)| (name, Some(value)));
        let code = |least: u16, most: u16| match value.and_then(|value| value.parse().ok()) {
            Some(code) if (least..=most).contains(&code) => Ok(code),
            _ => Err(format!("{name}: expected {name}=N with N from {least} to {most}")),
        };
        let kind = match name {
            "drop" => Kind::Drop,
            "duplicate" => Kind::Duplicate,
            "reorder" => Kind::Reorder,
            "corrupt" => Kind::Corrupt,
            "truncate" => Kind::Truncate,
            "delay" => {
                Kind::Delay(crate::run::options::duration("delay", value.unwrap_or_default())?.as_nanos() as u64)
            }
            "extra" => Kind::Extra,
            "reset" => Kind::Reset,
            "fin" => Kind::Fin,
            "close" => Kind::Close(code(1000, 4999)?),
            "stall" => Kind::Stall,
            "refuse" => Kind::Refuse(code(200, 599)?),
            "accept" => Kind::Accept,
            "extension" => Kind::Extension,
            "subprotocol" => Kind::Subprotocol,
            "garbage" => Kind::Garbage,
            "silent" => Kind::Silent,
            "eof" => Kind::Eof,
            _ => match FRAMES.into_iter().find(|(known, _)| *known == name) {
                Some((known, bytes)) => Kind::Frame(known, bytes),
                None => return Err(format!("{name:?} is not a fault; see --help")),
            },
        };
        let default = if kind.is_of_handshake() { 10 } else { 100 };
        Ok(Fault { kind, every: every.unwrap_or(default) })
    }
}

pub struct Faulty {
    faults: Vec<Fault>,
    messages: u64,
    done: HashMap<&'static str, u64>,
    /// Replies that wait, by client: one that is overtaken, or one that is late.
    held: HashMap<usize, Vec<u8>>,
    late: Vec<(u64, usize, u32, Vec<u8>)>,
}

impl Faulty {
    pub fn new(args: &FaultyArgs) -> Faulty {
        let (done, held, late) = (HashMap::new(), HashMap::new(), Vec::new());
        Faulty { faults: args.faults.clone(), messages: 0, done, held, late }
    }

    /// The fault whose turn it is, counted from 1.
    fn pick(&mut self, count: u64, of_handshake: bool) -> Option<Kind> {
        let due = |fault: &&Fault| fault.kind.is_of_handshake() == of_handshake && count.is_multiple_of(fault.every);
        let kind = self.faults.iter().find(due)?.kind;
        *self.done.entry(kind.name()).or_default() += 1;
        Some(kind)
    }
}

impl Role for Faulty {
    fn handshake(&mut self, number: u32, accept: &str) -> (Vec<u8>, After) {
        let with = |line: &str| {
            let mut answer = switching(accept);
            answer.truncate(answer.len() - 2);
            answer.extend_from_slice(format!("{line}\r\n\r\n").as_bytes());
            answer
        };
        match self.pick(u64::from(number) + 1, true) {
            Some(Kind::Refuse(status)) => {
                let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                (answer.into_bytes(), After::End)
            }
            Some(Kind::Accept) => (switching("AAAAAAAAAAAAAAAAAAAAAAAAAAA="), After::End),
            Some(Kind::Extension) => (with("Sec-WebSocket-Extensions: permessage-deflate"), After::End),
            Some(Kind::Subprotocol) => (with("Sec-WebSocket-Protocol: nobody-requested"), After::End),
            Some(Kind::Garbage) => (b"\x00\x01\x02 what?\r\n\r\n".to_vec(), After::End),
            Some(Kind::Silent) => (Vec::new(), After::Silence),
            Some(Kind::Eof) => (Vec::new(), After::End),
            _ => (switching(accept), After::Open),
        }
    }

    fn message(&mut self, peer: &mut Peer, payload: &mut Vec<u8>, text: bool, now: u64) -> After {
        let opcode = if text { opcode::TEXT } else { opcode::BINARY };
        self.messages += 1;
        let kind = self.pick(self.messages, false);
        let reply = frame(opcode, payload);
        match kind {
            Some(Kind::Drop) => {}
            Some(Kind::Duplicate) => peer.send(&[reply.as_slice(), &reply].concat()),
            Some(Kind::Reorder) => {
                // It leaves behind the next one of this client.
                self.held.insert(peer.slot, reply);
                return After::Open;
            }
            Some(Kind::Corrupt) => {
                if let Some(byte) = payload.last_mut() {
                    *byte ^= 1;
                }
                peer.send(&frame(opcode, payload));
            }
            Some(Kind::Truncate) => peer.send(&frame(opcode, &payload[..payload.len().saturating_sub(1)])),
            Some(Kind::Delay(delay)) => {
                self.late.push((now + delay, peer.slot, peer.number, reply));
            }
            Some(Kind::Extra) => peer.send(&[reply, frame(opcode, b"nobody requested")].concat()),
            Some(Kind::Frame(_, bytes)) => peer.send(bytes),
            Some(Kind::Reset) => return After::Reset,
            Some(Kind::Fin) => return After::End,
            Some(Kind::Close(code)) => {
                peer.send(&frame(opcode::CLOSE, &code.to_be_bytes()));
                return After::End;
            }
            Some(Kind::Stall) => return After::Silence,
            _ => peer.send(&reply),
        }
        if let Some(held) = self.held.remove(&peer.slot) {
            peer.send(&held);
        }
        After::Open
    }

    fn due(&self) -> Option<u64> {
        self.late.iter().map(|(due, ..)| *due).min()
    }

    fn on_time(&mut self, peers: &mut Slab<Peer>, now: u64) {
        for (_, slot, number, reply) in self.late.extract_if(.., |(due, ..)| *due <= now) {
            if let Some(peer) = peers.get_mut(slot).filter(|peer| peer.number == number) {
                peer.send(&reply);
            }
        }
    }

    fn gone(&mut self, slot: usize) {
        self.held.remove(&slot);
    }

    fn totals(&self) -> String {
        let mut done: Vec<String> = self.done.iter().map(|(name, count)| format!("{name} {count}")).collect();
        done.sort_unstable();
        format!("{} messages; faults: {}", self.messages, done.join(", "))
    }
}
