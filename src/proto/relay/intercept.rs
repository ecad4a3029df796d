//! Takes messages of the client that hold new credentials out of its stream: they go to policy, and
//! no byte of them to the upstream. Only sessions whose route declares such messages
//! ([`RefreshForm`]) have one. The cursor sees what is left of the stream, and knows nothing of it.
//!
//! A text frame is held back until its first bytes show that it is no such message, and is then
//! forwarded as it is; or it is taken. What is held is judged anew with each byte that arrives, so
//! that nothing depends on how the bytes were cut.

use super::Relay;
use super::budget::Budget;
use super::cursor::Cursor;
use crate::proto::Side;
use crate::proto::end::Cause;
use crate::proto::frame::{HEADER_MAX, Header, Parsed, opcode};
use crate::proto::mask::mask;
use crate::proto::settings::{FrameLimits, REFRESH_SEEN_MAX, RefreshForm};
use std::fmt;
use std::sync::Arc;

/// What is held back at most.
const HELD_MAX: usize = HEADER_MAX + REFRESH_SEEN_MAX;

/// User memory of one without messages at most, beside its entry in the limiter.
pub const INTERCEPT_SIZE: usize = size_of::<Intercept>() + HELD_MAX;

/// The payload of a message that was taken out of a stream. It may be a secret: no text shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct TakenMessage(pub Vec<u8>);

impl fmt::Debug for TakenMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TakenMessage({} bytes)", self.0.len())
    }
}

/// The client's direction of one session.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Intercept {
    form: Arc<RefreshForm>,
    /// The begin of a text frame of which is not known yet what it is.
    held: Vec<u8>,
    /// Its header is complete, and the limits have room for it.
    admitted: bool,
    taking: Option<Taking>,
    /// Not fetched yet.
    taken: Option<TakenMessage>,
}

/// A message that is being taken.
#[derive(Clone, PartialEq, Eq)]
struct Taking {
    /// Payload bytes that have not come yet.
    left: u64,
    key: [u8; 4],
    message: Vec<u8>,
}

/// What a text frame is, by as much of it as has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Undecided,
    /// It is none of ours, or breaks a rule that the cursor reports.
    Other,
    /// It is, with its header of that many bytes.
    Refresh(Header, usize),
    /// It begins like one, but may hold only a part of the credentials.
    Broken,
}

/// What is to become of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Intercepted {
    /// The cursor gets so many of them.
    Plain(usize),
    /// So many of them are held back or taken.
    Consumed(usize),
    /// The cursor gets this, which was held back before them; then they are looked at again.
    Released(Vec<u8>),
    Violation(Cause),
}

impl Intercept {
    pub fn new(form: &Arc<RefreshForm>) -> Box<Intercept> {
        Box::new(Intercept { form: Arc::clone(form), held: Vec::new(), admitted: false, taking: None, taken: None })
    }

    /// Bytes of an incomplete header that are held back.
    pub fn held(&self) -> usize {
        if self.admitted { 0 } else { self.held.len() }
    }

    /// Payload bytes of the frame under way that have not come yet.
    pub fn left(&self) -> u64 {
        match (&self.taking, Header::parse(&self.held)) {
            (Some(taking), _) => taking.left,
            (None, Ok(Parsed::Complete(header, len))) => {
                header.payload_len.saturating_sub((self.held.len() - len) as u64)
            }
            (None, _) => 0,
        }
    }

    /// The message that has been taken.
    pub fn fetch(&mut self) -> Option<TakenMessage> {
        self.taken.take()
    }

    pub fn has_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// How many of `bytes` are no message that may have to be taken: up to the next text frame that
    /// is not known to be another one.
    fn plain(&self, cursor: &Cursor, bytes: &[u8]) -> usize {
        let len = bytes.len() as u64;
        let mut at = cursor.left().min(len);
        while at < len {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            let is_text = rest.first().is_some_and(|first| first & 0x0f == opcode::TEXT);
            if is_text && self.look(rest) != Look::Other {
                break;
            }
            at = match Header::parse(rest) {
                Ok(Parsed::Complete(header, size)) => header.payload_len.saturating_add(at + size as u64).min(len),
                // The cursor holds it back, or reports it.
                Ok(Parsed::Partial) | Err(_) => len,
            };
        }
        at as usize
    }

