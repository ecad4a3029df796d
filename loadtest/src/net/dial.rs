//! One non-blocking TCP connect, optionally from a given source address. Knows neither TLS nor
//! HTTP.

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};

/// Starts to connect; at the first event [`connected`] has the outcome.
///
/// With a source address the port is chosen by connect(2), not by bind(2), which knows no
/// destination and would give each port of the address only once (IP_BIND_ADDRESS_NO_PORT, ip(7)).
pub fn dial(addr: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&addr.into()) {
        Err(e) if e.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(e),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Whether it has come about; `false` while it is still under way.
pub fn connected(stream: &TcpStream) -> Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        // Where a port of the local range has no listener, a socket may be given that port and
        // meet itself.
        Ok(peer) if stream.local_addr()? == peer => Err(ErrorKind::ConnectionRefused.into()),
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotConnected => Ok(false),
        Err(e) => Err(e),
    }
}

/// Why connecting failed, to follow the address in a sentence.
pub fn explain(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused: is the server listening?".into(),
        ErrorKind::AddrNotAvailable => {
            "no local port is left, or the source address is not of this host: add addresses with --source".into()
        }
        ErrorKind::TimedOut => "connection timed out".into(),
        _ => format!("cannot connect: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Interest, Poll, Token};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    /// Waits until it is decided.
    fn settle(mut stream: TcpStream) -> Result<TcpStream> {
        let mut poll = Poll::new()?;
        poll.registry().register(&mut stream, Token(0), Interest::WRITABLE | Interest::READABLE)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !connected(&stream)? {
            assert!(Instant::now() < deadline, "never decided");
            poll.poll(&mut Events::with_capacity(4), Some(Duration::from_millis(100)))?;
        }
        Ok(stream)
    }

    #[test]
    fn a_connection_comes_from_the_address_it_is_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for source in [None, Some("127.0.0.1"), Some("127.0.0.77")] {
            let stream = settle(dial(addr, source.map(|ip| ip.parse().unwrap())).unwrap()).unwrap();
            let (_held, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), source.unwrap_or("127.0.0.1"));
            assert!(stream.nodelay().unwrap());
        }
    }

    #[test]
    fn bind_leaves_the_port_to_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = dial(addr, Some("127.0.0.78".parse().unwrap())).unwrap();
        assert!(nix::sys::socket::getsockopt(&stream, sockopt::IpBindAddressNoPort).unwrap());
    }

    #[test]
    fn version_six_works_where_the_host_has_it() {
        let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
        let addr = listener.local_addr().unwrap();
        for source in [None, Some("::1".parse().unwrap())] {
            settle(dial(addr, source).unwrap()).unwrap();
        }
    }

    #[test]
    fn refusals_and_foreign_addresses_are_told() {
        let addr = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let error = dial(addr, None).and_then(settle).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(explain(&error).contains("refused"));
        let error = dial(addr, Some("192.0.2.1".parse().unwrap())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(explain(&error).contains("--source"));
    }

    #[test]
    fn nobody_talks_to_himself() {
        // One socket, bound and connected to its own address: what the kernel does by chance, on
        // purpose.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&socket.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(socket.into());
        assert_eq!(connected(&stream).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
