//! The ciphers of TLS 1.3, with keys that take little room at rest. aws-lc's key schedule for AES-GCM is 600 bytes a direction,
//! more than all else that an idle connection needs for it; it is made again, in an eighth of a microsecond, from a key of
//! 16 or 32. Those of the connections that talk are kept: so many for each thread, whatever the number of connections.
//!
//! rustls asks for this through its provider, and everything else is its own: when keys change, which number a record has,
//! and what is refused. TLS 1.2 has the provider's own ciphers.

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

/// Key schedules that a thread keeps; at the most some 700 KB.
const WARM_MAX: usize = 1024;

/// The provider of everything: aws-lc, with the ciphers of this file.
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

/// The same suite with our keys.
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

/// The key of one direction until the next change of keys.
struct Key {
    /// Never the same twice in this process.
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

    /// RFC 8446 section 5.3: rustls counts the records, and asks for new keys before the numbers end.
    fn nonce(&self, number: u64) -> Nonce {
        Nonce::assume_unique_for_key(cipher::Nonce::new(&self.iv, number).0)
    }

    fn with<R>(&self, work: impl FnOnce(&LessSafeKey) -> Result<R, Unspecified>) -> Result<R, Unspecified> {
        WARM.with_borrow_mut(|warm| work(warm.schedule(self)?))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // The thread's own may be gone already when it ends.
        let _gone = WARM.try_with(|warm| warm.borrow_mut().forget(self.id));
    }
}

thread_local! {
    static WARM: RefCell<KeyScheduleCache> = const { RefCell::new(KeyScheduleCache { slots: Vec::new() }) };
}

/// Key schedules of the connections that talk. Each key has one slot that it can be in: the number of slots is far above that
/// of the connections that are talking at a time, or they all are made anew.
struct KeyScheduleCache {
    slots: Vec<Option<(u64, LessSafeKey)>>,
}

impl KeyScheduleCache {
    #[inline]
    fn schedule(&mut self, key: &Key) -> Result<&LessSafeKey, Unspecified> {
        if self.slots.is_empty() {
            self.slots.resize_with(WARM_MAX, || None);
        }
        let slot = self.slots.get_mut(key.id as usize % WARM_MAX).ok_or(Unspecified)?;
        if slot.as_ref().is_none_or(|(id, _)| *id != key.id) {
            *slot = Some((key.id, LessSafeKey::new(UnboundKey::new(key.algorithm, key.secret.as_ref())?)));
        }
        slot.as_ref().map(|(_, schedule)| schedule).ok_or(Unspecified)
    }

    /// No schedule outlives its connection.
    fn forget(&mut self, id: u64) {
        if let Some(slot) = self.slots.get_mut(id as usize % WARM_MAX) {
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
        let done = self.with(|schedule| schedule.seal_in_place_append_tag(nonce, aad, &mut payload));
        done.map_err(|_| Error::EncryptError)?;
        // RFC 8446 section 5.2: every record says that it is data of TLS 1.2.
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
        let opened = self.with(|schedule| schedule.open_in_place(nonce, aad, payload).map(|plain| plain.len()));
        let len = opened.map_err(|_| Error::DecryptError)?;
        payload.truncate(len);
        msg.into_tls13_unpadded_message()
    }
}
