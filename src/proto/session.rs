//! The session: a pure state machine of one proxied connection. It begins when the client's
//! transport is up; it is an exchange (request, decision, upstream, response), then, after a 101, a
//! relay; and it ends with exactly one verdict, [`End`].
//!
//! # Contract with the worker
//!
//! - *Bytes* of a peer go to [`Session::on_bytes`], at most as [`Session::wants`] allows. It says
//!   how much of the slice to forward and how much is consumed. The worker sends what is forwarded,
//!   drains the actions, and calls again with the rest: the upgrade can happen inside a slice.
//! - *Everything else* is an [`Event`]. Some answer an action (`Admitted`, `Connected`,
//!   `Finished`, ...); an answer that comes when it is not awaited any more is ignored.
//! - *Actions* come out of [`Session::poll_action`]. The worker drains it after every `on_*` call,
//!   in order, before it calls the next one.
//! - *Getters* (`wants`, `deadline`, `is_*`) are computed from the state and cheap; none is cached.
//!   [`Session::deadline`] may move with any call; [`Event::Timer`] reports the one that passed.

use super::end::{Cause, End, Party, Phase};
use super::exchange::{Exchange, Outcome, Step};
use super::http1::Request;
use super::interface::{Action, Event, ReadInterest, Timer, Totals, TransportEnd};
use super::relay::{Checkpoint, Found, Noticed, OwnFrame, Relay};
use super::relay::{RelayInput, Relayed};
use super::settings::{EndpointDown, Settings};
use super::{Millis, Side};
use std::sync::Arc;

#[derive(Debug)]
pub struct Session {
    state: State,
    /// Those of the process; once admitted, those of the route.
    settings: Arc<Settings>,
    /// The first cause; a mere FIN gives way to a stronger one.
    end: Option<End>,
    /// HTTP status that the client got, 0 while none.
    status: u16,
    /// Actions that were decided and not yet polled. Empty, and without memory, in a relay.
    actions: Vec<Action>,
}

#[derive(Debug)]
enum State {
    Exchange(Box<Exchange>),
    Relay(Relay),
    Over(Totals),
}

impl Session {
    /// The client's transport is up; its request is read under `settings`.
    pub fn new(settings: Arc<Settings>, now: Millis) -> Session {
        Session::with(State::Exchange(Box::new(Exchange::new(now))), settings)
    }

    /// The session of the next request on a connection whose client has been answered; it begins
    /// with [`Event::Flushed`], when the response has left. `early`: what the client has sent of
    /// the request already.
    pub fn next(settings: Arc<Settings>, early: Vec<u8>, now: Millis) -> Session {
        Session::with(State::Exchange(Box::new(Exchange::next(early, now))), settings)
    }

    /// The client's transport failed. With `refuse` it can still carry the refusal of `cause`.
    pub fn rejected(cause: Cause, refuse: bool, settings: Arc<Settings>, now: Millis) -> Session {
        let (mut status, mut actions, mut settings) = (0, Vec::new(), settings);
        let mut step = Step::new(now, &mut settings, &mut actions, &mut status);
        let exchange = Exchange::rejected(cause, refuse, &mut step);
        let end = Some(End { party: Party::Downstream, phase: Phase::Tls, cause });
        Session { end, status, actions, ..Session::with(State::Exchange(Box::new(exchange)), settings) }
    }

    /// An established session that continues from a checkpoint.
    pub fn from_checkpoint(checkpoint: Checkpoint, settings: Arc<Settings>) -> Session {
        Session { status: 101, ..Session::with(State::Relay(checkpoint.into_relay()), settings) }
    }

    fn with(state: State, settings: Arc<Settings>) -> Session {
        Session { state, settings, end: None, status: 0, actions: Vec::new() }
    }

