//! What is tested: the seam between the simulation and a worker. Everything that knows the worker's outward shape
//! stands here.

use crate::bugs::Bug;
use framegate::proto::ended::Ended;

/// A worker over [`crate::calls::SimSys`].
pub trait Subject {
    /// Whether it judges handshakes and frames; a bare relay does not, and is spared such scripts.
    const JUDGES: bool;
    fn start(bug: Option<Bug>) -> Self;
    /// One iteration of the loop; false when it is done.
    fn pass(&mut self) -> bool;
    /// The verdicts since the last call, with the port of the client.
    fn take_ended(&mut self, out: &mut Vec<(u16, Ended)>);
    /// Nothing is left over: sessions, buffers, timers.
    fn at_rest(&self) -> Result<(), String>;
}
