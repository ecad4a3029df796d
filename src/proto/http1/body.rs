//! Where the body of an answer ends, and what it is without its framing (RFC 9112 sections 6 and
//! 7). Keeps no byte.

use super::scan::State;
use super::{Response, elements, length_of, values};
use crate::proto::end::Cause;

/// Where the body of an answer ends (RFC 9112, section 6.3), byte by byte.
#[derive(Debug)]
pub enum Body {
    /// 204, 304, or Content-Length 0.
    None,
    /// Bytes that are still to come.
    Length(u64),
    Chunked(Chunks),
    UntilEof,
}

impl Body {
    /// How many of `bytes` belong to the body, and whether it is complete with them.
    /// `Cause::BadResponse` where the chunking is broken.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Cause> {
        self.decode(bytes, |_| {})
    }

    /// The same; `content` gets the bytes without those of the chunking.
    pub fn decode(&mut self, bytes: &[u8], mut content: impl FnMut(&[u8])) -> Result<(usize, bool), Cause> {
        match self {
            Body::None => Ok((0, true)),
            Body::Length(left) => {
                let taken = (bytes.len() as u64).min(*left);
                *left -= taken;
                content(bytes.get(..taken as usize).unwrap_or_default());
                Ok((taken as usize, *left == 0))
            }
            Body::Chunked(chunks) => chunks.decode(bytes, content),
            Body::UntilEof => {
                content(bytes);
                Ok((bytes.len(), false))
            }
        }
    }
}

/// How the body of this answer (to a GET) is delimited. Conflicting or repeated framing is
/// `Cause::BadResponse`, also where there is no body: the fields are passed on.
///
/// So is any transfer coding but a lone `chunked`: we never send TE, and "a sender MUST NOT" use a
/// coding which the recipient did not name (RFC 9112 section 7.4); the client could not read it.
pub fn body_of(response: &Response<'_>) -> Result<Body, Cause> {
    let mut lengths = values(&response.fields, "content-length");
    let length = lengths.next().map(|value| length_of(value).ok_or(Cause::BadResponse)).transpose()?;
    let chunked = values(&response.fields, "transfer-encoding").next().is_some();
    if lengths.next().is_some() || (chunked && length.is_some()) {
        return Err(Cause::BadResponse);
    }
    if chunked {
        let mut codings = elements(&response.fields, "transfer-encoding");
        let (Some(coding), None) = (codings.next(), codings.next()) else { return Err(Cause::BadResponse) };
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(Cause::BadResponse);
        }
    }
    Ok(match (response.status, length) {
        (100..=199 | 204 | 304, _) | (_, Some(0)) => Body::None,
        (_, Some(length)) => Body::Length(length),
        _ if chunked => Body::Chunked(Chunks::default()),
        _ => Body::UntilEof,
    })
}

/// Position in a chunked body, trailers included.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    /// Before the first digit of a chunk size.
    #[default]
    Start,
    Size(u64),
    /// White space after the size: old servers pad it.
    Padding(u64),
    Extension(u64),
    SizeLf(u64),
    /// Bytes of the chunk that are still to come; not zero.
    Data(u64),
    DataCr,
    DataLf,
    /// Field lines after the last chunk, up to the empty line.
    Trailer(State),
}

impl Chunks {
    fn decode(&mut self, bytes: &[u8], mut content: impl FnMut(&[u8])) -> Result<(usize, bool), Cause> {
        let mut rest = bytes;
        while !matches!(self.at, At::Trailer(State::Done)) {
            if let At::Data(left) = self.at {
                let taken = (rest.len() as u64).min(left);
                let (data, after) = rest.split_at_checked(taken as usize).unwrap_or_default();
                content(data);
                rest = after;
                self.at = if taken == left { At::DataCr } else { At::Data(left - taken) };
            }
            let Some((byte, after)) = rest.split_first() else { return Ok((bytes.len(), false)) };
            self.at = self.at.step(*byte).ok_or(Cause::BadResponse)?;
            rest = after;
        }
        Ok((bytes.len() - rest.len(), true))
    }
}

impl At {
    /// What follows a byte of the framing; `None` if it may not stand here.
    fn step(self, byte: u8) -> Option<At> {
        match (self, byte) {
            (At::Start, _) => At::Size(0).step(byte).filter(|at| matches!(at, At::Size(_))),
            (At::Size(size) | At::Padding(size), b' ' | b'\t') => Some(At::Padding(size)),
            (At::Size(size) | At::Padding(size), b';') => Some(At::Extension(size)),
            (At::Size(size) | At::Padding(size) | At::Extension(size), b'\r') => Some(At::SizeLf(size)),
            (At::Size(size), _) => {
                let digit = char::from(byte).to_digit(16)?;
                // "recipients MUST [...] prevent parsing errors due to integer conversion
                // overflows"
                Some(At::Size(size.checked_mul(16)?.checked_add(u64::from(digit))?))
            }
            (At::Extension(_), b'\t' | b' '..=b'~' | 0x80..) => Some(self),
            (At::SizeLf(0), b'\n') => Some(At::Trailer(State::Line)),
            (At::SizeLf(size), b'\n') => Some(At::Data(size)),
            (At::DataCr, b'\r') => Some(At::DataLf),
            (At::DataLf, b'\n') => Some(At::Start),
            (At::Trailer(state), _) => state.step(byte).ok().map(At::Trailer),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
