//! HOT: moves bytes one way. Reads into the worker's scratch, shows every slice to the session, sends on what may
//! pass, and keeps only what the kernel refused. Owns nothing; never looks inside a frame.

use super::act;
use super::buffers::{Backlog, SCRATCH_BYTES};
use super::conn::Progress;
use super::pair::Pair;
use super::secure;
use super::shell::Shell;
use super::splice::splice_once;
use super::sys::Sys;
use super::token::Key;
use crate::proto::Side;
use crate::proto::relay::Lead;
use crate::proto::session::{Event, Given, Want};
use std::io::IoSlice;

/// Reads of one direction in a turn.
const READS_MAX: u32 = 4;
/// Bytes of one direction in a turn.
const TURN_BYTES: usize = 256 * 1024;
/// Bytes thrown away in one call.
const DISCARD_BYTES: usize = 64 * 1024;

/// Reads from `from` while it has something, it is wanted, and the budget lasts. Who may still read afterwards
/// belongs in the ready ring.
#[inline]
pub(super) fn pump<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, from: Side, shell: &mut Shell<'_, S>) {
    let (mut reads, mut bytes) = (0, 0);
    while reads < READS_MAX && bytes < TURN_BYTES && pair.may_read(from) && !shell.pool.is_short() {
        let progress = match pair.session.wants(from) {
            Want::Nothing => return,
            Want::Discard => discard_once(pair, key, from, shell),
            Want::Payload(passable) if pair.is_plain() => splice_once(pair, key, (from, passable), shell),
            want => {
                let max = if let Want::Bytes(max) = want { max } else { SCRATCH_BYTES };
                relay_once(pair, key, (from, max), shell)
            }
        };
        match progress {
            Progress::Moved(n) => bytes += n.get(),
            Progress::Blocked => return,
            Progress::Eof => return ended(pair, key, from, shell),
            Progress::Reset => return tell(pair, key, Event::Reset(from), shell),
        }
        reads += 1;
    }
}

/// The bytes of a side have ended. Where they were cut, whoever reads the rest of them is to see that too.
fn ended<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, from: Side, shell: &mut Shell<'_, S>) {
    let event = pair.end_of(from);
    pair.flows[from.other()].truncated = matches!(event, Event::Truncated(_));
    tell(pair, key, event, shell);
}

#[inline(always)]
pub(super) fn relay_once<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: Key,
    (from, max): (Side, usize),
    shell: &mut Shell<'_, S>,
) -> Progress {
    if pair.is_secure(from) {
        return secure::relay_once(pair, key, (from, max), shell);
    }
    // Taken out for as long as its slices are walked, and put back: the shell stays free for the session's actions.
    let mut scratch = std::mem::take(&mut shell.scratch);
    let buf = scratch.get_mut(..max.min(SCRATCH_BYTES)).unwrap_or(&mut []);
    let progress = match &mut pair.conns[from] {
        Some(conn) => conn.pull(&mut shell.home.sys, buf),
        None => Progress::Blocked,
    };
    if let Progress::Moved(n) = progress {
        pass_on(pair, key, (from, buf.get(..n.get()).unwrap_or(&[])), shell);
        pair.last_seen = shell.now;
    }
    shell.scratch = scratch;
    progress
}

fn discard_once<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, from: Side, shell: &mut Shell<'_, S>) -> Progress {
    if pair.conns[from].as_ref().is_some_and(|conn| conn.tls.as_ref().is_some_and(|tls| tls.is_established())) {
        return secure::discard_once(pair, key, from, shell);
    }
    let Some(conn) = &mut pair.conns[from] else { return Progress::Blocked };
    let progress = conn.discard(&mut shell.home.sys, DISCARD_BYTES);
    if let Progress::Moved(n) = progress {
        discarded(pair, key, (from, n.get()), shell);
    }
    progress
}

pub(super) fn discarded<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: Key,
    (from, n): (Side, usize),
    shell: &mut Shell<'_, S>,
) {
    shell.home.tally.discarded_bytes += n as u64;
    pair.session.on_discarded(from, n, shell.now);
    pair.stirred = true;
    act::settle(pair, key, shell);
}

