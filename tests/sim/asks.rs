//! The questions that policy asks about a session before it admits it, what becomes of each, and
//! what may follow from that. Part of the script: drawn from its seed.

use crate::auth::{Client, Kind, Until};
use crate::rng::Rng;
use crate::schedule::Connect;
use framegate::proto::end::Cause;
use std::borrow::Cow;

/// How long a call waits for its answer: less than a decision may take, or more.
pub const CALL_MS: u64 = 7_000;
pub const PATIENT_MS: u64 = 60_000;
/// One of its connect attempts: longer than all jumps of the clock together.
pub const CONNECT_MS: u64 = 2_000;
/// `timeouts.decision`.
pub const DECISION_MS: u64 = 10_000;
/// Later than each of these.
const TOO_LATE_MS: u64 = 12_000;

/// Questions of one route at most: checks, and the server that decides by the client's
/// credentials.
pub const ASKS_MAX: usize = CHECKS_MAX + 1;
const CHECKS_MAX: usize = 2;

#[derive(Debug, Clone)]
pub enum Ask {
    Call(Call),
    Service(Service),
}

/// A call of the worker's, and what its server does.
#[derive(Debug, Clone)]
pub struct Call {
    pub kind: Kind,
    /// It would wait longer than the decision may take.
    pub patient: bool,
    pub connects: [Connect; 2],
    /// One of those of its kind, how much of it is sent, and what follows that.
    pub response: usize,
    pub sent: usize,
    pub then: Then,
    /// The response does not wait for the request.
    pub hasty: bool,
    pub delay_ms: u64,
    /// With TLS: ends without a close_notify.
    pub rude: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stays,
    Fin,
    Rst,
}

/// A question to a service thread, and what that does.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub reply: Reply,
    pub delay_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    Unavailable,
    /// Drops the question.
    Forgets,
    Never,
    /// There is no room in its queue.
    Full,
    /// Its thread has ended.
    Gone,
}

/// What ends a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Its last byte.
    Itself,
    /// The end of the connection; the head is this long.
    Fin(usize),
    /// It is no response.
    Invalid,
}

#[derive(Debug)]
pub struct Response {
    pub bytes: Cow<'static, [u8]>,
    pub gives: Gives,
    pub ends: Ends,
}

/// What a whole response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// It admits; an authorization server says whom.
    Admits(Option<Client>),
    /// The client gets this status, for this cause.
    Refuses(u16, Cause),
    /// Nothing that can be understood.
    Nothing,
}

const fn response(text: &'static str, status: u16, ends: Ends) -> Response {
    let gives = match status {
        0 => Gives::Nothing,
        200..=299 => Gives::Admits(None),
        _ => DENIES,
    };
    Response { bytes: Cow::Borrowed(text.as_bytes()), gives, ends }
}

/// What a check refuses with, whatever it was answered.
const DENIES: Gives = Gives::Refuses(403, Cause::Forbidden);

