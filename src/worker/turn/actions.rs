//! What a session asks for becomes system calls; what came of it, events. Also the writes of a
//! turn, which keep the list of stalled receivers. The bottom of a turn: uses no other file of it
//! but `attempt`, for the next attempt, `ask`, `files`, `refresh` and `shadow`.

use super::Turn;
use crate::log::record::{EndRecord, Record, StartRecord, field};
use crate::policy::ask::Answer;
use crate::policy::auth::redacted_target;
use crate::policy::candidates::Candidates;
use crate::policy::session::{SessionInfo, Text};
use crate::policy::{self, Facts, Plan, Policy, ServedBy, Verdict};
use crate::proto::Side;
use crate::proto::end::{Cause, End, Phase};
use crate::proto::http1;
use crate::proto::interface::{Action, Admission, Event, Refusal};
use crate::proto::relay::{OwnFrame, SessionLimits};
use crate::proto::session::Session;
use crate::proto::shadow::Opening;
use crate::text;
use crate::worker::files::Serving;
use crate::worker::pair::{Pending, SlotUse};
use crate::worker::sys::{PipeId, Sys};
use std::sync::Arc;

impl<S: Sys> Turn<'_, '_, S> {
    /// Drains the session's actions.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        // The steady state ends here: asking for an action only to hear that there is none costs
        // fifty instructions a message.
        if !self.pair.session.as_ref().is_some_and(|session| session.is_quiet()) {
            self.perform_all();
        }
    }

    #[inline(never)]
    fn perform_all(&mut self) {
        while let Some(action) = self.pair.session.as_mut().and_then(|session| session.poll_action(self.res.now)) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        self.eventful = true;
        match action {
            Action::Decide => {
                if !self.queue_request() {
                    self.decide(None);
                }
            }
            Action::Connect => {
                let event = if self.pair.serving().is_some() { Some(self.open_file()) } else { self.connect() };
                if let Some(event) = event {
                    self.on_event(event);
                }
                self.ask_file();
            }
            Action::Retry => {
                if let Some(event) = self.retry() {
                    self.on_event(event);
                }
            }
            Action::Renew => {
                if let Some(event) = self.renew() {
                    self.on_event(event);
                }
            }
            Action::Refuse { refusal, head_only } => self.refuse(&refusal, head_only),
            Action::Reply { refusal, head_only } => self.reply(&refusal, head_only),
            Action::Send(to, bytes) => self.write(to, &[], &bytes, false),
            Action::Established { subprotocol, opening } => self.established(subprotocol, opening),
            Action::SendFrame(to, frame) => self.send_frame(to, frame),
            Action::Refresh(message) => self.refresh(&message),
            Action::HalfClose(to) => {
                if let Some(conn) = &mut self.pair.conns[to] {
                    conn.owe_fin();
                }
                if self.pair.shadowed && to == Side::Upstream {
                    self.finish_shadow(false);
                }
                self.finish(to);
            }
            Action::Hangup(side) => self.hang_up(side),
            Action::Abort(side) => {
                self.flush_backlog(side);
                if side == Side::Upstream {
                    self.close_file();
                }
                if let Some(sock) = self.take_sock(side) {
                    self.res.core.sys.abort(sock);
                }
            }
            Action::Streaming => self.streaming(),
            Action::Release => self.release(),
            Action::Next { end, early } => self.next_request(end, early),
            Action::Close(end) => self.close(end),
        }
    }

    /// An event that came of an action: the actions that follow it are drained by the caller.
    fn on_event(&mut self, event: Event) {
        if let Some(session) = &mut self.pair.session {
            session.on_event(event, self.res.now);
        }
    }

    /// Asks policy about the request; with the answer to the question that it asked before.
    pub(super) fn decide(&mut self, answer: Option<Answer>) {
        let fresh: [u8; 16] = self.res.random();
        let (random, now) = (u64::from_ne_bytes(self.res.random()), self.res.now);
        let unix_ms = self.res.unix_now();
        let Some(request) = self.pair.session.as_ref().and_then(|session| session.request()) else { return };
        let Some(pending) = &mut self.pair.pending else { return };
        let core = &mut *self.res.core;
        if pending.request_id.is_empty() {
            let id = policy::request_id(&request, pending.is_trusted());
            pending.request_id = id.map_or_else(|| text::hex(&fresh), str::to_owned).into();
        }
        if pending.is_next && pending.question.is_none() {
            // Its connection is counted; the request counts anew, and begins now: before it, the
            // connection was idle.
            self.pair.permit = None;
            pending.opened_at = now;
        }
        let question = pending.question.take();
        let facts = Facts { draining: core.draining, now, unix_ms, random, ..pending.facts(&request) };
        let was_answered = answer.is_some();
        let answered = question.as_deref().zip(answer);
        if was_answered && answered.is_none() {
            // The question has been withdrawn.
            return;
        }
        let snapshot = &core.snapshot;
        let blocks = snapshot.shield.blocks.as_ref();
        let shared = Policy { routes: &snapshot.routes, sessions: &core.sessions, revoked: &snapshot.revoked, blocks };
        let client = facts.client;
        let verdict = policy::decide(&facts, &shared, answered);
        let (route, identity) = match &verdict {
            Verdict::Allow(plan) => (Some(Arc::clone(&plan.route)), plan.identity.clone()),
            Verdict::Reply(route, _) => (Some(Arc::clone(route)), None),
            Verdict::Deny(_) | Verdict::Ask(_) => (None, None),
        };
        let target = redacted_target(request.target, &core.snapshot.secret_parameters);
        let text = Text { id: pending.request_id.as_bytes(), host: request.host, target: &target };
        let mut info = SessionInfo::new(text, pending.peer, route, pending.opened_at);
        info.identity = identity;
        if blocks.is_some() {
            info.set_client(client);
        }
        self.pair.info = Some(Arc::new(info));
        if core.log.is_on() {
            let value = |name: &str| field(http1::values(&request.fields, name).next());
            (pending.origin, pending.agent) = (value("origin"), value("user-agent"));
        }
        match verdict {
            Verdict::Allow(plan) => self.admit(plan),
            Verdict::Deny(refusal) => {
                self.note_failure(Some(client), refusal.cause);
                self.on_event(Event::Refused(refusal));
            }
            Verdict::Reply(_, refusal) => self.on_event(Event::Refused(refusal)),
            Verdict::Ask(question) => {
                let check = question.check.clone();
                pending.question = Some(Box::new(question));
                match self.ask(&check) {
                    Ok(call) => {
                        if let Some(pending) = &mut self.pair.pending {
                            pending.call = call;
                        }
                    }
                    Err(answer) => self.decide(Some(answer)),
                }
            }
        }
    }

    fn admit(&mut self, plan: Plan) {
        let (candidates, file) = match plan.served_by {
            ServedBy::Upstream(candidates) => (Some(candidates), None),
            ServedBy::Files(wanted) => (None, Some(Box::new(Serving::new(wanted)))),
        };
        let announces = |candidates: &Candidates| candidates.upstream().rules.proxy_protocol.is_some();
        if candidates.as_deref().is_some_and(announces) || plan.shadow.as_deref().is_some_and(announces) {
            self.learn_destination();
        }
        let Some(pending) = &mut self.pair.pending else { return };
        let request_id = pending.request_id.clone();
        let settings = Arc::clone(&plan.route.settings);
        (pending.candidates, pending.file) = (candidates, file);
        pending.tls = Some(Arc::clone(&self.res.core.tls));
        pending.route = Some(plan.route);
        pending.captures = plan.captures;
        pending.identity = plan.identity;
        pending.shadow = plan.shadow;
        pending.plain = plan.plain;
        let shadowed = pending.shadow.is_some();
        self.pair.permit = Some(plan.permit);
        self.res.idle.on_admitted();
        let limits = SessionLimits { shared: plan.shared, random: u64::from_ne_bytes(self.res.random()) };
        let plain = plan.plain;
        self.on_event(Event::Admitted(Admission { request_id, settings, shadowed, limits, plain }));
    }

    /// What the client has connected to, for the PROXY headers of endpoints.
    fn learn_destination(&mut self) {
        let (Some(conn), Some(pending)) = (&self.pair.conns[Side::Downstream], &mut self.pair.pending) else { return };
        if pending.destination.is_none() {
            pending.destination = conn.local_addr(&mut self.res.core.sys).map(Box::new);
        }
    }

    /// The question needs no answer any more.
    fn withdraw_question(&mut self) {
        let Some(pending) = &mut self.pair.pending else { return };
        pending.question = None;
        if let Some(call) = pending.call.take() {
            let (calls, mut io) = self.res.calls();
            calls.cancel(call, &mut io);
        }
    }

    fn refuse(&mut self, refusal: &Refusal, head_only: bool) {
        if self.pair.info.is_none() {
            // The rules of HTTP refuse it: nothing says who is behind the peer.
            self.note_failure(self.pair.peer(), refusal.cause);
        }
        self.withdraw_question();
        self.leave_handshakes();
        self.await_client();
        self.leave_queue();
        let request_id = &self.request_id();
        let response = match &refusal.reply {
            Some(reply) => http1::write_reply(reply, request_id, (head_only, true)),
            None => http1::write_refusal(&http1::Refused {
                cause: refusal.cause,
                request_id,
                field: refusal.field.as_ref().map(|(name, value)| (*name, value.as_ref())),
                head_only,
            }),
        };
        // A FIN follows each refusal.
        self.write(Side::Downstream, &[], &response, true);
    }

    /// The response of the route, on a connection that lives on.
    fn reply(&mut self, refusal: &Refusal, head_only: bool) {
        let closes = self.res.core.draining;
        self.withdraw_question();
        let request_id = self.request_id();
        if let Some(reply) = &refusal.reply {
            let response = http1::write_reply(reply, &request_id, (head_only, closes));
            self.write(Side::Downstream, &[], &response, false);
        }
    }

    /// The id of the request, or a new one where it has none.
    fn request_id(&mut self) -> Box<str> {
        let id = self.pair.pending.as_ref().map(|pending| pending.request_id.clone());
        id.filter(|id| !id.is_empty()).unwrap_or_else(|| text::hex(&self.res.random::<16>()).into())
    }

    fn established(&mut self, subprotocol: Option<Box<[u8]>>, opening: Option<Box<Opening>>) {
        self.res.core.tally.opened();
        let now = self.res.now;
        let Some(mut pending) = self.pair.pending.take() else { return };
        if let Some(candidates) = pending.candidates.as_mut() {
            candidates.succeed(now);
            self.note_room();
        }
        if let Some(info) = &self.pair.info {
            let start = StartRecord {
                info: Arc::clone(info),
                at_unix_ms: self.res.unix_now(),
                endpoint: self.pair.pick.as_ref().map(|pick| Arc::clone(pick.endpoint())),
                handshake_ms: self.res.now.saturating_sub(pending.opened_at),
                subprotocol: field(subprotocol.as_deref()),
                origin: pending.origin.take(),
                agent: pending.agent.take(),
            };
            self.res.log(Record::Start(start));
        }
        let revoked = pending.revoked;
        if let Some(opening) = opening {
            self.open_shadow(pending, *opening);
        }
        if self.res.core.draining {
            self.on_event(Event::Drain);
        }
        self.check_endpoint();
        self.check_credentials(revoked);
    }

    /// From here on it is like an established session to those who end such.
    fn streaming(&mut self) {
        let Some(pending) = &mut self.pair.pending else { return };
        pending.streams = true;
        self.res.core.tally.streams += 1;
        if self.res.core.draining {
            self.on_event(Event::Drain);
        }
        self.check_endpoint();
    }

    fn send_frame(&mut self, to: Side, frame: OwnFrame) {
        // "a client MUST mask all frames that it sends": toward the upstream we are one.
        let key = (to == Side::Upstream).then(|| self.res.random());
        // A FIN follows each Close of ours.
        let last = matches!(frame, OwnFrame::Close(_));
        self.res.core.tally.pings[to] += u64::from(matches!(frame, OwnFrame::Ping(_)));
        self.write(to, &[], &frame.encode(key), last);
    }

    /// Sends the FIN that is owed once no backlog is before it.
    pub(super) fn finish(&mut self, to: Side) {
        let Some(conn) = &mut self.pair.conns[to] else { return self.on_event(Event::Finished(to)) };
        if !conn.owes_fin() || conn.has_backlog() {
            return;
        }
        self.close_notify(to);
        if self.pair.has_backlog(to) {
            return;
        }
        self.on_event(Event::Finished(to));
        if self.pair.session.as_ref().is_some_and(|session| session.is_done_with(to)) {
            // Nothing more comes from there either: closing sends a FIN as well, and frees the
            // socket at once.
            return drop(self.take_sock(to));
        }
        if let Some(conn) = &mut self.pair.conns[to] {
            conn.shutdown(&mut self.res.core.sys);
        }
    }

    /// Sends the backlog toward `to`, and what follows it.
    pub(super) fn flush(&mut self, to: Side) {
        self.flush_backlog(to);
        self.finish(to);
        self.settle();
    }

    fn flush_backlog(&mut self, to: Side) {
        let Some(conn) = &mut self.pair.conns[to] else { return };
        let before = conn.stalled_since();
        let moved = conn.flush(&mut self.res.io());
        let after = conn.stalled_since();
        self.res.stalls.update(self.key, to, before, after);
        let Some(session) = &mut self.pair.session else { return };
        if moved {
            session.on_taken(to, self.res.now);
        }
        if before.is_some() && after.is_none() {
            // The heartbeat goes on: its deadline may be closer than that of the backlog was.
            self.eventful = true;
            session.on_event(Event::Flushed(to), self.res.now);
        }
    }

    /// Sends `[first, bytes]` behind everything sent to `to`. `last`: a FIN follows at once.
    #[inline(always)]
    pub(super) fn write(&mut self, to: Side, first: &[u8], bytes: &[u8], last: bool) {
        let Some(conn) = &mut self.pair.conns[to] else { return };
        if conn.write(first, bytes, last, &mut self.res.io()) {
            self.stalled(to);
        }
        if self.pair.shadowed {
            self.shadow_sent(to, first, bytes);
        }
    }

    /// Sends what a pipe holds to `to`.
    pub(super) fn write_pipe(&mut self, to: Side, pipe: PipeId, held: usize) {
        let Some(conn) = &mut self.pair.conns[to] else { return self.res.pool.spoil_pipe(pipe) };
        if conn.splice_out(pipe, held, &mut self.res.io()) {
            self.stalled(to);
        }
    }

    /// Ends the stream toward `to` as its transport asks for.
    fn close_notify(&mut self, to: Side) {
        let Some(conn) = &mut self.pair.conns[to] else { return };
        if conn.send_close_notify(&mut self.res.io()) {
            self.stalled(to);
        }
    }

    /// `to` did not take everything: it has a backlog now, and had none before.
    #[cold]
    pub(super) fn stalled(&mut self, to: Side) {
        self.eventful = true;
        self.res.core.tally.stalled += 1;
        let since = self.pair.conns[to].as_ref().and_then(|conn| conn.stalled_since());
        self.res.stalls.update(self.key, to, None, since);
    }

    /// Closes a connection. TLS announces the end, unless the stream was cut.
    fn hang_up(&mut self, side: Side) {
        if side == Side::Upstream {
            self.report_failed_handshake();
            self.close_file();
        }
        self.close_notify(side);
        drop(self.take_sock(side));
    }

    /// Since the connection was accepted, or, for a later request on it, since that has come.
    fn age_ms(&self) -> u64 {
        let started = self.pair.info.as_ref().map(|info| info.started);
        started.map_or(0, |started| self.res.now.saturating_sub(started))
    }

    /// The upstream has answered: its connection is kept for another request, or closed.
    fn release(&mut self) {
        let kept = self.keep_link();
        if !kept {
            self.hang_up(Side::Upstream);
        }
    }

    fn count_answer(&mut self, end: End) {
        if let Some(session) = self.pair.session.as_ref().filter(|_| end.cause == Cause::Answered) {
            self.res.core.tally.answered(session.status());
        }
    }

    /// The client has been answered, and may ask again: the session of its next request begins.
    fn next_request(&mut self, end: End, early: Vec<u8>) {
        self.count_answer(end);
        if end.cause != Cause::Answered {
            self.res.core.tally.replied(end.cause);
        }
        self.hang_up(Side::Upstream);
        self.leave(end);
        let settings = Arc::clone(&self.res.core.snapshot.settings);
        let now = self.res.now;
        self.pair.pending = self.pair.pending.take().map(|pending| pending.next(now));
        // Without a request it is one of the sessions of the process and of its peer all the same.
        let listener = self.pair.pending.as_ref().map(|pending| (&pending.listener, pending.peer.ip()));
        let permit = self.res.core.sessions.take_idle().zip(listener);
        self.pair.permit = permit.and_then(|(permit, (listener, peer))| listener.stay(peer, permit, now));
        if let Some(pending) = self.pair.pending.as_mut().filter(|_| self.pair.permit.is_some()) {
            pending.idle = true;
            self.res.idle.push(self.key.slot, pending.listener.addr, now);
        }
        self.pair.session = Some(Session::next(settings, early, now));
        if self.res.core.draining || self.pair.permit.is_none() {
            self.on_event(Event::Drain);
        }
        if !self.pair.has_backlog(Side::Downstream) {
            self.on_event(Event::Flushed(Side::Downstream));
        }
    }

    /// The session's verdict: counted and logged; nothing is left open.
    pub fn close(&mut self, end: End) {
        self.pair.slot = SlotUse::Over;
        self.res.core.tally.ended(end);
        self.count_answer(end);
        if self.pair.shadowed {
            self.finish_shadow(true);
        }
        for side in Side::BOTH {
            self.hang_up(side);
        }
        self.leave(end);
        self.pair.pending = None;
    }

    /// What the session held is given back, and its end is logged.
    fn leave(&mut self, end: End) {
        self.withdraw_question();
        self.leave_handshakes();
        self.heard();
        let streams = self.pair.pending.as_ref().is_some_and(|pending| pending.streams);
        self.res.core.tally.streams -= u64::from(streams);
        self.note_violation(end);
        self.end_refresh();
        self.pair.permit = None;
        self.report_outcome(end, self.age_ms());
        self.note_room();
        self.stop_waiting();
        let info = self.pair.info.take();
        let endpoint = self.pair.pick.take().map(|pick| Arc::clone(pick.endpoint()));
        let pending = self.pair.pending.as_ref();
        let last = || pending.and_then(|pending| pending.candidates.as_ref()?.last().cloned());
        let endpoint = endpoint.or_else(last);
        let known = info.as_ref().map(|info| (info.peer, info.started));
        // The connection was idle until a later request came, which was none in the end.
        let begun = |pending: &Pending| if pending.is_next { self.res.now } else { pending.opened_at };
        let known = known.or(pending.map(|pending| (pending.peer, begun(pending))));
        // A flood must not fill the log: clients that got no response leave no line.
        let is_quiet = match end.cause {
            Cause::NoRequest => true,
            Cause::HandshakeOverload | Cause::AddressBlocked => {
                self.pair.session.as_ref().is_none_or(|session| session.status() == 0)
            }
            _ => false,
        };
        let (Some((peer, opened_at)), false) = (known, is_quiet) else { return };
        let session = self.pair.session.as_ref();
        let totals = session.map(|session| session.totals()).unwrap_or_default();
        let reached = end.phase != Phase::Request;
        let record = EndRecord {
            info,
            peer,
            at_unix_ms: self.res.unix_now(),
            end,
            endpoint: endpoint.filter(|_| reached),
            status: session.map_or(0, |session| session.status()),
            close_codes: totals.close_codes,
            age_ms: self.res.now.saturating_sub(opened_at),
            frames: totals.frames,
            bytes: totals.bytes,
        };
        self.res.log(Record::End(record));
    }
}
