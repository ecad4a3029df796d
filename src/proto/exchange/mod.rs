//! An exchange: everything of a session before its relay. One request is read, judged, sent to an
//! upstream, and answered; a 101 ends it in a [`Relay`], a plain response in the next request,
//! everything else in a lingering close.
//! Pure. Boxed by the session, so that an established session does not pay for it.
//!
//! ```text
//!  bytes of the head     policy           connected           101
//! Request ---------> Decision -----> Connect -----> Response -----> (relay)
//!    |                  |               |            |    \
//!    |                  |               |            |   ErrorBody    any other status
//!    +------------------+---------------+------------+------+--> Linger   FIN, drain, close
//!    `--- the client left: over, and the upstream connection goes with it
//! ```
//!
//! `request`, `connect`, `response` and `linger` hold the phases in this order, `forward` what
//! follows `connect` for plain HTTP, `download` its response, `buffer` the request. Each phase is a
//! struct that owns its data and implements [`Handler`]: a new phase does not compile until it
//! answers everything that can happen to it.

mod buffer;
mod connect;
mod download;
mod forward;
mod linger;
mod request;
mod response;

use super::end::{self, Cause, Party};
use super::http1::Request;
use super::interface::{Action, Admission, ReadInterest, Refusal, Timer, TransportEnd, Upgrade};
use super::relay::Relay;
use super::relay::{RelayInput, Relayed};
use super::settings::{Settings, Timeouts};
use super::{Millis, Side, Sides};
use buffer::RequestBuffer;
use connect::Connect;
use forward::Forward;
use linger::Linger;
use request::{Decision, ReadRequest};
use response::{AwaitResponse, ErrorBody};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Exchange {
    phase: Phase,
    /// When the phase began.
    since: Millis,
    /// Content of the bodies that have passed.
    bytes: Sides<u64>,
}

/// Those with a request are boxed: a client that is about to ask must stay small.
#[derive(Debug)]
enum Phase {
    Request(ReadRequest),
    Decision(Box<Decision>),
    Connect(Box<Connect>),
    Response(Box<AwaitResponse>),
    Forward(Box<Forward>),
    ErrorBody(ErrorBody),
    Linger(Linger),
}

impl Phase {
    /// The upstream is to be reached once more, after an endpoint failed for this cause.
    fn connect_after(cause: Cause, request: RequestBuffer, now: Millis) -> Phase {
        Phase::Connect(Box::new(Connect::after(cause, request, now)))
    }
}

/// What happens to every phase. Events that answer an action of one phase (admitted, connected,
/// ...) are methods of that phase alone.
trait Handler {
    /// For the access log and the metrics.
    const PHASE: end::Phase;

    fn phase(&self) -> end::Phase {
        Self::PHASE
    }

    /// Bytes of `from`; how many of them are forwarded and consumed.
    fn on_bytes(&mut self, from: Side, bytes: &[u8], step: &mut Step<'_>) -> Relayed;
    /// No more bytes will come from `side`.
    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>);
    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>);
    /// The deadline that [`Handler::deadline`] named has passed.
    fn on_timer(&mut self, timer: Timer, step: &mut Step<'_>);
    /// The FIN toward the client has left.
    fn on_finished(&mut self, step: &mut Step<'_>);
    fn wants(&self, side: Side, settings: &Settings) -> ReadInterest;
    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer);
    /// The request, once its head is complete and until it has been answered.
    fn request(&self) -> Option<Request<'_>>;
    /// The client has sent no byte: it is closed without a response.
    fn is_silent(&self) -> bool;
    /// The client waits for its response: it is not read, but if it leaves, the upstream is
    /// dropped.
    fn client_waits(&self) -> bool;
}

/// Calls a method of the current phase.
macro_rules! handler {
    ($phase:expr, $handler:ident => $call:expr) => {
        match $phase {
            Phase::Request($handler) => $call,
            Phase::Decision($handler) => $call,
            Phase::Connect($handler) => $call,
            Phase::Response($handler) => $call,
            Phase::Forward($handler) => $call,
            Phase::ErrorBody($handler) => $call,
            Phase::Linger($handler) => $call,
        }
    };
}

