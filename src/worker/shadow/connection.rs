//! One shadow: its connection from the first attempt to its end. What it is to send before it is up
//! is held back; from then on it is sent at once, and what the kernel refuses is its backlog.
//!
//! `held + backlog <= buffer`, but for one read.

use crate::policy::candidates::Candidates;
use crate::policy::endpoint::Pick;
use crate::proto::Millis;
use crate::proto::http1::FieldEdits;
use crate::proto::settings::Settings;
use crate::proto::shadow::{Opening, Refused, ShadowEnd, ShadowResponse};
use crate::worker::buffers::Backlog;
use crate::worker::conn::{Conn, Handshake, Input};
use crate::worker::dial::{Dial, Dialled, dial};
use crate::worker::lend::Io;
use crate::worker::pair::Pending;
use crate::worker::socket::Progress;
use crate::worker::sys::{self, Sys};
use crate::worker::token::{Role, SlotKey, Token};
use std::sync::Arc;

/// Reads of a shadow in a turn.
const READS_MAX: u32 = 4;
/// Bytes of one read of its response head.
const READ_BYTES: usize = 16 * 1024;

/// What a shadow begins with.
#[derive(Debug)]
pub struct Start {
    /// Of its session's handshake.
    pub pending: Box<Pending>,
    pub opening: Opening,
    pub candidates: Box<Candidates>,
    /// The settings of the route.
    pub settings: Arc<Settings>,
    /// Bytes that may wait.
    pub buffer_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Shadow<K> {
    pub key: SlotKey,
    /// `None`: its session has ended.
    pub pair: Option<SlotKey>,
    stage: Stage,
    conn: Option<Conn<K>>,
    /// Counts the shadow among the sessions of its endpoint.
    pick: Option<Pick>,
    settings: Arc<Settings>,
    /// The role of the next attempt.
    attempt_role: Role,
    buffer_bytes: usize,
    /// What waits for the shadow to be up.
    held: Backlog,
    discarded: u64,
    fin: Fin,
    /// The session has ended: when its shadow is closed at the latest.
    closed_at: Option<Millis>,
    /// It is in the ring.
    pub queued: bool,
    /// When the wheel looks at it next; `Millis::MAX` if it does not.
    pub wheel_at: Millis,
}

#[derive(Debug)]
enum Stage {
    Opening(Box<Attempts>),
    /// Its 101 has come.
    Up,
}

/// What only the opening handshake needs.
#[derive(Debug)]
struct Attempts {
    pending: Box<Pending>,
    candidates: Box<Candidates>,
    response: ShadowResponse,
    /// When the next attempt is made, if none has succeeded.
    attempt_until: Millis,
    /// When the last attempt ends; once the request has been sent, the wait for its response.
    until: Millis,
    requested: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    No,
    /// It follows everything that waits.
    Owed,
    Sent,
}

type Outcome = Result<(), ShadowEnd>;

impl Attempts {
    /// Whether the response is complete, and valid. Its outcome counts for the endpoint.
    fn on_bytes(&mut self, bytes: &[u8], head_max: usize, now: Millis) -> Result<bool, ShadowEnd> {
        let read = self.response.on_bytes(bytes, head_max);
        match read {
            Ok(false) => {}
            // It works, and has its reasons.
            Ok(true) | Err(Refused { status: 200..500, .. }) => self.candidates.succeed(now),
            Err(_) => self.candidates.fail(now),
        }
        read.map_err(|_| ShadowEnd::Handshake)
    }

    /// The response does not come.
    fn fail(&mut self, now: Millis) -> ShadowEnd {
        self.candidates.fail(now);
        ShadowEnd::Handshake
    }
}

impl<K> Shadow<K> {
    /// A shadow, and whether its first attempt is under way.
    pub fn open<S: Sys<Sock = K>>(
        key: SlotKey,
        pair: SlotKey,
        start: Start,
        io: &mut Io<'_, S>,
    ) -> (Shadow<K>, Outcome) {
        let until = io.now + start.settings.timeouts.connect_total_ms;
        let attempts = Attempts {
            pending: start.pending,
            candidates: start.candidates,
            response: ShadowResponse::new(start.opening),
            attempt_until: until,
            until,
            requested: false,
        };
        let mut shadow = Shadow {
            key,
            pair: Some(pair),
            stage: Stage::Opening(Box::new(attempts)),
            conn: None,
            pick: None,
            settings: start.settings,
            attempt_role: Role::FIRST_ATTEMPT,
            buffer_bytes: start.buffer_bytes,
            held: Backlog::new(io.now),
            discarded: 0,
            fin: Fin::No,
            closed_at: None,
            queued: false,
            wheel_at: Millis::MAX,
        };
        let outcome = shadow.attempt(io);
        (shadow, outcome)
    }

    /// Whether the event is for this connection.
    pub fn on_ready(&mut self, role: Role, event: &sys::Event) -> bool {
        let conn = self.conn.as_mut().filter(|conn| conn.role == role);
        conn.map(|conn| conn.on_ready(event)).is_some()
    }

