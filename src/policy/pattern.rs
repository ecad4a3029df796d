//! Regular expressions over the bytes of requests, in time linear in their length. Classes such as
//! `\w`, and `(?i)`, know ASCII only. A build without the feature `regex` compiles none.

use std::cmp::Ordering;

/// The compiled size of one regular expression, and of the cache of its automaton.
#[cfg(feature = "regex")]
const PATTERN_BYTES: usize = 256 << 10;

/// A compiled regular expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

#[cfg(feature = "regex")]
type Regex = regex::bytes::Regex;
#[cfg(not(feature = "regex"))]
type Regex = std::convert::Infallible;

/// The groups of a match by their number; 0 is the whole match.
pub type Groups<'m> = &'m dyn Fn(usize) -> Option<&'m str>;

impl Pattern {
    /// Matches anywhere in a value. The error is the rest of a sentence.
    pub fn new(source: &str) -> Result<Pattern, String> {
        Ok(Pattern { source: source.to_owned(), regex: compile(source)? })
    }

    /// Matches whole values.
    pub fn whole(source: &str) -> Result<Pattern, String> {
        // Alone first: `a)|(b` is no expression, although it would be one in the group.
        compile(source)?;
        Ok(Pattern { source: source.to_owned(), regex: compile(&format!(r"\A(?:{source})\z"))? })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        is_match(&self.regex, value)
    }

    /// The name of each group, if it has one; the first is the whole match.
    pub fn groups(&self) -> Vec<Option<String>> {
        groups(&self.regex)
    }

    /// `path`, which is ASCII, with every match replaced, or `None` if there is no match.
    pub fn replace_all(&self, path: &str, replacement: impl Fn(Groups<'_>) -> String) -> Option<String> {
        replace_all(&self.regex, path, replacement)
    }
}

#[cfg(feature = "regex")]
fn compile(source: &str) -> Result<Regex, String> {
    let mut builder = regex::bytes::RegexBuilder::new(source);
    let compiled = builder.unicode(false).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("is too large a regular expression: it compiles to more than {PATTERN_BYTES} bytes")
        }
        error => {
            // The other lines show the expression, with a mark under the place.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default();
            format!("is not a regular expression: {}", why.strip_prefix("error: ").unwrap_or(why))
        }
    })
}

#[cfg(feature = "regex")]
fn is_match(regex: &Regex, value: &[u8]) -> bool {
    regex.is_match(value)
}

#[cfg(feature = "regex")]
fn groups(regex: &Regex) -> Vec<Option<String>> {
    regex.capture_names().map(|name| name.map(str::to_owned)).collect()
}

#[cfg(feature = "regex")]
fn replace_all(regex: &Regex, path: &str, replacement: impl Fn(Groups<'_>) -> String) -> Option<String> {
    let replace = |matched: &regex::bytes::Captures<'_>| {
        // Of ASCII text every part is text.
        let group = |index| str::from_utf8(matched.get(index)?.as_bytes()).ok();
        replacement(&group).into_bytes()
    };
    match regex.replace_all(path.as_bytes(), replace) {
        std::borrow::Cow::Owned(replaced) => String::from_utf8(replaced).ok(),
        std::borrow::Cow::Borrowed(_) => None,
    }
}

#[cfg(not(feature = "regex"))]
fn compile(_: &str) -> Result<Regex, String> {
    Err("cannot be compiled: this build has no regular expressions (feature \"regex\")".to_owned())
}

#[cfg(not(feature = "regex"))]
fn groups(regex: &Regex) -> Vec<Option<String>> {
    match *regex {}
}

#[cfg(not(feature = "regex"))]
fn replace_all(regex: &Regex, _: &str, _: impl Fn(Groups<'_>) -> String) -> Option<String> {
    match *regex {}
}

#[cfg(not(feature = "regex"))]
fn is_match(regex: &Regex, _: &[u8]) -> bool {
    match *regex {}
}

/// The same source, compiled by the same constructor: one kind of pattern is never compared with
/// the other.
impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Pattern) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Pattern) -> Ordering {
        self.source.cmp(&other.source)
    }
}
