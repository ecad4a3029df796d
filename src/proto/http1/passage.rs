//! A body on its way through the proxy (RFC 9112 sections 6 and 7): where it ends, and its framing,
//! which is judged once and leaves as this proxy would write it. Bytes pass as they are wherever
//! they are what would be written; only other chunk headers, and what a cut leaves of one, are
//! written anew.

use super::scan::is_token;
use super::write::{is_hop_by_hop, push, push_field};
use super::{Request, length_of, parse_fields, starts_with, values};

/// White space and an extension behind a chunk size.
const EXTENSION_MAX: usize = 256;
/// The trailer section of a chunked body.
const TRAILER_MAX: usize = 8 * 1024;
/// Shorter runs of data are copied together with their neighbours: each call leads to one send.
const COPY_MAX: usize = 4 * 1024;

/// A body that is not delimited as its peer said, or not as RFC 9112 allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    /// Content-Length.
    Length(u64),
    Chunked,
    /// The end of the connection; of responses alone.
    UntilEof,
}

/// How the body of a request is delimited, if there is one way to read that (RFC 9112 section 6.3):
/// no Content-Length beside Transfer-Encoding, one Content-Length of digits alone, and no transfer
/// coding but one `chunked`, which HTTP/1.0 does not have.
pub fn request_framing(request: &Request<'_>) -> Result<Framing, Malformed> {
    let mut lengths = values(&request.fields, "content-length");
    let length = lengths.next().map(|value| length_of(value).ok_or(Malformed)).transpose()?;
    let mut codings = values(&request.fields, "transfer-encoding");
    let coding = codings.next();
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(Malformed);
    }
    match (length, coding) {
        (None, None) => Ok(Framing::None),
        (Some(length), None) => Ok(Framing::Length(length)),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && !request.is_http10 => Ok(Framing::Chunked),
        (_, Some(_)) => Err(Malformed),
    }
}

/// What became of a slice: the authored bytes leave first, then `slice[..forward]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    pub forward: usize,
    pub consumed: usize,
}

/// Position in a body that passes.
#[derive(Debug)]
pub struct Passage {
    state: State,
    /// Bytes of the content that have passed.
    pub content: u64,
}

#[derive(Debug)]
enum State {
    Done,
    Length(u64),
    UntilEof,
    Chunked(Box<Chunked>),
}

impl Passage {
    /// `dechunked`: the receiver does not know chunks, and gets their content alone.
    pub fn new(framing: Framing, dechunked: bool) -> Passage {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length(left),
            Framing::UntilEof => State::UntilEof,
            Framing::Chunked => State::Chunked(Box::new(Chunked::new(dechunked))),
        };
        Passage { state, content: 0 }
    }

    /// All of it has passed.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// It ends with the connection: without another sign, what came is all of it.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilEof)
    }

    /// What has passed ends with a whole chunk; of a body without chunks, anything does.
    pub fn is_between_chunks(&self) -> bool {
        match &self.state {
            State::Chunked(chunked) => chunked.at == At::Size && chunked.digits == 0 && chunked.owed.is_empty(),
            State::Done | State::Length(_) | State::UntilEof => true,
        }
    }

    /// So many bytes are left of the chunk under way, and one where that is not known.
    pub fn left_of_chunk(&self) -> usize {
        match &self.state {
            State::Chunked(chunked) => match chunked.at {
                At::Data(left) => usize::try_from(left).unwrap_or(usize::MAX).saturating_add(2),
                _ => 1,
            },
            State::Done | State::Length(_) | State::UntilEof => usize::MAX,
        }
    }

    /// No more than this is to be read for it, so that no more than `beyond` comes from behind it.
    pub fn wants(&self, beyond: usize) -> usize {
        let known = |left: u64| usize::try_from(left).unwrap_or(usize::MAX);
        match &self.state {
            State::Done => 0,
            State::Length(left) => known(*left),
            State::Chunked(chunked) => match chunked.at {
                At::Data(left) => known(left).saturating_add(beyond),
                _ => beyond,
            },
            State::UntilEof => usize::MAX,
        }
    }

    /// Judges the next bytes. `consumed` is zero only for a body that is done, or no bytes; it is
    /// to be called again with the rest.
    pub fn pass(&mut self, bytes: &[u8], authored: &mut Vec<u8>) -> Result<Passed, Malformed> {
        let passed = match &mut self.state {
            State::Done => return Ok(Passed::default()),
            State::Length(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                self.content += n as u64;
                Passed { forward: n, consumed: n }
            }
            State::UntilEof => {
                self.content += bytes.len() as u64;
                Passed { forward: bytes.len(), consumed: bytes.len() }
            }
            State::Chunked(chunked) => {
                let before = chunked.content;
                let passed = chunked.pass(bytes, authored)?;
                self.content += chunked.content - before;
                passed
            }
        };
        let done = match &self.state {
            State::Length(left) => *left == 0,
            State::Chunked(chunked) => chunked.at == At::Done,
            State::Done | State::UntilEof => false,
        };
        if done {
            self.state = State::Done;
        }
        Ok(passed)
    }
}