    /// Finds out what the first of `bytes` are, and takes or holds back what is not the cursor's.
    pub fn on_bytes<B: Budget>(
        &mut self,
        bytes: &[u8],
        cursor: &Cursor,
        limits: FrameLimits,
        budget: &mut B,
    ) -> Intercepted {
        if self.taking.is_some() {
            return Intercepted::Consumed(self.take(bytes));
        }
        if cursor.held() > 0 {
            // The header of another frame: it was looked at before, and ends soon.
            return Intercepted::Plain(1);
        }
        let plain = if self.held.is_empty() { self.plain(cursor, bytes) } else { 0 };
        if plain > 0 { Intercepted::Plain(plain) } else { self.hold(bytes, cursor, limits, budget) }
    }

    /// Holds back or takes bytes from the begin of a text frame on, up to its end at most.
    fn hold<B: Budget>(&mut self, bytes: &[u8], cursor: &Cursor, limits: FrameLimits, budget: &mut B) -> Intercepted {
        let before = self.held.len();
        self.held.extend_from_slice(bytes.get(..HELD_MAX - before).unwrap_or(bytes));
        let look = match cursor.judge_header(&self.held, limits) {
            Ok(()) => self.look(&self.held),
            Err(_) => Look::Other,
        };
        match look {
            Look::Other => {
                let mut held = std::mem::take(&mut self.held);
                held.truncate(before);
                self.admitted = false;
                // The cursor refuses what comes now, if nothing was held back.
                return if before == 0 { Intercepted::Plain(bytes.len()) } else { Intercepted::Released(held) };
            }
            Look::Broken => return Intercepted::Violation(Cause::RefreshFormat),
            Look::Undecided | Look::Refresh(..) => {}
        }
        let complete = matches!(Header::parse(&self.held), Ok(Parsed::Complete(..)));
        if complete
            && !std::mem::replace(&mut self.admitted, true)
            && let Err(cause) = budget.admit(opcode::TEXT)
        {
            return Intercepted::Violation(cause);
        }
        let Look::Refresh(header, len) = look else { return Intercepted::Consumed(self.held.len() - before) };
        // Of what was put behind it, only what is still its own.
        let message = Vec::with_capacity(header.payload_len as usize);
        self.taking = Some(Taking { left: header.payload_len, key: header.mask.unwrap_or_default(), message });
        let held = std::mem::take(&mut self.held);
        self.admitted = false;
        let taken = self.take(held.get(len..).unwrap_or_default());
        Intercepted::Consumed(len + taken - before)
    }

    /// Takes what of `bytes` belongs to the message; how many those are.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let Some(taking) = &mut self.taking else { return 0 };
        let n = usize::try_from(taking.left).unwrap_or(usize::MAX).min(bytes.len());
        let at = taking.message.len();
        taking.message.extend_from_slice(bytes.get(..n).unwrap_or(bytes));
        mask(taking.message.get_mut(at..).unwrap_or_default(), taking.key, at as u64);
        taking.left -= n as u64;
        if taking.left == 0 {
            self.taken = self.taking.take().map(|taking| TakenMessage(taking.message));
        }
        n
    }

    /// Looks at a text frame from its first byte on.
    fn look(&self, frame: &[u8]) -> Look {
        let (header, len) = match Header::parse(frame) {
            Ok(Parsed::Complete(header, len)) => (header, len),
            Ok(Parsed::Partial) => return Look::Undecided,
            Err(_) => return Look::Other,
        };
        let Some(key) = header.mask else { return Look::Other };
        if header.rsv != 0 {
            // It is compressed: what it says cannot be seen.
            return Look::Broken;
        }
        let payload = frame.get(len..).unwrap_or_default();
        // No more than is looked at where the bytes come one by one.
        let most = header.payload_len.min(REFRESH_SEEN_MAX as u64);
        let payload = payload.iter().take(most as usize);
        let seen = payload.len() as u64;
        let unmasked = payload.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        match self.form.begins(unmasked) {
            Some(false) => Look::Other,
            Some(true) if header.fin && header.payload_len <= self.form.max_bytes => Look::Refresh(header, len),
            Some(true) => Look::Broken,
            None if seen == header.payload_len && header.fin => Look::Other,
            None if seen == header.payload_len || seen >= REFRESH_SEEN_MAX as u64 => Look::Broken,
            None => Look::Undecided,
        }
    }
}

impl Relay {
    /// The message that was taken last.
    pub(in crate::proto) fn fetch(&mut self) -> Option<TakenMessage> {
        self.limiter.as_mut()?.throttle_mut(Side::Downstream).intercept.as_mut()?.fetch()
    }
}

/// Without what it holds: that may be a secret.
impl fmt::Debug for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intercept {{ held: {}, left: {} }}", self.held.len(), self.left())
    }
}

#[cfg(test)]
mod tests;