    /// What is needed to continue elsewhere: only of an established session with nothing pending.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        match &self.state {
            State::Relay(relay) if self.actions.is_empty() => relay.checkpoint(),
            State::Exchange(_) | State::Relay(_) | State::Over(_) => None,
        }
    }

    /// Judges bytes of `from`. Call again with what was not consumed, after carrying out the
    /// actions.
    #[inline(always)]
    pub fn on_bytes(&mut self, from: Side, bytes: &[u8], input: RelayInput<'_>) -> Relayed {
        match &mut self.state {
            State::Relay(relay) => {
                let (relayed, noticed) = relay.on_bytes(from, bytes, &self.settings.relay, input);
                if let Some(noticed) = noticed {
                    self.on_noticed(noticed);
                }
                relayed
            }
            State::Exchange(_) => self.on_exchange_bytes(from, bytes, input),
            State::Over(_) => Relayed::consume(bytes.len()),
        }
    }

    #[inline(never)]
    fn on_noticed(&mut self, noticed: Noticed) {
        match noticed {
            Noticed::Cause(party, cause) => self.note(Some((party, cause))),
            Noticed::Taken => self.fetch(),
        }
    }

    /// A message of the client that was taken out of its stream goes to policy.
    fn fetch(&mut self) {
        let State::Relay(relay) = &mut self.state else { return };
        self.actions.extend(relay.fetch().map(Action::Refresh));
    }

    #[inline(never)]
    fn on_exchange_bytes(&mut self, from: Side, bytes: &[u8], input: RelayInput<'_>) -> Relayed {
        let mut relayed = Relayed::consume(bytes.len());
        self.step(input.now, |exchange, step| relayed = exchange.on_bytes(from, bytes, input, step));
        relayed
    }

    /// `n` bytes of `from` were discarded, as [`ReadInterest::Discard`] allows.
    pub fn on_discarded(&mut self, from: Side, n: usize, now: Millis) {
        match &mut self.state {
            State::Relay(relay) => relay.on_discarded(from, now),
            State::Exchange(exchange) => exchange.on_discarded(n),
            State::Over(_) => {}
        }
    }

    /// `n` bytes of payload of `side` were forwarded in the kernel; at most what
    /// [`ReadInterest::Payload`] allowed.
    pub fn on_spliced(&mut self, side: Side, n: u64, input: RelayInput<'_>) {
        if let State::Relay(relay) = &mut self.state {
            let found = relay.on_spliced(side, n, &self.settings.relay, input);
            self.note(found);
        }
    }

    /// The receiver of a backlog toward `side` took some of it.
    pub fn on_taken(&mut self, side: Side, now: Millis) {
        match &mut self.state {
            State::Relay(relay) => relay.on_taken(side, now),
            State::Exchange(exchange) => exchange.on_taken(now),
            State::Over(_) => {}
        }
    }

    pub fn on_event(&mut self, event: Event, now: Millis) {
        match &mut self.state {
            State::Exchange(_) => self.on_exchange_event(event, now),
            State::Relay(_) => self.on_relay_event(event, now),
            State::Over(_) => {}
        }
    }

    fn on_exchange_event(&mut self, event: Event, now: Millis) {
        self.step(now, |exchange, step| match event {
            Event::Admitted(admission) => exchange.on_admitted(admission, step),
            Event::Refused(refusal) => exchange.on_refused(refusal, step),
            Event::Connected(upgrade) => exchange.on_connected(*upgrade, step),
            Event::ConnectFailed(cause) => exchange.on_connect_failed(cause, step),
            Event::NoSocket => exchange.on_no_socket(step),
            Event::Queued { until } => exchange.on_queued(until, step),
            Event::Room => exchange.on_room(step),
            Event::Exhausted(cause) => exchange.on_exhausted(cause, step),
            Event::Ended(side, end) => exchange.on_end(side, end, step),
            Event::Flushed(side) => exchange.on_flushed(side, step),
            Event::Finished(side) => exchange.on_finished(side, step),
            Event::UrgentData(side) => exchange.on_urgent_data(side, step),
            Event::Stalled(side, cause) => exchange.on_stalled(side, cause, step),
            Event::Drain => exchange.on_drain(step),
            Event::EndpointDown => exchange.on_endpoint_down(step),
            Event::CredentialsEnded(cause) => exchange.on_credentials_ended(cause, step),
            Event::Stop => exchange.on_stop(step),
            Event::Timer(timer) => exchange.on_timer(timer, step),
        });
    }

    fn on_relay_event(&mut self, event: Event, now: Millis) {
        let State::Relay(relay) = &mut self.state else { return };
        let settings = &self.settings.relay;
        let mode = settings.mode;
        match event {
            Event::Ended(side, end) => self.on_relay_end(side, end),
            Event::Flushed(side) => relay.on_flushed(side, now),
            Event::Finished(side) => relay.on_finished(side),
            Event::UrgentData(side) => {
                let found = relay.on_urgent_data(side, settings);
                self.note(Some(found));
            }
            Event::Stalled(side, cause) => {
                let found = relay.on_stalled(side, cause, mode);
                self.note(Some(found));
                self.actions.push(Action::Abort(side));
            }
            Event::Drain => {
                let found = relay.close_both(Cause::Drain, mode);
                self.note(Some(found));
            }
            Event::EndpointDown => {
                let found = relay.close_client(Cause::EndpointDown, settings.endpoint_down_code, mode);
                self.note(Some(found));
            }
            Event::CredentialsEnded(cause) => {
                let code = if cause == Cause::Expired { settings.expired_code } else { settings.revoked_code };
                let found = relay.close_client(cause, code, mode);
                self.note(Some(found));
            }
            Event::Stop => {
                self.note(Some((Party::Proxy, Cause::Stop)));
                self.over();
            }
            Event::Timer(timer) => self.on_relay_timer(timer, now),
            // Answers to an exchange that is over.
            Event::Admitted(_)
            | Event::Refused(_)
            | Event::Connected(_)
            | Event::ConnectFailed(_)
            | Event::NoSocket
            | Event::Queued { .. }
            | Event::Room
            | Event::Exhausted(_) => {}
        }
    }

    fn on_relay_end(&mut self, side: Side, end: TransportEnd) {
        let State::Relay(relay) = &mut self.state else { return };
        let settings = &self.settings.relay;
        let found = match end {
            TransportEnd::Eof | TransportEnd::Cut => relay.on_eof(side, end.cause(), settings),
            TransportEnd::Reset | TransportEnd::Failed(_) => relay.on_reset(side, settings),
        };
        if let TransportEnd::Failed(cause) = end {
            self.note(Some((side.into(), cause)));
        } else {
            self.note(found);
        }
        if found.is_some_and(|(_, cause)| cause == Cause::Reset) {
            self.actions.push(Action::Abort(side.other()));
            self.over();
        }
    }

    fn on_relay_timer(&mut self, timer: Timer, now: Millis) {
        let State::Relay(relay) = &mut self.state else { return };
        let mode = self.settings.relay.mode;
        let found = match timer {
            Timer::Idle => Some(relay.close_both(Cause::IdleTimeout, mode)),
            Timer::DataAfterClose => relay.on_data_after_close(mode),
            Timer::Heartbeat => relay.on_heartbeat(now, &self.settings.relay).map(|(dead, found)| {
                self.actions.push(Action::Abort(dead));
                found
            }),
            Timer::Resume => relay.on_resume(&self.settings.relay, now),
            Timer::Age => Some(relay.on_age(&self.settings.relay)),
            Timer::Close => return self.over(),
            // Deadlines of an exchange that is over.
            Timer::RequestHead
            | Timer::Decision
            | Timer::Connect
            | Timer::ConnectTotal
            | Timer::ResponseHead
            | Timer::RequestBody
            | Timer::Credentials
            | Timer::Linger => None,
        };
        self.note(found);
    }

    /// Sends a ping or pong of ours toward `to` at the next frame boundary, or a message at the
    /// next boundary of messages. `false` if it cannot be sent there any more.
    pub fn send_toward(&mut self, to: Side, frame: OwnFrame) -> bool {
        match &mut self.state {
            State::Relay(relay) => relay.send_toward(to, frame, self.settings.relay.mode),
            State::Exchange(_) | State::Over(_) => false,
        }
    }

    /// There is nothing to do: [`Session::poll_action`] would return `None`.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.actions.is_empty() && matches!(&self.state, State::Relay(relay) if relay.is_calm())
    }

    /// The next thing to do. Drain it after every `on_*`.
    #[inline]
    pub fn poll_action(&mut self, now: Millis) -> Option<Action> {
        if !self.actions.is_empty() {
            return Some(self.next_action());
        }
        let State::Relay(relay) = &mut self.state else { return None };
        let action = relay.poll_action(now);
        if action.is_none() && relay.is_over() {
            self.over();
            return self.actions.pop();
        }
        action
    }

    #[inline(never)]
    fn next_action(&mut self) -> Action {
        let action = self.actions.remove(0);
        // A relay owns no memory for what it seldom asks for.
        if self.actions.is_empty() && self.is_established() {
            self.actions = Vec::new();
        }
        action
    }

    #[inline]
    pub fn wants(&self, side: Side) -> ReadInterest {
        match &self.state {
            State::Relay(relay) => relay.wants(side, &self.settings.relay),
            State::Exchange(exchange) => exchange.wants(side, &self.settings),
            State::Over(_) => ReadInterest::Nothing,
        }
    }

    /// The same, where it is [`ReadInterest::Shared`].
    pub fn wants_now(&self, side: Side, now: Millis) -> ReadInterest {
        match &self.state {
            State::Relay(relay) => relay.wants_now(side, &self.settings.relay, now),
            State::Exchange(_) | State::Over(_) => self.wants(side),
        }
    }

    /// Whether the client waits for its response: it is not read, but if it leaves, the upstream is
    /// dropped.
    #[inline]
    pub fn client_waits(&self) -> bool {
        matches!(&self.state, State::Exchange(exchange) if exchange.client_waits())
    }

    /// The nearest deadline, and which it is.
    #[inline]
    pub fn deadline(&self) -> Option<(Millis, Timer)> {
        self.deadline_if(true)
    }

    /// The same while a receiver has a backlog: the other side is not read then, and what it owes
    /// the heartbeat cannot be heard.
    pub fn deadline_with_backlog(&self) -> Option<(Millis, Timer)> {
        self.deadline_if(false)
    }

    #[inline]
    fn deadline_if(&self, heard: bool) -> Option<(Millis, Timer)> {
        match &self.state {
            State::Relay(relay) => relay.deadline(&self.settings, heard),
            State::Exchange(exchange) => Some(exchange.deadline(&self.settings.timeouts)),
            State::Over(_) => None,
        }
    }

    /// The verdict so far: how it will end, if it is ending.
    pub fn verdict(&self) -> Option<End> {
        self.end
    }

    /// What becomes of it when its endpoint goes down.
    pub fn on_endpoint_down(&self) -> EndpointDown {
        self.settings.relay.endpoint_down
    }

    /// The client has been answered, and has said nothing since.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Exchange(exchange) if exchange.is_idle())
    }

    /// A response to a plain request is forwarded that has no end, as far as can be told.
    pub fn is_streaming(&self, now: Millis) -> bool {
        matches!(&self.state, State::Exchange(exchange) if exchange.is_streaming(now))
    }

    /// A receiver that takes nothing for this long ends the session.
    pub fn write_stall_ms(&self) -> Millis {
        self.settings.timeouts.write_stall_ms
    }

    /// The request, from the end of its head until it has been answered.
    pub fn request(&self) -> Option<Request<'_>> {
        match &self.state {
            State::Exchange(exchange) => exchange.request(),
            State::Relay(_) | State::Over(_) => None,
        }
    }

    /// Established, with nothing but messages happening: its deadline only moves away.
    #[inline]
    pub fn is_steady(&self) -> bool {
        matches!(&self.state, State::Relay(relay) if relay.is_steady())
    }

    #[inline]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Relay(_))
    }

    /// Nothing more will leave toward `to` but its backlog.
    pub fn is_closed_toward(&self, to: Side) -> bool {
        matches!(&self.state, State::Relay(relay) if relay.is_closed_toward(to))
    }

    /// `side` has ended, and everything for it has left.
    pub fn is_done_with(&self, side: Side) -> bool {
        matches!(&self.state, State::Relay(relay) if relay.is_done_with(side))
    }

    #[inline]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Exchange(exchange) => exchange.phase(),
            State::Relay(_) | State::Over(_) => Phase::Open,
        }
    }

    /// HTTP status that the client got; 0 for none.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Of an exchange, the content of its bodies.
    pub fn totals(&self) -> Totals {
        match &self.state {
            State::Relay(relay) => {
                Totals { frames: relay.frames(), bytes: relay.bytes(), close_codes: relay.close_codes() }
            }
            State::Over(totals) => *totals,
            State::Exchange(exchange) => Totals { bytes: exchange.bytes(), ..Totals::default() },
        }
    }

    /// Lets the exchange handle one event, and carries out what follows.
    fn step(&mut self, now: Millis, handle: impl FnOnce(&mut Exchange, &mut Step<'_>)) {
        let State::Exchange(exchange) = &mut self.state else { return };
        let phase = exchange.phase();
        let mut step = Step::new(now, &mut self.settings, &mut self.actions, &mut self.status);
        handle(exchange, &mut step);
        let found = step.found;
        match exchange.enter(step) {
            Outcome::Continues => self.note_in(phase, found),
            Outcome::Relay(relay) => {
                self.state = State::Relay(relay);
                // It may have been sent before the 101.
                self.fetch();
                self.note(found);
            }
            Outcome::Answered(early) => {
                self.note_in(phase, found);
                let end = self.end.unwrap_or(End { party: Party::Upstream, phase, cause: Cause::Answered });
                self.actions.push(Action::Next { end, early });
                self.state = State::Over(self.totals());
            }
            Outcome::Over => {
                self.note_in(phase, found);
                self.over();
            }
        }
    }

    fn note(&mut self, found: Found) {
        self.note_in(self.phase(), found);
    }

    /// The first cause counts. A FIN is weaker than any other cause, and a Close than what its own
    /// sender did after it.
    fn note_in(&mut self, phase: Phase, found: Found) {
        let Some((party, cause)) = found else { return };
        let is_fin = |cause: Cause| matches!(cause, Cause::Eof | Cause::TlsTruncated);
        let gives_way = |first: Cause| (is_fin(first) && !is_fin(cause)) || cause == Cause::DataAfterClose;
        if self.end.is_none_or(|end| gives_way(end.cause)) {
            self.end = Some(End { party, phase, cause });
        }
    }

    /// Ends the session with the verdict that was noted. Nothing follows.
    fn over(&mut self) {
        if !self.is_over() {
            let end = self.end.unwrap_or(End { party: Party::Proxy, phase: self.phase(), cause: Cause::Stop });
            self.actions.push(Action::Close(end));
            self.state = State::Over(self.totals());
        }
    }
}

/// What a session takes beside itself before it is established, without a request.
pub const EXCHANGE_BYTES: usize = size_of::<Exchange>();

// The cold phases are boxed: an idle pair must stay small (PERF.md).
const _: () = assert!(size_of::<Session>() <= 216);

#[cfg(test)]
mod tests;
