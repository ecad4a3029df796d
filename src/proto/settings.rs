//! The settings that a session runs under, as plain values: what a route (or, before a route is
//! known, the process) allows a session to do, and for how long. Resolved once, when the
//! configuration is built; shared by all sessions of a route. Decides nothing.

use super::rate::RateLimit;
use super::{Millis, Sides};
use std::sync::Arc;

/// Everything of the configuration that a session looks at.
///
/// A session starts under the settings of the process and continues under those of its route once
/// policy has admitted it. A reload does not change the settings of a running session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a request head, and of a response head of the upstream.
    pub head_bytes: usize,
    /// Bytes of the body of a plain request.
    pub max_body: u64,
    pub timeouts: Timeouts,
    pub retry_on: RetryOn,
    pub relay: RelaySettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            head_bytes: 16 << 10,
            max_body: 1 << 20,
            timeouts: Timeouts::default(),
            retry_on: RetryOn::default(),
            relay: RelaySettings::default(),
        }
    }
}

/// Failures after which a request that was sent is sent again, to one endpoint after the other.
/// Those before may have acted on it: none by default. A connection that cannot be made is always
/// followed by the next attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// The connection ended without a byte of a response.
    pub closed: bool,
    /// The response did not come in time.
    pub timeout: bool,
    /// Responses with one of these.
    pub statuses: Vec<u16>,
}

/// What went wrong with a request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Closed,
    Timeout,
    Status(u16),
}

impl RetryOn {
    pub fn includes(&self, failure: Failure) -> bool {
        match failure {
            Failure::Closed => self.closed,
            Failure::Timeout => self.timeout,
            Failure::Status(status) => self.statuses.contains(&status),
        }
    }
}

/// How an established WebSocket is relayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    pub mode: Mode,
    pub limits: FrameLimits,
    /// Close code for the client when the upstream ends without a Close; `None` forwards the FIN.
    pub upstream_loss_code: Option<u16>,
    /// Close code for the client when the upstream breaks the protocol.
    pub upstream_error_code: u16,
    /// What becomes of the session when its endpoint goes down, is drained or removed.
    pub endpoint_down: EndpointDown,
    /// Close code for that.
    pub endpoint_down_code: u16,
    /// Close codes for the client when its credentials end, and when they are revoked.
    pub expired_code: u16,
    pub revoked_code: u16,
    /// Long payloads are spliced: they are forwarded in the kernel, unseen.
    pub splice: bool,
    pub flow: FlowLimits,
    /// Pings of ours find peers that are gone; `None` sends none.
    pub heartbeat: Option<Heartbeat>,
    /// Messages of the client that hold new credentials: they are not forwarded. Only in mode
    /// `framed`.
    pub refresh: Option<Arc<RefreshForm>>,
}

/// "The server was acting as a gateway or proxy and received an invalid response from the upstream
/// server" (IANA registry of WebSocket close codes).
pub const BAD_GATEWAY: u16 = 1014;

/// "An endpoint is going away, such as a server going down" (RFC 6455 section 7.4.1).
pub const GOING_AWAY: u16 = 1001;

/// "The service is restarted. A client may reconnect, and if it chooses to do, should reconnect
/// using a randomized delay" (IANA registry of WebSocket close codes).
pub const SERVICE_RESTART: u16 = 1012;

/// Of the codes "reserved for private use" (RFC 6455 section 7.4.2), after the HTTP statuses 401
/// and 403.
pub const CREDENTIALS_EXPIRED: u16 = 4401;
pub const CREDENTIALS_REVOKED: u16 = 4403;

/// What becomes of the sessions of an endpoint that gets no new ones any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointDown {
    /// They stay.
    Keep,
    /// Each is closed at a moment of its own within this time; 0 at once.
    Close { spread_ms: Millis },
}

impl Default for RelaySettings {
    fn default() -> RelaySettings {
        RelaySettings {
            mode: Mode::Framed,
            limits: FrameLimits::default(),
            upstream_loss_code: None,
            upstream_error_code: BAD_GATEWAY,
            endpoint_down: EndpointDown::Keep,
            endpoint_down_code: SERVICE_RESTART,
            expired_code: CREDENTIALS_EXPIRED,
            revoked_code: CREDENTIALS_REVOKED,
            splice: false,
            flow: FlowLimits::default(),
            heartbeat: None,
            refresh: None,
        }
    }
}

/// How a route relays; chosen when the session is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Walks frame headers in place and checks them.
    #[default]
    Framed,
    /// A tunnel without checks.
    Opaque,
}

