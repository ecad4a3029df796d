//! A shadow: a second server that gets what the client of a session says. Its opening handshake is
//! the session's made again, so that the frames mean the same to it; and how it can end. Pure; its
//! connection is the worker's (`worker/shadow.rs`).

use super::end::Cause;
use super::handshake::{self, Agreed};
use super::http1::{self, HeadScan, Request, Spans};

/// All interim (1xx) responses together.
const INTERIM_BYTES_MAX: usize = 16 * 1024;

/// The opening handshake of a session that has been established: its request, and what its 101
/// settled.
#[derive(Debug, PartialEq, Eq)]
pub struct Opening {
    head: Vec<u8>,
    spans: Spans,
    agreed: Agreed,
}

impl Opening {
    /// `spans` were parsed from `head`.
    pub fn new(head: Vec<u8>, spans: Spans, agreed: Agreed) -> Opening {
        Opening { head, spans, agreed }
    }

    /// The client's request.
    pub fn request(&self) -> Option<Request<'_>> {
        self.spans.request(&self.head)
    }
}

/// Reads the response of a shadow to the same request.
#[derive(Debug)]
pub struct ShadowResponse {
    opening: Opening,
    held: Vec<u8>,
    scan: HeadScan,
    interim_bytes: usize,
}

impl ShadowResponse {
    pub fn new(opening: Opening) -> ShadowResponse {
        ShadowResponse { opening, held: Vec::new(), scan: HeadScan::default(), interim_bytes: 0 }
    }

    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Bytes of the shadow; `head_max` bounds its response head. Whether the WebSocket is
    /// established; what follows the head is of no interest.
    ///
    /// # Errors
    /// It is no valid 101 to this request, or it settles another subprotocol or other extensions
    /// than the session has.
    pub fn on_bytes(&mut self, bytes: &[u8], head_max: usize) -> Result<bool, Refused> {
        self.held.extend_from_slice(bytes);
        loop {
            let Some(head_len) = self.scan.advance(&self.held).map_err(|_| Cause::BadResponse)? else {
                return if self.held.len() < head_max { Ok(false) } else { Err(Cause::BadResponse.into()) };
            };
            let rest = self.held.split_off(head_len);
            let response = http1::parse_response(&self.held)?;
            match response.status {
                101 => {
                    let request = self.opening.request().ok_or(Cause::MalformedHead)?;
                    handshake::judge_response(&request, &response)?;
                    let same = Agreed::of(&response) == self.opening.agreed;
                    return if same { Ok(true) } else { Err(Cause::Bad101.into()) };
                }
                100..200 => {
                    self.interim_bytes += head_len;
                    (self.held, self.scan) = (rest, HeadScan::default());
                    if self.interim_bytes > INTERIM_BYTES_MAX {
                        return Err(Cause::BadResponse.into());
                    }
                }
                status => return Err(Refused { cause: Cause::UpstreamResponse, status }),
            }
        }
    }
}

/// Why a shadow is not established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub cause: Cause,
    /// Of its response, if it is one that is not a 101; else 0.
    pub status: u16,
}

impl From<Cause> for Refused {
    fn from(cause: Cause) -> Refused {
        Refused { cause, status: 0 }
    }
}

/// Why a shadow ended. For the metrics alone: nothing of it reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ShadowEnd {
    /// The session ended, and everything was sent.
    Done,
    /// No endpoint could be reached.
    Connect,
    /// No valid 101 with the session's subprotocol and extensions, or none in time.
    Handshake,
    /// It closed or reset its connection, or TLS failed.
    Peer,
    /// It took too little for too long: its buffer was full.
    BufferFull,
    /// The limit on shadows, on the bytes of all of them, or on descriptors.
    Limit,
    /// The session ended, and not everything could be sent within the close timeout.
    CloseTimeout,
    /// The worker ended, or panicked.
    Stop,
}

impl ShadowEnd {
    pub const ALL: [ShadowEnd; 8] = [
        ShadowEnd::Done,
        ShadowEnd::Connect,
        ShadowEnd::Handshake,
        ShadowEnd::Peer,
        ShadowEnd::BufferFull,
        ShadowEnd::Limit,
        ShadowEnd::CloseTimeout,
        ShadowEnd::Stop,
    ];

