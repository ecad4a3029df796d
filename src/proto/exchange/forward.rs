//! A plain request and its response, each on its way as it comes: the head of the request has been
//! sent, its body follows while the response is awaited, read and forwarded. Bodies are never held.
//! When both are complete, the connections may serve the next request.

use super::buffer::RequestBuffer;
use super::download::Download;
use super::{Handler, Next, Phase, Step};
use crate::proto::end::{self, Cause, Party};
use crate::proto::http1::{self, FieldEdits, Framing, HeadScan, Malformed, Passage, Passed, Request, Response};
use crate::proto::interface::{Action, ReadInterest, Timer, TransportEnd, Upgrade};
use crate::proto::plain::{self, Answering, Inbound, Outbound};
use crate::proto::relay::{RelayInput, Relayed};
use crate::proto::settings::{Failure, Settings, Timeouts};
use crate::proto::{Millis, Side, Sides};

/// All interim (1xx) responses together.
const INTERIM_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Forward {
    request: RequestBuffer,
    inbound: Inbound,
    /// The body of the request.
    upload: Passage,
    /// What the client has sent behind it: the start of its next request.
    behind: Vec<u8>,
    response: Received,
    edits: FieldEdits,
    /// Another endpoint may get the request.
    may_retry: bool,
    /// The connection to the upstream carried other requests before.
    reused: bool,
    /// When bytes moved last, in either direction. The bytes of an incomplete response head do not
    /// count.
    moved_at: Millis,
    /// When the client's credentials end, if they do.
    until: Option<Millis>,
    /// Who answers.
    by: Party,
}

/// So much of the response has come.
#[derive(Debug)]
enum Received {
    /// A part of its head, behind so many bytes of interim responses.
    Head { held: Vec<u8>, scan: HeadScan, interim_bytes: usize },
    /// Its head, and a part of its body.
    Body(Download),
}

impl Forward {
    /// The upstream is reached: the whole head of the request goes there, with the part of the body
    /// that has come with it.
    pub fn begin(mut request: RequestBuffer, inbound: Inbound, upgrade: Upgrade, step: &mut Step<'_>) {
        let (early, mut sent) = (request.take_early(), upgrade.request);
        let mut forward = Forward {
            upload: Passage::new(inbound.framing, false),
            behind: Vec::new(),
            response: Received::Head { held: Vec::new(), scan: HeadScan::default(), interim_bytes: 0 },
            edits: upgrade.response,
            may_retry: upgrade.may_retry,
            reused: upgrade.reused,
            moved_at: step.now,
            until: upgrade.until,
            by: upgrade.by,
            request,
            inbound,
        };
        match forward.take_early(&early, &mut sent, step.settings) {
            Err(cause) => step.refuse(Party::Downstream, cause, inbound.is_head),
            Ok(()) => {
                step.actions.push(Action::Send(Side::Upstream, sent));
                step.enter(Phase::Forward(Box::new(forward)));
            }
        }
    }

    fn take_early(&mut self, early: &[u8], out: &mut Vec<u8>, settings: &Settings) -> Result<(), Cause> {
        let (mut rest, mut authored) = (early, Vec::new());
        while !rest.is_empty() && !self.upload.is_done() {
            let passed = self.upload.pass(rest, &mut authored).map_err(|Malformed| Cause::BadFraming)?;
            out.append(&mut authored);
            out.extend_from_slice(rest.get(..passed.forward).unwrap_or_default());
            rest = rest.get(passed.consumed..).unwrap_or_default();
            self.judge_size(settings)?;
        }
        self.behind = rest.to_vec();
        Ok(())
    }

    fn judge_size(&self, settings: &Settings) -> Result<(), Cause> {
        if self.upload.content > settings.max_body { Err(Cause::BodyTooLarge) } else { Ok(()) }
    }

    /// Content of the bodies that have passed.
    pub fn bytes(&self) -> Sides<u64> {
        let response = match &self.response {
            Received::Head { .. } => 0,
            Received::Body(download) => download.content(),
        };
        Sides::new(self.upload.content, response)
    }

    /// A receiver has taken some of its backlog.
    pub fn on_taken(&mut self, now: Millis) {
        self.moved_at = now;
    }

    /// The process stops: the client's connection ends with this response, and one without an end
    /// ends now.
    pub fn on_drain(&mut self, step: &mut Step<'_>) {
        self.inbound.persistent = false;
        self.end_stream(Cause::Drain, step);
    }

    /// Its endpoint gets no new requests any more: a response without an end ends now.
    pub fn on_endpoint_down(&mut self, step: &mut Step<'_>) {
        self.end_stream(Cause::EndpointDown, step);
    }

    fn end_stream(&mut self, cause: Cause, step: &mut Step<'_>) {
        let Received::Body(download) = &mut self.response else { return };
        if download.is_streaming(step.now) {
            download.end(cause, step.now.saturating_add(step.settings.timeouts.close_ms));
            self.cut_if_whole(step);
        }
    }

