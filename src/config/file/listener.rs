//! Limits of a `[[listener]]`, and what a route has of the same.

use super::{RateLimit, Section, Typed};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    pub half_open: Typed,
    pub handshakes: Option<Section<HandshakeLimit>>,
    pub max_sessions: Typed,
    pub total: Option<Section<TotalLimit>>,
    pub per_address: Option<Section<AddressLimit>>,
}

/// Handshakes in a time.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandshakeLimit {
    pub rate: Typed,
    pub burst: Typed,
}

/// What all sessions may do together.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TotalLimit {
    pub messages: Option<Section<RateLimit>>,
    pub bytes: Option<Section<RateLimit>>,
}

/// What each address may have of a listener.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressLimit {
    pub half_open: Typed,
    pub sessions: Typed,
    pub handshakes: Typed,
    pub burst: Typed,
    pub messages: Option<Section<RateLimit>>,
    pub bytes: Option<Section<RateLimit>>,
    pub ipv6_prefix: Typed,
    pub entries: Typed,
}
