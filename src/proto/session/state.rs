//! The phases of a session. Each owns what exists only while it lasts; the cold ones are boxed and dropped at `Open`.

use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::http1::{Body, HeadScan, Request, Spans};
use crate::proto::interface::{Admission, Totals};
use crate::proto::open::Open;
use crate::proto::relay::Relayed;

#[derive(Debug)]
pub(super) enum State {
    /// Nothing is read but TLS itself; the head's limit is kept for what follows.
    Securing(Securing),
    Request(Box<Reading>),
    Deciding(Box<Asked>),
    Connecting(Box<Connecting>),
    Answer(Box<Answering>),
    Passing(Box<Passing>),
    Leaving(Leaving),
    Open(Open),
    /// What it came to.
    Over(Totals),
}

#[derive(Debug)]
pub(super) struct Securing {
    pub(super) head_max: usize,
    /// The client has said something.
    pub(super) spoke: bool,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) held: Vec<u8>,
    pub(super) scan: HeadScan,
    pub(super) head_max: usize,
}

impl Reading {
    pub(super) fn new(head_max: usize) -> Reading {
        Reading { held: Vec::new(), scan: HeadScan::default(), head_max }
    }
}

/// A complete request: `held[..head_len]` is its head, the rest came early.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) held: Vec<u8>,
    pub(super) head_len: usize,
    pub(super) head_max: usize,
    pub(super) spans: Spans,
}

#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) asked: Asked,
    pub(super) admission: Admission,
    pub(super) try_since: Millis,
    /// Why the last try failed.
    pub(super) last: Cause,
}

#[derive(Debug)]
pub(super) struct Answering {
    pub(super) asked: Asked,
    pub(super) admission: Admission,
    pub(super) held: Vec<u8>,
    pub(super) scan: HeadScan,
    pub(super) interim_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Passing {
    pub(super) body: Body,
    pub(super) passed: u64,
}

#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) drained: usize,
    /// The client will send no more.
    pub(super) eof: bool,
    pub(super) finished: bool,
}

impl Asked {
    /// More that came early.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Relayed {
        self.held.extend_from_slice(bytes);
        Relayed::kept(bytes.len())
    }

    pub(super) fn request(&self) -> Option<Request<'_>> {
        self.spans.request(self.held.get(..self.head_len)?)
    }
}
