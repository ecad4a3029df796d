//! Sees to it that no call outlives what it is for: the session that asked, its question, its
//! timeout. Looks whenever the worker goes to wait, by the clock as the worker has read it: what
//! was due by then has been done.

use crate::asks::{ASKS_MAX, Ask, CALL_MS, CONNECT_MS, DECISION_MS};
use crate::kernel::{Id, Link};
use crate::schedule::SESSIONS;
use crate::world::World;
use framegate::proto::Side;

/// Timers fire in ticks of the worker's wheel.
const TICK_MS: u64 = 100;

/// What is known of the worker's calls.
#[derive(Debug, Default)]
pub struct Calls {
    attempts: Vec<Attempt>,
    /// When each question was first put by a call, in milliseconds of the worker's clock.
    since: [[Option<u64>; ASKS_MAX]; SESSIONS],
}

/// One connection of a call.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    sock: Id,
    session: usize,
    ask: usize,
    since: u64,
}

impl Calls {
    /// A new schedule.
    pub fn clear(&mut self) {
        self.attempts.clear();
        self.since = Default::default();
    }
}

/// The tick at which a timer of `ms` that was set at `since` has fired.
fn fired(since: u64, ms: u64) -> u64 {
    (since + ms).next_multiple_of(TICK_MS)
}

impl World {
    /// The worker makes an attempt to put a question.
    pub fn begin_call(&mut self, session: usize, ask: usize) {
        self.calls.since[session][ask].get_or_insert(self.worker_now);
    }

    /// It has a socket for it.
    pub fn note_call(&mut self, session: usize, ask: usize, sock: Id) {
        self.calls.attempts.push(Attempt { sock, session, ask, since: self.worker_now });
    }

    fn open_calls(&self) -> impl Iterator<Item = &Attempt> {
        self.calls.attempts.iter().filter(|call| !self.kernel.socks[call.sock].closed)
    }

    /// A session has one connection of a call at most, and none once it is admitted.
    pub fn check_no_call(&self, session: usize, then: &str) {
        if let Some(call) = self.open_calls().find(|call| call.session == session) {
            panic!("the call on sock {} is open when {then}", call.sock);
        }
    }

    /// The worker has done everything that is due.
    pub fn check_calls(&self) {
        let now = self.worker_now;
        for call in self.open_calls() {
            assert!(self.is_waiting(call.session), "the call on sock {} outlives its session", call.sock);
            let over = self.over(call);
            assert!(now < over, "the call on sock {} is open at {now} ms, its deadline was at {over} ms", call.sock);
            let connecting = self.kernel.socks[call.sock].link == Link::Connecting;
            let over = fired(call.since, CONNECT_MS);
            assert!(!connecting || now < over, "sock {} connects at {now} ms, until {over} ms it might", call.sock);
        }
    }

    /// When a call is over at the latest: by its own timeout, or by that of the decision.
    fn over(&self, call: &Attempt) -> u64 {
        let since = &self.calls.since[call.session];
        let first = since.iter().flatten().min().map_or(u64::MAX, |first| fired(*first, DECISION_MS));
        let own = match self.script.sessions[call.session].asks.get(call.ask) {
            Some(Ask::Call(asked)) if !asked.patient => since[call.ask].map(|since| fired(since, CALL_MS)),
            _ => None,
        };
        own.map_or(first, |own| own.min(first))
    }

    /// The client of a session waits for its response: the connection is there, and no FIN of the
    /// worker's is on it.
    fn is_waiting(&self, session: usize) -> bool {
        let of_client =
            |peer: &&crate::peers::Peer| peer.session == Some(session) && peer.side == Some(Side::Downstream);
        let client = self.peers[..self.peers_used].iter().find(of_client).map(|peer| peer.sock);
        let near = client.and_then(|sock| self.kernel.socks[sock].peer);
        near.is_some_and(|near| !self.kernel.socks[near].closed && !self.kernel.socks[near].fin_sent)
    }
}
