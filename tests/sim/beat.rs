//! Heartbeats: what is drawn for a session, and how a peer tells pings of the worker's from those
//! of the other peer, and answers them. Its pongs are not part of its plan: the other peer must not
//! get them.

use crate::frames::{FIN, Frame, PING, PONG, read_head};
use crate::kernel::{Kernel, Micros};
use crate::peers::{Peer, Stage};
use crate::rng::Rng;
use crate::schedule::{End, Finish, Leg, Opening, Part, Session};
use framegate::proto::Side;
use std::collections::VecDeque;

/// The longest rest of a peer: it must be shorter than interval and timeout together, half an
/// interval early.
pub const REST_MS: u64 = 3_000;
/// The longest that a peer takes for a pong, below the timeout by more than all pauses and jumps of
/// the clock together.
const LATE_MS: u64 = 1_000;
pub const TIMEOUT_MS: u64 = 4_900;
const INTERVALS_MS: [u64; 3] = [5_000, 7_000, 60_000];

/// The heartbeat of a session's route, and how its peers take it.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// Of the client and of the backend; 0 for none.
    pub intervals_ms: [u64; 2],
    answers: [Answer; 2],
    /// Where each peer rests, with nothing to say for a while: its offset in the plan, how long.
    rests: [Option<(usize, u64)>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    AtOnce,
    Late,
    /// Each pong again, behind the next one.
    Again,
}

/// Draws the heartbeat of a session. One in which nothing happens any more may turn into one with a
/// peer that is gone.
pub fn draw(rng: &mut Rng, session: &mut Session) {
    let idle = session.end == End::Idle;
    // A shadow gets the pings of its upstream, too; its judge knows only of what the peers say.
    let alone = session.shadow.is_none();
    let open = session.opening == Opening::Good && session.leg != Leg::Opaque && alone;
    if !open || !(rng.one_in(6) || idle && rng.one_in(2)) {
        return;
    }
    let mut intervals_ms = [rng.pick(&INTERVALS_MS), rng.pick(&INTERVALS_MS)];
    if rng.one_in(4) {
        intervals_ms[rng.size(0, 1)] = 0;
    }
    let side = rng.pick(&Side::BOTH);
    if idle && intervals_ms[side as usize] > 0 && rng.one_in(2) {
        session.end = End::Dead(side);
        session.parts[side as usize].finish = Some(Finish::Die);
    }
    let answers = [(); 2].map(|()| rng.pick(&[Answer::AtOnce, Answer::Late, Answer::Again]));
    let rests = [0, 1].map(|n| {
        let at = rng.size(0, session.parts[n].act_at);
        (rng.one_in(3) && !session.tiny).then(|| (at, 1_000 + rng.below(REST_MS - 1_000)))
    });
    session.beat = Some(Beat { intervals_ms, answers, rests });
}

/// What a peer remembers of pings of the worker's.
#[derive(Debug, Default)]
pub struct Heard {
    /// How many came.
    pub pings: u32,
    /// The start of one that is not complete.
    tail: Vec<u8>,
    /// Pongs to send, and not before when.
    owed: VecDeque<(Micros, Vec<u8>)>,
    /// What is left of the one that is being sent.
    out: Vec<u8>,
    last: Option<Vec<u8>>,
    rested: bool,
    resting: bool,
    /// It reads and says nothing any more.
    pub dead: bool,
}

impl Peer {
    /// Takes pings of the worker's out of what was received, and what may become one. Those of the
    /// other peer are in its plan.
    pub fn take_pings(&mut self, me: usize, beat: Option<Beat>, other: &Part, kernel: &mut Kernel) {
        let Some((beat, side)) = beat.zip(self.side) else { return };
        let mut at = self.walk.boundary;
        while let Some(rest) = self.rx.get(at..).filter(|rest| !rest.is_empty()) {
            let len = read_head(rest).map_or(usize::MAX, |head| head.total() as usize);
            let frame = &rest[..len.min(rest.len())];
            let planned = other.plan.get(at..).is_some_and(|plan| plan.starts_with(frame));
            if frame[0] != FIN | PING || planned {
                match len <= rest.len() {
                    true => at += len,
                    false => return,
                }
            } else if len > rest.len() {
                self.heard.tail = self.rx.split_off(at);
            } else {
                let frame: Vec<u8> = self.rx.drain(at..at + len).collect();
                self.on_ping(me, &frame, beat.answers[side as usize], kernel);
            }
        }
    }

    /// What was set aside may be complete now.
    pub fn join_tail(&mut self) {
        if self.rx.len() >= self.walk.boundary && !self.heard.tail.is_empty() {
            self.rx.append(&mut self.heard.tail);
        }
    }

    fn on_ping(&mut self, me: usize, frame: &[u8], answer: Answer, kernel: &mut Kernel) {
        let head = read_head(frame).expect("it is complete");
        assert_eq!(head.mask.is_some(), self.side == Some(Side::Upstream), "the mask bit of a ping is wrong");
        assert_eq!(head.len, 8, "a ping of neither peer nor worker: {frame:02x?}");
        let key = head.mask.unwrap_or_default();
        let payload: Vec<u8> = frame[head.head_len..].iter().enumerate().map(|(i, b)| b ^ key[i & 3]).collect();
        self.heard.pings += 1;
        let late = if answer == Answer::Late { kernel.rng.below(LATE_MS * 1_000) } else { 0 };
        let due = kernel.now + late;
        self.heard.owed.push_back((due, payload.clone()));
        if let Some(last) = self.heard.last.replace(payload).filter(|_| answer == Answer::Again) {
            self.heard.owed.push_back((due, last));
        }
        self.later(me, due, kernel);
    }

    /// Sends the pongs that are due, between two frames of its own. Whether it may go on.
    pub fn say_pongs(&mut self, act_at: usize, kernel: &mut Kernel) -> bool {
        if self.stage != Stage::Open || self.heard.dead {
            return true;
        }
        loop {
            while !self.heard.out.is_empty() {
                let piece = self.heard.out[..kernel.rng.size(1, self.heard.out.len())].to_vec();
                match self.send(&piece, kernel) {
                    Ok(n) => drop(self.heard.out.drain(..n)),
                    Err(error) => {
                        self.broken |= error != libc::EAGAIN;
                        return false;
                    }
                }
            }
            let due = self.heard.owed.front().is_some_and(|(due, _)| *due <= kernel.now);
            if !due || !self.is_between_frames(act_at) {
                return true;
            }
            let Some((_, payload)) = self.heard.owed.pop_front() else { return true };
            let mask = (self.side == Some(Side::Downstream)).then(|| (kernel.rng.word() as u32).to_le_bytes());
            Frame { first: FIN | PONG, mask, payload: &payload }.push(&mut self.heard.out);
        }
    }

    /// Whether it rests now, for the first time at the place of its script. A Close ends it.
    pub fn rests(&mut self, me: usize, beat: Option<Beat>, sent: usize, kernel: &mut Kernel) -> Option<Micros> {
        let (at, ms) = beat?.rests[self.side? as usize]?;
        if self.heard.rested || sent < at || self.walk.close.is_some() || self.facts.eof || kernel.faults.calm {
            return None;
        }
        (self.heard.rested, self.heard.resting) = (true, true);
        let until = kernel.now + ms * 1_000;
        self.later(me, until, kernel);
        Some(until)
    }

    /// It has something to answer: its rest is over.
    pub fn wakes(&mut self) -> bool {
        std::mem::take(&mut self.heard.resting)
    }
}
