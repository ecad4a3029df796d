//! HOT: moves bytes one way. Reads, shows every slice to the session, and writes what may be
//! forwarded; the connections keep what the kernel refused, and see to TLS. Owns nothing; never
//! looks inside a frame.

use super::Turn;
use crate::proto::Side;
use crate::proto::interface::{Event, ReadInterest, TransportEnd};
use crate::proto::relay::RelayInput;
use crate::worker::conn::Input;
use crate::worker::lend::Io;
use crate::worker::socket::Progress;
use crate::worker::sys::{PIPE_BYTES, Sys};

/// Reads of one direction in a turn.
const READS_MAX: u32 = 4;
/// Bytes of one direction in a turn.
const TURN_BYTES: usize = 256 * 1024;

impl<S: Sys> Turn<'_, '_, S> {
    /// Reads from `from` while it has something, it is wanted, and the budget lasts. A side that
    /// may still be read afterwards belongs in the ready ring.
    #[inline]
    pub(super) fn relay(&mut self, from: Side) {
        let (mut reads, mut bytes) = (0, 0);
        while reads < READS_MAX && bytes < TURN_BYTES && !self.res.pool.is_short() {
            let progress = match self.pair.next_read(from) {
                ReadInterest::Nothing => return,
                ReadInterest::Discard => self.discard(from),
                ReadInterest::Payload(payload) if self.pair.is_plain() => self.splice(from, payload),
                ReadInterest::Payload(payload) => self.forward(from, usize::try_from(payload).unwrap_or(usize::MAX)),
                ReadInterest::Bytes(max) => self.forward(from, max),
                ReadInterest::Shared => self.forward_shared(from),
            };
            match progress {
                Progress::Moved(n) => bytes += n.get(),
                Progress::Blocked => return,
                Progress::Ended(end) => return self.end(from, end),
            }
            reads += 1;
        }
    }

    /// The bytes of a side have ended. Where they were cut, the peer that reads the rest of them is
    /// to see that too. Before the relay it reads none of them: what it gets is of ours, or of the
    /// endpoint that is tried next.
    fn end(&mut self, from: Side, end: TransportEnd) {
        let relayed = self.pair.session.as_ref().is_some_and(|session| session.is_established());
        match (end, &mut self.pair.conns[from.other()]) {
            (TransportEnd::Cut, Some(other)) if relayed => other.mark_cut(),
            (TransportEnd::Failed(_), _) => self.res.core.tally.tls_failed(from),
            _ => {}
        }
        self.report(Event::Ended(from, end));
    }

    /// One read, forwarded as far as the session allows.
    #[inline(always)]
    fn forward(&mut self, from: Side, max: usize) -> Progress {
        let Some(mut input) = self.res.input.take() else { return Progress::Blocked };
        let progress = match &mut self.pair.conns[from] {
            Some(conn) if conn.is_plain() => conn.read(max, &mut input, &mut self.res.io()),
            Some(_) => self.read_tls(from, max, &mut input),
            None => Progress::Blocked,
        };
        self.forward_slices(from, input.bytes());
        input.clear();
        self.res.input = Some(input);
        progress
    }

    /// One read of a session that shares limits with others.
    #[inline(never)]
    fn forward_shared(&mut self, from: Side) -> Progress {
        let interest = self.pair.session.as_ref().map(|session| session.wants_now(from, self.res.now));
        match interest {
            Some(ReadInterest::Payload(payload)) if self.pair.is_plain() => self.splice(from, payload),
            Some(ReadInterest::Payload(payload)) => self.forward(from, usize::try_from(payload).unwrap_or(usize::MAX)),
            Some(ReadInterest::Bytes(max)) => self.forward(from, max),
            Some(ReadInterest::Nothing | ReadInterest::Discard | ReadInterest::Shared) | None => Progress::Blocked,
        }
    }

    /// A read that may make TLS send something of its own, and so leave a backlog toward `from`.
    #[inline(never)]
    fn read_tls(&mut self, from: Side, max: usize, input: &mut Input) -> Progress {
        let Some(conn) = &mut self.pair.conns[from] else { return Progress::Blocked };
        let had_backlog = conn.has_backlog();
        let progress = conn.read(max, input, &mut self.res.io());
        if !had_backlog && conn.has_backlog() {
            self.stalled(from);
        }
        match progress {
            Progress::Ended(_) if from == Side::Upstream && !input.bytes().is_empty() => {
                self.read_last(progress, input)
            }
            progress => progress,
        }
    }

