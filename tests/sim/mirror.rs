//! The second server of a shadowed session, and what must hold of it: it gets what the session's
//! upstream gets, in order and nothing else; it is cut where too much waits for it; and it may do
//! whatever it likes, for the oracle judges its session as if it were not there.

use crate::coverage::Met;
use crate::kernel::{Id, Kernel, Link, MIRRORS, Owner, Sys, trace};
use crate::oracle::{Judgement, ensure};
use crate::peers::{KEYS, Peer};
use crate::rng::Rng;
use crate::schedule::{Connect, Session};
use crate::world::World;
use framegate::proto::Side;

/// What a shadow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Reads everything, and says something now and then.
    Reads,
    /// Never reads behind the request.
    Deaf,
    /// Never answers.
    Silent,
    Refuses,
    Bad101,
    /// Leaves after so many bytes of frames: with FIN, or with RST.
    Leaves {
        after: usize,
        rst: bool,
    },
}

/// The shadow of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub connect: Connect,
    pub manner: Manner,
    /// Bytes that may wait for it.
    pub buffer: usize,
    /// Its receive buffer, and the worker's send buffer toward it.
    pub windows: [usize; 2],
}

pub fn draw(rng: &mut Rng) -> Option<Plan> {
    if !rng.one_in(8) {
        return None;
    }
    let connect = match rng.below(8) {
        0 => Connect::Refused,
        1 => Connect::Lost,
        2 => Connect::Fails,
        _ => Connect::Works,
    };
    let manner = match rng.below(10) {
        0..4 => Manner::Reads,
        4..7 => Manner::Deaf,
        7 => rng.pick(&[Manner::Silent, Manner::Refuses, Manner::Bad101]),
        _ => Manner::Leaves { after: rng.size(0, 300), rst: rng.one_in(2) },
    };
    let buffer = rng.pick(&[0, 100, 1_000, 1_000_000, 1_000_000]);
    let windows = [rng.pick(&[300, 1_000, 65_536]), rng.pick(&[300, 1_000, 65_536])];
    Some(Plan { connect, manner, buffer, windows })
}

/// The server, once it is reached.
#[derive(Debug, Default)]
pub struct Mirror {
    pub session: usize,
    pub sock: Id,
    head: Vec<u8>,
    /// What came behind the request.
    rx: Vec<u8>,
    /// What is still to be sent.
    out: Vec<u8>,
    answered: bool,
    up: bool,
    eof: bool,
    reset: bool,
    /// It left by itself.
    left: bool,
    pub gone: bool,
}

impl Mirror {
    /// Does all that can be done now. Called after each change of its socket.
    pub fn step(&mut self, me: usize, session: &Session, kernel: &mut Kernel) {
        let Some(plan) = session.shadow else { return };
        if self.gone || kernel.socks[self.sock].link == Link::Connecting {
            return;
        }
        self.read(me, plan, kernel);
        if !self.answered && self.head.ends_with(b"\r\n\r\n") {
            self.answer(plan, session);
        }
        self.send(kernel);
        if let Manner::Leaves { after, rst } = plan.manner
            && self.up
            && self.rx.len() >= after
            && !self.eof
            && !self.reset
        {
            self.left = true;
            self.close(rst, kernel);
        } else if self.eof || self.reset {
            self.close(false, kernel);
        }
    }

    fn read(&mut self, me: usize, plan: Plan, kernel: &mut Kernel) {
        let deaf = self.up && plan.manner == Manner::Deaf;
        while !(self.eof || self.reset || deaf) {
            let (head, rx, up) = (&mut self.head, &mut self.rx, self.answered);
            // The worker says nothing behind its request before it has a response.
            let got = kernel.recv(self.sock, usize::MAX, |bytes| if up { rx } else { head }.extend_from_slice(bytes));
            trace!(kernel, "mirror {me} reads {got:?}");
            match got {
                Ok(0) => self.eof = true,
                Ok(_) if self.up && self.rx.len().is_multiple_of(7) => self.out.extend_from_slice(b"\x81\x05hello"),
                Ok(_) => {}
                Err(libc::EAGAIN) => return,
                Err(_) => self.reset = true,
            }
        }
    }

    fn answer(&mut self, plan: Plan, session: &Session) {
        self.answered = true;
        let key = match plan.manner {
            Manner::Silent => return,
            Manner::Refuses => return self.out.extend_from_slice(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            Manner::Bad101 => session.key + 1,
            Manner::Reads | Manner::Deaf | Manner::Leaves { .. } => session.key,
        };
        self.up = key == session.key;
        let accept = KEYS[key % KEYS.len()].1;
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        self.out.extend_from_slice(format!("{head}{accept}\r\n\r\n").as_bytes());
    }

    fn send(&mut self, kernel: &mut Kernel) {
        while !self.out.is_empty() && !self.reset {
            match kernel.send(self.sock, &self.out, usize::MAX) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(libc::EAGAIN) => return,
                Err(_) => self.reset = true,
            }
        }
    }

