//! What the thread of a source shares with the control thread: the latest list, how the source is
//! doing, and whether it has to stop. A list that was not taken yet is replaced by the next one, so
//! that a burst of changes is applied once.

use crate::policy::upstream::Member;
use std::fmt;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A list is applied when the source has been quiet for this time,
const QUIET: Duration = Duration::from_millis(100);
/// and after this time at the latest.
const LATEST: Duration = Duration::from_secs(1);

type Interrupt = Box<dyn FnOnce() + Send>;

pub struct Slot {
    upstream: String,
    source: &'static str,
    state: Mutex<State>,
    stopping: Condvar,
    /// Wakes the control thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State {
    stopped: bool,
    /// Ends what the source is blocked in.
    interrupt: Option<Interrupt>,
    pending: Option<Pending>,
    /// Notified after the first list or failure.
    first: Option<SyncSender<()>>,
    health: Health,
}

struct Pending {
    members: Vec<Member>,
    /// When the first and the last list arrived that make up this one.
    since: Instant,
    latest: Instant,
}

/// How a source is doing.
#[derive(Debug, Clone)]
pub struct Health {
    /// Its last success, or its start.
    pub fresh_at: Instant,
    pub failures: u64,
    /// Why it fails now.
    pub error: Option<String>,
    /// Endpoints of its last list.
    pub endpoints: usize,
}

impl Slot {
    /// `first` is notified when the source has succeeded or failed once.
    pub fn new(
        upstream: &str,
        source: &'static str,
        first: SyncSender<()>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Slot {
        let health = Health { fresh_at: Instant::now(), failures: 0, error: None, endpoints: 0 };
        let state = State { stopped: false, interrupt: None, pending: None, first: Some(first), health };
        let wake = Box::new(wake);
        Slot { upstream: upstream.to_owned(), source, state: Mutex::new(state), stopping: Condvar::new(), wake }
    }

    /// The state stays consistent between any two statements, so a panic elsewhere is no reason to
    /// give up.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a new list.
    pub fn deliver(&self, members: Vec<Member>) {
        let now = Instant::now();
        let mut state = self.state();
        state.health.endpoints = members.len();
        let since = state.pending.as_ref().map_or(now, |pending| pending.since);
        state.pending = Some(Pending { members, since, latest: now });
        drop(state);
        (self.wake)();
    }

    /// The source has answered.
    pub fn succeeded(&self) {
        let mut state = self.state();
        state.health.fresh_at = Instant::now();
        let recovered = state.health.error.take().is_some();
        let first = state.first.take();
        drop(state);
        if recovered {
            ::log::info!("upstream \"{}\": {} has recovered", self.upstream, self.source);
        }
        // Ignored: a reload may have stopped waiting.
        let _ = first.map(|first| first.try_send(()));
    }

    /// The source has failed. Warns at the first failure of a row.
    pub fn failed(&self, error: String) {
        let mut state = self.state();
        state.health.failures += 1;
        let (endpoints, age) = (state.health.endpoints, state.health.fresh_at.elapsed().as_secs());
        let (upstream, source) = (&self.upstream, self.source);
        let known = state.health.error.is_some();
        let kept = format!("keeping its {endpoints} endpoints, {age} s old");
        match known {
            false => ::log::warn!("upstream \"{upstream}\": {source} fails, {kept}: {error}"),
            true => ::log::debug!("upstream \"{upstream}\": {source} still fails, {kept}: {error}"),
        }
        state.health.error = Some(error);
        // Ignored: a reload may have stopped waiting.
        let _ = state.first.take().map(|first| first.try_send(()));
    }

    pub fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// When the list that waits is to be applied; `None` if there is none.
    pub fn due(&self) -> Option<Instant> {
        self.state().pending.as_ref().map(Pending::due)
    }

    /// The list that is due.
    pub fn take_due(&self, now: Instant) -> Option<Vec<Member>> {
        let mut state = self.state();
        let due = state.pending.as_ref().is_some_and(|pending| pending.due() <= now);
        state.pending.take_if(|_| due).map(|pending| pending.members)
    }

    /// The list that waits, due or not.
    pub fn take(&self) -> Option<Vec<Member>> {
        self.state().pending.take().map(|pending| pending.members)
    }

    /// Ends the thread as soon as it can: wakes it where it waits, and interrupts it where it is
    /// blocked.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        let interrupt = state.interrupt.take();
        drop(state);
        self.stopping.notify_all();
        let _ = interrupt.map(|interrupt| interrupt());
    }

    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// `interrupt` ends whatever the source blocks in from now on. It is called at once if the slot
    /// has been stopped already.
    #[cfg(feature = "discovery")]
    pub fn interrupt_with(&self, interrupt: Interrupt) {
        let mut state = self.state();
        match state.stopped {
            false => state.interrupt = Some(interrupt),
            true => {
                drop(state);
                interrupt();
            }
        }
    }

