//! The request for the upstream, once that is reached. The bottom of a turn, beside `attempt`.

use super::Turn;
use crate::policy::Facts;
use crate::policy::template::Variables;
use crate::proto::end::{Cause, Party};
use crate::proto::interface::{Event, Upgrade};
use crate::worker::sys::Sys;

impl<S: Sys> Turn<'_, '_, S> {
    /// The upstream is reached; `reused`: over a connection that has carried other requests.
    pub(super) fn reached(&mut self, reused: bool) -> Event {
        match self.upgrade(reused) {
            Some(upgrade) => Event::Connected(Box::new(upgrade)),
            None => Event::ConnectFailed(Cause::ConnectRefused),
        }
    }

    fn upgrade(&mut self, reused: bool) -> Option<Upgrade> {
        let trace_seed = self.res.random();
        let now = self.res.now;
        let candidates = self.pair.pending.as_mut().and_then(|pending| pending.candidates.as_mut());
        let may_retry = candidates.is_some_and(|candidates| candidates.has_more(now));
        let (session, pending) = (self.pair.session.as_ref()?, self.pair.pending.as_ref()?);
        let (request, route) = (session.request()?, pending.route.as_ref()?);
        let facts = Facts { draining: self.res.core.draining, now: self.res.now, ..pending.facts(&request) };
        let identity = pending.identity.as_deref();
        let variables = Variables { facts: &facts, route: &route.name, captures: &pending.captures, identity };
        let endpoint = self.pair.pick.as_ref()?.endpoint();
        let candidates = pending.candidates.as_ref()?;
        let mut response = route.response_headers.edits(&variables);
        let sent = pending.write_request(&facts, endpoint, trace_seed, &mut response)?;
        if let Some(cookie) = candidates.set_cookie(facts.secure) {
            response.add("Set-Cookie", cookie.into_bytes());
        }
        let (until, by) = (pending.credentials_until(now, self.res.unix_now()), Party::Upstream);
        Some(Upgrade { request: sent, response, may_retry, reused, until, by })
    }
}