/// What one event leads to. Handlers write it, the session carries it out.
pub(super) struct Step<'a> {
    pub now: Millis,
    pub settings: &'a mut Arc<Settings>,
    pub actions: &'a mut Vec<Action>,
    /// The status that the client gets.
    pub status: &'a mut u16,
    /// A cause that was found, for the session to weigh.
    pub found: Option<(Party, Cause)>,
    next: Option<Next>,
}

/// Where the session goes next.
enum Next {
    Phase(Phase),
    Relay(Relay),
    /// The client has its response, and may ask again; it has sent these bytes of that already.
    Answered(Vec<u8>),
    Over,
}

/// What became of an exchange.
pub(super) enum Outcome {
    Continues,
    Relay(Relay),
    Answered(Vec<u8>),
    Over,
}

impl Exchange {
    pub(super) fn new(now: Millis) -> Exchange {
        Exchange::with(Phase::Request(ReadRequest::default()), now)
    }

    fn with(phase: Phase, since: Millis) -> Exchange {
        Exchange { phase, since, bytes: Sides::default() }
    }

    /// The exchange behind another one on the same connection. It begins when the response of that
    /// has left: [`Exchange::on_flushed`].
    pub(super) fn next(early: Vec<u8>, now: Millis) -> Exchange {
        Exchange::with(Phase::Request(ReadRequest::next(early)), now)
    }

    /// Everything for the client has left.
    pub(super) fn on_flushed(&mut self, side: Side, step: &mut Step<'_>) {
        if let (Side::Downstream, Phase::Request(request)) = (side, &mut self.phase)
            && request.waits()
        {
            self.since = step.now;
            request.begin(step);
        }
    }

    /// A receiver has taken some of its backlog.
    pub(super) fn on_taken(&mut self, now: Millis) {
        match &mut self.phase {
            Phase::Forward(forward) => forward.on_taken(now),
            Phase::Linger(linger) => linger.on_taken(now),
            _ => {}
        }
    }

    /// Content of the bodies that have passed, by the side they came from.
    pub(super) fn bytes(&self) -> Sides<u64> {
        match &self.phase {
            Phase::Forward(forward) => forward.bytes(),
            _ => self.bytes,
        }
    }

    /// An exchange that has ended before its request: the client's transport failed. With a
    /// `refusal` that the transport can still carry; in any case the FIN is sent and the client
    /// drained, so that an alert or a refusal is not lost to a reset.
    pub(super) fn rejected(cause: Cause, refuse: bool, step: &mut Step<'_>) -> Exchange {
        if refuse {
            step.refuse_client(Refusal::from(cause), false);
        }
        step.actions.push(Action::HalfClose(Side::Downstream));
        Exchange::with(Phase::Linger(Linger::default()), step.now)
    }

    /// The one door between phases.
    pub(super) fn enter(&mut self, step: Step<'_>) -> Outcome {
        self.bytes = self.bytes();
        match step.next {
            None => Outcome::Continues,
            Some(Next::Phase(phase)) => {
                // The body of a response has what is left of its head's timeout.
                if !matches!(phase, Phase::ErrorBody(_)) {
                    self.since = step.now;
                }
                self.phase = phase;
                Outcome::Continues
            }
            Some(Next::Relay(relay)) => Outcome::Relay(relay),
            Some(Next::Answered(early)) => Outcome::Answered(early),
            Some(Next::Over) => Outcome::Over,
        }
    }

    pub(super) fn on_bytes(&mut self, from: Side, bytes: &[u8], input: RelayInput<'_>, step: &mut Step<'_>) -> Relayed {
        match &mut self.phase {
            // The 101 and what came early are counted as frames.
            Phase::Response(phase) if from == Side::Upstream => phase.on_response_bytes(bytes, input, step),
            Phase::Forward(phase) => phase.on_slice(from, bytes, input, step),
            phase => handler!(phase, handler => handler.on_bytes(from, bytes, step)),
        }
    }

