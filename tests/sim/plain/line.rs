//! One end of a connection of plain HTTP, with its socket, its TLS and its PROXY header: reads and
//! writes in pieces, with pauses. Knows nothing of messages.

use crate::faults::Fault;
use crate::header;
use crate::kernel::{Id, Kernel, Link, Micros, What, trace};
use crate::seal::Seal;

/// The longest that one end may pause, all pauses together.
const PAUSES: Micros = 1_300_000;
/// Small writes: more prove nothing new.
const TORN_MAX: u32 = 40;

#[derive(Debug, Default)]
pub struct Line {
    /// The peer that is woken.
    pub me: usize,
    pub sock: Id,
    pub seal: Option<Seal>,
    /// What leaves before TLS: a PROXY header.
    pub header: Vec<u8>,
    /// What is to be sent; `sent` of it are with the kernel, or with TLS.
    pub out: Vec<u8>,
    pub sent: usize,
    /// The usual size of a write; 0: everything at once.
    grain: usize,
    torn: u32,
    pauses: Micros,
    read_after: Micros,
    write_after: Micros,
    pub eof: bool,
    pub reset: bool,
    /// Nothing can be sent any more.
    pub broken: bool,
    pub fin_sent: bool,
    /// FIN follows what TLS has to say.
    fin_due: bool,
    /// It ends TLS without a close_notify.
    pub rude: bool,
    /// It was closed here.
    pub gone: bool,
}

impl Line {
    pub fn new(me: usize, sock: Id, seal: Option<Seal>, kernel: &mut Kernel) -> Line {
        let grain = kernel.rng.pick(&[0, 0, 0, 1, 3, 40, 300, 1_000, 5_000]);
        Line { me, sock, seal, grain, ..Line::default() }
    }

    pub fn is_up(&self, kernel: &Kernel) -> bool {
        !self.gone && kernel.socks[self.sock].link != Link::Connecting
    }

    /// The end of what came says that it is all.
    pub fn ended_well(&self) -> bool {
        self.eof && !self.reset && self.seal.as_ref().is_none_or(|seal| seal.notified)
    }

    /// Nothing more comes.
    pub fn is_over(&self) -> bool {
        self.eof || self.reset
    }

    /// There is more to do now.
    pub fn wake(&self, kernel: &mut Kernel) {
        kernel.wake_peer(self.me);
    }

    pub fn later(&self, at: Micros, kernel: &mut Kernel) {
        kernel.at(at, What::Peer(self.me));
    }

    fn pause(&mut self, fault: Fault, one_in: u32, kernel: &mut Kernel) -> Option<Micros> {
        if kernel.faults.calm || self.pauses >= PAUSES || !kernel.rng.one_in(one_in) {
            return None;
        }
        let most = kernel.rng.pick(&[2_000, 30_000, 30_000, 1_000_000]);
        let pause = (1 + kernel.rng.below(most)).min(PAUSES - self.pauses);
        self.pauses += pause;
        kernel.faults.note(fault);
        Some(kernel.now + pause)
    }

    /// Reads what is there.
    pub fn read(&mut self, kernel: &mut Kernel, rx: &mut Vec<u8>) {
        while self.is_up(kernel) && !self.is_over() {
            if kernel.now < self.read_after {
                return;
            }
            if let Some(at) = self.pause(Fault::SlowReader, 48, kernel) {
                self.read_after = at;
                return self.later(at, kernel);
            }
            let max = if kernel.rng.one_in(8) { kernel.rng.size(1, 64) } else { usize::MAX };
            let take = |bytes: &[u8]| rx.extend_from_slice(bytes);
            let got = match &mut self.seal {
                Some(seal) => seal.recv(self.sock, max, kernel, take),
                None => kernel.recv(self.sock, max, take),
            };
            trace!(kernel, "plain {:#x} reads {got:?}", self.me);
            match got {
                // A write has learnt of the RST before.
                Ok(0) if kernel.socks[self.sock].was_reset => (self.reset, self.broken) = (true, true),
                Ok(0) => self.eof = true,
                Ok(_) => {}
                Err(libc::EAGAIN) => return,
                Err(_) => (self.reset, self.broken) = (true, true),
            }
        }
    }

