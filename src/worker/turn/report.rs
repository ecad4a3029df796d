//! Events for the session, and for a client that has none yet: its PROXY header or its TLS
//! handshake is under way.

use super::Turn;
use crate::proto::Side;
use crate::proto::end::{Cause, End, Party, Phase};
use crate::proto::interface::Event;
use crate::proto::session::Session;
use crate::worker::sys::Sys;
use std::sync::Arc;

impl<S: Sys> Turn<'_, '_, S> {
    /// Reports an event to the session, and does what follows.
    pub fn report(&mut self, event: Event) {
        self.eventful = true;
        match &mut self.pair.session {
            Some(session) => session.on_event(event, self.res.now),
            None => return self.on_early_event(&event),
        }
        self.settle();
    }

    /// The client's TLS handshake failed, or did not end in time. The session is refused before it
    /// begins; what TLS has to say about it is sent, with a FIN behind it. A client that sent
    /// nothing at all is closed without a word, and so is a proxy whose PROXY header is at fault.
    pub(super) fn client_handshake_failed(&mut self, cause: Cause) {
        let phase = self.pair.phase();
        if phase == Phase::ProxyHeader {
            return self.close(End { party: Party::Downstream, phase, cause });
        }
        if !self.client_spoke() {
            return self.client_handshake_ended(Party::Downstream, cause);
        }
        self.leave_handshakes();
        self.note_failure(self.pair.peer(), cause);
        if let Some(conn) = &mut self.pair.conns[Side::Downstream] {
            conn.give_up_handshake();
        }
        let settings = Arc::clone(&self.res.core.snapshot.settings);
        let refuse = cause == Cause::PlainOnTls;
        self.pair.session = Some(Session::rejected(cause, refuse, settings, self.res.now));
        self.settle();
    }

    /// The client's transport ended before a session began.
    pub(super) fn client_handshake_ended(&mut self, party: Party, cause: Cause) {
        let cause = if self.client_spoke() { cause } else { Cause::NoRequest };
        self.close(End { party, phase: self.pair.phase(), cause });
    }

    fn client_spoke(&self) -> bool {
        self.pair.pending.as_ref().is_some_and(|pending| pending.tls_spoken)
    }

    /// An event for a client whose session has not begun.
    pub(super) fn on_early_event(&mut self, event: &Event) {
        match event {
            // Its request will be answered.
            Event::Drain if self.client_spoke() => {}
            Event::Drain | Event::Stop => self.client_handshake_ended(Party::Proxy, Cause::Stop),
            Event::UrgentData(_) => self.client_handshake_failed(Cause::UrgentData),
            Event::Ended(_, end) => self.client_handshake_ended(Party::Downstream, end.cause()),
            Event::Stalled(_, cause) => self.client_handshake_ended(Party::Proxy, *cause),
            // They answer actions of a session.
            Event::Admitted(_)
            | Event::Refused(_)
            | Event::Connected(_)
            | Event::ConnectFailed(_)
            | Event::NoSocket
            | Event::Queued { .. }
            | Event::Room
            | Event::Exhausted(_)
            | Event::EndpointDown
            | Event::CredentialsEnded(_)
            | Event::Flushed(_)
            | Event::Finished(_)
            | Event::Timer(_) => {}
        }
    }
}