/// Position in a chunked body.
#[derive(Debug)]
struct Chunked {
    at: At,
    /// Chunk framing is dropped: the receiver gets the content.
    dechunked: bool,
    /// What is read of the chunk size, and whether it is written as it would be here.
    size: u64,
    digits: u8,
    canonical: bool,
    /// Bytes behind the size.
    extension: usize,
    /// The trailer section so far, without the empty line.
    trailer: Vec<u8>,
    /// A chunk header that is complete and has not left: the next bytes leave behind it.
    owed: Vec<u8>,
    content: u64,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// CR behind the data of a chunk.
    DataCr,
    DataLf,
    Size,
    Extension,
    SizeLf,
    Data(u64),
    /// A line of the trailer section; none of its bytes has come.
    TrailerLine,
    TrailerText,
    TrailerLf,
    LastLf,
    Done,
}

impl Chunked {
    fn new(dechunked: bool) -> Chunked {
        Chunked {
            at: At::Size,
            dechunked,
            size: 0,
            digits: 0,
            canonical: true,
            extension: 0,
            trailer: Vec::new(),
            owed: Vec::new(),
            content: 0,
        }
    }

    fn pass(&mut self, bytes: &[u8], authored: &mut Vec<u8>) -> Result<Passed, Malformed> {
        authored.append(&mut std::mem::take(&mut self.owed));
        let mut walk = Walk { bytes, authored, at: 0, forward: 0, copies: false };
        while self.at != At::Done && walk.at < bytes.len() {
            let goes_on = match self.at {
                At::Data(left) => self.data(left, &mut walk),
                At::DataCr | At::DataLf => self.data_end(&mut walk)?,
                _ => self.header(&mut walk)?,
            };
            if !goes_on {
                break;
            }
        }
        if walk.copies && walk.at < bytes.len() && self.at != At::Done {
            // The next call has a long run of data, and sends this with it.
            self.owed.append(walk.authored);
        }
        Ok(Passed { forward: walk.forward, consumed: walk.at })
    }

    /// `false`: the data is to begin the next call.
    fn data(&mut self, left: u64, walk: &mut Walk<'_>) -> bool {
        let n = (walk.bytes.len() - walk.at).min(usize::try_from(left).unwrap_or(usize::MAX));
        if !walk.take(n) {
            return false;
        }
        self.content += n as u64;
        self.at = if n as u64 == left { At::DataCr } else { At::Data(left - n as u64) };
        true
    }

    /// CRLF behind the data: it leaves with it, since the receiver may wait for it.
    fn data_end(&mut self, walk: &mut Walk<'_>) -> Result<bool, Malformed> {
        let Some(byte) = walk.bytes.get(walk.at) else { return Ok(false) };
        let next = self.step(*byte).ok_or(Malformed)?;
        if self.dechunked {
            walk.at += 1;
        } else if !walk.take(1) {
            return Ok(false);
        }
        self.at = next;
        Ok(true)
    }

    /// A header, up to the data behind it or the end of the body. Whole and as it would be written
    /// here, it passes with the data around it.
    fn header(&mut self, walk: &mut Walk<'_>) -> Result<bool, Malformed> {
        let (start, is_whole) = (walk.at, self.at == At::Size && self.digits == 0);
        loop {
            let Some(byte) = walk.bytes.get(walk.at) else { return Ok(true) };
            self.at = self.step(*byte).ok_or(Malformed)?;
            walk.at += 1;
            if matches!(self.at, At::Data(_) | At::Done) {
                break;
            }
        }
        let (is_last, as_is) = (self.at == At::Done, is_whole && self.canonical);
        let passes = self.dechunked || (as_is && walk.passes_since(start));
        let mut goes_on = true;
        if !passes {
            let header = self.written();
            goes_on = walk.author(&header, is_last);
            if !goes_on {
                self.owed = header;
            }
        }
        (self.size, self.digits, self.canonical, self.extension) = (0, 0, true, 0);
        Ok(goes_on)
    }

