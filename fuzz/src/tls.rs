//! The TLS driver against rustls' buffered connection. The input is a program: what the other side
//! says, where what it sends is cut, which byte is changed on the way, when keys change and when
//! either side ends. Whatever happens: no panic, nothing comes out that was not said, and where
//! nothing was changed everything does.

#![no_main]

use framegate::tls::{Buffer, Failure, Tls, provider};
use libfuzzer_sys::fuzz_target;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

/// Of TLS 1.3 and of 1.2.
static CONFIGS: LazyLock<[(Arc<ServerConfig>, Arc<ClientConfig>); 2]> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    [&TLS13, &TLS12].map(|version| {
        let provider = Arc::new(provider());
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.resumption = Resumption::disabled();
        (Arc::new(server), Arc::new(client))
    })
});

/// The most that comes in one read.
const READ_MAX: usize = 128 * 1024;

struct Wire {
    ours: Tls,
    theirs: Connection,
    /// On the way to us.
    coming: Vec<u8>,
    plain: Vec<u8>,
    sealed: Buffer,
    scratch: Vec<u8>,
    said: (Vec<u8>, Vec<u8>),
    heard: Vec<u8>,
    failed: Option<Failure>,
    changed: bool,
    ended: bool,
    they_ended: bool,
    we_closed: bool,
}

impl Wire {
    fn new(kind: u8) -> Wire {
        let (server, client) = &CONFIGS[usize::from(kind >> 1) & 1];
        let name = ServerName::try_from("localhost").unwrap();
        let (ours, mut theirs): (Tls, Connection) = match kind & 1 {
            0 => (Tls::server(server).unwrap(), ClientConnection::new(client.clone(), name).unwrap().into()),
            _ => (Tls::client(client, &name).unwrap(), ServerConnection::new(server.clone()).unwrap().into()),
        };
        theirs.set_buffer_limit(None);
        let mut wire = Wire {
            ours,
            theirs,
            coming: Vec::new(),
            plain: Vec::new(),
            sealed: Buffer::default(),
            scratch: vec![0; 256 * 1024],
            said: Default::default(),
            heard: Vec::new(),
            failed: None,
            changed: false,
            ended: false,
            they_ended: false,
            we_closed: false,
        };
        wire.open(0);
        wire
    }

    /// Gives us the next `n` bytes.
    fn open(&mut self, n: usize) {
        let n = n.min(self.coming.len()).min(READ_MAX);
        let kept = self.ours.kept();
        for (to, from) in self.scratch[kept..].iter_mut().zip(self.coming.drain(..n)) {
            *to = from;
        }
        match self.ours.decrypt(&mut self.scratch[..kept + n], &mut self.plain, &mut self.sealed) {
            Ok(opened) => {
                assert!(self.failed.is_none(), "no way back from a failure");
                self.ended |= opened.closed;
                assert!(!self.ended || self.they_ended || self.changed, "an end that nobody said");
            }
            Err(failure) => self.failed = Some(failure),
        }
        assert!(self.said.0.starts_with(&self.plain), "what came out was never said");
    }

    /// What we have to say goes to them at once.
    fn carry(&mut self) {
        let mut bytes = self.sealed.bytes();
        while !bytes.is_empty() {
            if self.theirs.read_tls(&mut bytes).is_err() {
                break;
            }
            let Ok(state) = self.theirs.process_new_packets() else { break };
            let start = self.heard.len();
            self.heard.resize(start + state.plaintext_bytes_to_read(), 0);
            self.theirs.reader().read_exact(&mut self.heard[start..]).unwrap();
            if state.peer_has_closed() {
                break;
            }
        }
        self.sealed.clear();
        assert!(self.said.1.starts_with(&self.heard), "what they heard was never said");
    }

    fn fetch(&mut self) {
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut self.coming).unwrap();
        }
    }

    fn step(&mut self, op: u8, arg: u8) {
        let arg = usize::from(arg);
        match op % 12 {
            // A cut: so many bytes, or all but so many.
            0 | 1 => self.open(arg),
            2 => self.open(self.coming.len().saturating_sub(arg)),
            3 => self.open(usize::MAX),
            4 => self.carry(),
            5 if !self.theirs.is_handshaking() && !self.they_ended => {
                let bytes = vec![arg as u8; arg * arg / 2];
                if self.theirs.writer().write_all(&bytes).is_ok() {
                    self.said.0.extend_from_slice(&bytes);
                }
            }
            6 if !self.theirs.is_handshaking() && !self.they_ended => drop(self.theirs.refresh_traffic_keys()),
            7 if !self.theirs.is_handshaking() => {
                self.theirs.send_close_notify();
                self.they_ended = true;
            }
            8 => {
                let bytes = vec![!arg as u8; 1 + arg * arg];
                let taken = self.ours.is_established() && !self.we_closed && self.failed.is_none();
                self.ours.encrypt(&bytes, arg as u64 * 100, &mut self.sealed).unwrap();
                if taken {
                    self.said.1.extend_from_slice(&bytes);
                }
            }
            9 if arg > 200 => {
                self.ours.send_close_notify(&mut self.sealed).unwrap();
                self.we_closed = true;
            }
            // On the way a byte is changed, lost, or one comes from elsewhere.
            10 if !self.coming.is_empty() => {
                let at = arg % self.coming.len();
                self.changed = true;
                match arg % 3 {
                    0 => self.coming[at] ^= 1 << (arg % 8),
                    1 => drop(self.coming.remove(at)),
                    _ => self.coming.insert(at, arg as u8),
                }
            }
            11 if arg > 250 => {
                self.changed = true;
                self.coming.extend_from_slice(&[21, 3, 3, 0, 2, 1 + (arg & 1) as u8, arg as u8]);
            }
            _ => {}
        }
        self.fetch();
    }
}

fuzz_target!(|program: &[u8]| {
    let Some((&kind, program)) = program.split_first() else { return };
    let mut wire = Wire::new(kind);
    wire.fetch();
    // Most programs begin behind a handshake that is cut somewhere.
    if kind & 4 != 0 {
        let cut = usize::from(kind >> 3) * 40 + 1;
        for _ in 0..6 {
            while !wire.coming.is_empty() {
                wire.open(cut);
            }
            wire.carry();
            wire.fetch();
        }
        assert!(wire.ours.is_established() && !wire.theirs.is_handshaking());
    }
    for op in program.chunks_exact(2).take(200) {
        wire.step(op[0], op[1]);
    }
    for _ in 0..4 {
        while !wire.coming.is_empty() {
            wire.open(usize::MAX);
        }
        wire.carry();
        wire.fetch();
    }
    // Unharmed, only a flood of key updates is no good stream.
    if !wire.changed && wire.failed.is_none() {
        assert!(wire.plain == wire.said.0, "{} of {} bytes came out", wire.plain.len(), wire.said.0.len());
        assert!(wire.heard == wire.said.1, "{} of {} bytes were heard", wire.heard.len(), wire.said.1.len());
        assert_eq!(wire.ours.kept(), 0, "at rest nothing is kept");
    }
});
