//! The vocabulary between a session and its shell: events in, actions out, and the plain values
//! that they carry. The contract (who calls what, when) is in [`super::session`].

use super::end::{Cause, End, Party};
use super::http1::{FieldEdits, Reply};
use super::plain::Inbound;
use super::relay::{OwnFrame, SessionLimits, TakenMessage};
use super::settings::Settings;
use super::shadow::Opening;
use super::{Millis, Side, Sides};
use std::sync::Arc;

/// What the worker may read from a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadInterest {
    Nothing,
    /// At most so many bytes in one read.
    Bytes(usize),
    /// As many bytes as limits allow that other sessions share: [`Session::wants_now`] says how
    /// many.
    ///
    /// [`Session::wants_now`]: super::session::Session::wants_now
    Shared,
    /// So many bytes of payload may be forwarded in the kernel ([`Session::on_spliced`]), or be
    /// read like any others. Only where the route splices.
    ///
    /// [`Session::on_spliced`]: super::session::Session::on_spliced
    Payload(u64),
    /// Whatever arrives is discarded; only its amount and its end matter.
    Discard,
}

/// How the byte stream of a side ended, whatever transport carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportEnd {
    /// An orderly end: FIN, with TLS after a close_notify.
    Eof,
    /// A FIN without a close_notify: TLS cannot tell whether bytes are missing.
    Cut,
    Reset,
    /// The transport itself failed; an alert, if there is one to send, has been sent.
    Failed(Cause),
}

impl TransportEnd {
    /// The cause for an end that was not expected in an exchange.
    pub fn cause(self) -> Cause {
        match self {
            TransportEnd::Eof => Cause::Eof,
            TransportEnd::Cut => Cause::TlsTruncated,
            TransportEnd::Reset => Cause::Reset,
            TransportEnd::Failed(cause) => cause,
        }
    }
}

/// What has happened, other than bytes.
#[derive(Debug)]
pub enum Event {
    /// The verdict on [`Action::Decide`].
    Admitted(Admission),
    Refused(Refusal),
    /// The upstream connection is up. Boxed: events are moved for every deadline that is looked at.
    Connected(Box<Upgrade>),
    /// One connect attempt failed; the next one is asked for with [`Action::Connect`].
    ConnectFailed(Cause),
    /// There was no descriptor or memory for an attempt; it is made again a little later.
    NoSocket,
    /// No endpoint has room: ask again in a moment, and give up at this time.
    Queued {
        until: Millis,
    },
    /// There may be room now: a session that has been queued asks again at once.
    Room,
    /// No endpoint is left to try. The cause, unless it is that of the last attempt.
    Exhausted(Option<Cause>),
    /// The bytes of that side have ended; all that arrived before has been delivered.
    Ended(Side, TransportEnd),
    /// The backlog toward that side has left.
    Flushed(Side),
    /// The FIN asked for with [`Action::HalfClose`] has left.
    Finished(Side),
    /// TCP urgent data has arrived from that side.
    UrgentData(Side),
    /// That side took nothing for too long, or the pool ran short and it was the longest-stalled.
    Stalled(Side, Cause),
    Drain,
    /// The endpoint gets no new sessions any more, and the settings end this one for that.
    EndpointDown,
    /// The client's credentials do not count any more, for this cause.
    CredentialsEnded(Cause),
    Stop,
    /// The deadline that [`Session::deadline`](super::session::Session::deadline) named has passed.
    Timer(Timer),
}

/// What policy's admission gives a session.
#[derive(Debug)]
pub struct Admission {
    pub request_id: Box<str>,
    /// The settings of the route, for the rest of the session.
    pub settings: Arc<Settings>,
    /// Its opening handshake will be made with a shadow, too: [`Action::Established`] has it.
    pub shadowed: bool,
    /// Beside those of the settings.
    pub limits: SessionLimits,
    /// It is a plain request, and no WebSocket handshake.
    pub plain: Option<Inbound>,
}

