//! One check after its connection is up: what is sent, what must come back, and the result. Bytes
//! in, bytes out; the connection is in `connection.rs`.
//!
//! ```text
//!  Head --- status as expected ---> Finishing       (http)
//!   |
//!   +--- valid 101 ---> Frames --- pong ---> Finishing
//!   |                (with ping)                ^
//!   +--- valid 101, without ping ---------------+
//! ```
//!
//! The result is reported once. After it, whatever still comes is read and dropped until the peer
//! closes, so that its last bytes do not end in a reset.

use super::failure::{Failure, Step};
use crate::memory;
use crate::policy::check::{CheckKind, CheckRequest, HealthCheck, Statuses};
use crate::policy::endpoint::Endpoint;
use crate::proto::frame::{CONTROL_MAX, Header, Parsed, opcode};
use crate::proto::handshake;
use crate::proto::http1::{self, HeadScan};
use crate::proto::mask::mask;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of the head of a response; interim responses included.
pub const HEAD_MAX: usize = 16 * 1024;
/// Bytes of frames before the pong.
pub const FRAMES_MAX: usize = 64 * 1024;
const _: () = assert!(HEAD_MAX < FRAMES_MAX && FRAMES_MAX < memory::CHECK_BYTES);
const NORMAL_CLOSURE: u16 = 1000;

/// `Ok`: the check has passed.
pub type Outcome = Result<(), Failure>;

/// Random bytes for a check: the key, the payload of the ping, and a mask for each frame.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    pub key: [u8; 16],
    pub ping: [u8; 8],
    pub masks: [[u8; 4]; 2],
}

#[derive(Debug)]
pub struct Probe {
    phase: Phase,
    seed: Seed,
    /// What has come and is not complete yet.
    held: Vec<u8>,
    /// Bytes of this phase that are done with.
    passed: usize,
}

#[derive(Debug)]
enum Phase {
    Head { scan: HeadScan, expected: Expected },
    Frames,
    Finishing,
}

/// Which response passes.
#[derive(Debug)]
enum Expected {
    Status(Statuses),
    /// A 101 for this request head.
    Switching {
        request: Vec<u8>,
        ping: bool,
    },
}

impl Probe {
    /// Begins a check; the request is appended to `out`. `None` if the connection alone is what is
    /// checked.
    pub fn start(check: &HealthCheck, endpoint: &Endpoint, seed: Seed, out: &mut Vec<u8>) -> Option<Probe> {
        let expected = match &check.kind {
            CheckKind::Tcp => return None,
            CheckKind::Http(request, statuses) => {
                write_request(request, &Fixed { check, endpoint, key: None }, out);
                Expected::Status(statuses.clone())
            }
            CheckKind::WebSocket { request, ping } => {
                let from = out.len();
                write_request(request, &Fixed { check, endpoint, key: Some(seed.key) }, out);
                Expected::Switching { request: out.get(from..).unwrap_or_default().to_vec(), ping: *ping }
            }
        };
        let phase = Phase::Head { scan: HeadScan::default(), expected };
        Some(Probe { phase, seed, held: Vec::new(), passed: 0 })
    }

    /// What the check is waiting for.
    pub fn step(&self) -> Step {
        if matches!(self.phase, Phase::Frames) { Step::Pong } else { Step::Response }
    }

