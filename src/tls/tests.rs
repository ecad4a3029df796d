//! Our driver against rustls' buffered connections, in memory: every split, every changed byte,
//! every way to end.

use super::*;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConnection, Connection, RootCertStore, ServerConnection};
use std::io::{Read, Write};
use std::sync::LazyLock;

type Both = (Arc<ServerConfig>, Arc<ClientConfig>);

/// TLS 1.3 with its preferred suite, TLS 1.2, and TLS 1.3 with each of the other suites.
const KINDS: usize = 4;

/// Ours with the provider used in production, theirs with that of rustls.
static CONFIGS: LazyLock<[(Both, Both); KINDS]> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    [0, 1, 2, 3].map(|kind| [cipher::provider(), default_provider()].map(|p| configs(kind, p, cert.der(), &key)).into())
});

fn configs(kind: usize, mut provider: CryptoProvider, cert: &CertificateDer<'static>, key: &KeyPair) -> Both {
    match kind {
        0 => {}
        1 => provider.cipher_suites.retain(|suite| suite.tls13().is_none()),
        2 => provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256),
        _ => provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    }
    let versions: &[_] = if kind == 1 { &[&TLS12] } else { &[&TLS13] };
    let (provider, key) = (Arc::new(provider), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![cert.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Our side, the rustls side, and the bytes between them.
struct Wire {
    ours: Tls,
    theirs: Connection,
    plain: Vec<u8>,
    out: Buffer,
    scratch: Vec<u8>,
    last: Decrypted,
}

impl Wire {
    fn server(kind: usize) -> Wire {
        let ((server, _), (_, client)) = &CONFIGS[kind];
        Wire::new(Tls::server(server).unwrap(), ClientConnection::new(client.clone(), name()).unwrap().into())
    }

    fn client(kind: usize) -> Wire {
        let ((_, client), (server, _)) = &CONFIGS[kind];
        let mut wire =
            Wire::new(Tls::client(client, &name()).unwrap(), ServerConnection::new(server.clone()).unwrap().into());
        wire.feed(&[]).unwrap();
        wire
    }

    fn new(ours: Tls, mut theirs: Connection) -> Wire {
        theirs.set_buffer_limit(None);
        let (plain, out, scratch) = (Vec::new(), Buffer::default(), vec![0; 256 * 1024]);
        Wire { ours, theirs, plain, out, scratch, last: Decrypted::default() }
    }

    /// Passes the bytes of one read.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let kept = self.ours.kept();
        self.scratch[kept..kept + bytes.len()].copy_from_slice(bytes);
        let result = self.ours.decrypt(&mut self.scratch[..kept + bytes.len()], &mut self.plain, &mut self.out);
        self.last = result?;
        Ok(())
    }

    /// Passes what they send, in pieces of `cut` bytes.
    fn receive(&mut self, cut: usize) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut bytes).unwrap();
        }
        bytes.chunks(cut).try_for_each(|piece| self.feed(piece))
    }

    /// Passes what we send; returns their plaintext.
    fn send(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let mut bytes = self.out.bytes();
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.theirs.read_tls(&mut bytes).unwrap();
            let state = self.theirs.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.theirs.reader().read_exact(&mut plain[start..]).unwrap();
        }
        self.out.clear();
        Ok(plain)
    }

    fn handshake(mut self, cut: usize) -> Wire {
        for _ in 0..6 {
            self.send().unwrap();
            self.receive(cut).unwrap();
        }
        assert!(self.ours.is_established() && !self.theirs.is_handshaking());
        self
    }

    fn they_send(&mut self, bytes: &[u8]) {
        self.theirs.writer().write_all(bytes).unwrap();
    }
}

const SIDES: [fn(usize) -> Wire; 2] = [Wire::server, Wire::client];

fn both_ways(mut wire: Wire, cut: usize) {
    for len in [1, 125, 1350, 1351, 4096, 4097, 16_384, 16_385, 100_000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        wire.they_send(&bytes);
        wire.receive(cut).unwrap();
        assert!(wire.plain == bytes, "{len} bytes to us, cut at {cut}");
        wire.plain.clear();
        assert_eq!(wire.ours.kept(), 0, "kept bytes at rest");
        assert_eq!(wire.ours.kept.capacity(), 0, "an allocation at rest");
        wire.ours.encrypt(&bytes, 5, &mut wire.out).unwrap();
        assert!(wire.send().unwrap() == bytes, "{len} bytes to them");
    }
    assert!(wire.out.is_empty());
}

#[test]
fn data_passes_both_ways_however_it_is_split() {
    for (side, kind) in SIDES.iter().flat_map(|side| (0..KINDS).map(move |kind| (side, kind))) {
        for cut in [1, 2, 3, 5, 7, 64, 1000, 16_384, 100_000] {
            both_ways(side(kind).handshake(cut), cut);
        }
    }
}