/// Those to checks of a route.
pub const RESPONSES: &[Response] = &[
    response("HTTP/1.1 204 No Content\r\n\r\n", 204, Ends::Itself),
    response("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHTTP/1.1 403", 200, Ends::Itself),
    response("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 Ok\r\nContent-Length: 0\r\n\r\n", 202, Ends::Itself),
    response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n", 200, Ends::Itself),
    response("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, Ends::Fin(19)),
    response("HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nHTTP/1.1 200", 401, Ends::Itself),
    response("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 403, Ends::Itself),
    response("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, Ends::Itself),
    response("HTTP/1.1 500 Broken\r\n\r\nuntil the end", 500, Ends::Fin(23)),
    response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 0, Ends::Invalid),
    response("SSH-2.0-server HTTP/1.1 200 OK\r\n\r\n", 0, Ends::Invalid),
];
/// So many of them admit.
const ADMITTING: usize = 5;

/// What may follow from a question, or from all questions of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    pub admits: bool,
    pub denies: bool,
    /// Its credentials are refused with this.
    pub refuses: Option<(u16, Cause)>,
    /// There is no answer, and that is known at once.
    pub fails: bool,
    /// There is one that is no response, or is cut.
    pub breaks: bool,
    /// There is no answer, and only a deadline says so: not before this time.
    pub expires: Option<u64>,
}

const NOTHING: Outlook =
    Outlook { admits: false, denies: false, refuses: None, fails: false, breaks: false, expires: None };
const FAILS: Outlook = Outlook { fails: true, ..NOTHING };
const BREAKS: Outlook = Outlook { breaks: true, ..NOTHING };

impl Outlook {
    fn of_status(status: u16) -> Outlook {
        let admits = (200..300).contains(&status);
        Outlook { admits, denies: !admits, ..NOTHING }
    }

    fn of(gives: Gives) -> Outlook {
        match gives {
            Gives::Nothing => BREAKS,
            DENIES => Outlook { denies: true, ..NOTHING },
            Gives::Refuses(status, cause) => Outlook { refuses: Some((status, cause)), ..NOTHING },
            // They may have ended before they are looked at.
            Gives::Admits(Some(Client { until: Until::At(_), .. })) => {
                Outlook { admits: true, refuses: Some((401, Cause::BadCredentials)), ..NOTHING }
            }
            Gives::Admits(_) => Outlook { admits: true, ..NOTHING },
        }
    }

    fn expires(ms: u64) -> Outlook {
        Outlook { expires: Some(ms), ..NOTHING }
    }

    /// Only one thing can follow.
    pub fn is_certain(self) -> bool {
        let fails = self.fails || self.expires.is_some();
        let may = [self.admits, self.denies, self.refuses.is_some(), self.breaks, fails];
        may.iter().filter(|may| **may).count() == 1
    }

    pub fn only_admits(self) -> bool {
        self == Outlook { admits: true, ..NOTHING }
    }
}

/// What may follow from all questions, asked in this order until one does not admit. `tls`: calls
/// have it.
pub fn outlook(asks: &[Ask], tls: bool) -> Outlook {
    let mut all = Outlook { admits: true, ..NOTHING };
    for one in asks.iter().map(|ask| ask.outlook(tls)) {
        if all.admits {
            all.denies |= one.denies;
            all.refuses = all.refuses.or(one.refuses);
            all.fails |= one.fails;
            all.breaks |= one.breaks;
            all.expires = all.expires.or(one.expires);
            all.admits = one.admits;
        }
    }
    all
}

impl Ask {
    /// How a route that asks this is called.
    pub fn letter(&self) -> char {
        match self {
            Ask::Call(call) if call.patient => 'p',
            Ask::Call(call) => call.kind.letter(),
            Ask::Service(_) => 's',
        }
    }

    /// How long it may take, where no deadline ends it.
    pub fn delay_ms(&self) -> u64 {
        match self {
            Ask::Call(call) => call.delay_ms + call.lost() * CONNECT_MS,
            Ask::Service(service) => service.delay_ms,
        }
    }

    fn delay_mut(&mut self) -> &mut u64 {
        match self {
            Ask::Call(call) => &mut call.delay_ms,
            Ask::Service(service) => &mut service.delay_ms,
        }
    }

    pub fn outlook(&self, tls: bool) -> Outlook {
        match self {
            Ask::Call(call) => call.outlook(tls),
            Ask::Service(service) => service.outlook(),
        }
    }
}

impl Call {
    pub fn bytes(&self) -> &'static [u8] {
        &self.response().bytes[..self.sent]
    }

    fn response(&self) -> &'static Response {
        &self.kind.responses()[self.response]
    }

    /// What its whole response says.
    pub fn gives(&self) -> Gives {
        self.response().gives
    }

    pub fn deadline_ms(&self) -> u64 {
        if self.patient { DECISION_MS } else { CALL_MS }
    }

    /// Attempts that are never answered, unless one before them works.
    fn lost(&self) -> u64 {
        let tried = self.connects.iter().take_while(|connect| **connect != Connect::Works);
        tried.filter(|connect| **connect == Connect::Lost).count() as u64
    }

    fn outlook(&self, tls: bool) -> Outlook {
        let expires = Outlook::expires(self.deadline_ms());
        match self.connects {
            [Connect::NoSocket, _] => return expires,
            [Connect::Works, _] | [_, Connect::Works] => {}
            _ if self.lost() == 0 => return FAILS,
            _ => return Outlook::expires(self.lost() * CONNECT_MS),
        }
        if self.delay_ms >= self.deadline_ms() {
            return expires;
        }
        let response = self.response();
        let whole = self.sent == response.bytes.len();
        let status = Outlook::of(response.gives);
        match (response.ends, whole, self.then) {
            // An RST may also come before the request has left: then the next address is tried.
            (Ends::Invalid, true, Then::Rst) => Outlook { fails: true, ..BREAKS },
            (Ends::Invalid, true, _) => BREAKS,
            (Ends::Itself, true, Then::Stays | Then::Fin) => status,
            // The RST may destroy what is before it.
            (Ends::Itself, true, Then::Rst) => Outlook { fails: true, breaks: true, ..status },
            (Ends::Fin(head), _, Then::Fin) if self.sent >= head && !(tls && self.rude) => status,
            (_, _, Then::Fin) => BREAKS,
            (_, _, Then::Rst) => Outlook { fails: true, ..BREAKS },
            (_, _, Then::Stays) => expires,
        }
    }
}

