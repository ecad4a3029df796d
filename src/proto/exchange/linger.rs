//! A lingering close: the response has been sent with a FIN behind it; the client is drained for a
//! while, so that a reset for its unread bytes does not take the response away.

use super::{Handler, Step};
use crate::proto::end;
use crate::proto::http1::Request;
use crate::proto::interface::{Action, ReadInterest, Timer, TransportEnd};
use crate::proto::relay::Relayed;
use crate::proto::settings::{Settings, Timeouts};
use crate::proto::{Millis, Side};

/// How long, and up to how many bytes, a client is drained. Behind these bytes it is not read any
/// more, but keeps its time: closing with bytes unread is a reset, which would take the response
/// from a client that is still sending its body.
const LINGER_MS: Millis = 2_000;
const LINGER_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Linger {
    drained: usize,
    /// The client will send no more.
    eof: bool,
    /// When our FIN left.
    finished_at: Option<Millis>,
    /// When the client took something last of what is before the FIN.
    taken_at: Millis,
}

impl Linger {
    pub fn on_discarded(&mut self, n: usize) {
        self.drained += n;
    }

    pub fn on_taken(&mut self, now: Millis) {
        self.taken_at = now;
    }

    /// Our FIN has not left, and what is before it may not have either.
    pub fn is_sending(&self) -> bool {
        self.finished_at.is_none()
    }
}

impl Handler for Linger {
    const PHASE: end::Phase = end::Phase::Response;

    fn on_bytes(&mut self, _: Side, bytes: &[u8], _: &mut Step<'_>) -> Relayed {
        self.on_discarded(bytes.len());
        Relayed::consume(bytes.len())
    }

    fn on_end(&mut self, side: Side, end: TransportEnd, step: &mut Step<'_>) {
        match (side, end) {
            (Side::Downstream, TransportEnd::Eof | TransportEnd::Cut) => {
                // It may have half-closed and wait for the rest of its response.
                self.eof = true;
                if self.finished_at.is_some() {
                    step.over();
                }
            }
            (Side::Downstream, TransportEnd::Reset | TransportEnd::Failed(_)) => step.over(),
            (Side::Upstream, _) => {}
        }
    }

    fn on_urgent_data(&mut self, _: Side, _: &mut Step<'_>) {}

    fn on_timer(&mut self, _: Timer, step: &mut Step<'_>) {
        if self.is_sending() {
            // A FIN could make a part of the response look like all of it.
            step.actions.push(Action::Abort(Side::Downstream));
        }
        step.over();
    }

    fn on_finished(&mut self, step: &mut Step<'_>) {
        self.finished_at = Some(step.now);
        if self.eof {
            step.over();
        }
    }

    fn wants(&self, side: Side, _: &Settings) -> ReadInterest {
        match side {
            Side::Downstream if !self.eof && self.drained <= LINGER_BYTES => ReadInterest::Discard,
            Side::Downstream | Side::Upstream => ReadInterest::Nothing,
        }
    }

    fn deadline(&self, since: Millis, timeouts: &Timeouts) -> (Millis, Timer) {
        match self.finished_at {
            Some(finished_at) => (finished_at + LINGER_MS, Timer::Linger),
            None => (since.max(self.taken_at) + timeouts.write_stall_ms, Timer::Linger),
        }
    }

    fn request(&self) -> Option<Request<'_>> {
        None
    }

    fn is_silent(&self) -> bool {
        false
    }

    fn client_waits(&self) -> bool {
        false
    }
}
