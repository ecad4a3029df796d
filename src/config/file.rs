//! The configuration file as TOML: sections and keys without meaning. A value of any type is
//! accepted, with its place in the text; `build.rs` validates it, so that all errors are reported
//! at once. `example.toml` documents the keys.

pub mod discover;
mod flow;
mod listener;
mod shield;

pub use discover::Discover;
pub use flow::{FlowKeys, RateLimit, SessionAge};
pub use listener::{AddressLimit, HandshakeLimit, ListenerLimits, TotalLimit};
pub use shield::{Block, Shield};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use toml::{Spanned, Value};

/// A value, if the key is present.
pub type Typed = Option<Spanned<Value>>;

/// A list of values, if the key is present.
pub type TypedList = Option<Spanned<Vec<Spanned<Value>>>>;

/// A table with keys of any name, if the key is present.
pub type TypedTable = Option<Spanned<BTreeMap<String, Spanned<Value>>>>;

/// One section of an array of tables.
pub type Section<T> = Spanned<Table<T>>;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub workers: Table<Workers>,
    pub listener: Vec<Section<Listener>>,
    pub route: Vec<Section<Route>>,
    pub upstream: Vec<Section<Upstream>>,
    pub auth: Vec<Section<Auth>>,
    pub redis: Option<Section<Redis>>,
    pub limits: Table<Limits>,
    pub shield: Table<Shield>,
    pub timeouts: Table<Timeouts>,
    pub sockets: Table<Sockets>,
    pub drain: Table<Drain>,
    pub log: Table<Log>,
    pub admin: Table<Admin>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workers {
    pub count: Typed,
    pub pin: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    pub listen: Typed,
    pub trusted_proxies: TypedList,
    pub allow: TypedList,
    pub deny: TypedList,
    pub deny_file: Typed,
    pub proxy_protocol: Typed,
    pub redirect: Typed,
    pub limits: Option<Section<ListenerLimits>>,
    pub tls: Option<Table<ListenerTls>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTls {
    pub certificates: Vec<Section<Certificate>>,
    pub min_version: Typed,
    pub client_auth: Typed,
    pub client_ca: Typed,
    pub tickets: Typed,
}

/// A certificate chain with its key.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificate {
    pub cert: Typed,
    pub key: Typed,
    pub ocsp: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    pub ca: Typed,
    pub server_name: Typed,
    pub min_version: Typed,
    pub cert: Typed,
    pub key: Typed,
    pub resumption: Typed,
    pub insecure_skip_verify: Typed,
}

impl Certificate {
    /// The client certificate for an upstream.
    pub fn of(typed: &UpstreamTls) -> Certificate {
        Certificate { cert: typed.cert.clone(), key: typed.key.clone(), ocsp: None }
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    pub name: Typed,
    pub host: Typed,
    pub path: Typed,
    #[serde(rename = "match")]
    pub conditions: Vec<Section<Condition>>,
    pub priority: Typed,
    pub origins: TypedList,
    pub allow: TypedList,
    pub deny: TypedList,
    pub deny_file: Typed,
    pub protocols: TypedList,
    pub upstream: Typed,
    pub split: TypedList,
    pub split_key: Typed,
    pub files: Typed,
    pub respond: Option<Section<Respond>>,
    pub redirect: Option<Section<Redirect>>,
    pub strip_prefix: Typed,
    pub add_prefix: Typed,
    pub rewrite: Option<Section<Rewrite>>,
    pub request_headers: Table<Headers>,
    pub response_headers: Table<Headers>,
    pub host_header: Typed,
    pub forwarding_headers: Typed,
    pub mode: Typed,
    pub on_upstream_loss: Typed,
    pub on_upstream_loss_code: Typed,
    pub on_upstream_error_code: Typed,
    pub on_endpoint_down: Typed,
    pub on_endpoint_down_code: Typed,
    pub on_expired_code: Typed,
    pub on_revoked_code: Typed,
    pub credentials: Option<Section<Renewal>>,
    pub splice: Typed,
    pub retry_on: TypedList,
    pub auth: Typed,
    pub scopes: TypedList,
    pub roles: TypedList,
    pub heartbeat: Option<Section<Heartbeat>>,
    pub shadow: Option<Section<Shadow>>,
    pub limits: Table<RouteLimits>,
    pub timeouts: Table<Timeouts>,
}

/// What happens when the credentials of a session are about to end.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renewal {
    pub warn: Typed,
    pub warning: Typed,
    pub refresh: Typed,
    pub max_refresh: Typed,
    pub accepted: Typed,
    pub refused: Typed,
}

