//! stub
use mio::net::TcpStream;
use std::io;
use std::net::{IpAddr, SocketAddr};
pub fn dial(addr: SocketAddr, _source: Option<IpAddr>) -> io::Result<TcpStream> {
    let s = TcpStream::connect(addr)?;
    s.set_nodelay(true)?;
    Ok(s)
}
pub fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(e) = stream.take_error()? {
        return Err(e);
    }
    match stream.peer_addr() {
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
        other => other.map(|_| true),
    }
}
