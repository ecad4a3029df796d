//! The smallest possible relay over `Sys`: it tests kernel, peers and oracle without the worker.
//! Forwards heads and frames unread, FIN as FIN, RST as RST, and closes on urgent data. Follows the
//! edge rules to the letter, so that each planted bug breaks it.

use crate::bugs::Bug;
use crate::calls::{SimListener, SimSock, SimSys};
use crate::schedule::Leg;
use crate::subject::{Drive, Ends, Subject, Verdict};
use crate::world::world;
use framegate::proto::end::{Cause, End, Party, Phase};
use framegate::proto::{Side, Sides};
use framegate::worker::sys::{Event, Sys, Target};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const IDLE_MS: u64 = 300_000;
const LISTENER: usize = 1 << 61;

#[derive(Default)]
struct Conn {
    sock: Option<SimSock>,
    read: bool,
    write: bool,
    /// FIN is known: a short read proves nothing.
    closing: bool,
    failed: bool,
    eof: bool,
    fin_sent: bool,
    backlog: Vec<u8>,
    fin_owed: bool,
}

struct Pair {
    generation: usize,
    conns: Sides<Conn>,
    head: Vec<u8>,
    port: u16,
    last: u64,
    connecting: bool,
    opened: bool,
    verdict: Option<(Party, Cause)>,
}

pub struct Toy {
    sys: SimSys,
    slots: Vec<Option<Pair>>,
    generation: usize,
    owed: bool,
    accepting: bool,
    events: Vec<Event>,
    ended: Ends,
    buf: Vec<u8>,
    now: u64,
}

fn token(generation: usize, slot: usize, side: Side) -> usize {
    3 << 61 | generation << 34 | slot << 2 | side as usize
}

impl Subject for Toy {
    const JUDGES: bool = false;
    const SECURE: [bool; 2] = [false; 2];
    const HEADED: bool = false;
    const PLAIN: bool = false;

    fn run(_: Option<Bug>, drive: &mut Drive<'_>) -> Result<Ends, String> {
        let mut toy = Toy::start();
        drive(&mut || toy.run_once())?;
        let left = toy.slots.iter().flatten().count();
        if left == 0 { Ok(toy.ended) } else { Err(format!("{left} pairs are left")) }
    }
}

impl Toy {
    fn start() -> Toy {
        let mut sys = SimSys;
        sys.register_listener(&mut SimListener, LISTENER).expect("infallible here");
        Toy {
            sys,
            slots: Vec::new(),
            generation: 0,
            owed: false,
            accepting: false,
            events: Vec::new(),
            ended: Ends::new(),
            buf: vec![0; 4096],
            now: 0,
        }
    }