#[test]
fn a_record_split_at_any_byte_is_decrypted_once() {
    for kind in 0..KINDS {
        let mut wire = Wire::server(kind).handshake(usize::MAX);
        for at in 0..200 {
            wire.they_send(&[at as u8; 150]);
            let mut bytes = Vec::new();
            wire.theirs.write_tls(&mut bytes).unwrap();
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            wire.feed(first).unwrap();
            wire.feed(second).unwrap();
            assert_eq!(std::mem::take(&mut wire.plain), [at as u8; 150]);
        }
    }
}

/// Payload lengths of the records in `bytes`, from their headers.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lens = Vec::new();
    while let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        // Content type and tag of TLS 1.3.
        lens.push(len - 17);
        bytes = &rest[len..];
    }
    lens
}

#[test]
fn records_are_small_after_a_pause_and_small_writes_are_not_split() {
    let mut wire = Wire::server(0).handshake(usize::MAX);
    let mut encrypted = |len: usize, now| {
        wire.out.clear();
        wire.ours.encrypt(&vec![0; len], now, &mut wire.out).unwrap();
        records(wire.out.bytes())
    };
    assert_eq!(encrypted(4096, 10_000), [4096]);
    assert_eq!(encrypted(4097, 10_000), [1350, 1350, 1350, 47]);
    let long = encrypted(100_000, 10_000);
    assert!(long[0] == 1350 && long.contains(&16_384), "{long:?}");
    assert_eq!(encrypted(20_000, 10_500), [16_384, 3616]);
    assert_eq!(encrypted(1_000, 11_000), [1_000]);
    assert_eq!(encrypted(5_000, 12_001)[0], 1350, "a pause of over a second");
}

#[test]
fn keys_work_after_their_schedules_were_replaced() {
    // More connections than cached key schedules, active in turn.
    let mut wires: Vec<Wire> = (0..600).map(|i| Wire::server(2 * (i % 2)).handshake(usize::MAX)).collect();
    for round in 0..3_u8 {
        for wire in &mut wires {
            wire.they_send(&[round]);
            wire.receive(usize::MAX).unwrap();
            assert_eq!(std::mem::take(&mut wire.plain), [round]);
            wire.ours.encrypt(&[round], 0, &mut wire.out).unwrap();
            assert_eq!(wire.send().unwrap(), [round]);
        }
    }
}

#[test]
fn close_notify_is_distinguished_from_truncation() {
    for (side, kind) in SIDES.iter().flat_map(|side| (0..KINDS).map(move |kind| (side, kind))) {
        let mut wire = side(kind).handshake(usize::MAX);
        wire.they_send(b"last");
        wire.theirs.send_close_notify();
        wire.receive(1).unwrap();
        assert!(wire.plain == b"last" && wire.last.closed && wire.ours.is_closed_by_peer());
        // The other direction continues.
        wire.ours.encrypt(b"more", 0, &mut wire.out).unwrap();
        wire.ours.send_close_notify(&mut wire.out).unwrap();
        wire.ours.send_close_notify(&mut wire.out).unwrap();
        wire.ours.encrypt(b"too late", 0, &mut wire.out).unwrap();
        assert_eq!(wire.send().unwrap(), b"more");
        assert!(wire.theirs.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn key_updates_are_answered_once_with_the_next_data() {
    for side in SIDES {
        let mut wire = side(0).handshake(usize::MAX);
        for round in 0..20_u8 {
            wire.theirs.refresh_traffic_keys().unwrap();
            wire.they_send(&[round]);
            wire.receive(3).unwrap();
            assert_eq!(std::mem::take(&mut wire.plain), [round]);
            assert!(wire.out.bytes().len() < 100, "a response is sent with the next data");
        }
        wire.ours.encrypt(b"after", 0, &mut wire.out).unwrap();
        assert_eq!(wire.send().unwrap(), b"after");
    }
}

#[test]
fn data_after_many_key_updates_in_one_read_is_decrypted() {
    for side in SIDES {
        for updates in 1..40 {
            let mut wire = side(0).handshake(usize::MAX);
            wire.ours.encrypt(b"before", 0, &mut wire.out).unwrap();
            for _ in 0..updates {
                wire.theirs.refresh_traffic_keys().unwrap();
            }
            wire.they_send(b"behind");
            let failed = wire.receive(usize::MAX).is_err();
            assert!(failed || wire.plain == b"behind", "{updates} updates: {} bytes are kept", wire.ours.kept());
        }
    }
}

#[test]
fn input_that_is_not_tls_is_classified() {
    for (bytes, failure) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), Failure::PlainHttp),
        (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", Failure::Malformed),
        (b"\x16\x03\x01\xff\xff", Failure::Malformed),
        (b"\x17\x03\x03\x00\x01\x00", Failure::Misbehaved),
        (b"\x15\x03\x01\x00\x02\x02\x28", Failure::Alert(40)),
    ] {
        let mut wire = Wire::server(0);
        assert_eq!(wire.feed(bytes), Err(failure), "{bytes:x?}");
    }
    // A warning alert is not fatal.
    let mut wire = Wire::server(0);
    assert_eq!(wire.feed(b"\x15\x03\x01\x00\x02\x01\x5a"), Ok(()));
}

#[test]
fn a_failure_produces_an_alert() {
    let mut wire = Wire::server(0).handshake(usize::MAX);
    wire.they_send(b"x");
    let mut bytes = Vec::new();
    wire.theirs.write_tls(&mut bytes).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(wire.feed(&bytes), Err(Failure::BadRecord));
    assert!(!wire.out.is_empty());
    assert!(wire.send().is_err_and(|e| e == rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)));
    // Nothing follows it.
    assert!(wire.feed(b"more").is_err());
}

