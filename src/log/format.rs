//! A record as one line of text or JSON. Whatever a client sends, a record is one line without
//! control characters and without characters that reorder or hide text on a terminal.

use super::record::{EndRecord, Record, StartRecord};
use crate::config::Format;
use crate::policy::endpoint::Endpoint;
use crate::policy::session::SessionInfo;
use crate::proto::Side;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// Appends the line of `record`, line feed included.
pub fn write(record: &Record, format: Format, out: &mut Vec<u8>) {
    let (event, at_unix_ms) = match record {
        Record::Start(start) => ("open", start.at_unix_ms),
        Record::End(end) => ("end", end.at_unix_ms),
    };
    write_line(at_unix_ms, event, format, out, &|put| match record {
        Record::Start(start) => start_fields(start, put),
        Record::End(end) => end_fields(end, put),
    });
}

/// Appends a line that reports how many lines were lost since the previous report.
pub fn write_lost(lost: u64, at_unix_ms: u64, format: Format, out: &mut Vec<u8>) {
    write_line(at_unix_ms, "log", format, out, &|put| put("lost", Value::Number(lost)));
}

/// One value of a line.
enum Value<'a> {
    /// A fixed word of ours.
    Word(&'static str),
    /// Bytes from a client or the configuration.
    Bytes(&'a [u8]),
    Shown(&'a dyn fmt::Display),
    Number(u64),
    /// Milliseconds, shown in seconds.
    Age(u64),
}

type Put<'a> = &'a mut dyn FnMut(&'static str, Value<'_>);

// The fields of a line, for both formats. Unknown values are omitted. `up` and `down` are
// directions: toward the upstream, toward the client.

fn start_fields(start: &StartRecord, put: Put<'_>) {
    info_fields(&start.info, start.endpoint.as_deref(), put);
    put("handshake_ms", Value::Number(start.handshake_ms));
    for (name, value) in [("subprotocol", &start.subprotocol), ("origin", &start.origin), ("agent", &start.agent)] {
        if let Some(value) = value {
            put(name, Value::Bytes(value));
        }
    }
}

fn end_fields(end: &EndRecord, put: Put<'_>) {
    match &end.info {
        Some(info) => info_fields(info, end.endpoint.as_deref(), put),
        None => put("client", Value::Shown(&end.peer)),
    }
    put("ended_by", Value::Word(end.end.party.name()));
    put("phase", Value::Word(end.end.phase.name()));
    put("cause", Value::Word(end.end.cause.name()));
    if end.status != 0 {
        put("status", Value::Number(u64::from(end.status)));
    }
    for (name, toward) in [("code_up", Side::Upstream), ("code_down", Side::Downstream)] {
        if let Some(code) = end.close_codes[toward] {
            put(name, Value::Number(u64::from(code)));
        }
    }
    put("age", Value::Age(end.age_ms));
    put("frames_up", Value::Number(end.frames[Side::Downstream]));
    put("frames_down", Value::Number(end.frames[Side::Upstream]));
    put("bytes_up", Value::Number(end.bytes[Side::Downstream]));
    put("bytes_down", Value::Number(end.bytes[Side::Upstream]));
}

fn info_fields(info: &SessionInfo, endpoint: Option<&Endpoint>, put: Put<'_>) {
    put("id", Value::Bytes(info.id()));
    put("client", Value::Shown(&info.peer));
    put("host", Value::Bytes(info.host()));
    put("path", Value::Bytes(info.target()));
    if let Some(identity) = info.identity.as_ref().filter(|identity| !identity.subject.is_empty()) {
        put("user", Value::Bytes(identity.subject.as_bytes()));
    }
    let Some(route) = &info.route else { return };
    put("route", Value::Bytes(route.name.as_bytes()));
    if let Some(endpoint) = endpoint {
        put("upstream", Value::Bytes(endpoint.url.as_bytes()));
    }
}

fn write_line(at_unix_ms: u64, event: &str, format: Format, out: &mut Vec<u8>, fields: &dyn Fn(Put<'_>)) {
    let time = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(at_unix_ms));
    // Ignored: writing to a vector cannot fail; a time after the year 9999 is omitted.
    match format {
        Format::Text => {
            let _ = write!(out, "{time} {event}");
            fields(&mut |name, value| {
                let _ = write!(out, " {name}={value}");
            });
        }
        Format::Json => {
            let _ = write_json(Value::Shown(&time), event, out, fields);
        }
    }
    out.push(b'\n');
}

fn write_json(time: Value<'_>, event: &str, out: &mut Vec<u8>, fields: &dyn Fn(Put<'_>)) -> serde_json::Result<()> {
    let mut json = serde_json::Serializer::with_formatter(out, Visible);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("time", &time)?;
    map.serialize_entry("event", event)?;
    let mut result = Ok(());
    fields(&mut |name, value| {
        let entry = map.serialize_entry(name, &value);
        result = std::mem::replace(&mut result, Ok(())).and(entry);
    });
    result?;
    map.end()
}

/// The text form.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Word(word) => f.write_str(word),
            Value::Bytes(bytes) if is_plain(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Value::Bytes(bytes) => write!(f, "\"{}\"", Escaped(bytes)),
            Value::Shown(shown) => shown.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Age(ms) => write!(f, "{}.{:03}s", ms / 1_000, ms % 1_000),
        }
    }
}