    /// Waits. Whether the slot was stopped.
    pub fn wait(&self, wait: Duration) -> bool {
        let state = self.state();
        let waited = self.stopping.wait_timeout_while(state, wait, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}

impl Pending {
    fn due(&self) -> Instant {
        (self.latest + QUIET).min(self.since + LATEST)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("upstream", &self.upstream).field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(feature = "discovery")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;

    fn slot() -> (Arc<Slot>, Arc<AtomicUsize>, std::sync::mpsc::Receiver<()>) {
        let (first, told) = sync_channel(1);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        (Arc::new(Slot::new("app", "file", first, wake)), woken, told)
    }

    #[test]
    fn a_burst_is_one_list_and_is_not_put_off_forever() {
        let (slot, woken, _told) = slot();
        assert_eq!((slot.due(), slot.take_due(Instant::now())), (None, None));
        let began = Instant::now();
        slot.deliver(Vec::new());
        let due = slot.due().unwrap();
        assert!(due >= began + QUIET && slot.take_due(due - Duration::from_nanos(1)).is_none());
        slot.deliver(Vec::new());
        assert!(slot.due().unwrap() >= due, "the second list puts it off");
        slot.state().pending.as_mut().unwrap().latest = began + Duration::from_secs(3600);
        assert!(slot.due().unwrap() <= due - QUIET + LATEST, "but not forever");
        assert_eq!(slot.take_due(due + LATEST), Some(Vec::new()));
        assert_eq!((slot.due(), slot.take()), (None, None));
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn failures_keep_the_endpoints_and_their_age() {
        let (slot, _, told) = slot();
        slot.failed("refused".into());
        assert_eq!(told.try_recv(), Ok(()), "a failure ends the wait for the first list");
        slot.failed("refused again".into());
        let health = slot.health();
        assert_eq!((health.failures, health.error.as_deref()), (2, Some("refused again")));
        slot.succeeded();
        let recovered = slot.health();
        assert_eq!((recovered.failures, recovered.error), (2, None));
        assert!(recovered.fresh_at >= health.fresh_at);
    }

    #[test]
    fn stopping_wakes_and_interrupts_the_thread() {
        let (slot, ..) = slot();
        assert!(!slot.wait(Duration::ZERO));
        let (done, interrupted) = sync_channel(2);
        let again = done.clone();
        slot.interrupt_with(Box::new(move || done.try_send(()).unwrap()));
        let waiting = Arc::clone(&slot);
        let thread = std::thread::spawn(move || waiting.wait(Duration::from_secs(600)));
        slot.stop();
        assert!(thread.join().unwrap() && slot.is_stopped());
        assert_eq!(interrupted.try_recv(), Ok(()));
        slot.interrupt_with(Box::new(move || again.try_send(()).unwrap()));
        assert_eq!(interrupted.try_recv(), Ok(()), "a source that opens too late ends, too");
    }
}
