//! The admin listener: a small HTTP/1.1 server without blocking, on the control thread's `Poll`. Owns its listener
//! and its connections, parses requests and writes replies; what a reply says is asked of the caller. One request
//! a connection, then it is closed. Never on the data path, knows no worker and no snapshot.

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Connections at a time; a further one takes the place of the oldest.
pub const CONNS_MAX: usize = 64;
/// Tokens that [`Admin`] uses, from its first on: the listener and one for each connection.
pub const TOKENS: usize = 1 + CONNS_MAX;
/// From accept to close, all phases together.
const DEADLINE: Duration = Duration::from_secs(10);
const HEAD_MAX: usize = 8 * 1024;
const FIELDS_MAX: usize = 64;
/// Bytes that are still read after the reply, so that the client can read it before a reset.
const LINGER_MAX: usize = 64 * 1024;
/// Until accepting is tried again after it failed: on an edge-triggered listener there is no second event.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `GET /metrics`
    Metrics,
    /// `GET /healthz`: the process runs.
    Healthz,
    /// `GET /readyz`: the process takes new sessions.
    Readyz,
    /// `GET /`
    Page,
    /// `POST /reload`
    Reload,
    /// `POST /fault/panic?worker=N`
    Panic { worker: usize },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Reply {
    /// Plain text; a line feed is added.
    pub fn text(status: u16, text: &str) -> Reply {
        Reply { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }

    /// A page as [`page`] makes it.
    pub fn html(body: String) -> Reply {
        Reply { status: 200, content_type: "text/html; charset=utf-8", body }
    }
}

/// The page of `framegate demo`: opens a WebSocket to `ws_url` and shows round trips. Needs nothing else.
pub fn page(ws_url: &str) -> String {
    // Inside of a script even a quoted `</script>` would end it.
    let quoted = serde_json::Value::from(ws_url).to_string().replace('<', "\\u003c");
    include_str!("admin/page.html").replace("\"{{WS_URL}}\"", &quoted)
}

/// The server. The caller's loop calls [`Admin::on_event`] for its tokens and [`Admin::on_tick`] at the latest at
/// [`Admin::deadline`].
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    registry: Registry,
    first_token: usize,
    /// By slot. Never longer than [`CONNS_MAX`].
    conns: Vec<Option<Conn>>,
    /// When to accept again, if accepting failed.
    owed: Option<Instant>,
}

impl Admin {
    /// Takes the tokens from `first_token` to `first_token + TOKENS - 1`.
    ///
    /// # Errors
    /// The listener cannot be registered.
    pub fn new(listener: std::net::TcpListener, registry: &Registry, first_token: usize) -> io::Result<Admin> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let registry = registry.try_clone()?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(Admin { listener, registry, first_token, conns: Vec::new(), owed: None })
    }

    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Something happened on one of our tokens; others are ignored. `answer` is called once for each request that
    /// makes sense.
    pub fn on_event(&mut self, token: usize, answer: &mut dyn FnMut(Ask) -> Reply) {
        match token.checked_sub(self.first_token) {
            Some(0) => self.accept(Instant::now()),
            Some(slot) => self.advance(slot - 1, answer),
            None => {}
        }
    }

    /// Closes what is past its deadline, and accepts again where that had failed.
    pub fn on_tick(&mut self, now: Instant) {
        for slot in &mut self.conns {
            if slot.as_ref().is_some_and(|conn| conn.deadline <= now) {
                *slot = None;
            }
        }
        if self.owed.is_some_and(|at| at <= now) {
            self.accept(now);
        }
    }

    /// When [`Admin::on_tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.conns.iter().flatten().map(|conn| conn.deadline).chain(self.owed).min()
    }

    fn accept(&mut self, now: Instant) {
        self.owed = None;
        // Bounded: who connects without end must not keep the control thread here.
        for _ in 0..CONNS_MAX {
            match self.listener.accept() {
                Ok((sock, _)) => self.keep(sock, now + DEADLINE),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        self.owed = Some(now + ACCEPT_AGAIN);
    }

    fn keep(&mut self, mut sock: TcpStream, deadline: Instant) {
        let slot = self.free_slot();
        let token = Token(self.first_token + 1 + slot);
        // Registering reports what is already there, so nothing is read here.
        if self.registry.register(&mut sock, token, Interest::READABLE | Interest::WRITABLE).is_ok()
            && let Some(place) = self.conns.get_mut(slot)
        {
            *place = Some(Conn { sock, deadline, phase: Phase::Head(Vec::new()) });
        }
    }

    /// An empty slot, else that of the oldest connection: a few slow clients must not lock out a health check.
    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.conns.iter().position(Option::is_none) {
            return slot;
        }
        if self.conns.len() < CONNS_MAX {
            self.conns.push(None);
            return self.conns.len() - 1;
        }
        let age = |slot: &usize| self.conns.get(*slot).and_then(|conn| Some(conn.as_ref()?.deadline));
        (0..self.conns.len()).min_by_key(age).unwrap_or(0)
    }

    fn advance(&mut self, slot: usize, answer: &mut dyn FnMut(Ask) -> Reply) {
        let Some(place) = self.conns.get_mut(slot) else { return };
        // An event for a connection that has gone meets its successor or nobody: both do no harm.
        if place.as_mut().is_some_and(|conn| conn.advance(answer).is_err()) {
            *place = None;
        }
    }
}

