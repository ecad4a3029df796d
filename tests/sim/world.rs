//! The world of one schedule: kernel, listener, epoll, peers, virtual time. Lives in a
//! thread-local, so that the worker's sockets can close themselves when they are dropped. Time
//! passes inside `poll`, and a little inside other calls where a fault says so.

use crate::asks::{ASKS_MAX, Ask};
use crate::auth::{Kind, credential};
use crate::bugs::Bug;
use crate::callee::Callee;
use crate::control::Control;
use crate::coverage::{Coverage, Met};
use crate::credentials::Life;
use crate::deadlines::Calls;
use crate::faults::Fault;
use crate::fleet::Cookie;
use crate::header;
use crate::kernel::{CALLEES, Id, Kernel, MIRRORS, Micros, Owner, PLAINS, Sys, What, trace};
use crate::limits::Flow;
use crate::members::Group;
use crate::mirror::Mirror;
use crate::pace::Reads;
use crate::peers::{Peer, Stage};
use crate::plain;
use crate::schedule::{Leg, SESSIONS, Script};
use crate::seal::Seal;
use crate::services::Hub;
use crate::subject;
use framegate::proto::{Side, Sides};
use framegate::worker::sys::Event;
use framegate::worker::token::Token;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// The world of this thread.
pub fn world<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|w| f(&mut w.borrow_mut()))
}

/// As [`world`], for a drop during a panic that may have left the world borrowed.
pub fn world_if_free(f: impl FnOnce(&mut World)) {
    WORLD.with(|w| {
        if let Ok(mut w) = w.try_borrow_mut() {
            f(&mut w);
        }
    });
}

#[derive(Debug, Default)]
pub struct Listener {
    /// The worker's ends of connections that were not accepted yet.
    pub queue: VecDeque<Id>,
    pub token: Option<usize>,
    /// An edge since the last poll.
    pub edge: bool,
    /// No descriptor, table entry or memory until then.
    starved_until: Micros,
    starved: i32,
}

/// An event of a socket that is closed: poll had fetched it, or a copy of the descriptor lives
/// elsewhere.
#[derive(Debug, Clone, Copy)]
struct Phantom {
    token: usize,
    /// Registrations when it was made: it comes once the slot may have a new owner.
    registered: u64,
    polls: u32,
}

#[derive(Debug, Default)]
pub struct World {
    pub kernel: Kernel,
    pub listener: Listener,
    pub peers: Vec<Peer>,
    pub peers_used: usize,
    /// The servers of the worker's own calls.
    pub callees: Vec<Callee>,
    /// Shadows that were reached.
    pub mirrors: Vec<Mirror>,
    /// Clients and servers of plain HTTP.
    pub plain: plain::stage::Stage,
    /// Sessions have none.
    pub no_shadows: bool,
    pub services: Option<Hub>,
    /// What control does; from the start of the worker on.
    pub control: Option<Control>,
    /// The worker's inbox has something, and no poll has reported it.
    pub inbox_edge: bool,
    pub script: Script,
    /// Sides with TLS, where it is TCP.
    pub secure: Sides<bool>,
    /// Connections begin with PROXY headers, where they are TCP.
    pub headed: bool,
    pub bug: Option<Bug>,
    /// Nothing can happen any more: no event, no timer.
    pub still: bool,
    /// Sockets that were sent their last bytes and wait for the FIN.
    pub corked: Vec<Id>,
    /// What is in each pipe; none for one that was closed.
    pub pipes: Vec<Option<Vec<u8>>>,
    /// The worker's own calls.
    pub calls: Calls,
    /// What was read in paced sessions.
    pub reads: Vec<Reads>,
    /// The clock as the worker has read it.
    pub worker_now: u64,
    pub coverage: Coverage,
    /// Sockets whose urgent data the last poll has reported.
    told_urgent: Vec<Id>,
    phantoms: Vec<Phantom>,
    registrations: u64,
    /// The upstream of each session.
    pub groups: [Group; SESSIONS],
    /// What has become of the credentials of each session, and of its limit.
    pub lives: [Life; SESSIONS],
    pub flows: [Flow; SESSIONS],
    /// Attempts to reach the callee of each question.
    pub call_tries: [[usize; ASKS_MAX]; SESSIONS],
    /// Attempts for which there was no descriptor.
    pub starved_connects: u64,
    /// How far the clock may still jump in this schedule.
    skew_left: Micros,
    pub random: crate::rng::Rng,
}

