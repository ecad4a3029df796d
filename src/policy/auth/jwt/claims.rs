//! What a verified token must claim (RFC 7519 section 4.1), and who its bearer is.

use super::super::identity::{Identity, claim_at};
use super::token::Rejected;
use serde_json::{Map, Value};

/// The last second of the year 9999: a time beyond it is an error, most often milliseconds.
const LAST_S: f64 = 253_402_300_799.0;
/// Bytes of a subject: it stands in logs and headers.
const SUBJECT_BYTES: usize = 1024;

/// The rules of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `iss` is one of these; empty: it is not looked at.
    pub issuers: Vec<String>,
    pub audience: Audience,
    /// How far clocks may differ.
    pub leeway_s: u32,
    /// A token without `exp` is refused.
    pub expiry_required: bool,
    /// Claims, by their paths.
    pub required: Vec<(String, Wanted)>,
    /// Paths of the claims that say who it is, and which roles it has.
    pub subject: String,
    pub roles: String,
}

/// Whom a token may be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Its `aud` is not looked at.
    Any,
    /// `aud` names one of these. If there are none, a token with an `aud` is for others: "if the
    /// principal does not identify itself with a value in the "aud" claim when this claim is
    /// present, then the JWT MUST be rejected" (RFC 7519 section 4.1.3).
    OneOf(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The claim is there, and not null.
    Present,
    /// It is one of these, or a list with one of them.
    OneOf(Vec<Value>),
}

impl Rules {
    /// The bearer of a token with these claims.
    pub fn judge(&self, claims: Map<String, Value>, unix_ms: u64) -> Result<Identity, Rejected> {
        let expires_s = self.judge_times(&claims, unix_ms)?;
        self.judge_issuer(&claims)?;
        self.judge_audience(&claims)?;
        for (path, wanted) in &self.required {
            let value = claim_at(&claims, path).filter(|value| !value.is_null()).ok_or(Rejected::Required)?;
            if !wanted.accepts(value) {
                return Err(Rejected::Required);
            }
        }
        let subject = claim_at(&claims, &self.subject).and_then(Value::as_str).ok_or(Rejected::Claim("subject"))?;
        let fits = (1..=SUBJECT_BYTES).contains(&subject.len()) && !subject.chars().any(char::is_control);
        if !fits {
            return Err(Rejected::Claim("subject"));
        }
        let mut scopes = words(claims.get("scope")).ok_or(Rejected::Claim("scope"))?;
        scopes.extend(words(claims.get("scp")).ok_or(Rejected::Claim("scp"))?);
        let roles = match claim_at(&claims, &self.roles) {
            // A role may have spaces.
            Some(Value::String(role)) => vec![role.clone()],
            roles => words(roles).ok_or(Rejected::Claim("roles"))?,
        };
        let token_id = match claims.get("jti") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Rejected::Claim("jti")),
        };
        Ok(Identity {
            subject: subject.to_owned(),
            token_id,
            scopes,
            roles,
            expires_unix_ms: expires_s.map(|seconds| millis(seconds + f64::from(self.leeway_s))),
            claims,
            ..Identity::default()
        })
    }

    /// When it expires, in seconds.
    fn judge_times(&self, claims: &Map<String, Value>, unix_ms: u64) -> Result<Option<f64>, Rejected> {
        let (expires, begins, issued) = (time(claims, "exp")?, time(claims, "nbf")?, time(claims, "iat")?);
        let leeway = f64::from(self.leeway_s);
        match expires {
            None if self.expiry_required => return Err(Rejected::Claim("exp")),
            // "On or after which the JWT MUST NOT be accepted".
            Some(expires) if millis(expires + leeway) <= unix_ms => return Err(Rejected::Expired),
            _ => {}
        }
        if begins.is_some_and(|begins| millis(begins) > unix_ms.saturating_add(millis(leeway))) {
            return Err(Rejected::NotYet);
        }
        if issued.is_some_and(|issued| millis(issued) > unix_ms.saturating_add(millis(leeway))) {
            return Err(Rejected::IssuedLater);
        }
        Ok(expires)
    }

    fn judge_issuer(&self, claims: &Map<String, Value>) -> Result<(), Rejected> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer),
            Some(_) => return Err(Rejected::Claim("iss")),
        };
        match self.issuers.is_empty() || issuer.is_some_and(|issuer| self.issuers.contains(issuer)) {
            true => Ok(()),
            false => Err(Rejected::Issuer),
        }
    }

    fn judge_audience(&self, claims: &Map<String, Value>) -> Result<(), Rejected> {
        // A list, or one string in place of a list of one.
        let named: Vec<&str> = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => {
                let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
                texts.ok_or(Rejected::Claim("aud"))?
            }
            Some(_) => return Err(Rejected::Claim("aud")),
        };
        let fits = match &self.audience {
            Audience::Any => true,
            Audience::OneOf(ours) if ours.is_empty() => !claims.contains_key("aud"),
            Audience::OneOf(ours) => named.iter().any(|name| ours.iter().any(|our| our == name)),
        };
        if fits { Ok(()) } else { Err(Rejected::Audience) }
    }
}

impl Wanted {
    fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Wanted::Present, _) => true,
            (Wanted::OneOf(wanted), Value::Array(list)) => list.iter().any(|one| wanted.contains(one)),
            (Wanted::OneOf(wanted), value) => wanted.contains(value),
        }
    }
}

/// A NumericDate, in seconds (RFC 7519 section 2).
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Rejected> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_S).contains(seconds));
    seconds.map(Some).ok_or(Rejected::Claim(name))
}

/// Of seconds between 0 and the year 10000.
fn millis(seconds: f64) -> u64 {
    // Not negative, and far below 2^53: the cast neither saturates nor rounds by more than one.
    (seconds * 1000.0) as u64
}

/// Words in a string (RFC 6749 section 3.3), or a list of strings. `None` if it is something else.
fn words(value: Option<&Value>) -> Option<Vec<String>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::String(text)) => Some(text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()),
        Some(Value::Array(list)) => list.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}
