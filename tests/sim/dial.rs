//! The worker's connections: to the endpoints of a session's upstream, and to the callees of its
//! questions. What comes of an attempt says the script.

use crate::asks::Ask;
use crate::callee::Callee;
use crate::coverage::Met;
use crate::faults::Fault;
use crate::kernel::{CALLEES, Id, Owner, Sys, What, trace};
use crate::schedule::{Connect, Leg};
use crate::seal::Seal;
use crate::world::World;
use framegate::proto::Side;

/// What connect and accept fail with for want of something.
const STARVATION: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

fn is_starvation(error: i32) -> bool {
    STARVATION.contains(&error)
}

impl World {
    /// A connection of the worker's to this endpoint of the upstream of `session`.
    pub fn connect(&mut self, session: usize, endpoint: usize, leg: Leg) -> Sys<Id> {
        self.check_attempt(session, endpoint);
        let (tries, connects) = (self.groups[session].attempts.len(), self.script.sessions[session].connects);
        let outcome = if leg == Leg::Unix { Connect::Works } else { connects[tries.min(1)] };
        trace!(self.kernel, "connect for session {session}: {outcome:?}");
        self.check_no_call(session, "its upstream is tried");
        let dialled = self.dial(outcome, Owner::Peer(self.peers_used), leg == Leg::Unix);
        // An attempt without a descriptor is made again.
        if !matches!(dialled, Err(error) if is_starvation(error)) {
            self.note_attempt(session, endpoint, outcome, dialled.ok().map(|(near, _)| near));
        }
        let (near, far) = dialled?;
        if let Some(far) = far {
            self.add_peer(Side::Upstream, Some(session), far);
            self.windows(Some(session), near, far);
        }
        Ok(near)
    }

    /// A connection of the worker's to the server that is asked the `ask`-th question of `session`.
    pub fn call(&mut self, session: usize, ask: usize) -> Sys<Id> {
        let Some(Ask::Call(call)) = self.script.sessions[session].asks.get(ask) else {
            panic!("session {session} has no call for question {ask}");
        };
        self.coverage.meet(Met::Call);
        let (kind, outcome) = (call.kind, call.connects[self.call_tries[session][ask].min(1)]);
        self.check_no_call(session, "another attempt is made");
        self.begin_call(session, ask);
        trace!(self.kernel, "call for question {ask} of session {session}: {outcome:?}");
        let dialled = self.dial(outcome, Owner::Peer(CALLEES + self.callees.len()), false);
        self.call_tries[session][ask] += usize::from(!matches!(dialled, Err(error) if is_starvation(error)));
        let (near, far) = dialled?;
        self.note_call(session, ask, near);
        if let Some(far) = far {
            let mut callee = Callee::new((session, ask), kind, far, &mut self.kernel);
            callee.seal = self.secure[Side::Upstream].then(Seal::server);
            self.callees.push(callee);
            let least = if self.secure[Side::Upstream] { 300 } else { 30 };
            for id in [near, far] {
                let [rx, out] = [0; 2].map(|_| self.kernel.rng.pick(&[least, least, 4_096, 65_536]));
                self.kernel.windows(id, rx, out);
            }
        }
        Ok(near)
    }

    /// The callee at the other end of a connection of the worker's.
    pub fn callee_of(&self, id: Id) -> Option<&Callee> {
        let Some(Owner::Peer(peer)) = self.kernel.socks[self.kernel.socks[id].peer?].owner else { return None };
        self.callees.get(peer.checked_sub(CALLEES)?)
    }

    /// The worker's end of a new connection to `far`, and the other end, if that will be reached.
    pub fn dial(&mut self, outcome: Connect, far: Owner, unix: bool) -> Sys<(Id, Option<Id>)> {
        if outcome == Connect::NoSocket || self.kernel.faults.strikes(Fault::NoSocket) {
            self.starved_connects += 1;
            return Err(self.kernel.rng.pick(&STARVATION));
        }
        if outcome == Connect::Fails {
            self.kernel.faults.note(Fault::ConnectFailed);
            return Err(self.kernel.rng.pick(&[libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ECONNREFUSED]));
        }
        let (near, far) = self.kernel.pair(Owner::Worker, far, unix);
        self.kernel.hold();
        let soon = self.kernel.now + self.kernel.rng.below(2_000);
        match outcome {
            Connect::Works if unix => self.kernel.connected(near),
            Connect::Works => self.kernel.at(soon, What::Connected(near)),
            Connect::Refused => {
                self.kernel.faults.note(Fault::ConnectRefused);
                self.kernel.at(soon, What::Refused(near));
            }
            _ => self.kernel.faults.note(Fault::ConnectLost),
        }
        if outcome == Connect::Works {
            return Ok((near, Some(far)));
        }
        // There is no peer at the other end.
        self.kernel.socks[far].closed = true;
        Ok((near, None))
    }
}