impl World {
    /// A new schedule in the memory of the last one.
    pub fn begin(&mut self, script: Script, seed: u64) {
        self.kernel.begin(seed ^ 0xfa17);
        self.kernel.faults.begin(seed ^ 0x00b5_e55e);
        self.random = crate::rng::Rng::new(seed ^ 0x5a17);
        self.listener.queue.clear();
        self.listener = Listener { queue: std::mem::take(&mut self.listener.queue), ..Listener::default() };
        self.peers_used = 0;
        self.callees.clear();
        self.mirrors.clear();
        (self.services, self.control, self.inbox_edge) = (None, None, false);
        self.script = script;
        if self.no_shadows {
            self.script.sessions.iter_mut().for_each(|session| session.shadow = None);
        }
        self.reads.clear();
        self.calls.clear();
        self.coverage.begin();
        self.phantoms.clear();
        self.told_urgent.clear();
        self.corked.clear();
        self.pipes.clear();
        (self.still, self.registrations, self.skew_left) = (false, 0, 1_000_000);
        (self.groups, self.call_tries) = Default::default();
        (self.lives, self.flows) = Default::default();
        (self.starved_connects, self.worker_now) = (0, self.kernel.now / 1_000);
        let start = self.kernel.now;
        for index in 0..self.script.sessions.len() {
            let start = start + self.script.sessions[index].start_ms * 1_000;
            self.add_client(Some(index), start);
            for (n, (at, _)) in self.script.sessions[index].fleet.changes.iter().enumerate() {
                self.kernel.at(start + at, What::Change(index, n));
            }
            if let Some(order) = self.script.sessions[index].order.filter(|order| !order.eager) {
                self.kernel.at(start + order.at, What::Revoke(index));
            }
        }
        self.begin_plain();
        for _ in 0..self.script.decoys {
            let at = start + self.kernel.rng.below(20_000);
            self.add_client(None, at);
        }
    }

    fn add_client(&mut self, session: Option<usize>, at: Micros) {
        let peer = self.peers_used;
        let (far, near) = self.kernel.pair(Owner::Worker, Owner::Peer(peer), false);
        self.add_peer(Side::Downstream, session, near);
        let cookie = session.map_or(String::new(), |index| self.cookie(index) + &self.authorization(index));
        self.peers[peer].request(&self.script, cookie.as_bytes());
        if let Some(index) = session.filter(|_| self.headed) {
            self.peers[peer].announce(header::of_client(index, &self.script.sessions[index]));
        }
        self.windows(session, far, near);
        self.kernel.at(at, What::Queue(far));
    }

    /// The Cookie field of a session's request.
    fn cookie(&self, index: usize) -> String {
        match self.script.sessions[index].fleet.sticky {
            None | Some(Cookie::Missing) => String::new(),
            Some(Cookie::Wrong) => format!("Cookie: {}00\r\n", subject::cookie_of(index, 0, false)),
            Some(Cookie::Of(endpoint)) => {
                let secure = self.secure[Side::Upstream];
                format!("Cookie: a=b; {}\r\n", subject::cookie_of(index, endpoint, secure))
            }
        }
    }

    /// The Authorization field of a session's request.
    fn authorization(&self, index: usize) -> String {
        let asked = self.script.sessions[index].asks.last();
        let shows = asked.is_some_and(|ask| matches!(ask, Ask::Call(call) if call.kind != Kind::Check));
        if shows { format!("Authorization: Bearer {}\r\n", credential(index)) } else { String::new() }
    }

    pub fn add_peer(&mut self, side: Side, session: Option<usize>, sock: Id) {
        if self.peers.len() == self.peers_used {
            self.peers.push(Peer::default());
        }
        let before = |peer: &&Peer| peer.session == session && peer.side == Some(Side::Upstream);
        let nth = self.peers[..self.peers_used].iter().filter(before).count();
        self.peers[self.peers_used].begin(side, session, sock, &mut self.kernel);
        self.peers[self.peers_used].nth = nth;
        if let Some(index) = session
            && self.secure[side]
            && (side == Side::Downstream || self.script.sessions[index].leg != Leg::Unix)
        {
            let peer = &mut self.peers[self.peers_used];
            peer.seal = Some(if side == Side::Downstream { Seal::client() } else { Seal::server() });
            peer.rude = self.script.sessions[index].key % 2 == 1;
        }
        if let Some(index) = session
            && (self.headed, side) == (true, Side::Upstream)
            && self.script.sessions[index].leg != Leg::Unix
        {
            self.peers[self.peers_used].expect(header::for_backend(index, self.script.sessions[index].key));
        }
        self.peers_used += 1;
    }

