//! The request: its head is read, then policy decides. What the client sends behind its head is
//! kept, and judged as frames only after a valid 101.

use super::buffer::RequestBuffer;
use super::connect::Connect;
use super::{Handler, Next, Phase, Step};
use crate::proto::end::{self, Cause, Party};
use crate::proto::handshake::asks_for_websocket;
use crate::proto::http1::{self, Framing, HeadScan, Request, Spans};
use crate::proto::interface::{Action, Admission, ReadInterest, Refusal, Timer, TransportEnd};
use crate::proto::plain;
use crate::proto::relay::Relayed;
use crate::proto::settings::{Settings, Timeouts};
use crate::proto::{Millis, Side};
use std::sync::Arc;

/// The request head is being read.
#[derive(Debug, Default)]
pub(super) struct ReadRequest {
    held: Vec<u8>,
    scan: HeadScan,
    /// There was a request before it on this connection.
    is_next: bool,
    /// When its first byte came, once it has.
    begun_at: Millis,
    /// The response before it is on its way: nothing is read or judged before that has left.
    waits: bool,
}

impl ReadRequest {
    /// Behind another request, whose response is on its way until [`ReadRequest::begin`]; `held`
    /// has come with it.
    pub fn next(held: Vec<u8>) -> ReadRequest {
        ReadRequest { held, scan: HeadScan::default(), is_next: true, begun_at: 0, waits: true }
    }

    /// The response before it has not left.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Its client has been answered, and has said nothing since.
    pub fn is_idle(&self) -> bool {
        self.is_next && !self.waits && self.is_silent()
    }

    /// The response before it has left: what is held is judged.
    pub fn begin(&mut self, step: &mut Step<'_>) {
        self.waits = false;
        if !self.is_silent() {
            self.begun_at = step.now;
            self.advance(step);
        }
    }

    /// Judges what is held of the head.
    fn advance(&mut self, step: &mut Step<'_>) {
        let done = match self.scan.advance(&self.held) {
            Ok(None) if self.held.len() >= step.settings.head_bytes => Err(Cause::HeadTooLarge),
            Ok(None) => Ok(()),
            Ok(Some(head_len)) => self.complete(head_len, step),
            Err(cause) => Err(cause),
        };
        if let Err(cause) = done {
            self.refuse(cause, step);
        }
    }

    fn refuse(&self, cause: Cause, step: &mut Step<'_>) {
        step.refuse(Party::Downstream, cause, http1::is_head(&self.held));
    }

    fn complete(&mut self, head_len: usize, step: &mut Step<'_>) -> Result<(), Cause> {
        let (head, early) = self.held.split_at_checked(head_len).unwrap_or((&self.held, &[]));
        let request = match Spans::parse(head) {
            Ok(spans) => RequestBuffer::new(std::mem::take(&mut self.held), head_len, spans),
            // Its target may have raw bytes that are accepted, but never forwarded raw.
            Err(cause) => {
                let mut encoded = http1::encode_target(head).ok_or(cause)?;
                let (head_len, spans) = (encoded.len(), Spans::parse(&encoded)?);
                encoded.extend_from_slice(early);
                RequestBuffer::new(encoded, head_len, spans)
            }
        };
        step.actions.push(Action::Decide);
        step.enter(Phase::Decision(Box::new(Decision { request })));
        Ok(())
    }
}

impl Handler for ReadRequest {
    const PHASE: end::Phase = end::Phase::Request;

