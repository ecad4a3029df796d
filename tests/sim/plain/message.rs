//! HTTP/1.1 messages by hand, for the clients and the servers of plain HTTP: how the script's are
//! written, and a reader of a stream of them. Shares nothing with `framegate::proto`. What the
//! worker writes has one form only (chunk sizes in lower case, no extensions, one framing field),
//! so the reader takes no other.

use crate::rng::Rng;

/// How the content of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    #[default]
    None,
    Length,
    Chunked,
    /// The end of the connection.
    UntilEnd,
}

/// The content of a message, and how it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    pub framing: Framing,
    pub content: Vec<u8>,
    /// Sizes of chunks, from the first one again behind the last.
    pub cuts: Vec<usize>,
    /// Chunk headers are not written as the worker would.
    pub odd: bool,
    /// A field behind the last chunk that passes, and one that must not.
    pub trailer: bool,
    /// The n-th chunk has no size.
    pub broken: Option<usize>,
}

/// The trailer that passes.
pub const TRAILER: &str = "X-Sum: 17\r\n";
const SWALLOWED: &str = "Content-Length: 3\r\n";

/// Text that is a message where a receiver has lost its place in the stream.
const SMUGGLED: &[u8] =
    b"\r\nGET /plain/none HTTP/1.1\r\nHost: sim\r\n\r\nHTTP/1.1 200 Smuggled\r\nContent-Length: 0\r\n\r\n";

/// The content of a message that nothing else has.
pub fn content(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    rng.fill(&mut content);
    if rng.one_in(2) {
        content.iter_mut().zip(SMUGGLED.iter().cycle()).for_each(|(to, from)| *to = *from);
        let n = content.len().min(8);
        rng.fill(&mut content[..n]);
    }
    content
}

impl Body {
    /// Appends the fields that delimit it.
    pub fn push_fields(&self, out: &mut Vec<u8>) {
        match self.framing {
            Framing::None | Framing::UntilEnd => {}
            Framing::Length => out.extend_from_slice(format!("Content-Length: {}\r\n", self.content.len()).as_bytes()),
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
    }

    pub fn push(&self, out: &mut Vec<u8>) {
        match self.framing {
            Framing::None => {}
            Framing::Length | Framing::UntilEnd => out.extend_from_slice(&self.content),
            Framing::Chunked => self.push_chunks(out),
        }
    }

    fn push_chunks(&self, out: &mut Vec<u8>) {
        let (mut at, mut sizes, mut n) = (0, self.cuts.iter().cycle(), 0);
        while at < self.content.len() {
            let size = sizes.next().copied().unwrap_or(usize::MAX).max(1).min(self.content.len() - at);
            let header = match (self.odd, n % 3) {
                _ if self.broken == Some(n) => "zz\r\n".to_owned(),
                (true, 0) => format!("0{size:X}\r\n"),
                (true, 1) => format!("{size:x};a=\"b\"\r\n"),
                _ => format!("{size:x}\r\n"),
            };
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(&self.content[at..at + size]);
            out.extend_from_slice(b"\r\n");
            (at, n) = (at + size, n + 1);
        }
        out.extend_from_slice(if self.odd { b"000\r\n" } else { b"0\r\n" });
        if self.trailer {
            out.extend_from_slice(format!("{SWALLOWED}{TRAILER}").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What arrives of its trailers where they pass.
    pub fn trailers(&self) -> &'static str {
        if self.trailer { TRAILER } else { "" }
    }
}

/// What was read of a message whose head is complete.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub head: String,
    pub framing: Framing,
    pub content: Vec<u8>,
    pub trailers: String,
    pub complete: bool,
}

impl Message {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.fields(name).next()
    }

    /// Of a response.
    pub fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status()) && self.status() != 101
    }

    /// It says that the connection ends behind it.
    pub fn closes(&self) -> bool {
        self.field("Connection") == Some("close")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Head,
    Length(usize),
    UntilEnd,
    ChunkSize,
    ChunkData(usize),
    Trailer,
    /// Behind a 101.
    Raw,
}

/// Reads a stream of messages.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    at: usize,
    state: State,
    pub messages: Vec<Message>,
    /// Responses: for each request, whether it was a HEAD.
    pub heads: Option<Vec<bool>>,
    /// What no well-formed message has.
    pub wrong: Option<String>,
    /// What came behind a 101.
    pub raw: Vec<u8>,
}

impl Reader {
    pub fn of_responses(heads: Vec<bool>) -> Reader {
        Reader { heads: Some(heads), ..Reader::default() }
    }

    /// Bytes that came, all together.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What came behind the last complete message or head, and is none yet.
    pub fn rest(&self) -> &[u8] {
        if self.state == State::Head { &self.bytes[self.at..] } else { &[] }
    }