    /// The word of the metrics.
    pub fn name(self) -> &'static str {
        match self {
            ShadowEnd::Done => "done",
            ShadowEnd::Connect => "connect",
            ShadowEnd::Handshake => "handshake",
            ShadowEnd::Peer => "peer",
            ShadowEnd::BufferFull => "buffer-full",
            ShadowEnd::Limit => "limit",
            ShadowEnd::CloseTimeout => "close-timeout",
            ShadowEnd::Stop => "stop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: a, b\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other\r\n\r\n";

    fn switching(more: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{more}\r\n"
        )
    }

    /// The outcome of `response` where the session's own 101 had `agreed`, however it is cut.
    fn read(agreed: &str, response: &str) -> Result<bool, Refused> {
        let whole = read_cut(agreed, &[response.as_bytes()]);
        for at in 1..response.len() {
            let (first, rest) = response.as_bytes().split_at(at);
            assert_eq!(read_cut(agreed, &[first, rest]), whole, "cut at {at}");
        }
        whole
    }

    fn read_cut(agreed: &str, pieces: &[&[u8]]) -> Result<bool, Refused> {
        let own = switching(agreed);
        let agreed = Agreed::of(&http1::parse_response(own.as_bytes()).unwrap());
        let opening = Opening::new(REQUEST.into(), Spans::parse(REQUEST.as_bytes()).unwrap(), agreed);
        let mut response = ShadowResponse::new(opening);
        let mut up = false;
        for piece in pieces {
            if !up {
                up = response.on_bytes(piece, 4096)?;
            }
        }
        Ok(up)
    }

    #[test]
    fn a_101_that_settles_the_same_is_accepted() {
        let protocol = "Sec-WebSocket-Protocol: a\r\n";
        let deflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n";
        let spaced = "sec-websocket-extensions:  Permessage-Deflate;client_max_window_bits = \"12\" ,\r\n";
        for (agreed, answered) in [
            ("", ""),
            ("", "Server: another\r\nSec-WebSocket-Extensions:\r\nContent-Length: 0\r\n"),
            (protocol, protocol),
            (deflate, spaced),
        ] {
            assert_eq!(read(agreed, &switching(answered)), Ok(true), "{agreed:?} {answered:?}");
            let behind = switching(answered) + "\u{1}frames of the shadow";
            assert_eq!(read(agreed, &behind), Ok(true));
            let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{}", switching(answered));
            assert_eq!(read(agreed, &interim), Ok(true));
        }
    }

    #[test]
    fn a_101_that_settles_something_else_is_not() {
        let protocol = |name| format!("Sec-WebSocket-Protocol: {name}\r\n");
        let extensions = |list| format!("Sec-WebSocket-Extensions: {list}\r\n");
        for (agreed, answered) in [
            (String::new(), protocol("a")),
            (protocol("a"), String::new()),
            (protocol("a"), protocol("b")),
            (String::new(), extensions("permessage-deflate")),
            (extensions("permessage-deflate"), String::new()),
            (extensions("permessage-deflate"), extensions("permessage-deflate; client_no_context_takeover")),
            (extensions("permessage-deflate"), extensions("permessage-deflate, x-other")),
            (extensions("permessage-deflate, x-other"), extensions("x-other, permessage-deflate")),
            // Not offered at all.
            (String::new(), protocol("c")),
            (String::new(), extensions("unheard-of")),
        ] {
            assert_eq!(read(&agreed, &switching(&answered)), Err(Cause::Bad101.into()), "{agreed:?} {answered:?}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_bounded() {
        let wrong = switching("").replace("s3pP", "XXXX");
        for (response, cause, status) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", Cause::UpstreamResponse, 403),
            ("HTTP/1.1 200 OK\r\n\r\n", Cause::UpstreamResponse, 200),
            ("SSH-2.0-server\r\n\r\n", Cause::BadResponse, 0),
            (wrong.as_str(), Cause::Bad101, 0),
        ] {
            assert_eq!(read("", response), Err(Refused { cause, status }), "{response:?}");
        }
        assert_eq!(read("", "HTTP/1.1 101 Switching"), Ok(false));
        let long = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}", "x".repeat(5000));
        assert_eq!(read_cut("", &[long.as_bytes()]), Err(Cause::BadResponse.into()));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_BYTES_MAX / 25 + 1);
        assert_eq!(read_cut("", &[interim.as_bytes()]), Err(Cause::BadResponse.into()));
    }

    #[test]
    fn ends_are_in_the_order_of_their_numbers() {
        assert!(ShadowEnd::ALL.iter().enumerate().all(|(at, end)| *end as usize == at));
    }
}