    pub fn windows(&mut self, session: Option<usize>, a: Id, b: Id) {
        let tiny = session.is_some_and(|i| self.script.sessions[i].tiny);
        let secure = Side::BOTH.iter().any(|side| self.secure[*side]);
        if tiny {
            self.kernel.faults.note(Fault::TinyWindow);
        }
        let bulk =
            session.is_some_and(|i| self.script.sessions[i].bulk).then(|| self.kernel.rng.pick(&[1 << 16, 1 << 20]));
        for id in [a, b] {
            let rng = &mut self.kernel.rng;
            let sizes: &[usize] = match (tiny, session) {
                // A PROXY header and a ClientHello fit into any real buffer.
                (true, _) if secure => &[600, 1_000],
                (true, _) if self.headed => &[150, 300, 600],
                (true, Some(0)) => &[24, 40, 64, 150],
                (true, _) => &[3, 7, 16, 40, 64],
                (false, _) if secure => &[600, 1_000, 4_096, 65_536, 65_536],
                (false, _) => &[300, 1_000, 4_096, 65_536, 65_536],
            };
            let (rx, out) = (bulk.unwrap_or_else(|| rng.pick(sizes)), bulk.unwrap_or_else(|| rng.pick(sizes)));
            self.kernel.windows(id, rx, out);
        }
    }

    /// Lets everything happen that is due now.
    pub fn settle(&mut self) {
        let mut turns = 0;
        loop {
            if let Some(peer) = self.kernel.woken.pop_front() {
                self.step(peer);
            } else if let Some(session) = self.kernel.answering.pop() {
                self.answer(session);
            } else if let Some((session, n)) = self.kernel.changing.pop() {
                self.change(session, n);
            } else if let Some((session, n)) = self.kernel.over.pop() {
                self.end_other(session, n);
            } else if let Some(session) = self.kernel.sweeping.pop() {
                self.sweep(session);
            } else if let Some(session) = self.kernel.revoking.pop() {
                self.revoke(session);
            } else if self.kernel.next_due().is_some_and(|at| at <= self.kernel.now) {
                if let Some(id) = self.kernel.run_due() {
                    self.enqueue(id);
                }
            } else {
                return;
            }
            turns += 1;
            assert!(turns < 1_000_000, "the peers never come to rest");
        }
    }

    /// The service of a session gives its answer.
    fn answer(&mut self, session: usize) {
        let (Some(services), script) = (&mut self.services, &self.script) else { return };
        self.inbox_edge |= services.answer(session, script, &self.kernel, self.bug);
        let of_client = |p: &&Peer| p.session == Some(session) && p.side == Some(Side::Downstream);
        let client = self.peers[..self.peers_used].iter().find(of_client).map(|peer| peer.sock);
        if client.and_then(|sock| self.kernel.socks[sock].peer).is_some_and(|end| self.kernel.socks[end].closed) {
            self.coverage.meet(Met::LateAnswer);
        }
    }

    fn step(&mut self, peer: usize) {
        if peer >= PLAINS {
            return self.step_plain(peer);
        }
        if peer >= MIRRORS {
            let mirror = &mut self.mirrors[peer - MIRRORS];
            return mirror.step(peer - MIRRORS, &self.script.sessions[mirror.session], &mut self.kernel);
        }
        if peer >= CALLEES {
            let callee = &mut self.callees[peer - CALLEES];
            return callee.step(peer - CALLEES, &self.script.sessions[callee.session], &mut self.kernel);
        }
        let stepped = &self.peers[peer];
        let (session, side) = (stepped.session, stepped.side);
        let of_other = |p: &Peer| session.is_some() && p.session == session && p.side != side;
        let other = self.peers[..self.peers_used].iter().rposition(of_other);
        let other_got = other.map_or(0, |other| self.peers[other].rx.len());
        let (before, knew) = (self.peers[peer].rx.len(), self.peers[peer].facts.head_ok);
        self.peers[peer].step(peer, &self.script, other_got, &mut self.kernel);
        if let Some(session) = session.filter(|_| side == Some(Side::Upstream) && !knew) {
            self.revoke_at_once(session, peer);
        }
        // A patient peer waits for what the other one has.
        if let Some(other) = other
            && self.peers[peer].rx.len() > before
        {
            self.kernel.wake_peer(other);
        }
    }

    fn enqueue(&mut self, id: Id) {
        self.kernel.connected(id);
        self.listener.queue.push_back(id);
        self.listener.edge = self.listener.token.is_some();
    }

    /// Time goes on for a moment in the middle of a pass.
    pub fn slip(&mut self) {
        if self.kernel.faults.strikes(Fault::MidPass) {
            self.kernel.now += self.kernel.rng.below(300);
            self.settle();
        }
    }

    // --- calls that make or end sockets

