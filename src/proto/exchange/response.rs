//! The response: the upstream's head is read and judged. A 101 ends the exchange in a relay; any
//! other status is forwarded with its body.

use super::buffer::RequestBuffer;
use super::{Handler, Next, Phase, Step};
use crate::proto::end::{self, Cause, Party};
use crate::proto::handshake::{self, Switching};
use crate::proto::http1::{self, Body, FieldEdits, HeadScan, Request};
use crate::proto::interface::{Action, ReadInterest, Timer, TransportEnd};
use crate::proto::relay::Relay;
use crate::proto::relay::{RelayInput, Relayed};
use crate::proto::settings::{Failure, Settings, Timeouts};
use crate::proto::{Millis, Side};

/// Responses with a status other than 101 are forwarded with up to this many bytes of body.
const ERROR_BODY_MAX: u64 = 1 << 20;
/// All interim (1xx) responses together.
const INTERIM_BYTES_MAX: usize = 16 * 1024;

/// The request has been sent; the head of the response is being read.
#[derive(Debug)]
pub(super) struct AwaitResponse {
    request: RequestBuffer,
    edits: FieldEdits,
    held: Vec<u8>,
    scan: HeadScan,
    interim_bytes: usize,
    /// There is another endpoint for a retry.
    may_retry: bool,
}

impl AwaitResponse {
    /// `edits`: for the response that is passed on.
    pub fn new(request: RequestBuffer, edits: FieldEdits, may_retry: bool) -> AwaitResponse {
        AwaitResponse { request, edits, held: Vec::new(), scan: HeadScan::default(), interim_bytes: 0, may_retry }
    }

    /// Tries another endpoint, if the route allows it after `failure` and there is one.
    fn retries(&mut self, failure: Failure, cause: Cause, step: &mut Step<'_>) -> bool {
        let retries = self.may_retry && step.settings.retry_on.includes(failure);
        if retries {
            let request = std::mem::take(&mut self.request);
            step.actions.push(Action::Retry);
            step.enter(Phase::connect_after(cause, request, step.now));
        }
        retries
    }

    pub fn on_response_bytes(&mut self, bytes: &[u8], input: RelayInput<'_>, step: &mut Step<'_>) -> Relayed {
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        let head_len = match self.scan.advance(&self.held) {
            Ok(Some(head_len)) => head_len,
            Ok(None) if self.held.len() < step.settings.head_bytes => return Relayed::consume(bytes.len()),
            Ok(None) | Err(_) => {
                self.refuse(Party::Upstream, Cause::BadResponse, step);
                return Relayed::consume(bytes.len());
            }
        };
        // Never zero: without the first of these bytes the head was not complete.
        let used = head_len.saturating_sub(before).max(1);
        if let Err(cause) = self.on_head(head_len, input, step) {
            self.refuse(Party::Upstream, cause, step);
        }
        Relayed::consume(used)
    }

    fn on_head(&mut self, head_len: usize, input: RelayInput<'_>, step: &mut Step<'_>) -> Result<(), Cause> {
        self.held.truncate(head_len);
        let response = http1::parse_response(&self.held)?;
        match response.status {
            101 => {
                let request = self.request.request().ok_or(Cause::MalformedHead)?;
                let Switching { accept, extensions } = handshake::judge_response(&request, &response)?;
                let head = handshake::write_switching(&response, &accept, &self.edits);
                let subprotocol = http1::elements(&response.fields, "sec-websocket-protocol").next().map(Box::from);
                let early = self.request.take_early();
                let opening = self.request.take_opening(&response);
                step.actions
                    .extend([Action::Send(Side::Downstream, head), Action::Established { subprotocol, opening }]);
                let limits = self.request.take_limits();
                upgrade(Relay::new(extensions, &step.settings.relay, limits, step.now), early, input, step);
                Ok(())
            }
            // Not forwarded, against RFC 9110 section 15.2 on purpose: handshake clients fail on
            // them.
            100..200 => {
                self.interim_bytes += head_len;
                self.held.clear();
                self.scan = HeadScan::default();
                if self.interim_bytes > INTERIM_BYTES_MAX { Err(Cause::BadResponse) } else { Ok(()) }
            }
            status if self.may_retry && step.settings.retry_on.includes(Failure::Status(status)) => {
                self.retries(Failure::Status(status), Cause::BadResponse, step);
                Ok(())
            }
            status => {
                let body = http1::body_of(&response)?;
                let head = http1::write_response(&response, self.request.id(), &self.edits);
                step.actions.push(Action::Send(Side::Downstream, head));
                *step.status = status;
                step.found = Some((Party::Upstream, Cause::UpstreamResponse));
                match body {
                    Body::None => step.linger(),
                    body => step.enter(Phase::ErrorBody(ErrorBody { body, forwarded: 0 })),
                }
                Ok(())
            }
        }
    }

