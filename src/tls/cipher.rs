//! TLS 1.3 ciphers whose keys take little memory at rest. The AES-GCM key schedule of aws-lc takes
//! 600 bytes per direction, more than everything else that TLS keeps for an idle connection. It is
//! recomputed from the key of 16 or 32 bytes, in an eighth of a microsecond; each thread caches a
//! fixed number of schedules for active connections.
//!
//! rustls calls this through its provider and does the rest: key updates, record numbers,
//! validation. TLS 1.2 uses the provider's own ciphers.

use crate::memory::{SCRATCH_BYTES, TLS_WORKER_BYTES};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::cipher::{self, AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter};
use rustls::crypto::cipher::{MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload};
use rustls::crypto::cipher::{Tls13AeadAlgorithm, UnsupportedOperationError, make_tls13_aad};
use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
};
use std::cell::RefCell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Key schedules that a thread keeps, some 700 KB.
const SCHEDULES_MAX: usize = 1024;

/// The aws-lc provider with the ciphers of this file.
pub fn provider() -> CryptoProvider {
    static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
        let all = default_provider().cipher_suites;
        all.iter().filter_map(|suite| suite.tls13().and_then(ours)).collect()
    });
    let mut provider = default_provider();
    for suite in &mut provider.cipher_suites {
        if let Some(ours) = SUITES.iter().find(|ours| ours.common.suite == suite.suite()) {
            *suite = SupportedCipherSuite::Tls13(ours);
        }
    }
    provider
}

/// The same suite with our cipher.
fn ours(suite: &Tls13CipherSuite) -> Option<Tls13CipherSuite> {
    let aead_alg: &'static dyn Tls13AeadAlgorithm = match suite.common.suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &Aead(&AES_128_GCM),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &Aead(&AES_256_GCM),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &Aead(&CHACHA20_POLY1305),
        _ => return None,
    };
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit } = suite.common;
    let common = CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit };
    Some(Tls13CipherSuite { common, hkdf_provider: suite.hkdf_provider, aead_alg, quic: None })
}

struct Aead(&'static Algorithm);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Key::new(self.0, key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Key::new(self.0, key, iv))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// The key of one direction until the next key update.
struct Key {
    /// Unique within the process.
    id: u64,
    algorithm: &'static Algorithm,
    secret: AeadKey,
    iv: Iv,
}

impl Key {
    fn new(algorithm: &'static Algorithm, secret: AeadKey, iv: Iv) -> Key {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Key { id: IDS.fetch_add(1, Ordering::Relaxed), algorithm, secret, iv }
    }

    /// RFC 8446 section 5.3. rustls counts the records and updates the key before the numbers run
    /// out.
    fn nonce(&self, number: u64) -> Nonce {
        Nonce::assume_unique_for_key(cipher::Nonce::new(&self.iv, number).0)
    }

    fn with<R>(&self, work: impl FnOnce(&LessSafeKey) -> Result<R, Unspecified>) -> Result<R, Unspecified> {
        SCHEDULES.with_borrow_mut(|cache| work(cache.schedule(self)?))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // Ignored: when a thread ends, its cache may already be gone.
        let _ = SCHEDULES.try_with(|cache| cache.borrow_mut().forget(self.id));
    }
}

thread_local! {
    static SCHEDULES: RefCell<KeyScheduleCache> = const { RefCell::new(KeyScheduleCache { slots: Vec::new() }) };
}

/// Key schedules of active connections. Each key has exactly one slot; keys that share a slot
/// replace each other.
struct KeyScheduleCache {
    slots: Vec<Option<(u64, LessSafeKey)>>,
}

// Beside the cache a worker has one buffer of plaintext and one of ciphertext, each for one read.
const _: () =
    assert!(SCHEDULES_MAX * size_of::<Option<(u64, LessSafeKey)>>() + 5 * SCRATCH_BYTES / 2 <= TLS_WORKER_BYTES);

impl KeyScheduleCache {
    #[inline]
    fn schedule(&mut self, key: &Key) -> Result<&LessSafeKey, Unspecified> {
        if self.slots.is_empty() {
            self.slots.resize_with(SCHEDULES_MAX, || None);
        }
        let slot = self.slots.get_mut(key.id as usize % SCHEDULES_MAX).ok_or(Unspecified)?;
        if slot.as_ref().is_none_or(|(id, _)| *id != key.id) {
            *slot = Some((key.id, LessSafeKey::new(UnboundKey::new(key.algorithm, key.secret.as_ref())?)));
        }
        slot.as_ref().map(|(_, schedule)| schedule).ok_or(Unspecified)
    }

    /// Removes the schedule of a connection that has closed.
    fn forget(&mut self, id: u64) {
        if let Some(slot) = self.slots.get_mut(id as usize % SCHEDULES_MAX) {
            slot.take_if(|(of, _)| *of == id);
        }
    }
}

impl MessageEncrypter for Key {
    fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, number: u64) -> Result<OutboundOpaqueMessage, Error> {
        let len = self.encrypted_payload_len(msg.payload.len());
        let mut payload = PrefixedPayload::with_capacity(len);
        payload.extend_from_chunks(&msg.payload);
        payload.extend_from_slice(&msg.typ.to_array());
        let (nonce, aad) = (self.nonce(number), Aad::from(make_tls13_aad(len)));
        let result = self.with(|schedule| schedule.seal_in_place_append_tag(nonce, aad, &mut payload));
        result.map_err(|_| Error::EncryptError)?;
        // RFC 8446 section 5.2: every record is labelled as application data of TLS 1.2.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + 1 + self.algorithm.tag_len()
    }
}

impl MessageDecrypter for Key {
    fn decrypt<'a>(
        &mut self,
        mut msg: InboundOpaqueMessage<'a>,
        number: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut msg.payload;
        if payload.len() < self.algorithm.tag_len() {
            return Err(Error::DecryptError);
        }
        let (nonce, aad) = (self.nonce(number), Aad::from(make_tls13_aad(payload.len())));
        let decrypted = self.with(|schedule| schedule.open_in_place(nonce, aad, payload).map(|plain| plain.len()));
        let len = decrypted.map_err(|_| Error::DecryptError)?;
        payload.truncate(len);
        msg.into_tls13_unpadded_message()
    }
}
