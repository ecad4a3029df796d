//! The algorithms of signatures, and what kind of key each is for.

/// How tokens are signed (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};

/// The algorithms by their names, whose case counts.
pub const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Hs256),
    ("HS384", Hs384),
    ("HS512", Hs512),
    ("RS256", Rs256),
    ("RS384", Rs384),
    ("RS512", Rs512),
    ("PS256", Ps256),
    ("PS384", Ps384),
    ("PS512", Ps512),
    ("ES256", Es256),
    ("ES384", Es384),
    ("EdDSA", EdDsa),
];

impl Algorithm {
    pub fn named(name: &str) -> Option<Algorithm> {
        ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    pub fn name(self) -> &'static str {
        ALGORITHMS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "jwt"), allow(dead_code))] // a build without tokens has no keys
pub enum KeyType {
    /// With this many bytes.
    Secret(usize),
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeyType {
    /// What it can verify. "A key of the same size as the hash output or larger MUST be used" (RFC
    /// 7518 section 3.2).
    pub fn algorithms(self) -> &'static [Algorithm] {
        match self {
            KeyType::Secret(64..) => &[Hs256, Hs384, Hs512],
            KeyType::Secret(48..) => &[Hs256, Hs384],
            KeyType::Secret(32..) => &[Hs256],
            KeyType::Secret(_) => &[],
            KeyType::Rsa => &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512],
            KeyType::P256 => &[Es256],
            KeyType::P384 => &[Es384],
            KeyType::Ed25519 => &[EdDsa],
        }
    }
}
