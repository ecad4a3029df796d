//! What was read of files comes back to the worker, and the sessions that wait to ask come next.

use super::Worker;
use super::files::Piece;
use super::sys::Sys;
use super::token::SlotKey;

impl<S: Sys> Worker<'_, S> {
    /// A question about a file has been answered: another one can be asked.
    pub(super) fn on_piece(&mut self, to: SlotKey, number: u32, piece: Piece) {
        self.res.asked.end();
        self.with_turn(to, |turn| turn.on_piece(number, piece));
        while let Some(next) = self.res.asked.next_in_line() {
            self.with_turn(next, |turn| turn.on_line());
        }
    }
}
