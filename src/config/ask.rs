//! Credentials about which a server is asked: `type = "forward"` and `type = "introspection"` of
//! `[[auth]]`.

use super::auth::is_token;
use super::build::Builder;
use super::endpoint::{self, HttpServer};
use super::error::suggestion;
use super::file::{self, Section};
use super::value::{self, Parsed, quoted, text};
use crate::policy::auth::{Forward, Introspection, Remote, Secret, client_credentials};
use crate::policy::endpoint::Endpoint;
use crate::policy::upstream::Upstream;
use crate::proto::handshake::subrequest::is_reserved;
use crate::proto::settings::Timeouts;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use toml::Value;

const PENDING: RangeInclusive<u64> = 1..=100_000;
/// An answer that is kept for longer says little.
const TTL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const LEEWAY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const SECRET_MAX: u64 = 8 << 10;
const NAMES_MAX: usize = 64;

/// Where a server is found, and the timeouts of connections.
type Servers<'a> = (&'a mut Vec<Arc<Upstream>>, &'a Timeouts);

impl Builder<'_, '_> {
    pub(super) fn forward(&mut self, section: &Section<file::Auth>, servers: Servers<'_>) -> Option<Forward> {
        let typed = section.get_ref();
        let methods = [("GET", "GET"), ("POST", "POST")];
        let mut names = |key: &str, typed: &file::TypedList| {
            let names = self.list(&format!("auth.{key}"), typed, field_name);
            if let (true, Some(at)) = (names.len() > NAMES_MAX, typed) {
                let why = format!("{} names; at most {NAMES_MAX}", names.len());
                self.problems.add(at.span(), &format!("auth.{key}"), &why);
            }
            names
        };
        let headers = typed.headers.is_some().then(|| names("headers", &typed.headers));
        let copy = names("copy", &typed.copy);
        let cache = self.list("auth.cache", &typed.cache, dependency);
        for (key, at) in [("ttl", &typed.ttl), ("negative_ttl", &typed.negative_ttl)] {
            if let (true, Some(at)) = (typed.cache.is_none(), at) {
                let why = "has no effect without cache, which says what an answer depends on";
                self.problems.add(at.span(), &format!("auth.{key}"), why);
            }
        }
        let method = self.take("auth.method", &typed.method, "GET", |v| value::word(v, &methods));
        let identity_header = self.read("auth.identity_header", &typed.identity_header, field_name);
        let expires_header = self.read("auth.expires_header", &typed.expires_header, field_name);
        let server = self.asked_server(section, servers, cache.is_empty())?;
        Some(Forward { server, method, headers, copy, identity_header, expires_header, cache })
    }

    pub(super) fn introspection(
        &mut self,
        section: &Section<file::Auth>,
        servers: Servers<'_>,
    ) -> Option<Introspection> {
        let typed = section.get_ref();
        let authorization = self.authorization(section);
        let issuer = self.list("auth.issuer", &typed.issuer, |v| text(v).map(str::to_owned));
        let audience = self.list("auth.audience", &typed.audience, |v| text(v).map(str::to_owned));
        let leeway = |v: &Value| value::duration(v, LEEWAY, "none");
        let leeway_ms = self.take("auth.leeway", &typed.leeway, 0, leeway);
        let subject_claim = self.read("auth.subject_claim", &typed.subject_claim, |v| text(v).map(str::to_owned));
        let roles_claim = self.read("auth.roles_claim", &typed.roles_claim, |v| text(v).map(str::to_owned));
        let server = self.asked_server(section, servers, false)?;
        Some(Introspection { server, authorization, issuer, audience, leeway_ms, subject_claim, roles_claim })
    }

    /// How framegate shows the server who it is.
    fn authorization(&mut self, section: &Section<file::Auth>) -> Secret {
        let typed = section.get_ref();
        let id = self.read("auth.client_id", &typed.client_id, |v| text(v).map(str::to_owned));
        let secret = self.read("auth.client_secret_file", &typed.client_secret_file, secret_file);
        let bearer = self.read("auth.bearer_file", &typed.bearer_file, secret_file);
        if let (Some(_), Some(at)) = (&typed.client_id, &typed.bearer_file) {
            self.problems.add(at.span(), "auth.bearer_file", "excludes client_id; remove one of them");
        }
        match (&typed.client_id, &typed.client_secret_file) {
            (Some(at), None) => {
                let why = "needs client_secret_file, the file with its secret";
                self.problems.add(at.span(), "auth.client_id", why);
            }
            (None, Some(at)) => {
                let why = "needs client_id, whose secret it is";
                self.problems.add(at.span(), "auth.client_secret_file", why);
            }
            _ => {}
        }
        match (id, secret, bearer) {
            (Some(id), Some(secret), _) => {
                let credentials = client_credentials(&id, secret.as_bytes());
                Secret(format!("Basic {}", BASE64_STANDARD.encode(credentials)))
            }
            (_, _, Some(bearer)) => Secret(format!("Bearer {bearer}")),
            _ => Secret::default(),
        }
    }

