//! The upstream is being reached: one connect attempt after the other, until one succeeds, none is
//! left, or the time for all of them is over.

use super::buffer::RequestBuffer;
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
    /// There was no socket for the attempt: it waits to be made again.
    waits_for_socket: bool,
}

/// An attempt for which there was no socket is made again after this time, as long as the time for
/// all attempts lasts: descriptors come back with every session that ends.
const SOCKET_RETRY_MS: Millis = 100;

impl Connect {
    pub fn new(request: RequestBuffer, now: Millis) -> Connect {
        Connect { request, attempt_since: now, last: Cause::NoEndpoint, waits_for_socket: false }
    }

    pub fn on_connected(&mut self, upgrade: Upgrade, step: &mut Step<'_>) {
        step.actions.push(Action::Send(Side::Upstream, upgrade.request));
        step.enter(Phase::Response(AwaitResponse::new(std::mem::take(&mut self.request), upgrade.response)));
    }

    pub fn on_attempt_failed(&mut self, cause: Cause, step: &mut Step<'_>) {
        self.last = cause;
        self.attempt_since = step.now;
        step.actions.push(Action::Connect);
    }

    pub fn on_no_socket(&mut self, step: &mut Step<'_>) {
        self.waits_for_socket = true;
        self.attempt_since = step.now;
    }

    pub fn on_exhausted(&mut self, step: &mut Step<'_>) {
        self.refuse(Party::Upstream, self.last, step);
    }

    fn refuse(&self, party: Party, cause: Cause, step: &mut Step<'_>) {
        step.refuse(party, cause, self.request.is_head());
    }
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
        match (timer, self.waits_for_socket) {
            (Timer::Connect, true) => {
                self.waits_for_socket = false;
                step.actions.push(Action::Connect);
            }
            (Timer::Connect, false) => self.on_attempt_failed(Cause::ConnectTimeout, step),
            (_, true) => self.refuse(Party::Proxy, Cause::NoSockets, step),
            (_, false) => self.refuse(Party::Upstream, Cause::ConnectTimeout, step),
        }
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, _: Side, _: &Settings) -> ReadInterest {
        ReadInterest::Nothing
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        let total = (since + timeouts.connect_total_ms, Timer::ConnectTotal);
        let attempt_ms = if self.waits_for_socket { SOCKET_RETRY_MS } else { timeouts.connect_ms };
        total.min((self.attempt_since + attempt_ms, Timer::Connect))
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
