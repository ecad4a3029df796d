//! Tokens of an issuer that the tests are: JSON Web Tokens with HS256 (RFC 7515).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What the issuer shares with the proxy.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A token with these claims.
pub fn signed(claims: &str) -> String {
    let parts = ["{\"alg\":\"HS256\",\"typ\":\"JWT\"}", claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = parts.join(".");
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
}