    fn close(&mut self, rst: bool, kernel: &mut Kernel) {
        self.gone = true;
        if rst { kernel.abort(self.sock) } else { kernel.close(self.sock) }
    }

    /// Against what the session's backend got, when everything is over.
    pub fn judge(&self, backend: Option<&Peer>, whole: bool) -> Judgement {
        // It may have left within the first word.
        let (start, n) = (b"GET /", self.head.len().min(5));
        let first = String::from_utf8_lossy(&self.head);
        ensure!(self.head[..n] == start[..n], "a shadow got {first:?} first");
        ensure!(self.up || self.rx.is_empty(), "a shadow that did not agree got {} bytes", self.rx.len());
        let Some(backend) = backend else { return Err("a shadow of a session without a backend".into()) };
        let n = self.rx.len().min(backend.rx.len());
        ensure!(self.rx[..n] == backend.rx[..n], "a shadow got something else than the upstream");
        // What is cut does not look like an end.
        let ended = self.eof && !self.reset && self.up;
        let fewer = self.rx.len() < backend.rx.len();
        ensure!(!ended || !fewer, "a shadow got {n} of {} bytes, and a FIN", backend.rx.len());
        ensure!(!whole || self.rx.len() <= backend.rx.len(), "a shadow got {} bytes, not {n}", self.rx.len());
        Ok(())
    }
}

impl World {
    /// A connection of the worker's to the shadow of a session.
    pub fn connect_shadow(&mut self, session: usize) -> Sys<Id> {
        let plan = self.script.sessions[session].shadow.expect("a session with a shadow");
        trace!(self.kernel, "connect for the shadow of session {session}: {:?}", plan.connect);
        let open =
            |peer: &Peer| (peer.session, peer.side) == (Some(session), Some(Side::Upstream)) && peer.facts.opened;
        assert!(self.peers[..self.peers_used].iter().any(open), "a shadow before its session is established");
        let (near, far) = self.dial(plan.connect, Owner::Peer(MIRRORS + self.mirrors.len()), false)?;
        self.coverage.meet(Met::Shadow);
        if let Some(far) = far {
            self.mirrors.push(Mirror { session, sock: far, ..Mirror::default() });
            self.kernel.windows(far, plan.windows[0].max(1_000), plan.windows[0].max(1_000));
            self.kernel.windows(near, plan.windows[1].max(1_000), plan.windows[1]);
        }
        Ok(near)
    }

    /// The worker has done everything that is due: no more waits for a shadow than its buffer
    /// holds.
    pub fn check_mirrors(&mut self) {
        let mut cut = false;
        for mirror in self.mirrors.iter().filter(|mirror| !mirror.gone) {
            let of_session = |peer: &&Peer| peer.session == Some(mirror.session) && peer.side == Some(Side::Upstream);
            let got = self.peers[..self.peers_used].iter().rev().find(of_session).map_or(0, |peer| peer.rx.len());
            let Some(plan) = self.script.sessions[mirror.session].shadow else { continue };
            let Some(near) = self.kernel.socks[mirror.sock].peer else { continue };
            let (near, far) = (&self.kernel.socks[near], &self.kernel.socks[mirror.sock]);
            // Bytes that the kernel has of it, the request among them.
            let taken = mirror.rx.len() + near.out.len() + far.rx.len();
            let most = plan.buffer + taken;
            cut |= near.closed && near.dead && !mirror.left;
            assert!(near.closed || got <= most, "{got} bytes went upstream, {most} to the shadow and its buffer");
        }
        if cut {
            self.coverage.meet(Met::ShadowCut);
        }
    }

    /// What must hold of the shadow of a session.
    pub fn judge_shadow(&self, session: usize, whole: bool) -> Judgement {
        let mut mirrors = self.mirrors.iter().filter(|mirror| mirror.session == session);
        let of_session = |peer: &&Peer| peer.session == Some(session) && peer.side == Some(Side::Upstream);
        let backend = self.peers[..self.peers_used].iter().rev().find(of_session);
        mirrors.try_for_each(|mirror| mirror.judge(backend, whole))?;
        let count = self.mirrors.iter().filter(|mirror| mirror.session == session).count();
        ensure!(count <= 1, "{count} shadows of one session");
        Ok(())
    }
}
