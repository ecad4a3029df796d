//! Service threads: whatever must block (resolving names, fetching keys, asking Redis) does so in a
//! thread of its own, off the loop. One pattern for all of them:
//!
//! - `server.rs` starts the thread, and no other file does; its body is a loop over [`Questions`].
//! - Questions wait in a bounded queue. [`Asker::ask`] never blocks: if the queue is full or the
//!   thread has ended, the asker learns at once that the service is unavailable.
//! - Answers leave through whatever the question brings along: a channel, shared state that the
//!   thread stores to, or a worker's inbox ([`crate::worker::service`]).
//! - It ends when the last [`Asker`] is dropped: [`Questions::next`] returns `None`, and the thread
//!   returns. `server.rs` joins it.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// The asking end of a service's queue.
#[derive(Debug)]
pub struct Asker<Q>(SyncSender<Q>);

impl<Q> Clone for Asker<Q> {
    fn clone(&self) -> Asker<Q> {
        Asker(self.0.clone())
    }
}

/// The thread's end of the queue.
#[derive(Debug)]
pub struct Questions<Q>(Receiver<Q>);

/// A question and the way of its answer. Dropped without one, it is answered with
/// [`Answer::missing`]: a service that forgets a question, or panics, fails closed.
pub struct Question<A, R: Answer> {
    pub ask: A,
    reply: Option<Box<dyn FnOnce(R) + Send>>,
}

/// What a question can be answered with.
pub trait Answer {
    /// That there is no answer.
    fn missing() -> Self;
}

impl<A, R: Answer> Question<A, R> {
    /// `reply` gets the answer.
    pub fn new(ask: A, reply: impl FnOnce(R) + Send + 'static) -> Question<A, R> {
        Question { ask, reply: Some(Box::new(reply)) }
    }

    pub fn answer(mut self, answer: R) {
        if let Some(reply) = self.reply.take() {
            reply(answer);
        }
    }

    /// Drops it without an answer.
    pub fn withdraw(mut self) {
        self.reply = None;
    }
}

impl<A, R: Answer> Drop for Question<A, R> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(R::missing());
        }
    }
}

impl<A: fmt::Debug, R: Answer> fmt::Debug for Question<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({:?})", self.ask)
    }
}

/// The next thing a service thread does.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<Q> {
    Question(Q),
    /// The time given to [`Questions::next_until`] has come.
    Due,
}

/// A queue of at most `capacity` questions.
pub fn queue<Q>(capacity: usize) -> (Asker<Q>, Questions<Q>) {
    let (sender, receiver) = sync_channel(capacity);
    (Asker(sender), Questions(receiver))
}

impl<Q> Asker<Q> {
    /// Puts a question into the queue. `Err` gives it back: the queue is full, or the thread has
    /// ended.
    pub fn ask(&self, question: Q) -> Result<(), Q> {
        self.0.try_send(question).map_err(|error| match error {
            TrySendError::Full(question) | TrySendError::Disconnected(question) => question,
        })
    }
}

impl<Q> Questions<Q> {
    /// Waits for a question; `None` when the thread is to end.
    pub fn next(&self) -> Option<Q> {
        self.0.recv().ok()
    }

    /// Waits for a question until `due`; `None` when the thread is to end.
    pub fn next_until(&self, due: Option<Instant>) -> Option<Next<Q>> {
        let Some(due) = due else { return self.next().map(Next::Question) };
        match self.0.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(question) => Some(Next::Question(question)),
            Err(RecvTimeoutError::Timeout) => Some(Next::Due),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// A question that is there already, or comes within `wait`.
    pub fn try_next(&self, wait: Duration) -> Option<Q> {
        self.0.recv_timeout(wait).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_question_back() {
        let (asker, questions) = queue(2);
        assert_eq!((asker.ask(1), asker.ask(2), asker.ask(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(questions.next(), Some(1));
        assert_eq!(asker.ask(4), Ok(()));
        assert_eq!(questions.next_until(Some(Instant::now())), Some(Next::Question(2)));
    }

    #[test]
    fn the_thread_ends_with_its_last_asker() {
        let (asker, questions) = queue::<u8>(1);
        let other = asker.clone();
        let thread = std::thread::spawn(move || std::iter::from_fn(|| questions.next()).collect::<Vec<_>>());
        other.ask(7).unwrap();
        drop((asker, other));
        assert_eq!(thread.join().unwrap(), [7]);
    }

    #[test]
    fn a_service_that_has_ended_is_unavailable() {
        let (asker, questions) = queue(1);
        drop(questions);
        assert_eq!(asker.ask(1), Err(1));
    }

    #[test]
    fn a_due_time_is_reported_without_a_question() {
        let (_asker, questions) = queue::<u8>(1);
        assert_eq!(questions.next_until(Some(Instant::now())), Some(Next::Due));
    }
}
