//! What a route does with a request, other than sending it to an upstream: `files`, `respond`,
//! `redirect`.

use super::build::Builder;
use super::file::{self, Section, Typed};
use super::rewrite::{header_value, template};
use super::value::{Parsed, quoted, shown, size_text, text};
use crate::policy::files::Files;
use crate::policy::headers::Direction;
use crate::policy::reply::{LocationFault, Redirect, Respond};
use crate::policy::template::{Names, Template};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use toml::{Spanned, Value};

/// Bytes of the body of a response.
const BODY_MAX: u64 = 64 << 10;

impl Builder<'_, '_> {
    /// Reports a second action, and keys that only an upstream gives a meaning.
    pub fn check_action(&mut self, route: &file::Route) {
        let respond = route.respond.as_ref().map(|section| ("respond", section.span()));
        let redirect = route.redirect.as_ref().map(|section| ("redirect", section.span()));
        let files = route.files.as_ref().map(|files| ("files", files.span()));
        // Of the two, `split.rs` takes care.
        let split = route.split.as_ref().map(|split| ("split", split.span()));
        let proxied = route.upstream.as_ref().map(|upstream| ("upstream", upstream.span())).or(split);
        let is_proxied = proxied.is_some();
        let mut actions: Vec<_> =
            [respond.clone(), redirect.clone(), files.clone(), proxied].into_iter().flatten().collect();
        actions.sort_by_key(|(_, at)| at.start);
        if let [(first, _), others @ ..] = actions.as_slice() {
            for (other, at) in others {
                let why = format!("excludes {first}; a route has one of upstream, split, files, respond and redirect");
                self.problems.add(at.clone(), &format!("route.{other}"), &why);
            }
        }
        let serves_files = files.is_some();
        if let (Some((action, _)), false) = (respond.or(redirect).or(files), is_proxied) {
            let keys = keys_for_upstreams(route).into_iter();
            for (key, at) in keys.filter(|(key, _)| !(serves_files && FOR_FILES.contains(key))) {
                let why = format!("has no effect in a route with {action}; remove it");
                self.problems.add(at, &format!("route.{key}"), &why);
            }
        }
    }

    /// `files`: a directory, or a table with it.
    pub fn files(&mut self, typed: &Typed) -> Option<Files> {
        self.read("route.files", typed, files)
    }

    pub fn respond(&mut self, section: &Section<file::Respond>, captures: &[&str]) -> Respond {
        let typed = section.get_ref();
        let names = Names { captures, groups: &[] };
        let status = self.take("route.respond.status", &typed.status, 200, respond_status);
        let body = self.body(typed);
        if let (204 | 205 | 304, false, Some(at)) =
            (status, body.is_empty(), typed.body.as_ref().or(typed.file.as_ref()))
        {
            let why = format!("a response with status {status} has no body; remove it");
            self.problems.add(at.span(), "route.respond.body", &why);
        }
        let mut headers = Vec::new();
        match &typed.content_type {
            None if body.is_empty() => {}
            None => headers.push(("Content-Type".to_owned(), Template::literal("text/plain; charset=utf-8"))),
            content_type => {
                let key = "route.respond.content_type";
                let written = self.read(key, content_type, |v| header_value(v, &Names::default()));
                headers.extend(written.map(|template| ("Content-Type".to_owned(), template)));
            }
        }
        let key = "route.respond.headers";
        for name in typed.headers.keys().filter(|name| name.get_ref().eq_ignore_ascii_case("content-type")) {
            self.problems.add(name.span(), &format!("{key}.{}", name.get_ref()), "use content_type");
        }
        headers.extend(self.header_values(key, &typed.headers, Direction::Response, &names));
        Respond { status, headers, body: body.into() }
    }

    fn body(&mut self, typed: &file::Respond) -> Vec<u8> {
        if let (Some(_), Some(file)) = (&typed.body, &typed.file) {
            self.problems.add(file.span(), "route.respond.file", "excludes body; remove one of them");
        }
        let written = self.read("route.respond.body", &typed.body, |v| bounded(text(v)?.as_bytes().to_vec()));
        let read = self.read("route.respond.file", &typed.file, body_file);
        written.or(read).unwrap_or_default()
    }

    pub fn redirect(&mut self, section: &Section<file::Redirect>, captures: &[&str]) -> Option<Redirect> {
        let typed = section.get_ref();
        let key = "route.redirect.location";
        if typed.location.is_none() {
            let why = "missing; add for example location = \"https://{host}{path}{query}\"";
            self.problems.add(section.span(), key, why);
        }
        let names = Names { captures, groups: &[] };
        let status = self.take("route.redirect.status", &typed.status, 308, redirect_status);
        let location = self.read(key, &typed.location, |v| location(text(v)?, &names))?;
        Some(Redirect { status, location })
    }
}

/// Of these keys, those that files give a meaning as well.
const FOR_FILES: [&str; 11] = [
    "strip_prefix",
    "add_prefix",
    "rewrite",
    "response_headers",
    "limits.max_body",
    "limits.max_sessions",
    "timeouts.decision",
    "timeouts.first_byte",
    "timeouts.request_body",
    "timeouts.idle",
    "timeouts.write_stall",
];

