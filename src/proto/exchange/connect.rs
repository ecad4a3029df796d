//! The upstream is being reached: one connect attempt after the other, until one succeeds, none is
//! left, or the time for all of them is over.

use super::buffer::RequestBuffer;
use super::forward::Forward;
use super::response::AwaitResponse;
use super::{Handler, Phase, Step};
use crate::proto::end::{self, Cause, Party};
use crate::proto::http1::Request;
use crate::proto::interface::{Action, ReadInterest, Timer, TransportEnd, Upgrade};
use crate::proto::relay::Relayed;
use crate::proto::settings::{Settings, Timeouts};
use crate::proto::{Millis, Side};

#[derive(Debug)]
pub(super) struct Connect {
    request: RequestBuffer,
    attempt_since: Millis,
    /// Why the last attempt failed.
    last: Cause,
    waits_for: WaitsFor,
}

/// What the connect attempts wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// The outcome of the attempt under way.
    Outcome,
    /// A descriptor: they come back with every session that ends. As long as the time for all
    /// attempts lasts.
    Socket,
    /// Room at an endpoint, until this time. The time for the attempts begins after it.
    Room(Millis),
}

/// An attempt that could not be made is made again after this time.
const RETRY_MS: Millis = 100;

impl Connect {
    pub fn new(request: RequestBuffer, now: Millis) -> Connect {
        Connect { request, attempt_since: now, last: Cause::NoEndpoint, waits_for: WaitsFor::Outcome }
    }

    /// After an endpoint failed for this cause.
    pub fn after(cause: Cause, request: RequestBuffer, now: Millis) -> Connect {
        Connect { last: cause, ..Connect::new(request, now) }
    }

    pub fn on_connected(&mut self, upgrade: Upgrade, step: &mut Step<'_>) {
        let request = std::mem::take(&mut self.request);
        if let Some(inbound) = request.plain() {
            return Forward::begin(request, inbound, upgrade, step);
        }
        step.actions.push(Action::Send(Side::Upstream, upgrade.request));
        step.enter(Phase::Response(Box::new(AwaitResponse::new(request, upgrade.response, upgrade.may_retry))));
    }

    pub fn on_attempt_failed(&mut self, cause: Cause, step: &mut Step<'_>) {
        self.last = cause;
        self.waits_for = WaitsFor::Outcome;
        self.attempt_since = step.now;
        step.actions.push(Action::Connect);
    }

    pub fn on_no_socket(&mut self, step: &mut Step<'_>) {
        self.waits_for = WaitsFor::Socket;
        self.attempt_since = step.now;
    }

    pub fn on_queued(&mut self, until: Millis, step: &mut Step<'_>) {
        self.waits_for = WaitsFor::Room(until);
        self.attempt_since = step.now;
    }

    pub fn on_room(&mut self, step: &mut Step<'_>) {
        if let WaitsFor::Room(_) = self.waits_for {
            self.try_again(step);
        }
    }

    pub fn on_exhausted(&mut self, cause: Option<Cause>, step: &mut Step<'_>) {
        let party = if cause.is_some_and(is_ours) { Party::Proxy } else { Party::Upstream };
        self.refuse(party, cause.unwrap_or(self.last), step);
    }

    /// The process stops: the client's connection ends with its response.
    pub fn on_drain(&mut self) {
        self.request.close_after();
    }

    /// A plain request is refused; a handshake goes on, and ends once it is established.
    pub fn on_credentials_ended(&mut self, cause: Cause, step: &mut Step<'_>) {
        if self.request.plain().is_some() {
            self.refuse(Party::Proxy, cause, step);
        }
    }

    /// The attempt is to be made again.
    fn try_again(&mut self, step: &mut Step<'_>) {
        if let WaitsFor::Room(_) = self.waits_for {
            // The phase begins anew, and with it the time for all attempts.
            let request = std::mem::take(&mut self.request);
            step.enter(Phase::Connect(Box::new(Connect::after(self.last, request, step.now))));
        }
        self.waits_for = WaitsFor::Outcome;
        step.actions.push(Action::Connect);
    }

    fn refuse(&self, party: Party, cause: Cause, step: &mut Step<'_>) {
        step.refuse(party, cause, self.request.is_head());
    }
}

/// Limits of the proxy, not a failure of the upstream.
fn is_ours(cause: Cause) -> bool {
    matches!(cause, Cause::UpstreamFull | Cause::QueueTimeout)
}

impl Handler for Connect {
    const PHASE: end::Phase = end::Phase::Connect;

    fn on_bytes(&mut self, from: Side, bytes: &[u8], _: &mut Step<'_>) -> Relayed {
        match from {
            Side::Downstream => self.request.keep(bytes),
            Side::Upstream => Relayed::consume(bytes.len()),
        }
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match side {
            Side::Downstream => step.client_left(end),
            Side::Upstream => self.refuse(Party::Upstream, end.cause(), step),
        }
    }

    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        match side {
            Side::Downstream => self.refuse(Party::Downstream, Cause::UrgentData, step),
            Side::Upstream => self.refuse(Party::Upstream, Cause::BadResponse, step),
        }
    }

    fn on_timer(&mut self, timer: Timer, step: &mut Step<'_>) {
        match (timer, self.waits_for) {
            (Timer::Connect, WaitsFor::Outcome) => self.on_attempt_failed(Cause::ConnectTimeout, step),
            (Timer::Connect, WaitsFor::Socket | WaitsFor::Room(_)) => self.try_again(step),
            (_, WaitsFor::Outcome) => self.refuse(Party::Upstream, Cause::ConnectTimeout, step),
            (_, WaitsFor::Socket) => self.refuse(Party::Proxy, Cause::NoSockets, step),
            (_, WaitsFor::Room(_)) => self.refuse(Party::Proxy, Cause::QueueTimeout, step),
        }
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, _: Side, _: &Settings) -> ReadInterest {
        ReadInterest::Nothing
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        let (total, attempt_ms) = match self.waits_for {
            WaitsFor::Outcome => (since + timeouts.connect_total_ms, timeouts.connect_ms),
            WaitsFor::Socket => (since + timeouts.connect_total_ms, RETRY_MS),
            WaitsFor::Room(until) => (until, RETRY_MS),
        };
        (total, Timer::ConnectTotal).min((self.attempt_since + attempt_ms, Timer::Connect))
    }

    fn request(&self) -> Option<Request<'_>> {
        self.request.request()
    }

    fn is_silent(&self) -> bool {
        false
    }

    fn client_waits(&self) -> bool {
        true
    }
}
