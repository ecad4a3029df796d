//! Credentials: what a route asks of its clients, and the judgement of what they show. Each kind of
//! credential is a file; `source` says where in a request a credential stands, `identity` who the
//! client is then, `remote` which server is asked by the kinds that ask one, `json` reads answers,
//! `refresh` is about new credentials in an established session.
//! What must be asked of others, or takes long, is a [`Check`]: judgement goes on with its answer.

mod api_keys;
pub mod basic;
mod forward;
mod identity;
mod introspection;
mod json;
pub mod jwt;
mod password;
mod refresh;
mod remote;
mod revoked;
mod source;

pub use api_keys::{ApiKey, ApiKeys};
pub use forward::Forward;
pub use identity::Identity;
pub use introspection::{Introspection, client_credentials};
pub use refresh::{Form, REFRESH_INTERVAL_MS, Refresh, Refreshed, Refreshing, Renewal, TEXT_MAX, Warning};
pub use remote::Remote;
pub use revoked::{REVOKED_MAX, Revoked, TooMany, Who};
pub use source::{Found, Source, redacted_target};

use super::Facts;
use super::ask::{Answer, Answers, Check, Keep, KeepRule};
use crate::proto::Millis;
use crate::proto::call::CallResponse;
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
    /// An authorization server decides by the head of the request.
    Forward(Forward),
    /// An authorization server says whose a token is (RFC 7662).
    Introspection(Introspection),
}

