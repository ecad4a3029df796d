//! A server of plain HTTP at the end of one connection of the worker's: reads requests, one after
//! the other, and answers each as the script says. Notes what no proxy may send it.

use super::line::Line;
use super::message::{Body, Framing, Message, Reader};
use super::{Answer, Ask, CLIENTS, Fault, How, Kind, Plan, Then, UNASKED, When};
use crate::frames::{FIN, Frame, TEXT, push_close};
use crate::kernel::{Kernel, Micros};
use crate::peers::KEYS;

/// Where each request went: by client and request, the servers that got its whole head.
pub type Attempts = Vec<Vec<Vec<usize>>>;

#[derive(Debug, Default)]
pub struct Server {
    pub index: usize,
    pub endpoint: usize,
    pub line: Line,
    pub reader: Reader,
    /// A PROXY header comes first.
    pub headed: bool,
    pub header: Vec<u8>,
    pub served: Vec<Served>,
    /// The response of this moment begins then.
    due: Option<Micros>,
    /// What follows a response happens then.
    then_at: Option<Micros>,
    /// It ended the connection by itself, between two requests; within one.
    pub ended_idle: bool,
    pub ended_inside: bool,
    /// It has sent something without a request, from this position on.
    pub unasked_at: Option<usize>,
    talked: bool,
    pub wrong: Option<String>,
}

/// A request whose head has come, and its response.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    pub client: usize,
    pub ask: usize,
    pub nth: usize,
    /// Where its response begins in what the server sends.
    pub from: usize,
    /// The response may be sent up to here.
    pub until: usize,
    /// Its final response has begun, and the request had come as a whole then.
    pub begun: bool,
    pub whole: bool,
    /// What follows it has happened.
    acted: bool,
}

/// The end of what a server says once the handshake is done.
const BYE: usize = 4;

impl Served {
    pub fn number(&self) -> String {
        format!("{}{}.{}", self.client, self.ask, self.nth)
    }

    pub fn answer<'a>(&self, plan: &'a Plan) -> (&'a Ask, &'a Answer) {
        let ask = &plan.clients[self.client].asks[self.ask];
        (ask, &ask.answers[self.nth.min(1)])
    }
}

/// What a server says once the handshake is done.
pub fn words(client: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Frame { first: FIN | TEXT, mask: None, payload: format!("welcome {client}").as_bytes() }.push(&mut out);
    push_close(&mut out, None, 1000, "");
    out
}

impl Server {
    pub fn new(index: usize, endpoint: usize, line: Line, headed: bool) -> Server {
        Server { index, endpoint, line, headed, ..Server::default() }
    }

    /// Does all that can be done now. Called after each change of its socket.
    pub fn step(&mut self, plan: &Plan, attempts: &mut Attempts, kernel: &mut Kernel) {
        if !self.line.is_up(kernel) {
            return;
        }
        if self.headed && !self.line.read_header(kernel, &mut self.header) {
            return if self.line.is_over() {
                self.line.close(kernel)
            };
        }
        let mut rx = Vec::new();
        self.line.read(kernel, &mut rx);
        self.reader.push(&rx);
        self.reader.advance(false);
        self.receive(plan, attempts, kernel);
        self.begin(plan, kernel);
        let limit = self.served.last().map_or(0, |served| served.until.min(self.line.out.len()));
        let sent = self.line.write(limit.max(self.unasked_at.map_or(0, |_| self.line.out.len())), kernel);
        if sent && !self.line.gone {
            self.follow(plan, kernel);
        }
        if self.talked && self.line.sent == self.line.out.len() {
            self.line.fin(kernel);
        }
        if self.line.is_over() && self.line.is_finished() {
            self.line.close(kernel);
        }
    }

    /// The response of the last request has left as far as it will.
    pub fn is_idle(&self) -> bool {
        self.served.last().is_none_or(|served| served.begun && self.line.sent >= served.until)
    }

