//! Hashes of passwords: bcrypt, and argon2 in the PHC string format. A build without the feature
//! `basic` reads none. Verifying takes tens of milliseconds, on purpose: no loop does it.

use std::fmt;

/// A hash of one password.
#[derive(PartialEq, Eq)]
pub struct PasswordHash {
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bcrypt,
    Argon2,
}

impl PasswordHash {
    /// # Errors
    /// The rest of a sentence about a line of a file. It does not have the hash in it.
    pub fn new(text: &str) -> Result<PasswordHash, String> {
        let kind = match text {
            _ if text.starts_with("$argon2") => Kind::Argon2,
            _ if ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| text.starts_with(prefix)) => Kind::Bcrypt,
            _ => return Err("is neither bcrypt nor argon2; make it with: htpasswd -B -n USER".to_owned()),
        };
        backend::check(kind, text)?;
        Ok(PasswordHash { kind, text: text.to_owned() })
    }

    /// Whether this is its password. Takes long, and for argon2 memory.
    pub fn verifies(&self, password: &[u8]) -> bool {
        backend::verifies(self.kind, &self.text, password)
    }

    /// For a digest of a whole file.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// A hash can be guessed at, and does not belong in a log.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({:?})", self.kind)
    }
}

#[cfg(feature = "basic")]
mod backend {
    use super::Kind;
    use argon2::password_hash::{PasswordVerifier, phc};
    use argon2::{Argon2, Params};

    /// Each step more takes twice as long: 14 is about a second.
    const BCRYPT_COST_MAX: u32 = 14;
    const ARGON2_KIB_MAX: u32 = 256 << 10;
    const ARGON2_PASSES_MAX: u32 = 16;

    pub fn check(kind: Kind, text: &str) -> Result<(), String> {
        match kind {
            Kind::Bcrypt => {
                let parts: bcrypt::HashParts = text.parse().map_err(|_| "is not a complete bcrypt hash")?;
                match parts.get_cost() {
                    4..=BCRYPT_COST_MAX => Ok(()),
                    cost => Err(format!("has the bcrypt cost {cost}; expected 4 to {BCRYPT_COST_MAX}")),
                }
            }
            Kind::Argon2 => {
                let hash = phc::PasswordHash::new(text).map_err(|_| "is not a complete argon2 hash")?;
                let params = Params::try_from(&hash).map_err(|_| "has parameters that argon2 does not take")?;
                let is_known = ["argon2d", "argon2i", "argon2id"].contains(&hash.algorithm.as_str());
                if !is_known || hash.hash.is_none() || hash.salt.is_none() {
                    return Err("is not a complete argon2 hash".to_owned());
                }
                match params.m_cost() <= ARGON2_KIB_MAX && params.t_cost() <= ARGON2_PASSES_MAX {
                    true => Ok(()),
                    false => Err(format!("needs more than {ARGON2_KIB_MAX} KiB or {ARGON2_PASSES_MAX} passes")),
                }
            }
        }
    }

    pub fn verifies(kind: Kind, text: &str, password: &[u8]) -> bool {
        match kind {
            // Not truncating: of a longer password the rest would not count.
            Kind::Bcrypt => bcrypt::non_truncating_verify(password, text).unwrap_or(false),
            Kind::Argon2 => phc::PasswordHash::new(text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

#[cfg(not(feature = "basic"))]
mod backend {
    use super::Kind;

    pub fn check(_: Kind, _: &str) -> Result<(), String> {
        Err("cannot be read: this build has no passwords (feature \"basic\")".to_owned())
    }

    /// There are no hashes to verify with.
    pub fn verifies(_: Kind, _: &str, _: &[u8]) -> bool {
        false
    }
}
