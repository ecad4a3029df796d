//! Service threads without threads: their queues, and the way of their answers to the worker, in
//! virtual time. One service for each session.

use crate::asks::{Ask, Reply, Service};
use crate::bugs::Bug;
use crate::calls::SimListener;
use crate::kernel::{Kernel, Micros, What, trace};
use crate::schedule::{SESSIONS, Script};
use framegate::policy::ask::Answer;
use framegate::service::{self, Asker, Questions};
use framegate::worker::inbox::{Command, Inbox, Outbox, Wake, inbox};
use framegate::worker::service::{Question, Services};
use std::sync::Arc;
use std::time::Duration;

/// The simulated poll looks at the inbox itself.
pub struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// All services of a schedule.
pub struct Hub {
    /// By session. `None`: it has ended, or is never asked.
    queues: Vec<Option<Questions<Question>>>,
    /// Questions under way, by session.
    open: Vec<(usize, Question)>,
    /// Answers on their way, and the inbox that they go to.
    answers: Inbox<SimListener>,
    worker: Outbox<SimListener>,
    /// How many questions each session's service was asked.
    pub asked: [usize; SESSIONS],
}

fn service_of(script: &Script, session: usize) -> Option<Service> {
    script.sessions.get(session)?.asks.iter().find_map(|ask| match ask {
        Ask::Service(service) => Some(*service),
        Ask::Call(_) => None,
    })
}

impl Hub {
    /// The services of `script`, and what the worker asks them with. `worker` is its inbox.
    pub fn open(script: &Script, worker: Outbox<SimListener>) -> (Hub, Services) {
        let (mut askers, mut queues): (Vec<Asker<Question>>, Vec<_>) = (Vec::new(), Vec::new());
        for session in 0..SESSIONS {
            let reply = service_of(script, session).map(|service| service.reply);
            // A queue of none has room for nothing.
            let (asker, questions) = service::queue(usize::from(reply != Some(Reply::Full)));
            askers.push(asker);
            queues.push(Some(questions).filter(|_| reply.is_some_and(|reply| reply != Reply::Gone)));
        }
        let (back, answers) = inbox(Arc::new(NoWake));
        (Hub { queues, open: Vec::new(), answers, worker, asked: [0; SESSIONS] }, Services::new(askers, back))
    }

    /// Takes the questions that were asked since, and sees to their answers. Whether there were
    /// any.
    pub fn take(&mut self, script: &Script, kernel: &mut Kernel) -> bool {
        let mut any = false;
        for session in 0..SESSIONS {
            let Some(service) = service_of(script, session) else { continue };
            let Some(question) = self.queues[session].as_ref().and_then(|queue| queue.try_next(Duration::ZERO)) else {
                continue;
            };
            trace!(kernel, "service of session {session} is asked");
            any = true;
            self.asked[session] += 1;
            self.open.push((session, question));
            if service.reply != Reply::Never {
                let at: Micros = kernel.now + service.delay_ms * 1_000;
                kernel.at(at, What::Answer(session));
            }
        }
        any
    }

    /// The time of a session's answer has come. Whether the worker has one to read.
    pub fn answer(&mut self, session: usize, script: &Script, kernel: &Kernel, bug: Option<Bug>) -> bool {
        let Some(at) = self.open.iter().position(|(of, _)| *of == session) else { return false };
        let (_, question) = self.open.swap_remove(at);
        let reply = service_of(script, session).map(|service| service.reply);
        trace!(kernel, "service of session {session}: {reply:?}");
        match reply {
            Some(Reply::Status(status)) => question.answer(Answer::Status(status)),
            Some(Reply::Unavailable) => question.answer(Answer::Unavailable),
            _ => drop(question),
        }
        let mut sent = false;
        while let Ok(mut command) = self.answers.try_recv() {
            if let (Some(bug), Command::Answer { to, answer }) = (bug, &mut command) {
                bug.on_answer(to, answer, kernel.in_use());
            }
            self.worker.send(command);
            sent = true;
        }
        sent
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "services, with {} questions open", self.open.len())
    }
}
