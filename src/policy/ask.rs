//! Questions of policy to other parties: which check of a route asks what, and what follows from
//! the answer. Asking and waiting is the shell's business: a subrequest is a call of the worker
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
    pub timeout_ms: Millis,
}

/// One check of a route, to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its position among the route's checks.
    at: usize,
    pub check: Check,
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The status of a response, or a service's verdict in the same terms.
    Status(u16),
    /// There is none: it could not be asked, or did not answer in time.
    Unavailable,
}

/// The next question of `checks`; `None` when all are answered. Fails closed.
pub(super) fn next(checks: &[Check], answered: Option<(&Question, Answer)>) -> Result<Option<Question>, Cause> {
    let at = match answered {
        None => 0,
        Some((question, Answer::Status(200..=299))) => question.at + 1,
        Some((_, Answer::Status(_))) => return Err(Cause::Forbidden),
        Some((_, Answer::Unavailable)) => return Err(Cause::DecisionTimeout),
    };
    Ok(checks.get(at).map(|check| Question { at, check: check.clone() }))
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
}
