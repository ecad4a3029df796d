//! Questions of policy to other parties: which check of a route asks what, and what follows from
//! the answer. Asking and waiting is the worker's business: a subrequest is a call of the worker
//! (`worker/calls.rs`), a service answers from a thread of its own (`service.rs`).

use super::auth::basic::Login;
use super::auth::jwt::RemoteKeys;
use super::upstream::Upstream;
use crate::proto::Millis;
use crate::proto::end::Cause;
use std::sync::Arc;

/// A check that a route makes of a request, beyond the rules of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// An HTTP request to an upstream; a 2xx admits.
    Subrequest(Arc<Subrequest>),
    /// A question to a service thread, by the number that it was registered under.
    Service(usize),
    /// A key set must be fetched again: a token names a key that is not in it.
    Keys(Arc<RemoteKeys>),
    /// A password must be verified.
    Password(Arc<Login>),
}

/// The number of the service that fetches key sets.
const KEYS: usize = 0;
/// And of that which verifies passwords.
const PASSWORDS: usize = 1;

impl Check {
    /// The number of the service that answers it; `None` if it is none.
    pub fn service(&self) -> Option<usize> {
        match self {
            Check::Subrequest(_) => None,
            Check::Service(number) => Some(*number),
            Check::Keys(_) => Some(KEYS),
            Check::Password(_) => Some(PASSWORDS),
        }
    }
}

/// A request of our own that decides about a client's.
#[derive(Debug, PartialEq, Eq)]
pub struct Subrequest {
    pub upstream: Arc<Upstream>,
    /// The whole request head, empty line included.
    pub head: Vec<u8>,
    /// From the question to its answer.
    pub timeout_ms: Millis,
    /// One connect attempt, TLS handshake included; then the next address is tried.
    pub connect_ms: Millis,
}

/// One check, to be asked, with the answers that the request has got before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    answers: Answers,
    pub check: Check,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The status of a response, or a service's verdict in the same terms.
    Status(u16),
    /// There is none: it could not be asked, or did not answer in time.
    Unavailable,
}

/// The answers that a request has got, by what was asked. A check that a reload has changed is not
/// equal to the one that was asked, and is asked: everything fails closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers(Vec<(Check, Answer)>);

impl Answers {
    /// Those that came with `answered`: the question that was asked before, and its answer.
    pub fn with(answered: Option<(&Question, Answer)>) -> Answers {
        let Some((question, answer)) = answered else { return Answers::default() };
        let mut answers = question.answers.clone();
        answers.0.push((question.check.clone(), answer));
        answers
    }

    pub fn get(&self, check: &Check) -> Option<&Answer> {
        self.0.iter().find(|(asked, _)| asked == check).map(|(_, answer)| answer)
    }

    /// The question that asks this check next.
    pub fn question(&self, check: Check) -> Question {
        Question { answers: self.clone(), check }
    }
}

/// The first of `checks` that has no answer; `None` when all have admitted.
pub(super) fn next<'a>(checks: &'a [Check], answers: &Answers) -> Result<Option<&'a Check>, Cause> {
    for check in checks {
        match answers.get(check) {
            None => return Ok(Some(check)),
            Some(Answer::Status(200..=299)) => {}
            Some(Answer::Status(_)) => return Err(Cause::Forbidden),
            Some(Answer::Unavailable) => return Err(Cause::DecisionTimeout),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from these answers to `checks`, asked one after the other.
    fn answered(checks: &[Check], answers: &[(Check, Answer)]) -> Result<Option<Check>, Cause> {
        let mut so_far = Answers::default();
        for (check, answer) in answers {
            so_far = Answers::with(Some((&so_far.question(check.clone()), answer.clone())));
        }
        next(checks, &so_far).map(|check| check.cloned())
    }

    #[test]
    fn checks_are_asked_in_order_and_fail_closed() {
        let [a, b] = [7, 8].map(Check::Service);
        let checks = [a.clone(), b.clone()];
        let status = |check: &Check, status| (check.clone(), Answer::Status(status));
        assert_eq!(answered(&checks, &[]), Ok(Some(a.clone())));
        assert_eq!(answered(&checks, &[status(&a, 204)]), Ok(Some(b.clone())));
        assert_eq!(answered(&checks, &[status(&a, 204), status(&b, 200)]), Ok(None));
        for denied in [101, 199, 300, 302, 401, 500] {
            assert_eq!(answered(&checks, &[status(&a, denied)]), Err(Cause::Forbidden), "{denied}");
            assert_eq!(answered(&checks, &[status(&a, 200), status(&b, denied)]), Err(Cause::Forbidden), "{denied}");
        }
        assert_eq!(answered(&checks, &[(a, Answer::Unavailable)]), Err(Cause::DecisionTimeout));
        assert_eq!(answered(&[], &[]), Ok(None));
    }

    #[test]
    fn an_answer_counts_only_for_the_check_it_was_asked_for() {
        let [a, b, c] = [7, 8, 9].map(Check::Service);
        for answer in [Answer::Status(200), Answer::Status(403), Answer::Unavailable] {
            // A reload has put another check in its place, or before it.
            assert_eq!(answered(std::slice::from_ref(&b), &[(a.clone(), answer.clone())]), Ok(Some(b.clone())));
            let before = [c.clone(), a.clone()];
            assert_eq!(answered(&before, &[(a.clone(), answer.clone())]), Ok(Some(c.clone())));
            // It is gone.
            assert_eq!(answered(&[], &[(a.clone(), answer)]), Ok(None));
        }
        // What still stands counts.
        let admitted = (a.clone(), Answer::Status(200));
        assert_eq!(answered(&[a, c.clone()], &[admitted]), Ok(Some(c)));
    }
}
