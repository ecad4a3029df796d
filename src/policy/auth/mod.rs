//! Credentials: what a route asks of its clients, and the judgement of what they show. Each kind of
//! credential is a file; `source` says where in a request a credential stands, `identity` who the
//! client is then. What must be asked of others, or takes long, is a [`Check`]: judgement goes on
//! with its answer.

mod api_keys;
pub mod basic;
mod identity;
pub mod jwt;
mod password;
mod revoked;
mod source;

pub use api_keys::{ApiKey, ApiKeys};
pub use identity::Identity;
pub use revoked::{REVOKED_MAX, Revoked, TooMany, Who};
pub use source::{Found, Source, redacted_target};

use super::Facts;
use super::ask::{Answer, Answers, Check};
use crate::proto::end::Cause;
use crate::proto::http1::{FieldEdits, Request};
use crate::proto::interface::Refusal;
use basic::{Login, Users};
use jwt::{Jwt, Rejected, RemoteKeys};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The scheme of all credentials that are shown as they are (RFC 6750).
const BEARER: &str = "Bearer";

/// For Retry-After, in seconds: a full queue of passwords is empty by then.
const BUSY_S: &str = "5";

/// One way to show who one is: an `[[auth]]` section.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    pub name: String,
    /// Where the credential stands; the first that has one counts.
    pub from: Vec<Source>,
    pub kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    ApiKeys(ApiKeys),
    /// The certificate that the client has shown in its TLS handshake, which the listener has
    /// verified.
    ClientCertificate,
    /// JSON Web Tokens.
    Jwt(Box<Jwt>),
    /// User names and passwords, and the realm that they are for.
    Basic {
        users: Arc<Users>,
        realm: String,
    },
}

/// What a route asks of the credentials of its requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Auth {
    pub requirement: Requirement,
    /// The client must have all of these.
    pub scopes: Vec<String>,
    pub roles: Vec<String>,
    /// Of all methods: what WWW-Authenticate says (RFC 9110 section 11.6.1).
    challenges: Vec<String>,
}

/// Methods, combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Method(Arc<Method>),
    /// The first that admits decides who the client is.
    Any(Vec<Requirement>),
    /// All of them admit; the first says who the client is.
    All(Vec<Requirement>),
}

/// The judgement of a request's credentials.
#[derive(Debug)]
pub enum Judgement {
    Granted(Identity),
    Refused(Refusal),
    /// This must be asked first.
    Ask(Check),
}

impl Judgement {
    fn refused(cause: Cause) -> Judgement {
        Judgement::Refused(cause.into())
    }
}

impl Auth {
    pub fn new(requirement: Requirement, scopes: Vec<String>, roles: Vec<String>) -> Auth {
        let mut challenges: Vec<_> = requirement.methods().iter().map(|method| method.challenge()).collect();
        challenges.sort_unstable();
        challenges.dedup();
        Auth { challenges, requirement, scopes, roles }
    }

    /// Whether the client of a request is admitted, and who it is.
    pub fn judge(&self, facts: &Facts<'_>, answers: &Answers) -> Judgement {
        match self.requirement.judge(facts, answers) {
            Judgement::Granted(identity) if !self.permits(&identity) => Judgement::refused(Cause::NotPermitted),
            Judgement::Refused(refusal) if refusal.reply.is_none() && refusal.status() == 401 => {
                let field = Some(("WWW-Authenticate", self.challenge(refusal.cause).into()));
                Judgement::Refused(Refusal { field, ..refusal })
            }
            judgement => judgement,
        }
    }

    /// A client may need a certificate to be admitted.
    pub fn asks_for_certificates(&self) -> bool {
        self.requirement.methods().iter().any(|method| method.kind == Kind::ClientCertificate)
    }

