//! An upstream that records what it gets, and believes it: whatever a proxy lets through that can
//! be read in two ways, it reads in one.

use super::common::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as the upstream has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Connections are numbered as they come.
    pub connection: usize,
    pub line: String,
    pub head: String,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub struct Log {
    pub seen: Vec<Seen>,
    /// Connections, and those of them that have ended.
    pub opened: usize,
    pub ended: usize,
}

pub struct Recorder {
    pub addr: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Recorder {
    pub fn start() -> Recorder {
        let (listener, addr) = listen();
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (stream, log) = (stream.unwrap(), Arc::clone(&shared));
                log.lock().unwrap().opened += 1;
                thread::spawn(move || {
                    serve(connection, stream, &log);
                    log.lock().unwrap().ended += 1;
                });
            }
        });
        Recorder { addr, log }
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().seen.clone()
    }

    pub fn opened(&self) -> usize {
        self.log.lock().unwrap().opened
    }

    /// Connections that have not ended.
    pub fn open(&self) -> usize {
        let log = self.log.lock().unwrap();
        log.opened - log.ended
    }

    /// The proxy before it, with these keys of its route, and more sections.
    pub fn proxy(&self, more: &str) -> Proxy {
        let upstream = self.addr;
        Proxy::start(&format!(
            "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
             [log]\naccess = \"stdout\"\n[[upstream]]\nname = \"app\"\nendpoints = [\"http://{upstream}\"]\n\
             [[route]]\nupstream = \"app\"\n{more}\n"
        ))
    }
}

const EXTRA: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// Reads requests, one after the other, and answers each by its path:
/// `/early` before its body, `/extra` with more than was said, `/close` and a FIN, `/cut` half of a
/// response, `/silent/...` not at all, the others with their request line.
fn serve(connection: usize, mut stream: TcpStream, log: &Mutex<Log>) {
    let mut held = Vec::new();
    while let Some(head) = take_head(&mut stream, &mut held) {
        let line = head.lines().next().unwrap_or_default().to_owned();
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        if path.starts_with("/early") {
            log.lock().unwrap().seen.push(Seen { connection, line, head, body: Vec::new() });
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
            continue;
        }
        let Some(body) = take_body(&mut stream, &mut held, &head) else { return };
        log.lock().unwrap().seen.push(Seen { connection, line: line.clone(), head, body });
        let is_head = line.starts_with("HEAD ");
        let answer = match path.as_str() {
            _ if path.starts_with("/silent") => continue,
            "/extra" => EXTRA.into(),
            "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf".into(),
            "/close" => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".into(),
            _ if is_head => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", line.len()),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len()),
        };
        if stream.write_all(answer.as_bytes()).is_err() || matches!(path.as_str(), "/close" | "/cut") {
            return;
        }
    }
}

fn take_head(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, held)?;
    };
    let head = held.drain(..end).collect::<Vec<_>>();
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The body, as a server reads it that believes Transfer-Encoding first.
fn take_body(stream: &mut TcpStream, held: &mut Vec<u8>, head: &str) -> Option<Vec<u8>> {
    let value = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    if value("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(take_line(stream, held)?.trim(), 16).ok()?;
            while held.len() < size {
                more(stream, held)?;
            }
            body.extend(held.drain(..size));
            if size == 0 {
                while !take_line(stream, held)?.is_empty() {}
                return Some(body);
            }
            take_line(stream, held)?;
        }
    }
    let length = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while held.len() < length {
        more(stream, held)?;
    }
    Some(held.drain(..length).collect())
}

fn take_line(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = held.windows(2).position(|two| two == b"\r\n") {
            let line = held.drain(..at + 2).collect::<Vec<_>>();
            return Some(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        more(stream, held)?;
    }
}

fn more(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
    held.extend_from_slice(&buffer[..n]);
    Some(())
}

/// Reads one response with its body.
pub fn answer(stream: &TcpStream) -> (String, String) {
    let head = read_head(stream);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
    (head, String::from_utf8(read_exact(stream, length)).unwrap())
}

pub fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream).1
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}
