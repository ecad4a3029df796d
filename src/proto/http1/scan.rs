//! Finds the end of a head and refuses what no head can hold. Keeps a position and a state, never a
//! byte. What the parts of a line mean is judged in [`super::parse_request`] and
//! [`super::parse_response`].

use crate::proto::end::Cause;

/// Looks for the end of a head, each byte once, however the bytes were cut; refuses at the first
/// byte that no valid head can have there, so that the verdict is the same for every segmentation.
///
/// Serves requests and responses. Lines end in CRLF and in nothing else (RFC 9112 section 2.2 lets
/// a recipient take a bare LF; two recipients that differ in this are how requests are smuggled).
/// One empty line before the first line is part of the head and means nothing.
#[derive(Debug, Default)]
pub struct HeadScan {
    // at <= held.len()
    at: usize,
    state: State,
}

impl HeadScan {
    /// `held` is all of the head so far (it only grows). `Some(end)`: the head is `held[..end]`.
    /// Fails with [`Cause::MalformedHead`]; the limit on the size of a head is the caller's.
    pub fn advance(&mut self, held: &[u8]) -> Result<Option<usize>, Cause> {
        while self.state != State::Done {
            let rest = held.get(self.at..).unwrap_or_default();
            self.at += match self.state {
                State::Line => field_lines(rest),
                state => run(rest, state.stay()),
            };
            let Some(byte) = held.get(self.at) else { return Ok(None) };
            self.state = self.state.step(*byte)?;
            self.at += 1;
        }
        Ok(Some(self.at))
    }
}

/// The length of the whole field lines that `bytes` begin with. The states would pass them, too: a
/// head is little else, and this takes a third of the time.
fn field_lines(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let Some(line) = field_line(bytes.get(len..).unwrap_or_default()) {
        len += line;
    }
    len
}

fn field_line(bytes: &[u8]) -> Option<usize> {
    let name = run(bytes, TOKEN);
    bytes.get(name).filter(|byte| name > 0 && **byte == b':')?;
    let end = name + 1 + run(bytes.get(name + 1..)?, VISIBLE | TAB);
    bytes.get(end..end + 2).filter(|end| *end == b"\r\n").map(|_| end + 2)
}

/// How many bytes there are before the first one that is of none of these classes.
fn run(bytes: &[u8], classes: u8) -> usize {
    let blocks = if classes & VISIBLE != 0 { visible_blocks(bytes) } else { 0 };
    let rest = bytes.get(blocks..).unwrap_or_default();
    blocks + rest.iter().position(|byte| CLASSES[usize::from(*byte)] & classes == 0).unwrap_or(rest.len())
}

/// The length of the blocks at the start of `bytes` that hold nothing but [`VISIBLE`]: the compiler
/// looks at all bytes of a block at once, and values are most of a head.
fn visible_blocks(bytes: &[u8]) -> usize {
    const LEN: usize = 16;
    let is_visible = |block: &[u8; LEN]| block.iter().fold(true, |all, byte| all & (*byte >= b' ') & (*byte != 0x7f));
    LEN * bytes.as_chunks().0.iter().take_while(|block| is_visible(block)).count()
}

/// What the next byte may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    First,
    /// CR of an empty line before the first line.
    EmptyLf,
    AfterEmpty,
    /// In the first word: a method, or the version of a response.
    Word,
    RequestLine,
    /// Told from a request line by the slash in its first word; a reason phrase may hold HTAB.
    StatusLine,
    LineLf,
    /// At the first byte of a field line, or of the empty line.
    Line,
    Name,
    Value,
    EndLf,
    Done,
}

impl State {
    /// The bytes that change nothing, as bits of [`CLASSES`].
    fn stay(self) -> u8 {
        match self {
            State::Word | State::Name => TOKEN,
            State::RequestLine => VISIBLE,
            State::StatusLine | State::Value => VISIBLE | TAB,
            _ => 0,
        }
    }

    /// The state after `byte`.
    pub(super) fn step(self, byte: u8) -> Result<State, Cause> {
        let class = CLASSES[usize::from(byte)];
        if class & self.stay() != 0 {
            return Ok(self);
        }
        match (self, byte) {
            (State::First, b'\r') => Ok(State::EmptyLf),
            (State::EmptyLf, b'\n') => Ok(State::AfterEmpty),
            (State::First | State::AfterEmpty, _) if class & TOKEN != 0 => Ok(State::Word),
            (State::Word, b' ') => Ok(State::RequestLine),
            (State::Word, b'/') => Ok(State::StatusLine),
            (State::RequestLine | State::StatusLine | State::Value, b'\r') => Ok(State::LineLf),
            (State::LineLf, b'\n') => Ok(State::Line),
            (State::Line, b'\r') => Ok(State::EndLf),
            // White space here is obs-fold, a colon an empty name: neither is a token.
            (State::Line, _) if class & TOKEN != 0 => Ok(State::Name),
            // "No whitespace is allowed between the field name and colon" (RFC 9112 section 5.1)
            (State::Name, b':') => Ok(State::Value),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(Cause::MalformedHead),
        }
    }
}

/// Whether every byte of `bytes` may stand in a token (RFC 9110 section 5.6.2), and there is one.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| CLASSES[usize::from(*byte)] & TOKEN != 0)
}

/// Whether `bytes` hold no control byte but HTAB: VCHAR, SP, HTAB and obs-text (RFC 9110 section
/// 5.5).
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| CLASSES[usize::from(*byte)] & (VISIBLE | TAB) != 0)
}

const TOKEN: u8 = 1;
/// VCHAR, SP and obs-text.
const VISIBLE: u8 = 2;
const TAB: u8 = 4;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`')
            || matches!(b, b'|' | b'~')
        {
            classes[byte] |= TOKEN;
        }
        if b >= b' ' && b != 0x7f {
            classes[byte] |= VISIBLE;
        }
        if b == b'\t' {
            classes[byte] |= TAB;
        }
        byte += 1;
    }
    classes
}
