//! The server behind a call of the worker's own: reads one request, replies as the script says.
//! Judges nothing; keeps the request for the oracle.

use crate::kernel::{Id, Kernel, Link, Micros, What};
use crate::schedule::Reply;

/// The request that a call sends, and nothing else.
pub const REQUEST: &[u8] = b"GET /allow HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n\r\n";

/// The longest time to a reply: well below the timeout of a call.
pub const DELAY_MAX: Micros = 1_000_000;

const ADMITTING: &[&[u8]] = &[
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n",
    // Ends with the connection.
    b"HTTP/1.1 200 OK\r\n\r\nok",
];
const DENYING: &[&[u8]] = &[
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 Internal Server Error\r\n\r\nno",
];
const BROKEN: &[&[u8]] = &[
    b"SSH-2.0\r\n\r\n",
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
];

#[derive(Debug, Clone, Default)]
pub struct Callee {
    /// The session that the call is about.
    pub session: usize,
    reply: Option<Reply>,
    /// What it has received.
    pub request: Vec<u8>,
    response: &'static [u8],
    sent: usize,
    reply_at: Option<Micros>,
    closed: bool,
}

impl Callee {
    pub fn new(session: usize, reply: Reply) -> Callee {
        Callee { session, reply: Some(reply), ..Callee::default() }
    }

    /// Does all that can be done now; `me` is the number of the peer.
    pub fn step(&mut self, me: usize, sock: Id, kernel: &mut Kernel) {
        if self.closed || kernel.socks[sock].link == Link::Connecting {
            return;
        }
        loop {
            let max = if kernel.rng.one_in(4) { kernel.rng.size(1, 8) } else { usize::MAX };
            match kernel.recv(sock, max, |bytes| self.request.extend_from_slice(bytes)) {
                Ok(0) => return self.close(sock, kernel),
                Ok(_) => {}
                Err(libc::EAGAIN) => break,
                Err(_) => return self.close(sock, kernel),
            }
        }
        if !self.request.ends_with(b"\r\n\r\n") {
            return;
        }
        let now = kernel.now;
        let at = *self.reply_at.get_or_insert_with(|| {
            let most = kernel.rng.pick(&[1, 1_000, DELAY_MAX]);
            let at = now + kernel.rng.below(most);
            kernel.at(at, What::Peer(me));
            at
        });
        if now < at {
            return;
        }
        self.respond(sock, kernel);
        self.write(me, sock, kernel);
    }

    fn respond(&mut self, sock: Id, kernel: &mut Kernel) {
        if !self.response.is_empty() {
            return;
        }
        match self.reply {
            Some(Reply::Admits) => self.response = kernel.rng.pick(ADMITTING),
            Some(Reply::Denies) => self.response = kernel.rng.pick(DENYING),
            Some(Reply::Breaks) if kernel.rng.one_in(4) => self.close(sock, kernel),
            Some(Reply::Breaks) if kernel.rng.one_in(4) => {
                self.closed = true;
                kernel.abort(sock);
            }
            Some(Reply::Breaks) => self.response = kernel.rng.pick(BROKEN),
            Some(Reply::Silent | Reply::Refused | Reply::Lost) | None => {}
        }
    }

    fn write(&mut self, me: usize, sock: Id, kernel: &mut Kernel) {
        while !self.closed && self.sent < self.response.len() {
            let n = kernel.rng.size(1, self.response.len() - self.sent);
            match kernel.send(sock, &self.response[self.sent..self.sent + n], usize::MAX) {
                Ok(n) => self.sent += n,
                Err(libc::EAGAIN) => return,
                Err(_) => return self.close(sock, kernel),
            }
            if kernel.rng.one_in(2) {
                let at = kernel.now + 1 + kernel.rng.below(400);
                return kernel.at(at, What::Peer(me));
            }
        }
        if !self.response.is_empty() {
            self.close(sock, kernel);
        }
    }

    fn close(&mut self, sock: Id, kernel: &mut Kernel) {
        if !self.closed {
            self.closed = true;
            kernel.close(sock);
        }
    }
}
