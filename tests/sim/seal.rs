//! TLS of a peer: rustls' buffered connection, which shares only the library with the driver under
//! test, between a peer and the simulated kernel. Keys and random bytes differ from run to run;
//! lengths do not, so a seed can be replayed.

use crate::kernel::{Id, Kernel, Sys};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// The name of every certificate here.
pub const NAME: &str = "sim.example";

pub struct Pki {
    /// Certificate (its own authority) and key, as the proxy reads them.
    pub cert: PathBuf,
    pub key: PathBuf,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// One certificate for the proxy and for the backends: Ed25519, whose signatures all have the same
/// length.
pub static PKI: LazyLock<Pki> = LazyLock::new(|| {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("random bytes");
    let cert = CertificateParams::new(vec![NAME.to_owned()]).and_then(|p| p.self_signed(&key)).expect("a certificate");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let [cert_file, key_file] = ["cert", "key"].map(|what| folder.join(format!("sim-{what}.pem")));
    std::fs::write(&cert_file, cert.pem()).expect("the folder for tests");
    std::fs::write(&key_file, key.serialize_pem()).expect("the folder for tests");
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let mut client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::disabled();
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let server = server.expect("versions").with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
    Pki { cert: cert_file, key: key_file, client: client.into(), server: server.expect("a pair").into() }
});

pub struct Seal {
    conn: Connection,
    /// Ciphertext that the kernel has not accepted yet.
    waiting: Vec<u8>,
    came: Vec<u8>,
    /// The worker's close_notify has arrived.
    pub notified: bool,
}

impl Seal {
    pub fn client() -> Seal {
        let name = ServerName::try_from(NAME).expect("a name");
        Seal::new(ClientConnection::new(PKI.client.clone(), name).expect("a connection").into())
    }

    pub fn server() -> Seal {
        Seal::new(ServerConnection::new(PKI.server.clone()).expect("a connection").into())
    }

    fn new(mut conn: Connection) -> Seal {
        conn.set_buffer_limit(None);
        Seal { conn, waiting: Vec::new(), came: Vec::new(), notified: false }
    }

    /// As the kernel's, of plaintext. What the worker sends must hold.
    pub fn recv(&mut self, sock: Id, max: usize, kernel: &mut Kernel, take: impl FnOnce(&[u8])) -> Sys<usize> {
        let mut plain = Vec::new();
        while plain.is_empty() {
            self.came.clear();
            let came = &mut self.came;
            if kernel.recv(sock, max, |bytes| came.extend_from_slice(bytes))? == 0 {
                return Ok(0);
            }
            let mut rest = self.came.as_slice();
            while !rest.is_empty() {
                assert!(!self.notified, "something follows the worker's close_notify");
                self.conn.read_tls(&mut rest).expect("a slice");
                let state = self.conn.process_new_packets().unwrap_or_else(|e| panic!("TLS of the worker: {e}"));
                let start = plain.len();
                plain.resize(start + state.plaintext_bytes_to_read(), 0);
                self.conn.reader().read_exact(&mut plain[start..]).expect("what is there");
                self.notified |= state.peer_has_closed();
            }
        }
        take(&plain);
        Ok(plain.len())
    }

    /// Whether plaintext may be encrypted: the handshake is complete, and nothing waits.
    pub fn is_clear(&self) -> bool {
        self.is_open() && self.is_sent()
    }

    pub fn is_open(&self) -> bool {
        !self.conn.is_handshaking()
    }

    pub fn is_sent(&self) -> bool {
        self.waiting.is_empty() && !self.conn.wants_write()
    }

    pub fn seal(&mut self, plain: &[u8], new_keys: bool) {
        if new_keys {
            self.conn.refresh_traffic_keys().expect("a session is open");
        }
        self.conn.writer().write_all(plain).expect("memory");
    }

    pub fn say_goodbye(&mut self) {
        self.conn.send_close_notify();
    }

    /// Sends pending ciphertext, in one piece or in several with pauses.
    pub fn flush(&mut self, sock: Id, kernel: &mut Kernel) -> Sys<()> {
        while self.conn.wants_write() {
            self.conn.write_tls(&mut self.waiting).expect("memory");
        }
        while !self.waiting.is_empty() {
            let n = if kernel.rng.one_in(3) { kernel.rng.size(1, self.waiting.len().min(200)) } else { usize::MAX };
            let n = kernel.send(sock, &self.waiting[..n.min(self.waiting.len())], usize::MAX)?;
            self.waiting.drain(..n);
            if kernel.rng.one_in(3) {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seal with {} bytes waiting", self.waiting.len())
    }
}
