//! TLS of the generator's connections; the only file here that names rustls. [`TlsArgs`] become one
//! [`Client`] for all connections of a target; each has a [`Channel`], which seals and opens bytes
//! on a socket that it borrows. Looks at no plaintext and holds none longer than the caller's
//! buffer is too small for it.

mod accept;
mod ticket_store;

pub use accept::{Accepted, Acceptor};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind,
    ProtocolVersion, RootCertStore, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most ciphertext that waits for a socket, and so the most that one write accepts.
const WAITING_MAX: usize = 64 << 10;
/// The longest record with its header (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
const RECORD_MAX: usize = 5 + (16 << 10) + 2048;
/// What rustls keeps for reading in any case.
const KEPT: usize = 4096;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Only this version of TLS
    #[arg(long, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    pub tls_version: Option<String>,
    /// Only this cipher suite, by its IANA name
    #[arg(long, value_name = "NAME")]
    pub tls_cipher: Option<String>,
    /// Trust the CAs in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Accept any certificate of the server
    #[arg(long)]
    pub insecure: bool,
    /// Client certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Server name to send and to verify, if not that of the URL
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// A full TLS handshake for each connection
    #[arg(long)]
    pub no_resumption: bool,
    /// ALPN protocols to offer, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub alpn: Vec<String>,
}

/// What TLS connections of a target share: versions, trust, certificate, resumption, name.
#[derive(Debug, Clone)]
pub struct Client {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

impl TlsArgs {
    /// Reads the files. `host` is the name or address in the URL.
    pub fn client(&self, host: &str) -> Result<Client, String> {
        let name = self.sni.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is not a valid server name"))?;
        let provider = Arc::new(self.provider()?);
        let versions: &[&SupportedProtocolVersion] = match self.tls_version.as_deref() {
            Some("1.2") => &[&rustls::version::TLS12],
            Some("1.3") => &[&rustls::version::TLS13],
            _ => rustls::ALL_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let builder = builder.map_err(|e| format!("cannot set up TLS: {e}"))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier(provider)?);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("--cert", cert)?;
                builder.with_client_auth_cert(chain, private_key(key)?).map_err(|e| match e {
                    rustls::Error::InconsistentKeys(_) => {
                        format!("the key in {key:?} does not match the certificate in {cert:?}")
                    }
                    e => format!("{cert:?} and {key:?} cannot be used: {e}"),
                })?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err("--cert and --key must be given together".into()),
        };
        config.resumption = match self.no_resumption {
            true => Resumption::disabled(),
            false => Resumption::store(Arc::new(ticket_store::Stock::default())),
        };
        for protocol in &self.alpn {
            if ["h2", "h2c", "h3"].contains(&protocol.as_str()) {
                return Err(format!("--alpn {protocol}: only HTTP/1.1 is supported; use --alpn http/1.1"));
            }
            if !(1..=255).contains(&protocol.len()) {
                return Err(format!("--alpn {protocol:?}: a protocol name must have 1 to 255 bytes"));
            }
            config.alpn_protocols.push(protocol.clone().into_bytes());
        }
        let client = Client { config: Arc::new(config), name };
        // The first handshake of a process gathers entropy, for some 20 ms: here and not in a
        // measurement.
        Channel::new(&client).map_err(|e| format!("cannot set up TLS: {e}"))?;
        Ok(client)
    }

    /// All supported cipher suites, or the requested one.
    fn provider(&self) -> Result<CryptoProvider, String> {
        let mut provider = aws_lc_rs::default_provider();
        let Some(name) = &self.tls_cipher else { return Ok(provider) };
        let known: Vec<String> = provider.cipher_suites.iter().map(name_of).collect();
        provider.cipher_suites.retain(|suite| name_of(suite) == *name);
        match provider.cipher_suites.is_empty() {
            true => Err(format!("--tls-cipher {name}: known are {}", known.join(", "))),
            false => Ok(provider),
        }
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
        if self.insecure {
            return Ok(Arc::new(AnyCertificate(provider)));
        }
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca {
            for certificate in certificates("--ca", file)? {
                let added = roots.add(certificate);
                added.map_err(|e| {
                    format!("--ca: {file:?} has a certificate that cannot be used as a trust anchor: {e}")
                })?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(
                "this system has no CA certificates; use --ca FILE, or --insecure to disable verification".into()
            );
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(verifier.map_err(|e| format!("the CA certificates cannot be used: {e}"))?)
    }
}

/// As IANA names it; rustls has a prefix of its own for those of TLS 1.3.
fn name_of(suite: &SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.strip_prefix("TLS13_").map_or_else(|| name.to_owned(), |rest| format!("TLS_{rest}"))
}

/// At least one.
fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let found = read().map_err(|e| pem_fault(flag, file, &e))?;
    if found.is_empty() { Err(format!("{flag}: {file:?} holds no PEM certificate")) } else { Ok(found) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|e| match e {
        pem::Error::NoItemsFound => format!("--key: {file:?} holds no PEM private key"),
        e => pem_fault("--key", file, &e),
    })
}

fn pem_fault(flag: &str, file: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(e) => format!("{flag}: cannot read {file:?}: {e}"),
        e => format!("{flag}: {file:?} is not valid PEM: {e}"),
    }
}

