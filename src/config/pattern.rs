//! Host and path patterns of routes: `example.com`, `*.example.com`; `/chat`, `/live/*`,
//! `/room/{id}`, `/files/{*rest}`.

use super::endpoint::is_name;
use super::value::{Parsed, quoted};
use crate::policy::matching::{HostPattern, PathPattern, PathTemplate, Rest, TemplateSegment};
use crate::policy::path::{normal_host, normal_path};
use std::net::{Ipv4Addr, Ipv6Addr};

pub fn host(text: &str) -> Parsed<HostPattern> {
    let wrong = |why: &str| Err(format!("{} {why}", quoted(text)));
    if text.contains("://") || text.contains('/') {
        return wrong("is not a host; omit scheme and path, for example \"example.com\"");
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inside.parse::<Ipv6Addr>() {
            Ok(_) => Ok(HostPattern::Exact(normal_host(text).into_owned())),
            Err(_) => wrong("is not an IPv6 address; expected for example \"[2001:db8::1]\""),
        };
    }
    if text.contains(':') {
        return wrong("has a port; give the host alone, which matches all ports (an IPv6 address in brackets)");
    }
    let (name, under) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    if !is_name(name) && (under || name.parse::<Ipv4Addr>().is_err()) {
        return wrong(
            "is not a host; expected for example \"example.com\" or \"*.example.com\", non-ASCII as punycode",
        );
    }
    let name = normal_host(name);
    Ok(if under { HostPattern::Under(format!(".{name}")) } else { HostPattern::Exact(name.into_owned()) })
}

/// The most segments of a path pattern.
const SEGMENTS_MAX: usize = 100;

pub fn path(text: &str) -> Parsed<PathPattern> {
    if text.matches('/').count() > SEGMENTS_MAX {
        return Err(format!("{} has more than {SEGMENTS_MAX} segments", quoted(text)));
    }
    if text.contains(['{', '}']) {
        return template(text).map(PathPattern::Template);
    }
    match text.strip_suffix("/*") {
        Some("") => Ok(PathPattern::Under(String::new())),
        Some(prefix) => plain_path(text, prefix).map(PathPattern::Under),
        None => plain_path(text, text).map(PathPattern::Exact),
    }
}

fn template(text: &str) -> Parsed<PathTemplate> {
    // The slash at the start has an empty segment before it.
    let mut written: Vec<_> = text.split('/').collect();
    let rest = match written.last().copied() {
        Some("*") => Rest::Any,
        Some(last) => match last.strip_prefix("{*").and_then(|name| name.strip_suffix('}')) {
            Some(name) => Rest::Name(capture_name(text, name)?.into()),
            None => Rest::Nothing,
        },
        None => Rest::Nothing,
    };
    if rest != Rest::Nothing {
        written.pop();
    }
    let names = written.iter().map(|segment| segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')));
    let names = names.map(|name| name.map(|name| capture_name(text, name)).transpose());
    let names = names.collect::<Parsed<Vec<_>>>()?;
    // What is left must be a path where each name is a segment like any other.
    let literal = |(segment, name): (&&str, &Option<&str>)| name.map_or((*segment).to_owned(), |_| "x".to_owned());
    let plain = written.iter().zip(&names).map(literal).collect::<Vec<_>>().join("/");
    let normal = match plain.as_str() {
        "" if text.starts_with('/') => String::new(),
        _ => plain_path(text, &plain)?,
    };
    let segment = |(segment, name): (&str, &Option<&str>)| match name {
        Some(name) => TemplateSegment::Name((*name).into()),
        None => TemplateSegment::Literal(segment.to_owned()),
    };
    let template = PathTemplate { segments: normal.split('/').zip(&names).skip(1).map(segment).collect(), rest };
    let pattern = PathPattern::Template(template.clone());
    let names = pattern.names();
    match names.iter().enumerate().find(|(at, name)| names.iter().skip(at + 1).any(|other| other == *name)) {
        Some((_, twice)) => Err(format!("{} has the name {} twice; choose another", quoted(text), quoted(twice))),
        None => Ok(template),
    }
}

/// The name of a segment, as other values of the file refer to it.
fn capture_name<'a>(text: &str, name: &'a str) -> Parsed<&'a str> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(name);
    }
    let right = "expected a letter and up to 31 letters, digits or \"_\", for example \"/room/{id}\"";
    Err(format!("{} has a segment with an invalid name {}; {right}", quoted(text), quoted(name)))
}

/// A prefix to remove from the paths that `pattern` matches. Trailing slashes are ignored.
pub fn strip_prefix(text: &str, pattern: &PathPattern) -> Parsed<String> {
    let prefix = plain_path(text, text)?.trim_end_matches('/').to_owned();
    if prefix.is_empty() {
        return Err(format!("{} removes nothing; omit it", quoted(text)));
    }
    if pattern.can_begin_with(&prefix) {
        return Ok(prefix);
    }
    Err(format!("{} is not a prefix of this route's paths", quoted(text)))
}

/// A prefix to put in front of paths. Trailing slashes are ignored.
pub fn add_prefix(text: &str) -> Parsed<String> {
    let prefix = plain_path(text, text)?.trim_end_matches('/').to_owned();
    match prefix.as_str() {
        "" => Err(format!("{} adds nothing; omit it", quoted(text))),
        _ => Ok(prefix),
    }
}