/// What a session asks of its upstream, and what it makes of the response.
#[derive(Debug)]
pub struct Upgrade {
    /// The whole request head to send.
    pub request: Vec<u8>,
    /// Changes to the fields of the response, be it a 101 or another one that is passed on. Not to
    /// those of our own refusals.
    pub response: FieldEdits,
    /// There is another endpoint for a retry.
    pub may_retry: bool,
    /// The connection has carried other requests: it may have ended at this moment.
    pub reused: bool,
    /// When the credentials of a plain request end, if they do.
    pub until: Option<Millis>,
    /// Who answers: the upstream, or the proxy with a file.
    pub by: Party,
}

/// Why a request is refused, and what its response needs beyond the cause's row in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub cause: Cause,
    /// A field that its response has beside those of every refusal: Location, WWW-Authenticate.
    pub field: Option<(&'static str, Box<str>)>,
    /// What a route answers instead.
    pub reply: Option<Box<Reply>>,
}

impl Refusal {
    /// The status of its response; 0 where none is sent.
    pub fn status(&self) -> u16 {
        self.reply.as_ref().map_or(self.cause.info().status, |reply| reply.status)
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Refusal {
        Refusal { cause, field: None, reply: None }
    }
}

/// The deadlines of a session, one doc line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The request head is complete, or the client gets 408.
    RequestHead,
    /// Policy has decided, or the client gets 504.
    Decision,
    /// The connect attempt under way succeeds, or the next one starts.
    Connect,
    /// One of the connect attempts succeeds, or the client gets 504.
    ConnectTotal,
    /// The upstream's response head is complete (504), and so is the body of one that is not a 101.
    ResponseHead,
    /// More of the request's body has come, or the client gets 408.
    RequestBody,
    /// The credentials of a plain request end: so does its response.
    Credentials,
    /// A refused client has read its response and closed.
    Linger,
    /// Bytes have moved on either leg.
    Idle,
    /// A ping of ours is due, or its answer is.
    Heartbeat,
    /// A direction that was over a limit is read again, or has been for too long.
    Resume,
    /// The session has reached its age.
    Age,
    /// The other side answers the Close of a peer that sends data after it, or that peer gets 1002.
    DataAfterClose,
    /// Both sides have closed; a response that is to end does so.
    Close,
}

/// What the worker is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Judge [`Session::request`](super::session::Session::request); report `Admitted` or
    /// `Refused`.
    Decide,
    /// Start the next connect attempt, dropping one that is under way; report `Connected`,
    /// `ConnectFailed`, `NoSocket`, `Queued` or `Exhausted`.
    Connect,
    /// The endpoint under way failed after the request was sent: the same with the next one.
    Retry,
    /// The connection that was reused has ended: the same with a new one to this endpoint.
    Renew,
    /// Write our refusal to the client; without a body for HEAD.
    Refuse { refusal: Refusal, head_only: bool },
    /// Write the response of the route to the client, which may ask again.
    Reply { refusal: Refusal, head_only: bool },
    /// Send these bytes behind everything sent before.
    Send(Side, Vec<u8>),
    /// The 101 has been sent: the WebSocket is established. `opening` where the admission asked for
    /// it.
    Established { subprotocol: Option<Box<[u8]>>, opening: Option<Box<Opening>> },
    /// Send a frame of ours behind everything sent before, masked toward the upstream.
    SendFrame(Side, OwnFrame),
    /// The client has sent this with new credentials; it was not forwarded. They are judged while
    /// the session goes on.
    Refresh(TakenMessage),
    /// FIN behind everything sent before; report `Finished`.
    HalfClose(Side),
    /// Close that connection now; nothing is owed to it.
    Hangup(Side),
    /// Send what the kernel still takes, then RST.
    Abort(Side),
    /// An event stream begins: an end that was due before is to be reported once more.
    Streaming,
    /// The upstream has answered, and takes another request.
    Release,
    /// The session is over, and the client may ask again: the next one begins, with these bytes.
    Next { end: End, early: Vec<u8> },
    /// The session is over.
    Close(End),
}

/// The totals of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// By the side they came from.
    pub frames: Sides<u64>,
    pub bytes: Sides<u64>,
    /// By the side they went to.
    pub close_codes: Sides<Option<u16>>,
}