    /// Ends a response that is to end, if no chunk of it is half sent. The client can tell that it
    /// is not complete.
    fn cut_if_whole(&mut self, step: &mut Step<'_>) -> bool {
        let Received::Body(download) = &self.response else { return false };
        let Some(cause) = download.ends_here() else { return false };
        if download.shows_cut() {
            step.found = Some((Party::Proxy, cause));
            step.linger();
        } else {
            self.fail(Party::Proxy, cause, step);
        }
        true
    }

    /// The response has begun, and has no end as far as can be told.
    pub fn is_streaming(&self, now: Millis) -> bool {
        matches!(&self.response, Received::Body(download) if download.is_streaming(now))
    }

    /// The client may not have what it asked for any more.
    pub fn on_credentials_ended(&mut self, cause: Cause, step: &mut Step<'_>) {
        let cause = match (cause, self.is_answering()) {
            (Cause::Expired, false) => Cause::CredentialsExpired,
            (cause, _) => cause,
        };
        self.fail(Party::Proxy, cause, step);
    }

    /// The client has a part of its response.
    pub fn is_answering(&self) -> bool {
        matches!(self.response, Received::Body(_))
    }

    pub fn on_slice(&mut self, from: Side, bytes: &[u8], input: RelayInput<'_>, step: &mut Step<'_>) -> Relayed {
        if from == Side::Downstream || self.is_answering() {
            self.moved_at = input.now;
        }
        match from {
            Side::Downstream => self.on_request_bytes(bytes, input.authored, step),
            Side::Upstream => self.on_response_bytes(bytes, input.authored, step),
        }
    }

    fn on_request_bytes(&mut self, bytes: &[u8], authored: &mut Vec<u8>, step: &mut Step<'_>) -> Relayed {
        if self.upload.is_done() {
            self.behind.extend_from_slice(bytes);
            return Relayed::consume(bytes.len());
        }
        let passed = self.upload.pass(bytes, authored).map_err(|Malformed| Cause::BadFraming);
        match passed.and_then(|passed| self.judge_size(step.settings).map(|()| passed)) {
            Ok(Passed { forward, consumed }) => {
                if self.upload.is_done() && self.response_is_complete() {
                    self.finish(step);
                }
                Relayed { consumed, ..Relayed::forward(forward) }
            }
            Err(cause) => {
                authored.clear();
                self.fail(Party::Downstream, cause, step);
                Relayed::consume(bytes.len())
            }
        }
    }

    fn on_response_bytes(&mut self, bytes: &[u8], authored: &mut Vec<u8>, step: &mut Step<'_>) -> Relayed {
        match &mut self.response {
            Received::Head { .. } => self.on_head_bytes(bytes, authored, step),
            Received::Body(download) => {
                let Ok(passed) = download.pass(bytes, authored) else {
                    authored.clear();
                    self.fail(self.by, Cause::BadResponse, step);
                    return Relayed::consume(bytes.len());
                };
                if !download.is_done() {
                    // The rest has no receiver any more.
                    let consumed = if self.cut_if_whole(step) { bytes.len() } else { passed.consumed };
                    return Relayed { consumed, ..Relayed::forward(passed.forward) };
                }
                // What an upstream says behind its response belongs to no request.
                download.persistent &= passed.consumed == bytes.len();
                let relayed = Relayed { consumed: bytes.len(), ..Relayed::forward(passed.forward) };
                self.finish(step);
                relayed
            }
        }
    }

    fn on_head_bytes(&mut self, bytes: &[u8], authored: &mut Vec<u8>, step: &mut Step<'_>) -> Relayed {
        let Received::Head { held, scan, .. } = &mut self.response else { return Relayed::consume(bytes.len()) };
        let before = held.len();
        let fresh = bytes.get(..step.settings.head_bytes - before).unwrap_or(bytes);
        // Most heads come whole: they are read where they are.
        if before > 0 {
            held.extend_from_slice(fresh);
        }
        let head_len = match scan.advance(if before > 0 { held } else { fresh }) {
            Ok(Some(head_len)) => head_len,
            Ok(None) if before + fresh.len() < step.settings.head_bytes => {
                if before == 0 {
                    held.extend_from_slice(fresh);
                }
                return Relayed::consume(bytes.len());
            }
            Ok(None) | Err(_) => {
                self.fail(self.by, Cause::BadResponse, step);
                return Relayed::consume(bytes.len());
            }
        };
        let held = std::mem::take(held);
        let head = if before > 0 { &held } else { fresh };
        let head = head.get(..head_len).unwrap_or_default();
        // Never zero: without the first of these bytes the head was not complete.
        let used = head_len.saturating_sub(before).max(1);
        let is_last = used >= bytes.len();
        self.moved_at = step.now;
        if let Err(cause) = self.on_head(head, is_last, authored, step) {
            authored.clear();
            self.fail(self.by, cause, step);
        }
        // The rest is not for what follows this phase: that may have another upstream already.
        Relayed::consume(if step.next.is_some() { bytes.len() } else { used })
    }

