//! What verifying a token costs, by algorithm: `cargo bench --bench auth`. Not in the table of
//! instructions: the cryptography is aws-lc's, which chooses its code by the processor.

mod common;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::bench;
use framegate::policy::auth::jwt::{Audience, Jwt, Key, Keys, Label, Rules};
use std::hint::black_box;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NOW_MS: u64 = 1_800_000_000_000;
/// As a login server makes them, some 800 bytes with their signature.
const CLAIMS: &str = r#"{"iss":"https://login.example.com/realms/main","sub":"f3a1c9d2-7b40-4e55-9a57-0c1de2a3b4c5",
"aud":["chat","account"],"exp":1800000300,"iat":1799999990,"jti":"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9","typ":"Bearer",
"azp":"web","scope":"openid profile chat","realm_access":{"roles":["user","offline_access"]},"email_verified":true,
"preferred_username":"alice","email":"alice@example.com"}"#;

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn jwt(key: Key) -> Jwt {
    let mut keys = Keys::default();
    keys.push(key);
    let rules = Rules {
        issuers: vec!["https://login.example.com/realms/main".to_owned()],
        audience: Audience::OneOf(vec!["chat".to_owned()]),
        leeway_s: 30,
        expiry_required: true,
        required: Vec::new(),
        subject: "sub".to_owned(),
        roles: "realm_access.roles".to_owned(),
    };
    Jwt { keys, remote: None, rules, bytes_max: 8192 }
}

fn bench_token(algorithm: &str, key: Key, sign: impl Fn(&[u8]) -> Vec<u8>) {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}"));
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(CLAIMS));
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes())));
    let jwt = jwt(key);
    assert!(jwt.bearer(token.as_bytes(), NOW_MS).is_ok(), "{algorithm}");
    bench(algorithm, 500, || {
        black_box(jwt.bearer(black_box(token.as_bytes()), NOW_MS)).ok();
    });
}

fn main() {
    let random = SystemRandom::new();
    let public = |key: String| Key::pem(key.as_bytes(), Label::default()).expect("a public key");
    for (name, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        let key = Key::secret(SECRET, Label::default()).expect("a secret");
        bench_token(name, key, |message| hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec());
    }
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).expect("its encoding");
    let paddings: [(&str, &'static dyn signature::RsaEncoding); 4] = [
        ("RS256", &signature::RSA_PKCS1_SHA256),
        ("RS512", &signature::RSA_PKCS1_SHA512),
        ("PS256", &signature::RSA_PSS_SHA256),
        ("PS512", &signature::RSA_PSS_SHA512),
    ];
    for (name, padding) in paddings {
        bench_token(name, public(pem(der.as_ref())), |message| {
            let mut signed = vec![0; rsa.public_modulus_len()];
            rsa.sign(padding, &random, message, &mut signed).expect("a signature");
            signed
        });
    }
    let (p256, p384) = (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED_SIGNING);
    for (name, curve) in [("ES256", p256), ("ES384", p384)] {
        let pair = EcdsaKeyPair::generate(curve).expect("a key");
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("its encoding");
        let sign = |message: &[u8]| pair.sign(&random, message).expect("a signature").as_ref().to_vec();
        bench_token(name, public(pem(der.as_ref())), sign);
    }
    let pair = Ed25519KeyPair::generate().expect("a key");
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("its encoding");
    bench_token("EdDSA", public(pem(der.as_ref())), |message| pair.sign(message).as_ref().to_vec());
}