    fn run_once(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.events);
        let open = self.slots.iter().flatten().map(|p| p.last + IDLE_MS).min();
        let timeout = if self.owed { Some(100) } else { open.map(|at| at.saturating_sub(self.now)) };
        self.sys.poll(&mut events, timeout.map(Duration::from_millis)).expect("infallible here");
        self.now = self.sys.now();
        for event in &events {
            self.on_event(event);
        }
        for slot in 0..self.slots.len() {
            self.drive(slot);
        }
        if self.accepting || self.owed {
            self.accept();
        }
        self.events = events;
        true
    }

    fn accept(&mut self) {
        (self.accepting, self.owed) = (false, false);
        loop {
            match self.sys.accept(&SimListener) {
                Ok((sock, addr)) => self.open(sock, addr),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.owed = true;
                    return;
                }
            }
        }
    }

    fn open(&mut self, sock: SimSock, addr: SocketAddr) {
        let slot = self.slots.iter().position(|s| s.is_none()).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.generation += 1;
        self.sys.register(&sock, token(self.generation, slot, Side::Downstream)).expect("infallible here");
        let client = Conn { sock: Some(sock), ..Conn::default() };
        self.slots[slot] = Some(Pair {
            generation: self.generation,
            conns: Sides::new(client, Conn::default()),
            head: Vec::new(),
            port: addr.port(),
            last: self.now,
            connecting: false,
            opened: false,
            verdict: None,
        });
    }

    fn on_event(&mut self, event: &Event) {
        if event.token == LISTENER {
            self.accepting = true;
            return;
        }
        let (slot, side) = (event.token >> 2 & 0xffff_ffff, Side::BOTH[event.token & 1]);
        let Some(Some(pair)) = self.slots.get_mut(slot) else { return };
        if pair.generation != event.token >> 34 & 0x07ff_ffff {
            return;
        }
        let conn = &mut pair.conns[side];
        conn.read |= event.readable;
        conn.write |= event.writable;
        conn.closing |= event.read_closed || event.error;
        if event.priority {
            pair.verdict.get_or_insert((side.into(), Cause::UrgentData));
        }
    }

    fn drive(&mut self, slot: usize) {
        let Some(mut pair) = self.slots[slot].take() else { return };
        if pair.verdict.is_none() && self.now >= pair.last + IDLE_MS {
            pair.verdict = Some((Party::Proxy, Cause::IdleTimeout));
        }
        let mut moved = true;
        while moved && pair.verdict.is_none_or(|(_, cause)| cause == Cause::Eof) {
            moved = false;
            Side::BOTH.iter().for_each(|side| self.flush(&mut pair, *side));
            for side in Side::BOTH {
                moved |= self.pull(&mut pair, side, slot);
            }
        }
        let reset = pair.verdict.is_some_and(|(_, cause)| cause != Cause::Eof);
        let done = Side::BOTH.iter().all(|s| pair.conns[*s].eof && pair.conns[*s].fin_sent);
        let never = pair.conns[Side::Upstream].sock.is_none() && pair.conns[Side::Downstream].eof;
        if !reset && !done && !never {
            self.slots[slot] = Some(pair);
            return;
        }
        for side in Side::BOTH {
            if let Some(sock) = pair.conns[side].sock.take()
                && reset
            {
                self.sys.abort(sock);
            }
        }
        let phase = if pair.opened { Phase::Open } else { Phase::Request };
        let (party, cause) = pair.verdict.unwrap_or((Party::Downstream, Cause::NoRequest));
        let ended = End { party, phase, cause };
        self.ended.push(Verdict {
            port: pair.port,
            ended,
            status: None,
            codes: Sides::default(),
            bytes: Sides::default(),
            age_ms: 0,
        });
        // The client that freed a descriptor may let another in.
        self.accepting |= self.owed;
    }

    fn pull(&mut self, pair: &mut Pair, side: Side, slot: usize) -> bool {
        let other = side.other();
        if !pair.conns[side].read || pair.conns[side].eof || pair.connecting && !pair.conns[other].backlog.is_empty() {
            return false;
        }
        let Some(sock) = &pair.conns[side].sock else { return false };
        let mut buf = std::mem::take(&mut self.buf);
        let got = self.sys.recv(sock, &mut buf);
        let conn = &mut pair.conns[side];
        let mut more = true;
        match got {
            Ok(0) => {
                conn.eof = true;
                pair.verdict.get_or_insert((side.into(), Cause::Eof));
                pair.conns[other].fin_owed = true;
            }
            Ok(n) => {
                pair.last = self.now;
                more = n == buf.len() || conn.closing;
                conn.read = more;
                pair.opened |= side == Side::Upstream;
                pair.conns[other].backlog.extend_from_slice(&buf[..n]);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                (conn.read, more) = (false, false);
            }
            Err(_) => pair.verdict = Some((side.into(), Cause::Reset)),
        }
        self.buf = buf;
        if side == Side::Downstream && !pair.connecting {
            self.connect(pair, slot);
        }
        self.flush(pair, other);
        more
    }

    fn connect(&mut self, pair: &mut Pair, slot: usize) {
        pair.head.clone_from(&pair.conns[Side::Upstream].backlog);
        if !pair.head.windows(4).any(|window| window == b"\r\n\r\n") {
            // The head is incomplete: read on.
            pair.conns[Side::Upstream].backlog.clear();
            pair.conns[Side::Upstream].backlog = std::mem::take(&mut pair.head);
            return;
        }
        pair.connecting = true;
        let session = pair.port - 1000;
        let leg = world(|w| w.script.sessions[usize::from(session)].leg);
        let addr = SocketAddr::from((Ipv4Addr::new(10, 0, session as u8, 1), 80));
        let path = PathBuf::from(format!("/sim/{session}.sock"));
        let target = if leg == Leg::Unix { Target::Unix(&path) } else { Target::Tcp(addr) };
        match self.sys.connect(target) {
            Ok(sock) => {
                self.sys.register(&sock, token(pair.generation, slot, Side::Upstream)).expect("infallible here");
                pair.conns[Side::Upstream].sock = Some(sock);
            }
            Err(_) => pair.verdict = Some((Party::Upstream, Cause::ConnectRefused)),
        }
    }

    fn flush(&mut self, pair: &mut Pair, side: Side) {
        let conn = &mut pair.conns[side];
        let Some(sock) = &conn.sock else { return };
        while conn.write && !conn.backlog.is_empty() && !conn.failed {
            match self.sys.send(sock, &conn.backlog) {
                Ok(n) => {
                    pair.last = self.now;
                    conn.write = n == conn.backlog.len();
                    conn.backlog.drain(..n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => conn.write = false,
                Err(_) => {
                    conn.failed = true;
                    pair.verdict = Some((side.into(), Cause::Reset));
                }
            }
        }
        if conn.fin_owed && conn.backlog.is_empty() && !conn.fin_sent {
            conn.fin_sent = true;
            let _ = self.sys.shutdown(sock);
        }
    }
}
