//! Who a client is, once its credentials have been checked.

use crate::policy::limit::ClientLimits;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A client that has shown valid credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The owner of an API key, the `sub` of a token, the user, the subject of a certificate.
    pub subject: String,
    /// The name of the `[[auth]]` section that says so.
    pub method: String,
    /// The id of the token (`jti`), or of the key, by which it can be revoked.
    pub token_id: Option<String>,
    /// What the client may do; in tokens the claim `scope` or `scp`.
    pub scopes: Vec<String>,
    pub roles: Vec<String>,
    /// Everything that the issuer says of the client.
    pub claims: Map<String, Value>,
    /// When the credentials end, in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// Fields for the upstream, in place of those of the client.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Of its API key.
    pub limits: Option<Arc<ClientLimits>>,
}

impl Identity {
    /// The claim at `path`, whose parts are separated by dots, as text: a list has commas. `None`
    /// if there is none.
    pub fn claim(&self, path: &str) -> Option<String> {
        claim_at(&self.claims, path).map(shown)
    }

    /// Milliseconds until the credentials end, at this time; 0 if they have.
    pub fn left_ms(&self, unix_ms: u64) -> Option<u64> {
        self.expires_unix_ms.map(|at| at.saturating_sub(unix_ms))
    }

    /// Both are known to be the same client: without a name that is not known.
    pub fn is_of(&self, other: &Identity) -> bool {
        !self.subject.is_empty() && (&self.subject, &self.method) == (&other.subject, &other.method)
    }

    /// The texts at `path`.
    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        texts(claim_at(&self.claims, path))
    }

    /// This client by both credentials: the first that knows says who it is, the sooner end counts.
    pub(super) fn and(mut self, other: Identity) -> Identity {
        let soonest = [self.expires_unix_ms, other.expires_unix_ms].into_iter().flatten().min();
        for (name, value) in other.claims {
            self.claims.entry(name).or_insert(value);
        }
        self.scopes.extend(other.scopes);
        self.roles.extend(other.roles);
        self.fields.extend(other.fields);
        if self.subject.is_empty() {
            (self.subject, self.method) = (other.subject, other.method);
        }
        let (token_id, limits) = (self.token_id.or(other.token_id), self.limits.or(other.limits));
        Identity { expires_unix_ms: soonest, token_id, limits, ..self }
    }
}

/// The claim at `path`, as [`Identity::claim`] finds it.
pub(super) fn claim_at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    // A name with dots in it comes first: they are common in the claims of OpenID providers.
    let nested = || rest.and_then(|rest| claims.get(first).and_then(|value| below(value, rest)));
    claims.get(path).or_else(nested)
}

/// A list of texts, or one.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.chain(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn below<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let value = value.get(first)?;
    rest.map_or(Some(value), |rest| below(value, rest))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_by_their_path() {
        let claims = serde_json::json!({
            "tenant": "acme", "level": 3, "admin": true, "groups": ["a", "b"],
            "realm_access": { "roles": ["x", 1] }, "https://example.com/plan": "gold", "none": null
        });
        let Value::Object(claims) = claims else { panic!() };
        let identity = Identity { claims, ..Identity::default() };
        for (path, value) in [
            ("tenant", Some("acme")),
            ("level", Some("3")),
            ("admin", Some("true")),
            ("groups", Some("a,b")),
            ("realm_access.roles", Some("x,1")),
            ("https://example.com/plan", Some("gold")),
            ("none", Some("null")),
            ("tenant.x", None),
            ("realm_access.other", None),
            ("", None),
        ] {
            assert_eq!(identity.claim(path).as_deref(), value, "{path}");
        }
    }

    #[test]
    fn a_credential_without_a_name_leaves_it_to_the_other() {
        let one = |subject: &str| Identity { subject: subject.to_owned(), ..Identity::default() };
        for (first, second, both) in [("a", "b", "a"), ("", "b", "b"), ("a", "", "a"), ("", "", "")] {
            assert_eq!(one(first).and(one(second)).subject, both);
        }
    }

    #[test]
    fn both_credentials_end_with_the_first_that_ends() {
        let one = |expires| Identity { expires_unix_ms: expires, ..Identity::default() };
        for (first, second, both) in
            [(None, None, None), (Some(5), None, Some(5)), (None, Some(7), Some(7)), (Some(5), Some(3), Some(3))]
        {
            assert_eq!(one(first).and(one(second)).expires_unix_ms, both);
        }
    }
}
