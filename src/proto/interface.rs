//! What is said between a session and its shell: events in, actions out, and the plain values they carry.

use crate::proto::close::Close;
use crate::proto::end::{Cause, End};
use crate::proto::relay::{Counts, FrameLimits, Mode};
use crate::proto::{Millis, Side, Sides};

/// Timeouts in milliseconds; every phase has one. Only `idle_ms` may be 0, which is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The client's TLS handshake, from accept on. One with an upstream belongs to its try to connect.
    pub tls_ms: Millis,
    pub request_head_ms: Millis,
    /// One try.
    pub connect_ms: Millis,
    /// All tries together.
    pub connect_total_ms: Millis,
    pub upstream_head_ms: Millis,
    pub idle_ms: Millis,
    pub close_ms: Millis,
    /// A receiver that takes nothing for so long ends its session.
    pub write_stall_ms: Millis,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tls_ms: 10_000,
            request_head_ms: 10_000,
            connect_ms: 3_000,
            connect_total_ms: 10_000,
            upstream_head_ms: 10_000,
            idle_ms: 300_000,
            close_ms: 5_000,
            write_stall_ms: 60_000,
        }
    }
}

/// What a session needs to judge bytes, borrowed for one call.
pub struct RelayInput<'a> {
    pub now: Millis,
    pub rules: FrameLimits,
    /// Of the direction that the bytes take.
    pub counts: &'a mut Counts,
}

/// What the shell may read from a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadInterest {
    Nothing,
    /// At most so many bytes in one read.
    Bytes(usize),
    /// So many bytes of payload that nobody needs to see may pass in the kernel ([`Session::on_passed`]), or be read
    /// like any others. Only where the route splices.
    ///
    /// [`Session::on_passed`]: super::session::Session::on_passed
    Payload(u64),
    /// Whatever comes is thrown away; only its amount and its end matter.
    Discard,
}

/// What has happened, other than bytes.
#[derive(Debug)]
pub enum Event {
    /// The answer to [`Action::Decide`].
    Admitted(Box<Admission>),
    Refused(Cause),
    /// The connection is up; the new request head for it, whole.
    Connected(Vec<u8>),
    /// One try has failed; the next one is asked for with [`Action::Connect`].
    ConnectFailed(Cause),
    /// No endpoint is left to try.
    Exhausted,
    /// The client has said something of a TLS handshake.
    Spoke,
    /// The client's TLS handshake has ended well.
    Secured,
    /// TLS of that side has failed; the alert that says so is on its way.
    Insecure(Side, Cause),
    /// All that was read before is delivered; no more will come.
    Eof(Side),
    /// The same, but TLS was not ended: more may have been said.
    Truncated(Side),
    Reset(Side),
    /// All that waited for that side has left.
    Flushed(Side),
    /// The FIN asked for with [`Action::HalfClose`] has left.
    Finished(Side),
    /// TCP urgent data.
    Urgent(Side),
    /// `Side` took nothing for too long, or the pool ran short and it was the longest-stalled.
    Stalled(Side, Cause),
    Drain,
    Stop,
    /// A deadline of [`Session::deadline`](super::session::Session::deadline) has come.
    Timer(Timer),
}

/// Which deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    TlsHandshake,
    RequestHead,
    Connect,
    ConnectTotal,
    ResponseHead,
    Linger,
    Idle,
    DataAfterClose,
    Close,
}

/// What admission brings along.
#[derive(Debug)]
pub struct Admission {
    pub request_id: Box<str>,
    pub mode: Mode,
    /// Close code for the client when the upstream ends without a Close; `None` passes the FIN on.
    pub upstream_loss_code: Option<u16>,
    /// Long payloads pass unseen.
    pub splice: bool,
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Judge [`Session::request`](super::session::Session::request); answer with `Admitted` or `Refused`.
    Decide,
    /// Begin the next try, dropping one that is under way; answer with `Connected`, `ConnectFailed` or `Exhausted`.
    Connect,
    /// Write our refusal to the client.
    Refuse(Cause),
    /// Send these bytes behind all that was sent there.
    Send(Side, Vec<u8>),
    /// The 101 has been sent; these bytes of the client came early and are now to be judged as frames.
    Opened { early: Vec<u8>, subprotocol: Option<Box<[u8]>> },
    /// Send a Close of ours behind all that was sent there, masked toward the upstream.
    Inject(Side, Close),
    /// FIN behind all that was sent there; answer with `Finished`.
    HalfClose(Side),
    /// Close that connection now; nothing is owed to it.
    Hangup(Side),
    /// Send what the kernel still takes, then RST.
    Abort(Side),
    /// The session is over.
    Close(End),
}

/// What a session has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub frames: Sides<u64>,
    pub bytes: Sides<u64>,
    pub close_codes: Sides<Option<u16>>,
}
