//! Credentials: `[[auth]]`, and what routes ask for with `auth`, `scopes` and `roles`.

use super::build::Builder;
use super::error::suggestion;
use super::file::{self, Section, Typed};
use super::value::{self, Parsed, quoted, shown, text};
use crate::policy::auth::basic::{FILE_BYTES_MAX, Users};
use crate::policy::auth::{ApiKey, ApiKeys, Auth, Kind, Method, Requirement, Source, key_sources};
use crate::policy::upstream::Upstream;
use crate::proto::settings::Timeouts;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use toml::Value;

/// Methods that are combined in one route, at all levels.
const METHODS_MAX: usize = 16;
/// Key sets behind URLs: they are fetched one after the other.
const KEY_SOURCES_MAX: usize = 16;
/// Levels of `any` and `all`.
const DEPTH_MAX: usize = 3;

const FROM: &str = "expected \"authorization\", \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \
                    \"subprotocol:PREFIX*\" or \"subprotocol:NAME,*\"";

/// The types, by their words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    ApiKeys,
    ClientCertificate,
    Jwt,
    Basic,
    Forward,
    Introspection,
}

const TYPES: [(&str, Type); 6] = [
    ("api_keys", Type::ApiKeys),
    ("client_certificate", Type::ClientCertificate),
    ("jwt", Type::Jwt),
    ("basic", Type::Basic),
    ("forward", Type::Forward),
    ("introspection", Type::Introspection),
];

impl Builder<'_, '_> {
    /// A URL of a server that is asked becomes an upstream of its own, one per server.
    pub fn auth_methods(
        &mut self,
        typed: &[Section<file::Auth>],
        upstreams: &mut Vec<Arc<Upstream>>,
        timeouts: &Timeouts,
    ) -> Vec<Arc<Method>> {
        let mut methods: Vec<Arc<Method>> = Vec::new();
        for section in typed {
            let one = section.get_ref();
            self.require(section, "auth.name", &one.name, "name = \"users\"");
            self.require(section, "auth.type", &one.kind, "type = \"api_keys\"");
            let name = self.read("auth.name", &one.name, value::name);
            let kind = self.read("auth.type", &one.kind, kind);
            let (Some(name), Some(kind)) = (name, kind) else { continue };
            if let (true, Some(at)) = (methods.iter().any(|known| known.name == name), &one.name) {
                let why = format!("{} is the name of an earlier [[auth]]; choose another", quoted(&name));
                self.problems.add(at.span(), "auth.name", &why);
            }
            methods.extend(self.method(section, (name, kind), (&mut *upstreams, timeouts)).map(Arc::new));
            if let (true, Some(at)) = (key_sources(&methods).len() > KEY_SOURCES_MAX, &one.jwks_url) {
                let why = format!("is one more than the {KEY_SOURCES_MAX} key sets that can be fetched");
                self.problems.add(at.span(), "auth.jwks_url", &why);
            }
        }
        methods
    }

    /// Reports a key that is missing.
    pub(super) fn require(&mut self, section: &Section<file::Auth>, key: &str, typed: &Typed, example: &str) {
        if typed.is_none() {
            self.problems.add(section.span(), key, &format!("missing; add for example {example}"));
        }
    }