    /// Takes the PROXY header off the front, if it has come.
    pub fn read_header(&mut self, kernel: &mut Kernel, header: &mut Vec<u8>) -> bool {
        while !header.ends_with(b"\r\n") {
            match kernel.recv(self.sock, 1, |bytes| header.extend_from_slice(bytes)) {
                Ok(0) => self.eof = true,
                Ok(_) => continue,
                Err(libc::EAGAIN) => {}
                Err(_) => (self.reset, self.broken) = (true, true),
            }
            return false;
        }
        true
    }

    /// Sends up to `limit` bytes of `out`. Whether they have left.
    pub fn write(&mut self, limit: usize, kernel: &mut Kernel) -> bool {
        if !self.is_up(kernel) || !self.send_header(kernel) {
            return false;
        }
        while self.sent < limit && !self.broken && !self.fin_sent && kernel.now >= self.write_after {
            if !self.flush(kernel) {
                return false;
            }
            let n = (limit - self.sent).min(self.piece(kernel));
            let got = match &mut self.seal {
                Some(seal) => {
                    let new_keys = kernel.rng.one_in(50);
                    seal.seal(&self.out[self.sent..self.sent + n], new_keys);
                    Ok(n)
                }
                None => kernel.send(self.sock, &self.out[self.sent..self.sent + n], usize::MAX),
            };
            match got {
                Ok(n) => self.sent += n,
                Err(libc::EAGAIN) => return false,
                Err(_) => self.broken = true,
            }
            self.pace(kernel);
        }
        self.flush(kernel) && self.sent >= limit
    }

    fn send_header(&mut self, kernel: &mut Kernel) -> bool {
        let sent = header::send(&mut self.header, &mut self.broken, self.sock, kernel);
        sent.unwrap_or_else(|at| {
            self.later(at, kernel);
            false
        })
    }

    /// Sends pending ciphertext. Whether more may be written.
    pub fn flush(&mut self, kernel: &mut Kernel) -> bool {
        let Some(seal) = &mut self.seal else { return true };
        if self.broken || self.gone {
            return false;
        }
        match seal.flush(self.sock, kernel) {
            Ok(()) if !seal.is_sent() => {
                let at = kernel.now + kernel.rng.below(400);
                kernel.at(at, What::Peer(self.me));
            }
            Ok(()) | Err(libc::EAGAIN) => {}
            Err(_) => self.broken = true,
        }
        let clear = self.seal.as_ref().is_some_and(Seal::is_clear);
        if self.fin_due && self.seal.as_ref().is_some_and(Seal::is_sent) && !self.broken {
            self.fin_due = false;
            let _ = kernel.shutdown(self.sock);
        }
        clear
    }

    fn piece(&mut self, kernel: &mut Kernel) -> usize {
        match self.grain {
            0 => usize::MAX,
            grain if grain <= 3 && !kernel.rng.one_in(6) => {
                kernel.faults.note(Fault::TornByte);
                self.torn += 1;
                self.grain = if self.torn == TORN_MAX { 100 } else { grain };
                grain
            }
            grain => kernel.rng.size(1, grain.max(200)).max(self.out.len() / 200),
        }
    }

    fn pace(&mut self, kernel: &mut Kernel) {
        let at = match self.pause(Fault::SlowWriter, 64, kernel) {
            Some(at) => at,
            None if kernel.rng.one_in(2) => return,
            None => kernel.now + kernel.rng.below(400),
        };
        self.write_after = at;
        self.later(at, kernel);
    }

    /// Everything that was sent has arrived at the other end.
    pub fn is_delivered(&self, kernel: &Kernel) -> bool {
        kernel.socks[self.sock].out.len() == 0 && self.seal.as_ref().is_none_or(Seal::is_sent)
    }

    /// Sends no more.
    pub fn fin(&mut self, kernel: &mut Kernel) {
        if self.fin_sent || self.gone || self.broken {
            return;
        }
        self.fin_sent = true;
        match &mut self.seal {
            Some(seal) if !self.rude && seal.is_open() => {
                seal.say_goodbye();
                self.fin_due = true;
                self.flush(kernel);
            }
            _ => drop(kernel.shutdown(self.sock)),
        }
    }

    /// The FIN that is due has been sent.
    pub fn is_finished(&self) -> bool {
        !self.fin_due || self.broken
    }

    pub fn close(&mut self, kernel: &mut Kernel) {
        if !self.gone {
            self.gone = true;
            kernel.close(self.sock);
        }
    }

    pub fn abort(&mut self, kernel: &mut Kernel) {
        if !self.gone {
            self.gone = true;
            kernel.abort(self.sock);
        }
    }
}
