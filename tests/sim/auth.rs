//! Authorization servers that a route asks as its last question: what they answer, who the client
//! is then, and what becomes of its credentials while the schedule runs. Part of the script: drawn
//! from its seed.

use crate::asks::{self, Ask, CONNECT_MS, Call, Ends, Gives, Response};
use crate::kernel::Micros;
use crate::rng::Rng;
use crate::schedule::{End, Opening, Session};
use framegate::proto::end::Cause;
use std::borrow::Cow;
use std::sync::LazyLock;

/// How a server is asked, and how its answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A check of the route: a 2xx admits.
    Check,
    /// Forward auth.
    Forward,
    Introspection,
}

/// Who an answer says the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub subject: &'static str,
    pub token: Option<&'static str>,
    pub until: Until,
}

/// When credentials end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Never,
    /// So many seconds after the answer has come.
    After(u64),
    /// At this time of the worker's clock, in seconds.
    At(u64),
}

/// An order of an administrator about a client that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// After the client has come.
    pub at: Micros,
    /// As soon as its backend knows the id of the session.
    pub eager: bool,
    pub by: By,
}

/// How the sessions are named that are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Subject,
    Token,
    /// The id that its backend has read.
    Session,
}

/// How long orders hold: longer than any schedule.
pub const HOLDS_MS: u64 = 3_600_000;
/// Close codes for clients whose credentials are revoked, and for those whose credentials end:
/// the defaults.
pub const REVOKED_CODE: u16 = 4403;
pub const EXPIRED_CODE: u16 = 4401;
/// Fields of answers of forward auth.
pub const SUBJECT_FIELD: &str = "X-User";
pub const EXPIRES_FIELD: &str = "X-Expires";
/// The Host of requests to these servers.
pub const HOST: &str = "callee";
/// Path of questions to both of them.
pub const PATH: &str = "/who";

const BREAKS: Gives = Gives::Nothing;
const UNPROVEN: Gives = Gives::Refuses(401, Cause::BadCredentials);

const fn admits(subject: &'static str, token: Option<&'static str>, until: Until) -> Gives {
    Gives::Admits(Some(Client { subject, token, until }))
}

const fn passes_on(status: u16) -> Gives {
    Gives::Refuses(status, Cause::Forbidden)
}

/// Answers of forward auth: status line and fields, body. The first [`ADMITTING`] admit.
const FORWARD: &[(&str, &str, Gives)] = &[
    ("200 OK\r\nX-User: ann", "ok", admits("ann", None, Until::Never)),
    ("204 Fine\r\nX-User: ben\r\nX-Expires: 2", "", admits("ben", None, Until::After(2))),
    ("200 OK\r\nX-Expires: 5\r\nX-User: ann", "", admits("ann", None, Until::After(5))),
    ("299 Odd\r\nx-user: cid\r\nX-Expires: 1", "HTTP/1.1 401", admits("cid", None, Until::After(1))),
    ("401 Unauthorized\r\nWWW-Authenticate: Basic", "no", passes_on(401)),
    ("302 Found\r\nLocation: /login", "", passes_on(302)),
    ("403 No\r\nX-User: ann", "HTTP/1.1 200", passes_on(403)),
    ("500 Broken\r\nX-User: ann", "oh", BREAKS),
    ("200 OK", "nobody", BREAKS),
    ("200 OK\r\nX-User: ann\r\nX-User: ben", "", BREAKS),
    ("200 OK\r\nX-User: ann\r\nX-Expires: soon", "", BREAKS),
    ("200 OK\r\nX-User: ann\r\nX-Expires: 0", "", UNPROVEN),
];