    fn method(
        &mut self,
        section: &Section<file::Auth>,
        (name, kind): (String, Type),
        servers: (&mut Vec<Arc<Upstream>>, &Timeouts),
    ) -> Option<Method> {
        let typed = section.get_ref();
        let mut from = self.list("auth.from", &typed.from, source);
        match (kind, &typed.from) {
            (Type::ClientCertificate, Some(at)) => {
                let why = "has no effect on certificates, which are shown in the TLS handshake; remove it";
                self.problems.add(at.span(), "auth.from", why);
            }
            (Type::Basic, Some(at)) => {
                let why = "has no effect on passwords, which stand in Authorization; remove it";
                self.problems.add(at.span(), "auth.from", why);
            }
            (Type::Forward, Some(at)) => {
                let why = "has no effect on forward auth, whose server looks at the whole head; remove it";
                self.problems.add(at.span(), "auth.from", why);
            }
            (Type::Basic, None) => from = vec![Source::Authorization("Basic")],
            (Type::ClientCertificate | Type::Forward, None) => {}
            (_, Some(at)) if at.get_ref().is_empty() => {
                self.problems.add(at.span(), "auth.from", &format!("is empty; {FROM}"));
            }
            (_, None) => from = vec![Source::Authorization("Bearer")],
            (_, Some(_)) => {}
        }
        for (key, at, types) in keys_of_types(typed) {
            if !types.contains(&kind) {
                let names: Vec<_> =
                    TYPES.iter().filter(|(_, kind)| types.contains(kind)).map(|(name, _)| *name).collect();
                let why = format!("belongs to type = \"{}\"; remove it", names.join("\" or \""));
                self.problems.add(at, &format!("auth.{key}"), &why);
            }
        }
        let kind = match kind {
            Type::Basic => self.basic(section, &name),
            Type::ClientCertificate => Kind::ClientCertificate,
            Type::ApiKeys => Kind::ApiKeys(self.api_keys(section)),
            Type::Jwt => Kind::Jwt(Box::new(self.jwt(section, &name))),
            Type::Forward => Kind::Forward(self.forward(section, servers)?),
            Type::Introspection => Kind::Introspection(self.introspection(section, servers)?),
        };
        Some(Method { name, from, kind })
    }

    fn basic(&mut self, section: &Section<file::Auth>, name: &str) -> Kind {
        let typed = section.get_ref();
        self.require(section, "auth.file", &typed.file, "file = \"users.htpasswd\"");
        let users = self.read("auth.file", &typed.file, users).unwrap_or_default();
        Kind::Basic { users: Arc::new(users), realm: self.take("auth.realm", &typed.realm, name.to_owned(), realm) }
    }

    fn api_keys(&mut self, section: &Section<file::Auth>) -> ApiKeys {
        let typed = &section.get_ref().keys;
        if typed.is_none() {
            let why = "missing; add for example keys = [{ owner = \"acme\", sha256 = \"...\" }]";
            self.problems.add(section.span(), "auth.keys", why);
        }
        let (mut keys, mut seen) = (Vec::new(), HashMap::new());
        for element in typed.iter().flat_map(|list| list.get_ref()) {
            let mut key = match api_key(element.get_ref()) {
                Ok(key) => key,
                Err(why) => {
                    self.problems.add(element.span(), "auth.keys", &why);
                    continue;
                }
            };
            if let Some(owner) = seen.insert(key.hash, key.owner.clone()) {
                let why = format!("is the key of {} already; each owner needs one of its own", quoted(&owner));
                self.problems.add(element.span(), "auth.keys", &why);
            }
            key.limits = self.key_limits(element);
            keys.push(key);
        }
        ApiKeys::new(keys)
    }

    /// What a route asks for; `None` if nothing.
    pub fn route_auth(&mut self, route: &file::Route, methods: &[Arc<Method>]) -> Option<Auth> {
        let scopes = self.list("route.scopes", &route.scopes, permission);
        let roles = self.list("route.roles", &route.roles, permission);
        if route.auth.is_none() {
            for (key, typed) in [("route.scopes", &route.scopes), ("route.roles", &route.roles)] {
                if let Some(at) = typed {
                    self.problems.add(at.span(), key, "has no effect without auth, which says whose they are");
                }
            }
        }
        let requirement = self.read("route.auth", &route.auth, |v| {
            let requirement = requirement(v, methods, 0)?;
            match requirement.methods().len() {
                0..=METHODS_MAX => Ok(requirement),
                many => Err(format!("combines {many} methods; at most {METHODS_MAX}")),
            }
        })?;
        Some(Auth::new(requirement, scopes, roles))
    }
}

fn kind(value: &Value) -> Parsed<Type> {
    match value::word(value, &TYPES)? {
        Type::Jwt if !cfg!(feature = "jwt") => {
            Err("\"jwt\" cannot be used: this build has no JSON Web Tokens (feature \"jwt\")".to_owned())
        }
        Type::Basic if !cfg!(feature = "basic") => {
            Err("\"basic\" cannot be used: this build has no passwords (feature \"basic\")".to_owned())
        }
        kind => Ok(kind),
    }
}

