//! An HTTP API, answered by the test request by request, on connections that stay open.

use super::common::{PATIENCE, temp_path};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

pub struct Api {
    pub addr: SocketAddr,
    calls: Receiver<Call>,
}

/// A request that waits for its answer.
pub struct Call {
    pub head: String,
    stream: TcpStream,
}

impl Api {
    pub fn start() -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, calls) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream, &sender));
            }
        });
        Api { addr, calls }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next request.
    #[track_caller]
    pub fn next(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("a request comes")
    }
}

/// Reads requests, which have no bodies, until the client leaves.
fn serve(mut stream: TcpStream, calls: &Sender<Call>) {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let call = Call { head: String::from_utf8(head).unwrap(), stream: stream.try_clone().unwrap() };
        if calls.send(call).is_err() {
            return;
        }
    }
}

impl Call {
    /// Path and query.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap()
    }

    /// A parameter of the query, decoded as far as these tests need it.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target().split_once('?')?;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%2F", "/").replace("%3D", "=").replace("%20", " "))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Answers with a status, header lines with their CRLF, and a body.
    pub fn answer(mut self, status: &str, headers: &str, body: &str) {
        let len = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len}\r\n\r\n");
        self.stream.write_all((head + body).as_bytes()).unwrap();
    }

    pub fn ok(self, body: &str) {
        self.answer("200 OK", "", body);
    }

    /// Begins an answer in chunks.
    pub fn stream(mut self) -> Chunks {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).unwrap();
        Chunks(self.stream)
    }
}

pub struct Chunks(TcpStream);

impl Chunks {
    pub fn send(&mut self, text: &str) {
        self.0.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).unwrap();
    }

    /// The regular end.
    pub fn end(mut self) {
        self.0.write_all(b"0\r\n\r\n").unwrap();
    }

    /// A chunk that is not complete, then the end of the connection.
    pub fn cut(mut self, text: &str) {
        self.0.write_all(format!("{:x}\r\n{text}", text.len() + 100).as_bytes()).unwrap();
        self.0.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

/// A file with a text.
pub fn file(text: &str) -> PathBuf {
    let path = temp_path("txt");
    std::fs::write(&path, text).unwrap();
    path
}
