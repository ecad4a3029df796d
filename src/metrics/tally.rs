//! The events that a worker counts. The fields are declared in `table.rs`.
//!
//! [`Tally::accepted`], [`Tally::opened`] and [`Tally::ended`] move a connection from one
//! count to the next, so that `accepted = handshakes_ok + all refused + handshakes` (but for those
//! that end with the response to a plain request, and responses of routes behind which a connection
//! lives on) and `handshakes_ok = all ended + sessions`.

use super::table::{LOOP_BUSY_US, STATUS_CLASSES, Tally};
use crate::proto::Side;
use crate::proto::end::{Cause, End, Party, Phase};

impl Tally {
    /// A connection was accepted.
    pub fn accepted(&mut self) {
        self.accepted += 1;
        self.handshakes += 1;
    }

    /// The 101 response of a handshake was forwarded.
    pub fn opened(&mut self) {
        self.handshakes_ok += 1;
        self.handshakes = self.handshakes.saturating_sub(1);
        self.sessions += 1;
    }

    /// A plain request was answered with this status. One above those that HTTP knows is "to be
    /// treated as a 5xx" (RFC 9110 section 15).
    pub fn answered(&mut self, status: u16) {
        let class = usize::from(status / 100).clamp(2, 1 + STATUS_CLASSES.len()) - 2;
        if let Some(count) = self.answered.get_mut(class) {
            *count += 1;
        }
    }

    /// A route has answered a request itself, and its connection lives on.
    pub fn replied(&mut self, cause: Cause) {
        self.refused[cause] += 1;
    }

    /// A TLS handshake with `side` succeeded.
    pub fn tls_established(&mut self, side: Side, resumed: bool) {
        self.tls[side][usize::from(resumed)] += 1;
    }

    /// TLS with `side` failed, during the handshake or later.
    pub fn tls_failed(&mut self, side: Side) {
        self.tls[side][2] += 1;
    }

    /// A measured loop iteration took `us` microseconds of CPU time.
    pub fn loop_busy(&mut self, us: u64) {
        let bucket = LOOP_BUSY_US.iter().position(|bound| us <= *bound).unwrap_or(LOOP_BUSY_US.len());
        if let Some(count) = self.loop_busy.get_mut(bucket) {
            *count += 1;
        }
        self.loop_busy_us += us;
    }

    /// A connection ended: a handshake was refused, or an established session ended.
    pub fn ended(&mut self, end: End) {
        match end.phase {
            Phase::Open => {
                self.sessions = self.sessions.saturating_sub(1);
                self.ended[end.cause][column(end.party)] += 1;
            }
            Phase::ProxyHeader | Phase::Tls | Phase::Request | Phase::Connect | Phase::Response => {
                self.handshakes = self.handshakes.saturating_sub(1);
                match end.cause {
                    // Counted by its status, and there may have been others before it.
                    Cause::Answered => {}
                    cause => self.refused[cause] += 1,
                }
            }
        }
    }

    /// The worker panicked and lost its connections: counts each as ended by the panic and resets
    /// the gauges.
    pub fn sessions_lost(&mut self) {
        self.ended[Cause::WorkerPanic][column(Party::Proxy)] += self.sessions;
        self.refused[Cause::WorkerPanic] += self.handshakes;
        (self.sessions, self.handshakes, self.backlog_bytes, self.handshakes_queued) = (0, 0, 0, 0);
        // Those that a worker held it has counted when it went.
        (self.shadow_sessions, self.shadow_backlog_bytes) = (0, 0);
    }
}

/// The column of `Tally::ended`, in the order of `PARTIES` in `table.rs`.
fn column(party: Party) -> usize {
    match party {
        Party::Downstream => 0,
        Party::Upstream => 1,
        Party::Proxy => 2,
    }
}
