//! tungstenite as backend and as client. It knows no permessage-deflate.

use super::Scenario;
use super::record::{Records, pattern, query};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

type Ws = WebSocket<TcpStream>;

/// How a session ended: code and reason, and whether it was a reset.
struct End {
    code: u16,
    reason: String,
    reset: bool,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(1 << 30)).max_frame_size(Some(1 << 30))
}

/// A reset instead of a FIN.
pub fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn ended_by(error: &Error) -> End {
    let is_reset = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    let reset = matches!(error, Error::Io(e) if is_reset(e.kind()));
    End { code: 1006, reason: String::new(), reset }
}

fn ended_with(frame: Option<CloseFrame>) -> End {
    let (code, reason) = frame.map_or((1005, String::new()), |f| (u16::from(f.code), f.reason.to_string()));
    End { code, reason, reset: false }
}

/// Reads on until the connection is closed; the Close of the peer, if one came.
fn drain(ws: &mut Ws) -> End {
    let mut ended = None;
    loop {
        match ws.read() {
            Ok(Message::Close(frame)) => ended = Some(ended_with(frame)),
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return ended.unwrap_or_else(|| ended_with(None)),
            Err(e) => return ended.unwrap_or_else(|| ended_by(&e)),
        }
    }
}

fn data(kind: &str, bytes: Vec<u8>) -> Message {
    if kind == "text" { Message::text(String::from_utf8(bytes).unwrap()) } else { Message::binary(bytes) }
}

/// One message in `count` fragments, with `between` called after all but the last (or after every
/// one).
fn fragments(ws: &mut Ws, kind: &str, bytes: &[u8], count: usize, ping_after: usize) -> tungstenite::Result<()> {
    for i in 0..count {
        let part = &bytes[bytes.len() * i / count..bytes.len() * (i + 1) / count];
        let first = if kind == "text" { Data::Text } else { Data::Binary };
        let opcode = OpCode::Data(if i == 0 { first } else { Data::Continue });
        ws.send(Message::Frame(Frame::message(part.to_vec(), opcode, i + 1 == count)))?;
        if i < ping_after {
            ws.send(Message::Ping(format!("between {i}").into()))?;
        }
    }
    Ok(())
}

// ---- backend

/// Starts the backend; its port. One thread a connection, for the life of the process.
pub fn backend(records: &Records) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let records = records.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let records = records.clone();
            thread::spawn(move || serve(stream, &records));
        }
    });
    port
}

fn serve(stream: TcpStream, records: &Records) {
    let _ = stream.set_nodelay(true);
    let mut q = HashMap::new();
    let mut picked = String::new();
    #[allow(clippy::result_large_err)] // the signature is the library's
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        q = query(&request.uri().to_string());
        let offered = request.headers().get("Sec-WebSocket-Protocol").and_then(|v| v.to_str().ok()).unwrap_or("");
        if let Some(want) = q.get("pick").filter(|w| offered.split(',').any(|o| o.trim() == **w)) {
            picked = want.clone();
            response.headers_mut().insert("Sec-WebSocket-Protocol", want.parse().unwrap());
        }
        Ok(response)
    };
    let Ok(mut ws) = tungstenite::accept_hdr_with_config(stream, choose, Some(config())) else { return };
    let mut seen = Seen::default();
    let ended = session(&mut ws, &q, &mut seen);
    if let Some(id) = q.get("id") {
        let record = json!({
            "code": ended.code, "reason": ended.reason, "reset": ended.reset, "deflate": false, "subprotocol": picked,
            "messages": seen.messages, "bytes": seen.bytes, "pings": seen.pings, "pongs": seen.pongs,
        });
        records.set(id, record);
    }
}

#[derive(Default)]
struct Seen {
    messages: usize,
    bytes: usize,
    pings: usize,
    pongs: usize,
}

fn session(ws: &mut Ws, q: &HashMap<String, String>, seen: &mut Seen) -> End {
    if q.get("do").is_some_and(|d| d == "greet") {
        for i in 1..=20 {
            if let Err(e) = ws.send(Message::binary(pattern("binary", i * 37, i))) {
                return ended_by(&e);
            }
        }
    }
    loop {
        let message = match ws.read() {
            Ok(m) => m,
            Err(e) => return ended_by(&e),
        };
        let (kind, bytes) = match message {
            Message::Text(t) => ("text", t.as_bytes().to_vec()),
            Message::Binary(b) => ("binary", b.to_vec()),
            Message::Close(frame) => {
                let _ = drain(ws);
                return ended_with(frame);
            }
            Message::Ping(_) => {
                seen.pings += 1;
                continue;
            }
            _ => continue,
        };
        seen.messages += 1;
        seen.bytes += bytes.len();
        if let Some(ended) = obey(ws, q, kind, bytes, seen) {
            return ended;
        }
    }
}

/// Handles one message as the query demands; `Some` if that ends the session.
fn obey(ws: &mut Ws, q: &HashMap<String, String>, kind: &str, bytes: Vec<u8>, seen: &mut Seen) -> Option<End> {
    let sent = match q.get("do").map_or("echo", String::as_str) {
        "close" => {
            let code: u16 = q.get("code").and_then(|c| c.parse().ok()).unwrap_or(1000);
            let reason = q.get("reason").cloned().unwrap_or_default();
            let _ = ws.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
            return Some(drain(ws));
        }
        "reset" => {
            reset(ws.get_ref());
            return Some(End { code: 1006, reason: String::new(), reset: false });
        }
        "drop" => return Some(End { code: 1006, reason: String::new(), reset: false }),
        "fragments" => fragments(ws, kind, &bytes, 4, 3),
        "pings" => pings(ws, seen).and_then(|()| ws.send(data(kind, bytes))),
        _ => ws.send(data(kind, bytes)),
    };
    sent.err().map(|e| ended_by(&e))
}

