//! How a session can end: one closed list of reasons, and the one table from which the HTTP status,
//! the close codes, the access line and the counter of each are derived.

use super::Side;

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    Downstream,
    Upstream,
    Proxy,
}

impl Party {
    pub fn name(self) -> &'static str {
        match self {
            Party::Downstream => "downstream",
            Party::Upstream => "upstream",
            Party::Proxy => "proxy",
        }
    }
}

impl From<Side> for Party {
    fn from(side: Side) -> Party {
        match side {
            Side::Downstream => Party::Downstream,
            Side::Upstream => Party::Upstream,
        }
    }
}

/// The phase a session was in when what ended it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The client's TLS handshake.
    Tls,
    /// Reading and judging the client's request.
    Request,
    /// Reaching the upstream.
    Connect,
    /// Waiting for the upstream's answer, or passing on one that is no 101.
    Response,
    /// The 101 has passed.
    Open,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Tls => "tls",
            Phase::Request => "request",
            Phase::Connect => "connect",
            Phase::Response => "response",
            Phase::Open => "open",
        }
    }
}

/// The verdict on a whole session. The first cause wins; a mere FIN gives way to a stronger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub party: Party,
    pub phase: Phase,
    pub cause: Cause,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct CauseInfo {
    pub cause: Cause,
    /// The word used in logs and metrics.
    pub name: &'static str,
    /// HTTP status of the refusal while no 101 has passed; 0 where none is sent.
    pub status: u16,
    /// Close code that goes to the one at fault in an open session; 0 where none is sent.
    pub code: u16,
    /// One short sentence: body of the refusal, and reason text of the other side's Close.
    pub text: &'static str,
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])* $cause:ident $name:literal $status:literal $code:literal $text:literal;)*) => {
        /// Why a session ended: a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Cause { $($(#[doc = $doc])* $cause,)* }

        /// The table, in the order of [`Cause`].
        pub const CAUSES: &[CauseInfo] = &[
            $(CauseInfo { cause: Cause::$cause, name: $name, status: $status, code: $code, text: $text },)*
        ];
    };
}

