//! Clients and servers of plain HTTP in the world: they come, they are woken, and the worker's
//! connections reach them.

use super::changes::{Change, Changed, Link};
use super::client::Client;
use super::line::Line;
use super::server::{Attempts, Server};
use super::{ASKS, Answer, CLIENTS, Plan};
use crate::faults::Fault;
use crate::header;
use crate::kernel::{Id, Kernel, Owner, PLAIN_SERVERS, PLAINS, Sys, What, trace};
use crate::schedule::Connect;
use crate::seal::Seal;
use crate::world::World;
use framegate::policy::upstream::Upstream;
use framegate::proto::Side;
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Stage {
    pub clients: Vec<Client>,
    pub servers: Vec<Server>,
    pub attempts: Attempts,
    /// The worker's connections to servers.
    pub links: Vec<Link>,
    pub changed: Changed,
    /// The upstream at the start, and that of a reload.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Attempts to connect that fail.
    pub failed: usize,
    pub lost: usize,
    /// All that had a descriptor.
    connects: usize,
    /// The worker's socket that was read last, in a schedule of plain HTTP.
    pub read_last: Option<Id>,
}

impl World {
    /// The clients of the script.
    pub fn begin_plain(&mut self) {
        self.plain = Stage::default();
        let Some(plan) = self.script.plain.take() else { return };
        self.plain.attempts = vec![vec![Vec::new(); ASKS]; CLIENTS];
        let start = self.kernel.now;
        for (index, client) in plan.clients.iter().enumerate() {
            let me = PLAINS + index;
            let (far, near) = self.kernel.pair(Owner::Worker, Owner::Peer(me), false);
            let mut line = Line::new(me, near, self.secure[Side::Downstream].then(Seal::client), &mut self.kernel);
            if self.headed {
                line.header = header::whole(index, client.key);
            }
            self.plain.clients.push(Client::new(index, client, line));
            self.plain_windows(&plan, client.tiny, [far, near]);
            self.kernel.at(start + client.start_ms * 1_000, What::Queue(far));
        }
        for (n, at) in plan.moments() {
            self.kernel.at(start + at, What::Change(0, n));
        }
        self.script.plain = Some(plan);
    }

    fn plain_windows(&mut self, plan: &Plan, tiny: bool, ends: [Id; 2]) {
        let longest = plan.longest();
        let secure = Side::BOTH.iter().any(|side| self.secure[*side]);
        for id in ends {
            let sizes: &[usize] = match tiny && longest < 1_000 {
                // A ClientHello, and a PROXY header, fit into any real buffer.
                true if secure || self.headed => &[600, 1_000],
                true => &[24, 40, 64, 150],
                false if longest > 20_000 => &[65_536, 1 << 20],
                false if secure => &[600, 1_000, 4_096, 65_536],
                false => &[300, 1_000, 4_096, 65_536],
            };
            if tiny {
                self.kernel.faults.note(Fault::TinyWindow);
            }
            let (rx, out) = (self.kernel.rng.pick(sizes), self.kernel.rng.pick(sizes));
            self.kernel.windows(id, rx, out);
        }
    }

