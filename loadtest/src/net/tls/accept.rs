//! The accepting side, for the bare relay: what TLS costs at the least with rustls' ordinary,
//! buffered connections.

use super::{certificates, private_key};
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection, version};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// What all accepted connections share.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

/// One of them.
pub struct Accepted(Box<ServerConnection>);

impl Acceptor {
    /// Reads the files. Clients may resume with a ticket, as with the proxies that this is compared
    /// to.
    pub fn new(cert: &Path, key: &Path) -> Result<Acceptor, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|e| format!("cannot set up TLS: {e}"))?;
        let (chain, key) = (certificates("--cert", cert)?, private_key(key)?);
        let config = builder.with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.map_err(|e| format!("{cert:?} cannot be used: {e}"))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|e| format!("cannot set up TLS: {e}"))?;
        config.send_tls13_tickets = 1;
        Ok(Acceptor(Arc::new(config)))
    }

    pub fn accept(&self) -> io::Result<Accepted> {
        let mut connection = ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        Ok(Accepted(Box::new(connection)))
    }
}

impl Accepted {
    /// Decrypts input: appends plaintext to `plain`, and what TLS itself must send to `sealed`.
    /// Whether it has ended.
    pub fn open(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>, sealed: &mut Vec<u8>) -> io::Result<bool> {
        let mut ended = false;
        while !bytes.is_empty() && !ended {
            self.0.read_tls(&mut bytes)?;
            let state = self.0.process_new_packets().map_err(io::Error::other)?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[start..])?;
            ended = state.peer_has_closed();
        }
        self.drain(sealed)?;
        Ok(ended)
    }

    pub fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        self.0.writer().write_all(plain)?;
        self.drain(sealed)
    }

    pub fn close(&mut self, sealed: &mut Vec<u8>) -> io::Result<()> {
        self.0.send_close_notify();
        self.drain(sealed)
    }

    fn drain(&mut self, sealed: &mut Vec<u8>) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(sealed)?;
        }
        Ok(())
    }
}
