//! Questions of policy: to a server by a call of our own, or to a service thread.

use super::Turn;
use crate::policy::ask::{Answer, Check};
use crate::worker::sys::Sys;
use crate::worker::token::SlotKey;
use std::sync::Arc;

impl<S: Sys> Turn<'_, '_, S> {
    /// Puts a question to whom it is for; the call that asks it, if it is one.
    ///
    /// # Errors
    /// The answer: it is known already, or cannot be asked.
    pub(super) fn ask(&mut self, check: &Check) -> Result<Option<SlotKey>, Answer> {
        match check {
            Check::Subrequest(subrequest) => {
                if let Some(kept) = self.res.calls.kept(subrequest, self.res.now) {
                    return Err(kept);
                }
                let tls = Arc::clone(&self.res.core.tls);
                self.res.core.generation = SlotKey::next_generation(self.res.core.generation);
                let generation = self.res.core.generation;
                let (calls, mut io) = self.res.calls();
                calls.start(subrequest, self.key, &tls, generation, &mut io).map(Some)
            }
            Check::Service(_) | Check::Keys(_) | Check::Password(_) => {
                let asked = self.res.core.services.ask(check, self.key);
                if asked { Ok(None) } else { Err(Answer::Unavailable) }
            }
        }
    }
}