    /// What follows a byte of the framing; `None` if it may not stand here.
    fn step(&mut self, byte: u8) -> Option<At> {
        match (self.at, byte) {
            (At::DataCr, b'\r') => Some(At::DataLf),
            (At::DataLf, b'\n') => Some(At::Size),
            (At::Size, b'\r') if self.digits > 0 => Some(At::SizeLf),
            // "chunk-ext = *( BWS ";" BWS chunk-ext-name [...] )": it means nothing behind a proxy.
            (At::Size, b';' | b' ' | b'\t') if self.digits > 0 => {
                self.canonical = false;
                Some(At::Extension)
            }
            (At::Size, _) => {
                let digit = char::from(byte).to_digit(16)?;
                // Leading zeros and upper case are not what is written here.
                self.canonical &= !byte.is_ascii_uppercase() && (self.digits == 0 || self.size > 0);
                // "recipients MUST [...] prevent parsing errors due to integer conversion
                // overflows"
                self.digits = self.digits.checked_add(1).filter(|digits| *digits <= 16)?;
                self.size = self.size.checked_mul(16)?.checked_add(u64::from(digit))?;
                Some(At::Size)
            }
            (At::Extension, b'\r') => Some(At::SizeLf),
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension += 1;
                (self.extension <= EXTENSION_MAX).then_some(At::Extension)
            }
            (At::SizeLf, b'\n') if self.size > 0 => Some(At::Data(self.size)),
            (At::SizeLf, b'\n') => Some(At::TrailerLine),
            (At::TrailerLine, b'\r') => Some(At::LastLf),
            (At::LastLf, b'\n') => self.judge_trailer().then_some(At::Done),
            (At::TrailerLine | At::TrailerText, b'\t' | b' '..=b'~' | 0x80..) => self.keep(byte, At::TrailerText),
            (At::TrailerText, b'\r') => self.keep(byte, At::TrailerLf),
            (At::TrailerLf, b'\n') => self.keep(byte, At::TrailerLine),
            _ => None,
        }
    }

    fn keep(&mut self, byte: u8, next: At) -> Option<At> {
        self.trailer.push(byte);
        (self.trailer.len() <= TRAILER_MAX).then_some(next)
    }

    /// Leaves of the trailer section what may pass: a field that frames, routes or authenticates a
    /// message must not come behind it (RFC 9110 section 6.5.1).
    fn judge_trailer(&mut self) -> bool {
        if self.trailer.is_empty() {
            return true;
        }
        self.trailer.extend_from_slice(b"\r\n");
        let Ok(fields) = parse_fields(&self.trailer) else { return false };
        let mut passing = Vec::with_capacity(self.trailer.len());
        for field in fields.iter().filter(|field| may_trail(field.name)) {
            push_field(&mut passing, field.name, field.value);
        }
        self.trailer = passing;
        // It is written from here, even if all of it was dropped.
        self.canonical = false;
        true
    }

    /// The header that has been read, or the end of the body, as it is written here.
    fn written(&self) -> Vec<u8> {
        let mut out = format!("{:x}\r\n", self.size).into_bytes();
        if self.at == At::Done {
            push(&mut out, &[&self.trailer, b"\r\n"]);
        }
        out
    }
}

/// The walk over one slice: a prefix of it passes as it is, or all of it is copied.
struct Walk<'a> {
    bytes: &'a [u8],
    authored: &'a mut Vec<u8>,
    at: usize,
    /// So much of the slice passes as it is.
    forward: usize,
    copies: bool,
}

impl Walk<'_> {
    /// The next `n` bytes pass. `false` where that is better left to the next call.
    fn take(&mut self, n: usize) -> bool {
        let end = self.at + n;
        if !self.copies && self.forward == self.at {
            self.forward = end;
        } else if n >= COPY_MAX || !self.begin_copy() {
            return false;
        } else {
            self.authored.extend_from_slice(self.bytes.get(self.at..end).unwrap_or_default());
        }
        self.at = end;
        true
    }

    /// The bytes from `start` to here pass as they are, with all before them.
    fn passes_since(&mut self, start: usize) -> bool {
        let passes = !self.copies && self.forward == start;
        if passes {
            self.forward = self.at;
        }
        passes
    }

    /// `bytes` are written. `false`: with the next call, which does not come behind the `last`.
    fn author(&mut self, bytes: &[u8], last: bool) -> bool {
        if !last && !self.begin_copy() {
            return false;
        }
        self.copy();
        self.authored.extend_from_slice(bytes);
        true
    }

    /// From here on bytes are copied, unless a long run of them passes before.
    fn begin_copy(&mut self) -> bool {
        let begins = self.copies || self.forward < COPY_MAX;
        if begins {
            self.copy();
        }
        begins
    }

    fn copy(&mut self) {
        self.authored.extend_from_slice(self.bytes.get(..self.forward).unwrap_or_default());
        (self.forward, self.copies) = (0, true);
    }
}

/// Fields that may stand in a trailer section, and are of use there.
fn may_trail(name: &str) -> bool {
    const NEVER: [&str; 20] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "max-forwards",
        "pragma",
        "range",
        "set-cookie",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
        "traceparent",
        "tracestate",
        "origin",
    ];
    let is = |known: &&str| name.eq_ignore_ascii_case(known);
    is_token(name.as_bytes())
        && !name.contains('_')
        && !is_hop_by_hop(name)
        && !NEVER.iter().any(is)
        && !["x-forwarded-", "x-client-cert-", "if-"].iter().any(|prefix| starts_with(name.as_bytes(), prefix))
}

#[cfg(test)]
mod tests;