    /// The server that is asked. `no_cache`: its answers are not used again.
    fn asked_server(&mut self, section: &Section<file::Auth>, servers: Servers<'_>, no_cache: bool) -> Option<Remote> {
        let typed = section.get_ref();
        let (upstreams, timeouts) = servers;
        let (upstream, host, path) = self.server(section, upstreams)?;
        let host = self.take("auth.host", &typed.host, host, |v| super::pattern::host_header(text(v)?));
        let timeout_ms = self.take("auth.timeout", &typed.timeout, 5_000, value::timeout);
        let pending = self.take("auth.max_pending", &typed.max_pending, 256, |v| value::number(v, PENDING));
        let ttl = |v: &Value| value::duration(v, TTL, "none");
        let admitted_ms = self.take("auth.ttl", &typed.ttl, 30_000, ttl);
        let refused_ms = self.take("auth.negative_ttl", &typed.negative_ttl, 5_000, ttl);
        let mut remote = Remote::new(upstream, host, path);
        (remote.timeout_ms, remote.connect_ms) = (timeout_ms, timeouts.connect_ms.min(timeout_ms));
        if !no_cache {
            (remote.admitted_ms, remote.refused_ms) = (admitted_ms, refused_ms);
        }
        Some(remote.with_max_pending(usize::try_from(pending).unwrap_or(usize::MAX)))
    }

    /// Upstream, Host and path.
    fn server(
        &mut self,
        section: &Section<file::Auth>,
        upstreams: &mut Vec<Arc<Upstream>>,
    ) -> Option<(Arc<Upstream>, String, String)> {
        let typed = section.get_ref();
        let path = self.take("auth.path", &typed.path, "/".to_owned(), request_path);
        match (&typed.url, &typed.upstream) {
            (Some(_), None) => {
                if let Some(at) = &typed.path {
                    self.problems.add(at.span(), "auth.path", "has no effect with url, which has a path of its own");
                }
                let server = self.read("auth.url", &typed.url, |v| endpoint::http_server(text(v)?))?;
                let HttpServer { endpoint, host, path } = server;
                Some((shared_upstream(endpoint, upstreams), host, path))
            }
            (None, Some(at)) => {
                let upstream = self.read("auth.upstream", &typed.upstream, |v| named(v, upstreams))?;
                if let Some(based) = upstream.endpoints().iter().find(|endpoint| !endpoint.base.is_empty()) {
                    let why =
                        format!("its endpoint {} has a path, which is not used here; put it into auth.path", based.url);
                    self.problems.add(at.span(), "auth.upstream", &why);
                }
                let host = upstream.name.clone();
                Some((upstream, host, path))
            }
            (Some(_), Some(at)) => {
                self.problems.add(at.span(), "auth.upstream", "excludes url; remove one of them");
                None
            }
            (None, None) => {
                let why = "missing; add for example url = \"http://127.0.0.1:9091/verify\"";
                self.problems.add(section.span(), "auth.url", why);
                None
            }
        }
    }
}

fn shared_upstream(endpoint: Endpoint, upstreams: &mut Vec<Arc<Upstream>>) -> Arc<Upstream> {
    if let Some(known) = upstreams.iter().find(|known| known.name == endpoint.url) {
        return Arc::clone(known);
    }
    let upstream = Arc::new(Upstream::new(endpoint.url.clone(), vec![endpoint.into()], Default::default()));
    upstreams.push(Arc::clone(&upstream));
    upstream
}

fn named(value: &Value, upstreams: &[Arc<Upstream>]) -> Parsed<Arc<Upstream>> {
    let written = text(value)?;
    let found = upstreams.iter().find(|upstream| upstream.name == written && !endpoint::is_url(written));
    found.map(Arc::clone).ok_or_else(|| {
        let names = upstreams.iter().map(|upstream| upstream.name.as_str());
        let names: Vec<_> = names.filter(|name| !endpoint::is_url(name)).collect();
        let right = match names.as_slice() {
            [] => "; add an [[upstream]] section with that name, or use url".to_owned(),
            names => suggestion(written, names),
        };
        format!("no [[upstream]] is named {}{right}", quoted(written))
    })
}

/// A path with an optional query, as it is sent.
fn request_path(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    let fits = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\".contains(&byte));
    if fits {
        Ok(path.to_owned())
    } else {
        Err(format!("{} is not a path; expected for example \"/verify\"", quoted(path)))
    }
}

/// A field that the configuration may choose.
fn field_name(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    if !is_token(name) {
        return Err(format!("{} is not the name of a header", quoted(name)));
    }
    if is_reserved(name) {
        return Err(format!("{} is a header of the proxy's own, or of one connection; remove it", quoted(name)));
    }
    Ok(name.to_owned())
}

/// A field of the request to the server: those of the proxy's own are among them.
fn dependency(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    if is_token(name) { Ok(name.to_owned()) } else { Err(format!("{} is not the name of a header", quoted(name))) }
}

/// The first line of a file. No message shows it.
/// The secret in a file that the configuration names.
pub fn secret_file(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    let unreadable = |e: std::io::Error| format!("cannot read {}: {e}", quoted(path));
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{} is not a regular file", quoted(path)));
    }
    let mut content = String::new();
    File::open(path).and_then(|file| file.take(SECRET_MAX + 1).read_to_string(&mut content)).map_err(unreadable)?;
    let secret = content.trim_end_matches(['\r', '\n']);
    let fits = !secret.is_empty() && secret.len() as u64 <= SECRET_MAX && !secret.chars().any(char::is_control);
    if fits { Ok(secret.to_owned()) } else { Err(format!("{} does not hold a secret in one line", quoted(path))) }
}
