//! Forward auth: an authorization server gets the client's head, and decides. A 2xx admits, and its
//! header fields may say who the client is; any other response is the client's. Nothing is admitted
//! without a response that can be understood.

use super::super::Facts;
use super::super::ask::{Answer, Check, Keep, KeepRule};
use super::Identity;
use super::remote::Remote;
use crate::proto::call::CallResponse;
use crate::proto::end::Cause;
use crate::proto::handshake::subrequest::{Asking, sent, write_subrequest};
use crate::proto::handshake::{Forwarding, ForwardingHeaders};
use crate::proto::http1::{FieldEdits, Reply};
use crate::proto::interface::Refusal;
use aws_lc_rs::digest::{Context, SHA256};

/// An authorization server, and what is made of its responses.
#[derive(Debug, PartialEq, Eq)]
pub struct Forward {
    pub server: Remote,
    /// Of the request to it.
    pub method: &'static str,
    /// The fields of the client that it gets. `None`: all that concern neither the connection nor
    /// the WebSocket.
    pub headers: Option<Vec<String>>,
    /// Fields of its response that the upstream gets, in place of those of the client.
    pub copy: Vec<String>,
    /// The field of its response that says who the client is.
    pub identity_header: Option<String>,
    /// The field of its response that says when the session ends.
    pub expires_header: Option<String>,
    /// Fields of the request to it that its answer depends on; without any, each request asks.
    pub cache: Vec<String>,
}

/// A number of an `expires_header` below this counts seconds from the response, any other is
/// seconds since the Unix epoch (2001-09-09 is the first).
const EPOCH_SECONDS: u64 = 1_000_000_000;
/// The year 5138: what is beyond it is not in seconds.
const SECONDS_MAX: u64 = 100_000_000_000;

impl Forward {
    /// The question about a request; `method` is the name of the section.
    pub(super) fn check(&self, method: &str, facts: &Facts<'_>) -> Check {
        let mut edits = FieldEdits::new();
        self.copy.iter().for_each(|name| edits.remove(name));
        let add = Forwarding {
            path: &self.server.path,
            query: None,
            host: Some(&self.server.host),
            peer: facts.peer,
            client: facts.client,
            trusted: facts.trusted,
            secure: facts.secure,
            headers: ForwardingHeaders::XForwarded,
            cert: facts.cert.map(|cert| (cert.subject, cert.sha256)),
            request_id: facts.request_id,
            trace_seed: [0; 24],
            edits: &edits,
            plain: None,
        };
        let asking = Asking { method: self.method, fields: self.headers.as_deref() };
        let request = write_subrequest(facts.request, &asking, &add);
        let keep = self.key(method, &request).map(|key| Keep {
            key,
            rule: KeepRule::Forward,
            admitted_ms: self.server.admitted_ms,
            refused_ms: self.server.refused_ms,
        });
        self.server.check(request, keep)
    }

