//! Stickiness by a cookie: a client comes back to the endpoint that it had. The cookie holds a
//! keyed hash of the endpoint's URL: it says nothing about the endpoint to others, and cannot be
//! made up.

use aws_lc_rs::{hmac, rand};

/// The cookie that an upstream sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    pub cookie: String,
    /// The key of the hash; without one it is random, and cookies end with the process.
    pub secret: Option<String>,
    pub path: String,
    pub same_site: SameSite,
    /// Seconds; `None` for as long as the browser runs.
    pub max_age_s: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Lax,
    Strict,
    /// Browsers require Secure beside it.
    None,
}

impl SameSite {
    pub const ALL: [SameSite; 3] = [SameSite::Lax, SameSite::Strict, SameSite::None];

    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            SameSite::Lax => "lax",
            SameSite::Strict => "strict",
            SameSite::None => "none",
        }
    }
}

impl Sticky {
    /// The value of Set-Cookie that names the endpoint with this id (RFC 6265 section 4.1).
    /// `secure`: the client came over TLS.
    pub fn set_cookie(&self, id: &str, secure: bool) -> String {
        let mut text =
            format!("{}={id}; Path={}; HttpOnly; SameSite={}", self.cookie, self.path, self.same_site.name());
        if let Some(seconds) = self.max_age_s {
            text += &format!("; Max-Age={seconds}");
        }
        if secure || self.same_site == SameSite::None {
            text += "; Secure";
        }
        text
    }
}

/// Makes the ids of endpoints.
#[derive(Debug)]
pub(super) struct Namer(hmac::Key);

impl Namer {
    /// With the secret of the configuration; without one, a random key.
    pub fn new(secret: Option<&str>) -> Option<Namer> {
        match secret {
            Some(secret) => Some(Namer(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))),
            None => hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok().map(Namer),
        }
    }

    /// 128 bits of the hash of a URL, in hexadecimal.
    pub fn id(&self, url: &str) -> String {
        let tag = hmac::sign(&self.0, url.as_bytes());
        crate::text::hex(tag.as_ref().get(..16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_the_secret_and_show_no_address() {
        let (one, other) = (Namer::new(Some("a")).unwrap(), Namer::new(Some("b")).unwrap());
        let id = one.id("ws://10.0.0.1:9000");
        assert_eq!(id, Namer::new(Some("a")).unwrap().id("ws://10.0.0.1:9000"));
        assert!(id != other.id("ws://10.0.0.1:9000") && id != one.id("ws://10.0.0.2:9000"));
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(Namer::new(None).unwrap().id("x"), Namer::new(None).unwrap().id("x"));
    }

    #[test]
    fn cookies_are_for_the_server_alone() {
        let sticky =
            |same_site, max_age_s| Sticky { cookie: "fg".into(), secret: None, path: "/".into(), same_site, max_age_s };
        assert_eq!(sticky(SameSite::Lax, None).set_cookie("1f", false), "fg=1f; Path=/; HttpOnly; SameSite=lax");
        let secure = "fg=1f; Path=/; HttpOnly; SameSite=none; Max-Age=60; Secure";
        assert_eq!(sticky(SameSite::None, Some(60)).set_cookie("1f", false), secure);
    }
}
