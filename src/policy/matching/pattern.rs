//! Patterns of hosts and paths: what they match, what one has in common with another, and what the
//! names of a path stand for.

use super::captures::Captures;
use crate::policy::path::after_segments;
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

/// The hosts that a route serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// A host as [`crate::policy::path::normal_host`] gives it.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: one or more labels before it.
    Under(String),
    Any,
}

impl HostPattern {
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host == exact,
            HostPattern::Under(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            HostPattern::Any => true,
        }
    }

    /// The more specific, the smaller.
    pub(super) fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            HostPattern::Exact(_) => (0, Reverse(0)),
            HostPattern::Under(suffix) => (1, Reverse(suffix.len())),
            HostPattern::Any => (2, Reverse(0)),
        }
    }

    /// It matches every host that `other` matches.
    pub(super) fn covers(&self, other: &HostPattern) -> bool {
        match (self, other) {
            (HostPattern::Any, _) => true,
            (this, HostPattern::Exact(host)) => this.matches(host),
            (HostPattern::Under(suffix), HostPattern::Under(longer)) => longer.ends_with(suffix.as_str()),
            _ => false,
        }
    }
}

impl fmt::Display for HostPattern {
    /// As in the file; empty for any host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Under(suffix) => write!(f, "*{suffix}"),
            HostPattern::Any => Ok(()),
        }
    }
}

/// The paths that a route serves. All text in it is as [`crate::policy::path::normal_path`] gives
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    Exact(String),
    /// `/live/*`, kept as `/live`: that path itself and all below it. Empty for `/*`.
    Under(String),
    /// With names.
    Template(PathTemplate),
}

/// `/room/{id}/*`: at least one segment is a name, or the rest has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    pub segments: Vec<TemplateSegment>,
    pub rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateSegment {
    Literal(String),
    /// `{name}`: any one segment that is not empty.
    Name(Arc<str>),
}

/// What may follow the segments of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// `*`: anything at a segment boundary, also nothing.
    Any,
    /// `{*name}`: the same, captured.
    Name(Arc<str>),
}

/// One segment of any path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Literal(&'a str),
    Name,
}

impl Segment<'_> {
    pub fn matches(self, segment: &str) -> bool {
        match self {
            Segment::Literal(literal) => literal == segment,
            Segment::Name => !segment.is_empty(),
        }
    }

    fn covers(self, other: Segment<'_>) -> bool {
        match other {
            Segment::Literal(literal) => self.matches(literal),
            Segment::Name => self == Segment::Name,
        }
    }
}

/// The segments of a path that begins with a slash.
pub(super) fn segments_of(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

impl PathPattern {
    /// `path` is normalised.
    pub fn matches(&self, path: &str) -> bool {
        let mut path = segments_of(path);
        self.segments().into_iter().all(|segment| path.next().is_some_and(|has| segment.matches(has)))
            && (self.has_rest() || path.next().is_none())
    }

    /// Some path that it matches is `prefix` or below it. `prefix` is normalised and has no slash
    /// at the end.
    pub fn can_begin_with(&self, prefix: &str) -> bool {
        let own = self.segments();
        let mut prefix = segments_of(prefix);
        let agree = own.into_iter().all(|segment| prefix.next().is_none_or(|wanted| segment.matches(wanted)));
        agree && (self.has_rest() || prefix.next().is_none())
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<&str> {
        let PathPattern::Template(template) = self else { return Vec::new() };
        let names = template.segments.iter().filter_map(|segment| match segment {
            TemplateSegment::Name(name) => Some(&**name),
            TemplateSegment::Literal(_) => None,
        });
        let rest = match &template.rest {
            Rest::Name(name) => Some(&**name),
            Rest::Nothing | Rest::Any => None,
        };
        names.chain(rest).collect()
    }

    /// What the names stand for in `path`, which has the segments of a path that matches.
    pub(super) fn captures(&self, path: &str) -> Captures {
        let PathPattern::Template(template) = self else { return Captures::default() };
        let named = template.segments.iter().zip(segments_of(path)).filter_map(|(segment, text)| match segment {
            TemplateSegment::Name(name) => Some((Arc::clone(name), text.to_owned())),
            TemplateSegment::Literal(_) => None,
        });
        let rest = match &template.rest {
            Rest::Name(name) => {
                let rest = after_segments(path, template.segments.len());
                Some((Arc::clone(name), rest.strip_prefix('/').unwrap_or(rest).to_owned()))
            }
            Rest::Nothing | Rest::Any => None,
        };
        named.chain(rest).collect()
    }

    pub(super) fn segments(&self) -> Vec<Segment<'_>> {
        match self {
            PathPattern::Under(prefix) if prefix.is_empty() => Vec::new(),
            PathPattern::Exact(path) | PathPattern::Under(path) => segments_of(path).map(Segment::Literal).collect(),
            PathPattern::Template(template) => {
                let segments = template.segments.iter().map(|segment| match segment {
                    TemplateSegment::Literal(literal) => Segment::Literal(literal),
                    TemplateSegment::Name(_) => Segment::Name,
                });
                segments.collect()
            }
        }
    }

    /// Whether anything may follow the segments.
    pub(super) fn has_rest(&self) -> bool {
        match self {
            PathPattern::Exact(_) => false,
            PathPattern::Under(_) => true,
            PathPattern::Template(template) => template.rest != Rest::Nothing,
        }
    }

    /// The more specific, the smaller: segment by segment from the left, a literal before a name
    /// before the rest; where one ends, it is before the other's rest.
    pub(super) fn rank(&self) -> Vec<u8> {
        let kind = |segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Name => 1,
        };
        let rest = self.has_rest().then_some(2);
        self.segments().into_iter().map(kind).chain(rest).collect()
    }

    pub(super) fn shape(&self) -> Shape<'_> {
        Shape { segments: self.segments(), rest: self.has_rest() }
    }
}

/// A path pattern without its names, taken apart once to be compared with many others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape<'a> {
    segments: Vec<Segment<'a>>,
    /// Anything may follow them.
    rest: bool,
}

impl Shape<'_> {
    /// It matches every path that `other` matches.
    pub fn covers(&self, other: &Shape<'_>) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let fits = if self.rest { own <= others } else { own == others && !other.rest };
        fits && self.segments.iter().zip(&other.segments).all(|(own, other)| own.covers(*other))
    }

    /// Some path matches both.
    pub fn overlaps(&self, other: &Shape<'_>) -> bool {
        let (own, others) = (self.segments.len(), other.segments.len());
        let fits = own == others || if own < others { self.rest } else { other.rest };
        fits && self.segments.iter().zip(&other.segments).all(|(own, other)| own.covers(*other) || other.covers(*own))
    }
}

impl fmt::Display for PathPattern {
    /// As in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let template = match self {
            PathPattern::Exact(path) => return f.write_str(path),
            PathPattern::Under(prefix) => return write!(f, "{prefix}/*"),
            PathPattern::Template(template) => template,
        };
        for segment in &template.segments {
            match segment {
                TemplateSegment::Literal(literal) => write!(f, "/{literal}")?,
                TemplateSegment::Name(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match &template.rest {
            Rest::Nothing => Ok(()),
            Rest::Any => f.write_str("/*"),
            Rest::Name(name) => write!(f, "/{{*{name}}}"),
        }
    }
}