    /// The SHA-256 of what the answer depends on. `None` for a request that has nothing of it.
    fn key(&self, method: &str, request: &[u8]) -> Option<[u8; 32]> {
        let mut hash = Context::new(&SHA256);
        let mut add = |part: &[u8]| {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        let Remote { upstream, host, path, .. } = &self.server;
        [method, &upstream.name, host, self.method, path].iter().for_each(|part| add(part.as_bytes()));
        // A reload may change which fields the server gets.
        for names in [self.headers.as_deref(), Some(self.copy.as_slice())] {
            add(&names.map_or(u64::MAX, |names| names.len() as u64).to_be_bytes());
            names.unwrap_or_default().iter().for_each(|name| add(name.as_bytes()));
        }
        let mut some = false;
        for name in &self.cache {
            let values = sent(request, name).unwrap_or_default();
            some |= !values.is_empty();
            add(&[values.len() as u8]);
            values.iter().for_each(|value| add(value));
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        some.then_some(key)
    }

    /// What an answer says of the client; `method` as above.
    pub(super) fn judge(&self, method: &str, answer: &Answer, facts: &Facts<'_>) -> Result<Identity, Refusal> {
        let (response, at_unix_ms) = match answer {
            Answer::Response { response, at_unix_ms } => (response, *at_unix_ms),
            answer => return Err(answer.failure().unwrap_or(Cause::DecisionFailed).into()),
        };
        match response.status {
            200..=299 => self.identity(method, response, at_unix_ms).and_then(|identity| {
                match identity.expires_unix_ms.is_some_and(|end| end <= facts.unix_ms) {
                    true => Err(Cause::BadCredentials.into()),
                    false => Ok(identity),
                }
            }),
            300..=499 => Err(passed_on(response)),
            _ => Err(Cause::DecisionFailed.into()),
        }
    }

    fn identity(&self, method: &str, response: &CallResponse, at_unix_ms: u64) -> Result<Identity, Refusal> {
        let subject = match &self.identity_header {
            None => String::new(),
            Some(name) => only(response, name)?.filter(|subject| !subject.is_empty()).ok_or(Cause::DecisionFailed)?,
        };
        let copied =
            self.copy.iter().flat_map(|name| response.values(name).map(|value| (name.clone(), value.to_vec())));
        Ok(Identity {
            subject,
            method: method.to_owned(),
            fields: copied.collect(),
            expires_unix_ms: self.expires_unix_ms(response, at_unix_ms)?,
            ..Identity::default()
        })
    }

    /// When the session ends, in milliseconds since the Unix epoch.
    fn expires_unix_ms(&self, response: &CallResponse, at_unix_ms: u64) -> Result<Option<u64>, Refusal> {
        let Some(name) = &self.expires_header else { return Ok(None) };
        let Some(text) = only(response, name)? else { return Ok(None) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = text.parse::<u64>().ok().filter(|seconds| is_number && *seconds < SECONDS_MAX);
        match seconds.ok_or(Cause::DecisionFailed)? {
            seconds @ ..EPOCH_SECONDS => Ok(Some(at_unix_ms + 1_000 * seconds)),
            seconds => Ok(Some(1_000 * seconds)),
        }
    }
}

/// How long a response may be used for other requests: never one that sets a cookie, which is for
/// one client, and of those that refuse only those that say nothing but no.
pub(super) fn keep_ms(keep: &Keep, response: &CallResponse) -> u64 {
    match response.status {
        _ if response.values("set-cookie").next().is_some() => 0,
        200..=299 => keep.admitted_ms,
        401 | 403 => keep.refused_ms,
        _ => 0,
    }
}

/// The response of the server, for the client.
fn passed_on(response: &CallResponse) -> Refusal {
    let reply = Reply { status: response.status, fields: response.passed_on(), body: response.body.as_slice().into() };
    Refusal { reply: Some(Box::new(reply)), ..Cause::Forbidden.into() }
}

/// The value of a field that may be there once.
fn only(response: &CallResponse, name: &str) -> Result<Option<String>, Refusal> {
    let mut values = response.values(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match str::from_utf8(value) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(Cause::DecisionFailed.into()),
        },
        (Some(_), Some(_)) => Err(Cause::DecisionFailed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::upstream::{Options, Upstream};
    use crate::proto::http1::parse_request;
    use std::sync::Arc;

    fn forward(cache: &[&str]) -> Forward {
        let upstream = Arc::new(Upstream::new("sso".to_owned(), Vec::new(), Options::default()));
        let mut server = Remote::new(upstream, "sso".to_owned(), "/verify".to_owned());
        (server.admitted_ms, server.refused_ms) = (30_000, 5_000);
        let cache = cache.iter().map(|name| (*name).to_owned()).collect();
        let (headers, identity_header, expires_header) = Default::default();
        Forward { server, method: "GET", headers, copy: Vec::new(), identity_header, expires_header, cache }
    }

    /// The key of the answer for a request with these fields.
    fn key(method: &str, cache: &[&str], fields: &str) -> Option<[u8; 32]> {
        key_of(&forward(cache), method, fields)
    }

    fn key_of(forward: &Forward, method: &str, fields: &str) -> Option<[u8; 32]> {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let request = parse_request(head.as_bytes()).unwrap();
        match forward.check(method, &Facts::of(&request)) {
            Check::Subrequest(subrequest) => subrequest.keep.map(|keep| keep.key),
            _ => None,
        }
    }

    #[test]
    fn answers_are_shared_only_where_all_that_they_depend_on_is_equal() {
        let cookie = |fields: &str| key("a", &["Cookie", "X-Key"], fields);
        assert_eq!(key("a", &[], "Cookie: a=1\r\n"), None);
        assert_eq!(cookie(""), None, "a request without any of them asks");
        assert_eq!(cookie("Cookie: a=1\r\n"), cookie("X-Other: 1\r\ncookie: a=1\r\n"));
        let different = [
            cookie("Cookie: a=1\r\n"),
            cookie("Cookie: a=2\r\n"),
            cookie("Cookie: a=1\r\nX-Key: k\r\n"),
            cookie("X-Key: a=1\r\n"),
            cookie("Cookie: a=1\r\nCookie: b\r\n"),
            cookie("Cookie: a=1b\r\n"),
            cookie("Cookie: a=1, b\r\n"),
            key("b", &["Cookie", "X-Key"], "Cookie: a=1\r\n"),
            key("a", &["Cookie", "X-Forwarded-Uri"], "Cookie: a=1\r\n"),
        ];
        for (n, one) in different.iter().enumerate() {
            assert!(one.is_some() && !different[..n].contains(one), "{n}");
        }
    }

    #[test]
    fn answers_are_not_kept_over_a_reload_that_changes_what_the_server_gets() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let with = |headers: Option<&[&str]>, copy: &[&str]| {
            let changed = Forward { headers: headers.map(names), copy: names(copy), ..forward(&["Cookie"]) };
            key_of(&changed, "a", "Cookie: a=1\r\n")
        };
        let different = [
            with(None, &[]),
            with(None, &["X-User"]),
            with(None, &["X-User", "X-Role"]),
            with(Some(&["Cookie"]), &[]),
            with(Some(&["Cookie", "X-User"]), &[]),
            with(Some(&["Cookie"]), &["X-User"]),
        ];
        for (n, one) in different.iter().enumerate() {
            assert!(one.is_some() && !different[..n].contains(one), "{n}");
        }
        assert_eq!(with(None, &["X-User"]), with(None, &["X-User"]));
    }

    #[test]
    fn answers_for_one_client_are_not_kept() {
        let keep = Keep { key: [0; 32], rule: KeepRule::Forward, admitted_ms: 30_000, refused_ms: 5_000 };
        for (status, ms) in [(200, 30_000), (204, 30_000), (401, 5_000), (403, 5_000), (302, 0), (404, 0), (500, 0)] {
            let response = CallResponse { status, ..CallResponse::default() };
            assert_eq!(keep_ms(&keep, &response), ms, "{status}");
            let fields = vec![("set-cookie".to_owned(), b"a=1".to_vec())];
            assert_eq!(keep_ms(&keep, &CallResponse { fields, ..response }), 0, "{status} with a cookie");
        }
    }
}