causes! {
    // --- TLS, with the client or with the upstream; a client learns it by an alert, if at all
    TlsTimeout "tls-timeout" 504 0 "The TLS handshake did not end in time.";
    /// A plain request on a TLS listener.
    PlainOnTls "plain-on-tls" 400 0 "This port speaks TLS: use https or wss.";
    /// Not TLS, or not readable as such.
    TlsMalformed "tls-malformed" 502 0 "The upstream's TLS handshake failed.";
    TlsVersion "tls-version" 502 0 "The upstream's TLS handshake failed.";
    /// No cipher suite, group, signature scheme or ALPN protocol in common.
    TlsNoCommonParameters "tls-no-common-parameters" 502 0 "The upstream's TLS handshake failed.";
    TlsNoCertificate "tls-no-certificate" 502 0 "The upstream's TLS handshake failed.";
    /// The peer's certificate has ended or not begun.
    TlsExpired "tls-expired" 502 0 "The upstream's certificate is not valid.";
    TlsUnknownIssuer "tls-unknown-issuer" 502 0 "The upstream's certificate is not valid.";
    TlsWrongName "tls-wrong-name" 502 0 "The upstream's certificate is not valid.";
    TlsBadCertificate "tls-bad-certificate" 502 0 "The upstream's certificate is not valid.";
    /// The peer ended it with a fatal alert.
    TlsAlert "tls-alert" 502 0 "The upstream's TLS handshake failed.";
    /// A record that does not decrypt.
    TlsBadRecord "tls-bad-record" 502 0 "The upstream's TLS handshake failed.";
    TlsMisbehaved "tls-misbehaved" 502 0 "The upstream's TLS handshake failed.";
    /// The fault is ours: no random bytes, no key that serves.
    TlsInternal "tls-internal" 502 0 "TLS failed.";
    /// FIN without a close_notify: more may have been said.
    TlsTruncated "tls-truncated" 502 0 "The upstream's TLS connection was cut.";
    // --- the request head (product contract, section 2: rows from the top)
    /// Not parseable, bare CR or LF, NUL, obs-fold, space before the colon, ...
    MalformedHead "malformed-head" 400 0 "The request head is malformed.";
    HeadTooLarge "head-too-large" 431 0 "The request head is too large.";
    TooManyFields "too-many-fields" 431 0 "The request has too many header fields.";
    HeadTimeout "head-timeout" 408 0 "The request head did not arrive in time.";
    /// No byte before the deadline or the end of the connection: closed silently.
    NoRequest "no-request" 0 0 "";
    HttpVersion "http-version" 505 0 "Only HTTP/1.1 is spoken here.";
    Method "method" 405 0 "A WebSocket handshake is a GET.";
    BadHost "bad-host" 400 0 "The Host header is missing, doubled or wrong.";
    BadTarget "bad-target" 400 0 "The request target is not allowed.";
    UnexpectedBody "unexpected-body" 400 0 "A WebSocket handshake carries no body, trailer or expectation.";
    NotUpgrade "not-an-upgrade" 426 0 "This is a WebSocket endpoint.";
    BadKey "bad-key" 400 0 "The Sec-WebSocket-Key header is missing, doubled or wrong.";
    ProtectedHeader "protected-header" 400 0 "The Connection header names a protected header.";
    /// On a listener with `redirect`.
    Redirected "redirected" 308 0 "This is served over TLS.";
    NoRoute "no-route" 404 0 "Nothing is served here.";
    /// A check of the route refused it.
    Forbidden "forbidden" 403 0 "Access denied.";
    MaxSessions "max-sessions" 503 0 "Too many sessions.";
    /// The proxy had no descriptor or memory left for the upstream's socket.
    NoSockets "no-sockets" 503 0 "The server has run out of sockets.";
    /// A question that the decision depends on was not answered in time, or could not be asked.
    DecisionTimeout "decision-timeout" 504 0 "The request could not be authorized in time.";
    Draining "draining" 503 0 "The server is stopping.";
    // --- the upstream, before its 101
    NoEndpoint "no-endpoint" 503 0 "No upstream is available.";
    ConnectRefused "connect-refused" 502 0 "The upstream refused the connection.";
    ConnectTimeout "connect-timeout" 504 0 "The upstream could not be reached in time.";
    ResponseTimeout "response-timeout" 504 0 "The upstream did not answer in time.";
    /// Not HTTP, too large a head, or over before its head was complete.
    BadResponse "bad-response" 502 0 "The upstream's answer is not valid.";
    /// A 101 with a wrong or missing Accept, Upgrade, Connection, or an unoffered choice.
    Bad101 "bad-101" 502 0 "The upstream's handshake is not valid.";
    /// The upstream answered something else but 101; that answer was passed on.
    UpstreamResponse "upstream-response" 0 0 "";
    // --- open sessions
    /// A Close of a peer has passed.
    Close "close" 0 0 "";
    /// FIN without a Close.
    Eof "eof" 502 0 "The upstream closed the connection.";
    /// RST.
    Reset "reset" 502 0 "The upstream reset the connection.";
    MaskBit "mask-bit" 0 1002 "mask bit";
    ReservedOpcode "reserved-opcode" 0 1002 "reserved opcode";
    ReservedBits "reserved-bits" 0 1002 "reserved bits";
    Continuation "continuation" 0 1002 "continuation order";
    ControlFragmented "control-fragmented" 0 1002 "fragmented control frame";
    ControlTooLong "control-too-long" 0 1002 "control frame too long";
    LengthEncoding "length-encoding" 0 1002 "length encoding";
    FrameTooBig "frame-too-big" 0 1009 "frame too big";
    MessageTooBig "message-too-big" 0 1009 "message too big";
    ClosePayload "close-payload" 0 1002 "close payload";
    CloseCode "close-code" 0 1002 "close code";
    /// Sent more after its own Close and never got the other side's.
    DataAfterClose "data-after-close" 0 1002 "data after close";
    /// TCP urgent data splits reads on an edge-triggered socket.
    UrgentData "urgent-data" 400 1008 "urgent data";
    /// The upstream ended without a Close on a route with `on_upstream_loss = "close"`.
    UpstreamLoss "upstream-loss" 0 1012 "upstream lost";
    IdleTimeout "idle-timeout" 0 1001 "idle timeout";
    /// A receiver took nothing for the write-stall timeout.
    WriteStall "write-stall" 0 1001 "peer stalled";
    /// The pool was short and this was the longest-stalled session.
    OutOfBuffers "out-of-buffers" 0 1001 "out of buffers";
    Drain "drain" 0 1001 "going away";
    /// The drain deadline or a second signal.
    Stop "stop" 0 0 "";
    WorkerPanic "worker-panic" 0 0 "";
}

impl Cause {
    pub fn info(self) -> &'static CauseInfo {
        &CAUSES[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_list_and_names_are_unique() {
        for (i, info) in CAUSES.iter().enumerate() {
            assert_eq!(info.cause as usize, i);
            assert_eq!(info.cause.info().name, info.name);
        }
        let mut names: Vec<_> = CAUSES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CAUSES.len());
    }
}
