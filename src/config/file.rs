//! The TOML as typed: its sections and keys, and nothing of what they mean. Every value is taken as it stands, of
//! whatever type, with its place in the text; `build.rs` judges it, so that all wrong values are told at once.
//! Each key is described in `example.toml`.

use serde::Deserialize;
use toml::{Spanned, Value};

/// A value, if the key is there.
pub type Typed = Option<Spanned<Value>>;

/// A list of values, if the key is there.
pub type TypedList = Option<Spanned<Vec<Spanned<Value>>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct File {
    pub workers: Workers,
    pub listener: Vec<Spanned<Listener>>,
    pub route: Vec<Spanned<Route>>,
    pub upstream: Vec<Spanned<Upstream>>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub sockets: Sockets,
    pub drain: Drain,
    pub log: Log,
    pub admin: Admin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Workers {
    pub count: Typed,
    pub pin: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Listener {
    pub listen: Typed,
    pub trusted_proxies: TypedList,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Route {
    pub name: Typed,
    pub host: Typed,
    pub path: Typed,
    pub upstream: Typed,
    pub strip_prefix: Typed,
    pub host_header: Typed,
    pub mode: Typed,
    pub on_upstream_loss: Typed,
    pub on_upstream_loss_code: Typed,
    pub limits: FrameLimits,
    pub timeouts: Timeouts,
}

/// What a route may set of [`Limits`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct FrameLimits {
    pub max_frame: Typed,
    pub max_message: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Upstream {
    pub name: Typed,
    pub endpoints: TypedList,
    pub balance: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Limits {
    pub max_sessions: Typed,
    pub max_handshakes: Typed,
    pub head: Typed,
    pub buffers: Typed,
    pub max_frame: Typed,
    pub max_message: Typed,
}

/// Of the whole process, and of a route.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Timeouts {
    /// Not in a route: it runs before one is known.
    pub request_head: Typed,
    pub connect: Typed,
    pub connect_total: Typed,
    pub upstream_head: Typed,
    pub idle: Typed,
    pub close: Typed,
    pub write_stall: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Sockets {
    pub notsent_lowat: Typed,
    pub keepalive: Typed,
    pub user_timeout: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Drain {
    pub spread: Typed,
    pub deadline: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Log {
    pub access: Typed,
    pub format: Typed,
    pub level: Typed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct Admin {
    pub listen: Typed,
    pub fault_injection: Typed,
}
