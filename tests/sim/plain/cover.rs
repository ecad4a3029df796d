//! What a schedule of plain HTTP has met.

use super::judge::Reply;
use super::message::Framing;
use super::server::Server;
use super::{Fault, How, Kind, Place, Plan, When};
use crate::coverage::Met;
use crate::world::World;

impl World {
    /// `replies`: what each client saw of each of its requests.
    pub fn cover_plain(&mut self, plan: &Plan, replies: &[Vec<Reply>]) {
        let servers = self.plain.servers.iter().flat_map(|server| cover_server(plan, server));
        let mut met: Vec<Met> = servers.collect();
        met.extend((self.plain.failed + self.plain.lost > 0).then_some(Met::NotReached));
        for (index, replies) in replies.iter().enumerate() {
            met.extend(self.cover_client(plan, index, replies));
        }
        met.into_iter().for_each(|met| self.coverage.meet(met));
    }

    fn cover_client(&self, plan: &Plan, index: usize, replies: &[Reply]) -> Vec<Met> {
        let (client, script) = (&self.plain.clients[index], &plan.clients[index]);
        let mut met = Vec::new();
        let mut note = |holds: bool, kind: Met| met.extend(holds.then_some(kind));
        note(client.was_ahead, Met::Ahead);
        let left = script.leaves.filter(|_| client.left.is_some());
        let place = left.map(|leave| match leave.place {
            Place::Sent(_) => Met::LeftAsking,
            Place::Waiting(_) => Met::LeftWaiting,
            Place::Got(_) => Met::LeftAnswered,
        });
        place.into_iter().for_each(|place| note(true, place));
        note(left.is_some_and(|leave| leave.how == How::Stall), Met::ClientStalled);
        let finals: Vec<_> = client.reader.finals().collect();
        for (nth, (ask, reply)) in script.asks.iter().zip(replies).enumerate() {
            let attempts = &self.plain.attempts[index][nth];
            let whole = *reply == Reply::Answered;
            note(whole && ask.body.framing == Framing::Chunked, Met::SentInChunks);
            note(whole && nth > 0 && ask.kind == Kind::Upgrade, Met::Upgraded);
            note(whole && ask.expects, Met::Expected);
            note(whole && ask.http10 && ask.persists(), Met::OldKept);
            note(whole && ask.is_head(), Met::OfHead);
            note(attempts.len() > 1, Met::SentAgain);
            let endpoint = |server: &usize| self.plain.servers[*server].endpoint;
            let first = attempts.first().map(endpoint);
            note(attempts.last().map(endpoint) != first, Met::SentElsewhere);
            note(*reply == Reply::Refused(413), Met::TooLong);
            note(*reply == Reply::Refused(504), Met::NeverAnswered);
            note(*reply == Reply::Unasked, Met::Crossed);
            note(*reply == Reply::Cut, Met::AnswerCut);
            note(*reply == Reply::Refused(502) && attempts.is_empty(), Met::Lost);
            note(matches!((ask.kind, reply), (Kind::Refused(_), Reply::Refused(_))), Met::Refused);
            note(ask.body.broken.is_some() && *reply == Reply::Refused(400), Met::BodyBroken);
            let Some(message) = finals.get(nth).filter(|_| whole) else { continue };
            note(message.framing == Framing::UntilEnd, Met::UntilEnd);
            note(message.framing == Framing::Chunked, Met::AnsweredInChunks);
            note(!message.trailers.is_empty(), Met::Trailers);
            note(ask.persists() && message.closes() && ask.answers[0].when != When::End, Met::Early);
        }
        met
    }
}

fn cover_server(plan: &Plan, server: &Server) -> Vec<Met> {
    let mut met = Vec::new();
    let mut note = |holds: bool, kind: Met| met.extend(holds.then_some(kind));
    let first = server.served.first().map(|served| served.client);
    note(server.served.len() > 1, Met::Reused);
    note(server.served.iter().any(|served| Some(served.client) != first), Met::Shared);
    note(server.ended_idle, Met::EndedIdle);
    let more = |answer: &super::Answer| matches!(answer.fault, Some(Fault::More(_)));
    let behind = server.served.iter().any(|served| served.begun && more(served.answer(plan).1));
    note(behind, Met::SaidMore);
    note(server.unasked_at.is_some() && !behind, Met::SaidUnasked);
    met
}
