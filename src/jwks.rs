//! Key sets of token issuers (`jwks_url`), a service thread: fetches each when it is due, and when
//! a worker asks because a token names a key that is not known. Keys are swapped as a whole; a
//! fetch that fails leaves them as they are. Requests go one after the other, each with a limit on
//! time and size, so a server that stalls delays the others by that time at most.

use crate::config::Snapshot;
use crate::policy::ask::{Answer, Check};
use crate::policy::auth::jwt::{REFETCH_MS, RemoteKeys};
use crate::service::{Asker, Next, Questions};
use crate::worker::service::Question;
use crate::worker::sys::now_ms;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Questions that wait for a fetch. Beyond that: refused.
pub const QUEUE: usize = 1024;
/// How long a start or a reload waits for keys that were never fetched.
pub const FIRST_KEYS: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const RETRY_MAX_MS: u64 = 300_000;

/// A key set that is kept fresh.
struct Kept {
    remote: Arc<RemoteKeys>,
    due: Instant,
    /// In a row.
    failures: u32,
}

/// Has the key sets of a snapshot kept fresh. Waits a limited time for those that were never
/// fetched; tokens that need one are refused until it is there.
pub fn keep(asker: &Asker<Question>, snapshot: &Snapshot) {
    let (done, told) = channel();
    let ask = |remote: &Arc<RemoteKeys>| {
        let done = done.clone();
        // Ignored: nothing waits any more.
        let question = Question::new(Check::Keys(Arc::clone(remote)), move |_| {
            let _ = done.send(());
        });
        asker.ask(question).is_ok()
    };
    let asked = snapshot.key_sources.iter().filter(|remote| ask(remote)).count();
    let until = Instant::now() + FIRST_KEYS;
    for _ in 0..asked {
        if told.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
            break;
        }
    }
}

/// The key sets that are kept fresh.
#[derive(Default)]
pub struct KeySets(Vec<Kept>);

impl KeySets {
    /// The body of the thread. Runs until the last asker is dropped.
    pub fn run(&mut self, questions: &Questions<Question>) {
        let kept = &mut self.0;
        loop {
            let due = kept.iter().map(|one| one.due).min();
            let Some(next) = questions.next_until(due) else { return };
            kept.retain(|one| !one.remote.is_retired());
            if let Next::Question(question) = next {
                let answer = match &question.ask {
                    Check::Keys(remote) => asked(kept, remote),
                    _ => Answer::Unavailable,
                };
                question.answer(answer);
            }
            let now = Instant::now();
            kept.iter_mut().filter(|one| one.due <= now).for_each(Kept::refresh);
        }
    }
}

/// Fetches, unless that was done a moment ago.
fn asked(kept: &mut Vec<Kept>, remote: &Arc<RemoteKeys>) -> Answer {
    let known = kept.iter().position(|one| Arc::ptr_eq(&one.remote, remote));
    // A worker may still ask for one that a reload has replaced: it is fetched, and not kept.
    let mut passing = None;
    let one = match known.and_then(|at| kept.get_mut(at)) {
        Some(one) => one,
        None if remote.is_retired() => passing.insert(Kept::new(remote)),
        None => {
            kept.push(Kept::new(remote));
            match kept.last_mut() {
                Some(one) => one,
                None => return Answer::Unavailable,
            }
        }
    };
    if remote.may_fetch(now_ms()) {
        one.refresh();
    }
    match remote.keys().is_empty() {
        false => Answer::Status(200),
        true => Answer::Unavailable,
    }
}

impl Kept {
    /// Due when its keys, which may be those of before a reload, are too old.
    fn new(remote: &Arc<RemoteKeys>) -> Kept {
        let age_ms = remote.status(now_ms()).age_ms;
        let left = age_ms.map_or(REFETCH_MS, |age| remote.config.refresh_ms.saturating_sub(age));
        Kept { remote: Arc::clone(remote), due: Instant::now() + Duration::from_millis(left), failures: 0 }
    }

    fn refresh(&mut self) {
        let config = &self.remote.config;
        let name = &config.method;
        self.remote.begin(now_ms());
        let pause_ms = match fetch::keys(config) {
            Ok(keys) => {
                let count = keys.len();
                if self.remote.store(keys, now_ms()) {
                    ::log::info!("auth \"{name}\": {count} keys from {}", config.url);
                } else if self.failures > 0 {
                    ::log::info!("auth \"{name}\": {} has recovered", config.url);
                }
                self.failures = 0;
                config.refresh_ms
            }
            Err(error) => {
                self.remote.fail();
                let status = self.remote.status(now_ms());
                let kept = match status.age_ms {
                    None => "there are no keys yet".to_owned(),
                    Some(age) => format!("keeping {} keys, {} s old", status.keys, age / 1000),
                };
                match self.failures {
                    0 => ::log::warn!("auth \"{name}\": cannot fetch {}, {kept}: {error}", config.url),
                    _ => ::log::debug!("auth \"{name}\": still cannot fetch {}, {kept}: {error}", config.url),
                }
                self.failures = self.failures.saturating_add(1);
                let doubled = REFETCH_MS.saturating_mul(1 << (self.failures - 1).min(10));
                doubled.min(RETRY_MAX_MS).min(config.refresh_ms.max(REFETCH_MS))
            }
        };
        self.due = Instant::now() + Duration::from_millis(pause_ms);
    }
}

#[cfg(feature = "jwt")]
mod fetch {
    use crate::http;
    use crate::policy::auth::jwt::{KEYS_BYTES_MAX, Keys, Origin, RemoteConfig};
    use std::time::Duration;

    /// For everything: connecting, TLS, the head and the body.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// # Errors
    /// Why there are none, for the log.
    pub fn keys(config: &RemoteConfig) -> Result<Keys, String> {
        let roots = config.ca.as_deref().map(http::certificates_in).transpose()?;
        let roots = http::roots(roots, &config.url)?;
        let agent = http::agent(roots, None);
        let request = agent.get(&config.url).header("Accept", "application/jwk-set+json, application/json");
        let request = request.config().timeout_global(Some(PATIENCE)).build();
        let response = request.call().map_err(|e| e.to_string())?;
        let text = http::body(response, KEYS_BYTES_MAX as u64)?;
        Keys::jwks(text.as_bytes(), None, Origin::Public)
    }
}

#[cfg(not(feature = "jwt"))]
mod fetch {
    use crate::policy::auth::jwt::{Keys, RemoteConfig};

    pub fn keys(_: &RemoteConfig) -> Result<Keys, String> {
        Err("this build has no JSON Web Tokens".to_owned())
    }
}
