//! `[upstream.discover]` as TOML.

use super::{Section, Typed, TypedList};

/// Exactly one of the sources.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    pub dns: Option<Section<DiscoverDns>>,
    pub file: Option<Section<DiscoverFile>>,
    pub consul: Option<Section<DiscoverConsul>>,
    pub kubernetes: Option<Section<DiscoverKubernetes>>,
    pub eureka: Option<Section<DiscoverEureka>>,
    pub tls: Typed,
    pub path: Typed,
    pub allow_empty: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverDns {
    pub name: Typed,
    pub port: Typed,
    pub srv: Typed,
    pub servers: TypedList,
    pub timeout: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverFile {
    pub path: Typed,
    pub interval: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverConsul {
    pub address: Typed,
    pub service: Typed,
    pub tag: Typed,
    pub datacenter: Typed,
    pub token_file: Typed,
    pub token_env: Typed,
    pub ca: Typed,
    pub wait: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverKubernetes {
    pub service: Typed,
    pub namespace: Typed,
    pub port: Typed,
    pub service_account: Typed,
    pub server: Typed,
    pub kubeconfig: Typed,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverEureka {
    pub address: Typed,
    pub app: Typed,
    pub interval: Typed,
    pub token_file: Typed,
    pub token_env: Typed,
    pub ca: Typed,
}
