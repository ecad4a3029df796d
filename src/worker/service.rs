//! Questions of a worker to service threads, also about files, and the way back of the answers: the
//! worker's own inbox. The threads themselves are `crate::service` and `server.rs`.

use super::files::{Ask, FileQuestion, Piece};
use super::inbox::{Command, Outbox};
use super::token::SlotKey;
use crate::policy::ask::{Answer, Check};
use crate::service::{self, Asker};
use std::fmt;
use std::sync::Arc;

/// The services that a worker can ask, by the number that policy knows them under.
#[derive(Debug, Default)]
pub struct Services {
    askers: Vec<Asker<Question>>,
    reply: Option<Reply>,
    /// Those that open and read files.
    pub files: FileThreads,
}

/// What is asked of a service on behalf of a check.
pub type Question = service::Question<Check, Answer>;

impl service::Answer for Answer {
    fn missing() -> Answer {
        Answer::Unavailable
    }
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
        Services::with_files(askers, Vec::new(), outbox)
    }

    /// The same with threads that open and read files.
    pub fn with_files<L: Send + 'static>(
        askers: Vec<Asker<Question>>,
        files: Vec<Asker<FileQuestion>>,
        outbox: Outbox<L>,
    ) -> Services {
        let files = FileThreads::new(files, outbox.clone());
        let reply = Reply(Arc::new(move |to, answer| outbox.send(Command::Answer { to, answer })));
        Services { askers, reply: Some(reply), files }
    }

    /// Asks the service of a check on behalf of a pair; `false` if it is unavailable.
    pub fn ask(&self, check: &Check, from: SlotKey) -> bool {
        let asker = check.service().and_then(|number| self.askers.get(number));
        let (Some(asker), Some(Reply(reply))) = (asker, self.reply.clone()) else { return false };
        match asker.ask(Question::new(check.clone(), move |answer| reply(from, answer))) {
            Ok(()) => true,
            Err(question) => {
                // The caller learns it by the result.
                question.withdraw();
                false
            }
        }
    }
}

/// The threads that a worker can ask.
#[derive(Debug, Default)]
pub struct FileThreads {
    askers: Vec<Asker<FileQuestion>>,
    reply: Option<FileReply>,
}

/// The way back to the worker that asked.
#[derive(Clone)]
struct FileReply(Arc<dyn Fn(SlotKey, u32, Piece) + Send + Sync>);

impl fmt::Debug for FileReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileReply")
    }
}

impl FileThreads {
    /// `outbox` leads to the worker that will ask.
    pub fn new<L: Send + 'static>(askers: Vec<Asker<FileQuestion>>, outbox: Outbox<L>) -> FileThreads {
        let reply = FileReply(Arc::new(move |to, number, piece| outbox.send(Command::Piece { to, number, piece })));
        FileThreads { askers, reply: Some(reply) }
    }

    /// Asks on behalf of a pair. What cannot be asked is answered at once, as a dropped question
    /// is.
    pub fn ask(&self, ask: Ask, from: SlotKey, number: u32) {
        let Some(FileReply(reply)) = self.reply.clone() else { return };
        let question = FileQuestion::new(ask, move |piece| reply(from, number, piece));
        let asker = self.askers.get(from.slot as usize % self.askers.len().max(1));
        drop(asker.map(|asker| asker.ask(question)));
    }
}
