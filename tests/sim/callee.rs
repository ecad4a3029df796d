//! The server that a call of the worker's goes to: reads the request, and sends what the script
//! says, in pieces, at its time. Judges nothing.

use crate::asks::{Ask, Call, Then};
use crate::auth::{Kind, Seen};
use crate::faults::Fault;
use crate::kernel::{CALLEES, Id, Kernel, Link, Micros, Sys, What, trace};
use crate::schedule::Session;
use crate::seal::Seal;

/// The request of every check, with its body.
pub const REQUEST: &[u8] = b"POST /may HTTP/1.1\r\nHost: callee\r\nContent-Length: 20\r\n\r\ntoken=0123456789abcd";

/// The longest pause between two pieces.
const PAUSE: Micros = 30_000;

#[derive(Debug, Default)]
pub struct Callee {
    pub session: usize,
    /// Which of the session's questions it is asked.
    pub ask: usize,
    pub sock: Id,
    pub seal: Option<Seal>,
    kind: Option<Kind>,
    head: Vec<u8>,
    /// When the whole of what it says has left.
    pub said_at: Option<Micros>,
    /// When the response may begin.
    due: Option<Micros>,
    sent: usize,
    /// No write before this moment.
    write_after: Micros,
    /// The usual size of a write; 0: everything at once.
    grain: usize,
    /// What follows the response has happened, or will with the close_notify.
    acted: bool,
    fin_due: bool,
    broken: bool,
    pub gone: bool,
}

impl Callee {
    pub fn new((session, ask): (usize, usize), kind: Kind, sock: Id, kernel: &mut Kernel) -> Callee {
        let grain = kernel.rng.pick(&[0, 0, 1, 3, 20]);
        Callee { session, ask, sock, grain, kind: Some(kind), ..Callee::default() }
    }

    /// It decides by the client's credentials.
    pub fn kind_is_auth(&self) -> bool {
        self.kind.is_some_and(|kind| kind != Kind::Check)
    }

    fn seen(&self) -> Option<Seen> {
        Some(self.kind?.judge_request(&self.head, self.session))
    }

    /// The whole request, and nothing else, has come.
    pub fn was_asked(&self) -> bool {
        self.seen() == Some(Seen::Whole)
    }

    /// It was asked something else.
    pub fn was_asked_wrongly(&self) -> bool {
        self.seen() == Some(Seen::Wrong)
    }

    /// Its answer has left, as far as the script goes.
    pub fn has_answered(&self, session: &Session) -> bool {
        self.call(session).is_some_and(|call| self.sent == call.bytes().len()) && self.acted
    }

    fn call<'a>(&self, session: &'a Session) -> Option<&'a Call> {
        match session.asks.get(self.ask)? {
            Ask::Call(call) => Some(call),
            Ask::Service(_) => None,
        }
    }

    /// Does all that can be done now. Called after each change of its socket.
    pub fn step(&mut self, me: usize, session: &Session, kernel: &mut Kernel) {
        let Some(call) = self.call(session) else { return };
        if self.gone || kernel.socks[self.sock].link == Link::Connecting {
            return;
        }
        if self.read(call, me, kernel) {
            return self.close(kernel);
        }
        if self.flush(me, kernel) && self.due.is_some_and(|at| at <= kernel.now) {
            self.write(call, me, kernel);
        }
        if self.flush(me, kernel) && self.sent == call.bytes().len() && self.due.is_some_and(|at| at <= kernel.now) {
            self.act(call, me, kernel);
        }
    }

    fn later(me: usize, at: Micros, kernel: &mut Kernel) {
        kernel.at(at, What::Peer(CALLEES + me));
    }

    /// Whether the worker has ended the connection.
    fn read(&mut self, call: &Call, me: usize, kernel: &mut Kernel) -> bool {
        loop {
            let head = &mut self.head;
            let take = |bytes: &[u8]| head.extend_from_slice(bytes);
            let got = match &mut self.seal {
                Some(seal) => seal.recv(self.sock, usize::MAX, kernel, take),
                None => kernel.recv(self.sock, usize::MAX, take),
            };
            trace!(kernel, "callee {me} reads {got:?}");
            match got {
                Ok(0) => return true,
                Ok(_) => {}
                Err(libc::EAGAIN) => break,
                Err(_) => return true,
            }
        }
        if self.due.is_none() && (call.hasty || self.was_asked()) {
            let at = kernel.now + if call.hasty { 0 } else { call.delay_ms * 1_000 };
            self.due = Some(at);
            Callee::later(me, at, kernel);
        }
        false
    }

    fn write(&mut self, call: &Call, me: usize, kernel: &mut Kernel) {
        let bytes = call.bytes();
        while self.sent < bytes.len() && !self.broken && kernel.now >= self.write_after {
            if self.seal.as_ref().is_some_and(|seal| !seal.is_clear()) {
                return;
            }
            let n = if self.grain == 0 { bytes.len() } else { kernel.rng.size(1, self.grain) };
            let piece = &bytes[self.sent..(self.sent + n).min(bytes.len())];
            match self.send(piece, kernel) {
                Ok(n) => self.sent += n,
                Err(libc::EAGAIN) => return,
                Err(_) => self.broken = true,
            }
            if self.sent == bytes.len() {
                self.said_at = Some(kernel.now);
            }
            if self.grain > 0 && kernel.rng.one_in(4) {
                kernel.faults.note(Fault::SlowWriter);
                self.write_after = kernel.now + kernel.rng.below(PAUSE);
                Callee::later(me, self.write_after, kernel);
            }
            if !self.flush(me, kernel) {
                return;
            }
        }
    }

    fn send(&mut self, bytes: &[u8], kernel: &mut Kernel) -> Sys<usize> {
        let Some(seal) = &mut self.seal else { return kernel.send(self.sock, bytes, usize::MAX) };
        seal.seal(bytes, false);
        Ok(bytes.len())
    }

    /// Sends pending ciphertext. Whether none is left.
    fn flush(&mut self, me: usize, kernel: &mut Kernel) -> bool {
        let Some(seal) = &mut self.seal else { return true };
        match seal.flush(self.sock, kernel) {
            Ok(()) if !seal.is_sent() => {
                let at = kernel.now + kernel.rng.below(400);
                Callee::later(me, at, kernel);
            }
            Ok(()) | Err(libc::EAGAIN) => {}
            Err(_) => self.broken = true,
        }
        self.seal.as_ref().is_some_and(Seal::is_sent)
    }

    /// What follows the response.
    fn act(&mut self, call: &Call, me: usize, kernel: &mut Kernel) {
        if std::mem::take(&mut self.fin_due) {
            let _ = kernel.shutdown(self.sock);
        }
        // A handshake that has not ended is not cut short: the script is about responses.
        if self.acted || self.seal.as_ref().is_some_and(|seal| !seal.is_open()) {
            return;
        }
        self.acted = true;
        match (call.then, &mut self.seal) {
            (Then::Stays, _) => {}
            (Then::Fin, Some(seal)) if !call.rude => {
                seal.say_goodbye();
                self.fin_due = true;
                kernel.wake_peer(CALLEES + me);
            }
            (Then::Fin, _) => drop(kernel.shutdown(self.sock)),
            (Then::Rst, _) => {
                kernel.abort(self.sock);
                self.gone = true;
            }
        }
    }

    fn close(&mut self, kernel: &mut Kernel) {
        kernel.close(self.sock);
        self.gone = true;
    }
}