/// One element of a route's `match`: an input, and a comparison.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    pub method: Typed,
    pub header: Typed,
    pub query: Typed,
    pub cookie: Typed,
    pub subprotocol: Typed,
    pub client: Typed,
    pub cert_subject: Typed,
    pub cert_sha256: Typed,
    pub is: Typed,
    pub prefix: Typed,
    pub regex: Typed,
    pub present: Typed,
    pub not: Typed,
}

/// A response of a route's own.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Respond {
    pub status: Typed,
    pub body: Typed,
    pub file: Typed,
    pub content_type: Typed,
    pub headers: HeaderValues,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    pub status: Typed,
    pub location: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    pub pattern: Typed,
    pub replace: Typed,
    pub path: Typed,
}

/// Rules for the headers of one direction.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    pub remove: TypedList,
    pub set: HeaderValues,
    pub add: HeaderValues,
}

/// Header names, each with its value or a list of values.
pub type HeaderValues = Table<BTreeMap<Spanned<String>, Spanned<Value>>>;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    pub client: Typed,
    pub upstream: Typed,
    pub timeout: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shadow {
    pub upstream: Typed,
    pub percent: Typed,
    pub buffer: Typed,
}

/// One way to show who one is.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    pub name: Typed,
    #[serde(rename = "type")]
    pub kind: Typed,
    pub from: TypedList,
    pub keys: TypedList,
    pub file: Typed,
    pub realm: Typed,
    pub jwks_url: Typed,
    pub jwks_ca: Typed,
    pub jwks_refresh: Typed,
    pub issuer: TypedList,
    pub audience: TypedList,
    pub leeway: Typed,
    pub expiry: Typed,
    pub require: TypedTable,
    pub subject_claim: Typed,
    pub roles_claim: Typed,
    pub max_token: Typed,
    pub url: Typed,
    pub upstream: Typed,
    pub path: Typed,
    pub host: Typed,
    pub timeout: Typed,
    pub max_pending: Typed,
    pub ttl: Typed,
    pub negative_ttl: Typed,
    pub method: Typed,
    pub headers: TypedList,
    pub copy: TypedList,
    pub identity_header: Typed,
    pub expires_header: Typed,
    pub cache: TypedList,
    pub client_id: Typed,
    pub client_secret_file: Typed,
    pub bearer_file: Typed,
}

/// What each client may have.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimit {
    pub sessions: Typed,
    pub handshakes: Typed,
    pub burst: Typed,
    pub messages: Option<Section<RateLimit>>,
    pub bytes: Option<Section<RateLimit>>,
    pub ipv6_prefix: Typed,
    pub entries: Typed,
    pub shared: Typed,
}

/// Where limits are shared.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    pub urls: TypedList,
    pub cluster: Typed,
    pub username: Typed,
    pub password_file: Typed,
    pub ca: Typed,
    pub namespace: Typed,
    pub interval: Typed,
    pub timeout: Typed,
    pub host_timeout: Typed,
}

