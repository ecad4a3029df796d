//! What a route changes, and what it answers itself, in the words of `check`.

use crate::config::value::size_text;
use crate::policy::headers::HeaderRules;
use crate::policy::rewrite::{PathRewrite, PathRule};
use crate::policy::route::{Route, RouteAction};
use crate::proto::handshake::ForwardingHeaders;
use std::fmt::{self, Write};

/// `None` where an upstream answers.
pub fn reply_text(action: &RouteAction) -> Option<String> {
    match action {
        RouteAction::Proxy(_) | RouteAction::Split(_) | RouteAction::Files(_) => None,
        RouteAction::Respond(respond) => {
            Some(format!("responds with {}, {}", respond.status, size_text(respond.body.len() as u64)))
        }
        RouteAction::Redirect(redirect) => {
            Some(format!("redirects with {} to {}", redirect.status, redirect.location.source()))
        }
    }
}

/// In the order in which it happens.
pub fn write_path(out: &mut String, rewrite: &PathRewrite) -> fmt::Result {
    match &rewrite.rule {
        PathRule::Keep => {}
        PathRule::Strip(prefix) => write!(out, ", strips {prefix}")?,
        PathRule::Replace(rule) => {
            write!(out, ", replaces {} with {}", rule.pattern.source(), rule.template.source())?;
        }
        PathRule::Path(path) => write!(out, ", sends {}", path.source())?,
    }
    if !rewrite.add_prefix.is_empty() {
        write!(out, ", adds {}", rewrite.add_prefix)?;
    }
    Ok(())
}

pub fn write_headers(out: &mut String, route: &Route) -> fmt::Result {
    match route.forwarding_headers {
        ForwardingHeaders::XForwarded => {}
        ForwardingHeaders::Forwarded => write!(out, ", sends Forwarded instead of X-Forwarded-For")?,
        ForwardingHeaders::Both => write!(out, ", sends Forwarded and X-Forwarded-For")?,
    }
    for (what, rules) in [("request", &route.request_headers), ("response", &route.response_headers)] {
        if !rules.is_empty() {
            write!(out, ", {what} headers: {}", rules_text(rules))?;
        }
    }
    Ok(())
}

/// `removes A, sets B, adds C`.
fn rules_text(rules: &HeaderRules) -> String {
    let names = |rules: &[(String, _)]| rules.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let [set, add] = [&rules.set, &rules.add].map(|rules| names(rules));
    let parts = [("removes", &rules.remove), ("sets", &set), ("adds", &add)];
    let part = |(verb, names): &(&str, &Vec<String>)| format!("{verb} {}", names.join(" "));
    parts.iter().filter(|(_, names)| !names.is_empty()).map(part).collect::<Vec<_>>().join(", ")
}
