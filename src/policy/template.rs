//! Templates: text with variables in braces, parsed when the configuration is read, rendered for a
//! request. `{{` and `}}` are literal braces. What a client sends can end up in a value, so the
//! form decides how: in a target everything that is not part of a path or a query already is
//! percent-encoded, in a field value it is left to [`FieldEdits`] that no byte begins a line.
//!
//! [`FieldEdits`]: crate::proto::http1::FieldEdits

use super::Facts;
use super::auth::Identity;
use super::lookup;
use super::matching::Captures;
use super::path::normal_host;
use crate::proto::http1::{Request, values};

/// A parsed template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// As written.
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Variable(Variable),
}

/// What stands for a part of a request. One that the request does not have renders as nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The address of the client ([`Facts::client`]).
    ClientIp,
    Method,
    /// In lower case, without port.
    Host,
    /// As the client wrote it, without query.
    Path,
    /// `?query` with its question mark, as the client wrote it.
    Query,
    RequestId,
    /// The name of the route.
    Route,
    /// Subject and SHA-256 of the certificate that the client has shown.
    TlsSubject,
    TlsSha256,
    /// Who the client is: the subject of its credentials.
    Identity,
    /// A claim of its credentials, by its path.
    Claim(String),
    /// The first query parameter of that name, decoded.
    Parameter(String),
    /// All header fields of that name, joined by `, `.
    Header(String),
    /// The first cookie of that name, as written.
    Cookie(String),
    /// A name in the path of the route, as the client wrote it.
    Capture(String),
    /// A group of the route's pattern; 0 is the whole match.
    Group(usize),
}

/// The variables of one word.
const WORDS: [(&str, Variable); 10] = [
    ("client_ip", Variable::ClientIp),
    ("method", Variable::Method),
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("request_id", Variable::RequestId),
    ("route", Variable::Route),
    ("tls.subject", Variable::TlsSubject),
    ("tls.sha256", Variable::TlsSha256),
    ("identity", Variable::Identity),
];

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A `{` without its `}`.
    Unclosed,
    /// A `}` without its `{`.
    Unopened,
    /// No variable is called so.
    Unknown(String),
}

/// The names that a template may use beside those of every request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// The names in the path of the route.
    pub captures: &'a [&'a str],
    /// The groups of the pattern whose matches it replaces, by number, with their names.
    pub groups: &'a [Option<String>],
}

impl Names<'_> {
    /// The variable called `name`: those of every request first, then the groups of the pattern,
    /// then the names in the path of the route.
    fn variable(&self, name: &str) -> Option<Variable> {
        if let Some((_, variable)) = WORDS.iter().find(|(word, _)| *word == name) {
            return Some(variable.clone());
        }
        match name.split_once('.') {
            Some((_, "")) => None,
            Some(("query", of)) => Some(Variable::Parameter(of.to_owned())),
            Some(("header", of)) => Some(Variable::Header(of.to_owned())),
            Some(("cookie", of)) => Some(Variable::Cookie(of.to_owned())),
            Some(("claim", of)) => Some(Variable::Claim(of.to_owned())),
            Some(("path", of)) => self.capture(of),
            Some(_) => None,
            None => self.group(name).or_else(|| self.capture(name)),
        }
    }

    fn capture(&self, name: &str) -> Option<Variable> {
        self.captures.contains(&name).then(|| Variable::Capture(name.to_owned()))
    }

    fn group(&self, name: &str) -> Option<Variable> {
        let index = match name.bytes().all(|byte| byte.is_ascii_digit()) {
            true => name.parse().ok(),
            false => self.groups.iter().position(|known| known.as_deref() == Some(name)),
        };
        index.filter(|index| *index < self.groups.len()).map(Variable::Group)
    }

    /// All names, for a message: those of a prefix with a placeholder.
    pub fn all(&self) -> Vec<String> {
        let mut names: Vec<String> = WORDS.iter().map(|(word, _)| (*word).to_owned()).collect();
        names.extend(["query.NAME", "header.NAME", "cookie.NAME", "claim.NAME"].map(str::to_owned));
        names.extend(self.groups.iter().flatten().cloned());
        let hidden = |name: &str| is_word(name) || self.groups.iter().flatten().any(|group| group == name);
        let capture = |name: &&str| if hidden(name) { format!("path.{name}") } else { (*name).to_owned() };
        names.extend(self.captures.iter().map(capture));
        names
    }
}

/// Whether `name` is that of a variable of every request, which a group or capture of that name
/// cannot be reached by.
pub fn is_word(name: &str) -> bool {
    WORDS.iter().any(|(word, _)| *word == name)
}

/// What a template is rendered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A field value: every value as it is.
    Field,
    /// A path or a URL: the parts of the client's own target as they are, all others
    /// percent-encoded, so that none of their bytes separates.
    Target,
}

/// What is known of the request that a template is rendered for.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    pub facts: &'a Facts<'a>,
    /// The name of the route.
    pub route: &'a str,
    pub captures: &'a Captures,
    /// Who the client is, where the route asks for credentials.
    pub identity: Option<&'a Identity>,
}

