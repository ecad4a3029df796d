//! Tokens: the keys of an `[[auth]]` with `type = "jwt"`. Files with keys are read here, so that a
//! reload takes what is in them, or refuses it.

use super::build::Builder;
use super::endpoint;
use super::file::{self, Section, TypedList};
use super::value::{self, Parsed, quoted, shown, text};
use crate::policy::auth::jwt::{
    ALGORITHMS, Audience, Jwt, KEYS_BYTES_MAX, Key, Keys, Label, Origin, RemoteConfig, RemoteKeys, Rules, Wanted,
};
use crate::policy::endpoint::Address;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Value;

const LEEWAY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const LEEWAY_MS: u64 = 30_000;
/// Of a token. The head of the request bounds it as well.
const TOKEN_BYTES: RangeInclusive<u64> = 256..=1 << 20;
const TOKEN_BYTES_DEFAULT: u64 = 8 << 10;
/// Between two fetches of a key set.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
const REFRESH_MS: u64 = 300_000;
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
const RIGHT: &str = "expected for example { pem = \"issuer.pem\", kid = \"1\", algorithm = \"RS256\" }, \
                     { jwks = \"keys.json\" } or { secret_file = \"shared.key\" }";
/// The value of a required claim that can have any.
const ANY: &str = "*";

impl Builder<'_, '_> {
    pub fn jwt(&mut self, section: &Section<file::Auth>, name: &str) -> Jwt {
        let typed = section.get_ref();
        let mut keys = Keys::default();
        for more in self.list("auth.keys", &typed.keys, keys_of) {
            keys.append(more);
        }
        if typed.jwks_url.is_none() && typed.keys.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
            let why = format!("missing, and there is no jwks_url; {RIGHT}");
            self.problems.add(section.span(), "auth.keys", &why);
        }
        let leeway = |v: &Value| value::duration(v, LEEWAY, "none");
        let leeway_ms = self.take("auth.leeway", &typed.leeway, LEEWAY_MS, leeway);
        let expiry = [("required", true), ("optional", false)];
        let size = |v: &Value| value::size(v, TOKEN_BYTES);
        let rules = Rules {
            issuers: self.list("auth.issuer", &typed.issuer, |v| text(v).map(str::to_owned)),
            audience: self.audience(&typed.audience),
            leeway_s: u32::try_from(leeway_ms / 1000).unwrap_or(u32::MAX),
            expiry_required: self.take("auth.expiry", &typed.expiry, true, |v| value::word(v, &expiry)),
            required: self.required_claims(typed),
            subject: self.take("auth.subject_claim", &typed.subject_claim, "sub".to_owned(), claim),
            roles: self.take("auth.roles_claim", &typed.roles_claim, "roles".to_owned(), claim),
        };
        let bytes = self.take("auth.max_token", &typed.max_token, TOKEN_BYTES_DEFAULT, size);
        let remote = self.remote(typed, name).map(|config| Arc::new(RemoteKeys::new(config)));
        Jwt { keys, remote, rules, bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX) }
    }

    /// The key set behind `jwks_url`.
    fn remote(&mut self, typed: &file::Auth, name: &str) -> Option<RemoteConfig> {
        let refresh = |v: &Value| value::duration(v, REFRESH, "");
        let url = self.read("auth.jwks_url", &typed.jwks_url, jwks_url);
        let ca = self.read("auth.jwks_ca", &typed.jwks_ca, ca_file);
        let refresh_ms = self.take("auth.jwks_refresh", &typed.jwks_refresh, REFRESH_MS, refresh);
        for (key, written) in [("auth.jwks_ca", &typed.jwks_ca), ("auth.jwks_refresh", &typed.jwks_refresh)] {
            if let (None, Some(at)) = (&typed.jwks_url, written) {
                self.problems.add(at.span(), key, "has no effect without jwks_url; remove it");
            }
        }
        Some(RemoteConfig { method: name.to_owned(), url: url?, ca, refresh_ms })
    }

    fn audience(&mut self, typed: &TypedList) -> Audience {
        let names = self.list("auth.audience", typed, |v| text(v).map(str::to_owned));
        match names.iter().any(|name| name == ANY) {
            true => Audience::Any,
            false => Audience::OneOf(names),
        }
    }

    fn required_claims(&mut self, typed: &file::Auth) -> Vec<(String, Wanted)> {
        let mut required = Vec::new();
        for (path, value) in typed.require.iter().flat_map(|table| table.get_ref()) {
            match wanted(value.get_ref()) {
                Ok(wanted) => required.push((path.clone(), wanted)),
                Err(why) => self.problems.add(value.span(), &format!("auth.require.{path}"), &why),
            }
        }
        required
    }
}

