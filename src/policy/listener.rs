//! Limits of a listener: how many connections may be half-open, how many come in a time, and how
//! many sessions there are; of all clients together, and of each address. Half-open is a connection
//! from its accept until its request is admitted or it is closed.
//!
//! An address is judged when it is known: the peer's at accept, that of a PROXY header behind it,
//! and that which a trusted proxy names with the request. A trusted proxy itself is not judged.

use super::keyed::{Excess, Keyed};
use super::limit::{Counted, Permit, SessionLimit, SharedRate};
use crate::proto::Millis;
use crate::proto::end::Cause;
use std::net::IpAddr;

/// The limits, with their counts, over all workers and reloads.
#[derive(Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    pub half_open: SessionLimit,
    pub handshakes: Option<SharedRate>,
    pub sessions: SessionLimit,
    /// Of all sessions together.
    pub total: Vec<SharedRate>,
    /// Sessions, handshakes and rates of each address.
    pub by_address: Option<Keyed>,
    /// Its half-open connections, as sessions of a table of their own.
    pub half_open_by_address: Option<Keyed>,
}

/// A connection that may come in.
#[derive(Debug)]
pub struct Entry {
    /// Counts it as half-open while it is held.
    pub permit: Permit,
    /// Its request is to be refused with this.
    pub excess: Option<Excess>,
}

impl ListenerLimits {
    /// A connection was accepted; `address` is its peer, unless that is a trusted proxy. What its
    /// address may not is not taken from the others. An error closes it at once.
    pub fn enter(&self, permit: Permit, address: Option<IpAddr>, now: Millis) -> Result<Entry, Cause> {
        let entry = match address {
            Some(address) => self.meet(permit, address, now)?,
            None => Entry { permit, excess: None },
        };
        let permit = entry.permit.and(&self.half_open.permits()).ok_or(Cause::HalfOpen)?;
        let excess = entry.excess.or_else(|| {
            let retry_ms = self.handshakes.as_ref()?.pass(now).err();
            retry_ms.map(|ms| Excess { cause: Cause::ListenerRate, retry_ms: Some(ms) })
        });
        Ok(Entry { permit, excess })
    }

    /// The address of its client is known. An error closes it at once.
    pub fn meet(&self, permit: Permit, address: IpAddr, now: Millis) -> Result<Entry, Cause> {
        let half_open = match &self.half_open_by_address {
            Some(limit) => limit.session(&limit.address(address), now).map_err(|_| Cause::AddressHalfOpen)?,
            None => None,
        };
        let permit = match half_open {
            Some(counted) => permit.with(counted),
            None => permit,
        };
        Ok(Entry { permit, excess: self.handshake_of(address, now).err() })
    }

    /// One more handshake of this address.
    pub fn handshake_of(&self, address: IpAddr, now: Millis) -> Result<(), Excess> {
        self.by_address.as_ref().map_or(Ok(()), |limit| limit.handshake(&limit.address(address), now))
    }

    /// One more session of this address.
    pub fn session_of(&self, counted: Counted, address: IpAddr, now: Millis) -> Result<Counted, Excess> {
        let full = Excess { cause: Cause::MaxListenerSessions, retry_ms: None };
        let counted = counted.among(&self.sessions, &self.total, full)?;
        match &self.by_address {
            Some(limit) => counted.by(limit, &limit.address(address), now),
            None => Ok(counted),
        }
    }

    /// Rates that one session has here.
    pub fn rates(&self) -> usize {
        self.total.len() + self.by_address.as_ref().map_or(0, |keyed| keyed.rates.len())
    }

    /// The same for a connection that stays without a request, with a permit of that kind. What the
    /// listener has for it is taken back when sessions need it, what the address has is not.
    pub fn stay(&self, permit: Permit, address: IpAddr, now: Millis) -> Option<Permit> {
        let permit = permit.and_idle(&self.sessions.permits())?;
        let Some(limit) = &self.by_address else { return Some(permit) };
        Some(match limit.session(&limit.address(address), now).ok()? {
            Some(counted) => permit.with(counted),
            None => permit,
        })
    }