    /// Responses that are not interim ones.
    pub fn finals(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| !message.is_interim())
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Reads what has come. `ended`: nothing more will, and nothing was cut.
    pub fn advance(&mut self, ended: bool) {
        while self.wrong.is_none() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(what) => self.wrong = Some(what),
            }
        }
        if ended && self.state == State::UntilEnd {
            self.finish();
        }
    }

    fn rest_len(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// One line without its end.
    fn take_line(&mut self) -> Option<String> {
        let n = self.bytes[self.at..].windows(2).position(|end| end == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.bytes[self.at..self.at + n]).into_owned();
        self.at += n + 2;
        Some(line)
    }

    fn take_content(&mut self, most: usize) -> usize {
        let n = most.min(self.rest_len());
        let (at, messages) = (self.at, &mut self.messages);
        if let Some(message) = messages.last_mut() {
            message.content.extend_from_slice(&self.bytes[at..at + n]);
        }
        self.at += n;
        n
    }

    fn finish(&mut self) {
        self.state = State::Head;
        if let Some(message) = self.messages.last_mut() {
            message.complete = true;
        }
    }

    /// Whether there may be more to read.
    fn step(&mut self) -> Result<bool, String> {
        if self.rest_len() == 0 {
            return Ok(false);
        }
        match self.state {
            State::Head => self.head(),
            State::Length(left) => {
                let n = self.take_content(left);
                self.state = State::Length(left - n);
                if left == n {
                    self.finish();
                }
                Ok(left == n)
            }
            State::UntilEnd => {
                self.take_content(usize::MAX);
                Ok(false)
            }
            State::Raw => {
                self.raw.extend_from_slice(&self.bytes[self.at..]);
                self.at = self.bytes.len();
                Ok(false)
            }
            State::ChunkSize => {
                let Some(line) = self.take_line() else { return Ok(false) };
                let size = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk size {line:?}"))?;
                if format!("{size:x}") != line {
                    return Err(format!("chunk header {line:?}"));
                }
                self.state = if size == 0 { State::Trailer } else { State::ChunkData(size) };
                Ok(true)
            }
            State::ChunkData(0) => {
                let Some(line) = self.take_line() else {
                    let behind = &self.bytes[self.at..];
                    return if behind == b"\r" { Ok(false) } else { Err("data behind a chunk".into()) };
                };
                self.state = State::ChunkSize;
                if line.is_empty() { Ok(true) } else { Err(format!("{line:?} behind a chunk")) }
            }
            State::ChunkData(left) => {
                let n = self.take_content(left);
                self.state = State::ChunkData(left - n);
                Ok(left == n)
            }
            State::Trailer => {
                let Some(line) = self.take_line() else { return Ok(false) };
                match self.messages.last_mut() {
                    Some(message) if !line.is_empty() => message.trailers += &(line + "\r\n"),
                    _ => self.finish(),
                }
                Ok(true)
            }
        }
    }

    fn head(&mut self) -> Result<bool, String> {
        let Some(n) = self.bytes[self.at..].windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8_lossy(&self.bytes[self.at..self.at + n]).into_owned();
        self.at += n + 4;
        let message = Message { head, ..Message::default() };
        for line in message.head.lines().skip(1) {
            if !line.contains(": ") && !line.ends_with(':') || line.starts_with(' ') {
                return Err(format!("the field {line:?}"));
            }
        }
        let (framing, length) = self.framing_of(&message)?;
        let raw = match self.heads {
            Some(_) => message.status() == 101,
            None => message.field("Upgrade").is_some(),
        };
        self.messages.push(Message { framing, ..message });
        self.state = match framing {
            Framing::None => State::Head,
            Framing::Length => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilEnd => State::UntilEnd,
        };
        if framing == Framing::None || length == 0 && framing == Framing::Length {
            self.finish();
        }
        if raw {
            self.state = State::Raw;
        }
        Ok(true)
    }

    /// RFC 9112 section 6.3, with nothing that could be read in two ways.
    fn framing_of(&self, message: &Message) -> Result<(Framing, usize), String> {
        let (lengths, codings) =
            (message.fields("Content-Length").count(), message.fields("Transfer-Encoding").count());
        if lengths + codings > 1 {
            return Err(format!("two framings: {:?}", message.head));
        }
        if codings == 1 && message.field("Transfer-Encoding") != Some("chunked") {
            return Err(format!("coding of {:?}", message.head));
        }
        let length = message.field("Content-Length").map(|digits| {
            let length: usize = digits.parse().map_err(|_| format!("length {digits:?}"))?;
            if length.to_string() == digits { Ok(length) } else { Err(format!("length {digits:?}")) }
        });
        let length = length.transpose()?;
        let framing = match (&self.heads, length, codings) {
            (Some(heads), ..) => {
                let nth = self.finals().count();
                let bare = heads.get(nth).copied().unwrap_or(false) || matches!(message.status(), 100..200 | 204 | 304);
                match (bare, length, codings) {
                    (true, ..) => Framing::None,
                    (_, Some(_), _) => Framing::Length,
                    (.., 1) => Framing::Chunked,
                    _ => Framing::UntilEnd,
                }
            }
            (None, Some(_), _) => Framing::Length,
            (None, None, 1) => Framing::Chunked,
            (None, None, _) => Framing::None,
        };
        Ok((framing, length.unwrap_or(0)))
    }
}
