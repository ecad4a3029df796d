//! The bytes of a session before it is open: the request, the answer, the body of an answer that is no 101.

use super::state::{Asked, Passing, State};
use super::{ANSWER_BODY_MAX, Action, INTERIM_BYTES_MAX, Session};
use crate::proto::end::{Cause, Party};
use crate::proto::handshake;
use crate::proto::http1::{self, Body, HeadScan, Spans};
use crate::proto::open::Open;
use crate::proto::relay::Relayed;
use crate::proto::{Millis, Side};

impl Session {
    pub(super) fn on_request_bytes(&mut self, bytes: &[u8], now: Millis) -> Relayed {
        let State::Request(reading) = &mut self.state else { return Relayed::kept(bytes.len()) };
        reading.held.extend_from_slice(bytes);
        match reading.scan.advance(&reading.held) {
            Err(cause) => self.refuse(Party::Downstream, cause, now),
            Ok(None) if reading.held.len() >= reading.head_max => {
                self.refuse(Party::Downstream, Cause::HeadTooLarge, now);
            }
            Ok(None) => {}
            Ok(Some(head_len)) => {
                let head = reading.held.get(..head_len).unwrap_or(&[]);
                match http1::parse_request(head).map(|request| Spans::of(&request, head)) {
                    Err(cause) => self.refuse(Party::Downstream, cause, now),
                    Ok(spans) => {
                        let held = std::mem::take(&mut reading.held);
                        let asked = Asked { held, head_len, head_max: reading.head_max, spans };
                        self.outbox.push(Action::Decide);
                        self.enter(State::Deciding(Box::new(asked)), now);
                    }
                }
            }
        }
        Relayed::kept(bytes.len())
    }

    pub(super) fn on_answer_bytes(&mut self, bytes: &[u8], now: Millis) -> Relayed {
        let State::Answer(answering) = &mut self.state else { return Relayed::kept(bytes.len()) };
        let before = answering.held.len();
        answering.held.extend_from_slice(bytes);
        let head_len = match answering.scan.advance(&answering.held) {
            Ok(Some(head_len)) => head_len,
            Ok(None) if answering.held.len() < answering.asked.head_max => return Relayed::kept(bytes.len()),
            _ => {
                self.refuse(Party::Upstream, Cause::BadResponse, now);
                return Relayed::kept(bytes.len());
            }
        };
        // Never zero: without the first of these bytes the head was not complete.
        let used = head_len.saturating_sub(before).max(1);
        if let Err(cause) = self.on_answer_head(head_len, now) {
            self.refuse(Party::Upstream, cause, now);
        }
        Relayed::kept(used)
    }

    fn on_answer_head(&mut self, head_len: usize, now: Millis) -> Result<(), Cause> {
        let State::Answer(answering) = &mut self.state else { return Ok(()) };
        answering.held.truncate(head_len);
        let response = http1::parse_response(&answering.held)?;
        if let 100 | 102..200 = response.status {
            answering.interim_bytes += head_len;
            answering.held.clear();
            answering.scan = HeadScan::default();
            let much = answering.interim_bytes > INTERIM_BYTES_MAX;
            return if much { Err(Cause::BadResponse) } else { Ok(()) };
        }
        if response.status != 101 {
            let body = http1::body_of(&response)?;
            let head = http1::write_answer(&response, &answering.admission.request_id);
            self.outbox.push(Action::Send(Side::Downstream, head));
            self.status = response.status;
            self.note(Party::Upstream, Cause::UpstreamResponse);
            if matches!(body, Body::None) {
                self.leave(now);
            } else {
                // The upstream head timeout goes on: `since` stays.
                let since = self.since;
                self.enter(State::Passing(Box::new(Passing { body, passed: 0 })), since);
            }
            return Ok(());
        }
        let request = answering.asked.request().ok_or(Cause::MalformedHead)?;
        let extensions = handshake::judge_response(&request, &response)?;
        let head = handshake::write_switching(&request, &response);
        let subprotocol = http1::values(&response.fields, "sec-websocket-protocol").next().map(Box::from);
        let early = answering.asked.held.split_off(answering.asked.head_len);
        let open = Open::new(&answering.admission, extensions);
        self.status = 101;
        self.outbox.extend([Action::Send(Side::Downstream, head), Action::Opened { early, subprotocol }]);
        self.enter(State::Open(open), now);
        Ok(())
    }

    pub(super) fn on_body_bytes(&mut self, bytes: &[u8], now: Millis) -> Relayed {
        let State::Passing(passing) = &mut self.state else { return Relayed::kept(bytes.len()) };
        let room = ANSWER_BODY_MAX - passing.passed;
        let bytes_max = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let (n, done) = passing.body.advance(bytes.get(..bytes_max).unwrap_or(bytes)).unwrap_or((0, true));
        passing.passed += n as u64;
        if done || passing.passed >= ANSWER_BODY_MAX {
            self.leave(now);
        }
        Relayed { consumed: bytes.len(), ..Relayed::forward(n) }
    }
}
