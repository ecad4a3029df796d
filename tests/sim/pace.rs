//! Sees to it that a direction with a limit on bytes is read no faster than that. Keeps a bucket of
//! its own, of all that the worker has read: what the limit allows is one byte more, and none while
//! that is owed.

use crate::coverage::Met;
use crate::kernel::{CALLEES, Id, Owner};
use crate::peers::Peer;
use crate::schedule::{Opening, PACE_MS};
use crate::world::World;

/// What was read from one socket.
#[derive(Debug, Clone, Copy)]
pub struct Reads {
    sock: Id,
    /// Heads included.
    bytes: usize,
    /// What may still be read, in bytes times the period of the rate; less than 0 is owed.
    tokens: i64,
    /// When that was, in milliseconds of the worker's clock.
    at: u64,
}

impl Reads {
    /// What may be read now.
    fn tokens(&self, allowance: usize, now: u64) -> i64 {
        let gained = (now - self.at) as i64 * allowance as i64;
        (self.tokens + gained).min(allowance as i64 * PACE_MS as i64)
    }
}

impl World {
    /// The worker is about to read from a socket.
    pub fn check_pause(&self, id: Id) {
        let now = self.worker_now;
        let Some((reads, (_, allowance))) = self.reads.iter().find(|reads| reads.sock == id).zip(self.paces(id)) else {
            return;
        };
        assert!(reads.tokens(allowance, now) >= 0, "sock {id} was read at {now} ms, though it is paused");
    }

    /// It has read `n` bytes, or `spliced` them.
    pub fn note_read(&mut self, id: Id, n: usize, spliced: bool) {
        let Some((heads, allowance)) = self.paces(id) else { return };
        let now = self.worker_now;
        let at = self.reads.iter().position(|reads| reads.sock == id).unwrap_or(self.reads.len());
        if at == self.reads.len() {
            self.reads.push(Reads { sock: id, bytes: 0, tokens: allowance as i64 * PACE_MS as i64, at: now });
        }
        let reads = &mut self.reads[at];
        let (before, tokens) = (reads.bytes, reads.tokens(allowance, now));
        reads.bytes += n;
        let frames = reads.bytes.saturating_sub(before.max(heads)) as i64;
        (reads.tokens, reads.at) = (tokens - frames * PACE_MS as i64, now);
        // With the end of a head, frames are read before there is a limit.
        let most = tokens / PACE_MS as i64 + 1;
        assert!(before < heads || frames <= most, "sock {id}: {frames} bytes of {most} were read at {now} ms");
        if reads.tokens < 0 {
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
        self.peers[..self.peers_used].iter().all(calm).then(|| (peer.frames_at(), pace.bytes))
    }
}
