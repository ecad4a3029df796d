//! Keys of tokens. A key says which algorithms it is for; a token can only name one of them. So a
//! public key is never taken for a secret (RFC 8725 section 3.1).

use super::algorithm::{Algorithm, KeyType};
use super::backend::Material;
use serde_json::Value;
use std::fmt;

/// Keys of a set.
pub const KEYS_MAX: usize = 100;
/// Bytes of a file or an answer with keys.
pub const KEYS_BYTES_MAX: usize = 256 << 10;
/// Keys that a token without a key id is tried with.
const TRIED_MAX: usize = 8;

/// What a key is known by, and restricted to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// The `kid` of its tokens.
    pub id: Option<String>,
    /// The only algorithm that it is for.
    pub algorithm: Option<Algorithm>,
}

/// A key that verifies tokens.
#[derive(PartialEq, Eq)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    material: Material,
}

impl Key {
    /// A public key in PEM.
    ///
    /// # Errors
    /// The rest of a sentence about its file, like those below.
    pub fn pem(pem: &[u8], label: Label) -> Result<Key, String> {
        Key::new(Material::pem(pem)?, label)
    }

    /// A secret, as it is.
    pub fn secret(secret: &[u8], label: Label) -> Result<Key, String> {
        Key::new(Material::secret(secret)?, label)
    }

    fn new(material: Material, label: Label) -> Result<Key, String> {
        let fit = material.key_type().algorithms();
        let algorithms = match label.algorithm {
            None => fit.to_vec(),
            Some(algorithm) if fit.contains(&algorithm) => vec![algorithm],
            Some(algorithm) => {
                let names: Vec<_> = fit.iter().map(|fits| fits.name()).collect();
                let right = if fit.is_empty() { "nothing".to_owned() } else { names.join(", ") };
                return Err(format!("{}, which is not for {}; it is for {right}", material.what(), algorithm.name()));
            }
        };
        if algorithms.is_empty() {
            return Err(format!("{}; expected at least 32 bytes (RFC 7518 section 3.2)", material.what()));
        }
        Ok(Key { id: label.id, algorithms, material })
    }

    /// A key of a set. `Ok(None)`: it is not for signatures, or of a type that is not known, which
    /// is to be ignored (RFC 7517 section 5).
    fn jwk(jwk: &Value, algorithm: Option<Algorithm>) -> Result<Option<Key>, String> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        let verifies = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !verifies || text("use").is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        let own = match text("alg").map(Algorithm::named) {
            // For another purpose, or not known here.
            Some(None) => return Ok(None),
            own => own.flatten(),
        };
        let Some(material) = Material::jwk(jwk)? else { return Ok(None) };
        let label = Label { id: text("kid").map(str::to_owned), algorithm: own.or(algorithm) };
        Key::new(material, label).map(Some)
    }

    /// `signature` is base64url.
    pub fn verifies(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && self.material.verifies(message, signature, algorithm)
    }
}

/// Neither secrets nor what they could be found by.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithms)
    }
}

/// Where a set of keys comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file of ours, which may have secrets.
    File,
    /// What anyone can read: a secret in it is none.
    Public,
}

/// Keys to choose from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// The keys of a JSON Web Key Set (RFC 7517 section 5) that verify signatures. `algorithm`: of
    /// those that do not say which.
    ///
    /// # Errors
    /// The rest of a sentence: it is no set, has no key that can be used, or too many.
    pub fn jwks(json: &[u8], algorithm: Option<Algorithm>, origin: Origin) -> Result<Keys, String> {
        if json.len() > KEYS_BYTES_MAX {
            return Err(format!("has more than {KEYS_BYTES_MAX} bytes"));
        }
        // The place in an error of the parser says nothing of the content.
        let set: Value = serde_json::from_slice(json)
            .map_err(|e| format!("is not JSON (line {}, column {})", e.line(), e.column()))?;
        let list = set.get("keys").and_then(Value::as_array).ok_or("is not a JSON Web Key Set: it has no list keys")?;
        if list.len() > KEYS_MAX {
            return Err(format!("has {} keys; at most {KEYS_MAX}", list.len()));
        }
        let (mut keys, mut why) = (Vec::new(), None);
        for jwk in list {
            match Key::jwk(jwk, algorithm) {
                Ok(Some(key)) if origin == Origin::Public && key.is_secret() => {
                    why = Some("has a secret, which anyone can read".to_owned());
                }
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(error) => why = Some(error),
            }
        }
        match (keys.is_empty(), why) {
            (false, _) => Ok(Keys(keys)),
            (true, None) => Err("has no key for signatures".to_owned()),
            (true, Some(why)) => Err(format!("has no key that can be used: one {why}")),
        }
    }

    pub fn push(&mut self, key: Key) {
        self.0.push(key);
    }

    pub fn append(&mut self, other: Keys) {
        self.0.extend(other.0);
    }

    /// A key has this id.
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Those that a token may be signed with: with its key id, or all if it has none. Keys without
    /// an id are for all tokens.
    pub fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let named = move |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        self.0.iter().filter(named).filter(move |key| key.algorithms.contains(&algorithm)).take(TRIED_MAX)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Key {
    fn is_secret(&self) -> bool {
        matches!(self.material.key_type(), KeyType::Secret(_))
    }
}
