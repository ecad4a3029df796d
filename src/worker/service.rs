//! Questions of a worker to service threads, and the way back of the answers: the worker's own
//! inbox. The threads themselves are `crate::service` and `server.rs`.

use super::inbox::{Command, Outbox};
use super::token::SlotKey;
use crate::policy::ask::{Answer, Check};
use crate::service::Asker;
use std::fmt;
use std::sync::Arc;

/// The services that a worker can ask, by the number that policy knows them under.
#[derive(Debug, Default)]
pub struct Services {
    askers: Vec<Asker<Question>>,
    reply: Option<Reply>,
}

/// One question. Dropped without an answer, it answers that the service is unavailable: a service
/// that forgets a question, or panics, fails closed.
pub struct Question {
    pub check: Check,
    reply: Option<Box<dyn FnOnce(Answer) + Send>>,
}

/// The way back to the worker that asked.
#[derive(Clone)]
struct Reply(Arc<dyn Fn(SlotKey, Answer) + Send + Sync>);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl Services {
    /// `outbox` leads to the worker that will ask.
    pub fn new<L: Send + 'static>(askers: Vec<Asker<Question>>, outbox: Outbox<L>) -> Services {
        let reply = Reply(Arc::new(move |to, answer| outbox.send(Command::Answer { to, answer })));
        Services { askers, reply: Some(reply) }
    }

    /// Asks the service of a check on behalf of a pair; `false` if it is unavailable.
    pub fn ask(&self, check: &Check, from: SlotKey) -> bool {
        let asker = check.service().and_then(|number| self.askers.get(number));
        let (Some(asker), Some(Reply(reply))) = (asker, self.reply.clone()) else { return false };
        match asker.ask(Question::new(check.clone(), move |answer| reply(from, answer))) {
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
    /// `reply` gets the answer.
    pub fn new(check: Check, reply: impl FnOnce(Answer) + Send + 'static) -> Question {
        Question { check, reply: Some(Box::new(reply)) }
    }

    pub fn answer(mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            reply(answer);
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(Answer::Unavailable);
        }
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({:?})", self.check)
    }
}
