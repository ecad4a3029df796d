//! Limits on what a session does: keys of `[limits]` and of a route's `limits`.

use super::{Limits, RouteLimits, Section, Typed};

/// A limit on a rate.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    pub rate: Typed,
    pub burst: Typed,
    pub close: Typed,
    pub patience: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionAge {
    pub max: Typed,
    pub jitter: Typed,
    pub close: Typed,
}

/// The keys that both sections have.
#[derive(Debug, Clone, Copy)]
pub struct FlowKeys<'a> {
    pub messages: &'a Option<Section<RateLimit>>,
    pub bytes: &'a Option<Section<RateLimit>>,
    pub control_frames: &'a Option<Section<RateLimit>>,
    pub upstream_messages: &'a Option<Section<RateLimit>>,
    pub upstream_bytes: &'a Option<Section<RateLimit>>,
    pub fragments: &'a Typed,
    pub session_age: &'a Option<Section<SessionAge>>,
}

impl Limits {
    pub fn flow(&self) -> FlowKeys<'_> {
        FlowKeys {
            messages: &self.messages,
            bytes: &self.bytes,
            control_frames: &self.control_frames,
            upstream_messages: &self.upstream_messages,
            upstream_bytes: &self.upstream_bytes,
            fragments: &self.fragments,
            session_age: &self.session_age,
        }
    }
}

impl RouteLimits {
    pub fn flow(&self) -> FlowKeys<'_> {
        FlowKeys {
            messages: &self.messages,
            bytes: &self.bytes,
            control_frames: &self.control_frames,
            upstream_messages: &self.upstream_messages,
            upstream_bytes: &self.upstream_bytes,
            fragments: &self.fragments,
            session_age: &self.session_age,
        }
    }
}