#[derive(Debug)]
struct Conn {
    sock: TcpStream,
    deadline: Instant,
    phase: Phase,
}

/// Head -> Reply -> Linger -> closed
#[derive(Debug)]
enum Phase {
    /// What came of the request so far.
    Head(Vec<u8>),
    Reply {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// All is sent and shut down; what the client still sends is thrown away.
    Linger {
        read: usize,
    },
}

/// The connection is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Over {
        Over
    }
}

impl Conn {
    /// Goes as far as the socket allows: events are edges, so each phase ends in `WouldBlock` or in the next one.
    fn advance(&mut self, answer: &mut dyn FnMut(Ask) -> Reply) -> Result<(), Over> {
        let mut buf = [0; HEAD_MAX];
        loop {
            let next = match &mut self.phase {
                Phase::Head(head) => {
                    let Some(n) = attempt(|| self.sock.read(&mut buf))? else { return Ok(()) };
                    head.extend_from_slice(buf.get(..n).filter(|new| !new.is_empty()).ok_or(Over)?);
                    reply_to(head, answer).map(|bytes| Phase::Reply { bytes, sent: 0 })
                }
                Phase::Reply { bytes, sent } => match bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
                    Some(rest) => {
                        let Some(n) = attempt(|| self.sock.write(rest))? else { return Ok(()) };
                        *sent += n;
                        None
                    }
                    None => {
                        self.sock.shutdown(Shutdown::Write)?;
                        Some(Phase::Linger { read: 0 })
                    }
                },
                Phase::Linger { read } => {
                    let Some(n) = attempt(|| self.sock.read(&mut buf))? else { return Ok(()) };
                    *read += n;
                    if n == 0 || *read > LINGER_MAX {
                        return Err(Over);
                    }
                    None
                }
            };
            if let Some(next) = next {
                self.phase = next;
            }
        }
    }
}

/// `None` where the socket would block.
fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The whole reply to what is held of a request; `None` while its head is not complete.
fn reply_to(held: &[u8], answer: &mut dyn FnMut(Ask) -> Reply) -> Option<Vec<u8>> {
    // What is beyond the limit is not looked at: the verdict is the same however the bytes were cut.
    let held = held.get(..HEAD_MAX).unwrap_or(held);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let judged = match request.parse(held) {
        Ok(httparse::Status::Complete(_)) => judge(&request),
        Ok(httparse::Status::Partial) if held.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Err(Refusal { status: 431, text: "The request head is too large.", allow: None })
        }
        Err(_) => Err(Refusal { status: 400, text: "The request is malformed.", allow: None }),
    };
    let (reply, allow) = match judged {
        Ok(ask) => (answer(ask), None),
        Err(refusal) => (Reply::text(refusal.status, refusal.text), refusal.allow),
    };
    Some(write_reply(&reply, allow, request.method == Some("HEAD")))
}