    /// The last bytes of an upstream, with their end: where these have ended its request, what the
    /// pair has now is another connection, and the end is not its own.
    fn read_last(&mut self, progress: Progress, input: &mut Input) -> Progress {
        let attempt = self.pair.attempt_role;
        self.forward_rest(Side::Upstream, input.bytes());
        input.clear();
        let is_its_own = self.pair.attempt_role == attempt && self.pair.conns[Side::Upstream].is_some();
        if is_its_own { progress } else { Progress::Blocked }
    }

    /// What a TLS handshake brought behind its end.
    pub(super) fn forward_rest(&mut self, from: Side, bytes: &[u8]) {
        self.forward_slices(from, bytes);
    }

    /// Shows the session what was read, slice by slice, and sends what may be forwarded.
    #[inline(always)]
    fn forward_slices(&mut self, from: Side, mut unread: &[u8]) {
        while !unread.is_empty() {
            let slice = unread.get(..self.res.core.sys.next_slice(unread.len())).unwrap_or(unread);
            let Some(session) = &mut self.pair.session else { return };
            let input = RelayInput {
                now: self.res.now,
                counts: &mut self.res.core.tally.relay,
                authored: &mut self.res.authored,
            };
            let relayed = session.on_bytes(from, slice, input);
            debug_assert!(relayed.consumed > 0 && relayed.forward <= relayed.consumed);
            let (now, later) = unread.split_at_checked(relayed.consumed.max(1)).unwrap_or((unread, &[]));
            if relayed.forward > 0 || !self.res.authored.is_empty() {
                self.send_relayed(from.other(), now.get(..relayed.forward).unwrap_or(now), relayed.last);
            } else if session.wants(from) == ReadInterest::Discard {
                // It came in one read with what closed this direction.
                self.res.core.tally.discarded_bytes += relayed.consumed as u64;
            }
            unread = later;
            self.settle();
        }
    }

    /// Sends what the session authored, then `bytes`.
    #[inline(always)]
    fn send_relayed(&mut self, to: Side, bytes: &[u8], last: bool) {
        let Some(conn) = &mut self.pair.conns[to] else { return self.res.authored.clear() };
        let res = &mut *self.res;
        let mut io = Io { sys: &mut res.core.sys, sealed: &mut res.sealed, pool: &mut res.pool, now: res.now };
        let stalled = conn.write(&res.authored, bytes, last, &mut io);
        if self.pair.shadowed {
            self.shadow_relayed(to, bytes);
        }
        self.res.authored.clear();
        if stalled {
            self.stalled(to);
        }
    }

    fn discard(&mut self, from: Side) -> Progress {
        let Some(mut input) = self.res.input.take() else { return Progress::Blocked };
        let (mut n, mut progress, mut stalled) = (0, Progress::Blocked, false);
        if let Some(conn) = &mut self.pair.conns[from] {
            let had_backlog = conn.has_backlog();
            (n, progress) = conn.discard(&mut input, &mut self.res.io());
            stalled = !had_backlog && conn.has_backlog();
        }
        self.res.input = Some(input);
        if stalled {
            self.stalled(from);
        }
        if n > 0 {
            self.res.core.tally.discarded_bytes += n as u64;
            if let Some(session) = &mut self.pair.session {
                session.on_discarded(from, n, self.res.now);
            }
            self.settle();
        }
        progress
    }

    /// One splice of up to `payload` bytes; without a pipe, one read as always.
    fn splice(&mut self, from: Side, payload: u64) -> Progress {
        let max = usize::try_from(payload).unwrap_or(usize::MAX);
        // A limit may be the reason for that number: no more is read, either.
        let Some(pipe) = self.res.pool.take_pipe(&mut self.res.core.sys) else { return self.forward(from, max) };
        let progress = match &mut self.pair.conns[from] {
            Some(conn) => conn.splice_in(&mut self.res.core.sys, pipe, max.min(PIPE_BYTES)),
            None => Progress::Blocked,
        };
        let Progress::Moved(n) = progress else {
            self.res.pool.give_pipe(pipe);
            return progress;
        };
        let (counts, authored) = (&mut self.res.core.tally.relay, &mut self.res.authored);
        if let Some(session) = &mut self.pair.session {
            session.on_spliced(from, n.get() as u64, RelayInput { now: self.res.now, counts, authored });
        }
        self.write_pipe(from.other(), pipe, n.get());
        // The end of the frame may be what a frame of ours waits for.
        self.settle();
        progress
    }
}