/// Users with the hashes of their passwords.
fn users(value: &Value) -> Parsed<Users> {
    let path = text(value)?;
    let bytes = value::file(path, FILE_BYTES_MAX)?;
    let wrong = |why: &str| format!("{} {why}", quoted(path));
    let text = str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8"))?;
    Users::parse(text).map_err(|why| wrong(&why))
}

/// For a quoted string in WWW-Authenticate.
fn realm(value: &Value) -> Parsed<String> {
    let realm = text(value)?;
    let fits = (1..=100).contains(&realm.len())
        && realm.bytes().all(|byte| (byte.is_ascii_graphic() && !b"\"\\".contains(&byte)) || byte == b' ');
    match fits {
        true => Ok(realm.to_owned()),
        false => Err(format!("{} is not a realm; expected up to 100 printable ASCII characters", quoted(realm))),
    }
}

/// The keys that are written and have a meaning for some types only, with those.
fn keys_of_types(typed: &file::Auth) -> Vec<(&'static str, Range<usize>, &'static [Type])> {
    const JWT: &[Type] = &[Type::Jwt];
    const BASIC: &[Type] = &[Type::Basic];
    let require = typed.require.as_ref().map(|table| ("require", table.span(), JWT));
    const ASKS: &[Type] = &[Type::Forward, Type::Introspection];
    const FORWARD: &[Type] = &[Type::Forward];
    const INTROSPECTION: &[Type] = &[Type::Introspection];
    const TOKENS: &[Type] = &[Type::Jwt, Type::Introspection];
    let lists = [
        ("keys", &typed.keys, &[Type::ApiKeys, Type::Jwt][..]),
        ("issuer", &typed.issuer, TOKENS),
        ("audience", &typed.audience, TOKENS),
        ("headers", &typed.headers, FORWARD),
        ("copy", &typed.copy, FORWARD),
        ("cache", &typed.cache, FORWARD),
    ];
    let values = [
        ("file", &typed.file, BASIC),
        ("realm", &typed.realm, BASIC),
        ("jwks_url", &typed.jwks_url, JWT),
        ("jwks_ca", &typed.jwks_ca, JWT),
        ("jwks_refresh", &typed.jwks_refresh, JWT),
        ("leeway", &typed.leeway, TOKENS),
        ("expiry", &typed.expiry, JWT),
        ("subject_claim", &typed.subject_claim, TOKENS),
        ("roles_claim", &typed.roles_claim, TOKENS),
        ("max_token", &typed.max_token, JWT),
        ("url", &typed.url, ASKS),
        ("upstream", &typed.upstream, ASKS),
        ("path", &typed.path, ASKS),
        ("host", &typed.host, ASKS),
        ("timeout", &typed.timeout, ASKS),
        ("max_pending", &typed.max_pending, ASKS),
        ("ttl", &typed.ttl, ASKS),
        ("negative_ttl", &typed.negative_ttl, ASKS),
        ("method", &typed.method, FORWARD),
        ("identity_header", &typed.identity_header, FORWARD),
        ("expires_header", &typed.expires_header, FORWARD),
        ("client_id", &typed.client_id, INTROSPECTION),
        ("client_secret_file", &typed.client_secret_file, INTROSPECTION),
        ("bearer_file", &typed.bearer_file, INTROSPECTION),
    ];
    let lists = lists.into_iter().filter_map(|(key, typed, types)| Some((key, typed.as_ref()?.span(), types)));
    let values = values.into_iter().filter_map(|(key, typed, types)| Some((key, typed.as_ref()?.span(), types)));
    lists.chain(values).chain(require).collect()
}

