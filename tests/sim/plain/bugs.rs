//! Planted bugs of plain HTTP, between the worker and its kernel: what it reads and sends is
//! changed so that it does what a proxy with the mistake does.

use super::message::Framing;
use super::stage::is_request;
use super::{Ask, Plan};
use crate::bugs::Bug;
use crate::kernel::{Id, Owner, PLAIN_SERVERS, PLAINS, Sys};
use crate::world::World;

const LENGTH: &[u8] = b"\r\nContent-Length: ";
const UNREAD: &[u8] = b"\r\nXontent-Length: ";

/// Replaces the first `from` by `to`, which is as long.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    if let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + from.len()].copy_from_slice(to);
    }
}

/// The head that these bytes begin with.
fn head_of(bytes: &mut [u8]) -> &mut [u8] {
    let n = bytes.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| is_request(bytes));
    &mut bytes[..n.unwrap_or(0)]
}

/// The requests of `plan` that `bytes` has, by their paths.
fn asks<'a>(plan: &'a Plan, bytes: &'a [u8]) -> impl Iterator<Item = (String, &'a Ask)> {
    let all = plan.clients.iter().enumerate().flat_map(|(client, script)| {
        script.asks.iter().enumerate().map(move |(nth, ask)| (Ask::path(client, nth), ask))
    });
    all.filter(|(path, _)| bytes.windows(path.len()).any(|window| window == path.as_bytes()))
}

impl World {
    fn plain_peer_of(&self, id: Id) -> Option<usize> {
        match self.kernel.socks[self.kernel.socks[id].peer?].owner {
            Some(Owner::Peer(peer)) if peer >= PLAINS => Some(peer),
            _ => None,
        }
    }

    /// Falsifies what the worker has read.
    pub fn falsify_read(&self, bug: Bug, id: Id, got: Sys<usize>, buf: &mut [u8]) -> Sys<usize> {
        let Some((peer, plan)) = self.plain_peer_of(id).zip(self.script.plain.as_ref()) else { return got };
        let of_server = peer >= PLAIN_SERVERS;
        match (bug, got) {
            (Bug::ResetIsEnd, Err(libc::ECONNRESET)) if of_server => return Ok(0),
            (Bug::UnheardClose, Ok(n)) if of_server => {
                replace(&mut buf[..n], b"Connection: close", b"Connection: clear")
            }
            (Bug::ForgottenBody, Ok(n)) if !of_server => replace(head_of(&mut buf[..n]), LENGTH, UNREAD),
            (Bug::SentTwice, Ok(n)) if !of_server => replace(&mut buf[..n], b"ADD /plain/", b"PUT /plain/"),
            (Bug::WrongOrder, Ok(n)) if !of_server => swap(plan, &mut buf[..n]),
            _ => {}
        }
        got
    }

    /// What a worker with this mistake sends to a server, in one piece.
    pub fn falsify_write(&self, id: Id, bytes: &[u8]) -> Option<Vec<u8>> {
        let bug = self.bug.filter(|bug| matches!(bug, Bug::ForgottenBody | Bug::SentTwice))?;
        let plan = self.script.plain.as_ref().filter(|_| self.plain_server_of(id).is_some())?;
        let mut bytes = bytes.to_vec();
        match bug {
            Bug::ForgottenBody => replace(head_of(&mut bytes), UNREAD, LENGTH),
            _ if asks(plan, &bytes).any(|(_, ask)| ask.method == "ADD") => {
                replace(&mut bytes, b"PUT /plain/", b"ADD /plain/");
            }
            _ => {}
        }
        Some(bytes)
    }
}

/// Two requests that are alike change places.
fn swap(plan: &Plan, bytes: &mut [u8]) {
    let alike = |ask: &Ask| ask.method == "GET" && ask.body.framing == Framing::None && ask.persists() && !ask.http10;
    let found: Vec<String> = asks(plan, bytes).filter(|(_, ask)| alike(ask)).map(|(path, _)| path).collect();
    let [first, second, ..] = found.as_slice() else { return };
    let numbers = [first, second].map(|path| path.trim_start_matches("/plain/").to_owned());
    for text in ["/plain/", "X-Ask: "] {
        let [a, b] = [0, 1].map(|at| format!("{text}{}", numbers[at]));
        let hole = format!("{text}__");
        for (from, to) in [(&a, &hole), (&b, &a), (&hole, &b)] {
            replace(bytes, from.as_bytes(), to.as_bytes());
        }
    }
}