    fn refuse(&self, party: Party, cause: Cause, step: &mut Step<'_>) {
        step.refuse(party, cause, self.request.is_head());
    }
}

/// The 101: from here on the session is a relay, which judges what the client sent early.
fn upgrade(mut relay: Relay, early: Vec<u8>, input: RelayInput<'_>, step: &mut Step<'_>) {
    let (early, found) = relay.replay(early, &step.settings.relay, input);
    *step.status = 101;
    step.found = found;
    if !early.is_empty() {
        step.actions.push(Action::Send(Side::Upstream, early));
    }
    step.next = Some(Next::Relay(relay));
}

impl Handler for AwaitResponse {
    const PHASE: end::Phase = end::Phase::Response;

    fn on_bytes(&mut self, from: Side, bytes: &[u8], _: &mut Step<'_>) -> Relayed {
        match from {
            Side::Downstream => self.request.keep(bytes),
            // `on_response_bytes` has them.
            Side::Upstream => Relayed::consume(bytes.len()),
        }
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match side {
            Side::Downstream => step.client_left(end),
            // Part of a response has an effect already.
            Side::Upstream if self.held.is_empty() && self.retries(Failure::Closed, end.cause(), step) => {}
            Side::Upstream => self.refuse(Party::Upstream, end.cause(), step),
        }
    }

    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        match side {
            Side::Downstream => self.refuse(Party::Downstream, Cause::UrgentData, step),
            Side::Upstream => self.refuse(Party::Upstream, Cause::BadResponse, step),
        }
    }

    fn on_timer(&mut self, _: Timer, step: &mut Step<'_>) {
        if !self.retries(Failure::Timeout, Cause::ResponseTimeout, step) {
            self.refuse(Party::Upstream, Cause::ResponseTimeout, step);
        }
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, side: Side, settings: &Settings) -> ReadInterest {
        match side {
            Side::Downstream => ReadInterest::Nothing,
            Side::Upstream => ReadInterest::Bytes(settings.head_bytes.saturating_sub(self.held.len()).max(1)),
        }
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        (since + timeouts.upstream_head_ms, Timer::ResponseHead)
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

/// The body of a response that is not a 101 is being forwarded. It has what is left of the head's
/// timeout. There is no room for another response: whatever ends it, the client gets a FIN or a
/// reset.
#[derive(Debug)]
pub(super) struct ErrorBody {
    body: Body,
    forwarded: u64,
}

impl Handler for ErrorBody {
    const PHASE: end::Phase = end::Phase::Response;

    fn on_bytes(&mut self, from: Side, bytes: &[u8], step: &mut Step<'_>) -> Relayed {
        if from == Side::Downstream {
            return Relayed::consume(bytes.len());
        }
        let room = usize::try_from(ERROR_BODY_MAX - self.forwarded).unwrap_or(usize::MAX).min(bytes.len());
        // Chunks that are not well-formed end the body where they stop being so.
        let (n, done) = self.body.advance(bytes.get(..room).unwrap_or(bytes)).unwrap_or((0, true));
        self.forwarded += n as u64;
        if done || self.forwarded >= ERROR_BODY_MAX {
            step.linger();
        }
        Relayed { consumed: bytes.len(), ..Relayed::forward(n) }
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match (side, end) {
            (Side::Upstream, TransportEnd::Eof) => step.linger(),
            (Side::Upstream, TransportEnd::Cut | TransportEnd::Reset | TransportEnd::Failed(_)) => {
                // The rest of the response is lost: the client must not take it for complete.
                step.actions.push(Action::Abort(Side::Downstream));
                step.over();
            }
            (Side::Downstream, TransportEnd::Eof | TransportEnd::Cut) => {
                // It may have half-closed: what was read for it is still sent.
                step.actions.push(Action::Abort(Side::Upstream));
                step.linger();
            }
            (Side::Downstream, TransportEnd::Reset | TransportEnd::Failed(_)) => step.client_left(end),
        }
    }

    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        step.found = Some(match side {
            Side::Downstream => (Party::Downstream, Cause::UrgentData),
            Side::Upstream => (Party::Upstream, Cause::BadResponse),
        });
        step.linger();
    }

    fn on_timer(&mut self, _: Timer, step: &mut Step<'_>) {
        step.linger();
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, side: Side, _: &Settings) -> ReadInterest {
        match side {
            Side::Downstream => ReadInterest::Nothing,
            Side::Upstream => ReadInterest::Bytes(usize::MAX),
        }
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        (since + timeouts.upstream_head_ms, Timer::ResponseHead)
    }

    fn request(&self) -> Option<Request<'_>> {
        None
    }

    fn is_silent(&self) -> bool {
        false
    }

    fn client_waits(&self) -> bool {
        true
    }
}