    pub fn accept(&mut self) -> Sys<(Id, SocketAddr)> {
        self.slip();
        let Some(&id) = self.listener.queue.front() else { return Err(libc::EAGAIN) };
        if let Some(error) = self.starvation() {
            return Err(error);
        }
        self.listener.queue.pop_front();
        let reset = self.kernel.socks[id].was_reset;
        if reset && self.kernel.faults.strikes(Fault::Aborted) {
            self.kernel.socks[id].closed = true;
            return Err(libc::ECONNABORTED);
        }
        self.kernel.hold();
        let session = match self.kernel.socks[id].peer.map(|peer| self.kernel.socks[peer].owner) {
            Some(Some(Owner::Peer(peer))) if peer >= PLAINS => Some(peer - PLAINS),
            Some(Some(Owner::Peer(peer))) => self.peers[peer].session,
            _ => None,
        };
        let ip = Ipv4Addr::new(192, 0, 2, 1 + session.unwrap_or(9) as u8);
        let addr = SocketAddr::new(IpAddr::V4(ip), 1000 + session.unwrap_or(99) as u16);
        if let Some(session) = session.filter(|_| self.script.plain.is_none()) {
            self.lives[session].accepted_ms = Some(self.worker_now);
        }
        trace!(self.kernel, "accept -> sock {id} of session {session:?}");
        Ok((id, addr))
    }

    /// Whether accept fails for want of something, as it may for a while.
    fn starvation(&mut self) -> Option<i32> {
        let now = self.kernel.now;
        let kinds = [
            (Fault::NoFile, libc::EMFILE),
            (Fault::NoTable, libc::ENFILE),
            (Fault::NoBufs, libc::ENOBUFS),
            (Fault::NoMemory, libc::ENOMEM),
        ];
        if now >= self.listener.starved_until {
            let (_, error) = kinds.into_iter().find(|(fault, _)| self.kernel.faults.strikes(*fault))?;
            self.listener.starved = error;
            self.listener.starved_until = now + 1 + self.kernel.rng.below(300_000);
        }
        trace!(self.kernel, "accept -> errno {}", self.listener.starved);
        Some(self.listener.starved)
    }

    pub fn close(&mut self, id: Id, rst: bool) {
        trace!(self.kernel, "worker {} sock {id}", if rst { "aborts" } else { "closes" });
        self.corked.retain(|corked| *corked != id);
        if let Some(token) = self.kernel.socks[id].token
            && self.kernel.faults.strikes(Fault::StaleToken)
        {
            self.phantoms.push(Phantom { token, registered: self.registrations, polls: 0 });
        }
        if rst {
            self.kernel.abort(id);
        } else {
            self.kernel.close(id);
        }
    }

    // --- epoll

    pub fn register(&mut self, id: Id, token: usize) {
        self.registrations += 1;
        self.kernel.socks[id].token = Some(token);
        if self.kernel.bits(id).any() {
            self.kernel.wake(id);
        }
    }

    pub fn register_listener(&mut self, token: usize) {
        self.listener.token = Some(token);
        self.listener.edge = !self.listener.queue.is_empty();
    }

    /// Waits, in virtual time, for something to report.
    pub fn poll(&mut self, events: &mut Vec<Event>, timeout_ms: Option<u64>) {
        self.confirm_urgent();
        self.check_calls();
        self.check_counts();
        self.check_mirrors();
        self.note_ejections();
        self.check_links();
        if self.kernel.faults.strikes(Fault::Interrupted) {
            return self.settle();
        }
        let now = self.kernel.now;
        let deadline = timeout_ms.map(|ms| now + ms * 1_000);
        if let Some(services) = &mut self.services
            && services.take(&self.script, &mut self.kernel)
        {
            self.coverage.meet(Met::Service);
        }
        self.settle();
        while !self.has_edges() && deadline.is_none_or(|at| self.kernel.now < at) {
            match (self.kernel.next_due(), deadline) {
                (Some(at), deadline) if deadline.is_none_or(|d| at <= d) => self.kernel.now = self.kernel.now.max(at),
                (_, Some(deadline)) => {
                    if self.kernel.faults.strikes(Fault::EarlyTimer) {
                        self.kernel.now += self.kernel.rng.below(deadline - self.kernel.now);
                        break;
                    }
                    self.kernel.now = deadline;
                    self.be_late();
                }
                (_, None) => {
                    self.still = true;
                    return;
                }
            }
            self.settle();
        }
        // More may happen before the worker runs.
        if self.kernel.rng.one_in(3) {
            self.kernel.now += self.kernel.rng.below(400);
            self.settle();
        }
        if self.kernel.faults.strikes(Fault::Skew) && self.skew_left > 0 {
            let jump = 1 + self.kernel.rng.below(self.skew_left);
            self.skew_left -= jump;
            self.kernel.now += jump;
            self.settle();
        }
        self.collect(events);
    }

