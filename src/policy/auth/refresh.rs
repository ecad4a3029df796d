//! The end of credentials while a session lives: the warning before it, and new credentials that
//! the client sends in a message of its own. Those messages are recognised by their first
//! bytes (`proto/relay/intercept.rs`); what they say, and what follows, is decided here.

use super::super::Facts;
use super::super::ask::{Answers, Check, Question};
use super::{Auth, Identity, Judgement, Revoked, json};
use crate::proto::Millis;
use crate::proto::end::Cause;
use crate::proto::settings::REFRESH_SEEN_MAX;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A session may ask for a judgement of new credentials this often.
pub const REFRESH_INTERVAL_MS: Millis = 1_000;
/// Bytes of a message of ours, as it is configured.
pub const TEXT_MAX: usize = 1_024;

/// What stands for the seconds that are left.
const SECONDS: &str = "{seconds}";
/// What stands for the credential.
const STAR: &str = "*";

/// What a route does when the credentials of its sessions are about to end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    pub warning: Option<Warning>,
    pub refresh: Option<Refresh>,
}

/// A message for the client before its credentials end.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning {
    pub before_ms: Millis,
    /// `{seconds}` stands for what is left.
    pub text: String,
}

impl Warning {
    pub fn text(&self, left_ms: Millis) -> String {
        self.text.replace(SECONDS, &(left_ms.saturating_add(500) / 1_000).to_string())
    }
}

/// Messages of the client with new credentials, and what it hears of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Refresh {
    pub form: Form,
    pub accepted: Option<Arc<str>>,
    pub refused: Option<Arc<str>>,
}

/// Where the credential stands in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Between these.
    Text { before: String, after: String },
    /// In a JSON object that has at least these members, behind `before`: the string `*` stands for
    /// it.
    Json { before: String, object: Value },
}

impl Form {
    /// `AUTH *`, or `{"type":"auth","token":"*"}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Form, &'static str> {
        let mut parts = text.split(STAR);
        let (Some(before), Some(after), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err("needs one \"*\", which stands for the credential");
        };
        if !text.starts_with('{') {
            return match before.len() {
                0 => Err("needs something before \"*\", by which such messages are known"),
                1..=PREFIX_MAX => Ok(Form::Text { before: before.to_owned(), after: after.to_owned() }),
                _ => Err("has more than 128 bytes before \"*\""),
            };
        }
        let object = json::object(text.as_bytes()).map(Value::Object);
        let object = object.ok_or("begins like a JSON object, and is none")?;
        if find(&object, &object).is_none_or(|star| star != Some(STAR)) {
            return Err("needs \"*\" as a string of its own, which stands for the credential");
        }
        if before.contains('\\') {
            return Err("must have no backslash before \"*\"");
        }
        let before = without_space(before);
        if before.len() > PREFIX_MAX {
            Err("has more than 128 bytes before \"*\"")
        } else {
            Ok(Form::Json { before, object })
        }
    }

    /// What such messages begin with.
    pub fn prefix(&self) -> &str {
        match self {
            Form::Text { before, .. } | Form::Json { before, .. } => before,
        }
    }

    pub fn is_json(&self) -> bool {
        matches!(self, Form::Json { .. })
    }

    /// The credential in a message that begins so; `None` where it is not of this form, or holds
    /// what cannot stand in a header field.
    pub fn credential(&self, message: &[u8]) -> Option<Vec<u8>> {
        let credential = match self {
            Form::Text { before, after } => {
                message.strip_prefix(before.as_bytes())?.strip_suffix(after.as_bytes())?.to_vec()
            }
            Form::Json { object, .. } => {
                let message = Value::Object(json::object(message)?);
                find(object, &message)??.as_bytes().to_vec()
            }
        };
        let sound = |byte: &u8| *byte >= b' ' && *byte != 0x7f;
        (!credential.is_empty() && credential.iter().all(sound)).then_some(credential)
    }
}

/// Bytes before the credential. With white space between them, as many again are looked at.
const PREFIX_MAX: usize = REFRESH_SEEN_MAX / 2;

/// Whether `value` has everything that `form` has; and the string at the place of `*`, if that is
/// in it.
fn find<'a>(form: &Value, value: &'a Value) -> Option<Option<&'a str>> {
    match (form, value) {
        (Value::String(star), Value::String(value)) if star == STAR => Some(Some(value)),
        (Value::Object(form), Value::Object(value)) => {
            let mut found = None;
            for (name, form) in form {
                found = found.or(find(form, value.get(name)?)?);
            }
            Some(found)
        }
        (form, value) => (form == value).then_some(None),
    }
}

/// JSON without the white space outside of its strings. There is no backslash in it.
fn without_space(json: &str) -> String {
    let mut quoted = false;
    let kept = |c: &char| {
        quoted ^= *c == '"';
        quoted || !c.is_ascii_whitespace()
    };
    json.chars().filter(kept).collect()
}

/// What follows from new credentials.
#[derive(Debug)]
pub enum Refreshed {
    /// The session goes on with them.
    Extended(Identity),
    /// They are not valid: it goes on with those that it has.
    Refused,
    /// It ends.
    Ended(Cause),
    /// This must be asked first.
    Ask(Check),
}

impl Auth {
    /// Judges [`Facts::shown`] as the credentials of a session whose client is known.
    pub fn refresh(&self, client: &Identity, facts: &Facts<'_>, (answers, revoked): (&Answers, &Revoked)) -> Refreshed {
        match self.judge(facts, answers) {
            Judgement::Granted(identity) if revoked.covers(&identity, facts.now) => Refreshed::Ended(Cause::Revoked),
            Judgement::Granted(identity) if identity.is_of(client) => Refreshed::Extended(identity),
            Judgement::Granted(_) => Refreshed::Ended(Cause::CredentialsChanged),
            Judgement::Refused(refusal) if refusal.cause == Cause::NotPermitted => {
                Refreshed::Ended(Cause::CredentialsChanged)
            }
            Judgement::Refused(_) => Refreshed::Refused,
            Judgement::Ask(check) => Refreshed::Ask(check),
        }
    }
}

/// What a worker remembers of a session that has sent new credentials.
#[derive(Default)]
pub struct Refreshing {
    /// While they are judged.
    credential: Option<Vec<u8>>,
    /// What was asked about them.
    question: Option<Question>,
    /// Others are not judged before.
    next_at: Millis,
}

impl Refreshing {
    /// New credentials have come. `false`: others are being judged, or the last were a moment ago.
    pub fn may_begin(&mut self, now: Millis) -> bool {
        let may = self.credential.is_none() && now >= self.next_at;
        if may {
            self.next_at = now + REFRESH_INTERVAL_MS;
        }
        may
    }

    pub fn begin(&mut self, credential: Vec<u8>) {
        (self.credential, self.question) = (Some(credential), None);
    }

    /// What is being judged.
    pub fn credential(&self) -> Option<&[u8]> {
        self.credential.as_deref()
    }

    /// This is asked now, after what `answers` have answered.
    pub fn ask(&mut self, check: Check, answers: &Answers) {
        self.question = Some(answers.question(check));
    }

    /// What has been asked, and is not asked any more.
    pub fn take_question(&mut self) -> Option<Question> {
        self.question.take()
    }

    /// They have been judged.
    pub fn end(&mut self) {
        (self.credential, self.question) = (None, None);
    }
}

/// Without the credentials.
impl fmt::Debug for Refreshing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refreshing {{ judged: {}, next_at: {} }}", self.credential.is_some(), self.next_at)
    }
}

#[cfg(test)]
mod tests;
