//! What becomes of the credentials of clients while the schedule runs: control revokes some, and
//! some end. And what must hold of their sessions, a part of the oracle: a client that has lost its
//! credentials is gone in time, not before, and not in the middle of a frame; what was read of it
//! before has come out.

use crate::auth::{By, Client, EXPIRED_CODE, HOLDS_MS, REVOKED_CODE, Until, client_of};
use crate::bugs::Bug;
use crate::coverage::Met;
use crate::frames::{CLOSE, read_head};
use crate::kernel::{Id, Micros, Owner, What, trace};
use crate::oracle::{Case, Judgement, boundary, ensure};
use crate::peers::{Peer, Stage};
use crate::schedule::Leg;
use crate::world::World;
use framegate::policy::auth::Who;
use framegate::proto::Side;
use framegate::proto::end::{self, Cause, Party, Phase};
use framegate::worker::inbox::Command;
use std::sync::Arc;

/// What is known of the credentials of a session.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// When the worker accepted its client, in milliseconds of its clock.
    pub accepted_ms: Option<u64>,
    /// When its authorization server had sent its whole answer.
    pub answered: Option<Micros>,
    /// Orders that it is meant by, the first one first.
    orders: Vec<Ordered>,
}

#[derive(Debug, Clone, Copy)]
struct Ordered {
    at_ms: u64,
    /// Its client had its 101.
    open: bool,
    /// Bytes of frames that the worker had read from each side; none where that is not known.
    read: [Option<usize>; 2],
}

impl World {
    /// An administrator revokes what the client of a session has.
    pub fn revoke(&mut self, session: usize) {
        let Some((order, client)) = self.script.sessions[session].order.zip(client_of(&self.script.sessions[session]))
        else {
            return;
        };
        let who = match order.by {
            By::Subject => Some(Who::Subject(client.subject.to_owned())),
            By::Token => client.token.map(|token| Who::Token(token.to_owned())),
            // It is not known before.
            By::Session => self.request_id(session).map(Who::Session),
        };
        let Some(who) = who else { return };
        self.note_order(session, &who);
        let now = self.kernel.now / 1_000;
        let Some(control) = &self.control else { return };
        trace!(self.kernel, "control revokes {who:?}");
        match self.bug {
            Some(Bug::IgnoredRevocation) => return,
            Some(Bug::RevokesOthers) => {
                let other = if client.subject == "ann" { "ben" } else { "ann" };
                control.worker.send(Command::Revoke(Arc::new(Who::Subject(other.to_owned()))));
            }
            _ => {}
        }
        let forgets = matches!(who, Who::Session(_)) || self.bug == Some(Bug::ForgottenRevocation);
        let added = forgets || control.current.revoked.add(who.clone(), now + HOLDS_MS, now).is_ok();
        assert!(added, "there is room for an order");
        control.worker.send(Command::Revoke(Arc::new(who)));
        self.inbox_edge = true;
    }

    /// A backend has read the head of its request: an order may have waited for that.
    pub fn revoke_at_once(&mut self, session: usize, backend: usize) {
        let eager = self.script.sessions[session].order.is_some_and(|order| order.eager);
        if eager && self.peers[backend].facts.head_ok {
            let at = self.kernel.now + self.kernel.rng.below(1_000);
            self.kernel.at(at, What::Revoke(session));
        }
    }

    /// The id that the worker has given the request of a session, as its backend has read it.
    fn request_id(&self, session: usize) -> Option<String> {
        let of_backend = |peer: &&Peer| (peer.session, peer.side) == (Some(session), Some(Side::Upstream));
        let backend = self.peers[..self.peers_used].iter().rev().find(of_backend)?;
        let head = backend.head.windows(4).any(|end| end == b"\r\n\r\n").then_some(&backend.head)?;
        let text = String::from_utf8_lossy(head);
        text.lines().find_map(|line| line.strip_prefix("X-Request-Id: ")).map(str::to_owned)
    }

    fn note_order(&mut self, session: usize, who: &Who) {
        for index in 0..self.script.sessions.len() {
            let client = client_of(&self.script.sessions[index]);
            let is_meant = match who {
                Who::Subject(subject) => client.is_some_and(|client| client.subject == subject),
                Who::Token(token) => client.is_some_and(|client| client.token == Some(token)),
                Who::Session(_) => index == session,
            };
            if !is_meant {
                continue;
            }
            let open = self.client_is_open_on(index).is_some();
            let read = Side::BOTH.map(|side| self.frames_read(index, side));
            self.lives[index].orders.push(Ordered { at_ms: self.kernel.now / 1_000, open, read });
            if open {
                let torn = Side::BOTH.into_iter().any(|side| self.is_inside_frame(index, side, read[side as usize]));
                self.coverage.meet(if torn { Met::RevokedInFrame } else { Met::RevokedInSession });
            } else if self.has_client(index) {
                self.coverage.meet(Met::RevokedInHandshake);
            }
        }
    }

