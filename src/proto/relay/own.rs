//! Frames of our own: what the proxy writes into a direction at a frame boundary, and the queue in
//! which they wait for one. Knows neither keys nor sockets: the worker masks them.

use crate::proto::close::Close;
use crate::proto::frame::{Header, opcode};
use crate::proto::mask::mask;
use std::collections::VecDeque;

/// A control frame of ours, not yet masked: the worker has the random key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnFrame {
    /// Nothing follows it in its direction.
    Close(Close),
    Ping([u8; 8]),
    Pong([u8; 8]),
}

impl OwnFrame {
    /// The whole frame; masked with `key` toward the upstream, plain toward the client.
    pub fn encode(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let (opcode, payload) = match self {
            OwnFrame::Close(close) => return close.frame(key),
            OwnFrame::Ping(payload) => (opcode::PING, payload),
            OwnFrame::Pong(payload) => (opcode::PONG, payload),
        };
        let mut out = Vec::with_capacity(6 + payload.len());
        Header { fin: true, rsv: 0, opcode, mask: key, payload_len: payload.len() as u64 }.write(&mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let (Some(key), Some(payload)) = (key, out.get_mut(start..)) {
            mask(payload, key, 0);
        }
        out
    }
}

/// The frames of ours that wait for the next frame boundary of one direction, in order. Owns no
/// memory while it is empty. A Close is always the last one.
// Boxed: it is seldom there, and counts toward the memory of every idle session.
#[allow(clippy::box_collection)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnFrames(Option<Box<VecDeque<OwnFrame>>>);

impl OwnFrames {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn push(&mut self, frame: OwnFrame) {
        debug_assert!(!self.0.iter().flat_map(|queue| queue.iter()).any(|queued| matches!(queued, OwnFrame::Close(_))));
        self.0.get_or_insert_default().push_back(frame);
    }

    /// The next frame, if one `may_send` it now.
    pub fn pop_if(&mut self, may_send: bool) -> Option<OwnFrame> {
        let frame = self.0.as_mut().filter(|_| may_send)?.pop_front();
        if self.0.as_ref().is_some_and(|queue| queue.is_empty()) {
            self.0 = None;
        }
        frame
    }

    pub fn clear(&mut self) {
        self.0 = None;
    }
}
