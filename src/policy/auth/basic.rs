//! Basic authentication (RFC 7617): users with passwords, of which a file has the hashes. Verifying
//! a password takes too long for a loop: it is a question to a service (`crate::passwords`).

use super::password::PasswordHash;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Users of a file.
pub const USERS_MAX: usize = 10_000;
/// Bytes of a file.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a name, and of a password.
const NAME_BYTES: usize = 255;
const PASSWORD_BYTES: usize = 1024;

/// The users of a method.
#[derive(Default, PartialEq, Eq)]
pub struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    /// Of the whole file: what was verified with another one does not count.
    digest: [u8; 32],
}

/// A user name and a password, as they were sent.
#[derive(PartialEq, Eq)]
pub struct Login {
    users: Arc<Users>,
    pub name: String,
    password: Vec<u8>,
}

impl Users {
    /// `name:hash` on each line; empty lines and those with `#` are skipped.
    ///
    /// # Errors
    /// The rest of a sentence about the file, with the number of the line.
    pub fn parse(text: &str) -> Result<Users, String> {
        let mut hashes = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {}: {why}", number + 1);
            let (name, hash) = line.split_once(':').ok_or_else(|| wrong("has no colon; expected name:hash"))?;
            if !is_name(name) {
                return Err(wrong("has no valid name before the colon"));
            }
            let hash = PasswordHash::new(hash).map_err(|why| wrong(&why))?;
            if hashes.insert(name.to_owned(), hash).is_some() {
                return Err(wrong("has a name that an earlier line has"));
            }
        }
        match hashes.len() {
            0 => Err("has no users".to_owned()),
            1..=USERS_MAX => Ok(Users { digest: digest_of(&hashes), hashes }),
            many => Err(format!("has {many} users; at most {USERS_MAX}")),
        }
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn digest_of(hashes: &BTreeMap<String, PasswordHash>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, hash) in hashes {
        for part in [name.as_bytes(), hash.as_bytes()] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl Login {
    /// Of the credential behind `Basic`. `None` if it is malformed: not base64, without a colon, or
    /// with control characters, which "MUST NOT" be there.
    pub fn parse(credential: &[u8], users: &Arc<Users>) -> Option<Login> {
        let decoded = STANDARD.decode(credential).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, password) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
        let name = str::from_utf8(name).ok().filter(|name| is_name(name))?;
        let fits = password.len() <= PASSWORD_BYTES && !password.iter().any(u8::is_ascii_control);
        fits.then(|| Login { users: Arc::clone(users), name: name.to_owned(), password: password.to_owned() })
    }

    /// Whether the password is that of the user. Takes as long for users that there are not.
    pub fn is_valid(&self) -> bool {
        match self.users.hashes.get(&self.name) {
            Some(hash) => hash.verifies(&self.password),
            None => {
                // The time must not tell which names exist.
                let other = self.users.hashes.values().next();
                std::hint::black_box(other.map(|hash| hash.verifies(&self.password)));
                false
            }
        }
    }

    /// What a result depends on, for a keyed hash: the parts and their lengths.
    pub fn parts(&self) -> [&[u8]; 3] {
        [&self.users.digest, self.name.as_bytes(), &self.password]
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.hashes.len())
    }
}

/// Without the password, also where a question is shown.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.name)
    }
}

#[cfg(feature = "basic")]
#[cfg(test)]
mod tests {
    use super::*;