    /// `n` bytes of `from` were discarded, as [`ReadInterest::Discard`] allows.
    pub(super) fn on_discarded(&mut self, n: usize) {
        if let Phase::Linger(linger) = &mut self.phase {
            linger.on_discarded(n);
        }
    }

    pub(super) fn on_admitted(&mut self, admission: Admission, step: &mut Step<'_>) {
        if let Phase::Decision(decision) = &mut self.phase {
            decision.on_admitted(admission, step);
        }
    }

    pub(super) fn on_refused(&mut self, refusal: Refusal, step: &mut Step<'_>) {
        let party = refusal.cause.party_at_fault();
        match &mut self.phase {
            Phase::Decision(decision) if refusal.reply.is_some() => decision.on_reply(party, refusal, step),
            // A response is on its way.
            Phase::ErrorBody(_) | Phase::Linger(_) => {}
            Phase::Request(_) | Phase::Decision(_) | Phase::Connect(_) | Phase::Response(_) | Phase::Forward(_) => {
                let head_only = self.request().is_some_and(|request| request.method == "HEAD");
                step.refuse(party, refusal, head_only);
            }
        }
    }

    pub(super) fn on_connected(&mut self, upgrade: Upgrade, step: &mut Step<'_>) {
        if let Phase::Connect(connect) = &mut self.phase {
            connect.on_connected(upgrade, step);
        }
    }

    pub(super) fn on_connect_failed(&mut self, cause: Cause, step: &mut Step<'_>) {
        if let Phase::Connect(connect) = &mut self.phase {
            connect.on_attempt_failed(cause, step);
        }
    }

    pub(super) fn on_no_socket(&mut self, step: &mut Step<'_>) {
        if let Phase::Connect(connect) = &mut self.phase {
            connect.on_no_socket(step);
        }
    }

    pub(super) fn on_queued(&mut self, until: Millis, step: &mut Step<'_>) {
        if let Phase::Connect(connect) = &mut self.phase {
            connect.on_queued(until, step);
        }
    }

    pub(super) fn on_room(&mut self, step: &mut Step<'_>) {
        if let Phase::Connect(connect) = &mut self.phase {
            connect.on_room(step);
        }
    }

    pub(super) fn on_exhausted(&mut self, cause: Option<Cause>, step: &mut Step<'_>) {
        if let Phase::Connect(connect) = &mut self.phase {
            connect.on_exhausted(cause, step);
        }
    }

