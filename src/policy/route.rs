//! A route: what becomes of a request, and what a session on it may do. Which requests it gets is
//! `matching`, the path that it sends upstream `rewrite`.

use super::Facts;
use super::access::Access;
use super::ask::Check;
use super::auth::{Auth, Renewal};
use super::files::Files;
use super::headers::HeaderRules;
use super::key::{HashKey, mix, scale};
use super::keyed::Keyed;
use super::limit::{SessionLimit, SharedRate};
use super::origin::Origins;
use super::reply::{Redirect, Respond};
use super::rewrite::PathRewrite;
use super::shadow::Shadow;
use super::template::Variables;
use super::upstream::Upstream;
use crate::proto::handshake::{ForwardingHeaders, asks_for_websocket};
use crate::proto::http1::{FieldEdits, Request};
use crate::proto::settings::Settings;
use std::borrow::Cow;
use std::slice;
use std::sync::Arc;

/// What a session keeps of the route that it was admitted under, also after a reload.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// For logs and metrics: the `name` of the file, else host and path as written. Unique in a
    /// snapshot.
    pub name: String,
    pub action: RouteAction,
    /// The path that is sent upstream.
    pub rewrite: PathRewrite,
    /// The fields of the request that is sent upstream.
    pub request_headers: HeaderRules,
    /// The fields of the upstream's response.
    pub response_headers: HeaderRules,
    /// Replaces the Host sent upstream.
    pub host_header: Option<String>,
    /// The pages that may open sessions; judged after the rules of the handshake.
    pub origins: Origins,
    /// The clients that may; judged next.
    pub access: Option<Arc<Access>>,
    /// How the upstream learns of the client.
    pub forwarding_headers: ForwardingHeaders,
    /// Checked in this order, after origins and addresses.
    pub checks: Vec<Check>,
    /// Checked last; `None` admits everybody.
    pub auth: Option<Auth>,
    /// What it does when they are about to end.
    pub renewal: Option<Renewal>,
    pub sessions: SessionLimit,
    /// Handshakes of all clients together.
    pub handshakes: Option<SharedRate>,
    /// Of all its sessions together.
    pub total: Vec<SharedRate>,
    /// What each client may have, by its address and by who it is.
    pub by_address: Option<Keyed>,
    pub by_identity: Option<Keyed>,
    /// A share of the sessions goes to a second upstream as well.
    pub shadow: Option<Shadow>,
    /// What it takes, if it proxies.
    pub protocols: Protocols,
    pub settings: Arc<Settings>,
}

/// The protocols that a route takes; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    pub websocket: bool,
    /// Plain HTTP.
    pub http: bool,
}

impl Default for Protocols {
    fn default() -> Protocols {
        Protocols { websocket: true, http: true }
    }
}

impl Protocols {
    /// A request is judged by the rules of plain HTTP. A route that takes no WebSockets ignores the
    /// wish for one, as any server may (RFC 9110 section 7.8).
    pub fn is_plain(self, request: &Request<'_>) -> bool {
        self.http && !(self.websocket && asks_for_websocket(request))
    }
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// It goes to an endpoint of this upstream.
    Proxy(Arc<Upstream>),
    /// It goes to one of several upstreams.
    Split(Split),
    /// It gets a file.
    Files(Files),
    /// It gets this response.
    Respond(Respond),
    /// It is sent elsewhere.
    Redirect(Redirect),
}

/// Upstreams that share the requests of a route.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    upstreams: Vec<Arc<Upstream>>,
    /// The share of each, in the same order.
    weights: Vec<u32>,
    /// The last of them, which gets what is left.
    last: Arc<Upstream>,
    /// Requests with the same key go to the same upstream.
    key: Option<HashKey>,
}

impl Split {
    /// `None` without any part.
    pub fn new(parts: Vec<(Arc<Upstream>, u32)>, key: Option<HashKey>) -> Option<Split> {
        let last = Arc::clone(&parts.last()?.0);
        let (upstreams, weights) = parts.into_iter().unzip();
        Some(Split { upstreams, weights, last, key })
    }

