//! Routes: which request goes where, and what a session on it may do.

use super::balance::Group;
use std::sync::Arc;

/// What a session keeps of the route that it was admitted under, also after a reload.
#[derive(Debug)]
pub struct Route {
    /// For logs and metrics: the `name` of the file, else host and path as written.
    pub name: String,
    /// Index in the snapshot, for counters.
    pub group: Arc<Group>,
    /// Removed from the start of the path, at a segment boundary.
    pub strip_prefix: Option<String>,
    /// Replaces the Host sent upstream.
    pub host_header: Option<String>,
    pub mode: Mode,
    pub rules: Rules,
    pub timeouts: crate::config::Timeouts,
    /// Close code for the client when the upstream ends without a Close; `None` passes the FIN on.
    pub on_upstream_loss: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Walks frame headers in place and checks them.
    #[default]
    Framed,
    /// A tunnel without checks.
    Opaque,
}

/// Frame limits of a route: fields of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Payload bytes of one frame; on the wire where compression is negotiated.
    pub max_frame: u64,
    /// Payload bytes of one message, all fragments together.
    pub max_message: u64,
}

/// All routes of a snapshot, most specific first where two match.
#[derive(Debug, Default)]
pub struct Routes {}

impl Routes {
    /// The route for a request: exact host before any host, exact path before prefix, the longest prefix wins.
    /// `host` is the request's Host as written (port and case do not matter), `path` the path as written
    /// (matched on a normalised copy: unreserved characters decoded, dot segments removed).
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let _ = (host, path);
        None
    }
}

impl Route {
    /// The path (without query) to send to `endpoint_base` (the endpoint's own path, `""` or `/base`): the
    /// client's bytes, but for the rewrite.
    pub fn rewrite(&self, endpoint_base: &str, path: &str) -> String {
        let _ = (endpoint_base, path);
        String::new()
    }
}