/// The keys of `route` that only an upstream gives a meaning, with their places.
fn keys_for_upstreams(route: &file::Route) -> Vec<(&'static str, Range<usize>)> {
    let (limits, timeouts) = (&route.limits, &route.timeouts);
    let typed: [(&str, &Typed); 23] = [
        ("strip_prefix", &route.strip_prefix),
        ("add_prefix", &route.add_prefix),
        ("host_header", &route.host_header),
        ("mode", &route.mode),
        ("on_upstream_loss", &route.on_upstream_loss),
        ("on_upstream_loss_code", &route.on_upstream_loss_code),
        ("on_upstream_error_code", &route.on_upstream_error_code),
        ("splice", &route.splice),
        ("on_endpoint_down", &route.on_endpoint_down),
        ("on_endpoint_down_code", &route.on_endpoint_down_code),
        ("limits.max_frame", &limits.max_frame),
        ("limits.max_message", &limits.max_message),
        ("limits.max_body", &limits.max_body),
        ("limits.max_sessions", &limits.max_sessions),
        ("timeouts.decision", &timeouts.decision),
        ("timeouts.connect", &timeouts.connect),
        ("timeouts.connect_total", &timeouts.connect_total),
        ("timeouts.upstream_head", &timeouts.upstream_head),
        ("timeouts.first_byte", &timeouts.first_byte),
        ("timeouts.request_body", &timeouts.request_body),
        ("timeouts.idle", &timeouts.idle),
        ("timeouts.close", &timeouts.close),
        ("timeouts.write_stall", &timeouts.write_stall),
    ];
    let mut keys: Vec<_> = typed.iter().filter_map(|(key, typed)| Some((*key, typed.as_ref()?.span()))).collect();
    keys.extend(route.rewrite.as_ref().map(|section| ("rewrite", section.span())));
    keys.extend(route.heartbeat.as_ref().map(|section| ("heartbeat", section.span())));
    keys.extend(route.retry_on.as_ref().map(|list| ("retry_on", list.span())));
    for (key, headers) in [("request_headers", &route.request_headers), ("response_headers", &route.response_headers)] {
        let removed = headers.remove.as_ref().map(Spanned::span);
        let valued = headers.set.keys().chain(headers.add.keys()).map(Spanned::span);
        keys.extend(removed.into_iter().chain(valued).min_by_key(|at| at.start).map(|at| (key, at)));
    }
    keys
}

/// The directory must be there, so that a wrong word is found at once; it may go later, and come
/// back.
fn files(value: &Value) -> Parsed<Files> {
    if !cfg!(feature = "files") {
        return Err("cannot be used: this build serves no files (feature \"files\")".to_owned());
    }
    const RIGHT: &str = "expected a directory such as \"site\", or { root = \"site\", index = \"index.html\" }";
    let (root, index) = match value {
        Value::String(root) => (root.as_str(), Files::INDEX),
        Value::Table(table) => {
            if let Some(key) = table.keys().find(|key| !["root", "index"].contains(&key.as_str())) {
                return Err(format!("has no key {}; {RIGHT}", quoted(key)));
            }
            let root = table.get("root").ok_or_else(|| format!("has no root; {RIGHT}"))?;
            (text(root)?, table.get("index").map_or(Ok(Files::INDEX), text)?)
        }
        other => return Err(format!("{} is not valid; {RIGHT}", shown(other))),
    };
    if index.is_empty() || index.starts_with('.') || index.contains(['/', '\\']) || index.contains(char::is_control) {
        return Err(format!("{} is not the name of an index; expected for example \"index.html\"", quoted(index)));
    }
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", quoted(root));
    if !std::fs::metadata(root).map_err(unreadable)?.is_dir() {
        return Err(format!("{} is not a directory; expected for example \"site\"", quoted(root)));
    }
    Ok(Files { root: Path::new(root).into(), index: index.into() })
}

fn status_of(value: &Value) -> Option<u16> {
    value.as_integer().and_then(|number| u16::try_from(number).ok())
}

fn respond_status(value: &Value) -> Parsed<u16> {
    match status_of(value) {
        Some(status) if Redirect::STATUSES.contains(&status) => Err(format!("{status} is a redirect; use redirect")),
        Some(status @ 200..=599) => Ok(status),
        _ => Err(format!("{} is not the status of a final response; expected 200 to 599", shown(value))),
    }
}

fn redirect_status(value: &Value) -> Parsed<u16> {
    let status = status_of(value).filter(|status| Redirect::STATUSES.contains(status));
    status.ok_or_else(|| format!("{} is not valid; expected 301, 302, 303, 307 or 308", shown(value)))
}

fn bounded(body: Vec<u8>) -> Parsed<Vec<u8>> {
    if body.len() as u64 > BODY_MAX {
        return Err(format!("is too large; at most {}", size_text(BODY_MAX)));
    }
    Ok(body)
}

/// The content of a regular file: a pipe could keep the process waiting.
fn body_file(value: &Value) -> Parsed<Vec<u8>> {
    let path = text(value)?;
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", quoted(path));
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{} is not a regular file; expected for example \"maintenance.html\"", quoted(path)));
    }
    let mut body = Vec::new();
    File::open(path).and_then(|file| file.take(BODY_MAX + 1).read_to_end(&mut body)).map_err(unreadable)?;
    bounded(body).map_err(|why| format!("{} {why}", quoted(path)))
}

fn location(written: &str, names: &Names<'_>) -> Parsed<Template> {
    let template = template(written, names)?;
    let why = match Redirect::judge(&template) {
        Ok(()) => return Ok(template),
        Err(LocationFault::NotAbsolute) => {
            "is neither an absolute URL nor a path; expected for example \"https://{host}{path}\" or \"/new{path}\""
        }
        Err(LocationFault::NetworkPath) => {
            "begins with two slashes, after which a host follows; write the scheme, for example \"https://\""
        }
        Err(LocationFault::Authority) => {
            "lets a request choose the host; name it, or use {host}, before the first slash"
        }
        Err(LocationFault::Character) => "has a character not allowed in a URL; percent-encode it",
    };
    Err(format!("{} {why}", quoted(written)))
}
