//! HOT: the position of one direction between and inside frames. Walks frame headers in place,
//! judges each before any byte of it is forwarded, never looks at payload except for the two bytes
//! of a close code and pongs that may answer pings of ours. Owns no bytes but an incomplete header,
//! or such a pong. What follows from a violation or a Close is decided in `relay/mod.rs`.
//!
//! `held + walked <= given`: every byte given is forwarded, held back in the incomplete header, or
//! beyond a stop.

use super::budget::Budget;
use super::heartbeat::PING_BYTES;
use super::slice::{Counts, Relayed};
use crate::proto::Side;
use crate::proto::close::may_pass;
use crate::proto::end::Cause;
use crate::proto::frame::{CONTROL_MAX, HEADER_MAX, Header, Parsed, opcode};
use crate::proto::handshake::Extensions;
use crate::proto::mask::mask;
use crate::proto::settings::FrameLimits;

/// The first byte of a message in one frame, without reserved bits.
const FINAL_TEXT: u8 = 0x80 | opcode::TEXT;
const FINAL_BINARY: u8 = 0x80 | opcode::BINARY;

/// The longest incomplete header is one byte shorter; a pong that may be ours is as long.
const HELD_MAX: usize = HEADER_MAX;

/// The first bytes of a frame, held back until its header can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeaderBytes<const MAX: usize> {
    bytes: [u8; MAX],
    len: u8,
}

impl<const MAX: usize> HeaderBytes<MAX> {
    const EMPTY: HeaderBytes<MAX> = HeaderBytes { bytes: [0; MAX], len: 0 };

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends as much as fits.
    fn push(&mut self, more: &[u8]) {
        let free = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        let n = free.len().min(more.len());
        if let (Some(to), Some(from)) = (free.get_mut(..n), more.get(..n)) {
            to.copy_from_slice(from);
            self.len += n as u8;
        }
    }
}

/// Why a walk ended before its slice did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A whole Close has passed; its code, 1005 where it had none.
    Closed(u16),
    /// The header at this point must not pass. The stream stands at a frame boundary.
    Violation(Cause),
    /// A pong that may answer a ping of ours was consumed, and nothing else: it is held.
    Pong,
}

/// Where one direction stands between and inside frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Payload bytes of the current frame that have not passed yet.
    left: u64,
    /// Frames whose header has passed.
    frames: u64,
    /// Payload bytes of the current message, as announced by its frames so far.
    message: u64,
    /// An incomplete header, not forwarded yet.
    held: HeaderBytes<HELD_MAX>,
    /// A data message is open: only its continuation may follow.
    fragmented: bool,
    /// Pongs may be answers to pings of ours.
    pinged: bool,
    /// The code of the Close whose payload is passing.
    closing: Option<u16>,
    from: Side,
    extensions: Extensions,
}

/// What the walk needs to know of a judged header.
struct Judged {
    header: Header,
    /// Bytes that must be seen before any may leave: the header, the code of a Close, the payload
    /// of a pong that may answer a ping of ours.
    len: usize,
    /// Payload bytes among them.
    payload_seen: u64,
    close: Option<u16>,
    /// It is a pong that may answer a ping of ours.
    pong: bool,
}

impl Cursor {
    pub fn new(from: Side, extensions: Extensions) -> Cursor {
        Cursor {
            left: 0,
            frames: 0,
            message: 0,
            held: HeaderBytes::EMPTY,
            fragmented: false,
            pinged: false,
            closing: None,
            from,
            extensions,
        }
    }

    /// Whether a frame of ours may be put in here: nothing of a frame has left that is not
    /// complete.
    #[inline]
    pub fn at_boundary(&self) -> bool {
        self.left == 0
    }

    /// Payload bytes of the current frame that have not passed yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes of an incomplete header that are held back.
    pub fn held(&self) -> usize {
        self.held.bytes().len()
    }

    /// A data message has begun, and its last frame has not: only frames of control may be put in.
    #[inline]
    pub fn in_message(&self) -> bool {
        self.fragmented
    }

    /// An extension that is not known may give every frame a meaning of its own.
    pub fn knows_extensions(&self) -> bool {
        self.extensions != Extensions::Unknown
    }