fn pings(ws: &mut Ws, seen: &mut Seen) -> tungstenite::Result<()> {
    for i in 0..5 {
        ws.send(Message::Ping(format!("ping {i}").into()))?;
    }
    let mut waiting = 5;
    while waiting > 0 {
        if let Message::Pong(p) = ws.read()?
            && p.starts_with(b"ping ")
        {
            seen.pongs += 1;
            waiting -= 1;
        }
    }
    Ok(())
}

// ---- client

/// Runs one scenario once; the error.
pub fn play(url: &str, s: &Scenario) -> Result<(), String> {
    let (mut ws, subprotocol) = open(url, s)?;
    let expect = |k: &str| s.expect.get(k).cloned().unwrap_or(Value::Null);
    if let Value::String(want) = expect("subprotocol") {
        check(want == subprotocol, || format!("subprotocol {subprotocol:?}"))?;
    }
    let mut pings = 0;
    for i in 1..=s.greetings {
        let got = next(&mut ws, &mut pings)?;
        check(got == ("binary", pattern("binary", i * 37, i)), || format!("greeting {i} differs"))?;
    }
    for m in &s.sends {
        for _ in 0..m.times.max(1) {
            exchange(&mut ws, s, m, &mut pings)?;
        }
    }
    for i in 0..s.ping {
        pong(&mut ws, &format!("p{i}"))?;
    }
    check(pings as u64 >= expect("pings").as_u64().unwrap_or(0), || format!("{pings} pings came"))?;
    finish(ws, s)
}

fn open(url: &str, s: &Scenario) -> Result<(Ws, String), String> {
    let uri: tungstenite::http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let stream = TcpStream::connect(&authority).map_err(|e| format!("{authority}: {e}"))?;
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let request = s.subprotocols.iter().fold(ClientRequestBuilder::new(uri), |r, p| r.with_sub_protocol(p.clone()));
    let (ws, response) = tungstenite::client::client_with_config(request, stream, Some(config()))
        .map_err(|e| format!("handshake: {e}"))?;
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    check(header("Sec-WebSocket-Extensions").is_empty(), || "an extension that was not offered".to_owned())?;
    let subprotocol = header("Sec-WebSocket-Protocol");
    Ok((ws, subprotocol))
}

fn exchange(ws: &mut Ws, s: &Scenario, m: &super::Send, pings: &mut usize) -> Result<(), String> {
    let bytes = pattern(&m.kind, m.size, 0);
    let sent = if m.fragments > 1 {
        fragments(ws, &m.kind, &bytes, m.fragments, if m.pings { m.fragments } else { 0 })
    } else {
        ws.send(data(&m.kind, bytes.clone()))
    };
    sent.map_err(|e| format!("send: {e}"))?;
    if s.answer == Some(false) {
        return Ok(());
    }
    let (kind, got) = next(ws, pings)?;
    check(kind == m.kind, || format!("{} came back as {kind}", m.kind))?;
    check(got == bytes, || format!("the echo of {} bytes differs ({} bytes came)", m.size, got.len()))
}

fn next(ws: &mut Ws, pings: &mut usize) -> Result<(&'static str, Vec<u8>), String> {
    loop {
        match ws.read() {
            Ok(Message::Text(t)) => return Ok(("text", t.as_bytes().to_vec())),
            Ok(Message::Binary(b)) => return Ok(("binary", b.to_vec())),
            Ok(Message::Ping(_)) => *pings += 1,
            Ok(Message::Close(f)) => return Err(format!("closed with {f:?} while a message was awaited")),
            Ok(_) => {}
            Err(e) => return Err(format!("read: {e}")),
        }
    }
}

fn pong(ws: &mut Ws, text: &str) -> Result<(), String> {
    ws.send(Message::Ping(text.to_owned().into())).map_err(|e| format!("ping: {e}"))?;
    loop {
        match ws.read() {
            Ok(Message::Pong(p)) if p == text => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(format!("pong: {e}")),
        }
    }
}

fn finish(mut ws: Ws, s: &Scenario) -> Result<(), String> {
    if s.end.as_deref() == Some("reset") {
        reset(ws.get_ref());
        return Ok(());
    }
    if let Some(close) = &s.close {
        let frame = close
            .code
            .map(|code| CloseFrame { code: code.into(), reason: close.reason.clone().unwrap_or_default().into() });
        ws.close(frame).map_err(|e| format!("close: {e}"))?;
    }
    let ended = drain(&mut ws);
    let found = json!({ "code": ended.code, "reason": ended.reason, "clean": ended.code != 1006 });
    for (k, want) in s.expect.as_object().into_iter().flatten() {
        let Some(got) = found.get(k) else { continue };
        let fine = want == got || want.as_array().is_some_and(|list| list.contains(got));
        check(fine, || format!("closed with {k} {got}, not {want}"))?;
    }
    Ok(())
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}
