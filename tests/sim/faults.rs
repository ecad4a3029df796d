//! Every kind of fault in the simulation, how often each may occur in a schedule, and how often it
//! did.

use crate::rng::Rng;

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $kind:ident $name:literal $often:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Fault { $($(#[doc = $doc])* $kind,)* }

        pub const NAMES: &[&str] = &[$($name),*];
        /// One in how many chances, in schedules with this kind; 0 if the script decides.
        const OFTEN: &[u32] = &[$($often),*];
    };
}

faults! {
    ShortRead "short read" 10;
    /// Nothing to read after an event that reported data; an edge follows.
    EmptyRead "EAGAIN on recv after an event" 14;
    ShortWrite "short write" 10;
    ShortSplice "short splice" 6;
    NoPipe "no pipe to be had" 4;
    BlockedWrite "EAGAIN on send while writable" 16;
    FullBuffer "send buffer really full" 0;
    Interrupted "EINTR in poll" 16;
    EarlyTimer "poll returns early" 24;
    LateTimer "poll returns late" 6;
    Skew "the clock jumps" 60;
    FinWithData "FIN together with data" 0;
    RstWithData "RST together with data" 0;
    RstDestroysData "RST destroys unread data" 0;
    UrgentData "urgent data" 0;
    Aborted "ECONNABORTED on accept" 2;
    NoFile "EMFILE on accept" 24;
    NoTable "ENFILE on accept" 40;
    NoBufs "ENOBUFS on accept" 40;
    NoMemory "ENOMEM on accept" 40;
    StaleToken "event of a closed socket" 3;
    Reordered "events of a batch reordered" 3;
    MidPass "the world moves during a pass" 14;
    SlowReader "peer stops reading" 0;
    SlowWriter "peer stops writing" 0;
    TornByte "single bytes on the wire" 0;
    TinyWindow "tiny socket buffers" 0;
    CutSlice "read handed over in slices" 6;
    Glued "frames glued to a head" 0;
    NoSocket "EMFILE on connect" 12;
    ConnectRefused "connect refused" 0;
    ConnectFailed "connect fails at once" 0;
    ConnectLost "connect never answered" 0;
}

pub const KINDS: usize = NAMES.len();

/// The faults of one schedule. Each schedule has some kinds off, so that rare ones also occur
/// alone.
#[derive(Debug, Clone)]
pub struct Faults {
    pub counts: [u64; KINDS],
    often: [u32; KINDS],
    rng: Rng,
    /// Switches all faults off.
    pub calm: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Faults { counts: [0; KINDS], often: [0; KINDS], rng: Rng::default(), calm: false }
    }
}

impl Faults {
    /// Draws which kinds are on, keeps the counts.
    pub fn begin(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
        self.calm = false;
        for (often, kind) in self.often.iter_mut().zip(OFTEN) {
            *often = match self.rng.below(8) {
                0..3 => 0,
                3..6 => *kind,
                _ => kind.div_ceil(3),
            };
        }
    }

    /// What is under test is spared this one.
    pub fn never(&mut self, fault: Fault) {
        self.often[fault as usize] = 0;
    }

    /// Whether `fault` occurs now; counts it.
    #[inline]
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = !self.calm && self.rng.one_in(self.often[fault as usize]);
        self.counts[fault as usize] += u64::from(strikes);
        strikes
    }

    /// Counts a fault that the script or the course of events caused.
    #[inline]
    pub fn note(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }

    /// Too few have occurred: reads and writes are cut from now on.
    pub fn hurry(&mut self) {
        for fault in [Fault::ShortRead, Fault::EmptyRead, Fault::ShortWrite, Fault::BlockedWrite, Fault::MidPass] {
            self.often[fault as usize] = 3;
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}
