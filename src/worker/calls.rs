//! Calls: HTTP/1.1 requests of our own, on the loop of the worker, with its timers and its `Sys`.
//! One connection per call; the addresses of the upstream are tried in turn, each for a while, with
//! TLS where an endpoint asks for it. Without a descriptor an attempt is made again a little later.
//! A call ends with an answer for the pair that asked, at its deadline at the latest. What a
//! response means is decided by policy, and also how long it may be kept for others (`kept.rs`).
//!
//! TLS handshakes of calls are not within the budget of an iteration: as many are made as there are
//! calls, and their number is limited by method (`max_pending`).
//!
//! Memory: a call in flight holds a response head and at most [`RESPONSE_BODY_MAX`] of body; there
//! are at most [`CALLS_MAX`] in flight on a worker.
//!
//! [`RESPONSE_BODY_MAX`]: crate::proto::call::RESPONSE_BODY_MAX

use super::conn::{Conn, Handshake, Input};
use super::dial::{Dial, Dialled, dial};
use super::kept::Kept;
use super::lend::Io;
use super::socket::Progress;
use super::sys::{self, Sys};
use super::timers::Wheel;
use super::token::{Role, SlotKey, Token};
use crate::memory::CALLS_MAX;
use crate::policy::ask::{Answer, Subrequest};
use crate::policy::auth::keep_ms;
use crate::policy::candidates::{Ask, Candidates};
use crate::policy::endpoint::Pick;
use crate::policy::limit::Permit;
use crate::proto::Millis;
use crate::proto::call::{CallResponse, CallResult, ResponseReader};
use crate::proto::proxy_protocol;
use crate::tls::TlsConfigs;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// An attempt for which there was no socket is made again after this time: descriptors come back
/// with every session that ends.
const SOCKET_RETRY_MS: Millis = 100;
/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// The calls of a worker.
#[derive(Debug)]
pub struct Calls<K> {
    calls: Slab<Call<K>>,
    wheel: Wheel,
    due: Vec<(SlotKey, Millis)>,
    /// Answers that have not been delivered yet, by the pair that asked.
    answers: VecDeque<(SlotKey, Answer)>,
    kept: Kept,
    /// The wall clock, in milliseconds since the Unix epoch, when the monotonic clock was zero.
    unix_ms: u64,
}

#[derive(Debug)]
struct Call<K> {
    generation: u32,
    /// The pair that asked.
    asker: SlotKey,
    subrequest: Arc<Subrequest>,
    /// Counts the call among those of its method.
    _permit: Permit,
    tls: Arc<TlsConfigs>,
    candidates: Candidates,
    /// Counts the call among the sessions of its endpoint.
    pick: Option<Pick>,
    conn: Option<Conn<K>>,
    /// The role of the next attempt.
    attempt_role: Role,
    reader: ResponseReader,
    started: Millis,
    deadline: Millis,
    /// When the next attempt is made, until a connection is up: again, if there was no socket for
    /// the last one, or elsewhere.
    next_attempt_at: Option<Millis>,
    /// When the wheel looks at it next; `Millis::MAX` if it does not.
    wheel_at: Millis,
}

/// The outcome of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is under way, or will be made again.
    Pending,
    /// No address is left.
    Exhausted,
}

impl<K> Calls<K> {
    pub fn new(now: Millis, unix_ms: u64) -> Calls<K> {
        let (wheel, kept) = (Wheel::new(now), Kept::default());
        Calls { calls: Slab::new(), wheel, due: Vec::new(), answers: VecDeque::new(), kept, unix_ms }
    }

    /// Calls in flight.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// No call is in flight.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// When to look again, or `timers::NEVER`.
    #[inline]
    pub fn next_at(&self) -> Millis {
        self.wheel.next_at()
    }

    /// The next answer to deliver. They are delivered as soon as calls may have ended.
    pub fn pop_answer(&mut self) -> Option<(SlotKey, Answer)> {
        self.answers.pop_front()
    }

    /// The answer to the same question, if it has been kept.
    pub fn kept(&mut self, subrequest: &Subrequest, now: Millis) -> Option<Answer> {
        let answer = self.kept.get(&subrequest.keep?.key, now)?;
        subrequest.shared.count(CallResult::Cached);
        Some(answer)
    }

