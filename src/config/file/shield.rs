//! `[shield]`: handshakes beyond what a worker can serve, and addresses that fail too often.

use super::{Section, Typed, TypedList};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shield {
    pub work: Typed,
    pub queue: Typed,
    pub wait: Typed,
    pub retry_after: Typed,
    pub ipv4_prefix: Typed,
    pub ipv6_prefix: Typed,
    pub cookies: TypedList,
    pub block: Option<Section<Block>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Block {
    pub failures: Typed,
    pub first: Typed,
    pub longest: Typed,
    pub entries: Typed,
    pub exempt: TypedList,
}