    /// Goes on counting where `before` is.
    pub fn inherit(&self, before: &ListenerLimits) {
        self.half_open.inherit(&before.half_open);
        self.sessions.inherit(&before.sessions);
        SharedRate::inherit_from(&self.handshakes, &before.handshakes);
        SharedRate::inherit_all(&self.total, &before.total);
        Keyed::inherit_from(&self.by_address, &before.by_address);
        Keyed::inherit_from(&self.half_open_by_address, &before.half_open_by_address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::keyed::{By, HandshakeRate, KeyLimit};
    use crate::policy::limit::Permits;
    use crate::proto::rate::Rate;

    const NOW: Millis = 1_000_000;

    fn rate(units: u64) -> HandshakeRate {
        HandshakeRate { rate: Rate { units, period_ms: 3_600_000 }, burst: units }
    }

    fn each(sessions: Option<u64>, handshakes: Option<u64>) -> Option<Keyed> {
        let handshakes = handshakes.map(rate);
        Some(Keyed::new(By::Address, KeyLimit { sessions, handshakes, ipv6_prefix: 64, entries: 64, shared: false }))
    }

    fn limits() -> ListenerLimits {
        ListenerLimits {
            half_open: SessionLimit::new(None),
            handshakes: None,
            sessions: SessionLimit::new(None),
            total: Vec::new(),
            by_address: None,
            half_open_by_address: None,
        }
    }

    fn permit() -> Permit {
        Permits::new(1).take().unwrap()
    }

    fn client(n: u8) -> Option<IpAddr> {
        Some([10, 0, 0, n].into())
    }

    #[test]
    fn half_open_connections_are_counted_for_all_and_for_each() {
        let limits = ListenerLimits {
            half_open: SessionLimit::new(Some(3)),
            half_open_by_address: each(Some(2), None),
            ..limits()
        };
        let enter = |address| limits.enter(permit(), address, NOW).map(|entry| entry.permit);
        let held = [enter(client(1)).unwrap(), enter(client(1)).unwrap()];
        assert_eq!(enter(client(1)).unwrap_err(), Cause::AddressHalfOpen);
        let other = enter(client(2)).unwrap();
        assert_eq!(enter(client(2)).unwrap_err(), Cause::HalfOpen);
        assert_eq!(enter(None).unwrap_err(), Cause::HalfOpen, "a trusted proxy has its share of the listener's");
        drop(other);
        // What was refused has left nothing behind in either count.
        let proxy = enter(None).unwrap();
        drop((held, proxy));
        let _again: Vec<_> = [1, 2, 2].map(|n| enter(client(n)).unwrap()).into();
    }

    #[test]
    fn an_address_over_its_rate_takes_nothing_from_that_of_the_others() {
        let limits = ListenerLimits {
            handshakes: Some(SharedRate::of_handshakes(rate(3))),
            by_address: each(None, Some(2)),
            ..limits()
        };
        let enter = |n| limits.enter(permit(), client(n), NOW).unwrap().excess.map(|excess| excess.cause);
        let found: Vec<_> = [1, 1, 1, 1, 1, 2, 2, 3].map(enter).into();
        let (own, all) = (Some(Cause::AddressRate), Some(Cause::ListenerRate));
        assert_eq!(found, [None, None, own, own, own, None, all, all]);
    }

    #[test]
    fn counts_go_on_over_a_reload() {
        let new = || ListenerLimits {
            half_open: SessionLimit::new(Some(1)),
            handshakes: Some(SharedRate::of_handshakes(rate(1))),
            sessions: SessionLimit::new(Some(1)),
            total: Vec::new(),
            by_address: each(Some(1), Some(1)),
            half_open_by_address: each(Some(1), None),
        };
        let (before, after) = (new(), new());
        let entry = before.enter(permit(), client(1), NOW).unwrap();
        let session = before.session_of(Counted::new(permit()), client(1).unwrap(), NOW).unwrap();
        after.inherit(&before);
        assert_eq!(after.enter(permit(), client(1), NOW).unwrap_err(), Cause::AddressHalfOpen);
        assert_eq!(after.enter(permit(), client(2), NOW).unwrap_err(), Cause::HalfOpen);
        let cause = |n| after.session_of(Counted::new(permit()), client(n).unwrap(), NOW).unwrap_err().cause;
        assert_eq!(cause(1), Cause::MaxListenerSessions);
        drop((entry, session));
        let again = after.enter(permit(), client(1), NOW).unwrap();
        assert_eq!(again.excess.map(|excess| excess.cause), Some(Cause::AddressRate));
        assert!(after.session_of(Counted::new(permit()), client(1).unwrap(), NOW).is_ok());
    }

    #[test]
    fn workers_together_admit_exactly_as_many_as_may_be_half_open() {
        let limits = ListenerLimits {
            half_open: SessionLimit::new(Some(40)),
            half_open_by_address: each(Some(10), None),
            ..limits()
        };
        let admitted: Vec<(u8, Permit)> = std::thread::scope(|scope| {
            let worker = |_: u8| {
                let enter = |n: u8| Some((n % 5, limits.enter(permit(), client(n % 5), NOW).ok()?.permit));
                scope.spawn(move || (0..100).filter_map(enter).collect::<Vec<_>>())
            };
            let workers: Vec<_> = (0..8).map(worker).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 40);
        for n in 0..5 {
            assert!(admitted.iter().filter(|(of, _)| *of == n).count() <= 10);
        }
        drop(admitted);
        assert_eq!(limits.half_open.permits().taken(), 0);
        let again: Vec<_> = (0..20).filter_map(|_| limits.enter(permit(), client(1), NOW).ok()).collect();
        assert_eq!(again.len(), 10);
    }
}