    /// "If the request lacks any authentication information, the resource server SHOULD NOT include
    /// an error code" (RFC 6750 section 3.1).
    fn challenge(&self, cause: Cause) -> String {
        let with_error = |challenge: &String| match cause {
            Cause::BadCredentials | Cause::CredentialsExpired if challenge == BEARER => {
                format!("{BEARER} error=\"invalid_token\"")
            }
            _ => challenge.clone(),
        };
        self.challenges.iter().map(with_error).collect::<Vec<_>>().join(", ")
    }

    fn permits(&self, identity: &Identity) -> bool {
        let has_all = |wanted: &[String], has: &[String]| wanted.iter().all(|wanted| has.contains(wanted));
        has_all(&self.scopes, &identity.scopes) && has_all(&self.roles, &identity.roles)
    }

    /// The query that the upstream gets: no credential stands in it.
    pub fn public_query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let methods = self.requirement.methods();
        let names: Vec<_> = methods.iter().flat_map(|method| &method.from).filter_map(Source::parameter).collect();
        source::public_query(query, &names)
    }

    /// Keeps credentials in subprotocols from the upstream.
    pub fn conceal(&self, request: &Request<'_>, edits: &mut FieldEdits, response: &mut FieldEdits) {
        let methods = self.requirement.methods();
        let sources: Vec<_> = methods.iter().flat_map(|method| &method.from).collect();
        source::conceal_protocols(&sources, request, edits, response);
    }
}

impl Requirement {
    fn judge(&self, facts: &Facts<'_>, answers: &Answers) -> Judgement {
        match self {
            Requirement::Method(method) => method.judge(facts, answers),
            Requirement::Any(parts) => any(parts, facts, answers),
            Requirement::All(parts) => all(parts, facts, answers),
        }
    }

    /// All methods in it.
    pub fn methods(&self) -> Vec<&Arc<Method>> {
        match self {
            Requirement::Method(method) => vec![method],
            Requirement::Any(parts) | Requirement::All(parts) => parts.iter().flat_map(Requirement::methods).collect(),
        }
    }
}

/// The refusal that says most: not of a method whose credentials the client does not use.
fn any(parts: &[Requirement], facts: &Facts<'_>, answers: &Answers) -> Judgement {
    let mut refused: Option<Refusal> = None;
    for part in parts {
        match part.judge(facts, answers) {
            Judgement::Refused(refusal) => {
                let says_more = refused.as_ref().is_none_or(|known| known.cause == Cause::NoCredentials);
                if says_more {
                    refused = Some(refusal);
                }
            }
            judgement => return judgement,
        }
    }
    Judgement::Refused(refused.unwrap_or_else(|| Cause::NoCredentials.into()))
}

fn all(parts: &[Requirement], facts: &Facts<'_>, answers: &Answers) -> Judgement {
    let mut both: Option<Identity> = None;
    for part in parts {
        match part.judge(facts, answers) {
            Judgement::Granted(identity) => {
                both = Some(match both {
                    None => identity,
                    Some(first) => first.and(identity),
                });
            }
            judgement => return judgement,
        }
    }
    both.map_or_else(|| Judgement::refused(Cause::NoCredentials), Judgement::Granted)
}

impl Method {
    fn judge(&self, facts: &Facts<'_>, answers: &Answers) -> Judgement {
        match &self.kind {
            Kind::ClientCertificate => match facts.cert {
                Some(cert) => Judgement::Granted(self.identity_of(cert.subject)),
                None => Judgement::refused(Cause::NoCredentials),
            },
            Kind::ApiKeys(keys) => {
                self.judge_credential(facts, |credential| keys.owner(credential).cloned().ok_or(Cause::BadCredentials))
            }
            Kind::Jwt(jwt) => self.judge_token(jwt, facts, answers),
            Kind::Basic { users, .. } => self.judge_login(users, facts, answers),
        }
    }