    /// It was sent everything, FIN included.
    pub fn has_sent_all(&self) -> bool {
        self.fin == Fin::Sent
    }

    /// A turn would find something to do. What connect(2) reports comes with an event.
    pub fn is_ready(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| {
            let ready = conn.ready();
            conn.may_handshake() || (conn.is_up() && ready.read) || (conn.has_backlog() && ready.write)
        })
    }

    /// The nearest deadline.
    pub fn deadline(&self) -> Option<Millis> {
        let opening = match &self.stage {
            Stage::Opening(attempts) if attempts.requested => Some(attempts.until),
            Stage::Opening(attempts) => Some(attempts.until.min(attempts.attempt_until)),
            Stage::Up => None,
        };
        opening.into_iter().chain(self.closed_at).min()
    }

    /// A deadline may have passed.
    pub fn on_time<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) -> Outcome {
        if self.closed_at.is_some_and(|at| at <= io.now) {
            return Err(if self.has_sent_all() { ShadowEnd::Done } else { ShadowEnd::CloseTimeout });
        }
        match &mut self.stage {
            Stage::Opening(attempts) if attempts.until <= io.now => {
                let end = attempts.fail(io.now);
                Err(if attempts.requested { end } else { ShadowEnd::Connect })
            }
            Stage::Opening(attempts) if !attempts.requested && attempts.attempt_until <= io.now => self.attempt(io),
            Stage::Opening(_) | Stage::Up => Ok(()),
        }
    }

    /// What went upstream, in two parts.
    pub fn append<S: Sys<Sock = K>>(&mut self, [first, bytes]: [&[u8]; 2], io: &mut Io<'_, S>) -> Outcome {
        let waiting = match (&self.stage, &mut self.conn) {
            (Stage::Up, Some(conn)) => {
                conn.write(first, bytes, false, io);
                conn.backlog_bytes()
            }
            _ => {
                let waiting = self.held.len() + first.len() + bytes.len();
                if waiting <= self.buffer_bytes {
                    self.held.push(first, io.pool);
                    self.held.push(bytes, io.pool);
                }
                waiting
            }
        };
        match waiting <= self.buffer_bytes {
            false => Err(ShadowEnd::BufferFull),
            true if io.pool.is_short() => Err(ShadowEnd::Limit),
            true => Ok(()),
        }
    }

    /// Nothing more will be appended. `over`: the session has ended.
    pub fn finish<S: Sys<Sock = K>>(&mut self, over: bool, io: &mut Io<'_, S>) {
        if over {
            (self.pair, self.closed_at) = (None, Some(io.now + self.settings.timeouts.close_ms));
        }
        if self.fin == Fin::No {
            self.fin = Fin::Owed;
            self.send_fin(io);
        }
    }

    /// Connect, handshake, flush, read: as far as readiness and the budget allow.
    pub fn turn<S: Sys<Sock = K>>(&mut self, input: &mut Input, io: &mut Io<'_, S>) -> Outcome {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        if conn.may_connect() {
            match conn.finish_connect(io.sys) {
                None => return Ok(()),
                Some(Ok(())) => self.connected(io)?,
                Some(Err(_)) => return self.attempt(io),
            }
        }
        let Some(conn) = &mut self.conn else { return Ok(()) };
        if conn.may_handshake() {
            match conn.handshake(input, &mut false, io) {
                Handshake::Pending => return Ok(()),
                Handshake::Failed(_) | Handshake::Ended(_) => return self.attempt(io),
                // A server does not speak first.
                Handshake::Established { .. } if !input.bytes().is_empty() => return Err(self.end_of_peer(io.now)),
                Handshake::Established { .. } => self.request(io),
            }
        }
        if let Some(conn) = self.conn.as_mut().filter(|conn| conn.has_backlog() && conn.ready().write) {
            conn.flush(io);
            self.send_fin(io);
        }
        self.read(input, io)
    }

    /// Bytes discarded since this was asked last.
    pub fn take_discarded(&mut self) -> u64 {
        std::mem::take(&mut self.discarded)
    }

    /// Everything it holds is given back; one that is cut is reset.
    pub fn close<S: Sys<Sock = K>>(self, end: ShadowEnd, io: &mut Io<'_, S>) {
        self.held.drop_all(io.pool);
        let Some(conn) = self.conn else { return };
        let sock = conn.into_sock(io.pool);
        match end {
            // Its stream has a hole: that must not look like an end.
            ShadowEnd::BufferFull | ShadowEnd::Limit | ShadowEnd::CloseTimeout | ShadowEnd::Stop => {
                io.sys.abort(sock);
            }
            ShadowEnd::Done | ShadowEnd::Connect | ShadowEnd::Handshake | ShadowEnd::Peer => drop(sock),
        }
    }

    /// Tries the next address.
    fn attempt<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) -> Outcome {
        let Stage::Opening(attempts) = &mut self.stage else { return Err(ShadowEnd::Peer) };
        if let Some(conn) = self.conn.take() {
            drop(conn.into_sock(io.pool));
        }
        // It must not count against its own limit.
        self.pick = None;
        let role = self.attempt_role;
        let token = Token::Shadow(self.key, role).pack();
        loop {
            match dial(&mut attempts.candidates, Dial { token, role, now: io.now }, io.sys, |_, _| None) {
                Dialled::Connecting(pick, conn) | Dialled::Taken(pick, conn) => {
                    self.attempt_role = role.next_attempt();
                    attempts.attempt_until = io.now + self.settings.timeouts.connect_ms;
                    (self.pick, self.conn) = (Some(pick), Some(conn));
                    return Ok(());
                }
                // Sessions need the descriptors more, and go first.
                Dialled::NoSocket(_) | Dialled::Wait { .. } => return Err(ShadowEnd::Limit),
                Dialled::Failed(..) => {}
                Dialled::Refuse(_) => return Err(ShadowEnd::Connect),
            }
        }
    }

    /// connect(2) has succeeded.
    fn connected<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) -> Outcome {
        let (Stage::Opening(attempts), Some(pick), Some(conn)) = (&self.stage, &self.pick, &mut self.conn) else {
            return Ok(());
        };
        let (upstream, request) = (attempts.candidates.upstream(), attempts.response.opening().request());
        if let Some(header) = request.and_then(|request| attempts.pending.write_header(upstream, &request)) {
            conn.write(&[], &header, false, io);
        }
        if !pick.endpoint().tls {
            self.request(io);
            return Ok(());
        }
        let tls = attempts.pending.tls.as_ref();
        let tls = tls.and_then(|tls| tls.connect(attempts.candidates.upstream(), pick.endpoint()).ok());
        let started = tls.is_some_and(|tls| conn.start_handshake(Box::new(tls), io).is_ok());
        if started { Ok(()) } else { self.attempt(io) }
    }

    /// The transport is up: the request goes out.
    fn request<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        let mut seed = [0; 24];
        io.sys.random(&mut seed);
        let (Stage::Opening(attempts), Some(pick), Some(conn)) = (&mut self.stage, &self.pick, &mut self.conn) else {
            return;
        };
        attempts.requested = true;
        attempts.until = io.now + self.settings.timeouts.upstream_head_ms;
        let request = attempts.response.opening().request();
        let pending = &attempts.pending;
        // Its response goes nowhere.
        let edits = &mut FieldEdits::new();
        let head = request.and_then(|r| pending.write_request(&pending.facts(&r), pick.endpoint(), seed, edits));
        conn.write(&[], &head.unwrap_or_default(), false, io);
    }

    fn read<S: Sys<Sock = K>>(&mut self, input: &mut Input, io: &mut Io<'_, S>) -> Outcome {
        for _ in 0..READS_MAX {
            let Some(conn) = self.conn.as_mut().filter(|conn| conn.is_up() && conn.ready().read) else { break };
            let progress = match &mut self.stage {
                Stage::Opening(attempts) => {
                    let progress = conn.read(READ_BYTES, input, io);
                    let up = attempts.on_bytes(input.bytes(), self.settings.head_bytes, io.now);
                    input.clear();
                    if up? {
                        self.up(io);
                    }
                    progress
                }
                Stage::Up => {
                    let (n, progress) = conn.discard(input, io);
                    self.discarded += n as u64;
                    progress
                }
            };
            match progress {
                Progress::Moved(_) => {}
                Progress::Blocked => break,
                Progress::Ended(_) => return Err(self.end_of_peer(io.now)),
            }
        }
        Ok(())
    }

    /// The meaning of an end of its connection.
    fn end_of_peer(&mut self, now: Millis) -> ShadowEnd {
        match (&mut self.stage, self.fin) {
            (_, Fin::Sent) => ShadowEnd::Done,
            (Stage::Opening(attempts), _) => attempts.fail(now),
            (Stage::Up, _) => ShadowEnd::Peer,
        }
    }

    /// Its 101 has come: what was held back is sent.
    fn up<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        self.stage = Stage::Up;
        let Some(conn) = &mut self.conn else { return };
        while !self.held.is_empty() {
            let (slices, _) = self.held.slices();
            let [slice, ..] = &slices;
            let n = slice.len();
            conn.write(&[], slice, false, io);
            self.held.advance(n, io.pool);
        }
        self.send_fin(io);
    }

    /// Sends the FIN that is owed once nothing is before it.
    fn send_fin<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        let (Stage::Up, Some(conn), Fin::Owed) = (&self.stage, &mut self.conn, self.fin) else { return };
        if conn.has_backlog() {
            return;
        }
        conn.send_close_notify(io);
        if !conn.has_backlog() {
            conn.shutdown(io.sys);
            self.fin = Fin::Sent;
        }
    }
}

// What `check` adds up.
const _: () = assert!(
    size_of::<Shadow<std::os::fd::OwnedFd>>() + size_of::<Attempts>() + size_of::<Pending>() + size_of::<Candidates>()
        <= crate::memory::SHADOW_BYTES
);