/// The JSON form.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Word(word) => to.serialize_str(word),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => to.serialize_str(text),
                Err(_) => to.serialize_str(&with_invalid_as_hex(bytes)),
            },
            Value::Shown(shown) => to.collect_str(shown),
            Value::Number(number) => to.serialize_u64(*number),
            Value::Age(ms) => to.serialize_f64(*ms as f64 / 1_000.0),
        }
    }
}

/// Bytes as text, with quotes, backslashes, line ends, control and invisible characters escaped,
/// and bytes that are not UTF-8 as `\xNN`.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c if c.is_ascii_control() => write!(f, "\\x{:02x}", c as u32)?,
                    c if is_invisible(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                    c => f.write_char(c)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Compact JSON that also escapes invisible characters, which JSON does not require.
struct Visible;

impl serde_json::ser::Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            let mut units = [0; 2];
            if is_invisible(c) {
                c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            } else {
                out.write_all(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
        Ok(())
    }
}

fn with_invalid_as_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether text is unambiguous without quotes.
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |c: char| !matches!(c, '"' | '\\') && !c.is_whitespace() && !is_invisible(c);
    !bytes.is_empty() && std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(plain))
}

/// Control characters, and characters that end lines, reorder or hide text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::super::record::field;
    use super::*;
    use crate::policy::endpoint::Address;
    use crate::policy::route::Route;
    use crate::policy::session::Text;
    use crate::policy::upstream::Upstream;
    use crate::proto::Sides;
    use crate::proto::end::{Cause, End, Party, Phase};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn endpoint() -> Endpoint {
        let address = Address::Tcp("127.0.0.1:9000".parse().unwrap());
        Endpoint::new("ws://127.0.0.1:9000".into(), address, false, String::new())
    }

    fn info(target: &str) -> Arc<SessionInfo> {
        let upstream = Arc::new(Upstream::new("app".into(), vec![endpoint().into()], Default::default()));
        let route = Arc::new(Route::new("chat".into(), upstream));
        Arc::new(SessionInfo::new(
            Text { id: b"abc", host: "example.com", target },
            "1.2.3.4:5".parse().unwrap(),
            Some(route),
            0,
        ))
    }

    fn start() -> Record {
        Record::Start(StartRecord {
            info: info("/chat?a=b"),
            at_unix_ms: 1_795_176_000_123,
            endpoint: Some(Arc::new(endpoint())),
            handshake_ms: 3,
            subprotocol: None,
            origin: field(Some(b"https://example.com")),
            agent: field(Some(b"a \"b\"")),
        })
    }

    fn end() -> EndRecord {
        EndRecord {
            info: Some(info("/chat?a=b")),
            peer: "1.2.3.4:5".parse().unwrap(),
            at_unix_ms: 1_795_176_012_468,
            end: End { party: Party::Downstream, phase: Phase::Open, cause: Cause::Close },
            endpoint: Some(Arc::new(endpoint())),
            status: 101,
            close_codes: Sides::new(Some(1000), None),
            age_ms: 12_345,
            frames: Sides::new(7, 8),
            bytes: Sides::new(700, 800),
        }
    }

    fn refusal() -> Record {
        let malformed = End { party: Party::Downstream, phase: Phase::Request, cause: Cause::MalformedHead };
        let (zero, none) = (Sides::default(), Sides::default());
        let (info, endpoint) = (None, None);
        Record::End(EndRecord {
            info,
            end: malformed,
            endpoint,
            status: 400,
            close_codes: none,
            frames: zero,
            bytes: zero,
            ..end()
        })
    }

    fn line(record: &Record, format: Format) -> String {
        let mut out = Vec::new();
        write(record, format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_lines() {
        assert_eq!(
            line(&start(), Format::Text),
            "2026-11-20T12:00:00.123Z open id=abc client=1.2.3.4:5 host=example.com path=/chat?a=b route=chat \
             upstream=ws://127.0.0.1:9000 handshake_ms=3 origin=https://example.com agent=\"a \\\"b\\\"\"\n"
        );
        assert_eq!(
            line(&Record::End(end()), Format::Text),
            "2026-11-20T12:00:12.468Z end id=abc client=1.2.3.4:5 host=example.com path=/chat?a=b route=chat \
             upstream=ws://127.0.0.1:9000 ended_by=downstream phase=open cause=close status=101 code_down=1000 \
             age=12.345s \
             frames_up=7 frames_down=8 bytes_up=700 bytes_down=800\n"
        );
        assert_eq!(
            line(&refusal(), Format::Text),
            "2026-11-20T12:00:12.468Z end client=1.2.3.4:5 ended_by=downstream phase=request cause=malformed-head \
             status=400 \
             age=12.345s frames_up=0 frames_down=0 bytes_up=0 bytes_down=0\n"
        );
    }

    #[test]
    fn json_lines() {
        assert_eq!(
            line(&start(), Format::Json),
            "{\"time\":\"2026-11-20T12:00:00.123Z\",\"event\":\"open\",\"id\":\"abc\",\"client\":\"1.2.3.4:5\",\
             \"host\":\"example.com\",\"path\":\"/chat?a=b\",\"route\":\"chat\",\"upstream\":\"ws://127.0.0.1:9000\",\
             \"handshake_ms\":3,\"origin\":\"https://example.com\",\"agent\":\"a \\\"b\\\"\"}\n"
        );
        let end: serde_json::Value = serde_json::from_str(&line(&Record::End(end()), Format::Json)).unwrap();
        assert_eq!(end["age"], 12.345);
        assert_eq!(end["code_down"], 1000);
        assert_eq!(end["code_up"], serde_json::Value::Null);
        assert_eq!(end["bytes_up"], 700);
        assert_eq!(end["cause"], "close");
    }

    #[test]
    fn the_line_of_a_loss() {
        let mut out = Vec::new();
        write_lost(7, 0, Format::Text, &mut out);
        write_lost(8, 0, Format::Json, &mut out);
        let want = "1970-01-01T00:00:00.000Z log lost=7\n\
             {\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"log\",\"lost\":8}\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn escapes() {
        let cases: &[(&[u8], &str, &str)] = &[
            (b"/plain?a=b&c", "/plain?a=b&c", r#""/plain?a=b&c""#),
            (b"", r#""""#, r#""""#),
            (b"a b", r#""a b""#, r#""a b""#),
            (b"a\"b", r#""a\"b""#, r#""a\"b""#),
            (b"a\\b", r#""a\\b""#, r#""a\\b""#),
            (b"a\r\nb\tc", r#""a\r\nb\tc""#, r#""a\r\nb\tc""#),
            (b"\x00\x1b[2J\x7f", r#""\x00\x1b[2J\x7f""#, r#""\u0000\u001b[2J\u007f""#),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n", "\"gr\u{fc}n\""),
            ("\u{9b}31m".as_bytes(), r#""\u{9b}31m""#, r#""\u009b31m""#),
            ("\u{202e}\u{2028}".as_bytes(), r#""\u{202e}\u{2028}""#, r#""\u202e\u2028""#),
            ("\u{e0041}".as_bytes(), r#""\u{e0041}""#, r#""\udb40\udc41""#),
            (b"a\xff\xfeb\xe2\x82", r#""a\xff\xfeb\xe2\x82""#, r#""a\\xff\\xfeb\\xe2\\x82""#),
        ];
        for (bytes, text, json) in cases {
            assert_eq!(Value::Bytes(bytes).to_string(), *text);
            let mut out = Vec::new();
            Value::Bytes(bytes).serialize(&mut serde_json::Serializer::with_formatter(&mut out, Visible)).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), *json);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line_without_control_characters(target: String, agent: Vec<u8>) {
            let Record::Start(mut start) = start() else { unreachable!() };
            (start.info, start.agent) = (info(&target), field(Some(&agent)));
            let record = Record::Start(start);
            for format in [Format::Text, Format::Json] {
                let line = line(&record, format);
                let (last, rest) = line.as_bytes().split_last().unwrap();
                prop_assert_eq!(*last, b'\n');
                prop_assert!(!std::str::from_utf8(rest).unwrap().contains(is_invisible));
            }
            let json: serde_json::Value = serde_json::from_str(&line(&record, Format::Json)).unwrap();
            prop_assert_eq!(json["path"].as_str().unwrap(), target.as_str());
        }
    }
}
