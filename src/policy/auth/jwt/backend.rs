//! Signatures and keys over the crate `jsonwebtoken`. It is asked for nothing else: what is checked
//! of a token, and in which order, is decided here.

use super::algorithm::{Algorithm, KeyType};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, EllipticCurveKeyParameters, Jwk, RSAKeyParameters};
use jsonwebtoken::{DecodingKey, crypto};
use serde_json::Value;
use std::ops::RangeInclusive;

/// Bytes of the modulus of an RSA key: 2048 to 8192 bits, what aws-lc verifies with.
const MODULUS_BYTES: RangeInclusive<usize> = 256..=1024;
const NOT_PUBLIC: &str = "has a private key; give the public one: openssl pkey -in KEY -pubout";
const NOT_PEM: &str = "is not a public key in PEM, RSA, P-256, P-384 or Ed25519";

/// A key as the library has it.
pub struct Material {
    key_type: KeyType,
    verifier: DecodingKey,
    /// To tell whether a reload has changed it.
    digest: [u8; 32],
}

impl Material {
    pub fn pem(pem: &[u8]) -> Result<Material, String> {
        let text = str::from_utf8(pem).map_err(|_| NOT_PEM)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(NOT_PUBLIC.to_owned());
        }
        if text.contains("-----BEGIN CERTIFICATE-----") {
            return Err("has a certificate; give its key: openssl x509 -in CERT -pubkey -noout".to_owned());
        }
        if text.matches("-----BEGIN ").count() > 1 {
            return Err("has more than one key; list each in a file of its own".to_owned());
        }
        let read = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
        let key = read.into_iter().find_map(|read| read(pem).ok()).ok_or(NOT_PEM)?;
        // One way for the components of all keys, whatever they were written in.
        let jwk = Jwk::from_decoding_key(&key, None).map_err(|_| NOT_PEM)?;
        Material::of(&jwk.algorithm)?.ok_or_else(|| NOT_PEM.to_owned())
    }

    pub fn secret(secret: &[u8]) -> Result<Material, String> {
        let verifier = DecodingKey::from_secret(secret).map_err(|_| "is empty")?;
        Ok(Material::new(KeyType::Secret(secret.len()), verifier, &[secret]))
    }

    /// `Ok(None)`: of a type that is not known.
    pub fn jwk(jwk: &Value) -> Result<Option<Material>, String> {
        let Ok(parameters) = serde_json::from_value::<AlgorithmParameters>(jwk.clone()) else { return Ok(None) };
        Material::of(&parameters)
    }

    fn of(parameters: &AlgorithmParameters) -> Result<Option<Material>, String> {
        match parameters {
            AlgorithmParameters::RSA(rsa) => Material::rsa(rsa).map(Some),
            AlgorithmParameters::EllipticCurve(key) => Material::elliptic(key),
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                let point = decode(&pair.x)?;
                ParsedPublicKey::new(&ED25519, &point).map_err(|_| "is not a key of Ed25519")?;
                Ok(Some(Material::new(KeyType::Ed25519, DecodingKey::from_ed_der(&point), &[&point])))
            }
            AlgorithmParameters::OctetKey(secret) => Material::secret(&decode(&secret.value)?).map(Some),
            _ => Ok(None),
        }
    }

    fn rsa(rsa: &RSAKeyParameters) -> Result<Material, String> {
        let (n, e) = (decode(&rsa.n)?, decode(&rsa.e)?);
        let significant = |number: &[u8]| -> Vec<u8> { number.iter().copied().skip_while(|byte| *byte == 0).collect() };
        let (n, e) = (significant(&n), significant(&e));
        if !MODULUS_BYTES.contains(&n.len()) {
            return Err(format!("is an RSA key of about {} bits; expected 2048 to 8192", n.len() * 8));
        }
        Ok(Material::new(KeyType::Rsa, DecodingKey::from_rsa_raw_components(&n, &e), &[&n, &e]))
    }

    fn elliptic(key: &EllipticCurveKeyParameters) -> Result<Option<Material>, String> {
        let (key_type, bytes) = match key.curve {
            EllipticCurve::P256 => (KeyType::P256, 32),
            EllipticCurve::P384 => (KeyType::P384, 48),
            _ => return Ok(None),
        };
        let (x, y) = (decode(&key.x)?, decode(&key.y)?);
        let point = [&[4][..], &x, &y].concat();
        let parsed = match key_type {
            KeyType::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point),
            _ => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point),
        };
        if x.len() != bytes || y.len() != bytes || parsed.is_err() {
            return Err("is not a point of its curve".to_owned());
        }
        Ok(Some(Material::new(key_type, DecodingKey::from_ec_der(&point), &[&point])))
    }

    fn new(key_type: KeyType, verifier: DecodingKey, parts: &[&[u8]]) -> Material {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in parts {
            hash.update(&part.len().to_le_bytes());
            hash.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Material { key_type, verifier, digest }
    }

    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Of a sentence about its file.
    pub fn what(&self) -> String {
        match self.key_type {
            KeyType::Secret(bytes) => format!("has a secret of {bytes} bytes"),
            KeyType::Rsa => "has an RSA key".to_owned(),
            KeyType::P256 => "has a P-256 key".to_owned(),
            KeyType::P384 => "has a P-384 key".to_owned(),
            KeyType::Ed25519 => "has an Ed25519 key".to_owned(),
        }
    }

    pub fn verifies(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        // An error is a key that is not for the algorithm, or a signature that is no base64url.
        crypto::verify(signature, message, &self.verifier, theirs(algorithm)).unwrap_or(false)
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Material) -> bool {
        self.key_type == other.key_type && self.digest == other.digest
    }
}

impl Eq for Material {}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "is not base64url".to_owned())
}

fn theirs(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    use jsonwebtoken::Algorithm as Theirs;
    match algorithm {
        Algorithm::Hs256 => Theirs::HS256,
        Algorithm::Hs384 => Theirs::HS384,
        Algorithm::Hs512 => Theirs::HS512,
        Algorithm::Rs256 => Theirs::RS256,
        Algorithm::Rs384 => Theirs::RS384,
        Algorithm::Rs512 => Theirs::RS512,
        Algorithm::Ps256 => Theirs::PS256,
        Algorithm::Ps384 => Theirs::PS384,
        Algorithm::Ps512 => Theirs::PS512,
        Algorithm::Es256 => Theirs::ES256,
        Algorithm::Es384 => Theirs::ES384,
        Algorithm::EdDsa => Theirs::EdDSA,
    }
}