    fn on_bytes(&mut self, from: Side, bytes: &[u8], step: &mut Step<'_>) -> Relayed {
        if from == Side::Downstream {
            if self.is_silent() {
                self.begun_at = step.now;
            }
            self.held.extend_from_slice(bytes);
            self.advance(step);
        }
        Relayed::consume(bytes.len())
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match side {
            Side::Downstream if self.is_silent() => {
                step.found = Some((Party::Downstream, Cause::NoRequest));
                step.over();
            }
            Side::Downstream => step.client_left(end),
            // There is no upstream yet.
            Side::Upstream => {}
        }
    }

    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        match side {
            Side::Downstream => self.refuse(Cause::UrgentData, step),
            Side::Upstream => {}
        }
    }

    fn on_timer(&mut self, _: Timer, step: &mut Step<'_>) {
        if self.is_silent() {
            step.found = Some((Party::Downstream, Cause::NoRequest));
            step.over();
        } else {
            self.refuse(Cause::HeadTimeout, step);
        }
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, side: Side, settings: &Settings) -> ReadInterest {
        match side {
            Side::Downstream if self.waits => ReadInterest::Nothing,
            // No more than the limit less what is held; the rest stays in the kernel.
            Side::Downstream => ReadInterest::Bytes(settings.head_bytes.saturating_sub(self.held.len()).max(1)),
            Side::Upstream => ReadInterest::Nothing,
        }
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        let at = match (self.is_next, self.is_silent()) {
            // The write stall bounds it.
            _ if self.waits => Millis::MAX,
            (true, true) => since + timeouts.keep_alive_ms,
            (true, false) => self.begun_at + timeouts.request_head_ms,
            (false, _) => since + timeouts.request_head_ms,
        };
        (at, Timer::RequestHead)
    }

    fn request(&self) -> Option<Request<'_>> {
        None
    }

    fn is_silent(&self) -> bool {
        self.held.is_empty()
    }

    fn client_waits(&self) -> bool {
        false
    }
}

/// Policy decides; it may ask others and take its time.
#[derive(Debug)]
pub(super) struct Decision {
    request: RequestBuffer,
}

impl Decision {
    pub fn on_admitted(&mut self, admission: Admission, step: &mut Step<'_>) {
        *step.settings = Arc::clone(&admission.settings);
        if admission.plain.is_some_and(|inbound| inbound.is_longer_than(step.settings.max_body)) {
            return step.refuse(Party::Downstream, Cause::BodyTooLarge, self.request.is_head());
        }
        let request = std::mem::take(&mut self.request).admitted(admission);
        step.actions.push(Action::Connect);
        step.enter(Phase::Connect(Box::new(Connect::new(request, step.now))));
    }

    /// The route answers the request itself. The client may ask again on this connection where its
    /// request is complete and says so, by the rules of plain HTTP.
    pub fn on_reply(&mut self, party: Party, refusal: Refusal, step: &mut Step<'_>) {
        let head_only = self.request.is_head();
        if !self.request.request().is_some_and(|request| may_follow(&request)) || refusal.status() == 426 {
            return step.refuse(party, refusal, head_only);
        }
        step.found = Some((party, refusal.cause));
        *step.status = refusal.status();
        step.actions.push(Action::Reply { refusal, head_only });
        step.next = Some(Next::Answered(self.request.take_early()));
    }
}

/// Another request may follow this one, which has no body.
fn may_follow(request: &Request<'_>) -> bool {
    let plain = plain::judge_request(request).is_ok_and(|inbound| {
        let is_whole = matches!(inbound.framing, Framing::None | Framing::Length(0));
        is_whole && inbound.persistent && !inbound.is_http10
    });
    plain && !asks_for_websocket(request)
}

impl Handler for Decision {
    const PHASE: end::Phase = end::Phase::Request;

    fn on_bytes(&mut self, from: Side, bytes: &[u8], _: &mut Step<'_>) -> Relayed {
        match from {
            // The rest of the read that completed the head.
            Side::Downstream => self.request.keep(bytes),
            Side::Upstream => Relayed::consume(bytes.len()),
        }
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match side {
            Side::Downstream => step.client_left(end),
            // There is no upstream yet.
            Side::Upstream => {}
        }
    }

    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        match side {
            Side::Downstream => step.refuse(Party::Downstream, Cause::UrgentData, self.request.is_head()),
            Side::Upstream => {}
        }
    }

    fn on_timer(&mut self, _: Timer, step: &mut Step<'_>) {
        step.refuse(Party::Proxy, Cause::DecisionTimeout, self.request.is_head());
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, _: Side, _: &Settings) -> ReadInterest {
        ReadInterest::Nothing
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        (since + timeouts.decision_ms, Timer::Decision)
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
