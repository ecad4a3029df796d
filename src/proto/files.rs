//! The response to a request for a file: which part of it, or why none, by its conditions (RFC 9110
//! section 13) and its range (section 14), and the head. Without the file: over its length, time
//! and tag.

use super::http1::{Request, length_of, push, push_field, push_length, push_status, reason_of, values};

/// What a request says about the state and the part of a file that it wants: the values of its
/// fields as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    pub head_only: bool,
    /// The values of a field that comes several times are one list.
    if_match: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
    if_modified_since: Option<Vec<u8>>,
    if_unmodified_since: Option<Vec<u8>>,
    if_range: Option<Vec<u8>>,
    range: Option<Vec<u8>>,
}

/// A file as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Representation<'a> {
    pub len: u64,
    /// In seconds since the Unix epoch.
    pub modified: u64,
    /// A strong entity-tag, with its quotes.
    pub etag: &'a str,
    pub media_type: &'a str,
}

/// What a request gets of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// 200.
    Whole,
    /// 206: these bytes, at least one.
    Part { from: u64, len: u64 },
    /// 304: the client has it.
    NotModified,
    /// 412.
    Failed,
    /// 416: it has no such bytes.
    OutOfRange,
}

impl Conditions {
    pub fn of(request: &Request<'_>) -> Conditions {
        let list = |name: &str| {
            let lines: Vec<_> = values(&request.fields, name).collect();
            (!lines.is_empty()).then(|| lines.join(&b", "[..]))
        };
        Conditions {
            head_only: request.method == "HEAD",
            if_match: list("if-match"),
            if_none_match: list("if-none-match"),
            if_modified_since: list("if-modified-since"),
            if_unmodified_since: list("if-unmodified-since"),
            if_range: list("if-range"),
            range: list("range"),
        }
    }

    /// Judges them in the order of RFC 9110 section 13.2.2. `now` in seconds since the Unix epoch.
    pub fn select(&self, file: &Representation<'_>, now: u64) -> Selection {
        match (&self.if_match, self.if_unmodified_since.as_deref().and_then(parse_date)) {
            (Some(tags), _) if !names_tag(tags, file.etag, Comparison::Strong) => return Selection::Failed,
            (None, Some(date)) if file.modified > date => return Selection::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since.as_deref().and_then(parse_date)) {
            (Some(tags), _) if names_tag(tags, file.etag, Comparison::Weak) => return Selection::NotModified,
            (None, Some(date)) if file.modified <= date => return Selection::NotModified,
            _ => {}
        }
        // "A server MUST ignore a Range header field received with a request method that is
        // unrecognized or for which range handling is not defined": it is for GET.
        let range = self.range.as_deref().filter(|_| !self.head_only && self.is_same(file, now));
        range.map_or(Selection::Whole, |range| range_of(range, file.len))
    }