struct Refusal {
    status: u16,
    text: &'static str,
    allow: Option<&'static str>,
}

fn judge(request: &httparse::Request<'_, '_>) -> Result<Ask, Refusal> {
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let method = request.method.unwrap_or_default();
    let (ask, get) = match path {
        "/metrics" => (Ask::Metrics, true),
        "/healthz" => (Ask::Healthz, true),
        "/readyz" => (Ask::Readyz, true),
        "/" => (Ask::Page, true),
        "/reload" => (Ask::Reload, false),
        "/fault/panic" => (Ask::Panic { worker: 0 }, false),
        _ => return Err(Refusal { status: 404, text: "There is nothing here.", allow: None }),
    };
    match (get, method) {
        (true, "GET" | "HEAD") | (false, "POST") => {}
        (true, _) => return Err(Refusal { status: 405, text: "This is a GET.", allow: Some("GET, HEAD") }),
        (false, _) => return Err(Refusal { status: 405, text: "This is a POST.", allow: Some("POST") }),
    }
    // Any page in a browser on this machine can send a POST here, but not without saying so.
    if !get && request.headers.iter().any(|field| field.name.eq_ignore_ascii_case("origin")) {
        return Err(Refusal { status: 403, text: "Not from a browser.", allow: None });
    }
    match ask {
        Ask::Panic { .. } => Ok(Ask::Panic { worker: worker_of(query)? }),
        ask => Ok(ask),
    }
}

fn worker_of(query: &str) -> Result<usize, Refusal> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("worker="));
    let digits = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
    let worker = digits.and_then(|digits| digits.parse().ok());
    worker.ok_or(Refusal { status: 400, text: "Say which: ?worker=N.", allow: None })
}