    /// Judges the header at the start of `bytes` as a walk would, as far as it is there.
    pub fn judge_header(&self, bytes: &[u8], limits: FrameLimits) -> Result<(), Cause> {
        self.judge(bytes, limits).map(|_| ())
    }

    /// They begin a message.
    #[inline]
    pub fn holds_message(&self) -> bool {
        let first = self.held.bytes().first().map(|first| first & 0x0f);
        matches!(first, Some(opcode::TEXT | opcode::BINARY))
    }

    /// The shortest header of a frame in this direction.
    #[inline]
    pub fn header_min(&self) -> u64 {
        if self.from == Side::Downstream { 6 } else { 2 }
    }

    /// Payload bytes that may pass unseen. A Close is always seen.
    #[inline]
    pub fn spliceable(&self) -> u64 {
        if self.closing.is_none() { self.left } else { 0 }
    }

    /// `n` bytes of payload have passed unseen; at most [`Cursor::spliceable`].
    pub fn on_spliced(&mut self, n: u64) {
        debug_assert!(n <= self.spliceable());
        self.left = self.left.saturating_sub(n);
    }

    /// A ping of ours has left toward the source: its pong is not to be forwarded.
    pub fn expect_pongs(&mut self) {
        self.pinged = true;
    }

    /// The payload of the pong that is held, after [`Stop::Pong`].
    pub fn pong(&self) -> Option<[u8; PING_BYTES]> {
        let Ok(Parsed::Complete(header, len)) = Header::parse(self.held.bytes()) else { return None };
        let mut payload = *self.held.bytes().get(len..)?.first_chunk()?;
        mask(&mut payload, header.mask.unwrap_or_default(), 0);
        Some(payload)
    }

    /// It answers a ping of ours.
    pub fn drop_pong(&mut self) {
        self.held = HeaderBytes::EMPTY;
    }

    /// It does not, and is forwarded: how many bytes that is.
    pub fn pass_pong(&mut self, counts: &mut Counts, authored: &mut Vec<u8>) -> u64 {
        let bytes = std::mem::replace(&mut self.held, HeaderBytes::EMPTY);
        authored.extend_from_slice(bytes.bytes());
        counts.frames[usize::from(opcode::PONG)] += 1;
        self.frames += 1;
        bytes.bytes().len() as u64
    }

    /// Walks `bytes`. A held header that they complete goes to `authored`, to be sent before them.
    /// After a stop nothing of the rest may be forwarded.
    #[inline]
    pub fn walk<B: Budget>(
        &mut self,
        bytes: &[u8],
        limits: FrameLimits,
        counts: &mut Counts,
        authored: &mut Vec<u8>,
        budget: &mut B,
    ) -> (Relayed, Option<Stop>) {
        let mut at = 0;
        if !self.held.is_empty() {
            match self.finish_header(bytes, limits, counts, budget) {
                Ok(Some((used, true))) => return (Relayed::consume(used), Some(Stop::Pong)),
                Ok(Some((used, false))) => {
                    authored.extend_from_slice(self.held.bytes());
                    self.held = HeaderBytes::EMPTY;
                    at = used;
                }
                Ok(None) => return (Relayed::consume(bytes.len()), None),
                Err(cause) => return (Relayed::consume(bytes.len()), Some(Stop::Violation(cause))),
            }
        }
        loop {
            let rest = bytes.get(at..).unwrap_or(&[]);
            let passed = self.left.min(rest.len() as u64);
            self.left -= passed;
            at += passed as usize;
            if self.left > 0 {
                break;
            }
            if let Some(code) = self.closing.take() {
                return (Relayed::forward(at), Some(Stop::Closed(code)));
            }
            at = self.skim(bytes, at, limits, counts, budget);
            let rest = bytes.get(at..).unwrap_or(&[]);
            if rest.is_empty() {
                break;
            }
            match self.judge(rest, limits) {
                Ok(Some(judged)) if judged.pong => {
                    // What is before it is forwarded first.
                    if at > 0 {
                        return (Relayed::forward(at), None);
                    }
                    self.held.push(rest.get(..judged.len).unwrap_or(rest));
                    return (Relayed::consume(judged.len), Some(Stop::Pong));
                }
                Ok(Some(judged)) => {
                    if let Err(cause) = budget.admit(judged.header.opcode) {
                        let relayed = Relayed { forward: at, consumed: bytes.len(), last: false };
                        return (relayed, Some(Stop::Violation(cause)));
                    }
                    at += judged.len;
                    self.enter_frame(&judged, counts);
                }
                Ok(None) => {
                    self.held.push(rest);
                    return (Relayed { forward: at, consumed: bytes.len(), last: false }, None);
                }
                Err(cause) => {
                    let relayed = Relayed { forward: at, consumed: bytes.len(), last: false };
                    return (relayed, Some(Stop::Violation(cause)));
                }
            }
        }
        (Relayed::forward(at), None)
    }