impl Mode {
    /// The word of the configuration, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Framed => "framed",
            Mode::Opaque => "opaque",
        }
    }
}

/// Frame limits of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Payload bytes of one frame; on the wire where compression is negotiated.
    pub max_frame: u64,
    /// Payload bytes of one message, all fragments together.
    pub max_message: u64,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits { max_frame: 1 << 30, max_message: 1 << 30 }
    }
}

/// What an established session may do in a time, and for how long. No limits by default: a session
/// holds nothing that they would have to bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowLimits {
    /// By the side whose bytes they limit; in mode `opaque` those of bytes only.
    pub rates: Sides<Vec<RateLimit>>,
    /// Frames of one message; `u32::MAX` for any number.
    pub fragments: u32,
    pub age: Option<SessionAge>,
}

impl Default for FlowLimits {
    fn default() -> FlowLimits {
        FlowLimits { rates: Sides::default(), fragments: u32::MAX, age: None }
    }
}

impl FlowLimits {
    /// A session under them needs a limiter.
    pub fn are_set(&self) -> bool {
        *self != FlowLimits::default()
    }
}

/// How long a session may be established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionAge {
    pub max_ms: Millis,
    /// Sessions end up to so much earlier, each at a moment of its own: those that began together
    /// do not come back together.
    pub jitter_ms: Millis,
    /// Close code for the client.
    pub close_code: u16,
}

impl SessionAge {
    /// That of one session.
    pub fn of_session(&self, random: u64) -> Millis {
        self.max_ms - random % (self.jitter_ms.min(self.max_ms.saturating_sub(1)) + 1)
    }
}

/// Pings of ours, for each leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// A peer from which nothing came for this long gets a ping; 0 for none on that leg.
    pub interval_ms: Sides<Millis>,
    /// A peer from which nothing comes within this time after a ping is dead. Shorter than the
    /// intervals.
    pub timeout_ms: Millis,
}

/// Payload bytes of a message after which it is known whether it is one with new credentials.
pub const REFRESH_SEEN_MAX: usize = 256;

/// Text messages of a client that hold new credentials, by how they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshForm {
    /// At most half of [`REFRESH_SEEN_MAX`] bytes, and never empty.
    pub prefix: Box<[u8]>,
    /// The prefix is the begin of a JSON object, without a backslash or white space outside of its
    /// strings: a message may have that (RFC 8259 section 2).
    pub json: bool,
    /// Payload bytes of such a message.
    pub max_bytes: u64,
}

impl RefreshForm {
    /// Whether a message with this payload begins so; `None` if that is not known yet.
    pub fn begins(&self, payload: impl Iterator<Item = u8>) -> Option<bool> {
        let mut wanted = self.prefix.iter().peekable();
        let mut quoted = false;
        for byte in payload.take(REFRESH_SEEN_MAX) {
            let space = self.json && !quoted && matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            if wanted.next_if(|wanted| **wanted == byte).is_some() {
                quoted ^= byte == b'"';
            } else if !space {
                return Some(false);
            }
            if wanted.peek().is_none() {
                return Some(true);
            }
        }
        None
    }
}

/// Timeouts in milliseconds; every phase has one. Only `idle_ms` may be 0, which is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The client's TLS handshake, from accept on. One with an upstream is part of a connect
    /// attempt.
    pub tls_ms: Millis,
    pub request_head_ms: Millis,
    /// Between two parts of the body of a plain request.
    pub request_body_ms: Millis,
    /// From a response to the next request on its connection.
    pub keep_alive_ms: Millis,
    /// From the request head to the verdict of policy, subrequests included.
    pub decision_ms: Millis,
    /// One connect attempt.
    pub connect_ms: Millis,
    /// All connect attempts together.
    pub connect_total_ms: Millis,
    /// From a handshake to the end of its response head.
    pub upstream_head_ms: Millis,
    /// The same for a plain request, from its end on. Long polls have no response before there is
    /// something to say: 25 s in Socket.IO, 90 s in SignalR.
    pub first_byte_ms: Millis,
    pub idle_ms: Millis,
    pub close_ms: Millis,
    /// A receiver that takes nothing for this long ends its session.
    pub write_stall_ms: Millis,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tls_ms: 10_000,
            request_head_ms: 10_000,
            request_body_ms: 60_000,
            keep_alive_ms: 60_000,
            decision_ms: 10_000,
            connect_ms: 3_000,
            connect_total_ms: 10_000,
            upstream_head_ms: 10_000,
            first_byte_ms: 120_000,
            idle_ms: 300_000,
            close_ms: 5_000,
            write_stall_ms: 60_000,
        }
    }
}
