//! The path that is sent upstream.

use super::path::{after_segments, decoded, is_under, normal_path, without_dots};
use super::pattern::Pattern;
use super::template::{Template, Variables};
use crate::proto::http1::climbs;
use std::borrow::Cow;

/// What a route does to the path of a request: one rule, then a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathRewrite {
    pub rule: PathRule,
    /// Goes in front of what the rule leaves, behind the endpoint's own path. Normalised: `/live`,
    /// never a slash at the end. Or empty.
    pub add_prefix: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathRule {
    /// The client's path.
    #[default]
    Keep,
    /// Removed from the start of the path, at a segment boundary. Normalised, as `add_prefix` is.
    Strip(String),
    /// Every match of the pattern is replaced.
    Replace(Replacement),
    /// The path is this one, whatever the client's is.
    Path(Template),
}

/// A pattern, and what replaces its matches. Its time is linear in the length of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    pub pattern: Pattern,
    pub template: Template,
}

impl PathRewrite {
    /// The path (without query) to send to `endpoint_base` (the endpoint's own path, `""` or
    /// `/base`): base, then `add_prefix`, then what the rule makes of the client's path. Always
    /// begins with a slash, stays below base and prefix, and holds no character that a target may
    /// not hold. Below, "base" is both of them.
    ///
    /// - The rule leaves the path alone and there is no base: the client's bytes, whatever they
    ///   are.
    /// - `Keep` and `Strip`, if the path holds no dot segment: its segments are those of the
    ///   normalised copy one by one, however they are encoded. The first ones are cut off, the base
    ///   goes in front, the rest are the client's bytes.
    /// - Else the rest comes from the normalised copy. With dot segments, what the client's bytes
    ///   mean below another base depends on who resolves them: `/a//../../x` is `/x` by RFC 3986,
    ///   but climbs out of `/base` at a server that merges slashes first.
    /// - `Replace` looks at the normalised copy. A path that it does not match is treated as with
    ///   `Keep`. What it and `Path` give is normalised again, since pieces that are harmless can be
    ///   put together to a dot segment or an escape.
    /// - Where encoded slashes would lead above the base at a server that decodes them first, they
    ///   are resolved here like any other.
    /// - Slashes at the start are made one where the path was rewritten and no base is put in
    ///   front: `//host/x` as a target can be read as an authority.
    pub fn apply<'a>(&self, endpoint_base: &str, variables: &Variables<'a>) -> Cow<'a, str> {
        let base = match self.add_prefix.as_str() {
            "" => Cow::Borrowed(endpoint_base),
            prefix => Cow::Owned(format!("{endpoint_base}{prefix}")),
        };
        let path = variables.facts.request.path;
        match &self.rule {
            PathRule::Keep => without_prefix("", &base, path),
            PathRule::Strip(prefix) => without_prefix(prefix, &base, path),
            PathRule::Replace(replacement) => match replacement.apply(path, variables) {
                Some(replaced) => below(&base, &safe(&replaced)).into(),
                None => without_prefix("", &base, path),
            },
            PathRule::Path(template) => below(&base, &safe(&template.target(variables))).into(),
        }
    }
}

impl Replacement {
    /// `path` with every match replaced, or `None` if there is no match.
    fn apply(&self, path: &str, variables: &Variables<'_>) -> Option<String> {
        self.pattern.replace_all(&normal_path(path), |groups| self.template.replacement(variables, groups))
    }
}

/// The client's bytes below `base`, without `prefix` if they are under it.
fn without_prefix<'a>(prefix: &str, base: &str, path: &'a str) -> Cow<'a, str> {
    let decoded = decoded(path);
    let normal = without_dots(&decoded);
    let strips = !prefix.is_empty() && is_under(&normal, prefix);
    if !strips && base.is_empty() {
        return if path.starts_with('/') { path.into() } else { normal.into_owned().into() };
    }
    let source = if decoded == normal { path } else { &normal };
    let rest = if strips { after_segments(source, prefix.matches('/').count()) } else { source };
    below(base, &contained(rest)).into()
}

/// `rest` below `base`.
fn below(base: &str, rest: &str) -> String {
    match base {
        "" => format!("/{}", rest.trim_start_matches('/')),
        base => format!("{base}{rest}"),
    }
}

/// What was put together from pieces, as a path: normalised, without an encoded NUL, which ends a
/// path at some servers, and contained. Empty or with its slash.
fn safe(rendered: &str) -> String {
    let slash = if rendered.starts_with('/') { "" } else { "/" };
    let normal = normal_path(&format!("{slash}{rendered}")).replace("%00", "%2500");
    contained(&normal).into_owned()
}

/// `rest` as it is, unless it leads above its start for a server that takes an encoded slash for a
/// slash: then with all slashes plain and merged, and the dot segments between them resolved.
fn contained(rest: &str) -> Cow<'_, str> {
    if !climbs(rest, true) {
        return rest.into();
    }
    let plain = decoded(rest).replace("%2F", "/");
    let merged: Vec<_> = plain.split('/').filter(|segment| !segment.is_empty()).collect();
    without_dots(&format!("/{}", merged.join("/"))).into_owned().into()
}

#[cfg(test)]
mod tests;