    /// The password is verified by a service, so that no loop waits for it.
    fn judge_login(&self, users: &Arc<Users>, facts: &Facts<'_>, answers: &Answers) -> Judgement {
        let login = match self.credential(facts.request) {
            Found::Nothing => return Judgement::refused(Cause::NoCredentials),
            Found::Several => None,
            Found::One(credential) => Login::parse(&credential, users),
        };
        let Some(login) = login else { return Judgement::refused(Cause::BadCredentials) };
        let name = login.name.clone();
        let check = Check::Password(Arc::new(login));
        match answers.get(&check) {
            None => Judgement::Ask(check),
            Some(Answer::Status(200..=299)) => Judgement::Granted(self.identity_of(&name)),
            Some(Answer::Status(_)) => Judgement::refused(Cause::BadCredentials),
            Some(Answer::Unavailable) => {
                let field = Some(("Retry-After", BUSY_S.into()));
                Judgement::Refused(Refusal { field, ..Cause::VerifierBusy.into() })
            }
        }
    }

    /// A token that names a key which is not known may be signed with a new one: it is worth a
    /// fetch, if the last one was not a moment ago.
    fn judge_token(&self, jwt: &Jwt, facts: &Facts<'_>, answers: &Answers) -> Judgement {
        let mut needs_keys = false;
        let judgement = self.judge_credential(facts, |credential| {
            jwt.bearer(credential, facts.unix_ms).map_err(|rejected| {
                needs_keys = matches!(rejected, Rejected::UnknownKey | Rejected::NoKeys);
                rejected.cause()
            })
        });
        let Some(remote) = jwt.remote.as_ref().filter(|_| needs_keys) else { return judgement };
        let check = Check::Keys(Arc::clone(remote));
        let is_worth_it = answers.get(&check).is_none() && remote.may_fetch(facts.now);
        if is_worth_it { Judgement::Ask(check) } else { judgement }
    }

    /// Judges the credential of the first source that has one; twice in its source is wrong.
    fn judge_credential(&self, facts: &Facts<'_>, judge: impl FnOnce(&[u8]) -> Result<Identity, Cause>) -> Judgement {
        let judged = match self.credential(facts.request) {
            Found::Nothing => Err(Cause::NoCredentials),
            Found::Several => Err(Cause::BadCredentials),
            Found::One(credential) => judge(&credential),
        };
        match judged {
            Ok(identity) => Judgement::Granted(Identity { method: self.name.clone(), ..identity }),
            Err(cause) => Judgement::refused(cause),
        }
    }

    /// The credential of the first source that has one.
    fn credential<'a>(&self, request: &Request<'a>) -> Found<'a> {
        let found = self.from.iter().map(|source| source.find(request));
        found.into_iter().find(|found| *found != Found::Nothing).unwrap_or(Found::Nothing)
    }

    fn identity_of(&self, subject: &str) -> Identity {
        Identity { subject: subject.to_owned(), method: self.name.clone(), ..Identity::default() }
    }

    /// For WWW-Authenticate.
    fn challenge(&self) -> String {
        match &self.kind {
            Kind::ApiKeys(_) | Kind::ClientCertificate | Kind::Jwt(_) => BEARER.to_owned(),
            // "The value of the charset parameter MUST be UTF-8" (RFC 7617 section 2.1).
            Kind::Basic { realm, .. } => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |parts: &[Requirement]| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Requirement::Method(method) => f.write_str(&method.name),
            Requirement::Any(parts) => write!(f, "any of ({})", list(parts)),
            Requirement::All(parts) => write!(f, "all of ({})", list(parts)),
        }
    }
}

/// The query parameters that hold credentials of these methods.
pub fn secret_parameters(methods: &[Arc<Method>]) -> Vec<String> {
    let parameters = methods.iter().flat_map(|method| &method.from).filter_map(Source::parameter);
    let mut names: Vec<_> = parameters.map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The key sets behind URLs of these methods.
pub fn key_sources(methods: &[Arc<Method>]) -> Vec<Arc<RemoteKeys>> {
    let remote = |method: &Arc<Method>| match &method.kind {
        Kind::Jwt(jwt) => jwt.remote.clone(),
        Kind::ApiKeys(_) | Kind::ClientCertificate | Kind::Basic { .. } => None,
    };
    methods.iter().filter_map(remote).collect()
}

#[cfg(test)]
mod tests;
