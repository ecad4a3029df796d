//! JSON Web Tokens with signatures (RFC 7519, RFC 7515), and what RFC 8725 says about them. `token`
//! is their form, `key` what they are verified with, `remote` keys behind a URL, `claims` what they
//! must say, `json` how JSON is read; `backend` has the cryptography. No clock: times are judged by
//! that of the request.

#[cfg(not(feature = "jwt"))]
mod absent;
mod algorithm;
#[cfg(feature = "jwt")]
mod backend;
mod claims;
mod key;
mod remote;
mod token;

#[cfg(not(feature = "jwt"))]
use absent as backend;

pub use algorithm::{ALGORITHMS, Algorithm};
pub use claims::{Audience, Rules, Wanted};
pub use key::{KEYS_BYTES_MAX, Key, Keys, Label, Origin};
pub use remote::{REFETCH_MS, RemoteConfig, RemoteKeys};
pub use token::Rejected;

use super::identity::Identity;
use crate::proto::end::Cause;
use std::sync::Arc;
use token::Token;

/// What a method accepts.
#[derive(Debug, PartialEq, Eq)]
pub struct Jwt {
    pub keys: Keys,
    /// Further keys, behind a URL.
    pub remote: Option<Arc<RemoteKeys>>,
    pub rules: Rules,
    /// Of a token.
    pub bytes_max: usize,
}

impl Jwt {
    /// Who shows this token, at this time.
    pub fn bearer(&self, credential: &[u8], unix_ms: u64) -> Result<Identity, Rejected> {
        let token = Token::parse(credential, self.bytes_max)?;
        self.signed(&token)?;
        self.rules.judge(token.claims()?, unix_ms)
    }

    fn signed(&self, token: &Token<'_>) -> Result<(), Rejected> {
        let by_ours = signed(token, &self.keys);
        let (Err(_), Some(remote)) = (by_ours, &self.remote) else { return by_ours };
        let keys = remote.keys();
        if keys.is_empty() { Err(Rejected::NoKeys) } else { signed(token, &keys) }
    }
}

/// One of the keys has signed it.
fn signed(token: &Token<'_>, keys: &Keys) -> Result<(), Rejected> {
    let id = token.key_id.as_deref();
    let mut candidates = keys.candidates(id, token.algorithm).peekable();
    if candidates.peek().is_none() {
        let unknown = id.is_some_and(|id| !keys.has(id));
        return Err(if unknown { Rejected::UnknownKey } else { Rejected::Algorithm });
    }
    match candidates.any(|key| key.verifies(token.message, token.signature, token.algorithm)) {
        true => Ok(()),
        false => Err(Rejected::Signature),
    }
}

impl Rejected {
    pub fn cause(self) -> Cause {
        match self {
            Rejected::Expired => Cause::CredentialsExpired,
            Rejected::NoKeys => Cause::KeysUnavailable,
            _ => Cause::BadCredentials,
        }
    }
}

#[cfg(all(test, feature = "jwt"))]
mod tests;
