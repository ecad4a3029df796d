//! A pair's turn: whatever can be done for it now, in one order. Knows neither poll nor the ring; what it may not
//! finish for want of budget shows in [`Pair::may_read`].

use super::act;
use super::pair::Pair;
use super::pump::{pump, tell};
use super::resources::Resources;
use super::secure;
use super::sys::Sys;
use super::token::SlotKey;
use crate::proto::Side;
use crate::proto::session::Event;

/// Connect, flush, finish, read; and last, what no read will say: resets, and whether a client that waits has left.
#[inline]
pub(super) fn turn<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, res: &mut Resources<'_, S>) {
    if pair.is_answered() {
        act::connecting(pair, key, res);
    }
    for to in Side::BOTH {
        if pair.flows[to].backlog.is_some() && pair.ready(to).write {
            pair.flush(to, &mut res.core.sys, &mut res.pool, res.now);
            act::finish(pair, to, res);
            act::settle(pair, key, res);
        }
    }
    // They have a budget of their own: what is not allowed now waits in their queue.
    if res.shakes > 0 {
        shake(pair, key, res);
    }
    for from in Side::BOTH {
        pump(pair, key, from, res);
    }
    for side in Side::BOTH {
        if pair.is_lost(side) {
            tell(pair, key, Event::Reset(side), res);
        }
    }
    if pair.ready(Side::Downstream).hangup && pair.session.client_waits() {
        // It is not read while it waits, so this is the only way to learn that it left.
        tell(pair, key, Event::Eof(Side::Downstream), res);
    }
}

fn shake<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, res: &mut Resources<'_, S>) {
    for side in Side::BOTH {
        if res.shakes > 0 && pair.waits_to_shake(side) {
            res.shakes -= 1;
            secure::shake(pair, key, side, res);
        }
    }
}
