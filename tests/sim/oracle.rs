//! What must hold after a schedule. Compares what each peer received with what the other one sent,
//! byte by byte, and the logged end with what the peers did. Written independently: it shares no
//! decision with the proxy.

use crate::asks::{ASKS_MAX, Ask, DECISION_MS, Outlook, outlook};
use crate::beat;
use crate::credentials::Life;
use crate::fleet::QUEUE_MS;
use crate::frames::{CLOSE, close_code, read_head};
use crate::limits::Flow;
use crate::members::Group;
use crate::peers::Peer;
use crate::schedule::{Connect, End, Leg, Opening, REFUSED, Session};
use crate::subject::Verdict;
use framegate::proto::Side;
use framegate::proto::end::{Cause, Party, Phase};

/// Everything known about one session.
pub struct Case<'a> {
    /// Which one it is.
    pub index: usize,
    pub session: &'a Session,
    pub client: &'a Peer,
    /// The backend that the worker reached last.
    pub backend: Option<&'a Peer>,
    /// Backends that got a whole request.
    pub requests: usize,
    pub ended: &'a [Verdict],
    /// What became of each of its questions.
    pub asked: [Asked; ASKS_MAX],
    /// Its upstream, and the attempts to reach it.
    pub group: &'a Group,
    /// What has become of its credentials, and what was read of its limited side.
    pub life: &'a Life,
    pub flow: &'a Flow,
    /// Attempts to connect, of the whole schedule, for which there was no descriptor.
    pub starved: u64,
    /// Upstreams and callees have TLS.
    pub secure: bool,
    pub first: bool,
    /// Faults of this schedule in all.
    pub faults: u64,
}

/// How often a question was put.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Whole requests that its callee got, or questions that its service got.
    pub asked: usize,
    /// Connections that were made for it.
    pub connections: usize,
    /// A callee got something else.
    pub wrongly: bool,
}

/// What one question may take beyond its script: pauses of the callee, handshakes.
const ASK_SLACK_MS: u64 = 2_000;
/// All pauses of a paced session together.
const PAUSES_MS: u64 = 3_000;
/// A request that its backend reads a few bytes at a time, with all jumps of the clock meanwhile.
const SLOW_REQUEST_MS: u64 = 2_000;
/// A connect without a descriptor is made again after a tick or two.
const STARVED_MS: u64 = 200;

/// The timeouts of the configuration that end a session by themselves.
const IDLE_MS: u64 = 300_000;
const WRITE_STALL_MS: u64 = 60_000;
/// Of request head, response head, and all connect attempts together.
const HANDSHAKE_MS: u64 = 10_000;

/// One connect attempt.
const CONNECT_TIMEOUT_MS: u64 = 3_000;

/// Longer than all pauses of both peers and all jumps of the clock together.
pub const CLOSE_DEADLINE_MS: u64 = 5_000;

pub type Judgement = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($arg:tt)*) => {
        if !$holds {
            return Err(format!($($arg)*));
        }
    };
}

pub(crate) use ensure;

