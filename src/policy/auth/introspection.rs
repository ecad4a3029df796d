//! OAuth 2.0 token introspection (RFC 7662): the authorization server is asked whether a token is
//! active, and whose it is. Only a 200 with JSON that says so in the types of the RFC admits.

use super::super::Facts;
use super::super::ask::{Answer, Check, Keep, KeepRule};
use super::identity::texts;
use super::remote::Remote;
use super::{Identity, Secret, json};
use crate::proto::call::CallResponse;
use crate::proto::end::Cause;
use crate::proto::http1::{push, push_field};
use crate::proto::interface::Refusal;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value};

/// An authorization server, and what its tokens must say.
#[derive(Debug, PartialEq, Eq)]
pub struct Introspection {
    pub server: Remote,
    /// The value of Authorization that framegate shows to it; empty for none.
    pub authorization: Secret,
    /// The token must be of one of these (`iss`); empty for any.
    pub issuer: Vec<String>,
    /// The token must be for one of these (`aud`); empty for any.
    pub audience: Vec<String>,
    /// By how much the clocks may differ where `exp` and `nbf` are compared.
    pub leeway_ms: u64,
    /// The claim with who the client is, by its path. `None`: `sub`, else `username`, else
    /// `client_id`.
    pub subject_claim: Option<String>,
    /// The claim with the roles of the client, by its path.
    pub roles_claim: Option<String>,
}

/// Bytes of a token; a longer one is not asked about.
pub const TOKEN_MAX: usize = 8 * 1024;

impl Introspection {
    /// The question about a token. `None`: it cannot be one.
    pub(super) fn check(&self, method: &str, token: &[u8]) -> Option<Check> {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return None;
        }
        let mut body = b"token=".to_vec();
        push_encoded(&mut body, token);
        body.extend_from_slice(b"&token_type_hint=access_token");
        let mut request = Vec::with_capacity(512 + body.len());
        push(&mut request, &[b"POST ", self.server.path.as_bytes(), b" HTTP/1.1\r\n"]);
        push_field(&mut request, "Host", self.server.host.as_bytes());
        if !self.authorization.0.is_empty() {
            push_field(&mut request, "Authorization", self.authorization.0.as_bytes());
        }
        push_field(&mut request, "Accept", b"application/json");
        push_field(&mut request, "Content-Type", b"application/x-www-form-urlencoded");
        push_field(&mut request, "Content-Length", body.len().to_string().as_bytes());
        push_field(&mut request, "Connection", b"close");
        push(&mut request, &[b"\r\n", &body]);
        let parts = [method.as_bytes(), b"\n", self.server.upstream.name.as_bytes(), b"\n", &request].concat();
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, &parts).as_ref());
        let (admitted_ms, refused_ms) = (self.server.admitted_ms, self.server.refused_ms);
        let keep = Keep { key, rule: KeepRule::Introspection, admitted_ms, refused_ms };
        Some(self.server.check(request, Some(keep)))
    }

    /// What an answer says of the token.
    pub(super) fn judge(&self, method: &str, answer: &Answer, facts: &Facts<'_>) -> Result<Identity, Refusal> {
        let response = match answer {
            Answer::Response { response, .. } => response,
            answer => return Err(answer.failure().unwrap_or(Cause::DecisionFailed).into()),
        };
        let token = Token::read(response).ok_or(Cause::DecisionFailed)?;
        let Token::Active { claims, exp_ms, nbf_ms } = token else { return Err(Cause::BadCredentials.into()) };
        let now = facts.unix_ms;
        let is_over = exp_ms.is_some_and(|exp| exp.saturating_add(self.leeway_ms) <= now);
        if is_over || nbf_ms.is_some_and(|nbf| nbf > now.saturating_add(self.leeway_ms)) {
            return Err(Cause::BadCredentials.into());
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if !self.issuer.is_empty() && !texts(claims.get("iss")).iter().any(|iss| self.issuer.contains(iss)) {
            return Err(Cause::BadCredentials.into());
        }
        if !self.audience.is_empty() && !texts(claims.get("aud")).iter().any(|aud| self.audience.contains(aud)) {
            return Err(Cause::BadCredentials.into());
        }
        let subject = || text("sub").or(text("username")).or(text("client_id")).map(str::to_owned);
        let named = self.subject_claim.is_none().then(subject).flatten();
        let mut identity = Identity {
            method: method.to_owned(),
            token_id: text("jti").map(str::to_owned),
            scopes: text("scope").into_iter().flat_map(str::split_ascii_whitespace).map(str::to_owned).collect(),
            expires_unix_ms: exp_ms,
            ..Identity::default()
        };
        identity.claims = claims;
        let claimed = self.subject_claim.iter().flat_map(|path| identity.texts(path)).next();
        identity.subject = named.or(claimed).filter(|subject| !subject.is_empty()).ok_or(Cause::DecisionFailed)?;
        identity.roles = self.roles_claim.iter().flat_map(|path| identity.texts(path)).collect();
        Ok(identity)
    }
}

