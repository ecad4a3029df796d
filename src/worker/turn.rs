//! A pair's turn: whatever can be done for it now, in one order. Knows neither poll nor the ring; what it may not
//! finish for want of budget shows in [`Pair::may_read`].

use super::act;
use super::pair::Pair;
use super::pump::{pump, tell};
use super::secure;
use super::shell::Shell;
use super::sys::Sys;
use super::token::Key;
use crate::proto::Side;
use crate::proto::session::Event;

/// Connect, flush, finish, read; and last, what no read will say: resets, and whether a client that waits has left.
#[inline]
pub(super) fn turn<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, shell: &mut Shell<'_, S>) {
    if pair.is_answered() {
        act::connecting(pair, key, shell);
    }
    for to in Side::BOTH {
        if pair.flows[to].backlog.is_some() && pair.ready(to).write {
            pair.flush(to, &mut shell.home.sys, &mut shell.pool, shell.now);
            act::finish(pair, to, shell);
            act::settle(pair, key, shell);
        }
    }
    // They have a budget of their own: what is not allowed now waits in their queue.
    if shell.shakes > 0 {
        shake(pair, key, shell);
    }
    for from in Side::BOTH {
        pump(pair, key, from, shell);
    }
    for side in Side::BOTH {
        if pair.is_lost(side) {
            tell(pair, key, Event::Reset(side), shell);
        }
    }
    if pair.ready(Side::Downstream).hangup && pair.session.client_waits() {
        // It is not read while it waits, so this is the only way to learn that it left.
        tell(pair, key, Event::Eof(Side::Downstream), shell);
    }
}

fn shake<S: Sys>(pair: &mut Pair<S::Sock>, key: Key, shell: &mut Shell<'_, S>) {
    for side in Side::BOTH {
        if shell.shakes > 0 && pair.waits_to_shake(side) {
            shell.shakes -= 1;
            secure::shake(pair, key, side, shell);
        }
    }
}
