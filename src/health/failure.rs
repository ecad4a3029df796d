//! Why a check did not pass, in words for the log.

use crate::policy::check::Statuses;
use crate::tls;
use std::fmt;
use std::io;

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Its name has not been resolved.
    NoAddress,
    /// The text of the error.
    Connect(String),
    Refused,
    Timeout(Step),
    Tls(tls::Failure),
    Status(u16, Statuses),
    /// A 101 that RFC 6455 section 4.1 does not accept.
    Bad101,
    /// Not an HTTP response.
    BadResponse,
    /// More bytes than a check reads before its result.
    TooLarge(Step),
    /// The connection ended before the result.
    Ended(Step),
    /// A Close frame instead of the pong.
    Closed,
    /// A frame that a server must not send.
    BadFrame,
}

/// What a check is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Connect,
    Tls,
    Response,
    Pong,
}

/// Errors that say that this machine has run out of something: they say nothing of an endpoint.
pub fn is_exhaustion(error: &io::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

impl Failure {
    pub fn of_connect(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            _ => Failure::Connect(error.to_string()),
        }
    }

    /// A session would try the next address of the endpoint: nothing has been asked of it.
    pub fn is_of_connecting(&self) -> bool {
        use Step::{Connect, Tls};
        matches!(self, Failure::Connect(_) | Failure::Refused | Failure::Timeout(Connect | Tls) | Failure::Ended(Tls))
            || matches!(self, Failure::Tls(_) | Failure::TooLarge(Tls))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoAddress => f.write_str("name not resolved"),
            Failure::Connect(error) => write!(f, "connect failed: {error}"),
            Failure::Refused => f.write_str("connect refused"),
            Failure::Timeout(step) => write!(f, "timeout while waiting for {step}"),
            Failure::Tls(failure) => write!(f, "TLS: {failure}"),
            Failure::Status(status, expected) => write!(f, "status {status}, expected {expected}"),
            Failure::Bad101 => f.write_str("status 101 without a valid WebSocket handshake"),
            Failure::BadResponse => f.write_str("not an HTTP response"),
            Failure::TooLarge(step) => write!(f, "too many bytes before {step}"),
            Failure::Ended(step) => write!(f, "connection ended before {step}"),
            Failure::Closed => f.write_str("Close frame before the pong"),
            Failure::BadFrame => f.write_str("invalid frame before the pong"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connect => "the connect",
            Step::Tls => "the end of the TLS handshake",
            Step::Response => "the response",
            Step::Pong => "the pong",
        })
    }
}
