//! HOT: moves bytes one way. Reads into the worker's scratch, shows every slice to the session, sends on what may
//! pass, and keeps only what the kernel refused. Owns nothing; never looks inside a frame.

use super::act;
use super::buffers::{Backlog, SCRATCH_BYTES};
use super::conn::Progress;
use super::pair::Pair;
use super::resources::Resources;
use super::secure;
use super::splice::splice_once;
use super::sys::Sys;
use super::token::SlotKey;
use crate::proto::Side;
use crate::proto::relay::Lead;
use crate::proto::session::{Event, ReadInterest, RelayInput};
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
pub(super) fn pump<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, from: Side, res: &mut Resources<'_, S>) {
    let (mut reads, mut bytes) = (0, 0);
    while reads < READS_MAX && bytes < TURN_BYTES && pair.may_read(from) && !res.pool.is_short() {
        let progress = match pair.session.wants(from) {
            ReadInterest::Nothing => return,
            ReadInterest::Discard => discard_once(pair, key, from, res),
            ReadInterest::Payload(passable) if pair.is_plain() => splice_once(pair, key, (from, passable), res),
            want => {
                let max = if let ReadInterest::Bytes(max) = want { max } else { SCRATCH_BYTES };
                relay_once(pair, key, (from, max), res)
            }
        };
        match progress {
            Progress::Moved(n) => bytes += n.get(),
            Progress::Blocked => return,
            Progress::Eof => return ended(pair, key, from, res),
            Progress::Reset => return tell(pair, key, Event::Reset(from), res),
        }
        reads += 1;
    }
}

/// The bytes of a side have ended. Where they were cut, whoever reads the rest of them is to see that too.
fn ended<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, from: Side, res: &mut Resources<'_, S>) {
    let event = pair.end_of(from);
    pair.flows[from.other()].truncated = matches!(event, Event::Truncated(_));
    tell(pair, key, event, res);
}

#[inline(always)]
pub(super) fn relay_once<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (from, max): (Side, usize),
    res: &mut Resources<'_, S>,
) -> Progress {
    if pair.is_secure(from) {
        return secure::relay_once(pair, key, (from, max), res);
    }
    // Relayed out for as long as its slices are walked, and put back: the shell stays free for the session's actions.
    let mut scratch = std::mem::take(&mut res.scratch);
    let buf = scratch.get_mut(..max.min(SCRATCH_BYTES)).unwrap_or(&mut []);
    let progress = match &mut pair.conns[from] {
        Some(conn) => conn.pull(&mut res.core.sys, buf),
        None => Progress::Blocked,
    };
    if let Progress::Moved(n) = progress {
        pass_on(pair, key, (from, buf.get(..n.get()).unwrap_or(&[])), res);
        pair.last_seen = res.now;
    }
    res.scratch = scratch;
    progress
}

fn discard_once<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, from: Side, res: &mut Resources<'_, S>) -> Progress {
    if pair.conns[from].as_ref().is_some_and(|conn| conn.tls.as_ref().is_some_and(|tls| tls.is_established())) {
        return secure::discard_once(pair, key, from, res);
    }
    let Some(conn) = &mut pair.conns[from] else { return Progress::Blocked };
    let progress = conn.discard(&mut res.core.sys, DISCARD_BYTES);
    if let Progress::Moved(n) = progress {
        discarded(pair, key, (from, n.get()), res);
    }
    progress
}

pub(super) fn discarded<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (from, n): (Side, usize),
    res: &mut Resources<'_, S>,
) {
    res.core.tally.discarded_bytes += n as u64;
    pair.session.on_discarded(from, n, res.now);
    pair.stirred = true;
    act::settle(pair, key, res);
}

/// Shows the session what was read, slice by slice, and sends on what may pass.
#[inline(never)]
pub(super) fn feed<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, unread: (Side, &[u8]), res: &mut Resources<'_, S>) {
    pass_on(pair, key, unread, res);
}

/// The same in one piece with the caller, who is the plain path: it costs an eighth less so.
#[inline(always)]
fn pass_on<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (from, mut unread): (Side, &[u8]),
    res: &mut Resources<'_, S>,
) {
    while !unread.is_empty() {
        let slice = unread.get(..res.core.sys.next_slice(unread.len())).unwrap_or(unread);
        let rules = pair.route.as_ref().map_or_else(Default::default, |route| route.rules);
        let given = RelayInput { now: res.now, rules, counts: &mut res.core.tally.relay[from] };
        let taken = pair.session.on_bytes(from, slice, given);
        debug_assert!(taken.consumed > 0 && taken.forward <= taken.consumed);
        let (now, later) = unread.split_at_checked(taken.consumed.max(1)).unwrap_or((unread, &[]));
        if taken.forward > 0 || !taken.lead.is_empty() {
            let bytes = now.get(..taken.forward).unwrap_or(now);
            deliver(pair, from.other(), (taken.lead, bytes), taken.last, res);
        } else if pair.session.wants(from) == ReadInterest::Discard {
            // It came in one read with what closed this direction.
            res.core.tally.discarded_bytes += taken.consumed as u64;
        }
        unread = later;
        act::settle(pair, key, res);
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
    res: &mut Resources<'_, S>,
) {
    if pair.is_secure(to) {
        return secure::deliver(pair, to, (lead, bytes), last, res);
    }
    deliver_raw(pair, to, (lead, bytes), last, res);
}

/// The same for what goes onto the wire as it is.
#[inline(always)]
pub(super) fn deliver_raw<S: Sys>(
    pair: &mut Pair<S::Sock>,
    to: Side,
    (lead, bytes): (Lead, &[u8]),
    last: bool,
    res: &mut Resources<'_, S>,
) {
    let Some(conn) = &mut pair.conns[to] else { return };
    if let Some(backlog) = &mut pair.flows[to].backlog {
        backlog.push(lead.bytes(), &mut res.pool);
        backlog.push(bytes, &mut res.pool);
        return;
    }
    let progress = match (lead.is_empty(), last) {
        (true, false) => conn.push(&mut res.core.sys, bytes),
        (true, true) => conn.push_last(&mut res.core.sys, bytes),
        (false, _) => conn.push_vectored(&mut res.core.sys, &[IoSlice::new(lead.bytes()), IoSlice::new(bytes)]),
    };
    let sent = match progress {
        Progress::Moved(n) if n.get() == lead.bytes().len() + bytes.len() => return,
        Progress::Moved(n) => n.get(),
        Progress::Blocked => 0,
        // Its end is read in its turn; what was for it is lost with it.
        Progress::Eof | Progress::Reset => return,
    };
    let mut backlog = Box::new(Backlog::new(res.now));
    backlog.push(lead.bytes().get(sent..).unwrap_or(&[]), &mut res.pool);
    backlog.push(bytes.get(sent.saturating_sub(lead.bytes().len())..).unwrap_or(&[]), &mut res.pool);
    pair.flows[to].backlog = Some(backlog);
    pair.stirred = true;
    res.core.tally.stalled += 1;
}

pub(super) fn tell<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, event: Event, res: &mut Resources<'_, S>) {
    pair.session.on_event(event, res.now);
    pair.stirred = true;
    act::settle(pair, key, res);
}