#[test]
fn an_endless_handshake_message_is_rejected() {
    // A message of nearly 16 MiB, in valid records.
    let mut wire = Wire::server(0);
    let hello = [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat();
    let more = [&[0x16, 3, 1, 0x40, 0][..], &[0; 16_384]].concat();
    let mut result = wire.feed(&hello);
    for _ in 0..100 {
        result = result.and_then(|()| wire.feed(&more));
        assert!(wire.ours.kept() <= KEPT_MAX + 2 * RECORD_BYTES);
    }
    assert!(result.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// With any byte of the stream changed and the stream split anywhere, only data that was sent
    /// comes out.
    #[test]
    fn a_changed_byte_is_never_accepted(
        kind in 0..KINDS,
        server: bool,
        at in 0usize..6000,
        to: u8,
        cuts in proptest::collection::vec(1usize..400, 1..20)
    ) {
        let mut wire = if server { Wire::server(kind) } else { Wire::client(kind) };
        let (mut seen, mut cuts) = (0, cuts.into_iter().cycle());
        let mut failed = false;
        for round in 0..8 {
            // Ignored: their side may fail on the changed byte.
            let _ = wire.send();
            if !wire.theirs.is_handshaking() && round < 7 {
                // Ignored: nothing is sent after an alert.
                let _ = wire.theirs.writer().write_all(b"said");
            }
            let mut bytes = Vec::new();
            while wire.theirs.wants_write() {
                wire.theirs.write_tls(&mut bytes).unwrap();
            }
            if let Some(byte) = at.checked_sub(seen).and_then(|at| bytes.get_mut(at)) {
                *byte = to;
            }
            seen += bytes.len();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() && !failed {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                failed = wire.feed(now).is_err();
                rest = later;
            }
        }
        prop_assert!(b"said".repeat(8).starts_with(&wire.plain), "{:?}", wire.plain);
    }

    #[test]
    fn no_input_causes_a_panic(
        server: bool,
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        cut in 1usize..100
    ) {
        let mut wire = if server { Wire::server(0) } else { Wire::client(0) };
        // Any result is fine.
        let _ = bytes.chunks(cut).try_for_each(|piece| wire.feed(piece));
    }

    #[test]
    fn no_certificate_causes_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0usize..400,
        to: u8
    ) {
        // Any result is fine.
        let _ = der::read(&bytes);
        let key = KeyPair::generate().unwrap();
        bytes = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap().der().to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        let _ = der::read(&bytes);
    }
}

#[test]
fn subject_and_expiry_of_a_certificate_are_read() {
    use rcgen::{DnType, DnValue, date_time_ymd};
    for (until, seconds) in
        [((2049, 12, 31), 2_524_521_600), ((2050, 3, 1), 2_529_705_600), ((2024, 2, 29), 1_709_164_800)]
    {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.not_before = date_time_ymd(1999, 1, 1);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let name = &mut params.distinguished_name;
        name.remove(DnType::CommonName);
        name.push(DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap()));
        name.push(DnType::OrganizationName, "A, B + \"C\"\r\nX-Forged: 1");
        name.push(DnType::CommonName, " ü#");
        name.push(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1]), "x");
        let key = KeyPair::generate().unwrap();
        let parsed = der::read(params.self_signed(&key).unwrap().der()).unwrap();
        let expected = r#"1.2.840.113549.1=x,CN=\ \C3\BC#,O=A\, B \+ \"C\"\0D\0AX-Forged: 1,C=DE"#;
        assert_eq!(parsed, der::Parsed { subject: expected.to_owned(), not_after: seconds });
    }
}

#[test]
fn the_self_signed_certificate_is_valid() {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    for addr in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let now = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        let (cert, key) = self_signed(addr, now).unwrap();
        use rustls::pki_types::pem::PemObject;
        let der = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        rustls::sign::CertifiedKey::from_der(vec![der.clone()], key, &default_provider()).unwrap();
        let parsed = der::read(&der).unwrap();
        assert_eq!((parsed.subject.as_str(), parsed.not_after), ("CN=framegate demo", 1_800_000_000 + 90 * 24 * 3600));
        let cert = webpki::EndEntityCert::try_from(&der).unwrap();
        for name in [ServerName::IpAddress(addr.into()), name()] {
            cert.verify_is_valid_for_subject_name(&name).unwrap();
        }
    }
}