/// The [`Limits`] that a route can set.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    pub max_frame: Typed,
    pub max_message: Typed,
    pub max_body: Typed,
    pub max_sessions: Typed,
    pub handshakes: Option<Section<HandshakeLimit>>,
    pub total: Option<Section<TotalLimit>>,
    pub per_address: Option<Section<ClientLimit>>,
    pub per_identity: Option<Section<ClientLimit>>,
    pub messages: Option<Section<RateLimit>>,
    pub bytes: Option<Section<RateLimit>>,
    pub control_frames: Option<Section<RateLimit>>,
    pub upstream_messages: Option<Section<RateLimit>>,
    pub upstream_bytes: Option<Section<RateLimit>>,
    pub fragments: Typed,
    pub session_age: Option<Section<SessionAge>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub name: Typed,
    pub endpoints: TypedList,
    pub balance: Typed,
    pub sticky: Option<Table<Sticky>>,
    pub keep_alive: Table<KeepAlive>,
    pub hash_key: Typed,
    pub hash_load: Typed,
    pub slow_start: Typed,
    pub bind: TypedList,
    pub proxy_protocol: Typed,
    pub limits: Table<UpstreamLimits>,
    pub ejection: Table<Ejection>,
    pub retries: Table<Retries>,
    pub tls: Table<UpstreamTls>,
    pub health: Option<Section<HealthCheck>>,
    pub discover: Option<Section<Discover>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    #[serde(rename = "type")]
    pub kind: Typed,
    pub interval: Typed,
    pub jitter: Typed,
    pub timeout: Typed,
    pub rise: Typed,
    pub fall: Typed,
    pub initial: Typed,
    pub port: Typed,
    pub method: Typed,
    pub path: Typed,
    pub host: Typed,
    pub headers: TypedTable,
    pub status: Typed,
    pub ping: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamLimits {
    pub max_sessions: Typed,
    pub max_pending: Typed,
    pub endpoint_sessions: Typed,
    pub endpoint_pending: Typed,
    pub queue: Typed,
    pub queue_timeout: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    pub failures: Typed,
    pub failure_percent: Typed,
    pub window: Typed,
    pub min_handshakes: Typed,
    pub time: Typed,
    pub max_time: Typed,
    pub max_percent: Typed,
    pub early_end: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    pub cookie: Typed,
    pub secret: Typed,
    pub path: Typed,
    pub same_site: Typed,
    pub max_age: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepAlive {
    pub connections: Typed,
    pub idle: Typed,
    pub age: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    pub percent: Typed,
    pub reserve: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_sessions: Typed,
    pub max_handshakes: Typed,
    pub head: Typed,
    pub buffers: Typed,
    pub max_shadows: Typed,
    pub shadow_buffers: Typed,
    pub max_frame: Typed,
    pub max_message: Typed,
    pub max_body: Typed,
    pub messages: Option<Section<RateLimit>>,
    pub bytes: Option<Section<RateLimit>>,
    pub control_frames: Option<Section<RateLimit>>,
    pub upstream_messages: Option<Section<RateLimit>>,
    pub upstream_bytes: Option<Section<RateLimit>>,
    pub fragments: Typed,
    pub session_age: Option<Section<SessionAge>>,
}

/// For the whole process, and for a route.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Not in a route, like the next one: they apply before a route is selected.
    pub tls: Typed,
    pub request_head: Typed,
    pub keep_alive: Typed,
    pub request_body: Typed,
    pub decision: Typed,
    pub connect: Typed,
    pub connect_total: Typed,
    pub upstream_head: Typed,
    pub first_byte: Typed,
    pub idle: Typed,
    pub close: Typed,
    pub write_stall: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sockets {
    pub notsent_lowat: Typed,
    pub keepalive: Typed,
    pub user_timeout: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    pub spread: Typed,
    pub deadline: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub access: Typed,
    pub format: Typed,
    pub level: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub listen: Typed,
    pub fault_injection: Typed,
}

/// A `T` written as a table. The derived implementation for `T` alone would also accept a list of
/// its values.
#[derive(Debug, Default)]
pub struct Table<T>(T);

impl<T> From<T> for Table<T> {
    fn from(table: T) -> Table<T> {
        Table(table)
    }
}

impl<T> Deref for Table<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Table)
    }
}