    /// Bytes of the endpoint. What must be sent is appended to `out`. The result, once.
    pub fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        if matches!(self.phase, Phase::Finishing) {
            return None;
        }
        self.held.extend_from_slice(bytes);
        let result = loop {
            let moved = match &mut self.phase {
                Phase::Head { .. } => self.on_head(out),
                Phase::Frames => self.on_frame(out),
                Phase::Finishing => Ok(Moved::Passed),
            };
            match moved {
                Ok(Moved::On) => {}
                Ok(Moved::Waiting) => return None,
                Ok(Moved::Passed) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        self.phase = Phase::Finishing;
        self.held = Vec::new();
        Some(result)
    }

    fn on_head(&mut self, out: &mut Vec<u8>) -> Result<Moved, Failure> {
        let Phase::Head { scan, expected } = &mut self.phase else { return Ok(Moved::Waiting) };
        let end = scan.advance(&self.held).map_err(|_| Failure::BadResponse)?;
        if self.passed + end.unwrap_or(self.held.len()) > HEAD_MAX {
            return Err(Failure::TooLarge(Step::Response));
        }
        let Some(end) = end else { return Ok(Moved::Waiting) };
        let rest = self.held.split_off(end);
        let response = http1::parse_response(&self.held).map_err(|_| Failure::BadResponse)?;
        if (100..200).contains(&response.status) && response.status != 101 {
            (self.held, *scan) = (rest, HeadScan::default());
            self.passed += end;
            return Ok(Moved::On);
        }
        let ping = match expected {
            Expected::Status(statuses) if statuses.contains(response.status) => return Ok(Moved::Passed),
            Expected::Status(statuses) => return Err(Failure::Status(response.status, statuses.clone())),
            Expected::Switching { .. } if response.status != 101 => {
                return Err(Failure::Status(response.status, Statuses(vec![101..=101])));
            }
            Expected::Switching { request, ping } => {
                let request = http1::parse_request(request).map_err(|_| Failure::Bad101)?;
                handshake::judge_response(&request, &response).map_err(|_| Failure::Bad101)?;
                *ping
            }
        };
        let [first, _] = self.seed.masks;
        if !ping {
            push_frame(opcode::CLOSE, &NORMAL_CLOSURE.to_be_bytes(), first, out);
            return Ok(Moved::Passed);
        }
        push_frame(opcode::PING, &self.seed.ping, first, out);
        (self.phase, self.held, self.passed) = (Phase::Frames, rest, 0);
        Ok(Moved::On)
    }

    /// One frame. Whole frames are held: all of them together fit the limit.
    fn on_frame(&mut self, out: &mut Vec<u8>) -> Result<Moved, Failure> {
        let parsed = Header::parse(&self.held).map_err(|_| Failure::BadFrame)?;
        let Parsed::Complete(header, len) = parsed else { return Ok(Moved::Waiting) };
        if !may_come(&header) {
            return Err(Failure::BadFrame);
        }
        let payload = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        let end = len.saturating_add(payload);
        if self.passed.saturating_add(end) > FRAMES_MAX {
            return Err(Failure::TooLarge(Step::Pong));
        }
        let Some(payload) = self.held.get(len..end) else { return Ok(Moved::Waiting) };
        let [first, second] = self.seed.masks;
        match header.opcode {
            opcode::PONG if payload == self.seed.ping => {
                push_frame(opcode::CLOSE, &NORMAL_CLOSURE.to_be_bytes(), second, out);
                return Ok(Moved::Passed);
            }
            // "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response" (RFC
            // 6455 section 5.5.2)
            opcode::PING => push_frame(opcode::PONG, payload, first, out),
            opcode::CLOSE => {
                // Section 5.5.1: the Close is answered with its own code.
                push_frame(opcode::CLOSE, payload.get(..2).unwrap_or_default(), second, out);
                return Err(Failure::Closed);
            }
            _ => {}
        }
        self.passed += end;
        self.held.drain(..end);
        Ok(Moved::On)
    }
}

/// What became of the bytes that are held.
enum Moved {
    /// Some are done with; there may be more.
    On,
    Waiting,
    Passed,
}

/// Whether a server may send such a frame where no extension was negotiated (RFC 6455 section 5).
fn may_come(header: &Header) -> bool {
    let known = matches!(header.opcode, opcode::CONTINUATION | opcode::TEXT | opcode::BINARY)
        || matches!(header.opcode, opcode::CLOSE | opcode::PING | opcode::PONG);
    let whole = !header.is_control() || (header.fin && header.payload_len <= CONTROL_MAX);
    known && whole && header.mask.is_none() && header.rsv == 0
}

/// Appends a frame as clients send them.
fn push_frame(opcode: u8, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    Header { fin: true, rsv: 0, opcode, mask: Some(key), payload_len: payload.len() as u64 }.write(out);
    let from = out.len();
    out.extend_from_slice(payload);
    mask(out.get_mut(from..).unwrap_or_default(), key, 0);
}

/// What a request has beside the configured fields.
struct Fixed<'a> {
    check: &'a HealthCheck,
    endpoint: &'a Endpoint,
    /// Of a WebSocket handshake.
    key: Option<[u8; 16]>,
}

fn write_request(request: &CheckRequest, fixed: &Fixed<'_>, out: &mut Vec<u8>) {
    let method = if request.head_only { "HEAD" } else { "GET" };
    let base = match fixed.endpoint.base.as_str() {
        "" => "/",
        base => base,
    };
    let path = request.path.as_deref().unwrap_or(base);
    let host = request.host.clone().unwrap_or_else(|| fixed.check.authority(fixed.endpoint));
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    head += &match fixed.key {
        None => "Connection: close\r\n".to_owned(),
        Some(key) => format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            STANDARD.encode(key)
        ),
    };
    let has_agent = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
    if !has_agent {
        head += "User-Agent: framegate\r\n";
    }
    for (name, value) in &request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    out.extend_from_slice(head.as_bytes());
}

#[cfg(test)]
mod tests;