    /// Starts a call for a pair; `generation` has not been used before.
    ///
    /// # Errors
    /// The answer instead: the call cannot be made.
    pub fn start<S: Sys<Sock = K>>(
        &mut self,
        subrequest: &Arc<Subrequest>,
        asker: SlotKey,
        tls: &Arc<TlsConfigs>,
        generation: u32,
        io: &mut Io<'_, S>,
    ) -> Result<SlotKey, Answer> {
        let permit = subrequest.shared.pending.take().filter(|_| self.calls.len() < CALLS_MAX);
        let Some(permit) = permit else {
            subrequest.shared.count(CallResult::Busy);
            return Err(Answer::Busy);
        };
        // The wheel stands still while no call is in flight.
        self.wheel.advance(io.now, &mut self.due);
        self.due.clear();
        let call = Call {
            generation,
            asker,
            subrequest: Arc::clone(subrequest),
            _permit: permit,
            tls: Arc::clone(tls),
            candidates: subrequest.upstream.candidates(&Ask { seed: generation.into(), ..Ask::default() }),
            pick: None,
            conn: None,
            attempt_role: Role::FIRST_ATTEMPT,
            reader: ResponseReader::default(),
            started: io.now,
            deadline: io.now + subrequest.timeout_ms,
            next_attempt_at: None,
            wheel_at: Millis::MAX,
        };
        let key = SlotKey { slot: self.calls.insert(call) as u32, generation };
        if self.connect(key, io) == Attempt::Exhausted {
            self.remove(key, io);
            subrequest.shared.count(CallResult::Unavailable);
            return Err(Answer::Unavailable);
        }
        self.file(key);
        Ok(key)
    }

    /// The pair that asked does not wait for the answer any more.
    pub fn cancel<S: Sys<Sock = K>>(&mut self, key: SlotKey, io: &mut Io<'_, S>) {
        if let Some(call) = self.remove(key, io) {
            call.subrequest.shared.count(CallResult::Cancelled);
        }
    }

    /// An event for a connection of a call. `false`: it is stale.
    pub fn on_event<S: Sys<Sock = K>>(
        &mut self,
        (key, role): (SlotKey, Role),
        event: &sys::Event,
        input: &mut Input,
        io: &mut Io<'_, S>,
    ) -> bool {
        let Some(call) = self.call_mut(key) else { return false };
        let Some(conn) = call.conn.as_mut().filter(|conn| conn.role == role) else { return false };
        conn.on_ready(event);
        let outcome = call.drive(input, io);
        input.clear();
        match outcome {
            Outcome::Pending => {}
            Outcome::Response(response) => self.end(key, Ok(response), io),
            Outcome::Malformed => self.end(key, Err(CallResult::Malformed), io),
            Outcome::Unreachable => self.attempt(key, io),
        }
        true
    }

    /// Ends the calls whose time is over, and makes the next attempts of those that are due.
    pub fn run_timers<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(io.now, &mut due);
        for (key, at) in due.drain(..) {
            let Some(call) = self.call_mut(key).filter(|call| call.wheel_at == at) else { continue };
            call.wheel_at = Millis::MAX;
            if call.deadline <= io.now {
                self.end(key, Err(CallResult::Unavailable), io);
            } else if call.next_attempt_at.is_some_and(|at| at <= io.now) {
                self.attempt(key, io);
            } else {
                self.file(key);
            }
        }
        self.due = due;
    }

    fn call_mut(&mut self, key: SlotKey) -> Option<&mut Call<K>> {
        self.calls.get_mut(key.slot as usize).filter(|call| call.generation == key.generation)
    }

    /// Makes sure that the wheel looks at a call in time.
    fn file(&mut self, key: SlotKey) {
        let call = self.calls.get_mut(key.slot as usize).filter(|call| call.generation == key.generation);
        let Some(call) = call else { return };
        let at = call.next_attempt_at.map_or(call.deadline, |at| at.min(call.deadline));
        if at < call.wheel_at {
            call.wheel_at = call.wheel_at.min(self.wheel.file(key, at));
        }
    }

    /// The next attempt of a call that is under way.
    fn attempt<S: Sys<Sock = K>>(&mut self, key: SlotKey, io: &mut Io<'_, S>) {
        match self.connect(key, io) {
            Attempt::Pending => self.file(key),
            Attempt::Exhausted => self.end(key, Err(CallResult::Unavailable), io),
        }
    }

    /// Tries the next address.
    fn connect<S: Sys<Sock = K>>(&mut self, key: SlotKey, io: &mut Io<'_, S>) -> Attempt {
        let Some(call) = self.call_mut(key) else { return Attempt::Exhausted };
        if let Some(conn) = call.conn.take() {
            drop(conn.into_sock(io.pool));
        }
        let role = call.attempt_role;
        let token = Token::Call(key, role).pack();
        loop {
            let pause_ms = match dial(&mut call.candidates, Dial { token, role, now: io.now }, io.sys, |_, _| None) {
                Dialled::Connecting(pick, conn) | Dialled::Taken(pick, conn) => {
                    call.attempt_role = role.next_attempt();
                    (call.pick, call.conn) = (Some(pick), Some(conn));
                    call.subrequest.connect_ms
                }
                Dialled::NoSocket(_) | Dialled::Wait { .. } => SOCKET_RETRY_MS,
                Dialled::Failed(..) => continue,
                Dialled::Refuse(_) => {
                    call.next_attempt_at = None;
                    return Attempt::Exhausted;
                }
            };
            call.next_attempt_at = Some(io.now + pause_ms);
            return Attempt::Pending;
        }
    }

    /// A call is over, by a response or without one.
    fn end<S: Sys<Sock = K>>(&mut self, key: SlotKey, end: Result<CallResponse, CallResult>, io: &mut Io<'_, S>) {
        let Some(call) = self.remove(key, io) else { return };
        call.subrequest.shared.count(end.as_ref().err().copied().unwrap_or(CallResult::Answered));
        let answer = match end {
            Ok(response) => self.answered(&call, response, io.now),
            Err(CallResult::Malformed) => Answer::Malformed,
            Err(_) => Answer::Unavailable,
        };
        self.answers.push_back((call.asker, answer));
    }

    fn answered(&mut self, call: &Call<K>, response: CallResponse, now: Millis) -> Answer {
        let (response, at_unix_ms) = (Arc::new(response), self.unix_ms + now);
        call.subrequest.shared.count_time(now.saturating_sub(call.started));
        if let Some(keep) = &call.subrequest.keep {
            let until = now + keep_ms(keep, &response, at_unix_ms);
            if until > now {
                self.kept.insert(keep.key, &response, at_unix_ms, until);
            }
        }
        Answer::Response { response, at_unix_ms }
    }

    fn remove<S: Sys<Sock = K>>(&mut self, key: SlotKey, io: &mut Io<'_, S>) -> Option<Call<K>> {
        let call = self.calls.get(key.slot as usize)?;
        if call.generation != key.generation {
            return None;
        }
        let mut call = self.calls.try_remove(key.slot as usize)?;
        if let Some(conn) = call.conn.take() {
            drop(conn.into_sock(io.pool));
        }
        call.pick = None;
        Some(call)
    }
}