/// `"users"`, `{ any = ["users", "keys"] }`, `{ all = [...] }`, and these within each other.
fn requirement(value: &Value, methods: &[Arc<Method>], depth: usize) -> Parsed<Requirement> {
    const RIGHT: &str = "expected the name of an [[auth]], { any = [...] } or { all = [...] }";
    match value {
        Value::String(name) => {
            let known = methods.iter().find(|method| method.name == *name);
            known.map(|method| Requirement::Method(Arc::clone(method))).ok_or_else(|| {
                let names: Vec<_> = methods.iter().map(|method| method.name.as_str()).collect();
                let right = match names.as_slice() {
                    [] => "; add an [[auth]] section with that name".to_owned(),
                    names => suggestion(name, names),
                };
                format!("no [[auth]] is named {}{right}", quoted(name))
            })
        }
        Value::Table(table) if depth < DEPTH_MAX => {
            value::only_keys(table, &["any", "all"])?;
            let parts = |list: &Value| -> Parsed<Vec<Requirement>> {
                let list = list.as_array().filter(|list| !list.is_empty()).ok_or(RIGHT)?;
                list.iter().map(|part| requirement(part, methods, depth + 1)).collect()
            };
            match (table.get("any"), table.get("all")) {
                (Some(any), None) => parts(any).map(Requirement::Any),
                (None, Some(all)) => parts(all).map(Requirement::All),
                _ => Err(format!("needs one of any and all; {RIGHT}")),
            }
        }
        Value::Table(_) => Err(format!("is nested more than {DEPTH_MAX} levels deep")),
        value => Err(format!("{} is not valid; {RIGHT}", shown(value))),
    }
}

fn source(value: &Value) -> Parsed<Source> {
    let written = text(value)?;
    let wrong = || format!("{} is not a place of credentials; {FROM}", quoted(written));
    let (kind, name) = written.split_once(':').unwrap_or((written, ""));
    match kind {
        "authorization" if written == kind => Ok(Source::Authorization("Bearer")),
        "header" if is_token(name) && !name.eq_ignore_ascii_case("authorization") => {
            Ok(Source::Header(name.to_owned()))
        }
        "cookie" if is_token(name) => Ok(Source::Cookie(name.to_owned())),
        "query" if !name.is_empty() => Ok(Source::Query(name.to_owned())),
        "subprotocol" => match (name.strip_suffix(",*"), name.strip_suffix('*')) {
            (Some(name), _) if is_token(name) => Ok(Source::SubprotocolAfter(name.to_owned())),
            (None, Some(prefix)) if is_token(prefix) => Ok(Source::SubprotocolPrefix(prefix.to_owned())),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// A token of RFC 9110 section 5.6.2.
pub(super) fn is_token(name: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || special.contains(&byte))
}

fn api_key(value: &Value) -> Parsed<ApiKey> {
    const RIGHT: &str = "expected for example { owner = \"acme\", sha256 = \"...\", scopes = [\"chat\"] }";
    // What stands there may be a key: no message shows it.
    let table = value.as_table().ok_or_else(|| format!("is not a table; {RIGHT}"))?;
    let limits = ["sessions", "handshakes", "burst", "messages", "bytes"];
    value::only_keys(table, &[&["owner", "sha256", "scopes", "roles"][..], &limits].concat())?;
    let (Some(owner), Some(hash)) = (table.get("owner"), table.get("sha256")) else {
        return Err(format!("has no owner or no sha256; {RIGHT}"));
    };
    let owner = value::name(owner).map_err(|e| format!("owner: {e}"))?;
    let hash = hash
        .as_str()
        .and_then(sha256)
        .ok_or("sha256: is not a SHA-256 in hexadecimal; make it with: printf %s \"$KEY\" | sha256sum")?;
    let list = |key: &str| -> Parsed<Vec<String>> {
        let Some(list) = table.get(key) else { return Ok(Vec::new()) };
        let list = list.as_array().ok_or_else(|| format!("{key}: is not a list; {RIGHT}"))?;
        list.iter().map(permission).collect()
    };
    Ok(ApiKey { hash, owner, scopes: list("scopes")?, roles: list("roles")?, limits: None })
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?, 16).ok()?;
    }
    Some(hash)
}

/// A scope or a role (RFC 6749 section 3.3).
fn permission(value: &Value) -> Parsed<String> {
    let written = text(value)?;
    let fits = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    if fits {
        Ok(written.to_owned())
    } else {
        Err(format!("{} is not a scope or role; it has no spaces", quoted(written)))
    }
}