impl Service {
    fn outlook(self) -> Outlook {
        match self.reply {
            Reply::Full | Reply::Gone => FAILS,
            Reply::Never => Outlook::expires(DECISION_MS),
            _ if self.delay_ms >= DECISION_MS => Outlook::expires(DECISION_MS),
            Reply::Status(status) => Outlook::of_status(status),
            Reply::Unavailable | Reply::Forgets => FAILS,
        }
    }
}

/// The questions of a session; `whole`: all of them certainly admit; `some`: there are some, and
/// none is answered at once.
pub fn draw(rng: &mut Rng, whole: bool, some: bool) -> Vec<Ask> {
    let mut asks = Vec::new();
    let count = if some { rng.pick(&[1, 2]) } else { rng.pick(&[0, 0, 0, 1, 1, 2]) };
    while asks.len() < count.min(CHECKS_MAX) {
        let service = rng.one_in(3) && !asks.iter().any(|ask| matches!(ask, Ask::Service(_)));
        let mut ask = match service {
            true => Ask::Service(draw_service(rng)),
            false => Ask::Call(Call::draw(rng, Kind::Check, ADMITTING)),
        };
        if some {
            *ask.delay_mut() = rng.pick(&[40, 300, 900]);
        }
        let sure = ask.outlook(true).only_admits() && ask.outlook(false).only_admits();
        if !whole || sure {
            asks.push(ask);
        }
    }
    asks
}

fn draw_delay(rng: &mut Rng) -> u64 {
    rng.pick(&[0, 0, 1, 8, 40, 40, 300, 900])
}

fn draw_service(rng: &mut Rng) -> Service {
    let reply = match rng.below(16) {
        0..7 => Reply::Status(rng.pick(&[200, 204, 299])),
        7..11 => Reply::Status(rng.pick(&[100, 199, 300, 401, 403, 500])),
        11 => Reply::Unavailable,
        12 => Reply::Forgets,
        13 => Reply::Never,
        14 => Reply::Full,
        _ => Reply::Gone,
    };
    let delay_ms = if rng.one_in(16) { TOO_LATE_MS } else { draw_delay(rng) };
    Service { reply, delay_ms }
}

impl Call {
    /// One in two has a response of the first `admitting`.
    pub fn draw(rng: &mut Rng, kind: Kind, admitting: usize) -> Call {
        let responses = kind.responses();
        let response = if rng.one_in(2) { rng.size(0, admitting - 1) } else { rng.size(0, responses.len() - 1) };
        let all = responses[response].bytes.len();
        let fails = |rng: &mut Rng| rng.pick(&[Connect::Refused, Connect::Fails]);
        let connects = match rng.below(32) {
            0..3 => [fails(rng), Connect::Works],
            3 => [fails(rng), fails(rng)],
            4 => [Connect::Lost; 2],
            5 => [fails(rng), Connect::Lost],
            6 | 7 => [Connect::Lost, Connect::Works],
            8 => [Connect::NoSocket; 2],
            _ => [Connect::Works; 2],
        };
        let hasty = connects == [Connect::Works; 2] && rng.one_in(12);
        Call {
            kind,
            patient: rng.one_in(4),
            connects,
            response,
            sent: if rng.one_in(3) { rng.size(0, all - 1) } else { all },
            then: rng.pick(&[Then::Stays, Then::Stays, Then::Fin, Then::Fin, Then::Rst]),
            hasty,
            delay_ms: if rng.one_in(24) && !hasty { TOO_LATE_MS } else { draw_delay(rng) },
            rude: rng.one_in(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_what_the_table_says() {
        for (n, response) in RESPONSES.iter().enumerate() {
            assert_eq!(n < ADMITTING, response.gives == Gives::Admits(None), "{n}");
            if let Ends::Fin(head) = response.ends {
                assert_eq!(&response.bytes[head - 4..head], b"\r\n\r\n", "{n}");
            }
        }
    }
}
