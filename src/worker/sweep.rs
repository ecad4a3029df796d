//! Which sessions of a worker end when the process drains, an endpoint goes down, or the
//! credentials of a client end; when each of them does is in `closings`.

use super::Worker;
use super::closings::Reason;
use super::listener::Listening;
use super::pair::Pair;
use super::sys::Sys;
use super::token::SlotKey;
use crate::policy::auth::Who;
use crate::policy::endpoint::Endpoint;
use crate::proto::Millis;
use crate::proto::session::Session;
use crate::proto::settings::EndpointDown;
use std::collections::BTreeMap;
use std::sync::Arc;

impl<S: Sys> Worker<'_, S> {
    /// The keys of all pairs, in the order of their slots.
    pub(super) fn keys(&self) -> Vec<SlotKey> {
        let key = |(slot, pair): (usize, &Pair<S::Sock>)| SlotKey { slot: slot as u32, generation: pair.generation };
        self.pairs.iter().map(key).collect()
    }

    pub(super) fn begin_drain(&mut self, spread_ms: u64) {
        self.res.core.draining = true;
        self.res.core.listeners.iter_mut().for_each(Listening::end);
        let keys = self.keys();
        self.res.closings.spread(&keys, Reason::Drain, self.res.now, spread_ms);
    }

    /// An endpoint gets no new sessions any more: those that it has end as their routes say.
    pub(super) fn close_sessions_of(&mut self, endpoint: &Arc<Endpoint>) {
        let mut by_spread: BTreeMap<Millis, Vec<SlotKey>> = BTreeMap::new();
        for (slot, pair) in &self.pairs {
            let goes_there = pair.pick.as_ref().is_some_and(|pick| Arc::ptr_eq(pick.endpoint(), endpoint));
            let policy = pair.session.as_ref().filter(|_| goes_there).map(Session::on_endpoint_down);
            if let Some(EndpointDown::Close { spread_ms }) = policy {
                let key = SlotKey { slot: slot as u32, generation: pair.generation };
                by_spread.entry(spread_ms).or_default().push(key);
            }
        }
        for (spread_ms, keys) in by_spread {
            self.res.closings.spread(&keys, Reason::EndpointDown, self.res.now, spread_ms);
        }
    }

    /// Sessions that an order of the admin listener is about.
    fn sessions_of(&self, who: &Who) -> Vec<SlotKey> {
        let is_meant =
            |pair: &Pair<S::Sock>| pair.info.as_ref().is_some_and(|info| who.is(info.id(), info.identity.as_deref()));
        let meant = self.pairs.iter().filter(|(_, pair)| is_meant(pair));
        meant.map(|(slot, pair)| SlotKey { slot: slot as u32, generation: pair.generation }).collect()
    }

    /// Ends the sessions of a client whose credentials do not count any more. Those that are not
    /// established yet look again when they are.
    pub(super) fn revoke(&mut self, who: &Who) {
        let keys = self.sessions_of(who);
        self.res.closings.spread(&keys, Reason::Revoked, self.res.now, 0);
    }

    /// Other credentials of a client last until then.
    pub(super) fn extend(&mut self, who: &Who, until_unix_ms: u64) {
        for key in self.sessions_of(who) {
            let at = self.res.now.saturating_add(until_unix_ms.saturating_sub(self.res.unix_now()));
            let Some(info) = self.pair_mut(key).and_then(|pair| pair.info.as_mut()) else { continue };
            if let Some(extended) = info.until(until_unix_ms) {
                *info = Arc::new(extended);
                self.res.closings.add(key, Reason::Expired, at);
            }
        }
    }

    /// The credentials of a session have ended at this time. They may have been extended; then
    /// there is another entry for that.
    pub(super) fn has_expired(&mut self, key: SlotKey) -> bool {
        let unix_now = self.res.unix_now();
        let identity = self.pair_mut(key).and_then(|pair| pair.info.as_ref()?.identity.as_ref());
        identity.and_then(|identity| identity.left_ms(unix_now)) == Some(0)
    }
}
