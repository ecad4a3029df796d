//! The session's side of its shadow: it is opened when the session is established, gets what goes
//! upstream, and is finished with the session. The bottom of a turn: uses no other file of it. Only
//! for pairs that are `shadowed`; all others pass by on one branch.

use super::Turn;
use crate::proto::Side;
use crate::proto::shadow::Opening;
use crate::worker::pair::Pending;
use crate::worker::shadow::Start;
use crate::worker::sys::Sys;
use crate::worker::token::SlotKey;
use std::sync::Arc;

impl<S: Sys> Turn<'_, '_, S> {
    /// Opens the shadow of a session that has just been established.
    pub(super) fn open_shadow(&mut self, mut pending: Box<Pending>, opening: Opening) {
        let (Some(candidates), Some(route)) = (pending.shadow.take(), pending.route.as_ref()) else { return };
        let Some(shadow) = &route.shadow else { return };
        let (settings, buffer_bytes) = (Arc::clone(&route.settings), shadow.buffer_bytes);
        let mut start = Start { pending, opening, candidates, settings, buffer_bytes };
        // Those of the session.
        start.pending.candidates = None;
        self.res.core.generation = SlotKey::next_generation(self.res.core.generation);
        let generation = self.res.core.generation;
        let (shadows, mut io) = self.res.shadows();
        self.pair.shadowed = shadows.open(self.key, start, generation, &mut io);
    }

    /// What the session authored, then `bytes`, went to `to`.
    #[cold]
    pub(super) fn shadow_relayed(&mut self, to: Side, bytes: &[u8]) {
        let authored = std::mem::take(&mut self.res.authored);
        self.shadow_sent(to, &authored, bytes);
        self.res.authored = authored;
    }

    /// `[first, bytes]` went to `to`.
    #[cold]
    pub(super) fn shadow_sent(&mut self, to: Side, first: &[u8], bytes: &[u8]) {
        if to == Side::Upstream {
            let (shadows, mut io) = self.res.shadows();
            self.pair.shadowed = shadows.append(self.key, [first, bytes], &mut io);
        }
    }

    /// Nothing more goes upstream. `over`: the session has ended.
    #[cold]
    pub(super) fn finish_shadow(&mut self, over: bool) {
        let (shadows, mut io) = self.res.shadows();
        shadows.finish(self.key, over, &mut io);
    }
}