/// Keys that came unprotected could be anyone's: without TLS only from this host.
fn jwks_url(value: &Value) -> Parsed<String> {
    const RIGHT: &str = "expected for example \"https://login.example.com/.well-known/jwks.json\"";
    let url = text(value)?;
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("{} is not a URL; {RIGHT}", quoted(url)));
    };
    if rest.contains(['@', '#']) {
        // The URL is not repeated: it may have a password.
        return Err("has a user name or a fragment; remove it".to_owned());
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let graphic = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>".contains(&byte));
    let Ok(endpoint) = endpoint::endpoint(&format!("ws://{authority}")) else {
        return Err(format!("{} has no valid host or port; {RIGHT}", quoted(url)));
    };
    let local = match &endpoint.address {
        Address::Tcp(address) => address.ip().is_loopback(),
        Address::Name(name) => name.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
        Address::Unix(_) => false,
    };
    match scheme {
        "https" if graphic => Ok(url.to_owned()),
        "http" if graphic && local => Ok(url.to_owned()),
        "http" => Err(format!("{} is not protected by TLS, which only this host may do without; {RIGHT}", quoted(url))),
        _ => Err(format!("{} is not a URL; {RIGHT}", quoted(url))),
    }
}

fn ca_file(value: &Value) -> Parsed<PathBuf> {
    let path = text(value)?;
    match value::file(path, KEYS_BYTES_MAX)?.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) {
        true => Ok(PathBuf::from(path)),
        false => Err(format!("{} has no certificate in PEM", quoted(path))),
    }
}

fn wanted(value: &Value) -> Parsed<Wanted> {
    let plain = |value: &Value| match value {
        Value::String(text) => Ok(text.as_str().into()),
        Value::Integer(number) => Ok((*number).into()),
        Value::Boolean(flag) => Ok((*flag).into()),
        value => {
            let right = "expected a string, a number, a boolean, a list of them, or \"*\" for any value";
            Err(format!("{} is not valid; {right}", shown(value)))
        }
    };
    match value {
        Value::String(text) if text == ANY => Ok(Wanted::Present),
        Value::Array(list) => list.iter().map(plain).collect::<Parsed<_>>().map(Wanted::OneOf),
        value => plain(value).map(|one| Wanted::OneOf(vec![one])),
    }
}

/// The path of a claim.
fn claim(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    match path.split('.').all(|part| !part.is_empty()) {
        true => Ok(path.to_owned()),
        false => Err(format!("{} is not a claim; expected for example \"realm_access.roles\"", quoted(path))),
    }
}

/// One element of `keys`. What stands there may be a secret: no message shows it.
fn keys_of(value: &Value) -> Parsed<Keys> {
    let table = value.as_table().ok_or_else(|| format!("is not a table; {RIGHT}"))?;
    value::only_keys(table, &["pem", "jwks", "secret_file", "kid", "algorithm"])?;
    let algorithm = table.get("algorithm").map(|v| value::word(v, &ALGORITHMS)).transpose();
    let algorithm = algorithm.map_err(|e| format!("algorithm: {e}"))?;
    let id = table.get("kid").map(text).transpose().map_err(|e| format!("kid: {e}"))?.map(str::to_owned);
    let files: Vec<_> = ["pem", "jwks", "secret_file"].into_iter().filter(|key| table.contains_key(*key)).collect();
    let [kind] = files.as_slice() else { return Err(format!("needs one of pem, jwks and secret_file; {RIGHT}")) };
    if let ("jwks", Some(_)) = (*kind, &id) {
        return Err("kid: has no effect on a key set, whose keys have their own; remove it".to_owned());
    }
    let path = table.get(*kind).map(text).transpose().map_err(|e| format!("{kind}: {e}"))?.unwrap_or_default();
    let bytes = value::file(path, KEYS_BYTES_MAX)?;
    keys_in(kind, &bytes, Label { id, algorithm }).map_err(|why| format!("{} {why}", quoted(path)))
}

fn keys_in(kind: &str, bytes: &[u8], label: Label) -> Parsed<Keys> {
    let key = match kind {
        "jwks" => return Keys::jwks(bytes, label.algorithm, Origin::File),
        "pem" => Key::pem(bytes, label)?,
        // Editors end files with a line feed.
        _ => Key::secret(bytes.trim_ascii_end(), label)?,
    };
    let mut keys = Keys::default();
    keys.push(key);
    Ok(keys)
}