/// A text that no text for people shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How long the answer to a question may be used for other requests.
pub fn keep_ms(keep: &Keep, response: &CallResponse, unix_ms: u64) -> Millis {
    match keep.rule {
        KeepRule::Forward => forward::keep_ms(keep, response),
        KeepRule::Introspection => introspection::keep_ms(keep, response, unix_ms),
    }
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
        let methods = requirement.methods();
        let mut challenges: Vec<_> = methods.iter().filter_map(|method| method.challenge()).collect();
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

    /// Keys that it takes have limits of their own.
    pub fn limits_keys(&self) -> bool {
        let limits = |kind: &Kind| matches!(kind, Kind::ApiKeys(keys) if keys.limited() > 0);
        self.requirement.methods().iter().any(|method| limits(&method.kind))
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

    /// Keeps credentials in subprotocols from the upstream, and fields that clients must not set.
    pub fn conceal(&self, request: &Request<'_>, edits: &mut FieldEdits, response: &mut FieldEdits) {
        let methods = self.requirement.methods();
        let sources: Vec<_> = methods.iter().flat_map(|method| &method.from).collect();
        source::conceal_protocols(&sources, request, edits, response);
        // Also where another method has admitted: clients never say what these say.
        for method in &methods {
            if let Kind::Forward(forward) = &method.kind {
                forward.copy.iter().for_each(|name| edits.remove(name));
            }
        }
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

/// The first that admits without a question; only if there is none, others are asked, in their
/// order. The refusal is that which says most: not of a method whose credentials the client does
/// not use.
fn any(parts: &[Requirement], facts: &Facts<'_>, answers: &Answers) -> Judgement {
    let (mut refused, mut asks): (Option<Refusal>, Option<Check>) = (None, None);
    for part in parts {
        match part.judge(facts, answers) {
            Judgement::Refused(refusal) => {
                let says_more = refused.as_ref().is_none_or(|known| known.cause == Cause::NoCredentials);
                if says_more {
                    refused = Some(refusal);
                }
            }
            Judgement::Ask(check) => asks = asks.or(Some(check)),
            granted @ Judgement::Granted(_) => return granted,
        }
    }
    if let Some(check) = asks {
        return Judgement::Ask(check);
    }
    Judgement::Refused(refused.unwrap_or_else(|| Cause::NoCredentials.into()))
}

/// Nothing is asked for a client that another method refuses.
fn all(parts: &[Requirement], facts: &Facts<'_>, answers: &Answers) -> Judgement {
    let (mut both, mut asks): (Option<Identity>, Option<Check>) = (None, None);
    for part in parts {
        match part.judge(facts, answers) {
            Judgement::Granted(identity) => {
                both = Some(match both {
                    None => identity,
                    Some(first) => first.and(identity),
                });
            }
            Judgement::Ask(check) => asks = asks.or(Some(check)),
            refused @ Judgement::Refused(_) => return refused,
        }
    }
    if let Some(check) = asks {
        return Judgement::Ask(check);
    }
    both.map_or_else(|| Judgement::refused(Cause::NoCredentials), Judgement::Granted)
}

impl Method {
    fn judge(&self, facts: &Facts<'_>, answers: &Answers) -> Judgement {
        let judged = |judged: Result<Identity, Refusal>| match judged {
            Ok(identity) => Judgement::Granted(identity),
            Err(refusal) => Judgement::Refused(refusal),
        };
        match &self.kind {
            Kind::Forward(forward) => {
                let check = forward.check(&self.name, facts);
                match answers.get(&check) {
                    None => Judgement::Ask(check),
                    Some(answer) => judged(forward.judge(&self.name, answer, facts)),
                }
            }
            Kind::Introspection(introspection) => {
                let check = match self.credential(facts) {
                    Found::Nothing => return Judgement::refused(Cause::NoCredentials),
                    Found::Several => None,
                    Found::One(token) => introspection.check(&self.name, &token),
                };
                let Some(check) = check else { return Judgement::refused(Cause::BadCredentials) };
                match answers.get(&check) {
                    None => Judgement::Ask(check),
                    Some(answer) => judged(introspection.judge(&self.name, answer, facts)),
                }
            }
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
        let login = match self.credential(facts) {
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
            Some(_) => {
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
        let judged = match self.credential(facts) {
            Found::Nothing => Err(Cause::NoCredentials),
            Found::Several => Err(Cause::BadCredentials),
            Found::One(credential) => judge(&credential),
        };
        match judged {
            Ok(identity) => Judgement::Granted(Identity { method: self.name.clone(), ..identity }),
            Err(cause) => Judgement::refused(cause),
        }
    }

    /// The credential of the first source that has one, or what was sent in place of it.
    fn credential<'a>(&self, facts: &Facts<'a>) -> Found<'a> {
        if let Some(shown) = facts.shown {
            return Found::One(shown.into());
        }
        let found = self.from.iter().map(|source| source.find(facts.request));
        found.into_iter().find(|found| *found != Found::Nothing).unwrap_or(Found::Nothing)
    }

    /// Takes over the counts of `before`.
    pub fn inherit(&self, before: &Method) {
        match (&self.kind, &before.kind) {
            (Kind::ApiKeys(keys), Kind::ApiKeys(known)) => keys.inherit(known),
            _ => {
                if let (Some(remote), Some(known)) = (self.remote(), before.remote()) {
                    remote.inherit(known);
                }
            }
        }
    }

    /// The server that it asks, if it asks one.
    pub fn remote(&self) -> Option<&Remote> {
        match &self.kind {
            Kind::Forward(forward) => Some(&forward.server),
            Kind::Introspection(introspection) => Some(&introspection.server),
            Kind::ApiKeys(_) | Kind::ClientCertificate | Kind::Jwt(_) | Kind::Basic { .. } => None,
        }
    }

    fn identity_of(&self, subject: &str) -> Identity {
        Identity { subject: subject.to_owned(), method: self.name.clone(), ..Identity::default() }
    }

    /// For WWW-Authenticate.
    fn challenge(&self) -> Option<String> {
        match &self.kind {
            Kind::ApiKeys(_) | Kind::ClientCertificate | Kind::Jwt(_) | Kind::Introspection(_) => {
                Some(BEARER.to_owned())
            }
            // "The value of the charset parameter MUST be UTF-8" (RFC 7617 section 2.1).
            Kind::Basic { realm, .. } => Some(format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")),
            // Its server sends its own.
            Kind::Forward(_) => None,
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
        _ => None,
    };
    methods.iter().filter_map(remote).collect()
}

#[cfg(test)]
mod tests;