/// Answers of introspection.
const INTROSPECTION: &[(&str, &str, Gives)] = &[
    ("200 OK", r#"{"active":true,"sub":"ann","jti":"t1"}"#, admits("ann", Some("t1"), Until::Never)),
    ("200 OK", r#"{"active":true,"sub":"ben","jti":"t2","exp":4}"#, admits("ben", Some("t2"), Until::At(4))),
    ("200 OK", r#"{"jti":"t1","exp":9,"active":true,"sub":"cid"}"#, admits("cid", Some("t1"), Until::At(9))),
    ("200 OK", r#"{"active": true, "username": "ann"}"#, admits("ann", None, Until::Never)),
    ("200 OK", r#"{"active":false,"sub":"ann"}"#, UNPROVEN),
    ("200 OK", r#"{"active":true,"sub":"ann","exp":1}"#, UNPROVEN),
    ("200 OK", r#"{"active":true,"sub":"ann","nbf":99}"#, UNPROVEN),
    ("200 OK", r#"{"active":"true","sub":"ann"}"#, BREAKS),
    ("200 OK", r#"{"active":true}"#, BREAKS),
    ("200 OK", r#"{"active":false,"active":true,"sub":"ann"}"#, BREAKS),
    ("200 OK", r#"{"active":true,"sub":"ann","exp":"9"}"#, BREAKS),
    ("200 OK", r#"{"active":true,"sub":"#, BREAKS),
    ("201 Made", r#"{"active":true,"sub":"ann"}"#, BREAKS),
    ("401 Who", r#"{"active":true,"sub":"ann"}"#, BREAKS),
];

const ADMITTING: usize = 4;

static RESPONSES: LazyLock<[Vec<Response>; 2]> = LazyLock::new(|| [FORWARD, INTROSPECTION].map(written));

fn written(rows: &[(&str, &str, Gives)]) -> Vec<Response> {
    let response = |(n, (head, body, gives)): (usize, &(&str, &str, Gives))| {
        let length = if n % 3 == 2 { String::new() } else { format!("\r\nContent-Length: {}", body.len()) };
        let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
        // Two of three have a length, the third is chunked.
        let (more, body) = match n % 3 {
            2 => ("\r\nTransfer-Encoding: chunked".to_owned(), format!("{chunk}0\r\n\r\n")),
            _ => (length, (*body).to_owned()),
        };
        let bytes = format!("HTTP/1.1 {head}{more}\r\n\r\n{body}").into_bytes();
        Response { bytes: Cow::Owned(bytes), gives: *gives, ends: Ends::Itself }
    };
    rows.iter().enumerate().map(response).collect()
}

/// What a request to a server is, as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Part,
    Whole,
    Wrong,
}

/// The credential that the client of a session shows.
pub fn credential(session: usize) -> String {
    format!("secret-of-{session}")
}

impl Kind {
    /// The responses of such a server; those of checks are in `asks`.
    pub fn responses(self) -> &'static [Response] {
        match self {
            Kind::Check => asks::RESPONSES,
            Kind::Forward => &RESPONSES[0],
            Kind::Introspection => &RESPONSES[1],
        }
    }

    pub fn letter(self) -> char {
        match self {
            Kind::Check => 'c',
            Kind::Forward => 'f',
            Kind::Introspection => 'i',
        }
    }

    /// Whether `request` is the question about the client of `session`.
    pub fn judge_request(self, request: &[u8], session: usize) -> Seen {
        let whole = match self {
            Kind::Check => crate::callee::REQUEST.to_vec(),
            Kind::Introspection => introspection_of(session),
            Kind::Forward => return judge_forward(request, session),
        };
        match whole.strip_prefix(request) {
            Some([]) => Seen::Whole,
            Some(_) => Seen::Part,
            None => Seen::Wrong,
        }
    }
}

/// RFC 7662 section 2.1.
fn introspection_of(session: usize) -> Vec<u8> {
    let body = format!("token={}&token_type_hint=access_token", credential(session));
    let fields = "Accept: application/json\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let length = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    format!("POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\n{fields}{length}\r\n{body}").into_bytes()
}

/// The head of the client, with its credential and its target in X-Forwarded-Uri.
fn judge_forward(request: &[u8], session: usize) -> Seen {
    let text = String::from_utf8_lossy(request);
    let Some((head, rest)) = text.split_once("\r\n\r\n") else {
        let begin = format!("GET {PATH} HTTP/1.1\r\n");
        return if text.starts_with(&begin) || begin.starts_with(&*text) { Seen::Part } else { Seen::Wrong };
    };
    let has = |line: &str| head.split("\r\n").any(|other| other.eq_ignore_ascii_case(line));
    let shown = has(&format!("Authorization: Bearer {}", credential(session))) && has(&format!("Host: {HOST}"));
    let target = head.split("\r\n").find_map(|line| line.strip_prefix("X-Forwarded-Uri: "));
    let its = target.is_some_and(|target| target.starts_with(&format!("/{session}/")));
    if shown && its && rest.is_empty() { Seen::Whole } else { Seen::Wrong }
}

/// Whom the answer of a session's server admits.
pub fn client_of(session: &Session) -> Option<Client> {
    match session.asks.last()? {
        Ask::Call(call) if call.kind != Kind::Check => match call.gives() {
            Gives::Admits(client) => client,
            Gives::Refuses(..) | Gives::Nothing => None,
        },
        _ => None,
    }
}

/// Draws the server that decides about the client of a session, and orders about it. `whole`: it
/// certainly admits.
pub fn draw(rng: &mut Rng, session: &mut Session, whole: bool) {
    let comes = !matches!(session.opening, Opening::Refused(_) | Opening::Leaves { .. });
    if !comes || !rng.one_in(3) {
        return;
    }
    let kind = rng.pick(&[Kind::Forward, Kind::Introspection]);
    let call = loop {
        let call = Call::draw(rng, kind, ADMITTING);
        let sure = [true, false].iter().all(|tls| Ask::Call(call.clone()).outlook(*tls).only_admits());
        if !whole || sure {
            break call;
        }
    };
    let delay = call.delay_ms * 1_000;
    session.asks.push(Ask::Call(call));
    if session.opening == Opening::Good && !whole && rng.one_in(4) {
        session.rest();
        (session.opening, session.retry) = (Opening::LeavesWaiting { rst: rng.one_in(2) }, None);
    }
    if matches!(session.opening, Opening::LeavesWaiting { .. }) && delay > 0 && rng.one_in(2) {
        // It has left when the answer comes, and before anything is too late.
        session.lingers = rng.below(delay.min(CONNECT_MS * 500));
    }
    let Some(client) = client_of(session) else { return };
    let rests = session.end == End::Idle && session.opening == Opening::Good;
    if rng.one_in(2) {
        let most = rng.pick(&[1_000, 5_000, 20_000, 100_000, if rests { 60_000_000 } else { 1_500_000 }]);
        let ways = [By::Subject, By::Session, By::Token];
        let by = rng.pick(&ways[..if client.token.is_some() { 3 } else { 2 }]);
        session.order = Some(Order { at: rng.below(most), eager: by == By::Session && rng.one_in(2), by });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answers_admit() {
        for kind in [Kind::Forward, Kind::Introspection] {
            for (n, response) in kind.responses().iter().enumerate() {
                assert_eq!(n < ADMITTING, matches!(response.gives, Gives::Admits(Some(_))), "{kind:?} {n}");
            }
        }
    }
}