impl Case<'_> {
    pub fn judge(&self) -> Judgement {
        ensure!(self.ended.len() <= 1, "more than one verdict: {:?}", self.ended);
        self.judge_record()?;
        self.judge_requests()?;
        self.judge_questions()?;
        if self.ended.first().is_some_and(|verdict| verdict.ended.phase == Phase::ProxyHeader) {
            return self.judge_header();
        }
        if self.was_judged() && self.ended_by_questions()? {
            return Ok(());
        }
        if self.was_judged() && self.group.attempts.iter().all(|attempt| attempt.outcome != Connect::Works) {
            return self.judge_no_upstream();
        }
        match self.opening() {
            Opening::Good => self.judge_open(),
            // The one that was to get it next may not have been reached.
            opening if self.session.retry.is_some() => {
                self.judge_heads()?;
                self.judge_failed_retries(opening)
            }
            opening => self.judge_handshake(opening),
        }
    }

    /// It ended within its PROXY header: by intent, or because a RST has destroyed the rest of it.
    fn judge_header(&self) -> Judgement {
        let rst =
            matches!(self.session.opening, Opening::Leaves { rst: true, .. } | Opening::LeavesWaiting { rst: true });
        ensure!(self.client.leaves_in_header() || rst, "a whole header counts as torn");
        ensure!(self.tries() == 0 && self.client.head.is_empty(), "a torn header was answered");
        self.verdict(&[Cause::NoRequest, Cause::ProxyTruncated])
    }

    /// The record apart from the end.
    fn judge_record(&self) -> Judgement {
        let Some(Verdict { status: Some(status), codes, age_ms, ended, .. }) = self.ended.first() else {
            return Ok(());
        };
        let got = self.client.facts.status;
        ensure!(got == 0 || got == *status, "the client got status {got}, the record has {status}");
        let ends = [(Side::Downstream, Some(self.client)), (Side::Upstream, self.backend)];
        for (side, peer) in ends.into_iter().filter_map(|(side, peer)| Some((side, peer?))) {
            let seen = peer.walk.close.map(|(_, code)| if code == 0 { 1005 } else { code });
            let fits = seen.is_none() || seen == codes[side] || self.session.leg == Leg::Opaque;
            ensure!(fits, "{} got Close {seen:?}, the record has {:?}", side.name(), codes[side]);
        }
        // An end that has arrived must be handled: a deadline must not hide a session that hangs.
        let deadline = match ended.cause {
            Cause::IdleTimeout => IDLE_MS,
            // It is closed as soon as the worker knows.
            Cause::Revoked | Cause::Expired => IDLE_MS,
            Cause::EndpointDown => self.group.told_age_ms().unwrap_or(0) + CLOSE_DEADLINE_MS,
            // The first thing that a dead peer does not take may be a ping.
            Cause::WriteStall if matches!(self.session.end, End::Dead(_)) => self.heartbeat_ms() + WRITE_STALL_MS,
            Cause::WriteStall => WRITE_STALL_MS,
            Cause::HeartbeatTimeout => self.heartbeat_ms(),
            Cause::ResponseTimeout | Cause::HeadTimeout | Cause::NoSockets | Cause::ConnectTimeout => HANDSHAKE_MS,
            Cause::DecisionTimeout if self.outlook().expires.is_some() => DECISION_MS,
            _ => 0,
        };
        let close = match self.session.end {
            // A peer that broke a rule does not reply to a Close.
            End::Unanswered(_) | End::ViolationAndClose(_) => CLOSE_DEADLINE_MS,
            // It answers pings for as long as it reads.
            End::Stall(_) if self.session.beat.is_some() => CLOSE_DEADLINE_MS + IDLE_MS,
            End::Stall(_) => CLOSE_DEADLINE_MS + WRITE_STALL_MS,
            // Where something else ended the session, a Close waits behind what it did not take.
            End::Dead(_) if ended.cause != Cause::HeartbeatTimeout => CLOSE_DEADLINE_MS + WRITE_STALL_MS,
            _ => 0,
        };
        let deadline = match self.lost_credentials_at_age().filter(|_| ended.phase == Phase::Open) {
            // Who has lost them is gone as soon as the worker knows.
            Some(age) => deadline.min(age),
            None => deadline,
        };
        let lost = self.lost();
        let asks: u64 = self.session.asks.iter().map(|ask| ask.delay_ms() + ASK_SLACK_MS).sum();
        let pauses = if self.session.pace.is_some() { PAUSES_MS } else { 0 };
        let rests = if self.session.beat.is_some() { 2 * beat::REST_MS } else { 0 };
        let queue = if self.session.fleet.is_shared() { self.session.fleet.queue as u64 * QUEUE_MS } else { 0 };
        let again = self.session.retry.map_or(0, |retry| {
            let each = if retry.by == Opening::Silent { HANDSHAKE_MS } else { SLOW_REQUEST_MS };
            self.requests as u64 * each
        });
        let waits = deadline
            + again
            + close
            + queue
            + lost * CONNECT_TIMEOUT_MS
            + asks
            + pauses
            + self.limit_ms()
            + rests
            + self.starved * STARVED_MS;
        let most = CLOSE_DEADLINE_MS + waits;
        ensure!(*age_ms < most, "the session took {age_ms} ms, more than {most}, for {:?}", self.session.end);
        Ok(())
    }

    fn tries(&self) -> usize {
        self.group.attempts.len()
    }

    /// Attempts to connect that were never answered.
    fn lost(&self) -> u64 {
        self.group.attempts.iter().filter(|attempt| attempt.outcome == Connect::Lost).count() as u64
    }

    // --- questions before a session is admitted

    /// The request came whole and is valid: it is for policy to decide about it.
    fn was_judged(&self) -> bool {
        !matches!(self.session.opening, Opening::Refused(_) | Opening::Leaves { .. })
    }

    fn outlook(&self) -> Outlook {
        outlook(&self.session.asks, self.secure)
    }

    /// Each question is put in its turn, once, and only if all before it may have admitted.
    fn judge_questions(&self) -> Judgement {
        for (n, asked) in self.asked.iter().enumerate() {
            let before = self.session.asks.get(..n).unwrap_or_default();
            let in_turn = self.was_judged() && outlook(before, self.secure).admits;
            ensure!(in_turn || asked.connections + asked.asked == 0, "question {n} was put out of turn: {asked:?}");
            ensure!(!asked.wrongly, "question {n} is not the one of the route");
            ensure!(asked.asked <= 1, "question {n} was put {} times", asked.asked);
            let Some(ask) = self.session.asks.get(n).filter(|_| self.tries() > 0) else { continue };
            let answered = match ask {
                Ask::Call(call) if call.hasty => asked.connections > 0,
                Ask::Call(_) | Ask::Service(_) => asked.asked == 1,
            };
            ensure!(answered, "the upstream was tried before question {n} was answered: {asked:?}");
        }
        Ok(())
    }

    /// Whether the session was not admitted, as its questions allow.
    fn ended_by_questions(&self) -> Result<bool, String> {
        let outlook = self.outlook();
        let leaves = matches!(self.session.opening, Opening::LeavesWaiting { .. });
        let verdict = self.ended.first().filter(|verdict| verdict.ended.phase == Phase::Request);
        let (cause, status, may) = match verdict.map(|verdict| verdict.ended.cause) {
            Some(Cause::Forbidden) => {
                let passed_on =
                    outlook.refuses.filter(|refuses| *refuses == (self.client.facts.status, Cause::Forbidden));
                let status = passed_on.map_or(403, |(status, _)| status);
                (
                    Cause::Forbidden,
                    status,
                    outlook.denies || outlook.refuses.is_some_and(|(_, cause)| cause == Cause::Forbidden),
                )
            }
            Some(Cause::BadCredentials) => {
                (Cause::BadCredentials, 401, outlook.refuses == Some((401, Cause::BadCredentials)))
            }
            Some(Cause::Revoked) => (Cause::Revoked, 401, outlook.admits),
            Some(Cause::DecisionFailed) => (Cause::DecisionFailed, 503, outlook.breaks),
            Some(Cause::DecisionTimeout) => {
                // Who left long before the deadline has not waited for it; but early bytes, which
                // are not read meanwhile, may keep a FIN back.
                let late = outlook.expires.is_some() && (!leaves || self.session.parts[0].glued > 0);
                (Cause::DecisionTimeout, 504, outlook.fails || late)
            }
            _ if outlook.admits => return Ok(false),
            // It left while it waited; its RST may have overtaken the request.
            _ if leaves => {
                let overtaken = matches!(self.session.opening, Opening::LeavesWaiting { rst: true });
                ensure!(self.tries() == 0, "a session that nobody admitted tried its upstream");
                return if self.ended.is_empty() && overtaken {
                    Ok(())
                } else {
                    self.verdict(&[Cause::Reset, Cause::Eof])
                }
                .map(|()| true);
            }
            _ => return Err(format!("verdict {:?} where the questions allow {outlook:?}", self.ended)),
        };
        ensure!(may, "{cause:?} where the questions allow {outlook:?}");
        verdict.map_or(Ok(()), |verdict| self.judge_credentials(verdict.ended))?;
        ensure!(self.tries() == 0, "a session that was not admitted tried its upstream");
        if let (Cause::DecisionTimeout, Some(least), false, Some(verdict)) =
            (cause, outlook.expires, outlook.fails, verdict)
        {
            ensure!(verdict.age_ms >= least, "a deadline of {least} ms passed after {} ms", verdict.age_ms);
        }
        if leaves { self.verdict(&[cause]) } else { self.refusal(status, &[cause]) }.map(|()| true)
    }

    // --- sessions that never open

    /// No attempt to connect has worked.
    fn judge_no_upstream(&self) -> Judgement {
        let last = self.group.attempts.last().map(|attempt| attempt.outcome);
        if let Opening::LeavesWaiting { rst } = self.session.opening {
            if rst && self.ended.is_empty() {
                return Ok(());
            }
            let failed = [Cause::ConnectRefused, Cause::ConnectTimeout, Cause::NoSockets, Cause::NoEndpoint];
            let full = [Cause::UpstreamFull, Cause::QueueTimeout];
            return self.verdict(&[&[Cause::Reset, Cause::Eof], &failed[..], &full[..]].concat());
        }
        let (connects, fleet) = (self.session.connects, &self.session.fleet);
        let must = self.session.leg == Leg::Unix || fleet.works(connects) == Some(true);
        ensure!(!must, "no attempt worked, though one had to: {:?}", self.group.attempts);
        // What others hold is not known at that moment; that some held it, is.
        if let Some(full) = self.ended.first().map(|verdict| verdict.ended.cause).filter(|cause| is_full(*cause)) {
            ensure!(fleet.limit.is_some() && fleet.is_shared(), "{full:?} where nobody else is there");
            ensure!(full == Cause::UpstreamFull || fleet.queue > 0, "{full:?} without a queue");
            return self.refusal(503, &[full]);
        }
        let starved = connects == [Connect::NoSocket; 2];
        let no_socket = self.ended.iter().any(|verdict| verdict.ended.cause == Cause::NoSockets);
        let (status, cause) = match last {
            // There was none for the next attempt, until the time for all of them was over.
            Some(Connect::Lost) if no_socket => (503, Cause::NoSockets),
            Some(Connect::Lost) => (504, Cause::ConnectTimeout),
            Some(_) => (502, Cause::ConnectRefused),
            None if starved && no_socket => (503, Cause::NoSockets),
            None => (503, Cause::NoEndpoint),
        };
        // Attempts without a descriptor take time, too.
        let late = self.ended.iter().any(|verdict| verdict.age_ms >= HANDSHAKE_MS);
        let in_time = !late && self.lost() * CONNECT_TIMEOUT_MS < HANDSHAKE_MS;
        ensure!(
            !in_time || self.is_spent() || self.group.was_exhausted(),
            "{cause:?} though an endpoint was left: {:?}",
            self.group.story()
        );
        self.refusal(status, &[cause])
    }

    fn judge_heads(&self) -> Judgement {
        if let Some(backend) = self.backend {
            ensure!(backend.facts.early == 0, "the backend got {} bytes before its 101", backend.facts.early);
            ensure!(backend.head.is_empty() || backend.facts.head_ok || !ends(&backend.head), "the request is wrong");
        }
        Ok(())
    }

    fn judge_handshake(&self, opening: Opening) -> Judgement {
        self.judge_heads()?;
        match opening {
            Opening::Good => Ok(()),
            Opening::Refused(kind) => {
                ensure!(self.backend.is_none(), "a refused request made a connection");
                let bad = &REFUSED[kind].0;
                self.refusal(bad.status, &[bad.cause])
            }
            Opening::Leaves { .. } => {
                ensure!(self.backend.is_none(), "half a request made a connection");
                let Some(Verdict { ended, .. }) = self.ended.first() else { return Ok(()) };
                let end = [Cause::Eof, self.end_of(Side::Downstream)].contains(&ended.cause);
                let fits = end || matches!(ended.cause, Cause::NoRequest | Cause::Reset);
                ensure!(!self.client.leaves_in_header(), "verdict {ended:?} without a header");
                let early = ended.phase == Phase::Request || ended.phase == Phase::Tls && self.client.seal.is_some();
                ensure!(fits && early, "verdict {ended:?} on a client that left");
                Ok(())
            }
            // The RST may overtake the request.
            Opening::LeavesWaiting { rst: true } if self.ended.is_empty() => Ok(()),
            // The 101 may be faster than the FIN: then it is an ordinary session.
            Opening::LeavesWaiting { .. } if self.ended.iter().any(|v| v.ended.phase == Phase::Open) => Ok(()),
            Opening::LeavesWaiting { .. } => self.verdict(&[Cause::Reset, Cause::Eof]),
            Opening::Bad101 => {
                let got = self.backend.map_or(0, |b| b.rx.len());
                ensure!(got == 0, "the backend got {got} bytes behind a bad 101");
                self.refusal(502, &[Cause::Bad101])
            }
            Opening::Answers => {
                ensure!(self.client.head.ends_with(b"\r\n\r\nSorry."), "the answer was not passed on");
                self.refusal(403, &[Cause::UpstreamResponse])
            }
            Opening::Silent => self.refusal(504, &[Cause::ResponseTimeout]),
            Opening::Hangs => self.refusal(502, &[Cause::BadResponse, Cause::Eof, Cause::Reset]),
        }
    }

    pub fn refusal(&self, status: u16, whys: &[Cause]) -> Judgement {
        self.verdict(whys)?;
        let facts = &self.client.facts;
        ensure!(facts.status == status, "status {} instead of {status}", facts.status);
        ensure!(facts.eof, "a refused client saw no FIN behind the answer: {facts:?}");
        Ok(())
    }

    /// The cause for an end of `side`: truncation is its own cause.
    fn end_of(&self, side: Side) -> Cause {
        let peer = if side == Side::Downstream { Some(self.client) } else { self.backend };
        if peer.is_some_and(|peer| peer.facts.cut) { Cause::TlsTruncated } else { Cause::Eof }
    }

    fn verdict(&self, whys: &[Cause]) -> Judgement {
        let Some(Verdict { ended, .. }) = self.ended.first() else { return Err("no verdict".into()) };
        let end = whys.contains(&Cause::Eof) && Side::BOTH.iter().any(|side| self.end_of(*side) == ended.cause);
        ensure!(end || whys.contains(&ended.cause), "verdict {ended:?}, expected one of {whys:?}");
        Ok(())
    }

    // --- sessions that open

    fn judge_open(&self) -> Judgement {
        let Some(backend) = self.backend else { return Err("no connection to the backend".into()) };
        ensure!(backend.facts.head_ok && backend.facts.opened, "the backend saw no good request: {:?}", backend.facts);
        ensure!(backend.facts.early == 0, "the backend got {} bytes before its 101", backend.facts.early);
        let gone_early = !self.client.facts.opened && (self.urgent() || self.cut_short());
        ensure!(self.client.facts.head_ok || gone_early, "the client saw no good 101: {:?}", self.client.facts);
        self.judge_verdict()?;
        self.judge_cookie()?;
        self.judge_pings()?;
        for side in Side::BOTH {
            let (from, to) = match side {
                Side::Downstream => (self.client, backend),
                Side::Upstream => (backend, self.client),
            };
            self.stream(side, from, to).map_err(|e| format!("from {}: {e}", side.name()))?;
        }
        if self.first && !self.may_be_closed() {
            let frames = [self.client.walk.frames, backend.walk.frames];
            let enough = frames.iter().all(|n| *n >= 20);
            ensure!(enough, "only {frames:?} frames were relayed");
            let faults = self.faults - backend.facts.faults_before;
            // With TLS a peer is ahead of its wire, and cannot tell when to bring some about.
            let sealed = self.client.seal.is_some() || backend.seal.is_some();
            ensure!(faults >= 3 || sealed, "only {faults} faults");
        }
        Ok(())
    }

    fn urgent(&self) -> bool {
        self.client.facts.urgent || self.backend.is_some_and(|b| b.facts.urgent)
    }

    /// The upstream may have ended, and its RST may have destroyed the 101, before the client read
    /// it.
    fn cut_short(&self) -> bool {
        matches!(self.session.end, End::Rst(_) | End::Drop(_)) && (!self.first || self.may_be_closed())
    }

    fn judge_verdict(&self) -> Judgement {
        let Some(Verdict { ended, .. }) = self.ended.first() else { return Err("no verdict".into()) };
        // Urgent data after a 101 that was not read yet makes it a bad response.
        let bad_answer = ended.phase == Phase::Response && ended.cause == Cause::BadResponse;
        if self.urgent() && (ended.cause == Cause::UrgentData || bad_answer) {
            return Ok(());
        }
        let told = self.client.facts.urgent_told || self.backend.is_some_and(|b| b.facts.urgent_told);
        ensure!(
            !told || self.was_closed() || matches!(self.session.end, End::Stall(_)),
            "verdict {ended:?} though the worker was told of urgent data"
        );
        self.judge_down(*ended)?;
        self.judge_credentials(*ended)?;
        self.judge_limit(*ended)?;
        if self.was_closed() {
            return Ok(());
        }
        ensure!(ended.phase == Phase::Open || self.cut_short(), "verdict {ended:?} on an open session");
        let opaque = self.session.leg == Leg::Opaque;
        // A Unix socket cannot be reset: its end is EOF.
        let mild = |side| self.session.leg == Leg::Unix && side == Side::Upstream;
        let why_of = |side: Side| self.session.parts[side as usize].bad.map(|(_, cause)| cause);
        let by = |side: Side| ended.party == Party::from(side);
        let fits = match self.session.end {
            End::Close(_) | End::BothClose if opaque => {
                Side::BOTH.iter().any(|side| by(*side) && ended.cause == self.end_of(*side))
            }
            End::Close(s) | End::Unanswered(s) => by(s) && ended.cause == Cause::Close,
            End::BothClose => ended.party != Party::Proxy && ended.cause == Cause::Close,
            End::Fin(s) | End::FinInFrame(s) => by(s) && ended.cause == self.end_of(s),
            End::Drop(s) => by(s) && (ended.cause == Cause::Reset || ended.cause == self.end_of(s)),
            End::Rst(s) => by(s) && (ended.cause == Cause::Reset || mild(s) && ended.cause == Cause::Eof),
            End::Idle => ended.party == Party::Proxy && ended.cause == Cause::IdleTimeout,
            End::Violation(s) => !by(s.other()) && Some(ended.cause) == why_of(s),
            End::BothViolate => Side::BOTH.iter().any(|s| Some(ended.cause) == why_of(*s)),
            End::ViolationAndClose(s) => Some(ended.cause) == why_of(s) || by(s.other()) && ended.cause == Cause::Close,
            End::DataAfterClose(_) => matches!(ended.cause, Cause::Close | Cause::DataAfterClose),
            End::Stall(s) if by(s) => ended.cause == Cause::HeartbeatTimeout && self.interval_ms(s) > 0,
            End::Stall(_) => matches!(ended.cause, Cause::WriteStall | Cause::IdleTimeout),
            // What it has not read may be a backlog.
            End::Dead(s) if by(s) => ended.cause == Cause::HeartbeatTimeout,
            End::Dead(_) => ended.cause == Cause::WriteStall && ended.party == Party::Proxy,
        };
        ensure!(fits, "verdict {ended:?} where the script says {:?}", self.session.end);
        Ok(())
    }

    /// The interval of the heartbeat toward `side`; 0 without one.
    fn interval_ms(&self, side: Side) -> u64 {
        self.session.beat.map_or(0, |beat| beat.intervals_ms[side as usize])
    }

    /// How long a peer may be gone that the heartbeat finds.
    fn heartbeat_ms(&self) -> u64 {
        Side::BOTH.iter().map(|side| self.interval_ms(*side)).max().unwrap_or(0) + beat::TIMEOUT_MS
    }

    /// A leg without a heartbeat gets no pings; a quiet one gets them at its interval, up to an
    /// eighth early (the first one up to half), and they keep no session.
    fn judge_pings(&self) -> Judgement {
        for (side, peer) in [(Side::Downstream, Some(self.client)), (Side::Upstream, self.backend)] {
            let (Some(peer), interval) = (peer, self.interval_ms(side)) else { continue };
            let pings = u64::from(peer.heard.pings);
            ensure!(pings == 0 || interval > 0, "{pings} pings on a leg without a heartbeat");
            let Some(verdict) = self.ended.first().filter(|_| interval > 0) else { continue };
            let most = verdict.age_ms / (interval - interval / 8) + 2;
            ensure!(pings <= most, "{pings} pings in {} ms, one is due every {interval} ms", verdict.age_ms);
            if verdict.ended.cause == Cause::IdleTimeout && self.session.end == End::Idle {
                // An answer, and the tick of a timer, may take a while each time.
                let least = IDLE_MS / (interval + 2_000);
                ensure!(pings + 1 >= least, "{pings} pings in {IDLE_MS} ms, one is due every {interval} ms");
            }
        }
        Ok(())
    }

    // --- one direction

    fn stream(&self, side: Side, from: &Peer, to: &Peer) -> Judgement {
        let log = from.log();
        let got = &to.rx[..];
        let same = common(log, got);
        if self.session.leg == Leg::Opaque {
            ensure!(same == got.len(), "byte {same} of {} differs or was never sent", got.len());
            let whole = same == log.len() || !self.must_be_whole(side);
            ensure!(whole, "{same} of {} bytes came out", log.len());
            return self.ended_well(from, to);
        }
        // The reply to the proxy's own Close is consumed.
        let idle = matches!(self.session.end, End::Idle | End::Dead(_));
        let answer = from.facts.answered_at.filter(|_| idle || self.was_closed());
        let bad = self.session.parts[side as usize].bad.filter(|_| from.facts.answered_at.is_none());
        let story =
            bad.map_or_else(|| through_close(log), |(at, _)| at.min(log.len())).min(answer.unwrap_or(usize::MAX));
        let cut = same.min(story);
        let mut passed = cut;
        if got.len() > cut {
            self.proxy_close(side, got, cut, to)?;
            passed = boundary(got, cut);
        }
        self.judge_flow(side, log, passed)?;
        if self.ended.iter().any(|verdict| verdict.ended.cause == Cause::Revoked) && self.must_say_why(to) {
            self.judge_last_words(side, &log[..story.min(log.len())], passed)?;
        }
        if self.must_be_whole(side) {
            let carry = if matches!(self.session.end, End::FinInFrame(s) if s == side) { 13 } else { 0 };
            ensure!(passed + carry >= story, "{passed} of {story} bytes came out");
        }
        let closes = matches!(self.session.end, End::Violation(_) | End::BothViolate | End::Idle)
            || self.session.end == End::Dead(side);
        // A Close of ours is not needed any more where the peer's own leaves first.
        let own = self.session.end == End::BothClose || self.was_closed() && to.walk.close.is_some();
        let crossed = own && passed == story;
        // A frame that never comes to its end has no place for one behind it: its source has left,
        // or a limit holds it back.
        let torn = boundary(got, got.len()) < got.len() && (from.left() || self.is_held(side));
        if (closes || self.must_say_why(to)) && !self.urgent() && !crossed && !torn {
            ensure!(got.len() > passed, "no Close from the proxy");
        }
        self.ended_well(from, to)
    }

    /// Every session ends on both sides; a peer that stopped reading does not see it.
    fn ended_well(&self, from: &Peer, to: &Peer) -> Judgement {
        let part = &self.session.parts[if to.side == Some(Side::Downstream) { 0 } else { 1 }];
        let ended = to.facts.eof || to.facts.reset || part.deaf_after.is_some() || to.heard.dead || to.left();
        ensure!(ended, "{:?} never saw the end: {:?}", to.side, to.facts);
        // A deadline does not wait for room in a socket; a RST may overtake a close_notify;
        // truncation is forwarded.
        let rst = matches!(self.session.end, End::Rst(_) | End::Drop(_));
        let hurried = rst
            || self.may_be_closed()
            || matches!(self.session.end, End::Unanswered(_) | End::Stall(_) | End::ViolationAndClose(_));
        let told = to.seal.is_none() || !to.facts.eof || to.broken || to.facts.notified || hurried || from.facts.cut;
        ensure!(told, "{:?} saw a cut where the script says {:?}", to.side, self.session.end);
        Ok(())
    }

    /// Whether everything sent in this direction must have been received.
    fn must_be_whole(&self, side: Side) -> bool {
        let other_end = match self.session.end {
            End::Close(_) | End::BothClose | End::Fin(_) | End::FinInFrame(_) | End::Idle => true,
            End::Unanswered(s) | End::DataAfterClose(s) | End::Violation(s) | End::Dead(s) => s == side,
            _ => false,
        };
        other_end && !self.urgent() && !self.may_be_closed()
    }

    /// What does not come from the other peer must be one Close of the proxy, at a frame boundary.
    fn proxy_close(&self, side: Side, got: &[u8], same: usize, to: &Peer) -> Judgement {
        let at = boundary(got, same);
        let rest = &got[at..];
        let deaf = self.session.parts[to.side.map_or(0, |s| s as usize)].deaf_after.is_some();
        let torn = to.facts.reset || to.left() || to.heard.dead || deaf;
        let Some(head) = read_head(rest) else {
            ensure!(torn, "half a header of the proxy's at {at}");
            return Ok(());
        };
        let whole = rest.len() as u64 >= head.total();
        ensure!(
            head.first == 0x80 | CLOSE,
            "byte {same}: neither what was sent nor a Close at {at}: {:#x}",
            head.first
        );
        ensure!(whole || torn, "half a Close at {at}");
        ensure!(rest.len() as u64 <= head.total(), "something follows the proxy's Close at {at}");
        let masked = side == Side::Downstream;
        ensure!(head.mask.is_some() == masked, "the mask bit of the proxy's Close is wrong");
        if whole {
            let code = close_code(rest, head);
            ensure!(
                self.code_fits(side, code),
                "Close {code} from the proxy where the script says {:?}",
                self.session.end
            );
        }
        Ok(())
    }

    /// The code that the receiver of the direction from `side` may get.
    fn code_fits(&self, side: Side, code: u16) -> bool {
        // A client whose upstream breaks the protocol gets 1014, an upstream whose client does
        // 1001.
        let other = if side == Side::Upstream { 1014 } else { 1001 };
        if self.urgent() && (code == other || code == 1008) || self.is_code_of_ours(side, code) {
            return true;
        }
        let own = |s: Side| {
            self.session.parts[s as usize].bad.map(|(_, cause)| if cause == Cause::FrameTooBig { 1009 } else { 1002 })
        };
        match self.session.end {
            End::Violation(s) if s == side => code == other,
            End::Violation(s) => Some(code) == own(s),
            End::BothViolate => code == other || Some(code) == own(side.other()),
            End::ViolationAndClose(_) => code == other || Some(code) == own(side.other()),
            End::Idle | End::Stall(_) | End::Dead(_) => code == 1001,
            End::DataAfterClose(s) => s == side.other() && code == 1002,
            _ => false,
        }
    }
}

/// There was no room at an endpoint.
fn is_full(cause: Cause) -> bool {
    matches!(cause, Cause::UpstreamFull | Cause::QueueTimeout)
}

/// The end of the first Close of `log`, or of all of it: what may be forwarded without a violation.
fn through_close(log: &[u8]) -> usize {
    let mut at = 0;
    while let Some(head) = read_head(&log[at..]) {
        let next = at + head.total() as usize;
        if next > log.len() {
            break;
        }
        if head.opcode() == CLOSE {
            return next;
        }
        at = next;
    }
    log.len()
}

fn ends(head: &[u8]) -> bool {
    head.ends_with(b"\r\n\r\n")
}

fn common(a: &[u8], b: &[u8]) -> usize {
    if a.len() >= b.len() && a[..b.len()] == *b {
        return b.len();
    }
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The last frame boundary of `stream` at or before `limit`.
pub fn boundary(stream: &[u8], limit: usize) -> usize {
    let mut at = 0;
    while let Some(head) = read_head(&stream[at..]) {
        let next = head.total().saturating_add(at as u64);
        if next > limit as u64 {
            break;
        }
        at = next as usize;
    }
    at
}
