//! Schedules of plain HTTP: the script of clients that ask, and of servers that answer, drawn from
//! a seed. Every request has a number, which its response repeats; each has a content of its own.
//!
//! `draw` draws it, `message` writes and reads messages, `line` is one end of a connection,
//! `client` and `server` follow the script, `stage` puts them into the world, `changes` is what
//! control does, `judge` is the oracle, `cover` counts what was met, `bugs` are planted. They share
//! no decision with the proxy.

pub mod bugs;
pub mod changes;
pub mod client;
pub mod cover;
pub mod draw;
pub mod judge;
pub mod line;
pub mod message;
pub mod route;
pub mod server;
pub mod stage;

use crate::kernel::Micros;
use crate::schedule::Connect;
use changes::Change;
use message::{Body, Framing};

/// The status for which a request goes to another endpoint.
pub const RETRIED: u16 = 503;

/// The most clients of a schedule, and the most requests of one.
pub const CLIENTS: usize = 4;
pub const ASKS: usize = 6;

/// The script of a schedule.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub clients: Vec<Client>,
    /// Servers of the upstream.
    pub endpoints: usize,
    /// Connections that are kept for each, and how long.
    pub kept: usize,
    pub idle_ms: u64,
    pub age_ms: u64,
    /// The longest content of a request.
    pub max_body: usize,
    /// Handshakes have to queue.
    pub slow: bool,
    /// A request that may be repeated goes to another endpoint where one ends the connection, does
    /// not answer in time, or answers with [`RETRIED`].
    pub retries: bool,
    /// What becomes of attempts to connect, the first ones of all.
    pub connects: Vec<Connect>,
    /// With their time, from the start on.
    pub changes: Vec<(Micros, Change)>,
}

