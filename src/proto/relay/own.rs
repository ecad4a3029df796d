//! Frames of our own: what the proxy writes into a direction at a frame boundary, and the queue in
//! which they wait for one. Knows neither keys nor sockets: the worker masks them.

use crate::proto::close::Close;
use crate::proto::frame::{HEADER_MAX, Header, opcode};
use crate::proto::mask::mask;
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages of ours that wait at a time in one direction: its source may never end the message that
/// they wait for.
const TEXTS_MAX: usize = 4;

/// A frame of ours, not yet masked: the worker has the random key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnFrame {
    /// Nothing follows it in its direction.
    Close(Close),
    Ping([u8; 8]),
    Pong([u8; 8]),
    /// A whole message.
    Text(Arc<str>),
}

impl OwnFrame {
    /// "Control frames MAY be injected in the middle of a fragmented message" (RFC 6455 section
    /// 5.4), this one not.
    pub fn is_text(&self) -> bool {
        matches!(self, OwnFrame::Text(_))
    }

    /// The whole frame; masked with `key` toward the upstream, plain toward the client.
    pub fn encode(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let (opcode, payload) = match self {
            OwnFrame::Close(close) => return close.frame(key),
            OwnFrame::Ping(payload) => (opcode::PING, payload.as_slice()),
            OwnFrame::Pong(payload) => (opcode::PONG, payload.as_slice()),
            OwnFrame::Text(text) => (opcode::TEXT, text.as_bytes()),
        };
        let mut out = Vec::with_capacity(HEADER_MAX + payload.len());
        Header { fin: true, rsv: 0, opcode, mask: key, payload_len: payload.len() as u64 }.write(&mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let (Some(key), Some(payload)) = (key, out.get_mut(start..)) {
            mask(payload, key, 0);
        }
        out
    }
}

/// The frames of ours that wait for the next frame boundary of one direction, or for the next
/// boundary of messages, in order. Owns no memory while it is empty. A Close is always the last
/// one.
// Boxed: it is seldom there, and counts toward the memory of every idle session.
#[allow(clippy::box_collection)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnFrames(Option<Box<VecDeque<OwnFrame>>>);

impl OwnFrames {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `false` if there are too many before it.
    pub fn push(&mut self, frame: OwnFrame) -> bool {
        let queued = || self.0.iter().flat_map(|queue| queue.iter());
        debug_assert!(!queued().any(|queued| matches!(queued, OwnFrame::Close(_))));
        let texts = queued().filter(|queued| queued.is_text()).count();
        let fits = !frame.is_text() || texts < TEXTS_MAX;
        if fits {
            self.0.get_or_insert_default().push_back(frame);
        }
        fits
    }

    /// The next frame of those that may be sent now: control frames may come before a message that
    /// waits for the end of another.
    pub fn pop(&mut self, may_send: impl Fn(&OwnFrame) -> bool) -> Option<OwnFrame> {
        let queue = self.0.as_mut()?;
        let frame = queue.iter().position(may_send).and_then(|at| queue.remove(at));
        if self.0.as_ref().is_some_and(|queue| queue.is_empty()) {
            self.0 = None;
        }
        frame
    }

    pub fn clear(&mut self) {
        self.0 = None;
    }
}