/// --insecure: any certificate is accepted.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS side of one connection. All of it is non-blocking; `stream` is always the same one.
pub struct Channel {
    connection: ClientConnection,
    /// Decrypted bytes that have not been read yet.
    opened: usize,
    /// The last receive left nothing in the socket.
    drained: bool,
    /// The input is not valid TLS; returned after the valid bytes before it have been read.
    failed: bool,
    /// FIN is to follow what waits.
    pub ending: bool,
}

impl Channel {
    pub fn new(client: &Client) -> io::Result<Channel> {
        let mut connection = ClientConnection::new(client.config.clone(), client.name.clone()).map_err(tls_error)?;
        connection.set_buffer_limit(Some(WAITING_MAX));
        Ok(Channel { connection, opened: 0, drained: false, failed: false, ending: false })
    }

    /// True when finished, with nothing of ours waiting.
    pub fn handshake<S: Read + Write>(&mut self, stream: &mut S) -> io::Result<bool> {
        loop {
            let flushed = self.send(stream);
            if !self.connection.is_handshaking() {
                return flushed;
            }
            match self.connection.read_tls(stream) {
                // What the server sent before it left says more than that our bytes did not
                // reach it.
                Ok(0) => {
                    flushed?;
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the server closed the connection during the TLS handshake",
                    ));
                }
                Ok(_) => self.process(stream)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return flushed.map(|_| false),
                Err(e) => return Err(e),
            }
        }
    }

    /// As [`crate::net::transport::Transport::read`].
    pub fn read<S: Read + Write>(&mut self, stream: &mut S, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.opened -= n.min(self.opened);
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the server closed the connection without close_notify",
                    ));
                }
                Err(e) => return Err(e),
            }
            if self.failed {
                self.process(stream)?;
            }
            let n = self.receive(stream, buf).inspect_err(|_| self.shrink())?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    /// Whether the last read left nothing, neither here nor in the socket.
    pub fn is_drained(&self) -> bool {
        self.drained && self.opened == 0
    }

    /// As [`crate::net::transport::Transport::write`].
    pub fn write<S: Read + Write>(&mut self, stream: &mut S, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while self.flush(stream)? && taken < bytes.len() {
            match self.connection.writer().write(bytes.get(taken..).unwrap_or(&[]))? {
                0 => break,
                n => taken += n,
            }
        }
        if taken == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// True when no ciphertext waits.
    pub fn flush<S: Read + Write>(&mut self, stream: &mut S) -> io::Result<bool> {
        self.send(stream).map_err(|e| self.reason(stream, e))
    }

    /// A server that ends TLS says why and closes; what we send meanwhile finds only that it has
    /// closed.
    fn reason<S: Read + Write>(&mut self, stream: &mut S, found: io::Error) -> io::Error {
        while self.connection.read_tls(stream).is_ok_and(|n| n > 0) {
            if let Err(error) = self.process(stream) {
                return error;
            }
        }
        found
    }

    fn send<S: Write>(&mut self, stream: &mut S) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    pub fn wants_flush(&self) -> bool {
        self.connection.wants_write()
    }

    /// Nothing can be written after it.
    pub fn close_notify(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether the handshake was a resumed one; `None` before its end.
    pub fn resumed(&self) -> Option<bool> {
        self.connection.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// Version and cipher suite, once they are agreed.
    pub fn agreed(&self) -> Option<String> {
        let version = match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        Some(format!("{version}, {}", suite.as_str().unwrap_or("an unnamed cipher suite")))
    }

    /// One receive, and everything that it allows to decrypt; returns the plaintext length in
    /// `buf`.
    ///
    /// Ciphertext goes to the back of `buf`, plaintext to its front: beside what just came there is
    /// at most one incomplete record, so the front never overtakes the back. rustls alone would
    /// receive 4 KiB at a time.
    fn receive<S: Read + Write>(&mut self, stream: &mut S, buf: &mut [u8]) -> io::Result<usize> {
        if buf.len() < 2 * RECORD_MAX {
            self.drained = false;
            self.connection.read_tls(stream)?;
            self.process(stream)?;
            return Ok(0);
        }
        let requested = buf.len() - RECORD_MAX;
        let n = stream.read(&mut buf[RECORD_MAX..])?;
        self.drained = n < requested;
        if n == 0 {
            // Only so does rustls learn of the end.
            self.connection.read_tls(&mut io::empty())?;
            self.process(stream)?;
            return Ok(0);
        }
        let (mut at, mut front) = (RECORD_MAX, 0);
        let end = RECORD_MAX + n;
        while at < end && !self.failed {
            match self.connection.read_tls(&mut &buf[at..end])? {
                // Behind a close_notify nothing counts.
                0 => break,
                n => at += n,
            }
            // Valid bytes are read first; the error is returned again.
            let _later = self.process(stream);
            match self.connection.reader().read(&mut buf[front..at]) {
                Ok(n) => {
                    front += n;
                    self.opened -= n.min(self.opened);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        if self.drained && n > KEPT {
            self.shrink();
        }
        Ok(front)
    }

    /// Judges what was received. What must be answered (by an alert) leaves as far as the socket
    /// takes it.
    fn process<S: Write>(&mut self, stream: &mut S) -> io::Result<()> {
        let handshaking = self.connection.is_handshaking();
        let judged = self.connection.process_new_packets();
        // Should it fail, the next read or write says so.
        let _flushed = self.send(stream);
        match judged {
            Ok(state) => {
                self.opened = state.plaintext_bytes_to_read();
                Ok(())
            }
            Err(e) => {
                self.failed = true;
                Err(io::Error::new(ErrorKind::InvalidData, sentence(&e, handshaking)))
            }
        }
    }

    /// rustls gives its buffer for records back at the next read, were it one of nothing.
    fn shrink(&mut self) {
        struct Nothing;
        impl Read for Nothing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(ErrorKind::WouldBlock.into())
            }
        }
        let _nothing = self.connection.read_tls(&mut Nothing);
    }
}

fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, sentence(&error, true))
}

fn sentence(error: &rustls::Error, handshaking: bool) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => certificate_sentence(fault),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server requires a client certificate; use --cert FILE --key FILE".into()
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server supports none of the offered TLS versions".into()
        }
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the server does not know this server name; use --sni NAME for another".into()
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server supports none of the --alpn protocols".into()
        }
        // OpenSSL sends it for both in TLS 1.2.
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the server rejected the TLS handshake: it requires a client certificate (--cert FILE --key FILE), or \
             there is no common cipher suite"
                .into()
        }
        rustls::Error::AlertReceived(alert) => format!("the server sent the TLS alert {alert:?}"),
        rustls::Error::InvalidMessage(_) if handshaking => {
            "the server does not speak TLS; should the URL be ws:// instead of wss://?".into()
        }
        e => format!("TLS fails: {e}"),
    }
}

fn certificate_sentence(fault: &CertificateError) -> String {
    let why = match fault {
        CertificateError::UnknownIssuer => {
            "is not issued by a trusted CA; use --ca FILE, or --insecure to disable verification".into()
        }
        // A CA made anew under its old name.
        CertificateError::BadSignature => {
            "is not signed by the trusted CA, but by another of the same name; use --ca FILE".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".into(),
        CertificateError::NotValidForName => "is for another name; use --sni NAME to verify another".into(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            // rustls shows each as its kind with the name in brackets.
            let bare = |name: &String| name.split(['(', ')']).nth(1).unwrap_or(name).trim_matches('"').to_owned();
            let presented: Vec<String> = presented.iter().map(bare).collect();
            let (expected, presented) = (expected.to_str(), presented.join(", "));
            format!("is for {presented}, not for {expected}; use --sni NAME to verify another name")
        }
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "is a CA certificate; use --insecure, or create it without CA:TRUE".into()
        }
        other => format!("is invalid: {other}"),
    };
    format!("the server's certificate {why}")
}

#[cfg(test)]
mod tests;
