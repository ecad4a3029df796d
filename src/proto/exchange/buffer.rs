//! A request that was read: its head, and what the client sent behind it before the 101. The phases
//! of an exchange hand it on until the upstream has answered.

use crate::proto::handshake::Agreed;
use crate::proto::http1::{Request, Response, Spans};
use crate::proto::interface::Admission;
use crate::proto::plain::Inbound;
use crate::proto::relay::{Relayed, SessionLimits};
use crate::proto::shadow::Opening;

/// A complete request: `held[..head_len]` is its head, the rest came early.
#[derive(Debug, Default)]
pub(super) struct RequestBuffer {
    held: Vec<u8>,
    head_len: usize,
    spans: Spans,
    /// Empty until policy has admitted it.
    id: Box<str>,
    /// Its opening handshake will be made again.
    shadowed: bool,
    /// What policy gave the session beside the limits of its route.
    limits: SessionLimits,
    /// `None`: it is a WebSocket handshake.
    plain: Option<Inbound>,
}

impl RequestBuffer {
    /// `spans` were parsed from `held[..head_len]`.
    pub fn new(held: Vec<u8>, head_len: usize, spans: Spans) -> RequestBuffer {
        RequestBuffer { held, head_len, spans, ..RequestBuffer::default() }
    }

    /// The same with what policy gave it.
    pub fn admitted(self, admission: Admission) -> RequestBuffer {
        let Admission { request_id: id, shadowed, limits, plain, .. } = admission;
        RequestBuffer { id, shadowed, limits, plain, ..self }
    }

    /// What a plain request says about its exchange; `None` for a WebSocket handshake.
    pub fn plain(&self) -> Option<Inbound> {
        self.plain
    }

    /// The client's connection ends with the response.
    pub fn close_after(&mut self) {
        if let Some(plain) = &mut self.plain {
            plain.persistent = false;
        }
    }

    /// The id that policy gave the request.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Keeps bytes that came early.
    pub fn keep(&mut self, bytes: &[u8]) -> Relayed {
        self.held.extend_from_slice(bytes);
        Relayed::consume(bytes.len())
    }

    pub fn request(&self) -> Option<Request<'_>> {
        self.spans.request(self.held.get(..self.head_len)?)
    }

    pub fn is_head(&self) -> bool {
        self.request().is_some_and(|request| request.method == "HEAD")
    }

    /// The bytes that came early.
    pub fn take_early(&mut self) -> Vec<u8> {
        self.held.split_off(self.head_len.min(self.held.len()))
    }

    /// The limits of the session that begins.
    pub fn take_limits(&mut self) -> SessionLimits {
        std::mem::take(&mut self.limits)
    }

    /// If the request is shadowed, it and what `response`, its 101, has settled. The request is
    /// gone then. Comes after [`RequestBuffer::take_early`].
    pub fn take_opening(&mut self, response: &Response<'_>) -> Option<Box<Opening>> {
        if !self.shadowed {
            return None;
        }
        let (head, spans) = (std::mem::take(&mut self.held), std::mem::take(&mut self.spans));
        Some(Box::new(Opening::new(head, spans, Agreed::of(response))))
    }
}