    /// The head of a response is complete; `is_last`: nothing has come behind it.
    fn on_head(
        &mut self,
        head: &[u8],
        is_last: bool,
        authored: &mut Vec<u8>,
        step: &mut Step<'_>,
    ) -> Result<(), Cause> {
        let response = http1::parse_response(head)?;
        match response.status {
            // A 101 is judged below.
            100 | 102..200 => self.on_interim(&response, head.len(), authored),
            status if self.may_retry(Failure::Status(status), step.settings) => {
                self.ask_again(Action::Retry, Cause::BadResponse, step);
                Ok(())
            }
            _ => self.on_final(&response, is_last, authored, step),
        }
    }

    fn on_interim(&mut self, response: &Response<'_>, len: usize, authored: &mut Vec<u8>) -> Result<(), Cause> {
        let Received::Head { held, scan, interim_bytes } = &mut self.response else { return Ok(()) };
        (*held, *scan) = Default::default();
        *interim_bytes += len;
        if *interim_bytes > INTERIM_BYTES_MAX {
            return Err(Cause::BadResponse);
        }
        // "A server MUST NOT send a 1xx response to an HTTP/1.0 client." (RFC 9110 section 15.2)
        if !self.inbound.is_http10 {
            plain::write_interim(authored, response, &self.edits);
        }
        Ok(())
    }

    fn on_final(
        &mut self,
        response: &Response<'_>,
        is_last: bool,
        authored: &mut Vec<u8>,
        step: &mut Step<'_>,
    ) -> Result<(), Cause> {
        let outbound = plain::judge_response(response, &self.inbound)?;
        let Outbound { framing, persistent } = outbound;
        let dechunked = framing == Framing::Chunked && self.inbound.is_http10;
        // Before the end of its request a response is one that does not wait for it.
        let closes = !self.inbound.persistent || !self.upload.is_done() || dechunked || framing == Framing::UntilEof;
        // Errors of ours are no files: a browser must not keep them as the route says of those.
        let none = FieldEdits::new();
        let is_ours = self.by == Party::Proxy && response.status >= 400;
        let answering = Answering {
            inbound: &self.inbound,
            outbound: &outbound,
            closes,
            request_id: self.request.id(),
            edits: if is_ours { &none } else { &self.edits },
        };
        let mut download = Download::new(response, framing, dechunked, step.now);
        (download.closes, download.persistent) = (closes, persistent && self.upload.is_done());
        let (is_complete, is_event_stream) = (download.is_done(), download.is_event_stream());
        if is_last || is_complete {
            plain::write_response(authored, response, &answering);
        } else {
            plain::write_response(&mut download.owed, response, &answering);
        }
        download.persistent &= is_last || !is_complete;
        *step.status = response.status;
        self.response = Received::Body(download);
        if is_complete {
            self.finish(step);
        } else if is_event_stream {
            step.actions.push(Action::Streaming);
        }
        Ok(())
    }

    fn response_is_complete(&self) -> bool {
        matches!(&self.response, Received::Body(download) if download.is_done())
    }

    /// The response is complete. Where its request is too, the connections can serve the next one.
    fn finish(&mut self, step: &mut Step<'_>) {
        let Received::Body(download) = &self.response else { return };
        step.found = Some((self.by, Cause::Answered));
        step.actions.push(if download.persistent { Action::Release } else { Action::Hangup(Side::Upstream) });
        if download.closes {
            step.linger();
        } else {
            step.next = Some(Next::Answered(std::mem::take(&mut self.behind)));
        }
    }

    /// The request may be sent to another endpoint.
    fn may_retry(&self, failure: Failure, settings: &Settings) -> bool {
        self.may_retry && self.is_repeatable() && settings.retry_on.includes(failure)
    }

    /// A second request does the same as this one, and nothing of this one is gone: an empty body
    /// in chunks is a last chunk that has left.
    fn is_repeatable(&self) -> bool {
        self.inbound.is_idempotent && matches!(self.inbound.framing, Framing::None | Framing::Length(0))
    }

    /// Not a byte of a response has come, not even of an interim one.
    fn is_unanswered(&self) -> bool {
        matches!(&self.response, Received::Head { held, interim_bytes: 0, .. } if held.is_empty())
    }

    /// Asks once more: `action` says over which connection.
    fn ask_again(&mut self, action: Action, cause: Cause, step: &mut Step<'_>) {
        let mut request = std::mem::take(&mut self.request);
        // The next requests of the client are as early again as they were, and it may take no more
        // of them by now.
        request.keep(&self.behind);
        if !self.inbound.persistent {
            request.close_after();
        }
        step.actions.push(action);
        step.enter(Phase::connect_after(cause, request, step.now));
    }

