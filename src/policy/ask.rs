//! Questions of policy to other parties: which check of a route asks what, and what follows from
//! the answer. Asking and waiting is the worker's business: a subrequest is a call of the worker
//! (`worker/calls.rs`), a service answers from a thread of its own (`service.rs`).
//!
//! No configuration key adds a check yet: forward authentication and introspection will.

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

/// One check of a route, to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The checks of the route before it, which have admitted.
    passed: Vec<Check>,
    pub check: Check,
}

impl Question {
    /// Whether these are still the checks that it was asked for. A reload may have changed them.
    fn is_of(&self, checks: &[Check]) -> bool {
        let at = self.passed.len();
        checks.starts_with(&self.passed) && checks.get(at) == Some(&self.check)
    }
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The status of a response, or a service's verdict in the same terms.
    Status(u16),
    /// There is none: it could not be asked, or did not answer in time.
    Unavailable,
}

/// The next question of `checks`; `None` when all are answered. Fails closed: an answer to a
/// question that is not asked any more counts for nothing, and the checks are made from the first
/// one on.
pub(super) fn next(checks: &[Check], answered: Option<(&Question, Answer)>) -> Result<Option<Question>, Cause> {
    let passed = match answered.filter(|(question, _)| question.is_of(checks)) {
        None => 0,
        Some((question, Answer::Status(200..=299))) => question.passed.len() + 1,
        Some((_, Answer::Status(_))) => return Err(Cause::Forbidden),
        Some((_, Answer::Unavailable)) => return Err(Cause::DecisionTimeout),
    };
    let next = checks.split_at_checked(passed).and_then(|(passed, rest)| Some((passed, rest.first()?)));
    Ok(next.map(|(passed, check)| Question { passed: passed.to_vec(), check: check.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_asked_in_order_and_fail_closed() {
        let checks = [Check::Service(7), Check::Service(8)];
        let first = next(&checks, None).unwrap().unwrap();
        assert_eq!(first.check, checks[0]);
        let second = next(&checks, Some((&first, Answer::Status(204)))).unwrap().unwrap();
        assert_eq!(second.check, checks[1]);
        assert_eq!(next(&checks, Some((&second, Answer::Status(200)))), Ok(None));
        assert_eq!(next(&checks, Some((&first, Answer::Status(401)))), Err(Cause::Forbidden));
        assert_eq!(next(&checks, Some((&first, Answer::Status(302)))), Err(Cause::Forbidden));
        assert_eq!(next(&checks, Some((&second, Answer::Unavailable))), Err(Cause::DecisionTimeout));
        assert_eq!(next(&[], None), Ok(None));
    }

    #[test]
    fn an_answer_counts_only_for_the_checks_it_was_asked_for() {
        let [a, b, c] = [7, 8, 9].map(Check::Service);
        let of = |checks: &[Check]| {
            let first = next(checks, None).unwrap().unwrap();
            let second = next(checks, Some((&first, Answer::Status(200)))).unwrap().unwrap();
            (first, second)
        };
        let (first, second) = of(&[a.clone(), b.clone()]);
        let (ok, denied) = (Answer::Status(200), Answer::Status(403));
        // More checks behind, or other ones: what was asked still stands.
        let after = [a.clone(), b.clone(), c.clone()];
        assert_eq!(next(&after, Some((&second, ok))).unwrap().unwrap().check, c);
        assert_eq!(next(&after, Some((&first, ok))).unwrap().unwrap().check, b);
        // Another check in its place, or before it: from the first one on.
        for (checks, question) in [
            (vec![b.clone()], &first),
            (vec![c.clone(), b.clone()], &second),
            (vec![b.clone(), a.clone()], &first),
            (vec![c.clone(), a.clone(), b.clone()], &second),
        ] {
            for answer in [ok, denied, Answer::Unavailable] {
                let asked = next(&checks, Some((question, answer))).unwrap().unwrap();
                assert_eq!((asked.check, asked.passed), (checks[0].clone(), Vec::new()));
            }
        }
        // Fewer: the one that was asked is gone.
        assert_eq!(next(&[a], Some((&second, denied))).unwrap().unwrap().passed, []);
        assert_eq!(next(&[], Some((&first, denied))), Ok(None));
    }
}
