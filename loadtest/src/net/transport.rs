//! One connection's bytes, plain or over TLS, never blocking. Owns the socket and what TLS needs
//! beside it; knows no HTTP, no frames and no poll. For edge-triggered users: what may wait is
//! reported, and nothing waits unreported.

use crate::net::tls::{self, Channel};
use mio::net::TcpStream;
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// At rest 24 bytes and the socket, for TLS the boxed [`Channel`] beside it.
pub struct Transport {
    stream: TcpStream,
    security: Security,
}

enum Security {
    Plain,
    /// Nothing of TLS is computed before TCP is connected, so that each is measured by itself.
    Planned(Box<tls::Client>),
    Tls(Box<Channel>),
}

impl Transport {
    pub fn plain(stream: TcpStream) -> Transport {
        Transport { stream, security: Security::Plain }
    }

    /// TLS begins with the first [`Transport::handshake`].
    pub fn tls(stream: TcpStream, client: &tls::Client) -> Transport {
        Transport { stream, security: Security::Planned(Box::new(client.clone())) }
    }

    /// To register it, for reading and writing both.
    pub fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn is_tls(&self) -> bool {
        !matches!(self.security, Security::Plain)
    }

    /// Drives the TLS handshake as far as the socket lets it; true when finished, at once without
    /// TLS. To be called when TCP is connected, and at each event until it is true. Bytes may have
    /// come with the end of it: read once without waiting for an event.
    pub fn handshake(&mut self) -> io::Result<bool> {
        if let Security::Planned(client) = &self.security {
            self.security = Security::Tls(Box::new(Channel::new(client)?));
        }
        match &mut self.security {
            Security::Tls(channel) => channel.handshake(&mut self.stream),
            _ => Ok(true),
        }
    }

    /// `WouldBlock` when there is nothing, `Ok(0)` at a clean end (FIN, or close_notify),
    /// `UnexpectedEof` where TLS ends without close_notify, `InvalidData` with a sentence where it
    /// is not sound. Plain: one recv. TLS: with 48 KiB of `buf` and more, one recv for each read
    /// that gives something; with less, rustls receives 4 KiB at a time.
    ///
    /// Read until `WouldBlock`, or until [`Transport::drained_by`].
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.security {
            Security::Plain => self.stream.read(buf),
            Security::Planned(_) => Err(ErrorKind::NotConnected.into()),
            Security::Tls(channel) => channel.read(&mut self.stream, buf),
        }
    }

    /// Whether the read that gave `n` of `requested` bytes has left nothing, so that the next bytes
    /// make an event. Not to be trusted where the event told of FIN, an error or urgent data: those
    /// came already; then read on.
    pub fn drained_by(&self, n: usize, requested: usize) -> bool {
        self.channel().map_or(n < requested, Channel::is_drained)
    }

    /// How much of `bytes` was taken; `WouldBlock` for nothing. Plain: one send. TLS: what was
    /// taken may wait as ciphertext, up to 64 KiB, and nothing more is taken until that has left:
    /// see [`Transport::wants_flush`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.security {
            Security::Plain => self.stream.write(bytes),
            Security::Planned(_) => Err(ErrorKind::NotConnected.into()),
            Security::Tls(channel) => channel.write(&mut self.stream, bytes),
        }
    }

    /// True when no ciphertext waits. To be called whenever the socket becomes writable: reads,
    /// too, leave something to send (alerts). After a shutdown FIN goes with the last of it.
    pub fn flush(&mut self) -> io::Result<bool> {
        let Security::Tls(channel) = &mut self.security else { return Ok(true) };
        let flushed = channel.flush(&mut self.stream)?;
        if flushed && std::mem::take(&mut channel.ending) {
            self.fin();
        }
        Ok(flushed)
    }

    pub fn wants_flush(&self) -> bool {
        self.channel().is_some_and(Channel::wants_flush)
    }

    /// Ends our direction: close_notify, if there is TLS, and FIN. If the socket does not take it
    /// all now, the rest goes with [`Transport::flush`]. Reading continues.
    #[cfg(test)]
    pub fn shutdown(&mut self) {
        let Security::Tls(channel) = &mut self.security else { return self.fin() };
        channel.close_notify();
        channel.ending = true;
        // A broken socket ends by itself, and the next read reports it.
        let _flushed = self.flush();
    }

    /// Ends the connection with RST; what waits in either direction is lost.
    pub fn abort(mut self) {
        // No close_notify either.
        self.security = Security::Plain;
        // Where it fails, close(2) sends FIN instead; the socket is gone in any case.
        let _set = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Whether the TLS session was a resumed one; `None` without TLS and before it is known.
    pub fn resumed(&self) -> Option<bool> {
        self.channel()?.resumed()
    }

    /// TLS version and cipher suite for the report.
    pub fn agreed(&self) -> Option<String> {
        self.channel()?.agreed()
    }

    fn channel(&self) -> Option<&Channel> {
        if let Security::Tls(channel) = &self.security { Some(channel) } else { None }
    }

    fn fin(&mut self) {
        // ENOTCONN: the other side was faster.
        let _shut = self.stream.shutdown(Shutdown::Write);
    }
}

/// "Each party MUST send a close_notify alert before closing its write side of the connection,
/// unless it has already sent some error alert" (RFC 8446 section 6.1); here as far as the socket
/// takes it.
impl Drop for Transport {
    fn drop(&mut self) {
        if let Security::Tls(channel) = &mut self.security
            && channel.resumed().is_some()
        {
            channel.close_notify();
            let _flushed = self.flush();
        }
    }
}

#[cfg(test)]
mod tests;
