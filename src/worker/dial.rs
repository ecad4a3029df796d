//! One attempt to connect to the next of a session's, a call's or a shadow's candidates. What
//! follows from its outcome differs between them, and is theirs.

use super::conn::Conn;
use super::sys::{self, Sys};
use super::token::Role;
use crate::policy::candidates::{Candidates, Next};
use crate::policy::endpoint::{Endpoint, Pick};
use crate::proto::Millis;
use crate::proto::end::Cause;
use std::io;
use std::sync::Arc;

pub(super) enum Dialled<K> {
    /// The attempt is under way.
    Connecting(Pick, Conn<K>),
    /// A connection that is there already has been taken for it.
    Taken(Pick, Conn<K>),
    /// There was no descriptor or memory for it. Neither this endpoint nor another one is at fault:
    /// the next attempt is the same one.
    NoSocket(Pick),
    /// It failed at once; the next attempt is another one.
    Failed(Pick, io::Error),
    /// No endpoint has room: ask again in a moment, and give up at this time.
    Wait { until: Millis },
    /// There is nothing to try. The cause, unless it is that of the last attempt.
    Refuse(Option<Cause>),
}

/// One attempt: the token and role of its connection, and when it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial {
    pub token: usize,
    pub role: Role,
    pub now: Millis,
}

/// `idle` gives a connection to an endpoint, if one is kept.
pub(super) fn dial<S: Sys>(
    candidates: &mut Candidates,
    Dial { token, role, now }: Dial,
    sys: &mut S,
    mut idle: impl FnMut(&Arc<Endpoint>, &mut S) -> Option<Conn<S::Sock>>,
) -> Dialled<S::Sock> {
    loop {
        let (pick, target, source) = match candidates.next(now) {
            Next::Try { pick, target, source } => (pick, target, source),
            Next::Wait { until } => return Dialled::Wait { until },
            Next::Refuse(cause) => return Dialled::Refuse(cause),
        };
        if let Some(conn) = idle(pick.endpoint(), sys) {
            candidates.advance();
            return Dialled::Taken(pick, conn);
        }
        let sock = sys.connect(sys::Target::new(&target, source));
        let error = match sock.and_then(|sock| sys.register(&sock, token).map(|()| sock)) {
            Ok(sock) => {
                candidates.advance();
                return Dialled::Connecting(pick, Conn::connecting(sock, role));
            }
            Err(error) => error,
        };
        if sys::is_exhaustion(&error) {
            return Dialled::NoSocket(pick);
        }
        if !(sys::is_out_of_ports(&error) && candidates.next_source()) {
            candidates.advance();
            return Dialled::Failed(pick, error);
        }
    }
}
