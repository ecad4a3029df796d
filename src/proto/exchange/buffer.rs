//! A request that was read: its head, and what the client sent behind it before the 101. The phases
//! of an exchange hand it on until the upstream has answered.

use crate::proto::http1::{Request, Spans};
use crate::proto::relay::Relayed;

/// A complete request: `held[..head_len]` is its head, the rest came early.
#[derive(Debug, Default)]
pub(super) struct RequestBuffer {
    held: Vec<u8>,
    head_len: usize,
    spans: Spans,
    /// Empty until policy has admitted it.
    id: Box<str>,
}

impl RequestBuffer {
    /// `spans` were parsed from `held[..head_len]`.
    pub fn new(held: Vec<u8>, head_len: usize, spans: Spans) -> RequestBuffer {
        RequestBuffer { held, head_len, spans, id: Box::default() }
    }

    /// The same with the id that policy gave it.
    pub fn with_id(self, id: Box<str>) -> RequestBuffer {
        RequestBuffer { id, ..self }
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
}
