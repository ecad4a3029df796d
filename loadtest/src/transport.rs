//! stub
use mio::net::TcpStream;
use std::io::{self, Read, Write};
pub struct Transport {
    stream: TcpStream,
}
impl Transport {
    pub fn plain(stream: TcpStream) -> Transport {
        Transport { stream }
    }
    pub fn tls(_stream: TcpStream, _c: &crate::tls::Client) -> io::Result<Transport> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
    pub fn handshake(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    pub fn is_tls(&self) -> bool {
        false
    }
    pub fn read(&mut self, b: &mut [u8]) -> io::Result<usize> {
        self.stream.read(b)
    }
    pub fn write(&mut self, b: &[u8]) -> io::Result<usize> {
        self.stream.write(b)
    }
    pub fn drained_by(&self, n: usize, asked: usize) -> bool {
        n < asked
    }
    pub fn wants_flush(&self) -> bool {
        false
    }
    pub fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    pub fn abort(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }
}
