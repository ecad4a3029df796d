//! One socket with its readiness. Says what a system call came to, never what to do about it.
//!
//! `Ready` is facts: set by poll, cleared by WouldBlock or by a short read or write that may be trusted
//! (each rule has its test in the simulation). Interest is registered once and never changed.

use super::sys::{Event, PipeId, Sys};
use super::token::Role;
use crate::tls::Tls;
use std::io::{ErrorKind, IoSlice};
use std::num::NonZeroUsize;

#[derive(Debug)]
pub struct Conn<S> {
    sock: S,
    pub ready: Ready,
    /// Which try this is, so that an event of another one is told from its own.
    pub role: Role,
    /// The connection is made, and so is TLS where there is any: bytes of the session may flow.
    pub up: bool,
    /// What is read and sent here is ciphertext.
    pub tls: Option<Box<Tls>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    pub read: bool,
    pub write: bool,
    /// FIN or RST is known: no further edge will come, so a short read is no proof of an empty socket.
    pub hangup: bool,
    /// Urgent data has come: a read stops there, and no edge says that there is more behind it.
    pub split: bool,
    /// All that came before the FIN has been read: the end is known without another read.
    pub spent: bool,
    /// Poll reported an error, or a send failed: the end of what can still be read is that of a reset, whatever the
    /// kernel calls it.
    pub broken: bool,
}

/// What one system call came to. "Zero bytes, go on" cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Moved(NonZeroUsize),
    Blocked,
    Eof,
    Reset,
}

impl<S> Conn<S> {
    pub fn new(sock: S, role: Role, up: bool) -> Conn<S> {
        Conn { sock, ready: Ready::default(), role, up, tls: None }
    }

    pub fn sock(&self) -> &S {
        &self.sock
    }

    /// The socket goes elsewhere: another worker, another process.
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

    /// One read into `buf`, to be shown slice by slice ([`Sys::next_slice`]).
    #[inline]
    pub fn pull<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, buf: &mut [u8]) -> Progress {
        if self.ready.spent {
            return self.after_read(Ok(0), 0);
        }
        let asked = buf.len();
        let result = sys.recv(&self.sock, buf);
        self.after_read(result, asked)
    }

    /// One read of up to `max` bytes that are thrown away.
    pub fn discard<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, max: usize) -> Progress {
        if self.ready.spent {
            return self.after_read(Ok(0), 0);
        }
        let result = sys.discard(&self.sock, max);
        self.after_read(result, max)
    }

    /// Moves up to `max` bytes into an empty pipe. Less than that proves nothing: pages are what counts there.
    pub fn splice_in<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, pipe: PipeId, max: usize) -> Progress {
        if self.ready.spent {
            return self.after_read(Ok(0), 0);
        }
        let result = sys.splice_in(&self.sock, pipe, max);
        // As if asked for what came: only an empty socket is known to be one.
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
                    // Where the FIN was known before the read, all that came before it is now read, and no edge will
                    // say so: the next read is the end. After an error only the kernel knows.
                    self.ready.read = self.ready.hangup;
                    self.ready.spent = self.ready.hangup && !self.ready.broken;
                }
                Progress::Moved(n)
            }
            Ok(None) => {
                self.ready.read = false;
                if self.ready.broken { Progress::Reset } else { Progress::Eof }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready.read = false;
                Progress::Blocked
            }
            Err(_) => {
                self.ready.read = false;
                Progress::Reset
            }
        }
    }

    #[inline]
    pub fn push<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, bytes: &[u8]) -> Progress {
        let result = sys.send(&self.sock, bytes);
        self.after_write(result, bytes.len())
    }

    /// The last bytes before a FIN that follows at once.
    pub fn push_last<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, bytes: &[u8]) -> Progress {
        let result = sys.send_last(&self.sock, bytes);
        self.after_write(result, bytes.len())
    }

    pub fn push_vectored<Y: Sys<Sock = S>>(&mut self, sys: &mut Y, slices: &[IoSlice<'_>]) -> Progress {
        let result = sys.send_vectored(&self.sock, slices);
        self.after_write(result, slices.iter().map(|slice| slice.len()).sum())
    }

    #[inline]
    fn after_write(&mut self, result: std::io::Result<usize>, asked: usize) -> Progress {
        match result.map(NonZeroUsize::new) {
            Ok(Some(n)) => {
                // The kernel has noted that we want more room: an edge follows.
                self.ready.write = n.get() == asked;
                Progress::Moved(n)
            }
            Ok(None) => Progress::Blocked,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready.write = false;
                Progress::Blocked
            }
            Err(_) => {
                // What the peer sent before its reset is still there to be read; the end follows it.
                self.ready = Ready { read: true, write: false, hangup: true, broken: true, ..self.ready };
                Progress::Reset
            }
        }
    }
}
