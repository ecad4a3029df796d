//! Files of a directory that a route serves: which of them a request is for. What is there, and
//! whether the client has it already, is seen by the thread that opens it (`crate::files`).

use super::path::{hex, normal_path};
use super::rewrite::PathRewrite;
use super::template::Variables;
use crate::proto::end::Cause;
use crate::proto::files::Conditions;
use std::path::Path;
use std::sync::Arc;

/// The longest name that a file of Linux can have.
const NAME_MAX: usize = 255;

/// A directory that a route serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Opened anew for every request: what it names may change.
    pub root: Arc<Path>,
    /// The file that stands for its directory.
    pub index: Arc<str>,
}

/// The file that an admitted request is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub files: Files,
    /// Below the root: names with slashes between them, none of which is empty, hidden, `.` or
    /// `..`, or has a slash, a backslash or a control byte in it.
    pub path: Vec<u8>,
    /// The path ended with a slash: the index of this directory is meant.
    pub is_directory: bool,
    /// Where a client is sent that has left out the slash behind a directory: a path, which begins
    /// with exactly one slash, and the query.
    pub location: String,
    pub conditions: Conditions,
}

impl Files {
    pub const INDEX: &'static str = "index.html";

    /// The file for an admitted request: what an upstream would be asked for, below the root.
    ///
    /// # Errors
    /// [`Cause::FileMethod`], and [`Cause::NoFile`] for a path that names none, whatever the
    /// directory holds.
    pub fn find(&self, variables: &Variables<'_>, rewrite: &PathRewrite) -> Result<Box<Wanted>, Cause> {
        let request = variables.facts.request;
        if !matches!(request.method, "GET" | "HEAD") {
            return Err(Cause::FileMethod);
        }
        let asked = normal_path(request.path);
        let path = rewrite.apply("", variables);
        let (path, is_directory) = names(&normal_path(&path), asked.starts_with("/.well-known/"))?;
        // `//host` is a host to a browser, whatever put the slashes there.
        let location = format!("/{}/{}", asked.trim_matches('/'), request.query);
        let conditions = Conditions::of(request);
        Ok(Box::new(Wanted { files: self.clone(), path, is_directory, location, conditions }))
    }
}

/// The names in a normalised path, decoded, and whether a slash follows them.
fn names(path: &str, well_known: bool) -> Result<(Vec<u8>, bool), Cause> {
    let mut names = Vec::with_capacity(path.len());
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() {
            // Two slashes are not one: `//private/x` is not matched by the route of `/private/*`.
            return if segments.peek().is_none() { Ok((names, true)) } else { Err(Cause::NoFile) };
        }
        let name = decoded(segment).filter(|name| is_name(name)).ok_or(Cause::NoFile)?;
        // RFC 8615: of the names with a dot, this one is meant for the public.
        let is_public = well_known && names.is_empty() && name == b".well-known";
        if name.starts_with(b".") && !is_public {
            return Err(Cause::NoFile);
        }
        if !names.is_empty() {
            names.push(b'/');
        }
        names.extend_from_slice(&name);
    }
    Ok((names, false))
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME_MAX && !name.iter().any(|byte| matches!(byte, 0..0x20 | 0x7F | b'/' | b'\\'))
}

