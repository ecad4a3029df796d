//! Questions to service threads.

use super::common::*;
use super::rig::*;
use framegate::policy::ask::{Answer, Check};
use framegate::proto::end::{Cause, Party, Phase};
use framegate::service::{Questions, queue};
use framegate::worker::service::Question;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// A service thread, as `server.rs` starts one: a loop over its questions. What it does with each
/// comes from the test; without that it waits.
struct Service {
    thread: JoinHandle<usize>,
    acts: Sender<Act>,
    /// A question has been taken from the queue.
    asked: Receiver<()>,
}

enum Act {
    Answers(Answer),
    /// Drops the question.
    Forgets,
    Panics,
}

/// The body of the thread; how many questions there were.
fn serve(questions: &Questions<Question>, acts: &Receiver<Act>, asked: &Sender<()>) -> usize {
    let mut count = 0;
    while let Some(question) = questions.next() {
        count += 1;
        asked.send(()).unwrap();
        match acts.recv().unwrap() {
            Act::Answers(answer) => question.answer(answer),
            Act::Forgets => drop(question),
            Act::Panics => std::panic::resume_unwind(Box::new("a service panics")),
        }
    }
    count
}

/// A service with a queue of `capacity`, and a worker all of whose requests ask it.
fn start(capacity: usize, more: &str) -> (Service, Rig) {
    let (asker, questions) = queue(capacity);
    let (acts, to_do) = channel();
    let (tell, asked) = channel();
    let thread = std::thread::spawn(move || serve(&questions, &to_do, &tell));
    let mut plan = Plan::asking(vec![Check::Service(0)], more);
    plan.services.push(asker);
    (Service { thread, acts, asked }, plan.start())
}

impl Service {
    #[track_caller]
    fn is_asked(&self) {
        self.asked.recv_timeout(PATIENCE).expect("the service is asked");
    }

    fn does(&self, act: Act) {
        self.acts.send(act).unwrap();
    }
}

#[test]
fn the_answer_of_a_service_decides() {
    let (service, rig) = start(4, "");
    for (status, admits) in [(200, true), (204, true), (299, true), (199, false), (300, false), (401, false)] {
        let mut client = rig.request("/chat");
        service.is_asked();
        rig.reached_no_upstream();
        service.does(Act::Answers(Answer::Status(status)));
        if admits {
            let upstream = rig.admits(&mut client);
            drop((client, upstream));
            assert_eq!(rig.verdict().1, Phase::Open);
        } else {
            rig.refuses(client, FORBIDDEN);
        }
    }
    rig.stop();
    assert_eq!(join(service.thread), 6);
}

#[test]
fn a_service_that_does_not_answer_fails_closed_at_once() {
    let (service, rig) = start(4, "");
    for act in [Act::Answers(Answer::Unavailable), Act::Forgets] {
        service.does(act);
        rig.refuses_at_once("/chat", UNANSWERED);
    }
    rig.stop();
    assert_eq!(join(service.thread), 2);
}

#[test]
fn a_slow_service_fails_closed_at_the_deadline_and_its_answer_is_late() {
    let (service, rig) = start(4, "decision = \"400ms\"");
    let begun = Instant::now();
    let client = rig.request("/chat");
    service.is_asked();
    rig.refuses(client, UNANSWERED);
    assert_due(begun, 400);
    // The answer comes, for a slot that has the next session now.
    let client = rig.request("/chat");
    service.does(Act::Answers(Answer::Status(200)));
    service.is_asked();
    service.does(Act::Answers(Answer::Status(403)));
    rig.refuses(client, FORBIDDEN);
    rig.stop();
    assert_eq!(join(service.thread), 2);
}

#[test]
fn a_full_queue_fails_closed_at_once() {
    let (service, rig) = start(1, "");
    let mut first = rig.request("/chat");
    service.is_asked();
    let mut second = rig.request("/chat");
    eventually("two wait", || (rig.taken() == [0, 2]).then_some(()));
    // One is being answered, one waits: the third finds no room.
    rig.refuses_at_once("/chat", UNANSWERED);
    service.does(Act::Answers(Answer::Status(200)));
    rig.admits(&mut first);
    service.is_asked();
    service.does(Act::Answers(Answer::Status(200)));
    rig.admits(&mut second);
    rig.stop();
    assert_eq!(join(service.thread), 2);
}

/// The question that it held, those in its queue, and all later ones.
#[test]
fn a_service_that_panics_fails_closed_for_all_questions() {
    let (service, rig) = start(4, "");
    let clients: Vec<_> = (0..3).map(|_| rig.request("/chat")).collect();
    service.is_asked();
    eventually("three wait", || (rig.taken() == [0, 3]).then_some(()));
    service.does(Act::Panics);
    let begun = Instant::now();
    for client in clients {
        rig.refuses(client, UNANSWERED);
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    rig.refuses_at_once("/chat", UNANSWERED);
    eventually("the thread is gone", || service.thread.is_finished().then_some(()));
    assert!(service.thread.join().is_err());
    rig.stop();
}

/// No route can name a service that was never started, but a number is only a number.
#[test]
fn a_service_that_does_not_exist_fails_closed() {
    let rig = Plan::asking(vec![Check::Service(7)], "").start();
    rig.refuses_at_once("/chat", UNANSWERED);
    rig.stop();
}

#[test]
fn the_end_of_the_worker_ends_the_service_with_questions_open() {
    let (service, rig) = start(4, "");
    let clients: Vec<_> = (0..3).map(|_| rig.request("/chat")).collect();
    service.is_asked();
    eventually("three wait", || (rig.taken() == [0, 3]).then_some(()));
    rig.stop();
    for client in clients {
        assert_eq!(read_all(&client).0, b"");
    }
    // Its answers have no receiver any more, which is not an error.
    (0..3).for_each(|_| service.does(Act::Answers(Answer::Status(200))));
    assert_eq!(join(service.thread), 3);
}

#[test]
fn a_client_that_leaves_a_service_waiting_is_forgotten() {
    let (service, rig) = start(4, "");
    drop(rig.request("/chat"));
    service.is_asked();
    let (party, phase, cause, status) = rig.verdict();
    assert_eq!((party, phase, status), (Party::Downstream, Phase::Request, 0));
    assert!(matches!(cause, Cause::Eof | Cause::Reset), "{cause:?}");
    rig.gives_all_permits_back();
    let client = rig.request("/chat");
    service.does(Act::Answers(Answer::Status(200)));
    service.is_asked();
    service.does(Act::Answers(Answer::Status(401)));
    rig.refuses(client, FORBIDDEN);
    rig.stop();
}

/// The checks of a route are made in their order; the first that denies is the last.
#[test]
fn a_call_and_a_service_are_asked_one_after_the_other() {
    let callee = Callee::start();
    let (asker, questions) = queue(4);
    let mut plan = Plan::asking(vec![callee.check("/auth", 60_000), Check::Service(0)], "");
    plan.services.push(asker);
    let rig = plan.start();
    let mut client = rig.request("/chat");
    let (call, _) = callee.call();
    assert!(questions.try_next(std::time::Duration::ZERO).is_none(), "asked before its turn");
    super::answer(call, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 9, super::Then::Fin);
    let question = questions.try_next(PATIENCE).expect("the service is asked next");
    rig.reached_no_upstream();
    question.answer(Answer::Status(200));
    rig.admits(&mut client);
    let client = rig.request("/chat");
    super::answer(callee.call().0, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 9, super::Then::Fin);
    assert!(read_all(&client).0.starts_with(b"HTTP/1.1 403 "));
    rig.stop();
    assert!(questions.next().is_none(), "the service was asked though the call had denied");
}