    /// Skips complete, unfragmented data frames of up to 64 KiB from `at` on; most reads hold
    /// nothing else. Every other frame is left to [`Cursor::judge`], which knows all the rules and
    /// would give the same verdicts without this loop, three times as slowly (PERF.md).
    #[inline]
    fn skim<B: Budget>(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        limits: FrameLimits,
        counts: &mut Counts,
        budget: &mut B,
    ) -> usize {
        if self.fragmented {
            return at;
        }
        let (masked, header_len) = if self.from == Side::Downstream { (0x80, 6) } else { (0, 2) };
        let most = limits.max_frame.min(limits.max_message);
        let (mut texts, mut binaries) = (0, 0);
        let free = budget.free_messages();
        while let Some([first, second, more @ ..]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) {
            // With the wrong mask bit this is more than any length.
            let (len, extended) = match second ^ masked {
                short @ 0..126 => (u16::from(short), 0),
                126 => (u16::from_be_bytes(*more), 2),
                _ => break,
            };
            let end = at + header_len + extended + usize::from(len);
            if u64::from(len) > most || end > bytes.len() || (extended > 0 && u64::from(len) <= CONTROL_MAX) {
                break;
            }
            if B::LIMITS && texts + binaries >= free {
                break;
            }
            match *first {
                FINAL_TEXT => texts += 1,
                FINAL_BINARY => binaries += 1,
                _ => break,
            }
            self.message = u64::from(len);
            at = end;
        }
        budget.on_messages(texts + binaries);
        self.frames += texts + binaries;
        counts.frames[usize::from(opcode::TEXT)] += texts;
        counts.frames[usize::from(opcode::BINARY)] += binaries;
        at
    }

    /// Completes the header in the carry with the start of `bytes`: how many of them it took, or
    /// `None` if it is still incomplete (all of them are in the carry then). Also whether it is a
    /// pong that may answer a ping of ours, which stays held.
    fn finish_header<B: Budget>(
        &mut self,
        bytes: &[u8],
        limits: FrameLimits,
        counts: &mut Counts,
        budget: &mut B,
    ) -> Result<Option<(usize, bool)>, Cause> {
        // The longest incomplete header, and a whole one behind it.
        let mut joined = HeaderBytes::<{ 2 * HEADER_MAX }>::EMPTY;
        joined.push(self.held.bytes());
        joined.push(bytes);
        let held = self.held.bytes().len();
        let Some(judged) = self.judge(joined.bytes(), limits)? else {
            self.held.push(bytes);
            return Ok(None);
        };
        let used = judged.len - held;
        if judged.pong {
            self.held.push(bytes.get(..used).unwrap_or(bytes));
        } else {
            budget.admit(judged.header.opcode)?;
            self.enter_frame(&judged, counts);
        }
        Ok(Some((used, judged.pong)))
    }

