//! Moves payload that nobody needs to see, from socket to socket through a pipe, in the kernel. A pipe is borrowed for as
//! long as bytes are in it: what the receiver does not take at once is a backlog of its flow. Owns nothing.

use super::act;
use super::buffers::Backlog;
use super::conn::{Conn, Progress};
use super::pair::Pair;
use super::pump::relay_once;
use super::resources::Resources;
use super::sys::{PIPE_BYTES, PipeId, Sys};
use super::token::SlotKey;
use crate::proto::Side;

/// One splice of up to `passable` bytes; without a pipe, one read as always.
pub(super) fn splice_once<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (from, passable): (Side, u64),
    res: &mut Resources<'_, S>,
) -> Progress {
    let Some(pipe) = res.pool.take_pipe(&mut res.core.sys) else {
        return relay_once(pair, key, (from, usize::MAX), res);
    };
    let max = usize::try_from(passable).unwrap_or(usize::MAX).min(PIPE_BYTES);
    let progress = match &mut pair.conns[from] {
        Some(conn) => conn.splice_in(&mut res.core.sys, pipe, max),
        None => Progress::Blocked,
    };
    let Progress::Moved(n) = progress else {
        res.pool.give_pipe(pipe);
        return progress;
    };
    pair.session.on_passed(from, n.get() as u64, &mut res.core.tally.relay[from]);
    pair.last_seen = res.now;
    deliver(pair, from.other(), (pipe, n.get()), res);
    // The end of the frame may be what a Close of ours waits for.
    act::settle(pair, key, res);
    progress
}

/// What is in the pipe goes to `to`; what it refuses waits.
fn deliver<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, (pipe, held): (PipeId, usize), res: &mut Resources<'_, S>) {
    let Some(conn) = &mut pair.conns[to] else { return res.pool.spoil_pipe(pipe) };
    match empty(conn, &mut res.core.sys, (pipe, held)) {
        0 => res.pool.give_pipe(pipe),
        // Its end is read in its turn; what was for it is lost with it.
        _ if conn.ready.broken => res.pool.spoil_pipe(pipe),
        left => {
            pair.flows[to].backlog = Some(Box::new(Backlog::of_pipe(res.now, pipe, left)));
            pair.stirred = true;
            res.core.tally.stalled += 1;
        }
    }
}

/// Moves what a pipe holds into the socket, as far as that takes it; how much is left.
pub(super) fn empty<Y: Sys>(conn: &mut Conn<Y::Sock>, sys: &mut Y, (pipe, held): (PipeId, usize)) -> usize {
    let mut left = held;
    while left > 0 && conn.ready.write {
        match conn.splice_out(sys, pipe, left) {
            Progress::Moved(n) => left -= n.get().min(left),
            Progress::Blocked | Progress::Eof | Progress::Reset => break,
        }
    }
    left
}