    /// There is something to report.
    fn has_edges(&self) -> bool {
        !self.kernel.ready.is_empty() || self.listener.edge || self.inbox_edge
    }

    fn be_late(&mut self) {
        if self.kernel.faults.strikes(Fault::LateTimer) {
            let late = self.kernel.rng.below(20_000).min(self.skew_left);
            self.skew_left -= late;
            self.kernel.now += late;
        }
    }

    /// The readiness of this moment for everything on the ready list; the list is empty afterwards.
    fn collect(&mut self, events: &mut Vec<Event>) {
        while let Some(id) = self.kernel.ready.pop_front() {
            self.kernel.socks[id].ready = false;
            let Some(token) = self.kernel.socks[id].token else { continue };
            let bits = self.kernel.bits(id);
            if bits.urgent {
                self.told_urgent.push(id);
            }
            if bits.any() {
                trace!(self.kernel, "event sock {id} token {token:#x}: {bits:?}");
                // As mio reads them.
                events.push(Event {
                    token,
                    readable: bits.input || bits.urgent,
                    writable: bits.output,
                    read_closed: bits.hup || bits.input && bits.read_hup,
                    error: bits.error,
                    priority: bits.urgent,
                });
            }
        }
        if self.listener.edge
            && let Some(token) = self.listener.token
        {
            self.listener.edge = false;
            if !self.listener.queue.is_empty() {
                let at = self.kernel.rng.size(0, events.len());
                events.insert(at, Event { token, readable: true, ..Event::default() });
            }
        }
        if std::mem::take(&mut self.inbox_edge) {
            self.tell_changes();
            let at = self.kernel.rng.size(0, events.len());
            events.insert(at, Event { token: Token::Waker.pack(), readable: true, ..Event::default() });
        }
        self.add_phantoms(events);
        if events.len() > 1 && self.kernel.faults.strikes(Fault::Reordered) {
            for i in (1..events.len()).rev() {
                let j = self.kernel.rng.size(0, i);
                events.swap(i, j);
            }
        }
        if let Some(bug) = self.bug {
            bug.on_events(events, self.kernel.in_use());
        }
        self.kernel.fold(self.kernel.now);
        self.kernel.fold(events.len() as u64);
    }

    /// The worker has learnt of urgent data in the iteration that ends now, early enough that
    /// nothing else can have ended the session: no peer had acted, nor has one since.
    fn confirm_urgent(&mut self) {
        while let Some(id) = self.told_urgent.pop() {
            let Some(Owner::Peer(sender)) = self.kernel.socks[id].peer.and_then(|peer| self.kernel.socks[peer].owner)
            else {
                continue;
            };
            let session = self.peers[sender].session;
            let quiet = |p: &Peer| p.session != session || !p.facts.acted && p.facts.answered_at.is_none();
            if self.peers[..self.peers_used].iter().all(quiet) {
                self.peers[sender].facts.urgent_told = true;
            }
        }
    }

    fn add_phantoms(&mut self, events: &mut Vec<Event>) {
        let registrations = self.registrations;
        let mut i = 0;
        while i < self.phantoms.len() {
            self.phantoms[i].polls += 1;
            let Phantom { token, registered, polls } = self.phantoms[i];
            if registrations == registered && polls < 40 {
                i += 1;
                continue;
            }
            self.phantoms.swap_remove(i);
            let rng = &mut self.kernel.rng;
            let mut flag = || rng.one_in(2);
            let event = Event {
                token,
                readable: flag(),
                writable: flag(),
                read_closed: flag(),
                error: flag(),
                priority: flag(),
            };
            trace!(self.kernel, "stale event {event:?}");
            events.push(event);
        }
    }

    /// Ends what the peers still hold.
    pub fn finish(&mut self) {
        self.kernel.faults.calm = true;
        for peer in &mut self.peers[..self.peers_used] {
            if peer.stage != Stage::Gone && !self.kernel.socks[peer.sock].closed {
                self.kernel.close(peer.sock);
            }
        }
        for mirror in self.mirrors.iter().filter(|mirror| !mirror.gone) {
            if !self.kernel.socks[mirror.sock].closed {
                self.kernel.close(mirror.sock);
            }
        }
        for callee in self.callees.iter().filter(|callee| !callee.gone) {
            if !self.kernel.socks[callee.sock].closed {
                self.kernel.close(callee.sock);
            }
        }
        self.finish_plain();
    }
}