/// What a response says of a token, in the right types.
enum Token {
    Inactive,
    Active { claims: Map<String, Value>, exp_ms: Option<u64>, nbf_ms: Option<u64> },
}

impl Token {
    /// `None`: it does not say whether the token is active, or a claim has a wrong type.
    fn read(response: &CallResponse) -> Option<Token> {
        if response.status != 200 {
            return None;
        }
        let claims = json::object(&response.body)?;
        // "Boolean indicator of whether or not the presented token is currently active" (RFC 7662
        // section 2.2).
        if !claims.get("active")?.as_bool()? {
            return Some(Token::Inactive);
        }
        for name in ["scope", "client_id", "username", "token_type", "sub", "iss", "jti"] {
            claims.get(name).is_none_or(Value::is_string).then_some(())?;
        }
        if let Some(audience) = claims.get("aud") {
            let is_list = audience.as_array().is_some_and(|list| list.iter().all(Value::is_string));
            (audience.is_string() || is_list).then_some(())?;
        }
        let (exp_ms, nbf_ms) = (seconds(&claims, "exp")?, seconds(&claims, "nbf")?);
        Some(Token::Active { claims, exp_ms, nbf_ms })
    }
}

/// A time in whole seconds, as milliseconds. `None`: it has a wrong type.
fn seconds(claims: &Map<String, Value>, name: &str) -> Option<Option<u64>> {
    match claims.get(name) {
        None => Some(None),
        Some(value) => value.as_u64().map(|seconds| Some(seconds.saturating_mul(1_000))),
    }
}

/// How long a response may be used for other requests: never longer than the token lives.
pub(super) fn keep_ms(keep: &Keep, response: &CallResponse, unix_ms: u64) -> u64 {
    match Token::read(response) {
        None => 0,
        Some(Token::Inactive) => keep.refused_ms,
        Some(Token::Active { exp_ms, .. }) => {
            keep.admitted_ms.min(exp_ms.map_or(u64::MAX, |exp| exp.saturating_sub(unix_ms)))
        }
    }
}

/// As a value of application/x-www-form-urlencoded (WHATWG URL, section 5.2).
fn push_encoded(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(*byte),
            byte => push(out, &[b"%", crate::text::hex(&[*byte]).as_bytes()]),
        }
    }
}

/// Client credentials for an authorization server: "The client identifier is encoded using the
/// \"application/x-www-form-urlencoded\" encoding algorithm [...] and the encoded value is used as
/// the username" (RFC 6749 section 2.3.1). Still to be encoded in Base64.
pub fn client_credentials(id: &str, secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_encoded(&mut out, id.as_bytes());
    out.push(b':');
    push_encoded(&mut out, secret);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_no_longer_than_their_token_lives() {
        let keep = Keep { key: [0; 32], rule: KeepRule::Introspection, admitted_ms: 30_000, refused_ms: 5_000 };
        let now = 1_800_000_000_000;
        for (body, ms) in [
            ("{\"active\":true}", 30_000),
            ("{\"active\":true,\"exp\":1800000100}", 30_000),
            ("{\"active\":true,\"exp\":1800000010}", 10_000),
            ("{\"active\":true,\"exp\":1700000000}", 0),
            ("{\"active\":false}", 5_000),
            ("{\"active\":\"true\"}", 0),
            ("{\"active\":true,\"exp\":\"soon\"}", 0),
            ("{}", 0),
            ("", 0),
        ] {
            let response = CallResponse { status: 200, body: body.into(), ..CallResponse::default() };
            assert_eq!(keep_ms(&keep, &response, now), ms, "{body}");
            assert_eq!(keep_ms(&keep, &CallResponse { status: 201, ..response }, now), 0, "{body}");
        }
    }

    #[test]
    fn client_credentials_are_encoded_before_they_are_joined() {
        // A colon in the id would end it.
        assert_eq!(client_credentials("a:b c", b"p%\xc3\xa4+"), b"a%3ab%20c:p%25%c3%a4%2b");
    }
}