enum Outcome {
    Pending,
    Response(CallResponse),
    /// What was answered is no response, too large, or cut.
    Malformed,
    /// This address failed; another one may not.
    Unreachable,
}

impl<K> Call<K> {
    /// Connect, handshake, send, read: as far as readiness allows. Bounded by the size of a
    /// response.
    fn drive<S: Sys<Sock = K>>(&mut self, input: &mut Input, io: &mut Io<'_, S>) -> Outcome {
        let Some(conn) = &mut self.conn else { return Outcome::Pending };
        if conn.may_connect() {
            match conn.finish_connect(io.sys) {
                None => return Outcome::Pending,
                Some(Err(_)) => return Outcome::Unreachable,
                Some(Ok(())) => {
                    if let Some(version) = self.subrequest.upstream.rules.proxy_protocol {
                        conn.write(&[], &proxy_protocol::write(version, None), false, io);
                    }
                    let secure = self.pick.as_ref().map(Pick::endpoint).filter(|endpoint| endpoint.tls);
                    let Some(endpoint) = secure else {
                        self.send(io);
                        return self.read(input, io);
                    };
                    let tls = self.tls.connect(&self.subrequest.upstream, endpoint);
                    let Ok(tls) = tls else { return Outcome::Unreachable };
                    if conn.start_handshake(Box::new(tls), io).is_err() {
                        return Outcome::Unreachable;
                    }
                }
            }
        }
        if conn.may_handshake() {
            match conn.handshake(input, &mut false, io) {
                Handshake::Pending => return Outcome::Pending,
                Handshake::Failed(_) | Handshake::Ended(_) => return Outcome::Unreachable,
                Handshake::Established { .. } => self.send(io),
            }
        }
        if let Some(conn) = self.conn.as_mut().filter(|conn| conn.has_backlog() && conn.ready().write) {
            conn.flush(io);
        }
        self.read(input, io)
    }

    /// The connection is up: the request goes out.
    fn send<S: Sys<Sock = K>>(&mut self, io: &mut Io<'_, S>) {
        self.next_attempt_at = None;
        if let Some(conn) = &mut self.conn {
            conn.write(&[], &self.subrequest.request, false, io);
        }
    }

    fn read<S: Sys<Sock = K>>(&mut self, input: &mut Input, io: &mut Io<'_, S>) -> Outcome {
        let Some(conn) = &mut self.conn else { return Outcome::Pending };
        while conn.is_up() && conn.ready().read {
            let progress = conn.read(READ_BYTES, input, io);
            let read = if input.bytes().is_empty() { Ok(None) } else { self.reader.on_bytes(input.bytes()) };
            let read = match (read, progress) {
                (Ok(None), Progress::Ended(end)) => self.reader.on_end(end).map(Some),
                (read, _) => read,
            };
            match (read, progress) {
                (Ok(Some(response)), _) => return Outcome::Response(response),
                (Err(_), _) => return Outcome::Malformed,
                (Ok(None), Progress::Blocked) => break,
                (Ok(None), Progress::Moved(_) | Progress::Ended(_)) => {}
            }
        }
        Outcome::Pending
    }
}
