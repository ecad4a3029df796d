//! Judges the server's response to the opening handshake: the checks that RFC 6455 section 4.1 asks
//! of a client, and those that keep the bytes behind the head from being misread. Pure; the same
//! verdict however the bytes were cut.

use crate::run::plan::Target;
use framegate::proto::handshake::accept_of;
use httparse::{Header, Response, Status};

/// Limit of all heads up to the final one.
const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 100;
/// How much of a server's text is shown.
const SHOWN_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The head is incomplete.
    Partial,
    /// The WebSocket is open; frames follow after `head_len` bytes.
    Open { head_len: usize },
    /// HTTP, but not 101: status and reason, with the location of a redirect.
    Refused { status: u16, reason: String },
    /// An invalid response, as a sentence.
    Bad(String),
}

/// `bytes` is everything received so far.
pub fn judge(bytes: &[u8], key: &[u8; 24], target: &Target) -> Answer {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or(&[]);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = Response::new(&mut fields);
        let len = match parse(rest, &mut response) {
            Ok(Some(len)) if at + len <= HEAD_MAX => len,
            Ok(None) if bytes.len() < HEAD_MAX => return Answer::Partial,
            Ok(_) => return Answer::Bad(format!("the server's response head exceeds {HEAD_MAX} bytes")),
            Err(why) => return Answer::Bad(why),
        };
        at += len;
        match response.code.unwrap_or(0) {
            101 => {
                return match judge_switch(&response, key, target) {
                    Ok(()) => Answer::Open { head_len: at },
                    Err(why) => Answer::Bad(why),
                };
            }
            // "A client MUST be able to parse one or more 1xx responses received prior to a final
            // response, even if the client does not expect one" (RFC 9110 section 15.2).
            100..200 => {}
            status => return Answer::Refused { status, reason: reason(&response) },
        }
    }
}

/// The length of a complete head.
fn parse<'b>(bytes: &'b [u8], response: &mut Response<'_, 'b>) -> Result<Option<usize>, String> {
    const BEGIN: &[u8] = b"HTTP/1.";
    if bytes.iter().zip(BEGIN).any(|(byte, expected)| byte != expected) {
        return Err(match bytes {
            // A TLS record of an alert or of a handshake (RFC 8446 section 5.1).
            [0x15 | 0x16, ..] => "the server speaks TLS; use wss://".into(),
            _ => format!("the server's response is not HTTP/1.1: {}", shown(bytes)),
        });
    }
    let head = match response.parse(bytes) {
        Ok(Status::Complete(len)) => bytes.get(..len).map(|head| (head, Some(len))),
        Ok(Status::Partial) => Some((bytes.get(..HEAD_MAX).unwrap_or(bytes), None)),
        Err(e) => return Err(format!("the server's response head is malformed: {e}")),
    };
    let (head, len) = head.unwrap_or((bytes, None));
    // httparse takes a line feed alone for a line end; other readers of the same bytes may not.
    let lone = head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && !head[..at].ends_with(b"\r"));
    if lone { Err("a line of the server's response ends without CR".into()) } else { Ok(len) }
}

/// RFC 6455 section 4.1, items 2 to 6 of what the client must check.
fn judge_switch(response: &Response<'_, '_>, key: &[u8; 24], target: &Target) -> Result<(), String> {
    let fields: &[Header<'_>] = response.headers;
    if response.version != Some(1) {
        return Err("the server switches protocols in HTTP/1.0".into());
    }
    let upgrade = only(fields, "Upgrade")?.ok_or("the server's response has no Upgrade field")?;
    if !upgrade.eq_ignore_ascii_case(b"websocket") {
        return Err(format!("the server upgrades to {} instead of websocket", shown(upgrade)));
    }
    let tokens = values(fields, "Connection").flat_map(|value| value.split(|byte| *byte == b','));
    if !tokens.map(<[u8]>::trim_ascii).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return Err("the server's response has no \"Connection: upgrade\"".into());
    }
    let accept =
        only(fields, "Sec-WebSocket-Accept")?.ok_or("the server's response has no Sec-WebSocket-Accept field")?;
    if accept != accept_of(key) {
        return Err(format!("Sec-WebSocket-Accept is {}, which does not match the key", shown(accept)));
    }
    if let Some(value) = values(fields, "Sec-WebSocket-Extensions").find(|value| !is_empty_list(value)) {
        return Err(format!("the server selected the extension {}, which was not offered", shown(value)));
    }
    if let Some(chosen) = only(fields, "Sec-WebSocket-Protocol")?.filter(|value| !is_empty_list(value))
        && !target.subprotocols.iter().any(|offered| offered.as_bytes() == chosen)
    {
        return Err(format!("the server selected the subprotocol {}, which was not offered", shown(chosen)));
    }
    // A Content-Length or Transfer-Encoding means nothing here: a 1xx "is always terminated by the
    // first empty line after the header fields" (RFC 9112 section 6.3).
    Ok(())
}

