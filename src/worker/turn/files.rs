//! A pair whose upstream is a file: to the session it is one that is reached at once, and that
//! answers when a thread does. The bottom of a turn: uses no other file of it.

use super::Turn;
use crate::policy::Facts;
use crate::policy::template::Variables;
use crate::proto::Side;
use crate::proto::end::{Cause, Party};
use crate::proto::interface::{Event, ReadInterest, Upgrade};
use crate::worker::files::{Ask, Piece, Serving, Then};
use crate::worker::sys::Sys;

impl<S: Sys> Turn<'_, '_, S> {
    /// The request is for a file: its response is awaited. [`Turn::ask_file`] asks for that.
    pub(super) fn open_file(&mut self) -> Event {
        match self.file_upgrade() {
            Some(upgrade) => Event::Connected(Box::new(upgrade)),
            None => Event::Exhausted(Some(Cause::FileCut)),
        }
    }

    fn file_upgrade(&mut self) -> Option<Upgrade> {
        let now = self.res.now;
        let unix_now = self.res.unix_now();
        let (session, pending) = (self.pair.session.as_ref()?, self.pair.pending.as_ref()?);
        let (request, route) = (session.request()?, pending.route.as_ref()?);
        let facts = Facts { draining: self.res.core.draining, now, ..pending.facts(&request) };
        let identity = pending.identity.as_deref();
        let variables = Variables { facts: &facts, route: &route.name, captures: &pending.captures, identity };
        let mut response = route.response_headers.edits(&variables);
        // No upstream gets the request; what follows from the credentials for the response stays.
        drop(route.forwarded(&variables, &mut response));
        let (until, by) = (pending.credentials_until(now, unix_now), Party::Proxy);
        Some(Upgrade { request: Vec::new(), response, may_retry: false, reused: false, until, by })
    }

    /// There is a next piece of a file, nothing is under way, and the client takes more.
    pub(super) fn awaits_piece(&mut self) -> bool {
        let is_due = |serving: &mut Serving| serving.next.is_some() && serving.asked.is_none() && !serving.waits;
        self.pair.serving().is_some_and(is_due)
            && self.pair.wants(Side::Upstream) != ReadInterest::Nothing
            && !self.pair.has_backlog(Side::Downstream)
    }

    /// Asks a thread for the next piece, where one is awaited.
    pub(super) fn ask_file(&mut self) {
        if !self.awaits_piece() {
            return;
        }
        let Some(serving) = self.pair.serving() else { return };
        let Some(ask) = serving.next.take() else { return };
        match self.res.asked.begin(self.key) {
            Some(number) => {
                serving.asked = Some(number);
                self.res.core.services.files.ask(ask, self.key, number);
            }
            None => (serving.next, serving.waits) = (Some(ask), true),
        }
    }

    /// The bytes of a piece that is awaited, and whether the file ends before its time.
    pub(super) fn take_piece(&mut self, number: u32, piece: Piece) -> Option<(Vec<u8>, bool)> {
        let serving = self.pair.serving().filter(|serving| serving.asked == Some(number))?;
        serving.asked = None;
        let is_cut = matches!(piece.then, Then::Cut);
        if let Then::Read(rest) = piece.then {
            serving.next = Some(Ask::Read(rest));
        }
        Some((piece.bytes, is_cut))
    }

    /// The file is not needed any more.
    pub(super) fn close_file(&mut self) {
        if let Some(pending) = &mut self.pair.pending {
            pending.file = None;
        }
    }
}
