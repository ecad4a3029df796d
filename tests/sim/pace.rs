//! Sees to it that a paused direction is not read. Counts for itself what the worker has read, and
//! so when an allowance was surely used up; bytes that the worker may hold back are left out.

use crate::coverage::Met;
use crate::kernel::{CALLEES, Id, Owner};
use crate::peers::Peer;
use crate::schedule::{Opening, PAUSE_MS};
use crate::world::World;

/// A frame header that is held back is at most this long.
const HELD_BACK: usize = 13;

/// What was read from one socket.
#[derive(Debug, Clone, Copy)]
pub struct Reads {
    sock: Id,
    bytes: usize,
    /// Not to be read before then, in milliseconds of the worker's clock.
    paused_until: u64,
}

impl World {
    /// The worker is about to read from a socket.
    pub fn check_pause(&self, id: Id) {
        let now = self.worker_now;
        let paused = self.reads.iter().find(|reads| reads.sock == id && reads.paused_until > now);
        if let Some(reads) = paused.filter(|_| self.paces(id).is_some()) {
            panic!("sock {id} was read at {now} ms, though it is paused until {} ms", reads.paused_until);
        }
    }

    /// It has read `n` bytes, or `spliced` them.
    pub fn note_read(&mut self, id: Id, n: usize, spliced: bool) {
        let Some((heads, allowance)) = self.paces(id) else { return };
        let at = self.reads.iter().position(|reads| reads.sock == id).unwrap_or(self.reads.len());
        if at == self.reads.len() {
            self.reads.push(Reads { sock: id, bytes: 0, paused_until: 0 });
        }
        let allowances = |bytes: usize| bytes.saturating_sub(heads) / allowance;
        let reads = &mut self.reads[at];
        let before = allowances(reads.bytes);
        reads.bytes += n;
        if allowances(reads.bytes.saturating_sub(HELD_BACK)) > before {
            reads.paused_until = self.worker_now + PAUSE_MS;
            self.coverage.meet(if spliced { Met::PausedBySplice } else { Met::Paused });
        }
    }

    /// Bytes of heads that come from this socket, and its allowance, if it belongs to a paced
    /// session in which nothing but messages has happened.
    fn paces(&self, id: Id) -> Option<(usize, usize)> {
        let Some(Owner::Peer(peer)) = self.kernel.socks[self.kernel.socks[id].peer?].owner else { return None };
        let peer = self.peers[..self.peers_used].get(peer).filter(|_| peer < CALLEES)?;
        let session = self.script.sessions.get(peer.session?)?;
        let calm = |other: &Peer| other.session != peer.session || !other.facts.acted && other.seal.is_none();
        let quiet = |n: usize| session.parts[n].urgent_at.is_none() && session.parts[n].deaf_after.is_none();
        let pace = session.pace.filter(|_| session.opening == Opening::Good && quiet(0) && quiet(1))?;
        self.peers[..self.peers_used].iter().all(calm).then(|| (peer.heads(), pace.bytes))
    }
}
