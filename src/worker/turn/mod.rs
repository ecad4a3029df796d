//! A turn of a pair: whatever can be done for it now, in one order. `Turn` is the pair, its key,
//! and the worker's resources for as long as the turn lasts. Its methods are in files by subject,
//! each of which uses only those below it:
//!
//! - this file: the order of a turn
//! - `pieces`: what is read of a file
//! - `handshake`: PROXY headers, the outcome of connect(2), TLS handshakes on both sides
//! - `queue`: a pair in the queue of handshakes, and failures that count against its client
//! - `relay`: bytes from one side to the other (HOT)
//! - `report`: events for the session, and for a client that has none yet
//! - `actions`: what the session asks for becomes system calls; what came of it, events
//! - `attempt`: connections come and go
//! - `refresh`: credentials that end, and new ones, in an established session
//! - `ask`: questions of policy
//! - `files`: an upstream that is a file; what is asked of it
//! - `request`: what an upstream that is reached gets
//! - `shadow`: what goes upstream goes to a shadow, too
//!
//! Decides nothing: it asks policy and reports to the session. Knows neither poll nor the ready
//! ring; what the budget did not allow shows in [`Pair::may_read`].

mod actions;
mod ask;
mod attempt;
mod files;
mod handshake;
mod pieces;
mod queue;
mod refresh;
mod relay;
mod report;
mod request;
mod shadow;

use super::pair::Pair;
use super::resources::Resources;
use super::sys::Sys;
use super::token::SlotKey;
use crate::policy::ask::Answer;
use crate::proto::Side;
use crate::proto::end::{Cause, Phase};
use crate::proto::interface::{Event, TransportEnd};

pub(super) struct Turn<'t, 'h, S: Sys> {
    pub pair: &'t mut Pair<S::Sock>,
    pub key: SlotKey,
    pub res: &'t mut Resources<'h, S>,
    /// Something other than messages has happened in this turn: the deadline may have moved closer.
    pub eventful: bool,
}

impl<S: Sys> Turn<'_, '_, S> {
    /// PROXY header, connect, flush, handshake, read; and last, what no read reports: resets, and
    /// whether a client that waits has left.
    #[inline]
    pub fn run(&mut self) {
        if self.pair.session.is_none() {
            self.read_header();
        }
        if self.pair.connect_done() && !self.pair.endpoint_uses_tls() {
            self.finish_connect();
        }
        for to in Side::BOTH {
            if self.pair.conns[to].as_ref().is_some_and(|conn| conn.has_backlog() && conn.ready().write) {
                self.flush(to);
                self.read_file();
            }
        }
        // TLS handshakes have a budget of their own: what it does not allow waits in their queue.
        if self.res.handshake_steps > 0 {
            self.handshakes();
        }
        for from in Side::BOTH {
            self.relay(from);
        }
        for side in Side::BOTH {
            if self.pair.is_reset_unseen(side) {
                self.report(Event::Ended(side, TransportEnd::Reset));
            }
        }
        if self.pair.client_hung_up() && self.pair.session.as_ref().is_some_and(|session| session.client_waits()) {
            // It is not read while it waits, so this is the only way to learn that it left.
            self.report(Event::Ended(Side::Downstream, TransportEnd::Eof));
        }
    }

    /// The deadline of the pair has passed; without an event, that of the client's TLS handshake.
    pub fn on_deadline(&mut self, event: Option<Event>) {
        match event {
            Some(event) => self.report(event),
            None if self.pair.phase() == Phase::ProxyHeader => self.client_handshake_failed(Cause::ProxyTimeout),
            None => self.client_handshake_failed(Cause::TlsTimeout),
        }
    }

    /// The request that has waited for its turn is decided.
    pub fn decide_queued(&mut self) {
        self.eventful = true;
        self.decide(None);
        self.settle();
    }

    /// The pair has to leave the queue of handshakes.
    pub fn displace(&mut self) {
        match self.give_way() {
            Some(refused) => self.report(refused),
            None => self.close(self.overloaded()),
        }
    }

    /// Policy's question is answered.
    pub fn on_answer(&mut self, answer: Answer) {
        match &self.pair.pending {
            Some(_) => self.decide(Some(answer)),
            None => self.on_refresh_answer(answer),
        }
        self.settle();
    }

    /// The credentials of an established session end at another time.
    pub fn on_extended(&mut self) {
        self.watch_credentials();
        self.settle();
    }

    /// They end soon.
    pub fn on_warning(&mut self) {
        self.warn();
        self.settle();
    }
}
