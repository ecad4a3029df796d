//! HOT: one direction of an open session. Walks frame headers in place, judges each before any byte of it
//! leaves, never looks at payload (but for the two bytes of a close code). Owns a position, no bytes but an
//! incomplete header. What happens after a violation or a Close is decided in `open.rs`.
//!
//! `carried + walked <= given`: every byte given is forwarded, kept back in the carry, or beyond a stop.

use super::Side;
use super::close::may_pass;
use super::end::Cause;
use super::frame::{CONTROL_MAX, HEADER_MAX, Header, Parsed, opcode};
use super::handshake::Extensions;

/// How a route relays; chosen when the session opens.
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

/// Frames by opcode and bytes, of one direction. The worker owns it, the relay adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames: [u64; 16],
    pub bytes: u64,
}

/// What became of a slice: send `lead`, then `slice[..forward]`; `slice[..consumed]` is done with.
/// `forward <= consumed`, and `consumed` is never zero for a slice that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    pub lead: Lead,
    pub forward: usize,
    pub consumed: usize,
    /// These are the last bytes of their direction: its FIN is asked for as soon as they are sent.
    pub last: bool,
}

impl Relayed {
    /// Nothing leaves.
    pub fn kept(consumed: usize) -> Relayed {
        Relayed { lead: Lead::EMPTY, forward: 0, consumed, last: false }
    }

    pub fn forward(n: usize) -> Relayed {
        Relayed { lead: Lead::EMPTY, forward: n, consumed: n, last: false }
    }
}

/// The first byte of a message in one frame, without reserved bits.
const FINAL_TEXT: u8 = 0x80 | opcode::TEXT;
const FINAL_BINARY: u8 = 0x80 | opcode::BINARY;

/// The longest incomplete header.
const CARRY_MAX: usize = HEADER_MAX - 1;

/// The beginning of a header that was kept back until the rest of it could be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    bytes: [u8; CARRY_MAX],
    len: u8,
}