/// One level of percent-encoding decoded.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut parts = segment.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(hex(part.get(..2)?)?);
        out.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Facts;
    use crate::policy::matching::Captures;
    use crate::proto::http1::parse_request;
    use proptest::prelude::*;

    #[test]
    fn a_path_names_a_file_below_the_root() {
        for (path, name, is_directory) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("/a/b.html", "a/b.html", false),
            ("/a%20b/%C3%A9", "a b/\u{e9}", false),
            ("/%252e%252e/x", "%2e%2e/x", false),
            ("/a..b/c.", "a..b/c.", false),
        ] {
            assert_eq!(names(path, false), Ok((name.as_bytes().to_vec(), is_directory)), "{path}");
        }
    }

    #[test]
    fn a_path_that_names_no_file_is_refused() {
        let long = format!("/{}", "a".repeat(256));
        for path in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/../a",
            "/.git/config",
            "/a/.htaccess",
            "/a/..",
            "/%2Fetc",
            "/a%2Fb",
            "/a%5Cb",
            "/..%2Fa",
            "/..%5Ca",
            "/a%00",
            "/a%0A",
            "/a%7F",
            "/%",
            "/%2",
            "/%zz",
            "/...",
            &long,
            "/.well-known",
            "/.well-known/x",
        ] {
            assert_eq!(names(path, false), Err(Cause::NoFile), "{path}");
        }
        assert_eq!(names("/.well-known/x", true), Ok((b".well-known/x".to_vec(), false)));
        for path in ["/.well-known/.x", "/a/.well-known/x", "/.well-known2/x"] {
            assert_eq!(names(path, true), Err(Cause::NoFile), "{path}");
        }
    }

    #[track_caller]
    fn find(line: &str, rewrite: &PathRewrite) -> Result<Box<Wanted>, Cause> {
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        let request = parse_request(head.as_bytes()).unwrap();
        let (facts, captures) = (Facts::of(&request), Captures::default());
        let variables = Variables { facts: &facts, route: "r", captures: &captures, identity: None };
        let files = Files { root: Path::new("/srv").into(), index: Files::INDEX.into() };
        files.find(&variables, rewrite)
    }

    proptest! {
        /// Whatever is asked for, what is opened is a way down.
        #[test]
        fn a_path_leads_down(path in "(/|%2f|%2F|%5c|\\.|%2e|%2E|%25|a|B|%00|%c0%ae|\u{e9}|%|;|~| ){0,24}") {
            for well_known in [false, true] {
                let path = normal_path(&path);
                let Ok((names, is_directory)) = names(&path, well_known) else { continue };
                prop_assert!(!names.starts_with(b"/") && !names.ends_with(b"/"));
                prop_assert_eq!(is_directory, path.ends_with('/'));
                for name in names.split(|byte| *byte == b'/').filter(|_| !names.is_empty()) {
                    prop_assert!(!name.is_empty() && !name.starts_with(b".") && is_name(name), "{path}");
                }
            }
        }
    }

    #[test]
    fn the_path_is_that_for_an_upstream() {
        use crate::policy::rewrite::PathRule;
        let strip = PathRewrite { rule: PathRule::Strip("/app".into()), add_prefix: String::new() };
        let add = PathRewrite { rule: PathRule::Keep, add_prefix: "/v2".into() };
        for (rewrite, path, name) in [
            (&PathRewrite::default(), "/app/x", "app/x"),
            (&strip, "/app/x", "x"),
            (&strip, "/app", ""),
            (&strip, "/appx", "appx"),
            (&add, "/x", "v2/x"),
        ] {
            let wanted = find(&format!("GET {path}"), rewrite).unwrap();
            assert_eq!(String::from_utf8(wanted.path).unwrap(), name, "{path}");
        }
        // What is hidden stays so, wherever it comes to stand.
        assert_eq!(find("GET /app/.well-known/x", &strip), Err(Cause::NoFile));
        assert!(find("GET /.well-known/x", &PathRewrite::default()).is_ok());
    }

    #[test]
    fn a_redirect_leads_to_this_host() {
        let keep = PathRewrite::default();
        for (target, location) in
            [("/a", "/a/"), ("/a?x=1&y=//z", "/a/?x=1&y=//z"), ("/b/../a", "/a/"), ("/%61", "/a/")]
        {
            assert_eq!(find(&format!("GET {target}"), &keep).unwrap().location, location);
        }
        use crate::policy::rewrite::PathRule;
        let strip = PathRewrite { rule: PathRule::Strip("/".into()), add_prefix: String::new() };
        for rewrite in [keep, strip] {
            let found = find("GET //evil.example", &rewrite);
            assert!(found.as_ref().map_or(true, |wanted| !wanted.location.starts_with("//")), "{found:?}");
        }
    }

    #[test]
    fn files_are_read_with_get_and_head() {
        for (method, answer) in
            [("GET", None), ("HEAD", None), ("POST", Some(Cause::FileMethod)), ("OPTIONS", Some(Cause::FileMethod))]
        {
            assert_eq!(find(&format!("{method} /a"), &PathRewrite::default()).err(), answer, "{method}");
        }
    }
}
