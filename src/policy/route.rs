//! A route: what becomes of a request, and what a session on it may do. Which requests it gets is
//! `matching`, the path that it sends upstream `rewrite`.

use super::ask::Check;
use super::upstream::Upstream;
use crate::proto::settings::Settings;
use std::slice;
use std::sync::Arc;

/// What a session keeps of the route that it was admitted under, also after a reload.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// For logs and metrics: the `name` of the file, else host and path as written. Unique in a
    /// snapshot.
    pub name: String,
    pub action: RouteAction,
    /// Removed from the start of the path, at a segment boundary. Normalised: `/live`, never a
    /// slash at the end.
    pub strip_prefix: Option<String>,
    /// Replaces the Host sent upstream.
    pub host_header: Option<String>,
    /// Checked in this order, after the rules of the handshake.
    pub checks: Vec<Check>,
    pub settings: Arc<Settings>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// It goes to an endpoint of this upstream.
    Proxy(Arc<Upstream>),
}

impl Route {
    /// A route to `upstream` with every option at its default.
    pub fn new(name: String, upstream: Arc<Upstream>) -> Route {
        Route {
            name,
            action: RouteAction::Proxy(upstream),
            strip_prefix: None,
            host_header: None,
            checks: Vec::new(),
            settings: Arc::default(),
        }
    }

    /// The upstreams that its sessions may go to.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        match &self.action {
            RouteAction::Proxy(upstream) => slice::from_ref(upstream),
        }
    }
}
