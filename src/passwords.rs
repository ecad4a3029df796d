//! Verifies passwords, a service thread: a hash takes tens of milliseconds on purpose. Results are
//! remembered for a while by a keyed hash of user and password, whose key is random and of this
//! process, so the memory holds no password and nothing to guess one by.

use crate::memory::PASSWORD_RESULTS as RESULTS;
use crate::policy::ask::{Answer, Check};
use crate::policy::auth::basic::Login;
use crate::service::Questions;
use crate::worker::service::Question;
use crate::worker::sys::RandomPool;
use aws_lc_rs::hmac;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Passwords that wait for the thread. Beyond that: 503.
pub const QUEUE: usize = 64;
/// How long a password that was right counts without being verified again,
const RIGHT: Duration = Duration::from_secs(60);
/// and one that was wrong.
const WRONG: Duration = Duration::from_secs(10);

/// The body of the thread. Runs until the last asker is dropped.
pub fn run(questions: &Questions<Question>) {
    let mut key = [0; 32];
    RandomPool::default().fill(&mut key);
    let mut results = Results::new(&key);
    while let Some(question) = questions.next() {
        let answer = match &question.ask {
            Check::Password(login) => results.answer(login, Instant::now),
            _ => Answer::Unavailable,
        };
        question.answer(answer);
    }
}

/// What was verified.
struct Results {
    key: hmac::Key,
    known: HashMap<[u8; 32], Known>,
    /// In the order in which they came.
    order: VecDeque<[u8; 32]>,
}

struct Known {
    valid: bool,
    until: Instant,
}

impl Results {
    fn new(key: &[u8]) -> Results {
        Results { key: hmac::Key::new(hmac::HMAC_SHA256, key), known: HashMap::new(), order: VecDeque::new() }
    }

    fn answer(&mut self, login: &Login, now: impl Fn() -> Instant) -> Answer {
        let id = self.id(login);
        let known = self.known.get(&id).filter(|known| known.until > now()).map(|known| known.valid);
        let valid = known.unwrap_or_else(|| {
            let valid = login.is_valid();
            self.remember(id, Known { valid, until: now() + if valid { RIGHT } else { WRONG } });
            valid
        });
        Answer::Status(if valid { 200 } else { 401 })
    }

    fn id(&self, login: &Login) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in login.parts() {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut id = [0; 32];
        id.copy_from_slice(context.sign().as_ref());
        id
    }

    fn remember(&mut self, id: [u8; 32], known: Known) {
        if self.known.insert(id, known).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > RESULTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(feature = "basic")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::auth::basic::Users;
    use std::cell::Cell;
    use std::sync::Arc;

    fn login(users: &Arc<Users>, text: &str) -> Login {
        use base64::Engine;
        let credential = base64::engine::general_purpose::STANDARD.encode(text);
        Login::parse(credential.as_bytes(), users).unwrap()
    }

    fn users(password: &str) -> Arc<Users> {
        let hash = bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap();
        Arc::new(Users::parse(&format!("a:{hash}")).unwrap())
    }

    #[test]
    fn results_are_remembered_for_their_time_and_their_file() {
        let (mut results, users) = (Results::new(&[1; 32]), users("open"));
        let (begun, passed) = (Instant::now(), Cell::new(Duration::ZERO));
        let now = || begun + passed.get();
        for (text, status, time) in [("a:open", 200, RIGHT), ("a:shut", 401, WRONG), ("b:open", 401, WRONG)] {
            passed.set(Duration::ZERO);
            let login = login(&users, text);
            assert_eq!(results.answer(&login, now), Answer::Status(status), "{text}");
            // As if it had been otherwise: the memory answers.
            let id = results.id(&login);
            results.known.get_mut(&id).unwrap().valid ^= true;
            passed.set(time - Duration::from_millis(1));
            assert_ne!(results.answer(&login, now), Answer::Status(status), "{text}");
            passed.set(time);
            assert_eq!(results.answer(&login, now), Answer::Status(status), "{text}");
        }
        passed.set(Duration::ZERO);
        assert_eq!(results.answer(&login(&self::users("shut"), "a:open"), now), Answer::Status(401), "a changed file");
        assert_eq!((results.known.len(), results.order.len()), (4, 4));
    }

    #[test]
    fn the_memory_is_bounded_and_its_oldest_goes() {
        let mut results = Results::new(&[1; 32]);
        let until = Instant::now() + RIGHT;
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            id
        };
        for n in 0..RESULTS + 5 {
            results.remember(id(n), Known { valid: true, until });
            results.remember(id(n), Known { valid: true, until });
        }
        assert_eq!((results.known.len(), results.order.len()), (RESULTS, RESULTS));
        assert!(!results.known.contains_key(&id(4)) && results.known.contains_key(&id(5)));
    }
}