    /// If-Range: the client's part is of this state of the file.
    fn is_same(&self, file: &Representation<'_>, now: u64) -> bool {
        let Some(validator) = self.if_range.as_deref() else { return true };
        match parse_date(validator) {
            // "If the HTTP-date validator provided is not a strong validator in the sense defined
            // by Section 8.8.2.2, the condition is false": it could change within a second.
            Some(date) => date == file.modified && now > date,
            None => validator == file.etag.as_bytes(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity-tags (RFC 9110 section 8.8.3), or `*`, names `etag`, which is strong.
/// What is no list names none.
fn names_tag(list: &[u8], etag: &str, comparison: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    let (mut rest, mut found) = (list, false);
    loop {
        rest = rest.trim_ascii_start();
        if let Some(behind) = rest.strip_prefix(b",") {
            rest = behind;
            continue;
        }
        let (is_weak, tag) = rest.strip_prefix(b"W/").map_or((false, rest), |tag| (true, tag));
        let opaque = tag.strip_prefix(b"\"").and_then(|inside| {
            let end = inside.iter().position(|byte| *byte == b'"')?;
            tag.split_at_checked(end + 2)
        });
        let Some((opaque, behind)) = opaque else { return found && rest.is_empty() };
        found |= opaque == etag.as_bytes() && (!is_weak || comparison == Comparison::Weak);
        rest = behind.trim_ascii_start();
        if !(rest.is_empty() || rest.starts_with(b",")) {
            return false;
        }
    }
}

/// The one range of a Range field. A server may ignore the field (RFC 9110 section 14.2): here it
/// does where the unit is another one than bytes, the field is malformed, or it names several
/// ranges.
fn range_of(field: &[u8], len: u64) -> Selection {
    let equals = field.iter().position(|byte| *byte == b'=');
    let Some((unit, spec)) = equals.and_then(|at| field.split_at_checked(at)) else { return Selection::Whole };
    let spec = spec.get(1..).unwrap_or_default().trim_ascii();
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Selection::Whole;
    }
    let Some(dash) = spec.iter().position(|byte| *byte == b'-') else { return Selection::Whole };
    let (first, last) = (spec.get(..dash).unwrap_or_default(), spec.get(dash + 1..).unwrap_or_default());
    match (position(first), position(last)) {
        // "If the selected representation is shorter than the specified suffix-length, the entire
        // representation is used."
        (Position::None, Position::At(0)) => Selection::OutOfRange,
        (Position::None, Position::At(_)) if len == 0 => Selection::Whole,
        (Position::None, Position::At(suffix)) => {
            let part = suffix.min(len);
            Selection::Part { from: len - part, len: part }
        }
        (Position::At(first), Position::At(last)) if last < first => Selection::Whole,
        (Position::At(first), Position::None | Position::At(_)) if first >= len => Selection::OutOfRange,
        (Position::At(from), Position::None) => Selection::Part { from, len: len - from },
        (Position::At(from), Position::At(last)) => {
            Selection::Part { from, len: (last - from).saturating_add(1).min(len - from) }
        }
        _ => Selection::Whole,
    }
}

enum Position {
    None,
    At(u64),
    Malformed,
}

/// Digits alone; what is beyond every file is as large as can be.
fn position(digits: &[u8]) -> Position {
    if digits.is_empty() {
        return Position::None;
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Position::Malformed;
    }
    Position::At(length_of(digits).unwrap_or(u64::MAX))
}

impl Selection {
    pub fn status(self) -> u16 {
        match self {
            Selection::Whole => 200,
            Selection::Part { .. } => 206,
            Selection::NotModified => 304,
            Selection::Failed => 412,
            Selection::OutOfRange => 416,
        }
    }

    /// Appends the head of the response, and the body where that is not of the file. `now` as
    /// above.
    pub fn write(self, out: &mut Vec<u8>, file: &Representation<'_>, (head_only, now): (bool, u64)) {
        let status = self.status();
        match self {
            Selection::OutOfRange => {
                let range = format!("bytes */{}", file.len);
                return write_text(out, status, Some(("Content-Range", &range)), (head_only, now));
            }
            Selection::Failed => return write_text(out, status, None, (head_only, now)),
            Selection::Whole | Selection::Part { .. } | Selection::NotModified => begin(out, status, now),
        }
        if self != Selection::NotModified {
            let length = match self {
                Selection::Part { from, len } => {
                    let range = format!("bytes {from}-{}/{}", from + (len - 1), file.len);
                    push_field(out, "Content-Range", range.as_bytes());
                    len
                }
                _ => file.len,
            };
            push_field(out, "Content-Type", file.media_type.as_bytes());
            push_length(out, length);
            push_field(out, "Accept-Ranges", b"bytes");
            push_field(out, "X-Content-Type-Options", b"nosniff");
        }
        push_validators(out, file, now);
    }
}

/// Appends the fields by which the client asks again, and the empty line.
fn push_validators(out: &mut Vec<u8>, file: &Representation<'_>, now: u64) {
    push_field(out, "ETag", file.etag.as_bytes());
    // "an origin server with a clock MUST NOT generate a Last-Modified date that is later than the
    // server's time of message origination (Date)"
    push_field(out, "Last-Modified", format_date(file.modified.min(now)).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a response with a line of text: its status.
pub fn write_text(out: &mut Vec<u8>, status: u16, field: Option<(&str, &str)>, (head_only, now): (bool, u64)) {
    let reason = reason_of(status);
    begin(out, status, now);
    push_field(out, "Content-Type", b"text/plain; charset=utf-8");
    push_length(out, reason.len() as u64 + 2);
    push_field(out, "X-Content-Type-Options", b"nosniff");
    if let Some((name, value)) = field {
        push_field(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if !head_only {
        push(out, &[reason.as_bytes(), b".\n"]);
    }
}

fn begin(out: &mut Vec<u8>, status: u16, now: u64) {
    push_status(out, status, reason_of(status));
    push_field(out, "Date", format_date(now).as_bytes());
}

/// The last second that has four digits for its year.
const DATE_MAX: u64 = 253_402_300_799;

/// In the one format that is written (RFC 9110 section 5.6.7).
fn format_date(seconds: u64) -> String {
    #[cfg(feature = "files")]
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(DATE_MAX)));
    #[cfg(not(feature = "files"))]
    let text = seconds.min(DATE_MAX).to_string();
    text
}

/// In each of the three formats that are read. `None` for what is no date.
#[cfg(feature = "files")]
fn parse_date(text: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(not(feature = "files"))]
fn parse_date(_: &[u8]) -> Option<u64> {
    None
}

#[cfg(feature = "files")]
use std::time::{Duration, UNIX_EPOCH};

#[cfg(test)]
#[cfg(feature = "files")]
mod tests;
