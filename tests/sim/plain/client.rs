//! A client of plain HTTP: sends the requests of its script, one after the other or ahead, and
//! reads what comes. Judges nothing.

use super::line::Line;
use super::message::Reader;
use super::{Client as Plan, How, Last, Leave, Place};
use crate::frames::{FIN, Frame, TEXT, push_close};
use crate::kernel::{Kernel, Micros};

/// How long a client waits for a 100 before it sends its body all the same.
const PATIENCE: Micros = 1_000_000;
const KEY: [u8; 4] = [7, 1, 9, 2];

#[derive(Debug, Default)]
pub struct Client {
    pub index: usize,
    pub line: Line,
    pub reader: Reader,
    /// Where the requests that may be sent begin, their heads end, and they end.
    spans: Vec<[usize; 3]>,
    /// Bytes that had come when each response was complete.
    marks: Vec<usize>,
    /// The request that waits for its pause, and until when.
    rest: Option<(usize, Micros)>,
    /// The body that waits for a 100, and until when.
    holds: Option<(usize, Micros)>,
    /// The moment at which it leaves, where it waits for that.
    leaves_at: Option<Micros>,
    /// The request in which it has left, or stalled.
    pub left: Option<usize>,
    stalled: bool,
    upgraded: bool,
    /// A request left before the response to the one before it had come.
    pub was_ahead: bool,
    finished: bool,
}

/// What a client sends once its handshake is done.
pub fn words(client: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Frame { first: FIN | TEXT, mask: Some(KEY), payload: format!("hello {client}").as_bytes() }.push(&mut out);
    push_close(&mut out, Some(KEY), 1000, "");
    out
}

impl Client {
    pub fn new(index: usize, plan: &Plan, line: Line) -> Client {
        let heads = plan.asks.iter().map(|ask| ask.is_head()).collect();
        Client { index, line, reader: Reader::of_responses(heads), ..Client::default() }
    }

    /// Does all that can be done now. Called after each change of its socket.
    pub fn step(&mut self, plan: &Plan, kernel: &mut Kernel) {
        if !self.line.is_up(kernel) || self.stalled {
            return;
        }
        let mut rx = Vec::new();
        self.line.read(kernel, &mut rx);
        self.reader.push(&rx);
        self.reader.advance(self.line.ended_well());
        let done = self.done();
        while self.marks.len() < done {
            self.marks.push(self.reader.len());
        }
        self.queue(plan, done, kernel);
        let limit = self.limit(plan, done, kernel);
        let sent = self.line.write(limit, kernel);
        self.was_ahead |= self.begun() > done + 1;
        if let Some(leave) = plan.leaves
            && self.left.is_none()
            && self.is_time(leave, kernel)
        {
            return self.leave(leave, kernel);
        }
        if self.line.is_over() {
            return self.line.close(kernel);
        }
        let served = done == plan.asks.len() && !self.closing() && sent && !self.finished && self.left.is_none();
        if served {
            self.finished = true;
            match plan.last {
                Last::Fin => self.line.fin(kernel),
                Last::Rst => self.line.abort(kernel),
                Last::Waits => {}
            }
        }
    }

    /// Complete responses.
    fn done(&self) -> usize {
        self.reader.finals().filter(|message| message.complete).count()
    }

    /// No further request is answered.
    fn closing(&self) -> bool {
        self.line.is_over() || self.reader.finals().any(|message| message.closes() || message.status() == 101)
    }

    /// Requests that may be sent by now.
    fn queue(&mut self, plan: &Plan, done: usize, kernel: &mut Kernel) {
        while let Some(ask) = plan.asks.get(self.spans.len())
            && self.spans.len() < done + plan.ahead
            && !self.closing()
        {
            let nth = self.spans.len();
            if self.rest.is_none_or(|(of, _)| of != nth) {
                self.rest = Some((nth, kernel.now + ask.rest));
                if ask.rest > 0 {
                    self.line.later(kernel.now + ask.rest, kernel);
                }
            }
            if self.rest.is_some_and(|(_, at)| kernel.now < at) {
                break;
            }
            let begin = self.line.out.len();
            let (bytes, head) = ask.bytes(self.index, nth);
            self.line.out.extend_from_slice(&bytes);
            self.spans.push([begin, begin + head, self.line.out.len()]);
        }
        if !self.upgraded && self.reader.finals().any(|message| message.status() == 101) {
            self.upgraded = true;
            self.line.out.extend_from_slice(&words(self.index));
        }
    }

    /// How much may be sent by now.
    fn limit(&mut self, plan: &Plan, done: usize, kernel: &mut Kernel) -> usize {
        let mut limit = self.line.out.len();
        if self.closing() && !self.upgraded && (!plan.stubborn || self.line.is_over()) {
            return self.line.sent;
        }
        for (nth, [_, head, end]) in self.spans.iter().copied().enumerate() {
            if !plan.asks[nth].expects || head == end || self.line.sent > head || done > nth {
                continue;
            }
            let goes_on = self.reader.finals().count() == nth
                && self.reader.messages.last().is_some_and(|message| message.status() == 100);
            if goes_on {
                continue;
            }
            if self.holds.is_none_or(|(of, _)| of != nth) {
                self.holds = Some((nth, kernel.now + PATIENCE));
                self.line.later(kernel.now + PATIENCE, kernel);
            }
            if !self.holds.is_some_and(|(of, at)| of == nth && kernel.now >= at) {
                limit = limit.min(head);
                break;
            }
        }
        if let Some(Leave { ask, place: Place::Sent(n), .. }) = plan.leaves
            && let Some([begin, ..]) = self.spans.get(ask)
        {
            limit = limit.min(begin + n);
        }
        limit
    }

    /// The moment at which it leaves has come.
    fn is_time(&mut self, leave: Leave, kernel: &mut Kernel) -> bool {
        match leave.place {
            Place::Sent(n) => {
                self.spans.get(leave.ask).is_some_and(|[begin, _, end]| self.line.sent >= (begin + n).min(*end))
            }
            Place::Waiting(after) => {
                let asked = self.spans.get(leave.ask).is_some_and(|[.., end]| self.line.sent >= *end);
                if asked && self.leaves_at.is_none() {
                    self.leaves_at = Some(kernel.now + after);
                    self.line.later(kernel.now + after, kernel);
                }
                self.leaves_at.is_some_and(|at| kernel.now >= at)
            }
            Place::Got(n) => {
                let mark = if leave.ask == 0 { Some(0) } else { self.marks.get(leave.ask - 1).copied() };
                self.spans.len() > leave.ask && mark.is_some_and(|mark| self.reader.len() > mark + n)
            }
        }
    }

    fn leave(&mut self, leave: Leave, kernel: &mut Kernel) {
        self.left = Some(leave.ask);
        match leave.how {
            How::Fin if self.line.is_over() => self.line.close(kernel),
            How::Fin => self.line.fin(kernel),
            How::Rst => self.line.abort(kernel),
            How::Stall => self.stalled = true,
        }
    }

    /// Requests of which at least one byte was sent.
    pub fn begun(&self) -> usize {
        self.spans.iter().filter(|[begin, ..]| *begin < self.line.sent).count()
    }
}