    fn receive(&mut self, plan: &Plan, attempts: &mut Attempts, kernel: &mut Kernel) {
        while self.reader.messages.len() > self.served.len() && self.wrong.is_none() {
            let message = &self.reader.messages[self.served.len()];
            let found = if self.is_idle() { find(plan, message) } else { Err("before a response".into()) };
            match found.and_then(|(client, ask)| self.judge_owner(client).map(|()| (client, ask))) {
                Ok((client, ask)) => self.accept(plan, (client, ask), attempts, kernel),
                Err(what) => self.wrong = Some(format!("{what}: {:?}", message.head)),
            }
        }
        let next = self.reader.messages.len() > self.served.len() || !self.reader.rest().is_empty();
        let rst =
            self.served.last().filter(|served| served.begun).and_then(|served| match served.answer(plan).1.then {
                Then::ClosesOnNext { rst } => Some(rst),
                _ => None,
            });
        if let Some(rst) = rst.filter(|_| next && self.is_idle()) {
            self.end(rst, kernel);
        }
    }

    /// With a PROXY header a connection belongs to one client.
    fn judge_owner(&self, client: usize) -> Result<(), String> {
        let header = String::from_utf8_lossy(&self.header);
        let port = format!(" {} ", 1000 + client);
        let first = self.served.is_empty();
        if !self.headed || first && header.contains(&port) { Ok(()) } else { Err(format!("behind {header:?}")) }
    }

    fn accept(&mut self, plan: &Plan, (client, ask): (usize, usize), attempts: &mut Attempts, kernel: &mut Kernel) {
        let nth = attempts[client][ask].len();
        attempts[client][ask].push(self.index);
        let from = self.line.out.len();
        let before = self.served.last().map(|served| served.answer(plan).1.then);
        let served = Served { client, ask, nth, from, until: from, begun: false, whole: false, acted: false };
        self.served.push(served);
        self.then_at = None;
        if let Some(Then::ClosesOnNext { rst }) = before {
            return self.end(rst, kernel);
        }
        let (asked, answer) = served.answer(plan);
        if let Some(Fault::Dies { rst }) = answer.fault {
            return self.end(rst, kernel);
        }
        for status in answer.interim.iter().filter(|_| asked.kind == Kind::Plain) {
            let head = format!("HTTP/1.1 {status} Wait\r\nX-Answer: {}\r\n\r\n", served.number());
            self.line.out.extend_from_slice(head.as_bytes());
        }
        if let Some(last) = self.served.last_mut() {
            last.until = self.line.out.len();
        }
    }

    /// Ends the connection by itself.
    fn end(&mut self, rst: bool, kernel: &mut Kernel) {
        let idle = self.is_idle();
        (self.ended_idle, self.ended_inside) = (self.ended_idle | idle, self.ended_inside | !idle);
        if rst { self.line.abort(kernel) } else { self.line.close(kernel) }
    }

