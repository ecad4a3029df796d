//! Clients of plain HTTP that are idle: each has sent one request, has its response, and keeps the
//! connection. Brings the backend that answers them.

use crate::Failure;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::Builder;

/// A proxy that tunnels opens as many connections as it has clients, each with a thread here.
const STACK_BYTES: usize = 64 << 10;

/// Answers every request on any number of connections with `body_bytes` bytes, as long as this
/// process lives.
pub fn backend(body_bytes: usize) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let body = "x".repeat(body_bytes);
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_bytes}\r\n\r\n{body}").into_bytes();
    Builder::new().spawn(move || {
        for stream in listener.incoming().flatten() {
            let response = response.clone();
            // Without a thread the connection ends, and so does the measurement.
            let _ = Builder::new().stack_size(STACK_BYTES).spawn(move || serve(stream, &response));
        }
    })?;
    Ok(addr)
}

fn serve(stream: TcpStream, response: &[u8]) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::with_capacity(2048, stream);
    while read_head(&mut reader).is_ok_and(|head| !head.is_empty()) {
        if writer.write_all(response).is_err() {
            return;
        }
    }
}

/// So many clients of a proxy that have been answered.
pub fn clients(proxy: SocketAddr, count: usize) -> Result<Vec<TcpStream>, Failure> {
    (0..count).map(|_| client(proxy)).collect()
}

fn client(proxy: SocketAddr) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {proxy}\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(&stream);
    let head = read_head(&mut reader)?;
    if !head.starts_with("HTTP/1.1 200 ") || head.to_ascii_lowercase().contains("connection: close") {
        return Err(format!("a request was answered with {:?}", head.trim_end()).into());
    }
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.ok_or("a response has no length")?];
    reader.read_exact(&mut body)?;
    Ok(stream)
}

/// Up to its empty line; empty at the end of the stream.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::new();
    while reader.read_line(&mut head)? > 0 && !head.ends_with("\r\n\r\n") {}
    Ok(head)
}