#[derive(Debug, Clone, Default)]
pub struct Client {
    pub start_ms: u64,
    pub asks: Vec<Ask>,
    /// Requests that it sends before their responses: 1 for one after the other.
    pub ahead: usize,
    pub leaves: Option<Leave>,
    /// What it does when it has all responses.
    pub last: Last,
    pub tiny: bool,
    /// It goes on with a body that is answered already.
    pub stubborn: bool,
    pub key: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Last {
    #[default]
    Fin,
    Rst,
    /// It waits for the end.
    Waits,
}

/// A client leaves, or does nothing any more, in one of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    pub ask: usize,
    pub place: Place,
    pub how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// After so many bytes of the request.
    Sent(usize),
    /// So long after the whole request.
    Waiting(Micros),
    /// After so many bytes from the end of the response before it on.
    Got(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Fin,
    Rst,
    /// It neither sends nor reads any more.
    Stall,
}

/// One request, and what servers answer.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    pub kind: Kind,
    pub method: &'static str,
    pub http10: bool,
    /// Its Connection field.
    pub connection: Option<&'static str>,
    pub body: Body,
    /// It sends its body after a 100, or after a while.
    pub expects: bool,
    /// The pause before it.
    pub rest: Micros,
    /// What a server does where it gets the request for the first time, and the second.
    pub answers: [Answer; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Plain,
    /// A WebSocket handshake.
    Upgrade,
    /// What is refused; an index into [`REFUSED`].
    Refused(usize),
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    /// Interim responses before it.
    pub interim: Vec<u16>,
    pub body: Body,
    pub http10: bool,
    /// It says that the connection ends.
    pub closes: bool,
    pub when: When,
    pub delay: Micros,
    pub fault: Option<Fault>,
    pub then: Then,
}

/// When a server begins its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// It has the whole request.
    #[default]
    End,
    /// It has so much of the content.
    Body(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// So many bytes of the response leave, in hundredths of it; then the connection ends, or
    /// nothing more comes.
    Cut(usize, How),
    /// The head has two framings, or is none.
    Ambiguous,
    Garbage,
    /// Its chunks have no size from some point on.
    Broken,
    /// More is sent than declared: another response, or something else.
    More(&'static str),
    /// The connection ends as soon as the request comes: with FIN or RST.
    Dies {
        rst: bool,
    },
}

/// What a server does behind its response, so long after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    #[default]
    Waits,
    Closes {
        rst: bool,
        after: Micros,
    },
    /// When the next request begins to come.
    ClosesOnNext {
        rst: bool,
    },
    /// It sends something without a request, and closes.
    Talks {
        after: Micros,
    },
}

/// What a server sends without a request. Where that crosses with a request, nothing tells it
/// from the response; that the connection ends with it keeps it the only one.
pub const UNASKED: &str =
    "HTTP/1.1 408 Unasked\r\nX-Answer: unasked\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";

/// A request that is refused: what follows the path in its line, its fields, what follows, the
/// status.
pub struct Bad {
    pub method: &'static str,
    pub path: Option<&'static str>,
    pub version: &'static str,
    pub fields: &'static str,
    pub status: u16,
}

const fn bad(method: &'static str, fields: &'static str, status: u16) -> Bad {
    Bad { method, path: None, version: "HTTP/1.1", fields, status }
}

pub const REFUSED: &[Bad] = &[
    bad("POST", "Host: sim\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    bad("POST", "Host: sim\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
    bad("POST", "Host: sim\r\nContent-Length: 5\r\nContent-Length: 5\r\n", 400),
    bad("POST", "Host: sim\r\nContent-Length: +5\r\n", 400),
    bad("POST", "Host: sim\r\nContent-Length: 5, 5\r\n", 400),
    bad("POST", "Host: sim\r\nTransfer-Encoding: gzip, chunked\r\n", 400),
    bad("POST", "Host: sim\r\nTransfer-Encoding : chunked\r\n", 400),
    bad("POST", "Host: sim\r\nTransfer-Encoding:\x0bchunked\r\n", 400),
    bad("GET", "Host: sim\r\nX: a\r\n b\r\n", 400),
    bad("GET", "Host: sim\r\nX: a\nContent-Length: 5\r\n", 400),
    bad("GET", "Host: a\r\nHost: b\r\n", 400),
    bad("GET", "", 400),
    bad("TRACE", "Host: sim\r\n", 501),
    bad("GET", "Host: sim\r\nExpect: 200-maybe\r\n", 417),
    Bad { path: Some("/nowhere"), ..bad("GET", "Host: sim\r\n", 404) },
    Bad { version: "HTTP/2.0", ..bad("GET", "Host: sim\r\n", 505) },
    Bad { version: "HTTP/1.0", ..bad("POST", "Host: sim\r\nTransfer-Encoding: chunked\r\n", 400) },
];

impl Ask {
    /// It may be sent twice: it changes nothing, and no part of it is gone.
    pub fn is_repeatable(&self) -> bool {
        let idempotent = matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE");
        let empty = self.body.content.is_empty() && self.body.framing != Framing::Chunked;
        idempotent && empty && self.kind == Kind::Plain
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Its client takes another response behind this one.
    pub fn persists(&self) -> bool {
        match self.connection {
            Some("close") => false,
            Some("keep-alive") => true,
            _ => !self.http10,
        }
    }

    /// Its path, which has its number.
    pub fn path(client: usize, ask: usize) -> String {
        format!("/plain/{client}{ask}")
    }

    /// The request, and how long its head is.
    pub fn bytes(&self, client: usize, ask: usize) -> (Vec<u8>, usize) {
        let path = Ask::path(client, ask);
        let mut out = Vec::new();
        if let Kind::Refused(kind) = self.kind {
            let bad = &REFUSED[kind];
            let path = bad.path.unwrap_or(&path);
            out.extend_from_slice(format!("{} {path} {}\r\n{}\r\n", bad.method, bad.version, bad.fields).as_bytes());
            let head = out.len();
            out.extend_from_slice(b"0\r\n\r\nGET /plain/none HTTP/1.1\r\nHost: sim\r\n\r\n");
            return (out, head);
        }
        let version = if self.http10 { "1.0" } else { "1.1" };
        out.extend_from_slice(format!("{} {path} HTTP/{version}\r\nHost: sim\r\n", self.method).as_bytes());
        out.extend_from_slice(format!("X-Ask: {client}{ask}\r\n").as_bytes());
        if self.kind == Kind::Upgrade {
            let key = crate::peers::KEYS[0].0;
            let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
            out.extend_from_slice(format!("{fields}Sec-WebSocket-Key: {key}\r\n").as_bytes());
        }
        if let Some(connection) = self.connection {
            out.extend_from_slice(format!("Connection: {connection}\r\n").as_bytes());
        }
        if self.expects {
            out.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        self.body.push_fields(&mut out);
        out.extend_from_slice(b"\r\n");
        let head = out.len();
        self.body.push(&mut out);
        (out, head)
    }
}

impl Answer {
    /// The response to a request, and how long its head is; interim ones are not part of it.
    pub fn bytes(&self, ask: &Ask, number: &str) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        let version = if self.http10 { "1.0" } else { "1.1" };
        if self.fault == Some(Fault::Garbage) {
            out.extend_from_slice(b"HTP/1.1 200 Hello\r\n\r\n");
            return (out, 0);
        }
        out.extend_from_slice(format!("HTTP/{version} {} Said\r\nX-Answer: {number}\r\n", self.status).as_bytes());
        if self.closes {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        self.body.push_fields(&mut out);
        if self.fault == Some(Fault::Ambiguous) {
            out.extend_from_slice(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(b"\r\n");
        let head = out.len();
        if !self.is_bare(ask) {
            self.body.push(&mut out);
        }
        if let Some(Fault::More(more)) = self.fault {
            out.extend_from_slice(more.as_bytes());
        }
        (out, head)
    }

    /// It has no content.
    pub fn is_bare(&self, ask: &Ask) -> bool {
        ask.is_head() || matches!(self.status, 204 | 304)
    }

    /// It is one that reaches the client as it is.
    pub fn is_sound(&self, ask: &Ask) -> bool {
        matches!(self.fault, None | Some(Fault::More(_))) || self.fault == Some(Fault::Broken) && self.is_bare(ask)
    }
}

impl Plan {
    /// The longest content of all.
    pub fn longest(&self) -> usize {
        let asks = self.clients.iter().flat_map(|client| &client.asks);
        let bodies = asks.flat_map(|ask| ask.answers.iter().map(|answer| &answer.body).chain([&ask.body]));
        bodies.map(|body| body.content.len()).max().unwrap_or(0)
    }
}
