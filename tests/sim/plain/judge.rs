//! What must hold after a schedule of plain HTTP. Each request has one of few outcomes: the
//! response that the script has for it, complete and byte by byte, in its turn; a refusal of the
//! proxy, where the script gives a reason for that status; or a response that is visibly cut, where
//! the script cuts it. What servers got is nothing but requests of the script, those that change
//! something once. Each has its record. Written independently: it shares no decision with the
//! proxy.

use super::changes::Change;
use super::client::{self, Client};
use super::message::{Framing, Message};
use super::server::{self, Served, Server};
use super::{Answer, Ask, Client as ClientPlan, Fault, How, Kind, Plan, REFUSED, RETRIED, Then, When};
use crate::oracle::{Judgement, ensure};
use crate::subject::Verdict;
use crate::world::World;
use framegate::proto::Side;
use framegate::proto::end::{Cause, Party, Phase};

/// Timeouts of the configuration.
const FIRST_BYTE_MS: u64 = 120_000;
const REQUEST_BODY_MS: u64 = 60_000;
/// Of a request head, and of all attempts to connect together.
const HANDSHAKE_MS: u64 = 10_000;
/// Of one attempt.
const CONNECT_MS: u64 = 3_000;
/// All pauses of both sides of one exchange, and all jumps of the clock.
const SLACK_MS: u64 = 10_000;

/// What a client saw of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The response of the script, complete.
    Answered,
    /// A response of the proxy.
    Refused(u16),
    /// A part of a response.
    Cut,
    Nothing,
    /// What a server has sent without a request.
    Unasked,
}

/// Everything known about one client.
struct Case<'a> {
    w: &'a World,
    plan: &'a Plan,
    script: &'a ClientPlan,
    client: &'a Client,
    ended: Vec<&'a Verdict>,
}

impl World {
    /// The whole schedule.
    pub fn judge_plain(&self, plan: &Plan, ended: &[Verdict]) -> Result<Vec<Vec<Reply>>, String> {
        for server in &self.plain.servers {
            self.judge_server(plan, server).map_err(|what| format!("server {}: {what}", server.index))?;
        }
        let (mut replies, mut lost) = (Vec::new(), 0);
        for client in &self.plain.clients {
            let index = client.index;
            let ended = ended.iter().filter(|verdict| usize::from(verdict.port) == 1000 + index).collect();
            let case = Case { w: self, plan, script: &plan.clients[index], client, ended };
            let told = case.judge(&mut lost).map_err(|what| format!("client {index}: {what}"))?;
            replies.push(told);
        }
        // A connection that ends between two requests takes one of them with it at most.
        let ends = |server: &&Server| server.ended_idle || server.unasked_at.is_some();
        let ends = self.plain.servers.iter().filter(ends).count() + self.plain.failed + self.plain.lost;
        ensure!(lost <= ends, "{lost} requests were lost, {ends} connections ended between two");
        Ok(replies)
    }

    // --- what servers got

    fn judge_server(&self, plan: &Plan, server: &Server) -> Judgement {
        let wrong = server.wrong.as_ref().or(server.reader.wrong.as_ref());
        ensure!(wrong.is_none(), "{}", wrong.map_or("", |what| what));
        for (nth, (served, message)) in server.served.iter().zip(&server.reader.messages).enumerate() {
            let (ask, answer) = served.answer(plan);
            let number = served.number();
            self.judge_request(plan, served, message).map_err(|what| format!("request {number}: {what}"))?;
            if nth + 1 == server.served.len() {
                continue;
            }
            let until_end = answer.body.framing == Framing::UntilEnd && !answer.is_bare(ask);
            let ends = answer.closes || answer.http10 || until_end || ask.kind == Kind::Upgrade;
            ensure!(message.complete, "another request behind {number}, of which a part has come");
            ensure!(served.begun, "another request behind {number}, which was not answered");
            ensure!(!ends && answer.is_sound(ask), "another request behind {number}, with {answer:?}");
            ensure!(plan.kept > 0 && !server.headed, "another request behind {number}: none are kept");
        }
        Ok(())
    }

