//! Questions of policy to other parties: which check of a route asks what, and what follows from
//! the answer. Asking and waiting is the worker's business: a subrequest is a call of the worker
//! (`worker/calls.rs`), a service answers from a thread of its own (`service.rs`).

use super::auth::basic::Login;
use super::auth::jwt::RemoteKeys;
use super::limit::Permits;
use super::upstream::Upstream;
use crate::proto::Millis;
use crate::proto::call::{CALL_US, CallResponse, CallResult};
use crate::proto::end::Cause;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A check that a route makes of a request, beyond the rules of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// An HTTP request to an upstream. As a check of a route, a 2xx admits.
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
pub struct Subrequest {
    pub upstream: Arc<Upstream>,
    /// All of it: the head with its empty line, and the body.
    pub request: Vec<u8>,
    /// From the question to its answer.
    pub timeout_ms: Millis,
    /// One connect attempt, TLS handshake included; then the next address is tried.
    pub connect_ms: Millis,
    /// Who asks it shares this.
    pub shared: Arc<CallState>,
    /// Its answer may be used again.
    pub keep: Option<Keep>,
}

/// How long the answer to a subrequest may be used for other requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The SHA-256 of everything that the answer depends on.
    pub key: [u8; 32],
    pub rule: KeepRule,
    /// An answer that admits, and one that refuses. 0: it is not kept.
    pub admitted_ms: Millis,
    pub refused_ms: Millis,
}

/// How an answer is read to tell how long it may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepRule {
    Forward,
    Introspection,
}

impl Subrequest {
    /// One that shares nothing with others, and whose answer is not kept.
    pub fn new(upstream: Arc<Upstream>, request: Vec<u8>, timeout_ms: Millis, connect_ms: Millis) -> Subrequest {
        let shared = Arc::new(CallState::new(usize::MAX));
        Subrequest { upstream, request, timeout_ms, connect_ms, shared, keep: None }
    }
}

/// The same question: what came of others does not matter.
impl PartialEq for Subrequest {
    fn eq(&self, other: &Subrequest) -> bool {
        self.upstream == other.upstream
            && self.request == other.request
            && (self.timeout_ms, self.connect_ms) == (other.timeout_ms, other.connect_ms)
            && self.keep == other.keep
    }
}

impl Eq for Subrequest {}

/// Without the request: it holds credentials.
impl fmt::Debug for Subrequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subrequest {{ upstream: {:?}, {} bytes }}", self.upstream.name, self.request.len())
    }
}

/// What the calls of one method share, over all workers and reloads.
#[derive(Debug)]
pub struct CallState {
    /// One for each call that waits for its answer.
    pub pending: Arc<Permits>,
    /// In the order of [`CallResult::ALL`].
    results: [AtomicU64; CallResult::ALL.len()],
    /// Calls that were answered, by the bounds of [`CALL_US`], then all above them.
    times: [AtomicU64; CALL_US.len() + 1],
    time_ms: AtomicU64,
}

impl CallState {
    pub fn new(max_pending: usize) -> CallState {
        let (results, times) = Default::default();
        CallState { pending: Permits::new(max_pending), results, times, time_ms: AtomicU64::new(0) }
    }

    pub fn count(&self, result: CallResult) {
        if let Some(count) = self.results.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call was answered after this time.
    pub fn count_time(&self, ms: Millis) {
        let at = CALL_US.iter().position(|bound| ms.saturating_mul(1_000) <= *bound).unwrap_or(CALL_US.len());
        if let Some(count) = self.times.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.time_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// In the order of [`CallResult::ALL`].
    pub fn results(&self) -> [u64; CallResult::ALL.len()] {
        self.results.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// By the bounds of [`CALL_US`], and the sum in milliseconds.
    pub fn times(&self) -> ([u64; CALL_US.len() + 1], Millis) {
        (self.times.each_ref().map(|count| count.load(Ordering::Relaxed)), self.time_ms.load(Ordering::Relaxed))
    }
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
    /// A service's verdict, as the status of a response would say it.
    Status(u16),
    /// The response to a subrequest, and when it came: kept ones are older than the question.
    Response { response: Arc<CallResponse>, at_unix_ms: u64 },
    /// There is one, and it is no response or too large.
    Malformed,
    /// It was not asked: too many others wait for their answers.
    Busy,
    /// There is none: it could not be asked, or did not answer in time.
    Unavailable,
}

impl Answer {
    /// Why a request is refused where this is no answer to its question.
    pub fn failure(&self) -> Option<Cause> {
        match self {
            Answer::Status(_) | Answer::Response { .. } => None,
            Answer::Malformed => Some(Cause::DecisionFailed),
            Answer::Busy => Some(Cause::DecisionBusy),
            Answer::Unavailable => Some(Cause::DecisionTimeout),
        }
    }
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
        let Some(answer) = answers.get(check) else { return Ok(Some(check)) };
        let status = match answer {
            Answer::Status(status) => *status,
            Answer::Response { response, .. } => response.status,
            Answer::Malformed | Answer::Busy | Answer::Unavailable => 0,
        };
        if !matches!(status, 200..=299) {
            return Err(answer.failure().unwrap_or(Cause::Forbidden));
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
        for (answer, cause) in [
            (Answer::Unavailable, Cause::DecisionTimeout),
            (Answer::Malformed, Cause::DecisionFailed),
            (Answer::Busy, Cause::DecisionBusy),
        ] {
            assert_eq!(answered(&checks, &[(a.clone(), answer)]), Err(cause));
        }
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