    /// Judges the header at the start of `bytes`, as far as it is there. The order is that of its
    /// bytes, so that the verdict does not depend on how they were cut.
    #[inline]
    fn judge(&self, bytes: &[u8], limits: FrameLimits) -> Result<Option<Judged>, Cause> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        self.judge_first(first)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        self.judge_second(first, second)?;
        let (header, len) = match Header::parse(bytes)? {
            Parsed::Complete(header, len) => (header, len),
            Parsed::Partial => return Ok(None),
        };
        if header.is_control() {
            return self.judge_control(header, len, bytes);
        }
        if header.payload_len > limits.max_frame {
            return Err(Cause::FrameTooBig);
        }
        let before = if header.opcode == opcode::CONTINUATION { self.message } else { 0 };
        if before.saturating_add(header.payload_len) > limits.max_message {
            return Err(Cause::MessageTooBig);
        }
        Ok(Some(Judged { header, len, payload_seen: 0, close: None, pong: false }))
    }

    #[inline]
    fn judge_first(&self, first: u8) -> Result<(), Cause> {
        let (fin, rsv, code) = (first & 0x80 != 0, first >> 4 & 7, first & 0x0f);
        // "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket
        // Connection_."
        if matches!(code, 3..=7 | 11..) && self.extensions != Extensions::Unknown {
            return Err(Cause::ReservedOpcode);
        }
        let allowed = match self.extensions {
            Extensions::None => 0,
            // RFC 7692 section 6: RSV1 on the first frame of a data message.
            Extensions::Deflate if matches!(code, opcode::TEXT | opcode::BINARY) => 4,
            Extensions::Deflate => 0,
            Extensions::Unknown => 7,
        };
        if rsv & !allowed != 0 {
            return Err(Cause::ReservedBits);
        }
        match code {
            opcode::CONTINUATION if !self.fragmented => Err(Cause::Continuation),
            opcode::TEXT | opcode::BINARY if self.fragmented => Err(Cause::Continuation),
            // "All control frames ... MUST NOT be fragmented."
            8.. if !fin => Err(Cause::ControlFragmented),
            _ => Ok(()),
        }
    }

    #[inline]
    fn judge_second(&self, first: u8, second: u8) -> Result<(), Cause> {
        // "a client MUST mask all frames that it sends", "A server MUST NOT mask any frames"
        if (second & 0x80 != 0) != (self.from == Side::Downstream) {
            return Err(Cause::MaskBit);
        }
        if first & 8 != 0 && u64::from(second & 0x7f) > CONTROL_MAX {
            return Err(Cause::ControlTooLong);
        }
        if first & 0x0f == opcode::CLOSE && second & 0x7f == 1 {
            return Err(Cause::ClosePayload);
        }
        Ok(())
    }

    fn judge_control(&self, header: Header, len: usize, bytes: &[u8]) -> Result<Option<Judged>, Cause> {
        let judged = Judged { header, len, payload_seen: 0, close: None, pong: false };
        let payload = bytes.get(len..).unwrap_or(&[]);
        if header.opcode == opcode::PONG && self.pinged && header.rsv == 0 && header.payload_len == PING_BYTES as u64 {
            let whole = payload.len() >= PING_BYTES;
            return Ok(whole.then_some(Judged { len: len + PING_BYTES, pong: true, ..judged }));
        }
        if header.opcode != opcode::CLOSE {
            return Ok(Some(judged));
        }
        if header.payload_len == 0 {
            return Ok(Some(Judged { close: Some(1005), ..judged }));
        }
        let Some(code) = payload.first_chunk::<2>() else { return Ok(None) };
        let [k0, k1, ..] = header.mask.unwrap_or_default();
        let code = u16::from_be_bytes([code[0] ^ k0, code[1] ^ k1]);
        if !may_pass(code) {
            return Err(Cause::CloseCode);
        }
        Ok(Some(Judged { len: len + 2, payload_seen: 2, close: Some(code), ..judged }))
    }

    #[inline]
    fn enter_frame(&mut self, judged: &Judged, counts: &mut Counts) {
        let header = &judged.header;
        if let Some(frames) = counts.frames.get_mut(usize::from(header.opcode)) {
            *frames += 1;
        }
        self.frames += 1;
        self.left = header.payload_len - judged.payload_seen;
        self.closing = judged.close;
        match header.opcode {
            opcode::CONTINUATION => {
                self.message = self.message.saturating_add(header.payload_len);
                self.fragmented = !header.fin;
            }
            opcode::TEXT | opcode::BINARY => {
                self.message = header.payload_len;
                self.fragmented = !header.fin;
            }
            // Control frames stand between the fragments of a message; opcodes of an extension that
            // we do not know do to it what we cannot know.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