    /// A connection of the worker's to a server.
    pub fn connect_plain(&mut self, endpoint: usize) -> Sys<Id> {
        let me = PLAIN_SERVERS + self.plain.servers.len();
        let Some(plan) = self.script.plain.take() else { return Err(libc::ECONNREFUSED) };
        let outcome = plan.connects.get(self.plain.connects).copied().unwrap_or(Connect::Works);
        trace!(self.kernel, "connect to endpoint {endpoint}: {me:#x} {outcome:?}");
        let down = self.plain.changed.has_begun(Change::Down) && endpoint == 0;
        assert!(!down || self.starved_connects > 0, "an attempt goes to an endpoint that is down");
        let dialled = self.dial(outcome, Owner::Peer(me), false);
        let starved = dialled.is_err() && outcome != Connect::Fails;
        self.plain.connects += usize::from(!starved);
        self.plain.failed += usize::from(!starved && matches!(outcome, Connect::Refused | Connect::Fails));
        self.plain.lost += usize::from(!starved && outcome == Connect::Lost);
        if let Ok((near, Some(far))) = dialled {
            let line = Line::new(me, far, self.secure[Side::Upstream].then(Seal::server), &mut self.kernel);
            let tiny = plan.clients.iter().any(|client| client.tiny);
            self.plain_windows(&plan, tiny, [near, far]);
            let (opened_ms, read_ms) = (self.worker_now, self.worker_now);
            self.plain.links.push(Link { sock: near, opened_ms, read_ms, silent: false });
            self.plain.servers.push(Server::new(self.plain.servers.len(), endpoint, line, self.headed));
        }
        self.script.plain = Some(plan);
        dialled.map(|(near, _)| near)
    }

    /// A client or a server is woken.
    pub fn step_plain(&mut self, peer: usize) {
        let Some(plan) = &self.script.plain else { return };
        if let Some(server) = peer.checked_sub(PLAIN_SERVERS) {
            return self.plain.servers[server].step(plan, &mut self.plain.attempts, &mut self.kernel);
        }
        let client = &mut self.plain.clients[peer - PLAINS];
        client.step(&plan.clients[client.index], &mut self.kernel);
    }

    /// The server at the other end of a connection of the worker's.
    pub fn plain_server_of(&self, id: Id) -> Option<&Server> {
        let Some(Owner::Peer(peer)) = self.kernel.socks[self.kernel.socks[id].peer?].owner else { return None };
        self.plain.servers.get(peer.checked_sub(PLAIN_SERVERS)?)
    }

    /// Ends what clients and servers still hold.
    pub fn finish_plain(&mut self) {
        let (plain, kernel) = (&mut self.plain, &mut self.kernel);
        let lines = plain.clients.iter_mut().map(|client| &mut client.line);
        for line in lines.chain(plain.servers.iter_mut().map(|server| &mut server.line)) {
            if !kernel.socks[line.sock].closed {
                line.close(kernel);
            }
        }
    }

    /// For a trace.
    pub fn trace_plain(&self) {
        for (index, client) in self.script.plain.iter().flat_map(|plan| plan.clients.iter().enumerate()) {
            eprintln!("script {index}: ahead {} leaves {:?} {:?}", client.ahead, client.leaves, client.last);
            for ask in &client.asks {
                let (head, n) = ask.bytes(index, 0);
                eprintln!("    {:?} and {} bytes", String::from_utf8_lossy(&head[..n]), ask.body.content.len());
                for answer in &ask.answers {
                    let Answer { status, when, fault, then, closes, http10, .. } = answer;
                    eprintln!("        {status} {when:?} {fault:?} {then:?} closes {closes} http10 {http10}");
                }
            }
        }
        let state = |line: &Line, kernel: &Kernel| {
            let (sent, of, eof, reset, gone) = (line.sent, line.out.len(), line.eof, line.reset, line.gone);
            format!(
                "{:#x} sock {} sent {sent} of {of} eof {eof} reset {reset} gone {gone} at {}",
                line.me, line.sock, kernel.now
            )
        };
        for client in &self.plain.clients {
            eprintln!("client {} left {:?}", state(&client.line, &self.kernel), client.left);
            client
                .reader
                .messages
                .iter()
                .for_each(|m| eprintln!("    {:?} {} {}", m.head, m.content.len(), m.complete));
        }
        for server in &self.plain.servers {
            eprintln!("server {} wrong {:?}", state(&server.line, &self.kernel), server.wrong);
            server.served.iter().for_each(|served| eprintln!("    {served:?}"));
        }
    }
}

/// These bytes begin with a request of the script. Contents have none.
pub fn is_request(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(1);
    let number = words.next().and_then(|path| path.strip_prefix(b"/plain/"));
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit)) && words.next() == Some(b"HTTP/1.1")
}
