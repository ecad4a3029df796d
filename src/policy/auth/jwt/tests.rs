//! Tokens of every kind, and the tricks of those who make them up. Signed here by hand;
//! tests/tokens.rs has those of other libraries.

use super::key::KEYS_MAX;
use super::*;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::LazyLock;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The keys of an issuer.
struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

static OURS: LazyLock<Issuer> = LazyLock::new(Issuer::new);
static THEIRS: LazyLock<Issuer> = LazyLock::new(Issuer::new);

impl Issuer {
    fn new() -> Issuer {
        Issuer {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn rsa_pem(&self) -> String {
        let key: &rsa::PublicKey = self.rsa.public_key();
        pem(AsDer::<PublicKeyX509Der<'_>>::as_der(key).unwrap().as_ref())
    }

    fn pems(&self) -> [(&'static str, String); 4] {
        [
            ("r", self.rsa_pem()),
            ("p256", pem(AsDer::<PublicKeyX509Der<'_>>::as_der(self.p256.public_key()).unwrap().as_ref())),
            ("p384", pem(AsDer::<PublicKeyX509Der<'_>>::as_der(self.p384.public_key()).unwrap().as_ref())),
            ("ed", pem(AsDer::<PublicKeyX509Der<'_>>::as_der(self.ed25519.public_key()).unwrap().as_ref())),
        ]
    }

    fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        for (id, pem) in self.pems() {
            keys.push(Key::pem(pem.as_bytes(), label(id)).unwrap());
        }
        keys.push(Key::secret(SECRET, label("h")).unwrap());
        keys
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn signature::RsaEncoding| {
            let mut signed = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, message, &mut signed).unwrap();
            signed
        };
        let mac = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec();
        match algorithm {
            "HS256" => mac(hmac::HMAC_SHA256),
            "HS384" => mac(hmac::HMAC_SHA384),
            "HS512" => mac(hmac::HMAC_SHA512),
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            _ => Vec::new(),
        }
    }

    /// A token of these two texts, whatever they are.
    fn token(&self, header: &str, payload: &str, algorithm: &str) -> String {
        let message = format!("{}.{}", base64(header.as_bytes()), base64(payload.as_bytes()));
        let signature = self.signature(algorithm, message.as_bytes());
        format!("{message}.{}", base64(&signature))
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn label(id: &str) -> Label {
    Label { id: Some(id.to_owned()), algorithm: None }
}

fn rules() -> Rules {
    Rules {
        issuers: vec!["https://issuer".to_owned(), "https://other".to_owned()],
        audience: Audience::OneOf(vec!["chat".to_owned()]),
        leeway_s: 30,
        expiry_required: true,
        required: Vec::new(),
        subject: "sub".to_owned(),
        roles: "roles".to_owned(),
    }
}

fn jwt(keys: Keys) -> Jwt {
    Jwt { keys, remote: None, rules: rules(), bytes_max: 4096 }
}

fn claims() -> Value {
    json!({ "sub": "alice", "iss": "https://issuer", "aud": "chat", "exp": NOW_S + 300 })
}

/// Those claims with one changed, or removed by `null` in its text form.
fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    claims.to_string()
}

fn without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims.to_string()
}

#[track_caller]
fn refused(jwt: &Jwt, what: &str, token: &str, why: Rejected) {
    let judged = jwt.bearer(token.as_bytes(), NOW_S * 1000).map(|identity| identity.subject);
    assert_eq!(judged, Err(why), "{what}: {token}");
}

#[test]
fn every_algorithm_admits_with_its_key_and_with_no_other() {
    let jwt = jwt(OURS.keys());
    let ids = ["r", "p256", "p384", "ed", "h"];
    for (algorithm, own) in [
        ("HS256", "h"),
        ("HS384", "h"),
        ("HS512", "h"),
        ("RS256", "r"),
        ("RS384", "r"),
        ("RS512", "r"),
        ("PS256", "r"),
        ("PS384", "r"),
        ("PS512", "r"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
    ] {
        for id in ids {
            let header = json!({ "alg": algorithm, "kid": id }).to_string();
            let token = OURS.token(&header, &claims().to_string(), algorithm);
            let judged = jwt.bearer(token.as_bytes(), NOW_S * 1000).map(|identity| identity.subject);
            let expected = if id == own { Ok("alice".to_owned()) } else { Err(Rejected::Algorithm) };
            assert_eq!(judged, expected, "{algorithm} with key {id}");
        }
        let header = json!({ "alg": algorithm }).to_string();
        let token = OURS.token(&header, &claims().to_string(), algorithm);
        assert!(jwt.bearer(token.as_bytes(), NOW_S * 1000).is_ok(), "{algorithm} without key id");
        if own != "h" {
            let token = THEIRS.token(&header, &claims().to_string(), algorithm);
            refused(&jwt, "another issuer", &token, Rejected::Signature);
        }
    }
}

/// Headers that are not what they should be, over a signature that is right for their bytes.
#[test]
fn hostile_headers_are_refused() {
    let jwt = jwt(OURS.keys());
    let jwk = json!({ "kty": "oct", "k": base64(SECRET) });
    for (header, signed_as, why) in [
        (r#"{"alg":"none"}"#, "", Rejected::Algorithm),
        (r#"{"alg":"None"}"#, "", Rejected::Algorithm),
        (r#"{"alg":"NONE"}"#, "", Rejected::Algorithm),
        (r#"{"alg":"nOnE"}"#, "", Rejected::Algorithm),
        (r#"{"alg":"none "}"#, "", Rejected::Algorithm),
        (r#"{"alg":""}"#, "", Rejected::Algorithm),
        (r#"{"alg":"none","kid":"h"}"#, "HS256", Rejected::Algorithm),
        (r#"{"typ":"JWT"}"#, "HS256", Rejected::Algorithm),
        (r#"{"alg":null}"#, "HS256", Rejected::Header),
        (r#"{"alg":["HS256"]}"#, "HS256", Rejected::Header),
        (r#"{"alg":256}"#, "HS256", Rejected::Header),
        (r#"{"alg":{"alg":"HS256"}}"#, "HS256", Rejected::Header),
        (r#"{"alg":"hs256"}"#, "HS256", Rejected::Algorithm),
        (r#"{"alg":"HS256\u0000"}"#, "HS256", Rejected::Algorithm),
        (r#"{"alg":"ES512"}"#, "HS256", Rejected::Algorithm),
        (r#"{"alg":"ES256K"}"#, "ES256", Rejected::Algorithm),
        (r#"{"alg":"RSA-OAEP"}"#, "RS256", Rejected::Algorithm),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","alg":"none"}"#, "HS256", Rejected::Json),
        (r#"{"alg":"none","alg":"HS256"}"#, "HS256", Rejected::Json),
        (r#"{"alg":"HS256","\u0061lg":"HS256"}"#, "HS256", Rejected::Json),
        (r#"{"alg":"HS256","kid":"h","kid":"r"}"#, "HS256", Rejected::Json),
        (r#"{"alg":"HS256","kid":1}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","kid":null}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","kid":["h"]}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","kid":{"$ne":""}}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","kid":""}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"H"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"h "}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"/proc/self/environ"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"h' OR '1'='1"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"h' UNION SELECT 'k'--"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"h; cat /etc/passwd"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"http://127.0.0.1/k"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"h\u0000"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","kid":"\uff48"}"#, "HS256", Rejected::UnknownKey),
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, "HS256", Rejected::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, "HS256", Rejected::Critical),
        (r#"{"alg":"HS256","crit":null}"#, "HS256", Rejected::Critical),
        (r#"{"alg":"HS256","b64":true,"crit":["b64"]}"#, "HS256", Rejected::Critical),
        (r#"{"alg":"HS256","b64":false}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","zip":"DEF"}"#, "HS256", Rejected::Header),
        (r#"{"alg":"HS256","typ":"logout+jwt"}"#, "HS256", Rejected::Type),
        (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, "HS256", Rejected::Type),
        (r#"{"alg":"HS256","typ":1}"#, "HS256", Rejected::Header),
        (r#"[{"alg":"HS256"}]"#, "HS256", Rejected::Json),
        (r#""HS256""#, "HS256", Rejected::Json),
        ("", "HS256", Rejected::Json),
        (r#"{"alg":"HS256"}x"#, "HS256", Rejected::Json),
        (r#"{"alg":"HS256",}"#, "HS256", Rejected::Json),
        ("\u{feff}{\"alg\":\"HS256\"}", "HS256", Rejected::Json),
    ] {
        refused(&jwt, "header", &OURS.token(header, &claims().to_string(), signed_as), why);
    }
    // A key that comes with the token is not the one that verifies it.
    let brought = json!({ "alg": "ES256", "jwk": jwk, "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/" });
    let by_them = THEIRS.token(&brought.to_string(), &claims().to_string(), "ES256");
    refused(&jwt, "jwk", &by_them, Rejected::Signature);
}

/// "RS256" with the public key as the secret of "HS256", the oldest of them.
#[test]
fn a_public_key_is_never_a_secret() {
    let pem = OURS.rsa_pem();
    let mut keys = Keys::default();
    keys.push(Key::pem(pem.as_bytes(), label("r")).unwrap());
    let jwt = jwt(keys);
    let der = STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &der, b""] {
        for header in [r#"{"alg":"HS256","kid":"r"}"#, r#"{"alg":"HS256"}"#] {
            let message = format!("{}.{}", base64(header.as_bytes()), base64(claims().to_string().as_bytes()));
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            refused(&jwt, header, &format!("{message}.{}", base64(mac.as_ref())), Rejected::Algorithm);
        }
    }
}

#[test]
fn what_is_not_three_clean_segments_is_refused() {
    let jwt = jwt(OURS.keys());
    let good = OURS.token(r#"{"alg":"ES256"}"#, &claims().to_string(), "ES256");
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!() };
    assert!(jwt.bearer(good.as_bytes(), NOW_S * 1000).is_ok());
    for (what, token) in [
        ("empty", String::new()),
        ("dots", "..".to_owned() + "."),
        ("one segment", header.to_owned()),
        ("two segments", format!("{header}.{payload}")),
        ("four segments", format!("{good}.{signature}")),
        ("five segments", format!("{good}..")),
        ("leading dot", format!(".{good}")),
        ("space before", format!(" {good}")),
        ("space behind", format!("{good} ")),
        ("line feed", format!("{good}\n")),
        ("space within", format!("{header}. {payload}.{signature}")),
        ("tab within", format!("{header}.{payload}\t.{signature}")),
        ("padding", format!("{good}==")),
        ("padded header", format!("{header}=.{payload}.{signature}")),
        ("plain base64", format!("{header}.{payload}.+/{signature}")),
        ("percent", format!("{header}.{payload}.%41{signature}")),
        ("unicode dots", good.replace('.', "\u{ff0e}")),
        ("unicode letter", format!("{header}.{payload}.{signature}\u{430}")),
        ("NUL", format!("{good}\0")),
        ("quoted", format!("\"{good}\"")),
        ("with its scheme", format!("Bearer {good}")),
        ("letters too many", format!("{good}AAA")),
        ("JSON serialization", format!("{{\"payload\":\"{payload}\"}}")),
    ] {
        refused(&jwt, what, &token, Rejected::Form);
    }
    assert_eq!(jwt.bearer(b"\xff\xfe.\xff.\xff", 0).map(|_| ()), Err(Rejected::Form));
    refused(&jwt, "empty segments", "..", Rejected::Json);
    refused(&jwt, "a byte too many", &format!("{good}A"), Rejected::Signature);
    refused(&jwt, "no signature", &format!("{header}.{payload}."), Rejected::Signature);
    refused(&jwt, "no payload", &format!("{header}..{signature}"), Rejected::Signature);
    refused(&jwt, "swapped", &format!("{header}.{signature}.{payload}"), Rejected::Signature);
    let other = OURS.token(r#"{"alg":"ES256"}"#, &with("sub", "bob".into()), "ES256");
    let stolen = other.rsplit('.').next().unwrap();
    refused(&jwt, "signature of another", &format!("{header}.{payload}.{stolen}"), Rejected::Signature);
    let long = OURS.token(r#"{"alg":"ES256"}"#, &with("x", "x".repeat(5000).into()), "ES256");
    refused(&jwt, "too long", &long, Rejected::TooLong);
    assert!(Jwt { bytes_max: 8192, ..self::jwt(OURS.keys()) }.bearer(long.as_bytes(), NOW_S * 1000).is_ok());
}

/// No token is valid but the one that was made: every bit flipped, every length.
#[test]
fn changed_and_truncated_tokens_are_refused() {
    let jwt = jwt(OURS.keys());
    for algorithm in ["ES256", "HS256", "EdDSA", "RS256"] {
        let good = OURS.token(&json!({ "alg": algorithm }).to_string(), &claims().to_string(), algorithm);
        for at in 0..good.len() {
            let cut = jwt.bearer(&good.as_bytes()[..at], NOW_S * 1000);
            assert!(cut.is_err(), "{algorithm}: {at} bytes of it");
            // RSA takes long without optimisation: one bit of each byte.
            for bit in 0..if algorithm == "RS256" { 1 } else { 8 } {
                let mut changed = good.clone().into_bytes();
                changed[at] ^= 1 << bit;
                assert!(jwt.bearer(&changed, NOW_S * 1000).is_err(), "{algorithm}: byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn hostile_claims_are_refused() {
    let jwt = jwt(OURS.keys());
    let long = "x".repeat(1025);
    for (payload, why) in [
        (without("exp"), Rejected::Claim("exp")),
        (with("exp", "1900000000".into()), Rejected::Claim("exp")),
        (with("exp", Value::Null), Rejected::Claim("exp")),
        (with("exp", true.into()), Rejected::Claim("exp")),
        (with("exp", json!([NOW_S + 9])), Rejected::Claim("exp")),
        (with("exp", json!({ "s": NOW_S + 9 })), Rejected::Claim("exp")),
        (with("exp", json!(-1)), Rejected::Claim("exp")),
        (with("exp", json!(1e300)), Rejected::Claim("exp")),
        (with("exp", json!(u64::MAX)), Rejected::Claim("exp")),
        (with("exp", json!(NOW_S * 1000)), Rejected::Claim("exp")),
        (with("exp", json!(NOW_S - 30)), Rejected::Expired),
        (with("exp", json!(NOW_S as f64 - 30.5)), Rejected::Expired),
        (with("exp", json!(0)), Rejected::Expired),
        (with("nbf", json!(NOW_S + 31)), Rejected::NotYet),
        (with("nbf", "0".into()), Rejected::Claim("nbf")),
        (with("nbf", Value::Null), Rejected::Claim("nbf")),
        (with("nbf", json!([])), Rejected::Claim("nbf")),
        (with("iat", json!(NOW_S + 31)), Rejected::IssuedLater),
        (with("iat", "now".into()), Rejected::Claim("iat")),
        (with("iat", false.into()), Rejected::Claim("iat")),
        (without("aud"), Rejected::Audience),
        (with("aud", "chats".into()), Rejected::Audience),
        (with("aud", "Chat".into()), Rejected::Audience),
        (with("aud", json!([])), Rejected::Audience),
        (with("aud", json!(["a", "b"])), Rejected::Audience),
        (with("aud", json!(["chat", 1])), Rejected::Claim("aud")),
        (with("aud", json!({ "chat": true })), Rejected::Claim("aud")),
        (with("aud", json!(1)), Rejected::Claim("aud")),
        (with("aud", Value::Null), Rejected::Claim("aud")),
        (without("iss"), Rejected::Issuer),
        (with("iss", "https://issuer/".into()), Rejected::Issuer),
        (with("iss", "https://issuer.evil".into()), Rejected::Issuer),
        (with("iss", json!(["https://issuer"])), Rejected::Claim("iss")),
        (without("sub"), Rejected::Claim("subject")),
        (with("sub", "".into()), Rejected::Claim("subject")),
        (with("sub", json!(1)), Rejected::Claim("subject")),
        (with("sub", "a\r\nX-Admin: 1".into()), Rejected::Claim("subject")),
        (with("sub", long.into()), Rejected::Claim("subject")),
        (with("scope", json!(1)), Rejected::Claim("scope")),
        (with("scp", json!([1])), Rejected::Claim("scp")),
        (with("roles", json!({ "admin": true })), Rejected::Claim("roles")),
        (with("jti", json!(7)), Rejected::Claim("jti")),
        (r#"{"sub":"alice","sub":"root"}"#.to_owned(), Rejected::Json),
        (claims().to_string().replace("\"exp\":", "\"exp\":1,\"exp\":"), Rejected::Json),
        (claims().to_string().replace("\"sub\":", "\"x\":{\"y\":1,\"y\":2},\"sub\":"), Rejected::Json),
        ("[]".to_owned(), Rejected::Json),
        ("alice".to_owned(), Rejected::Json),
        (String::new(), Rejected::Json),
        ("{}".to_owned(), Rejected::Claim("exp")),
        (format!("{{\"x\":{}{}", "[".repeat(300), "]".repeat(300)), Rejected::Json),
    ] {
        refused(&jwt, "claims", &OURS.token(r#"{"alg":"ES256"}"#, &payload, "ES256"), why);
    }
}

#[test]
fn times_are_judged_with_leeway_and_the_identity_ends_with_it() {
    let jwt = jwt(OURS.keys());
    for (name, seconds, fits) in [
        ("exp", NOW_S - 29, true),
        ("exp", NOW_S - 30, false),
        ("nbf", NOW_S + 30, true),
        ("nbf", NOW_S + 31, false),
        ("iat", NOW_S + 30, true),
        ("iat", NOW_S + 31, false),
        ("iat", 0, true),
    ] {
        let token = OURS.token(r#"{"alg":"EdDSA"}"#, &with(name, seconds.into()), "EdDSA");
        let judged = jwt.bearer(token.as_bytes(), NOW_S * 1000);
        assert_eq!(judged.is_ok(), fits, "{name} {seconds}");
        if let (Ok(identity), "exp") = (judged, name) {
            assert_eq!(identity.expires_unix_ms, Some((seconds + 30) * 1000));
        }
    }
    let optional = Jwt { rules: Rules { expiry_required: false, ..rules() }, ..self::jwt(OURS.keys()) };
    let token = OURS.token(r#"{"alg":"EdDSA"}"#, &without("exp"), "EdDSA");
    assert_eq!(optional.bearer(token.as_bytes(), NOW_S * 1000).unwrap().expires_unix_ms, None);
    let token = OURS.token(r#"{"alg":"EdDSA"}"#, &with("exp", json!(NOW_S - 40)), "EdDSA");
    refused(&optional, "expired", &token, Rejected::Expired);
}

#[test]
fn claims_become_an_identity() {
    let mut keycloak = rules();
    keycloak.subject = "preferred_username".to_owned();
    keycloak.roles = "realm_access.roles".to_owned();
    let jwt = Jwt { rules: keycloak, ..jwt(OURS.keys()) };
    let payload = json!({
        "preferred_username": "al", "iss": "https://other", "aud": ["x", "chat"], "exp": NOW_S, "jti": "t-1",
        "scope": "openid  chat", "scp": ["read"], "realm_access": { "roles": ["a b", "c"] }, "tenant": "acme",
    });
    let header = r#"{"typ":"application/AT+JWT","alg":"PS256","kid":"r","x5t":"x","jwk":{}}"#;
    let identity = jwt.bearer(OURS.token(header, &payload.to_string(), "PS256").as_bytes(), NOW_S * 1000).unwrap();
    assert_eq!((identity.subject.as_str(), identity.token_id.as_deref()), ("al", Some("t-1")));
    assert_eq!((identity.scopes.join("|"), identity.roles.join("|")), ("openid|chat|read".into(), "a b|c".into()));
    assert_eq!(identity.claim("tenant").as_deref(), Some("acme"));
}

#[test]
fn required_claims_are_compared_by_type_and_value() {
    let wanted = |value: Value| Wanted::OneOf(vec![value]);
    for (path, rule, value, fits) in [
        ("t", Wanted::Present, json!(false), true),
        ("t", Wanted::Present, Value::Null, false),
        ("t", wanted("acme".into()), json!("acme"), true),
        ("t", wanted("acme".into()), json!("Acme"), false),
        ("t", wanted("acme".into()), json!(["x", "acme"]), true),
        ("t", wanted("acme".into()), json!({ "acme": 1 }), false),
        ("t", wanted(true.into()), json!("true"), false),
        ("t", wanted(1.into()), json!(1), true),
        ("t.u", wanted("x".into()), json!({ "u": "x" }), true),
        ("t.v", Wanted::Present, json!({ "u": "x" }), false),
    ] {
        let rules = Rules { required: vec![(path.to_owned(), rule)], ..rules() };
        let jwt = Jwt { rules, ..jwt(OURS.keys()) };
        let token = OURS.token(r#"{"alg":"EdDSA"}"#, &with("t", value.clone()), "EdDSA");
        let judged = jwt.bearer(token.as_bytes(), NOW_S * 1000).map(|_| ());
        assert_eq!(judged, if fits { Ok(()) } else { Err(Rejected::Required) }, "{path} {value}");
    }
    let nobody = Jwt { rules: Rules { audience: Audience::OneOf(vec![]), ..rules() }, ..jwt(OURS.keys()) };
    let token = |payload: String| OURS.token(r#"{"alg":"EdDSA"}"#, &payload, "EdDSA");
    refused(&nobody, "for others", &token(claims().to_string()), Rejected::Audience);
    assert!(nobody.bearer(token(without("aud")).as_bytes(), NOW_S * 1000).is_ok());
    let anyone = Jwt { rules: Rules { audience: Audience::Any, ..rules() }, ..jwt(OURS.keys()) };
    assert!(anyone.bearer(token(claims().to_string()).as_bytes(), NOW_S * 1000).is_ok());
}

#[test]
fn keys_are_read_or_explained() {
    let rsa = |bits: usize| json!({ "kty": "RSA", "n": base64(&vec![0xff; bits / 8]), "e": "AQAB" });
    let set = |keys: Value| json!({ "keys": keys }).to_string();
    let oct = json!({ "kty": "oct", "k": base64(SECRET), "kid": "h" });
    let many = vec![rsa(2048); KEYS_MAX + 1];
    for (text, origin, expected) in [
        (
            set(json!([rsa(2048), { "kty": "new" }, { "kty": "RSA", "use": "enc", "n": "", "e": "" }])),
            Origin::Public,
            Ok(1),
        ),
        (set(json!([oct])), Origin::File, Ok(1)),
        (set(json!([oct])), Origin::Public, Err("one has a secret")),
        (set(json!([oct, rsa(2048)])), Origin::Public, Ok(1)),
        (set(json!([rsa(1024)])), Origin::File, Err("one is an RSA key of about 1024 bits; expected 2048 to 8192")),
        (
            set(json!([{ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" }])),
            Origin::File,
            Err("point of its curve"),
        ),
        (set(json!([{ "kty": "EC", "crv": "P-521", "x": "", "y": "" }])), Origin::File, Err("no key for signatures")),
        (set(json!([])), Origin::File, Err("has no key for signatures")),
        (set(json!(many)), Origin::File, Err("has 101 keys; at most 100")),
        ("{\"keys\":{}}".into(), Origin::File, Err("it has no list keys")),
        ("<html>".into(), Origin::File, Err("is not JSON (line 1, column 1)")),
        (" ".repeat(KEYS_BYTES_MAX + 1), Origin::File, Err("has more than 262144 bytes")),
    ] {
        let read = Keys::jwks(text.as_bytes(), None, origin).map(|keys| keys.len());
        match expected {
            Ok(keys) => assert_eq!(read, Ok(keys), "{text}"),
            Err(why) => assert!(read.as_ref().is_err_and(|e| e.contains(why)), "{why}: {read:?}"),
        }
    }
    let algorithm = |algorithm| Label { id: None, algorithm: Some(algorithm) };
    for (read, why) in [
        (Key::secret(b"short", Label::default()), "has a secret of 5 bytes; expected at least 32 bytes"),
        (Key::secret(b"", Label::default()), "is empty"),
        (Key::secret(&SECRET[..32], algorithm(Algorithm::Hs512)), "32 bytes, which is not for HS512; it is for HS256"),
        (Key::pem(OURS.rsa_pem().as_bytes(), algorithm(Algorithm::Hs256)), "has an RSA key, which is not for HS256"),
        (Key::pem(OURS.pems()[1].1.as_bytes(), algorithm(Algorithm::Es384)), "P-256 key, which is not for ES384"),
        (Key::pem(b"-----BEGIN PRIVATE KEY-----\n", Label::default()), "has a private key; give the public one"),
        (Key::pem(b"-----BEGIN CERTIFICATE-----\n", Label::default()), "has a certificate; give its key"),
        (Key::pem(OURS.rsa_pem().repeat(2).as_bytes(), Label::default()), "has more than one key"),
        (Key::pem(b"ssh-rsa AAAA", Label::default()), "is not a public key in PEM"),
    ] {
        assert!(read.as_ref().is_err_and(|e| e.contains(why)), "{why}: {read:?}");
    }
    let narrow = Key::pem(OURS.rsa_pem().as_bytes(), algorithm(Algorithm::Ps256)).unwrap();
    let mut keys = Keys::default();
    keys.push(narrow);
    let token = OURS.token(r#"{"alg":"RS256"}"#, &claims().to_string(), "RS256");
    refused(&jwt(keys), "another algorithm of its key", &token, Rejected::Algorithm);
}

#[test]
fn no_text_for_people_holds_a_secret() {
    let text = format!("{:?} {:#?}", jwt(OURS.keys()), jwt(OURS.keys()));
    for secret in [str::from_utf8(SECRET).unwrap(), &base64(SECRET), "48, 49, 50", "30, 31, 32"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(jwt(OURS.keys()), jwt(OURS.keys()), "a reload sees no change");
    assert_ne!(jwt(OURS.keys()), jwt(THEIRS.keys()));
}
