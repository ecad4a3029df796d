//! The service threads of a schedule, without threads: questions are taken after each iteration of
//! the loop and answered when virtual time has come, through the worker's inbox.

use crate::callee::DELAY_MAX;
use crate::faults::Fault;
use crate::kernel::{Micros, What};
use crate::schedule::{Decision, Reply};
use crate::world::{world, world_if_free};
use framegate::policy::ask::Answer;
use framegate::service::{Asker, Questions, queue};
use framegate::worker::inbox::Wake;
use framegate::worker::service::Question;
use std::time::Duration;

/// One service for each session: a question does not say who asks.
pub const SERVICES: usize = 4;

/// Wakes the simulated poll.
pub struct SimWaker;

impl Wake for SimWaker {
    fn wake(&self) {
        world_if_free(|w| w.woken = true);
    }
}

#[derive(Default)]
pub struct SimServices {
    /// `None`: the thread has ended.
    queues: Vec<Option<Questions<Question>>>,
    waiting: Vec<(Micros, Answer, Question)>,
    /// Never answered.
    kept: Vec<Question>,
}

impl SimServices {
    /// The services of the schedule that has begun, and the worker's ends of their queues.
    pub fn start() -> (SimServices, Vec<Asker<Question>>) {
        let reply = |index: usize| world(|w| w.script.sessions.get(index).map(|session| session.decision));
        let (mut services, mut askers) = (SimServices::default(), Vec::new());
        for index in 0..SERVICES {
            // Without room for a question the queue is full.
            let full = matches!(reply(index), Some(Decision::Service(Reply::Refused)));
            let (asker, questions) = queue(if full { 0 } else { 4 });
            askers.push(asker);
            let ended = matches!(reply(index), Some(Decision::Service(Reply::Lost)));
            services.queues.push(Some(questions).filter(|_| !ended));
        }
        (services, askers)
    }

    /// Takes questions and gives the answers that are due.
    pub fn run(&mut self) {
        for index in 0..self.queues.len() {
            while let Some(question) = self.queues[index].as_ref().and_then(|queue| queue.try_next(Duration::ZERO)) {
                self.take(index, question);
            }
        }
        let now = world(|w| {
            w.kernel.service_due = false;
            w.kernel.now
        });
        let (due, waiting) = self.waiting.drain(..).partition::<Vec<_>, _>(|(at, ..)| *at <= now);
        self.waiting = waiting;
        for (_, answer, question) in due {
            question.answer(answer);
        }
    }

    fn take(&mut self, index: usize, question: Question) {
        let Decision::Service(reply) = world(|w| w.script.sessions[index].decision) else {
            panic!("session {index} asks a service that its route does not have")
        };
        let answer = match reply {
            Reply::Admits => Answer::Status(200),
            Reply::Denies => Answer::Status(403),
            Reply::Silent => return self.kept.push(question),
            // It panics over the question.
            Reply::Breaks => return drop(question),
            Reply::Refused | Reply::Lost => panic!("a service that cannot be asked was asked"),
        };
        let at = world(|w| {
            w.kernel.faults.note(Fault::Asked);
            let most = w.kernel.rng.pick(&[1, 1_000, DELAY_MAX]);
            let at = w.kernel.now + w.kernel.rng.below(most);
            w.kernel.at(at, What::Service);
            at
        });
        self.waiting.push((at, answer, question));
    }
}