/// A value for the Host header: a host, with or without a port.
pub fn host_header(text: &str) -> Parsed<String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (text, "80"),
    };
    let port_is_valid = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if port_is_valid && matches!(host(name), Ok(HostPattern::Exact(_))) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not a host; expected for example \"app.internal\" or \"app.internal:9000\"", quoted(text)))
}

/// Normalises `path`, a part of `text`, as the paths of requests are normalised.
fn plain_path(text: &str, path: &str) -> Parsed<String> {
    let wrong = |why: &str| Err(format!("{} {why}", quoted(text)));
    if !path.starts_with('/') {
        return wrong("does not begin with a slash; expected for example \"/chat\" or \"/live/*\"");
    }
    if path.contains(['{', '}']) {
        return wrong("has a \"{\" or \"}\" inside a segment; a name is a whole segment, for example \"/room/{id}\"");
    }
    if path.contains('*') {
        return wrong("has a \"*\" that is not its last segment; expected for example \"/live/*\"");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\".contains(&b)) {
        return wrong("has a character not allowed in a path; percent-encode it, and omit the query");
    }
    let normal = normal_path(path);
    if normal.matches('/').count() != path.matches('/').count() || normal.ends_with('/') != path.ends_with('/') {
        return wrong("has a dot segment; write the resolved path");
    }
    if normal.contains("%25") && !path.contains("%25") {
        return wrong("has a \"%\" without two hex digits; encode it as \"%25\"");
    }
    Ok(normal.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let exact = |host: &str| HostPattern::Exact(host.into());
        for (text, pattern) in [
            ("example.com", exact("example.com")),
            ("Example.COM.", exact("example.com")),
            ("localhost", exact("localhost")),
            ("10.0.0.1", exact("10.0.0.1")),
            ("[2001:DB8::0:1]", exact("[2001:db8::1]")),
            ("*.Example.com", HostPattern::Under(".example.com".into())),
        ] {
            assert_eq!(host(text), Ok(pattern), "{text}");
        }
        for (text, why) in [
            ("", "is not a host"),
            ("*", "is not a host"),
            ("*.", "is not a host"),
            ("*.10.0.0.1", "is not a host"),
            ("a.*.com", "is not a host"),
            ("*x.com", "is not a host"),
            ("bücher.de", "punycode"),
            ("example.com:80", "has a port"),
            ("::1", "in brackets"),
            ("[::1]:80", "has a port"),
            ("[x]", "is not an IPv6 address"),
            ("ws://example.com", "omit scheme"),
            ("example.com/x", "omit scheme and path"),
        ] {
            assert!(host(text).is_err_and(|e| e.contains(why)), "{text}");
        }
    }

    #[test]
    fn paths() {
        let exact = |path: &str| PathPattern::Exact(path.into());
        let under = |path: &str| PathPattern::Under(path.into());
        for (text, pattern) in [
            ("/", exact("/")),
            ("/chat", exact("/chat")),
            ("/chat/", exact("/chat/")),
            ("/%63hat/%2f", exact("/chat/%2F")),
            ("/*", under("")),
            ("/live/*", under("/live")),
            ("/live//*", under("/live/")),
            ("/100%25", exact("/100%25")),
        ] {
            assert_eq!(path(text), Ok(pattern), "{text}");
        }
        for (text, why) in [
            ("", "begin with a slash"),
            ("chat", "begin with a slash"),
            ("*", "begin with a slash"),
            ("/live*", "not its last segment"),
            ("/*/x", "not its last segment"),
            ("/a?b", "omit the query"),
            ("/a b", "percent-encode"),
            ("/ü", "percent-encode"),
            ("/a/../b", "dot segment"),
            ("/a/.", "dot segment"),
            ("/..", "dot segment"),
            ("/%2e/*", "dot segment"),
            ("/100%", "%25"),
        ] {
            assert!(path(text).is_err_and(|e| e.contains(why)), "{text}: {:?}", path(text));
        }
    }

    #[test]
    fn prefixes_to_strip() {
        for (text, pattern, prefix) in [
            ("/live", "/live/*", "/live"),
            ("/live/", "/live/*", "/live"),
            ("/%6cive", "/live/v1/*", "/live"),
            ("/live/v1", "/live/*", "/live/v1"),
            ("/live", "/*", "/live"),
            ("/live", "/live/x", "/live"),
            ("/live", "/live", "/live"),
        ] {
            assert_eq!(strip_prefix(text, &path(pattern).unwrap()), Ok(prefix.into()), "{text} {pattern}");
        }
        for (text, pattern, why) in [
            ("/", "/*", "removes nothing"),
            ("//", "/*", "removes nothing"),
            ("/live", "/lively/*", "is not a prefix of"),
            ("/live/x", "/live", "is not a prefix of"),
            ("live", "/live", "begin with a slash"),
            ("/live/*", "/live/*", "last segment"),
        ] {
            let parsed = strip_prefix(text, &path(pattern).unwrap());
            assert!(parsed.as_ref().is_err_and(|e| e.contains(why)), "{text} {pattern}: {parsed:?}");
        }
    }

    #[test]
    fn host_headers() {
        for good in ["app.internal", "App:9000", "10.0.0.1:80", "[::1]", "[::1]:80"] {
            assert_eq!(host_header(good), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a\r\nX: y", "a:x", "a:65536", "*.a", "a:", "[::1]x"] {
            assert!(host_header(bad).is_err(), "{bad}");
        }
    }
}