impl Template {
    pub fn parse(text: &str, names: &Names<'_>) -> Result<Template, Fault> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let inside = brace.strip_prefix('{').ok_or(Fault::Unopened)?;
                let (name, after) = inside.split_once('}').ok_or(Fault::Unclosed)?;
                let variable = names.variable(name).ok_or_else(|| Fault::Unknown(name.to_owned()))?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Variable(variable));
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template { source: text.to_owned(), parts })
    }

    /// A template without variables.
    pub fn literal(text: &str) -> Template {
        Template { source: text.to_owned(), parts: vec![Part::Text(text.to_owned())] }
    }

    /// As written, with its variables.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text without its variables.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Variable(_) => None,
        })
    }

    /// A field value, or `None` where all that its variables stand for is empty: `Bearer
    /// {query.token}` without a token is no value. May hold any byte: [`FieldEdits::add`] has the
    /// rule for those that may not stand in one.
    ///
    /// [`FieldEdits::add`]: crate::proto::http1::FieldEdits::add
    pub fn field_value(&self, variables: &Variables<'_>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.render(variables, &|_| None, Form::Field, &mut out);
        let literal: usize = self.texts().map(str::len).sum();
        let is_fixed = !self.parts.iter().any(|part| matches!(part, Part::Variable(_)));
        (is_fixed || out.len() > literal).then_some(out)
    }

    /// A path or a URL: visible ASCII characters and nothing else, if the texts are.
    pub fn target(&self, variables: &Variables<'_>) -> String {
        let mut out = Vec::new();
        self.render(variables, &|_| None, Form::Target, &mut out);
        ascii(out)
    }

    /// What replaces one match of the pattern that the template was parsed with.
    pub fn replacement<'g>(&self, variables: &Variables<'_>, groups: &dyn Fn(usize) -> Option<&'g str>) -> String {
        let mut out = Vec::new();
        self.render(variables, groups, Form::Target, &mut out);
        ascii(out)
    }

    fn render<'g>(
        &self,
        variables: &Variables<'_>,
        groups: &dyn Fn(usize) -> Option<&'g str>,
        form: Form,
        out: &mut Vec<u8>,
    ) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(Variable::Group(index)) => {
                    out.extend_from_slice(groups(*index).unwrap_or_default().as_bytes());
                }
                Part::Variable(variable) => variables.push(variable, form, out),
            }
        }
    }
}

impl Variables<'_> {
    fn push(&self, variable: &Variable, form: Form, out: &mut Vec<u8>) {
        let Facts { request, client, cert, request_id, .. } = self.facts;
        let start = out.len();
        match variable {
            Variable::ClientIp => out.extend_from_slice(client.to_string().as_bytes()),
            Variable::Method => out.extend_from_slice(request.method.as_bytes()),
            Variable::Host => return out.extend_from_slice(normal_host(request.host).as_bytes()),
            Variable::Path => return push_path(request, out),
            Variable::Query => return out.extend_from_slice(request.query.as_bytes()),
            Variable::Capture(name) => {
                return out.extend_from_slice(self.captures.get(name).unwrap_or_default().as_bytes());
            }
            Variable::RequestId => out.extend_from_slice(request_id.as_bytes()),
            Variable::Route => out.extend_from_slice(self.route.as_bytes()),
            Variable::TlsSubject => out.extend_from_slice(cert.map_or("", |cert| cert.subject).as_bytes()),
            Variable::TlsSha256 => out.extend_from_slice(cert.map_or("", |cert| cert.sha256).as_bytes()),
            Variable::Identity => {
                out.extend_from_slice(self.identity.map_or("", |identity| &identity.subject).as_bytes());
            }
            Variable::Claim(path) => {
                let claim = self.identity.and_then(|identity| identity.claim(path));
                out.extend_from_slice(claim.unwrap_or_default().as_bytes());
            }
            Variable::Parameter(name) => {
                out.extend_from_slice(&lookup::query(request, name).unwrap_or_default());
            }
            Variable::Header(name) => {
                out.extend_from_slice(&lookup::joined(values(&request.fields, name)).unwrap_or_default());
            }
            Variable::Cookie(name) => out.extend_from_slice(lookup::cookie(request, name).unwrap_or_default()),
            // Of a pattern: only `Template::render` has the match.
            Variable::Group(_) => {}
        }
        if form == Form::Target {
            encode_from(out, start);
        }
    }
}

fn push_path(request: &Request<'_>, out: &mut Vec<u8>) {
    if !request.path.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(request.path.as_bytes());
}

/// Percent-encodes what follows `start`, but for unreserved characters (RFC 3986 section 2.3).
fn encode_from(out: &mut Vec<u8>, start: usize) {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if out.get(start..).unwrap_or_default().iter().all(is_plain) {
        return;
    }
    for byte in out.split_off(start) {
        match byte {
            byte if is_plain(&byte) => out.push(byte),
            byte => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
}

/// As text; a byte that is no visible ASCII character (none can be there) percent-encoded.
fn ascii(bytes: Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'!'..=b'~' => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests;