    pub(super) fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        handler!(&mut self.phase, handler => handler.on_end(side, end, step));
    }

    pub(super) fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        handler!(&mut self.phase, handler => handler.on_urgent_data(side, step));
    }

    pub(super) fn on_timer(&mut self, timer: Timer, step: &mut Step<'_>) {
        handler!(&mut self.phase, handler => handler.on_timer(timer, step));
    }

    pub(super) fn on_finished(&mut self, to: Side, step: &mut Step<'_>) {
        if to == Side::Downstream {
            handler!(&mut self.phase, handler => handler.on_finished(step));
        }
    }

    /// `side` takes nothing: the session ends.
    pub(super) fn on_stalled(&mut self, side: Side, cause: Cause, step: &mut Step<'_>) {
        step.found = Some((Party::Proxy, cause));
        step.actions.push(Action::Abort(side));
        step.over();
    }

    /// A request under way is answered, unless its response has no end; a handshake is drained like
    /// the rest once it is established.
    pub(super) fn on_drain(&mut self, step: &mut Step<'_>) {
        match &mut self.phase {
            Phase::Connect(connect) => connect.on_drain(),
            Phase::Forward(forward) => forward.on_drain(step),
            Phase::Request(request) if request.is_silent() => {
                let waits = request.waits();
                step.found = Some((Party::Proxy, Cause::NoRequest));
                // The response before it must leave.
                if waits { step.linger() } else { step.over() }
            }
            _ => {}
        }
    }

    /// The endpoint gets no new sessions any more. A handshake shows by itself what it still does.
    pub(super) fn on_endpoint_down(&mut self, step: &mut Step<'_>) {
        if let Phase::Forward(forward) = &mut self.phase {
            forward.on_endpoint_down(step);
        }
    }

    /// A response is forwarded that has no end, as far as can be told.
    pub(super) fn is_streaming(&self, now: Millis) -> bool {
        matches!(&self.phase, Phase::Forward(forward) if forward.is_streaming(now))
    }

    /// The client has been answered, and has said nothing since.
    pub(super) fn is_idle(&self) -> bool {
        matches!(&self.phase, Phase::Request(request) if request.is_idle())
    }

    /// The client's credentials do not count any more. An established session hears it as well: a
    /// handshake goes on until then.
    pub(super) fn on_credentials_ended(&mut self, cause: Cause, step: &mut Step<'_>) {
        match &mut self.phase {
            Phase::Forward(forward) => forward.on_credentials_ended(cause, step),
            Phase::Connect(connect) => connect.on_credentials_ended(cause, step),
            _ => {}
        }
    }

    /// The process ends now. What the client has of a response must not look like all of it.
    pub(super) fn on_stop(&mut self, step: &mut Step<'_>) {
        step.found = Some((Party::Proxy, if self.is_silent() { Cause::NoRequest } else { Cause::Stop }));
        if self.is_answering() {
            step.actions.push(Action::Abort(Side::Downstream));
        }
        step.over();
    }

    /// A response has begun, and has not left as a whole.
    fn is_answering(&self) -> bool {
        match &self.phase {
            Phase::Request(request) => request.waits(),
            Phase::Forward(forward) => forward.is_answering(),
            Phase::Linger(linger) => linger.is_sending(),
            _ => false,
        }
    }

    pub(super) fn wants(&self, side: Side, settings: &Settings) -> ReadInterest {
        handler!(&self.phase, handler => handler.wants(side, settings))
    }

    pub(super) fn deadline(&self, timeouts: &Timeouts) -> (Millis, Timer) {
        handler!(&self.phase, handler => handler.deadline(self.since, timeouts))
    }

    pub(super) fn request(&self) -> Option<Request<'_>> {
        handler!(&self.phase, handler => handler.request())
    }

    pub(super) fn is_silent(&self) -> bool {
        handler!(&self.phase, handler => handler.is_silent())
    }

    pub(super) fn client_waits(&self) -> bool {
        handler!(&self.phase, handler => handler.client_waits())
    }

    pub(super) fn phase(&self) -> end::Phase {
        handler!(&self.phase, handler => handler.phase())
    }
}

impl<'a> Step<'a> {
    pub(super) fn new(
        now: Millis,
        settings: &'a mut Arc<Settings>,
        actions: &'a mut Vec<Action>,
        status: &'a mut u16,
    ) -> Step<'a> {
        Step { now, settings, actions, status, found: None, next: None }
    }

    fn enter(&mut self, phase: Phase) {
        self.next = Some(Next::Phase(phase));
    }

    /// Refuses the request, with a response.
    fn refuse(&mut self, party: Party, refusal: impl Into<Refusal>, head_only: bool) {
        let refusal = refusal.into();
        self.found = Some((party, refusal.cause));
        self.refuse_client(refusal, head_only);
        self.linger();
    }

    fn refuse_client(&mut self, refusal: Refusal, head_only: bool) {
        *self.status = refusal.status();
        self.actions.push(Action::Refuse { refusal, head_only });
    }

    /// The response is on its way: FIN behind it, and the upstream is done with.
    fn linger(&mut self) {
        self.actions.extend([Action::HalfClose(Side::Downstream), Action::Hangup(Side::Upstream)]);
        self.enter(Phase::Linger(Linger::default()));
    }

    /// A client that leaves before the 101 takes its upstream connection with it. Where its
    /// transport failed, the alert that says so must still reach it.
    fn client_left(&mut self, end: TransportEnd) {
        self.found = Some((Party::Downstream, end.cause()));
        self.actions.push(Action::Abort(Side::Upstream));
        match end {
            TransportEnd::Eof | TransportEnd::Cut | TransportEnd::Reset => self.over(),
            TransportEnd::Failed(_) => self.linger(),
        }
    }

    fn over(&mut self) {
        self.next = Some(Next::Over);
    }
}