    /// `open sesame`, by bcrypt with cost 4 and by argon2id with 64 KiB.
    fn hashes() -> [String; 2] {
        use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
        let params = Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::default(), params);
        let argon2 = argon2.hash_password_with_salt(b"open sesame", b"0123456789abcdef").unwrap();
        [bcrypt::hash_with_salt("open sesame", 4, [7; 16]).unwrap().to_string(), argon2.to_string()]
    }

    fn login(users: &Arc<Users>, text: &str) -> Option<Login> {
        Login::parse(STANDARD.encode(text).as_bytes(), users)
    }

    #[test]
    fn passwords_of_both_kinds_are_verified() {
        let [bcrypt, argon2] = hashes();
        let users = Arc::new(Users::parse(&format!("# people\n\na:{bcrypt}\nb c\u{e9}:{argon2}\n")).unwrap());
        assert_eq!(users.len(), 2);
        for (text, valid) in [
            ("a:open sesame", Some(true)),
            ("b c\u{e9}:open sesame", Some(true)),
            ("a:open sesam", Some(false)),
            ("a:open sesame ", Some(false)),
            ("a:", Some(false)),
            ("A:open sesame", Some(false)),
            ("c:open sesame", Some(false)),
            ("a:open:sesame", Some(false)),
            ("open sesame", None),
            (":open sesame", None),
            ("a\n:open sesame", None),
            ("a:open\0sesame", None),
            ("a:open sesame\u{7f}", None),
            ("", None),
        ] {
            assert_eq!(login(&users, text).map(|login| login.is_valid()), valid, "{text:?}");
        }
        // bcrypt knows 72 bytes of a password: the rest must not be forgotten.
        let long = "x".repeat(72);
        let hash = bcrypt::hash_with_salt(&long, 4, [7; 16]).unwrap();
        let users = Arc::new(Users::parse(&format!("a:{hash}")).unwrap());
        assert_eq!(login(&users, &format!("a:{long}y")).map(|login| login.is_valid()), Some(false));
        assert!(login(&users, &format!("a:{}", "x".repeat(1025))).is_none());
        for malformed in ["", "a", "YTpi\n", "YTpi YTpi", "YTpi=", "YTp", "\u{ff0e}"] {
            assert!(Login::parse(malformed.as_bytes(), &users).is_none(), "{malformed:?}");
        }
    }

    #[test]
    fn wrong_lines_are_named_without_their_hash() {
        let [bcrypt, argon2] = hashes();
        for (text, why) in [
            (String::new(), "has no users"),
            ("s3cret".into(), "line 1: has no colon; expected name:hash"),
            ("\n:s3cret".into(), "line 2: has no valid name before the colon"),
            ("a:s3cret".into(), "line 1: is neither bcrypt nor argon2; make it with: htpasswd -B"),
            ("a:$apr1$s3cret$lZL6V/ci.eIMz/iKDkNtU/".into(), "line 1: is neither bcrypt nor argon2"),
            ("a:{SHA}s3cret=".into(), "line 1: is neither bcrypt nor argon2"),
            ("a:$6$s3cret$x".into(), "line 1: is neither bcrypt nor argon2"),
            ("a:$2y$05$s3cret".into(), "line 1: is not a complete bcrypt hash"),
            (format!("a:{}", bcrypt.replace("$04$", "$15$")), "line 1: has the bcrypt cost 15; expected 4 to 14"),
            ("a:$argon2id$s3cret".into(), "line 1: is not a complete argon2 hash"),
            ("a:$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc".into(), "line 1: is not a complete argon2 hash"),
            (format!("a:{}", argon2.replace("m=64", "m=1048576")), "line 1: needs more than 262144 KiB"),
            (format!("a:{}", argon2.replace("t=1", "t=99")), "line 1: needs more than 262144 KiB or 16 passes"),
            (format!("a:{bcrypt}\na:{argon2}"), "line 2: has a name that an earlier line has"),
        ] {
            let error = Users::parse(&text).unwrap_err();
            assert!(error.starts_with(why), "{why}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn no_text_for_people_holds_a_password_or_a_hash() {
        let [bcrypt, argon2] = hashes();
        let users = Arc::new(Users::parse(&format!("a:{bcrypt}\nb:{argon2}")).unwrap());
        let login = login(&users, "a:s3cret").unwrap();
        let text = format!("{users:?} {users:#?} {login:?} {login:#?} {:?}", users.hashes);
        assert!(!text.contains("s3cret") && !text.contains(&bcrypt[20..]) && !text.contains("115, 51"), "{text}");
        assert_ne!(Users::parse(&format!("a:{bcrypt}")).unwrap(), *users, "a reload sees the change");
    }
}
