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
        // Clients that have said nothing lose nothing, and what they say now would be refused.
        let lasts = |pair: &Pair<S::Sock>| {
            pair.pending.is_none() || pair.session.as_ref().is_some_and(|session| session.is_streaming(self.res.now))
        };
        let is_open = |key: &SlotKey| self.pairs.get(key.slot as usize).is_some_and(lasts);
        let (open, others): (Vec<_>, Vec<_>) = self.keys().into_iter().partition(is_open);
        self.res.closings.spread(&others, Reason::Drain, self.res.now, 0);
        self.res.closings.spread(&open, Reason::Drain, self.res.now, spread_ms);
    }

    /// An endpoint gets no new sessions any more: those that it has end as their routes say.
    pub(super) fn close_sessions_of(&mut self, endpoint: &Arc<Endpoint>) {
        let (links, mut io) = self.res.links();
        links.drop_of(endpoint, &mut io);
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
    /// established yet end when they are.
    pub(super) fn revoke(&mut self, who: &Who) {
        let keys = self.sessions_of(who);
        for key in &keys {
            if let Some(pending) = self.pair_mut(*key).and_then(|pair| pair.pending.as_mut()) {
                pending.revoked = true;
            }
        }
        self.res.closings.spread(&keys, Reason::Revoked, self.res.now, 0);
    }

    /// Other credentials of a client last until then.
    pub(super) fn extend(&mut self, who: &Who, until_unix_ms: u64) {
        for key in self.sessions_of(who) {
            let Some(pair) = self.pair_mut(key) else { continue };
            let (established, Some(info)) = (pair.pending.is_none(), &mut pair.info) else { continue };
            // The same end again is none that is new.
            let known = info.identity.as_ref().and_then(|identity| identity.expires_unix_ms) == Some(until_unix_ms);
            if let Some(extended) = info.until(until_unix_ms).filter(|_| !known) {
                *info = Arc::new(extended);
                // Others look when they are established.
                if established {
                    self.with_turn(key, |turn| turn.on_extended());
                }
            }
        }
    }

    /// Whether an entry of the sessions that are to be closed still counts: credentials may have
    /// been extended, and then there are others for that.
    pub(super) fn is_wanted(&self, at: Millis, key: SlotKey, reason: Reason) -> bool {
        let pair = self.pairs.get(key.slot as usize).filter(|pair| pair.generation == key.generation);
        let Some(pair) = pair else { return false };
        let ends_at = || {
            pair.info.as_ref()?.identity.as_ref()?.expires_unix_ms.map(|at| at.saturating_sub(self.res.core.unix_ms))
        };
        let renewal = || pair.info.as_ref()?.route.as_ref()?.renewal.as_ref();
        let before_ms = || renewal()?.warning.as_ref().map(|warning| warning.before_ms);
        match reason {
            Reason::Drain => true,
            // A plain request may have ended since, and others have followed it.
            Reason::EndpointDown => pair.pending.is_none() || pair.endpoint_is_down(),
            Reason::Revoked => pair.pending.as_ref().is_none_or(|pending| pending.revoked),
            Reason::Expired => ends_at().is_some_and(|ends_at| ends_at <= at),
            Reason::Warning => ends_at().zip(before_ms()).is_some_and(|(ends_at, ms)| ends_at == at + ms),
        }
    }

    /// Does what is due to a session, by its entry.
    pub(super) fn run_closing(&mut self, at: Millis, key: SlotKey, reason: Reason) {
        match reason.event() {
            _ if !self.is_wanted(at, key, reason) => {}
            Some(event) => self.report(key, event),
            None => self.with_turn(key, |turn| turn.on_warning()),
        }
    }
}