    /// Ends the exchange: with a refusal, or, where a response has begun, so that the client does
    /// not take that for complete.
    fn fail(&mut self, party: Party, cause: Cause, step: &mut Step<'_>) {
        match &self.response {
            Received::Head { .. } => step.refuse(party, cause, self.inbound.is_head),
            Received::Body(_) => {
                step.found = Some((party, cause));
                step.actions.extend([Action::Abort(Side::Upstream), Action::Abort(Side::Downstream)]);
                step.over();
            }
        }
    }
}

impl Handler for Forward {
    const PHASE: end::Phase = end::Phase::Response;

    fn on_bytes(&mut self, _: Side, bytes: &[u8], _: &mut Step<'_>) -> Relayed {
        // `on_slice` has them.
        Relayed::consume(bytes.len())
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match (side, &self.response) {
            (Side::Downstream, response) => {
                if matches!((response, end), (Received::Body(_), TransportEnd::Eof | TransportEnd::Cut)) {
                    // It may have half-closed, and a FIN may be the end of a response.
                    step.actions.push(Action::Abort(Side::Downstream));
                }
                step.client_left(end);
            }
            (Side::Upstream, _) if self.is_unanswered() && self.reused && self.is_repeatable() => {
                // The upstream may have closed a kept connection when the request was on its way.
                self.ask_again(Action::Renew, end.cause(), step);
            }
            (Side::Upstream, _) if self.is_unanswered() && self.may_retry(Failure::Closed, step.settings) => {
                self.ask_again(Action::Retry, end.cause(), step);
            }
            (Side::Upstream, Received::Body(download))
                if end == TransportEnd::Eof && download.ends_with_connection() =>
            {
                self.finish(step);
            }
            (Side::Upstream, _) => self.fail(self.by, end.cause(), step),
        }
    }

    fn on_urgent_data(&mut self, side: Side, step: &mut Step<'_>) {
        match side {
            Side::Downstream => self.fail(Party::Downstream, Cause::UrgentData, step),
            Side::Upstream => self.fail(self.by, Cause::BadResponse, step),
        }
    }

    fn on_timer(&mut self, timer: Timer, step: &mut Step<'_>) {
        match timer {
            Timer::RequestBody => self.fail(Party::Downstream, Cause::BodyTimeout, step),
            Timer::ResponseHead if self.may_retry(Failure::Timeout, step.settings) => {
                self.ask_again(Action::Retry, Cause::ResponseTimeout, step);
            }
            Timer::ResponseHead => self.fail(self.by, Cause::ResponseTimeout, step),
            Timer::Credentials => self.on_credentials_ended(Cause::Expired, step),
            Timer::Close => {
                let Received::Body(download) = &self.response else { return };
                if let Some(ending) = download.ending() {
                    self.fail(Party::Proxy, ending.cause, step);
                }
            }
            _ => self.fail(Party::Proxy, Cause::IdleTimeout, step),
        }
    }

    fn on_finished(&mut self, _: &mut Step<'_>) {}

    fn wants(&self, side: Side, settings: &Settings) -> ReadInterest {
        match side {
            Side::Downstream if self.upload.is_done() => ReadInterest::Nothing,
            // A client may have sent more behind the body: no more of that than of a head.
            Side::Downstream => ReadInterest::Bytes(self.upload.wants(settings.head_bytes)),
            Side::Upstream if self.response_is_complete() => ReadInterest::Nothing,
            Side::Upstream => ReadInterest::Bytes(usize::MAX),
        }
    }

    fn deadline(&self, _: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        let at = |ms: Millis| self.moved_at.saturating_add(ms);
        let deadline = match &self.response {
            _ if !self.upload.is_done() => (at(timeouts.request_body_ms), Timer::RequestBody),
            Received::Head { .. } => (at(timeouts.first_byte_ms), Timer::ResponseHead),
            Received::Body(_) if timeouts.idle_ms == 0 => (Millis::MAX, Timer::Idle),
            Received::Body(_) => (at(timeouts.idle_ms), Timer::Idle),
        };
        let ending = match &self.response {
            Received::Body(download) => download.ending().map(|ending| (ending.until, Timer::Close)),
            Received::Head { .. } => None,
        };
        let until = self.until.map(|until| (until, Timer::Credentials));
        [ending, until].into_iter().flatten().fold(deadline, |nearest, other| nearest.min(other))
    }

    fn request(&self) -> Option<Request<'_>> {
        self.request.request()
    }

    fn is_silent(&self) -> bool {
        false
    }

    fn client_waits(&self) -> bool {
        self.upload.is_done()
    }
}
