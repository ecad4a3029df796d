//! Questions of a worker to service threads, and the way back of the answers: the worker's own
//! inbox. The threads themselves are `crate::service` and `server.rs`.

use super::inbox::{Command, Outbox};
use super::token::SlotKey;
use crate::policy::ask::Answer;
use crate::service::Asker;
use std::sync::Arc;

/// The services that a worker can ask, by the number that policy knows them under.
#[derive(Debug, Default)]
pub struct Services {
    askers: Vec<Asker<Question>>,
    reply: Option<Reply>,
}

/// One question. Dropped without an answer, it answers that the service is unavailable: a service
/// that forgets a question, or panics, fails closed.
#[derive(Debug)]
pub struct Question {
    from: SlotKey,
    reply: Option<Reply>,
}

/// The way back to the worker that asked.
#[derive(Clone)]
struct Reply(Arc<dyn Fn(SlotKey, Answer) + Send + Sync>);

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl Services {
    /// `outbox` leads to the worker that will ask.
    pub fn new<L: Send + 'static>(askers: Vec<Asker<Question>>, outbox: Outbox<L>) -> Services {
        let reply = Reply(Arc::new(move |to, answer| outbox.send(Command::Answer { to, answer })));
        Services { askers, reply: Some(reply) }
    }

    /// Asks a service on behalf of a pair; `false` if it is unavailable.
    pub fn ask(&self, service: usize, from: SlotKey) -> bool {
        let Some(asker) = self.askers.get(service) else { return false };
        match asker.ask(Question { from, reply: self.reply.clone() }) {
            Ok(()) => true,
            Err(mut question) => {
                // The caller learns it by the result.
                question.reply = None;
                false
            }
        }
    }
}

impl Question {
    pub fn answer(mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            (reply.0)(self.from, answer);
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            (reply.0)(self.from, Answer::Unavailable);
        }
    }
}
