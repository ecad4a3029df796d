//! What the thread does each interval: which clients are due, in which batches, what follows from
//! the answers, and what happens when there are none. The store is a parameter, time an argument.
//!
//! A client is exchanged when it has changed here, and else at a pace that doubles from the
//! interval up to [`QUIET_INTERVALS`] of them. Redis is up after a round without a failure; when
//! it is not, rounds follow at growing pauses. What others had is believed for `host_timeout`
//! after a client was last exchanged; then it counts here alone.

use super::Status;
use crate::config::Redis;
use crate::memory::{SHARED_KEY_BYTES, SHARED_KEYS};
use crate::policy::keyed::{KeyId, SharedKey, Usage};
use crate::proto::Millis;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients of one exchange.
const BATCH: usize = 256;
/// Clients of one round. The next one begins at once where more are due.
const ROUND: usize = 4_096;
/// The pace of clients without changes.
const QUIET_INTERVALS: u32 = 10;
/// New clients are gathered for this part of an interval.
const GATHER: u32 = 10;
/// Pauses between attempts while Redis is away.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What clients have on the other hosts, and what they have here.
pub trait Store: Send {
    /// Tells what clients have on `host`, and learns what they have elsewhere: an answer for each,
    /// or why it has none. Without clients it only sees whether there are answers.
    ///
    /// # Errors
    /// Why there are no answers, for the log. The next exchange begins anew.
    fn exchange(&mut self, host: &str, batch: &[(KeyId, Usage)]) -> Result<Vec<Result<Answer, String>>, String>;

    /// Clients of different groups cannot be exchanged together.
    fn group(&self, id: &KeyId) -> u8;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Sessions on all other hosts.
    pub others: u64,
    /// Until the rate of all hosts together is full again.
    pub full_in_us: u64,
}

pub struct Exchanger {
    /// Stands for this process.
    host: String,
    status: Arc<Status>,
    random: Box<dyn FnMut() -> u64 + Send>,
    store: Option<Box<dyn Store>>,
    times: Times,
    known: HashMap<KeyId, Known>,
    /// Clients have come since the last round.
    fresh: bool,
    /// When the last round began, and when the next one does.
    last: Instant,
    next: Instant,
    /// Rounds in a row that failed; `None` before the first.
    failures: Option<u32>,
    /// When Redis last answered everything.
    heard: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    interval: Duration,
    quiet: Duration,
    host_timeout: Duration,
}

struct Known {
    key: SharedKey,
    /// Sessions that Redis knows of; `None` if that is not sure.
    told: Option<u64>,
    others: u64,
    /// When it was last exchanged, or taken over.
    synced: Instant,
    pace: Duration,
}

/// A table of twice as many, as it is when it has just grown.
const _: () = assert!(2 * (size_of::<Known>() + size_of::<KeyId>() + 1) <= SHARED_KEY_BYTES);

impl Known {
    /// Its place among those that are due: changes before others, then the longest wait first.
    fn due(&self, now: Instant) -> Option<(bool, Instant)> {
        let has_changed = self.told.is_none_or(|told| self.key.has_changed(told));
        (has_changed || self.synced + self.pace <= now).then_some((!has_changed, self.synced))
    }
}

impl Exchanger {
    pub fn new(host: String, status: Arc<Status>, random: Box<dyn FnMut() -> u64 + Send>) -> Exchanger {
        let (now, zero) = (Instant::now(), Duration::ZERO);
        Exchanger {
            host,
            status,
            random,
            store: None,
            times: Times { interval: zero, quiet: zero, host_timeout: zero },
            known: HashMap::new(),
            fresh: false,
            last: now,
            next: now,
            failures: None,
            heard: now,
        }
    }

    /// Begins anew, with another configuration. What was told to another Redis ends there by
    /// itself.
    pub fn configure(&mut self, config: Option<&Redis>, store: Option<Box<dyn Store>>, now: Instant) {
        (self.store, self.failures) = (store, None);
        self.status.failed();
        self.known.values_mut().for_each(|known| {
            (known.told, known.others) = (None, 0);
            known.key.isolate();
        });
        if let Some(config) = config {
            let interval = Duration::from_millis(config.interval_ms);
            let host_timeout = Duration::from_millis(config.host_timeout_ms);
            let quiet = (interval * QUIET_INTERVALS).min(host_timeout / 4).max(interval);
            self.times = Times { interval, quiet, host_timeout };
        } else {
            self.known.drain().for_each(|(_, known)| known.key.release());
        }
        self.status.set_keys(self.known.len());
        (self.last, self.next) = (now, now);
    }

