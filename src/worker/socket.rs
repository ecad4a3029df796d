//! One socket with its readiness. Reports the outcome of a system call, never what to do about it.
//!
//! `Ready` holds facts: set by poll, cleared by WouldBlock or by a short read or write where that
//! is proof of an empty or full socket (each rule has its test in the simulation). Interest is
//! registered once and never changed.

use super::sys::{Event, PipeId, Sys};
use crate::proto::interface::TransportEnd;
use std::io::{ErrorKind, IoSlice};
use std::num::NonZeroUsize;

#[derive(Debug)]
pub struct Socket<S> {
    sock: S,
    pub ready: Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    pub read: bool,
    pub write: bool,
    /// FIN or RST is known: no further edge will come, so a short read does not prove an empty
    /// socket.
    pub hangup: bool,
    /// Urgent data has arrived: a read stops there, and no edge reports that more is behind it.
    pub split: bool,
    /// FIN seen and receive queue drained: EOF without another recv.
    pub drained: bool,
    /// Poll reported an error, or a send failed: what can still be read ends in a reset, whatever
    /// the kernel calls it.
    pub broken: bool,
}

/// The outcome of one read or write. "Zero bytes, go on" cannot be expressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Moved(NonZeroUsize),
    Blocked,
    Ended(TransportEnd),
}

const EOF: Progress = Progress::Ended(TransportEnd::Eof);
const RESET: Progress = Progress::Ended(TransportEnd::Reset);

impl<S> Socket<S> {
    pub fn new(sock: S) -> Socket<S> {
        Socket { sock, ready: Ready::default() }
    }

    pub fn sock(&self) -> &S {
        &self.sock
    }

    /// The socket alone, to be moved elsewhere or reset.
    pub fn into_sock(self) -> S {
        self.sock
    }

    #[inline]
    pub fn on_ready(&mut self, event: &Event) {
        self.ready.read |= event.readable | event.read_closed | event.error;
        self.ready.write |= event.writable | event.error;
        self.ready.hangup |= event.read_closed | event.error;
        self.ready.split |= event.priority;
        self.ready.broken |= event.error;
    }

    /// One read into `buf`.
    #[inline]
    pub fn recv<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, buf: &mut [u8]) -> Progress {
        if self.ready.drained {
            return self.after_read(Ok(0), 0);
        }
        let asked = buf.len();
        let result = sys.recv(&self.sock, buf);
        self.after_read(result, asked)
    }

    /// Looks at what the next read would return. That it is short proves nothing: the bytes stay.
    pub fn peek<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, buf: &mut [u8]) -> Progress {
        let result = sys.peek(&self.sock, buf);
        let asked = result.as_ref().map_or(0, |n| *n);
        self.after_read(result, asked)
    }

    /// Everything that has arrived was looked at, and is not enough: whether more can come, with an
    /// edge of its own. What comes before this is called has one, too.
    pub fn wait_for_more(&mut self) -> bool {
        self.ready.read = false;
        !self.ready.hangup
    }

    /// One read of up to `max` bytes that are discarded.
    pub fn discard<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, max: usize) -> Progress {
        if self.ready.drained {
            return self.after_read(Ok(0), 0);
        }
        let result = sys.discard(&self.sock, max);
        self.after_read(result, max)
    }

    /// Moves up to `max` bytes into an empty pipe. A short move proves nothing: a pipe counts
    /// pages.
    pub fn splice_in<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, pipe: PipeId, max: usize) -> Progress {
        if self.ready.drained {
            return self.after_read(Ok(0), 0);
        }
        let result = sys.splice_in(&self.sock, pipe, max);
        // As if this much had been asked for: only WouldBlock proves an empty socket.
        let asked = result.as_ref().map_or(0, |n| *n);
        self.after_read(result, asked)
    }

    /// Moves up to `max` bytes out of a pipe.
    pub fn splice_out<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, pipe: PipeId, max: usize) -> Progress {
        let result = sys.splice_out(pipe, &self.sock, max);
        let asked = result.as_ref().map_or(0, |n| *n);
        self.after_write(result, asked)
    }

    #[inline]
    fn after_read(&mut self, result: std::io::Result<usize>, asked: usize) -> Progress {
        match result.map(NonZeroUsize::new) {
            Ok(Some(n)) => {
                if n.get() < asked && !self.ready.split {
                    // If the FIN was known before the read, everything before it has now been read,
                    // and no edge will report that: the next read is the end. After an error only
                    // the kernel knows.
                    self.ready.read = self.ready.hangup;
                    self.ready.drained = self.ready.hangup && !self.ready.broken;
                }
                Progress::Moved(n)
            }
            Ok(None) => {
                self.ready.read = false;
                if self.ready.broken { RESET } else { EOF }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready.read = false;
                Progress::Blocked
            }
            Err(_) => {
                self.ready.read = false;
                RESET
            }
        }
    }

    #[inline]
    pub fn send<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, bytes: &[u8]) -> Progress {
        let result = sys.send(&self.sock, bytes);
        self.after_write(result, bytes.len())
    }

    /// The last bytes before a FIN that follows at once.
    pub fn send_last<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, bytes: &[u8]) -> Progress {
        let result = sys.send_last(&self.sock, bytes);
        self.after_write(result, bytes.len())
    }

    pub fn send_vectored<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, slices: &[IoSlice<'_>]) -> Progress {
        let result = sys.send_vectored(&self.sock, slices);
        self.after_write(result, slices.iter().map(|slice| slice.len()).sum())
    }

    #[inline]
    fn after_write(&mut self, result: std::io::Result<usize>, asked: usize) -> Progress {
        match result.map(NonZeroUsize::new) {
            Ok(Some(n)) => {
                // The kernel knows that we want more room: an edge follows.
                self.ready.write = n.get() == asked;
                Progress::Moved(n)
            }
            Ok(None) => Progress::Blocked,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready.write = false;
                Progress::Blocked
            }
            Err(_) => {
                // What the peer sent before its reset can still be read; the end follows it.
                self.ready = Ready { read: true, write: false, hangup: true, broken: true, ..self.ready };
                RESET
            }
        }
    }
}