/// Shows the session what was read, slice by slice, and sends on what may pass.
#[inline(never)]
pub(super) fn feed<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, unread: (Side, &[u8]), shell: &mut Shell<'_, S>) {
    pass_on(pair, key, unread, shell);
}

/// The same in one piece with the caller, who is the plain path: it costs an eighth less so.
#[inline(always)]
fn pass_on<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, (from, mut unread): (Side, &[u8]), shell: &mut Shell<'_, S>) {
    while !unread.is_empty() {
        let slice = unread.get(..shell.home.sys.next_slice(unread.len())).unwrap_or(unread);
        let rules = pair.route.as_ref().map_or_else(Default::default, |route| route.rules);
        let given = Given { now: shell.now, rules, counts: &mut shell.home.tally.relay[from] };
        let taken = pair.session.on_bytes(from, slice, given);
        debug_assert!(taken.consumed > 0 && taken.forward <= taken.consumed);
        let (now, later) = unread.split_at_checked(taken.consumed.max(1)).unwrap_or((unread, &[]));
        if taken.forward > 0 || !taken.lead.is_empty() {
            let bytes = now.get(..taken.forward).unwrap_or(now);
            deliver(pair, from.other(), (taken.lead, bytes), taken.last, shell);
        } else if pair.session.wants(from) == Want::Discard {
            // It came in one read with what closed this direction.
            shell.home.tally.discarded_bytes += taken.consumed as u64;
        }
        unread = later;
        act::settle(pair, key, shell);
    }
}

/// Sends bytes behind all that was sent to `to`: at once, or into its backlog as far as the kernel refuses them. `last`: a FIN
/// follows at once, so that both may leave in one segment.
#[inline(always)]
pub(super) fn deliver<S: Sys>(
    pair: &mut Pair<S::Sock>,
    to: Side,
    (lead, bytes): (Lead, &[u8]),
    last: bool,
    shell: &mut Shell<'_, S>,
) {
    if pair.is_secure(to) {
        return secure::deliver(pair, to, (lead, bytes), last, shell);
    }
    deliver_raw(pair, to, (lead, bytes), last, shell);
}

/// The same for what goes onto the wire as it is.
#[inline(always)]
pub(super) fn deliver_raw<S: Sys>(
    pair: &mut Pair<S::Sock>,
    to: Side,
    (lead, bytes): (Lead, &[u8]),
    last: bool,
    shell: &mut Shell<'_, S>,
) {
    let Some(conn) = &mut pair.conns[to] else { return };
    if let Some(backlog) = &mut pair.flows[to].backlog {
        backlog.push(lead.bytes(), &mut shell.pool);
        backlog.push(bytes, &mut shell.pool);
        return;
    }
    let progress = match (lead.is_empty(), last) {
        (true, false) => conn.push(&mut shell.home.sys, bytes),
        (true, true) => conn.push_last(&mut shell.home.sys, bytes),
        (false, _) => conn.push_vectored(&mut shell.home.sys, &[IoSlice::new(lead.bytes()), IoSlice::new(bytes)]),
    };
    let sent = match progress {
        Progress::Moved(n) if n.get() == lead.bytes().len() + bytes.len() => return,
        Progress::Moved(n) => n.get(),
        Progress::Blocked => 0,
        // Its end is read in its turn; what was for it is lost with it.
        Progress::Eof | Progress::Reset => return,
    };
    let mut backlog = Box::new(Backlog::new(shell.now));
    backlog.push(lead.bytes().get(sent..).unwrap_or(&[]), &mut shell.pool);
    backlog.push(bytes.get(sent.saturating_sub(lead.bytes().len())..).unwrap_or(&[]), &mut shell.pool);
    pair.flows[to].backlog = Some(backlog);
    pair.stirred = true;
    shell.home.tally.stalled += 1;
}

pub(super) fn tell<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, event: Event, shell: &mut Shell<'_, S>) {
    pair.session.on_event(event, shell.now);
    pair.stirred = true;
    act::settle(pair, key, shell);
}