/// A list without elements (RFC 9110 section 5.6.1.2): nothing was selected.
fn is_empty_list(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t'))
}

fn values<'a>(fields: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii())
}

/// The value of a field that may appear once.
fn only<'a>(fields: &'a [Header<'_>], name: &'a str) -> Result<Option<&'a [u8]>, String> {
    let mut values = values(fields, name);
    let first = values.next();
    if values.next().is_some() {
        Err(format!("the server's response has more than one {name} field"))
    } else {
        Ok(first)
    }
}

/// The reason phrase; with the location of a redirect, since redirects are not followed.
fn reason(response: &Response<'_, '_>) -> String {
    let words = shown(response.reason.unwrap_or("").as_bytes());
    match values(response.headers, "Location").next() {
        Some(place) => format!("{words}, to {}", shown(place)),
        None => words,
    }
}

/// On one line, without what a terminal would obey, not too long.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..SHOWN_MAX).unwrap_or(bytes);
    let dots = if start.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", start.escape_ascii()).replace("\\'", "'").replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn target(subprotocols: &[&str]) -> Target {
        Target {
            addrs: Vec::new(),
            head: [Vec::new(), Vec::new()],
            subprotocols: subprotocols.iter().map(|name| (*name).to_owned()).collect(),
            tls: None,
            connect_timeout: Duration::from_secs(1),
        }
    }

    fn sound() -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        )
    }

    /// The sound answer with one thing replaced.
    fn with(from: &str, to: &str) -> String {
        assert!(sound().contains(from), "{from}");
        sound().replace(from, to)
    }

    /// The verdict, which must not depend on cuts: nothing but `Partial` comes before it, or it
    /// comes early.
    fn verdict(answer: &[u8], target: &Target) -> Answer {
        let whole = judge(answer, KEY, target);
        for cut in 0..answer.len() {
            let early = judge(&answer[..cut], KEY, target);
            let agrees = match (&early, &whole) {
                (Answer::Partial, _) => true,
                // How much of the garbage it shows depends on how much is there.
                (Answer::Bad(_), Answer::Bad(_)) => true,
                _ => early == whole,
            };
            assert!(agrees, "cut at {cut}: {early:?}, whole: {whole:?}");
        }
        whole
    }

    #[test]
    fn sound_answers_open() {
        for (answer, offered) in [
            (sound(), &[][..]),
            (sound(), &["chat"]),
            (with("Upgrade: websocket", "uPGRADE:   WebSocket  "), &[]),
            (with("Connection: Upgrade", "connection: keep-alive, upgrade"), &[]),
            (with("Connection: Upgrade", "Connection: x\r\nConnection: UPGRADE"), &[]),
            (with("Switching Protocols", "Go on"), &[]),
            (with("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"), &["soap", "chat"]),
            (with("\r\n\r\n", "\r\nServer: x\r\n\r\n"), &[]),
            // Sent by some servers, and without a meaning in a 101.
            (with("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), &[]),
            (with("\r\n\r\n", "\r\nContent-Length: 7\r\n\r\n"), &[]),
            (with("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"), &[]),
            (with("\r\n\r\n", "\r\nSec-WebSocket-Protocol:\r\nSec-WebSocket-Extensions: ,\r\n\r\n"), &[]),
            (format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", sound()), &[]),
        ] {
            let len = answer.len();
            assert_eq!(verdict(answer.as_bytes(), &target(offered)), Answer::Open { head_len: len }, "{answer}");
            // Frames glued to it are not looked at.
            let glued = [answer.as_bytes(), &[0x81, 0x05, b'\n', 0xff]].concat();
            assert_eq!(verdict(&glued, &target(offered)), Answer::Open { head_len: len });
            for cut in 0..len {
                assert_eq!(judge(&answer.as_bytes()[..cut], KEY, &target(offered)), Answer::Partial, "{cut}");
            }
        }
    }

    #[test]
    fn each_fault_is_named() {
        let field = |line: &str| with("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        for (answer, says) in [
            (with(ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="), "does not match the key"),
            (with(ACCEPT, &ACCEPT.to_lowercase()), "does not match the key"),
            (with(ACCEPT, ""), "does not match the key"),
            (with(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n"), ""), "no Sec-WebSocket-Accept"),
            (field(&format!("Sec-WebSocket-Accept: {ACCEPT}")), "more than one Sec-WebSocket-Accept"),
            (with("Upgrade: websocket\r\n", ""), "no Upgrade field"),
            (with("Upgrade: websocket", "Upgrade: h2c"), "upgrades to h2c"),
            (with("Upgrade: websocket", "Upgrade: websocket, h2c"), "upgrades to websocket, h2c"),
            (field("Upgrade: websocket"), "more than one Upgrade"),
            (with("Connection: Upgrade\r\n", ""), "no \"Connection: upgrade\""),
            (with("Connection: Upgrade", "Connection: keep-alive"), "no \"Connection: upgrade\""),
            (with("Connection: Upgrade", "Connection: upgraded"), "no \"Connection: upgrade\""),
            (field("Sec-WebSocket-Extensions: permessage-deflate"), "the extension permessage-deflate"),
            (field("Sec-WebSocket-Protocol: soap"), "soap, which was not offered"),
            (field("Sec-WebSocket-Protocol: Chat"), "Chat, which was not offered"),
            (field("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"), "more than one"),
            (with("HTTP/1.1", "HTTP/1.0"), "HTTP/1.0"),
            (with("HTTP/1.1", "HTTP/2.0"), "is not HTTP/1.1"),
            (with("HTTP/1.1", "HTTP/1.2"), "malformed"),
            (with("\r\nConnection", "\nConnection"), "without CR"),
            (with("\r\n", "\n"), "without CR"),
            (with("Upgrade: websocket", "Upgrade : websocket"), "malformed"),
            (with("Upgrade: websocket", "Upgrade"), "malformed"),
            (with("101", "1x1"), "malformed"),
            ("SSH-2.0-OpenSSH_9\r\n".into(), "is not HTTP/1.1: SSH-2.0-OpenSSH_9\\r\\n"),
            ("\r\nHTTP/1.1 101 x\r\n\r\n".into(), "is not HTTP/1.1"),
            ("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{16}".into(), "use wss://"),
            ("\u{81}\u{5}hello".into(), "is not HTTP/1.1"),
        ] {
            let Answer::Bad(why) = verdict(answer.as_bytes(), &target(&["chat"])) else { panic!("{answer}") };
            assert!(why.contains(says), "{answer}: {why}");
            assert!(!why.contains(|c: char| c.is_control()), "{why:?}");
        }
    }

    #[test]
    fn refusals_keep_the_servers_words() {
        for (answer, status, reason) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "OK"),
            ("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n\r\n", 401, "Unauthorized"),
            ("HTTP/1.1 301 Moved\r\nLocation: https://a/b\r\n\r\n", 301, "Moved, to https://a/b"),
            ("HTTP/1.0 503 Busy\r\n\r\n", 503, "Busy"),
            ("HTTP/1.1 404\r\n\r\n", 404, ""),
            ("HTTP/1.1 302 x\r\nLocation: a\x1bb\r\n\r\n", 0, ""),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n", 403, "No"),
        ] {
            match verdict(answer.as_bytes(), &target(&[])) {
                Answer::Bad(_) if status == 0 => {}
                found => assert_eq!(found, Answer::Refused { status, reason: reason.into() }, "{answer}"),
            }
        }
    }

    #[test]
    fn a_head_has_its_limit() {
        let room = HEAD_MAX - sound().len() - "\r\nX: ".len();
        let padded = |n: usize| with("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(n)));
        assert_eq!(judge(padded(room).as_bytes(), KEY, &target(&[])), Answer::Open { head_len: HEAD_MAX });
        for n in [room + 1, 2 * HEAD_MAX] {
            let answer = padded(n);
            for cut in [HEAD_MAX, HEAD_MAX + 1, answer.len()] {
                let found = judge(&answer.as_bytes()[..cut], KEY, &target(&[]));
                assert!(matches!(&found, Answer::Bad(why) if why.contains("exceeds")), "{n} {cut}: {found:?}");
            }
            assert_eq!(judge(&answer.as_bytes()[..HEAD_MAX - 1], KEY, &target(&[])), Answer::Partial);
        }
        let hints = "HTTP/1.1 103 x\r\n\r\n".repeat(HEAD_MAX / 10);
        assert!(matches!(judge(hints.as_bytes(), KEY, &target(&[])), Answer::Bad(_)));
        let many = with("\r\n\r\n", &format!("{}\r\n\r\n", "\r\nA: b".repeat(FIELDS_MAX)));
        assert!(matches!(verdict(many.as_bytes(), &target(&[])), Answer::Bad(_)));
    }
}