    fn judge_request(&self, plan: &Plan, served: &Served, message: &Message) -> Judgement {
        let (ask, answer) = served.answer(plan);
        let (got, all) = (&message.content, &ask.body.content);
        ensure!(all.starts_with(got), "{} bytes of content that are not its own", got.len());
        let bad = ask.body.broken.is_some() || all.len() > plan.max_body;
        ensure!(!message.complete || got == all, "{} bytes of {} are complete", got.len(), all.len());
        ensure!(!message.complete || !bad, "a request that breaks a rule is complete");
        ensure!(!message.complete || message.trailers == ask.body.trailers(), "trailers {:?}", message.trailers);
        ensure!(got.len() <= plan.max_body, "{} bytes passed, {} may", got.len(), plan.max_body);
        let attempts = &self.plain.attempts[served.client][served.ask];
        let most = match (ask.is_repeatable(), plan.retries) {
            (false, _) => 1,
            (true, false) => 2,
            // Over a kept connection, a new one, and that of the other endpoint.
            (true, true) => 3,
        };
        ensure!(attempts.len() <= most, "it was sent {} times", attempts.len());
        if served.nth > 0 {
            let first = &self.plain.servers[attempts[served.nth - 1]];
            let before = first.served.iter().find(|before| (before.client, before.ask) == (served.client, served.ask));
            let unsaid = before.is_some_and(|before| !first.was_heard(before, &self.kernel));
            let before = &ask.answers[(served.nth - 1).min(1)];
            let late = matches!(before.fault, Some(Fault::Cut(_, How::Stall)));
            let retried = plan.retries && (before.status == RETRIED || late || unsaid);
            ensure!(unsaid || retried, "it was sent again although something was said about it");
            ensure!(first.served.len() > 1 || retried, "it was sent again although its connection was new");
        }
        let client = &self.plain.clients[served.client];
        let excused = bad || client.left.is_some() || answer.when != When::End || answer.fault.is_some();
        let server = &self.plain.servers[attempts[served.nth]];
        let ended = server.ended_inside || server.unasked_at.is_some();
        ensure!(message.complete || excused || ended || client.line.reset, "half of it has come");
        Ok(())
    }
}

