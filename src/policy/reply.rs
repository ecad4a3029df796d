//! Responses of a route's own: a fixed one, or a redirect. No upstream is asked.

use super::headers;
use super::template::{Part, Template, Variable, Variables};
use crate::proto::end::Cause;
use crate::proto::http1::{FieldEdits, Reply};
use crate::proto::interface::Refusal;
use std::sync::Arc;

/// A fixed response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Content-Type among them.
    pub headers: Vec<(String, Template)>,
    pub body: Arc<[u8]>,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// One of [`Redirect::STATUSES`].
    pub status: u16,
    /// An absolute URL, or a path with its slash.
    pub location: Template,
}

/// What is wrong with a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocationFault {
    /// Neither `http://`, `https://` nor a slash at its start.
    NotAbsolute,
    /// Two slashes at its start, after which a host follows.
    NetworkPath,
    /// The authority of the URL is empty, or holds a variable other than `{host}`: a client would
    /// choose where it leads.
    Authority,
    /// A character that no URL may hold.
    Character,
}

impl Respond {
    pub fn refusal(&self, variables: &Variables<'_>) -> Refusal {
        let mut fields = FieldEdits::new();
        for (name, value) in &self.headers {
            headers::add(&mut fields, name, value, variables);
        }
        let reply = Reply { status: self.status, fields, body: Arc::clone(&self.body) };
        Refusal { reply: Some(Box::new(reply)), ..Cause::Responded.into() }
    }
}

impl Redirect {
    pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

    /// Judges a location: no request can make it lead to a host that it does not name.
    pub fn judge(location: &Template) -> Result<(), LocationFault> {
        let allowed = |byte: u8| matches!(byte, b'!'..=b'~') && !b"\"<>\\^`{|}".contains(&byte);
        if !location.texts().all(|text| text.bytes().all(allowed)) {
            return Err(LocationFault::Character);
        }
        let rest = match location.parts() {
            [Part::Text(text), rest @ ..] => {
                if text.starts_with("//") {
                    return Err(LocationFault::NetworkPath);
                }
                let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
                match url {
                    Some(authority) => return judge_authority(authority, rest),
                    None if text.starts_with('/') => return Ok(()),
                    None => return Err(LocationFault::NotAbsolute),
                }
            }
            parts => parts,
        };
        match rest {
            // It begins with a slash.
            [Part::Variable(Variable::Path), ..] => Ok(()),
            _ => Err(LocationFault::NotAbsolute),
        }
    }

    pub fn refusal(&self, variables: &Variables<'_>) -> Refusal {
        let location = self.location.target(variables);
        // `//host` is a host to a browser, whatever put the slashes there.
        let location = match location.strip_prefix('/') {
            Some(rest) => format!("/{}", rest.trim_start_matches('/')),
            None => location,
        };
        let mut fields = FieldEdits::new();
        fields.add("Location", location.into_bytes());
        fields.add("Content-Type", b"text/plain; charset=utf-8".to_vec());
        let reply = Reply { status: self.status, fields, body: Arc::from(&b"Redirecting.\n"[..]) };
        Refusal { reply: Some(Box::new(reply)), ..Cause::Redirected.into() }
    }
}

/// The authority ends at a slash, a `?` or a `#`; path and query begin with one of these, so that
/// their variables end it, too.
fn judge_authority(first: &str, rest: &[Part]) -> Result<(), LocationFault> {
    let is_end = |c: char| matches!(c, '/' | '?' | '#');
    let mut named = !first.is_empty() && !first.starts_with(is_end);
    if first.contains(is_end) {
        return if named { Ok(()) } else { Err(LocationFault::Authority) };
    }
    for part in rest {
        match part {
            Part::Variable(Variable::Host) => named = true,
            Part::Variable(Variable::Path | Variable::Query) if named => return Ok(()),
            Part::Variable(_) => return Err(LocationFault::Authority),
            Part::Text(text) if text.starts_with(is_end) => {
                return if named { Ok(()) } else { Err(LocationFault::Authority) };
            }
            Part::Text(text) => {
                named = true;
                if text.contains(is_end) {
                    return Ok(());
                }
            }
        }
    }
    if named { Ok(()) } else { Err(LocationFault::Authority) }
}