impl Lead {
    pub const EMPTY: Lead = Lead { bytes: [0; CARRY_MAX], len: 0 };

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends as much as fits.
    fn push(&mut self, more: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(usize::from(self.len)).zip(more) {
            *to = *from;
            self.len += 1;
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
    carry: Lead,
    /// A data message is open: only its continuation may follow.
    fragmented: bool,
    /// The code of the Close whose payload is passing.
    closing: Option<u16>,
    from: Side,
    extensions: Extensions,
}

/// What the walk needs to know of a judged header.
struct Judged {
    header: Header,
    /// Bytes that must be seen before any may leave: the header, and the code of a Close.
    len: usize,
    /// Payload bytes among them.
    payload_seen: u64,
    close: Option<u16>,
}

impl Cursor {
    pub fn new(from: Side, extensions: Extensions) -> Cursor {
        Cursor {
            left: 0,
            frames: 0,
            message: 0,
            carry: Lead::EMPTY,
            fragmented: false,
            closing: None,
            from,
            extensions,
        }
    }

    /// Whether a frame of ours may be put in here: nothing of a frame has left that is not complete.
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

    /// Payload bytes that may pass unseen. A Close is always seen.
    #[inline]
    pub fn passable(&self) -> u64 {
        if self.closing.is_none() { self.left } else { 0 }
    }

    /// `n` bytes of payload have passed unseen; at most [`Cursor::passable`].
    pub fn on_passed(&mut self, n: u64) {
        debug_assert!(n <= self.passable());
        self.left = self.left.saturating_sub(n);
    }

    /// Walks `bytes`. After a stop nothing of the rest may be forwarded.
    #[inline]
    pub fn walk(&mut self, bytes: &[u8], rules: FrameLimits, counts: &mut Counts) -> (Relayed, Option<Stop>) {
        let mut lead = Lead::EMPTY;
        let mut at = 0;
        if !self.carry.is_empty() {
            match self.finish_header(bytes, rules, counts) {
                Ok(Some(used)) => {
                    lead = std::mem::replace(&mut self.carry, Lead::EMPTY);
                    at = used;
                }
                Ok(None) => return (Relayed::kept(bytes.len()), None),
                Err(cause) => return (Relayed::kept(bytes.len()), Some(Stop::Violation(cause))),
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
                return (Relayed { lead, forward: at, consumed: at, last: false }, Some(Stop::Closed(code)));
            }
            at = self.skim(bytes, at, rules, counts);
            let rest = bytes.get(at..).unwrap_or(&[]);
            if rest.is_empty() {
                break;
            }
            match self.judge(rest, rules) {
                Ok(Some(judged)) => {
                    at += judged.len;
                    self.enter_frame(&judged, counts);
                }
                Ok(None) => {
                    self.carry.push(rest);
                    return (Relayed { lead, forward: at, consumed: bytes.len(), last: false }, None);
                }
                Err(cause) => {
                    return (
                        Relayed { lead, forward: at, consumed: bytes.len(), last: false },
                        Some(Stop::Violation(cause)),
                    );
                }
            }
        }
        (Relayed { lead, forward: at, consumed: at, last: false }, None)
    }

    /// Passes the plain frames from `at` on: whole messages of up to 64 KiB that are all there. Most are, and there are
    /// many in a read of them. Whatever is anything else is left to [`Cursor::judge`], which knows all the rules:
    /// without this one it would say the same, three times as slowly (PERF.md).
    #[inline]
    fn skim(&mut self, bytes: &[u8], mut at: usize, rules: FrameLimits, counts: &mut Counts) -> usize {
        if self.fragmented {
            return at;
        }
        let (masked, header_len) = if self.from == Side::Downstream { (0x80, 6) } else { (0, 2) };
        let most = rules.max_frame.min(rules.max_message);
        let (mut texts, mut binaries) = (0, 0);
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
            match *first {
                FINAL_TEXT => texts += 1,
                FINAL_BINARY => binaries += 1,
                _ => break,
            }
            self.message = u64::from(len);
            at = end;
        }
        self.frames += texts + binaries;
        counts.frames[usize::from(opcode::TEXT)] += texts;
        counts.frames[usize::from(opcode::BINARY)] += binaries;
        at
    }

    /// Completes the header in the carry with the start of `bytes`: how many of them it took, or `None` if
    /// it is still incomplete (all of them are in the carry then).
    fn finish_header(&mut self, bytes: &[u8], rules: FrameLimits, counts: &mut Counts) -> Result<Option<usize>, Cause> {
        let mut joined = [0; 2 * HEADER_MAX];
        let mut len = 0;
        for (to, from) in joined.iter_mut().zip(self.carry.bytes().iter().chain(bytes)) {
            *to = *from;
            len += 1;
        }
        let held = self.carry.bytes().len();
        let Some(judged) = self.judge(joined.get(..len).unwrap_or(&[]), rules)? else {
            self.carry.push(bytes);
            return Ok(None);
        };
        self.enter_frame(&judged, counts);
        Ok(Some(judged.len - held))
    }

    /// Judges the header at the start of `bytes`, as far as it is there. The order is that of its bytes, so
    /// that the verdict does not depend on how they were cut.
    #[inline]
    fn judge(&self, bytes: &[u8], rules: FrameLimits) -> Result<Option<Judged>, Cause> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        self.judge_first(first)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        self.judge_second(first, second)?;
        let (header, len) = match Header::parse(bytes)? {
            Parsed::Complete(header, len) => (header, len),
            Parsed::Partial => return Ok(None),
        };
        if header.is_control() {
            return judge_control(header, len, bytes);
        }
        if header.payload_len > rules.max_frame {
            return Err(Cause::FrameTooBig);
        }
        let before = if header.opcode == opcode::CONTINUATION { self.message } else { 0 };
        if before.saturating_add(header.payload_len) > rules.max_message {
            return Err(Cause::MessageTooBig);
        }
        Ok(Some(Judged { header, len, payload_seen: 0, close: None }))
    }

    #[inline]
    fn judge_first(&self, first: u8) -> Result<(), Cause> {
        let (fin, rsv, code) = (first & 0x80 != 0, first >> 4 & 7, first & 0x0f);
        // "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_."
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
            // Control frames stand between the fragments of a message; opcodes of an extension that we do
            // not know do to it what we cannot know.
            _ => {}
        }
    }
}

fn judge_control(header: Header, len: usize, bytes: &[u8]) -> Result<Option<Judged>, Cause> {
    if header.opcode != opcode::CLOSE {
        return Ok(Some(Judged { header, len, payload_seen: 0, close: None }));
    }
    if header.payload_len == 0 {
        return Ok(Some(Judged { header, len, payload_seen: 0, close: Some(1005) }));
    }
    let Some(code) = bytes.get(len..).and_then(|rest| rest.first_chunk::<2>()) else { return Ok(None) };
    let [k0, k1, ..] = header.mask.unwrap_or_default();
    let code = u16::from_be_bytes([code[0] ^ k0, code[1] ^ k1]);
    if !may_pass(code) {
        return Err(Cause::CloseCode);
    }
    Ok(Some(Judged { header, len: len + 2, payload_seen: 2, close: Some(code) }))
}

#[cfg(test)]
mod tests;