    /// When there is something to do; `None` without a configuration.
    pub fn due(&self) -> Option<Instant> {
        self.store.as_ref()?;
        let is_up = self.failures == Some(0);
        let gathered = self.last + self.times.interval / GATHER;
        Some(if self.fresh && is_up { self.next.min(gathered) } else { self.next })
    }

    /// Takes a client over.
    pub fn add(&mut self, key: SharedKey, now: Instant) {
        if self.store.is_none() || self.known.len() >= SHARED_KEYS && !self.known.contains_key(&key.id) {
            self.status.refused();
            return key.release();
        }
        let (told, pace) = (None, self.times.interval);
        let new = |key| Known { key, told, others: 0, synced: now, pace };
        let id = key.id;
        self.known.entry(id).and_modify(|known| known.key = key.clone()).or_insert_with(|| new(key));
        self.fresh = true;
        self.status.set_keys(self.known.len());
    }

    pub fn on_tick(&mut self, now: Instant, now_ms: Millis) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        (self.last, self.fresh) = (now, false);
        let (due, is_whole) = self.choose(now);
        if due.is_empty() && self.failures == Some(0) && now < self.heard + self.times.quiet {
            self.next = now + self.times.interval;
            return;
        }
        let failed = self.round(due, now, now_ms);
        let took = now.elapsed();
        self.status.synchronised(failed.is_none(), took);
        match failed {
            None => {
                self.status.answered(now_ms);
                self.on_success(now, is_whole);
            }
            Some(why) => self.on_failure(&why, now + took),
        }
        self.isolate_forgotten(now);
        self.status.set_keys(self.known.len());
    }

    /// The clients of a round, those with changes first; and whether these are all that are due.
    fn choose(&self, now: Instant) -> (Vec<KeyId>, bool) {
        let due = self.known.iter().filter_map(|(id, known)| Some((known.due(now)?, *id)));
        let mut due: Vec<_> = due.collect();
        let is_whole = due.len() <= ROUND;
        if !is_whole {
            due.select_nth_unstable(ROUND);
            due.truncate(ROUND);
        }
        (due.into_iter().map(|(_, id)| id).collect(), is_whole)
    }

    /// Takes back what was told of the clients of this host.
    pub fn leave(&mut self, now_ms: Millis) {
        let mut told = self.known.iter().filter(|(_, known)| known.told != Some(0)).map(|(id, _)| *id);
        let told: Vec<KeyId> = if self.failures == Some(0) { told.by_ref().collect() } else { Vec::new() };
        for batch in self.batches(told) {
            let nothing = |id: KeyId| {
                let usage = self.known.get(&id).and_then(|known| known.key.usage(now_ms)).unwrap_or_default();
                (id, Usage { sessions: 0, ..usage })
            };
            let batch: Vec<_> = batch.into_iter().map(nothing).collect();
            if let Err(why) = self.ask(&batch) {
                return ::log::warn!("redis: other hosts forget this one after host_timeout: {}", shown(&why));
            }
        }
    }

    /// Exchanges all of these; why some could not be. Ends early when Redis stalls.
    fn round(&mut self, due: Vec<KeyId>, now: Instant, now_ms: Millis) -> Option<String> {
        let mut failed = None;
        let mut batches = self.batches(due);
        if batches.is_empty() {
            batches.push(Vec::new());
        }
        for batch in batches {
            let passed = now.elapsed();
            // Another part of a cluster may answer, but not each batch may wait for one that does
            // not.
            if failed.is_some() && passed > self.times.interval {
                break;
            }
            let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            failed = self.exchange(&batch, now + passed, now_ms.saturating_add(passed_ms)).err().or(failed);
        }
        failed
    }

    fn exchange(&mut self, batch: &[KeyId], now: Instant, now_ms: Millis) -> Result<(), String> {
        let usage = |id: &KeyId| Some((*id, self.known.get(id)?.key.usage(now_ms)));
        // A client whose place has gone to another one has nothing.
        let (kept, gone): (Vec<_>, Vec<_>) = batch.iter().filter_map(usage).partition(|(_, usage)| usage.is_some());
        let batch: Vec<_> = kept.iter().chain(&gone).map(|(id, usage)| (*id, usage.unwrap_or_default())).collect();
        match self.ask(&batch) {
            Ok(answers) => {
                let pairs = batch.iter().zip(answers);
                pairs.for_each(|((id, usage), answer)| self.on_answer(id, *usage, answer, (now, now_ms)));
                gone.iter().for_each(|(id, _)| drop(self.known.remove(id)));
                Ok(())
            }
            Err(why) => {
                for (id, usage) in &batch {
                    let Some(known) = self.known.get_mut(id) else { continue };
                    known.told = None;
                    known.key.give_back(*usage);
                }
                Err(why)
            }
        }
    }

    /// By what can be exchanged together.
    fn batches(&self, ids: Vec<KeyId>) -> Vec<Vec<KeyId>> {
        let mut groups: BTreeMap<u8, Vec<KeyId>> = BTreeMap::new();
        for id in ids {
            groups.entry(self.store.as_ref().map_or(0, |store| store.group(&id))).or_default().push(id);
        }
        groups.values().flat_map(|group| group.chunks(BATCH)).map(<[KeyId]>::to_vec).collect()
    }

    /// A panic of the client of Redis must not end the thread: numbers would stay as they are.
    fn ask(&mut self, batch: &[(KeyId, Usage)]) -> Result<Vec<Result<Answer, String>>, String> {
        let Some(store) = &mut self.store else { return Err("not configured".to_owned()) };
        let answers = catch_unwind(AssertUnwindSafe(|| store.exchange(&self.host, batch)));
        let answers = answers.unwrap_or_else(|_| Err("its client panicked".to_owned()))?;
        match answers.len() == batch.len() {
            true => Ok(answers),
            false => Err(format!("{} answers for {} clients", answers.len(), batch.len())),
        }
    }

    fn on_answer(&mut self, id: &KeyId, usage: Usage, answer: Result<Answer, String>, at: (Instant, Millis)) {
        let is_crowded = self.known.len() > SHARED_KEYS / 2;
        let Some(known) = self.known.get_mut(id) else { return };
        let learnt = answer.and_then(|answer| {
            known.key.learn(answer.others, answer.full_in_us, at.1)?;
            Ok(answer)
        });
        let (others, full_in_us) = match learnt {
            Ok(answer) => (answer.others, answer.full_in_us),
            Err(why) => {
                ::log::debug!("redis: a client counts here alone: {}", shown(&why));
                self.status.bad_answer();
                known.key.isolate();
                (0, 0)
            }
        };
        let is_quiet = known.told == Some(usage.sessions) && usage.passed == 0 && known.others == others;
        known.pace = if is_quiet { (known.pace * 2).min(self.times.quiet) } else { self.times.interval };
        (known.told, known.others, known.synced) = (Some(usage.sessions), others, at.0);
        let is_nothing = usage.sessions == 0 && usage.passed == 0 && (others == 0 && full_in_us == 0 || is_crowded);
        if is_nothing && known.key.forget() {
            self.known.remove(id);
        }
    }

    fn on_success(&mut self, now: Instant, is_whole: bool) {
        if self.failures != Some(0) {
            ::log::info!("redis: limits are shared");
        }
        (self.failures, self.heard) = (Some(0), now);
        self.next = match self.known.is_empty() {
            _ if !is_whole => now,
            true => now + self.times.quiet,
            false => now + self.times.interval,
        };
    }

    fn on_failure(&mut self, why: &str, now: Instant) {
        let before = self.failures.unwrap_or(0);
        if before == 0 {
            let why = shown(why);
            ::log::warn!("redis: limits are not shared until it answers: {why}");
            self.status.failed();
            self.known.values_mut().for_each(|known| known.told = None);
        } else {
            ::log::debug!("redis: still away: {}", shown(why));
        }
        self.failures = Some(before.saturating_add(1));
        let pause = RETRY.saturating_mul(1 << before.min(6)).min(RETRY_MAX);
        // Between half and all of it: hosts must not come back at one moment.
        let half = pause / 2;
        let chance = u32::try_from((self.random)() % 1_000).unwrap_or(0);
        self.next = now + half + half * chance / 1_000;
    }

    /// What others had too long ago does not count any more.
    fn isolate_forgotten(&mut self, now: Instant) {
        for known in self.known.values_mut() {
            if known.others > 0 && known.synced + self.times.host_timeout <= now {
                known.others = 0;
                known.key.isolate();
            }
        }
    }
}

/// On one line, and not without end: it may be the words of a server.
fn shown(why: &str) -> String {
    why.escape_debug().take(300).collect()
}

#[cfg(test)]
mod tests;
