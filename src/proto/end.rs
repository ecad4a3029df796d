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

/// The phase a session was in when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading the PROXY header of a client.
    ProxyHeader,
    /// The client's TLS handshake.
    Tls,
    /// Reading and judging the client's request.
    Request,
    /// Reaching the upstream.
    Connect,
    /// Waiting for the upstream's response, or forwarding one that is not a 101.
    Response,
    /// The session is established: the 101 has been forwarded.
    Open,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::ProxyHeader => "proxy-header",
            Phase::Tls => "tls",
            Phase::Request => "request",
            Phase::Connect => "connect",
            Phase::Response => "response",
            Phase::Open => "open",
        }
    }
}

/// How a session ended. The first cause wins; only a bare FIN gives way to a stronger one.
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
    /// HTTP status of the refusal before the 101; 0 where none is sent.
    pub status: u16,
    /// Close code in an established session; 0 where none is sent. `proto/relay/mod.rs` decides who
    /// gets it, and which codes the route replaces.
    pub code: u16,
    /// One short sentence: the body of the refusal, or the reason text of the Close frames.
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
    // --- the PROXY header, on a listener with `proxy_protocol`; nothing is answered
    /// The peer is none of the listener's trusted proxies.
    ProxyUntrusted "proxy-untrusted" 0 0 "";
    /// The first bytes are not those of a header.
    ProxyAbsent "proxy-absent" 0 0 "";
    ProxyTimeout "proxy-timeout" 0 0 "";
    /// The connection ended within the header.
    ProxyTruncated "proxy-truncated" 0 0 "";
    ProxyMalformed "proxy-malformed" 0 0 "";
    /// A line of more than 107 bytes, or more than 4 KiB of addresses and TLVs.
    ProxyTooLong "proxy-too-long" 0 0 "";
    // --- TLS, with the client or with the upstream; toward a client it ends with an alert, if any
    TlsTimeout "tls-timeout" 504 0 "The upstream's TLS handshake timed out.";
    /// A plain request on a TLS listener.
    PlainOnTls "plain-on-tls" 400 0 "This port requires TLS: use https or wss.";
    /// Not TLS, or not decodable.
    TlsMalformed "tls-malformed" 502 0 "The upstream's TLS handshake failed.";
    TlsVersion "tls-version" 502 0 "The upstream's TLS handshake failed.";
    /// No cipher suite, group, signature scheme or ALPN protocol in common.
    TlsNoCommonParameters "tls-no-common-parameters" 502 0 "The upstream's TLS handshake failed.";
    TlsNoCertificate "tls-no-certificate" 502 0 "The upstream's TLS handshake failed.";
    /// The peer's certificate has expired or is not valid yet.
    TlsExpired "tls-expired" 502 0 "The upstream's certificate is not valid.";
    TlsUnknownIssuer "tls-unknown-issuer" 502 0 "The upstream's certificate is not valid.";
    TlsWrongName "tls-wrong-name" 502 0 "The upstream's certificate is not valid.";
    TlsBadCertificate "tls-bad-certificate" 502 0 "The upstream's certificate is not valid.";
    /// The peer sent a fatal alert.
    TlsAlert "tls-alert" 502 0 "The upstream's TLS handshake failed.";
    /// A record that does not decrypt.
    TlsBadRecord "tls-bad-record" 502 0 "The upstream's TLS handshake failed.";
    TlsMisbehaved "tls-misbehaved" 502 0 "The upstream's TLS handshake failed.";
    /// An error of the proxy: no random bytes, no usable key.
    TlsInternal "tls-internal" 502 0 "TLS setup failed.";
    /// FIN without a close_notify: the connection may have been cut.
    TlsTruncated "tls-truncated" 502 0 "The upstream's TLS connection was truncated.";
    // --- the request (docs/src/behaviour.md: checked in this order)
    /// Not parseable, bare CR or LF, NUL, obs-fold, space before the colon, ...
    MalformedHead "malformed-head" 400 0 "Malformed request.";
    HeadTooLarge "head-too-large" 431 0 "Request header too large.";
    TooManyFields "too-many-fields" 431 0 "Too many request header fields.";
    HeadTimeout "head-timeout" 408 0 "Request header timeout.";
    /// No byte before the deadline or the FIN: closed without a response.
    NoRequest "no-request" 0 0 "";
    /// The lists of the listener refuse the peer's address: closed at accept, before any byte.
    PeerRefused "peer-refused" 0 0 "";
    /// It failed too often, and is blocked for a time: closed at accept, too. With a response where
    /// a trusted proxy names the client.
    AddressBlocked "address-blocked" 429 0 "Too many failures from this address.";
    /// As many connections of the listener as may be are half-open: no request of theirs has been
    /// admitted yet. Closed at accept, like the next one.
    HalfOpen "half-open" 0 0 "";
    /// The same for the client's address; behind a PROXY header, closed when that has been read.
    AddressHalfOpen "address-half-open" 0 0 "";
    /// More connections in a time than the listener allows. With TLS nothing is answered.
    ListenerRate "listener-rate" 503 0 "Too many requests on this port.";
    HttpVersion "http-version" 505 0 "HTTP version not supported: use HTTP/1.1.";
    Method "method" 405 0 "Method not allowed: a WebSocket handshake uses GET.";
    BadHost "bad-host" 400 0 "Missing, duplicate or invalid Host header.";
    BadTarget "bad-target" 400 0 "Invalid request target.";
    UnexpectedBody "unexpected-body" 400 0 "A WebSocket handshake must not have a body, Trailer or Expect header.";
    /// A request that may be read as ending in two places.
    BadFraming "bad-framing" 400 0 "Ambiguous or invalid message framing.";
    /// CONNECT and TRACE.
    UnsupportedMethod "unsupported-method" 501 0 "Method not supported.";
    Expectation "expectation" 417 0 "The expectation cannot be met.";
    /// The body is larger than the route allows.
    BodyTooLarge "body-too-large" 413 0 "Request body too large.";
    /// The body of the request did not come in time.
    BodyTimeout "body-timeout" 408 0 "Request body timeout.";
    NotUpgrade "not-an-upgrade" 426 0 "WebSocket upgrade required.";
    BadKey "bad-key" 400 0 "Missing, duplicate or invalid Sec-WebSocket-Key header.";
    ProtectedHeader "protected-header" 400 0 "The Connection header names a protected header field.";
    /// By a listener or a route with `redirect`. The status is that of a listener; a route has its
    /// own.
    Redirected "redirected" 308 0 "Redirecting to HTTPS.";
    /// The route has a fixed response; its status is that of the route.
    Responded "responded" 200 0 "The route has a response of its own.";
    /// The route serves files, and the method is another one than GET and HEAD.
    FileMethod "file-method" 405 0 "Method not allowed: files are read with GET and HEAD.";
    /// The route serves files, and the path can name none: it climbs, is hidden, or has bytes that
    /// no name has.
    NoFile "no-file" 404 0 "Not Found.";
    NoRoute "no-route" 404 0 "No route matches this request.";
    /// The list of the route does not have this Origin.
    OriginRefused "origin-refused" 403 0 "Requests from this origin are not admitted.";
    /// A request with cookies from the page of another host, on a route without a list of origins.
    OriginCrossSite "origin-cross-site" 403 0 "Cross-site requests with cookies are not admitted.";
    /// The lists of the listener or the route refuse the client's address.
    AddressRefused "address-refused" 403 0 "Requests from this address are not admitted.";
    /// A check of the route denied the request.
    Forbidden "forbidden" 403 0 "Access denied.";
    /// The route asks for credentials, and the request has none.
    NoCredentials "no-credentials" 401 0 "Authentication required.";
    BadCredentials "bad-credentials" 401 0 "The credentials are not valid.";
    /// They were valid, and are no longer.
    CredentialsExpired "credentials-expired" 401 0 "The credentials have expired.";
    /// There are no keys yet to verify them with.
    KeysUnavailable "keys-unavailable" 503 0 "The credentials cannot be verified now.";
    /// Too many passwords wait to be verified.
    VerifierBusy "verifier-busy" 503 0 "Too many credentials are being verified.";
    /// By order of the admin listener.
    Revoked "revoked" 401 4403 "credentials revoked";
    /// The client is known, and lacks a scope or role of the route.
    NotPermitted "not-permitted" 403 0 "Not permitted.";
    /// More handshakes than the worker can serve: the queue is full, or the wait was too long.
    /// Without a response where TLS is not up.
    HandshakeOverload "handshake-overload" 503 0 "Too many handshakes.";
    MaxSessions "max-sessions" 503 0 "Too many sessions.";
    MaxRouteSessions "max-route-sessions" 503 0 "Too many sessions on this route.";
    MaxListenerSessions "max-listener-sessions" 503 0 "Too many sessions on this port.";
    /// All clients together make more handshakes in a time than the route allows.
    RouteRate "route-rate" 503 0 "Too many requests on this route.";
    /// The client's address makes more handshakes in a time than the route or the listener allows.
    AddressRate "address-rate" 429 0 "Too many requests from this address.";
    AddressSessions "address-sessions" 429 0 "Too many sessions from this address.";
    /// The client does, whatever its address.
    IdentityRate "identity-rate" 429 0 "Too many requests of this client.";
    IdentitySessions "identity-sessions" 429 0 "Too many sessions of this client.";
    /// The API key is used for more handshakes in a time than it may be.
    KeyRate "key-rate" 429 0 "Too many requests with this key.";
    KeySessions "key-sessions" 429 0 "Too many sessions with this key.";
    /// The proxy had no descriptor or memory left for the upstream's socket.
    NoSockets "no-sockets" 503 0 "The server is out of sockets.";
    /// A call or service the decision depends on did not answer in time, or could not be asked.
    DecisionTimeout "decision-timeout" 504 0 "Authorization timed out.";
    /// A call that the decision depends on was answered with an error (5xx), or with what cannot be
    /// understood.
    DecisionFailed "decision-failed" 503 0 "Authorization is not available.";
    /// As many calls wait for an answer as may.
    DecisionBusy "decision-busy" 503 0 "Too many requests wait for authorization.";
    Draining "draining" 503 0 "The server is shutting down.";
    // --- the upstream, before its 101
    NoEndpoint "no-endpoint" 503 0 "No upstream endpoint is available.";
    /// All endpoints have as many sessions as they may have, and the queue is full.
    UpstreamFull "upstream-full" 503 0 "The upstream has no room for another session.";
    /// No endpoint had room in time.
    QueueTimeout "queue-timeout" 503 0 "The upstream had no room in time.";
    ConnectRefused "connect-refused" 502 0 "The upstream refused the connection.";
    ConnectTimeout "connect-timeout" 504 0 "Connecting to the upstream timed out.";
    ResponseTimeout "response-timeout" 504 0 "The upstream did not respond in time.";
    /// Not HTTP, head too large, or ended before the head was complete.
    BadResponse "bad-response" 502 0 "Invalid response from the upstream.";
    /// A 101 with a wrong or missing Accept, Upgrade or Connection, or with a subprotocol or
    /// extension that was not offered.
    Bad101 "bad-101" 502 0 "Invalid WebSocket handshake response from the upstream.";
    /// The upstream answered a handshake with another status than 101; that response was forwarded.
    UpstreamResponse "upstream-response" 0 0 "";
    /// The response of the upstream to a plain request was forwarded.
    Answered "answered" 0 0 "";
    /// A file could not be opened; or not be read to the end that was declared, since it was cut.
    FileCut "file-cut" 500 0 "The file could not be read.";
    // --- established sessions
    /// A Close frame of a peer was forwarded.
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
    /// Data after the peer's own Close, and no Close from the other side.
    DataAfterClose "data-after-close" 0 1002 "data after close";
    /// TCP urgent data splits reads on an edge-triggered socket.
    UrgentData "urgent-data" 400 1008 "urgent data";
    /// The upstream ended without a Close on a route with `on_upstream_loss = "close"`.
    UpstreamLoss "upstream-loss" 0 1012 "upstream lost";
    /// The endpoint was marked down, drained or removed, on a route with `on_endpoint_down`. An
    /// event stream ends incomplete.
    EndpointDown "endpoint-down" 0 1012 "endpoint down";
    /// A message with new credentials was in several frames, too long or compressed.
    RefreshFormat "refresh-format" 0 1008 "credentials message";
    /// New credentials are those of another client, or do not permit the route.
    CredentialsChanged "credentials-changed" 0 4403 "other credentials";
    /// The credentials that the session was admitted with have ended.
    Expired "expired" 0 4401 "credentials expired";
    /// More messages in a time than the route allows.
    MessageRate "message-rate" 0 1008 "too many messages";
    ByteRate "byte-rate" 0 1008 "too many bytes";
    /// Pings and pongs.
    ControlRate "control-rate" 0 1008 "too many control frames";
    /// More frames in one message than the route allows.
    TooManyFragments "too-many-fragments" 0 1008 "too many fragments";
    /// The session has reached the age that the route allows.
    SessionAge "session-age" 0 1001 "session age";
    IdleTimeout "idle-timeout" 0 1001 "idle timeout";
    /// Nothing came from a peer within the timeout of the heartbeat. It is the party that is named.
    HeartbeatTimeout "heartbeat-timeout" 0 1001 "heartbeat timeout";
    /// A receiver accepted nothing within the write-stall timeout.
    WriteStall "write-stall" 0 1001 "peer stalled";
    /// The pool was exhausted and this session had been stalled longest.
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

    /// Who is at fault for a refusal with this cause.
    pub fn party_at_fault(self) -> Party {
        match (self, self.info().status) {
            (Cause::Responded | Cause::HalfOpen | Cause::FileCut, _) | (_, 502..=504) => Party::Proxy,
            _ => Party::Downstream,
        }
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