    /// The response begins where it is time for that.
    fn begin(&mut self, plan: &Plan, kernel: &mut Kernel) {
        let Some(served) = self.served.last().copied().filter(|served| !served.begun && !self.line.gone) else {
            return;
        };
        let Some(message) = self.reader.messages.get(self.served.len() - 1) else { return };
        let (ask, answer) = served.answer(plan);
        let is_time = match answer.when {
            When::End => message.complete,
            When::Body(n) => message.complete || message.content.len() >= n,
        };
        if !is_time {
            return;
        }
        let at = *self.due.get_or_insert(kernel.now + answer.delay);
        if kernel.now < at {
            return self.line.later(at, kernel);
        }
        self.due = None;
        let whole = message.complete;
        if ask.kind == Kind::Upgrade {
            let accept = KEYS[0].1;
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            let number = served.number();
            let head = format!("{head}X-Answer: {number}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
            self.line.out.extend_from_slice(head.as_bytes());
            let words = words(served.client);
            self.line.out.extend_from_slice(&words[..words.len() - BYE]);
        } else {
            let (bytes, _) = answer.bytes(ask, &served.number());
            self.line.out.extend_from_slice(&bytes);
        }
        let all = self.line.out.len() - served.from;
        let until = match answer.fault {
            Some(Fault::Cut(part, _)) => served.from + all * part / 100,
            Some(Fault::More(more)) => self.line.out.len() - more.len(),
            _ => self.line.out.len(),
        };
        if let Some(last) = self.served.last_mut() {
            (last.begun, last.until, last.whole) = (true, until, whole);
        }
        if let Some(Fault::More(_)) = answer.fault {
            self.unasked_at = Some(self.line.out.len());
        }
    }

    /// What follows a response that has left.
    fn follow(&mut self, plan: &Plan, kernel: &mut Kernel) {
        let Some(served) = self.served.last().copied().filter(|served| served.begun && !served.acted) else { return };
        let (ask, answer) = served.answer(plan);
        let until_end = answer.body.framing == Framing::UntilEnd && !answer.is_bare(ask) && ask.kind == Kind::Plain;
        let then = match answer.fault {
            Some(Fault::Cut(_, How::Stall)) => return,
            Some(Fault::Cut(_, how)) => {
                self.ended_inside = true;
                self.done();
                return if how == How::Rst { self.line.abort(kernel) } else { self.line.fin(kernel) };
            }
            _ if until_end => {
                self.done();
                return self.line.fin(kernel);
            }
            _ if ask.kind == Kind::Upgrade => return self.say_goodbye(served.client, kernel),
            _ => answer.then,
        };
        let after = match then {
            Then::Waits | Then::ClosesOnNext { .. } => return,
            Then::Closes { after, .. } | Then::Talks { after } => after,
        };
        // Nothing of the response is lost by what it does now.
        if !self.line.is_delivered(kernel) {
            return self.line.later(kernel.now + 200, kernel);
        }
        let at = *self.then_at.get_or_insert(kernel.now + after);
        if kernel.now < at {
            return self.line.later(at, kernel);
        }
        self.done();
        match then {
            Then::Talks { .. } if self.reader.rest().is_empty() => {
                self.line.out.extend_from_slice(UNASKED.as_bytes());
                self.unasked_at = Some(self.line.out.len());
                self.talked = true;
                self.line.wake(kernel);
            }
            Then::Closes { rst, .. } => self.end(rst, kernel),
            _ => {}
        }
    }

    /// The end of a WebSocket, once its client has said everything.
    fn say_goodbye(&mut self, client: usize, kernel: &mut Kernel) {
        let words = words(client);
        if self.reader.raw.len() < super::client::words(client).len() {
            return;
        }
        let all = &words[words.len() - BYE..];
        if !self.line.out.ends_with(all) {
            self.line.out.extend_from_slice(all);
        }
        let limit = self.line.out.len();
        if let Some(last) = self.served.last_mut() {
            last.until = limit;
        }
        if self.line.write(limit, kernel) {
            self.done();
            self.line.fin(kernel);
        }
    }

    fn done(&mut self) {
        if let Some(last) = self.served.last_mut() {
            last.acted = true;
        }
    }

    /// The worker has read something about this request. With TLS that is not known of what a RST
    /// may have destroyed.
    pub fn was_heard(&self, served: &Served, kernel: &Kernel) -> bool {
        match (&self.line.seal, kernel.socks[self.line.sock].peer) {
            (None, Some(near)) => kernel.socks[near].rx.passed > served.from as u64,
            _ => self.line.sent > served.from && !self.ended_inside,
        }
    }
}

/// The request of the script that this is. What it must not be: anything else.
fn find(plan: &Plan, message: &Message) -> Result<(usize, usize), String> {
    let mut line = message.line().split(' ');
    let (method, path, version) = (line.next(), line.next().unwrap_or_default(), line.next());
    let known = |client: usize, ask: usize| Ask::path(client, ask) == path;
    let found = (0..CLIENTS).flat_map(|client| (0..super::ASKS).map(move |ask| (client, ask)));
    let (client, ask) = found.into_iter().find(|(client, ask)| known(*client, *ask)).ok_or("a request of nobody")?;
    let asked = plan.clients.get(client).and_then(|client| client.asks.get(ask)).ok_or("a request of nobody")?;
    let is = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    is(!matches!(asked.kind, Kind::Refused(_)), "a request that had to be refused")?;
    is((method, version) == (Some(asked.method), Some("HTTP/1.1")), "another line")?;
    is(message.fields("Host").count() == 1, "Host")?;
    is(message.field("X-Ask") == Some(&format!("{client}{ask}")), "a field is missing")?;
    let upgrade = asked.kind == Kind::Upgrade;
    is(message.field("Upgrade").is_some() == upgrade, "Upgrade")?;
    is(upgrade || message.fields("Connection").all(|value| value == "TE"), "Connection")?;
    is(message.fields("Keep-Alive").count() == 0, "Keep-Alive")?;
    is(message.field("Expect").is_some() == asked.expects, "Expect")?;
    let Body { framing, content, .. } = &asked.body;
    is(message.framing == *framing, "framing")?;
    let length = (*framing == Framing::Length).then(|| content.len().to_string());
    is(message.field("Content-Length").map(str::to_owned) == length, "length")?;
    Ok((client, ask))
}
