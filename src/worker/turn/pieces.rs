//! The pieces of a file: each is forwarded as if an upstream had sent it, and the next one is read
//! when the client has taken it.

use super::Turn;
use crate::memory::PIECE_BYTES;
use crate::proto::Side;
use crate::proto::end::Cause;
use crate::proto::interface::{Event, TransportEnd};
use crate::worker::files::{Ask, Piece};
use crate::worker::sys::Sys;

/// Pieces of one file in a turn that are read here, because they are in memory. The next one is
/// asked of a thread in any case: other pairs have their turns until it comes.
const CACHED_MAX: u32 = 4;

impl<S: Sys> Turn<'_, '_, S> {
    /// What was asked of a thread has been read. A piece that is not awaited any more is dropped.
    pub fn on_piece(&mut self, number: u32, piece: Piece) {
        let Some((bytes, is_cut)) = self.take_piece(number, piece) else { return };
        self.eventful = true;
        self.forward_rest(Side::Upstream, &bytes);
        if is_cut {
            self.report(Event::Ended(Side::Upstream, TransportEnd::Failed(Cause::FileCut)));
        }
        self.read_file();
    }

    /// It is its turn in the line of those that wait to ask.
    pub fn on_line(&mut self) {
        if let Some(serving) = self.pair.serving() {
            serving.waits = false;
            self.read_file();
        }
    }

    /// Reads on, where the client takes more. Away from the path of messages.
    #[inline(never)]
    pub(super) fn read_file(&mut self) {
        for _ in 0..CACHED_MAX {
            if !self.read_cached() {
                break;
            }
        }
        self.ask_file();
    }

    /// Forwards the next piece, or a part of it, if that is in memory. `false`: a thread has to
    /// read it, or nothing is awaited.
    fn read_cached(&mut self) -> bool {
        if !self.awaits_piece() {
            return false;
        }
        let Some(serving) = self.pair.serving() else { return false };
        let Some(Ask::Read(rest)) = &mut serving.next else { return false };
        let Some(mut input) = self.res.input.take() else { return false };
        let max = usize::try_from(rest.end - rest.at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let sys = &mut self.res.core.sys;
        // An error and an end come again where a thread reads, and are reported then.
        let n = input.fill(max, |buf| sys.read_cached(&rest.file, rest.at, buf)).unwrap_or(0);
        rest.at += n as u64;
        if rest.at == rest.end {
            serving.next = None;
        }
        if n > 0 {
            self.eventful = true;
            self.forward_rest(Side::Upstream, input.bytes());
        }
        input.clear();
        self.res.input = Some(input);
        n > 0
    }
}
