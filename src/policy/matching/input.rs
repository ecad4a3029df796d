//! The values of a request that conditions compare. What a client wrote is read leniently: a
//! malformed part is passed over, never an error.

use crate::policy::{Facts, lookup};
use crate::proto::http1::{elements, values};
use std::fmt;

/// What of a request a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    Method,
    /// The header field with this name, in lower case. Several lines are one value, joined with
    /// `, ` (RFC 9110 section 5.3).
    Header(String),
    /// The first query parameter with this name. Name and value are percent-decoded, and `+` is a
    /// space, as browsers encode forms and URLSearchParams.
    Query(String),
    /// The first cookie with this name (RFC 6265 section 4.2). Its value is compared as sent.
    Cookie(String),
    /// Each of the offered subprotocols (RFC 6455 section 4.1, item 10).
    Subprotocol,
    /// Subject of the certificate that the client has shown.
    CertSubject,
    /// SHA-256 of that certificate, in lower-case hexadecimal.
    CertSha256,
}

impl Input {
    /// Whether `test` holds for its value; for one of them, where there may be several.
    pub(super) fn any(&self, facts: &Facts<'_>, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        let fields = &facts.request.fields;
        match self {
            Input::Method => test(facts.request.method.as_bytes()),
            Input::Header(name) => lookup::joined(values(fields, name)).is_some_and(|value| test(&value)),
            Input::Query(name) => lookup::query(facts.request, name).is_some_and(|value| test(&value)),
            Input::Cookie(name) => lookup::cookie(facts.request, name).is_some_and(test),
            Input::Subprotocol => elements(fields, "sec-websocket-protocol").any(test),
            Input::CertSubject => facts.cert.is_some_and(|cert| test(cert.subject.as_bytes())),
            Input::CertSha256 => facts.cert.is_some_and(|cert| test(cert.sha256.as_bytes())),
        }
    }

    /// Its value, for people; `None` where there is none.
    pub(super) fn shown(&self, facts: &Facts<'_>) -> Option<String> {
        let mut all = Vec::new();
        self.any(facts, |value| {
            all.push(format!("{:?}", String::from_utf8_lossy(value)));
            false
        });
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// At most one value: two different tests of it for equality cannot both hold.
    pub(super) fn is_single(&self) -> bool {
        !matches!(self, Input::Subprotocol)
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Method => f.write_str("method"),
            Input::Header(name) => write!(f, "header {name}"),
            Input::Query(name) => write!(f, "query {name}"),
            Input::Cookie(name) => write!(f, "cookie {name}"),
            Input::Subprotocol => f.write_str("subprotocol"),
            Input::CertSubject => f.write_str("cert_subject"),
            Input::CertSha256 => f.write_str("cert_sha256"),
        }
    }
}
