//! The form of a token: three segments, a header that is understood, and nothing that a token could
//! choose its own key with (RFC 7515; RFC 8725 has the attacks).

use super::super::json;
use super::algorithm::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Values of `typ` that are accepted (RFC 7519 section 5.1, RFC 9068 section 2.1). Tokens of other
/// types are for other purposes, although the same keys may have signed them.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Why a token is refused. The names are for tests and logs; clients learn of `Expired` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// More bytes than allowed.
    TooLong,
    /// Not three segments of base64url without padding.
    Form,
    /// Header or payload is not a JSON object, or a name occurs twice.
    Json,
    /// A header parameter has the wrong type, or asks for what is not done.
    Header,
    /// The token has a `crit`: an extension that must be understood.
    Critical,
    /// It is a token for another purpose.
    Type,
    /// No such algorithm, or not one of the key.
    Algorithm,
    /// No key has this `kid`.
    UnknownKey,
    /// There are no keys yet.
    NoKeys,
    Signature,
    /// This claim is missing, or has the wrong type.
    Claim(&'static str),
    Expired,
    NotYet,
    /// `iat` is in the future.
    IssuedLater,
    Issuer,
    Audience,
    /// A claim of `require` is missing or has another value.
    Required,
}

/// A token of the right form, not verified.
pub struct Token<'a> {
    pub algorithm: Algorithm,
    pub key_id: Option<String>,
    /// What is signed: the first two segments.
    pub message: &'a [u8],
    /// The third segment.
    pub signature: &'a str,
    payload: &'a str,
}

impl<'a> Token<'a> {
    pub fn parse(credential: &'a [u8], bytes_max: usize) -> Result<Token<'a>, Rejected> {
        if credential.len() > bytes_max {
            return Err(Rejected::TooLong);
        }
        let text = str::from_utf8(credential).map_err(|_| Rejected::Form)?;
        let mut segments = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(Rejected::Form);
        };
        let message = credential.get(..header.len() + 1 + payload.len()).ok_or(Rejected::Form)?;
        // All three first: what is not base64url is not looked at.
        let decoded = decode(header)?;
        decode(payload)?;
        decode(signature)?;
        let header = json::object(&decoded).ok_or(Rejected::Json)?;
        let (algorithm, key_id) = judge_header(&header)?;
        Ok(Token { algorithm, key_id, message, signature, payload })
    }

    /// What it claims. To be read once the signature has been verified.
    pub fn claims(&self) -> Result<Map<String, Value>, Rejected> {
        json::object(&decode(self.payload)?).ok_or(Rejected::Json)
    }
}

fn decode(segment: &str) -> Result<Vec<u8>, Rejected> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| Rejected::Form)
}

/// Algorithm and key id. Keys in the header or at its URLs (`jwk`, `jku`, `x5c`, `x5u`) are not
/// looked at: the key is one of the configuration.
fn judge_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), Rejected> {
    // "If any of the listed extension Header Parameters are not understood and supported by the
    // recipient, then the JWS is invalid" (RFC 7515 section 4.1.11): none is.
    if header.contains_key("crit") {
        return Err(Rejected::Critical);
    }
    // An unencoded payload, a compressed one, an encrypted one.
    if ["b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err(Rejected::Header);
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Rejected::Header),
    };
    if let Some(typ) = text("typ")? {
        let typ = typ.to_ascii_lowercase();
        if !TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ)) {
            return Err(Rejected::Type);
        }
    }
    let algorithm = text("alg")?.and_then(Algorithm::named).ok_or(Rejected::Algorithm)?;
    Ok((algorithm, text("kid")?.map(str::to_owned)))
}