    /// For a planted bug: without the whole frames that `bytes` has behind the frame under way,
    /// where an order was about the session and they are no Close.
    pub fn without_last_words(&self, id: Id, bytes: &[u8]) -> Option<Vec<u8>> {
        let Some(Owner::Peer(peer)) = self.kernel.socks[self.kernel.socks[id].peer?].owner else { return None };
        let peer = self.peers[..self.peers_used].get(peer).filter(|peer| peer.seal.is_none())?;
        let session = peer.session.filter(|_| peer.stage == Stage::Open)?;
        self.lives[session].orders.first().filter(|order| order.open)?;
        let sent = [&peer.rx, self.kernel.socks[peer.sock].rx.bytes(), self.kernel.socks[id].out.bytes()].concat();
        let begun = boundary(&sent, sent.len());
        let left = read_head(&sent[begun..]).map_or(0, |head| head.total() as usize - (sent.len() - begun));
        let behind = bytes.get(left..).filter(|behind| !behind.is_empty() && (left > 0 || begun == sent.len()))?;
        let close = read_head(behind).is_none_or(|head| head.opcode() == CLOSE);
        let whole = boundary(behind, behind.len()) == behind.len();
        (whole && !close).then(|| bytes[..left].to_vec())
    }

    fn peer_of(&self, session: usize, side: Side) -> Option<&Peer> {
        let of = |peer: &&Peer| (peer.session, peer.side) == (Some(session), Some(side));
        self.peers[..self.peers_used].iter().rev().find(of)
    }

    /// How many bytes of frames the worker has read from a side.
    fn frames_read(&self, session: usize, side: Side) -> Option<usize> {
        // Answers to pings of ours are not in its log.
        let plain = |peer: &&Peer| peer.seal.is_none() && self.script.sessions[session].beat.is_none();
        let peer = self.peer_of(session, side).filter(|peer| plain(peer) && peer.stage == Stage::Open)?;
        let worker = self.kernel.socks[peer.sock].peer?;
        let read = self.kernel.socks[worker].rx.passed as usize;
        Some(read.saturating_sub(peer.heads()))
    }

    fn is_inside_frame(&self, session: usize, side: Side, read: Option<usize>) -> bool {
        let Some((peer, read)) = self.peer_of(session, side).zip(read) else { return false };
        self.script.sessions[session].leg != Leg::Opaque && boundary(peer.log(), read) < read
    }
}

impl Case<'_> {
    fn client(&self) -> Option<Client> {
        client_of(self.session)
    }

    /// When it was over, in milliseconds of the worker's clock.
    pub fn ended_ms(&self) -> Option<u64> {
        Some(self.life.accepted_ms? + self.ended.first()?.age_ms)
    }

    /// When its credentials ended: not before the first time.
    fn expires_ms(&self) -> Option<u64> {
        match self.client()?.until {
            Until::Never => None,
            Until::After(seconds) => Some(self.life.answered? / 1_000 + seconds * 1_000),
            Until::At(seconds) => Some(seconds * 1_000),
        }
    }

    /// The age at which an established session has lost its credentials.
    pub fn lost_credentials_at_age(&self) -> Option<u64> {
        let first = self.life.orders.iter().map(|order| order.at_ms).chain(self.expires_ms()).min()?;
        Some(first.saturating_sub(self.life.accepted_ms?))
    }

    /// It may have been closed because of its credentials.
    pub fn may_lose_credentials(&self) -> bool {
        let Some(ended) = self.ended_ms() else { return false };
        let expired = self.expires_ms().is_some_and(|at| at <= ended);
        expired || self.life.orders.iter().any(|order| order.at_ms <= ended)
    }

    /// Of a session that its credentials have ended.
    pub fn judge_credentials(&self, ended: end::End) -> Judgement {
        let now = self.ended_ms().unwrap_or(0);
        let (least, what) = match ended.cause {
            Cause::Revoked => (self.life.orders.first().map(|order| order.at_ms), "revoked"),
            Cause::Expired => (self.expires_ms(), "at an end"),
            // A deadline that has not passed yet.
            Cause::BadCredentials => match self.client().map(|client| client.until) {
                Some(Until::At(_)) => (self.expires_ms(), "at an end"),
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        ensure!(
            least.is_some_and(|least| least <= now),
            "{:?} at {now} ms, credentials are {what} at {least:?}",
            ended.cause
        );
        let (cause, closed) = (ended.cause, ended.phase == Phase::Open);
        ensure!(cause != Cause::Expired || closed, "verdict {ended:?}");
        ensure!(!closed || ended.party == Party::Proxy, "verdict {ended:?}");
        Ok(())
    }

    /// What the worker had read of complete frames when credentials were revoked has come out.
    /// `passed`: so much of what `side` has sent has.
    pub fn judge_last_words(&self, side: Side, log: &[u8], passed: usize) -> Judgement {
        let order = self.life.orders.first().filter(|order| order.open);
        let Some(read) = order.and_then(|order| order.read[side as usize]) else { return Ok(()) };
        let whole = boundary(log, read.min(log.len()));
        ensure!(passed >= whole, "{passed} bytes came out, {whole} were read before the credentials were revoked");
        Ok(())
    }

    /// The code toward the receiver of the direction from `side`.
    pub fn is_code_of_credentials(&self, side: Side, code: u16) -> bool {
        let codes = [(REVOKED_CODE, Cause::Revoked), (EXPIRED_CODE, Cause::Expired)];
        let right = |of: u16| code == if side == Side::Upstream { of } else { 1001 };
        codes.into_iter().any(|(of, cause)| right(of) && self.may_end_by(cause))
    }

    fn may_end_by(&self, cause: Cause) -> bool {
        let now = self.ended_ms().unwrap_or(0);
        match cause {
            Cause::Revoked => self.life.orders.iter().any(|order| order.at_ms <= now),
            _ => self.expires_ms().is_some_and(|at| at <= now),
        }
    }
}