    /// The upstream for a request, by chance where it has no key. Of two parts, the one whose share
    /// grows keeps the keys that it has.
    pub(super) fn choose(&self, facts: &Facts<'_>) -> &Arc<Upstream> {
        let key = self.key.as_ref().and_then(|key| key.hash(facts)).unwrap_or(facts.random);
        // Not the bits that choose the endpoint of a hash.
        let sum = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = scale(mix(!key), sum);
        let parts = self.upstreams.iter().zip(&self.weights);
        let found = parts.into_iter().find(|(_, weight)| {
            let found = left < u64::from(**weight);
            left = left.saturating_sub(u64::from(**weight));
            found
        });
        found.map_or(&self.last, |(upstream, _)| upstream)
    }

    /// No key decides, for any request.
    pub fn is_by_chance(&self) -> bool {
        self.key.is_none()
    }

    /// The share of each upstream.
    pub fn weights(&self) -> impl Iterator<Item = (&Arc<Upstream>, u32)> {
        self.upstreams.iter().zip(self.weights.iter().copied())
    }
}

impl Route {
    /// A route to `upstream` with every option at its default.
    pub fn new(name: String, upstream: Arc<Upstream>) -> Route {
        Route::with_action(name, RouteAction::Proxy(upstream))
    }

    /// A route with every option at its default.
    pub fn with_action(name: String, action: RouteAction) -> Route {
        Route {
            name,
            action,
            rewrite: PathRewrite::default(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            host_header: None,
            origins: Origins::default(),
            access: None,
            forwarding_headers: ForwardingHeaders::default(),
            checks: Vec::new(),
            auth: None,
            renewal: None,
            shadow: None,
            sessions: SessionLimit::new(None),
            handshakes: None,
            total: Vec::new(),
            by_address: None,
            by_identity: None,
            protocols: Protocols::default(),
            settings: Arc::default(),
        }
    }

    /// The query that its upstream gets, and the changes to the fields of the request: what the
    /// route says, then who the client is, and no credential that is not the upstream's business.
    /// `response` gets what follows for the response.
    pub fn forwarded<'a>(&self, variables: &Variables<'a>, response: &mut FieldEdits) -> (Cow<'a, str>, FieldEdits) {
        let request = variables.facts.request;
        let mut edits = self.request_headers.edits(variables);
        for (name, value) in variables.identity.iter().flat_map(|identity| &identity.fields) {
            edits.set(name, value.clone());
        }
        if self.settings.relay.refresh.is_some() {
            // A message that is compressed could not be recognised.
            edits.remove("Sec-WebSocket-Extensions");
        }
        let Some(auth) = &self.auth else { return (request.query.into(), edits) };
        auth.conceal(request, &mut edits, response);
        (auth.public_query(request.query), edits)
    }

    /// Goes on counting where `before` is.
    pub fn inherit(&self, before: &Route) {
        self.sessions.inherit(&before.sessions);
        SharedRate::inherit_from(&self.handshakes, &before.handshakes);
        SharedRate::inherit_all(&self.total, &before.total);
        Keyed::inherit_from(&self.by_address, &before.by_address);
        Keyed::inherit_from(&self.by_identity, &before.by_identity);
    }

    /// Its requests go to an upstream, or to files: they are judged by the rules of their protocol.
    pub fn proxies(&self) -> bool {
        match self.action {
            RouteAction::Proxy(_) | RouteAction::Split(_) | RouteAction::Files(_) => true,
            RouteAction::Respond(_) | RouteAction::Redirect(_) => false,
        }
    }

    /// The upstreams that its sessions may go to.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        match &self.action {
            RouteAction::Proxy(upstream) => slice::from_ref(upstream),
            RouteAction::Split(split) => &split.upstreams,
            RouteAction::Files(_) | RouteAction::Respond(_) | RouteAction::Redirect(_) => &[],
        }
    }
}
