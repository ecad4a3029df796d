//! A response whose head has come, on its way to the client: what it says about both connections,
//! and how one without an end is ended by the proxy.
//!
//! Such a response (an event stream) is cut behind a whole chunk, so that no event is lost in the
//! middle, and without the chunk that would be its last: what the client has must not look like all
//! of it. Where only the end of the connection delimits it, a reset says the same.

use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::http1::{Framing, Malformed, Passage, Passed, Response, values};

/// A response of unknown length that has lasted for this long is taken for one without an end.
const STREAM_MS: Millis = 30_000;

#[derive(Debug)]
pub(super) struct Download {
    passage: Passage,
    /// A head that has not left: the body that came with it leaves behind it.
    pub owed: Vec<u8>,
    /// The connection to the client ends behind the response.
    pub closes: bool,
    /// The upstream takes another request.
    pub persistent: bool,
    /// When its head came, where its length is unknown.
    unbounded_since: Option<Millis>,
    is_event_stream: bool,
    /// What delimits it toward the client is more than the end of the connection.
    shows_cut: bool,
    ending: Option<Ending>,
}

/// It is ended at the next boundary of chunks, or after that time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub cause: Cause,
    pub until: Millis,
}

impl Download {
    /// `dechunked`: the client does not know chunks.
    pub fn new(response: &Response<'_>, framing: Framing, dechunked: bool, now: Millis) -> Download {
        let passage = Passage::new(framing, dechunked);
        let is_unbounded = matches!(framing, Framing::Chunked | Framing::UntilEof);
        Download {
            owed: Vec::new(),
            closes: false,
            persistent: false,
            unbounded_since: is_unbounded.then_some(now),
            is_event_stream: !passage.is_done() && values(&response.fields, "content-type").any(is_event_stream),
            shows_cut: framing != Framing::UntilEof && !dechunked,
            ending: None,
            passage,
        }
    }

    pub fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// It has no end, as far as can be told.
    pub fn is_streaming(&self, now: Millis) -> bool {
        let lasts = |since: Millis| now.saturating_sub(since) >= STREAM_MS;
        self.is_event_stream || self.unbounded_since.is_some_and(lasts)
    }

    pub fn is_done(&self) -> bool {
        self.passage.is_done()
    }

    pub fn content(&self) -> u64 {
        self.passage.content
    }

    pub fn ends_with_connection(&self) -> bool {
        self.passage.ends_with_connection()
    }

    /// It is to end here: the first cause counts.
    pub fn end(&mut self, cause: Cause, until: Millis) {
        self.ending.get_or_insert(Ending { cause, until });
    }

    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// It is to end, and no chunk is half sent.
    pub fn ends_here(&self) -> Option<Cause> {
        self.ending.filter(|_| self.owed.is_empty() && self.passage.is_between_chunks()).map(|ending| ending.cause)
    }

    /// The client can tell that a part is missing.
    pub fn shows_cut(&self) -> bool {
        self.shows_cut
    }

    /// Judges the next bytes, as [`Passage::pass`] does: those of one chunk at most where it is to
    /// end behind that.
    pub fn pass(&mut self, bytes: &[u8], authored: &mut Vec<u8>) -> Result<Passed, Malformed> {
        authored.append(&mut std::mem::take(&mut self.owed));
        let bytes = match self.ending {
            Some(_) => bytes.get(..self.passage.left_of_chunk()).unwrap_or(bytes),
            None => bytes,
        };
        self.passage.pass(bytes, authored)
    }
}

/// The media type of server-sent events (HTML, section 9.2).
fn is_event_stream(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    let Some((media_type, rest)) = value.split_at_checked(TYPE.len()) else { return false };
    media_type.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b';' | b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::is_event_stream;

    #[test]
    fn event_streams_are_known_by_their_media_type() {
        let known = ["text/event-stream", "Text/Event-Stream; charset=utf-8", "text/event-stream ;x"];
        let others = ["text/event-streams", "text/plain", "application/text/event-stream", "text/event-strea", ""];
        assert!(known.iter().all(|value| is_event_stream(value.as_bytes())));
        assert!(!others.iter().any(|value| is_event_stream(value.as_bytes())));
    }
}