impl Case<'_> {
    fn judge(&self, lost: &mut usize) -> Result<Vec<Reply>, String> {
        let reader = &self.client.reader;
        ensure!(reader.wrong.is_none(), "{}", reader.wrong.as_deref().unwrap_or_default());
        ensure!(reader.rest().is_empty() || self.client.line.reset || self.client.left.is_some(), "half a head");
        self.judge_interim()?;
        let finals: Vec<&Message> = reader.finals().collect();
        ensure!(finals.len() <= self.script.asks.len(), "more responses than requests");
        let (mut replies, mut over) = (Vec::new(), false);
        for (nth, ask) in self.script.asks.iter().enumerate() {
            let message = finals.get(nth).copied();
            ensure!(!over || message.is_none(), "a response behind the last one");
            let reply = self.reply(nth, message).map_err(|what| format!("response {nth}: {what}"))?;
            if !over {
                self.explain(nth, ask, reply, lost).map_err(|what| format!("request {nth}: {reply:?}: {what}"))?;
            }
            over |= !matches!(reply, Reply::Answered | Reply::Unasked) || message.is_some_and(Message::closes);
            replies.push(reply);
        }
        let line = &self.client.line;
        // Who was in the queue when the process stopped is not accepted any more.
        let ended = line.is_over() || line.gone || self.client.left.is_some() || self.is_drained();
        ensure!(ended, "the connection never ended");
        ensure!(!line.reset || self.may_be_reset(), "a reset for no reason");
        self.judge_records(&replies, &finals)?;
        Ok(replies)
    }

    /// Interim responses are those of the script, before the response that they belong to.
    fn judge_interim(&self) -> Judgement {
        let mut nth = 0;
        for message in &self.client.reader.messages {
            if !message.is_interim() {
                nth += 1;
                continue;
            }
            let Some(ask) = self.script.asks.get(nth) else { return Err("an interim response to no request".into()) };
            let number = message
                .field("X-Answer")
                .and_then(|number| number.strip_prefix(&format!("{}{nth}.", self.client.index)));
            let attempt = number.and_then(|attempt| attempt.parse::<usize>().ok());
            let answer = attempt.map(|attempt| &ask.answers[attempt.min(1)]);
            let known = answer.is_some_and(|answer| answer.interim.contains(&message.status()));
            ensure!(known && !ask.http10, "{:?} before response {nth}", message.head);
        }
        Ok(())
    }

    // --- the records

    /// Each request has one record, in order, which says what its client has seen.
    fn judge_records(&self, replies: &[Reply], finals: &[&Message]) -> Judgement {
        let (records, begun) = (&self.ended, self.client.begun());
        // Its last response was answered before it had left; or there was no request yet.
        let other = records.last().is_some_and(|record| {
            record.ended.cause == Cause::WriteStall || matches!(record.ended.phase, Phase::Tls | Phase::ProxyHeader)
        });
        let most = begun + usize::from(other && self.client.left.is_some());
        ensure!(records.len() <= most, "{} records of {begun} requests: {records:?}", records.len());
        let mut records = records.iter();
        for (nth, reply) in replies.iter().enumerate() {
            let message = match (reply, finals.get(nth)) {
                (Reply::Cut | Reply::Nothing, _) | (_, None) => break,
                (_, Some(message)) => message,
            };
            let Some(record) = records.next() else { return Err(format!("no record of request {nth}")) };
            self.judge_record(nth, *reply, message, record).map_err(|what| format!("{what}: {record:?}"))?;
        }
        let whole = replies.iter().all(|reply| !matches!(reply, Reply::Cut | Reply::Nothing));
        ensure!(!whole || records.next().is_none(), "a record too many: {:?}", self.ended);
        Ok(())
    }

    fn judge_record(&self, nth: usize, reply: Reply, message: &Message, record: &Verdict) -> Judgement {
        let ask = &self.script.asks[nth];
        let Verdict { ended, status, bytes, age_ms, .. } = *record;
        ensure!(status == Some(message.status()), "request {nth} got status {}", message.status());
        let fits = match reply {
            Reply::Answered if ask.kind == Kind::Upgrade => {
                ended.phase == Phase::Open
                    && (ended.cause == Cause::Close || self.client.left.is_some() || self.is_drained())
            }
            Reply::Answered | Reply::Unasked => ended.cause == Cause::Answered && ended.party == Party::Upstream,
            Reply::Refused(status) => causes_of(status).contains(&ended.cause),
            Reply::Cut | Reply::Nothing => true,
        };
        ensure!(fits, "request {nth} was {reply:?}");
        if reply == Reply::Answered && ask.kind == Kind::Plain {
            let early = ask.answers.iter().any(|answer| answer.when != When::End);
            let (sent, all) = (bytes[Side::Downstream], ask.body.content.len() as u64);
            ensure!(sent == all || early && sent < all, "request {nth} has {all} bytes of content");
            let got = message.content.len() as u64;
            ensure!(bytes[Side::Upstream] == got, "response {nth} has {got} bytes of content");
        }
        let waits = match ended.cause {
            Cause::ResponseTimeout => FIRST_BYTE_MS,
            Cause::BodyTimeout => REQUEST_BODY_MS,
            Cause::HeadTimeout => HANDSHAKE_MS,
            _ => 0,
        };
        let starved = if self.w.starved_connects > 0 { HANDSHAKE_MS } else { 0 };
        let connects = self.w.plain.lost as u64 * CONNECT_MS;
        let stall = |answer: &Answer| matches!(answer.fault, Some(Fault::Cut(_, How::Stall)));
        let retries = self.plan.retries && ask.answers.iter().any(stall);
        let again = if retries { 2 * FIRST_BYTE_MS } else { 0 };
        let most = SLACK_MS + waits + starved + connects + again;
        ensure!(age_ms < most || self.client.left.is_some(), "request {nth} took {age_ms} ms, {most} at most");
        Ok(())
    }

    /// What came for one request, which must be what the script has for it.
    fn reply(&self, nth: usize, message: Option<&Message>) -> Result<Reply, String> {
        let Some(message) = message else { return Ok(Reply::Nothing) };
        let reply = |whole| if message.complete { whole } else { Reply::Cut };
        let ask = &self.script.asks[nth];
        let Some(number) = message.field("X-Answer") else {
            ensure!(message.closes(), "a refusal that leaves the connection open: {:?}", message.head);
            ensure!(message.field("X-Request-Id").is_some(), "a response without an id");
            return Ok(reply(Reply::Refused(message.status())));
        };
        if number == "unasked" {
            return Ok(Reply::Unasked);
        }
        let attempts = &self.w.plain.attempts[self.client.index][nth];
        let (of, last) = (format!("{}{nth}", self.client.index), attempts.len().wrapping_sub(1));
        ensure!(number == format!("{of}.{last}"), "{number} for request {of}, sent {} times", attempts.len());
        let answer = &ask.answers[last.min(1)];
        self.same(ask, answer, message)?;
        if ask.kind == Kind::Upgrade {
            self.judge_words(nth)?;
        }
        Ok(reply(Reply::Answered))
    }

    /// What both sides of a WebSocket have said behind its handshake.
    fn judge_words(&self, nth: usize) -> Judgement {
        if self.client.left.is_some() || self.is_drained() {
            return Ok(());
        }
        let (index, raw) = (self.client.index, &self.client.reader.raw);
        ensure!(*raw == server::words(index), "the WebSocket said {raw:?}");
        let got = self.servers(nth).last().map(|server| &server.reader.raw);
        ensure!(got == Some(&client::words(index)), "the server heard {got:?}");
        Ok(())
    }

    fn same(&self, ask: &Ask, answer: &Answer, message: &Message) -> Judgement {
        if ask.kind == Kind::Upgrade {
            ensure!(message.status() == 101, "status {} for a handshake", message.status());
            return Ok(());
        }
        ensure!(message.status() == answer.status, "status {} instead of {}", message.status(), answer.status);
        ensure!(message.field("X-Request-Id").is_some(), "a response without an id");
        let bare = answer.is_bare(ask);
        let all: &[u8] = if bare { &[] } else { &answer.body.content };
        let got = &message.content;
        ensure!(all.starts_with(got), "{} bytes of content that are not its own", got.len());
        let framing = match answer.body.framing {
            _ if bare => Framing::None,
            Framing::Chunked if ask.http10 => Framing::UntilEnd,
            // Without a framing it ends with the connection.
            Framing::None => Framing::UntilEnd,
            framing => framing,
        };
        ensure!(message.framing == framing, "{:?} instead of {framing:?}", message.framing);
        if message.complete {
            ensure!(answer.is_sound(ask), "a response that was cut or broken is complete: {:?}", answer.fault);
            ensure!(got == all, "{} bytes of {} are complete", got.len(), all.len());
            let passing = if framing == Framing::Chunked { answer.body.trailers() } else { "" };
            ensure!(message.trailers == passing, "trailers {:?}", message.trailers);
        }
        let until_end = framing == Framing::UntilEnd;
        let must = !ask.persists() || until_end;
        let may = must || self.is_drained() || answer.when != When::End;
        ensure!(!must || message.closes(), "the connection ends, and nothing says so");
        ensure!(may || !message.closes(), "the connection ends for no reason");
        let keeps = message.field("Connection") == Some("keep-alive");
        ensure!(!ask.http10 || message.closes() || keeps, "HTTP/1.0 must hear that the connection lives on");
        Ok(())
    }

    // --- why a request has another outcome

    fn explain(&self, nth: usize, ask: &Ask, reply: Reply, lost: &mut usize) -> Judgement {
        if let Kind::Refused(kind) = ask.kind {
            let bad = &REFUSED[kind];
            let is = reply == Reply::Refused(bad.status);
            ensure!(is || self.is_excused(nth), "{} {:?} has to get {}", bad.method, bad.fields, bad.status);
            return Ok(());
        }
        let early = ask.answers.iter().any(|answer| answer.when != When::End);
        let too_long = ask.body.content.len() > self.plan.max_body;
        if too_long || ask.body.broken.is_some() {
            let status = if too_long { 413 } else { 400 };
            let both = [status, if ask.body.broken.is_some() { 400 } else { 413 }];
            let is = matches!(reply, Reply::Refused(status) if both.contains(&status));
            // It is seen only when a part of it has left.
            let (streams, excused) = (ask.body.framing == Framing::Chunked, self.is_excused(nth));
            return match reply {
                _ if is || excused || early && streams => Ok(()),
                Reply::Refused(other) if streams => self.explain_refusal(nth, ask, other, lost),
                Reply::Unasked if streams => {
                    *lost += 1;
                    Ok(())
                }
                _ => Err(format!("it has to get {status}")),
            };
        }
        match reply {
            Reply::Answered => Ok(()),
            Reply::Unasked => {
                *lost += 1;
                Ok(())
            }
            Reply::Refused(status) => self.explain_refusal(nth, ask, status, lost),
            Reply::Cut | Reply::Nothing => {
                ensure!(self.is_excused(nth), "the script has a response for it");
                Ok(())
            }
        }
    }

    /// The process stops.
    fn is_drained(&self) -> bool {
        self.w.plain.changed.has_begun(Change::Drain)
    }

    /// The servers that got this request.
    fn servers(&self, nth: usize) -> impl Iterator<Item = &Server> {
        let attempts = &self.w.plain.attempts[self.client.index][nth];
        attempts.iter().map(|server| &self.w.plain.servers[*server])
    }

    fn last_answer(&self, nth: usize) -> Option<&Answer> {
        let attempts = &self.w.plain.attempts[self.client.index][nth];
        let last = attempts.len().checked_sub(1)?;
        Some(&self.script.asks[nth].answers[last.min(1)])
    }

    /// Its client has left by then, or its connection was reset for a reason.
    fn is_excused(&self, nth: usize) -> bool {
        let left = self.client.left.is_some();
        let drained = self.is_drained() && self.w.plain.attempts[self.client.index][nth].is_empty();
        left || drained || self.is_cut(nth) || self.client.line.reset && self.may_be_reset()
    }

    /// The script cuts the response to this request.
    fn is_cut(&self, nth: usize) -> bool {
        let ask = &self.script.asks[nth];
        let bad = ask.body.broken.is_some() || ask.body.content.len() > self.plan.max_body;
        let unasked = self.servers(nth).any(|server| server.unasked_at.is_some());
        self.last_answer(nth).is_some_and(|answer| {
            let early = answer.when != When::End;
            let cut = matches!(answer.fault, Some(Fault::Cut(..) | Fault::Broken));
            cut || early && (bad || matches!(answer.then, Then::Closes { .. })) || unasked
        })
    }

    /// Something has made the worker reset the client's connection.
    fn may_be_reset(&self) -> bool {
        self.client.left.is_some() || self.is_drained() || (0..self.script.asks.len()).any(|nth| self.is_cut(nth))
    }

    fn explain_refusal(&self, nth: usize, ask: &Ask, status: u16, lost: &mut usize) -> Judgement {
        let answer = self.last_answer(nth);
        let fault = answer.and_then(|answer| answer.fault);
        let explained = match status {
            408 => self.client.left == Some(nth),
            502 => {
                let ended = self.servers(nth).any(|server| server.ended_inside);
                let unasked = self.servers(nth).any(|server| server.unasked_at.is_some());
                let risky = answer.is_some_and(|answer| answer.when != When::End);
                let bad =
                    matches!(fault, Some(Fault::Ambiguous | Fault::Garbage | Fault::Dies { .. } | Fault::Cut(..)));
                // The endpoint that was to get it next went down before it could.
                let down = self.plan.retries && self.w.plain.changed.has_begun(Change::Down);
                let stranded = down && answer.is_some_and(|answer| answer.status == RETRIED);
                if bad || stranded || unasked || ended && (!ask.is_repeatable() || fault.is_some()) || risky && ended {
                    true
                } else {
                    *lost += 1;
                    !ask.is_repeatable() || self.w.plain.failed > 0
                }
            }
            503 => self.w.starved_connects > 0 || self.is_drained(),
            504 => matches!(fault, Some(Fault::Cut(_, How::Stall))) || self.w.plain.lost > 0,
            _ => false,
        };
        ensure!(explained, "no reason for {status}: {answer:?}");
        Ok(())
    }
}

/// The causes of a refusal with this status.
fn causes_of(status: u16) -> &'static [Cause] {
    match status {
        400 => &[Cause::BadFraming, Cause::MalformedHead, Cause::BadHost],
        404 => &[Cause::NoRoute],
        408 => &[Cause::BodyTimeout, Cause::HeadTimeout],
        413 => &[Cause::BodyTooLarge],
        417 => &[Cause::Expectation],
        501 => &[Cause::UnsupportedMethod],
        502 => &[Cause::BadResponse, Cause::Eof, Cause::Reset, Cause::TlsTruncated, Cause::ConnectRefused],
        503 => &[Cause::NoSockets, Cause::Draining],
        504 => &[Cause::ResponseTimeout, Cause::ConnectTimeout],
        505 => &[Cause::HttpVersion],
        _ => &[],
    }
}