fn write_reply(reply: &Reply, allow: Option<&str>, head_only: bool) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n",
        reply.status,
        reason_of(reply.status),
        reply.content_type,
        reply.body.len()
    );
    if let Some(allow) = allow {
        head.push_str(&format!("Allow: {allow}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !head_only {
        bytes.extend_from_slice(reply.body.as_bytes());
    }
    bytes
}

fn reason_of(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        // The reason phrase may be empty (RFC 9112, section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::TcpStream as Client;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
    use std::thread::JoinHandle;

    const FIRST: usize = 7;
    const BIG: usize = 16 * 1024 * 1024;

    /// An admin server on its own thread, whose clock can be put forward.
    struct Server {
        addr: SocketAddr,
        ahead_s: Arc<AtomicU64>,
        asked: Arc<AtomicUsize>,
        stop: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl Server {
        fn start() -> Server {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut poll = Poll::new().unwrap();
            let mut admin = Admin::new(listener, poll.registry(), FIRST).unwrap();
            let mut server = Server {
                addr: admin.local_addr().unwrap(),
                ahead_s: Arc::default(),
                asked: Arc::default(),
                stop: Arc::default(),
                thread: None,
            };
            let (ahead_s, asked, stop) = (server.ahead_s.clone(), server.asked.clone(), server.stop.clone());
            server.thread = Some(std::thread::spawn(move || {
                let mut events = Events::with_capacity(64);
                while !stop.load(SeqCst) {
                    poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
                    for event in &events {
                        admin.on_event(event.token().0, &mut |ask| {
                            asked.fetch_add(1, SeqCst);
                            answer(ask)
                        });
                    }
                    admin.on_tick(Instant::now() + Duration::from_secs(ahead_s.load(SeqCst)));
                    assert!(admin.conns.len() <= CONNS_MAX);
                    assert_eq!(admin.deadline().is_some(), admin.conns.iter().any(Option::is_some));
                }
            }));
            server
        }

        fn connect(&self) -> Client {
            let client = Client::connect(self.addr).unwrap();
            client.set_nodelay(true).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client
        }

        fn ask(&self, request: &str) -> String {
            let mut client = self.connect();
            client.write_all(request.as_bytes()).unwrap();
            rest(&mut client)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.store(true, SeqCst);
            let ended = self.thread.take().unwrap().join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }

    fn answer(ask: Ask) -> Reply {
        match ask {
            Ask::Metrics => Reply { status: 200, content_type: crate::metrics::CONTENT_TYPE, body: "m 1\n".into() },
            Ask::Page => Reply::html("x".repeat(BIG)),
            Ask::Readyz => Reply::text(503, "draining"),
            other => Reply::text(200, &format!("{other:?}")),
        }
    }

    fn rest(client: &mut Client) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    /// The connection has been closed, in whichever way.
    fn is_closed(client: &mut Client) -> bool {
        match client.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    #[test]
    fn every_request_and_its_reply() {
        let server = Server::start();
        let cases = [
            ("GET /metrics HTTP/1.1", "200 OK", "m 1"),
            ("GET /metrics?a=b HTTP/1.0", "200 OK", "m 1"),
            ("GET /healthz HTTP/1.1", "200 OK", "Healthz"),
            ("GET /readyz HTTP/1.1", "503 Service Unavailable", "draining"),
            ("POST /reload HTTP/1.1", "200 OK", "Reload"),
            ("POST /fault/panic?worker=3 HTTP/1.1", "200 OK", "Panic { worker: 3 }"),
            ("POST /fault/panic?x=1&worker=0 HTTP/1.1", "200 OK", "Panic { worker: 0 }"),
            ("POST /fault/panic HTTP/1.1", "400 Bad Request", "Say which: ?worker=N."),
            ("POST /fault/panic?worker=+1 HTTP/1.1", "400 Bad Request", "Say which: ?worker=N."),
            ("POST /fault/panic?worker= HTTP/1.1", "400 Bad Request", "Say which: ?worker=N."),
            ("GET /reload HTTP/1.1", "405 Method Not Allowed", "This is a POST."),
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed", "This is a GET."),
            ("HEAD /fault/panic?worker=1 HTTP/1.1", "405 Method Not Allowed", ""),
            ("GET /metrics/ HTTP/1.1", "404 Not Found", "There is nothing here."),
            ("GET http://a/metrics HTTP/1.1", "404 Not Found", "There is nothing here."),
            ("GET /metrics HTTP/3.1", "400 Bad Request", "The request is malformed."),
            ("\u{1}", "400 Bad Request", "The request is malformed."),
        ];
        for (line, status, body) in cases {
            let reply = server.ask(&format!("{line}\r\nHost: a\r\n\r\n"));
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {reply}");
            let (head, got) = reply.split_once("\r\n\r\n").unwrap();
            assert_eq!(got.trim_end(), body, "{line}");
            assert!(head.contains("\r\nConnection: close"), "{head}");
            assert_eq!(head.contains("\r\nAllow: "), status.starts_with("405"), "{head}");
        }
        assert_eq!(server.asked.load(SeqCst), 7);
    }

    #[test]
    fn a_head_request_gets_the_head_alone() {
        let server = Server::start();
        let reply = server.ask("HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(reply.contains("\r\nContent-Length: 4\r\n") && reply.ends_with("\r\n\r\n"), "{reply}");
    }

    #[test]
    fn a_post_of_a_browser_is_refused_unasked() {
        let server = Server::start();
        for target in ["/reload", "/fault/panic?worker=0"] {
            let reply = server.ask(&format!("POST {target} HTTP/1.1\r\noRIGIN: http://evil.example\r\n\r\n"));
            assert!(reply.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{reply}");
        }
        assert_eq!(server.asked.load(SeqCst), 0);
    }

    #[test]
    fn a_request_torn_at_every_byte_is_the_same_request() {
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n";
        for cut in 0..request.len() {
            assert!(reply_to(&request[..cut], &mut |_| unreachable!("at {cut}")).is_none());
        }
        let whole = reply_to(request, &mut answer).unwrap();
        assert!(whole.starts_with(b"HTTP/1.1 200 OK\r\n"));

        let server = Server::start();
        for cut in 1..request.len() {
            let mut client = server.connect();
            client.write_all(&request[..cut]).unwrap();
            client.write_all(&request[cut..]).unwrap();
            assert_eq!(rest(&mut client).as_bytes(), whole);
        }
        let mut client = server.connect();
        for byte in request {
            client.write_all(&[*byte]).unwrap();
        }
        assert_eq!(rest(&mut client).as_bytes(), whole);
    }

    #[test]
    fn large_heads_are_refused_wherever_they_are_cut() {
        let field = |n: usize| format!("GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(n));
        let fits = field(HEAD_MAX - field(0).len());
        assert!(reply_to(fits.as_bytes(), &mut answer).unwrap().starts_with(b"HTTP/1.1 200"));
        let long = field(HEAD_MAX - field(0).len() + 1);
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        let server = Server::start();
        for request in [long, field(60_000), many] {
            let reply = server.ask(&request);
            assert!(reply.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{reply}");
        }
        assert_eq!(server.asked.load(SeqCst), 0);
    }

    #[test]
    fn a_large_reply_reaches_a_reader_that_takes_its_time() {
        let server = Server::start();
        let mut slow = server.connect();
        slow.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // Nothing is read yet: the reply cannot be sent whole, and another client is served meanwhile.
        assert!(server.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("Healthz\n"));
        let reply = rest(&mut slow);
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {BIG}\r\n")));
        assert_eq!(body.len(), BIG);
    }

    #[test]
    fn a_body_that_nobody_asked_for_does_not_cost_the_client_its_reply() {
        let server = Server::start();
        let mut client = server.connect();
        client.write_all(b"POST /reload HTTP/1.1\r\nContent-Length: 60000\r\n\r\n").unwrap();
        client.write_all(&[b'x'; 60_000]).unwrap();
        assert!(rest(&mut client).ends_with("Reload\n"));
    }

    #[test]
    fn the_reply_reaches_a_client_that_has_shut_down() {
        let server = Server::start();
        let mut client = server.connect();
        client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(rest(&mut client).ends_with("Healthz\n"));
        let mut client = server.connect();
        client.write_all(b"GET /healthz HT").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), "");
    }

    #[test]
    fn slow_clients_are_closed_at_their_deadline_in_every_phase() {
        let server = Server::start();
        let mut in_head = server.connect();
        in_head.write_all(b"GET /heal").unwrap();
        let mut in_reply = server.connect();
        in_reply.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut in_linger = server.connect();
        in_linger.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        assert!(rest(&mut in_linger).ends_with("Healthz\n"));
        // All three were accepted before this one is answered.
        assert!(server.ask("GET /metrics HTTP/1.1\r\n\r\n").ends_with("m 1\n"));
        server.ahead_s.store(11, SeqCst);
        assert!(is_closed(&mut in_head));
        let mut got = Vec::new();
        let _ = in_reply.read_to_end(&mut got);
        assert!(got.len() < BIG, "the deadline did not cut it");
        server.ahead_s.store(0, SeqCst);
        assert!(server.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("Healthz\n"));
    }

    #[test]
    fn the_oldest_connection_makes_room() {
        let server = Server::start();
        let mut idle: Vec<Client> = (0..CONNS_MAX).map(|_| server.connect()).collect();
        assert!(server.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("Healthz\n"));
        assert!(is_closed(&mut idle[0]));
        // The youngest is still there.
        let youngest = idle.last_mut().unwrap();
        youngest.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        assert!(rest(youngest).ends_with("Healthz\n"));
    }

    #[test]
    fn the_page_is_whole_and_the_url_cannot_leave_its_string() {
        let page = super::page("ws://127.0.0.1:8080/");
        assert_eq!(page.matches("\"ws://127.0.0.1:8080/\"").count(), 1);
        assert!(!page.contains("{{"), "a placeholder is left");
        for outside in ["src=", "http://", "https://", "@import", "url(", "<link rel=\"stylesheet"] {
            assert!(!page.contains(outside), "{outside} in the page");
        }
        let hostile = super::page("ws://x/\"</script><script>");
        assert_eq!(hostile.matches("</script>").count(), 1);
        assert!(hostile.contains(r#""ws://x/\"\u003c/script>\u003cscript>""#));
    }
}
