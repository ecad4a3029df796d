//! What the `{name}` segments of a route's path stand for in the path of one request.

use std::sync::Arc;

/// Name and text of each capture, in the order of the pattern. The text is what the client wrote,
/// percent-encoded, and never a dot segment; that of `{*rest}` is without its first slash, and may
/// be empty. Allocates nothing where a path has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(Option<Box<Pairs>>);

/// Boxed: what a request has is part of what an idle client takes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pairs(Vec<(Arc<str>, String)>);

impl Captures {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, text)| text)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| &pairs.0).map(|(name, text)| (&**name, text.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl FromIterator<(Arc<str>, String)> for Captures {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, String)>>(captures: I) -> Captures {
        let pairs: Vec<_> = captures.into_iter().collect();
        Captures((!pairs.is_empty()).then(|| Box::new(Pairs(pairs))))
    }
}
